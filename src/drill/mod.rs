//! The drill as a pure fold of its events: [`DrillState::apply`] does no I/O and reads no clock.
//!
//! Times within a drill are *elapsed*: time since the drill was opened, from boot time, so that neither a stepped wall
//! clock nor a time zone can bend them. Live views pass the elapsed time of now, a replay passes that of its player.

mod clocks;
mod forecast;
mod step;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};

use crate::clock::Stamp;
use crate::event::{Ask, Envelope, Event, FORMAT, Identity, Measure, Opening, Pace, Status, Verdict};
use crate::mutant;
use crate::runbook::{self, OnFailure, Runbook, Step};

pub use clocks::{Budget, Exposure, Rpo, Split};
pub use forecast::Forecast;
pub use step::{Attempt, OutputTail, PendingAsk, StepState, StepStatus};

/// Time since the drill was opened.
pub type Elapsed = Duration;

/// A moment of the drill: wall time as a label, elapsed time for arithmetic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    pub wall: DateTime<Utc>,
    pub elapsed: Elapsed,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    pub at: Moment,
    pub text: String,
    pub by: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    pub at: Moment,
    pub text: String,
    pub owner: Option<String>,
    pub due: Option<String>,
    pub by: String,
}

#[derive(Debug, thiserror::Error)]
pub enum DrillError {
    #[error("the journal does not begin with the opening of a drill")]
    NoOpening,
    #[error("the journal was written in format {found}; this program reads format {FORMAT}")]
    Format { found: u32 },
    #[error("the runbook inside the journal cannot be read: {0}")]
    Runbook(String),
}

/// Everything that is known of a drill.
#[derive(Debug, Clone)]
pub struct DrillState {
    pub opening: Arc<Opening>,
    pub runbook: Arc<Runbook>,
    /// The next envelope's number.
    pub next_seq: u64,
    pub opened: Moment,
    /// The newest envelope's moment.
    pub latest: Moment,
    pub declared: Option<Moment>,
    pub declared_reason: Option<String>,
    /// Parallel to `runbook.steps`.
    pub steps: Vec<StepState>,
    pub variables: BTreeMap<String, serde_json::Value>,
    pub measures: Vec<Measure>,
    /// Who answered at a system's address, and when that was seen.
    pub identities: BTreeMap<String, (Moment, Identity)>,
    pub notes: Vec<Note>,
    pub findings: Vec<Finding>,
    pub paused: Option<Moment>,
    pub pace: Pace,
    /// Why the drill is to end without going on: the operator's words, or the step that stopped it.
    pub stopping: Option<Stopping>,
    pub finished: Option<(Moment, Verdict)>,
    /// Who holds the journal now.
    pub operator: String,
    /// Times the engine was started again on this journal.
    pub resumes: u32,
    /// True when a reboot lies within the drill: that part of the time comes from wall clocks.
    pub clock_uncertain: bool,
    timeline: Timeline,
    split: clocks::Accumulator,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stopping {
    Aborted { reason: String },
    Failed { step: String },
}

/// Turns boot time into elapsed time, across reboots too.
#[derive(Debug, Clone)]
struct Timeline {
    boot_id: String,
    reference_boot: Duration,
    reference_elapsed: Elapsed,
}

impl DrillState {
    /// Begins a drill from its first envelope; the runbook is the one inside it.
    pub fn open(envelope: &Envelope) -> Result<Self, DrillError> {
        let Event::DrillOpened { opening } = &envelope.event else { return Err(DrillError::NoOpening) };
        if opening.format != FORMAT {
            return Err(DrillError::Format { found: opening.format });
        }
        let name =
            opening.runbook_path.as_ref().map_or_else(|| "runbook".to_owned(), |path| path.display().to_string());
        let runbook = runbook::parse(&opening.runbook_source, &name)
            .map_err(|problems| DrillError::Runbook(problems.to_string()))?;
        Ok(Self::with_runbook(envelope, opening, Arc::new(runbook)))
    }

    fn with_runbook(envelope: &Envelope, opening: &Opening, runbook: Arc<Runbook>) -> Self {
        let opened = Moment { wall: envelope.at, elapsed: Duration::ZERO };
        let mut variables: BTreeMap<String, serde_json::Value> = runbook
            .variables
            .iter()
            .map(|(name, variable)| (name.clone(), variable.default.clone().unwrap_or_default().into()))
            .collect();
        variables.extend(opening.variables.iter().map(|(name, value)| (name.clone(), value.clone().into())));
        Self {
            steps: runbook.steps.iter().map(|_| StepState::default()).collect(),
            runbook,
            next_seq: envelope.seq + 1,
            opened,
            latest: opened,
            declared: None,
            declared_reason: None,
            variables,
            measures: Vec::new(),
            identities: BTreeMap::new(),
            notes: Vec::new(),
            findings: Vec::new(),
            paused: None,
            pace: Pace::default(),
            stopping: None,
            finished: None,
            operator: opening.operator.clone(),
            resumes: 0,
            clock_uncertain: false,
            timeline: Timeline {
                boot_id: opening.boot_id.clone(),
                reference_boot: Duration::from_millis(envelope.boot_ms),
                reference_elapsed: Duration::ZERO,
            },
            split: clocks::Accumulator::default(),
            opening: Arc::new(opening.clone()),
        }
    }

