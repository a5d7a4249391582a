//! The drill that is swept, and what must hold of it.

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use lifeboat::event::{Envelope, Event, Status, Verdict};
use lifeboat::journal::{Journal, read_blob};
use lifeboat::report::verify::{Mark, Request, verify};
use sha2::Digest as _;

use super::Point;
use super::power::Durable;
use crate::support::checkout;
use crate::support::sandbox::text;

/// Steps that leave a line in the ledger.
const RUNBOOK: &str = r#"
format = 1
id = "ledger"
title = "Ledger"
owner = "us"
revision = 1

[[phases]]
title = "One"

[[phases.steps]]
id = "charge"
title = "Charge"
do = "command"
script = 'echo charge >> "$LEDGER"; echo charged; echo really >&2'

[[phases.steps]]
id = "mark"
title = "Mark"
do = "command"
idempotent = true
script = 'echo mark >> "$LEDGER"; echo marked'

[[phases.steps]]
id = "ship"
title = "Ship"
do = "command"
needs = ["mark"]
script = 'echo ship >> "$LEDGER"; echo shipped'

[[phases.steps]]
id = "bill"
title = "Bill"
do = "command"
needs = ["mark"]
script = 'echo bill >> "$LEDGER"'

[[phases.steps]]
id = "look"
title = "Look"
do = "confirm"

[[phases.steps]]
id = "send"
title = "Send"
do = "command"
script = 'echo send >> "$LEDGER"; echo sent'
"#;

/// Steps whose effect may be there more than once.
const IDEMPOTENT: &[&str] = &["mark"];
/// Steps that leave a line.
const EFFECTS: &[&str] = &["charge", "mark", "ship", "bill", "send"];

/// Exit codes that the program's help names.
const CONTRACT: &[i32] = &[0, 1, 2, 3, 4, 130];

/// Where crashed drills are taken up: the n-th write to the journal was torn.
const CRASHES: &[usize] = &[2, 4, 6, 8, 10, 12, 15, 17, 19];

/// What all trials share.
pub struct Scene {
    root: tempfile::TempDir,
    /// Calls by start, and how many there are.
    calls: Vec<BTreeMap<(String, String), usize>>,
}

/// Where one trial takes place.
pub struct Start {
    dir: tempfile::TempDir,
}

impl Start {
    fn state(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    fn ledger(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.dir.path().join("ledger")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// The folder of the one drill.
    fn drill(&self) -> Option<PathBuf> {
        let drills = std::fs::read_dir(self.state().join("drills")).ok()?;
        drills.map(|entry| entry.unwrap().path()).find(|path| path.join("journal.jsonl").exists())
    }

    fn calls(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("calls")).unwrap_or_default()
    }
}

impl Scene {
    /// Compiles the faults, counts the calls of a drill without any, and leaves crashed drills to begin from.
    pub fn build() -> Self {
        // Nothing here needs a real disk, and the faults are ours.
        let memory = Path::new("/dev/shm");
        let root = match memory.is_dir() {
            true => tempfile::tempdir_in(memory).unwrap(),
            false => tempfile::tempdir().unwrap(),
        };
        let source = checkout().join("tests/it/sweep/faults.c");
        let compiled = Command::new("cc")
            .args(["-shared", "-fPIC", "-O1", "-o"])
            .args([root.path().join("faults.so"), source])
            .arg("-ldl")
            .status()
            .expect("a C compiler is there, as for linking");
        assert!(compiled.success());
        std::fs::write(root.path().join("runbook.toml"), RUNBOOK).unwrap();
        std::fs::write(root.path().join("lifeboat.toml"), "format = 1\nservice = \"orders\"\n").unwrap();
        let mut scene = Self { root, calls: Vec::new() };
        let count = |start: &Start| {
            let mut calls = BTreeMap::new();
            for line in start.calls().lines() {
                let mut fields = line.split('\t').map(str::to_owned);
                *calls.entry((fields.next().unwrap(), fields.next().unwrap())).or_insert(0) += 1;
            }
            calls
        };
        let start = scene.start(0);
        let output = scene.go(&start, None);
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        assert_eq!(start.ledger().len(), EFFECTS.len());
        scene.calls.push(count(&start));
        for (n, at) in (1..).zip(CRASHES) {
            let crash = scene.start(0);
            let (call, class) = ("write".to_owned(), "journal".to_owned());
            scene.go(&crash, Some(&Point { start: 0, call, class, at: *at, fault: "torn" }));
            std::fs::rename(crash.dir.path(), scene.root.path().join(format!("crash-{n}"))).unwrap();
            let start = scene.start(n);
            scene.go(&start, None);
            scene.calls.push(count(&start));
        }
        scene
    }

