use std::collections::VecDeque;
use std::sync::Arc;

use crate::event::{Answer, Ask, BlobRef, Event, Line, Outcome, Progress, Status};

use super::{Elapsed, Moment};

/// Lines of output that the state keeps; the rest is in the blob.
const TAIL_LINES: usize = 2_000;

/// Where a step stands.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum StepStatus {
    #[default]
    Pending,
    /// Its gate (a key, a typed name) is asked for; it has not started.
    Gated,
    Running,
    /// Failed; the next attempt starts by itself at `due`.
    Retrying {
        due: Elapsed,
    },
    Passed,
    Failed,
    Skipped {
        reason: String,
    },
    /// `when` was false.
    NotNeeded {
        why: String,
    },
    Undone,
    /// Started before a crash, and no outcome is known.
    InDoubt,
}

impl StepStatus {
    /// Later steps may start.
    pub fn lets_pass(&self) -> bool {
        matches!(self, Self::Passed | Self::Skipped { .. } | Self::NotNeeded { .. })
    }

    pub fn has_ended(&self) -> bool {
        self.lets_pass() || matches!(self, Self::Failed | Self::Undone)
    }

    pub fn word(&self) -> &'static str {
        match self {
            Self::Pending => "to do",
            Self::Gated => "waiting for you",
            Self::Running => "running",
            Self::Retrying { .. } => "will retry",
            Self::Passed => "passed",
            Self::Failed => "failed",
            Self::Skipped { .. } => "skipped",
            Self::NotNeeded { .. } => "not needed",
            Self::Undone => "undone",
            Self::InDoubt => "in doubt",
        }
    }
}

/// A question on the table.
#[derive(Debug, Clone, PartialEq)]
pub struct PendingAsk {
    pub ask: Arc<Ask>,
    pub since: Moment,
}

/// One execution of a step.
#[derive(Debug, Clone, PartialEq)]
pub struct Attempt {
    pub number: u32,
    pub undo: bool,
    /// It only asked whether the one before it had happened.
    pub probe: bool,
    pub started: Moment,
    pub ended: Option<Moment>,
    pub outcome: Option<Outcome>,
    pub output: Option<BlobRef>,
}

/// The newest lines of a step's output.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct OutputTail {
    pub lines: VecDeque<(Elapsed, Line)>,
    /// Lines that fell out of the tail.
    pub earlier: u64,
    /// Bytes that the journal never held; they are in the blob.
    pub skipped_bytes: u64,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub struct StepState {
    pub status: StepStatus,
    pub attempts: Vec<Attempt>,
    pub ask: Option<PendingAsk>,
    /// The gate was answered: it may start.
    pub gate_open: bool,
    /// Of the newest attempt that a crash cut off.
    pub doubt: Option<Doubt>,
    /// The running attempt is the step's `undo`.
    pub undoing: bool,
    /// The operator asked for another attempt.
    pub wants_retry: bool,
    pub automatic_retries: u32,
    /// Times it was opened again after it had ended; part of the effect's key.
    pub reopened: u32,
    pub output: OutputTail,
    /// The newest progress of each lane, in the order the lanes appeared.
    pub progress: Vec<Progress>,
    /// When it last said anything.
    pub last_heard: Option<Elapsed>,
    pub skipped_by: Option<String>,
}

/// What is known of an attempt without an outcome.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Doubt {
    pub why: String,
    /// Its processes that were alive at resume.
    pub living: Vec<u32>,
}

impl StepState {
    pub fn started(&self) -> Option<Moment> {
        self.attempts.first().map(|attempt| attempt.started)
    }

    pub fn ended(&self) -> Option<Moment> {
        self.attempts.iter().rev().find(|attempt| !attempt.undo).and_then(|attempt| attempt.ended)
    }

    /// The newest forward attempt's outcome.
    pub fn outcome(&self) -> Option<&Outcome> {
        self.attempts.iter().rev().find(|attempt| !attempt.undo).and_then(|attempt| attempt.outcome.as_ref())
    }

    /// The number of the newest attempt; 0 before the first.
    pub fn attempt(&self) -> u32 {
        self.attempts.last().map_or(0, |attempt| attempt.number)
    }

    /// Index of the first kept line of output that the newest attempt said.
    pub fn newest_output(&self) -> usize {
        let since = self.attempts.last().map(|attempt| attempt.started.elapsed).unwrap_or_default();
        self.output.lines.partition_point(|(at, _)| *at < since)
    }

    /// How long its attempts have taken so far, together; the waits between them do not count.
    pub fn duration(&self, now: Elapsed) -> Option<Elapsed> {
        self.started()?;
        Some(self.spans(now).map(|(from, to)| to.saturating_sub(from)).sum())
    }

