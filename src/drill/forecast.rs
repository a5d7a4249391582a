//! When will we be done: past runs' durations along the longest path that is left.

use std::time::Duration;

use super::{DrillState, Elapsed, StepStatus};

/// What past runs say about this one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Forecast {
    /// The RTO that this drill will have.
    pub rto: Duration,
    /// Machine time still ahead, on the longest path.
    pub remaining: Duration,
    /// Steps ahead of which no past run is known; they count as nothing.
    pub unknown_steps: usize,
}

impl DrillState {
    /// `None` before the declaration, after recovery, and when nothing is known of any step ahead.
    pub fn forecast(&self, now: Elapsed) -> Option<Forecast> {
        let rto = self.rto(now)?;
        if self.finished.is_some() || self.recovered().is_some() {
            return None;
        }
        let mut known = 0;
        let mut unknown_steps = 0;
        let last_proof = self.runbook.steps.iter().rposition(|step| step.proves_service);
        let mut path = vec![Duration::ZERO; self.steps.len()];
        for (index, step) in self.runbook.steps.iter().enumerate() {
            let before = step.after.iter().map(|&i| path[i]).max().unwrap_or_default();
            let mut own = Duration::ZERO;
            let relevant = last_proof.is_none_or(|last| index <= last);
            if relevant && !self.steps[index].status.has_ended() {
                match self.remaining_of(index, now) {
                    Some(remaining) => {
                        known += 1;
                        own = remaining;
                    }
                    None => unknown_steps += 1,
                }
            }
            path[index] = before + own;
        }
        let remaining = path.into_iter().max().unwrap_or_default();
        (known > 0).then(|| Forecast { rto: rto + remaining, remaining, unknown_steps })
    }

    /// How much RTO may be used up before going on can no longer meet the target.
    pub fn decide_by(&self, now: Elapsed) -> Option<Duration> {
        self.rto_target()?.checked_sub(self.forecast(now)?.remaining)
    }

    fn remaining_of(&self, index: usize, now: Elapsed) -> Option<Duration> {
        let state = &self.steps[index];
        let expected = self
            .opening
            .expected_seconds
            .get(&self.runbook.steps[index].id)
            .map(|s| Duration::from_secs_f64(s.max(0.0)));
        if state.status == StepStatus::Running {
            // What the step itself says beats what it once took.
            let eta = state
                .progress
                .iter()
                .filter_map(|lane| lane.eta_seconds)
                .fold(None, |most: Option<f64>, eta| Some(most.map_or(eta, |most| most.max(eta))));
            if let Some(eta) = eta.filter(|eta| eta.is_finite() && *eta >= 0.0 && *eta < 1e9) {
                return Some(Duration::from_secs_f64(eta));
            }
            let spent = state.duration(now).unwrap_or_default();
            return expected.map(|expected| expected.saturating_sub(spent));
        }
        expected
    }
}
