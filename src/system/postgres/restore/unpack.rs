//! The base backup onto the disk: parts side by side, every byte hashed on its way, every file checked against
//! PostgreSQL's own manifest while it is written.

use std::collections::{HashSet, VecDeque};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::digest::Hasher;
use crate::event::Failure;
use crate::mutant;
use crate::process::Account;
use crate::store::{Bucket, StoreError};
use crate::system::postgres::base::{Checksum, Entry, Kind, Part, PgManifest, TarError};

/// Bytes of a part that are asked for at once.
const RANGE: u64 = 4 << 20;

/// Threads; each has a part of its own.
pub const SIDE_BY_SIDE: usize = 2;

/// Bytes of a file that are written before they are sent to the disk. The server begins by syncing all it has; the disk is
/// not to idle until then.
const AT_A_TIME: u64 = 32 << 20;

/// Bytes that are worth a sync of their own.
const WORTH_IT: u64 = 1 << 20;

/// Files that wait for the disk; when it lags behind, the server's own sync has to do.
const WAITING: usize = 64;

/// Unpacks a backup beneath `directory`.
pub struct Unpack {
    pub bucket: Bucket,
    pub directory: PathBuf,
    pub parts: Vec<Part>,
    pub manifest: Arc<PgManifest>,
    pub owner: Option<Account>,
    /// Raw bytes done so far.
    pub done: Arc<AtomicU64>,
}

struct Work {
    bucket: Bucket,
    directory: PathBuf,
    queue: Mutex<VecDeque<Part>>,
    manifest: Arc<PgManifest>,
    owner: Option<Account>,
    written: Mutex<HashSet<String>>,
    done: Arc<AtomicU64>,
    runtime: tokio::runtime::Handle,
    stop: CancellationToken,
    to_sync: SyncSender<(PathBuf, File)>,
}

impl Unpack {
    /// Returns when every file of the manifest is there and right. The first failure stops the rest.
    pub async fn run(self, cancel: &CancellationToken) -> Result<(), Failure> {
        let stop = cancel.child_token();
        let _ends_with_us = stop.clone().drop_guard();
        let mut parts = self.parts;
        // The largest first: one that is begun last is waited for by idle hands.
        parts.sort_by_key(|part| std::cmp::Reverse(part.bytes));
        let (to_sync, syncing) = std::sync::mpsc::sync_channel(WAITING);
        let work = Arc::new(Work {
            bucket: self.bucket,
            directory: self.directory,
            queue: Mutex::new(parts.into()),
            manifest: self.manifest,
            owner: self.owner,
            written: Mutex::default(),
            done: self.done,
            runtime: tokio::runtime::Handle::current(),
            stop: stop.clone(),
            to_sync,
        });
        let syncer = tokio::task::spawn_blocking(move || sync(&syncing));
        let workers: Vec<_> = (0..SIDE_BY_SIDE)
            .map(|_| {
                let work = Arc::clone(&work);
                tokio::task::spawn_blocking(move || {
                    let result = work.run();
                    if result.is_err() {
                        work.stop.cancel();
                    }
                    result
                })
            })
            .collect();
        let mut failures = Vec::new();
        for worker in workers {
            let result = worker.await.map_err(|error| Failure::new("unpacking broke off", error));
            failures.extend(result.and_then(|result| result).err());
        }
        let written = std::mem::take(&mut *work.written.lock().expect("no worker panicked"));
        let manifest = Arc::clone(&work.manifest);
        // It ends when nobody has anything for it.
        drop(work);
        let synced = syncer.await.map_err(|error| Failure::new("syncing broke off", error));
        failures.extend(synced.and_then(|synced| synced).err());
        // The worker that was stopped because of the other's failure has nothing to say.
        failures.sort_by_key(|failure| failure.why == STOPPED);
        if let Some(failure) = failures.into_iter().next() {
            return Err(failure);
        }
        match manifest.files.keys().filter(|name| !is_ours(name)).find(|name| !written.contains(*name)) {
            Some(missing) => Err(Failure::new("the base backup is not complete", format!("{missing} is in no part"))
                .now("choose another base backup")),
            None => Ok(()),
        }
    }
}

