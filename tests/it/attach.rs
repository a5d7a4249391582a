//! The run outlives its terminal: views come and go, a second one looks on, the engine alone decides.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use lifeboat::clock::{block, boot_now};
use lifeboat::journal::Journal;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::support::postgres::program;
use crate::support::pty::Terminal;
use crate::support::{Home, open_the_gate};

/// A drill whose first step ends when its gate is opened, and whose second asks.
struct Place(Home);

const RUNBOOK: &str = r#"
format = 1
id = "gate"
title = "Wait for the gate"
owner = "us"
revision = 1

[[phases]]
title = "One"

[[phases.steps]]
id = "gate"
do = "command"
title = "Stand before the gate"
script = "echo began >> began; read word < gate; echo $word >> passed"

[[phases.steps]]
id = "look"
do = "confirm"
title = "The gate was passed"
"#;

impl Place {
    fn new() -> Self {
        let place = Self(Home::new());
        std::fs::write(place.path("lifeboat.toml"), "format = 1\nservice = \"orders\"\n").unwrap();
        // Relative paths of a step lie in the drill's own folder.
        let here = place.0.path().display().to_string();
        let runbook = RUNBOOK.replace("echo began", &format!("cd {here}; echo began"));
        std::fs::write(place.path("gate.toml"), runbook).unwrap();
        nix::unistd::mkfifo(&place.path("gate"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn lifeboat(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(program());
        command.args(arguments).arg("--state-dir").arg(self.path("state")).current_dir(self.0.path());
        command
    }

    fn terminal(&self, arguments: &[&str]) -> Terminal {
        Terminal::start(self.lifeboat(arguments), 120, 30)
    }

    fn run(&self) -> Terminal {
        let terminal = self.terminal(&["run", "gate.toml", "--reason", "a test"]);
        terminal.wait_for("Stand before the gate");
        terminal
    }

    /// Blocks until the step reads it.
    fn open_the_gate(&self) {
        open_the_gate(&self.path("gate"));
    }

    fn drill(&self) -> PathBuf {
        std::fs::read_dir(self.path("state/drills")).unwrap().flatten().next().expect("a drill").path()
    }

    fn engine(&self) -> Pid {
        let holder =
            std::fs::read_to_string(self.drill().join("journal.holder")).expect("the engine went with its terminal");
        Pid::from_raw(holder.split(' ').nth(1).and_then(|pid| pid.parse().ok()).expect("a pid"))
    }

    fn text(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap_or_default()
    }
}

/// Says yes to the second step. A question that has only just come takes no key.
fn say_yes(terminal: &mut Terminal) {
    terminal.wait_until("a question that has stood a while", |screen| {
        screen.contains("waiting for you") && !screen.contains("waiting for you 00:00")
    });
    terminal.keys("\r");
    terminal.wait_for("report ");
}

fn assert_over(drill: &Path) {
    let read = Journal::read(&drill.join("journal.jsonl")).expect("the journal is whole");
    assert!(read.torn.is_none());
    // The view may end a moment before the engine.
    let patience = boot_now() + Duration::from_secs(20);
    while drill.join("engine.sock").exists() {
        assert!(boot_now() < patience, "the socket goes with the engine");
        block(Duration::from_millis(5));
    }
    assert!(drill.join("report/report.json").exists());
}

#[test]
fn row_20_a_drill_goes_on_when_its_terminal_dies() {
    let place = Place::new();
    let first = place.run();
    let engine = place.engine();
    assert_ne!(engine.as_raw(), first.pid() as i32);
    kill(Pid::from_raw(first.pid() as i32), Signal::SIGKILL).unwrap();
    drop(first);
    // Nobody looks, and the step ends.
    place.open_the_gate();
    let mut attach = place.lifeboat(&["attach"]);
    attach.env("SUDO_USER", "noor");
    let mut second = Terminal::start(attach, 120, 30);
    second.wait_for("yes, it is so");
    assert_eq!(place.engine(), engine);
    say_yes(&mut second);
    second.keys("\r");
    assert_eq!(second.end().code(), Some(0));
    assert_eq!((place.text("began"), place.text("passed")), ("began\n".to_owned(), "through\n".to_owned()));
    assert_over(&place.drill());
    let journal = std::fs::read_to_string(place.drill().join("journal.jsonl")).unwrap();
    assert!(journal.contains("\"by\":\"noor\""), "who answered is recorded: {journal}");
}

#[test]
fn row_20_a_line_that_hangs_up_changes_nothing_and_resume_comes_back_to_the_same_engine() {
    let place = Place::new();
    // The terminal's end closes, as that of a lost SSH connection does.
    drop(place.run());
    let engine = place.engine();
    let mut back = place.terminal(&["resume"]);
    back.wait_for("Stand before the gate");
    assert_eq!(place.engine(), engine, "the engine went with its terminal");
    place.open_the_gate();
    back.wait_for("yes, it is so");
    say_yes(&mut back);
    assert_eq!(place.text("began"), "began\n");
}

#[test]
fn a_second_pair_of_eyes_sees_everything_and_sends_nothing() {
    let place = Place::new();
    let mut first = place.run();
    let mut eyes = place.terminal(&["watch"]);
    eyes.wait_for("WATCHING");
    eyes.wait_for("Stand before the gate");
    place.open_the_gate();
    first.wait_for("yes, it is so");
    eyes.wait_for("The gate was passed");
    // Not one of these keys reaches the drill.
    eyes.keys("\ryynpx");
    say_yes(&mut first);
    eyes.wait_for("report ");
    let read = Journal::read(&place.drill().join("journal.jsonl")).unwrap();
    let said = format!("{:?}", read.envelopes);
    assert!(!said.contains("Paused") && !said.contains("Aborted"), "{said}");
    eyes.keys("q");
    assert_eq!(eyes.end().code(), Some(0));
}

#[test]
fn stopped_with_its_view_it_is_resumed_and_a_killed_engine_is_said() {
    let place = Place::new();
    let mut first = place.run();
    place.open_the_gate();
    first.wait_for("yes, it is so");
    first.keys("q");
    first.wait_for("stop it too");
    first.keys("s");
    assert_eq!(first.end().code(), Some(130));
    assert!(!place.drill().join("journal.holder").exists(), "the engine has ended");
    let refused = place.lifeboat(&["attach"]).output().unwrap();
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(refused.status.code() == Some(2) && said.contains("no engine runs this drill"), "{said}");

    let second = place.terminal(&["resume"]);
    second.wait_for("yes, it is so");
    kill(place.engine(), Signal::SIGKILL).unwrap();
    second.wait_for("The engine has ended before the drill did");
    drop(second);
    let mut third = place.terminal(&["resume"]);
    third.wait_for("yes, it is so");
    say_yes(&mut third);
    third.keys("\r");
    assert_eq!(third.end().code(), Some(0));
    assert_eq!(place.text("began"), "began\n");
    assert_over(&place.drill());
}
