//! Commits a second by column of the time line.

use chrono::{DateTime, TimeDelta, Utc};

use crate::event::{History, Rate, SystemWindow};

use super::Picker;

impl Picker {
    /// Commits a second of one system for each of `columns`; `None` where nothing is known, which is not zero.
    pub fn commits(&self, system: &str, columns: usize) -> Vec<Option<f64>> {
        let history = self.window.systems.iter().find_map(|found| match found {
            SystemWindow::Postgres { system: name, history: Some(history), .. } if name == system => Some(history),
            _ => None,
        });
        let span = self.span().num_microseconds().unwrap_or(i64::MAX);
        let edge = |column: usize| {
            let part = span as f64 * column as f64 / columns.max(1) as f64;
            self.from + TimeDelta::microseconds(part as i64)
        };
        (0..columns).map(|column| frequency(history?, edge(column), edge(column + 1))).collect()
    }
}

/// By the finest steps that cover the column, else by those that cover most of it.
fn frequency(history: &History, from: DateTime<Utc>, to: DateTime<Utc>) -> Option<f64> {
    // Behind the last commit that was read nothing is known.
    let end = history.to_time?;
    let whole = seconds(to.min(end) - from);
    let mut rates: Vec<&Rate> = history.rates.iter().filter(|rate| rate.step_ms > 0).collect();
    rates.sort_by_key(|rate| rate.step_ms);
    let mut best: Option<(f64, f64)> = None;
    for rate in rates {
        let (known, commits) = count(rate, from, to.min(end));
        if known > best.map_or(0.0, |(known, _)| known * 1.001) {
            best = Some((known, commits));
        }
        if known >= whole * 0.999 {
            break;
        }
    }
    best.map(|(known, commits)| commits / known)
}

/// Seconds of the stretch that the steps cover, and the commits in them; a step that lies across an edge gives its share.
fn count(rate: &Rate, from: DateTime<Utc>, to: DateTime<Utc>) -> (f64, f64) {
    let step = rate.step_ms as f64 / 1000.0;
    let (first, last) = (seconds(from - rate.from) / step, seconds(to - rate.from) / step);
    let (first, last) = (first.max(0.0), last.min(rate.commits.len() as f64));
    if last <= first {
        return (0.0, 0.0);
    }
    let steps = first.floor() as usize..(last.ceil() as usize).min(rate.commits.len());
    let commits = steps.map(|index| {
        let inside = last.min(index as f64 + 1.0) - first.max(index as f64);
        rate.commits[index] as f64 * inside
    });
    ((last - first) * step, commits.sum())
}

fn seconds(span: TimeDelta) -> f64 {
    span.as_seconds_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(seconds, 0).unwrap()
    }

    fn history(rates: &[(i64, u64, &[u64])], end: i64) -> History {
        let rate = |&(from, step_ms, commits): &(i64, u64, &[u64])| Rate {
            from: at(from),
            step_ms,
            commits_before: 0,
            bytes_before: 0,
            bytes: vec![0; commits.len()],
            commits: commits.to_vec(),
        };
        History {
            timeline: 1,
            from: Default::default(),
            to: Default::default(),
            to_time: Some(at(end)),
            commits: 0,
            rates: rates.iter().map(rate).collect(),
            suspects: Vec::new(),
            stopped: None,
            segments: 1,
            read: 1,
            not_kept: None,
        }
    }

    #[test]
    fn the_finest_steps_that_cover_a_column_count() {
        let known = history(&[(0, 10_000, &[50, 20]), (10, 1_000, &[1, 2, 3, 4, 10])], 20);
        assert_eq!(frequency(&known, at(10), at(12)), Some(1.5));
        assert_eq!(frequency(&known, at(0), at(20)), Some(3.5));
        assert_eq!(frequency(&known, at(2), at(4)), Some(5.0), "a coarse step is spread");
        assert_eq!(frequency(&known, at(12), at(18)), Some(2.0), "the fine steps end at 15");
    }

    #[test]
    fn no_data_is_not_zero() {
        let known = history(&[(0, 10_000, &[50, 0])], 14);
        assert_eq!(frequency(&known, at(-5), at(0)), None);
        assert_eq!(frequency(&known, at(11), at(12)), Some(0.0));
        assert_eq!(frequency(&known, at(15), at(16)), None, "behind the last commit nothing was read");
        assert_eq!(frequency(&known, at(-10), at(10)), Some(5.0), "by the part that is known");
    }
}
