//! What past drills were: every run below a state directory as plain facts, read from the journals and from nothing else.
//!
//! A journal is folded while it is read, one at a time, so that memory is that of the largest drill, not of all of them.
//! One that cannot be believed is named beside the others; it never makes a history that merely looks shorter.

mod due;
mod signature;

use std::io;
use std::path::{Path, PathBuf};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::drill::DrillState;
use crate::event::{Failure, Mode, Verdict};
use crate::inventory::Inventory;
use crate::journal::{self, DrillDir, JournalError, Reader};

pub use due::{Due, Overdue, due};
pub use signature::{Evidence, SignedBy, read_signature};

/// All runs below a state directory.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct History {
    /// The newest first.
    pub runs: Vec<Run>,
    /// Journals that say nothing that can be believed.
    pub damaged: Vec<Damaged>,
}

/// One run of a runbook. Durations are seconds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Run {
    pub drill: String,
    pub directory: PathBuf,
    /// The runbook's id.
    pub runbook: String,
    pub title: String,
    pub revision: u32,
    pub mode: Mode,
    pub service: String,
    pub environment: String,
    /// Who held it last.
    pub operator: String,
    pub host: String,
    pub started: DateTime<Utc>,
    /// `None` while it is under way, or when its program was killed and nobody resumed it.
    pub ended: Option<DateTime<Utc>>,
    /// Up to the newest event of one that has not ended.
    pub seconds: f64,
    pub verdict: Option<Verdict>,
    pub rto: Rto,
    /// One a system that the runbook is about, in its order of roles.
    pub rpo: Vec<Rpo>,
    /// A reboot lies within the run: that part of the time comes from wall clocks.
    pub clock_uncertain: bool,
    /// `None` before a report was written.
    pub evidence: Option<Evidence>,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Rto {
    /// Declaration to recovery, or to the end when the service was not recovered. `None` without a declaration.
    pub seconds: Option<f64>,
    pub target_seconds: Option<f64>,
    /// Whether the clock was stopped by a recovery: only then is `seconds` a recovery time.
    pub recovered: bool,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Rpo {
    pub system: String,
    /// `postgres` or `redis`.
    pub kind: String,
    /// History given up, measured from the recovered data.
    pub seconds: Option<f64>,
    pub target_seconds: Option<f64>,
    /// `None` while either is unknown.
    pub met: Option<bool>,
}

impl Run {
    /// Whether it says something of this inventory's service. What a sandbox did says nothing of any other.
    pub fn is_of(&self, inventory: &Inventory) -> bool {
        let sandbox = inventory.systems.values().all(|system| system.environment == "sandbox");
        self.service == inventory.service && (self.mode != Mode::Sandbox || sandbox)
    }
}

/// A journal that cannot be read.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Damaged {
    pub drill: String,
    pub directory: PathBuf,
    pub failure: Failure,
}

/// Reads every journal below `state`. Fails only when the folder of all drills cannot be listed.
pub fn read(state: &Path) -> io::Result<History> {
    let mut history = History::default();
    for dir in journal::layout::list(state)?.into_iter().rev() {
        match run(&dir) {
            Ok(run) => history.runs.push(run),
            Err(failure) => {
                history.damaged.push(Damaged { drill: dir.id(), directory: dir.path().to_owned(), failure });
            }
        }
    }
    Ok(history)
}

/// Runs that began before the drill `id`, the newest first, each read when it is asked for. None when the folder of all
/// drills cannot be listed.
pub fn earlier(state: &Path, id: &str) -> impl Iterator<Item = Result<Run, Failure>> {
    let dirs = journal::layout::list(state).unwrap_or_default().into_iter().rev();
    let id = id.to_owned();
    dirs.filter(move |dir| dir.id() < id).map(|dir| run(&dir))
}

/// One run, out of its journal.
pub fn run(dir: &DrillDir) -> Result<Run, Failure> {
    let (drill, head) = fold_to_head(&dir.journal())?;
    Ok(facts(dir, &drill, Evidence::of(dir, head)))
}

/// The state that a journal leads to.
pub fn fold(journal: &Path) -> Result<DrillState, Failure> {
    fold_to_head(journal).map(|(drill, _)| drill)
}

fn fold_to_head(path: &Path) -> Result<(DrillState, Digest), Failure> {
    let unreadable = |why: String| {
        Failure::new(format!("{} cannot be read", path.display()), why)
            .now("Put a whole copy of it back, or begin a new drill: nothing in a damaged journal is believed.")
    };
    let damaged = |error: JournalError| unreadable(error.to_string());
    let mut reader = Reader::open(path).map_err(damaged)?;
    let first = reader.next().ok_or_else(|| unreadable("it is empty".to_owned()))?.map_err(damaged)?;
    let mut drill = DrillState::open(&first).map_err(|error| unreadable(error.to_string()))?;
    for envelope in reader.by_ref() {
        drill.apply(&envelope.map_err(damaged)?);
    }
    Ok((drill, reader.head()))
}

/// What a drill was, by its state.
pub fn facts(dir: &DrillDir, drill: &DrillState, evidence: Option<Evidence>) -> Run {
    let opening = &drill.opening;
    let verdict = drill.finished.map(|(_, verdict)| verdict);
    let well = matches!(verdict, None | Some(Verdict::Passed | Verdict::ObjectiveMissed));
    let rpo = drill.rpos().into_iter().map(|rpo| Rpo {
        met: rpo.met(),
        kind: opening
            .systems
            .values()
            .find(|bound| bound.name == rpo.system)
            .map(|b| b.kind.clone())
            .unwrap_or_default(),
        seconds: rpo.seconds,
        target_seconds: rpo.target.map(|target| target.as_secs_f64()),
        system: rpo.system,
    });
    Run {
        drill: dir.id(),
        directory: dir.path().to_owned(),
        runbook: drill.runbook.id.clone(),
        title: drill.expand(&drill.runbook.title),
        revision: drill.runbook.revision,
        mode: opening.mode,
        service: opening.service.clone(),
        environment: opening.environment.clone(),
        operator: drill.operator.clone(),
        host: opening.host.clone(),
        started: drill.opened.wall,
        ended: drill.finished.map(|(at, _)| at.wall),
        seconds: drill.latest.elapsed.as_secs_f64(),
        verdict,
        rto: Rto {
            seconds: drill.rto(drill.latest.elapsed).map(|rto| rto.as_secs_f64()),
            target_seconds: drill.rto_target().map(|target| target.as_secs_f64()),
            recovered: well && drill.declared.is_some() && drill.recovered().is_some(),
        },
        rpo: rpo.collect(),
        clock_uncertain: drill.clock_uncertain,
        evidence,
    }
}
