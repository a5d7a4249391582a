//! Row for row: what the ledger acknowledged against what the restored database holds.

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

use chrono::{DateTime, Utc};
use futures::{StreamExt as _, pin_mut};
use serde::Serialize;
use tokio_postgres::error::SqlState;

use super::{Entry, LedgerError, read, row_digest};
use crate::clock;
use crate::digest::Digest;
use crate::event::Measure;
use crate::secret::Secret;
use crate::system::postgres::{Url, locked_tables};

/// Rows that are named; the others are only counted.
const NAMED: usize = 20;

/// Of the session: a lock that is not given, or a statement that does not end, is an error and not a wait.
const LIMITS: &str = "set lock_timeout = '5s'; set statement_timeout = '5min'";

/// How long an order may take from the table into the ledger.
const IN_FLIGHT: Duration = Duration::from_secs(2);

/// A row that is there and is not what was acknowledged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Mismatch {
    pub id: i64,
    pub acknowledged: Digest,
    pub found: Digest,
}

/// What the comparison found. Orders that the restored server itself acknowledged, after the cutover, are left out of
/// every number but `since`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Comparison {
    /// Orders that the lost server had acknowledged.
    pub acknowledged: u64,
    /// Of these, there and equal.
    pub present: u64,
    /// Of these, not there.
    pub lost: u64,
    /// Of these, there and different.
    pub mismatched: u64,
    /// The first of them.
    pub mismatches: Vec<Mismatch>,
    /// Rows in the ledger's range that nobody acknowledged: committed, and the answer never came.
    pub extra: u64,
    /// Orders that the restored server acknowledged since.
    pub since: u64,
    /// The last commit that recovery replayed; absent when it is not known.
    pub until: Option<DateTime<Utc>>,
    /// Lost although they were committed by then; must be 0.
    pub missing: u64,
    /// There although they were committed later; must be 0.
    pub unexpected: u64,
    pub first_lost: Option<Entry>,
    pub last_recovered: Option<Entry>,
}

impl Comparison {
    /// Everything up to `until` is there and equal, and nothing later is.
    pub fn holds(&self) -> bool {
        self.until.is_some() && self.missing == 0 && self.unexpected == 0 && self.mismatched == 0
    }

    pub fn measure(&self, system: &str) -> Measure {
        let detail = match &self.first_lost {
            Some(entry) => format!("the first lost order is {}, committed at {}", entry.id, entry.committed_at),
            None => "every acknowledged order is there".to_owned(),
        };
        let (lost, acknowledged) = (self.lost + self.mismatched, self.acknowledged);
        Measure::LostWrites { system: system.to_owned(), lost, acknowledged, detail }
    }
}

/// Compares. `until` is the restored server's last replayed commit; without it the server is asked, and a server that was
/// started anew since its recovery no longer knows.
///
/// The order of the ledger is the order of commits, for the application writes on one connection. Times are PostgreSQL's
/// own, of the commit records, so that no clocks are compared.
pub async fn compare(
    ledger: &Path,
    restored: &Secret,
    until: Option<DateTime<Utc>>,
) -> Result<Comparison, LedgerError> {
    let first = entries(ledger).await?.iter().map(|entry| entry.id).min();
    let url = Url::parse(restored)?;
    let client = url.connect().await?;
    client.batch_execute(LIMITS).await.map_err(|source| LedgerError::Sql { operation: "setting limits", source })?;
    // All servers of the sandbox are on this machine: the port is the server, however its host is spelled.
    let here = format!(":{}", url.port());
    let until = match until {
        Some(until) => Some(until),
        None => last_replayed(&client).await?,
    };
    let found = match first {
        Some(first) => match rows(&client, first).await {
            Ok(found) => found,
            Err(error) => return Err(explain(&client, error).await),
        },
        None => HashMap::new(),
    };
    // An order is in the table a moment before it is in the ledger. After a cutover the shop trades on: the ledger is read
    // after the rows, and again while a row is not in it yet.
    let deadline = clock::boot_now() + IN_FLIGHT;
    loop {
        let comparison = judge(&entries(ledger).await?, &here, &found, until);
        if (comparison.mismatched == 0 && comparison.extra == 0) || clock::boot_now() > deadline {
            return Ok(comparison);
        }
        clock::sleep(Duration::from_millis(50)).await;
    }
}

