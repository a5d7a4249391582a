use futures::future::BoxFuture;

use crate::event::{Failure, Outcome};
use crate::inventory::{System, SystemDetail};
use crate::recovery;
use crate::system::postgres::{self, Backup};

use super::{Action, Context};

/// `postgres.backup`: a base backup of the source, streamed into its bucket, or by the program that keeps its backups.
pub struct PostgresBackup;

impl Action for PostgresBackup {
    fn run(&self, context: Context) -> BoxFuture<'_, Outcome> {
        Box::pin(async move { backup(&context).await.unwrap_or_else(Outcome::failed) })
    }
}

async fn backup(context: &Context) -> Result<Outcome, Failure> {
    let system = context.target()?;
    if let Some(managed) = system.managed() {
        let why = format!("{} makes them by itself", managed.by.title());
        return Err(Failure::new(format!("no base backup of {} is taken", system.name), why)
            .now("Leave this step out for it; `lifeboat check` says what its cloud reports."));
    }
    let (report, reports) = postgres::Reporter::channel(64);
    let (url, cancel) = (context.source_url(system)?, context.cancel.clone());
    let work = async {
        match recovery::engine_of(system)? {
            // The reports end with it.
            Some(engine) => {
                let report = report;
                engine.backup(&url, &report, &cancel).await
            }
            None => Backup { url, bucket: context.bucket(system)?, bin: bin(system), cancel, report }.run().await,
        }
    };
    let (taken, ()) = tokio::join!(work, pass_on(context, reports));
    let taken = taken?;
    let summary = format!(
        "base backup {} of {}: {} bytes, {} in the store, usable from {}",
        taken.label, system.name, taken.bytes, taken.stored_bytes, taken.stop_lsn
    );
    Ok(Outcome::passed(summary)
        .fact("label", taken.label)
        .fact("bytes", taken.bytes)
        .fact("stored_bytes", taken.stored_bytes)
        .fact("start_lsn", taken.start_lsn.to_string())
        .fact("stop_lsn", taken.stop_lsn.to_string()))
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
