use std::time::Duration;

use futures::future::BoxFuture;

use crate::event::{Failure, Outcome};
use crate::inventory::System;
use crate::runbook::Side;
use crate::secret::Secret;
use crate::system::postgres::{self, Query};

use super::{Action, Context, confirm::cancelled};

/// How long a statement may take when the step sets no limit.
const PATIENCE: Duration = Duration::from_secs(600);

/// `postgres.query`: a statement in a read-only transaction, on the restored server when there is one.
///
/// Facts: the columns of the first row, and `rows`.
pub struct PostgresQuery {
    pub sql: String,
    pub params: Vec<String>,
    pub on: Option<Side>,
}

impl Action for PostgresQuery {
    fn run(&self, context: Context) -> BoxFuture<'_, Outcome> {
        Box::pin(async move { self.look(&context).await.unwrap_or_else(Outcome::failed) })
    }
}

impl PostgresQuery {
    async fn look(&self, context: &Context) -> Result<Outcome, Failure> {
        let system = context.target()?;
        let url = match self.on {
            Some(Side::Source) => context.source_url(system)?,
            Some(Side::Restored) => context.restored_postgres_only(system)?.url,
            None => either(context, system)?,
        };
        ask(context, &url, &self.sql, &self.params, true).await
    }
}

/// The restored server when there is one, else the source.
pub(super) fn either(context: &Context, system: &System) -> Result<Secret, Failure> {
    match context.restored_postgres(system)? {
        Some(restored) => Ok(restored.url),
        None => context.source_url(system),
    }
}

async fn ask(
    context: &Context,
    url: &Secret,
    sql: &str,
    params: &[String],
    read_only: bool,
) -> Result<Outcome, Failure> {
    let params = params.iter().map(|param| context.expand_strictly(param)).collect::<Result<Vec<_>, _>>()?;
    let timeout = context.step().timeout.unwrap_or(PATIENCE);
    let query = Query { sql, params: &params, timeout, read_only };
    let answer = tokio::select! {
        answer = postgres::query(url, &query) => answer?,
        () = context.cancel.cancelled() => return Ok(cancelled()),
    };
    let shown: Vec<String> = answer.facts.iter().map(|(name, value)| format!("{name} = {value}")).collect();
    for line in &shown {
        context.sink.say(line.clone()).await;
    }
    Ok(Outcome { facts: answer.facts, ..Outcome::passed(shown.join(", ")) })
}

/// `smoke.sql`: a statement that the restored server must take, writes included.
pub struct SmokeSql {
    pub sql: String,
    pub params: Vec<String>,
}

impl Action for SmokeSql {
    fn run(&self, context: Context) -> BoxFuture<'_, Outcome> {
        Box::pin(async move {
            let outcome = self.smoke(&context).await.unwrap_or_else(Outcome::failed);
            let (passed, detail) = (outcome.failure.is_none(), outcome.summary.clone());
            outcome.check(context.expand(&context.step().title), passed, detail)
        })
    }
}

impl SmokeSql {
    async fn smoke(&self, context: &Context) -> Result<Outcome, Failure> {
        let restored = context.restored_postgres_only(context.target()?)?;
        ask(context, &restored.url, &self.sql, &self.params, false).await
    }
}
