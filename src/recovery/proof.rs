//! A backup is good when it was restored: the newest one of a system into a throwaway server, looked at, and removed.
//!
//! What was found is written beside the backup, so that every later check can tell when it was last restored, and which
//! tables had rows then. The server is what every restore makes: unprivileged, on loopback and a socket, archiving nothing.

use std::collections::BTreeMap;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use super::collect::{Seen, repository_of, see};
use super::plan::{Wanted, plan};
use crate::clock;
use crate::digest::Digest;
use crate::event::{BaseBackup, Check, Failure, Lsn, RecoveryTarget, SystemWindow, Window};
use crate::inventory::{Inventory, System, SystemDetail};
use crate::secret::Secret;
use crate::store::{Bucket, Object, StoreError};
use crate::system::postgres::restore::{self, Owner, Patience};
use crate::system::postgres::{Checks, Promote, Proof as Fenced, Reporter, Restore, tables};
use crate::system::redis;

/// The record's version.
const FORMAT: u32 = 1;

/// One table may take so long to be counted.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(3600);

/// What a proof left beside a backup: `tested-20261121T090231Z.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tested {
    pub format: u32,
    pub system: String,
    pub label: String,
    /// SHA-256 of the backup's manifest, of another program's of where it says that the backup begins and ends: of which
    /// backup this is true.
    pub manifest: Digest,
    pub at: DateTime<Utc>,
    /// From the first byte to the last check.
    pub seconds: f64,
    pub passed: bool,
    /// In a sentence.
    pub says: String,
    pub checks: Vec<Check>,
    /// PostgreSQL only: where recovery ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lsn: Option<Lsn>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recovered_to: Option<DateTime<Utc>>,
    /// By table, or the keys of all databases under `keys`.
    pub rows: BTreeMap<String, u64>,
}

impl Tested {
    /// What of it may be told to whoever reads the bucket: names of tables are content.
    pub(super) fn clear(&self) -> Self {
        let says = match self.passed {
            true => self.says.clone(),
            false => "what failed is told to those who have the identity, and to who made the proof".to_owned(),
        };
        Self { says, checks: Vec::new(), rows: BTreeMap::new(), ..self.clone() }
    }
}

/// A system to prove.
pub struct Prove<'a> {
    pub inventory: &'a Inventory,
    pub system: &'a System,
    /// This program, absolute, for `restore_command`.
    pub lifeboat: &'a Path,
    pub cancel: &'a CancellationToken,
}

/// What a restore showed.
struct Shown {
    says: String,
    checks: Vec<Check>,
    lsn: Option<Lsn>,
    recovered_to: Option<DateTime<Utc>>,
    rows: BTreeMap<String, u64>,
}

