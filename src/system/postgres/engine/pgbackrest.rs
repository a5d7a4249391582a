//! pgBackRest: `info` says which backups there are, `repo-ls` which WAL, `archive-get` gives it, `restore` the bytes.
//!
//! `info` tells of WAL only its first and last segment, which hides every hole between; the listing does not.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::path::{Path, PathBuf};

use chrono::DateTime;
use serde::Deserialize;
use tokio_util::sync::CancellationToken;

use super::super::catalogue::{Catalogue, Found, USUAL_SEGMENT, last_fork};
use super::super::report::Reporter;
use super::super::wal::read::Listed;
use super::super::wal::{Header, Segment, WalFile};
use super::{EngineError, Reader, complaint, end_of, run, with_tablespaces};
use crate::event::{BaseBackup, Basis, Failure, Fork, Lsn};
use crate::process::{Account, Captured, End, Spec};

/// Of an `archive-get`: the repository answered, and the file is not in it.
const NOT_THERE: i32 = 1;

/// The `cipher` of a repository that is not encrypted.
const CLEAR: &str = "none";

/// Where pgBackRest's own error messages begin.
const ERROR: &str = "ERROR: [";

/// A stanza of pgBackRest.
#[derive(Debug, Clone)]
pub struct PgBackRest {
    pub program: PathBuf,
    /// pgBackRest's own place when absent.
    pub config: Option<PathBuf>,
    pub stanza: String,
    /// Whom it runs as when this program is root.
    pub account: Option<Account>,
    /// The data directory whose control file says which cluster's WAL is asked for; the configuration's own when absent.
    pub cluster: Option<PathBuf>,
}

#[derive(Deserialize)]
struct Stanza {
    name: String,
    status: Status,
    /// Absent in old ones; `mixed` where its repositories differ.
    cipher: Option<String>,
    #[serde(default)]
    db: Vec<Db>,
    #[serde(default)]
    archive: Vec<Archive>,
    #[serde(default)]
    backup: Vec<Backup>,
    #[serde(default)]
    repo: Vec<Repo>,
}

#[derive(Deserialize)]
struct Status {
    code: i32,
    message: String,
}

/// A cluster that the stanza is or was of: an upgrade makes a new one.
#[derive(Deserialize)]
struct Db {
    id: u32,
    #[serde(rename = "system-id")]
    system_id: u64,
    version: String,
}

#[derive(Deserialize)]
struct Archive {
    database: Database,
    id: String,
}

#[derive(Deserialize)]
struct Database {
    id: u32,
    #[serde(rename = "repo-key", default = "first")]
    repo: u32,
}

fn first() -> u32 {
    1
}

#[derive(Deserialize)]
struct Repo {
    key: u32,
    status: Status,
}

#[derive(Deserialize)]
struct Backup {
    label: String,
    prior: Option<String>,
    /// Backups that hold files of this one; `null` of a full one.
    #[serde(default)]
    reference: Option<Vec<String>>,
    database: Database,
    archive: Span<Option<String>>,
    lsn: Option<Span<Lsn>>,
    timestamp: Span<i64>,
    info: Sizes,
    /// Pages with wrong checksums were met; absent where they were not looked at.
    error: Option<bool>,
    #[serde(default)]
    tablespace: Option<serde_json::Value>,
}

#[derive(Deserialize)]
struct Span<T> {
    start: T,
    stop: T,
}

#[derive(Deserialize)]
struct Sizes {
    size: u64,
    repository: Stored,
}

#[derive(Deserialize)]
struct Stored {
    /// Of a backup alone; absent where it lies in bundles of blocks.
    delta: u64,
    size: Option<u64>,
}

/// One entry of `repo-ls`.
#[derive(Deserialize)]
struct Listing {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    size: u64,
    #[serde(default)]
    time: i64,
}

impl Stanza {
    /// The cluster that it is of now.
    fn current(&self) -> Option<&Db> {
        self.db.iter().max_by_key(|db| db.id)
    }
}

impl PgBackRest {
    pub(super) async fn system_identifier(&self) -> Result<Option<u64>, EngineError> {
        Ok(self.info(None).await?.current().map(|db| db.system_id))
    }

    pub(super) fn options(&self) -> Vec<(&'static str, String)> {
        let mut options = vec![("--program", self.program.display().to_string()), ("--name", self.stanza.clone())];
        options.extend(self.config.iter().map(|config| ("--config", config.display().to_string())));
        options
    }

