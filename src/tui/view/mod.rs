//! Drawing: one pane a file. The clock, the list of steps and the key bar keep their places; only the middle changes.

mod card;
mod clocks;
mod digits;
mod home;
mod output;
pub(super) mod overlay;
mod picker;
mod small;
mod step;
mod steps;
mod summary;
mod top;

use ratatui::Frame;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::text::{Line, Span};
use ratatui::widgets::{Clear, Widget};

use crate::drill::StepStatus;

use super::app::App;
use super::text::{self, is_unsafe};
use super::theme::Theme;

/// How much room there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Room {
    /// Three columns.
    Wide,
    /// 80×24: steps as one line above, the middle below.
    Compact,
    /// The clock, the step, the key.
    Small,
    /// Not even that.
    None,
}

impl Room {
    pub(super) fn of(area: Rect) -> Self {
        match (area.width, area.height) {
            (w, h) if w >= 112 && h >= 26 => Self::Wide,
            (w, h) if w >= 64 && h >= 18 => Self::Compact,
            (w, h) if w >= 16 && h >= 3 => Self::Small,
            _ => Self::None,
        }
    }
}

impl App {
    /// Draws the whole screen.
    pub fn draw(&self, frame: &mut Frame<'_>) {
        let area = frame.area();
        let buffer = frame.buffer_mut();
        self.render(area, buffer);
        finish(buffer, self.options.ascii);
    }

    fn render(&self, area: Rect, buffer: &mut Buffer) {
        buffer.set_style(area, self.theme().base);
        match Room::of(area) {
            Room::Wide => self.wide(area, buffer),
            Room::Compact => self.compact(area, buffer),
            Room::Small => small::draw(self, area, buffer),
            Room::None => Line::from("too small").render(area, buffer),
        }
    }

    fn wide(&self, area: Rect, buffer: &mut Buffer) {
        let steps_width = (area.width / 4).clamp(30, 40);
        let clocks_width = if area.width >= 144 { 42 } else { 30 };
        let [head, body, foot] = frame_rows(self.theme(), area, buffer);
        let columns = columns(body, steps_width, clocks_width);
        for x in [columns[0].right(), columns[2].x - 1] {
            for y in body.top()..body.bottom() {
                buffer.set_string(x, y, "│", self.theme().rule);
            }
        }
        top::line(self, head, buffer);
        steps::column(self, shrink(columns[0], 1, 1), buffer);
        clocks::column(self, shrink(columns[2], 1, 1), buffer);
        // What lies on top may cover the steps, never the clock.
        let whole = Rect { width: columns[2].x - 1 - body.x, ..body };
        self.middle(shrink(columns[1], 1, 1), whole, buffer);
        top::keys(self, foot, buffer);
    }

    fn compact(&self, area: Rect, buffer: &mut Buffer) {
        let [head, body, foot] = frame_rows(self.theme(), area, buffer);
        let row = |index| Rect { y: body.y + index, height: 1, ..shrink(body, 1, 1) };
        top::line(self, head, buffer);
        clocks::row(self, row(0), buffer);
        clocks::second_row(self, row(1), buffer);
        steps::row(self, row(2), buffer);
        rule(self.theme(), Rect { y: body.y + 3, height: 1, ..body }, buffer);
        let middle = Rect { y: body.y + 4, height: body.height - 4, ..body };
        self.middle(shrink(middle, 1, 1), middle, buffer);
        top::keys(self, foot, buffer);
    }

    /// The step, or what lies on top of it; `whole` is what output may cover.
    fn middle(&self, area: Rect, whole: Rect, buffer: &mut Buffer) {
        step::draw(self, area, buffer);
        overlay::draw(self, area, whole, buffer);
    }
}

