//! How long a restore will take: by what past restores of the same systems took.

use std::collections::BTreeMap;
use std::path::Path;

use crate::drill::{DrillState, StepStatus};
use crate::event::{Facts, RecoveryPoint, SystemWindow, Window};
use crate::history;
use crate::journal::{self, DrillDir};
use crate::recovery;
use crate::runbook::StepKind;

/// The newest restores of a system count; disks and networks change.
const RESTORES: usize = 8;

/// Journals that are looked into, the newest: a person waits meanwhile.
const DRILLS: usize = 32;

/// What restores took: seconds a byte, and seconds that come whatever the size.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Pace {
    base: f64,
    wal: f64,
    fixed: f64,
}

/// A slow disk behind a slow network, for systems that no past drill has restored: 40 MB/s unpacked, 20 MB/s of WAL, a
/// minute around it.
const UNMEASURED: Pace = Pace { base: 1.0 / 40e6, wal: 1.0 / 20e6, fixed: 60.0 };

/// What past drills know of restores, by system.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Measured(BTreeMap<String, Vec<Pace>>);

/// When the slowest system is restored.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Estimate {
    pub seconds: f64,
    /// Past restores that it stands on: 0 when any system was never restored before.
    pub restores: usize,
}

impl Measured {
    /// Out of the journals in a state directory. One that cannot be read has nothing to say here; `verify` is where that
    /// is an error.
    pub fn of(state: &Path) -> Self {
        let mut measured = Self::default();
        for dir in journal::layout::list(state).unwrap_or_default().into_iter().rev().take(DRILLS) {
            if let Ok(drill) = history::fold(&dir.journal()) {
                measured.add(&drill);
            }
        }
        measured
    }

    /// Out of the drills that lie in the same folder.
    pub fn beside(dir: &DrillDir) -> Self {
        dir.path().ancestors().nth(2).map(Self::of).unwrap_or_default()
    }

    fn add(&mut self, drill: &DrillState) {
        for (step, progress) in drill.runbook.steps.iter().zip(&drill.steps) {
            let system = step.system.as_ref().and_then(|role| drill.opening.systems.get(role));
            let facts = progress.outcome().map(|outcome| &outcome.facts);
            let (Some(system), Some(facts), StepStatus::Passed) = (system, facts, &progress.status) else { continue };
            let pace = match step.kind {
                StepKind::PostgresRestore => postgres(facts),
                StepKind::RedisRestore => redis(facts),
                _ => continue,
            };
            let known = self.0.entry(system.name.clone()).or_default();
            if known.len() < RESTORES {
                known.extend(pace);
            }
        }
    }

    /// `None` where the point is not possible.
    pub fn estimate(&self, window: &Window, point: &RecoveryPoint) -> Option<Estimate> {
        let mut slowest: Option<Estimate> = None;
        for found in &window.systems {
            let (base, wal) = match found {
                SystemWindow::Postgres { system, .. } => {
                    let plan = recovery::plan_of(window, system, point).ok()?;
                    (plan.backup.bytes, plan.replay_bytes)
                }
                // How long a cloud takes depends on what it does not tell.
                SystemWindow::Managed { .. } => return None,
                SystemWindow::Redis { system, snapshots, aof, .. } => {
                    let snapshot = point.snapshots.get(system);
                    let file = point.aof.get(system);
                    let snapshot = snapshots.iter().find(|one| Some(&one.label) == snapshot).map(|one| one.bytes);
                    let file = aof.iter().find(|one| file.is_some_and(|file| one.label == file.label));
                    (file.map(|one| one.bytes).or(snapshot)?, 0)
                }
            };
            let known = self.0.get(found.system()).map_or(&[][..], Vec::as_slice);
            let paces = if known.is_empty() { &[UNMEASURED][..] } else { known };
            let took = |pace: &Pace| pace.base * base as f64 + pace.wal * wal as f64 + pace.fixed;
            let mut seconds: Vec<f64> = paces.iter().map(took).collect();
            seconds.sort_by(f64::total_cmp);
            let own = Estimate { seconds: seconds[seconds.len() / 2], restores: known.len() };
            slowest = Some(match slowest {
                // The restores of a runbook run side by side.
                Some(other) => {
                    Estimate { seconds: other.seconds.max(own.seconds), restores: other.restores.min(own.restores) }
                }
                None => own,
            });
        }
        slowest
    }
}

fn number(facts: &Facts, name: &str) -> Option<f64> {
    facts.get(name)?.as_f64().filter(|number| number.is_finite() && *number >= 0.0)
}

fn postgres(facts: &Facts) -> Option<Pace> {
    let (base, replay) = (number(facts, "base_seconds")?, number(facts, "replay_seconds")?);
    let all = number(facts, "seconds")?;
    Some(Pace {
        base: base / number(facts, "base_bytes")?.max(1.0),
        wal: replay / number(facts, "wal_bytes")?.max(1.0),
        fixed: (all - base - replay).max(0.0),
    })
}

fn redis(facts: &Facts) -> Option<Pace> {
    let seconds = number(facts, "total_seconds")?;
    Some(Pace { base: seconds / number(facts, "bytes")?.max(1.0), wal: 0.0, fixed: 0.0 })
}
