//! The stage: WAL that is fetched and decompressed ahead of the server, on its own file system.
//!
//! ```text
//! lock       held by the living stager
//! plan       what it will deliver, a name a line, in order
//! status     how many it has delivered, and how many it will deliver without waiting for the server
//! missing    the last segment that the server asked for and that is not in the archive
//! asked      the last segment that the server did not wait for and got from the bucket itself
//! <segment>  delivered: appears whole, by rename, and leaves by rename
//! ```

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::archive::WalError;
use super::name::WalFile;
use super::supply::Supply;
use crate::clock;
use crate::process::Account;

/// Between two looks at what the server has taken.
const LOOK: Duration = Duration::from_millis(3);

const TRIES: u32 = 6;

/// Requests to the bucket under way at once: its answers may take longer than the replay of a segment.
const SIDE_BY_SIDE: usize = 4;

/// What a stager has done so far, for progress.
#[derive(Debug, Default)]
pub struct Counters {
    /// Segments delivered.
    pub delivered: AtomicU64,
    /// Segments of the plan that the server has behind it.
    pub taken: AtomicU64,
    /// Bytes delivered.
    pub bytes: AtomicU64,
}

/// How many segments may be ahead of the server; changed while the stager works.
pub type Window = Arc<AtomicU64>;

/// Delivers a plan's segments in order, at most a window ahead of the server.
pub struct Stager {
    supply: Supply,
    directory: PathBuf,
    plan: Vec<String>,
    system_identifier: u64,
    owner: Option<Account>,
    window: Window,
    counters: Arc<Counters>,
    _lock: File,
    status: File,
}

impl Stager {
    /// Takes the stage: after this, `wal fetch` waits for what is in the plan.
    pub fn prepare(
        supply: Supply,
        directory: PathBuf,
        plan: Vec<String>,
        system_identifier: u64,
        owner: Option<Account>,
        window: Window,
        counters: Arc<Counters>,
    ) -> Result<Self, WalError> {
        let io = |operation, path: &Path| {
            let path = path.to_owned();
            move |source| WalError::Io { operation, path, source }
        };
        let create = |name: &str| {
            let path = directory.join(name);
            let file =
                std::fs::OpenOptions::new().read(true).write(true).create(true).truncate(true).mode(0o600).open(&path);
            let file = file.map_err(io("creating", &path))?;
            owner.as_ref().map_or(Ok(()), |owner| owner.give(&path)).map_err(io("giving away", &path))?;
            Ok::<_, WalError>(file)
        };
        let lock = create("lock")?;
        lock.lock().map_err(io("locking", &directory.join("lock")))?;
        let text: String = plan.iter().flat_map(|name| [name.as_str(), "\n"]).collect();
        create("plan")?.write_all_at(text.as_bytes(), 0).map_err(io("writing", &directory.join("plan")))?;
        let status = create("status")?;
        let stager = Self { supply, directory, plan, system_identifier, owner, window, counters, _lock: lock, status };
        stager.publish(0, stager.window.load(Ordering::Relaxed))?;
        Ok(stager)
    }

    /// Works until everything is delivered or `cancel`; blocks its thread. `runtime` does the bucket's part.
    pub fn run(self, runtime: &tokio::runtime::Handle, cancel: &CancellationToken) -> Result<(), WalError> {
        let mut stored = self.download(runtime, cancel.clone());
        let mut outstanding: VecDeque<(u64, PathBuf)> = VecDeque::new();
        for (index, name) in self.plan.iter().enumerate() {
            let index = index as u64;
            let passed = loop {
                let passed = self.passed(&mut outstanding);
                let limit = index.max(passed) - outstanding.len() as u64 + self.window.load(Ordering::Relaxed);
                self.publish(index.max(passed), limit)?;
                if index < limit || cancel.is_cancelled() {
                    break passed;
                }
                clock::block(LOOK);
            };
            if cancel.is_cancelled() {
                return Ok(());
            }
            // Without a failure it ends only when it is cancelled.
            let Some(stored) = stored.blocking_recv() else { return Ok(()) };
            if index >= passed {
                outstanding.push_back((index, self.deliver(name, stored?)?));
            }
        }
        self.publish(self.plan.len() as u64, 0)
    }

    /// How much of the plan the server has behind it. It asks in order, so a segment that it took or asked for settles
    /// those before it, even ones that it never took: waiting for these would be for ever.
    fn passed(&self, outstanding: &mut VecDeque<(u64, PathBuf)>) -> u64 {
        let asked = std::fs::read_to_string(self.directory.join("asked")).unwrap_or_default();
        let asked = self.plan.iter().position(|name| *name == asked).map_or(0, |index| index as u64 + 1);
        let taken = outstanding.iter().rev().find(|(_, path)| !path.exists()).map_or(0, |(index, _)| index + 1);
        let passed = asked.max(taken);
        while outstanding.front().is_some_and(|(index, _)| *index < passed) {
            outstanding.pop_front();
        }
        self.counters.taken.fetch_max(passed, Ordering::Relaxed);
        passed
    }

