//! Kills in the middle of real restores: of the program, of a server that it restores, of the way to the bucket.
//!
//! One sandbox, one incident, restored again and again by an operator who answers the program's questions; every restore
//! is struck once, at a random moment of a step that is chosen in turn. It has to end in the state that the ledger
//! verifies, after `lifeboat resume` where the program was killed, or in a question that only a person can answer and that
//! says why. An operator who is told that a step failed does the restore of the killed server again, or else that step.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use lifeboat::clock::{block, boot_now};
use lifeboat::drill::{DrillState, StepStatus};
use lifeboat::event::Verdict;
use lifeboat::journal::{Journal, JournalError};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::support::Numbers;
use crate::support::sandbox::{Place, text};

/// What is struck.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Target {
    Program,
    Server,
    Bucket,
}

/// How a restore came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum End {
    /// It was over, or nothing was there to strike.
    Missed,
    /// Nobody had to do anything.
    ByItself,
    /// A step failed and said why; the operator said `retry`.
    Retried,
    Resumed,
    /// It failed for good; what it left was moved out of the way, and a new drill passed.
    Anew,
    /// It asks what nobody but a person can know.
    Asked,
}

/// A step of a calm drill.
struct Stage {
    /// The step's id.
    id: String,
    /// As its line says it.
    title: String,
    lasted: Duration,
}

/// The scene of all restores.
struct Night {
    place: Place,
    variables: BTreeMap<String, String>,
    connections: Vec<u8>,
    ledger: u64,
    app: String,
    /// In the order in which they began.
    calm: Vec<Stage>,
}

/// What is struck, and when: so long after the step has begun.
struct Strike<'a> {
    target: Target,
    stage: &'a Stage,
    after: Duration,
}

/// A strike that hit.
#[derive(Debug, Clone, Default)]
struct Hit {
    phase: String,
    /// The steps that were under way.
    running: Vec<String>,
    /// The step that restores what was struck, where it was a server.
    restored_by: Option<&'static str>,
}

/// One run of the program, and the operator's part in it.
#[derive(Default)]
struct Ran {
    hit: Option<Hit>,
    code: Option<i32>,
    said: String,
    /// The step that the newest question is about.
    turned_to: String,
    /// What was typed while a step ran that it is about; an operator types it again.
    refused: Option<String>,
    retries: usize,
    asked: bool,
}

/// No line for so long: it hangs.
const SILENCE: Duration = Duration::from_secs(180);

impl Night {
    /// After the incident, before any restore.
    fn new(name: &str) -> Self {
        let place = Place::new(name);
        place.json(&["up", "--json"]);
        let connections = std::fs::read(place.0.join("app/connections.json")).unwrap();
        let ledger = std::fs::metadata(place.0.join("app/ledger.jsonl")).unwrap().len();
        let status = place.json(&["status", "--json"]);
        let variables = status["variables"].as_object().unwrap().iter();
        let variables = variables.map(|(name, value)| (name.clone(), value.as_str().unwrap().to_owned())).collect();
        let app = status["app_url"].as_str().unwrap().trim_start_matches("http://").to_owned();
        Self { place, variables, connections, ledger, app, calm: Vec::new() }
    }

    /// With a calm restore behind it, by which the strikes are timed.
    fn begin() -> Self {
        let mut night = Self::new("kills");
        let calm = night.operate(night.run(), nothing).unwrap();
        let state = state(night.drills().last().unwrap()).unwrap().unwrap();
        assert_eq!(state.finished.map(|(_, verdict)| verdict), Some(Verdict::Passed), "{}", calm.said);
        let begun = state.runbook.steps.iter().zip(&state.steps).filter_map(|(step, progress)| {
            let began = progress.attempts.first()?.started.elapsed;
            let lasted = progress.ended()?.elapsed.saturating_sub(began);
            Some((began, Stage { id: step.id.clone(), title: state.expand(&step.title), lasted }))
        });
        let mut begun: Vec<_> = begun.collect();
        begun.sort_by_key(|(began, _)| *began);
        night.calm = begun.into_iter().map(|(_, stage)| stage).collect();
        night
    }

    /// The steps during which there is something of this kind to strike.
    fn stages(&self, target: Target) -> &[Stage] {
        let at = |id: &str| self.calm.iter().position(|stage| stage.id == id).unwrap();
        match target {
            Target::Program => &self.calm,
            // From the promotion on the service lives on it, and the restore is over.
            Target::Server => &self.calm[at("restore-db").min(at("restore-cache"))..=at("promote")],
            Target::Bucket => &self.calm[at("save-aof")..=at("promote")],
        }
    }

