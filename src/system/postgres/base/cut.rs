//! What the server sends, cut at file borders into compressed parts.

use std::io::{self, Read, Write};

use tokio::sync::mpsc;

use super::manifest::Part;
use super::tar::{BLOCK, Entry, Kind, TarError};
use crate::event::Failure;
use crate::store::{Bucket, Upload};
use crate::system::postgres::error::PgError;
use crate::system::postgres::report::{Meter, Reporter};

/// Chunks of a channel as a stream of bytes.
pub struct Pipe {
    chunks: mpsc::Receiver<Vec<u8>>,
    chunk: Vec<u8>,
    at: usize,
}

impl Pipe {
    pub fn new(chunks: mpsc::Receiver<Vec<u8>>) -> Self {
        Self { chunks, chunk: Vec::new(), at: 0 }
    }
}

impl Read for Pipe {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.at == self.chunk.len() {
            match self.chunks.blocking_recv() {
                Some(chunk) => (self.chunk, self.at) = (chunk, 0),
                None => return Ok(0),
            }
        }
        let n = buffer.len().min(self.chunk.len() - self.at);
        buffer[..n].copy_from_slice(&self.chunk[self.at..self.at + n]);
        self.at += n;
        Ok(n)
    }
}

pub struct Cut {
    pub parts: Vec<Part>,
    pub backup_manifest: Option<Vec<u8>>,
}

pub struct Cutter {
    pub bucket: Bucket,
    pub folder: String,
    pub runtime: tokio::runtime::Handle,
    /// Raw bytes after which a part ends, at the next file border.
    pub part_size: u64,
    pub meter: Meter,
    pub report: Reporter,
}

impl Cutter {
    pub fn run(mut self, mut tar: Pipe) -> Result<Cut, PgError> {
        let mut parts = Vec::new();
        let mut current: Option<PartWriter> = None;
        let mut backup_manifest = None;
        let mut done = 0;
        let mut buffer = vec![0; 1 << 18];
        let damaged = |error: TarError| match error {
            TarError::Special { .. } | TarError::Escapes { .. } => PgError::from(
                Failure::new("the cluster cannot be backed up by Lifeboat yet", error)
                    .now("tablespaces and links inside the data directory are not supported"),
            ),
            error => PgError::from(Failure::new("pg_basebackup's stream broke off", error)),
        };
        while let Some(entry) = Entry::next(&mut tar).map_err(damaged)? {
            let padded = entry.size + entry.padding() as u64;
            if entry.name == "backup_manifest" {
                let mut bytes = vec![0; padded as usize];
                tar.read_exact(&mut bytes).map_err(PgError::io("reading the backup's manifest"))?;
                bytes.truncate(entry.size as usize);
                backup_manifest = Some(bytes);
                continue;
            }
            let mut part = match current.take() {
                Some(part) => part,
                None => self.begin(parts.len())?,
            };
            self.write(&mut part, &entry.header)?;
            let mut left = padded;
            while left > 0 {
                let want = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                let n = tar.read(&mut buffer[..want]).map_err(PgError::io("reading pg_basebackup's stream"))?;
                if n == 0 {
                    return Err(damaged(io::Error::from(io::ErrorKind::UnexpectedEof).into()));
                }
                self.write(&mut part, &buffer[..n])?;
                left -= n as u64;
                done += n as u64;
                if let Some(progress) = self.meter.tick(done, (entry.kind == Kind::File).then(|| entry.name.clone())) {
                    self.report.progress(progress);
                }
            }
            if part.raw >= self.part_size {
                parts.push(self.finish(part)?);
            } else {
                current = Some(part);
            }
        }
        if let Some(part) = current {
            parts.push(self.finish(part)?);
        }
        // The end mark's second block and padding: pg_basebackup must not see a closed pipe.
        io::copy(&mut tar, &mut io::sink()).map_err(PgError::io("reading pg_basebackup's stream"))?;
        Ok(Cut { parts, backup_manifest })
    }

    fn begin(&self, index: usize) -> Result<PartWriter, PgError> {
        let key = format!("{}/part-{index:04}.tar.zst", self.folder);
        let upload = self.runtime.block_on(self.bucket.upload(&key))?;
        let encoder = zstd::stream::write::Encoder::new(Vec::with_capacity(2 << 20), 1);
        Ok(PartWriter { encoder: encoder.map_err(PgError::io("starting the compressor"))?, upload, raw: 0 })
    }

    fn write(&self, part: &mut PartWriter, bytes: &[u8]) -> Result<(), PgError> {
        part.encoder.write_all(bytes).map_err(PgError::io("compressing"))?;
        part.raw += bytes.len() as u64;
        if part.encoder.get_ref().len() >= 1 << 20 {
            self.runtime.block_on(part.upload.write(part.encoder.get_ref()))?;
            part.encoder.get_mut().clear();
        }
        Ok(())
    }

    /// Every part is a tar of its own, with an end mark.
    fn finish(&self, mut part: PartWriter) -> Result<Part, PgError> {
        self.write(&mut part, &[0; 2 * BLOCK])?;
        let rest = part.encoder.finish().map_err(PgError::io("compressing"))?;
        let written = self.runtime.block_on(async {
            part.upload.write(&rest).await?;
            part.upload.finish().await
        })?;
        Ok(Part { key: written.key, digest: written.digest, bytes: written.bytes, raw_bytes: part.raw })
    }
}

struct PartWriter {
    encoder: zstd::stream::write::Encoder<'static, Vec<u8>>,
    upload: Upload,
    raw: u64,
}
