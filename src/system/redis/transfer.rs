//! An RDB on its way into the bucket and back: compressed, and hashed on both sides of the compression.

use std::io;

use async_compression::tokio::write::ZstdEncoder;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::lane::Lane;
use crate::digest::{Digest, Hasher};
use crate::store::{Bucket, StoreError, Written};

/// Bytes read at once.
const CHUNK: usize = 256 * 1024;

#[derive(Debug, thiserror::Error)]
pub enum TransferError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("{operation} failed: {source}")]
    Io { operation: &'static str, source: io::Error },
}

fn io_error(operation: &'static str) -> impl FnOnce(io::Error) -> TransferError {
    move |source| TransferError::Io { operation, source }
}

/// Bytes and digest of the file, and what was written.
pub struct Packed {
    pub raw_bytes: u64,
    pub raw_digest: Digest,
    pub written: Written,
}

/// Streams a file into the bucket.
pub async fn pack(
    mut file: tokio::fs::File,
    bucket: &Bucket,
    key: &str,
    mut lane: Lane<'_>,
) -> Result<Packed, TransferError> {
    let mut upload = bucket.upload(key).await?;
    let mut encoder = ZstdEncoder::new(Vec::with_capacity(CHUNK));
    let (mut hasher, mut raw_bytes) = (Hasher::default(), 0);
    let mut buffer = vec![0; CHUNK];
    loop {
        let n = file.read(&mut buffer).await.map_err(io_error("reading the RDB"))?;
        if n == 0 {
            break;
        }
        hasher.update(&buffer[..n]);
        raw_bytes += n as u64;
        encoder.write_all(&buffer[..n]).await.map_err(io_error("compressing"))?;
        upload.write(encoder.get_ref()).await?;
        encoder.get_mut().clear();
        lane.at(raw_bytes);
    }
    encoder.shutdown().await.map_err(io_error("compressing"))?;
    upload.write(encoder.get_ref()).await?;
    let written = upload.finish().await?;
    lane.end(raw_bytes);
    Ok(Packed { raw_bytes, raw_digest: hasher.finish(), written })
}
