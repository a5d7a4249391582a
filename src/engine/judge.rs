//! Whether an outcome is what the runbook expects, and what it leaves behind as variables.

use serde_json::Value;

use crate::event::{Failure, Outcome, Status};
use crate::runbook::{Rule, Step};

/// Holds a passed outcome against the step's `expect`; each rule becomes a check, and one that fails fails the step.
pub fn judge(step: &Step, mut outcome: Outcome, expand: impl Fn(&str) -> String) -> Outcome {
    if outcome.status != Status::Passed {
        return outcome;
    }
    let mut broken = Vec::new();
    for expectation in &step.expect {
        let found = outcome.facts.get(&expectation.field).cloned();
        for rule in &expectation.rules {
            let (passed, wanted) = holds(rule, found.as_ref(), &expand);
            let shown = found.as_ref().map_or_else(|| "nothing".to_owned(), text);
            let detail = match passed {
                true => format!("{shown} ({wanted})"),
                false => format!("found {shown}, expected {wanted}"),
            };
            if !passed {
                broken.push(format!("{}: {detail}", expectation.field));
            }
            outcome = outcome.check(expectation.field.clone(), passed, detail);
        }
    }
    if !broken.is_empty() {
        outcome.status = Status::Failed;
        outcome.summary = broken.join("; ");
        outcome.failure = Some(
            Failure::new(format!("`{}` did not find what it expects", step.id), outcome.summary.clone())
                .now("Look at the output. If the data is wrong, choose another point: select the step that chooses it (`↑` `↓`) and press `r`; by lines, `retry` and its id."),
        );
    }
    outcome
}

/// The variables that the step's `capture` takes from the outcome.
pub fn captured(step: &Step, outcome: &Outcome) -> Vec<(String, Value)> {
    step.capture
        .iter()
        .filter_map(|capture| Some((capture.variable.clone(), outcome.facts.get(&capture.field)?.clone())))
        .collect()
}

/// What becomes of the operator's wish to skip a step that was running.
#[derive(Debug, PartialEq, Eq)]
pub enum Skip {
    No,
    Yes {
        reason: String,
    },
    /// It had passed already: that is its outcome, and it has only one.
    TooLate,
}

pub fn skipped(outcome: &Outcome, wish: Option<String>) -> Skip {
    match wish {
        None => Skip::No,
        Some(_) if outcome.status == Status::Passed => Skip::TooLate,
        Some(reason) => Skip::Yes { reason },
    }
}

fn holds(rule: &Rule, found: Option<&Value>, expand: &impl Fn(&str) -> String) -> (bool, String) {
    let as_number = |value: &Value| value.as_f64().or_else(|| value.as_str()?.trim().parse().ok());
    let number = found.and_then(as_number);
    match rule {
        Rule::AtLeast(least) => (number.is_some_and(|n| n >= *least), format!("at least {least}")),
        Rule::AtMost(most) => (number.is_some_and(|n| n <= *most), format!("at most {most}")),
        Rule::Equals(wanted) => {
            let wanted = expand(wanted);
            (found.is_some_and(|found| same(found, number, &wanted)), wanted)
        }
        Rule::NotEquals(unwanted) => {
            let unwanted = expand(unwanted);
            (found.is_some_and(|found| !same(found, number, &unwanted)), format!("anything but {unwanted}"))
        }
        Rule::Contains(part) => {
            let part = expand(part);
            (found.is_some_and(|found| text(found).contains(&part)), format!("something that contains {part}"))
        }
    }
}

fn same(found: &Value, number: Option<f64>, wanted: &str) -> bool {
    match (number, wanted.trim().parse::<f64>()) {
        (Some(number), Ok(wanted)) => number == wanted,
        _ => text(found) == wanted,
    }
}

fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}
