//! Paces a journal: the same stream of envelopes that the drill once was, at any speed, from any place.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::{Notify, broadcast};

use crate::clock::SharedClock;
use crate::drill::{DrillError, DrillState, Elapsed};
use crate::event::{Envelope, Event};
use crate::journal::{Journal, JournalError};

/// Envelopes kept for a view that is slow.
const BACKLOG: usize = 1024;

#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    #[error(transparent)]
    Journal(#[from] JournalError),
    #[error(transparent)]
    Drill(#[from] DrillError),
}

/// A recorded drill, whole.
#[derive(Clone)]
pub struct Recording {
    envelopes: Arc<[Arc<Envelope>]>,
    /// When each envelope falls due; parallel to `envelopes`.
    due: Arc<[Elapsed]>,
    /// When each step began for the first time.
    steps: Arc<[Elapsed]>,
    first: DrillState,
}

impl Recording {
    /// Reads and verifies a journal.
    pub fn open(path: &Path) -> Result<Self, ReplayError> {
        Self::of(Journal::read(path)?.envelopes)
    }

    pub fn of(envelopes: Vec<Envelope>) -> Result<Self, ReplayError> {
        let first = DrillState::open(envelopes.first().ok_or(DrillError::NoOpening)?)?;
        let mut state = first.clone();
        let mut due = vec![Elapsed::ZERO];
        let mut steps = Vec::new();
        for envelope in &envelopes[1..] {
            state.apply(envelope);
            due.push(state.latest.elapsed);
            if matches!(envelope.event, Event::StepStarted { .. }) {
                steps.push(state.latest.elapsed);
            }
        }
        steps.dedup();
        Ok(Self {
            envelopes: envelopes.into_iter().map(Arc::new).collect(),
            due: due.into(),
            steps: steps.into(),
            first,
        })
    }

    pub fn length(&self) -> Elapsed {
        self.due.last().copied().unwrap_or_default()
    }

    /// The drill as it was then, and the number of envelopes that had happened.
    pub fn at(&self, elapsed: Elapsed) -> (DrillState, usize) {
        let next = self.due.partition_point(|due| *due <= elapsed).max(1);
        let mut state = self.first.clone();
        for envelope in &self.envelopes[1..next] {
            state.apply(envelope);
        }
        (state, next)
    }
}

/// Where a replay is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Position {
    pub elapsed: Elapsed,
    pub length: Elapsed,
    /// 1.0 is real time.
    pub speed: f64,
    pub playing: bool,
    /// Counts jumps: what a view held before one is void.
    pub jumps: u64,
}

/// Plays a recording. Cheap to clone; all clones are one player.
#[derive(Clone)]
pub struct Player {
    recording: Recording,
    clock: SharedClock,
    inner: Arc<Mutex<Inner>>,
    changed: Arc<Notify>,
    envelopes: broadcast::Sender<Arc<Envelope>>,
}

struct Inner {
    /// The position at `anchor`.
    elapsed: Elapsed,
    /// Boot time.
    anchor: Duration,
    speed: f64,
    playing: bool,
    jumps: u64,
    state: DrillState,
    next: usize,
}

impl Player {
    /// Stands at the beginning, not yet playing.
    pub fn new(recording: Recording, clock: SharedClock) -> Self {
        let (state, next) = recording.at(Elapsed::ZERO);
        let inner = Inner {
            elapsed: Elapsed::ZERO,
            anchor: clock.now().boot,
            speed: 1.0,
            playing: false,
            jumps: 0,
            state,
            next,
        };
        Self {
            recording,
            clock,
            inner: Arc::new(Mutex::new(inner)),
            changed: Arc::new(Notify::new()),
            envelopes: broadcast::channel(BACKLOG).0,
        }
    }

