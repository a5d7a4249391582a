//! Other programs that keep base backups and WAL: what they have, their WAL, and a base backup onto the disk. Recovery,
//! settings and assertions are Lifeboat's own whoever kept the bytes.
//!
//! What such a program says is reported, not observed. Its WAL is read through it, so that compression, encryption and
//! the place of its repository stay its own affair.

mod barman;
mod pgbackrest;
pub(super) mod verify;
mod walg;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use chrono::{DateTime, Utc};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use super::catalogue::Catalogue;
use super::connect::Url;
use super::identity::Identity;
use super::report::Reporter;
use crate::event::{BaseBackup, Failure, causes};
use crate::process::{Account, Captured, End, Spec};
use crate::secret::Secret;

pub use barman::Barman;
pub use pgbackrest::PgBackRest;
pub use walg::WalG;

/// Bytes of what such a program says that are kept. A year of WAL of a busy server is listed in a fraction of it.
const MOST_SAID: usize = 512 << 20;

/// A program that keeps base backups and WAL.
#[derive(Debug, Clone)]
pub enum Engine {
    PgBackRest(PgBackRest),
    Barman(Barman),
    WalG(WalG),
}

/// Why such a program did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{program} {command} failed: {why}")]
pub struct EngineError {
    pub program: String,
    pub command: String,
    pub why: String,
}

impl From<EngineError> for Failure {
    fn from(error: EngineError) -> Self {
        let EngineError { program, command, why } = error;
        Self::new(format!("{program} {command} failed"), why)
            .now(format!("run {program} {command} by hand, as the user that owns its repository"))
    }
}