    /// The elapsed time of a stamp of this boot.
    pub fn elapsed_at(&self, stamp: Stamp) -> Elapsed {
        self.timeline.reference_elapsed + stamp.boot.saturating_sub(self.timeline.reference_boot)
    }

    /// Folds one event in. Events of unknown steps are ignored: the journal's reader has judged the format before.
    pub fn apply(&mut self, envelope: &Envelope) {
        if let Event::EngineStarted { boot_id, operator, .. } = &envelope.event {
            self.resumed(envelope, boot_id, operator);
        }
        let boot = Duration::from_millis(envelope.boot_ms);
        let elapsed = self.timeline.reference_elapsed + boot.saturating_sub(self.timeline.reference_boot);
        let elapsed = if mutant::removes("13") { self.by_wall(envelope) } else { elapsed };
        let at = Moment { wall: envelope.at, elapsed: elapsed.max(self.latest.elapsed) };
        let activity = self.activity();
        self.split.account(activity, self.declared.map(|m| m.elapsed), self.latest.elapsed, at.elapsed);
        self.next_seq = envelope.seq + 1;
        self.latest = at;
        self.fold(&envelope.event, at);
    }

    /// As the wall clock would have it.
    fn by_wall(&self, envelope: &Envelope) -> Elapsed {
        self.latest.elapsed + (envelope.at - self.latest.wall).to_std().unwrap_or_default()
    }

    fn resumed(&mut self, envelope: &Envelope, boot_id: &str, operator: &str) {
        self.resumes += 1;
        self.operator = operator.to_owned();
        if self.timeline.boot_id != boot_id {
            // Boot time does not reach across a reboot; the wall clock is all there is, and that is said.
            self.clock_uncertain = !mutant::removes("13b");
            self.timeline = Timeline {
                boot_id: boot_id.to_owned(),
                reference_boot: Duration::from_millis(envelope.boot_ms),
                reference_elapsed: self.by_wall(envelope),
            };
        }
    }

    fn fold(&mut self, event: &Event, at: Moment) {
        match event {
            Event::DrillOpened { .. } | Event::EngineStarted { .. } => {}
            Event::Declared { reason } => {
                self.declared = Some(at);
                self.declared_reason = Some(reason.clone());
            }
            Event::VariableSet { name, value } => {
                self.variables.insert(name.clone(), value.clone());
            }
            Event::Identified { system, identity } => {
                self.identities.insert(system.clone(), (at, identity.clone()));
            }
            Event::Measured { measure } => self.measures.push(measure.clone()),
            Event::Note { text, by } => self.notes.push(Note { at, text: text.clone(), by: by.clone() }),
            Event::Finding { text, owner, due, by } => self.findings.push(Finding {
                at,
                text: text.clone(),
                owner: owner.clone(),
                due: due.clone(),
                by: by.clone(),
            }),
            Event::Paused { .. } => self.paused = Some(at),
            Event::Unpaused { .. } => self.paused = None,
            Event::PaceSet { pace } => self.pace = *pace,
            Event::Aborted { reason, .. } => self.stopping = Some(Stopping::Aborted { reason: reason.clone() }),
            Event::DrillFinished { verdict } => self.finished = Some((at, *verdict)),
            Event::Asked { step, .. }
            | Event::Answered { step, .. }
            | Event::StepStarted { step, .. }
            | Event::Output { step, .. }
            | Event::Progressed { step, .. }
            | Event::StepFinished { step, .. }
            | Event::RetryScheduled { step, .. }
            | Event::StepSkipped { step, .. }
            | Event::StepNotNeeded { step, .. }
            | Event::StepReopened { step, .. }
            | Event::StepInDoubt { step, .. } => {
                let Some(index) = self.runbook.index_of(step) else { return };
                self.steps[index].fold(event, at);
                self.after_step(index, event);
            }
        }
    }

    /// What a step's event means for the drill as a whole.
    fn after_step(&mut self, index: usize, event: &Event) {
        match event {
            Event::StepFinished { outcome, .. } => {
                self.measures.extend(outcome.measures.iter().cloned());
                let failed = outcome.status != Status::Passed && !self.steps[index].undoing;
                if failed && self.runbook.steps[index].on_failure == OnFailure::Stop && self.retries_left(index) == 0 {
                    self.stop_failed(index);
                }
            }
            Event::Answered { answer: crate::event::Answer::Stop, .. } => self.stop_failed(index),
            _ => {}
        }
    }

    fn stop_failed(&mut self, index: usize) {
        let step = self.runbook.steps[index].id.clone();
        self.stopping.get_or_insert(Stopping::Failed { step });
    }

