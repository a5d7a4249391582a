//! What is folded, in words and lines.

use super::super::Zone;
use super::super::model::{Attempt, CheckKind, CheckLine, FailureLine, Output, Rpo, Rto, Standing, Step, When};
use super::super::words::{self, clean};
use crate::drill::{Moment, StepStatus};
use crate::event::{Answer, Ask, Status};

pub(super) fn objective_words(rto: &Rto, rpo: &[Rpo]) -> Vec<String> {
    let mut words = Vec::new();
    match (rto.seconds, rto.recovered) {
        (Some(seconds), true) => words.push(match rto.objective_seconds {
            Some(objective) => format!(
                "The service was back after {}; the objective of {} was {}.",
                words::duration(seconds),
                words::duration(objective),
                met_word(rto.met)
            ),
            None => format!("The service was back after {}; no RTO was set.", words::duration(seconds)),
        }),
        (Some(seconds), false) => words.push(format!(
            "The recovery of the service was not proven within the {} of this drill.",
            words::duration(seconds)
        )),
        (None, _) => {}
    }
    for rpo in rpo {
        if let (Some(loss), Some(objective)) = (&rpo.selected_loss, rpo.objective_seconds) {
            words.push(format!(
                "{} lost {}; the objective of {} was {}.",
                rpo.system,
                words::duration(loss.seconds),
                words::duration(objective),
                met_word(rpo.met)
            ));
        }
    }
    words
}

pub(super) fn met_word(met: Option<bool>) -> &'static str {
    match met {
        Some(true) => "met",
        Some(false) => "missed",
        None => "not measured",
    }
}

pub(super) fn end_with_stop(text: &str) -> String {
    match text.trim_end() {
        "" => "no words were recorded.".to_owned(),
        text if text.ends_with(['.', '!', '?', '…']) => text.to_owned(),
        text => format!("{text}."),
    }
}

pub(super) fn when(at: Moment, zone: Zone) -> When {
    When { utc: at.wall, local: at.wall.with_timezone(&zone(at.wall)), elapsed_seconds: at.elapsed.as_secs_f64() }
}

pub(super) fn standing(status: &StepStatus) -> Standing {
    match status {
        StepStatus::Pending => Standing::NotReached,
        StepStatus::Gated | StepStatus::Running | StepStatus::Retrying { .. } => Standing::Unfinished,
        StepStatus::Passed => Standing::Passed,
        StepStatus::Failed => Standing::Failed,
        StepStatus::Skipped { .. } => Standing::Skipped,
        StepStatus::NotNeeded { .. } => Standing::NotNeeded,
        StepStatus::Undone => Standing::Undone,
        StepStatus::InDoubt => Standing::InDoubt,
    }
}

pub(super) fn status_word(status: Status) -> &'static str {
    match status {
        Status::Passed => "passed",
        Status::Failed => "failed",
        Status::TimedOut => "timed-out",
        Status::Cancelled => "cancelled",
    }
}

pub(super) fn clean_failure(failure: &crate::event::Failure) -> crate::event::Failure {
    crate::event::Failure {
        what: clean(&failure.what),
        why: clean(&failure.why),
        now: failure.now.as_deref().map(clean),
    }
}

pub(super) fn clean_check(check: &crate::event::Check) -> crate::event::Check {
    crate::event::Check { name: clean(&check.name), passed: check.passed, detail: clean(&check.detail) }
}

pub(super) fn ask_words(ask: &Ask) -> String {
    match ask {
        Ask::Go { sentence } | Ask::Confirm { sentence } => clean(sentence),
        Ask::TypeName { name, sentence, loss } => {
            format!(
                "{} What will be lost: {} To be typed: {}",
                end_with_stop(&clean(sentence)),
                end_with_stop(&clean(loss)),
                clean(name)
            )
        }
        Ask::Input { prompt, .. } | Ask::Choose { prompt, .. } => clean(prompt),
        Ask::RecoveryPoint { .. } => "Which recovery point?".to_owned(),
        Ask::AfterFailure { failure } => format!("It failed ({}). Retry, skip or stop?", clean(&failure.what)),
        Ask::InDoubt { why } => format!("In doubt: {} Repeat, take as done or stop?", end_with_stop(&clean(why))),
    }
}

pub(super) fn answer_words(answer: &Answer) -> String {
    match answer {
        Answer::Yes => "yes".to_owned(),
        Answer::No { reason } => format!("no: {}", clean(reason)),
        Answer::Typed { name } => format!("typed {}", clean(name)),
        Answer::Text { text } => clean(text),
        Answer::Chosen { value } => clean(value),
        Answer::Point { point } => clean(&point.target.to_string()),
        Answer::Retry => "again".to_owned(),
        Answer::TakenAsDone { reason } => format!("it was done: {}", clean(reason)),
        Answer::Stop => "stop".to_owned(),
    }
}

/// What was looked at, by the newest forward attempt of each step. A smoke test that lists nothing is itself the check.
pub(super) fn checks(steps: &[Step]) -> Vec<CheckLine> {
    let mut lines = Vec::new();
    for step in steps {
        let Some(attempt) = step.attempts.iter().rev().find(|attempt| !attempt.undo && attempt.status.is_some()) else {
            continue;
        };
        let smoke = step.kind.starts_with("smoke.") || step.proves_service;
        let integrity = step.kind.ends_with(".check") || step.kind == "recovery.verify-backups";
        let kind = match (smoke, integrity) {
            (true, _) => CheckKind::Smoke,
            (_, true) => CheckKind::Integrity,
            _ => CheckKind::Other,
        };
        let line = |name: &str, passed, detail: &str| CheckLine {
            kind,
            step: step.title.clone(),
            name: name.to_owned(),
            passed,
            detail: detail.to_owned(),
        };
        if attempt.checks.is_empty() && (smoke || integrity) {
            lines.push(line(&step.title, attempt.status.as_deref() == Some("passed"), &attempt.summary));
        }
        lines.extend(attempt.checks.iter().map(|check| line(&check.name, check.passed, &check.detail)));
    }
    lines.sort_by_key(|line| match line.kind {
        CheckKind::Smoke => 0,
        CheckKind::Integrity => 1,
        CheckKind::Other => 2,
    });
    lines
}

pub(super) fn failures(steps: &[Step]) -> Vec<FailureLine> {
    let mut lines = Vec::new();
    for step in steps {
        let failed = |attempt: &&Attempt| attempt.status.as_deref().is_some_and(|status| status != "passed");
        for attempt in step.attempts.iter().filter(failed) {
            let (what, why, now) = match &attempt.failure {
                Some(failure) => (failure.what.clone(), failure.why.clone(), failure.now.clone()),
                None => (attempt.summary.clone(), String::new(), None),
            };
            lines.push(FailureLine {
                step: step.id.clone(),
                title: step.title.clone(),
                attempt: attempt.number,
                undo: attempt.undo,
                at: attempt.ended.clone().unwrap_or_else(|| attempt.started.clone()),
                what,
                why,
                now,
                then: step.standing,
            });
        }
    }
    lines.sort_by(|a, b| a.at.elapsed_seconds.total_cmp(&b.at.elapsed_seconds));
    lines
}

pub(super) fn outputs(steps: &[Step]) -> Vec<Output> {
    let attempts = steps.iter().flat_map(|step| step.attempts.iter().map(move |attempt| (step, attempt)));
    let outputs = attempts.filter_map(|(step, attempt)| {
        Some(Output { step: step.id.clone(), attempt: attempt.number, blob: attempt.output.clone()? })
    });
    outputs.collect()
}