    fn drills(&self) -> Vec<PathBuf> {
        let folder = self.place.0.join("home/.local/state/lifeboat/drills");
        // Before the first drill there is none.
        let entries = std::fs::read_dir(folder).into_iter().flatten();
        let mut found: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
        found.sort();
        found
    }

    /// As it was after the incident: nothing is restored, and the application looks for the old servers.
    fn reset(&self) {
        let restore = self.place.0.join("restore");
        let below = || {
            let mut found = self.place.processes();
            found.retain(|(pid, _)| {
                std::fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|folder| folder.starts_with(&restore))
            });
            found
        };
        let deadline = boot_now() + Duration::from_secs(20);
        while let Some((pid, _)) = below().first() {
            // It may have ended meanwhile.
            let _ = kill(Pid::from_raw(i32::try_from(*pid).unwrap()), Signal::SIGKILL);
            assert!(boot_now() < deadline, "process {pid} does not end");
            block(Duration::from_millis(5));
        }
        for entry in std::fs::read_dir(&restore).into_iter().flatten().map(|entry| entry.unwrap().path()) {
            match entry.is_dir() {
                true => std::fs::remove_dir_all(&entry).unwrap(),
                false => std::fs::remove_file(&entry).unwrap(),
            }
        }
        // A drill that was left with a question keeps its hold on both systems.
        for system in ["orders-db", "orders-cache"] {
            let lease = self.place.0.join("bucket").join(system).join("lease");
            if lease.exists() {
                std::fs::remove_dir_all(lease).unwrap();
            }
        }
        std::fs::write(self.place.0.join("app/connections.json"), &self.connections).unwrap();
        let mut stream = std::net::TcpStream::connect(&self.app).unwrap();
        write!(stream, "POST /reload HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n", self.app)
            .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let ledger = std::fs::OpenOptions::new().write(true).open(self.place.0.join("app/ledger.jsonl")).unwrap();
        ledger.set_len(self.ledger).unwrap();
    }

    /// The program of the sandbox, as the user that its servers run as.
    fn lifeboat(&self, args: &[&str]) -> Command {
        let mut command = Command::new(self.place.0.join("bin/lifeboat"));
        command.args(args);
        command.arg("--state-dir").arg(self.place.0.join("home/.local/state/lifeboat"));
        command.env("HOME", self.place.0.join("home")).env("RUST_BACKTRACE", "0").current_dir(&self.place.0);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let owner = std::fs::metadata(&self.place.0).unwrap();
        let group = std::fs::metadata(self.place.0.join("app")).unwrap().gid();
        if nix::unistd::geteuid().is_root() && owner.uid() != 0 {
            command.uid(owner.uid()).gid(group);
        }
        command
    }

    fn run(&self) -> Command {
        let mut command =
            self.lifeboat(&["run", "restore-to-a-point", "--system", "db=orders-db", "--system", "cache=orders-cache"]);
        command.arg("--inventory").arg(self.place.0.join("lifeboat.toml"));
        for (name, value) in &self.variables {
            command.arg("--var").arg(format!("{name}={value}"));
        }
        command
    }

    fn restored_redis(&self) -> Option<i32> {
        let is_redis = |pid: &u32| {
            let comm = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            let folder = std::fs::read_link(format!("/proc/{pid}/cwd")).unwrap_or_default();
            comm.trim() == "redis-server" && folder.starts_with(self.place.0.join("restore"))
        };
        let pid = self.place.processes().into_iter().map(|(pid, _)| pid).find(is_redis)?;
        i32::try_from(pid).ok()
    }

    /// A restored server that runs, and the step that restored it.
    fn restored_server(&self, numbers: &mut Numbers) -> Option<(i32, &'static str)> {
        let postgres = || {
            let text = std::fs::read_to_string(self.place.0.join("restore/orders-db/postmaster.pid")).ok()?;
            let pid = text.lines().next()?.trim().parse::<i32>().ok()?;
            kill(Pid::from_raw(pid), None).is_ok().then_some((pid, "restore-db"))
        };
        let mut found = [postgres(), self.restored_redis().map(|pid| (pid, "restore-cache"))];
        found.rotate_left(numbers.below(2));
        found.into_iter().flatten().next()
    }

    /// Runs the program to its end and answers what it asks, as an operator does who knows that nothing is in doubt.
    fn operate(
        &self,
        mut command: Command,
        mut strike: impl FnMut(&str, &mut Child) -> Result<Option<Hit>, String>,
    ) -> Result<Ran, String> {
        let mut child = command.spawn().unwrap();
        let lines = lines(child.stdout.take().unwrap());
        let errors = lines_of(child.stderr.take().unwrap());
        let mut keyboard = child.stdin.take();
        let (mut ran, mut failed) = (Ran::default(), None);
        while failed.is_none() {
            let line = match lines.recv_timeout(if ran.refused.is_some() { Duration::from_secs(1) } else { SILENCE }) {
                Ok(line) => line,
                Err(std::sync::mpsc::RecvTimeoutError::Timeout) if ran.refused.is_some() => {
                    let (Some(keyboard), Some(again)) = (&mut keyboard, ran.refused.take()) else { continue };
                    let _ = writeln!(keyboard, "{again}");
                    continue;
                }
                Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => break,
                Err(std::sync::mpsc::RecvTimeoutError::Timeout) => {
                    failed = Some(format!("it hangs:\n{}", ran.said));
                    break;
                }
            };
            ran.said = format!("{}{line}\n", ran.said);
            if ran.hit.is_none() {
                match strike(&line, &mut child) {
                    Ok(hit) => ran.hit = hit,
                    Err(why) => failed = Some(why),
                }
            }
            let Some(answer) = ran.answer(&line) else { continue };
            if ran.asked {
                // Its input's end is the operator's leave.
                keyboard = None;
            } else if let Some(keyboard) = &mut keyboard {
                // Who was just struck does not read it.
                let _ = writeln!(keyboard, "{answer}");
            }
        }
        drop(keyboard);
        if failed.is_some() {
            child.kill().unwrap();
        }
        ran.code = child.wait().unwrap().code();
        ran.said.push_str(&errors.join().unwrap());
        failed.map_or(Ok(ran), Err)
    }

    fn hit(
        &self,
        strike: &Strike<'_>,
        child: &mut Child,
        before: usize,
        numbers: &mut Numbers,
    ) -> Result<Option<Hit>, String> {
        let mut server = None;
        if strike.target == Target::Server {
            // It is not there yet when the step has just begun; then it may live a while.
            let deadline = boot_now() + Duration::from_secs(30);
            let mut late = false;
            server = self.restored_server(numbers);
            while server.is_none() && boot_now() < deadline && child.try_wait().unwrap().is_none() {
                block(Duration::from_millis(1));
                late = true;
                server = self.restored_server(numbers);
            }
            if late {
                block(Duration::from_millis(numbers.below(600) as u64));
            }
        }
        let drills = self.drills();
        let Some(state) = drills.get(before..).and_then(<[PathBuf]>::last).map(|drill| state(drill)).transpose()?
        else {
            return Ok(None);
        };
        let Some(state) = state.filter(|state| state.finished.is_none()) else { return Ok(None) };
        let running = |index: &usize| state.steps[*index].status == StepStatus::Running;
        let begun = |index: &usize| state.steps[*index].attempts.last().map(|attempt| attempt.started.elapsed);
        let running: Vec<usize> = (0..state.steps.len()).filter(running).collect();
        let newest = running.first().copied().or_else(|| (0..state.steps.len()).max_by_key(begun));
        let hit = Hit {
            phase: newest
                .map_or_else(String::new, |step| state.runbook.phases[state.runbook.steps[step].phase].title.clone()),
            running: running.iter().map(|step| state.runbook.steps[*step].id.clone()).collect(),
            restored_by: server.map(|(_, step)| step),
        };
        let struck = match strike.target {
            Target::Program => child.kill().is_ok(),
            Target::Server => server.is_some_and(|(pid, _)| kill(Pid::from_raw(pid), Signal::SIGKILL).is_ok()),
            Target::Bucket => {
                let (bucket, away) = (self.place.0.join("bucket"), self.place.0.join("bucket-away"));
                std::fs::rename(&bucket, &away).unwrap();
                block(Duration::from_millis(100 + numbers.below(1_500) as u64));
                // Whoever made a new one meanwhile has written where nobody looks.
                let strange = bucket.exists();
                if strange {
                    std::fs::remove_dir_all(&bucket).unwrap();
                }
                std::fs::rename(&away, &bucket).unwrap();
                if strange {
                    return Err("something was written in the place of the bucket".to_owned());
                }
                true
            }
        };
        Ok(struck.then_some(hit))
    }

    /// One restore, struck once.
    fn survives(&self, seed: u64, target: Target) -> (Option<Hit>, Result<End, String>) {
        let mut numbers = Numbers(seed);
        self.reset();
        let stages = self.stages(target);
        let stage = &stages[usize::try_from(seed / 3).unwrap() % stages.len()];
        let after = stage.lasted.mul_f64(numbers.below(1_000) as f64 / 1_000.0);
        let before = self.drills().len();
        let mut strike = Some(Strike { target, stage, after });
        let ran = self.operate(self.run(), |line, child| {
            let begins = |strike: &mut Strike<'_>| line.ends_with(&format!("▶ {}: started", strike.stage.title));
            let Some(strike) = strike.take_if(begins) else { return Ok(None) };
            block(strike.after);
            self.hit(&strike, child, before, &mut numbers)
        });
        match ran {
            Ok(Ran { hit: None, .. }) => (None, Ok(End::Missed)),
            Ok(ran) => (ran.hit.clone(), self.comes_through(ran, before)),
            Err(why) => (None, Err(why)),
        }
    }

    fn comes_through(&self, mut ran: Ran, before: usize) -> Result<End, String> {
        let mut end = End::ByItself;
        for _ in 0..3 {
            let drills = self.drills();
            let drill = drills.get(before..).and_then(<[PathBuf]>::last);
            if ran.asked {
                // The step, what is known of it, and what may be answered.
                let lines: Vec<&str> = ran.said.lines().collect();
                let at = lines.iter().position(|line| line.contains("In doubt: ")).ok_or(&ran.said)?;
                println!("    it asks: {}", lines[at - 1..].join(" ").trim());
                return Ok(End::Asked);
            }
            if ran.retries > 0 {
                end = end.max(End::Retried);
            }
            plain(&ran)?;
            let verdict = match drill {
                Some(drill) => state(drill)?.and_then(|state| state.finished).map(|(_, verdict)| verdict),
                None => None,
            };
            let command = match (verdict, drill) {
                (Some(Verdict::Passed | Verdict::ObjectiveMissed), _) => {
                    let found = self.place.run(&["ledger", "--json"]);
                    return match found.status.success() {
                        true => Ok(end),
                        false => Err(format!("the ledger does not hold: {}\n{}", text(&found.stdout), ran.said)),
                    };
                }
                (None, Some(drill)) => {
                    end = end.max(End::Resumed);
                    self.lifeboat(&["resume", drill.to_str().unwrap()])
                }
                _ => {
                    end = End::Anew;
                    // What a person does who is told so: moves the failed restore out of the way.
                    self.reset();
                    self.run()
                }
            };
            let said = ran.said;
            ran = self.operate(command, nothing)?;
            ran.said = format!("{said}---\n{}", ran.said);
        }
        Err(format!("it does not come to an end: {:?}\n{}", ran.code, ran.said))
    }
}

