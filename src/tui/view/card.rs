//! The question of a step as rows: a sentence, and the key that answers it.

use ratatui::style::Style;
use ratatui::text::{Line, Span};

use crate::event::{Ask, Failure, InputKind};
use crate::runbook::Step;

use super::super::app::App;
use super::super::moment;
use super::super::text::{span, spread, width, wrap};
use super::top::big_cap;

/// Rows with a bar at their left edge, so that the eye finds where the question is.
pub(super) struct Card<'a> {
    app: &'a App,
    edge: Style,
    columns: usize,
    rows: Vec<Line<'static>>,
}

impl<'a> Card<'a> {
    pub(super) fn new(app: &'a App, edge: Style, columns: usize) -> Self {
        Self { app, edge: edge_of(edge), columns, rows: Vec::new() }
    }

    /// A paragraph.
    pub(super) fn say(&mut self, text: impl AsRef<str>, style: Style) {
        for line in text.as_ref().lines() {
            self.line(vec![span(line, style)], 0);
        }
    }

    pub(super) fn gap(&mut self) {
        self.rows.push(Line::from(Span::styled("▌", self.edge)));
    }

    /// A key and what it does.
    pub(super) fn key(&mut self, name: &str, sentence: &str, style: Style) {
        let hang = width(name) + 4;
        self.line(vec![big_cap(self.app, name), Span::raw("  "), span(sentence, style)], hang);
    }

    /// Lesser keys in one row.
    pub(super) fn keys(&mut self, keys: &[(&str, &str)]) {
        let theme = self.app.theme();
        let mut spans = Vec::new();
        for (name, label) in keys {
            spans.push(super::cap(theme, name));
            spans.push(Span::styled(format!(" {label}   "), theme.muted));
        }
        self.line(spans, 0);
    }

    pub(super) fn line(&mut self, spans: Vec<Span<'static>>, hang: usize) {
        for mut row in wrap(Line::from(spans), self.columns.saturating_sub(2), hang) {
            row.spans.insert(0, Span::styled("▌ ", self.edge));
            self.rows.push(row);
        }
    }

    pub(super) fn rows(self) -> Vec<Line<'static>> {
        self.rows
    }
}

/// The colour of an edge; weight and underline are for words.
fn edge_of(style: Style) -> Style {
    Style { fg: style.fg, ..Style::new() }
}

/// The card of what a step asks. The recovery point has a pane of its own.
pub(super) fn rows(app: &App, step: &Step, ask: &Ask, columns: usize) -> Vec<Line<'static>> {
    let theme = app.theme();
    let mut card = Card::new(app, theme.accent, columns);
    if app.is_sent() {
        card.say("Answered; waiting until it is written down.", theme.muted);
        return card.rows();
    }
    if step.approvals > 0 {
        let people =
            if step.approvals == 1 { "one more person".to_owned() } else { format!("{} more people", step.approvals) };
        card.say(format!("Needs the approval of {people}."), theme.warn);
    }
    match ask {
        Ask::Go { sentence } => {
            card.key("Enter", sentence, theme.strong);
        }
        Ask::Confirm { sentence } => {
            card.say(sentence, theme.strong);
            card.gap();
            card.key("Enter", "yes, it is so", theme.base);
            card.key("n", "no", theme.base);
        }
        Ask::TypeName { name, sentence, loss } => return destruction(app, name, sentence, loss, columns),
        Ask::Input { prompt, default, input, .. } => {
            card.say(prompt, theme.strong);
            match input {
                InputKind::Time => card.say(moment::SPELLINGS, theme.muted),
                InputKind::Number => card.say("A number.", theme.muted),
                InputKind::Text => {}
            }
            card.gap();
            if matches!(input, InputKind::Time) {
                card.key("0…9", "type it", theme.base);
            }
            match default {
                Some(default) => card.key("Enter", &format!("type the answer; it begins as {default}"), theme.base),
                None => card.key("Enter", "type the answer", theme.base),
            }
        }
        Ask::Choose { prompt, options, .. } => {
            card.say(prompt, theme.strong);
            card.gap();
            for (index, option) in options.iter().enumerate() {
                let chosen = index == app.choice.1;
                let style = if chosen { theme.strong } else { theme.base };
                let mark = if chosen { "▶ " } else { "  " };
                let mut spans = vec![Span::styled(mark, theme.accent)];
                if index < 9 {
                    spans.push(super::cap(theme, &format!("{} ", index + 1)));
                }
                spans.push(span(&option.label, style));
                if let Some(detail) = &option.detail {
                    spans.push(span(format!("  {detail}"), theme.muted));
                }
                card.line(spans, 4);
            }
            card.gap();
            if let Some(option) = options.get(app.choice.1) {
                card.key("Enter", &format!("choose {}", option.label), theme.base);
            }
        }
        Ask::RecoveryPoint { .. } => {}
        Ask::AfterFailure { failure } => return self::failure(app, step, failure, columns),
        Ask::InDoubt { why } => {
            card.edge = edge_of(theme.bad);
            card.line(
                vec![
                    Span::styled("▲ In doubt. ", theme.bad),
                    Span::styled("It was started, and no outcome was written down.", theme.strong),
                ],
                2,
            );
            card.say(why, theme.base);
            card.gap();
            card.key("r", "repeat it", theme.base);
            card.key("d", "it was done: take it as done, with a reason", theme.base);
            card.key("s", "skip it, with a reason", theme.base);
            card.keys(&[("o", "output"), ("c", "contacts"), ("S", "stop: the drill ends as failed")]);
        }
    }
    card.rows()
}

