//! A bucket by URL through `object_store`: create-only writes, digests on read.
//!
//! Keys are relative to the bucket's root and use `/`. Only `file:` URLs are compiled in so far; the cloud schemes are
//! refused with a message that says so.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures::{StreamExt, TryStreamExt};
use object_store::local::LocalFileSystem;
use object_store::path::Path as Key;
use object_store::prefix::PrefixStore;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload, WriteMultipart};

use crate::digest::{Digest, Hasher};

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("`{url}` is no bucket that Lifeboat can open: {why}")]
    Url { url: String, why: String },
    #[error("{key} is not in {bucket}")]
    NotFound { bucket: String, key: String },
    #[error("{key} already exists in {bucket}, and objects are never overwritten")]
    Exists { bucket: String, key: String },
    #[error("{key} in {bucket} is not what was stored: expected SHA-256 {expected}, found {found}")]
    Digest { bucket: String, key: String, expected: Digest, found: Digest },
    #[error("{operation} {key} in {bucket} failed: {source}")]
    Io { operation: &'static str, bucket: String, key: String, source: Box<object_store::Error> },
}

impl StoreError {
    /// A definite "not there", as against everything that may pass.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::NotFound { .. })
    }
}

/// An object as listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    pub key: String,
    /// Bytes.
    pub size: u64,
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
}

impl std::fmt::Debug for Bucket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Bucket({})", self.name)
    }
}

impl Bucket {
    /// Opens the folder `prefix` of the bucket at `url`. A local directory must exist.
    pub fn open(url: &str, prefix: &str) -> Result<Self, StoreError> {
        let bad = |why: &str| StoreError::Url { url: url.to_owned(), why: why.to_owned() };
        let directory = match url.split_once(':') {
            Some(("file", rest)) => rest.strip_prefix("//").unwrap_or(rest),
            Some((scheme, _)) => return Err(bad(&format!("`{scheme}:` is not supported; `file:` is"))),
            None => return Err(bad("it has no scheme; write file:///directory")),
        };
        if !Path::new(directory).is_absolute() {
            return Err(bad("the directory must be absolute"));
        }
        let store =
            LocalFileSystem::new_with_prefix(directory).map_err(|error| bad(&error.to_string()))?.with_fsync(true);
        let (name, store): (String, Arc<dyn ObjectStore>) = match prefix {
            "" => (url.to_owned(), Arc::new(store)),
            prefix => (format!("{}/{prefix}", url.trim_end_matches('/')), Arc::new(PrefixStore::new(store, prefix))),
        };
        Ok(Self { store, name })
    }

    /// For messages: the URL with the prefix.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Writes an object that must not exist yet; it appears whole or not at all.
    pub async fn create(&self, key: &str, bytes: impl Into<Bytes>) -> Result<(), StoreError> {
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        self.store
            .put_opts(&Key::from(key), PutPayload::from(bytes.into()), options)
            .await
            .map(|_| ())
            .map_err(|source| self.error("writing", key, source))
    }

