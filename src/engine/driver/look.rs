//! Who answers is asked before something is done to a source: when the engine begins, and again right before the intent.

use std::collections::BTreeSet;

use tokio::sync::mpsc;

use super::{Driver, EngineError, MESSAGES};
use crate::action;
use crate::drill::DrillState;
use crate::event::{Ask, Event, Identity};
use crate::mutant;

use super::super::decide::Effect;
use super::super::guard;

/// An answer.
pub(super) struct Seen {
    system: String,
    /// The step that wants to start; none at the beginning.
    step: Option<usize>,
    identity: Identity,
}

/// Looks under way.
pub(super) struct Looks {
    sender: mpsc::Sender<Seen>,
    seen: mpsc::Receiver<Seen>,
    /// Steps that wait for one.
    waiting: BTreeSet<usize>,
    /// The step that was just found to have its own server before it.
    clear: Option<usize>,
}

impl Default for Looks {
    fn default() -> Self {
        let (sender, seen) = mpsc::channel(MESSAGES);
        Self { sender, seen, waiting: BTreeSet::new(), clear: None }
    }
}

impl Looks {
    pub async fn next(&mut self) -> Option<Seen> {
        self.seen.recv().await
    }
}

/// The system whose source a step changes.
fn changed(state: &DrillState, step: usize) -> Option<String> {
    let step = &state.runbook.steps[step];
    let role = step.system.as_ref().filter(|_| action::changes_source(step))?;
    state.opening.systems.get(role).map(|system| system.name.clone())
}

impl Driver {
    /// Asks every source that the drill may change and that was never seen.
    pub(super) fn look_around(&mut self) {
        let sources: BTreeSet<String> = self.feed.read(|state| {
            let all = (0..state.steps.len()).filter_map(|step| changed(state, step));
            all.filter(|system| !state.identities.contains_key(system)).collect()
        });
        sources.into_iter().for_each(|system| self.look(system, None));
    }

    fn look(&self, system: String, step: Option<usize>) {
        let (inventory, redactor, sender) =
            (self.fixed.inventory.clone(), self.fixed.redactor.clone(), self.looks.sender.clone());
        tokio::spawn(async move {
            let identity = action::identify(&inventory, &system, &redactor).await;
            // The driver is gone only when the program ends.
            let _ = sender.send(Seen { system, step, identity }).await;
        });
    }

    /// Whether the step waits for an answer first.
    pub(super) fn looks_first(&mut self, step: usize) -> bool {
        if self.looks.clear.take_if(|clear| *clear == step).is_some() || mutant::removes("2c") {
            return false;
        }
        let Some(system) = self.feed.read(|state| changed(state, step)) else { return false };
        if self.looks.waiting.insert(step) {
            self.look(system, Some(step));
        }
        true
    }

    /// What can be done now, without the steps that wait for an answer.
    pub(super) fn without_waiting(&self, effects: Vec<Effect>) -> Vec<Effect> {
        let waits = |effect: &Effect| matches!(effect, Effect::Start { step } if self.looks.waiting.contains(step));
        effects.into_iter().filter(|effect| !waits(effect)).collect()
    }

    /// An answer came: the step starts, or a person is told what is not as it was.
    pub(super) fn seen(&mut self, seen: Seen) -> Result<(), EngineError> {
        let Seen { system, step, identity } = seen;
        let found = self.feed.read(|state| guard::recognise(state, &system, &identity));
        if found.counts_from_now {
            self.emit_one(Event::Identified { system, identity })?;
        }
        let Some(step) = step else { return Ok(()) };
        self.looks.waiting.remove(&step);
        match found.refusal {
            None => {
                // Only if it still wants to: it may have been skipped, or the drill stopped.
                self.looks.clear = Some(step);
                self.carry_out()?;
                self.looks.clear = None;
                Ok(())
            }
            Some(failure) => match self.feed.read(|state| guard::still_wants_to_start(state, step)) {
                true => self.ask(step, Ask::AfterFailure { failure }),
                false => Ok(()),
            },
        }
    }
}
