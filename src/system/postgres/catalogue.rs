//! What is in the bucket: whole base backups, the WAL as runs without a hole, and where timelines fork.

use std::collections::{BTreeMap, BTreeSet};

use crate::event::{BaseBackup, Basis, Coverage, Fork, Gap, Lsn, RestorePoint};
use crate::store::{Bucket, Object, StoreError};

use super::base::Manifest;
use super::error::PgError;
use super::wal::read::Listed;
use super::wal::{ArchiveId, Segment, WalFile, read_id};

/// PostgreSQL's own segment size, when nothing says otherwise.
pub(super) const USUAL_SEGMENT: u64 = 16 << 20;

/// What can be recovered from a system's folder.
#[derive(Debug, Clone, PartialEq)]
pub struct Catalogue {
    /// The oldest first; every one has its manifest.
    pub backups: Vec<BaseBackup>,
    /// By timeline and place.
    pub coverage: Vec<Coverage>,
    pub gaps: Vec<Gap>,
    /// Not looked for yet: they stand inside the WAL.
    pub restore_points: Vec<RestorePoint>,
    /// By timeline.
    pub forks: Vec<Fork>,
    /// By timeline and place.
    pub segments: Vec<Listed>,
    /// What else was listed: the files of backups, whole or not, and timelines' histories.
    pub objects: Vec<Object>,
    /// Whose WAL the archive holds; `None` when nothing was pushed.
    pub system_identifier: Option<u64>,
    pub segment_bytes: u64,
    /// Whether another program keeps the WAL encrypted; `None` when it does not say. Of a bucket, the bucket says it.
    pub is_encrypted: Option<bool>,
    /// Of backups: manifests that cannot be read, objects that they name and that are missing or cut.
    pub damaged: Vec<String>,
    /// Everything that a person should know, `damaged` included.
    pub warnings: Vec<String>,
}

/// What an archive was found to hold, before it is put in order.
#[derive(Debug)]
pub(super) struct Found {
    pub backups: Vec<BaseBackup>,
    pub segments: Vec<Listed>,
    pub forks: Vec<Fork>,
    pub objects: Vec<Object>,
    pub system_identifier: Option<u64>,
    pub segment_bytes: u64,
    pub is_encrypted: Option<bool>,
    pub damaged: Vec<String>,
    /// `damaged` not included.
    pub warnings: Vec<String>,
}

impl Default for Found {
    fn default() -> Self {
        Self {
            backups: Vec::new(),
            segments: Vec::new(),
            forks: Vec::new(),
            objects: Vec::new(),
            system_identifier: None,
            segment_bytes: USUAL_SEGMENT,
            is_encrypted: None,
            damaged: Vec::new(),
            warnings: Vec::new(),
        }
    }
}

impl Found {
    pub fn into_catalogue(self) -> Catalogue {
        let Self { mut backups, mut segments, mut forks, damaged, mut warnings, segment_bytes, .. } = self;
        backups.sort_by_key(|backup| backup.stop_lsn);
        backups.sort_by_key(|backup| backup.stopped);
        segments.sort_by_key(|listed| listed.segment);
        forks.sort_by_key(|fork| fork.timeline);
        let (coverage, mut gaps) = runs(&segments);
        warnings.extend_from_slice(&damaged);
        warnings.extend(rootless(&coverage, &forks, &backups));
        gaps.extend(forks.iter().filter_map(|fork| gap_before(fork, &coverage, segment_bytes)));
        Catalogue {
            backups,
            coverage,
            gaps,
            restore_points: Vec::new(),
            forks,
            segments,
            objects: self.objects,
            system_identifier: self.system_identifier,
            segment_bytes,
            is_encrypted: self.is_encrypted,
            damaged,
            warnings,
        }
    }
}

/// Lists the bucket. Damaged manifests and foreign files become warnings; only an unreadable bucket is an error.
pub async fn list(bucket: &Bucket) -> Result<Catalogue, PgError> {
    let mut found = Found::default();
    let id = match read_id(bucket).await {
        Ok(id) => id,
        Err(super::wal::WalError::Store(error)) => return Err(error.into()),
        Err(error) => {
            found.warnings.push(error.to_string());
            None
        }
    };
    found.objects = bucket.list("base").await?;
    (found.backups, found.damaged) = backups(bucket, &found.objects).await?;
    if let Some(ArchiveId { system_identifier, segment_size }) = id {
        (found.system_identifier, found.segment_bytes) = (Some(system_identifier), segment_size);
    }
    let others;
    (found.segments, others) = segments(bucket.list("wal").await?, found.segment_bytes, &mut found.warnings);
    found.forks = forks(bucket, &others, &mut found.warnings).await?;
    found.objects.extend(others);
    Ok(found.into_catalogue())
}

