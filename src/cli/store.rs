//! `lifeboat store rekey`: after a change of `encrypt_to`, everything that was written before it.

use std::path::PathBuf;
use std::process::ExitCode;

use super::error::{CliError, Result};
use super::{paths, runtime};
use crate::event::Failure;
use crate::inventory;
use crate::recovery::rekey::rekey;

#[derive(Debug, clap::Args)]
pub struct StoreArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Encrypt to the recipients of the inventory what was encrypted to others, or not at all
    ///
    /// It needs the identity that reads the old objects, and a credential that may write and delete. Killed, it goes on
    /// where it was when it is run again. Run it while no backup is under way.
    Rekey(Rekey),
}

#[derive(Debug, clap::Args)]
struct Rekey {
    /// The inventory [default: lifeboat.toml]
    #[arg(long, short, value_name = "FILE", env = "LIFEBOAT_INVENTORY")]
    inventory: Option<PathBuf>,
    /// Only these systems
    #[arg(long = "system", value_name = "SYSTEM")]
    systems: Vec<String>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

impl StoreArgs {
    /// Whether standard output is for a program.
    pub fn json(&self) -> bool {
        let Command::Rekey(rekey) = &self.command;
        rekey.json
    }
}

pub fn run(args: StoreArgs) -> Result<ExitCode> {
    let Command::Rekey(args) = args.command;
    let inventory = inventory::load(&paths::inventory(args.inventory.as_deref())?)?;
    let encrypted =
        |store: &str| inventory.stores.get(store).is_some_and(|store| !store.encryption.encrypt_to.is_empty());
    let systems: Vec<String> = match args.systems.is_empty() {
        false => args.systems,
        true => {
            let systems = inventory.systems.values().filter(|system| encrypted(&system.backups.store));
            systems.map(|system| system.name.clone()).collect()
        }
    };
    if systems.is_empty() {
        let failure = Failure::new("nothing is encrypted anew", "no store of the inventory names recipients");
        return Err(CliError::usage(failure.now("Name them: encrypt_to = [\"age1…\"] in [stores.…].")));
    }
    let runtime = runtime()?;
    let mut all = Vec::new();
    for system in systems {
        let done = runtime.block_on(rekey(&inventory, &system, |line| {
            if !args.json {
                println!("{system}: {line}");
            }
        }));
        let done = done.map_err(CliError::failed)?;
        if !args.json {
            println!(
                "{system}: {} manifests and {} segments of WAL were encrypted anew, {} bytes; {} objects were right already",
                done.manifests, done.segments, done.bytes, done.kept
            );
        }
        all.push(done);
    }
    if args.json {
        println!("{}", serde_json::json!({ "systems": all }));
    }
    Ok(ExitCode::SUCCESS)
}
