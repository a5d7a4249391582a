//! WAL-G: `backup-list` says which backups there are, `st ls` which WAL, `wal-show` where timelines fork, `wal-fetch` gives
//! WAL, `backup-fetch` the bytes. None of these asks the server.
//!
//! `wal-show` tells of WAL its ends and holes, and neither times nor sizes; the listing does.

use std::path::{Path, PathBuf};

use chrono::{DateTime, Utc};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio_util::sync::CancellationToken;

use super::super::catalogue::{Catalogue, Found, USUAL_SEGMENT};
use super::super::report::Reporter;
use super::super::wal::read::Listed;
use super::super::wal::{Header, Segment, WalFile};
use super::{EngineError, Reader, complaint, run, with_tablespaces};
use crate::event::{BaseBackup, Basis, Failure, Fork, Lsn};
use crate::process::{Account, Captured, End, Spec};

/// Of a `wal-fetch`: the storage answered, and the file is not in it. Everything else that fails ends with 1.
const NOT_THERE: i32 = 74;

/// Where its own error messages begin.
const ERROR: &str = "ERROR: ";

/// Its folder of WAL.
const WAL: &str = "wal_005/";

/// A configuration of WAL-G: one storage, one cluster.
#[derive(Debug, Clone)]
pub struct WalG {
    pub program: PathBuf,
    /// `.walg.json` in the home of its user when absent.
    pub config: Option<PathBuf>,
    /// Whom it runs as when this program is root.
    pub account: Option<Account>,
}

/// One of `backup-list --detail`.
#[derive(Deserialize)]
struct Backup {
    backup_name: String,
    /// The segment that it begins in.
    wal_file_name: String,
    start_time: DateTime<Utc>,
    finish_time: DateTime<Utc>,
    pg_version: u32,
    /// Plain numbers, both.
    start_lsn: u64,
    finish_lsn: u64,
    system_identifier: Option<u64>,
    #[serde(default)]
    uncompressed_size: u64,
    #[serde(default)]
    compressed_size: u64,
}

/// One of `wal-show --detailed-json`.
#[derive(Deserialize)]
struct Timeline {
    id: u32,
    /// 0 where no history file says it.
    parent_id: u32,
    switch_point_lsn: u64,
}

/// What lies beside a backup.
#[derive(Deserialize)]
struct Sentinel {
    #[serde(rename = "Spec")]
    spec: Option<Spaces>,
}

#[derive(Deserialize)]
struct Spaces {
    #[serde(default)]
    tablespaces: Vec<String>,
}

#[derive(Deserialize)]
struct Verified {
    integrity: Checked,
    timeline: Checked,
}

#[derive(Deserialize)]
struct Checked {
    status: String,
    details: serde_json::Value,
}

/// A WAL file in the storage.
struct Stored {
    name: String,
    bytes: u64,
    modified: DateTime<Utc>,
}

impl WalG {
    pub(super) fn options(&self) -> Vec<(&'static str, String)> {
        let mut options = vec![("--program", self.program.display().to_string())];
        options.extend(self.config.iter().map(|config| ("--config", config.display().to_string())));
        options
    }

    fn spec(&self, words: &[&str]) -> Spec {
        let spec = Spec::new(&self.program).run_as(self.account.clone());
        let spec = match &self.config {
            Some(config) => spec.arg("--config").arg(config),
            None => spec,
        };
        spec.args(words)
    }

    fn failed(&self, command: &str, why: impl ToString) -> EngineError {
        EngineError { program: "wal-g".to_owned(), command: command.to_owned(), why: why.to_string() }
    }

    /// Its output; anything but success is an error.
    async fn done(&self, command: &str, spec: Spec, cancel: &CancellationToken) -> Result<Captured, EngineError> {
        let captured = run(spec, command, cancel).await?;
        match captured.end.success() {
            true => Ok(captured),
            false => Err(self.failed(command, complaint(&captured, &[ERROR]))),
        }
    }

    async fn ask<T: DeserializeOwned + Default>(&self, words: &[&str]) -> Result<T, EngineError> {
        let command = words.first().copied().unwrap_or_default();
        let said = self.done(command, self.spec(words), &CancellationToken::new()).await?;
        // Nothing to list is said in words, elsewhere.
        if said.stdout_text().is_empty() {
            return Ok(T::default());
        }
        let answer: Result<Option<T>, _> = serde_json::from_slice(&said.stdout);
        let unread = |error| self.failed(command, format!("its answer cannot be read: {error}"));
        Ok(answer.map_err(unread)?.unwrap_or_default())
    }

    async fn backups(&self) -> Result<Vec<Backup>, EngineError> {
        self.ask(&["backup-list", "--json", "--detail"]).await
    }

