//! Questions as lines, each with the words that answer it.

use chrono::{DateTime, FixedOffset, Utc};

use crate::drill::DrillState;
use crate::event::{Ask, InputKind, SystemWindow, Window};

use super::super::format;
use super::super::markdown;
use super::super::moment;
use super::super::picker::Picker;
use super::super::price;
use super::super::theme::Theme;
use super::printer::{failure_lines, title};

/// The step's text and its question.
pub(super) fn lines(state: &DrillState, step: usize, zone: FixedOffset) -> Vec<String> {
    let mut lines = vec![String::new(), format!("▶ {}", title(state, &state.runbook.steps[step].id))];
    lines.extend(text(state, step));
    if let Some(ask) = state.ask_of(step) {
        lines.extend(question(state, step, ask, zone));
    }
    lines
}

/// The step's Markdown without marks.
pub(super) fn text(state: &DrillState, step: usize) -> Vec<String> {
    let text = state.runbook.steps[step].text.as_deref().unwrap_or_default();
    let rows = markdown::rows(&state.expand(text), &Theme::plain(), 78);
    rows.iter()
        .map(|row| format!("  {}", row.spans.iter().map(|span| span.content.as_ref()).collect::<String>()))
        .collect()
}

fn question(state: &DrillState, step: usize, ask: &Ask, zone: FixedOffset) -> Vec<String> {
    let name = title(state, &state.runbook.steps[step].id);
    match ask {
        Ask::Go { sentence } => vec![format!("  yes = {sentence}"), "  or: skip REASON, help".to_owned()],
        Ask::Confirm { sentence } => {
            vec![format!("  {sentence}"), "  Type yes if it is so, or no REASON. Or: skip REASON, help".to_owned()]
        }
        Ask::TypeName { name, sentence, loss } => vec![
            "  ▲ THIS DESTROYS.".to_owned(),
            format!("  {sentence}"),
            format!("  What will be lost: {loss}"),
            format!("  To go on, type the name: {name}"),
            "  Or: skip REASON, help".to_owned(),
        ],
        Ask::Input { prompt, default, input, .. } => {
            let mut lines = vec![format!("  {prompt}")];
            match input {
                InputKind::Time => lines.push(format!("  {}", moment::SPELLINGS)),
                InputKind::Number => lines.push("  A number.".to_owned()),
                InputKind::Text => {}
            }
            lines.extend(default.as_ref().map(|default| format!("  Enter alone takes: {default}")));
            lines.push(
                "  What you type is the answer; a command begins with a slash here: /skip REASON, /help".to_owned(),
            );
            lines
        }
        Ask::Choose { prompt, options, default } => {
            let mut lines = vec![format!("  {prompt}")];
            for (index, option) in options.iter().enumerate() {
                let detail = option.detail.as_ref().map(|detail| format!(" ({detail})")).unwrap_or_default();
                let preset = if default.as_ref() == Some(&option.value) { ", suggested" } else { "" };
                lines.push(format!("  {} = {}{detail}{preset}", index + 1, option.label));
            }
            lines.push("  Type a number. Or: skip REASON, help".to_owned());
            lines
        }
        Ask::RecoveryPoint { window, .. } => self::window(window, zone),
        Ask::AfterFailure { failure } => {
            // The whole of it was said when it failed; here only the words that name it.
            let words = failure_lines(&name, failure, "").into_iter().take(1);
            let mut lines: Vec<String> = words.map(|line| format!("  {line}")).collect();
            lines.push(
                "  Type retry, skip REASON, undo, or stop (the drill ends as failed). Or: output, contacts, help"
                    .to_owned(),
            );
            lines
        }
        Ask::InDoubt { why } => vec![
            "  ▲ In doubt: it was started, and no outcome was written down.".to_owned(),
            format!("  {why}"),
            "  Type repeat, done REASON, skip REASON, or stop (the drill ends as failed)".to_owned(),
        ],
    }
}

