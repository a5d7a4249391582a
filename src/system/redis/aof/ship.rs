//! Copies the set of files into the bucket while the server goes on, or after it has died.

use std::fs::File;
use std::io::{BufReader, Read as _, Seek as _, SeekFrom};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _};
use tokio_util::sync::CancellationToken;

use super::layout::{self, Kind, Part};
use super::manifest::{self, AofFile, AofManifest, FOLDER, FORMAT, Piece};
use super::scan::{self, Scan, ScanError};
use crate::clock;
use crate::digest::{Digest, Hasher};
use crate::event::{AofRange, Failure, Unit};
use crate::secret::Secret;
use crate::store::{Bucket, StoreError};
use crate::system::redis::catalogue::Source;
use crate::system::redis::connect::{self, Redis, RedisError};
use crate::system::redis::lane::{Lane, Report};
use crate::system::redis::rdb::{self, RdbError, Survey};
use crate::system::redis::snapshot::server_time;
use crate::system::redis::transfer::{self, TransferError};

const LOOK: Duration = Duration::from_millis(50);
/// Until the files must have been found as the server counts them: rewrites may come in between, and while the disk is
/// slow Redis writes what it has acknowledged only after two seconds.
const PATIENCE: Duration = Duration::from_secs(6);
const BUFFER: usize = 256 * 1024;

#[derive(Debug, thiserror::Error)]
pub enum AofError {
    #[error("the server at {address} keeps none (`appendonly no`)")]
    Off { address: String },
    #[error("{address} is not this machine, and the inventory names no data directory")]
    Remote { address: String },
    #[error("the server does not answer, and the inventory names no data directory: {0}")]
    Unreachable(RedisError),
    #[error("{operation} {} failed: {source}", path.display())]
    Io { operation: &'static str, path: PathBuf, source: std::io::Error },
    #[error("{}: {why}", path.display())]
    Manifest { path: PathBuf, why: String },
    #[error("{} changed each time it was read", path.display())]
    Restless { path: PathBuf },
    #[error(
        "the files in {} are not those of the server at {address}: they have {found} bytes, it says {said}",
        directory.display()
    )]
    NotIts { directory: PathBuf, address: String, found: u64, said: u64 },
    #[error("its base {name} cannot be used: {source}")]
    Base { name: String, source: RdbError },
    #[error("its base {name} does not say when it was written")]
    Undated { name: String },
    #[error("{name}: {source}")]
    Scan { name: String, source: ScanError },
    #[error("none of its {commands} commands has a time")]
    NoTimestamps { commands: u64 },
    #[error(transparent)]
    Transfer(#[from] TransferError),
    #[error("it was cancelled")]
    Cancelled,
}

impl From<StoreError> for AofError {
    fn from(error: StoreError) -> Self {
        Self::Transfer(error.into())
    }
}

impl From<AofError> for Failure {
    fn from(error: AofError) -> Self {
        let now = match &error {
            AofError::Off { .. } => {
                "Only snapshots are kept of this server. For less loss set `appendonly yes` and `aof-timestamp-enabled yes`."
            }
            AofError::Remote { .. } | AofError::Unreachable(_) => {
                "Run this where the server's disk is, and name its directory in the inventory: data = \"/var/lib/redis\"."
            }
            AofError::Io { .. } => "Let the user that runs this read the directory `appendonlydir` of the server.",
            AofError::NotIts { .. } => "Name the server's own data directory in the inventory.",
            AofError::Base { .. } | AofError::Undated { .. } => {
                "Set `aof-use-rdb-preamble yes`; BGREWRITEAOF writes a new base."
            }
            AofError::NoTimestamps { .. } => {
                "Set `aof-timestamp-enabled yes` on the server: from then on it can be cut to a second."
            }
            AofError::Manifest { .. } | AofError::Scan { .. } => {
                "Keep a copy of the directory. `redis-check-aof` tells how much of it can be read."
            }
            AofError::Transfer(TransferError::Store(error)) => {
                error.now().unwrap_or("Nothing is listed in the bucket; retry.")
            }
            AofError::Restless { .. } | AofError::Transfer(_) | AofError::Cancelled => {
                "Nothing is listed in the bucket; retry."
            }
        };
        Self::new("the append-only file was not shipped", error).now(now)
    }
}

