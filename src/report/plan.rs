//! The disaster-recovery plan: a document out of inventory, runbooks and history, so that it says what is and not what was
//! once meant. It holds references to secrets at most, never one.

mod diagram;
mod gaps;

use std::time::Duration;

use chrono::{DateTime, FixedOffset, Utc};
use minijinja::context;
use minijinja::value::{Serde, Value};
use serde::Serialize;

use super::words::{self, clean};
use super::{ReportError, Zone, render};
use crate::event::Verdict;
use crate::history::{History, Run};
use crate::inventory::{self, BackupEngine, Inventory, KeyPolicy, Schedule, SecretRef, System, SystemDetail};
use crate::runbook::{Runbook, Step, StepKind};

pub(super) const MARKDOWN: &str = include_str!("templates/plan.md.j2");
pub(super) const HTML: &str = include_str!("templates/plan.html.j2");

/// What a plan is made of.
pub struct Sources<'a> {
    pub inventory: &'a Inventory,
    /// All of those that the service has.
    pub runbooks: &'a [Runbook],
    /// Each schedule with its runbook, where that can be read.
    pub schedules: Vec<(&'a Schedule, Option<&'a Runbook>)>,
    pub history: &'a History,
    pub now: DateTime<Utc>,
    pub zone: Zone,
}

/// The document, as data. Durations are in words.
#[derive(Debug, Serialize)]
pub struct Plan {
    pub service: String,
    pub written: String,
    pub inventory: String,
    pub inventory_sha256: String,
    pub lifeboat_version: String,
    pub rto: Option<String>,
    pub rpo: Option<String>,
    pub strategy: Vec<String>,
    pub systems: Vec<Component>,
    pub stores: Vec<Store>,
    pub connections: Vec<Connection>,
    pub thresholds: Vec<Threshold>,
    pub schedules: Vec<Cadence>,
    pub runbooks: Vec<Procedure>,
    pub contacts: Vec<Contact>,
    /// What is not covered, in plain words.
    pub gaps: Vec<String>,
}

#[derive(Debug, Serialize)]
pub struct Component {
    pub name: String,
    pub kind: String,
    pub environment: String,
    /// 1 is restored first: the strictest objectives, without what may be lost.
    pub tier: usize,
    pub rto: String,
    pub rpo: String,
    /// How it is backed up and recovered.
    pub how: String,
    pub store: String,
    pub folder: String,
    pub restored_to: String,
    pub reached_by: String,
    /// What becomes of keys, and why losing it is fine.
    pub policy: Vec<String>,
    /// Names of schedules that back it up.
    pub backed_up_by: Vec<String>,
}

#[derive(Debug, Serialize)]
pub struct Store {
    pub name: String,
    pub url: String,
    pub retain: String,
    pub opened_by: String,
}

#[derive(Debug, Serialize)]
pub struct Connection {
    pub name: String,
    pub file: String,
    pub keys: Vec<String>,
}

#[derive(Debug, Serialize)]
pub struct Threshold {
    pub what: String,
    pub limit: String,
    pub told_by: String,
}

#[derive(Debug, Serialize)]
pub struct Cadence {
    pub name: String,
    pub runbook: String,
    pub cadence: String,
    pub zone: String,
    pub overdue_after: String,
    pub next: String,
}

#[derive(Debug, Serialize)]
pub struct Procedure {
    pub id: String,
    pub title: String,
    pub owner: String,
    pub revision: u32,
    pub sha256: String,
    pub steps: usize,
    pub destroys: Vec<String>,
    /// The newest run that ended.
    pub last: Option<Evidence>,
    pub trend: String,
}

#[derive(Debug, Serialize)]
pub struct Evidence {
    pub drill: String,
    pub at: String,
    pub verdict: String,
    pub passed: bool,
    pub operator: String,
    pub rto: String,
    pub rpo: Vec<String>,
    pub signed: String,
    pub statement_sha256: Option<String>,
}

