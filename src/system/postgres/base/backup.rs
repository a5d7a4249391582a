//! A base backup streamed into the bucket: `pg_basebackup` to its standard output, cut at file borders into compressed
//! parts that a restore unpacks side by side.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio::sync::mpsc;
use tokio_postgres::Client;
use tokio_util::sync::CancellationToken;

use super::checksum::PgManifest;
use super::cut::{Cut, Cutter, Pipe};
use super::incremental::Since;
use super::manifest::{CLIENT_SETTINGS, Manifest, Part};
use crate::clock;
use crate::event::{BaseBackup, Failure, Lsn, Stream, Unit};
use crate::mutant;
use crate::process::{End, Spec};
use crate::secret::Secret;
use crate::store::{Bucket, StoreError};
use crate::system::postgres::connect::Url;
use crate::system::postgres::control::{Floor, programs};
use crate::system::postgres::error::PgError;
use crate::system::postgres::identity::Identity;
use crate::system::postgres::names::Names;
use crate::system::postgres::report::{Meter, Reporter};
use crate::system::postgres::wal::{Segment, WalFile, read_id};

/// How long the archive may take for the last WAL that the backup needs.
const ARCHIVE_WAIT: Duration = Duration::from_secs(120);

/// How long `pg_basebackup` may say nothing: it waits for the archive too, without an end of its own.
const SILENCE: Duration = Duration::from_secs(180);

/// Takes a base backup of a primary.
pub struct Backup {
    /// A superuser or a role that may replicate.
    pub url: Secret,
    /// The system's folder.
    pub bucket: Bucket,
    /// Directory of PostgreSQL's programs; found when absent.
    pub bin: Option<PathBuf>,
    /// An incremental backup where the last full one is younger than this and the server can; always a full one when absent.
    pub full_every: Option<Duration>,
    pub cancel: CancellationToken,
    pub report: Reporter,
}

/// A backup that was taken.
#[derive(Debug, Clone, PartialEq)]
pub struct Taken {
    pub backup: BaseBackup,
    /// In a sentence, why it is a full one where an incremental one was asked for.
    pub full_because: Option<String>,
}

/// The backup under way.
struct Job<'a> {
    url: &'a Url,
    client: &'a Client,
    source: &'a Source,
    bin: &'a Path,
    label: &'a str,
    started: DateTime<Utc>,
}

struct Source {
    identity: Identity,
    segment_size: u64,
    checksums: bool,
    summarizes: bool,
    floor: Floor,
    client_settings: BTreeMap<String, String>,
    bytes: u64,
}

impl Backup {
    /// Returns once the backup is whole and the WAL up to its stop is in the archive. On failure nothing of it counts.
    pub async fn run(self) -> Result<Taken, Failure> {
        let url = Url::parse(&self.url)?;
        let client = url.connect().await?;
        let source = look(&client, &url.address()).await?;
        self.refuse_foreign_bucket(&source).await?;
        let bin = programs(self.bin.as_deref(), source.identity.major()).await?;
        let started = server_time(&client).await?;
        let label = self.reserve(started).await?;
        self.report.say(format!("backup {label} of {} begins", source.identity.fingerprint())).await;
        let (since, mut full_because) = self.since(&source, started).await;
        let job = Job { url: &url, client: &client, source: &source, bin: &bin, label: &label, started };
        let work = async {
            let cut = self.cut(&job, since.as_ref(), &mut full_because).await?;
            self.complete(&job, cut, since.filter(|_| full_because.is_none())).await
        };
        let result = work.await;
        if result.is_err() {
            self.clear(&label).await;
        }
        Ok(Taken { backup: result?.summary(), full_because })
    }

    /// What an incremental backup can be taken since; else why there is none, where one is asked for.
    async fn since(&self, source: &Source, now: DateTime<Utc>) -> (Option<Since>, Option<String>) {
        let Some(full_every) = self.full_every else { return (None, None) };
        match Since::find(&self.bucket, &source.identity, (source.summarizes, source.checksums), full_every, now).await
        {
            Ok(since) => {
                self.report.say(format!("only what changed since {} is taken", since.parent.label)).await;
                (Some(since), None)
            }
            Err(why) => {
                self.report.say(format!("a full backup is taken: {why}")).await;
                (None, Some(why))
            }
        }
    }

    /// Has the server send a backup: a full one after all where it gives nothing of an incremental one.
    async fn cut(
        &self,
        job: &Job<'_>,
        since: Option<&Since>,
        full_because: &mut Option<String>,
    ) -> Result<Cut, PgError> {
        let came = AtomicBool::new(false);
        let cut = self.stream(job, since, &came).await;
        match (cut, since) {
            (Err(error), Some(since)) if !came.load(Ordering::Relaxed) && !self.cancel.is_cancelled() => {
                let why = format!("the source gave nothing since {}: {}", since.parent.label, Failure::from(error).why);
                self.report.say(format!("a full backup is taken: {why}")).await;
                *full_because = Some(why);
                self.stream(job, None, &came).await
            }
            (cut, _) => cut,
        }
    }

