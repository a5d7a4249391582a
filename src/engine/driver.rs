//! The one loop. Nothing awaits while it changes the state.

mod command;
mod look;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{broadcast, mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::action::{self, Context, Sink};
use crate::clock::SharedClock;
use crate::drill::{DrillState, StepStatus};
use crate::event::{Answer, Ask, Command, Envelope, Event, Failure, Outcome, Status, UNATTENDED, Verdict};
use crate::inventory::Inventory;
use crate::journal::{BLOB_CAP, BlobWriter, DrillDir, Journal, JournalError};
use crate::mutant;
use crate::runbook::Undo;
use crate::secret::Redactor;

use super::attempt::{Attempt, Report};
use super::decide::{Effect, decide, next_due};
use super::feed::Feed;
use super::guard;
use super::judge::{Skip, captured, judge, skipped};
use super::lease::give_back;
use super::redact::redacted;
use super::resume::cut_off;
use super::unattended::{Reply, Unattended};
use look::Looks;

/// Reports that may wait for the driver before attempts are held back.
const REPORTS: usize = 256;
/// Messages that may wait between an action and its attempt.
const MESSAGES: usize = 64;

#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    #[error("the journal can no longer be written, so the drill stopped before its next effect: {0}")]
    Journal(#[from] JournalError),
}

/// How a run of the engine ended.
#[derive(Debug, Clone, PartialEq)]
pub enum RunEnd {
    Finished(Verdict),
    /// The program leaves; `lifeboat resume` goes on from here.
    Left,
    /// Headless, and only a person can answer; `lifeboat resume` goes on from here.
    NeedsPerson {
        step: String,
        why: String,
    },
}

/// The operator's side of a running engine.
#[derive(Clone)]
pub struct Handle {
    pub commands: mpsc::Sender<Command>,
    /// Of operators at other terminals, with their names.
    pub others: mpsc::Sender<(String, Command)>,
    pub feed: Feed,
    /// Why a command was not carried out.
    pub refusals: broadcast::Sender<String>,
    /// Cancelled when the program is to leave.
    pub leave: CancellationToken,
}

/// What does not change while the drill runs.
pub(super) struct Fixed {
    pub inventory: Arc<Inventory>,
    pub bindings: Arc<BTreeMap<String, String>>,
    pub sources: Arc<BTreeMap<String, String>>,
    pub dir: DrillDir,
    pub lifeboat: PathBuf,
    pub clock: SharedClock,
    pub redactor: Redactor,
    pub unattended: Option<Unattended>,
}

/// The engine of one drill.
pub struct Driver {
    fixed: Fixed,
    journal: Journal,
    feed: Feed,
    commands: mpsc::Receiver<Command>,
    others: mpsc::Receiver<(String, Command)>,
    refusals: broadcast::Sender<String>,
    leave: CancellationToken,
    reports: mpsc::Receiver<(usize, Report)>,
    reporter: mpsc::Sender<(usize, Report)>,
    running: BTreeMap<usize, Running>,
    needs_person: Option<(String, String)>,
    looks: Looks,
}

/// What an attempt of a step executes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Work {
    Step,
    Undo,
    Probe,
}

/// An attempt under way.
struct Running {
    work: Work,
    cancel: CancellationToken,
    reply: Option<oneshot::Sender<Answer>>,
    /// Elapsed time at which it is ended, and whether it was.
    deadline: Option<Duration>,
    timed_out: bool,
    /// The reason of the operator who skipped it while it ran.
    skip: Option<String>,
    /// Since when it waits for a person: that time does not count against its deadline.
    asked_at: Option<Duration>,
}

impl Driver {
    pub(super) fn new(fixed: Fixed, journal: Journal, state: DrillState) -> (Self, Handle) {
        let feed = Feed::new(state);
        let (sender, commands) = mpsc::channel(MESSAGES);
        let (other, others) = mpsc::channel(MESSAGES);
        let refusals = broadcast::channel(MESSAGES).0;
        let (reporter, reports) = mpsc::channel(REPORTS);
        let leave = CancellationToken::new();
        let handle = Handle {
            commands: sender,
            others: other,
            feed: feed.clone(),
            refusals: refusals.clone(),
            leave: leave.clone(),
        };
        let driver = Self {
            fixed,
            journal,
            feed,
            commands,
            others,
            refusals,
            leave,
            reports,
            reporter,
            running: BTreeMap::new(),
            needs_person: None,
            looks: Looks::default(),
        };
        (driver, handle)
    }

    /// No person is there to answer.
    pub fn is_unattended(&self) -> bool {
        self.fixed.unattended.is_some()
    }