/// The own words first, then what failed and what to do, then the choices.
fn failure(app: &App, step: &Step, failure: &Failure, columns: usize) -> Vec<Line<'static>> {
    let theme = app.theme();
    let mut card = Card::new(app, theme.bad, columns);
    failure_words(&mut card, app, failure);
    card.gap();
    card.key("r", "retry", theme.base);
    card.key("s", "skip it, with a reason", theme.base);
    if step.undo.is_some() {
        card.key("u", "undo what it did", theme.base);
    }
    card.gap();
    card.keys(&[("o", "output"), ("c", "contacts"), ("n", "note"), ("S", "stop: the drill ends as failed")]);
    card.rows()
}

/// `✗ why`, what, `→ now`.
pub(super) fn failure_words(card: &mut Card<'_>, app: &App, failure: &Failure) {
    let theme = app.theme();
    let (first, second) = match failure.why.is_empty() {
        true => (&failure.what, None),
        false => (&failure.why, Some(&failure.what)),
    };
    card.line(vec![Span::styled("✗ ", theme.bad), span(first, theme.bad)], 2);
    if let Some(what) = second {
        card.line(vec![span(format!("  while: {what}"), theme.base)], 2);
    }
    if let Some(now) = &failure.now {
        card.line(vec![Span::styled("→ ", theme.accent), span(now, theme.strong)], 2);
    }
}

/// Looks like nothing else: a heavy frame, and no key that does it.
fn destruction(app: &App, name: &str, sentence: &str, loss: &str, columns: usize) -> Vec<Line<'static>> {
    let theme = app.theme();
    let inner = columns.saturating_sub(4);
    let edge = Style { fg: theme.danger.bg.or(theme.bad.fg), ..Style::new() };
    let mut rows = Vec::new();
    let title = " ▲ DESTROYS ";
    let fill = "━".repeat(columns.saturating_sub(width(title) + 3));
    rows.push(Line::from(vec![
        Span::styled("┏━", edge),
        Span::styled(title, theme.danger),
        Span::styled(format!("{fill}┓"), edge),
    ]));
    let mut say = |line: Line<'static>| {
        for row in wrap(line, inner, 0) {
            let padded = spread(row.spans, Vec::new(), inner);
            let mut spans = vec![Span::styled("┃ ", edge)];
            spans.extend(padded.spans);
            spans.push(Span::styled(" ┃", edge));
            rows.push(Line::from(spans));
        }
    };
    say(Line::default());
    say(Line::from(span(sentence, theme.strong)));
    say(Line::default());
    say(Line::from(vec![Span::styled("What will be lost: ", theme.bad), span(loss, theme.base)]));
    say(Line::default());
    say(Line::from(vec![
        Span::styled("No key does this. Press ", theme.base),
        big_cap(app, "Enter"),
        Span::styled(" and type the name ", theme.base),
        span(name, theme.strong),
    ]));
    say(Line::default());
    rows.push(Line::from(Span::styled(format!("┗{}┛", "━".repeat(columns.saturating_sub(2))), edge)));
    rows
}

/// Before anything has begun.
pub(super) fn declare(app: &App, columns: usize) -> Vec<Line<'static>> {
    let theme = app.theme();
    let mut card = Card::new(app, theme.accent, columns);
    card.key("Enter", "declare: say what is broken, and the RTO clock starts", theme.strong);
    card.gap();
    card.say("Nothing is touched before that. Steps that destroy something ask again.", theme.muted);
    card.rows()
}
