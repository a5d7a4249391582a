//! The home screen: what needs attention, drills under way, runbooks, drills past.

use std::path::PathBuf;
use std::time::Duration;

use chrono::{DateTime, FixedOffset, Utc};
use crossterm::event::{Event as TerminalEvent, EventStream, KeyEvent, KeyEventKind};
use futures::StreamExt;

use crate::event::{Mode, Verdict};

use super::keymap::{self, Action, Context};
use super::run::{Signals, Told, TuiError};
use super::terminal::{self, Guard};
use super::theme::{Theme, Themes};

/// What the home screen shows; plain data, filled by the command line.
#[derive(Debug, Clone, Default)]
pub struct HomeModel {
    /// Of the inventory.
    pub service: String,
    /// Where the inventory was read; `None` when there is none.
    pub inventory: Option<PathBuf>,
    pub attention: Vec<Attention>,
    /// Newest first.
    pub under_way: Vec<DrillEntry>,
    pub runbooks: Vec<RunbookEntry>,
    /// Newest first.
    pub past: Vec<DrillEntry>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attention {
    pub severity: Severity,
    pub text: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    Critical,
    Warning,
    Info,
}

#[derive(Debug, Clone)]
pub struct RunbookEntry {
    pub path: PathBuf,
    pub title: String,
    pub owner: Option<String>,
    /// Markdown.
    pub description: Option<String>,
    /// Why it cannot be run, when it cannot.
    pub problem: Option<String>,
    pub last_run: Option<DateTime<Utc>>,
    pub verdict: Option<Verdict>,
}

#[derive(Debug, Clone)]
pub struct DrillEntry {
    /// The drill's directory.
    pub dir: PathBuf,
    /// Its journal, which is its recording.
    pub journal: PathBuf,
    pub title: String,
    pub mode: Mode,
    pub environment: String,
    pub operator: String,
    pub opened: DateTime<Utc>,
    /// Absent while it is under way.
    pub verdict: Option<Verdict>,
    pub rto: Option<Duration>,
    pub rto_target: Option<Duration>,
    /// Where it stands, or what is to be known of it, in a sentence.
    pub note: Option<String>,
}

/// What the operator wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HomeChoice {
    /// A runbook's path.
    Run(PathBuf),
    /// A drill's directory.
    Resume(PathBuf),
    /// A journal.
    Replay(PathBuf),
    /// A drill's directory.
    Report(PathBuf),
    Quit,
}

/// How the home screen looks.
#[derive(Debug, Clone)]
pub struct HomeOptions {
    pub themes: Themes,
    pub zone: FixedOffset,
    pub ascii: bool,
    pub log_file: Option<PathBuf>,
}

/// One line that can be chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Item {
    UnderWay(usize),
    Runbook(usize),
    Past(usize),
}

/// The home screen's state. Like the drill's: [`Home::key`] is the way in, [`Home::draw`] the way out.
pub struct Home {
    pub(super) model: HomeModel,
    pub(super) options: HomeOptions,
    pub(super) at: usize,
    pub(super) help: bool,
    pub(super) notice: Option<String>,
}

impl Home {
    pub fn new(mut model: HomeModel, options: HomeOptions) -> Self {
        model.attention.sort_by_key(|attention| attention.severity);
        Self { model, options, at: 0, help: false, notice: None }
    }

    pub(super) fn theme(&self) -> &Theme {
        self.options.themes.current()
    }

    pub(super) fn items(&self) -> Vec<Item> {
        let under_way = (0..self.model.under_way.len()).map(Item::UnderWay);
        let runbooks = (0..self.model.runbooks.len()).map(Item::Runbook);
        under_way.chain(runbooks).chain((0..self.model.past.len()).map(Item::Past)).collect()
    }

    pub(super) fn item(&self) -> Option<Item> {
        self.items().get(self.at).copied()
    }

