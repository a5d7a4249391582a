use std::collections::BTreeMap;

use super::*;

fn time(text: &str) -> DateTime<Utc> {
    text.parse().unwrap()
}

/// Adds a segment of these commits: when, and where each ends.
fn segment(rates: &mut Rates, commits: &[(DateTime<Utc>, u64)]) {
    let commits: Vec<CommitAt> =
        commits.iter().map(|(time, end)| CommitAt { time: *time, end: Lsn(*end), ..CommitAt::default() }).collect();
    let (first, last) = (commits[0], commits[commits.len() - 1]);
    let times = || commits.iter().map(|commit| commit.time);
    let span = Span {
        number: commits.len() as u64,
        first,
        last,
        earliest: times().min().unwrap(),
        latest: times().max().unwrap(),
    };
    let mut pace: BTreeMap<i64, Pace> = BTreeMap::new();
    let mut end = first.end.0;
    for commit in &commits {
        let second = commit.time.timestamp();
        let pace = pace.entry(second).or_insert(Pace { second, ..Pace::default() });
        pace.commits += 1;
        pace.bytes += commit.end.0 - end;
        end = commit.end.0;
    }
    let pace: Vec<Pace> = pace.into_values().collect();
    rates.segment(&span, &pace, || Ok::<_, ()>(commits.clone())).unwrap();
}

#[test]
fn a_month_has_as_many_steps_as_a_minute_and_loses_no_commit() {
    let begin = time("2026-10-21T10:00:00Z");
    let mut rates = Rates::around(Some(time("2026-11-20T10:00:00.5Z")), Lsn(1000));
    let total = 31 * 24 * 60;
    let commits: Vec<(DateTime<Utc>, u64)> =
        (0..total).map(|minute| (begin + TimeDelta::minutes(minute), (minute as u64 + 11) * 100)).collect();
    commits.chunks(700).for_each(|commits| segment(&mut rates, commits));
    let rates = rates.finish();
    assert!(rates[0].commits.len() <= STEPS);
    assert_eq!(rates[0].commits.iter().sum::<u64>(), total as u64);
    assert_eq!(rates[0].bytes.iter().sum::<u64>(), total as u64 * 100);
    // The finer ones know what lies before them, and the finest tells tenths of a second.
    let before = |rate: &Rate| rate.before(time("2026-11-20T10:00:00Z")).unwrap();
    assert_eq!((rates.len(), rates[1].step_ms, rates[2].step_ms), (3, 1000, 100));
    for rate in &rates[1..] {
        assert_eq!(before(rate), (30 * 24 * 60, 30 * 24 * 60 * 100));
    }
}

#[test]
fn the_finest_steps_are_exact_across_segments() {
    let at = |millis| time("2026-11-20T10:00:00Z") + TimeDelta::milliseconds(millis);
    let mut rates = Rates::around(Some(at(0)), Lsn(0));
    segment(&mut rates, &[(at(-100_000), 10), (at(-250), 30)]);
    segment(&mut rates, &[(at(-120), 60), (at(40), 100)]);
    segment(&mut rates, &[(at(61_000), 150)]);
    let rates = rates.finish();
    let finest = rates.last().unwrap();
    let until = |millis| finest.before(at(millis)).unwrap();
    assert_eq!(finest.step_ms, 100);
    assert_eq!((until(-300), until(-200), until(-100), until(100)), ((1, 10), (2, 30), (3, 60), (4, 100)));
}

#[test]
fn a_time_that_runs_back_counts_all_the_same() {
    let mut rates = Rates::around(None, Lsn(0));
    segment(&mut rates, &[(time("2026-11-21T10:00:01Z"), 10), (time("2026-11-21T10:00:00.9Z"), 20)]);
    let rates = rates.finish();
    assert_eq!((rates[0].commits.clone(), rates[0].bytes.clone()), (vec![2], vec![20]));
}
