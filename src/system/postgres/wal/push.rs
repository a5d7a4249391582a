//! `archive_command`: a segment reaches the bucket once, whole, and is never replaced.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use bytes::Bytes;

use super::archive::{ArchiveId, WalError, claim, read_stored, unpack};
use super::frame::{Compression, compress, raw};
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
    let io = |operation| move |source| WalError::Io { operation, path: path.to_owned(), source };
    let bytes = Bytes::from(read(path).map_err(io("reading"))?);
    let stored = if file.is_wal() {
        let header = Header::check(&name, &bytes, None)?;
        let id = ArchiveId { system_identifier: header.system_identifier, segment_size: header.segment_size };
        claim(bucket, id).await?;
        let frame: Vec<Bytes> = match compression {
            Compression::Zstd => vec![compress(&bytes).map_err(io("compressing"))?.into()],
            Compression::Off => raw(&bytes).collect(),
        };
        match bucket.encryption().is_on() {
            true => vec![bucket.encryption().seal(frame.concat(), Some(&bytes)).into()],
            false => frame,
        }
    } else {
        vec![bytes.clone()]
    };
    match bucket.create_of(&file.key(), stored).await {
        Ok(()) => Ok(Pushed::Stored),
        Err(StoreError::Exists { .. }) if is_there(bucket, &file, &bytes).await? => Ok(Pushed::AlreadyThere),
        Err(StoreError::Exists { .. }) => Err(WalError::Conflict { name, bucket: bucket.name().to_owned() }),
        Err(error) => Err(error.into()),
    }
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

/// In large pages where the system gives them: to be handed 16 MiB in small ones takes as long as to write them.
fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    let mut bytes: Vec<u8> = Vec::with_capacity(usize::try_from(file.metadata()?.len()).unwrap_or_default() + 1);
    #[cfg(target_os = "linux")]
    {
        let page = 4096;
        let start = bytes.as_mut_ptr().addr().next_multiple_of(page);
        let length = (bytes.as_ptr().addr() + bytes.capacity()).saturating_sub(start) / page * page;
        // SAFETY: the pages lie within memory that is ours, and the advice changes nothing in them. It may be refused.
        unsafe { nix::libc::madvise(bytes.as_mut_ptr().with_addr(start).cast(), length, nix::libc::MADV_HUGEPAGE) };
    }
    file.read_to_end(&mut bytes)?;
    Ok(bytes)
}
