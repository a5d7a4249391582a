//! `lifeboat plan-document`: the disaster-recovery plan, out of what is.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use super::error::{CliError, Result};
use super::{Global, history, paths};
use crate::clock;
use crate::event::Failure;
use crate::inventory;
use crate::report;
use crate::report::plan::{self, Sources};
use crate::runbook::{self, Runbook};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The inventory [default: lifeboat.toml]
    #[arg(long, short, value_name = "FILE", env = "LIFEBOAT_INVENTORY")]
    inventory: Option<PathBuf>,
    /// The runbooks of the service [default: the folder `runbooks` beside the inventory, else those that come with Lifeboat]
    #[arg(long, value_name = "DIR")]
    runbooks: Option<PathBuf>,
    /// Write dr-plan.md and dr-plan.html here instead of printing one of them
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// One of the two only; what is printed is Markdown when nothing is said
    #[arg(long, value_enum)]
    format: Option<Format>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    Md,
    Html,
}

pub fn run(global: &Global, args: Args) -> Result<ExitCode> {
    let path = paths::inventory(args.inventory.as_deref())?;
    let inventory = inventory::load(&path)?;
    let runbooks = runbooks(args.runbooks.as_deref(), path.parent().unwrap_or(Path::new("")))?;
    let history = history::read(&paths::state(global.state_dir.as_deref())?)?;
    let scheduled: Vec<Option<Runbook>> =
        inventory.schedules.iter().map(|schedule| paths::runbook(&schedule.runbook).ok()).collect();
    let sources = Sources {
        inventory: &inventory,
        runbooks: &runbooks,
        schedules: inventory.schedules.iter().zip(scheduled.iter().map(Option::as_ref)).collect(),
        history: &history,
        now: clock::wall_now(),
        zone: report::local_zone,
    };
    let files = plan::files(&sources).map_err(|error| CliError::failed(error.failure()))?;
    let wanted = |name: &str, format: Option<Format>| match format {
        None => true,
        Some(Format::Md) => name.ends_with(".md"),
        Some(Format::Html) => name.ends_with(".html"),
    };
    let Some(dir) = args.out else {
        let format = args.format.or(Some(Format::Md));
        files.iter().filter(|(name, _)| wanted(name, format)).for_each(|(_, text)| print!("{text}"));
        return Ok(ExitCode::SUCCESS);
    };
    let failed = |error| CliError::failed(Failure::new(format!("cannot write into {}", dir.display()), error));
    std::fs::create_dir_all(&dir).map_err(failed)?;
    for (name, text) in files.iter().filter(|(name, _)| wanted(name, args.format)) {
        std::fs::write(dir.join(name), text).map_err(failed)?;
        println!("{}", dir.join(name).display());
    }
    Ok(ExitCode::SUCCESS)
}

/// Every runbook of a folder, which must all be whole; or those that come with the program.
fn runbooks(given: Option<&Path>, base: &Path) -> Result<Vec<Runbook>> {
    let beside = base.join("runbooks");
    let Some(dir) = given.or_else(|| beside.is_dir().then_some(beside.as_path())) else {
        let shipped = paths::SHIPPED.iter().map(|(name, text)| Ok(runbook::parse(text, name)?));
        return shipped.collect();
    };
    let entries = std::fs::read_dir(dir).map_err(|error| {
        CliError::usage(Failure::new(format!("cannot look into {}", dir.display()), error).now("Pass --runbooks DIR."))
    })?;
    let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "toml"));
    files.sort();
    files.iter().map(|path| Ok(runbook::load(path)?)).collect()
}
