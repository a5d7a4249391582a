//! Looks at a living server: rows by table, damaged pages, damaged indexes.

mod suspects;

use std::path::PathBuf;
use std::time::Duration;

use tokio_postgres::Client;
use tokio_postgres::error::SqlState;
use tokio_util::sync::CancellationToken;

use super::connect::Url;
use super::control::programs;
use super::error::PgError;
use super::identity::Identity;
use super::report::Reporter;
use super::restore::locked_tables;
use crate::event::{Check, Facts, Failure};
use crate::process::{End, Spec};
use crate::secret::Secret;

/// What to look at.
pub struct Checks {
    pub url: Secret,
    /// Tables, with the rows each must have at least. Names as SQL writes them.
    pub tables: Vec<(String, u64)>,
    /// Tables that must be there, however many rows they have; one without a name is `tablespace/database/file`.
    pub suspects: Option<Vec<String>>,
    /// The server's own count of damaged pages.
    pub checksums: bool,
    /// `pg_amcheck`: heap and B-tree structure.
    pub amcheck: bool,
    /// The extension may be created where it is missing: only on a restored server.
    pub may_install: bool,
    pub bin: Option<PathBuf>,
    /// For one table.
    pub timeout: Duration,
    pub cancel: CancellationToken,
    pub report: Reporter,
}

/// What was found. A check that could not be made is not among the passed ones.
#[derive(Debug, Clone, PartialEq)]
pub struct Checked {
    pub checks: Vec<Check>,
    /// `tables`, `rows`, `rows_<table>`, `corrupt`; `suspects` in a sentence; `amcheck` says why it was not run.
    pub facts: Facts,
}

impl Checked {
    pub fn passed(&self) -> bool {
        self.checks.iter().all(|check| check.passed)
    }
}

