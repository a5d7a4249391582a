//! What runs in the sandbox, found by where it works and not by what it is called.

use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::clock;

use super::error::SandboxError;

/// Between SIGQUIT or SIGTERM and SIGKILL.
const GRACE: Duration = Duration::from_secs(10);
/// After SIGKILL.
const LAST: Duration = Duration::from_secs(5);
const LOOK: Duration = Duration::from_millis(20);

/// Programs that a sandbox or a drill starts; a shell or an editor that looks into the directory is nobody's business.
const OURS: [&str; 9] =
    ["postgres", "redis-server", "valkey-server", "initdb", "pg_ctl", "pg_basebackup", "psql", "redis-cli", "lifeboat"];

/// A process whose working directory or program is below the sandbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    pub pid: u32,
    pub parent: u32,
    pub uid: u32,
    pub program: String,
    pub cwd: PathBuf,
}

/// Those that nobody else of the list started: postmasters without their backends.
pub fn roots(all: &[Process]) -> impl Iterator<Item = &Process> {
    all.iter().filter(|process| !all.iter().any(|other| other.pid == process.parent))
}

/// Ends every server below `dir` and waits until the last is gone. Returns how many there were.
pub async fn end(dir: &Path) -> Result<usize, SandboxError> {
    let began = clock::boot_now();
    let mut asked: Vec<u32> = Vec::new();
    let mut killed = false;
    loop {
        let all = below(dir)?;
        let Some(first) = all.first() else { return Ok(asked.len()) };
        let waited = clock::boot_now().saturating_sub(began);
        if waited > GRACE + LAST {
            return Err(SandboxError::Survivor { pid: first.pid, command: first.program.clone() });
        }
        if waited > GRACE && !killed {
            all.iter().for_each(|process| send(process.pid, Signal::SIGKILL));
            killed = true;
        }
        for process in &all {
            // A PostgreSQL backend ends with its postmaster; on its own it would be restarted.
            let backend = process.program == "postgres" && all.iter().any(|other| other.pid == process.parent);
            if !backend && !asked.contains(&process.pid) {
                // SIGQUIT: PostgreSQL stops at once and gives back its shared memory.
                let postgres = process.program == "postgres";
                send(process.pid, if postgres { Signal::SIGQUIT } else { Signal::SIGTERM });
                asked.push(process.pid);
            }
        }
        clock::sleep(LOOK).await;
    }
}

fn send(pid: u32, signal: Signal) {
    if let Ok(pid) = i32::try_from(pid) {
        // ESRCH: it has ended meanwhile.
        let _ = kill(Pid::from_raw(pid), signal);
    }
}

/// The servers below `dir`, this process left out.
#[cfg(target_os = "linux")]
pub fn below(dir: &Path) -> Result<Vec<Process>, SandboxError> {
    // Links of /proc are canonical.
    let Ok(dir) = dir.canonicalize() else { return Ok(Vec::new()) };
    let entries = std::fs::read_dir("/proc").map_err(SandboxError::io("reading", Path::new("/proc")))?;
    let numbers = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    Ok(numbers.filter(|pid| *pid != std::process::id()).filter_map(|pid| look(pid, &dir)).collect())
}

#[cfg(target_os = "linux")]
fn look(pid: u32, dir: &Path) -> Option<Process> {
    use std::os::unix::fs::MetadataExt as _;
    let proc = PathBuf::from(format!("/proc/{pid}"));
    // A process may end while it is looked at, and others' processes do not show their links.
    let cwd = std::fs::read_link(proc.join("cwd")).ok()?;
    let exe = std::fs::read_link(proc.join("exe")).ok()?;
    if !cwd.starts_with(dir) && !exe.starts_with(dir) {
        return None;
    }
    let program = std::fs::read_to_string(proc.join("comm")).ok()?.trim_end().to_owned();
    if !OURS.contains(&program.as_str()) || (program == "lifeboat" && !exe.starts_with(dir)) {
        return None;
    }
    let stat = std::fs::read_to_string(proc.join("stat")).ok()?;
    // pid (comm) state ppid …; comm may hold blanks and brackets.
    let mut rest = stat.rsplit(") ").next()?.split(' ');
    let (state, parent) = (rest.next()?, rest.next()?.parse().ok()?);
    let uid = std::fs::metadata(&proc).ok()?.uid();
    (!matches!(state, "Z" | "X")).then_some(Process { pid, parent, uid, program, cwd })
}

/// The servers below `dir`: those named by pid files there, when their working directory is there too.
#[cfg(not(target_os = "linux"))]
pub fn below(dir: &Path) -> Result<Vec<Process>, SandboxError> {
    let Ok(dir) = dir.canonicalize() else { return Ok(Vec::new()) };
    let mut found = Vec::new();
    pid_files(&dir, 5, &mut found);
    let ask = |program: &str, args: &[&str]| {
        let output = std::process::Command::new(program).args(args).output().ok()?;
        Some(String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let look = |pid: u32| {
        let number = pid.to_string();
        let cwd = ask("lsof", &["-a", "-d", "cwd", "-p", &number, "-Fn"])?;
        let cwd = PathBuf::from(cwd.lines().find_map(|line| line.strip_prefix('n'))?);
        let row = ask("ps", &["-o", "ppid=,uid=,comm=", "-p", &number])?;
        let mut words = row.split_whitespace();
        let (parent, uid) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
        let program = words.next()?.rsplit('/').next()?.to_owned();
        (cwd.starts_with(&dir) && OURS.contains(&program.as_str())).then_some(Process {
            pid,
            parent,
            uid,
            program,
            cwd,
        })
    };
    Ok(found.into_iter().filter(|pid| *pid != std::process::id()).filter_map(look).collect())
}

#[cfg(not(target_os = "linux"))]
fn pid_files(dir: &Path, depth: u32, found: &mut Vec<u32>) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        let is_dir = entry.file_type().is_ok_and(|kind| kind.is_dir());
        // PostgreSQL's own directories hold thousands of files and no pid file.
        if is_dir && depth > 0 && !path.ends_with("base") && !path.ends_with("pg_wal") {
            pid_files(&path, depth - 1, found);
        } else if path.extension().is_some_and(|extension| extension == "pid") {
            let text = std::fs::read_to_string(&path).unwrap_or_default();
            found.extend(text.lines().next().and_then(|line| line.trim().parse::<u32>().ok()));
        }
    }
}
