//! Reading WAL from the page cache, every checksum checked, commits and counts told: against `pg_waldump
//! --rmgr=Transaction`, which checks and tells the commits; against the same with `-q`, which only checks; against `cat`,
//! which only reads. Then compressed, on one core and on two; and a second look, by the index.

use std::num::NonZeroUsize;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use lifeboat::clock::boot_now;
use lifeboat::process::{Account, postgres_bin};
use lifeboat::store::{Bucket, Object};
use lifeboat::system::postgres::wal::read::{Fact, Listed, Source, Step, Walk};
use lifeboat::system::postgres::wal::{Compression, Found, Index, Indexes, Segment, Stored, Survey, Surveyed, push};
use tokio::runtime::Runtime;

use crate::median;

const ROUNDS: usize = 5;

/// Loads, writes as an application does, changes much at once, and copies.
const SCRIPT: &str = r#"
set -eu
bin=$1 place=$2
"$bin/initdb" -D "$place/data" -U bench --no-sync --locale=C -E UTF8 > /dev/null
cat >> "$place/data/postgresql.conf" <<CONF
listen_addresses = ''
unix_socket_directories = '$place'
fsync = off
wal_keep_size = 20GB
max_wal_size = 20GB
checkpoint_timeout = 60s
CONF
"$bin/pg_ctl" -D "$place/data" -w -l "$place/log" start > /dev/null
export PGHOST="$place" PGUSER=bench PGDATABASE=postgres
"$bin/pgbench" -i -q -s 20 > /dev/null 2>&1
"$bin/pgbench" -n -c 4 -t 25000 > /dev/null 2>&1
"$bin/psql" -qc "update pgbench_accounts set abalance = 1 where aid % 4 = 0" -c "delete from pgbench_accounts where aid % 9 = 0"
"$bin/pg_ctl" -D "$place/data" -w stop > /dev/null
"#;

pub fn run() {
    let place = Place::new();
    let wal = Source::Directory(place.0.join("wal"));
    let segments = wal.list().expect("the WAL is listed");
    let bytes: u64 = segments.iter().map(|listed| listed.bytes).sum();
    let (mut ours, mut theirs, mut quiet, mut cat): (Vec<Duration>, Vec<Duration>, Vec<Duration>, Vec<Duration>) =
        Default::default();
    let mut commits = 0;
    for _ in 0..ROUNDS {
        ours.push(timed(|| commits = walk(&wal, &segments, 1)));
        theirs.push(timed(|| place.pg_waldump(&segments, &[])));
        quiet.push(timed(|| place.pg_waldump(&segments, &["-q"])));
        cat.push(timed(|| place.cat(&segments)));
    }
    let (ours, theirs, quiet, cat) = (median(ours), median(theirs), median(quiet), median(cat));
    let speed = |millis: f64| bytes as f64 / millis / 1e6;
    println!("  {} segments, {} MB, {commits} commits", segments.len(), bytes / 1_000_000);
    println!(
        "  one core: lifeboat {:.2} GB/s, pg_waldump {:.2}, its -q {:.2}, cat {:.2}",
        speed(ours),
        speed(theirs),
        speed(quiet),
        speed(cat)
    );
    println!("  {:.2}× pg_waldump (target ≥ 2.5), {:.2}× its -q, {:.2}× cat", theirs / ours, quiet / ours, cat / ours);
    let stored = Source::Directory(place.0.join("stored"));
    let segments = stored.list().expect("the WAL is listed");
    let (mut one, mut two): (Vec<Duration>, Vec<Duration>) = Default::default();
    for _ in 0..ROUNDS {
        one.push(timed(|| assert_eq!(walk(&stored, &segments, 1), commits)));
        two.push(timed(|| assert_eq!(walk(&stored, &segments, 2), commits)));
    }
    let (one, two) = (median(one), median(two));
    println!(
        "  compressed: {:.2} GB/s on one core, {:.2} on two: {:.2}× (target ≥ 1.6)",
        speed(one),
        speed(two),
        one / two
    );
    index(&place);
}

