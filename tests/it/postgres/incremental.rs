//! Incremental base backups, of a PostgreSQL that takes them.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use lifeboat::clock;
use lifeboat::event::RecoveryTarget;
use lifeboat::recovery::{Wanted, plan};
use lifeboat::system::postgres::{Backup, Proof, Report, Reporter, Taken, catalogue};
use serde_json::Value;

use super::promote::promotion;
use super::restore::{DIGEST, Mounted, at, restore_by, restore_of, run, window};
use crate::check::{SYSTEM, Shop, fact, files};
use crate::encryption::{Pair, encryption};
use crate::support::postgres::{Primary, SUPERUSER, account, program, stop_hard, value};
use crate::support::sandbox::{last_line, text};

const DAY: Duration = Duration::from_secs(24 * 3600);

async fn take(primary: &Primary, full_every: Duration) -> Taken {
    let backup = Backup { full_every: Some(full_every), ..primary.backup() };
    backup.run().await.expect("the backup succeeds")
}

/// A full backup and two incremental ones, with changes of every kind between them.
async fn chain(primary: &Primary) -> [Taken; 3] {
    primary
        .sql(
            "create extension amcheck;
             create table orders (id bigserial primary key, item text not null);
             insert into orders (item) select repeat('before ', 10) || g from generate_series(1, 30000) g",
        )
        .await;
    let full = take(primary, DAY).await;
    primary.sql("update orders set item = 'changed' where id <= 200; create table later as select 1 as n").await;
    let first = take(primary, DAY).await;
    primary.sql("delete from orders where id % 3 = 0; drop table later").await;
    primary.sql("vacuum full orders").await;
    primary.sql("insert into orders (item) select 'after ' || g from generate_series(1, 100) g").await;
    [full, first, take(primary, DAY).await]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chain_comes_back_row_for_row_and_a_broken_one_is_named() {
    let primary = Primary::start_17(&[]).await;
    let [full, first, second] = chain(&primary).await;
    assert!(full.full_because.unwrap().contains("there is no usable earlier backup"));
    assert_eq!((&first.full_because, &second.full_because), (&None, &None));
    let [full, first, second] = [full.backup, first.backup, second.backup];
    let parents = [&full, &first, &second].map(|backup| backup.parent.as_deref());
    assert_eq!(parents, [None, Some(full.label.as_str()), Some(first.label.as_str())]);
    assert!(first.stored_bytes * 2 < full.stored_bytes, "{} of {}", first.stored_bytes, full.stored_bytes);
    primary.sql("insert into orders (item) values ('the last')").await;
    let (before, lsn) = (primary.value(DIGEST).await, primary.value("select pg_current_wal_insert_lsn()::text").await);
    primary.sql("delete from orders").await;
    primary.archive().await;

    let target = RecoveryTarget::Lsn { lsn: lsn.parse().unwrap() };
    let all = window(&primary).await;
    let planned = plan(&all, "orders-db", &Wanted::new(target.clone(), true)).expect("a plan");
    assert_eq!(planned.restore.label, second.label);
    assert!(planned.fetch_bytes >= full.stored_bytes + first.stored_bytes + second.stored_bytes);
    let (clone, result) = run(restore_by(&primary, planned.restore.clone(), "restored")).await;
    let restored = result.expect("the restore succeeds");
    assert_eq!(at(&restored, DIGEST).await, before);
    assert_eq!(at(&restored, "select count(*) from pg_class where relname = 'later'").await, "0");
    promotion(&restored, Proof::NotNeeded { why: "a clone".to_owned() }).run().await.expect("it is promoted");
    for gone in ["chain", "combined"] {
        assert!(!clone.directory.join(".lifeboat").join(gone).exists(), "{gone} is left");
    }
    // PostgreSQL's own opinion, of its indexes and of every page.
    let (port, socket) = (restored.port.to_string(), clone.directory.join(".lifeboat/socket"));
    let directory = clone.directory.to_str().unwrap();
    let amcheck = ["-h", socket.to_str().unwrap(), "-p", &port, "-U", SUPERUSER, "--heapallindexed", "postgres"];
    primary.pg("pg_amcheck", &amcheck).await;
    primary.pg("pg_ctl", &["stop", "-w", "-D", directory, "-m", "fast"]).await;
    primary.pg("pg_checksums", &["--check", "-D", directory]).await;

    // Without the program nothing is begun.
    let bin = primary.path("bin");
    std::fs::create_dir(&bin).unwrap();
    for name in ["postgres", "pg_ctl", "initdb", "pg_controldata"] {
        std::os::unix::fs::symlink(primary.bin.join(name), bin.join(name)).unwrap();
    }
    let fails = async || {
        let mut restore = restore_by(&primary, planned.restore.clone(), "elsewhere");
        restore.bin = Some(bin.clone());
        let (clone, result) = run(restore).await;
        (clone.directory.join(".lifeboat"), result.unwrap_err().to_string())
    };
    let (ours, failure) = fails().await;
    assert!(failure.contains("pg_combinebackup was not found") && failure.contains(&second.label), "{failure}");
    assert!(!ours.exists());
    // Where it fails, what was fetched for it goes.
    let broken = bin.join("pg_combinebackup");
    std::fs::write(&broken, "#!/bin/sh\necho no luck >&2\nexit 3\n").unwrap();
    std::fs::set_permissions(&broken, std::fs::Permissions::from_mode(0o755)).unwrap();
    let (ours, failure) = fails().await;
    assert!(failure.contains("pg_combinebackup failed") && failure.contains("no luck"), "{failure}");
    assert!(ours.join("stage").exists() && !ours.join("chain").exists() && !ours.join("combined").exists());

    // Another backup in the place of the one in the middle, and then none.
    let manifest = |label: &str| primary.path("bucket/orders-db/base").join(label).join("manifest.json");
    let own = std::fs::read(manifest(&first.label)).unwrap();
    let mut other: Value = serde_json::from_slice(&own).unwrap();
    assert_eq!(other["format"], 2, "a Lifeboat that knows no incremental backups must not take it for a full one");
    other["start_lsn"] = full.stop_lsn.to_string().into();
    std::fs::write(manifest(&first.label), other.to_string()).unwrap();
    for is in ["is another backup now", "is gone"] {
        let found = catalogue::list(&primary.bucket()).await.unwrap();
        let usable: Vec<&str> = found.backups.iter().map(|backup| backup.label.as_str()).collect();
        assert!(usable.contains(&full.label.as_str()) && !usable.contains(&second.label.as_str()), "{usable:?}");
        let says = format!("backup {} is not usable: {}, which it builds on, {is}", second.label, first.label);
        assert_eq!(found.damaged, [says]);
        let (_clone, result) = run(restore_by(&primary, planned.restore.clone(), "broken")).await;
        let failure = result.unwrap_err().to_string();
        assert!(failure.contains(&first.label), "{failure}");
        std::fs::remove_file(manifest(&first.label)).unwrap_or_default();
    }
    let restore = restore_of(&primary, target, true, "around").await;
    assert_eq!(restore.plan.label, full.label, "the WAL leads there all the same");
    let (_clone, result) = run(restore).await;
    assert_eq!(at(&result.expect("the restore succeeds"), DIGEST).await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn where_no_incremental_backup_can_be_taken_a_full_one_is_and_says_why() {
    let usual = Primary::start().await;
    let taken = take(&usual, DAY).await;
    let why = taken.full_because.expect("a reason");
    let old = why.contains("knows no incremental backups, 17 and later do");
    assert!(taken.backup.parent.is_none() && (old || why.contains("summarize_wal is off")), "{why}");
    drop(usual);

    let primary = Primary::start_17(&[]).await;
    let wait_for = async |query: &str, wanted: &str| {
        while primary.value(query).await != wanted {
            clock::sleep(Duration::from_millis(20)).await;
        }
    };
    let first = take(&primary, DAY).await;
    let taken = take(&primary, Duration::from_nanos(1)).await;
    assert!(taken.full_because.unwrap().contains(&format!("{}, is older than 1ns", first.backup.label)));
    // What it takes was removed, or never made: the server itself says so.
    primary.sql("create table t as select 1 as n; checkpoint").await;
    let made = format!(
        "select count(*) > 0 from pg_available_wal_summaries() where end_lsn > '{}'::pg_lsn",
        taken.backup.start_lsn
    );
    wait_for(&made, "t").await;
    files(&primary.data.join("pg_wal/summaries")).iter().for_each(|path| std::fs::remove_file(path).unwrap());
    let refused = take(&primary, DAY).await;
    let why = refused.full_because.expect("a reason");
    assert!(why.contains("WAL summaries are required") && why.contains(&taken.backup.label), "{why}");
    assert!(!why.contains("aborting backup"), "{why}");
    assert_eq!(refused.backup.parent, None);
    let last = take(&primary, DAY).await.backup;
    assert_eq!(last.parent, Some(refused.backup.label));

    // What it was to build on is pruned while the backup waits for its WAL.
    let (command, gate) = (primary.value("show archive_command").await.replace('\'', "''"), primary.path("gate"));
    let waits = format!("until test -e {}; do sleep 0.05; done; {command}", gate.display());
    primary.sql(&format!("alter system set archive_command = '{waits}'")).await;
    primary.sql("select pg_reload_conf()").await;
    wait_for("select current_setting('archive_command') like 'until%'", "t").await;
    let (report, mut reports) = Reporter::channel(1024);
    let running = tokio::spawn(Backup { full_every: Some(DAY), report, ..primary.backup() }.run());
    let begun = |report: &Report| matches!(report, Report::Line(line) if line.contains(&last.label));
    while !begun(&reports.recv().await.expect("it says since which backup")) {}
    primary.bucket().delete(&format!("base/{}/manifest.json", last.label)).await.unwrap();
    std::fs::write(gate, "").unwrap();
    let failure = running.await.unwrap().unwrap_err().to_string();
    assert!(failure.contains("nothing to build on") && failure.contains(&last.label), "{failure}");

    // An encrypted one builds on encrypted ones alone: else whoever writes to the store could put another in their place.
    let pair = Pair::new(&primary.path(""), "key");
    let bucket = primary.bucket().encrypted(encryption(&[&pair], Some(&pair.file)));
    let encrypted = || Backup { full_every: Some(DAY), bucket: bucket.clone(), ..primary.backup() }.run();
    let sealed = encrypted().await.unwrap();
    assert!(sealed.full_because.unwrap().contains("is not encrypted"));
    let (sealed, next) = (sealed.backup.label, encrypted().await.unwrap().backup);
    assert_eq!(next.parent.as_ref(), Some(&sealed));
    // Who has the new key alone is to read the new ones.
    let (other, keys) = (Pair::new(&primary.path(""), "other"), primary.path("keys"));
    let both = [&pair.file, &other.file].map(|file| std::fs::read_to_string(file).unwrap());
    std::fs::write(&keys, both.concat()).unwrap();
    let anew = primary.bucket().encrypted(encryption(&[&other], Some(&keys)));
    let taken = Backup { full_every: Some(DAY), bucket: anew, ..primary.backup() }.run().await.unwrap();
    assert!(taken.full_because.unwrap().contains(&format!("{sealed} is encrypted to others")));
    let key = format!("base/{sealed}/manifest.json");
    let clear = bucket.read_manifest(&key).await.unwrap().json;
    std::fs::write(primary.path("bucket/orders-db").join(key), clear).unwrap();
    let found = catalogue::list(&bucket).await.unwrap();
    let says = format!("backup {} is not usable: {sealed}, which it builds on, is another backup now", next.label);
    assert!(found.damaged.contains(&says), "{:?}", found.damaged);

    // That checksums were switched on leaves no trace in the WAL.
    let mut last = take(&primary, DAY).await.backup.label;
    for (option, builds_on) in [("--disable", Some(last.clone())), ("--enable", None)] {
        primary.down("fast").await;
        primary.pg("pg_checksums", &[option, "-D", primary.data.to_str().unwrap()]).await;
        primary.up().await;
        let taken = take(&primary, DAY).await;
        assert_eq!(taken.backup.parent, builds_on, "{option}: {:?}", taken.full_because);
        let why = taken.full_because.unwrap_or_default();
        assert!(
            builds_on.is_some() || why.contains(&format!("{last} cannot be built upon: its pages have no checksums")),
            "{why}"
        );
        last = taken.backup.label;
    }

    primary.sql("alter system set summarize_wal = off").await;
    primary.sql("select pg_reload_conf()").await;
    wait_for("show summarize_wal", "off").await;
    assert_eq!(take(&primary, DAY).await.full_because.unwrap(), "summarize_wal is off at the source");
    assert_eq!(primary.backup().run().await.unwrap().full_because, None, "nobody asked for an incremental one");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "mounts a file system of its own, as root: tests/run --long"]
async fn where_blocks_are_shared_a_chain_is_combined_too_and_kept() {
    let primary = Primary::start_17(&[]).await;
    chain(&primary).await;
    let lsn = primary.value("select pg_current_wal_insert_lsn()::text").await.parse().unwrap();
    let before = primary.value(DIGEST).await;
    primary.archive().await;
    let mounted = Mounted::xfs(&primary);
    let mut said = String::new();
    for _ in 0..2 {
        let mut restore = restore_of(&primary, RecoveryTarget::Lsn { lsn }, true, "unused").await;
        restore.directory = mounted.0.join("clone");
        let (report, mut reports) = Reporter::channel(1024);
        restore.report = report;
        let (clone, result) = run(restore).await;
        assert_eq!(at(&result.expect("the restore succeeds"), DIGEST).await, before);
        while let Some(report) = reports.recv().await {
            if let Report::Line(line) = report {
                said += &line;
            }
        }
        // As if it had died before it came to the point.
        let marker = clone.directory.join(".lifeboat-restore.json");
        let mut earlier: Value = serde_json::from_slice(&std::fs::read(&marker).unwrap()).unwrap();
        earlier["state"] = serde_json::json!({ "is": "unpacking" });
        std::fs::write(marker, earlier.to_string()).unwrap();
    }
    assert_eq!(said.matches("makes one of 3 backups").count(), 1, "{said}");
    assert!(said.contains("taken again from this disk"), "{said}");
}

struct Scene(Shop);

impl Scene {
    fn lifeboat(&self, words: &[&str]) -> Command {
        let mut command = Command::new(program());
        command.args(words).env("LIFEBOAT_INVENTORY", self.0.primary.path("lifeboat.toml"));
        command.env("LIFEBOAT_STATE_DIR", self.0.primary.path("state")).current_dir("/");
        command
    }

    fn done(&self, words: &[&str]) -> Output {
        let output = self.lifeboat(words).output().expect("lifeboat starts");
        assert!(output.status.success(), "{words:?}: {}{}", text(&output.stdout), text(&output.stderr));
        output
    }

    /// A runbook of these steps.
    fn runbook(&self, name: &str, steps: &str) -> String {
        let path = self.0.primary.path(&format!("{name}.toml"));
        let head = format!("format = 1\nid = \"{name}\"\ntitle = \"T\"\nsystems = {{ db = \"postgres\" }}\n");
        std::fs::write(&path, format!("{head}[[phases]]\ntitle = \"P\"\n{steps}")).unwrap();
        path.to_str().unwrap().to_owned()
    }

    fn backup(&self, full_every: &str) -> String {
        let step =
            format!("[[phases.steps]]\nid = \"backup\"\ndo = \"postgres.backup\"\nfull_every = \"{full_every}\"\n");
        let taken = self.done(&["run", &self.runbook("nightly", &step), "--headless", "--yes"]);
        text(&taken.stdout) + &text(&taken.stderr)
    }

    fn prune(&self) -> Vec<String> {
        let step = "[[phases.steps]]\nid = \"prune\"\ndo = \"store.prune\"\nsystem = \"db\"\ndestroys = \"old\"\n";
        let answers = self.0.primary.path("answers.toml");
        std::fs::write(&answers, format!("prune = \"{SYSTEM}\"\n")).unwrap();
        let answers = answers.to_str().unwrap();
        self.done(&["run", &self.runbook("prune", step), "--headless", "--yes", "--answers", answers]);
        self.labels()
    }

    /// Of usable backups, the oldest first.
    fn labels(&self) -> Vec<String> {
        let window: Value = last_line(&self.done(&["points", "--json"]));
        let backups = window["systems"][0]["backups"].as_array().unwrap().clone();
        assert_eq!(window["systems"][0]["warnings"].to_string(), "[]");
        backups.iter().map(|backup| backup["label"].as_str().unwrap().to_owned()).collect()
    }

    fn inventory(&self, store: &str, bin: &Path) {
        let shop = &self.0;
        let keys = format!("rpo = \"1h\"\nbin = \"{}\"", bin.display());
        shop.inventory(&shop.primary.location.url, &format!("retain = \"7d\"\n{store}"), &keys);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chain_is_pruned_whole_encrypted_anew_proven_and_restored_after_a_kill() {
    let scene = Scene(Shop::of(Primary::start_17(&[]).await));
    let primary = &scene.0.primary;
    scene.inventory("", &primary.bin);
    primary.sql("create table orders (id int); insert into orders select generate_series(1, 1000)").await;
    assert!(scene.backup("7d").contains("not an incremental one: there is no usable earlier backup"));
    primary.sql("insert into orders values (0)").await;
    assert!(scene.backup("7d").contains("what changed since"));
    scene.backup("7d");
    let old = scene.labels();
    assert_eq!(old.len(), 3);
    // The last chain from before the limit is all of it, and it stays for the sake of its last backup.
    for (label, days) in old.iter().zip([12, 9, 8]) {
        scene.0.age(label, days);
    }
    let says = scene.backup("7d");
    assert!(says.contains(&format!("the last full one, {}, is older than 7days", old[0])), "{says}");
    let full = scene.labels().pop().unwrap();
    assert_eq!(scene.prune(), [&old[..], std::slice::from_ref(&full)].concat());
    // Once another chain takes its place, it goes whole.
    scene.0.age(&full, 8);
    assert!(scene.backup("30d").contains(&format!("what changed since {full}")));
    let newest = scene.labels().pop().unwrap();
    assert_eq!(scene.prune(), [full.clone(), newest.clone()]);

    let pair = Pair::new(&primary.path(""), "key");
    let store = format!("encrypt_to = [\"{}\"]\nidentity = {{ file = \"{}\" }}", pair.public, pair.file.display());
    scene.inventory(&store, &primary.bin);
    scene.done(&["store", "rekey"]);
    // What root wrote anew is read by the restored server's user.
    for path in files(&scene.0.bucket("wal")) {
        account().iter().for_each(|account| account.give(&path).unwrap());
    }
    let shown = text(&scene.done(&["points"]).stdout);
    assert!(shown.contains(&format!("base backup {newest} (changes since {full})")), "{shown}");
    let found = last_line(&scene.lifeboat(&["check", "--proof", "--json"]).output().unwrap());
    let tested = &found["proofs"][0]["tested"];
    assert_eq!((&tested["passed"], &tested["label"]), (&Value::Bool(true), &newest.as_str().into()), "{found:#}");
    assert_eq!(tested["rows"]["public.orders"], 1001);
    let health = &found["systems"][0];
    assert_eq!(health["backup"]["builds_on"], serde_json::json!([full]));
    let says = fact(health, "backup")["says"].as_str().unwrap();
    assert!(says.starts_with(&format!("{newest} (incremental, on the full {full})")), "{says}");

    // The program that combines has done its work, and its caller is killed before it knows.
    let (bin, gate) = (primary.path("bin"), primary.path("gate"));
    for directory in [&bin, &gate] {
        std::fs::create_dir(directory).unwrap();
        account().iter().for_each(|account| account.give(directory).unwrap());
    }
    for entry in std::fs::read_dir(&primary.bin).unwrap().flatten() {
        std::os::unix::fs::symlink(entry.path(), bin.join(entry.file_name())).unwrap();
    }
    let (combine, real) = (bin.join("pg_combinebackup"), primary.bin.join("pg_combinebackup"));
    std::fs::remove_file(&combine).unwrap();
    let waits = format!(
        "#!/bin/sh\n'{}' \"$@\" || exit\n[ ! -e '{2}/again' ] || exit 0\necho $$ > '{2}/new' && mv '{2}/new' '{2}/pid'\n\
         exec sleep {1}\n",
        real.display(),
        1_000_000,
        gate.display()
    );
    std::fs::write(&combine, waits).unwrap();
    std::fs::set_permissions(&combine, std::fs::Permissions::from_mode(0o755)).unwrap();
    scene.inventory(&store, &bin);
    primary.archive().await;
    let steps = "[[phases.steps]]\nid = \"choose\"\ndo = \"recovery.choose\"\nsystems = [\"db\"]\nsuggest = \"latest\"\n\
                 [[phases.steps]]\nid = \"restore-db\"\ndo = \"postgres.restore\"\nsystem = \"db\"\n";
    let runbook = scene.runbook("restore", steps);
    let mut child = scene
        .lifeboat(&["run", &runbook, "--headless", "--yes", "--json"])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let pid = gate.join("pid");
    while !pid.exists() {
        if child.try_wait().unwrap().is_some() {
            panic!("it ended: {}", text(&child.wait_with_output().unwrap().stderr));
        }
        clock::sleep(Duration::from_millis(20)).await;
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let orphan = std::fs::read_to_string(&pid).unwrap();
    let lives = || std::fs::read(format!("/proc/{}/environ", orphan.trim())).is_ok_and(|found| !found.is_empty());
    assert!(lives(), "it outlives its caller");
    std::fs::write(gate.join("again"), "").unwrap();
    let resumed = scene.done(&["resume", "--headless", "--yes", "--json"]);
    let restored = primary.path("restored");
    let marker: Value =
        serde_json::from_slice(&std::fs::read(restored.join(".lifeboat-restore.json")).unwrap()).unwrap();
    let url = format!(
        "postgresql://{SUPERUSER}@/postgres?host={}&port={}",
        restored.join(".lifeboat/socket").display(),
        marker["state"]["place"]["port"]
    );
    let rows = value(&lifeboat::secret::Secret::new(url), "select count(*) from orders").await;
    stop_hard(&restored);
    assert_eq!(rows, "1001", "{}", text(&resumed.stdout));
    assert!(!lives(), "what was left at work was ended");
}
