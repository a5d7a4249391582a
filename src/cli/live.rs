//! The engine of a drill and the view beside it: lines, or nobody, or views of other processes.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use nix::errno::Errno;
use tokio::sync::{broadcast, mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::error::{CliError, Kind, Result};
use super::evidence;
use super::forecast::Measured;
use super::interrupt::Signals;
use super::{Global, Session, home};
use crate::clock::{self, SystemClock};
use crate::drill::{DrillState, Rpo, StepStatus};
use crate::engine::{Driver, Handle, Left, Link, RunEnd};
use crate::event::{Command, Failure, Mode, Verdict};
use crate::journal::DrillDir;
use crate::runbook::StepKind;
use crate::tui::{self, Notice};

/// How often a printer looks whether the engine is still there.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// What is left behind at the end.
pub struct Outlet {
    pub json: bool,
    pub sign_key: Option<PathBuf>,
    /// Declares at once with these words; otherwise a person does, or a headless run with words of its own.
    pub reason: Option<String>,
}

/// Who looks at the engine from within its own process. Others attach by its socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Beside {
    /// Lines for a log, of a run without a person.
    Printer,
    /// Prompts on standard input that is no terminal: the drill lives as long as its input.
    Prompts,
    /// Nobody: the process was started for the engine alone, and ends with the drill.
    Nobody,
}

/// One run of the engine.
pub struct Live<'a> {
    global: &'a Global,
    session: &'a Session,
    dir: DrillDir,
    driver: Driver,
    handle: Handle,
    outlet: Outlet,
    beside: Beside,
}

impl<'a> Live<'a> {
    pub fn new(
        global: &'a Global,
        session: &'a Session,
        dir: DrillDir,
        (driver, handle): (Driver, Handle),
        outlet: Outlet,
        beside: Beside,
    ) -> Self {
        Self { global, session, dir, driver, handle, outlet, beside }
    }

    /// Runs until the drill has ended or is left; writes the report; says where things are.
    pub async fn run(self) -> Result<ExitCode> {
        let Self { global, session, dir, driver, handle, outlet, beside } = self;
        let unattended = driver.is_unattended();
        let reason = outlet.reason.clone().or_else(|| unattended.then(|| "started without a person".to_owned()));
        if let Some(reason) = reason.filter(|_| handle.feed.snapshot().declared.is_none()) {
            // The engine has not begun to read: there is room.
            let _ = handle.commands.try_send(Command::Declare { reason });
        }
        // Without its socket a drill goes on: it can be repaired, only not be watched.
        let link = Link::open(&dir).inspect_err(|error| tracing::warn!(%error, "no view can attach")).ok();
        let (leave, over) = (handle.leave.clone(), CancellationToken::new());
        let (after, heard) = watch::channel(None);
        let serving = link.map(|link| tokio::spawn(link.serve(handle.clone(), heard.clone(), over.clone())));
        let signals =
            Signals::listen().map_err(|error| CliError::failed(Failure::new("cannot listen to signals", error)))?;
        let signals = tokio::spawn(signals.leave(leave.clone(), beside));
        let conclusion = tokio::spawn(conclude(driver, dir.clone(), outlet.sign_key.clone(), after));
        let view = match beside {
            Beside::Printer => print_until_the_end(&handle, &conclusion).await,
            Beside::Prompts => prompt(global, session, &dir, &handle, heard).await,
            Beside::Nobody => {
                while !conclusion.is_finished() {
                    clock::sleep(LOOK_EVERY).await;
                }
                Ok(())
            }
        };
        // However the view ended, the engine is told, ends what runs, and the journal is closed in order.
        leave.cancel();
        let concluded = conclusion.await;
        over.cancel();
        if let Some(serving) = serving {
            // It only served.
            let _ = serving.await;
        }
        let concluded = concluded.map_err(|error| {
            CliError::failed(Failure::new("the engine hit a defect", error).now(resume_hint(&dir)))
        })??;
        signals.abort();
        view?;
        let state = handle.feed.snapshot();
        say_end(&concluded, &state, &dir, outlet.json)
    }
}