fn nothing(_: &str, _: &mut Child) -> Result<Option<Hit>, String> {
    Ok(None)
}

impl Ran {
    /// What an operator types at this line.
    fn answer(&mut self, line: &str) -> Option<String> {
        if let Some(title) = line.strip_prefix("▶ ") {
            self.turned_to = title.to_owned();
        }
        let typed = match line {
            line if line.contains("Type declare and what is broken") => "declare the database is damaged",
            line if line.starts_with("  yes = ") => "yes",
            line if line.contains("Type yes if it is so") => "yes",
            line if line.contains("Type yes to choose it") => "yes",
            line if line.ends_with("Type yes, or anything else to leave it.") => "yes",
            line if line.contains("cannot be retried: it, or a step after it, is running") => {
                let restore = self.hit.as_ref().and_then(|hit| hit.restored_by);
                self.refused = restore.map(|restore| format!("retry {restore}"));
                return None;
            }
            // Enter alone takes the default.
            line if line.contains("What you type is the answer") => "",
            line if line.contains("Type repeat, done REASON") => {
                self.asked = true;
                ""
            }
            // The second also comes when a question was answered by what was meant for another.
            line if line.contains("Type retry, skip REASON, undo, or stop (")
                || line == "Type retry, skip REASON, undo, or stop." =>
            {
                self.retries += 1;
                let restored_by = self.hit.as_ref().and_then(|hit| hit.restored_by);
                return Some(match restored_by.filter(|_| !self.turned_to.starts_with("Restore ")) {
                    _ if self.retries > 6 => "stop".to_owned(),
                    Some(restore) => format!("retry {restore}"),
                    None => "retry".to_owned(),
                });
            }
            line => line.split_once("To go on, type the name: ")?.1,
        };
        Some(typed.to_owned())
    }
}

