//! Progress of one lane, said at most ten times a second.

use std::time::Duration;

use crate::clock;
use crate::event::{Progress, Unit};

/// Who is told.
pub type Report<'a> = &'a (dyn Fn(Progress) + Send + Sync);

const EVERY: Duration = Duration::from_millis(100);

pub struct Lane<'a> {
    report: Report<'a>,
    name: &'static str,
    unit: Unit,
    total: Option<u64>,
    began: Duration,
    said: Option<Duration>,
}

impl<'a> Lane<'a> {
    pub fn new(report: Report<'a>, name: &'static str, unit: Unit, total: Option<u64>) -> Self {
        Self { report, name, unit, total, began: clock::boot_now(), said: None }
    }

    pub fn total(&mut self, total: u64) {
        self.total = Some(total);
    }

    pub fn at(&mut self, done: u64) {
        let now = clock::boot_now();
        if self.said.is_none_or(|said| now.saturating_sub(said) >= EVERY) {
            self.say(done, now);
        }
    }

    /// The last word: always said.
    pub fn end(&mut self, done: u64) {
        self.say(done, clock::boot_now());
    }

    fn say(&mut self, done: u64, now: Duration) {
        self.said = Some(now);
        let seconds = now.saturating_sub(self.began).as_secs_f64();
        let rate = (seconds > 0.0 && done > 0).then(|| done as f64 / seconds);
        let left = self.total.map(|total| total.saturating_sub(done) as f64);
        let eta_seconds = left.zip(rate).map(|(left, rate)| left / rate);
        let (lane, total, unit) = (self.name.to_owned(), self.total, self.unit);
        (self.report)(Progress { lane, done, total, unit, position: None, rate, eta_seconds });
    }
}
