//! What happened and what the operator wants. Owned types, serialised from day one: the journal's lines, the recordings,
//! and the stream that every view reads are these.

mod ask;
mod history;
mod identity;
mod outcome;
mod point;
pub mod u64_text;

use std::collections::BTreeMap;
use std::path::PathBuf;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

pub use ask::{Answer, Ask, Choice, InputKind, UNATTENDED};
pub use history::{Deed, History, Rate, Resolved, Suspect, What};
pub use identity::Identity;
pub use outcome::{Check, Facts, Failure, Measure, Outcome, Progress, Status, Unit, causes};
pub use point::{
    AofPoint, AofRange, BaseBackup, Basis, Coverage, Fork, Gap, Lsn, ParseTargetError, RecoveryPoint, RecoveryTarget,
    RedisSnapshot, RestorePoint, SystemWindow, Window, parse_time,
};

use crate::digest::Digest;

/// The version of the events' format; a journal says which it was written in.
pub const FORMAT: u32 = 1;

/// One event with its place and its time; the unit of the journal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Envelope {
    /// Counts from 0 without a hole.
    pub seq: u64,
    /// Wall time, a label.
    pub at: DateTime<Utc>,
    /// Milliseconds since the boot named by the latest `DrillOpened` or `EngineStarted`; durations come from these.
    pub boot_ms: u64,
    pub event: Event,
}

/// What a drill is run for; shown in words and colour on every screen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    Incident,
    Drill,
    Sandbox,
}

impl Mode {
    /// `INCIDENT`, `DRILL` …, as the top line shows it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Incident => "INCIDENT",
            Self::Drill => "DRILL",
            Self::Sandbox => "SANDBOX · DRILL",
        }
    }
}

/// A system of the inventory, as bound to a role of the runbook at the start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BoundSystem {
    pub name: String,
    /// `postgres` or `redis`.
    pub kind: String,
    pub environment: String,
    /// Where it answers, without user or password.
    pub address: String,
    /// Objective, in seconds.
    pub rpo_seconds: Option<u64>,
    pub rto_seconds: Option<u64>,
}

/// Everything that was fixed when the drill began. The sources are whole, so that a journal is read without other files.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Opening {
    pub format: u32,
    /// A UUID v7.
    pub drill: String,
    pub mode: Mode,
    pub service: String,
    /// Environments of the bound systems, without repetition, the strictest first.
    pub environment: String,
    pub operator: String,
    pub host: String,
    pub boot_id: String,
    pub lifeboat_version: String,
    pub runbook_source: String,
    pub runbook_digest: Digest,
    pub runbook_path: Option<PathBuf>,
    pub inventory_path: Option<PathBuf>,
    pub inventory_digest: Option<Digest>,
    /// By role of the runbook.
    pub systems: BTreeMap<String, BoundSystem>,
    /// Values given at the start; secrets are references and never stand here.
    pub variables: BTreeMap<String, String>,
    /// Objectives in force: the stricter of runbook and inventory, in seconds.
    pub rto_seconds: Option<u64>,
    pub rpo_seconds: Option<u64>,
    /// What similar runs took, in seconds: the forecast's base.
    #[serde(default)]
    pub expected_seconds: BTreeMap<String, f64>,
}

/// A blob beside the journal that holds the whole output of an attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BlobRef {
    pub digest: Digest,
    /// Bytes kept.
    pub bytes: u64,
    /// Bytes that the cap left out.
    #[serde(default)]
    pub dropped: u64,
}

/// Which of a child's streams a line came from; `Lifeboat` is our own narration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stream {
    Out,
    Err,
    Lifeboat,
}

/// One sanitised line of output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Line {
    pub stream: Stream,
    pub text: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// Every step passed or was skipped with a reason, objectives met.
    Passed,
    /// Done, but an objective was missed.
    ObjectiveMissed,
    /// A step failed and the drill ended there.
    Failed,
    /// The operator ended it.
    Aborted,
    /// Headless, and a person is needed.
    NeedsPerson,
}

