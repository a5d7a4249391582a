//! Recovery times of one runbook over its runs: in a sentence, in signs of one line, and as geometry for an SVG.

use chrono::{DateTime, Utc};
use serde::Serialize;

use super::model::Past;
use super::words;
use crate::event::{Mode, Verdict};
use crate::history::Run;

impl From<&Run> for Past {
    fn from(run: &Run) -> Self {
        Self {
            drill: run.drill.clone(),
            started: run.started,
            mode: run.mode,
            verdict: run.verdict,
            rto_seconds: run.rto.seconds,
            rto_objective_seconds: run.rto.target_seconds,
            recovered: run.rto.recovered,
        }
    }
}

impl Past {
    /// How long the recovery took, of a run that ended with one.
    fn recovery(&self) -> Option<f64> {
        self.rto_seconds.filter(|_| self.recovered && self.verdict.is_some())
    }

    fn late(&self) -> bool {
        self.recovery().zip(self.rto_objective_seconds).is_some_and(|(took, target)| took > target)
    }
}

/// The way that recovery times go, of at least one run; the oldest first.
pub fn sentence(runs: &[Past]) -> String {
    let ended: Vec<&Past> = runs.iter().filter(|run| run.verdict.is_some()).collect();
    let took: Vec<f64> = ended.iter().filter_map(|run| run.recovery()).collect();
    let Some((last, before)) = took.split_last() else {
        return match ended.len() {
            0 => "No run has ended yet.".to_owned(),
            1 => "The only run ended without a measured recovery.".to_owned(),
            n => format!("None of {n} runs ended with a measured recovery."),
        };
    };
    let mut text = match ended.last().is_some_and(|run| run.recovery().is_some()) {
        true => format!("The last recovery took {}", words::duration(*last)),
        false => format!("The last run did not recover; the recovery before it took {}", words::duration(*last)),
    };
    if let Some(median) = median(before) {
        let change = (last / median.max(f64::MIN_POSITIVE) - 1.0) * 100.0;
        text += &match change.round() {
            c if c.abs() < 5.0 => format!(", as long as the median of the {} before", before.len()),
            c if c < 0.0 => format!(", {:.0} % less than the median of the {} before", -c, before.len()),
            c if c > 900.0 => format!(", {:.0} times the median of the {} before", last / median, before.len()),
            c => format!(", {c:.0} % more than the median of the {} before", before.len()),
        }
        .replace("the median of the 1 before", "the one before");
    }
    let late = ended.iter().filter(|run| run.late()).count();
    let lost = ended.len() - took.len();
    let of = ended.len();
    text += &match ended.last().and_then(|run| run.rto_objective_seconds) {
        None => "; there is no objective".to_owned(),
        Some(target) => format!("; {late} of {of} took longer than the {} allowed", words::duration(target)),
    };
    if lost > 0 {
        text += &format!(", {lost} did not recover");
    }
    text + "."
}

fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => None,
        n if n % 2 == 0 => Some(f64::midpoint(sorted[middle - 1], sorted[middle])),
        _ => Some(sorted[middle]),
    }
}

/// One sign a run, the oldest first: eighths of the objective, a full block above it, a cross where nothing was recovered.
/// Without objectives eighths of the longest. `ascii` for terminals without such signs.
pub fn sparkline(runs: &[Past], ascii: bool) -> String {
    const BLOCKS: [char; 7] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇'];
    const ASCII: [char; 7] = ['_', '.', ',', '-', '~', '=', '+'];
    let (levels, over, cross) = if ascii { (ASCII, '#', 'x') } else { (BLOCKS, '█', '✗') };
    let ended = || runs.iter().filter(|run| run.verdict.is_some());
    let longest = ended().filter_map(Past::recovery).fold(f64::MIN_POSITIVE, f64::max);
    let sign = |run: &Past| match (run.recovery(), run.late()) {
        (None, _) => cross,
        (Some(_), true) => over,
        (Some(took), false) => {
            let part = took / run.rto_objective_seconds.unwrap_or(longest).max(f64::MIN_POSITIVE);
            levels[((part * 7.0) as usize).min(6)]
        }
    };
    ended().map(sign).collect()
}

/// Sizes are in the units of the SVG's view box.
#[derive(Debug, Serialize)]
pub(super) struct Chart {
    pub width: f64,
    pub height: f64,
    pub left: f64,
    pub right: f64,
    pub top: f64,
    pub bottom: f64,
    pub ticks: Vec<Tick>,
    /// Dates, where there is room for them.
    pub dates: Vec<Date>,
    /// The objective: one that changed makes steps. A path's `points`.
    pub target: Option<Target>,
    /// Through the runs that recovered.
    pub line: String,
    pub runs: Vec<Dot>,
    /// The same in words.
    pub alternative: String,
    pub sentence: String,
}

#[derive(Debug, Serialize)]
pub(super) struct Tick {
    pub y: f64,
    pub label: String,
}

#[derive(Debug, Serialize)]
pub(super) struct Date {
    pub x: f64,
    pub label: String,
}

