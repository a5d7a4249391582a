//! What a data directory says of itself, by `pg_controldata`; and the programs that fit it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use super::error::PgError;
use crate::event::Failure;
use crate::process::{Spec, postgres_bin};

/// Settings below which a server refuses to replay the source's WAL.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Floor {
    pub max_connections: u32,
    pub max_worker_processes: u32,
    pub max_wal_senders: u32,
    pub max_prepared_transactions: u32,
    pub max_locks_per_transaction: u32,
}

impl Floor {
    /// The greater of each.
    pub fn max(self, other: Self) -> Self {
        Self {
            max_connections: self.max_connections.max(other.max_connections),
            max_worker_processes: self.max_worker_processes.max(other.max_worker_processes),
            max_wal_senders: self.max_wal_senders.max(other.max_wal_senders),
            max_prepared_transactions: self.max_prepared_transactions.max(other.max_prepared_transactions),
            max_locks_per_transaction: self.max_locks_per_transaction.max(other.max_locks_per_transaction),
        }
    }

    /// The greater of each; other settings are ignored.
    pub fn with(self, needs: &BTreeMap<String, u32>) -> Self {
        let most = |name: &str, own: u32| needs.get(name).map_or(own, |need| own.max(*need));
        Self {
            max_connections: most("max_connections", self.max_connections),
            max_worker_processes: most("max_worker_processes", self.max_worker_processes),
            max_wal_senders: most("max_wal_senders", self.max_wal_senders),
            max_prepared_transactions: most("max_prepared_transactions", self.max_prepared_transactions),
            max_locks_per_transaction: most("max_locks_per_transaction", self.max_locks_per_transaction),
        }
    }

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

/// `pg_control`, as `pg_controldata` prints it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ControlData {
    pub system_identifier: u64,
    /// Of the latest checkpoint; after a promotion it lags behind.
    pub timeline: u32,
    /// `in production`, `shut down`, `in archive recovery` …
    pub state: String,
    /// Bytes.
    pub segment_size: u64,
    pub checksums: bool,
    pub floor: Floor,
}

impl ControlData {
    pub async fn read(bin: &Path, data: &Path) -> Result<Self, PgError> {
        let captured = Spec::new(bin.join("pg_controldata"))
            .arg("-D")
            .arg(data)
            .env("LC_ALL", "C")
            .capture(1 << 16, &CancellationToken::new())
            .await?;
        let failed = |why: String| {
            PgError::from(Failure::new(format!("the control file of {} cannot be read", data.display()), why))
        };
        if !captured.end.success() {
            return Err(failed(format!("pg_controldata: {} ({})", captured.stderr_text(), captured.end)));
        }
        Self::parse(&captured.stdout_text()).ok_or_else(|| failed("pg_controldata said something unexpected".into()))
    }

    fn parse(text: &str) -> Option<Self> {
        let value = |name: &str| {
            text.lines().find_map(|line| line.split_once(':').filter(|(key, _)| *key == name)).map(|(_, v)| v.trim())
        };
        let number = |name: &str| value(name)?.parse().ok();
        Some(Self {
            system_identifier: value("Database system identifier")?.parse().ok()?,
            timeline: number("Latest checkpoint's TimeLineID")?,
            state: value("Database cluster state")?.to_owned(),
            segment_size: value("Bytes per WAL segment")?.parse().ok()?,
            checksums: value("Data page checksum version")? != "0",
            floor: Floor {
                max_connections: number("max_connections setting")?,
                max_worker_processes: number("max_worker_processes setting")?,
                max_wal_senders: number("max_wal_senders setting")?,
                max_prepared_transactions: number("max_prepared_xacts setting")?,
                max_locks_per_transaction: number("max_locks_per_xact setting")?,
            },
        })
    }
}

/// The directory of PostgreSQL's programs of major version `major`: the inventory's, else the one installed for it.
pub async fn programs(configured: Option<&Path>, major: u32) -> Result<PathBuf, PgError> {
    let usual = PathBuf::from(format!("/usr/lib/postgresql/{major}/bin"));
    let forced = std::env::var_os("LIFEBOAT_PG_BIN").is_some();
    let bin = match configured {
        Some(bin) => bin.to_owned(),
        None if !forced && usual.join("postgres").exists() => usual,
        None => postgres_bin().ok_or_else(|| {
            Failure::new(
                "PostgreSQL's programs were not found on this machine",
                "no directory with postgres and pg_ctl",
            )
            .now(format!(
                "install PostgreSQL {major}, or name their directory: `bin` in the inventory, or LIFEBOAT_PG_BIN"
            ))
        })?,
    };
    let found = Spec::new(bin.join("postgres")).arg("--version").capture(4096, &CancellationToken::new()).await?;
    let text = found.stdout_text();
    let version = text.split_whitespace().find_map(|word| word.split(['.', 'd', 'b', 'r']).next()?.parse::<u32>().ok());
    if version != Some(major) {
        return Err(Failure::new(
            format!("PostgreSQL {major} is needed, and {} has another version", bin.display()),
            text,
        )
        .now(format!("install PostgreSQL {major}, or name its directory: `bin` in the inventory, or LIFEBOAT_PG_BIN"))
        .into());
    }
    Ok(bin)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pg_controldata_is_read() {
        let text = "pg_control version number:            1300\n\
            Database system identifier:           18446744073709551615\n\
            Database cluster state:               in production\n\
            Latest checkpoint's TimeLineID:       3\n\
            max_connections setting:              200\n\
            max_worker_processes setting:         8\n\
            max_wal_senders setting:              10\n\
            max_prepared_xacts setting:           4\n\
            max_locks_per_xact setting:           64\n\
            Bytes per WAL segment:                16777216\n\
            Data page checksum version:           1\n";
        let data = ControlData::parse(text).unwrap();
        assert_eq!((data.system_identifier, data.timeline, data.checksums), (u64::MAX, 3, true));
        assert_eq!((data.floor.max_connections, data.floor.max_prepared_transactions), (200, 4));
        assert_eq!(ControlData::parse("nonsense"), None);
    }
}
