//! From what was seen to facts. Pure: the same listing at the same moment gives the same facts.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};

use super::{
    AofHealth, Fact, Judgement, Look, NewestBackup, Proven, RetentionHealth, Source, Stored, Subject, SystemHealth,
    WalHealth, empty,
};
use crate::event::{
    AofRange, BaseBackup, Coverage, Failure, Fork, Gap, RecoveryTarget, RedisSnapshot, SystemWindow, Window,
};
use crate::recovery::collect::Seen;
use crate::recovery::lineage::chain;
use crate::recovery::plan::{Plan, Wanted, plan};
use crate::recovery::proof::{newest_record, stamp};
use crate::recovery::retention::{Archived, Spare, cutoff, spare_of_redis};
use crate::store::{Object, Unreadable};
use crate::system::postgres::engine::Engine;

/// Clocks of two machines may differ by so much.
const SKEW: TimeDelta = TimeDelta::minutes(1);
/// Pruning is a daily job: what became spare since then is no news.
const PRUNED_WITHIN: Duration = Duration::from_secs(24 * 3600);

pub fn judge(look: &Look<'_>, seen: &Seen) -> SystemHealth {
    let mut health = empty(look.system, look.limits);
    let others = seen.objects.iter().map(|object| object.size);
    let segments = seen.segments.iter().map(|listed| listed.bytes);
    health.stored = others.chain(segments).fold(Stored::default(), Stored::and);
    match &seen.window {
        SystemWindow::Postgres { backups, coverage, gaps, forks, segment_bytes, warnings, .. } => {
            let size = (*segment_bytes).max(1 << 20);
            Postgres { look, seen, backups, coverage, gaps, forks, warnings, size }.judge(&mut health);
        }
        SystemWindow::Redis { snapshots, aof, .. } => Redis { look, seen, snapshots, aof }.judge(&mut health),
        SystemWindow::Managed { source, earliest, latest, warnings, .. } => {
            super::managed::judge(look, (source, *earliest, *latest, warnings.as_slice()), &mut health);
        }
    }
    if health.backup.is_some() {
        health.facts.push(proven(look));
    }
    health.facts.sort_by_key(|fact| fact.subject);
    health
}

impl NewestBackup {
    fn named(&self) -> String {
        match self.builds_on.as_slice() {
            [] => self.label.clone(),
            [full] => format!("{} (incremental, on the full {full})", self.label),
            [between @ .., full] => {
                format!("{} (incremental, on {} and the full {full})", self.label, between.join(", "))
            }
        }
    }
}

impl Stored {
    fn and(self, bytes: u64) -> Self {
        Self { objects: self.objects + 1, bytes: self.bytes + bytes }
    }
}

struct Postgres<'a> {
    look: &'a Look<'a>,
    seen: &'a Seen,
    backups: &'a [BaseBackup],
    coverage: &'a [Coverage],
    gaps: &'a [Gap],
    forks: &'a [Fork],
    warnings: &'a [String],
    /// Bytes of a segment.
    size: u64,
}