    async fn refuse_foreign_bucket(&self, source: &Source) -> Result<(), PgError> {
        let id = read_id(&self.bucket).await.map_err(|error| Failure::new("the archive cannot be read", error))?;
        match id {
            Some(id) if id.system_identifier != source.identity.system_identifier => Err(Failure::new(
                format!("{} belongs to another cluster", self.bucket.name()),
                format!("system identifier {} there, {} here", id.system_identifier, source.identity.system_identifier),
            )
            .now("give this system a folder of its own: `prefix` in the inventory")
            .into()),
            _ => Ok(()),
        }
    }

    /// Takes a label that nobody else has.
    async fn reserve(&self, started: DateTime<Utc>) -> Result<String, PgError> {
        let mut suffix = 0;
        loop {
            let mut label = started.format("%Y%m%dT%H%M%SZ").to_string();
            if suffix > 0 {
                label.push_str(&format!("-{suffix}"));
            }
            let note = format!("{{\"started\":\"{}\"}}\n", started.to_rfc3339());
            match self.bucket.create(&format!("base/{label}/started.json"), note).await {
                Ok(()) => return Ok(label),
                Err(StoreError::Exists { .. }) => suffix += 1,
                Err(error) => return Err(error.into()),
            }
        }
    }

    async fn clear(&self, label: &str) {
        // Without manifest.json it is invisible; what stays costs only space.
        for object in self.bucket.list(&format!("base/{label}")).await.unwrap_or_default() {
            if let Err(error) = self.bucket.delete(&object.key).await {
                tracing::warn!(%error, "a part of a failed backup stays in the bucket");
            }
        }
    }

    /// Waits for its WAL, and writes its manifest.
    async fn complete(&self, job: &Job<'_>, cut: Cut, since: Option<Since>) -> Result<Manifest, PgError> {
        let Job { url, client, source, label, started, .. } = *job;
        let stopped = server_time(client).await?;
        let raw = cut.backup_manifest.ok_or_else(|| {
            Failure::new("the backup has no backup_manifest", "pg_basebackup did not send one")
                .now("PostgreSQL 13 or later is needed")
        })?;
        let pg = PgManifest::parse(&raw).map_err(|why| Failure::new("the backup's own manifest is not usable", why))?;
        if pg.system_identifier.is_some_and(|id| id != source.identity.system_identifier) {
            return Err(Failure::new("the backup is of another cluster", "the server was exchanged meanwhile").into());
        }
        self.wait_for_wal(client, source, pg.timeline, pg.start, pg.end).await?;
        let backup_manifest = self.store_manifest(label, &raw).await?;
        if let Some(since) = &since {
            since.is_still_there(&self.bucket).await?;
        }
        let parent = since.map(|since| since.parent);
        let names = match Names::ask(url).await {
            Ok(names) => Some(names.store(&self.bucket, label).await?),
            Err(error) => {
                self.report.say(format!("the tables' names are not kept with the backup: {error}")).await;
                None
            }
        };
        let manifest = Manifest {
            format: Manifest::format(parent.as_ref()),
            label: label.to_owned(),
            system_identifier: source.identity.system_identifier,
            timeline: pg.timeline,
            start_lsn: pg.start,
            stop_lsn: pg.end,
            started,
            stopped,
            server_version: source.identity.version.clone(),
            version_number: source.identity.version_number,
            wal_segment_bytes: source.segment_size,
            data_checksums: source.checksums,
            floor: source.floor,
            client_settings: source.client_settings.clone(),
            bytes: pg.files.values().map(|file| file.size).sum(),
            parts: cut.parts,
            backup_manifest,
            names,
            parent,
            is_sealed: self.bucket.encryption().is_on(),
        };
        let key = Manifest::key(label);
        let json = self.bucket.seal_manifest(&key, &manifest, &manifest);
        let json = json.map_err(|error| Failure::new("the backup's manifest could not be written", error))?;
        self.bucket.settle(&key, json).await?;
        Ok(manifest)
    }

    async fn store_manifest(&self, label: &str, raw: &[u8]) -> Result<Part, PgError> {
        let key = format!("base/{label}/backup_manifest.zst");
        let stored = zstd::bulk::compress(raw, 3).map_err(PgError::io("compressing the backup's manifest"))?;
        let stored = self.bucket.encryption().seal(stored, None);
        let (digest, bytes) = (crate::digest::Digest::of(&stored), stored.len() as u64);
        self.bucket.create(&key, stored).await?;
        Ok(Part { key, digest, bytes, raw_bytes: raw.len() as u64 })
    }

