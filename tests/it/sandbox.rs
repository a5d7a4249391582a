//! The sandbox by its commands, as a person runs it: built, looked at, taken down.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use lifeboat::event::{Measure, RecoveryTarget, parse_time};
use lifeboat::recovery::{Wanted, bucket_of, collect, plan};
use lifeboat::report::sign::Role;
use lifeboat::sandbox::ledger;
use lifeboat::secret::Secret;
use lifeboat::store::Bucket;
use lifeboat::system::postgres::restore::{Owner, Patience};
use lifeboat::system::{postgres, redis};
use lifeboat::{clock, inventory};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::support::postgres::{account, bin, value};
use crate::support::sandbox::{Place, last_line, text};

fn owner() -> u32 {
    account().map_or_else(|| nix::unistd::geteuid().as_raw(), |account| account.uid)
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("{value} is no number"))
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap_or_else(|error| panic!("{}: {error}", path.display())).mode() & 0o777
}

#[tokio::test]
async fn an_incident_from_up_to_down() {
    let place = Place::new("whole");
    let began = clock::boot_now();
    let up = place.json(&["up", "--scale", "small", "--json"]);
    let took = clock::boot_now() - began;
    println!("up --scale small took {:.1} s", took.as_secs_f64());
    let status = place.json(&["status", "--json"]);
    assert_eq!(up, status);
    assert_eq!(status["state"], "broken");

    closed_to_others(&place);
    servers(&place, &status).await;
    backups(&status).await;
    losses(&status);

    let allowed = std::fs::read_to_string(status["allowed_signers"].as_str().unwrap()).expect("allowed_signers");
    assert!(allowed.contains(&format!("namespaces=\"{}\"", Role::Operator.namespace())), "{allowed}");

    // What stands there unrepaired is kept.
    let again = place.json(&["up", "--json"]);
    assert_eq!(again, status);

    recovered(&place, &status).await;
    let touched = place.json(&["status", "--json"]);
    assert_eq!(touched["state"], "touched");
    let restored = touched["servers"].as_array().unwrap().iter().find(|server| server["restored"] == true).unwrap();
    assert_eq!((restored["name"].as_str(), number(&restored["uid"])), (Some("orders-db"), u64::from(owner())));

    let down = place.json(&["down", "--json"]);
    assert_eq!((&down["removed"], number(&down["ended"])), (&Value::Bool(true), 3));
    assert!(!place.0.exists());
    assert_eq!(place.processes(), []);
    assert_eq!(place.json(&["down", "--json"])["ended"], Value::Null);
}

fn closed_to_others(place: &Place) {
    assert_eq!(mode(&place.0), 0o700);
    for file in
        ["secrets/orders-db", "secrets/orders-cache", "app/connections.json", "keys/operator", "redis/redis.conf"]
    {
        assert_eq!(mode(&place.0.join(file)), 0o600, "{file}");
    }
    let url = std::fs::read_to_string(place.0.join("secrets/orders-db")).expect("the URL");
    let password = url.split([':', '@']).nth(2).expect("a password");
    for (pid, _) in place.processes() {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        assert!(!text(&line).contains(password), "pid {pid} shows a password");
    }
    let inventory = std::fs::read_to_string(place.0.join("lifeboat.toml")).expect("the inventory");
    assert!(!inventory.contains(password));
}

/// The database is gone; cache and application run, and not as root.
async fn servers(place: &Place, status: &Value) {
    let inventory = inventory::load(Path::new(status["inventory"].as_str().expect("a path"))).expect("it loads");
    assert_eq!(inventory.systems.keys().collect::<Vec<_>>(), ["orders-db", "orders-cache"]);
    let url = |name: &str| inventory.systems[name].url.resolve().expect("the URL");
    let refused = postgres::connect(&url("orders-db")).await.expect_err("the primary is down");
    assert!(matches!(refused, postgres::PgError::Refused { .. }), "{refused}");
    redis::Redis::connect(&url("orders-cache")).await.expect("Redis is up").ping().await.expect("it answers");

    let pid =
        |name: &str| status["servers"].as_array().unwrap().iter().find(|s| s["name"] == name).unwrap()["pid"].clone();
    assert_eq!(pid("orders-db"), Value::Null);
    let running: Vec<u64> = ["orders-cache", "orders"].iter().map(|name| number(&pid(name))).collect();
    let mut found = place.processes();
    found.sort_unstable();
    let mut pids: Vec<u64> = found.iter().map(|(pid, _)| u64::from(*pid)).collect();
    pids.retain(|pid| !running.contains(pid));
    assert_eq!(pids, Vec::<u64>::new(), "nothing else runs there");
    assert!(found.iter().all(|(_, uid)| *uid == owner() && *uid != 0), "{found:?}");
}

