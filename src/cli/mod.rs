//! The command line: one file a subcommand, wiring, logging, exit codes.

// First: its macros are for all that follow.
#[macro_use]
mod say;

mod attach;
mod check;
mod completions;
mod error;
mod evidence;
mod forecast;
mod history;
mod home;
mod interrupt;
mod lint;
mod live;
mod logging;
mod metrics;
mod notify;
mod paths;
mod plan;
mod points;
mod replay;
mod resume;
mod run;
mod sandbox;
mod schedule;
mod setup;
mod store;
mod wal;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::event::Failure;
use crate::secret::Redactor;
use error::{CliError, Result};

/// Restores a broken service, times it against RTO and RPO, and leaves a signed report.
///
/// Without a command it opens the home screen: runbooks, drills under way and past, what needs attention.
#[derive(Debug, Parser)]
#[command(
    name = "lifeboat",
    version,
    max_term_width = 100,
    subcommand_required = false,
    disable_help_subcommand = true
)]
#[command(after_help = "Exit codes: 0 passed, 1 a step failed, 2 wrong use, 3 done but an objective missed, \
                        4 a person is needed, 130 interrupted.")]
pub struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    global: Global,
}

/// Options that every command takes.
#[derive(Debug, Clone, clap::Args)]
pub struct Global {
    /// Where drills, logs and recordings are kept [default: the XDG state directory]
    #[arg(long, value_name = "DIR", env = "LIFEBOAT_STATE_DIR", global = true)]
    state_dir: Option<PathBuf>,
    /// Colours: dark, light, colour-blind, plain, or the name of a theme of your own
    #[arg(long, value_name = "NAME", env = "LIFEBOAT_THEME", global = true)]
    theme: Option<String>,
    /// Line by line instead of screens: for screen readers and terminals that cannot draw
    #[arg(long, global = true)]
    plain: bool,
    /// Let the mouse scroll and select
    #[arg(long, global = true)]
    mouse: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a runbook: as a drill, or in an incident
    Run(run::Args),
    /// Go on with a drill whose program ended
    Resume(resume::Args),
    /// Come back to a drill that goes on without a terminal
    Attach(attach::Args),
    /// Look at a drill that somebody else steers, and change nothing
    Watch(attach::Args),
    /// The process that runs a drill, started by `run` and `resume`
    #[command(hide = true)]
    Engine(attach::EngineArgs),
    /// Watch a recorded drill
    Replay(replay::Args),
    /// List drills: under way and past
    Drills(resume::ListArgs),
    /// Show past runs: verdicts, RTO and RPO against their targets, and the trend
    History(history::Args),
    /// Show what is to run by itself, when it last did, and what is overdue; write it for a scheduler
    Schedule(schedule::Args),
    /// Write the disaster-recovery plan out of inventory, runbooks and past drills
    PlanDocument(plan::Args),
    /// Write a drill's report again, or say where it is
    Report(evidence::ReportArgs),
    /// Sign a drill's statement, as operator or as approver
    Sign(evidence::SignArgs),
    /// Check a report: signatures, digests, journal
    Verify(evidence::VerifyArgs),
    /// Show what can be recovered: base backups, WAL, gaps, snapshots
    Points(points::Args),
    /// Could we restore right now? Age of the backups, WAL, manifests, retention
    Check(check::Args),
    /// Numbers for Prometheus: backups, WAL, jobs, drills; alert rules, a dashboard
    Metrics(metrics::Args),
    /// Serve them to Prometheus
    ServeMetrics(metrics::ServeArgs),
    /// Send a test to the sinks of the inventory
    Notify(notify::Args),
    /// Check runbooks and inventories
    Lint(lint::LintArgs),
    /// Print the JSON schema of runbooks or of the inventory
    Schema(lint::SchemaArgs),
    /// A whole incident on this machine, to practise on
    Sandbox(sandbox::SandboxArgs),
    /// What a store is encrypted to
    Store(store::StoreArgs),
    /// Archive WAL and fetch it back: the archive_command and restore_command of PostgreSQL
    Wal(wal::Args),
    /// Print completions for a shell
    Completions(completions::Args),
    /// Print the manual page
    Man,
}

