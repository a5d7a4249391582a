//! Every system call of the journal fails once, in every way: while a drill runs, and while it is taken up again.
//!
//! The real program runs a drill of commands that leave a line in a ledger, with `sweep/faults.c` between it and the C
//! library. A point is one call and one fault: an error, a short write, a disk that stays full, a kill, a loss of power
//! that takes along whatever was not synced. Afterwards, with the disk mended, `lifeboat resume` goes on.
//!
//! Whatever happens: what was said or done is in the journal, its chain is whole, what it names exists, no effect that is
//! not idempotent happens twice, and the program ends by itself with an exit code of the contract and plain words.
//!
//! It takes a C compiler, which Rust needs for linking anyway, and Linux: elsewhere nothing can be put before a C library
//! so simply.
#![cfg(target_os = "linux")]

mod drill;
mod power;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::support::Numbers;
use drill::Scene;

/// One call and what happens to it.
#[derive(Debug, Clone)]
struct Point {
    /// Where the program stands when it starts: nowhere yet, or behind the n-th of [`Scene::crashes`].
    start: usize,
    call: String,
    /// What kind of file it is on.
    class: String,
    /// The how many-th such call, from 1.
    at: usize,
    fault: &'static str,
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let begin = if self.start == 0 { "a new drill".to_owned() } else { format!("resumed after {}", self.start) };
        write!(f, "{begin}: {} {} #{}: {}", self.call, self.class, self.at, self.fault)
    }
}

/// Errors of the disk. `full`: until something is removed; the others in the second row stay.
const OF_THE_DISK: &[&str] = &["EIO", "ENOSPC", "short", "full", "full for good", "read-only", "dead"];
/// Ends of the program, or of the machine.
const ENDS: &[&str] = &["kill", "kill after", "torn", "power"];

/// What can happen to a call.
fn faults(call: &str, class: &str) -> Vec<&'static str> {
    let mut found = vec!["EIO", "kill", "kill after"];
    if class == "stdout" || class == "stderr" {
        return vec!["EIO", "ENOSPC", "EPIPE", "EINTR", "short", "kill", "kill after"];
    }
    if matches!(call, "write" | "create" | "mkdir" | "rename" | "sync" | "bind" | "copy") {
        found.extend(["ENOSPC", "full", "full for good", "read-only", "dead"]);
    }
    if matches!(call, "write" | "read" | "open" | "create" | "sync" | "lock" | "cut") {
        found.push("EINTR");
    }
    match call {
        "write" => found.extend(["short", "torn", "power"]),
        "read" => found.push("short"),
        "open" | "create" | "list" => found.push("EMFILE"),
        _ => {}
    }
    if matches!(call, "create" | "mkdir" | "rename" | "sync" | "cut" | "unlink") {
        found.push("power");
    }
    found
}

/// Every point of a new drill, and of every drill that is taken up again.
fn points(scene: &Scene) -> Vec<Point> {
    let mut all = Vec::new();
    for start in 0..=scene.crashes() {
        for ((call, class), count) in scene.calls(start) {
            for at in 1..=count {
                for fault in faults(&call, &class) {
                    all.push(Point { start, call: call.clone(), class: class.clone(), at, fault });
                }
            }
        }
    }
    all
}

/// Tries points on a few threads; fails with the first defects, and tells what was tried by kind of fault.
fn sweep(scene: &Scene, points: &[Point]) {
    let (next, survived, defects) = (AtomicUsize::new(0), Mutex::new(BTreeMap::new()), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while let Some(point) = points.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let tried = scene.survives(point);
                    let mut table = survived.lock().unwrap();
                    let (all, well): &mut (u32, u32) = table.entry(point.fault).or_default();
                    *all += 1;
                    match tried {
                        Ok(()) => *well += 1,
                        Err(why) => defects.lock().unwrap().push(format!("{point}: {why}")),
                    }
                }
            });
        }
    });
    let (table, defects) = (survived.into_inner().unwrap(), defects.into_inner().unwrap());
    let (mut tried, mut survived) = (0, 0);
    println!("{:<14} {:>7} {:>9}", "fault", "tried", "survived");
    for (fault, (all, well)) in table {
        println!("{fault:<14} {all:>7} {well:>9}");
        (tried, survived) = (tried + all, survived + well);
    }
    println!("{:<14} {tried:>7} {survived:>9}", "all");
    assert!(
        defects.is_empty(),
        "{} of {tried} points lost something:\n{}",
        defects.len(),
        defects[..defects.len().min(12)].join("\n")
    );
}

