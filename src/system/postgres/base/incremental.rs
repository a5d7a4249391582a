//! What an incremental backup is taken since: PostgreSQL 17 and later compare their WAL summaries with the `backup_manifest`
//! of an earlier backup, and send of each file only the blocks that changed.

use std::io::Write as _;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use tempfile::NamedTempFile;

use super::manifest::{Manifest, Parent};
use crate::digest::Digest;
use crate::event::{BaseBackup, Failure};
use crate::store::{self, Bucket};
use crate::system::postgres::catalogue;
use crate::system::postgres::error::PgError;
use crate::system::postgres::identity::Identity;

/// The first version that can.
const SINCE: u32 = 170_000;

/// Backups that one is restored from at most: each of them lies on the target's disk then.
const LONGEST: usize = 32;

/// The newest backup of the same cluster, and its manifest as a file for `pg_basebackup`.
pub struct Since {
    pub parent: Parent,
    pub file: NamedTempFile,
    /// Labels of all that it is restored from.
    chain: Vec<String>,
}

impl Since {
    /// In a sentence, why there must be a full backup. Whether the server still has the summaries that it takes, and whether
    /// the earlier backup is of its own history, the server says itself.
    pub async fn find(
        bucket: &Bucket,
        source: &Identity,
        (summarizes, checksums): (bool, bool),
        full_every: Duration,
        now: DateTime<Utc>,
    ) -> Result<Self, String> {
        if source.version_number < SINCE {
            return Err(format!("PostgreSQL {} knows no incremental backups, 17 and later do", source.version));
        }
        if !summarizes {
            return Err("summarize_wal is off at the source".to_owned());
        }
        let objects = bucket.list("base").await.map_err(|error| error.to_string())?;
        let (backups, _) = catalogue::backups(bucket, &objects).await.map_err(|error| error.to_string())?;
        let own = |backup: &&BaseBackup| backup.system_identifier == source.system_identifier;
        let newest = backups.iter().filter(own).max_by_key(|backup| (backup.stopped, backup.stop_lsn));
        let newest = newest.ok_or("there is no usable earlier backup of this cluster")?;
        let unusable = |why: String| format!("{} cannot be built upon: {why}", newest.label);
        let chain = catalogue::chain(bucket, &newest.label).await.map_err(|error| unusable(error.to_string()))?;
        let [full, ..] = chain.as_slice() else { return Err(unusable("it has no manifest".to_owned())) };
        let due = TimeDelta::from_std(full_every).ok().and_then(|every| full.started.checked_add_signed(every));
        if due.is_some_and(|due| due <= now) {
            let limit = humantime::format_duration(full_every);
            return Err(format!("the last full one, {}, is older than {limit}", full.label));
        }
        if chain.len() >= LONGEST {
            return Err(format!("{} backups follow one another since {} by now", chain.len(), full.label));
        }
        let Some(parent) = chain.last() else { return Err(unusable("it has no manifest".to_owned())) };
        if checksums && !parent.data_checksums {
            return Err(unusable("its pages have no checksums, and the source's have".to_owned()));
        }
        if bucket.encryption().is_on() && !parent.is_sealed {
            return Err(unusable("it is not encrypted, and this one will be".to_owned()));
        }
        // Else it could be read by those alone who have the old keys too.
        let recipients: Vec<String> = bucket.encryption().recipients().iter().map(|to| to.short()).collect();
        for member in chain.iter().filter(|_| bucket.encryption().is_on()) {
            let stored =
                bucket.read(&Manifest::key(&member.label)).await.map_err(|error| unusable(error.to_string()))?;
            if store::manifest_made_for(&stored).as_ref() != Some(&recipients) {
                return Err(unusable(format!("{} is encrypted to others than this one will be", member.label)));
            }
        }
        let raw = parent.read_backup_manifest(bucket).await.map_err(|failure| unusable(failure.to_string()))?;
        let file = NamedTempFile::new().and_then(|mut file| file.write_all(&raw).map(|()| file));
        let file = file.map_err(|error| format!("the manifest of {} cannot be written down: {error}", newest.label))?;
        let labels = chain.iter().map(|manifest| manifest.label.clone()).collect();
        Ok(Self { parent: parent.as_parent(Digest::of(&raw)), file, chain: labels })
    }

    /// An error when something of it was pruned while the backup was taken.
    pub async fn is_still_there(&self, bucket: &Bucket) -> Result<(), PgError> {
        for label in &self.chain {
            if !bucket.exists(&Manifest::key(label)).await? {
                return Err(Failure::new(
                    "the backup would have nothing to build on",
                    format!("{label} was deleted from {} meanwhile", bucket.name()),
                )
                .now("take it again, and keep backups longer than one takes")
                .into());
            }
        }
        Ok(())
    }
}
