//! The backups of a cloud, as it reports them.

use chrono::{DateTime, Utc};

use super::judge::{against_rpo, failed, ok, seconds, unknown};
use super::{Fact, Look, Subject, SystemHealth};

const SWITCH_ON: &str =
    "switch automated backups and point-in-time recovery on for it, or look why its cloud makes none";
const BEHIND: &str = "look at the instance in its cloud: its backups lag or have stopped";

/// What a cloud says of a system: which instance, from when to when it can be restored, what is odd.
pub(super) type Told<'a> = (&'a String, Option<DateTime<Utc>>, Option<DateTime<Utc>>, &'a [String]);

pub(super) fn judge(look: &Look<'_>, (source, earliest, latest, warnings): Told<'_>, health: &mut SystemHealth) {
    health.retention.from = earliest;
    health.recoverable_to = latest;
    health.facts.push(backups(source, earliest, latest, warnings));
    let says = format!("{source} keeps its backups by its own rules; nothing of them lies in the store");
    health.facts.push(unknown(Subject::Retention, says));
    let Some(latest) = latest else {
        let says = format!("up to when {source} can be restored is not reported");
        return health.facts.push(unknown(Subject::Loss, says));
    };
    let lag = (look.now - latest).max(chrono::TimeDelta::zero());
    health.loss_seconds = Some(seconds(lag));
    let because = format!("{source} reports that it can be restored up to {}", stamp(latest));
    health.facts.push(against_rpo(look, lag, because, BEHIND));
}

fn stamp(at: DateTime<Utc>) -> impl std::fmt::Display {
    at.format("%Y-%m-%d %H:%M:%S UTC")
}

fn backups(source: &str, earliest: Option<DateTime<Utc>>, latest: Option<DateTime<Utc>>, warnings: &[String]) -> Fact {
    match (warnings, earliest, latest) {
        ([first, ..], _, _) => failed(Subject::Backup, first.clone(), SWITCH_ON),
        ([], None, None) => failed(Subject::Backup, format!("{source} reports no point to restore to"), SWITCH_ON),
        ([], Some(from), _) => ok(Subject::Backup, format!("{source} reports backups since {}", stamp(from))),
        ([], None, Some(to)) => unknown(
            Subject::Backup,
            format!("{source} reports that it can be restored up to {}, and not since when", stamp(to)),
        ),
    }
}
