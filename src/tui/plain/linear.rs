//! The linear mode's own state: what was said, what is asked, and what a typed line means.

use chrono::{DateTime, Utc};

use crate::clock::Stamp;
use crate::drill::{DrillState, Elapsed, StepStatus};
use crate::event::{Answer, Ask, Command, Envelope, InputKind, Pace, parse_time};
use crate::mutant;
use crate::process::GRACE;

use super::super::format;
use super::super::moment;
use super::super::picker::Picker;
use super::super::session::{Leave, Options, Preview};
use super::ask;
use super::printer::{Printer, progress_words, title};

/// What a line or an event leads to.
#[derive(Debug, PartialEq)]
pub(super) enum Out {
    Say(String),
    Send(Command),
    Leave(Leave),
}

pub(super) struct Linear {
    pub(super) state: DrillState,
    pub(super) options: Options,
    preview: Preview,
    printer: Printer,
    /// A replay takes no answers.
    replay: bool,
    picker: Option<Picker>,
    /// The question that was last put: its step, and since when it stands.
    put: Option<(usize, Elapsed)>,
    /// The step that the operator turned to, when several wait.
    chosen: Option<usize>,
    declared_asked: bool,
    /// Something that wants one more `yes`.
    pending: Option<Command>,
    /// Ctrl-C was pressed, and nothing was typed since.
    interrupted: bool,
}

const HELP: &str = "\
steps               every step and where it stands
where               the clocks, and what runs now
text                the step's text and question again
step ID             turn to another step that waits
output              the newest lines of the step's output
skip REASON         skip the step
retry [ID]          try a step again; one that has passed is opened again
undo [ID]           take a step's effect back
note TEXT           write a note down
finding TEXT        write a finding down; `finding TEXT; OWNER; DUE`
pause, go           no further step starts; go on
pace step, pace flow    every step waits for you, or not
contacts            who can help
before N, after N   at the recovery point: just before or just after suspect N; then yes
abort REASON        end the drill
leave               leave this program";

impl Linear {
    pub(super) fn new(state: DrillState, options: Options, preview: Preview, replay: bool) -> Self {
        let printer = Printer::new(options.zone, options.ascii, true);
        Self {
            state,
            options,
            preview,
            printer,
            replay,
            picker: None,
            put: None,
            chosen: None,
            declared_asked: false,
            pending: None,
            interrupted: false,
        }
    }

    /// What stands at the beginning.
    pub(super) fn begin(&mut self) -> Vec<Out> {
        let opening = &self.state.opening;
        let mode = match opening.mode {
            crate::event::Mode::Sandbox => opening.mode.word().to_owned(),
            mode => format!("{} · {}", opening.environment.to_uppercase(), mode.word()),
        };
        let mut lines = vec![
            format!("{mode}: {}", self.state.runbook.title),
            format!("Opened {}. Type help for the commands.", format::both(self.state.opened.wall, self.options.zone)),
        ];
        if self.replay {
            lines.push("This is a replay: nothing is done.".to_owned());
        }
        let mut outs = self.say(lines);
        outs.extend(self.settle());
        outs
    }

    pub(super) fn snapshot(&mut self, state: DrillState) -> Vec<Out> {
        self.state = state;
        self.settle()
    }

    /// Takes in an envelope; the caller asks for a snapshot when it is not the next one.
    pub(super) fn envelope(&mut self, envelope: &Envelope) -> Vec<Out> {
        self.state.apply(envelope);
        let lines = self.printer.lines(&self.state, envelope);
        let mut outs: Vec<Out> = lines.into_iter().map(Out::Say).collect();
        outs.extend(self.settle());
        outs
    }

    pub(super) fn say(&self, lines: impl IntoIterator<Item = String>) -> Vec<Out> {
        lines.into_iter().map(|line| Out::Say(self.printer.finish(&line))).collect()
    }