fn window(window: &Window, zone: FixedOffset) -> Vec<String> {
    let mut lines = Vec::new();
    for system in &window.systems {
        match system {
            SystemWindow::Postgres { system, backups, coverage, gaps, restore_points, history, warnings, .. } => {
                for backup in backups {
                    lines.push(format!("  {system}: base backup of {}", format::both(backup.stopped, zone)));
                }
                for run in coverage {
                    let end = run.to_time.map_or_else(|| run.last_segment.clone(), |to| format::both(to, zone));
                    lines.push(format!("  {system}: WAL to {end}, timeline {}", run.timeline));
                }
                for gap in gaps {
                    lines.push(format!(
                        "  ▲ {system}: WAL is missing from {} to {}",
                        gap.first_missing, gap.last_missing
                    ));
                }
                for point in restore_points {
                    lines.push(format!(
                        "  {system}: restore point name:{} at {}",
                        point.name,
                        format::both(point.at, zone)
                    ));
                }
                if let Some(why) = history.as_ref().and_then(|history| history.stopped.as_ref()) {
                    lines.push(format!("  ▲ {system}: not all of the WAL was read, suspects may be missing: {why}"));
                }
                lines.extend(warnings.iter().map(|warning| format!("  ▲ {system}: {warning}")));
            }
            SystemWindow::Redis { system, snapshots, aof, warnings } => {
                for snapshot in snapshots {
                    let keys = format::count(snapshot.keys);
                    lines.push(format!("  {system}: snapshot of {}, {keys} keys", format::both(snapshot.at, zone)));
                }
                for range in aof {
                    let [from, to] = [range.from, range.end()].map(|at| format::both(at, zone));
                    lines.push(format!("  {system}: append-only file from {from} to {to}"));
                }
                lines.extend(warnings.iter().map(|warning| format!("  ▲ {system}: {warning}")));
            }
            SystemWindow::Managed { system, source, earliest, latest, warnings } => {
                let [from, to] = [earliest, latest].map(|at| at.map_or("?".to_owned(), |at| format::both(at, zone)));
                lines.push(format!("  {system}: {source}, any second from {from} to {to} (reported)"));
                lines.extend(warnings.iter().map(|warning| format!("  ▲ {system}: {warning}")));
            }
        }
    }
    if let Some(incident) = window.incident {
        lines.push(format!("  incident: {}", format::both(incident, zone)));
    }
    lines.push(
        "  Type a target: a time with its offset, lsn:…, xid:…, name:…, latest. before or after in front says"
            .to_owned(),
    );
    lines.push(
        "  whether the target's own commit is left out or kept. You see what it means before you say yes.".to_owned(),
    );
    lines
}

/// Suspects by the number that chooses them, those around the one that is pointed at.
pub(super) fn suspects(picker: &Picker, today: DateTime<Utc>, zone: FixedOffset) -> Vec<String> {
    const SHOWN: usize = 9;
    let all = picker.suspects.len();
    let Some(at) = picker.selected else { return Vec::new() };
    let first = at.saturating_sub(SHOWN / 3).min(all.saturating_sub(SHOWN));
    let mut lines = vec!["  Suspects, transactions that may be the damage:".to_owned()];
    for (index, found) in picker.suspects.iter().enumerate().skip(first).take(SHOWN) {
        let mark = if index == at { "▶" } else { " " };
        let stamp = price::stamp(found.suspect.at, today, zone);
        let deeds = price::deeds(picker, found);
        lines.push(format!("  {mark} {} = {stamp}  xid {}  {deeds}", index + 1, found.suspect.xid));
    }
    if all > SHOWN {
        lines.push(format!("  {} of {all}; a number chooses any of them, and those beside it are shown", SHOWN));
    }
    lines.push(format!("  before {0} = just before number {0}, after {0} = just after it", at + 1));
    lines
}

/// What the target in the picker means.
pub(super) fn candidate(picker: &Picker, state: &DrillState, zone: FixedOffset) -> Vec<String> {
    let side = if picker.inclusive { "after" } else { "before" };
    let target = price::suspect_target(picker).unwrap_or_else(|| format!("{side} {}", picker.target_text(zone)));
    let mut lines = vec![format!("  {target}")];
    match &picker.preview {
        Ok(preview) => {
            let mut parts = Vec::new();
            let mut part = |name: &str, value: Option<String>| {
                parts.extend(value.map(|value| format!("  {name} {value}")));
            };
            part("gives up", price::gives_up(&preview.cost));
            part("keeps", price::keeps(&preview.cost));
            part("loses", price::loss(&preview.cost));
            part("skew", price::skews(preview));
            part("fetch", price::fetch(&preview.cost));
            let ready = price::ready(state, preview, state.latest.elapsed, state.latest.wall, zone);
            part("ready about", ready.map(|ready| ready.words));
            lines.push("  possible ✓".to_owned());
            lines.extend(parts.into_iter().map(|part| format!("  {part}")));
            lines.extend(price::damage(picker).map(|damage| format!("  ▲ {damage}")));
            lines.extend(preview.cost.warnings.iter().map(|line| format!("  ▲ {line}")));
            lines.push("  Type yes to choose it, or another target.".to_owned());
        }
        Err(failure) => {
            lines.push(format!("  not possible ✗ {failure}"));
            lines.extend(failure.now.as_ref().map(|now| format!("  → {now}")));
        }
    }
    lines
}
