use std::process::Command;

use lifeboat::clock;
use lifeboat::event::{Event, Verdict};
use lifeboat::report::verify::{Conclusion, Mark, Request, verify};
use lifeboat::report::{self, ReportError, Statement, model::Standing};

use super::story::{self, HOSTILE, Story};

fn close(found: f64, expected: f64) {
    assert!((found - expected).abs() < 1e-6, "{found} instead of {expected}");
}

#[test]
fn the_figures_are_those_of_the_drill() {
    let state = tempfile::tempdir().unwrap();
    let drill = story::passed(state.path(), "019a-1");
    let written = report::write(drill.path()).unwrap();
    let report = &written.report;
    assert_eq!(report.verdict, Some(Verdict::Passed));
    assert_eq!(report.runbook.title, "Restore orders-db and orders-cache to one point");
    // 0.5 + 38 + 12.25 + 3 + 61 + 21.4 + 8 + 45 + 104 + 1.2 + 0.3
    close(report.rto.seconds.unwrap(), 294.65);
    close(report.rto.human_seconds, 0.5 + 38.0 + 12.25 + 61.0 + 45.0);
    close(report.rto.machine_seconds, 294.65 - 156.75);
    assert_eq!((report.rto.met, report.rto.recovered), (Some(true), true));
    let recovered = report.times.recovered.as_ref().unwrap();
    assert_eq!(recovered.utc.to_rfc3339(), "2026-11-21T09:07:28.157+00:00");
    let db = &report.rpo[0];
    assert_eq!((db.system.as_str(), db.met, db.objective_seconds), ("orders-db", Some(true), Some(900.0)));
    close(db.selected_loss.as_ref().unwrap().seconds, 4.1);
    assert_eq!(db.lost_writes.as_ref().unwrap().lost, 3);
    close(report.skew_seconds.unwrap(), 312.482);
    assert_eq!(report.recovery_points.len(), 1, "the answer and the variable are one choice");
    assert_eq!(report.recovery_points[0].by.as_deref(), Some("ada"));
    let step = report.steps.iter().find(|step| step.id == "restore-db").unwrap();
    assert_eq!((step.standing, step.attempts.len()), (Standing::Passed, 2));
    close(step.human_seconds, 45.0);
    close(step.machine_seconds, 29.4 + 104.0);
    let confirm = report.steps.iter().find(|step| step.id == "broken").unwrap();
    close(confirm.human_seconds, 38.0);
    close(confirm.machine_seconds, 0.0);
    assert_eq!((report.failures.len(), report.skips.len(), report.findings.len()), (1, 1, 1));
    assert_eq!(report.failures[0].then, Standing::Passed);
    let checks: Vec<_> = report.checks.iter().map(|check| (check.name.as_str(), check.passed)).collect();
    assert_eq!(checks, [("Place an order", true), ("orders", true), ("checksums", true)]);
    assert_eq!(report.evidence.outputs.len(), 8);
}

#[test]
fn digests_hold_by_sha256sum() {
    let state = tempfile::tempdir().unwrap();
    let drill = story::passed(state.path(), "019a-1");
    let dir = report::write(drill.path()).unwrap().dir;
    let check =
        || Command::new("sha256sum").args(["--ignore-missing", "-c", "VERIFY.txt"]).current_dir(&dir).output().unwrap();
    let output = check();
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).unwrap();
    for name in ["statement.json", "report.md", "report.html", "report.json", "../journal.jsonl"] {
        assert!(text.contains(&format!("{name}: OK")), "{text}");
    }
    let script = "tail -n 1 ../journal.jsonl | tr -d '\\n' | sha256sum";
    let output = Command::new("sh").args(["-c", script]).current_dir(&dir).output().unwrap();
    let statement = Statement::parse(&std::fs::read(dir.join("statement.json")).unwrap()).unwrap();
    assert!(String::from_utf8(output.stdout).unwrap().starts_with(&statement.journal.head.to_string()));
    std::fs::write(dir.join("report.md"), "all is well\n").unwrap();
    assert!(!check().status.success());
}

