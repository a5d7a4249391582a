use std::io;
use std::path::{Path, PathBuf};

use crate::event::Failure;
use crate::process::{End, ProcessError};

use super::install::Missing;

/// Why the sandbox could not be built, looked at or taken down.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    #[error("{dir} cannot hold a sandbox: {why}")]
    Directory { dir: PathBuf, why: String },
    #[error("there is no sandbox in {dir}")]
    Absent { dir: PathBuf },
    #[error("another `lifeboat sandbox` is at work in {dir}")]
    Busy { dir: PathBuf },
    #[error("the incident was not finished when `sandbox up` ended in {dir}")]
    Unfinished { dir: PathBuf },
    #[error("not installed: {}", names(.0))]
    Missing(Vec<Missing>),
    #[error("root may not run servers, and no unprivileged user was found")]
    NoAccount,
    #[error("{operation} {path} failed: {source}")]
    Io { operation: &'static str, path: PathBuf, source: io::Error },
    #[error("{operation} failed: {source}")]
    Os { operation: &'static str, source: io::Error },
    #[error("{path} cannot be read: {why}")]
    Record { path: PathBuf, why: String },
    #[error(transparent)]
    Process(#[from] ProcessError),
    #[error("{operation} failed: {end}{}", detail(.output))]
    Program { operation: String, end: End, output: String },
    #[error("{what} did not happen within {seconds} s{}", detail(.log))]
    Waited { what: String, seconds: u64, log: String },
    #[error("{operation} failed: {failure}")]
    Part { operation: &'static str, failure: Box<Failure> },
    #[error("process {pid} ({command}) does not end")]
    Survivor { pid: u32, command: String },
}

impl SandboxError {
    pub(super) fn io(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { operation, path: path.to_owned(), source }
    }

    /// Asked for wrongly, as against something that broke: exit code 2.
    pub fn is_wrong_use(&self) -> bool {
        matches!(self, Self::Directory { .. } | Self::Absent { .. } | Self::Missing(_) | Self::NoAccount)
    }
}

impl From<SandboxError> for Failure {
    fn from(error: SandboxError) -> Self {
        let now = match &error {
            SandboxError::Directory { .. } => {
                Some("Name another with --dir or LIFEBOAT_SANDBOX_DIR: one that does not exist yet.".to_owned())
            }
            SandboxError::Absent { .. } => Some("Build one: lifeboat sandbox up".to_owned()),
            SandboxError::Busy { .. } => Some("Wait for it, or end it first.".to_owned()),
            SandboxError::Unfinished { .. } => Some("Build it again: lifeboat sandbox up".to_owned()),
            SandboxError::Missing(missing) => {
                let mut lines: Vec<String> =
                    missing.iter().map(|one| format!("{} — install it: {}", one.what, one.command)).collect();
                lines.push("Or let Lifeboat do it: the same command with --install.".to_owned());
                Some(lines.join("\n"))
            }
            SandboxError::NoAccount => Some("Run it as another user than root.".to_owned()),
            SandboxError::Survivor { pid, .. } => {
                Some(format!("Look at it (ps -fp {pid}), end it, and run down again."))
            }
            SandboxError::Part { failure, .. } => failure.now.clone(),
            SandboxError::Program { .. } | SandboxError::Waited { .. } => {
                Some("Nothing of value is in a sandbox: `lifeboat sandbox down`, then try again.".to_owned())
            }
            _ => None,
        };
        Self { now, ..Self::new("the sandbox", error) }
    }
}

fn names(missing: &[Missing]) -> String {
    missing.iter().map(|one| one.what.as_str()).collect::<Vec<_>>().join(", ")
}

fn detail(text: &str) -> String {
    if text.is_empty() { String::new() } else { format!("\n{text}") }
}
