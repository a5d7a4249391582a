//! Answers to what a step asks, and the remedies for one that failed.

use crate::drill::StepStatus;
use crate::event::{Answer, Ask, Command};

use super::super::keymap::Action;
use super::{App, Effect, Entry, Overlay, Purpose, Question};

impl App {
    /// The keys of the question in the middle.
    pub(super) fn answer(&mut self, action: Action, effects: &mut Vec<Effect>) {
        if let Some(Overlay::Question(question)) = self.overlays.last() {
            let question = *question;
            return self.agree(question, effects);
        }
        if self.state.declared.is_none() {
            return self.open(Entry::reason(Purpose::Declare));
        }
        let step = self.shown();
        let Some(ask) = self.ask().cloned() else { return };
        match (ask, action) {
            (Ask::Go { .. }, Action::Do) | (Ask::Confirm { .. }, Action::Yes) if self.is_armed() => {
                self.send_answer(step, Answer::Yes, effects);
            }
            (Ask::Confirm { .. }, Action::No) => self.open(Entry::reason(Purpose::No { step })),
            (Ask::TypeName { name, .. }, Action::Do) => self.open(Entry::type_name(step, name)),
            (Ask::Input { prompt, default, input, .. }, Action::Do) => {
                self.open(Entry::answer(step, prompt, default, input));
            }
            (Ask::Choose { options, .. }, Action::Choice(number)) if usize::from(number) <= options.len() => {
                self.choice = (step, usize::from(number) - 1);
            }
            (Ask::Choose { options, .. }, Action::Do) if self.is_armed() => {
                if let Some(option) = options.get(self.choice.1) {
                    self.send_answer(step, Answer::Chosen { value: option.value.clone() }, effects);
                }
            }
            (Ask::RecoveryPoint { .. }, Action::Do) if !self.is_sent() => match self.picker.as_ref() {
                Some(picker) if picker.preview.is_ok() => self.overlays.push(Overlay::Question(Question::Point)),
                _ => self.notice = Some("this point is not possible; the reason stands below the time line".to_owned()),
            },
            (Ask::InDoubt { .. }, Action::TakeAsDone) => self.open(Entry::reason(Purpose::Done { step })),
            _ => {}
        }
    }

    /// `y` to a question of our own.
    fn agree(&mut self, question: Question, effects: &mut Vec<Effect>) {
        self.overlays.pop();
        match question {
            Question::Point => {
                let step = self.shown();
                let point = self.picker.as_ref().and_then(|picker| picker.preview.as_ref().ok());
                if let Some(point) = point.map(|preview| preview.point.clone()) {
                    self.send_answer(step, Answer::Point { point }, effects);
                }
            }
            Question::Stop { step } => match self.state.ask_of(step) {
                Some(Ask::AfterFailure { .. } | Ask::InDoubt { .. }) => {
                    self.send_answer(step, Answer::Stop, effects);
                }
                _ => self.notice = Some("the step asks nothing any more".to_owned()),
            },
            Question::Undo { step } => effects.push(Effect::Send(Command::Undo { step: self.id(step) })),
            Question::Again { step } => {
                effects.push(Effect::Send(Command::Retry { step: self.id(step) }));
                // The drill goes on from there, and the view with it.
                (self.selected, self.scroll) = (None, None);
            }
            Question::Leave | Question::Interrupt => {}
        }
    }

    /// Retry, skip, undo, stop.
    pub(super) fn remedy(&mut self, action: Action, effects: &mut Vec<Effect>) {
        let step = self.shown();
        if self.state.steps.get(step).is_none() {
            return;
        }
        if !self.can(action) {
            self.notice = Some(self.why_not(action, step));
            return;
        }
        match (action, self.ask()) {
            (Action::Retry, Some(Ask::AfterFailure { .. } | Ask::InDoubt { .. })) if !self.is_sent() => {
                self.send_answer(step, Answer::Retry, effects);
            }
            (Action::Retry, None) if self.ended_well(step) => {
                self.overlays.push(Overlay::Question(Question::Again { step }));
            }
            (Action::Retry, None) => effects.push(Effect::Send(Command::Retry { step: self.id(step) })),
            (Action::Skip, _) => self.open(Entry::reason(Purpose::Skip { step })),
            (Action::Undo, Some(Ask::TypeName { .. })) => {
                self.send_answer(step, Answer::No { reason: "left as it is".to_owned() }, effects);
            }
            (Action::Undo, _) => self.overlays.push(Overlay::Question(Question::Undo { step })),
            (Action::Stop, _) => self.overlays.push(Overlay::Question(Question::Stop { step })),
            _ => {}
        }
    }

    fn why_not(&self, action: Action, step: usize) -> String {
        let title = &self.state.runbook.steps[step].title;
        let word = self.state.steps[step].status.word();
        match action {
            _ if self.state.declared.is_none() => "nothing has begun: Enter declares".to_owned(),
            Action::Undo if self.state.runbook.steps[step].undo.is_none() => format!("`{title}` has no way back"),
            Action::Undo => format!("`{title}` is {word}: there is nothing to undo"),
            Action::Retry => format!("`{title}` is {word}: there is nothing to retry"),
            _ if self.state.steps[step].status == StepStatus::Passed => format!("`{title}` has passed"),
            _ => format!("`{title}` is {word}"),
        }
    }

    pub(super) fn send_answer(&mut self, step: usize, answer: Answer, effects: &mut Vec<Effect>) {
        self.sent = self.asked_since(step).map(|since| (step, since, self.now));
        effects.push(Effect::Send(Command::Answer { step: self.id(step), answer }));
    }

    pub(super) fn id(&self, step: usize) -> String {
        self.state.runbook.steps[step].id.clone()
    }
}