#[derive(Debug, Serialize)]
pub struct Contact {
    pub role: String,
    pub name: String,
    pub reach: String,
    pub then: String,
}

/// `dr-plan.md` and `dr-plan.html`.
pub fn files(sources: &Sources<'_>) -> Result<[(&'static str, String); 2], ReportError> {
    let plan = plan(sources);
    let drawing = diagram::of(sources.inventory);
    let context = context! {
        p => Value::from(Serde(&plan)),
        diagram => Value::from(Serde(&drawing)),
        mermaid => drawing.mermaid(),
    };
    Ok([("dr-plan.md", render::page("plan.md", &context)?), ("dr-plan.html", render::page("plan.html", &context)?)])
}

pub fn plan(sources: &Sources<'_>) -> Plan {
    let inventory = sources.inventory;
    let moment = |at: DateTime<Utc>| words::moment(at.with_timezone(&(sources.zone)(at)));
    let tiers = tiers(inventory);
    Plan {
        service: clean(&inventory.service),
        written: moment(sources.now),
        inventory: inventory.path.as_ref().map(|path| clean(&path.display().to_string())).unwrap_or_default(),
        inventory_sha256: inventory.digest.to_string(),
        lifeboat_version: env!("CARGO_PKG_VERSION").to_owned(),
        rto: inventory.objectives.rto.map(lasting),
        rpo: inventory.objectives.rpo.map(lasting),
        strategy: strategy(inventory),
        systems: inventory.systems.values().map(|system| component(system, sources, &tiers)).collect(),
        stores: inventory.stores.values().map(store).collect(),
        connections: inventory
            .connections
            .values()
            .map(|connection| Connection {
                name: clean(&connection.name),
                file: clean(&connection.file.display().to_string()),
                keys: connection.keys.iter().map(|(key, system)| clean(&format!("{key}: {system}"))).collect(),
            })
            .collect(),
        thresholds: thresholds(sources),
        schedules: sources
            .schedules
            .iter()
            .map(|(schedule, runbook)| cadence(schedule, *runbook, sources.now))
            .collect(),
        runbooks: sources.runbooks.iter().map(|runbook| procedure(runbook, sources, &moment)).collect(),
        contacts: contacts(sources),
        gaps: gaps::of(sources),
    }
}

fn lasting(duration: Duration) -> String {
    const DAY: u64 = 24 * 3600;
    match duration.as_secs() {
        DAY => "1 day".to_owned(),
        seconds if seconds > 0 && seconds.is_multiple_of(DAY) => format!("{} days", seconds / DAY),
        _ => words::duration(duration.as_secs_f64()),
    }
}

fn or_none(duration: Option<Duration>) -> String {
    duration.map_or_else(|| "none".to_owned(), lasting)
}

/// The stricter of the system's and the service's.
fn objective(own: Option<Duration>, service: Option<Duration>) -> Option<Duration> {
    own.into_iter().chain(service).min()
}

fn is_cache(system: &System) -> Option<&str> {
    match &system.detail {
        SystemDetail::Redis(redis) => redis.cache_only.as_deref(),
        SystemDetail::Postgres(_) => None,
    }
}

/// Pairs of objectives, the strictest first; what may be lost comes last.
fn tiers(inventory: &Inventory) -> Vec<(bool, Duration, Duration)> {
    let mut all: Vec<_> = inventory.systems.values().map(|system| rank(system, inventory)).collect();
    all.sort();
    all.dedup();
    all
}

fn rank(system: &System, inventory: &Inventory) -> (bool, Duration, Duration) {
    let rto = objective(system.rto, inventory.objectives.rto).unwrap_or(Duration::MAX);
    let rpo = objective(system.rpo, inventory.objectives.rpo).unwrap_or(Duration::MAX);
    (is_cache(system).is_some(), rto, rpo)
}

