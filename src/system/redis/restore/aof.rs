//! The append-only file on its way back: a copy, cut by Redis' own `redis-check-aof`, and what was cut measured by our own
//! reader before and after.

use std::fs::File;
use std::io::BufReader;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use tokio_util::sync::CancellationToken;

use super::server::Plan;
use super::{RestoreError, probe};
use crate::digest::Digest;
use crate::event::{AofPoint, Unit};
use crate::process::Spec;
use crate::store::Bucket;
use crate::system::redis::aof::{self, AofFile, AofManifest, Mark, Scan};
use crate::system::redis::lane::{Lane, Report};
use crate::system::redis::rdb::{self, Survey};
use crate::system::redis::transfer::{self, Stored};

/// The directory and the manifest as a server looks for them that is told nothing else.
pub const FOLDER: &str = "appendonlydir";
const MANIFEST: &str = "appendonly.aof.manifest";
/// Bytes of `redis-check-aof`'s output kept.
const OUTPUT: usize = 256 * 1024;

/// The files that the server will load.
#[derive(Debug)]
pub struct Laid {
    /// What the base holds, by its bytes.
    pub base: Survey,
    pub bytes: u64,
    /// Behind the base.
    pub commands: u64,
    pub cut_commands: u64,
    pub databases: u32,
}

/// Fetches, verifies, cuts, verifies again. Under its own name only once it is whole.
pub async fn lay(
    plan: &Plan,
    bucket: &Bucket,
    manifest: &AofManifest,
    point: &AofPoint,
    report: Report<'_>,
    cancel: &CancellationToken,
) -> Result<Laid, RestoreError> {
    let folder = plan.data().join("appendonlydir.part");
    let io = |operation, path: &Path| {
        let path = path.to_owned();
        move |source| RestoreError::Io { operation, path, source }
    };
    std::fs::DirBuilder::new().mode(0o700).create(&folder).map_err(io("making", &folder))?;
    let mut lane = Lane::new(report, "AOF", Unit::Bytes, Some(manifest.stored_bytes()));
    let mut fetched = 0;
    for file in &manifest.files {
        fetched = fetch(bucket, manifest, file, &folder.join(&file.name), &mut lane, fetched).await?;
    }
    lane.end(fetched);
    let looked = {
        let (folder, manifest, point) = (folder.clone(), manifest.clone(), point.clone());
        tokio::task::spawn_blocking(move || Looked::at(&folder, &manifest, &point)).await
    };
    let looked = looked.map_err(|error| io("reading", &folder)(std::io::Error::other(error)))??;
    for file in &manifest.files[looked.kept..] {
        let path = folder.join(&file.name);
        std::fs::remove_file(&path).map_err(io("leaving out", &path))?;
    }
    let kept = &manifest.files[..looked.kept];
    let text = aof::write_manifest(kept.iter().map(|file| (file.name.as_str(), file.seq, file.kind())));
    let list = folder.join(MANIFEST);
    std::fs::write(&list, text).map_err(io("writing", &list))?;
    plan.give(&folder)?;
    plan.give(&list)?;
    for file in kept {
        plan.give(&folder.join(&file.name))?;
    }
    check(plan, &list, looked.cut_in_last.map(|_| point), cancel).await?;
    looked.verify(&folder, manifest)?;
    let to = plan.data().join(FOLDER);
    std::fs::rename(&folder, &to).map_err(io("renaming", &to))?;
    Ok(looked.laid)
}

