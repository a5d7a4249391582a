//! `lifeboat wal push | fetch` with encryption, as PostgreSQL calls them.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Pair, by_age, through};
use crate::support::postgres::program;

struct Archive {
    directory: tempfile::TempDir,
}

impl Archive {
    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn wal(&self, verb: &str, options: &[&str], files: &[&str]) -> (i32, String) {
        let url = format!("file://{}", self.directory.path().display());
        let output = Command::new(program())
            .args(["wal", verb, "--store", &url, "--prefix", "db"])
            .args(options)
            .args(files)
            .current_dir(self.directory.path())
            .output()
            .expect("lifeboat starts");
        (output.status.code().expect("an exit code"), String::from_utf8_lossy(&output.stderr).into_owned())
    }

    fn stored(&self, name: &str) -> PathBuf {
        self.path(&format!("db/wal/00000001/{name}.zst"))
    }
}

/// A segment of cluster 77 that stands at its number.
fn segment(number: u64) -> (String, Vec<u8>) {
    let mut bytes = vec![0_u8; 16 << 20];
    bytes[0..2].copy_from_slice(&0xD110_u16.to_le_bytes());
    bytes[2] = 2;
    bytes[4] = 1;
    bytes[8..16].copy_from_slice(&(number << 24).to_le_bytes());
    bytes[24..32].copy_from_slice(&77_u64.to_le_bytes());
    bytes[32..36].copy_from_slice(&(16_u32 << 20).to_le_bytes());
    bytes[9000..9011].copy_from_slice(b"top secret!");
    (format!("0000000100000000{number:08X}"), bytes)
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path")
}

#[test]
fn a_segment_is_read_by_each_recipient_and_by_nobody_else() {
    let archive = Archive { directory: tempfile::tempdir().unwrap() };
    let pair = |name| Pair::new(archive.directory.path(), name);
    let (alice, bob, eve) = (pair("alice"), pair("bob"), pair("eve"));
    let (name, bytes) = segment(4);
    std::fs::write(archive.path(&name), &bytes).unwrap();
    let to = ["--encrypt-to", &alice.public, "--encrypt-to", &bob.public];
    assert_eq!(archive.wal("push", &to, &[&name]), (0, String::new()));

    let stored = std::fs::read(archive.stored(&name)).unwrap();
    for reader in [&alice, &bob] {
        let packed = by_age(reader, &stored).unwrap();
        assert!(through("zstd", &["-d"], &packed).unwrap() == bytes);
        assert_eq!(archive.wal("fetch", &["--identity", text(&reader.file)], &[&name, "out"]), (0, String::new()));
        assert!(std::fs::read(archive.path("out")).unwrap() == bytes);
        std::fs::remove_file(archive.path("out")).unwrap();
    }
    assert!(by_age(&eve, &stored).unwrap_err().contains("no identity matched"));

    // The server stops, and its log says which key is missing.
    let both = format!("encrypted to {}… and {}…", alice.short(), bob.short());
    let (code, said) = archive.wal("fetch", &[], &[&name, "out"]);
    assert!(code == 255 && said.contains(&both) && said.contains("no identity"), "{code} {said}");
    let (code, said) = archive.wal("fetch", &["--identity", text(&eve.file)], &[&name, "out"]);
    assert!(code == 255 && said.contains(&both) && said.contains(eve.short()), "{code} {said}");
    let (code, said) = archive.wal("fetch", &["--identity", "gone"], &[&name, "out"]);
    assert!(code == 255 && said.contains(&both) && said.contains("gone"), "{code} {said}");
    assert!(!archive.path("out").exists());
}

#[test]
fn without_compression_the_format_stays() {
    let archive = Archive { directory: tempfile::tempdir().unwrap() };
    let pair = Pair::new(archive.directory.path(), "pair");
    let off = ["--compression", "off"];
    let [(clear, bytes), (sealed, other)] = [segment(4), segment(5)];
    std::fs::write(archive.path(&clear), &bytes).unwrap();
    std::fs::write(archive.path(&sealed), &other).unwrap();
    assert_eq!(archive.wal("push", &off, &[&clear]), (0, String::new()));
    assert_eq!(archive.wal("push", &[&off[..], &["--encrypt-to", &pair.public]].concat(), &[&sealed]).0, 0);

    let stored = std::fs::read(archive.stored(&clear)).unwrap();
    assert!((bytes.len()..bytes.len() + 1000).contains(&stored.len()), "{}", stored.len());
    assert!(through("zstd", &["-d"], &stored).unwrap() == bytes);
    let packed = by_age(&pair, &std::fs::read(archive.stored(&sealed)).unwrap()).unwrap();
    assert!(through("zstd", &["-d"], &packed).unwrap() == other);
    let identity = ["--identity", text(&pair.file)];
    for (name, bytes) in [(&clear, &bytes), (&sealed, &other)] {
        assert_eq!(archive.wal("fetch", &identity, &[name, "out"]), (0, String::new()), "{name}");
        assert!(std::fs::read(archive.path("out")).unwrap() == *bytes, "{name}");
    }
    // PostgreSQL may ask again, and the setting may have been changed meanwhile.
    for options in [&off[..], &[]] {
        assert_eq!(archive.wal("push", options, &[&clear]), (0, String::new()));
    }
    assert!(std::fs::read(archive.stored(&clear)).unwrap() == stored, "it is not written again");

    let mut damaged = stored;
    let middle = damaged.len() / 2;
    damaged[middle] ^= 1;
    std::fs::write(archive.stored(&clear), damaged).unwrap();
    let (code, said) = archive.wal("fetch", &[], &[&clear, "out2"]);
    assert!(code == 255 && said.contains("damaged"), "{code} {said}");
    let (code, said) = archive.wal("push", &["--compression", "lz4"], &[&clear]);
    assert!(code == 1 && said.contains("zstd or off"), "{code} {said}");
}

