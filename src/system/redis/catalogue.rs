//! The snapshots of a bucket: `snapshots/<label>/dump.rdb.zst` and, last, `snapshots/<label>/manifest.json`. A snapshot
//! without its manifest does not exist.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::rdb::Survey;
use super::transfer::Stored;
use crate::digest::Digest;
use crate::event::{Basis, RedisSnapshot};
use crate::store::{Bucket, ManifestRead, Object, Slot, StoreError};

/// The manifest's version.
pub const FORMAT: u32 = 1;

pub const FOLDER: &str = "snapshots";

/// `manifest.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    pub format: u32,
    pub label: String,
    /// The moment whose state it holds, by the server's clock; every write acknowledged before it is inside.
    pub at: DateTime<Utc>,
    pub source: Source,
    /// What the bytes themselves say.
    pub rdb: Survey,
    pub raw_bytes: u64,
    pub raw_digest: Digest,
    /// Key in the bucket.
    pub object: String,
    pub stored_bytes: u64,
    pub stored_digest: Digest,
    /// It is of an encrypted snapshot, and its sealed part was read.
    #[serde(skip)]
    pub is_sealed: bool,
}

/// How the RDB was had.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// Host and port, or the socket.
    pub address: String,
    pub redis_version: String,
    /// `bgsave` (the file, where the server wrote it) or `replication` (streamed by `redis-cli --rdb`).
    pub method: String,
}

impl Manifest {
    pub(super) fn stored(&self) -> Stored<'_> {
        let (raw_bytes, raw_digest) = (self.raw_bytes, self.raw_digest);
        let (stored_digest, is_sealed) = (self.stored_digest, self.is_sealed);
        Stored { object: &self.object, raw_bytes, raw_digest, stored_digest, is_sealed }
    }

    /// The object that it names.
    pub fn slots(&mut self) -> Vec<Slot<'_>> {
        let Self { object, stored_digest, stored_bytes, .. } = self;
        vec![Slot { key: object, digest: stored_digest, bytes: stored_bytes }]
    }

    /// What of it may be told to whoever reads the bucket: beginnings of keys are content.
    pub fn clear(&self) -> Self {
        let rdb = Survey { by_prefix: BTreeMap::new(), ..self.rdb.clone() };
        Self { rdb, raw_digest: Digest::ZERO, ..self.clone() }
    }

    pub fn snapshot(&self) -> RedisSnapshot {
        RedisSnapshot {
            label: self.label.clone(),
            at: self.at,
            keys: self.rdb.keys,
            bytes: self.raw_bytes,
            stored_bytes: self.stored_bytes,
            rdb_version: self.rdb.rdb_version,
            redis_version: self.source.redis_version.clone(),
            basis: Basis::Observed,
        }
    }
}

pub(super) fn manifest_key(label: &str) -> String {
    format!("{FOLDER}/{label}/manifest.json")
}

/// The snapshots by age, the oldest first, and what a person should know: manifests that cannot be read, data that is
/// gone or cut.
pub async fn list(bucket: &Bucket) -> Result<(Vec<RedisSnapshot>, Vec<String>), StoreError> {
    among(bucket, &bucket.list(FOLDER).await?).await
}

/// As [`list`], of what was listed.
pub async fn among(bucket: &Bucket, objects: &[Object]) -> Result<(Vec<RedisSnapshot>, Vec<String>), StoreError> {
    let (mut snapshots, mut warnings) = (Vec::new(), Vec::new());
    for key in objects.iter().map(|object| &object.key).filter(|key| key.ends_with("/manifest.json")) {
        let read = match bucket.read_manifest(key).await {
            Ok(opened) => parse(key, &opened),
            Err(StoreError::Sealed { why, .. }) => Err(format!("{key} cannot be read: {why}")),
            Err(error) => return Err(error),
        };
        let manifest = match read {
            Ok(manifest) => manifest,
            Err(why) => {
                warnings.push(why);
                continue;
            }
        };
        match objects.iter().find(|object| object.key == manifest.object) {
            Some(object) if object.size == manifest.stored_bytes => snapshots.push(manifest.snapshot()),
            Some(object) => warnings.push(format!(
                "snapshot {}: {} has {} bytes, its manifest says {}",
                manifest.label, object.key, object.size, manifest.stored_bytes
            )),
            None => warnings.push(format!("snapshot {}: {} is gone", manifest.label, manifest.object)),
        }
    }
    snapshots.sort_by(|a, b| a.at.cmp(&b.at).then_with(|| a.label.cmp(&b.label)));
    Ok((snapshots, warnings))
}

