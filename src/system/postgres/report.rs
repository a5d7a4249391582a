//! What long work says while it goes on.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::sync::mpsc;

use crate::clock;
use crate::event::{Progress, Unit};

/// Something to show.
#[derive(Debug, Clone, PartialEq)]
pub enum Report {
    Progress(Progress),
    /// A sentence, or a line of the server's log.
    Line(String),
}

/// Where reports go. A receiver that is behind misses progress, never the end.
#[derive(Debug, Clone)]
pub struct Reporter(Option<mpsc::Sender<Report>>);

impl Reporter {
    pub fn channel(capacity: usize) -> (Self, mpsc::Receiver<Report>) {
        let (sender, receiver) = mpsc::channel(capacity);
        (Self(Some(sender)), receiver)
    }

    /// Nobody listens.
    pub fn silent() -> Self {
        Self(None)
    }

    pub(super) fn progress(&self, progress: Progress) {
        if let Some(sender) = &self.0 {
            // A full channel: the next one says more anyway.
            let _ = sender.try_send(Report::Progress(progress));
        }
    }

    pub(super) async fn say(&self, line: impl Into<String>) {
        if let Some(sender) = &self.0 {
            let _ = sender.send(Report::Line(line.into())).await;
        }
    }
}

/// Between two reports of one lane.
const PACE: Duration = Duration::from_millis(250);

/// How far back the rate looks.
const LATELY: Duration = Duration::from_secs(5);

/// One lane's progress: throttled, with a rate and what is left.
pub(super) struct Meter {
    lane: &'static str,
    unit: Unit,
    total: Option<u64>,
    samples: VecDeque<(Duration, u64)>,
    last: Option<Duration>,
}

impl Meter {
    pub(super) fn new(lane: &'static str, unit: Unit, total: Option<u64>) -> Self {
        Self { lane, unit, total, samples: VecDeque::new(), last: None }
    }

    /// A report, when it is time for one or the lane is done.
    pub(super) fn tick(&mut self, done: u64, position: Option<String>) -> Option<Progress> {
        let now = clock::boot_now();
        let complete = self.total.is_some_and(|total| done >= total);
        let changed = self.samples.back().is_none_or(|(_, last)| *last != done);
        if self.last.is_some_and(|last| now < last + PACE) && !(complete && changed) {
            return None;
        }
        self.last = Some(now);
        self.samples.push_back((now, done));
        while self.samples.len() > 2 && self.samples.front().is_some_and(|(at, _)| now > *at + LATELY) {
            self.samples.pop_front();
        }
        let rate = self.samples.front().and_then(|(since, before)| {
            let seconds = now.saturating_sub(*since).as_secs_f64();
            (seconds > 0.0).then(|| done.saturating_sub(*before) as f64 / seconds)
        });
        let left = self.total.map(|total| total.saturating_sub(done) as f64);
        let eta_seconds = rate.filter(|rate| *rate > 0.0).zip(left).map(|(rate, left)| left / rate);
        Some(Progress {
            lane: self.lane.to_owned(),
            done,
            total: self.total,
            unit: self.unit,
            position,
            rate,
            eta_seconds,
        })
    }
}
