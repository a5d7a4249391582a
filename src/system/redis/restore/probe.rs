//! What a server can read, asked of its own program before a byte moves, and without starting a server that a kill at the
//! wrong moment would leave behind.

use std::path::{Path, PathBuf};

use tokio_util::sync::CancellationToken;

use super::RestoreError;
use crate::process::{Account, Spec};

/// Bytes of output kept.
const OUTPUT: usize = 64 * 1024;
/// Every Redis that has `--version` reads this.
const ANCIENT: u32 = 6;

/// A server's program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    /// `7.0.15`.
    pub version: String,
    /// The newest RDB version that it reads, up to the one that was asked for; absent when the program does not tell.
    pub reads: Option<u32>,
}

/// Asks for the version, and whether an RDB of version `wanted` can be read.
pub async fn probe(
    program: &Path,
    account: Option<&Account>,
    wanted: u32,
    cancel: &CancellationToken,
) -> Result<Program, RestoreError> {
    let captured = Spec::new(program).arg("--version").run_as(account.cloned()).capture(OUTPUT, cancel).await?;
    let text = captured.stdout_text();
    let version = text.split_whitespace().find_map(|word| word.strip_prefix("v=")).unwrap_or_default().to_owned();
    if !captured.end.success() || version.is_empty() {
        let log = format!("`{} --version` said: {text} {}", program.display(), captured.stderr_text());
        return Err(RestoreError::Ended { log });
    }
    let checker = Checker::new(program, account)?;
    for candidate in (ANCIENT..=wanted).rev() {
        if checker.reads(candidate, cancel).await? {
            return Ok(Program { version, reads: Some(candidate) });
        }
    }
    Ok(Program { version, reads: None })
}

/// The server's program under one of the names by which it checks a file and ends: always of the server's own version.
pub struct Tool {
    scratch: tempfile::TempDir,
    link: PathBuf,
}

impl Tool {
    pub fn new(program: &Path, name: &str, account: Option<&Account>) -> Result<Self, RestoreError> {
        let scratch = tempfile::Builder::new().prefix("lifeboat-redis-").tempdir();
        let io = |source| RestoreError::Io { operation: "making", path: std::env::temp_dir(), source };
        let scratch = scratch.map_err(io)?;
        let link = scratch.path().join(name);
        std::os::unix::fs::symlink(program, &link).map_err(io)?;
        if let Some(account) = account {
            account.give(scratch.path()).map_err(io)?;
        }
        Ok(Self { scratch, link })
    }

    pub fn path(&self) -> &Path {
        &self.link
    }
}

struct Checker {
    tool: Tool,
    account: Option<Account>,
}

impl Checker {
    fn new(program: &Path, account: Option<&Account>) -> Result<Self, RestoreError> {
        Ok(Self { tool: Tool::new(program, "redis-check-rdb", account)?, account: account.cloned() })
    }

    /// Whether an empty RDB of this version is accepted.
    async fn reads(&self, version: u32, cancel: &CancellationToken) -> Result<bool, RestoreError> {
        let path = self.tool.scratch.path().join(format!("{version}.rdb"));
        // Header, end, and no checksum.
        let empty = [format!("REDIS{version:04}").as_bytes(), &[255], &[0; 8]].concat();
        let io = |source| RestoreError::Io { operation: "writing", path: path.clone(), source };
        std::fs::write(&path, empty).map_err(io)?;
        if let Some(account) = &self.account {
            account.give(&path).map_err(io)?;
        }
        let spec = Spec::new(self.tool.path()).arg(&path).run_as(self.account.clone()).cwd(self.tool.scratch.path());
        Ok(spec.capture(OUTPUT, cancel).await?.end.success())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::find_program;

    async fn ask(program: &Path, wanted: u32) -> Result<Program, RestoreError> {
        let account = Account::unprivileged().unwrap();
        probe(program, account.as_ref(), wanted, &CancellationToken::new()).await
    }

    #[tokio::test]
    async fn a_server_tells_what_it_reads() {
        let server = find_program("redis-server").expect("this test needs redis-server");
        let found = ask(&server, 99).await.unwrap();
        let newest = found.reads.unwrap();
        assert!((9..99).contains(&newest), "{found:?}");
        assert!(found.version.starts_with(|c: char| c.is_ascii_digit()), "{found:?}");
        assert_eq!(ask(&server, newest - 1).await.unwrap().reads, Some(newest - 1));
    }

    #[tokio::test]
    async fn what_is_no_redis_is_said() {
        let error = ask(Path::new("/bin/false"), 10).await.unwrap_err();
        assert!(matches!(&error, RestoreError::Ended { log } if log.contains("/bin/false --version")), "{error}");
        let error = ask(Path::new("/no/such/server"), 10).await.unwrap_err();
        assert!(matches!(error, RestoreError::Process(_)), "{error}");
    }
}
