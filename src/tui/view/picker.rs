//! The time line of the recovery point: what there is, where the cursor stands, what choosing it would mean.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Timelike, Utc};
use ratatui::style::{Modifier, Style};
use ratatui::text::{Line, Span};

use crate::event::{RecoveryTarget, SystemWindow};

use super::super::app::App;
use super::super::format;
use super::super::picker::Picker;
use super::super::session::PointPreview;
use super::super::text::{span, width, wrap};
use super::card::{self, Card};

/// Columns of the rows' names.
const NAME: usize = 10;

/// The whole pane.
pub(super) fn rows(app: &App, view: &Picker, columns: usize) -> Vec<Line<'static>> {
    let theme = app.theme();
    let plot = Plot { app, view, columns: columns.saturating_sub(NAME).max(10) };
    let mut rows = vec![plot.axis()];
    for system in &view.window.systems {
        rows.extend(plot.system(system));
    }
    if let Some(incident) = view.window.incident {
        let mut row = plot.blank();
        plot.mark(&mut row, incident, '▲', theme.bad);
        let label = format!("{} incident", format::clock(incident, app.options.zone));
        plot.beside(&mut row, incident, &label, theme.base);
        rows.push(plot.row("incident", row));
    }
    rows.push(plot.cursor_row());
    rows.push(Line::default());
    rows.extend(meaning(app, view, columns));
    for system in &view.window.systems {
        let (SystemWindow::Postgres { system, warnings, .. } | SystemWindow::Redis { system, warnings, .. }) = system;
        for warning in warnings {
            let spans = vec![Span::styled("▲ ", theme.warn), span(format!("{system}: {warning}"), theme.muted)];
            rows.extend(wrap(Line::from(spans), columns, 2));
        }
    }
    rows
}

/// `Recover to just before 21 Nov 10:02:31 +01:00 (…)`: what Enter chooses.
pub(super) fn sentence(app: &App, view: &Picker) -> String {
    let what = target_words(app, view);
    match &view.preview {
        Ok(preview) => {
            let loss = preview.loss_seconds.map(|loss| format!(" Gives up {} of data.", format::seconds(loss)));
            format!("Recover to {what}.{}", loss.unwrap_or_default())
        }
        Err(_) => format!("{what} is not possible."),
    }
}

fn target_words(app: &App, view: &Picker) -> String {
    let side = if view.inclusive { "just after" } else { "just before" };
    match &view.target {
        RecoveryTarget::Latest => "the end of the WAL".to_owned(),
        RecoveryTarget::Time { time } => {
            let zone = app.options.zone;
            let today = time.with_timezone(&zone).date_naive() == app.wall.with_timezone(&zone).date_naive();
            format!("{side} {}", if today { format::both_today(*time, zone) } else { format::both(*time, zone) })
        }
        RecoveryTarget::Lsn { lsn } => format!("{side} LSN {lsn}"),
        RecoveryTarget::Xid { xid } => format!("{side} transaction {xid}"),
        RecoveryTarget::RestorePoint { name } => format!("the restore point {name}"),
    }
}

/// Possible or not, and at what price.
fn meaning(app: &App, view: &Picker, columns: usize) -> Vec<Line<'static>> {
    let theme = app.theme();
    let what = target_words(app, view);
    match &view.preview {
        Ok(preview) => {
            let mut card = Card::new(app, theme.accent, columns);
            card.key("Enter", &format!("recover to {what}"), theme.strong);
            let mut rows = price(app, preview, columns);
            rows.push(Line::default());
            rows.extend(card.rows());
            rows
        }
        Err(failure) => {
            let mut card = Card::new(app, theme.bad, columns);
            card.line(vec![Span::styled("not possible ✗  ", theme.bad), span(what, theme.strong)], 16);
            card::failure_words(&mut card, app, failure);
            card.rows()
        }
    }
}

