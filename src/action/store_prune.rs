use futures::future::BoxFuture;

use crate::event::{Failure, Outcome};
use crate::recovery::prune::prunable;

use super::{Action, Context};

/// `store.prune`: deletes what the store's limit no longer asks for. Facts: `backups`, `segments`, `objects`, `bytes`.
pub struct StorePrune;

impl Action for StorePrune {
    fn run(&self, context: Context) -> BoxFuture<'_, Outcome> {
        Box::pin(async move { prune(&context).await.unwrap_or_else(Outcome::failed) })
    }
}

async fn prune(context: &Context) -> Result<Outcome, Failure> {
    let system = context.target()?;
    let now = context.clock.now().wall;
    let pruning = prunable(&context.inventory, &system.name, now).await?;
    context.sink.say(pruning.says()).await;
    let pruned = tokio::select! {
        pruned = pruning.run(now) => pruned?,
        () = context.cancel.cancelled() => return Ok(super::confirm::cancelled()),
    };
    let summary = match pruned.objects {
        0 => pruning.says(),
        objects => {
            format!("{objects} objects of {}, {} bytes, are gone; what stays was looked at", system.name, pruned.bytes)
        }
    };
    Ok(Outcome::passed(summary)
        .fact("backups", pruning.spare.backups.len() + pruning.spare.aof.len())
        .fact("segments", pruning.spare.segments.len())
        .fact("objects", pruned.objects)
        .fact("bytes", pruned.bytes))
}
