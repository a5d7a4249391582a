//! A whole drill on encrypted backups.

use crate::encryption::{files, holds, plain, readable};
use crate::support::sandbox::Place;

#[test]
fn a_drill_on_encrypted_backups_ends_verified() {
    let place = Place::new("encrypted");
    let done = place.json(&["drill", "--encrypted", "--headless", "--yes", "--json"]);
    assert_eq!(done["verdict"], "passed", "{done:#}");
    let bucket = place.0.join("bucket");
    let sealed = files(&bucket);
    // What a backup of the sandbox's shop holds: a table, a row's text, the beginning of a key.
    for plaintext in ["order_items", "payments", "cart:", "session:"] {
        assert_eq!(readable(&bucket, plaintext), Vec::<String>::new(), "{plaintext}");
    }
    assert!(sealed.len() > 8, "{} objects", sealed.len());
    for (name, bytes) in &sealed {
        // Told in the clear: whose archive it is, timelines, and manifests, which are sealed within.
        let is_clear = name.contains("/lease/")
            || name.ends_with(".json")
            || name.ends_with(".history")
            || name.ends_with(".backup");
        assert_eq!(bytes.starts_with(b"age-encryption.org/v1\n"), !is_clear, "{name}");
        assert!(plain(bytes).is_empty() && !holds(bytes, b"AGE-SECRET-KEY"), "{name}");
    }
    // The restored server has no key any more: it was promoted.
    assert!(!place.0.join("restore/orders-db/.lifeboat/identity").exists());
    let key = std::fs::read_to_string(place.0.join("secrets/backup-key")).unwrap();
    let key = key.lines().last().unwrap();
    let shown: Vec<String> = files(&place.0.join("home"))
        .into_iter()
        .filter(|(_, bytes)| holds(bytes, key.as_bytes()))
        .map(|(name, _)| name)
        .collect();
    assert_eq!(shown, Vec::<String>::new(), "no journal and no report holds the key");
}
