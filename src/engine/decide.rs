//! What to do next: a pure function of the state. The driver carries it out, one durable event at a time.

use std::time::Duration;

use crate::drill::{DrillState, Elapsed, StepStatus, Stopping};
use crate::event::{Ask, Pace, Verdict};
use crate::runbook::{OnFailure, StepKind};

use super::{guard, sentence};

/// What the driver is to do.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Put a question to the person.
    Ask {
        step: usize,
        ask: Ask,
    },
    /// Record the intent, then start the attempt.
    Start {
        step: usize,
    },
    /// Record it, then ask the step's probe whether it had happened.
    Probe {
        step: usize,
    },
    /// Record the intent, then take the step's effect back: the loss was agreed to.
    Undo {
        step: usize,
    },
    /// `when` is false.
    NotNeeded {
        step: usize,
        why: String,
    },
    /// Start the next attempt by itself after a while.
    ScheduleRetry {
        step: usize,
        after: Duration,
    },
    /// End every running attempt: the drill is to stop.
    CancelAll,
    Finish {
        verdict: Verdict,
    },
}

/// Decides from the state alone. Returns what can be done now; after it is done, decide again until nothing is left.
pub fn decide(state: &DrillState, now: Elapsed) -> Vec<Effect> {
    if state.finished.is_some() || state.declared.is_none() {
        return Vec::new();
    }
    let running = state.running().next().is_some();
    match &state.stopping {
        Some(Stopping::Aborted { .. }) if running => return vec![Effect::CancelAll],
        Some(Stopping::Failed { .. }) if running => return Vec::new(),
        Some(_) => return vec![Effect::Finish { verdict: state.verdict() }],
        None => {}
    }
    if !running && state.all_ended() {
        return vec![Effect::Finish { verdict: state.verdict() }];
    }
    (0..state.steps.len()).filter_map(|step| next_of(state, step, now)).collect()
}

/// When the next decision falls due without any event: the earliest retry.
pub fn next_due(state: &DrillState) -> Option<Elapsed> {
    if state.paused.is_some() {
        return None;
    }
    state.steps.iter().filter_map(|s| if let StepStatus::Retrying { due } = s.status { Some(due) } else { None }).min()
}

fn next_of(state: &DrillState, index: usize, now: Elapsed) -> Option<Effect> {
    let (step, progress) = (&state.runbook.steps[index], &state.steps[index]);
    if progress.wants_retry && progress.status != StepStatus::Running && state.paused.is_none() {
        return Some(Effect::Start { step: index });
    }
    match &progress.status {
        // The name was typed; a step that builds on it may have started meanwhile.
        StepStatus::Passed | StepStatus::Failed if progress.gate_open => {
            guard::running_dependent(state, index).is_none().then_some(Effect::Undo { step: index })
        }
        StepStatus::Pending | StepStatus::Gated => {
            if state.paused.is_some() || !state.is_ready(index) || progress.ask.is_some() {
                return None;
            }
            if let Some(condition) = step.when.as_ref().filter(|c| !c.holds(state.lookup(&c.variable).as_deref())) {
                return Some(Effect::NotNeeded { step: index, why: format!("its condition is not met: {condition}") });
            }
            match gate(state, index) {
                Some(ask) if !progress.gate_open => Some(Effect::Ask { step: index, ask }),
                _ => Some(Effect::Start { step: index }),
            }
        }
        StepStatus::Retrying { due } if *due <= now && state.paused.is_none() => Some(Effect::Start { step: index }),
        StepStatus::Failed if progress.ask.is_none() => after_failure(state, index),
        StepStatus::InDoubt if progress.ask.is_none() => {
            // What still runs would run beside the next attempt.
            let alone = progress.doubt.as_ref().is_none_or(|doubt| doubt.living.is_empty());
            let asked = progress.attempts.last().is_some_and(|attempt| attempt.probe);
            match alone && !progress.undoing {
                true if step.probe.is_some() && !asked => Some(Effect::Probe { step: index }),
                true if step.idempotent || step.kind.looks_first() => Some(Effect::Start { step: index }),
                _ => Some(Effect::Ask { step: index, ask: Ask::InDoubt { why: sentence::in_doubt(state, index) } }),
            }
        }
        _ => None,
    }
}

fn after_failure(state: &DrillState, index: usize) -> Option<Effect> {
    let (step, progress) = (&state.runbook.steps[index], &state.steps[index]);
    if progress.undoing {
        return Some(Effect::Ask { step: index, ask: failure_ask(state, index) });
    }
    if state.retries_left(index) > 0 {
        let factor = 2_u32.saturating_pow(progress.automatic_retries);
        let after = step.retry.delay.saturating_mul(factor).min(step.retry.max_delay);
        return Some(Effect::ScheduleRetry { step: index, after });
    }
    match step.on_failure {
        OnFailure::Ask => Some(Effect::Ask { step: index, ask: failure_ask(state, index) }),
        OnFailure::Stop | OnFailure::Continue => None,
    }
}

fn failure_ask(state: &DrillState, index: usize) -> Ask {
    let failure = state.steps[index].attempts.last().and_then(|attempt| attempt.outcome.as_ref()?.failure.clone());
    Ask::AfterFailure {
        failure: failure
            .unwrap_or_else(|| crate::event::Failure::new(state.runbook.steps[index].title.clone(), "it failed")),
    }
}

/// The question before a step starts, when it has one.
fn gate(state: &DrillState, index: usize) -> Option<Ask> {
    let step = &state.runbook.steps[index];
    if let Some(loss) = &step.destroys {
        let name = step.system.as_ref().and_then(|role| state.opening.systems.get(role));
        return Some(Ask::TypeName {
            name: name.map_or_else(|| state.opening.service.clone(), |system| system.name.clone()),
            sentence: sentence::action(state, index),
            loss: state.expand(loss),
        });
    }
    // These ask by themselves; one question is enough.
    let asks_itself = matches!(
        step.kind,
        StepKind::Confirm | StepKind::Input { .. } | StepKind::Choose { .. } | StepKind::RecoveryChoose { .. }
    );
    let wanted = step.ask || (state.pace == Pace::StepByStep && !asks_itself);
    wanted.then(|| Ask::Go { sentence: sentence::action(state, index) })
}
