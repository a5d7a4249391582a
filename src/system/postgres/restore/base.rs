//! The base backup, as far as the restored server needs to know it, and how its bytes come onto the disk.

use std::collections::BTreeMap;

use super::super::base::Manifest;
use super::super::catalogue;
use super::super::control::Floor;
use super::super::engine::Engine;
use super::super::repository::Repository;
use crate::event::{BaseBackup, Failure, Lsn};
use crate::store::Bucket;

/// A base backup that is restored.
#[derive(Debug, Clone)]
pub struct Base {
    pub system_identifier: u64,
    /// `150018`; of another program's backup `150000`.
    pub version_number: u32,
    pub wal_segment_bytes: u64,
    pub start_lsn: Lsn,
    pub stop_lsn: Lsn,
    pub floor: Floor,
    /// As the source had them; empty where the backup does not tell.
    pub client_settings: BTreeMap<String, String>,
    /// Bytes unpacked, of the whole chain.
    pub bytes: u64,
    pub files: From,
}

/// Where its files come from.
#[derive(Debug, Clone)]
pub enum From {
    Parts {
        bucket: Bucket,
        /// The full backup first, then what builds on it.
        chain: Vec<Manifest>,
    },
    /// Another program puts them into a directory.
    Engine(Engine),
}

impl Base {
    /// Looks the backup up where it lies.
    pub async fn find(repository: &Repository, label: &str) -> Result<Self, Failure> {
        match repository {
            Repository::Bucket { bucket, .. } => {
                Self::of_chain(bucket.clone(), label, catalogue::chain(bucket, label).await?)
            }
            Repository::Engine(engine) => {
                let found = engine.catalogue().await?;
                let backup = found.backups.iter().find(|backup| backup.label == label);
                let backup = backup.ok_or_else(|| {
                    Failure::new(format!("backup {label} is gone"), format!("{} does not list it", engine.word()))
                        .now("choose another backup")
                })?;
                Self::of_report(engine.clone(), backup, found.segment_bytes)
            }
        }
    }

    fn of_chain(bucket: Bucket, label: &str, chain: Vec<Manifest>) -> Result<Self, Failure> {
        let Some(manifest) = chain.last().cloned() else {
            return Err(Failure::new(format!("backup {label} is gone"), "it has no manifest"));
        };
        Ok(Self {
            system_identifier: manifest.system_identifier,
            version_number: manifest.version_number,
            wal_segment_bytes: manifest.wal_segment_bytes,
            start_lsn: manifest.start_lsn,
            stop_lsn: manifest.stop_lsn,
            floor: manifest.floor,
            client_settings: manifest.client_settings,
            bytes: chain.iter().map(|one| one.bytes).fold(0, u64::saturating_add),
            files: From::Parts { bucket, chain },
        })
    }

    /// Bytes of disk until the server is started: beside a chain lies what is made of it, which is no larger.
    pub fn room(&self) -> u64 {
        match &self.files {
            From::Parts { chain, .. } if chain.len() > 1 => self.bytes.saturating_mul(2),
            _ => self.bytes,
        }
    }

    fn of_report(engine: Engine, backup: &BaseBackup, wal_segment_bytes: u64) -> Result<Self, Failure> {
        let major = backup.server_version.split('.').next().and_then(|major| major.parse::<u32>().ok());
        let major = major.ok_or_else(|| {
            let why = format!("`{}` is no version of PostgreSQL", backup.server_version);
            Failure::new(format!("backup {} cannot be restored", backup.label), why)
        })?;
        Ok(Self {
            system_identifier: backup.system_identifier,
            version_number: major * 10_000,
            wal_segment_bytes,
            start_lsn: backup.start_lsn,
            stop_lsn: backup.stop_lsn,
            // The control file that is restored says what the server needs.
            floor: Floor::default(),
            client_settings: BTreeMap::new(),
            bytes: backup.bytes,
            files: From::Engine(engine),
        })
    }
}