    /// Puts the question that is next, once.
    fn settle(&mut self) -> Vec<Out> {
        if self.replay || self.state.finished.is_some() {
            return Vec::new();
        }
        if self.state.declared.is_none() {
            if std::mem::replace(&mut self.declared_asked, true) {
                return Vec::new();
            }
            let lines = [
                String::new(),
                "Nothing is touched yet. Type declare and what is broken: the RTO clock starts then.".to_owned(),
            ];
            return self.say(lines);
        }
        let waits = |step: usize| self.state.ask_of(step).is_some();
        let Some(step) = self.chosen.filter(|&step| waits(step)).or_else(|| self.state.waiting().next()) else {
            self.put = None;
            self.picker = None;
            return Vec::new();
        };
        let since = self.state.steps[step].ask.as_ref().map(|pending| pending.since.elapsed).unwrap_or_default();
        if self.put == Some((step, since)) {
            return Vec::new();
        }
        self.put = Some((step, since));
        self.pending = None;
        let mut lines = ask::lines(&self.state, step, self.options.zone);
        self.picker = None;
        if let Some(Ask::RecoveryPoint { window, suggested }) = self.state.ask_of(step).cloned() {
            let picker = Picker::new(step, since, *window, suggested, &self.preview);
            lines.extend(self.candidate(&picker));
            self.picker = Some(picker);
        }
        self.say(lines)
    }

    /// The suspects, and what the target means.
    fn candidate(&self, picker: &Picker) -> Vec<String> {
        let zone = self.options.zone;
        let mut lines = ask::suspects(picker, self.state.latest.wall, zone);
        lines.extend(ask::candidate(picker, &self.state, zone));
        lines
    }

    /// The step that a line is about.
    fn step(&self) -> usize {
        self.put.map_or_else(|| self.state.focus(), |(step, _)| step)
    }

    /// Ctrl-C: the first asks.
    pub(super) fn interrupt(&mut self) -> Vec<Out> {
        let live = !self.replay && !self.options.read_only && self.state.finished.is_none();
        if live && !std::mem::replace(&mut self.interrupted, true) && !mutant::removes("21") {
            let grace = GRACE.as_secs();
            return self.say([
                format!(
                    "Ctrl-C: once more stops the drill: what runs gets TERM, and KILL after {grace} s; `lifeboat resume` \
                     goes on with it."
                ),
                "Type anything, and it goes on as before.".to_owned(),
            ]);
        }
        vec![Out::Leave(match self.state.finished {
            Some(_) => Leave::Finished,
            None if self.options.can_stop => Leave::Stopped,
            None => Leave::Left,
        })]
    }

    /// Takes a typed line.
    pub(super) fn line(&mut self, line: &str, now: Stamp) -> Vec<Out> {
        if std::mem::take(&mut self.interrupted) {
            return self.say(["It goes on.".to_owned()]);
        }
        let line = super::super::text::clean(line.trim()).into_owned();
        let takes_text =
            !self.replay && matches!(self.put.and_then(|(step, _)| self.state.ask_of(step)), Some(Ask::Input { .. }));
        match line.strip_prefix('/') {
            Some(command) => self.command(command, now),
            None if takes_text && self.pending.is_none() => self.answer(&line, now),
            None => self.command(&line, now),
        }
    }

    fn command(&mut self, line: &str, now: Stamp) -> Vec<Out> {
        let (word, rest) = line.split_once(char::is_whitespace).map_or((line, ""), |(word, rest)| (word, rest.trim()));
        let pending = self.pending.take();
        if let Some(command) = pending {
            return match word {
                "yes" | "y" => vec![Out::Send(command)],
                _ => self.say(["Nothing was done.".to_owned()]),
            };
        }
        if let Some(outs) = self.look(word, rest, now) {
            return outs;
        }
        if self.replay || self.state.finished.is_some() {
            return self
                .say(["Here only where, steps, text, output, contacts, help and leave mean something.".to_owned()]);
        }
        self.act(word, rest).unwrap_or_else(|| self.answer(line, now))
    }

