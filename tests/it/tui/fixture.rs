//! A drill told by hand: the same events that an engine would write, at times that a test chooses.

use std::collections::BTreeMap;
use std::sync::Arc;

use chrono::{DateTime, FixedOffset, TimeDelta, Utc};
use lifeboat::digest::Digest;
use lifeboat::drill::DrillState;
use lifeboat::event::*;
use lifeboat::recovery;
use lifeboat::tui::home::{Attention, DrillEntry, HomeModel, RunbookEntry, Severity};
use lifeboat::tui::{App, Depth, Options, PointPreview, Preview, Themes};

pub const RUNBOOK: &str = include_str!("drill.toml");

/// 10:00:00 in the operator's zone.
pub fn opened() -> DateTime<Utc> {
    "2026-11-21T09:00:00Z".parse().unwrap()
}

pub fn zone() -> FixedOffset {
    FixedOffset::east_opt(3600).unwrap()
}

pub fn time(text: &str) -> DateTime<Utc> {
    format!("2026-11-21T{text}+01:00").parse::<DateTime<FixedOffset>>().unwrap().to_utc()
}

fn bound(name: &str, kind: &str, rpo: u64) -> BoundSystem {
    BoundSystem {
        name: name.into(),
        kind: kind.into(),
        environment: "sandbox".into(),
        address: format!("127.0.0.1:{}", if kind == "redis" { 6379 } else { 5432 }),
        rpo_seconds: Some(rpo),
        rto_seconds: None,
    }
}

/// A drill that is being told.
#[derive(Clone)]
pub struct Story {
    pub state: DrillState,
    pub seq: u64,
    /// Milliseconds since the opening.
    pub ms: u64,
}

impl Story {
    pub fn begin(mode: Mode) -> Self {
        let environment = if mode == Mode::Incident { "production" } else { "sandbox" };
        let opening = Opening {
            format: FORMAT,
            drill: "019a8f3e-0000-7000-8000-000000000001".into(),
            mode,
            service: "orders".into(),
            environment: environment.into(),
            operator: "ana".into(),
            host: "bastion-1".into(),
            boot_id: "boot".into(),
            lifeboat_version: "0.1.0".into(),
            runbook_source: RUNBOOK.into(),
            runbook_digest: Digest::of(RUNBOOK.as_bytes()),
            runbook_path: Some("runbooks/restore-to-a-point.toml".into()),
            inventory_path: None,
            inventory_digest: None,
            systems: BTreeMap::from([
                ("db".into(), bound("orders-db", "postgres", 900)),
                ("cache".into(), bound("orders-cache", "redis", 3600)),
            ]),
            variables: BTreeMap::new(),
            rto_seconds: Some(3600),
            rpo_seconds: Some(900),
            expected_seconds: BTreeMap::from([
                ("fence".into(), 20.0),
                ("restore-db".into(), 400.0),
                ("restore-cache".into(), 40.0),
                ("check-db".into(), 15.0),
                ("promote".into(), 5.0),
                ("cutover".into(), 5.0),
                ("smoke".into(), 2.0),
            ]),
        };
        let event = Event::DrillOpened { opening: Box::new(opening) };
        let envelope = Envelope { seq: 0, at: opened(), boot_ms: 5_000, event };
        Self { state: DrillState::open(&envelope).unwrap(), seq: 1, ms: 0 }
    }

    pub fn envelope(&mut self, event: Event) -> Envelope {
        let at = opened() + TimeDelta::milliseconds(self.ms as i64);
        let envelope = Envelope { seq: self.seq, at, boot_ms: 5_000 + self.ms, event };
        self.seq += 1;
        envelope
    }

    pub fn tell(mut self, event: Event) -> Self {
        let envelope = self.envelope(event);
        self.state.apply(&envelope);
        self
    }

    pub fn wait(mut self, seconds: u64) -> Self {
        self.ms += seconds * 1000;
        self
    }

