//! Which timeline leads where, and how far its WAL goes without a hole.

use chrono::{DateTime, Utc};

use crate::event::{BaseBackup, Coverage, Fork, Lsn};
use crate::system::postgres::wal::Segment;

/// WAL from a start on, along one timeline's ancestry, up to the first hole.
#[derive(Debug, Clone, PartialEq)]
pub struct Reach {
    pub segments: Vec<String>,
    /// Exclusive.
    pub end: Lsn,
    /// When the last segment was archived.
    pub end_time: Option<DateTime<Utc>>,
    /// The first missing segment, when there is WAL behind it.
    pub hole: Option<String>,
    /// Bytes in the store, about: a run that is used in part counts in part.
    pub stored_bytes: u64,
}

/// A backup and those that it builds on, the full one last.
pub fn chain<'a>(backups: &'a [BaseBackup], of: &'a BaseBackup) -> impl Iterator<Item = &'a BaseBackup> {
    std::iter::successors(Some(of), |child| {
        backups.iter().find(|other| Some(&other.label) == child.parent.as_ref() && other.start_lsn < child.start_lsn)
    })
}

/// The timelines from `from` to `to`, each with the LSN at which the next one leaves it.
pub fn ancestry(forks: &[Fork], from: u32, to: u32) -> Option<Vec<(u32, Option<Lsn>)>> {
    let (mut legs, mut timeline, mut until) = (Vec::new(), to, None);
    while timeline != from {
        let fork = forks.iter().find(|fork| fork.timeline == timeline && fork.parent < timeline)?;
        legs.push((timeline, until));
        (timeline, until) = (fork.parent, Some(fork.at));
    }
    legs.push((from, until));
    legs.reverse();
    Some(legs)
}

/// Every timeline that descends from `from`, itself included.
pub fn descendants(forks: &[Fork], coverage: &[Coverage], from: u32) -> Vec<u32> {
    let mut all: Vec<u32> =
        coverage.iter().map(|run| run.timeline).filter(|id| ancestry(forks, from, *id).is_some()).collect();
    all.push(from);
    all.sort_unstable();
    all.dedup();
    all
}

/// Whether a timeline went on by itself after a branch left it at `at`: WAL of its own lies behind that segment. A server
/// that was replaced does not go on; one whose clone was promoted, and archives, does.
pub fn goes_on(coverage: &[Coverage], timeline: u32, at: Lsn, size: u64) -> bool {
    let end = Segment::containing(at, timeline, size).end();
    coverage.iter().any(|run| run.timeline == timeline && run.to > end)
}

/// Whether a place on the way to timeline `to` is one of timeline `from` too, or of one that replaced it; `None` when there
/// is no way from the one to the other.
pub fn is_heir(forks: &[Fork], coverage: &[Coverage], from: u32, to: u32, place: Lsn, size: u64) -> Option<bool> {
    let legs = ancestry(forks, from, to)?;
    let left = |(timeline, until): &(u32, Option<Lsn>)| {
        until.is_some_and(|at| place > at && goes_on(coverage, *timeline, at, size))
    };
    Some(!legs.iter().any(left))
}

/// The WAL from a backup on along one timeline; `None` when the timeline does not contain the backup.
pub fn reach_of(forks: &[Fork], coverage: &[Coverage], backup: &BaseBackup, timeline: u32, size: u64) -> Option<Reach> {
    let legs = ancestry(forks, backup.timeline, timeline)?;
    // A branch that left before the backup ended does not contain it.
    if legs.iter().any(|(_, until)| until.is_some_and(|until| until < backup.stop_lsn)) {
        return None;
    }
    Some(reach(coverage, &legs, backup.start_lsn, size))
}

/// Follows `legs` from the segment that holds `start`.
pub fn reach(coverage: &[Coverage], legs: &[(u32, Option<Lsn>)], start: Lsn, size: u64) -> Reach {
    let first = Segment::containing(start, legs.first().map_or(1, |leg| leg.0), size);
    let mut found = Reach { segments: Vec::new(), end: first.start(), end_time: None, hole: None, stored_bytes: 0 };
    let mut number = first.number;
    for (timeline, until) in legs {
        // The segment in which the next timeline begins is the next one's.
        let last = until.map(|lsn| Lsn(lsn.0 / size * size));
        while last.is_none_or(|last| number * size < last.0) {
            let at = Lsn(number * size);
            let run = coverage.iter().find(|run| run.timeline == *timeline && run.from <= at && at < run.to);
            let Some(run) = run else {
                let missing = Segment { timeline: *timeline, number, size };
                let behind = coverage.iter().any(|run| legs.iter().any(|leg| leg.0 == run.timeline) && run.from > at);
                found.hole = (behind || last.is_some()).then(|| missing.to_string());
                return found;
            };
            let end = last.map_or(run.to, |last| last.min(run.to));
            let count = (end.0 - at.0) / size;
            let segment = |number| Segment { timeline: *timeline, number, size }.to_string();
            found.segments.extend((number..number + count).map(segment));
            found.stored_bytes += run.stored_bytes * count / run.segments.max(1);
            found.end = end;
            found.end_time = if end == run.to { run.to_time } else { None };
            number += count;
        }
    }
    found
}
