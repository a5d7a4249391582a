//! Restore: base backup and WAL to a recovery point, ending paused.
//!
//! Unpacking and staging run side by side. The server is started on files that were all verified, replays from the stage,
//! and stops at the target. Nothing is claimed before it was asked what it is and where it stands.

mod assert;
mod base;
mod bring;
mod chain;
mod config;
mod find;
mod keep;
mod restored;
mod target;
mod unpack;
mod watch;

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use super::connect::Url;
use super::control::{ControlData, programs};
use super::error::PgError;
use super::identity::Identity;
use super::report::Reporter;
use super::repository::Repository;
use super::wal::{Counters, Fetch, Segment, WalError, restore_command};
use crate::clock;
use crate::event::{Failure, Lsn, RecoveryTarget};
use crate::process::{Account, Spec, free_ports};
use crate::secret::Secret;

pub(super) use assert::assert_not_archiving;
pub use assert::locked_tables;
pub use find::{Found, find};

use base::{Base, From};
pub(super) use config::switch_to_promoted;
use config::{Files, Settings};
pub use restored::Restored;
pub use target::{Marker, Owner, Place, State, read_marker, undo};
pub(super) use target::{Target, promoted_by_others, running_server};
pub use watch::Patience;
pub(super) use watch::Standing;
use watch::Watch;

/// Bytes of WAL that are staged ahead of the server at most.
const WINDOW: u64 = 1 << 30;

/// The same while the base backup is unpacked and takes every core: the replay that comes leaves one to the stager.
const WINDOW_BESIDE_UNPACKING: u64 = 64 << 20;

/// Bytes of WAL for which there must be room, however long the plan.
const LEAST_WAL: u64 = 2 << 30;

/// Bytes of disk that stay free.
const RESERVE: u64 = 128 << 20;

/// What is restored: made by the room `recovery`, which refuses what cannot be reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// The base backup.
    pub label: String,
    /// The timeline that is followed, never "latest".
    pub timeline: u32,
    pub target: RecoveryTarget,
    /// Stop after the target's commit, or just before it.
    pub inclusive: bool,
    /// Every segment from the backup's start on, in order.
    pub segments: Vec<String>,
    /// The end of the last one.
    pub end: Lsn,
    /// The last transaction that must have ended in the restored server, read from the WAL before; asserted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_ended: Option<DateTime<Utc>>,
    /// Settings that the server needs at least, where the WAL asks for more than the base backup.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub needs: BTreeMap<String, u32>,
}

impl Plan {
    /// The first segment that is not in the plan.
    pub fn beyond(&self, segment_size: u64) -> String {
        Segment::containing(self.end, self.timeline, segment_size).to_string()
    }
}

impl Place {
    /// The restored server by its socket; no password is needed there.
    pub(super) fn url(&self, user: &str, database: &str) -> Result<Url, PgError> {
        Url::parse(&self.text(user, database))
    }

    fn text(&self, user: &str, database: &str) -> Secret {
        let (user, database) = (encoded(user), encoded(database));
        let socket = encoded(&self.socket.display().to_string());
        Secret::new(format!("postgresql://{user}@/{database}?host={socket}&port={}", self.port))
    }
}

type Staging = tokio::task::JoinHandle<Result<(), WalError>>;

/// Restores to a recovery point.
pub struct Restore {
    pub from: Repository,
    pub plan: Plan,
    /// The new data directory.
    pub directory: PathBuf,
    /// Loopback port; 0 means a free one.
    pub port: u16,
    /// The server's user when this program is root.
    pub run_as: Option<String>,
    /// Directory of PostgreSQL's programs; found when absent.
    pub bin: Option<PathBuf>,
    /// This program, absolute.
    pub lifeboat: PathBuf,
    /// The source's URL: only its user and database are used.
    pub source: Secret,
    pub owner: Owner,
    pub patience: Patience,
    pub cancel: CancellationToken,
    pub report: Reporter,
}

/// Bytes as a number of segments, and two at least.
fn segments(base: &Base, bytes: u64) -> u64 {
    bytes.div_ceil(base.wal_segment_bytes).max(2)
}

struct Ready {
    place: Place,
    pid: u32,
    base_seconds: f64,
    counters: Arc<Counters>,
    found: bool,
}

