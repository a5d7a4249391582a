//! One attempt of a step: the action runs in a task of its own, its output is made safe, sampled and kept, and what is
//! left reaches the driver at a pace that a journal can keep.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use crate::action::{Action, Context, SinkMessage};
use crate::clock::SharedClock;
use crate::event::{Answer, Ask, BlobRef, Failure, Line, Measure, Outcome, Progress, Status, Stream};
use crate::journal::BlobWriter;
use crate::mutant;
use crate::process::GRACE;
use crate::secret::{RedactedStream, Redactor};

use super::sanitise::Lines;

/// How long output is gathered before it becomes an event.
const GATHER: Duration = Duration::from_millis(100);
/// Bytes of output that go into the journal as they are; beyond, only samples do.
const FREELY: u64 = 256 * 1024;
/// Lines of one event, at most; the newest are kept.
const BATCH: usize = 200;
/// Lines of one event once [`FREELY`] is used up.
const SAMPLE: usize = 20;
/// How long an action that was told to end may still take: a child's two graces and a little. Then it is dropped, and with it
/// what it holds.
const LAST: Duration = Duration::from_secs(3 * GRACE.as_secs());

/// What reaches the driver.
#[derive(Debug)]
pub enum Report {
    Output { lines: Vec<Line>, skipped_bytes: u64 },
    Progress(Progress),
    Measure(Measure),
    Set { name: String, value: serde_json::Value },
    Ask { ask: Box<Ask>, reply: oneshot::Sender<Answer> },
    Finished { outcome: Box<Outcome>, output: Option<BlobRef> },
}

/// An attempt about to run; [`Attempt::run`] sends everything that happens, `Finished` last.
pub struct Attempt {
    pub action: Arc<dyn Action>,
    pub context: Context,
    pub undo: bool,
    pub messages: mpsc::Receiver<SinkMessage>,
    pub blob: Option<BlobWriter>,
    pub reports: mpsc::Sender<(usize, Report)>,
}

impl Attempt {
    pub async fn run(self) {
        let Self { action, context, undo, mut messages, blob, reports } = self;
        let index = context.step;
        let mut output = OutputPipe::new(&context.redactor, blob);
        let clock = context.clock.clone();
        let step = context.step().id.clone();
        let overdue = {
            let (cancel, clock) = (context.cancel.clone(), clock.clone());
            async move {
                cancel.cancelled().await;
                clock.sleep(LAST).await;
            }
        };
        tokio::pin!(overdue);
        let work = tokio::spawn(async move {
            match undo {
                false => action.run(context).await,
                true => match action.undo(context) {
                    Some(work) => work.await,
                    None => Outcome::failed(Failure::new("undo", "this step has no way back")),
                },
            }
        });
        let mut lanes: Vec<Progress> = Vec::new();
        let mut flush: Option<crate::clock::Sleep> = None;
        loop {
            let message = tokio::select! {
                message = messages.recv() => message,
                () = due(&mut flush) => {
                    flush = None;
                    send_gathered(&reports, index, &mut output, &mut lanes).await;
                    continue;
                }
                () = &mut overdue => {
                    work.abort();
                    break;
                }
            };
            match message {
                // Every sender is gone: the action has returned.
                None => break,
                Some(SinkMessage::Output { stream, bytes }) => output.push(stream, &bytes),
                Some(SinkMessage::Progress(progress)) => match lanes.iter_mut().find(|l| l.lane == progress.lane) {
                    Some(lane) => *lane = progress,
                    None => lanes.push(progress),
                },
                Some(SinkMessage::Measure(measure)) => send(&reports, index, Report::Measure(measure)).await,
                Some(SinkMessage::Set { name, value }) => send(&reports, index, Report::Set { name, value }).await,
                Some(SinkMessage::Ask { ask, reply }) => {
                    // What was said before the question is seen before it.
                    send_gathered(&reports, index, &mut output, &mut lanes).await;
                    send(&reports, index, Report::Ask { ask, reply }).await;
                }
            }
            flush.get_or_insert_with(|| gather(&clock));
        }
        let outcome = match work.await {
            Ok(outcome) => outcome,
            Err(error) if error.is_cancelled() => {
                Outcome { status: Status::Cancelled, ..Outcome::failed(Failure::new(step, "cancelled")) }
            }
            Err(error) => {
                tracing::error!(%error, step, "an action panicked");
                Outcome::failed(
                    Failure::new(format!("`{step}` hit a defect in Lifeboat itself"), error)
                        .now("Look at the system by hand, then retry or skip with a reason. The log has more."),
                )
            }
        };
        let kept = output.finish();
        send_gathered(&reports, index, &mut output, &mut lanes).await;
        send(&reports, index, Report::Finished { outcome: Box::new(outcome), output: kept }).await;
    }
}

fn gather(clock: &SharedClock) -> crate::clock::Sleep {
    clock.sleep(GATHER)
}

async fn due(flush: &mut Option<crate::clock::Sleep>) {
    match flush {
        Some(sleep) => sleep.await,
        None => std::future::pending().await,
    }
}

async fn send(reports: &mpsc::Sender<(usize, Report)>, index: usize, report: Report) {
    // The driver is gone only when the program ends.
    let _ = reports.send((index, report)).await;
}

async fn send_gathered(
    reports: &mpsc::Sender<(usize, Report)>,
    index: usize,
    output: &mut OutputPipe,
    lanes: &mut Vec<Progress>,
) {
    if let Some((lines, skipped_bytes)) = output.gathered() {
        send(reports, index, Report::Output { lines, skipped_bytes }).await;
    }
    for progress in lanes.drain(..) {
        send(reports, index, Report::Progress(progress)).await;
    }
}