/// Head and foot of one row, a rule below and above them; the rest is the body.
fn frame_rows(theme: &Theme, area: Rect, buffer: &mut Buffer) -> [Rect; 3] {
    let head = Rect { height: 1, ..area };
    let foot = Rect { y: area.bottom() - 1, height: 1, ..area };
    rule(theme, Rect { y: area.y + 1, height: 1, ..area }, buffer);
    rule(theme, Rect { y: area.bottom() - 2, height: 1, ..area }, buffer);
    let body = Rect { y: area.y + 2, height: area.height - 4, ..area };
    [shrink(head, 1, 1), body, shrink(foot, 1, 1)]
}

fn columns(body: Rect, left: u16, right: u16) -> [Rect; 3] {
    let middle = body.width - left - right - 2;
    [
        Rect { width: left, ..body },
        Rect { x: body.x + left + 1, width: middle, ..body },
        Rect { x: body.x + left + middle + 2, width: right, ..body },
    ]
}

fn rule(theme: &Theme, area: Rect, buffer: &mut Buffer) {
    buffer.set_string(area.x, area.y, "─".repeat(usize::from(area.width)), theme.rule);
}

fn shrink(area: Rect, left: u16, right: u16) -> Rect {
    let width = area.width.saturating_sub(left + right);
    Rect { x: area.x + left.min(area.width), width, ..area }
}

/// Writes rows into an area, as many as fit.
fn put(rows: impl IntoIterator<Item = Line<'static>>, area: Rect, buffer: &mut Buffer) {
    for (row, y) in rows.into_iter().zip(area.top()..area.bottom()) {
        buffer.set_line(area.x, y, &row, area.width);
    }
}

/// Clears an area for something that lies on top.
fn clear(theme: &Theme, area: Rect, buffer: &mut Buffer) {
    Clear.render(area, buffer);
    buffer.set_style(area, theme.base);
}

/// A bar of `columns` cells; `tick` marks a place on it.
fn bar(fraction: f64, columns: usize, tick: Option<f64>, full: Style, empty: Style) -> Vec<Span<'static>> {
    let cells = |part: f64| {
        let part = if part.is_finite() { part.clamp(0.0, 1.0) } else { 0.0 };
        (part * columns as f64).round() as usize
    };
    let (filled, tick) = (cells(fraction), tick.map(|tick| cells(tick).min(columns.saturating_sub(1))));
    let mut spans: Vec<Span<'static>> = Vec::new();
    for column in 0..columns {
        let (symbol, style) = match column {
            c if Some(c) == tick => ("┊", full),
            c if c < filled => ("▓", full),
            _ => ("░", empty),
        };
        match spans.last_mut() {
            Some(last) if last.style == style => last.content.to_mut().push_str(symbol),
            _ => spans.push(Span::styled(symbol.to_owned(), style)),
        }
    }
    spans
}

/// A key as it is drawn: a cap.
fn cap(theme: &Theme, name: &str) -> Span<'static> {
    Span::styled(name.to_owned(), theme.key())
}

/// The sign of a step and its style.
fn sign(theme: &Theme, status: &StepStatus, waits: bool) -> (&'static str, Style) {
    match status {
        StepStatus::Failed => ("✗", theme.bad),
        StepStatus::InDoubt => ("▲", theme.bad),
        _ if waits => ("▶", theme.accent),
        StepStatus::Pending => ("·", theme.muted),
        StepStatus::Gated => ("▶", theme.accent),
        StepStatus::Running => ("◐", theme.accent),
        StepStatus::Retrying { .. } => ("▲", theme.warn),
        StepStatus::Passed => ("✓", theme.good),
        StepStatus::Skipped { .. } => ("○", theme.warn),
        StepStatus::NotNeeded { .. } => ("○", theme.muted),
        StepStatus::Undone => ("○", theme.warn),
    }
}

/// The last defence at the edge: no cell holds a control, and without UTF-8 none holds anything but ASCII.
pub(super) fn finish(buffer: &mut Buffer, ascii: bool) {
    for cell in &mut buffer.content {
        let symbol = cell.symbol();
        if symbol.chars().any(is_unsafe) {
            cell.set_symbol(" ");
        } else if ascii && !symbol.is_ascii() {
            let twin = text::twin(symbol);
            cell.set_symbol(twin);
        }
    }
}
