//! A drill as a journal: everything that can happen in one, with hostile words where people or programs speak.

use std::collections::BTreeMap;
use std::path::PathBuf;

use chrono::{DateTime, TimeDelta, Utc};
use lifeboat::digest::Digest;
use lifeboat::event::{
    Answer, Ask, BoundSystem, Envelope, Event, FORMAT, Failure, Measure, Mode, Opening, Outcome, RecoveryPoint,
    RecoveryTarget, Verdict,
};
use lifeboat::journal::{BLOB_CAP, BlobWriter, DrillDir, Journal};

/// What a program might say to harm whoever reads it.
pub const HOSTILE: &str = "<script>alert(1)</script> \u{1b}[2J\u{202e}|`*# \" onload=\"x";

const RUNBOOK: &str = r#"
format = 1
id = "restore-both"
title = "Restore {db} and {cache} to one point"
owner = "data platform"
revision = 7
systems = { db = "postgres", cache = "redis" }

[[phases]]
title = "Assess"

[[phases.steps]]
id = "broken"
title = "Make sure that a restore is the answer"
do = "confirm"

[[phases.steps]]
id = "fence"
title = "Stop writes to {db}"
do = "postgres.fence"
system = "db"
destroys = "write access of every client of {db}"

[[phases]]
title = "Choose"

[[phases.steps]]
id = "choose"
title = "Choose the recovery point"
do = "recovery.choose"
systems = ["db", "cache"]

[[phases]]
title = "Restore"

[[phases.steps]]
id = "restore-db"
title = "Restore {db} and stop at the point"
do = "postgres.restore"
system = "db"
needs = ["choose"]

[[phases.steps]]
id = "restore-cache"
title = "Restore {cache}"
do = "redis.restore"
system = "cache"
needs = ["choose"]

[[phases.steps]]
id = "look"
title = "Look before promoting"
do = "postgres.check"
system = "db"
tables = [{ name = "orders", min_rows = 1 }]

[[phases]]
title = "Prove"

[[phases.steps]]
id = "tell"
title = "Tell the status page"
do = "notify"
argv = ["true"]

[[phases.steps]]
id = "smoke"
title = "Place an order"
do = "smoke.http"
url = "http://127.0.0.1:1/orders"
"#;

/// Writes a drill event by event; time passes only as told.
pub struct Story {
    pub dir: DrillDir,
    journal: Journal,
    seq: u64,
    at: DateTime<Utc>,
    boot_ms: u64,
}

impl Story {
    /// Opens drill `id` below `state`, objectives: 1 h, 15 min.
    pub fn open(state: &std::path::Path, id: &str) -> Self {
        Self::opened(state, id, "2026-11-21T09:02:31.507Z".parse().unwrap(), |_| {})
    }

    /// The same at another time, and of something else.
    pub fn opened(state: &std::path::Path, id: &str, at: DateTime<Utc>, change: impl FnOnce(&mut Opening)) -> Self {
        let dir = DrillDir::new(state, id);
        let journal = Journal::create(&dir).unwrap();
        let mut story = Self { dir, journal, seq: 0, at, boot_ms: 5_000_000 };
        let system = |name: &str, kind: &str, address: &str, rpo| BoundSystem {
            name: name.into(),
            kind: kind.into(),
            environment: "sandbox".into(),
            address: address.into(),
            rpo_seconds: Some(rpo),
            rto_seconds: None,
        };
        let mut opening = Opening {
            format: FORMAT,
            drill: id.into(),
            mode: Mode::Sandbox,
            service: "orders".into(),
            environment: "sandbox".into(),
            operator: "ada".into(),
            host: "bastion-1".into(),
            boot_id: "first".into(),
            lifeboat_version: "0.1.0".into(),
            runbook_source: RUNBOOK.into(),
            runbook_digest: Digest::of(RUNBOOK.as_bytes()),
            runbook_path: Some(PathBuf::from("runbooks/restore-both.toml")),
            inventory_path: None,
            inventory_digest: Some(Digest::of(b"inventory")),
            systems: BTreeMap::from([
                ("db".to_owned(), system("orders-db", "postgres", "127.0.0.1:5433", 900)),
                ("cache".to_owned(), system("orders-cache", "redis", "127.0.0.1:6380", 3600)),
            ]),
            variables: BTreeMap::from([("ticket".to_owned(), "INC-42".to_owned())]),
            rto_seconds: Some(3600),
            rpo_seconds: Some(900),
            expected_seconds: BTreeMap::new(),
        };
        change(&mut opening);
        story.event(Event::DrillOpened { opening: Box::new(opening) });
        story
    }

    pub fn event(&mut self, event: Event) -> &mut Self {
        let envelope = Envelope { seq: self.seq, at: self.at, boot_ms: self.boot_ms, event };
        self.journal.append(&envelope).unwrap();
        self.seq += 1;
        self
    }

    pub fn wait(&mut self, seconds: f64) -> &mut Self {
        let millis = (seconds * 1000.0) as i64;
        self.at += TimeDelta::milliseconds(millis);
        self.boot_ms += millis as u64;
        self
    }

    pub fn ask(&mut self, step: &str, ask: Ask) -> &mut Self {
        self.event(Event::Asked { step: step.into(), ask: Box::new(ask) })
    }

