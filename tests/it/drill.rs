//! The whole drill on real servers: an incident, its repair, the evidence; and the same with the program killed halfway.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD as BASE64;
use lifeboat::digest::Digest;
use lifeboat::event::Event;
use lifeboat::journal::Journal;
use serde_json::Value;

use crate::support::sandbox::{Place, last_line, text};

/// Every file below a directory and its digest.
fn listing(directory: &Path) -> BTreeMap<PathBuf, Digest> {
    let mut found = BTreeMap::new();
    let mut open = vec![directory.to_owned()];
    while let Some(directory) = open.pop() {
        for path in std::fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().path()) {
            match path.is_dir() {
                true => open.push(path),
                false => {
                    found.insert(path.clone(), Digest::of_file(&path).unwrap().0);
                }
            }
        }
    }
    found
}

fn path(value: &Value) -> PathBuf {
    PathBuf::from(value.as_str().unwrap_or_else(|| panic!("{value} is no path")))
}

fn stock_verify(report: &Path, statement: &[u8]) -> bool {
    let mut child = Command::new("ssh-keygen")
        .args(["-Y", "verify", "-n", "lifeboat-operator", "-I", "operator@sandbox", "-f", "allowed_signers"])
        .args(["-s", "statement.json.operator.sig"])
        .current_dir(report)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("ssh-keygen runs");
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), statement).unwrap();
    child.wait().unwrap().success()
}

/// The restored data is the ledger up to the recovered point, row for row, and nothing else.
fn ledger_holds(place: &Place) -> Value {
    let found = place.json(&["ledger", "--json"]);
    assert_eq!(found["holds"], true, "{found}");
    found
}

#[test]
fn the_whole_drill_without_a_person() {
    let place = Place::new("drill");
    place.json(&["up", "--json"]);
    let bucket = place.0.join("bucket");
    let before = listing(&bucket);
    assert!(before.len() > 5, "{before:?}");
    let canary = "swordfish-of-the-deep";
    let output = place.command(&["drill", "--headless", "--yes", "--json"]).env("SOME_TOKEN", canary).output().unwrap();
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{said}");
    let found = last_line(&output);
    assert_eq!(found["verdict"], "passed", "{found}");
    let (rto, rpo) = (found["rto_seconds"].as_f64().unwrap(), found["rpo_seconds"].as_f64().unwrap());
    assert!(rto > 0.0 && rto < 300.0 && rpo > 0.0 && rpo < 300.0, "{found}");
    let ledger = ledger_holds(&place);
    assert!(ledger["present"].as_u64().unwrap() > 100, "{ledger}");
    // Nothing that was restored archives into the archive that it came from. The append-only file of the old Redis was
    // saved into it before that, and what the WAL said was kept; whatever was there is as it was.
    let mut after = listing(&bucket);
    let kept = after.keys().filter(|path| path.starts_with(bucket.join("orders-db/wal-index"))).count();
    assert!(kept > 0, "{after:?}");
    // Each lease was given back.
    let leases = ["orders-cache/lease", "orders-db/lease"].map(|folder| bucket.join(folder));
    for folder in &leases {
        let left: Vec<_> = after.keys().filter(|path| path.starts_with(folder)).collect();
        let record = std::fs::read_to_string(left.first().expect("a lease was taken")).unwrap();
        assert!(left.len() == 1 && record.contains("\"held\":false"), "{left:?}: {record}");
    }
    let may_come = |path: &Path| {
        ["orders-cache/aof", "orders-db/wal-index", "orders-cache/lease", "orders-db/lease"]
            .iter()
            .any(|folder| path.starts_with(bucket.join(folder)))
    };
    after.retain(|path, _| before.contains_key(path) || !may_come(path));
    assert_eq!(after, before);

    // The application works on the restored servers.
    let status = place.json(&["status", "--json"]);
    let restored: Vec<&Value> =
        status["servers"].as_array().unwrap().iter().filter(|server| server["restored"] == true).collect();
    assert_eq!(restored.len(), 2, "{status}");
    // They outlive the drill, and the environment of whoever ran it does not live on in them.
    assert!(place.processes().len() > 4);
    assert_eq!(place.knowing(canary), Vec::<String>::new());

    let report = path(&found["report_dir"]);
    for file in ["report.md", "report.html", "report.json", "statement.json", "VERIFY.txt", "allowed_signers"] {
        assert!(report.join(file).exists(), "{file}");
    }
    let statement = std::fs::read(report.join("statement.json")).unwrap();
    assert!(stock_verify(&report, &statement), "stock ssh-keygen refuses the statement");
    for at in [0, statement.len() / 2, statement.len() - 1] {
        let mut changed = statement.clone();
        changed[at] ^= 1;
        assert!(!stock_verify(&report, &changed), "stock ssh-keygen accepts a statement with byte {at} changed");
    }
    let journal = path(&found["journal"]);
    let verified = place.lifeboat(&["verify"]).arg(journal.parent().unwrap()).output().unwrap();
    assert_eq!(verified.status.code(), Some(0), "{}", text(&verified.stdout));

    // The log tells the same story.
    let logs = listing(&place.0.join("home/.local/state/lifeboat/log"));
    let log: String = logs.keys().map(|file| std::fs::read_to_string(file).unwrap()).collect();
    assert!(log.contains("step finished") && log.contains("restore-db"), "{log}");

    // Nothing that the drill says, leaves behind or runs holds a password, in no spelling.
    for name in ["orders-db", "orders-cache"] {
        let url = std::fs::read_to_string(place.0.join("secrets").join(name)).unwrap();
        let password = url.split([':', '@']).nth(2).unwrap();
        let spelt = [password.to_owned(), hex::encode(password), BASE64.encode(password)];
        let clean = |bytes: &[u8], what: &dyn std::fmt::Display| {
            let found = spelt.iter().find(|word| bytes.windows(word.len()).any(|window| window == word.as_bytes()));
            assert_eq!(found, None, "{what} holds the password of {name}");
        };
        clean(&output.stdout, &"standard output");
        clean(&output.stderr, &"standard error");
        for artefact in listing(journal.parent().unwrap()).keys().chain(logs.keys()) {
            clean(&std::fs::read(artefact).unwrap(), &artefact.display());
        }
        for (pid, _) in place.processes() {
            clean(&std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default(), &format!("process {pid}"));
        }
    }
}

