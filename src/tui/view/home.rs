//! Drawing the home screen.

use ratatui::Frame;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::text::{Line, Span};

use crate::event::{Mode, Verdict};

use super::super::home::{DrillEntry, Home, Item, RunbookEntry, Severity};
use super::super::keymap;
use super::super::text::{fit, fit_line, line_width, span, spread, width, wrap};
use super::super::{format, markdown};
use super::{finish, frame_rows, put, shrink};

/// From this width on, what is pointed at is described beside the list.
const BESIDE: u16 = 112;

impl Home {
    /// Draws the whole screen.
    pub fn draw(&self, frame: &mut Frame<'_>) {
        let area = frame.area();
        let buffer = frame.buffer_mut();
        buffer.set_style(area, self.theme().base);
        if area.width < 24 || area.height < 6 {
            put([fit_line(Line::from("too small"), usize::from(area.width))], area, buffer);
        } else {
            draw(self, area, buffer);
        }
        finish(buffer, self.options.ascii);
    }
}

fn draw(home: &Home, area: Rect, buffer: &mut Buffer) {
    let theme = home.theme();
    let [head, body, foot] = frame_rows(theme, area, buffer);
    let columns = usize::from(head.width);
    let place = match &home.model.inventory {
        Some(path) => span(path.display().to_string(), theme.muted),
        None => Span::styled("no lifeboat.toml here", theme.warn),
    };
    let left = vec![Span::styled("lifeboat  ", theme.muted), span(&home.model.service, theme.strong)];
    put([spread(left, vec![place], columns)], head, buffer);
    keys(home, foot, buffer);
    let body = shrink(body, 1, 1);
    if home.help {
        put(help(home, usize::from(body.width)), body, buffer);
        return;
    }
    let detail_width = if area.width >= BESIDE { area.width * 2 / 5 } else { 0 };
    let list = Rect { width: body.width - detail_width, ..body };
    let (rows, at) = list_rows(home, usize::from(list.width.saturating_sub(if detail_width > 0 { 2 } else { 0 })));
    let height = usize::from(list.height);
    let first = (at + 2).saturating_sub(height).min(rows.len().saturating_sub(height));
    put(rows.into_iter().skip(first), list, buffer);
    if detail_width > 0 {
        for y in body.top()..body.bottom() {
            buffer.set_string(list.right(), y, "│", theme.rule);
        }
        let place = Rect { x: list.right() + 2, width: detail_width - 2, ..body };
        put(detail(home, usize::from(place.width)), place, buffer);
    }
}

/// All rows, and the one that is pointed at.
fn list_rows(home: &Home, columns: usize) -> (Vec<Line<'static>>, usize) {
    let theme = home.theme();
    let model = &home.model;
    let mut rows: Vec<Line<'static>> = Vec::new();
    let mut at = 0;
    let heading = |rows: &mut Vec<Line<'static>>, title: &str| {
        if !rows.is_empty() {
            rows.push(Line::default());
        }
        rows.push(Line::from(span(title, theme.strong)));
    };
    if !model.attention.is_empty() {
        heading(&mut rows, "NEEDS ATTENTION");
        for attention in &model.attention {
            let (mark, style) = match attention.severity {
                Severity::Critical => ("✗", theme.bad),
                Severity::Warning => ("▲", theme.warn),
                Severity::Info => ("·", theme.muted),
            };
            let spans = vec![Span::styled(format!(" {mark} "), style), span(&attention.text, theme.base)];
            rows.extend(wrap(Line::from(spans), columns, 3));
        }
    }
    let mut title = "";
    for (index, item) in home.items().into_iter().enumerate() {
        let (group, row) = match item {
            Item::UnderWay(index) => ("UNDER WAY", drill_row(home, &model.under_way[index], columns)),
            Item::Runbook(index) => ("RUNBOOKS", runbook_row(home, &model.runbooks[index], columns)),
            Item::Past(index) => ("PAST", drill_row(home, &model.past[index], columns)),
        };
        if group != title {
            heading(&mut rows, group);
            title = group;
        }
        let chosen = index == home.at;
        if chosen {
            at = rows.len();
        }
        rows.push(if chosen { selected(row, theme.selection) } else { row });
    }
    if home.items().is_empty() {
        heading(&mut rows, "NOTHING HERE YET");
        let text = "No runbooks were found. `lifeboat sandbox drill` shows a whole restore on this machine.";
        rows.extend(wrap(Line::from(span(text, theme.base)), columns, 0));
    }
    (rows, at)
}

