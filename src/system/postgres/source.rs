//! Where the source's own WAL ends: what the archive does not hold of it is exposed.

use chrono::{DateTime, Utc};

use super::connect::Url;
use super::error::PgError;
use crate::event::Lsn;
use crate::secret::Secret;

/// The end of a living server's WAL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SourceEnd {
    /// On its disk.
    pub lsn: Lsn,
    /// Absent where the server keeps no commit times (`track_commit_timestamp`).
    pub last_commit: Option<DateTime<Utc>>,
}

/// Asks the server; an error when there is none to ask.
pub async fn source_end(url: &Secret) -> Result<SourceEnd, PgError> {
    let failed = |error| PgError::sql("asking the source where its WAL ends", &error);
    let client = Url::parse(url)?.connect().await?;
    let row = client
        .query_one(
            "select (case when pg_is_in_recovery() then pg_last_wal_replay_lsn() else pg_current_wal_flush_lsn() end)::text,
                    current_setting('track_commit_timestamp') = 'on'",
            &[],
        )
        .await
        .map_err(failed)?;
    let (lsn, keeps_times): (String, bool) = (row.get(0), row.get(1));
    let lsn = lsn.parse().map_err(|_| PgError::Sql {
        operation: "asking the source where its WAL ends",
        why: format!("{lsn} is no LSN"),
        state: None,
    })?;
    let last_commit = match keeps_times {
        true => client.query_one("select (pg_last_committed_xact()).timestamp", &[]).await.map_err(failed)?.get(0),
        false => None,
    };
    Ok(SourceEnd { lsn, last_commit })
}
