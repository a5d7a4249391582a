//! `lifeboat check` over an archive of 100,000 segments, against the bare listing of the same bucket by the same library, and
//! against `find`; its memory. Then `wal push` of a segment, as it is and compressed, against `cp` and an fsync.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use chrono::TimeDelta;
use lifeboat::clock::{boot_now, wall_now};
use lifeboat::digest::Digest;
use lifeboat::event::Lsn;
use lifeboat::store::Bucket;
use lifeboat::system::postgres::wal::Segment;
use lifeboat::system::postgres::{Floor, Manifest, Part};
use tokio::runtime::Runtime;

use crate::{lifeboat, median};

const SEGMENTS: u64 = 100_000;
const ROUNDS: usize = 5;
const PUSHES: usize = 30;
const SIZE: u64 = 16 << 20;

pub fn run() {
    let runtime = Runtime::new().expect("a runtime");
    let directory = tempfile::tempdir().expect("a directory");
    let at = |name: &str| directory.path().join(name);
    std::fs::create_dir_all(at("bucket/db")).expect("a directory");
    let bucket = Bucket::open(&format!("file://{}", at("bucket").display()), "db").expect("the bucket");
    runtime.block_on(fill(&bucket, &at("bucket/db")));
    let inventory = format!(
        "format = 1\nservice = \"s\"\n[stores.b]\nurl = \"file://{}\"\nretain = \"30d\"\n[systems.db]\nkind = \"postgres\"\n\
         environment = \"bench\"\nurl = \"postgresql://nobody@127.0.0.1:1/none\"\nbackups = {{ store = \"b\" }}\n\
         restore = {{ directory = \"{}\" }}\nrpo = \"1h\"\n",
        at("bucket").display(),
        at("restored").display()
    );
    std::fs::write(at("lifeboat.toml"), inventory).expect("the inventory");
    let (mut ours, mut listing, mut find): (Vec<Duration>, Vec<Duration>, Vec<Duration>) = Default::default();
    for _ in 0..ROUNDS {
        let mut check = Command::new(lifeboat());
        check.args(["check", "--stores-only", "--inventory"]).arg(at("lifeboat.toml"));
        ours.push(timed(&mut check));
        let began = boot_now();
        let listed = runtime.block_on(bucket.list("wal")).expect("the listing");
        listing.push(boot_now() - began);
        assert_eq!(listed.len() as u64, SEGMENTS);
        let mut peer = Command::new("find");
        find.push(timed(peer.arg(at("bucket/db/wal")).args(["-type", "f", "-printf", "%p %s %T@\\n"])));
    }
    let (ours, listing, find) = (median(ours), median(listing), median(find));
    println!(
        "  {SEGMENTS} segments: {ours:.0} ms, the bare listing {listing:.0} ms: {:.2}× (target < 3), find {find:.0} ms: {:.2}×; \
         peak memory {} MB (target < 100)",
        ours / listing,
        ours / find,
        peak() / 1000
    );
    push(directory.path());
}

/// Segments of one byte, and a backup at the first of them.
async fn fill(bucket: &Bucket, directory: &Path) {
    let first = Segment { timeline: 1, number: 16, size: SIZE };
    let wal = directory.join("wal/00000001");
    std::fs::create_dir_all(&wal).expect("a directory");
    for number in first.number..first.number + SEGMENTS {
        std::fs::write(wal.join(format!("{}.zst", Segment { number, ..first })), b"x").expect("a segment");
    }
    let id = format!("{{\"format\":1,\"system_identifier\":\"7\",\"segment_bytes\":{SIZE}}}");
    bucket.create("archive.json", id).await.expect("archive.json");
    let part = |name: &str| Part { key: format!("base/b/{name}"), digest: Digest::of(b"x"), bytes: 1, raw_bytes: 1 };
    let stopped = wall_now() - TimeDelta::hours(1);
    let manifest = Manifest {
        format: 1,
        label: "b".to_owned(),
        system_identifier: 7,
        timeline: 1,
        start_lsn: Lsn(first.start().0 + 0x28),
        stop_lsn: Lsn(first.start().0 + 0x100),
        started: stopped,
        stopped,
        server_version: "15".to_owned(),
        version_number: 150_000,
        wal_segment_bytes: SIZE,
        data_checksums: true,
        floor: Floor {
            max_connections: 100,
            max_worker_processes: 8,
            max_wal_senders: 10,
            max_prepared_transactions: 0,
            max_locks_per_transaction: 64,
        },
        client_settings: Default::default(),
        bytes: 1,
        parts: vec![part("part-0000.tar.zst")],
        backup_manifest: part("backup_manifest.zst"),
        names: None,
        parent: None,
        is_sealed: false,
    };
    for part in manifest.parts.iter().chain([&manifest.backup_manifest]) {
        bucket.create(&part.key, "x").await.expect("a part");
    }
    let json = serde_json::to_vec(&manifest).expect("JSON");
    bucket.create(&Manifest::key("b"), json).await.expect("the manifest");
}

