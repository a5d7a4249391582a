//! From a target to what will be restored, or to a refusal.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};

use super::lineage::{Reach, chain, descendants, reach_of};
use super::refusal::Refusal;
use crate::event::{BaseBackup, Coverage, Fork, Lsn, RecoveryPoint, RecoveryTarget, SystemWindow, Window};
use crate::system::postgres::Plan as PostgresPlan;
use crate::system::postgres::wal::Segment;

/// What the operator wants of one PostgreSQL system.
#[derive(Debug, Clone, PartialEq)]
pub struct Wanted {
    pub target: RecoveryTarget,
    pub inclusive: bool,
    /// This base backup; the best one when absent.
    pub backup: Option<String>,
    /// This timeline; found out when absent.
    pub timeline: Option<u32>,
    /// The last transaction that has ended there, when it was read in the WAL.
    pub last_ended: Option<DateTime<Utc>>,
    /// As [`crate::event::Resolved::needs`].
    pub needs: BTreeMap<String, u32>,
}

impl Wanted {
    pub fn new(target: RecoveryTarget, inclusive: bool) -> Self {
        Self { target, inclusive, backup: None, timeline: None, last_ended: None, needs: BTreeMap::new() }
    }

    /// What a settled point means for `system`.
    pub fn of(point: &RecoveryPoint, system: &str) -> Self {
        // The place in the WAL, where it is known: PostgreSQL's own rules for times and transactions leave room.
        let exact = point.resolved.get(system).filter(|_| point.target != RecoveryTarget::Latest);
        let (target, inclusive) = match exact {
            Some(exact) => (RecoveryTarget::Lsn { lsn: exact.lsn }, exact.inclusive),
            None => (point.target.clone(), point.inclusive),
        };
        Self {
            target,
            inclusive,
            backup: point.backups.get(system).cloned(),
            // A point holds one timeline: that of its only PostgreSQL.
            last_ended: exact.and_then(|exact| exact.last_ended),
            needs: point.resolved.get(system).map(|exact| exact.needs.clone()).unwrap_or_default(),
            timeline: (point.backups.len() == 1 && point.backups.contains_key(system)).then_some(point.timeline),
        }
    }
}

/// A target that can be reached, and how.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    pub restore: PostgresPlan,
    pub backup: BaseBackup,
    /// Bytes out of the bucket, at most.
    pub fetch_bytes: u64,
    /// Bytes of WAL to replay, at most.
    pub replay_bytes: u64,
    /// From the target to the incident, when both are known.
    pub loss: Option<chrono::Duration>,
    /// Things to know before saying yes.
    pub warnings: Vec<String>,
}

/// One system's part of the window.
struct View<'a> {
    system: &'a str,
    backups: &'a [BaseBackup],
    coverage: &'a [Coverage],
    forks: &'a [Fork],
    segment: u64,
}

/// Picks base backup, timeline and WAL for a target, or says why there is no way.
pub fn plan(window: &Window, system: &str, wanted: &Wanted) -> Result<Plan, Refusal> {
    let name = || system.to_owned();
    let found = window.systems.iter().find(|found| found.system() == system);
    let Some(SystemWindow::Postgres { backups, coverage, segment_bytes, forks, system_identifier, warnings, .. }) =
        found
    else {
        return Err(Refusal::NoSystem { system: name() });
    };
    if backups.is_empty() && coverage.is_empty() && warnings.is_empty() {
        return Err(Refusal::Empty { system: name() });
    }
    let own: Vec<BaseBackup> = backups
        .iter()
        .filter(|backup| system_identifier.as_ref().is_none_or(|id| *id == backup.system_identifier.to_string()))
        .cloned()
        .collect();
    if let (Some(foreign), true, Some(archive)) = (backups.first(), own.is_empty(), system_identifier) {
        return Err(Refusal::Foreign { system: name(), backup: foreign.system_identifier, archive: archive.clone() });
    }
    let view = View { system, backups: &own, coverage, forks, segment: (*segment_bytes).max(1 << 20) };
    view.plan(window, wanted, warnings)
}