async fn fetch(
    bucket: &Bucket,
    manifest: &AofManifest,
    file: &AofFile,
    path: &Path,
    lane: &mut Lane<'_>,
    before: u64,
) -> Result<u64, RestoreError> {
    let io = |source| RestoreError::Io { operation: "copying to", path: path.to_owned(), source };
    let wrong = |why: String| RestoreError::Manifest { label: manifest.label.clone(), why };
    if file.name.contains('/') || file.name.starts_with('.') || file.name == MANIFEST {
        return Err(wrong(format!("`{}` is no plain file name", file.name)));
    }
    let mut copy = tokio::fs::File::create_new(path).await.map_err(io)?;
    let mut fetched = before;
    for piece in &file.pieces {
        let stored = Stored {
            object: &piece.object,
            raw_bytes: piece.raw_bytes,
            raw_digest: piece.raw_digest,
            stored_digest: piece.stored_digest,
            is_sealed: manifest.is_sealed,
        };
        fetched = transfer::unpack(bucket, stored, &mut copy, lane, fetched).await?;
    }
    let whole = path.to_owned();
    let found = tokio::task::spawn_blocking(move || Digest::of_file(&whole)).await;
    let found = found.map_err(|error| io(std::io::Error::other(error)))?.map_err(io)?;
    match found == (file.raw_digest, file.raw_bytes) {
        true => Ok(fetched),
        false => Err(wrong(format!("its pieces of {} do not make up the file that was shipped", file.name))),
    }
}

/// What the copy holds, and what of it stays.
struct Looked {
    laid: Laid,
    /// Files that stay.
    kept: usize,
    /// Where the last of them is cut, and the second that stays whole.
    cut_in_last: Option<Mark>,
    last_second: Option<i64>,
    /// Commands in the last file that stays.
    last_commands: u64,
}

impl Looked {
    fn at(folder: &Path, manifest: &AofManifest, point: &AofPoint) -> Result<Self, RestoreError> {
        let label = || manifest.label.clone();
        let wrong = |why: String| RestoreError::Manifest { label: label(), why };
        let open = |file: &AofFile| {
            let path = folder.join(&file.name);
            File::open(&path).map_err(|source| RestoreError::Io { operation: "reading", path, source })
        };
        let (first, rest) = match manifest.files.split_first() {
            Some((first, rest)) if first.base && rest.iter().all(|file| !file.base) => (first, rest),
            _ => return Err(wrong("it does not begin with its only base".to_owned())),
        };
        if point.cut && point.at < manifest.from {
            return Err(wrong(format!("it can be cut from {} on, not at {}", manifest.from, point.at)));
        }
        let base = rdb::survey(BufReader::new(open(first)?));
        let base = base.map_err(|source| RestoreError::Rdb { label: label(), source })?;
        let mut scans = Vec::with_capacity(rest.len());
        for file in rest {
            scans.push(scan(folder, file)?);
        }
        // Everything of the second before the point stays; the point's own second goes.
        let last_second = point.cut.then(|| point.at.timestamp() - 1);
        let cut = last_second
            .and_then(|second| scans.iter().enumerate().find_map(|(index, scan)| Some((index, scan.after(second)?))));
        // A file that begins behind the cut is left out whole: `redis-check-aof` cuts no file to nothing.
        let (kept, cut_in_last) = match cut {
            None => (scans.len(), None),
            Some((index, mark)) if mark.offset == 0 => (index, None),
            Some((index, mark)) => (index + 1, Some(mark)),
        };
        let all = |part: fn(&Scan) -> u64| scans.iter().map(part).sum::<u64>();
        let stay = |part: fn(&Scan) -> u64, cut: fn(&Mark) -> u64| {
            let whole = if cut_in_last.is_some() { kept - 1 } else { kept };
            scans[..whole].iter().map(part).sum::<u64>() + cut_in_last.as_ref().map_or(0, cut)
        };
        let (bytes, commands) =
            (stay(|scan| scan.bytes, |mark| mark.offset), stay(|scan| scan.commands, |mark| mark.commands));
        let databases = base.by_db.keys().last().map_or(0, |db| db.saturating_add(1));
        Ok(Self {
            laid: Laid {
                bytes: first.raw_bytes + bytes,
                commands,
                cut_commands: all(|scan| scan.commands) - commands,
                databases: scans.iter().map(|scan| scan.databases).max().unwrap_or(0).max(databases),
                base,
            },
            last_commands: match cut_in_last {
                Some(mark) => mark.commands,
                None => kept.checked_sub(1).map_or(0, |last| scans[last].commands),
            },
            kept: kept + 1,
            cut_in_last,
            last_second,
        })
    }

