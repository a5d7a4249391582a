//! `lifeboat sandbox`: a whole incident on this machine.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use chrono::{DateTime, Utc};
use clap::{Args, Subcommand};
use tokio_util::sync::CancellationToken;

use crate::clock;
use crate::event::{Failure, parse_time};
use crate::sandbox::{
    Intent, Layout, Options, Sandbox, SandboxError, Scale, Status, VARIABLE, account, app, drop_privileges, install,
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
        Command::Ledger(ledger) => run_ledger(&ledger),
        Command::ServeOrders(options) => serve_orders(options),
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
    let dir = sandbox.layout().dir();
    // As root it was given up before: an empty directory in a directory of root's stays.
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
fn run_ledger(args: &Ledger) -> Result<ExitCode, SandboxError> {
    let sandbox = enter(&args.look.place, Intent::Look)?;
    let found = runtime()?.block_on(sandbox.compare(args.until))?;
    if args.look.json {
        println!("{}", found.json());
    } else {
        println!("{found}");
    }
    Ok(if found.holds() { ExitCode::SUCCESS } else { ExitCode::from(FAILED) })
}

fn serve_orders(args: ServeOrders) -> Result<ExitCode, SandboxError> {
    let ServeOrders { connections, ledger, listen, rate } = args;
    let served = runtime()?.block_on(app::serve(app::Options { connections, ledger, listen, rate }));
    served.map_err(|error| SandboxError::Part { operation: "the application", failure: Box::new(error.into()) })?;
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
