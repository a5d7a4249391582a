//! A base backup into a bucket, compressed and encrypted, against `pg_basebackup | zstd | age` in a shell pipe, which leaves
//! the WAL out and verifies nothing; and against pgBackRest with two processes, into an encrypted repository of its own, which
//! waits for the WAL as we do. Then the same without encryption, to see what that costs; and the memory it takes.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use lifeboat::clock::boot_now;
use lifeboat::inventory::{self, Recipient};
use lifeboat::process::{Account, postgres_bin};
use lifeboat::secret::Secret;
use lifeboat::store::Encryption;
use lifeboat::system::postgres::wal::{Location, archive_command};
use lifeboat::system::postgres::{Backup, Reporter};
use tokio_util::sync::CancellationToken;

use crate::{lifeboat, median};

const ROUNDS: usize = 3;

/// pgbench's: 15 MB each.
const SCALE: &str = "60";

const SCRIPT: &str = r#"
set -eu
bin=$1 place=$2 scale=$3 archive=$4
"$bin/initdb" -D "$place/data" -U bench --data-checksums --no-sync --locale=C -E UTF8 > /dev/null
cat >> "$place/data/postgresql.conf" <<CONF
listen_addresses = ''
unix_socket_directories = '$place'
fsync = off
max_wal_size = 20GB
CONF
"$bin/pg_ctl" -D "$place/data" -w -l "$place/log" start > /dev/null
PGHOST="$place" "$bin/pgbench" -i -q -s "$scale" -U bench postgres > /dev/null 2>&1
printf "archive_mode = on\narchive_command = '%s'\n" "$archive" >> "$place/data/postgresql.conf"
"$bin/pg_ctl" -D "$place/data" -w -l "$place/log" -m fast restart > /dev/null
mkdir "$place/repo" "$place/lock"
cat > "$place/pgbackrest.conf" <<CONF
[global]
repo1-path=$place/repo
repo1-cipher-type=aes-256-cbc
repo1-cipher-pass=a-pass-phrase-of-this-benchmark
lock-path=$place/lock
log-level-file=off
log-level-console=warn
compress-type=zst
compress-level=1
process-max=2
start-fast=y
repo1-bundle=y
[x]
pg1-path=$place/data
pg1-socket-path=$place
pg1-user=bench
pg1-database=postgres
CONF
pgbackrest --config="$place/pgbackrest.conf" --stanza=x stanza-create 2> /dev/null
"#;

/// What it keeps on disk is synced already. The WAL of this backup alone goes where it waits for it.
const PGBACKREST: &str = r#"
set -eu
touch "$2/turn-of-pgbackrest"
pgbackrest --config="$2/pgbackrest.conf" --stanza=x --type=full --no-expire-auto backup 2> "$2/pgbackrest.log"
rm "$2/turn-of-pgbackrest"
"#;

const PIPE: &str = r#"
set -eu -o pipefail
"$1/pg_basebackup" -h "$2" -U bench -D - -F tar -X none --checkpoint=fast --no-sync |
    zstd -q -1 | age -r "$3" > "$2/pipe.tar.zst.age"
sync "$2/pipe.tar.zst.age"
"#;

pub fn run() {
    let place = Place::new();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let (mut ours, mut pipe, mut other, mut clear): (Vec<Duration>, Vec<Duration>, Vec<Duration>, Vec<Duration>) =
        Default::default();
    let mut stored = 0;
    reset_memory();
    for _ in 0..ROUNDS {
        let (took, bytes) = place.lifeboat(&runtime, true);
        (stored, _) = (bytes, ours.push(took));
        pipe.push(place.timed(PIPE));
        other.push(place.timed(PGBACKREST));
    }
    let memory = memory_mb();
    for _ in 0..ROUNDS {
        clear.push(place.lifeboat(&runtime, false).0);
    }
    let (ours, pipe, other, clear) = (median(ours), median(pipe), median(other), median(clear));
    println!(
        "  {} MB stored: lifeboat {:.1} s, pg_basebackup | zstd -1 | age {:.1} s: {:.2}× (target ≤ 1.2); {memory} MB of \
         memory (target < 150)",
        stored / 1_000_000,
        ours / 1e3,
        pipe / 1e3,
        ours / pipe
    );
    println!(
        "  pgBackRest with two processes, zstd -1 and AES-256: {:.1} s: {:.2}× (target ≤ 1.0)",
        other / 1e3,
        ours / other
    );
    println!("  not encrypted: {:.1} s; the encryption takes {:.2}× of that", clear / 1e3, ours / clear);
}

