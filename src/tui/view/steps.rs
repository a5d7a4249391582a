//! Phases and steps: a column, or one row.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::text::{Line, Span};

use crate::drill::StepStatus;

use super::super::app::App;
use super::super::format;
use super::super::text::{fit_line, line_width, span, spread};
use super::{put, sign};

/// Phases as headings, steps below them, durations at the right edge; scrolls so that the step in the middle is seen.
pub(super) fn column(app: &App, area: Rect, buffer: &mut Buffer) {
    let columns = usize::from(area.width);
    let shown = app.shown();
    let mut rows = Vec::new();
    let mut at = 0;
    for (index, phase) in app.state.runbook.phases.iter().enumerate() {
        if index > 0 && app.state.runbook.phases.len() * 2 + app.state.steps.len() < usize::from(area.height) {
            rows.push(Line::default());
        }
        rows.push(heading(app, index, &phase.title, columns));
        for step in phase.steps.clone() {
            if step == shown {
                at = rows.len();
            }
            rows.push(entry(app, step, columns));
        }
    }
    let height = usize::from(area.height);
    let first = if rows.len() <= height { 0 } else { (at + 3).saturating_sub(height).min(rows.len() - height) };
    let more = rows.len().saturating_sub(first + height);
    let mut rows: Vec<_> = rows.into_iter().skip(first).take(height).collect();
    let muted = app.theme().muted;
    if first > 0
        && let Some(row) = rows.first_mut()
    {
        *row = Line::from(Span::styled(format!("↑ {} more", first + 1), muted));
    }
    if more > 0
        && let Some(row) = rows.last_mut()
    {
        *row = Line::from(Span::styled(format!("↓ {} more", more + 1), muted));
    }
    put(rows, area, buffer);
}

fn heading(app: &App, phase: usize, title: &str, columns: usize) -> Line<'static> {
    let theme = app.theme();
    let (mark, style) = phase_sign(app, phase);
    let time = app.state.phase_duration(phase, app.now).map(format::short).unwrap_or_default();
    let right = vec![Span::styled(mark, style), Span::styled(format!(" {time:>7}"), theme.muted)];
    spread(vec![span(title.to_uppercase(), theme.strong)], right, columns)
}

/// A phase's sign is that of the step which matters most.
fn phase_sign(app: &App, phase: usize) -> (&'static str, Style) {
    let theme = app.theme();
    let steps = &app.state.steps[app.state.runbook.phases[phase].steps.clone()];
    let any = |test: fn(&StepStatus) -> bool| steps.iter().any(|step| test(&step.status));
    if any(|status| matches!(status, StepStatus::Failed | StepStatus::InDoubt)) {
        ("✗", theme.bad)
    } else if steps.iter().any(|step| step.ask.is_some()) || any(|status| *status == StepStatus::Gated) {
        ("▶", theme.accent)
    } else if steps.iter().all(|step| step.status.lets_pass()) {
        ("✓", theme.good)
    } else if any(|status| *status != StepStatus::Pending) {
        ("◐", theme.accent)
    } else {
        ("·", theme.muted)
    }
}

fn entry(app: &App, step: usize, columns: usize) -> Line<'static> {
    let theme = app.theme();
    let state = &app.state.steps[step];
    let (mark, style) = sign(theme, &state.status, state.ask.is_some());
    let looked_at = step == app.shown();
    let text = match &state.status {
        _ if looked_at => theme.selection,
        StepStatus::Pending | StepStatus::NotNeeded { .. } => theme.muted,
        _ => theme.base,
    };
    let time = match (&state.ask, &state.status) {
        (Some(pending), _) => format::short(app.now.saturating_sub(pending.since.elapsed)),
        (_, StepStatus::Skipped { .. }) => "skipped".to_owned(),
        (_, StepStatus::NotNeeded { .. }) => "–".to_owned(),
        (_, StepStatus::Undone) => "undone".to_owned(),
        (_, StepStatus::Pending) => String::new(),
        _ => state.duration(app.now).map(format::short).unwrap_or_default(),
    };
    let left = vec![
        Span::styled(format!(" {mark} "), style),
        span(app.state.expand(&app.state.runbook.steps[step].title), text),
    ];
    let mut line = spread(left, vec![Span::styled(time, theme.muted)], columns);
    if looked_at {
        for part in &mut line.spans {
            part.style.bg = theme.selection.bg;
            part.style.add_modifier |= theme.selection.add_modifier;
        }
    }
    line
}

/// All phases with their signs, the current one with its step.
pub(super) fn row(app: &App, area: Rect, buffer: &mut Buffer) {
    let theme = app.theme();
    let columns = usize::from(area.width);
    let shown = app.shown();
    let phases = &app.state.runbook.phases;
    let mut parts: Vec<Vec<Span<'static>>> = Vec::new();
    let mut current = 0;
    for (index, phase) in phases.iter().enumerate() {
        let (mark, style) = phase_sign(app, index);
        let here = phase.steps.contains(&shown);
        let mut spans = vec![Span::styled(format!("{mark} "), style)];
        if here {
            current = index;
            let number = shown - phase.steps.start + 1;
            spans.push(span(&phase.title, theme.strong));
            spans.push(Span::styled(format!(" {number} of {}", phase.steps.len()), theme.base));
        } else {
            spans.push(span(&phase.title, theme.muted));
        }
        parts.push(spans);
    }
    // Phases far from the current one give way when room runs out.
    let wide = |parts: &[Vec<Span<'static>>]| parts.iter().map(|part| line_width(part) + 3).sum::<usize>();
    let mut first = 0;
    while first < current && wide(&parts[first..]) > columns + 3 {
        first += 1;
    }
    let mut spans = Vec::new();
    if first > 0 {
        spans.push(Span::styled("… ", theme.muted));
    }
    for part in parts.drain(first..) {
        spans.extend(part);
        spans.push(Span::raw("   "));
    }
    put([fit_line(Line::from(spans), columns)], area, buffer);
}
