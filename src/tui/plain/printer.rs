//! Envelopes as lines: what the linear mode says and what `--headless` writes to standard error.

use std::collections::HashMap;

use chrono::FixedOffset;

use crate::drill::{DrillState, Elapsed, StepStatus};
use crate::event::{Ask, Envelope, Event, Failure, Line, Outcome, Pace, Progress, Status, Stream, UNATTENDED, Verdict};

use super::super::format;
use super::super::text::{clean, twin};

/// The least time between two lines about one lane's progress.
const PROGRESS_EVERY: Elapsed = Elapsed::from_secs(10);

/// Turns envelopes into lines without colour or cursor movement. Every line begins with the time since the declaration,
/// or since the opening while nothing is declared.
#[derive(Debug)]
pub struct Printer {
    zone: FixedOffset,
    ascii: bool,
    with_output: bool,
    /// When a lane was last spoken of, by step and lane.
    spoken: HashMap<(String, String), Elapsed>,
}

impl Printer {
    /// `with_output` says the steps' output too, a line each.
    pub fn new(zone: FixedOffset, ascii: bool, with_output: bool) -> Self {
        Self { zone, ascii, with_output, spoken: HashMap::new() }
    }

    /// The lines of one envelope; `state` is the drill after it.
    pub fn lines(&mut self, state: &DrillState, envelope: &Envelope) -> Vec<String> {
        let texts = self.texts(state, &envelope.event);
        let since = state.rto(state.latest.elapsed).unwrap_or(state.latest.elapsed);
        texts.into_iter().map(|text| self.finish(&format!("{}  {text}", format::hms(since)))).collect()
    }

    /// A line that is safe on any terminal.
    pub(super) fn finish(&self, text: &str) -> String {
        let text = clean(text);
        if !self.ascii || text.is_ascii() {
            return text.into_owned();
        }
        text.chars().map(|c| if c.is_ascii() { c.to_string() } else { twin(&c.to_string()).to_owned() }).collect()
    }

    fn texts(&mut self, state: &DrillState, event: &Event) -> Vec<String> {
        match event {
            Event::DrillOpened { .. } => opened(state, self.zone),
            Event::Declared { reason } => vec![format!("▲ declared: {reason}; the RTO clock runs")],
            Event::EngineStarted { operator, host, .. } => {
                vec![format!("▲ taken up again by {operator} on {host}")]
            }
            // Refused before it began; what failed has told its failure already.
            Event::Asked { step, ask } => match &**ask {
                Ask::AfterFailure { failure } if !has_failed(state, step) => {
                    failure_lines(&title(state, step), failure, "")
                }
                _ => Vec::new(),
            },
            Event::VariableSet { .. } => Vec::new(),
            Event::Answered { step, answer, by } => {
                let (title, said) = (title(state, step), said(answer));
                vec![match by.strip_prefix(UNATTENDED) {
                    Some(why) => format!("  {title}: {UNATTENDED}: {said}{why}"),
                    None => format!("  {title}: {by} answered {said}"),
                }]
            }
            Event::StepStarted { step, attempt, undo, probe, .. } => {
                let verb = match (undo, probe) {
                    (true, _) => "undoing",
                    (_, true) => "asking its probe whether it had been done",
                    _ => "started",
                };
                let again =
                    if *attempt > 1 && !undo && !probe { format!(", attempt {attempt}") } else { String::new() };
                vec![format!("▶ {}: {verb}{again}", title(state, step))]
            }
            Event::Output { lines, .. } if self.with_output => lines.iter().map(output).collect(),
            Event::Output { .. } => Vec::new(),
            Event::Progressed { step, progress } => self.progressed(state, step, progress).into_iter().collect(),
            Event::StepFinished { step, outcome, .. } => finished(state, step, outcome),
            Event::RetryScheduled { step, after_ms, .. } => {
                let after = format::short(Elapsed::from_millis(*after_ms));
                vec![format!("▲ {}: tries again by itself in {after}", title(state, step))]
            }
            Event::StepSkipped { step, reason, by } => {
                vec![format!("○ {}: skipped by {by}: {reason}", title(state, step))]
            }
            Event::StepNotNeeded { step, why } => vec![format!("○ {}: not needed: {why}", title(state, step))],
            Event::StepReopened { step, because, .. } => {
                vec![format!("○ {}: to be done again: {because}", title(state, step))]
            }
            Event::StepInDoubt { step, why, .. } => vec![format!("▲ {}: in doubt: {why}", title(state, step))],
            Event::Identified { system, identity } => vec![format!("  {system} is {}", identity.words())],
            Event::Measured { measure } => measured(measure),
            Event::Note { text, by } => vec![format!("  note by {by}: {text}")],
            Event::Finding { text, by, .. } => vec![format!("  finding by {by}: {text}")],
            Event::Paused { by } => vec![format!("▲ paused by {by}: no further step starts; the RTO clock runs")],
            Event::Unpaused { by } => vec![format!("  {by} lets it go on")],
            Event::PaceSet { pace: Pace::Flowing } => vec!["  steps start as soon as they can".to_owned()],
            Event::PaceSet { pace: Pace::StepByStep } => vec!["  every step waits for you".to_owned()],
            Event::Aborted { reason, by } => vec![format!("▲ aborted by {by}: {reason}")],
            Event::DrillFinished { verdict } => ended(state, *verdict),
        }
    }

