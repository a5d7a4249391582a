//! What a person is asked, and what they answered.

use serde::{Deserialize, Serialize};

use super::{Failure, RecoveryPoint, Window};

/// How `by` begins where nobody was there; in brackets follows what the answer was taken from.
pub const UNATTENDED: &str = "unattended";

/// A question that a step waits on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Ask {
    /// May it start? `sentence` says what Enter will do.
    Go {
        sentence: String,
    },
    /// Something only a person can see or do.
    Confirm {
        sentence: String,
    },
    /// It destroys something: the operator types `name`. `loss` says in a sentence what will be lost.
    TypeName {
        name: String,
        sentence: String,
        loss: String,
    },
    Input {
        prompt: String,
        variable: String,
        default: Option<String>,
        input: InputKind,
    },
    Choose {
        prompt: String,
        options: Vec<Choice>,
        default: Option<String>,
    },
    /// The recovery point; `suggested` is where the cursor begins.
    RecoveryPoint {
        window: Box<Window>,
        suggested: Option<RecoveryPoint>,
    },
    /// An attempt failed: retry, skip with a reason, or stop.
    AfterFailure {
        failure: Failure,
    },
    /// Started before a crash, without an outcome: repeat it, take it as done, or stop.
    InDoubt {
        why: String,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum InputKind {
    Text,
    /// A moment with an offset.
    Time,
    Number,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Choice {
    pub value: String,
    pub label: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Answer {
    /// To `Go` and `Confirm`.
    Yes,
    /// To `Confirm`: it is not so.
    No { reason: String },
    /// To `TypeName`: what was typed.
    Typed { name: String },
    /// To `Input`.
    Text { text: String },
    /// To `Choose`: a value.
    Chosen { value: String },
    /// To `RecoveryPoint`.
    Point { point: RecoveryPoint },
    /// To `AfterFailure`: again. To `InDoubt`: repeat it.
    Retry,
    /// To `InDoubt`: it was done.
    TakenAsDone { reason: String },
    /// To `AfterFailure` and `InDoubt`: the drill ends as failed.
    Stop,
}
