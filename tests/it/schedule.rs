//! `lifeboat schedule`: cadences against programs that are not ours, and units that those programs take.

mod hour;

use std::path::{Path, PathBuf};
use std::process::Command;

use chrono::{DateTime, TimeDelta, Utc};
use clap::Parser as _;
use lifeboat::clock;
use lifeboat::event::{BoundSystem, Event, Mode, Outcome, Verdict};
use lifeboat::inventory::Cadence;

use crate::report::story::Story;

/// Python with croniter and kubernetes-validate; `tests/run` installs it.
fn python() -> PathBuf {
    let given = std::env::var_os("LIFEBOAT_SCHEDULERS").map(PathBuf::from);
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.unwrap_or_else(|| PathBuf::from(std::env::var_os("HOME").unwrap()).join(".cache"));
    let python = given.unwrap_or_else(|| cache.join("lifeboat/schedulers/bin")).join("python");
    assert!(python.exists(), "no {}: `tests/run` installs it", python.display());
    python
}

fn at(text: &str) -> DateTime<Utc> {
    text.parse().unwrap()
}

/// What a program said, which must have gone well.
fn said(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{command:?}\n{text}{}", String::from_utf8_lossy(&output.stderr));
    text
}

const CADENCES: &[(&str, &str)] = &[
    ("daily at 02:30", "UTC"),
    ("daily at 10:15", "Europe/Berlin"),
    ("every 15 minutes", "Europe/Berlin"),
    ("every 6 hours", "Asia/Kolkata"),
    ("hourly at :05", "America/New_York"),
    ("weekdays at 22:00", "America/New_York"),
    ("weekly on sunday at 04:00", "Australia/Lord_Howe"),
    ("monthly on the first monday at 10:00", "Europe/Berlin"),
    ("monthly on the fourth friday at 16:45", "Pacific/Auckland"),
    ("monthly on the 28th at 00:00", "Asia/Tokyo"),
    ("quarterly", "America/Sao_Paulo"),
    ("quarterly on the second tuesday at 09:00", "Europe/London"),
    ("yearly on the 3rd", "UTC"),
    ("0,30 8-18/2 * jan,jun-aug mon-fri", "Europe/Paris"),
];

#[cfg(target_os = "linux")]
#[test]
fn systemd_has_the_same_times() {
    for (cadence, zone) in CADENCES {
        let ours = Cadence::read(cadence, zone).unwrap();
        for base in ["2026-11-21T20:00:00Z", "2027-02-27T23:59:00Z"] {
            let mut command = Command::new("systemd-analyze");
            command.args(["calendar", "--iterations=10"]).env("TZ", "UTC").env("LC_ALL", "C");
            command.arg(format!("--base-time={} UTC", at(base).format("%Y-%m-%d %H:%M:%S")));
            let text = said(command.arg(ours.on_calendar()));
            let times = text.lines().filter(|line| line.contains("Next elapse") || line.contains("Iter"));
            let theirs: Vec<String> =
                times.map(|line| line.split_whitespace().rev().take(3).collect::<Vec<_>>().join(" ")).collect();
            let mut moment = at(base);
            let mine: Vec<String> = (0..10)
                .map(|_| {
                    moment = ours.next(moment).unwrap();
                    format!("UTC {} {}", moment.format("%H:%M:%S"), moment.format("%Y-%m-%d"))
                })
                .collect();
            assert_eq!(mine, theirs, "{cadence} in {zone}: {}", ours.on_calendar());
        }
    }
}

#[test]
fn croniter_has_the_same_times() {
    const SCRIPT: &str = "
import sys
from datetime import datetime, timezone
from zoneinfo import ZoneInfo
from croniter import croniter
fields, zone, base, low, high = sys.argv[1:]
start = datetime.fromisoformat(base).astimezone(ZoneInfo(zone))
times, found = croniter(fields, start), 0
while found < 8:
    at = times.get_next(datetime)
    if int(low) <= at.day <= int(high):
        print(at.astimezone(timezone.utc).strftime('%Y-%m-%d %H:%M'))
        found += 1
";
    for (cadence, zone) in CADENCES {
        let ours = Cadence::read(cadence, zone).unwrap();
        let (fields, days) = ours.crontab();
        let (low, high) = days.unwrap_or((1, 31));
        let base = "2026-11-21T20:00:00+00:00";
        let mut command = Command::new(python());
        command.args(["-c", SCRIPT, &fields, zone, base, &low.to_string(), &high.to_string()]);
        let mut moment = at("2026-11-21T20:00:00Z");
        let mine: Vec<String> = (0..8)
            .map(|_| {
                moment = ours.next(moment).unwrap();
                moment.format("%Y-%m-%d %H:%M").to_string()
            })
            .collect();
        assert_eq!(mine, said(&mut command).lines().collect::<Vec<_>>(), "{cadence} in {zone}: {fields}");
    }
}

