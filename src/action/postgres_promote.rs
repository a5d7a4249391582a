use futures::future::BoxFuture;

use crate::event::{Failure, Outcome};
use crate::runbook::StepKind;
use crate::system::postgres::{Promote, Proof, Reporter};

use super::postgres_backup::pass_on;
use super::{Action, Context, managed};

/// `postgres.promote`: the restored server takes writes from now on. Right before, it is proven again that the old
/// primary does not, unless the runbook leads no client to the restored one.
pub struct PostgresPromote;

impl Action for PostgresPromote {
    fn run(&self, context: Context) -> BoxFuture<'_, Outcome> {
        Box::pin(async move { promote(&context).await.unwrap_or_else(Outcome::failed) })
    }
}

/// Why an old primary that takes writes does no harm.
pub(super) const NOBODY: &str = "this runbook cuts nothing over: no client is led to it";

/// Whether clients are led to what is restored.
pub(super) fn cuts_over(context: &Context) -> bool {
    context.runbook.steps.iter().any(|step| matches!(step.kind, StepKind::CutoverConnections { .. }))
}

async fn promote(context: &Context) -> Result<Outcome, Failure> {
    let system = context.target()?;
    if let Some(instance) = context.restored_instance(system) {
        return managed::promote(context, system, &instance).await;
    }
    let restored = context.restored_postgres_only(system)?;
    context.lease_or_ask(system).await?;
    let proof = match cuts_over(context) {
        true => Proof::Source(context.source_url(system)?),
        false => Proof::NotNeeded { why: NOBODY.to_owned() },
    };
    let (report, reports) = Reporter::channel(64);
    let promote = Promote {
        directory: system.restore.directory.clone(),
        url: restored.url,
        drill: context.drill.clone(),
        system: system.name.clone(),
        proof,
        report,
    };
    let (promoted, ()) = tokio::join!(promote.run(), pass_on(context, reports));
    let promoted = promoted?;
    let outcome =
        Outcome::passed(format!("the restored {} takes writes, on timeline {}", system.name, promoted.timeline));
    Ok(Outcome { facts: promoted.facts(), ..outcome }.check("no second primary", true, promoted.proof))
}
