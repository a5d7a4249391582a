//! The one place that every event passes before it is journalled: known secrets leave its texts.
//!
//! Output has been redacted as a stream already, since a secret may stand across two chunks; here it is looked at again,
//! because taking out escapes may have put a secret together. Names that the runbook or the inventory gives (steps,
//! systems, what is to be typed) stay as they are: the fold works by them.

use crate::event::{Answer, Ask, Event, Failure, Identity, Measure, Outcome, Progress, Window};
use crate::mutant;
use crate::secret::Redactor;

/// The event without a known secret in any text of a person, a program or a server.
pub fn redacted(redactor: &Redactor, mut event: Event) -> Event {
    if mutant::removes("10c") {
        return event;
    }
    let hide = |text: &mut String| *text = redactor.text(text);
    match &mut event {
        Event::DrillOpened { opening } => opening.variables.values_mut().for_each(hide),
        Event::Declared { reason } | Event::StepSkipped { reason, .. } | Event::Aborted { reason, .. } => hide(reason),
        Event::Asked { ask, .. } => redact_ask(redactor, ask),
        Event::Answered { answer, .. } => match answer {
            Answer::No { reason } | Answer::TakenAsDone { reason } => hide(reason),
            Answer::Text { text } => hide(text),
            Answer::Chosen { value } => hide(value),
            Answer::Typed { name } => hide(name),
            Answer::Yes | Answer::Retry | Answer::Stop | Answer::Point { .. } => {}
        },
        Event::Output { lines, .. } => lines.iter_mut().for_each(|line| hide(&mut line.text)),
        Event::Progressed { progress: Progress { lane, position, .. }, .. } => {
            hide(lane);
            position.iter_mut().for_each(hide);
        }
        Event::StepFinished { outcome, .. } => redact_outcome(redactor, outcome),
        Event::StepNotNeeded { why, .. } | Event::StepInDoubt { why, .. } => hide(why),
        Event::StepReopened { because, .. } => hide(because),
        Event::VariableSet { value, .. } => *value = redactor.json(value.take()),
        Event::Measured { measure } => redact_measure(redactor, measure),
        Event::Identified { identity, .. } => match identity {
            Identity::Server { facts } => facts.values_mut().for_each(hide),
            Identity::NoServer { why } | Identity::Unknown { why } => hide(why),
        },
        Event::Note { text, .. } => hide(text),
        Event::Finding { text, owner, due, .. } => {
            hide(text);
            owner.iter_mut().chain(due).for_each(hide);
        }
        Event::EngineStarted { .. }
        | Event::StepStarted { .. }
        | Event::RetryScheduled { .. }
        | Event::Paused { .. }
        | Event::Unpaused { .. }
        | Event::PaceSet { .. }
        | Event::DrillFinished { .. } => {}
    }
    event
}

fn redact_ask(redactor: &Redactor, ask: &mut Ask) {
    let hide = |text: &mut String| *text = redactor.text(text);
    match ask {
        Ask::Go { sentence } | Ask::Confirm { sentence } => hide(sentence),
        Ask::TypeName { sentence, loss, .. } => [sentence, loss].into_iter().for_each(hide),
        Ask::Input { prompt, default, .. } => std::iter::once(prompt).chain(default).for_each(hide),
        Ask::Choose { prompt, options, default } => {
            std::iter::once(prompt).chain(default).for_each(hide);
            for option in options {
                [&mut option.value, &mut option.label].into_iter().chain(&mut option.detail).for_each(hide);
            }
        }
        Ask::RecoveryPoint { window, .. } => redact_window(redactor, window),
        Ask::AfterFailure { failure } => redact_failure(redactor, failure),
        Ask::InDoubt { why } => hide(why),
    }
}

fn redact_window(redactor: &Redactor, window: &mut Window) {
    for system in &mut window.systems {
        system.warnings_mut().iter_mut().for_each(|text| *text = redactor.text(text));
    }
}

fn redact_outcome(redactor: &Redactor, outcome: &mut Outcome) {
    outcome.summary = redactor.text(&outcome.summary);
    outcome.facts = std::mem::take(&mut outcome.facts)
        .into_iter()
        .map(|(name, value)| (redactor.text(&name), redactor.json(value)))
        .collect();
    for check in &mut outcome.checks {
        check.name = redactor.text(&check.name);
        check.detail = redactor.text(&check.detail);
    }
    outcome.measures.iter_mut().for_each(|measure| redact_measure(redactor, measure));
    outcome.failure.iter_mut().for_each(|failure| redact_failure(redactor, failure));
}

fn redact_failure(redactor: &Redactor, failure: &mut Failure) {
    let Failure { what, why, now } = failure;
    [what, why].into_iter().chain(now).for_each(|text| *text = redactor.text(text));
}

fn redact_measure(redactor: &Redactor, measure: &mut Measure) {
    match measure {
        Measure::ArchiveExposure { detail, .. } | Measure::LostWrites { detail, .. } => *detail = redactor.text(detail),
        Measure::SelectedLoss { .. } | Measure::Collateral { .. } => {}
    }
}
