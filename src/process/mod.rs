//! Child processes: their own group, a deadline, an unprivileged user, their output as a stream.
//!
//! A child never outlives its step: it leads a process group of its own, and cancelling ends the whole group, first by
//! SIGTERM, after [`GRACE`] by SIGKILL, and then whatever had left the group. What a child that ended well leaves in a
//! session of its own goes on: it was started to. Servers are the exception; [`detach`] gives them a session of their own.
//!
//! A child gets a small environment ([`PASSED_ON`] and what its [`Spec`] adds): Lifeboat's own may hold secrets, and a
//! restored server outlives it. A program of the user's inherits the whole by [`Spec::inherit_env`].

mod account;
mod find;
mod marked;
mod ports;

use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;

use futures::future::Either;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

pub use account::{Account, become_user};
pub use find::{find_program, postgres_bin};
pub use marked::living_with;
pub use ports::{free_ports, free_ports_in};

use crate::clock;
use crate::event::Stream;
use crate::mutant;

/// Between SIGTERM and SIGKILL.
pub const GRACE: Duration = Duration::from_secs(5);

/// What every child gets of Lifeboat's own environment, next to `LC_*`: where programs and files are, whose they are,
/// language and time zone, and the certificates to trust.
const PASSED_ON: [&str; 12] = [
    "PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "SHELL",
    "LANG",
    "LANGUAGE",
    "TZ",
    "TZDIR",
    "TMPDIR",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
];

/// Bytes read from a child at once.
const CHUNK: usize = 32 * 1024;

#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    #[error("`{program}` was not found; is it installed and on the PATH?")]
    NotFound { program: String },
    #[error("`{program}` could not be started: {source}")]
    Spawn { program: String, source: io::Error },
    #[error("`{program}` could not be waited for: {source}")]
    Wait { program: String, source: io::Error },
}

/// How a child ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    Exited(i32),
    Signalled(i32),
    /// It was ended because the token was cancelled.
    Cancelled,
}

impl End {
    pub fn success(self) -> bool {
        self == Self::Exited(0)
    }
}

impl std::fmt::Display for End {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Exited(code) => write!(f, "exit code {code}"),
            Self::Signalled(number) => match Signal::try_from(*number) {
                Ok(signal) => write!(f, "ended by {signal}"),
                Err(_) => write!(f, "ended by signal {number}"),
            },
            Self::Cancelled => f.write_str("cancelled"),
        }
    }
}

/// What to start. Arguments are whole items; there is no shell.
#[derive(Debug, Clone)]
pub struct Spec {
    program: PathBuf,
    args: Vec<OsString>,
    env: Vec<(OsString, OsString)>,
    /// The whole environment is inherited, but for these names.
    inherits_but: Option<Vec<OsString>>,
    cwd: Option<PathBuf>,
    run_as: Option<Account>,
    stdin: Option<Vec<u8>>,
}

/// A child's whole output, for commands that say little.
#[derive(Debug)]
pub struct Captured {
    pub end: End,
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
}

impl Captured {
    pub fn stdout_text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).trim_end().to_owned()
    }

    pub fn stderr_text(&self) -> String {
        String::from_utf8_lossy(&self.stderr).trim_end().to_owned()
    }
}