/// The first look at an archive and the second; then one at a thousand segments, made of the same indexes.
fn index(place: &Place) {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let open = |name: &str| {
        let path = place.0.join(name);
        std::fs::create_dir(&path).expect("a directory");
        Bucket::open(&format!("file://{}", path.display()), "").expect("the bucket")
    };
    let bucket = open("bucket");
    let plain = Source::Directory(place.0.join("wal")).list().expect("the WAL is listed");
    for listed in &plain {
        runtime
            .block_on(push(&bucket, &place.0.join("wal").join(&listed.key), Compression::Zstd))
            .expect("the segment is stored");
    }
    let (first, surveyed, segments) = look(&runtime, &bucket);
    assert_eq!((surveyed.read as usize, segments), (plain.len(), plain.len()));
    let (second, again, _) = look(&runtime, &bucket);
    // The last segment is read again: it may go on.
    assert!(again.read <= 1, "{}", again.read);
    let indexes = runtime.block_on(bucket.list("wal-index")).expect("the indexes are listed");
    println!(
        "  a look at {} segments in a bucket: {} ms, the second {} ms; an index has {} kB",
        plain.len(),
        first.as_millis(),
        second.as_millis(),
        indexes.iter().map(|object| object.size).sum::<u64>() / 1000 / indexes.len() as u64
    );
    let thousand = open("thousand");
    runtime.block_on(copies(&bucket, &indexes, plain[0].segment, &thousand));
    let looks = (0..ROUNDS).map(|_| {
        let (took, surveyed, segments) = look(&runtime, &thousand);
        assert_eq!((surveyed.read, segments), (0, 1000));
        took
    });
    println!("  a look at 1,000 indexed segments: {:.0} ms", median(looks.collect()));
}

/// Takes the time of a look at everything, listing included.
fn look(runtime: &Runtime, bucket: &Bucket) -> (Duration, Surveyed, usize) {
    let source = Source::Bucket { bucket: bucket.clone(), runtime: runtime.handle().clone() };
    let began = boot_now();
    let segments = source.list().expect("the archive is listed");
    let indexes = runtime.block_on(Indexes::list(bucket));
    let threads = NonZeroUsize::new(2).expect("two");
    let survey = Survey {
        bucket,
        source: &source,
        indexes: &indexes,
        segments: &segments,
        system_identifier: None,
        threads,
        keep: true,
    };
    let (mut found, mut commits) = (0, 0);
    let surveyed = survey.run(runtime.handle(), |what| {
        let Found::Segment { index, .. } = what else { panic!("damage") };
        found += 1;
        commits += index.pace().expect("the index is whole").iter().map(|pace| pace.commits).sum::<u64>();
        ControlFlow::Continue(())
    });
    let took = boot_now() - began;
    assert!(commits > 0);
    (took, surveyed.expect("the archive is readable"), found)
}

/// A thousand segments, which, indexed, are not looked into: only the listing is compared. Every index is made to follow
/// the one before it.
async fn copies(bucket: &Bucket, indexes: &[Object], first: Segment, thousand: &Bucket) {
    let id = bucket.read("archive.json").await.expect("archive.json");
    thousand.create("archive.json", id).await.expect("a copy");
    let segments = (0..1000).map(|number| Segment { number: 1000 + number, ..first });
    for segment in segments {
        thousand.create(&format!("wal/00000001/{segment}.zst"), "x").await.expect("an object");
    }
    let mut before = None;
    for (number, object) in thousand.list("wal").await.expect("the copies").into_iter().enumerate() {
        let segment = Segment { number: 1000 + number as u64, ..first };
        let listed = Listed { segment, key: object.key, bytes: object.size, modified: object.modified };
        let index = bucket.read(&indexes[number % indexes.len()].key).await.expect("an index");
        let mut index = Index::parse(&index).expect("an index");
        index.summary.stored = Stored::of(&listed);
        index.summary.rest.clear();
        index.summary.before = before.replace(index.summary.after);
        thousand.create(&Index::key(&listed, index.summary.before), index.to_bytes()).await.expect("an index");
    }
}

