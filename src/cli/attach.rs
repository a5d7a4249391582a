//! `lifeboat attach` and `lifeboat watch`: a view of a drill whose engine is another process. And that process itself.

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use tokio::sync::mpsc;

use super::error::{CliError, Kind, Result};
use super::forecast::Measured;
use super::live::{self, Beside, Concluded, Live, Outlet, after_words, resume_hint, say_end};
use super::{Global, Session, evidence, home, resume, runtime, setup};
use crate::clock::{self, SystemClock};
use crate::engine::{Left, Remote, RunEnd, Word};
use crate::event::{Command, Failure};
use crate::history;
use crate::journal::DrillDir;
use crate::process::Spec;
use crate::tui::{self, Leave, Notice};

/// How long an engine may take to open its socket.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long a view waits for an engine that is ending: children get their grace, and the report is written.
const LAST_WORDS: Duration = Duration::from_secs(60);

/// The file in the drill's directory to which an engine without a terminal writes what it cannot say.
const LOG: &str = "engine.log";

#[derive(Debug, Default, clap::Args)]
pub struct Args {
    /// The drill: its directory, its id or the beginning of it [default: the newest that has not ended]
    #[arg(value_name = "DRILL")]
    drill: Option<String>,
}

#[derive(Debug, clap::Args)]
pub struct EngineArgs {
    /// The drill's directory
    dir: String,
    #[arg(long)]
    inventory: PathBuf,
    #[arg(long)]
    operator: String,
    #[arg(long)]
    sign_key: Option<PathBuf>,
}

/// What a view may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Steer,
    Watch,
}

/// What an engine of its own needs beside the journal.
pub struct Keep {
    pub program: PathBuf,
    pub inventory: PathBuf,
    pub operator: String,
}

pub fn attach(global: &Global, args: Args) -> Result<ExitCode> {
    look(global, args, Role::Steer)
}

pub fn watch(global: &Global, args: Args) -> Result<ExitCode> {
    look(global, args, Role::Watch)
}

fn look(global: &Global, args: Args, role: Role) -> Result<ExitCode> {
    let dir = resume::find(global, args.drill.as_deref())?;
    resume::become_owner(&dir)?;
    let global = resume::beside(global, &dir);
    let session = Session::begin(&global)?;
    runtime()?.block_on(async {
        match connect(&dir, setup::operator()).await? {
            Some(remote) => {
                view(&global, &session, &dir, remote, role, Outlet { json: false, sign_key: None, reason: None }).await
            }
            None => Err(CliError::usage(
                Failure::new("no engine runs this drill", dir.path().display()).now(resume_hint(&dir)),
            )),
        }
    })
}

/// The engine of a drill that runs already; `None` when none does.
pub async fn connect(dir: &DrillDir, by: String) -> Result<Option<Remote>> {
    Remote::attach(dir, by).await.map_err(|error| {
        CliError::failed(Failure::new(format!("cannot attach to the drill in {}", dir.path().display()), error))
    })
}

/// Shows the drill; without an engine it starts one in a session of its own, which no terminal can take along.
pub async fn start_and_show(
    global: &Global,
    session: &Session,
    dir: &DrillDir,
    keep: &Keep,
    outlet: Outlet,
) -> Result<ExitCode> {
    let remote = start(session, dir, keep, outlet.sign_key.as_deref()).await?;
    view(global, session, dir, remote, Role::Steer, outlet).await
}

async fn start(session: &Session, dir: &DrillDir, keep: &Keep, sign_key: Option<&Path>) -> Result<Remote> {
    let failed = |why: String| {
        CliError::failed(Failure::new("the engine of the drill could not be started", why).now(resume_hint(dir)))
    };
    let log = dir.path().join(LOG);
    let mut spec = Spec::new(&keep.program).inherit_env([""; 0]).arg("engine").arg(dir.path());
    spec = spec.arg("--state-dir").arg(&session.state).arg("--inventory").arg(&keep.inventory);
    spec = spec.arg("--operator").arg(&keep.operator);
    if let Some(key) = sign_key {
        spec = spec.arg("--sign-key").arg(std::path::absolute(key).map_err(|error| failed(error.to_string()))?);
    }
    if let Some(remote) = connect(dir, keep.operator.clone()).await? {
        return Ok(remote);
    }
    let said = std::fs::metadata(&log).map_or(0, |meta| meta.len());
    let pid = spec.detach(&log).map_err(|error| failed(error.to_string()))?;
    let began = clock::boot_now();
    loop {
        if let Some(remote) = connect(dir, keep.operator.clone()).await? {
            return Ok(remote);
        }
        if !alive(pid) || clock::boot_now() - began > PATIENCE {
            let words = std::fs::read(&log).unwrap_or_default();
            let words = words.get(usize::try_from(said).unwrap_or(usize::MAX)..).unwrap_or_default();
            return Err(failed(String::from_utf8_lossy(words).trim().to_owned()));
        }
        clock::sleep(Duration::from_millis(5)).await;
    }
}

