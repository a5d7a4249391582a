//! `lifeboat.toml` as written: dumb types that serde fills, and from which the schema comes. A comment on a field is what
//! an editor shows for the key.

pub mod sink;

use std::borrow::Cow;
use std::collections::BTreeMap;

use indexmap::IndexMap;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

use crate::document::schema::Tagged;
use crate::document::{Argv, Id, Lasting, Text};
use crate::runbook::raw::{Contact, Objectives};
use crate::secret::Secret;

/// To what a runbook is done: systems, where their backups are, who is called. Secrets are references, never values.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("x-noun" = "this inventory"))]
pub struct File {
    /// The version of this format: 1.
    #[schemars(extend("const" = 1))]
    pub format: u32,
    /// What the systems are for, in one word; runbooks call it `{service}`.
    pub service: Id,
    /// Of the whole service; a system may be stricter.
    #[serde(default)]
    pub objectives: Objectives,
    /// Buckets that hold backups.
    #[serde(default)]
    #[schemars(with = "BTreeMap<String, Store>", extend("propertyNames" = { "format": "id" }))]
    pub stores: IndexMap<String, Store>,
    /// The servers, by name.
    #[serde(default)]
    #[schemars(with = "BTreeMap<String, System>", extend("propertyNames" = { "format": "id" }))]
    pub systems: IndexMap<String, System>,
    /// Files from which applications read their connections.
    #[serde(default)]
    #[schemars(with = "BTreeMap<String, Connections>", extend("propertyNames" = { "format": "id" }))]
    pub connections: IndexMap<String, Connections>,
    /// Where alerts go, by name.
    #[serde(default)]
    #[schemars(with = "BTreeMap<String, sink::Sink>", extend("propertyNames" = { "format": "id" }))]
    pub notify: IndexMap<String, sink::Sink>,
    /// People to call, in this order.
    #[serde(default)]
    pub contacts: Vec<Contact>,
    /// What is run without a person, and how often.
    #[serde(default)]
    pub schedules: Vec<Schedule>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("x-noun" = "this schedule"))]
pub struct Schedule {
    /// What timers and lines of cron are called; the runbook's name when absent.
    pub name: Option<Id>,
    /// A runbook: a file, or one that comes with Lifeboat, by its name.
    pub runbook: Text,
    /// `"daily at 02:30"`, `"weekdays at 22:00"`, `"weekly on sunday at 04:00"`, `"monthly on the first monday at 10:00"`,
    /// `"monthly on the 15th"`, `"quarterly"`, `"every 15 minutes"`, or the five fields of cron. At 10:00 when no time is named.
    pub cadence: Text,
    /// Whose clocks those are, as the tz database calls it: `Europe/Berlin`; `UTC` when absent.
    pub zone: Option<Text>,
    /// `"drill"`, as when absent, or `"incident"`.
    pub mode: Option<ScheduleMode>,
    /// How long after its time a run is missed; a day when absent.
    pub overdue_after: Option<Lasting>,
    /// How long a run may take at most; six hours when absent.
    pub timeout: Option<Lasting>,
    /// Role of the runbook → system of this file, where there is a choice.
    #[serde(default)]
    #[schemars(with = "BTreeMap<String, String>")]
    pub systems: IndexMap<String, String>,
    /// Values of the runbook's variables; never secrets.
    #[serde(default)]
    #[schemars(with = "BTreeMap<String, String>")]
    pub variables: IndexMap<String, String>,
    /// A TOML file with answers: `step-id = "answer"`.
    pub answers: Option<Text>,
}

#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ScheduleMode {
    Drill,
    Incident,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("x-noun" = "this store"))]