fn strategy(inventory: &Inventory) -> Vec<String> {
    let mut said = vec![
        "Recovery is a restore from backups into new servers beside the old ones; the old ones are fenced first, and \
         nothing is overwritten."
            .to_owned(),
    ];
    let kind = |wanted: &str| inventory.systems.values().filter(|system| system.kind().word() == wanted).count();
    if kind("postgres") > 0 {
        said.push(
            "PostgreSQL is recovered to a moment: a base backup, and the archived WAL up to just before the damage."
                .to_owned(),
        );
    }
    if kind("redis") > 0 {
        said.push(
            "Redis is recovered from a snapshot, or from its append-only file, to the point nearest to the database's."
                .to_owned(),
        );
    }
    said.push(
        "Every recovery, real or rehearsed, is the same runbook; it is timed against RTO and RPO and leaves a report that \
         people sign."
            .to_owned(),
    );
    said
}

/// The new data directory, or what takes its place.
fn restored_to(system: &System) -> String {
    match system.managed() {
        Some(managed) => format!("a new instance of {}", managed.by.title()),
        None => system.restore.directory.display().to_string(),
    }
}

fn component(system: &System, sources: &Sources<'_>, tiers: &[(bool, Duration, Duration)]) -> Component {
    let inventory = sources.inventory;
    let rank = rank(system, inventory);
    let (how, mut policy) = match &system.detail {
        SystemDetail::Postgres(_) if system.managed().is_some() => {
            ("the backups of its cloud, to any second, into a new instance", Vec::new())
        }
        SystemDetail::Postgres(_) => ("base backups and archived WAL, to any moment", Vec::new()),
        SystemDetail::Redis(redis) => {
            let policies = redis.policy.iter().map(|(prefix, policy)| match policy {
                KeyPolicy::Restore => format!("keys {prefix}… are restored"),
                KeyPolicy::Flush => format!("keys {prefix}… are flushed"),
                KeyPolicy::Quarantine => format!("keys {prefix}… are put into quarantine"),
                KeyPolicy::Rebuild(how) => format!("keys {prefix}… are made anew: {how}"),
            });
            ("snapshots and the append-only file", policies.collect())
        }
    };
    policy.extend(is_cache(system).map(|why| format!("a cache only; losing it is fine: {why}")));
    Component {
        name: clean(&system.name),
        kind: system.kind().word().to_owned(),
        environment: clean(&system.environment),
        tier: tiers.iter().position(|tier| *tier == rank).map_or(1, |place| place + 1),
        rto: or_none(objective(system.rto, inventory.objectives.rto)),
        rpo: or_none(objective(system.rpo, inventory.objectives.rpo)),
        how: how.to_owned(),
        store: clean(&system.backups.store),
        folder: clean(&system.backups.prefix),
        restored_to: clean(&restored_to(system)),
        reached_by: reference(&system.url),
        policy: policy.iter().map(|text| clean(text)).collect(),
        backed_up_by: sources
            .schedules
            .iter()
            .filter(|(schedule, runbook)| {
                runbook.is_some_and(|runbook| backs_up(schedule, runbook, inventory, &system.name))
            })
            .map(|(schedule, runbook)| clean(&schedule.name) + &between_full_ones(*runbook, system))
            .collect(),
    }
}

/// When a base backup is a full one, where others are incremental.
fn between_full_ones(runbook: Option<&Runbook>, system: &System) -> String {
    let of = |step: &Step| match step.kind {
        StepKind::PostgresBackup { full_every } => full_every,
        _ => None,
    };
    let own = matches!(system.detail, SystemDetail::Postgres(_)) && system.backups.engine == BackupEngine::Lifeboat;
    let runbook = runbook.filter(|_| own);
    let every = runbook.and_then(|runbook| runbook.steps.iter().find_map(of));
    every.map_or(String::new(), |every| {
        format!(" (incremental; full when the last full one is older than {})", lasting(every))
    })
}

