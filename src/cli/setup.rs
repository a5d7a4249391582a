//! From arguments to an opening: files loaded, roles bound, secrets looked up, past runs consulted.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::action::is_loopback;
use crate::clock::SystemClock;
use crate::drill::{DrillState, StepStatus};
use crate::engine::{Opening, Unattended};
use crate::event::{Failure, Mode};
use crate::history;
use crate::inventory::{self, Inventory, SystemDetail};
use crate::journal;
use crate::process::find_program;
use crate::runbook::Runbook;
use crate::secret::Redactor;
use crate::system::{postgres, redis};

use super::error::{CliError, Kind, Result};
use super::paths;

/// What a drill is begun with.
pub struct Setup {
    pub runbook: Runbook,
    pub inventory: PathBuf,
    pub state: PathBuf,
    pub systems: BTreeMap<String, String>,
    pub variables: BTreeMap<String, String>,
    pub mode: Mode,
    pub operator: Option<String>,
    pub unattended: Option<Unattended>,
    pub redactor: Redactor,
}

impl Setup {
    pub fn opening(self) -> Result<Opening> {
        let inventory = inventory::load(&self.inventory)?;
        let bindings = inventory::bind(&self.runbook, &inventory, &self.systems)?;
        check_tools(&self.runbook)?;
        check_variables(&self.runbook, &self.variables, self.unattended.is_some())?;
        let addresses = addresses(&inventory, &bindings, &self.redactor)?;
        let expected_seconds = past_durations(&self.state, &self.runbook.id);
        Ok(Opening {
            mode: mode_for(self.mode, &inventory, &bindings, &addresses),
            inventory,
            bindings,
            addresses,
            operator: self.operator.unwrap_or_else(operator),
            host: host(),
            variables: self.variables,
            expected_seconds,
            lifeboat: paths::program()?,
            clock: SystemClock::shared(),
            redactor: self.redactor,
            unattended: self.unattended,
            runbook: self.runbook,
        })
    }
}

/// What it takes to go on with a journal that another process began.
pub fn reopening(
    state: &DrillState,
    inventory_path: &Path,
    unattended: Option<Unattended>,
    redactor: Redactor,
) -> Result<Opening> {
    let inventory = inventory::load(inventory_path)?;
    let bindings: BTreeMap<String, String> =
        state.opening.systems.iter().map(|(role, system)| (role.clone(), system.name.clone())).collect();
    let missing: Vec<Failure> = bindings
        .values()
        .filter(|name| !inventory.systems.contains_key(*name))
        .map(|name| {
            Failure::new(format!("the drill is about {name}"), format!("{} no longer has it", inventory_path.display()))
                .now("Put the system back into the inventory, then resume.")
        })
        .collect();
    if !missing.is_empty() {
        return Err(CliError { kind: Kind::Usage, failures: missing, problems: None });
    }
    let addresses = addresses(&inventory, &bindings, &redactor)?;
    Ok(Opening {
        runbook: (*state.runbook).clone(),
        inventory,
        bindings,
        addresses,
        mode: state.opening.mode,
        operator: operator(),
        host: host(),
        variables: BTreeMap::new(),
        expected_seconds: BTreeMap::new(),
        lifeboat: paths::program()?,
        clock: SystemClock::shared(),
        redactor,
        unattended,
    })
}

/// Where each bound system answers; its secrets are known to the redactor from here on.
fn addresses(
    inventory: &Inventory,
    bindings: &BTreeMap<String, String>,
    redactor: &Redactor,
) -> Result<BTreeMap<String, String>> {
    let mut addresses = BTreeMap::new();
    let mut failures = Vec::new();
    for name in bindings.values() {
        let Some(system) = inventory.systems.get(name) else { continue };
        let found = system.url.resolve().and_then(|url| {
            redactor.learn_url(url.expose());
            let address = match &system.detail {
                SystemDetail::Postgres(_) => postgres::address(&url).map_err(|error| error.to_string()),
                SystemDetail::Redis(_) => redis::address(&url).map_err(|error| error.to_string()),
            };
            address.map_err(|why| Failure::new(format!("the URL of {name} cannot be used"), why))
        });
        match found {
            Ok(address) => {
                addresses.insert(name.clone(), address);
            }
            Err(failure) => failures.push(failure),
        }
    }
    match failures.is_empty() {
        true => Ok(addresses),
        false => Err(CliError { kind: Kind::Usage, failures, problems: None }),
    }
}