pub struct Store {
    /// `file:///directory`, where a relative one counts from this file; `s3://bucket/prefix?region=eu-central-1`;
    /// `az://container/prefix?account=NAME`; or `gs://bucket/prefix`. With `&endpoint=https://host:port` when it is not the
    /// cloud's own, and `&patience=90s` for how long a request that fails is tried again.
    pub url: Text,
    /// Of an S3 store: `{ env = "NAME" }`, `{ file = "path" }` or `{ command = ["program"] }`. Without it the usual chain is
    /// asked: `AWS_…` in the environment, the profile in `~/.aws`, the container's or the machine's role.
    pub access_key: Option<Reference>,
    /// Belongs to `access_key`; a reference, never the key itself.
    pub secret_key: Option<Reference>,
    /// For keys that expire.
    pub session_token: Option<Reference>,
    /// Of an Azure store: a reference to the storage account's key. Without it or `sas_token` the usual chain is asked:
    /// `AZURE_…` in the environment, then the machine's identity.
    pub account_key: Option<Reference>,
    /// Of an Azure store: a reference to a shared access signature, `sv=…&sig=…`.
    pub sas_token: Option<Reference>,
    /// Of a Google store: a reference to the JSON of a service account's key. Without it the usual chain is asked:
    /// `GOOGLE_…` in the environment, what `gcloud` left, then the machine's service account.
    pub service_account: Option<Reference>,
    /// Public keys of age, `age1…`: to each of them everything with content of the systems is encrypted before it leaves this
    /// machine. `age-keygen` makes a pair. Older backups stay readable as they are.
    #[serde(default)]
    #[schemars(extend("minItems" = 1))]
    pub encrypt_to: Option<Vec<Text>>,
    /// A reference to the private keys that go with `encrypt_to`, as `age-keygen` writes them; only looked up by who reads
    /// a backup. A machine that only takes backups is better off without.
    pub identity: Option<Reference>,
    /// Reads nothing that is not encrypted: for a store whose older backups are gone or were encrypted by `store rekey`.
    #[serde(default)]
    pub refuse_clear: bool,
    /// How long backups are kept.
    pub retain: Option<Lasting>,
    /// The key of the provider's key service by which everything must be encrypted: its id or its ARN. `store.check` looks.
    pub kms_key: Option<Text>,
    /// How long nobody may delete what was written, by the bucket's object lock. `store.check` looks.
    pub lock: Option<Lasting>,
    /// What these keys may do, and no more: `"read"` (of a restore), `"write"` (of a backup: never delete), `"prune"` (write and
    /// delete). `store.check` tries, on an object of its own.
    pub may: Option<May>,
    /// The store of this file that the provider copies this one to. `store.check` compares.
    pub replica: Option<Id>,
    /// How long after the write the copy must be there; 15 minutes when absent.
    pub replica_within: Option<Lasting>,
}

#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum May {
    Read,
    Write,
    Prune,
}

pub type System = Tagged<Common, Kind>;

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("x-noun" = "this system"))]
pub struct Common {
    /// `production`, `staging` …; shown on every screen.
    pub environment: Text,
    /// How to reach it: `{ env = "NAME" }`, `{ file = "path" }`, `{ command = ["program"] }`, or a URL without a password.
    pub url: Reference,
    /// Stricter than the service's.
    pub rto: Option<Lasting>,
    /// Stricter than the service's.
    pub rpo: Option<Lasting>,
    pub backups: Backups,
    /// Not of a managed PostgreSQL, which its cloud restores into a new instance.
    pub restore: Option<Restore>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(tag = "kind", deny_unknown_fields)]
