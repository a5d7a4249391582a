//! What the plan does not cover, in plain words.

use super::{Sources, does, is_cache, objective, runs};
use crate::event::Verdict;
use crate::history::{Overdue, due};
use crate::report::words::{self, clean};
use crate::runbook::{Runbook, StepKind};

pub fn of(sources: &Sources<'_>) -> Vec<String> {
    let mut gaps = Vec::new();
    systems(sources, &mut gaps);
    runbooks(sources, &mut gaps);
    let inventory = sources.inventory;
    if inventory.objectives.rto.is_none() {
        gaps.push("The service has no RTO: no drill can say that it was fast enough.".to_owned());
    }
    if inventory.contacts.is_empty() {
        gaps.push("Nobody is named to be called.".to_owned());
    }
    for store in inventory.stores.values().filter(|store| store.retain.is_none()) {
        gaps.push(format!("The store {} has no retention: nothing says how far back one can go.", clean(&store.name)));
    }
    for damaged in &sources.history.damaged {
        gaps.push(format!("The journal of drill {} cannot be read; it is no evidence.", clean(&damaged.drill)));
    }
    gaps
}

fn systems(sources: &Sources<'_>, gaps: &mut Vec<String>) {
    let inventory = sources.inventory;
    for system in inventory.systems.values() {
        let name = clean(&system.name);
        let scheduled = |what: fn(&StepKind) -> bool| {
            let mut known = sources.schedules.iter().filter_map(|(schedule, runbook)| Some((schedule, (*runbook)?)));
            known.any(|(schedule, runbook)| does(schedule, runbook, inventory, &system.name, what))
        };
        if is_cache(system).is_none() {
            let is_managed = system.managed().is_some();
            if !is_managed
                && !scheduled(|kind| matches!(kind, StepKind::PostgresBackup { .. } | StepKind::RedisSnapshot { .. }))
            {
                gaps.push(format!("{name} has no scheduled backup: no [[schedules]] of the inventory backs it up."));
            }
            if !sources.runbooks.iter().any(|runbook| restores(runbook, system.kind().word())) {
                gaps.push(format!("{name} has no runbook that restores it."));
            }
            let rehearsed = sources.history.runs.iter().any(|run| {
                run.is_of(inventory)
                    && run.is_good()
                    && run.rto.recovered
                    && run.rpo.iter().any(|rpo| rpo.system == system.name && rpo.seconds.is_some())
            });
            if !rehearsed {
                gaps.push(format!(
                    "{name} has never been recovered in a drill: its RTO and RPO are promises, not measurements."
                ));
            }
        }
        if objective(system.rpo, inventory.objectives.rpo).is_none() {
            gaps.push(format!("{name} has no RPO: nothing says how much of it may be lost."));
        }
    }
}

fn restores(runbook: &Runbook, kind: &str) -> bool {
    runbook.steps.iter().any(|step| match step.kind {
        StepKind::PostgresRestore => kind == "postgres",
        StepKind::RedisRestore => kind == "redis",
        _ => false,
    })
}

fn runbooks(sources: &Sources<'_>, gaps: &mut Vec<String>) {
    for runbook in sources.runbooks {
        let title = clean(&runbook.title);
        let newest = runs(sources, &runbook.id).find(|run| run.verdict.is_some());
        gaps.extend(match newest {
            None => Some(format!("The runbook “{title}” ({}) has never been drilled.", runbook.id)),
            Some(run) if !run.is_good() => Some(format!(
                "The last run of “{title}” ({}) did not come to a good end: {}.",
                runbook.id,
                run.verdict.map_or("under way", Verdict::word)
            )),
            Some(run) if run.revision != runbook.revision => Some(format!(
                "“{title}” ({}) was last drilled in revision {}; it is in revision {} now.",
                runbook.id, run.revision, runbook.revision
            )),
            Some(_) => None,
        });
    }
    for (schedule, runbook) in &sources.schedules {
        let name = clean(&schedule.name);
        let Some(runbook) = runbook else {
            gaps.push(format!("The schedule {name} names a runbook that cannot be read."));
            continue;
        };
        let due = due(schedule, &runbook.id, sources.inventory, &sources.history.runs, sources.now);
        if let Some(Overdue::By(late)) = due.overdue {
            gaps.push(format!("The schedule {name} is overdue by {}.", words::duration(late.round())));
        }
    }
    if sources.schedules.is_empty() {
        gaps.push("Nothing runs by itself: the inventory has no [[schedules]].".to_owned());
    }
}
