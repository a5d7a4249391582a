use std::path::Path;

use futures::future::BoxFuture;

use crate::event::{Failure, Outcome};
use crate::system::redis::{self, ExportError};

use super::{Action, Context};

/// `redis.export`: keys of one prefix out of the restored server, into a file of commands that a person sends elsewhere.
/// The server in production is not even read. Facts: `keys`, `expiring`, `bytes`, `file`.
pub struct RedisExport {
    pub prefix: String,
    pub file: String,
}

impl Action for RedisExport {
    fn run(&self, context: Context) -> BoxFuture<'_, Outcome> {
        Box::pin(async move { self.write(&context).await.unwrap_or_else(Outcome::failed) })
    }
}

impl RedisExport {
    async fn write(&self, context: &Context) -> Result<Outcome, Failure> {
        let system = context.target()?;
        let url = context.restored_redis_only(system)?;
        let (prefix, file) = (context.expand_strictly(&self.prefix)?, context.expand_strictly(&self.file)?);
        let path = Path::new(&file);
        if prefix.is_empty() || !path.is_absolute() {
            let why = match prefix.is_empty() {
                true => "a prefix is needed: without one it would be every key".to_owned(),
                false => format!("`{file}` is no absolute path"),
            };
            return Err(Failure::new("the keys were not written", why).now("Give the step's values again, and retry."));
        }
        let report = |progress| context.sink.offer(progress);
        let exported = tokio::select! {
            exported = redis::export(&url, &prefix, path, &report) => exported.map_err(|error| match error {
                ExportError::Redis(error) => context.of_restored(system, error),
                error => error.into(),
            })?,
            () = context.cancel.cancelled() => return Ok(super::confirm::cancelled()),
        };
        let summary = format!("{} keys, {} bytes, in {file}", exported.keys, exported.bytes);
        Ok(Outcome::passed(summary)
            .fact("keys", exported.keys)
            .fact("expiring", exported.expiring)
            .fact("bytes", exported.bytes)
            .fact("file", file))
    }
}