/// Sends files to the disk, until nobody has any.
fn sync(files: &Receiver<(PathBuf, File)>) -> Result<(), Failure> {
    let mut lost = Ok(());
    for (path, file) in files {
        // What the disk lost is lost for good: a second sync would say that all is well.
        lost = lost.and(file.sync_data().map_err(|error| {
            Failure::new(format!("{} did not reach the disk", path.display()), error).now("look at the disk")
        }));
    }
    lost
}

const STOPPED: &str = "it was stopped";

/// A cluster that was once restored by Lifeboat carries our files; they are not the cluster's.
pub fn is_ours(name: &str) -> bool {
    name.starts_with(".lifeboat")
}

impl Work {
    fn run(&self) -> Result<(), Failure> {
        let mut made = HashSet::new();
        let mut buffer = vec![0; 1 << 18];
        loop {
            let Some(part) = self.queue.lock().expect("no worker panicked").pop_front() else { return Ok(()) };
            self.part(&part, &mut made, &mut buffer).map_err(|error| match error {
                Trouble::Stopped => Failure::new("unpacking the base backup", STOPPED),
                Trouble::Store(error) => Failure::from(error).fails(format!("{} cannot be read", part.key)),
                Trouble::Disk(what, error) => Failure::new(format!("writing {what} failed"), error),
                Trouble::Damaged(why) => Failure::new(format!("{} of the base backup is damaged", part.key), why)
                    .now("choose another base backup; nothing of this one was used"),
            })?;
        }
    }

    fn part(&self, part: &Part, made: &mut HashSet<PathBuf>, buffer: &mut [u8]) -> Result<(), Trouble> {
        let mut source = PartReader::open(self.bucket.clone(), part, &self.runtime);
        let unpacked = self.entries(&mut source, made, buffer);
        if let Some(error) = source.error.take() {
            return Err(Trouble::Store(error));
        }
        if self.stop.is_cancelled() {
            return Err(Trouble::Stopped);
        }
        // Read to the end whatever happened: a wrong digest explains everything else.
        let drained = io::copy(&mut source, &mut io::sink());
        if let Some(error) = source.error.take() {
            return Err(Trouble::Store(error));
        }
        drained?;
        let (found, bytes) = (source.hasher.finish(), source.bytes);
        if (found != part.digest || bytes != part.bytes) && !mutant::removes("15") {
            let expected = part.digest;
            return Err(Trouble::Damaged(format!(
                "expected {} bytes with SHA-256 {expected}, found {bytes} with {found}",
                part.bytes
            )));
        }
        unpacked
    }

    fn entries(&self, source: &mut PartReader, made: &mut HashSet<PathBuf>, buffer: &mut [u8]) -> Result<(), Trouble> {
        let mut tar = zstd::stream::read::Decoder::new(self.bucket.encryption().open_stream(source)?)?;
        while let Some(entry) = Entry::next(&mut tar).map_err(|error| match error {
            TarError::Io(error) => error.into(),
            error => Trouble::Damaged(error.to_string()),
        })? {
            match entry.kind {
                Kind::Directory if is_ours(&entry.name) => {}
                Kind::Directory => self.directory(&entry.path, made)?,
                Kind::File => self.file(&entry, &mut tar, made, buffer)?,
            }
            self.done.fetch_add(entry.size + entry.padding() as u64 + 512, Ordering::Relaxed);
        }
        Ok(())
    }

    fn directory(&self, path: &Path, made: &mut HashSet<PathBuf>) -> Result<(), Trouble> {
        if path.as_os_str().is_empty() || made.contains(path) {
            return Ok(());
        }
        if let Some(parent) = path.parent() {
            self.directory(parent, made)?;
        }
        let full = self.directory.join(path);
        let disk = |error| Trouble::Disk(full.display().to_string(), error);
        match std::fs::DirBuilder::new().mode(0o700).create(&full) {
            Ok(()) => self.owner.as_ref().map_or(Ok(()), |owner| owner.give(&full)).map_err(disk)?,
            // The other worker was faster.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(disk(error)),
        }
        made.insert(path.to_owned());
        Ok(())
    }

