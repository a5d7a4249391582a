//! `lifeboat lint` and `lifeboat schema`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use super::error::{CliError, Result};
use crate::document::{self, Look, Problems};
use crate::event::Failure;
use crate::{inventory, runbook};

#[derive(Debug, clap::Args)]
pub struct LintArgs {
    /// Runbooks and inventories; which is which is told by what they say
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, clap::Args)]
pub struct SchemaArgs {
    #[arg(value_enum, default_value = "runbook")]
    of: Of,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Of {
    Runbook,
    Inventory,
}

pub fn schema(args: SchemaArgs) -> Result<ExitCode> {
    let schema = match args.of {
        Of::Runbook => runbook::schema(),
        Of::Inventory => inventory::schema(),
    };
    println!("{schema:#}");
    Ok(ExitCode::SUCCESS)
}

pub fn lint(args: LintArgs) -> Result<ExitCode> {
    let mut all = Vec::new();
    for file in &args.files {
        all.push(look_at(file)?);
    }
    let errors: usize = all.iter().map(|problems| problems.errors()).sum();
    if args.json {
        println!("{}", serde_json::json!({ "files": all, "errors": errors }));
    } else {
        let colour = std::io::IsTerminal::is_terminal(&std::io::stdout()) && std::env::var_os("NO_COLOR").is_none();
        for problems in &all {
            match problems.list.is_empty() {
                true => println!("{}: no problem", problems.file),
                false => print!("{}", problems.render(&Look { colour, ..Look::default() })),
            }
        }
    }
    Ok(if errors == 0 { ExitCode::SUCCESS } else { ExitCode::from(2) })
}

fn look_at(file: &Path) -> Result<Problems> {
    let name = file.display().to_string();
    let source = document::read(file)?;
    if is_inventory(&source) {
        let base = std::path::absolute(file)
            .map_err(|error| CliError::usage(Failure::new(format!("cannot use {name}"), error)))?;
        let base = base.parent().unwrap_or(Path::new("/"));
        return Ok(inventory::lint(&source, &name, base).1);
    }
    Ok(runbook::lint(&source, &name).1)
}

/// An inventory names its service at the top level; a runbook has phases.
fn is_inventory(source: &str) -> bool {
    let top = source.lines().map(str::trim_start).take_while(|line| !line.starts_with('['));
    let mut has_service = false;
    for line in top {
        has_service |= line.starts_with("service");
    }
    has_service && !source.contains("[[phases")
}