    /// Words that only show something.
    fn look(&mut self, word: &str, rest: &str, now: Stamp) -> Option<Vec<Out>> {
        let lines: Vec<String> = match word {
            "help" | "?" => HELP.lines().map(str::to_owned).collect(),
            "steps" => self.steps(),
            "where" => self.whereabouts(self.state.elapsed_at(now)),
            "text" if self.state.runbook.steps.is_empty() => Vec::new(),
            "text" => {
                let mut lines = ask::lines(&self.state, self.step(), self.options.zone);
                if let Some(picker) = &self.picker {
                    lines.extend(self.candidate(picker));
                }
                lines
            }
            "step" => match self.state.runbook.index_of(rest) {
                Some(step) if self.state.ask_of(step).is_some() => {
                    self.chosen = Some(step);
                    self.put = None;
                    return Some(self.settle());
                }
                Some(_) => vec![format!("{rest} does not wait for you.")],
                None => vec![format!("There is no step {rest}; steps lists them.")],
            },
            "output" => self.output(),
            "contacts" => self.contacts(),
            "leave" | "quit" | "exit" => {
                let over = self.state.finished.is_some();
                return Some(vec![Out::Leave(if over { Leave::Finished } else { Leave::Left })]);
            }
            "" if self.picker.is_none() => Vec::new(),
            _ => return None,
        };
        Some(self.say(lines))
    }

    /// Words about the drill as a whole, and remedies.
    fn act(&mut self, word: &str, rest: &str) -> Option<Vec<Out>> {
        let text = rest.to_owned();
        let id = |index: usize| self.state.runbook.steps[index].id.clone();
        let named = |rest: &str| match self.state.runbook.index_of(rest) {
            Some(index) => Ok(index),
            None if rest.is_empty() => Ok(self.step()),
            None => Err(format!("There is no step {rest}; steps lists them.")),
        };
        let command = match word {
            "declare" | "skip" | "note" | "finding" | "abort" if rest.is_empty() => {
                return Some(self.say([format!("{word} wants words after it; the report shows them.")]));
            }
            "declare" if self.state.declared.is_some() => {
                return Some(self.say(["It is declared already.".to_owned()]));
            }
            "declare" => Command::Declare { reason: text },
            "skip" => Command::Skip { step: id(self.step()), reason: text },
            "note" => Command::Note { text },
            "finding" => {
                let mut parts = rest.split(';').map(|part| part.trim().to_owned());
                let text = parts.next().unwrap_or_default();
                let mut part = || parts.next().filter(|part| !part.is_empty());
                Command::Finding { text, owner: part(), due: part() }
            }
            "pause" => Command::Pause,
            "go" | "unpause" => Command::Unpause,
            "pace" if rest.starts_with("step") => Command::SetPace { pace: Pace::StepByStep },
            "pace" if rest.starts_with("flow") => Command::SetPace { pace: Pace::Flowing },
            "pace" => return Some(self.say(["pace step, or pace flow.".to_owned()])),
            "retry" | "repeat" | "undo" => {
                let step = match named(rest) {
                    Ok(step) => step,
                    Err(why) => return Some(self.say([why])),
                };
                let asked = matches!(self.state.ask_of(step), Some(Ask::AfterFailure { .. } | Ask::InDoubt { .. }));
                match word {
                    "undo" => return Some(self.once_more(Command::Undo { step: id(step) }, "take its effect back")),
                    _ if asked => Command::Answer { step: id(step), answer: Answer::Retry },
                    _ if self.state.steps[step].status.lets_pass() => {
                        let what = "do it again; every step after it that has begun is done again too";
                        return Some(self.once_more(Command::Retry { step: id(step) }, what));
                    }
                    _ => Command::Retry { step: id(step) },
                }
            }
            "abort" => {
                return Some(self.once_more(Command::Abort { reason: text }, "end the drill; it cannot be continued"));
            }
            _ => return None,
        };
        Some(vec![Out::Send(command)])
    }

    fn once_more(&mut self, command: Command, what: &str) -> Vec<Out> {
        self.pending = Some(command);
        self.say([format!("This will {what}. Type yes, or anything else to leave it.")])
    }

