//! The time line itself: one row a kind of thing, one column a stretch of time.

use chrono::{DateTime, Timelike, Utc};
use ratatui::style::{Modifier, Style};
use ratatui::text::{Line, Span};

use crate::event::{AofRange, History, RecoveryPoint, RecoveryTarget, RedisSnapshot, SystemWindow};

use super::super::super::app::App;
use super::super::super::picker::Picker;
use super::super::super::text::{fit, span, width};
use super::super::super::{format, price};

/// Columns of the rows' names.
pub(super) const NAME: usize = 10;

/// Heights of a column of the sparkline.
const HEIGHTS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

type Cells = Vec<(char, Style)>;

/// A label's space: the cursor's line does not cut through it.
const UNBROKEN: char = '\u{a0}';

/// Writes a label.
fn write(cells: &mut [(char, Style)], text: &str, style: Style) {
    for (cell, symbol) in cells.iter_mut().zip(text.chars()) {
        *cell = (if symbol == ' ' { UNBROKEN } else { symbol }, style);
    }
}

/// How much there is for the rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Room {
    Ample,
    /// Nothing that is empty in this stretch of time.
    Tight,
    /// Only what a point cannot be chosen without.
    Least,
}

pub(super) struct Plot<'a> {
    app: &'a App,
    view: &'a Picker,
    columns: usize,
}

impl<'a> Plot<'a> {
    pub(super) fn new(app: &'a App, view: &'a Picker, columns: usize) -> Self {
        Self { app, view, columns: columns.saturating_sub(NAME).max(10) }
    }

