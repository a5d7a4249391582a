//! `lifeboat history`: what is told of past runs is what their journals say, and nothing of it is told by halves.

use std::path::Path;
use std::process::Command;

use lifeboat::event::{Event, Outcome, Verdict};
use lifeboat::history::{self, SignedBy};
use lifeboat::journal::DrillDir;
use lifeboat::report::sign::{FileKey, Role, allowed_signers_line, make_key, sign};
use lifeboat::report::{self};

use crate::report::story::{self, Story};

/// A drill that recovered after so many seconds, of one hour allowed.
fn recovered_in(state: &Path, id: &str, seconds: f64) -> DrillDir {
    let mut story = Story::open(state, id);
    story.wait(2.0).event(Event::Declared { reason: "x".into() }).start("smoke", 1).wait(seconds);
    story.finish("smoke", 1, Outcome::passed("201 Created"));
    story.end(if seconds > 3600.0 { Verdict::ObjectiveMissed } else { Verdict::Passed })
}

fn failed(state: &Path, id: &str) -> DrillDir {
    let mut story = Story::open(state, id);
    story.wait(2.0).event(Event::Declared { reason: "x".into() }).start("smoke", 1).wait(40.0);
    story.end(Verdict::Failed)
}

fn lifeboat(state: &Path, args: &[&str]) -> (Option<i32>, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lifeboat"));
    command.arg("history").args(args).arg("--state-dir").arg(state).env("LC_ALL", "C.UTF-8").env("TZ", "Europe/Paris");
    let output = command.output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
fn the_facts_are_those_of_the_journals() {
    let state = tempfile::tempdir().unwrap();
    let drill = story::passed(state.path(), "019a-1");
    failed(state.path(), "019a-2");
    let mut open = Story::open(state.path(), "019a-3");
    open.wait(30.0).event(Event::Declared { reason: "x".into() });
    let report = report::read(&drill).unwrap();
    let found = history::read(state.path()).unwrap();
    assert!(found.damaged.is_empty());
    let ids: Vec<_> = found.runs.iter().map(|run| run.drill.as_str()).collect();
    assert_eq!(ids, ["019a-3", "019a-2", "019a-1"], "the newest first");
    let run = &found.runs[2];
    assert_eq!((run.runbook.as_str(), run.revision), ("restore-both", 7));
    assert_eq!(run.title, "Restore orders-db and orders-cache to one point");
    assert_eq!((run.service.as_str(), run.environment.as_str(), run.operator.as_str()), ("orders", "sandbox", "ada"));
    assert_eq!(run.started, report.times.opened.utc);
    assert_eq!(run.ended, report.times.finished.as_ref().map(|at| at.utc));
    assert_eq!(run.seconds, report.times.finished.as_ref().unwrap().elapsed_seconds);
    assert_eq!((run.verdict, run.rto.recovered), (Some(Verdict::Passed), true));
    assert_eq!((run.rto.seconds, run.rto.target_seconds), (report.rto.seconds, Some(3600.0)));
    let rpo: Vec<_> = run.rpo.iter().map(|rpo| (rpo.system.as_str(), rpo.seconds, rpo.met)).collect();
    assert_eq!(rpo, [("orders-db", Some(4.1), Some(true)), ("orders-cache", Some(316.582), Some(true))]);
    assert_eq!((run.rpo[0].kind.as_str(), run.rpo[1].target_seconds), ("postgres", Some(3600.0)));
    assert_eq!(run.evidence, None);
    let (failed, open) = (&found.runs[1], &found.runs[0]);
    assert_eq!((failed.verdict, failed.rto.recovered), (Some(Verdict::Failed), false));
    assert_eq!((open.verdict, open.ended, open.seconds), (None, None, 30.0));
    let json = serde_json::to_string(&found).unwrap();
    let back: history::History = serde_json::from_str(&json).unwrap();
    assert_eq!(back.runs, found.runs, "the facts survive being written down");
}

#[test]
fn a_damaged_journal_is_named_and_hides_no_other() {
    let state = tempfile::tempdir().unwrap();
    recovered_in(state.path(), "019a-1", 600.0);
    let bent = recovered_in(state.path(), "019a-2", 60.0);
    let text = std::fs::read_to_string(bent.journal()).unwrap().replace("201 Created", "201 CREATED");
    std::fs::write(bent.journal(), text).unwrap();
    let empty = DrillDir::new(state.path(), "019a-3");
    std::fs::create_dir_all(empty.path()).unwrap();
    std::fs::write(empty.journal(), "").unwrap();
    let found = history::read(state.path()).unwrap();
    assert_eq!(found.runs.len(), 1);
    let damaged: Vec<_> = found.damaged.iter().map(|damaged| damaged.drill.as_str()).collect();
    assert_eq!(damaged, ["019a-3", "019a-2"]);
    assert!(found.damaged[1].failure.why.contains("does not follow"), "{:?}", found.damaged[1]);
    let (code, out, err) = lifeboat(state.path(), &[]);
    assert_eq!(code, Some(0));
    assert!(out.contains("RTO 10 min of 1 h") && !out.contains("1 min "), "{out}");
    assert!(err.contains("019a-2 is left out") && err.contains("019a-3 is left out"), "{err}");
    let (_, json, _) = lifeboat(state.path(), &["--json"]);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!((json["runs"].as_array().unwrap().len(), json["damaged"].as_array().unwrap().len()), (1, 2));
}

#[test]
fn only_a_signature_that_fits_counts() {
    let state = tempfile::tempdir().unwrap();
    let keys = tempfile::tempdir().unwrap();
    let drill = story::passed(state.path(), "019a-1");
    let dir = report::write(drill.path()).unwrap().dir;
    let signed = || history::run(&drill).unwrap().evidence.unwrap();
    assert_eq!((signed().fits, signed().signed), (true, Vec::new()));
    let ada = make_key(&keys.path().join("ada"), "ada").unwrap();
    let line = allowed_signers_line("ada@example.org", &[Role::Operator], &ada.public).unwrap();
    let key = FileKey::open(&ada.path, |_| None).unwrap();
    let made = sign(&dir, Role::Operator, "ada@example.org", &key).unwrap();
    let by = |name: Option<&str>| SignedBy {
        role: "operator".to_owned(),
        key: made.fingerprint.rsplit(' ').next().unwrap().to_owned(),
        name: name.map(str::to_owned),
    };
    assert_eq!(signed().signed, [by(None)]);
    std::fs::write(dir.join("allowed_signers"), format!("# ours\n{line}\n")).unwrap();
    assert_eq!(signed().signed, [by(Some("ada@example.org"))]);
    // The signature of an operator is none of an approver.
    std::fs::copy(dir.join(Role::Operator.file_name()), dir.join(Role::Approver.file_name())).unwrap();
    assert_eq!(signed().signed.len(), 1);
    let statement = std::fs::read_to_string(dir.join("statement.json")).unwrap();
    std::fs::write(dir.join("statement.json"), statement.replace("\"passed\"", "\"failed\"")).unwrap();
    assert_eq!(signed().signed, [], "the statement has changed since");
    std::fs::write(dir.join("statement.json"), &statement).unwrap();
    // The whole folder of one run says nothing of another.
    let other = recovered_in(state.path(), "019a-2", 60.0);
    std::fs::create_dir(other.report()).unwrap();
    for entry in std::fs::read_dir(&dir).unwrap().flatten() {
        std::fs::copy(entry.path(), other.report().join(entry.file_name())).unwrap();
    }
    let evidence = history::run(&other).unwrap().evidence.unwrap();
    assert_eq!((evidence.fits, evidence.signed), (false, Vec::new()));
}

#[test]
fn the_table_shows_the_trend_of_each_runbook() {
    let state = tempfile::tempdir().unwrap();
    for (id, seconds) in [("019a-1", 600.0), ("019a-2", 4000.0), ("019a-4", 900.0)] {
        recovered_in(state.path(), id, seconds);
    }
    failed(state.path(), "019a-3");
    let (code, out, err) = lifeboat(state.path(), &["--limit", "3"]);
    assert_eq!((code, err.as_str()), (Some(0), ""));
    insta::assert_snapshot!(out, @r"
    restore-both  orders · sandbox
      ▂█✗▂
      The last recovery took 15 min, 61 % less than the median of the 2 before; 1 of 4 took longer than the 1 h allowed, 1 did not recover.
      ✓ 2026-11-21 10:02 +01:00  drill: passed            RTO 15 min of 1 h           RPO orders-db –, orders-cache –  ada  no report
      ✗ 2026-11-21 10:02 +01:00  drill: failed            RTO –                       RPO orders-db –, orders-cache –  ada  no report
      ▲ 2026-11-21 10:02 +01:00  drill: objective missed  RTO 1 h 06 min 40 s of 1 h  RPO orders-db –, orders-cache –  ada  no report
      and 1 earlier
    ");
    let (_, none, _) = lifeboat(state.path(), &["--runbook", "no-such"]);
    assert!(none.starts_with("no run of no-such below "), "{none}");
    let (_, json, _) = lifeboat(state.path(), &["--json", "--limit", "1"]);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["runs"].as_array().unwrap().len(), 1);
    assert_eq!(json["runs"][0]["rto"]["seconds"], 900.0);
    assert_eq!(json["trends"][0]["runs"], 4, "a trend is that of all runs, whatever is shown");
}

#[test]
fn a_report_shows_the_runs_before_it_and_none_after_it() {
    let state = tempfile::tempdir().unwrap();
    let first = recovered_in(state.path(), "019a-1", 600.0);
    recovered_in(state.path(), "019a-2", 4000.0);
    failed(state.path(), "019a-3");
    let last = recovered_in(state.path(), "019a-4", 900.0);
    recovered_in(state.path(), "019a-5", 7.0);
    assert!(!report::render_all(&report::read(&first).unwrap()).unwrap()[1].1.contains("Earlier runs"));
    let written = report::write(last.path()).unwrap();
    let told: Vec<_> = written.report.trend.iter().map(|run| (run.drill.as_str(), run.recovered)).collect();
    assert_eq!(told, [("019a-1", true), ("019a-2", true), ("019a-3", false), ("019a-4", true)]);
    let read = |name: &str| std::fs::read_to_string(written.dir.join(name)).unwrap();
    let sentence = "The last recovery took 15 min, 61 % less than the median of the 2 before; 1 of 4 took longer than the \
                    1 h allowed, 1 did not recover.";
    assert!(read("report.html").contains(sentence));
    assert!(read("report.md").contains(sentence));
    let chart = read("report.html");
    let chart = &chart[chart.find("Earlier runs").unwrap()..chart.find("What went wrong").unwrap()];
    for (class, count) in [("dot met", 2 + 1), ("dot missed", 1 + 1), ("dot lost", 1 + 1)] {
        assert_eq!(chart.matches(&format!("class=\"{class}\"")).count(), count, "{class} and its legend");
    }
    assert!(chart.contains("RTO 1 h") && chart.contains("no recovery: failed") && !chart.contains("NaN"));
    let parsed: report::Report = serde_json::from_str(&read("report.json")).unwrap();
    assert_eq!(parsed.trend, written.report.trend);
}
