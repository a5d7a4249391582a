use std::collections::BTreeMap;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};

use super::*;
use crate::digest::Digest;
use crate::event::{Answer, BoundSystem, Mode, Outcome};

const RUNBOOK: &str = r#"
format = 1
id = "restore"
title = "Restore"
owner = "us"
revision = 1
systems = { db = "postgres" }

[[phases]]
title = "Assess"
[[phases.steps]]
id = "look"
do = "confirm"
title = "Look"

[[phases]]
title = "Restore"
[[phases.steps]]
id = "restore"
do = "postgres.restore"
system = "db"
[[phases.steps]]
id = "count"
do = "postgres.query"
system = "db"
sql = "select 1"

[[phases]]
title = "Prove"
[[phases.steps]]
id = "smoke"
do = "smoke.tcp"
address = "127.0.0.1:1"
[[phases.steps]]
id = "afterwards"
do = "note"
text = "done"
"#;

/// Feeds events to a state at seconds since the drill was opened.
struct Tape {
    state: DrillState,
    seq: u64,
    /// What a stepped wall clock is off by.
    wall_off: TimeDelta,
    boot_base: u64,
}

const WALL: &str = "2026-11-21T10:00:00Z";

impl Tape {
    fn new(expected: &[(&str, f64)]) -> Self {
        let systems = BTreeMap::from([(
            "db".to_owned(),
            BoundSystem {
                name: "orders-db".into(),
                kind: "postgres".into(),
                environment: "staging".into(),
                address: "db:5432/orders".into(),
                rpo_seconds: Some(60),
                rto_seconds: None,
            },
        )]);
        let opening = Opening {
            format: FORMAT,
            drill: "d".into(),
            mode: Mode::Drill,
            service: "orders".into(),
            environment: "staging".into(),
            operator: "ann".into(),
            host: "here".into(),
            boot_id: "boot-1".into(),
            lifeboat_version: "0".into(),
            runbook_source: RUNBOOK.into(),
            runbook_digest: Digest::of(RUNBOOK.as_bytes()),
            runbook_path: None,
            inventory_path: None,
            inventory_digest: None,
            systems,
            variables: BTreeMap::new(),
            rto_seconds: Some(100),
            rpo_seconds: Some(60),
            expected_seconds: expected.iter().map(|(step, s)| ((*step).to_owned(), *s)).collect(),
        };
        let envelope = Envelope {
            seq: 0,
            at: WALL.parse().unwrap(),
            boot_ms: 50_000,
            event: Event::DrillOpened { opening: Box::new(opening) },
        };
        let state = DrillState::open(&envelope).unwrap();
        Self { state, seq: 1, wall_off: TimeDelta::zero(), boot_base: 50_000 }
    }

    fn at(&mut self, second: u64, event: Event) -> &mut Self {
        let at = WALL.parse::<DateTime<Utc>>().unwrap() + Duration::from_secs(second) + self.wall_off;
        let boot_ms = self.boot_base + second * 1_000;
        self.state.apply(&Envelope { seq: self.seq, at, boot_ms, event });
        self.seq += 1;
        self
    }

    fn declared(&mut self, second: u64) -> &mut Self {
        self.at(second, Event::Declared { reason: "gone".into() })
    }

    fn started(&mut self, second: u64, step: &str) -> &mut Self {
        let event = Event::StepStarted {
            step: step.into(),
            attempt: 1,
            effect_key: step.into(),
            target: None,
            undo: false,
            probe: false,
        };
        self.at(second, event)
    }

    fn ended(&mut self, second: u64, step: &str, outcome: Outcome) -> &mut Self {
        let event = Event::StepFinished { step: step.into(), attempt: 1, outcome: Box::new(outcome), output: None };
        self.at(second, event)
    }

    fn passed(&mut self, from: u64, to: u64, step: &str) -> &mut Self {
        self.started(from, step).ended(to, step, Outcome::passed("ok"))
    }

    fn asked(&mut self, second: u64, step: &str) -> &mut Self {
        self.at(second, Event::Asked { step: step.into(), ask: Box::new(Ask::Confirm { sentence: "ok?".into() }) })
    }

    fn answered(&mut self, second: u64, step: &str) -> &mut Self {
        self.at(second, Event::Answered { step: step.into(), answer: Answer::Yes, by: "ann".into() })
    }
}

fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[test]
fn rto_runs_from_the_declaration_to_the_last_green_proof() {
    let mut tape = Tape::new(&[]);
    assert_eq!(tape.state.rto(s(5)), None);
    tape.declared(10).passed(10, 20, "look").passed(20, 40, "restore").passed(40, 45, "count");
    assert_eq!(tape.state.rto(s(50)), Some(s(40)));
    tape.passed(50, 60, "smoke");
    assert_eq!(tape.state.rto(s(500)), Some(s(50)), "what comes after the proof does not count");
    assert_eq!(tape.state.rto_budget(s(500)).unwrap().left(), Some(s(50)));
}

#[test]
fn machine_time_stands_apart_from_human_wait() {
    let mut tape = Tape::new(&[]);
    tape.declared(10).started(10, "look").asked(10, "look").answered(40, "look");
    tape.ended(40, "look", Outcome::passed("ok")).started(40, "restore");
    assert_eq!(tape.state.split(s(55)), Split { machine: s(15), human: s(30) });
    tape.ended(60, "restore", Outcome::passed("ok"));
    assert_eq!(tape.state.split(s(70)), Split { machine: s(20), human: s(40) });
}

