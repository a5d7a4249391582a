use chrono::SecondsFormat;
use futures::future::BoxFuture;

use crate::event::{Failure, Measure, Outcome, RecoveryTarget};
use crate::recovery::{self, Wanted};
use crate::system::postgres::restore::{self, Owner, Patience};
use crate::system::postgres::{Reporter, Restore};

use super::postgres_backup::{bin, pass_on};
use super::{Action, Context, managed};

/// `postgres.restore`: base backup and WAL to the recovery point; the new server stands paused there.
pub struct PostgresRestore;

impl Action for PostgresRestore {
    fn run(&self, context: Context) -> BoxFuture<'_, Outcome> {
        Box::pin(async move { perform(&context).await.unwrap_or_else(Outcome::failed) })
    }

    fn undo(&self, context: Context) -> Option<BoxFuture<'_, Outcome>> {
        Some(Box::pin(async move { remove(&context).await.unwrap_or_else(Outcome::failed) }))
    }
}

async fn perform(context: &Context) -> Result<Outcome, Failure> {
    let system = context.target()?;
    if let Some(managed) = recovery::managed_of(&context.inventory, system) {
        return managed::restore(context, system, managed).await;
    }
    let point = context.recovery_point()?;
    let location = context.location(system)?;
    // It is handed on to the restored server's restore_command.
    if let Some(Ok(identity)) = location.encryption.identity() {
        identity.expose().lines().filter(|line| !line.starts_with('#')).for_each(|key| context.redactor.learn(key));
    }
    // The window of now, not of the moment of choosing: what was pruned or went missing since is found before a byte moves.
    let window = recovery::collect(&context.inventory, std::slice::from_ref(&system.name), context.incident()).await?;
    let plan = recovery::plan(&window, &system.name, &Wanted::of(&point, &system.name))?;
    for warning in &plan.warnings {
        context.sink.say(format!("warning: {warning}")).await;
    }
    context
        .sink
        .say(format!(
            "base backup {}, then {} segments of WAL on timeline {}: at most {} bytes to fetch",
            plan.restore.label,
            plan.restore.segments.len(),
            plan.restore.timeline,
            plan.fetch_bytes
        ))
        .await;
    let (report, reports) = Reporter::channel(64);
    let restore = Restore {
        from: context.repository(system)?,
        plan: plan.restore,
        directory: system.restore.directory.clone(),
        port: system.restore.port,
        run_as: system.restore.run_as.clone(),
        bin: bin(system),
        lifeboat: context.lifeboat.clone(),
        source: context.source_url(system)?,
        owner: Owner {
            drill: context.drill.clone(),
            system: system.name.clone(),
            effect_key: context.effect_key.clone(),
        },
        patience: Patience::default(),
        cancel: context.cancel.clone(),
        report,
    };
    let work = async { tokio::join!(restore.run(), pass_on(context, reports)).0 };
    let restored = context.leased(system, work).await??;
    let to = restored
        .recovered_to
        .map_or_else(|| format!("LSN {}", restored.lsn), |time| time.to_rfc3339_opts(SecondsFormat::Micros, true));
    let mut outcome = Outcome::passed(format!(
        "{} stands read only at {}, recovered to {to} ({})",
        system.name, restored.address, restored.lsn
    ));
    outcome.facts = restored.facts();
    if !restored.locked.is_empty() {
        let tables = restored.locked.join(", ");
        outcome = outcome.check("tables that cannot be read before the promotion", true, tables);
    }
    outcome = outcome.check(
        "recovered state is the planned one",
        true,
        format!("timeline {}, LSN {}, last commit {to}", restored.timeline, restored.lsn),
    );
    if let Some(exact) = point.resolved.get(&system.name) {
        outcome.measures.push(Measure::Collateral {
            system: system.name.clone(),
            commits: exact.commits_lost,
            bytes: exact.bytes_lost,
            until: exact.lost_until,
        });
    }
    if let (Some(recovered_to), true) = (restored.recovered_to, point.target != RecoveryTarget::Latest) {
        outcome.measures.extend(context.selected_loss(system, recovered_to));
    }
    Ok(outcome)
}

async fn remove(context: &Context) -> Result<Outcome, Failure> {
    let system = context.target()?;
    if let Some(managed) = recovery::managed_of(&context.inventory, system) {
        return Err(managed::no_removal(context, system, &managed));
    }
    Ok(Outcome::passed(restore::undo(&system.restore.directory, &context.drill, &system.name).await?))
}
