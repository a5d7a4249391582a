//! What WAL says of the transactions in it: how many when, and which of them may be the damage. Bounded, however much WAL
//! there is; plain data, filled by the room `recovery`.

use std::collections::BTreeMap;
use std::fmt;

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

use super::point::Lsn;

/// A system's WAL from `from` to `to`, read whole.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct History {
    pub timeline: u32,
    pub from: Lsn,
    /// Behind the last whole record.
    pub to: Lsn,
    /// The last commit.
    pub to_time: Option<DateTime<Utc>>,
    /// All of them.
    pub commits: u64,
    /// From the coarse one over everything to fine ones around the incident.
    pub rates: Vec<Rate>,
    /// By LSN, the most suspicious ones when there are very many.
    pub suspects: Vec<Suspect>,
    /// Why reading ended before the last segment: damaged or missing WAL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stopped: Option<String>,
    /// Segments of WAL that this is of.
    #[serde(default)]
    pub segments: u64,
    /// Of them, those that were read for it; what the others say was kept from an earlier look.
    #[serde(default)]
    pub read: u64,
    /// Why the next look will read the same again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_kept: Option<String>,
}

/// Commits and bytes of WAL by time, in steps of one length.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rate {
    pub from: DateTime<Utc>,
    /// Milliseconds.
    pub step_ms: u64,
    /// Commits before `from`.
    pub commits_before: u64,
    /// Bytes of WAL before `from`, from the history's start.
    pub bytes_before: u64,
    pub commits: Vec<u64>,
    pub bytes: Vec<u64>,
}

impl Rate {
    /// Exclusive.
    pub fn to(&self) -> DateTime<Utc> {
        self.from + TimeDelta::milliseconds(i64::try_from(self.step_ms * self.commits.len() as u64).unwrap_or(i64::MAX))
    }

    /// Commits and bytes before a moment, from the history's start: exact at the borders of the steps. `None` outside.
    pub fn before(&self, at: DateTime<Utc>) -> Option<(u64, u64)> {
        if at < self.from || at > self.to() {
            return None;
        }
        let steps = usize::try_from((at - self.from).num_milliseconds()).ok()? / usize::try_from(self.step_ms).ok()?;
        let sum = |counts: &[u64]| counts.iter().take(steps).sum::<u64>();
        Some((self.commits_before + sum(&self.commits), self.bytes_before + sum(&self.bytes)))
    }
}

/// A transaction that may be the damage.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Suspect {
    pub xid: u32,
    /// Its commit.
    pub at: DateTime<Utc>,
    /// Where its commit record begins.
    pub lsn: Lsn,
    /// What it did, the gravest first.
    pub deeds: Vec<Deed>,
    /// Commits of the history before it.
    pub commits_before: u64,
}

/// What a transaction did to one table, or to one file of a table whose name nobody knows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Deed {
    pub what: What,
    /// `schema.table` (without `public.`), else the file as tablespace/database/number.
    pub table: String,
    /// Rows that were updated or deleted, or files that went.
    pub count: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum What {
    Drops,
    Truncates,
    /// It went, and other files came: a drop beside a create, or a rewrite that kept the rows (VACUUM FULL, ALTER TABLE).
    Rewrites,
    Deletes,
    Updates,
}

impl fmt::Display for Deed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, table, count } = self;
        match what {
            What::Drops => write!(f, "drops {table}"),
            What::Truncates => write!(f, "truncates {table}"),
            What::Rewrites => write!(f, "drops or rewrites {table}"),
            What::Deletes => write!(f, "deletes {count} rows of {table}"),
            What::Updates => write!(f, "updates {count} rows of {table}"),
        }
    }
}

impl fmt::Display for Suspect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, deed) in self.deeds.iter().take(3).enumerate() {
            write!(f, "{}{deed}", if index == 0 { "" } else { ", " })?;
        }
        match self.deeds.len() {
            0..=3 => Ok(()),
            all => write!(f, " and {} more", all - 3),
        }
    }
}

/// A target's exact place in one system's WAL.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Resolved {
    /// Where recovery stops.
    pub lsn: Lsn,
    /// With the record at `lsn`, or just before it.
    pub inclusive: bool,
    /// The last commit that is kept; `None` when there is none behind the base backup.
    pub last_commit: Option<DateTime<Utc>>,
    pub last_xid: Option<u32>,
    /// The last transaction that ended there, a rollback included: what PostgreSQL calls the last replayed one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_ended: Option<DateTime<Utc>>,
    /// Commits of the WAL that are given up.
    pub commits_lost: u64,
    /// Bytes of WAL that are given up.
    pub bytes_lost: u64,
    /// The last commit of all that are given up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lost_until: Option<DateTime<Utc>>,
    /// How far they are counted: WAL behind a hole holds more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub counted_to: Option<Lsn>,
    /// Commits that are given up though their own time lies within the target: sessions take the time before they come to
    /// write, and recovery follows the order of the WAL.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub stragglers: u64,
    /// Settings that the restored server needs at least, where the WAL asks for more than the base backup.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub needs: BTreeMap<String, u32>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
fn is_zero(count: &u64) -> bool {
    *count == 0
}
