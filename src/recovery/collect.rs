//! What is in the buckets.

use std::collections::BTreeMap;
use std::sync::Arc;

use chrono::{DateTime, Utc};

use super::exact::Exact;
use super::history::Reading;
use super::lineage::is_heir;
use super::plan::{Wanted, plan};
use super::refusal::Refusal;
use super::settle::{settle, settle_redis};
use crate::clock;
use crate::event::{Failure, Lsn, RecoveryPoint, RecoveryTarget, SystemWindow, Window};
use crate::inventory::{Inventory, SecretRef, System, SystemDetail};
use crate::store::{Bucket, Given, Keys};
use crate::system::postgres::wal::Location;
use crate::system::{postgres, redis};

/// Where a system's backups are, with the keys to them: a command that prints one is run.
pub fn bucket_of(inventory: &Inventory, system: &System) -> Result<Location, Failure> {
    let store = inventory.stores.get(&system.backups.store).ok_or_else(|| {
        Failure::new(
            format!("the backups of {} cannot be looked at", system.name),
            format!("its store {} is not in the inventory", system.backups.store),
        )
    })?;
    let keys = match &store.keys {
        None => Keys::Usual,
        Some(keys) => Keys::Given(Given {
            access_key: keys.access_key.resolve()?,
            secret_key: keys.secret_key.resolve()?,
            session_token: keys.session_token.as_ref().map(SecretRef::resolve).transpose()?,
        }),
    };
    Ok(Location { url: store.url.clone(), prefix: system.backups.prefix.clone(), keys })
}

/// Looks at the backups of these systems. One that cannot be looked at is a failure, not an empty window.
pub async fn collect(
    inventory: &Inventory,
    systems: &[String],
    incident: Option<DateTime<Utc>>,
) -> Result<Window, Failure> {
    let looked = clock::wall_now();
    let mut windows = Vec::with_capacity(systems.len());
    for name in systems {
        let system = inventory.systems.get(name).ok_or_else(|| {
            Failure::new(format!("{name} cannot be recovered"), "there is no such system in the inventory")
        })?;
        let failed = |failure| cannot_look(name, failure);
        let bucket = bucket_of(inventory, system)?.open().map_err(|error| failed(error.into()))?;
        windows.push(match &system.detail {
            SystemDetail::Postgres(_) => postgres_window(name, &bucket).await.map_err(|error| failed(error.into()))?,
            SystemDetail::Redis(_) => {
                let (snapshots, mut warnings) = redis::list(&bucket).await.map_err(|error| failed(error.into()))?;
                let (aof, more) = redis::ranges(&bucket).await.map_err(|error| failed(error.into()))?;
                warnings.extend(more);
                SystemWindow::Redis { system: name.clone(), snapshots, aof, warnings }
            }
        });
    }
    Ok(Window { looked, systems: windows, incident })
}

fn cannot_look(system: &str, failure: Failure) -> Failure {
    let failure = failure.fails(format!("the backups of {system} cannot be looked at"));
    match failure.now {
        Some(_) => failure,
        None => failure.now("check the store of the system in the inventory, and whether the bucket is there"),
    }
}

/// A window whose WAL was read, and the WAL itself to find places in.
pub struct Looked {
    pub window: Window,
    exact: BTreeMap<String, Arc<Exact>>,
}

/// As [`collect`], and reads the WAL. WAL that cannot be read is a warning: recovery points are then PostgreSQL's own.
pub async fn look(
    inventory: &Inventory,
    systems: &[String],
    incident: Option<DateTime<Utc>>,
) -> Result<Looked, Failure> {
    let mut window = collect(inventory, systems, incident).await?;
    let mut exact = BTreeMap::new();
    for found in &mut window.systems {
        let SystemWindow::Postgres {
            system,
            backups,
            coverage,
            forks,
            segment_bytes,
            system_identifier,
            history,
            restore_points,
            warnings,
            ..
        } = found
        else {
            continue;
        };
        let Some(source) = inventory.systems.get(system) else { continue };
        let bucket = bucket_of(inventory, source)?.open().map_err(|error| cannot_look(system, error.into()))?;
        let names = match backups.last() {
            Some(newest) => postgres::catalogue::manifest(&bucket, &newest.label).await.ok(),
            None => None,
        };
        let names = match names {
            Some(manifest) => postgres::Names::of_backup(&bucket, &manifest).await,
            None => postgres::Names::default(),
        };
        let reading = Reading {
            bucket: &bucket,
            backups,
            coverage,
            forks,
            segment: (*segment_bytes).max(1 << 20),
            system_identifier: system_identifier.as_ref().and_then(|id| id.parse().ok()),
            incident,
            names,
        };
        match reading.run().await {
            Ok(Some(read)) => {
                *history = Some(Box::new(read.history));
                *restore_points = read.restore_points;
                exact.insert(system.clone(), Arc::new(read.exact));
            }
            Ok(None) => {}
            Err(failure) => warnings.push(format!("transactions are not listed: {failure}")),
        }
    }
    Ok(Looked { window, exact })
}