/// An inventory whose names and values would do harm if anybody took them for more than text.
fn inventory(dir: &Path) -> PathBuf {
    let text = r#"
format = 1
service = "orders"

[objectives]
rto = "1h"
rpo = "15m"

[stores.backups]
url = "file:backups"

[stores.far]
url = "s3://acme-dr/orders?region=eu-central-1"
access_key = { env = "FAR_KEY" }
secret_key = { env = "FAR_SECRET" }

[systems.orders-db]
kind = "postgres"
environment = "production"
url = { env = "ORDERS_DB_URL" }
backups = { store = "backups" }
restore = { directory = "restored/db" }

[systems.orders-cache]
kind = "redis"
environment = "production"
url = { file = "/run/secrets/orders-cache" }
backups = { store = "far" }
restore = { directory = "restored/cache" }

[[schedules]]
name = "nightly"
runbook = "backup-now"
cadence = "daily at 10:30"
zone = "Europe/Berlin"
timeout = "2h"

[[schedules]]
runbook = "game-day"
cadence = "monthly on the first monday at 10:00"
zone = "America/New_York"
overdue_after = "7d"
systems = { db = "orders-db" }
variables = { note = "100 % \"$HOME\" 'x' `id` \\ ; touch canary\nsecond" }
answers = "answers file.toml"
"#;
    let path = dir.join("lifeboat.toml");
    std::fs::write(&path, text).unwrap();
    path
}

fn lifeboat(args: &[&str], inventory: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lifeboat"));
    command.arg("schedule").args(args).arg("--inventory").arg(inventory);
    command.env("TZ", "Asia/Tokyo").env_remove("LIFEBOAT_STATE_DIR").current_dir(inventory.parent().unwrap());
    command
}

/// The files that `emit` wrote.
fn emitted(dir: &Path, scheduler: &str, more: &[&str]) -> Vec<PathBuf> {
    let out = dir.join(scheduler);
    let mut args = vec!["emit", scheduler, "--out", out.to_str().unwrap()];
    args.extend(more);
    let names = said(&mut lifeboat(&args, &inventory(dir)));
    let files: Vec<PathBuf> = names.lines().map(PathBuf::from).collect();
    for file in &files {
        let text = std::fs::read_to_string(file).unwrap();
        assert!(text.contains("ORDERS_DB_URL"), "{}: the secret's name stands there", file.display());
    }
    files
}

/// What a scheduled run must be told; that the program takes it is shown by its own parser.
fn takes(argv: &[String]) {
    let parsed = lifeboat::cli::Cli::try_parse_from(argv);
    assert!(parsed.is_ok(), "{argv:?}\n{}", parsed.unwrap_err());
    for word in ["run", "--headless", "--yes", "--inventory", "--state-dir"] {
        assert!(argv.iter().any(|arg| arg == word), "{word} is missing in {argv:?}");
    }
}

const NOTE: &str = "note=100 % \"$HOME\" 'x' `id` \\ ; touch canary\nsecond";

