//! Barman: `sync-info` says of which cluster it is and where its WAL lies, `list-backups` and `show-backup` which backups
//! there are, `get-wal` gives WAL, `recover` the bytes. None of these asks the server, which may be gone.
//!
//! Barman's own list of WAL (`xlog.db`) keeps naming files that are gone, and does not know those that wait to be archived;
//! so its directories are listed, which is why Barman has to be on this machine.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use chrono::{DateTime, Utc};
use futures::stream::{self, StreamExt};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::super::catalogue::{Catalogue, Found, USUAL_SEGMENT, last_fork};
use super::super::report::Reporter;
use super::super::wal::read::Listed;
use super::super::wal::{Header, Segment, WalFile};
use super::{EngineError, complaint, end_of, run, with_tablespaces};
use crate::event::{BaseBackup, Basis, Failure, Fork, Lsn};
use crate::process::{Account, Captured, End, Spec};

/// Of every error of Barman, that a file is not there among them.
const FAILED: i32 = 1;

/// Where its own messages begin.
const ERRORS: [&str; 2] = ["ERROR: ", "EXCEPTION: "];

/// Barmans that are asked for backups at once: each is a start of Python.
const AT_ONCE: usize = 4;

/// A server of Barman.
#[derive(Debug, Clone)]
pub struct Barman {
    pub program: PathBuf,
    /// Barman's own place when absent.
    pub config: Option<PathBuf>,
    pub server: String,
    /// Whom it runs as when this program is root; Barman itself wants its `barman_user`.
    pub account: Option<Account>,
}

/// What `sync-info` says.
#[derive(Deserialize)]
struct Sync {
    /// Those that are whole, by id, which sorts by time.
    backups: BTreeMap<String, Known>,
    wals: Vec<Wal>,
    config: Config,
}

#[derive(Deserialize)]
struct Known {
    systemid: Option<String>,
    xlog_segment_size: Option<u64>,
    /// Of the files of the backup.
    compression: Option<String>,
}

#[derive(Deserialize)]
struct Wal {
    compression: Option<String>,
    encryption: Option<String>,
}

#[derive(Deserialize)]
struct Config {
    wals_directory: PathBuf,
    /// What an archive_command put there, until `barman cron` takes it.
    incoming_wals_directory: PathBuf,
    /// What pg_receivewal puts there.
    streaming_wals_directory: PathBuf,
    compression: Option<String>,
    encryption: Option<String>,
}

#[derive(Deserialize)]
struct Entry {
    backup_id: String,
    status: String,
}

/// What `show-backup` says.
#[derive(Deserialize)]
struct Shown {
    base_backup_information: Option<Information>,
    /// `150018`
    postgresql_version: Option<u32>,
    #[serde(default)]
    tablespaces: Vec<Value>,
}

#[derive(Deserialize)]
struct Information {
    begin_lsn: Lsn,
    end_lsn: Lsn,
    timeline: u32,
    begin_wal: String,
    /// With a zone, unlike those of `sync-info` and `list-backups`.
    begin_time: String,
    end_time: String,
    begin_time_timestamp: String,
    end_time_timestamp: String,
    #[serde(default)]
    disk_usage_bytes: u64,
    incremental_size_bytes: Option<u64>,
}

/// A WAL file on the disk.
struct Stored {
    bytes: u64,
    modified: DateTime<Utc>,
    /// And not just on its way there.
    archived: bool,
}

impl Sync {
    fn newest(&self) -> Option<&Known> {
        self.backups.values().next_back()
    }

    /// A filter of the user's own may do anything.
    fn is_encrypted(&self) -> Option<bool> {
        let says = |of: &Option<String>| of.as_ref().is_some_and(|text| !text.is_empty() && text != "none");
        if says(&self.config.encryption) || self.wals.iter().any(|wal| says(&wal.encryption)) {
            return Some(true);
        }
        let custom = |of: &Option<String>| of.as_deref() == Some("custom");
        let any = custom(&self.config.compression) || self.wals.iter().any(|wal| custom(&wal.compression));
        (!any).then_some(false)
    }
}

impl Barman {
    pub(super) fn options(&self) -> Vec<(&'static str, String)> {
        let mut options = vec![("--program", self.program.display().to_string()), ("--name", self.server.clone())];
        options.extend(self.config.iter().map(|config| ("--config", config.display().to_string())));
        options
    }

    fn barman(&self) -> Spec {
        let spec = Spec::new(&self.program).run_as(self.account.clone());
        match &self.config {
            Some(config) => spec.arg("--config").arg(config),
            None => spec,
        }
    }

    fn spec(&self, command: &str) -> Spec {
        self.barman().arg(command)
    }

