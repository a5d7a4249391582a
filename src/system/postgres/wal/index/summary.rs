//! The short answer about a segment.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::super::read::{Commit, Counts, Fact, Joined, Listed, Relation, Work};
use crate::digest::Digest;
use crate::event::Lsn;

/// Relations that are named of one suspect.
const DROPPED: usize = 256;
/// Suspects that are named of one segment.
const SUSPECTS: usize = 256;
/// Restore points that are told of one segment, and dropped databases.
const FACTS: usize = 1024;

/// What a segment says; its commits one by one stand beside it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Summary {
    pub stored: Stored,
    /// The segments in which the record ends that leaves it.
    pub rest: Vec<Stored>,
    /// A u64 as text.
    pub system_identifier: String,
    /// PostgreSQL's major version.
    pub version: u32,
    /// Digests of the states before and behind it; without the first it was read knowing nothing, and what its
    /// transactions did before does not count.
    pub before: Option<Digest>,
    pub after: Digest,
    /// Records that begin in it.
    pub records: u64,
    pub first: Option<Lsn>,
    /// Behind its last record.
    pub end: Lsn,
    pub counts: Counts,
    /// Changes of transactions that were too many to follow.
    pub uncounted: u64,
    pub commits: Option<Span>,
    pub aborts: u64,
    pub ends: Option<Ends>,
    /// The latest moment that anything in it was written, where a record says one.
    pub written: Option<DateTime<Utc>>,
    /// The last record that settles something, and its end: a commit, an abort, a prepared transaction, a restore point.
    pub settles: Option<(Lsn, Lsn)>,
    pub restore_points: u64,
    /// Its checkpoints, timelines, settings and ends of backups; the first of its restore points and dropped databases.
    pub facts: Vec<Fact>,
    /// Commits that removed or emptied relations, or changed at least [`Work::NOTABLE`] rows, in their order; the heaviest
    /// when there are very many.
    pub suspects: Vec<Suspect>,
    pub more_suspects: u64,
}

/// A segment as the store lists it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stored {
    pub segment: String,
    pub bytes: u64,
    /// Milliseconds since 1970.
    pub at: i64,
}

impl Stored {
    pub fn of(listed: &Listed) -> Self {
        let Listed { segment, bytes, modified, .. } = listed;
        Self { segment: segment.to_string(), bytes: *bytes, at: modified.timestamp_millis() }
    }
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

/// Ends of transactions in a segment, rollbacks included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ends {
    /// The time of the last one.
    pub last: DateTime<Utc>,
    pub latest: DateTime<Utc>,
    /// Bounds of the ids, subtransactions included; ids go round, and then these say nothing.
    pub low: u32,
    pub high: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CommitAt {
    pub lsn: Lsn,
    pub end: Lsn,
    pub xid: u32,
    pub time: DateTime<Utc>,
    pub counts: Counts,
}

impl CommitAt {
    pub(super) fn of(commit: &Commit) -> Self {
        let Commit { lsn, end, xid, time, .. } = *commit;
        Self { lsn, end, xid, time, counts: commit.work.counts }
    }
}

/// Commits of one second.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Pace {
    /// Since 1970.
    pub second: i64,
    pub commits: u64,
    /// Of WAL, from the end of the commit before each to its own; of the segment's first commit nothing.
    pub bytes: u64,
}

impl Pace {
    pub(super) fn of<'a>(commits: impl Iterator<Item = &'a Commit>) -> Vec<Self> {
        let mut seconds: BTreeMap<i64, Self> = BTreeMap::new();
        let mut end = None;
        for commit in commits {
            let second = commit.time.timestamp();
            let pace = seconds.entry(second).or_insert(Self { second, ..Self::default() });
            pace.commits += 1;
            pace.bytes += commit.end.0 - end.replace(commit.end.0).unwrap_or(commit.end.0);
        }
        seconds.into_values().collect()
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
    /// Commits of the segment before it.
    pub commits_before: u64,
    /// OID; 0 when the commit does not say.
    pub database: u32,
    /// The first of the relations it removed; indexes and TOAST are relations too.
    pub dropped: Vec<Relation>,
    pub dropped_in_all: u64,
    pub work: Work,
}

