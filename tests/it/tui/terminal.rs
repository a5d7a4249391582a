//! The real loop in a real terminal: what it takes it gives back, whatever happens.
//!
//! The program is this test binary again, started in a pty on [`inside`].

use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use chrono::TimeDelta;
use lifeboat::clock::{self, Clock, Stamp};
use lifeboat::event::{self, Event, Line, Stream};
use lifeboat::tui::home::{self, HomeChoice, HomeOptions};
use lifeboat::tui::{Leave, Notice, Session, TuiError, run_drill};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::fixture::*;
use crate::support::pty::Terminal;

const MODE: &str = "LIFEBOAT_TEST_TUI";

fn start(mode: &str, columns: u16, rows: u16) -> Terminal {
    start_in(&[], mode, columns, rows)
}

/// With more of the environment, as `NAME=value`.
fn start_in(environment: &[&str], mode: &str, columns: u16, rows: u16) -> Terminal {
    let mut command = Command::new("env");
    command.args(environment).arg(std::env::current_exe().unwrap());
    command.args(["tui::terminal::inside", "--exact", "--ignored", "--nocapture"]).env(MODE, mode);
    Terminal::start(command, columns, rows)
}

fn count(terminal: &Terminal, sequence: &str) -> usize {
    let raw = terminal.raw();
    raw.windows(sequence.len()).filter(|window| *window == sequence.as_bytes()).count()
}

/// Called once something was seen that is written after the terminal was given back: the end of the process is not enough,
/// its last bytes may still be on their way through the pty.
fn assert_given_back(terminal: &Terminal) {
    let taken = count(terminal, "\u{1b}[?1049h");
    assert!(taken > 0, "the terminal was taken");
    assert_eq!(count(terminal, "\u{1b}[?1049l"), taken, "the alternate screen is left as often as it was entered");
    assert!(!terminal.is_raw(), "raw mode is off");
}

fn signal(terminal: &Terminal, signal: Signal) {
    kill(Pid::from_raw(terminal.pid() as i32), signal).unwrap();
}

/// Real time, beginning where a story ends.
struct Running {
    from: Duration,
    story_ms: u64,
}

impl Clock for Running {
    fn now(&self) -> Stamp {
        let since = clock::boot_now() - self.from + Duration::from_millis(self.story_ms);
        Stamp { wall: opened() + TimeDelta::from_std(since).unwrap(), boot: since + Duration::from_secs(5) }
    }

    fn sleep(&self, duration: Duration) -> clock::Sleep {
        Box::pin(clock::sleep(duration))
    }

    fn boot_id(&self) -> String {
        "boot".to_owned()
    }
}

#[test]
#[ignore = "the program that the tests of this file start in a terminal"]
fn inside() {
    let Ok(mode) = std::env::var(MODE) else { return };
    let runtime = || tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    if mode == "home" {
        loop {
            // As the command line does: each screen has a runtime of its own.
            let options = HomeOptions { themes: themes("dark"), zone: zone(), ascii: false, log_file: None };
            match runtime().block_on(home::run(home_model(), options)).unwrap() {
                HomeChoice::Resume(_) => println!("left: {:?}", drill(runtime(), String::new())),
                HomeChoice::Quit => return,
                other => panic!("{other:?}"),
            }
        }
    }
    println!("left: {:?}", drill(runtime(), mode));
}

fn drill(runtime: tokio::runtime::Runtime, mode: String) -> Result<Leave, TuiError> {
    let leave = runtime.block_on(async move {
        let mut story = restoring();
        let (envelopes_in, envelopes) = tokio::sync::broadcast::channel(1024);
        let (commands, mut commanded) = tokio::sync::mpsc::channel(16);
        let (notices_in, notices) = tokio::sync::mpsc::unbounded_channel();
        let state = Arc::new(Mutex::new(story.state.clone()));
        let shared = Arc::clone(&state);
        let session = Session {
            state: story.state.clone(),
            envelopes,
            snapshot: Arc::new(move || shared.lock().unwrap().clone()),
            commands,
            clock: Arc::new(Running { from: clock::boot_now(), story_ms: story.ms }),
            player: None,
            preview: preview(),
            notices,
            themes: themes(if std::env::var_os("NO_COLOR").is_some() { "plain" } else { "dark" }),
            options: options(),
        };
        if mode == "flood" {
            tokio::spawn(async move {
                loop {
                    let lines = (0..50)
                        .map(|n| Line { stream: Stream::Out, text: format!("a line of a flood, number {n}") })
                        .collect();
                    let flood = Event::Output { step: "restore-db".into(), lines, skipped_bytes: 0 };
                    let envelope = story.envelope(flood);
                    state.lock().unwrap().apply(&envelope);
                    let _ = envelopes_in.send(Arc::new(envelope));
                    tokio::task::yield_now().await;
                }
            });
        } else {
            // Kept, so that the stream does not end.
            std::mem::forget(envelopes_in);
        }
        tokio::spawn(async move {
            while let Some(command) = commanded.recv().await {
                assert_ne!(command, event::Command::Pause, "a panic in a task, as asked for by the test");
                let _ = notices_in.send(Notice::Say(format!("took {command:?}")));
            }
        });
        run_drill(session).await
    });
    runtime.shutdown_background();
    leave
}