impl Spec {
    pub fn new(program: impl Into<PathBuf>) -> Self {
        Self {
            program: program.into(),
            args: Vec::new(),
            env: Vec::new(),
            inherits_but: None,
            cwd: None,
            run_as: None,
            stdin: None,
        }
    }

    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.args.push(arg.as_ref().to_owned());
        self
    }

    pub fn args<I: IntoIterator<Item = S>, S: AsRef<OsStr>>(mut self, args: I) -> Self {
        self.args.extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        self
    }

    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.env.push((name.as_ref().to_owned(), value.as_ref().to_owned()));
        self
    }

    /// The child inherits Lifeboat's whole environment but for these names: for programs that the user chose, which
    /// may need any of it.
    pub fn inherit_env<I: IntoIterator<Item = S>, S: AsRef<OsStr>>(mut self, but: I) -> Self {
        self.inherits_but = Some(but.into_iter().map(|name| name.as_ref().to_owned()).collect());
        self
    }

    pub fn cwd(mut self, cwd: impl Into<PathBuf>) -> Self {
        self.cwd = Some(cwd.into());
        self
    }

    /// Drops to this account; only root can.
    pub fn run_as(mut self, account: Option<Account>) -> Self {
        self.run_as = account;
        self
    }

    pub fn stdin(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.stdin = Some(bytes.into());
        self
    }

    /// The program, as it was given.
    pub fn name(&self) -> String {
        self.program.display().to_string()
    }

    fn command(&self) -> std::process::Command {
        use std::os::unix::process::CommandExt as _;
        let mut command = std::process::Command::new(&self.program);
        command.args(&self.args);
        match &self.inherits_but {
            Some(names) => {
                for name in names {
                    command.env_remove(name);
                }
            }
            None => {
                let passed = |name: &OsStr| {
                    name.to_str().is_some_and(|name| PASSED_ON.contains(&name) || name.starts_with("LC_"))
                };
                command.env_clear().envs(std::env::vars_os().filter(|(name, _)| passed(name)));
            }
        }
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        if let Some(cwd) = &self.cwd {
            command.current_dir(cwd);
        }
        let drops = nix::unistd::geteuid().is_root() && !mutant::removes("18");
        if let Some(account) = self.run_as.as_ref().filter(|_| drops) {
            command.uid(account.uid).gid(account.gid);
            command.env("HOME", &account.home).env("USER", &account.name).env("LOGNAME", &account.name);
        }
        command.stdin(if self.stdin.is_some() { Stdio::piped() } else { Stdio::null() });
        command
    }

    fn spawn(&self, command: &mut tokio::process::Command) -> Result<tokio::process::Child, ProcessError> {
        command.spawn().map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => ProcessError::NotFound { program: self.name() },
            _ => ProcessError::Spawn { program: self.name(), source },
        })
    }

    /// Runs to the end, handing over output as it comes; a slow receiver slows the child. `on_start` gets the pid.
    pub async fn stream(
        &self,
        output: mpsc::Sender<(Stream, Vec<u8>)>,
        cancel: &CancellationToken,
        on_start: impl FnOnce(u32),
    ) -> Result<End, ProcessError> {
        let mark = marked::fresh();
        let mut command = tokio::process::Command::from(self.command());
        command.env(marked::MARK, &mark);
        command.process_group(0).kill_on_drop(true).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = self.spawn(&mut command)?;
        let group = Group::of(&child, mark);
        on_start(child.id().unwrap_or_default());
        let stdin = feed(child.stdin.take(), self.stdin.clone());
        let out = pump(child.stdout.take(), Stream::Out, output.clone());
        let err = pump(child.stderr.take(), Stream::Err, output);
        let work = async {
            // Both pipes are read to their end, so that the last lines are there when the outcome is.
            let reading = async { tokio::join!(stdin, out, err) };
            tokio::pin!(reading);
            let waiting = child.wait();
            tokio::pin!(waiting);
            match futures::future::select(waiting, &mut reading).await {
                Either::Right((_, waiting)) => waiting.await,
                Either::Left((status, _)) => {
                    // Something that it left behind holds them open.
                    if tokio::time::timeout(GRACE, &mut reading).await.is_err() {
                        group.kill(Signal::SIGKILL);
                        let _ = tokio::time::timeout(GRACE, &mut reading).await;
                    }
                    status
                }
            }
        };
        tokio::pin!(work);
        let status = tokio::select! {
            status = &mut work => Some(status),
            () = cancel.cancelled() => None,
        };
        match status {
            Some(status) => {
                let end = end_of(status.map_err(|source| ProcessError::Wait { program: self.name(), source })?);
                // What it left behind in its group ends with it.
                group.kill(Signal::SIGKILL);
                group.forget();
                Ok(end)
            }
            None => {
                group.kill(Signal::SIGTERM);
                group.kill_those_that_left(Signal::SIGTERM);
                let ended = tokio::select! {
                    _ = &mut work => true,
                    () = clock::sleep(GRACE) => false,
                };
                if !mutant::removes("21b") {
                    group.kill(Signal::SIGKILL);
                    group.kill_those_that_left(Signal::SIGKILL);
                }
                if !ended {
                    // A pipe held open by a process that cannot be found must not hold up the drill.
                    let _ = tokio::time::timeout(GRACE, &mut work).await;
                }
                group.forget();
                Ok(End::Cancelled)
            }
        }
    }

    /// Runs to the end and keeps at most `limit` bytes of each stream, cut after a whole line: half a secret would not be
    /// known for one.
    pub async fn capture(&self, limit: usize, cancel: &CancellationToken) -> Result<Captured, ProcessError> {
        let (sender, mut receiver) = mpsc::channel::<(Stream, Vec<u8>)>(16);
        let collect = async {
            let (mut stdout, mut stderr) = (Kept::default(), Kept::default());
            while let Some((stream, bytes)) = receiver.recv().await {
                let kept: &mut Kept = if stream == Stream::Out { &mut stdout } else { &mut stderr };
                let room = limit.saturating_sub(kept.bytes.len()).min(bytes.len());
                kept.bytes.extend_from_slice(&bytes[..room]);
                kept.cut |= room < bytes.len();
            }
            (stdout.whole_lines(), stderr.whole_lines())
        };
        let (end, (stdout, stderr)) = tokio::join!(self.stream(sender, cancel, |_| {}), collect);
        Ok(Captured { end: end?, stdout, stderr })
    }

    /// Starts a server in a session of its own, its output appended to `log`; it outlives this program. Returns its pid.
    pub fn detach(&self, log: &Path) -> Result<u32, ProcessError> {
        let spawn_error = |source| ProcessError::Spawn { program: self.name(), source };
        let file = std::fs::OpenOptions::new().create(true).append(true).open(log).map_err(spawn_error)?;
        let again = file.try_clone().map_err(spawn_error)?;
        use std::os::unix::process::CommandExt as _;
        let mut command = self.command();
        command.stdin(Stdio::null()).stdout(file).stderr(again);
        // SAFETY: setsid is async-signal-safe and touches no memory of ours.
        unsafe {
            command.pre_exec(|| match mutant::removes("20") {
                true => Ok(()),
                false => nix::unistd::setsid().map(|_| ()).map_err(io::Error::from),
            });
        }
        let mut child = command.spawn().map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => ProcessError::NotFound { program: self.name() },
            _ => spawn_error(source),
        })?;
        let pid = child.id();
        // Reaps it when it ends while this program still runs; a daemon's launcher ends at once.
        std::thread::spawn(move || {
            let _ = child.wait();
        });
        Ok(pid)
    }
}

