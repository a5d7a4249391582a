//! The clocks: RTO with its budget and forecast, machine and human time, RPO a system, notes.

use std::time::Duration;

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::text::{Line, Span};

use crate::drill::Rpo;

use super::super::app::App;
use super::super::format;
use super::super::text::{line_width, span, spread, width, wrap};
use super::{bar, digits, put};

/// What the RTO says, and how it looks.
pub(super) struct RtoLook {
    pub text: String,
    pub style: Style,
    /// What stands beside the number: `recovered`, `not declared`.
    pub word: Option<&'static str>,
}

pub(super) fn rto(app: &App) -> RtoLook {
    let theme = app.theme();
    let Some(rto) = app.state.rto(app.now) else {
        return RtoLook { text: format::hms(Duration::ZERO), style: theme.muted, word: Some("not declared yet") };
    };
    let target = app.state.rto_target();
    let late = target.is_some_and(|target| rto > target);
    let forecast_late = target.zip(app.state.forecast(app.now)).is_some_and(|(target, f)| f.rto > target);
    let stopped = app.state.recovered().is_some();
    let word = match () {
        () if stopped => Some("recovered"),
        () if app.state.finished.is_some() => Some("ended"),
        () if app.state.paused.is_some() => Some("paused; the clock runs"),
        () => None,
    };
    let style = match () {
        () if late => theme.bad,
        () if forecast_late => theme.warn,
        () if stopped => theme.good,
        () => theme.strong,
    };
    RtoLook { text: format::hms(rto), style, word }
}

/// Used, ticked with the forecast.
fn budget(app: &App, columns: usize) -> Option<Vec<Span<'static>>> {
    let theme = app.theme();
    let budget = app.state.rto_budget(app.now)?;
    let tick = app.state.forecast(app.now).map(|f| f.rto.as_secs_f64() / budget.target.as_secs_f64().max(1.0));
    let style = match tick.unwrap_or_else(|| budget.fraction()).max(budget.fraction()) {
        part if budget.fraction() > 1.0 || part > 1.5 => theme.bad,
        part if part > 1.0 => theme.warn,
        _ => theme.good,
    };
    Some(bar(budget.fraction(), columns, tick, style, theme.rule))
}

/// `forecast 00:21:00`, and what follows from it.
fn forecast(app: &App) -> Option<(String, Option<(String, Style)>)> {
    let theme = app.theme();
    let forecast = app.state.forecast(app.now)?;
    let mut text = format!("forecast {}", format::hms(forecast.rto));
    if forecast.unknown_steps > 0 {
        // Steps that were never timed count as nothing.
        let word = if forecast.unknown_steps == 1 { "step" } else { "steps" };
        text.push_str(&format!(" + {} {word}", forecast.unknown_steps));
    }
    let verdict = app.state.rto_target().map(|target| match app.state.decide_by(app.now) {
        _ if forecast.rto > target => {
            (format!("▲ {} over the target", format::short(forecast.rto - target)), theme.warn)
        }
        Some(by) => {
            let at = app.state.declared.map(|declared| declared.wall + by);
            let time = at.map(|at| format::minute(at, app.options.zone)).unwrap_or_default();
            (format!("decide by {time}"), theme.muted)
        }
        None => ("▲ the target cannot be met".to_owned(), theme.bad),
    });
    Some((text, verdict))
}

/// The right column.
pub(super) fn column(app: &App, area: Rect, buffer: &mut Buffer) {
    let theme = app.theme();
    let columns = usize::from(area.width);
    let look = rto(app);
    let mut y = area.y;
    let mut heading = vec![Span::styled("RTO", theme.strong)];
    if let Some(word) = look.word {
        heading.push(Span::styled(format!("  {word}"), theme.muted));
    }
    put([Line::from(heading)], Rect { y, height: 1, ..area }, buffer);
    y += 1;
    if let Some(rows) = digits::rows(&look.text, look.style, columns, usize::from(area.height), app.options.ascii) {
        let height = u16::try_from(rows.len()).unwrap_or(0) + 1;
        put(rows, Rect { y: y + 1, height, ..area }, buffer);
        y += height + 1;
    } else {
        put([Line::from(Span::styled(look.text, look.style))], Rect { y, height: 1, ..area }, buffer);
        y += 1;
    }
    let mut rest = Rect { y, height: area.bottom().saturating_sub(y), ..area };
    if let Some(rows) = player(app, columns)
        && rest.height > 12
    {
        rest.height -= 3;
        put(rows, Rect { y: rest.bottom() + 1, height: 2, ..area }, buffer);
    }
    put(below(app, columns, usize::from(rest.height)), rest, buffer);
}