/// Ends the engine of a drill, if one runs, as its operator would; returns once it has ended.
pub async fn stop(dir: &DrillDir) -> Result<bool> {
    let Some(remote) = connect(dir, setup::operator()).await? else { return Ok(false) };
    // It may end by itself meanwhile.
    let _ = remote.leave.send(()).await;
    tokio::select! {
        _ = remote.follower => Ok(true),
        () = clock::sleep(LAST_WORDS) => Err(CliError::failed(
            Failure::new("the engine of a drill does not end", dir.path().display())
                .now("Its step may be waiting for a server; look with `lifeboat watch`."),
        )),
    }
}

fn alive(pid: u32) -> bool {
    let pid = nix::unistd::Pid::from_raw(i32::try_from(pid).unwrap_or(i32::MAX));
    nix::sys::signal::kill(pid, None) != Err(nix::errno::Errno::ESRCH)
}

/// Where the engine of a drill belongs: beside its printer, beside prompts that come through a pipe, or, where a terminal
/// may go away, in a process of its own.
pub fn beside(unattended: bool) -> Beside {
    match (unattended, std::io::stdin().is_terminal()) {
        (true, _) => Beside::Printer,
        (false, false) => Beside::Prompts,
        (false, true) => Beside::Nobody,
    }
}

/// `lifeboat engine`: the process that runs a drill whose views come and go.
pub fn engine(global: &Global, args: EngineArgs) -> Result<ExitCode> {
    let dir = resume::find(global, Some(&args.dir))?;
    let session = Session::begin(global)?;
    let state = history::fold(&dir.journal()).map_err(CliError::failed)?;
    let mut opening = setup::reopening(&state, &args.inventory, None, session.redactor.clone())?;
    opening.operator = args.operator;
    let outlet = Outlet { json: false, sign_key: args.sign_key, reason: None };
    runtime()?.block_on(async {
        let begun = opening
            .resume(dir.clone())
            .map_err(|error| CliError::failed(Failure::new("the drill cannot be resumed", error)))?;
        Live::new(global, &session, dir, begun, outlet, Beside::Nobody).run().await
    })
}

async fn view(
    global: &Global,
    session: &Session,
    dir: &DrillDir,
    remote: Remote,
    role: Role,
    outlet: Outlet,
) -> Result<ExitCode> {
    let Remote { state, envelopes, look, commands, words, leave, follower } = remote;
    if let Some(reason) = outlet.reason.clone().filter(|_| state.declared.is_none()) {
        // Nothing was sent yet: there is room.
        let _ = commands.try_send(Command::Declare { reason });
    }
    let (notices, heard) = mpsc::unbounded_channel();
    let last_words = tokio::spawn(pass_on(words, notices));
    let mut options = home::options(
        global,
        session,
        match role {
            Role::Steer => "leave: the drill goes on without you; `lifeboat attach` comes back to it".to_owned(),
            Role::Watch => "leave: you only watch".to_owned(),
        },
    );
    options.read_only = role == Role::Watch;
    options.can_stop = role == Role::Steer;
    let shown = home::watch(
        global,
        tui::Session {
            state,
            envelopes,
            snapshot: look.clone(),
            commands,
            clock: SystemClock::shared(),
            player: None,
            preview: home::preview(Measured::beside(dir)),
            notices: heard,
            themes: home::themes(global)?,
            options,
        },
    )
    .await;
    let left = shown?;
    if left == Leave::Stopped {
        // It may have ended by itself meanwhile.
        let _ = leave.send(()).await;
    }
    let finished = look().finished;
    if finished.is_some() || left == Leave::Stopped {
        tokio::select! {
            _ = follower => {}
            // The engine ends by itself; only the waiting is over.
            _ = tokio::signal::ctrl_c() => {}
            () = clock::sleep(LAST_WORDS) => {}
        }
    }
    match look().finished {
        Some((_, verdict)) => {
            let evidence = last_words.await.ok().flatten();
            let evidence = evidence.map(|left| evidence::sign_at_the_terminal(dir, left, outlet.sign_key.as_deref()));
            say_end(&Concluded { end: RunEnd::Finished(verdict), evidence }, &look(), dir, outlet.json)
        }
        None if left == Leave::Stopped || role == Role::Watch => {
            say_end(&Concluded { end: RunEnd::Left, evidence: None }, &look(), dir, outlet.json)
        }
        None => {
            eprintln!("The drill goes on without you.");
            eprintln!("Come back to it with: lifeboat attach {}", dir.path().display());
            live::say_json(&Concluded { end: RunEnd::Left, evidence: None }, &look(), dir, outlet.json);
            Ok(ExitCode::from(Kind::Interrupted.code()))
        }
    }
}

/// Passes on what the engine says, and returns what it said last.
async fn pass_on(mut words: mpsc::UnboundedReceiver<Word>, notices: mpsc::UnboundedSender<Notice>) -> Option<Left> {
    let mut last = None;
    while let Some(word) = words.recv().await {
        let notice = match word {
            Word::Refused { why } => Notice::Refused(why),
            Word::After { left } => Notice::After(after_words(last.insert(left))),
            Word::Hello { .. } | Word::Durable { .. } => continue,
        };
        // The view may have gone already.
        let _ = notices.send(notice);
    }
    last
}
