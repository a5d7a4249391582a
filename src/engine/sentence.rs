//! The next action as a sentence: what the key will do, on what, to which point.

use chrono::Local;

use crate::drill::DrillState;
use crate::event::{RecoveryPoint, RecoveryTarget};
use crate::runbook::StepKind;

/// What starting the step does, in the imperative.
pub fn action(state: &DrillState, index: usize) -> String {
    let step = &state.runbook.steps[index];
    let system = step.system.as_ref().and_then(|role| state.opening.systems.get(role)).map(|s| s.name.as_str());
    match (&step.kind, system) {
        (StepKind::PostgresRestore, Some(system)) => match chosen(state) {
            Some(point) => format!("restore {system} to {}", describe(&point)),
            None => format!("restore {system}"),
        },
        (StepKind::RedisRestore, Some(system)) => {
            match chosen(state).and_then(|point| point.snapshots.get(system).cloned()) {
                Some(snapshot) => format!("restore {system} from snapshot {snapshot}"),
                None => format!("restore {system}"),
            }
        }
        (StepKind::PostgresFence, Some(system)) => format!("stop every write to {system}"),
        (StepKind::PostgresPromote, Some(system)) => format!("promote the restored {system}: it will take writes"),
        _ => lower_first(&state.expand(&step.title)),
    }
}

/// Why a step found at resume is in doubt.
pub fn in_doubt(state: &DrillState, index: usize) -> String {
    let title = state.expand(&state.runbook.steps[index].title);
    let why = state.steps[index].doubt.as_ref().map_or("the program ended while it ran", |doubt| &doubt.why);
    format!(
        "`{title}`: {why}. No outcome was recorded: it may or may not have happened. Look at the system itself before you \
         say so."
    )
}

/// A recovery point for a person: local time with its offset.
pub fn describe(point: &RecoveryPoint) -> String {
    let edge = if point.inclusive { "" } else { "just before " };
    match &point.target {
        RecoveryTarget::Latest => "the end of the archived WAL".to_owned(),
        RecoveryTarget::Time { time } => {
            let local = time.with_timezone(&Local);
            format!("{edge}{} ({})", local.format("%H:%M:%S%.3f"), local.format("%:z"))
        }
        RecoveryTarget::Lsn { lsn } => format!("{edge}LSN {lsn}"),
        RecoveryTarget::Xid { xid } => format!("{edge}transaction {xid}"),
        RecoveryTarget::RestorePoint { name } => format!("restore point {name}"),
    }
}

fn chosen(state: &DrillState) -> Option<RecoveryPoint> {
    serde_json::from_value(state.variables.get("recovery_point")?.clone()).ok()
}

fn lower_first(text: &str) -> String {
    let mut chars = text.chars();
    match (chars.next(), chars.clone().next()) {
        // `SQL …`, `RPO …`: an acronym keeps its capitals.
        (Some(first), Some(second)) if !second.is_uppercase() => first.to_lowercase().chain(chars).collect(),
        _ => text.to_owned(),
    }
}