fn below(app: &App, columns: usize, height: usize) -> Vec<Line<'static>> {
    let theme = app.theme();
    let mut rows = Vec::new();
    if let (Some(bar), Some(target)) = (budget(app, columns), app.state.rto_target()) {
        rows.push(Line::from(bar));
        let left = app.state.rto_budget(app.now).and_then(|budget| budget.left());
        let left = match left {
            Some(left) => Span::styled(format!("{} left", format::short(left)), theme.muted),
            None => Span::styled("✗ target missed", theme.bad),
        };
        rows.push(spread(vec![left], vec![span(format!("of {}", format::words(target)), theme.muted)], columns));
    } else {
        rows.push(Line::from(Span::styled("no target", theme.muted)));
    }
    rows.push(Line::default());
    if let Some((text, verdict)) = forecast(app) {
        rows.push(Line::from(span(text, theme.base)));
        if let Some((text, style)) = verdict {
            rows.push(Line::from(span(text, style)));
        }
    }
    let split = app.state.split(app.now);
    let shares = vec![
        Span::styled("machine ", theme.muted),
        Span::styled(format::short(split.machine), theme.base),
        Span::styled(" · you ", theme.muted),
        Span::styled(format::short(split.human), theme.base),
    ];
    rows.push(Line::from(shares));
    if app.state.clock_uncertain {
        rows.push(Line::from(Span::styled("▲ rebooted: times are by wall clock", theme.warn)));
    }
    let rpos = app.state.rpos();
    if !rpos.is_empty() {
        rows.push(Line::default());
        rows.push(spread(
            vec![Span::styled("RPO", theme.strong)],
            vec![Span::styled("lost · target  ", theme.muted)],
            columns,
        ));
        rows.extend(rpos.iter().flat_map(|rpo| rpo_rows(app, rpo, columns)));
        if let Some(skew) = app.state.skew() {
            rows.push(spread(
                vec![Span::styled("skew", theme.muted)],
                vec![Span::styled(format!("{}  ", format::seconds(skew)), theme.muted)],
                columns,
            ));
        }
    }
    rows.extend(notes(app, columns, height.saturating_sub(rows.len())));
    rows
}

/// Where a replay is: a bar and its figures.
fn player(app: &App, columns: usize) -> Option<Vec<Line<'static>>> {
    let theme = app.theme();
    let status = app.player?;
    let part = status.position.as_secs_f64() / status.length.as_secs_f64().max(0.001);
    let (left, right) = player_words(app)?;
    Some(vec![
        Line::from(bar(part, columns, None, theme.accent, theme.rule)),
        spread(vec![span(left, theme.base)], vec![span(right, theme.muted)], columns),
    ])
}

/// `▶ replay 03:20 of 06:40`, `×2`
fn player_words(app: &App) -> Option<(String, String)> {
    let status = app.player?;
    let mark = if status.playing { "▶" } else { "■" };
    let (at, of) = (format::short(status.position), format::short(status.length));
    Some((format!("{mark} replay {at} of {of}"), format!("×{}", status.speed)))
}

/// ✓, ✗ or nothing yet.
fn met(app: &App, rpo: &Rpo) -> Span<'static> {
    match rpo.met() {
        Some(true) => Span::styled("✓", app.theme().good),
        Some(false) => Span::styled("✗", app.theme().bad),
        None => Span::styled("·", app.theme().muted),
    }
}

fn rpo_rows(app: &App, rpo: &Rpo, columns: usize) -> Vec<Line<'static>> {
    let theme = app.theme();
    let found = rpo.seconds.map_or_else(|| "–".to_owned(), format::seconds);
    let target = rpo.target.map_or_else(|| "no target".to_owned(), format::words);
    let right = vec![
        Span::styled(found, if rpo.seconds.is_some() { theme.base } else { theme.muted }),
        Span::styled(format!(" · {target} "), theme.muted),
        met(app, rpo),
    ];
    let mut rows = vec![spread(vec![span(&rpo.system, theme.base)], right, columns)];
    let beside = format::beside_the_loss(rpo);
    rows.extend(beside.into_iter().map(|text| Line::from(span(format!("  {text}"), theme.muted))));
    if let Some((lost, of)) = rpo.lost_writes {
        let text = format!("  {} of {} acknowledged writes lost", format::count(lost), format::count(of));
        rows.push(Line::from(span(text, if lost == 0 { theme.muted } else { theme.warn })));
    }
    rows
}

