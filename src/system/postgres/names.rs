//! Names of tables by their files, as they were when a base backup was taken: WAL knows only the files.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::base::{Manifest, Part};
use super::connect::Url;
use super::error::PgError;
use super::wal::read::Relation;
use crate::digest::Digest;
use crate::event::Failure;
use crate::store::Bucket;

/// Files of one database that are named at most.
const MOST: i64 = 200_000;

/// Bytes, unpacked.
const LARGEST: usize = 256 << 20;

/// A file's relation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Named {
    /// `schema.table`, without `public.`.
    table: String,
    /// Holds the table's rows; else it is an index, a sequence, or TOAST of the table.
    rows: bool,
}

/// By file. Empty where nobody could be asked.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Names(BTreeMap<Relation, Named>);

impl Names {
    /// The table whose rows a file holds.
    pub fn table(&self, relation: &Relation) -> Option<&str> {
        self.0.get(relation).filter(|named| named.rows).map(|named| named.table.as_str())
    }

    pub fn knows(&self, relation: &Relation) -> bool {
        self.0.contains_key(relation)
    }

    /// Whose rows changed in a file: the table's name, or the file's own when it has none. `None` for what is known to hold
    /// no rows of a table, such as an index.
    pub fn rows_of(&self, relation: &Relation) -> Option<String> {
        match self.0.get(relation) {
            Some(named) => named.rows.then(|| named.table.clone()),
            None => Some(relation.to_string()),
        }
    }

    /// Asks every database that lets the role in.
    pub(super) async fn ask(url: &Url) -> Result<Self, PgError> {
        let client = url.connect().await?;
        let failed = |error| PgError::sql("asking the source for its databases", &error);
        let databases = client
            .query("select datname::text from pg_database where datallowconn and not datistemplate", &[])
            .await
            .map_err(failed)?;
        let mut names = BTreeMap::new();
        for row in databases {
            let database: String = row.get(0);
            match of_database(&url.clone().with_database(&database)).await {
                Ok(found) => names.extend(found),
                Err(error) => tracing::warn!(%error, database, "the tables of a database are not named"),
            }
        }
        Ok(Self(names))
    }

    pub(super) fn key(label: &str) -> String {
        format!("base/{label}/names.json.zst")
    }

    pub(super) async fn store(&self, bucket: &Bucket, label: &str) -> Result<Part, PgError> {
        let failed = |error: &dyn std::fmt::Display| Failure::new("the tables' names cannot be stored", error);
        let raw = serde_json::to_vec(self).map_err(|error| failed(&error))?;
        let stored = zstd::bulk::compress(&raw, 3).map_err(|error| failed(&error))?;
        let stored = bucket.encryption().seal(stored, None);
        let key = Self::key(label);
        let part = Part {
            key: key.clone(),
            digest: Digest::of(&stored),
            bytes: stored.len() as u64,
            raw_bytes: raw.len() as u64,
        };
        bucket.create(&key, stored).await?;
        Ok(part)
    }

    /// Those of a backup; none when it has none. A name is a help to read by: without it there is still the file.
    pub async fn of_backup(bucket: &Bucket, manifest: &Manifest) -> Self {
        let Some(part) = &manifest.names else { return Self::default() };
        let Ok(stored) = bucket.read_verified(&part.key, part.digest).await else { return Self::default() };
        let Ok(stored) = bucket.open_sealed(&part.key, stored) else { return Self::default() };
        let capacity = usize::try_from(part.raw_bytes).unwrap_or(usize::MAX).min(LARGEST);
        let raw = zstd::bulk::decompress(&stored, capacity).unwrap_or_default();
        serde_json::from_slice(&raw).unwrap_or_default()
    }
}

/// Files of ordinary tables, and of what belongs to them.
async fn of_database(url: &Url) -> Result<Vec<(Relation, Named)>, PgError> {
    let client = url.connect().await?;
    let rows = client
        .query(
            "select coalesce(nullif(c.reltablespace, 0), d.dattablespace)::oid, d.oid, pg_relation_filenode(c.oid),
                    n.nspname::text, coalesce(i.relname, t.relname, c.relname)::text, c.relkind in ('r', 'm')
               from pg_class c
               join pg_database d on d.datname = current_database()
               left join pg_index x on x.indexrelid = c.oid
               left join pg_class i on i.oid = x.indrelid
               left join pg_class t on t.reltoastrelid = c.oid
               join pg_namespace n on n.oid = coalesce(i.relnamespace, t.relnamespace, c.relnamespace)
              where c.oid >= 16384 and c.relkind in ('r', 'm', 'i', 't', 'S') and c.relpersistence = 'p'
                and pg_relation_filenode(c.oid) is not null
              limit $1",
            &[&MOST],
        )
        .await
        .map_err(|error| PgError::sql("asking the source for its tables", &error))?;
    Ok(rows
        .into_iter()
        .map(|row| {
            let relation = Relation { tablespace: row.get(0), database: row.get(1), number: row.get(2) };
            let (schema, table): (String, String) = (row.get(3), row.get(4));
            let table = if schema == "public" { table } else { format!("{schema}.{table}") };
            (relation, Named { table, rows: row.get(5) })
        })
        .collect())
}