    /// The plan's segments as the bucket has them, in order, a few ahead; ends when nobody takes them.
    fn download(
        &self,
        runtime: &tokio::runtime::Handle,
        cancel: CancellationToken,
    ) -> mpsc::Receiver<Result<Bytes, WalError>> {
        let (sender, receiver) = mpsc::channel(1);
        let (supply, plan) = (self.supply.clone(), self.plan.clone());
        runtime.spawn(async move {
            let mut all = futures::stream::iter(plan).map(|name| get(&supply, name)).buffered(SIDE_BY_SIDE);
            while let Some(Some(stored)) = cancel.run_until_cancelled(all.next()).await {
                if sender.send(stored).await.is_err() {
                    return;
                }
            }
        });
        receiver
    }

    fn deliver(&self, name: &str, stored: Bytes) -> Result<PathBuf, WalError> {
        let bytes = self.supply.unpack(&parse(name)?, stored, Some(self.system_identifier))?;
        let (scratch, path) = (self.directory.join(".coming"), self.directory.join(name));
        let io = |operation, path: &PathBuf| {
            let path = path.clone();
            move |source| WalError::Io { operation, path, source }
        };
        let mut target = std::fs::OpenOptions::new();
        let mut target = target
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&scratch)
            .map_err(io("creating", &scratch))?;
        io::Write::write_all(&mut target, &bytes).map_err(io("writing", &scratch))?;
        // The server syncs each segment that it is handed, and replays nothing meanwhile.
        target.sync_data().map_err(io("syncing", &scratch))?;
        self.owner.as_ref().map_or(Ok(()), |owner| owner.give(&scratch)).map_err(io("giving away", &scratch))?;
        std::fs::rename(&scratch, &path).map_err(io("renaming", &scratch))?;
        self.counters.delivered.fetch_add(1, Ordering::Relaxed);
        self.counters.bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        Ok(path)
    }

    fn publish(&self, delivered: u64, limit: u64) -> Result<(), WalError> {
        let text = format!("{delivered:020} {limit:020}\n");
        self.status.write_all_at(text.as_bytes(), 0).map_err(|source| WalError::Io {
            operation: "writing",
            path: self.directory.join("status"),
            source,
        })
    }
}

fn parse(name: &str) -> Result<WalFile, WalError> {
    WalFile::parse(name).ok_or_else(|| super::BadSegment::Name(name.to_owned()).into())
}

/// A segment as the bucket has it, tried again while that may help.
async fn get(supply: &Supply, name: String) -> Result<Bytes, WalError> {
    let file = parse(&name)?;
    let mut pause = Duration::from_millis(100);
    for _ in 1..TRIES {
        match supply.stored(&file).await {
            Err(error) if error.may_pass() => {}
            result => return settled(supply, &file, result),
        }
        clock::sleep(pause).await;
        pause *= 2;
    }
    settled(supply, &file, supply.stored(&file).await)
}

fn settled(supply: &Supply, file: &WalFile, result: Result<Option<Bytes>, WalError>) -> Result<Bytes, WalError> {
    result?.ok_or_else(|| supply.missing(file))
}

/// Where a segment is that is not on the stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// The stager will deliver it whatever the server does.
    Coming,
    /// It was there; either it still is, or it was taken before.
    Delivered,
    /// No stager lives, it is not in the plan, or it comes only after the server has taken others.
    NotComing,
}

pub(super) fn on_its_way(stage: &Path, name: &str) -> Way {
    let alive = File::open(stage.join("lock"))
        .is_ok_and(|lock| matches!(lock.try_lock_shared(), Err(std::fs::TryLockError::WouldBlock)));
    if !alive {
        // Its last act may have been to deliver just this.
        return Way::Delivered;
    }
    let read = |file: &str| std::fs::read_to_string(stage.join(file)).unwrap_or_default();
    let Some(index) = read("plan").lines().position(|line| line == name) else { return Way::NotComing };
    let status = read("status");
    let mut numbers = status.split_whitespace().map(|number| number.parse().unwrap_or(0_u64));
    let (delivered, limit) = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    match index as u64 {
        index if index < delivered => Way::Delivered,
        index if index < limit => Way::Coming,
        _ => Way::NotComing,
    }
}

/// Tells the restore that the server wants a segment that is not there.
pub(super) fn note_missing(stage: &Path, name: &str) {
    note(stage, "missing", name);
}

/// Tells the stager how far the server is that did not wait for it.
pub(super) fn note_asked(stage: &Path, name: &str) {
    note(stage, "asked", name);
}

/// A hint and no more: the exit code is what PostgreSQL goes by.
fn note(stage: &Path, file: &str, name: &str) {
    let scratch = stage.join(format!(".{file}"));
    let _ = std::fs::write(&scratch, name).and_then(|()| std::fs::rename(&scratch, stage.join(file)));
}

/// What the server asked for in vain, last.
pub fn missing_in(stage: &Path) -> Option<String> {
    std::fs::read_to_string(stage.join("missing")).ok()
}

#[cfg(test)]
mod tests;
