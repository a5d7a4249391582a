//! A bucket by URL through `object_store`: create-only writes, digests on read.
//!
//! Keys of objects are relative to the bucket's root and use `/`. What may stand in a URL is
//! [`crate::inventory::StoreUrl`]'s to say.

mod azure;
mod azure_settings;
mod cloud;
mod error;
mod google;
mod google_settings;
mod keys;
mod lease;
mod local;
mod manifest;
mod protection;
mod s3;
mod s3_settings;
mod seal;
#[cfg(test)]
mod tests;

use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use chrono::{DateTime, TimeDelta, Utc};
use futures::{AsyncRead, StreamExt, TryStreamExt};
use object_store::aws::AwsCredentialProvider;
use object_store::azure::AzureCredentialProvider;
use object_store::gcp::GcpCredentialProvider;
use object_store::local::LocalFileSystem;
use object_store::path::Path as Key;
use object_store::prefix::PrefixStore;
use object_store::{
    GetOptions, GetRange, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload, WriteMultipart,
};

use crate::digest::{Digest, Hasher};
use crate::inventory::{Cloud, StoreUrl};
use crate::mutant;

use cloud::Opened;

pub use error::{StoreError, Trouble};
pub use keys::{AzureKey, Given, GoogleKey, Keys, Pair};
pub use lease::{Held, Lease, LeaseError, Terms};
pub use manifest::{ManifestRead, Slot, manifest_made_for};
pub use protection::{Elsewhere, Exposure, Kept, Lock, Newest, Protection, ProviderEncryption, Rights, Rule, Seen};
use seal::Sealer;
pub use seal::{Encryption, Unreadable, is_of, is_sealed, made_for};

/// Bytes that are asked for at once of an object that is streamed: a request has an end before which it must be done.
const RANGE: u64 = 8 << 20;

/// Bytes of a part of an upload. S3 takes 10,000 of them: 80 GiB.
const PART: usize = 8 << 20;

/// An object as listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    pub key: String,
    /// Bytes.
    pub size: u64,
    /// Not after this moment: S3 tells whole seconds.
    pub modified: DateTime<Utc>,
}

/// What a streaming write left in the bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    pub key: String,
    pub bytes: u64,
    pub digest: Digest,
}

#[derive(Clone)]
pub struct Bucket {
    store: Arc<dyn ObjectStore>,
    name: String,
    url: String,
    /// On this machine.
    directory: Option<Arc<Directory>>,
    /// Behind a network.
    cloud: Option<Cloud>,
    opener: Option<Opener>,
    /// Before it is told to create, the server is asked what is there: there are some that overwrite though told not to.
    looks_first: bool,
    /// By how much a time of modification may have been cut.
    grain: TimeDelta,
    encryption: Encryption,
}

/// A directory that holds a bucket.
struct Directory {
    path: PathBuf,
    /// Device and inode say whether it still is the one that was opened.
    opened: (u64, u64),
    /// The bucket's in it; empty for all of it.
    folder: String,
}

/// Where the keys of a bucket come from, for those that they are handed on to.
#[derive(Clone)]
enum Opener {
    S3(AwsCredentialProvider),
    /// Also the key, when it is one that lasts.
    Azure(AzureCredentialProvider, Option<AzureKey>),
    Google(GcpCredentialProvider, Option<GoogleKey>),
}

impl std::fmt::Debug for Bucket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Bucket({})", self.name)
    }
}

impl Bucket {
    /// Opens the folder `prefix` of the bucket at `url`. A local directory must exist; a server is not asked yet.
    pub fn open(url: &str, prefix: &str) -> Result<Self, StoreError> {
        Self::open_with(url, prefix, &Keys::Usual)
    }

