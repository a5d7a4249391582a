//! The runbook that cannot be invalid: what the rest of the house works with.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use indexmap::IndexMap;

use crate::digest::Digest;

use super::kind::StepKind;

/// A loaded runbook. Every reference in it resolves and its steps have no cycle.
#[derive(Debug, Clone)]
pub struct Runbook {
    pub id: String,
    pub title: String,
    pub owner: Option<String>,
    pub revision: u32,
    pub description: Option<String>,
    pub objectives: Objectives,
    /// Role → kind; bound to systems of the inventory at the start.
    pub systems: IndexMap<String, SystemKind>,
    pub variables: IndexMap<String, Variable>,
    pub contacts: Vec<Contact>,
    /// Programs that must be on the PATH.
    pub tools: Vec<String>,
    pub phases: Vec<Phase>,
    /// In the order written.
    pub steps: Vec<Step>,
    /// The file, byte for byte.
    pub source: Arc<str>,
    pub digest: Digest,
    pub path: Option<PathBuf>,
}

impl Runbook {
    pub fn step(&self, id: &str) -> Option<&Step> {
        self.steps.iter().find(|step| step.id == id)
    }

    pub fn index_of(&self, id: &str) -> Option<usize> {
        self.steps.iter().position(|step| step.id == id)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SystemKind {
    Postgres,
    Redis,
}

impl SystemKind {
    pub fn word(self) -> &'static str {
        match self {
            Self::Postgres => "postgres",
            Self::Redis => "redis",
        }
    }
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Objectives {
    pub rto: Option<Duration>,
    pub rpo: Option<Duration>,
}

/// A value that the operator or the command line gives: `--var name=value`.
#[derive(Debug, Clone, Default)]
pub struct Variable {
    pub description: Option<String>,
    pub default: Option<String>,
    /// Asked for, or refused headless, when no value was given. An optional variable without a value is the empty string.
    pub required: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contact {
    pub role: String,
    pub name: String,
    pub phone: Option<String>,
    pub page: Option<String>,
    pub escalate_after: Option<Duration>,
}

/// A heading and a clock.
#[derive(Debug, Clone)]
pub struct Phase {
    pub title: String,
    /// No step of it starts before every earlier step has ended.
    pub barrier: bool,
    /// Its steps, as indices into [`Runbook::steps`].
    pub steps: std::ops::Range<usize>,
}

#[derive(Debug, Clone)]
pub struct Step {
    /// Unique in the runbook: lower-case letters, digits, `-`, `_`.
    pub id: String,
    pub title: String,
    /// Markdown for the human.
    pub text: Option<String>,
    /// Index into [`Runbook::phases`].
    pub phase: usize,
    pub kind: StepKind,
    /// The role of the system it works on.
    pub system: Option<String>,
    /// Indices of the steps that must have ended well (passed, skipped, not needed) before it starts. Without `needs` in
    /// the file: every step written before it. A barrier before its phase adds every step of the phases before.
    pub after: Vec<usize>,
    pub when: Option<Condition>,
    /// Who should do it, for the human.
    pub role: Option<String>,
    /// How many people besides the operator must approve; shown and recorded.
    pub approvals: u32,
    pub timeout: Option<Duration>,
    pub retry: Retry,
    pub on_failure: OnFailure,
    pub undo: Option<Undo>,
    pub expect: Vec<Expectation>,
    pub capture: Vec<Capture>,
    /// May execute again after a crash without asking.
    pub idempotent: bool,
    /// A command that tells, by exit code 0, that the effect has happened; for steps found in doubt.
    pub probe: Option<Vec<String>>,
    /// What will be lost, in a sentence with `{placeholders}`; the operator types the target's name.
    pub destroys: Option<String>,
    /// Waits for a key before it starts, even when it destroys nothing.
    pub ask: bool,
    /// A green run of it stops the RTO clock (all of them must be green): smoke tests, unless the file says otherwise.
    pub proves_service: bool,
    /// The line of the file it begins on, counted from 1.
    pub line: usize,
}

/// `when = { variable = "…", is = "set" }` and friends; the value is compared as text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    pub variable: String,
    pub test: Test,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Test {
    /// Not empty.
    Set,
    Unset,
    Equals(String),
    NotEquals(String),
}

impl Condition {
    pub fn holds(&self, value: Option<&str>) -> bool {
        let value = value.unwrap_or("");
        match &self.test {
            Test::Set => !value.is_empty(),
            Test::Unset => value.is_empty(),
            Test::Equals(other) => value == other,
            Test::NotEquals(other) => value != other,
        }
    }
}

impl std::fmt::Display for Condition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.test {
            Test::Set => write!(f, "{} is set", self.variable),
            Test::Unset => write!(f, "{} is not set", self.variable),
            Test::Equals(other) => write!(f, "{} is {other}", self.variable),
            Test::NotEquals(other) => write!(f, "{} is not {other}", self.variable),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retry {
    /// Tries beyond the first.
    pub times: u32,
    /// Before the first retry; doubles each time up to `max_delay`.
    pub delay: Duration,
    pub max_delay: Duration,
}

impl Default for Retry {
    fn default() -> Self {
        Self { times: 0, delay: Duration::from_secs(1), max_delay: Duration::from_secs(60) }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnFailure {
    /// Retry, skip with a reason, or stop: the operator says. Headless, the drill ends as failed.
    #[default]
    Ask,
    Stop,
    /// The drill goes on; the failure stays in the report.
    Continue,
}

/// The way back of a step.
#[derive(Debug, Clone)]
pub enum Undo {
    /// The kind's own way back (`undo = true`): `cutover.connections`, `postgres.fence`, restores.
    BuiltIn,
    Command {
        argv: Vec<String>,
    },
}

/// A fact of the outcome and what it must be. Comparisons are numeric where both sides are numbers.
#[derive(Debug, Clone, PartialEq)]
pub struct Expectation {
    /// The fact's name; `column` in a SQL step.
    pub field: String,
    pub rules: Vec<Rule>,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Rule {
    AtLeast(f64),
    AtMost(f64),
    /// May hold `{placeholders}`.
    Equals(String),
    NotEquals(String),
    Contains(String),
}

/// A fact that becomes a variable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Capture {
    pub field: String,
    pub variable: String,
}
