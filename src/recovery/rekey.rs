//! Encrypts anew, to the recipients that the inventory names now, what was encrypted to others or not at all.
//!
//! Nothing is half visible and nothing is lost on a kill. A backup's objects are written beside the old ones, then its
//! manifest is swapped in one write, then the old ones go; a WAL segment, which nothing names by its digest, is swapped
//! itself. What is encrypted to the right recipients already is left alone, so a run that was killed goes on where it was
//! when it is run again.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Mutex};

use futures::{AsyncReadExt as _, StreamExt as _, stream};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio_util::compat::TokioAsyncReadCompatExt as _;
use tokio_util::io::StreamReader;

use super::collect::bucket_of;
use super::proof::{Tested, stamp};
use crate::digest::{Digest, Hasher};
use crate::event::Failure;
use crate::inventory::Inventory;
use crate::store::{Bucket, Encryption, Slot, StoreError, is_sealed, made_for, manifest_made_for};
use crate::system::postgres::wal::{INDEXES, WalFile, repack};
use crate::system::{postgres, redis};

/// Read at once.
const CHUNK: usize = 256 << 10;

/// What was done to one system's backups.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize)]
pub struct Rekeyed {
    pub system: String,
    /// Of base backups, snapshots and append-only files.
    pub manifests: u64,
    pub segments: u64,
    /// Bytes as they were stored before.
    pub bytes: u64,
    /// Objects that were encrypted to the right recipients already.
    pub kept: u64,
}

/// A manifest that names objects.
trait Manifest: Serialize + DeserializeOwned + Clone + Send + Sync {
    fn slots(&mut self) -> Vec<Slot<'_>>;
    fn clear(&self) -> Self;
}

impl Manifest for postgres::Manifest {
    fn slots(&mut self) -> Vec<Slot<'_>> {
        Self::slots(self)
    }

    fn clear(&self) -> Self {
        self.clone()
    }
}

impl Manifest for redis::Manifest {
    fn slots(&mut self) -> Vec<Slot<'_>> {
        Self::slots(self)
    }

    fn clear(&self) -> Self {
        Self::clear(self)
    }
}

impl Manifest for redis::AofManifest {
    fn slots(&mut self) -> Vec<Slot<'_>> {
        Self::slots(self)
    }

    fn clear(&self) -> Self {
        Self::clear(self)
    }
}

/// Where an object's content is now.
#[derive(Clone)]
struct Moved {
    key: String,
    digest: Digest,
    bytes: u64,
}

/// Goes over everything of a system. `tell` gets a line for each backup.
pub async fn rekey(inventory: &Inventory, name: &str, tell: impl Fn(String)) -> Result<Rekeyed, Failure> {
    let refused = |why: &str| Failure::new(format!("the backups of {name} are not encrypted anew"), why);
    let system = inventory.systems.get(name).ok_or_else(|| refused("there is no such system in the inventory"))?;
    let bucket = bucket_of(inventory, system)?.open()?;
    let encryption = bucket.encryption();
    if !encryption.is_on() {
        return Err(
            refused("its store names no recipients").now("name them in the inventory: encrypt_to = [\"age1…\"]")
        );
    }
    let work = Work {
        made_for: encryption.recipients().iter().map(|to| to.short()).collect(),
        folder: format!("k-{}", fingerprint(encryption)),
        bucket: &bucket,
        done: Mutex::new(Rekeyed { system: name.to_owned(), ..Rekeyed::default() }),
        tell: &tell,
    };
    let failed = |error: StoreError| Failure::from(error).fails(refused("").what);
    for folder in folders(&bucket, "base").await.map_err(failed)? {
        work.group::<postgres::Manifest>(&folder).await?;
    }
    for folder in folders(&bucket, "snapshots").await.map_err(failed)? {
        work.group::<redis::Manifest>(&folder).await?;
    }
    for folder in folders(&bucket, "aof").await.map_err(failed)? {
        work.group::<redis::AofManifest>(&folder).await?;
    }
    work.wal().await?;
    Ok(work.done.into_inner().expect("nobody panics while counting"))
}

/// Of the recipients, for the names of folders.
fn fingerprint(encryption: &Encryption) -> String {
    let all: Vec<&str> = encryption.recipients().iter().map(|to| to.as_str()).collect();
    Digest::of(all.join(" ").as_bytes()).short()
}