/// The cluster whose WAL and backups the bucket holds; `None` while it says nothing.
pub async fn system_identifier(bucket: &Bucket) -> Result<Option<u64>, PgError> {
    let id = read_id(bucket).await.map_err(|error| crate::event::Failure::new("the archive's identity", error))?;
    Ok(id.map(|id| id.system_identifier))
}

/// A backup's manifest by label, for who restores it: one of an encrypted backup must be vouched for.
pub async fn manifest(bucket: &Bucket, label: &str) -> Result<Manifest, PgError> {
    let opened = bucket.read_vouched(&Manifest::key(label)).await?;
    Manifest::parse(label, &opened).map_err(|why| {
        crate::event::Failure::new(format!("the manifest of backup {label} is not usable"), why)
            .now("choose another backup")
            .into()
    })
}

/// The manifests that a backup is restored from, each vouched for: the full backup's, then those of what follows it, its own
/// last.
pub async fn chain(bucket: &Bucket, label: &str) -> Result<Vec<Manifest>, PgError> {
    let mut chain = vec![manifest(bucket, label).await?];
    while let Some(parent) = chain.last().and_then(|last| last.parent.as_ref()) {
        let found = manifest(bucket, &parent.label).await.map_err(|error| {
            crate::event::Failure::from(error)
                .fails(format!("backup {label} cannot be restored without {}", parent.label))
        })?;
        if !chain.last().is_some_and(|child| found.is_parent_of(child)) {
            let why = format!("the backup {} is not the one whose changes it holds", found.label);
            return Err(crate::event::Failure::new(format!("backup {label} cannot be restored"), why)
                .now("choose another backup")
                .into());
        }
        chain.push(found);
    }
    chain.reverse();
    Ok(chain)
}

/// Those that are whole, and what is wrong with the others.
pub(super) async fn backups(bucket: &Bucket, objects: &[Object]) -> Result<(Vec<BaseBackup>, Vec<String>), PgError> {
    let (mut found, mut warnings) = (Vec::new(), Vec::new());
    let size = |key: &str| objects.iter().find(|object| object.key == key).map(|object| object.size);
    for object in objects {
        let Some(label) = object.key.strip_prefix("base/").and_then(|rest| rest.strip_suffix("/manifest.json")) else {
            continue;
        };
        let parsed = match bucket.read_manifest(&object.key).await {
            Ok(opened) => Manifest::parse(label, &opened),
            Err(StoreError::Sealed { why, .. }) => Err(why.to_string()),
            Err(error) => return Err(error.into()),
        };
        let manifest = match parsed {
            Ok(manifest) => manifest,
            Err(why) => {
                warnings.push(format!("backup {label} is not usable: its manifest: {why}"));
                continue;
            }
        };
        let whole = |part: &super::base::Part| size(&part.key) == Some(part.bytes);
        let broken = manifest.parts.iter().chain([&manifest.backup_manifest]).find(|part| !whole(part)).cloned();
        match broken {
            Some(part) => warnings.push(format!(
                "backup {label} is not usable: {} is {}",
                part.key,
                size(&part.key)
                    .map_or("missing".to_owned(), |size| format!("{size} bytes, and should be {}", part.bytes))
            )),
            None => found.push(manifest),
        }
    }
    let found = chained(found, objects, &mut warnings);
    if found.is_empty() {
        // Beside a usable backup it is no news: one may be under way, or was given up.
        warnings.extend(unfinished(objects).into_iter().map(|label| {
            format!("backup {label} is not usable: base/{label}/manifest.json is missing, or was never written")
        }));
    }
    Ok((found, warnings))
}

