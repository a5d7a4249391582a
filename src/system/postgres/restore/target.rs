//! The target directory: ours by its marker, or empty, or refused. There is no force.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use chrono::{DateTime, Utc};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use super::Plan;
use super::chain::end_orphans;
use super::unpack::is_ours;
use crate::clock;
use crate::event::{Failure, Lsn};
use crate::mutant;
use crate::process::Account;

/// In the data directory: whose restore this is.
pub const MARKER: &str = ".lifeboat-restore.json";

/// In the data directory: held while somebody works on it.
pub const LOCK: &str = ".lifeboat-lock";

/// In the data directory: stage, socket, log, the source's own configuration.
pub const OURS: &str = ".lifeboat";

/// In [`OURS`], until the promotion: the keys to the bucket, for the server's user alone.
pub const KEYS: &str = "keys";

/// The same of the private keys to read encrypted WAL with.
pub const IDENTITY: &str = "identity";

/// Who restores what, for the marker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Owner {
    pub drill: String,
    pub system: String,
    pub effect_key: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Marker {
    pub format: u32,
    pub owner: Owner,
    pub plan: Plan,
    pub state: State,
}

/// How far a restore is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "kebab-case", deny_unknown_fields)]
pub enum State {
    /// Files are coming; nothing of it can be used.
    Unpacking,
    /// Every file was verified; the server was started on them.
    Started(Place),
    /// It stands at the target.
    Paused { place: Place, lsn: Lsn },
    /// It takes writes; from now on it may hold what exists nowhere else.
    Promoted { place: Place, at: DateTime<Utc> },
}

/// Where the restored server answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Place {
    pub port: u16,
    pub socket: PathBuf,
}

/// A directory that is ours to write to, until dropped.
#[derive(Debug)]
pub struct Target {
    pub path: PathBuf,
    _lock: File,
}

fn failed(what: &str, path: &Path) -> impl FnOnce(io::Error) -> Failure {
    let text = format!("{what} {} failed", path.display());
    move |error| Failure::new(text, error)
}

/// The directory's marker; `None` when it has none.
pub fn read_marker(path: &Path) -> Result<Option<Marker>, Failure> {
    match std::fs::read(path.join(MARKER)) {
        Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(|error| {
            Failure::new(format!("the marker in {} cannot be read", path.display()), error)
                .now("if nothing in the directory is needed, remove it by hand, then retry")
        }),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
        Err(error) => Err(failed("reading the marker of", path)(error)),
    }
}

