//! What each kind of step may say of its own.

use std::borrow::Cow;

use indexmap::IndexMap;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer};

use crate::document::{Argv, Lasting, Name, Scalar, Text};

/// What the step does.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(tag = "do", deny_unknown_fields)]
#[schemars(rename = "Step")]
pub enum Kind {
    /// A person looks or does something, and says so.
    #[serde(rename = "confirm")]
    Confirm {},
    /// A person types a value.
    #[serde(rename = "input")]
    Input {
        /// The variable that gets it.
        variable: Name,
        /// The question; the variable's description when absent.
        prompt: Option<Text>,
        /// What Enter alone means. May hold `{placeholders}`.
        default: Option<String>,
        /// `time` takes only a moment with an offset.
        input: Option<Input>,
    },
    /// A person picks one of several values.
    #[serde(rename = "choose")]
    Choose {
        /// The variable that gets it.
        variable: Name,
        prompt: Option<Text>,
        /// Value → label, in the order shown.
        #[schemars(with = "std::collections::BTreeMap<String, String>", extend("minProperties" = 1))]
        options: IndexMap<String, String>,
        default: Option<String>,
    },
    /// A program, or a script of the shell; exactly one of both.
    #[serde(rename = "command")]
    Command {
        /// The program and its arguments, each item whole. May hold `{placeholders}` inside items.
        argv: Option<Argv>,
        /// Given to `/bin/sh -eu`. Variables come by the environment, as LIFEBOAT_VAR_<NAME>; nothing is pasted in.
        script: Option<Text>,
        /// More environment. Values may hold `{placeholders}`.
        #[serde(default)]
        #[schemars(with = "std::collections::BTreeMap<String, String>")]
        env: IndexMap<String, String>,
        /// The directory it runs in.
        cwd: Option<Text>,
    },
    /// Nothing, for so long.
    #[serde(rename = "wait")]
    Wait { duration: Lasting },
    /// Its text goes into the record.
    #[serde(rename = "note")]
    Note {},
    /// A query; on the restored server when there is one, else on the source.
    #[serde(rename = "postgres.query")]
    PostgresQuery {
        /// Sent as written; values come as `$1`, `$2` from `params`.
        sql: Text,
        /// May hold `{placeholders}`; bound as text.
        #[serde(default)]
        params: Vec<Scalar>,
        on: Option<On>,
    },
    /// Stops writes to the old primary and proves it.
    #[serde(rename = "postgres.fence")]
    PostgresFence {},
    /// A base backup into the store.
    #[serde(rename = "postgres.backup")]
    PostgresBackup {
        /// An incremental backup (PostgreSQL 17 with `summarize_wal = on`) while the last full one is younger than this; a full
        /// one, and the reason, where the server cannot. Always a full one when absent. Other programs decide themselves.
        full_every: Option<Lasting>,
    },
    /// Base backup and WAL up to the recovery point; ends paused, before promotion.
    #[serde(rename = "postgres.restore")]
    PostgresRestore {},
    /// Lets the restored server take writes.
    #[serde(rename = "postgres.promote")]
    PostgresPromote {},
    /// Are tables there, are their rows readable, are pages and indexes whole?
    #[serde(rename = "postgres.check")]
    PostgresCheck {
        /// Names, or `{ name, min_rows }`. Names may hold `{placeholders}`.
        #[serde(default)]
        tables: Vec<Table>,
        /// Also counts the tables that the suspects behind the chosen recovery point took away or changed, by name: they
        /// must be there.
        #[serde(default)]
        suspects: bool,
        /// Reads every page and compares checksums.
        #[serde(default = "yes")]
        checksums: bool,
        /// Checks B-tree indexes with amcheck.
        #[serde(default = "yes")]
        amcheck: bool,
    },
    /// A snapshot into the store, and the append-only file where its directory can be read.
    #[serde(rename = "redis.snapshot")]
    RedisSnapshot {
        /// The append-only file too (`also`, as when absent), or `only` it, or `no`. `rescue` is `only`, and passes when
        /// there is nothing to read: for a server that may be gone with its disk.
        aof: Option<Aof>,
    },
    /// A new server from the snapshot that the recovery point names.
    #[serde(rename = "redis.restore")]
    RedisRestore {},
    /// Are so many keys there?
    #[serde(rename = "redis.check")]
    RedisCheck {
        #[serde(default)]
        #[schemars(extend("minimum" = 0))]
        min_keys: u64,
        /// Prefix → least number of keys.
        #[serde(default)]
        #[schemars(with = "std::collections::BTreeMap<String, u64>")]
        prefixes: IndexMap<String, u64>,
    },
    /// A command of Redis.
    #[serde(rename = "redis.command")]
    RedisCommand {
        /// The command and its arguments, each item whole. May hold `{placeholders}` inside items.
        argv: Argv,
        on: Option<On>,
    },
    /// Keys of the restored Redis into a file, for `redis-cli --pipe`.
    #[serde(rename = "redis.export")]
    RedisExport {
        /// What the keys begin with. May hold `{placeholders}`.
        prefix: Text,
        /// An absolute path of a file that is not there yet. May hold `{placeholders}`.
        file: Text,
    },
    /// Looks at what can be recovered and lets a person choose the point.
    #[serde(rename = "recovery.choose")]
    RecoveryChoose {
        /// Roles; all of them when absent.
        systems: Option<Vec<String>>,
        /// Where the cursor begins: a moment with an offset, or a target. May hold `{placeholders}`.
        suggest: Option<Text>,
    },
    /// Does the server's persistence keep its RPO? Says what to change, and changes nothing.
    #[serde(rename = "redis.policy")]
    RedisPolicy {},
    /// Deletes what the `retain` of the store no longer asks for; never the last chain that leads somewhere. Needs `system`
    /// and `destroys`.
    #[serde(rename = "store.prune")]
    StorePrune {},
    /// What the provider of the system's store does for the backups: encryption, versions, lock, lifecycle, public access, the
    /// rights of the keys, the copy elsewhere. Changes nothing. Needs `system`.
    #[serde(rename = "store.check")]
    StoreCheck {},
    /// Newest backup and WAL continuity of each system, against its RPO.
    #[serde(rename = "recovery.verify-backups")]
    VerifyBackups {
        /// Roles; all of them when absent.
        systems: Option<Vec<String>>,
    },
    /// Rewrites the file from which the application reads its connections, and tells it.
    #[serde(rename = "cutover.connections")]
    CutoverConnections {
        /// Which `[connections.…]` of the inventory; the one named as the service when absent.
        connections: Option<Text>,
        /// Roles; all of them when absent.
        systems: Option<Vec<String>>,
    },
    /// A query against the restored database must work.
    #[serde(rename = "smoke.sql")]
    SmokeSql {
        /// Sent as written; values come as `$1`, `$2` from `params`.
        sql: Text,
        /// May hold `{placeholders}`; bound as text.
        #[serde(default)]
        params: Vec<Scalar>,
    },
    /// A command to the restored Redis must work.
    #[serde(rename = "smoke.redis")]
    SmokeRedis {
        /// The command and its arguments, each item whole. May hold `{placeholders}` inside items.
        argv: Argv,
    },
    /// A request must be answered.
    #[serde(rename = "smoke.http")]
    SmokeHttp {
        /// May hold `{placeholders}`.
        url: Text,
        /// GET when absent, POST when there is a body.
        method: Option<Method>,
        /// Sent as JSON. May hold `{placeholders}`; a brace itself is written twice.
        body: Option<String>,
        /// The status it must have; 200 when absent.
        #[schemars(range(min = 100, max = 599))]
        status: Option<u16>,
    },
    /// A connection must be accepted.
    #[serde(rename = "smoke.tcp")]
    SmokeTcp {
        /// `host:port`. May hold `{placeholders}`.
        address: Text,
    },
    /// Tells people: by a sink of the inventory, or by a command that gets the message on standard input.
    #[serde(rename = "notify")]
    Notify {
        /// A `[notify.NAME]` of the inventory.
        sink: Option<Text>,
        argv: Option<Argv>,
        /// May hold `{placeholders}`; where the drill stands when absent.
        message: Option<Text>,
    },
}

