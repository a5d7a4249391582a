//! Reading and verifying: chain, numbers, format, torn tail.

use std::fs::File;
use std::io::{BufRead, BufReader, Read as _};
use std::path::{Path, PathBuf};

use chrono::{DateTime, Utc};
use serde::Deserialize;

use super::{JournalError, LINE_CAP};
use crate::digest::Digest;
use crate::event::{Envelope, Event, FORMAT};
use crate::mutant;

/// A verified journal.
#[derive(Debug, Clone)]
pub struct Read {
    pub envelopes: Vec<Envelope>,
    /// The digest of the last whole line.
    pub head: Digest,
    /// Bytes of whole lines.
    pub bytes: u64,
    pub torn: Option<Torn>,
}

/// A last line that was never finished, and so never acknowledged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Torn {
    /// Where it begins.
    pub offset: u64,
    pub bytes: u64,
    /// Where it was kept when it was cut off.
    pub kept: Option<PathBuf>,
}

/// One line as stored.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    prev: Digest,
    seq: u64,
    at: DateTime<Utc>,
    boot_ms: u64,
    event: Event,
}

/// Reads a journal line by line in constant memory, verifying as it goes. It ends after the last whole line, and after the
/// first error.
pub struct Reader {
    path: PathBuf,
    file: BufReader<File>,
    line: Vec<u8>,
    head: Digest,
    next_seq: u64,
    bytes: u64,
    torn: Option<Torn>,
    ended: bool,
}

impl Reader {
    pub fn open(path: &Path) -> Result<Self, JournalError> {
        let file = File::open(path).map_err(|source| JournalError::Io {
            operation: "opening",
            path: path.to_owned(),
            source,
        })?;
        Ok(Self {
            path: path.to_owned(),
            file: BufReader::with_capacity(1 << 18, file),
            line: Vec::new(),
            head: Digest::ZERO,
            next_seq: 0,
            bytes: 0,
            torn: None,
            ended: false,
        })
    }

    /// The digest of the newest line read.
    pub fn head(&self) -> Digest {
        self.head
    }

    /// Entries read so far.
    pub fn entries(&self) -> u64 {
        self.next_seq
    }

    /// Bytes of whole lines read so far.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Known once the reader has ended.
    pub fn torn(&self) -> Option<Torn> {
        self.torn.clone()
    }

    /// Entries up to `next_seq`, of a journal that somebody else still writes and says to be durable so far.
    pub fn follow(&mut self, next_seq: u64) -> Result<Vec<Envelope>, JournalError> {
        let mut envelopes = Vec::new();
        while self.next_seq < next_seq {
            match self.advance()? {
                Some(envelope) => envelopes.push(envelope),
                None => return Err(self.damaged(format!("entry {next_seq} was written, and is not there"))),
            }
        }
        Ok(envelopes)
    }

    fn advance(&mut self) -> Result<Option<Envelope>, JournalError> {
        self.line.clear();
        let cap = LINE_CAP as u64 + 1;
        let read = (&mut self.file).take(cap).read_until(b'\n', &mut self.line);
        let length =
            read.map_err(|source| JournalError::Io { operation: "reading", path: self.path.clone(), source })?;
        if !self.line.ends_with(b"\n") {
            if length as u64 == cap {
                return Err(self.damaged(format!("a line of more than {LINE_CAP} bytes")));
            }
            self.torn = (length > 0).then_some(Torn { offset: self.bytes, bytes: length as u64, kept: None });
            return Ok(None);
        }
        if self.line.contains(&0) && self.at_end()? {
            // Power was lost while the pages went out: the newline reached the disk, an earlier page did not.
            self.torn = Some(Torn { offset: self.bytes, bytes: length as u64, kept: None });
            return Ok(None);
        }
        let line = &self.line[..length - 1];
        let parsed = match serde_json::from_slice::<Line>(line) {
            Ok(parsed) => parsed,
            Err(why) if self.next_seq == 0 => return Err(self.judge(line, &why)),
            Err(why) => return Err(self.damaged(format!("it is no entry: {why}"))),
        };
        if parsed.prev != self.head && !mutant::removes("12") {
            return Err(self.damaged(match self.next_seq {
                0 => format!("it follows a line that is missing ({})", parsed.prev.short()),
                _ => "it does not follow from the line before; one of the two was changed".to_owned(),
            }));
        }
        if parsed.seq != self.next_seq {
            return Err(self.damaged(format!("entry {} stands where {} belongs", parsed.seq, self.next_seq)));
        }
        match (&parsed.event, self.next_seq) {
            (Event::DrillOpened { opening }, 0) if opening.format != FORMAT => {
                return Err(JournalError::Format { path: self.path.clone(), found: opening.format.into() });
            }
            (Event::DrillOpened { .. }, 0) => {}
            (_, 0) => return Err(self.not_a_journal("it does not begin with the opening of a drill")),
            (Event::DrillOpened { .. }, _) => return Err(self.damaged("a second opening")),
            _ => {}
        }
        self.head = Digest::of(line);
        self.next_seq += 1;
        self.bytes += length as u64;
        Ok(Some(Envelope { seq: parsed.seq, at: parsed.at, boot_ms: parsed.boot_ms, event: parsed.event }))
    }

    fn at_end(&mut self) -> Result<bool, JournalError> {
        let rest = self.file.fill_buf();
        let rest = rest.map_err(|source| JournalError::Io { operation: "reading", path: self.path.clone(), source })?;
        Ok(rest.is_empty())
    }

    /// Why the first line cannot be read: another format may spell everything else differently, but not where it says so.
    fn judge(&self, line: &[u8], why: &serde_json::Error) -> JournalError {
        let Ok(value) = serde_json::from_slice::<serde_json::Value>(line) else {
            return self.not_a_journal(format!("its first line is no JSON: {why}"));
        };
        match value.pointer("/event/opening/format").and_then(serde_json::Value::as_u64) {
            Some(found) if found != u64::from(FORMAT) => JournalError::Format { path: self.path.clone(), found },
            Some(_) => self.damaged(format!("it is no opening: {why}")),
            None => self.not_a_journal(format!("its first line opens no drill: {why}")),
        }
    }

    fn damaged(&self, why: impl Into<String>) -> JournalError {
        JournalError::Damaged { path: self.path.clone(), line: self.next_seq + 1, why: why.into() }
    }

    fn not_a_journal(&self, why: impl Into<String>) -> JournalError {
        JournalError::NotAJournal { path: self.path.clone(), why: why.into() }
    }
}

impl Iterator for Reader {
    type Item = Result<Envelope, JournalError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let next = self.advance().transpose();
        self.ended = !matches!(next, Some(Ok(_)));
        next
    }
}
