//! The names of WAL files, and the header that a segment begins with.

use std::fmt;

use crate::event::Lsn;

/// One WAL segment: its timeline and its number since the beginning of WAL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Segment {
    pub timeline: u32,
    pub number: u64,
    /// Bytes of a segment: a power of two from 1 MiB to 1 GiB.
    pub size: u64,
}

impl Segment {
    /// The segment that holds the byte at `lsn`.
    pub fn containing(lsn: Lsn, timeline: u32, size: u64) -> Self {
        Self { timeline, number: lsn.0 / size, size }
    }

    /// The segment that holds the byte before `lsn`.
    pub fn before(lsn: Lsn, timeline: u32, size: u64) -> Self {
        Self { timeline, number: lsn.0.saturating_sub(1) / size, size }
    }

    pub fn parse(name: &str, size: u64) -> Option<Self> {
        let WalFile::Segment(_) = WalFile::parse(name)? else { return None };
        let part = |range: std::ops::Range<usize>| u64::from_str_radix(&name[range], 16).ok();
        let (log, low) = (part(8..16)?, part(16..24)?);
        let per_log = 0x1_0000_0000 / size;
        (low < per_log).then_some(Self {
            timeline: u32::from_str_radix(&name[..8], 16).ok()?,
            number: log * per_log + low,
            size,
        })
    }

    pub fn start(&self) -> Lsn {
        Lsn(self.number * self.size)
    }

    /// Exclusive.
    pub fn end(&self) -> Lsn {
        Lsn((self.number + 1) * self.size)
    }

    pub fn next(self) -> Self {
        Self { number: self.number + 1, ..self }
    }
}

impl fmt::Display for Segment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let per_log = 0x1_0000_0000 / self.size;
        write!(f, "{:08X}{:08X}{:08X}", self.timeline, self.number / per_log, self.number % per_log)
    }
}

/// What PostgreSQL archives, by the form of its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WalFile {
    Segment(String),
    /// The last, unfinished segment of a timeline that was left.
    Partial(String),
    /// `00000002.history`
    History(u32),
    /// `…​.00000028.backup`
    BackupHistory(String),
}

impl WalFile {
    pub fn parse(name: &str) -> Option<Self> {
        let hex = |text: &str, length| {
            text.len() == length && text.bytes().all(|b| b.is_ascii_digit() || (b'A'..=b'F').contains(&b))
        };
        let mut parts = name.split('.');
        let found = match (parts.next()?, parts.next(), parts.next()) {
            (segment, None, None) if hex(segment, 24) => Self::Segment(name.to_owned()),
            (segment, Some("partial"), None) if hex(segment, 24) => Self::Partial(name.to_owned()),
            (timeline, Some("history"), None) if hex(timeline, 8) => {
                Self::History(u32::from_str_radix(timeline, 16).ok()?)
            }
            (segment, Some(offset), Some("backup")) if hex(segment, 24) && hex(offset, 8) => {
                Self::BackupHistory(name.to_owned())
            }
            _ => return None,
        };
        parts.next().is_none().then_some(found)
    }

    pub fn name(&self) -> String {
        match self {
            Self::Segment(name) | Self::Partial(name) | Self::BackupHistory(name) => name.clone(),
            Self::History(timeline) => format!("{timeline:08X}.history"),
        }
    }

    /// Holds WAL pages, and is stored compressed.
    pub fn is_wal(&self) -> bool {
        matches!(self, Self::Segment(_) | Self::Partial(_))
    }

    /// Where it stands in the bucket: `wal/00000001/000000010000000000000004.zst`.
    pub fn key(&self) -> String {
        let name = self.name();
        format!("wal/{}/{name}{}", &name[..8], if self.is_wal() { ".zst" } else { "" })
    }
}

/// What is wrong with a segment.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadSegment {
    #[error("`{0}` is not the name of a WAL file")]
    Name(String),
    #[error("{name} is cut: {found} bytes, and its header says {expected}")]
    Length { name: String, found: u64, expected: u64 },
    #[error("{name} does not begin with a WAL page header")]
    NoHeader { name: String },
    #[error("{name} is of another cluster: its system identifier is {found}, expected {expected}")]
    Foreign { name: String, found: u64, expected: u64 },
    #[error("{name} holds the WAL at {found}, not at {expected}: it was renamed or mixed up")]
    Address { name: String, found: Lsn, expected: Lsn },
    #[error("{name} holds WAL of timeline {found}, which is later than its name says")]
    Timeline { name: String, found: u32 },
}

impl BadSegment {
    pub fn name(&self) -> &str {
        match self {
            Self::Name(name)
            | Self::Length { name, .. }
            | Self::NoHeader { name }
            | Self::Foreign { name, .. }
            | Self::Address { name, .. }
            | Self::Timeline { name, .. } => name,
        }
    }
}

/// The long page header, the first 40 bytes of every segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    pub timeline: u32,
    pub address: Lsn,
    pub system_identifier: u64,
    pub segment_size: u64,
}

