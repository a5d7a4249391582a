//! The statement: one JSON file, small enough to be read by a person before they sign it.

use std::collections::BTreeMap;
use std::path::Path;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use ssh_key::rand_core::{OsRng, RngCore};

use super::FORMAT;
use super::model::{JournalSeal, Report};
use crate::digest::Digest;
use crate::event::{Mode, Verdict};
use crate::journal::DrillDir;

/// The name of the file.
pub const STATEMENT: &str = "statement.json";

/// What is signed: the file's bytes as they are, never a re-serialisation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Statement {
    pub format: u32,
    pub drill: String,
    /// 32 random hex digits: no two statements are the same, so that no signature fits two.
    pub nonce: String,
    pub service: String,
    pub environment: String,
    pub mode: Mode,
    pub verdict: Verdict,
    /// Declaration to recovery, or to the end when `recovered` is absent.
    pub rto_seconds: Option<f64>,
    pub rto_objective_seconds: Option<f64>,
    /// By system; `null` when it was not measured.
    pub rpo_seconds: BTreeMap<String, Option<f64>>,
    pub rpo_objective_seconds: BTreeMap<String, Option<f64>>,
    pub started: DateTime<Utc>,
    pub declared: Option<DateTime<Utc>>,
    pub recovered: Option<DateTime<Utc>>,
    pub finished: Option<DateTime<Utc>>,
    pub operator: String,
    pub host: String,
    pub runbook: RunbookSeal,
    pub inventory_sha256: Option<Digest>,
    pub journal: JournalSeal,
    /// By the name of the file.
    pub report_sha256: BTreeMap<String, Digest>,
    /// The newest earlier statement of this service on this machine, when there was one.
    pub previous_statement_sha256: Option<Digest>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunbookSeal {
    pub id: String,
    pub revision: u32,
    pub sha256: Digest,
}

#[derive(Debug, thiserror::Error)]
pub enum StatementError {
    #[error("the statement is in format {found}; this program reads format {FORMAT}")]
    Format { found: u64 },
    #[error("it is no statement of Lifeboat: {0}")]
    Json(String),
}

impl Statement {
    /// `files` are the report's files, by name, as they will be stored.
    pub(super) fn of(report: &Report, files: &[(&str, String)], previous: Option<Digest>) -> Self {
        let mut nonce = [0; 16];
        OsRng.fill_bytes(&mut nonce);
        Self {
            nonce: hex::encode(nonce),
            report_sha256: files.iter().map(|(name, text)| ((*name).to_owned(), Digest::of(text.as_bytes()))).collect(),
            previous_statement_sha256: previous,
            ..Self::figures(report)
        }
    }

    /// What the journal alone determines; nonce, files and predecessor are left empty.
    pub(super) fn figures(report: &Report) -> Self {
        Self {
            format: FORMAT,
            drill: report.drill.clone(),
            nonce: String::new(),
            service: report.service.clone(),
            environment: report.environment.clone(),
            mode: report.mode,
            verdict: report.verdict.unwrap_or(Verdict::Failed),
            rto_seconds: report.rto.seconds,
            rto_objective_seconds: report.rto.objective_seconds,
            rpo_seconds: report
                .rpo
                .iter()
                .map(|rpo| (rpo.system.clone(), rpo.selected_loss.as_ref().map(|loss| loss.seconds)))
                .collect(),
            rpo_objective_seconds: report.rpo.iter().map(|rpo| (rpo.system.clone(), rpo.objective_seconds)).collect(),
            started: report.times.opened.utc,
            declared: report.times.declared.as_ref().map(|at| at.utc),
            recovered: report.times.recovered.as_ref().map(|at| at.utc),
            finished: report.times.finished.as_ref().map(|at| at.utc),
            operator: report.operators.join(", "),
            host: report.host.clone(),
            runbook: RunbookSeal {
                id: report.runbook.id.clone(),
                revision: report.runbook.revision,
                sha256: report.runbook.sha256,
            },
            inventory_sha256: report.evidence.inventory_sha256,
            journal: report.evidence.journal.clone(),
            report_sha256: BTreeMap::new(),
            previous_statement_sha256: None,
        }
    }

    pub(super) fn to_text(&self) -> serde_json::Result<String> {
        serde_json::to_string_pretty(self).map(|text| text + "\n")
    }

    /// Reads the bytes of a `statement.json`. Whoever checks a signature gives the very bytes that it was checked over.
    pub fn parse(bytes: &[u8]) -> Result<Self, StatementError> {
        let json = |why: serde_json::Error| StatementError::Json(why.to_string());
        let parsed = serde_json::from_slice::<Self>(bytes);
        if parsed.as_ref().is_ok_and(|statement| statement.format == FORMAT) {
            return parsed.map_err(json);
        }
        // Another format may have other fields: its number is the better message.
        let value: serde_json::Value = serde_json::from_slice(bytes).map_err(json)?;
        match value.get("format").and_then(serde_json::Value::as_u64) {
            Some(found) if found != u64::from(FORMAT) => Err(StatementError::Format { found }),
            _ => parsed.map_err(json),
        }
    }
}

/// The digest of the newest statement of the same service from an earlier drill beside this one.
pub(super) fn previous(drill: &DrillDir, report: &Report) -> Option<Digest> {
    let id = drill.id();
    let mut earlier: Vec<DrillDir> = siblings(drill).into_iter().filter(|sibling| sibling.id() < id).collect();
    earlier.sort_by_key(|sibling| std::cmp::Reverse(sibling.id()));
    earlier.iter().find_map(|sibling| {
        let bytes = std::fs::read(sibling.report().join(STATEMENT)).ok()?;
        let statement = Statement::parse(&bytes).ok()?;
        (statement.service == report.service).then(|| Digest::of(&bytes))
    })
}

/// Other drills beside this one.
pub(super) fn siblings(drill: &DrillDir) -> Vec<DrillDir> {
    let parent = drill.path().parent().unwrap_or(Path::new("."));
    let entries = std::fs::read_dir(parent).into_iter().flatten().flatten();
    entries.map(|entry| DrillDir::at(entry.path())).filter(|sibling| sibling.id() != drill.id()).collect()
}
