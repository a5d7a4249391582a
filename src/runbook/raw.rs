//! A runbook as written: dumb types that serde fills, and from which the schema comes. A comment on a field is what an
//! editor shows for the key.

mod kind;
mod step;

use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::document::{Id, Lasting, Text};

pub use kind::{Aof, Input, Kind, Method, On, Table};
pub use step::{Capture, Common, Expect, OnFailure, Retry, Step, Undo, When, WhenIs};

/// A runbook: what to do, by whom, in which order. To what it is done stands in the inventory, `lifeboat.toml`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("x-noun" = "this runbook"))]
pub struct File {
    /// The version of this format: 1.
    #[schemars(extend("const" = 1))]
    pub format: u32,
    /// What the runbook is called on the command line: lower-case letters, digits, `-` and `_`.
    pub id: Id,
    /// What people call it.
    pub title: Text,
    /// Who keeps it up to date.
    pub owner: Option<Text>,
    /// Counts the changes; reports name it.
    #[serde(default = "one")]
    pub revision: u32,
    /// When to use it, in Markdown.
    pub description: Option<String>,
    /// Roles and their kinds; each is bound to a system of the inventory at the start.
    #[serde(default)]
    #[schemars(with = "std::collections::BTreeMap<String, SystemKind>", extend("propertyNames" = { "format": "id" }))]
    pub systems: IndexMap<String, SystemKind>,
    /// Values given at the start, by `--var name=value` or by the operator.
    #[serde(default)]
    #[schemars(with = "std::collections::BTreeMap<String, Variable>", extend("propertyNames" = { "format": "name" }))]
    pub variables: IndexMap<String, Variable>,
    /// The time the service may be away, and the data it may lose. The stricter of this and the inventory's is in force.
    #[serde(default)]
    pub objectives: Objectives,
    /// People to call, beside those of the inventory.
    #[serde(default)]
    pub contacts: Vec<Contact>,
    /// Programs that must be on the PATH.
    #[serde(default)]
    pub tools: Vec<Text>,
    /// Headings, each with its own clock, and the steps under them.
    #[schemars(length(min = 1), extend("x-hint" = "a runbook has at least one [[phases]] with a title and steps"))]
    pub phases: Vec<Phase>,
}

fn one() -> u32 {
    1
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum SystemKind {
    Postgres,
    Redis,
}

impl From<SystemKind> for super::SystemKind {
    fn from(raw: SystemKind) -> Self {
        match raw {
            SystemKind::Postgres => Self::Postgres,
            SystemKind::Redis => Self::Redis,
        }
    }
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("x-noun" = "this variable"))]
pub struct Variable {
    /// What it is for; shown where it is asked.
    pub description: Option<Text>,
    /// Its value when nothing else is said.
    pub default: Option<String>,
    /// Asked for at the start when it has no value. One that is not required is then empty.
    #[serde(default)]
    pub required: bool,
}

#[derive(Debug, Clone, Copy, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Objectives {
    /// Recovery time objective: how long the service may be away.
    pub rto: Option<Lasting>,
    /// Recovery point objective: how much of the latest data may be lost, in time.
    pub rpo: Option<Lasting>,
}

impl From<Objectives> for super::Objectives {
    fn from(raw: Objectives) -> Self {
        Self { rto: raw.rto.map(|lasting| lasting.0), rpo: raw.rpo.map(|lasting| lasting.0) }
    }
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("x-noun" = "this contact"))]
pub struct Contact {
    /// What they decide: `incident commander`, `database owner`.
    pub role: Text,
    pub name: Text,
    pub phone: Option<Text>,
    /// How to page them: `pagerduty:data-platform`.
    pub page: Option<Text>,
    /// How long to wait before the next contact is called.
    pub escalate_after: Option<Lasting>,
}

impl From<Contact> for super::Contact {
    fn from(raw: Contact) -> Self {
        Self {
            role: raw.role.0,
            name: raw.name.0,
            phone: raw.phone.map(|text| text.0),
            page: raw.page.map(|text| text.0),
            escalate_after: raw.escalate_after.map(|lasting| lasting.0),
        }
    }
}

/// A heading and a clock.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("x-noun" = "this phase"))]
pub struct Phase {
    pub title: Text,
    /// No step of it starts before every earlier step has ended.
    #[serde(default)]
    pub barrier: bool,
    /// In the order in which they run, unless their `needs` say otherwise.
    #[schemars(length(min = 1), extend("x-hint" = "give the phase a [[phases.steps]], or take it out"))]
    pub steps: Vec<Step>,
}
