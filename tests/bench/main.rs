//! Figures, each against a peer in the same run, as ratios: `cargo bench` for all, `cargo bench -- NAME` for one.
//!
//! Rounds of the two alternate, so that a machine whose speed drifts bends both alike; medians are printed.

mod backup;
mod check;
mod fetch;
mod flood;
mod frame;
mod journal;
#[expect(dead_code, reason = "the tests use all of it")]
#[path = "../it/support/pty.rs"]
mod pty;
mod recover;
mod step;
mod wal;

use std::time::Duration;

/// A bench's name, what it shows, and how to run it.
type Bench = (&'static str, &'static str, fn());

const BENCHES: &[Bench] = &[
    ("step", "what the engine adds to a step that runs `true`", step::run),
    ("journal", "an append against a bare write and fdatasync", journal::run),
    ("frame", "time to the first frame", frame::run),
    ("flood", "memory and keys while a step prints 1 GiB", flood::run),
    ("recover", "time to recover, against pgBackRest, and tar and cp in a shell script", recover::run),
    ("fetch", "restore_command of a staged segment, against cp", fetch::run),
    ("check", "a check of 100,000 segments against their listing; wal push against cp and fsync", check::run),
    ("backup", "a base backup, compressed and encrypted, against pg_basebackup | zstd | age", backup::run),
    ("wal", "reading WAL, against pg_waldump and cat", wal::run),
];

fn main() {
    let wanted: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with("--")).collect();
    for (name, what, run) in BENCHES {
        if wanted.is_empty() || wanted.iter().any(|w| w == name) {
            println!("\n{name}: {what}");
            run();
        }
    }
}

/// The middle of the durations, in milliseconds.
pub fn median(mut durations: Vec<Duration>) -> f64 {
    durations.sort();
    durations.get(durations.len() / 2).map_or(f64::NAN, |middle| middle.as_secs_f64() * 1e3)
}

/// The program under test, built with this bench's profile.
pub fn lifeboat() -> &'static str {
    env!("CARGO_BIN_EXE_lifeboat")
}
