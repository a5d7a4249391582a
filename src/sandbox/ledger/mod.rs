//! What the application acknowledged, written down beside the databases: the oracle for data loss.
//!
//! One JSON line an order, appended after the commit was acknowledged and before the customer heard of it.

mod compare;

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

pub use compare::{Comparison, Mismatch, compare};

use crate::digest::Digest;
use crate::event::Failure;
use crate::system::postgres::PgError;

#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    #[error("{operation} {} failed: {source}", path.display())]
    Io { operation: &'static str, path: PathBuf, source: io::Error },
    #[error("{} line {line} is no entry: {why}", path.display())]
    Line { path: PathBuf, line: usize, why: String },
    #[error("{tables} is locked by a transaction that the recovery point cut off")]
    Locked { tables: String },
    #[error(transparent)]
    Postgres(#[from] PgError),
    #[error("{operation} in the restored database failed: {source}")]
    Sql { operation: &'static str, source: tokio_postgres::Error },
}

impl From<LedgerError> for Failure {
    fn from(error: LedgerError) -> Self {
        match error {
            LedgerError::Postgres(error) => error.into(),
            error @ LedgerError::Locked { .. } => Self::new("the ledger could not be compared", error)
                .now("It is readable after the promotion: compare then, or choose an earlier point."),
            error => Self::new("the ledger could not be compared", error),
        }
    }
}

/// An order that was acknowledged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    pub id: i64,
    pub customer: i64,
    pub item: String,
    /// Cents.
    pub amount: i64,
    /// Of the row, see [`row_digest`].
    pub digest: Digest,
    /// The transaction, with its epoch.
    pub xid: u64,
    /// As PostgreSQL has it, in microseconds; the clock of recovery targets.
    pub committed_at: DateTime<Utc>,
    /// By the application's clock.
    pub acked_at: DateTime<Utc>,
    /// The server that acknowledged it: host and port.
    pub database: String,
}

/// The digest of what an order's row must never change: the status is the shop's desk's to change.
pub fn row_digest(id: i64, customer: i64, amount: i64, created_us: i64, item: &str) -> Digest {
    Digest::of(format!("{id}|{customer}|{amount}|{created_us}|{item}").as_bytes())
}

/// The ledger, open for appending.
pub struct Ledger {
    path: PathBuf,
    file: File,
}

impl Ledger {
    /// Opens or creates it. A line that a killed process left torn was never acknowledged and is cut off.
    pub fn open(path: &Path) -> Result<Self, LedgerError> {
        let io = |operation| move |source| LedgerError::Io { operation, path: path.to_owned(), source };
        let mut options = OpenOptions::new();
        let mut file =
            options.create(true).read(true).append(true).mode(0o600).open(path).map_err(io("opening the ledger"))?;
        let length = whole_length(&mut file).map_err(io("reading the ledger"))?;
        file.set_len(length).map_err(io("cutting the ledger"))?;
        Ok(Self { path: path.to_owned(), file })
    }

    /// The line is the system's before this returns: a kill of this process does not lose it.
    pub fn append(&mut self, entry: &Entry) -> Result<(), LedgerError> {
        let io = |source| LedgerError::Io { operation: "appending to the ledger", path: self.path.clone(), source };
        let mut line = serde_json::to_vec(entry).map_err(|error| io(error.into()))?;
        line.push(b'\n');
        self.file.write_all(&line).map_err(io)
    }
}

/// Bytes up to and with the last newline.
fn whole_length(file: &mut File) -> io::Result<u64> {
    let mut end = file.seek(SeekFrom::End(0))?;
    let mut buffer = [0; 4096];
    while end > 0 {
        let begin = end.saturating_sub(buffer.len() as u64);
        let part = &mut buffer[..usize::try_from(end - begin).unwrap_or(0)];
        file.seek(SeekFrom::Start(begin))?;
        file.read_exact(part)?;
        if let Some(at) = part.iter().rposition(|byte| *byte == b'\n') {
            return Ok(begin + at as u64 + 1);
        }
        end = begin;
    }
    Ok(0)
}

/// Every whole line, in the order of acknowledgement.
pub fn read(path: &Path) -> Result<Vec<Entry>, LedgerError> {
    let io = |source| LedgerError::Io { operation: "reading the ledger", path: path.to_owned(), source };
    let mut reader = BufReader::new(File::open(path).map_err(io)?);
    let (mut entries, mut text) = (Vec::new(), String::new());
    loop {
        text.clear();
        reader.read_line(&mut text).map_err(io)?;
        // The last line may be one that is being written now.
        if !text.ends_with('\n') {
            return Ok(entries);
        }
        let entry = serde_json::from_str(&text).map_err(|error| LedgerError::Line {
            path: path.to_owned(),
            line: entries.len() + 1,
            why: error.to_string(),
        })?;
        entries.push(entry);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(id: i64) -> Entry {
        let at = "2026-11-21T09:02:31.512345Z".parse().unwrap();
        Entry {
            id,
            customer: 7,
            item: "tea | \"green\"".to_owned(),
            amount: 1250,
            digest: row_digest(id, 7, 1250, 1, "tea"),
            xid: 1 << 40,
            committed_at: at,
            acked_at: at,
            database: "127.0.0.1:5432".to_owned(),
        }
    }

    #[test]
    fn a_torn_last_line_is_cut_off_and_the_rest_goes_on() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ledger.jsonl");
        let mut ledger = Ledger::open(&path).unwrap();
        // Longer than one look backwards.
        let long = Entry { item: "x".repeat(9_000), ..entry(2) };
        for entry in [&entry(1), &long] {
            ledger.append(entry).unwrap();
        }
        let whole = std::fs::read(&path).unwrap();
        for cut in [whole.len() - 1, whole.len() - 8_000] {
            std::fs::write(&path, &whole[..cut]).unwrap();
            assert_eq!(read(&path).unwrap(), [entry(1)]);
            Ledger::open(&path).unwrap().append(&entry(3)).unwrap();
            assert_eq!(read(&path).unwrap(), [entry(1), entry(3)]);
        }
        std::fs::write(&path, "{\"id\":1").unwrap();
        Ledger::open(&path).unwrap();
        assert_eq!(read(&path).unwrap(), []);
    }

    #[test]
    fn a_bad_line_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ledger.jsonl");
        let line = serde_json::to_string(&entry(1)).unwrap();
        std::fs::write(&path, format!("{line}\n{{}}\n{line}\n")).unwrap();
        assert!(matches!(read(&path), Err(LedgerError::Line { line: 2, .. })));
    }
}
