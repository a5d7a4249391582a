//! Keys as data: what is looked up when a key comes is what help and the key bar show.

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

/// What a key does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    // The step at hand.
    Do,
    Yes,
    No,
    Skip,
    Retry,
    Undo,
    Stop,
    TakeAsDone,
    Choice(u8),
    // The drill.
    Note,
    Finding,
    Pause,
    Pace,
    Abort,
    // Looking.
    Up,
    Down,
    Follow,
    NextWaiting,
    Output,
    Notes,
    Contacts,
    Facts,
    Help,
    Theme,
    Redraw,
    PageUp,
    PageDown,
    LineUp,
    LineDown,
    Top,
    Bottom,
    Search,
    NextMatch,
    PreviousMatch,
    // The recovery point.
    Earlier(Stride),
    Later(Stride),
    PreviousMark,
    NextMark,
    ZoomIn,
    ZoomOut,
    Incident,
    TypeTarget,
    PreviousSuspect,
    NextSuspect,
    JustBefore,
    JustAfter,
    // A replay.
    PlayPause,
    SeekBack,
    SeekForward,
    StepBack,
    StepForward,
    Slower,
    Faster,
    // Typing.
    Accept,
    NextField,
    PreviousField,
    // At home.
    Replay,
    // Going away.
    Back,
    Leave,
    LeaveNow,
    StopNow,
    Interrupt,
    Suspend,
}

/// How far the recovery point's cursor goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stride {
    /// A column of the time line.
    Cell,
    /// Ten columns.
    Big,
    Second,
}

/// Where a binding holds. A screen has several at once; the first that knows the key wins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Context {
    Always,
    Typing,
    TypingMany,
    LeaveQuestion,
    LeaveOrStop,
    InterruptQuestion,
    InterruptOrStop,
    PointQuestion,
    StopQuestion,
    UndoQuestion,
    AgainQuestion,
    Overlay,
    Output,
    Declare,
    Go,
    Confirm,
    TypeName,
    Input,
    Choose,
    Point,
    Failed,
    InDoubt,
    Finished,
    Replay,
    /// A drill that goes on.
    Drive,
    View,
    Home,
    HomeRunbook,
    HomeUnderWay,
    HomePast,
}

impl Context {
    pub fn title(self) -> &'static str {
        match self {
            Self::Always => "Always",
            Self::Typing | Self::TypingMany => "While you type",
            Self::LeaveQuestion
            | Self::LeaveOrStop
            | Self::InterruptQuestion
            | Self::InterruptOrStop
            | Self::PointQuestion
            | Self::StopQuestion
            | Self::UndoQuestion
            | Self::AgainQuestion => "The question",
            Self::Overlay => "This page",
            Self::Output => "The output",
            Self::Declare
            | Self::Go
            | Self::Confirm
            | Self::TypeName
            | Self::Input
            | Self::Choose
            | Self::Failed
            | Self::InDoubt => "This step",
            Self::Point => "The recovery point",
            Self::Finished => "The end",
            Self::Replay => "The replay",
            Self::Drive => "The drill",
            Self::View => "Looking",
            Self::Home => "Here",
            Self::HomeRunbook => "The runbook",
            Self::HomeUnderWay | Self::HomePast => "The drill",
        }
    }
}

/// A key with its modifier.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key {
    pub code: KeyCode,
    pub ctrl: bool,
    pub shift: bool,
}

const fn key(c: char) -> Key {
    Key { code: KeyCode::Char(c), ctrl: false, shift: false }
}

const fn ctrl(c: char) -> Key {
    Key { code: KeyCode::Char(c), ctrl: true, shift: false }
}

const fn code(code: KeyCode) -> Key {
    Key { code, ctrl: false, shift: false }
}

const fn shift_code(code: KeyCode) -> Key {
    Key { code, ctrl: false, shift: true }
}

const fn ctrl_code(code: KeyCode) -> Key {
    Key { code, ctrl: true, shift: false }
}

