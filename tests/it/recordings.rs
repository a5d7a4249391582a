//! The recordings that ship: real drills, whole, and what they are said to be.

use std::process::Command;

use lifeboat::event::{Event, Verdict};
use lifeboat::journal::Journal;
use lifeboat::replay::Recording;

use crate::support::checkout;
use crate::support::sandbox::text;

fn recording(name: &str) -> std::path::PathBuf {
    checkout().join("recordings").join(name)
}

#[test]
fn each_is_a_whole_journal_of_a_drill_that_passed() {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(checkout().join("recordings")).unwrap() {
        let path = entry.unwrap().path();
        let played = Recording::open(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let (end, _) = played.at(played.length());
        assert_eq!(end.finished.map(|(_, verdict)| verdict), Some(Verdict::Passed), "{}", path.display());
        names.push(path.file_name().unwrap().to_string_lossy().into_owned());
    }
    names.sort();
    assert_eq!(names, ["restore-passes.jsonl", "restore-second-try.jsonl"]);
}

#[test]
fn in_the_second_the_operator_goes_again_from_the_choice() {
    let events: Vec<Event> = Journal::read(&recording("restore-second-try.jsonl"))
        .unwrap()
        .envelopes
        .into_iter()
        .map(|envelope| envelope.event)
        .collect();
    let at = |what: &dyn Fn(&Event) -> bool| events.iter().position(what).expect("the event");
    let failed = at(
        &|event| matches!(event, Event::StepFinished { step, outcome, .. } if step == "check-db" && outcome.failure.is_some()),
    );
    let reopened = at(&|event| matches!(event, Event::StepReopened { step, .. } if step == "choose"));
    let promoted = at(&|event| matches!(event, Event::StepStarted { step, .. } if step == "promote"));
    assert!(failed < reopened && reopened < promoted);
}

#[test]
fn a_dump_tells_the_whole_drill_in_lines() {
    let dump = Command::new(env!("CARGO_BIN_EXE_lifeboat"))
        .args(["replay", "--dump"])
        .arg(recording("restore-passes.jsonl"))
        .output()
        .unwrap();
    let said = text(&dump.stdout);
    assert!(dump.status.success(), "{}", text(&dump.stderr));
    for line in ["declared: customers cannot pay", "Stop writes to orders-db", "PASSED"] {
        assert!(said.contains(line), "no `{line}` in:\n{said}");
    }
}
