use chrono::{DateTime, Utc};
use futures::future::BoxFuture;

use crate::event::{Answer, Ask, Choice, Failure, Outcome};
use crate::inventory::{KeyPolicy, System, SystemDetail};
use crate::system::redis::{self, Applied, Origin, Policy, Rule};

use super::{Action, Context};

/// `redis.restore`: the chosen snapshot, loaded with the AOF off and counted, or the append-only file cut at the point;
/// then what the inventory declares for keys by their prefix; then made durable.
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
    context.leased(system, under_the_lease(context, system)).await?
}

async fn under_the_lease(context: &Context, system: &System) -> Result<Outcome, Failure> {
    let (url, bucket) = (context.source_url(system)?, context.bucket(system)?);
    let point = context.recovery_point().ok();
    let newest_snapshot;
    let from = match &point {
        Some(point) if point.aof.contains_key(&system.name) => Origin::Aof(&point.aof[&system.name]),
        Some(point) if point.snapshots.contains_key(&system.name) => Origin::Snapshot(&point.snapshots[&system.name]),
        // A runbook for Redis alone may have no point to choose: then the newest snapshot it is.
        _ => {
            newest_snapshot = newest(context, &bucket).await?;
            Origin::Snapshot(&newest_snapshot)
        }
    };
    let SystemDetail::Redis(detail) = &system.detail else {
        return Err(Failure::new(format!("{} is no Redis", system.name), "its kind is another"));
    };
    context.sink.say(format!("restoring {} from {} in {}", system.name, from.name(), bucket.name())).await;
    let policy: Vec<Rule> = detail.policy.iter().map(rule).collect();
    let restore = |from| redis::Restore {
        drill: &context.drill,
        system: &system.name,
        effect_key: &context.effect_key,
        bucket: &bucket,
        from,
        policy: &policy,
        directory: &system.restore.directory,
        port: system.restore.port,
        source_url: &url,
        server: detail.server.as_deref(),
        run_as: system.restore.run_as.as_deref(),
        cancel: &context.cancel,
    };
    let report = |progress| context.sink.offer(progress);
    let older;
    let (restored, from) = match (restore(from).run(&report).await, from) {
        (Err(error), Origin::Aof(point)) if error.is_about_the_backup() => {
            older = instead(context, &bucket, point.at, error.into()).await?;
            let from = Origin::Snapshot(&older);
            context.sink.say(format!("restoring {} from {} in {}", system.name, from.name(), bucket.name())).await;
            (restore(from).run(&report).await?, from)
        }
        (result, from) => (result?, from),
    };
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
    let detail = format!("{} in the server + {} expired = what the bytes hold", restored.keys, restored.expired);
    outcome = outcome.check("keys", true, detail);
    if let Origin::Aof(point) = from {
        let cut = match point.cut {
            true => format!("cut by redis-check-aof at {}", point.at.format("%H:%M:%S UTC")),
            false => "loaded to its end".to_owned(),
        };
        let detail = format!("{cut}: {} commands replayed, {} left out", restored.commands, restored.cut_commands);
        context.sink.say(format!("append-only file {detail}")).await;
        outcome = outcome.check("append-only file", true, detail);
    }
    for applied in &restored.policy {
        let said = in_words(applied);
        context.sink.say(format!("{} {said}", applied.prefix)).await;
        outcome = outcome.check(format!("keys {}", applied.prefix), true, said);
    }
    outcome.measures.extend(context.selected_loss(system, restored.at));
    Ok(outcome)
}

/// The newest snapshot before a moment whose append-only file turned out to be damaged, if a person takes it. It is older
/// than what was chosen, so nobody takes it in silence.
async fn instead(
    context: &Context,
    bucket: &crate::store::Bucket,
    at: DateTime<Utc>,
    failure: Failure,
) -> Result<String, Failure> {
    let Ok((snapshots, _)) = redis::list(bucket).await else { return Err(failure) };
    let Some(newest) = snapshots.into_iter().filter(|s| s.at <= at).max_by_key(|s| s.at) else { return Err(failure) };
    let (time, older) = (newest.at.format("%H:%M:%S UTC"), (at - newest.at).as_seconds_f64());
    let choice =
        |value: &str, label: String, detail: String| Choice { value: value.into(), label, detail: Some(detail) };
    let options = vec![
        choice(
            "snapshot",
            format!("restore the snapshot of {time} instead"),
            format!("{} keys; {older:.1} s older than the point that was chosen", newest.keys),
        ),
        choice("fail", "let the step fail".to_owned(), "nothing was changed; another point can be chosen".to_owned()),
    ];
    let prompt = format!("{}: {}", failure.what, failure.why);
    match context.ask(Ask::Choose { prompt, options, default: None }).await {
        Some(Answer::Chosen { value }) if value == "snapshot" => Ok(newest.label),
        _ => Err(failure),
    }
}

fn rule((prefix, declared): (&String, &KeyPolicy)) -> Rule {
    let policy = match declared {
        KeyPolicy::Restore => Policy::Restore,
        KeyPolicy::Flush => Policy::Flush,
        KeyPolicy::Quarantine => Policy::Quarantine,
        KeyPolicy::Rebuild(how) => Policy::Rebuild { how: how.clone() },
    };
    Rule { prefix: prefix.clone(), policy }
}

/// What became of the keys, and what a person has yet to do.
fn in_words(applied: &Applied) -> String {
    let keys = applied.keys;
    match (applied.policy.as_str(), &applied.how) {
        ("flush", _) => format!("flush: {keys} removed, 0 left"),
        ("rebuild", how) => {
            format!("rebuild: {keys} removed, 0 left; to do: {}", how.as_deref().unwrap_or("make them anew"))
        }
        ("quarantine", _) => format!("quarantine: {keys} renamed to {}{}…", redis::QUARANTINE, applied.prefix),
        (policy, _) => format!("{policy}: {keys} kept"),
    }
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
