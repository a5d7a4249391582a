//! `lifeboat notify`: the way to people, before it is needed.

use std::path::PathBuf;
use std::process::ExitCode;

use futures::future::join_all;

use super::error::{CliError, Kind, Result};
use super::{Session, paths, runtime};
use crate::clock;
use crate::document::{closest, list};
use crate::event::Failure;
use crate::inventory::{self, Inventory, NotifySink};
use crate::notify::{self, Alert, Delivery, Message, Status, deliver};
use crate::secret::Redactor;

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Send a plainly marked test message to each sink, and say what arrived
    Test(TestArgs),
}

#[derive(Debug, clap::Args)]
struct TestArgs {
    /// The inventory [default: lifeboat.toml]
    #[arg(long, short, value_name = "FILE", env = "LIFEBOAT_INVENTORY")]
    inventory: Option<PathBuf>,
    /// Only these sinks
    #[arg(long = "sink", value_name = "NAME")]
    sinks: Vec<String>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

impl Args {
    pub fn json(&self) -> bool {
        let Command::Test(args) = &self.command;
        args.json
    }
}

pub fn run(args: Args) -> Result<ExitCode> {
    let Command::Test(args) = args.command;
    let inventory = inventory::load(&paths::inventory(args.inventory.as_deref())?)?;
    let sinks = chosen(&inventory, &args.sinks)?;
    let redactor = Redactor::default();
    let deliveries = runtime()?.block_on(join_all(sinks.into_iter().map(|sink| test(&inventory, sink, &redactor))));
    let failed = deliveries.iter().filter(|delivery| delivery.failure.is_some()).count();
    if args.json {
        println!("{}", serde_json::json!({ "sinks": deliveries, "failed": failed }));
    } else {
        deliveries.iter().for_each(say);
    }
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn chosen<'a>(inventory: &'a Inventory, names: &[String]) -> Result<Vec<&'a NotifySink>> {
    let known = || inventory.notify.keys().map(String::as_str);
    if inventory.notify.is_empty() {
        return Err(nobody());
    }
    if names.is_empty() {
        return Ok(inventory.notify.values().collect());
    }
    names
        .iter()
        .map(|name| {
            inventory.notify.get(name).ok_or_else(|| {
                let now = closest(name, known()).map_or_else(
                    || format!("The sinks are {}.", list(known(), "and")),
                    |near| format!("Did you mean {near}?"),
                );
                CliError::usage(
                    Failure::new(format!("there is no sink `{name}`"), "the inventory has no such [notify.…]").now(now),
                )
            })
        })
        .collect()
}

/// Where a message stays open until it is resolved, the test is resolved at once.
async fn test(inventory: &Inventory, sink: &NotifySink, redactor: &Redactor) -> Delivery {
    let message = Message::new(Alert::test(&inventory.service, sink), Status::Test, sink);
    let hidden = inventory.secret_variables();
    let delivery = deliver(sink, &message, &hidden, redactor).await;
    if delivery.failure.is_some() || !sink.stays_open() {
        return delivery;
    }
    let over = Message { status: Status::Resolved, ..message };
    let failure = deliver(sink, &over, &hidden, redactor).await.failure;
    Delivery { failure: failure.map(|failure| failure.fails("the test arrived and stays open")), ..delivery }
}

/// Tells the sinks what `source` sees, and says on standard error what they did not take: an error then, as whoever relies on
/// being told would wait in vain.
pub async fn tell(session: &Session, inventory: &Inventory, source: &str, alerts: &[Alert]) -> Result<()> {
    if inventory.notify.is_empty() {
        return Err(nobody());
    }
    let sent = notify::tell(&session.state, inventory, source, alerts, clock::wall_now(), &session.redactor).await;
    let failures: Vec<Failure> =
        sent.map_err(CliError::failed)?.into_iter().filter_map(|delivery| delivery.failure).collect();
    match failures.is_empty() {
        true => Ok(()),
        false => Err(CliError { kind: Kind::Failed, failures, problems: None }),
    }
}

fn nobody() -> CliError {
    CliError::usage(
        Failure::new("there is nobody to tell", "the inventory has no sink").now(
            "Add one: [notify.oncall] with kind = \"slack\", \"email\", \"pagerduty\", \"webhook\" or \"command\".",
        ),
    )
}

fn say(delivery: &Delivery) {
    match &delivery.failure {
        None => println!("✓ {} ({}): delivered", delivery.sink, delivery.kind),
        Some(failure) => {
            println!("✗ {} ({}): {failure}", delivery.sink, delivery.kind);
            failure.now.iter().for_each(|now| println!("  now: {now}"));
        }
    }
}
