//! Lifeboat's own backups onto the disk. Of an incremental one, the full one and all that follows it are unpacked side by side,
//! each file verified, and PostgreSQL's own `pg_combinebackup` makes one cluster of them.

use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio_util::sync::CancellationToken;

use super::super::base::{Manifest, PgManifest};
use super::super::engine::verify;
use super::super::wal::Counters;
use super::target::alive;
use super::unpack::Unpack;
use super::{Restore, Staging, Target};
use crate::clock;
use crate::digest::Digest;
use crate::event::Failure;
use crate::process::{Account, End, Spec, living_with};
use crate::store::Bucket;

const PROGRAM: &str = "pg_combinebackup";

/// In our folder: the backups of the chain.
const CHAIN: &str = "chain";

/// In our folder: what is made of them.
const COMBINED: &str = "combined";

/// In the environment of the program: the data directory that it works for.
const FOR: &str = "LIFEBOAT_COMBINES";

/// What was killed is gone by then.
const PATIENCE: Duration = Duration::from_secs(10);

/// An error when the program is missing.
pub fn look_for_program(bin: &Path, chain: &[Manifest]) -> Result<(), Failure> {
    let (Some(newest), false) = (chain.last().filter(|_| chain.len() > 1), bin.join(PROGRAM).exists()) else {
        return Ok(());
    };
    let major = newest.version_number / 10_000;
    Err(Failure::new(
        format!("backup {} is incremental, and {PROGRAM} was not found", newest.label),
        format!("there is none in {}", bin.display()),
    )
    .now(format!("install the client programs of PostgreSQL {major} there (Debian: postgresql-client-{major})")))
}

/// Ends what a run that was killed left at work on this data directory.
pub async fn end_orphans(data: &Path) {
    let Some(data) = data.to_str() else { return };
    let deadline = clock::boot_now() + PATIENCE;
    while clock::boot_now() < deadline {
        let found = living_with(&[(FOR, data)]);
        for pid in found.iter().filter_map(|pid| i32::try_from(*pid).ok()) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        if !found.into_iter().any(alive) {
            return;
        }
        clock::sleep(Duration::from_millis(20)).await;
    }
}

/// What it takes.
pub struct Work<'a> {
    pub bin: &'a Path,
    pub bucket: &'a Bucket,
    /// The full backup first.
    pub chain: &'a [Manifest],
    pub account: Option<&'a Account>,
    pub counters: &'a Counters,
}

impl Work<'_> {
    /// How a backup's files come into `directory`, and its `backup_manifest`.
    async fn unpack(
        &self,
        manifest: &Manifest,
        directory: PathBuf,
        done: &Arc<AtomicU64>,
    ) -> Result<(Unpack, Vec<u8>), Failure> {
        let raw = manifest.read_backup_manifest(self.bucket).await?;
        let pg = PgManifest::parse(&raw).map_err(|why| {
            Failure::new(format!("{} of the base backup is damaged", manifest.backup_manifest.key), why)
                .now("choose another base backup")
        })?;
        let unpack = Unpack {
            bucket: self.bucket.clone(),
            directory,
            parts: manifest.parts.clone(),
            manifest: Arc::new(pg),
            owner: self.account.cloned(),
            done: Arc::clone(done),
        };
        Ok((unpack, raw))
    }
}

impl Restore {
    /// Brings the backup's files into the target's directory.
    pub(super) async fn fetch(
        &self,
        work: Work<'_>,
        target: &Target,
        staging: Option<&mut Staging>,
        stop: &CancellationToken,
    ) -> Result<(), Failure> {
        let [full] = work.chain else { return self.combine(work, target, staging, stop).await };
        let (unpack, _) = work.unpack(full, target.path.clone(), &Arc::default()).await?;
        self.unpack(vec![unpack], work.counters, staging, stop).await
    }

    /// Brings a chain into the target's directory. What it needs beside it is gone afterwards, also when it fails.
    async fn combine(
        &self,
        work: Work<'_>,
        target: &Target,
        staging: Option<&mut Staging>,
        stop: &CancellationToken,
    ) -> Result<(), Failure> {
        let (chain, combined) = (target.ours(CHAIN), target.ours(COMBINED));
        let result = async {
            let parts = self.unpack_chain(&work, &chain, staging, stop).await?;
            self.run_program(&work, target, &parts, &combined, stop).await?;
            remove(&chain).await?;
            let (place, stop) = (combined.clone(), stop.clone());
            let verified = tokio::task::spawn_blocking(move || verify::verify(&place, &stop)).await;
            let verified = verified.map_err(|error| Failure::new("verifying the base backup broke off", error))??;
            if verified.is_none() {
                return Err(Failure::new("the combined base backup cannot be verified", "it has no backup_manifest"));
            }
            target.settle(&combined)
        };
        let result = result.await;
        if result.is_err() {
            // The first failure is what is told; the next run begins with an empty directory anyway.
            let _ = remove(&chain).await.and(remove(&combined).await);
        }
        result
    }