    fn spec(&self, command: &str) -> Spec {
        let spec = Spec::new(&self.program).run_as(self.account.clone()).arg(command);
        let spec = spec.arg(format!("--stanza={}", self.stanza));
        // What it says on standard output is read; the log file is its user's affair.
        let spec = spec.arg("--log-level-console=off").arg("--log-level-stderr=warn").arg("--log-timestamp=n");
        match &self.config {
            Some(config) => spec.arg(format!("--config={}", config.display())),
            None => spec,
        }
    }

    fn failed(&self, command: &str, why: impl ToString) -> EngineError {
        EngineError { program: "pgbackrest".to_owned(), command: command.to_owned(), why: why.to_string() }
    }

    /// Its output; anything but success is an error.
    async fn done(&self, command: &str, spec: Spec) -> Result<Captured, EngineError> {
        let captured = run(spec, command, &CancellationToken::new()).await?;
        match captured.end.success() {
            true => Ok(captured),
            false => Err(self.failed(command, complaint(&captured, &[ERROR]))),
        }
    }

    async fn info(&self, label: Option<&str>) -> Result<Stanza, EngineError> {
        let mut spec = self.spec("info").arg("--output=json");
        if let Some(label) = label {
            spec = spec.arg(format!("--set={label}"));
        }
        let said = self.done("info", spec).await?;
        let all: Vec<Stanza> = serde_json::from_slice(&said.stdout)
            .map_err(|error| self.failed("info", format!("its answer cannot be read: {error}")))?;
        let stanza = all.into_iter().find(|stanza| stanza.name == self.stanza);
        let stanza = stanza.ok_or_else(|| self.failed("info", format!("it does not know stanza {}", self.stanza)))?;
        // 2 is a stanza without a usable backup, which is no fault of the look.
        match stanza.status.code {
            0 | 2 => Ok(stanza),
            _ => Err(self.failed("info", format!("stanza {}: {}", self.stanza, stanza.status.message))),
        }
    }

    pub(super) async fn catalogue(&self) -> Result<Catalogue, Failure> {
        let stanza = self.info(None).await?;
        let current = stanza.current().ok_or_else(|| {
            Failure::new(format!("stanza {} of pgBackRest is of no cluster", self.stanza), "info names none")
                .now("create it: pgbackrest stanza-create")
        })?;
        let is_encrypted = stanza.cipher.as_ref().map(|cipher| cipher != CLEAR);
        let mut found = Found { system_identifier: Some(current.system_id), is_encrypted, ..Found::default() };
        for repo in stanza.repo.iter().filter(|repo| ![0, 2].contains(&repo.status.code)) {
            let text = format!("repository {} of pgBackRest cannot be used: {}", repo.key, repo.status.message);
            found.warnings.push(text);
        }
        let mut stored = BTreeMap::new();
        for backup in &stanza.backup {
            let repo = backup.database.repo;
            if let Entry::Vacant(place) = stored.entry(repo) {
                place.insert(self.list(repo, &format!("backup/{}", self.stanza), false).await?);
            }
            // What info tells of stands in a file of its own.
            let gone = |label: &&String| !stored.get(&repo).is_some_and(|labels| labels.contains_key(*label));
            let parts = [&backup.label].into_iter().chain(&backup.prior).chain(backup.reference.iter().flatten());
            if let Some(part) = parts.clone().find(gone) {
                let beneath = if *part == backup.label { "" } else { ", which it builds on," };
                found.damaged.push(format!(
                    "backup {} is not usable: {part}{beneath} is gone from the repository",
                    backup.label
                ));
                continue;
            }
            match self.base_backup(backup, &stanza.db) {
                Ok(backup) => found.backups.push(backup),
                Err(why) => found.damaged.push(format!("backup {} is not usable: {why}", backup.label)),
            }
            if backup.error == Some(true) {
                found.damaged.push(format!(
                    "backup {} holds pages with wrong checksums: pgbackrest info --set={0} names them",
                    backup.label
                ));
            }
        }
        let mut listed: BTreeMap<(String, String), (u32, Listing)> = BTreeMap::new();
        for archive in stanza.archive.iter().filter(|archive| archive.database.id == current.id) {
            let repo = archive.database.repo;
            for (path, entry) in self.list(repo, &format!("archive/{}/{}", self.stanza, archive.id), true).await? {
                if let (true, Some(name)) = (entry.kind == "file", stem(&path)) {
                    // Each repository has its own; archive-get takes the first that it finds.
                    listed.entry((name, archive.id.clone())).or_insert((repo, entry));
                }
            }
        }
        found.segment_bytes = self.segment_bytes(&listed).await?;
        for ((name, archive), (repo, entry)) in listed {
            let modified = end_of(entry.time);
            match WalFile::parse(&name) {
                Some(WalFile::Segment(_)) => {
                    if let Some(segment) = Segment::parse(&name, found.segment_bytes) {
                        found.segments.push(Listed { segment, key: name, bytes: entry.size, modified });
                    }
                }
                Some(WalFile::History(timeline)) => match self.fork(repo, &archive, &name, timeline).await? {
                    Some(fork) => found.forks.push(fork),
                    None => found.warnings.push(format!("{name} cannot be read; timeline {timeline} is unknown")),
                },
                _ => {}
            }
        }
        Ok(found.into_catalogue())
    }

