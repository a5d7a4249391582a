//! What the limit of a store no longer asks to be kept.
//!
//! A limit of 30 days promises that every moment of the last 30 days can be recovered. For that the newest good backup from
//! before the limit is needed too, and the WAL from it on. What is older than that chain is spare. Nothing is spare because
//! something newer merely exists: a chain counts when it leads somewhere.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};

use super::lineage::{chain, descendants, reach_of};
use crate::event::{AofRange, BaseBackup, Coverage, Fork, Lsn, RedisSnapshot};
use crate::system::postgres::wal::Segment;
use crate::system::postgres::wal::read::Listed;

/// What may go of one system.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Spare {
    /// The oldest chain that is kept: of a base backup or a snapshot. `None` when nothing is older than the limit.
    pub anchor: Option<String>,
    /// Labels of base backups or snapshots, the oldest first.
    pub backups: Vec<String>,
    /// Labels of append-only files.
    pub aof: Vec<String>,
    /// Indices of WAL segments.
    pub segments: Vec<usize>,
    /// Since when the limit asks for none of it.
    pub since: Option<DateTime<Utc>>,
    /// By timeline: the number of the first segment that a backup which stays may need.
    needed: BTreeMap<u32, u64>,
}

impl Spare {
    /// Whether a file of the WAL, stored at this moment, is older than everything that stays.
    pub fn has_passed(&self, segment: Segment, stored: DateTime<Utc>, cutoff: DateTime<Utc>) -> bool {
        let first = self.needed.get(&segment.timeline);
        self.anchor.is_some() && stored <= cutoff && first.is_none_or(|first| segment.number < *first)
    }

    pub fn is_empty(&self) -> bool {
        self.backups.is_empty() && self.aof.is_empty() && self.segments.is_empty()
    }
}

/// Everything before it is older than the limit.
pub fn cutoff(retain: Duration, now: DateTime<Utc>) -> DateTime<Utc> {
    TimeDelta::from_std(retain).ok().and_then(|span| now.checked_sub_signed(span)).unwrap_or(DateTime::<Utc>::MIN_UTC)
}

/// Of the backups that go, those that build on another: the newest first, so that none is ever left without it.
pub fn dependent<'a>(backups: &'a [BaseBackup], going: &[String]) -> Vec<&'a str> {
    let goes = |backup: &&BaseBackup| backup.parent.is_some() && going.contains(&backup.label);
    let mut found: Vec<&BaseBackup> = backups.iter().filter(goes).collect();
    found.sort_by_key(|backup| Reverse(backup.start_lsn));
    found.into_iter().map(|backup| backup.label.as_str()).collect()
}

/// A PostgreSQL system's part of the listing.
#[derive(Clone, Copy)]
pub struct Archived<'a> {
    pub backups: &'a [BaseBackup],
    pub coverage: &'a [Coverage],
    pub forks: &'a [Fork],
    /// Bytes of a segment.
    pub size: u64,
}