    /// Automatic retries that a failed step still has.
    pub fn retries_left(&self, index: usize) -> u32 {
        self.runbook.steps[index].retry.times.saturating_sub(self.steps[index].automatic_retries)
    }

    pub fn step(&self, id: &str) -> Option<(&Step, &StepState)> {
        let index = self.runbook.index_of(id)?;
        Some((&self.runbook.steps[index], &self.steps[index]))
    }

    /// A variable as text; structured values as JSON.
    pub fn variable(&self, name: &str) -> Option<String> {
        self.variables.get(name).map(|value| match value {
            serde_json::Value::String(text) => text.clone(),
            other => other.to_string(),
        })
    }

    /// A placeholder's value: a role's system, a built-in, or a variable.
    pub fn lookup(&self, name: &str) -> Option<String> {
        if let Some(system) = self.opening.systems.get(name) {
            return Some(system.name.clone());
        }
        match name {
            "service" => Some(self.opening.service.clone()),
            "drill" => Some(self.opening.drill.clone()),
            "operator" => Some(self.operator.clone()),
            _ => self.variable(name),
        }
    }

    /// A text of the runbook with its placeholders filled in; unknown ones stay as they are.
    pub fn expand(&self, text: &str) -> String {
        runbook::placeholders::expand(text, |name| self.lookup(name)).unwrap_or_else(|_| text.to_owned())
    }

    /// Steps that an attempt is running of right now.
    pub fn running(&self) -> impl Iterator<Item = usize> + '_ {
        self.indices(|state| state.status == StepStatus::Running)
    }

    /// Steps that wait for a person, in the runbook's order.
    pub fn waiting(&self) -> impl Iterator<Item = usize> + '_ {
        self.indices(|state| state.ask.is_some())
    }

    fn indices(&self, test: impl Fn(&StepState) -> bool) -> impl Iterator<Item = usize> {
        self.steps.iter().enumerate().filter(move |(_, state)| test(state)).map(|(index, _)| index)
    }

    /// The step that the operator should look at: one that waits for them, else one that failed, else one that runs,
    /// else the next.
    pub fn focus(&self) -> usize {
        self.waiting()
            .next()
            .or_else(|| self.indices(|s| matches!(s.status, StepStatus::Failed | StepStatus::InDoubt)).next())
            .or_else(|| self.running().next())
            .or_else(|| self.indices(|s| !s.status.has_ended()).next())
            .unwrap_or_else(|| self.steps.len().saturating_sub(1))
    }

    /// Whether every step that `index` waits for has ended well enough.
    pub fn is_ready(&self, index: usize) -> bool {
        let step = &self.runbook.steps[index];
        step.after.iter().all(|&before| {
            let status = &self.steps[before].status;
            status.lets_pass()
                || (*status == StepStatus::Failed
                    && self.runbook.steps[before].on_failure == OnFailure::Continue
                    && self.retries_left(before) == 0)
        })
    }

    /// Whether every step has ended and nothing runs.
    pub fn all_ended(&self) -> bool {
        self.steps.iter().enumerate().all(|(index, state)| {
            // Whether to undo it is being asked, or was agreed to.
            let undo = state.gate_open || matches!(state.ask.as_ref().map(|a| &*a.ask), Some(Ask::TypeName { .. }));
            (state.status.lets_pass() && !undo)
                || (state.status == StepStatus::Failed
                    && self.runbook.steps[index].on_failure == OnFailure::Continue
                    && self.retries_left(index) == 0)
        })
    }

    fn activity(&self) -> clocks::Activity {
        let working = self.steps.iter().any(|s| {
            (s.status == StepStatus::Running && s.ask.is_none()) || matches!(s.status, StepStatus::Retrying { .. })
        });
        match working {
            true => clocks::Activity::Machine,
            false => clocks::Activity::Human,
        }
    }

    /// The verdict that the drill would have if it ended now.
    pub fn verdict(&self) -> Verdict {
        match &self.stopping {
            Some(Stopping::Aborted { .. }) => return Verdict::Aborted,
            Some(Stopping::Failed { .. }) => return Verdict::Failed,
            None => {}
        }
        if self.steps.iter().any(|s| matches!(s.status, StepStatus::Failed | StepStatus::InDoubt)) {
            return Verdict::Failed;
        }
        let late =
            self.rto_target().is_some_and(|target| self.rto(self.latest.elapsed).is_some_and(|rto| rto > target));
        let lossy = self.rpos().iter().any(|rpo| rpo.met() == Some(false));
        if late || lossy { Verdict::ObjectiveMissed } else { Verdict::Passed }
    }

    /// The question that the focused step waits on.
    pub fn ask_of(&self, index: usize) -> Option<&Ask> {
        self.steps.get(index)?.ask.as_ref().map(|pending| &*pending.ask)
    }
}

#[cfg(test)]
mod tests;