    pub fn crashes(&self) -> usize {
        CRASHES.len()
    }

    pub fn calls(&self, start: usize) -> impl Iterator<Item = ((String, String), usize)> {
        self.calls[start].clone().into_iter()
    }

    /// A folder of its own, with a crashed drill in it unless it is the 0-th start.
    fn start(&self, n: usize) -> Start {
        let start = Start { dir: tempfile::tempdir_in(self.root.path()).unwrap() };
        match n {
            0 => std::fs::create_dir(start.state()).unwrap(),
            n => copy(&self.root.path().join(format!("crash-{n}")), start.dir.path()),
        }
        // The log of a run holds what that run did.
        let _ = std::fs::remove_file(start.dir.path().join("calls"));
        start
    }

    fn lifeboat(&self, start: &Start, args: &[&str], drill: Option<&Path>) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_lifeboat"));
        command.args(args).args(drill).arg("--state-dir").arg(start.state());
        command.env("LEDGER", start.dir.path().join("ledger")).env("RUST_BACKTRACE", "0").stdin(Stdio::null());
        command
    }

    /// Begins the drill, or goes on with it; with a fault when there is one. Every call is logged.
    fn go(&self, start: &Start, point: Option<&Point>) -> Output {
        let drill = start.drill();
        let mut command = match &drill {
            Some(drill) => self.lifeboat(start, &["resume", "--headless", "--yes", "--json"], Some(drill)),
            None => {
                let mut command = self.lifeboat(start, &["run", "--headless", "--yes", "--json"], None);
                command.arg(self.root.path().join("runbook.toml"));
                command
            }
        };
        if drill.is_none() {
            command.arg("--inventory").arg(self.root.path().join("lifeboat.toml"));
        }
        command
            .env("LD_PRELOAD", self.root.path().join("faults.so"))
            .env("FAULT_UNDER", start.state())
            .env("FAULT_LOG", start.dir.path().join("calls"));
        if let Some(point) = point {
            command
                .env("FAULT_CALL", &point.call)
                .env("FAULT_FILE", &point.class)
                .env("FAULT_AT", point.at.to_string())
                .env("FAULT_KIND", point.fault);
        }
        command.output().unwrap()
    }

    /// Runs into the fault, mends the disk, goes on. Says what does not hold.
    pub fn survives(&self, point: &Point) -> Result<(), String> {
        let start = self.start(point.start);
        let mut durable = Durable::now(&start.state());
        let output = self.go(&start, Some(point));
        ended_well(&output, point)?;
        if point.fault == "power" {
            durable.learn(&start.calls());
            durable.cut(&start.state(), point.at % 3);
        }
        let begun = holds(&start, &output).map_err(|why| format!("{why}\n{}", words(&output)))?;

        // The disk works again.
        let resumed = match (&begun, start.drill()) {
            (None, None) => return Ok(()),
            (None, Some(drill)) => {
                // It never began: that is said, and another one can.
                let resumed = self.lifeboat(&start, &["resume", "--headless", "--yes"], Some(&drill)).output().unwrap();
                plain(&resumed)?;
                return match resumed.status.code() {
                    Some(1 | 2) => Ok(()),
                    _ => Err(format!("resuming what never began: {}", words(&resumed))),
                };
            }
            (Some(journal), Some(drill)) => match journal.verdict() {
                Some(_) => {
                    if !drill.join("report/statement.json").exists() {
                        let report = self.lifeboat(&start, &["report"], Some(&drill)).output().unwrap();
                        if report.status.code() != Some(0) {
                            return Err(format!("no report: {}", words(&report)));
                        }
                    }
                    None
                }
                None => Some(
                    self.lifeboat(&start, &["resume", "--headless", "--yes", "--json"], Some(&drill)).output().unwrap(),
                ),
            },
            (Some(_), None) => return Err("the drill is gone".to_owned()),
        };
        if let Some(resumed) = &resumed {
            plain(resumed)?;
            let failed = |why: String| format!("{why}; first {}\nthen {}", words(&output), words(resumed));
            let journal = holds(&start, resumed).map_err(failed)?.ok_or_else(|| failed("no journal".to_owned()))?;
            match resumed.status.code() {
                Some(0) => {}
                Some(4) if !journal.in_doubt().is_empty() => return Ok(()),
                code => return Err(failed(format!("resumed with {code:?}"))),
            }
        }
        self.is_complete(&start)
    }

