//! The journal of a drill: append, fdatasync, hash chain. A recording is a journal.
//!
//! One line an envelope: `{"prev":"<SHA-256>","seq":…,"at":…,"boot_ms":…,"event":{…}}`. `prev` is the digest of the bytes
//! of the line before, without its newline; 64 zeros stand in the first line. The digest of the last line is the *head*:
//! whoever holds the head (the signed statement does) can tell every change of every line, the last one too.

mod blob;
mod error;
mod hold;
pub mod layout;
mod read;
mod tape;

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::digest::Digest;
use crate::event::Envelope;
use crate::mutant;

pub use blob::{BLOB_CAP, BlobError, BlobWriter, read_blob};
pub use error::JournalError;
pub use layout::DrillDir;
pub use read::{Read, Reader, Torn};

use hold::Hold;
use tape::Tape;

/// Bytes of one line, at most; a longer one is refused by writer and reader alike.
pub const LINE_CAP: usize = 16 << 20;

/// Bytes kept back on the disk, so that a full one can still record how the drill ends.
const RESERVE: usize = 256 << 10;

/// A journal open for appending; no other engine can open it meanwhile.
pub struct Journal {
    path: PathBuf,
    tape: Box<dyn Tape>,
    /// Bytes of whole, synced lines.
    length: u64,
    head: Digest,
    next_seq: u64,
    /// Set by the first write or sync that failed: what the disk holds is unknown from then on.
    broken: Option<String>,
    reserve_spent: bool,
    _hold: Hold,
}

impl Journal {
    /// Makes the drill's directory (0700) and an empty journal in it (0600), both durable, and locks it. Fails when there
    /// already is one.
    pub fn create(dir: &DrillDir) -> Result<Self, JournalError> {
        let path = dir.journal();
        let failed = |operation: &'static str| {
            let path = path.clone();
            move |source| JournalError::Io { operation, path, source }
        };
        for dir in [dir.path().to_owned(), dir.output(), dir.work()] {
            std::fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(dir)
                .map_err(failed("making the folder of"))?;
        }
        let file =
            OpenOptions::new().append(true).create_new(true).mode(0o600).open(&path).map_err(failed("creating"))?;
        let hold = Hold::take(&file, &path)?;
        // The folder of all drills may be as new as the drill: its own name is durable once the folder above it is synced.
        for folder in dir.path().ancestors().take(3) {
            sync_dir(folder).map_err(failed("syncing the folders of"))?;
        }
        Ok(Self::begin(path, Box::new(file), hold, 0, Digest::ZERO, 0))
    }

    /// Locks, reads and verifies a journal and opens it for appending. A torn tail was never acknowledged: it is cut off and
    /// kept beside the journal as `journal.torn-<n>`; damage anywhere else is refused.
    pub fn open_for_append(path: &Path) -> Result<(Self, Read), JournalError> {
        let failed = |operation| move |source| JournalError::Io { operation, path: path.to_owned(), source };
        let file = OpenOptions::new().read(true).append(true).open(path).map_err(failed("opening"))?;
        let hold = Hold::take(&file, path)?;
        let mut read = Self::read(path)?;
        if let Some(torn) = &mut read.torn {
            torn.kept = Some(keep_aside(path, torn.offset).map_err(failed("keeping the torn tail of"))?);
            file.set_len(torn.offset).and_then(|()| file.sync_all()).map_err(failed("cutting the torn tail of"))?;
        }
        let next_seq = read.envelopes.len() as u64;
        Ok((Self::begin(path.to_owned(), Box::new(file), hold, read.bytes, read.head, next_seq), read))
    }

    /// Reads and verifies a whole journal; see [`Reader`] for one that does not fit into memory.
    pub fn read(path: &Path) -> Result<Read, JournalError> {
        let mut reader = Reader::open(path)?;
        let envelopes = reader.by_ref().collect::<Result<Vec<_>, _>>()?;
        if envelopes.is_empty() {
            return Err(JournalError::Empty { path: path.to_owned() });
        }
        Ok(Read { envelopes, head: reader.head(), bytes: reader.bytes(), torn: reader.torn() })
    }

    fn begin(path: PathBuf, tape: Box<dyn Tape>, hold: Hold, length: u64, head: Digest, next_seq: u64) -> Self {
        let reserve_spent = make_reserve(&path).is_err();
        Self { path, tape, length, head, next_seq, broken: None, reserve_spent, _hold: hold }
    }

    /// Writes one entry and returns once it is durable.
    pub fn append(&mut self, envelope: &Envelope) -> Result<(), JournalError> {
        self.append_all(std::slice::from_ref(envelope))
    }

    /// Writes entries with one write and one fdatasync: all of them are durable on return. On an error none of them may be
    /// taken for recorded, and the journal refuses everything from then on.
    pub fn append_all(&mut self, envelopes: &[Envelope]) -> Result<(), JournalError> {
        if let Some(why) = &self.broken {
            return Err(JournalError::Broken { path: self.path.clone(), why: why.clone() });
        }
        let mut bytes = Vec::with_capacity(512 * envelopes.len());
        let (mut head, mut next_seq) = (self.head, self.next_seq);
        for envelope in envelopes {
            if envelope.seq != next_seq {
                return Err(JournalError::Sequence { expected: next_seq, found: envelope.seq });
            }
            let begin = bytes.len();
            encode(&mut bytes, head, envelope)?;
            if bytes.len() - begin > LINE_CAP {
                return Err(JournalError::TooLong { seq: envelope.seq, bytes: bytes.len() - begin });
            }
            head = Digest::of(&bytes[begin..]);
            bytes.push(b'\n');
            next_seq += 1;
        }
        let written = self.write(&bytes).or_else(|error| if mutant::removes("22") { Ok(()) } else { Err(error) });
        written.map_err(|source| {
            self.broken = Some(source.to_string());
            JournalError::Io { operation: "writing", path: self.path.clone(), source }
        })?;
        self.length += bytes.len() as u64;
        (self.head, self.next_seq) = (head, next_seq);
        Ok(())
    }

    /// Only a full disk is tried again, once, with the reserve given up; an fsync that failed never is, because the kernel
    /// may have dropped the pages.
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self.tape.write(bytes) {
            Err(full) if is_full(&full) && !self.reserve_spent => {
                self.reserve_spent = true;
                std::fs::remove_file(reserve_of(&self.path))?;
                self.tape.cut(self.length)?;
                self.tape.write(bytes)?;
            }
            other => other?,
        }
        self.tape.sync()
    }

    /// The digest of the newest line.
    pub fn head(&self) -> Digest {
        self.head
    }

    /// The number the next entry must have.
    pub fn next_seq(&self) -> u64 {
        self.next_seq
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// True once the disk was full and the reserve is in use (or could not be made): nothing new should be started.
    pub fn is_short_of_space(&self) -> bool {
        self.reserve_spent
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        // It only keeps room for the end; a later opener makes its own.
        let _ = std::fs::remove_file(reserve_of(&self.path));
    }
}

