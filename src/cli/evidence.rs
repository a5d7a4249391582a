//! `lifeboat report`, `sign` and `verify`; and what a drill leaves behind when it ends.

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use super::Global;
use super::error::{CliError, Result};
use super::{resume, setup};
use crate::engine::Left;
use crate::event::Failure;
use crate::history;
use crate::journal::DrillDir;
use crate::report::sign::{self, FileKey, Role, Signer, agent::Agent};
use crate::report::verify::{Conclusion, Mark, Request, verify as check};
use crate::report::{self};
use crate::secret::Secret;

#[derive(Debug, clap::Args)]
pub struct ReportArgs {
    /// The drill: its directory, its id or the beginning of it
    drill: String,
    /// Print the report to standard output instead of writing its folder
    #[arg(long, value_enum)]
    print: Option<Format>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    Markdown,
    Html,
    Json,
}

#[derive(Debug, clap::Args)]
pub struct SignArgs {
    /// The drill: its directory, its id or the beginning of it; or a report's folder
    drill: String,
    /// For whom you sign
    #[arg(long, value_enum, default_value = "approver")]
    role: RoleArg,
    /// Your name in the allowed_signers file [default: your user name]
    #[arg(long, value_name = "PRINCIPAL")]
    identity: Option<String>,
    /// A private key; with only its .pub beside it, or without this option, the SSH agent signs
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum RoleArg {
    Operator,
    Approver,
}

#[derive(Debug, clap::Args)]
pub struct VerifyArgs {
    /// The drill or its report's folder
    drill: String,
    /// Whose keys you trust; without it the file in the folder is used, and that is said
    #[arg(long, value_name = "FILE")]
    allowed_signers: Option<PathBuf>,
    /// Who must have signed as operator
    #[arg(long, value_name = "PRINCIPAL")]
    operator: Option<String>,
    /// Who must have signed as approver
    #[arg(long, value_name = "PRINCIPAL")]
    approver: Option<String>,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// Writes the report and, with a key, signs it as operator.
pub fn leave(dir: &DrillDir, key: Option<&Path>) -> Result<Left> {
    let written = report::write(dir.path()).map_err(|error| CliError::failed(error.failure()))?;
    let mut left = Left { report: written.dir.clone(), signed: false, lines: Vec::new() };
    let Some(key) = key else {
        left.lines.push(format!("unsigned; sign it with: lifeboat sign --role operator {}", dir.path().display()));
        return Ok(left);
    };
    // A report that could not be signed is still a report: it says that it is unsigned.
    match sign_with(&written.dir, Role::Operator, &written.statement.operator, Some(key)) {
        Ok(fingerprint) => {
            left.signed = true;
            left.lines.push(format!("signed by {} ({fingerprint})", written.statement.operator));
        }
        Err(failure) => left.lines.push(format!("UNSIGNED: {failure}")),
    }
    let beside = key.with_file_name("allowed_signers");
    if left.signed && beside.exists() {
        let copied = std::fs::copy(&beside, written.dir.join("allowed_signers"));
        copied.map_err(|error| CliError::failed(Failure::new("cannot copy allowed_signers", error)))?;
    }
    Ok(left)
}

/// Signs what an engine without a terminal could not: here the passphrase can be asked for.
pub fn sign_at_the_terminal(dir: &DrillDir, left: Left, key: Option<&Path>) -> Left {
    match key.filter(|_| !left.signed && std::io::stdin().is_terminal()) {
        Some(key) => leave(dir, Some(key)).unwrap_or(left),
        None => left,
    }
}

fn sign_with(dir: &Path, role: Role, principal: &str, key: Option<&Path>) -> std::result::Result<String, Failure> {
    let signer: Box<dyn Signer> = match key.filter(|key| key.exists()) {
        Some(key) => Box::new(FileKey::open(key, passphrase).map_err(|error| error.failure())?),
        None => {
            let keys = Agent::from_env().and_then(|agent| agent.keys()).map_err(|error| error.failure())?;
            Box::new(keys.into_iter().next().ok_or_else(|| {
                Failure::new("the statement is not signed", "the SSH agent holds no key that Lifeboat can sign with")
                    .now("Load an Ed25519 key: ssh-add ~/.ssh/id_ed25519, or name a file with --key.")
            })?)
        }
    };
    let signed = sign::sign(dir, role, principal, &*signer).map_err(|error| error.failure())?;
    Ok(signed.fingerprint)
}

/// Asks at the terminal, without echo.
fn passphrase(key: &Path) -> Option<Secret> {
    use nix::sys::termios::{LocalFlags, SetArg, tcgetattr, tcsetattr};
    let stdin = std::io::stdin();
    if !stdin.is_terminal() {
        return None;
    }
    eprint!("passphrase of {}: ", key.display());
    let before = tcgetattr(&stdin).ok()?;
    let mut silent = before.clone();
    silent.local_flags.remove(LocalFlags::ECHO);
    tcsetattr(&stdin, SetArg::TCSAFLUSH, &silent).ok()?;
    let mut line = String::new();
    let read = stdin.read_line(&mut line);
    // The terminal gets its echo back whatever was read.
    let restored = tcsetattr(&stdin, SetArg::TCSAFLUSH, &before);
    eprintln!();
    (read.is_ok() && restored.is_ok()).then(|| Secret::new(line.trim_end_matches(['\r', '\n'])))
}

pub fn report(global: &Global, args: ReportArgs) -> Result<ExitCode> {
    let dir = resume::find(global, Some(&args.drill))?;
    let Some(format) = args.print else {
        let left = leave(&dir, None)?;
        println!("{}", left.report.display());
        left.lines.iter().for_each(|line| eprintln!("{line}"));
        return Ok(ExitCode::SUCCESS);
    };
    let found = report::read(&dir).map_err(|error| CliError::failed(error.failure()))?;
    let name = match format {
        Format::Markdown => "report.md",
        Format::Html => "report.html",
        Format::Json => "report.json",
    };
    let files = report::render_all(&found).map_err(|error| CliError::failed(error.failure()))?;
    let text = files.into_iter().find(|(file, _)| *file == name).map(|(_, text)| text).unwrap_or_default();
    print!("{text}");
    Ok(ExitCode::SUCCESS)
}

/// The report as text, through the operator's pager when there is one.
pub fn show(dir: &DrillDir) -> Result<()> {
    let found = report::read(dir).map_err(|error| CliError::failed(error.failure()))?;
    let files = report::render_all(&found).map_err(|error| CliError::failed(error.failure()))?;
    let text = files.into_iter().find(|(file, _)| *file == "report.md").map(|(_, text)| text).unwrap_or_default();
    let pager = std::env::var("PAGER").unwrap_or_else(|_| "less".to_owned());
    let child = std::process::Command::new(&pager).stdin(std::process::Stdio::piped()).spawn();
    match child {
        Ok(mut child) => {
            if let Some(mut stdin) = child.stdin.take() {
                // A reader that has seen enough closes the pipe.
                let _ = std::io::Write::write_all(&mut stdin, text.as_bytes());
            }
            child.wait().map_err(|error| CliError::failed(Failure::new(format!("{pager} failed"), error)))?;
        }
        Err(_) => print!("{text}"),
    }
    Ok(())
}

pub fn sign(global: &Global, args: SignArgs) -> Result<ExitCode> {
    let dir = report_dir(global, &args.drill)?;
    let role = match args.role {
        RoleArg::Operator => Role::Operator,
        RoleArg::Approver => Role::Approver,
    };
    let principal = args.identity.unwrap_or_else(setup::operator);
    let fingerprint = sign_with(&dir, role, &principal, args.key.as_deref()).map_err(CliError::failed)?;
    println!("{} signed as {} with {fingerprint}", principal, role.word());
    println!("{}", dir.join(role.file_name()).display());
    Ok(ExitCode::SUCCESS)
}

/// 0: signed and whole; 1: something does not fit; 4: whole but unsigned, a person has to sign.
pub fn verify(global: &Global, args: VerifyArgs) -> Result<ExitCode> {
    let dir = report_dir(global, &args.drill)?;
    let mut request = Request::new(&dir);
    request.allowed_signers = args.allowed_signers;
    let roles = [(Role::Operator, args.operator), (Role::Approver, args.approver)];
    request.principals = roles.into_iter().filter_map(|(role, principal)| Some((role, principal?))).collect();
    let found = check(&request);
    let (word, code) = match found.conclusion() {
        Conclusion::Signed => ("signed", 0),
        Conclusion::Refused => ("refused", 1),
        Conclusion::Unsigned => ("unsigned", 4),
    };
    if args.json {
        let lines: Vec<_> = found
            .lines
            .iter()
            .map(|line| serde_json::json!({ "ok": line.mark == Mark::Good, "bad": line.mark == Mark::Bad, "text": line.text }))
            .collect();
        println!("{}", serde_json::json!({ "conclusion": word, "directory": found.dir, "lines": lines }));
    } else {
        println!("{found}");
    }
    Ok(ExitCode::from(code))
}

/// A report's folder by itself, or that of a drill.
fn report_dir(global: &Global, word: &str) -> Result<PathBuf> {
    let path = Path::new(word);
    if path.join(report::STATEMENT).exists() {
        return Ok(path.to_owned());
    }
    let drill = resume::find(global, Some(word))?;
    let dir = drill.report();
    if !dir.exists() {
        // A damaged journal never ends in a report: that is what to say.
        history::fold(&drill.journal()).map_err(CliError::failed)?;
    }
    match dir.join(report::STATEMENT).exists() {
        true => Ok(dir),
        false => Err(CliError::usage(
            Failure::new("this drill has no report yet", format!("{} does not exist", dir.display()))
                .now("A report is written when the drill has ended; resume it first, or run `lifeboat report`."),
        )),
    }
}
