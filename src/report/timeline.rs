//! The time line of steps: who worked when, as geometry for an SVG.

use serde::Serialize;

use super::model::{Report, Standing, Step};
use super::words;

/// Who a span of a step belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Actor {
    Machine,
    Human,
    /// The machine worked, and the attempt came to nothing: it failed, or was cut off.
    Failed,
}

/// A span of a step, in seconds since the opening.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Segment {
    pub from: f64,
    pub to: f64,
    pub actor: Actor,
}

/// Waits for a person, and between them what attempts took; `end` stands for what has no end. In order of time.
pub(super) fn segments(step: &Step, end: f64) -> Vec<Segment> {
    let waits: Vec<(f64, f64)> = step
        .questions
        .iter()
        .map(|question| (question.asked.elapsed_seconds, question.asked.elapsed_seconds + question.waited_seconds))
        .collect();
    let mut segments: Vec<Segment> =
        waits.iter().map(|&(from, to)| Segment { from, to, actor: Actor::Human }).collect();
    for (index, attempt) in step.attempts.iter().enumerate() {
        let next = step.attempts.get(index + 1).map_or(end, |next| next.started.elapsed_seconds);
        let to = attempt.ended.as_ref().map_or(next, |at| at.elapsed_seconds);
        let actor = match attempt.status.as_deref() {
            Some("passed") => Actor::Machine,
            None if index + 1 == step.attempts.len() && step.standing == Standing::Unfinished => Actor::Machine,
            _ => Actor::Failed,
        };
        let mut from = attempt.started.elapsed_seconds;
        for &(asked, answered) in &waits {
            if answered <= from || asked >= to {
                continue;
            }
            if asked > from {
                segments.push(Segment { from, to: asked, actor });
            }
            from = from.max(answered);
        }
        if to > from || (waits.is_empty() && to >= from) {
            segments.push(Segment { from, to, actor });
        }
    }
    segments.sort_by(|a, b| a.from.total_cmp(&b.from));
    segments
}

/// Sizes are in the units of the SVG's view box.
#[derive(Debug, Serialize)]
pub(super) struct Timeline {
    pub width: f64,
    pub height: f64,
    pub plot_left: f64,
    pub plot_right: f64,
    pub plot_top: f64,
    pub plot_bottom: f64,
    pub rows: Vec<Row>,
    pub ticks: Vec<Tick>,
    pub marks: Vec<Mark>,
    /// The same in words.
    pub alternative: String,
}

#[derive(Debug, Serialize)]
pub(super) struct Row {
    pub y: f64,
    /// A phase has no sign and no bars.
    pub is_phase: bool,
    pub sign: &'static str,
    pub label: String,
    /// At the right edge: what it took, or why it took nothing.
    pub took: String,
    pub bars: Vec<Bar>,
}

#[derive(Debug, Serialize)]
pub(super) struct Bar {
    pub x: f64,
    pub width: f64,
    pub actor: Actor,
    pub title: String,
}

#[derive(Debug, Serialize)]
pub(super) struct Tick {
    pub x: f64,
    pub label: String,
}

#[derive(Debug, Serialize)]
pub(super) struct Mark {
    pub x: f64,
    /// Where its label stands: one that would lie on its neighbour's moves down.
    pub y: f64,
    pub label: String,
    pub class: &'static str,
    /// `start`, `middle`, `end`
    pub anchor: &'static str,
}

const WIDTH: f64 = 920.0;
const LABELS: f64 = 320.0;
const RIGHT: f64 = 806.0;
const ROW: f64 = 22.0;
const TOP: f64 = 40.0;

pub(super) fn timeline(report: &Report) -> Timeline {
    // Zero is the declaration: what came before it stands to the left of the axis' zero.
    let zero = report.times.declared.as_ref().unwrap_or(&report.times.opened).elapsed_seconds;
    let all: Vec<(&Step, Vec<Segment>)> = report
        .steps
        .iter()
        .map(|step| (step, segments(step, report.times.finished.as_ref().map_or(zero, |at| at.elapsed_seconds))))
        .collect();
    let spans = || all.iter().flat_map(|(_, segments)| segments);
    let finish = report.times.finished.as_ref().map_or(zero, |at| at.elapsed_seconds);
    let first = spans().map(|segment| segment.from).fold(zero, f64::min);
    let last = spans().map(|segment| segment.to).fold(finish.max(zero + 1.0), f64::max);
    let scale = (RIGHT - LABELS) / (last - first);
    let x = |at: f64| round(LABELS + (at - first) * scale);

    let mut rows = Vec::new();
    let mut y = TOP;
    for phase in &report.phases {
        rows.push(Row {
            y,
            is_phase: true,
            sign: "",
            label: shorten(&phase.title, 42),
            took: phase.seconds.map(words::duration).unwrap_or_default(),
            bars: Vec::new(),
        });
        y += ROW;
        for (step, segments) in all.iter().filter(|(step, _)| phase.steps.contains(&step.id)) {
            rows.push(row(step, segments, y, zero, &x));
            y += ROW;
        }
    }
    let step = tick_step(last - first);
    let from = ((first - zero) / step).ceil() as i64;
    let to = ((last - zero) / step).floor() as i64;
    let ticks = (from..=to).map(|n| {
        let seconds = n as f64 * step;
        let sign = if n < 0 { "−" } else { "" };
        Tick { x: x(zero + seconds), label: format!("{sign}{}", axis(seconds.abs(), step)) }
    });
    Timeline {
        width: WIDTH,
        height: y + 22.0,
        plot_left: LABELS,
        plot_right: RIGHT,
        plot_top: TOP,
        plot_bottom: y,
        ticks: ticks.collect(),
        marks: marks(report, last, &x),
        alternative: alternative(&all, zero),
        rows,
    }
}

