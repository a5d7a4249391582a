//! Deletes what the limit of a store no longer asks for.
//!
//! What goes is worked out from a listing of now, and nothing goes while the newest chain is not known to be good. A
//! manifest goes before what it names, and the oldest WAL first: who looks while it goes on, or after it broke off, sees a
//! shorter history and never one with a hole.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use futures::{StreamExt as _, TryStreamExt as _, stream};

use super::collect::{Seen, see};
use super::plan::{Wanted, plan};
use super::retention::{Archived, Spare, cutoff, dependent, spare_of_redis};
use crate::event::{Failure, RecoveryTarget, SystemWindow, Window};
use crate::inventory::Inventory;
use crate::store::{Object, StoreError};
use crate::system::postgres::wal::{INDEXES, Segment, WalFile};

/// Requests that are under way at once.
const AT_ONCE: usize = 16;
/// By so much the clock of this machine may differ from the store's.
const SKEW: TimeDelta = TimeDelta::minutes(5);

/// What may go of one system, and what stays.
pub struct Pruning {
    pub system: String,
    pub retain: Duration,
    pub spare: Spare,
    /// Keys, in the order in which they go.
    going: Vec<String>,
    /// Bytes of what goes.
    pub bytes: u64,
    /// Keys that must be there afterwards.
    staying: BTreeSet<String>,
    seen: Seen,
}

/// What was done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pruned {
    pub objects: usize,
    pub bytes: u64,
}

impl Pruning {
    pub fn objects(&self) -> usize {
        self.going.len()
    }

    /// In a sentence.
    pub fn says(&self) -> String {
        if let Some(engine) = &self.seen.engine {
            return format!("{}: {} expires its backups and WAL by its own rules", self.system, engine.word());
        }
        let limit = humantime::format_duration(self.retain);
        if self.going.is_empty() {
            return format!("{}: nothing is older than the limit of {limit} and what leads over it", self.system);
        }
        let named = |noun: &str, labels: &[String]| match labels {
            [] => String::new(),
            labels => format!("{noun} {}; ", labels.join(", ")),
        };
        format!(
            "{}: {}{}{} segments of WAL: {} objects, {} bytes. {} stays, the last chain from before the limit of {limit}",
            self.system,
            named("backups", &self.spare.backups),
            named("append-only files", &self.spare.aof),
            self.spare.segments.len(),
            self.going.len(),
            self.bytes,
            self.spare.anchor.as_deref().unwrap_or("what is newer"),
        )
    }
}

/// Works out what may go, and deletes nothing.
pub async fn prunable(inventory: &Inventory, name: &str, now: DateTime<Utc>) -> Result<Pruning, Failure> {
    let refused = |why: String| Failure::new(format!("the backups of {name} are not pruned"), why);
    let retain = inventory.systems.get(name).and_then(|system| inventory.stores.get(&system.backups.store)?.retain);
    let retain = retain.ok_or_else(|| {
        refused("its store has no limit".to_owned())
            .now("Say in the inventory how long backups are kept: retain = \"30d\".")
    })?;
    let seen = see(inventory, name).await?;
    if seen.engine.is_some() || matches!(seen.window, SystemWindow::Managed { .. }) {
        // It would lose track of what it has.
        let (spare, going, staying) = (Spare::default(), Vec::new(), BTreeSet::new());
        return Ok(Pruning { system: name.to_owned(), retain, spare, going, bytes: 0, staying, seen });
    }
    let limit = cutoff(retain, now);
    let mut objects: Vec<&Object> = seen.objects.iter().collect();
    let (spare, wal) = match &seen.window {
        SystemWindow::Postgres { backups, coverage, forks, segment_bytes, .. } => {
            let size = (*segment_bytes).max(1 << 20);
            let spare = Archived { backups, coverage, forks, size }.spare(&seen.segments, retain, now);
            if !spare.is_empty() {
                is_good(&seen, now).map_err(|failure| {
                    refused(format!("the newest chain leads nowhere: {failure}"))
                        .now("Mend it first, or take a base backup.")
                })?;
            }
            let wal = wal(&seen, &spare, size, limit)
                .await
                .map_err(|error| Failure::from(error).fails(format!("the backups of {name} are not pruned")))?;
            (spare, wal)
        }
        SystemWindow::Redis { snapshots, aof, .. } => (spare_of_redis(snapshots, aof, retain, now), Vec::new()),
        SystemWindow::Managed { .. } => (Spare::default(), Vec::new()),
    };
    let folder = match &seen.window {
        SystemWindow::Postgres { .. } => "base",
        SystemWindow::Redis { .. } | SystemWindow::Managed { .. } => "snapshots",
    };
    let left = left_over(&seen, folder, &spare, limit);
    let lineages: BTreeSet<&str> = spare.aof.iter().filter_map(|label| label.split('/').next()).collect();
    objects.retain(|object| {
        let mut parts = object.key.split('/');
        match (parts.next(), parts.next()) {
            (Some("aof"), Some(lineage)) => lineages.contains(lineage),
            (Some(first), Some(label)) if first == folder => {
                left.contains(label) || spare.backups.iter().any(|spare| spare == label)
            }
            _ => false,
        }
    });
    // Without its manifest a backup does not exist; the newest shipment of an append-only file names all of it.
    objects.sort_by_key(|object| (!object.key.ends_with(".json"), Reverse(object.key.ends_with("/manifest.json"))));
    let mut bytes = objects.iter().map(|object| object.size).sum();
    let mut going: Vec<String> = objects.into_iter().map(|object| object.key.clone()).collect();
    for (key, size) in wal {
        bytes += size;
        going.push(key);
    }
    let gone: BTreeSet<&String> = going.iter().collect();
    let all = seen.objects.iter().map(|object| &object.key).chain(seen.segments.iter().map(|listed| &listed.key));
    let staying = all.filter(|key| !gone.contains(key)).cloned().collect();
    Ok(Pruning { system: name.to_owned(), retain, spare, going, bytes, staying, seen })
}

