use std::path::PathBuf;

use crate::event::Failure;
use crate::process::ProcessError;
use crate::store::StoreError;
use crate::system::redis::aof::ScanError;
use crate::system::redis::connect::RedisError;
use crate::system::redis::rdb::RdbError;
use crate::system::redis::transfer::TransferError;

#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    #[error("{} is not for us: {why}", directory.display())]
    Foreign { directory: PathBuf, why: String },
    #[error("the manifest of snapshot {label} is of no use: {why}")]
    Manifest { label: String, why: String },
    #[error("snapshot {label} is refused: {source}")]
    Rdb { label: String, source: RdbError },
    #[error(
        "snapshot {label} is RDB version {found} (Redis {writer}); {} is Redis {server} and reads up to {known}",
        program.display()
    )]
    TooNew { label: String, found: u32, writer: String, program: PathBuf, server: String, known: u32 },
    #[error("{name} of the append-only file is refused: {source}")]
    Scan { name: String, source: ScanError },
    #[error("the append-only file was not cut as it was meant to be: {why}")]
    Cut { why: String },
    #[error("Redis {server} reads no append-only file in parts; 7.0 and later do")]
    TooOld { server: String },
    #[error("the declared policy could not be applied: {why}")]
    Policy { why: String },
    #[error("there is no account named `{0}` for the server to run as")]
    NoAccount(String),
    #[error("the new server ended: {log}")]
    Ended { log: String },
    #[error("the new server does not answer at {address}: {log}")]
    Silent { address: String, log: String },
    #[error("it cannot listen on port {port} of this machine: {why}")]
    Taken { port: u16, why: String },
    #[error("the new server holds {found} keys {when}; the snapshot's bytes say {least} to {most}")]
    Count { when: &'static str, found: u64, least: u64, most: u64 },
    #[error("the append-only file was not written: {why}")]
    Aof { why: String },
    #[error("process {pid} still runs")]
    Running { pid: u32 },
    #[error("{operation} {} failed: {source}", path.display())]
    Io { operation: &'static str, path: PathBuf, source: std::io::Error },
    #[error("it was cancelled; the new server is stopped")]
    Cancelled,
    #[error(transparent)]
    Redis(#[from] RedisError),
    #[error(transparent)]
    Transfer(#[from] TransferError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Process(#[from] ProcessError),
}

impl RestoreError {
    /// What lies in the bucket is of no use: another backup may be, a retry is not.
    pub fn is_about_the_backup(&self) -> bool {
        match self {
            Self::Manifest { .. } | Self::Rdb { .. } | Self::Scan { .. } | Self::Cut { .. } => true,
            Self::Transfer(TransferError::NotAsStored { .. }) => true,
            Self::Store(error) | Self::Transfer(TransferError::Store(error)) => error.is_not_found(),
            _ => false,
        }
    }
}

impl From<RestoreError> for Failure {
    fn from(error: RestoreError) -> Self {
        let now = match &error {
            RestoreError::Foreign { .. } => {
                "Nothing was changed. Name another directory in the inventory, or move what is there out of the way."
            }
            RestoreError::TooNew { .. } | RestoreError::TooOld { .. } => {
                "Nothing was moved. Install that version of Redis or a later one, and name it as `server` in the inventory."
            }
            RestoreError::Store(error) | RestoreError::Transfer(TransferError::Store(error)) => {
                error.now().unwrap_or("Check the bucket, then retry.")
            }
            RestoreError::Manifest { .. } | RestoreError::Rdb { .. } | RestoreError::Transfer(_) => {
                "Do not use this snapshot. Choose another one; the bucket was not changed."
            }
            RestoreError::Scan { .. } | RestoreError::Cut { .. } => {
                "Choose an earlier point, or a snapshot; the bucket was not changed."
            }
            RestoreError::Policy { .. } => {
                "Retry: it begins from nothing. Or correct the policy of the system in the inventory."
            }
            RestoreError::Count { .. } => "Do not use what was restored. Retry, or choose another snapshot.",
            RestoreError::Ended { .. } | RestoreError::Silent { .. } | RestoreError::Aof { .. } => {
                "Read redis.log in the target directory, then retry: a retry begins from nothing."
            }
            RestoreError::Taken { .. } => {
                "End what listens there, or give the restore another port (0 takes a free one), then retry."
            }
            RestoreError::Running { .. } => "End that process, then retry.",
            RestoreError::NoAccount(_) => "Name another account as `run_as` in the inventory.",
            RestoreError::Process(_) => "Install Redis, or name its server in the inventory.",
            RestoreError::Io { .. } => "Check the disk and the permissions, then retry.",
            RestoreError::Redis(_) | RestoreError::Cancelled => "Retry: it begins from nothing.",
        };
        Self::new("Redis was not restored", error).now(now)
    }
}
