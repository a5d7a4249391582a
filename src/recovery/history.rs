//! What the WAL of a window says: read once, from the base backup before the incident to the first hole.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::ops::ControlFlow;

use chrono::{DateTime, Utc};

use super::exact::{Exact, Mark};
use super::lineage::{descendants, goes_on, reach_of};
use super::rates::Rates;
use super::suspects::{Suspects, suspect};
use crate::event::{BaseBackup, Coverage, Failure, Fork, History, RestorePoint};
use crate::store::Bucket;
use crate::system::postgres::Names;
use crate::system::postgres::wal::read::{Fact, Source, Step, Walk};

/// Bytes of WAL that are read only to know what was there.
const MOST: u64 = 8 << 30;

/// Restore points that are told.
const RESTORE_POINTS: usize = 1000;

/// What is read of one system's WAL.
pub struct Reading<'a> {
    pub bucket: &'a Bucket,
    pub backups: &'a [BaseBackup],
    pub coverage: &'a [Coverage],
    pub forks: &'a [Fork],
    /// Bytes.
    pub segment: u64,
    pub system_identifier: Option<u64>,
    pub incident: Option<DateTime<Utc>>,
    pub names: Names,
}

/// What was read.
pub struct Read {
    pub history: History,
    pub restore_points: Vec<RestorePoint>,
    pub exact: Exact,
}

impl Reading<'_> {
    /// `None` when there is no backup with WAL behind it. Damage is no error: it ends the history, and is named there.
    pub async fn run(self) -> Result<Option<Read>, Failure> {
        let Some(backup) = self.backup() else { return Ok(None) };
        // One history: the backup's own timeline, or the branch that the archive goes on with.
        let timeline = self.timeline(backup);
        let Some(reach) = reach_of(self.forks, self.coverage, backup, timeline, self.segment) else { return Ok(None) };
        let failed = |why: &dyn std::fmt::Display| Failure::new("the WAL in the archive cannot be read", why);
        let source = Source::Bucket { bucket: self.bucket.clone(), runtime: tokio::runtime::Handle::current() };
        let anchor = self.incident.or(reach.end_time);
        let (identifier, names, hole) = (self.system_identifier, self.names, reach.hole.clone());
        let read = tokio::task::spawn_blocking(move || {
            let mut listed = source.list()?;
            let wanted: std::collections::BTreeSet<&String> = reach.segments.iter().collect();
            listed.retain(|listed| wanted.contains(&listed.segment.to_string()));
            let mut fold = Fold::new(timeline, anchor, names);
            let walk = Walk {
                source: &source,
                segments: &listed,
                system_identifier: identifier,
                threads: threads(),
                state: None,
            };
            walk.run(|step| fold.step(step))?;
            Ok::<_, crate::system::postgres::wal::WalError>(fold.finish(source, listed, identifier, hole))
        });
        read.await.map_err(|error| failed(&error))?.map_err(|error| failed(&error))
    }

    /// The oldest backup, or the last one before the incident where there is too much WAL to read it all.
    fn backup(&self) -> Option<&BaseBackup> {
        let oldest = self.backups.iter().min_by_key(|backup| backup.stop_lsn)?;
        let behind = self.coverage.iter().filter(|run| run.to > oldest.start_lsn).map(|run| run.segments).sum::<u64>();
        if behind * self.segment <= MOST {
            return Some(oldest);
        }
        let before = |backup: &&BaseBackup| self.incident.is_none_or(|incident| backup.stopped < incident);
        self.backups.iter().filter(before).max_by_key(|backup| backup.stopped).or(Some(oldest))
    }

    fn timeline(&self, backup: &BaseBackup) -> u32 {
        let ways = descendants(self.forks, self.coverage, backup.timeline);
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
                && !goes_on(self.coverage, by, fork.at, self.segment)
                && self.coverage.iter().any(|run| run.timeline == fork.timeline)
        };
        while let Some(fork) = self.forks.iter().find(|fork| replaced(fork, timeline)) {
            timeline = fork.timeline;
        }
        timeline
    }
}