    /// The drill passed: every effect is there, and the report fits the journal.
    fn is_complete(&self, start: &Start) -> Result<(), String> {
        let drill = start.drill().ok_or("the drill is gone")?;
        let journal = Story::read(&drill)?.ok_or("the journal is empty")?;
        if journal.verdict() != Some(Verdict::Passed) {
            let failed = journal
                .0
                .iter()
                .find(|event| matches!(event, Event::StepFinished { outcome, .. } if outcome.status != Status::Passed));
            return Err(format!("the drill ended with {:?}: {failed:?}", journal.verdict()));
        }
        let ledger = start.ledger();
        for effect in EFFECTS {
            let times = ledger.iter().filter(|line| line == effect).count();
            if times == 0 {
                return Err(format!("the drill passed, and {effect} never happened"));
            }
        }
        let found = verify(&Request::new(drill.join("report")));
        match found.lines.iter().find(|line| line.mark == Mark::Bad) {
            Some(bad) => Err(format!("the report: {}", bad.text)),
            None => Ok(()),
        }
    }
}

/// The end of a run with a fault.
fn ended_well(output: &Output, point: &Point) -> Result<(), String> {
    match (output.status.code(), output.status.signal()) {
        (None, Some(9)) if ["kill", "kill after", "torn", "power"].contains(&point.fault) => {}
        (None, Some(14)) => return Err(format!("it hangs: {}", words(output))),
        (None, signal) => return Err(format!("ended by signal {signal:?}: {}", words(output))),
        // Whoever cannot be written to cannot be told anything.
        (Some(_), _) if point.class == "stderr" => {}
        (Some(_), _) => plain(output)?,
    }
    match output.status.code() {
        Some(code) if !CONTRACT.contains(&code) => Err(format!("exit code {code}: {}", words(output))),
        _ => no_panic(output),
    }
}

fn no_panic(output: &Output) -> Result<(), String> {
    let said = text(&output.stderr);
    match ["panicked", "RUST_BACKTRACE", "hit a defect"].iter().any(|word| said.contains(word)) {
        true => Err(format!("it panicked: {}", words(output))),
        false => Ok(()),
    }
}

/// An exit code of the contract, and words with it.
fn plain(output: &Output) -> Result<(), String> {
    no_panic(output)?;
    let said = text(&output.stderr);
    match output.status.code() {
        Some(1 | 2) if !(said.contains("failed") || (said.contains("lifeboat: ") && said.contains("  why: "))) => {
            Err(format!("it does not say why: {}", words(output)))
        }
        Some(code) if CONTRACT.contains(&code) => Ok(()),
        _ => Err(format!("it ended with {}: {}", output.status, words(output))),
    }
}

fn words(output: &Output) -> String {
    format!("{}\n{}{}", output.status, text(&output.stderr), text(&output.stdout))
}

/// A journal as read by the program, once its chain was found whole by other means.
struct Story(Vec<Event>);

impl Story {
    /// `None` when it holds no entry.
    fn read(drill: &Path) -> Result<Option<Self>, String> {
        let path = drill.join("journal.jsonl");
        chain(&path)?;
        let envelopes: Vec<Envelope> = match Journal::read(&path) {
            Ok(read) => read.envelopes,
            Err(lifeboat::journal::JournalError::Empty { .. }) => return Ok(None),
            Err(error) => return Err(error.to_string()),
        };
        Ok(Some(Self(envelopes.into_iter().map(|envelope| envelope.event).collect())))
    }

