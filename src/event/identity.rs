use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What answers at a system's address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Identity {
    /// Facts that do not follow from each other: a clone shares some of them, never all.
    Server {
        facts: BTreeMap<String, String>,
    },
    /// Nothing listens there.
    NoServer {
        why: String,
    },
    Unknown {
        why: String,
    },
}

impl Identity {
    /// The fact that changes when the same server is started again.
    pub const STARTED: &str = "started";

    /// On one line.
    pub fn words(&self) -> String {
        match self {
            Self::Server { facts } => {
                facts.iter().map(|(name, value)| format!("{name} {value}")).collect::<Vec<_>>().join(", ")
            }
            Self::NoServer { why } => format!("no server: {why}"),
            Self::Unknown { why } => format!("unknown: {why}"),
        }
    }
}
