//! What is in the buckets.

use chrono::{DateTime, Utc};

use crate::clock;
use crate::event::{Failure, SystemWindow, Window};
use crate::inventory::{Inventory, System, SystemDetail};
use crate::store::Bucket;
use crate::system::postgres::wal::Location;
use crate::system::{postgres, redis};

/// Where a system's backups are.
pub fn bucket_of(inventory: &Inventory, system: &System) -> Result<Location, Failure> {
    let store = inventory.stores.get(&system.backups.store).ok_or_else(|| {
        Failure::new(
            format!("the backups of {} cannot be looked at", system.name),
            format!("its store {} is not in the inventory", system.backups.store),
        )
    })?;
    Ok(Location { url: store.url.clone(), prefix: system.backups.prefix.clone() })
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
        let failed = |why: &dyn std::fmt::Display| {
            Failure::new(format!("the backups of {name} cannot be looked at"), why)
                .now("check the store of the system in the inventory, and whether the bucket is there")
        };
        let bucket = bucket_of(inventory, system)?.open().map_err(|error| failed(&error))?;
        windows.push(match &system.detail {
            SystemDetail::Postgres(_) => postgres_window(name, &bucket).await.map_err(|error| failed(&error))?,
            SystemDetail::Redis(_) => {
                let (snapshots, mut warnings) = redis::list(&bucket).await.map_err(|error| failed(&error))?;
                let (aof, more) = redis::ranges(&bucket).await.map_err(|error| failed(&error))?;
                warnings.extend(more);
                SystemWindow::Redis { system: name.clone(), snapshots, aof, warnings }
            }
        });
    }
    Ok(Window { looked, systems: windows, incident })
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
