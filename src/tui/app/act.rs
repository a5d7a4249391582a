//! What each action does.

use std::time::Duration;

use crate::event::{Command, Pace};
use crate::mutant;

use super::super::keymap::Action;
use super::super::picker::Jump;
use super::super::session::{Leave, PlayerAct};
use super::super::view::overlay;
use super::{App, Effect, Entry, Overlay, Purpose, Question};

const SEEK: Duration = Duration::from_secs(10);

impl App {
    pub(super) fn act(&mut self, action: Action, effects: &mut Vec<Effect>) {
        match action {
            Action::Do | Action::Yes | Action::No | Action::Choice(_) | Action::TakeAsDone => {
                self.answer(action, effects);
            }
            Action::Retry | Action::Skip | Action::Undo | Action::Stop => self.remedy(action, effects),
            Action::Note => self.open(Entry::note()),
            Action::Finding => self.open(Entry::finding()),
            Action::Pause => effects.push(Effect::Send(match self.state.paused {
                Some(_) => Command::Unpause,
                None => Command::Pause,
            })),
            Action::Pace => effects.push(Effect::Send(Command::SetPace {
                pace: match self.state.pace {
                    Pace::Flowing => Pace::StepByStep,
                    Pace::StepByStep => Pace::Flowing,
                },
            })),
            Action::Abort => {
                self.overlays.retain(|overlay| !matches!(overlay, Overlay::Question(_)));
                self.open(Entry::reason(Purpose::Abort));
            }
            Action::Accept => self.accept(effects),
            Action::NextField => self.next_field(1),
            Action::PreviousField => self.next_field(-1),
            Action::Back => {
                self.overlays.pop();
            }
            Action::Leave if !self.live() => effects.push(Effect::Leave(self.leave())),
            Action::Leave => self.overlays.push(Overlay::Question(Question::Leave)),
            Action::LeaveNow => effects.push(Effect::Leave(self.leave())),
            Action::StopNow => effects.push(Effect::Leave(Leave::Stopped)),
            Action::Interrupt if mutant::removes("21") => effects.push(Effect::Leave(Leave::Stopped)),
            Action::Interrupt if !self.live() => effects.push(Effect::Leave(self.leave())),
            Action::Interrupt => self.overlays.push(Overlay::Question(Question::Interrupt)),
            Action::Suspend => effects.push(Effect::Suspend),
            Action::Redraw => effects.push(Effect::Redraw),
            Action::PlayPause
            | Action::SeekBack
            | Action::SeekForward
            | Action::StepBack
            | Action::StepForward
            | Action::Slower
            | Action::Faster => effects.extend(self.player_act(action).map(Effect::Player)),
            _ => self.look(action),
        }
    }

    fn leave(&self) -> Leave {
        if self.state.finished.is_some() { Leave::Finished } else { Leave::Left }
    }

    fn player_act(&self, action: Action) -> Option<PlayerAct> {
        let status = self.player?;
        Some(match action {
            Action::PlayPause if status.playing => PlayerAct::Pause,
            Action::PlayPause => PlayerAct::Play,
            Action::SeekBack => PlayerAct::SeekBack(SEEK),
            Action::SeekForward => PlayerAct::SeekForward(SEEK),
            Action::StepBack => PlayerAct::PreviousStep,
            Action::StepForward => PlayerAct::NextStep,
            Action::Slower => PlayerAct::Speed((status.speed / 2.0).max(0.25)),
            Action::Faster => PlayerAct::Speed((status.speed * 2.0).min(64.0)),
            _ => return None,
        })
    }

    /// Actions that change only what is seen.
    fn look(&mut self, action: Action) {
        match action {
            // Without suspects the arrows go through the steps, as elsewhere.
            Action::PreviousSuspect | Action::NextSuspect if !self.can(action) => {
                self.select(action == Action::NextSuspect);
            }
            Action::Up | Action::Down => self.select(action == Action::Down),
            Action::Follow => {
                self.selected = None;
                self.scroll = None;
            }
            Action::NextWaiting => self.select_waiting(),
            Action::Output => self.overlays.push(Overlay::Output),
            Action::Notes => self.overlays.push(Overlay::Notes { scroll: 0 }),
            Action::Contacts => self.overlays.push(Overlay::Contacts),
            Action::Facts => self.overlays.push(Overlay::Facts { scroll: 0 }),
            Action::Help => self.overlays.push(Overlay::Help { scroll: 0 }),
            Action::Theme => {
                let name = self.themes.cycle().name.clone();
                self.notice = Some(format!("theme: {name}"));
            }
            Action::LineUp => self.scroll_by(-1),
            Action::LineDown => self.scroll_by(1),
            Action::PageUp => self.scroll_by(-self.page()),
            Action::PageDown => self.scroll_by(self.page()),
            Action::Top => self.scroll_by(i64::MIN / 2),
            Action::Bottom => self.scroll = None,
            Action::Search => self.open(Entry::search(self.search.clone())),
            Action::NextMatch => self.find(true),
            Action::PreviousMatch => self.find(false),
            Action::TypeTarget => {
                let now = self.picker.as_ref().map(|picker| picker.target_text(self.options.zone));
                self.open(Entry::target(now));
            }
            _ => self.point(action),
        }
    }