#[derive(Debug, Serialize)]
pub(super) struct Target {
    pub points: String,
    pub y: f64,
    pub label: String,
}

#[derive(Debug, Serialize)]
pub(super) struct Dot {
    pub x: f64,
    pub y: f64,
    /// `met`, `missed`, `lost` (nothing was recovered), `free` (no objective)
    pub class: &'static str,
    /// The run that the report is about.
    pub own: bool,
    pub title: String,
}

const WIDTH: f64 = 920.0;
const LEFT: f64 = 84.0;
const RIGHT: f64 = 800.0;
const TOP: f64 = 16.0;
const BOTTOM: f64 = 176.0;

/// `None` with fewer than two runs: one is no trend. The oldest first, the report's own last.
pub(super) fn chart(runs: &[Past]) -> Option<Chart> {
    if runs.len() < 2 {
        return None;
    }
    let heights = runs.iter().flat_map(|run| [run.recovery(), run.rto_objective_seconds]).flatten();
    let highest = heights.fold(1.0, f64::max) * 1.08;
    let step = tick_step(highest);
    let y = |seconds: f64| round(BOTTOM - seconds / highest * (BOTTOM - TOP));
    // Runs stand side by side at equal distances: dates would crowd those of one game day into one dot.
    let distance = (RIGHT - LEFT) / runs.len() as f64;
    let x = |index: usize| round(LEFT + distance * (index as f64 + 0.5));
    let dots = runs.iter().enumerate().map(|(index, run)| Dot {
        x: x(index),
        y: y(run.recovery().unwrap_or(0.0)),
        class: match (run.recovery(), run.late(), run.rto_objective_seconds) {
            (None, ..) => "lost",
            (_, true, _) => "missed",
            (_, false, Some(_)) => "met",
            (_, false, None) => "free",
        },
        own: index + 1 == runs.len(),
        title: in_words(run),
    });
    let recovered = runs.iter().enumerate().filter_map(|(index, run)| Some((x(index), y(run.recovery()?))));
    let every = (runs.len() as f64 * 92.0 / (RIGHT - LEFT)).ceil().max(1.0) as usize;
    let dates = runs.iter().enumerate().rev().step_by(every);
    let targets: Vec<(f64, f64)> = runs
        .iter()
        .enumerate()
        .filter_map(|(index, run)| Some((x(index), y(run.rto_objective_seconds?))))
        .flat_map(|(x, y)| [(round(x - distance / 2.0), y), (round(x + distance / 2.0), y)])
        .collect();
    let newest = runs.iter().rev().find_map(|run| run.rto_objective_seconds);
    Some(Chart {
        width: WIDTH,
        height: BOTTOM + 24.0,
        left: LEFT,
        right: RIGHT,
        top: TOP,
        bottom: BOTTOM,
        ticks: (0..=(highest / step) as u32)
            .map(|n| f64::from(n) * step)
            .map(|seconds| Tick { y: y(seconds), label: words::duration(seconds) })
            .collect(),
        dates: dates.map(|(index, run)| Date { x: x(index), label: day(run.started) }).collect(),
        target: newest.map(|seconds| Target {
            points: points(targets),
            y: y(seconds),
            label: format!("RTO {}", words::duration(seconds)),
        }),
        line: points(recovered),
        runs: dots.collect(),
        alternative: runs.iter().map(in_words).collect::<Vec<_>>().join(" "),
        sentence: sentence(runs),
    })
}

fn in_words(run: &Past) -> String {
    let mode = match run.mode {
        Mode::Incident => "incident",
        Mode::Drill => "drill",
        Mode::Sandbox => "drill in the sandbox",
    };
    let came = match (run.recovery(), run.rto_objective_seconds) {
        (Some(took), Some(target)) => {
            format!("recovered in {} of {} allowed", words::duration(took), words::duration(target))
        }
        (Some(took), None) => format!("recovered in {}", words::duration(took)),
        (None, _) => format!("no recovery: {}", run.verdict.map_or("under way", Verdict::word)),
    };
    format!("{}, {mode}: {came}.", day(run.started))
}

fn day(at: DateTime<Utc>) -> String {
    at.format("%Y-%m-%d").to_string()
}

fn points(points: impl IntoIterator<Item = (f64, f64)>) -> String {
    points.into_iter().map(|(x, y)| format!("{x},{y}")).collect::<Vec<_>>().join(" ")
}

/// The smallest round step that gives at most four lines above zero.
fn tick_step(span: f64) -> f64 {
    const STEPS: [f64; 15] =
        [1.0, 2.0, 5.0, 10.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 900.0, 1_800.0, 3_600.0, 7_200.0, 14_400.0];
    STEPS.into_iter().find(|step| span / step <= 5.0).unwrap_or_else(|| (span / 5.0 / 14_400.0).ceil() * 14_400.0)
}

fn round(x: f64) -> f64 {
    (x * 10.0).round() / 10.0
}

#[cfg(test)]
mod tests;