impl Key {
    fn matches(self, event: &KeyEvent) -> bool {
        if event.modifiers.contains(KeyModifiers::ALT) || event.modifiers.contains(KeyModifiers::CONTROL) != self.ctrl {
            return false;
        }
        // Shift is part of a character, but not of an arrow.
        let shift = event.modifiers.contains(KeyModifiers::SHIFT);
        match (self.code, event.code) {
            (KeyCode::Char(a), KeyCode::Char(b)) => a == b,
            (a, b) => a == b && (a == KeyCode::BackTab || shift == self.shift),
        }
    }

    /// As a person reads it: `Enter`, `^C`, `↑`.
    pub fn name(self) -> String {
        let name = match self.code {
            KeyCode::Char(' ') => "Space".to_owned(),
            KeyCode::Char(c) if self.ctrl => return format!("^{}", c.to_ascii_uppercase()),
            KeyCode::Char(c) => c.to_string(),
            KeyCode::Enter => "Enter".to_owned(),
            KeyCode::Esc => "Esc".to_owned(),
            KeyCode::Tab => "Tab".to_owned(),
            KeyCode::BackTab => "Shift-Tab".to_owned(),
            KeyCode::Up => "↑".to_owned(),
            KeyCode::Down => "↓".to_owned(),
            KeyCode::Left => "←".to_owned(),
            KeyCode::Right => "→".to_owned(),
            KeyCode::PageUp => "PgUp".to_owned(),
            KeyCode::PageDown => "PgDn".to_owned(),
            KeyCode::Home => "Home".to_owned(),
            KeyCode::End => "End".to_owned(),
            other => format!("{other:?}"),
        };
        match (self.ctrl, self.shift) {
            (true, _) => format!("Ctrl-{name}"),
            (_, true) => format!("Shift-{name}"),
            _ => name,
        }
    }
}

/// One line of the keymap.
#[derive(Debug)]
pub struct Binding {
    pub context: Context,
    pub keys: &'static [Key],
    pub action: Action,
    pub label: &'static str,
    /// Place in the key bar: lower comes first and stays longest when room runs out; 0 is only in help.
    pub bar: u8,
}

const fn bind(context: Context, keys: &'static [Key], action: Action, label: &'static str, bar: u8) -> Binding {
    Binding { context, keys, action, label, bar }
}

use Action as A;
use Context as C;

const ENTER: &[Key] = &[code(KeyCode::Enter)];
const ESC: &[Key] = &[code(KeyCode::Esc)];