/// Runs the program. Returns its exit code.
pub fn main() -> ExitCode {
    let args: Vec<_> = std::env::args_os().collect();
    // PostgreSQL waits for these: they run before anything else is set up.
    if let Some(code) = wal::fast_path(&args) {
        return code;
    }
    // SAFETY: no other thread exists yet.
    unsafe { nix::libc::umask(if crate::mutant::removes("18b") { 0 } else { 0o077 }) };
    // Already installed only when a test runs `main` twice.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let cli = Cli::parse_from(args);
    let code = match dispatch(cli) {
        Ok(code) => code,
        Err((error, json)) => error.report(json),
    };
    let code = match say::lost() {
        Some(why) if code == ExitCode::SUCCESS => CliError::failed(
            Failure::new("not everything could be printed", format!("standard output: {why}"))
                .now("What was done is done. Send the output elsewhere and ask again."),
        )
        .report(false),
        _ => code,
    };
    crate::tui::terminal::settle();
    code
}

/// The error comes with whether the command's standard output is for a program.
fn dispatch(cli: Cli) -> std::result::Result<ExitCode, (CliError, bool)> {
    let global = cli.global;
    let plain = |result: Result<ExitCode>| result.map_err(|error| (error, false));
    match cli.command {
        None => plain(home::run(&global)),
        Some(Command::Run(args)) => with_json(args.json, |json| run::run(&global, args, json)),
        Some(Command::Resume(args)) => with_json(args.json, |json| resume::run(&global, args, json)),
        Some(Command::Drills(args)) => with_json(args.json, |_| resume::list(&global, args)),
        Some(Command::History(args)) => with_json(args.json, |_| history::run(&global, args)),
        Some(Command::Schedule(args)) => with_json(args.json, |_| schedule::run(&global, args)),
        Some(Command::PlanDocument(args)) => plain(plan::run(&global, args)),
        Some(Command::Attach(args)) => plain(attach::attach(&global, args)),
        Some(Command::Watch(args)) => plain(attach::watch(&global, args)),
        Some(Command::Engine(args)) => plain(attach::engine(&global, args)),
        Some(Command::Replay(args)) => plain(replay::run(&global, args)),
        Some(Command::Report(args)) => plain(evidence::report(&global, args)),
        Some(Command::Sign(args)) => plain(evidence::sign(&global, args)),
        Some(Command::Verify(args)) => with_json(args.json, |_| evidence::verify(&global, args)),
        Some(Command::Points(args)) => with_json(args.json, |_| points::run(&global, args)),
        Some(Command::Check(args)) => with_json(args.json, |_| check::run(&global, args)),
        Some(Command::Metrics(args)) => plain(metrics::run(&global, args)),
        Some(Command::ServeMetrics(args)) => plain(metrics::serve(&global, args)),
        Some(Command::Notify(args)) => with_json(args.json(), |_| notify::run(args)),
        Some(Command::Lint(args)) => with_json(args.json, |_| lint::lint(args)),
        Some(Command::Schema(args)) => plain(lint::schema(args)),
        Some(Command::Sandbox(args)) => with_json(args.json(), |_| sandbox::run(&global, args)),
        Some(Command::Store(args)) => with_json(args.json(), |_| store::run(args)),
        Some(Command::Wal(args)) => plain(wal::usage(args)),
        Some(Command::Completions(args)) => plain(completions::completions(args)),
        Some(Command::Man) => plain(completions::man()),
    }
}

fn with_json(
    json: bool,
    run: impl FnOnce(bool) -> Result<ExitCode>,
) -> std::result::Result<ExitCode, (CliError, bool)> {
    run(json).map_err(|error| (error, json))
}

/// The runtime of every command that needs one. The engine, the view and the attempts share it.
fn runtime() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(4)
        .enable_all()
        .build()
        .map_err(|error| CliError::failed(Failure::new("cannot start", error)))
}

/// What a command that runs a drill has at hand.
struct Session {
    state: PathBuf,
    redactor: Redactor,
    log: Option<PathBuf>,
    /// Flushes the log when it is dropped.
    _guard: Option<tracing_appender::non_blocking::WorkerGuard>,
}

impl Session {
    fn begin(global: &Global) -> Result<Self> {
        let state = paths::state(global.state_dir.as_deref())?;
        std::fs::create_dir_all(&state).map_err(|error| {
            CliError::usage(
                Failure::new(format!("cannot use {}", state.display()), error)
                    .now("Pass --state-dir DIR with a directory that you can write to."),
            )
        })?;
        let redactor = Redactor::default();
        let (log, guard) = logging::start(&state, &redactor).unzip();
        Ok(Self { state, redactor, log, _guard: guard })
    }
}
