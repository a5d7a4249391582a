//! Manifests of encrypted backups: readable without a key, and bound to what they say.
//!
//! ```json
//! {
//!   "format": 1,
//!   …                                what may be told in the clear
//!   "sealed": "YWdlLWVuY3J5cHRpb24…" the whole manifest, encrypted, with the digest of the bytes before this line
//! }
//! ```
//! With an identity the sealed one counts, and one whose clear part was changed is refused. Without, the clear part tells of
//! ages and digests of what is stored, and nobody vouches for it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::seal::{Unreadable, made_for};
use super::{Bucket, StoreError};
use crate::digest::Digest;

/// What stands before the sealed part, in place of the clear part's last brace.
const SEAM: &[u8] = b",\n  \"sealed\": \"";
const END: &[u8] = b"\"\n}";

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Sealed {
    /// Where it stands: a manifest is not to pass for another's.
    key: String,
    /// Of the bytes before [`SEAM`].
    clear: Digest,
    manifest: serde_json::Value,
}

/// Where a manifest names an object.
pub struct Slot<'a> {
    pub key: &'a mut String,
    /// Of the bytes as they are stored.
    pub digest: &'a mut Digest,
    pub bytes: &'a mut u64,
}

/// A manifest that was read.
#[derive(Debug, Clone)]
pub struct ManifestRead {
    pub json: Bytes,
    /// It is of an encrypted backup.
    pub is_sealed: bool,
    /// Why its sealed part was not read: then [`ManifestRead::json`] is the clear part, and nobody vouches for it.
    pub unread: Option<Unreadable>,
}

impl Bucket {
    /// The bytes of a manifest at `key`. Where the bucket is encrypted `clear` is what everybody may read of it.
    pub fn seal_manifest<T: Serialize>(&self, key: &str, whole: &T, clear: &T) -> serde_json::Result<Vec<u8>> {
        if !self.encryption().is_on() {
            return serde_json::to_vec_pretty(whole);
        }
        let mut bytes = serde_json::to_vec_pretty(clear)?;
        // Its last brace, on a line of its own, comes after the sealed part.
        bytes.truncate(bytes.len() - 2);
        let manifest = serde_json::to_value(whole)?;
        let sealed = Sealed { key: key.to_owned(), clear: Digest::of(&bytes), manifest };
        let sealed = self.encryption().seal(serde_json::to_vec(&sealed)?, None);
        bytes.extend_from_slice(SEAM);
        bytes.extend_from_slice(BASE64.encode(sealed).as_bytes());
        bytes.extend_from_slice(END);
        Ok(bytes)
    }

    /// A manifest as [`Bucket::seal_manifest`] wrote it, or as one in the clear. An error when it is not what was written.
    pub fn open_manifest(&self, key: &str, stored: Bytes) -> Result<ManifestRead, StoreError> {
        let changed = |what: &str| Unreadable::Damaged(what.to_owned()).of(self.name(), key);
        let Some((clear, sealed)) = split(&stored) else {
            let json = self.open_sealed(key, stored)?;
            return Ok(ManifestRead { json, is_sealed: false, unread: None });
        };
        let sealed = BASE64.decode(sealed).map_err(|_| changed("its sealed part is no base64"))?;
        let opened = match self.encryption().open(sealed.into()) {
            Ok(opened) => opened,
            Err(why @ (Unreadable::Damaged(_) | Unreadable::Clear)) => return Err(why.of(self.name(), key)),
            Err(why) => {
                let json = [clear, b"\n}"].concat().into();
                return Ok(ManifestRead { json, is_sealed: true, unread: Some(why) });
            }
        };
        let opened: Sealed =
            serde_json::from_slice(&opened).map_err(|_| changed("its sealed part is of another kind"))?;
        if opened.key != key {
            return Err(changed(&format!("it was written as {}", opened.key)));
        }
        if opened.clear != Digest::of(clear) {
            return Err(changed("what it says in the clear is not what was written"));
        }
        let json = opened.manifest.to_string().into();
        Ok(ManifestRead { json, is_sealed: true, unread: None })
    }

    /// The same for who relies on it.
    pub fn open_vouched(&self, key: &str, stored: Bytes) -> Result<ManifestRead, StoreError> {
        let opened = self.open_manifest(key, stored)?;
        match opened.unread {
            Some(why) => Err(why.of(self.name(), key)),
            None => Ok(opened),
        }
    }

    /// The manifest at `key`, for who relies on it.
    pub async fn read_vouched(&self, key: &str) -> Result<ManifestRead, StoreError> {
        self.open_vouched(key, self.read(key).await?)
    }

    /// The manifest at `key`.
    pub async fn read_manifest(&self, key: &str) -> Result<ManifestRead, StoreError> {
        self.open_manifest(key, self.read(key).await?)
    }
}

/// How the public keys begin that a manifest's sealed part was encrypted to; `None` when it has none.
pub fn manifest_made_for(stored: &[u8]) -> Option<Vec<String>> {
    let (_, sealed) = split(stored)?;
    BASE64.decode(sealed).ok().map(|sealed| made_for(&sealed))
}

/// The clear part without its last brace, and the sealed part; `None` when there is none.
fn split(stored: &[u8]) -> Option<(&[u8], &[u8])> {
    let before = stored.strip_suffix(END)?;
    let at = before.windows(SEAM.len()).rposition(|window| window == SEAM)?;
    Some((&before[..at], &before[at + SEAM.len()..]))
}
