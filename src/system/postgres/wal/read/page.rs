//! Page headers, and the versions of PostgreSQL by the magic number in them.

use crate::event::Lsn;

/// A format of WAL, by PostgreSQL's major version.
///
/// Source: `XLOG_PAGE_MAGIC` in `src/include/access/xlog_internal.h` of each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Version {
    V13,
    V14,
    V15,
    V16,
    V17,
    V18,
}

impl Version {
    /// `None` for a version that this reader does not know, older or newer.
    pub fn of_magic(magic: u16) -> Option<Self> {
        Some(match magic {
            0xD106 => Self::V13,
            0xD10D => Self::V14,
            0xD110 => Self::V15,
            0xD113 => Self::V16,
            0xD116 => Self::V17,
            0xD118 => Self::V18,
            _ => return None,
        })
    }

    pub fn magic(self) -> u16 {
        match self {
            Self::V13 => 0xD106,
            Self::V14 => 0xD10D,
            Self::V15 => 0xD110,
            Self::V16 => 0xD113,
            Self::V17 => 0xD116,
            Self::V18 => 0xD118,
        }
    }

    /// PostgreSQL's major version.
    pub fn major(self) -> u32 {
        self as u32 + 13
    }
}

/// The header of a page; the first of a segment has a longer one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PageHeader {
    pub magic: u16,
    info: u16,
    pub timeline: u32,
    pub address: Lsn,
    /// Bytes of the record from the page before that are still to come, here and on later pages.
    pub remaining: u32,
}

impl PageHeader {
    const CONTINUES: u16 = 0x0001;
    const LONG: u16 = 0x0002;
    const OVERWRITES: u16 = 0x0008;
    const ALL: u16 = 0x000F;
    const BYTES: usize = 24;
    const LONG_BYTES: usize = 40;

    /// `page` is at least a long header long.
    #[inline]
    pub fn read(page: &[u8]) -> Self {
        Self {
            magic: u16_at(page, 0),
            info: u16_at(page, 2),
            timeline: u32_at(page, 4),
            address: Lsn(u64_at(page, 8)),
            remaining: u32_at(page, 16),
        }
    }

    pub fn bytes(&self) -> usize {
        if self.is_long() { Self::LONG_BYTES } else { Self::BYTES }
    }

    pub fn is_long(&self) -> bool {
        self.info & Self::LONG != 0
    }

    /// The page begins with the rest of a record.
    pub fn continues(&self) -> bool {
        self.info & Self::CONTINUES != 0
    }

    /// A crash cut the record before this page for ever; what follows is new.
    pub fn overwrites(&self) -> bool {
        self.info & Self::OVERWRITES != 0
    }

    /// No flag that is unknown, and the length of the rest is there when it must be.
    pub fn is_sane(&self) -> bool {
        self.info & !Self::ALL == 0 && self.continues() == (self.remaining > 0)
    }
}

/// Little-endian numbers; the caller has checked the length.
#[inline]
pub(super) fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

#[inline]
pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

#[inline]
pub(super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}
