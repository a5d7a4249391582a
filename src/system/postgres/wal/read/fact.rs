//! What the WAL says, for everything above.

use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::page::u32_at;
use crate::event::Lsn;

/// A relation's file, written `1663/16384/16402`. Its name is known only to the server: `pg_filenode_relation`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Relation {
    /// OID of the tablespace.
    pub tablespace: u32,
    /// OID of the database; 0 for what all databases share.
    pub database: u32,
    /// The file's number: `relfilenode`, not the OID.
    pub number: u32,
}

impl Relation {
    /// `bytes` is 12 long.
    #[inline]
    pub(super) fn read(bytes: &[u8]) -> Self {
        Self { tablespace: u32_at(bytes, 0), database: u32_at(bytes, 4), number: u32_at(bytes, 8) }
    }
}

impl fmt::Display for Relation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.tablespace, self.database, self.number)
    }
}

impl FromStr for Relation {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = "a relation is written tablespace/database/number";
        let mut parts = text.splitn(3, '/').map(|part| part.parse::<u32>().map_err(|_| bad));
        let mut part = || parts.next().ok_or(bad)?;
        Ok(Self { tablespace: part()?, database: part()?, number: part()? })
    }
}

impl Serialize for Relation {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Relation {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// Row versions written, catalogues and TOAST included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Counts {
    #[serde(default, skip_serializing_if = "is_zero")]
    pub inserts: u64,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub updates: u64,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub deletes: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
fn is_zero(count: &u64) -> bool {
    *count == 0
}

impl Counts {
    /// Rows whose old content is gone for a reader who came later.
    pub fn changed(&self) -> u64 {
        self.updates + self.deletes
    }

    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl std::ops::AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.inserts += other.inserts;
        self.updates += other.updates;
        self.deletes += other.deletes;
    }
}

/// What a transaction did to one relation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RelationCounts {
    pub relation: Relation,
    pub counts: Counts,
}

/// What a transaction did, as far as it is known; its subtransactions included when it has ended.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Work {
    pub counts: Counts,
    /// The relations it changed most: at most [`Work::RELATIONS`] while it runs, and at its end at most
    /// [`Work::NAMED`], the heaviest first, and none at all below [`Work::NOTABLE`] changed rows.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub relations: Vec<RelationCounts>,
    /// Files of relations that it made: a TRUNCATE and a rewrite make one for each that they drop.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub created: Vec<Relation>,
    /// Relations cut to nothing in place, as TRUNCATE does with what the same transaction made.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub emptied: Vec<Relation>,
}

impl Work {
    /// Relations that are told apart in a transaction.
    pub const RELATIONS: usize = 64;
    /// Relations that are named at its end.
    pub const NAMED: usize = 8;
    /// Updated and deleted rows from which a transaction's relations are named.
    pub const NOTABLE: u64 = 100;

    #[inline]
    pub(super) fn relation(&mut self, relation: Relation) -> Option<&mut Counts> {
        let at = match self.relations.iter().position(|known| known.relation == relation) {
            Some(at) => at,
            None if self.relations.len() == Self::RELATIONS => return None,
            None => {
                self.relations.push(RelationCounts { relation, counts: Counts::default() });
                self.relations.len() - 1
            }
        };
        Some(&mut self.relations[at].counts)
    }

    pub(super) fn add(&mut self, other: &Self) {
        self.counts += other.counts;
        for RelationCounts { relation, counts } in &other.relations {
            if let Some(ours) = self.relation(*relation) {
                *ours += *counts;
            }
        }
        for (ours, theirs) in [(&mut self.created, &other.created), (&mut self.emptied, &other.emptied)] {
            ours.extend(theirs.iter().take(Self::RELATIONS - ours.len()));
        }
    }

    /// Leaves of the relations what is worth naming.
    pub(super) fn conclude(&mut self) {
        if self.counts.changed() < Self::NOTABLE {
            self.relations.clear();
        }
        self.relations.sort_by_key(|entry| std::cmp::Reverse((entry.counts.changed(), entry.counts.inserts)));
        self.relations.truncate(Self::NAMED);
    }
}

/// One thing that the WAL says. `lsn` is where its record begins, as `pg_waldump` prints it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Fact {
    Commit(Commit),
    Abort(Abort),
    /// `PREPARE TRANSACTION`: it survives a crash, and ends with a [`Commit`] or an [`Abort`] of the same xid.
    Prepared(Prepared),
    RestorePoint {
        lsn: Lsn,
        end: Lsn,
        name: String,
        time: DateTime<Utc>,
    },
    Checkpoint(Checkpoint),
    /// The first record of a new timeline.
    TimelineSwitch {
        lsn: Lsn,
        from: u32,
        to: u32,
        time: DateTime<Utc>,
    },
    /// An AccessExclusiveLock; a standby holds it until the transaction ends. Repeated by every snapshot of what runs.
    Lock {
        lsn: Lsn,
        xid: u32,
        lock: Lock,
    },
    /// What runs: every transaction older than `oldest` has ended.
    Running {
        lsn: Lsn,
        oldest: u32,
        next: u32,
    },
    /// `DROP DATABASE` has no transaction around it that could be cut off.
    DatabaseDropped {
        lsn: Lsn,
        xid: u32,
        database: u32,
    },
    /// Settings that a server needs at least to replay what follows.
    Parameters(Parameters),
    /// The end of a base backup that began at `start`.
    BackupEnd {
        lsn: Lsn,
        start: Lsn,
    },
}

