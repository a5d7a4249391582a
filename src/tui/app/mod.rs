//! The drill screen's own state: what is looked at, what is typed, what lies on top.

mod act;
mod answer;
mod typing;

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use crossterm::event::{KeyEvent, KeyEventKind, MouseEvent, MouseEventKind};

use crate::clock::Stamp;
use crate::drill::{DrillState, Elapsed, StepStatus};
use crate::event::{Ask, Command, Envelope};

use super::keymap::{self, Action, Context};
use super::picker::Picker;
use super::session::{Leave, Notice, Options, PlayerAct, PlayerStatus, Preview};
use super::theme::{Theme, Themes};

pub use typing::{Entry, Field, Purpose};

/// A question that appeared less than this ago takes no Enter: the key was meant for what stood there before.
const SETTLE: Duration = Duration::from_millis(350);

/// An answer that led to nothing for this long may be given again.
const PATIENCE: Duration = Duration::from_secs(3);

/// Everything that can happen to the screen.
#[derive(Debug)]
pub enum Msg {
    Key(KeyEvent),
    Paste(String),
    Mouse(MouseEvent),
    /// Columns and rows.
    Resize(u16, u16),
    Envelope(Arc<Envelope>),
    /// A fresh state after a lag or a jump.
    Snapshot(Box<DrillState>),
    Notice(Notice),
    /// The stream of envelopes has ended.
    StreamEnded,
    /// Time has passed.
    Now(Stamp, Option<PlayerStatus>),
}

/// What the screen wants done.
#[derive(Debug, PartialEq)]
pub enum Effect {
    Send(Command),
    Player(PlayerAct),
    /// A fresh state is needed.
    Snapshot,
    Suspend,
    Redraw,
    Leave(Leave),
}

/// Something on top of the drill; `Esc` takes the uppermost away.
#[derive(Debug)]
pub enum Overlay {
    Help { scroll: usize },
    Contacts,
    Facts { scroll: usize },
    Notes { scroll: usize },
    Output,
    Typing(Entry),
    Question(Question),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Question {
    Leave,
    Interrupt,
    Point,
    Stop { step: usize },
    Undo { step: usize },
    Again { step: usize },
}

/// The drill screen. [`App::update`] is the only way in, [`App::draw`] the only way out.
pub struct App {
    pub(super) state: DrillState,
    pub(super) options: Options,
    pub(super) themes: Themes,
    pub(super) now: Elapsed,
    pub(super) wall: DateTime<Utc>,
    pub(super) size: (u16, u16),
    /// The step that the operator looks at; `None` follows the drill.
    pub(super) selected: Option<usize>,
    /// The absolute number of the last line of output shown; `None` follows.
    pub(super) scroll: Option<u64>,
    pub(super) search: Option<String>,
    pub(super) overlays: Vec<Overlay>,
    pub(super) picker: Option<Picker>,
    /// The chosen line of an `Ask::Choose`, with the step it belongs to.
    pub(super) choice: (usize, usize),
    pub(super) notice: Option<String>,
    pub(super) player: Option<PlayerStatus>,
    pub(super) stream_ended: bool,
    /// An answer on its way: the step, since when its question stood, and when it went.
    sent: Option<(usize, Elapsed, Elapsed)>,
    preview: Preview,
    dirty: bool,
}

impl App {
    pub fn new(state: DrillState, themes: Themes, options: Options, preview: Preview) -> Self {
        let (now, wall) = (state.latest.elapsed, state.latest.wall);
        let mut app = Self {
            state,
            options,
            themes,
            now,
            wall,
            size: (80, 24),
            selected: None,
            scroll: None,
            search: None,
            overlays: Vec::new(),
            picker: None,
            choice: (usize::MAX, 0),
            notice: None,
            player: None,
            stream_ended: false,
            sent: None,
            preview,
            dirty: true,
        };
        app.settle();
        app
    }

    pub(super) fn theme(&self) -> &Theme {
        self.themes.current()
    }

    /// Takes in one message; returns what is to be done.
    pub fn update(&mut self, msg: Msg) -> Vec<Effect> {
        let mut effects = Vec::new();
        match msg {
            Msg::Key(key) if key.kind == KeyEventKind::Release => return effects,
            Msg::Key(key) => self.key(&key, &mut effects),
            Msg::Paste(text) => self.paste(&text),
            Msg::Mouse(mouse) => match mouse.kind {
                MouseEventKind::ScrollUp => self.scroll_by(-3),
                MouseEventKind::ScrollDown => self.scroll_by(3),
                _ => return effects,
            },
            Msg::Resize(columns, rows) => self.size = (columns, rows),
            Msg::Envelope(envelope) => {
                if envelope.seq < self.state.next_seq {
                    return effects;
                }
                if envelope.seq > self.state.next_seq {
                    effects.push(Effect::Snapshot);
                    return effects;
                }
                self.state.apply(&envelope);
                self.now = self.now.max(self.state.latest.elapsed);
            }
            Msg::Snapshot(state) => self.state = *state,
            Msg::Notice(notice) => self.notice(notice),
            Msg::StreamEnded => self.stream_ended = true,
            Msg::Now(stamp, player) => {
                self.time(stamp, player, &mut effects);
                return effects;
            }
        }
        self.settle();
        self.dirty = true;
        effects
    }