fn threads() -> NonZeroUsize {
    let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    NonZeroUsize::new(cores.min(4)).unwrap_or(NonZeroUsize::MIN)
}

/// Facts, added up.
struct Fold {
    names: Names,
    history: History,
    rates: Rates,
    suspects: Suspects,
    restore_points: Vec<RestorePoint>,
    marks: Vec<Mark>,
    written: Option<DateTime<Utc>>,
    unfinished: Option<String>,
    needs: BTreeMap<String, u32>,
}

impl Fold {
    fn new(timeline: u32, anchor: Option<DateTime<Utc>>, names: Names) -> Self {
        let nowhere = crate::event::Lsn(0);
        Self {
            names,
            history: History {
                timeline,
                from: nowhere,
                to: nowhere,
                to_time: None,
                commits: 0,
                rates: Vec::new(),
                suspects: Vec::new(),
                stopped: None,
            },
            rates: Rates::around(anchor),
            suspects: Suspects::default(),
            restore_points: Vec::new(),
            marks: Vec::new(),
            written: None,
            unfinished: None,
            needs: BTreeMap::new(),
        }
    }

    fn step(&mut self, step: Step<'_>) -> ControlFlow<()> {
        let joined = match step {
            // Nothing behind it can be replayed.
            Step::Damaged(damage) => {
                self.history.stopped = Some(damage.to_string());
                return ControlFlow::Break(());
            }
            Step::Segment { joined, .. } => joined,
        };
        if self.marks.is_empty() {
            self.history.from = joined.first.unwrap_or(joined.segment.start());
        }
        let mut mark = self.marks.last().map_or_else(Mark::default, Mark::next);
        for fact in &joined.facts {
            mark.take(fact);
            self.written = self.written.max(fact.time());
            match fact {
                Fact::Commit(commit) => {
                    if let Some(found) = suspect(commit, self.history.commits, &self.names) {
                        self.suspects.push(found);
                    }
                    self.history.commits += 1;
                    self.history.to_time = Some(commit.time);
                    self.rates.commit(commit.time, commit.end.0.saturating_sub(self.history.from.0));
                }
                Fact::RestorePoint { lsn, name, time, .. } if self.restore_points.len() < RESTORE_POINTS => {
                    self.restore_points.push(RestorePoint { name: name.clone(), at: *time, lsn: *lsn });
                }
                Fact::Parameters(parameters) => {
                    for (name, value) in parameters.settings() {
                        let most = self.needs.entry(name.to_owned()).or_default();
                        *most = value.max(*most);
                    }
                }
                _ => {}
            }
        }
        self.history.to = joined.end;
        self.unfinished = joined.stop.is_some().then(|| joined.segment.to_string());
        self.marks.push(mark);
        ControlFlow::Continue(())
    }

    fn finish(
        mut self,
        source: Source,
        listed: Vec<crate::system::postgres::wal::read::Listed>,
        system_identifier: Option<u64>,
        hole: Option<String>,
    ) -> Option<Read> {
        if self.marks.is_empty() && self.history.stopped.is_none() {
            return None;
        }
        self.history.rates = self.rates.finish();
        self.history.suspects = self.suspects.finish();
        let missing = || hole.map(|hole| format!("{hole} is missing"));
        let damage = self.history.stopped.clone();
        self.history.stopped = self.history.stopped.or_else(missing);
        let exact = Exact {
            source,
            listed,
            system_identifier,
            timeline: self.history.timeline,
            from: self.history.from,
            marks: self.marks,
            commits: self.history.commits,
            end: self.history.to,
            until: self.history.to_time,
            written: self.written,
            stopped: damage,
            unfinished: self.unfinished,
            needs: self.needs,
        };
        Some(Read { history: self.history, restore_points: self.restore_points, exact })
    }
}
