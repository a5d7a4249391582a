//! For each rule, series with which it has to fire, and others with which it must not. Time begins at 0 and the rules are
//! looked at after 200 minutes: 12000 s.

pub struct Case {
    pub alert: &'static str,
    pub wrong: &'static [(&'static str, &'static str)],
    pub right: &'static [(&'static str, &'static str)],
}

macro_rules! system {
    ($name:literal) => {
        concat!($name, "{service=\"orders\",environment=\"production\",system=\"db\",kind=\"postgres\"}")
    };
}
macro_rules! cache {
    ($name:literal) => {
        concat!($name, "{service=\"orders\",environment=\"production\",system=\"cache\",kind=\"redis\"}")
    };
}
macro_rules! judged {
    ($subject:literal) => {
        concat!("lifeboat_check_judgement{service=\"orders\",environment=\"production\",system=\"db\",kind=\"postgres\",subject=\"", $subject, "\"}")
    };
}
macro_rules! job {
    ($name:literal) => {
        concat!($name, "{service=\"orders\",runbook=\"backup-now\"}")
    };
}
macro_rules! drill {
    ($name:literal) => {
        concat!($name, "{service=\"orders\",runbook=\"game-day\",system=\"db\"}")
    };
}
macro_rules! store {
    ($cause:literal) => {
        concat!("lifeboat_store_error{service=\"orders\",environment=\"production\",system=\"db\",kind=\"postgres\",cause=\"", $cause, "\"}")
    };
}

const COLLECTED: &str = "lifeboat_collected_timestamp_seconds{service=\"orders\"}";