/// How it ended, and what was written.
pub struct Concluded {
    pub end: RunEnd,
    pub evidence: Option<Left>,
}

async fn conclude(
    driver: Driver,
    dir: DrillDir,
    sign_key: Option<PathBuf>,
    after: watch::Sender<Option<Left>>,
) -> Result<Concluded> {
    let end = driver.run().await.map_err(|error| {
        CliError::failed(
            Failure::new("the drill stopped", error).now(format!("Free space or mend the disk. {}", resume_hint(&dir))),
        )
    })?;
    let RunEnd::Finished(_) = end else { return Ok(Concluded { end, evidence: None }) };
    let (path, key) = (dir.clone(), sign_key.clone());
    let left = tokio::task::spawn_blocking(move || evidence::leave(&path, key.as_deref())).await;
    let left = left.map_err(|error| CliError::failed(Failure::new("the report was not written", error)))??;
    after.send_replace(Some(left.clone()));
    Ok(Concluded { end, evidence: Some(left) })
}

/// What is said below the last step: where the report lies.
pub fn after_words(left: &Left) -> String {
    let report = format!("report  {}", left.report.display());
    std::iter::once(&report).chain(&left.lines).map(String::as_str).collect::<Vec<_>>().join("\n")
}

/// Refusals and last words, as they come.
async fn pass_on(
    mut refusals: broadcast::Receiver<String>,
    mut after: watch::Receiver<Option<Left>>,
    notices: mpsc::UnboundedSender<Notice>,
) {
    loop {
        let notice = tokio::select! {
            refusal = refusals.recv() => match refusal {
                Ok(refusal) => Notice::Refused(refusal),
                Err(broadcast::error::RecvError::Lagged(_)) => continue,
                Err(broadcast::error::RecvError::Closed) => return,
            },
            Ok(()) = after.changed() => match &*after.borrow_and_update() {
                Some(left) => Notice::After(after_words(left)),
                None => continue,
            },
        };
        if notices.send(notice).is_err() {
            return;
        }
    }
}

async fn print_until_the_end(handle: &Handle, conclusion: &tokio::task::JoinHandle<Result<Concluded>>) -> Result<()> {
    let (mut state, mut envelopes) = handle.feed.subscribe();
    let mut printer = tui::plain::Printer::new(home::zone(), home::ascii(), true);
    while !conclusion.is_finished() && state.finished.is_none() {
        tokio::select! {
            envelope = envelopes.recv() => match envelope {
                Ok(envelope) if envelope.seq < state.next_seq => {}
                Ok(envelope) => {
                    state.apply(&envelope);
                    printer.lines(&state, &envelope).iter().for_each(|line| eprintln!("{line}"));
                }
                Err(broadcast::error::RecvError::Lagged(_)) => state = handle.feed.snapshot(),
                Err(broadcast::error::RecvError::Closed) => return Ok(()),
            },
            // The engine can end without a last event: it was told to leave, or a person is needed.
            () = clock::sleep(LOOK_EVERY) => {}
        }
    }
    Ok(())
}

async fn prompt(
    global: &Global,
    session: &Session,
    dir: &DrillDir,
    handle: &Handle,
    after: watch::Receiver<Option<Left>>,
) -> Result<()> {
    let (state, envelopes) = handle.feed.subscribe();
    let (notices, heard) = mpsc::unbounded_channel();
    let passing = tokio::spawn(pass_on(handle.refusals.subscribe(), after, notices));
    let leave_text = "leave: the drill stops after what runs now; `lifeboat resume` goes on with it".to_owned();
    let view = tui::Session {
        state,
        envelopes,
        snapshot: handle.feed.look(),
        commands: handle.commands.clone(),
        clock: SystemClock::shared(),
        player: None,
        preview: home::preview(Measured::beside(dir)),
        notices: heard,
        themes: home::themes(global)?,
        options: home::options(global, session, leave_text),
    };
    let shown = home::watch(global, view).await;
    passing.abort();
    shown.map(drop)
}

