//! The inventory that cannot be invalid.

use std::path::PathBuf;
use std::time::Duration;

use indexmap::IndexMap;

use super::sink::NotifySink;
use super::{Cadence, Encryption};
use crate::digest::Digest;
use crate::event::Mode;
use crate::runbook::{Contact, Objectives, SystemKind};
use crate::secret::Secret;

#[derive(Debug, Clone)]
pub struct Inventory {
    pub service: String,
    pub objectives: Objectives,
    pub stores: IndexMap<String, Store>,
    pub systems: IndexMap<String, System>,
    pub connections: IndexMap<String, Connections>,
    pub notify: IndexMap<String, NotifySink>,
    pub contacts: Vec<Contact>,
    pub schedules: Vec<Schedule>,
    pub path: Option<PathBuf>,
    pub digest: Digest,
}

impl Inventory {
    /// Every reference to a secret that the file holds.
    pub fn secrets(&self) -> impl Iterator<Item = &SecretRef> {
        let urls = self.systems.values().map(|system| &system.url);
        let keys = self.stores.values().filter_map(|store| store.keys.as_ref());
        urls.chain(keys.flat_map(StoreKeys::references)).chain(self.notify.values().flat_map(NotifySink::secrets))
    }

    /// Names of environment variables that hold secrets: programs that do not need them never see them.
    pub fn secret_variables(&self) -> Vec<String> {
        self.secrets()
            .filter_map(|secret| match secret {
                SecretRef::Env(name) => Some(name.clone()),
                _ => None,
            })
            .collect()
    }
}

/// A runbook that is run without a person.
#[derive(Debug, Clone)]
pub struct Schedule {
    /// Unique in the inventory.
    pub name: String,
    /// A file, or the bare name of a runbook that comes with the program.
    pub runbook: PathBuf,
    pub cadence: Cadence,
    pub mode: Mode,
    /// After its time, until a run is missed.
    pub overdue_after: Duration,
    /// That a run may take.
    pub timeout: Duration,
    /// By role of the runbook.
    pub systems: IndexMap<String, String>,
    pub variables: IndexMap<String, String>,
    pub answers: Option<PathBuf>,
}

#[derive(Debug, Clone)]
pub struct Store {
    pub name: String,
    /// `file:///absolute/directory`, `s3://bucket/prefix?…`, `az://…` or `gs://…`; see [`super::StoreUrl`].
    pub url: String,
    /// The usual chain of the cloud's own tools when absent.
    pub keys: Option<StoreKeys>,
    pub encryption: Encryption,
    pub retain: Option<Duration>,
    pub asked: Asked,
}

/// What is asked of a store's provider, beyond keeping what it is given.
#[derive(Debug, Clone, Default)]
pub struct Asked {
    /// The key of the provider's key service by which everything is encrypted: its id or its whole name.
    pub kms_key: Option<String>,
    /// How long nobody may delete what was written.
    pub lock: Option<Duration>,
    /// What the keys at hand may do, and no more.
    pub may: Option<May>,
    /// The copy elsewhere.
    pub replica: Option<Replica>,
}

/// What the keys of a store may do, besides reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum May {
    /// Those of a restore.
    Read,
    /// Those of a backup.
    Write,
    /// Those of whoever prunes: write and delete.
    Prune,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replica {
    /// A key of [`Inventory::stores`].
    pub store: String,
    /// How long after the write the copy must be there.
    pub within: Duration,
}

/// How a store behind a network is opened; always of the kind that its URL wants.
#[derive(Debug, Clone)]
pub enum StoreKeys {
    S3 {
        access_key: SecretRef,
        secret_key: SecretRef,
        session_token: Option<SecretRef>,
    },
    /// Of Azure: the storage account's key.
    AccountKey(SecretRef),
    /// Of Azure: a shared access signature.
    SasToken(SecretRef),
    /// Of Google: the JSON of a service account's key.
    ServiceAccount(SecretRef),
}

impl StoreKeys {
    pub fn references(&self) -> Vec<&SecretRef> {
        match self {
            Self::S3 { access_key, secret_key, session_token } => {
                [access_key, secret_key].into_iter().chain(session_token).collect()
            }
            Self::AccountKey(key) | Self::SasToken(key) | Self::ServiceAccount(key) => vec![key],
        }
    }
}

#[derive(Debug, Clone)]
pub struct System {
    pub name: String,
    pub environment: String,
    /// How to reach the source (the system that broke), password included once resolved.
    pub url: SecretRef,
    pub rto: Option<Duration>,
    pub rpo: Option<Duration>,
    pub backups: Backups,
    pub restore: RestoreTo,
    pub detail: SystemDetail,
}

impl System {
    pub fn kind(&self) -> SystemKind {
        match self.detail {
            SystemDetail::Postgres(_) => SystemKind::Postgres,
            SystemDetail::Redis(_) => SystemKind::Redis,
        }
    }

    /// As its cloud knows it, when a cloud runs it.
    pub fn managed(&self) -> Option<&Managed> {
        match &self.backups.engine {
            BackupEngine::Managed(managed) => Some(managed),
            _ => None,
        }
    }
}

