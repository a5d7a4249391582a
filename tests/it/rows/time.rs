//! Durations are boot time's, whatever the wall clock does.

use chrono::{DateTime, TimeDelta, Utc};
use lifeboat::drill::DrillState;
use lifeboat::event::{Envelope, Event};
use lifeboat::journal::Journal;

use crate::support::checkout;

fn recording() -> Vec<Envelope> {
    Journal::read(&checkout().join("recordings/restore-passes.jsonl")).unwrap().envelopes
}

fn fold(envelopes: &[Envelope]) -> DrillState {
    let mut state = DrillState::open(&envelopes[0]).unwrap();
    envelopes[1..].iter().for_each(|envelope| state.apply(envelope));
    state
}

/// Seconds of RTO, and of each phase.
fn durations(state: &DrillState) -> Vec<f64> {
    let end = state.latest.elapsed;
    let phases = (0..state.runbook.phases.len()).filter_map(|phase| state.phase_duration(phase, end));
    state.rto(end).into_iter().chain(phases).map(|duration| duration.as_secs_f64()).collect()
}

fn step(envelopes: &mut [Envelope], from: usize, by: TimeDelta) {
    let moved = |at: DateTime<Utc>| at.checked_add_signed(by).unwrap();
    envelopes[from..].iter_mut().for_each(|envelope| envelope.at = moved(envelope.at));
}

#[test]
fn row_13_a_clock_that_steps_ten_years_bends_no_duration() {
    let true_ones = durations(&fold(&recording()));
    assert!(true_ones.len() > 3 && true_ones[0] > 5.0, "{true_ones:?}");
    for days in [3653, -3653, 1, -1] {
        for from in (1..recording().len()).step_by(7) {
            let mut stepped = recording();
            step(&mut stepped, from, TimeDelta::days(days));
            let state = fold(&stepped);
            let found = durations(&state);
            let off = found.iter().zip(&true_ones).map(|(one, other)| (one - other).abs()).fold(0.0, f64::max);
            assert!(
                off < 1.0 && found.len() == true_ones.len(),
                "a duration is wrong by {off} s: {days} days at entry {from}"
            );
            assert!(!state.clock_uncertain);
        }
    }
}

/// Boot time does not reach across a reboot: then the wall clock is all there is, and that is said.
#[test]
fn row_13_what_only_the_wall_clock_knows_is_flagged() {
    let mut envelopes = recording();
    let at = envelopes.len() / 2;
    let mut started = envelopes[at].clone();
    started.event = Event::EngineStarted {
        boot_id: "another boot".into(),
        host: "here".into(),
        operator: "ann".into(),
        lifeboat_version: "0".into(),
    };
    envelopes.insert(at, started);
    for (seq, envelope) in (0..).zip(&mut envelopes) {
        envelope.seq = seq;
        if seq >= at as u64 {
            envelope.boot_ms %= 1000;
        }
    }
    step(&mut envelopes, at, TimeDelta::days(3653));
    let state = fold(&envelopes);
    assert!(state.clock_uncertain, "a duration of {:?} s passed for a measured one", durations(&state).first());
}
