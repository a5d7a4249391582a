//! What a report says. `report.json` is this, field by field; names are stable, new ones may be added.

use std::collections::BTreeMap;

use chrono::{DateTime, FixedOffset, Utc};
use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::event::{AofPoint, BlobRef, Check, Failure, Mode, Verdict};

/// A drill, as an auditor and the next on-call engineer want to read it. Durations are seconds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    pub format: u32,
    pub drill: String,
    pub service: String,
    pub mode: Mode,
    pub environment: String,
    /// `None` while the drill is under way.
    pub verdict: Option<Verdict>,
    /// Why it is so, in sentences.
    pub reasons: Vec<String>,
    pub runbook: RunbookRef,
    /// Whoever held the drill, the first first.
    pub operators: Vec<String>,
    pub host: String,
    pub lifeboat_version: String,
    /// Why it was declared.
    pub declared_reason: Option<String>,
    pub times: Times,
    pub rto: Rto,
    pub rpo: Vec<Rpo>,
    /// The largest distance between the points that systems were recovered to.
    pub skew_seconds: Option<f64>,
    /// Every point that was chosen, the last one being the one in force.
    pub recovery_points: Vec<ChosenPoint>,
    pub phases: Vec<Phase>,
    pub steps: Vec<Step>,
    pub checks: Vec<CheckLine>,
    pub failures: Vec<FailureLine>,
    pub skips: Vec<Skip>,
    pub notes: Vec<Note>,
    pub findings: Vec<Finding>,
    pub pauses: Vec<Pause>,
    pub resumes: Vec<Resume>,
    /// A reboot lies within the drill: that part of the time comes from wall clocks.
    pub clock_uncertain: bool,
    pub systems: Vec<System>,
    /// Values at the end; never secrets.
    pub variables: BTreeMap<String, String>,
    pub evidence: Evidence,
    /// Runs of the same runbook, service and environment: earlier ones, and this one last. Empty when this is the first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub trend: Vec<Past>,
}

/// What a trend takes of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Past {
    pub drill: String,
    pub started: DateTime<Utc>,
    pub mode: Mode,
    /// `None` while it is under way.
    pub verdict: Option<Verdict>,
    /// As [`Rto::seconds`].
    pub rto_seconds: Option<f64>,
    pub rto_objective_seconds: Option<f64>,
    /// Whether the clock was stopped by a recovery.
    pub recovered: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunbookRef {
    pub id: String,
    pub title: String,
    pub revision: u32,
    pub owner: Option<String>,
    pub path: Option<String>,
    pub sha256: Digest,
}

