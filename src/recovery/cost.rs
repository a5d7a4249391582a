//! What choosing a point means, before a byte moves: what it keeps, what it gives up, and what has to be fetched.

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};

use super::plan::{Plan, Wanted, own_moment, plan};
use super::refusal::Refusal;
use super::settle::within;
use crate::event::{History, Lsn, RecoveryPoint, RecoveryTarget, RestorePoint, Suspect, SystemWindow, Window};

/// Over all systems. What nobody knows without reading the WAL again is absent.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Cost {
    /// Where the point lies in time.
    pub at: Option<DateTime<Utc>>,
    /// From the point to the incident, zero behind it.
    pub loss: Option<TimeDelta>,
    /// From the point to the last commit of all, the longest of all systems.
    pub time_lost: Option<TimeDelta>,
    /// Commits and bytes of WAL behind the point; exact for a suspect, and at the steps of the rates.
    pub commits_lost: Option<u64>,
    pub bytes_lost: Option<u64>,
    /// Commits from the beginning of what was read to the point.
    pub commits_kept: Option<u64>,
    /// Bytes out of the buckets, at most.
    pub fetch_bytes: u64,
    /// Bytes and segments of WAL to replay, at most.
    pub replay_bytes: u64,
    pub segments: u64,
    /// Reasons to hesitate.
    pub warnings: Vec<String>,
}

/// The cost of a settled point; a refusal where one of its systems cannot reach it.
pub fn cost(window: &Window, point: &RecoveryPoint) -> Result<Cost, Refusal> {
    let mut cost = Cost { at: known_moment(window, point), ..Cost::default() };
    let mut loss = None;
    for found in &window.systems {
        match found {
            SystemWindow::Postgres { system, history, .. } => {
                let plan = plan_of(window, system, point)?;
                cost.fetch_bytes += plan.fetch_bytes;
                cost.replay_bytes += plan.replay_bytes;
                cost.segments += plan.restore.segments.len() as u64;
                loss = plan.loss.or(loss);
                cost.warnings.extend(plan.warnings);
                if let Some(end) = counted_to(found, point) {
                    cost.warnings.push(format!(
                        "{system}: behind {end} WAL is missing or damaged, and the archive goes on after it; what was \
                         committed there is given up too, and is not counted"
                    ));
                }
                if let Some(history) = history {
                    cost.add(system, history, window, point);
                }
            }
            SystemWindow::Redis { system, snapshots, aof, .. } => {
                let snapshot = snapshots.iter().find(|one| Some(&one.label) == point.snapshots.get(system));
                let file = aof.iter().find(|one| point.aof.get(system).is_some_and(|used| used.label == one.label));
                let stored = file.map(|one| one.stored_bytes).or(snapshot.map(|one| one.stored_bytes));
                cost.fetch_bytes += stored.unwrap_or(0);
            }
            SystemWindow::Managed { system, source, earliest, latest, .. } => {
                within(system, source, (*earliest, *latest), &point.target)?;
                if latest.is_none() {
                    cost.warnings.push(format!("{system}: up to when {source} can be restored is not reported"));
                }
            }
        }
    }
    let loss = loss.or_else(|| Some(window.incident? - cost.at?));
    // Just before a suspect is just before it, whatever moment was reported.
    if let Some(after) = loss.filter(|loss| *loss < TimeDelta::zero())
        && !matches!(point.target, RecoveryTarget::Xid { .. })
    {
        let text = format!("it lies {:.1} s after the incident: the damage may be in it", -after.as_seconds_f64());
        cost.warnings.push(text);
    }
    cost.loss = loss.map(|loss| loss.max(TimeDelta::zero()));
    Ok(cost)
}

/// Where counting what is given up ended, when the archive holds more WAL of that timeline: behind a hole.
pub fn counted_to(found: &SystemWindow, point: &RecoveryPoint) -> Option<Lsn> {
    let SystemWindow::Postgres { system, coverage, history, segment_bytes, .. } = found else { return None };
    let exact = point.resolved.get(system).and_then(|exact| exact.counted_to);
    let counted = exact.or_else(|| history.as_ref().map(|history| history.to))?;
    let runs = coverage.iter().filter(|run| run.timeline == point.timeline);
    let end = runs.map(|run| run.to).max()?;
    (counted.0 + segment_bytes < end.0).then_some(counted)
}

impl Cost {
    fn add(&mut self, system: &str, history: &History, window: &Window, point: &RecoveryPoint) {
        let Some((commits, bytes)) = kept(history, window, point, system) else { return };
        let sum = |sum: Option<u64>, more: u64| Some(sum.unwrap_or(0) + more);
        let all = history.to.0.saturating_sub(history.from.0);
        self.commits_kept = sum(self.commits_kept, commits);
        self.commits_lost = sum(self.commits_lost, history.commits.saturating_sub(commits));
        self.bytes_lost = sum(self.bytes_lost, all.saturating_sub(bytes));
        if let (Some(at), Some(last)) = (self.at, history.to_time) {
            self.time_lost = self.time_lost.max(Some((last - at).max(TimeDelta::zero())));
        }
    }
}