    pub fn declare(self) -> Self {
        self.wait(4).tell(Event::Declared { reason: "migration 42 dropped payments".into() }).wait(1)
    }

    pub fn ask(self, step: &str, ask: Ask) -> Self {
        self.tell(Event::Asked { step: step.into(), ask: Box::new(ask) })
    }

    pub fn answer(self, step: &str, answer: Answer) -> Self {
        self.tell(Event::Answered { step: step.into(), answer, by: "ana".into() })
    }

    pub fn start(self, step: &str) -> Self {
        let (attempt, step) = (self.state.step(step).unwrap().1.attempt() + 1, step.to_owned());
        let effect_key = format!("{step}/1");
        self.tell(Event::StepStarted { step, attempt, effect_key, target: None, undo: false, probe: false })
    }

    pub fn finish(self, step: &str, outcome: Outcome) -> Self {
        let attempt = self.state.step(step).unwrap().1.attempt();
        self.tell(Event::StepFinished { step: step.into(), attempt, outcome: Box::new(outcome), output: None })
    }

    pub fn pass(self, step: &str, seconds: u64, summary: &str) -> Self {
        self.start(step).wait(seconds).finish(step, Outcome::passed(summary))
    }

    pub fn say(self, step: &str, stream: Stream, text: &str) -> Self {
        let lines = text.lines().map(|text| Line { stream, text: text.into() }).collect();
        self.tell(Event::Output { step: step.into(), lines, skipped_bytes: 0 })
    }

    pub fn progress(self, step: &str, progress: Progress) -> Self {
        self.tell(Event::Progressed { step: step.into(), progress })
    }
}

pub fn lane(lane: &str, done: u64, total: Option<u64>, unit: Unit) -> Progress {
    Progress { lane: lane.into(), done, total, unit, position: None, rate: None, eta_seconds: None }
}

pub fn confirming() -> Story {
    let ask = Ask::Confirm { sentence: "A restore is the answer: data is gone, and no replica has it".into() };
    Story::begin(Mode::Sandbox).declare().start("confirm").ask("confirm", ask).wait(38)
}

pub fn confirmed() -> Story {
    confirming().answer("confirm", Answer::Yes).finish("confirm", Outcome::passed("confirmed by ana"))
}

pub fn asks_for_name() -> Story {
    confirmed().wait(1).ask(
        "fence",
        Ask::TypeName {
            name: "orders-db".into(),
            sentence: "Stop every write to orders-db at 127.0.0.1:5432 (sandbox) and prove that one fails.".into(),
            loss: "write access of every client of orders-db: from now on the service is down for writes".into(),
        },
    )
}

pub fn fenced() -> Story {
    asks_for_name().wait(22).answer("fence", Answer::Typed { name: "orders-db".into() }).pass(
        "fence",
        8,
        "a write to orders-db was refused: cannot execute INSERT in a read-only transaction",
    )
}

