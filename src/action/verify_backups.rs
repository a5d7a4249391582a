use futures::future::BoxFuture;

use crate::event::{Check, Failure, Outcome};
use crate::recovery::health::{Judgement, health};

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
        let mut outcome = Outcome::passed("");
        let (mut broken, mut unknown, mut advice) = (Vec::new(), 0, None);
        for (system, fact) in found.facts() {
            let word = match fact.judgement {
                Judgement::Ok => "ok",
                Judgement::Unknown => "unknown",
                Judgement::Missed | Judgement::Failed => "FAILED",
            };
            let name = format!("{system} {}", fact.subject.word());
            context.sink.say(format!("{word:<7} {name}: {}", fact.says)).await;
            if fact.judgement == Judgement::Unknown {
                unknown += 1;
                continue;
            }
            if !fact.is_fine() {
                broken.push(format!("{name}: {}", fact.says));
                advice = advice.or_else(|| fact.now.clone());
            }
            outcome.checks.push(Check { name, passed: fact.is_fine(), detail: fact.says.clone() });
        }
        outcome = outcome.fact("systems", names.len()).fact("broken", broken.len()).fact("unknown", unknown);
        if broken.is_empty() {
            outcome.summary = format!("{} could be restored now", names.join(" and "));
            return outcome;
        }
        let failure = Failure::new("a restore tonight would lose more than it may", broken.join("; "))
            .now(advice.unwrap_or_else(|| "take a backup with the runbook backup-now".to_owned()));
        Outcome { facts: outcome.facts, checks: outcome.checks, ..Outcome::failed(failure) }
    }
}
