//! Where a drill keeps its files: `<state>/drills/<drill id>/{journal.jsonl, output/, work/, report/}`.

use std::io;
use std::path::{Path, PathBuf};

/// The name of the journal in its directory.
pub const JOURNAL: &str = "journal.jsonl";

/// The directory of one drill.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DrillDir(PathBuf);

impl DrillDir {
    pub fn new(state: &Path, drill: &str) -> Self {
        Self(drills(state).join(drill))
    }

    /// A directory known by its path.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The drill's id: the directory's name.
    pub fn id(&self) -> String {
        self.0.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
    }

    pub fn journal(&self) -> PathBuf {
        self.0.join(JOURNAL)
    }

    /// Output blobs, named by their digest.
    pub fn output(&self) -> PathBuf {
        self.0.join("output")
    }

    /// Scratch space of the steps.
    pub fn work(&self) -> PathBuf {
        self.0.join("work")
    }

    pub fn report(&self) -> PathBuf {
        self.0.join("report")
    }
}

/// The directory that holds all drills.
pub fn drills(state: &Path) -> PathBuf {
    state.join("drills")
}

/// The drills that have a journal, oldest first: ids are UUIDs v7, whose order is that of time. Empty when there is no
/// directory yet.
pub fn list(state: &Path) -> io::Result<Vec<DrillDir>> {
    let entries = match std::fs::read_dir(drills(state)) {
        Err(missing) if missing.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let dir = DrillDir::at(entry?.path());
        if dir.journal().is_file() {
            found.push(dir);
        }
    }
    found.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(found)
}
