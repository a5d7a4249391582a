//! What is typed: reasons, names, notes, targets.

use chrono::{DateTime, FixedOffset, Utc};
use crossterm::event::{Event as TerminalEvent, KeyCode, KeyEvent, KeyModifiers};
use tui_input::Input;
use tui_input::backend::crossterm::EventHandler;

use crate::drill::DrillState;
use crate::event::{Answer, Ask, Command, InputKind, RecoveryTarget};

use super::super::keymap::Context;
use super::super::moment;
use super::super::text::clean;
use super::{App, Effect, Overlay};

/// What the typed text is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Purpose {
    Declare,
    TypeName { step: usize, name: String },
    Answer { step: usize, input: InputKind },
    Skip { step: usize },
    No { step: usize },
    Done { step: usize },
    Note,
    Finding,
    Abort,
    Search,
    Target,
}

impl Purpose {
    /// Whether there is still something to type for.
    pub(super) fn holds(&self, state: &DrillState) -> bool {
        let over = state.finished.is_some();
        match self {
            Self::Declare => state.declared.is_none() && !over,
            Self::TypeName { step, .. } => matches!(state.ask_of(*step), Some(Ask::TypeName { .. })),
            Self::Answer { step, .. } => matches!(state.ask_of(*step), Some(Ask::Input { .. })),
            Self::No { step } => matches!(state.ask_of(*step), Some(Ask::Confirm { .. })),
            Self::Done { step } => matches!(state.ask_of(*step), Some(Ask::InDoubt { .. })),
            Self::Target => state.waiting().next().is_some(),
            Self::Skip { .. } | Self::Abort | Self::Note | Self::Finding => !over,
            Self::Search => true,
        }
    }
}

#[derive(Debug)]
pub struct Field {
    pub label: String,
    pub input: Input,
    pub optional: bool,
}

impl Field {
    fn new(label: &str, value: Option<String>, optional: bool) -> Self {
        Self { label: label.to_owned(), input: Input::new(value.unwrap_or_default()), optional }
    }
}

/// One or more lines being typed.
#[derive(Debug)]
pub struct Entry {
    pub purpose: Purpose,
    pub fields: Vec<Field>,
    pub at: usize,
    /// Why what was typed is not accepted.
    pub problem: Option<String>,
}

impl Entry {
    fn one(purpose: Purpose, label: &str, value: Option<String>) -> Self {
        Self { purpose, fields: vec![Field::new(label, value, false)], at: 0, problem: None }
    }

    pub(super) fn reason(purpose: Purpose) -> Self {
        let label = match &purpose {
            Purpose::Declare => "what is broken",
            _ => "reason",
        };
        Self::one(purpose, label, None)
    }

    pub(super) fn type_name(step: usize, name: String) -> Self {
        Self::one(Purpose::TypeName { step, name }, "name", None)
    }

    pub(super) fn answer(step: usize, prompt: String, default: Option<String>, input: InputKind) -> Self {
        Self::one(Purpose::Answer { step, input }, &prompt, default)
    }

    pub(super) fn note() -> Self {
        Self::one(Purpose::Note, "note", None)
    }

    pub(super) fn finding() -> Self {
        let fields =
            vec![Field::new("finding", None, false), Field::new("owner", None, true), Field::new("due", None, true)];
        Self { purpose: Purpose::Finding, fields, at: 0, problem: None }
    }

    pub(super) fn search(before: Option<String>) -> Self {
        Self::one(Purpose::Search, "search", before)
    }

    pub(super) fn target(now: Option<String>) -> Self {
        Self::one(Purpose::Target, "target", now)
    }

    fn value(&self, field: usize) -> String {
        self.fields.get(field).map(|field| clean(field.input.value()).trim().to_owned()).unwrap_or_default()
    }

    fn optional(&self, field: usize) -> Option<String> {
        Some(self.value(field)).filter(|value| !value.is_empty())
    }

    /// Why it cannot be accepted, when it cannot.
    fn check(&self, now: DateTime<Utc>, zone: FixedOffset) -> Result<(), String> {
        let text = self.value(0);
        match &self.purpose {
            Purpose::Search => Ok(()),
            Purpose::TypeName { name, .. } if text == *name => Ok(()),
            Purpose::TypeName { name, .. } if text.is_empty() => {
                Err(format!("type {name} to go on, or Esc to go back"))
            }
            Purpose::TypeName { name, .. } => Err(format!("that is not {name}; nothing was done")),
            Purpose::Answer { input: InputKind::Time, .. } => {
                moment::read(&text, now, zone).map(|_| ()).map_err(|error| error.to_string())
            }
            Purpose::Answer { input: InputKind::Number, .. } => match text.parse::<f64>() {
                Ok(number) if number.is_finite() => Ok(()),
                _ => Err(format!("`{text}` is not a number")),
            },
            Purpose::Target => moment::target(&text, now, zone).map(|_| ()).map_err(|error| error.to_string()),
            Purpose::Answer { .. } => Ok(()),
            _ if text.is_empty() => Err(format!("{} is needed; the report shows it", self.fields[0].label)),
            _ => Ok(()),
        }
    }