fn price(app: &App, preview: &PointPreview, columns: usize) -> Vec<Line<'static>> {
    let theme = app.theme();
    let mut rows = Vec::new();
    let mut parts: Vec<(String, String)> = Vec::new();
    parts.extend(preview.loss_seconds.map(|loss| ("loses".to_owned(), format::seconds(loss))));
    parts.extend(preview.skew_seconds.map(|skew| ("skew".to_owned(), format::seconds(skew))));
    parts.extend(preview.bytes_to_fetch.map(|bytes| ("fetch".to_owned(), format::bytes(bytes))));
    parts.extend(
        preview
            .segments_to_replay
            .map(|segments| ("replay".to_owned(), format::amount(segments, None, crate::event::Unit::Segments))),
    );
    if let Some(ready) = preview.ready_seconds.filter(|ready| (0.0..1e8).contains(ready)) {
        let at = app.wall + TimeDelta::from_std(Duration::from_secs_f64(ready)).unwrap_or_default();
        parts.push(("ready about".to_owned(), format::minute(at, app.options.zone)));
    }
    let mut spans = vec![Span::styled("possible ✓", theme.good)];
    for (name, value) in parts {
        spans.push(span(format!("   {name} "), theme.muted));
        spans.push(span(value, theme.base));
    }
    rows.extend(wrap(Line::from(spans), columns, 12));
    let point = &preview.point;
    let mut labels: Vec<String> = point.backups.values().chain(point.snapshots.values()).cloned().collect();
    labels.extend(point.aof.values().map(|aof| format!("AOF to {}", format::clock(aof.at, app.options.zone))));
    if !labels.is_empty() {
        rows.extend(wrap(Line::from(span(format!("from {}", labels.join(" and ")), theme.muted)), columns, 2));
    }
    for line in &preview.lines {
        rows.extend(wrap(Line::from(span(line, theme.base)), columns, 2));
    }
    for warning in &preview.warnings {
        let spans = vec![Span::styled("▲ ", theme.warn), span(warning, theme.warn)];
        rows.extend(wrap(Line::from(spans), columns, 2));
    }
    rows
}

type Cells = Vec<(char, Style)>;

/// Writes a label. Its spaces do not break, so that the cursor's line does not cut through it.
fn write(cells: &mut [(char, Style)], text: &str, style: Style) {
    for (cell, symbol) in cells.iter_mut().zip(text.chars()) {
        *cell = (if symbol == ' ' { '\u{a0}' } else { symbol }, style);
    }
}

struct Plot<'a> {
    app: &'a App,
    view: &'a Picker,
    columns: usize,
}

