//! Who answers at a system's address, before something is done to it.

use std::time::Duration;

use crate::event::{Failure, Identity};
use crate::inventory::{Inventory, SystemDetail};
use crate::runbook::{Side, Step, StepKind};
use crate::secret::Redactor;
use crate::system::{postgres, redis};

/// How long a server may take to say who it is.
const PATIENCE: Duration = Duration::from_secs(15);

/// Whether the step does something to the source itself, which only its address names.
pub fn changes_source(step: &Step) -> bool {
    match &step.kind {
        StepKind::PostgresFence => true,
        StepKind::PostgresQuery { on, .. } | StepKind::RedisCommand { on, .. } => *on == Some(Side::Source),
        _ => false,
    }
}

/// Asks the source of a system who it is.
pub async fn identify(inventory: &Inventory, name: &str, redactor: &Redactor) -> Identity {
    let look = async {
        let Some(system) = inventory.systems.get(name) else {
            return Err(Failure::new(format!("{name} cannot be asked"), "the inventory does not have it"));
        };
        let url = system.url.resolve()?;
        redactor.learn_url(url.expose());
        Ok(match system.detail {
            SystemDetail::Postgres(_) => postgres::identify(&url).await,
            SystemDetail::Redis(_) => redis::identify(&url).await,
        })
    };
    match tokio::time::timeout(PATIENCE, look).await {
        Ok(Ok(identity)) => identity,
        Ok(Err(failure)) => Identity::Unknown { why: failure.to_string() },
        Err(_) => Identity::Unknown { why: format!("it does not answer within {} s", PATIENCE.as_secs()) },
    }
}