    /// As [`Bucket::open`], with these keys.
    pub fn open_with(url: &str, prefix: &str, keys: &Keys) -> Result<Self, StoreError> {
        match StoreUrl::parse(url)? {
            StoreUrl::Directory(directory) => Self::directory(url, &directory, prefix),
            StoreUrl::Bucket(found) => match found.cloud {
                Cloud::S3 => {
                    let opened = s3::open(found, keys)?;
                    let opener = Opener::S3(Arc::clone(opened.store.credentials()));
                    Ok(Self::remote(opened, opener, prefix))
                }
                Cloud::Azure => {
                    let (opened, key) = azure::open(found, keys)?;
                    let provider = Arc::clone(opened.store.credentials());
                    Ok(Self::remote(opened, Opener::Azure(provider, key), prefix))
                }
                Cloud::Google => {
                    let (opened, key) = google::open(found, keys)?;
                    let provider = Arc::clone(opened.store.credentials());
                    Ok(Self::remote(opened, Opener::Google(provider, key), prefix))
                }
            },
        }
    }

    fn remote(opened: Opened<impl ObjectStore>, opener: Opener, prefix: &str) -> Self {
        let Opened { store, url } = opened;
        let folder = [url.prefix.as_str(), prefix].into_iter().filter(|part| !part.is_empty());
        let folder = folder.collect::<Vec<_>>().join("/");
        // Ceph's RGW 16 overlooks the condition where a bucket keeps versions; Amazon does not.
        let looks_first = url.cloud == Cloud::S3 && url.endpoint.is_some() && !mutant::removes("15b");
        Self {
            store: within(store, &folder),
            name: format!("{}://{}/{folder}", url.cloud.scheme(), url.bucket),
            url: url.to_string(),
            directory: None,
            cloud: Some(url.cloud),
            opener: Some(opener),
            looks_first,
            grain: TimeDelta::milliseconds(999),
            encryption: Encryption::default(),
        }
    }

    fn directory(url: &str, directory: &Path, prefix: &str) -> Result<Self, StoreError> {
        let bad = |why: String| StoreError::Url { url: url.to_owned(), why };
        if !directory.is_absolute() {
            return Err(bad("the directory must be absolute".to_owned()));
        }
        let opened = identity(directory).map_err(|error| bad(error.to_string()))?;
        let store =
            LocalFileSystem::new_with_prefix(directory).map_err(|error| bad(error.to_string()))?.with_fsync(true);
        let name = match prefix {
            "" => url.to_owned(),
            prefix => format!("{}/{prefix}", url.trim_end_matches('/')),
        };
        let directory = Some(Arc::new(Directory { path: directory.to_owned(), opened, folder: prefix.to_owned() }));
        let (store, url) = (within(store, prefix), url.to_owned());
        let (grain, encryption) = (TimeDelta::zero(), Encryption::default());
        Ok(Self { store, name, url, directory, cloud: None, opener: None, looks_first: false, grain, encryption })
    }

    /// The same bucket; what is sealed and opened from here on is for these.
    pub fn encrypted(mut self, encryption: Encryption) -> Self {
        self.encryption = encryption;
        self
    }

    pub fn encryption(&self) -> &Encryption {
        &self.encryption
    }

    /// Before anything is written: the store would make a directory that is missing, and what is written below a mount
    /// point whose bucket went away is found by nobody.
    fn is_still_there(&self) -> Result<(), StoreError> {
        let Some(directory) = &self.directory else { return Ok(()) };
        let why = match identity(&directory.path) {
            Ok(found) if found == directory.opened => return Ok(()),
            Ok(_) => "another directory is in its place".to_owned(),
            Err(error) => error.to_string(),
        };
        Err(StoreError::Gone { bucket: self.name.clone(), why })
    }

    /// Where it was found: the URL that it was opened by, with what the environment added. No secret is in it.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The keys that open it, for a program of another user or environment; `None` for a directory.
    pub async fn keys(&self) -> Result<Option<Given>, StoreError> {
        let Some(opener) = &self.opener else { return Ok(None) };
        let keys = match opener {
            Opener::S3(provider) => s3::keys(provider).await,
            Opener::Azure(_, Some(key)) => Ok(Given::Azure(key.clone())),
            Opener::Azure(provider, None) => azure::token(provider).await,
            Opener::Google(_, Some(key)) => Ok(Given::Google(key.clone())),
            Opener::Google(provider, None) => google::token(provider).await,
        };
        keys.map(Some).map_err(|source| self.error("getting the keys for", "it", source))
    }

