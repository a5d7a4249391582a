//! One point over all systems.

use std::collections::BTreeMap;

use super::plan::{Wanted, moment, plan};
use super::refusal::Refusal;
use crate::event::{RecoveryPoint, RecoveryTarget, SystemWindow, Window};

/// Picks for every system of the window what leads to the target: a base backup and a timeline for PostgreSQL, for Redis
/// the newest snapshot from before it.
pub fn settle(window: &Window, target: &RecoveryTarget, inclusive: bool) -> Result<RecoveryPoint, Refusal> {
    let mut point = RecoveryPoint {
        target: target.clone(),
        inclusive,
        backups: BTreeMap::new(),
        snapshots: BTreeMap::new(),
        timeline: 0,
        resolved: BTreeMap::new(),
    };
    for found in &window.systems {
        match found {
            SystemWindow::Postgres { system, .. } => {
                let plan = plan(window, system, &Wanted::new(target.clone(), inclusive))?;
                if point.timeline == 0 {
                    point.timeline = plan.restore.timeline;
                }
                point.backups.insert(system.clone(), plan.restore.label);
            }
            SystemWindow::Redis { system, snapshots, .. } => {
                let limit = moment(target, window.incident);
                let newest = snapshots.iter().filter(|s| limit.is_none_or(|limit| s.at <= limit)).max_by_key(|s| s.at);
                let newest = newest.ok_or_else(|| Refusal::NoSnapshot {
                    system: system.clone(),
                    earliest: snapshots.iter().map(|snapshot| snapshot.at).min(),
                })?;
                point.snapshots.insert(system.clone(), newest.label.clone());
            }
        }
    }
    // Nothing but Redis: no timeline is followed, and 1 is as good as any.
    point.timeline = point.timeline.max(1);
    Ok(point)
}

/// How far each snapshot lies before the target (or before the incident, where the target is not a moment).
pub fn skews(window: &Window, point: &RecoveryPoint) -> BTreeMap<String, chrono::Duration> {
    let Some(target) = moment(&point.target, window.incident).or(window.incident) else { return BTreeMap::new() };
    let at = |system: &str, label: &str| {
        window.systems.iter().find_map(|found| match found {
            SystemWindow::Redis { system: name, snapshots, .. } if name == system => {
                snapshots.iter().find(|snapshot| snapshot.label == label).map(|snapshot| snapshot.at)
            }
            _ => None,
        })
    };
    point.snapshots.iter().filter_map(|(system, label)| Some((system.clone(), target - at(system, label)?))).collect()
}