    fn base_backup(&self, backup: &Backup, clusters: &[Db]) -> Result<BaseBackup, String> {
        let of = clusters.iter().find(|db| db.id == backup.database.id).ok_or("info does not say of which cluster")?;
        let lsn = backup.lsn.as_ref().ok_or("info does not say where it begins and ends")?;
        let first = backup.archive.start.as_deref().ok_or("info does not say which WAL it needs")?;
        let timeline = first.get(..8).and_then(|digits| u32::from_str_radix(digits, 16).ok());
        let stored = match (backup.prior.is_some(), backup.info.repository.size) {
            (true, Some(size)) => size,
            _ => backup.info.repository.delta,
        };
        Ok(BaseBackup {
            label: backup.label.clone(),
            system_identifier: of.system_id,
            timeline: timeline.ok_or_else(|| format!("{first} is no segment"))?,
            start_lsn: lsn.start,
            stop_lsn: lsn.stop,
            started: DateTime::from_timestamp(backup.timestamp.start, 0).unwrap_or_default(),
            // A target within that second may lie before the end.
            stopped: end_of(backup.timestamp.stop),
            parent: None,
            bytes: backup.info.size,
            stored_bytes: stored,
            server_version: of.version.clone(),
            basis: Basis::Reported,
        })
    }

    /// What lies in a folder of a repository, by path; and in the folders in it.
    async fn list(&self, repo: u32, folder: &str, all: bool) -> Result<BTreeMap<String, Listing>, EngineError> {
        let spec = self.spec("repo-ls").arg(format!("--repo={repo}")).arg("--output=json");
        let said = self.done("repo-ls", spec.args(all.then_some("--recurse")).arg(folder)).await?;
        serde_json::from_slice(&said.stdout)
            .map_err(|error| self.failed("repo-ls", format!("its answer cannot be read: {error}")))
    }

    async fn get(&self, repo: u32, path: &str) -> Result<Vec<u8>, EngineError> {
        let spec = self.spec("repo-get").arg(format!("--repo={repo}")).arg(path);
        Ok(self.done("repo-get", spec).await?.stdout)
    }

    async fn fork(&self, repo: u32, archive: &str, name: &str, timeline: u32) -> Result<Option<Fork>, EngineError> {
        let text = self.get(repo, &format!("archive/{}/{archive}/{name}", self.stanza)).await?;
        Ok(last_fork(&String::from_utf8_lossy(&text))
            .filter(|(parent, _)| *parent < timeline)
            .map(|(parent, at)| Fork { timeline, parent, at, basis: Basis::Reported }))
    }

    /// By the header of a segment.
    async fn segment_bytes(&self, listed: &BTreeMap<(String, String), (u32, Listing)>) -> Result<u64, Failure> {
        let is_segment = |name: &&str| matches!(WalFile::parse(name), Some(WalFile::Segment(_)));
        let names: Vec<&str> = listed.keys().map(|(name, _)| name.as_str()).filter(is_segment).collect();
        let Some(name) = names.last() else { return Ok(USUAL_SEGMENT) };
        let reader = Reader::new(super::Engine::PgBackRest(self.clone())).await?;
        let bytes = reader.read(name).await?.unwrap_or_default();
        Ok(Header::parse(&bytes).map_or(USUAL_SEGMENT, |header| header.segment_size))
    }