/// The beginning of a stream.
#[derive(Default)]
struct Kept {
    bytes: Vec<u8>,
    cut: bool,
}

impl Kept {
    fn whole_lines(mut self) -> Vec<u8> {
        if self.cut {
            self.bytes.truncate(self.bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1));
        }
        self.bytes
    }
}

/// Ends the group, and what has left it, when the future that runs the child is dropped.
struct Group {
    /// 0 once there is nothing to end any more.
    leader: AtomicI32,
    mark: String,
}

impl Group {
    fn of(child: &tokio::process::Child, mark: String) -> Self {
        let leader = child.id().and_then(|id| i32::try_from(id).ok()).unwrap_or(0);
        Self { leader: leader.into(), mark }
    }

    fn leader(&self) -> Option<Pid> {
        Some(self.leader.load(Ordering::Relaxed)).filter(|pid| *pid > 0).map(Pid::from_raw)
    }

    fn kill(&self, signal: Signal) {
        if let Some(leader) = self.leader() {
            // ESRCH: the group has already ended.
            let _ =
                if mutant::removes("24b") { nix::sys::signal::kill(leader, signal) } else { killpg(leader, signal) };
        }
    }

    /// Again and again: what is being killed may be starting another.
    fn kill_those_that_left(&self, signal: Signal) {
        let rounds = if signal == Signal::SIGKILL { 100 } else { 1 };
        let found = |_: &i32| self.leader().is_some() && marked::signal(&self.mark, signal) > 0;
        if !mutant::removes("24") && !mutant::removes("24b") {
            (0..rounds).take_while(found).for_each(drop);
        }
    }

    fn forget(&self) {
        self.leader.store(0, Ordering::Relaxed);
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.kill(Signal::SIGKILL);
        self.kill_those_that_left(Signal::SIGKILL);
    }
}

async fn feed(pipe: Option<tokio::process::ChildStdin>, bytes: Option<Vec<u8>>) {
    if let (Some(mut pipe), Some(bytes)) = (pipe, bytes) {
        // A child that does not read its input closes the pipe; its exit code says the rest.
        let _ = pipe.write_all(&bytes).await;
        let _ = pipe.shutdown().await;
    }
}

async fn pump(pipe: Option<impl AsyncRead + Unpin>, stream: Stream, output: mpsc::Sender<(Stream, Vec<u8>)>) {
    let Some(mut pipe) = pipe else { return };
    let mut buffer = vec![0; CHUNK];
    while let Ok(n @ 1..) = pipe.read(&mut buffer).await {
        // Nobody listens any more: keep reading, or the child would block on a full pipe.
        let _ = output.send((stream, buffer[..n].to_vec())).await;
    }
}

fn end_of(status: std::process::ExitStatus) -> End {
    use std::os::unix::process::ExitStatusExt as _;
    match (status.code(), status.signal()) {
        (Some(code), _) => End::Exited(code),
        (None, Some(signal)) => End::Signalled(signal),
        (None, None) => End::Exited(-1),
    }
}

#[cfg(test)]
mod tests;
