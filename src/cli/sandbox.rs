//! `lifeboat sandbox`: a whole incident on this machine.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use chrono::{DateTime, Utc};
use clap::{Args, Subcommand};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::error::{CliError, Kind, Result};
use super::live::Outlet;
use super::run::Headless;
use super::setup::Setup;
use super::{Global, Session, attach, run, runtime};
use crate::clock;
use crate::event::{Failure, Mode, parse_time};
use crate::history;
use crate::journal::{self, DrillDir};
use crate::process::Account;
use crate::runbook;
use crate::sandbox::{
    Intent, Layout, Options, Sandbox, SandboxError, Scale, State, Status, VARIABLE, account, app, as_account,
    drop_privileges, install, prepare_drill,
};

/// Builds, shows, repairs and removes an incident on this machine.
#[derive(Debug, Args)]
pub struct SandboxArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Build the incident: servers, backups, damage
    Up(Up),
    /// Show what is there
    Status(Look),
    /// Build the incident if it does not stand, and repair it by the shipped runbook
    Drill(Drill),
    /// End every server and remove the directory
    Down(Look),
    /// Compare what was acknowledged with what was restored
    Ledger(Ledger),
    /// The application of the sandbox
    #[command(hide = true)]
    ServeOrders(ServeOrders),
}

