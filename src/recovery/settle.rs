//! One point over all systems.

use std::collections::BTreeMap;

use chrono::{DateTime, SubsecRound as _, Utc};

use super::cost::place;
use super::plan::{Wanted, moment, plan};
use super::refusal::Refusal;
use crate::event::{AofPoint, AofRange, RecoveryPoint, RecoveryTarget, SystemWindow, Window};

/// Picks for every system of the window what leads to the target: a base backup and a timeline for PostgreSQL, for Redis
/// the snapshot or the stretch of an append-only file that comes nearest to it from before.
pub fn settle(window: &Window, target: &RecoveryTarget, inclusive: bool) -> Result<RecoveryPoint, Refusal> {
    let mut point = RecoveryPoint {
        target: target.clone(),
        inclusive,
        backups: BTreeMap::new(),
        snapshots: BTreeMap::new(),
        aof: BTreeMap::new(),
        timeline: 0,
        resolved: BTreeMap::new(),
    };
    for found in &window.systems {
        match found {
            SystemWindow::Postgres { system, .. } => {
                let mut wanted = Wanted::new(target.clone(), inclusive);
                if let Some((lsn, timeline)) = place(window, system, target) {
                    wanted.target = RecoveryTarget::Lsn { lsn };
                    wanted.timeline = Some(timeline);
                }
                let plan = plan(window, system, &wanted)?;
                if point.timeline == 0 {
                    point.timeline = plan.restore.timeline;
                }
                point.backups.insert(system.clone(), plan.restore.label);
            }
            SystemWindow::Managed { system, source, earliest, latest, .. } => {
                within(system, source, (*earliest, *latest), target)?;
            }
            SystemWindow::Redis { .. } => {}
        }
    }
    settle_redis(window, moment(window, target), &mut point)?;
    // Nothing but Redis: no timeline is followed, and 1 is as good as any.
    point.timeline = point.timeline.max(1);
    Ok(point)
}

/// Whether a cloud can restore to the target, as far as it says.
pub(super) fn within(
    system: &str,
    source: &str,
    (earliest, latest): (Option<DateTime<Utc>>, Option<DateTime<Utc>>),
    target: &RecoveryTarget,
) -> Result<(), Refusal> {
    let (system, of) = (system.to_owned(), source.to_owned());
    match target {
        RecoveryTarget::Latest => Ok(()),
        RecoveryTarget::Time { time } => {
            let inside =
                earliest.is_none_or(|earliest| *time >= earliest) && latest.is_none_or(|latest| *time <= latest);
            if inside { Ok(()) } else { Err(Refusal::OutsideWindow { system, of, earliest, latest }) }
        }
        _ => Err(Refusal::NotATime { system, of }),
    }
}

/// Picks for every Redis what comes nearest to `limit` from before; the newest without a limit.
pub(super) fn settle_redis(
    window: &Window,
    limit: Option<DateTime<Utc>>,
    point: &mut RecoveryPoint,
) -> Result<(), Refusal> {
    for found in &window.systems {
        let SystemWindow::Redis { system, snapshots, aof, .. } = found else { continue };
        point.snapshots.remove(system);
        point.aof.remove(system);
        let newest = snapshots.iter().filter(|s| limit.is_none_or(|limit| s.at <= limit)).max_by_key(|s| s.at);
        let nearest = aof.iter().filter_map(|range| reach(range, limit)).max_by_key(|point| point.at);
        match (newest, nearest) {
            // The same moment: the snapshot is loaded with less work.
            (Some(newest), nearest) if nearest.as_ref().is_none_or(|nearest| nearest.at <= newest.at) => {
                point.snapshots.insert(system.clone(), newest.label.clone());
            }
            (_, Some(nearest)) => drop(point.aof.insert(system.clone(), nearest)),
            (_, None) => {
                let earliest = snapshots.iter().map(|snapshot| snapshot.at);
                let earliest = earliest.chain(aof.iter().map(|range| range.from)).min();
                return Err(Refusal::NoSnapshot { system: system.clone(), earliest });
            }
        }
    }
    Ok(())
}

/// The last point of a range that holds nothing from `limit` on. An append-only file knows seconds: it is cut at the
/// whole second before the limit.
fn reach(range: &AofRange, limit: Option<DateTime<Utc>>) -> Option<AofPoint> {
    let point = |at, cut| Some(AofPoint { label: range.label.clone(), at, cut });
    // Writes of the newest annotation's second may come up to its end.
    let past = range.end().max(range.to + chrono::Duration::seconds(1));
    match limit {
        None => point(range.end(), false),
        Some(limit) if limit >= past => point(range.end(), false),
        Some(limit) => {
            let second = limit.trunc_subsecs(0);
            if second >= range.from { point(second, true) } else { None }
        }
    }
}

/// How far each snapshot, or cut, lies before the target; before the incident, where nobody knows when the target was.
pub fn skews(window: &Window, point: &RecoveryPoint) -> BTreeMap<String, chrono::Duration> {
    let resolved = point.resolved.values().filter_map(|resolved| resolved.last_commit).max();
    let target = match &point.target {
        RecoveryTarget::Time { time } => Some(*time),
        _ => resolved.or_else(|| moment(window, &point.target)),
    };
    let Some(target) = target.or(window.incident) else { return BTreeMap::new() };
    let at = |system: &str, label: &str| {
        window.systems.iter().find_map(|found| match found {
            SystemWindow::Redis { system: name, snapshots, .. } if name == system => {
                snapshots.iter().find(|snapshot| snapshot.label == label).map(|snapshot| snapshot.at)
            }
            _ => None,
        })
    };
    let snapshots = point.snapshots.iter().filter_map(|(system, label)| Some((system.clone(), at(system, label)?)));
    let cuts = point.aof.iter().map(|(system, point)| (system.clone(), point.at));
    snapshots.chain(cuts).map(|(system, at)| (system, target - at)).collect()
}