impl Restore {
    /// Returns once recovery is paused at the target and the server was asked what it is. Runs again on its own
    /// directory: a server that an earlier run started on verified files is watched on, one that stands at an earlier point
    /// of the same history goes on from there; anything less begins anew.
    pub async fn run(self) -> Result<Restored, Failure> {
        let began = clock::boot_now();
        let account = self.account()?;
        let base = Base::find(&self.from, &self.plan.label).await?;
        let (target, before) = Target::claim(&self.directory, &self.owner, &self.plan, account.as_ref()).await?;
        let stop = self.cancel.child_token();
        let _ends_with_us = stop.clone().drop_guard();
        let ready = match self.earlier(before.as_ref()) {
            Some(ready) => {
                self.report
                    .say(format!("an earlier run had started the server (pid {}); watching it", ready.pid))
                    .await;
                ready
            }
            None => match self.standing_before(before.as_ref()) {
                Some((place, lsn)) => self.advance(&target, &base, account.as_ref(), place, lsn, &stop).await?,
                None => {
                    if let Some(Marker { state: State::Paused { lsn, .. }, .. }) = &before {
                        self.report
                            .say(format!(
                                "the restored server stands at {lsn}, and replay never goes back: it begins anew"
                            ))
                            .await;
                    }
                    self.prepare(&target, &base, account.as_ref(), &stop).await?
                }
            },
        };
        let result = self.finish(&target, &base, &ready, began).await;
        let Err(failure) = result else { return result };
        // What cannot be vouched for does not stay up.
        match target::stop_server(&self.directory).await {
            Ok(()) => Err(failure),
            Err(still) => Err(Failure { why: format!("{}; {still}", failure.why), ..failure }),
        }
    }

    fn account(&self) -> Result<Option<Account>, Failure> {
        let failed = |error| Failure::new("the account that servers run as cannot be looked up", error);
        match &self.run_as {
            Some(name) => Account::named(name).map_err(failed)?.map(Some).ok_or_else(|| {
                Failure::new(format!("there is no user {name}"), "`restore.run_as` names it")
                    .now("create it, or name another")
            }),
            None => Account::unprivileged().map_err(failed),
        }
        .and_then(|account| match account {
            None if nix::unistd::geteuid().is_root() => Err(Failure::new(
                "PostgreSQL does not run as root",
                "and there is no user postgres or nobody to run it as",
            )
            .now("name a user: `restore.run_as` of the system")),
            account => Ok(account),
        })
    }

    /// A server that this very plan was started with and that still lives.
    fn earlier(&self, before: Option<&Marker>) -> Option<Ready> {
        let marker = before.filter(|marker| marker.plan == self.plan && marker.owner == self.owner)?;
        let (State::Started(place) | State::Paused { place, .. }) = &marker.state else { return None };
        let pid = running_server(&self.directory)?;
        Some(Ready { place: place.clone(), pid, base_seconds: 0.0, counters: Arc::default(), found: true })
    }

    /// Where an earlier restore of the same backup stands, when the target lies ahead of it. Replay never goes back. That it
    /// is of the same drill and system was found when the directory was claimed; a step that was gone back to may go on.
    fn standing_before(&self, before: Option<&Marker>) -> Option<(Place, Lsn)> {
        let marker = before
            .filter(|marker| marker.plan.label == self.plan.label && marker.plan.timeline == self.plan.timeline)?;
        let State::Paused { place, lsn } = &marker.state else { return None };
        let ahead = match &self.plan.target {
            RecoveryTarget::Lsn { lsn: target } => target > lsn,
            RecoveryTarget::Latest => true,
            // Whether it lies ahead is known only when recovery comes to it.
            _ => false,
        };
        ahead.then(|| (place.clone(), *lsn))
    }

    /// Goes on from where an earlier run stands: the files stay, the server replays up to the new target.
    async fn advance(
        &self,
        target: &Target,
        base: &Base,
        account: Option<&Account>,
        place: Place,
        from: Lsn,
        stop: &CancellationToken,
    ) -> Result<Ready, Failure> {
        self.report
            .say(format!("the restored server stands at {from}; it goes on from there, the base backup is kept"))
            .await;
        target::stop_server(&self.directory).await?;
        let bin = programs(self.bin.as_deref(), base.version_number / 10_000).await?;
        target.renew_stage(account)?;
        let counters = Arc::new(Counters::default());
        let window = Arc::new(AtomicU64::new(segments(base, WINDOW)));
        drop(self.stage(target, base, account, &counters, &window, stop)?);
        let pid = self.begin(&bin, target, base, account, &place, Files::Ours).await?;
        Ok(Ready { place, pid, base_seconds: 0.0, counters, found: false })
    }