/// The most that this process has held since, in MB.
fn memory_mb() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a peak");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") / 1024
}

fn reset_memory() {
    std::fs::write("/proc/self/clear_refs", "5").expect("the peak is begun anew");
}

struct Place {
    directory: PathBuf,
    bin: PathBuf,
    recipient: Recipient,
}

impl Place {
    fn new() -> Self {
        let directory = PathBuf::from(format!("/var/tmp/lb-bench-backup-{}", std::process::id()));
        for path in [directory.clone(), directory.join("bucket"), directory.join("bucket/orders-db")] {
            std::fs::create_dir(&path).expect("a directory");
            if let Some(account) = Account::unprivileged().expect("the accounts") {
                account.give(&path).expect("root may give files away");
            }
        }
        let (_, recipient) = Encryption::generate();
        let place = Self { directory, bin: postgres_bin().expect("PostgreSQL"), recipient };
        let ours = archive_command(lifeboat().as_ref(), &place.location(true));
        let archive = format!(
            "if [ -e {0}/turn-of-pgbackrest ]; then exec pgbackrest --config={0}/pgbackrest.conf --stanza=x archive-push %p; fi; \
             {ours}",
            place.directory.display()
        )
        .replace('\'', "''");
        let mut command = place.shell(SCRIPT);
        assert!(command.arg(SCALE).arg(archive).status().expect("a shell").success());
        place
    }

    fn shell(&self, script: &str) -> Command {
        let mut command = Command::new("/bin/bash");
        command.args(["-c", script, "script"]).arg(&self.bin).arg(&self.directory).stdin(Stdio::null());
        if let Some(account) = Account::unprivileged().expect("the accounts") {
            use std::os::unix::process::CommandExt as _;
            command.uid(account.uid).gid(account.gid).current_dir("/");
        }
        command
    }

    fn location(&self, encrypted: bool) -> Location {
        let encrypt_to = if encrypted { vec![self.recipient.clone()] } else { Vec::new() };
        let encryption = inventory::Encryption { encrypt_to, ..inventory::Encryption::default() }.into();
        let url = format!("file://{}", self.directory.join("bucket").display());
        Location { encryption, ..Location::new(url, "orders-db") }
    }

    /// How long it took, and the bytes that it left.
    fn lifeboat(&self, runtime: &tokio::runtime::Runtime, encrypted: bool) -> (Duration, u64) {
        let backup = Backup {
            url: Secret::new(format!("postgresql://bench@/postgres?host={}", self.directory.display())),
            bucket: self.location(encrypted).open().expect("the bucket"),
            bin: Some(self.bin.clone()),
            full_every: None,
            cancel: CancellationToken::new(),
            report: Reporter::silent(),
        };
        let began = boot_now();
        let taken = runtime.block_on(backup.run()).expect("the backup succeeds").backup;
        let took = boot_now() - began;
        let folder = self.directory.join("bucket/orders-db/base").join(taken.label);
        std::fs::remove_dir_all(folder).expect("it is removed");
        (took, taken.stored_bytes)
    }

    fn timed(&self, script: &str) -> Duration {
        let began = boot_now();
        let mut command = self.shell(script);
        assert!(command.arg(self.recipient.as_str()).status().expect("a shell").success());
        boot_now() - began
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut stop = self.shell(r#""$1/pg_ctl" -D "$2/data" -m immediate stop > /dev/null"#);
        let _ = stop.status();
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}
