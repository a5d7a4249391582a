//! One PostgreSQL system's WAL: which stretch of it is worth reading, and what that says.

use std::num::NonZeroUsize;
use std::sync::Arc;

use chrono::{DateTime, Utc};

use super::exact::Exact;
use super::history::Fold;
use super::lineage::{Reach, descendants, goes_on, reach_of};
use super::tables::Tables;
use crate::event::{BaseBackup, Coverage, Failure, Fork, History, Lsn, RestorePoint};
use crate::store::Bucket;
use crate::system::postgres::wal::read::{Listed, Source};
use crate::system::postgres::wal::{BadIndex, Indexes, Segment, Supply, Survey, WalError};

/// Work that is done only to know what was there, in bytes of WAL that are read.
const MOST: u64 = 8 << 30;

/// An index is about as much work as this many bytes of WAL: it is small, and a request to the store all the same.
const INDEX: u64 = 256 << 10;

/// Through another program each segment is one start of it: about ten a second. More than this, in bytes of WAL, nobody waits
/// for in an incident.
const MOST_THROUGH_ENGINE: u64 = 64 << 30;

/// What a bucket holds of one system's WAL.
pub struct Archive {
    /// Where the indexes are.
    pub bucket: Bucket,
    pub supply: Supply,
    pub backups: Vec<BaseBackup>,
    pub coverage: Vec<Coverage>,
    pub forks: Vec<Fork>,
    /// By timeline and place.
    pub segments: Vec<Listed>,
    pub indexes: Indexes,
    /// Why no indexes may be left in the bucket.
    pub withheld: Option<String>,
    /// Bytes.
    pub segment_bytes: u64,
    pub system_identifier: Option<u64>,
    pub incident: Option<DateTime<Utc>>,
}

/// What was read.
pub struct Read {
    pub history: History,
    pub restore_points: Vec<RestorePoint>,
    /// Timelines, and where their first records begin.
    pub switches: Vec<(u32, Lsn)>,
    pub exact: Exact,
}

/// A stretch of WAL: from a base backup along a timeline.
pub struct Stretch<'a> {
    backup: &'a BaseBackup,
    timeline: u32,
    reach: Reach,
}