    fn failed(&self, command: &str, why: impl ToString) -> EngineError {
        EngineError { program: "barman".to_owned(), command: command.to_owned(), why: why.to_string() }
    }

    /// Its output; anything but success is an error.
    async fn done(&self, command: &str, spec: Spec, cancel: &CancellationToken) -> Result<Captured, EngineError> {
        let captured = run(spec, command, cancel).await?;
        match captured.end.success() {
            true => Ok(captured),
            false => Err(self.failed(command, complaint(&captured, &ERRORS))),
        }
    }

    /// What it says of the server as JSON, and whether it ended well.
    async fn ask(&self, command: &str, words: &[&str]) -> Result<(bool, Value), EngineError> {
        let spec = self.barman().args(["--format", "json", command, &self.server]).args(words);
        let said = run(spec, command, &CancellationToken::new()).await?;
        let unread = |error| self.failed(command, format!("its answer cannot be read: {error}"));
        let mut answer: Value = match serde_json::from_slice(&said.stdout) {
            Ok(answer) => answer,
            Err(_) if !said.end.success() => return Err(self.failed(command, complaint(&said, &ERRORS))),
            Err(error) => return Err(unread(error)),
        };
        let own = answer.get_mut(&self.server).map(Value::take);
        match own {
            Some(own) => Ok((said.end.success(), own)),
            None => {
                let of = |key: &str| answer.get(key)?.get(0)?.as_str().map(str::to_owned);
                let why = of("_ERROR").or_else(|| of("_EXCEPTION"));
                Err(self.failed(command, why.unwrap_or_else(|| format!("it does not know server {}", self.server))))
            }
        }
    }

    async fn asked<T: DeserializeOwned>(&self, command: &str, words: &[&str]) -> Result<T, EngineError> {
        let (_, own) = self.ask(command, words).await?;
        serde_json::from_value(own).map_err(|error| self.failed(command, format!("its answer cannot be read: {error}")))
    }

    async fn sync_info(&self) -> Result<Sync, EngineError> {
        let command = "sync-info";
        let said = self.done(command, self.spec(command).arg(&self.server), &CancellationToken::new()).await?;
        serde_json::from_slice(&said.stdout)
            .map_err(|error| self.failed(command, format!("its answer cannot be read: {error}")))
    }

    pub(super) async fn system_identifier(&self) -> Result<Option<u64>, EngineError> {
        let sync = self.sync_info().await?;
        let files = self.files(&sync.config)?;
        Ok(self.identity(&sync, &files).await?.0)
    }

    /// The cluster, and the bytes of its segments: by the newest backup, else by the newest segment.
    async fn identity(&self, sync: &Sync, files: &BTreeMap<String, Stored>) -> Result<(Option<u64>, u64), EngineError> {
        let known = sync.newest().map(|known| (known.systemid.as_ref().and_then(|id| id.parse().ok()), known));
        if let Some((Some(id), Known { xlog_segment_size: Some(size), .. })) = known {
            return Ok((Some(id), *size));
        }
        let is_segment = |name: &&String| matches!(WalFile::parse(name), Some(WalFile::Segment(_)));
        let Some(name) = files.keys().rfind(is_segment) else { return Ok((None, USUAL_SEGMENT)) };
        let header = Header::parse(&self.wal(name).await?.unwrap_or_default());
        let of = |header: Header| (Some(header.system_identifier), header.segment_size);
        Ok(header.map_or((None, USUAL_SEGMENT), of))
    }

    pub(super) async fn catalogue(&self) -> Result<Catalogue, Failure> {
        let sync = self.sync_info().await?;
        let files = self.files(&sync.config)?;
        let (system_identifier, segment_bytes) = self.identity(&sync, &files).await?;
        let is_encrypted = sync.is_encrypted();
        let mut found = Found { system_identifier, segment_bytes, is_encrypted, ..Found::default() };
        let listed: Vec<Entry> = self.asked("list-backups", &[]).await?;
        let whole = |entry: &&Entry| matches!(entry.status.as_str(), "DONE" | "WAITING_FOR_WALS");
        for entry in listed.iter().filter(|entry| entry.status == "FAILED") {
            found.damaged.push(format!("backup {} is not usable: Barman says that it failed", entry.backup_id));
        }
        let show = async |entry: &Entry| (entry.backup_id.clone(), self.show(&entry.backup_id).await);
        let mut shown = stream::iter(listed.iter().filter(whole)).map(show).buffered(AT_ONCE);
        while let Some((label, shown)) = shown.next().await {
            let own = sync.backups.get(&label).and_then(|known| known.systemid.as_ref()?.parse().ok());
            match base_backup(&label, shown?, own.or(system_identifier)) {
                Ok(backup) => found.backups.push(backup),
                Err(why) => found.damaged.push(format!("backup {label} is not usable: {why}")),
            }
        }
        for (name, Stored { bytes, modified, archived }) in files {
            match WalFile::parse(&name) {
                // What is shorter there is still written.
                Some(WalFile::Segment(_)) if archived || bytes == segment_bytes => {
                    if let Some(segment) = Segment::parse(&name, segment_bytes) {
                        found.segments.push(Listed { segment, key: name, bytes, modified });
                    }
                }
                Some(WalFile::History(timeline)) => match self.fork(&name, timeline).await? {
                    Some(fork) => found.forks.push(fork),
                    None => found.warnings.push(format!("{name} cannot be read; timeline {timeline} is unknown")),
                },
                _ => {}
            }
        }
        Ok(found.into_catalogue())
    }

