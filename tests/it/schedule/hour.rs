//! A shop that trades, with its backups on a schedule, for an hour: nothing turns red, and old backups go.

use std::os::unix::fs::MetadataExt as _;
use std::process::{Command, Output};

use serde_json::Value;

use crate::check::files;
use crate::support::sandbox::{Place, last_line, text};

/// Runs the lines of a crontab at their times; croniter says when they are.
const CROND: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/schedule/crond.py");

/// The healthy sandbox's limit, and between two runs of its prune.
const RETAIN: u64 = 15;
const PRUNE: u64 = 15;
const BACKUP: u64 = 10;

#[test]
#[ignore = "takes an hour"]
fn an_hour_of_trade_stays_green() {
    let minutes: u64 = std::env::var("MINUTES").map_or(60, |minutes| minutes.parse().unwrap());
    let place = Place::new("hour");
    let built = place.json(&["up", "--healthy", "--json"]);
    assert_eq!(built["state"], "healthy", "{built:#}");
    let state = place.0.join("home/.local/state/lifeboat");
    let inventory = place.0.join("lifeboat.toml");
    let lifeboat = |args: &[&str]| -> Output {
        let mut command = place.lifeboat(args);
        command.arg("--inventory").arg(&inventory).arg("--state-dir").arg(&state).output().unwrap()
    };
    let orders = || std::fs::read_to_string(place.0.join("app/ledger.jsonl")).unwrap().lines().count();
    let before = orders();
    let program = place.0.join("bin/lifeboat");
    let emitted = lifeboat(&["schedule", "emit", "cron", "--program", program.to_str().unwrap()]);
    let crontab = place.0.join("crontab");
    std::fs::write(&crontab, &emitted.stdout).unwrap();
    let (owner, group) =
        (std::fs::metadata(&place.0).unwrap().uid(), std::fs::metadata(place.0.join("app")).unwrap().gid());
    let mut crond = Command::new(super::python());
    crond.arg(CROND).arg(&crontab).args([minutes.to_string(), owner.to_string(), group.to_string()]);
    let output = crond.arg(place.0.join("home")).output().unwrap();
    let runs: Vec<Value> =
        text(&output.stdout).lines().map(|line| serde_json::from_str(line).expect("a run")).collect();
    for run in &runs {
        assert_eq!(run["exit"], 0, "{run:#} {}", text(&output.stderr));
    }
    let times = |runbook: &str| {
        let word = format!(" run {runbook} ");
        runs.iter().filter(|run| run["command"].as_str().unwrap().contains(&word)).count()
    };
    for (runbook, every) in [("backup-daily", BACKUP), ("ship-aof", 2), ("verify-backups", 3), ("prune", PRUNE)] {
        println!("{runbook}: {} runs, all green", times(runbook));
        assert!(times(runbook) as u64 >= minutes / every, "{runbook} ran {} times", times(runbook));
    }
    let found = last_line(&lifeboat(&["check", "--json"]));
    assert_eq!(found["exit_code"], 0, "{found:#}");
    let schedule = lifeboat(&["schedule"]);
    assert!(schedule.status.success(), "something is overdue: {}", text(&schedule.stdout));
    // What is behind the last chain over the limit went with the prune after it.
    let kept = files(&place.0.join("bucket/orders-db/base"));
    let kept = kept.iter().filter(|path| path.ends_with("manifest.json")).count() as u64;
    let most = (RETAIN + PRUNE) / BACKUP + 2;
    println!("{kept} of {} base backups are kept; {} orders were taken", times("backup-daily") + 1, orders() - before);
    assert!((2..=most).contains(&kept), "{kept} base backups are kept, at most {most} should be");
    assert!(orders() > before, "nobody traded");
}
