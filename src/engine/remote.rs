//! A view's side of the socket: the same state, the same envelopes and the same commands as beside the engine.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixStream, unix};
use tokio::sync::{broadcast, mpsc};
use tokio::task::JoinHandle;

use crate::clock;
use crate::drill::{DrillError, DrillState};
use crate::event::{Command, Envelope};
use crate::journal::{DrillDir, JournalError, Reader};

use super::feed::Feed;
use super::link::{Request, path_of, same_user};
use super::resume::fold;

/// Bytes of a word, at most.
const LINE_CAP: u64 = 1 << 20;

/// What the engine says beside the journal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "word", rename_all = "snake_case", deny_unknown_fields)]
pub enum Word {
    /// The first word. A view of another version may not understand the rest.
    Hello { version: String },
    /// Every entry below it is durable.
    Durable { next_seq: u64 },
    /// A command was not carried out.
    Refused { why: String },
    /// The drill has ended, and this is what it left.
    After { left: Left },
}

/// What a finished drill leaves behind.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Left {
    /// The folder of the report.
    pub report: PathBuf,
    pub signed: bool,
    /// For the operator, a sentence each.
    pub lines: Vec<String>,
}

/// Of this program.
pub(super) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Requests that may wait for the socket.
const REQUESTS: usize = 64;

/// How long an engine may take for its first word.
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Debug, thiserror::Error)]
pub enum RemoteError {
    #[error("the engine of this drill runs as another user")]
    Foreign,
    #[error("its engine is lifeboat {version}, and this is {VERSION}")]
    Version { version: String },
    #[error("the engine does not answer: {0}")]
    Silent(io::Error),
    #[error(transparent)]
    Journal(#[from] JournalError),
    #[error(transparent)]
    Drill(#[from] DrillError),
}

/// A drill that another process runs.
pub struct Remote {
    /// As of the moment of attaching; `envelopes` go on from it. They end with the engine.
    pub state: DrillState,
    pub envelopes: broadcast::Receiver<Arc<Envelope>>,
    pub look: Arc<dyn Fn() -> DrillState + Send + Sync>,
    pub commands: mpsc::Sender<Command>,
    /// Refusals and last words.
    pub words: mpsc::UnboundedReceiver<Word>,
    /// Sent to, the engine ends as if its terminal had told it to; `lifeboat resume` goes on.
    pub leave: mpsc::Sender<()>,
    /// Ends when the engine has.
    pub follower: JoinHandle<()>,
}

impl Remote {
    /// `None` when no engine runs this drill. What is asked for is recorded as asked for `by` that person.
    pub async fn attach(dir: &DrillDir, by: String) -> Result<Option<Self>, RemoteError> {
        use io::ErrorKind::{ConnectionRefused, NotFound, PermissionDenied};
        let stream = match UnixStream::connect(path_of(dir)).await {
            Err(error) if matches!(error.kind(), NotFound | ConnectionRefused) => return Ok(None),
            Err(error) if error.kind() == PermissionDenied => return Err(RemoteError::Foreign),
            other => other.map_err(RemoteError::Silent)?,
        };
        if !same_user(&stream) {
            return Err(RemoteError::Foreign);
        }
        let (words, requests) = stream.into_split();
        let mut words = BufReader::new(words);
        let first = async {
            match next(&mut words).await? {
                Some(Word::Hello { version }) if version != VERSION => Ok(Err(version)),
                Some(_) => next(&mut words).await.map(Ok),
                None => Ok(Ok(None)),
            }
        };
        let first = tokio::select! {
            first = first => first.map_err(RemoteError::Silent)?,
            () = clock::sleep(PATIENCE) => return Err(RemoteError::Silent(io::ErrorKind::TimedOut.into())),
        };
        // It went away between the connection and its first words.
        let Some(Word::Durable { next_seq }) = first.map_err(|version| RemoteError::Version { version })? else {
            return Ok(None);
        };
        let mut reader = Reader::open(&dir.journal())?;
        let state = fold(&reader.follow(next_seq)?)?;
        let feed = Feed::new(state.clone());
        let (_, envelopes) = feed.subscribe();
        let look = feed.look();
        let (commands, waiting) = mpsc::channel(REQUESTS);
        let (leave, leaving) = mpsc::channel(1);
        let (sender, heard) = mpsc::unbounded_channel();
        tokio::spawn(ask(by, requests, waiting, leaving));
        let follower = tokio::spawn(follow(words, reader, feed, sender));
        Ok(Some(Self { state, envelopes, look, commands, words: heard, leave, follower }))
    }
}

/// One word; `None` at the end.
async fn next(words: &mut BufReader<unix::OwnedReadHalf>) -> io::Result<Option<Word>> {
    let mut line = Vec::new();
    words.take(LINE_CAP).read_until(b'\n', &mut line).await?;
    if !line.ends_with(b"\n") {
        return Ok(None);
    }
    serde_json::from_slice(&line).map(Some).map_err(io::Error::from)
}

/// Publishes what the engine says to be durable. When it ends, so does the stream of envelopes.
async fn follow(
    mut words: BufReader<unix::OwnedReadHalf>,
    mut journal: Reader,
    feed: Feed,
    heard: mpsc::UnboundedSender<Word>,
) {
    loop {
        match next(&mut words).await {
            Ok(Some(Word::Durable { next_seq })) => match journal.follow(next_seq) {
                Ok(envelopes) => envelopes.into_iter().for_each(|envelope| feed.publish(envelope)),
                Err(error) => {
                    tracing::error!(%error, "the journal cannot be followed");
                    return;
                }
            },
            // Nobody listens when the view has gone, and then this ends with it.
            Ok(Some(word)) => drop(heard.send(word)),
            Ok(None) => return,
            Err(error) => {
                tracing::error!(%error, "the engine cannot be understood");
                return;
            }
        }
    }
}

async fn ask(
    by: String,
    mut requests: unix::OwnedWriteHalf,
    mut commands: mpsc::Receiver<Command>,
    mut leave: mpsc::Receiver<()>,
) {
    loop {
        let request = tokio::select! {
            Some(command) = commands.recv() => Request::Command { by: by.clone(), command },
            Some(()) = leave.recv() => Request::Leave,
            else => return,
        };
        let Ok(mut line) = serde_json::to_vec(&request) else { continue };
        line.push(b'\n');
        if requests.write_all(&line).await.is_err() {
            return;
        }
    }
}