pub fn window() -> Window {
    let lsn = |text: &str| text.parse::<Lsn>().unwrap();
    Window {
        looked: time("10:01:20"),
        incident: Some(time("09:52:31.507")),
        systems: vec![
            SystemWindow::Postgres {
                system: "orders-db".into(),
                backups: vec![BaseBackup {
                    label: "20261121T084000Z".into(),
                    system_identifier: 7_300_000_000_000_000_001,
                    timeline: 1,
                    start_lsn: lsn("0/2000028"),
                    stop_lsn: lsn("0/2000100"),
                    started: time("09:39:50"),
                    stopped: time("09:40:00"),
                    parent: None,
                    bytes: 4_100_000_000,
                    stored_bytes: 1_400_000_000,
                    server_version: "15.8".into(),
                    basis: Basis::Observed,
                }],
                coverage: vec![Coverage {
                    timeline: 1,
                    from: lsn("0/2000000"),
                    to: lsn("0/5A000000"),
                    first_segment: "000000010000000000000002".into(),
                    last_segment: "000000010000000000000059".into(),
                    segments: 88,
                    stored_bytes: 700_000_000,
                    from_time: Some(time("09:39:55")),
                    to_time: Some(time("09:56:02")),
                    basis: Basis::Observed,
                }],
                gaps: Vec::new(),
                restore_points: vec![RestorePoint {
                    name: "before migration 42".into(),
                    at: time("09:52:20"),
                    lsn: lsn("0/4A2F1100"),
                    basis: Basis::Observed,
                }],
                forks: Vec::new(),
                system_identifier: None,
                segment_bytes: 16 << 20,
                history: Some(Box::new(history())),
                warnings: Vec::new(),
            },
            SystemWindow::Redis {
                system: "orders-cache".into(),
                snapshots: ["09:41:00", "09:52:00"]
                    .map(|at| RedisSnapshot {
                        label: format!("dump-{at}.rdb"),
                        at: time(at),
                        keys: 12_480,
                        bytes: 3_000_000,
                        stored_bytes: 1_100_000,
                        rdb_version: 10,
                        redis_version: "7.0.15".into(),
                        basis: Basis::Observed,
                    })
                    .to_vec(),
                aof: vec![AofRange {
                    label: "8a1f/20261121T095558Z".into(),
                    from: time("09:41:01"),
                    to: time("09:55:57"),
                    until: Some(time("09:55:58.200")),
                    commands: 81_200,
                    base_keys: 11_980,
                    bytes: 9_400_000,
                    stored_bytes: 2_100_000,
                    redis_version: "7.0.15".into(),
                    basis: Basis::Observed,
                }],
                warnings: Vec::new(),
            },
        ],
    }
}

fn position(text: &str) -> Lsn {
    text.parse().unwrap()
}

/// A shop at four commits a second and some more, until a migration.
fn history() -> History {
    let rate = |from: &str, seconds: u64, steps: u64, commits_before: u64, bytes_before: u64| {
        let busy = |step: u64| seconds * 4 + [0, 1, 3, 2, 0, 1][usize::try_from(step / 11 % 6).unwrap()];
        Rate {
            from: time(from),
            step_ms: seconds * 1_000,
            commits_before,
            bytes_before,
            commits: (0..steps).map(busy).collect(),
            bytes: vec![seconds * 1_590_000; usize::try_from(steps).unwrap()],
        }
    };
    let rates = vec![rate("09:39:50", 10, 98, 0, 0), rate("09:50:00", 1, 362, 2_700, 970_000_000)];
    let commits_before = |at: &str| rates[1].before(time(at)).unwrap().0;
    let suspect = |at: &str, xid, at_lsn: &str, what, table: &str, count| Suspect {
        xid,
        at: time(at),
        lsn: position(at_lsn),
        deeds: vec![Deed { what, table: table.into(), count }],
        commits_before: commits_before(at),
    };
    History {
        timeline: 1,
        from: position("0/2000000"),
        to: position("0/59FFF000"),
        to_time: Some(time("09:56:02")),
        commits: commits_before("09:56:02"),
        suspects: vec![
            suspect("09:52:31.507", 8_841, "0/4A2F11C8", What::Drops, "payments", 2),
            suspect("09:52:44.120", 8_869, "0/4A31B000", What::Deletes, "orders", 41_882),
        ],
        rates,
        stopped: None,
        segments: 88,
        read: 1,
        not_kept: None,
    }
}

/// As the program works it out, three past restores behind it.
pub fn preview() -> Preview {
    Arc::new(|window, target, inclusive| {
        let point = recovery::settle(window, target, inclusive).map_err(Failure::from)?;
        let skews = recovery::skews(window, &point).into_iter();
        Ok(PointPreview {
            skews: skews.map(|(system, skew)| (system, skew.as_seconds_f64().abs())).collect(),
            cost: recovery::cost(window, &point).map_err(Failure::from)?,
            ready_seconds: Some(240.0),
            measured_by: 3,
            point,
        })
    })
}

