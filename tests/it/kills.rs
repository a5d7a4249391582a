//! Kills in the middle of real restores: of the program, of a server that it restores, of the way to the bucket.
//!
//! One sandbox, one incident, restored again and again; every restore is struck once, at a random moment counted from an
//! event that the program said. It has to end in the state that the ledger verifies, by itself, by `lifeboat resume`, or by
//! a new drill after one that said plainly why it failed; or in a question that only a person can answer, with exit code 4.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use lifeboat::clock::{block, boot_now};
use lifeboat::event::{Event, Verdict};
use lifeboat::journal::Journal;
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
    ByItself,
    Resumed,
    /// It failed and said why; what it left was moved out of the way, and a new drill passed.
    Anew,
    /// It asks what nobody but a person can know.
    Asked,
}

/// The scene of all restores.
struct Night {
    place: Place,
    variables: BTreeMap<String, String>,
    connections: Vec<u8>,
    ledger: u64,
    app: String,
    /// What a calm drill says, line by line.
    lines: usize,
    /// The line that says that the restored database is let go.
    promotion: usize,
}

/// One run of the program, struck.
struct Struck {
    hit: bool,
    code: Option<i32>,
    said: String,
}

impl Night {
    fn begin() -> Self {
        let place = Place::new("kills");
        place.json(&["up", "--json"]);
        let connections = std::fs::read(place.0.join("app/connections.json")).unwrap();
        let ledger = std::fs::metadata(place.0.join("app/ledger.jsonl")).unwrap().len();
        let status = place.json(&["status", "--json"]);
        let variables = status["variables"].as_object().unwrap().iter();
        let variables = variables.map(|(name, value)| (name.clone(), value.as_str().unwrap().to_owned())).collect();
        let app = status["app_url"].as_str().unwrap().trim_start_matches("http://").to_owned();
        let output = place.command(&["drill", "--headless", "--yes", "--json"]).output().unwrap();
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{said}");
        let lines: Vec<&str> = said.lines().collect();
        let promotion = lines.iter().position(|line| line.contains("▶ Let the restored")).unwrap();
        Self { place, variables, connections, ledger, app, lines: lines.len(), promotion }
    }

    fn drills(&self) -> Vec<PathBuf> {
        let folder = self.place.0.join("home/.local/state/lifeboat/drills");
        let mut found: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
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
        command.args(args).args(["--headless", "--yes", "--json"]);
        command.arg("--state-dir").arg(self.place.0.join("home/.local/state/lifeboat"));
        command.env("HOME", self.place.0.join("home")).env("RUST_BACKTRACE", "0").current_dir(&self.place.0);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
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

    fn restored_server(&self, numbers: &mut Numbers) -> Option<i32> {
        let pid = |file: &str| {
            let text = std::fs::read_to_string(self.place.0.join("restore").join(file)).ok()?;
            text.lines().next()?.trim().parse::<i32>().ok()
        };
        let redis = || {
            let processes = self.place.processes();
            let is_redis = |pid: &u32| {
                let comm = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
                let folder = std::fs::read_link(format!("/proc/{pid}/cwd")).unwrap_or_default();
                comm.trim() == "redis-server" && folder.starts_with(self.place.0.join("restore"))
            };
            processes.into_iter().map(|(pid, _)| pid).find(is_redis).and_then(|pid| i32::try_from(pid).ok())
        };
        let alive = |pid: &i32| kill(Pid::from_raw(*pid), None).is_ok();
        let mut found = [pid("orders-db/postmaster.pid").filter(alive), redis()];
        found.rotate_left(numbers.below(2));
        found.into_iter().flatten().next()
    }

    /// Runs until so many lines were said, and a while longer; then strikes.
    fn strike(&self, mut command: Command, target: Target, numbers: &mut Numbers) -> Struck {
        let last = if target == Target::Server { self.promotion } else { self.lines };
        let (lines, delay) = (numbers.below(last), Duration::from_millis(numbers.below(300) as u64));
        let mut child = command.spawn().unwrap();
        let (sender, receiver) = std::sync::mpsc::channel();
        let stderr = child.stderr.take().unwrap();
        let reader = std::thread::spawn(move || {
            let mut said = String::new();
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                said.push_str(&line);
                said.push('\n');
                // Nobody waits for lines after the strike.
                let _ = sender.send(());
            }
            said
        });
        let said_enough = (0..lines).all(|_| receiver.recv().is_ok());
        block(delay);
        let hit = said_enough && child.try_wait().unwrap().is_none() && self.hit(target, &mut child, numbers);
        let code = child.wait().unwrap().code();
        Struck { hit, code, said: reader.join().unwrap() }
    }

