//! The clocks of a drill: RTO, machine time apart from human wait, RPO a system.

use std::time::Duration;

use crate::event::Measure;

use super::{DrillState, Elapsed, StepStatus};

/// Machine time and human wait since the declaration.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Split {
    pub machine: Duration,
    pub human: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Activity {
    /// Some step works.
    Machine,
    /// Nothing works: everything waits for a person.
    Human,
}

#[derive(Debug, Clone, Default)]
pub(super) struct Accumulator(Split);

impl Accumulator {
    /// Adds the time between two events to whoever held the drill up.
    pub(super) fn account(&mut self, activity: Activity, declared: Option<Elapsed>, from: Elapsed, to: Elapsed) {
        let Some(declared) = declared else { return };
        let span = to.saturating_sub(from.max(declared));
        match activity {
            Activity::Machine => self.0.machine += span,
            Activity::Human => self.0.human += span,
        }
    }
}

/// A target and what is used of it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Budget {
    pub target: Duration,
    pub used: Duration,
}

impl Budget {
    /// `None` once it is overspent.
    pub fn left(&self) -> Option<Duration> {
        self.target.checked_sub(self.used)
    }

    /// Used over target; above 1 when overspent.
    pub fn fraction(&self) -> f64 {
        self.used.as_secs_f64() / self.target.as_secs_f64().max(f64::MIN_POSITIVE)
    }
}

/// What is known of a system's loss.
#[derive(Debug, Clone, PartialEq)]
pub struct Rpo {
    pub system: String,
    pub target: Option<Duration>,
    /// Seconds of history given up, measured from data.
    pub seconds: Option<f64>,
    /// Acknowledged writes lost, of how many, by an independent ledger.
    pub lost_writes: Option<(u64, u64)>,
    /// Commits and bytes of WAL behind the recovered point.
    pub collateral: Option<(u64, u64)>,
    /// What had not reached the archive, once that was looked at.
    pub exposure: Option<Exposure>,
}

/// Work that no point brings back. Absent numbers cannot be known.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Exposure {
    pub seconds: Option<f64>,
    pub bytes: Option<u64>,
}

impl Rpo {
    /// Whether the target is met; `None` while either is unknown.
    pub fn met(&self) -> Option<bool> {
        Some(self.seconds? <= self.target?.as_secs_f64())
    }
}

impl DrillState {
    /// The moment at which the RTO clock stopped: the last green proof of the service, once all of them are green; the
    /// end of a drill that has no proof.
    pub fn recovered(&self) -> Option<Elapsed> {
        let mut proofs = self.runbook.steps.iter().zip(&self.steps).filter(|(step, _)| step.proves_service).peekable();
        if proofs.peek().is_none() {
            return self.finished.map(|(at, _)| at.elapsed);
        }
        let mut last = None;
        for (_, state) in proofs {
            match state.status {
                StepStatus::Passed => last = last.max(state.ended().map(|moment| moment.elapsed)),
                StepStatus::Skipped { .. } | StepStatus::NotNeeded { .. } => {}
                _ => return None,
            }
        }
        last
    }

    /// The RTO clock: declaration to the last green smoke test, or to now. `None` before the declaration.
    pub fn rto(&self, now: Elapsed) -> Option<Duration> {
        let declared = self.declared?.elapsed;
        let end = self.recovered().or(self.finished.map(|(at, _)| at.elapsed)).unwrap_or(now);
        Some(end.saturating_sub(declared))
    }

    pub fn rto_target(&self) -> Option<Duration> {
        self.opening.rto_seconds.map(Duration::from_secs)
    }

    pub fn rto_budget(&self, now: Elapsed) -> Option<Budget> {
        Some(Budget { target: self.rto_target()?, used: self.rto(now).unwrap_or_default() })
    }

    /// Machine time and human wait from the declaration to now or to the end.
    pub fn split(&self, now: Elapsed) -> Split {
        let mut accumulator = self.split.clone();
        if self.finished.is_none() {
            accumulator.account(self.activity(), self.declared.map(|m| m.elapsed), self.latest.elapsed, now);
        }
        accumulator.0
    }

    /// How long attempts of a phase's steps ran, those side by side counted once, up to now. Like a step's duration it
    /// leaves out the waits between attempts and before them: the table of what waited for people has those.
    pub fn phase_duration(&self, phase: usize, now: Elapsed) -> Option<Duration> {
        let steps = &self.steps[self.runbook.phases[phase].steps.clone()];
        let mut spans: Vec<(Elapsed, Elapsed)> = steps.iter().flat_map(|step| step.spans(now)).collect();
        spans.sort_unstable();
        let mut counted = spans.first()?.0;
        let mut total = Duration::ZERO;
        for (from, to) in spans {
            total += to.saturating_sub(from.max(counted));
            counted = counted.max(to);
        }
        Some(total)
    }

    /// What is known of each bound system's loss, in the runbook's order of roles.
    pub fn rpos(&self) -> Vec<Rpo> {
        self.runbook
            .systems
            .keys()
            .filter_map(|role| self.opening.systems.get(role))
            .map(|bound| {
                let mut rpo = Rpo {
                    system: bound.name.clone(),
                    target: bound.rpo_seconds.map(Duration::from_secs),
                    seconds: None,
                    lost_writes: None,
                    collateral: None,
                    exposure: None,
                };
                for measure in self.measures.iter().filter(|measure| measure.system() == bound.name) {
                    match measure {
                        Measure::SelectedLoss { seconds, .. } => rpo.seconds = Some(*seconds),
                        Measure::LostWrites { lost, acknowledged, .. } => {
                            rpo.lost_writes = Some((*lost, *acknowledged));
                        }
                        Measure::Collateral { commits, bytes, .. } => rpo.collateral = Some((*commits, *bytes)),
                        Measure::ArchiveExposure { seconds, bytes, .. } => {
                            rpo.exposure = Some(Exposure { seconds: *seconds, bytes: *bytes });
                        }
                    }
                }
                rpo
            })
            .collect()
    }

    /// The largest difference between the points that systems were recovered to, in seconds.
    pub fn skew(&self) -> Option<f64> {
        let points: Vec<_> = self
            .rpos()
            .iter()
            .filter_map(|rpo| {
                self.measures.iter().rev().find_map(|measure| match measure {
                    Measure::SelectedLoss { system, recovered_to, .. } if *system == rpo.system => Some(*recovered_to),
                    _ => None,
                })
            })
            .collect();
        let (first, last) = (points.iter().min()?, points.iter().max()?);
        (points.len() > 1).then(|| (*last - *first).as_seconds_f64())
    }
}