    /// Behind a network, and opened with keys.
    pub fn is_remote(&self) -> bool {
        self.cloud.is_some()
    }

    /// The folder that the store's URL names, as the provider's own settings count it; empty for all of the bucket.
    pub fn prefix(&self) -> String {
        match StoreUrl::parse(&self.url) {
            Ok(StoreUrl::Bucket(url)) => url.prefix,
            _ => String::new(),
        }
    }

    /// For messages: the URL with the prefix.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Writes an object that must not exist yet; it appears whole or not at all.
    pub async fn create(&self, key: &str, bytes: impl Into<Bytes>) -> Result<(), StoreError> {
        self.create_payload(key, bytes.into().into()).await
    }

    /// As [`Bucket::create`], of pieces, one after the other. Into a directory they are written as they come, on this thread.
    /// The outer error is that of a piece which could not be had.
    pub async fn create_from<E>(
        &self,
        key: &str,
        pieces: impl Iterator<Item = Result<Bytes, E>>,
    ) -> Result<Result<(), StoreError>, E> {
        let Some(path) = self.path(key) else {
            let payload = pieces.collect::<Result<PutPayload, E>>()?;
            return Ok(self.create_payload(key, payload).await);
        };
        if let Err(gone) = self.is_still_there() {
            return Ok(Err(gone));
        }
        let created = local::create(&path, pieces)?;
        Ok(created.map_err(|source| {
            let (bucket, key) = (self.name.clone(), key.to_owned());
            match source.kind() {
                io::ErrorKind::AlreadyExists => StoreError::Exists { bucket, key },
                _ => self.error(
                    "writing",
                    &key,
                    object_store::Error::Generic { store: "directory", source: source.into() },
                ),
            }
        }))
    }

    /// Of an object in a directory, as the store names it.
    fn path(&self, key: &str) -> Option<PathBuf> {
        let directory = self.directory.as_ref()?;
        Some(directory.path.join(Key::from(directory.folder.as_str()).as_ref()).join(Key::from(key).as_ref()))
    }

    async fn create_payload(&self, key: &str, payload: PutPayload) -> Result<(), StoreError> {
        if self.looks_first {
            match self.store.head(&Key::from(key)).await.map_err(|source| self.error("writing", key, source)) {
                Ok(_) => return Err(StoreError::Exists { bucket: self.name.clone(), key: key.to_owned() }),
                Err(error) if error.is_of_the_network() => return Err(error),
                // It may not be for these keys to know, and an answer without a body says little: the write will tell.
                Err(_) => {}
            }
        }
        self.put_new(key, payload).await
    }

    /// The same, decided by the server alone.
    async fn put_new(&self, key: &str, payload: PutPayload) -> Result<(), StoreError> {
        self.is_still_there()?;
        let mode = if mutant::removes("15b") { PutMode::Overwrite } else { PutMode::Create };
        let options = PutOptions { mode, ..PutOptions::default() };
        self.store
            .put_opts(&Key::from(key), payload, options)
            .await
            .map(|_| ())
            .map_err(|source| self.error("writing", key, source))
    }

    /// As [`Bucket::create`], of an object that nobody else would write: one that is there with the same content was written
    /// by an earlier try whose answer was lost.
    pub async fn settle(&self, key: &str, bytes: impl Into<Bytes>) -> Result<(), StoreError> {
        let bytes = bytes.into();
        match self.create(key, bytes.clone()).await {
            Err(StoreError::Exists { .. }) if self.read(key).await? == bytes => Ok(()),
            result => result,
        }
    }

    /// Puts other bytes in an object's place, in one write: whoever reads gets the one or the other. The object says the same
    /// as before; only to whom has changed.
    pub async fn swap(&self, key: &str, bytes: impl Into<Bytes>) -> Result<(), StoreError> {
        self.is_still_there()?;
        let written = self.store.put(&Key::from(key), PutPayload::from(bytes.into())).await;
        written.map(|_| ()).map_err(|source| self.error("writing", key, source))
    }