    fn hit(&self, target: Target, child: &mut Child, numbers: &mut Numbers) -> bool {
        match target {
            Target::Program => child.kill().is_ok(),
            Target::Server => {
                // It is not there yet when the line came early.
                while child.try_wait().unwrap().is_none() {
                    if let Some(pid) = self.restored_server(numbers) {
                        return kill(Pid::from_raw(pid), Signal::SIGKILL).is_ok();
                    }
                    block(Duration::from_millis(1));
                }
                false
            }
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
                assert!(!strange, "something was written in the place of the bucket");
                true
            }
        }
    }

    /// One restore, struck once.
    fn survives(&self, seed: u64, target: Target) -> Result<End, String> {
        let mut numbers = Numbers(seed);
        self.reset();
        let before = self.drills().len();
        let struck = self.strike(self.run(), target, &mut numbers);
        let mut end = if struck.hit { End::ByItself } else { End::Missed };
        let (mut code, mut said) = (struck.code, struck.said);
        for _ in 0..3 {
            let drills = self.drills();
            let verdict = match drills.get(before..).and_then(<[PathBuf]>::last) {
                Some(drill) => verdict(drill)?,
                None => None,
            };
            plain(code, &said)?;
            let mut command = match (verdict, code) {
                (Some(Verdict::Passed | Verdict::ObjectiveMissed), _) => {
                    let found = self.place.run(&["ledger", "--json"]);
                    return match found.status.success() {
                        true => Ok(end),
                        false => Err(format!("the ledger does not hold: {}\n{said}", text(&found.stdout))),
                    };
                }
                (None, Some(4)) => return Ok(End::Asked),
                (None, _) if drills.len() > before => {
                    end = End::Resumed;
                    self.lifeboat(&["resume", drills.last().unwrap().to_str().unwrap()])
                }
                _ => {
                    end = End::Anew;
                    // What a person does who is told so: moves the failed restore out of the way.
                    self.reset();
                    self.run()
                }
            };
            let output = command.output().unwrap();
            said = format!("{said}---\n{}", text(&output.stderr));
            code = output.status.code();
        }
        Err(format!("it does not come to an end: {code:?}\n{said}"))
    }
}

fn verdict(drill: &Path) -> Result<Option<Verdict>, String> {
    let journal = drill.join("journal.jsonl");
    let read = match Journal::read(&journal) {
        Ok(read) => read,
        Err(lifeboat::journal::JournalError::Empty { .. }) => return Ok(None),
        Err(error) => return Err(error.to_string()),
    };
    Ok(read.envelopes.into_iter().find_map(|envelope| match envelope.event {
        Event::DrillFinished { verdict } => Some(verdict),
        _ => None,
    }))
}

/// Whoever fails or asks says why; nobody panics.
fn plain(code: Option<i32>, said: &str) -> Result<(), String> {
    let last = said.rsplit("---\n").next().unwrap_or_default();
    let explained = match code {
        Some(0 | 3) | None => true,
        Some(1 | 2) => last.contains("  why: "),
        Some(4) => last.contains("A person is needed at step"),
        Some(_) => false,
    };
    match explained && !last.contains("panicked") && !last.contains("hit a defect") {
        true => Ok(()),
        false => Err(format!("it ended with {code:?} and did not say why in plain words:\n{said}")),
    }
}

#[test]
#[ignore = "takes half an hour"]
fn a_hundred_kills_in_the_middle_of_a_restore() {
    let count: u64 = std::env::var("KILLS").map_or(100, |count| count.parse().unwrap());
    let first: u64 = std::env::var("KILLS_FROM").map_or(0, |first| first.parse().unwrap());
    let night = Night::begin();
    let (mut table, mut defects) = (BTreeMap::new(), Vec::new());
    let mut struck = 0;
    // A kill that comes too late is none: another one takes its place.
    for seed in first.. {
        if struck == count {
            break;
        }
        let target = [Target::Program, Target::Server, Target::Bucket][usize::try_from(seed % 3).unwrap()];
        let end = night.survives(seed, target);
        println!("{seed} {target:?}: {end:?}");
        match end {
            Ok(End::Missed) => continue,
            Ok(end) => *table.entry((target, end)).or_insert(0) += 1,
            Err(why) => defects.push(format!("{seed} {target:?}: {why}")),
        }
        struck += 1;
    }
    for ((target, end), count) in &table {
        println!("{target:?} {end:?}: {count}");
    }
    println!("{struck} kills, {} survived", struck - defects.len() as u64);
    assert!(defects.is_empty(), "{} of {struck} kills:\n{}", defects.len(), defects.join("\n\n"));
}
