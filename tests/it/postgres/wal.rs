//! `lifeboat wal push | fetch` as PostgreSQL calls them.

use std::path::Path;
use std::process::{Command, Output};

use lifeboat::system::postgres::wal::Location;

use crate::support::postgres::{Primary, program};

fn wal(location: &Location, verb: &str, options: &[&str], files: &[&str], cwd: &Path) -> (i32, String) {
    let Output { status, stderr, .. } = Command::new(program())
        .args(["wal", verb, "--store", &location.url, "--prefix", &location.prefix])
        .args(options)
        .args(files)
        .current_dir(cwd)
        .output()
        .expect("lifeboat starts");
    (status.code().expect("an exit code"), String::from_utf8_lossy(&stderr).into_owned())
}

/// A segment that says it is of cluster `id` and stands at its number.
fn segment(number: u64, id: u64) -> (String, Vec<u8>) {
    let mut bytes = vec![0_u8; 16 << 20];
    bytes[0..2].copy_from_slice(&0xD110_u16.to_le_bytes());
    bytes[2] = 2;
    bytes[4] = 1;
    bytes[8..16].copy_from_slice(&(number << 24).to_le_bytes());
    bytes[24..32].copy_from_slice(&id.to_le_bytes());
    bytes[32..36].copy_from_slice(&(16_u32 << 20).to_le_bytes());
    (format!("0000000100000000{number:08X}"), bytes)
}

#[test]
fn an_archive_is_never_overwritten_or_mixed() {
    let directory = tempfile::tempdir().unwrap();
    let location = Location::new(format!("file://{}", directory.path().display()), "db");
    let put = |name: &str, bytes: &[u8]| std::fs::write(directory.path().join(name), bytes).unwrap();
    let run = |verb: &str, options: &[&str], files: &[&str]| wal(&location, verb, options, files, directory.path());
    let (name, bytes) = segment(4, 77);
    put(&name, &bytes);
    assert_eq!(run("push", &[], &[&name]).0, 0);
    assert_eq!(run("push", &[], &[&name]).0, 0, "PostgreSQL may ask again");

    // Other content under the same name.
    let mut changed = bytes.clone();
    changed[5000] = 1;
    put(&name, &changed);
    let (code, message) = run("push", &[], &[&name]);
    assert!(code == 1 && message.contains(&name) && message.contains("other content"), "{code} {message}");

    // Another cluster, a wrong name, a cut file, no WAL at all, a name that is none.
    let (next, foreign) = segment(5, 78);
    put(&next, &foreign);
    let (code, message) = run("push", &[], &[&next]);
    assert!(code == 1 && message.contains("77") && message.contains("78"), "{code} {message}");
    for (bad, what) in [(bytes.as_slice(), "renamed"), (&segment(5, 77).1[..70_000], "cut"), (&[0; 9000], "header")] {
        put(&next, bad);
        let (code, message) = run("push", &[], &[&next]);
        assert!(code == 1 && message.contains(what), "{what}: {code} {message}");
    }
    put("stray.txt", b"x");
    assert_eq!(run("push", &[], &["stray.txt"]).0, 1);

    // What comes back is what went in; only a definite "not there" is 1.
    assert_eq!(run("fetch", &[], &[&name, "out"]).0, 0);
    assert!(std::fs::read(directory.path().join("out")).unwrap() == bytes);
    assert_eq!(run("fetch", &["--system-id", "77"], &[&next, "out2"]).0, 1);
    assert_eq!(run("fetch", &[], &["00000002.history", "out2"]).0, 1);
    assert_eq!(run("fetch", &["--system-id", "78"], &[&name, "out2"]).0, 255, "another cluster's");
    assert_eq!(run("fetch", &[], &[&name]).0, 255, "wrong use");
    assert_eq!(run("fetch", &["--no-such-option", "1"], &[&name, "out2"]).0, 255);
    assert_eq!(run("fetch", &[], &["not-a-name", "out2"]).0, 255);
    let stored = directory.path().join(format!("db/wal/00000001/{name}.zst"));
    let mut damaged = std::fs::read(&stored).unwrap();
    let middle = damaged.len() / 2;
    damaged[middle] ^= 0xFF;
    std::fs::write(&stored, damaged).unwrap();
    let (code, message) = run("fetch", &[], &[&name, "out2"]);
    assert!(code == 255 && message.contains("damaged"), "{code} {message}");
    assert!(!directory.path().join("out2").exists());
}

#[test]
fn an_archive_that_is_not_mounted_is_not_the_end_of_wal() {
    let directory = tempfile::tempdir().unwrap();
    let location = Location::new(format!("file://{}", directory.path().display()), "db");
    let (code, message) = wal(&location, "fetch", &[], &[&segment(1, 1).0, "out"], directory.path());
    assert!(code == 255 && message.contains("holds no WAL archive"), "{code} {message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_primary_archives_by_lifeboat() {
    let primary = Primary::start().await;
    let name = primary.archive().await;
    let (code, message) = wal(&primary.location, "fetch", &[], &[&name, "fetched"], &primary.path(""));
    assert_eq!((code, message.as_str()), (0, ""));
    assert_eq!(std::fs::metadata(primary.path("fetched")).unwrap().len(), 16 << 20);
}
