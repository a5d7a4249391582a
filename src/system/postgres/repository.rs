//! Where a system's base backups and WAL are.

use super::engine::Engine;
use super::wal::Location;
use crate::event::Failure;
use crate::store::Bucket;

/// Lifeboat's own folder in a bucket, or another program's repository.
#[derive(Debug, Clone)]
pub enum Repository {
    Bucket {
        bucket: Bucket,
        /// The same, for `restore_command`.
        location: Location,
    },
    Engine(Engine),
}

impl Repository {
    /// The cluster whose WAL and backups it holds; `None` while it says nothing.
    pub async fn system_identifier(&self) -> Result<Option<u64>, Failure> {
        match self {
            Self::Bucket { bucket, .. } => Ok(super::catalogue::system_identifier(bucket).await?),
            Self::Engine(engine) => engine.system_identifier().await,
        }
    }
}
