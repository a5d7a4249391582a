//! The safe way back: a copy of the snapshot, proven before and after it is loaded, AOF off until the keys are counted;
//! or a copy of the append-only file, cut, proven and loaded as it stands. Then what is declared for keys by their prefix,
//! and the restart that shows that everything stays. Only then does the server listen on its port.

mod aof;
mod error;
mod load;
mod policy;
mod probe;
mod server;
mod target;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use chrono::{DateTime, SecondsFormat, Utc};
use tokio_util::sync::CancellationToken;

pub use error::RestoreError;
use load::{load, load_aof, loaded_info};
pub use policy::{Applied, Policy, QUARANTINE, Rule};
use server::{Keeping, Leash, Plan};
pub use target::MARKER;
use target::{Done, Marker, Owner, Target};

use super::aof::{AofManifest, manifest as aof_manifest};
use super::catalogue::{self, Manifest};
use super::connect::{self, Redis};
use super::lane::{Lane, Report};
use super::rdb::{self, Survey};
use super::transfer;
use crate::clock;
use crate::event::{AofPoint, Facts, Unit};
use crate::process::{Account, ProcessError, find_program};
use crate::secret::Secret;
use crate::store::Bucket;

/// What leads to the point.
#[derive(Debug, Clone, Copy)]
pub enum Origin<'a> {
    /// By its label.
    Snapshot(&'a str),
    Aof(&'a AofPoint),
}

impl Origin<'_> {
    /// For people and for the marker: the label, and where it is cut.
    pub fn name(&self) -> String {
        match self {
            Self::Snapshot(label) => (*label).to_owned(),
            Self::Aof(AofPoint { label, cut: false, .. }) => format!("AOF {label}"),
            Self::Aof(AofPoint { label, at, cut: true }) => {
                format!("AOF {label} cut at {}", at.to_rfc3339_opts(SecondsFormat::Secs, true))
            }
        }
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
    pub from: Origin<'a>,
    /// What becomes of keys by their prefix, before anybody may use the server.
    pub policy: &'a [Rule],
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
    /// Of an append-only file: commands behind its base that were loaded, and those that were cut off.
    pub commands: u64,
    pub cut_commands: u64,
    pub policy: Vec<Applied>,
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
        if self.commands > 0 || self.cut_commands > 0 {
            fact("commands", self.commands.into());
            fact("cut_commands", self.cut_commands.into());
        }
        for applied in &self.policy {
            fact(&format!("{}.{}", applied.policy, applied.prefix), applied.keys.into());
        }
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
            door: self.source_url.clone(),
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
        let source = self.look().await?;
        let redis_version = self.fits(&plan, &source).await?;
        let port = self.place()?;
        plan = plan.at(port, self.source_url)?;
        let mut marker = target.claim(owner, self.effect_key, &self.from.name(), port)?;

        plan.make_data()?;
        let fetched;
        let (leash, redis, loaded) = match &source {
            Source::Snapshot(manifest) => {
                let survey = self.fetch(&plan, manifest, report).await?;
                plan.databases = databases(&survey);
                fetched = clock::boot_now();
                load(&plan, survey, report).await?
            }
            Source::Aof(manifest, point) => {
                let laid = aof::lay(&plan, self.bucket, manifest, point, report, self.cancel).await?;
                plan.databases = laid.databases;
                fetched = clock::boot_now();
                load_aof(&plan, laid, report).await?
            }
        };
        let policy = policy::apply(&plan, &leash, self.policy, report).await?;
        let usable = clock::boot_now();
        let expected = loaded.durable(&plan, &leash, &redis, &policy, report).await?;
        plan.stop(leash, &redis).await?;
        let (leash, redis) = plan.start(Keeping::Everything).await?;
        let info = loaded_info(&plan, &leash, &redis, report).await?;
        let keys = expected.check("after the restart on its append-only file", &info)?;
        let ended = clock::boot_now();

        let seconds = |from: Duration, to: Duration| to.saturating_sub(from).as_secs_f64();
        marker.done = Some(Done {
            at: source.at(),
            keys,
            expired: expected.survey.keys.saturating_sub(expected.removed + keys),
            bytes: loaded.bytes,
            redis_version: redis_version.clone(),
            rdb_version: expected.survey.rdb_version,
            fetch_seconds: seconds(began, fetched),
            load_seconds: seconds(fetched, usable),
            aof_seconds: seconds(usable, ended),
            total_seconds: seconds(began, ended),
            commands: loaded.commands,
            cut_commands: loaded.cut_commands,
            policy,
        });
        // Recorded before anybody can write: what is written from now on is no longer thrown away by a retry.
        target::save(self.directory, &marker)?;
        let mut leash = match self.open(&plan, leash, redis, &redis_version, report).await {
            Ok(leash) => leash,
            Err(error) => {
                marker.done = None;
                target::save(self.directory, &marker)?;
                return Err(error);
            }
        };
        let pid = leash.pid();
        leash.release();
        restored(&plan, &marker, pid, false)
            .ok_or_else(|| RestoreError::Manifest { label: marker.snapshot, why: "it was not finished".to_owned() })
    }

    /// What an earlier attempt of the same effect has finished and what still answers.
    async fn already(&self, plan: &Plan, marker: &Marker, pid: u32) -> Option<Restored> {
        let same = marker.effect_key == self.effect_key && marker.snapshot == self.from.name();
        let restored = restored(plan, marker, pid, true).filter(|_| same)?;
        let (redis, info) = plan.answering().await?;
        if info.flag("loading") || !info.flag("aof_enabled") {
            return None;
        }
        // Killed after the proof, before anybody was let in.
        if info.number("tcp_port") == Some(0) {
            plan.listen(&redis).await.ok()?;
        }
        Some(restored)
    }

    async fn open(
        &self,
        plan: &Plan,
        leash: Leash,
        redis: Redis,
        version: &str,
        report: Report<'_>,
    ) -> Result<Leash, RestoreError> {
        let (leash, redis) = plan.open(leash, redis, version).await?;
        loaded_info(plan, &leash, &redis, report).await?;
        Ok(leash)
    }

    /// The port that will be listened on: free now.
    fn place(&self) -> Result<u16, RestoreError> {
        if self.port == 0 {
            return free_port(self.directory);
        }
        match std::net::TcpListener::bind(("127.0.0.1", self.port)) {
            Ok(_) => Ok(self.port),
            Err(error) => Err(RestoreError::Taken { port: self.port, why: error.to_string() }),
        }
    }

    /// What the bucket says of the way to the point.
    async fn look(&self) -> Result<Source, RestoreError> {
        let bad = |label: &str| {
            let label = label.to_owned();
            |why| RestoreError::Manifest { label, why }
        };
        Ok(match self.from {
            Origin::Snapshot(label) => {
                Source::Snapshot(catalogue::manifest(self.bucket, label).await?.map_err(bad(label))?)
            }
            Origin::Aof(point) => {
                let manifest = aof_manifest(self.bucket, &point.label).await?.map_err(bad(&point.label))?;
                Source::Aof(manifest, point.clone())
            }
        })
    }

    /// The version of a server that reads the source.
    async fn fits(&self, plan: &Plan, source: &Source) -> Result<String, RestoreError> {
        let (label, wanted, writer) = match source {
            Source::Snapshot(manifest) => (&manifest.label, manifest.rdb.rdb_version, &manifest.source.redis_version),
            Source::Aof(manifest, _) => (&manifest.label, manifest.base.rdb_version, &manifest.source.redis_version),
        };
        let server = probe::probe(&plan.program, plan.account.as_ref(), wanted, self.cancel).await?;
        if matches!(source, Source::Aof(..)) && server::major(&server.version) < 7 {
            return Err(RestoreError::TooOld { server: server.version });
        }
        match server.reads {
            Some(known) if known < wanted => Err(RestoreError::TooNew {
                label: label.clone(),
                found: wanted,
                writer: writer.clone(),
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
        let io = |source| RestoreError::Io { operation: "copying to", path: path.clone(), source };
        let mut lane = Lane::new(report, "snapshot", Unit::Bytes, Some(manifest.stored_bytes));
        let mut copy = tokio::fs::File::create_new(&path).await.map_err(io)?;
        let fetched = transfer::unpack(self.bucket, manifest.stored(), &mut copy, &mut lane, 0).await?;
        lane.end(fetched);
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

enum Source {
    Snapshot(Manifest),
    Aof(AofManifest, AofPoint),
}

impl Source {
    /// The moment whose state it holds.
    fn at(&self) -> DateTime<Utc> {
        match self {
            Self::Snapshot(manifest) => manifest.at,
            Self::Aof(_, point) => point.at,
        }
    }
}

fn databases(survey: &Survey) -> u32 {
    survey.by_db.keys().last().map_or(0, |db| db.saturating_add(1))
}

impl Plan {
    /// The same, on this port.
    fn at(self, port: u16, source_url: &Secret) -> Result<Self, RestoreError> {
        let url = connect::at_address(source_url, "127.0.0.1", port)?;
        let door = connect::at_socket(source_url, &self.socket())?;
        Ok(Self { port, url, door, ..self })
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
        commands: done.commands,
        cut_commands: done.cut_commands,
        policy: done.policy,
        already,
    })
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
            door: source_url.clone(),
            databases: 0,
        };
        let plan = plan.at(marker.port, source_url)?;
        if let Some(pid) = plan.leftover().await? {
            server::end(pid).await?;
        }
        plan.remove_socket();
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
    crate::process::free_ports().map(|[port]| port).map_err(|source| RestoreError::Io {
        operation: "finding a free port for",
        path: directory.to_owned(),
        source,
    })
}