/// The newest notes and findings that fit, oldest first.
fn notes(app: &App, columns: usize, room: usize) -> Vec<Line<'static>> {
    let theme = app.theme();
    let mut all: Vec<_> = app.state.notes.iter().map(|note| (note.at, note.text.clone(), false)).collect();
    all.extend(app.state.findings.iter().map(|finding| (finding.at, finding.text.clone(), true)));
    all.sort_by_key(|(at, _, _)| at.elapsed);
    if all.is_empty() || room < 3 {
        return Vec::new();
    }
    let mut shown: Vec<Line<'static>> = Vec::new();
    for (at, text, finding) in all.iter().rev() {
        let mut spans = vec![Span::styled(format!("{} ", format::minute(at.wall, app.options.zone)), theme.muted)];
        if *finding {
            spans.push(Span::styled("▲ ", theme.warn));
        }
        spans.push(span(text, theme.base));
        let rows = wrap(Line::from(spans), columns, 6);
        if shown.len() + rows.len() + 2 > room {
            break;
        }
        shown.splice(0..0, rows);
    }
    if shown.is_empty() {
        return shown;
    }
    shown.splice(0..0, [Line::default(), Line::from(Span::styled("NOTES", theme.strong))]);
    shown
}

/// The compact layout's row: the RTO, its budget, the forecast.
pub(super) fn row(app: &App, area: Rect, buffer: &mut Buffer) {
    let theme = app.theme();
    let columns = usize::from(area.width);
    let look = rto(app);
    let mut left = vec![Span::styled("RTO ", theme.muted), Span::styled(look.text, look.style), Span::raw("  ")];
    if let (Some(bar), Some(target)) = (budget(app, 16), app.state.rto_target()) {
        left.extend(bar);
        left.push(span(format!(" of {}", format::words(target)), theme.muted));
    }
    let right = match (look.word, forecast(app)) {
        (Some(word), _) => vec![Span::styled(word, theme.muted)],
        (None, Some((text, verdict))) => {
            let (verdict, style) = verdict.unwrap_or_default();
            let style = if verdict.starts_with('▲') { style } else { theme.muted };
            let text = if verdict.starts_with('▲') { verdict } else { text };
            vec![span(text, style)]
        }
        (None, None) => Vec::new(),
    };
    put([spread(left, right, columns)], area, buffer);
}

/// The compact layout's second row: RPO a system, and machine and human time where they still fit.
pub(super) fn second_row(app: &App, area: Rect, buffer: &mut Buffer) {
    let theme = app.theme();
    let columns = usize::from(area.width);
    let mut left = vec![Span::styled("RPO ", theme.muted)];
    for (index, rpo) in app.state.rpos().iter().enumerate() {
        let found = rpo.seconds.map_or_else(|| "–".to_owned(), format::seconds);
        let target = rpo.target.map(|target| format!(" of {}", format::words(target))).unwrap_or_default();
        left.push(span(format!("{}{} ", if index > 0 { "   " } else { "" }, rpo.system), theme.muted));
        left.push(span(found, theme.base));
        left.push(span(target, theme.muted));
        if rpo.met().is_some() {
            left.push(Span::raw(" "));
            left.push(met(app, rpo));
        }
    }
    let split = app.state.split(app.now);
    if let Some((place, speed)) = player_words(app) {
        let right = vec![span(format!("{place} {speed}"), theme.accent)];
        put([spread(left, right, columns)], area, buffer);
        return;
    }
    let shares = [
        format!("machine {} · you {}", format::short(split.machine), format::short(split.human)),
        format!("you {}", format::short(split.human)),
    ];
    let room = columns.saturating_sub(line_width(&left) + 2);
    let share = shares.into_iter().find(|share| width(share) <= room).unwrap_or_default();
    put([spread(left, vec![span(share, theme.muted)], columns)], area, buffer);
}