#[derive(Debug, Args)]
struct Place {
    /// The sandbox's directory [default: /var/tmp/lifeboat-sandbox-UID]
    #[arg(long, env = VARIABLE, value_name = "DIR")]
    dir: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct Look {
    #[command(flatten)]
    place: Place,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct Up {
    #[command(flatten)]
    look: Look,
    #[command(flatten)]
    build: Build,
    /// No incident: a shop that trades, with backups on a schedule in its inventory, to watch and to break
    #[arg(long)]
    healthy: bool,
}

#[derive(Debug, Args)]
struct Drill {
    #[command(flatten)]
    look: Look,
    #[command(flatten)]
    build: Build,
    #[command(flatten)]
    headless: Headless,
}

#[derive(Debug, Args)]
struct Ledger {
    #[command(flatten)]
    look: Look,
    /// The last commit that recovery replayed, with its offset; the restored server is asked when it is absent
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    until: Option<DateTime<Utc>>,
}

#[derive(Debug, Args)]
struct ServeOrders {
    /// A JSON file with database_url and cache_url
    #[arg(long)]
    connections: PathBuf,
    /// Where acknowledged orders are written down
    #[arg(long)]
    ledger: PathBuf,
    #[arg(long)]
    listen: SocketAddr,
    /// Orders a second that its own customers place
    #[arg(long, default_value_t = 0)]
    rate: u32,
}

/// What `up` and `drill` build.
#[derive(Debug, Args)]
struct Build {
    /// How much data: small, medium (about 1 GiB) or large (several GiB)
    #[arg(long, default_value = "small")]
    scale: Scale,
    /// The same seed makes the same rows
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Encrypt the backups to a key of the sandbox's own, with age
    #[arg(long)]
    encrypted: bool,
    /// Install missing servers with the system's package manager
    #[arg(long)]
    install: bool,
}

impl SandboxArgs {
    /// Whether standard output is for a program.
    pub fn json(&self) -> bool {
        match &self.command {
            Command::Up(up) => up.look.json,
            Command::Drill(drill) => drill.look.json,
            Command::Status(look) | Command::Down(look) => look.json,
            // Its one line is JSON or not; its errors are for people.
            Command::Ledger(_) | Command::ServeOrders(_) => false,
        }
    }
}

impl From<SandboxError> for CliError {
    fn from(error: SandboxError) -> Self {
        let wrong_use = error.is_wrong_use();
        let failure = Failure::from(error);
        if wrong_use { Self::usage(failure) } else { Self::failed(failure) }
    }
}

/// Runs a sandbox command. Call it before any thread exists: root gives up its privileges here.
pub fn run(global: &Global, args: SandboxArgs) -> Result<ExitCode> {
    match args.command {
        Command::Up(up) => run_up(up),
        Command::Status(look) => run_status(&look),
        Command::Drill(drill) => run_drill(global, drill),
        Command::Down(look) => run_down(&look),
        Command::Ledger(ledger) => run_ledger(&ledger),
        Command::ServeOrders(options) => serve_orders(options),
    }
}

fn run_up(up: Up) -> Result<ExitCode> {
    let Some(status) = build(&up.look.place, &up.build, up.healthy)? else {
        return Ok(ExitCode::from(Kind::Interrupted.code()));
    };
    print(&status, up.look.json);
    Ok(ExitCode::SUCCESS)
}

/// The drill is nothing special to the engine: `run` with the shipped runbook and the sandbox's inventory.
fn run_drill(global: &Global, drill: Drill) -> Result<ExitCode> {
    // Wrong options are found before anything is built.
    let unattended = drill.headless.unattended(true)?;
    refuse_over_a_drill(&drill.look.place)?;
    if let (Some(given), Some(account)) = (&global.state_dir, account()?) {
        check_state(given, &account)?;
    }
    let interrupted = Ok(ExitCode::from(Kind::Interrupted.code()));
    let Some(_) = build(&drill.look.place, &drill.build, false)? else { return interrupted };
    let layout = enter(&drill.look.place, Intent::Look)?.layout().clone();
    let setup = prepare_drill(&layout)?;
    let session = Session::begin(global)?;
    let mut opening = Setup {
        runbook: runbook::parse(setup.runbook_source, setup.runbook_name)?,
        inventory: setup.inventory,
        state: session.state.clone(),
        systems: setup.bindings,
        variables: setup.variables,
        mode: Mode::Sandbox,
        operator: Some(setup.principal.to_owned()),
        unattended,
        redactor: session.redactor.clone(),
    }
    .opening()?;
    opening.lifeboat = setup.lifeboat;
    let id = uuid::Uuid::now_v7().to_string();
    let dir = DrillDir::new(&session.state, &id);
    let outlet = Outlet { json: drill.look.json, sign_key: Some(setup.signing_key), reason: None };
    runtime()?.block_on(async { run::begin(global, &session, opening, (dir, id), outlet).await })
}

/// Before anything is built: the drill writes its journal as the servers' user. Call it before any thread exists.
fn check_state(given: &Path, account: &Account) -> Result<()> {
    let usable = as_account(account, || {
        std::fs::create_dir_all(given)?;
        tempfile::tempfile_in(given).map(drop)
    });
    usable.map_err(|error| {
        CliError::usage(
            Failure::new(format!("the drill cannot keep its state in {}", given.display()), error).now(format!(
                "Started by root, a sandbox and its drill run as user `{0}`: give it a directory (chown {0} DIR), or leave \
                 --state-dir out.",
                account.name
            )),
        )
    })
}

/// A drill that has not ended still needs the servers that another incident would take away.
fn refuse_over_a_drill(place: &Place) -> Result<()> {
    let (sandbox, _) = find(place)?;
    let layout = sandbox.layout();
    let drills = journal::layout::list(&layout.home().join(".local/state/lifeboat")).unwrap_or_default();
    let open = drills.iter().find(|dir| history::fold(&dir.journal()).is_ok_and(|drill| drill.finished.is_none()));
    match open {
        None => Ok(()),
        Some(dir) => Err(CliError::usage(
            Failure::new("a drill in this sandbox has not ended", dir.path().display()).now(format!(
                "Go on with it: lifeboat resume {}\nOr give it up: lifeboat sandbox down --dir {}",
                dir.path().display(),
                layout.dir().display()
            )),
        )),
    }
}

fn run_status(look: &Look) -> Result<ExitCode> {
    let sandbox = enter(&look.place, Intent::Look)?;
    print(&sandbox.status()?, look.json);
    Ok(ExitCode::SUCCESS)
}

fn run_down(look: &Look) -> Result<ExitCode> {
    // Root stays root here: a drill that root ran against the sandbox left files that only root can remove.
    let (sandbox, _) = find(&look.place)?;
    let drills = journal::layout::list(&sandbox.layout().home().join(".local/state/lifeboat")).unwrap_or_default();
    let ended = runtime()?.block_on(async {
        for dir in &drills {
            // Servers that go away beneath a drill would be taken for its failure.
            attach::stop(dir).await?;
        }
        Ok::<_, CliError>(sandbox.down().await?)
    })?;
    let dir = sandbox.layout().dir();
    let removed = !dir.exists();
    let text = dir.display();
    match (look.json, ended) {
        (true, _) => {
            println!("{}", serde_json::json!({ "directory": text.to_string(), "ended": ended, "removed": removed }));
        }
        (false, None) => println!("there was no sandbox in {text}"),
        (false, Some(ended)) if removed => println!("{ended} servers ended, {text} removed"),
        (false, Some(ended)) => {
            println!("{ended} servers ended, {text} emptied; its parent is closed to us: rmdir {text}")
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Ends with 0 when everything up to the recovered point is there, row for row, and nothing later is.
fn run_ledger(args: &Ledger) -> Result<ExitCode> {
    let sandbox = enter(&args.look.place, Intent::Look)?;
    let found = runtime()?.block_on(sandbox.compare(args.until))?;
    if args.look.json {
        println!("{}", found.json());
        if !found.holds() {
            // The last words of a step's command are the reason of its failure.
            eprintln!("the ledger does not hold: {}", found.wrong());
        }
    } else {
        println!("{found}");
    }
    Ok(if found.holds() { ExitCode::SUCCESS } else { ExitCode::from(Kind::Failed.code()) })
}

fn serve_orders(args: ServeOrders) -> Result<ExitCode> {
    let ServeOrders { connections, ledger, listen, rate } = args;
    let served = runtime()?.block_on(app::serve(app::Options { connections, ledger, listen, rate }));
    served.map_err(|error| CliError::failed(error.into()))?;
    Ok(ExitCode::SUCCESS)
}

/// Installs what is missing if asked, gives up root, and builds. `None` when interrupted.
fn build(place: &Place, build: &Build, healthy: bool) -> Result<Option<Status>> {
    let program =
        std::env::current_exe().map_err(|source| SandboxError::Os { operation: "finding this program", source })?;
    if build.install
        && let Some(plan) = install::plan()?
    {
        eprintln!("will be run:");
        plan.lines().iter().for_each(|line| eprintln!("  {line}"));
        plan.run()?;
    }
    let sandbox = enter(place, Intent::Build)?;
    let options = Options { scale: build.scale, seed: build.seed, encrypted: build.encrypted, healthy, program };
    let began = clock::boot_now();
    let tell = |line: &str| {
        let seconds = clock::boot_now().saturating_sub(began).as_secs_f64();
        eprintln!("{seconds:6.1} s  {line}");
    };
    runtime()?.block_on(async {
        // Before anything starts: from here on no signal ends this program without its servers.
        let interrupted = interruption()?;
        let cancel = CancellationToken::new();
        let up = sandbox.up(&options, &cancel, &tell);
        tokio::pin!(up, interrupted);
        tokio::select! {
            status = &mut up => Ok(Some(status?)),
            () = &mut interrupted => {
                cancel.cancel();
                // It ends its servers first.
                let _ = up.await;
                Ok(None)
            }
        }
    })
}

/// Completes when somebody wants this program to end; listens from now on.
fn interruption() -> Result<impl Future<Output = ()>> {
    let listen = |kind| signal(kind).map_err(|source| SandboxError::Os { operation: "listening for signals", source });
    let mut interrupt = listen(SignalKind::interrupt())?;
    let mut terminate = listen(SignalKind::terminate())?;
    let mut hangup = listen(SignalKind::hangup())?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    })
}

/// Finds the directory and gives up root.
fn enter(place: &Place, intent: Intent) -> Result<Sandbox> {
    let (sandbox, account) = find(place)?;
    drop_privileges(sandbox.layout(), account.as_ref(), intent)?;
    Ok(sandbox)
}

/// The directory, and whom its servers run as when this is root.
fn find(place: &Place) -> Result<(Sandbox, Option<Account>)> {
    let account = account()?;
    let layout = match &place.dir {
        Some(dir) => Layout::new(dir)?,
        None => Layout::standard(account.as_ref())?,
    };
    Ok((Sandbox::at(layout), account))
}

fn print(status: &Status, json: bool) {
    if json {
        println!("{}", serde_json::json!(status));
        return;
    }
    println!("{}  {}", status.directory.display(), status.state.word());
    for server in &status.servers {
        let runs = server.pid.map_or("does not run".to_owned(), |pid| format!("pid {pid}"));
        let whose = if server.restored { "restored " } else { "" };
        println!("  {whose}{} ({})  {}  {runs}", server.name, server.kind, server.address);
    }
    if let Some(incident) = &status.incident {
        let time = |at: chrono::DateTime<chrono::Utc>| at.format("%Y-%m-%d %H:%M:%S%.3f UTC").to_string();
        println!("  backup     {}", time(incident.backup_finished_at));
        println!("  damage     {}  ({})", time(incident.damage_at), status.migration_log.display());
        println!("  taken down {}", time(incident.taken_down_at));
    }
    if matches!(status.state, State::Healthy | State::Broken | State::Touched) {
        println!("  inventory  {}", status.inventory.display());
    }
    if status.state == State::Healthy {
        println!("  bucket     {}", status.bucket);
        println!("  for a scheduler: lifeboat schedule emit cron --inventory {}", status.inventory.display());
    }
}
