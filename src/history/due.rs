//! Whether what is to run by itself did.

use chrono::{DateTime, Utc};

use super::Run;
use crate::event::Verdict;
use crate::inventory::{Inventory, Schedule};

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Overdue {
    /// By so many seconds.
    By(f64),
    /// There has been no good run yet.
    Never,
}

/// How a schedule stands.
#[derive(Debug, Clone, Copy)]
pub struct Due<'a> {
    /// The newest run, whatever came of it.
    pub last: Option<&'a Run>,
    /// When the run after the newest good one was due; `None` when there is no good one.
    pub at: Option<DateTime<Utc>>,
    pub overdue: Option<Overdue>,
}

impl Run {
    /// Everything that was to be done is done; an objective may have been missed.
    pub fn is_good(&self) -> bool {
        matches!(self.verdict, Some(Verdict::Passed | Verdict::ObjectiveMissed))
    }
}

/// How a schedule of this runbook's id stands at the moment `now`, out of `runs`, the newest first. A run counts when it was
/// about the same service and the systems that the schedule names.
pub fn due<'a>(
    schedule: &Schedule,
    runbook: &str,
    inventory: &Inventory,
    runs: &'a [Run],
    now: DateTime<Utc>,
) -> Due<'a> {
    let about = |run: &&Run| {
        run.runbook == runbook
            && run.is_of(inventory)
            && schedule.systems.values().all(|system| run.rpo.iter().any(|rpo| rpo.system == *system))
    };
    let good = runs.iter().find(|run| about(run) && run.is_good());
    let at = good.and_then(|run| schedule.cadence.next(run.started));
    let overdue = match at {
        None => Some(Overdue::Never),
        Some(at) => {
            let late = (now - at).as_seconds_f64();
            (late > schedule.overdue_after.as_secs_f64()).then_some(Overdue::By(late))
        }
    };
    Due { last: runs.iter().find(about), at, overdue }
}
