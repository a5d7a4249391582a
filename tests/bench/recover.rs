//! Time to recover of the sandbox's medium scale: from nothing to the first write, base backup and WAL, checksums verified;
//! against the same steps by a plain shell script with `tar`, `cp` as restore_command, and psql. The script gets its files
//! uncompressed, which the bucket does not.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use lifeboat::clock::boot_now;
use lifeboat::process::postgres_bin;
use serde_json::Value;

use crate::{lifeboat, median};

const ROUNDS: usize = 3;

const RUNBOOK: &str = r#"
format = 1
id = "recover"
title = "Recover"
owner = "bench"
revision = 1
systems = { db = "postgres" }
[variables.damage_at]
[[phases]]
title = "Recover"
[[phases.steps]]
id = "choose"
do = "recovery.choose"
systems = ["db"]
suggest = "{damage_at}"
[[phases.steps]]
id = "restore"
do = "postgres.restore"
system = "db"
[[phases.steps]]
id = "promote"
do = "postgres.promote"
system = "db"
[[phases.steps]]
id = "write"
do = "smoke.sql"
system = "db"
sql = "select pg_current_xact_id()::text as written"
"#;

const SCRIPT: &str = r#"
set -eu
data=$1 archive=$2 base=$3 target=$4 port=$5 bin=$6 socket=$7
mkdir -m 700 "$data"
tar xf "$base" -C "$data"
chmod 700 "$data"
cat > "$data/postgresql.conf" <<CONF
port = $port
listen_addresses = ''
unix_socket_directories = '$socket'
restore_command = 'cp $archive/%f %p'
recovery_target_time = '$target'
recovery_target_inclusive = off
recovery_target_action = promote
max_connections = 100
CONF
printf 'local all all trust\n' > "$data/pg_hba.conf"
: > "$data/postgresql.auto.conf"
touch "$data/recovery.signal"
"$bin/pg_ctl" -D "$data" -w -t 600 -l "$data/log" start > /dev/null
until "$bin/psql" -h "$socket" -p "$port" -U "$8" -d orders -Atqc 'select pg_current_xact_id()' > /dev/null 2>&1; do sleep 0.02; done
"#;

pub fn run() {
    let place = Place(PathBuf::from(format!("/tmp/lb-bench-{}", std::process::id())));
    let up = place.lifeboat(&["sandbox", "up", "--scale", "medium", "--json"]).output().expect("lifeboat runs");
    assert!(up.status.success(), "{}", String::from_utf8_lossy(&up.stderr));
    let status: Value = serde_json::from_slice(&up.stdout).expect("the sandbox's status");
    let text = |name: &str| status[name].as_str().unwrap_or_else(|| panic!("{name} in {status}")).to_owned();
    let inventory = text("inventory");
    let damage = status["variables"]["damage_at"].as_str().expect("when the damage began").to_owned();
    let url = std::fs::read_to_string(place.0.join("secrets/orders-db")).expect("the URL");
    let user = url.split("://").nth(1).and_then(|rest| rest.split(':').next()).expect("a user").to_owned();
    let shell = Shell::prepare(&place.0);
    let (mut ours, mut theirs): (Vec<Duration>, Vec<Duration>) = Default::default();
    for round in 0..ROUNDS {
        ours.push(place.recover(&inventory, &damage));
        theirs.push(shell.recover(round, &damage, &user));
    }
    let (ours, theirs) = (median(ours) / 1e3, median(theirs) / 1e3);
    println!("  base backup {}, {} segments of WAL", shell.base_bytes(), shell.segments());
    println!("  lifeboat {ours:.1} s, script {theirs:.1} s: {:.2}× (target ≤ 0.8)", ours / theirs);
}

struct Place(PathBuf);

impl Place {
    fn lifeboat(&self, args: &[&str]) -> Command {
        let mut command = Command::new(lifeboat());
        command.args(args).env("LIFEBOAT_SANDBOX_DIR", &self.0).stdin(Stdio::null()).stdout(Stdio::piped());
        command
    }

