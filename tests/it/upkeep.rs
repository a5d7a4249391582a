//! What keeps backups worth their name, on real servers: the nightly run, the proof by a restore, pruning, and Redis' own
//! persistence.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use lifeboat::system::redis::persistence;
use serde_json::Value;

use crate::check::{SYSTEM, Shop, fact, files, later};
use crate::support::postgres::program;
use crate::support::redis::{TestRedis, open_directory, pipe};
use crate::support::sandbox::{Place, last_line, text};

const CACHE: &str = "orders-cache";

/// The shop's inventory with a Redis in it.
fn inventory(shop: &Shop, store: &str, redis: &TestRedis) {
    std::fs::write(shop.primary.path("cache-url"), redis.url.expose()).unwrap();
    let cache = format!(
        "rpo = \"1h\"\n[systems.{CACHE}]\nkind = \"redis\"\nenvironment = \"test\"\nrpo = \"1h\"\n\
         url = {{ file = \"cache-url\" }}\nbackups = {{ store = \"backups\" }}\nrestore = {{ directory = \"{}\" }}\n",
        shop.primary.path("restored-cache").display()
    );
    shop.inventory(&shop.primary.location.url, store, &cache);
}

fn run(shop: &Shop, runbook: &str, options: &[&str]) -> Output {
    let mut command = Command::new(program());
    command.args(["run", runbook, "--inventory"]).arg(shop.primary.path("lifeboat.toml")).args(options);
    command.env("LIFEBOAT_STATE_DIR", shop.primary.path("state")).current_dir("/");
    command.output().expect("lifeboat starts")
}

/// The directories in one, by name.
fn folders(directory: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    found.sort();
    found
}

fn all(output: &Output) -> String {
    text(&output.stdout) + &text(&output.stderr)
}

/// Ends the servers that work in a directory.
fn end_below(directory: &Path) {
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let pid = entry.file_name().to_str().and_then(|name| name.parse().ok());
        let inside = std::fs::read_link(entry.path().join("cwd")).is_ok_and(|cwd| cwd.starts_with(directory));
        if let (Some(pid), true) = (pid, inside) {
            let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
        }
    }
}

