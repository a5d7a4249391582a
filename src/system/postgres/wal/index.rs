//! What a segment says, kept as an object beside the archive, so that a second look does not read WAL again.
//!
//! ```text
//! wal-index/2/00000001/000000010000000000000004-3382991-1763719351507-5d41402abc4b
//!   format 2; the segment's bytes as stored, and when (ms); what was known before it was read, or 0
//!
//! magic "lbwalix2" · bytes of summary, pace, state and commits, and CRC32C of these and of them, each a little-endian u32
//! summary, state: JSON · pace, commits: columns of variable-length numbers · all zstd
//! ```
//!
//! An index is a cache: anybody may delete it. Its key says which content it is of, so one that is out of date is just
//! not found. Only segments that are whole, with the record that leaves them, have one. What a transaction did in segments
//! before counts in its commit's; so an index is good only behind the same [`State`] as it was made behind, and says which
//! that was.

mod columns;
mod summary;

pub use summary::{CommitAt, Ends, Pace, Span, Stored, Summary, Suspect};

use super::read::{Fact, Joined, Listed, State};
use crate::digest::Digest;

const MAGIC: &[u8; 8] = b"lbwalix2";
const PARTS: usize = 4;
const HEAD: usize = MAGIC.len() + 4 * (PARTS + 1);
/// More than any part of an index; a damaged length must not take all memory.
const LARGEST: u64 = 256 << 20;

/// Where every index of this format stands.
pub const FOLDER: &str = "wal-index/2";

/// A segment's index object.
#[derive(Debug, Clone, PartialEq)]
pub struct Index {
    pub summary: Summary,
    pace: Vec<u8>,
    state: Vec<u8>,
    commits: Vec<u8>,
}

/// Why an object is no index.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("it is not a usable index of WAL: {0}")]
pub struct BadIndex(String);

impl Index {
    /// `coming` are the segments from this one on; `before` is the digest of the state before it, `None` when nothing was
    /// known.
    pub(super) fn of(coming: &[Listed], joined: &Joined, before: Option<Digest>, state: &State) -> Self {
        let json = serde_json::to_vec(state).expect("a state is JSON");
        let commits = || joined.facts.iter().filter_map(Fact::commit);
        let rows: Vec<CommitAt> = commits().map(CommitAt::of).collect();
        Self {
            summary: Summary::of(coming, joined, before, Digest::of(&json)),
            pace: compress(&columns::write(&Pace::of(commits()))),
            state: compress(&json),
            commits: compress(&columns::write(&rows)),
        }
    }

    /// What the keys of a segment's indexes begin with.
    pub(super) fn prefix(listed: &Listed) -> String {
        let Listed { segment, bytes, modified, .. } = listed;
        format!("{}{segment}-{bytes}-{}-", Self::folder(segment.timeline), modified.timestamp_millis())
    }

    /// Of a timeline.
    pub(super) fn folder(timeline: u32) -> String {
        format!("{FOLDER}/{timeline:08X}/")
    }

    /// The object's key.
    pub fn key(listed: &Listed, before: Option<Digest>) -> String {
        Self::prefix(listed) + &before.map_or_else(|| "0".to_owned(), |digest| digest.short())
    }

    /// Whether it says of itself that it is of the first of these segments, as it is stored now, and that its last record
    /// ends in those that follow, as they are.
    pub(super) fn is_of(&self, coming: &[Listed], system_identifier: Option<u64>) -> bool {
        let Summary { stored, rest, system_identifier: of, .. } = &self.summary;
        let whole = coming.len() > rest.len();
        let all = std::iter::once(stored).chain(rest);
        whole
            && all.zip(coming).all(|(stored, listed)| *stored == Stored::of(listed))
            && system_identifier.is_none_or(|id| *of == id.to_string())
    }

    pub fn to_bytes(&self) -> Vec<u8> {
        let summary = compress(&serde_json::to_vec(&self.summary).expect("a summary is JSON"));
        let parts: [&Vec<u8>; PARTS] = [&summary, &self.pace, &self.state, &self.commits];
        let mut bytes = MAGIC.to_vec();
        let length = |part: &Vec<u8>| u32::try_from(part.len()).expect("an index is small").to_le_bytes();
        parts.iter().for_each(|part| bytes.extend_from_slice(&length(part)));
        let lengths = crc32c::crc32c(&bytes[MAGIC.len()..]);
        let sum = parts.iter().fold(lengths, |sum, part| crc32c::crc32c_append(sum, part));
        bytes.extend_from_slice(&sum.to_le_bytes());
        parts.iter().for_each(|part| bytes.extend_from_slice(part));
        bytes
    }

    pub fn parse(bytes: &[u8]) -> Result<Self, BadIndex> {
        let bad = |why: &str| BadIndex(why.to_owned());
        let (head, mut rest) = bytes.split_at_checked(HEAD).ok_or_else(|| bad("it is cut"))?;
        let head = head.strip_prefix(MAGIC).ok_or_else(|| bad("it does not begin as one"))?;
        let (lengths, sum) = head.split_at(4 * PARTS);
        if crc32c::crc32c_append(crc32c::crc32c(lengths), rest).to_le_bytes() != *sum {
            return Err(bad("its checksum is wrong"));
        }
        let mut parts = lengths.as_chunks::<4>().0.iter().map(|length| {
            let (part, behind) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
            rest = behind;
            Some(part.to_vec())
        });
        let mut part = || parts.next().flatten().ok_or_else(|| bad("it is cut"));
        let (summary, pace, state, commits) = (part()?, part()?, part()?, part()?);
        if !rest.is_empty() {
            return Err(bad("it is too long"));
        }
        let summary = serde_json::from_slice(&decompress(&summary)?).map_err(|error| BadIndex(error.to_string()))?;
        Ok(Self { summary, pace, state, commits })
    }

    /// What is known behind the segment.
    pub fn state(&self) -> Result<State, BadIndex> {
        serde_json::from_slice(&decompress(&self.state)?).map_err(|error| BadIndex(error.to_string()))
    }

    /// Every commit of the segment, in its order.
    pub fn commits(&self) -> Result<Vec<CommitAt>, BadIndex> {
        columns::read(&decompress(&self.commits)?).ok_or_else(|| BadIndex("its commits do not add up".to_owned()))
    }

    /// Its commits by the second, in no order.
    pub fn pace(&self) -> Result<Vec<Pace>, BadIndex> {
        columns::read(&decompress(&self.pace)?).ok_or_else(|| BadIndex("its pace does not add up".to_owned()))
    }
}

fn compress(bytes: &[u8]) -> Vec<u8> {
    zstd::bulk::compress(bytes, 3).expect("zstd has memory for a context")
}

fn decompress(bytes: &[u8]) -> Result<Vec<u8>, BadIndex> {
    let size = zstd::zstd_safe::get_frame_content_size(bytes).ok().flatten().filter(|size| *size <= LARGEST);
    let size = size.ok_or_else(|| BadIndex("a part of it is not compressed as it should be".to_owned()))?;
    zstd::bulk::decompress(bytes, size as usize).map_err(|error| BadIndex(error.to_string()))
}

#[cfg(test)]
mod tests;