    /// Runs `pg_basebackup` and cuts its tar. Sets `came` with its first byte.
    async fn stream(&self, job: &Job<'_>, since: Option<&Since>, came: &AtomicBool) -> Result<Cut, PgError> {
        let Job { url, client, source, bin, label, .. } = *job;
        let mut spec = Spec::new(bin.join("pg_basebackup"))
            .args(["-D", "-", "-F", "tar", "-X", "none", "--checkpoint=fast", "--no-sync", "--no-password"])
            .args(["--manifest-checksums=CRC32C", "--label"])
            .arg(label)
            .env("LC_ALL", "C");
        if let Some(since) = since {
            spec = spec.arg("--incremental").arg(since.file.path());
        }
        for (name, value) in url.environment()? {
            spec = match name {
                "PGPASSWORD" if mutant::removes("10d") => spec.arg(format!("--dbname=password={value}")),
                _ => spec.env(name, value),
            };
        }
        // How much has changed nobody knows before.
        let total = since.is_none().then_some(source.bytes);
        let stop = self.cancel.child_token();
        let (output, from_child) = mpsc::channel(64);
        let (to_cutter, tar) = mpsc::channel(64);
        let cutter = Cutter {
            bucket: self.bucket.clone(),
            folder: format!("base/{label}"),
            runtime: tokio::runtime::Handle::current(),
            part_size: (source.bytes / 16).clamp(4 << 20, 256 << 20),
            meter: Meter::new("base backup", Unit::Bytes, total),
            report: self.report.clone(),
        };
        let cutting = tokio::task::spawn_blocking(move || cutter.run(Pipe::new(tar)));
        let working =
            async { tokio::join!(spec.stream(output, &stop, |_| {}), relay(from_child, to_cutter, came, &stop)) };
        tokio::pin!(working);
        let mut archiver = None;
        let (end, (stderr, silent)) = tokio::select! {
            ended = &mut working => ended,
            trouble = failing_archiver(client) => {
                archiver = Some(trouble);
                stop.cancel();
                working.await
            }
        };
        let cut = cutting.await.map_err(|error| Failure::new("the backup's compressor broke", error))?;
        if let Some(trouble) = archiver {
            return Err(Failure::new("the source cannot archive its WAL, and the backup would wait for ever", trouble)
                .now("look at the log of the source: archive_command fails")
                .into());
        }
        if silent {
            return Err(Failure::new(
                "pg_basebackup went silent",
                format!(
                    "nothing came for {} s; it waits for the archive when archive_command fails",
                    SILENCE.as_secs()
                ),
            )
            .now("look at pg_stat_archiver and the log of the source")
            .into());
        }
        match end? {
            // The bucket's error comes first: pg_basebackup only saw a closed pipe.
            End::Exited(0) => cut,
            End::Cancelled if self.cancel.is_cancelled() => {
                Err(Failure::new("the backup was cancelled", "nothing of it counts").into())
            }
            end => {
                // What gave nothing failed by itself, and the cutter only saw the end of it.
                if came.load(Ordering::Relaxed) {
                    cut?;
                }
                Err(Failure::new("pg_basebackup failed", format!("{} ({end})", complaint(&stderr)))
                    .now("the role needs REPLICATION, and pg_hba.conf a line for it")
                    .into())
            }
        }
    }

    /// A backup without its WAL cannot be made consistent: it counts when the archive has it.
    async fn wait_for_wal(
        &self,
        client: &Client,
        source: &Source,
        timeline: u32,
        start: Lsn,
        stop: Lsn,
    ) -> Result<(), PgError> {
        let (mut next, last) = (
            Segment::containing(start, timeline, source.segment_size),
            Segment::before(stop, timeline, source.segment_size),
        );
        let deadline = clock::boot_now() + ARCHIVE_WAIT;
        while next <= last {
            let file = WalFile::Segment(next.to_string());
            if self.bucket.exists(&file.key()).await? {
                next = next.next();
            } else if clock::boot_now() > deadline || self.cancel.is_cancelled() {
                let row = client.query_opt("select last_failed_wal from pg_stat_archiver", &[]).await.ok().flatten();
                let failed = row.and_then(|row| row.get::<_, Option<String>>(0));
                let failed = failed.map_or(String::new(), |name| format!("; the source last failed to archive {name}"));
                return Err(Failure::new(
                    "the WAL that the backup needs did not reach the archive",
                    format!("{next} is not in {}{failed}", self.bucket.name()),
                )
                .now("check that archive_command on the source is `lifeboat wal push` into this bucket")
                .into());
            } else {
                clock::sleep(Duration::from_millis(100)).await;
            }
        }
        Ok(())
    }
}