    /// Every backup of the chain into a directory of its own; returns these.
    async fn unpack_chain(
        &self,
        work: &Work<'_>,
        chain: &Path,
        staging: Option<&mut Staging>,
        stop: &CancellationToken,
    ) -> Result<Vec<PathBuf>, Failure> {
        let done = Arc::default();
        let (mut directories, mut parts) = (Vec::new(), Vec::new());
        make(chain, work.account)?;
        for (nth, manifest) in work.chain.iter().enumerate() {
            let directory = chain.join(format!("{nth:02}-{}", manifest.label));
            let (unpack, raw) = work.unpack(manifest, directory.clone(), &done).await?;
            let next = work.chain.get(nth + 1).and_then(|child| child.parent.as_ref());
            if next.is_some_and(|parent| parent.backup_manifest != Digest::of(&raw)) {
                return Err(Failure::new(
                    format!("the base backup {} is not the one that the next builds on", manifest.label),
                    "its backup_manifest has another SHA-256",
                )
                .now("choose another base backup"));
            }
            make(&directory, work.account)?;
            write(&directory.join("backup_manifest"), &raw, work.account)?;
            parts.push(unpack);
            directories.push(directory);
        }
        self.unpack(parts, work.counters, staging, stop).await?;
        Ok(directories)
    }

    async fn run_program(
        &self,
        work: &Work<'_>,
        target: &Target,
        directories: &[PathBuf],
        to: &Path,
        stop: &CancellationToken,
    ) -> Result<(), Failure> {
        self.report.say(format!("{PROGRAM} makes one of {} backups", directories.len())).await;
        // The server begins by syncing all it has.
        let how = ["--no-sync", if shares_blocks(directories) { "--clone" } else { "--copy" }, "-o"];
        let spec = Spec::new(work.bin.join(PROGRAM)).args(how).arg(to).args(directories);
        let spec = spec.env("LC_ALL", "C").env(FOR, &target.path).cwd("/").run_as(work.account.cloned());
        let captured = spec.capture(1 << 16, stop).await;
        let captured = captured.map_err(|error| Failure::new(format!("{PROGRAM} could not be run"), error))?;
        match captured.end {
            End::Exited(0) => Ok(()),
            End::Cancelled => Err(Failure::new("the restore was cancelled", "while the backups were combined")),
            end => Err(Failure::new(
                format!("{PROGRAM} failed"),
                format!("{} ({end})", captured.stderr_text().replace('\n', "; ")),
            )
            .now("look at the space on the disk, else choose another base backup")),
        }
    }
}

/// Whether the file system makes copies that cost neither time nor space (XFS, Btrfs, APFS …).
fn shares_blocks(directories: &[PathBuf]) -> bool {
    let probe = |directory: &PathBuf| {
        let copy = directory.with_extension("probe");
        let shared = reflink_copy::reflink(directory.join("backup_manifest"), &copy).is_ok();
        let _ = std::fs::remove_file(copy);
        shared
    };
    directories.first().is_some_and(probe)
}

fn make(path: &Path, account: Option<&Account>) -> Result<(), Failure> {
    let made = std::fs::DirBuilder::new().mode(0o700).create(path);
    let made = made.and_then(|()| account.map_or(Ok(()), |account| account.give(path)));
    made.map_err(|error| Failure::new(format!("creating {} failed", path.display()), error))
}

fn write(path: &Path, bytes: &[u8], account: Option<&Account>) -> Result<(), Failure> {
    let file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    let written = file.and_then(|mut file| std::io::Write::write_all(&mut file, bytes));
    let written = written.and_then(|()| account.map_or(Ok(()), |account| account.give(path)));
    written.map_err(|error| Failure::new(format!("writing {} failed", path.display()), error))
}

async fn remove(path: &Path) -> Result<(), Failure> {
    match tokio::fs::remove_dir_all(path).await {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Failure::new(format!("removing {} failed", path.display()), error))
        }
        _ => Ok(()),
    }
}
