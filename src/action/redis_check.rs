use futures::future::BoxFuture;
use indexmap::IndexMap;

use crate::event::{Failure, Outcome};
use crate::system::redis;

use super::{Action, Context};

/// `redis.check`: at least so many keys, and persistence in order. Looks at the restored server when there is one.
pub struct RedisCheck {
    pub min_keys: u64,
    pub prefixes: IndexMap<String, u64>,
}

impl Action for RedisCheck {
    fn run(&self, context: Context) -> BoxFuture<'_, Outcome> {
        Box::pin(async move { self.check(&context).await.unwrap_or_else(Outcome::failed) })
    }
}

impl RedisCheck {
    async fn check(&self, context: &Context) -> Result<Outcome, Failure> {
        let system = context.target()?;
        let (url, restored) = match context.restored_redis(system)? {
            Some(restored) => (restored, true),
            None => (context.source_url(system)?, false),
        };
        let prefixes: Vec<(String, u64)> = self.prefixes.iter().map(|(p, least)| (p.clone(), *least)).collect();
        let checked = tokio::select! {
            checked = redis::check(&url, self.min_keys, &prefixes) => checked.map_err(|error| match restored {
                true => context.of_restored(system, error),
                false => error.into(),
            })?,
            () = context.cancel.cancelled() => return Ok(super::confirm::cancelled()),
        };
        for check in &checked.checks {
            let sign = if check.passed { "ok" } else { "FAILED" };
            context.sink.say(format!("{sign:<6} {}: {}", check.name, check.detail)).await;
        }
        let mut outcome = match checked.passed() {
            true => Outcome::passed(format!("{} keys at {}", checked.keys, checked.address)),
            false => {
                let broken: Vec<String> =
                    checked.checks.iter().filter(|c| !c.passed).map(|c| format!("{}: {}", c.name, c.detail)).collect();
                Outcome::failed(
                    Failure::new(format!("{} is not as it should be", system.name), broken.join("; "))
                        .now("Do not cut over to it. Choose another snapshot, or find out where the keys went."),
                )
            }
        };
        outcome.facts = checked.facts();
        outcome.checks = checked.checks;
        Ok(outcome)
    }
}