impl Looked {
    /// As [`settle`], with the exact place in the WAL of each PostgreSQL system that was read.
    pub async fn settle(&self, target: &RecoveryTarget, inclusive: bool) -> Result<RecoveryPoint, Failure> {
        let mut point = settle(&self.window, target, inclusive)?;
        for (system, exact) in &self.exact {
            let consistent = |point: &RecoveryPoint| self.consistent(system, point.backups.get(system));
            let resolve = |consistent: Lsn| {
                let (exact, system, target) = (Arc::clone(exact), system.clone(), target.clone());
                tokio::task::spawn_blocking(move || exact.resolve(&system, &target, inclusive, consistent))
            };
            let broken = |error| Failure::new("looking for the place in the WAL broke off", error);
            let before = consistent(&point);
            if before < exact.from() || self.is_heir(system, point.timeline, exact, Lsn(0)).is_none() {
                // The WAL of an older backup, or of another branch, was not read: PostgreSQL's own rules hold.
                continue;
            }
            let resolved = resolve(before).await.map_err(broken)??;
            if self.is_heir(system, point.timeline, exact, resolved.lsn) == Some(false) {
                return Err(self.ambiguous(system, [point.timeline, exact.timeline()]).into());
            }
            point.resolved.insert(system.clone(), resolved);
            if *target == RecoveryTarget::Latest {
                continue;
            }
            // The place may ask for another backup than the hint did.
            let mut wanted = Wanted::of(&point, system);
            wanted.backup = None;
            wanted.timeline = Some(exact.timeline());
            let plan = plan(&self.window, system, &wanted)?;
            point.timeline = plan.restore.timeline;
            point.backups.insert(system.clone(), plan.restore.label);
            if consistent(&point) != before {
                let resolved = resolve(consistent(&point)).await.map_err(broken)??;
                point.resolved.insert(system.clone(), resolved);
            }
        }
        // Redis follows what was found, where the target itself says no time.
        let last = point.resolved.values().filter_map(|resolved| resolved.last_commit).max();
        if let (Some(last), false) = (last, matches!(target, RecoveryTarget::Time { .. } | RecoveryTarget::Latest)) {
            settle_redis(&self.window, Some(last), &mut point)?;
        }
        Ok(point)
    }

    fn consistent(&self, system: &str, label: Option<&String>) -> Lsn {
        let found = self.window.systems.iter().find_map(|found| match found {
            SystemWindow::Postgres { system: name, backups, .. } if name == system => {
                backups.iter().find(|backup| Some(&backup.label) == label).map(|backup| backup.stop_lsn)
            }
            _ => None,
        });
        found.unwrap_or_default()
    }

    /// The listing says which timeline leads to a target, the WAL where exactly. Whether both speak of one history; `None`
    /// when what was read does not contain that timeline.
    fn is_heir(&self, system: &str, timeline: u32, exact: &Exact, place: Lsn) -> Option<bool> {
        self.window.systems.iter().find_map(|found| match found {
            SystemWindow::Postgres { system: name, forks, coverage, segment_bytes, .. } if name == system => {
                let size = (*segment_bytes).max(1 << 20);
                is_heir(forks, coverage, timeline, exact.timeline(), place, size)
            }
            _ => None,
        })
    }

    fn ambiguous(&self, system: &str, timelines: [u32; 2]) -> Refusal {
        let end = |timeline: u32| {
            self.window.systems.iter().find_map(|found| match found {
                SystemWindow::Postgres { system: name, coverage, .. } if name == system => {
                    coverage.iter().filter(|run| run.timeline == timeline).map(|run| run.to).max()
                }
                _ => None,
            })
        };
        let timelines = timelines.map(|timeline| (timeline, end(timeline).unwrap_or_default())).to_vec();
        Refusal::Ambiguous { system: system.to_owned(), timelines }
    }
}

async fn postgres_window(name: &str, bucket: &Bucket) -> Result<SystemWindow, postgres::PgError> {
    let found = postgres::catalogue::list(bucket).await?;
    Ok(SystemWindow::Postgres {
        system: name.to_owned(),
        backups: found.backups,
        coverage: found.coverage,
        gaps: found.gaps,
        restore_points: found.restore_points,
        segment_bytes: found.segment_bytes,
        forks: found.forks,
        history: None,
        system_identifier: found.system_identifier.map(|id| id.to_string()),
        warnings: found.warnings,
    })
}
