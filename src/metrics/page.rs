//! A snapshot in Prometheus' text format.
//!
//! The labels of two metrics that a rule compares are the same. Runbooks and systems are as many as the files name; nothing
//! that grows with time (a drill's id, a label of a backup) is a label.

use chrono::{DateTime, Utc};
use prometheus_client::encoding::{EncodeMetric, MetricEncoder, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Registry, Unit};

use super::collect::{Job, Snapshot};
use crate::inventory::Inventory;
use crate::recovery::health::{Fact, Judgement, Subject, SystemHealth};

/// A nightly job and two hours: when a runbook that belongs to the daily ones is overdue, if no schedule says.
const DAILY: f64 = 26.0 * 3600.0;
/// A quarter: how old the newest drill may be, if no schedule says.
const QUARTERLY: f64 = 92.0 * 24.0 * 3600.0;
/// The runbooks that are run daily.
const DAILY_JOBS: [&str; 5] = ["backup-now", "backup-daily", "verify-backups", "verify-stores", "prune"];

type Labels = Vec<(&'static str, String)>;

/// The values of one metric, in the order in which they came.
#[derive(Debug, Default)]
struct Gauges(Vec<(Labels, f64)>);

impl EncodeMetric for Gauges {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> Result<(), std::fmt::Error> {
        for (labels, value) in &self.0 {
            encoder.encode_family(labels)?.encode_gauge(value)?;
        }
        Ok(())
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Gauge
    }
}

struct Page<'a> {
    registry: Registry,
    snapshot: &'a Snapshot,
    inventory: &'a Inventory,
}

/// The whole text.
pub fn page(snapshot: &Snapshot, inventory: &Inventory) -> String {
    let mut page = Page { registry: Registry::with_prefix("lifeboat"), snapshot, inventory };
    page.itself();
    page.backups();
    page.wal();
    page.stores();
    page.jobs();
    page.drills();
    let mut out = String::new();
    // Writing to a string does not fail.
    let _ = text::encode(&mut out, &page.registry);
    out
}

