//! The report: a fold over the journal → model → Markdown, HTML, JSON; then the statement, which is what gets signed.
//!
//! ```text
//! journal.jsonl → fold → Report → report.md, report.html, report.json
//!                           └────→ statement.json (the figures, the head of the journal, the digests of the files above)
//!                                        └→ statement.json.<role>.sig, made by `sign`, checked by `verify` or ssh-keygen
//! ```

mod fold;
pub mod model;
pub mod plan;
mod render;
pub mod sign;
mod statement;
mod timeline;
pub mod trend;
pub mod verify;
pub mod words;

use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use chrono::{DateTime, FixedOffset, Local, Utc};

use crate::digest::Digest;
use crate::drill::DrillError;
use crate::event::Failure;
use crate::history;
use crate::journal::{DrillDir, Journal, JournalError};

pub use fold::fold;
pub use model::Report;
pub use render::all as render_all;
pub use statement::{STATEMENT, Statement, StatementError};

/// The version of `report.json` and `statement.json`.
pub const FORMAT: u32 = 1;

#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    #[error(transparent)]
    Journal(#[from] JournalError),
    #[error(transparent)]
    Drill(#[from] DrillError),
    #[error("the drill has not finished; its report is written at the end")]
    Unfinished,
    #[error("{} is signed, and a signed report is never written again", dir.display())]
    Signed { dir: PathBuf },
    #[error("the {what} could not be written: {why}")]
    Render { what: &'static str, why: String },
    #[error("{operation} {} failed: {source}", path.display())]
    Io { operation: &'static str, path: PathBuf, source: io::Error },
}

impl ReportError {
    /// The same for a person at 3 a.m.
    pub fn failure(&self) -> Failure {
        let now = match self {
            Self::Journal(error) => return error.failure(),
            Self::Drill(_) => "open it with the version of Lifeboat that ran the drill",
            Self::Unfinished => "finish the drill first: `lifeboat resume`",
            Self::Signed { .. } => "read it as it is; `lifeboat verify` checks it",
            Self::Render { .. } => "the journal is whole, nothing is lost; please report this fault",
            Self::Io { .. } => {
                "the journal is whole, nothing is lost; free space or repair the disk, then `lifeboat report`"
            }
        };
        Failure::new("the report could not be written", self).now(now)
    }
}

/// A report on the disk.
#[derive(Debug, Clone)]
pub struct Written {
    /// The folder that holds all of it.
    pub dir: PathBuf,
    pub report: Report,
    pub statement: Statement,
}

/// Where a moment is local: the offset that a time zone has then.
pub type Zone = fn(DateTime<Utc>) -> FixedOffset;

/// This machine's zone.
pub fn local_zone(at: DateTime<Utc>) -> FixedOffset {
    *at.with_timezone(&Local).offset()
}

/// The report of a drill from its directory, without writing anything; of an unfinished one too.
pub fn read(drill: &DrillDir) -> Result<Report, ReportError> {
    let path = drill.journal();
    let read = Journal::read(&path)?;
    let (sha256, bytes) =
        Digest::of_file(&path).map_err(|source| ReportError::Io { operation: "reading", path, source })?;
    let journal = model::JournalSeal { head: read.head, events: read.envelopes.len() as u64, bytes, sha256 };
    let mut report = fold(&read.envelopes, journal, local_zone)?;
    report.trend = trend(drill, &report);
    Ok(report)
}

/// A trend's runs, at most: what a line of dots has room for.
const TREND: usize = 36;

/// Earlier runs of the same runbook, service and environment beside this drill, and the drill itself. A neighbour that
/// cannot be read is no part of this report; `lifeboat history` names it.
fn trend(drill: &DrillDir, report: &Report) -> Vec<model::Past> {
    let Some(state) = drill.path().ancestors().nth(2) else { return Vec::new() };
    let id = drill.id();
    let same = |run: &history::Run| {
        (&run.runbook, &run.service, &run.environment) == (&report.runbook.id, &report.service, &report.environment)
    };
    let earlier = history::earlier(state, &id).filter_map(Result::ok);
    let earlier = earlier.filter(|run| run.verdict.is_some() && same(run)).take(TREND - 1);
    let mut runs: Vec<model::Past> = earlier.map(|run| (&run).into()).collect();
    if runs.is_empty() {
        return runs;
    }
    runs.reverse();
    runs.push(model::Past {
        drill: id,
        started: report.times.opened.utc,
        mode: report.mode,
        verdict: report.verdict,
        rto_seconds: report.rto.seconds,
        rto_objective_seconds: report.rto.objective_seconds,
        recovered: report.rto.recovered,
    });
    runs
}

/// Writes the report of a finished drill into its folder `report`, all of it or nothing. An unsigned report is replaced; a
/// signed one is not.
pub fn write(drill_dir: &Path) -> Result<Written, ReportError> {
    let drill = DrillDir::at(drill_dir);
    let report = read(&drill)?;
    if report.times.finished.is_none() {
        return Err(ReportError::Unfinished);
    }
    let dir = drill.report();
    if sign::signatures(&dir).is_some_and(|found| !found.is_empty()) {
        return Err(ReportError::Signed { dir });
    }
    let files = render::all(&report)?;
    let statement = Statement::of(&report, &files, statement::previous(&drill, &report));
    let text = statement.to_text().map_err(|why| ReportError::Render { what: "statement", why: why.to_string() })?;
    let verify = sign::verify_text(&statement, &text);
    swap_in(&dir, |new| {
        for (name, bytes) in &files {
            put(&new.join(name), bytes.as_bytes())?;
        }
        put(&new.join("VERIFY.txt"), verify.as_bytes())?;
        put(&new.join(STATEMENT), text.as_bytes())
    })
    .map_err(|source| ReportError::Io { operation: "writing", path: dir.clone(), source })?;
    Ok(Written { dir, report, statement })
}

/// Fills a folder beside `dir` and puts it in the place of `dir`.
fn swap_in(dir: &Path, fill: impl FnOnce(&Path) -> io::Result<()>) -> io::Result<()> {
    let parent = dir.parent().unwrap_or(Path::new("."));
    let new = tempfile::Builder::new().prefix(".report-").tempdir_in(parent)?;
    fill(new.path())?;
    std::fs::File::open(new.path())?.sync_all()?;
    let old = tempfile::Builder::new().prefix(".report-old-").tempdir_in(parent)?;
    match std::fs::rename(dir, old.path()) {
        Err(missing) if missing.kind() == io::ErrorKind::NotFound => {}
        moved => moved?,
    }
    std::fs::rename(new.path(), dir)?;
    // It is in place under another name now: nothing is left to clean up.
    let _ = new.keep();
    std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o700))?;
    std::fs::File::open(parent)?.sync_all()
}

/// Creates a file that must not exist yet, durable on return.
fn put(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}
