//! How an attempt ended, what it measured, how far it is.

use serde::{Deserialize, Serialize};

/// Named facts of a step, in the order found; `expect` and `capture` read them.
pub type Facts = serde_json::Map<String, serde_json::Value>;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Status {
    Passed,
    Failed,
    /// The deadline passed.
    TimedOut,
    /// The operator or a signal ended it.
    Cancelled,
}

/// An error for a person at 3 a.m.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(deny_unknown_fields)]
#[error("{what}{}", if .why.is_empty() { String::new() } else { format!(": {}", .why) })]
pub struct Failure {
    /// What failed, on what.
    pub what: String,
    /// Why, in the error's own words.
    pub why: String,
    /// What to do now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub now: Option<String>,
}

impl Failure {
    pub fn new(what: impl Into<String>, why: impl ToString) -> Self {
        Self { what: what.into(), why: why.to_string(), now: None }
    }

    /// Says what to do now.
    pub fn now(mut self, now: impl Into<String>) -> Self {
        self.now = Some(now.into());
        self
    }

    /// A larger thing failed because of this; what to do now stays the same.
    pub fn fails(self, what: impl Into<String>) -> Self {
        Self { what: what.into(), why: self.to_string(), now: self.now }
    }
}

/// An error with its causes, for a [`Failure`]'s `why`: of many the outermost alone says little.
pub fn causes(error: &dyn std::error::Error) -> String {
    let all = std::iter::successors(Some(error), |error| error.source());
    all.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Check {
    pub name: String,
    pub passed: bool,
    /// What was found, and what was expected when they differ.
    pub detail: String,
}

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Outcome {
    pub status: Status,
    /// One sentence.
    pub summary: String,
    #[serde(default, skip_serializing_if = "Facts::is_empty")]
    pub facts: Facts,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub checks: Vec<Check>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub measures: Vec<Measure>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
}

impl Outcome {
    pub fn passed(summary: impl Into<String>) -> Self {
        Self {
            status: Status::Passed,
            summary: summary.into(),
            facts: Facts::new(),
            checks: Vec::new(),
            measures: Vec::new(),
            failure: None,
        }
    }

    pub fn failed(failure: Failure) -> Self {
        Self { status: Status::Failed, failure: Some(failure.clone()), ..Self::passed(failure.to_string()) }
    }

    pub fn fact(mut self, name: &str, value: impl Into<serde_json::Value>) -> Self {
        self.facts.insert(name.to_owned(), value.into());
        self
    }

    pub fn check(mut self, name: impl Into<String>, passed: bool, detail: impl Into<String>) -> Self {
        self.checks.push(Check { name: name.into(), passed, detail: detail.into() });
        self
    }

    pub fn measure(mut self, measure: Measure) -> Self {
        self.measures.push(measure);
        self
    }
}

/// What was measured from data; the RPO's evidence.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Measure {
    /// Seconds of the system's history that the chosen point gives up, up to the incident.
    SelectedLoss {
        system: String,
        seconds: f64,
        /// The last commit or snapshot that was recovered.
        recovered_to: chrono::DateTime<chrono::Utc>,
        /// The reference: the incident.
        incident: chrono::DateTime<chrono::Utc>,
    },
    /// What had not reached the archive; `seconds` is absent when it cannot be known.
    ArchiveExposure { system: String, seconds: Option<f64>, bytes: Option<u64>, detail: String },
    /// Writes that were acknowledged to a client and are not in the restored system, by an independent ledger.
    LostWrites { system: String, lost: u64, acknowledged: u64, detail: String },
    /// What the archive holds behind the chosen point and the restored system does not, the damage included: counted in the
    /// WAL. `until` is the last commit of it.
    Collateral { system: String, commits: u64, bytes: u64, until: Option<chrono::DateTime<chrono::Utc>> },
}

impl Measure {
    pub fn system(&self) -> &str {
        match self {
            Self::SelectedLoss { system, .. }
            | Self::ArchiveExposure { system, .. }
            | Self::LostWrites { system, .. }
            | Self::Collateral { system, .. } => system,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Unit {
    Bytes,
    Segments,
    Keys,
    Rows,
    Steps,
    Seconds,
}

/// How far a lane of a step is. A step may have several lanes at once (base backup, WAL, replay).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Progress {
    /// `base backup`, `WAL`, `replay` …
    pub lane: String,
    pub done: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total: Option<u64>,
    pub unit: Unit,
    /// A second, the position in the field's own terms: `10:01:12.340  0/4A2F11C8`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub position: Option<String>,
    /// Units a second, lately.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<f64>,
    /// Seconds left, when it can be told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eta_seconds: Option<f64>,
}
