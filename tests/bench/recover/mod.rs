//! Time to recover: from nothing to the first write, a base backup of 1.2 GB and more than 80 segments of WAL, every checksum
//! verified. Against pgBackRest (two processes, asynchronous archive-get, zstd), and against a script with `tar`, and `cp` as
//! restore_command, whose files are uncompressed and verified by nobody. Then the same out of S3, 20 ms a request, against
//! pgBackRest. Then the promotion alone, with more than 1 GB of dirty buffers.

mod cloud;
mod scripts;

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use cloud::{Cloud, DELAY};
use lifeboat::clock::boot_now;
use lifeboat::process::{Account, find_program, postgres_bin};
use serde_json::Value;

use crate::{lifeboat, median};

const ROUNDS: usize = 3;

/// pgbench's: 15 MB each.
const SCALE: &str = "80";

const SEGMENTS: &str = "86";

const PORT: &str = "29998";

/// What the recovered server must hold, whoever recovered it.
const STATE: &str =
    "select (select count(*) from pgbench_history) || ' ' || (select sum(abalance) from pgbench_accounts)";

pub fn run() {
    assert!(find_program("pgbackrest").is_some(), "the peer is pgbackrest: apt-get install pgbackrest");
    let place = Place::build();
    println!("  base backup {} MB, {} segments of WAL", place.base_bytes() / 1_000_000, place.segments());
    let mut local = Rounds::default();
    for _ in 0..ROUNDS {
        local.ours.push(place.lifeboat("lifeboat.toml", &[]));
        local.pgbackrest.push(place.script(scripts::PGBACKREST, "pgbackrest.conf"));
        local.tar.push(place.script(scripts::TAR, ""));
    }
    let (ours, pgbackrest, tar) = local.medians();
    println!(
        "  to the first write: lifeboat {ours:.1} s, pgbackrest {pgbackrest:.1} s: {:.2}× (target ≤ 0.6); tar and cp \
         {tar:.1} s: {:.2}× (target ≤ 0.6)",
        ours / pgbackrest,
        ours / tar
    );
    place.print_steps();
    let cloud = Cloud::start(place.path(), place.path());
    place.configure_cloud(&cloud);
    let mut remote = Rounds::default();
    let (mut asked, mut peer_asked) = (0, 0);
    let certificate = cloud.certificate.display().to_string();
    place.look(&certificate);
    println!(
        "  the first look at the S3 archive: {} requests; it leaves the index that the second one reads",
        cloud.requests()
    );
    for _ in 0..ROUNDS {
        remote.ours.push(place.lifeboat("cloud.toml", &[("SSL_CERT_FILE", &certificate)]));
        asked = cloud.requests();
        remote.pgbackrest.push(place.script(scripts::PGBACKREST, "cloud.conf"));
        peer_asked = cloud.requests();
    }
    let (ours, pgbackrest, _) = remote.medians();
    println!(
        "  out of S3, {} ms a request: lifeboat {ours:.1} s ({asked} requests), pgbackrest {pgbackrest:.1} s \
         ({peer_asked}): {:.2}× (target ≤ 0.6)",
        DELAY.as_millis(),
        ours / pgbackrest
    );
    place.print_steps();
    place.promotions();
}

#[derive(Default)]
struct Rounds {
    ours: Vec<Duration>,
    pgbackrest: Vec<Duration>,
    tar: Vec<Duration>,
}

impl Rounds {
    /// Seconds.
    fn medians(self) -> (f64, f64, f64) {
        (median(self.ours) / 1e3, median(self.pgbackrest) / 1e3, median(self.tar) / 1e3)
    }
}

/// Three archives of one cluster, and where it is recovered.
struct Place(tempfile::TempDir);

impl Place {
    fn path(&self) -> &Path {
        self.0.path()
    }