#[test]
fn who_pushes_again_needs_no_key_to_know_what_is_there() {
    let archive = Archive { directory: tempfile::tempdir().unwrap() };
    let pair = Pair::new(archive.directory.path(), "pair");
    let to = ["--encrypt-to", pair.public.as_str()];
    let (name, mut bytes) = segment(4);
    std::fs::write(archive.path(&name), &bytes).unwrap();
    assert_eq!(archive.wal("push", &to, &[&name]).0, 0);
    let stored = std::fs::read(archive.stored(&name)).unwrap();
    assert_eq!(archive.wal("push", &to, &[&name]), (0, String::new()), "PostgreSQL may ask again");
    assert!(std::fs::read(archive.stored(&name)).unwrap() == stored, "it is not written again");
    bytes[9000] = b'T';
    std::fs::write(archive.path(&name), &bytes).unwrap();
    let (code, said) = archive.wal("push", &to, &[&name]);
    assert!(code == 1 && said.contains("other content"), "{code} {said}");
    let (code, said) = archive.wal("push", &["--encrypt-to", "age1nonsense"], &[&name]);
    assert!(code == 1 && said.contains("is no public key of age"), "{code} {said}");
}

#[test]
fn segments_in_the_clear_encrypted_and_by_age_itself_are_read_side_by_side() {
    let archive = Archive { directory: tempfile::tempdir().unwrap() };
    let pair = Pair::new(archive.directory.path(), "pair");
    let segments = [segment(4), segment(5), segment(6)];
    for (name, bytes) in &segments {
        std::fs::write(archive.path(name), bytes).unwrap();
    }
    let [(clear, _), (ours, _), (theirs, bytes)] = &segments;
    assert_eq!(archive.wal("push", &[], &[clear]).0, 0);
    assert_eq!(archive.wal("push", &["--encrypt-to", &pair.public], &[ours]).0, 0);
    // zstd writes the size only of what it is told the size of.
    let packed = through("zstd", &["--stream-size=16777216"], bytes).unwrap();
    std::fs::write(archive.stored(theirs), through("age", &["-r", &pair.public], &packed).unwrap()).unwrap();
    for (name, bytes) in &segments {
        assert_eq!(
            archive.wal("fetch", &["--identity", text(&pair.file)], &[name, "out"]),
            (0, String::new()),
            "{name}"
        );
        assert!(std::fs::read(archive.path("out")).unwrap() == *bytes, "{name}");
    }
    assert_eq!(archive.wal("fetch", &[], &[clear, "out"]), (0, String::new()), "what is in the clear needs no key");
}

#[test]
fn a_changed_byte_anywhere_is_noticed() {
    let archive = Archive { directory: tempfile::tempdir().unwrap() };
    let pair = Pair::new(archive.directory.path(), "pair");
    let (name, bytes) = segment(4);
    std::fs::write(archive.path(&name), bytes).unwrap();
    assert_eq!(archive.wal("push", &["--encrypt-to", &pair.public], &[&name]).0, 0);
    let stored = std::fs::read(archive.stored(&name)).unwrap();
    let middle = |what: &[u8]| stored.windows(what.len()).position(|window| window == what).expect("it is there") + 4;
    for at in [middle(b"-> X25519 "), middle(b"-> lifeboat-for"), middle(b"--- "), stored.len() / 2, stored.len() - 1] {
        let mut changed = stored.clone();
        changed[at] ^= 1;
        std::fs::write(archive.stored(&name), changed).unwrap();
        let (code, said) = archive.wal("fetch", &["--identity", text(&pair.file)], &[&name, "out"]);
        assert!(code == 255, "byte {at}: {code} {said}");
    }
    // One that was cut at the end of a chunk of age's.
    std::fs::write(archive.stored(&name), &stored[..stored.len() - 16]).unwrap();
    assert_eq!(archive.wal("fetch", &["--identity", text(&pair.file)], &[&name, "out"]).0, 255);
    assert!(!archive.path("out").exists());
}