impl Archive {
    /// The longest history that is worth its work: from the oldest backup that leads over the incident, or to the end,
    /// without a hole; from the last one before the incident where there is too much WAL that nobody has looked at yet.
    pub fn stretch(&self) -> Option<Stretch<'_>> {
        let mut backups: Vec<&BaseBackup> = self.backups.iter().collect();
        backups.sort_by_key(|backup| (backup.stopped, backup.stop_lsn));
        // One history: the backup's own timeline, or the branch that the archive goes on with.
        let mut ways: Vec<Stretch<'_>> =
            backups.into_iter().filter_map(|backup| self.along(backup, self.timeline(backup))).collect();
        let whole = |way: &Stretch<'_>| match (self.incident, way.reach.end_time) {
            (Some(incident), Some(end)) => way.reach.hole.is_none() || end >= incident,
            _ => way.reach.hole.is_none(),
        };
        if ways.iter().any(whole) {
            ways.retain(whole);
        } else if let Some(furthest) = ways.iter().map(|way| way.reach.end).max() {
            ways.retain(|way| way.reach.end == furthest);
        }
        let before = |way: &Stretch<'_>| self.incident.is_none_or(|incident| way.backup.stopped < incident);
        let cheap = ways.iter().position(|way| self.work(way) <= MOST);
        let chosen = cheap.or_else(|| ways.iter().rposition(before)).unwrap_or(0);
        (chosen < ways.len()).then(|| ways.swap_remove(chosen))
    }

    /// The stretch from one backup along one timeline; `None` when it does not lead there, or is too much work.
    pub fn stretch_of(&self, label: &str, timeline: u32) -> Option<Stretch<'_>> {
        let backup = self.backups.iter().find(|backup| backup.label == label)?;
        self.along(backup, timeline).filter(|way| self.work(way) <= MOST)
    }

    /// Those from backups whose WAL begins before `place`, the one that begins last first; none that is too much work.
    pub fn stretches_before(&self, place: Lsn) -> Vec<Stretch<'_>> {
        let mut backups: Vec<&BaseBackup> = self.backups.iter().filter(|backup| backup.start_lsn < place).collect();
        backups.sort_by_key(|backup| std::cmp::Reverse((backup.start_lsn, backup.stopped)));
        let ways = backups.into_iter().filter_map(|backup| self.along(backup, self.timeline(backup)));
        ways.filter(|way| self.work(way) <= MOST).collect()
    }

    fn along<'a>(&self, backup: &'a BaseBackup, timeline: u32) -> Option<Stretch<'a>> {
        let reach = reach_of(&self.forks, &self.coverage, backup, timeline, self.segment_bytes)?;
        Some(Stretch { backup, timeline, reach })
    }

    fn work(&self, way: &Stretch<'_>) -> u64 {
        let one = |listed: &Listed| {
            if self.indexes.may_know(listed) { INDEX.min(self.segment_bytes) } else { self.segment_bytes }
        };
        self.listed(way).iter().map(one).sum()
    }

    fn listed(&self, way: &Stretch<'_>) -> Vec<Listed> {
        let names = way.reach.segments.iter().filter_map(|name| Segment::parse(name, self.segment_bytes));
        let found = names.map(|name| self.segments.binary_search_by_key(&name, |listed| listed.segment));
        found.filter_map(|at| self.segments.get(at.ok()?).cloned()).collect()
    }

    fn timeline(&self, backup: &BaseBackup) -> u32 {
        let ways = descendants(&self.forks, &self.coverage, backup.timeline);
        let holds = |timeline: &u32| {
            let of = |run: &&Coverage| run.timeline == *timeline;
            let until =
                |run: &Coverage| run.to_time.is_none_or(|to| self.incident.is_some_and(|incident| to >= incident));
            self.coverage.iter().filter(of).any(until)
        };
        ways.into_iter().find(holds).unwrap_or_else(|| self.heir(backup.timeline))
    }

    /// Where history went on from a timeline that came to its end.
    fn heir(&self, mut timeline: u32) -> u32 {
        let replaced = |fork: &&Fork, by: u32| {
            fork.parent == by
                && !goes_on(&self.coverage, by, fork.at, self.segment_bytes)
                && self.coverage.iter().any(|run| run.timeline == fork.timeline)
        };
        while let Some(fork) = self.forks.iter().find(|fork| replaced(fork, timeline)) {
            timeline = fork.timeline;
        }
        timeline
    }

    /// Refuses what would take too long.
    fn is_readable(&self, way: &Stretch<'_>) -> Result<(), Failure> {
        let (work, gib) = (self.work(way), |bytes: u64| bytes >> 30);
        let Supply::Engine(reader) = &self.supply else { return Ok(()) };
        if work <= MOST_THROUGH_ENGINE {
            return Ok(());
        }
        let (word, label) = (reader.word(), &way.backup.label);
        let why = format!(
            "{} GiB of it lie behind {label}, and at most {} GiB are read through {word}",
            gib(work),
            gib(MOST_THROUGH_ENGINE)
        );
        Err(Failure::new("the WAL was not read", why)
            .now("go on: PostgreSQL finds a target by itself; and take base backups more often"))
    }

    fn source(&self, runtime: &tokio::runtime::Handle) -> Source {
        let runtime = runtime.clone();
        match &self.supply {
            Supply::Bucket(bucket) => Source::Bucket { bucket: bucket.clone(), runtime },
            Supply::Engine(reader) => Source::Engine { reader: Arc::clone(reader), runtime },
        }
    }

    /// Looks at a stretch. Blocks its thread. Damage is no error: it ends the history, and is named there. `None` when
    /// there is no WAL.
    pub fn read(&self, way: &Stretch<'_>, runtime: &tokio::runtime::Handle) -> Result<Option<Read>, Failure> {
        self.is_readable(way)?;
        let listed = self.listed(way);
        let anchor = self.incident.or(way.reach.end_time);
        let tables = Tables::new(self.bucket.clone(), runtime.clone(), &self.backups);
        let mut fold = Fold::new(way.timeline, anchor, tables);
        let source = self.source(runtime);
        let survey = Survey {
            bucket: &self.bucket,
            source: &source,
            indexes: &self.indexes,
            segments: &listed,
            system_identifier: self.system_identifier,
            threads: threads(),
            keep: self.withheld.is_none(),
        };
        let mut bad = None;
        let surveyed = survey.run(runtime, |found| {
            fold.take(found).unwrap_or_else(|error| {
                bad = Some(error);
                std::ops::ControlFlow::Break(())
            })
        });
        let surveyed = surveyed.map_err(|error| unreadable(&error))?;
        if let Some(error) = bad {
            return Err(unusable(&error));
        }
        let fold = fold.finish();
        if fold.marks.is_empty() && fold.history.stopped.is_none() {
            return Ok(None);
        }
        let Fold { mut history, restore_points, switches, marks, written, unfinished, needs, .. } = fold;
        let withheld = self.withheld.as_ref().filter(|_| surveyed.read > 0);
        history.not_kept = surveyed.not_kept.or_else(|| withheld.cloned());
        history.read = surveyed.read;
        let damage = history.stopped.clone();
        let missing = || way.reach.hole.as_ref().map(|hole| format!("{hole} is missing"));
        history.stopped = history.stopped.or_else(missing);
        let exact = Exact {
            source: self.source(runtime),
            listed,
            system_identifier: self.system_identifier,
            timeline: history.timeline,
            from: history.from,
            marks,
            commits: history.commits,
            end: history.to,
            until: history.to_time,
            written,
            stopped: damage,
            unfinished,
            needs,
        };
        Ok(Some(Read { history, restore_points, switches, exact }))
    }
}

fn unreadable(error: &WalError) -> Failure {
    Failure::new("the WAL in the archive cannot be read", error)
}

fn unusable(error: &BadIndex) -> Failure {
    Failure::new("what is kept of the WAL cannot be used", error)
        .now("delete the folder wal-index of the system in the bucket: it is made again")
}

fn threads() -> NonZeroUsize {
    let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    NonZeroUsize::new(cores.min(4)).unwrap_or(NonZeroUsize::MIN)
}
