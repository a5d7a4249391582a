use std::time::Duration;

use chrono::{DateTime, Utc};
use futures::future::BoxFuture;

use crate::event::{Check, Failure, Outcome, SystemWindow, Window};
use crate::recovery::{self, Wanted};

use super::{Action, Context};

/// `recovery.verify-backups`: could each system be restored to less than its RPO ago?
///
/// A PostgreSQL system needs a base backup and WAL without a gap from it to a segment that is younger than the RPO; a
/// Redis system a snapshot that is younger than the RPO. Facts: `systems`, `broken`.
pub struct VerifyBackups {
    /// Roles.
    pub systems: Vec<String>,
}

impl Action for VerifyBackups {
    fn run(&self, context: Context) -> BoxFuture<'_, Outcome> {
        Box::pin(async move { self.verify(&context).await.unwrap_or_else(Outcome::failed) })
    }
}

impl VerifyBackups {
    async fn verify(&self, context: &Context) -> Result<Outcome, Failure> {
        let bound: Vec<_> = self.systems.iter().filter_map(|role| context.system(role)).collect();
        let names: Vec<String> = bound.iter().map(|system| system.name.clone()).collect();
        let window = recovery::collect(&context.inventory, &names, None).await?;
        let now = context.clock.now().wall;
        let mut outcome = Outcome::passed("");
        for (system, found) in bound.iter().zip(&window.systems) {
            let rpo = system.rpo.or(context.inventory.objectives.rpo).or(context.runbook.objectives.rpo);
            for check in look(&window, found, rpo, now) {
                let sign = if check.passed { "ok" } else { "FAILED" };
                context.sink.say(format!("{sign:<6} {}: {}", check.name, check.detail)).await;
                outcome.checks.push(check);
            }
        }
        let broken: Vec<String> =
            outcome.checks.iter().filter(|c| !c.passed).map(|c| format!("{}: {}", c.name, c.detail)).collect();
        outcome = outcome.fact("systems", names.len()).fact("broken", broken.len());
        if broken.is_empty() {
            outcome.summary = format!("{} could be restored now", names.join(" and "));
            return Ok(outcome);
        }
        let failure = Failure::new("a restore tonight would lose more than it may", broken.join("; "))
            .now("Look at the archiver and at the last backup run; take a backup with the runbook backup-now.");
        Ok(Outcome { facts: outcome.facts, checks: outcome.checks, ..Outcome::failed(failure) })
    }
}

fn look(window: &Window, found: &SystemWindow, rpo: Option<Duration>, now: DateTime<Utc>) -> Vec<Check> {
    let system = found.system();
    let check = |what: &str, passed: bool, detail: String| Check { name: format!("{system} {what}"), passed, detail };
    match found {
        SystemWindow::Postgres { backups, coverage, warnings, .. } => {
            let mut checks = Vec::new();
            match backups.iter().max_by_key(|backup| backup.stopped) {
                Some(newest) => {
                    checks.push(check("base backup", true, format!("{}, {}", newest.label, age(newest.stopped, now))))
                }
                None => checks.push(check("base backup", false, "there is none".to_owned())),
            }
            // The plan for the end of the WAL refuses what cannot be reached: gaps, foreign archives, lost timelines.
            let latest = recovery::plan(window, system, &Wanted::new(crate::event::RecoveryTarget::Latest, true));
            match latest {
                Ok(plan) => {
                    let detail =
                        format!("{} segments without a gap, to {}", plan.restore.segments.len(), plan.restore.end);
                    checks.push(check("WAL", true, detail));
                    let newest = coverage.iter().filter_map(|run| run.to_time).max();
                    checks.push(young(check, "WAL age", newest, rpo, now));
                }
                Err(refusal) => {
                    let failure = Failure::from(refusal);
                    checks.push(check("WAL", false, format!("{}: {}", failure.what, failure.why)));
                }
            }
            checks.extend(warnings.iter().map(|warning| check("archive", false, warning.clone())));
            checks
        }
        SystemWindow::Redis { snapshots, warnings, .. } => {
            let newest = snapshots.iter().map(|snapshot| snapshot.at).max();
            let mut checks = vec![young(check, "snapshot", newest, rpo, now)];
            checks.extend(warnings.iter().map(|warning| check("snapshots", false, warning.clone())));
            checks
        }
    }
}

fn young(
    check: impl Fn(&str, bool, String) -> Check,
    what: &str,
    newest: Option<DateTime<Utc>>,
    rpo: Option<Duration>,
    now: DateTime<Utc>,
) -> Check {
    match (newest, rpo) {
        (None, _) => check(what, false, "there is none".to_owned()),
        (Some(newest), None) => check(what, true, format!("{}; no RPO is set", age(newest, now))),
        (Some(newest), Some(rpo)) => {
            let young = now - newest <= chrono::Duration::from_std(rpo).unwrap_or(chrono::Duration::MAX);
            check(what, young, format!("{}, the RPO is {}", age(newest, now), humantime::format_duration(rpo)))
        }
    }
}

fn age(at: DateTime<Utc>, now: DateTime<Utc>) -> String {
    let seconds = (now - at).num_seconds().max(0).unsigned_abs();
    format!("{} old", humantime::format_duration(Duration::from_secs(seconds)))
}
