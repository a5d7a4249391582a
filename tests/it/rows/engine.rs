//! Whoever dies, however it dies: what was done is known, and done once.

use std::process::Command;

use crate::support::sandbox::text;
use crate::support::small::Small;

const EFFECT: &str = "[[phases.steps]]\nid = \"effect\"\ntitle = \"Effect\"\ndo = \"command\"\n\
                      script = 'echo once >> effects; kill -9 $PPID; sleep 0.1'\n";

/// Killed in the middle of an effect that may not happen twice.
#[test]
fn row_23_what_is_in_doubt_is_not_done_again_without_a_person() {
    let drill = Small::new("", "", EFFECT);
    assert_eq!(drill.run(&[]).status.code(), None, "it was killed");
    let started = drill.journal().iter().any(|line| line["event"]["type"] == "step-started");
    assert!(started, "the effect came before its record");
    for _ in 0..2 {
        let mut again = Command::new(env!("CARGO_BIN_EXE_lifeboat"));
        again.args(["resume", "--headless", "--yes"]).current_dir(drill.path(""));
        let output = again.env("LIFEBOAT_STATE_DIR", drill.path("state")).output().unwrap();
        let effects = std::fs::read_to_string(drill.path("effects")).unwrap();
        assert_eq!(effects, "once\n", "the effect was done again: {}", text(&output.stderr));
        assert_eq!(output.status.code(), Some(4), "{}", text(&output.stderr));
    }
}

/// The disk takes less and less: a file of the program may grow to so many KiB.
#[test]
fn row_22_nothing_starts_that_cannot_be_recorded() {
    let steps: String = (0..12)
        .map(|n| {
            let script = format!("echo done > effect-{n}; head -c 3000 /dev/zero | tr \"\\\\000\" x");
            format!("[[phases.steps]]\nid = \"s{n}\"\ntitle = \"S {n}\"\ndo = \"command\"\nscript = '{script}'\n")
        })
        .collect();
    let mut stopped = 0;
    for kib in [6, 9, 12, 15, 18, 22, 27, 33, 40, 4096] {
        let drill = Small::new("", "", &steps);
        let run = drill.command(&[]);
        let mut command = Command::new("bash");
        command.args(["-c", "trap '' XFSZ; ulimit -f $1; shift; exec \"$@\"", "limit", &kib.to_string()]);
        command.arg(run.get_program()).args(run.get_args()).current_dir(drill.path(""));
        let output = command.env("LIFEBOAT_STATE_DIR", drill.path("state")).output().unwrap();
        let said = text(&output.stderr);
        assert!(drill.exists("state/drills"), "{said}");
        let journal = drill.journal();
        let told = |kind: &str, step: &str| {
            journal.iter().any(|line| line["event"]["type"] == kind && line["event"]["step"] == step)
        };
        for n in 0..12 {
            let step = format!("s{n}");
            let done = drill.exists(&format!("effect-{n}"));
            assert!(!done || told("step-started", &step), "{kib} KiB: {step} was done without a record: {said}");
            let shown = said.contains(&format!("✓ S {n}"));
            assert!(!shown || told("step-finished", &step), "{kib} KiB: {step} was shown and then lost: {said}");
        }
        let over = journal.iter().any(|line| line["event"]["type"] == "drill-finished");
        assert_eq!(output.status.success(), over, "{kib} KiB: {said}");
        stopped += usize::from(!over);
    }
    assert!(stopped > 2, "the disk was never too small");
}