    fn file(
        &self,
        entry: &Entry,
        tar: &mut impl Read,
        made: &mut HashSet<PathBuf>,
        buffer: &mut [u8],
    ) -> Result<(), Trouble> {
        let wrong = |why: &str| Trouble::Damaged(format!("{} {why}", entry.name));
        if is_ours(&entry.name) {
            let length = entry.size + entry.padding() as u64;
            io::copy(&mut tar.by_ref().take(length), &mut io::sink())?;
            return Ok(());
        }
        let expected = self.manifest.files.get(&entry.name).ok_or_else(|| wrong("is not in the backup's manifest"))?;
        if entry.size != expected.size && !mutant::removes("9b") {
            return Err(wrong(&format!("has {} bytes; the backup's manifest says {}", entry.size, expected.size)));
        }
        if let Some(parent) = entry.path.parent() {
            self.directory(parent, made)?;
        }
        let full = self.directory.join(&entry.path);
        let disk = |error| Trouble::Disk(full.display().to_string(), error);
        // Never onto something that is there, never through a link.
        let mut file =
            std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&full).map_err(disk)?;
        let mut checksum = Checksum::of(expected);
        let (mut left, mut unsynced) = (entry.size, 0);
        while left > 0 {
            let want = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            tar.read_exact(&mut buffer[..want])?;
            checksum.update(&buffer[..want]);
            file.write_all(&buffer[..want]).map_err(disk)?;
            left -= want as u64;
            unsynced += want as u64;
            if unsynced >= AT_A_TIME {
                unsynced = 0;
                let _ = self.to_sync.try_send((full.clone(), file.try_clone().map_err(disk)?));
            }
            if self.stop.is_cancelled() {
                return Err(Trouble::Stopped);
            }
        }
        tar.read_exact(&mut buffer[..entry.padding()])?;
        if !checksum.matches(expected) && !mutant::removes("9b") {
            return Err(wrong("does not have the checksum that the backup's manifest says"));
        }
        self.give(&file).map_err(disk)?;
        if unsynced >= WORTH_IT {
            let _ = self.to_sync.try_send((full, file));
        }
        let fresh = self.written.lock().expect("no worker panicked").insert(entry.name.clone());
        if fresh { Ok(()) } else { Err(wrong("is there twice")) }
    }

    fn give(&self, file: &File) -> io::Result<()> {
        match &self.owner {
            Some(owner) if nix::unistd::geteuid().is_root() => {
                std::os::unix::fs::fchown(file, Some(owner.uid), Some(owner.gid))
            }
            _ => Ok(()),
        }
    }
}

enum Trouble {
    Stopped,
    Store(StoreError),
    Disk(String, io::Error),
    Damaged(String),
}

impl From<io::Error> for Trouble {
    /// What decompressing and reading say.
    fn from(error: io::Error) -> Self {
        Self::Damaged(error.to_string())
    }
}

/// A part as it comes, hashed; the next ranges are asked for while this one is unpacked.
struct PartReader {
    ranges: mpsc::Receiver<Result<Bytes, StoreError>>,
    current: Bytes,
    hasher: Hasher,
    bytes: u64,
    /// What the bucket said; `Read` can only pass on that something is wrong.
    error: Option<StoreError>,
}

impl PartReader {
    fn open(bucket: Bucket, part: &Part, runtime: &tokio::runtime::Handle) -> Self {
        let (sender, ranges) = mpsc::channel(2);
        let (key, end) = (part.key.clone(), part.bytes);
        runtime.spawn(async move {
            let mut at = 0;
            while at < end {
                let next = (at + RANGE).min(end);
                let result = bucket.range(&key, at..next).await;
                let last = result.is_err();
                if sender.send(result).await.is_err() || last {
                    return;
                }
                at = next;
            }
        });
        Self { ranges, current: Bytes::new(), hasher: Hasher::default(), bytes: 0, error: None }
    }
}

impl Read for PartReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.current.is_empty() {
            match self.ranges.blocking_recv() {
                None => return Ok(0),
                Some(Ok(bytes)) => {
                    self.hasher.update(&bytes);
                    self.bytes += bytes.len() as u64;
                    self.current = bytes;
                }
                Some(Err(error)) => {
                    let text = error.to_string();
                    self.error = Some(error);
                    return Err(io::Error::other(text));
                }
            }
        }
        let n = buffer.len().min(self.current.len());
        buffer[..n].copy_from_slice(&self.current[..n]);
        self.current = self.current.slice(n..);
        Ok(n)
    }
}