/// Every key there is.
pub static KEYMAP: &[Binding] = &[
    bind(C::Always, &[ctrl('c')], A::Interrupt, "interrupt: abort, leave or stay", 0),
    bind(C::Always, &[ctrl('z')], A::Suspend, "suspend lifeboat; fg brings it back", 0),
    bind(C::Always, &[ctrl('l')], A::Redraw, "draw the screen again", 0),
    bind(C::Typing, ENTER, A::Accept, "accept", 1),
    bind(C::Typing, ESC, A::Back, "back", 2),
    bind(C::TypingMany, &[code(KeyCode::Tab), code(KeyCode::Down)], A::NextField, "next field", 3),
    bind(C::TypingMany, &[code(KeyCode::BackTab), code(KeyCode::Up)], A::PreviousField, "previous field", 0),
    bind(C::LeaveQuestion, &[key('y'), code(KeyCode::Enter)], A::LeaveNow, "leave", 1),
    bind(C::LeaveQuestion, &[code(KeyCode::Esc), key('n')], A::Back, "stay", 2),
    bind(C::LeaveOrStop, &[key('y'), code(KeyCode::Enter)], A::LeaveNow, "leave, it goes on", 1),
    bind(C::LeaveOrStop, &[key('s')], A::StopNow, "stop it too, until `lifeboat resume`", 2),
    bind(C::LeaveOrStop, &[code(KeyCode::Esc), key('n')], A::Back, "stay", 3),
    bind(C::InterruptQuestion, &[key('a')], A::Abort, "abort the drill", 1),
    bind(C::InterruptQuestion, &[key('l'), ctrl('c')], A::LeaveNow, "leave", 2),
    bind(C::InterruptQuestion, &[code(KeyCode::Esc), key('n')], A::Back, "stay", 3),
    bind(C::InterruptOrStop, &[ctrl('c'), key('s')], A::StopNow, "stop it", 1),
    bind(C::InterruptOrStop, &[key('l')], A::LeaveNow, "leave, it goes on", 2),
    bind(C::InterruptOrStop, &[key('a')], A::Abort, "abort for good", 3),
    bind(C::InterruptOrStop, &[code(KeyCode::Esc), key('n')], A::Back, "stay", 4),
    bind(C::PointQuestion, &[code(KeyCode::Enter), key('y')], A::Yes, "choose it", 1),
    bind(C::PointQuestion, &[code(KeyCode::Esc), key('n')], A::Back, "back to the time line", 2),
    bind(C::StopQuestion, &[key('y')], A::Yes, "stop: the drill ends as failed", 1),
    bind(C::StopQuestion, &[code(KeyCode::Esc), key('n')], A::Back, "back", 2),
    bind(C::UndoQuestion, &[key('y')], A::Yes, "undo it", 1),
    bind(C::UndoQuestion, &[code(KeyCode::Esc), key('n')], A::Back, "back", 2),
    bind(C::AgainQuestion, &[key('y')], A::Yes, "do it again", 1),
    bind(C::AgainQuestion, &[code(KeyCode::Esc), key('n')], A::Back, "back", 2),
    bind(C::Output, &[code(KeyCode::Esc), key('o')], A::Back, "back", 1),
    bind(C::Output, &[code(KeyCode::Up), key('k')], A::LineUp, "up", 2),
    bind(C::Output, &[code(KeyCode::Down), key('j')], A::LineDown, "down", 2),
    bind(C::Output, &[key('/')], A::Search, "search", 3),
    bind(C::Output, &[key('n')], A::NextMatch, "next match", 4),
    bind(C::Output, &[key('N')], A::PreviousMatch, "previous match", 4),
    bind(C::Overlay, &[code(KeyCode::Esc), code(KeyCode::Enter)], A::Back, "back", 1),
    bind(C::Overlay, &[code(KeyCode::Up), key('k')], A::LineUp, "up", 2),
    bind(C::Overlay, &[code(KeyCode::Down), key('j')], A::LineDown, "down", 2),
    bind(C::Overlay, &[code(KeyCode::PageUp)], A::PageUp, "page up", 0),
    bind(C::Overlay, &[code(KeyCode::PageDown)], A::PageDown, "page down", 0),
    bind(C::Declare, ENTER, A::Do, "declare: the clock starts", 1),
    bind(C::Go, ENTER, A::Do, "go", 1),
    bind(C::Confirm, &[code(KeyCode::Enter), key('y')], A::Yes, "yes, it is so", 1),
    bind(C::Confirm, &[key('n')], A::No, "no", 1),
    bind(C::TypeName, ENTER, A::Do, "type the name", 1),
    bind(C::Input, ENTER, A::Do, "type the answer", 1),
    bind(C::Choose, ENTER, A::Do, "choose", 1),
    bind(C::Choose, &[key('1')], A::Choice(1), "the first, and so on to 9", 0),
    bind(C::Choose, &[key('2')], A::Choice(2), "", 0),
    bind(C::Choose, &[key('3')], A::Choice(3), "", 0),
    bind(C::Choose, &[key('4')], A::Choice(4), "", 0),
    bind(C::Choose, &[key('5')], A::Choice(5), "", 0),
    bind(C::Choose, &[key('6')], A::Choice(6), "", 0),
    bind(C::Choose, &[key('7')], A::Choice(7), "", 0),
    bind(C::Choose, &[key('8')], A::Choice(8), "", 0),
    bind(C::Choose, &[key('9')], A::Choice(9), "", 0),
    bind(C::Failed, &[key('r')], A::Retry, "retry", 1),
    bind(C::Failed, &[key('S')], A::Stop, "stop the drill", 3),
    bind(C::InDoubt, &[key('r')], A::Retry, "repeat it", 1),
    bind(C::InDoubt, &[key('d')], A::TakeAsDone, "take it as done", 1),
    bind(C::InDoubt, &[key('S')], A::Stop, "stop the drill", 3),
    bind(C::Point, ENTER, A::Do, "choose this point", 1),
    bind(C::Point, &[key('b')], A::JustBefore, "just before the suspect", 2),
    bind(C::Point, &[code(KeyCode::Up)], A::PreviousSuspect, "previous", 2),
    bind(C::Point, &[code(KeyCode::Down)], A::NextSuspect, "next suspect", 2),
    bind(C::Point, &[code(KeyCode::Left)], A::Earlier(Stride::Cell), "earlier", 3),
    bind(C::Point, &[code(KeyCode::Right)], A::Later(Stride::Cell), "later", 3),
    bind(
        C::Point,
        &[shift_code(KeyCode::Left), ctrl_code(KeyCode::Left)],
        A::Earlier(Stride::Big),
        "ten times as far",
        0,
    ),
    bind(
        C::Point,
        &[shift_code(KeyCode::Right), ctrl_code(KeyCode::Right)],
        A::Later(Stride::Big),
        "ten times as far",
        0,
    ),
    bind(C::Point, &[key('<')], A::Earlier(Stride::Second), "one second earlier", 0),
    bind(C::Point, &[key('>')], A::Later(Stride::Second), "one second later", 0),
    bind(C::Point, &[key('+'), key('=')], A::ZoomIn, "zoom in", 3),
    bind(C::Point, &[key('-')], A::ZoomOut, "out", 3),
    bind(C::Point, &[key('i')], A::Incident, "to the incident", 4),
    bind(C::Point, &[key('e')], A::TypeTarget, "type a target", 3),
    bind(C::Point, &[key('a')], A::JustAfter, "just after it, or before it again", 0),
    bind(C::Point, &[key('[')], A::PreviousMark, "previous backup, snapshot or end", 5),
    bind(C::Point, &[key(']')], A::NextMark, "next", 5),
    bind(C::Finished, ENTER, A::Leave, "leave", 1),
    bind(C::Replay, &[key(' ')], A::PlayPause, "play or pause", 1),
    bind(C::Replay, &[code(KeyCode::Left)], A::SeekBack, "10 s back", 2),
    bind(C::Replay, &[code(KeyCode::Right)], A::SeekForward, "10 s on", 2),
    bind(C::Replay, &[key('[')], A::StepBack, "step before", 3),
    bind(C::Replay, &[key(']')], A::StepForward, "step after", 3),
    bind(C::Replay, &[key('-')], A::Slower, "slower", 4),
    bind(C::Replay, &[key('+'), key('=')], A::Faster, "faster", 4),
    bind(C::Drive, &[key('s')], A::Skip, "skip", 4),
    bind(C::Drive, &[key('r')], A::Retry, "retry", 4),
    bind(C::Drive, &[key('u')], A::Undo, "undo", 4),
    bind(C::Drive, &[key('n'), key('N')], A::Note, "note", 5),
    bind(C::Drive, &[key('F')], A::Finding, "finding", 8),
    bind(C::Drive, &[key('p')], A::Pause, "pause", 6),
    bind(C::Drive, &[key('m')], A::Pace, "pace", 9),
    bind(C::Drive, &[key('x')], A::Abort, "abort", 9),
    bind(C::View, &[key('o')], A::Output, "output", 5),
    bind(C::View, &[key('c')], A::Contacts, "contacts", 7),
    bind(C::View, &[key('v')], A::Facts, "values", 8),
    bind(C::View, &[key('l')], A::Notes, "list of notes and findings", 0),
    bind(C::View, &[code(KeyCode::Up), key('k')], A::Up, "look at the step above", 0),
    bind(C::View, &[code(KeyCode::Down), key('j')], A::Down, "look at the step below", 0),
    bind(C::View, &[key('f'), code(KeyCode::Esc)], A::Follow, "follow the drill again", 0),
    bind(C::View, &[code(KeyCode::Tab)], A::NextWaiting, "next step that waits for you", 0),
    bind(C::View, &[code(KeyCode::PageUp)], A::PageUp, "output up", 0),
    bind(C::View, &[code(KeyCode::PageDown)], A::PageDown, "output down", 0),
    bind(C::View, &[code(KeyCode::Home), key('g')], A::Top, "output from the beginning", 0),
    bind(C::View, &[code(KeyCode::End), key('G')], A::Bottom, "newest output, and follow it", 0),
    bind(C::View, &[key('/')], A::Search, "search the output", 0),
    bind(C::View, &[key('t')], A::Theme, "next theme", 0),
    bind(C::HomeRunbook, ENTER, A::Do, "run", 1),
    bind(C::HomeUnderWay, ENTER, A::Do, "resume", 1),
    bind(C::HomeUnderWay, &[key('r')], A::Replay, "replay", 2),
    bind(C::HomePast, ENTER, A::Do, "report", 1),
    bind(C::HomePast, &[key('r')], A::Replay, "replay", 2),
    bind(C::Home, &[code(KeyCode::Up), key('k')], A::Up, "up", 3),
    bind(C::Home, &[code(KeyCode::Down), key('j')], A::Down, "down", 3),
    bind(C::Home, &[key('?')], A::Help, "help", 4),
    bind(C::Home, &[key('q'), ctrl('c')], A::Leave, "quit", 4),
    bind(C::Home, &[code(KeyCode::Tab)], A::NextWaiting, "next group", 5),
    bind(C::Home, &[key('t')], A::Theme, "theme", 6),
    bind(C::View, &[key('?')], A::Help, "help", 10),
    bind(C::View, &[key('q')], A::Leave, "leave", 10),
];

