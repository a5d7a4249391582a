//! Whoever dies, however it dies: what was done is known, and done once.

use std::process::{Command, Output};

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

/// Twelve steps, each with an effect and a page of output.
fn twelve() -> Small {
    let steps: String = (0..12)
        .map(|n| {
            let script = format!("echo done > effect-{n}; head -c 3000 /dev/zero | tr \"\\\\000\" x");
            format!("[[phases.steps]]\nid = \"s{n}\"\ntitle = \"S {n}\"\ndo = \"command\"\nscript = '{script}'\n")
        })
        .collect();
    Small::new("", "", &steps)
}

/// Returns whether the drill came to its end; what was done or shown is in the journal in any case.
fn nothing_is_lost(drill: &Small, output: &Output, size: &str) -> bool {
    let said = text(&output.stderr);
    if !drill.exists("state/drills") {
        assert!(!output.status.success() && !drill.exists("effect-0"), "{size}: {said}");
        return false;
    }
    let journal = drill.journal();
    let told = |kind: &str, step: &str| {
        journal.iter().any(|line| line["event"]["type"] == kind && line["event"]["step"] == step)
    };
    for n in 0..12 {
        let step = format!("s{n}");
        let done = drill.exists(&format!("effect-{n}"));
        assert!(!done || told("step-started", &step), "{size}: {step} was done without a record: {said}");
        let shown = said.contains(&format!("✓ S {n}"));
        assert!(!shown || told("step-finished", &step), "{size}: {step} was shown and then lost: {said}");
    }
    let over = journal.iter().any(|line| line["event"]["type"] == "drill-finished");
    assert_eq!(output.status.success(), over, "{size}: {said}");
    over
}

/// The disk takes less and less: a file of the program may grow to so many KiB.
#[test]
fn row_22_nothing_starts_that_cannot_be_recorded() {
    let mut stopped = 0;
    for kib in [6, 9, 12, 15, 18, 22, 27, 33, 40, 4096] {
        let drill = twelve();
        let run = drill.command(&[]);
        let mut command = Command::new("bash");
        command.args(["-c", "trap '' XFSZ; ulimit -f $1; shift; exec \"$@\"", "limit", &kib.to_string()]);
        command.arg(run.get_program()).args(run.get_args()).current_dir(drill.path(""));
        let output = command.env("LIFEBOAT_STATE_DIR", drill.path("state")).output().unwrap();
        assert!(drill.exists("state/drills"), "{}", text(&output.stderr));
        stopped += usize::from(!nothing_is_lost(&drill, &output, &format!("{kib} KiB")));
    }
    assert!(stopped > 2, "the disk was never too small");
}

/// A file system of its own that is really full, at every size between none and enough; the step's own effects lie
/// elsewhere.
#[cfg(target_os = "linux")]
#[test]
#[ignore = "mounts file systems, which containers may not"]
fn row_22_a_full_file_system_stops_before_what_it_cannot_record() {
    const SCRIPT: &str = "mkdir state && mount -t tmpfs -o size=$1k tmpfs state && shift || exit 99\n\
                          \"$@\"; code=$?; cp -a state kept && umount state && rmdir state && mv kept state; exit $code";
    let namespace = if nix::unistd::geteuid().is_root() { "-m" } else { "-rm" };
    let (mut stopped, mut over) = (0, 0);
    for kib in (4..=128).step_by(4).chain([1024]) {
        let drill = twelve();
        let run = drill.command(&[]);
        let mut command = Command::new("unshare");
        command.args([namespace, "bash", "-c", SCRIPT, "full", &kib.to_string()]);
        command.arg(run.get_program()).args(run.get_args()).current_dir(drill.path(""));
        let output = command.env("LIFEBOAT_STATE_DIR", drill.path("state")).output().unwrap();
        assert_ne!(output.status.code(), Some(99), "no file system can be mounted: {}", text(&output.stderr));
        match nothing_is_lost(&drill, &output, &format!("a disk of {kib} KiB")) {
            true => over += 1,
            false => stopped += 1,
        }
    }
    assert!(stopped > 2 && over > 0, "{stopped} disks were too small, {over} were not");
}
