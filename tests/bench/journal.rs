//! Appending entries of a usual size, against a bare write and fdatasync of as many bytes; and verifying a long journal
//! against `sha256sum` of the same file.

use std::fs::File;
use std::io::Write as _;
use std::process::{Command, Stdio};

use lifeboat::clock::boot_now;
use lifeboat::event::{Envelope, Event};
use lifeboat::journal::{DrillDir, Journal};

use crate::median;

const ENTRIES: u64 = 400;
const LONG: u64 = 100_000;

pub fn run() {
    // Beside the build, not in /tmp: a tmpfs syncs nothing.
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    let envelope = |seq| Envelope {
        seq,
        at: chrono::DateTime::UNIX_EPOCH,
        boot_ms: seq,
        event: Event::Note { text: "x".repeat(200), by: "bench".into() },
    };
    let dir = DrillDir::new(directory.path(), "append");
    let mut journal = Journal::create(&dir).expect("a journal");
    journal.append(&envelope(0)).expect("an entry");
    let line = std::fs::metadata(dir.journal()).expect("the journal").len();
    let mut bare = File::create(directory.path().join("bare")).expect("a file");
    let bytes = vec![b'x'; usize::try_from(line).expect("a line's length")];
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for seq in 1..=ENTRIES {
        let began = boot_now();
        journal.append(&envelope(seq)).expect("an entry");
        ours.push(boot_now() - began);
        let began = boot_now();
        bare.write_all(&bytes).expect("a write");
        bare.sync_data().expect("a sync");
        theirs.push(boot_now() - began);
    }
    let (ours, theirs) = (median(ours), median(theirs));
    println!("  append {ours:.3} ms, bare write + fdatasync {theirs:.3} ms: {:.2}× (target ≤ 1.5)", ours / theirs);

    let dir = DrillDir::new(directory.path(), "long");
    let mut journal = Journal::create(&dir).expect("a journal");
    // A journal begins with the opening of a drill.
    let recording = concat!(env!("CARGO_MANIFEST_DIR"), "/recordings/restore-passes.jsonl");
    let opening = Journal::read(recording.as_ref()).expect("the recording").envelopes.swap_remove(0);
    let envelopes: Vec<Envelope> = std::iter::once(opening).chain((1..LONG).map(envelope)).collect();
    journal.append_all(&envelopes).expect("entries");
    drop((journal, envelopes));
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..5 {
        let began = boot_now();
        let read = Journal::read(&dir.journal()).expect("a whole journal");
        ours.push(boot_now() - began);
        assert_eq!(read.envelopes.len() as u64, LONG);
        let began = boot_now();
        let sum = Command::new("sha256sum").arg(dir.journal()).stdout(Stdio::null()).status();
        assert!(sum.expect("sha256sum runs").success());
        theirs.push(boot_now() - began);
    }
    let (ours, theirs) = (median(ours), median(theirs));
    println!(
        "  reading and verifying {LONG} entries {ours:.0} ms, sha256sum of the file {theirs:.0} ms: {:.2}×",
        ours / theirs
    );
}