    /// The whole object.
    pub async fn read(&self, key: &str) -> Result<Bytes, StoreError> {
        let result = self.store.get(&Key::from(key)).await.map_err(|source| self.error("reading", key, source))?;
        result.bytes().await.map_err(|source| self.error("reading", key, source))
    }

    /// What [`Encryption::seal`] made of the object's content.
    pub fn open_sealed(&self, key: &str, stored: Bytes) -> Result<Bytes, StoreError> {
        self.encryption.open(stored).map_err(|why| why.of(&self.name, key))
    }

    /// The whole object, decrypted if it is encrypted.
    pub async fn read_sealed(&self, key: &str) -> Result<Bytes, StoreError> {
        self.open_sealed(key, self.read(key).await?)
    }

    /// The same of what comes one after another; `head` are the first bytes of it, [`Encryption::HEAD`] of them when there are
    /// as many.
    pub async fn open_stream<R: AsyncRead + Unpin>(
        &self,
        key: &str,
        head: &[u8],
        stored: R,
    ) -> Result<impl AsyncRead + use<R>, StoreError> {
        self.encryption.open_async(head, stored).await.map_err(|why| why.of(&self.name, key))
    }

    /// The whole object, refused when it is not what was stored.
    pub async fn read_verified(&self, key: &str, expected: Digest) -> Result<Bytes, StoreError> {
        let bytes = self.read(key).await?;
        let found = Digest::of(&bytes);
        if found != expected {
            return Err(StoreError::Digest { bucket: self.name.clone(), key: key.to_owned(), expected, found });
        }
        Ok(bytes)
    }

    /// Bytes `range` of the object; fewer when it ends before.
    pub async fn range(&self, key: &str, range: std::ops::Range<u64>) -> Result<Bytes, StoreError> {
        self.store.get_range(&Key::from(key), range).await.map_err(|source| self.error("reading", key, source))
    }

    /// The object in chunks, all of one version.
    pub async fn stream(
        &self,
        key: &str,
    ) -> Result<impl futures::Stream<Item = Result<Bytes, StoreError>> + Send + use<>, StoreError> {
        let path = Key::from(key);
        let meta = self.store.head(&path).await.map_err(|source| self.error("reading", key, source))?;
        let starts = (0..meta.size).step_by(RANGE as usize);
        let (bucket, key) = (self.clone(), key.to_owned());
        let ranges = futures::stream::iter(starts).map(move |start| {
            let options = GetOptions {
                range: Some(GetRange::Bounded(start..(start + RANGE).min(meta.size))),
                if_match: meta.e_tag.clone().filter(|_| !mutant::removes("15c")),
                ..GetOptions::default()
            };
            let (bucket, path, key) = (bucket.clone(), path.clone(), key.clone());
            async move {
                let read = async { bucket.store.get_opts(&path, options).await?.bytes().await };
                read.await.map_err(|source| bucket.error("reading", &key, source))
            }
        });
        Ok(ranges.buffered(2))
    }

