//! What a recovery point costs, in words: what it gives up, what it keeps, and when it is ready.

use std::time::Duration;

use chrono::{DateTime, FixedOffset, TimeDelta, Utc};

use crate::drill::{DrillState, Elapsed};
use crate::event::Unit;
use crate::recovery::Cost;
use crate::runbook::StepKind;

use super::format;
use super::picker::{Found, Picker};
use super::session::PointPreview;

/// `3 min 31 s · 18 204 commits · 61 MB`: what lies behind the point.
pub(super) fn gives_up(cost: &Cost) -> Option<String> {
    let mut parts = Vec::new();
    let time = cost.time_lost.filter(|time| *time > TimeDelta::zero());
    parts.extend(time.map(|time| format::seconds(time.as_seconds_f64())));
    parts.extend(cost.commits_lost.map(commits));
    parts.extend(cost.bytes_lost.map(|bytes| format!("{} of WAL", format::bytes(bytes))));
    (!parts.is_empty()).then(|| parts.join(" · "))
}

/// `0.5 s`, the system's name behind it where there are several.
pub(super) fn skews(preview: &PointPreview) -> Option<String> {
    let alone = preview.skews.len() == 1;
    let skews = preview.skews.iter().map(|(system, skew)| match alone {
        true => format::seconds(*skew),
        false => format!("{} to {system}", format::seconds(*skew)),
    });
    let skews: Vec<String> = skews.collect();
    (!skews.is_empty()).then(|| skews.join(", "))
}

/// `3210 commits`
pub(super) fn keeps(cost: &Cost) -> Option<String> {
    cost.commits_kept.map(commits)
}

fn commits(number: u64) -> String {
    format!("{} {}", format::count(number), if number == 1 { "commit" } else { "commits" })
}

/// `1.4 GB, replay 74 segments`; `None` where a cloud restores, and does not say what it costs it.
pub(super) fn fetch(cost: &Cost) -> Option<String> {
    let segments = format::amount(cost.segments, None, Unit::Segments);
    let any = cost.fetch_bytes > 0 || cost.segments > 0;
    any.then(|| format!("{}, replay {segments}", format::bytes(cost.fetch_bytes)))
}

/// When the service is back, against the RTO.
pub(super) struct Ready {
    /// `10:13, 20 min before the RTO ends`
    pub words: String,
    /// `None` without an RTO.
    pub in_time: Option<bool>,
}

pub(super) fn ready(
    state: &DrillState,
    preview: &PointPreview,
    now: Elapsed,
    wall: DateTime<Utc>,
    zone: FixedOffset,
) -> Option<Ready> {
    let restored = preview.ready_seconds.filter(|seconds| (0.0..1e8).contains(seconds))?;
    let needed = Duration::from_secs_f64(restored) + after_restore(state);
    let at = wall + TimeDelta::from_std(needed).ok()?;
    let mut words = format::minute(at, zone);
    let mut in_time = None;
    if let (Some(target), Some(used)) = (state.rto_target(), state.rto(now)) {
        let end = used + needed;
        in_time = Some(end <= target);
        words.push_str(&match target.checked_sub(end) {
            Some(left) => format!(", {} before the RTO ends", roughly(left)),
            None => format!(", {} after the RTO ends", roughly(end.saturating_sub(target))),
        });
    }
    if preview.measured_by == 0 {
        words.push_str(" (no past drill to measure by)");
    }
    Some(Ready { words, in_time })
}

/// A forecast is no better than its minute.
fn roughly(duration: Duration) -> String {
    match duration.as_secs() {
        0..60 => "less than 1 min".to_owned(),
        seconds => format::words(Duration::from_secs(seconds / 60 * 60)),
    }
}

/// What past runs took for the steps that come after the restores, up to the last proof; one after the other, which is
/// at most too long.
fn after_restore(state: &DrillState) -> Duration {
    let last = state.runbook.steps.iter().rposition(|step| step.proves_service);
    let steps = state.runbook.steps.iter().zip(&state.steps).enumerate();
    let ahead = steps.filter(|(index, (step, progress))| {
        let restore =
            matches!(step.kind, StepKind::PostgresRestore | StepKind::RedisRestore | StepKind::RecoveryChoose { .. });
        !restore && !progress.status.has_ended() && last.is_none_or(|last| *index <= last)
    });
    let expected = ahead.filter_map(|(_, (step, _))| state.opening.expected_seconds.get(&step.id));
    expected.filter_map(|seconds| Duration::try_from_secs_f64(*seconds).ok()).sum()
}

/// `just before xid 8841, which drops payments`; `None` where the target names no suspect.
pub(super) fn suspect_target(picker: &Picker) -> Option<String> {
    let found = picker.target_suspect()?;
    let side = if picker.inclusive { "just after" } else { "just before" };
    Some(format!("{side} xid {}, which {}", found.suspect.xid, gravest(found)))
}

/// What it keeps though it lies behind the incident.
pub(super) fn damage(picker: &Picker) -> Option<String> {
    let found = picker.keeps_damage()?;
    Some(format!("it keeps xid {}, which {}", found.suspect.xid, gravest(found)))
}

/// `drops payments`, and whether there is more.
fn gravest(found: &Found) -> String {
    let deeds = &found.suspect.deeds;
    match deeds.first() {
        Some(first) if deeds.len() > 1 => format!("{first} and more"),
        Some(first) => first.to_string(),
        None => "is a suspect".to_owned(),
    }
}

/// `10:02:31.507 +01:00`, with the day where it is another than `today`'s.
pub(super) fn stamp(at: DateTime<Utc>, today: DateTime<Utc>, zone: FixedOffset) -> String {
    let time = format!("{} {}", format::millis(at, zone), format::offset(zone));
    let day = |at: DateTime<Utc>| at.with_timezone(&zone).date_naive();
    match day(at) == day(today) {
        true => time,
        false => format!("{} {time}", at.with_timezone(&zone).format("%-d %b")),
    }
}

/// The system's name in front, where there are several that a suspect can be of.
pub(super) fn deeds(picker: &Picker, found: &Found) -> String {
    let several = picker.suspects.iter().any(|other| other.system != found.system);
    match several {
        true => format!("{}: {}", found.system, found.suspect),
        false => found.suspect.to_string(),
    }
}

/// `0.1 s up to the incident`: the loss as the RPO counts it.
pub(super) fn loss(cost: &Cost) -> Option<String> {
    let loss = cost.loss.filter(|loss| *loss > TimeDelta::zero());
    loss.map(|loss| format!("{} up to the incident", format::seconds(loss.as_seconds_f64())))
}