#[test]
fn hostile_words_stay_words() {
    let state = tempfile::tempdir().unwrap();
    let drill = story::passed(state.path(), "019a-1");
    let dir = report::write(drill.path()).unwrap().dir;
    let read = |name: &str| std::fs::read_to_string(dir.join(name)).unwrap();
    let html = read("report.html");
    assert!(!html.contains("<script") && !html.contains("onload=\"x") && html.contains("&lt;script&gt;"));
    assert!(!html.contains("http-equiv=\"refresh") && !html.contains(" src=") && !html.contains("href="));
    for name in ["report.md", "report.html", "report.json", "VERIFY.txt", "statement.json"] {
        let text = read(name);
        let bad = text.chars().find(|c| (c.is_control() && *c != '\n') || *c == '\u{202e}');
        assert_eq!(bad, None, "{name}");
    }
    let mut rendered = String::new();
    let options = pulldown_cmark::Options::ENABLE_TABLES;
    pulldown_cmark::html::push_html(&mut rendered, pulldown_cmark::Parser::new_ext(&read("report.md"), options));
    assert!(!rendered.contains("<script") && rendered.contains("&lt;script&gt;"));
    let events = pulldown_cmark::Parser::new_ext(&read("report.md"), options).collect::<Vec<_>>().len();
    assert!(events > 100 && HOSTILE.contains('|'), "a bar in a reason opens no column");
    for line in read("report.md").lines().filter(|line| line.starts_with("| ✓ |")) {
        let bars = line.replace("\\|", "").matches('|').count();
        assert!(bars == 5 || bars == 8, "{line}");
    }
}

#[test]
fn the_fields_of_the_json_are_stable() {
    let state = tempfile::tempdir().unwrap();
    let drill = story::passed(state.path(), "019a-1");
    let dir = report::write(drill.path()).unwrap().dir;
    let bytes = std::fs::read(dir.join("report.json")).unwrap();
    let value: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
    let names: Vec<_> = value.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(
        names.join(" "),
        "format drill service mode environment verdict reasons runbook operators host lifeboat_version declared_reason \
         times rto rpo skew_seconds recovery_points phases steps checks failures skips notes findings pauses resumes \
         clock_uncertain systems variables evidence"
    );
    assert_eq!(value["format"], 1);
    assert_eq!(value["steps"][0]["standing"], "passed");
    let report: report::Report = serde_json::from_slice(&bytes).unwrap();
    assert_eq!(report.drill, "019a-1");
}

#[test]
fn a_drill_that_has_not_ended_has_no_report_yet() {
    let state = tempfile::tempdir().unwrap();
    let mut story = Story::open(state.path(), "019a-1");
    story.wait(1.0).event(Event::Declared { reason: "x".into() });
    assert!(matches!(report::write(story.dir.path()), Err(ReportError::Unfinished)));
    assert!(!story.dir.report().exists());
    let report = report::read(&story.dir).unwrap();
    assert_eq!((report.verdict, report.reasons[0].as_str()), (None, "The drill is under way."));
}

#[test]
fn a_drill_that_failed_says_where_and_never_that_it_recovered() {
    let state = tempfile::tempdir().unwrap();
    let mut story = Story::open(state.path(), "019a-1");
    story.wait(2.0).event(Event::Declared { reason: "x".into() }).start("broken", 1).wait(5.0);
    let failure = lifeboat::event::Failure::new("nobody answers", "connection refused");
    story.finish("broken", 1, lifeboat::event::Outcome::failed(failure));
    story.answer("broken", lifeboat::event::Answer::Stop);
    let drill = story.end(Verdict::Failed);
    let report = report::write(drill.path()).unwrap().report;
    assert_eq!(
        report.reasons,
        [
            "It ended at the step “Make sure that a restore is the answer”: nobody answers: connection refused.",
            "The recovery of the service was not proven within the 5 s of this drill.",
        ]
    );
    assert_eq!((report.rto.recovered, report.rto.met, report.times.recovered), (false, Some(false), None));
}