/// Those whose chain to a full backup is whole.
fn chained(mut found: Vec<Manifest>, objects: &[Object], warnings: &mut Vec<String>) -> Vec<BaseBackup> {
    // Whatever a backup follows began before it.
    found.sort_by_key(|manifest| manifest.start_lsn);
    let mut usable: BTreeMap<String, Manifest> = BTreeMap::new();
    for manifest in found {
        if let Some(parent) = &manifest.parent
            && !usable.get(&parent.label).is_some_and(|parent| parent.is_parent_of(&manifest))
        {
            let key = Manifest::key(&parent.label);
            let lacks = |parent: &Manifest| parent.lacks_checksums_of(&manifest);
            let is = match objects.iter().any(|object| object.key == key) {
                _ if usable.get(&parent.label).is_some_and(lacks) => "from before its checksums",
                _ if usable.contains_key(&parent.label) => "another backup now",
                true => "not usable",
                false => "gone",
            };
            let (label, parent) = (&manifest.label, &parent.label);
            warnings.push(format!("backup {label} is not usable: {parent}, which it builds on, is {is}"));
            continue;
        }
        usable.insert(manifest.label.clone(), manifest);
    }
    usable.values().map(Manifest::summary).collect()
}

/// Labels of backups that have files and no manifest.
fn unfinished(objects: &[Object]) -> BTreeSet<&str> {
    let (mut labels, mut whole) = (BTreeSet::new(), BTreeSet::new());
    for object in objects {
        let Some((label, file)) = object.key.strip_prefix("base/").and_then(|rest| rest.split_once('/')) else {
            continue;
        };
        labels.insert(label);
        if file == "manifest.json" {
            whole.insert(label);
        }
    }
    &labels - &whole
}

/// The segments among the objects, and the others that belong there.
fn segments(objects: Vec<Object>, segment_size: u64, warnings: &mut Vec<String>) -> (Vec<Listed>, Vec<Object>) {
    let (mut segments, mut others) = (Vec::new(), Vec::new());
    for object in objects {
        let name = object.key.rsplit('/').next().unwrap_or_default();
        match WalFile::parse(name.strip_suffix(".zst").unwrap_or(name)).filter(|file| file.key() == object.key) {
            Some(WalFile::Segment(name)) => match Segment::parse(&name, segment_size) {
                Some(segment) => {
                    let Object { key, size, modified } = object;
                    segments.push(Listed { segment, key, bytes: size, modified });
                }
                None => warnings.push(format!("{} is not a segment of {segment_size} bytes", object.key)),
            },
            Some(_) => others.push(object),
            None => warnings.push(format!("{} does not belong in a WAL archive", object.key)),
        }
    }
    (segments, others)
}

/// Runs of consecutive segments, and what is missing between them.
fn runs(segments: &[Listed]) -> (Vec<Coverage>, Vec<Gap>) {
    let (mut coverage, mut gaps): (Vec<Coverage>, Vec<Gap>) = (Vec::new(), Vec::new());
    let mut last: Option<Segment> = None;
    for Listed { segment, bytes, modified, .. } in segments {
        let segment = *segment;
        let follows = last.is_some_and(|last| last.next() == segment);
        match coverage.last_mut().filter(|_| follows) {
            Some(run) => {
                run.to = segment.end();
                run.last_segment = segment.to_string();
                run.segments += 1;
                run.stored_bytes += bytes;
                run.to_time = Some(*modified);
            }
            None => {
                if let Some(before) = last.filter(|last| last.timeline == segment.timeline) {
                    gaps.push(Gap {
                        timeline: segment.timeline,
                        first_missing: before.next().to_string(),
                        last_missing: Segment { number: segment.number - 1, ..segment }.to_string(),
                        segments: segment.number - before.number - 1,
                        basis: Basis::Reported,
                    });
                }
                coverage.push(Coverage {
                    timeline: segment.timeline,
                    from: segment.start(),
                    to: segment.end(),
                    first_segment: segment.to_string(),
                    last_segment: segment.to_string(),
                    segments: 1,
                    stored_bytes: *bytes,
                    from_time: Some(*modified),
                    to_time: Some(*modified),
                    basis: Basis::Reported,
                });
            }
        }
        last = Some(segment);
    }
    (coverage, gaps)
}

/// What is missing of a timeline between its last segment and the one in which the next timeline left it.
fn gap_before(fork: &Fork, coverage: &[Coverage], segment_size: u64) -> Option<Gap> {
    let next = Segment::containing(fork.at, fork.parent, segment_size);
    let before = |run: &&Coverage| run.timeline == fork.parent && run.from < next.start();
    let last = coverage.iter().filter(before).max_by_key(|run| run.to)?;
    let first = Segment::containing(last.to, fork.parent, segment_size);
    (first < next).then(|| Gap {
        timeline: fork.parent,
        first_missing: first.to_string(),
        last_missing: Segment { number: next.number - 1, ..next }.to_string(),
        segments: next.number - first.number,
        basis: Basis::Reported,
    })
}