impl Plot<'_> {
    fn blank(&self) -> Cells {
        vec![(' ', self.app.theme().base); self.columns]
    }

    /// The column of a moment; may lie outside.
    fn column(&self, at: DateTime<Utc>) -> i64 {
        let part = (at - self.view.from).num_milliseconds() as f64 / self.view.span().num_milliseconds() as f64;
        (part * self.columns as f64).floor().clamp(-1e6, 1e6) as i64
    }

    fn inside(&self, at: DateTime<Utc>) -> Option<usize> {
        usize::try_from(self.column(at)).ok().filter(|&column| column < self.columns)
    }

    fn mark(&self, row: &mut Cells, at: DateTime<Utc>, symbol: char, style: Style) {
        match self.inside(at) {
            Some(column) => row[column] = (symbol, style),
            None if at < self.view.from => row[0] = ('‹', style),
            None => row[self.columns - 1] = ('›', style),
        }
    }

    /// Text to the right of a moment, or to its left when there is no room; nothing is written over.
    fn beside(&self, row: &mut Cells, at: DateTime<Utc>, text: &str, style: Style) {
        let long = text.chars().count();
        let column = usize::try_from(self.column(at).max(0)).unwrap_or(0).min(self.columns - 1);
        let free = |row: &Cells, from: usize| {
            from + long <= self.columns && row[from..from + long].iter().all(|(symbol, _)| *symbol == ' ')
        };
        let right = column + 2;
        let start = match column.checked_sub(long + 1) {
            _ if free(row, right.min(self.columns)) && right + long <= self.columns => right,
            Some(left) if free(row, left) => left,
            _ => return,
        };
        write(&mut row[start..], text, style);
    }

    /// As [`Self::beside`]; without room there, the text interrupts the line that ends at the moment.
    fn beside_or_on(&self, row: &mut Cells, at: DateTime<Utc>, text: &str, style: Style) {
        let before = row.clone();
        self.beside(row, at, text, style);
        let column = usize::try_from(self.column(at).max(0)).unwrap_or(0).min(self.columns - 1);
        let long = text.chars().count() + 2;
        let cursor = self.inside(self.view.at);
        if *row != before || cursor.is_some_and(|cursor| (column.saturating_sub(long + 2)..=column).contains(&cursor)) {
            return;
        }
        if let Some(start) = column.checked_sub(long + 1) {
            write(&mut row[start..], &format!(" {text} "), style);
        }
    }

    /// A row with its name; the cursor's line goes through every empty cell.
    fn row(&self, name: &str, mut cells: Cells) -> Line<'static> {
        let theme = self.app.theme();
        if let Some(column) = self.inside(self.view.at)
            && matches!(cells[column].0, ' ' | '━' | '·')
        {
            cells[column] = ('┃', theme.accent);
        }
        let mut spans = vec![span(super::super::text::fit(name, NAME - 1), theme.muted)];
        spans.push(Span::raw(" ".repeat(NAME.saturating_sub(width(&spans[0].content)))));
        for (symbol, style) in cells {
            match spans.last_mut() {
                Some(last) if last.style == style => last.content.to_mut().push(symbol),
                _ => spans.push(Span::styled(symbol.to_string(), style)),
            }
        }
        Line::from(spans)
    }

    /// The name of a system, above its rows, when there are more of them than one of a kind.
    fn heading(&self, system: &str) -> Option<Line<'static>> {
        let kinds: Vec<_> = self.view.window.systems.iter().map(std::mem::discriminant).collect();
        let alone = kinds.iter().enumerate().all(|(index, kind)| !kinds[..index].contains(kind));
        if alone {
            return None;
        }
        let mut line = self.row("", self.blank());
        let name = super::super::text::fit(system, NAME + self.columns);
        match NAME.checked_sub(width(&name)) {
            Some(rest) => {
                line.spans[..2].clone_from_slice(&[span(name, self.app.theme().base), Span::raw(" ".repeat(rest))])
            }
            None => line = Line::from(span(name, self.app.theme().base)),
        }
        Some(line)
    }

    /// Times along the top, in the operator's zone.
    fn axis(&self) -> Line<'static> {
        let theme = self.app.theme();
        let zone = self.app.options.zone;
        let mut row = self.blank();
        let span_seconds = self.view.span().num_seconds();
        let steps = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10_800, 21_600, 43_200, 86_400];
        let wanted = span_seconds * 12 / i64::try_from(self.columns).unwrap_or(80).max(1);
        let step = steps.iter().copied().find(|step| *step >= wanted).unwrap_or((wanted / 86_400 + 1) * 86_400);
        let offset = i64::from(zone.local_minus_utc());
        let from = self.view.from.timestamp();
        let mut at = (from + offset).div_euclid(step) * step - offset;
        while at <= from + span_seconds {
            if let Some(time) = DateTime::from_timestamp(at, 0)
                && let Some(column) = self.inside(time)
            {
                let local = time.with_timezone(&zone);
                let text = match step {
                    step if step >= 86_400 || local.num_seconds_from_midnight() == 0 => local.format("%-d %b"),
                    step if step >= 60 => local.format("%H:%M"),
                    _ => local.format("%H:%M:%S"),
                };
                let text = text.to_string();
                if column + text.len() <= self.columns {
                    for (cell, symbol) in row[column..].iter_mut().zip(text.chars()) {
                        *cell = (symbol, theme.muted);
                    }
                }
            }
            at += step;
        }
        let day = self.view.at.with_timezone(&zone).format("%-d %b").to_string();
        let mut line = self.row(&day, row);
        line.spans[0].style = theme.strong;
        line
    }

    fn system(&self, system: &SystemWindow) -> Vec<Line<'static>> {
        let theme = self.app.theme();
        let zone = self.app.options.zone;
        let mut rows = Vec::new();
        match system {
            SystemWindow::Postgres { system, backups, coverage, gaps, restore_points, .. } => {
                let mut row = self.blank();
                for backup in backups {
                    self.mark(&mut row, backup.stopped, '■', theme.good);
                }
                if let Some(newest) =
                    backups.iter().filter(|backup| backup.stopped <= self.view.at).max_by_key(|b| b.stopped)
                {
                    let text =
                        format!("{}, {}", format::minute(newest.stopped, zone), format::bytes(newest.stored_bytes));
                    self.beside(&mut row, newest.stopped, &text, theme.base);
                }
                rows.extend(self.heading(system));
                rows.push(self.row("base", row));
                let mut row = self.blank();
                let runs: Vec<_> =
                    coverage.iter().filter_map(|run| Some((run.from_time?, run.to_time?, run))).collect();
                for pair in runs.windows(2) {
                    self.fill(&mut row, pair[0].1, pair[1].0, '×', theme.bad);
                }
                for (from, to, _) in &runs {
                    self.fill(&mut row, *from, *to, '━', theme.good);
                    self.mark(&mut row, *to, '╸', theme.good);
                }
                if let Some((_, to, run)) = runs.last() {
                    let holes = match gaps.len() {
                        0 => "no gap".to_owned(),
                        1 => "1 gap".to_owned(),
                        number => format!("{number} gaps"),
                    };
                    let style = if gaps.is_empty() { theme.base } else { theme.bad };
                    let text = format!("{} timeline {}, {holes}", format::clock(*to, zone), run.timeline);
                    self.beside_or_on(&mut row, *to, &text, style);
                }
                rows.push(self.row("WAL", row));
                if !restore_points.is_empty() {
                    let mut row = self.blank();
                    for point in restore_points {
                        self.mark(&mut row, point.at, '○', theme.accent);
                        self.beside(&mut row, point.at, &super::super::text::fit(&point.name, 24), theme.base);
                    }
                    rows.push(self.row("points", row));
                }
            }
            SystemWindow::Redis { system, snapshots, aof, .. } => {
                let mut row = self.blank();
                for snapshot in snapshots {
                    self.mark(&mut row, snapshot.at, '○', theme.good);
                }
                if let Some(newest) = snapshots.iter().filter(|s| s.at <= self.view.at).max_by_key(|s| s.at) {
                    let text = format!("{} RDB, {} keys", format::clock(newest.at, zone), format::count(newest.keys));
                    self.beside(&mut row, newest.at, &text, theme.base);
                }
                rows.extend(self.heading(system));
                rows.push(self.row("redis", row));
                if let Some(newest) = aof.iter().max_by_key(|range| range.end()) {
                    let mut row = self.blank();
                    for range in aof {
                        self.fill(&mut row, range.from, range.end(), '━', theme.good);
                        self.mark(&mut row, range.end(), '╸', theme.good);
                    }
                    let text = format!("{} AOF, to the second", format::clock(newest.end(), zone));
                    self.beside_or_on(&mut row, newest.end(), &text, theme.base);
                    rows.push(self.row("AOF", row));
                }
            }
        }
        rows
    }

    fn fill(&self, row: &mut Cells, from: DateTime<Utc>, to: DateTime<Utc>, symbol: char, style: Style) {
        let last = i64::try_from(self.columns).unwrap_or(i64::MAX) - 1;
        let (from, to) = (self.column(from), self.column(to));
        if to < 0 || from > last {
            return;
        }
        for column in from.max(0)..=to.min(last) {
            row[usize::try_from(column).unwrap_or(0)] = (symbol, style);
        }
    }

    /// Where the cursor stands, in words.
    fn cursor_row(&self) -> Line<'static> {
        let theme = self.app.theme();
        let mut row = self.blank();
        let style = theme.accent.add_modifier(Modifier::BOLD);
        self.mark(&mut row, self.view.at, '┃', style);
        let label = match &self.view.target {
            RecoveryTarget::Time { .. } => format!("your point {}", format::clock(self.view.at, self.app.options.zone)),
            other => format!("your point {other}"),
        };
        self.beside(&mut row, self.view.at, &label, style);
        self.row("", row)
    }
}