    pub(super) async fn system_identifier(&self) -> Result<Option<u64>, Failure> {
        let newest = self.backups().await?.into_iter().max_by_key(|backup| backup.finish_lsn);
        match newest.and_then(|newest| newest.system_identifier) {
            Some(own) => Ok(Some(own)),
            None => Ok(self.header(&self.list().await?).await?.map(|header| header.system_identifier)),
        }
    }

    /// That of the last segment.
    async fn header(&self, files: &[Stored]) -> Result<Option<Header>, Failure> {
        let segments = files.iter().filter(|file| matches!(WalFile::parse(&file.name), Some(WalFile::Segment(_))));
        let Some(last) = segments.max_by(|a, b| a.name.cmp(&b.name)) else { return Ok(None) };
        let reader = Reader::new(super::Engine::WalG(self.clone())).await?;
        Ok(Header::parse(&reader.read(&last.name).await?.unwrap_or_default()))
    }

    pub(super) async fn catalogue(&self) -> Result<Catalogue, Failure> {
        let files = self.list().await?;
        let header = self.header(&files).await?;
        let backups = self.backups().await?;
        let newest = backups.iter().max_by_key(|backup| backup.finish_lsn);
        let own = newest.and_then(|newest| newest.system_identifier);
        let mut found = Found {
            system_identifier: own.or(header.map(|header| header.system_identifier)),
            segment_bytes: header.map_or(USUAL_SEGMENT, |header| header.segment_size),
            ..Found::default()
        };
        let first: Vec<String> = backups.iter().map(|backup| backup.wal_file_name.clone()).collect();
        for backup in backups {
            let label = backup.backup_name.clone();
            if let Some(parent) = parent_of(&label).filter(|parent| !first.iter().any(|name| name == parent)) {
                found.damaged.push(format!(
                    "backup {label} is not usable: the one that begins in {parent}, which it builds on, is gone"
                ));
                continue;
            }
            match base_backup(backup, found.system_identifier) {
                Ok(backup) => found.backups.push(backup),
                Err(why) => found.damaged.push(format!("backup {label} is not usable: {why}")),
            }
        }
        for Stored { name, bytes, modified } in files {
            if let Some(segment) = Segment::parse(&name, found.segment_bytes) {
                found.segments.push(Listed { segment, key: name, bytes, modified });
            }
        }
        let timelines: Vec<Timeline> = self.ask(&["wal-show", "--detailed-json", "--without-backups"]).await?;
        let forked = timelines.into_iter().filter(|timeline| (1..timeline.id).contains(&timeline.parent_id));
        found.forks.extend(forked.map(|Timeline { id, parent_id, switch_point_lsn }| Fork {
            timeline: id,
            parent: parent_id,
            at: Lsn(switch_point_lsn),
            basis: Basis::Reported,
        }));
        Ok(found.into_catalogue())
    }

    /// The WAL files of the storage.
    async fn list(&self) -> Result<Vec<Stored>, EngineError> {
        let said = self.done("st", self.spec(&["st", "ls", WAL]), &CancellationToken::new()).await?;
        let text = said.stdout_text();
        let lines = text.lines().filter(|line| line.starts_with("obj"));
        let read = |line| stored(line).ok_or_else(|| self.failed("st", format!("its line `{line}` cannot be read")));
        lines.map(read).filter_map(Result::transpose).collect()
    }

    pub(super) async fn wal(&self, name: &str, place: &Path) -> Result<Option<Vec<u8>>, EngineError> {
        let command = "wal-fetch";
        // It does not write over what an earlier try has left.
        let _ = std::fs::remove_file(place);
        // Fetched ahead would be what nobody asks for, by a process that outlives this one.
        let spec = self.spec(&[command, name]).arg(place).env("WALG_DOWNLOAD_CONCURRENCY", "1");
        let said = run(spec, command, &CancellationToken::new()).await?;
        match said.end {
            End::Exited(0) => {
                let bytes = std::fs::read(place).map_err(|error| self.failed(command, error))?;
                let _ = std::fs::remove_file(place);
                Ok(Some(bytes))
            }
            // A wrong prefix, or one that is not mounted, has nothing in it either.
            End::Exited(NOT_THERE) => match self.backups().await?.is_empty() {
                false => Ok(None),
                true => {
                    Err(self.failed(command, "its storage holds no backup either: is it the right one, and mounted?"))
                }
            },
            _ => Err(self.failed(command, complaint(&said, &[ERROR]))),
        }
    }

    /// It needs the server.
    pub(super) async fn check(&self) -> Result<(), EngineError> {
        let command = "wal-verify";
        let found: Option<Verified> = self.ask(&[command, "integrity", "timeline", "--json"]).await?;
        let found = found.ok_or_else(|| self.failed(command, "it said nothing"))?;
        let both = [("integrity", found.integrity), ("timeline", found.timeline)];
        match both.into_iter().find(|(_, checked)| checked.status == "FAILURE") {
            Some((what, checked)) => Err(self.failed(command, format!("{what}: {}", checked.details))),
            None => Ok(()),
        }
    }

