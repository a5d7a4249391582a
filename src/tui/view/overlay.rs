//! What lies on top of the drill: help, contacts, values, notes, output, typing, questions.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::text::{Line, Span};

use crate::process::GRACE;

use super::super::app::{App, Entry, Overlay, Purpose, Question};
use super::super::keymap;
use super::super::text::{span, spread, width, wrap};
use super::super::{format, markdown};
use super::{clear, output, put, step};

/// The widest a page of text is.
const WIDEST: u16 = 96;

/// Draws what is uppermost: output over all of `whole`, anything else within `area`, the middle.
pub(super) fn draw(app: &App, area: Rect, whole: Rect, buffer: &mut Buffer) {
    let Some(overlay) = app.overlays.last() else { return };
    match overlay {
        Overlay::Output => {
            clear(app.theme(), whole, buffer);
            output::full(app, super::shrink(whole, 1, 1), buffer);
        }
        Overlay::Typing(entry) => dialog(app, area, entry, buffer),
        Overlay::Question(question) => self::question(app, area, *question, buffer),
        Overlay::Help { scroll } => page(app, area, "Keys", help(app, inner(area)), *scroll, buffer),
        Overlay::Contacts => page(app, area, "Contacts", contacts(app, inner(area)), 0, buffer),
        Overlay::Facts { scroll } => page(app, area, "Values of this step", facts(app, inner(area)), *scroll, buffer),
        Overlay::Notes { scroll } => page(app, area, "Notes and findings", notes(app, inner(area)), *scroll, buffer),
    }
}

/// Columns of text on a page in an area.
fn inner(whole: Rect) -> usize {
    usize::from(whole.width.min(WIDEST).saturating_sub(4))
}

/// A frame with a title; returns the room inside.
fn frame(area: Rect, title: &str, edge: Style, strong: Style, buffer: &mut Buffer) -> Rect {
    if area.width < 8 || area.height < 3 {
        return area;
    }
    let across = "─".repeat(usize::from(area.width) - 2);
    buffer.set_string(area.x, area.y, format!("┌{across}┐"), edge);
    for y in area.y + 1..area.bottom() - 1 {
        buffer.set_string(area.x, y, "│", edge);
        buffer.set_string(area.right() - 1, y, "│", edge);
    }
    buffer.set_string(area.x, area.bottom() - 1, format!("└{across}┘"), edge);
    let room = usize::from(area.width) - 4;
    buffer.set_stringn(area.x + 2, area.y, format!(" {title} "), room, strong);
    Rect { x: area.x + 2, y: area.y + 1, width: area.width - 4, height: area.height - 2 }
}

fn centred(whole: Rect, width: u16, height: u16) -> Rect {
    let (width, height) = (width.min(whole.width), height.min(whole.height));
    Rect { x: whole.x + (whole.width - width) / 2, y: whole.y + (whole.height - height) / 3, width, height }
}

/// Clears the rows that something on top takes, from edge to edge, so that no slivers of words stand beside it.
fn clear_band(app: &App, whole: Rect, area: Rect, buffer: &mut Buffer) {
    clear(app.theme(), Rect { x: whole.x, width: whole.width, ..area }, buffer);
}

/// A page of text that scrolls.
fn page(app: &App, whole: Rect, title: &str, rows: Vec<Line<'static>>, scroll: usize, buffer: &mut Buffer) {
    let theme = app.theme();
    let height = u16::try_from(rows.len() + 2).unwrap_or(u16::MAX);
    let area = centred(whole, WIDEST, height.max(5));
    clear_band(app, whole, area, buffer);
    let room = frame(area, title, theme.rule, theme.strong, buffer);
    let visible = usize::from(room.height);
    let last = rows.len().saturating_sub(visible);
    let first = scroll.min(last);
    put(rows.into_iter().skip(first), room, buffer);
    if last > 0 && area.width > 24 {
        let text = format!(" {} of {} ↑ ↓ ", first + 1, last + 1);
        let x = area.right() - 2 - u16::try_from(width(&text)).unwrap_or(0).min(area.width - 2);
        buffer.set_stringn(x, area.bottom() - 1, text, usize::from(area.width) - 2, theme.muted);
    }
}

