//! Programs end when they should, run as nobody special, and say no more than can be kept.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use lifeboat::clock;
use lifeboat::process::Spec;
use tokio_util::sync::CancellationToken;

use crate::support::redis::open_directory;
use crate::support::sandbox::text;
use crate::support::small::Small;

/// Living processes that work in a directory, with their command lines.
fn working_in(directory: &Path) -> Vec<(i32, String)> {
    let here = directory.canonicalize().unwrap();
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    entries
        .filter(|entry| std::fs::read_link(entry.path().join("cwd")).is_ok_and(|cwd| cwd.starts_with(&here)))
        .filter_map(|entry| {
            let line = text(&std::fs::read(entry.path().join("cmdline")).unwrap_or_default()).replace('\0', " ");
            Some((entry.file_name().to_str()?.parse().ok()?, line))
        })
        .collect()
}

/// They end within moments of the signal, not at once.
fn survivors(directory: &Path) -> Vec<String> {
    let until = clock::boot_now() + Duration::from_millis(500);
    loop {
        let found = working_in(directory);
        if found.is_empty() || clock::boot_now() > until {
            // Nobody else would end them.
            for (pid, _) in &found {
                let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(*pid), nix::sys::signal::Signal::SIGKILL);
            }
            return found.into_iter().map(|(_, line)| line).collect();
        }
    }
}

/// A command that starts others in every way that there is to get away, and then hangs.
const ESCAPES: &str = "sleep 6001 & (sleep 6002 &) ; setsid sleep 6003 & \
     (setsid sh -c 'sh -c \"sleep 6004; true\" & wait' </dev/null >/dev/null 2>&1 &) ; nohup sleep 6005 >/dev/null 2>&1 & \
     setsid --fork sh -c 'cd . ; sh -c \"trap \\\"\\\" TERM HUP; sleep 6006; sleep 6007\" & exec sleep 6008' </dev/null >/dev/null 2>&1 ; \
     touch begun ; wait; sleep 6009";

#[test]
fn row_24_a_step_that_hangs_ends_with_all_that_it_started() {
    let step = format!(
        "[[phases.steps]]\nid = \"hangs\"\ntitle = \"Hangs\"\ndo = \"command\"\ntimeout = \"1s\"\nscript = '''{ESCAPES}'''\n"
    );
    let drill = Small::new("", "", &step);
    let output = drill.run(&[]);
    assert!(drill.exists("begun"), "{}", text(&output.stderr));
    let survivors = survivors(&drill.path(""));
    assert!(survivors.is_empty(), "{} survived: {survivors:?}", survivors.len());
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("did not end within its time limit"), "{}", text(&output.stderr));
}

#[tokio::test]
async fn row_24_what_is_dropped_ends_with_all_that_it_started() {
    let home = open_directory();
    let spec = Spec::new("/bin/sh").args(["-c", ESCAPES]).cwd(home.path());
    let cancel = CancellationToken::new();
    {
        let running = spec.capture(1 << 10, &cancel);
        tokio::pin!(running);
        let begun = async {
            while !home.path().join("begun").exists() {
                clock::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::select! {
            ended = &mut running => panic!("{ended:?}"),
            () = begun => {}
        }
        assert!(working_in(home.path()).len() > 5);
    }
    let survivors = survivors(home.path());
    assert!(survivors.is_empty(), "{} survived: {survivors:?}", survivors.len());
}

/// A daemon is started to go on, and the step that starts it ends well.
#[tokio::test]
async fn row_24_what_a_command_leaves_on_purpose_goes_on() {
    let home = open_directory();
    // The second is only left behind, and holds the pipe.
    let spec =
        Spec::new("/bin/sh").args(["-c", "setsid --fork sleep 6010 </dev/null >/dev/null 2>&1; sleep 6011 & echo"]);
    let (spec, cancel) = (spec.cwd(home.path()), CancellationToken::new());
    let captured = tokio::time::timeout(Duration::from_secs(60), spec.capture(1 << 10, &cancel))
        .await
        .expect("its end is its end")
        .unwrap();
    assert!(captured.end.success() && captured.stdout == b"\n", "{captured:?}");
    let left = survivors(home.path());
    assert!(left.len() == 1 && left[0].contains("6010"), "{left:?}");
}

/// The program's own files, whatever its caller's umask says.
#[test]
fn row_18_what_is_written_is_for_nobody_else() {
    let step = "[[phases.steps]]\nid = \"says\"\ntitle = \"Says\"\ndo = \"command\"\nargv = [\"echo\", \"hello\"]\n";
    let drill = Small::new("", "", step);
    let mut command = std::process::Command::new("/bin/sh");
    let run = drill.command(&[]);
    command.args(["-c", "umask 000; exec \"$0\" \"$@\""]).arg(run.get_program()).args(run.get_args());
    command.current_dir(drill.path("")).env("LIFEBOAT_STATE_DIR", drill.path("state"));
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    fn look(directory: &Path, open: &mut Vec<String>) {
        for entry in std::fs::read_dir(directory).unwrap().flatten() {
            let meta = entry.path().symlink_metadata().unwrap();
            if meta.permissions().mode() & 0o077 != 0 && !meta.is_symlink() {
                open.push(format!("{:o} {}", meta.permissions().mode() & 0o777, entry.path().display()));
            }
            if meta.is_dir() {
                look(&entry.path(), open);
            }
        }
    }
    let mut open = Vec::new();
    look(&drill.path("state"), &mut open);
    assert!(open.is_empty(), "open to others: {open:?}");
}

/// More than is kept, no line's end in it, and no text either.
#[test]
fn row_25_a_flood_costs_neither_memory_nor_the_disk() {
    let script = "head -c 90000000 /dev/zero | tr '\\000' '\\377'; seq 1 400000 | sed 's/$/ \\xff\\xfe a line of a flood that goes on and on/'; \
                  grep VmHWM /proc/$PPID/status";
    let step =
        format!("[[phases.steps]]\nid = \"flood\"\ntitle = \"Flood\"\ndo = \"command\"\nscript = '''{script}'''\n");
    let drill = Small::new("", "", &step);
    let output = drill.run(&[]);
    let biggest = |directory: &str| {
        let entries = std::fs::read_dir(drill.drill().join(directory)).unwrap().flatten();
        entries.map(|entry| entry.metadata().unwrap().len()).max().unwrap_or(0)
    };
    assert!(biggest("output") <= 64 << 20, "{} bytes of output were kept", biggest("output"));
    let journal = std::fs::metadata(drill.drill().join("journal.jsonl")).unwrap().len();
    assert!(journal < 4 << 20, "the journal took {journal} bytes of a flood");
    let end = drill.journal().into_iter().find(|line| line["event"]["type"] == "step-finished").unwrap();
    let said = end["event"]["outcome"]["facts"]["stdout"].as_str().unwrap().to_owned();
    let peak = said.lines().last().unwrap().to_owned();
    let kib: u64 = peak.split_whitespace().nth(1).unwrap().parse().unwrap();
    assert!(kib < 300_000, "memory went to {peak}");
    assert!(output.status.success() && end["event"]["output"]["dropped"].as_u64() > Some(20_000_000), "{end}");
}