/// Commits and bytes of WAL from the history's beginning to the point.
fn kept(history: &History, window: &Window, point: &RecoveryPoint, system: &str) -> Option<(u64, u64)> {
    let all = (history.commits, history.to.0.saturating_sub(history.from.0));
    if let Some(exact) = point.resolved.get(system).filter(|_| point.target != RecoveryTarget::Latest) {
        return Some((all.0.saturating_sub(exact.commits_lost), all.1.saturating_sub(exact.bytes_lost)));
    }
    match &point.target {
        RecoveryTarget::Latest => Some(all),
        RecoveryTarget::Xid { xid } => {
            let suspect = suspect(history, *xid)?;
            let commits = suspect.commits_before + u64::from(point.inclusive);
            Some((commits, suspect.lsn.0.saturating_sub(history.from.0)))
        }
        target => {
            let at = match target {
                RecoveryTarget::Time { time } => *time,
                RecoveryTarget::RestorePoint { name } => named(window, system, name)?.at,
                _ => return None,
            };
            if history.to_time.is_some_and(|last| at > last) {
                return Some(all);
            }
            // The finest that covers it.
            let rate = history.rates.iter().filter(|rate| rate.before(at).is_some()).min_by_key(|rate| rate.step_ms)?;
            rate.before(at)
        }
    }
}

/// As [`plan`] for a settled point, by its exact place in the WAL where that is known.
pub fn plan_of(window: &Window, system: &str, point: &RecoveryPoint) -> Result<Plan, Refusal> {
    let mut wanted = Wanted::of(point, system);
    if let Some(place) = place(window, system, &wanted.target) {
        wanted.target = RecoveryTarget::Lsn { lsn: place.0 };
    }
    plan(window, system, &wanted)
}

/// Where a target stands in the WAL of a system that was read, and on which timeline.
pub(super) fn place(window: &Window, system: &str, target: &RecoveryTarget) -> Option<(Lsn, u32)> {
    let history = history(window, system)?;
    let lsn = match target {
        RecoveryTarget::Xid { xid } => suspect(history, *xid)?.lsn,
        RecoveryTarget::RestorePoint { name } => named(window, system, name)?.lsn,
        _ => return None,
    };
    Some((lsn, history.timeline))
}

/// A suspect lies at its own commit, anything without a time of its own at the last commit that is kept.
fn known_moment(window: &Window, point: &RecoveryPoint) -> Option<DateTime<Utc>> {
    let last = || point.resolved.values().filter_map(|resolved| resolved.last_commit).max();
    match &point.target {
        RecoveryTarget::Latest => window.systems.iter().filter_map(|found| history_of(found)?.to_time).max(),
        RecoveryTarget::Lsn { .. } => last(),
        target => own_moment(window, target).or_else(last),
    }
}

/// The suspect that the point stops just before.
pub fn stops_before<'a>(window: &'a Window, point: &RecoveryPoint) -> Option<&'a Suspect> {
    let RecoveryTarget::Xid { xid } = point.target else { return None };
    if point.inclusive {
        return None;
    }
    window.systems.iter().find_map(|found| suspect(history_of(found)?, xid))
}

/// By system: the tables that suspects behind the point took away or changed, the nearest to the point first. They are what
/// to look at where recovery has stopped: each must be there as it was.
pub fn tables_behind(window: &Window, point: &RecoveryPoint) -> BTreeMap<String, Vec<String>> {
    const MOST: usize = 20;
    let mut tables = BTreeMap::new();
    for found in &window.systems {
        let Some(history) = history_of(found) else { continue };
        let behind = |suspect: &&Suspect| match point.resolved.get(found.system()) {
            Some(stop) => suspect.lsn > stop.lsn || (suspect.lsn == stop.lsn && !stop.inclusive),
            None => false,
        };
        let mut names: Vec<String> = Vec::new();
        for deed in history.suspects.iter().filter(behind).flat_map(|suspect| &suspect.deeds) {
            if names.len() < MOST && !names.contains(&deed.table) {
                names.push(deed.table.clone());
            }
        }
        tables.insert(found.system().to_owned(), names);
    }
    tables
}

fn history<'a>(window: &'a Window, system: &str) -> Option<&'a History> {
    window.systems.iter().find(|found| found.system() == system).and_then(history_of)
}

fn history_of(found: &SystemWindow) -> Option<&History> {
    match found {
        SystemWindow::Postgres { history, .. } => history.as_deref(),
        SystemWindow::Redis { .. } | SystemWindow::Managed { .. } => None,
    }
}

fn suspect(history: &History, xid: u64) -> Option<&Suspect> {
    history.suspects.iter().find(|suspect| u64::from(suspect.xid) == xid)
}

fn named<'a>(window: &'a Window, system: &str, name: &str) -> Option<&'a RestorePoint> {
    let own = window.systems.iter().find(|found| found.system() == system)?;
    let SystemWindow::Postgres { restore_points, .. } = own else { return None };
    restore_points.iter().find(|point| point.name == name)
}
