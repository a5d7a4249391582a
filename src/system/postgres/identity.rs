//! Which server this is. The system identifier alone does not say: a clone shares it.

use std::collections::BTreeMap;
use std::path::PathBuf;

use tokio_postgres::Client;

use super::connect::Url;
use super::error::PgError;
use crate::event;
use crate::secret::Secret;

/// A server's identity, by SQL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    pub system_identifier: u64,
    /// The one that is written to, or the newest that recovery has reached.
    pub timeline: u32,
    /// Absent when the role may not see it.
    pub data_directory: Option<PathBuf>,
    pub version: String,
    /// `150018`
    pub version_number: u32,
    pub in_recovery: bool,
    /// `host:port/database`
    pub address: String,
}

impl Identity {
    /// `address` is how the server was reached.
    pub async fn read(client: &Client, address: &str) -> Result<Self, PgError> {
        // After pg_promote the control file still names the old timeline; the WAL file's name is right at once.
        let row = client
            .query_one(
                "select s.system_identifier::text,
                        case when pg_is_in_recovery()
                             then greatest(c.timeline_id, r.min_recovery_end_timeline)::bigint
                             else ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::bigint end,
                        (select setting from pg_settings where name = 'data_directory'),
                        current_setting('server_version'),
                        current_setting('server_version_num'),
                        pg_is_in_recovery()
                   from pg_control_system() s, pg_control_checkpoint() c, pg_control_recovery() r",
                &[],
            )
            .await
            .map_err(|error| PgError::sql("asking the server for its identity", &error))?;
        let bad = |what: &str| PgError::Sql {
            operation: "asking the server for its identity",
            why: format!("its {what} cannot be read"),
            state: None,
        };
        let identifier: String = row.get(0);
        let version_number: String = row.get(4);
        Ok(Self {
            // SQL has no unsigned numbers: the upper half appears negative.
            system_identifier: identifier
                .parse()
                .or_else(|_| identifier.parse::<i64>().map(i64::cast_unsigned))
                .map_err(|_| bad("system identifier"))?,
            timeline: u32::try_from(row.get::<_, i64>(1)).map_err(|_| bad("timeline"))?,
            data_directory: row.get::<_, Option<String>>(2).map(PathBuf::from),
            version: row.get(3),
            version_number: version_number.parse().map_err(|_| bad("version"))?,
            in_recovery: row.get(5),
            address: address.to_owned(),
        })
    }

    pub fn major(&self) -> u32 {
        self.version_number / 10_000
    }

    /// For the journal: what must not have changed between a decision and its effect.
    pub fn fingerprint(&self) -> String {
        let directory = self.data_directory.as_ref().map_or("?".to_owned(), |path| path.display().to_string());
        format!(
            "postgres {} system {} timeline {} at {} in {directory}",
            self.version, self.system_identifier, self.timeline, self.address
        )
    }
}

/// Who answers at this URL.
pub async fn identify(url: &Secret) -> event::Identity {
    match facts(url).await {
        Ok(facts) => event::Identity::Server { facts },
        Err(error @ PgError::Refused { .. }) => event::Identity::NoServer { why: error.to_string() },
        Err(error) => event::Identity::Unknown { why: error.to_string() },
    }
}

async fn facts(url: &Secret) -> Result<BTreeMap<String, String>, PgError> {
    let url = Url::parse(url)?;
    facts_of(&url.connect().await?, &url.address()).await
}

/// What tells the server at the other end from all others.
pub(super) async fn facts_of(client: &Client, address: &str) -> Result<BTreeMap<String, String>, PgError> {
    let identity = Identity::read(client, address).await?;
    let row = client
        .query_one(
            "select to_char(pg_postmaster_start_time() at time zone 'UTC', 'YYYY-MM-DD HH24:MI:SS.US UTC'),
                    coalesce(host(inet_server_addr()), 'a socket'), current_setting('port')",
            &[],
        )
        .await
        .map_err(|error| PgError::sql("asking the server since when it runs", &error))?;
    let directory = identity.data_directory.map(|path| path.display().to_string());
    let facts = [
        ("address", identity.address),
        ("data directory", directory.unwrap_or_else(|| "not told to this role".to_owned())),
        ("listens at", format!("{}:{}", row.get::<_, &str>(1), row.get::<_, &str>(2))),
        (event::Identity::STARTED, row.get(0)),
        ("system identifier", identity.system_identifier.to_string()),
        ("takes writes", (!identity.in_recovery).to_string()),
        ("timeline", identity.timeline.to_string()),
    ];
    Ok(facts.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
}