    pub fn answer(&mut self, step: &str, answer: Answer) -> &mut Self {
        self.event(Event::Answered { step: step.into(), answer, by: "ada".into() })
    }

    pub fn start(&mut self, step: &str, attempt: u32) -> &mut Self {
        let effect_key = format!("{step}-{attempt}");
        self.event(Event::StepStarted {
            step: step.into(),
            attempt,
            effect_key,
            target: None,
            undo: false,
            probe: false,
        })
    }

    pub fn finish(&mut self, step: &str, attempt: u32, outcome: Outcome) -> &mut Self {
        let mut output = BlobWriter::create(&self.dir.output(), BLOB_CAP).unwrap();
        output.push(format!("the output of {step}, attempt {attempt}\n").as_bytes());
        let output = output.finish().unwrap();
        self.event(Event::StepFinished { step: step.into(), attempt, outcome: Box::new(outcome), output })
    }

    /// Everything, up to a verdict that says passed.
    pub fn tell(&mut self) -> &mut Self {
        let point = RecoveryPoint {
            target: RecoveryTarget::Time { time: "2026-11-21T09:00:12.482Z".parse().unwrap() },
            inclusive: false,
            backups: BTreeMap::from([("orders-db".to_owned(), "base_20261121T030000Z".to_owned())]),
            snapshots: BTreeMap::from([("orders-cache".to_owned(), "rdb_20261121T085500Z".to_owned())]),
            aof: BTreeMap::new(),
            timeline: 1,
            resolved: BTreeMap::new(),
        };
        self.wait(2.0).event(Event::Declared { reason: "payments are gone after migration 42".into() });
        self.wait(0.5).start("broken", 1).ask("broken", Ask::Confirm { sentence: "Is data gone?".into() });
        self.wait(38.0).answer("broken", Answer::Yes).finish("broken", 1, Outcome::passed("confirmed"));
        self.ask(
            "fence",
            Ask::TypeName {
                name: "orders-db".into(),
                sentence: "Enter stops writes to orders-db".into(),
                loss: "write access of every client".into(),
            },
        );
        self.wait(12.25).answer("fence", Answer::Typed { name: "orders-db".into() }).start("fence", 1).wait(3.0);
        self.finish("fence", 1, Outcome::passed("a write was tried and refused").fact("refusal", "25006"));
        self.event(Event::Note { text: format!("pager says {HOSTILE}"), by: "ada".into() });
        self.start("choose", 1).ask("choose", Ask::Confirm { sentence: "Which recovery point?".into() }).wait(61.0);
        self.answer("choose", Answer::Point { point: point.clone() });
        self.event(Event::VariableSet { name: "recovery_point".into(), value: serde_json::to_value(&point).unwrap() });
        self.finish("choose", 1, Outcome::passed("2026-11-21T09:00:12.482Z, timeline 1"));
        self.start("restore-db", 1).start("restore-cache", 1).wait(21.4);
        self.finish("restore-cache", 1, Outcome::passed("7988 keys"));
        self.wait(8.0).finish(
            "restore-db",
            1,
            Outcome::failed(Failure::new("the base backup could not be unpacked", HOSTILE).now("look at the disk")),
        );
        let failure = Failure::new("the base backup could not be unpacked", "No space left on device");
        self.ask("restore-db", Ask::AfterFailure { failure }).wait(45.0).answer("restore-db", Answer::Retry);
        self.start("restore-db", 2).wait(104.0);
        let loss = |system: &str, recovered_to: &str, seconds| Measure::SelectedLoss {
            system: system.into(),
            seconds,
            recovered_to: recovered_to.parse().unwrap(),
            incident: "2026-11-21T09:00:16.582Z".parse().unwrap(),
        };
        self.finish(
            "restore-db",
            2,
            Outcome::passed("replayed to 0/5D001230, paused")
                .fact("last_commit", "2026-11-21 09:00:12.482+00")
                .measure(loss("orders-db", "2026-11-21T09:00:12.482Z", 4.1))
                .measure(loss("orders-cache", "2026-11-21T08:55:00Z", 316.582))
                .measure(Measure::LostWrites {
                    system: "orders-db".into(),
                    lost: 3,
                    acknowledged: 18_204,
                    detail: "orders 18202 to 18204".into(),
                }),
        );
        self.start("look", 1).wait(1.2).finish(
            "look",
            1,
            Outcome::passed("3 tables looked at").check("orders", true, "18201 rows, at least 1 expected").check(
                "checksums",
                true,
                "0 bad pages of 4096",
            ),
        );
        self.event(Event::StepSkipped {
            step: "tell".into(),
            reason: format!("the status page is down {HOSTILE}"),
            by: "ada".into(),
        });
        self.start("smoke", 1).wait(0.3).finish("smoke", 1, Outcome::passed("201 Created in 41 ms"));
        self.wait(20.0).event(Event::Finding {
            text: "The disk of the restore host is too small".into(),
            owner: Some("bob".into()),
            due: Some("2026-12-01".into()),
            by: "ada".into(),
        });
        self
    }

    pub fn end(mut self, verdict: Verdict) -> DrillDir {
        self.event(Event::DrillFinished { verdict });
        self.dir
    }
}

/// A whole drill that passed.
pub fn passed(state: &std::path::Path, id: &str) -> DrillDir {
    let mut story = Story::open(state, id);
    story.tell();
    story.end(Verdict::Passed)
}