pub const CASES: &[Case] = &[
    Case {
        alert: "LifeboatBackupMissing",
        wrong: &[(judged!("backup"), "3x60")],
        right: &[(judged!("backup"), "2x60"), (judged!("wal"), "3x60")],
    },
    Case {
        alert: "LifeboatBackupTooOld",
        wrong: &[
            (system!("lifeboat_backup_last_success_timestamp_seconds"), "0x60"),
            (system!("lifeboat_backup_max_age_seconds"), "10800x60"),
        ],
        right: &[
            (system!("lifeboat_backup_last_success_timestamp_seconds"), "6000x60"),
            (system!("lifeboat_backup_max_age_seconds"), "10800x60"),
        ],
    },
    Case { alert: "LifeboatWalGap", wrong: &[(judged!("wal"), "3x60")], right: &[(judged!("wal"), "1x60")] },
    Case {
        alert: "LifeboatWalGapInHistory",
        wrong: &[(system!("lifeboat_wal_gaps"), "1x60")],
        right: &[(system!("lifeboat_wal_gaps"), "0x60")],
    },
    Case {
        alert: "LifeboatWalLag",
        wrong: &[(system!("lifeboat_loss_seconds"), "901x60"), (system!("lifeboat_rpo_target_seconds"), "900x60")],
        // Redis' own rule is another one.
        right: &[
            (system!("lifeboat_loss_seconds"), "900x60"),
            (system!("lifeboat_rpo_target_seconds"), "900x60"),
            (cache!("lifeboat_loss_seconds"), "901x60"),
            (cache!("lifeboat_rpo_target_seconds"), "900x60"),
        ],
    },
    Case {
        alert: "LifeboatWalBacklog",
        wrong: &[(system!("lifeboat_wal_lag_bytes"), "1073741825x60")],
        right: &[(system!("lifeboat_wal_lag_bytes"), "1073741824x60")],
    },
    Case {
        alert: "LifeboatSnapshotTooOld",
        wrong: &[
            (cache!("lifeboat_snapshot_lag_seconds"), "3601x60"),
            (cache!("lifeboat_rpo_target_seconds"), "3600x60"),
        ],
        // Somebody is told after five minutes, not after one bad look.
        right: &[
            (cache!("lifeboat_snapshot_lag_seconds"), "60x39 3601x20"),
            (cache!("lifeboat_rpo_target_seconds"), "3600x60"),
        ],
    },
    Case {
        alert: "LifeboatJobFailed",
        wrong: &[(job!("lifeboat_job_success"), "0x60")],
        right: &[(job!("lifeboat_job_success"), "1x60")],
    },
    Case {
        alert: "LifeboatJobOverdue",
        wrong: &[
            (job!("lifeboat_job_last_success_timestamp_seconds"), "0x60"),
            (job!("lifeboat_job_max_age_seconds"), "7200x60"),
        ],
        // One that has no limit is never overdue.
        right: &[(job!("lifeboat_job_last_success_timestamp_seconds"), "0x60")],
    },
    Case {
        alert: "LifeboatStorageError",
        wrong: &[(store!("other"), "1x60")],
        right: &[(store!("other"), "0x60"), (store!("kms"), "1x60")],
    },
    Case {
        alert: "LifeboatKmsFailure",
        wrong: &[(store!("kms"), "1x60")],
        right: &[(store!("kms"), "0x60"), (store!("other"), "1x60")],
    },
    Case {
        alert: "LifeboatDrillOverdue",
        wrong: &[
            (job!("lifeboat_drill_last_success_timestamp_seconds"), "0x60"),
            (job!("lifeboat_drill_max_age_seconds"), "7200x60"),
        ],
        right: &[
            (job!("lifeboat_drill_last_success_timestamp_seconds"), "6000x60"),
            (job!("lifeboat_drill_max_age_seconds"), "7200x60"),
        ],
    },
    Case {
        alert: "LifeboatRtoMissed",
        wrong: &[
            (job!("lifeboat_drill_rto_seconds"), "3601x60"),
            (job!("lifeboat_drill_rto_target_seconds"), "3600x60"),
        ],
        right: &[
            (job!("lifeboat_drill_rto_seconds"), "3599x60"),
            (job!("lifeboat_drill_rto_target_seconds"), "3600x60"),
        ],
    },
    Case {
        alert: "LifeboatRpoMissed",
        wrong: &[
            (drill!("lifeboat_drill_rpo_seconds"), "61x60"),
            (drill!("lifeboat_drill_rpo_target_seconds"), "60x60"),
        ],
        right: &[
            (drill!("lifeboat_drill_rpo_seconds"), "59x60"),
            (drill!("lifeboat_drill_rpo_target_seconds"), "60x60"),
        ],
    },
    Case {
        alert: "LifeboatBackupDamaged",
        wrong: &[(judged!("manifests"), "3x60")],
        right: &[(judged!("manifests"), "0x60")],
    },
    Case { alert: "LifeboatProofFailed", wrong: &[(judged!("proof"), "3x60")], right: &[(judged!("proof"), "1x60")] },
    Case {
        alert: "LifeboatArchiveForeign",
        wrong: &[(judged!("archive"), "3x60")],
        right: &[(judged!("archive"), "0x60")],
    },
    Case {
        alert: "LifeboatRetention",
        wrong: &[(judged!("retention"), "2x60")],
        right: &[(judged!("retention"), "1x60")],
    },
    Case { alert: "LifeboatClockWrong", wrong: &[(judged!("clock"), "3x60")], right: &[(judged!("clock"), "0x60")] },
    Case {
        alert: "LifeboatStoreUnprotected",
        wrong: &[("lifeboat_store_judgement{service=\"orders\",store=\"backups\",subject=\"public\"}", "2x60")],
        right: &[("lifeboat_store_judgement{service=\"orders\",store=\"backups\",subject=\"public\"}", "1x60")],
    },
    Case {
        alert: "LifeboatJournalDamaged",
        wrong: &[("lifeboat_damaged_journals{service=\"orders\"}", "1x60")],
        right: &[("lifeboat_damaged_journals{service=\"orders\"}", "0x60")],
    },
    Case { alert: "LifeboatMetricsAbsent", wrong: &[("up{job=\"other\"}", "1x60")], right: &[(COLLECTED, "0x60")] },
    Case { alert: "LifeboatMetricsStale", wrong: &[(COLLECTED, "0x60")], right: &[(COLLECTED, "0+300x60")] },
];