impl Header {
    pub const BYTES: usize = 40;
    const LONG: u16 = 0x0002;

    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let take = |at: usize, n: usize| bytes.get(at..at + n);
        let u16_at = |at| take(at, 2).map(|b| u16::from_le_bytes([b[0], b[1]]));
        let u32_at = |at| take(at, 4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]));
        let u64_at = |at| take(at, 8).and_then(|b| b.try_into().ok()).map(u64::from_le_bytes);
        // Every version's magic is 0xD0xx or 0xD1xx.
        let magic = u16_at(0)?;
        let size = u64::from(u32_at(32)?);
        let sane = matches!(magic >> 8, 0xD0 | 0xD1)
            && u16_at(2)? & Self::LONG != 0
            && size.is_power_of_two()
            && (1 << 20..=1 << 30).contains(&size);
        sane.then_some(Self {
            timeline: u32_at(4)?,
            address: Lsn(u64_at(8)?),
            system_identifier: u64_at(24)?,
            segment_size: size,
        })
    }

    /// Checks a whole segment (or partial) against its name, and against the cluster when it is known.
    pub fn check(name: &str, bytes: &[u8], system_identifier: Option<u64>) -> Result<Self, BadSegment> {
        Self::check_head(name, bytes, bytes.len() as u64, system_identifier)
    }

    /// The same with no more than the first bytes of a file that is `length` bytes long.
    pub fn check_head(
        name: &str,
        head: &[u8],
        length: u64,
        system_identifier: Option<u64>,
    ) -> Result<Self, BadSegment> {
        let header = Self::parse(head).ok_or_else(|| BadSegment::NoHeader { name: name.to_owned() })?;
        if length != header.segment_size {
            let (found, expected) = (length, header.segment_size);
            return Err(BadSegment::Length { name: name.to_owned(), found, expected });
        }
        if let Some(expected) = system_identifier.filter(|expected| *expected != header.system_identifier) {
            let found = header.system_identifier;
            return Err(BadSegment::Foreign { name: name.to_owned(), found, expected });
        }
        let plain = name.strip_suffix(".partial").unwrap_or(name);
        let segment = Segment::parse(plain, header.segment_size).ok_or_else(|| BadSegment::Name(name.to_owned()))?;
        if segment.start() != header.address {
            let (found, expected) = (header.address, segment.start());
            return Err(BadSegment::Address { name: name.to_owned(), found, expected });
        }
        // The first pages of a new timeline's first segment are copied from its parent, so earlier is fine.
        if header.timeline > segment.timeline {
            return Err(BadSegment::Timeline { name: name.to_owned(), found: header.timeline });
        }
        Ok(header)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    const SIZE: u64 = 16 << 20;

    /// A segment with nothing but its header.
    pub fn segment_bytes(segment: Segment, system_identifier: u64) -> Vec<u8> {
        let mut bytes = vec![0; segment.size as usize];
        bytes[0..2].copy_from_slice(&0xD110_u16.to_le_bytes());
        bytes[2..4].copy_from_slice(&2_u16.to_le_bytes());
        bytes[4..8].copy_from_slice(&segment.timeline.to_le_bytes());
        bytes[8..16].copy_from_slice(&segment.start().0.to_le_bytes());
        bytes[24..32].copy_from_slice(&system_identifier.to_le_bytes());
        bytes[32..36].copy_from_slice(&(segment.size as u32).to_le_bytes());
        bytes
    }

    #[test]
    fn a_segment_reads_what_it_writes() {
        for (lsn, name) in [("0/4A2F11C8", "00000003000000000000004A"), ("16/FF000000", "0000000300000016000000FF")] {
            let segment = Segment::containing(lsn.parse().unwrap(), 3, SIZE);
            assert_eq!(segment.to_string(), name);
            assert_eq!(Segment::parse(name, SIZE), Some(segment));
        }
        let last = Segment::parse("0000000100000000000000FF", SIZE).unwrap();
        assert_eq!(last.next().to_string(), "000000010000000100000000");
        assert_eq!(Segment::parse("000000010000000000000100", SIZE), None, "beyond the last of its log");
        assert_eq!(Segment::before("0/5000000".parse().unwrap(), 1, SIZE).to_string(), "000000010000000000000004");
    }

    #[test]
    fn files_are_told_apart_by_name() {
        assert_eq!(WalFile::parse("00000002.history"), Some(WalFile::History(2)));
        let key = |name: &str| WalFile::parse(name).map(|file| file.key());
        assert_eq!(key("00000002000000000000004A").unwrap(), "wal/00000002/00000002000000000000004A.zst");
        assert_eq!(key("00000002.history").unwrap(), "wal/00000002/00000002.history");
        assert!(key("00000002000000000000004A.00000028.backup").is_some());
        assert!(key("00000002000000000000004A.partial").is_some());
        for bad in ["", "..", "../etc/passwd", "00000002000000000000004a", "00000002.history.x", "archive.json"] {
            assert_eq!(WalFile::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_wrong_segment_is_told_by_its_header() {
        let segment = Segment::parse("000000020000000000000007", SIZE).unwrap();
        let good = segment_bytes(segment, 7);
        let check = |name: &str, bytes: &[u8], id| Header::check(name, bytes, id).map(|_| ());
        assert_eq!(check("000000020000000000000007", &good, Some(7)), Ok(()));
        assert_eq!(check("000000030000000000000007", &good, Some(7)), Ok(()), "copied from the parent timeline");
        assert!(matches!(check("000000020000000000000007", &good[..9000], Some(7)), Err(BadSegment::Length { .. })));
        assert!(matches!(check("000000020000000000000007", &good, Some(8)), Err(BadSegment::Foreign { .. })));
        assert!(matches!(check("000000020000000000000008", &good, None), Err(BadSegment::Address { .. })));
        assert!(matches!(check("000000010000000000000007", &good, None), Err(BadSegment::Timeline { .. })));
        assert!(matches!(check("000000020000000000000007", &good[1..], None), Err(BadSegment::NoHeader { .. })));
    }
}
