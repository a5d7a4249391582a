//! Refusals: what the state does not allow, whoever asks for it.

use crate::drill::{DrillState, StepState, StepStatus};
use crate::event::{Answer, Ask, Command};
use crate::runbook::{Step, StepKind};

/// Why a command is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("the drill has ended")]
    Ended,
    #[error("there is no step `{0}`")]
    NoSuchStep(String),
    #[error("`{0}` asks nothing now")]
    NothingAsked(String),
    #[error("that does not answer what `{0}` asks")]
    WrongAnswer(String),
    #[error("`{typed}` was typed, the target is `{name}`: nothing was done")]
    WrongName { typed: String, name: String },
    #[error("a reason is needed")]
    NoReason,
    #[error("the drill is already declared")]
    AlreadyDeclared,
    #[error("`{0}` cannot be retried: it, or a step after it, is running")]
    Running(String),
    #[error("`{0}` has not run yet")]
    NotRun(String),
    #[error("`{0}` has ended; only a step that has not can be skipped")]
    CannotSkip(String),
    #[error("`{0}` has no way back")]
    NoUndo(String),
    #[error(
        "`{fence}` keeps the old primary from writing, and `{promote}` may have made another: undone, two would write"
    )]
    TwoPrimaries { fence: String, promote: String },
}

/// Whether the state admits the command.
pub fn admits(state: &DrillState, command: &Command) -> Result<(), Refusal> {
    // Notes and findings belong to the record as long as the journal is open.
    if state.finished.is_some() {
        return Err(Refusal::Ended);
    }
    let index = |step: &String| state.runbook.index_of(step).ok_or_else(|| Refusal::NoSuchStep(step.clone()));
    match command {
        Command::Declare { .. } if state.declared.is_some() => Err(Refusal::AlreadyDeclared),
        Command::Skip { reason, .. } | Command::Abort { reason } if reason.trim().is_empty() => Err(Refusal::NoReason),
        Command::Answer { step, answer } => {
            let ask = state.ask_of(index(step)?).ok_or_else(|| Refusal::NothingAsked(step.clone()))?;
            fits(step, ask, answer)
        }
        Command::Skip { step, .. } => match state.steps[index(step)?].status.lets_pass() {
            true => Err(Refusal::CannotSkip(step.clone())),
            false => Ok(()),
        },
        Command::Retry { step } => {
            let index = index(step)?;
            if state.steps[index].attempts.is_empty() && state.steps[index].status == StepStatus::Pending {
                return Err(Refusal::NotRun(step.clone()));
            }
            let busy = with_dependents(state, index)
                .iter()
                .any(|id| state.step(id).is_some_and(|(_, s)| s.status == StepStatus::Running && s.ask.is_none()));
            if busy { Err(Refusal::Running(step.clone())) } else { Ok(()) }
        }
        Command::Undo { step } => {
            let index = index(step)?;
            if state.runbook.steps[index].undo.is_none() {
                return Err(Refusal::NoUndo(step.clone()));
            }
            if let Some(promote) = promoted(state, index) {
                return Err(Refusal::TwoPrimaries { fence: step.clone(), promote });
            }
            match &state.steps[index].status {
                StepStatus::Passed | StepStatus::Failed => Ok(()),
                StepStatus::Running => Err(Refusal::Running(step.clone())),
                _ => Err(Refusal::NotRun(step.clone())),
            }
        }
        _ => Ok(()),
    }
}

/// For a fence: the promotion of the same system that has begun in this drill.
fn promoted(state: &DrillState, fence: usize) -> Option<String> {
    let fence = &state.runbook.steps[fence];
    if !matches!(fence.kind, StepKind::PostgresFence) {
        return None;
    }
    let begun = |(step, progress): &(&Step, &StepState)| {
        matches!(step.kind, StepKind::PostgresPromote) && step.system == fence.system && !progress.attempts.is_empty()
    };
    state.runbook.steps.iter().zip(&state.steps).find(begun).map(|(step, _)| step.id.clone())
}

/// Whether an answer answers its question.
fn fits(step: &str, ask: &Ask, answer: &Answer) -> Result<(), Refusal> {
    let fitting = match (ask, answer) {
        (Ask::TypeName { name, .. }, Answer::Typed { name: typed }) => {
            return match typed.trim() == name {
                true => Ok(()),
                false => Err(Refusal::WrongName { typed: typed.clone(), name: name.clone() }),
            };
        }
        (Ask::Choose { options, .. }, Answer::Chosen { value }) => options.iter().any(|option| option.value == *value),
        (Ask::Go { .. }, Answer::Yes)
        | (Ask::Confirm { .. }, Answer::Yes | Answer::No { .. })
        | (Ask::Input { .. }, Answer::Text { .. })
        | (Ask::RecoveryPoint { .. }, Answer::Point { .. } | Answer::Text { .. })
        | (Ask::AfterFailure { .. }, Answer::Retry | Answer::Stop)
        | (Ask::InDoubt { .. }, Answer::Retry | Answer::TakenAsDone { .. } | Answer::Stop) => true,
        _ => false,
    };
    if fitting { Ok(()) } else { Err(Refusal::WrongAnswer(step.to_owned())) }
}

/// The step and every later one that waits for it, directly or not, and has begun: in the runbook's order.
pub fn with_dependents(state: &DrillState, index: usize) -> Vec<String> {
    let mut touched = vec![false; state.steps.len()];
    touched[index] = true;
    for later in index + 1..state.steps.len() {
        touched[later] = state.runbook.steps[later].after.iter().any(|&before| touched[before]);
    }
    (0..state.steps.len())
        .filter(|&i| touched[i] && (i == index || state.steps[i].status != StepStatus::Pending))
        .map(|i| state.runbook.steps[i].id.clone())
        .collect()
}