    /// Publishes each envelope when it falls due; goes on until dropped.
    pub async fn run(self) {
        loop {
            let wait = self.publish_due();
            let timer = async {
                match wait {
                    Some(wait) => self.clock.sleep(wait).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = timer => {}
                () = self.changed.notified() => {}
            }
        }
    }

    pub fn subscribe(&self) -> (DrillState, broadcast::Receiver<Arc<Envelope>>) {
        let inner = self.lock();
        (inner.state.clone(), self.envelopes.subscribe())
    }

    /// The drill as the replay shows it now.
    pub fn snapshot(&self) -> DrillState {
        self.lock().state.clone()
    }

    pub fn position(&self) -> Position {
        let inner = self.lock();
        Position {
            elapsed: self.elapsed(&inner),
            length: self.recording.length(),
            speed: inner.speed,
            playing: inner.playing,
            jumps: inner.jumps,
        }
    }

    pub fn play(&self) {
        let at_end = self.position().elapsed >= self.recording.length();
        if at_end {
            self.seek(Elapsed::ZERO);
        }
        self.change(|inner| inner.playing = true);
    }

    pub fn pause(&self) {
        self.change(|inner| inner.playing = false);
    }

    /// `speed` is clamped to what can be watched: 1/8 to 1,000 times.
    pub fn set_speed(&self, speed: f64) {
        self.change(|inner| inner.speed = speed.clamp(0.125, 1_000.0));
    }

    pub fn seek(&self, to: Elapsed) {
        let to = to.min(self.recording.length());
        let (state, next) = self.recording.at(to);
        self.change(|inner| {
            (inner.elapsed, inner.state, inner.next) = (to, state, next);
            inner.jumps += 1;
        });
    }

    /// To the start of the next step, or of the one before.
    pub fn seek_step(&self, forward: bool) {
        // A second of grace, so that going back twice does not stay where it is while the replay plays on.
        const GRACE: Duration = Duration::from_secs(1);
        let now = self.position().elapsed;
        let steps = &self.recording.steps;
        let target = match forward {
            true => steps.iter().find(|at| **at > now).copied().unwrap_or(self.recording.length()),
            false => steps.iter().rev().find(|at| **at + GRACE < now).copied().unwrap_or_default(),
        };
        self.seek(target);
    }

    fn change(&self, change: impl FnOnce(&mut Inner)) {
        let mut inner = self.lock();
        inner.elapsed = self.elapsed(&inner);
        inner.anchor = self.clock.now().boot;
        change(&mut inner);
        drop(inner);
        self.changed.notify_one();
    }

    fn elapsed(&self, inner: &Inner) -> Elapsed {
        match inner.playing {
            true => {
                let passed = self.clock.now().boot.saturating_sub(inner.anchor);
                (inner.elapsed + passed.mul_f64(inner.speed)).min(self.recording.length())
            }
            false => inner.elapsed,
        }
    }

    /// Publishes what is due; returns how long until the next, when it plays.
    fn publish_due(&self) -> Option<Duration> {
        let mut inner = self.lock();
        let now = self.elapsed(&inner);
        while inner.next < self.recording.envelopes.len() && self.recording.due[inner.next] <= now {
            let envelope = self.recording.envelopes[inner.next].clone();
            inner.state.apply(&envelope);
            inner.next += 1;
            // No receiver: nobody watches, which is fine.
            let _ = self.envelopes.send(envelope);
        }
        if !inner.playing {
            return None;
        }
        match self.recording.due.get(inner.next) {
            Some(due) => Some(due.saturating_sub(now).div_f64(inner.speed).max(Duration::from_millis(1))),
            None => {
                (inner.elapsed, inner.playing) = (self.recording.length(), false);
                None
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("the player's lock")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;
    use crate::digest::Digest;
    use crate::event::{FORMAT, Mode, Opening};

    fn recording() -> Recording {
        let runbook = "format = 1\nid = \"r\"\ntitle = \"R\"\nowner = \"us\"\nrevision = 1\n[[phases]]\ntitle = \
                       \"One\"\n[[phases.steps]]\nid = \"a\"\ndo = \"note\"\ntext = \"x\"\n";
        let opening = Opening {
            format: FORMAT,
            drill: "d".into(),
            mode: Mode::Drill,
            service: "orders".into(),
            environment: "staging".into(),
            operator: "ann".into(),
            host: "here".into(),
            boot_id: "b".into(),
            lifeboat_version: "0".into(),
            runbook_source: runbook.into(),
            runbook_digest: Digest::of(runbook.as_bytes()),
            runbook_path: None,
            inventory_path: None,
            inventory_digest: None,
            systems: Default::default(),
            variables: Default::default(),
            rto_seconds: None,
            rpo_seconds: None,
            expected_seconds: Default::default(),
        };
        let note = |n: u64| Event::Note { text: n.to_string(), by: "ann".into() };
        let events = std::iter::once(Event::DrillOpened { opening: Box::new(opening) }).chain((1..=3).map(note));
        let envelope =
            |(seq, event)| Envelope { seq, at: chrono::DateTime::UNIX_EPOCH, boot_ms: 5_000 + seq * 10_000, event };
        Recording::of((0..).zip(events).map(envelope).collect()).unwrap()
    }

    async fn player() -> (Player, ManualClock) {
        let clock = ManualClock::at(chrono::DateTime::UNIX_EPOCH);
        let player = Player::new(recording(), Arc::new(clock.clone()));
        tokio::spawn(player.clone().run());
        (player, clock)
    }

    #[tokio::test]
    async fn envelopes_come_when_they_came() {
        let (player, clock) = player().await;
        let (mut state, mut envelopes) = player.subscribe();
        player.play();
        for notes in 1..=3 {
            tokio::task::yield_now().await;
            assert!(envelopes.try_recv().is_err());
            clock.advance(Duration::from_secs(10));
            state.apply(&envelopes.recv().await.unwrap());
            assert_eq!(state.notes.len(), notes);
        }
        assert_eq!(player.position().elapsed, Duration::from_secs(30));
    }

    #[tokio::test]
    async fn speed_and_pause_bend_time() {
        let (player, clock) = player().await;
        player.set_speed(5.0);
        player.play();
        clock.advance(Duration::from_secs(2));
        assert_eq!(player.position().elapsed, Duration::from_secs(10));
        player.pause();
        clock.advance(Duration::from_secs(100));
        assert_eq!(player.position().elapsed, Duration::from_secs(10));
    }

    #[test]
    fn a_seek_shows_the_drill_as_it_was_then() {
        let recording = recording();
        for (second, notes) in [(0, 0), (9, 0), (10, 1), (29, 2), (30, 3), (99, 3)] {
            assert_eq!(recording.at(Duration::from_secs(second)).0.notes.len(), notes, "at {second} s");
        }
    }
}