    /// Where keys are looked up, the most specific first.
    pub(super) fn contexts(&self) -> Vec<Context> {
        let item = self.item().map(|item| match item {
            Item::UnderWay(_) => Context::HomeUnderWay,
            Item::Runbook(_) => Context::HomeRunbook,
            Item::Past(_) => Context::HomePast,
        });
        item.into_iter().chain([Context::Home]).collect()
    }

    /// Takes a key; returns what was chosen, if anything was.
    pub fn key(&mut self, key: &KeyEvent) -> Option<HomeChoice> {
        if key.kind == KeyEventKind::Release {
            return None;
        }
        self.notice = None;
        let action = keymap::find(&self.contexts(), key);
        if std::mem::take(&mut self.help) && action != Some(Action::Leave) {
            return None;
        }
        let last = self.items().len().saturating_sub(1);
        match action? {
            Action::Do => return self.choose(),
            Action::Replay => return self.replay(),
            Action::Up => self.at = self.at.saturating_sub(1),
            Action::Down => self.at = (self.at + 1).min(last),
            Action::NextWaiting => self.next_group(),
            Action::Theme => {
                let name = self.options.themes.cycle().name.clone();
                self.notice = Some(format!("theme: {name}"));
            }
            Action::Help => self.help = true,
            Action::Leave => return Some(HomeChoice::Quit),
            _ => {}
        }
        None
    }

    fn choose(&mut self) -> Option<HomeChoice> {
        match self.item()? {
            Item::UnderWay(index) => Some(HomeChoice::Resume(self.model.under_way[index].dir.clone())),
            Item::Past(index) => Some(HomeChoice::Report(self.model.past[index].dir.clone())),
            Item::Runbook(index) => {
                let runbook = &self.model.runbooks[index];
                if let Some(problem) = &runbook.problem {
                    self.notice = Some(format!("it cannot be run: {problem}"));
                    return None;
                }
                Some(HomeChoice::Run(runbook.path.clone()))
            }
        }
    }

    fn replay(&self) -> Option<HomeChoice> {
        match self.item()? {
            Item::UnderWay(index) => Some(HomeChoice::Replay(self.model.under_way[index].journal.clone())),
            Item::Past(index) => Some(HomeChoice::Replay(self.model.past[index].journal.clone())),
            Item::Runbook(_) => None,
        }
    }

    fn next_group(&mut self) {
        let items = self.items();
        let Some(now) = self.item() else { return };
        let other = |item: &Item| std::mem::discriminant(item) != std::mem::discriminant(&now);
        self.at = items.iter().enumerate().skip(self.at).find(|(_, item)| other(item)).map_or(0, |(index, _)| index);
    }
}

/// Shows the home screen until something is chosen. The terminal is given back in any case; a signal means quit.
pub async fn run(model: HomeModel, options: HomeOptions) -> Result<HomeChoice, TuiError> {
    terminal::install_panic_hook(options.log_file.clone());
    let mut guard = Guard::enter(false).map_err(TuiError::Enter)?;
    let mut signals = Signals::watch().map_err(TuiError::Signal)?;
    let mut home = Home::new(model, options);
    let mut input = EventStream::new();
    loop {
        guard.draw(|frame| home.draw(frame)).map_err(TuiError::Draw)?;
        let event = tokio::select! {
            told = signals.any() => match told {
                Told::End | Told::Interrupt => return Ok(HomeChoice::Quit),
                Told::GoOn => {
                    guard.take_again().map_err(TuiError::Enter)?;
                    continue;
                }
            },
            event = input.next() => event,
        };
        match event {
            Some(Ok(TerminalEvent::Key(key))) if keymap::is_suspend(&key) => {
                guard.suspend().map_err(TuiError::Suspend)?;
            }
            Some(Ok(TerminalEvent::Key(key))) => {
                if let Some(choice) = home.key(&key) {
                    return Ok(choice);
                }
            }
            Some(Ok(_)) => {}
            Some(Err(error)) => return Err(TuiError::Input(error)),
            None => return Err(TuiError::NoInput),
        }
    }
}