/// What to ship, and where to.
pub struct ShipAof<'a> {
    pub url: &'a Secret,
    /// The server's data directory as this machine sees it; a server on this machine is asked when absent.
    pub data: Option<&'a Path>,
    /// Opened at the system's prefix.
    pub bucket: &'a Bucket,
    pub cancel: &'a CancellationToken,
}

/// What was shipped.
#[derive(Debug, Clone)]
pub struct Shipped {
    pub range: AofRange,
    pub manifest: AofManifest,
    /// Bytes of the files that no earlier shipment had.
    pub new_bytes: u64,
    /// Bytes at the end of the last file that were no whole command.
    pub torn: u64,
    pub took: Duration,
}

/// A moment of a running server.
struct Mark {
    at: DateTime<Utc>,
    /// Bytes of base and incremental files that it had written, and with those that it was about to write.
    written: u64,
    fed: u64,
    /// A server that was born with its append-only file does not count the base of that birth.
    counts_base: bool,
}

impl Mark {
    /// The bytes of the files, as the server counts them.
    fn counts(&self, files: &[Open]) -> u64 {
        let counted = files.iter().filter(|open| self.counts_base || open.part.kind != Kind::Base);
        counted.map(|open| open.bytes).sum()
    }
}

/// The open files of one state of Redis' manifest.
struct Set {
    files: Vec<Open>,
    until: Option<DateTime<Utc>>,
}

struct Open {
    part: Part,
    file: File,
    bytes: u64,
}

/// One file that was looked through.
struct Looked {
    part: Part,
    file: File,
    /// Whole commands.
    bytes: u64,
    digest: Digest,
    /// Pieces of an earlier shipment, when the file still begins with them.
    earlier: Vec<Piece>,
}

