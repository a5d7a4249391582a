//! `lifeboat wal push | fetch`: what PostgreSQL calls, thousands of times. Nothing else of the program is set up for it.
//!
//! Exit codes are part of PostgreSQL's contract: of a `restore_command`, 1 means "not there" and ends recovery, so only a
//! definite answer may give it; everything else, a panic included, gives 255, which stops the server loudly.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use crate::inventory::{Encryption, Recipient, SecretRef};
use crate::store::Keys;
use crate::system::postgres::engine::Engine;
use crate::system::postgres::wal::{Compression, Fetch, Fetched, Location, Origin, Pushed, push};

const FAILED_PUSH: u8 = 1;
const NOT_THERE: u8 = 1;
const FAILED_FETCH: u8 = 255;

/// For `--help`; what PostgreSQL calls never comes through here.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// archive_command = 'lifeboat wal push --store URL --prefix SYSTEM %p'
    Push {
        /// The bucket: file:///directory, s3://bucket/prefix, az://container/prefix or gs://bucket/prefix
        #[arg(long, value_name = "URL")]
        store: String,
        /// The system's folder in it
        #[arg(long, value_name = "FOLDER")]
        prefix: Option<String>,
        /// For s3: a file with aws_access_key_id and aws_secret_access_key; for az: a line `account_key = …` or
        /// `sas_token = …`; for gs: a service account's JSON. Otherwise the usual places are looked at
        #[arg(long, value_name = "FILE")]
        keys: Option<PathBuf>,
        /// A public key of age to encrypt to, age1…; may be given several times
        #[arg(long, value_name = "RECIPIENT")]
        encrypt_to: Vec<String>,
        /// zstd, unless this says off: for a store that compresses by itself, or a server without time to spare
        #[arg(long, value_name = "zstd|off")]
        compression: Option<String>,
        /// %p
        #[arg(value_name = "PATH")]
        path: PathBuf,
    },
    /// restore_command = 'lifeboat wal fetch --store URL --prefix SYSTEM %f %p'
    Fetch {
        /// The bucket: file:///directory, s3://bucket/prefix, az://container/prefix or gs://bucket/prefix
        #[arg(long, value_name = "URL", required_unless_present = "engine")]
        store: Option<String>,
        /// The system's folder in it
        #[arg(long, value_name = "FOLDER")]
        prefix: Option<String>,
        /// For s3: a file with aws_access_key_id and aws_secret_access_key; for az: a line `account_key = …` or
        /// `sas_token = …`; for gs: a service account's JSON. Otherwise the usual places are looked at
        #[arg(long, value_name = "FILE")]
        keys: Option<PathBuf>,
        /// The private key for what is encrypted, as age-keygen writes it
        #[arg(long, value_name = "FILE")]
        identity: Option<PathBuf>,
        /// Instead of a bucket, the program that keeps the WAL: pgbackrest, barman or wal-g
        #[arg(long, value_name = "ENGINE", conflicts_with_all = ["store", "prefix", "keys", "identity"])]
        engine: Option<String>,
        /// What that program calls the server: pgBackRest's stanza, Barman's server
        #[arg(long = "name", id = "engine_name", value_name = "NAME", requires = "engine")]
        engine_name: Option<String>,
        /// Where that program is [default: as the engine is called, by PATH]
        #[arg(long, value_name = "FILE", requires = "engine")]
        program: Option<PathBuf>,
        /// Its configuration [default: where it looks itself]
        #[arg(long, value_name = "FILE", requires = "engine")]
        config: Option<PathBuf>,
        /// Where a restore under way stages segments
        #[arg(long, value_name = "DIR")]
        stage: Option<PathBuf>,
        /// %f
        #[arg(value_name = "NAME")]
        name: String,
        /// %p
        #[arg(value_name = "PATH")]
        path: PathBuf,
    },
}

/// Only reached when the words are in an order that [`fast_path`] does not take, like `lifeboat --plain wal push`.
pub fn usage(args: Args) -> super::error::Result<ExitCode> {
    let word = match args.command {
        Command::Push { .. } => "push",
        Command::Fetch { .. } => "fetch",
    };
    Err(super::error::CliError::usage(
        crate::event::Failure::new(format!("`wal {word}` takes no options before it"), "it was not run")
            .now(format!("Write: lifeboat wal {word} …")),
    ))
}

/// One of the two commands, on the words behind it. Returns its exit code.
type Run = fn(&[OsString]) -> Result<u8, String>;

