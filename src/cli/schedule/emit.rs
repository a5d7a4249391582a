//! `lifeboat schedule emit`: the schedules of an inventory as systemd units, lines of a crontab, or CronJobs of Kubernetes.
//!
//! No secret is written anywhere: what the inventory takes from the environment or from files, the scheduler takes from
//! where it keeps secrets.

mod cron;
mod kubernetes;
mod systemd;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use crate::cli::error::{CliError, Result};
use crate::cli::{Global, paths};
use crate::clock;
use crate::event::{Failure, Mode};
use crate::inventory::{Inventory, Schedule, SecretRef};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// For which scheduler
    #[arg(value_enum)]
    scheduler: Scheduler,
    /// Write the files here instead of printing them
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// The program that they start [default: this one; in a container /usr/bin/lifeboat]
    #[arg(long, value_name = "FILE")]
    program: Option<PathBuf>,
    /// The user that it runs as, under systemd
    #[arg(long, value_name = "NAME", default_value = "lifeboat")]
    user: String,
    /// The file with the variables that the inventory's references name, under systemd and cron
    #[arg(long, value_name = "FILE")]
    environment_file: Option<PathBuf>,
    /// Who gets the mail of a run that printed something, under cron
    #[arg(long, value_name = "ADDRESS", default_value = "root")]
    mail_to: String,
    /// The image with Lifeboat and the servers in it, under Kubernetes
    #[arg(long, value_name = "IMAGE", default_value = concat!("lifeboat:", env!("CARGO_PKG_VERSION")))]
    image: String,
    /// The namespace, under Kubernetes
    #[arg(long, value_name = "NAME", default_value = "lifeboat")]
    namespace: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Scheduler {
    Systemd,
    Cron,
    Kubernetes,
}

/// Where drills are kept when nothing else is said: not in the home of whoever writes the units.
const STATE: &str = "/var/lib/lifeboat";

/// What all three are made of.
struct Plan<'a> {
    inventory: &'a Inventory,
    args: &'a Args,
    program: PathBuf,
    state: PathBuf,
    secrets: Secrets,
}

/// Where the inventory's secrets come from.
#[derive(Default)]
struct Secrets {
    variables: BTreeSet<String>,
    files: BTreeSet<PathBuf>,
}

impl Secrets {
    fn of(inventory: &Inventory) -> Self {
        let mut found = Self::default();
        for reference in inventory.secrets() {
            match reference {
                SecretRef::Env(name) => drop(found.variables.insert(name.clone())),
                SecretRef::File(path) => drop(found.files.insert(path.clone())),
                SecretRef::Command(_) | SecretRef::Plain(_) => {}
            }
        }
        found
    }
}

impl Plan<'_> {
    /// The arguments of the run, after the program's name.
    fn arguments(&self, schedule: &Schedule, inventory: &Path, runbook: &Path, answers: Option<&Path>) -> Vec<String> {
        let path = |path: &Path| path.display().to_string();
        let mut words = vec!["run".to_owned(), path(runbook)];
        words.extend(["--inventory".to_owned(), path(inventory), "--state-dir".to_owned(), path(&self.state)]);
        words.extend(["--headless", "--yes", "--json", "--mode"].map(str::to_owned));
        words.push(match schedule.mode {
            Mode::Incident => "incident".to_owned(),
            Mode::Drill | Mode::Sandbox => "drill".to_owned(),
        });
        words.extend(["--reason".to_owned(), format!("schedule {}", schedule.name)]);
        for (role, system) in &schedule.systems {
            words.extend(["--system".to_owned(), format!("{role}={system}")]);
        }
        for (name, value) in &schedule.variables {
            words.extend(["--var".to_owned(), format!("{name}={value}")]);
        }
        words.extend(answers.into_iter().flat_map(|file| ["--answers".to_owned(), path(file)]));
        words
    }

    /// On this machine: with the files where they are.
    fn local_arguments(&self, schedule: &Schedule) -> Vec<String> {
        let inventory = self.inventory.path.clone().unwrap_or_default();
        self.arguments(schedule, &inventory, &schedule.runbook, schedule.answers.as_deref())
    }

    fn name(&self, schedule: &Schedule) -> String {
        format!("lifeboat-{}-{}", self.inventory.service, schedule.name)
    }

    /// Directories that a run writes to, apart from its state.
    fn written(&self) -> BTreeSet<PathBuf> {
        let restored = self.inventory.systems.values().map(|system| system.restore.directory.clone());
        // A restored directory is made, and taken away, in the one that holds it.
        let restored = restored.filter_map(|directory| directory.parent().map(Path::to_owned));
        let stores = self.inventory.stores.values().filter_map(|store| store.url.strip_prefix("file://"));
        let stores = stores.map(|rest| PathBuf::from(rest.split('?').next().unwrap_or(rest)));
        let connections = self.inventory.connections.values().filter_map(|file| file.file.parent().map(Path::to_owned));
        restored.chain(stores).chain(connections).collect()
    }
}

pub fn run(global: &Global, inventory: &Inventory, args: &Args) -> Result<ExitCode> {
    if inventory.schedules.is_empty() {
        return Err(CliError::usage(
            Failure::new("this inventory has no schedules", "nothing is to be run by itself")
                .now("Add [[schedules]] with runbook and cadence; `lifeboat schema inventory` says what it may hold."),
        ));
    }
    let program = match (&args.program, args.scheduler) {
        (Some(program), _) => program.clone(),
        (None, Scheduler::Kubernetes) => PathBuf::from("/usr/bin/lifeboat"),
        (None, _) => paths::program()?,
    };
    let state = match &global.state_dir {
        Some(given) => paths::state(Some(given))?,
        None => PathBuf::from(STATE),
    };
    let plan = Plan { inventory, args, program, state, secrets: Secrets::of(inventory) };
    let files = match args.scheduler {
        Scheduler::Systemd => systemd::files(&plan),
        Scheduler::Cron => vec![(format!("lifeboat-{}.crontab", inventory.service), cron::lines(&plan))],
        Scheduler::Kubernetes => vec![(format!("lifeboat-{}.yaml", inventory.service), kubernetes::manifests(&plan))],
    };
    warn(&plan);
    match &args.out {
        None => {
            for (name, text) in &files {
                if files.len() > 1 {
                    println!("# ---- {name}");
                }
                print!("{text}");
            }
        }
        Some(dir) => {
            write(dir, &files).map_err(|error| {
                CliError::failed(Failure::new(format!("cannot write into {}", dir.display()), error))
            })?;
            files.iter().for_each(|(name, _)| println!("{}", dir.join(name).display()));
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn write(dir: &Path, files: &[(String, String)]) -> std::io::Result<()> {
    std::fs::create_dir_all(dir)?;
    files.iter().try_for_each(|(name, text)| std::fs::write(dir.join(name), text))
}

/// What the schedulers do otherwise than one would think.
fn warn(plan: &Plan<'_>) {
    for schedule in &plan.inventory.schedules {
        if plan.args.scheduler == Scheduler::Cron
            && let Some((name, _)) = schedule.variables.iter().find(|(_, value)| value.contains('\n'))
        {
            eprintln!("lifeboat: {}: cron has no line breaks; those in `{name}` became blanks", schedule.name);
        }
        // Cron runs such a job when the clocks have changed.
        if plan.args.scheduler != Scheduler::Cron
            && let Some(at) = schedule.cadence.left_out(clock::wall_now())
        {
            eprintln!(
                "lifeboat: {}: {at} does not exist in {}, and that run is left out; name a time that exists every day",
                schedule.name, schedule.cadence.zone
            );
        }
    }
}
