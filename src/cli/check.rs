//! `lifeboat check`: could we restore right now?

use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::process::ExitCode;

use tokio_util::sync::CancellationToken;

use super::error::{CliError, Kind, Result};
use super::notify::tell;
use super::{Global, Session, paths, runtime};
use crate::clock;
use crate::event::Failure;
use crate::inventory::{self, Inventory};
use crate::metrics;
use crate::notify::Alert;
use crate::recovery::health::{Fact, Health, Judgement, health, stores};
use crate::recovery::proof::{Prove, Tested};
use crate::tui::hanging;

#[derive(Debug, clap::Args)]
#[command(after_help = "Exit codes: 0 nothing is wrong that can be told, 1 a restore would fail or cannot be judged, \
                        2 wrong use, 3 everything is there, but an objective is missed: too old, too far behind, kept too long.")]
pub struct Args {
    /// The inventory [default: lifeboat.toml]
    #[arg(long, short, value_name = "FILE", env = "LIFEBOAT_INVENTORY")]
    inventory: Option<PathBuf>,
    /// Only these systems
    #[arg(long = "system", value_name = "SYSTEM")]
    systems: Vec<String>,
    /// Look at the stores only; no server is asked how far it is
    #[arg(long)]
    stores_only: bool,
    /// Also look at what the providers do for the stores: encryption, versions, lock, lifecycle, public access, the rights of
    /// the keys, the copy elsewhere
    #[arg(long)]
    protection: bool,
    /// First restore the newest backup of each system into a throwaway server, look at it, remove it, and record that
    /// beside the backup
    #[arg(long)]
    proof: bool,
    /// Tell the inventory's sinks what is wrong, once, and what is no longer wrong
    #[arg(long, conflicts_with = "systems")]
    notify: bool,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

pub fn run(global: &Global, args: Args) -> Result<ExitCode> {
    let inventory = inventory::load(&paths::inventory(args.inventory.as_deref())?)?;
    let systems = chosen(&inventory, args.systems)?;
    let runtime = runtime()?;
    let proofs = match args.proof {
        true => runtime.block_on(prove(&inventory, &systems))?,
        false => Vec::new(),
    };
    let mut found = runtime.block_on(health(&inventory, &systems, clock::wall_now(), None, !args.stores_only));
    if args.protection {
        found.stores = runtime.block_on(stores(&inventory, &systems, clock::wall_now()));
    }
    // A proof that could not be made proves nothing.
    let code = if proofs.iter().any(|proof| proof.failure.is_some()) { 1 } else { code(&found) };
    match args.json {
        true => {
            let mut value = serde_json::json!(found);
            if args.proof {
                value["proofs"] = serde_json::json!(proofs);
            }
            value["judgement"] = serde_json::json!(found.judgement());
            value["exit_code"] = code.into();
            println!("{value}");
        }
        false => print(&found),
    }
    if args.notify {
        let session = Session::begin(global)?;
        let alerts = metrics::alerts(&found);
        runtime.block_on(tell(&session, &inventory, "check", &alerts))?;
        // A look that did not look at the providers, or without a proof, does not know that what they found is over.
        if args.protection {
            runtime.block_on(tell(&session, &inventory, "protection", &metrics::of_stores(&found)))?;
        }
        if args.proof {
            let alerts: Vec<Alert> = proofs.iter().filter_map(|proof| alert_of(proof, &inventory)).collect();
            runtime.block_on(tell(&session, &inventory, "proof", &alerts))?;
        }
    }
    Ok(ExitCode::from(code))
}

fn alert_of(proof: &Proof, inventory: &Inventory) -> Option<Alert> {
    let system = inventory.systems.get(&proof.system)?;
    Some(metrics::of_proof(system, &inventory.service, proof.failure.clone()?))
}

/// What a proof came to.
#[derive(serde::Serialize)]
struct Proof {
    system: String,
    tested: Option<Tested>,
    failure: Option<Failure>,
}

/// One system after the other: each takes the disk and the cores of one restore.
async fn prove(inventory: &Inventory, systems: &[String]) -> Result<Vec<Proof>> {
    let lifeboat = paths::program()?;
    let cancel = CancellationToken::new();
    let (watched, mut proofs) = (cancel.clone(), Vec::new());
    let watching = tokio::spawn(async move {
        if tokio::signal::ctrl_c().await.is_ok() {
            eprintln!("lifeboat: interrupted; what was restored is removed");
            watched.cancel();
        }
    });
    for system in systems.iter().filter_map(|name| inventory.systems.get(name)) {
        eprintln!("{}: restoring the newest backup into a throwaway server", system.name);
        let tested = Prove { inventory, system, lifeboat: &lifeboat, cancel: &cancel }.run().await;
        if cancel.is_cancelled() {
            let failure = tested.err().unwrap_or_else(|| Failure::new("interrupted", "by Ctrl-C"));
            return Err(CliError { kind: Kind::Interrupted, failures: vec![failure], problems: None });
        }
        let system = system.name.clone();
        let proof = match tested {
            Ok(tested) => {
                let word = if tested.passed { "ok" } else { "FAILED" };
                eprintln!("{system}: {word} after {:.1} s: {}", tested.seconds, tested.says);
                Proof { system, tested: Some(tested), failure: None }
            }
            Err(failure) => {
                eprintln!("{system}: not proven: {failure}");
                Proof { system, tested: None, failure: Some(failure) }
            }
        };
        proofs.push(proof);
    }
    watching.abort();
    Ok(proofs)
}

/// All of them, or those that were named.
fn chosen(inventory: &Inventory, named: Vec<String>) -> Result<Vec<String>> {
    if let Some(unknown) = named.iter().find(|name| !inventory.systems.contains_key(*name)) {
        let names: Vec<&str> = inventory.systems.keys().map(String::as_str).collect();
        return Err(CliError::usage(
            Failure::new(format!("there is no system {unknown}"), "it is not in the inventory")
                .now(format!("Its systems are: {}.", names.join(", "))),
        ));
    }
    if inventory.systems.is_empty() {
        return Err(CliError::usage(
            Failure::new("there is nothing to check", "the inventory has no systems")
                .now("Add one: [systems.orders-db]; `lifeboat schema inventory` says what it may hold."),
        ));
    }
    Ok(if named.is_empty() { inventory.systems.keys().cloned().collect() } else { named })
}

fn code(found: &Health) -> u8 {
    match found.judgement() {
        Judgement::Ok | Judgement::Unknown => 0,
        Judgement::Missed => 3,
        Judgement::Failed => 1,
    }
}

fn print(found: &Health) {
    let terminal = std::io::stdout().is_terminal();
    let columns =
        terminal.then(crossterm::terminal::size).and_then(|size| size.ok()).map(|(columns, _)| columns.into());
    for one in &found.systems {
        println!("{} ({}, {})", one.system, one.kind, one.environment);
        print_facts(&one.facts, columns);
    }
    for one in &found.stores {
        println!("{} (store)", one.store);
        print_facts(&one.facts, columns);
    }
    println!("{}", hanging(&last_word(found), columns, 0));
}

/// Objects in a store are named by whoever may write there: nothing of theirs reaches the terminal as it is.
fn print_facts(facts: &[Fact], columns: Option<usize>) {
    let wide = facts.iter().map(|fact| fact.subject.word().len()).max().unwrap_or(0);
    for fact in facts {
        let line = format!("  {} {:wide$}  {}", sign(fact), fact.subject.word(), fact.says);
        println!("{}", hanging(&line, columns, wide + 6));
    }
    println!();
}

fn sign(fact: &Fact) -> char {
    match fact.judgement {
        Judgement::Ok => '✓',
        Judgement::Unknown => '?',
        Judgement::Missed => '▲',
        Judgement::Failed => '✗',
    }
}

/// What to do.
fn last_word(found: &Health) -> String {
    let wrong: Vec<(&str, &Fact)> = found.facts().filter(|(_, fact)| !fact.is_fine()).collect();
    let names: Vec<&str> = found.systems.iter().map(|one| one.system.as_str()).collect();
    // The worst first, and of those the first that was found.
    let worst = wrong.iter().rev().max_by_key(|(_, fact)| fact.judgement);
    let Some((system, fact)) = worst else {
        let unknown = found.facts().filter(|(_, fact)| fact.judgement == Judgement::Unknown).count();
        let but = match unknown {
            0 => String::new(),
            1 => " (1 thing is unknown)".to_owned(),
            more => format!(" ({more} things are unknown)"),
        };
        return format!("{} could be restored now. Nothing to do.{but}", names.join(" and "));
    };
    let now = fact.now.as_deref().unwrap_or("look at it");
    let more = match wrong.len() - 1 {
        0 => String::new(),
        more => format!(" Then {more} more above."),
    };
    format!("Now, for {system}: {now}.{more}")
}
