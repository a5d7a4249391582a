//! What the fuzzers throw bytes at: every reader of something that a stranger may have written. None may panic, hang, or
//! take memory without bounds; some promise more, which is asserted here.
//!
//! `cargo +nightly fuzz run --fuzz-dir tests/fuzz -s none NAME -- -runs=10000000 -timeout=10 -rss_limit_mb=2048` looks for
//! new ones; the ordinary tests replay `corpus/`. Without a sanitizer: what is reached is safe Rust, but for one call of an
//! instruction for checksums in the reader of WAL. `runbook` and `inventory` take `-dict=tests/fuzz/toml.dict -max_len=1024`,
//! `recording` takes `-dict=tests/fuzz/json.dict -max_len=3000`, and all three are faster with `--no-trace-compares`
//! before `NAME`.

use std::fs::File;
use std::io::{Cursor, Read as _};
use std::num::NonZeroUsize;
use std::ops::ControlFlow;
use std::os::unix::fs::FileExt as _;
use std::path::{Component, Path, PathBuf};

use chrono::{FixedOffset, TimeZone as _, Utc};
use lifeboat::digest::Digest;
use lifeboat::event::Envelope;
use lifeboat::journal::Journal;
use lifeboat::replay::Recording;
use lifeboat::report::model::JournalSeal;
use lifeboat::report::sign::{AllowedSigners, read_signature};
use lifeboat::report::{self, Statement};
use lifeboat::system::postgres::tar::Entry;
use lifeboat::system::postgres::wal::read::{Source, Step, Walk};
use lifeboat::{inventory, runbook, tui};
use tempfile::TempDir;

pub fn runbook(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Err(problems) = runbook::parse(text, "fuzz.toml") {
        assert!(!problems.to_string().is_empty(), "a refusal says why");
    }
}

pub fn inventory(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Err(problems) = inventory::parse(text, "fuzz.toml", Path::new("/nowhere")) {
        assert!(!problems.to_string().is_empty(), "a refusal says why");
    }
}

/// The file as it is stored: chain, torn tail.
pub fn journal(data: &[u8]) {
    let path = scratch("journal");
    std::fs::write(&path, data).expect("a file");
    match Journal::read(&path) {
        Ok(read) => {
            let numbers = read.envelopes.iter().map(|envelope| envelope.seq);
            assert!(numbers.eq(0..read.envelopes.len() as u64), "what is accepted is without a gap");
        }
        Err(error) => assert!(!error.to_string().is_empty(), "a refusal says why"),
    }
}

/// Entries whose chain is right, whatever they say: replayed and reported. One a line.
pub fn recording(data: &[u8]) {
    let lines = data.split(|byte| *byte == b'\n');
    let envelopes: Vec<Envelope> = lines.filter_map(|line| serde_json::from_slice(line).ok()).collect();
    let seal =
        JournalSeal { head: Digest::of(data), events: envelopes.len() as u64, bytes: 0, sha256: Digest::of(data) };
    let folded = report::fold(&envelopes, seal, |_| FixedOffset::east_opt(0).expect("UTC"));
    let replayed = Recording::of(envelopes);
    assert_eq!(folded.is_ok(), replayed.is_ok(), "what can be replayed can be reported");
    let Ok(report) = folded else { return };
    for (name, text) in report::render_all(&report).expect("a report can be written") {
        let controls = text.chars().any(|c| c.is_control() && !matches!(c, '\n' | '\t'));
        assert!(!controls || name.ends_with(".json"), "a control character reached {name}");
    }
}

/// The first byte: whole pages as they are, or records whose checksums are right, so that what they say is read.
pub fn wal(data: &[u8]) {
    let Some((kind, rest)) = data.split_first() else { return };
    let pages = if kind % 2 == 0 { rest.to_vec() } else { written(rest) };
    let path = scratch("000000010000000000000004");
    let file = File::create(&path).expect("a file");
    file.write_all_at(&pages[..pages.len().min(SEGMENT)], 0).expect("room");
    file.set_len(SEGMENT as u64).expect("room");
    let source = Source::Directory(path.parent().expect("a directory").to_owned());
    let Ok(segments) = source.list() else { return };
    let walk =
        Walk { source: &source, segments: &segments, system_identifier: None, threads: NonZeroUsize::MIN, state: None };
    let _ = walk.run(|step| {
        if let Step::Segment { joined, .. } = step {
            let places = joined.facts.iter().map(lifeboat::system::postgres::wal::read::Fact::lsn);
            assert!(places.is_sorted(), "facts come in their order");
        }
        ControlFlow::Continue(())
    });
}

const SEGMENT: usize = 1 << 20;
const PAGE: usize = 8192;