impl Prove<'_> {
    /// Restores, looks, removes, records. A backup that does not stand the proof is a record that says so; the error is
    /// what kept the proof from being made or written down.
    pub async fn run(&self) -> Result<Tested, Failure> {
        let name = &self.system.name;
        let began = clock::boot_now();
        let seen = see(self.inventory, name).await?;
        if let SystemWindow::Managed { source, .. } = &seen.window {
            let why = format!("its backups are those of {source}, and each restore of them is a new instance");
            return Err(Failure::new(format!("{name} cannot be proven"), why)
                .now("Rehearse it instead: lifeboat run restore-managed --mode drill."));
        }
        let (folder, label) = newest(&seen.window).ok_or_else(|| {
            Failure::new(format!("{name} cannot be proven"), "there is no whole backup to restore")
                .now("Take one with the runbook backup-now.")
        })?;
        let folder = format!("{folder}/{label}/");
        if seen.engine.is_none() {
            // Without a key nothing is proven, and nothing disproven.
            seen.bucket.read_vouched(&format!("{folder}manifest.json")).await?;
        }
        let manifest = identity(&seen, &folder).await?;
        let place = Throwaway::make(&self.system.restore.directory)?;
        let shown = match &self.system.detail {
            SystemDetail::Postgres(_) => self.postgres(&seen, &label, &place).await,
            SystemDetail::Redis(_) => self.redis(&seen, &label, &place).await,
        };
        self.remove(&place).await?;
        if self.cancel.is_cancelled() {
            return Err(Failure::new(
                format!("the proof of {name} was interrupted"),
                "what it had restored is removed",
            ));
        }
        let at = clock::wall_now();
        let mut tested = Tested {
            format: FORMAT,
            system: name.clone(),
            label,
            manifest,
            at,
            seconds: clock::boot_now().saturating_sub(began).as_secs_f64(),
            passed: false,
            says: String::new(),
            checks: Vec::new(),
            lsn: None,
            recovered_to: None,
            rows: BTreeMap::new(),
        };
        match shown {
            Ok(mut shown) => {
                if let Some(before) = before(&seen, &folder).await {
                    shown.checks.extend(emptied(&before, &shown.rows));
                }
                let broken: Vec<String> = shown
                    .checks
                    .iter()
                    .filter(|check| !check.passed)
                    .map(|check| format!("{}: {}", check.name, check.detail))
                    .collect();
                tested.passed = broken.is_empty();
                tested.says = if broken.is_empty() { shown.says } else { broken.join("; ") };
                (tested.checks, tested.rows) = (shown.checks, shown.rows);
                (tested.lsn, tested.recovered_to) = (shown.lsn, shown.recovered_to);
            }
            Err(failure) => tested.says = failure.to_string(),
        }
        let key = format!("{folder}tested-{}.json", at.format("%Y%m%dT%H%M%SZ"));
        let told = if seen.withheld().is_some() { tested.clear() } else { tested.clone() };
        let text = seen
            .bucket
            .seal_manifest(&key, &told, &tested.clear())
            .map_err(|error| Failure::new(format!("what was found of {name} cannot be written"), error))?;
        seen.bucket
            .settle(&key, text)
            .await
            .map_err(|error| Failure::from(error).fails(format!("{}; this could not be recorded", tested.says)))?;
        Ok(tested)
    }

    async fn postgres(&self, seen: &Seen, label: &str, place: &Throwaway) -> Result<Shown, Failure> {
        let system = self.system;
        let SystemDetail::Postgres(detail) = &system.detail else {
            return Err(Failure::new(format!("{} is no PostgreSQL", system.name), "its kind is another"));
        };
        let window = Window { looked: clock::wall_now(), systems: vec![seen.window.clone()], incident: None };
        let wanted = Wanted { backup: Some(label.to_owned()), ..Wanted::new(RecoveryTarget::Latest, true) };
        let plan = plan(&window, &system.name, &wanted)?;
        let segments = plan.restore.segments.len();
        let restore = Restore {
            from: repository_of(self.inventory, system)?,
            plan: plan.restore,
            directory: place.data(),
            port: 0,
            run_as: system.restore.run_as.clone(),
            bin: detail.bin.clone(),
            lifeboat: self.lifeboat.to_owned(),
            source: system.url.resolve()?,
            owner: Owner { drill: place.id.clone(), system: system.name.clone(), effect_key: "proof".to_owned() },
            patience: Patience::default(),
            cancel: self.cancel.clone(),
            report: Reporter::silent(),
        };
        let restored = restore.run().await?;
        let url = Secret::new(restored.url.clone());
        // amcheck needs a server that takes writes where the extension is not installed.
        let promote = Promote {
            directory: place.data(),
            url: url.clone(),
            drill: place.id.clone(),
            system: system.name.clone(),
            proof: Fenced::NotNeeded { why: "it is a throwaway: no client is led to it".to_owned() },
            report: Reporter::silent(),
        };
        promote.run().await?;
        let names = tables(&url).await?;
        let checks = Checks {
            url,
            tables: names.iter().map(|name| (name.clone(), 0)).collect(),
            suspects: None,
            checksums: true,
            amcheck: true,
            may_install: true,
            bin: detail.bin.clone(),
            timeout: PATIENCE,
            cancel: self.cancel.clone(),
            report: Reporter::silent(),
        };
        let found = checks.run().await?;
        let counted = |name: &String| Some((name.clone(), found.facts.get(&format!("rows_{name}"))?.as_u64()?));
        let rows: BTreeMap<String, u64> = names.iter().filter_map(counted).collect();
        let sum: u64 = rows.values().sum();
        Ok(Shown {
            says: format!(
                "restored to {} by {segments} segments of WAL: {} tables with {sum} rows were read, pages and indexes are sound",
                restored.lsn,
                rows.len()
            ),
            checks: found.checks,
            lsn: Some(restored.lsn),
            recovered_to: restored.recovered_to,
            rows,
        })
    }

    async fn redis(&self, seen: &Seen, label: &str, place: &Throwaway) -> Result<Shown, Failure> {
        let system = self.system;
        let SystemDetail::Redis(detail) = &system.detail else {
            return Err(Failure::new(format!("{} is no Redis", system.name), "its kind is another"));
        };
        let url = system.url.resolve()?;
        let directory = place.data();
        let restore = redis::Restore {
            drill: &place.id,
            system: &system.name,
            effect_key: "proof",
            bucket: &seen.bucket,
            from: redis::Origin::Snapshot(label),
            policy: &[],
            directory: &directory,
            port: 0,
            source_url: &url,
            server: detail.server.as_deref(),
            run_as: system.restore.run_as.as_deref(),
            cancel: self.cancel,
        };
        // It counts the keys against those that the snapshot's bytes hold, twice.
        let restored = restore.run(&|_| {}).await?;
        let found = redis::check(&restored.url, 0, &[]).await?;
        let expired = restored.expired;
        Ok(Shown {
            says: format!(
                "restored: {} keys, {expired} have expired since, as many as the snapshot's bytes hold",
                found.keys
            ),
            rows: BTreeMap::from([("keys".to_owned(), found.keys + expired)]),
            checks: found.checks,
            lsn: None,
            recovered_to: Some(restored.at),
        })
    }

    /// The server ends and the directory goes, whatever the proof came to.
    async fn remove(&self, place: &Throwaway) -> Result<(), Failure> {
        let (data, name) = (place.data(), &self.system.name);
        if data.exists() {
            match &self.system.detail {
                SystemDetail::Postgres(_) => drop(restore::undo(&data, &place.id, name).await?),
                SystemDetail::Redis(_) => redis::undo(&place.id, name, &data, &self.system.url.resolve()?).await?,
            }
        }
        std::fs::remove_dir_all(&place.path).map_err(|error| {
            Failure::new(format!("{} could not be removed", place.path.display()), error)
                .now("remove it by hand: nothing in it is needed")
        })
    }
}