/// Ends when the archiver fails again and again; `pg_basebackup` would only wait.
async fn failing_archiver(client: &Client) -> String {
    let mut baseline = None;
    loop {
        let row = client
            .query_opt(
                "select failed_count, last_failed_wal from pg_stat_archiver
                  where last_archived_time is null or last_failed_time > last_archived_time",
                &[],
            )
            .await;
        if let Ok(Some(row)) = row {
            let failed: i64 = row.get(0);
            let since = *baseline.get_or_insert(failed);
            if failed >= since + 3 {
                return format!(
                    "{} was tried {} times",
                    row.get::<_, Option<String>>(1).unwrap_or_default(),
                    failed - since
                );
            }
        } else {
            baseline = None;
        }
        clock::sleep(Duration::from_secs(1)).await;
    }
}

async fn server_time(client: &Client) -> Result<DateTime<Utc>, PgError> {
    let row = client.query_one("select clock_timestamp()", &[]).await;
    Ok(row.map_err(|error| PgError::sql("asking the source for its time", &error))?.get(0))
}

async fn look(client: &Client, address: &str) -> Result<Source, PgError> {
    let identity = Identity::read(client, address).await?;
    let refuse = |what: &str, why: String, now: &str| PgError::from(Failure::new(what.to_owned(), why).now(now));
    if identity.in_recovery {
        return Err(refuse(
            "the backup is taken from a primary",
            format!("{address} is a standby"),
            "give the URL of the primary",
        ));
    }
    let wrong = |error| PgError::sql("looking at the source", &error);
    let spaces = client
        .query("select spcname::text from pg_tablespace where spcname not in ('pg_default', 'pg_global')", &[])
        .await
        .map_err(wrong)?;
    if !spaces.is_empty() {
        let names: Vec<String> = spaces.iter().map(|row| row.get(0)).collect();
        return Err(refuse(
            "a cluster with tablespaces cannot be backed up by Lifeboat yet",
            format!("it has {}", names.join(", ")),
            "move their tables to pg_default, or use another backup tool for this cluster",
        ));
    }
    let rows = client.query("select name, setting from pg_settings", &[]).await.map_err(wrong)?;
    let settings: BTreeMap<String, String> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    let text = |name: &str| settings.get(name).map_or("", String::as_str);
    let number = |name: &str| text(name).parse::<u32>().unwrap_or(0);
    if text("archive_mode") == "off" {
        return Err(refuse(
            "the source does not archive its WAL",
            "archive_mode is off, and a backup without WAL cannot be restored".to_owned(),
            "set archive_mode=on and archive_command to `lifeboat wal push …`, and restart the source",
        ));
    }
    let bytes: i64 = client
        .query_one("select coalesce(sum(pg_database_size(oid)), 0)::bigint from pg_database", &[])
        .await
        .map_err(wrong)?
        .get(0);
    Ok(Source {
        identity,
        segment_size: u64::from(number("wal_segment_size")),
        checksums: text("data_checksums") == "on",
        summarizes: text("summarize_wal") == "on",
        floor: Floor {
            max_connections: number("max_connections"),
            max_worker_processes: number("max_worker_processes"),
            max_wal_senders: number("max_wal_senders"),
            max_prepared_transactions: number("max_prepared_transactions"),
            max_locks_per_transaction: number("max_locks_per_transaction"),
        },
        client_settings: CLIENT_SETTINGS
            .iter()
            .filter_map(|name| Some(((*name).to_owned(), settings.get(*name)?.clone())))
            .collect(),
        bytes: u64::try_from(bytes).unwrap_or(0),
    })
}

/// What `pg_basebackup` said, on one line: the server's warnings are of how the backup ended, and not why.
fn complaint(stderr: &str) -> String {
    let lines = stderr.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with("WARNING:"));
    lines.collect::<Vec<_>>().join("; ")
}

/// Passes the tar on and keeps the last of what `pg_basebackup` said; also tells whether it went silent.
async fn relay(
    mut from: mpsc::Receiver<(Stream, Vec<u8>)>,
    to: mpsc::Sender<Vec<u8>>,
    came: &AtomicBool,
    stop: &CancellationToken,
) -> (String, bool) {
    let mut said = Vec::new();
    let mut silent = false;
    loop {
        match tokio::time::timeout(SILENCE, from.recv()).await {
            Ok(Some((Stream::Out, bytes))) => {
                came.store(true, Ordering::Relaxed);
                if to.send(bytes).await.is_err() {
                    // The cutter has failed and says why.
                    stop.cancel();
                }
            }
            Ok(Some((_, bytes))) => {
                said.extend_from_slice(&bytes);
                let excess = said.len().saturating_sub(4096);
                said.drain(..excess);
            }
            Ok(None) => return (String::from_utf8_lossy(&said).into_owned(), silent),
            Err(_) => {
                silent = true;
                stop.cancel();
            }
        }
    }
}