/// The action of a key, given the contexts from the most specific to the most general.
pub fn find(contexts: &[Context], event: &KeyEvent) -> Option<Action> {
    contexts.iter().find_map(|context| {
        let mut bindings = KEYMAP.iter().filter(|binding| binding.context == *context);
        bindings.find(|binding| binding.keys.iter().any(|key| key.matches(event))).map(|binding| binding.action)
    })
}

/// Whether a key is `^Z`, for screens that handle it before anything else.
pub fn is_suspend(event: &KeyEvent) -> bool {
    find(&[Context::Always], event) == Some(Action::Suspend)
}

/// The bindings of the contexts with the keys that reach them: a key that a more specific context takes is left out, and
/// a binding without any key left too.
pub fn reachable(contexts: &[Context]) -> Vec<(&'static Binding, Vec<Key>)> {
    let mut taken: Vec<Key> = Vec::new();
    let mut found = Vec::new();
    for context in contexts {
        let bindings: Vec<_> = KEYMAP.iter().filter(|binding| binding.context == *context).collect();
        for binding in &bindings {
            let keys: Vec<Key> = binding.keys.iter().copied().filter(|key| !taken.contains(key)).collect();
            if !keys.is_empty() {
                found.push((*binding, keys));
            }
        }
        taken.extend(bindings.iter().flat_map(|binding| binding.keys));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_context_binds_a_key_twice() {
        for (index, one) in KEYMAP.iter().enumerate() {
            for other in KEYMAP[index + 1..].iter().filter(|other| other.context == one.context) {
                for key in one.keys {
                    assert!(!other.keys.contains(key), "{} in {:?}", key.name(), one.context);
                }
            }
        }
    }

    #[test]
    fn a_key_taken_by_the_step_is_not_shown_for_the_drill() {
        let contexts = [Context::Confirm, Context::Drive, Context::View];
        let found = reachable(&contexts);
        let note = found.iter().find(|(binding, _)| binding.action == Action::Note).unwrap();
        assert_eq!(note.1[0].name(), "N");
        let event = KeyEvent::new(KeyCode::Char('n'), KeyModifiers::NONE);
        assert_eq!(find(&contexts, &event), Some(Action::No));
    }

    #[test]
    fn shift_belongs_to_a_character_but_not_to_an_arrow() {
        let upper = KeyEvent::new(KeyCode::Char('S'), KeyModifiers::SHIFT);
        assert_eq!(find(&[Context::Failed], &upper), Some(Action::Stop));
        let arrow = KeyEvent::new(KeyCode::Left, KeyModifiers::SHIFT);
        assert_eq!(find(&[Context::Point], &arrow), Some(Action::Earlier(Stride::Big)));
        let alt = KeyEvent::new(KeyCode::Char('x'), KeyModifiers::ALT);
        assert_eq!(find(&[Context::Drive], &alt), None);
    }
}