    async fn show(&self, label: &str) -> Result<Shown, EngineError> {
        self.asked("show-backup", &[label]).await
    }

    async fn fork(&self, name: &str, timeline: u32) -> Result<Option<Fork>, EngineError> {
        let text = self.wal(name).await?.unwrap_or_default();
        Ok(last_fork(&String::from_utf8_lossy(&text))
            .filter(|(parent, _)| *parent < timeline)
            .map(|(parent, at)| Fork { timeline, parent, at, basis: Basis::Reported }))
    }

    /// WAL files in the places where `get-wal` looks, by name.
    fn files(&self, config: &Config) -> Result<BTreeMap<String, Stored>, EngineError> {
        let mut files = BTreeMap::new();
        // In the order in which its archiver moves them on: what is moved meanwhile is seen twice, not never. The last that
        // has a file gives it.
        for (directory, archived) in [
            (&config.streaming_wals_directory, false),
            (&config.incoming_wals_directory, false),
            (&config.wals_directory, true),
        ] {
            match list(directory, archived, &mut files) {
                Err(error) if archived || error.kind() != io::ErrorKind::NotFound => {
                    let why = format!("its WAL in {} cannot be listed here: {error}", directory.display());
                    return Err(self.failed("sync-info", why));
                }
                _ => {}
            }
        }
        Ok(files)
    }

    pub(super) async fn wal(&self, name: &str) -> Result<Option<Vec<u8>>, EngineError> {
        if let Some(found) = self.get(name).await? {
            return Ok(Some(found));
        }
        self.answers_for_its_archive().await?;
        // Its archiver may have moved it on between two places that were looked into.
        self.get(name).await
    }

    async fn get(&self, name: &str) -> Result<Option<Vec<u8>>, EngineError> {
        let command = "get-wal";
        let spec = self.spec(command).args([self.server.as_str(), name]);
        let said = run(spec, command, &CancellationToken::new()).await?;
        // The only sign: whatever else fails, ends with the same code.
        let absent = format!("ERROR: WAL file '{name}' not found in server '{}'", self.server);
        match said.end {
            End::Exited(0) if !said.stdout.is_empty() => Ok(Some(said.stdout)),
            End::Exited(FAILED) if said.stdout.is_empty() && said.stderr_text() == absent => Ok(None),
            _ => Err(self.failed(command, complaint(&said, &ERRORS))),
        }
    }

    /// To Barman, nothing is in a directory that is not mounted, or that it must not look into. What the newest backup begins
    /// with has to be there.
    async fn answers_for_its_archive(&self) -> Result<(), EngineError> {
        let command = "get-wal";
        let newest = self.show("latest").await?;
        let first = newest.base_backup_information.map(|newest| newest.begin_wal);
        let first = first.ok_or_else(|| self.failed(command, "it has no backup whose WAL could be looked for"))?;
        let spec = self.spec(command).args(["--peek", "1", &self.server, &first]);
        let said = self.done(command, spec, &CancellationToken::new()).await?;
        match said.stdout_text() == first {
            true => Ok(()),
            false => Err(self.failed(
                command,
                format!("it does not even find {first}, which its newest backup needs: is its archive mounted?"),
            )),
        }
    }

    pub(super) async fn check(&self) -> Result<(), EngineError> {
        let (passed, answer) = self.ask("check", &[]).await?;
        if passed {
            return Ok(());
        }
        let failed = answer.as_object().into_iter().flatten().filter(|(_, check)| check["status"] == "FAILED");
        let told = failed.map(|(name, check)| match check["hint"].as_str() {
            None | Some("") => name.clone(),
            Some(hint) => format!("{name} ({hint})"),
        });
        Err(self.failed("check", told.collect::<Vec<_>>().join(", ")))
    }