    async fn prepare(
        &self,
        target: &Target,
        base: &Base,
        account: Option<&Account>,
        stop: &CancellationToken,
    ) -> Result<Ready, Failure> {
        let began = clock::boot_now();
        let marker = Marker { format: 1, owner: self.owner.clone(), plan: self.plan.clone(), state: State::Unpacking };
        let kept = target.kept(&self.plan.label);
        let bin = programs(self.bin.as_deref(), base.version_number / 10_000).await?;
        if let (From::Parts { chain, .. }, None) = (&base.files, &kept) {
            chain::look_for_program(&bin, chain)?;
        }
        target.wipe(kept.as_deref()).await?;
        target.mark(&marker)?;
        // What is kept on this disk is taken again without a byte more.
        self.check_space(base, if kept.is_some() { 0 } else { base.room() })?;
        let place = self.place(target, account)?;
        let counters = Arc::new(Counters::default());
        let busy = std::thread::available_parallelism().is_ok_and(|cores| cores.get() <= unpack::SIDE_BY_SIDE);
        let beside = if busy { WINDOW_BESIDE_UNPACKING } else { WINDOW };
        let window = Arc::new(AtomicU64::new(segments(base, beside)));
        let mut staging = match &base.files {
            From::Parts { .. } => Some(self.stage(target, base, account, &counters, &window, stop)?),
            // Its WAL is asked for with the control file that comes with the base backup.
            From::Engine(_) => None,
        };
        let what = match &kept {
            Some(kept) => {
                target
                    .bring_back(kept)
                    .map_err(|error| Failure::new("the kept base backup cannot be taken again", error))?;
                "taken again from this disk"
            }
            None => {
                match &base.files {
                    From::Parts { bucket, chain } => {
                        let counters = &counters;
                        let work = chain::Work { bin: &bin, bucket, chain, account, counters };
                        self.fetch(work, target, staging.as_mut(), stop).await?;
                    }
                    From::Engine(engine) => self.put(engine, target, account, stop).await?,
                }
                match target.keep_base(&self.plan.label) {
                    Err(error) if error.kind() != std::io::ErrorKind::Unsupported => {
                        self.report.say(format!("the base backup is not kept for another point: {error}")).await;
                    }
                    _ => {}
                }
                "verified and unpacked"
            }
        };
        if staging.is_none() {
            drop(self.stage(target, base, account, &counters, &window, stop)?);
        }
        window.store(segments(base, WINDOW), Ordering::Relaxed);
        let base_seconds = (clock::boot_now() - began).as_secs_f64();
        let pid = self.begin(&bin, target, base, account, &place, Files::Source).await?;
        self.report.say(format!("base backup {} {what}; recovery begins (pid {pid})", self.plan.label)).await;
        // A stager that fails ends by itself, and the server then gets the same answer from the bucket.
        Ok(Ready { place, pid, base_seconds, counters, found: false })
    }

    /// Configures the server for the target and starts it.
    async fn begin(
        &self,
        bin: &std::path::Path,
        target: &Target,
        base: &Base,
        account: Option<&Account>,
        place: &Place,
        files: Files,
    ) -> Result<u32, Failure> {
        let keep_wal = self.check_space(base, 0)?;
        let control = ControlData::read(bin, &self.directory).await?;
        if control.system_identifier != base.system_identifier {
            return Err(Failure::new(
                "the unpacked cluster is not the one that was backed up",
                format!("system identifier {}, expected {}", control.system_identifier, base.system_identifier),
            ));
        }
        let fetch = Fetch {
            from: self.origin(target, account).await?,
            stage: Some(target.ours("stage")),
            system_identifier: Some(base.system_identifier),
            end: (self.plan.target == RecoveryTarget::Latest).then(|| self.plan.beyond(base.wal_segment_bytes)),
        };
        let settings = Settings {
            plan: &self.plan,
            base,
            floor: base.floor.max(control.floor).with(&self.plan.needs),
            place,
            restore_command: &restore_command(&self.lifeboat, &fetch),
            keep_wal,
        };
        settings.write(&self.directory, account, files)?;
        // Before the start: a run that is killed right after it leaves a server that can be found.
        target.mark(&Marker {
            format: 1,
            owner: self.owner.clone(),
            plan: self.plan.clone(),
            state: State::Started(place.clone()),
        })?;
        self.start(bin, target, account)
    }

    /// Returns how much WAL the server may keep, in bytes: replayed segments stay until a restartpoint.
    /// `data` bytes of the base backup are still to come.
    fn check_space(&self, base: &Base, data: u64) -> Result<u64, Failure> {
        let stat = nix::sys::statvfs::statvfs(&self.directory)
            .map_err(|error| Failure::new("the free disk space cannot be read", error))?;
        let free = stat.blocks_available() as u64 * stat.fragment_size() as u64;
        let wal = (self.plan.segments.len() as u64 * base.wal_segment_bytes).min(LEAST_WAL);
        let need = data.saturating_add(wal).saturating_add(RESERVE);
        if free < need {
            let mib = |bytes: u64| bytes >> 20;
            let (all, data, wal, free) = (mib(need), mib(data), mib(wal), mib(free));
            return Err(Failure::new(
                format!("there is not enough space in {}", self.directory.display()),
                format!("{all} MiB are needed ({data} MiB data, {wal} MiB WAL), {free} MiB are free"),
            )
            .now("free some, or give the restore another directory"));
        }
        Ok(((free - need) / 2).clamp(LEAST_WAL / 2, 64 << 30))
    }

