//! What is to be known, once: a look at the stores, and the journals.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use chrono::{DateTime, Utc};

use crate::clock;
use crate::event::Failure;
use crate::history::{self, Run};
use crate::inventory::Inventory;
use crate::recovery::health::{Health, health, stores};

/// Everything as it was at one moment.
pub struct Snapshot {
    pub health: Health,
    /// By runbook.
    pub jobs: BTreeMap<String, Job>,
    /// By runbook: from when on its next good run is late, by the first of its schedules.
    pub deadlines: BTreeMap<String, DateTime<Utc>>,
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
#[derive(Debug, Clone)]
pub struct Looking {
    /// Ask the servers how far they are.
    pub ask: bool,
    /// Ask the providers what they do for the stores.
    pub protection: bool,
    /// The ids of the runbooks of the inventory's schedules, in their order; `None` for one that cannot be read.
    pub scheduled: Vec<Option<String>>,
}

/// Looks at all systems of the inventory and at all runs below `state`.
/// What cannot be looked at is a fact of the health; only a folder that cannot be listed is an error.
pub async fn collect(inventory: &Inventory, state: &Path, looking: &Looking) -> Result<Snapshot, Failure> {
    let (at, began) = (clock::wall_now(), clock::boot_now());
    let systems: Vec<String> = inventory.systems.keys().cloned().collect();
    let path = state.to_owned();
    let journals = tokio::task::spawn_blocking(move || history::read(&path));
    let providers = async {
        match looking.protection {
            true => stores(inventory, &systems, at).await,
            false => Vec::new(),
        }
    };
    let (mut health, stores, history) =
        tokio::join!(health(inventory, &systems, at, None, looking.ask), providers, journals);
    health.stores = stores;
    let history = history.map_err(|error| error.to_string()).and_then(|read| read.map_err(|error| error.to_string()));
    let history = history.map_err(|why| {
        Failure::new(format!("the drills in {} cannot be listed", state.display()), why)
            .now("Check --state-dir and its permissions.")
    })?;
    let deadlines = deadlines(inventory, &history.runs, &looking.scheduled, at);
    let damaged = history.damaged.len();
    let jobs = jobs(history.runs, &inventory.service);
    Ok(Snapshot { health, jobs, deadlines, damaged, at, took: clock::boot_now().saturating_sub(began) })
}

/// Runs of the service by runbook.
fn jobs(runs: Vec<Run>, service: &str) -> BTreeMap<String, Job> {
    let mut jobs: BTreeMap<String, Job> = BTreeMap::new();
    // The newest first.
    for run in runs.into_iter().filter(|run| run.service == service) {
        let job = jobs.entry(run.runbook.clone()).or_insert_with(|| Job {
            last: run.clone(),
            last_success: None,
            drill: None,
        });
        if job.last_success.is_none() && run.is_good() {
            job.last_success = Some(run.clone());
        }
        if job.drill.is_none() && is_drill(&run) {
            job.drill = Some(run);
        }
    }
    jobs
}

fn deadlines(
    inventory: &Inventory,
    runs: &[Run],
    scheduled: &[Option<String>],
    now: DateTime<Utc>,
) -> BTreeMap<String, DateTime<Utc>> {
    let mut first: BTreeMap<String, DateTime<Utc>> = BTreeMap::new();
    for (schedule, runbook) in inventory.schedules.iter().zip(scheduled) {
        let Some(runbook) = runbook else { continue };
        let Some(at) = history::due(schedule, runbook, inventory, runs, now).at else { continue };
        let late = at + schedule.overdue_after;
        first.entry(runbook.clone()).and_modify(|known| *known = late.min(*known)).or_insert(late);
    }
    first
}

/// It recovered something: a backup has a clock too, but nothing that it gave up.
fn is_drill(run: &Run) -> bool {
    run.rto.recovered && run.rpo.iter().any(|rpo| rpo.seconds.is_some())
}