    /// When it was written, not after this moment; `None` when it is definitely not there.
    pub async fn modified(&self, key: &str) -> Result<Option<DateTime<Utc>>, StoreError> {
        match self.store.head(&Key::from(key)).await {
            Ok(meta) => Ok(Some(meta.last_modified + self.grain)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(source) => Err(self.error("looking for", key, source)),
        }
    }

    pub async fn exists(&self, key: &str) -> Result<bool, StoreError> {
        Ok(self.modified(key).await?.is_some())
    }

    /// Every object below a folder (`""` for all), by key.
    pub async fn list(&self, folder: &str) -> Result<Vec<Object>, StoreError> {
        let prefix = (!folder.is_empty()).then(|| Key::from(folder));
        let mut objects: Vec<Object> = self
            .store
            .list(prefix.as_ref())
            .map_ok(|meta| Object {
                key: meta.location.to_string(),
                size: meta.size,
                modified: meta.last_modified + self.grain,
            })
            .try_collect()
            .await
            .map_err(|source| self.error("listing", folder, source))?;
        objects.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(objects)
    }

    pub async fn delete(&self, key: &str) -> Result<(), StoreError> {
        self.store.delete(&Key::from(key)).await.map_err(|source| self.error("deleting", key, source))
    }

    /// Begins a streaming write, encrypted where the bucket is; nothing appears under `key` before [`Upload::finish`].
    pub async fn upload(&self, key: &str) -> Result<Upload, StoreError> {
        self.is_still_there()?;
        let upload =
            self.store.put_multipart(&Key::from(key)).await.map_err(|source| self.error("writing", key, source))?;
        Ok(Upload {
            bucket: self.clone(),
            key: key.to_owned(),
            writer: Some(WriteMultipart::new_with_chunk_size(upload, PART)),
            sealer: self.encryption.sealer(),
            hasher: Hasher::default(),
            bytes: 0,
        })
    }

    fn error(&self, operation: &'static str, key: &str, source: object_store::Error) -> StoreError {
        let (bucket, key) = (self.name.clone(), key.to_owned());
        if let Some(cloud) = self.cloud {
            return StoreError::cloud(cloud, operation, bucket, key, &source);
        }
        match source {
            object_store::Error::NotFound { .. } => StoreError::NotFound { bucket, key },
            object_store::Error::AlreadyExists { .. } => StoreError::Exists { bucket, key },
            source => StoreError::Io { operation, bucket, key, source: Box::new(source) },
        }
    }
}

/// The folder of a store; `""` is all of it.
fn within(store: impl ObjectStore, folder: &str) -> Arc<dyn ObjectStore> {
    match folder {
        "" => Arc::new(store),
        folder => Arc::new(PrefixStore::new(store, folder)),
    }
}

/// A streaming write that is encrypted and hashed on its way. Dropped before its end, it leaves nothing.
pub struct Upload {
    bucket: Bucket,
    key: String,
    /// Until the end.
    writer: Option<WriteMultipart>,
    sealer: Option<Sealer>,
    hasher: Hasher,
    bytes: u64,
}

impl Upload {
    /// Takes a chunk; waits while too many parts are in flight.
    pub async fn write(&mut self, chunk: &[u8]) -> Result<(), StoreError> {
        match self.sealer.as_mut().map(|sealer| sealer.write(chunk)) {
            Some(sealed) => self.put(&sealed).await,
            None => self.put(chunk).await,
        }
    }

    async fn put(&mut self, chunk: &[u8]) -> Result<(), StoreError> {
        let Some(writer) = &mut self.writer else { return Ok(()) };
        writer.wait_for_capacity(4).await.map_err(|source| self.bucket.error("writing", &self.key, source))?;
        self.hasher.update(chunk);
        self.bytes += chunk.len() as u64;
        writer.write(chunk);
        Ok(())
    }

    /// The object appears under its key.
    pub async fn finish(mut self) -> Result<Written, StoreError> {
        if let Some(sealer) = self.sealer.take() {
            self.put(&sealer.finish()).await?;
        }
        if let Some(writer) = self.writer.take() {
            writer.finish().await.map_err(|source| self.bucket.error("writing", &self.key, source))?;
        }
        let hasher = std::mem::take(&mut self.hasher);
        Ok(Written { key: std::mem::take(&mut self.key), bytes: self.bytes, digest: hasher.finish() })
    }

    /// Nothing appears.
    pub async fn abandon(mut self) -> Result<(), StoreError> {
        match self.writer.take() {
            Some(writer) => writer.abort().await.map_err(|source| self.bucket.error("abandoning", &self.key, source)),
            None => Ok(()),
        }
    }
}

impl Drop for Upload {
    /// Parts that were uploaded would be stored, and paid for, for ever, and no listing shows them.
    fn drop(&mut self) {
        if let (Some(writer), Ok(runtime)) = (self.writer.take(), tokio::runtime::Handle::try_current()) {
            runtime.spawn(async move {
                if let Err(error) = writer.abort().await {
                    tracing::warn!(%error, "the parts of an upload that was not finished stay in the bucket");
                }
            });
        }
    }
}

/// Device and inode.
fn identity(directory: &Path) -> std::io::Result<(u64, u64)> {
    std::fs::metadata(directory).map(|found| (found.dev(), found.ino()))
}
