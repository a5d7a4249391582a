//! The engine's side of the socket: views come and go, the drill stays.
//!
//! A socket in the drill's directory, for its owner alone. The engine says up to which entry the journal is durable, and a
//! view reads the entries there; so what it shows is what is recorded, and nobody who is slow is waited for. Both sides
//! speak one JSON object a line.

use std::io;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream, unix};
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;

use crate::clock;
use crate::digest::Digest;
use crate::event::Command;
use crate::journal::DrillDir;

use super::driver::Handle;
use super::remote::{Left, VERSION, Word};

/// Bytes of a request, at most.
const LINE_CAP: u64 = 1 << 20;

/// How long views may take to hear the last words.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Views at a time.
const VIEWS: usize = 16;

/// A socket's path has at most this many bytes (`sun_path`, the shortest of the systems we run on).
const PATH_CAP: usize = 100;

#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    #[error("{operation} {path}: {source}")]
    Io { operation: &'static str, path: PathBuf, source: io::Error },
    #[error("{path} belongs to somebody else")]
    Foreign { path: PathBuf },
}

/// What a view asks for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Request {
    Command {
        /// Who sits at that terminal.
        by: String,
        command: Command,
    },
    /// The engine is to end; `lifeboat resume` goes on.
    Leave,
}

/// Where views connect.
pub struct Link {
    path: PathBuf,
    listener: UnixListener,
}

/// The socket of a drill: beside its journal, or, where that path is too long, beneath the directory for temporary files.
pub(super) fn path_of(dir: &DrillDir) -> PathBuf {
    let path = dir.path().join("engine.sock");
    if path.as_os_str().len() <= PATH_CAP {
        return path;
    }
    let name = Digest::of(path.as_os_str().as_encoded_bytes()).short();
    std::env::temp_dir().join(format!("lifeboat-engine-{name}")).join("engine.sock")
}

/// Whether the other end is run by the same user, or one of the two by root.
pub(super) fn same_user(stream: &UnixStream) -> bool {
    let own = nix::unistd::geteuid().as_raw();
    stream.peer_cred().is_ok_and(|peer| own == 0 || peer.uid() == 0 || peer.uid() == own)
}

fn failed(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> LinkError {
    let path = path.to_owned();
    move |source| LinkError::Io { operation, path, source }
}

impl Link {
    /// Opens the socket; the caller holds the journal's lock, so what an engine that was killed left there is removed.
    pub fn open(dir: &DrillDir) -> Result<Self, LinkError> {
        let path = path_of(dir);
        let folder = path.parent().unwrap_or(Path::new("/"));
        if folder != dir.path() {
            match std::fs::DirBuilder::new().mode(0o700).create(folder) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(failed("making", folder)(error));
                }
                _ => {}
            }
            let meta = std::fs::symlink_metadata(folder).map_err(failed("looking at", folder))?;
            let ours = std::os::unix::fs::MetadataExt::uid(&meta) == nix::unistd::geteuid().as_raw();
            if !(meta.is_dir() && ours && meta.permissions().mode().trailing_zeros() >= 6) {
                return Err(LinkError::Foreign { path: folder.to_owned() });
            }
        }
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed("removing", &path)(error)),
            _ => {}
        }
        let listener = UnixListener::bind(&path).map_err(failed("opening", &path))?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).map_err(failed("closing", &path))?;
        Ok(Self { path, listener })
    }

    /// Serves views until `done`, when all of them have been told everything. `after` is what follows the end.
    pub async fn serve(self, handle: Handle, after: watch::Receiver<Option<Left>>, done: CancellationToken) {
        let room = Arc::new(Semaphore::new(VIEWS));
        let mut views = tokio::task::JoinSet::new();
        loop {
            let accepted = tokio::select! {
                accepted = self.listener.accept() => accepted,
                () = done.cancelled() => break,
            };
            let Ok((stream, _)) = accepted else { continue };
            let Ok(seat) = Arc::clone(&room).try_acquire_owned() else { continue };
            if !same_user(&stream) {
                continue;
            }
            while views.try_join_next().is_some() {}
            let (handle, after, done) = (handle.clone(), after.clone(), done.clone());
            views.spawn(async move {
                let (requests, words) = stream.into_split();
                // Whichever ends first: a view that closed either half has gone.
                tokio::select! {
                    _ = listen(requests, &handle) => {}
                    _ = tell(words, &handle, after, &done) => {}
                }
                drop(seat);
            });
        }
        // One that does not read is not waited for.
        let told = async { while views.join_next().await.is_some() {} };
        tokio::select! {
            () = told => {}
            () = clock::sleep(LAST_WORDS) => {}
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

async fn listen(requests: unix::OwnedReadHalf, handle: &Handle) -> io::Result<()> {
    let mut requests = BufReader::new(requests);
    let mut line = Vec::new();
    loop {
        line.clear();
        (&mut requests).take(LINE_CAP).read_until(b'\n', &mut line).await?;
        if !line.ends_with(b"\n") {
            return Ok(());
        }
        match serde_json::from_slice(&line)? {
            Request::Command { by, command } => {
                if handle.others.send((by, command)).await.is_err() {
                    return Ok(());
                }
            }
            Request::Leave => handle.leave.cancel(),
        }
    }
}

async fn tell(
    mut words: unix::OwnedWriteHalf,
    handle: &Handle,
    mut after: watch::Receiver<Option<Left>>,
    done: &CancellationToken,
) -> io::Result<()> {
    let (state, mut envelopes) = handle.feed.subscribe();
    let mut refusals = handle.refusals.subscribe();
    let mut word = Word::Durable { next_seq: state.next_seq };
    drop(state);
    say(&mut words, &Word::Hello { version: VERSION.to_owned() }).await?;
    loop {
        say(&mut words, &word).await?;
        word = tokio::select! {
            biased;
            envelope = envelopes.recv() => {
                if matches!(envelope, Err(RecvError::Closed)) {
                    return Ok(());
                }
                // One word for all that has come meanwhile.
                while !matches!(envelopes.try_recv(), Err(TryRecvError::Empty | TryRecvError::Closed)) {}
                Word::Durable { next_seq: handle.feed.read(|state| state.next_seq) }
            }
            Ok(why) = refusals.recv() => Word::Refused { why },
            Ok(()) = after.changed() => match after.borrow_and_update().clone() {
                Some(left) => Word::After { left },
                None => Word::Durable { next_seq: handle.feed.read(|state| state.next_seq) },
            },
            () = done.cancelled() => return Ok(()),
        };
    }
}

async fn say(words: &mut unix::OwnedWriteHalf, word: &Word) -> io::Result<()> {
    let mut line = serde_json::to_vec(word)?;
    line.push(b'\n');
    words.write_all(&line).await
}
