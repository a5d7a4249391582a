//! Where the bytes come from and how they get onto the disk: the base backup, and WAL ahead of the server.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::super::engine::{Engine, Reader};
use super::super::report::Meter;
use super::super::repository::Repository;
use super::super::wal::{Counters, Location, Origin, Stager, Supply, Window};
use super::base::Base;
use super::{Restore, Staging, Target, config, target, unpack};
use crate::clock;
use crate::event::{Failure, Unit};
use crate::process::Account;
use crate::store::{Bucket, Encryption, Keys};

impl Restore {
    /// Where `restore_command`, which runs as another user and in another environment, finds WAL.
    pub(super) async fn origin(&self, target: &Target, account: Option<&Account>) -> Result<Origin, Failure> {
        let (bucket, location) = match &self.from {
            Repository::Bucket { bucket, location } => (bucket, location),
            Repository::Engine(engine) => return Ok(Origin::Engine(engine.clone())),
        };
        let keys = match bucket.keys().await? {
            None => Keys::Usual,
            Some(given) => {
                config::place(&target.path.join(target::OURS), target::KEYS, given.to_file().expose(), account)
                    .map_err(|error| Failure::new("writing the keys for restore_command failed", error))?;
                Keys::File(target.ours(target::KEYS))
            }
        };
        let (url, prefix) = (bucket.url().to_owned(), location.prefix.clone());
        let encryption = server_encryption(bucket, target, account)?;
        Ok(Origin::Bucket(Location { url, prefix, keys, encryption }))
    }

    /// Begins to stage WAL.
    pub(super) fn stage(
        &self,
        target: &Target,
        base: &Base,
        account: Option<&Account>,
        counters: &Arc<Counters>,
        window: &Window,
        stop: &CancellationToken,
    ) -> Result<Staging, Failure> {
        let supply = match &self.from {
            Repository::Bucket { bucket, .. } => Supply::Bucket(bucket.clone()),
            Repository::Engine(engine) => {
                let engine = engine.clone().of_cluster(&target.path);
                Supply::Engine(Arc::new(Reader::in_directory(engine, &target.ours("stage"))))
            }
        };
        let stager = Stager::prepare(
            supply,
            target.ours("stage"),
            self.plan.segments.clone(),
            base.system_identifier,
            account.cloned(),
            Arc::clone(window),
            Arc::clone(counters),
        )
        .map_err(|error| Failure::new("the WAL stage cannot be set up", error))?;
        let (runtime, stop) = (tokio::runtime::Handle::current(), stop.clone());
        Ok(tokio::task::spawn_blocking(move || stager.run(&runtime, &stop)))
    }

    /// Has another program put the base backup beside what is ours in the directory, and then in its place.
    pub(super) async fn put(
        &self,
        engine: &Engine,
        target: &Target,
        account: Option<&Account>,
        stop: &CancellationToken,
    ) -> Result<(), Failure> {
        use std::os::unix::fs::DirBuilderExt as _;
        let beside = target.ours("coming");
        let failed = |error: std::io::Error| Failure::new(format!("preparing {} failed", beside.display()), error);
        std::fs::DirBuilder::new().mode(0o700).create(&beside).map_err(failed)?;
        account.map_or(Ok(()), |account| account.give(&beside)).map_err(failed)?;
        engine.restore(&self.plan.label, &beside, &self.report, stop).await?;
        target.settle(&beside)
    }

    /// Unpacks one backup after the other while the stager works; a WAL segment that cannot be used ends it early. They count
    /// what is done together.
    pub(super) async fn unpack(
        &self,
        works: Vec<unpack::Unpack>,
        counters: &Counters,
        staging: Option<&mut Staging>,
        stop: &CancellationToken,
    ) -> Result<(), Failure> {
        let Some(done) = works.first().map(|work| Arc::clone(&work.done)) else { return Ok(()) };
        let total = works.iter().flat_map(|work| &work.parts).map(|part| part.raw_bytes).sum();
        let mut base = Meter::new("base backup", Unit::Bytes, Some(total));
        let mut wal = Meter::new("WAL", Unit::Segments, Some(self.plan.segments.len() as u64));
        let mut show = |counters: &Counters, done: u64| {
            let delivered = counters.delivered.load(Ordering::Relaxed);
            let name = delivered.checked_sub(1).and_then(|n| self.plan.segments.get(usize::try_from(n).ok()?));
            for progress in [base.tick(done, None), wal.tick(delivered, name.cloned())].into_iter().flatten() {
                self.report.progress(progress);
            }
        };
        let running = async {
            for work in works {
                work.run(stop).await?;
            }
            Ok::<_, Failure>(())
        };
        tokio::pin!(running);
        let staged = async {
            match staging {
                Some(staging) => staging.await,
                None => std::future::pending().await,
            }
        };
        tokio::pin!(staged);
        let mut all_staged = false;
        loop {
            tokio::select! {
                result = &mut running => {
                    if self.cancel.is_cancelled() {
                        return Err(Failure::new("the restore was cancelled", "while the base backup was unpacked"));
                    }
                    result?;
                    show(counters, total);
                    return Ok(());
                }
                result = &mut staged, if !all_staged => {
                    all_staged = true;
                    result.map_err(|error| Failure::new("staging WAL broke off", error))?.map_err(|error| {
                        Failure::new("the WAL cannot be used", error).now("choose a target before it, or repair the archive")
                    })?;
                }
                () = clock::sleep(Duration::from_millis(100)) => show(counters, done.load(Ordering::Relaxed).min(total)),
            }
        }
    }
}

/// As the keys to the bucket, the private keys that WAL is read with.
fn server_encryption(bucket: &Bucket, target: &Target, account: Option<&Account>) -> Result<Encryption, Failure> {
    match bucket.encryption().identity() {
        None => Ok(Encryption::default()),
        Some(Ok(text)) => {
            config::place(&target.path.join(target::OURS), target::IDENTITY, text.expose(), account)
                .map_err(|error| Failure::new("writing the identity for restore_command failed", error))?;
            Ok(Encryption::by_file(target.ours(target::IDENTITY)))
        }
        // A backup in the clear is restored without.
        Some(Err(why)) => {
            tracing::warn!(why, "restore_command gets no identity");
            Ok(Encryption::default())
        }
    }
}