pub fn resume_hint(dir: &DrillDir) -> String {
    format!("Go on with: lifeboat resume {}", dir.path().display())
}

pub fn say_end(concluded: &Concluded, state: &DrillState, dir: &DrillDir, json: bool) -> Result<ExitCode> {
    let code = match &concluded.end {
        RunEnd::Finished(verdict) => verdict.exit_code(),
        RunEnd::Left => Kind::Interrupted.code(),
        RunEnd::NeedsPerson { .. } => Kind::NeedsPerson.code(),
    };
    let summary = summary(concluded, state, dir);
    for line in summary {
        eprintln!("{line}");
    }
    say_json(concluded, state, dir, json);
    Ok(ExitCode::from(code))
}

/// The last line of standard output, when a program reads it.
pub fn say_json(concluded: &Concluded, state: &DrillState, dir: &DrillDir, json: bool) {
    if json {
        println!("{}", as_json(concluded, state, dir));
    }
}

/// What a person reads last.
fn summary(concluded: &Concluded, state: &DrillState, dir: &DrillDir) -> Vec<String> {
    let mut lines = Vec::new();
    match &concluded.end {
        RunEnd::Finished(verdict) => {
            lines.push(format!("{}: {}", state.runbook.title, verdict.word()));
            lines.extend(failed_steps(state));
            if *verdict == Verdict::Failed || *verdict == Verdict::Aborted {
                lines.extend(left_running(state));
            }
        }
        RunEnd::Left => {
            lines.push("The drill has not ended.".to_owned());
            lines.push(resume_hint(dir));
        }
        RunEnd::NeedsPerson { step, why } => {
            lines.push(format!("A person is needed at step `{step}`: {why}."));
            lines.push(resume_hint(dir));
        }
    }
    let now = state.latest.elapsed;
    if let Some(rto) = state.rto(now) {
        let target =
            state.rto_target().map_or_else(String::new, |target| format!(" of {}", humantime::format_duration(target)));
        let split = state.split(now);
        lines.push(format!(
            "RTO {:.1} s{target}  (machine {:.1} s, waiting for people {:.1} s)",
            rto.as_secs_f64(),
            split.machine.as_secs_f64(),
            split.human.as_secs_f64()
        ));
    }
    for rpo in state.rpos() {
        if let Some(seconds) = rpo.seconds {
            let target =
                rpo.target.map_or_else(String::new, |target| format!(" of {}", humantime::format_duration(target)));
            let lost = rpo
                .lost_writes
                .map_or_else(String::new, |(lost, of)| format!(", {lost} of {of} acknowledged writes lost"));
            lines.push(format!("RPO {}: {seconds:.1} s{target}{lost}", rpo.system));
        }
    }
    if let Some(left) = &concluded.evidence {
        lines.push(format!("report  {}", left.report.display()));
        lines.extend(left.lines.iter().cloned());
    }
    lines.push(format!("journal {}", dir.journal().display()));
    lines
}

/// What failed, once more: where steps run side by side its own lines stand far above.
fn failed_steps(state: &DrillState) -> Vec<String> {
    let mut lines = Vec::new();
    for (step, progress) in state.runbook.steps.iter().zip(&state.steps) {
        let outcome = progress.attempts.last().and_then(|attempt| attempt.outcome.as_ref());
        let Some(outcome) = outcome.filter(|_| progress.status == StepStatus::Failed) else { continue };
        let Some(failure) = &outcome.failure else {
            lines.push(format!("step `{}` failed: {}", step.id, outcome.summary));
            continue;
        };
        lines.push(format!("step `{}` failed: {}", step.id, failure.what));
        if !failure.why.is_empty() {
            lines.push(format!("  why: {}", failure.why));
        }
        lines.extend(failure.now.iter().map(|now| format!("  now: {now}")));
    }
    lines
}