#[derive(Debug, Clone)]
pub enum SystemDetail {
    Postgres(PostgresSystem),
    Redis(RedisSystem),
}

#[derive(Debug, Clone, Default)]
pub struct PostgresSystem {
    /// Directory of `postgres`, `pg_ctl` …; found on the machine when absent.
    pub bin: Option<PathBuf>,
    pub fence: Fence,
}

#[derive(Debug, Clone, Default)]
pub struct RedisSystem {
    /// `redis-server`; found on the PATH when absent.
    pub server: Option<PathBuf>,
    /// Its data directory, for the append-only file; the server is asked when absent.
    pub data: Option<PathBuf>,
    /// What becomes of keys by their prefix when it is restored; the others are restored.
    pub policy: IndexMap<String, KeyPolicy>,
    /// The reason why losing it is fine, when it is declared `cache-only`.
    pub cache_only: Option<String>,
}

/// What becomes of the keys of a prefix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyPolicy {
    Restore,
    Flush,
    /// Removed; how they are made anew, for people.
    Rebuild(String),
    Quarantine,
}

/// How the old primary is kept from writing.
#[derive(Debug, Clone, Default)]
pub struct Fence {
    /// Run before the proof, for a primary that SQL cannot stop.
    pub command: Option<Vec<String>>,
    /// Lifts the fence again.
    pub undo: Option<Vec<String>>,
}

/// Where a system's backups are, and who made them.
#[derive(Debug, Clone)]
pub struct Backups {
    pub engine: BackupEngine,
    /// A key of [`Inventory::stores`].
    pub store: String,
    /// The system's folder in the store; its name unless the file says otherwise.
    pub prefix: String,
    /// How old the newest base backup or snapshot may be.
    pub max_age: Option<Duration>,
}

/// Who makes a system's backups, keeps them and gives them back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BackupEngine {
    Lifeboat,
    PgBackRest {
        program: PathBuf,
        /// pgBackRest's own place when absent.
        config: Option<PathBuf>,
        stanza: String,
    },
    Barman {
        program: PathBuf,
        /// Barman's own place when absent.
        config: Option<PathBuf>,
        /// Barman's name for it.
        server: String,
    },
    WalG {
        program: PathBuf,
        /// WAL-G's own place when absent.
        config: Option<PathBuf>,
    },
    Managed(Managed),
}

/// A PostgreSQL that a cloud runs: the cloud makes the backups, and restores them into a new instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Managed {
    pub by: ManagedBy,
    /// The cloud's command-line tool.
    pub program: PathBuf,
    /// What the cloud calls it.
    pub instance: String,
}

/// The service that runs it, and where to look for it there; the tool's own settings say what is absent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ManagedBy {
    Rds { region: Option<String> },
    Aurora { region: Option<String> },
    CloudSql { project: Option<String> },
    Azure { resource_group: String, subscription: Option<String> },
}

impl ManagedBy {
    /// As the inventory calls it.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Rds { .. } => "rds",
            Self::Aurora { .. } => "aurora",
            Self::CloudSql { .. } => "cloud-sql",
            Self::Azure { .. } => "azure",
        }
    }

    /// As people call it.
    pub fn title(&self) -> &'static str {
        match self {
            Self::Rds { .. } => "Amazon RDS",
            Self::Aurora { .. } => "Amazon Aurora",
            Self::CloudSql { .. } => "Google Cloud SQL",
            Self::Azure { .. } => "Azure Database for PostgreSQL",
        }
    }
}

impl BackupEngine {
    /// As the inventory calls it.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Lifeboat => "lifeboat",
            Self::PgBackRest { .. } => "pgbackrest",
            Self::Barman { .. } => "barman",
            Self::WalG { .. } => "wal-g",
            Self::Managed(managed) => managed.by.word(),
        }
    }
}

/// Where a restored server goes. Nothing of it counts for a managed one.
#[derive(Debug, Clone, Default)]
pub struct RestoreTo {
    /// The new data directory; empty, absent, or carrying our marker.
    pub directory: PathBuf,
    /// Loopback port of the restored server; 0 means a free one.
    pub port: u16,
    /// The unprivileged user that servers run as, when Lifeboat itself runs as root.
    pub run_as: Option<String>,
}

/// A file from which an application reads its connections.
#[derive(Debug, Clone)]
pub struct Connections {
    pub name: String,
    pub file: PathBuf,
    /// Which key of the file holds the URL of which system.
    pub keys: IndexMap<String, String>,
    pub reload: Reload,
}

/// How the application is told.
#[derive(Debug, Clone)]
pub enum Reload {
    None,
    /// POST to it; 2xx means reloaded.
    Http(String),
    Command(Vec<String>),
}

/// A secret by reference.
#[derive(Debug, Clone)]
pub enum SecretRef {
    Env(String),
    File(PathBuf),
    /// Its standard output, without the last newline.
    Command(Vec<String>),
    /// A literal, allowed only where it holds no password: `url = "postgresql://app@localhost/orders"`.
    Plain(Secret),
}
