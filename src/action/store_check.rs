use futures::future::BoxFuture;

use crate::event::{Check, Failure, Outcome};
use crate::recovery::health::{Judgement, stores};

use super::{Action, Context};

/// `store.check`: what the provider of the system's store does for the backups, by looking.
///
/// What is unknown is told and fails nothing. Facts: `broken`, `unknown`.
pub struct StoreCheck;

impl Action for StoreCheck {
    fn run(&self, context: Context) -> BoxFuture<'_, Outcome> {
        Box::pin(async move { look(&context).await.unwrap_or_else(Outcome::failed) })
    }
}

async fn look(context: &Context) -> Result<Outcome, Failure> {
    let system = context.target()?;
    let found = stores(&context.inventory, std::slice::from_ref(&system.name), context.clock.now().wall).await;
    let mut outcome = Outcome::passed("");
    let (mut broken, mut unknown, mut advice) = (Vec::new(), 0, None);
    for fact in found.iter().flat_map(|store| &store.facts) {
        let word = match fact.judgement {
            Judgement::Ok => "ok",
            Judgement::Unknown => "unknown",
            Judgement::Missed | Judgement::Failed => "FAILED",
        };
        let name = fact.subject.word();
        context.sink.say(format!("{word:<7} {name}: {}", fact.says)).await;
        if fact.judgement == Judgement::Unknown {
            unknown += 1;
            continue;
        }
        if !fact.is_fine() {
            broken.push(format!("{name}: {}", fact.says));
            advice = advice.or_else(|| fact.now.clone());
        }
        outcome.checks.push(Check { name: name.to_owned(), passed: fact.is_fine(), detail: fact.says.clone() });
    }
    outcome = outcome.fact("broken", broken.len()).fact("unknown", unknown);
    if broken.is_empty() {
        outcome.summary = match unknown {
            0 => format!("the provider does for the store of {} what it should", system.name),
            n => format!("nothing is wrong with the store of {} that can be seen; {n} things are unknown", system.name),
        };
        return Ok(outcome);
    }
    let failure =
        Failure::new(format!("the store of {} is not protected as it should be", system.name), broken.join("; "))
            .now(advice.unwrap_or_else(|| "look at the bucket's settings".to_owned()));
    Ok(Outcome { facts: outcome.facts, checks: outcome.checks, ..Outcome::failed(failure) })
}
