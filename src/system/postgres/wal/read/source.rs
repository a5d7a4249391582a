//! Where segments come from: a directory or a bucket, plain or compressed with zstd.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use chrono::{DateTime, Utc};
use zstd::stream::read::Decoder;
use zstd::zstd_safe::DCtx;

use super::super::archive::{WalError, read_id};
use super::super::name::{BadSegment, Header, Segment, WalFile};
use super::damage::Damage;
use super::page::{Version, u16_at, u32_at};
use super::scan::{Scanner, SegmentScan};
use crate::store::{Bucket, StoreError, Unreadable};
use crate::system::postgres::engine::Reader;

/// Read or decompressed at once: small enough to stay in the processor's cache until it is scanned.
const CHUNK: usize = 256 << 10;

/// WAL that can be read.
pub enum Source {
    /// Such as `pg_wal`, or where `archive_command = 'cp …'` copies to.
    Directory(PathBuf),
    /// An archive by `lifeboat wal push`. Reads block their thread on the runtime, so a walk over it must run on a thread
    /// that may block: inside `tokio::task::spawn_blocking`, or on one of its own.
    Bucket { bucket: Bucket, runtime: tokio::runtime::Handle },
    /// Another program's archive, listed elsewhere. Reads block their thread in the same way.
    Engine { reader: Arc<Reader>, runtime: tokio::runtime::Handle },
}

/// A segment as listed; its content has not been looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    pub segment: Segment,
    /// The file's name or the object's key.
    pub key: String,
    /// As stored.
    pub bytes: u64,
    /// When it was stored.
    pub modified: DateTime<Utc>,
}

impl Source {
    /// Every segment, by timeline and number. History files, partial segments and what is no WAL are left out.
    pub fn list(&self) -> Result<Vec<Listed>, WalError> {
        let mut found = match self {
            Self::Directory(directory) => list_directory(directory)?,
            Self::Bucket { bucket, runtime } => runtime.block_on(list_bucket(bucket))?,
            Self::Engine { .. } => Vec::new(),
        };
        found.sort_by_key(|listed| listed.segment);
        Ok(found)
    }
}

/// The file name, and whether it is compressed.
fn split(key: &str) -> Option<(&str, bool)> {
    let name = key.rsplit('/').next().unwrap_or_default();
    let (name, compressed) = name.strip_suffix(".zst").map_or((name, false), |name| (name, true));
    matches!(WalFile::parse(name), Some(WalFile::Segment(_))).then_some((name, compressed))
}

fn list_directory(directory: &Path) -> Result<Vec<Listed>, WalError> {
    let failed = |source| WalError::Io { operation: "listing", path: directory.to_owned(), source };
    let mut files: Vec<(String, u64, DateTime<Utc>)> = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if split(&name).is_some() {
            let metadata = entry.metadata().map_err(failed)?;
            let modified = metadata.modified().map_err(failed)?;
            files.push((name, metadata.len(), modified.into()));
        }
    }
    // One segment that is what it should be says how long all are.
    let size = files.iter().find_map(|(name, ..)| segment_size(&directory.join(name))).unwrap_or(16 << 20);
    Ok(files
        .into_iter()
        .filter_map(|(key, bytes, modified)| {
            let segment = Segment::parse(split(&key)?.0, size)?;
            Some(Listed { segment, key, bytes, modified })
        })
        .collect())
}

/// By the header of the file.
fn segment_size(path: &Path) -> Option<u64> {
    let mut head = Vec::new();
    let file = File::open(path).ok()?;
    let limit = Header::BYTES as u64;
    match path.extension() {
        Some(_) => zstd::Decoder::new(file).ok()?.take(limit).read_to_end(&mut head).ok()?,
        None => file.take(limit).read_to_end(&mut head).ok()?,
    };
    Header::parse(&head).map(|header| header.segment_size)
}

async fn list_bucket(bucket: &Bucket) -> Result<Vec<Listed>, WalError> {
    let Some(id) = read_id(bucket).await? else { return Ok(Vec::new()) };
    let objects = bucket.list("wal").await?;
    Ok(objects
        .into_iter()
        .filter_map(|object| {
            let segment = Segment::parse(split(&object.key)?.0, id.segment_size)?;
            Some(Listed { segment, key: object.key, bytes: object.size, modified: object.modified })
        })
        .collect())
}

/// Scans segments of a source, one after another in the same memory.
pub(super) struct Loader<'a> {
    source: &'a Source,
    stored: Vec<u8>,
    decompressor: DCtx<'static>,
    chunks: Chunks,
}

impl<'a> Loader<'a> {
    pub fn new(source: &'a Source, system_identifier: Option<u64>) -> Self {
        let chunks = Chunks { system_identifier, chunk: vec![0; CHUNK], crossing: Vec::new() };
        Self { source, stored: Vec::new(), decompressor: DCtx::create(), chunks }
    }