impl Target {
    /// Takes an absent or empty directory, or one with a marker of the same drill and system that was not promoted.
    /// Returns what its marker said. Anything else is refused, unchanged.
    pub async fn claim(
        path: &Path,
        owner: &Owner,
        plan: &Plan,
        account: Option<&Account>,
    ) -> Result<(Self, Option<Marker>), Failure> {
        let refused = |why: String| refusal(path, why);
        let elsewhere = ELSEWHERE;
        if !path.is_absolute() || path.parent().is_none() {
            return Err(refused("it is not an absolute path below the root".to_owned()).now(elsewhere));
        }
        match std::fs::symlink_metadata(path) {
            Ok(meta) if meta.is_dir() => {}
            Ok(_) => return Err(refused("it is a link or a file, not a directory".to_owned()).now(elsewhere)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => create(path, account)?,
            Err(error) => return Err(failed("looking at", path)(error)),
        }
        Self::admit(path, owner)?;
        let target = Self::lock(path).await?;
        // What was seen without the lock may have been another one's beginning.
        let before = if mutant::removes("19") { None } else { Self::admit(path, owner)? };
        if before.is_none() {
            target.mark(&Marker { format: 1, owner: owner.clone(), plan: plan.clone(), state: State::Unpacking })?;
        }
        Ok((target, before))
    }

    /// Looks whether a directory that exists may be used, and changes nothing. Returns its marker.
    fn admit(path: &Path, owner: &Owner) -> Result<Option<Marker>, Failure> {
        let refused = |why: String| refusal(path, why);
        let elsewhere = ELSEWHERE;
        let entries: Vec<String> = std::fs::read_dir(path)
            .and_then(|entries| entries.map(|e| e.map(|e| e.file_name().to_string_lossy().into_owned())).collect())
            .map_err(failed("listing", path))?;
        let before = read_marker(path)?;
        match &before {
            // The beginnings of another one count as empty: its lock will be waited for.
            None if entries.iter().all(|name| name == LOCK || *name == format!("{MARKER}.new")) => {}
            None if mutant::removes("1") => {}
            None => {
                let first = entries.iter().min().cloned().unwrap_or_default();
                let what =
                    if entries.iter().any(|name| name == "PG_VERSION") { "a PostgreSQL cluster" } else { "files" };
                return Err(refused(format!("it holds {what} that no restore of Lifeboat put there ({first} …)"))
                    .now(elsewhere));
            }
            Some(Marker { owner: other, .. })
                if (&other.drill, &other.system) != (&owner.drill, &owner.system)
                    && !mutant::removes("1b")
                    && !mutant::removes("19") =>
            {
                return Err(refused(format!("it holds the restore of {} by drill {}", other.system, other.drill))
                    .now(format!(
                        "undo it in that drill while that is open; when it is over, end the server in it (pg_ctl -D {0} \
                         stop) and move it aside (mv {0} {0}.{1}). Or give this restore another directory",
                        path.display(),
                        other.drill
                    )));
            }
            Some(Marker { state: State::Promoted { at, .. }, .. }) => {
                return Err(refused(format!("the server in it was promoted at {at} and may hold new writes"))
                    .now("undo the earlier restore: it sets the directory aside"));
            }
            Some(marker) => {
                if let Some(timeline) = promoted_by_others(path, marker) {
                    return Err(refused(format!(
                        "the server in it was promoted to timeline {timeline} by somebody else and may hold new writes"
                    ))
                    .now("undo the earlier restore: it sets the directory aside"));
                }
            }
        }
        Ok(before)
    }

    /// Takes a directory whose marker is of this drill and system, promoted or not.
    pub async fn reopen(path: &Path, drill: &str, system: &str) -> Result<(Self, Marker), Failure> {
        let marker = read_marker(path)?.filter(|marker| marker.owner.drill == drill && marker.owner.system == system);
        let marker = marker.ok_or_else(|| {
            Failure::new(
                format!("{} was not touched", path.display()),
                format!("it does not carry the marker of drill {drill} for {system}"),
            )
        })?;
        Ok((Self::lock(path).await?, marker))
    }

    async fn lock(path: &Path) -> Result<Self, Failure> {
        let file = std::fs::OpenOptions::new().create(true).append(true).open(path.join(LOCK));
        let file = file.map_err(failed("locking", path))?;
        // A child that is just being started shares every lock of this program for a moment.
        let patience = clock::boot_now() + Duration::from_secs(2);
        while !mutant::removes("19") && file.try_lock().is_err() {
            if clock::boot_now() > patience {
                return Err(Failure::new(
                    format!("{} is in use", path.display()),
                    "another Lifeboat is restoring into it",
                )
                .now("wait for it, or end it, then retry"));
            }
            clock::sleep(Duration::from_millis(20)).await;
        }
        Ok(Self { path: path.to_owned(), _lock: file })
    }

    /// Replaces the marker, durably.
    pub fn mark(&self, marker: &Marker) -> Result<(), Failure> {
        let write = || {
            let scratch = self.path.join(format!("{MARKER}.new"));
            let json = serde_json::to_vec_pretty(marker).map_err(io::Error::other)?;
            let mut file = File::create(&scratch)?;
            io::Write::write_all(&mut file, &json)?;
            file.sync_all()?;
            std::fs::rename(&scratch, self.path.join(MARKER))?;
            File::open(&self.path)?.sync_all()
        };
        write().map_err(failed("writing the marker of", &self.path))
    }

    /// Removes everything but marker, lock and `kept`, a name in our folder. Stops a server that still runs on it first.
    pub async fn wipe(&self, kept: Option<&Path>) -> Result<(), Failure> {
        fn empty(directory: &Path, stays: &dyn Fn(&Path) -> bool) -> io::Result<()> {
            for entry in std::fs::read_dir(directory)? {
                let entry = entry?;
                match entry.path() {
                    path if stays(&path) => {}
                    path if entry.file_type()?.is_dir() => std::fs::remove_dir_all(path)?,
                    path => std::fs::remove_file(path)?,
                }
            }
            Ok(())
        }
        stop_server(&self.path).await?;
        end_orphans(&self.path).await;
        let wipe = || {
            let ours = self.path.join(OURS);
            let [marker, lock] = [MARKER, LOCK].map(|name| self.path.join(name));
            empty(&self.path, &|path| path == marker || path == lock || (kept.is_some() && path == ours))?;
            kept.map_or(Ok(()), |kept| empty(&ours, &|path| path == kept))
        };
        wipe().map_err(failed("emptying", &self.path))
    }

    /// Puts what was made of a base backup beside what is ours in its place.
    pub fn settle(&self, beside: &Path) -> Result<(), Failure> {
        let settle = || {
            for entry in std::fs::read_dir(beside)? {
                let entry = entry?;
                // A cluster that was once restored by Lifeboat carries our files; they are not the cluster's.
                if !is_ours(&entry.file_name().to_string_lossy()) {
                    std::fs::rename(entry.path(), self.path.join(entry.file_name()))?;
                }
            }
            std::fs::remove_dir_all(beside)
        };
        settle().map_err(failed("preparing", &self.path))
    }

    /// An empty stage, and a new log: what an earlier server said is not taken for this one's.
    pub fn renew_stage(&self, account: Option<&Account>) -> Result<(), Failure> {
        use std::os::unix::fs::DirBuilderExt as _;
        let (stage, log) = (self.ours("stage"), self.ours("server.log"));
        let renew = || {
            if log.exists() {
                std::fs::rename(&log, self.ours("server.log.before"))?;
            }
            match std::fs::remove_dir_all(&stage) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            std::fs::DirBuilder::new().mode(0o700).create(&stage)?;
            account.map_or(Ok(()), |account| account.give(&stage))
        };
        renew().map_err(failed("preparing", &self.path))
    }

    /// Gives what is ours to the server's user: what that cannot read in its data directory, no backup of it gets past.
    pub fn hand_over(&self) -> Result<(), Failure> {
        let give = || {
            let owner = std::fs::metadata(self.path.join("PG_VERSION"))?;
            let mut left: Vec<PathBuf> = [OURS, MARKER, LOCK].map(|name| self.path.join(name)).into();
            while let Some(path) = left.pop() {
                match std::os::unix::fs::lchown(&path, Some(owner.uid()), Some(owner.gid())) {
                    // The server, and whoever reads its WAL, work there.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                    result => result?,
                }
                if path.symlink_metadata()?.is_dir() {
                    let entries = std::fs::read_dir(&path)?.map(|entry| entry.map(|entry| entry.path()));
                    left.extend(entries.collect::<io::Result<Vec<PathBuf>>>()?);
                }
            }
            Ok(())
        };
        if nix::unistd::geteuid().is_root() { give().map_err(failed("handing over", &self.path)) } else { Ok(()) }
    }

    /// `<directory>/.lifeboat/<name>`
    pub fn ours(&self, name: &str) -> PathBuf {
        self.path.join(OURS).join(name)
    }
}

const ELSEWHERE: &str = "give `restore.directory` of the system another, empty directory";

fn refusal(path: &Path, why: String) -> Failure {
    Failure::new(format!("{} is not a place to restore to", path.display()), why)
}

fn create(path: &Path, account: Option<&Account>) -> Result<(), Failure> {
    use std::os::unix::fs::DirBuilderExt as _;
    let mut missing: Vec<&Path> = path.ancestors().take_while(|path| !path.exists()).collect();
    while let Some(next) = missing.pop() {
        // Only the data directory itself is closed to others: the server's user must be able to pass through the rest.
        let mode = if missing.is_empty() { 0o700 } else { 0o755 };
        match std::fs::DirBuilder::new().mode(mode).create(next) {
            // Another one was faster; whose it is will be looked at.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
            created => created.map_err(failed("creating", next))?,
        }
        account.map_or(Ok(()), |account| account.give(next)).map_err(failed("giving away", next))?;
    }
    Ok(())
}

/// The pid of the server that runs on this data directory, if one does.
pub fn running_server(data: &Path) -> Option<u32> {
    let here = data.canonicalize().ok()?;
    by_pid_file(&here).or_else(|| starting(&here))
}

fn by_pid_file(here: &Path) -> Option<u32> {
    let text = std::fs::read_to_string(here.join("postmaster.pid")).ok()?;
    let mut lines = text.lines();
    let pid: u32 = lines.next()?.trim().parse().ok()?;
    let directory = lines.next()?;
    if Path::new(directory).canonicalize().ok()? != here || !alive(pid) {
        return None;
    }
    // The file may be a crash's leftover and the number somebody else's now: a postmaster works in its data directory.
    match std::fs::read_link(format!("/proc/{pid}/cwd")) {
        Ok(cwd) if cwd != here => None,
        _ => Some(pid),
    }
}

/// A server that was started a moment ago has no pid file yet, but works in its directory and says `-D`, which its
/// children do not.
fn starting(here: &Path) -> Option<u32> {
    std::fs::read_dir("/proc").ok()?.flatten().find_map(|entry| {
        let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
        let in_it = std::fs::read_link(entry.path().join("cwd")).is_ok_and(|cwd| cwd == here);
        let line = in_it.then(|| std::fs::read(entry.path().join("cmdline")).ok()).flatten()?;
        let mut words = line.split(|byte| *byte == 0);
        let postgres = words.next().is_some_and(|program| program.ends_with(b"/postgres"));
        (postgres && words.any(|word| word == b"-D")).then_some(pid)
    })
}

pub fn alive(pid: u32) -> bool {
    // A zombie that nobody has reaped yet answers signals, and is dead.
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let answers = i32::try_from(pid).is_ok_and(|pid| kill(Pid::from_raw(pid), None) != Err(nix::errno::Errno::ESRCH));
    answers && !stat.contains(") Z ")
}

/// Stops the server of this data directory, fast, then at once, then by force; returns when it is gone.
pub async fn stop_server(data: &Path) -> Result<(), Failure> {
    for (signal, patience) in [(Signal::SIGINT, 20), (Signal::SIGQUIT, 10), (Signal::SIGKILL, 10)] {
        let Some(pid) = running_server(data) else { return Ok(()) };
        // One that somebody has suspended hears it only when it goes on.
        for signal in [signal, Signal::SIGCONT] {
            let _ = i32::try_from(pid).map(|pid| kill(Pid::from_raw(pid), signal));
        }
        let deadline = clock::boot_now() + Duration::from_secs(patience);
        while clock::boot_now() < deadline {
            if running_server(data).is_none() && !alive(pid) {
                return Ok(());
            }
            clock::sleep(Duration::from_millis(20)).await;
        }
    }
    Err(Failure::new(format!("the server on {} could not be stopped", data.display()), "it outlived SIGKILL")
        .now("end it by hand, then retry"))
}

/// The timeline that the server was promoted to, when no step of ours did it. The control file learns of it late; the
/// history of the new timeline is written before anything else of it.
pub fn promoted_by_others(path: &Path, marker: &Marker) -> Option<u32> {
    let (State::Started(_) | State::Paused { .. }) = &marker.state else { return None };
    let entries = std::fs::read_dir(path.join("pg_wal")).ok()?.flatten();
    let timeline = |name: &str| u32::from_str_radix(name.strip_suffix(".history")?, 16).ok();
    entries.filter_map(|entry| timeline(entry.file_name().to_str()?)).filter(|id| *id > marker.plan.timeline).max()
}

/// The way back of a restore: its server is stopped and its directory removed, or set aside when it was promoted.
/// Returns a sentence that says what was done.
pub async fn undo(path: &Path, drill: &str, system: &str) -> Result<String, Failure> {
    if !path.exists() {
        return Ok(format!("{} does not exist; nothing to undo", path.display()));
    }
    let (target, marker) = Target::reopen(path, drill, system).await?;
    stop_server(path).await?;
    let promoted = match marker.state {
        State::Promoted { at, .. } => Some(at),
        _ => promoted_by_others(path, &marker).map(|_| clock::wall_now()),
    };
    if let Some(at) = promoted {
        let aside = path.with_extension(format!("set-aside-{}", at.format("%Y%m%dT%H%M%SZ")));
        std::fs::rename(path, &aside).map_err(failed("setting aside", path))?;
        return Ok(format!("the promoted server was stopped; its directory is kept as {}", aside.display()));
    }
    target.wipe(None).await?;
    // The marker goes last but one: a directory that is half removed is still known to be ours.
    for name in [MARKER, LOCK] {
        std::fs::remove_file(path.join(name)).map_err(failed("removing", path))?;
    }
    std::fs::remove_dir(path).map_err(failed("removing", path))?;
    Ok(format!("the restored server was stopped and {} removed", path.display()))
}