/// Redacts, keeps the whole in a blob, makes lines, samples them.
struct OutputPipe {
    channels: [Channel; 3],
    blob: Option<BlobWriter>,
    gathered: std::collections::VecDeque<Line>,
    /// Bytes already given to the journal.
    journalled: u64,
    skipped: u64,
}

struct Channel {
    stream: Stream,
    redacted: RedactedStream,
    lines: Lines,
}

impl OutputPipe {
    fn new(redactor: &Redactor, blob: Option<BlobWriter>) -> Self {
        Self {
            channels: [Stream::Out, Stream::Err, Stream::Lifeboat].map(|stream| Channel {
                stream,
                redacted: redactor.stream(),
                lines: Lines::default(),
            }),
            blob,
            gathered: std::collections::VecDeque::new(),
            journalled: 0,
            skipped: 0,
        }
    }

    fn push(&mut self, stream: Stream, bytes: &[u8]) {
        let Some(channel) = self.channels.iter_mut().find(|channel| channel.stream == stream) else { return };
        let safe = channel.redacted.push(bytes);
        if let Some(blob) = &mut self.blob {
            blob.push(&safe);
        }
        let limit = if self.journalled > FREELY { SAMPLE } else { BATCH };
        let limit = if mutant::removes("25b") { usize::MAX } else { limit };
        let (gathered, skipped) = (&mut self.gathered, &mut self.skipped);
        channel.lines.push(&safe, |text| {
            gathered.push_back(Line { stream, text });
            while gathered.len() > limit {
                *skipped += gathered.pop_front().map_or(0, |line| line.text.len() as u64 + 1);
            }
        });
    }

    fn gathered(&mut self) -> Option<(Vec<Line>, u64)> {
        if self.gathered.is_empty() {
            return None;
        }
        let lines: Vec<Line> = self.gathered.drain(..).collect();
        self.journalled += lines.iter().map(|line| line.text.len() as u64 + 1).sum::<u64>();
        Some((lines, std::mem::take(&mut self.skipped)))
    }

    /// The end of all streams; returns the blob, when anything was said.
    fn finish(&mut self) -> Option<BlobRef> {
        for channel in &mut self.channels {
            let safe = channel.redacted.finish();
            if let Some(blob) = &mut self.blob {
                blob.push(&safe);
            }
            let stream = channel.stream;
            channel.lines.push(&safe, |text| self.gathered.push_back(Line { stream, text }));
            self.gathered.extend(channel.lines.finish().map(|text| Line { stream, text }));
        }
        match self.blob.take()?.finish() {
            Ok(blob) => blob,
            Err(error) => {
                // Output is evidence, but losing it must not stop a recovery.
                tracing::error!(%error, "the output of a step could not be kept");
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{Clock as _, ManualClock, wall_now};
    use crate::inventory::Inventory;
    use futures::future::BoxFuture;

    /// It does not look at its token.
    struct Deaf;

    impl Action for Deaf {
        fn run(&self, context: Context) -> BoxFuture<'_, Outcome> {
            Box::pin(async move {
                context.sink.say("began").await;
                std::future::pending().await
            })
        }
    }

    #[tokio::test]
    async fn what_does_not_hear_that_it_is_to_end_is_dropped_after_a_grace() {
        let text = "format = 1\nid = \"x\"\ntitle = \"X\"\nowner = \"us\"\nrevision = 1\n[[phases]]\ntitle = \"One\"\n\
                    [[phases.steps]]\nid = \"a\"\ntitle = \"A\"\ndo = \"confirm\"\n";
        let clock = ManualClock::at(wall_now());
        let (sink, messages) = crate::action::Sink::channel(4);
        let context = Context {
            runbook: Arc::new(crate::runbook::parse(text, "x.toml").unwrap_or_else(|problems| panic!("{problems}"))),
            inventory: Arc::new(Inventory {
                service: "orders".into(),
                objectives: crate::runbook::Objectives::default(),
                stores: indexmap::IndexMap::new(),
                systems: indexmap::IndexMap::new(),
                connections: indexmap::IndexMap::new(),
                notify: indexmap::IndexMap::new(),
                contacts: Vec::new(),
                schedules: Vec::new(),
                path: None,
                digest: crate::digest::Digest::of(b""),
            }),
            bindings: Arc::default(),
            step: 0,
            attempt: 1,
            effect_key: "a".into(),
            drill: "d1".into(),
            mode: crate::event::Mode::Drill,
            operator: "ann".into(),
            variables: Arc::default(),
            drill_dir: "/nowhere".into(),
            sources: Arc::default(),
            answered: None,
            lifeboat: "lifeboat".into(),
            clock: Arc::new(clock.clone()),
            redactor: Redactor::default(),
            cancel: tokio_util::sync::CancellationToken::new(),
            unattended: true,
            sink,
        };
        let cancel = context.cancel.clone();
        let (reports, mut heard) = mpsc::channel(16);
        let attempt = Attempt { action: Arc::new(Deaf), context, undo: false, messages, blob: None, reports };
        let attempt = tokio::spawn(attempt.run());
        let began = clock.now().boot;
        cancel.cancel();
        while !attempt.is_finished() {
            clock.advance(Duration::from_secs(1));
            tokio::task::yield_now().await;
        }
        assert!(clock.now().boot - began >= LAST, "not before its grace");
        let mut last = None;
        while let Some((_, report)) = heard.recv().await {
            last = Some(report);
        }
        let Some(Report::Finished { outcome, .. }) = last else { panic!("{last:?}") };
        assert_eq!(outcome.status, Status::Cancelled);
    }
}
