//! A headless drill of many steps that run `true`, against bare spawns of `true`, round by round.

use std::process::{Command, Stdio};
use std::time::Duration;

use lifeboat::clock::boot_now;

use crate::{lifeboat, median};

const STEPS: usize = 40;
const ROUNDS: usize = 15;

pub fn run() {
    let directory = tempfile::tempdir().expect("a directory");
    let write = |name: &str, text: String| std::fs::write(directory.path().join(name), text).expect("a file");
    write("lifeboat.toml", "format = 1\nservice = \"bench\"\n".to_owned());
    let head =
        "format = 1\nid = \"bench\"\ntitle = \"Bench\"\nowner = \"us\"\nrevision = 1\n[[phases]]\ntitle = \"One\"\n";
    let step = |n: usize| format!("[[phases.steps]]\nid = \"s{n}\"\ndo = \"command\"\nargv = [\"true\"]\n");
    write("one.toml", format!("{head}{}", step(0)));
    write("many.toml", format!("{head}{}", (0..=STEPS).map(step).collect::<String>()));
    let drill = |runbook: &str| {
        let began = boot_now();
        let status = Command::new(lifeboat())
            .args(["run", runbook, "--headless", "--yes", "--state-dir", "state"])
            .current_dir(directory.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .expect("lifeboat runs");
        assert!(status.success(), "{status}");
        boot_now() - began
    };
    let bare = || {
        let began = boot_now();
        for _ in 0..STEPS {
            assert!(Command::new("true").stdout(Stdio::null()).status().expect("true runs").success());
        }
        boot_now() - began
    };
    let (mut ours, mut theirs): (Vec<Duration>, Vec<Duration>) = Default::default();
    for _ in 0..ROUNDS {
        // The difference of the two drills is STEPS steps and nothing else.
        let (one, many) = (drill("one.toml"), drill("many.toml"));
        ours.push(many.saturating_sub(one) / STEPS as u32);
        theirs.push(bare() / STEPS as u32);
    }
    let (ours, theirs) = (median(ours), median(theirs));
    println!(
        "  a step {ours:.2} ms, a bare spawn {theirs:.2} ms: the engine adds {:.2} ms (target < 5)",
        ours - theirs
    );
}
