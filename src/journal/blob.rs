//! Output blobs: the whole output of an attempt, beside the journal, named by its digest.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use super::sync_dir;
use crate::digest::{Digest, Hasher};
use crate::event::BlobRef;
use crate::mutant;

/// Bytes of output that are kept of one attempt, unless told otherwise.
pub const BLOB_CAP: u64 = 64 << 20;

#[derive(Debug, thiserror::Error)]
pub enum BlobError {
    #[error("reading {} failed: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("{} is not the output that was recorded: {found} instead of {expected}", path.display())]
    Differs { path: PathBuf, expected: Digest, found: Digest },
}

/// Takes the bytes of one attempt as they come. Dropped without [`BlobWriter::finish`], it leaves nothing behind.
pub struct BlobWriter {
    dir: PathBuf,
    file: NamedTempFile,
    hasher: Hasher,
    cap: u64,
    kept: u64,
    dropped: u64,
    /// A disk that refuses output costs output, never the step.
    refused: bool,
}

impl BlobWriter {
    /// `dir` is the drill's `output`, made when missing; `cap` the bytes to keep.
    pub fn create(dir: &Path, cap: u64) -> io::Result<Self> {
        std::fs::create_dir_all(dir)?;
        let file = tempfile::Builder::new().prefix(".part-").tempfile_in(dir)?;
        Ok(Self { dir: dir.to_owned(), file, hasher: Hasher::default(), cap, kept: 0, dropped: 0, refused: false })
    }

    /// Keeps what fits below the cap and counts the rest.
    pub fn push(&mut self, bytes: &[u8]) {
        let room = self.cap.saturating_sub(self.kept);
        let room = if mutant::removes("25") { usize::MAX } else { usize::try_from(room).unwrap_or(usize::MAX) };
        let mut rest = &bytes[..bytes.len().min(room)];
        self.dropped += (bytes.len() - rest.len()) as u64;
        while !rest.is_empty() && !self.refused {
            match self.file.write(rest) {
                Ok(n) if n > 0 => {
                    self.hasher.update(&rest[..n]);
                    self.kept += n as u64;
                    rest = &rest[n..];
                }
                Err(again) if again.kind() == io::ErrorKind::Interrupted => {}
                _ => self.refused = true,
            }
        }
        self.dropped += rest.len() as u64;
    }

    /// Makes it durable under its digest. `None` when there was no output at all.
    pub fn finish(self) -> io::Result<Option<BlobRef>> {
        if self.kept == 0 && self.dropped == 0 {
            return Ok(None);
        }
        let digest = self.hasher.finish();
        self.file.as_file().sync_data()?;
        self.file.persist(self.dir.join(digest.to_string())).map_err(|error| error.error)?;
        sync_dir(&self.dir)?;
        Ok(Some(BlobRef { digest, bytes: self.kept, dropped: self.dropped }))
    }
}

/// Reads a blob back and checks that it is what was recorded. `dir` is the drill's `output`.
pub fn read_blob(dir: &Path, blob: &BlobRef) -> Result<Vec<u8>, BlobError> {
    let path = dir.join(blob.digest.to_string());
    let bytes = std::fs::read(&path).map_err(|source| BlobError::Io { path: path.clone(), source })?;
    let found = Digest::of(&bytes);
    match found == blob.digest {
        true => Ok(bytes),
        false => Err(BlobError::Differs { path, expected: blob.digest, found }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blob_is_read_back_and_a_changed_one_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = BlobWriter::create(dir.path(), 1_000).unwrap();
        writer.push(b"first ");
        writer.push(b"second\n");
        let blob = writer.finish().unwrap().unwrap();
        assert_eq!((blob.bytes, blob.dropped), (13, 0));
        assert_eq!(read_blob(dir.path(), &blob).unwrap(), b"first second\n");
        let path = dir.path().join(blob.digest.to_string());
        std::fs::write(&path, b"first Second\n").unwrap();
        assert!(matches!(read_blob(dir.path(), &blob), Err(BlobError::Differs { .. })));
    }

    #[test]
    fn bytes_beyond_the_cap_are_counted() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = BlobWriter::create(dir.path(), 10).unwrap();
        for _ in 0..5 {
            writer.push(b"abcd");
        }
        let blob = writer.finish().unwrap().unwrap();
        assert_eq!((blob.bytes, blob.dropped), (10, 10));
        assert_eq!(read_blob(dir.path(), &blob).unwrap(), b"abcdabcdab");
    }

    #[test]
    fn no_output_leaves_no_blob_and_neither_does_a_dropped_writer() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(BlobWriter::create(dir.path(), 10).unwrap().finish().unwrap(), None);
        let mut dropped = BlobWriter::create(dir.path(), 10).unwrap();
        dropped.push(b"abc");
        drop(dropped);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
