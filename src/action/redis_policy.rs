use futures::future::BoxFuture;

use crate::event::{Failure, Outcome};
use crate::inventory::SystemDetail;
use crate::system::redis::persistence;

use super::{Action, Context};

/// `redis.policy`: does the server's persistence keep its RPO? Says what to change, and changes nothing.
///
/// Facts: `worst_loss_seconds`, absent when nothing bounds it; `changes`, one a line; `costs`.
pub struct RedisPolicy;

impl Action for RedisPolicy {
    fn run(&self, context: Context) -> BoxFuture<'_, Outcome> {
        Box::pin(async move { judge(&context).await.unwrap_or_else(Outcome::failed) })
    }
}

async fn judge(context: &Context) -> Result<Outcome, Failure> {
    let system = context.target()?;
    let SystemDetail::Redis(detail) = &system.detail else {
        return Err(Failure::new(format!("{} is no Redis", system.name), "its kind is another"));
    };
    let rpo = system.rpo.or(context.inventory.objectives.rpo).or(context.runbook.objectives.rpo);
    let url = context.source_url(system)?;
    let settings = persistence::settings(&url).await?.ok_or_else(|| {
        Failure::new(
            format!("how {} is kept cannot be told", system.name),
            "it does not let its settings be read (CONFIG GET)",
        )
        .now("Allow CONFIG GET to the user of the inventory's URL (ACL: +config|get), or ask who runs the server.")
    })?;
    let advice = settings.advise(rpo, detail.cache_only.as_deref());
    for check in &advice.checks {
        let sign = if check.passed { "ok" } else { "FAILED" };
        context.sink.say(format!("{sign:<6} {}: {}", check.name, check.detail)).await;
    }
    context.sink.say(format!("cost   {}", advice.costs)).await;
    let mut outcome = match advice.passed() {
        true => Outcome::passed(format!("{} is kept as its RPO asks", system.name)),
        false => {
            let broken: Vec<String> =
                advice.checks.iter().filter(|c| !c.passed).map(|c| format!("{}: {}", c.name, c.detail)).collect();
            let now = match advice.changes.as_slice() {
                [] => "Look at the server's log.".to_owned(),
                changes => format!("Nothing was changed. On {}: {}", settings.address, changes.join("; ")),
            };
            Outcome::failed(
                Failure::new(format!("{} may lose more than it may", system.name), broken.join("; ")).now(now),
            )
        }
    };
    outcome.checks.extend(advice.checks);
    if let Some(worst) = advice.worst {
        outcome = outcome.fact("worst_loss_seconds", worst.as_secs_f64());
    }
    Ok(outcome.fact("changes", advice.changes.join("\n")).fact("costs", advice.costs))
}