#[schemars(rename = "System")]
pub enum Kind {
    /// A PostgreSQL server.
    #[serde(rename = "postgres")]
    Postgres {
        /// The directory of `postgres` and `pg_ctl`; looked for when absent.
        bin: Option<Text>,
        /// For a primary that SQL alone cannot stop.
        #[serde(default)]
        fence: Fence,
    },
    /// A Redis server.
    #[serde(rename = "redis")]
    Redis {
        /// The program `redis-server`; looked for on the PATH when absent.
        server: Option<Text>,
        /// The server's data directory as this machine sees it, for its append-only file; a server on this machine is
        /// asked when absent.
        data: Option<Text>,
        /// Beginning of a key → what becomes of such keys when the server is restored: `"restore"`, as when absent,
        /// `"flush"`, `"quarantine"`, or `{ rebuild = "how they are made anew" }`. The longest beginning counts.
        #[serde(default)]
        #[schemars(with = "BTreeMap<String, KeyPolicy>")]
        policy: IndexMap<String, KeyPolicy>,
        /// `"durable"`, as when absent, or `{ cache_only = "why losing it is fine" }`.
        persistence: Option<Persistence>,
    },
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Fence {
    /// Run before writes are proven to fail.
    pub command: Option<Argv>,
    /// Lifts the fence again.
    pub undo: Option<Argv>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("x-hint" = "write it as backups = { store = \"name\" }, with the name of a store of this file"))]
pub struct Backups {
    /// Who makes them; `lifeboat` when absent.
    pub engine: Option<Engine>,
    /// Of `pgbackrest`: its stanza.
    pub stanza: Option<Text>,
    /// Of `barman`: what it calls the server.
    pub server: Option<Text>,
    /// Of another engine: its configuration file, where that is not in its usual place. Keys belong there, readable for
    /// the user that servers run as.
    pub config: Option<Text>,
    /// Of another engine: its program, where that is not on the PATH.
    pub program: Option<Text>,
    /// Of a managed PostgreSQL: what its cloud calls the instance or server; of `aurora` the cluster.
    pub instance: Option<Text>,
    /// Of `rds` and `aurora`: the region, where it is not that of the command-line tool's own settings.
    pub region: Option<Text>,
    /// Of `cloud-sql`: the project, where it is not that of the command-line tool's own settings.
    pub project: Option<Text>,
    /// Of `azure`: the resource group.
    pub resource_group: Option<Text>,
    /// Of `azure`: the subscription, where it is not that of the command-line tool's own settings.
    pub subscription: Option<Text>,
    /// One of the stores of this file. With another engine Lifeboat keeps the lease there, what it read of the WAL, and
    /// what it proved.
    pub store: String,
    /// The system's folder in the store; its name when absent.
    pub prefix: Option<Text>,
    /// How old the newest base backup or snapshot may be, its own run included; 26 hours when absent: a nightly one, and
    /// two hours. How much may be lost is `rpo`: WAL and append-only files count there too.
    pub max_age: Option<Lasting>,
}

#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(extend("x-hint" = "it is \"lifeboat\", \"pgbackrest\", \"barman\" or \"wal-g\"; of a managed PostgreSQL \"rds\", \"aurora\", \"cloud-sql\" or \"azure\""))]
pub enum Engine {
    Lifeboat,
    Pgbackrest,
    Barman,
    WalG,
    /// Amazon RDS for PostgreSQL, by `aws`.
    Rds,
    /// Amazon Aurora PostgreSQL, by `aws`.
    Aurora,
    /// Google Cloud SQL for PostgreSQL, by `gcloud`.
    CloudSql,
    /// Azure Database for PostgreSQL, flexible server, by `az`.
    Azure,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("x-hint" = "say where a restored server may put its data: restore = { directory = \"/srv/restore/name\" }"))]
pub struct Restore {
    /// The new data directory: empty, absent, or made by Lifeboat. Never the old one.
    pub directory: Text,
    /// The loopback port of the restored server; a free one when absent.
    #[serde(default)]
    pub port: u16,
    /// The unprivileged user that the server runs as when Lifeboat itself runs as root.
    pub run_as: Option<Text>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("x-noun" = "this connection file"))]
pub struct Connections {
    /// The file; it is replaced whole, never half.
    pub file: Text,
    /// Key of the file → the system whose URL it holds.
    #[schemars(with = "BTreeMap<String, String>", extend("minProperties" = 1))]
    pub keys: IndexMap<String, String>,
    /// How the application is told; it finds out by itself when absent.
    pub reload: Option<Reload>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(extend("x-hint" = "write reload = { http = \"http://127.0.0.1:8080/reload\" } or reload = { command = [\"program\"] }"))]