/// A paused server holds the locks of transactions that the recovery target cut off, until it is promoted.
async fn explain(client: &tokio_postgres::Client, error: LedgerError) -> LedgerError {
    let waited =
        matches!(&error, LedgerError::Sql { source, .. } if source.code() == Some(&SqlState::LOCK_NOT_AVAILABLE));
    match locked_tables(client).await {
        Ok(tables) if waited && !tables.is_empty() => LedgerError::Locked { tables: tables.join(", ") },
        _ => error,
    }
}

async fn entries(ledger: &Path) -> Result<Vec<Entry>, LedgerError> {
    let path = ledger.to_owned();
    let io = |source| LedgerError::Io { operation: "reading", path: ledger.to_owned(), source };
    tokio::task::spawn_blocking(move || read(&path)).await.map_err(|error| io(error.into()))?
}

async fn last_replayed(client: &tokio_postgres::Client) -> Result<Option<DateTime<Utc>>, LedgerError> {
    let operation = "asking for the last replayed commit";
    let row = client.query_one("select pg_last_xact_replay_timestamp()", &[]).await;
    row.and_then(|row| row.try_get(0)).map_err(|source| LedgerError::Sql { operation, source })
}

/// The digests of the orders from `first` on.
async fn rows(client: &tokio_postgres::Client, first: i64) -> Result<HashMap<i64, Digest>, LedgerError> {
    let sql = |source| LedgerError::Sql { operation: "reading the orders", source };
    let query = "select id, customer_id, total_cents, (extract(epoch from created_at) * 1000000)::bigint, note \
                 from orders where id >= $1";
    let stream = client.query_raw(query, [first]).await.map_err(sql)?;
    pin_mut!(stream);
    let mut found = HashMap::new();
    while let Some(row) = stream.next().await {
        let row = row.map_err(sql)?;
        let id = row.try_get(0).map_err(sql)?;
        let digest = row_digest(
            id,
            row.try_get(1).map_err(sql)?,
            row.try_get(2).map_err(sql)?,
            row.try_get(3).map_err(sql)?,
            row.try_get(4).map_err(sql)?,
        );
        found.insert(id, digest);
    }
    Ok(found)
}