#[test]
fn killed_in_the_middle_of_the_restore_it_goes_on() {
    let place = Place::new("killed");
    place.json(&["up", "--json"]);
    let mut child = place
        .command(&["drill", "--headless", "--yes", "--json"])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // The first progress of the restore: bytes are moving.
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(child.stderr.take().unwrap()));
    let restoring = lines.any(|line| line.unwrap().contains("at most"));
    assert!(restoring, "the restore never began");
    child.kill().unwrap();
    child.wait().unwrap();
    let drills = place.0.join("home/.local/state/lifeboat/drills");
    let drill = std::fs::read_dir(&drills).unwrap().next().unwrap().unwrap().path();

    let resumed = place.lifeboat(&["resume", "--headless", "--yes", "--json"]).arg(&drill).output().unwrap();
    assert_eq!(resumed.status.code(), Some(0), "{}", text(&resumed.stderr));
    assert_eq!(last_line(&resumed)["verdict"], "passed");
    ledger_holds(&place);

    let events: Vec<Event> =
        Journal::read(&drill.join("journal.jsonl")).unwrap().envelopes.into_iter().map(|e| e.event).collect();
    let starts =
        |id: &str| events.iter().filter(|event| matches!(event, Event::StepStarted { step, .. } if step == id)).count();
    assert_eq!((starts("fence"), starts("choose"), starts("promote")), (1, 1, 1), "a step that was done is repeated");
    assert!(starts("restore-db") >= 2, "the restore was not taken up again");
    assert!(events.iter().any(|event| matches!(event, Event::EngineStarted { .. })));
    // What ended with the kill has ended: nothing but the four servers and the application is left.
    let deadline = lifeboat::clock::boot_now() + Duration::from_secs(5);
    let mut names = Vec::new();
    while lifeboat::clock::boot_now() < deadline {
        let comm = |(pid, _): &(u32, u32)| std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        names = place.processes().iter().map(comm).map(|name| name.trim().to_owned()).collect();
        names.retain(|name| name != "postgres" && name != "redis-server" && name != "lifeboat");
        if names.is_empty() {
            break;
        }
    }
    assert!(names.is_empty(), "left behind: {names:?}");
}

#[test]
fn what_a_failed_drill_leaves_running_is_said_with_the_way_to_remove_it() {
    let place = Place::new("left");
    place.json(&["up", "--json"]);
    // The end of WAL lies behind the damage: the tables are found missing after the restore.
    let answers = place.0.join("answers.toml");
    std::fs::write(&answers, "choose = \"latest\"\n").unwrap();
    let output = place.command(&["drill", "--headless", "--yes", "--answers"]).arg(&answers).output().unwrap();
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    let status = place.json(&["status", "--json"]);
    let restored: Vec<&Value> =
        status["servers"].as_array().unwrap().iter().filter(|server| server["restored"] == true).collect();
    assert!(!restored.is_empty(), "{status}");
    for server in restored {
        let (pid, directory) = (server["pid"].to_string(), server["directory"].as_str().unwrap());
        let told = |line: &&str| line.contains("still running") && line.contains(&pid) && line.contains(directory);
        assert!(said.lines().any(|line| told(&line)), "{server}: {said}");
    }
    assert!(said.contains(&format!("lifeboat sandbox down --dir {}", place.0.display())), "{said}");
    // Whichever of the two that fail is asked about first.
    let stopped = |step: &str| said.contains(&format!("{step}: unattended: stop (nobody to ask)"));
    assert!(stopped("Compare with the ledger") || stopped("Check that the tables are back"), "{said}");
    // What failed comes first, then why, in words.
    let lines: Vec<&str> = said.lines().collect();
    let failed = lines.iter().position(|line| line.contains("✗ Compare with the ledger: ")).unwrap();
    assert!(lines[failed + 1].contains("why: the ledger does not hold: "), "{said}");
}

#[test]
fn a_state_directory_closed_to_the_servers_user_is_refused_before_anything_is_built() {
    // Only root becomes another user.
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let (place, state) = (Place::new("closed"), tempfile::tempdir().unwrap());
    let output =
        place.command(&["drill", "--headless", "--yes", "--state-dir"]).arg(state.path()).output().expect("it runs");
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("cannot keep its state in") && said.contains("run as user"), "{said}");
    assert!(!place.0.exists(), "{said}");
}