    /// `data` is the server's data directory, where that is on this machine: WAL-G then copies the files itself.
    pub(super) async fn backup(
        &self,
        data: Option<&Path>,
        report: &Reporter,
        cancel: &CancellationToken,
    ) -> Result<(), Failure> {
        let command = "backup-push";
        report.say("wal-g pushes a backup").await;
        self.done(command, self.spec(&[command]).args(data), cancel).await?;
        Ok(())
    }

    pub(super) async fn restore(
        &self,
        label: &str,
        directory: &Path,
        report: &Reporter,
        cancel: &CancellationToken,
    ) -> Result<(), Failure> {
        let sentinel = format!("basebackups_005/{label}_backup_stop_sentinel.json");
        let about: Option<Sentinel> = self.ask(&["st", "cat", &sentinel]).await?;
        let about = about.ok_or_else(|| self.failed("st", format!("{sentinel} is empty")))?;
        if about.spec.is_some_and(|spaces| !spaces.tablespaces.is_empty()) {
            return Err(with_tablespaces("WAL-G", label, "wal-g backup-fetch --restore-spec"));
        }
        let command = "backup-fetch";
        report.say(format!("wal-g fetches {label}")).await;
        self.done(command, self.spec(&[command]).arg(directory).arg(label), cancel).await?;
        Ok(())
    }
}

/// `obj 16777216 2026-11-22 03:08:53.65 +0000 UTC 000000010000000000000005.lz4`; `Ok(None)` of what is no WAL.
fn stored(line: &str) -> Option<Option<Stored>> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let [_, bytes, day, time, zone, .., name] = words.as_slice() else { return None };
    let modified = DateTime::parse_from_str(&format!("{day} {time} {zone}"), "%Y-%m-%d %H:%M:%S%.f %z").ok()?;
    let file = WalFile::parse(name).or_else(|| WalFile::parse(name.rsplit_once('.')?.0));
    let bytes = bytes.parse().ok()?;
    Some(file.map(|file| Stored { name: file.name(), bytes, modified: modified.to_utc() }))
}

/// The segment that the parent of a delta begins in: `base_000000010000000000000007_D_000000010000000000000003`.
fn parent_of(label: &str) -> Option<&str> {
    label.rsplit_once("_D_").map(|(_, parent)| parent)
}

/// Whether the cluster lies there, on this machine. The control file begins with its identity.
pub(super) fn is_of(data: &Path, system_identifier: u64) -> bool {
    let control = std::fs::read(data.join("global/pg_control")).unwrap_or_default();
    control.get(..8) == Some(&system_identifier.to_ne_bytes())
}

fn base_backup(backup: Backup, system_identifier: Option<u64>) -> Result<BaseBackup, String> {
    let first = &backup.wal_file_name;
    let timeline = first.get(..8).and_then(|digits| u32::from_str_radix(digits, 16).ok());
    let own = backup.system_identifier.or(system_identifier);
    Ok(BaseBackup {
        system_identifier: own.ok_or("WAL-G does not say of which cluster it is")?,
        timeline: timeline.ok_or_else(|| format!("{first} is no segment"))?,
        start_lsn: Lsn(backup.start_lsn),
        stop_lsn: Lsn(backup.finish_lsn),
        started: backup.start_time,
        stopped: backup.finish_time,
        parent: None,
        bytes: backup.uncompressed_size,
        stored_bytes: backup.compressed_size,
        server_version: format!("{}.{}", backup.pg_version / 10_000, backup.pg_version % 10_000),
        label: backup.backup_name,
        basis: Basis::Reported,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listing_is_read_whatever_the_compression() {
        let name = |line: &str| stored(line).map(|found| found.map(|file| (file.name, file.bytes)));
        let segment = || Some(Some(("000000010000000000000005".to_owned(), 16461)));
        assert_eq!(name("obj 16461 2026-11-22 03:08:53.65 +0000 UTC 000000010000000000000005.lz4"), segment());
        assert_eq!(name("obj 16461 2026-11-22 05:08:53 +0200 CEST   000000010000000000000005"), segment());
        assert_eq!(name("obj 198   2026-11-22 03:08:53 +0000 UTC 000000010000000000000000_delta.lz4"), Some(None));
        let history = Some(Some(("00000002.history".to_owned(), 41)));
        assert_eq!(name("obj 41    2026-11-22 03:08:53 +0000 UTC 00000002.history.br"), history);
        assert_eq!(name("obj many  2026-11-22 03:08:53 +0000 UTC 00000002.history.br"), None);
        assert_eq!(name("obj 41"), None);
    }

    #[test]
    fn a_delta_names_its_parent() {
        let delta = "base_000000010000000000000007_D_000000010000000000000003";
        assert_eq!(parent_of(delta), Some("000000010000000000000003"));
        assert_eq!(parent_of("base_000000010000000000000003"), None);
    }
}
