//! `lifeboat run`

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use super::attach::{self, Keep};
use super::error::{CliError, Result};
use super::live::{Beside, Live, Outlet};
use super::notify::tell;
use super::setup::Setup;
use super::{Global, Session, paths, runtime};
use crate::clock;
use crate::engine::{Opening, Unattended};
use crate::event::{Failure, Mode};
use crate::history;
use crate::inventory::Inventory;
use crate::journal::DrillDir;
use crate::metrics;
use crate::notify::Alert;
use crate::recovery::prune::prunable;
use crate::runbook::{OnFailure, Runbook, StepKind};

#[derive(Debug, Default, clap::Args)]
pub struct Args {
    /// A runbook: a file, or one that comes with Lifeboat (restore-to-a-point, restore-all, redis-restore,
    /// restore-managed, partial-restore, partial-restore-keys, backup-now, backup-daily, ship-aof, verify-backups,
    /// verify-stores, prune, drill-monthly, game-day)
    #[arg(value_name = "RUNBOOK")]
    pub runbook: PathBuf,
    /// The inventory that it is bound to [default: lifeboat.toml]
    #[arg(long, short, value_name = "FILE", env = "LIFEBOAT_INVENTORY")]
    pub inventory: Option<PathBuf>,
    /// Bind a role of the runbook to a system of the inventory
    #[arg(long = "system", value_name = "ROLE=SYSTEM", value_parser = pair)]
    pub systems: Vec<(String, String)>,
    /// Give a variable its value
    #[arg(long = "var", value_name = "NAME=VALUE", value_parser = pair)]
    pub variables: Vec<(String, String)>,
    /// What it is run for
    #[arg(long, value_enum, default_value = "drill")]
    pub mode: ModeArg,
    /// Who runs it [default: your user name]
    #[arg(long, value_name = "NAME")]
    pub operator: Option<String>,
    /// Why: the words of the declaration
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
    /// Print what would be done, and do nothing
    #[arg(long)]
    pub plan: bool,
    #[command(flatten)]
    pub headless: Headless,
    /// Print one JSON object as the last line
    #[arg(long)]
    pub json: bool,
    /// Tell the inventory's sinks when it fails, and when it succeeds again
    #[arg(long, requires = "headless")]
    pub notify: bool,
    /// Sign the report with this SSH key at the end
    #[arg(long, value_name = "FILE")]
    pub sign_key: Option<PathBuf>,
}

/// Options of a run without a person.
#[derive(Debug, Default, Clone, clap::Args)]
pub struct Headless {
    /// Run to the end without a terminal
    #[arg(long)]
    pub headless: bool,
    /// Say yes where nothing is destroyed (in a sandbox: everywhere)
    #[arg(long)]
    pub yes: bool,
    /// A TOML file with answers: `step-id = "answer"`
    #[arg(long, value_name = "FILE")]
    pub answers: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum ModeArg {
    Incident,
    #[default]
    Drill,
}

impl Headless {
    /// `sandbox`: every target is a sandbox's.
    pub fn unattended(&self, sandbox: bool) -> Result<Option<Unattended>> {
        if !self.headless {
            return match self.yes || self.answers.is_some() {
                true => Err(CliError::usage(
                    Failure::new("--yes and --answers are for a run without a person", "--headless is missing")
                        .now("Add --headless, or leave them out and answer at the terminal."),
                )),
                false => Ok(None),
            };
        }
        let answers = self.answers.as_deref().map(read_answers).transpose()?.unwrap_or_default();
        Ok(Some(Unattended { yes: self.yes, sandbox, answers }))
    }
}

fn pair(text: &str) -> std::result::Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("write it as NAME=VALUE".to_owned()),
    }
}

fn read_answers(path: &Path) -> Result<BTreeMap<String, String>> {
    let bad = |why: String| {
        CliError::usage(
            Failure::new(format!("the answers in {} cannot be used", path.display()), why)
                .now("Write one line a step: step-id = \"answer\"."),
        )
    };
    let text = std::fs::read_to_string(path).map_err(|error| bad(error.to_string()))?;
    toml::from_str(&text).map_err(|error| bad(error.to_string()))
}