/// The WAL that goes, with what is kept of it to read it by: the oldest first.
async fn wal(seen: &Seen, spare: &Spare, size: u64, limit: DateTime<Utc>) -> Result<Vec<(String, u64)>, StoreError> {
    if spare.segments.is_empty() {
        return Ok(Vec::new());
    }
    let segments = spare.segments.iter().filter_map(|at| seen.segments.get(*at));
    let mut found: Vec<(Segment, String, u64)> =
        segments.map(|listed| (listed.segment, listed.key.clone(), listed.bytes)).collect();
    let passed: BTreeSet<Segment> = found.iter().map(|(segment, ..)| *segment).collect();
    let named = |object: &Object| {
        let name = object.key.rsplit('/').next()?.get(..24)?;
        Segment::parse(name, size)
    };
    // Timelines' histories stay: they are small, and say where WAL came from.
    for object in seen.objects.iter().filter(|object| object.key.starts_with("wal/")) {
        let file = object.key.rsplit('/').next().map(|name| name.trim_end_matches(".zst")).and_then(WalFile::parse);
        if let (Some(WalFile::Partial(_) | WalFile::BackupHistory(_)), Some(segment)) = (file, named(object))
            && spare.has_passed(segment, object.modified, limit)
        {
            found.push((segment, object.key.clone(), object.size));
        }
    }
    for object in seen.bucket.list(INDEXES).await? {
        if let Some(segment) = named(&object).filter(|segment| passed.contains(segment)) {
            found.push((segment, object.key, object.size));
        }
    }
    found.sort_by_key(|(segment, ..)| *segment);
    Ok(found.into_iter().map(|(_, key, bytes)| (key, bytes)).collect())
}

/// Labels of what was begun before the limit and never became a backup.
fn left_over(seen: &Seen, folder: &str, spare: &Spare, limit: DateTime<Utc>) -> BTreeSet<String> {
    let of = |object: &Object| Some(object.key.strip_prefix(folder)?.strip_prefix('/')?.split_once('/')?.0.to_owned());
    let mut labels: BTreeSet<String> = seen.objects.iter().filter_map(of).collect();
    for object in &seen.objects {
        if let Some(label) = of(object)
            && (object.modified > limit || object.key.ends_with("/manifest.json"))
        {
            labels.remove(&label);
        }
    }
    if spare.anchor.is_none() { BTreeSet::new() } else { labels }
}

