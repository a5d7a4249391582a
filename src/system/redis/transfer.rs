//! A file on its way into the bucket and back: compressed, encrypted where the bucket is, and hashed on both sides.

use std::io;
use std::sync::{Arc, Mutex};

use async_compression::tokio::write::{ZstdDecoder, ZstdEncoder};
use futures::{StreamExt as _, stream};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio_util::compat::{FuturesAsyncReadCompatExt as _, TokioAsyncReadCompatExt as _};
use tokio_util::io::StreamReader;

use super::lane::Lane;
use crate::digest::{Digest, Hasher};
use crate::store::{self, Bucket, Encryption, StoreError, Written};

/// Bytes read at once.
const CHUNK: usize = 256 * 1024;

#[derive(Debug, thiserror::Error)]
pub enum TransferError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("{operation} failed: {source}")]
    Io { operation: &'static str, source: io::Error },
    #[error("{object} is not what was stored: {what} {expected}, found {found}")]
    NotAsStored { object: String, what: &'static str, expected: String, found: String },
}

fn io_error(operation: &'static str) -> impl FnOnce(io::Error) -> TransferError {
    move |source| TransferError::Io { operation, source }
}

/// Bytes and digest of what was read, and what was written.
pub struct Packed {
    pub raw_bytes: u64,
    pub raw_digest: Digest,
    pub written: Written,
}

/// Streams a file, or a part of one, into the bucket. The lane goes on from `before` bytes.
pub async fn pack(
    mut file: impl AsyncRead + Unpin,
    bucket: &Bucket,
    key: &str,
    lane: &mut Lane<'_>,
    before: u64,
) -> Result<Packed, TransferError> {
    let mut upload = bucket.upload(key).await?;
    let mut encoder = ZstdEncoder::new(Vec::with_capacity(CHUNK));
    let (mut hasher, mut raw_bytes) = (Hasher::default(), 0);
    let mut buffer = vec![0; CHUNK];
    loop {
        let n = file.read(&mut buffer).await.map_err(io_error("reading the file"))?;
        if n == 0 {
            break;
        }
        hasher.update(&buffer[..n]);
        raw_bytes += n as u64;
        encoder.write_all(&buffer[..n]).await.map_err(io_error("compressing"))?;
        upload.write(encoder.get_ref()).await?;
        encoder.get_mut().clear();
        lane.at(before + raw_bytes);
    }
    encoder.shutdown().await.map_err(io_error("compressing"))?;
    upload.write(encoder.get_ref()).await?;
    let written = upload.finish().await?;
    Ok(Packed { raw_bytes, raw_digest: hasher.finish(), written })
}

/// What an object must hold.
pub struct Stored<'a> {
    pub object: &'a str,
    pub raw_bytes: u64,
    pub raw_digest: Digest,
    pub stored_digest: Digest,
    /// Its manifest is that of an encrypted backup.
    pub is_sealed: bool,
}

/// Streams an object to the end of a file. Both digests must be right, and not one byte more is written than it must
/// hold. The lane goes on from `before` stored bytes; returns with those of this object added.
pub async fn unpack(
    bucket: &Bucket,
    what: Stored<'_>,
    file: &mut tokio::fs::File,
    lane: &mut Lane<'_>,
    before: u64,
) -> Result<u64, TransferError> {
    let differs = |field, expected: &dyn ToString, found: &dyn ToString| TransferError::NotAsStored {
        object: format!("{} in {}", what.object, bucket.name()),
        what: field,
        expected: expected.to_string(),
        found: found.to_string(),
    };
    let mut chunks = Box::pin(bucket.stream(what.object).await?);
    let first = chunks.next().await.transpose()?.unwrap_or_default();
    let head = first.slice(..first.len().min(Encryption::HEAD));
    // Else whoever can write there could put the object of one backup into another.
    if store::is_sealed(&head) && !what.is_sealed {
        return Err(differs("manifest", &"of an encrypted backup", &"one in the clear"));
    }
    let seen = Arc::new(Mutex::new((Hasher::default(), before)));
    let counted = Arc::clone(&seen);
    let chunks = stream::iter([Ok(first)]).chain(chunks).map(move |chunk| {
        let chunk = chunk.map_err(io::Error::other)?;
        let mut counted = counted.lock().expect("hashing does not panic");
        counted.0.update(&chunk);
        counted.1 += chunk.len() as u64;
        Ok::<_, io::Error>(chunk)
    });
    let opened = bucket.open_stream(what.object, &head, StreamReader::new(chunks).compat()).await?;
    let mut opened = std::pin::pin!(opened.compat());
    let mut decoder = ZstdDecoder::new(Vec::with_capacity(CHUNK));
    let (mut raw, mut raw_bytes) = (Hasher::default(), 0);
    // In small pieces, so that a bomb is noticed before it has grown.
    let mut piece = [0; 4096];
    loop {
        let n = match opened.read(&mut piece).await {
            Ok(0) => break,
            Ok(n) => n,
            Err(error) => {
                return Err(match error.downcast::<StoreError>() {
                    Ok(error) => error.into(),
                    Err(error) => differs("encryption", &"intact", &error),
                });
            }
        };
        if let Err(error) = decoder.write_all(&piece[..n]).await {
            return Err(differs("zstd data", &"intact", &error));
        }
        let plain = decoder.get_ref();
        raw_bytes += plain.len() as u64;
        if raw_bytes > what.raw_bytes {
            return Err(differs("bytes unpacked", &what.raw_bytes, &"more"));
        }
        raw.update(plain);
        file.write_all(plain).await.map_err(io_error("writing the copy"))?;
        decoder.get_mut().clear();
        lane.at(seen.lock().expect("hashing does not panic").1);
    }
    if let Err(error) = decoder.shutdown().await {
        return Err(differs("zstd data", &"whole", &error));
    }
    let plain = decoder.get_ref();
    raw_bytes += plain.len() as u64;
    raw.update(plain);
    file.write_all(plain).await.map_err(io_error("writing the copy"))?;
    file.sync_all().await.map_err(io_error("syncing the copy"))?;
    let (stored, stored_bytes) = seen.lock().expect("hashing does not panic").clone();
    for (field, expected, found) in
        [("SHA-256", what.stored_digest, stored.finish()), ("SHA-256 unpacked", what.raw_digest, raw.finish())]
    {
        if expected != found {
            return Err(differs(field, &expected, &found));
        }
    }
    match raw_bytes == what.raw_bytes {
        true => Ok(stored_bytes),
        false => Err(differs("bytes unpacked", &what.raw_bytes, &raw_bytes)),
    }
}
