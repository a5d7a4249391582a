//! Roles of a runbook → systems of an inventory.

use std::collections::BTreeMap;
use std::fmt;

use super::Inventory;
use crate::document::{closest, list};
use crate::event::Failure;
use crate::runbook::{NotifyTo, Runbook, StepKind, placeholders};

/// Everything that keeps a runbook from being run on an inventory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unbound {
    pub failures: Vec<Failure>,
}

impl fmt::Display for Unbound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, failure) in self.failures.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            write!(f, "{failure}")?;
            if let Some(now) = &failure.now {
                write!(f, "\n  {now}")?;
            }
        }
        Ok(())
    }
}

impl std::error::Error for Unbound {}

/// Role → name of a system. What `explicit` says wins; then a system that is called as the role; then the only system of
/// its kind. Also checks what the steps name in the inventory.
pub fn bind(
    runbook: &Runbook,
    inventory: &Inventory,
    explicit: &BTreeMap<String, String>,
) -> Result<BTreeMap<String, String>, Unbound> {
    let mut failures = Vec::new();
    let mut bindings = BTreeMap::new();
    for role in explicit.keys().filter(|role| !runbook.systems.contains_key(*role)) {
        let roles = list(runbook.systems.keys().map(String::as_str), "and");
        let failure = Failure::new(format!("cannot bind `{role}`"), format!("`{}` has no such role", runbook.id));
        failures.push(if roles.is_empty() { failure } else { failure.now(format!("its roles are {roles}")) });
    }
    for role in runbook.systems.keys() {
        match bind_role(role, runbook, inventory, explicit.get(role)) {
            Ok(system) => {
                bindings.insert(role.clone(), system);
            }
            Err(failure) => failures.push(failure),
        }
    }
    check_connections(runbook, inventory, &bindings, &mut failures);
    check_sinks(runbook, inventory, &mut failures);
    if failures.is_empty() { Ok(bindings) } else { Err(Unbound { failures }) }
}

fn bind_role(
    role: &str,
    runbook: &Runbook,
    inventory: &Inventory,
    explicit: Option<&String>,
) -> Result<String, Failure> {
    let kind = runbook.systems[role];
    let fitting: Vec<&str> =
        inventory.systems.values().filter(|system| system.kind() == kind).map(|system| system.name.as_str()).collect();
    let what = format!("cannot bind the role `{role}`");
    let choices = || match fitting.as_slice() {
        [] => format!("declare a {} system in the inventory", kind.word()),
        fitting => format!("choose {}: --system {role}={}", list(fitting.iter().copied(), "or"), fitting[0]),
    };
    if let Some(name) = explicit {
        return match inventory.systems.get(name) {
            Some(system) if system.kind() == kind => Ok(name.clone()),
            Some(system) => {
                let why = format!("`{name}` is {}, and the role wants {}", system.kind().word(), kind.word());
                Err(Failure::new(what, why).now(choices()))
            }
            None => {
                let near = closest(name, inventory.systems.keys().map(String::as_str));
                let now = near.map_or_else(choices, |near| format!("did you mean `{near}`?"));
                Err(Failure::new(what, format!("the inventory has no system `{name}`")).now(now))
            }
        };
    }
    if fitting.contains(&role) {
        return Ok(role.to_owned());
    }
    match fitting.as_slice() {
        [only] => Ok((*only).to_owned()),
        [] => Err(Failure::new(what, format!("the inventory has no {} system", kind.word())).now(choices())),
        several => {
            let why = format!("{} systems of the inventory are {}", several.len(), kind.word());
            Err(Failure::new(what, why).now(choices()))
        }
    }
}

/// The same for the sinks of `notify` steps.
fn check_sinks(runbook: &Runbook, inventory: &Inventory, failures: &mut Vec<Failure>) {
    for step in &runbook.steps {
        let StepKind::Notify { to: NotifyTo::Sink(sink), .. } = &step.kind else { continue };
        let known = |name: &str| (name == "service").then(|| inventory.service.clone());
        let Ok(name) = placeholders::expand(sink, known) else { continue };
        if inventory.notify.contains_key(&name) {
            continue;
        }
        let what = format!("step `{}` cannot tell anybody", step.id);
        let names = list(inventory.notify.keys().map(String::as_str), "and");
        let failure = Failure::new(what, format!("the inventory has no [notify.{name}]"));
        failures.push(match names.is_empty() {
            true => failure.now(format!("add [notify.{name}] with its kind")),
            false => failure.now(format!("it has {names}")),
        });
    }
}

/// Steps name connection files by text; what can be known before the start is checked before the start.
fn check_connections(
    runbook: &Runbook,
    inventory: &Inventory,
    bindings: &BTreeMap<String, String>,
    failures: &mut Vec<Failure>,
) {
    for step in &runbook.steps {
        let StepKind::CutoverConnections { connections, systems } = &step.kind else { continue };
        let known = |name: &str| match name {
            "service" => Some(inventory.service.clone()),
            role => bindings.get(role).cloned(),
        };
        // A variable gets its value at the start; the step itself checks such a name again.
        let Ok(name) = placeholders::expand(connections, known) else { continue };
        let what = format!("step `{}` cannot cut over", step.id);
        let Some(found) = inventory.connections.get(&name) else {
            let names = list(inventory.connections.keys().map(String::as_str), "and");
            let failure = Failure::new(what, format!("the inventory has no [connections.{name}]"));
            failures.push(match names.is_empty() {
                true => failure.now(format!("add [connections.{name}] with file and keys")),
                false => failure.now(format!("it has {names}")),
            });
            continue;
        };
        for system in systems.iter().filter_map(|role| bindings.get(role)) {
            if !found.keys.values().any(|named| named == system) {
                let why = format!("no key of [connections.{name}] holds the URL of `{system}`");
                failures.push(Failure::new(what.clone(), why).now(format!("add it to its keys: key = \"{system}\"")));
            }
        }
    }
}