#[test]
fn row_13_a_stepped_wall_clock_bends_nothing() {
    let mut tape = Tape::new(&[]);
    tape.declared(10).passed(10, 20, "look");
    tape.wall_off = TimeDelta::days(3_650);
    tape.passed(20, 30, "restore").passed(30, 31, "count");
    tape.wall_off = TimeDelta::days(-3_650);
    tape.passed(31, 40, "smoke");
    assert_eq!(tape.state.rto(s(99)), Some(s(30)));
    assert!(!tape.state.clock_uncertain);
}

#[test]
fn a_reboot_is_bridged_by_wall_time_and_flagged() {
    let mut tape = Tape::new(&[]);
    tape.declared(10).passed(10, 20, "look");
    // 100 s later, on a machine that is up for 7 s.
    let event = Event::EngineStarted {
        boot_id: "boot-2".into(),
        host: "here".into(),
        operator: "bob".into(),
        lifeboat_version: "0".into(),
    };
    let at = WALL.parse::<DateTime<Utc>>().unwrap() + s(120);
    tape.state.apply(&Envelope { seq: tape.seq, at, boot_ms: 7_000, event });
    assert_eq!(tape.state.latest.elapsed, s(120));
    assert!(tape.state.clock_uncertain);
    assert_eq!((tape.state.operator.as_str(), tape.state.resumes), ("bob", 1));
    let stamp = Stamp { wall: at, boot: s(17) };
    assert_eq!(tape.state.elapsed_at(stamp), s(130));
}

#[test]
fn the_verdict_says_what_was_missed() {
    let mut tape = Tape::new(&[]);
    tape.declared(0).passed(0, 10, "look").passed(10, 20, "restore").passed(20, 21, "count");
    tape.passed(21, 30, "smoke").passed(30, 31, "afterwards");
    assert_eq!(tape.state.verdict(), Verdict::Passed);
    let loss = |seconds: i64| {
        let incident = WALL.parse::<DateTime<Utc>>().unwrap();
        let recovered_to = incident - TimeDelta::seconds(seconds);
        Event::Measured {
            measure: Measure::SelectedLoss {
                system: "orders-db".into(),
                seconds: seconds as f64,
                recovered_to,
                incident,
            },
        }
    };
    tape.at(32, loss(60));
    assert_eq!(tape.state.verdict(), Verdict::Passed, "the target itself is still met");
    tape.at(33, loss(61));
    assert_eq!(tape.state.verdict(), Verdict::ObjectiveMissed);
    let mut late = Tape::new(&[]);
    late.declared(0).passed(0, 10, "look").passed(10, 20, "restore").passed(20, 21, "count");
    late.passed(21, 101, "smoke").passed(101, 102, "afterwards");
    assert_eq!(late.state.verdict(), Verdict::ObjectiveMissed);
    let mut failed = Tape::new(&[]);
    failed.declared(0).started(0, "look");
    failed.ended(1, "look", Outcome::failed(crate::event::Failure::new("look", "no")));
    assert_eq!(failed.state.verdict(), Verdict::Failed);
}

#[test]
fn the_forecast_follows_the_longest_path_and_the_steps_own_words() {
    let mut tape =
        Tape::new(&[("look", 5.0), ("restore", 40.0), ("count", 1.0), ("smoke", 4.0), ("afterwards", 500.0)]);
    tape.declared(0);
    let forecast = tape.state.forecast(s(0)).unwrap();
    assert_eq!((forecast.rto, forecast.remaining), (s(50), s(50)), "what comes after the last proof is left out");
    assert_eq!(tape.state.decide_by(s(0)), Some(s(50)));
    tape.passed(0, 10, "look").started(10, "restore");
    assert_eq!(tape.state.forecast(s(20)).unwrap().rto, s(20 + 30 + 5));
    let progress = crate::event::Progress {
        lane: "replay".into(),
        done: 1,
        total: Some(2),
        unit: crate::event::Unit::Bytes,
        position: None,
        rate: None,
        eta_seconds: Some(70.0),
    };
    tape.at(20, Event::Progressed { step: "restore".into(), progress });
    assert_eq!(tape.state.forecast(s(20)).unwrap().rto, s(20 + 70 + 5));
    assert_eq!(tape.state.decide_by(s(20)), Some(s(25)));
}

#[test]
fn events_of_a_step_that_does_not_exist_change_nothing() {
    let mut tape = Tape::new(&[]);
    tape.declared(0);
    let before = tape.state.steps.clone();
    tape.passed(1, 2, "no-such-step");
    assert_eq!(tape.state.steps, before);
}

#[test]
fn a_phase_takes_as_long_as_its_attempts_and_not_the_waits_between_them() {
    let mut tape = Tape::new(&[]);
    let failed = || Outcome::failed(crate::event::Failure::new("restore", "no"));
    tape.declared(10).passed(10, 20, "look").asked(20, "restore").answered(50, "restore");
    tape.started(50, "restore").ended(60, "restore", failed());
    assert_eq!(tape.state.phase_duration(1, s(500)), Some(s(10)), "a failed step that waits for a person");
    tape.started(560, "restore").ended(570, "restore", Outcome::passed("ok"));
    // Side by side: counted once.
    tape.started(565, "count");
    assert_eq!(tape.state.phase_duration(1, s(580)), Some(s(30)));
    tape.ended(590, "count", Outcome::passed("ok"));
    assert_eq!(tape.state.phase_duration(1, s(900)), Some(s(40)));
    assert_eq!(tape.state.phase_duration(2, s(900)), None);
}