/// Throwaway servers and their directories.
fn leftovers(shop: &Shop) -> Vec<PathBuf> {
    let root = shop.primary.path("");
    let names = std::fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path());
    names.filter(|path| path.to_string_lossy().contains("proof-")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_nightly_run_checks_backs_up_and_verifies() {
    let shop = Shop::new().await;
    shop.segment().await;
    let directory = open_directory();
    let redis = TestRedis::start(
        directory.path(),
        &["--appendonly", "yes", "--appendfsync", "everysec", "--aof-timestamp-enabled", "yes"],
        None,
    )
    .await;
    redis.run("SET cart:1 apples").await;
    inventory(&shop, "", &redis);
    let nightly = run(&shop, "backup-daily", &["--headless", "--yes", "--json"]);
    assert!(nightly.status.success(), "{}", all(&nightly));
    let verified = run(&shop, "verify-backups", &["--headless", "--yes", "--json"]);
    assert!(verified.status.success(), "{}", all(&verified));
    // Two at once: neither is in the other's way, and both can be used.
    let both: Vec<Output> = std::thread::scope(|scope| {
        let runs = [0, 1].map(|_| scope.spawn(|| run(&shop, "backup-now", &["--headless", "--yes", "--json"])));
        runs.map(|run| run.join().unwrap()).into()
    });
    both.iter().for_each(|one| assert!(one.status.success(), "{}", all(one)));
    let output = shop.command(&["--json"]).output().unwrap();
    let found = last_line(&output);
    assert_eq!(output.status.code(), Some(0), "{found:#}");
    let [db, cache] = [0, 1].map(|at| &found["systems"][at]);
    assert_eq!(files(&shop.bucket("base")).iter().filter(|path| path.ends_with("manifest.json")).count(), 3);
    assert_eq!((db["kind"].as_str(), cache["kind"].as_str()), (Some("postgres"), Some("redis")));
    assert!(cache["aof"]["age_seconds"].as_f64().unwrap() <= cache["backup"]["age_seconds"].as_f64().unwrap());
    assert_eq!(cache["recoverable_to"], cache["aof"]["to"]);

    // As the shipped runbook prunes, of both systems: what is from before the last chain over the limit.
    inventory(&shop, "retain = \"7d\"", &redis);
    let snapshots = shop.primary.path("bucket").join(CACHE).join("snapshots");
    let (bases, images) = (folders(&shop.bucket("base")), folders(&snapshots));
    for (nth, days) in [(0, 12), (1, 9)] {
        shop.age(bases[nth].file_name().unwrap().to_str().unwrap(), days);
        let manifest = images[nth].join("manifest.json");
        let mut aged: Value = serde_json::from_slice(&std::fs::read(&manifest).unwrap()).unwrap();
        let at: chrono::DateTime<chrono::Utc> = aged["at"].as_str().unwrap().parse().unwrap();
        aged["at"] = (at - chrono::TimeDelta::days(days)).to_rfc3339().into();
        std::fs::write(manifest, aged.to_string()).unwrap();
    }
    let answers = shop.primary.path("answers.toml");
    std::fs::write(&answers, format!("prune-db = \"{SYSTEM}\"\nprune-cache = \"{CACHE}\"\n")).unwrap();
    let pruned = run(&shop, "prune", &["--headless", "--json", "--answers", answers.to_str().unwrap()]);
    assert!(pruned.status.success(), "{}", all(&pruned));
    let left = |path: &Path| folders(path).into_iter().filter(|folder| !files(folder).is_empty()).collect::<Vec<_>>();
    assert_eq!((left(&shop.bucket("base")), left(&snapshots)), (bases[1..].to_vec(), images[1..].to_vec()));

    // Red when the newest snapshot's bytes are gone, and the run says so by its exit code.
    files(&snapshots)
        .iter()
        .filter(|path| path.ends_with("dump.rdb.zst"))
        .for_each(|path| std::fs::remove_file(path).unwrap());
    let verified = run(&shop, "verify-backups", &["--headless", "--yes"]);
    assert_eq!(verified.status.code(), Some(1), "{}", all(&verified));
    assert!(all(&verified).contains("is gone"), "{}", all(&verified));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proof_restores_looks_removes_and_is_remembered() {
    let shop = Shop::new().await;
    let first = shop.primary.backup().run().await.expect("the backup succeeds").backup;
    shop.segment().await;
    let wal = files(&shop.bucket("wal"));
    let (archive, prove) = (files(&shop.bucket("")), || shop.command(&["--proof", "--json"]).output().unwrap());
    let output = prove();
    let found = last_line(&output);
    assert_eq!(output.status.code(), Some(0), "{found:#}");
    let rows: u64 = shop.primary.value("select count(*) from orders").await.parse().unwrap();
    let tested = &found["proofs"][0]["tested"];
    assert_eq!((&tested["passed"], &tested["rows"]["public.orders"]), (&Value::Bool(true), &rows.into()), "{tested:#}");
    assert_eq!(fact(&found["systems"][0], "proof")["judgement"], "ok");
    assert!(!found["systems"][0]["backup"]["tested_at"].is_null());
    // Nothing else came into the bucket, no WAL above all, and nothing is left on this machine.
    let new: Vec<PathBuf> = files(&shop.bucket("")).into_iter().filter(|path| !archive.contains(path)).collect();
    let record = new[0].strip_prefix(shop.bucket("")).unwrap().display().to_string();
    assert!(new.len() == 1 && record.starts_with(&format!("base/{}/tested-", first.label)), "{new:?}");
    assert_eq!(files(&shop.bucket("wal")), wal);
    assert_eq!(leftovers(&shop), Vec::<PathBuf>::new());

    // A newer backup has not been proven; that a table has lost its rows is found by what the earlier proof saw.
    shop.primary.sql("delete from orders").await;
    let second = shop.primary.backup().run().await.expect("the backup succeeds").backup;
    shop.primary.archive().await;
    shop.judged("proof", "unknown", 0, &["the newest was not restored yet", &first.label]);
    let found = last_line(&prove());
    let said = found["proofs"][0]["tested"]["says"].as_str().unwrap();
    assert!(said.contains("public.orders") && said.contains("has none now"), "{said}");
    shop.judged("proof", "failed", 1, &[&second.label, "has none now"]);

    // Bytes that changed in their place: no listing shows it, the proof does.
    let third = shop.primary.backup().run().await.expect("the backup succeeds").backup;
    shop.primary.archive().await;
    let part = files(&shop.bucket(&format!("base/{}", third.label)));
    let part = part.iter().find(|path| path.to_string_lossy().contains("part-0000")).unwrap();
    let mut bytes = std::fs::read(part).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x10;
    std::fs::write(part, bytes).unwrap();
    // What an earlier proof found stays red until a later one passes.
    shop.judged("manifests", "ok", 1, &[]);
    let output = prove();
    let found = last_line(&output);
    assert_eq!(
        (output.status.code(), &found["proofs"][0]["tested"]["passed"]),
        (Some(1), &Value::Bool(false)),
        "{found:#}"
    );
    shop.judged("proof", "failed", 1, &[&third.label]);
    assert_eq!(leftovers(&shop), Vec::<PathBuf>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_is_proven_by_its_keys_and_one_of_a_newer_redis_is_refused() {
    let shop = Shop::new().await;
    let directory = open_directory();
    let redis =
        TestRedis::start(directory.path(), &["--save", "900 1", "--requirepass", "hunter2"], Some("hunter2")).await;
    for n in 0..7 {
        redis.run(&format!("SET cart:{n} x")).await;
    }
    inventory(&shop, "", &redis);
    let taken = run(&shop, "ship-aof", &["--plan"]);
    assert!(taken.status.success(), "{}", all(&taken));
    let runbook = shop.primary.path("snapshot.toml");
    let step = "[[phases]]\ntitle = \"S\"\n[[phases.steps]]\nid = \"s\"\ndo = \"redis.snapshot\"\naof = \"no\"\n";
    let head = "format = 1\nid = \"snapshot\"\ntitle = \"S\"\nsystems = { cache = \"redis\" }\n";
    std::fs::write(&runbook, format!("{head}{step}")).unwrap();
    let taken = run(&shop, runbook.to_str().unwrap(), &["--headless", "--yes", "--json"]);
    assert!(taken.status.success(), "{}", all(&taken));
    let prove = || last_line(&shop.command(&["--system", CACHE, "--proof", "--json"]).output().unwrap());
    let found = prove();
    let tested = &found["proofs"][0]["tested"];
    assert_eq!((&tested["passed"], &tested["rows"]["keys"]), (&Value::Bool(true), &7.into()), "{found:#}");
    assert!(!found.to_string().contains("hunter2"), "{found}");
    assert_eq!(leftovers(&shop), Vec::<PathBuf>::new());
    // Its manifest says that a later Redis wrote it.
    let manifest = files(&shop.primary.path("bucket").join(CACHE).join("snapshots"));
    let manifest = manifest.iter().find(|path| path.ends_with("manifest.json")).unwrap();
    let mut newer: Value = serde_json::from_slice(&std::fs::read(manifest).unwrap()).unwrap();
    newer["rdb"]["rdb_version"] = 99.into();
    std::fs::write(manifest, newer.to_string()).unwrap();
    let found = prove();
    let tested = &found["proofs"][0]["tested"];
    assert!(tested["passed"] == false && tested["says"].as_str().unwrap().contains("99"), "{found:#}");
    assert_eq!((&found["exit_code"], leftovers(&shop)), (&1.into(), Vec::new()));
}

#[tokio::test(flavor = "multi_thread")]
async fn pruning_takes_what_is_spare_and_nothing_else() {
    let shop = Shop::new().await;
    let (mut labels, mut names) = (Vec::new(), Vec::new());
    for _ in 0..3 {
        labels.push(shop.primary.backup().run().await.expect("the backup succeeds").backup.label);
        names.push(shop.segment().await);
    }
    let runbook = shop.primary.path("prune.toml");
    let step = "[[phases]]\ntitle = \"P\"\n[[phases.steps]]\nid = \"prune\"\ndo = \"store.prune\"\nsystem = \"db\"\n\
                destroys = \"old backups of {db}\"\n";
    let head = "format = 1\nid = \"prune\"\ntitle = \"P\"\nsystems = { db = \"postgres\" }\n";
    std::fs::write(&runbook, format!("{head}{step}")).unwrap();
    let answers = shop.primary.path("answers.toml");
    std::fs::write(&answers, format!("prune = \"{SYSTEM}\"\n")).unwrap();
    let (runbook, answers) = (runbook.to_str().unwrap().to_owned(), answers.to_str().unwrap().to_owned());
    let prune = |answered: bool| {
        let mut options = vec!["--headless", "--yes", "--json"];
        if answered {
            options.extend(["--answers", answers.as_str()]);
        }
        run(&shop, &runbook, &options)
    };
    // Nobody said how long they are kept: nothing goes.
    let refused = prune(true);
    assert_eq!(refused.status.code(), Some(1), "{}", all(&refused));
    assert!(all(&refused).contains("has no limit"), "{}", all(&refused));
    shop.inventory(&shop.primary.location.url, "retain = \"7d\"", "rpo = \"1h\"");
    shop.age(&labels[0], 12);
    shop.age(&labels[1], 9);
    let first = shop.wal(&names[0]);
    // Everything up to the first backup's last segment is as old as that.
    let old: Vec<PathBuf> = files(&shop.bucket("wal")).into_iter().filter(|path| *path <= first).collect();
    old.iter().for_each(|path| later(path, -12 * 24));
    let index = shop.bucket(&format!("wal-index/2/00000001/{}-1-1-0", names[0]));
    std::fs::create_dir_all(index.parent().unwrap()).unwrap();
    std::fs::write(&index, b"a cache").unwrap();
    let before = files(&shop.bucket(""));
    shop.judged("retention", "missed", 3, &["older than the last chain"]);

    let plan = run(&shop, &runbook, &["--plan"]);
    assert!(
        all(&plan).contains(&labels[0]) && !all(&plan).contains(&format!("backups {}", labels[1])),
        "{}",
        all(&plan)
    );
    // Without the name nothing goes, whatever else is said.
    let unnamed = prune(false);
    assert_eq!(unnamed.status.code(), Some(4), "{}", all(&unnamed));
    assert_eq!(files(&shop.bucket("")), before);
    // While the newest chain leads nowhere, nothing goes either.
    let (hole, aside) = (shop.wal(names.last().unwrap()), shop.primary.path("aside"));
    let later_one = shop.segment().await;
    std::fs::rename(&hole, &aside).unwrap();
    let refused = prune(true);
    assert_eq!(refused.status.code(), Some(1), "{}", all(&refused));
    assert!(all(&refused).contains("leads nowhere"), "{}", all(&refused));
    std::fs::rename(&aside, &hole).unwrap();
    assert!(before.iter().all(|path| path.exists()));

    let pruned = prune(true);
    assert!(pruned.status.success(), "{}", all(&pruned));
    let gone: Vec<PathBuf> = before.iter().filter(|path| !path.exists()).cloned().collect();
    let backup = shop.bucket(&format!("base/{}", labels[0]));
    assert!(gone.iter().all(|path| path.starts_with(&backup) || *path == index || old.contains(path)), "{gone:#?}");
    assert!(gone.contains(&index) && gone.iter().any(|path| path.starts_with(&backup)));
    // The WAL from the kept backup's own start on is all there.
    let manifest: Value =
        serde_json::from_slice(&std::fs::read(shop.bucket(&format!("base/{}/manifest.json", labels[1]))).unwrap())
            .unwrap();
    let start =
        shop.primary.value(&format!("select pg_walfile_name('{}')", manifest["start_lsn"].as_str().unwrap())).await;
    assert!(
        gone.iter().all(|path| *path < shop.wal(&start) || path.starts_with(&backup) || *path == index),
        "{gone:#?}"
    );
    assert!(old.iter().filter(|path| **path < shop.wal(&start)).all(|path| gone.contains(path)), "{gone:#?}");
    let found = shop.judged("retention", "ok", 0, &["it goes back 9days"]);
    assert_eq!(found["wal"]["last_segment"], later_one);
    let record = files(&shop.bucket("pruned"));
    let record: Value = serde_json::from_slice(&std::fs::read(record.last().unwrap()).unwrap()).unwrap();
    assert_eq!((&record["stays"], &record["objects"]), (&labels[1].clone().into(), &gone.len().into()));
    // And again: nothing is left to go.
    let again = prune(true);
    assert!(again.status.success(), "{}", all(&again));
    assert_eq!(files(&shop.bucket("pruned")).len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_advice_on_persistence_is_taken_by_a_real_server_and_then_suffices() {
    use std::time::Duration;
    let directory = open_directory();
    let redis = TestRedis::start(directory.path(), &["--auto-aof-rewrite-percentage", "0"], None).await;
    let minute = Some(Duration::from_secs(60));
    let look = async || persistence::settings(&redis.url).await.unwrap().expect("CONFIG GET is allowed");
    let before = look().await;
    assert_eq!(before.advise(minute, None).worst, None, "nothing is saved at all");
    // An hour is what save points can keep; a minute is not.
    let hour = before.advise(Some(Duration::from_secs(3600)), None);
    let cache = before.advise(minute, Some("rebuilt from PostgreSQL"));
    assert!(cache.passed() && cache.changes.is_empty() && cache.checks[0].detail.contains("rebuilt from PostgreSQL"));
    for (asked, rpo) in [(hour, Duration::from_secs(3600)), (before.advise(minute, None), Duration::from_secs(60))] {
        assert!(!asked.passed(), "{asked:?}");
        let client = redis.client().await;
        for change in asked.changes.iter().filter(|change| *change != "CONFIG REWRITE") {
            let words = change.split_once('"').map_or_else(
                || change.split(' ').map(str::to_owned).collect::<Vec<_>>(),
                |(head, value)| {
                    let mut words: Vec<String> = head.split_whitespace().map(str::to_owned).collect();
                    words.push(value.trim_end_matches('"').to_owned());
                    words
                },
            );
            let mut command = ::redis::cmd(&words[0]);
            for word in &words[1..] {
                command.arg(word);
            }
            let answer: String = client.query(change, &command).await.unwrap();
            assert_eq!(answer, "OK", "{change}");
        }
        let after = look().await.advise(Some(rpo), None);
        let loss = after.checks.iter().find(|check| check.name == "loss").unwrap();
        assert!(loss.passed, "{after:?}");
        assert!(after.worst.is_some_and(|worst| worst <= rpo), "{after:?}");
    }
    // The file now grows for ever: that is said, with what ends it.
    let grown = look().await.advise(minute, None);
    assert!(grown.changes.contains(&"CONFIG SET auto-aof-rewrite-percentage 100".to_owned()), "{grown:?}");
    redis.run("CONFIG SET auto-aof-rewrite-percentage 100").await;
    let after = look().await;
    assert!(after.advise(minute, None).passed(), "{after:?}");
    assert_eq!(after.advise(minute, None).changes, Vec::<String>::new());
    let none = after.advise(Some(Duration::from_millis(1)), None);
    assert_eq!(none.changes, ["CONFIG SET appendfsync always", "CONFIG REWRITE"]);
}

#[test]
fn the_sandbox_s_backups_stand_the_proof() {
    let place = Place::new("proof");
    let up = place.json(&["up", "--scale", "small", "--json"]);
    let inventory = up["inventory"].as_str().unwrap().to_owned();
    let output = place.lifeboat(&["check", "--inventory", &inventory, "--proof", "--json"]).output().unwrap();
    let found = last_line(&output);
    for proof in found["proofs"].as_array().unwrap() {
        assert_eq!(proof["tested"]["passed"], true, "{found:#}");
    }
    let [db, cache] = [0, 1].map(|at| &found["proofs"][at]["tested"]["rows"]);
    assert!(db["public.orders"].as_u64().unwrap() > 0 && cache["keys"].as_u64().unwrap() > 0, "{found:#}");
    for system in found["systems"].as_array().unwrap() {
        assert_eq!(fact(system, "proof")["judgement"], "ok", "{found:#}");
    }
    let shown = place.lifeboat(&["check", "--inventory", &inventory, "--stores-only"]).output().unwrap();
    assert!(text(&shown.stdout).contains("was tested"), "{}", text(&shown.stdout));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_monthly_drill_and_a_partial_restore_run_by_themselves() {
    let shop = Shop::new().await;
    let directory = open_directory();
    let redis = TestRedis::start(directory.path(), &["--save", "900 1"], None).await;
    redis.run("SET cart:1 apples").await;
    shop.segment().await;
    inventory(&shop, "", &redis);
    let backup = run(&shop, "backup-now", &["--headless", "--yes"]);
    assert!(backup.status.success(), "{}", all(&backup));
    let answers = shop.primary.path("answers.toml");
    std::fs::write(&answers, "choose = \"latest\"\n").unwrap();
    let dump = shop.primary.path("orders.sql");
    let unattended = ["--headless", "--yes", "--json", "--answers", answers.to_str().unwrap()];
    let file = format!("dump_file={}", dump.display());
    let partial = ["--var", "table=public.orders", "--var", file.as_str()];
    let partial = run(&shop, "partial-restore", &[&unattended[..], &partial].concat());
    assert!(partial.status.success(), "{}", all(&partial));
    let sql = std::fs::read_to_string(&dump).unwrap();
    let rows: usize = shop.primary.value("select count(*) from orders").await.parse().unwrap();
    let copied = sql.split("FROM stdin;\n").nth(1).unwrap().lines().take_while(|line| *line != "\\.").count();
    assert_eq!(copied, rows, "{sql}");

    // Keys that are gone come back, and what production has written since stays.
    redis.run("SET cart:2 pears").await;
    redis.run("DEL cart:1").await;
    let keys = shop.primary.path("carts.resp");
    let file = format!("dump_file={}", keys.display());
    let partial = ["--var", "prefix=cart:", "--var", file.as_str()];
    let partial = run(&shop, "partial-restore-keys", &[&unattended[..], &partial].concat());
    assert!(partial.status.success(), "{}", all(&partial));
    assert_eq!(pipe(&redis.url, &keys), 0);
    assert_eq!(redis.run("GET cart:1").await, ::redis::Value::BulkString(b"apples".to_vec()));
    assert_eq!(redis.run("GET cart:2").await, ::redis::Value::BulkString(b"pears".to_vec()));
    end_below(&shop.primary.path("restored-cache"));

    // The clones stand where restores go; the drill gets places of its own.
    let inventory = shop.primary.path("lifeboat.toml");
    let elsewhere = std::fs::read_to_string(&inventory).unwrap().replace("/restored\"", "/restored-again\"");
    let elsewhere = elsewhere.replace("/restored-cache\"", "/restored-cache-again\"");
    std::fs::write(&inventory, elsewhere).unwrap();
    let drill = run(&shop, "drill-monthly", &unattended);
    assert!(drill.status.success(), "{}", all(&drill));
    let found = last_line(&drill);
    assert_eq!(found["verdict"], "passed", "{found}");
    for restored in ["restored", "restored-again"] {
        crate::support::postgres::stop_hard(&shop.primary.path(restored));
    }
    end_below(&shop.primary.path("restored-cache-again"));
}