/// Servers that the drill restored and that nobody uses: they outlive it until somebody removes them.
fn left_running(state: &DrillState) -> Vec<String> {
    let steps = || state.runbook.steps.iter().zip(&state.steps);
    let in_use = steps().any(|(step, progress)| {
        matches!(step.kind, StepKind::CutoverConnections { .. }) && progress.status == StepStatus::Passed
    });
    let mut lines = Vec::new();
    for (step, progress) in steps() {
        let signal = match step.kind {
            StepKind::PostgresRestore => "INT",
            StepKind::RedisRestore => "TERM",
            _ => continue,
        };
        let Some(outcome) = progress.outcome().filter(|_| progress.status == StepStatus::Passed) else { continue };
        let text =
            |name: &str| outcome.facts.get(name).and_then(|value| value.as_str()).unwrap_or("unknown").to_owned();
        let Some(pid) = outcome.facts.get("pid").and_then(serde_json::Value::as_i64) else { continue };
        let alive = i32::try_from(pid)
            .is_ok_and(|pid| nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), None) != Err(Errno::ESRCH));
        if !alive {
            continue;
        }
        let (name, directory) = (step.system.as_deref().and_then(|role| state.lookup(role)), text("directory"));
        let name = name.unwrap_or_else(|| step.id.clone());
        lines.push(format!("still running: the restored {name} at {}, pid {pid}, in {directory}", text("address")));
        if !in_use && state.opening.mode != Mode::Sandbox {
            lines.push(format!("  to remove it: kill -{signal} {pid} && rm -r {directory}"));
        }
    }
    if lines.is_empty() {
        return lines;
    }
    match (in_use, state.opening.mode, state.opening.inventory_path.as_deref().and_then(Path::parent)) {
        (true, ..) => lines.push("  the application was cut over to it: remove nothing before it is moved".to_owned()),
        (false, Mode::Sandbox, Some(dir)) => {
            lines.push(format!(
                "  to remove the sandbox and all that runs in it: lifeboat sandbox down --dir {}",
                dir.display()
            ));
        }
        _ => {}
    }
    lines
}

fn as_json(concluded: &Concluded, state: &DrillState, dir: &DrillDir) -> serde_json::Value {
    let verdict = match &concluded.end {
        RunEnd::Finished(verdict) => serde_json::to_value(verdict).unwrap_or_default(),
        RunEnd::Left => "left".into(),
        RunEnd::NeedsPerson { .. } => "needs-person".into(),
    };
    let rpos = state.rpos();
    let by_system: serde_json::Map<String, serde_json::Value> =
        rpos.iter().map(|rpo| (rpo.system.clone(), rpo.seconds.into())).collect();
    let worst = rpos.iter().filter_map(|rpo| rpo.seconds).max_by(f64::total_cmp);
    serde_json::json!({
        "verdict": verdict,
        "rto_seconds": state.rto(state.latest.elapsed).map(|rto| rto.as_secs_f64()),
        "rpo_seconds": worst,
        "rpo_seconds_by_system": by_system,
        "rpo": rpos.iter().map(three_numbers).collect::<serde_json::Map<_, _>>(),
        "drill": dir.id(),
        "report_dir": concluded.evidence.as_ref().map(|left| as_text(&left.report)),
        "journal": as_text(&dir.journal()),
        "signed": concluded.evidence.as_ref().is_some_and(|left| left.signed),
    })
}

/// A system's selected loss, archive exposure and collateral; null where unknown.
fn three_numbers(rpo: &Rpo) -> (String, serde_json::Value) {
    let numbers = serde_json::json!({
        "selected_loss_seconds": rpo.seconds,
        "archive_exposure_seconds": rpo.exposure.and_then(|exposure| exposure.seconds),
        "archive_exposure_bytes": rpo.exposure.and_then(|exposure| exposure.bytes),
        "collateral_commits": rpo.collateral.map(|(commits, _)| commits),
        "collateral_bytes": rpo.collateral.map(|(_, bytes)| bytes),
    });
    (rpo.system.clone(), numbers)
}

fn as_text(path: &Path) -> String {
    path.display().to_string()
}