pub enum Reload {
    /// Gets a POST; any 2xx answer means that the new connections are in use.
    Http(Text),
    Command(Argv),
}

/// A secret, or where to find it.
#[derive(Debug)]
pub enum Reference {
    Plain(Secret),
    Env(String),
    File(String),
    Command(Vec<String>),
}

#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(rename = "Reference")]
enum LongReference {
    /// A variable of the environment.
    Env(Text),
    /// A file that holds nothing else; a relative path counts from this file.
    File(Text),
    /// A program that prints it.
    Command(Argv),
}

impl<'de> Deserialize<'de> for Reference {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match serde_json::Value::deserialize(deserializer)? {
            serde_json::Value::String(text) => Ok(Self::Plain(Secret::new(text))),
            other => Ok(match serde_json::from_value(other).map_err(D::Error::custom)? {
                LongReference::Env(Text(name)) => Self::Env(name),
                LongReference::File(Text(path)) => Self::File(path),
                LongReference::Command(Argv(argv)) => Self::Command(argv),
            }),
        }
    }
}

impl JsonSchema for Reference {
    fn schema_name() -> Cow<'static, str> {
        "Secret".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let plain = generator.subschema_for::<Text>();
        let long = generator.subschema_for::<LongReference>();
        json_schema!({
            "anyOf": [plain, long],
            "x-hint": "write { env = \"NAME\" }, { file = \"path\" } or { command = [\"program\"] }"
        })
    }
}

#[derive(Debug)]
pub enum KeyPolicy {
    Restore,
    Flush,
    Quarantine,
    Rebuild(String),
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct LongKeyPolicy {
    /// How they are made anew: the job to run, the page to read. The drill and its report say it.
    rebuild: Text,
}

impl<'de> Deserialize<'de> for KeyPolicy {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = serde_json::Value::deserialize(deserializer)?;
        match value.as_str() {
            Some("restore") => Ok(Self::Restore),
            Some("flush") => Ok(Self::Flush),
            Some("quarantine") => Ok(Self::Quarantine),
            _ => serde_json::from_value(value)
                .map(|long: LongKeyPolicy| Self::Rebuild(long.rebuild.0))
                .map_err(D::Error::custom),
        }
    }
}

impl JsonSchema for KeyPolicy {
    fn schema_name() -> Cow<'static, str> {
        "KeyPolicy".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let long = generator.subschema_for::<LongKeyPolicy>();
        json_schema!({
            "anyOf": [{ "type": "string", "enum": ["restore", "flush", "quarantine"] }, long],
            "x-hint": "write \"restore\", \"flush\", \"quarantine\" or { rebuild = \"how they are made anew\" }"
        })
    }
}

#[derive(Debug)]
pub enum Persistence {
    Durable,
    CacheOnly(String),
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct LongPersistence {
    /// Why losing it is fine; the report says it.
    cache_only: Text,
}

impl<'de> Deserialize<'de> for Persistence {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match serde_json::Value::deserialize(deserializer)? {
            serde_json::Value::String(word) if word == "durable" => Ok(Self::Durable),
            other => serde_json::from_value(other)
                .map(|long: LongPersistence| Self::CacheOnly(long.cache_only.0))
                .map_err(D::Error::custom),
        }
    }
}

impl JsonSchema for Persistence {
    fn schema_name() -> Cow<'static, str> {
        "Persistence".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let long = generator.subschema_for::<LongPersistence>();
        json_schema!({
            "anyOf": [{ "type": "string", "const": "durable" }, long],
            "x-hint": "write persistence = \"durable\", or persistence = { cache_only = \"why losing it is fine\" }"
        })
    }
}