/// Both backups are whole, and the archive goes from the base backup beyond the damage without a gap.
async fn backups(status: &Value) {
    let incident = &status["incident"];
    let bucket = |system| Bucket::open(status["bucket"].as_str().expect("a URL"), system).expect("the bucket opens");
    let found = postgres::catalogue::list(&bucket("orders-db")).await.expect("the bucket is read");
    assert_eq!((found.warnings.as_slice(), found.gaps.as_slice()), ([].as_slice(), [].as_slice()));
    let [backup] = found.backups.as_slice() else { panic!("{:?}", found.backups) };
    let [coverage] = found.coverage.as_slice() else { panic!("{:?}", found.coverage) };
    assert_eq!(backup.label, incident["base_backup"].as_str().unwrap());
    assert!(coverage.from <= backup.start_lsn && backup.stop_lsn < coverage.to);
    // Segment names of one timeline sort like the WAL.
    assert!(coverage.last_segment.as_str() >= incident["last_archived_segment"].as_str().unwrap());
    assert!(backup.bytes > 20 << 20, "{} bytes", backup.bytes);

    let (snapshots, warnings) = redis::list(&bucket("orders-cache")).await.expect("the bucket is read");
    assert_eq!(warnings, Vec::<String>::new());
    let [snapshot] = snapshots.as_slice() else { panic!("{snapshots:?}") };
    assert_eq!(snapshot.label, incident["redis_snapshot"].as_str().unwrap());
    assert!(snapshot.keys > 3_000, "{} keys", snapshot.keys);
    let damage_at = parse_time(status["variables"]["damage_at"].as_str().unwrap()).expect("it has an offset");
    assert!(backup.stopped < damage_at && snapshot.at < damage_at);
}

/// The ledger has orders from before the damage, from between the wounds and after, and none after the primary's end.
fn losses(status: &Value) {
    let incident = &status["incident"];
    let at = |name: &str| parse_time(incident[name].as_str().unwrap()).expect("a time");
    let entries = ledger::read(Path::new(status["ledger"].as_str().unwrap())).expect("the ledger is whole");
    assert_eq!(entries.len() as u64, number(&incident["acknowledged"]));
    let before = |name: &str| entries.iter().filter(|entry| entry.committed_at < at(name)).count() as u64;
    assert!(before("damage_at") >= number(&incident["acknowledged_before_damage"]));
    assert!(before("damage_at") >= 100, "{}", before("damage_at"));
    assert!(before("damage_at") < before("orders_deleted_at"));
    assert!(before("orders_deleted_at") < before("taken_down_at"));
    let order = ["backup_finished_at", "damage_at", "payments_dropped_at", "orders_deleted_at", "carts_flushed_at"];
    assert!(order.windows(2).all(|pair| at(pair[0]) < at(pair[1])) && at("carts_flushed_at") < at("taken_down_at"));
    assert!(number(&incident["payments_dropped_xid"]) < number(&incident["orders_deleted_xid"]));
    let log = std::fs::read_to_string(status["migration_log"].as_str().unwrap()).expect("the migration's log");
    let started = log.lines().next().and_then(|line| line.split(' ').next()).expect("a stamp");
    assert_eq!(parse_time(started).expect("it has an offset"), at("damage_at"));
}

