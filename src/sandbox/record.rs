//! What the sandbox remembers in its directory.

use std::path::{Path, PathBuf};

use chrono::{DateTime, Utc};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::clock;

use super::error::SandboxError;
use super::layout::Layout;
use super::program;

/// The version of these files.
pub const FORMAT: u32 = 1;

/// How much data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scale {
    /// Tens of MiB, ready in seconds.
    #[default]
    Small,
    /// About 1 GiB and tens of WAL segments to replay.
    Medium,
    /// Several GiB.
    Large,
}

impl Scale {
    pub const ALL: [Self; 3] = [Self::Small, Self::Medium, Self::Large];

    pub fn word(self) -> &'static str {
        match self {
            Self::Small => "small",
            Self::Medium => "medium",
            Self::Large => "large",
        }
    }
}

impl std::str::FromStr for Scale {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|scale| scale.word() == text)
            .ok_or_else(|| format!("`{text}` is no scale; small, medium and large are"))
    }
}

/// The marker: a directory that holds it was made by `sandbox up`, and `sandbox down` may remove it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Marker {
    pub format: u32,
    pub created: DateTime<Utc>,
    pub lifeboat_version: String,
}

/// Loopback ports, chosen once; below the range from which systems pick ports of outgoing connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ports {
    pub postgres: u16,
    pub redis: u16,
    pub app: u16,
    /// Where the restored servers will answer.
    pub restored_postgres: u16,
    pub restored_redis: u16,
}

/// What was built; written before the first server starts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    pub format: u32,
    pub scale: Scale,
    pub seed: u64,
    pub ports: Ports,
    pub postgres_bin: PathBuf,
    pub redis_server: PathBuf,
    /// The shop stands, and no incident is to come: written once it trades and has its first backups.
    #[serde(default)]
    pub healthy: bool,
}

/// What happened, in the order of the fields. Written last: a sandbox without it is unfinished.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Incident {
    pub format: u32,
    /// Labels in the bucket.
    pub base_backup: String,
    pub redis_snapshot: String,
    pub backup_finished_at: DateTime<Utc>,
    /// A restore point that a deployment set before the migration.
    pub restore_point: String,
    /// The migration's start as its log has it: the moment a person would name. Nothing was damaged before.
    pub damage_at: DateTime<Utc>,
    pub payments_dropped_at: DateTime<Utc>,
    pub orders_deleted_at: DateTime<Utc>,
    pub carts_flushed_at: DateTime<Utc>,
    /// The transactions of the damage.
    pub payments_dropped_xid: u64,
    pub orders_deleted_xid: u64,
    /// The last segment known to be in the archive when the primary went down; the damage is before its end.
    pub last_archived_segment: String,
    pub taken_down_at: DateTime<Utc>,
    /// Orders that the ledger had acknowledged: when the migration began, and when the primary was gone.
    pub acknowledged_before_damage: u64,
    pub acknowledged: u64,
}

/// Marks a directory that was found empty; the first thing that is written there.
pub fn mark(layout: &Layout) -> Result<(), SandboxError> {
    if layout.is_marked() {
        return Ok(());
    }
    let lifeboat_version = env!("CARGO_PKG_VERSION").to_owned();
    write(&layout.marker(), &Marker { format: FORMAT, created: clock::wall_now(), lifeboat_version })
}

/// Reads one of these files; `None` when it is not there.
pub fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, SandboxError> {
    let text = match std::fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(SandboxError::io("reading", path)(error)),
    };
    let bad = |why: String| SandboxError::Record { path: path.to_owned(), why };
    serde_json::from_slice(&text).map(Some).map_err(|error| bad(error.to_string()))
}

pub fn write<T: Serialize>(path: &Path, value: &T) -> Result<(), SandboxError> {
    let bad = |error: serde_json::Error| SandboxError::Record { path: path.to_owned(), why: error.to_string() };
    program::write(path, 0o600, serde_json::to_vec_pretty(value).map_err(bad)?)
}