    /// The moment that stands there so far.
    pub(in super::super) fn moment(&self, now: DateTime<Utc>, zone: FixedOffset) -> Option<DateTime<Utc>> {
        match self.purpose {
            Purpose::Answer { input: InputKind::Time, .. } => moment::read(&self.value(0), now, zone).ok(),
            Purpose::Target => match moment::target(&self.value(0), now, zone) {
                Ok(RecoveryTarget::Time { time }) => Some(time),
                _ => None,
            },
            _ => None,
        }
    }
}

impl App {
    pub(super) fn type_key(&mut self, key: &KeyEvent) {
        self.begin_answer(key);
        let Some(Overlay::Typing(entry)) = self.overlays.last_mut() else { return };
        let meant = !key.modifiers.intersects(KeyModifiers::CONTROL | KeyModifiers::ALT)
            || matches!(key.code, KeyCode::Char('a' | 'e' | 'u' | 'k' | 'w' | 'h' | 'b' | 'f' | 'd'))
            || !matches!(key.code, KeyCode::Char(_));
        if meant {
            entry.problem = None;
            entry.fields[entry.at].input.handle_event(&TerminalEvent::Key(*key));
        }
    }

    /// The first digit of a time or a number begins the answer: nobody has to clear what is suggested.
    fn begin_answer(&mut self, key: &KeyEvent) {
        let digit = matches!(key.code, KeyCode::Char('0'..='9')) && (key.modifiers - KeyModifiers::SHIFT).is_empty();
        if !digit || !self.overlays.is_empty() || !self.contexts().contains(&Context::Input) || self.is_sent() {
            return;
        }
        if let Some(Ask::Input { prompt, input: input @ (InputKind::Time | InputKind::Number), .. }) = self.ask() {
            let (prompt, input) = (prompt.clone(), *input);
            self.open(Entry::answer(self.shown(), prompt, None, input));
        }
    }

    pub(super) fn paste(&mut self, text: &str) {
        let Some(Overlay::Typing(entry)) = self.overlays.last_mut() else {
            self.notice = Some("pasted text is ignored: nothing is being typed".to_owned());
            return;
        };
        if matches!(entry.purpose, Purpose::TypeName { .. }) {
            entry.problem = Some("pasting is not typing: type the name".to_owned());
            return;
        }
        entry.problem = None;
        let input = &mut entry.fields[entry.at].input;
        for c in clean(text.trim_end()).chars() {
            input.handle(tui_input::InputRequest::InsertChar(c));
        }
    }

    pub(super) fn next_field(&mut self, by: isize) {
        if let Some(Overlay::Typing(entry)) = self.overlays.last_mut() {
            let count = entry.fields.len();
            entry.at = (entry.at + count).saturating_add_signed(by) % count;
        }
    }

    /// Enter: the next field, or done.
    pub(super) fn accept(&mut self, effects: &mut Vec<Effect>) {
        let Some(Overlay::Typing(entry)) = self.overlays.last_mut() else { return };
        if entry.at + 1 < entry.fields.len() {
            entry.at += 1;
            return;
        }
        if let Err(problem) = entry.check(self.wall, self.options.zone) {
            entry.problem = Some(problem);
            entry.at = 0;
            return;
        }
        let Some(Overlay::Typing(entry)) = self.overlays.pop() else { return };
        let moment = entry.moment(self.wall, self.options.zone);
        let text = moment.map_or_else(|| entry.value(0), |at| moment::write(at, self.options.zone));
        match entry.purpose {
            Purpose::Declare => effects.push(Effect::Send(Command::Declare { reason: text })),
            Purpose::TypeName { step, .. } => self.send_answer(step, Answer::Typed { name: text }, effects),
            Purpose::Answer { step, .. } => self.send_answer(step, Answer::Text { text }, effects),
            Purpose::Skip { step } => {
                effects.push(Effect::Send(Command::Skip { step: self.id(step), reason: text }));
            }
            Purpose::No { step } => self.send_answer(step, Answer::No { reason: text }, effects),
            Purpose::Done { step } => self.send_answer(step, Answer::TakenAsDone { reason: text }, effects),
            Purpose::Note => effects.push(Effect::Send(Command::Note { text })),
            Purpose::Finding => {
                let (owner, due) = (entry.optional(1), entry.optional(2));
                effects.push(Effect::Send(Command::Finding { text, owner, due }));
            }
            Purpose::Abort => effects.push(Effect::Send(Command::Abort { reason: text })),
            Purpose::Search => {
                self.search = Some(text).filter(|text| !text.is_empty());
                self.find(false);
            }
            Purpose::Target => self.go_to(&text),
        }
    }

    fn go_to(&mut self, text: &str) {
        // It was checked when Enter came.
        if let (Ok(target), Some(picker)) = (text.parse::<RecoveryTarget>(), &mut self.picker) {
            picker.set(target, &self.preview);
        }
    }
}
