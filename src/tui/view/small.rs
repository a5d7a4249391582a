//! Hardly any room: the clock, the step, the key.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};

use crate::event::Ask;

use super::super::app::{App, Overlay};
use super::super::format;
use super::super::text::{fit_line, span, spread, wrap};
use super::{clocks, overlay, put, sign, top};

pub(super) fn draw(app: &App, area: Rect, buffer: &mut Buffer) {
    if matches!(app.overlays.last(), Some(Overlay::Typing(_) | Overlay::Question(_))) {
        overlay::draw(app, area, area, buffer);
        return;
    }
    let theme = app.theme();
    let columns = usize::from(area.width);
    let look = clocks::rto(app);
    let target = app.state.rto_target().map(|target| format!(" of {}", format::words(target))).unwrap_or_default();
    let mut rows = vec![spread(
        vec![Span::styled(look.text, look.style), span(target, theme.muted)],
        if columns > 40 { vec![top::badge(app)] } else { Vec::new() },
        columns,
    )];
    let (sentence, key) = next(app);
    let shown = app.shown();
    if let (Some(step), Some(state)) = (app.state.runbook.steps.get(shown), app.state.steps.get(shown)) {
        let (mark, style) = sign(theme, &state.status, state.ask.is_some());
        let title = span(app.state.expand(&step.title), theme.strong);
        rows.push(fit_line(Line::from(vec![Span::styled(format!("{mark} "), style), title]), columns));
    }
    let height = usize::from(area.height);
    let room = height.saturating_sub(rows.len() + 1);
    rows.extend(wrap(Line::from(span(sentence, theme.base)), columns, 0).into_iter().take(room));
    rows.truncate(height - 1);
    while rows.len() + 1 < height {
        rows.push(Line::default());
    }
    let keys = match (&app.notice, key) {
        (Some(notice), _) => vec![span(notice, theme.warn)],
        (None, Some((name, label))) => {
            vec![
                super::cap(theme, name),
                Span::styled(format!(" {label}   "), theme.base),
                super::cap(theme, "?"),
                Span::raw(" help"),
            ]
        }
        (None, None) => {
            vec![super::cap(theme, "?"), Span::raw(" help   "), super::cap(theme, "q"), Span::raw(" leave")]
        }
    };
    rows.push(fit_line(Line::from(keys), columns));
    put(rows, area, buffer);
    if !app.overlays.is_empty() {
        overlay::draw(app, area, area, buffer);
    }
}

/// What happens next in a sentence, and the key.
fn next(app: &App) -> (String, Option<(&'static str, &'static str)>) {
    if let Some((_, verdict)) = app.state.finished {
        return (verdict.word().to_owned(), Some(("Enter", "leave")));
    }
    if app.live() && app.state.declared.is_none() {
        return ("Nothing has begun.".to_owned(), Some(("Enter", "declare")));
    }
    match app.ask() {
        Some(Ask::Go { sentence }) => (sentence.clone(), Some(("Enter", "do it"))),
        Some(Ask::Confirm { sentence }) => (sentence.clone(), Some(("Enter", "yes"))),
        Some(Ask::TypeName { loss, .. }) => (format!("DESTROYS {loss}"), Some(("Enter", "type the name"))),
        Some(Ask::Input { prompt, .. }) => (prompt.clone(), Some(("Enter", "answer"))),
        Some(Ask::Choose { prompt, options, .. }) => {
            let option = options.get(app.choice.1).map(|option| option.label.as_str()).unwrap_or_default();
            (format!("{prompt} {option}"), Some(("Enter", "choose")))
        }
        Some(Ask::RecoveryPoint { .. }) => {
            let target = app.picker.as_ref().map(|picker| picker.target_text(app.options.zone)).unwrap_or_default();
            (target, Some(("Enter", "choose")))
        }
        Some(Ask::AfterFailure { failure }) => (failure.to_string(), Some(("r", "retry"))),
        Some(Ask::InDoubt { why }) => (why.clone(), Some(("r", "repeat"))),
        None => {
            let step = app.state.steps.get(app.shown());
            (step.map(|state| super::step::doing(app, state)).unwrap_or_default(), None)
        }
    }
}