/// Where a secret is, never what it is.
fn reference(secret: &SecretRef) -> String {
    match secret {
        SecretRef::Env(name) => format!("variable {}", clean(name)),
        SecretRef::File(path) => format!("file {}", clean(&path.display().to_string())),
        SecretRef::Command(argv) => format!("output of {}", clean(argv.first().map_or("a program", String::as_str))),
        SecretRef::Plain(_) => "the inventory itself (no password)".to_owned(),
    }
}

/// Whether a scheduled runbook backs a system up.
fn backs_up(schedule: &Schedule, runbook: &Runbook, inventory: &Inventory, system: &str) -> bool {
    does(schedule, runbook, inventory, system, |kind| {
        matches!(kind, StepKind::PostgresBackup { .. } | StepKind::RedisSnapshot { .. })
    })
}

fn does(
    schedule: &Schedule,
    runbook: &Runbook,
    inventory: &Inventory,
    system: &str,
    what: impl Fn(&StepKind) -> bool,
) -> bool {
    let explicit = schedule.systems.clone().into_iter().collect();
    let Ok(bound) = inventory::bind(runbook, inventory, &explicit) else { return false };
    let roles = runbook.steps.iter().filter(|step| what(&step.kind)).filter_map(|step| step.system.as_ref());
    roles.filter_map(|role| bound.get(role)).any(|name| name == system)
}

fn store(store: &inventory::Store) -> Store {
    Store {
        name: clean(&store.name),
        url: clean(&store.url),
        retain: store.retain.map_or_else(|| "no limit is set".to_owned(), lasting),
        opened_by: match &store.keys {
            Some(keys) => keys.references().into_iter().map(reference).collect::<Vec<_>>().join(" and "),
            None if store.url.starts_with("file:") => "the directory's permissions".to_owned(),
            None => "the cloud's usual chain of credentials".to_owned(),
        } + &encrypted(&store.encryption),
    }
}

/// To whom; and where the key is that the restore needs.
fn encrypted(encryption: &inventory::Encryption) -> String {
    let to: Vec<String> = encryption.encrypt_to.iter().map(ToString::to_string).collect();
    let by = encryption.identity.as_ref().map(|identity| format!(", read with {}", reference(identity)));
    match to.is_empty() {
        true => String::new(),
        false => format!("; encrypted to {}{}", to.join(" and "), by.unwrap_or_default()),
    }
}

fn thresholds(sources: &Sources<'_>) -> Vec<Threshold> {
    let inventory = sources.inventory;
    let mut all = Vec::new();
    let mut add = |what: String, limit: String, told_by: &str| {
        all.push(Threshold { what: clean(&what), limit, told_by: told_by.to_owned() });
    };
    for system in inventory.systems.values() {
        if let Some(rpo) = objective(system.rpo, inventory.objectives.rpo) {
            add(format!("{}: age of what could be restored", system.name), lasting(rpo), "lifeboat check");
        }
    }
    if let Some(rto) = inventory.objectives.rto {
        add("recovery time of a drill".to_owned(), lasting(rto), "the drill's verdict, exit code 3");
    }
    for (schedule, _) in &sources.schedules {
        add(format!("{}: late by", schedule.name), lasting(schedule.overdue_after), "lifeboat schedule, exit code 1");
        add(format!("{}: takes longer than", schedule.name), lasting(schedule.timeout), "the scheduler ends it");
    }
    all
}

fn cadence(schedule: &Schedule, runbook: Option<&Runbook>, now: DateTime<Utc>) -> Cadence {
    let there = |at: DateTime<FixedOffset>| at.format("%Y-%m-%d %H:%M %:z").to_string();
    Cadence {
        name: clean(&schedule.name),
        runbook: runbook.map_or_else(|| schedule.runbook.display().to_string(), |runbook| clean(&runbook.title)),
        cadence: clean(&schedule.cadence.written),
        zone: schedule.cadence.zone.clone(),
        overdue_after: lasting(schedule.overdue_after),
        next: schedule.cadence.next(now).map(|at| there(schedule.cadence.local(at))).unwrap_or_default(),
    }
}

