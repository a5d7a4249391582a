use std::time::Duration;

use futures::future::BoxFuture;

use crate::event::{Failure, Outcome};
use crate::inventory::{System, SystemDetail};
use crate::recovery;
use crate::system::postgres::{self, Backup, Taken};

use super::{Action, Context};

/// `postgres.backup`: a base backup of the source, streamed into its bucket, or by the program that keeps its backups.
pub struct PostgresBackup {
    pub full_every: Option<Duration>,
}

impl Action for PostgresBackup {
    fn run(&self, context: Context) -> BoxFuture<'_, Outcome> {
        Box::pin(async move { self.backup(&context).await.unwrap_or_else(Outcome::failed) })
    }
}

impl PostgresBackup {
    async fn backup(&self, context: &Context) -> Result<Outcome, Failure> {
        let system = context.target()?;
        if let Some(managed) = system.managed() {
            let why = format!("{} makes them by itself", managed.by.title());
            return Err(Failure::new(format!("no base backup of {} is taken", system.name), why)
                .now("Leave this step out for it; `lifeboat check` says what its cloud reports."));
        }
        let (report, reports) = postgres::Reporter::channel(64);
        let (url, cancel) = (context.source_url(system)?, context.cancel.clone());
        let engine = recovery::engine_of(system)?;
        let work = async {
            match &engine {
                // The reports end with it.
                Some(engine) => {
                    let report = report;
                    let backup = engine.backup(&url, &report, &cancel).await?;
                    Ok(Taken { backup, full_because: None })
                }
                None => {
                    let (bucket, bin, full_every) = (context.bucket(system)?, bin(system), self.full_every);
                    Backup { url, bucket, bin, full_every, cancel, report }.run().await
                }
            }
        };
        let (taken, ()) = tokio::join!(work, pass_on(context, reports));
        let Taken { backup, full_because } = taken?;
        let unused = engine.as_ref().filter(|_| self.full_every.is_some());
        let unused = unused.map(|engine| format!("; `full_every` is not for {}, which decides itself", engine.word()));
        let since = backup.parent.as_ref().map_or(String::new(), |parent| format!(", what changed since {parent}"));
        let because = full_because.as_ref().map_or(String::new(), |why| format!("; not an incremental one: {why}"));
        let summary = format!(
            "base backup {} of {}{since}: {} bytes, {} in the store, usable from {}{because}{}",
            backup.label,
            system.name,
            backup.bytes,
            backup.stored_bytes,
            backup.stop_lsn,
            unused.unwrap_or_default()
        );
        let outcome = Outcome::passed(summary)
            .fact("label", backup.label)
            .fact("bytes", backup.bytes)
            .fact("stored_bytes", backup.stored_bytes)
            .fact("start_lsn", backup.start_lsn.to_string())
            .fact("stop_lsn", backup.stop_lsn.to_string());
        let outcome = backup.parent.into_iter().fold(outcome, |outcome, parent| outcome.fact("parent", parent));
        Ok(full_because.into_iter().fold(outcome, |outcome, why| outcome.fact("full_because", why)))
    }
}

/// Where the inventory says PostgreSQL's programs are.
pub(super) fn bin(system: &System) -> Option<std::path::PathBuf> {
    match &system.detail {
        SystemDetail::Postgres(detail) => detail.bin.clone(),
        SystemDetail::Redis(_) => None,
    }
}

/// What long work says, into the drill.
pub(super) async fn pass_on(context: &Context, mut reports: tokio::sync::mpsc::Receiver<postgres::Report>) {
    while let Some(report) = reports.recv().await {
        match report {
            postgres::Report::Progress(progress) => context.sink.progress(progress).await,
            postgres::Report::Line(line) => context.sink.say(line).await,
        }
    }
}