    pub(super) async fn backup(&self, report: &Reporter, cancel: &CancellationToken) -> Result<(), Failure> {
        report.say(format!("barman backs up server {}", self.server)).await;
        let spec = self.spec("backup").args(["--wait", &self.server]);
        match self.done("backup", spec, cancel).await {
            Err(error) if !cancel.is_cancelled() => {
                // It only says that a check failed, not which.
                let check =
                    self.check().await.err().map_or(String::new(), |found| format!("; its check: {}", found.why));
                Err(EngineError { why: format!("{}{check}", error.why), ..error }.into())
            }
            done => Ok(done.map(|_| ())?),
        }
    }

    pub(super) async fn restore(
        &self,
        label: &str,
        directory: &Path,
        report: &Reporter,
        cancel: &CancellationToken,
    ) -> Result<(), Failure> {
        if !self.show(label).await?.tablespaces.is_empty() {
            return Err(with_tablespaces("Barman", label, "barman recover --tablespace NAME:LOCATION"));
        }
        let sync = self.sync_info().await?;
        let is_packed = sync.backups.get(label).is_some_and(|known| known.compression.is_some());
        // Without it, all the WAL up to now would be copied too.
        let mut spec = self.spec("recover").arg("--get-wal");
        let staging = directory.with_file_name("staging");
        let failed = |error| Failure::new(format!("{} cannot be made", staging.display()), error);
        if is_packed {
            std::fs::create_dir_all(&staging).map_err(failed)?;
            self.account.as_ref().map_or(Ok(()), |account| account.give(&staging)).map_err(failed)?;
            spec = spec.arg("--recovery-staging-path").arg(&staging);
        }
        report.say(format!("barman recovers {label}")).await;
        let done = self.done("recover", spec.args([self.server.as_str(), label]).arg(directory), cancel).await;
        if is_packed {
            std::fs::remove_dir_all(&staging).map_err(failed)?;
        }
        done?;
        as_backed_up(label, directory).map_err(|error| Failure::new("what Barman added cannot be taken out", error))
    }
}

/// Takes back what `recover` does to the files of a backup.
fn as_backed_up(label: &str, directory: &Path) -> io::Result<()> {
    let at = |name: &str| directory.join(name);
    let may_lack = |result: io::Result<()>| match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    };
    for name in ["postgresql.conf", "postgresql.auto.conf"] {
        may_lack(std::fs::rename(at(&format!("{name}.origin")), at(name)))?;
    }
    may_lack(std::fs::rename(at(&format!("backup_manifest.{label}")), at("backup_manifest")))?;
    [".barman-recover.info", "recovery.signal"].iter().try_for_each(|name| may_lack(std::fs::remove_file(at(name))))
}

fn base_backup(label: &str, shown: Shown, system_identifier: Option<u64>) -> Result<BaseBackup, String> {
    let about = shown.base_backup_information.ok_or("show-backup does not say where it begins and ends")?;
    let version = shown.postgresql_version.ok_or("show-backup does not say of which version it is")?;
    let precise = |text: &str| DateTime::parse_from_str(text, "%Y-%m-%d %H:%M:%S%.f%:z").ok().map(|at| at.to_utc());
    let whole = |text: &str| text.parse().ok().map(end_of);
    let time = |text: &str, second: &str| precise(text).or_else(|| whole(second)).ok_or("its times cannot be read");
    Ok(BaseBackup {
        label: label.to_owned(),
        system_identifier: system_identifier.ok_or("Barman does not say of which cluster it is")?,
        timeline: about.timeline,
        start_lsn: about.begin_lsn,
        stop_lsn: about.end_lsn,
        started: time(&about.begin_time, &about.begin_time_timestamp)?,
        stopped: time(&about.end_time, &about.end_time_timestamp)?,
        parent: None,
        bytes: about.disk_usage_bytes,
        stored_bytes: about.incremental_size_bytes.unwrap_or(about.disk_usage_bytes),
        server_version: format!("{}.{}", version / 10_000, version % 10_000),
        basis: Basis::Reported,
    })
}

/// Adds the WAL files of a directory and of the folders in it.
fn list(directory: &Path, archived: bool, files: &mut BTreeMap<String, Stored>) -> io::Result<()> {
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        // One that the archiver moves on at this moment is in the next place, or in the next look.
        let about = match entry.metadata() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            about => about?,
        };
        if about.is_dir() && archived && name.len() == 16 {
            list(&entry.path(), archived, files)?;
        } else if about.is_file() && WalFile::parse(&name).is_some() {
            let stored = Stored { bytes: about.len(), modified: about.modified()?.into(), archived };
            files.insert(name, stored);
        }
    }
    Ok(())
}
