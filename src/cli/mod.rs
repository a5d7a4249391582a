//! The command line.

mod sandbox;
mod wal;

use clap::{Parser, Subcommand};

/// The terminal an on-call engineer opens when the database is gone.
#[derive(Debug, Parser)]
#[command(name = "lifeboat", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// A whole incident on this machine: up, status, drill, down
    Sandbox(sandbox::SandboxArgs),
}

pub fn main() -> std::process::ExitCode {
    let args: Vec<_> = std::env::args_os().collect();
    // PostgreSQL waits for these: they run before anything else is set up.
    if let Some(code) = wal::fast_path(&args) {
        return code;
    }
    match Cli::parse_from(args).command {
        Command::Sandbox(args) => sandbox::run(args),
    }
}