impl Fact {
    pub fn commit(&self) -> Option<&Commit> {
        if let Self::Commit(commit) = self { Some(commit) } else { None }
    }

    /// Where its record begins, and where the next one may, when it is one that recovery can be told to stop behind: the
    /// end of a transaction, whatever that was, or a restore point.
    pub fn settles(&self) -> Option<(Lsn, Lsn)> {
        match self {
            Self::Commit(Commit { lsn, end, .. })
            | Self::Abort(Abort { lsn, end, .. })
            | Self::Prepared(Prepared { lsn, end, .. })
            | Self::RestorePoint { lsn, end, .. } => Some((*lsn, *end)),
            _ => None,
        }
    }

    pub fn lsn(&self) -> Lsn {
        match self {
            Self::Commit(Commit { lsn, .. })
            | Self::Abort(Abort { lsn, .. })
            | Self::Prepared(Prepared { lsn, .. })
            | Self::RestorePoint { lsn, .. }
            | Self::Checkpoint(Checkpoint { lsn, .. })
            | Self::TimelineSwitch { lsn, .. }
            | Self::Lock { lsn, .. }
            | Self::Running { lsn, .. }
            | Self::DatabaseDropped { lsn, .. }
            | Self::Parameters(Parameters { lsn, .. })
            | Self::BackupEnd { lsn, .. } => *lsn,
        }
    }

    /// A moment before which it was not written, where the record says one.
    pub fn time(&self) -> Option<DateTime<Utc>> {
        match self {
            Self::Commit(Commit { time, .. })
            | Self::Abort(Abort { time, .. })
            | Self::Prepared(Prepared { time, .. })
            | Self::RestorePoint { time, .. }
            | Self::Checkpoint(Checkpoint { time, .. })
            | Self::TimelineSwitch { time, .. } => Some(*time),
            Self::Lock { .. }
            | Self::Running { .. }
            | Self::DatabaseDropped { .. }
            | Self::Parameters(_)
            | Self::BackupEnd { .. } => None,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Commit {
    pub lsn: Lsn,
    /// Where the next record may begin: what `recovery_target_lsn` inclusive of this commit is.
    pub end: Lsn,
    /// Of a prepared transaction its own, not that of the session that committed it.
    pub xid: u32,
    pub time: DateTime<Utc>,
    /// OID; 0 when the record does not say.
    pub database: u32,
    pub subtransactions: Vec<u32>,
    /// Files of relations that this commit removes: DROP, TRUNCATE, and rewrites.
    pub dropped: Vec<Relation>,
    /// The name of a prepared transaction, when the record says it (`wal_level` logical).
    pub gid: Option<String>,
    pub work: Work,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Abort {
    pub lsn: Lsn,
    /// As of a [`Commit`].
    pub end: Lsn,
    /// A transaction's, or that of a subtransaction alone.
    pub xid: u32,
    pub time: DateTime<Utc>,
    pub subtransactions: Vec<u32>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Prepared {
    pub lsn: Lsn,
    /// As of a [`Commit`].
    pub end: Lsn,
    pub xid: u32,
    pub time: DateTime<Utc>,
    /// OID.
    pub database: u32,
    pub gid: String,
    pub subtransactions: Vec<u32>,
    /// What it did before.
    pub work: Work,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Checkpoint {
    pub lsn: Lsn,
    /// Where replay from it begins.
    pub redo: Lsn,
    pub timeline: u32,
    /// To the second.
    pub time: DateTime<Utc>,
    /// Nothing runs: at shutdown, or at the end of crash recovery.
    pub shutdown: bool,
}

/// A lock's relation, by OID.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lock {
    pub database: u32,
    pub relation: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Parameters {
    pub lsn: Lsn,
    pub max_connections: u32,
    pub max_worker_processes: u32,
    pub max_wal_senders: u32,
    pub max_prepared_transactions: u32,
    pub max_locks_per_transaction: u32,
}

impl Parameters {
    /// By the settings' names.
    pub fn settings(&self) -> [(&'static str, u32); 5] {
        [
            ("max_connections", self.max_connections),
            ("max_worker_processes", self.max_worker_processes),
            ("max_wal_senders", self.max_wal_senders),
            ("max_prepared_transactions", self.max_prepared_transactions),
            ("max_locks_per_transaction", self.max_locks_per_transaction),
        ]
    }
}
