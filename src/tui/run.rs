//! The loop of the full screen: keys, envelopes, notices, time and signals in; frames and commands out.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use crossterm::event::{Event as TerminalEvent, EventStream, KeyCode, KeyEvent, KeyModifiers};
use futures::StreamExt;
use nix::sys::signal::Signal as Signo;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::mpsc;

use crate::clock;

use super::app::{App, Effect, Msg};
use super::session::{Leave, Session};
use super::terminal::{self, Guard};

/// The least time between two frames.
const FRAME: Duration = Duration::from_millis(33);

/// How often clocks on the screen are brought up to date; a frame is drawn only when a shown second has changed.
const TICK: Duration = Duration::from_millis(200);

/// Envelopes taken in before keys are looked at again.
const BATCH: usize = 512;

const CTRL_C: KeyEvent = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);

#[derive(Debug, thiserror::Error)]
pub enum TuiError {
    #[error("take the terminal: {0}")]
    Enter(io::Error),
    #[error("draw on the terminal: {0}")]
    Draw(io::Error),
    #[error("read the keyboard: {0}")]
    Input(io::Error),
    #[error("the keyboard is gone")]
    NoInput,
    #[error("watch for signals: {0}")]
    Signal(io::Error),
    #[error("suspend: {0}")]
    Suspend(io::Error),
    #[error("a part of lifeboat broke; the terminal was given back")]
    Panicked,
}

/// Shows one drill until the operator leaves or the program is told to end. The terminal is given back in any case.
pub async fn run_drill(session: Session) -> Result<Leave, TuiError> {
    terminal::install_panic_hook(session.options.log_file.clone());
    let guard = Guard::enter(session.options.mouse).map_err(TuiError::Enter)?;
    let signals = Signals::watch().map_err(TuiError::Signal)?;
    Run::new(session, guard)?.run(signals).await
}

pub(super) struct Signals {
    term: Signal,
    hang_up: Signal,
    interrupt: Signal,
    going_on: Signal,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Told {
    End,
    /// SIGINT: from outside, or ctrl-C where the terminal is not in raw mode.
    Interrupt,
    /// The program was stopped, and goes on.
    GoOn,
}

impl Signals {
    pub(super) fn watch() -> io::Result<Self> {
        Ok(Self {
            term: signal(SignalKind::terminate())?,
            hang_up: signal(SignalKind::hangup())?,
            interrupt: signal(SignalKind::interrupt())?,
            going_on: signal(SignalKind::from_raw(Signo::SIGCONT as i32))?,
        })
    }

    pub(super) async fn any(&mut self) -> Told {
        tokio::select! {
            _ = self.term.recv() => Told::End,
            _ = self.hang_up.recv() => Told::End,
            _ = self.interrupt.recv() => Told::Interrupt,
            _ = self.going_on.recv() => Told::GoOn,
        }
    }
}

struct Run {
    app: App,
    session: Session,
    guard: Guard,
    /// Commands on their way; a full channel must not block a key.
    outbox: mpsc::UnboundedSender<crate::event::Command>,
    notices_open: bool,
}

impl Run {
    fn new(session: Session, guard: Guard) -> Result<Self, TuiError> {
        let preview = Arc::clone(&session.preview);
        let mut app = App::new(session.state.clone(), session.themes.clone(), session.options.clone(), preview);
        let (columns, rows) = guard.size().map_err(TuiError::Draw)?;
        app.update(Msg::Resize(columns, rows));
        let (outbox, mut waiting) = mpsc::unbounded_channel();
        let commands = session.commands.clone();
        tokio::spawn(async move {
            while let Some(command) = waiting.recv().await {
                if commands.send(command).await.is_err() {
                    break;
                }
            }
        });
        Ok(Self { app, session, guard, outbox, notices_open: true })
    }