/// A moment: UTC, local with its offset, and the time since the drill was opened by a clock that nobody can set.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct When {
    pub utc: DateTime<Utc>,
    pub local: DateTime<FixedOffset>,
    pub elapsed_seconds: f64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Times {
    pub opened: When,
    pub declared: Option<When>,
    /// The last green proof of the service.
    pub recovered: Option<When>,
    pub finished: Option<When>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Rto {
    /// Declaration to recovery, or to the end when the service was not recovered. `None` without a declaration.
    pub seconds: Option<f64>,
    pub objective_seconds: Option<f64>,
    /// `None` when there is no objective or nothing to measure.
    pub met: Option<bool>,
    /// Whether the clock was stopped by a proof.
    pub recovered: bool,
    /// Of `seconds`: something worked.
    pub machine_seconds: f64,
    /// Of `seconds`: everything waited for a person.
    pub human_seconds: f64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Rpo {
    pub system: String,
    pub objective_seconds: Option<f64>,
    /// History given up by the chosen point, measured from the recovered data.
    pub selected_loss: Option<SelectedLoss>,
    pub archive_exposure: Option<ArchiveExposure>,
    pub lost_writes: Option<LostWrites>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub collateral: Option<Collateral>,
    pub met: Option<bool>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SelectedLoss {
    pub seconds: f64,
    pub recovered_to: DateTime<Utc>,
    pub incident: DateTime<Utc>,
}

/// What the archive holds behind the recovered point, the damage included.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Collateral {
    pub commits: u64,
    /// Of WAL.
    pub bytes: u64,
    /// The last commit of it.
    pub until: Option<DateTime<Utc>>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ArchiveExposure {
    pub seconds: Option<f64>,
    pub bytes: Option<u64>,
    pub detail: String,
}

/// By an independent ledger.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LostWrites {
    pub lost: u64,
    pub acknowledged: u64,
    pub detail: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ChosenPoint {
    pub at: When,
    pub by: Option<String>,
    /// `time:2026-11-21T09:02:31.482Z`, `lsn:0/4A2F11C8` …
    pub target: String,
    /// The same moment where the operator was, when the target is a time.
    pub local: Option<DateTime<FixedOffset>>,
    pub inclusive: bool,
    pub timeline: u32,
    pub backups: BTreeMap<String, String>,
    pub snapshots: BTreeMap<String, String>,
    /// Append-only files and where they were cut.
    #[serde(default)]
    pub aof: BTreeMap<String, AofPoint>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Phase {
    pub title: String,
    pub seconds: Option<f64>,
    /// Ids.
    pub steps: Vec<String>,
}

/// How a step stood at the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Standing {
    Passed,
    Failed,
    Skipped,
    /// `when` was false.
    NotNeeded,
    Undone,
    InDoubt,
    /// Begun, without an end.
    Unfinished,
    NotReached,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Step {
    pub id: String,
    pub title: String,
    pub phase: String,
    /// As the runbook spells it: `postgres.restore` …
    pub kind: String,
    /// The name in the inventory.
    pub system: Option<String>,
    pub standing: Standing,
    /// One sentence: the outcome, the reason it was skipped, why it was not needed.
    pub summary: String,
    /// First touched: asked or started.
    pub began: Option<When>,
    pub ended: Option<When>,
    /// First start to last end, waits in between included.
    pub seconds: Option<f64>,
    pub machine_seconds: f64,
    pub human_seconds: f64,
    pub proves_service: bool,
    pub attempts: Vec<Attempt>,
    pub questions: Vec<Question>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Attempt {
    pub number: u32,
    pub undo: bool,
    /// It only asked whether the attempt before it had happened.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub probe: bool,
    pub started: When,
    /// Its end, or when it was found to have been cut off by a crash.
    pub ended: Option<When>,
    /// `passed`, `failed`, `timed-out`, `cancelled`; `None` when no outcome was recorded.
    pub status: Option<String>,
    pub summary: String,
    pub failure: Option<Failure>,
    pub checks: Vec<Check>,
    pub facts: serde_json::Map<String, serde_json::Value>,
    pub output: Option<BlobRef>,
}

/// What a person was asked, and what they said.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Question {
    pub question: String,
    pub answer: Option<String>,
    pub by: Option<String>,
    pub asked: When,
    pub waited_seconds: f64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CheckKind {
    Smoke,
    Integrity,
    Other,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CheckLine {
    pub kind: CheckKind,
    pub step: String,
    pub name: String,
    pub passed: bool,
    pub detail: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FailureLine {
    pub step: String,
    pub title: String,
    pub attempt: u32,
    pub undo: bool,
    pub at: When,
    pub what: String,
    pub why: String,
    pub now: Option<String>,
    /// How the step stood at the end.
    pub then: Standing,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Skip {
    pub step: String,
    pub title: String,
    pub reason: String,
    pub by: Option<String>,
    pub at: When,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Note {
    pub at: When,
    pub text: String,
    pub by: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Finding {
    pub at: When,
    pub text: String,
    pub owner: Option<String>,
    pub due: Option<String>,
    pub by: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Pause {
    pub at: When,
    pub by: String,
    /// `None` when it was never lifted.
    pub seconds: Option<f64>,
}

/// Another process took the drill up.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Resume {
    pub at: When,
    pub operator: String,
    pub host: String,
    /// The machine was started anew in between.
    pub rebooted: bool,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct System {
    pub role: String,
    pub name: String,
    pub kind: String,
    pub environment: String,
    pub address: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Evidence {
    pub journal: JournalSeal,
    pub inventory_sha256: Option<Digest>,
    pub outputs: Vec<Output>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JournalSeal {
    /// The digest of the last line, which stands for all lines before it.
    pub head: Digest,
    pub events: u64,
    pub bytes: u64,
    /// Of the whole file.
    pub sha256: Digest,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Output {
    pub step: String,
    pub attempt: u32,
    pub blob: BlobRef,
}
