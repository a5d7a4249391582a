//! What the bucket holds of append-only files: `aof/<lineage>/<moment>.json` names the objects that make up base and
//! incremental files as they were at that moment. A lineage is one base file; a later manifest of it has the objects of
//! the earlier ones and those of what came since.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::layout::Kind;
use crate::digest::Digest;
use crate::event::{AofRange, Basis};
use crate::store::{Bucket, ManifestRead, Object, Slot, StoreError};
use crate::system::redis::catalogue::Source;
use crate::system::redis::rdb::Survey;

/// The manifest's version.
pub const FORMAT: u32 = 1;

pub const FOLDER: &str = "aof";

/// One shipment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AofManifest {
    pub format: u32,
    /// `<lineage>/<moment>`.
    pub label: String,
    pub source: Source,
    /// The first moment that it can be cut to: writes of the second before are whole.
    pub from: DateTime<Utc>,
    /// The second of the newest `#TS:` annotation, or of the base when there is none.
    pub to: DateTime<Utc>,
    /// By the server's clock: nothing acknowledged before is missing. Absent when no server was there to tell.
    pub until: Option<DateTime<Utc>>,
    /// What the base holds.
    pub base: Survey,
    /// Commands behind the base.
    pub commands: u64,
    /// The base first.
    pub files: Vec<AofFile>,
    /// It is of an encrypted shipment, and its sealed part was read.
    #[serde(skip)]
    pub is_sealed: bool,
    /// Its sealed part was not read, and its digests of content are those of [`AofManifest::clear`].
    #[serde(skip)]
    pub is_clear_part: bool,
}

/// One file of Redis' own manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AofFile {
    pub name: String,
    pub seq: u64,
    pub base: bool,
    /// Up to the end of the last whole command.
    pub raw_bytes: u64,
    pub raw_digest: Digest,
    /// Without a hole, in order.
    pub pieces: Vec<Piece>,
}

impl AofFile {
    pub fn kind(&self) -> Kind {
        if self.base { Kind::Base } else { Kind::Incremental }
    }
}

/// A stretch of a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Piece {
    /// Key in the bucket.
    pub object: String,
    pub raw_bytes: u64,
    pub raw_digest: Digest,
    pub stored_bytes: u64,
    pub stored_digest: Digest,
}

impl Piece {
    fn slot(&mut self) -> Slot<'_> {
        Slot { key: &mut self.object, digest: &mut self.stored_digest, bytes: &mut self.stored_bytes }
    }
}

impl AofManifest {
    pub fn raw_bytes(&self) -> u64 {
        self.files.iter().map(|file| file.raw_bytes).sum()
    }

    pub fn stored_bytes(&self) -> u64 {
        self.pieces().map(|piece| piece.stored_bytes).sum()
    }

    /// What of it may be told to whoever reads the bucket. A few commands could be guessed and their digest tried; keyed with
    /// that of the base only those who have the base can.
    pub fn clear(&self) -> Self {
        let Some(base) = self.files.first().map(|base| base.raw_digest) else { return self.clone() };
        let mut clear = self.clone();
        clear.base.by_prefix.clear();
        for file in &mut clear.files {
            file.raw_digest = keyed(&base, &file.raw_digest);
            // Nobody asks for these alone.
            file.pieces.iter_mut().for_each(|piece| piece.raw_digest = Digest::ZERO);
        }
        clear
    }

    /// Every object that it names.
    pub fn slots(&mut self) -> Vec<Slot<'_>> {
        self.files.iter_mut().flat_map(|file| &mut file.pieces).map(Piece::slot).collect()
    }

    fn pieces(&self) -> impl Iterator<Item = &Piece> {
        self.files.iter().flat_map(|file| &file.pieces)
    }

    pub fn range(&self) -> AofRange {
        AofRange {
            label: self.label.clone(),
            from: self.from,
            to: self.to,
            until: self.until,
            commands: self.commands,
            base_keys: self.base.keys,
            bytes: self.raw_bytes(),
            stored_bytes: self.stored_bytes(),
            redis_version: self.source.redis_version.clone(),
            basis: Basis::Observed,
        }
    }

    /// What is wrong with it, given the objects of the bucket.
    fn broken(&self, objects: &[Object]) -> Option<String> {
        for piece in self.pieces() {
            match objects.iter().find(|object| object.key == piece.object) {
                Some(object) if object.size == piece.stored_bytes => {}
                Some(object) => {
                    let (key, found) = (&object.key, object.size);
                    return Some(format!("{key} has {found} bytes, its manifest says {}", piece.stored_bytes));
                }
                None => return Some(format!("{} is gone", piece.object)),
            }
        }
        let long = |file: &&AofFile| file.pieces.iter().map(|piece| piece.raw_bytes).sum::<u64>() != file.raw_bytes;
        self.files.iter().find(long).map(|file| format!("the pieces of {} do not make it up", file.name))
    }
}