/// A drill in which every target is a sandbox's is a sandbox's, whatever was asked for. A sandbox is on this machine: the
/// word alone, in the inventory of a server elsewhere, does not let a run without a person type names.
fn mode_for(
    asked: Mode,
    inventory: &Inventory,
    bindings: &BTreeMap<String, String>,
    addresses: &BTreeMap<String, String>,
) -> Mode {
    let local = |name: &String| {
        let host = addresses.get(name).and_then(|address| address.rsplit_once(':')).map(|(host, _)| host);
        host.is_some_and(|host| host.starts_with('/') || is_loopback(host))
    };
    let sandbox = |name: &String| {
        inventory.systems.get(name).is_some_and(|system| system.environment == "sandbox") && local(name)
    };
    match !bindings.is_empty() && bindings.values().all(sandbox) {
        true => Mode::Sandbox,
        false => asked,
    }
}

fn check_tools(runbook: &Runbook) -> Result<()> {
    let missing: Vec<&str> =
        runbook.tools.iter().map(String::as_str).filter(|tool| find_program(tool).is_none()).collect();
    match missing.is_empty() {
        true => Ok(()),
        false => Err(CliError::usage(
            Failure::new(format!("{} needs {}", runbook.id, missing.join(", ")), "not found on the PATH")
                .now("Install what is missing, then start again."),
        )),
    }
}

fn check_variables(runbook: &Runbook, given: &BTreeMap<String, String>, unattended: bool) -> Result<()> {
    let mut failures: Vec<Failure> = given
        .keys()
        .filter(|name| !runbook.variables.contains_key(*name))
        .map(|name| {
            let known: Vec<&str> = runbook.variables.keys().map(String::as_str).collect();
            Failure::new(format!("{} has no variable `{name}`", runbook.id), "it cannot be given with --var")
                .now(format!("Its variables are: {}.", known.join(", ")))
        })
        .collect();
    for (name, variable) in runbook.variables.iter().filter(|(_, variable)| variable.required && unattended) {
        let value = given.get(name).or(variable.default.as_ref());
        if value.is_none_or(String::is_empty) {
            failures.push(
                Failure::new(format!("{} needs a value for `{name}`", runbook.id), "nobody is there to ask")
                    .now(format!("Pass --var {name}=VALUE.")),
            );
        }
    }
    match failures.is_empty() {
        true => Ok(()),
        false => Err(CliError { kind: Kind::Usage, failures, problems: None }),
    }
}

/// The median duration of each step, in seconds, over the newest finished drills of this runbook.
fn past_durations(state: &Path, runbook: &str) -> BTreeMap<String, f64> {
    const DRILLS: usize = 8;
    let mut all: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    let past = journal::layout::list(state).unwrap_or_default().into_iter().rev();
    let finished = past.filter_map(|dir| {
        // A journal that cannot be read has nothing to say about the future; `verify` is where that is an error.
        let drill = history::fold(&dir.journal()).ok()?;
        (drill.finished.is_some() && drill.runbook.id == runbook).then_some(drill)
    });
    for drill in finished.take(DRILLS) {
        for (step, progress) in drill.runbook.steps.iter().zip(&drill.steps) {
            if progress.status == StepStatus::Passed
                && let Some(duration) = progress.duration(drill.latest.elapsed)
            {
                all.entry(step.id.clone()).or_default().push(duration.as_secs_f64());
            }
        }
    }
    all.into_iter()
        .map(|(step, mut seconds)| {
            seconds.sort_by(f64::total_cmp);
            (step, seconds[seconds.len() / 2])
        })
        .collect()
}

/// Who sits at the terminal.
pub fn operator() -> String {
    let from_environment = ["SUDO_USER", "USER", "LOGNAME"].iter().find_map(|name| std::env::var(name).ok());
    from_environment
        .or_else(|| Some(nix::unistd::User::from_uid(nix::unistd::getuid()).ok()??.name))
        .unwrap_or_else(|| "unknown".to_owned())
}

pub fn host() -> String {
    nix::unistd::gethostname().map_or_else(|_| "unknown".to_owned(), |name| name.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_word_sandbox_is_not_believed_of_a_server_elsewhere() {
        let text = "format = 1\nservice = \"orders\"\n[stores.b]\nurl = \"file:///b\"\n[systems.db]\nkind = \"postgres\"\n\
                    environment = \"sandbox\"\nurl = { env = \"X\" }\nbackups = { engine = \"lifeboat\", store = \"b\" }\n\
                    restore = { directory = \"/r\", port = 5433 }\n";
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        let inventory = inventory::load(file.path()).unwrap_or_else(|problems| panic!("{problems}"));
        let bindings = [("db".to_owned(), "db".to_owned())].into();
        let mode = |address: &str| {
            mode_for(Mode::Incident, &inventory, &bindings, &[("db".to_owned(), address.to_owned())].into())
        };
        assert_eq!(mode("127.0.0.1:5432/orders"), Mode::Sandbox);
        assert_eq!(mode("/run/postgresql:5432/orders"), Mode::Sandbox);
        assert_eq!(mode("db.example:5432/orders"), Mode::Incident);
    }
}