/// Folders right below one: a backup or a lineage each.
async fn folders(bucket: &Bucket, within: &str) -> Result<BTreeSet<String>, StoreError> {
    let objects = bucket.list(within).await?;
    let folder = |key: &str| key.splitn(3, '/').take(2).collect::<Vec<_>>().join("/");
    Ok(objects.iter().filter(|object| object.key.matches('/').count() >= 2).map(|object| folder(&object.key)).collect())
}

struct Work<'a, T> {
    bucket: &'a Bucket,
    made_for: Vec<String>,
    /// Below a backup's own: where its objects for these recipients are.
    folder: String,
    done: Mutex<Rekeyed>,
    tell: &'a T,
}

impl<T: Fn(String)> Work<'_, T> {
    fn count(&self, add: impl FnOnce(&mut Rekeyed)) {
        add(&mut self.done.lock().expect("nobody panics while counting"));
    }

    fn is_right(&self, head: &[u8]) -> bool {
        is_sealed(head) && made_for(head) == self.made_for
    }

    /// The manifests of a folder, and the objects that they share.
    async fn group<M: Manifest>(&self, folder: &str) -> Result<(), Failure> {
        let mut moved: BTreeMap<String, Moved> = BTreeMap::new();
        let mut first = true;
        // Until a look finds nothing to do: somebody may have shipped meanwhile what names the old objects.
        loop {
            let keys: Vec<String> = self.manifests(folder).await?;
            let mut manifests = Vec::new();
            for key in keys {
                let stored = self.bucket.read(&key).await?;
                let opened = self.bucket.open_vouched(&key, stored.clone())?;
                let manifest: M = serde_json::from_slice(&opened.json)
                    .map_err(|error| Failure::new(format!("{key} cannot be read"), error))?;
                manifests.push((key, stored, manifest));
            }
            let ours = format!("{folder}/{}/", self.folder);
            for slot in manifests.iter_mut().flat_map(|(_, _, manifest)| manifest.slots()) {
                if let Some(name) = slot.key.strip_prefix(&ours) {
                    let there = Moved { key: slot.key.clone(), digest: *slot.digest, bytes: *slot.bytes };
                    moved.insert(name.to_owned(), there);
                }
            }
            let mut changed = false;
            for (key, stored, mut manifest) in manifests {
                let mut stale = manifest_made_for(&stored).as_ref() != Some(&self.made_for);
                for slot in manifest.slots() {
                    let name = slot.key.rsplit('/').next().unwrap_or_default().to_owned();
                    if slot.key.starts_with(&ours) || self.is_right(&self.head(slot.key).await?) {
                        self.count(|done| done.kept += u64::from(first));
                        continue;
                    }
                    let there = match moved.get(&name) {
                        Some(there) => there.clone(),
                        None => self.copy(&slot, format!("{ours}{name}")).await?,
                    };
                    (*slot.key, *slot.digest, *slot.bytes) = (there.key.clone(), there.digest, there.bytes);
                    moved.insert(name, there);
                    stale = true;
                }
                if stale {
                    let bytes = self.bucket.seal_manifest(&key, &manifest, &manifest.clear());
                    let bytes = bytes.map_err(|error| Failure::new(format!("{key} cannot be written"), error))?;
                    let (before, after) = (Digest::of(&stored), Digest::of(&bytes));
                    self.bucket.swap(&key, bytes).await?;
                    self.proofs(folder, before, after).await?;
                    self.count(|done| done.manifests += 1);
                    (self.tell)(format!("{key} is encrypted to {}", self.made_for.join(" and ")));
                    changed = true;
                }
            }
            first = false;
            if !changed {
                return Ok(self.sweep::<M>(folder, &moved).await?);
            }
        }
    }

    async fn manifests(&self, folder: &str) -> Result<Vec<String>, StoreError> {
        let objects = self.bucket.list(folder).await?;
        let is_manifest = |key: &str| match folder.starts_with("aof/") {
            true => key.ends_with(".json"),
            false => key == format!("{folder}/manifest.json"),
        };
        Ok(objects.into_iter().map(|object| object.key).filter(|key| is_manifest(key)).collect())
    }

    /// The beginning of an object, its header within.
    async fn head(&self, key: &str) -> Result<bytes::Bytes, StoreError> {
        self.bucket.range(key, 0..Encryption::HEAD as u64).await
    }

    /// Encrypts an object's content anew. It is whole and what its manifest says, or there is no copy.
    async fn copy(&self, slot: &Slot<'_>, to: String) -> Result<Moved, Failure> {
        let mut chunks = Box::pin(self.bucket.stream(slot.key).await?);
        let first = chunks.next().await.transpose()?.unwrap_or_default();
        let head = first.slice(..first.len().min(Encryption::HEAD));
        let seen = Arc::new(Mutex::new((Hasher::default(), 0)));
        let counted = Arc::clone(&seen);
        let chunks = stream::iter([Ok(first)]).chain(chunks).map(move |chunk| {
            let chunk = chunk.map_err(io::Error::other)?;
            let mut counted = counted.lock().expect("hashing does not panic");
            counted.0.update(&chunk);
            counted.1 += chunk.len() as u64;
            Ok::<_, io::Error>(chunk)
        });
        let opened = self.bucket.open_stream(slot.key, &head, StreamReader::new(chunks).compat()).await?;
        let mut opened = std::pin::pin!(opened);
        let mut upload = self.bucket.upload(&to).await?;
        let mut buffer = vec![0; CHUNK];
        loop {
            let n = opened.read(&mut buffer).await;
            match n.map_err(|error| Failure::new(format!("{} cannot be read", slot.key), error))? {
                0 => break,
                n => upload.write(&buffer[..n]).await?,
            }
        }
        let (found, bytes) = seen.lock().expect("hashing does not panic").clone();
        let found = found.finish();
        if (found, bytes) != (*slot.digest, *slot.bytes) {
            upload.abandon().await?;
            let (bucket, key, expected) = (self.bucket.name().to_owned(), slot.key.clone(), *slot.digest);
            return Err(StoreError::Digest { bucket, key, expected, found }.into());
        }
        let written = upload.finish().await?;
        self.count(|done| done.bytes += bytes);
        Ok(Moved { key: to, digest: written.digest, bytes: written.bytes })
    }

    /// Records of proofs name the manifest by its digest.
    async fn proofs(&self, folder: &str, before: Digest, after: Digest) -> Result<(), Failure> {
        for object in self.bucket.list(folder).await?.iter().filter(|object| stamp(&object.key).is_some()) {
            let opened = self.bucket.read_vouched(&object.key).await?;
            let Ok(mut tested) = serde_json::from_slice::<Tested>(&opened.json) else { continue };
            if tested.manifest == before {
                tested.manifest = after;
            }
            let bytes = self.bucket.seal_manifest(&object.key, &tested, &tested.clear());
            let bytes = bytes.map_err(|error| Failure::new(format!("{} cannot be written", object.key), error))?;
            self.bucket.swap(&object.key, bytes).await?;
        }
        Ok(())
    }

    /// Deletes what no manifest names any more because it was encrypted anew.
    async fn sweep<M: Manifest>(&self, folder: &str, moved: &BTreeMap<String, Moved>) -> Result<(), StoreError> {
        let ours = format!("{folder}/{}/", self.folder);
        for object in self.bucket.list(folder).await? {
            let name = object.key.rsplit('/').next().unwrap_or_default();
            if !object.key.starts_with(&ours) && moved.contains_key(name) {
                self.bucket.delete(&object.key).await?;
            }
        }
        Ok(())
    }

    async fn wal(&self) -> Result<(), Failure> {
        for object in self.bucket.list("wal").await? {
            let name = object.key.rsplit('/').next().unwrap_or_default();
            let file = WalFile::parse(name.strip_suffix(".zst").unwrap_or(name)).filter(WalFile::is_wal);
            let Some(file) = file else { continue };
            if self.is_right(&self.head(&object.key).await?) {
                self.count(|done| done.kept += 1);
                continue;
            }
            let stored = self.bucket.read(&object.key).await?;
            let anew = repack(self.bucket, &file, stored)
                .map_err(|error| Failure::new(format!("{} is not encrypted anew", object.key), error))?;
            self.bucket.swap(&object.key, anew).await?;
            self.count(|done| (done.segments, done.bytes) = (done.segments + 1, done.bytes + object.size));
        }
        // They are made anew by the next look.
        for object in self.bucket.list(INDEXES).await? {
            if !self.is_right(&self.head(&object.key).await?) {
                self.bucket.delete(&object.key).await?;
            }
        }
        Ok(())
    }
}
