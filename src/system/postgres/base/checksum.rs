//! PostgreSQL's `backup_manifest`: every file of a backup with its size and checksum, and the WAL it needs.

use std::collections::HashMap;

use serde::Deserialize;
use sha2::Digest as _;

use crate::event::Lsn;

/// What the manifest says of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expected {
    /// Bytes.
    pub size: u64,
    /// Algorithm and hex digits; absent when the backup was made without.
    pub checksum: Option<(Algorithm, String)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    Crc32c,
    Sha224,
    Sha256,
    Sha384,
    Sha512,
}

/// A `backup_manifest` whose own checksum is right.
#[derive(Debug, Clone)]
pub struct PgManifest {
    pub files: HashMap<String, Expected>,
    pub timeline: u32,
    pub start: Lsn,
    pub end: Lsn,
    /// From version 17 on.
    pub system_identifier: Option<u64>,
}

#[derive(Deserialize)]
struct Raw {
    #[serde(rename = "PostgreSQL-Backup-Manifest-Version")]
    version: u32,
    #[serde(rename = "System-Identifier")]
    system_identifier: Option<u64>,
    #[serde(rename = "Files")]
    files: Vec<RawFile>,
    #[serde(rename = "WAL-Ranges")]
    ranges: Vec<RawRange>,
    #[serde(rename = "Manifest-Checksum")]
    checksum: String,
}

#[derive(Deserialize)]
struct RawFile {
    #[serde(rename = "Path")]
    path: Option<String>,
    #[serde(rename = "Encoded-Path")]
    encoded: Option<String>,
    #[serde(rename = "Size")]
    size: u64,
    #[serde(rename = "Checksum-Algorithm")]
    algorithm: Option<String>,
    #[serde(rename = "Checksum")]
    checksum: Option<String>,
}

#[derive(Deserialize)]
struct RawRange {
    #[serde(rename = "Timeline")]
    timeline: u32,
    #[serde(rename = "Start-LSN")]
    start: Lsn,
    #[serde(rename = "End-LSN")]
    end: Lsn,
}

impl PgManifest {
    /// Says in a sentence what is wrong.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        let raw: Raw =
            serde_json::from_slice(bytes).map_err(|error| format!("it is not a backup manifest: {error}"))?;
        if !matches!(raw.version, 1 | 2) {
            return Err(format!("its version is {}, and 1 and 2 are known", raw.version));
        }
        // The checksum covers every line before its own.
        let mark = b"\"Manifest-Checksum\"";
        let end = bytes.windows(mark.len()).rposition(|window| window == mark).ok_or("it has no checksum")?;
        if hex::encode(sha2::Sha256::digest(&bytes[..end])) != raw.checksum {
            return Err("its own checksum is wrong: it was changed or cut".to_owned());
        }
        let (first, last) = raw.ranges.first().zip(raw.ranges.last()).ok_or("it names no WAL")?;
        let (timeline, start, end) = (last.timeline, first.start, last.end);
        if raw.ranges.len() != 1 {
            return Err("its WAL is spread over several timelines".to_owned());
        }
        let mut files = HashMap::with_capacity(raw.files.len());
        for file in raw.files {
            let path = match (file.path, file.encoded) {
                (Some(path), _) => path,
                (None, Some(encoded)) => hex::decode(encoded)
                    .ok()
                    .and_then(|bytes| String::from_utf8(bytes).ok())
                    .ok_or("it holds a file whose name is not text")?,
                (None, None) => return Err("it holds a file without a name".to_owned()),
            };
            let checksum = match (file.algorithm.as_deref(), file.checksum) {
                (Some(name), Some(digits)) => Some((algorithm(name)?, digits)),
                _ => None,
            };
            files.insert(path, Expected { size: file.size, checksum });
        }
        Ok(Self { files, timeline, start, end, system_identifier: raw.system_identifier })
    }
}

fn algorithm(name: &str) -> Result<Algorithm, String> {
    match name {
        "CRC32C" => Ok(Algorithm::Crc32c),
        "SHA224" => Ok(Algorithm::Sha224),
        "SHA256" => Ok(Algorithm::Sha256),
        "SHA384" => Ok(Algorithm::Sha384),
        "SHA512" => Ok(Algorithm::Sha512),
        other => Err(format!("it uses the checksum {other}, which is not known")),
    }
}

/// A file's checksum while it passes.
pub enum Checksum {
    None,
    Crc32c(u32),
    Sha224(sha2::Sha224),
    Sha256(sha2::Sha256),
    Sha384(sha2::Sha384),
    Sha512(sha2::Sha512),
}

impl Checksum {
    pub fn of(expected: &Expected) -> Self {
        match expected.checksum.as_ref().map(|(algorithm, _)| algorithm) {
            None => Self::None,
            Some(Algorithm::Crc32c) => Self::Crc32c(0),
            Some(Algorithm::Sha224) => Self::Sha224(sha2::Sha224::new()),
            Some(Algorithm::Sha256) => Self::Sha256(sha2::Sha256::new()),
            Some(Algorithm::Sha384) => Self::Sha384(sha2::Sha384::new()),
            Some(Algorithm::Sha512) => Self::Sha512(sha2::Sha512::new()),
        }
    }

    pub fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::None => {}
            Self::Crc32c(crc) => *crc = crc32c::crc32c_append(*crc, bytes),
            Self::Sha224(hasher) => hasher.update(bytes),
            Self::Sha256(hasher) => hasher.update(bytes),
            Self::Sha384(hasher) => hasher.update(bytes),
            Self::Sha512(hasher) => hasher.update(bytes),
        }
    }

    /// Whether what passed is what was expected.
    pub fn matches(self, expected: &Expected) -> bool {
        let digits = match self {
            Self::None => return true,
            // The manifest prints the bytes as they lie in memory.
            Self::Crc32c(crc) => hex::encode(crc.to_le_bytes()),
            Self::Sha224(hasher) => hex::encode(hasher.finalize()),
            Self::Sha256(hasher) => hex::encode(hasher.finalize()),
            Self::Sha384(hasher) => hex::encode(hasher.finalize()),
            Self::Sha512(hasher) => hex::encode(hasher.finalize()),
        };
        expected.checksum.as_ref().is_some_and(|(_, wanted)| wanted.eq_ignore_ascii_case(&digits))
    }
}