/// Restored to the moment of the damage, the database equals the ledger row for row; and the wounds are healed.
async fn recovered(place: &Place, status: &Value) {
    let inventory = inventory::load(Path::new(status["inventory"].as_str().unwrap())).expect("it loads");
    let system = &inventory.systems["orders-db"];
    let damage_at = parse_time(status["variables"]["damage_at"].as_str().unwrap()).expect("it has an offset");
    let window = collect(&inventory, &["orders-db".to_owned()], Some(damage_at)).await.expect("the window");
    let wanted = Wanted::new(RecoveryTarget::Time { time: damage_at }, true);
    let location = bucket_of(&inventory, system).expect("the bucket");
    let restore = postgres::Restore {
        from: postgres::Repository::Bucket { bucket: location.open().expect("the bucket opens"), location },
        plan: plan(&window, "orders-db", &wanted).expect("a plan").restore,
        directory: system.restore.directory.clone(),
        port: system.restore.port,
        run_as: account().map(|account| account.name),
        bin: Some(bin()),
        lifeboat: PathBuf::from(status["lifeboat"].as_str().unwrap()),
        source: system.url.resolve().expect("the URL"),
        owner: Owner { drill: "1".to_owned(), system: "orders-db".to_owned(), effect_key: "1".to_owned() },
        patience: Patience::default(),
        cancel: CancellationToken::new(),
        report: postgres::Reporter::silent(),
    };
    let restored = restore.run().await.expect("the restore succeeds");
    assert!(restored.recovered_to.is_some_and(|at| at <= damage_at));
    let payments = value(&Secret::new(restored.url), "select count(*) from payments").await;
    let orders = number(&status["incident"]["acknowledged_before_damage"]);
    assert!(payments.parse::<u64>().unwrap() >= 12_000 + orders, "{payments}");

    let found = place.json(&["ledger", "--json"]);
    assert_eq!(found["holds"], true, "{found}");
    assert!(number(&found["present"]) >= orders && number(&found["lost"]) >= 10, "{found}");
    let check = Command::new(status["variables"]["ledger_check"].as_str().unwrap()).output().expect("it runs");
    assert!(check.status.success(), "{}", text(&check.stderr));
    let said: Value = serde_json::from_slice(&check.stdout).expect("one JSON object");
    let measure: Measure = serde_json::from_value(said["measures"][0].clone()).expect("a measure");
    assert!(matches!(measure, Measure::LostWrites { lost, acknowledged, .. }
        if lost == number(&found["lost"]) && acknowledged == number(&status["incident"]["acknowledged"])));
}

#[test]
fn a_directory_of_somebody_else_is_refused() {
    let place = Place::new("foreign");
    std::fs::create_dir(&place.0).expect("a directory");
    let thesis = place.0.join("thesis.txt");
    std::fs::write(&thesis, "years of work").expect("a file");
    let before = std::fs::metadata(&place.0).expect("it is there");
    for command in ["up", "down"] {
        let output = place.run(&[command]);
        assert_eq!(output.status.code(), Some(2), "{command}: {}", text(&output.stderr));
    }
    let after = std::fs::metadata(&place.0).expect("it is still there");
    assert_eq!((before.uid(), before.mode(), before.mtime()), (after.uid(), after.mode(), after.mtime()));
    assert_eq!(std::fs::read_to_string(&thesis).expect("the thesis"), "years of work");
    std::fs::remove_dir_all(&place.0).expect("it goes");
}

/// Starts `up` and returns once PostgreSQL runs in it.
async fn half_built(place: &Place) -> Child {
    let mut up = place.command(&["up"]).stderr(Stdio::null()).spawn().expect("the program runs");
    let running = || {
        let status = place.json(&["status", "--json"]);
        let servers = status["servers"].as_array().expect("a list");
        servers.iter().any(|server| server["kind"] == "postgres" && server["pid"].is_u64())
    };
    let limit = clock::boot_now() + Duration::from_secs(60);
    while !running() {
        assert!(clock::boot_now() < limit, "no server started");
        assert!(up.try_wait().expect("a look").is_none(), "up ended by itself");
        clock::sleep(Duration::from_millis(20)).await;
    }
    up
}

#[tokio::test]
async fn a_killed_up_is_cleaned_away() {
    let place = Place::new("cut");
    let mut up = half_built(&place).await;
    // A `down` meanwhile does not interfere.
    assert!(text(&place.run(&["down"]).stderr).contains("another `lifeboat sandbox` is at work"));
    up.kill().expect("it is killed");
    up.wait().expect("it ends");
    assert_eq!(place.json(&["status", "--json"])["state"], "unfinished");
    place.json(&["down", "--json"]);
    assert!(!place.0.exists());
    assert_eq!(place.processes(), []);
}