fn timed(work: impl FnOnce()) -> Duration {
    let began = boot_now();
    work();
    boot_now() - began
}

/// How many commits there are.
fn walk(source: &Source, segments: &[Listed], threads: usize) -> usize {
    let threads = NonZeroUsize::new(threads).expect("a number of threads");
    let mut commits = 0;
    let walk = Walk { source, segments, system_identifier: None, threads, state: None };
    let walked = walk.run(|step| {
        match step {
            Step::Segment { joined, .. } => {
                commits += joined.facts.iter().filter(|fact| matches!(fact, Fact::Commit(_))).count();
            }
            Step::Damaged(damage) => panic!("{damage}"),
        }
        ControlFlow::Continue(())
    });
    walked.expect("the WAL is readable");
    commits
}

struct Place(PathBuf);

impl Place {
    fn new() -> Self {
        let place = Self(PathBuf::from(format!("/tmp/lb-bench-wal-{}", std::process::id())));
        std::fs::create_dir(&place.0).expect("a directory");
        let bin = postgres_bin().expect("PostgreSQL");
        let mut command = Command::new("/bin/sh");
        command.args(["-c", SCRIPT, "script"]).arg(bin).arg(&place.0).stdin(Stdio::null()).current_dir("/");
        if let Some(account) = Account::unprivileged().expect("the accounts") {
            use std::os::unix::process::CommandExt as _;
            account.give(&place.0).expect("root may give files away");
            command.uid(account.uid).gid(account.gid);
        }
        assert!(command.status().expect("a shell").success(), "{}", place.0.join("log").display());
        place.segments();
        place
    }

    /// What was written, without what only waits to be used again; plain, and as the archive stores it.
    fn segments(&self) {
        let last = Command::new(postgres_bin().expect("PostgreSQL").join("pg_controldata"))
            .arg(self.0.join("data"))
            .env("LC_ALL", "C")
            .output()
            .expect("pg_controldata starts");
        let last = String::from_utf8(last.stdout).expect("text");
        let last = last.lines().find_map(|line| line.strip_prefix("Latest checkpoint's REDO WAL file:")).expect("one");
        let [plain, stored] = ["wal", "stored"].map(|name| self.0.join(name));
        [&plain, &stored].into_iter().for_each(|path| std::fs::create_dir(path).expect("a directory"));
        for entry in std::fs::read_dir(self.0.join("data/pg_wal")).expect("pg_wal") {
            let entry = entry.expect("an entry");
            let name = entry.file_name().into_string().expect("text");
            if name.len() == 24 && name.as_str() <= last.trim() {
                std::fs::copy(entry.path(), plain.join(&name)).expect("a copy");
                let stored = stored.join(format!("{name}.zst"));
                let zstd =
                    Command::new("zstd").args(["-q1", "--check"]).arg(entry.path()).arg("-o").arg(stored).status();
                assert!(zstd.expect("zstd starts").success());
            }
        }
    }

    fn pg_waldump(&self, segments: &[Listed], options: &[&str]) {
        let names = [segments.first(), segments.last()].map(|listed| listed.expect("segments").segment.to_string());
        let output = Command::new(postgres_bin().expect("PostgreSQL").join("pg_waldump"))
            .args(options)
            .args(["--rmgr=Transaction", "-p"])
            .arg(self.0.join("wal"))
            .args(&names)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .output()
            .expect("pg_waldump starts");
        // WAL just ends in the last segment, which is an error to it.
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() || said.contains("invalid record length"), "{said}");
    }

    fn cat(&self, segments: &[Listed]) {
        let directory: &Path = &self.0.join("wal");
        let status = Command::new("cat")
            .args(segments.iter().map(|listed| directory.join(&listed.key)))
            .stdout(Stdio::null())
            .status();
        assert!(status.expect("cat starts").success());
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