    /// The whole object.
    pub async fn read(&self, key: &str) -> Result<Bytes, StoreError> {
        let result = self.store.get(&Key::from(key)).await.map_err(|source| self.error("reading", key, source))?;
        result.bytes().await.map_err(|source| self.error("reading", key, source))
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

    /// The object in chunks.
    pub async fn stream(
        &self,
        key: &str,
    ) -> Result<impl futures::Stream<Item = Result<Bytes, StoreError>> + Send + use<>, StoreError> {
        let result = self.store.get(&Key::from(key)).await.map_err(|source| self.error("reading", key, source))?;
        let (bucket, key) = (self.clone(), key.to_owned());
        Ok(result.into_stream().map(move |chunk| chunk.map_err(|source| bucket.error("reading", &key, source))))
    }

    pub async fn exists(&self, key: &str) -> Result<bool, StoreError> {
        match self.store.head(&Key::from(key)).await {
            Ok(_) => Ok(true),
            Err(object_store::Error::NotFound { .. }) => Ok(false),
            Err(source) => Err(self.error("looking for", key, source)),
        }
    }

    /// Every object below a folder (`""` for all), by key.
    pub async fn list(&self, folder: &str) -> Result<Vec<Object>, StoreError> {
        let prefix = (!folder.is_empty()).then(|| Key::from(folder));
        let mut objects: Vec<Object> = self
            .store
            .list(prefix.as_ref())
            .map_ok(|meta| Object { key: meta.location.to_string(), size: meta.size, modified: meta.last_modified })
            .try_collect()
            .await
            .map_err(|source| self.error("listing", folder, source))?;
        objects.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(objects)
    }

    pub async fn delete(&self, key: &str) -> Result<(), StoreError> {
        self.store.delete(&Key::from(key)).await.map_err(|source| self.error("deleting", key, source))
    }

    /// Begins a streaming write; nothing appears under `key` before [`Upload::finish`].
    pub async fn upload(&self, key: &str) -> Result<Upload, StoreError> {
        let upload =
            self.store.put_multipart(&Key::from(key)).await.map_err(|source| self.error("writing", key, source))?;
        Ok(Upload {
            bucket: self.clone(),
            key: key.to_owned(),
            writer: WriteMultipart::new(upload),
            hasher: Hasher::default(),
            bytes: 0,
        })
    }

    fn error(&self, operation: &'static str, key: &str, source: object_store::Error) -> StoreError {
        let (bucket, key) = (self.name.clone(), key.to_owned());
        match source {
            object_store::Error::NotFound { .. } => StoreError::NotFound { bucket, key },
            object_store::Error::AlreadyExists { .. } => StoreError::Exists { bucket, key },
            source => StoreError::Io { operation, bucket, key, source: Box::new(source) },
        }
    }
}

/// A streaming write that is hashed on its way.
pub struct Upload {
    bucket: Bucket,
    key: String,
    writer: WriteMultipart,
    hasher: Hasher,
    bytes: u64,
}

impl Upload {
    /// Takes a chunk; waits while too many parts are in flight.
    pub async fn write(&mut self, chunk: &[u8]) -> Result<(), StoreError> {
        self.writer.wait_for_capacity(4).await.map_err(|source| self.bucket.error("writing", &self.key, source))?;
        self.hasher.update(chunk);
        self.bytes += chunk.len() as u64;
        self.writer.write(chunk);
        Ok(())
    }

    /// The object appears under its key.
    pub async fn finish(self) -> Result<Written, StoreError> {
        let Self { bucket, key, writer, hasher, bytes } = self;
        writer.finish().await.map_err(|source| bucket.error("writing", &key, source))?;
        Ok(Written { key, bytes, digest: hasher.finish() })
    }

    /// Nothing appears.
    pub async fn abandon(self) -> Result<(), StoreError> {
        let Self { bucket, key, writer, .. } = self;
        writer.abort().await.map_err(|source| bucket.error("abandoning", &key, source))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bucket() -> (tempfile::TempDir, Bucket) {
        let directory = tempfile::tempdir().unwrap();
        let bucket = Bucket::open(&format!("file://{}", directory.path().display()), "orders-db").unwrap();
        (directory, bucket)
    }

    #[tokio::test]
    async fn an_object_is_never_overwritten() {
        let (_directory, bucket) = bucket();
        bucket.create("wal/1", "one").await.unwrap();
        let error = bucket.create("wal/1", "two").await.unwrap_err();
        assert!(matches!(error, StoreError::Exists { .. }), "{error}");
        assert_eq!(bucket.read("wal/1").await.unwrap(), "one");
    }

    #[tokio::test]
    async fn an_upload_appears_whole_or_not_at_all() {
        let (_directory, bucket) = bucket();
        let mut upload = bucket.upload("base/a").await.unwrap();
        for _ in 0..3 {
            upload.write(&vec![7; 5 << 20]).await.unwrap();
        }
        assert!(!bucket.exists("base/a").await.unwrap());
        let written = upload.finish().await.unwrap();
        assert_eq!(written.bytes, 15 << 20);
        assert_eq!(bucket.read_verified("base/a", written.digest).await.unwrap().len(), 15 << 20);
        assert_eq!(bucket.list("base").await.unwrap()[0].size, 15 << 20);
        let mut upload = bucket.upload("base/b").await.unwrap();
        upload.write(b"half").await.unwrap();
        upload.abandon().await.unwrap();
        assert!(!bucket.exists("base/b").await.unwrap());
    }

    #[tokio::test]
    async fn what_is_not_there_is_told_from_what_may_pass() {
        let (_directory, bucket) = bucket();
        assert!(bucket.read("nothing").await.unwrap_err().is_not_found());
        let error = Bucket::open("s3://acme/orders", "").unwrap_err();
        assert!(error.to_string().contains("`s3:` is not supported"), "{error}");
    }
}