    /// A line that answers the question that was put.
    fn answer(&mut self, line: &str, now: Stamp) -> Vec<Out> {
        let Some((step, _)) = self.put else {
            return match line {
                "" => Vec::new(),
                _ => self.say([format!("`{line}` means nothing now; help lists the commands.")]),
            };
        };
        let Some(ask) = self.state.ask_of(step).cloned() else { return Vec::new() };
        let (word, rest) = line.split_once(char::is_whitespace).map_or((line, ""), |(word, rest)| (word, rest.trim()));
        let yes = matches!(word, "yes" | "y");
        let answer = match ask {
            Ask::Go { .. } if yes => Ok(Answer::Yes),
            Ask::Go { .. } => Err("Type yes to do it, or skip REASON.".to_owned()),
            Ask::Confirm { .. } if yes => Ok(Answer::Yes),
            Ask::Confirm { .. } if matches!(word, "no" | "n") && !rest.is_empty() => {
                Ok(Answer::No { reason: rest.to_owned() })
            }
            Ask::Confirm { .. } => Err("Type yes, or no and what it is like.".to_owned()),
            Ask::TypeName { name, .. } if line == name => Ok(Answer::Typed { name }),
            Ask::TypeName { .. } if word == "no" => Ok(Answer::No { reason: "left as it is".to_owned() }),
            Ask::TypeName { name, .. } => Err(format!("That is not {name}; nothing was done.")),
            Ask::Input { default, input, .. } => {
                let text = if line.is_empty() { default.unwrap_or_default() } else { line.to_owned() };
                match moment::read(&text, now.wall, self.options.zone) {
                    // What was meant is said before it is taken.
                    Ok(at) if input == InputKind::Time && parse_time(&text).is_err() => {
                        return self.take_moment(step, at);
                    }
                    _ => check_input(&text, input).map(|()| Answer::Text { text }),
                }
            }
            Ask::Choose { options, .. } => {
                match word.parse::<usize>().ok().and_then(|n| options.get(n.checked_sub(1)?)) {
                    Some(option) => Ok(Answer::Chosen { value: option.value.clone() }),
                    None => Err(format!("Type a number from 1 to {}.", options.len())),
                }
            }
            Ask::RecoveryPoint { .. } => return self.point(line, step, now),
            Ask::AfterFailure { .. } if word == "stop" => Ok(Answer::Stop),
            Ask::AfterFailure { .. } => Err("Type retry, skip REASON, undo, or stop.".to_owned()),
            Ask::InDoubt { .. } if word == "stop" => Ok(Answer::Stop),
            Ask::InDoubt { .. } if word == "done" && !rest.is_empty() => {
                Ok(Answer::TakenAsDone { reason: rest.to_owned() })
            }
            Ask::InDoubt { .. } => Err("Type repeat, done REASON, skip REASON, or stop.".to_owned()),
        };
        match answer {
            Ok(Answer::Stop) => {
                let command = Command::Answer { step: self.state.runbook.steps[step].id.clone(), answer: Answer::Stop };
                self.once_more(command, "end the drill as failed; it cannot be continued")
            }
            Ok(answer) => vec![Out::Send(Command::Answer { step: self.state.runbook.steps[step].id.clone(), answer })],
            Err(why) => self.say([why]),
        }
    }

    fn take_moment(&mut self, step: usize, at: DateTime<Utc>) -> Vec<Out> {
        let zone = self.options.zone;
        let answer = Answer::Text { text: moment::write(at, zone) };
        self.pending = Some(Command::Answer { step: self.state.runbook.steps[step].id.clone(), answer });
        self.say([format!("That is {}. Type yes, or anything else to leave it.", format::both(at, zone))])
    }

    fn point(&mut self, line: &str, step: usize, now: Stamp) -> Vec<Out> {
        let id = self.state.runbook.steps[step].id.clone();
        let Some(picker) = &mut self.picker else { return Vec::new() };
        if matches!(line, "yes" | "y") {
            return match &picker.preview {
                Ok(preview) => {
                    vec![Out::Send(Command::Answer {
                        step: id,
                        answer: Answer::Point { point: preview.point.clone() },
                    })]
                }
                Err(_) => self.say(["This point is not possible; type another.".to_owned()]),
            };
        }
        let (inclusive, text) = match line.split_once(char::is_whitespace) {
            Some(("before", rest)) => (Some(false), rest.trim()),
            Some(("after", rest)) => (Some(true), rest.trim()),
            _ => (None, line),
        };
        // No target is a bare number: it is a suspect's.
        if let Ok(number) = text.parse::<usize>() {
            let count = picker.suspects.len();
            return match number.checked_sub(1).filter(|index| *index < count) {
                Some(index) => {
                    picker.take_suspect(index, inclusive.unwrap_or(false), &self.preview);
                    let lines = self.picker.as_ref().map(|picker| self.candidate(picker)).unwrap_or_default();
                    self.say(lines)
                }
                None if count == 0 => self.say(["✗ There is no suspect in the WAL that was read.".to_owned()]),
                None => self.say([format!("✗ The suspects have the numbers 1 to {count}.")]),
            };
        }
        match moment::target(text, now.wall, self.options.zone) {
            Ok(target) => {
                picker.inclusive = inclusive.unwrap_or(picker.inclusive);
                picker.set(target, &self.preview);
                let lines = ask::candidate(picker, &self.state, self.options.zone);
                self.say(lines)
            }
            Err(error) => self.say([format!("✗ {error}")]),
        }
    }

