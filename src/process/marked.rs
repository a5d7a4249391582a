//! What a child started, found again by a mark in its environment.
//!
//! A process can leave its group, its session and its parents, and close every pipe; its first environment stays with it and
//! with all that it starts. Only Linux shows it; elsewhere the group is all that is known.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// The variable that holds the mark, with those of the programs above it: `outer/inner`.
pub const MARK: &str = "LIFEBOAT_CHILD";

/// A mark that no other child has.
pub fn fresh() -> String {
    let own = uuid::Uuid::now_v7().simple().to_string();
    match std::env::var(MARK) {
        Ok(outer) => format!("{outer}/{own}"),
        Err(_) => own,
    }
}

/// Living processes in whose first environment every `NAME=value` stands; a mark stands for those below it too.
pub fn living_with(wanted: &[(&str, &str)]) -> Vec<u32> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| *pid != std::process::id() && holds(*pid, wanted) && is_alive(*pid)).collect()
}

fn holds(pid: u32, wanted: &[(&str, &str)]) -> bool {
    let Ok(environment) = std::fs::read(format!("/proc/{pid}/environ")) else { return false };
    wanted.iter().all(|(name, value)| {
        environment.split(|byte| *byte == 0).any(|pair| {
            let rest = pair.strip_prefix(name.as_bytes()).and_then(|rest| rest.strip_prefix(b"="));
            match rest.and_then(|rest| rest.strip_prefix(value.as_bytes())) {
                Some([]) => true,
                Some([b'/', ..]) => *name == MARK,
                _ => false,
            }
        })
    })
}

/// A zombie has ended; somebody has only not asked how.
fn is_alive(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

/// Signals all that carry the mark; returns how many there were.
pub fn signal(mark: &str, signal: Signal) -> usize {
    let found = living_with(&[(MARK, mark)]);
    for pid in found.iter().filter_map(|pid| i32::try_from(*pid).ok()) {
        // ESRCH: it has ended meanwhile.
        let _ = kill(Pid::from_raw(pid), signal);
    }
    found.len()
}