pub fn choosing() -> Story {
    fenced().start("choose").wait(2).ask("choose", Ask::RecoveryPoint { window: Box::new(window()), suggested: None })
}

pub fn chosen() -> Story {
    let point = (preview())(&window(), &RecoveryTarget::Time { time: time("09:52:31.482") }, false).unwrap().point;
    choosing()
        .wait(125)
        .answer("choose", Answer::Point { point })
        .finish("choose", Outcome::passed("just before 09:52:31.482 +01:00"))
}

pub fn go_gate() -> Story {
    let sentence = "restore orders-db to 09:52:31.482 (+01:00) beside the old one, at /var/lib/lifeboat/orders-db";
    chosen().wait(1).ask("restore-db", Ask::Go { sentence: sentence.into() })
}

pub fn restoring() -> Story {
    go_gate()
        .wait(12)
        .answer("restore-db", Answer::Yes)
        .start("restore-db")
        .start("restore-cache")
        .wait(41)
        .finish(
            "restore-cache",
            Outcome::passed("12 480 keys, as the snapshot holds").check("keys", true, "12 480 of 12 480"),
        )
        .tell(Event::Note { text: "migration 42 ran at 09:52; Kim is asking who started it".into(), by: "ana".into() })
        .wait(110)
        .progress("restore-db", lane("base backup", 1_400_000_000, Some(1_400_000_000), Unit::Bytes))
        .say("restore-db", Stream::Lifeboat, "base backup 20261121T084000Z unpacked: 1 204 files, every digest right")
        .say("restore-db", Stream::Err, "LOG:  starting point-in-time recovery to 2026-11-21 09:52:31.482+01")
        .say(
            "restore-db",
            Stream::Err,
            "LOG:  restored log file \"000000010000000000000044\" from archive\n\
             LOG:  restored log file \"000000010000000000000045\" from archive",
        )
        .progress(
            "restore-db",
            Progress {
                position: Some("09:51:12.340   0/4A2F11C8 → 0/5D001230".into()),
                rate: Some(52_000_000.0),
                eta_seconds: Some(40.0),
                ..lane("replay", 732_000_000, Some(1_200_000_000), Unit::Bytes)
            },
        )
        .wait(3)
        .say("restore-db", Stream::Err, "LOG:  restored log file \"000000010000000000000046\" from archive")
        .tell(Event::Measured {
            measure: Measure::SelectedLoss {
                system: "orders-cache".into(),
                seconds: 31.0,
                recovered_to: time("09:52:00.500"),
                incident: time("09:52:31.507"),
            },
        })
        .wait(1)
}

pub fn failed() -> Story {
    let failure = Failure::new(
        "fetch the base backup 20261121T084000Z of orders-db",
        "base.tar.zst: digest is 9f2c…11ab, the manifest says 4e07…c3d9",
    )
    .now("The object in the bucket is damaged. Retry once; if it fails again, choose the base backup before it.");
    go_gate()
        .wait(12)
        .answer("restore-db", Answer::Yes)
        .start("restore-db")
        .wait(9)
        .say("restore-db", Stream::Lifeboat, "fetching base.tar.zst, 1.4 GB")
        .say("restore-db", Stream::Err, "digest mismatch after 1 400 000 000 bytes")
        .finish("restore-db", Outcome::failed(failure.clone()))
        .ask("restore-db", Ask::AfterFailure { failure })
        .wait(17)
}

pub fn finished(verdict: Verdict) -> Story {
    restoring()
        .wait(38)
        .finish(
            "restore-db",
            Outcome::passed("stopped just before 09:52:31.482, read only").measure(Measure::SelectedLoss {
                system: "orders-db".into(),
                seconds: 4.1,
                recovered_to: time("09:52:27.400"),
                incident: time("09:52:31.507"),
            }),
        )
        .pass("check-db", 6, "orders has 41 882 rows")
        .pass("promote", 2, "takes writes")
        .pass("cutover", 1, "the application reads from the restored servers")
        .pass("smoke", 1, "a transaction went through")
        .tell(Event::Measured {
            measure: Measure::LostWrites {
                system: "orders-db".into(),
                lost: 12,
                acknowledged: 18_204,
                detail: "by the ledger".into(),
            },
        })
        .tell(Event::Finding {
            text: "migrations run without a restore point".into(),
            owner: Some("kim".into()),
            due: Some("2026-12-01".into()),
            by: "ana".into(),
        })
        .tell(Event::DrillFinished { verdict })
}

