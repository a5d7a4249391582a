//! Our own manifest of a base backup: written last, so that a backup without it does not exist.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::event::{BaseBackup, Basis, Failure, Lsn, u64_text};
use crate::store::{self, Bucket, ManifestRead, Slot};
use crate::system::postgres::control::Floor;

/// The format's version of a full backup.
const FULL: u32 = 1;

/// The same of an incremental one: who does not know them must not take one for a full backup.
const INCREMENTAL: u32 = 2;

/// What clients would notice; everything else in the source's configuration is not carried over, whatever a manifest says.
pub const CLIENT_SETTINGS: [&str; 11] = [
    "TimeZone",
    "DateStyle",
    "IntervalStyle",
    "bytea_output",
    "default_text_search_config",
    "default_transaction_isolation",
    "extra_float_digits",
    "lc_monetary",
    "lc_numeric",
    "lc_time",
    "password_encryption",
];

/// `base/<label>/manifest.json`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    pub format: u32,
    pub label: String,
    #[serde(with = "u64_text")]
    pub system_identifier: u64,
    pub timeline: u32,
    pub start_lsn: Lsn,
    pub stop_lsn: Lsn,
    /// By the source's clock, before and after.
    pub started: DateTime<Utc>,
    pub stopped: DateTime<Utc>,
    pub server_version: String,
    /// `150018`
    pub version_number: u32,
    pub wal_segment_bytes: u64,
    pub data_checksums: bool,
    pub floor: Floor,
    /// Settings that change what a client sees, as the source had them.
    pub client_settings: BTreeMap<String, String>,
    /// Bytes unpacked.
    pub bytes: u64,
    pub parts: Vec<Part>,
    pub backup_manifest: Part,
    /// Names of the tables, by their files; a help for people, and no part of the restore.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub names: Option<Part>,
    /// Absent in a full backup.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<Parent>,
    /// It is of an encrypted backup, and its sealed part was read.
    #[serde(skip)]
    pub is_sealed: bool,
}

/// The backup since which an incremental one holds what changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Parent {
    pub label: String,
    pub timeline: u32,
    pub start_lsn: Lsn,
    /// Of its `backup_manifest` as PostgreSQL wrote it: to encrypt the backup anew does not change it.
    pub backup_manifest: Digest,
}

/// An object of the backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Part {
    pub key: String,
    pub digest: Digest,
    /// Bytes stored.
    pub bytes: u64,
    /// Bytes unpacked.
    pub raw_bytes: u64,
}

impl Part {
    fn slot(&mut self) -> Slot<'_> {
        Slot { key: &mut self.key, digest: &mut self.digest, bytes: &mut self.bytes }
    }
}

impl Manifest {
    pub fn key(label: &str) -> String {
        format!("base/{label}/manifest.json")
    }

    /// The format's version, by whether there is a parent.
    pub fn format(parent: Option<&Parent>) -> u32 {
        if parent.is_some() { INCREMENTAL } else { FULL }
    }

    /// Says in a sentence what is wrong.
    pub fn parse(label: &str, opened: &ManifestRead) -> Result<Self, String> {
        let mut manifest: Self = serde_json::from_slice(&opened.json).map_err(|error| error.to_string())?;
        if manifest.format != Self::format(manifest.parent.as_ref()) {
            return Err(format!(
                "it is of format {}, and this Lifeboat reads format {FULL}, and {INCREMENTAL} of incremental backups",
                manifest.format
            ));
        }
        if manifest.label != label {
            return Err(format!("it says that it is of `{}`", manifest.label));
        }
        let folder = format!("base/{label}/");
        let foreign = |part: &Part| !part.key.starts_with(&folder) || part.key.contains("..");
        if manifest.parts.iter().chain([&manifest.backup_manifest]).chain(&manifest.names).any(foreign) {
            return Err("it names objects outside its own folder".to_owned());
        }
        if manifest.stop_lsn <= manifest.start_lsn || manifest.parts.is_empty() {
            return Err("it is not complete".to_owned());
        }
        if let Some(parent) = &manifest.parent
            && (parent.start_lsn >= manifest.start_lsn || parent.label.contains(['/', '.']))
        {
            return Err(format!("it cannot hold what changed since `{}`", parent.label));
        }
        if !manifest.wal_segment_bytes.is_power_of_two() || manifest.wal_segment_bytes > 1 << 30 {
            return Err("its segment size is impossible".to_owned());
        }
        manifest.client_settings.retain(|name, _| CLIENT_SETTINGS.contains(&name.as_str()));
        manifest.is_sealed = opened.is_sealed;
        Ok(manifest)
    }