#[test]
fn a_reboot_in_the_middle_is_told() {
    let state = tempfile::tempdir().unwrap();
    let mut story = Story::open(state.path(), "019a-1");
    story.wait(2.0).event(Event::Declared { reason: "x".into() }).start("broken", 1).wait(600.0);
    story.event(Event::EngineStarted {
        boot_id: "second".into(),
        host: "bastion-1".into(),
        operator: "bob".into(),
        lifeboat_version: "0.1.0".into(),
    });
    story.event(Event::StepInDoubt { step: "broken".into(), attempt: 1, why: "no outcome".into(), living: Vec::new() });
    story.wait(50.0).event(Event::Aborted { reason: "enough".into(), by: "bob".into() });
    let report = report::write(story.end(Verdict::Aborted).path()).unwrap().report;
    assert!(report.clock_uncertain && report.resumes[0].rebooted);
    assert_eq!(report.operators, ["ada", "bob"]);
    assert_eq!(report.reasons[0], "bob ended it: enough.");
    assert_eq!(report.steps[0].standing, Standing::InDoubt);
    close(report.steps[0].machine_seconds, 600.0);
}

#[test]
fn a_report_names_the_statement_before_it() {
    let state = tempfile::tempdir().unwrap();
    let first = report::write(story::passed(state.path(), "019a-1").path()).unwrap();
    let second = report::write(story::passed(state.path(), "019a-2").path()).unwrap();
    assert_eq!(first.statement.previous_statement_sha256, None);
    let bytes = std::fs::read(first.dir.join("statement.json")).unwrap();
    assert_eq!(second.statement.previous_statement_sha256, Some(lifeboat::digest::Digest::of(&bytes)));
    assert_ne!(first.statement.nonce, second.statement.nonce);
    let told = |dir: &std::path::Path| verify(&Request::new(dir)).to_string();
    assert!(told(&second.dir).contains("is beside it, as it was"));
    std::fs::write(first.dir.join("statement.json"), b"{}").unwrap();
    assert!(told(&second.dir).contains("is not beside it"));
}

#[test]
fn writing_again_replaces_a_report_and_leaves_nothing_else() {
    let state = tempfile::tempdir().unwrap();
    let drill = story::passed(state.path(), "019a-1");
    report::write(drill.path()).unwrap();
    report::write(drill.path()).unwrap();
    let mut names: Vec<_> = std::fs::read_dir(drill.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names, ["journal.jsonl", "output", "report", "work"]);
}

#[test]
fn every_changed_file_is_found() {
    let state = tempfile::tempdir().unwrap();
    let drill = story::passed(state.path(), "019a-1");
    let dir = report::write(drill.path()).unwrap().dir;
    let request = Request { at: clock::wall_now(), ..Request::new(drill.path()) };
    let whole = verify(&request);
    assert_eq!(whole.conclusion(), Conclusion::Unsigned, "{whole}");
    assert!(whole.to_string().contains("· unsigned: no operator has signed"));
    assert!(whole.to_string().ends_with("UNSIGNED: the operator has not signed this statement."));
    assert!(whole.lines.iter().all(|line| line.mark != Mark::Bad));
    let blob = std::fs::read_dir(drill.output()).unwrap().next().unwrap().unwrap().path();
    let files = ["report.md", "report.html", "report.json"].map(|name| dir.join(name));
    for path in files.into_iter().chain([drill.journal(), blob]) {
        let good = std::fs::read(&path).unwrap();
        for index in [0, good.len() / 2, good.len() - 1] {
            let mut bytes = good.clone();
            bytes[index] ^= 1;
            std::fs::write(&path, &bytes).unwrap();
            assert_eq!(verify(&request).conclusion(), Conclusion::Refused, "{} at {index}", path.display());
        }
        std::fs::write(&path, &good[..good.len() - 1]).unwrap();
        assert_eq!(verify(&request).conclusion(), Conclusion::Refused, "{} cut", path.display());
        std::fs::write(&path, good).unwrap();
    }
    // Figures that are not the journal's are found without any signature.
    let path = dir.join("statement.json");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replace("\"rto_seconds\": 294.65", "\"rto_seconds\": 29.465")).unwrap();
    let refused = verify(&request);
    assert!(refused.to_string().contains("says otherwise than the journal: rto_seconds"), "{refused}");
}
