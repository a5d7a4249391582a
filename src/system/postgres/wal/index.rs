//! What a segment says, kept as an object beside the archive, so that a second look does not read WAL again.
//!
//! ```text
//! wal-index/1/00000001/000000010000000000000004-3382991   format 1; the segment's bytes as stored
//!
//! magic "lbwalix1" · bytes of summary, state, commits and CRC32C of them, each a little-endian u32
//! summary: JSON · state: JSON, zstd · commits: columns of variable-length numbers, zstd
//! ```
//!
//! An index is a cache: anybody may delete it. Its key says which content it is of, so one that is out of date is just
//! not found. Only segments that are whole, with the record that leaves them, have one.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::name::Segment;
use super::read::{Commit, Counts, Fact, Joined, Listed, Relation, State, Work};
use crate::event::Lsn;

const MAGIC: &[u8; 8] = b"lbwalix1";
const HEAD: usize = 24;
/// More than any state or list of commits of a segment; a damaged length must not take all memory.
const LARGEST: u64 = 256 << 20;

/// Where every index of this format stands.
pub(super) const FOLDER: &str = "wal-index/1";

/// Relations that are named of one suspect.
const DROPPED: usize = 64;
/// Suspects that are named of one segment.
const SUSPECTS: usize = 256;

/// The short answer about a segment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Summary {
    pub segment: String,
    /// A u64 as text.
    pub system_identifier: String,
    /// PostgreSQL's major version.
    pub version: u32,
    /// Records that begin in it.
    pub records: u64,
    pub first: Option<Lsn>,
    /// Behind its last record.
    pub end: Lsn,
    /// Counts of transactions include everything from here.
    pub since: Lsn,
    pub counts: Counts,
    pub aborts: u64,
    pub commits: Option<Span>,
    /// Restore points, checkpoints, timelines, settings, dropped databases, ends of backups, prepared transactions.
    pub facts: Vec<Fact>,
    /// Commits that removed relations or changed at least [`Work::NOTABLE`] rows, in their order; the heaviest when there
    /// are very many.
    pub suspects: Vec<Suspect>,
    pub more_suspects: u64,
}

/// Commits of a segment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Span {
    pub number: u64,
    pub first: CommitAt,
    pub last: CommitAt,
    /// Times of commits do not always rise with their places.
    pub earliest: DateTime<Utc>,
    pub latest: DateTime<Utc>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CommitAt {
    pub lsn: Lsn,
    pub xid: u32,
    pub time: DateTime<Utc>,
    pub counts: Counts,
}

impl CommitAt {
    fn of(commit: &Commit) -> Self {
        Self { lsn: commit.lsn, xid: commit.xid, time: commit.time, counts: commit.work.counts }
    }
}

/// A commit that may be the damage somebody looks for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Suspect {
    pub lsn: Lsn,
    pub end: Lsn,
    pub xid: u32,
    pub time: DateTime<Utc>,
    /// OID; 0 when the commit does not say.
    pub database: u32,
    /// The first of the relations it removed; indexes and TOAST are relations too.
    pub dropped: Vec<Relation>,
    pub dropped_in_all: u64,
    pub work: Work,
}

impl Suspect {
    /// `None` for a commit of everyday size.
    pub fn of(commit: &Commit) -> Option<Self> {
        let suspicious = !commit.dropped.is_empty() || commit.work.counts.changed() >= Work::NOTABLE;
        suspicious.then(|| Self {
            lsn: commit.lsn,
            end: commit.end,
            xid: commit.xid,
            time: commit.time,
            database: commit.database,
            dropped: commit.dropped.iter().take(DROPPED).copied().collect(),
            dropped_in_all: commit.dropped.len() as u64,
            work: commit.work.clone(),
        })
    }
}

