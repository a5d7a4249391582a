//! The shop: takes orders, writes them down, and keeps count.

use std::path::PathBuf;
use std::sync::{Arc, Mutex as StdMutex, PoisonError};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use tokio::sync::{Mutex, Notify};
use tokio_postgres::error::SqlState;

use super::backends::{BackendError, Backends, Connections, PATIENCE};
use super::{AppError, Options};
use crate::clock;
use crate::sandbox::ledger::{Entry, Ledger, LedgerError, row_digest};

/// Seconds that a session lives in the cache.
const SESSION: u64 = 1_800;
/// Seconds that every third cart lives in the cache; the others stay.
const CART: u64 = 86_400;

#[derive(Debug, thiserror::Error)]
pub enum OrderError {
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// Nothing was committed. `wrong`: by the order's own fault, an unknown customer for one.
    #[error("the order was refused: {why}")]
    Refused { why: String, wrong: bool },
    #[error("nobody knows whether the order was committed: {0}")]
    InDoubt(String),
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

/// What a customer asks for.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewOrder {
    /// The customer's number.
    pub customer: i64,
    pub item: String,
    /// Cents.
    pub amount: i64,
}

/// What `GET /stats` says.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Stats {
    pub acknowledged: u64,
    /// Attempts that the database refused or did not take.
    pub rejected: u64,
    /// Of these, attempts whose commit may have happened.
    pub in_doubt: u64,
    /// Acknowledged orders whose cart did not reach the cache.
    pub cache_failed: u64,
    pub reloads: u64,
    /// `running`, or `paused` while the database refuses.
    pub traffic: &'static str,
    pub last_order: Option<i64>,
    pub last_acknowledged: Option<DateTime<Utc>>,
    pub last_error: Option<String>,
}

pub struct Shop {
    file: PathBuf,
    /// Whoever holds it writes: one order at a time, and none while the connections change.
    desk: Mutex<Desk>,
    stats: StdMutex<Stats>,
    /// The connections have changed.
    pub changed: Notify,
}

struct Desk {
    ledger: Ledger,
    connections: Option<Connections>,
    backends: Option<Arc<Backends>>,
}

impl Shop {
    pub fn open(options: &Options) -> Result<Self, AppError> {
        let ledger = Ledger::open(&options.ledger)?;
        Ok(Self {
            file: options.connections.clone(),
            desk: Mutex::new(Desk { ledger, connections: None, backends: None }),
            stats: StdMutex::new(Stats { traffic: "running", ..Stats::default() }),
            changed: Notify::new(),
        })
    }

