//! One statement with bind parameters; its first row as facts.

use std::time::Duration;

use bytes::BytesMut;
use chrono::{DateTime, NaiveDate, NaiveDateTime, SecondsFormat, Utc};
use futures::TryStreamExt as _;
use serde_json::Value;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::{Format, FromSql, IsNull, ToSql, Type};
use tokio_postgres::{Client, Row};

use super::connect::Url;
use super::error::PgError;
use super::restore::locked_tables;
use crate::event::{Facts, Failure, Lsn};
use crate::mutant;
use crate::secret::Secret;

/// How long a statement waits for a lock: a paused server holds some for ever.
const LOCKS: Duration = Duration::from_secs(5);

/// A statement to run.
#[derive(Debug, Clone)]
pub struct Query<'a> {
    pub sql: &'a str,
    /// As text; the server gives each the type that its place in the statement has.
    pub params: &'a [String],
    pub timeout: Duration,
    /// In a read-only transaction.
    pub read_only: bool,
}

/// What came back.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// The first row, by column; and `rows`, how many there were, unless a column has that name.
    pub facts: Facts,
    pub rows: u64,
}

/// Runs it in a session of its own.
pub async fn query(url: &Secret, query: &Query<'_>) -> Result<Answer, Failure> {
    let client = Url::parse(url)?.connect().await?;
    run(&client, query).await
}

async fn run(client: &Client, query: &Query<'_>) -> Result<Answer, Failure> {
    let mode = if query.read_only { "read only" } else { "read write" };
    let set = format!(
        "begin {mode}; set local statement_timeout = {}; set local lock_timeout = {}",
        query.timeout.as_millis().clamp(1, i32::MAX as u128),
        LOCKS.as_millis(),
    );
    // A server in recovery knows only read-only transactions.
    let set = if query.read_only { set } else { set.replacen("begin read write", "begin", 1) };
    client.batch_execute(&set).await.map_err(|error| PgError::sql("beginning a transaction", &error))?;
    let result = fetch(client, query).await;
    let end = if result.is_ok() { "commit" } else { "rollback" };
    let ended = client.batch_execute(end).await.map_err(|error| PgError::sql("committing", &error));
    match result {
        Ok(answer) => ended.map(|()| answer).map_err(Failure::from),
        Err(error) => Err(explain(client, query, error).await),
    }
}

async fn fetch(client: &Client, query: &Query<'_>) -> Result<Answer, PgError> {
    let wrong = |error| PgError::sql("the query", &error);
    let pasted = query.params.iter().fold(query.sql.to_owned(), |sql, param| sql.replace("$1", &format!("'{param}'")));
    let (sql, params) = if mutant::removes("8b") { (&*pasted, &[][..]) } else { (query.sql, query.params) };
    let statement = client.prepare(sql).await.map_err(wrong)?;
    if statement.params().len() != params.len() {
        let (takes, given) = (statement.params().len(), params.len());
        return Err(Failure::new(
            "the query was not run",
            format!("it takes {takes} parameters, and {given} were given"),
        )
        .into());
    }
    let params: Vec<AsText> = params.iter().map(|param| AsText(param)).collect();
    let rows = client.query_raw(&statement, &params).await.map_err(wrong)?;
    tokio::pin!(rows);
    let (mut facts, mut count) = (Facts::new(), 0);
    while let Some(row) = rows.try_next().await.map_err(wrong)? {
        if count == 0 {
            facts = first_row(&row)?;
        }
        count += 1;
    }
    facts.entry("rows").or_insert_with(|| count.into());
    Ok(Answer { facts, rows: count })
}

async fn explain(client: &Client, query: &Query<'_>, error: PgError) -> Failure {
    let timed_out = error.is_state(&SqlState::LOCK_NOT_AVAILABLE);
    if timed_out
        && let Ok(locked) = locked_tables(client).await
        && !locked.is_empty()
    {
        let tables = locked.join(", ");
        return Failure::new(
            format!("{tables} cannot be read before the promotion"),
            format!("a transaction that the recovery point cut off has locked {tables}, and recovery keeps the lock"),
        )
        .now("Read it after the promotion, or choose an earlier point.");
    }
    if error.is_state(&SqlState::QUERY_CANCELED) {
        return Failure::new("the query took too long", format!("more than {} s", query.timeout.as_secs_f64()));
    }
    error.into()
}

fn first_row(row: &Row) -> Result<Facts, PgError> {
    let mut facts = Facts::new();
    for (index, column) in row.columns().iter().enumerate() {
        let value: Option<Cell> = row.try_get(index).map_err(|_| {
            let (name, kind) = (column.name(), column.type_());
            Failure::new(format!("the column {name} cannot be read"), format!("its type is {kind}"))
                .now(format!("select {name}::text"))
        })?;
        facts.insert(column.name().to_owned(), value.map_or(Value::Null, |cell| cell.0));
    }
    Ok(facts)
}