fn selected(mut row: Line<'static>, style: Style) -> Line<'static> {
    for span in &mut row.spans {
        span.style.bg = style.bg;
        span.style.add_modifier |= style.add_modifier;
    }
    row
}

fn verdict(home: &Home, verdict: Option<Verdict>) -> (&'static str, &'static str, Style) {
    let theme = home.theme();
    match verdict {
        None => ("◐", "under way", theme.accent),
        Some(Verdict::Passed) => ("✓", "passed", theme.good),
        Some(Verdict::ObjectiveMissed) => ("▲", "objective missed", theme.warn),
        Some(Verdict::Failed) => ("✗", "failed", theme.bad),
        Some(Verdict::Aborted) => ("▲", "aborted", theme.warn),
        Some(Verdict::NeedsPerson) => ("▲", "a person is needed", theme.warn),
    }
}

fn drill_row(home: &Home, drill: &DrillEntry, columns: usize) -> Line<'static> {
    let theme = home.theme();
    let (mark, word, style) = verdict(home, drill.verdict);
    let rto = match (drill.rto, drill.rto_target) {
        (Some(rto), Some(target)) => format!("{} of {}", format::hms(rto), format::words(target)),
        (Some(rto), None) => format::hms(rto),
        (None, _) => "–".to_owned(),
    };
    let mut left = vec![Span::styled(format!(" {mark} "), style), span(&drill.title, theme.base)];
    let local = drill.opened.with_timezone(&home.options.zone).format("%-d %b %H:%M").to_string();
    let right = if columns > 70 { format!("{rto:<18} {local:>12}") } else { format!("{local:>12}") };
    if drill.verdict.is_some_and(|verdict| verdict != Verdict::Passed) {
        let word = span(format!("  {word}"), style);
        // The sign says it too: half a word would say less.
        if line_width(&left) + width(&word.content) + width(&right) < columns {
            left.push(word);
        }
    }
    spread(left, vec![span(right, theme.muted)], columns)
}

fn runbook_row(home: &Home, runbook: &RunbookEntry, columns: usize) -> Line<'static> {
    let theme = home.theme();
    let (mark, style) = match (&runbook.problem, runbook.verdict) {
        (Some(_), _) => ("✗", theme.bad),
        (None, None) => ("·", theme.muted),
        (None, Some(_)) => {
            let (mark, _, style) = verdict(home, runbook.verdict);
            (mark, style)
        }
    };
    let left = vec![Span::styled(format!(" {mark} "), style), span(&runbook.title, theme.base)];
    let last = match runbook.last_run {
        Some(at) => at.with_timezone(&home.options.zone).format("%-d %b %H:%M").to_string(),
        None => "never run".to_owned(),
    };
    let owner = fit(runbook.owner.as_deref().unwrap_or_default(), 18);
    let right = if columns > 70 { format!("{owner:<18} {last:>12}") } else { format!("{last:>12}") };
    spread(left, vec![span(right, theme.muted)], columns)
}