    fn count(&self, is: impl Fn(&Event) -> bool) -> usize {
        self.0.iter().filter(|event| is(event)).count()
    }

    fn started(&self, id: &str) -> usize {
        self.count(|event| matches!(event, Event::StepStarted { step, .. } if step == id))
    }

    fn passed(&self, id: &str) -> usize {
        self.count(|event| {
            matches!(event, Event::StepFinished { step, outcome, .. } if step == id && outcome.status == Status::Passed)
        })
    }

    fn verdict(&self) -> Option<Verdict> {
        self.0.iter().find_map(|event| match event {
            Event::DrillFinished { verdict } => Some(*verdict),
            _ => None,
        })
    }

    /// Steps that may have happened, and that a person has to look at.
    fn in_doubt(&self) -> Vec<&str> {
        let doubtful = self.0.iter().filter_map(|event| match event {
            Event::StepInDoubt { step, .. } => Some(step.as_str()),
            _ => None,
        });
        doubtful.filter(|step| self.passed(step) == 0 && !IDEMPOTENT.contains(step)).collect()
    }
}

/// What was said and done is in the journal, and once. `None` when there is no entry in any journal.
fn holds(start: &Start, output: &Output) -> Result<Option<Story>, String> {
    let (ledger, said, stdout) = (start.ledger(), text(&output.stderr), text(&output.stdout));
    let drill = start.drill();
    let story = drill.as_deref().map(Story::read).transpose()?.flatten();
    let Some(story) = story else {
        return match ledger.is_empty() && !said.contains("▲ declared") {
            true => Ok(None),
            false => Err(format!("no journal, and yet: {ledger:?}")),
        };
    };
    for step in EFFECTS.iter().chain(&["look"]) {
        let title = format!("{}{}", step[..1].to_uppercase(), &step[1..]);
        let done = ledger.iter().filter(|line| line == step).count();
        let (started, passed) = (story.started(step), story.passed(step));
        let acknowledged =
            (said.matches(&format!("▶ {title}: ")).count(), said.matches(&format!("✓ {title}: ")).count());
        if done > started || acknowledged.0 > started {
            return Err(format!(
                "{step} was done {done} times and said to start {acknowledged:?}, the journal knows {started}"
            ));
        }
        if acknowledged.1 > passed {
            return Err(format!("{step} was said to have passed, the journal does not know"));
        }
        if EFFECTS.contains(step) && passed > done {
            return Err(format!("{step} passed {passed} times and was done {done} times"));
        }
        if done > 1 && !IDEMPOTENT.contains(step) {
            return Err(format!("{step} was done {done} times"));
        }
    }
    if stdout.contains("\"verdict\":\"passed\"") && story.verdict() != Some(Verdict::Passed) {
        return Err("it was said to have passed, the journal does not know".to_owned());
    }
    for event in &story.0 {
        if let Event::StepFinished { step, output: Some(blob), .. } = event {
            let folder = drill.as_deref().unwrap_or(Path::new("")).join("output");
            read_blob(&folder, blob).map_err(|error| format!("the output of {step}: {error}"))?;
        }
    }
    Ok(Some(story))
}

/// The chain of a journal, by the words of its documentation: each line holds the SHA-256 of the line before it.
fn chain(path: &Path) -> Result<(), String> {
    let bytes = std::fs::read(path).map_err(|error| error.to_string())?;
    let mut before = "0".repeat(64);
    for line in bytes.split_inclusive(|byte| *byte == b'\n').filter(|line| line.ends_with(b"\n") && !line.contains(&0))
    {
        let line = &line[..line.len() - 1];
        if !line.starts_with(format!("{{\"prev\":\"{before}\",").as_bytes()) {
            return Err(format!("the chain is broken at {:.120}", String::from_utf8_lossy(line)));
        }
        before = hex::encode(sha2::Sha256::digest(line));
    }
    Ok(())
}

fn copy(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).unwrap().map(|entry| entry.unwrap()) {
        let (kind, into) = (entry.file_type().unwrap(), to.join(entry.file_name()));
        if kind.is_dir() {
            std::fs::create_dir_all(&into).unwrap();
            copy(&entry.path(), &into);
        } else if kind.is_file() {
            std::fs::copy(entry.path(), into).unwrap();
        }
    }
}