    /// Damage is what the segment's own content shows; an error is what may pass.
    pub fn scan(&mut self, listed: &Listed) -> Result<Result<SegmentScan, Damage>, WalError> {
        let compressed = split(&listed.key).is_some_and(|(_, compressed)| compressed);
        match self.source {
            Source::Directory(directory) => {
                let path = directory.join(&listed.key);
                let mut file = match File::open(&path) {
                    Ok(file) => file,
                    Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Err(gone(listed))),
                    Err(source) => return Err(WalError::Io { operation: "opening", path, source }),
                };
                let failed = |source| WalError::Io { operation: "reading", path, source };
                if compressed {
                    self.stored.clear();
                    file.read_to_end(&mut self.stored).map_err(failed)?;
                    let stored = Decoder::with_context(&self.stored[..], &mut self.decompressor);
                    return Ok(self.chunks.compressed(listed, stored));
                }
                let scan = file.metadata().and_then(|meta| self.chunks.scan(listed, meta.len(), &mut file));
                scan.map_err(failed)
            }
            Source::Bucket { bucket, runtime } => match runtime.block_on(bucket.read(&listed.key)) {
                Ok(stored) if compressed => {
                    let stored = match bucket.open_sealed(&listed.key, stored) {
                        Ok(stored) => stored,
                        Err(StoreError::Sealed { why: Unreadable::Damaged(why), .. }) => {
                            return Ok(Err(Damage::Compressed { name: listed.segment.to_string(), why }));
                        }
                        Err(error) => return Err(error.into()),
                    };
                    let stored = Decoder::with_context(&stored[..], &mut self.decompressor);
                    Ok(self.chunks.compressed(listed, stored))
                }
                Ok(plain) => {
                    let scan = self.chunks.scan(listed, plain.len() as u64, &mut &plain[..]);
                    Ok(scan.expect("memory is readable"))
                }
                Err(error) if error.is_not_found() => Ok(Err(gone(listed))),
                Err(error) => Err(error.into()),
            },
            Source::Engine { reader, runtime } => match runtime.block_on(reader.read(&listed.segment.to_string()))? {
                Some(plain) => {
                    let scan = self.chunks.scan(listed, plain.len() as u64, &mut &plain[..]);
                    Ok(scan.expect("memory is readable"))
                }
                None => Ok(Err(gone(listed))),
            },
        }
    }
}

/// Scans a segment's content by chunks, which are still in the processor's cache when they are scanned.
struct Chunks {
    system_identifier: Option<u64>,
    chunk: Vec<u8>,
    crossing: Vec<u8>,
}

impl Chunks {
    fn compressed(&mut self, listed: &Listed, mut content: impl Read) -> Result<SegmentScan, Damage> {
        // How long it is shows only at its end.
        self.scan(listed, listed.segment.size, &mut content).unwrap_or_else(|error| {
            Err(Damage::Compressed { name: listed.segment.to_string(), why: error.to_string() })
        })
    }

    /// Reads all of it, also behind the end of WAL: only then what is compressed was seen to be whole.
    fn scan(
        &mut self,
        listed: &Listed,
        length: u64,
        content: &mut impl Read,
    ) -> io::Result<Result<SegmentScan, Damage>> {
        let mut filled = self.fill(content)?;
        let mut scanner = match self.begin(listed, filled, length) {
            Ok(scanner) => scanner,
            Err(damage) => return Ok(Err(damage)),
        };
        let mut found = 0;
        while filled > 0 && found <= length {
            found += filled as u64;
            scanner.pages(&self.chunk[..filled]);
            filled = self.fill(content)?;
        }
        let (scan, crossing) = scanner.finish();
        self.crossing = crossing;
        if found != length {
            let name = listed.segment.to_string();
            return Ok(Err(BadSegment::Length { name, found, expected: length }.into()));
        }
        Ok(Ok(scan))
    }

    /// As much as there is, up to a chunk.
    fn fill(&mut self, content: &mut impl Read) -> io::Result<usize> {
        let mut filled = 0;
        while filled < self.chunk.len() {
            match content.read(&mut self.chunk[filled..]) {
                Ok(0) => break,
                Ok(bytes) => filled += bytes,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }

    /// By the first chunk.
    fn begin(&mut self, listed: &Listed, filled: usize, length: u64) -> Result<Scanner, Damage> {
        let head = &self.chunk[..filled];
        let segment = listed.segment;
        let name = segment.to_string();
        if !head.is_empty() && head.iter().take(Header::BYTES).all(|byte| *byte == 0) {
            return Err(Damage::Zeroed { name });
        }
        let header = Header::check_head(&name, head, length, self.system_identifier)?;
        let magic = u16_at(head, 0);
        let version = Version::of_magic(magic).ok_or_else(|| Damage::Version { name: name.clone(), magic })?;
        let page_bytes = u32_at(head, 36) as usize;
        if !page_bytes.is_power_of_two() || !(1 << 10..=64 << 10).contains(&page_bytes) || segment.size != length {
            return Err(BadSegment::NoHeader { name }.into());
        }
        Ok(Scanner::new(segment, version, header.system_identifier, page_bytes, std::mem::take(&mut self.crossing)))
    }
}

/// It was listed, and is gone.
fn gone(listed: &Listed) -> Damage {
    let name = listed.segment.to_string();
    Damage::Missing { first: name.clone(), last: name, segments: 1 }
}