    /// Whether there is anything new to draw; asking resets it.
    pub fn take_dirty(&mut self) -> bool {
        std::mem::take(&mut self.dirty)
    }

    /// Asks for another frame.
    pub fn touch(&mut self) {
        self.dirty = true;
    }

    /// Whether some clock on the screen goes on by itself.
    pub fn ticks(&self) -> bool {
        match self.player {
            Some(player) => player.playing,
            None => self.state.finished.is_none(),
        }
    }

    fn time(&mut self, stamp: Stamp, player: Option<PlayerStatus>, effects: &mut Vec<Effect>) {
        let shown = (self.now.as_secs(), self.wall.timestamp());
        match player {
            Some(status) => {
                if self.player.is_some_and(|before| before.jumps != status.jumps) {
                    effects.push(Effect::Snapshot);
                }
                self.dirty |= self.player.is_none_or(|before| {
                    (before.playing, before.speed, before.jumps) != (status.playing, status.speed, status.jumps)
                });
                self.now = status.position;
                let since = status.position.saturating_sub(self.state.opened.elapsed);
                self.wall = self.state.opened.wall + since;
                self.player = Some(status);
            }
            None => {
                self.now = self.state.elapsed_at(stamp).max(self.state.latest.elapsed);
                self.wall = stamp.wall;
            }
        }
        self.dirty |= self.ticks() && shown != (self.now.as_secs(), self.wall.timestamp());
    }

    fn notice(&mut self, notice: Notice) {
        match notice {
            Notice::Refused(text) => {
                self.sent = None;
                self.notice = Some(text);
            }
            Notice::Say(text) => self.notice = Some(text),
            Notice::After(text) => self.options.after_text = Some(text),
        }
    }

    /// Brings what hangs on the drill's state up to date.
    fn settle(&mut self) {
        if self.selected.is_some_and(|step| step >= self.state.steps.len()) {
            self.selected = None;
        }
        if let Some((step, since, _)) = self.sent
            && self.asked_since(step) != Some(since)
        {
            self.sent = None;
        }
        let shown = self.shown();
        let pending = self.state.steps.get(shown).and_then(|step| step.ask.as_ref()).filter(|_| self.live());
        let ask = pending.map(|pending| Arc::clone(&pending.ask));
        match ask.as_deref() {
            Some(Ask::RecoveryPoint { window, suggested }) => {
                let since = self.asked_since(shown);
                if self.picker.as_ref().is_none_or(|picker| (picker.step, Some(picker.since)) != (shown, since)) {
                    let since = since.unwrap_or_default();
                    self.picker = Some(Picker::new(shown, since, (**window).clone(), suggested.clone(), &self.preview));
                }
            }
            Some(Ask::Choose { options, default, .. }) if self.choice.0 != shown => {
                let at = default.as_ref().and_then(|value| options.iter().position(|option| option.value == *value));
                self.choice = (shown, at.unwrap_or(0));
            }
            _ => {}
        }
        // A question about something that is over has no answer.
        let over = self.state.finished.is_some();
        let state = &self.state;
        self.overlays.retain(|overlay| match overlay {
            Overlay::Typing(entry) => entry.purpose.holds(state),
            Overlay::Question(Question::Stop { .. } | Question::Undo { .. } | Question::Again { .. }) => !over,
            Overlay::Question(Question::Point) => {
                matches!(state.ask_of(shown), Some(Ask::RecoveryPoint { .. }))
            }
            _ => true,
        });
    }

    fn asked_since(&self, step: usize) -> Option<Elapsed> {
        self.state.steps.get(step)?.ask.as_ref().map(|pending| pending.since.elapsed)
    }

    /// The step in the middle.
    pub(super) fn shown(&self) -> usize {
        self.selected.unwrap_or_else(|| self.state.focus())
    }

    /// The question of the step in the middle.
    pub(super) fn ask(&self) -> Option<&Ask> {
        self.state.ask_of(self.shown())
    }

    /// Whether the drill can be acted on.
    pub(super) fn live(&self) -> bool {
        self.player.is_none() && self.state.finished.is_none() && !self.options.read_only
    }

    /// Whether an answer to the step in the middle is on its way.
    pub(super) fn is_sent(&self) -> bool {
        self.sent.is_some_and(|(step, _, at)| step == self.shown() && self.now.saturating_sub(at) < PATIENCE)
    }

    /// Whether the step in the middle can be answered by one key right now.
    fn is_armed(&self) -> bool {
        !self.is_sent() && self.asked_since(self.shown()).is_some_and(|since| self.now.saturating_sub(since) >= SETTLE)
    }

