//! Ctrl-C: the first asks, the second ends what runs; what it came to is recorded, and the terminal is given back.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use lifeboat::clock::{block, boot_now};
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::support::Numbers;
use crate::support::pty::Terminal;
use crate::support::small::Small;

const CTRL_C: &str = "\u{3}";

/// The exit code of a drill that was left and can be resumed.
const LEFT: Option<i32> = Some(130);

/// Some steps that end at once, and one that does not; `trap` is what its shell traps.
fn drill(quick: usize, trap: &str) -> Small {
    let quick: String = (0..quick)
        .map(|n| {
            format!("[[phases.steps]]\nid = \"s{n}\"\ntitle = \"S {n}\"\ndo = \"command\"\nscript = 'echo done {n}'\n")
        })
        .collect();
    let long = format!("{trap} sleep 600 & echo $! > long.new; mv long.new long; wait");
    let long = format!("[[phases.steps]]\nid = \"long\"\ntitle = \"Long\"\ndo = \"command\"\nscript = '{long}'\n");
    Small::new("", "", &format!("{quick}{long}"))
}

/// How a person may have started it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Headless,
    Lines,
    Screen,
}

impl Way {
    fn start(self, drill: &Small) -> Terminal {
        let mut command = Command::new(env!("CARGO_BIN_EXE_lifeboat"));
        command.args(["run", "small.toml", "--reason", "a test"]).current_dir(drill.path(""));
        command.args(match self {
            Self::Headless => ["--headless", "--yes"].as_slice(),
            Self::Lines => &["--plain"],
            Self::Screen => &[],
        });
        command.env("LIFEBOAT_STATE_DIR", drill.path("state"));
        Terminal::start(command, 120, 30)
    }

    fn asks(self) -> &'static str {
        match self {
            Self::Headless | Self::Lines => "once more stops the drill",
            Self::Screen => "Once more stops the drill",
        }
    }
}

fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let patience = boot_now() + Duration::from_secs(60);
    while !holds() {
        assert!(boot_now() < patience, "{what}");
        block(Duration::from_millis(5));
    }
}

/// What the long step started.
fn child(drill: &Small) -> Pid {
    wait_until("the long step began", || drill.exists("long"));
    let pid = std::fs::read_to_string(drill.path("long")).unwrap();
    Pid::from_raw(pid.trim().parse().unwrap())
}

fn lives(pid: Pid) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    kill(pid, None) != Err(Errno::ESRCH) && !stat.contains(") Z")
}

/// The directory of the drill, once there is one.
fn begun(drill: &Small) -> Option<PathBuf> {
    let drills = std::fs::read_dir(drill.path("state/drills")).ok()?;
    drills.flatten().map(|entry| entry.path()).find(|path| path.join("journal.jsonl").exists())
}

/// Its engine, when it is a process of its own.
fn engine(drill: &Small) -> Option<Pid> {
    let holder = std::fs::read_to_string(begun(drill)?.join("journal.holder")).ok()?;
    holder.split(' ').nth(1)?.parse().ok().map(Pid::from_raw)
}

fn assert_every_start_has_an_outcome(drill: &Small, what: &str) {
    let journal = drill.journal();
    let events = || journal.iter().map(|line| &line["event"]);
    for started in events().filter(|event| event["type"] == "step-started") {
        let ended = events().any(|event| {
            let kind = event["type"].as_str().unwrap_or_default();
            matches!(kind, "step-finished" | "step-in-doubt")
                && event["step"] == started["step"]
                && event["attempt"] == started["attempt"]
        });
        assert!(ended, "{what}: {started} has no outcome: {journal:#?}");
    }
}

