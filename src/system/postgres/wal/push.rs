//! `archive_command`: a segment reaches the bucket once, whole, and is never replaced.

use std::fs::File;
use std::io::{self, Read as _, Seek as _};
use std::path::Path;

use bytes::Bytes;

use super::archive::{ArchiveId, WalError, claim, read_stored, unpack};
use super::frame::{Compression, Raw, compress};
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
pub async fn push(bucket: &Bucket, path: &Path, compression: Compression) -> Result<Pushed, WalError> {
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let file = WalFile::parse(&name).ok_or_else(|| BadSegment::Name(name.clone()))?;
    let read = || std::fs::read(path).map_err(io("reading", path));
    let (key, encryption) = (file.key(), bucket.encryption());
    let created = match (file.is_wal(), compression) {
        (false, _) => bucket.create(&key, read()?).await,
        (true, Compression::Off) if !encryption.is_on() => {
            let mut from = File::open(path).map_err(io("opening", path))?;
            let mut head = [0; Header::BYTES];
            let whole = from.read_exact(&mut head).and_then(|()| from.rewind()).and_then(|()| from.metadata());
            let size = match whole {
                Ok(found) => found.len(),
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    return Err(BadSegment::NoHeader { name }.into());
                }
                Err(error) => return Err(io("reading", path)(error)),
            };
            own(bucket, Header::check_head(&name, &head, size, None)?).await?;
            bucket.create_from(&key, Raw::new(from, size)).await.map_err(io("reading", path))?
        }
        (true, compression) => {
            let content = read()?;
            own(bucket, Header::check(&name, &content, None)?).await?;
            let frame = match compression {
                Compression::Zstd => compress(&content),
                Compression::Off => Raw::new(&content[..], content.len() as u64)
                    .collect::<io::Result<Vec<Bytes>>>()
                    .map(|pieces| pieces.concat()),
            };
            let frame = frame.map_err(io("compressing", path))?;
            bucket.create(&key, encryption.seal(frame, Some(&content))).await
        }
    };
    match created {
        Ok(()) => Ok(Pushed::Stored),
        Err(StoreError::Exists { .. }) if is_there(bucket, &file, &read()?).await? => Ok(Pushed::AlreadyThere),
        Err(StoreError::Exists { .. }) => Err(WalError::Conflict { name, bucket: bucket.name().to_owned() }),
        Err(error) => Err(error.into()),
    }
}

/// The archive is this cluster's.
async fn own(bucket: &Bucket, header: Header) -> Result<(), WalError> {
    let id = ArchiveId { system_identifier: header.system_identifier, segment_size: header.segment_size };
    claim(bucket, id).await
}

fn io(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> WalError {
    move |source| WalError::Io { operation, path: path.to_owned(), source }
}

/// Whether the archive has this content under the file's name. An encrypted object says it itself: who pushes has no key to
/// read it with.
async fn is_there(bucket: &Bucket, file: &WalFile, content: &[u8]) -> Result<bool, WalError> {
    let Some(stored) = read_stored(bucket, file).await? else { return Ok(false) };
    if let Some(same) = store::is_of(&stored, content) {
        return Ok(same);
    }
    let (bucket, file) = (bucket.clone(), file.clone());
    Ok(unpack(&bucket, &file, stored, None)? == content)
}
