//! The programs that a sandbox needs.

use std::path::{Path, PathBuf};

use tokio_util::sync::CancellationToken;

use crate::process::{Captured, Spec, find_program, postgres_bin};

use super::error::SandboxError;
use super::install;

/// Bytes of a program's output that an error may show.
const SHOWN: usize = 4_000;

/// Where the servers' programs are.
#[derive(Debug, Clone)]
pub struct Tools {
    pub postgres_bin: PathBuf,
    pub redis_server: PathBuf,
    pub redis_cli: PathBuf,
}

impl Tools {
    /// Finds them all, or says everything that is missing and how it is installed.
    pub fn find() -> Result<Self, SandboxError> {
        let missing = install::missing();
        match (postgres_bin(), find_program("redis-server"), find_program("redis-cli")) {
            (Some(postgres_bin), Some(redis_server), Some(redis_cli)) if missing.is_empty() => {
                Ok(Self { postgres_bin, redis_server, redis_cli })
            }
            _ => Err(SandboxError::Missing(missing)),
        }
    }

    /// One of PostgreSQL's programs, in `dir`.
    pub fn postgres(&self, name: &str, dir: &Path) -> Spec {
        Spec::new(self.postgres_bin.join(name)).cwd(dir)
    }
}

/// Runs to the end; anything but exit code 0 is an error with what the program said.
pub async fn run(operation: &str, spec: Spec, cancel: &CancellationToken) -> Result<Captured, SandboxError> {
    let captured = spec.capture(1 << 20, cancel).await?;
    if captured.end.success() {
        return Ok(captured);
    }
    let said = [captured.stderr_text(), captured.stdout_text()];
    let output = said.iter().filter(|text| !text.is_empty()).cloned().collect::<Vec<_>>().join("\n");
    Err(SandboxError::Program { operation: operation.to_owned(), end: captured.end, output: tail(&output) })
}

/// The end of a text, for error messages.
pub fn tail(text: &str) -> String {
    let mut from = text.len().saturating_sub(SHOWN);
    while !text.is_char_boundary(from) {
        from += 1;
    }
    text[from..].trim().to_owned()
}