    fn progressed(&mut self, state: &DrillState, step: &str, progress: &Progress) -> Option<String> {
        let now = state.latest.elapsed;
        let key = (step.to_owned(), progress.lane.clone());
        let done = progress.total.is_some_and(|total| progress.done >= total);
        let due = self.spoken.get(&key).is_none_or(|last| now.saturating_sub(*last) >= PROGRESS_EVERY);
        // A lane that was never spoken of and is done at once needs no line of its own.
        if !due && !done {
            return None;
        }
        if done && self.spoken.get(&key) == Some(&Elapsed::MAX) {
            return None;
        }
        self.spoken.insert(key, if done { Elapsed::MAX } else { now });
        let mut text = format!("  {}: {}", title(state, step), progress_words(progress));
        if done {
            text.push_str(", done");
        }
        Some(text)
    }
}

/// `replay 61 %, 732 MB of 1.2 GB, 52 MB/s, about 00:40 left, 10:01:12.340`
pub(super) fn progress_words(progress: &Progress) -> String {
    let mut text = progress.lane.clone();
    if let Some(total) = progress.total.filter(|&total| total > 0) {
        text.push_str(&format!(" {:.0} %", (progress.done as f64 / total as f64 * 100.0).min(100.0).floor()));
        text.push(',');
    }
    text.push_str(&format!(" {}", format::amount(progress.done, progress.total, progress.unit)));
    if let Some(rate) = progress.rate.and_then(|rate| format::rate(rate, progress.unit)) {
        text.push_str(&format!(", {rate}"));
    }
    if let Some(eta) = progress.eta_seconds.filter(|eta| (0.0..1e8).contains(eta)) {
        text.push_str(&format!(", about {} left", format::short(Elapsed::from_secs_f64(eta))));
    }
    if let Some(position) = &progress.position {
        text.push_str(&format!(", {position}"));
    }
    text
}

pub(super) fn title(state: &DrillState, step: &str) -> String {
    state.step(step).map_or_else(|| step.to_owned(), |(step, _)| state.expand(&step.title))
}

fn opened(state: &DrillState, zone: FixedOffset) -> Vec<String> {
    let opening = &state.opening;
    let at = format::both(state.opened.wall, zone);
    let mode = match opening.mode {
        crate::event::Mode::Sandbox => opening.mode.word().to_owned(),
        mode => format!("{} · {}", opening.environment.to_uppercase(), mode.word()),
    };
    vec![format!("{mode}: {} ({}), opened {at}", state.runbook.title, opening.service)]
}

fn said(answer: &crate::event::Answer) -> String {
    use crate::event::Answer;
    match answer {
        Answer::Yes => "yes".to_owned(),
        Answer::No { reason } => format!("no: {reason}"),
        Answer::Typed { name } => format!("by typing {name}"),
        Answer::Text { text } => text.clone(),
        Answer::Chosen { value } => value.clone(),
        Answer::Point { point } => {
            format!("{} {}", if point.inclusive { "just after" } else { "just before" }, point.target)
        }
        Answer::Retry => "retry".to_owned(),
        Answer::TakenAsDone { reason } => format!("it is done: {reason}"),
        Answer::Stop => "stop".to_owned(),
    }
}