/// A segment as PostgreSQL writes them is half full of what compresses well; this one is noise.
fn push(directory: &Path) {
    let at = |name: &str| directory.join(name);
    std::fs::create_dir_all(at("archive/db")).expect("a directory");
    let mut state = 1_u64;
    let mut noise = std::iter::repeat_with(move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as u8
    });
    let (mut ours, mut compressed, mut theirs): (Vec<Duration>, Vec<Duration>, Vec<Duration>) = Default::default();
    for number in 0..PUSHES as u64 {
        let segment = Segment { timeline: 1, number: 16 + number, size: SIZE };
        let mut bytes: Vec<u8> = noise.by_ref().take(SIZE as usize).collect();
        let head = [
            &0xD110_u16.to_le_bytes()[..],
            &2_u16.to_le_bytes(),
            &1_u32.to_le_bytes(),
            &segment.start().0.to_le_bytes(),
            &[0; 8],
            &7_u64.to_le_bytes(),
            &(SIZE as u32).to_le_bytes(),
            &8192_u32.to_le_bytes(),
        ];
        let head = head.concat();
        bytes[..head.len()].copy_from_slice(&head);
        let path = at(&segment.to_string());
        // PostgreSQL's are on disk when they are archived; whoever comes first would pay for the other.
        let mut file = std::fs::File::create(&path).expect("a segment");
        file.write_all(&bytes).and_then(|()| file.sync_all()).expect("a segment");
        for (prefix, compression, times) in [("db", "off", &mut ours), ("packed", "zstd", &mut compressed)] {
            let store = format!("file://{}", at("archive").display());
            let mut push = Command::new(lifeboat());
            push.args(["wal", "push", "--store", &store, "--prefix", prefix, "--compression", compression]);
            times.push(timed(push.arg(&path)));
        }
        let copy = format!("cp {0} {1} && sync {1}", path.display(), at("copy").display());
        theirs.push(timed(Command::new("/bin/sh").args(["-c", &copy])));
        std::fs::remove_file(path).expect("the segment goes");
        std::fs::remove_file(at("copy")).expect("the copy goes");
    }
    let (ours, compressed, theirs) = (median(ours), median(compressed), median(theirs));
    println!(
        "  wal push of noise, compression off: {ours:.1} ms, cp and sync {theirs:.1} ms: {:.2}× (target ≤ 1.5); compression \
         tried {compressed:.1} ms: {:.2}×",
        ours / theirs,
        compressed / theirs
    );
}

fn timed(command: &mut Command) -> Duration {
    let began = boot_now();
    let done = command.stdin(Stdio::null()).stdout(Stdio::null()).status().expect("it starts");
    let took = boot_now() - began;
    assert!(done.success(), "{command:?}: {done}");
    took
}

/// Of the largest child so far, in kB.
fn peak() -> i64 {
    // SAFETY: the kernel fills in the whole struct, which is plain numbers.
    let usage = unsafe {
        let mut usage: nix::libc::rusage = std::mem::zeroed();
        nix::libc::getrusage(nix::libc::RUSAGE_CHILDREN, &raw mut usage);
        usage
    };
    usage.ru_maxrss
}