/// How far a page can be scrolled.
pub(in super::super) fn furthest(app: &App, whole: (u16, u16)) -> usize {
    let area = Rect::new(0, 0, whole.0, whole.1);
    let rows = match app.overlays.last() {
        Some(Overlay::Help { .. }) => help(app, inner(area)),
        Some(Overlay::Facts { .. }) => facts(app, inner(area)),
        Some(Overlay::Notes { .. }) => notes(app, inner(area)),
        _ => return 0,
    };
    rows.len().saturating_sub(usize::from(area.height.saturating_sub(8)).max(1))
}

fn help(app: &App, columns: usize) -> Vec<Line<'static>> {
    let theme = app.theme();
    let mut rows = Vec::new();
    let mut title = "";
    for (binding, keys) in keymap::reachable(&app.contexts_below()) {
        if binding.label.is_empty() {
            continue;
        }
        if binding.context.title() != title {
            title = binding.context.title();
            if !rows.is_empty() {
                rows.push(Line::default());
            }
            rows.push(Line::from(Span::styled(title, theme.strong)));
        }
        let names: Vec<String> = keys.iter().map(|key| key.name()).collect();
        let names = names.join(" ");
        let pad = " ".repeat(20usize.saturating_sub(width(&names)).max(1));
        let label = app.label(binding);
        let style = if app.can(binding.action) { theme.base } else { theme.muted };
        let spans = vec![Span::raw("  "), Span::styled(names, theme.key()), Span::raw(pad), span(label, style)];
        rows.extend(wrap(Line::from(spans), columns, 22));
    }
    rows.push(Line::default());
    rows.push(Line::from(Span::styled("Signs", theme.strong)));
    for (mark, style, word) in [
        ("▶", theme.accent, "waits for you"),
        ("◐", theme.accent, "works"),
        ("✓", theme.good, "passed, or target met"),
        ("✗", theme.bad, "failed, or target missed"),
        ("▲", theme.warn, "needs attention"),
        ("○", theme.warn, "skipped, not needed or undone"),
        ("·", theme.muted, "still to come"),
        ("┊", theme.good, "on the RTO's bar: where the forecast ends"),
    ] {
        rows.push(Line::from(vec![Span::styled(format!("  {mark}"), style), span(format!("  {word}"), theme.base)]));
    }
    rows
}

fn contacts(app: &App, columns: usize) -> Vec<Line<'static>> {
    let theme = app.theme();
    let mut people = app.state.runbook.contacts.clone();
    people.extend(app.options.contacts.iter().filter(|contact| !people.contains(contact)).cloned().collect::<Vec<_>>());
    if people.is_empty() {
        let text = "Neither the runbook nor the inventory names anyone. [[contacts]] in lifeboat.toml is the place.";
        return wrap(Line::from(Span::styled(text, theme.muted)), columns, 0);
    }
    let mut rows = Vec::new();
    for person in &people {
        rows.push(Line::from(vec![
            span(format!("{:<22}", person.role), theme.muted),
            span(format!(" {}", person.name), theme.strong),
        ]));
        let mut ways = Vec::new();
        ways.extend(person.phone.as_ref().map(|phone| format!("call {phone}")));
        ways.extend(person.page.as_ref().map(|page| format!("page {page}")));
        if !ways.is_empty() {
            rows.extend(wrap(Line::from(span(format!("{:<23}{}", "", ways.join(" · ")), theme.base)), columns, 23));
        }
        if let Some(after) = person.escalate_after {
            let declared = app.state.declared.map(|declared| declared.wall + after);
            let due = declared.is_some_and(|due| due <= app.wall);
            let when = declared.map(|at| format!(", at {}", format::minute(at, app.options.zone))).unwrap_or_default();
            let text = format!("{:<23}escalate after {}{when}", "", format::words(after));
            rows.push(Line::from(span(text, if due { theme.warn } else { theme.muted })));
        }
        rows.push(Line::default());
    }
    rows.pop();
    rows
}