/// Records out of bytes: manager, info, transaction (2), length (2), and so many bytes behind the header of the record.
fn written(mut bytes: &[u8]) -> Vec<u8> {
    let magic: [u16; 6] = [0xD106, 0xD10D, 0xD110, 0xD113, 0xD116, 0xD118];
    let Some((version, rest)) = bytes.split_first() else { return Vec::new() };
    bytes = rest;
    let magic = magic[usize::from(*version) % magic.len()];
    let start = 4 * SEGMENT as u64;
    let (mut pages, mut previous) = (Vec::new(), 0_u64);
    let page = |pages: &mut Vec<u8>, rest: usize| {
        let long = pages.is_empty();
        pages.extend_from_slice(&magic.to_le_bytes());
        pages.extend_from_slice(&(u16::from(long) << 1 | u16::from(rest > 0)).to_le_bytes());
        pages.extend_from_slice(&1_u32.to_le_bytes());
        let address = start + (pages.len() as u64 - 8);
        pages.extend_from_slice(&address.to_le_bytes());
        pages.extend_from_slice(&(rest as u32).to_le_bytes());
        pages.extend_from_slice(&[0; 4]);
        if long {
            pages.extend_from_slice(&77_u64.to_le_bytes());
            pages.extend_from_slice(&(SEGMENT as u32).to_le_bytes());
            pages.extend_from_slice(&(PAGE as u32).to_le_bytes());
        }
    };
    while let [manager, info, x0, x1, l0, l1, rest @ ..] = bytes {
        let (body, later) = rest.split_at(rest.len().min(usize::from(u16::from_le_bytes([*l0, *l1]))));
        bytes = later;
        let mut record = vec![0; 24];
        record.extend_from_slice(body);
        let total = record.len() as u32;
        record[..4].copy_from_slice(&total.to_le_bytes());
        record[4..8].copy_from_slice(&u32::from(u16::from_le_bytes([*x0, *x1])).to_le_bytes());
        record[8..16].copy_from_slice(&previous.to_le_bytes());
        (record[16], record[17]) = (*info, *manager);
        let sum = crc32c::crc32c_append(crc32c::crc32c(&record[24..]), &record[..20]);
        record[20..24].copy_from_slice(&sum.to_le_bytes());
        if pages.len() % PAGE == 0 {
            page(&mut pages, 0);
        }
        previous = start + pages.len() as u64;
        let mut left = &record[..];
        loop {
            let (here, later) = left.split_at(left.len().min(PAGE - pages.len() % PAGE));
            pages.extend_from_slice(here);
            left = later;
            if left.is_empty() {
                break;
            }
            page(&mut pages, left.len());
        }
        pages.resize(pages.len().next_multiple_of(8), 0);
    }
    pages
}

/// A base backup's tar stream: nothing leaves the directory.
pub fn archive(data: &[u8]) {
    let mut tar = Cursor::new(data);
    while let Ok(Some(entry)) = Entry::next(&mut tar) {
        let inside = entry.path.components().all(|part| matches!(part, Component::Normal(_)));
        assert!(inside, "{:?} leaves the directory", entry.path);
        let skip = entry.size.saturating_add(entry.padding() as u64);
        if std::io::copy(&mut tar.by_ref().take(skip), &mut std::io::sink()).is_ok_and(|skipped| skipped < skip) {
            return;
        }
    }
}

/// What a command printed, on its way to the terminal.
pub fn output(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let clean = tui::clean(&text);
    let unsafe_char =
        clean.chars().find(|c| c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}'));
    assert_eq!(unsafe_char, None, "a control character is drawn");
    assert_eq!(tui::clean(&clean), clean, "what is clean stays as it is");
}

/// A signature, the list of who may sign, and the statement.
pub fn signature(data: &[u8]) {
    if let Ok(signature) = read_signature(data) {
        let _ = (signature.namespace().len(), signature.algorithm());
    }
    let _ = Statement::parse(data);
    if let Ok(text) = std::str::from_utf8(data) {
        let signers = AllowedSigners::parse(text);
        let key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f".parse();
        if let Ok(key) = key.map(|key: ssh_key::PublicKey| key.key_data().clone()) {
            let at = Utc.timestamp_opt(1_763_719_351, 0).single().expect("a moment");
            let _ = signers.find(&key, "lifeboat", None, at);
        }
    }
}

/// A file in a directory of this thread, in memory: made once, since making it takes longer than to read it.
fn scratch(name: &str) -> PathBuf {
    thread_local! {
        static DIRECTORY: TempDir = {
            let memory = Path::new("/dev/shm");
            let made = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
            made.expect("a directory")
        };
    }
    DIRECTORY.with(|directory| directory.path().join(name))
}