/// A directory beside the one that restores go to: on the same disk, and never the same.
struct Throwaway {
    id: String,
    path: PathBuf,
}

impl Throwaway {
    fn make(beside: &Path) -> Result<Self, Failure> {
        let id = format!("proof-{}", uuid::Uuid::now_v7());
        let path = beside.with_file_name(format!(".lifeboat-{id}"));
        // The server's user must be able to pass, also through what is made above it.
        let fresh: Vec<&Path> = path.ancestors().take_while(|place| !place.exists()).collect();
        let made = std::fs::DirBuilder::new().recursive(true).mode(0o755).create(&path).and_then(|()| {
            use std::os::unix::fs::PermissionsExt as _;
            let mode = || std::fs::Permissions::from_mode(0o755);
            fresh.iter().try_for_each(|place| std::fs::set_permissions(place, mode()))
        });
        made.map_err(|error| {
            Failure::new(format!("{} cannot be made for the proof", path.display()), error)
                .now("let the user that runs this write beside `restore.directory` of the system")
        })?;
        Ok(Self { id, path })
    }

    fn data(&self) -> PathBuf {
        self.path.join("data")
    }
}

/// The folder and the label of the newest backup.
pub(super) fn newest(window: &SystemWindow) -> Option<(&'static str, String)> {
    match window {
        SystemWindow::Postgres { backups, .. } => {
            backups.iter().max_by_key(|backup| backup.stopped).map(|backup| ("base", backup.label.clone()))
        }
        SystemWindow::Redis { snapshots, .. } => {
            snapshots.iter().max_by_key(|snapshot| snapshot.at).map(|snapshot| ("snapshots", snapshot.label.clone()))
        }
        SystemWindow::Managed { .. } => None,
    }
}

/// By what the backup of a folder is told from another of its name.
pub(super) async fn identity(seen: &Seen, folder: &str) -> Result<Digest, StoreError> {
    let label = folder.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
    let known = match &seen.window {
        SystemWindow::Postgres { backups, .. } if seen.engine.is_some() => {
            backups.iter().find(|backup| backup.label == label)
        }
        _ => None,
    };
    Ok(match known {
        Some(BaseBackup { system_identifier, timeline, start_lsn, stop_lsn, .. }) => {
            Digest::of(format!("{label} {system_identifier} {timeline} {start_lsn} {stop_lsn}").as_bytes())
        }
        None => Digest::of(&seen.bucket.read(&format!("{folder}manifest.json")).await?),
    })
}

/// The moment in the name of a record.
pub(super) fn stamp(key: &str) -> Option<DateTime<Utc>> {
    let text = key.rsplit('/').next()?.strip_prefix("tested-")?.strip_suffix(".json")?;
    chrono::NaiveDateTime::parse_from_str(text, "%Y%m%dT%H%M%SZ").ok().map(|at| at.and_utc())
}

/// The newest record below a folder.
pub(super) fn newest_record(objects: &[Object], within: impl Fn(&str) -> bool) -> Option<&str> {
    let records = objects.iter().map(|object| object.key.as_str()).filter(|key| within(key));
    records.filter_map(|key| Some((stamp(key)?, key))).max().map(|(_, key)| key)
}

/// The record below this key, if it is one that this program can read.
pub(super) async fn read(bucket: &Bucket, key: &str) -> Result<Result<Tested, String>, StoreError> {
    let opened = match bucket.read_manifest(key).await {
        Ok(opened) => opened,
        Err(StoreError::Sealed { why, .. }) => return Ok(Err(format!("{key} cannot be read: {why}"))),
        Err(error) => return Err(error),
    };
    Ok(match serde_json::from_slice::<Tested>(&opened.json) {
        Ok(tested) if tested.format == FORMAT => Ok(tested),
        Ok(tested) => Err(format!("{key} is of format {}", tested.format)),
        Err(error) => Err(format!("{key} cannot be read: {error}")),
    })
}

/// What was found in the backup that was proven last before this one.
async fn before(seen: &Seen, folder: &str) -> Option<Tested> {
    let key = newest_record(&seen.objects, |key| !key.starts_with(folder))?;
    read(&seen.bucket, key).await.ok()?.ok()
}

/// Tables that had rows and have none any more, or are gone.
fn emptied(before: &Tested, rows: &BTreeMap<String, u64>) -> Vec<Check> {
    let lost = before.rows.iter().filter(|(name, count)| **count > 0 && rows.get(*name).is_none_or(|now| *now == 0));
    let says = |(name, count): (&String, &u64)| {
        let now = if rows.contains_key(name) { "has none now" } else { "is gone" };
        let detail = format!("it had {count} rows in {}, and {now}", before.label);
        Check { name: name.clone(), passed: false, detail }
    };
    lost.map(says).collect()
}
