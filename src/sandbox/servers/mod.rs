//! The three servers of the sandbox: PostgreSQL, Redis, and the application in front of them.

pub mod app;
pub mod postgres;
pub mod redis;

use std::future::Future;
use std::path::Path;
use std::time::Duration;

use crate::clock;

use super::error::SandboxError;
use super::tools;

/// Between looks at a server that is starting.
const LOOK: Duration = Duration::from_millis(50);

/// Asks again and again until the answer is yes; what the server logged stands in the error.
pub async fn wait_until<F>(
    what: &str,
    limit: Duration,
    log: &Path,
    mut ready: impl FnMut() -> F,
) -> Result<(), SandboxError>
where
    F: Future<Output = Result<bool, SandboxError>>,
{
    let began = clock::boot_now();
    while !ready().await? {
        if clock::boot_now().saturating_sub(began) > limit {
            let log = std::fs::read(log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
            let (what, log) = (what.to_owned(), tools::tail(&log));
            return Err(SandboxError::Waited { what, seconds: limit.as_secs(), log });
        }
        clock::sleep(LOOK).await;
    }
    Ok(())
}
