//! What push, fetch and the stager share: the archive's identity, and reading a segment out of the bucket.

use std::io;
use std::path::PathBuf;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::frame::{LARGEST, decompress};
use super::name::{BadSegment, Header, WalFile};
use crate::store::{Bucket, Encryption, Keys, StoreError};
use crate::system::postgres::engine::EngineError;

/// The archive's identity.
pub const ARCHIVE: &str = "archive.json";

#[derive(Debug, thiserror::Error)]
pub enum WalError {
    #[error(transparent)]
    Bad(#[from] BadSegment),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("{operation} {path} failed: {source}")]
    Io { operation: &'static str, path: PathBuf, source: io::Error },
    #[error("{name} is already in {bucket} with other content; another server may be archiving there")]
    Conflict { name: String, bucket: String },
    #[error("{bucket} is the archive of cluster {owner}; WAL of cluster {found} does not go there")]
    ForeignArchive { bucket: String, owner: u64, found: u64 },
    #[error("{bucket} holds no WAL archive (there is no archive.json)")]
    NoArchive { bucket: String },
    #[error("{key} in {bucket} is damaged: {why}")]
    Damaged { key: String, bucket: String, why: String },
    #[error(transparent)]
    Engine(#[from] EngineError),
    #[error("the server that asked for {0} is gone")]
    Orphaned(String),
}

impl WalError {
    /// Trying again may help.
    pub fn may_pass(&self) -> bool {
        let passing =
            matches!(self, Self::Store(StoreError::Io { .. } | StoreError::Url { .. }) | Self::NoArchive { .. });
        passing || matches!(self, Self::Engine(_))
    }
}

/// Whose WAL an archive holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ArchiveId {
    pub system_identifier: u64,
    /// Bytes.
    pub segment_size: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    format: u32,
    /// A u64 beyond 2^53: text.
    system_identifier: String,
    segment_bytes: u64,
}

impl ArchiveId {
    fn to_json(self) -> String {
        let written = Written {
            format: 1,
            system_identifier: self.system_identifier.to_string(),
            segment_bytes: self.segment_size,
        };
        serde_json::to_string_pretty(&written).expect("two numbers and a text are JSON") + "\n"
    }

    fn from_json(bytes: &[u8], bucket: &Bucket) -> Result<Self, WalError> {
        let damaged =
            |why: String| WalError::Damaged { key: ARCHIVE.to_owned(), bucket: bucket.name().to_owned(), why };
        let written: Written = serde_json::from_slice(bytes).map_err(|error| damaged(error.to_string()))?;
        if written.format != 1 {
            return Err(damaged(format!("it is of format {}, and this Lifeboat reads format 1", written.format)));
        }
        let system_identifier =
            written.system_identifier.parse().map_err(|_| damaged("no system identifier".into()))?;
        if !written.segment_bytes.is_power_of_two() || written.segment_bytes > LARGEST {
            return Err(damaged(format!("a segment cannot have {} bytes", written.segment_bytes)));
        }
        Ok(Self { system_identifier, segment_size: written.segment_bytes })
    }
}

/// Where a bucket is, for commands that open it only when they must.
#[derive(Debug, Clone)]
pub struct Location {
    pub url: String,
    pub prefix: String,
    pub keys: Keys,
    pub encryption: Encryption,
}

impl Location {
    /// With the usual keys, nothing encrypted.
    pub fn new(url: impl Into<String>, prefix: impl Into<String>) -> Self {
        Self { url: url.into(), prefix: prefix.into(), keys: Keys::Usual, encryption: Encryption::default() }
    }

    pub fn open(&self) -> Result<Bucket, StoreError> {
        let bucket = Bucket::open_with(&self.url, &self.prefix, &self.keys)?;
        Ok(bucket.encrypted(self.encryption.clone()))
    }
}

/// The archive's identity; `None` while nothing was pushed.
pub async fn read_id(bucket: &Bucket) -> Result<Option<ArchiveId>, WalError> {
    match bucket.read(ARCHIVE).await {
        Ok(bytes) => ArchiveId::from_json(&bytes, bucket).map(Some),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Takes the archive for a cluster, or refuses it when it is another's.
pub async fn claim(bucket: &Bucket, id: ArchiveId) -> Result<(), WalError> {
    let owner = match read_id(bucket).await? {
        Some(owner) => owner,
        None => match bucket.create(ARCHIVE, id.to_json()).await {
            Ok(()) => id,
            // Two first pushes at once: the other's word counts.
            Err(StoreError::Exists { .. }) => read_id(bucket).await?.unwrap_or(id),
            Err(error) => return Err(error.into()),
        },
    };
    if owner.system_identifier != id.system_identifier {
        let (owner, found) = (owner.system_identifier, id.system_identifier);
        return Err(WalError::ForeignArchive { bucket: bucket.name().to_owned(), owner, found });
    }
    Ok(())
}

/// A file as the bucket has it.
pub(super) async fn read_stored(bucket: &Bucket, file: &WalFile) -> Result<Option<Bytes>, WalError> {
    match bucket.read(&file.key()).await {
        Ok(stored) => Ok(Some(stored)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// The content of a file that was read: CPU work, nothing else.
pub(super) fn unpack(
    bucket: &Bucket,
    file: &WalFile,
    stored: Bytes,
    system_identifier: Option<u64>,
) -> Result<Vec<u8>, WalError> {
    if !file.is_wal() {
        return Ok(stored.to_vec());
    }
    let bytes = decompress(&bucket.open_sealed(&file.key(), stored)?).map_err(|why| {
        let bucket = bucket.name().to_owned();
        WalError::Damaged { key: file.key(), bucket, why }
    })?;
    Header::check(&file.name(), &bytes, system_identifier)?;
    Ok(bytes)
}

/// What is to be stored of a file for the bucket's recipients of now, from what is stored of it. It is checked on the way.
pub fn repack(bucket: &Bucket, file: &WalFile, stored: Bytes) -> Result<Vec<u8>, WalError> {
    let packed = bucket.open_sealed(&file.key(), stored.clone())?.to_vec();
    let content = unpack(bucket, file, stored, None)?;
    Ok(bucket.encryption().seal(packed, Some(&content)))
}