/// Text, outcome, checks, facts and variables of the step in the middle.
fn facts(app: &App, columns: usize) -> Vec<Line<'static>> {
    let theme = app.theme();
    let shown = app.shown();
    let (Some(of), Some(state)) = (app.state.runbook.steps.get(shown), app.state.steps.get(shown)) else {
        return Vec::new();
    };
    let mut rows = vec![
        Line::from(span(app.state.expand(&of.title), theme.strong)),
        Line::from(span(format!("{} · {} · line {} of the runbook", of.id, of.kind.word(), of.line), theme.muted)),
    ];
    if let Some(text) = &of.text {
        rows.push(Line::default());
        rows.extend(markdown::rows(&app.state.expand(text), theme, columns));
    }
    let heading = |rows: &mut Vec<Line<'static>>, title: &str| {
        rows.push(Line::default());
        rows.push(Line::from(span(title, theme.strong)));
    };
    let value = |rows: &mut Vec<Line<'static>>, name: &str, value: &serde_json::Value| {
        let text = match value {
            serde_json::Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        let name = format!("  {name:<24} ");
        let hang = width(&name);
        rows.extend(wrap(Line::from(vec![span(name, theme.muted), span(text, theme.base)]), columns, hang));
    };
    for attempt in &state.attempts {
        let what = match (attempt.undo, attempt.probe) {
            (true, _) => "Undo",
            (_, true) => "Probe",
            _ => "Attempt",
        };
        heading(&mut rows, &format!("{what} {}", attempt.number));
        let from = format::clock(attempt.started.wall, app.options.zone);
        let to = attempt.ended.map_or("now".to_owned(), |at| format::clock(at.wall, app.options.zone));
        rows.push(Line::from(span(format!("  {from} to {to}"), theme.muted)));
        if let Some(outcome) = &attempt.outcome {
            rows.extend(wrap(Line::from(span(format!("  {}", outcome.summary), theme.base)), columns, 2));
            rows.extend(step::check_rows(app, &outcome.checks, columns));
            for (name, fact) in &outcome.facts {
                value(&mut rows, name, fact);
            }
        }
        if let Some(blob) = &attempt.output {
            let text = format!("  output: {}, sha256 {}", format::bytes(blob.bytes), blob.digest);
            rows.extend(wrap(Line::from(span(text, theme.muted)), columns, 2));
        }
    }
    if !app.state.variables.is_empty() {
        heading(&mut rows, "Variables of the drill");
        for (name, of) in &app.state.variables {
            value(&mut rows, name, of);
        }
    }
    rows
}

fn notes(app: &App, columns: usize) -> Vec<Line<'static>> {
    let theme = app.theme();
    let mut all: Vec<(crate::drill::Moment, Vec<Span<'static>>)> = Vec::new();
    for note in &app.state.notes {
        all.push((note.at, vec![span(&note.text, theme.base), span(format!("  {}", note.by), theme.muted)]));
    }
    for finding in &app.state.findings {
        let mut spans = vec![Span::styled("▲ finding ", theme.warn), span(&finding.text, theme.base)];
        if let Some(owner) = &finding.owner {
            spans.push(span(format!("  owner {owner}"), theme.muted));
        }
        if let Some(due) = &finding.due {
            spans.push(span(format!("  due {due}"), theme.muted));
        }
        all.push((finding.at, spans));
    }
    if all.is_empty() {
        return vec![Line::from(Span::styled(
            "Nothing was written down yet: n writes a note, F a finding.",
            theme.muted,
        ))];
    }
    all.sort_by_key(|(at, _)| at.elapsed);
    let row = |(at, mut spans): (crate::drill::Moment, Vec<Span<'static>>)| {
        spans.insert(0, Span::styled(format!("{}  ", format::clock(at.wall, app.options.zone)), theme.muted));
        wrap(Line::from(spans), columns, 10)
    };
    all.into_iter().flat_map(row).collect()
}

