//! `lifeboat sandbox`: a whole incident on this machine.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use tokio_util::sync::CancellationToken;

use crate::clock;
use crate::event::Failure;
use crate::sandbox::{
    Intent, Layout, Options, Sandbox, SandboxError, Scale, Status, VARIABLE, account, drop_privileges, install,
};

const FAILED: u8 = 1;
const WRONG_USE: u8 = 2;
const INTERRUPTED: u8 = 130;

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
    /// End every server and remove the directory
    Down(Look),
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
    /// Install missing servers with the system's package manager
    #[arg(long)]
    install: bool,
}

/// Runs a sandbox command. Call it before any thread exists: root gives up its privileges here.
pub fn run(args: SandboxArgs) -> ExitCode {
    let result = match args.command {
        Command::Up(up) => run_up(up),
        Command::Status(look) => run_status(&look),
        Command::Down(look) => run_down(&look),
    };
    result.unwrap_or_else(|error| {
        let code = if error.is_wrong_use() { WRONG_USE } else { FAILED };
        report(&Failure::from(error));
        ExitCode::from(code)
    })
}

fn run_up(up: Up) -> Result<ExitCode, SandboxError> {
    let Some(status) = build(&up.look.place, &up.build)? else { return Ok(ExitCode::from(INTERRUPTED)) };
    print(&status, up.look.json);
    Ok(ExitCode::SUCCESS)
}

fn run_status(look: &Look) -> Result<ExitCode, SandboxError> {
    let sandbox = enter(&look.place, Intent::Look)?;
    print(&sandbox.status()?, look.json);
    Ok(ExitCode::SUCCESS)
}

fn run_down(look: &Look) -> Result<ExitCode, SandboxError> {
    let sandbox = enter(&look.place, Intent::Look)?;
    let ended = runtime()?.block_on(sandbox.down())?;
    let dir = sandbox.layout().dir().display();
    match (look.json, ended) {
        (true, _) => println!("{}", serde_json::json!({ "directory": dir.to_string(), "ended": ended })),
        (false, None) => println!("there was no sandbox in {dir}"),
        (false, Some(ended)) => println!("{ended} servers ended, {dir} removed"),
    }
    Ok(ExitCode::SUCCESS)
}

/// Installs what is missing if asked, gives up root, and builds. `None` when interrupted.
fn build(place: &Place, build: &Build) -> Result<Option<Status>, SandboxError> {
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
    let options = Options { scale: build.scale, seed: build.seed, program };
    let began = clock::boot_now();
    let tell = |line: &str| {
        let seconds = clock::boot_now().saturating_sub(began).as_secs_f64();
        eprintln!("{seconds:6.1} s  {line}");
    };
    runtime()?.block_on(async {
        let cancel = CancellationToken::new();
        let up = sandbox.up(&options, &cancel, &tell);
        tokio::pin!(up);
        tokio::select! {
            status = &mut up => status.map(Some),
            _ = tokio::signal::ctrl_c() => {
                cancel.cancel();
                // It ends its servers first.
                let _ = up.await;
                Ok(None)
            }
        }
    })
}

/// Finds the directory and gives up root.
fn enter(place: &Place, intent: Intent) -> Result<Sandbox, SandboxError> {
    let account = account()?;
    let layout = match &place.dir {
        Some(dir) => Layout::new(dir)?,
        None => Layout::standard(account.as_ref())?,
    };
    drop_privileges(&layout, account.as_ref(), intent)?;
    Ok(Sandbox::at(layout))
}

fn runtime() -> Result<tokio::runtime::Runtime, SandboxError> {
    tokio::runtime::Runtime::new().map_err(|source| SandboxError::Os { operation: "starting the runtime", source })
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
        println!("  inventory  {}", status.inventory.display());
    }
}

fn report(failure: &Failure) {
    eprintln!("error: {failure}");
    for line in failure.now.iter().flat_map(|now| now.lines()) {
        eprintln!("  {line}");
    }
}
