use futures::future::BoxFuture;

use crate::event::{Failure, Outcome};
use crate::system::redis;

use super::{Action, Context};

/// `redis.snapshot`: a snapshot of the source, shipped into its bucket.
pub struct RedisSnapshot;

impl Action for RedisSnapshot {
    fn run(&self, context: Context) -> BoxFuture<'_, Outcome> {
        Box::pin(async move { snapshot(&context).await.unwrap_or_else(Outcome::failed) })
    }
}

async fn snapshot(context: &Context) -> Result<Outcome, Failure> {
    let system = context.target()?;
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