    pub(super) fn rows(&self, room: Room) -> Vec<Line<'static>> {
        let theme = self.app.theme();
        let mut rows = vec![self.axis()];
        for system in &self.view.window.systems {
            rows.extend(self.system(system, room));
        }
        if let Some(incident) = self.view.window.incident {
            let mut row = self.blank();
            self.mark(&mut row, incident, '▲', theme.bad);
            let label = format!("{} incident", format::clock(incident, self.app.options.zone));
            self.beside(&mut row, incident, &label, theme.base);
            rows.push(self.row("incident", row));
        }
        // The sentence below says the point too.
        if room != Room::Least || !self.view.suspects.is_empty() {
            rows.push(self.cursor_row());
        }
        rows
    }

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
    fn beside(&self, row: &mut Cells, at: DateTime<Utc>, text: &str, style: Style) -> bool {
        let long = text.chars().count();
        let column = usize::try_from(self.column(at).max(0)).unwrap_or(0).min(self.columns - 1);
        let free = |row: &Cells, from: usize| {
            from + long <= self.columns && row[from..from + long].iter().all(|(symbol, _)| *symbol == ' ')
        };
        let right = column + 2;
        let start = match column.checked_sub(long + 1) {
            _ if free(row, right.min(self.columns)) && right + long <= self.columns => right,
            Some(left) if free(row, left) => left,
            _ => return false,
        };
        write(&mut row[start..], text, style);
        true
    }

    /// As [`Self::beside`]; without room there, the text interrupts the line that ends at the moment, but hides neither
    /// another mark nor the cursor.
    fn beside_or_on(&self, row: &mut Cells, at: DateTime<Utc>, text: &str, style: Style) {
        if self.beside(row, at, text, style) {
            return;
        }
        let column = usize::try_from(self.column(at).max(0)).unwrap_or(0).min(self.columns - 1);
        let long = text.chars().count() + 2;
        let cursor = self.inside(self.view.at);
        let places = [
            column.checked_sub(long + 1),
            cursor.map(|cursor| cursor + 2),
            cursor.and_then(|at| at.checked_sub(long + 1)),
        ];
        let start = places.into_iter().flatten().find(|&start| {
            start + long <= self.columns
                && !cursor.is_some_and(|cursor| (start..start + long).contains(&cursor))
                && row[start..start + long].iter().all(|(symbol, _)| matches!(symbol, ' ' | '━' | '?'))
        });
        if let Some(start) = start {
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
        let mut spans = vec![span(fit(name, NAME - 1), theme.muted)];
        spans.push(Span::raw(" ".repeat(NAME.saturating_sub(width(&spans[0].content)))));
        for (symbol, style) in cells {
            let symbol = if symbol == UNBROKEN { ' ' } else { symbol };
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
        let name = fit(system, NAME + self.columns);
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
        let (step, form) = self.axis_step();
        let offset = i64::from(zone.local_minus_utc()) * 1000;
        let (from, to) = (self.view.from, self.view.from + self.view.span());
        let mut at = (from.timestamp_millis() + offset).div_euclid(step) * step - offset;
        while at <= to.timestamp_millis() {
            if let Some(time) = DateTime::from_timestamp_millis(at)
                && let Some(column) = self.inside(time)
            {
                let local = time.with_timezone(&zone);
                let midnight = local.num_seconds_from_midnight() == 0 && local.timestamp_subsec_millis() == 0;
                let text = local.format(if midnight { "%-d %b" } else { form }).to_string();
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

    /// Milliseconds between two labels that have room beside each other, and how they are written.
    fn axis_step(&self) -> (i64, &'static str) {
        const DAY: i64 = 86_400_000;
        const STEPS: [i64; 27] = [
            1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 15_000, 30_000, 60_000, 120_000, 300_000,
            600_000, 900_000, 1_800_000, 3_600_000, 7_200_000, 10_800_000, 21_600_000, 43_200_000, DAY,
        ];
        let span = self.view.span().num_milliseconds();
        let columns = i64::try_from(self.columns).unwrap_or(80).max(1);
        let form = |step: i64| match step {
            DAY.. => ("%-d %b", 12),
            60_000.. => ("%H:%M", 12),
            1_000.. => ("%H:%M:%S", 12),
            _ => ("%H:%M:%S%.3f", 13),
        };
        let fits = |step: &i64| *step * columns >= span * form(*step).1;
        let step = STEPS.into_iter().find(fits).unwrap_or((span * 12 / columns / DAY + 1) * DAY);
        (step, form(step).0)
    }

    fn system(&self, system: &SystemWindow, room: Room) -> Vec<Line<'static>> {
        let theme = self.app.theme();
        let zone = self.app.options.zone;
        let mut rows = Vec::new();
        match system {
            SystemWindow::Postgres { system, backups, coverage, gaps, restore_points, history, .. } => {
                let mut row = self.blank();
                for backup in backups {
                    self.mark(&mut row, backup.stopped, '■', theme.good);
                }
                let label = self.point().and_then(|point| point.backups.get(system));
                let used = backups.iter().find(|backup| Some(&backup.label) == label);
                let newest =
                    || backups.iter().filter(|backup| backup.stopped <= self.view.at).max_by_key(|b| b.stopped);
                if let Some(backup) = used.or_else(newest) {
                    let size = format::bytes(backup.stored_bytes);
                    let word = if used.is_some() { "used, " } else { "" };
                    let kind = if backup.parent.is_some() { "incremental, " } else { "" };
                    let text = format!("{} {word}{kind}{size}", format::minute(backup.stopped, zone));
                    self.beside(&mut row, backup.stopped, &text, theme.base);
                }
                rows.extend(self.heading(system));
                rows.push(self.row("base", row));
                let mut row = self.blank();
                let runs: Vec<_> =
                    coverage.iter().filter_map(|run| Some((run.from_time?, run.to_time?, run))).collect();
                for (from, to, _) in &runs {
                    self.fill(&mut row, *from, *to, '━', theme.good);
                    self.mark(&mut row, *to, '╸', theme.good);
                }
                if let Some(history) = history
                    && let (Some(_), Some(read), Some((_, to, _))) = (&history.stopped, history.to_time, runs.last())
                {
                    self.fill(&mut row, read, *to, '?', theme.warn);
                }
                for pair in runs.windows(2) {
                    self.fill(&mut row, pair[0].1, pair[1].0, '×', theme.bad);
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
                if history.is_some() {
                    rows.push(self.commits(system));
                }
                let seen = restore_points.iter().any(|point| self.inside(point.at).is_some());
                let wanted = match room {
                    Room::Ample => !restore_points.is_empty(),
                    Room::Tight => seen,
                    Room::Least => false,
                };
                if wanted {
                    let mut row = self.blank();
                    for point in restore_points {
                        self.mark(&mut row, point.at, '○', theme.accent);
                        self.beside(&mut row, point.at, &fit(&point.name, 24), theme.base);
                    }
                    rows.push(self.row("points", row));
                }
            }
            SystemWindow::Redis { system, snapshots, aof, .. } => {
                let mut row = self.blank();
                for range in aof {
                    self.fill(&mut row, range.from, range.end(), '━', theme.good);
                    self.mark(&mut row, range.end(), '╸', theme.good);
                }
                for snapshot in snapshots {
                    self.mark(&mut row, snapshot.at, '○', theme.good);
                }
                if let Some((at, texts)) = self.redis(system, snapshots, aof) {
                    let room = |text: &&String| text.chars().count() + 2 <= self.columns / 2;
                    let text = texts.iter().find(room).unwrap_or(&texts[1]);
                    self.beside_or_on(&mut row, at, text, theme.base);
                }
                rows.extend(self.heading(system));
                rows.push(self.row("redis", row));
            }
            SystemWindow::Managed { system, earliest, latest, .. } => {
                let mut row = self.blank();
                let end = latest.unwrap_or(self.view.window.looked);
                let (glyph, style) = if latest.is_some() { ('━', theme.good) } else { ('?', theme.warn) };
                self.fill(&mut row, earliest.unwrap_or(end), end, glyph, style);
                let text = match latest {
                    Some(latest) => format!("to {}, reported", format::clock(*latest, zone)),
                    None => "how far is not reported".to_owned(),
                };
                self.mark(&mut row, end, '╸', style);
                self.beside_or_on(&mut row, end, &text, theme.base);
                rows.extend(self.heading(system));
                rows.push(self.row("cloud", row));
            }
        }
        rows
    }

    /// What the point takes of Redis, else what there is: the place, and a long and a short text.
    fn redis(
        &self,
        system: &str,
        snapshots: &[RedisSnapshot],
        aof: &[AofRange],
    ) -> Option<(DateTime<Utc>, [String; 2])> {
        let zone = self.app.options.zone;
        let preview = self.view.preview.as_ref().ok();
        let range = aof.iter().max_by_key(|range| range.end());
        if let (Some(cut), Some(range)) = (preview.and_then(|preview| preview.point.aof.get(system)), range) {
            let used = format!("AOF used to {}", format::clock(cut.at, zone));
            return Some((range.end(), [format!("{used}, ends {}", format::clock(range.end(), zone)), used]));
        }
        let label = preview.and_then(|preview| preview.point.snapshots.get(system));
        if let Some(snapshot) = snapshots.iter().find(|snapshot| Some(&snapshot.label) == label) {
            let used = format!("{} used", format::clock(snapshot.at, zone));
            return Some((snapshot.at, [format!("{used}, {} keys", format::count(snapshot.keys)), used]));
        }
        if let Some(range) = range {
            let end = format!("{} AOF", format::clock(range.end(), zone));
            return Some((range.end(), [format!("{end}, to the second"), end]));
        }
        let newest =
            snapshots.iter().filter(|snapshot| snapshot.at <= self.view.at).max_by_key(|snapshot| snapshot.at)?;
        let short = format!("{} RDB", format::clock(newest.at, zone));
        Some((newest.at, [format!("{short}, {} keys", format::count(newest.keys)), short]))
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

    fn point(&self) -> Option<&RecoveryPoint> {
        self.view.preview.as_ref().ok().map(|preview| &preview.point)
    }

    /// Commits a second, scaled to the most that is seen.
    fn commits(&self, system: &str) -> Line<'static> {
        let theme = self.app.theme();
        let values = self.view.commits(system, self.columns);
        let most = values.iter().flatten().copied().fold(0.0, f64::max);
        let mut row = self.blank();
        for (cell, value) in row.iter_mut().zip(&values) {
            *cell = match value {
                Some(value) if *value > 0.0 => {
                    let height = (value / most * HEIGHTS.len() as f64).ceil() as usize;
                    (HEIGHTS[height.clamp(1, HEIGHTS.len()) - 1], theme.base)
                }
                Some(_) => ('·', theme.muted),
                None => continue,
            };
        }
        if most > 0.0 {
            self.scale(&mut row, &format!("{} at most", format::frequency(most)));
        }
        self.row("commits", row)
    }

    /// What the highest column stands for: where nothing is drawn, else at the end that the cursor is not at.
    fn scale(&self, row: &mut Cells, label: &str) {
        let theme = self.app.theme();
        let long = label.chars().count() + 2;
        let Some(last) = self.columns.checked_sub(long) else { return };
        let empty = |from: usize| row[from..from + long].iter().all(|(symbol, _)| *symbol == ' ');
        let drawn = row.iter().rposition(|(symbol, _)| *symbol != ' ').unwrap_or(0);
        let cursor = self.inside(self.view.at).unwrap_or(0);
        let start = match drawn + 1 {
            behind if behind <= last && !(behind..behind + long).contains(&cursor) => behind,
            _ if empty(0) && cursor >= long => 0,
            _ if cursor < self.columns / 2 => last,
            _ => 0,
        };
        write(&mut row[start..], &format!(" {label} "), theme.muted);
    }

    /// The suspects, and where the cursor stands, in words.
    fn cursor_row(&self) -> Line<'static> {
        let theme = self.app.theme();
        let mut row = self.blank();
        let style = theme.accent.add_modifier(Modifier::BOLD);
        for (index, found) in self.view.suspects.iter().enumerate() {
            if let Some(column) = self.inside(found.suspect.at) {
                let colour = if found.is_grave() { theme.bad } else { theme.warn };
                // Several in one column: the gravest is seen.
                if row[column].0 == ' ' || found.is_grave() {
                    row[column] = ('▲', if Some(index) == self.view.selected { style } else { colour });
                }
            }
        }
        match self.inside(self.view.at) {
            Some(column) if row[column].0 == '▲' => {}
            _ => self.mark(&mut row, self.view.at, '┃', style),
        }
        let label = match (&self.view.target, price::suspect_target(self.view)) {
            (RecoveryTarget::Xid { xid }, Some(_)) => {
                format!("your point: just {} xid {xid}", if self.view.inclusive { "after" } else { "before" })
            }
            (RecoveryTarget::Time { .. }, _) => {
                format!("your point {}", format::clock(self.view.at, self.app.options.zone))
            }
            (other, _) => format!("your point {other}"),
        };
        self.beside(&mut row, self.view.at, &label, style);
        let name = if self.view.suspects.is_empty() { "" } else { "suspects" };
        self.row(name, row)
    }
}

/// Why the history ends before the WAL does.
pub(super) fn stopped(system: &str, history: &History, app: &App) -> Option<String> {
    let why = history.stopped.as_ref()?;
    let until = history.to_time.map(|at| format!(" to {}", format::millis(at, app.options.zone))).unwrap_or_default();
    Some(format!("{system}: the WAL was read{until} only; no commits and suspects are known behind it: {why}"))
}