/// Every table of the URL's database that is kept through a crash, as SQL writes its name.
pub async fn tables(url: &Secret) -> Result<Vec<String>, Failure> {
    let client = Url::parse(url)?.connect().await?;
    let rows = client
        .query(
            "select format('%I.%I', n.nspname, c.relname) from pg_class c join pg_namespace n on n.oid = c.relnamespace
             where c.relkind in ('r', 'm') and c.relpersistence = 'p' and n.nspname <> 'information_schema'
               and n.nspname !~ '^pg_' order by 1",
            &[],
        )
        .await
        .map_err(|error| PgError::sql("listing the tables", &error))?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

impl Checks {
    pub async fn run(self) -> Result<Checked, Failure> {
        let url = Url::parse(&self.url)?;
        let client = url.connect().await?;
        let identity = Identity::read(&client, &url.address()).await?;
        let mut found = Checked { checks: Vec::new(), facts: Facts::new() };
        let set = format!(
            "set statement_timeout = {}; set lock_timeout = '5s'",
            self.timeout.as_millis().clamp(1, i32::MAX as u128)
        );
        client.batch_execute(&set).await.map_err(|error| PgError::sql("preparing the checks", &error))?;
        let (mut rows, mut corrupt) = (0, 0);
        for (name, least) in &self.tables {
            if self.cancel.is_cancelled() {
                return Err(Failure::new("the checks were cancelled", format!("before {name}")));
            }
            let check = self.count(&client, name, *least, &mut found.facts, &mut rows).await?;
            self.report.say(format!("{}: {}", check.name, check.detail)).await;
            found.checks.push(check);
        }
        if let Some(suspects) = &self.suspects {
            let seen = suspects::look(&client, suspects).await?;
            for check in &seen {
                self.report.say(format!("{}: {}", check.name, check.detail)).await;
            }
            let told: Vec<String> = seen.iter().map(|check| format!("{}: {}", check.name, check.detail)).collect();
            let told = if told.is_empty() { "none is known".to_owned() } else { told.join(", ") };
            found.facts.insert("suspects".to_owned(), told.into());
            // A table of the runbook's own list is told once.
            found
                .checks
                .extend(seen.into_iter().filter(|check| self.tables.iter().all(|(name, _)| *name != check.name)));
        }
        if self.checksums {
            let (check, damaged) = page_checksums(&client).await?;
            corrupt += damaged;
            found.checks.push(check);
        }
        if self.amcheck {
            match self.amcheck(&client, &url, &identity).await? {
                Ok((check, damaged)) => {
                    corrupt += damaged;
                    found.checks.push(check);
                }
                Err(why) => {
                    self.report.say(format!("amcheck was not run: {why}")).await;
                    found.facts.insert("amcheck".to_owned(), format!("not run: {why}").into());
                }
            }
        }
        found.facts.insert("tables".to_owned(), self.tables.len().into());
        found.facts.insert("rows".to_owned(), rows.into());
        found.facts.insert("corrupt".to_owned(), corrupt.into());
        Ok(found)
    }

    async fn count(
        &self,
        client: &Client,
        name: &str,
        least: u64,
        facts: &mut Facts,
        rows: &mut u64,
    ) -> Result<Check, Failure> {
        let failed = |detail: String| Check { name: name.to_owned(), passed: false, detail };
        // The server's own spelling of the name goes into the statement, never ours.
        let row = client.query_one("select to_regclass($1)::oid, to_regclass($1)::text", &[&name]).await;
        let row = match row.map_err(|error| PgError::sql("looking for a table", &error)) {
            Ok(row) => row,
            Err(error @ PgError::Sql { state: Some(_), .. }) => return Ok(failed(error.to_string())),
            Err(error) => return Err(error.into()),
        };
        let Some(quoted) = row.get::<_, Option<String>>(1) else {
            return Ok(failed("there is no such table".to_owned()));
        };
        match client.query_one(&format!("select count(*) from {quoted}"), &[]).await {
            Ok(row) => {
                let count = u64::try_from(row.get::<_, i64>(0)).unwrap_or(0);
                *rows += count;
                facts.insert(format!("rows_{name}"), count.into());
                let detail = if count >= least {
                    format!("{count} rows")
                } else {
                    format!("{count} rows, expected at least {least}")
                };
                Ok(Check { name: name.to_owned(), passed: count >= least, detail })
            }
            Err(error) => {
                let error = PgError::sql("counting", &error);
                if error.is_state(&SqlState::LOCK_NOT_AVAILABLE) && locked_tables(client).await?.contains(&quoted) {
                    return Ok(failed(
                        "not counted: a transaction that the recovery point cuts off had locked it; readable after the promotion"
                            .to_owned(),
                    ));
                }
                match error {
                    // A damaged page is what the check is for.
                    PgError::Sql { state: Some(_), .. } => Ok(failed(error.to_string())),
                    error => Err(error.into()),
                }
            }
        }
    }

    /// The check and its count of damage, or why it was not made.
    async fn amcheck(
        &self,
        client: &Client,
        url: &Url,
        identity: &Identity,
    ) -> Result<Result<(Check, u64), String>, Failure> {
        let row = client.query_one("select exists (select from pg_extension where extname = 'amcheck')", &[]).await;
        let installed: bool = row.map_err(|error| PgError::sql("looking for amcheck", &error))?.get(0);
        if !installed && identity.in_recovery {
            return Ok(Err(
                "the extension is not in the database, and can be created only after the promotion".to_owned()
            ));
        }
        if !installed && !self.may_install {
            return Ok(Err("the extension is not in the database, and this server is not changed".to_owned()));
        }
        let bin = programs(self.bin.as_deref(), identity.major()).await?;
        if !bin.join("pg_amcheck").exists() {
            return Ok(Err(format!("pg_amcheck is not in {}", bin.display())));
        }
        let mut spec =
            Spec::new(bin.join("pg_amcheck")).args(["--no-password", "--jobs=2", "--database"]).arg(url.database());
        if !installed {
            spec = spec.arg("--install-missing");
        }
        for (name, value) in url.environment()? {
            spec = spec.env(name, value);
        }
        let captured = spec.env("LC_ALL", "C").capture(1 << 20, &self.cancel).await.map_err(PgError::from)?;
        let damaged =
            captured.stdout_text().lines().filter(|line| !line.starts_with(' ') && !line.is_empty()).count() as u64;
        let first = captured.stdout_text().lines().next().map(str::to_owned).unwrap_or_default();
        let check = |passed, detail: String| Check { name: "amcheck".to_owned(), passed, detail };
        match captured.end {
            End::Exited(0) => Ok(Ok((check(true, "heap and B-tree indexes are sound".to_owned()), 0))),
            End::Exited(2) => Ok(Ok((check(false, format!("{damaged} findings, the first: {first}")), damaged.max(1)))),
            end => Err(Failure::new("pg_amcheck could not look", format!("{} ({end})", captured.stderr_text()))),
        }
    }
}

/// What the server has come across since it was started; counting rows makes it read their pages.
async fn page_checksums(client: &Client) -> Result<(Check, u64), Failure> {
    let row = client
        .query_one(
            "select current_setting('data_checksums'), coalesce(sum(checksum_failures), 0)::bigint from pg_stat_database",
            &[],
        )
        .await
        .map_err(|error| PgError::sql("asking for damaged pages", &error))?;
    let (on, failures): (String, i64) = (row.get(0), row.get(1));
    let failures = u64::try_from(failures).unwrap_or(0);
    let check = |passed, detail: String| Check { name: "page checksums".to_owned(), passed, detail };
    Ok(match (on.as_str(), failures) {
        ("on", 0) => (check(true, "no page with a wrong checksum was read".to_owned()), 0),
        ("on", n) => (check(false, format!("{n} pages with a wrong checksum were read")), n),
        _ => (check(false, "this cluster has no page checksums".to_owned()), 0),
    })
}
