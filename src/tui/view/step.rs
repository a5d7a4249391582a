//! The middle: one step, its text, what it asks or how far it is, and its output.

use std::time::Duration;

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::text::{Line, Span};

use crate::drill::{StepState, StepStatus};
use crate::event::{Ask, Check, Outcome, Progress};
use crate::runbook::{Step, StepKind};

use super::super::app::App;
use super::super::text::{span, spread, wrap};
use super::super::{format, markdown};
use super::card::{self, Card};
use super::{bar, output, picker, put, sign, summary};

/// A running step that has said nothing for this long is said to be silent.
const SILENT: Duration = Duration::from_secs(10);

pub(super) fn draw(app: &App, area: Rect, buffer: &mut Buffer) {
    let columns = usize::from(area.width);
    if app.state.finished.is_some() && app.selected.is_none() && app.player.is_none() {
        put(summary::rows(app, columns), area, buffer);
        return;
    }
    if app.state.declared.is_none() && app.selected.is_none() && app.live() {
        put(before(app, columns, usize::from(area.height)), area, buffer);
        return;
    }
    let shown = app.shown();
    let (Some(step), Some(state)) = (app.state.runbook.steps.get(shown), app.state.steps.get(shown)) else { return };
    let mut rows = Vec::new();
    rows.extend(elsewhere(app, shown, columns));
    rows.extend(head(app, step, state, columns));
    if let Some(Ask::RecoveryPoint { .. }) = state.ask.as_deref_ask()
        && let Some(view) = app.picker.as_ref().filter(|view| view.step == shown)
    {
        let mut height = usize::from(area.height).saturating_sub(rows.len());
        let mut point = picker::rows(app, view, columns, height);
        if point.len() >= height {
            // Every row counts: what kind of step it is and the empty row below give way.
            rows.truncate(rows.len() - 2);
            height += 2;
            point = picker::rows(app, view, columns, height);
        }
        let room = height.saturating_sub(point.len());
        let text = text_rows(app, step, columns, room.saturating_sub(1));
        if !text.is_empty() {
            rows.extend(text);
            rows.push(Line::default());
        }
        rows.extend(point);
        put(rows, area, buffer);
        return;
    }
    let middle = body(app, step, state, columns);
    let has_output = !state.output.lines.is_empty();
    let height = usize::from(area.height);
    // The question comes before the text when there is not room for both, and output gets what is left.
    let for_output = if has_output { (height / 4).clamp(3, 8) } else { 0 };
    let room = height.saturating_sub(rows.len() + middle.len() + 1 + for_output);
    let text = text_rows(app, step, columns, room);
    if !text.is_empty() {
        rows.extend(text);
        rows.push(Line::default());
    }
    rows.extend(middle);
    let used = u16::try_from(rows.len()).unwrap_or(u16::MAX);
    put(rows, area, buffer);
    if has_output && used + 2 < area.height {
        let rest = Rect { y: area.y + used, height: area.height - used, ..area };
        output::pane(app, rest, buffer);
    }
}

/// A step's question without the bookkeeping around it.
trait AskOf {
    fn as_deref_ask(&self) -> Option<&Ask>;
}

impl AskOf for Option<crate::drill::PendingAsk> {
    fn as_deref_ask(&self) -> Option<&Ask> {
        self.as_ref().map(|pending| &*pending.ask)
    }
}

/// Someone else waits, or the drill is paused.
fn elsewhere(app: &App, shown: usize, columns: usize) -> Vec<Line<'static>> {
    let theme = app.theme();
    let mut rows = Vec::new();
    let title = |step: usize| app.state.expand(&app.state.runbook.steps[step].title);
    if app.stream_ended && app.state.finished.is_none() && app.player.is_none() {
        let text =
            "✗ The engine has ended before the drill did; the log says why. Leave with q, then `lifeboat resume`.";
        rows.extend(wrap(Line::from(Span::styled(text, theme.bad)), columns, 2));
    }
    if app.state.paused.is_some() && app.live() {
        let text = "▲ Paused: no further step starts. The RTO clock runs. ";
        rows.push(Line::from(vec![
            Span::styled(text, theme.warn),
            super::cap(theme, "p"),
            Span::styled(" go on", theme.muted),
        ]));
    }
    let waiting: Vec<usize> = app.state.waiting().filter(|&step| step != shown).collect();
    if let Some(&first) = waiting.first() {
        let more = if waiting.len() > 1 { format!(" and {} more", waiting.len() - 1) } else { String::new() };
        rows.push(Line::from(vec![
            Span::styled("▶ ", theme.accent),
            span(format!("{}{more} waits for you   ", title(first)), theme.base),
            super::cap(theme, "Tab"),
            Span::styled(" go there", theme.muted),
        ]));
    } else if app.selected.is_some() && app.state.focus() != shown {
        rows.push(Line::from(vec![
            span(format!("the drill is at {}   ", title(app.state.focus())), theme.muted),
            super::cap(theme, "f"),
            Span::styled(" follow it", theme.muted),
        ]));
    }
    if !rows.is_empty() {
        rows.push(Line::default());
    }
    rows
}