    fn build() -> Self {
        let directory = tempfile::tempdir().expect("a place");
        give(directory.path());
        let place = Self(directory);
        std::fs::copy(lifeboat(), place.path().join("lifeboat")).expect("the program is copied");
        place.write("backup.toml", scripts::BACKUP_RUNBOOK);
        place.write("recover.toml", &scripts::RECOVER_RUNBOOK.replace("LOOK", ""));
        place.write("look.toml", &scripts::RECOVER_RUNBOOK.replace("LOOK", scripts::LOOK));
        place.write("lifeboat.toml", &place.inventory(&format!("url = \"file://{}/bucket\"", place.path().display())));
        let began = boot_now();
        place.shell(scripts::BUILD, &[SCALE, SEGMENTS]);
        println!("  (built in {:.0} s)", (boot_now() - began).as_secs_f64());
        place
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path().join(name), text).expect("a file");
        give(&self.path().join(name));
    }

    fn inventory(&self, store: &str) -> String {
        let place = self.path().display();
        format!(
            "format = 1\nservice = \"bench\"\n[stores.backups]\n{store}\n[systems.db]\nkind = \"postgres\"\n\
             environment = \"bench\"\nurl = \"postgresql://bench@/postgres?host={place}&port={PORT}\"\n\
             backups = {{ store = \"backups\" }}\nrestore = {{ directory = \"{place}/restored\", port = 29997 }}\n"
        )
    }

    fn configure_cloud(&self, cloud: &Cloud) {
        let url = format!("s3://bucket?endpoint=https://localhost:{}", cloud.port);
        self.write("key", "none");
        let keys = "access_key = \"none\"\nsecret_key = { file = \"key\" }";
        self.write("cloud.toml", &self.inventory(&format!("url = \"{url}\"\n{keys}")));
        let conf = std::fs::read_to_string(self.path().join("pgbackrest.conf")).expect("the peer's configuration");
        let remote = format!(
            "repo1-type=s3\nrepo1-path=/\nrepo1-s3-bucket=repo\nrepo1-s3-endpoint=localhost\nrepo1-s3-region=us-east-1\n\
             repo1-s3-key=none\nrepo1-s3-key-secret=none\nrepo1-s3-uri-style=path\nrepo1-storage-host=localhost\n\
             repo1-storage-port={}\nrepo1-storage-ca-file={}",
            cloud.port,
            cloud.certificate.display()
        );
        self.write("cloud.conf", &conf.replace(&format!("repo1-path={}/repo", self.path().display()), &remote));
    }

    fn target(&self) -> String {
        std::fs::read_to_string(self.path().join("target")).expect("the target").trim().to_owned()
    }

    /// Runs a script with the programs, the place and the port before its own words.
    fn shell(&self, script: &str, words: &[&str]) {
        let bin = postgres_bin().expect("PostgreSQL");
        let mut command = self.as_owner(Path::new("/bin/sh"));
        command.args(["-c", script, "script"]).arg(bin).arg(self.path()).arg(PORT).args(words);
        let output = command.stdout(Stdio::null()).stderr(Stdio::piped()).output().expect("a shell");
        let log = std::fs::read_to_string(self.path().join("peer/log")).unwrap_or_default();
        assert!(output.status.success(), "{}\n{log}", String::from_utf8_lossy(&output.stderr));
    }

    fn lifeboat(&self, inventory: &str, environment: &[(&str, &str)]) -> Duration {
        let began = boot_now();
        self.recover("recover.toml", inventory, environment);
        let took = boot_now() - began;
        self.end(&self.path().join("restored"), "29997");
        took
    }

    fn recover(&self, runbook: &str, inventory: &str, environment: &[(&str, &str)]) {
        let at = self.target().replacen(' ', "T", 1).replace("+00", "Z");
        let mut command = self.as_owner(&self.path().join("lifeboat"));
        command.arg("run").arg(self.path().join(runbook)).arg("-i").arg(self.path().join(inventory));
        command.args(["--headless", "--yes", "--json", "--var", &format!("at={at}"), "--state-dir"]);
        command.arg(self.path().join("home")).envs(environment.iter().copied());
        let output = command.output().expect("lifeboat runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        self.write("last.json", &String::from_utf8_lossy(&output.stdout));
    }

    /// As a scheduled check of the backups does: it leaves an index of the WAL beside it.
    fn look(&self, certificate: &str) {
        let mut command = self.as_owner(&self.path().join("lifeboat"));
        command.arg("points").arg("-i").arg(self.path().join("cloud.toml")).env("SSL_CERT_FILE", certificate);
        let output = command.output().expect("lifeboat runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    fn script(&self, script: &str, conf: &str) -> Duration {
        let data = self.path().join("peer");
        let conf = self.path().join(conf).display().to_string();
        let target = self.target();
        let began = boot_now();
        self.shell(script, &[data.to_str().expect("a path"), &target, &conf]);
        let took = boot_now() - began;
        self.end(&data, PORT);
        took
    }

    /// Whoever recovered it: the same state. Then it goes.
    fn end(&self, data: &Path, port: &str) {
        let bin = postgres_bin().expect("PostgreSQL");
        let host = match port {
            PORT => self.path().to_owned(),
            _ => data.join(".lifeboat/socket"),
        };
        let mut psql = self.as_owner(&bin.join("psql"));
        let found =
            psql.arg("-h").arg(host).args(["-p", port, "-U", "bench", "-d", "postgres", "-Atqc", STATE]).output();
        let found = String::from_utf8_lossy(&found.expect("psql runs").stdout).trim().to_owned();
        let expected = self.path().join("state");
        match std::fs::read_to_string(&expected) {
            Ok(expected) => assert_eq!(found, expected, "{} is another state", data.display()),
            Err(_) => self.write("state", &found),
        }
        let stopped =
            self.as_owner(&bin.join("pg_ctl")).args(["-m", "immediate", "-w", "stop", "-D"]).arg(data).output();
        assert!(stopped.is_ok_and(|stopped| stopped.status.success()), "{} is still running", data.display());
        std::fs::remove_dir_all(data).expect("the data directory goes");
        let _ = std::fs::remove_dir_all(self.path().join("spool/archive"));
    }

    /// The steps of the last run: name, seconds, facts.
    fn steps(&self) -> Vec<(String, f64, Value)> {
        let last = std::fs::read_to_string(self.path().join("last.json")).expect("what the run said");
        let last: Value = serde_json::from_str(last.lines().last().unwrap_or_default()).expect("an object");
        let journal = std::fs::read_to_string(last["journal"].as_str().expect("a path")).expect("the journal");
        let lines: Vec<Value> = journal.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        let mut began = std::collections::BTreeMap::new();
        let mut steps = Vec::new();
        for envelope in &lines {
            let (event, at) = (&envelope["event"], envelope["boot_ms"].as_u64().unwrap_or(0));
            let step = || event["step"].as_str().unwrap_or_default().to_owned();
            match event["type"].as_str().unwrap_or_default() {
                "step-started" => drop(began.insert(step(), at)),
                "step-finished" => {
                    let seconds = began.get(&step()).map_or(0.0, |began| (at - began) as f64 / 1e3);
                    steps.push((step(), seconds, event["outcome"]["facts"].clone()));
                }
                _ => {}
            }
        }
        steps
    }

    fn print_steps(&self) {
        let steps: Vec<String> = self
            .steps()
            .iter()
            .map(|(step, seconds, facts)| match facts["base_seconds"].as_f64() {
                Some(base) => format!(
                    "{step} {seconds:.1} s (base {base:.1}, replay {:.1})",
                    facts["replay_seconds"].as_f64().unwrap_or_default()
                ),
                None => format!("{step} {seconds:.2} s"),
            })
            .collect();
        println!("    lifeboat, last round: {}", steps.join(", "));
    }

    fn promotions(&self) {
        let (mut took, mut dirty) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            self.recover("look.toml", "lifeboat.toml", &[]);
            let steps = self.steps();
            let seconds =
                |name: &str| steps.iter().find(|(step, ..)| step == name).map_or(f64::NAN, |(_, took, _)| *took);
            took.push(Duration::from_secs_f64(seconds("promote")));
            dirty.push(steps.iter().find(|(step, ..)| step == "look").map_or(Value::Null, |(.., facts)| facts.clone()));
            self.end(&self.path().join("restored"), "29997");
        }
        let worst = took.iter().max().map_or(f64::NAN, Duration::as_secs_f64);
        println!(
            "  promotion after the pause, {} with dirty buffers: median {:.2} s, worst {worst:.2} s (target ≤ 1.5)",
            dirty.last().map_or_else(String::new, Value::to_string),
            median(took) / 1e3
        );
    }

    fn base_bytes(&self) -> u64 {
        std::fs::metadata(self.path().join("base.tar")).map_or(0, |meta| meta.len())
    }

    /// After the first backup.
    fn segments(&self) -> usize {
        std::fs::read_dir(self.path().join("plain")).map_or(0, |entries| {
            let names = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
            let names: std::collections::BTreeSet<String> = names.collect();
            let backup = names.iter().find(|name| name.ends_with(".backup")).map(|name| name[..24].to_owned());
            names.iter().filter(|name| name.len() == 24 && Some(*name) >= backup.as_ref()).count()
        })
    }

    /// A command as the user who owns the servers.
    fn as_owner(&self, program: &Path) -> Command {
        use std::os::unix::process::CommandExt as _;
        let mut command = Command::new(program);
        if let Some(account) = account() {
            command.uid(account.uid).gid(account.gid);
        }
        command.env("HOME", self.path().join("home")).stdin(Stdio::null()).current_dir(self.path());
        command
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let bin = postgres_bin().expect("PostgreSQL");
        for data in ["data", "restored", "peer"] {
            // Most are gone.
            let _ = self
                .as_owner(&bin.join("pg_ctl"))
                .args(["-m", "immediate", "stop", "-D"])
                .arg(self.path().join(data))
                .output();
        }
    }
}

fn account() -> Option<Account> {
    Account::unprivileged().expect("the accounts").filter(|_| nix::unistd::geteuid().is_root())
}

fn give(path: &Path) {
    account().iter().for_each(|account| account.give(path).expect("root may give files away"));
}