#[test]
fn leaving_gives_the_terminal_back() {
    let mut terminal = start("", 100, 30);
    terminal.wait_for("Restore orders-db and stop at the point");
    assert!(terminal.is_raw());
    assert!(count(&terminal, "\u{1b}[?2026h") >= 1, "frames are synchronised");
    terminal.keys("nthe disk is full\r");
    terminal.wait_for("took Note { text: \"the disk is full\" }");
    terminal.keys("q");
    terminal.wait_for("Leave?");
    terminal.keys("y");
    terminal.wait_for("left: Ok(Left)");
    assert!(terminal.end().success());
    assert_given_back(&terminal);
}

#[test]
fn row_21_a_signal_gives_the_terminal_back() {
    for deadly in [Signal::SIGTERM, Signal::SIGHUP] {
        let mut terminal = start("", 80, 24);
        terminal.wait_for("Restore orders-db and stop at the point");
        signal(&terminal, deadly);
        terminal.wait_for("left: Ok(Terminated)");
        assert!(terminal.end().success());
        assert_given_back(&terminal);
    }
}

#[test]
fn a_panic_anywhere_gives_the_terminal_back_and_says_so_shortly() {
    let mut terminal = start("", 100, 30);
    terminal.wait_for("Restore orders-db and stop at the point");
    terminal.keys("p");
    terminal.wait_for("left: Err(Panicked)");
    assert!(terminal.end().success());
    assert_given_back(&terminal);
    let text = terminal.text();
    assert!(text.contains("lifeboat broke") && text.contains("lifeboat resume"), "{text}");
    assert!(!text.contains("stack backtrace"), "{text}");
}

#[test]
fn a_suspended_program_has_given_the_terminal_back_and_takes_it_again() {
    let mut terminal = start("", 100, 30);
    terminal.wait_for("Restore orders-db and stop at the point");
    terminal.keys("\u{1a}");
    let pid = Pid::from_raw(terminal.pid() as i32);
    let stopped = waitpid(pid, Some(WaitPidFlag::WUNTRACED)).unwrap();
    assert_eq!(stopped, WaitStatus::Stopped(pid, Signal::SIGSTOP));
    assert!(!terminal.is_raw());
    terminal.wait_until("what was there before", |screen| !screen.contains("Restore orders-db"));
    signal(&terminal, Signal::SIGCONT);
    terminal.wait_for("Restore orders-db and stop at the point");
    assert!(terminal.is_raw());
    terminal.keys("qy");
    terminal.wait_for("left: Ok(Left)");
    assert!(terminal.end().success());
    assert_given_back(&terminal);
}

#[test]
fn from_home_into_a_drill_and_back_again() {
    let mut terminal = start("home", 100, 30);
    for _ in 0..3 {
        terminal.wait_for("NEEDS ATTENTION");
        terminal.keys("\r");
        terminal.wait_for("Restore orders-db and stop at the point");
        terminal.keys("q");
        terminal.wait_for("Leave?");
        terminal.keys("y");
    }
    terminal.wait_for("NEEDS ATTENTION");
    terminal.keys("q");
    terminal.wait_for("test result: ok");
    assert!(terminal.end().success());
    assert_given_back(&terminal);
}

#[test]
fn a_key_is_answered_while_a_step_floods() {
    let mut terminal = start("flood", 120, 40);
    terminal.wait_for("a line of a flood");
    terminal.keys("?");
    let took = terminal.wait_for("┌─ Keys");
    assert!(took < Duration::from_secs(2), "{took:?}");
    terminal.keys("\u{3}\u{3}");
    terminal.wait_for("left: Ok(Left)");
    assert!(terminal.end().success());
}

#[test]
fn it_lives_through_every_size() {
    let mut terminal = start("", 20, 5);
    terminal.wait_for("Restore orders");
    terminal.resize(1, 1);
    terminal.resize(200, 60);
    terminal.wait_for("NOTES");
    terminal.resize(12, 2);
    terminal.wait_for("too small");
    terminal.resize(80, 24);
    terminal.wait_for("Restore orders-db and stop at the point");
    terminal.keys("qy");
    terminal.wait_for("left: Ok(Left)");
    assert!(terminal.end().success());
}

#[test]
fn without_colour_weight_and_reverse_stay() {
    let mut terminal = start_in(&["NO_COLOR=1"], "", 80, 24);
    terminal.wait_for("Restore orders-db and stop at the point");
    // crossterm of itself writes `ESC[;m` here, which wipes every attribute.
    assert_eq!(count(&terminal, "\u{1b}[;m"), 0);
    assert_eq!(count(&terminal, "\u{1b}[38;"), 0);
    assert!(count(&terminal, "\u{1b}[1m") > 0, "bold");
    terminal.keys("qy");
    terminal.wait_for("left: Ok(Left)");
    terminal.end();
}