fn row(step: &Step, segments: &[Segment], y: f64, zero: f64, x: &impl Fn(f64) -> f64) -> Row {
    let bars = segments.iter().map(|segment| Bar {
        x: x(segment.from),
        // A bar that took no time is still seen.
        width: (x(segment.to) - x(segment.from)).max(2.0),
        actor: segment.actor,
        title: format!(
            "{}: {} {} from {}",
            step.title,
            actor_word(segment.actor),
            words::duration(segment.to - segment.from),
            words::clock(segment.from - zero)
        ),
    });
    let took = match step.standing {
        Standing::Skipped | Standing::NotNeeded | Standing::NotReached => standing_word(step.standing).to_owned(),
        _ => words::duration(step.machine_seconds + step.human_seconds),
    };
    Row { y, is_phase: false, sign: sign(step.standing), label: shorten(&step.title, 40), took, bars: bars.collect() }
}

fn marks(report: &Report, last: f64, x: &impl Fn(f64) -> f64) -> Vec<Mark> {
    let mut moments = Vec::new();
    if let Some(at) = &report.times.declared {
        moments.push((at.elapsed_seconds, "declared".to_owned(), "mark"));
        if let Some(objective) = report.rto.objective_seconds.filter(|rto| at.elapsed_seconds + rto <= last) {
            moments.push((at.elapsed_seconds + objective, format!("RTO {}", words::duration(objective)), "mark limit"));
        }
    }
    if let Some(at) = &report.times.recovered {
        moments.push((at.elapsed_seconds, "recovered".to_owned(), "mark good"));
    }
    moments.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut marks: Vec<Mark> = Vec::new();
    for (at, label, class) in moments {
        let x = x(at);
        let anchor = match x {
            x if x < LABELS + 40.0 => "start",
            x if x > RIGHT - 40.0 => "end",
            _ => "middle",
        };
        let crowded = marks.last().is_some_and(|before| before.y < 20.0 && x - before.x < 130.0);
        marks.push(Mark { x, y: if crowded { 29.0 } else { 14.0 }, label, class, anchor });
    }
    marks
}

fn alternative(all: &[(&Step, Vec<Segment>)], zero: f64) -> String {
    let mut sentences = Vec::new();
    for (step, segments) in all {
        if segments.is_empty() {
            sentences.push(format!("{}: {}.", step.title, standing_word(step.standing)));
            continue;
        }
        let spans: Vec<_> = segments
            .iter()
            .map(|segment| {
                let begin = words::clock(segment.from - zero);
                format!("{} {} from {begin}", actor_word(segment.actor), words::duration(segment.to - segment.from))
            })
            .collect();
        sentences.push(format!("{}: {}, {}.", step.title, standing_word(step.standing), spans.join(", ")));
    }
    sentences.join(" ")
}

fn actor_word(actor: Actor) -> &'static str {
    match actor {
        Actor::Machine => "machine",
        Actor::Human => "waiting for a person",
        Actor::Failed => "attempt that came to nothing,",
    }
}

pub(super) fn standing_word(standing: Standing) -> &'static str {
    match standing {
        Standing::Passed => "passed",
        Standing::Failed => "failed",
        Standing::Skipped => "skipped",
        Standing::NotNeeded => "not needed",
        Standing::Undone => "undone",
        Standing::InDoubt => "in doubt",
        Standing::Unfinished => "not finished",
        Standing::NotReached => "not reached",
    }
}

pub(super) fn sign(standing: Standing) -> &'static str {
    match standing {
        Standing::Passed => "✓",
        Standing::Failed => "✗",
        Standing::Skipped => "↷",
        Standing::NotNeeded => "–",
        Standing::Undone => "↶",
        Standing::InDoubt => "?",
        Standing::Unfinished => "◐",
        Standing::NotReached => "·",
    }
}

/// The smallest round step that gives at most nine ticks.
fn tick_step(span: f64) -> f64 {
    const STEPS: [f64; 16] = [
        1.0, 2.0, 5.0, 10.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 900.0, 1_800.0, 3_600.0, 7_200.0, 21_600.0,
        86_400.0,
    ];
    let fits = STEPS.into_iter().find(|step| span / step <= 8.0);
    fits.unwrap_or_else(|| (span / 8.0 / 86_400.0).ceil() * 86_400.0)
}

fn axis(seconds: f64, step: f64) -> String {
    let whole = seconds as u64;
    match (step < 60.0, whole < 3_600) {
        (_, false) => format!("{}:{:02} h", whole / 3_600, whole / 60 % 60),
        (true, true) => format!("{}:{:02}", whole / 60, whole % 60),
        (false, true) => format!("{} min", whole / 60),
    }
}

fn shorten(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        Some((end, _)) => format!("{}…", text[..end].trim_end()),
        None => text.to_owned(),
    }
}

fn round(x: f64) -> f64 {
    (x * 10.0).round() / 10.0
}