impl Engine {
    /// As the inventory calls it.
    pub fn word(&self) -> &'static str {
        match self {
            Self::PgBackRest(_) => "pgbackrest",
            Self::Barman(_) => "barman",
            Self::WalG(_) => "wal-g",
        }
    }

    /// The words by which `lifeboat wal fetch` finds it again.
    pub fn options(&self) -> Vec<(&'static str, String)> {
        match self {
            Self::PgBackRest(engine) => engine.options(),
            Self::Barman(engine) => engine.options(),
            Self::WalG(engine) => engine.options(),
        }
    }

    /// The reverse of [`Engine::options`], for a process that already is of the right account.
    pub fn from_options(
        word: &str,
        program: PathBuf,
        config: Option<PathBuf>,
        name: Option<String>,
    ) -> Result<Self, String> {
        let name = || name.ok_or_else(|| "--name says which stanza or server of the engine it is".to_owned());
        Ok(match word {
            "pgbackrest" => {
                Self::PgBackRest(PgBackRest { program, config, stanza: name()?, account: None, cluster: None })
            }
            "barman" => Self::Barman(Barman { program, config, server: name()?, account: None }),
            "wal-g" => Self::WalG(WalG { program, config, account: None }),
            _ => return Err(format!("there is no engine {word}")),
        })
    }

    /// Base backups and WAL, as the program reports them.
    pub async fn catalogue(&self) -> Result<Catalogue, Failure> {
        match self {
            Self::PgBackRest(engine) => engine.catalogue().await,
            Self::Barman(engine) => engine.catalogue().await,
            Self::WalG(engine) => engine.catalogue().await,
        }
    }

    /// The cluster whose backups and WAL it keeps; `None` while it says nothing.
    pub async fn system_identifier(&self) -> Result<Option<u64>, Failure> {
        match self {
            Self::PgBackRest(engine) => Ok(engine.system_identifier().await?),
            Self::Barman(engine) => Ok(engine.system_identifier().await?),
            Self::WalG(engine) => engine.system_identifier().await,
        }
    }

    /// The program's own check of its configuration and of archiving; it needs the server, and ends a WAL segment there.
    pub async fn check(&self) -> Result<(), EngineError> {
        match self {
            Self::PgBackRest(engine) => engine.check().await,
            Self::Barman(engine) => engine.check().await,
            Self::WalG(engine) => engine.check().await,
        }
    }

    /// A WAL file's content, by way of a file in `scratch`; `None` when it is definitely not there.
    async fn wal(&self, name: &str, scratch: &Path) -> Result<Option<Vec<u8>>, EngineError> {
        match self {
            Self::PgBackRest(engine) => engine.wal(name, scratch).await,
            Self::Barman(engine) => engine.wal(name).await,
            Self::WalG(engine) => engine.wal(name, scratch).await,
        }
    }

    /// Its command that gives WAL.
    fn wal_command(&self) -> &'static str {
        match self {
            Self::PgBackRest(_) => "archive-get",
            Self::Barman(_) => "get-wal",
            Self::WalG(_) => "wal-fetch",
        }
    }

    /// Puts a base backup into `directory`, which is empty and of the engine's account. What it leaves there of recovery
    /// settings is not Lifeboat's.
    pub async fn restore(
        &self,
        label: &str,
        directory: &Path,
        report: &Reporter,
        cancel: &CancellationToken,
    ) -> Result<(), Failure> {
        match self {
            // It verifies what it restores.
            Self::PgBackRest(engine) => return engine.restore(label, directory, report, cancel).await,
            Self::Barman(engine) => engine.restore(label, directory, report, cancel).await?,
            Self::WalG(engine) => engine.restore(label, directory, report, cancel).await?,
        }
        let (place, stop) = (directory.to_owned(), cancel.clone());
        let verified = tokio::task::spawn_blocking(move || verify::verify(&place, &stop)).await;
        let verified = verified.map_err(|error| Failure::new("verifying the base backup broke off", error))??;
        let says = match verified {
            Some(files) => format!("{files} files are as backup_manifest says"),
            None => format!("{label} has no backup_manifest: its files cannot be verified"),
        };
        report.say(says).await;
        Ok(())
    }

    /// Takes a base backup, as the program is configured to; `source` is the server that it is to be of.
    pub async fn backup(
        &self,
        source: &Secret,
        report: &Reporter,
        cancel: &CancellationToken,
    ) -> Result<BaseBackup, Failure> {
        let url = Url::parse(source)?;
        let identity = Identity::read(&url.connect().await?, &url.address()).await?;
        let own = identity.system_identifier;
        let before = self.catalogue().await?;
        if let Some(other) = before.system_identifier.filter(|other| *other != own) {
            return Err(Failure::new(
                format!("{} would back up another server", self.word()),
                format!("it is configured for system identifier {other}, and the system's URL leads to {own}"),
            )
            .now("put the engine's keys in the inventory right, or its own configuration"));
        }
        match self {
            Self::PgBackRest(engine) => engine.backup(report, cancel).await?,
            Self::Barman(engine) => engine.backup(report, cancel).await?,
            Self::WalG(engine) => {
                let data = identity.data_directory.filter(|data| walg::is_of(data, own));
                engine.backup(data.as_deref(), report, cancel).await?;
            }
        }
        let after = self.catalogue().await?;
        let known = |backup: &BaseBackup| before.backups.iter().any(|other| other.label == backup.label);
        after.backups.into_iter().rfind(|backup| !known(backup)).ok_or_else(|| {
            Failure::new(format!("{} took no backup", self.word()), "it ended well, and lists no new one")
                .now("look into its own log")
        })
    }

    /// The same, for the cluster whose files lie in `data`.
    pub fn of_cluster(self, data: &Path) -> Self {
        match self {
            Self::PgBackRest(engine) => Self::PgBackRest(PgBackRest { cluster: Some(data.to_owned()), ..engine }),
            Self::Barman(_) | Self::WalG(_) => self,
        }
    }

    fn account(&self) -> Option<&Account> {
        match self {
            Self::PgBackRest(engine) => engine.account.as_ref(),
            Self::Barman(engine) => engine.account.as_ref(),
            Self::WalG(engine) => engine.account.as_ref(),
        }
    }
}

