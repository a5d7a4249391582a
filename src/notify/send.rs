//! One message to one sink: prepared once, tried until it is taken, refused for good, or the sink's patience is over.

use std::hash::{BuildHasher as _, RandomState};
use std::time::Duration;

use serde::Serialize;

use super::email::Letter;
use super::http::Post;
use super::{Message, Status, program};
use crate::clock;
use crate::event::Failure;
use crate::inventory::{NotifySink, SinkKind};
use crate::secret::Redactor;

pub(super) const CONNECT: Duration = Duration::from_secs(5);
/// One attempt, the connection included, gets the sink's patience, within these.
const ATTEMPT: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(15));
/// Between the first attempt and the second; then twice as long each time.
const PAUSE: Duration = Duration::from_millis(500);
/// However patient the sink.
const ATTEMPTS: u32 = 10;

/// Why an attempt failed.
pub(super) struct Refused {
    why: String,
    /// Another attempt may succeed.
    again: bool,
}

impl Refused {
    pub(super) fn for_now(why: impl Into<String>) -> Self {
        Self { why: why.into(), again: true }
    }

    pub(super) fn for_good(why: impl Into<String>) -> Self {
        Self { why: why.into(), again: false }
    }
}

/// What became of a message.
#[derive(Debug, Clone, Serialize)]
pub struct Delivery {
    pub sink: String,
    pub kind: &'static str,
    pub key: String,
    pub status: Status,
    /// Absent when it was delivered.
    pub failure: Option<Failure>,
}

enum Prepared {
    Post(Post),
    Letter(Box<Letter>),
    Program(Vec<String>),
}

/// Sends a message. `hidden` are names of environment variables that a program does not get to see.
pub async fn deliver(sink: &NotifySink, message: &Message, hidden: &[String], redactor: &Redactor) -> Delivery {
    // What is known by now is kept from other people's servers too.
    let message = &message.clone().redacted(redactor);
    let result = send(sink, message, hidden, redactor).await;
    let failure = result.err().map(|failure| redacted(failure, redactor));
    let (name, key) = (sink.name.as_str(), message.alert.key());
    match &failure {
        None => tracing::info!(sink = name, key, status = message.status.word(), "told"),
        Some(failure) => tracing::warn!(sink = name, key, status = message.status.word(), %failure, "not told"),
    }
    Delivery { sink: name.to_owned(), kind: sink.kind.word(), key, status: message.status, failure }
}

async fn send(sink: &NotifySink, message: &Message, hidden: &[String], redactor: &Redactor) -> Result<(), Failure> {
    let prepared = {
        let (sink, message, redactor) = (sink.clone(), message.clone(), redactor.clone());
        // A secret may come from a program that asks a vault.
        tokio::task::spawn_blocking(move || prepare(&sink, &message, &redactor))
            .await
            .map_err(|error| Failure::new("the message cannot be prepared", error))??
    };
    let deadline = clock::boot_now() + sink.patience;
    let limit = sink.patience.clamp(ATTEMPT.0, ATTEMPT.1);
    let mut pause = PAUSE;
    for attempt in 1.. {
        let result = match &prepared {
            Prepared::Post(post) => within(limit, post.attempt()).await,
            Prepared::Letter(letter) => within(limit, letter.attempt()).await,
            Prepared::Program(argv) => program::run(argv, hidden, message, limit).await,
        };
        let Err(refused) = result else { return Ok(()) };
        let wait = jittered(pause);
        if !refused.again || attempt == ATTEMPTS || clock::boot_now() + wait > deadline {
            let tries = if attempt == 1 { String::new() } else { format!(" (tried {attempt} times)") };
            let what = format!("[notify.{}] did not take the message", sink.name);
            let now =
                format!("Put the cause right, then see that it delivers: lifeboat notify test --sink {}", sink.name);
            return Err(Failure::new(what, format!("{}{tries}", refused.why)).now(now));
        }
        clock::sleep(wait).await;
        pause *= 2;
    }
    Ok(())
}

/// The clients' own limits are for the connection, or for one answer of many.
async fn within(limit: Duration, attempt: impl Future<Output = Result<(), Refused>>) -> Result<(), Refused> {
    let late = || Err(Refused::for_now(format!("it did not answer within {} s", limit.as_secs())));
    tokio::time::timeout(limit, attempt).await.unwrap_or_else(|_| late())
}

fn prepare(sink: &NotifySink, message: &Message, redactor: &Redactor) -> Result<Prepared, Failure> {
    Ok(match &sink.kind {
        SinkKind::Slack(http) | SinkKind::Pagerduty(http) | SinkKind::Webhook(http) => {
            Prepared::Post(Post::prepare(&sink.kind, http, message, redactor)?)
        }
        SinkKind::Email(email) => Prepared::Letter(Box::new(Letter::prepare(email, message, redactor)?)),
        SinkKind::Command(argv) => Prepared::Program(argv.clone()),
    })
}

pub(super) fn redacted(failure: Failure, redactor: &Redactor) -> Failure {
    Failure {
        what: redactor.text(&failure.what),
        why: redactor.text(&failure.why),
        now: failure.now.map(|now| redactor.text(&now)),
    }
}

/// Between half and one and a half: many programs that lost one server do not come back to it together.
fn jittered(pause: Duration) -> Duration {
    pause / 2 + pause.mul_f64(RandomState::new().hash_one(0) as f64 / u64::MAX as f64)
}