impl Verdict {
    /// The contract of exit codes.
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Passed => 0,
            Self::Failed => 1,
            Self::ObjectiveMissed => 3,
            Self::NeedsPerson => 4,
            Self::Aborted => 130,
        }
    }

    pub fn word(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::ObjectiveMissed => "objective missed",
            Self::Failed => "failed",
            Self::Aborted => "aborted",
            Self::NeedsPerson => "a person is needed",
        }
    }
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Event {
    /// Always the first.
    DrillOpened {
        opening: Box<Opening>,
    },
    /// The RTO clock starts.
    Declared {
        reason: String,
    },
    /// The engine took up a journal that another process had begun.
    EngineStarted {
        boot_id: String,
        host: String,
        operator: String,
        lifeboat_version: String,
    },
    /// A step waits for a person.
    Asked {
        step: String,
        ask: Box<Ask>,
    },
    /// The person answered; secrets are masked.
    Answered {
        step: String,
        answer: Answer,
        by: String,
    },
    /// The intent: durable before the effect begins.
    StepStarted {
        step: String,
        /// Counts from 1.
        attempt: u32,
        /// The same for every retry of one effect; a step that is not idempotent never runs twice under one key.
        effect_key: String,
        /// Which system at which address the effect is for, when it has one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        target: Option<String>,
        /// True when this is the step's `undo`.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        undo: bool,
        /// True when this is the step's `probe`: it asks whether the attempt before it happened.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        probe: bool,
    },
    /// Sanitised, redacted and sampled; the whole stands in the blob.
    Output {
        step: String,
        lines: Vec<Line>,
        /// Bytes of output left out of the journal before these lines.
        #[serde(default, skip_serializing_if = "is_zero")]
        skipped_bytes: u64,
    },
    Progressed {
        step: String,
        progress: Progress,
    },
    StepFinished {
        step: String,
        attempt: u32,
        outcome: Box<Outcome>,
        output: Option<BlobRef>,
    },
    /// Who answers at a system's address: as it was first seen, and whenever that may count from now on.
    Identified {
        system: String,
        identity: Identity,
    },
    /// A retry will start after `after_ms`.
    RetryScheduled {
        step: String,
        attempt: u32,
        after_ms: u64,
    },
    StepSkipped {
        step: String,
        reason: String,
        by: String,
    },
    /// `when` was false.
    StepNotNeeded {
        step: String,
        why: String,
    },
    /// To be done again, because it or a step before it is: its earlier outcome no longer counts.
    StepReopened {
        step: String,
        because: String,
        by: String,
    },
    /// Found at resume: started, and no outcome recorded; or asked about by its probe, without success.
    StepInDoubt {
        step: String,
        attempt: u32,
        why: String,
        /// Processes of the attempt that are still alive.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        living: Vec<u32>,
    },
    /// A variable got its value.
    VariableSet {
        name: String,
        value: serde_json::Value,
    },
    Measured {
        measure: Measure,
    },
    Note {
        text: String,
        by: String,
    },
    Finding {
        text: String,
        owner: Option<String>,
        due: Option<String>,
        by: String,
    },
    Paused {
        by: String,
    },
    Unpaused {
        by: String,
    },
    /// Whether each step waits for a key even where the runbook lets it run.
    PaceSet {
        pace: Pace,
    },
    Aborted {
        reason: String,
        by: String,
    },
    /// Always the last.
    DrillFinished {
        verdict: Verdict,
    },
}

impl Event {
    /// For logs: what kind it is, and of which step.
    pub fn label(&self) -> (&'static str, Option<&str>) {
        match self {
            Self::DrillOpened { .. } => ("drill opened", None),
            Self::Declared { .. } => ("declared", None),
            Self::EngineStarted { .. } => ("engine started", None),
            Self::Asked { step, .. } => ("asked", Some(step)),
            Self::Answered { step, .. } => ("answered", Some(step)),
            Self::StepStarted { step, .. } => ("step started", Some(step)),
            Self::Output { step, .. } => ("output", Some(step)),
            Self::Progressed { step, .. } => ("progress", Some(step)),
            Self::StepFinished { step, .. } => ("step finished", Some(step)),
            Self::RetryScheduled { step, .. } => ("retry scheduled", Some(step)),
            Self::StepSkipped { step, .. } => ("step skipped", Some(step)),
            Self::StepNotNeeded { step, .. } => ("step not needed", Some(step)),
            Self::StepReopened { step, .. } => ("step reopened", Some(step)),
            Self::StepInDoubt { step, .. } => ("step in doubt", Some(step)),
            Self::VariableSet { .. } => ("variable set", None),
            Self::Identified { .. } => ("identified", None),
            Self::Measured { .. } => ("measured", None),
            Self::Note { .. } => ("note", None),
            Self::Finding { .. } => ("finding", None),
            Self::Paused { .. } => ("paused", None),
            Self::Unpaused { .. } => ("unpaused", None),
            Self::PaceSet { .. } => ("pace set", None),
            Self::Aborted { .. } => ("aborted", None),
            Self::DrillFinished { .. } => ("drill finished", None),
        }
    }
}

fn is_zero(n: &u64) -> bool {
    *n == 0
}

/// How the drill moves on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Pace {
    /// Steps start as soon as they can, but for those that ask.
    #[default]
    Flowing,
    /// Every step waits for the operator's key.
    StepByStep,
}

/// What the operator wants; the driver turns it into events or refuses it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case", deny_unknown_fields)]
pub enum Command {
    Declare { reason: String },
    Answer { step: String, answer: Answer },
    Skip { step: String, reason: String },
    Retry { step: String },
    Undo { step: String },
    Note { text: String },
    Finding { text: String, owner: Option<String>, due: Option<String> },
    Pause,
    Unpause,
    SetPace { pace: Pace },
    Abort { reason: String },
}
