//! A look at the buckets that reads the WAL too, and the exact place of a target in it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use chrono::{DateTime, Utc};
use tokio::runtime::Handle;
use tokio::task::spawn_blocking;

use super::archive::{Archive, Read};
use super::collect::{Seen, see};
use super::exact::Exact;
use super::lineage::is_heir;
use super::plan::{Wanted, plan};
use super::refusal::Refusal;
use super::settle::{settle, settle_redis};
use crate::clock;
use crate::event::{Basis, Failure, Lsn, RecoveryPoint, RecoveryTarget, SystemWindow, Window};
use crate::inventory::Inventory;
use crate::system::postgres::engine::Reader;
use crate::system::postgres::wal::{Indexes, Supply};

/// A window whose WAL was read, and the WAL itself to find places in.
pub struct Looked {
    pub window: Window,
    told: BTreeMap<String, Told>,
}

/// One system's WAL.
struct Told {
    archive: Arc<Archive>,
    /// What was read so far, that of the history first.
    exact: Mutex<Vec<Arc<Exact>>>,
}

/// As [`super::collect`], and reads the WAL. WAL that cannot be read is a warning: recovery points are then PostgreSQL's own.
pub async fn look(
    inventory: &Inventory,
    systems: &[String],
    incident: Option<DateTime<Utc>>,
) -> Result<Looked, Failure> {
    let looked = clock::wall_now();
    let (mut windows, mut told) = (Vec::with_capacity(systems.len()), BTreeMap::new());
    for name in systems {
        let mut seen = see(inventory, name).await?;
        if let Some(archive) = archive(&mut seen, incident).await {
            let archive = Arc::new(archive);
            let exact = read_history(&archive, &mut seen.window).await;
            told.insert(name.clone(), Told { archive, exact: Mutex::new(exact.into_iter().collect()) });
        }
        windows.push(seen.window);
    }
    Ok(Looked { window: Window { looked, systems: windows, incident }, told })
}

/// `None` for what has no WAL.
async fn archive(seen: &mut Seen, incident: Option<DateTime<Utc>>) -> Option<Archive> {
    let withheld = seen.withheld();
    let SystemWindow::Postgres { backups, coverage, forks, segment_bytes, system_identifier, warnings, .. } =
        &mut seen.window
    else {
        return None;
    };
    let supply = match seen.engine.clone() {
        None => Supply::Bucket(seen.bucket.clone()),
        Some(engine) => match Reader::new(engine).await {
            Ok(reader) => Supply::Engine(Arc::new(reader)),
            Err(failure) => {
                warnings.push(format!("the WAL was not looked at: {failure}"));
                return None;
            }
        },
    };
    let own = |id: u64| system_identifier.as_ref().is_none_or(|own| *own == id.to_string());
    Some(Archive {
        backups: backups.iter().filter(|backup| own(backup.system_identifier)).cloned().collect(),
        coverage: coverage.clone(),
        forks: forks.clone(),
        segments: std::mem::take(&mut seen.segments),
        indexes: Indexes::list(&seen.bucket).await,
        bucket: seen.bucket.clone(),
        supply,
        withheld,
        segment_bytes: (*segment_bytes).max(1 << 20),
        system_identifier: system_identifier.as_ref().and_then(|id| id.parse().ok()),
        incident,
    })
}

/// Puts what the WAL says into the window.
async fn read_history(archive: &Arc<Archive>, window: &mut SystemWindow) -> Option<Arc<Exact>> {
    let SystemWindow::Postgres { history, restore_points, forks, coverage, warnings, .. } = window else { return None };
    let (own, runtime) = (Arc::clone(archive), Handle::current());
    let read = spawn_blocking(move || own.stretch().map_or(Ok(None), |way| own.read(&way, &runtime))).await;
    let read: Read = match read.unwrap_or_else(|error| Err(broke_off(&error))) {
        Ok(read) => read?,
        Err(failure) => {
            warnings.push(format!("transactions are not listed: {failure}"));
            return None;
        }
    };
    // What was only listed or said was now read.
    for fork in forks.iter_mut().filter(|fork| read.switches.iter().any(|(timeline, _)| *timeline == fork.timeline)) {
        fork.basis = Basis::Observed;
    }
    let size = archive.segment_bytes;
    let (from, to) = (read.history.from.0 / size * size, read.history.to.0.next_multiple_of(size));
    let along = |timeline| is_heir(&archive.forks, &archive.coverage, timeline, read.history.timeline, Lsn(0), size);
    for run in coverage.iter_mut().filter(|run| along(run.timeline).is_some() && run.from.0 >= from && run.to.0 <= to) {
        run.basis = Basis::Observed;
    }
    *history = Some(Box::new(read.history));
    *restore_points = read.restore_points;
    Some(Arc::new(read.exact))
}

