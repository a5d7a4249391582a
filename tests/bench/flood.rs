//! A step prints 1 GiB while the drill's screen is open: peak memory, and how long a key takes to be answered. The peer is
//! the same bytes through `cat > /dev/null`.

use std::path::Path;
use std::process::Command;

use crate::pty::Terminal;
use crate::{lifeboat, median};
use lifeboat::clock::boot_now;

const BYTES: u64 = 1 << 30;

pub fn run() {
    let directory = tempfile::tempdir().expect("a directory");
    let write = |name: &str, text: &str| std::fs::write(directory.path().join(name), text).expect("a file");
    write("lifeboat.toml", "format = 1\nservice = \"bench\"\n");
    let lines = format!(
        "yes 'a line of output as long as lines of a restore usually are, give or take a few' | head -c {BYTES}"
    );
    write(
        "flood.toml",
        &format!(
            "format = 1\nid = \"flood\"\ntitle = \"Flood\"\nowner = \"us\"\nrevision = 1\n[[phases]]\ntitle = \"One\"\n\
             [[phases.steps]]\nid = \"flood\"\ndo = \"command\"\nscript = \"{lines}; echo flood is over\"\n\
             [[phases.steps]]\nid = \"look\"\ndo = \"confirm\"\ntitle = \"The flood has ended\"\n"
        ),
    );
    let mut command = Command::new(lifeboat());
    command.args(["run", "flood.toml", "--reason", "bench", "--state-dir", "state"]).current_dir(directory.path());
    let began = boot_now();
    let mut terminal = Terminal::start(command, 160, 48);
    terminal.wait_for("a line of output");
    let mut answers = Vec::new();
    // Keys while it floods: help opens and closes.
    for _ in 0..10 {
        terminal.keys("?");
        answers.push(terminal.wait_until("the help", |screen| screen.contains("─ Keys ─")));
        terminal.keys("\x1b");
        terminal.wait_until("the drill", |screen| !screen.contains("─ Keys ─"));
    }
    // The question of the step after it.
    terminal.wait_for("yes, it is so");
    let ours = boot_now() - began;
    let [view, engine] = [terminal.pid(), engine(&directory.path().join("state/drills"))].map(peak);
    // A question that has only just come takes no key.
    terminal.wait_until("a question that has stood a while", |screen| !screen.contains("waiting for you 00:00"));
    terminal.keys("\r");
    terminal.wait_for("report ");
    drop(terminal);
    let began = boot_now();
    let piped = Command::new("/bin/sh").args(["-c", &format!("{lines} | cat > /dev/null")]).status().expect("cat runs");
    assert!(piped.success());
    let theirs = boot_now() - began;
    let worst = answers.iter().max().map_or(f64::NAN, |d| d.as_secs_f64() * 1e3);
    println!(
        "  peak memory: engine {engine}, view {view} (target < 100 MB each); a key is answered in {:.1} ms, at worst {worst:.1} ms (target ≤ 50); \
         1 GiB in {:.1} s, through cat {:.1} s: {:.1}×",
        median(answers),
        ours.as_secs_f64(),
        theirs.as_secs_f64(),
        ours.as_secs_f64() / theirs.as_secs_f64()
    );
}

/// The process that holds the drill's journal.
fn engine(drills: &Path) -> u32 {
    let drill = std::fs::read_dir(drills).expect("drills").flatten().next().expect("a drill").path();
    let holder = std::fs::read_to_string(drill.join("journal.holder")).expect("a holder");
    holder.split(' ').nth(1).and_then(|pid| pid.parse().ok()).expect("its pid")
}

fn peak(pid: u32) -> String {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or(" unknown").trim().to_owned()
}
