use futures::future::BoxFuture;

use crate::event::{Failure, Outcome};
use crate::mutant;
use crate::runbook::Side;
use crate::system::redis::{self, CommandError};

use super::{Action, Context};

/// `redis.command`: one command, item by item. Fact: `reply`.
pub struct RedisCommand {
    pub argv: Vec<String>,
    pub on: Option<Side>,
}

impl Action for RedisCommand {
    fn run(&self, context: Context) -> BoxFuture<'_, Outcome> {
        Box::pin(async move { self.send(&context).await.unwrap_or_else(Outcome::failed) })
    }
}

impl RedisCommand {
    async fn send(&self, context: &Context) -> Result<Outcome, Failure> {
        let system = context.target()?;
        let (url, restored) = match self.on {
            Some(Side::Source) => (context.source_url(system)?, false),
            Some(Side::Restored) => (context.restored_redis_only(system)?, true),
            None => match context.restored_redis(system)? {
                Some(restored) => (restored, true),
                None => (context.source_url(system)?, false),
            },
        };
        let argv = self.argv.iter().map(|item| context.expand_strictly(item)).collect::<Result<Vec<_>, _>>()?;
        let facts = tokio::select! {
            facts = redis::command(&url, &argv, context.step().destroys.is_some()) => facts.map_err(|error| match error {
                CommandError::Redis(error) if restored => context.of_restored(system, error),
                error => error.into(),
            })?,
            () = context.cancel.cancelled() => return Ok(super::confirm::cancelled()),
        };
        let reply = facts.get("reply").cloned().unwrap_or_default();
        context.sink.say(format!("{} → {reply}", argv.join(" "))).await;
        Ok(Outcome {
            facts,
            ..Outcome::passed(format!("{} answered {reply}", argv.first().map_or("", String::as_str)))
        })
    }
}

/// `smoke.redis`: a command that the restored server must answer. Fact: `reply`.
pub struct SmokeRedis {
    pub argv: Vec<String>,
}

impl Action for SmokeRedis {
    fn run(&self, context: Context) -> BoxFuture<'_, Outcome> {
        Box::pin(async move {
            let on = Some(Side::Restored).filter(|_| !mutant::removes("6b"));
            let command = RedisCommand { argv: self.argv.clone(), on };
            let outcome = command.send(&context).await.unwrap_or_else(Outcome::failed);
            let (passed, detail) = (outcome.failure.is_none(), outcome.summary.clone());
            outcome.check(context.expand(&context.step().title), passed, detail)
        })
    }
}
