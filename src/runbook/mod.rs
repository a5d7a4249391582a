//! Runbooks: the file as written (`raw`) → the model that cannot be invalid. Every problem of a file is reported at once,
//! with line, caret and a hint.

pub mod kind;
mod model;

pub use kind::{Run, Side, StepKind, TableCheck};
pub use model::{
    Capture, Condition, Contact, Expectation, Objectives, OnFailure, Phase, Retry, Rule, Runbook, Step, SystemKind,
    Test, Undo, Variable,
};

mod shim;
pub use shim::{Problems, parse, placeholders};
