use std::io;
use std::path::PathBuf;

use crate::event::{FORMAT, Failure};

#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    #[error("{operation} {} failed: {source}", path.display())]
    Io { operation: &'static str, path: PathBuf, source: io::Error },
    #[error("{} is held by {}", path.display(), holder.as_deref().unwrap_or("another process"))]
    Held { path: PathBuf, holder: Option<String> },
    #[error("{} holds no entry", path.display())]
    Empty { path: PathBuf },
    #[error("{} is not a journal: {why}", path.display())]
    NotAJournal { path: PathBuf, why: String },
    #[error("{} was written in format {found}; this program reads format {FORMAT}", path.display())]
    Format { path: PathBuf, found: u64 },
    #[error("{}, line {line}: {why}", path.display())]
    Damaged { path: PathBuf, line: u64, why: String },
    #[error("{} takes no more entries since a write failed: {why}", path.display())]
    Broken { path: PathBuf, why: String },
    #[error("entry {found} cannot follow: the next one is {expected}")]
    Sequence { expected: u64, found: u64 },
    #[error("entry {seq} has {bytes} bytes, and a line may have {}", super::LINE_CAP)]
    TooLong { seq: u64, bytes: usize },
    #[error("an entry could not be encoded: {why}")]
    Encode { why: String },
}

impl JournalError {
    /// The same for a person at 3 a.m.
    pub fn failure(&self) -> Failure {
        let (what, now) = match self {
            Self::Held { .. } => (
                "another engine works on this drill",
                "watch it there, or end that process first; two must never run one drill",
            ),
            Self::Format { found, .. } if *found > u64::from(FORMAT) => {
                ("this journal is from a newer Lifeboat", "install the newer version and open it again")
            }
            Self::Format { .. } => {
                ("this journal is from another version of Lifeboat", "open it with the version that wrote it")
            }
            Self::Empty { .. } => ("this drill never began", "start a new one; nothing was done in this one"),
            Self::NotAJournal { .. } => ("this is no journal", "give the journal.jsonl of a drill, or a recording"),
            Self::Damaged { .. } => (
                "the journal was changed or damaged",
                "do not go on from it: copy it, then look at the systems themselves before any further step",
            ),
            Self::Io { .. } | Self::Broken { .. } => (
                "the journal cannot be written or read",
                "nothing new is started; free space or repair the disk, then `lifeboat resume`",
            ),
            Self::Sequence { .. } | Self::TooLong { .. } | Self::Encode { .. } => {
                ("an entry cannot be recorded", "nothing new is started; this is a fault of Lifeboat, please report it")
            }
        };
        Failure::new(what, self).now(now)
    }
}