#[cfg(target_os = "linux")]
#[test]
fn systemd_takes_the_units() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("units");
    let args = ["emit", "systemd", "--user", "root", "--out", out.to_str().unwrap()];
    let names = said(&mut lifeboat(&args, &inventory(dir.path())));
    let units: Vec<&str> = names.lines().collect();
    assert_eq!(units.len(), 4);
    let mut verify = Command::new("systemd-analyze");
    let verified = verify.args(["verify", "--man=no", "--recursive-errors=no"]).args(&units).output().unwrap();
    let complaints = String::from_utf8_lossy(&verified.stderr).into_owned();
    assert!(verified.status.success(), "{complaints}");
    assert!(!complaints.contains("lifeboat-orders"), "{complaints}");
    let read = |name: &str| std::fs::read_to_string(out.join(name)).unwrap();
    let service = read("lifeboat-orders-nightly.service");
    for line in [
        "EnvironmentFile=/etc/lifeboat/orders.env",
        "TimeoutStartSec=7200",
        "NoNewPrivileges=yes",
        "ProtectSystem=strict",
    ] {
        assert!(service.lines().any(|found| found == line), "{line}\n{service}");
    }
    let writes = format!("ReadWritePaths=-{}", dir.path().join("backups").display());
    assert!(service.lines().any(|line| line == writes), "{service}");
    let timer = read("lifeboat-orders-game-day.timer");
    assert!(
        timer.contains("OnCalendar=Mon *-*-01..07 10:00:00 America/New_York\n") && timer.contains("Persistent=true")
    );
    let hostile = read("lifeboat-orders-game-day.service");
    let commands: Vec<&str> = hostile.lines().filter(|line| line.starts_with("ExecStart=")).collect();
    assert_eq!(commands.len(), 1, "a value with a line in it begins no line of the unit");
    assert!(commands[0].contains(r#""note=100 %% \"$$HOME\" 'x' `id` \\ ; touch canary\nsecond""#), "{}", commands[0]);
    // The other command has no quotes: its words are the program's.
    let plain = service.lines().find_map(|line| line.strip_prefix("ExecStart=")).unwrap();
    takes(&plain.replace("\"schedule nightly\"", "x").split(' ').map(str::to_owned).collect::<Vec<_>>());
}

#[test]
fn a_shell_runs_the_lines_of_the_crontab_as_they_are_meant() {
    let dir = tempfile::tempdir().unwrap();
    // Stands in for the program, and writes down what it was told.
    let tell = dir.path().join("tell.py");
    std::fs::write(&tell, "#!/usr/bin/env python3\nimport sys, json, os\njson.dump([sys.argv, os.environ['ORDERS_DB_URL']], open(os.path.dirname(__file__) + '/told', 'w'))\n").unwrap();
    let env = dir.path().join("orders.env");
    std::fs::write(&env, "ORDERS_DB_URL='postgres://x'\n").unwrap();
    said(Command::new("chmod").arg("+x").arg(&tell));
    let state = dir.path().join("state");
    let more = [
        "--program",
        tell.to_str().unwrap(),
        "--environment-file",
        env.to_str().unwrap(),
        "--state-dir",
        state.to_str().unwrap(),
    ];
    let files = emitted(dir.path(), "cron", &more);
    let text = std::fs::read_to_string(&files[0]).unwrap();
    assert!(text.contains("MAILTO=root\n") && text.contains("CRON_TZ=Europe/Berlin\n30 10 * * * "));
    let line = |start: &str| text.lines().find(|line| line.starts_with(start)).unwrap().to_owned();
    // As cron does it: up to the first % that is not escaped, and those lose their backslash.
    let command = |line: &str| {
        let command = line.splitn(6, ' ').nth(5).unwrap();
        assert!(!command.replace("\\%", "").contains('%'), "an unescaped % ends the command: {command}");
        command.replace("\\%", "%")
    };
    let run = |command: &str| {
        let _ = std::fs::remove_file(dir.path().join("told"));
        said(Command::new("/bin/sh").args(["-c", command]).current_dir(dir.path()));
        let told = std::fs::read_to_string(dir.path().join("told")).ok()?;
        let (argv, url): (Vec<String>, String) = serde_json::from_str(&told).unwrap();
        assert_eq!(url, "postgres://x", "the variables come from the file");
        Some(argv)
    };
    takes(&run(&command(&line("30 10 * * * "))).unwrap());
    let monthly = command(&line("0 10 * * 1 "));
    let today = monthly.replace("date +%d", "echo 07");
    let argv = run(&today).unwrap();
    takes(&argv);
    // A crontab has one line a command: the line inside the value is a blank there.
    assert!(argv.contains(&NOTE.replace('\n', " ")), "{argv:?}");
    assert!(argv.contains(&dir.path().join("answers file.toml").display().to_string()));
    assert!(!dir.path().join("canary").exists());
    assert_eq!(run(&monthly.replace("date +%d", "echo 08")), None, "the second Monday is not the first");
}

#[test]
fn kubernetes_takes_the_jobs() {
    let dir = tempfile::tempdir().unwrap();
    let files = emitted(dir.path(), "kubernetes", &[]);
    said(Command::new(python()).args(["-m", "kubernetes_validate", "--strict", "--no-warn"]).arg(&files[0]));
    const SCRIPT: &str = "import sys, json, yaml; print(json.dumps(list(yaml.safe_load_all(open(sys.argv[1])))))";
    let text = said(Command::new(python()).args(["-c", SCRIPT]).arg(&files[0]));
    let jobs: Vec<serde_json::Value> = serde_json::from_str(&text).unwrap();
    assert_eq!(jobs.len(), 2);
    for job in &jobs {
        let spec = &job["spec"];
        assert_eq!(spec["concurrencyPolicy"], "Forbid");
        let pod = &spec["jobTemplate"]["spec"]["template"]["spec"];
        assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
        let container = &pod["containers"][0];
        assert_eq!(container["securityContext"]["readOnlyRootFilesystem"], true);
        assert!(container["resources"]["limits"]["memory"].is_string());
        let secret = &container["env"].as_array().unwrap().iter().find(|env| env["name"] == "ORDERS_DB_URL").unwrap();
        assert_eq!(secret["valueFrom"]["secretKeyRef"]["name"], "lifeboat-orders");
        assert_eq!(secret["value"], serde_json::Value::Null);
        let words = |value: &serde_json::Value| serde_json::from_value::<Vec<String>>(value.clone()).unwrap();
        let mut argv = vec!["lifeboat".to_owned()];
        argv.extend(words(&container["args"]));
        takes(&argv);
        let mounts = container["volumeMounts"].as_array().unwrap();
        let volumes: Vec<_> = pod["volumes"].as_array().unwrap().iter().map(|volume| &volume["name"]).collect();
        assert!(mounts.iter().all(|mount| volumes.contains(&&mount["name"])), "each mount has its volume");
        assert!(
            mounts.iter().any(|mount| mount["mountPath"] == "/run/secrets/orders-cache" && mount["readOnly"] == true)
        );
    }
    assert_eq!(
        (&jobs[0]["spec"]["schedule"], &jobs[0]["spec"]["timeZone"]),
        (&"30 10 * * *".into(), &"Europe/Berlin".into())
    );
    assert_eq!(jobs[0]["spec"]["jobTemplate"]["spec"]["activeDeadlineSeconds"], 7200);
    assert_eq!(jobs[1]["spec"]["startingDeadlineSeconds"], 7 * 24 * 3600);
    let container = &jobs[1]["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"][0];
    assert!(container["args"].as_array().unwrap().contains(&NOTE.into()), "the value is whole: {}", container["args"]);
    // The guard of the first Monday: it ends well on any other, and gives way to the program on the day.
    let guard: Vec<String> = serde_json::from_value(container["command"].clone()).unwrap();
    let day = |day: &str| {
        let script = guard[2].replace("date +%d", &format!("echo {day}"));
        said(Command::new("/bin/sh").args(["-c", &script, "x", "echo", "runs"]))
    };
    assert_eq!((day("01"), day("07"), day("08")), ("runs\n".to_owned(), "runs\n".to_owned(), String::new()));
    assert_eq!(guard[4], "/usr/bin/lifeboat");
}

/// A run of `backup-now` of this inventory, so long ago.
fn ran(state: &Path, id: &str, ago: TimeDelta, verdict: Verdict) {
    let runbook = include_str!("../../runbooks/backup-now.toml");
    let mut story = Story::opened(state, id, clock::wall_now() - ago, |opening| {
        opening.runbook_source = runbook.to_owned();
        opening.mode = Mode::Drill;
        opening.systems = [("orders-db", "postgres"), ("orders-cache", "redis")]
            .map(|(name, kind)| {
                let bound = BoundSystem {
                    name: name.into(),
                    kind: kind.into(),
                    environment: "production".into(),
                    address: "127.0.0.1:1".into(),
                    rpo_seconds: Some(900),
                    rto_seconds: None,
                };
                (if kind == "postgres" { "db" } else { "cache" }.to_owned(), bound)
            })
            .into();
    });
    story.event(Event::Declared { reason: "x".into() }).start("any", 1).wait(1.0);
    story.finish("any", 1, Outcome::passed("done"));
    story.end(verdict);
}

fn status(state: &Path, inventory: &Path) -> (Option<i32>, serde_json::Value) {
    let output = lifeboat(&["--json", "--state-dir", state.to_str().unwrap()], inventory).output().unwrap();
    (output.status.code(), serde_json::from_slice(&output.stdout).unwrap())
}

#[test]
fn what_is_overdue_is_said_with_an_exit_code() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    let text = std::fs::read_to_string(inventory(dir.path())).unwrap();
    let inventory = dir.path().join("lifeboat.toml");
    std::fs::write(&inventory, &text[..text.rfind("[[schedules]]").unwrap()]).unwrap();
    let of = |found: &serde_json::Value, key: &str| found["schedules"][0][key].clone();
    let (code, found) = status(&state, &inventory);
    assert_eq!((code, of(&found, "overdue"), of(&found, "last")), (Some(1), true.into(), serde_json::Value::Null));
    ran(&state, "019a-1", TimeDelta::days(4), Verdict::Passed);
    let (code, found) = status(&state, &inventory);
    assert_eq!((code, of(&found, "overdue")), (Some(1), true.into()));
    // Due within a day of the run, and that is three days ago or a little less.
    let late = of(&found, "overdue_seconds").as_f64().unwrap() / 86_400.0;
    assert!((3.0..=4.0).contains(&late), "{late} days");
    assert_eq!(of(&found, "last")["verdict"], "passed");
    // A failed run is the last one, and makes up for nothing.
    ran(&state, "019a-2", TimeDelta::hours(2), Verdict::Failed);
    let (code, found) = status(&state, &inventory);
    assert_eq!((code, of(&found, "last")["verdict"].clone()), (Some(1), "failed".into()));
    ran(&state, "019a-3", TimeDelta::hours(1), Verdict::ObjectiveMissed);
    let (code, found) = status(&state, &inventory);
    assert_eq!((code, of(&found, "overdue")), (Some(0), false.into()));
    let next = of(&found, "next");
    assert!(next[0]["there"].as_str().unwrap().contains("T10:30:00+0"), "{next}");
    let state = state.to_str().unwrap();
    let table = said(&mut lifeboat(&["--state-dir", state], &inventory));
    assert!(table.contains("on time") && table.contains("+09:00") && table.contains("in Europe/Berlin"), "{table}");
    let near = std::fs::read_to_string(&inventory).unwrap();
    let near = near.replace("s3://acme-dr/orders?region=eu-central-1", "file:far").replace("access_key", "# ");
    std::fs::write(&inventory, near.replace("secret_key", "# ")).unwrap();
    // Prometheus gets the same moment: the end of the newest good run, and how long after it is too long.
    let mut metrics = Command::new(env!("CARGO_BIN_EXE_lifeboat"));
    metrics.args(["metrics", "--stores-only", "--state-dir", state, "--inventory"]).arg(&inventory);
    let page = said(&mut metrics);
    let value = |name: &str| -> f64 {
        let start = format!("lifeboat_{name}{{service=\"orders\",runbook=\"backup-now\"}} ");
        let line =
            page.lines().find_map(|line| line.strip_prefix(&start)).unwrap_or_else(|| panic!("no {name}: {page}"));
        line.parse().unwrap()
    };
    let started = at(of(&found, "last")["started"].as_str().unwrap());
    let due = Cadence::read("daily at 10:30", "Europe/Berlin").unwrap().next(started).unwrap();
    let late = value("job_last_success_timestamp_seconds") + value("job_max_age_seconds");
    // As no `overdue_after` says otherwise.
    let overdue_after = 86_400.0;
    assert!((late - (due.timestamp() as f64 + overdue_after)).abs() < 1.0, "{late}: {page}");
}