/// Each line as it comes.
fn lines(from: impl std::io::Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        // Nobody waits for lines of a program that hangs.
        BufReader::new(from).lines().map_while(Result::ok).all(|line| sender.send(line).is_ok())
    });
    receiver
}

fn lines_of(mut from: impl std::io::Read + Send + 'static) -> std::thread::JoinHandle<String> {
    std::thread::spawn(move || {
        let mut said = Vec::new();
        from.read_to_end(&mut said).unwrap();
        text(&said)
    })
}

/// As the journal tells it. `None` when it ends before its first entry.
fn state(drill: &Path) -> Result<Option<DrillState>, String> {
    let read = match Journal::read(&drill.join("journal.jsonl")) {
        Ok(read) => read,
        Err(JournalError::Empty { .. }) => return Ok(None),
        Err(error) => return Err(error.to_string()),
    };
    let Some((first, later)) = read.envelopes.split_first() else { return Ok(None) };
    let mut state = DrillState::open(first).map_err(|error| error.to_string())?;
    later.iter().for_each(|envelope| state.apply(envelope));
    Ok(Some(state))
}

/// Whoever fails says why; nobody panics.
fn plain(ran: &Ran) -> Result<(), String> {
    let last = ran.said.rsplit("---\n").next().unwrap_or_default();
    let explained = match ran.code {
        Some(0 | 3) | None => true,
        Some(1 | 2) => last.contains("  why: "),
        Some(_) => false,
    };
    match explained && !last.contains("panicked") && !last.contains("hit a defect") {
        true => Ok(()),
        false => Err(format!("it ended with {:?} and did not say why in plain words:\n{}", ran.code, ran.said)),
    }
}

