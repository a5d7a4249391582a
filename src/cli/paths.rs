//! Where things are: state, the runbooks that come with the program, this program itself.

use std::path::{Path, PathBuf};

use etcetera::{BaseStrategy, choose_base_strategy};

use super::error::{CliError, Result};
use crate::event::Failure;
use crate::runbook::{self, Runbook};

/// The runbooks that come with the program: file name and text.
pub const SHIPPED: &[(&str, &str)] = &[
    ("restore-to-a-point.toml", include_str!("../../runbooks/restore-to-a-point.toml")),
    ("redis-restore.toml", include_str!("../../runbooks/redis-restore.toml")),
    ("ship-aof.toml", include_str!("../../runbooks/ship-aof.toml")),
    ("backup-now.toml", include_str!("../../runbooks/backup-now.toml")),
    ("backup-daily.toml", include_str!("../../runbooks/backup-daily.toml")),
    ("partial-restore.toml", include_str!("../../runbooks/partial-restore.toml")),
    ("partial-restore-keys.toml", include_str!("../../runbooks/partial-restore-keys.toml")),
    ("restore-all.toml", include_str!("../../runbooks/restore-all.toml")),
    ("prune.toml", include_str!("../../runbooks/prune.toml")),
    ("drill-monthly.toml", include_str!("../../runbooks/drill-monthly.toml")),
    ("verify-backups.toml", include_str!("../../runbooks/verify-backups.toml")),
    ("verify-stores.toml", include_str!("../../runbooks/verify-stores.toml")),
    ("restore-managed.toml", include_str!("../../runbooks/restore-managed.toml")),
    ("game-day.toml", include_str!("../../runbooks/game-day.toml")),
];

/// `--state-dir`, else the XDG state directory.
pub fn state(given: Option<&Path>) -> Result<PathBuf> {
    if let Some(given) = given {
        return std::path::absolute(given)
            .map_err(|error| CliError::usage(Failure::new(format!("cannot use {}", given.display()), error)));
    }
    let strategy = choose_base_strategy().map_err(|error| {
        CliError::usage(
            Failure::new("cannot tell where to keep state", error).now("Pass --state-dir DIR, or set HOME."),
        )
    })?;
    let base = strategy.state_dir().unwrap_or_else(|| strategy.data_dir());
    Ok(base.join("lifeboat"))
}

/// A runbook by path, or a shipped one by its file's name with or without `.toml`.
pub fn runbook(given: &Path) -> Result<Runbook> {
    if given.exists() {
        return Ok(runbook::load(given)?);
    }
    let name = given.to_string_lossy();
    let shipped = SHIPPED.iter().find(|(file, _)| *file == name || file.strip_suffix(".toml") == Some(&name));
    match shipped {
        Some((file, source)) => Ok(runbook::parse(source, file)?),
        None => {
            let names: Vec<&str> = SHIPPED.iter().map(|(file, _)| file.trim_end_matches(".toml")).collect();
            Err(CliError::usage(
                Failure::new(format!("there is no runbook {}", given.display()), "no such file")
                    .now(format!("Give the path of a runbook, or one that comes with Lifeboat: {}.", names.join(", "))),
            ))
        }
    }
}

/// This program, for the `archive_command` and `restore_command` of servers: `LIFEBOAT_PROGRAM` where the checkout
/// cannot be read by the user that servers run as, else the running executable.
pub fn program() -> Result<PathBuf> {
    if let Some(program) = std::env::var_os("LIFEBOAT_PROGRAM") {
        return Ok(program.into());
    }
    std::env::current_exe()
        .map_err(|error| CliError::failed(Failure::new("cannot find this program's own file", error)))
}

/// The inventory: `--inventory`, else `lifeboat.toml` here.
pub fn inventory(given: Option<&Path>) -> Result<PathBuf> {
    let path = given.map_or_else(|| PathBuf::from("lifeboat.toml"), Path::to_owned);
    if !path.exists() {
        return Err(CliError::usage(
            Failure::new(format!("there is no inventory {}", path.display()), "no such file").now(
                "Pass --inventory FILE, or write lifeboat.toml here; `lifeboat schema inventory` says what it may hold.",
            ),
        ));
    }
    std::path::absolute(&path)
        .map_err(|error| CliError::usage(Failure::new(format!("cannot use {}", path.display()), error)))
}