pub fn key(label: &str) -> String {
    format!("{FOLDER}/{label}.json")
}

/// The ranges by their beginning, and what a person should know. Of a lineage only the newest whole shipment: it holds
/// whatever the earlier ones do.
pub async fn ranges(bucket: &Bucket) -> Result<(Vec<AofRange>, Vec<String>), StoreError> {
    among(bucket, &bucket.list(FOLDER).await?).await
}

/// As [`ranges`], of what was listed.
pub async fn among(bucket: &Bucket, objects: &[Object]) -> Result<(Vec<AofRange>, Vec<String>), StoreError> {
    let (mut ranges, mut warnings) = (Vec::new(), Vec::new());
    let mut manifests: Vec<&str> =
        objects.iter().map(|object| object.key.as_str()).filter(|key| key.ends_with(".json")).collect();
    let mut done = None;
    while let Some(key) = manifests.pop() {
        let lineage = key.rsplit_once('/').map(|(lineage, _)| lineage);
        if lineage == done {
            continue;
        }
        let parsed = match bucket.read_manifest(key).await {
            Ok(opened) => parse(key, &opened),
            Err(StoreError::Sealed { why, .. }) => Err(why.to_string()),
            Err(error) => return Err(error),
        };
        let found = match parsed {
            Ok(manifest) => match manifest.broken(objects) {
                None => {
                    ranges.push(manifest.range());
                    done = lineage;
                    continue;
                }
                Some(why) => why,
            },
            Err(why) => why,
        };
        warnings.push(format!("AOF {key}: {found}"));
    }
    ranges.sort_by(|a, b| a.from.cmp(&b.from).then_with(|| a.label.cmp(&b.label)));
    warnings.reverse();
    Ok((ranges, warnings))
}

/// The newest whole manifest of a lineage.
pub async fn newest(bucket: &Bucket, lineage: &str) -> Result<Option<AofManifest>, StoreError> {
    let objects = bucket.list(&format!("{FOLDER}/{lineage}")).await?;
    for object in objects.iter().rev().filter(|object| object.key.ends_with(".json")) {
        let opened = match bucket.read_manifest(&object.key).await {
            Ok(opened) => opened,
            Err(StoreError::Sealed { .. }) => continue,
            Err(error) => return Err(error),
        };
        if let Ok(manifest) = parse(&object.key, &opened)
            && manifest.broken(&objects).is_none()
        {
            return Ok(Some(manifest));
        }
    }
    Ok(None)
}

/// One manifest, for who relies on it; the inner error says what is wrong with it.
pub async fn manifest(bucket: &Bucket, label: &str) -> Result<Result<AofManifest, String>, StoreError> {
    let key = key(label);
    Ok(parse(&key, &bucket.read_vouched(&key).await?))
}

fn parse(at: &str, opened: &ManifestRead) -> Result<AofManifest, String> {
    #[derive(Deserialize)]
    struct Versioned {
        format: u32,
    }
    let manifest = match serde_json::from_slice::<Versioned>(&opened.json) {
        Ok(Versioned { format: FORMAT }) => serde_json::from_slice::<AofManifest>(&opened.json),
        Ok(Versioned { format }) => {
            return Err(format!("it is of format {format}; this program reads format {FORMAT}"));
        }
        Err(error) => Err(error),
    };
    match manifest {
        Ok(manifest) if key(&manifest.label) == at => {
            let (is_sealed, is_clear_part) = (opened.is_sealed, opened.unread.is_some());
            Ok(AofManifest { is_sealed, is_clear_part, ..manifest })
        }
        Ok(manifest) => Err(format!("it says it is the manifest of {}", manifest.label)),
        Err(error) => Err(format!("it cannot be read: {error}")),
    }
}

/// A digest that tells nothing to those who do not have the base.
pub(super) fn keyed(base: &Digest, digest: &Digest) -> Digest {
    Digest::of(format!("{base} {digest}").as_bytes())
}