impl Postgres<'_> {
    fn judge(&self, health: &mut SystemHealth) {
        let Self { look, seen, .. } = self;
        let newest = self.backups.iter().max_by_key(|backup| backup.stopped);
        health.backup = newest.map(|newest| {
            let folder = format!("base/{}/", newest.label);
            NewestBackup {
                label: newest.label.clone(),
                builds_on: chain(self.backups, newest).skip(1).map(|one| one.label.clone()).collect(),
                ended: newest.stopped,
                age_seconds: seconds(look.now - newest.stopped),
                bytes: newest.bytes,
                stored_bytes: newest.stored_bytes,
                objects: count(&seen.objects, &folder),
                tested_at: newest_record(&seen.objects, |key| key.starts_with(&folder)).and_then(stamp),
            }
        });
        let named = health.backup.as_ref().map(NewestBackup::named);
        health.facts.push(backup(look, "base backup", named.as_deref().zip(newest.map(|newest| newest.stopped))));
        let way = newest.map(|newest| self.way(newest));
        self.wal(health, way);
        let loss = self.loss(health);
        health.facts.push(loss);
        health.facts.push(match &seen.engine {
            Some(engine) if seen.damaged.is_empty() => self.reported(engine),
            _ => manifests(look, seen, "base/"),
        });
        health.facts.push(self.archive());
        let stamps = self.backups.iter().flat_map(|backup| [backup.started, backup.stopped]);
        health.facts.push(clock(look, stamps.chain(self.coverage.iter().filter_map(|run| run.to_time))));
        self.retention(health);
    }

    /// From the newest backup to the end of the archive.
    fn way(&self, newest: &BaseBackup) -> Result<Plan, Failure> {
        let window = Window { looked: self.look.now, systems: vec![self.seen.window.clone()], incident: None };
        let wanted = Wanted { backup: Some(newest.label.clone()), ..Wanted::new(RecoveryTarget::Latest, true) };
        plan(&window, self.seen.window.system(), &wanted).map_err(Failure::from)
    }

    fn wal(&self, health: &mut SystemHealth, way: Option<Result<Plan, Failure>>) {
        let fact = match way {
            None => unknown(Subject::Wal, "there is no backup that it could be replayed onto"),
            Some(Err(failure)) => {
                failed(Subject::Wal, failure.to_string(), failure.now.unwrap_or_else(|| BACK_UP.to_owned()))
            }
            Some(Ok(plan)) => {
                let end = plan.restore.end;
                let run = self.coverage.iter().find(|run| run.timeline == plan.restore.timeline && run.to == end);
                let archived_at = run.and_then(|run| run.to_time);
                let count = plan.restore.segments.len();
                let says = format!("{} without a gap from {} to {end}", several(count, "segment"), plan.restore.label);
                health.recoverable_to = archived_at;
                health.wal = Some(WalHealth {
                    segments: count as u64,
                    last_segment: plan.restore.segments.last().cloned(),
                    end,
                    archived_at,
                    lag_seconds: archived_at.map(|at| seconds(self.look.now - at)),
                    lag_bytes: None,
                    gaps: self.gaps.len() as u64,
                });
                ok(Subject::Wal, says)
            }
        };
        health.facts.push(fact);
    }

    /// What would be lost if the server were lost now.
    fn loss(&self, health: &mut SystemHealth) -> Fact {
        let (Some(wal), Some(archived)) = (&mut health.wal, health.recoverable_to) else {
            return failed(Subject::Loss, "what is archived leads nowhere: everything would be lost", BACK_UP);
        };
        let lag = self.look.now - archived;
        let (span, beside) = match &self.look.source {
            Source::NotAsked => (lag, "the server was not asked how far it is".to_owned()),
            Source::Silent(why) => (lag, format!("how far the server is, is unknown: {why}")),
            // The archive's last segment may be counted before the server's position is.
            Source::End(source) if source.lsn.0 + self.size < wal.end.0 => {
                (lag, format!("the server's WAL ends at {}, before the archive's: it is another server", source.lsn))
            }
            Source::End(source) => {
                let bytes = source.lsn.0.saturating_sub(wal.end.0);
                wal.lag_bytes = Some(bytes);
                let idle = bytes == 0 || source.last_commit.is_some_and(|commit| commit <= archived);
                let span = if idle { TimeDelta::zero() } else { lag };
                (span, format!("the server is {} ahead of the archive", size_of(bytes)))
            }
        };
        health.loss_seconds = Some(seconds(span));
        let since = format!("the newest segment was archived {} ago; {beside}", age(lag));
        against_rpo(self.look, span, since, ARCHIVER)
    }

    fn archive(&self) -> Fact {
        let foreign: Vec<&String> =
            self.warnings.iter().filter(|warning| !self.seen.damaged.contains(warning)).collect();
        match foreign.as_slice() {
            [] => ok(Subject::Archive, "nothing lies in it that is not of it"),
            [first, rest @ ..] => {
                let more = if rest.is_empty() { String::new() } else { format!(", and {} more", rest.len()) };
                failed(
                    Subject::Archive,
                    format!("{first}{more}"),
                    "`lifeboat points` lists all of it; find out who writes there",
                )
            }
        }
    }

    /// What another program says of its own backups: their files were not looked at.
    fn reported(&self, engine: &Engine) -> Fact {
        let word = engine.word();
        let reports = format!("{word} reports {}", several(self.backups.len(), "backup"));
        match &self.look.checked {
            None => unknown(Subject::Manifests, format!("{reports}; their files were not looked at")),
            Some(Ok(())) => ok(Subject::Manifests, format!("{reports}, and its own check found nothing wrong")),
            // A server that is down fails it too.
            Some(Err(error)) if !matches!(self.look.source, Source::End(_)) => {
                unknown(Subject::Manifests, format!("{reports}; its own check needs the server: {}", error.why))
            }
            Some(Err(error)) => failed(
                Subject::Manifests,
                format!("{reports}, and its own check fails: {}", error.why),
                format!("run {word} check by hand, as the user that owns its repository"),
            ),
        }
    }

    fn retention(&self, health: &mut SystemHealth) {
        let Self { look, seen, .. } = self;
        let archived = Archived { backups: self.backups, coverage: self.coverage, forks: self.forks, size: self.size };
        health.retention.from = archived.good().first().map(|backup| backup.stopped);
        if let Some(engine) = &seen.engine {
            let says = format!("{} expires them by its own rules, which were not looked at", engine.word());
            return health.facts.push(unknown(Subject::Retention, says));
        }
        let Some(retain) = look.limits.retain else { return health.facts.push(no_limit()) };
        let spare = archived.spare(&seen.segments, retain, look.now);
        let sizes = spare.segments.iter().filter_map(|at| seen.segments.get(*at)).map(|listed| listed.bytes);
        health.retention.spare =
            sizes.chain(sizes_of(&seen.objects, "base/", &spare)).fold(Stored::default(), Stored::and);
        let limit = cutoff(retain, look.now);
        let fact = match archived.first_hole(limit) {
            Some((before, next, at)) => missed(
                Subject::Retention,
                format!(
                    "between {before} and {next} the WAL breaks off at {at}: what follows there cannot be recovered"
                ),
                "that stretch is lost unless another copy of the WAL is found; find out what deleted it or did not archive it",
            ),
            None => kept(look, retain, &health.retention, &spare),
        };
        health.facts.push(fact);
    }
}

