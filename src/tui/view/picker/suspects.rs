//! The list of suspects: what may be the damage, when it committed, and the key that leads to just before it.

use ratatui::text::{Line, Span};

use crate::event::SystemWindow;

use super::super::super::app::App;
use super::super::super::picker::Picker;
use super::super::super::price;
use super::super::super::text::{span, spread, wrap};
use super::super::cap;
use super::plot::stopped;

/// More are not shown at once, however much room there is.
const MOST: usize = 10;

/// As many as fit in `room`, those around the one that is pointed at; at least that one.
pub(super) fn rows(app: &App, view: &Picker, columns: usize, room: usize) -> Vec<Line<'static>> {
    let theme = app.theme();
    let mut notes = Vec::new();
    let mut read = false;
    for found in &view.window.systems {
        if let SystemWindow::Postgres { system, history: Some(history), .. } = found {
            read = true;
            if let Some(text) = stopped(system, history, app) {
                let spans = vec![Span::styled("▲ ", theme.warn), span(text, theme.warn)];
                notes.extend(wrap(Line::from(spans), columns, 2));
            }
        }
    }
    if !read {
        return notes;
    }
    let all = view.suspects.len();
    if all == 0 {
        let none = "no drop, truncate, mass delete or mass update is in the WAL that was read";
        notes.insert(0, Line::from(span(none, theme.muted)));
        return notes;
    }
    let room = room.saturating_sub(notes.len()).clamp(1, MOST).min(all);
    // One before it stays in sight: the reported moment may be too late.
    let first = view.selected.unwrap_or(0).saturating_sub(usize::from(room > 2)).min(all - room);
    let hidden = (room < all).then(|| format!("{} of {all}   ", view.selected.map_or(0, |at| at + 1)));
    let mut rows: Vec<_> = (first..first + room)
        .map(|index| {
            // A list that looks whole would hide the rest.
            let counter = hidden.clone().filter(|_| view.selected.unwrap_or(first) == index);
            row(app, view, index, columns, counter)
        })
        .collect();
    rows.extend(notes);
    rows
}

fn row(app: &App, view: &Picker, index: usize, columns: usize, counter: Option<String>) -> Line<'static> {
    let theme = app.theme();
    let found = &view.suspects[index];
    let selected = view.selected == Some(index);
    let sign = if found.is_grave() { theme.bad } else { theme.warn };
    let words = if selected { theme.strong } else { theme.base };
    let left = vec![
        Span::styled(if selected { "▶ " } else { "▲ " }, if selected { theme.accent } else { sign }),
        span(price::stamp(found.suspect.at, app.wall, app.options.zone), words),
        span(format!("  xid {}  ", found.suspect.xid), if selected { theme.base } else { theme.muted }),
        span(price::deeds(view, found), words),
    ];
    let mut right: Vec<_> = counter.map(|counter| span(counter, theme.muted)).into_iter().collect();
    right.extend(match (selected, view.is_at(index)) {
        (true, true) if view.inclusive => vec![Span::styled("just after it", theme.accent)],
        (true, true) => vec![Span::styled("just before it ✓", theme.accent)],
        (true, false) => vec![cap(theme, "b"), Span::styled(" just before it", theme.base)],
        (false, _) => Vec::new(),
    });
    spread(left, right, columns)
}