impl View<'_> {
    fn name(&self) -> String {
        self.system.to_owned()
    }

    fn plan(&self, window: &Window, wanted: &Wanted, notes: &[String]) -> Result<Plan, Refusal> {
        let mut candidates = self.candidates(window, wanted, notes)?;
        let mut first_refusal = None;
        while let Some(backup) = candidates.pop() {
            match self.from(backup, window, wanted) {
                Ok(plan) => return Ok(plan),
                // An older backup may lead around a hole right behind this one.
                Err(refusal) => {
                    first_refusal.get_or_insert(refusal);
                }
            }
        }
        Err(first_refusal.unwrap_or_else(|| Refusal::NoBackup { system: self.name(), warnings: notes.to_vec() }))
    }

    /// Backups that end before the target, the best last.
    fn candidates(&self, window: &Window, wanted: &Wanted, notes: &[String]) -> Result<Vec<&BaseBackup>, Refusal> {
        if let Some(label) = &wanted.backup {
            let backup = self.backups.iter().find(|backup| backup.label == *label);
            let backup = backup.ok_or_else(|| Refusal::NoSuchBackup { system: self.name(), label: label.clone() })?;
            return if before(backup, wanted) { Ok(vec![backup]) } else { Err(self.too_early(backup)) };
        }
        let mut all: Vec<&BaseBackup> = self.backups.iter().collect();
        all.sort_by_key(|backup| (backup.stopped, backup.stop_lsn));
        let Some(earliest) = all.first().copied() else {
            return Err(Refusal::NoBackup { system: self.name(), warnings: notes.to_vec() });
        };
        all.retain(|backup| before(backup, wanted));
        // Where a transaction or a named point stands is not in the listing: the incident is the best hint.
        if let (RecoveryTarget::Xid { .. } | RecoveryTarget::RestorePoint { .. }, Some(incident)) =
            (&wanted.target, window.incident)
            && all.iter().any(|backup| backup.stopped < incident)
        {
            all.retain(|backup| backup.stopped < incident);
        }
        if all.is_empty() { Err(self.too_early(earliest)) } else { Ok(all) }
    }

    fn too_early(&self, backup: &BaseBackup) -> Refusal {
        let BaseBackup { label, stopped, stop_lsn, .. } = backup;
        Refusal::BeforeBackup { system: self.name(), label: label.clone(), stopped: *stopped, stop_lsn: *stop_lsn }
    }

    fn reach(&self, backup: &BaseBackup, timeline: u32) -> Option<Reach> {
        reach_of(self.forks, self.coverage, backup, timeline, self.segment)
    }

    fn from(&self, backup: &BaseBackup, window: &Window, wanted: &Wanted) -> Result<Plan, Refusal> {
        let mut warnings = Vec::new();
        let (timeline, reach) = self.timeline(backup, wanted)?;
        if reach.end < backup.stop_lsn {
            return Err(self.ends(&reach));
        }
        self.covers(&reach, wanted, &mut warnings)?;
        let newest = self.backups.iter().max_by_key(|other| other.stopped);
        if let Some(newest) = newest.filter(|newest| newest.timeline != timeline) {
            warnings
                .push(format!("timeline {timeline} is followed; the newest backup is of timeline {}", newest.timeline));
        }
        if wanted.target == RecoveryTarget::Latest && reach.hole.is_some() {
            // "All there is" would end at the hole and give up what lies behind it without a word.
            return Err(self.ends(&reach));
        }
        if let Some(hole) = &reach.hole {
            warnings.push(format!("{hole} is missing; nothing behind it can be reached"));
        }
        let (segments, end) = self.needed(&reach, timeline, &wanted.target);
        let loss = match (&wanted.target, window.incident) {
            (RecoveryTarget::Time { time }, Some(incident)) => Some(incident - *time),
            (RecoveryTarget::Lsn { .. }, Some(incident)) => wanted.last_ended.map(|ended| incident - ended),
            (RecoveryTarget::Latest, Some(incident)) => {
                reach.end_time.map(|end| (incident - end).max(chrono::Duration::zero()))
            }
            _ => None,
        };
        let share = if reach.segments.is_empty() {
            0
        } else {
            reach.stored_bytes * segments.len() as u64 / reach.segments.len() as u64
        };
        Ok(Plan {
            fetch_bytes: chain(self.backups, backup).map(|one| one.stored_bytes).fold(share, u64::saturating_add),
            replay_bytes: end.0.saturating_sub(backup.start_lsn.0),
            loss,
            warnings,
            backup: backup.clone(),
            restore: PostgresPlan {
                label: backup.label.clone(),
                timeline,
                target: wanted.target.clone(),
                inclusive: wanted.inclusive,
                segments,
                end,
                last_ended: wanted.last_ended,
                needs: wanted.needs.clone(),
            },
        })
    }

    /// The one timeline that leads to the target.
    fn timeline(&self, backup: &BaseBackup, wanted: &Wanted) -> Result<(u32, Reach), Refusal> {
        let known = descendants(self.forks, self.coverage, backup.timeline);
        let unknown = |timeline| {
            let mut known: Vec<u32> = self.coverage.iter().map(|run| run.timeline).collect();
            known.dedup();
            Refusal::UnknownTimeline { system: self.name(), timeline, known }
        };
        if let Some(timeline) = wanted.timeline {
            return self.reach(backup, timeline).map(|reach| (timeline, reach)).ok_or_else(|| unknown(timeline));
        }
        let ways: Vec<(u32, Reach)> =
            known.iter().filter_map(|id| self.reach(backup, *id).map(|reach| (*id, reach))).collect();
        // A branch matters only when the target lies behind its beginning, or when nothing else leads to it.
        let covering: Vec<&(u32, Reach)> =
            ways.iter().filter(|(_, reach)| self.covers(reach, wanted, &mut Vec::new()).is_ok()).collect();
        let left = |(id, reach): &&(u32, Reach)| *id == backup.timeline || self.has_left(*id, reach, &wanted.target);
        let mut reaching: Vec<&(u32, Reach)> = covering.iter().copied().filter(left).collect();
        if reaching.is_empty() {
            reaching = covering;
        }
        // A branch that begins behind a hole is history all the same: the hole is what is told.
        let broken = ways.iter().find(|(_, reach)| reach.hole.is_some());
        match reaching.as_slice() {
            [] => broken.or(ways.first()).cloned().ok_or_else(|| unknown(backup.timeline)),
            [one] => {
                let latest = wanted.target == RecoveryTarget::Latest;
                Ok(broken.filter(|_| latest).unwrap_or(one).clone())
            }
            several => Err(Refusal::Ambiguous {
                system: self.name(),
                timelines: several.iter().map(|(id, reach)| (*id, reach.end)).collect(),
            }),
        }
    }

    /// Whether the target lies on this branch, and not on what it shares with its parent.
    fn has_left(&self, timeline: u32, reach: &Reach, target: &RecoveryTarget) -> bool {
        let Some(fork) = self.forks.iter().find(|fork| fork.timeline == timeline) else { return false };
        let begun = self.coverage.iter().filter(|run| run.timeline == timeline).filter_map(|run| run.from_time).min();
        match target {
            RecoveryTarget::Time { time } => begun.is_none_or(|begun| *time >= begun),
            RecoveryTarget::Lsn { lsn } => *lsn > fork.at,
            _ => reach.end > fork.at,
        }
    }

    fn ends(&self, reach: &Reach) -> Refusal {
        match &reach.hole {
            Some(hole) => Refusal::Gap {
                system: self.name(),
                first_missing: hole.clone(),
                reaches: reach.end,
                reaches_time: reach.end_time,
            },
            None => Refusal::BeyondWal { system: self.name(), end: reach.end, end_time: reach.end_time },
        }
    }

    /// Whether the WAL goes as far as the target, as far as the listing can tell.
    fn covers(&self, reach: &Reach, wanted: &Wanted, warnings: &mut Vec<String>) -> Result<(), Refusal> {
        let enough = match &wanted.target {
            RecoveryTarget::Time { time } => {
                match reach.end_time {
                    // A segment is archived after the last commit in it.
                    Some(end) => *time <= end,
                    None => {
                        warnings.push("when the last segment was archived is unknown: that the WAL reaches the target is not proven".to_owned());
                        true
                    }
                }
            }
            RecoveryTarget::Lsn { lsn } => *lsn <= reach.end,
            RecoveryTarget::Xid { .. } | RecoveryTarget::RestorePoint { .. } => {
                warnings.push("where the target stands in the WAL is known only when recovery comes to it".to_owned());
                true
            }
            RecoveryTarget::Latest => true,
        };
        if enough { Ok(()) } else { Err(self.ends(reach)) }
    }

    /// The segments up to the target, where it is an LSN; else all of them.
    fn needed(&self, reach: &Reach, timeline: u32, target: &RecoveryTarget) -> (Vec<String>, Lsn) {
        let RecoveryTarget::Lsn { lsn } = target else { return (reach.segments.clone(), reach.end) };
        // The record at the target may go on into the next segment.
        let last = Segment::containing(*lsn, timeline, self.segment).next();
        let inside = |name: &&String| Segment::parse(name, self.segment).is_some_and(|one| one.number <= last.number);
        let segments: Vec<String> = reach.segments.iter().take_while(inside).cloned().collect();
        (segments, last.end().min(reach.end))
    }
}

