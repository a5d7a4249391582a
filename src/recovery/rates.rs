//! Commits and WAL by time, in a bounded number of steps however long the time is.

use chrono::{DateTime, DurationRound as _, TimeDelta, Utc};

use crate::event::{Lsn, Rate};
use crate::system::postgres::wal::{CommitAt, Pace, Span};

/// Steps of the coarse rate, at most; it takes longer steps when it has more.
const STEPS: usize = 1024;

/// Around the anchor, each way: the length of the finer rates, and of their steps, in milliseconds.
const FINE: [(i64, u64); 2] = [(30 * 60_000, 1_000), (60_000, 100)];

/// Rates under construction, from the seconds of each segment; the commits themselves are asked for only where a step is
/// finer. Commit times run back by a few milliseconds now and then; a commit before the first step counts in it.
pub struct Rates {
    coarse: Option<Rate>,
    fine: Vec<Rate>,
    /// Where the WAL begins, and then the end of the last commit.
    end: Lsn,
}

impl Rates {
    /// `anchor` is where a person will look: the incident, else the end.
    pub fn around(anchor: Option<DateTime<Utc>>, from: Lsn) -> Self {
        let fine = anchor.into_iter().flat_map(|anchor| FINE.map(|(reach, step_ms)| rate(anchor, reach, step_ms)));
        Self { coarse: None, fine: fine.collect(), end: from }
    }

    /// Takes the next segment: its commits, these by the second, and where to get them one by one.
    pub fn segment<E>(
        &mut self,
        span: &Span,
        pace: &[Pace],
        commits: impl FnOnce() -> Result<Vec<CommitAt>, E>,
    ) -> Result<(), E> {
        // What lies between the segments is the first commit's.
        let before = span.first.end.0.saturating_sub(self.end.0);
        let start = std::mem::replace(&mut self.end, span.last.end);
        let first = span.first.time.timestamp();
        let seconds: Vec<(DateTime<Utc>, u64, u64)> = pace
            .iter()
            .map(|pace| {
                let at = DateTime::from_timestamp(pace.second, 0).unwrap_or_default();
                (at, pace.commits, pace.bytes + if pace.second == first { before } else { 0 })
            })
            .collect();
        let coarse = self.coarse.get_or_insert_with(|| Rate {
            from: DateTime::from_timestamp(first, 0).unwrap_or_default(),
            step_ms: 1_000,
            commits_before: 0,
            bytes_before: 0,
            commits: Vec::new(),
            bytes: Vec::new(),
        });
        seconds.iter().for_each(|(at, commits, bytes)| grow(coarse, *at, *commits, *bytes));
        let mut commits = Some(commits);
        for fine in &mut self.fine {
            // Whole seconds are enough where its steps are, and for what lies before them.
            if fine.step_ms >= 1_000 || span.latest < fine.from {
                seconds.iter().for_each(|(at, commits, bytes)| add(fine, *at, *commits, *bytes));
            } else if span.earliest < fine.to()
                && let Some(commits) = commits.take()
            {
                let mut end = start;
                for commit in commits()? {
                    add(fine, commit.time, 1, commit.end.0.saturating_sub(end.0));
                    end = commit.end;
                }
            }
        }
        Ok(())
    }

    /// The coarse one first; fine ones that hold nothing are left out.
    pub fn finish(self) -> Vec<Rate> {
        let fine = self.fine.into_iter().filter(|rate| rate.commits.iter().any(|commits| *commits > 0));
        self.coarse.into_iter().chain(fine).collect()
    }
}

/// Counts in a rate that grows at its end.
fn grow(rate: &mut Rate, at: DateTime<Utc>, commits: u64, bytes: u64) {
    loop {
        let index = index(rate, at).unwrap_or(0);
        if index < STEPS {
            let length = rate.commits.len().max(index + 1);
            rate.commits.resize(length, 0);
            rate.bytes.resize(length, 0);
            rate.commits[index] += commits;
            rate.bytes[index] += bytes;
            return;
        }
        rate.step_ms *= 2;
        for counts in [&mut rate.commits, &mut rate.bytes] {
            *counts = counts.chunks(2).map(|pair| pair.iter().sum()).collect();
        }
    }
}

/// Counts in a rate of a fixed length.
fn add(rate: &mut Rate, at: DateTime<Utc>, commits: u64, bytes: u64) {
    match index(rate, at) {
        None => {
            rate.commits_before += commits;
            rate.bytes_before += bytes;
        }
        Some(index) if index < rate.commits.len() => {
            rate.commits[index] += commits;
            rate.bytes[index] += bytes;
        }
        Some(_) => {}
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
mod tests;