/// Runs the command when `args` (with the program's name) is one of the two; `None` otherwise, and for `--help`.
pub fn fast_path(args: &[OsString]) -> Option<ExitCode> {
    let is = |at: usize, word: &str| args.get(at).is_some_and(|arg| arg == word);
    if !is(1, "wal") || args.iter().any(|arg| arg == "--help" || arg == "-h") {
        return None;
    }
    let rest = args.get(3..).unwrap_or_default();
    let (failed, command): (u8, Run) = match () {
        () if is(2, "push") => (FAILED_PUSH, run_push),
        () if is(2, "fetch") => (FAILED_FETCH, run_fetch),
        () => return None,
    };
    let code = match std::panic::catch_unwind(|| command(rest)) {
        Ok(Ok(code)) => code,
        Ok(Err(message)) => {
            eprintln!("lifeboat wal: {message}");
            failed
        }
        // The panic's message is on standard error already.
        Err(_) => failed,
    };
    Some(ExitCode::from(code))
}

fn run_push(args: &[OsString]) -> Result<u8, String> {
    let (options, files) = Options::read(args)?;
    let [path] = files.as_slice() else { return Err("push takes one file: %p".to_owned()) };
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| error.to_string())?;
    let pushed = runtime.block_on(async {
        let bucket = options.location()?.open().map_err(|e| e.to_string())?;
        push(&bucket, Path::new(path), options.compression).await.map_err(|e| e.to_string())
    })?;
    match pushed {
        Pushed::Stored | Pushed::AlreadyThere => Ok(0),
    }
}

fn run_fetch(args: &[OsString]) -> Result<u8, String> {
    let (options, files) = Options::read(args)?;
    let [name, path] = files.as_slice() else { return Err("fetch takes two words: %f %p".to_owned()) };
    let name = name.to_str().ok_or("the file's name is not text")?;
    let fetch = Fetch {
        from: options.origin()?,
        stage: options.stage,
        system_identifier: options.system_identifier,
        end: options.end,
    };
    match fetch.run(name, Path::new(path)).map_err(|error| error.to_string())? {
        Fetched::Restored => Ok(0),
        Fetched::NotThere => Ok(NOT_THERE),
    }
}

#[derive(Default)]
struct Options {
    store: Option<String>,
    engine: Option<String>,
    program: Option<PathBuf>,
    config: Option<PathBuf>,
    name: Option<String>,
    prefix: String,
    keys: Keys,
    encryption: Encryption,
    compression: Compression,
    stage: Option<PathBuf>,
    system_identifier: Option<u64>,
    end: Option<String>,
}

impl Options {
    /// By hand: clap would cost more than the rename.
    fn read(args: &[OsString]) -> Result<(Self, Vec<OsString>), String> {
        let mut options = Self::default();
        let mut files = Vec::new();
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            let Some(option) = arg.to_str().filter(|text| text.starts_with("--")) else {
                files.push(arg.clone());
                continue;
            };
            let value = args.next().ok_or_else(|| format!("{option} needs a value"))?;
            let text = || value.to_str().map(str::to_owned).ok_or_else(|| format!("the value of {option} is not text"));
            match option {
                "--store" => options.store = Some(text()?),
                "--engine" => options.engine = Some(text()?),
                "--program" => options.program = Some(PathBuf::from(value)),
                "--config" => options.config = Some(PathBuf::from(value)),
                "--name" => options.name = Some(text()?),
                "--prefix" => options.prefix = text()?,
                "--keys" => options.keys = Keys::File(PathBuf::from(value)),
                "--encrypt-to" => {
                    options.encryption.encrypt_to.push(Recipient::parse(&text()?).map_err(|bad| bad.to_string())?);
                }
                "--compression" => {
                    options.compression =
                        Compression::parse(&text()?).ok_or("--compression takes zstd or off".to_owned())?;
                }
                "--identity" => options.encryption.identity = Some(SecretRef::File(PathBuf::from(value))),
                "--stage" => options.stage = Some(PathBuf::from(value)),
                "--system-id" => {
                    let id = text()?.parse().map_err(|_| "--system-id takes a number".to_owned())?;
                    options.system_identifier = Some(id);
                }
                "--end" => options.end = Some(text()?),
                other => return Err(format!("{other} is unknown here")),
            }
        }
        Ok((options, files))
    }

    fn origin(&self) -> Result<Origin, String> {
        let Some(word) = &self.engine else { return self.location().map(Origin::Bucket) };
        let program = self.program.clone().unwrap_or_else(|| PathBuf::from(word));
        Engine::from_options(word, program, self.config.clone(), self.name.clone()).map(Origin::Engine)
    }

    fn location(&self) -> Result<Location, String> {
        let url = self.store.clone().ok_or("--store says where the archive is, like file:///backups")?;
        Ok(Location {
            url,
            prefix: self.prefix.clone(),
            keys: self.keys.clone(),
            encryption: self.encryption.clone().into(),
        })
    }
}