pub fn options() -> Options {
    Options {
        zone: zone(),
        ascii: false,
        mouse: false,
        leave_text: "leave (the drill stops here; lifeboat resume goes on)".into(),
        read_only: false,
        can_stop: false,
        after_text: None,
        contacts: Vec::new(),
        log_file: None,
    }
}

pub fn themes(name: &str) -> Themes {
    Themes::load(None, name, Depth::True).unwrap()
}

/// The screen over a story, its clock where the story ends.
pub fn app(story: Story) -> App {
    app_with(story, "dark", options())
}

pub fn app_with(story: Story, theme: &str, options: Options) -> App {
    let stamp = lifeboat::clock::Stamp {
        wall: opened() + TimeDelta::milliseconds(story.ms as i64),
        boot: std::time::Duration::from_millis(5_000 + story.ms),
    };
    let mut app = App::new(story.state, themes(theme), options, preview());
    app.update(lifeboat::tui::Msg::Now(stamp, None));
    app
}

pub fn home_model() -> HomeModel {
    let drill = |title: &str, opened: &str, verdict, rto: Option<u64>| DrillEntry {
        dir: "/var/lib/lifeboat/drills/019a8f3e".into(),
        journal: "/var/lib/lifeboat/drills/019a8f3e/journal.jsonl".into(),
        title: title.into(),
        mode: Mode::Drill,
        environment: "staging".into(),
        operator: "ana".into(),
        opened: opened.parse().unwrap(),
        verdict,
        rto: rto.map(std::time::Duration::from_secs),
        rto_target: Some(std::time::Duration::from_secs(3600)),
        note: Some("at: Choose the recovery point, waiting for a person".into()),
    };
    let runbook = |file: &str, title: &str, verdict, last: Option<&str>| RunbookEntry {
        path: format!("runbooks/{file}.toml").into(),
        title: title.into(),
        owner: Some("data platform".into()),
        description: Some("Use it when data is **wrong or gone** and every replica has followed.".into()),
        problem: None,
        last_run: last.map(|at| at.parse().unwrap()),
        verdict,
    };
    HomeModel {
        service: "orders".into(),
        inventory: Some("/etc/lifeboat/lifeboat.toml".into()),
        attention: vec![
            Attention { severity: Severity::Warning, text: "orders-db: the newest base backup is 3 days old".into() },
            Attention {
                severity: Severity::Critical,
                text: "orders-cache: WAL of the last 40 minutes is not archived".into(),
            },
        ],
        under_way: vec![drill("Restore PostgreSQL and Redis to one point", "2026-11-21T09:00:00Z", None, Some(461))],
        runbooks: vec![
            runbook(
                "restore-to-a-point",
                "Restore PostgreSQL and Redis to one point",
                Some(Verdict::Passed),
                Some("2026-11-12T13:30:00Z"),
            ),
            runbook("backup-now", "Back up now", None, None),
            runbook(
                "game-day",
                "Game day: a quarterly drill",
                Some(Verdict::ObjectiveMissed),
                Some("2026-08-20T08:00:00Z"),
            ),
        ],
        past: vec![
            drill(
                "Restore PostgreSQL and Redis to one point",
                "2026-11-12T13:30:00Z",
                Some(Verdict::Passed),
                Some(1263),
            ),
            drill("Game day: a quarterly drill", "2026-08-20T08:00:00Z", Some(Verdict::ObjectiveMissed), Some(4210)),
        ],
    }
}