#[tokio::test]
async fn an_interrupted_up_leaves_nothing_running() {
    let place = Place::new("ctrl-c");
    let mut up = half_built(&place).await;
    let pid = nix::unistd::Pid::from_raw(i32::try_from(up.id()).expect("a pid"));
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).expect("the signal is sent");
    assert_eq!(up.wait().expect("it ends").code(), Some(130));
    assert_eq!(place.processes(), []);
    assert_eq!(place.json(&["status", "--json"])["state"], "unfinished");
}

#[test]
fn what_does_not_exist_is_not_created_by_looking() {
    let place = Place::new("absent");
    assert_eq!(place.json(&["status", "--json"])["state"], "absent");
    assert!(!place.0.exists());
}

#[test]
fn a_healthy_one_trades_with_backups_on_a_schedule() {
    let place = Place::new("healthy");
    let status = place.json(&["up", "--healthy", "--json"]);
    assert_eq!(status["state"], "healthy", "{status:#}");
    assert!(status["servers"].as_array().unwrap().iter().all(|server| number(&server["pid"]) > 0), "{status:#}");
    assert_eq!(status["incident"], Value::Null);
    let lifeboat = |args: &[&str]| {
        let mut command = place.lifeboat(args);
        command.arg("--inventory").arg(place.0.join("lifeboat.toml")).arg("--json").output().unwrap()
    };
    let found = last_line(&lifeboat(&["check"]));
    assert_eq!(found["exit_code"], 0, "{found:#}");
    let state = place.0.join("state");
    let listed = last_line(&lifeboat(&["schedule", "--state-dir", state.to_str().unwrap()])).to_string();
    for runbook in ["backup-daily", "ship-aof", "verify-backups", "prune"] {
        assert!(listed.contains(runbook), "{listed}");
    }
    // The shop goes on.
    let orders = || std::fs::read_to_string(place.0.join("app/ledger.jsonl")).unwrap().lines().count();
    let (before, deadline) = (orders(), clock::boot_now() + Duration::from_secs(60));
    while orders() == before {
        assert!(clock::boot_now() < deadline, "nobody trades");
        clock::block(Duration::from_millis(20));
    }
    let same = place.json(&["up", "--healthy", "--json"]);
    assert_eq!(same["servers"], status["servers"], "a healthy shop is kept");
    // A drill needs an incident, and builds one in its place.
    let broken = place.json(&["up", "--json"]);
    assert_eq!(broken["state"], "broken", "{broken:#}");
}

#[test]
fn everything_is_gone_and_comes_back_out_of_the_bucket_alone() {
    let place = Place::new("gone");
    let status = place.json(&["up", "--healthy", "--json"]);
    let inventory = place.0.join("lifeboat.toml");
    // The disks too: what is left is the bucket, and a machine to restore on.
    for server in status["servers"].as_array().unwrap() {
        if server["kind"] == "application" {
            continue;
        }
        let pid = nix::unistd::Pid::from_raw(i32::try_from(number(&server["pid"])).unwrap());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
        let directory = Path::new(server["directory"].as_str().unwrap());
        let deadline = clock::boot_now() + Duration::from_secs(60);
        // A server that is about to end writes into it.
        while directory.exists() && std::fs::remove_dir_all(directory).is_err() {
            assert!(clock::boot_now() < deadline, "{} cannot be removed", directory.display());
            clock::block(Duration::from_millis(20));
        }
    }
    let answers = place.0.join("answers.toml");
    std::fs::write(&answers, "choose = \"latest\"\nfence = \"orders-db\"\n").unwrap();
    let (ledger, app) = (place.0.join("bin/ledger-check"), status["app_url"].as_str().unwrap());
    let mut command = place.lifeboat(&["run", "restore-all", "--headless", "--yes", "--json", "--mode", "incident"]);
    command.arg("--inventory").arg(&inventory).arg("--answers").arg(&answers);
    command.arg("--var").arg(format!("ledger_check={}", ledger.display())).arg("--var").arg(format!("app_url={app}"));
    let output = command.arg("--state-dir").arg(place.0.join("state")).output().unwrap();
    let said = format!("{}{}", text(&output.stdout), text(&output.stderr));
    assert!(matches!(output.status.code(), Some(0 | 3)), "{said}");
    let compared = place.json(&["ledger", "--json"]);
    assert_eq!(compared["holds"], true, "{compared:#}");
    assert!(number(&compared["present"]) > 0, "{compared:#}");
}