/// Twice: once it stays, once it ends.
fn ends_at_the_second(way: Way) {
    // Whoever does not hear TERM is killed.
    let drill = drill(2, r#"trap "" TERM;"#);
    let mut terminal = way.start(&drill);
    let child = child(&drill);
    terminal.wait_for("Long");
    terminal.keys(CTRL_C);
    terminal.wait_for(way.asks());
    if way == Way::Screen {
        assert!(terminal.keeps_output(), "a third ctrl-C could swallow the escapes that give the terminal back");
        terminal.keys("\u{1b}");
        terminal.wait_until("no question", |screen| !screen.contains(way.asks()));
        terminal.keys(CTRL_C);
        terminal.wait_for(way.asks());
    }
    assert!(lives(child), "{way:?}: it was ended without being asked");
    terminal.keys(CTRL_C);
    let status = terminal.end();
    terminal.assert_given_back();
    assert_eq!(status.code(), LEFT, "{way:?}: {}", terminal.text());
    assert!(terminal.text().contains("lifeboat resume"), "{}", terminal.text());
    let survived = lives(child);
    if survived {
        kill(child, Signal::SIGKILL).unwrap();
    }
    assert!(!survived, "{way:?}: a child survived the second ctrl-C");
    assert_every_start_has_an_outcome(&drill, &format!("{way:?}"));
}

#[test]
fn row_21_the_first_ctrl_c_asks_and_the_second_ends_a_run_without_a_person() {
    ends_at_the_second(Way::Headless);
}

#[test]
fn row_21_the_first_ctrl_c_asks_and_the_second_ends_what_a_screen_shows() {
    ends_at_the_second(Way::Screen);
}

#[test]
fn row_21_the_first_ctrl_c_asks_and_the_second_ends_what_lines_tell() {
    ends_at_the_second(Way::Lines);
}

/// By `kill -INT`, where nobody can be asked.
#[test]
fn row_21_a_single_signal_ends_what_has_no_terminal() {
    let drill = drill(1, "");
    let mut run = drill.command(&[]).stderr(std::process::Stdio::null()).spawn().unwrap();
    let child = child(&drill);
    kill(Pid::from_raw(run.id().cast_signed()), Signal::SIGINT).unwrap();
    assert_eq!(run.wait().unwrap().code(), LEFT);
    assert!(!lives(child), "a child survived");
    assert_every_start_has_an_outcome(&drill, "SIGINT");
}

/// Several presses, each once the journal has grown to a random length, or the long step has begun.
fn at_random_moments(way: Way, seed: u64) {
    let what = format!("{way:?}, seed {seed}");
    let mut numbers = Numbers(seed);
    let quick = 2 + numbers.below(6);
    let drill = drill(quick, "");
    let mut terminal = way.start(&drill);
    let lines = || {
        begun(&drill)
            .and_then(|dir| std::fs::read_to_string(dir.join("journal.jsonl")).ok())
            .map_or(0, |text| text.lines().count())
    };
    for _ in 0..2 + numbers.below(3) {
        let length = numbers.below(3 * quick + 3);
        wait_until(&what, || terminal.has_ended() || lines() >= length || drill.exists("long"));
        if terminal.has_ended() {
            break;
        }
        terminal.keys(CTRL_C);
    }
    // Impatience: whatever was asked meanwhile.
    wait_until(&what, || {
        let ended = terminal.has_ended();
        if !ended {
            terminal.keys(CTRL_C);
        }
        ended
    });
    terminal.assert_given_back();
    // A view that was gone before it could ask has left its engine to go on: that one is ended as by a shutdown.
    if let Some(engine) = engine(&drill).filter(|engine| lives(*engine)) {
        kill(engine, Signal::SIGTERM).unwrap();
        wait_until(&what, || !lives(engine));
    }
    if begun(&drill).is_some() {
        assert_every_start_has_an_outcome(&drill, &what);
    }
    if drill.exists("long") {
        assert!(!lives(child(&drill)), "{what}: a child survived");
    }
}

#[test]
fn row_21_presses_at_random_moments_lose_no_outcome() {
    for seed in 0..8 {
        at_random_moments(Way::Headless, seed);
        at_random_moments(Way::Screen, seed);
        at_random_moments(Way::Lines, seed);
    }
}