    /// Port and socket, with our folders beneath the data directory.
    fn place(&self, target: &Target, account: Option<&Account>) -> Result<Place, Failure> {
        use std::os::unix::fs::DirBuilderExt as _;
        let make = |path: &std::path::Path| {
            std::fs::DirBuilder::new().mode(0o700).create(path)?;
            account.map_or(Ok(()), |account| account.give(path))
        };
        let failed = |error| Failure::new(format!("preparing {} failed", self.directory.display()), error);
        for path in [target.path.join(target::OURS), target.ours("stage")] {
            // Our folder stays when a base backup was kept in it.
            make(&path).or_else(|error| if path.is_dir() { Ok(()) } else { Err(failed(error)) })?;
        }
        let mut socket = target.ours("socket");
        // A socket's path has at most 107 bytes.
        if socket.as_os_str().len() > 85 {
            let name = crate::digest::Digest::of(socket.as_os_str().as_encoded_bytes()).short();
            socket = std::env::temp_dir().join(format!("lifeboat-{name}"));
            let _ = std::fs::remove_dir_all(&socket);
        }
        make(&socket).map_err(failed)?;
        if self.port == 0 {
            let [port] = free_ports().map_err(failed)?;
            return Ok(Place { port, socket });
        }
        TcpListener::bind(("127.0.0.1", self.port)).map_err(|error| {
            Failure::new(format!("port {} of this machine is not free", self.port), error)
                .now("end what listens there, or give the restore another port (0 takes a free one)")
        })?;
        Ok(Place { port: self.port, socket })
    }

    fn start(&self, bin: &std::path::Path, target: &Target, account: Option<&Account>) -> Result<u32, Failure> {
        let spec = Spec::new(bin.join("postgres")).arg("-D").arg(&self.directory).cwd(&self.directory);
        let spec = spec.env("LC_ALL", "C").env("TZ", "UTC").run_as(account.cloned());
        spec.detach(&target.ours("server.log"))
            .map_err(|error| Failure::new("the restored server could not be started", error))
    }

    async fn finish(&self, target: &Target, base: &Base, ready: &Ready, began: Duration) -> Result<Restored, Failure> {
        let source = Url::parse(&self.source)?;
        let replay_began = clock::boot_now();
        let watch = Watch {
            place: &ready.place,
            plan: &self.plan,
            start: base.start_lsn,
            pid: ready.pid,
            data: self.directory.clone(),
            log: target.ours("server.log"),
            stage: target.ours("stage"),
            user: source.user().unwrap_or("postgres"),
            database: source.database(),
            counters: &ready.counters,
            segment_size: base.wal_segment_bytes,
            patience: self.patience,
            report: &self.report,
        };
        let (client, url, standing) = watch.run(&self.cancel).await?;
        let identity = Identity::read(&client, &url.address()).await?;
        self.assert(&client, base, &identity, &standing).await?;
        target.mark(&Marker {
            format: 1,
            owner: self.owner.clone(),
            plan: self.plan.clone(),
            state: State::Paused { place: ready.place.clone(), lsn: standing.lsn },
        })?;
        let locked = locked_tables(&client).await?;
        if !locked.is_empty() {
            let names = locked.join(", ");
            self.report
                .say(format!("{names}: locked by a transaction that the target cuts off; readable after the promotion"))
                .await;
        }
        let now = clock::boot_now();
        Ok(Restored {
            url: ready.place.text(url.user().unwrap_or("postgres"), url.database()).expose().to_owned(),
            address: format!("127.0.0.1:{}", ready.place.port),
            port: ready.place.port,
            pid: ready.pid,
            directory: self.directory.clone(),
            recovered_to: self.plan.last_ended.or(standing.commit),
            lsn: standing.lsn,
            timeline: self.plan.timeline,
            fingerprint: identity.fingerprint(),
            base_bytes: base.bytes,
            wal_bytes: standing.lsn.0.saturating_sub(base.start_lsn.0),
            base_seconds: ready.base_seconds,
            replay_seconds: (now - replay_began).as_secs_f64(),
            seconds: (now - began).as_secs_f64(),
            locked,
            found: ready.found,
        })
    }
}

fn encoded(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b if b.is_ascii_alphanumeric() || b"-._~".contains(&b) => char::from(b).to_string(),
            b => format!("%{b:02X}"),
        })
        .collect()
}