impl Summary {
    pub fn of(joined: &Joined, state: &State) -> Self {
        let mut summary = Self {
            segment: joined.segment.to_string(),
            system_identifier: joined.system_identifier.to_string(),
            version: joined.version.major(),
            records: joined.records,
            first: joined.first,
            end: joined.end,
            since: state.since,
            counts: joined.counts,
            aborts: 0,
            commits: None,
            facts: Vec::new(),
            suspects: Vec::new(),
            more_suspects: 0,
        };
        for fact in &joined.facts {
            match fact {
                Fact::Commit(commit) => {
                    let at = CommitAt::of(commit);
                    let span = summary.commits.get_or_insert(Span {
                        number: 0,
                        first: at,
                        last: at,
                        earliest: at.time,
                        latest: at.time,
                    });
                    span.number += 1;
                    span.last = at;
                    span.earliest = span.earliest.min(at.time);
                    span.latest = span.latest.max(at.time);
                    summary.suspects.extend(Suspect::of(commit));
                }
                Fact::Abort(_) => summary.aborts += 1,
                Fact::Lock { .. } | Fact::Running { .. } => {}
                fact => summary.facts.push(fact.clone()),
            }
        }
        summary.more_suspects = summary.suspects.len().saturating_sub(SUSPECTS) as u64;
        if summary.more_suspects > 0 {
            summary.suspects.sort_by_key(|suspect| {
                std::cmp::Reverse((suspect.work.counts.changed(), suspect.dropped_in_all, suspect.lsn))
            });
            summary.suspects.truncate(SUSPECTS);
            summary.suspects.sort_by_key(|suspect| suspect.lsn);
        }
        summary
    }
}

/// A segment's index object.
#[derive(Debug, Clone, PartialEq)]
pub struct Index {
    pub summary: Summary,
    state: Vec<u8>,
    commits: Vec<u8>,
}

/// Why an object is no index.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("it is not a usable index of WAL: {0}")]
pub struct BadIndex(String);

impl Index {
    /// `None` when the segment is not known to its end.
    pub fn of(joined: &Joined, state: &State) -> Option<Self> {
        if !joined.is_complete() {
            return None;
        }
        let json = serde_json::to_vec(state).expect("a state is JSON");
        let commits: Vec<CommitAt> = joined
            .facts
            .iter()
            .filter_map(|fact| if let Fact::Commit(commit) = fact { Some(CommitAt::of(commit)) } else { None })
            .collect();
        Some(Self {
            summary: Summary::of(joined, state),
            state: compress(&json),
            commits: compress(&columns::write(&commits)),
        })
    }

    /// The object's key, for a segment as it is listed.
    pub fn key(listed: &Listed) -> String {
        let Segment { timeline, .. } = listed.segment;
        format!("{FOLDER}/{timeline:08X}/{}-{}", listed.segment, listed.bytes)
    }

    pub fn to_bytes(&self) -> Vec<u8> {
        let summary = serde_json::to_vec(&self.summary).expect("a summary is JSON");
        let parts = [&summary, &self.state, &self.commits];
        let mut bytes = MAGIC.to_vec();
        let length = |part: &Vec<u8>| u32::try_from(part.len()).expect("an index is small").to_le_bytes();
        parts.iter().for_each(|part| bytes.extend_from_slice(&length(part)));
        let sum = parts.iter().fold(0, |sum, part| crc32c::crc32c_append(sum, part));
        bytes.extend_from_slice(&sum.to_le_bytes());
        parts.iter().for_each(|part| bytes.extend_from_slice(part));
        bytes
    }

    pub fn parse(bytes: &[u8]) -> Result<Self, BadIndex> {
        let bad = |why: &str| BadIndex(why.to_owned());
        let (head, rest) = bytes.split_at_checked(HEAD).ok_or_else(|| bad("it is cut"))?;
        let head = head.strip_prefix(MAGIC).ok_or_else(|| bad("it does not begin as one"))?;
        let mut numbers = head.chunks_exact(4).map(|n| u32::from_le_bytes([n[0], n[1], n[2], n[3]]));
        let mut number = || numbers.next().expect("four of them");
        let (summary, state, commits, sum) = (number() as usize, number() as usize, number() as usize, number());
        if rest.len() != summary.saturating_add(state).saturating_add(commits) {
            return Err(bad("it is cut"));
        }
        if crc32c::crc32c(rest) != sum {
            return Err(bad("its checksum is wrong"));
        }
        let (summary, rest) = rest.split_at(summary);
        let (state, commits) = rest.split_at(state);
        Ok(Self {
            summary: serde_json::from_slice(summary).map_err(|error| BadIndex(error.to_string()))?,
            state: state.to_vec(),
            commits: commits.to_vec(),
        })
    }