/// Tries so many points of these faults, spread by a seed.
fn sample(faults: &[&str], count: usize) {
    let scene = Scene::build();
    let mut all = points(&scene);
    all.retain(|point| faults.contains(&point.fault));
    let mut numbers = Numbers(22);
    let sampled: Vec<Point> = (0..count).map(|_| all.swap_remove(numbers.below(all.len()))).collect();
    sweep(&scene, &sampled);
}

#[test]
fn a_disk_that_fails_or_fills_at_any_call_loses_nothing_that_was_said_or_done() {
    sample(OF_THE_DISK, 150);
}

#[test]
fn a_program_or_machine_that_ends_at_any_call_loses_nothing_that_was_said_or_done() {
    sample(ENDS, 150);
}

/// Before and behind every event that a drill writes down, and every one of a drill that is taken up again: the program is
/// killed, or the machine loses its power and with it all that was not synced.
fn ends_at_events(scene: &Scene, of: impl Fn(&Point) -> bool) {
    let mut all = points(scene);
    all.retain(|point| point.call == "write" && point.class == "journal" && ENDS.contains(&point.fault) && of(point));
    assert!(all.len() > 20, "a drill has more events than {}", all.len());
    sweep(scene, &all);
}

#[test]
fn row_23_a_kill_or_a_loss_of_power_at_every_event_of_a_drill() {
    ends_at_events(&Scene::build(), |point| point.start == 0);
}

#[test]
#[ignore = "also in drills that were taken up again: a minute"]
fn row_23_a_kill_or_a_loss_of_power_at_every_event_of_what_is_resumed() {
    ends_at_events(&Scene::build(), |point| point.start > 0);
}

#[test]
#[ignore = "10,305 points take ten minutes"]
fn every_fault_at_every_call() {
    let scene = Scene::build();
    let all = points(&scene);
    assert!(all.len() >= 10_000, "only {} points", all.len());
    sweep(&scene, &all);
}

/// A tool for whoever mends a defect: `SWEEP="resumed after 2: write journal #3: torn"`, or a part of it.
#[test]
#[ignore = "the points that SWEEP names"]
fn some_faults_by_name() {
    let scene = Scene::build();
    let mut all = points(&scene);
    match std::env::var("SWEEP") {
        Ok(wanted) => all.retain(|point| point.to_string().contains(&wanted)),
        Err(_) => all.truncate(1),
    }
    sweep(&scene, &all);
}

/// Standard error of PostgreSQL's commands is its log, perhaps on the disk that is full. Of a `restore_command` PostgreSQL
/// takes any code below 126 for the end of the archive.
#[test]
fn a_full_disk_behind_the_log_is_never_told_as_the_end_of_the_archive() {
    let folder = tempfile::tempdir().unwrap();
    let full = || std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let mut fetch = std::process::Command::new(env!("CARGO_BIN_EXE_lifeboat"));
    // It has something to say: two words are missing.
    fetch.args(["wal", "fetch"]);
    assert_eq!(fetch.stderr(full()).status().unwrap().code(), Some(255));
    // A list that nobody got is no success.
    let mut drills = std::process::Command::new(env!("CARGO_BIN_EXE_lifeboat"));
    drills.args(["drills", "--json", "--state-dir"]).arg(folder.path());
    let output = drills.stdout(full()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("lifeboat: not everything could be printed"), "{said}");
}
