//! The tables that the damage touched, as they are where recovery has stopped.

use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use super::super::error::PgError;
use crate::event::{Check, Failure};

/// A larger table is not counted while people wait: the server's own estimate must do. Bytes.
const COUNTED: i64 = 1 << 30;

/// A check a table. What was made behind the point and never had a name is left out: it cannot be there.
pub(super) async fn look(client: &Client, names: &[String]) -> Result<Vec<Check>, Failure> {
    let mut seen = Vec::new();
    for name in names {
        match find(client, name).await? {
            Some((name, quoted)) => seen.push(Check { passed: true, detail: rows(client, &quoted).await?, name }),
            None if is_file(name) => {}
            None => {
                let detail = "not there: it was made after this point, or the point is wrong".to_owned();
                seen.push(Check { name: name.clone(), passed: false, detail });
            }
        }
    }
    Ok(seen)
}

fn is_file(name: &str) -> bool {
    name.split('/').filter(|part| part.parse::<u32>().is_ok()).count() == 3
}

/// The name, and the server's spelling of it.
async fn find(client: &Client, name: &str) -> Result<Option<(String, String)>, PgError> {
    let failed = |error| PgError::sql("looking for a table", &error);
    let row = match is_file(name) {
        // The default tablespace goes by zero there.
        true => client
            .query_one(
                "select c.oid::regclass::text, c.oid::regclass::text
                   from pg_class c, pg_database d,
                        (select split_part($1, '/', 1)::oid, split_part($1, '/', 2)::oid, split_part($1, '/', 3)::oid)
                          file(tablespace, database, number)
                  where d.datname = current_database() and d.oid = file.database and c.relkind in ('r', 'm')
                    and c.oid = pg_filenode_relation(
                          case when file.tablespace = d.dattablespace then 0 else file.tablespace end, file.number)
                 union all select null, null
                 limit 1",
                &[&name],
            )
            .await
            .map_err(failed)?,
        // Names come as the catalogue has them, with at most a schema in front.
        false => client
            .query_one(
                "select $1::text, (select c.oid::regclass::text
                                     from pg_class c join pg_namespace n on n.oid = c.relnamespace
                                    where c.relkind in ('r', 'p', 'm')
                                      and case n.nspname when 'public' then c.relname
                                          else n.nspname || '.' || c.relname end = $1)",
                &[&name],
            )
            .await
            .map_err(failed)?,
    };
    Ok(row.get::<_, Option<String>>(0).zip(row.get(1)))
}

async fn rows(client: &Client, quoted: &str) -> Result<String, PgError> {
    let told = async {
        let sizes = "select pg_relation_size(oid), reltuples::bigint from pg_class where oid = $1::text::regclass";
        let row = client.query_one(sizes, &[&quoted]).await?;
        let (bytes, estimate): (Option<i64>, i64) = (row.get(0), row.get(1));
        if bytes.is_some_and(|bytes| bytes > COUNTED) && estimate >= 0 {
            return Ok(format!("about {estimate} rows"));
        }
        let row = client.query_one(&format!("select count(*) from {quoted}"), &[]).await?;
        Ok::<_, tokio_postgres::Error>(format!("{} rows", row.get::<_, i64>(0)))
    };
    match told.await.map_err(|error| PgError::sql("counting", &error)) {
        Ok(told) => Ok(told),
        Err(error) if error.is_state(&SqlState::LOCK_NOT_AVAILABLE) => {
            Ok("there; a transaction that the point cuts off has locked it, and it can be read after the promotion"
                .to_owned())
        }
        Err(PgError::Sql { why, state: Some(_), .. }) => Ok(format!("there, but it cannot be read: {why}")),
        Err(error) => Err(error),
    }
}
