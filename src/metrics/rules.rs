//! What is alarming: the conditions, as rules for Prometheus, as pages that say what to do, and as the names of the alerts
//! that Lifeboat sends itself.
//!
//! Thresholds are metrics, made from the inventory, so that a rule never has to be edited.

use std::fmt::Write as _;

use crate::inventory::Severity;

/// One condition.
pub struct Rule {
    pub alert: &'static str,
    pub severity: Severity,
    /// True while it is wrong.
    pub expr: &'static str,
    /// How long it has to be wrong before somebody is told.
    pub hold: &'static str,
    /// One line; labels as Prometheus' templates spell them.
    pub summary: &'static str,
    /// What it means.
    pub why: &'static str,
    pub now: &'static str,
}

/// The default for [`yaml`]: the page of `lifeboat serve-metrics` itself, where it is what Prometheus scrapes.
pub const PAGES: &str = "http://{{ $labels.instance }}/runbooks/{alert}";

const OF_SYSTEM: &str = "{{ $labels.service }} {{ $labels.environment }} {{ $labels.system }}";

pub const RULES: &[Rule] = &[
    Rule {
        alert: "LifeboatBackupMissing",
        severity: Severity::Critical,
        expr: r#"lifeboat_check_judgement{subject="backup"} == 3"#,
        hold: "5m",
        summary: "there is no backup: nothing can be restored",
        why: "The store has no whole base backup or snapshot of the system.",
        now: "Run `lifeboat run backup-now`, then find out why no backup was taken: `lifeboat drills`, the scheduler's log.",
    },
    Rule {
        alert: "LifeboatBackupTooOld",
        severity: Severity::Error,
        expr: "time() - lifeboat_backup_last_success_timestamp_seconds > lifeboat_backup_max_age_seconds",
        hold: "5m",
        summary: "the newest backup is {{ $value | humanizeDuration }} old",
        why: "It is older than `max_age` of the system's backups in the inventory. A restore replays more WAL and takes longer; Redis loses more.",
        now: "Run `lifeboat run backup-now`, then find out why the schedule did not: `lifeboat drills`, the scheduler's log.",
    },
    Rule {
        alert: "LifeboatWalGap",
        severity: Severity::Critical,
        expr: r#"lifeboat_check_judgement{subject="wal"} == 3"#,
        hold: "5m",
        summary: "WAL is missing behind the newest base backup",
        why: "What was committed after the gap cannot be recovered.",
        now: "Run `lifeboat run backup-now`: a new base backup needs nothing from before it. Then `lifeboat points` shows the gap; find out what deleted the segments or did not archive them.",
    },
    Rule {
        alert: "LifeboatWalGapInHistory",
        severity: Severity::Warning,
        expr: "lifeboat_wal_gaps > 0",
        hold: "15m",
        summary: "the archive has {{ $value }} gaps",
        why: "Points in time behind such a gap, up to the next base backup, cannot be recovered.",
        now: "`lifeboat points` shows which. If another copy of those segments exists, put it back into the archive.",
    },
    Rule {
        alert: "LifeboatWalLag",
        severity: Severity::Error,
        expr: r#"lifeboat_loss_seconds{kind="postgres"} > lifeboat_rpo_target_seconds"#,
        hold: "5m",
        summary: "{{ $value | humanizeDuration }} of commits are not in the archive, more than the RPO",
        why: "If the server were lost now, they would be lost with it.",
        now: "Look at the server's log: archive_command fails or lags, and its disk fills meanwhile. `lifeboat check` says how far behind it is.",
    },
    Rule {
        alert: "LifeboatWalBacklog",
        severity: Severity::Warning,
        expr: "lifeboat_wal_lag_bytes > 1073741824",
        hold: "15m",
        summary: "{{ $value | humanize1024 }}B of WAL are not archived",
        why: "64 segments and more wait in pg_wal. When that disk is full the server stops.",
        now: "Look at the server's log and at pg_stat_archiver: archive_command fails or is too slow.",
    },
    Rule {
        alert: "LifeboatSnapshotTooOld",
        severity: Severity::Error,
        expr: r#"lifeboat_snapshot_lag_seconds{kind="redis"} > lifeboat_rpo_target_seconds"#,
        hold: "5m",
        summary: "the newest moment that is saved is {{ $value | humanizeDuration }} old, more than the RPO",
        why: "If the server were lost now, what was written since would be lost.",
        now: "Run `lifeboat run backup-now`; for less loss run `ship-aof` every minute, or snapshots more often.",
    },
    Rule {
        alert: "LifeboatJobFailed",
        severity: Severity::Error,
        expr: "lifeboat_job_success == 0",
        hold: "0m",
        summary: "the newest run failed",
        why: "A step failed, somebody ended the run, or it needs a person.",
        now: "`lifeboat drills` names the run and its report; `lifeboat resume` goes on with one that needs a person.",
    },
    Rule {
        alert: "LifeboatJobOverdue",
        severity: Severity::Error,
        expr: "time() - lifeboat_job_last_success_timestamp_seconds > lifeboat_job_max_age_seconds",
        hold: "5m",
        summary: "the newest success was {{ $value | humanizeDuration }} ago",
        why: "It did not run, or it did not succeed, for longer than it may.",
        now: "See that its schedule runs (systemctl list-timers, kubectl get cronjobs), then run it: `lifeboat run RUNBOOK --headless --yes`.",
    },
    Rule {
        alert: "LifeboatStorageError",
        severity: Severity::Critical,
        expr: r#"lifeboat_store_error{cause="other"} == 1"#,
        hold: "5m",
        summary: "the store cannot be looked at",
        why: "Nobody can say whether a restore would succeed, and backups are not written either.",
        now: "`lifeboat check` says what the store answers: expired or refused keys, no bucket, no way to it.",
    },
    Rule {
        alert: "LifeboatKmsFailure",
        severity: Severity::Critical,
        expr: r#"lifeboat_store_error{cause="kms"} == 1"#,
        hold: "5m",
        summary: "the key of the store cannot be used",
        why: "Without the key no backup can be read. A key that is disabled or due to be deleted takes every backup with it.",
        now: "Look at the key in the cloud's key service: is it enabled, is its deletion scheduled, may this role decrypt with it? `lifeboat check` has the store's own words.",
    },
    Rule {
        alert: "LifeboatDrillOverdue",
        severity: Severity::Warning,
        expr: "time() - lifeboat_drill_last_success_timestamp_seconds > lifeboat_drill_max_age_seconds",
        hold: "1h",
        summary: "the newest drill was {{ $value | humanizeDuration }} ago",
        why: "A restore that nobody has tried lately is a guess.",
        now: "Plan one with the people who are called at night: `lifeboat run game-day`.",
    },
    Rule {
        alert: "LifeboatRtoMissed",
        severity: Severity::Warning,
        expr: "lifeboat_drill_rto_seconds > lifeboat_drill_rto_target_seconds",
        hold: "0m",
        summary: "the newest drill took {{ $value | humanizeDuration }} to recover, longer than the RTO",
        why: "The next incident will take as long.",
        now: "The drill's report says where the time went, by machine and by people; `lifeboat drills` names it.",
    },
    Rule {
        alert: "LifeboatRpoMissed",
        severity: Severity::Warning,
        expr: "lifeboat_drill_rpo_seconds > lifeboat_drill_rpo_target_seconds",
        hold: "0m",
        summary: "the newest drill gave up {{ $value | humanizeDuration }} of history, more than the RPO",
        why: "The next incident will lose as much.",
        now: "The drill's report says what was lost and why; archive more often, or ship the append-only file.",
    },
    Rule {
        alert: "LifeboatBackupDamaged",
        severity: Severity::Critical,
        expr: r#"lifeboat_check_judgement{subject="manifests"} == 3"#,
        hold: "5m",
        summary: "a backup is damaged",
        why: "A manifest cannot be read, or an object that it names is missing or has another size.",
        now: "`lifeboat check` names it. Take another backup with `lifeboat run backup-now`; find out who deleted or changed the object.",
    },
    Rule {
        alert: "LifeboatProofFailed",
        severity: Severity::Critical,
        expr: r#"lifeboat_check_judgement{subject="proof"} == 3"#,
        hold: "5m",
        summary: "the newest backup was restored to prove it, and did not pass",
        why: "A restore of it would fail, or give back a server that is damaged.",
        now: "`lifeboat check` says what was found. Take another backup with `lifeboat run backup-now`, then prove that one: `lifeboat check --proof`.",
    },
    Rule {
        alert: "LifeboatArchiveForeign",
        severity: Severity::Critical,
        expr: r#"lifeboat_check_judgement{subject="archive"} == 3"#,
        hold: "5m",
        summary: "something foreign lies in the archive",
        why: "Another server writes into it: a restore could replay WAL that is not of this system.",
        now: "`lifeboat points` lists all of it; find the server that has the same archive_command, and stop it from archiving there.",
    },
    Rule {
        alert: "LifeboatRetention",
        severity: Severity::Warning,
        expr: r#"lifeboat_check_judgement{subject="retention"} >= 2"#,
        hold: "1h",
        summary: "backups are not kept as the inventory says",
        why: "Something younger than the limit is gone, or much that is older is still there.",
        now: "`lifeboat check` says which of both: run `lifeboat run prune`, or find out what deleted the older backups.",
    },
    Rule {
        alert: "LifeboatClockWrong",
        severity: Severity::Error,
        expr: r#"lifeboat_check_judgement{subject="clock"} == 3"#,
        hold: "5m",
        summary: "what is stored lies in the future of this machine's clock",
        why: "No age can be told, so no other alert about ages can be believed.",
        now: "Compare this machine's clock with the server's and the store's, and set the one that is wrong.",
    },
    Rule {
        alert: "LifeboatStoreUnprotected",
        severity: Severity::Error,
        expr: "lifeboat_store_judgement >= 2",
        hold: "5m",
        summary: "the provider does not do for the backups what it should",
        why: "The provider of the store does not do for the backups what it should: somebody who gets at its keys, or a rule that nobody remembers, can read or delete them.",
        now: "`lifeboat check --protection` says what is wrong and what to set.",
    },
    Rule {
        alert: "LifeboatJournalDamaged",
        severity: Severity::Warning,
        expr: "lifeboat_damaged_journals > 0",
        hold: "5m",
        summary: "{{ $value }} journals of drills cannot be believed",
        why: "A file was changed, cut or lost. The evidence of those drills is gone, and a job that they were of may look overdue.",
        now: "`lifeboat verify DRILL` says where a journal breaks; put a whole copy back.",
    },
    Rule {
        alert: "LifeboatMetricsAbsent",
        severity: Severity::Error,
        expr: "absent(lifeboat_collected_timestamp_seconds)",
        hold: "15m",
        summary: "there are no metrics of any backup",
        why: "While nobody looks, none of the other alerts can fire.",
        now: "See that `lifeboat serve-metrics` runs and is scraped, or that `lifeboat metrics --textfile` or `--push` is on its schedule.",
    },
    Rule {
        alert: "LifeboatMetricsStale",
        severity: Severity::Error,
        expr: "time() - lifeboat_collected_timestamp_seconds > 7200",
        hold: "5m",
        summary: "the metrics are {{ $value | humanizeDuration }} old",
        why: "They are still there, but nobody looks any more: none of the other alerts can be believed.",
        now: "See that `lifeboat metrics --textfile` or `--push` still runs on its schedule, at least once an hour.",
    },
];