    /// The same, with a control file of its own in `directory`: `archive-get` wants one, and the cluster may be gone. The
    /// newest backup holds one; where it cannot be had (backups in bundles), the configuration's own has to do.
    pub(super) async fn with_control_file(self, directory: &Path) -> Result<Self, Failure> {
        let stanza = self.info(None).await?;
        let Some(backup) = stanza.backup.last() else { return Ok(self) };
        let folder = format!("backup/{}/{}/pg_data/global", self.stanza, backup.label);
        let Some(control) = self.control_file(backup.database.repo, &folder).await else { return Ok(self) };
        let place = || {
            std::fs::create_dir(directory.join("global"))?;
            std::fs::write(directory.join("global/pg_control"), control)?;
            let all = ["global", "global/pg_control"];
            all.iter().try_for_each(|name| {
                self.account.as_ref().map_or(Ok(()), |account| account.give(&directory.join(name)))
            })
        };
        place().map_err(|error| Failure::new("the control file cannot be written", error))?;
        Ok(Self { cluster: Some(directory.to_owned()), ..self })
    }

    async fn control_file(&self, repo: u32, folder: &str) -> Option<Vec<u8>> {
        if let Ok(plain) = self.get(repo, &format!("{folder}/pg_control")).await {
            return Some(plain);
        }
        for (suffix, program) in [("gz", "gzip"), ("zst", "zstd"), ("lz4", "lz4"), ("bz2", "bzip2")] {
            let Ok(stored) = self.get(repo, &format!("{folder}/pg_control.{suffix}")).await else { continue };
            if suffix == "zst" {
                return zstd::stream::decode_all(&stored[..]).ok();
            }
            let spec = Spec::new(program).arg("-dc").stdin(stored);
            let unpacked = run(spec, "-dc", &CancellationToken::new()).await.ok()?;
            return unpacked.end.success().then_some(unpacked.stdout);
        }
        None
    }

    pub(super) async fn wal(&self, name: &str, place: &Path) -> Result<Option<Vec<u8>>, EngineError> {
        let mut spec = self.spec("archive-get").arg("--no-archive-async");
        if let Some(cluster) = &self.cluster {
            spec = spec.arg("--reset-pg1-host").arg(format!("--pg1-path={}", cluster.display()));
        }
        let said = run(spec.arg(name).arg(place), "archive-get", &CancellationToken::new()).await?;
        let silent = said.stderr.is_empty() && said.stdout.is_empty();
        match said.end {
            End::Exited(0) => {
                let bytes = std::fs::read(place).map_err(|error| self.failed("archive-get", error))?;
                let _ = std::fs::remove_file(place);
                Ok(Some(bytes))
            }
            // With a warning, one of several repositories could not be asked: it may be in that one.
            End::Exited(NOT_THERE) if silent => Ok(None),
            _ => Err(self.failed("archive-get", complaint(&said, &[ERROR]))),
        }
    }

    pub(super) async fn check(&self) -> Result<(), EngineError> {
        self.done("check", self.spec("check")).await.map(|_| ())
    }

    pub(super) async fn backup(&self, report: &Reporter, cancel: &CancellationToken) -> Result<(), Failure> {
        report.say(format!("pgbackrest backs up stanza {}", self.stanza)).await;
        let said = run(self.spec("backup"), "backup", cancel).await?;
        match said.end.success() {
            true => Ok(()),
            false => Err(self.failed("backup", complaint(&said, &[ERROR])).into()),
        }
    }

    pub(super) async fn restore(
        &self,
        label: &str,
        directory: &Path,
        report: &Reporter,
        cancel: &CancellationToken,
    ) -> Result<(), Failure> {
        let set = self.info(Some(label)).await?;
        if set.backup.iter().any(|backup| backup.tablespace.as_ref().is_some_and(|spaces| !spaces.is_null())) {
            return Err(with_tablespaces("pgBackRest", label, "pgbackrest restore --tablespace-map-all"));
        }
        let spec = self.spec("restore").arg(format!("--set={label}"));
        // Nothing of the configuration may lead the bytes elsewhere, or into what is there.
        let spec = spec.args(["--reset-pg1-host", "--no-delta", "--no-link-all"]);
        let spec = spec.args(["--reset-link-map", "--reset-tablespace-map"]);
        let spec = spec.args(["--type=none", "--archive-mode=off"]).arg(format!("--pg1-path={}", directory.display()));
        report.say(format!("pgbackrest restores {label}")).await;
        let said = run(spec, "restore", cancel).await?;
        match said.end.success() {
            true => Ok(()),
            false => Err(self.failed("restore", complaint(&said, &[ERROR])).into()),
        }
    }
}

/// The WAL file that a path of the archive is of: `15-1/0000000100000000/<name>-<sha1>.zst`, without what stands behind.
fn stem(path: &str) -> Option<String> {
    let name = path.rsplit('/').next()?;
    let name = match name.split_once('-') {
        Some((name, _)) => name,
        None => name,
    };
    WalFile::parse(name).map(|file| file.name())
}