    /// Runs the drill to its end, or until the program is to leave.
    pub async fn run(mut self) -> Result<RunEnd, EngineError> {
        let result = self.turn().await;
        for running in self.running.values() {
            running.cancel.cancel();
        }
        // Children get their grace. What passed meanwhile is recorded; what was cut off is not called a failure: it is in
        // doubt.
        while result.is_ok() && !self.running.is_empty() {
            match self.reports.recv().await {
                Some((index, Report::Finished { outcome, output })) if outcome.status == Status::Passed => {
                    self.finished(index, *outcome, output)?;
                }
                Some((index, Report::Finished { outcome, .. })) => {
                    self.running.remove(&index);
                    if !mutant::removes("21c") {
                        let why = format!("it was ended together with the program: {}", outcome.summary);
                        self.emit_one(self.feed.read(|state| cut_off(state, index, why)))?;
                    }
                }
                Some(_) => {}
                None => break,
            }
        }
        if let Ok(RunEnd::Finished(_)) = result {
            give_back(&self.fixed, &self.feed.snapshot()).await;
        }
        result
    }

    async fn turn(&mut self) -> Result<RunEnd, EngineError> {
        self.take_up()?;
        self.look_around();
        loop {
            self.carry_out()?;
            if let Some(verdict) = self.feed.read(|state| state.finished.map(|(_, verdict)| verdict)) {
                return Ok(RunEnd::Finished(verdict));
            }
            // What works by itself is not cut off because another step needs a person.
            let only_waiting = self.running.values().all(|running| running.reply.is_some());
            if let Some((step, why)) = self.needs_person.take_if(|_| only_waiting) {
                return Ok(RunEnd::NeedsPerson { step, why });
            }
            let wake = self.next_wake();
            let clock = self.fixed.clock.clone();
            let timer = async move {
                match wake {
                    Some(after) => clock.sleep(after).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = self.leave.cancelled() => return Ok(RunEnd::Left),
                command = self.commands.recv() => match command {
                    Some(command) => {
                        let by = self.feed.read(|state| state.operator.clone());
                        self.command(command, by)?;
                    }
                    // Every handle is gone: nobody can answer any more.
                    None => return Ok(RunEnd::Left),
                },
                Some((by, command)) = self.others.recv() => self.command(command, by)?,
                report = self.reports.recv() => {
                    if let Some((index, report)) = report {
                        self.report(index, report)?;
                    }
                }
                Some(seen) = self.looks.next() => self.seen(seen)?,
                () = timer => self.end_overdue(),
            }
        }
    }

    fn elapsed(&self) -> Duration {
        let now = self.fixed.clock.now();
        self.feed.read(|state| state.elapsed_at(now))
    }

    fn next_wake(&self) -> Option<Duration> {
        let deadlines =
            self.running.values().filter(|r| r.asked_at.is_none() && !r.timed_out).filter_map(|r| r.deadline);
        let due = deadlines.chain(self.feed.read(next_due)).min()?;
        Some(due.saturating_sub(self.elapsed()))
    }

    /// Takes known secrets out of events, makes them durable, then lets them be seen.
    fn emit(&mut self, events: Vec<Event>) -> Result<(), EngineError> {
        let stamp = self.fixed.clock.now();
        let first = self.feed.read(|state| state.next_seq);
        let envelopes: Vec<Envelope> = (first..)
            .zip(events)
            .map(|(seq, event)| Envelope {
                seq,
                at: stamp.wall,
                boot_ms: u64::try_from(stamp.boot.as_millis()).unwrap_or(u64::MAX),
                event: redacted(&self.fixed.redactor, event),
            })
            .collect();
        self.journal.append_all(&envelopes)?;
        for envelope in envelopes {
            let (event, step) = envelope.event.label();
            match envelope.event {
                // The journal has these; a log of them would only be long.
                Event::Output { .. } | Event::Progressed { .. } => tracing::debug!(seq = envelope.seq, step, event),
                _ => tracing::info!(seq = envelope.seq, step, event),
            }
            self.feed.publish(envelope);
        }
        Ok(())
    }

    fn emit_one(&mut self, event: Event) -> Result<(), EngineError> {
        self.emit(vec![event])
    }

    fn carry_out(&mut self) -> Result<(), EngineError> {
        loop {
            let now = self.elapsed();
            let effects = self.without_waiting(self.feed.read(|state| decide(state, now)));
            if effects.is_empty() || self.needs_person.is_some() {
                return Ok(());
            }
            if effects == [Effect::CancelAll] {
                self.running.values().for_each(|running| running.cancel.cancel());
                return Ok(());
            }
            for effect in effects {
                self.perform(effect)?;
            }
        }
    }

    fn perform(&mut self, effect: Effect) -> Result<(), EngineError> {
        let id = |index: usize| self.feed.read(|state| state.runbook.steps[index].id.clone());
        match effect {
            Effect::Start { step } => {
                // Trying a failed or doubtful undo again is to undo, never to do the step once more.
                let undo = self.feed.read(|state| {
                    let progress = &state.steps[step];
                    progress.undoing && matches!(progress.status, StepStatus::Failed | StepStatus::InDoubt)
                });
                self.start(step, if undo { Work::Undo } else { Work::Step })
            }
            Effect::Probe { step } => self.start(step, Work::Probe),
            Effect::Undo { step } => self.start(step, Work::Undo),
            Effect::NotNeeded { step, why } => self.emit_one(Event::StepNotNeeded { step: id(step), why }),
            Effect::ScheduleRetry { step, after } => {
                let attempt = self.feed.read(|state| state.steps[step].attempt() + 1);
                let after_ms = u64::try_from(after.as_millis()).unwrap_or(u64::MAX);
                self.emit_one(Event::RetryScheduled { step: id(step), attempt, after_ms })
            }
            Effect::Ask { step, ask } => self.ask(step, ask),
            Effect::Finish { verdict } => self.emit_one(Event::DrillFinished { verdict }),
            Effect::CancelAll => Ok(()),
        }
    }

    /// Puts a question on the table; without a person, answers it or says that a person is needed.
    fn ask(&mut self, index: usize, ask: Ask) -> Result<(), EngineError> {
        let step = self.feed.read(|state| state.runbook.steps[index].id.clone());
        self.emit_one(Event::Asked { step: step.clone(), ask: Box::new(ask.clone()) })?;
        self.reply(step, &ask)
    }

    /// What an earlier process asked is still open.
    fn take_up(&mut self) -> Result<(), EngineError> {
        let open: Vec<(String, Ask)> = self.feed.read(|state| {
            let ask = |index: usize| Some((state.runbook.steps[index].id.clone(), state.ask_of(index)?.clone()));
            state.waiting().filter_map(ask).collect()
        });
        open.into_iter().try_for_each(|(step, ask)| self.reply(step, &ask))
    }

    /// Without a person.
    fn reply(&mut self, step: String, ask: &Ask) -> Result<(), EngineError> {
        if let Some(unattended) = &self.fixed.unattended {
            match unattended.reply(&step, ask) {
                Reply::Answer(answer) => {
                    let by = format!("{UNATTENDED} ({})", unattended.source(&step, ask));
                    let command = Command::Answer { step: step.clone(), answer: answer.clone() };
                    match self.feed.read(|state| guard::admits(state, &command)) {
                        Ok(()) => return self.answer(&step, answer, &by),
                        Err(refusal) => drop(self.needs_person.get_or_insert((step, refusal.to_string()))),
                    }
                }
                Reply::NeedsPerson { why } => {
                    self.needs_person.get_or_insert((step, why));
                }
            }
        }
        Ok(())
    }

    /// The intent becomes durable, then the attempt starts.
    fn start(&mut self, index: usize, work: Work) -> Result<(), EngineError> {
        if self.running.contains_key(&index) || (work == Work::Step && self.looks_first(index)) {
            return Ok(());
        }
        let now = self.elapsed();
        let snapshot = self.feed.snapshot();
        let (step, progress) = (&snapshot.runbook.steps[index], &snapshot.steps[index]);
        let attempt = progress.attempt() + 1;
        let effect_key = match progress.reopened {
            0 => step.id.clone(),
            n => format!("{}#{}", step.id, n + 1),
        };
        let target = step.system.as_ref().and_then(|role| snapshot.opening.systems.get(role));
        self.emit_one(Event::StepStarted {
            step: step.id.clone(),
            attempt,
            effect_key: effect_key.clone(),
            target: target.map(|system| guard::fingerprint(&snapshot, system)),
            undo: work == Work::Undo,
            probe: work == Work::Probe,
        })?;
        let (sink, messages) = Sink::channel(MESSAGES);
        let cancel = CancellationToken::new();
        let context = Context {
            runbook: snapshot.runbook.clone(),
            inventory: self.fixed.inventory.clone(),
            bindings: self.fixed.bindings.clone(),
            step: index,
            attempt,
            effect_key,
            drill: snapshot.opening.drill.clone(),
            mode: snapshot.opening.mode,
            operator: snapshot.operator.clone(),
            variables: Arc::new(snapshot.variables.clone()),
            drill_dir: self.fixed.dir.path().to_owned(),
            sources: self.fixed.sources.clone(),
            answered: target.and_then(|system| Some(snapshot.identities.get(&system.name)?.1.clone())),
            lifeboat: self.fixed.lifeboat.clone(),
            clock: self.fixed.clock.clone(),
            redactor: self.fixed.redactor.clone(),
            cancel: cancel.clone(),
            unattended: self.fixed.unattended.is_some(),
            sink,
        };
        let blob = BlobWriter::create(&self.fixed.dir.output(), BLOB_CAP)
            .inspect_err(|error| tracing::error!(%error, "the output of a step will not be kept"))
            .ok();
        let own = match work {
            Work::Step => None,
            Work::Undo => step.undo.as_ref().and_then(|undo| match undo {
                Undo::Command { argv } => Some(argv),
                _ => None,
            }),
            Work::Probe => step.probe.as_ref(),
        };
        // A command that undoes runs forward: it has no way back of its own.
        let backwards = work == Work::Undo && own.is_none();
        let action: Arc<dyn action::Action> = match own {
            Some(argv) => action::command_for(argv.clone()),
            None => action::for_kind(&step.kind),
        };
        self.running.insert(
            index,
            Running {
                work,
                cancel,
                reply: None,
                deadline: step.timeout.map(|timeout| now + timeout),
                timed_out: false,
                skip: None,
                asked_at: None,
            },
        );
        let reports = self.reporter.clone();
        tokio::spawn(Attempt { action, context, undo: backwards, messages, blob, reports }.run());
        Ok(())
    }

    fn end_overdue(&mut self) {
        let now = self.elapsed();
        for running in self.running.values_mut().filter(|running| running.asked_at.is_none()) {
            if running.deadline.is_some_and(|deadline| deadline <= now) && !running.timed_out {
                running.timed_out = true;
                running.cancel.cancel();
            }
        }
    }

    fn report(&mut self, index: usize, report: Report) -> Result<(), EngineError> {
        let step = self.feed.read(|state| state.runbook.steps[index].id.clone());
        match report {
            Report::Output { lines, skipped_bytes } => self.emit_one(Event::Output { step, lines, skipped_bytes }),
            Report::Progress(progress) => self.emit_one(Event::Progressed { step, progress }),
            Report::Measure(measure) => self.emit_one(Event::Measured { measure }),
            Report::Set { name, value } => self.emit_one(Event::VariableSet { name, value }),
            Report::Ask { ask, reply } => {
                let now = self.elapsed();
                if let Some(running) = self.running.get_mut(&index) {
                    running.reply = Some(reply);
                    running.asked_at = Some(now);
                }
                self.ask(index, *ask)
            }
            Report::Finished { outcome, output } => self.finished(index, *outcome, output),
        }
    }

    fn finished(
        &mut self,
        index: usize,
        outcome: Outcome,
        output: Option<crate::event::BlobRef>,
    ) -> Result<(), EngineError> {
        let Some(running) = self.running.remove(&index) else { return Ok(()) };
        let (step, attempt, judged) = self.feed.read(|state| {
            let step = &state.runbook.steps[index];
            let judged = match running.work {
                Work::Step => judge(step, outcome, |text| state.expand(text)),
                Work::Undo | Work::Probe => outcome,
            };
            (step.clone(), state.steps[index].attempt(), judged)
        });
        let mut outcome = judged;
        if running.timed_out && outcome.status != Status::Passed {
            let limit = step.timeout.map_or_else(String::new, |t| humantime::format_duration(t).to_string());
            outcome.status = Status::TimedOut;
            // Not everything that a step starts ends with it: a cloud goes on.
            let own = outcome.failure.take().and_then(|failure| failure.now);
            let now = own.unwrap_or_else(|| {
                "It was ended together with everything it had started. Look at the output before you retry.".to_owned()
            });
            outcome.failure = Some(
                Failure::new(format!("`{}` did not end within its time limit of {limit}", step.id), outcome.summary)
                    .now(now),
            );
            outcome.summary = format!("not done within {limit}");
        }
        let captured = match (running.work, outcome.status) {
            (Work::Step, Status::Passed) => captured(&step, &outcome),
            _ => Vec::new(),
        };
        let skipped = skipped(&outcome, running.skip);
        let id = step.id.clone();
        let mut events = vec![match (running.work, outcome.status) {
            (Work::Probe, Status::Passed) => {
                let outcome = Outcome::passed("its probe says that it had been done before the program ended");
                Event::StepFinished { step: id, attempt, outcome: Box::new(outcome), output }
            }
            (Work::Probe, _) => {
                let why = format!(
                    "the program ended while it ran, and its probe does not say that it was done: {}",
                    outcome.summary
                );
                Event::StepInDoubt { step: id, attempt, why, living: Vec::new() }
            }
            _ => Event::StepFinished { step: id, attempt, outcome: Box::new(outcome), output },
        }];
        events.extend(captured.into_iter().map(|(name, value)| Event::VariableSet { name, value }));
        match skipped {
            Skip::No => {}
            Skip::Yes { reason } => {
                let by = self.feed.read(|state| state.operator.clone());
                events.push(Event::StepSkipped { step: step.id, reason, by });
            }
            Skip::TooLate => drop(self.refusals.send(format!("`{}` passed before it could be skipped", step.id))),
        }
        self.emit(events)
    }
}