/// The condition of this name.
pub fn rule(alert: &str) -> Option<&'static Rule> {
    RULES.iter().find(|rule| rule.alert == alert)
}

impl Rule {
    /// Where it is wrong, in the templates' spelling.
    fn place(&self) -> &'static str {
        match self.expr {
            expr if expr.contains("_rpo_") && expr.contains("drill") => {
                "{{ $labels.service }} {{ $labels.runbook }} {{ $labels.system }}"
            }
            expr if expr.contains("_job_") || expr.contains("_drill_") => "{{ $labels.service }} {{ $labels.runbook }}",
            expr if expr.starts_with("absent") => "Lifeboat",
            expr if expr.contains("_store_judgement") => {
                "{{ $labels.service }} {{ $labels.store }} {{ $labels.subject }}"
            }
            expr if expr.contains("_collected_") || expr.contains("_damaged_") => "{{ $labels.service }}",
            _ => OF_SYSTEM,
        }
    }

    /// The page for people; plain text.
    pub fn page(&self) -> String {
        format!(
            "{} ({})\n\n{}\n\nWhat to do now\n{}\n\nWhat Prometheus looks at\n{}\n",
            self.alert, self.severity, self.why, self.now, self.expr
        )
    }
}

/// A rule file for Prometheus. `{alert}` in `runbook_url` becomes the alert's name.
pub fn yaml(runbook_url: &str) -> String {
    // A JSON string is a YAML string too.
    let quoted = |text: &str| serde_json::Value::from(text).to_string();
    let mut out = String::from(
        "# Alerts about backups, jobs and drills, printed by `lifeboat metrics rules`; thresholds come from the inventory.\n\
         groups:\n  - name: lifeboat\n    rules:\n",
    );
    for rule in RULES {
        let summary = format!("{}: {}", rule.place(), rule.summary);
        let lines = [("alert", rule.alert.to_owned()), ("expr", quoted(rule.expr)), ("for", rule.hold.to_owned())];
        for (index, (name, value)) in lines.into_iter().enumerate() {
            let _ = writeln!(out, "      {} {name}: {value}", if index == 0 { "-" } else { " " });
        }
        let _ = writeln!(out, "        labels:\n          severity: {}", rule.severity);
        let _ = writeln!(out, "        annotations:");
        for (name, value) in [
            ("summary", summary),
            ("description", rule.why.to_owned()),
            ("action", rule.now.to_owned()),
            ("runbook_url", runbook_url.replace("{alert}", rule.alert)),
        ] {
            let _ = writeln!(out, "          {name}: {}", quoted(&value));
        }
    }
    out
}