impl ShipAof<'_> {
    /// Ships base and incremental files as they are now; of those that an earlier shipment has, only what came since. The
    /// lane `aof` counts bytes.
    pub async fn run(self, report: Report<'_>) -> Result<Shipped, AofError> {
        let cancel = self.cancel.clone();
        tokio::select! {
            shipped = self.ship(report) => shipped,
            () = cancel.cancelled() => Err(AofError::Cancelled),
        }
    }

    async fn ship(self, report: Report<'_>) -> Result<Shipped, AofError> {
        let began = clock::boot_now();
        let server = match Redis::connect(self.url).await {
            Ok(redis) => Some(redis),
            Err(error) if self.data.is_none() => return Err(AofError::Unreachable(error)),
            Err(_) => None,
        };
        let (directory, name) = self.place(server.as_ref()).await?;
        let set = self.open(server.as_ref(), &directory, name.as_deref()).await?;
        let (until, opened) = (set.until, set.files);
        let (opened, base, scans) = blocking(move || look_through(opened)).await?;
        let lineage = lineage(&base.1);
        let is_sealed = self.bucket.encryption().is_on();
        // Where encryption was switched on or off since, all of it is shipped again.
        let earlier = manifest::newest(self.bucket, &lineage).await?.filter(|earlier| earlier.is_sealed == is_sealed);
        let torn = scans.iter().map(|scan| scan.torn).sum();
        let commands = scans.iter().map(|scan| scan.commands).sum();
        let (from, to) = reach(&base.0, &opened[0].part.name, &scans)?;
        let looked = blocking(move || compare(opened, &base.1, earlier)).await?;

        let moment = until.unwrap_or_else(clock::wall_now).format("%Y%m%dT%H%M%S%.3fZ").to_string();
        let address = connect::address(self.url).unwrap_or_default();
        let method = if server.is_some() { "files of the running server" } else { "files of a server that is down" };
        let new_bytes = looked.iter().map(Looked::fresh).sum();
        let mut lane = Lane::new(report, "aof", Unit::Bytes, Some(new_bytes));
        let mut files = Vec::with_capacity(looked.len());
        let mut done = 0;
        for file in looked {
            files.push(self.upload(file, &lineage, &moment, &mut lane, &mut done).await?);
        }
        lane.end(done);
        let manifest = AofManifest {
            format: FORMAT,
            label: format!("{lineage}/{moment}"),
            source: Source { address, redis_version: base.0.redis_version.clone(), method: method.to_owned() },
            from,
            to,
            until,
            base: base.0,
            commands,
            files,
            is_sealed,
            is_clear_part: false,
        };
        let key = manifest::key(&manifest.label);
        let json = self
            .bucket
            .seal_manifest(&key, &manifest, &manifest.clear())
            .map_err(|error| AofError::Transfer(TransferError::Io { operation: "writing", source: error.into() }))?;
        self.bucket.create(&key, json).await?;
        let took = clock::boot_now().saturating_sub(began);
        Ok(Shipped { range: manifest.range(), manifest, new_bytes, torn, took })
    }

    /// The directory of the files, and the name of Redis' manifest when the server tells it.
    async fn place(&self, server: Option<&Redis>) -> Result<(PathBuf, Option<String>), AofError> {
        let ask = async |name| match server {
            // A server that hides CONFIG leaves us with what is usual.
            Some(redis) => redis.config(name).await.ok().flatten(),
            None => None,
        };
        if let Some(redis) = server
            && redis.info().await.is_ok_and(|info| info.text("aof_enabled") == "0")
        {
            return Err(AofError::Off { address: redis.address().to_owned() });
        }
        let local = connect::parse(self.url).is_ok_and(|info| connect::is_here(info.addr()));
        let data = match (self.data, local) {
            (Some(data), _) => Some(data.to_owned()),
            (None, true) => ask("dir").await.map(PathBuf::from),
            (None, false) => None,
        };
        let data = data
            .filter(|data| data.is_absolute())
            .ok_or_else(|| AofError::Remote { address: connect::address(self.url).unwrap_or_default() })?;
        let folder = ask("appenddirname").await.unwrap_or_else(|| "appendonlydir".to_owned());
        Ok((data.join(folder), ask("appendfilename").await.map(|name| format!("{name}.manifest"))))
    }

    /// Opens the files of one state of the manifest: read, opened, read again and unchanged. A rewrite in between means
    /// another try.
    async fn open(&self, server: Option<&Redis>, directory: &Path, name: Option<&str>) -> Result<Set, AofError> {
        let path = match name {
            Some(name) => directory.join(name),
            None => the_manifest(directory)?,
        };
        let until = clock::boot_now() + PATIENCE;
        let mut differs = None;
        while clock::boot_now() < until {
            let mark = match server {
                Some(redis) => mark(redis).await,
                None => None,
            };
            if let Some(files) = open_once(directory, &path)? {
                let Some((redis, mark)) = server.zip(mark) else { return Ok(Set { files, until: None }) };
                let found = mark.counts(&files);
                let after = self::mark(redis).await;
                if found >= mark.fed && after.as_ref().is_none_or(|after| found <= after.fed) {
                    return Ok(Set { files, until: Some(mark.at) });
                }
                differs = Some((found, mark.written, redis.address().to_owned()));
            }
            clock::sleep(LOOK).await;
        }
        Err(match differs {
            Some((found, said, address)) => AofError::NotIts { directory: directory.to_owned(), address, found, said },
            None => AofError::Restless { path },
        })
    }

    async fn upload(
        &self,
        looked: Looked,
        lineage: &str,
        moment: &str,
        lane: &mut Lane<'_>,
        done: &mut u64,
    ) -> Result<AofFile, AofError> {
        let (fresh, name) = (looked.fresh(), looked.part.name.clone());
        let offset = looked.bytes - fresh;
        let mut pieces = looked.earlier;
        if fresh > 0 {
            let object = format!("{FOLDER}/{lineage}/{name}.{offset}-{moment}.zst");
            let mut file = tokio::fs::File::from_std(looked.file);
            let io = |source| AofError::Io { operation: "reading", path: PathBuf::from(&name), source };
            file.seek(SeekFrom::Start(offset)).await.map_err(io)?;
            let packed = transfer::pack(file.take(fresh), self.bucket, &object, lane, *done).await?;
            *done += packed.raw_bytes;
            if packed.raw_bytes != fresh {
                return Err(AofError::Restless { path: PathBuf::from(name) });
            }
            pieces.push(Piece {
                object,
                raw_bytes: packed.raw_bytes,
                raw_digest: packed.raw_digest,
                stored_bytes: packed.written.bytes,
                stored_digest: packed.written.digest,
            });
        }
        let base = looked.part.kind == Kind::Base;
        Ok(AofFile { name, seq: looked.part.seq, base, raw_bytes: looked.bytes, raw_digest: looked.digest, pieces })
    }
}

