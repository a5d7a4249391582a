//! From the start of the program to a whole first frame of a recorded drill, against a shell that prints one line.

use std::process::Command;

use crate::pty::Terminal;
use crate::{lifeboat, median};
use lifeboat::clock::boot_now;

const ROUNDS: usize = 15;

pub fn run() {
    let recording = concat!(env!("CARGO_MANIFEST_DIR"), "/recordings/restore-passes.jsonl");
    let state = tempfile::tempdir().expect("a directory");
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let mut command = Command::new(lifeboat());
        command.args(["replay", recording, "--state-dir"]).arg(state.path());
        let began = boot_now();
        let terminal = Terminal::start(command, 160, 48);
        // The key bar is the last line that is drawn.
        terminal.wait_for("help");
        ours.push(boot_now() - began);
        drop(terminal);
        let mut command = Command::new("/bin/sh");
        command.args(["-c", "echo ready; read x"]);
        let began = boot_now();
        let terminal = Terminal::start(command, 160, 48);
        terminal.wait_for("ready");
        theirs.push(boot_now() - began);
    }
    let (ours, theirs) = (median(ours), median(theirs));
    println!("  first frame {ours:.1} ms, a shell's line {theirs:.1} ms: {:.1}× (target ≤ 50 ms)", ours / theirs);
}
