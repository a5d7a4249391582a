//! A step as written: the keys that every kind has.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

use super::Kind;
use crate::document::schema::Tagged;
use crate::document::{Argv, Id, Lasting, Name, Scalar, Text};

pub type Step = Tagged<Common, Kind>;

#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("x-noun" = "this step"))]
pub struct Common {
    /// Unique in the runbook: lower-case letters, digits, `-` and `_`.
    pub id: Id,
    /// What people call it; the id made readable when absent.
    pub title: Option<Text>,
    /// What the person at the keyboard should know, in Markdown. May hold `{placeholders}`.
    pub text: Option<Text>,
    /// The role of the system it works on. Not needed when only one role has the right kind.
    pub system: Option<String>,
    /// Ids of the steps that must have ended well before it starts. Without it, every step written before.
    pub needs: Option<Vec<String>>,
    /// Who should do it.
    pub role: Option<Text>,
    /// How many people besides the operator must approve; shown and recorded.
    #[serde(default)]
    pub approvals: u32,
    /// It is ended after so long.
    pub timeout: Option<Lasting>,
    /// How often to try again, by itself, before a person is asked.
    pub retry: Option<Retry>,
    /// What happens when it fails: ask a person (as when absent), stop the drill, or continue.
    pub on_failure: Option<OnFailure>,
    /// The way back: `true` for the kind's own, or a command.
    pub undo: Option<Undo>,
    /// It runs only when this holds; otherwise it is not needed.
    pub when: Option<When>,
    /// What its facts must be.
    #[serde(default)]
    pub expect: Vec<Expect>,
    /// Facts that become variables for later steps.
    #[serde(default)]
    pub capture: Vec<Capture>,
    /// May it run again after a crash without asking?
    pub idempotent: Option<bool>,
    /// A command that tells, by exit code 0, that the effect has happened; asked after a crash, before a person is.
    pub probe: Option<Argv>,
    /// What will be lost, in a sentence with `{placeholders}`. The operator types the system's name before it starts.
    pub destroys: Option<Text>,
    /// Waits for a key before it starts, even when it destroys nothing.
    #[serde(default)]
    pub ask: bool,
    /// A green run stops the RTO clock, when all such steps are green. True for `smoke.*` when absent.
    pub proves_service: Option<bool>,
}

#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("x-hint" = "write it as retry = { times = 3, delay = \"2s\" }"))]
pub struct Retry {
    /// Tries beyond the first.
    #[schemars(range(min = 1))]
    pub times: u32,
    /// Before the first retry; doubles each time. One second when absent.
    pub delay: Option<Lasting>,
    /// The delay grows up to this; one minute when absent.
    pub max_delay: Option<Lasting>,
}

#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum OnFailure {
    Ask,
    Stop,
    Continue,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Undo {
    BuiltIn,
    Command(Argv),
}

impl<'de> Deserialize<'de> for Undo {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match serde_json::Value::deserialize(deserializer)? {
            serde_json::Value::Bool(true) => Ok(Self::BuiltIn),
            other => serde_json::from_value(other).map(Self::Command).map_err(D::Error::custom),
        }
    }
}

impl JsonSchema for Undo {
    fn schema_name() -> Cow<'static, str> {
        "Undo".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let argv = generator.subschema_for::<Argv>();
        json_schema!({
            "anyOf": [{ "type": "boolean", "const": true }, argv],
            "x-hint": "undo = true is the kind's own way back; undo = [\"program\", \"argument\"] runs a command"
        })
    }
}

#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("x-hint" = "write it as when = { variable = \"name\", is = \"set\" }"))]
pub struct When {
    pub variable: String,
    /// Whether it has a value.
    pub is: Option<WhenIs>,
    /// Its value, compared as text.
    pub equals: Option<Scalar>,
    /// Any value but this.
    pub not: Option<Scalar>,
}

#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum WhenIs {
    Set,
    Unset,
}

#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("x-noun" = "this expectation"))]
pub struct Expect {
    /// The fact.
    pub field: Option<Text>,
    /// The column of the first row, in SQL steps: another word for `field`.
    pub column: Option<Text>,
    pub at_least: Option<f64>,
    pub at_most: Option<f64>,
    /// May hold `{placeholders}`.
    pub equals: Option<Scalar>,
    /// May hold `{placeholders}`.
    pub not: Option<Scalar>,
    /// May hold `{placeholders}`.
    pub contains: Option<String>,
}

#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("x-noun" = "this capture"))]
pub struct Capture {
    /// The fact.
    pub field: Option<Text>,
    /// The column of the first row, in SQL steps: another word for `field`.
    pub column: Option<Text>,
    /// The variable that gets its value.
    #[serde(rename = "as")]
    pub variable: Name,
}