impl Looked {
    fn fresh(&self) -> u64 {
        self.bytes - self.earlier.iter().map(|piece| piece.raw_bytes).sum::<u64>()
    }
}

/// What the server has written so far; `None` when it does not tell.
async fn mark(redis: &Redis) -> Option<Mark> {
    let at = server_time(redis).await.ok()?;
    // Asked after the time: whatever was acknowledged before that moment is counted.
    let info = redis.info().await.ok()?;
    let written = info.number("aof_current_size")?;
    let fed = written + info.number("aof_buffer_length").unwrap_or(0);
    Some(Mark { at, written, fed, counts_base: info.number("aof_base_size") != Some(0) })
}

fn length(file: &File, name: &str) -> Result<u64, AofError> {
    let io = |source| AofError::Io { operation: "looking at", path: PathBuf::from(name), source };
    file.metadata().map(|meta| meta.len()).map_err(io)
}

/// The only manifest in the directory.
fn the_manifest(directory: &Path) -> Result<PathBuf, AofError> {
    let io = |source| AofError::Io { operation: "reading", path: directory.to_owned(), source };
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(io)? {
        let path = entry.map_err(io)?.path();
        if path.extension().is_some_and(|extension| extension == "manifest") {
            found.push(path);
        }
    }
    match <[PathBuf; 1]>::try_from(found) {
        Ok([path]) => Ok(path),
        Err(found) => {
            let why = format!("it holds {} manifests of an append-only file, not one", found.len());
            Err(AofError::Manifest { path: directory.to_owned(), why })
        }
    }
}

/// `None` when the manifest, or a file of it, went while we looked.
fn open_once(directory: &Path, path: &Path) -> Result<Option<Vec<Open>>, AofError> {
    let read = || {
        std::fs::read_to_string(path).map_err(|source| AofError::Io {
            operation: "reading",
            path: path.to_owned(),
            source,
        })
    };
    let text = read()?;
    let parts = layout::parse(&text).map_err(|why| AofError::Manifest { path: path.to_owned(), why })?;
    let mut files = Vec::new();
    for part in parts.into_iter().filter(|part| part.kind != Kind::History) {
        let at = directory.join(&part.name);
        let file = match File::open(&at) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && read()? != text => return Ok(None),
            Err(source) => return Err(AofError::Io { operation: "opening", path: at, source }),
        };
        let bytes = length(&file, &part.name)?;
        files.push(Open { part, file, bytes });
    }
    if read()? != text {
        return Ok(None);
    }
    match files.first() {
        Some(first) if first.part.kind == Kind::Base => Ok(Some(files)),
        _ => Err(AofError::Manifest { path: path.to_owned(), why: "it names no base".to_owned() }),
    }
}

type LookedThrough = (Vec<Open>, (Survey, Digest), Vec<Scan>);

/// The base by its bytes, and each incremental file by its commands; a scan a file, that of the base being empty.
fn look_through(mut files: Vec<Open>) -> Result<LookedThrough, AofError> {
    let mut base = None;
    let mut scans = Vec::with_capacity(files.len());
    let last = files.len() - 1;
    for (index, open) in files.iter_mut().enumerate() {
        let name = open.part.name.clone();
        let bounded = BufReader::with_capacity(BUFFER, (&open.file).take(open.bytes));
        if open.part.kind == Kind::Base {
            let survey = rdb::survey(bounded).map_err(|source| AofError::Base { name: name.clone(), source })?;
            base = Some((survey, hash(&mut open.file, &name, 0..open.bytes)?));
            scans.push(Scan::default());
            continue;
        }
        let scan = scan::scan(bounded).map_err(|source| AofError::Scan { name: name.clone(), source })?;
        if scan.torn > 0 && index < last {
            let what = "it is cut off, and another file follows".to_owned();
            return Err(AofError::Scan { name, source: ScanError::Damaged { offset: scan.bytes, what } });
        }
        open.bytes = scan.bytes;
        scans.push(scan);
    }
    let name = || files.first().map_or_else(String::new, |open| open.part.name.clone());
    let base = base.ok_or_else(|| AofError::Undated { name: name() })?;
    Ok((files, base, scans))
}

