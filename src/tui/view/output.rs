//! Live output: the newest lines, or where the operator scrolled to.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Modifier, Style};
use ratatui::text::{Line, Span};

use crate::drill::{Elapsed, OutputTail};
use crate::event::{self, Stream};

use super::super::app::App;
use super::super::format;
use super::super::text::{clean, fit_line, span, spread, wrap};
use super::put;

/// Below the step: a rule with a title, then lines cut to the width.
pub(super) fn pane(app: &App, area: Rect, buffer: &mut Buffer) {
    let theme = app.theme();
    let Some(state) = app.state.steps.get(app.shown()) else { return };
    super::rule(theme, Rect { height: 1, ..area }, buffer);
    buffer.set_string(area.x, area.y, "output ", theme.muted);
    let rest = Rect { y: area.y + 1, height: area.height - 1, ..area };
    // What an earlier attempt said is one key away, and would be taken for this one's.
    let first = state.newest_output();
    put(rows(app, &state.output, first, rest.width, rest.height, false), rest, buffer);
    let word = position(app, &state.output);
    if !word.is_empty() {
        let x = area.right().saturating_sub(u16::try_from(word.len() + 2).unwrap_or(0)).max(area.x);
        buffer.set_stringn(x, area.y, format!(" {word} "), usize::from(area.right() - x), theme.muted);
    }
}

/// Everything but the clock and the keys; long lines are broken, not cut.
pub(super) fn full(app: &App, area: Rect, buffer: &mut Buffer) {
    let theme = app.theme();
    let shown = app.shown();
    let (Some(state), Some(step)) = (app.state.steps.get(shown), app.state.runbook.steps.get(shown)) else { return };
    let mut left = vec![Span::styled("Output of ", theme.muted), span(app.state.expand(&step.title), theme.strong)];
    if let Some(needle) = &app.search {
        let hits = state.output.lines.iter().filter(|(_, line)| contains(&line.text, needle)).count();
        left.push(span(format!("   /{needle}: {hits} lines"), theme.accent));
    }
    let right = vec![span(position(app, &state.output), theme.muted)];
    put([spread(left, right, usize::from(area.width))], area, buffer);
    let rest = Rect { y: area.y + 1, height: area.height.saturating_sub(1), ..area };
    put(rows(app, &state.output, 0, rest.width, rest.height, true), rest, buffer);
}

fn position(app: &App, output: &OutputTail) -> String {
    let total = output.earlier + output.lines.len() as u64;
    match app.scroll {
        Some(at) => format!("line {} of {}", at + 1, total),
        None if output.earlier + output.skipped_bytes > 0 => format!("{total} lines, more in the drill's directory"),
        None => String::new(),
    }
}

/// The rows that end at the line scrolled to; while following, those from line `first` on.
fn rows(app: &App, output: &OutputTail, first: usize, width: u16, height: u16, whole: bool) -> Vec<Line<'static>> {
    let theme = app.theme();
    let (columns, height) = (usize::from(width), usize::from(height));
    let first = if app.scroll.is_some() { 0 } else { first };
    if output.lines.len() <= first {
        return vec![Line::from(Span::styled("nothing was said yet", theme.muted))];
    }
    let newest = output.lines.len() - 1;
    let end =
        app.scroll.map_or(newest, |at| usize::try_from(at.saturating_sub(output.earlier)).unwrap_or(0).min(newest));
    let mut rows: Vec<Line<'static>> = Vec::new();
    for index in (first..=end).rev() {
        let (at, line) = &output.lines[index];
        let drawn = draw_line(app, *at, line, columns > 60);
        let drawn = if whole { wrap(drawn, columns, 11) } else { vec![fit_line(drawn, columns)] };
        rows.splice(0..0, drawn);
        if rows.len() >= height {
            break;
        }
    }
    // When scrolled near the beginning, go on below so that the room is used.
    for (at, line) in output.lines.iter().skip(end + 1) {
        if rows.len() >= height {
            break;
        }
        rows.push(fit_line(draw_line(app, *at, line, columns > 60), columns));
    }
    let surplus = rows.len().saturating_sub(height);
    rows.drain(..surplus);
    rows
}

fn draw_line(app: &App, at: Elapsed, line: &event::Line, with_time: bool) -> Line<'static> {
    let theme = app.theme();
    let mut spans = Vec::new();
    if with_time {
        let wall = app.state.opened.wall + at.saturating_sub(app.state.opened.elapsed);
        spans.push(Span::styled(format!("{} ", format::clock(wall, app.options.zone)), theme.muted));
    }
    let style = match line.stream {
        Stream::Out | Stream::Err => theme.base,
        Stream::Lifeboat => theme.accent,
    };
    let (mark, of) = match line.stream {
        Stream::Out => ("  ", theme.muted),
        Stream::Err => ("! ", theme.warn),
        Stream::Lifeboat => ("» ", theme.accent),
    };
    spans.push(Span::styled(mark, of));
    let text = clean(&line.text);
    match app.search.as_deref().filter(|needle| contains(&text, needle)) {
        Some(needle) => spans.extend(highlighted(&text, needle, style, theme.selection)),
        None => spans.push(Span::styled(text.into_owned(), style)),
    }
    Line::from(spans)
}

fn contains(text: &str, needle: &str) -> bool {
    text.to_lowercase().contains(&needle.to_lowercase())
}

/// The text with every match marked. Matches are found in lower case; where that changes lengths, the line is left whole.
fn highlighted(text: &str, needle: &str, style: Style, mark: Style) -> Vec<Span<'static>> {
    let (lower, needle) = (text.to_lowercase(), needle.to_lowercase());
    if lower.len() != text.len() || needle.is_empty() {
        return vec![Span::styled(text.to_owned(), style)];
    }
    let mark = mark.add_modifier(Modifier::BOLD);
    let mut spans = Vec::new();
    let mut from = 0;
    for (at, hit) in lower.match_indices(&needle) {
        let (Some(before), Some(found)) = (text.get(from..at), text.get(at..at + hit.len())) else {
            return vec![Span::styled(text.to_owned(), style)];
        };
        spans.push(Span::styled(before.to_owned(), style));
        spans.push(Span::styled(found.to_owned(), mark));
        from = at + hit.len();
    }
    spans.push(Span::styled(text.get(from..).unwrap_or_default().to_owned(), style));
    spans
}
