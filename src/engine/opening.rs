//! How a drill begins: everything that stays fixed, gathered once.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use crate::clock::SharedClock;
use crate::drill::{DrillError, DrillState};
use crate::event::{self, BoundSystem, Envelope, Event, FORMAT, Mode};
use crate::inventory::Inventory;
use crate::journal::{DrillDir, Journal, JournalError};
use crate::runbook::Runbook;
use crate::secret::Redactor;

use super::driver::{Driver, Fixed, Handle};
use super::redact::redacted;
use super::unattended::Unattended;

#[derive(Debug, thiserror::Error)]
pub enum OpeningError {
    #[error(transparent)]
    Journal(#[from] JournalError),
    #[error(transparent)]
    Drill(#[from] DrillError),
    #[error("this drill has ended ({verdict}); nothing is left to resume")]
    Ended { verdict: &'static str },
}

/// What is needed to begin or to go on.
pub struct Opening {
    pub runbook: Runbook,
    pub inventory: Inventory,
    /// Role → system of the inventory.
    pub bindings: BTreeMap<String, String>,
    /// Where each bound system answers, without user or password, by name of the system.
    pub addresses: BTreeMap<String, String>,
    pub mode: Mode,
    pub operator: String,
    pub host: String,
    pub variables: BTreeMap<String, String>,
    /// By step id, from past runs.
    pub expected_seconds: BTreeMap<String, f64>,
    /// This program.
    pub lifeboat: PathBuf,
    pub clock: SharedClock,
    pub redactor: Redactor,
    /// `None` when a person sits at the terminal.
    pub unattended: Option<Unattended>,
}

impl Opening {
    /// Creates the journal, makes the opening durable, and returns the engine ready to run.
    pub fn begin(self, dir: DrillDir, drill: String) -> Result<(Driver, Handle), OpeningError> {
        let stamp = self.clock.now();
        let envelope = Envelope {
            seq: 0,
            at: stamp.wall,
            boot_ms: u64::try_from(stamp.boot.as_millis()).unwrap_or(u64::MAX),
            event: redacted(&self.redactor, Event::DrillOpened { opening: Box::new(self.event(drill)) }),
        };
        let state = DrillState::open(&envelope)?;
        let mut journal = Journal::create(&dir)?;
        journal.append(&envelope)?;
        Ok(Driver::new(self.fixed(dir), journal, state))
    }

    pub(super) fn fixed(self, dir: DrillDir) -> Fixed {
        Fixed {
            inventory: Arc::new(self.inventory),
            bindings: Arc::new(self.bindings),
            sources: Arc::new(self.addresses),
            dir,
            lifeboat: self.lifeboat,
            clock: self.clock,
            redactor: self.redactor,
            unattended: self.unattended,
        }
    }

    fn event(&self, drill: String) -> event::Opening {
        let seconds = |duration: Option<std::time::Duration>| duration.map(|d| d.as_secs());
        let stricter = |a: Option<u64>, b: Option<u64>| a.into_iter().chain(b).min();
        let (ours, theirs) = (self.runbook.objectives, self.inventory.objectives);
        let rpo_seconds = stricter(seconds(ours.rpo), seconds(theirs.rpo));
        let systems: BTreeMap<String, BoundSystem> = self
            .bindings
            .iter()
            .filter_map(|(role, name)| {
                let system = self.inventory.systems.get(name)?;
                let bound = BoundSystem {
                    name: name.clone(),
                    kind: system.kind().word().to_owned(),
                    environment: system.environment.clone(),
                    address: self.addresses.get(name).cloned().unwrap_or_else(|| "unknown".to_owned()),
                    rpo_seconds: seconds(system.rpo).or(rpo_seconds),
                    rto_seconds: seconds(system.rto),
                };
                Some((role.clone(), bound))
            })
            .collect();
        event::Opening {
            format: FORMAT,
            drill,
            mode: self.mode,
            service: self.inventory.service.clone(),
            environment: strictest(systems.values().map(|system| system.environment.as_str())),
            operator: self.operator.clone(),
            host: self.host.clone(),
            boot_id: self.clock.boot_id(),
            lifeboat_version: env!("CARGO_PKG_VERSION").to_owned(),
            runbook_source: self.runbook.source.to_string(),
            runbook_digest: self.runbook.digest,
            runbook_path: self.runbook.path.clone(),
            inventory_path: self.inventory.path.clone(),
            inventory_digest: Some(self.inventory.digest),
            systems,
            variables: self.variables.clone(),
            rto_seconds: stricter(seconds(ours.rto), seconds(theirs.rto)),
            rpo_seconds,
            expected_seconds: self.expected_seconds.clone(),
        }
    }
}

/// Environments without repetition, production first.
fn strictest<'a>(environments: impl Iterator<Item = &'a str>) -> String {
    let mut all: Vec<&str> = environments.collect();
    all.sort_by_key(|environment| (!environment.starts_with("prod"), *environment));
    all.dedup();
    all.join(" + ")
}
