//! What an operator asks for.

use super::super::guard;
use super::{Driver, EngineError, Work};
use crate::drill::StepStatus;
use crate::event::{Answer, Command, Event};

impl Driver {
    pub(super) fn command(&mut self, command: Command, by: String) -> Result<(), EngineError> {
        if let Err(refusal) = self.feed.read(|state| guard::admits(state, &command)) {
            tracing::warn!(?command, %refusal, "refused");
            // Nobody listens to refusals in a headless run; the log has them.
            let _ = self.refusals.send(refusal.to_string());
            return Ok(());
        }
        match command {
            Command::Declare { reason } => self.emit_one(Event::Declared { reason }),
            Command::Answer { step, answer } => self.answer(&step, answer, &by),
            Command::Skip { step, reason } => self.skip(step, reason, by),
            Command::Retry { step } => self.retry(step, by),
            Command::Undo { step } => match self.feed.read(|state| state.runbook.index_of(&step)) {
                Some(index) => match self.feed.read(|state| guard::before_undo(state, index)) {
                    Some(ask) => self.ask(index, ask),
                    None => self.start(index, Work::Undo),
                },
                None => Ok(()),
            },
            Command::Note { text } => self.emit_one(Event::Note { text, by }),
            Command::Finding { text, owner, due } => self.emit_one(Event::Finding { text, owner, due, by }),
            Command::Pause => self.emit_one(Event::Paused { by }),
            Command::Unpause => self.emit_one(Event::Unpaused { by }),
            Command::SetPace { pace } => self.emit_one(Event::PaceSet { pace }),
            Command::Abort { reason } => self.emit_one(Event::Aborted { reason, by }),
        }
    }

    pub(super) fn answer(&mut self, step: &str, answer: Answer, by: &str) -> Result<(), EngineError> {
        let Some(index) = self.feed.read(|state| state.runbook.index_of(step)) else { return Ok(()) };
        self.emit_one(Event::Answered { step: step.to_owned(), answer: answer.clone(), by: by.to_owned() })?;
        let now = self.elapsed();
        if let Some(running) = self.running.get_mut(&index) {
            if let (Some(deadline), Some(asked)) = (&mut running.deadline, running.asked_at) {
                *deadline += now.saturating_sub(asked);
            }
            running.asked_at = None;
            if let Some(reply) = running.reply.take() {
                // An action that stopped listening has an outcome on its way.
                let _ = reply.send(answer);
            }
        }
        Ok(())
    }

    fn skip(&mut self, step: String, reason: String, by: String) -> Result<(), EngineError> {
        let Some(index) = self.feed.read(|state| state.runbook.index_of(&step)) else { return Ok(()) };
        if let Some(running) = self.running.get_mut(&index) {
            running.skip = Some(reason);
            running.cancel.cancel();
            running.reply = None;
            return Ok(());
        }
        self.emit_one(Event::StepSkipped { step, reason, by })
    }

    /// A failed step is tried again; one that had ended well is opened again, and with it all that came after.
    fn retry(&mut self, step: String, by: String) -> Result<(), EngineError> {
        let reopened = self.feed.read(|state| {
            let index = state.runbook.index_of(&step)?;
            let ended_well = matches!(
                state.steps[index].status,
                StepStatus::Passed | StepStatus::Skipped { .. } | StepStatus::NotNeeded { .. }
            );
            ended_well.then(|| guard::with_dependents(state, index))
        });
        match reopened {
            None => self.answer(&step, Answer::Retry, &by),
            Some(steps) => self.emit(
                steps
                    .into_iter()
                    .map(|reopened| Event::StepReopened {
                        because: if reopened == step {
                            "to be done again".into()
                        } else {
                            format!("{step} is done again")
                        },
                        step: reopened,
                        by: by.clone(),
                    })
                    .collect(),
            ),
        }
    }
}