    /// Every object that it names.
    pub fn slots(&mut self) -> Vec<Slot<'_>> {
        let parts = self.parts.iter_mut().chain([&mut self.backup_manifest]).chain(&mut self.names);
        parts.map(Part::slot).collect()
    }

    pub fn stored_bytes(&self) -> u64 {
        self.parts.iter().map(|part| part.bytes).sum::<u64>() + self.backup_manifest.bytes
    }

    /// What an incremental backup that follows this one says of it.
    pub fn as_parent(&self, backup_manifest: Digest) -> Parent {
        let Self { label, timeline, start_lsn, .. } = self;
        Parent { label: label.clone(), timeline: *timeline, start_lsn: *start_lsn, backup_manifest }
    }

    /// Whether this is the backup that `child` follows, as far as the two manifests tell.
    pub fn is_parent_of(&self, child: &Self) -> bool {
        let meant = |parent: &Parent| *parent == self.as_parent(parent.backup_manifest);
        // Else whoever can write there could put another backup into the place of an encrypted one.
        let is_as_safe = self.is_sealed || !child.is_sealed;
        let is_of_cluster = self.system_identifier == child.system_identifier;
        child.parent.as_ref().is_some_and(meant) && is_as_safe && is_of_cluster && !self.lacks_checksums_of(child)
    }

    /// Checksums were switched on in between: that rewrites pages and leaves no trace in the WAL, so that `child` lacks them, and
    /// what is made of both has pages that no server reads. `pg_combinebackup` before 19 only warns.
    pub fn lacks_checksums_of(&self, child: &Self) -> bool {
        child.data_checksums && !self.data_checksums
    }

    /// `backup_manifest` as PostgreSQL wrote it, out of the bucket. An error when it is not what `manifest.json` says.
    pub async fn read_backup_manifest(&self, bucket: &Bucket) -> Result<Vec<u8>, Failure> {
        let part = &self.backup_manifest;
        let damaged = |why: String| {
            Failure::new(format!("{} of the base backup is damaged", part.key), why).now("choose another base backup")
        };
        let failed = |error| Failure::from(error).fails("the base backup cannot be read");
        let stored = bucket.read(&part.key).await.map_err(failed)?;
        if Digest::of(&stored) != part.digest {
            return Err(damaged("it does not have the SHA-256 that manifest.json says".to_owned()));
        }
        // Else whoever can write there could put the parts of one backup into another.
        if store::is_sealed(&stored) && !self.is_sealed {
            return Err(damaged("it is encrypted, and manifest.json is not that of an encrypted backup".to_owned()));
        }
        let stored = bucket.open_sealed(&part.key, stored).map_err(failed)?;
        let capacity = usize::try_from(part.raw_bytes.min(1 << 30)).unwrap_or(0);
        zstd::bulk::decompress(&stored, capacity).map_err(|error| damaged(error.to_string()))
    }

    /// As events tell it.
    pub fn summary(&self) -> BaseBackup {
        BaseBackup {
            label: self.label.clone(),
            system_identifier: self.system_identifier,
            timeline: self.timeline,
            start_lsn: self.start_lsn,
            stop_lsn: self.stop_lsn,
            started: self.started,
            stopped: self.stopped,
            parent: self.parent.as_ref().map(|parent| parent.label.clone()),
            bytes: self.bytes,
            stored_bytes: self.stored_bytes(),
            server_version: self.server_version.clone(),
            basis: Basis::Observed,
        }
    }
}