/// Title and what it is doing; kind, system and attempt below.
fn head(app: &App, step: &Step, state: &StepState, columns: usize) -> Vec<Line<'static>> {
    let theme = app.theme();
    let (mark, style) = sign(theme, &state.status, state.ask.is_some());
    let mut rows = vec![spread(
        vec![span(app.state.expand(&step.title), theme.strong)],
        vec![Span::styled(format!("{mark} "), style), span(doing(app, state), style)],
        columns,
    )];
    let mut facts = Vec::new();
    if let Some(role) = &step.system {
        let system = app.state.opening.systems.get(role);
        facts.push(match system {
            Some(system) => format!("{} on {}", step.kind.word(), system.name),
            None => step.kind.word().to_owned(),
        });
    } else {
        facts.push(step.kind.word().to_owned());
    }
    if let Some(role) = &step.role {
        facts.push(format!("by {role}"));
    }
    if state.attempt() > 1 {
        facts.push(format!("attempt {}", state.attempt()));
    }
    if let Some(timeout) = step.timeout {
        facts.push(format!("at most {}", format::words(timeout)));
    }
    rows.push(spread(vec![span(facts.join(" · "), theme.muted)], Vec::new(), columns));
    rows.push(Line::default());
    rows
}

/// `waiting for you 00:42`, `running 02:34`, `passed in 01:50`.
pub(super) fn doing(app: &App, state: &StepState) -> String {
    if let Some(pending) = &state.ask {
        let wait = format::short(app.now.saturating_sub(pending.since.elapsed));
        return match state.status {
            StepStatus::Failed => format!("failed · waiting for you {wait}"),
            StepStatus::InDoubt => format!("in doubt · waiting for you {wait}"),
            _ => format!("waiting for you {wait}"),
        };
    }
    let took = state.duration(app.now).map(format::short).unwrap_or_default();
    match &state.status {
        StepStatus::Running if state.undoing => format!("undoing {took}"),
        StepStatus::Running => format!("running {took}"),
        StepStatus::Passed => format!("passed in {took}"),
        StepStatus::Failed => format!("failed after {took}"),
        StepStatus::Retrying { due } => format!("retries in {}", format::short(due.saturating_sub(app.now))),
        other => other.word().to_owned(),
    }
}

/// The step's Markdown in at most `room` rows.
fn text_rows(app: &App, step: &Step, columns: usize, room: usize) -> Vec<Line<'static>> {
    let theme = app.theme();
    let Some(text) = step.text.as_deref().filter(|text| !text.trim().is_empty()) else { return Vec::new() };
    let mut rows = markdown::rows(&app.state.expand(text), theme, columns.min(88));
    if rows.len() > room && room < 2 {
        return Vec::new();
    }
    if rows.len() > room {
        rows.truncate(room.saturating_sub(1));
        let all = Span::styled(" all of it", theme.muted);
        rows.push(Line::from(vec![Span::styled("… ", theme.muted), super::cap(theme, "v"), all]));
    }
    rows
}

