//! Records: the header, the checksum, and where a record's own data is behind its references to blocks.

use super::fact::Relation;
use super::page::{Version, u16_at, u32_at, u64_at};
use crate::event::Lsn;

/// The header of every record, 24 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    /// Bytes, header included.
    pub total: u32,
    pub xid: u32,
    /// Where the record before it begins.
    pub previous: Lsn,
    /// What the resource manager makes of it; the low four bits are PostgreSQL's own.
    pub info: u8,
    pub manager: u8,
    pub checksum: u32,
}

impl Header {
    pub const BYTES: usize = 24;
    /// `XLogRecordMaxSize`; versions before 16 had no limit but the allocator's, which is 4 MiB higher.
    pub const LARGEST: u32 = 1 << 30;

    #[inline]
    pub fn read(record: &[u8]) -> Self {
        Self {
            total: u32_at(record, 0),
            xid: u32_at(record, 4),
            previous: Lsn(u64_at(record, 8)),
            info: record[16],
            manager: record[17],
            checksum: u32_at(record, 20),
        }
    }
}

/// CRC32C over the data and then the header up to the checksum itself, as PostgreSQL computes it.
#[inline]
pub(super) fn checksum(record: &[u8]) -> u32 {
    let (header, data) = record.split_at(Header::BYTES);
    #[cfg(target_arch = "x86_64")]
    if data.len() < SHORT_DATA && std::arch::is_x86_feature_detected!("sse4.2") {
        // SAFETY: the processor was just asked for the instruction.
        return unsafe { checksum_of_short(header, data) };
    }
    crc32c::crc32c_append(crc32c::crc32c(data), &header[..20])
}

/// From here on the crate's three streams at once are faster.
#[cfg(target_arch = "x86_64")]
const SHORT_DATA: usize = 768;

/// Most records are short: one pass without the crate's preparations, at a third of its time.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "sse4.2")]
fn checksum_of_short(header: &[u8], data: &[u8]) -> u32 {
    use std::arch::x86_64::{_mm_crc32_u8, _mm_crc32_u32, _mm_crc32_u64};
    let (words, rest) = data.as_chunks::<8>();
    let crc = words.iter().fold(u64::from(u32::MAX), |crc, word| _mm_crc32_u64(crc, u64::from_le_bytes(*word))) as u32;
    let (words, rest) = rest.as_chunks::<4>();
    let crc = words.iter().fold(crc, |crc, word| _mm_crc32_u32(crc, u32::from_le_bytes(*word)));
    let crc = rest.iter().fold(crc, |crc, byte| _mm_crc32_u8(crc, *byte));
    let crc = _mm_crc32_u64(u64::from(crc), u64_at(header, 0));
    let crc = _mm_crc32_u64(crc, u64_at(header, 8)) as u32;
    !_mm_crc32_u32(crc, u32_at(header, 16))
}

/// What the reader needs of a record behind its header.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Body<'a> {
    /// The relation of the first block it changes.
    pub relation: Option<Relation>,
    /// The resource manager's own data.
    pub main: &'a [u8],
}

/// The ids that are no blocks.
const SHORT: u8 = 255;
const LONG: u8 = 254;
const ORIGIN: u8 = 253;
const TOP_XID: u8 = 252;
const LAST_BLOCK: u8 = 32;

const HAS_IMAGE: u8 = 0x10;
const HAS_DATA: u8 = 0x20;
const SAME_RELATION: u8 = 0x80;

const HAS_HOLE: u8 = 0x01;

/// Walks the headers of a whole record; `None` when they do not add up.
#[inline]
pub(super) fn body(record: &[u8], version: Version) -> Option<Body<'_>> {
    let mut rest = record.get(Header::BYTES..)?;
    // Bytes of images and data that stand behind the headers.
    let mut behind = 0_usize;
    let mut main = 0_usize;
    let mut relation = None;
    while rest.len() > behind {
        let id = take(&mut rest, 1)?[0];
        match id {
            SHORT => {
                main = usize::from(take(&mut rest, 1)?[0]);
                behind += main;
                break;
            }
            LONG => {
                main = u32_at(take(&mut rest, 4)?, 0) as usize;
                behind = behind.checked_add(main)?;
                break;
            }
            ORIGIN => drop(take(&mut rest, 2)?),
            TOP_XID => drop(take(&mut rest, 4)?),
            0..=LAST_BLOCK => {
                let head = take(&mut rest, 3)?;
                let (flags, data) = (head[0], usize::from(u16_at(head, 1)));
                if (flags & HAS_DATA != 0) != (data > 0) {
                    return None;
                }
                behind += data;
                if flags & HAS_IMAGE != 0 {
                    let image = take(&mut rest, 5)?;
                    behind += usize::from(u16_at(image, 0));
                    if image[4] & HAS_HOLE != 0 && image[4] & compressed(version) != 0 {
                        take(&mut rest, 2)?;
                    }
                }
                if flags & SAME_RELATION == 0 {
                    let found = Relation::read(take(&mut rest, 12)?);
                    relation.get_or_insert(found);
                }
                take(&mut rest, 4)?;
            }
            _ => return None,
        }
    }
    // What stands behind the headers is all there is; the main data are its end.
    (rest.len() == behind).then(|| Body { relation, main: &rest[behind - main..] })
}

/// The bits of `bimg_info` that say an image is compressed.
fn compressed(version: Version) -> u8 {
    if version >= Version::V15 { 0x04 | 0x08 | 0x10 } else { 0x02 }
}

#[inline]
fn take<'a>(rest: &mut &'a [u8], bytes: usize) -> Option<&'a [u8]> {
    let (taken, left) = rest.split_at_checked(bytes)?;
    *rest = left;
    Some(taken)
}

/// Reads numbers one after another out of a record's data.
pub(super) struct Fields<'a>(pub &'a [u8]);

impl<'a> Fields<'a> {
    pub fn bytes(&mut self, bytes: usize) -> Option<&'a [u8]> {
        take(&mut self.0, bytes)
    }

    pub fn u32(&mut self) -> Option<u32> {
        self.bytes(4).map(|bytes| u32_at(bytes, 0))
    }

    pub fn i64(&mut self) -> Option<i64> {
        self.bytes(8).map(|bytes| u64_at(bytes, 0) as i64)
    }

    pub fn lsn(&mut self) -> Option<Lsn> {
        self.bytes(8).map(|bytes| Lsn(u64_at(bytes, 0)))
    }

    /// A count, and that many items of `width` bytes.
    pub fn items(&mut self, width: usize) -> Option<std::slice::ChunksExact<'a, u8>> {
        let count = self.u32()? as usize;
        self.exactly(count, width)
    }

    pub fn exactly(&mut self, count: usize, width: usize) -> Option<std::slice::ChunksExact<'a, u8>> {
        Some(self.bytes(count.checked_mul(width)?)?.chunks_exact(width))
    }

    /// Text up to a zero byte, which is taken too.
    pub fn text(&mut self) -> Option<String> {
        let length = self.0.iter().position(|byte| *byte == 0)?;
        let text = self.bytes(length + 1)?;
        Some(String::from_utf8_lossy(&text[..length]).into_owned())
    }
}
