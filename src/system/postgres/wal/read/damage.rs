//! What is wrong with WAL, each by the segment's name.

use crate::event::Lsn;

use super::super::name::BadSegment;

/// Why reading stopped inside a segment. At the end of a living server's WAL, [`Flaw::Nothing`] and [`Flaw::Stale`] are
/// what stands behind the last record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Flaw {
    #[error("nothing was written behind it")]
    Nothing,
    #[error("the page at {page} is an older one, of {found}")]
    Stale { page: Lsn, found: Lsn },
    #[error("the page at {page} has the magic number {found:04X}")]
    Magic { page: Lsn, found: u16 },
    #[error("the page at {page} has a header that cannot be")]
    Page { page: Lsn },
    #[error("the page at {page} does not go on with the record before it")]
    Continuation { page: Lsn },
    #[error("a record cannot have {found} bytes")]
    Length { found: u32 },
    #[error("the checksum of the record there is wrong")]
    Checksum,
    #[error("the record there follows one at {found}, and the one before it is at {expected}")]
    Previous { found: Lsn, expected: Lsn },
    #[error("the record there goes on in the next segment, which does not have the rest")]
    Cut,
    #[error("the record at {lsn} has a right checksum, and this reader cannot decode it")]
    Undecodable { lsn: Lsn },
}

impl Flaw {
    /// How the WAL of a server that still runs, or that crashed, ends.
    pub fn is_end(&self) -> bool {
        matches!(self, Self::Nothing | Self::Stale { .. })
    }
}

/// A segment that cannot be read to its end, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    /// Misnamed, foreign, cut, of a later timeline, or no WAL.
    #[error(transparent)]
    Bad(#[from] BadSegment),
    #[error("{first} is missing{}", if *.segments > 1 { format!(", and all up to {last} ({segments} segments)") } else { String::new() })]
    Missing { first: String, last: String, segments: u64 },
    #[error("{name} is nothing but zeros")]
    Zeroed { name: String },
    #[error("{name} is of a version of PostgreSQL whose WAL cannot be read here (page magic {magic:04X})")]
    Version { name: String, magic: u16 },
    #[error("{name} cannot be decompressed: {why}")]
    Compressed { name: String, why: String },
    #[error("{name} is readable up to {at}: {flaw}")]
    Torn { name: String, at: Lsn, flaw: Flaw },
}

impl Damage {
    /// The segment's name; the first one's where several are missing.
    pub fn name(&self) -> &str {
        match self {
            Self::Missing { first: name, .. }
            | Self::Zeroed { name }
            | Self::Version { name, .. }
            | Self::Compressed { name, .. }
            | Self::Torn { name, .. } => name,
            Self::Bad(bad) => bad.name(),
        }
    }
}