/// One line without its newline.
fn encode(bytes: &mut Vec<u8>, prev: Digest, envelope: &Envelope) -> Result<(), JournalError> {
    write!(bytes, "{{\"prev\":\"{prev}\",").map_err(|why| JournalError::Encode { why: why.to_string() })?;
    let begin = bytes.len();
    serde_json::to_writer(&mut *bytes, envelope).map_err(|why| JournalError::Encode { why: why.to_string() })?;
    // The envelope's own opening brace: `prev` already stands before its fields.
    bytes.remove(begin);
    Ok(())
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

fn reserve_of(path: &Path) -> PathBuf {
    path.with_extension("reserve")
}

fn make_reserve(path: &Path) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(reserve_of(path))?;
    file.write_all(&vec![0xA5; RESERVE])?;
    file.sync_data()
}

fn keep_aside(path: &Path, offset: u64) -> io::Result<PathBuf> {
    let mut source = File::open(path)?;
    io::Seek::seek(&mut source, io::SeekFrom::Start(offset))?;
    for n in 1.. {
        let aside = path.with_extension(format!("torn-{n}"));
        match OpenOptions::new().write(true).create_new(true).mode(0o600).open(&aside) {
            Err(taken) if taken.kind() == io::ErrorKind::AlreadyExists => {}
            opened => {
                let mut file = opened?;
                io::copy(&mut source, &mut file)?;
                file.sync_all()?;
                sync_dir(aside.parent().unwrap_or(Path::new(".")))?;
                return Ok(aside);
            }
        }
    }
    Err(io::Error::other("no free name"))
}

fn sync_dir(dir: &Path) -> io::Result<()> {
    let dir = if dir.as_os_str().is_empty() { Path::new(".") } else { dir };
    File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests;
