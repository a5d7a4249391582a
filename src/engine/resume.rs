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
        for (index, progress) in state.steps.iter().enumerate() {
            if progress.status == StepStatus::Running {
                events.push(cut_off(&state, index, "the program ended while it ran".to_owned()));
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

/// The outcome of an attempt that was cut off. What of it still lives is said: answered too early, it would run beside the
/// next attempt.
pub(super) fn cut_off(state: &DrillState, index: usize, why: String) -> Event {
    let (step, progress) = (&state.runbook.steps[index].id, &state.steps[index]);
    let living = process::living_with(&[("LIFEBOAT_DRILL", state.opening.drill.as_str()), ("LIFEBOAT_STEP", step)]);
    let pids: Vec<String> = living.iter().map(u32::to_string).collect();
    let why = match pids.as_slice() {
        [] => why,
        pids => format!("{why}, and what it started still runs: pid {}", pids.join(", ")),
    };
    Event::StepInDoubt { step: step.clone(), attempt: progress.attempt(), why, living }
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