fn output(line: &Line) -> String {
    let mark = match line.stream {
        Stream::Out => '|',
        Stream::Err => '!',
        Stream::Lifeboat => '»',
    };
    format!("    {mark} {}", line.text)
}

fn finished(state: &DrillState, step: &str, outcome: &Outcome) -> Vec<String> {
    let name = title(state, step);
    let took = state
        .step(step)
        .and_then(|(_, step)| step.attempts.last().cloned())
        .and_then(|attempt| Some(attempt.ended?.elapsed.saturating_sub(attempt.started.elapsed)))
        .map(|took| format!(" ({})", format::short(took)))
        .unwrap_or_default();
    let mut lines = Vec::new();
    match (outcome.status, &outcome.failure) {
        (Status::Passed, _) => lines.push(format!("✓ {name}: {}{took}", outcome.summary)),
        (_, Some(failure)) => lines.extend(failure_lines(&name, failure, &took)),
        (Status::Cancelled, None) => lines.push(format!("✗ {name}: ended before it was done{took}")),
        (Status::TimedOut, None) => lines.push(format!("✗ {name}: took too long{took}")),
        (Status::Failed, None) => lines.push(format!("✗ {name}: {}{took}", outcome.summary)),
    }
    lines.extend(
        outcome
            .checks
            .iter()
            .filter(|check| !check.passed)
            .map(|check| format!("    ✗ {}: {}", check.name, check.detail)),
    );
    lines.extend(outcome.measures.iter().flat_map(measured));
    lines
}

/// What failed, why in the error's own words, what to do.
fn has_failed(state: &DrillState, step: &str) -> bool {
    state.step(step).is_some_and(|(_, progress)| progress.status == StepStatus::Failed)
}

pub(super) fn failure_lines(name: &str, failure: &Failure, took: &str) -> Vec<String> {
    let mut lines = vec![format!("✗ {name}: {}{took}", failure.what)];
    if !failure.why.is_empty() {
        lines.push(format!("    why: {}", failure.why));
    }
    lines.extend(failure.now.as_ref().map(|now| format!("    → {now}")));
    lines
}

fn measured(measure: &crate::event::Measure) -> Vec<String> {
    use crate::event::Measure;
    vec![match measure {
        Measure::SelectedLoss { system, seconds, .. } => {
            format!("  RPO {system}: {} given up", format::seconds(*seconds))
        }
        Measure::ArchiveExposure { system, seconds, detail, .. } => {
            let exposed = seconds.map_or_else(|| "unknown".to_owned(), format::seconds);
            format!("  {system}: not in the archive: {exposed} ({detail})")
        }
        Measure::Collateral { system, commits, bytes, .. } => format!(
            "  {system}: {} commits and {} of WAL lie behind the point and are not recovered",
            format::count(*commits),
            format::bytes(*bytes)
        ),
        Measure::LostWrites { system, lost, acknowledged, .. } => {
            format!("  {system}: {} of {} acknowledged writes lost", format::count(*lost), format::count(*acknowledged))
        }
    }]
}

fn ended(state: &DrillState, verdict: Verdict) -> Vec<String> {
    let mark = if verdict == Verdict::Passed { "✓" } else { "✗" };
    let mut lines = vec![format!("{mark} {}", verdict.word().to_uppercase())];
    if let Some(rto) = state.rto(state.latest.elapsed) {
        let target = state.rto_target().map(|target| format!(" of {}", format::words(target))).unwrap_or_default();
        lines.push(format!("  RTO {}{target}", format::hms(rto)));
    }
    for rpo in state.rpos() {
        let found = rpo.seconds.map_or_else(|| "not measured".to_owned(), format::seconds);
        let target = rpo.target.map(|target| format!(" of {}", format::words(target))).unwrap_or_default();
        let met = match rpo.met() {
            Some(true) => ", met",
            Some(false) => ", missed",
            None => "",
        };
        lines.push(format!("  RPO {} {found}{target}{met}", rpo.system));
    }
    let split = state.split(state.latest.elapsed);
    lines.push(format!("  machine {} · people {}", format::short(split.machine), format::short(split.human)));
    lines
}
