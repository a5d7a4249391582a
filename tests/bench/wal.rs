//! Reading WAL, every checksum checked, from the page cache: against `pg_waldump --rmgr=Transaction`, which checks them
//! too, and against `cat`, which only reads. Then compressed, on one core and on two; and a second look, by the index.

use std::num::NonZeroUsize;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use lifeboat::clock::boot_now;
use lifeboat::process::{Account, postgres_bin};
use lifeboat::system::postgres::wal::read::{Fact, Listed, Source, Step, Walk};

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
    let (mut ours, mut theirs, mut cat): (Vec<Duration>, Vec<Duration>, Vec<Duration>) = Default::default();
    let mut commits = 0;
    for _ in 0..ROUNDS {
        ours.push(timed(|| commits = walk(&wal, &segments, 1)));
        theirs.push(timed(|| place.pg_waldump(&segments)));
        cat.push(timed(|| place.cat(&segments)));
    }
    let (ours, theirs, cat) = (median(ours), median(theirs), median(cat));
    let speed = |millis: f64| bytes as f64 / millis / 1e6;
    println!("  {} segments, {} MB, {commits} commits", segments.len(), bytes / 1_000_000);
    println!(
        "  one core: lifeboat {:.2} GB/s, pg_waldump {:.2}, cat {:.2}: {:.2}× pg_waldump (target ≥ 2.5), {:.2}× cat",
        speed(ours),
        speed(theirs),
        speed(cat),
        theirs / ours,
        cat / ours
    );
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

    fn pg_waldump(&self, segments: &[Listed]) {
        let names = [segments.first(), segments.last()].map(|listed| listed.expect("segments").segment.to_string());
        let output = Command::new(postgres_bin().expect("PostgreSQL").join("pg_waldump"))
            .args(["-q", "--rmgr=Transaction", "-p"])
            .arg(self.0.join("wal"))
            .args(&names)
            .output()
            .expect("pg_waldump starts");
        // The last segment ends before its end, which it says as an error.
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(
            said.is_empty()
                || said.contains(&names[1][8..16].trim_start_matches('0').to_owned())
                || said.contains("invalid record"),
            "{said}"
        );
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
