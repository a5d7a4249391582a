use std::time::Duration;

use futures::future::BoxFuture;

use crate::event::{Failure, Outcome};
use crate::inventory::{self, System, SystemDetail};
use crate::process::Spec;
use crate::system::postgres::{self, Fence, Reporter};

use super::command::with_variables;
use super::postgres_backup::pass_on;
use super::{Action, Context};

/// How long the bucket may take to say whose backups it holds.
const PATIENCE: Duration = Duration::from_secs(5);

/// `postgres.fence`: stops writes to the old primary and proves it by one that fails.
pub struct PostgresFence;

impl Action for PostgresFence {
    fn run(&self, context: Context) -> BoxFuture<'_, Outcome> {
        Box::pin(async move { fence(&context).await.unwrap_or_else(Outcome::failed) })
    }

    fn undo(&self, context: Context) -> Option<BoxFuture<'_, Outcome>> {
        Some(Box::pin(async move { lift(&context).await.unwrap_or_else(Outcome::failed) }))
    }
}

fn settings(system: &System) -> inventory::Fence {
    match &system.detail {
        SystemDetail::Postgres(detail) => detail.fence.clone(),
        SystemDetail::Redis(_) => inventory::Fence::default(),
    }
}

/// The user's own program: it is told of the drill as a step's command is.
fn program(argv: Option<Vec<String>>, context: &Context) -> Option<Spec> {
    let argv = argv?;
    let (program, args) = argv.split_first()?;
    Some(with_variables(Spec::new(program).args(args), context))
}

async fn fence(context: &Context) -> Result<Outcome, Failure> {
    let system = context.target()?;
    context.lease_if_the_bucket_answers(system).await?;
    let (report, reports) = Reporter::channel(64);
    let fence = Fence {
        url: context.source_url(system)?,
        system_identifier: backed_up(context, system).await,
        command: program(settings(system).command, context),
        cancel: context.cancel.clone(),
        report,
    };
    let (evidence, ()) = tokio::join!(fence.run(), pass_on(context, reports));
    let evidence = evidence?;
    for limit in &evidence.limits {
        context.sink.say(format!("mind: {limit}")).await;
    }
    let outcome = Outcome::passed(format!("{} takes no writes: {}", system.name, evidence.detail));
    Ok(Outcome { facts: evidence.facts(), ..outcome }.check(
        format!("{} refuses writes", system.name),
        true,
        evidence.detail,
    ))
}

/// The cluster that the backups are of. Fencing is urgent: a store that does not answer does not hold it up.
async fn backed_up(context: &Context, system: &System) -> Option<u64> {
    let repository = context.repository(system).ok()?;
    let id = tokio::time::timeout(PATIENCE, repository.system_identifier()).await;
    let id = id.ok()?.ok().flatten();
    if id.is_none() {
        context.sink.say("mind: the backups do not say which cluster they are of; the address alone decides").await;
    }
    id
}

async fn lift(context: &Context) -> Result<Outcome, Failure> {
    let system = context.target()?;
    let url = context.source_url(system)?;
    let (report, reports) = Reporter::channel(64);
    let undo = program(settings(system).undo, context);
    let work = async {
        let said = postgres::unfence(&url, context.answered.as_ref(), undo.as_ref(), &context.cancel, &report).await;
        drop(report);
        said
    };
    let (said, ()) = tokio::join!(work, pass_on(context, reports));
    Ok(Outcome::passed(said?))
}