    /// From when to when its attempts ran, undoing left out.
    pub(super) fn spans(&self, now: Elapsed) -> impl Iterator<Item = (Elapsed, Elapsed)> {
        let open = matches!(self.status, StepStatus::Running | StepStatus::InDoubt);
        let last = self.attempts.len().saturating_sub(1);
        let span = move |(index, attempt): (usize, &Attempt)| {
            // One that a crash cut off has no end; the next began when it was known to be over.
            let end = match attempt.ended {
                Some(ended) => ended.elapsed,
                None if index == last && open => now,
                None => self.attempts.get(index + 1).map_or(attempt.started.elapsed, |next| next.started.elapsed),
            };
            (attempt.started.elapsed, end)
        };
        self.attempts.iter().enumerate().filter(|(_, attempt)| !attempt.undo).map(span)
    }

    pub(super) fn fold(&mut self, event: &Event, at: Moment) {
        match event {
            Event::Asked { ask, .. } => {
                self.ask = Some(PendingAsk { ask: Arc::new((**ask).clone()), since: at });
                if matches!(self.status, StepStatus::Pending) {
                    self.status = StepStatus::Gated;
                }
            }
            Event::Answered { answer, .. } => self.answered(answer),
            Event::StepStarted { attempt, undo, probe, .. } => {
                self.status = StepStatus::Running;
                self.undoing = *undo;
                self.gate_open = false;
                self.wants_retry = false;
                self.ask = None;
                self.progress.clear();
                self.last_heard = Some(at.elapsed);
                self.attempts.push(Attempt {
                    number: *attempt,
                    undo: *undo,
                    probe: *probe,
                    started: at,
                    ended: None,
                    outcome: None,
                    output: None,
                });
            }
            Event::Output { lines, skipped_bytes, .. } => {
                self.last_heard = Some(at.elapsed);
                self.output.skipped_bytes += skipped_bytes;
                self.output.lines.extend(lines.iter().map(|line| (at.elapsed, line.clone())));
                while self.output.lines.len() > TAIL_LINES {
                    self.output.lines.pop_front();
                    self.output.earlier += 1;
                }
            }
            Event::Progressed { progress, .. } => {
                self.last_heard = Some(at.elapsed);
                match self.progress.iter_mut().find(|known| known.lane == progress.lane) {
                    Some(known) => *known = progress.clone(),
                    None => self.progress.push(progress.clone()),
                }
            }
            Event::StepFinished { outcome, output, .. } => self.finished(outcome, output.as_ref(), at),
            Event::RetryScheduled { after_ms, .. } => {
                self.automatic_retries += 1;
                self.status = StepStatus::Retrying { due: at.elapsed + std::time::Duration::from_millis(*after_ms) };
            }
            Event::StepSkipped { reason, by, .. } => {
                self.ask = None;
                self.skipped_by = Some(by.clone());
                self.status = StepStatus::Skipped { reason: reason.clone() };
            }
            Event::StepNotNeeded { why, .. } => self.status = StepStatus::NotNeeded { why: why.clone() },
            Event::StepReopened { .. } => {
                self.ask = None;
                self.gate_open = false;
                self.wants_retry = false;
                self.automatic_retries = 0;
                self.reopened += 1;
                self.status = StepStatus::Pending;
            }
            Event::StepInDoubt { why, living, .. } => {
                self.doubt = Some(Doubt { why: why.clone(), living: living.clone() });
                self.ask = None;
                self.status = StepStatus::InDoubt;
            }
            _ => {}
        }
    }

    fn answered(&mut self, answer: &Answer) {
        let asked = self.ask.take();
        match (asked.as_ref().map(|pending| &*pending.ask), answer) {
            (Some(Ask::Go { .. } | Ask::TypeName { .. }), Answer::Yes | Answer::Typed { .. })
                if self.status != StepStatus::Running =>
            {
                self.gate_open = true;
            }
            (Some(Ask::InDoubt { .. }), Answer::TakenAsDone { .. }) => {
                self.status = if self.undoing { StepStatus::Undone } else { StepStatus::Passed };
            }
            (_, Answer::Retry) if self.status != StepStatus::Running => self.wants_retry = true,
            _ => {}
        }
    }

    fn finished(&mut self, outcome: &Outcome, output: Option<&BlobRef>, at: Moment) {
        self.ask = None;
        self.last_heard = Some(at.elapsed);
        if let Some(attempt) = self.attempts.last_mut() {
            attempt.ended = Some(at);
            attempt.outcome = Some(outcome.clone());
            attempt.output = output.cloned();
        }
        let passed = outcome.status == Status::Passed;
        self.status = match (self.undoing, passed) {
            (true, true) => StepStatus::Undone,
            // A failed undo leaves the effect where it was: done, and said to be so by the failure beside it.
            (true, false) => StepStatus::Failed,
            (false, true) => StepStatus::Passed,
            (false, false) => StepStatus::Failed,
        };
    }
}