    async fn run(mut self, mut signals: Signals) -> Result<Leave, TuiError> {
        let mut input = EventStream::new();
        let mut stream_open = true;
        let mut drawn_at = Duration::ZERO;
        loop {
            self.now();
            if terminal::panicked() {
                return Err(TuiError::Panicked);
            }
            let since = clock::boot_now().saturating_sub(drawn_at);
            let mut wait = TICK;
            if self.app.take_dirty() {
                if since >= FRAME {
                    self.guard.draw(|frame| self.app.draw(frame)).map_err(TuiError::Draw)?;
                    drawn_at = clock::boot_now();
                } else {
                    self.app.touch();
                    wait = FRAME - since;
                }
            }
            let effects = tokio::select! {
                biased;
                told = signals.any() => match told {
                    Told::End => return Ok(Leave::Terminated),
                    Told::Interrupt => self.app.update(Msg::Key(CTRL_C)),
                    Told::GoOn => {
                        self.guard.take_again().map_err(TuiError::Enter)?;
                        self.app.touch();
                        Vec::new()
                    }
                },
                event = input.next() => match event {
                    Some(Ok(event)) => self.input(event),
                    Some(Err(error)) => return Err(TuiError::Input(error)),
                    None => return Err(TuiError::NoInput),
                },
                envelope = self.session.envelopes.recv(), if stream_open => match envelope {
                    Ok(envelope) => {
                        let mut effects = self.app.update(Msg::Envelope(envelope));
                        effects.extend(self.drain());
                        effects
                    }
                    Err(RecvError::Lagged(_)) => vec![Effect::Snapshot],
                    Err(RecvError::Closed) => {
                        stream_open = false;
                        self.app.update(Msg::StreamEnded)
                    }
                },
                notice = self.session.notices.recv(), if self.notices_open => match notice {
                    Some(notice) => self.app.update(Msg::Notice(notice)),
                    None => {
                        self.notices_open = false;
                        Vec::new()
                    }
                },
                () = clock::sleep(wait) => Vec::new(),
            };
            if let Some(leave) = self.perform(effects)? {
                return Ok(leave);
            }
        }
    }

    /// Takes in what else has come, up to a batch, so that a flood of output costs one frame and not a thousand.
    fn drain(&mut self) -> Vec<Effect> {
        let mut effects = Vec::new();
        for _ in 0..BATCH {
            match self.session.envelopes.try_recv() {
                Ok(envelope) => effects.extend(self.app.update(Msg::Envelope(envelope))),
                Err(tokio::sync::broadcast::error::TryRecvError::Lagged(_)) => effects.push(Effect::Snapshot),
                Err(_) => break,
            }
        }
        effects
    }

    fn input(&mut self, event: TerminalEvent) -> Vec<Effect> {
        self.now();
        match event {
            TerminalEvent::Key(key) => self.app.update(Msg::Key(key)),
            TerminalEvent::Paste(text) => self.app.update(Msg::Paste(text)),
            TerminalEvent::Mouse(mouse) => self.app.update(Msg::Mouse(mouse)),
            TerminalEvent::Resize(columns, rows) => self.app.update(Msg::Resize(columns, rows)),
            TerminalEvent::FocusGained | TerminalEvent::FocusLost => Vec::new(),
        }
    }

    fn now(&mut self) {
        let player = self.session.player.as_ref().map(|player| player.status());
        let effects = self.app.update(Msg::Now(self.session.clock.now(), player));
        if effects.contains(&Effect::Snapshot) {
            self.snapshot();
        }
    }

    fn snapshot(&mut self) {
        let state = (self.session.snapshot)();
        self.app.update(Msg::Snapshot(Box::new(state)));
    }

    fn perform(&mut self, effects: Vec<Effect>) -> Result<Option<Leave>, TuiError> {
        for effect in effects {
            match effect {
                // The driver is gone only when the drill is; the screen says so by itself.
                Effect::Send(command) => drop(self.outbox.send(command)),
                Effect::Player(act) => {
                    if let Some(player) = &self.session.player {
                        player.act(act);
                    }
                }
                Effect::Snapshot => self.snapshot(),
                Effect::Suspend => self.guard.suspend().map_err(TuiError::Suspend)?,
                Effect::Redraw => {
                    self.guard.clear().map_err(TuiError::Draw)?;
                    self.app.touch();
                }
                Effect::Leave(leave) => return Ok(Some(leave)),
            }
        }
        Ok(None)
    }
}
