//! Takes a snapshot and ships it.

use std::fs::File;
use std::io::{Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::Duration;

use chrono::{DateTime, Utc};
use redis::ConnectionAddr;
use tokio_util::sync::CancellationToken;

use super::catalogue::{self, FOLDER, FORMAT, Manifest, Source};
use super::connect::{self, Info, Redis, RedisError};
use super::lane::{Lane, Report};
use super::rdb::{self, RdbError, Survey};
use super::transfer::{self, TransferError};
use crate::clock;
use crate::event::{Failure, RedisSnapshot, Unit};
use crate::process::{ProcessError, Spec, find_program};
use crate::secret::Secret;
use crate::store::{Bucket, StoreError};

/// Between looks at a save under way.
const LOOK: Duration = Duration::from_millis(50);
/// A child may begin to write so many seconds after the fork and still be the one we asked for.
const LATE: i64 = 2;

#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    #[error(transparent)]
    Redis(#[from] RedisError),
    #[error("BGSAVE failed at {address}: {why}")]
    Save { address: String, why: String },
    #[error("the RDB of {address} is refused: {source}")]
    Rdb { address: String, source: RdbError },
    #[error("`redis-cli --rdb` from {address} failed: {why}")]
    Stream { address: String, why: String },
    #[error(transparent)]
    Process(#[from] ProcessError),
    #[error(transparent)]
    Transfer(#[from] TransferError),
    #[error("{operation} failed: {source}")]
    Io { operation: &'static str, source: std::io::Error },
    #[error("it was cancelled")]
    Cancelled,
}

impl From<SnapshotError> for Failure {
    fn from(error: SnapshotError) -> Self {
        let error = match error {
            SnapshotError::Redis(error) => return error.into(),
            other => other,
        };
        let now = match &error {
            SnapshotError::Save { .. } => {
                "Look at the server's log: a full disk and too little memory for the fork are the usual causes. Until a save succeeds Redis may refuse writes (MISCONF)."
            }
            SnapshotError::Rdb { .. } => {
                "Nothing was shipped. Take another snapshot; if it is refused too, check the disk."
            }
            SnapshotError::Stream { .. } | SnapshotError::Process(_) => {
                "Check that redis-cli is installed and that the user may run SYNC or PSYNC."
            }
            SnapshotError::Transfer(TransferError::Store(error)) => {
                error.now().unwrap_or("Nothing is listed in the bucket; check it and retry.")
            }
            SnapshotError::Transfer(_) => "Nothing is listed in the bucket; check it and retry.",
            SnapshotError::Io { .. } => "Check the disk and retry.",
            SnapshotError::Redis(_) | SnapshotError::Cancelled => {
                "Nothing is listed in the bucket; retry when it suits."
            }
        };
        Self::new("the Redis snapshot was not taken", error).now(now)
    }
}

/// What to save, and where to.
pub struct Snapshot<'a> {
    pub url: &'a Secret,
    /// Opened at the system's prefix.
    pub bucket: &'a Bucket,
    /// The moment of the snapshot when absent: `20261121T090231.512Z`.
    pub label: Option<&'a str>,
    /// Room for one RDB, for a server whose file cannot be read from here.
    pub scratch: &'a Path,
    pub cancel: &'a CancellationToken,
}

/// What was taken.
#[derive(Debug, Clone)]
pub struct Taken {
    pub snapshot: RedisSnapshot,
    pub manifest: Manifest,
    /// From the first word with the server until the manifest stood in the bucket.
    pub took: Duration,
}

/// An RDB that was looked through.
struct Rdb {
    file: File,
    at: DateTime<Utc>,
    survey: Survey,
    method: &'static str,
    /// Kept until the file was shipped.
    _scratch: Option<tempfile::TempDir>,
}

impl Snapshot<'_> {
    /// Saves, looks through what was saved, ships it, and writes the manifest last. Progress lanes: `save` (keys) and
    /// `upload` (bytes of the RDB).
    pub async fn run(self, report: Report<'_>) -> Result<Taken, SnapshotError> {
        let cancel = self.cancel.clone();
        tokio::select! {
            taken = self.take(report) => taken,
            () = cancel.cancelled() => Err(SnapshotError::Cancelled),
        }
    }

    async fn take(self, report: Report<'_>) -> Result<Taken, SnapshotError> {
        let began = clock::boot_now();
        let redis = Redis::connect(self.url).await?;
        let info = redis.info().await?;
        let saved = match self.local_file(&redis).await? {
            Some(path) => self.save(&redis, &path, report).await?,
            None => None,
        };
        let rdb = match saved {
            Some(rdb) => rdb,
            None => self.stream(&redis).await?,
        };
        let manifest = self.ship(rdb, redis.address(), info.text("redis_version"), report).await?;
        Ok(Taken { snapshot: manifest.snapshot(), manifest, took: clock::boot_now().saturating_sub(began) })
    }

    /// Where the server writes its RDB, when that may be a place on this machine.
    async fn local_file(&self, redis: &Redis) -> Result<Option<PathBuf>, SnapshotError> {
        let info = connect::parse(self.url)?;
        if !connect::is_here(info.addr()) {
            return Ok(None);
        }
        // A server that hides CONFIG is asked for the stream instead.
        let (Ok(Some(dir)), Ok(Some(name))) = (redis.config("dir").await, redis.config("dbfilename").await) else {
            return Ok(None);
        };
        Ok(Some(Path::new(&dir).join(name)).filter(|path| path.is_absolute()))
    }

    /// BGSAVE and the file it leaves; `None` when that file cannot be read or is another server's.
    async fn save(&self, redis: &Redis, path: &Path, report: Report<'_>) -> Result<Option<Rdb>, SnapshotError> {
        let (before, after) = begin_save(redis).await?;
        await_save(redis, report).await?;
        let Ok(file) = File::open(path) else { return Ok(None) };
        let (file, survey) = self.look_through(file, redis.address()).await?;
        // Behind a tunnel `dir` names a directory of another machine, and ours may hold another server's dump.
        let Some(created) = survey.created.filter(|created| *created >= before.timestamp()) else { return Ok(None) };
        let later = created > after.timestamp() + LATE;
        // An automatic save may have come after ours: then its own second is the moment.
        let at = if later { DateTime::from_timestamp(created, 0).unwrap_or(before) } else { before };
        Ok(Some(Rdb { file, at, survey, method: "bgsave", _scratch: None }))
    }

    /// The RDB that the server sends to a new replica.
    async fn stream(&self, redis: &Redis) -> Result<Rdb, SnapshotError> {
        let io = |operation| move |source| SnapshotError::Io { operation, source };
        let program = find_program("redis-cli").ok_or(ProcessError::NotFound { program: "redis-cli".to_owned() })?;
        let scratch = tempfile::Builder::new()
            .prefix("redis-snapshot-")
            .tempdir_in(self.scratch)
            .map_err(io("making room for the RDB"))?;
        let path = scratch.path().join("dump.rdb");
        let before = server_time(redis).await?;
        let spec = cli(program, self.url)?.arg("--rdb").arg(&path);
        let captured = spec.capture(64 * 1024, self.cancel).await?;
        if !captured.end.success() {
            let why = format!("{}: {}", captured.end, captured.stderr_text());
            return Err(SnapshotError::Stream { address: redis.address().to_owned(), why });
        }
        let file = File::open(&path).map_err(io("opening the streamed RDB"))?;
        let (file, survey) = self.look_through(file, redis.address()).await?;
        let created = survey.created.and_then(|created| DateTime::from_timestamp(created, 0));
        let at = created.map_or(before, |created| created.max(before));
        Ok(Rdb { file, at, survey, method: "replication", _scratch: Some(scratch) })
    }

    async fn look_through(&self, mut file: File, address: &str) -> Result<(File, Survey), SnapshotError> {
        let looked = tokio::task::spawn_blocking(move || {
            let survey = rdb::survey(&mut file)?;
            file.seek(SeekFrom::Start(0)).map_err(|source| RdbError::Read { offset: 0, source })?;
            Ok((file, survey))
        });
        let looked = looked.await.map_err(|error| SnapshotError::Io {
            operation: "reading the RDB",
            source: std::io::Error::other(error),
        })?;
        looked.map_err(|source| SnapshotError::Rdb { address: address.to_owned(), source })
    }

    async fn ship(
        &self,
        rdb: Rdb,
        address: &str,
        version: &str,
        report: Report<'_>,
    ) -> Result<Manifest, SnapshotError> {
        let label = match self.label {
            Some(label) => label.to_owned(),
            None => rdb.at.format("%Y%m%dT%H%M%S%.3fZ").to_string(),
        };
        let (object, key) = (format!("{FOLDER}/{label}/dump.rdb.zst"), catalogue::manifest_key(&label));
        if self.bucket.exists(&key).await.map_err(TransferError::from)? {
            return Err(TransferError::from(StoreError::Exists { bucket: self.bucket.name().to_owned(), key }).into());
        }
        let mut lane = Lane::new(report, "upload", Unit::Bytes, Some(rdb.survey.bytes));
        let file = tokio::fs::File::from_std(rdb.file);
        let packed = transfer::pack(file, self.bucket, &object, &mut lane, 0).await?;
        lane.end(packed.raw_bytes);
        if packed.raw_bytes != rdb.survey.bytes {
            let source = RdbError::Cut { offset: packed.raw_bytes };
            return Err(SnapshotError::Rdb { address: address.to_owned(), source });
        }
        let manifest = Manifest {
            format: FORMAT,
            label,
            at: rdb.at,
            source: Source {
                address: address.to_owned(),
                redis_version: version.to_owned(),
                method: rdb.method.to_owned(),
            },
            rdb: rdb.survey,
            raw_bytes: packed.raw_bytes,
            raw_digest: packed.raw_digest,
            object,
            stored_bytes: packed.written.bytes,
            stored_digest: packed.written.digest,
            is_sealed: self.bucket.encryption().is_on(),
        };
        let json = self.bucket.seal_manifest(&key, &manifest, &manifest.clear());
        let json =
            json.map_err(|error| SnapshotError::Io { operation: "writing the manifest", source: error.into() })?;
        self.bucket.create(&key, json).await.map_err(TransferError::from)?;
        Ok(manifest)
    }
}

/// Starts a save of our own and says between which two moments of the server's clock the fork lies. A save or a rewrite
/// that is under way is waited for: it began before us, at a moment nobody told.
async fn begin_save(redis: &Redis) -> Result<(DateTime<Utc>, DateTime<Utc>), SnapshotError> {
    loop {
        let before = server_time(redis).await?;
        // The fork happens before the answer.
        match redis.query::<String>("BGSAVE", &redis::cmd("BGSAVE")).await {
            Ok(_) => return Ok((before, server_time(redis).await?)),
            Err(RedisError::Command { why, .. }) if why.contains("in progress") || why.contains("progress:") => {
                clock::sleep(LOOK).await;
            }
            Err(error) => return Err(error.into()),
        }
    }
}

async fn await_save(redis: &Redis, report: Report<'_>) -> Result<(), SnapshotError> {
    let mut lane = Lane::new(report, "save", Unit::Keys, None);
    loop {
        let info: Info = redis.info().await?;
        if !info.flag("rdb_bgsave_in_progress") {
            return match info.text("rdb_last_bgsave_status") {
                "ok" => Ok(()),
                status => Err(SnapshotError::Save {
                    address: redis.address().to_owned(),
                    why: format!("rdb_last_bgsave_status is {status}"),
                }),
            };
        }
        if let Some(total) = info.number("current_save_keys_total") {
            lane.total(total);
        }
        lane.at(info.number("current_save_keys_processed").unwrap_or(0));
        clock::sleep(LOOK).await;
    }
}

pub(super) async fn server_time(redis: &Redis) -> Result<DateTime<Utc>, SnapshotError> {
    let (seconds, micros): (i64, u32) = redis.query("TIME", &redis::cmd("TIME")).await?;
    DateTime::from_timestamp(seconds, micros.saturating_mul(1_000)).ok_or_else(|| {
        let (address, operation) = (redis.address().to_owned(), "TIME".to_owned());
        RedisError::Command { address, operation, why: format!("{seconds}.{micros} is no time") }.into()
    })
}

/// `redis-cli` for this URL; the password goes by environment.
fn cli(program: PathBuf, url: &Secret) -> Result<Spec, RedisError> {
    let info = connect::parse(url)?;
    let mut spec = Spec::new(program).arg("--no-auth-warning");
    spec = match info.addr() {
        ConnectionAddr::Unix(path) => spec.arg("-s").arg(path),
        ConnectionAddr::Tcp(host, port) => spec.arg("-h").arg(host).arg("-p").arg(port.to_string()),
        ConnectionAddr::TcpTls { host, port, .. } => {
            let spec = spec.arg("-h").arg(host).arg("-p").arg(port.to_string()).arg("--tls").arg("--sni").arg(host);
            match std::env::var_os("SSL_CERT_FILE") {
                Some(roots) => spec.arg("--cacert").arg(roots),
                None => spec,
            }
        }
        other => return Err(RedisError::Url { why: format!("{other} is of no known kind") }),
    };
    if let Some(user) = info.redis_settings().username() {
        spec = spec.arg("--user").arg(user);
    }
    if let Some(password) = info.redis_settings().password() {
        spec = spec.env("REDISCLI_AUTH", password);
    }
    Ok(spec)
}
