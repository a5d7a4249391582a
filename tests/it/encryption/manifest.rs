//! Manifests of encrypted backups: what a store that must not be trusted could do to them.

use lifeboat::store::{Bucket, StoreError, Unreadable};

use super::{Pair, encryption};

const KEY: &str = "base/20261121T090000Z/manifest.json";

struct Place {
    directory: tempfile::TempDir,
    pair: Pair,
}

impl Place {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let pair = Pair::new(directory.path(), "pair");
        std::fs::create_dir(directory.path().join("bucket")).unwrap();
        Self { directory, pair }
    }

    fn bucket(&self, reads: bool) -> Bucket {
        let url = format!("file://{}", self.directory.path().join("bucket").display());
        let with = reads.then_some(self.pair.file.as_path());
        Bucket::open(&url, "").unwrap().encrypted(encryption(&[&self.pair], with))
    }
}

const SEAM: &[u8] = b",\n  \"sealed\": \"";

fn seam_of(bytes: &[u8]) -> usize {
    bytes.windows(SEAM.len()).rposition(|window| window == SEAM).expect("a sealed part")
}

fn manifest(secret: &str) -> serde_json::Value {
    serde_json::json!({ "label": "a", "bytes": u64::MAX, "names": [secret], "inner": { "sealed": "\"\n}" } })
}

fn told(error: &StoreError) -> String {
    assert!(matches!(error, StoreError::Sealed { why: Unreadable::Damaged(_), .. }), "{error:?}");
    error.to_string()
}

#[test]
fn the_whole_is_read_with_a_key_and_the_clear_part_without() {
    let place = Place::new();
    let (writer, reader) = (place.bucket(false), place.bucket(true));
    let (whole, clear) = (manifest("payments"), manifest(""));
    let bytes = writer.seal_manifest(KEY, &whole, &clear).unwrap();
    assert!(!super::holds(&bytes, b"payments"));
    let json: serde_json::Value = serde_json::from_slice(&bytes).expect("anybody's parser reads it");
    assert_eq!(json["label"], "a");
    let opened = reader.open_manifest(KEY, bytes.clone().into()).unwrap();
    assert!(opened.is_sealed && opened.unread.is_none());
    assert_eq!(serde_json::from_slice::<serde_json::Value>(&opened.json).unwrap(), whole);
    let opened = writer.open_manifest(KEY, bytes.into()).unwrap();
    assert_eq!(opened.unread, Some(Unreadable::NoIdentity { made_for: vec![place.pair.short().to_owned()] }));
    assert_eq!(serde_json::from_slice::<serde_json::Value>(&opened.json).unwrap(), clear);
}

#[test]
fn what_was_changed_moved_or_put_together_is_noticed() {
    let place = Place::new();
    let reader = place.bucket(true);
    let bytes = reader.seal_manifest(KEY, &manifest("a"), &manifest("")).unwrap();
    // Every byte of the clear part, and a sample of the sealed one.
    let seam = seam_of(&bytes);
    for at in (0..seam).chain((seam + SEAM.len()..bytes.len() - 3).step_by(37)) {
        let mut changed = bytes.clone();
        changed[at] ^= 1;
        let found = reader.open_manifest(KEY, changed.into());
        assert!(found.is_err() || found.as_ref().unwrap().unread.is_some(), "byte {at}: {found:?}");
    }
    let moved = reader.open_manifest("base/other/manifest.json", bytes.clone().into()).unwrap_err();
    assert!(told(&moved).contains(KEY));
    // The clear part of one with the sealed part of another.
    let other = reader.seal_manifest(KEY, &manifest("b"), &serde_json::json!({ "label": "b" })).unwrap();
    let other_seam = seam_of(&other);
    let mixed = [&bytes[..seam], &other[other_seam..]].concat();
    assert!(told(&reader.open_manifest(KEY, mixed.into()).unwrap_err()).contains("in the clear"));
}