/// What it asks, how far it is, or how it ended.
fn body(app: &App, step: &Step, state: &StepState, columns: usize) -> Vec<Line<'static>> {
    let theme = app.theme();
    let mut rows = Vec::new();
    if let Some(pending) =
        state.ask.as_ref().filter(|_| app.player.is_none() || !matches!(state.status, StepStatus::Failed))
    {
        rows.extend(card::rows(app, step, &pending.ask, columns));
        rows.push(Line::default());
    }
    match &state.status {
        StepStatus::Running if state.ask.is_none() => {
            for lane in &state.progress {
                rows.extend(lane_rows(app, lane, columns));
            }
            rows.extend(silence(app, step, state));
        }
        StepStatus::Retrying { due } => {
            if let Some(failure) = state.outcome().and_then(|outcome| outcome.failure.as_ref()) {
                let mut card = Card::new(app, theme.warn, columns);
                card::failure_words(&mut card, app, failure);
                rows.extend(card.rows());
            }
            let left = format::short(due.saturating_sub(app.now));
            rows.push(Line::from(Span::styled(format!("▲ tries again by itself in {left}"), theme.warn)));
        }
        StepStatus::Skipped { reason } => {
            let by = state.skipped_by.as_deref().unwrap_or("someone");
            rows.extend(wrap(Line::from(span(format!("○ skipped by {by}: {reason}"), theme.warn)), columns, 2));
        }
        StepStatus::NotNeeded { why } => {
            rows.extend(wrap(Line::from(span(format!("○ not needed: {why}"), theme.muted)), columns, 2));
        }
        StepStatus::Undone => rows.push(Line::from(Span::styled("○ undone: its effect was taken back", theme.warn))),
        StepStatus::Pending => rows.extend(pending(app, step, columns)),
        StepStatus::InDoubt if state.ask.is_none() => {
            rows.push(Line::from(Span::styled("▲ started, and no outcome was written down", theme.bad)));
        }
        _ => {}
    }
    let answered = !matches!(state.ask.as_deref_ask(), Some(Ask::AfterFailure { .. }));
    if let Some(outcome) = state.outcome().filter(|_| state.status.has_ended()) {
        rows.extend(outcome_rows(app, outcome, answered || app.player.is_some(), columns));
    }
    if !rows.is_empty() {
        rows.push(Line::default());
    }
    rows
}

/// Why it has not begun.
fn pending(app: &App, step: &Step, columns: usize) -> Vec<Line<'static>> {
    let theme = app.theme();
    let before: Vec<String> = step
        .after
        .iter()
        .filter(|&&index| !app.state.steps[index].status.lets_pass())
        .map(|&index| app.state.expand(&app.state.runbook.steps[index].title))
        .collect();
    let text = match before.as_slice() {
        [] if app.state.declared.is_none() => "starts after the declaration".to_owned(),
        [] => "starts next".to_owned(),
        [one] => format!("after {one}"),
        [one, .., last] => format!("after {} steps, from {one} to {last}", before.len()),
    };
    wrap(Line::from(span(format!("· {text}"), theme.muted)), columns, 2)
}

/// A lane: its bar, percentage, rate and time left; its amount and position below.
fn lane_rows(app: &App, lane: &Progress, columns: usize) -> Vec<Line<'static>> {
    let theme = app.theme();
    let name_width = 12.min(columns / 4);
    let name = super::super::text::fit(&lane.lane, name_width);
    let fraction = lane.total.filter(|&total| total > 0).map(|total| lane.done as f64 / total as f64);
    let mut tail = Vec::new();
    if let Some(part) = fraction {
        tail.push(Span::styled(format!("{:>3.0} %", (part * 100.0).min(100.0).floor()), theme.strong));
    }
    if let Some(rate) = lane.rate.and_then(|rate| format::rate(rate, lane.unit)) {
        tail.push(Span::styled(format!("   {rate}"), theme.base));
    }
    if let Some(eta) = lane.eta_seconds.filter(|eta| eta.is_finite() && (0.0..1e8).contains(eta)) {
        tail.push(Span::styled(format!("   about {} left", format::short(Duration::from_secs_f64(eta))), theme.base));
    }
    let pad = " ".repeat(name_width + 1);
    let mut first = vec![span(format!("{name:<name_width$} "), theme.base)];
    let bar_width = columns.saturating_sub(name_width + 1 + 45).clamp(10, 40);
    match fraction {
        Some(part) => first.extend(bar(part, bar_width, None, theme.accent, theme.rule)),
        None => first.push(span(format::amount(lane.done, None, lane.unit), theme.base)),
    }
    first.push(Span::raw("  "));
    first.extend(tail);
    let mut rows = vec![spread(first, Vec::new(), columns)];
    let mut second = vec![Span::raw(pad)];
    if fraction.is_some() {
        second.push(span(format::amount(lane.done, lane.total, lane.unit), theme.muted));
    }
    if let Some(position) = &lane.position {
        second.push(span(
            format!("   {position}").replacen("   ", if second.len() > 1 { "   " } else { "" }, 1),
            theme.muted,
        ));
    }
    if second.len() > 1 {
        rows.push(spread(second, Vec::new(), columns));
    }
    rows
}