    /// That the tool cut where we meant it to, and nothing else.
    fn verify(&self, folder: &Path, manifest: &AofManifest) -> Result<(), RestoreError> {
        let files = &manifest.files[..self.kept];
        let last = files.len() - 1;
        for (index, file) in files.iter().enumerate() {
            let path = folder.join(&file.name);
            let found =
                path.metadata().map_err(|source| RestoreError::Io { operation: "reading", path, source })?.len();
            let meant = match self.cut_in_last {
                Some(mark) if index == last => mark.offset,
                _ => file.raw_bytes,
            };
            if found != meant {
                return Err(RestoreError::Cut {
                    why: format!("{} has {found} bytes after it; {meant} were to stay", file.name),
                });
            }
        }
        if last == 0 {
            return Ok(());
        }
        let scan = scan(folder, &files[last])?;
        let late = self.last_second.and_then(|second| scan.after(second));
        if scan.commands != self.last_commands || scan.torn > 0 || late.is_some() {
            let why = format!(
                "{} holds {} commands and {} torn bytes after it; {} commands were to stay",
                files[last].name, scan.commands, scan.torn, self.last_commands
            );
            return Err(RestoreError::Cut { why });
        }
        Ok(())
    }
}

fn scan(folder: &Path, file: &AofFile) -> Result<Scan, RestoreError> {
    let path = folder.join(&file.name);
    let open = File::open(&path).map_err(|source| RestoreError::Io { operation: "reading", path, source })?;
    aof::scan(BufReader::with_capacity(256 * 1024, open))
        .map_err(|source| RestoreError::Scan { name: file.name.clone(), source })
}

/// Redis' own tool over the copy: it cuts where it is to be cut, and reads all of it otherwise.
async fn check(
    plan: &Plan,
    list: &Path,
    cut: Option<&AofPoint>,
    cancel: &CancellationToken,
) -> Result<(), RestoreError> {
    let tool = probe::Tool::new(&plan.program, "redis-check-aof", plan.account.as_ref())?;
    let mut spec = Spec::new(tool.path()).run_as(plan.account.clone()).cwd("/");
    if let Some(point) = cut {
        let second = point.at.timestamp() - 1;
        spec = spec.arg("--truncate-to-timestamp").arg(second.to_string());
    }
    let captured = spec.arg(list).capture(OUTPUT, cancel).await?;
    let said = captured.stdout_text();
    if captured.end.success() && (cut.is_none() || said.contains("Successfully truncated")) {
        return Ok(());
    }
    let tail: Vec<&str> = said.lines().rev().take(3).collect();
    let tail = tail.into_iter().rev().collect::<Vec<_>>().join(" · ");
    Err(RestoreError::Cut {
        why: format!("redis-check-aof ended with {}: {tail} {}", captured.end, captured.stderr_text()),
    })
}

/// What the base of the server's own directory holds now, by its bytes.
pub fn base_of(data: &Path) -> Result<Survey, RestoreError> {
    let folder = data.join(FOLDER);
    let io = |path: PathBuf| move |source| RestoreError::Io { operation: "reading", path, source };
    let list = folder.join(MANIFEST);
    let text = std::fs::read_to_string(&list).map_err(io(list.clone()))?;
    let wrong = |why: String| RestoreError::Aof { why };
    let parts = aof::parse_manifest(&text).map_err(wrong)?;
    let base = parts.iter().find(|part| part.kind == aof::Kind::Base);
    let base = base.ok_or_else(|| wrong(format!("{} names no base", list.display())))?;
    let path = folder.join(&base.name);
    let file = File::open(&path).map_err(io(path))?;
    rdb::survey(BufReader::new(file)).map_err(|source| RestoreError::Rdb { label: base.name.clone(), source })
}
