//! Going on with a drill whose program ended.

use crate::drill::{DrillError, DrillState, StepStatus};
use crate::event::{Envelope, Event};
use crate::journal::{DrillDir, Journal};
use crate::process;

use super::driver::{Driver, Handle};
use super::opening::{Opening, OpeningError};

impl Opening {
    /// Takes up the journal in `dir`. The runbook and its bindings are the journal's own; `self` brings what a journal
    /// never holds: the inventory, the secrets, the clock. Steps that had started and have no outcome are in doubt.
    pub fn resume(self, dir: DrillDir) -> Result<(Driver, Handle), OpeningError> {
        let (mut journal, read) = Journal::open_for_append(&dir.journal())?;
        let mut state = fold(&read.envelopes)?;
        if let Some((_, verdict)) = state.finished {
            return Err(OpeningError::Ended { verdict: verdict.word() });
        }
        let stamp = self.clock.now();
        let mut events = vec![Event::EngineStarted {
            boot_id: self.clock.boot_id(),
            host: self.host.clone(),
            operator: self.operator.clone(),
            lifeboat_version: env!("CARGO_PKG_VERSION").to_owned(),
        }];
        for (step, progress) in state.runbook.steps.iter().zip(&state.steps) {
            if progress.status == StepStatus::Running {
                let own = [("LIFEBOAT_DRILL", state.opening.drill.as_str()), ("LIFEBOAT_STEP", &step.id)];
                let living = process::living_with(&own);
                events.push(Event::StepInDoubt {
                    step: step.id.clone(),
                    attempt: progress.attempt(),
                    why: in_doubt(&living),
                    living,
                });
            }
        }
        let envelopes: Vec<Envelope> = (state.next_seq..)
            .zip(events)
            .map(|(seq, event)| Envelope {
                seq,
                at: stamp.wall,
                boot_ms: u64::try_from(stamp.boot.as_millis()).unwrap_or(u64::MAX),
                event,
            })
            .collect();
        journal.append_all(&envelopes)?;
        for envelope in &envelopes {
            state.apply(envelope);
        }
        Ok(Driver::new(self.fixed(dir), journal, state))
    }
}

/// What of the step still lives is said: answered too early, it would run beside the next attempt.
fn in_doubt(living: &[u32]) -> String {
    let pids: Vec<String> = living.iter().map(u32::to_string).collect();
    match pids.as_slice() {
        [] => "the program ended while it ran".to_owned(),
        pids => format!("the program ended while it ran, and what it started still runs: pid {}", pids.join(", ")),
    }
}

/// The state that a journal's envelopes lead to.
pub(super) fn fold(envelopes: &[Envelope]) -> Result<DrillState, DrillError> {
    let first = envelopes.first().ok_or(DrillError::NoOpening)?;
    let mut state = DrillState::open(first)?;
    for envelope in &envelopes[1..] {
        state.apply(envelope);
    }
    Ok(state)
}
