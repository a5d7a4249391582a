//! What is to be known, once: a look at the stores, and the journals.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use chrono::{DateTime, Utc};

use crate::clock;
use crate::event::{Failure, Verdict};
use crate::history::{self, Run};
use crate::inventory::Inventory;
use crate::recovery::health::{Health, health, stores};

/// Everything as it was at one moment.
pub struct Snapshot {
    pub health: Health,
    /// By runbook.
    pub jobs: BTreeMap<String, Job>,
    /// Journals that cannot be believed.
    pub damaged: usize,
    pub at: DateTime<Utc>,
    /// How long the look took.
    pub took: Duration,
}

/// The runs of one runbook that matter.
#[derive(Debug, Clone)]
pub struct Job {
    pub last: Run,
    /// The newest one that did what it was to do.
    pub last_success: Option<Run>,
    /// The newest one that had a clock, and stopped it.
    pub drill: Option<Run>,
}

/// What is looked at besides the stores' objects and the journals.
#[derive(Debug, Clone, Copy)]
pub struct Looking {
    /// Ask the servers how far they are.
    pub ask: bool,
    /// Ask the providers what they do for the stores.
    pub protection: bool,
}

/// Looks at all systems of the inventory and at all runs below `state`.
/// What cannot be looked at is a fact of the health; only a folder that cannot be listed is an error.
pub async fn collect(inventory: &Inventory, state: &Path, looking: Looking) -> Result<Snapshot, Failure> {
    let (at, began) = (clock::wall_now(), clock::boot_now());
    let systems: Vec<String> = inventory.systems.keys().cloned().collect();
    let (path, service) = (state.to_owned(), inventory.service.clone());
    let journals = tokio::task::spawn_blocking(move || jobs(&path, &service));
    let providers = async {
        match looking.protection {
            true => stores(inventory, &systems, at).await,
            false => Vec::new(),
        }
    };
    let (mut health, stores, jobs) =
        tokio::join!(health(inventory, &systems, at, None, looking.ask), providers, journals);
    health.stores = stores;
    let jobs = jobs.map_err(|error| error.to_string()).and_then(|read| read.map_err(|error| error.to_string()));
    let (jobs, damaged) = jobs.map_err(|why| {
        Failure::new(format!("the drills in {} cannot be listed", state.display()), why)
            .now("Check --state-dir and its permissions.")
    })?;
    Ok(Snapshot { health, jobs, damaged, at, took: clock::boot_now().saturating_sub(began) })
}

/// Runs of the service by runbook, and how many journals cannot be believed.
fn jobs(state: &Path, service: &str) -> std::io::Result<(BTreeMap<String, Job>, usize)> {
    let history = history::read(state)?;
    let mut jobs: BTreeMap<String, Job> = BTreeMap::new();
    // The newest first.
    for run in history.runs.into_iter().filter(|run| run.service == service) {
        let job = jobs.entry(run.runbook.clone()).or_insert_with(|| Job {
            last: run.clone(),
            last_success: None,
            drill: None,
        });
        if job.last_success.is_none() && is_success(&run) {
            job.last_success = Some(run.clone());
        }
        if job.drill.is_none() && is_drill(&run) {
            job.drill = Some(run);
        }
    }
    Ok((jobs, history.damaged.len()))
}

/// Everything that was to be done is done; an objective may have been missed.
pub fn is_success(run: &Run) -> bool {
    matches!(run.verdict, Some(Verdict::Passed | Verdict::ObjectiveMissed))
}

/// It recovered something: a backup has a clock too, but nothing that it gave up.
fn is_drill(run: &Run) -> bool {
    run.rto.recovered && run.rpo.iter().any(|rpo| rpo.seconds.is_some())
}