impl<'a> Archived<'a> {
    /// Backups that a server can be started from: the WAL up to their own end is there. The oldest first.
    pub fn good(&self) -> Vec<&'a BaseBackup> {
        let whole = |backup: &&BaseBackup| {
            let size = self.size;
            let (from, to) = (backup.start_lsn.0 / size * size, backup.stop_lsn);
            let on = |run: &Coverage| run.timeline == backup.timeline && run.from.0 <= from && run.to >= to;
            self.coverage.iter().any(on)
        };
        let mut good: Vec<&BaseBackup> = self.backups.iter().filter(whole).collect();
        good.sort_by_key(|backup| (backup.stopped, backup.stop_lsn));
        good
    }

    /// The first hole between one good backup and the next: the two labels, and where the WAL breaks off. Histories that
    /// branched are no hole.
    pub fn first_hole(&self, since: DateTime<Utc>) -> Option<(String, String, Lsn)> {
        let good = self.good();
        good.windows(2).filter(|pair| pair[1].stopped > since).find_map(|pair| {
            let (before, next) = (pair[0], pair[1]);
            let first = Lsn(before.start_lsn.0 / self.size * self.size);
            let over =
                |run: &Coverage| run.timeline == before.timeline && run.from <= first && run.to >= next.start_lsn;
            if before.timeline == next.timeline && self.coverage.iter().any(over) {
                return None;
            }
            let reach = reach_of(self.forks, self.coverage, before, next.timeline, self.size)?;
            (reach.end < next.start_lsn).then(|| (before.label.clone(), next.label.clone(), reach.end))
        })
    }

    /// `segments` are all that were listed.
    pub fn spare(&self, segments: &[Listed], retain: Duration, now: DateTime<Utc>) -> Spare {
        let cutoff = cutoff(retain, now);
        let good = self.good();
        let Some(anchor) = good.iter().rfind(|backup| backup.stopped <= cutoff) else { return Spare::default() };
        let (mut older, staying): (Vec<&BaseBackup>, Vec<&BaseBackup>) =
            self.backups.iter().partition(|one| one.stopped < anchor.stopped);
        // Without what it builds on an incremental backup is nothing.
        let needed: BTreeSet<&str> =
            staying.into_iter().flat_map(|one| chain(self.backups, one)).map(|one| one.label.as_str()).collect();
        older.retain(|one| !needed.contains(one.label.as_str()));
        older.sort_by_key(|backup| (backup.stopped, backup.stop_lsn));
        let backups: Vec<String> = older.into_iter().map(|backup| backup.label.clone()).collect();
        let needed = self.needed(&backups.iter().map(String::as_str).collect());
        let since = anchor.stopped.checked_add_signed(TimeDelta::from_std(retain).unwrap_or_default());
        let mut spare = Spare { anchor: Some(anchor.label.clone()), backups, since, needed, ..Spare::default() };
        let passed = |(_, listed): &(usize, &Listed)| spare.has_passed(listed.segment, listed.modified, cutoff);
        spare.segments = segments.iter().enumerate().filter(passed).map(|(at, _)| at).collect();
        spare
    }

    /// By timeline: the number of the first segment that a backup which stays may need.
    fn needed(&self, going: &BTreeSet<&str>) -> BTreeMap<u32, u64> {
        let mut needed: BTreeMap<u32, u64> = BTreeMap::new();
        for backup in self.backups.iter().filter(|backup| !going.contains(backup.label.as_str())) {
            let number = backup.start_lsn.0 / self.size;
            for timeline in descendants(self.forks, self.coverage, backup.timeline) {
                needed.entry(timeline).and_modify(|first| *first = number.min(*first)).or_insert(number);
            }
        }
        needed
    }
}

/// Of Redis. The newest snapshot stays, whatever its age; so does the newest append-only file where there is no snapshot.
pub fn spare_of_redis(snapshots: &[RedisSnapshot], aof: &[AofRange], retain: Duration, now: DateTime<Utc>) -> Spare {
    let cutoff = cutoff(retain, now);
    let anchor = snapshots.iter().filter(|snapshot| snapshot.at <= cutoff).max_by_key(|snapshot| snapshot.at);
    let newest = aof.iter().map(AofRange::end).max();
    let past = |range: &&AofRange| {
        range.end() <= cutoff && if snapshots.is_empty() { Some(range.end()) < newest } else { anchor.is_some() }
    };
    let backups: Vec<String> = snapshots
        .iter()
        .filter(|snapshot| anchor.is_some_and(|anchor| snapshot.at < anchor.at))
        .map(|snapshot| snapshot.label.clone())
        .collect();
    let (ends, aof): (Vec<DateTime<Utc>>, Vec<String>) =
        aof.iter().filter(past).map(|range| (range.end(), range.label.clone())).unzip();
    let first = anchor.filter(|_| !backups.is_empty()).map(|anchor| anchor.at).into_iter().chain(ends).min();
    let span = TimeDelta::from_std(retain).unwrap_or_default();
    let since = first.and_then(|first| first.checked_add_signed(span));
    Spare { anchor: anchor.map(|anchor| anchor.label.clone()), backups, aof, since, ..Spare::default() }
}
