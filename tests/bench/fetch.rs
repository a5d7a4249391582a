//! What PostgreSQL waits for a segment that the stager has ready: the process alone, and `restore_command` as it is written, by
//! a shell as PostgreSQL runs it; against `cp` of the same segment, both ways.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use lifeboat::clock::boot_now;

use crate::{lifeboat, median};

const ROUNDS: usize = 200;

const NAME: &str = "000000010000000000000004";

pub fn run() {
    let directory = tempfile::tempdir().expect("a directory");
    let at = |name: &str| directory.path().join(name);
    for name in ["stage", "bucket", "plain"] {
        std::fs::create_dir(at(name)).expect("a directory");
    }
    let segment = vec![7; 16 << 20];
    for path in [at("stage").join(NAME), at("plain").join(NAME)] {
        std::fs::write(path, &segment).expect("a segment");
    }
    let (program, stage, bucket, plain) = (lifeboat(), at("stage"), at("bucket"), at("plain"));
    let place = |path: &Path| path.display().to_string();
    let fetch = format!(
        "{program} wal fetch --store file://{} --prefix db --stage {} --system-id 7 {NAME} {}",
        place(&bucket),
        place(&stage),
        place(&at("RECOVERYXLOG"))
    );
    let copy = format!("cp {}/{NAME} {}", place(&plain), place(&at("RECOVERYXLOG")));
    let back = || std::fs::rename(at("RECOVERYXLOG"), stage.join(NAME)).expect("the segment was renamed");
    let gone = || std::fs::remove_file(at("RECOVERYXLOG")).expect("the segment was copied");
    let (mut ours, mut theirs, mut shells, mut copies): (Vec<Duration>, Vec<Duration>, Vec<Duration>, Vec<Duration>) =
        Default::default();
    for _ in 0..ROUNDS {
        ours.push(timed(&mut words(&fetch)));
        back();
        theirs.push(timed(&mut words(&copy)));
        gone();
        shells.push(timed(Command::new("/bin/sh").args(["-c", &format!("exec {fetch}")])));
        back();
        copies.push(timed(Command::new("/bin/sh").args(["-c", &copy])));
        gone();
    }
    let (ours, theirs, shells, copies) = (median(ours), median(theirs), median(shells), median(copies));
    println!("  a staged segment {ours:.2} ms (target ≤ 3), cp {theirs:.2} ms: {:.2}×", ours / theirs);
    println!("  with the shell that PostgreSQL starts: {shells:.2} ms, cp {copies:.2} ms: {:.2}×", shells / copies);
}

/// No word of these has a blank in it.
fn words(line: &str) -> Command {
    let mut words = line.split(' ');
    let mut command = Command::new(words.next().unwrap_or_default());
    command.args(words);
    command
}

fn timed(command: &mut Command) -> Duration {
    let began = boot_now();
    let done = command.stdin(Stdio::null()).status().expect("it starts");
    let took = boot_now() - began;
    assert!(done.success(), "{command:?}");
    took
}
