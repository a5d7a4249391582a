//! After the end: the verdict, the figures, where the report lies.

use ratatui::style::{Modifier, Style};
use ratatui::text::{Line, Span};

use crate::drill::{StepStatus, Stopping};
use crate::event::Verdict;

use super::super::app::App;
use super::super::format;
use super::super::text::{span, wrap};

pub(super) fn rows(app: &App, columns: usize) -> Vec<Line<'static>> {
    let theme = app.theme();
    let state = &app.state;
    let Some((at, verdict)) = state.finished else { return Vec::new() };
    let (mark, style) = match verdict {
        Verdict::Passed => ("✓", theme.good),
        Verdict::ObjectiveMissed => ("▲", theme.warn),
        Verdict::Failed => ("✗", theme.bad),
        Verdict::Aborted | Verdict::NeedsPerson => ("▲", theme.bad),
    };
    let head = format!(" {mark} {} ", verdict.word().to_uppercase());
    let mut rows = vec![
        Line::from(vec![
            Span::styled(head, style.add_modifier(Modifier::REVERSED | Modifier::BOLD)),
            span(format!("  {}", sentence(app, verdict)), theme.strong),
        ]),
        Line::default(),
    ];
    let figure = |name: &str, value: String, target: String, met: Option<bool>| {
        let (mark, style): (_, Style) = match met {
            Some(true) => ("✓", theme.good),
            Some(false) => ("✗", theme.bad),
            None => ("·", theme.muted),
        };
        Line::from(vec![
            span(format!("{name:<22}"), theme.base),
            span(format!("{value:>14}"), theme.strong),
            span(format!("   {target:<22}"), theme.muted),
            Span::styled(mark, style),
        ])
    };
    if let Some(rto) = state.rto(at.elapsed) {
        let target = state.rto_target();
        let words = target.map_or("no target".to_owned(), |target| format!("target {}", format::words(target)));
        rows.push(figure("RTO", format::hms(rto), words, target.map(|target| rto <= target)));
    }
    for rpo in state.rpos() {
        let value = rpo.seconds.map_or_else(|| "not measured".to_owned(), format::seconds);
        let words = rpo.target.map_or("no target".to_owned(), |target| format!("target {}", format::words(target)));
        rows.push(figure(&format!("RPO {}", rpo.system), value, words, rpo.met()));
        let beside = format::beside_the_loss(&rpo);
        rows.extend(beside.into_iter().map(|text| Line::from(span(format!("  {text}"), theme.muted))));
        if let Some((lost, of)) = rpo.lost_writes {
            let text = format!("  {} of {} acknowledged writes lost", format::count(lost), format::count(of));
            rows.push(Line::from(span(text, if lost == 0 { theme.muted } else { theme.warn })));
        }
    }
    if let Some(skew) = state.skew() {
        rows.push(figure("skew of the systems", format::seconds(skew), String::new(), None));
    }
    let split = state.split(at.elapsed);
    rows.push(figure(
        "machine · you",
        format!("{} · {}", format::short(split.machine), format::short(split.human)),
        String::new(),
        None,
    ));
    rows.push(Line::default());
    let count = |test: fn(&StepStatus) -> bool| state.steps.iter().filter(|step| test(&step.status)).count();
    let mut steps = vec![format!("{} passed", count(|status| *status == StepStatus::Passed))];
    for (number, word) in [
        (count(|status| matches!(status, StepStatus::Skipped { .. })), "skipped"),
        (count(|status| *status == StepStatus::Failed), "failed"),
        (count(|status| matches!(status, StepStatus::NotNeeded { .. })), "not needed"),
        (count(|status| *status == StepStatus::Undone), "undone"),
        (count(|status| !status.has_ended()), "not reached"),
    ] {
        if number > 0 {
            steps.push(format!("{number} {word}"));
        }
    }
    rows.push(Line::from(span(format!("Steps: {}", steps.join(", ")), theme.base)));
    rows.push(Line::from(span(
        format!("Notes: {}, findings: {}", state.notes.len(), state.findings.len()),
        theme.base,
    )));
    rows.push(Line::default());
    match &app.options.after_text {
        Some(text) => {
            for line in text.lines() {
                rows.extend(wrap(Line::from(span(line, theme.base)), columns, 2));
            }
        }
        None => rows.push(Line::from(Span::styled("The report is being written.", theme.muted))),
    }
    rows.push(Line::default());
    rows.push(Line::from(vec![
        super::top::big_cap(app, "Enter"),
        Span::styled("  leave", theme.strong),
        Span::styled("     ↑ ↓ look at the steps", theme.muted),
    ]));
    rows
}

fn sentence(app: &App, verdict: Verdict) -> String {
    let title = |step: &str| app.state.step(step).map_or(step.to_owned(), |(step, _)| app.state.expand(&step.title));
    match (verdict, &app.state.stopping) {
        (_, Some(Stopping::Aborted { reason })) => format!("aborted: {reason}"),
        (_, Some(Stopping::Failed { step })) => format!("stopped at {}", title(step)),
        (Verdict::Passed, None) => "every step is done and every objective is met".to_owned(),
        (Verdict::ObjectiveMissed, None) => "every step is done, but an objective is missed".to_owned(),
        (Verdict::Failed, None) => "a step failed".to_owned(),
        (Verdict::Aborted, None) => "the operator ended it".to_owned(),
        (Verdict::NeedsPerson, None) => "nobody was there to answer".to_owned(),
    }
}