impl Suspect {
    /// `None` for a commit of everyday size.
    pub fn of(commit: &Commit, commits_before: u64) -> Option<Self> {
        let Work { counts, emptied, .. } = &commit.work;
        let removes = !commit.dropped.is_empty() || !emptied.is_empty();
        (removes || counts.changed() >= Work::NOTABLE).then(|| Self {
            lsn: commit.lsn,
            end: commit.end,
            xid: commit.xid,
            time: commit.time,
            commits_before,
            database: commit.database,
            dropped: commit.dropped.iter().take(DROPPED).copied().collect(),
            dropped_in_all: commit.dropped.len() as u64,
            work: commit.work.clone(),
        })
    }

    /// Who removes a table comes before who changes however many rows of one.
    fn weight(&self) -> impl Ord + use<> {
        let emptied = self.work.emptied.len() as u64;
        (self.dropped_in_all + emptied > 0, self.work.counts.changed(), self.lsn)
    }
}

impl Summary {
    /// `coming` are the segments from this one on.
    pub(super) fn of(coming: &[Listed], joined: &Joined, before: Option<Digest>, after: Digest) -> Self {
        let (own, behind) = coming.split_first().expect("the segment itself");
        let rest = behind.iter().take_while(|listed| listed.segment.start() < joined.end);
        let mut summary = Self {
            stored: Stored::of(own),
            rest: rest.map(Stored::of).collect(),
            system_identifier: joined.system_identifier.to_string(),
            version: joined.version.major(),
            before,
            after,
            records: joined.records,
            first: joined.first,
            end: joined.end,
            counts: joined.counts,
            uncounted: joined.uncounted,
            commits: None,
            aborts: 0,
            ends: None,
            written: None,
            settles: None,
            restore_points: 0,
            facts: Vec::new(),
            suspects: Vec::new(),
            more_suspects: 0,
        };
        joined.facts.iter().for_each(|fact| summary.add(fact));
        summary.more_suspects = summary.suspects.len().saturating_sub(SUSPECTS) as u64;
        if summary.more_suspects > 0 {
            summary.suspects.sort_by_key(|suspect| std::cmp::Reverse(suspect.weight()));
            summary.suspects.truncate(SUSPECTS);
            summary.suspects.sort_by_key(|suspect| suspect.lsn);
        }
        summary
    }

    fn add(&mut self, fact: &Fact) {
        if let Some((lsn, end)) = fact.settles() {
            self.settles = Some((lsn, end));
        }
        self.written = self.written.max(fact.time());
        match fact {
            Fact::Commit(commit) => {
                self.end_of(commit.time, commit.xid, &commit.subtransactions);
                let before = self.commits.as_ref().map_or(0, |span| span.number);
                self.suspects.extend(Suspect::of(commit, before));
                let at = CommitAt::of(commit);
                let span = Span { number: 0, first: at, last: at, earliest: at.time, latest: at.time };
                let span = self.commits.get_or_insert(span);
                span.number += 1;
                span.last = at;
                span.earliest = span.earliest.min(at.time);
                span.latest = span.latest.max(at.time);
            }
            Fact::Abort(abort) => {
                self.end_of(abort.time, abort.xid, &abort.subtransactions);
                self.aborts += 1;
            }
            Fact::Lock { .. } | Fact::Running { .. } | Fact::Prepared(_) => {}
            Fact::RestorePoint { .. } | Fact::DatabaseDropped { .. } => {
                self.restore_points += u64::from(matches!(fact, Fact::RestorePoint { .. }));
                if self.facts.len() < FACTS {
                    self.facts.push(fact.clone());
                }
            }
            fact => self.facts.push(fact.clone()),
        }
    }

    fn end_of(&mut self, time: DateTime<Utc>, xid: u32, subtransactions: &[u32]) {
        let ends = self.ends.get_or_insert(Ends { last: time, latest: time, low: xid, high: xid });
        ends.last = time;
        ends.latest = ends.latest.max(time);
        for xid in subtransactions.iter().chain([&xid]) {
            ends.low = ends.low.min(*xid);
            ends.high = ends.high.max(*xid);
        }
    }
}
