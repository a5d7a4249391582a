//! The same conditions, told by Lifeboat itself.

use super::page::store_error;
use super::rules::rule;
use crate::event::{Failure, Verdict};
use crate::history::Run;
use crate::inventory::{Severity, System};
use crate::notify::Alert;
use crate::recovery::health::{Fact, Health, Judgement, Subject, SystemHealth};

/// A store whose provider was looked at.
const STORE: &str = "LifeboatStoreUnprotected";

/// Everything that is wrong with the systems now.
pub fn alerts(health: &Health) -> Vec<Alert> {
    let of_system = |one: &SystemHealth, fact: &Fact| {
        let name = condition(one, fact);
        Alert {
            name: name.to_owned(),
            service: health.service.clone(),
            environment: one.environment.clone(),
            subject: one.system.clone(),
            severity: rule(name).map_or(Severity::Error, |rule| rule.severity),
            failure: failure(name, fact),
        }
    };
    let systems = health.systems.iter();
    systems.flat_map(|one| causes(one).map(move |fact| of_system(one, fact))).collect()
}

/// What is wrong, without what only follows from it: that everything would be lost says nothing beside why.
fn causes(one: &SystemHealth) -> impl Iterator<Item = &Fact> {
    let follows = |fact: &Fact| fact.subject == Subject::Loss && fact.judgement == Judgement::Failed;
    let has_cause = one.facts.iter().any(|fact| fact.judgement == Judgement::Failed && !follows(fact));
    one.facts.iter().filter(move |fact| !(fact.is_fine() || has_cause && follows(fact)))
}

/// What the providers of the stores do not do, where they were looked at.
pub fn of_stores(health: &Health) -> Vec<Alert> {
    let environment = health.systems.first().map(|one| one.environment.clone()).unwrap_or_default();
    let of_store = |store: &str, fact: &Fact| Alert {
        name: STORE.to_owned(),
        service: health.service.clone(),
        environment: environment.clone(),
        subject: format!("{store} {}", fact.subject.word()),
        severity: if fact.judgement == Judgement::Failed { Severity::Critical } else { Severity::Error },
        failure: failure(STORE, fact),
    };
    let stores = health.stores.iter();
    stores
        .flat_map(|one| one.facts.iter().filter(|fact| !fact.is_fine()).map(|fact| of_store(&one.store, fact)))
        .collect()
}

fn failure(name: &str, fact: &Fact) -> Failure {
    let why = rule(name).map_or_else(String::new, |rule| rule.why.to_owned());
    Failure { what: fact.says.clone(), why, now: fact.now.clone() }
}

fn condition(one: &SystemHealth, fact: &Fact) -> &'static str {
    match (fact.subject, fact.judgement) {
        (Subject::Store, _) if store_error(one) == Some("kms") => "LifeboatKmsFailure",
        (Subject::Store, _) => "LifeboatStorageError",
        (Subject::Clock, _) => "LifeboatClockWrong",
        (Subject::Backup, Judgement::Failed) => "LifeboatBackupMissing",
        (Subject::Backup, _) => "LifeboatBackupTooOld",
        (Subject::Wal, _) => "LifeboatWalGap",
        (Subject::Loss | Subject::Aof, _) if one.kind == "redis" => "LifeboatSnapshotTooOld",
        (Subject::Loss | Subject::Aof, _) => "LifeboatWalLag",
        (Subject::Manifests, _) => "LifeboatBackupDamaged",
        (Subject::Archive, _) => "LifeboatArchiveForeign",
        (Subject::Retention, _) => "LifeboatRetention",
        (Subject::Proof, _) => "LifeboatProofFailed",
        // Of a store, told beside these.
        _ => STORE,
    }
}

/// A proof that was asked for and could not be made.
pub fn of_proof(system: &System, service: &str, failure: Failure) -> Alert {
    Alert {
        name: "LifeboatProofNotMade".to_owned(),
        service: service.to_owned(),
        environment: system.environment.clone(),
        subject: system.name.clone(),
        severity: Severity::Critical,
        failure,
    }
}

/// What is wrong with a run that has ended; nothing when it did what it was to do.
pub fn of_run(run: &Run) -> Option<Alert> {
    let (name, why) = match run.verdict? {
        Verdict::Passed => return None,
        Verdict::ObjectiveMissed => ("LifeboatRtoMissed", "everything is done, but an objective was missed"),
        Verdict::Failed => ("LifeboatJobFailed", "a step failed"),
        Verdict::Aborted => ("LifeboatJobFailed", "somebody ended it"),
        Verdict::NeedsPerson => ("LifeboatJobFailed", "a person is needed"),
    };
    let rule = rule(name)?;
    Some(Alert {
        name: name.to_owned(),
        service: run.service.clone(),
        environment: run.environment.clone(),
        subject: run.runbook.clone(),
        severity: rule.severity,
        failure: Failure::new(format!("{} did not go well", run.title), format!("{why}; drill {}", run.drill))
            .now(rule.now),
    })
}