struct Redis<'a> {
    look: &'a Look<'a>,
    seen: &'a Seen,
    snapshots: &'a [RedisSnapshot],
    aof: &'a [AofRange],
}

impl Redis<'_> {
    fn judge(&self, health: &mut SystemHealth) {
        let Self { look, seen, .. } = self;
        let newest = self.snapshots.iter().max_by_key(|snapshot| snapshot.at);
        health.backup = newest.map(|newest| {
            let folder = format!("snapshots/{}/", newest.label);
            NewestBackup {
                label: newest.label.clone(),
                builds_on: Vec::new(),
                ended: newest.at,
                age_seconds: seconds(look.now - newest.at),
                bytes: newest.bytes,
                stored_bytes: newest.stored_bytes,
                objects: count(&seen.objects, &folder),
                tested_at: newest_record(&seen.objects, |key| key.starts_with(&folder)).and_then(stamp),
            }
        });
        health.facts.push(backup(look, "snapshot", newest.map(|newest| (newest.label.as_str(), newest.at))));
        let range = self.aof.iter().max_by_key(|range| range.end());
        health.aof = range.map(|range| AofHealth {
            label: range.label.clone(),
            to: range.end(),
            age_seconds: seconds(look.now - range.end()),
        });
        health.facts.push(match range {
            Some(range) => {
                let (commands, ago) = (range.commands, age(look.now - range.end()));
                ok(
                    Subject::Aof,
                    format!("{} goes up to {ago} ago, with {commands} commands behind its base", range.label),
                )
            }
            None => ok(Subject::Aof, "none was shipped: only the moments of snapshots can be recovered"),
        });
        health.recoverable_to = newest.map(|newest| newest.at).into_iter().chain(range.map(AofRange::end)).max();
        let span = health.recoverable_to.map(|to| look.now - to);
        health.loss_seconds = span.map(seconds);
        health.facts.push(match span {
            Some(span) => {
                against_rpo(look, span, "that is how old the newest moment is that is saved".to_owned(), SHIPPER)
            }
            None => failed(Subject::Loss, "nothing is saved: everything would be lost", BACK_UP),
        });
        health.facts.push(manifests(look, seen, ""));
        let stamps = self.snapshots.iter().map(|snapshot| snapshot.at).chain(self.aof.iter().map(AofRange::end));
        health.facts.push(clock(look, stamps));
        let oldest = self.snapshots.iter().map(|snapshot| snapshot.at).chain(self.aof.iter().map(|range| range.from));
        health.retention.from = oldest.min();
        health.facts.push(match look.limits.retain {
            None => no_limit(),
            Some(retain) => {
                let spare = spare_of_redis(self.snapshots, self.aof, retain, look.now);
                let sizes = sizes_of(&seen.objects, "snapshots/", &spare);
                health.retention.spare = sizes.into_iter().fold(Stored::default(), Stored::and);
                kept(look, retain, &health.retention, &spare)
            }
        });
    }
}

