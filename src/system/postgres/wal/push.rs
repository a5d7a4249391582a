//! `archive_command`: a segment reaches the bucket once, whole, and is never replaced.

use std::path::Path;

use super::archive::{ArchiveId, WalError, claim, compress, read_stored, unpack};
use super::name::{BadSegment, Header, WalFile};
use crate::store::{self, Bucket, StoreError};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pushed {
    Stored,
    /// It was there already, byte for byte the same: PostgreSQL had asked before.
    AlreadyThere,
}

/// Puts the WAL file at `path` into the archive; it is durable when this returns. A segment of another cluster, under a
/// wrong name, or with other content than what the archive has under its name is refused.
pub async fn push(bucket: &Bucket, path: &Path) -> Result<Pushed, WalError> {
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let file = WalFile::parse(&name).ok_or_else(|| BadSegment::Name(name.clone()))?;
    let io = |operation| move |source| WalError::Io { operation, path: path.to_owned(), source };
    let bytes = std::fs::read(path).map_err(io("reading"))?;
    let stored = if file.is_wal() {
        let header = Header::check(&name, &bytes, None)?;
        let id = ArchiveId { system_identifier: header.system_identifier, segment_size: header.segment_size };
        claim(bucket, id).await?;
        bucket.encryption().seal(compress(&bytes).map_err(io("compressing"))?, Some(&bytes))
    } else {
        bytes.clone()
    };
    match bucket.create(&file.key(), stored).await {
        Ok(()) => Ok(Pushed::Stored),
        Err(StoreError::Exists { .. }) if is_there(bucket, &file, bytes).await? => Ok(Pushed::AlreadyThere),
        Err(StoreError::Exists { .. }) => Err(WalError::Conflict { name, bucket: bucket.name().to_owned() }),
        Err(error) => Err(error.into()),
    }
}

/// Whether the archive has this content under the file's name. An encrypted object says it itself: who pushes has no key to
/// read it with.
async fn is_there(bucket: &Bucket, file: &WalFile, bytes: Vec<u8>) -> Result<bool, WalError> {
    let Some(stored) = read_stored(bucket, file).await? else { return Ok(false) };
    if let Some(same) = store::is_of(&stored, &bytes) {
        return Ok(same);
    }
    let (bucket, file) = (bucket.clone(), file.clone());
    Ok(unpack(&bucket, &file, stored, None)? == bytes)
}
