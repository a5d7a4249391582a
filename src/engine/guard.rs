//! Refusals: what the state does not allow, whoever asks for it.

use crate::drill::{DrillState, StepState, StepStatus};
use crate::event::{Answer, Ask, BoundSystem, Command, Failure, Identity};
use crate::mutant;
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
    #[error("`{0}` cannot be undone while `{1}`, which builds on it, is running: let it end or skip it first")]
    DependentRuns(String, String),
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
            let index = index(step)?;
            let ask = state.ask_of(index).ok_or_else(|| Refusal::NothingAsked(step.clone()))?;
            // To undo what ended is a question that may be answered by no; a gate is skipped instead.
            let undo = matches!(state.steps[index].status, StepStatus::Passed | StepStatus::Failed);
            match (ask, answer) {
                (Ask::TypeName { .. }, Answer::No { .. }) if undo => Ok(()),
                _ => fits(step, ask, answer),
            }
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
            if let Some(running) = running_dependent(state, index) {
                return Err(Refusal::DependentRuns(step.clone(), running));
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

/// A later step that waits for this one, directly or not, and that an attempt is running of.
pub fn running_dependent(state: &DrillState, index: usize) -> Option<String> {
    let mut later = with_dependents(state, index).into_iter().filter(|id| *id != state.runbook.steps[index].id);
    later.find(|id| {
        state.step(id).is_some_and(|(_, progress)| progress.status == StepStatus::Running && progress.ask.is_none())
    })
}

/// What is asked before an undo that gives up writes: the application goes back while the restored servers have taken
/// writes, or may have.
pub fn before_undo(state: &DrillState, index: usize) -> Option<Ask> {
    let step = &state.runbook.steps[index];
    let roles: Vec<&String> = match &step.kind {
        StepKind::CutoverConnections { systems, .. } => systems.iter().collect(),
        StepKind::PostgresPromote => step.system.iter().collect(),
        _ => return None,
    };
    let begun = |promote: &Step, progress: &StepState, role: &String| {
        matches!(promote.kind, StepKind::PostgresPromote)
            && promote.system.as_ref() == Some(role)
            && !progress.attempts.is_empty()
            && progress.status != StepStatus::Undone
    };
    let takes_writes = |role: &&String| {
        let redis = state.opening.systems.get(*role).is_some_and(|system| system.kind == "redis");
        redis || state.runbook.steps.iter().zip(&state.steps).any(|(step, progress)| begun(step, progress, role))
    };
    let names: Vec<String> =
        roles.into_iter().filter(takes_writes).map(|role| state.lookup(role).unwrap_or_else(|| role.clone())).collect();
    let since = state.steps[index].started()?.wall.format("%H:%M:%S UTC");
    Some(Ask::TypeName {
        name: names.first()?.clone(),
        sentence: format!("undo “{}”; to leave it as it is, say no (on the screen: u)", state.expand(&step.title)),
        loss: format!(
            "what the restored {} took since {since}: those writes stay there, and the old servers never get them",
            names.join(" and ")
        ),
    })
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
            return match typed.trim() == name || mutant::removes("1d") {
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

/// Whether who answers is who answered before.
pub struct Recognised {
    /// What is there now is what later looks are compared with.
    pub counts_from_now: bool,
    pub refusal: Option<Failure>,
}

/// Compares who answers at a system's address with who answered there before. What cannot be known is refused, and so is
/// another server, always; one that was started again, or where none was, is refused once: a person's retry takes it.
pub fn recognise(state: &DrillState, system: &str, now: &Identity) -> Recognised {
    let Some((seen, before)) = state.identities.get(system) else {
        return Recognised { counts_from_now: true, refusal: None };
    };
    let (counts_from_now, refusal) = match (before, now) {
        // Nothing is there to be harmed; the step says itself what that means for it.
        (_, Identity::NoServer { .. }) => (false, None),
        (_, Identity::Unknown { why }) => {
            let failure = Failure::new(format!("who answers for {system} cannot be told"), why)
                .now("Nothing was done to it. Bring it to answer, or stop it on its machine, then retry.");
            (false, Some(failure))
        }
        (Identity::Server { facts: before }, Identity::Server { facts }) => {
            let differs = |name: &&String| before.get(*name) != facts.get(*name);
            let changed: std::collections::BTreeSet<&String> =
                before.keys().chain(facts.keys()).filter(differs).collect();
            let told = |name: &&String| {
                let value = |facts: &std::collections::BTreeMap<String, String>| {
                    facts.get(*name).map_or_else(|| "not told".to_owned(), Clone::clone)
                };
                format!("{name}: {}, and was {}", value(facts), value(before))
            };
            let why = changed.iter().map(told).collect::<Vec<_>>().join("; ");
            let restarted = changed.iter().all(|name| *name == Identity::STARTED);
            match changed.is_empty() {
                true => (false, None),
                // By the user's own command that fences, or lifts the fence.
                false if restarted && touched_since(state, system, seen.elapsed) => (true, None),
                false if restarted => {
                    let failure = Failure::new(format!("{system} was started again since this drill looked at it"), why)
                        .now("Nothing was done to it. Find out who did that; retry goes on with the server that answers now.");
                    (true, Some(failure))
                }
                false => {
                    let failure =
                        Failure::new(format!("another server answers for {system} than when this drill began"), why)
                            .now(
                                "Nothing was done to it. Look what answers at its address. If the service was moved on \
                             purpose, end this drill and begin another.",
                            );
                    (false, Some(failure))
                }
            }
        }
        (_, Identity::Server { .. }) => {
            let why = format!("now {}; before {}", now.words(), before.words());
            let failure = Failure::new(format!("a server answers for {system} that was not there before"), why)
                .now("Nothing was done to it. If it is the one that is meant, retry: it counts from now on.");
            (true, Some(failure))
        }
    };
    Recognised { counts_from_now, refusal }
}

/// A fence of the system was tried or lifted since then.
fn touched_since(state: &DrillState, system: &str, since: crate::drill::Elapsed) -> bool {
    state.runbook.steps.iter().zip(&state.steps).any(|(step, progress)| {
        let role = step.system.as_ref().and_then(|role| state.opening.systems.get(role));
        matches!(step.kind, StepKind::PostgresFence)
            && role.is_some_and(|bound| bound.name == system)
            && progress.attempts.iter().any(|attempt| attempt.started.elapsed >= since)
    })
}

/// Whether a step whose start was put off would still be started.
pub fn still_wants_to_start(state: &DrillState, index: usize) -> bool {
    let progress = &state.steps[index];
    state.stopping.is_none()
        && state.finished.is_none()
        && progress.ask.is_none()
        && progress.status != StepStatus::Running
        && !progress.status.lets_pass()
}

/// For the intent: what it is for, and who answered there.
pub fn fingerprint(state: &DrillState, system: &BoundSystem) -> String {
    let place = format!("{} at {}", system.name, system.address);
    match state.identities.get(&system.name) {
        Some((_, identity)) => format!("{place}; {}", identity.words()),
        None => place,
    }
}