/// What is typed, why, and what is wrong with it.
fn dialog(app: &App, whole: Rect, entry: &Entry, buffer: &mut Buffer) {
    let theme = app.theme();
    let danger = matches!(entry.purpose, Purpose::TypeName { .. });
    // The frame of what destroys and that of its dialog would cut through each other.
    if danger && whole.height > 12 {
        clear(app.theme(), Rect { y: whole.y + 2, height: whole.height - 2, ..whole }, buffer);
    }
    let columns = usize::from(whole.width.min(76).saturating_sub(4));
    let (title, words) = purpose(app, &entry.purpose);
    let mut rows: Vec<Line<'static>> = Vec::new();
    for text in words {
        rows.extend(wrap(Line::from(span(text, theme.base)), columns, 0));
    }
    if !rows.is_empty() && whole.height > 8 {
        rows.push(Line::default());
    }
    let label_width = if entry.fields.len() > 1 { 9 } else { 0 };
    for (index, field) in entry.fields.iter().enumerate() {
        let active = index == entry.at;
        let label = if label_width > 0 { format!("{:<label_width$}", field.label) } else { String::new() };
        let mut spans = vec![span(label, theme.muted)];
        spans.push(Span::styled(if active { "› " } else { "  " }, theme.accent));
        spans.extend(typed(app, field, active, columns.saturating_sub(label_width + 2)));
        if field.optional && field.input.value().is_empty() && !active {
            spans.push(Span::styled("optional", theme.muted));
        }
        rows.push(spread(spans, Vec::new(), columns));
    }
    if let Some(at) = entry.moment(app.wall, app.options.zone) {
        let reading = format!("  that is {}", format::both(at, app.options.zone));
        rows.push(Line::from(span(reading, theme.muted)));
    }
    if let Some(problem) = &entry.problem {
        rows.push(Line::default());
        rows.extend(wrap(Line::from(vec![Span::styled("✗ ", theme.bad), span(problem, theme.bad)]), columns, 2));
    }
    let edge = if danger { Style { fg: theme.danger.bg.or(theme.bad.fg), ..Style::new() } } else { theme.accent };
    boxed(app, whole, &title, edge, if danger { theme.danger } else { theme.strong }, rows, buffer);
}

/// The field's text with a drawn cursor, scrolled so that the cursor is seen.
fn typed(app: &App, field: &super::super::app::Field, active: bool, room: usize) -> Vec<Span<'static>> {
    let theme = app.theme();
    let value = super::super::text::clean(field.input.value()).into_owned();
    let cursor = field.input.cursor();
    let start = cursor.saturating_sub(room.saturating_sub(1));
    let characters: Vec<char> = value.chars().collect();
    let part = |range: std::ops::Range<usize>| -> String {
        characters
            .get(range.start.min(characters.len())..range.end.min(characters.len()))
            .unwrap_or_default()
            .iter()
            .collect()
    };
    if !active {
        return vec![span(part(0..room), theme.base)];
    }
    let under = part(cursor..cursor + 1);
    let cursor_style = theme.strong.add_modifier(ratatui::style::Modifier::REVERSED);
    vec![
        span(part(start..cursor), theme.strong),
        span(if under.is_empty() { " " } else { &under }, cursor_style),
        span(part(cursor + 1..start + room), theme.strong),
    ]
}