pub fn run(global: &Global, args: Args, json: bool) -> Result<ExitCode> {
    let runbook = paths::runbook(&args.runbook)?;
    let session = Session::begin(global)?;
    let setup = Setup {
        inventory: paths::inventory(args.inventory.as_deref())?,
        state: session.state.clone(),
        systems: args.systems.iter().cloned().collect(),
        variables: args.variables.iter().cloned().collect(),
        mode: if args.mode == ModeArg::Incident { Mode::Incident } else { Mode::Drill },
        operator: args.operator.clone(),
        unattended: args.headless.unattended(false)?,
        redactor: session.redactor.clone(),
        runbook,
    };
    let mut opening = setup.opening()?;
    if let Some(unattended) = &mut opening.unattended {
        unattended.sandbox = opening.mode == Mode::Sandbox;
    }
    if args.plan {
        let code = plan(&opening);
        what_would_go(&opening)?;
        return Ok(code);
    }
    let drill = uuid::Uuid::now_v7().to_string();
    let dir = DrillDir::new(&session.state, &drill);
    let outlet = Outlet { json, sign_key: args.sign_key, reason: args.reason };
    let runtime = runtime()?;
    let inventory = args.notify.then(|| opening.inventory.clone());
    runtime.block_on(async {
        let code = begin(global, &session, opening, (dir.clone(), drill), outlet).await;
        let Some(inventory) = inventory else { return code };
        // What became of the run is said first, whoever else can be told.
        let told = tell_outcome(&session, &inventory, &dir).await;
        code.and_then(|code| told.map(|()| code))
    })
}

async fn tell_outcome(session: &Session, inventory: &Inventory, dir: &DrillDir) -> Result<()> {
    let run = history::run(dir).map_err(CliError::failed)?;
    let alerts: Vec<Alert> = metrics::of_run(&run).into_iter().collect();
    tell(session, inventory, &format!("run {}", run.runbook), &alerts).await
}

/// Opens the drill, and runs it where its engine belongs.
pub async fn begin(
    global: &Global,
    session: &Session,
    opening: Opening,
    (dir, drill): (DrillDir, String),
    outlet: Outlet,
) -> Result<ExitCode> {
    let beside = attach::beside(opening.unattended.is_some());
    let keep = opening.inventory.path.clone().map(|inventory| Keep {
        program: opening.lifeboat.clone(),
        inventory,
        operator: opening.operator.clone(),
    });
    let begun = opening
        .begin(dir.clone(), drill)
        .map_err(|error| CliError::failed(Failure::new("the drill could not begin", error).now("Nothing was done.")))?;
    match keep {
        Some(keep) if beside == Beside::Nobody => {
            // The opening is durable; the engine takes it up from there.
            drop(begun);
            attach::start_and_show(global, session, &dir, &keep, outlet).await
        }
        _ => Live::new(global, session, dir, begun, outlet, beside).run().await,
    }
}

/// Says what steps that prune would delete now.
fn what_would_go(opening: &Opening) -> Result<()> {
    let prunes = opening.runbook.steps.iter().filter(|step| matches!(step.kind, StepKind::StorePrune));
    let systems: Vec<&String> = prunes.filter_map(|step| opening.bindings.get(step.system.as_deref()?)).collect();
    if systems.is_empty() {
        return Ok(());
    }
    let runtime = runtime()?;
    println!("\nWhat would go now");
    for system in systems {
        match runtime.block_on(prunable(&opening.inventory, system, clock::wall_now())) {
            Ok(pruning) => show!("  {}", pruning.says()),
            Err(failure) => show!("  {failure}"),
        }
    }
    Ok(())
}

/// Says what would be done, step by step.
fn plan(opening: &Opening) -> ExitCode {
    let runbook: &Runbook = &opening.runbook;
    show!("{}  (revision {}, {})", runbook.title, runbook.revision, runbook.id);
    for (role, system) in &opening.bindings {
        let address = opening.addresses.get(system).map_or("", String::as_str);
        let environment = opening.inventory.systems.get(system).map_or("", |system| system.environment.as_str());
        show!("  {role} is {system} ({environment}) at {address}");
    }
    for phase in &runbook.phases {
        println!();
        show!("{}", phase.title);
        for index in phase.steps.clone() {
            let step = &runbook.steps[index];
            let needs: Vec<&str> = step.after.iter().map(|&i| runbook.steps[i].id.as_str()).collect();
            // After every step before it: the usual, not worth a word.
            let after = if needs.len() == index { String::new() } else { format!("  after {}", needs.join(", ")) };
            show!("  {:<22} {:<22} {}{after}", step.id, step.kind.word(), step.title);
            if let Some(loss) = &step.destroys {
                show!("  {:<22} destroys {loss}; the target's name must be typed", "");
            }
            if let Some(condition) = &step.when {
                show!("  {:<22} only when {condition}", "");
            }
            if step.on_failure != OnFailure::Ask {
                show!("  {:<22} on failure: {:?}", "", step.on_failure);
            }
        }
    }
    ExitCode::SUCCESS
}