/// From the newest backup to the end of the archive.
fn is_good(seen: &Seen, now: DateTime<Utc>) -> Result<(), Failure> {
    let SystemWindow::Postgres { backups, .. } = &seen.window else { return Ok(()) };
    let newest = backups.iter().max_by_key(|backup| backup.stopped).map(|backup| backup.label.clone());
    let window = Window { looked: now, systems: vec![seen.window.clone()], incident: None };
    let wanted = Wanted { backup: newest, ..Wanted::new(RecoveryTarget::Latest, true) };
    plan(&window, seen.window.system(), &wanted).map(|_| ()).map_err(Failure::from)
}

impl Pruning {
    /// Writes down what goes, compares the store's clock with ours, deletes, and looks again.
    pub async fn run(&self, now: DateTime<Utc>) -> Result<Pruned, Failure> {
        let done = Pruned { objects: self.going.len(), bytes: self.bytes };
        if self.going.is_empty() {
            return Ok(done);
        }
        let bucket = &self.seen.bucket;
        let failed = |error: StoreError| {
            Failure::from(error).fails(format!("the backups of {} were not pruned to the end", self.system))
        };
        let record = format!("pruned/{}.json", now.format("%Y%m%dT%H%M%S%3fZ"));
        let text = serde_json::json!({
            "format": 1, "at": now, "retain_seconds": self.retain.as_secs(), "stays": self.spare.anchor,
            "backups": self.spare.backups, "aof": self.spare.aof, "wal_segments": self.spare.segments.len(),
            "objects": self.going.len(), "bytes": self.bytes,
        });
        bucket.create(&record, text.to_string()).await.map_err(failed)?;
        let theirs = bucket.modified(&record).await.map_err(failed)?;
        if let Some(theirs) = theirs.filter(|theirs| (*theirs - now).abs() > SKEW) {
            return Err(Failure::new(
                format!("the backups of {} are not pruned", self.system),
                format!("this machine's clock says {now}, the store's {theirs}: by a wrong clock too much would go"),
            )
            .now("Set the clock that is wrong. Nothing was deleted."));
        }
        let (manifests, others): (Vec<&String>, Vec<&String>) =
            self.going.iter().partition(|key| key.ends_with(".json"));
        // What builds on another backup goes before it, one by one: what is left has no hole then either.
        let dependent: Vec<String> = match &self.seen.window {
            SystemWindow::Postgres { backups, .. } => dependent(backups, &self.spare.backups),
            SystemWindow::Redis { .. } | SystemWindow::Managed { .. } => Vec::new(),
        }
        .into_iter()
        .map(|label| format!("base/{label}/manifest.json"))
        .collect();
        let independent = manifests.into_iter().filter(|key| !dependent.contains(key)).collect();
        let one_by_one = dependent.iter().map(|key| vec![key]);
        for keys in one_by_one.chain([independent, others]) {
            // Side by side, but nothing of a list before all of the one before it is gone.
            let owned: Vec<String> = keys.into_iter().cloned().collect();
            let deletes = stream::iter(owned).map(|key| {
                let bucket = bucket.clone();
                async move {
                    match bucket.delete(&key).await {
                        Err(error) if error.is_not_found() => Ok(()),
                        result => result,
                    }
                }
            });
            deletes.buffered(AT_ONCE).try_collect::<Vec<()>>().await.map_err(failed)?;
        }
        self.look_again(now).await?;
        Ok(done)
    }

    /// What stays is there, what went is not, and the newest chain still leads to the end.
    async fn look_again(&self, now: DateTime<Utc>) -> Result<(), Failure> {
        let bucket = &self.seen.bucket;
        let wrong = |why: String| {
            Failure::new(format!("the store of {} is not as it should be after pruning", self.system), why)
                .now("Look with `lifeboat check` and `lifeboat points`; the record under pruned/ says what was to go.")
        };
        let listed = bucket.list("").await.map_err(|error| wrong(Failure::from(error).to_string()))?;
        let there: BTreeSet<&String> = listed.iter().map(|object| &object.key).collect();
        if let Some(still) = self.going.iter().find(|key| there.contains(key)) {
            return Err(wrong(format!("{still} is still there")));
        }
        if let Some(lost) = self.staying.iter().find(|key| !there.contains(key)) {
            return Err(wrong(format!("{lost} is gone, and was to stay")));
        }
        is_good(&self.seen, now).map_err(|failure| wrong(failure.to_string()))
    }
}