/// Reads an engine's WAL, by way of a directory of the engine's account.
#[derive(Debug)]
pub struct Reader {
    engine: Engine,
    scratch: PathBuf,
    files: AtomicU64,
    _own: Option<TempDir>,
}

impl Reader {
    /// By way of a directory that somebody else removes.
    pub fn in_directory(engine: Engine, scratch: &Path) -> Self {
        Self { engine, scratch: scratch.to_owned(), files: AtomicU64::new(0), _own: None }
    }

    /// With a directory of its own. For a cluster of which there may be no files left on this machine.
    pub async fn new(engine: Engine) -> Result<Self, Failure> {
        let failed = |error: std::io::Error| Failure::new("a directory for WAL cannot be made", error);
        let own = tempfile::Builder::new().prefix("lifeboat-wal-").tempdir().map_err(failed)?;
        engine.account().map_or(Ok(()), |account| account.give(own.path())).map_err(failed)?;
        let engine = match engine {
            Engine::PgBackRest(engine) => Engine::PgBackRest(engine.with_control_file(own.path()).await?),
            engine @ (Engine::Barman(_) | Engine::WalG(_)) => engine,
        };
        Ok(Self { scratch: own.path().to_owned(), engine, files: AtomicU64::new(0), _own: Some(own) })
    }

    /// A WAL file's content; `None` when it is definitely not there.
    pub async fn read(&self, name: &str) -> Result<Option<Vec<u8>>, EngineError> {
        // Several are under way at once, perhaps of one name.
        let place =
            self.scratch.join(format!(".engine-{}-{}", std::process::id(), self.files.fetch_add(1, Ordering::Relaxed)));
        self.engine.wal(name, &place).await
    }

    /// The engine's, as the inventory calls it.
    pub fn word(&self) -> &'static str {
        self.engine.word()
    }

    pub(super) fn missing(&self, name: &str) -> EngineError {
        let (program, command) = (self.engine.word().to_owned(), self.engine.wal_command().to_owned());
        EngineError { program, command, why: format!("{name} is not in its archive") }
    }
}

/// The program would put them where the source has them.
fn with_tablespaces(program: &str, label: &str, now: &str) -> Failure {
    Failure::new(
        "a cluster with tablespaces cannot be restored by Lifeboat yet",
        format!("backup {label} of {program} has some"),
    )
    .now(format!("restore it with {now}"))
}

/// The end of a second, for times that are told in whole ones, cut off.
fn end_of(second: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(second.saturating_add(1), 0).unwrap_or_default()
}

/// One run of such a program, to its end.
async fn run(spec: Spec, command: &str, cancel: &CancellationToken) -> Result<Captured, EngineError> {
    let program = spec.name();
    let failed = |why: String| EngineError { program: program.clone(), command: command.to_owned(), why };
    // This program's own directory may be closed to the other account.
    let captured = spec.env("LC_ALL", "C").cwd("/").capture(MOST_SAID, cancel).await;
    let captured = captured.map_err(|error| failed(causes(&error)))?;
    match captured.end {
        End::Exited(_) => Ok(captured),
        End::Signalled(signal) => Err(failed(format!("signal {signal} ended it"))),
        End::Cancelled => Err(failed("it was cancelled".to_owned())),
    }
}

/// What a program said last of its own failure.
fn complaint(captured: &Captured, marks: &[&str]) -> String {
    let (errors, output) = (captured.stderr_text(), captured.stdout_text());
    // Errors come behind what was still well.
    let lines = || output.lines().chain(errors.lines()).map(str::trim).filter(|line| !line.is_empty());
    let marked = lines().find(|line| marks.iter().any(|mark| line.contains(mark)));
    match marked.or_else(|| lines().next_back()) {
        Some(line) => line.to_owned(),
        None => match captured.end {
            End::Exited(code) => format!("it ended with {code} and said nothing"),
            _ => "it said nothing".to_owned(),
        },
    }
}
