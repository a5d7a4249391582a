//! The safe way back: a copy of the snapshot, proven before and after it is loaded, AOF off until the keys are counted.

mod probe;
mod server;
mod target;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use chrono::{DateTime, SecondsFormat, Utc};
use tokio_util::sync::CancellationToken;

use server::{Keeping, Leash, Plan};
pub use target::MARKER;
use target::{Done, Marker, Owner, Target};

use super::catalogue::{self, Manifest};
use super::connect::{self, Info, Redis, RedisError};
use super::lane::{Lane, Report};
use super::rdb::{self, RdbError, Survey};
use super::transfer::{self, TransferError};
use crate::clock;
use crate::event::{Facts, Failure, Unit};
use crate::process::{Account, ProcessError, find_program};
use crate::secret::Secret;
use crate::store::{Bucket, StoreError};

const LOOK: Duration = Duration::from_millis(50);

#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    #[error("{} is not for us: {why}", directory.display())]
    Foreign { directory: PathBuf, why: String },
    #[error("the manifest of snapshot {label} is of no use: {why}")]
    Manifest { label: String, why: String },
    #[error("snapshot {label} is refused: {source}")]
    Rdb { label: String, source: RdbError },
    #[error(
        "snapshot {label} is RDB version {found} (Redis {writer}); {} is Redis {server} and reads up to {known}",
        program.display()
    )]
    TooNew { label: String, found: u32, writer: String, program: PathBuf, server: String, known: u32 },
    #[error("there is no account named `{0}` for the server to run as")]
    NoAccount(String),
    #[error("the new server ended: {log}")]
    Ended { log: String },
    #[error("the new server does not listen on port {port}: {log}")]
    Silent { port: u16, log: String },
    #[error("the new server holds {found} keys {when}; the snapshot's bytes say {least} to {most}")]
    Count { when: &'static str, found: u64, least: u64, most: u64 },
    #[error("the append-only file was not written: {why}")]
    Aof { why: String },
    #[error("process {pid} still runs")]
    Running { pid: u32 },
    #[error("{operation} {} failed: {source}", path.display())]
    Io { operation: &'static str, path: PathBuf, source: std::io::Error },
    #[error("it was cancelled; the new server is stopped")]
    Cancelled,
    #[error(transparent)]
    Redis(#[from] RedisError),
    #[error(transparent)]
    Transfer(#[from] TransferError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Process(#[from] ProcessError),
}

impl From<RestoreError> for Failure {
    fn from(error: RestoreError) -> Self {
        let now = match &error {
            RestoreError::Foreign { .. } => {
                "Nothing was changed. Name another directory in the inventory, or move what is there out of the way."
            }
            RestoreError::TooNew { .. } => {
                "Nothing was moved. Install that version of Redis or a later one, and name it as `server` in the inventory."
            }
            RestoreError::Manifest { .. } | RestoreError::Rdb { .. } | RestoreError::Transfer(_) => {
                "Do not use this snapshot. Choose another one; the bucket was not changed."
            }
            RestoreError::Store(_) => "Check the bucket, then retry.",
            RestoreError::Count { .. } => "Do not use what was restored. Retry, or choose another snapshot.",
            RestoreError::Ended { .. } | RestoreError::Silent { .. } | RestoreError::Aof { .. } => {
                "Read redis.log in the target directory, then retry: a retry begins from nothing."
            }
            RestoreError::Running { .. } => "End that process, then retry.",
            RestoreError::NoAccount(_) => "Name another account as `run_as` in the inventory.",
            RestoreError::Process(_) => "Install Redis, or name its server in the inventory.",
            RestoreError::Io { .. } => "Check the disk and the permissions, then retry.",
            RestoreError::Redis(_) | RestoreError::Cancelled => "Retry: it begins from nothing.",
        };
        Self::new("Redis was not restored", error).now(now)
    }
}

/// What to restore, and where to.
pub struct Restore<'a> {
    pub drill: &'a str,
    /// Its name in the inventory.
    pub system: &'a str,
    pub effect_key: &'a str,
    /// Opened at the system's prefix.
    pub bucket: &'a Bucket,
    /// The snapshot's label.
    pub snapshot: &'a str,
    /// Absent, empty, or of an earlier attempt of this drill.
    pub directory: &'a Path,
    /// On loopback; 0 for a free one.
    pub port: u16,
    /// The restored server takes the same user, password and database.
    pub source_url: &'a Secret,
    /// `redis-server`; found on the PATH when absent.
    pub server: Option<&'a Path>,
    /// Whom the server runs as when this program is root; an unprivileged account when absent.
    pub run_as: Option<&'a str>,
    pub cancel: &'a CancellationToken,
}

/// A server that was restored and proven, and that goes on running.
#[derive(Debug, Clone)]
pub struct Restored {
    /// With user and password.
    pub url: Secret,
    pub port: u16,
    pub pid: u32,
    /// The moment whose state it holds.
    pub at: DateTime<Utc>,
    pub snapshot: String,
    /// Keys that it holds.
    pub keys: u64,
    /// Keys of the snapshot that have expired since.
    pub expired: u64,
    /// Bytes of the RDB.
    pub bytes: u64,
    pub redis_version: String,
    pub rdb_version: u32,
    pub fetch_seconds: f64,
    pub load_seconds: f64,
    pub aof_seconds: f64,
    pub total_seconds: f64,
    /// True when an earlier attempt had already done it.
    pub already: bool,
}

impl Restored {
    /// For the record: without user and password.
    pub fn facts(&self) -> Facts {
        let mut facts = Facts::new();
        let mut fact = |name: &str, value: serde_json::Value| facts.insert(name.to_owned(), value);
        fact("address", format!("127.0.0.1:{}", self.port).into());
        fact("port", self.port.into());
        fact("pid", self.pid.into());
        fact("snapshot", self.snapshot.as_str().into());
        fact("at", self.at.to_rfc3339_opts(SecondsFormat::Millis, true).into());
        fact("keys", self.keys.into());
        fact("expired", self.expired.into());
        fact("bytes", self.bytes.into());
        fact("redis_version", self.redis_version.as_str().into());
        fact("rdb_version", self.rdb_version.into());
        fact("fetch_seconds", self.fetch_seconds.into());
        fact("load_seconds", self.load_seconds.into());
        fact("aof_seconds", self.aof_seconds.into());
        fact("total_seconds", self.total_seconds.into());
        facts
    }
}

impl Restore<'_> {
    /// Restores. Progress lanes: `snapshot` (stored bytes fetched), `load` (bytes loaded), `aof` (keys written). Any
    /// failure, cancelling and dropping the future stop the new server.
    pub async fn run(self, report: Report<'_>) -> Result<Restored, RestoreError> {
        let cancel = self.cancel.clone();
        tokio::select! {
            restored = self.restore(report) => restored,
            () = cancel.cancelled() => Err(RestoreError::Cancelled),
        }
    }

    async fn restore(self, report: Report<'_>) -> Result<Restored, RestoreError> {
        let began = clock::boot_now();
        let owner = Owner { drill: self.drill, system: self.system };
        let target = Target::inspect(self.directory, owner)?;
        let program = server_program(self.server)?;
        let account = account(self.run_as)?;
        let mut plan = Plan {
            program,
            account,
            directory: self.directory.to_owned(),
            port: 0,
            url: self.source_url.clone(),
            databases: 0,
        };
        if let Some(marker) = &target.marker {
            plan = plan.at(marker.port, self.source_url)?;
            if let Some(pid) = plan.leftover().await? {
                if let Some(restored) = self.already(&plan, marker, pid).await {
                    return Ok(restored);
                }
                server::end(pid).await?;
            }
        }
        // Everything that can be refused is refused before a byte moves.
        let manifest = catalogue::manifest(self.bucket, self.snapshot)
            .await?
            .map_err(|why| RestoreError::Manifest { label: self.snapshot.to_owned(), why })?;
        let redis_version = self.fits(&plan, &manifest).await?;
        let port = if self.port == 0 { free_port(self.directory)? } else { self.port };
        plan = plan.at(port, self.source_url)?;
        plan.databases = manifest.rdb.by_db.keys().last().map_or(0, |db| db.saturating_add(1));
        let mut marker = target.claim(owner, self.effect_key, self.snapshot, port)?;

        plan.make_data()?;
        let survey = self.fetch(&plan, &manifest, report).await?;
        let fetched = clock::boot_now();
        let (leash, redis, expired) = load(&plan, &survey, report).await?;
        let loaded = clock::boot_now();
        turn_on_aof(&plan, &leash, &redis, report).await?;
        plan.stop(leash, &redis).await?;
        let (mut leash, redis) = plan.start(Keeping::Everything).await?;
        let info = loaded_info(&plan, &leash, &redis, report).await?;
        let keys = check_count("after the restart on its append-only file", &info, &survey, expired)?;
        let ended = clock::boot_now();

        let seconds = |from: Duration, to: Duration| to.saturating_sub(from).as_secs_f64();
        marker.done = Some(Done {
            at: manifest.at,
            keys,
            expired: survey.keys - keys,
            bytes: survey.bytes,
            redis_version,
            rdb_version: survey.rdb_version,
            fetch_seconds: seconds(began, fetched),
            load_seconds: seconds(fetched, loaded),
            aof_seconds: seconds(loaded, ended),
            total_seconds: seconds(began, ended),
        });
        target::save(self.directory, &marker)?;
        let pid = leash.pid();
        leash.release();
        restored(&plan, &marker, pid, false)
            .ok_or_else(|| RestoreError::Manifest { label: marker.snapshot, why: "it was not finished".to_owned() })
    }

    /// What an earlier attempt of the same effect has finished and what still answers.
    async fn already(&self, plan: &Plan, marker: &Marker, pid: u32) -> Option<Restored> {
        let same = marker.effect_key == self.effect_key && marker.snapshot == self.snapshot;
        let restored = restored(plan, marker, pid, true).filter(|_| same)?;
        let info = Redis::connect(&plan.url).await.ok()?.info().await.ok()?;
        (!info.flag("loading") && info.flag("aof_enabled")).then_some(restored)
    }

    /// The version of a server that reads the snapshot.
    async fn fits(&self, plan: &Plan, manifest: &Manifest) -> Result<String, RestoreError> {
        let wanted = manifest.rdb.rdb_version;
        let server = probe::probe(&plan.program, plan.account.as_ref(), wanted, self.cancel).await?;
        match server.reads {
            Some(known) if known < wanted => Err(RestoreError::TooNew {
                label: manifest.label.clone(),
                found: wanted,
                writer: manifest.source.redis_version.clone(),
                program: plan.program.clone(),
                server: server.version,
                known,
            }),
            _ => Ok(server.version),
        }
    }

    /// A copy of the RDB where the server will load it, its digests, structure and checksum verified.
    async fn fetch(&self, plan: &Plan, manifest: &Manifest, report: Report<'_>) -> Result<Survey, RestoreError> {
        // Under its own name only once it is whole: a server that anyone starts here loads it without a question.
        let path = plan.data().join("dump.rdb.part");
        let lane = Lane::new(report, "snapshot", Unit::Bytes, Some(manifest.stored_bytes));
        transfer::unpack(self.bucket, manifest, &path, lane).await?;
        let io = |source| RestoreError::Io { operation: "reading", path: path.clone(), source };
        let file = File::open(&path).map_err(io)?;
        let survey = tokio::task::spawn_blocking(move || rdb::survey(file)).await;
        let survey = survey.map_err(|error| io(std::io::Error::other(error)))?;
        let survey = survey.map_err(|source| RestoreError::Rdb { label: manifest.label.clone(), source })?;
        plan.give(&path)?;
        let to = plan.data().join("dump.rdb");
        std::fs::rename(&path, &to).map_err(|source| RestoreError::Io { operation: "renaming", path: to, source })?;
        Ok(survey)
    }
}

impl Plan {
    /// The same, on this port.
    fn at(self, port: u16, source_url: &Secret) -> Result<Self, RestoreError> {
        let url = connect::at_address(source_url, "127.0.0.1", port)?;
        Ok(Self { port, url, ..self })
    }
}

fn restored(plan: &Plan, marker: &Marker, pid: u32, already: bool) -> Option<Restored> {
    let done = marker.done.clone()?;
    Some(Restored {
        url: plan.url.clone(),
        port: plan.port,
        pid,
        at: done.at,
        snapshot: marker.snapshot.clone(),
        keys: done.keys,
        expired: done.expired,
        bytes: done.bytes,
        redis_version: done.redis_version,
        rdb_version: done.rdb_version,
        fetch_seconds: done.fetch_seconds,
        load_seconds: done.load_seconds,
        aof_seconds: done.aof_seconds,
        total_seconds: done.total_seconds,
        already,
    })
}

/// Starts the server on the RDB with AOF off, and proves the number of keys. Returns how many had expired at least.
async fn load(plan: &Plan, survey: &Survey, report: Report<'_>) -> Result<(Leash, Redis, u64), RestoreError> {
    let (expired, _) = survey.expired_at(clock::wall_now().timestamp_millis());
    let (leash, redis) = plan.start(Keeping::Nothing).await?;
    let info = loaded_info(plan, &leash, &redis, report).await?;
    check_count("after loading", &info, survey, expired)?;
    // Redis' own account of the load, since 7.0.
    let (loaded, dropped) = (info.number("rdb_last_load_keys_loaded"), info.number("rdb_last_load_keys_expired"));
    if let (Some(loaded), Some(dropped)) = (loaded, dropped) {
        let found = loaded + dropped;
        if found > survey.keys || found + survey.with_field_expiry < survey.keys {
            let (least, most) = (survey.keys - survey.with_field_expiry, survey.keys);
            return Err(RestoreError::Count { when: "by its own account of the load", found, least, most });
        }
    }
    Ok((leash, redis, expired))
}

async fn loaded_info(plan: &Plan, leash: &Leash, redis: &Redis, report: Report<'_>) -> Result<Info, RestoreError> {
    let mut lane = Lane::new(report, "load", Unit::Bytes, None);
    let mut done = 0;
    loop {
        let info = plan.info(leash, redis).await?;
        if !info.flag("loading") {
            lane.end(done);
            return Ok(info);
        }
        if let Some(total) = info.number("loading_total_bytes") {
            lane.total(total);
            done = info.number("loading_loaded_bytes").unwrap_or(0);
            lane.at(done);
            done = total;
        }
        clock::sleep(LOOK).await;
    }
}

/// Keys that expired before the load cannot be there; those that have expired by now may be gone.
fn check_count(when: &'static str, info: &Info, survey: &Survey, expired: u64) -> Result<u64, RestoreError> {
    let (_, by_now) = survey.expired_at(clock::wall_now().timestamp_millis());
    let (least, most) = (survey.keys.saturating_sub(by_now), survey.keys - expired);
    let found = info.keys();
    match (least..=most).contains(&found) {
        true => Ok(found),
        false => Err(RestoreError::Count { when, found, least, most }),
    }
}

async fn turn_on_aof(plan: &Plan, leash: &Leash, redis: &Redis, report: Report<'_>) -> Result<(), RestoreError> {
    let command = redis::cmd("CONFIG").arg("SET").arg("appendonly").arg("yes").to_owned();
    redis.query::<String>("CONFIG SET appendonly yes", &command).await?;
    let mut lane = Lane::new(report, "aof", Unit::Keys, None);
    loop {
        let info = plan.info(leash, redis).await?;
        let under_way = info.flag("aof_rewrite_in_progress") || info.flag("aof_rewrite_scheduled");
        if !under_way {
            let status = info.text("aof_last_bgrewrite_status");
            if status == "ok" && info.flag("aof_enabled") {
                lane.end(info.keys());
                return Ok(());
            }
            let why = format!("aof_last_bgrewrite_status is {status}; {}", plan.log_tail());
            return Err(RestoreError::Aof { why });
        }
        lane.total(info.number("current_save_keys_total").unwrap_or_else(|| info.keys()));
        lane.at(info.number("current_save_keys_processed").unwrap_or(0));
        clock::sleep(LOOK).await;
    }
}

/// The way back of a restore: stops its server and removes its directory. What is not this drill's is refused; nothing
/// there is fine.
pub async fn undo(drill: &str, system: &str, directory: &Path, source_url: &Secret) -> Result<(), RestoreError> {
    let target = Target::inspect(directory, Owner { drill, system })?;
    if let Some(marker) = &target.marker {
        let plan = Plan {
            program: PathBuf::new(),
            account: None,
            directory: directory.to_owned(),
            port: 0,
            url: source_url.clone(),
            databases: 0,
        };
        if let Some(pid) = plan.at(marker.port, source_url)?.leftover().await? {
            server::end(pid).await?;
        }
    }
    target.remove()
}

/// The URL of the server that this drill has restored in `directory`; `None` before that.
pub fn restored_url(
    drill: &str,
    system: &str,
    directory: &Path,
    source_url: &Secret,
) -> Result<Option<Secret>, RestoreError> {
    let marker = match Target::inspect(directory, Owner { drill, system }) {
        Ok(target) => target.marker,
        // What another drill has restored, or anything else that is there, is not this drill's.
        Err(RestoreError::Foreign { .. }) => None,
        Err(error) => return Err(error),
    };
    match marker.filter(|marker| marker.done.is_some()) {
        Some(marker) => Ok(Some(connect::at_address(source_url, "127.0.0.1", marker.port)?)),
        None => Ok(None),
    }
}

/// The server's program as an absolute path; a bare name is looked for on the PATH.
fn server_program(named: Option<&Path>) -> Result<PathBuf, RestoreError> {
    let named = named.unwrap_or(Path::new("redis-server"));
    match named.to_str().filter(|name| !name.contains('/')) {
        Some(name) => find_program(name).ok_or_else(|| ProcessError::NotFound { program: name.to_owned() }.into()),
        None => std::path::absolute(named).map_err(|source| RestoreError::Io {
            operation: "looking at",
            path: named.to_owned(),
            source,
        }),
    }
}

/// Whom the server runs as; a server is never started as root.
fn account(named: Option<&str>) -> Result<Option<Account>, RestoreError> {
    let io = |source| RestoreError::Io { operation: "reading", path: "/etc/passwd".into(), source };
    if !nix::unistd::geteuid().is_root() {
        return Ok(None);
    }
    let found = match named {
        Some(name) => Account::named(name).map_err(io)?,
        None => Account::unprivileged().map_err(io)?,
    };
    match found.filter(|account| account.uid != 0) {
        Some(account) => Ok(Some(account)),
        None => Err(RestoreError::NoAccount(named.unwrap_or("nobody").to_owned())),
    }
}

fn free_port(directory: &Path) -> Result<u16, RestoreError> {
    std::net::TcpListener::bind("127.0.0.1:0")
        .and_then(|listener| listener.local_addr())
        .map(|a| a.port())
        .map_err(|source| RestoreError::Io { operation: "finding a free port for", path: directory.to_owned(), source })
}
