//! What a drill in the sandbox needs: the shipped runbook, bound to the sandbox's inventory.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::error::SandboxError;
use super::layout::Layout;
use super::servers::{postgres, redis};
use super::status::{self, State};
use super::{inventory, keys};

/// The runbook as it is shipped.
const RUNBOOK: &str = include_str!("../../runbooks/restore-to-a-point.toml");
const RUNBOOK_NAME: &str = "runbooks/restore-to-a-point.toml";

/// Everything that `lifeboat run` would be told on its command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DrillSetup {
    /// For messages.
    pub runbook_name: &'static str,
    pub runbook_source: &'static str,
    pub inventory: PathBuf,
    pub environment: &'static str,
    /// Role of the runbook → system of the inventory.
    pub bindings: BTreeMap<String, String>,
    pub variables: BTreeMap<String, String>,
    /// Of the operator; without a passphrase.
    pub signing_key: PathBuf,
    /// Accepts the key for `principal`.
    pub allowed_signers: PathBuf,
    pub principal: &'static str,
    /// The program for `restore_command`: the servers' user can execute it.
    pub lifeboat: PathBuf,
}

/// Looks at the sandbox and says what to run. An absent or unfinished one is an error.
pub fn prepare_drill(layout: &Layout) -> Result<DrillSetup, SandboxError> {
    let status = status::look(layout)?;
    match status.state {
        State::Absent => return Err(SandboxError::Absent { dir: layout.dir().to_owned() }),
        State::Unfinished | State::Healthy => return Err(SandboxError::Unfinished { dir: layout.dir().to_owned() }),
        State::Broken | State::Touched => {}
    }
    let bindings = [("db", postgres::NAME), ("cache", redis::NAME)];
    Ok(DrillSetup {
        runbook_name: RUNBOOK_NAME,
        runbook_source: RUNBOOK,
        inventory: status.inventory,
        environment: inventory::ENVIRONMENT,
        bindings: bindings.map(|(role, system)| (role.to_owned(), system.to_owned())).into(),
        variables: status.variables,
        signing_key: status.signing_key,
        allowed_signers: status.allowed_signers,
        principal: keys::PRINCIPAL,
        lifeboat: status.lifeboat,
    })
}
