//! The leases of a drill that has ended.

use std::time::Duration;

use super::driver::Fixed;
use crate::action;
use crate::drill::DrillState;

/// How long a bucket may take to take them back.
const PATIENCE: Duration = Duration::from_secs(10);

/// Gives them back, so that nobody else is kept waiting.
pub(super) async fn give_back(fixed: &Fixed, state: &DrillState) {
    let begun = state.runbook.steps.iter().zip(&state.steps).filter(|(_, progress)| !progress.attempts.is_empty());
    let roles = begun.flat_map(|(step, _)| action::leased_roles(&step.kind, step.system.as_deref()));
    let systems = roles.filter_map(|role| fixed.bindings.get(role).cloned()).collect();
    tokio::select! {
        () = action::give_back(&fixed.inventory, &systems, &state.opening.drill) => {}
        () = fixed.clock.sleep(PATIENCE) => tracing::warn!("the leases were not given back: they run out"),
    }
}