    pub fn stats(&self) -> Stats {
        self.stats.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn note(&self, change: impl FnOnce(&mut Stats)) {
        change(&mut self.stats.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Takes up the connections of the file. The old ones stay until the new ones are proven, and when they are not.
    pub async fn reload(&self) -> Result<Arc<Backends>, BackendError> {
        let connections = Connections::read(&self.file)?;
        let backends = Arc::new(Backends::open(&connections).await?);
        let mut desk = self.desk.lock().await;
        (desk.connections, desk.backends) = (Some(connections), Some(backends.clone()));
        drop(desk);
        self.note(|stats| stats.reloads += 1);
        self.changed.notify_waiters();
        Ok(backends)
    }

    /// The connections in force, opened again when they have ended.
    pub async fn backends(&self) -> Result<Arc<Backends>, BackendError> {
        self.desk.lock().await.backends(&self.file).await
    }

    /// Takes an order: one transaction, then the ledger, then the cache.
    pub async fn place(&self, order: &NewOrder) -> Result<Entry, OrderError> {
        let mut desk = self.desk.lock().await;
        let backends = desk.backends(&self.file).await?;
        let committed = match tokio::time::timeout(PATIENCE, commit(&backends, order)).await {
            Ok(committed) => committed,
            Err(_) => Err(OrderError::InDoubt(format!("no answer within {} s", PATIENCE.as_secs()))),
        };
        let entry = match committed {
            Ok(entry) => entry,
            Err(error) => {
                // The next order opens new connections: the server may have changed, or its tables.
                if !matches!(error, OrderError::Refused { wrong: true, .. }) {
                    desk.backends = None;
                }
                return Err(error);
            }
        };
        desk.ledger.append(&entry)?;
        drop(desk);
        let cached = cache(&backends, &entry).await;
        self.note(|stats| {
            stats.acknowledged += 1;
            (stats.last_order, stats.last_acknowledged) = (Some(entry.id), Some(entry.acked_at));
            if let Err(error) = cached {
                stats.cache_failed += 1;
                stats.last_error = Some(error.to_string());
            }
        });
        Ok(entry)
    }
}

impl Desk {
    async fn backends(&mut self, file: &std::path::Path) -> Result<Arc<Backends>, BackendError> {
        if let Some(backends) = self.backends.as_ref().filter(|backends| !backends.is_closed()) {
            return Ok(backends.clone());
        }
        let connections = match &self.connections {
            Some(connections) => connections.clone(),
            None => Connections::read(file)?,
        };
        let backends = Arc::new(Backends::open(&connections).await?);
        (self.connections, self.backends) = (Some(connections), Some(backends.clone()));
        Ok(backends)
    }
}

async fn commit(backends: &Backends, order: &NewOrder) -> Result<Entry, OrderError> {
    let row = backends.writer.query_one(&backends.insert, &[&order.customer, &order.amount, &order.item]).await;
    let row = row.map_err(|error| explain(&error))?;
    // From here on it is committed, and not yet acknowledged.
    let unknown = |error: &dyn std::fmt::Display| OrderError::InDoubt(error.to_string());
    let id: i64 = row.try_get(0).map_err(|error| unknown(&error))?;
    let created_us: i64 = row.try_get(1).map_err(|error| unknown(&error))?;
    let xid: u64 = row.try_get::<_, String>(2).map_err(|error| unknown(&error))?.parse().map_err(|e| unknown(&e))?;
    // The server keeps the low half with its commit times, when it keeps them: else the moment after is the best there is.
    let short = (xid & u64::from(u32::MAX)).to_string();
    let query = "select case current_setting('track_commit_timestamp') \
                 when 'on' then pg_xact_commit_timestamp($1::text::xid) else clock_timestamp() end";
    let row = backends.writer.query_one(query, &[&short]).await.map_err(|error| unknown(&error))?;
    let committed_at: DateTime<Utc> = row.try_get(0).map_err(|error| unknown(&error))?;
    Ok(Entry {
        id,
        customer: order.customer,
        item: order.item.clone(),
        amount: order.amount,
        digest: row_digest(id, order.customer, order.amount, created_us, &order.item),
        xid,
        committed_at,
        acked_at: clock::wall_now(),
        database: backends.database.clone(),
    })
}

/// An error with the server's code means that nothing was committed; unless it says that it goes away.
fn explain(error: &tokio_postgres::Error) -> OrderError {
    match (error.code(), error.as_db_error()) {
        (Some(code), Some(db)) if !going_away(code) => {
            // Classes 22 and 23: the data, and what must be true of it.
            let wrong = code.code().starts_with("22") || code.code().starts_with("23");
            OrderError::Refused { why: db.message().to_owned(), wrong }
        }
        (_, Some(db)) => OrderError::InDoubt(db.message().to_owned()),
        _ => OrderError::InDoubt(error.to_string()),
    }
}

fn going_away(code: &SqlState) -> bool {
    [SqlState::ADMIN_SHUTDOWN, SqlState::CRASH_SHUTDOWN].contains(code)
}

async fn cache(backends: &Backends, entry: &Entry) -> Result<(), crate::system::redis::RedisError> {
    let cart = serde_json::json!({ "order": entry.id, "item": entry.item, "amount": entry.amount }).to_string();
    let mut pipeline = redis::pipe();
    let cart_key = format!("cart:{}", entry.id);
    match entry.id % 3 {
        0 => pipeline.set_ex(cart_key, cart, CART),
        _ => pipeline.set(cart_key, cart),
    };
    pipeline.set_ex(format!("session:{}", entry.customer), entry.id, SESSION);
    backends.cache.write(&pipeline).await
}