    fn point(&mut self, action: Action) {
        let jump = match action {
            Action::Earlier(stride) => Jump::Earlier(stride),
            Action::Later(stride) => Jump::Later(stride),
            Action::PreviousMark => Jump::PreviousMark,
            Action::NextMark => Jump::NextMark,
            Action::Incident => Jump::Incident,
            Action::ZoomIn => Jump::Zoom { closer: true },
            Action::ZoomOut => Jump::Zoom { closer: false },
            Action::PreviousSuspect => Jump::PreviousSuspect,
            Action::NextSuspect => Jump::NextSuspect,
            Action::JustBefore => Jump::Before,
            Action::JustAfter => Jump::After,
            _ => return,
        };
        if let Some(picker) = &mut self.picker
            && let Err(why) = picker.jump(jump, &self.preview)
        {
            self.notice = Some(why);
        }
    }

    fn page(&self) -> i64 {
        i64::from(self.size.1 / 2).max(1)
    }

    fn select(&mut self, down: bool) {
        let last = self.state.steps.len().saturating_sub(1);
        let at = self.shown();
        let next = if down { (at + 1).min(last) } else { at.saturating_sub(1) };
        self.selected = (next != self.state.focus()).then_some(next);
        self.scroll = None;
    }

    fn select_waiting(&mut self) {
        let waiting: Vec<usize> = self.state.waiting().collect();
        let shown = self.shown();
        match waiting.iter().find(|&&step| step > shown).or(waiting.first()) {
            Some(&step) => {
                self.selected = (step != self.state.focus()).then_some(step);
                self.scroll = None;
            }
            None => self.notice = Some("no step waits for you".to_owned()),
        }
    }

    /// Scrolls what is uppermost: a page of text, or the output.
    pub(super) fn scroll_by(&mut self, lines: i64) {
        let furthest = overlay::furthest(self, self.size);
        if let Some(Overlay::Help { scroll } | Overlay::Facts { scroll } | Overlay::Notes { scroll }) =
            self.overlays.last_mut()
        {
            let by = isize::try_from(lines).unwrap_or(0);
            *scroll = scroll.saturating_add_signed(by).min(furthest);
            return;
        }
        let Some(step) = self.state.steps.get(self.shown()) else { return };
        let output = &step.output;
        let Some(last) = (output.earlier + output.lines.len() as u64).checked_sub(1) else { return };
        let at = self.scroll.unwrap_or(last);
        let next = at.saturating_add_signed(lines).clamp(output.earlier, last);
        self.scroll = (next < last).then_some(next);
    }

    /// Goes to the next line of output that holds what is searched for.
    pub(super) fn find(&mut self, forward: bool) {
        let Some(needle) = self.search.as_deref().map(str::to_lowercase) else { return };
        let Some(step) = self.state.steps.get(self.shown()) else { return };
        let output = &step.output;
        let count = output.lines.len();
        let at = self.scroll.map_or(count.saturating_sub(1), |scroll| {
            usize::try_from(scroll.saturating_sub(output.earlier)).unwrap_or(0).min(count.saturating_sub(1))
        });
        let order: Vec<usize> = match forward {
            true => (at + 1..count).chain(0..=at.min(count.saturating_sub(1))).collect(),
            false => (0..at).rev().chain((at..count).rev()).collect(),
        };
        let hit = order
            .into_iter()
            .find(|&index| output.lines.get(index).is_some_and(|(_, line)| line.text.to_lowercase().contains(&needle)));
        match hit {
            Some(index) => self.scroll = Some(output.earlier + index as u64),
            None => self.notice = Some(format!("`{needle}` is not in the output that is kept")),
        }
    }

    pub(super) fn open(&mut self, entry: Entry) {
        self.overlays.push(Overlay::Typing(entry));
    }
}
