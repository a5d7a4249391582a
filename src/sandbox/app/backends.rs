//! The connections to both databases, opened and proven together.

use std::path::Path;
use std::time::Duration;

use serde::Deserialize;
use tokio::sync::Mutex;
use tokio_postgres::{Client, Statement};

use crate::secret::Secret;
use crate::system::postgres::{PgError, Url};
use crate::system::redis::{Redis, RedisError};

#[derive(Debug, thiserror::Error)]
pub enum BackendError {
    #[error("the connections in {path} cannot be read: {why}")]
    File { path: String, why: String },
    #[error(transparent)]
    Postgres(#[from] PgError),
    #[error("{operation} failed: {source}")]
    Sql { operation: &'static str, source: tokio_postgres::Error },
    #[error(transparent)]
    Redis(#[from] RedisError),
    #[error("the databases did not answer within {seconds} s")]
    Silent { seconds: u64 },
}

/// The file's content.
#[derive(Clone)]
pub struct Connections {
    pub database: Secret,
    pub cache: Secret,
}

impl Connections {
    pub fn read(path: &Path) -> Result<Self, BackendError> {
        #[derive(Deserialize)]
        struct Written {
            database_url: String,
            cache_url: String,
        }
        let bad = |why: String| BackendError::File { path: path.display().to_string(), why };
        let text = std::fs::read(path).map_err(|error| bad(error.to_string()))?;
        // serde's message may quote a value: only the place is repeated.
        let written: Written = serde_json::from_slice(&text)
            .map_err(|error| bad(format!("line {}, column {}", error.line(), error.column())))?;
        Ok(Self { database: Secret::new(written.database_url), cache: Secret::new(written.cache_url) })
    }
}

/// Until both databases must have answered: a server that was cut off by the network does not answer at all.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// Both databases. Orders are written on `writer` alone, so that the order of commits is the order of numbers.
pub struct Backends {
    pub writer: Client,
    pub reader: Client,
    /// Host and port.
    pub database: String,
    pub cache: Cache,
    /// Numbers of customers, 1 to this.
    pub customers: i64,
    /// Inserts an order, with its payment while the shop has that table.
    pub insert: Statement,
}

const ORDER: &str = "insert into orders (customer_id, total_cents, note) values ($1, $2, $3) returning id, created_at";
const ANSWER: &str = "select id, (extract(epoch from created_at) * 1000000)::bigint, pg_current_xact_id()::text from o";

impl Backends {
    /// Opens and proves both, within [`PATIENCE`].
    pub async fn open(connections: &Connections) -> Result<Self, BackendError> {
        let silent = BackendError::Silent { seconds: PATIENCE.as_secs() };
        tokio::time::timeout(PATIENCE, Self::prove(connections)).await.unwrap_or(Err(silent))
    }

    async fn prove(connections: &Connections) -> Result<Self, BackendError> {
        let sql = |operation| move |source| BackendError::Sql { operation, source };
        let url = Url::parse(&connections.database)?;
        let (writer, reader) = (url.connect().await?, url.connect().await?);
        writer.simple_query("select 1").await.map_err(sql("the proof of the database"))?;
        let customers = "select coalesce(max(id), 1)::bigint from customers";
        let row = reader.query_one(customers, &[]).await.map_err(sql("counting customers"))?;
        let customers = row.try_get(0).map_err(sql("counting customers"))?;
        let insert = prepare(&writer).await?;
        let cache = Cache::open(&connections.cache).await?;
        Ok(Self { writer, reader, database: format!("{}:{}", url.host(), url.port()), cache, customers, insert })
    }

    /// Whether either connection to the database has ended.
    pub fn is_closed(&self) -> bool {
        self.writer.is_closed() || self.reader.is_closed()
    }
}

/// The statement that fits the tables that are there now.
async fn prepare(writer: &Client) -> Result<Statement, BackendError> {
    let sql = |source| BackendError::Sql { operation: "preparing the insert", source };
    let row = writer.query_one("select to_regclass('payments') is not null", &[]).await.map_err(sql)?;
    let text = match row.try_get(0).map_err(sql)? {
        true => format!(
            "with o as ({ORDER}), p as (insert into payments (order_id, amount_cents, method) \
             select id, $2, 'card' from o) {ANSWER}"
        ),
        false => format!("with o as ({ORDER}) {ANSWER}"),
    };
    writer.prepare(&text).await.map_err(sql)
}

/// The cache, reached again when its connection has broken.
pub struct Cache {
    url: Secret,
    address: String,
    redis: Mutex<Redis>,
}

impl Cache {
    async fn open(url: &Secret) -> Result<Self, RedisError> {
        let redis = Redis::connect(url).await?;
        redis.ping().await?;
        Ok(Self { url: url.clone(), address: redis.address().to_owned(), redis: Mutex::new(redis) })
    }

    /// Host and port.
    pub fn address(&self) -> &str {
        &self.address
    }

    pub async fn ping(&self) -> Result<(), RedisError> {
        let mut pipeline = redis::pipe();
        pipeline.cmd("PING").ignore();
        self.write(&pipeline).await
    }

    pub async fn write(&self, pipeline: &redis::Pipeline) -> Result<(), RedisError> {
        let mut redis = self.redis.lock().await;
        let first = redis.pipeline("writing", pipeline).await;
        if first.is_ok() {
            return first;
        }
        *redis = Redis::connect(&self.url).await?;
        redis.pipeline("writing", pipeline).await
    }
}