    /// Where keys are looked up, the most specific first.
    pub fn contexts(&self) -> Vec<Context> {
        let mut contexts = Vec::new();
        match self.overlays.last() {
            Some(Overlay::Typing(entry)) => {
                contexts.push(Context::Typing);
                if entry.fields.len() > 1 {
                    contexts.push(Context::TypingMany);
                }
            }
            Some(Overlay::Question(question)) => contexts.push(match question {
                Question::Leave if self.options.can_stop => Context::LeaveOrStop,
                Question::Leave => Context::LeaveQuestion,
                Question::Interrupt if self.options.can_stop => Context::InterruptOrStop,
                Question::Interrupt => Context::InterruptQuestion,
                Question::Point => Context::PointQuestion,
                Question::Stop { .. } => Context::StopQuestion,
                Question::Undo { .. } => Context::UndoQuestion,
                Question::Again { .. } => Context::AgainQuestion,
            }),
            Some(Overlay::Output) => contexts.extend([Context::Output, Context::View]),
            Some(_) => contexts.push(Context::Overlay),
            None => return self.contexts_below(),
        }
        contexts.push(Context::Always);
        contexts
    }

    /// As [`Self::contexts`], of what lies below the page on top: help is about that.
    pub(super) fn contexts_below(&self) -> Vec<Context> {
        let mut contexts: Vec<Context> = self.step_context().into_iter().collect();
        contexts.extend(match self.player {
            Some(_) => Some(Context::Replay),
            None if self.state.finished.is_some() => Some(Context::Finished),
            None if self.options.read_only => None,
            None => Some(Context::Drive),
        });
        contexts.extend([Context::View, Context::Always]);
        contexts
    }

    fn step_context(&self) -> Option<Context> {
        if !self.live() {
            return None;
        }
        if self.state.declared.is_none() {
            return Some(Context::Declare);
        }
        Some(match self.ask() {
            Some(Ask::Go { .. }) => Context::Go,
            Some(Ask::Confirm { .. }) => Context::Confirm,
            Some(Ask::TypeName { .. }) => Context::TypeName,
            Some(Ask::Input { .. }) => Context::Input,
            Some(Ask::Choose { .. }) => Context::Choose,
            Some(Ask::RecoveryPoint { .. }) => Context::Point,
            Some(Ask::AfterFailure { .. }) => Context::Failed,
            Some(Ask::InDoubt { .. }) => Context::InDoubt,
            None => return None,
        })
    }

    /// Whether an action makes sense now; the key bar leaves out what does not.
    pub(super) fn can(&self, action: Action) -> bool {
        let shown = self.shown();
        let Some(state) = self.state.steps.get(shown) else { return true };
        let step = &self.state.runbook.steps[shown];
        match action {
            Action::Retry | Action::Undo | Action::Skip if self.state.declared.is_none() => false,
            Action::Retry => {
                !matches!(state.status, StepStatus::Pending | StepStatus::Gated | StepStatus::Running)
                    || matches!(self.ask(), Some(Ask::AfterFailure { .. } | Ask::InDoubt { .. }))
            }
            Action::Undo => step.undo.is_some() && matches!(state.status, StepStatus::Passed | StepStatus::Failed),
            Action::Skip => !matches!(
                state.status,
                StepStatus::Passed | StepStatus::Skipped { .. } | StepStatus::NotNeeded { .. } | StepStatus::Undone
            ),
            Action::NextMatch | Action::PreviousMatch => self.search.is_some(),
            Action::PreviousSuspect | Action::NextSuspect => {
                self.picker.as_ref().is_some_and(|picker| !picker.suspects.is_empty())
            }
            _ => true,
        }
    }

    /// Whether doing a step again opens it, and what came after it, once more.
    pub(super) fn ended_well(&self, step: usize) -> bool {
        self.state.steps.get(step).is_some_and(|step| step.status.lets_pass())
    }

    /// What a key does, in the words of the moment.
    pub(super) fn label(&self, binding: &keymap::Binding) -> String {
        match binding.action {
            Action::Pause if self.state.paused.is_some() => "go on".to_owned(),
            Action::Pace => match self.state.pace {
                crate::event::Pace::Flowing => "step by step".to_owned(),
                crate::event::Pace::StepByStep => "let it flow".to_owned(),
            },
            Action::Undo if matches!(self.ask(), Some(Ask::TypeName { .. })) => "leave it as it is".to_owned(),
            Action::Retry if self.ended_well(self.shown()) => "again".to_owned(),
            Action::JustBefore if self.picker.as_ref().is_some_and(|picker| picker.selected.is_none()) => {
                "just before".to_owned()
            }
            Action::PlayPause if self.player.is_some_and(|player| player.playing) => "pause".to_owned(),
            Action::PlayPause => "play".to_owned(),
            Action::Leave if self.live() && binding.context == Context::View => self.options.leave_text.clone(),
            _ => binding.label.to_owned(),
        }
    }

    fn key(&mut self, key: &KeyEvent, effects: &mut Vec<Effect>) {
        self.notice = None;
        match keymap::find(&self.contexts(), key) {
            Some(action) => self.act(action, effects),
            None => self.type_key(key),
        }
    }
}
