use futures::future::BoxFuture;

use crate::event::Outcome;
use crate::recovery::health::health;

use super::told::Told;
use super::{Action, Context};

/// `recovery.verify-backups`: could each system be restored, with no more loss than its RPO?
///
/// The facts of `lifeboat check`; one that is unknown is told and fails nothing. Facts: `systems`, `broken`, `unknown`.
pub struct VerifyBackups {
    /// Roles.
    pub systems: Vec<String>,
}

impl Action for VerifyBackups {
    fn run(&self, context: Context) -> BoxFuture<'_, Outcome> {
        Box::pin(async move { self.verify(&context).await })
    }
}

impl VerifyBackups {
    async fn verify(&self, context: &Context) -> Outcome {
        let names: Vec<String> =
            self.systems.iter().filter_map(|role| context.system(role)).map(|system| system.name.clone()).collect();
        let now = context.clock.now().wall;
        let found = health(&context.inventory, &names, now, context.runbook.objectives.rpo, true).await;
        let mut told = Told::default();
        for (system, fact) in found.facts() {
            told.tell(&context.sink, format!("{system} {}", fact.subject.word()), fact).await;
        }
        let fine = format!("{} could be restored now", names.join(" and "));
        told.outcome(
            fine,
            "a restore tonight would lose more than it may".to_owned(),
            "take a backup with the runbook backup-now",
        )
        .fact("systems", names.len())
    }
}
