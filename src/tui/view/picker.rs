//! The recovery point: a time line of what there is, the suspects, and what choosing the point under the cursor would
//! mean.

mod plot;
mod suspects;

use ratatui::text::{Line, Span};

use crate::event::RecoveryTarget;

use super::super::app::App;
use super::super::picker::Picker;
use super::super::session::PointPreview;
use super::super::text::{line_width, span, wrap};
use super::super::{format, price};
use super::card::{self, Card};
use plot::{Plot, Room};

/// The whole pane, in `height` rows where that can be: the list of suspects gives way first.
pub(super) fn rows(app: &App, view: &Picker, columns: usize, height: usize) -> Vec<Line<'static>> {
    let theme = app.theme();
    let below = meaning(app, view, columns);
    let plot = Plot::new(app, view, columns);
    let above = |room: Room| {
        let mut rows = plot.rows(room);
        let left = height.saturating_sub(rows.len() + below.len());
        rows.extend(suspects::rows(app, view, columns, left));
        (rows.len() + below.len() <= height && (left >= 4 || room != Room::Ample)).then_some(rows)
    };
    let least = || plot.rows(Room::Least).into_iter().chain(suspects::rows(app, view, columns, 1)).collect();
    let mut above = above(Room::Ample).or_else(|| above(Room::Tight)).unwrap_or_else(least);
    // What Enter does is seen, whatever else is not.
    above.truncate(height.saturating_sub(below.len()).max(1));
    let spare = height.saturating_sub(above.len() + below.len());
    if spare > 0 {
        above.push(Line::default());
    }
    above.extend(below);
    for system in &view.window.systems {
        for warning in system.warnings() {
            let system = system.system();
            let spans = vec![Span::styled("▲ ", theme.warn), span(format!("{system}: {warning}"), theme.muted)];
            above.extend(wrap(Line::from(spans), columns, 2));
        }
    }
    above
}

/// `Recover to just before xid 8841, which drops payments. …`: what Enter chooses.
pub(super) fn sentence(app: &App, view: &Picker) -> String {
    let what = target_words(app, view);
    let Ok(preview) = &view.preview else { return format!("{what} is not possible.") };
    let mut sentence = format!("Recover to {what}.");
    if let Some(lost) = price::gives_up(&preview.cost) {
        sentence.push_str(&format!(" Gives up what came after: {lost}."));
    }
    if let Some(loss) = price::loss(&preview.cost) {
        sentence.push_str(&format!(" Loses {loss}."));
    }
    if let Some(damage) = price::damage(view) {
        sentence.push_str(&format!(" BUT {damage}."));
    }
    sentence
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
        RecoveryTarget::Xid { xid } => price::suspect_target(view).unwrap_or_else(|| format!("{side} xid {xid}")),
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
            let mut rows = cost(app, view, preview, columns);
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

fn cost(app: &App, view: &Picker, preview: &PointPreview, columns: usize) -> Vec<Line<'static>> {
    let theme = app.theme();
    let zone = app.options.zone;
    let mut parts: Vec<Vec<Span<'static>>> = vec![vec![Span::styled("possible ✓", theme.good)]];
    let mut part = |name: &str, value: Option<String>| {
        parts.extend(value.map(|value| vec![span(format!("{name} "), theme.muted), span(value, theme.base)]));
    };
    part("gives up", price::gives_up(&preview.cost));
    part("skew", price::skews(preview));
    part("keeps", price::keeps(&preview.cost));
    part("loses", price::loss(&preview.cost));
    part("fetch", price::fetch(&preview.cost));
    if let Some(ready) = price::ready(&app.state, preview, app.now, app.wall, zone) {
        let (sign, style) = match ready.in_time {
            Some(true) => ("✓ ", theme.good),
            Some(false) => ("▲ ", theme.bad),
            None => ("", theme.base),
        };
        let words = if ready.in_time == Some(false) { theme.bad } else { theme.base };
        parts.push(vec![Span::styled(sign, style), span("ready about ", theme.muted), span(ready.words, words)]);
    }
    let mut rows = flow(parts, columns, 13);
    let point = &preview.point;
    let mut labels: Vec<String> = point.backups.values().chain(point.snapshots.values()).cloned().collect();
    labels.extend(point.aof.values().map(|aof| format!("AOF to {}", format::clock(aof.at, zone))));
    if !labels.is_empty() && columns > 78 {
        rows.extend(wrap(Line::from(span(format!("from {}", labels.join(" and ")), theme.muted)), columns, 2));
    }
    for warning in price::damage(view).iter().chain(&preview.cost.warnings) {
        let spans = vec![Span::styled("▲ ", theme.warn), span(warning, theme.warn)];
        rows.extend(wrap(Line::from(spans), columns, 2));
    }
    rows
}

/// Parts beside each other, as many as fit a row; one that is longer than a row is broken at words.
fn flow(parts: Vec<Vec<Span<'static>>>, columns: usize, hang: usize) -> Vec<Line<'static>> {
    let mut rows: Vec<Vec<Span<'static>>> = Vec::new();
    for part in parts {
        match rows.last_mut() {
            Some(row) if line_width(row) + 3 + line_width(&part) <= columns => {
                row.push(Span::raw("   "));
                row.extend(part);
            }
            Some(_) => {
                let mut row = vec![Span::raw(" ".repeat(hang))];
                row.extend(part);
                rows.push(row);
            }
            None => rows.push(part),
        }
    }
    rows.into_iter().flat_map(|row| wrap(Line::from(row), columns, hang + 2)).collect()
}
