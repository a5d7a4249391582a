//! The top line and the key bar.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Modifier, Style};
use ratatui::text::Span;

use crate::event::Mode;

use super::super::app::{App, Overlay};
use super::super::format;
use super::super::keymap::{self, Action, Context};
use super::super::text::{line_width, span, spread, width};
use super::{cap, put};

/// Title, environment and mode, time of day.
pub(super) fn line(app: &App, area: Rect, buffer: &mut Buffer) {
    let theme = app.theme();
    let columns = usize::from(area.width);
    let badge = badge(app);
    let badge_width = width(&badge.content);
    let utc = app.wall.format("(%H:%M UTC)");
    let zone = app.options.zone;
    let mut time = vec![Span::styled(format::clock(app.wall, zone), theme.strong)];
    if zone.local_minus_utc() == 0 {
        time.push(Span::styled(" UTC", theme.muted));
    } else {
        time.push(Span::styled(format!(" {} {utc}", format::offset(zone)), theme.muted));
    }
    let mut right = vec![badge, Span::raw("   ")];
    if columns > 100 {
        // Wide enough for the badge to stand in the middle, where it is found without looking.
        let time_width = line_width(&time);
        let gap = (columns / 2).saturating_sub(badge_width / 2 + time_width).max(3);
        right[1] = Span::raw(" ".repeat(gap));
    }
    right.extend(time);
    let mut left = Vec::new();
    if columns > 100 {
        left.push(span("lifeboat  ", theme.muted));
    }
    left.push(span(&app.state.runbook.title, theme.strong));
    put([spread(left, right, columns)], area, buffer);
}

/// Environment and mode in words, with a sign and a colour.
pub(super) fn badge(app: &App) -> Span<'static> {
    let opening = &app.state.opening;
    let theme = app.theme();
    let serious = opening.mode == Mode::Incident || opening.environment.to_lowercase().starts_with("prod");
    let (sign, style) = if serious { ("▲", theme.production) } else { ("■", theme.rehearsal) };
    let mut words = match opening.mode {
        Mode::Sandbox => opening.mode.word().to_owned(),
        mode => format!("{} · {}", opening.environment.to_uppercase(), mode.word()),
    };
    if app.player.is_some() {
        words = format!("REPLAY · {words}");
    } else if app.options.read_only {
        words = format!("WATCHING · {words}");
    }
    span(format!(" {sign} {words} "), style)
}

/// The keys of the moment, the most needed first; a notice takes their place until the next key.
pub(super) fn keys(app: &App, area: Rect, buffer: &mut Buffer) {
    let theme = app.theme();
    let columns = usize::from(area.width);
    if let Some(notice) = &app.notice {
        let left = vec![Span::styled("▲ ", theme.warn), span(notice, theme.warn)];
        put([spread(left, Vec::new(), columns)], area, buffer);
        return;
    }
    let mut shown = bar(app);
    let right = shown.iter().position(|key| key.action == Action::Leave && key.general).map(|at| shown.remove(at));
    let right = right.map(|mut key| {
        // The whole truth stands in the question that comes; where it would push the other keys out, a word must do.
        if width(&key.label) > columns * 2 / 5 {
            key.label = "leave".to_owned();
        }
        key.spans(app)
    });
    let right = right.unwrap_or_default();
    let mut room = columns.saturating_sub(line_width(&right) + 2);
    let mut left: Vec<(usize, Vec<Span<'static>>)> = Vec::new();
    // By need, as long as they fit; drawn in the order of the keymap.
    let mut order: Vec<usize> = (0..shown.len()).collect();
    order.sort_by_key(|&index| shown[index].rank);
    for index in order {
        let spans = shown[index].spans(app);
        let wide = line_width(&spans) + 3;
        if wide <= room {
            room -= wide;
            left.push((index, spans));
        }
    }
    left.sort_by_key(|(index, _)| *index);
    let mut spans = Vec::new();
    for (_, key) in left {
        spans.extend(key);
        spans.push(Span::raw("   "));
    }
    put([spread(spans, right, columns)], area, buffer);
}

struct Shown {
    keys: String,
    label: String,
    action: Action,
    rank: u8,
    /// Of the drill as a whole, not of the step at hand.
    general: bool,
}

impl Shown {
    fn spans(&self, app: &App) -> Vec<Span<'static>> {
        let theme = app.theme();
        vec![cap(theme, &self.keys), Span::styled(format!(" {}", self.label), theme.muted)]
    }
}

fn bar(app: &App) -> Vec<Shown> {
    let contexts = app.contexts();
    let covered = matches!(app.overlays.last(), Some(Overlay::Output));
    let mut shown: Vec<Shown> = Vec::new();
    for (binding, keys) in keymap::reachable(&contexts) {
        let repeated = shown.iter().any(|other| other.action == binding.action);
        if binding.bar == 0 || repeated || !app.can(binding.action) || (covered && binding.context == Context::View) {
            continue;
        }
        let keys = keys[0].name();
        let label = app.label(binding);
        let general = matches!(binding.context, Context::View | Context::Drive);
        // Two directions of one thing share a label: `← → earlier, later`.
        let rank = binding.bar;
        match shown.last_mut() {
            Some(before) if pairs(before.action, binding.action) => {
                before.keys = format!("{} {keys}", before.keys);
                before.label = format!("{} / {label}", before.label);
            }
            _ => shown.push(Shown { keys, label, action: binding.action, rank, general }),
        }
    }
    shown
}

fn pairs(a: Action, b: Action) -> bool {
    use Action as A;
    matches!(
        (a, b),
        (A::LineUp, A::LineDown)
            | (A::NextMatch, A::PreviousMatch)
            | (A::Earlier(_), A::Later(_))
            | (A::ZoomIn, A::ZoomOut)
            | (A::PreviousMark, A::NextMark)
            | (A::PreviousSuspect, A::NextSuspect)
            | (A::SeekBack, A::SeekForward)
            | (A::StepBack, A::StepForward)
            | (A::Slower, A::Faster)
    )
}

/// A key cap that stands out in the middle.
pub(super) fn big_cap(app: &App, name: &str) -> Span<'static> {
    let style: Style = app.theme().key().add_modifier(Modifier::REVERSED);
    Span::styled(format!(" {name} "), style)
}