fn yes() -> bool {
    true
}

#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Input {
    Text,
    Time,
    Number,
}

/// Which server: the one that broke, or the one that was restored.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum On {
    Source,
    Restored,
}

/// Whether the append-only file is shipped.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Aof {
    Also,
    Only,
    Rescue,
    No,
}

#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum Method {
    Get,
    Head,
    Post,
    Put,
    Patch,
    Delete,
}

impl Method {
    pub fn word(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Head => "HEAD",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Patch => "PATCH",
            Self::Delete => "DELETE",
        }
    }
}

/// A table of `postgres.check`.
#[derive(Debug, Clone)]
pub struct Table {
    pub name: String,
    pub min_rows: u64,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("x-noun" = "this table check"))]
struct LongTable {
    name: Text,
    /// At least so many rows.
    #[serde(default)]
    min_rows: u64,
}

impl<'de> Deserialize<'de> for Table {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match serde_json::Value::deserialize(deserializer)? {
            serde_json::Value::String(name) => Ok(Self { name, min_rows: 0 }),
            other => serde_json::from_value(other)
                .map(|long: LongTable| Self { name: long.name.0, min_rows: long.min_rows })
                .map_err(serde::de::Error::custom),
        }
    }
}

impl JsonSchema for Table {
    fn schema_name() -> Cow<'static, str> {
        "TableCheck".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let short = generator.subschema_for::<Text>();
        let long = generator.subschema_for::<LongTable>();
        json_schema!({
            "anyOf": [short, long],
            "x-hint": "write \"orders\", or { name = \"orders\", min_rows = 1 }"
        })
    }
}
