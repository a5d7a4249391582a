use futures::future::BoxFuture;

use crate::event::{Failure, Outcome};
use crate::inventory::SystemDetail;
use crate::system::redis;

use super::{Action, Context};

/// `redis.restore`: the chosen snapshot, loaded with the AOF off, counted, then made durable.
pub struct RedisRestore;

impl Action for RedisRestore {
    fn run(&self, context: Context) -> BoxFuture<'_, Outcome> {
        Box::pin(async move { restore(&context).await.unwrap_or_else(Outcome::failed) })
    }

    fn undo(&self, context: Context) -> Option<BoxFuture<'_, Outcome>> {
        Some(Box::pin(async move { remove(&context).await.unwrap_or_else(Outcome::failed) }))
    }
}

async fn restore(context: &Context) -> Result<Outcome, Failure> {
    let system = context.target()?;
    let (url, bucket) = (context.source_url(system)?, context.bucket(system)?);
    let chosen = match context.recovery_point() {
        Ok(point) => point.snapshots.get(&system.name).cloned(),
        Err(_) => None,
    };
    let snapshot = match chosen {
        Some(label) => label,
        // A runbook for Redis alone has no point to choose: the newest snapshot is what there is.
        None => newest(context, &bucket).await?,
    };
    let server = match &system.detail {
        SystemDetail::Redis(detail) => detail.server.as_deref(),
        SystemDetail::Postgres(_) => None,
    };
    context.sink.say(format!("restoring {} from snapshot {snapshot} in {}", system.name, bucket.name())).await;
    let restore = redis::Restore {
        drill: &context.drill,
        system: &system.name,
        effect_key: &context.effect_key,
        bucket: &bucket,
        snapshot: &snapshot,
        directory: &system.restore.directory,
        port: system.restore.port,
        source_url: &url,
        server,
        run_as: system.restore.run_as.as_deref(),
        cancel: &context.cancel,
    };
    let restored = restore.run(&|progress| context.sink.offer(progress)).await?;
    context.redactor.learn_url(restored.url.expose());
    let mut outcome = Outcome::passed(format!(
        "{} is restored at 127.0.0.1:{} as of {}: {} keys{}",
        system.name,
        restored.port,
        restored.at.format("%H:%M:%S%.3f UTC"),
        restored.keys,
        if restored.expired > 0 { format!(", {} have expired since", restored.expired) } else { String::new() },
    ));
    outcome.facts = restored.facts();
    outcome = outcome.fact("directory", system.restore.directory.display().to_string());
    outcome = outcome.check(
        "keys of the snapshot",
        true,
        format!("{} in the server + {} expired = what the snapshot holds", restored.keys, restored.expired),
    );
    outcome.measures.extend(context.selected_loss(system, restored.at));
    Ok(outcome)
}

async fn newest(context: &Context, bucket: &crate::store::Bucket) -> Result<String, Failure> {
    let (snapshots, warnings) =
        redis::list(bucket).await.map_err(|error| Failure::new("the snapshots cannot be listed", error))?;
    for warning in warnings {
        context.sink.say(format!("warning: {warning}")).await;
    }
    let newest = snapshots.into_iter().max_by_key(|snapshot| snapshot.at);
    newest.map(|snapshot| snapshot.label).ok_or_else(|| {
        Failure::new("there is no snapshot to restore", format!("{} holds none", bucket.name()))
            .now("Check the store and the prefix in the inventory; take one with the runbook backup-now.")
    })
}

async fn remove(context: &Context) -> Result<Outcome, Failure> {
    let system = context.target()?;
    let url = context.source_url(system)?;
    redis::undo(&context.drill, &system.name, &system.restore.directory, &url).await?;
    Ok(Outcome::passed(format!("the restored {} is stopped and its directory removed", system.name)))
}