fn broke_off(error: &dyn std::fmt::Display) -> Failure {
    Failure::new("looking into the WAL broke off", error)
}

/// Where a transaction or a named point stands, only the WAL says. That of an older backup may hold one which the history
/// does not: it lies before the history, or in front of a hole.
async fn older(
    told: &Told,
    exact: &Arc<Exact>,
    target: &RecoveryTarget,
    inclusive: bool,
) -> Result<Option<Arc<Exact>>, Failure> {
    let (archive, exact, target, runtime) =
        (Arc::clone(&told.archive), Arc::clone(exact), target.clone(), Handle::current());
    let search = move || -> Result<Option<Exact>, Failure> {
        let ways = archive.stretches_before(exact.from());
        if ways.is_empty() || exact.holds(&target, inclusive)? {
            return Ok(None);
        }
        for way in ways {
            let Some(read) = archive.read(&way, &runtime)? else { continue };
            if read.exact.holds(&target, inclusive)? {
                return Ok(Some(read.exact));
            }
        }
        Ok(None)
    };
    let found = spawn_blocking(search).await.map_err(|error| broke_off(&error))??;
    Ok(found.map(Arc::new))
}

impl Looked {
    /// As [`settle`], with the exact place in the WAL of each PostgreSQL system that was read.
    pub async fn settle(&self, target: &RecoveryTarget, inclusive: bool) -> Result<RecoveryPoint, Failure> {
        self.one_of_its_name(target)?;
        let mut point = settle(&self.window, target, inclusive)?;
        for (system, told) in &self.told {
            let before = self.consistent(system, point.backups.get(system));
            // Without it, PostgreSQL's own rules hold.
            let Some(mut exact) = self.exact(system, told, &point, before).await? else { continue };
            if matches!(target, RecoveryTarget::Xid { .. } | RecoveryTarget::RestorePoint { .. }) {
                exact = older(told, &exact, target, inclusive).await?.unwrap_or(exact);
            }
            let resolve = |consistent: Lsn| {
                let (exact, system, target) = (Arc::clone(&exact), system.clone(), target.clone());
                spawn_blocking(move || exact.resolve(&system, &target, inclusive, consistent))
            };
            let resolved = resolve(before).await.map_err(|error| broke_off(&error))??;
            if self.is_heir(system, point.timeline, &exact, resolved.lsn) == Some(false) {
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
            let after = self.consistent(system, point.backups.get(system));
            if after != before {
                let resolved = resolve(after).await.map_err(|error| broke_off(&error))??;
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

    /// PostgreSQL stops at the first restore point of a name that it meets.
    fn one_of_its_name(&self, target: &RecoveryTarget) -> Result<(), Refusal> {
        let RecoveryTarget::RestorePoint { name } = target else { return Ok(()) };
        for found in &self.window.systems {
            let SystemWindow::Postgres { system, restore_points, .. } = found else { continue };
            let places: Vec<Lsn> =
                restore_points.iter().filter(|point| point.name == *name).map(|point| point.lsn).collect();
            if places.len() > 1 {
                return Err(Refusal::SameName { system: system.clone(), name: name.clone(), places });
            }
        }
        Ok(())
    }

    /// The WAL that a point lies in: that of the history, or else, where it is not too much, that of its own backup and
    /// timeline.
    async fn exact(
        &self,
        system: &str,
        told: &Told,
        point: &RecoveryPoint,
        consistent: Lsn,
    ) -> Result<Option<Arc<Exact>>, Failure> {
        let holds = |exact: &&Arc<Exact>| {
            consistent >= exact.from() && self.is_heir(system, point.timeline, exact, Lsn(0)).is_some()
        };
        let known = |told: &Told| told.exact.lock().ok().and_then(|known| known.iter().find(holds).cloned());
        if let Some(exact) = known(told) {
            return Ok(Some(exact));
        }
        let Some(label) = point.backups.get(system).cloned() else { return Ok(None) };
        let (archive, timeline, runtime) = (Arc::clone(&told.archive), point.timeline, Handle::current());
        let read = spawn_blocking(move || {
            archive.stretch_of(&label, timeline).map_or(Ok(None), |way| archive.read(&way, &runtime))
        });
        let read = read.await.map_err(|error| broke_off(&error))??;
        let exact = read.map(|read| Arc::new(read.exact));
        if let (Some(exact), Ok(mut known)) = (&exact, told.exact.lock()) {
            known.push(Arc::clone(exact));
        }
        Ok(exact)
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