    /// Many indexes are held at once, and few are asked for their commits.
    pub(super) fn forget_commits(&mut self) {
        self.commits = Vec::new();
    }

    /// What is known behind the segment.
    pub fn state(&self) -> Result<State, BadIndex> {
        serde_json::from_slice(&decompress(&self.state)?).map_err(|error| BadIndex(error.to_string()))
    }

    /// Every commit of the segment, in its order.
    pub fn commits(&self) -> Result<Vec<CommitAt>, BadIndex> {
        columns::read(&decompress(&self.commits)?).ok_or_else(|| BadIndex("its commits do not add up".to_owned()))
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

/// Commits as differences to the one before, a column after the other.
mod columns {
    use super::{CommitAt, Counts, DateTime, Lsn};

    fn put(bytes: &mut Vec<u8>, mut number: u64) {
        while number >= 0x80 {
            bytes.push(number as u8 | 0x80);
            number >>= 7;
        }
        bytes.push(number as u8);
    }

    fn take(bytes: &mut &[u8]) -> Option<u64> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = bytes.split_first()?;
            *bytes = rest;
            number |= u64::from(byte & 0x7F) << shift;
            if byte & 0x80 == 0 {
                return Some(number);
            }
        }
        None
    }

    /// Small numbers of either sign become small numbers.
    fn zigzag(number: i64) -> u64 {
        (number << 1 ^ number >> 63) as u64
    }

    fn unzigzag(number: u64) -> i64 {
        (number >> 1) as i64 ^ -((number & 1) as i64)
    }

    type Column = (fn(&CommitAt) -> i64, fn(&mut CommitAt, i64));

    const COLUMNS: [Column; 6] = [
        (|commit| commit.lsn.0 as i64, |commit, value| commit.lsn = Lsn(value as u64)),
        (|commit| i64::from(commit.xid), |commit, value| commit.xid = value as u32),
        (
            |commit| commit.time.timestamp_micros(),
            |commit, value| commit.time = DateTime::from_timestamp_micros(value).unwrap_or_default(),
        ),
        (|commit| commit.counts.inserts as i64, |commit, value| commit.counts.inserts = value as u64),
        (|commit| commit.counts.updates as i64, |commit, value| commit.counts.updates = value as u64),
        (|commit| commit.counts.deletes as i64, |commit, value| commit.counts.deletes = value as u64),
    ];

    pub fn write(commits: &[CommitAt]) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(commits.len() * 10);
        put(&mut bytes, commits.len() as u64);
        for (get, _) in COLUMNS {
            let mut before = 0;
            for commit in commits {
                put(&mut bytes, zigzag(get(commit).wrapping_sub(before)));
                before = get(commit);
            }
        }
        bytes
    }

    pub fn read(mut bytes: &[u8]) -> Option<Vec<CommitAt>> {
        let number = usize::try_from(take(&mut bytes)?).ok()?;
        // Each has at least a byte a column.
        if number > bytes.len() / COLUMNS.len() {
            return None;
        }
        let nothing = CommitAt { lsn: Lsn(0), xid: 0, time: DateTime::default(), counts: Counts::default() };
        let mut commits = vec![nothing; number];
        for (_, set) in COLUMNS {
            let mut value = 0_i64;
            for commit in &mut commits {
                value = value.wrapping_add(unzigzag(take(&mut bytes)?));
                set(commit, value);
            }
        }
        bytes.is_empty().then_some(commits)
    }
}

#[cfg(test)]
mod tests;
