//! Runbooks: the file as written (`raw`) → the model that cannot be invalid. Every problem of a file is reported at once,
//! with line, caret and a hint.

mod build;
mod graph;
pub mod kind;
mod model;
mod names;
pub mod placeholders;
pub mod raw;
mod traits;

use std::path::Path;
use std::sync::LazyLock;

pub use crate::document::{Problem, Problems, Severity};
pub use kind::{NotifyTo, Run, ShipAof, Side, StepKind, TableCheck};
pub use model::{
    Capture, Condition, Contact, Expectation, Objectives, OnFailure, Phase, Retry, Rule, Runbook, Step, SystemKind,
    Test, Undo, Variable,
};

use crate::document::{self, Document};

/// Reads a runbook. `Err` holds every problem of the file.
pub fn load(path: &Path) -> Result<Runbook, Problems> {
    let source = document::read(path)?;
    let mut runbook = parse(&source, &path.display().to_string())?;
    runbook.path = Some(path.to_owned());
    Ok(runbook)
}

/// As [`load`], from text; `name` is what problems call the file.
pub fn parse(source: &str, name: &str) -> Result<Runbook, Problems> {
    match lint(source, name) {
        (Some(runbook), _) => Ok(runbook),
        (None, problems) => Err(problems),
    }
}

/// Everything that can be said about a file: warnings too. The runbook is there when there are no errors.
pub fn lint(source: &str, name: &str) -> (Option<Runbook>, Problems) {
    match Document::open(source, name, schema()) {
        Ok(document) => build::build(document, source),
        Err(problems) => (None, problems),
    }
}

/// The JSON schema of a runbook, for editors.
pub fn schema() -> &'static serde_json::Value {
    static SCHEMA: LazyLock<serde_json::Value> =
        LazyLock::new(|| document::schema::of::<raw::File>("Lifeboat runbook"));
    &SCHEMA
}

#[cfg(test)]
mod tests;