fn silence(app: &App, step: &Step, state: &StepState) -> Option<Line<'static>> {
    let silent = app.now.saturating_sub(state.last_heard?);
    if silent < SILENT || matches!(step.kind, StepKind::Wait { .. }) {
        return None;
    }
    let style = if silent > Duration::from_secs(60) { app.theme().warn } else { app.theme().muted };
    Some(Line::from(Span::styled(format!("silent for {}; it is left to work", format::short(silent)), style)))
}

/// The summary, failed checks first; `with_failure` when no card has said it.
fn outcome_rows(app: &App, outcome: &Outcome, with_failure: bool, columns: usize) -> Vec<Line<'static>> {
    let theme = app.theme();
    let mut rows = Vec::new();
    match &outcome.failure {
        Some(failure) if with_failure => {
            let mut card = Card::new(app, theme.bad, columns);
            card::failure_words(&mut card, app, failure);
            rows.extend(card.rows());
        }
        Some(_) => {}
        None if !outcome.summary.is_empty() => {
            let spans = vec![Span::styled("✓ ", theme.good), span(&outcome.summary, theme.base)];
            rows.extend(wrap(Line::from(spans), columns, 2));
        }
        None => {}
    }
    rows.extend(check_rows(app, &outcome.checks, columns));
    rows
}

/// Checks, the failed ones first.
pub(super) fn check_rows(app: &App, checks: &[Check], columns: usize) -> Vec<Line<'static>> {
    let theme = app.theme();
    let width = checks.iter().map(|check| super::super::text::width(&check.name)).max().unwrap_or(0).min(columns / 3);
    let mut sorted: Vec<&Check> = checks.iter().collect();
    sorted.sort_by_key(|check| check.passed);
    let row = |check: &Check| {
        let (mark, style): (_, Style) = if check.passed { ("✓", theme.good) } else { ("✗", theme.bad) };
        let name = super::super::text::fit(&check.name, width);
        let spans = vec![
            Span::styled(format!("  {mark} "), style),
            span(format!("{name:<width$}  "), theme.base),
            span(&check.detail, if check.passed { theme.muted } else { theme.base }),
        ];
        wrap(Line::from(spans), columns, width + 6)
    };
    sorted.into_iter().flat_map(row).collect()
}

/// Before the declaration: what this runbook is, and the one key.
fn before(app: &App, columns: usize, height: usize) -> Vec<Line<'static>> {
    let theme = app.theme();
    let runbook = &app.state.runbook;
    let mut rows = vec![Line::from(span(&runbook.title, theme.strong))];
    let mut facts = Vec::new();
    facts.extend(runbook.owner.as_ref().map(|owner| format!("owned by {owner}")));
    facts.push(format!("revision {}", runbook.revision));
    facts.push(format!("{} steps in {} phases", runbook.steps.len(), runbook.phases.len()));
    rows.push(spread(vec![span(facts.join(" · "), theme.muted)], Vec::new(), columns));
    rows.push(Line::default());
    let mut systems = Vec::new();
    let bound = &app.state.opening.systems;
    for (role, system) in runbook.systems.keys().filter_map(|role| Some((role, bound.get(role)?))) {
        let left = format!("{role:<8} {} ({}, {})  {}", system.name, system.kind, system.environment, system.address);
        systems.push(spread(vec![span(left, theme.base)], Vec::new(), columns));
    }
    let card = card::declare(app, columns);
    let room = height.saturating_sub(rows.len() + card.len() + systems.len() + 2);
    if let Some(text) = runbook.description.as_deref() {
        let mut text = markdown::rows(&app.state.expand(text), theme, columns.min(88));
        text.truncate(room);
        rows.extend(text);
        rows.push(Line::default());
    }
    rows.extend(systems);
    rows.push(Line::default());
    rows.extend(card);
    rows
}