    fn steps(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for phase in &self.state.runbook.phases {
            lines.push(phase.title.to_uppercase());
            for index in phase.steps.clone() {
                let (step, state) = (&self.state.runbook.steps[index], &self.state.steps[index]);
                let word = if state.ask.is_some() { "waiting for you" } else { state.status.word() };
                lines.push(format!("  {:<16} {:<16} {}", word, step.id, self.state.expand(&step.title)));
            }
        }
        lines
    }

    fn whereabouts(&self, now: Elapsed) -> Vec<String> {
        let state = &self.state;
        let mut lines = Vec::new();
        match state.rto(now) {
            Some(rto) => {
                let target = state.rto_target().map(|t| format!(" of {}", format::words(t))).unwrap_or_default();
                let forecast =
                    state.forecast(now).map(|f| format!(", forecast {}", format::hms(f.rto))).unwrap_or_default();
                lines.push(format!("RTO {}{target}{forecast}", format::hms(rto)));
            }
            None => lines.push("Not declared yet.".to_owned()),
        }
        if state.paused.is_some() {
            lines.push("Paused.".to_owned());
        }
        for index in state.running() {
            let (step, of) = (&state.runbook.steps[index], &state.steps[index]);
            let took = of.duration(now).map(format::short).unwrap_or_default();
            lines.push(format!("{} runs since {took}", state.expand(&step.title)));
            lines.extend(of.progress.iter().map(|lane| format!("  {}", progress_words(lane))));
        }
        for index in state.waiting() {
            let since =
                state.steps[index].ask.as_ref().map(|p| now.saturating_sub(p.since.elapsed)).unwrap_or_default();
            let name = title(state, &state.runbook.steps[index].id);
            lines.push(format!("{name} waits for you since {}", format::short(since)));
        }
        let done = state.steps.iter().filter(|step| step.status.lets_pass()).count();
        let failed = state.steps.iter().filter(|step| step.status == StepStatus::Failed).count();
        let failed = if failed > 0 { format!(", {failed} failed") } else { String::new() };
        lines.push(format!("{done} of {} steps done{failed}", state.steps.len()));
        lines
    }

    fn output(&self) -> Vec<String> {
        let Some(step) = self.state.steps.get(self.step()) else { return Vec::new() };
        let lines = &step.output.lines;
        if lines.is_empty() {
            return vec!["It said nothing yet.".to_owned()];
        }
        lines.iter().skip(lines.len().saturating_sub(20)).map(|(_, line)| format!("    {}", line.text)).collect()
    }

    fn contacts(&self) -> Vec<String> {
        let people: Vec<_> = self.state.runbook.contacts.iter().chain(&self.options.contacts).collect();
        if people.is_empty() {
            return vec!["Neither the runbook nor the inventory names anyone.".to_owned()];
        }
        people
            .into_iter()
            .map(|person| {
                let ways: Vec<_> = [&person.phone, &person.page].into_iter().flatten().cloned().collect();
                format!("{}: {} {}", person.role, person.name, ways.join(", "))
            })
            .collect()
    }
}

fn check_input(text: &str, input: InputKind) -> Result<(), String> {
    match input {
        InputKind::Text => Ok(()),
        InputKind::Time => parse_time(text).map(|_| ()).map_err(|error| format!("✗ {error}")),
        InputKind::Number if text.parse::<f64>().is_ok_and(f64::is_finite) => Ok(()),
        InputKind::Number => Err(format!("✗ `{text}` is not a number")),
    }
}