const BACK_UP: &str = "run `lifeboat run backup-now`, then find out why no backup was taken";
const ARCHIVER: &str = "look at the server's log: archive_command fails or lags, and its disk fills meanwhile";
const SHIPPER: &str =
    "run `lifeboat run backup-now`; for less loss run `ship-aof` every minute, or snapshots more often";

fn backup(look: &Look<'_>, noun: &str, newest: Option<(&str, DateTime<Utc>)>) -> Fact {
    let Some((label, ended)) = newest else {
        return failed(Subject::Backup, format!("there is no {noun}: nothing can be restored"), BACK_UP);
    };
    let old = look.now - ended;
    let says = format!("{label} ended {} ago; the limit is {}", age(old), span(look.limits.max_age));
    match old.to_std().is_ok_and(|old| old > look.limits.max_age) {
        true => missed(Subject::Backup, says, BACK_UP),
        false => ok(Subject::Backup, says),
    }
}

pub(super) fn against_rpo(look: &Look<'_>, lost: TimeDelta, because: String, now: &str) -> Fact {
    let about = format!("{} would be lost now", age(lost));
    match look.limits.rpo {
        None => unknown(Subject::Loss, format!("{about}, and the inventory sets no RPO; {because}")),
        Some(rpo) if lost.to_std().is_ok_and(|lost| lost > rpo) => {
            missed(Subject::Loss, format!("{about}, the RPO is {}; {because}", span(rpo)), now)
        }
        Some(rpo) => ok(Subject::Loss, format!("{about}, the RPO is {}; {because}", span(rpo))),
    }
}

fn manifests(look: &Look<'_>, seen: &Seen, folder: &str) -> Fact {
    match seen.damaged.as_slice() {
        [] => {
            let manifest = |object: &&Object| {
                object.key.starts_with(folder)
                    && (object.key.ends_with("/manifest.json") || object.key.starts_with("aof/"))
                    && object.key.ends_with(".json")
            };
            let count = seen.objects.iter().filter(manifest).count();
            let says = format!(
                "{}, each with digests; every object that they name is there, in its size",
                several(count, "manifest")
            );
            match &look.unread {
                None => ok(Subject::Manifests, says),
                Some(why @ Unreadable::NoIdentity { .. }) => {
                    unknown(Subject::Manifests, format!("{says}; what they hold was not looked at: {why}"))
                }
                Some(why) => failed(Subject::Manifests, format!("what the newest backup holds: {why}"), why.now()),
            }
        }
        [first, rest @ ..] => {
            let more = if rest.is_empty() { String::new() } else { format!(", and {} more", rest.len()) };
            failed(
                Subject::Manifests,
                format!("{first}{more}"),
                "that backup is of no use: take another one, and find out who deleted or changed the object",
            )
        }
    }
}

fn proven(look: &Look<'_>) -> Fact {
    match &look.tested {
        Proven::Never => {
            unknown(Subject::Proof, "nothing was restored to see whether it can be: `lifeboat check --proof` does")
        }
        Proven::Unreadable(why) => unknown(Subject::Proof, format!("what a proof left cannot be used: {why}")),
        Proven::Told { tested, newest } => {
            let ago = age(look.now - tested.at);
            let says = format!("{} was tested {ago} ago: {}", tested.label, tested.says);
            match (tested.passed, newest) {
                (false, _) => failed(
                    Subject::Proof,
                    says,
                    "restore it by hand to see what is wrong; until then rely on an older backup, and take a new one",
                ),
                (true, true) => ok(Subject::Proof, says),
                (true, false) => unknown(Subject::Proof, format!("the newest was not restored yet; {says}")),
            }
        }
    }
}

/// By a clock that is wrong no age can be told.
fn clock(look: &Look<'_>, stamps: impl Iterator<Item = DateTime<Utc>>) -> Fact {
    let ahead = stamps.max().map_or(TimeDelta::zero(), |newest| newest - look.now);
    match ahead > SKEW {
        true => failed(
            Subject::Clock,
            format!("what is stored is of {} in the future: by this machine's clock no age can be told", age(ahead)),
            "compare this machine's clock with the server's and the store's, and set the one that is wrong",
        ),
        false => ok(Subject::Clock, "nothing that is stored lies in the future"),
    }
}

