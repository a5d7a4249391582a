use chrono::{DateTime, SecondsFormat, Utc};
use futures::future::BoxFuture;

use crate::event::{Failure, Outcome};
use crate::inventory::{System, SystemDetail};
use crate::runbook::ShipAof;
use crate::system::redis;

use super::{Action, Context};

/// `redis.snapshot`: a snapshot of the source and its append-only file, shipped into its bucket.
pub struct RedisSnapshot {
    pub aof: ShipAof,
}

impl Action for RedisSnapshot {
    fn run(&self, context: Context) -> BoxFuture<'_, Outcome> {
        Box::pin(async move { self.ship(&context).await.unwrap_or_else(Outcome::failed) })
    }
}

impl RedisSnapshot {
    async fn ship(&self, context: &Context) -> Result<Outcome, Failure> {
        let system = context.target()?;
        let outcome = match self.aof {
            ShipAof::No => return snapshot(context, system).await,
            ShipAof::Also => snapshot(context, system).await?,
            ShipAof::Only | ShipAof::Rescue => Outcome::passed(""),
        };
        match append_only_file(context, system).await {
            Ok(shipped) => Ok(with(outcome, shipped)),
            Err(failure) if self.aof == ShipAof::Only || context.cancel.is_cancelled() => Err(failure),
            Err(failure) => {
                let said = format!("AOF not shipped: {}", failure.why);
                context.sink.say(&said).await;
                if let Some(now) = failure.now {
                    context.sink.say(now).await;
                }
                Ok(add(outcome, &said).fact("aof_not_shipped", failure.why))
            }
        }
    }
}

/// The outcome with another thing said.
fn add(mut outcome: Outcome, said: &str) -> Outcome {
    let between = if outcome.summary.is_empty() { "" } else { "; " };
    outcome.summary = format!("{}{between}{said}", outcome.summary);
    outcome
}

fn with(outcome: Outcome, shipped: redis::Shipped) -> Outcome {
    let range = &shipped.range;
    let time = |at: DateTime<Utc>| at.to_rfc3339_opts(SecondsFormat::Millis, true);
    let said = format!(
        "AOF from {} to {}, {} commands, {} new bytes",
        range.from.format("%H:%M:%S"),
        range.end().format("%H:%M:%S%.3f UTC"),
        range.commands,
        shipped.new_bytes
    );
    let outcome = add(outcome, &said)
        .fact("aof_label", range.label.clone())
        .fact("aof_from", time(range.from))
        .fact("aof_to", time(range.end()))
        .fact("aof_commands", range.commands)
        .fact("aof_new_bytes", shipped.new_bytes);
    match shipped.torn {
        0 => outcome,
        torn => add(outcome, &format!("{torn} bytes at its end were no whole command and were left out")),
    }
}

async fn snapshot(context: &Context, system: &System) -> Result<Outcome, Failure> {
    let (url, bucket) = (context.source_url(system)?, context.bucket(system)?);
    let scratch = context.scratch()?;
    let snapshot =
        redis::Snapshot { url: &url, bucket: &bucket, label: None, scratch: &scratch, cancel: &context.cancel };
    let taken = snapshot.run(&|progress| context.sink.offer(progress)).await?;
    let found = &taken.snapshot;
    Ok(Outcome::passed(format!(
        "snapshot {} of {}: {} keys, {} bytes",
        found.label, system.name, found.keys, found.bytes
    ))
    .fact("label", found.label.clone())
    .fact("keys", found.keys)
    .fact("bytes", found.bytes)
    .fact("stored_bytes", found.stored_bytes)
    .fact("seconds", taken.took.as_secs_f64()))
}

async fn append_only_file(context: &Context, system: &System) -> Result<redis::Shipped, Failure> {
    let (url, bucket) = (context.source_url(system)?, context.bucket(system)?);
    let data = match &system.detail {
        SystemDetail::Redis(detail) => detail.data.as_deref(),
        SystemDetail::Postgres(_) => None,
    };
    let ship = redis::ShipAof { url: &url, data, bucket: &bucket, cancel: &context.cancel };
    Ok(ship.run(&|progress| context.sink.offer(progress)).await?)
}