/// Timelines that no backup is of, and whose history file is not there: nothing leads to their WAL.
fn rootless(coverage: &[Coverage], forks: &[Fork], backups: &[BaseBackup]) -> Vec<String> {
    let mut timelines: Vec<u32> = coverage.iter().map(|run| run.timeline).filter(|id| *id > 1).collect();
    timelines.dedup();
    timelines.retain(|id| forks.iter().all(|fork| fork.timeline != *id));
    timelines.retain(|id| backups.iter().all(|backup| backup.timeline != *id));
    timelines
        .into_iter()
        .map(|id| format!("wal/{id:08X}/{id:08X}.history is missing; where timeline {id} left its parent is unknown"))
        .collect()
}

/// The last line of a timeline's history names its parent and where it left it.
async fn forks(bucket: &Bucket, objects: &[Object], warnings: &mut Vec<String>) -> Result<Vec<Fork>, PgError> {
    let mut forks = Vec::new();
    for object in objects {
        let name = object.key.rsplit('/').next().unwrap_or_default();
        let Some(WalFile::History(timeline)) = WalFile::parse(name) else { continue };
        let bytes = bucket.read(&object.key).await?;
        match last_fork(&String::from_utf8_lossy(&bytes)) {
            Some((parent, at)) if parent < timeline => {
                forks.push(Fork { timeline, parent, at, basis: Basis::Reported })
            }
            _ => warnings.push(format!("{} cannot be read; timeline {timeline} is unknown", object.key)),
        }
    }
    Ok(forks)
}

/// Parent and place, by the last line of a timeline's history.
pub(super) fn last_fork(text: &str) -> Option<(u32, Lsn)> {
    let line = text.lines().map(str::trim).rfind(|line| !line.is_empty() && !line.starts_with('#'))?;
    let mut words = line.split_whitespace();
    Some((words.next()?.parse().ok()?, words.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(key: &str) -> Object {
        Object { key: key.to_owned(), size: 10, modified: chrono::DateTime::UNIX_EPOCH }
    }

    #[test]
    fn a_hole_splits_the_coverage_and_is_named() {
        let name = |n: u32| object(&format!("wal/00000001/0000000100000000{n:08X}.zst"));
        let mut objects: Vec<Object> = [1, 2, 3, 6, 7].into_iter().map(name).collect();
        objects.push(object("wal/00000002/000000020000000000000008.zst"));
        objects.push(object("wal/00000001/000000010000000000000002.00000028.backup"));
        objects.push(object("wal/00000001/passwords.txt"));
        objects.push(object("wal/00000002/000000010000000000000009.zst"));
        let mut warnings = Vec::new();
        let mut segments = segments(objects, 16 << 20, &mut warnings).0;
        segments.sort_by_key(|listed| listed.segment);
        let (coverage, gaps) = runs(&segments);
        let runs: Vec<_> =
            coverage.iter().map(|run| (run.timeline, run.from.to_string(), run.to.to_string(), run.segments)).collect();
        assert_eq!(
            runs,
            [
                (1, "0/1000000".to_owned(), "0/4000000".to_owned(), 3),
                (1, "0/6000000".to_owned(), "0/8000000".to_owned(), 2),
                (2, "0/8000000".to_owned(), "0/9000000".to_owned(), 1)
            ]
        );
        assert_eq!(gaps.len(), 1);
        assert_eq!(
            (gaps[0].first_missing.as_str(), gaps[0].last_missing.as_str(), gaps[0].segments),
            ("000000010000000000000004", "000000010000000000000005", 2)
        );
        assert_eq!(warnings.len(), 2, "{warnings:?}");
    }

    #[test]
    fn a_history_names_its_parent() {
        let text = "1\t0/5000000\tno recovery target specified\n\n2\t0/9A3F028\tbefore 2026-11-21 10:02:31+00\n";
        assert_eq!(last_fork(text), Some((2, "0/9A3F028".parse().unwrap())));
        assert_eq!(last_fork("garbage"), None);
    }
}