/// A parameter in text format: the server reads it as the type it expects there.
#[derive(Debug)]
struct AsText<'a>(&'a str);

impl ToSql for AsText<'_> {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        out.extend_from_slice(self.0.as_bytes());
        Ok(IsNull::No)
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    fn encode_format(&self, _: &Type) -> Format {
        Format::Text
    }

    tokio_postgres::types::to_sql_checked!();
}

/// A value as JSON.
struct Cell(Value);

type AnyError = Box<dyn std::error::Error + Sync + Send>;

impl<'a> FromSql<'a> for Cell {
    fn from_sql(kind: &Type, raw: &'a [u8]) -> Result<Self, AnyError> {
        let value = match *kind {
            Type::BOOL => bool::from_sql(kind, raw)?.into(),
            Type::INT2 => i16::from_sql(kind, raw)?.into(),
            Type::INT4 => i32::from_sql(kind, raw)?.into(),
            Type::INT8 => i64::from_sql(kind, raw)?.into(),
            Type::OID | Type::XID => u32::from_be_bytes(raw.try_into()?).into(),
            Type::XID8 => u64::from_be_bytes(raw.try_into()?).into(),
            Type::FLOAT4 => f64::from(f32::from_sql(kind, raw)?).into(),
            Type::FLOAT8 => f64::from_sql(kind, raw)?.into(),
            Type::NUMERIC => numeric(raw)?,
            Type::TIMESTAMPTZ => match DateTime::<Utc>::from_sql(kind, raw) {
                Ok(time) => time.to_rfc3339_opts(SecondsFormat::AutoSi, true).into(),
                Err(_) => return Err("infinite".into()),
            },
            Type::TIMESTAMP => NaiveDateTime::from_sql(kind, raw)?.format("%Y-%m-%dT%H:%M:%S%.f").to_string().into(),
            Type::DATE => NaiveDate::from_sql(kind, raw)?.to_string().into(),
            Type::JSON | Type::JSONB => Value::from_sql(kind, raw)?,
            Type::UUID => uuid::Uuid::from_slice(raw)?.to_string().into(),
            Type::PG_LSN => Lsn(u64::from_be_bytes(raw.try_into()?)).to_string().into(),
            // `"char"`, regclass and the like come as other things than text.
            _ => String::from_sql(kind, raw)?.into(),
        };
        Ok(Self(value))
    }

    fn accepts(kind: &Type) -> bool {
        let known = [
            Type::BOOL,
            Type::INT2,
            Type::INT4,
            Type::INT8,
            Type::OID,
            Type::XID,
            Type::XID8,
            Type::FLOAT4,
            Type::FLOAT8,
            Type::NUMERIC,
            Type::TIMESTAMPTZ,
            Type::TIMESTAMP,
            Type::DATE,
            Type::JSON,
            Type::JSONB,
            Type::UUID,
            Type::PG_LSN,
        ];
        known.contains(kind) || <String as FromSql>::accepts(kind)
    }
}

/// A number where JSON can hold it exactly, its digits as text otherwise.
fn numeric(raw: &[u8]) -> Result<Value, AnyError> {
    let word = |at: usize| raw.get(at..at + 2).map(|b| u16::from_be_bytes([b[0], b[1]])).ok_or("a numeric is cut");
    let (count, weight, sign, scale) = (word(0)?, word(2)?.cast_signed(), word(4)?, usize::from(word(6)?));
    let text = match sign {
        0x0000 | 0x4000 => {
            let digit = |place: i32| -> Result<u16, AnyError> {
                let index = i32::from(weight) - place;
                let inside = usize::try_from(index).ok().filter(|index| *index < usize::from(count));
                inside.map_or(Ok(0), |index| Ok(word(8 + 2 * index)?))
            };
            let mut whole = String::new();
            for place in (0..=i32::from(weight).max(0)).rev() {
                whole.push_str(&format!("{:04}", digit(place)?));
            }
            let mut fraction = String::new();
            for place in 1..=scale.div_ceil(4) {
                fraction.push_str(&format!("{:04}", digit(-i32::try_from(place)?)?));
            }
            fraction.truncate(scale);
            let whole = whole.trim_start_matches('0');
            let minus = if sign == 0x4000 { "-" } else { "" };
            let whole = if whole.is_empty() { "0" } else { whole };
            if scale == 0 { format!("{minus}{whole}") } else { format!("{minus}{whole}.{fraction}") }
        }
        0xC000 => "NaN".to_owned(),
        0xD000 => "Infinity".to_owned(),
        _ => "-Infinity".to_owned(),
    };
    if let Ok(number) = text.parse::<i64>() {
        return Ok(number.into());
    }
    let exact = text
        .parse::<f64>()
        .ok()
        .filter(|number| number.is_finite() && shortest(&text) == shortest(&number.to_string()));
    Ok(exact.map_or_else(|| text.clone().into(), Value::from))
}

/// Without zeros at the end of the fraction.
fn shortest(text: &str) -> &str {
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { text }
}