fn no_limit() -> Fact {
    unknown(
        Subject::Retention,
        "the store has no `retain` in the inventory: how long backups are to be kept is not said",
    )
}

/// Both ways: back as far as the limit, and nothing that is older.
fn kept(look: &Look<'_>, retain: Duration, found: &RetentionHealth, spare: &Spare) -> Fact {
    let Some(from) = found.from else {
        return unknown(Subject::Retention, "there is nothing that could be kept");
    };
    let limit = span(retain);
    let waits = spare.since.filter(|_| !spare.is_empty()).map(|since| look.now - since);
    if let Some(waits) = waits.filter(|waits| waits.to_std().is_ok_and(|waits| waits > retain.min(PRUNED_WITHIN))) {
        let Stored { objects, bytes } = found.spare;
        let says = format!(
            "{} ({}) are older than the last chain that {limit} ask for, for {} by now",
            several(objects as usize, "object"),
            size_of(bytes),
            age(waits)
        );
        return missed(Subject::Retention, says, "run `lifeboat run prune`, and see that its schedule runs");
    }
    let back = look.now - from;
    if from <= cutoff(retain, look.now) {
        return ok(Subject::Retention, format!("it goes back {}; the limit is {limit}", age(back)));
    }
    match look.began {
        None => unknown(
            Subject::Retention,
            format!("it goes back {}, less than the limit of {limit}; whether there was more is unknown", age(back)),
        ),
        Some(began) if began <= cutoff(retain, look.now) => missed(
            Subject::Retention,
            format!(
                "it goes back {}, the archive was begun {} ago, and the limit is {limit}",
                age(back),
                age(look.now - began)
            ),
            "find out what deleted the older backups: a lifecycle rule of the bucket, or a person",
        ),
        Some(began) => ok(
            Subject::Retention,
            format!(
                "it goes back {} of the {} since the archive was begun; the limit is {limit}",
                age(back),
                age(look.now - began)
            ),
        ),
    }
}

/// Objects of the backups and append-only files that may go.
fn sizes_of(objects: &[Object], folder: &str, spare: &Spare) -> Vec<u64> {
    let going = |object: &&Object| {
        let label = object.key.strip_prefix(folder).and_then(|rest| rest.split('/').next());
        let aof = object.key.strip_prefix("aof/");
        label.is_some_and(|label| spare.backups.iter().any(|spare| spare == label))
            || aof.is_some_and(|file| spare.aof.iter().any(|label| lineage(label) == lineage(file)))
    };
    objects.iter().filter(going).map(|object| object.size).collect()
}

/// What stands before the last `/`.
fn lineage(label: &str) -> &str {
    label.split('/').next().unwrap_or_default()
}

fn count(objects: &[Object], folder: &str) -> u64 {
    objects.iter().filter(|object| object.key.starts_with(folder)).count() as u64
}

pub(super) fn ok(subject: Subject, says: impl Into<String>) -> Fact {
    Fact { subject, judgement: Judgement::Ok, says: says.into(), now: None }
}

pub(super) fn unknown(subject: Subject, says: impl Into<String>) -> Fact {
    Fact { subject, judgement: Judgement::Unknown, says: says.into(), now: None }
}

pub(super) fn missed(subject: Subject, says: impl Into<String>, now: impl Into<String>) -> Fact {
    Fact { subject, judgement: Judgement::Missed, says: says.into(), now: Some(now.into()) }
}

pub(super) fn failed(subject: Subject, says: impl Into<String>, now: impl Into<String>) -> Fact {
    Fact { subject, judgement: Judgement::Failed, says: says.into(), now: Some(now.into()) }
}

pub(super) fn seconds(span: TimeDelta) -> f64 {
    span.as_seconds_f64()
}

/// Whole seconds, never less than none.
fn age(span: TimeDelta) -> String {
    self::span(Duration::from_secs(span.num_seconds().max(0).unsigned_abs()))
}

fn span(span: Duration) -> String {
    humantime::format_duration(span).to_string()
}

fn several(count: usize, noun: &str) -> String {
    if count == 1 { format!("1 {noun}") } else { format!("{count} {noun}s") }
}

fn size_of(bytes: u64) -> String {
    match bytes {
        0..1_000_000 => format!("{bytes} bytes"),
        1_000_000..1_000_000_000 => format!("{:.1} MB", bytes as f64 / 1e6),
        _ => format!("{:.1} GB", bytes as f64 / 1e9),
    }
}
