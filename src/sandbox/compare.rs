//! The runbook's `ledger_check`: the application's ledger against the restored database.

use std::fmt;

use chrono::{DateTime, SecondsFormat, Utc};
use serde_json::Value;

use crate::event::Failure;
use crate::secret::Secret;

use super::error::SandboxError;
use super::layout::Layout;
use super::ledger::{self, Comparison};
use super::record::{self, Record};
use super::servers::postgres;

/// What the comparison found, as this sandbox tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found(Comparison);

pub async fn run(layout: &Layout, until: Option<DateTime<Utc>>) -> Result<Found, SandboxError> {
    let absent = || SandboxError::Absent { dir: layout.dir().to_owned() };
    let record: Record = record::read(&layout.record())?.ok_or_else(absent)?;
    let url = restored(layout, &record)?;
    let part = |error: ledger::LedgerError| {
        let mut failure = Failure::from(error);
        failure.now.get_or_insert_with(|| "It is compared with the restored server: has a drill restored one?".into());
        SandboxError::Part { operation: "the comparison", failure: Box::new(failure) }
    };
    ledger::compare(&layout.ledger(), &url, until).await.map(Found).map_err(part)
}

/// The URL of the restored server: the primary's, at the port of the inventory's `restore`.
fn restored(layout: &Layout, record: &Record) -> Result<Secret, SandboxError> {
    let path = layout.secret(postgres::NAME);
    let url = std::fs::read_to_string(&path).map_err(SandboxError::io("reading", &path))?;
    let (old, new) = (record.ports.postgres, record.ports.restored_postgres);
    Ok(Secret::new(url.replace(&format!("@127.0.0.1:{old}/"), &format!("@127.0.0.1:{new}/"))))
}

impl Found {
    /// Everything up to the recovered point is there and equal, and nothing later is.
    pub fn holds(&self) -> bool {
        self.0.holds()
    }

    /// The numbers, and the measure of lost writes in the journal's spelling.
    pub fn json(&self) -> Value {
        let mut value = serde_json::json!(self.0);
        value["holds"] = self.holds().into();
        value["measures"] = serde_json::json!([self.0.measure(postgres::NAME)]);
        value
    }
}

impl Found {
    /// What is wrong, in a line; empty when it holds.
    pub fn wrong(&self) -> String {
        let found = &self.0;
        let mut parts: Vec<String> = [
            (found.missing, "committed by then and not there"),
            (found.unexpected, "committed later and there"),
            (found.mismatched, "there and different"),
        ]
        .into_iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, what)| format!("{count} orders {what}"))
        .collect();
        if found.until.is_none() {
            parts.push("how far it was recovered is not known".to_owned());
        }
        parts.join(", ")
    }
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let found = &self.0;
        let time = |at: DateTime<Utc>| at.to_rfc3339_opts(SecondsFormat::Micros, true);
        writeln!(f, "{} orders were acknowledged before the primary went down", found.acknowledged)?;
        writeln!(f, "{} of them are there, row for row; {} are lost", found.present, found.lost)?;
        match found.until {
            Some(until) => writeln!(f, "recovered to {}", time(until))?,
            None => writeln!(f, "how far it was recovered is not known: give --until")?,
        }
        if let Some(entry) = &found.last_recovered {
            writeln!(f, "  the last that is there: {}, committed {}", entry.id, time(entry.committed_at))?;
        }
        if let Some(entry) = &found.first_lost {
            writeln!(f, "  the first that is lost: {}, committed {}", entry.id, time(entry.committed_at))?;
        }
        match self.holds() {
            true => f.write_str("it holds"),
            false => write!(f, "it does not hold: {}", self.wrong()),
        }
    }
}