/// Once the application is pointed at a dead server, it writes into the next restore of it while that is under way, and
/// what is restored is refused for the keys too many.
#[test]
fn a_server_that_died_before_the_cutover_is_restored_again() {
    let night = Night::new("died");
    let promotion = "  yes = promote the restored orders-db";
    let ran = night.operate(night.run(), |line, _| {
        let redis = night.restored_redis().filter(|_| line.starts_with(promotion));
        let Some(redis) = redis else { return Ok(None) };
        kill(Pid::from_raw(redis), Signal::SIGKILL).unwrap();
        Ok(Some(Hit { restored_by: Some("restore-cache"), ..Hit::default() }))
    });
    let ran = ran.unwrap();
    assert!(ran.said.contains("the restored orders-cache does not answer at 127.0.0.1:"), "{}", ran.said);
    assert!(ran.said.contains("No connection was changed."), "{}", ran.said);
    let said = ran.said.clone();
    assert_eq!(night.comes_through(ran, 0), Ok(End::Retried), "{said}");
}

#[test]
#[ignore = "takes half an hour"]
fn a_hundred_kills_in_the_middle_of_a_restore() {
    let count: usize = std::env::var("KILLS").map_or(100, |count| count.parse().unwrap());
    let first: u64 = std::env::var("KILLS_FROM").map_or(0, |first| first.parse().unwrap());
    let night = Night::begin();
    let (mut ends, mut phases, mut defects) = (BTreeMap::new(), BTreeMap::new(), Vec::new());
    let mut struck = 0;
    // A kill that comes too late is none: another one takes its place.
    for seed in first.. {
        if struck == count {
            break;
        }
        let target = [Target::Program, Target::Server, Target::Bucket][usize::try_from(seed % 3).unwrap()];
        let (hit, end) = night.survives(seed, target);
        let hit = hit.unwrap_or_default();
        println!("{seed} {target:?} in {} ({}): {end:?}", hit.phase, hit.running.join(", "));
        match end {
            Ok(End::Missed) => continue,
            Ok(end) => *ends.entry((target, end)).or_insert(0) += 1,
            Err(why) => defects.push(format!("{seed} {target:?} in {}: {why}", hit.phase)),
        }
        *phases.entry((target, hit.phase)).or_insert(0) += 1;
        struck += 1;
    }
    for ((target, phase), count) in &phases {
        println!("{target:?} in {phase}: {count}");
    }
    for ((target, end), count) in &ends {
        println!("{target:?} {end:?}: {count}");
    }
    println!("{struck} kills, {} survived", struck - defects.len());
    assert!(defects.is_empty(), "{} of {struck} kills:\n{}", defects.len(), defects.join("\n\n"));
}