fn judge(entries: &[Entry], here: &str, found: &HashMap<i64, Digest>, until: Option<DateTime<Utc>>) -> Comparison {
    let (since, before): (Vec<_>, Vec<_>) = entries.iter().partition(|entry| entry.database.ends_with(here));
    // A number that was lost may have been given again: then the row is the newer order's.
    let newer: HashMap<i64, Digest> = since.iter().map(|entry| (entry.id, entry.digest)).collect();
    let mut comparison = Comparison {
        acknowledged: before.len() as u64,
        present: 0,
        lost: 0,
        mismatched: 0,
        mismatches: Vec::new(),
        extra: 0,
        since: since.len() as u64,
        until,
        missing: 0,
        unexpected: 0,
        first_lost: None,
        last_recovered: None,
    };
    for entry in &before {
        let expected = until.map(|until| entry.committed_at <= until);
        match found.get(&entry.id) {
            Some(digest) if *digest == entry.digest => {
                comparison.present += 1;
                comparison.unexpected += u64::from(expected == Some(false));
                comparison.last_recovered = Some((*entry).clone());
            }
            Some(digest) if newer.get(&entry.id) != Some(digest) => {
                comparison.mismatched += 1;
                if comparison.mismatches.len() < NAMED {
                    let mismatch = Mismatch { id: entry.id, acknowledged: entry.digest, found: *digest };
                    comparison.mismatches.push(mismatch);
                }
            }
            _ => {
                comparison.lost += 1;
                comparison.missing += u64::from(expected == Some(true));
                comparison.first_lost.get_or_insert_with(|| (*entry).clone());
            }
        }
    }
    let known: std::collections::HashSet<i64> = entries.iter().map(|entry| entry.id).collect();
    comparison.extra = found.keys().filter(|id| !known.contains(id)).count() as u64;
    comparison
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(id: i64, second: u32, database: &str) -> Entry {
        let at: DateTime<Utc> = format!("2026-11-21T09:00:{second:02}.000001Z").parse().unwrap();
        let digest = row_digest(id, 1, 100, i64::from(second), database);
        let (customer, item, amount, database) = (1, database.to_owned(), 100, database.to_owned());
        Entry { id, customer, item, amount, digest, xid: 1, committed_at: at, acked_at: at, database }
    }

    fn judged(entries: &[Entry], rows: &[&Entry], until_second: Option<u32>) -> Comparison {
        let found = rows.iter().map(|entry| (entry.id, entry.digest)).collect();
        let until = until_second.map(|second| entry(0, second, "").committed_at);
        judge(entries, ":2", &found, until)
    }

    fn numbers(c: &Comparison) -> [u64; 7] {
        [c.acknowledged, c.present, c.lost, c.mismatched, c.extra, c.missing, c.unexpected]
    }

    #[test]
    fn everything_up_to_the_point_and_nothing_behind_it() {
        let all: Vec<Entry> = (1..=5).map(|n| entry(n, n as u32, "old:1")).collect();
        let c = judged(&all, &[&all[0], &all[1], &all[2]], Some(3));
        assert_eq!(numbers(&c), [5, 3, 2, 0, 0, 0, 0]);
        assert!(c.holds());
        assert_eq!((c.last_recovered.unwrap().id, c.first_lost.unwrap().id), (3, 4));
        let c = judged(&all, &[&all[0], &all[2]], Some(3));
        assert_eq!(numbers(&c), [5, 2, 3, 0, 0, 1, 0]);
        assert!(!c.holds(), "order 2 is gone");
        let c = judged(&all, &[&all[0], &all[1], &all[2], &all[3]], Some(3));
        assert_eq!(numbers(&c), [5, 4, 1, 0, 0, 0, 1]);
        assert!(!c.holds(), "order 4 came later");
        assert!(!judged(&all, &[&all[0]], None).holds(), "an unknown point proves nothing");
    }

    #[test]
    fn changed_and_unknown_rows_are_told() {
        let all: Vec<Entry> = (1..=3).map(|n| entry(n, n as u32, "old:1")).collect();
        let (changed, unknown) = (entry(2, 9, "old:1"), entry(9, 9, "old:1"));
        let c = judged(&all, &[&all[0], &changed, &all[2], &unknown], Some(3));
        assert_eq!(numbers(&c), [3, 2, 0, 1, 1, 0, 0]);
        assert_eq!(c.mismatches, [Mismatch { id: 2, acknowledged: all[1].digest, found: changed.digest }]);
        assert!(matches!(c.measure("orders-db"), Measure::LostWrites { lost: 1, acknowledged: 3, .. }));
    }

    #[test]
    fn a_number_given_again_after_the_cutover_is_a_lost_order() {
        let old: Vec<Entry> = (1..=3).map(|n| entry(n, n as u32, "old:1")).collect();
        let new = entry(3, 20, "new:2");
        let all = [&old[..], std::slice::from_ref(&new)].concat();
        let c = judged(&all, &[&old[0], &old[1], &new], Some(2));
        assert_eq!((numbers(&c), c.since), ([3, 2, 1, 0, 0, 0, 0], 1));
        assert!(c.holds());
    }
}