/// About what is pointed at.
fn detail(home: &Home, columns: usize) -> Vec<Line<'static>> {
    let theme = home.theme();
    let mut rows = Vec::new();
    let fact = |rows: &mut Vec<Line<'static>>, name: &str, value: String, style: Style| {
        let spans = vec![span(format!("{name:<12}"), theme.muted), span(value, style)];
        rows.extend(wrap(Line::from(spans), columns, 12));
    };
    match home.item() {
        Some(Item::Runbook(index)) => {
            let runbook = &home.model.runbooks[index];
            rows.extend(wrap(Line::from(span(&runbook.title, theme.strong)), columns, 0));
            rows.push(Line::default());
            if let Some(text) = &runbook.description {
                rows.extend(markdown::rows(text, theme, columns));
                rows.push(Line::default());
            }
            fact(&mut rows, "owner", runbook.owner.clone().unwrap_or_else(|| "nobody".to_owned()), theme.base);
            if let Some(at) = runbook.last_run {
                let (mark, word, style) = verdict(home, runbook.verdict);
                fact(&mut rows, "last run", format::both(at, home.options.zone), theme.base);
                fact(&mut rows, "", format!("{mark} {word}"), style);
            }
            fact(&mut rows, "file", runbook.path.display().to_string(), theme.base);
            if let Some(problem) = &runbook.problem {
                rows.push(Line::default());
                fact(&mut rows, "✗ problem", problem.clone(), theme.bad);
            }
        }
        Some(Item::UnderWay(index)) => rows.extend(drill_detail(home, &home.model.under_way[index], columns)),
        Some(Item::Past(index)) => rows.extend(drill_detail(home, &home.model.past[index], columns)),
        None => {}
    }
    rows
}

fn drill_detail(home: &Home, drill: &DrillEntry, columns: usize) -> Vec<Line<'static>> {
    let theme = home.theme();
    let (mark, word, style) = verdict(home, drill.verdict);
    let mode = match drill.mode {
        Mode::Sandbox => drill.mode.word().to_owned(),
        mode => format!("{} · {}", drill.environment.to_uppercase(), mode.word()),
    };
    let mut rows = wrap(Line::from(span(&drill.title, theme.strong)), columns, 0);
    rows.push(Line::default());
    let mut fact = |name: &str, value: String, style: Style| {
        let spans = vec![span(format!("{name:<12}"), theme.muted), span(value, style)];
        rows.extend(wrap(Line::from(spans), columns, 12));
    };
    fact("verdict", format!("{mark} {word}"), style);
    fact("what for", mode, theme.base);
    fact("opened", format::both(drill.opened, home.options.zone), theme.base);
    fact("operator", drill.operator.clone(), theme.base);
    if let Some(rto) = drill.rto {
        let target = drill.rto_target.map(|target| format!(" of {}", format::words(target))).unwrap_or_default();
        fact("RTO", format!("{}{target}", format::hms(rto)), theme.base);
    }
    fact("directory", drill.dir.display().to_string(), theme.base);
    if let Some(note) = &drill.note {
        fact("", String::new(), theme.base);
        fact("", note.clone(), theme.base);
    }
    rows
}

fn keys(home: &Home, area: Rect, buffer: &mut Buffer) {
    let theme = home.theme();
    let columns = usize::from(area.width);
    if let Some(notice) = &home.notice {
        put(
            [fit_line(Line::from(vec![Span::styled("▲ ", theme.warn), span(notice, theme.warn)]), columns)],
            area,
            buffer,
        );
        return;
    }
    let mut spans = Vec::new();
    for (binding, keys) in keymap::reachable(&home.contexts()) {
        let name = match binding.action {
            keymap::Action::Up => "↑ ↓".to_owned(),
            keymap::Action::Down => continue,
            _ => keys[0].name(),
        };
        let label = if binding.action == keymap::Action::Up { "choose" } else { binding.label };
        spans.push(super::cap(theme, &name));
        spans.push(span(format!(" {label}   "), theme.muted));
    }
    put([fit_line(Line::from(spans), columns)], area, buffer);
}

fn help(home: &Home, columns: usize) -> Vec<Line<'static>> {
    let theme = home.theme();
    let mut rows = vec![Line::from(Span::styled("Keys", theme.strong)), Line::default()];
    for (binding, keys) in keymap::reachable(&home.contexts()) {
        let names = keys.iter().map(|key| key.name()).collect::<Vec<_>>().join(" ");
        let pad = " ".repeat(16usize.saturating_sub(width(&names)).max(1));
        let spans = vec![Span::styled(names, theme.key()), Span::raw(pad), span(binding.label, theme.base)];
        rows.extend(wrap(Line::from(spans), columns, 16));
    }
    rows.push(Line::default());
    rows.push(Line::from(Span::styled("Any key goes back.", theme.muted)));
    rows
}