    fn recover(&self, inventory: &str, damage: &str) -> Duration {
        // As the sandbox's own user, like the script; its home is the sandbox's.
        let runbook = self.0.join("app/recover.toml");
        std::fs::write(&runbook, RUNBOOK).expect("the runbook");
        let restored = self.0.join("restore/orders-db");
        let mut command = as_owner(&self.0, &self.0.join("bin/lifeboat"));
        command.args(["run", runbook.to_str().expect("a path"), "-i", inventory, "--headless", "--yes", "--var"]);
        command.arg(format!("damage_at={damage}")).arg("--state-dir").arg(self.0.join("home/bench"));
        command.env("LIFEBOAT_PROGRAM", self.0.join("bin/lifeboat"));
        let began = boot_now();
        let output = command.output().expect("lifeboat runs");
        let took = boot_now() - began;
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        stop(&self.0, &restored);
        took
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let down = self.lifeboat(&["sandbox", "down"]).output();
        assert!(down.is_ok_and(|down| down.status.success()), "the sandbox is left in {}", self.0.display());
    }
}

/// A command as the user who owns the sandbox.
fn as_owner(sandbox: &Path, program: &Path) -> Command {
    use std::os::unix::fs::MetadataExt as _;
    use std::os::unix::process::CommandExt as _;
    let owner = std::fs::metadata(sandbox).expect("the sandbox");
    let mut command = Command::new(program);
    if nix::unistd::geteuid().is_root() {
        command.uid(owner.uid()).gid(owner.gid());
    }
    command.env("HOME", sandbox.join("home")).stdin(Stdio::null()).current_dir(sandbox);
    command
}

fn stop(sandbox: &Path, data: &Path) {
    let bin = postgres_bin().expect("PostgreSQL");
    let stopped = as_owner(sandbox, &bin.join("pg_ctl"))
        .args(["-m", "immediate", "-w", "stop", "-D"])
        .arg(data)
        .stdout(Stdio::null())
        .status();
    assert!(stopped.is_ok_and(|status| status.success()), "{} is still running", data.display());
    std::fs::remove_dir_all(data).expect("the data directory goes");
}

/// The peer's files: what the bucket holds, uncompressed.
struct Shell {
    sandbox: PathBuf,
    archive: PathBuf,
    base: PathBuf,
}

impl Shell {
    fn prepare(sandbox: &Path) -> Self {
        let peer = sandbox.join("app/peer");
        let (archive, base, unpacked) = (peer.join("wal"), peer.join("base.tar"), peer.join("unpacked"));
        let script = format!(
            "set -eu; mkdir -p {wal} {unpacked}; for f in {sandbox}/bucket/orders-db/wal/*/*.zst; do n=$(basename $f .zst); \
             zstd -dqf $f -o {wal}/$n; done; for p in {sandbox}/bucket/orders-db/base/*/part-*.tar.zst; do zstd -dqc $p | tar \
             xf - -C {unpacked}; done; tar cf {base} -C {unpacked} .; rm -rf {unpacked}",
            wal = archive.display(),
            unpacked = unpacked.display(),
            sandbox = sandbox.display(),
            base = base.display(),
        );
        let made = as_owner(sandbox, Path::new("/bin/sh")).args(["-c", &script]).status().expect("a shell");
        assert!(made.success(), "the peer's files need zstd and tar");
        Self { sandbox: sandbox.to_owned(), archive, base }
    }

    fn recover(&self, round: usize, damage: &str, user: &str) -> Duration {
        let data = self.sandbox.join(format!("restore/peer-{round}"));
        let socket = self.sandbox.join("app/peer");
        let target = damage.replace('T', " ").replace('Z', "+00");
        let bin = postgres_bin().expect("PostgreSQL");
        let mut command = as_owner(&self.sandbox, Path::new("/bin/sh"));
        command.args(["-c", SCRIPT, "script"]).args([&data, &self.archive, &self.base]).arg(target).arg("29999");
        command.arg(bin).arg(socket).arg(user);
        let began = boot_now();
        let done = command.status().expect("a shell");
        let took = boot_now() - began;
        assert!(done.success(), "the script failed: {}", std::fs::read_to_string(data.join("log")).unwrap_or_default());
        stop(&self.sandbox, &data);
        took
    }

    fn base_bytes(&self) -> String {
        format!("{} MB", std::fs::metadata(&self.base).map_or(0, |meta| meta.len()) / 1_000_000)
    }

    fn segments(&self) -> usize {
        std::fs::read_dir(&self.archive).map_or(0, Iterator::count)
    }
}