/// The manifest of one snapshot, for who relies on it; the inner error says what is wrong with it.
pub async fn manifest(bucket: &Bucket, label: &str) -> Result<Result<Manifest, String>, StoreError> {
    let key = manifest_key(label);
    Ok(parse(&key, &bucket.read_vouched(&key).await?))
}

fn parse(key: &str, opened: &ManifestRead) -> Result<Manifest, String> {
    #[derive(Deserialize)]
    struct Versioned {
        format: u32,
    }
    // The version first: a newer manifest may hold what this one cannot read.
    let manifest = match serde_json::from_slice::<Versioned>(&opened.json) {
        Ok(Versioned { format: FORMAT }) => serde_json::from_slice::<Manifest>(&opened.json),
        Ok(Versioned { format }) => {
            return Err(format!("{key} is of format {format}; this program reads format {FORMAT}"));
        }
        Err(error) => Err(error),
    };
    match manifest {
        Ok(manifest) if manifest_key(&manifest.label) == key => {
            Ok(Manifest { is_sealed: opened.is_sealed, ..manifest })
        }
        Ok(manifest) => Err(format!("{key} says it is the manifest of {}", manifest.label)),
        Err(error) => Err(format!("{key} cannot be read: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bucket() -> (tempfile::TempDir, Bucket) {
        let directory = tempfile::tempdir().unwrap();
        let bucket = Bucket::open(&format!("file://{}", directory.path().display()), "orders-cache").unwrap();
        (directory, bucket)
    }

    async fn put(bucket: &Bucket, label: &str, minute: u32, change: impl FnOnce(&mut Manifest)) {
        let object = format!("{FOLDER}/{label}/dump.rdb.zst");
        bucket.create(&object, "data").await.unwrap();
        let mut manifest = Manifest {
            format: FORMAT,
            label: label.to_owned(),
            at: format!("2026-11-21T09:{minute:02}:00Z").parse().unwrap(),
            source: Source { address: "c:1".into(), redis_version: "7.0.15".into(), method: "bgsave".into() },
            rdb: Survey { rdb_version: 10, keys: 5, ..Survey::default() },
            raw_bytes: 9,
            raw_digest: Digest::of(b"raw"),
            object,
            stored_bytes: 4,
            stored_digest: Digest::of(b"data"),
            is_sealed: false,
        };
        change(&mut manifest);
        bucket.create(&manifest_key(label), serde_json::to_vec(&manifest).unwrap()).await.unwrap();
    }

    #[tokio::test]
    async fn what_is_whole_is_listed_by_age_and_the_rest_is_told() {
        let (_directory, bucket) = bucket();
        put(&bucket, "b", 1, |_| {}).await;
        put(&bucket, "a", 2, |_| {}).await;
        put(&bucket, "cut", 3, |manifest| manifest.stored_bytes = 5).await;
        put(&bucket, "gone", 4, |manifest| manifest.object = "snapshots/gone/else".into()).await;
        put(&bucket, "newer", 5, |manifest| manifest.format = 2).await;
        put(&bucket, "moved", 6, |manifest| manifest.label = "a".into()).await;
        bucket.create("snapshots/under-way/dump.rdb.zst", "data").await.unwrap();
        bucket.create("snapshots/torn/manifest.json", "{\"format\": 1, ").await.unwrap();
        let (snapshots, warnings) = list(&bucket).await.unwrap();
        assert_eq!(snapshots.iter().map(|s| s.label.as_str()).collect::<Vec<_>>(), ["b", "a"]);
        assert_eq!((snapshots[0].keys, snapshots[0].stored_bytes), (5, 4));
        let told = ["cut/dump.rdb.zst has 4 bytes", "else is gone", "moved/manifest.json says it is the manifest of a"];
        let told = [&told[..], &["newer/manifest.json is of format 2", "torn/manifest.json cannot be read"]].concat();
        assert_eq!(warnings.len(), told.len(), "{warnings:#?}");
        for (warning, part) in warnings.iter().zip(told) {
            assert!(warning.contains(part), "{warning}");
        }
    }
}