impl Page<'_> {
    fn add(&mut self, name: &str, unit: Option<Unit>, help: &str, values: Vec<(Labels, f64)>) {
        if values.is_empty() {
            return;
        }
        match unit {
            Some(unit) => self.registry.register_with_unit(name, help, unit, Gauges(values)),
            None => self.registry.register(name, help, Gauges(values)),
        }
    }

    /// A value a system that has one.
    fn systems(&mut self, name: &str, unit: Option<Unit>, help: &str, value: impl Fn(&SystemHealth) -> Option<f64>) {
        let service = &self.snapshot.health.service;
        let values = self.snapshot.health.systems.iter();
        let values = values.filter_map(|one| Some((of_system(service, one), value(one)?))).collect();
        self.add(name, unit, help, values);
    }

    fn per_job(&mut self, name: &str, unit: Option<Unit>, help: &str, value: impl Fn(&str, &Job) -> Option<f64>) {
        let jobs = self.snapshot.jobs.iter();
        let values = jobs.filter_map(|(runbook, job)| Some((self.of_runbook(runbook), value(runbook, job)?))).collect();
        self.add(name, unit, help, values);
    }

    fn of_runbook(&self, runbook: &str) -> Labels {
        vec![("service", self.inventory.service.clone()), ("runbook", runbook.to_owned())]
    }

    fn itself(&mut self) {
        let (snapshot, service) = (self.snapshot, vec![("service", self.inventory.service.clone())]);
        let version = vec![("version", env!("CARGO_PKG_VERSION").to_owned())];
        self.add("build_info", None, "The program that looked", vec![(version, 1.0)]);
        let at = vec![(service.clone(), stamp(snapshot.at))];
        self.add("collected_timestamp", Some(Unit::Seconds), "When these values were collected", at);
        let took = vec![(service.clone(), snapshot.took.as_secs_f64())];
        self.add("collect_duration", Some(Unit::Seconds), "How long it took to collect them", took);
        let damaged = vec![(service, snapshot.damaged as f64)];
        self.add("damaged_journals", None, "Journals of drills that cannot be believed", damaged);
    }

    fn backups(&mut self) {
        use Unit::{Bytes, Seconds};
        self.systems(
            "backup_age",
            Some(Seconds),
            "Age of the newest base backup or snapshot when it was looked at",
            |one| Some(one.backup.as_ref()?.age_seconds),
        );
        self.systems(
            "backup_last_success_timestamp",
            Some(Seconds),
            "When the newest base backup or snapshot was complete",
            |one| Some(stamp(one.backup.as_ref()?.ended)),
        );
        self.systems("backup_max_age", Some(Seconds), "How old the newest one may be", |one| Some(one.max_age_seconds));
        self.systems("backup_size", Some(Bytes), "The newest one unpacked", |one| {
            Some(one.backup.as_ref()?.bytes as f64)
        });
        self.systems("backup_stored", Some(Bytes), "The newest one as it is stored", |one| {
            Some(one.backup.as_ref()?.stored_bytes as f64)
        });
        self.systems("backup_objects", None, "Objects of the newest one", |one| {
            Some(one.backup.as_ref()?.objects as f64)
        });
        self.systems(
            "backup_tested_timestamp",
            Some(Seconds),
            "When the newest one was last restored to prove it; absent when it never was",
            |one| Some(stamp(one.backup.as_ref()?.tested_at?)),
        );
        self.systems(
            "recoverable_timestamp",
            Some(Seconds),
            "The newest moment that can be recovered, as the store tells it",
            |one| one.recoverable_to.map(stamp),
        );
        self.systems("loss", Some(Seconds), "What would be lost if the system were lost now", |one| one.loss_seconds);
        self.systems("rpo_target", Some(Seconds), "What may be lost at most, by the inventory", |one| one.rpo_seconds);
        let service = &self.snapshot.health.service;
        let mut judged = Vec::new();
        for one in &self.snapshot.health.systems {
            for fact in &one.facts {
                let mut labels = of_system(service, one);
                labels.push(("subject", word(fact.subject)));
                judged.push((labels, judgement(fact)));
            }
        }
        let help = "What `lifeboat check` says: 0 ok, 1 unknown, 2 an objective is missed, 3 a restore would fail";
        self.add("check_judgement", None, help, judged);
    }

    fn wal(&mut self) {
        use Unit::{Bytes, Seconds};
        self.systems(
            "wal_lag",
            Some(Seconds),
            "Since the newest segment was archived; an idle server archives none",
            |one| one.wal.as_ref()?.lag_seconds,
        );
        self.systems("wal_lag", Some(Bytes), "WAL that the server has and the archive has not", |one| {
            Some(one.wal.as_ref()?.lag_bytes? as f64)
        });
        self.systems("wal_gaps", None, "Gaps in the whole archive", |one| Some(one.wal.as_ref()?.gaps as f64));
        self.systems("wal_segments", None, "Segments without a gap from the newest base backup on", |one| {
            Some(one.wal.as_ref()?.segments as f64)
        });
        self.systems("snapshot_lag", Some(Seconds), "Redis: age of the newest moment that is saved", |one| {
            one.loss_seconds.filter(|_| one.kind == "redis")
        });
        self.systems(
            "aof_age",
            Some(Seconds),
            "Redis: age of the newest command in a shipped append-only file",
            |one| Some(one.aof.as_ref()?.age_seconds),
        );
    }

    fn stores(&mut self) {
        use Unit::{Bytes, Seconds};
        // Of a store that cannot be looked at nothing is known, least of all that it is empty.
        let seen = |one: &SystemHealth| store_error(one).is_none();
        self.systems("stored", Some(Bytes), "All that the system has in its store", |one| {
            seen(one).then_some(one.stored.bytes as f64)
        });
        self.systems("stored_objects", None, "Objects that the system has in its store", |one| {
            seen(one).then_some(one.stored.objects as f64)
        });
        self.systems("spare", Some(Bytes), "What is older than the retention asks for", |one| {
            seen(one).then_some(one.retention.spare.bytes as f64)
        });
        self.systems("retention", Some(Seconds), "How long backups are kept, by the inventory", |one| {
            one.retention.retain_seconds
        });
        self.systems("oldest_recoverable_timestamp", Some(Seconds), "The oldest moment that can be recovered", |one| {
            one.retention.from.map(stamp)
        });
        let service = &self.snapshot.health.service;
        let mut errors = Vec::new();
        for one in &self.snapshot.health.systems {
            let found = store_error(one);
            for cause in ["kms", "other"] {
                let mut labels = of_system(service, one);
                labels.push(("cause", cause.to_owned()));
                errors.push((labels, f64::from(u8::from(found == Some(cause)))));
            }
        }
        let help = "1 when the store could not be looked at; cause is kms when its answer names the key service";
        self.add("store_error", None, help, errors);
        let mut judged = Vec::new();
        for one in &self.snapshot.health.stores {
            for fact in &one.facts {
                let store = ("store", one.store.clone());
                judged.push((
                    vec![("service", service.clone()), store, ("subject", word(fact.subject))],
                    judgement(fact),
                ));
            }
        }
        let help =
            "What `lifeboat check --protection` says of a store, in the same numbers; absent without --protection";
        self.add("store_judgement", None, help, judged);
    }

    fn jobs(&mut self) {
        use Unit::Seconds;
        self.per_job("job_last_run_timestamp", Some(Seconds), "When the newest run began", |_, job| {
            Some(stamp(job.last.started))
        });
        self.per_job(
            "job_last_success_timestamp",
            Some(Seconds),
            "When the newest run that did all it had to ended",
            |_, job| job.last_success.as_ref()?.ended.map(stamp),
        );
        self.per_job("job_duration", Some(Seconds), "How long the newest run took, or has taken so far", |_, job| {
            Some(job.last.seconds)
        });
        self.per_job("job_running", None, "1 while the newest run has not ended", |_, job| {
            Some(f64::from(u8::from(job.last.ended.is_none())))
        });
        self.per_job("job_success", None, "1 when the newest run that ended did all it had to", |_, job| {
            job.last.ended.map(|_| f64::from(u8::from(job.last.is_good())))
        });
        let deadlines = self.snapshot.deadlines.clone();
        // The rule adds it to the end of that success.
        self.per_job("job_max_age", Some(Seconds), "How long ago the newest success may be", move |runbook, job| {
            let scheduled = deadlines.get(runbook).zip(job.last_success.as_ref()?.ended);
            let scheduled = scheduled.map(|(late, ended)| (*late - ended).as_seconds_f64());
            scheduled.or_else(|| DAILY_JOBS.contains(&runbook).then_some(DAILY))
        });
    }

    fn drills(&mut self) {
        use Unit::Seconds;
        self.per_job(
            "drill_last_success_timestamp",
            Some(Seconds),
            "When the newest drill that recovered the service ended",
            |_, job| job.drill.as_ref()?.ended.map(stamp),
        );
        let deadlines = self.snapshot.deadlines.clone();
        self.per_job("drill_max_age", Some(Seconds), "How long ago the newest drill may be", move |runbook, job| {
            let ended = job.drill.as_ref()?.ended;
            let scheduled = deadlines.get(runbook).zip(ended).map(|(late, ended)| (*late - ended).as_seconds_f64());
            Some(scheduled.unwrap_or(QUARTERLY))
        });
        self.per_job("drill_rto", Some(Seconds), "Declaration to recovery in the newest drill", |_, job| {
            job.drill.as_ref()?.rto.seconds
        });
        self.per_job("drill_rto_target", Some(Seconds), "Its RTO", |_, job| job.drill.as_ref()?.rto.target_seconds);
        self.per_job("drill_success", None, "1 when the newest drill met its objectives", |_, job| {
            let passed = job.drill.as_ref()?.verdict == Some(crate::event::Verdict::Passed);
            Some(f64::from(u8::from(passed)))
        });
        for (name, help, target) in [
            ("drill_rpo", "History that the newest drill gave up, measured from the recovered data", false),
            ("drill_rpo_target", "What it might have given up at most", true),
        ] {
            let mut values = Vec::new();
            for (runbook, job) in &self.snapshot.jobs {
                for rpo in job.drill.iter().flat_map(|drill| &drill.rpo) {
                    let mut labels = self.of_runbook(runbook);
                    labels.push(("system", rpo.system.clone()));
                    let value = if target { rpo.target_seconds } else { rpo.seconds };
                    values.extend(value.map(|value| (labels, value)));
                }
            }
            self.add(name, Some(Seconds), help, values);
        }
    }
}

fn of_system(service: &str, one: &SystemHealth) -> Labels {
    vec![
        ("service", service.to_owned()),
        ("environment", one.environment.clone()),
        ("system", one.system.clone()),
        ("kind", one.kind.to_owned()),
    ]
}

fn judgement(fact: &Fact) -> f64 {
    match fact.judgement {
        Judgement::Ok => 0.0,
        Judgement::Unknown => 1.0,
        Judgement::Missed => 2.0,
        Judgement::Failed => 3.0,
    }
}

fn word(subject: Subject) -> String {
    subject.word().to_lowercase()
}

/// Why the store could not be looked at: `kms` or `other`.
pub(super) fn store_error(one: &SystemHealth) -> Option<&'static str> {
    let fact = one.facts.iter().find(|fact| fact.subject == Subject::Store && !fact.is_fine())?;
    Some(if fact.says.to_lowercase().contains("kms") { "kms" } else { "other" })
}

/// Seconds since 1970.
fn stamp(at: DateTime<Utc>) -> f64 {
    at.timestamp_micros() as f64 / 1e6
}