/// From the first second that it can be cut to, to that of its newest annotation.
fn reach(base: &Survey, name: &str, scans: &[Scan]) -> Result<(DateTime<Utc>, DateTime<Utc>), AofError> {
    let commands = scans.iter().map(|scan| scan.commands).sum();
    let mut marks = scans.iter().flat_map(|scan| &scan.marks).map(|mark| mark.second);
    let written = base.created.ok_or_else(|| AofError::Undated { name: name.to_owned() })?;
    let first = marks.next();
    let last = marks.next_back().or(first);
    // Commands before the first annotation are older than it, and nobody knows by how much.
    let dated = scans.iter().find(|scan| scan.commands > 0).is_none_or(Scan::dated);
    let from = match (dated, first) {
        (true, _) => written + 1,
        (false, Some(first)) => first + 1,
        (false, None) => return Err(AofError::NoTimestamps { commands }),
    };
    let at =
        |second: i64| DateTime::from_timestamp(second, 0).ok_or_else(|| AofError::Undated { name: name.to_owned() });
    Ok((at(from)?, at(last.unwrap_or(written).max(written))?))
}

/// What of each file an earlier shipment has: hashed again, not believed.
fn compare(files: Vec<Open>, base: &Digest, earlier: Option<AofManifest>) -> Result<Vec<Looked>, AofError> {
    // Who only takes backups cannot read more of an encrypted manifest.
    let is_keyed = earlier.as_ref().is_some_and(|manifest| manifest.is_clear_part);
    let mut known = earlier.map(|manifest| manifest.files).unwrap_or_default();
    let mut looked = Vec::with_capacity(files.len());
    for mut open in files {
        let name = open.part.name.clone();
        let before = known.iter().position(|file| file.name == name && file.raw_bytes <= open.bytes);
        let before = before.map(|index| known.swap_remove(index));
        let earlier = match before {
            Some(mut file) => {
                let found = hash(&mut open.file, &name, 0..file.raw_bytes)?;
                let found = if is_keyed { manifest::keyed(base, &found) } else { found };
                let mut at = 0;
                for piece in file.pieces.iter_mut().filter(|_| is_keyed) {
                    piece.raw_digest = hash(&mut open.file, &name, at..at + piece.raw_bytes)?;
                    at += piece.raw_bytes;
                }
                if found == file.raw_digest { file.pieces } else { Vec::new() }
            }
            None => Vec::new(),
        };
        let digest = hash(&mut open.file, &name, 0..open.bytes)?;
        looked.push(Looked { part: open.part, file: open.file, bytes: open.bytes, digest, earlier });
    }
    Ok(looked)
}

/// Of these bytes of it.
fn hash(file: &mut File, name: &str, bytes: Range<u64>) -> Result<Digest, AofError> {
    let io = |source| AofError::Io { operation: "reading", path: PathBuf::from(name), source };
    file.seek(SeekFrom::Start(bytes.start)).map_err(io)?;
    let mut reader = file.take(bytes.end - bytes.start);
    let (mut hasher, mut buffer) = (Hasher::default(), vec![0; BUFFER]);
    loop {
        match reader.read(&mut buffer).map_err(io)? {
            0 => return Ok(hasher.finish()),
            n => hasher.update(&buffer[..n]),
        }
    }
}

/// One base, one history.
fn lineage(base: &Digest) -> String {
    base.short()
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, AofError> + Send + 'static,
) -> Result<T, AofError> {
    let io = |error| TransferError::Io { operation: "reading the files", source: std::io::Error::other(error) };
    tokio::task::spawn_blocking(work).await.map_err(|error| AofError::Transfer(io(error)))?
}