/// A backup can lead only to what lies behind its end.
fn before(backup: &BaseBackup, wanted: &Wanted) -> bool {
    match &wanted.target {
        RecoveryTarget::Time { time } => backup.stopped < *time,
        RecoveryTarget::Lsn { lsn } if wanted.inclusive => backup.stop_lsn <= *lsn,
        RecoveryTarget::Lsn { lsn } => backup.stop_lsn < *lsn,
        _ => true,
    }
}

/// The moment a target stands for: its own, that of what the WAL was found to hold, or else the incident's.
pub(super) fn moment(window: &Window, target: &RecoveryTarget) -> Option<DateTime<Utc>> {
    let found = match target {
        RecoveryTarget::Latest => return None,
        _ => own_moment(window, target),
    };
    found.or(window.incident)
}

/// As [`moment`], without falling back on the incident.
pub(super) fn own_moment(window: &Window, target: &RecoveryTarget) -> Option<DateTime<Utc>> {
    let of_postgres = |find: &dyn Fn(&SystemWindow) -> Option<DateTime<Utc>>| window.systems.iter().find_map(find);
    match target {
        RecoveryTarget::Time { time } => Some(*time),
        RecoveryTarget::Xid { xid } => of_postgres(&|found| {
            let SystemWindow::Postgres { history: Some(history), .. } = found else { return None };
            history.suspects.iter().find(|suspect| u64::from(suspect.xid) == *xid).map(|suspect| suspect.at)
        }),
        RecoveryTarget::RestorePoint { name } => of_postgres(&|found| {
            let SystemWindow::Postgres { restore_points, .. } = found else { return None };
            restore_points.iter().find(|point| point.name == *name).map(|point| point.at)
        }),
        RecoveryTarget::Lsn { .. } | RecoveryTarget::Latest => None,
    }
}