/// Runs of a runbook for this service, the newest first.
fn runs<'a>(sources: &'a Sources<'_>, runbook: &'a str) -> impl Iterator<Item = &'a Run> {
    sources.history.runs.iter().filter(move |run| run.runbook == runbook && run.is_of(sources.inventory))
}

fn procedure(runbook: &Runbook, sources: &Sources<'_>, moment: &dyn Fn(DateTime<Utc>) -> String) -> Procedure {
    let all: Vec<&Run> = runs(sources, &runbook.id).filter(|run| run.verdict.is_some()).collect();
    let past: Vec<_> = all.iter().rev().map(|run| (*run).into()).collect();
    Procedure {
        id: runbook.id.clone(),
        title: clean(&runbook.title),
        owner: runbook.owner.as_deref().map_or_else(|| "nobody".to_owned(), clean),
        revision: runbook.revision,
        sha256: runbook.digest.to_string(),
        steps: runbook.steps.len(),
        destroys: runbook.steps.iter().filter_map(|step| step.destroys.as_deref()).map(clean).collect(),
        trend: if past.len() > 1 { super::trend::sentence(&past) } else { String::new() },
        last: all.first().map(|run| evidence(run, moment)),
    }
}

fn evidence(run: &Run, moment: &dyn Fn(DateTime<Utc>) -> String) -> Evidence {
    let of = |took: Option<f64>, target: Option<f64>| match (took, target) {
        (Some(took), Some(target)) => format!("{} of {}", words::duration(took), words::duration(target)),
        (Some(took), None) => words::duration(took),
        (None, _) => "not measured".to_owned(),
    };
    let names = |evidence: &crate::history::Evidence| {
        let by = evidence.signed.iter().map(|by| format!("{} ({})", by.name.as_ref().unwrap_or(&by.key), by.role));
        by.collect::<Vec<_>>().join(", ")
    };
    Evidence {
        drill: clean(&run.drill),
        at: moment(run.started),
        verdict: run.verdict.map_or("under way", Verdict::word).to_owned(),
        passed: run.verdict == Some(Verdict::Passed),
        operator: clean(&run.operator),
        rto: of(run.rto.seconds.filter(|_| run.rto.recovered), run.rto.target_seconds),
        rpo: run
            .rpo
            .iter()
            .map(|rpo| clean(&format!("{}: {}", rpo.system, of(rpo.seconds, rpo.target_seconds))))
            .collect(),
        signed: match &run.evidence {
            None => "no report was written".to_owned(),
            Some(evidence) if !evidence.fits => "its report is not about its journal".to_owned(),
            Some(evidence) if evidence.signed.is_empty() => "unsigned".to_owned(),
            Some(evidence) => clean(&names(evidence)),
        },
        statement_sha256: run.evidence.as_ref().map(|evidence| evidence.statement_sha256.to_string()),
    }
}

fn contacts(sources: &Sources<'_>) -> Vec<Contact> {
    let contacts = &sources.inventory.contacts;
    let contact = |(index, contact): (usize, &crate::runbook::Contact)| Contact {
        role: clean(&contact.role),
        name: clean(&contact.name),
        reach: clean(&contact.phone.iter().chain(&contact.page).cloned().collect::<Vec<_>>().join(", ")),
        then: match (contact.escalate_after, contacts.get(index + 1)) {
            (Some(after), Some(next)) => format!("after {}: {}", lasting(after), clean(&next.name)),
            (Some(after), None) => format!("after {}: nobody is left", lasting(after)),
            (None, _) => String::new(),
        },
    };
    contacts.iter().enumerate().map(contact).collect()
}
