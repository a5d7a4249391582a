//! Commits and WAL by time, in a bounded number of steps however long the time is.

use chrono::{DateTime, DurationRound as _, TimeDelta, Utc};

use crate::event::Rate;

/// Steps of the coarse rate, at most; it takes longer steps when it has more.
const STEPS: usize = 1024;

/// Around the anchor, each way: the length of the finer rates, and of their steps, in milliseconds.
const FINE: [(i64, u64); 2] = [(30 * 60_000, 1_000), (60_000, 100)];

/// Rates under construction. Commit times run back by a few milliseconds now and then; a commit before the first step
/// counts in it.
pub struct Rates {
    coarse: Option<Rate>,
    fine: Vec<Rate>,
    bytes: u64,
}

impl Rates {
    /// `anchor` is where a person will look: the incident, else the end.
    pub fn around(anchor: Option<DateTime<Utc>>) -> Self {
        let fine = anchor.into_iter().flat_map(|anchor| FINE.map(|(reach, step_ms)| rate(anchor, reach, step_ms)));
        Self { coarse: None, fine: fine.collect(), bytes: 0 }
    }

    /// `bytes` of WAL lie before its end.
    pub fn commit(&mut self, at: DateTime<Utc>, bytes: u64) {
        let more = bytes.saturating_sub(self.bytes);
        self.bytes += more;
        let whole = at.duration_trunc(TimeDelta::seconds(1)).unwrap_or(at);
        let coarse = self.coarse.get_or_insert_with(|| Rate {
            from: whole,
            step_ms: 1_000,
            commits_before: 0,
            bytes_before: 0,
            commits: Vec::new(),
            bytes: Vec::new(),
        });
        loop {
            let index = index(coarse, at).unwrap_or(0);
            if index < STEPS {
                let length = coarse.commits.len().max(index + 1);
                coarse.commits.resize(length, 0);
                coarse.bytes.resize(length, 0);
                coarse.commits[index] += 1;
                coarse.bytes[index] += more;
                break;
            }
            coarse.step_ms *= 2;
            for counts in [&mut coarse.commits, &mut coarse.bytes] {
                *counts = counts.chunks(2).map(|pair| pair.iter().sum()).collect();
            }
        }
        for fine in &mut self.fine {
            match index(fine, at) {
                None => {
                    fine.commits_before += 1;
                    fine.bytes_before += more;
                }
                Some(index) if index < fine.commits.len() => {
                    fine.commits[index] += 1;
                    fine.bytes[index] += more;
                }
                Some(_) => {}
            }
        }
    }

    /// The coarse one first; fine ones that hold nothing are left out.
    pub fn finish(self) -> Vec<Rate> {
        let fine = self.fine.into_iter().filter(|rate| rate.commits.iter().any(|commits| *commits > 0));
        self.coarse.into_iter().chain(fine).collect()
    }
}

fn rate(anchor: DateTime<Utc>, reach: i64, step_ms: u64) -> Rate {
    let steps = usize::try_from(2 * reach).unwrap_or(0) / usize::try_from(step_ms).unwrap_or(1);
    let from = anchor - TimeDelta::milliseconds(reach);
    let from = from.duration_trunc(TimeDelta::milliseconds(i64::try_from(step_ms).unwrap_or(1))).unwrap_or(from);
    Rate { from, step_ms, commits_before: 0, bytes_before: 0, commits: vec![0; steps], bytes: vec![0; steps] }
}

/// `None` before the first step.
fn index(rate: &Rate, at: DateTime<Utc>) -> Option<usize> {
    let after = u64::try_from((at - rate.from).num_milliseconds()).ok().filter(|_| at >= rate.from)?;
    usize::try_from(after / rate.step_ms).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    #[test]
    fn a_month_has_as_many_steps_as_a_minute_and_loses_no_commit() {
        let begin = time("2026-10-21T10:00:00Z");
        let mut rates = Rates::around(Some(time("2026-11-20T10:00:00.5Z")));
        let total = 31 * 24 * 60;
        for minute in 0..total {
            rates.commit(begin + TimeDelta::minutes(minute), (minute as u64 + 1) * 100);
        }
        let rates = rates.finish();
        assert!(rates[0].commits.len() <= STEPS);
        for rate in &rates[..1] {
            assert_eq!(rate.commits.iter().sum::<u64>(), total as u64);
            assert_eq!(rate.bytes.iter().sum::<u64>(), total as u64 * 100);
        }
        // The fine one knows what lies before it.
        let (commits, bytes) = rates[1].before(time("2026-11-20T10:00:00Z")).unwrap();
        assert_eq!((commits, bytes), (30 * 24 * 60, 30 * 24 * 60 * 100));
    }

    #[test]
    fn a_time_that_runs_back_counts_all_the_same() {
        let mut rates = Rates::around(None);
        rates.commit(time("2026-11-21T10:00:01Z"), 10);
        rates.commit(time("2026-11-21T10:00:00.9Z"), 20);
        let rates = rates.finish();
        assert_eq!((rates[0].commits.clone(), rates[0].bytes.clone()), (vec![2], vec![20]));
    }
}