fn purpose(app: &App, purpose: &Purpose) -> (String, Vec<String>) {
    let title =
        |step: &usize| app.state.runbook.steps.get(*step).map(|step| app.state.expand(&step.title)).unwrap_or_default();
    match purpose {
        Purpose::Declare => (
            "Declare".to_owned(),
            vec!["What is broken? One sentence; it goes into the report. The RTO clock starts with Enter.".to_owned()],
        ),
        Purpose::TypeName { step, name } => {
            let mut words = Vec::new();
            if let Some(crate::event::Ask::TypeName { loss, .. }) = app.state.ask_of(*step) {
                words.push(format!("What will be lost: {loss}"));
            }
            words.push(format!("Type {name} and press Enter."));
            (format!("▲ DESTROYS: {}", title(step)), words)
        }
        Purpose::Answer { step, .. } => {
            let prompt = match app.state.ask_of(*step) {
                Some(crate::event::Ask::Input { prompt, .. }) => prompt.clone(),
                _ => String::new(),
            };
            (title(step), vec![prompt])
        }
        Purpose::Skip { step } => (
            format!("Skip {}", title(step)),
            vec!["Why? The reason stands in the report. Steps after it go on as if it had passed.".to_owned()],
        ),
        Purpose::No { step } => {
            (format!("No: {}", title(step)), vec!["What is it like? The step fails with these words.".to_owned()])
        }
        Purpose::Done { step } => (
            format!("Take as done: {}", title(step)),
            vec!["How do you know? The reason stands in the report.".to_owned()],
        ),
        Purpose::Note => ("Note".to_owned(), vec!["It gets the time of now.".to_owned()]),
        Purpose::Finding => {
            ("Finding".to_owned(), vec!["What must be better next time, who sees to it, and until when.".to_owned()])
        }
        Purpose::Abort => (
            "Abort the drill".to_owned(),
            vec!["Running steps are ended and the drill is over; it cannot be continued. Why?".to_owned()],
        ),
        Purpose::Search => ("Search the output".to_owned(), Vec::new()),
        Purpose::Target => (
            "Recovery target".to_owned(),
            vec![
                "A time with its offset, or lsn:…, xid:…, name:…, latest.".to_owned(),
                "2026-11-21T10:02:31.5+01:00 · lsn:0/4A2F11C8 · xid:8841".to_owned(),
            ],
        ),
    }
}

fn question(app: &App, whole: Rect, question: Question, buffer: &mut Buffer) {
    let theme = app.theme();
    let title =
        |step: usize| app.state.runbook.steps.get(step).map(|step| app.state.expand(&step.title)).unwrap_or_default();
    let (head, text) = match question {
        Question::Leave => ("Leave?".to_owned(), app.options.leave_text.clone()),
        Question::Interrupt if app.options.can_stop => (
            "Ctrl-C".to_owned(),
            format!(
                "Once more stops the drill: what runs gets TERM, and KILL after {} s; `lifeboat resume` goes on with it. \
                 Or only leave, and it goes on.",
                GRACE.as_secs()
            ),
        ),
        Question::Interrupt => (
            "Ctrl-C".to_owned(),
            format!("Abort the drill, or only leave ({})? Ctrl-C again leaves.", app.options.leave_text),
        ),
        Question::Point => (
            "Recovery point".to_owned(),
            app.picker.as_ref().map(|picker| super::picker::sentence(app, picker)).unwrap_or_default(),
        ),
        Question::Stop { step } => {
            ("Stop?".to_owned(), format!("The drill ends as failed at {}; it cannot be continued.", title(step)))
        }
        Question::Again { step } => (
            "Again?".to_owned(),
            format!("{} is done again, and so is every step after it that has begun.", title(step)),
        ),
        Question::Undo { step } => ("Undo?".to_owned(), format!("The way back of {} runs now.", title(step))),
    };
    let columns = usize::from(whole.width.min(76).saturating_sub(4));
    let mut rows = wrap(Line::from(span(text, theme.base)), columns, 0);
    if whole.height > 7 {
        rows.push(Line::default());
    }
    let mut spans = Vec::new();
    for (binding, keys) in keymap::reachable(&app.contexts()) {
        if binding.bar > 0 {
            spans.push(super::top::big_cap(app, &keys[0].name()));
            spans.push(span(format!(" {}   ", binding.label), theme.base));
        }
    }
    rows.extend(wrap(Line::from(spans), columns, 0));
    boxed(app, whole, &head, theme.accent, theme.strong, rows, buffer);
}

fn boxed(
    app: &App,
    whole: Rect,
    title: &str,
    edge: Style,
    strong: Style,
    rows: Vec<Line<'static>>,
    buffer: &mut Buffer,
) {
    let roomy = whole.height > 8;
    let height = u16::try_from(rows.len() + if roomy { 4 } else { 2 }).unwrap_or(u16::MAX);
    let area = centred(whole, 76, height);
    clear_band(app, whole, area, buffer);
    let mut room = frame(area, title, edge, strong, buffer);
    if roomy && room.height > 2 {
        room.y += 1;
        room.height -= 2;
    }
    put(rows, room, buffer);
}
