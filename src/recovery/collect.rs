//! What is in the buckets.

use chrono::{DateTime, Utc};
use tokio_util::sync::CancellationToken;

use crate::clock;
use crate::event::{Failure, SystemWindow, Window};
use crate::inventory::{BackupEngine, Inventory, SecretRef, Store, StoreKeys, System, SystemDetail};
use crate::process::Account;
use crate::store::{AzureKey, Bucket, Given, GoogleKey, Keys, Object, Pair, StoreError};
use crate::system::postgres::Repository;
use crate::system::postgres::catalogue::Catalogue;
use crate::system::postgres::engine::{Barman, Engine, PgBackRest, WalG};
use crate::system::postgres::managed::{Managed, Reported};
use crate::system::postgres::wal::Location;
use crate::system::postgres::wal::read::Listed;
use crate::system::{postgres, redis};

/// Where a system's backups are, with the keys to them: a command that prints one is run.
pub fn bucket_of(inventory: &Inventory, system: &System) -> Result<Location, Failure> {
    let store = inventory.stores.get(&system.backups.store).ok_or_else(|| {
        Failure::new(
            format!("the backups of {} cannot be looked at", system.name),
            format!("its store {} is not in the inventory", system.backups.store),
        )
    })?;
    let keys = keys_of(store)?;
    Ok(Location {
        url: store.url.clone(),
        prefix: system.backups.prefix.clone(),
        keys,
        encryption: store.encryption.clone().into(),
    })
}

/// The root of a store.
pub(super) fn store_bucket(store: &Store) -> Result<Bucket, Failure> {
    Ok(Bucket::open_with(&store.url, "", &keys_of(store)?)?)
}

fn keys_of(store: &Store) -> Result<Keys, Failure> {
    Ok(match &store.keys {
        None => Keys::Usual,
        Some(StoreKeys::S3 { access_key, secret_key, session_token }) => Keys::Given(Given::S3(Pair {
            access_key: access_key.resolve()?,
            secret_key: secret_key.resolve()?,
            session_token: session_token.as_ref().map(SecretRef::resolve).transpose()?,
        })),
        Some(StoreKeys::AccountKey(key)) => Keys::Given(Given::Azure(AzureKey::Account(key.resolve()?))),
        Some(StoreKeys::SasToken(token)) => Keys::Given(Given::Azure(AzureKey::Sas(token.resolve()?))),
        Some(StoreKeys::ServiceAccount(json)) => Keys::Given(Given::Google(GoogleKey::Service(json.resolve()?))),
    })
}

/// The program that keeps a system's backups, where it is not Lifeboat itself.
pub fn engine_of(system: &System) -> Result<Option<Engine>, Failure> {
    let account = || {
        let failed = |error| Failure::new("the account that backup programs run as cannot be looked up", error);
        match &system.restore.run_as {
            Some(name) => Account::named(name).map_err(failed),
            None => Account::unprivileged().map_err(failed),
        }
    };
    Ok(match &system.backups.engine {
        BackupEngine::Lifeboat => None,
        BackupEngine::Managed(managed) => {
            return Err(Failure::new(
                format!("the files of the backups of {} cannot be had", system.name),
                format!("{} keeps them, and gives them to nobody", managed.by.title()),
            )
            .now("Restore it with the runbook restore-managed."));
        }
        BackupEngine::PgBackRest { program, config, stanza } => Some(Engine::PgBackRest(PgBackRest {
            program: program.clone(),
            config: config.clone(),
            stanza: stanza.clone(),
            account: account()?,
            cluster: None,
        })),
        BackupEngine::Barman { program, config, server } => Some(Engine::Barman(Barman {
            program: program.clone(),
            config: config.clone(),
            server: server.clone(),
            account: account()?,
        })),
        BackupEngine::WalG { program, config } => {
            let (program, config) = (program.clone(), config.clone());
            Some(Engine::WalG(WalG { program, config, account: account()? }))
        }
    })
}

/// A PostgreSQL that a cloud runs, where the system is one.
pub fn managed_of(inventory: &Inventory, system: &System) -> Option<Managed> {
    system.managed().map(|of| Managed { of: of.clone(), secrets: inventory.secret_variables() })
}

/// Where a PostgreSQL system's base backups and WAL are.
pub fn repository_of(inventory: &Inventory, system: &System) -> Result<Repository, Failure> {
    if let Some(engine) = engine_of(system)? {
        return Ok(Repository::Engine(engine));
    }
    let location = bucket_of(inventory, system)?;
    let bucket = location.open().map_err(|error| cannot_look(&system.name, error.into()))?;
    Ok(Repository::Bucket { bucket, location })
}

/// Looks at the backups of these systems. One that cannot be looked at is a failure, not an empty window.
pub async fn collect(
    inventory: &Inventory,
    systems: &[String],
    incident: Option<DateTime<Utc>>,
) -> Result<Window, Failure> {
    let looked = clock::wall_now();
    let mut windows = Vec::with_capacity(systems.len());
    for name in systems {
        windows.push(see(inventory, name).await?.window);
    }
    Ok(Window { looked, systems: windows, incident })
}

/// One system's part of the window.
pub(super) struct Seen {
    pub window: SystemWindow,
    /// Its folder in the store: the backups, or what Lifeboat keeps beside another program's.
    pub bucket: Bucket,
    pub engine: Option<Engine>,
    /// As [`Catalogue::is_encrypted`].
    pub is_encrypted: Option<bool>,
    /// Of PostgreSQL's WAL.
    pub segments: Vec<Listed>,
    /// Everything else that was listed; of another program's backups what proofs have left.
    pub objects: Vec<Object>,
    /// Those of the window's warnings that are of base backups, snapshots and append-only files.
    pub damaged: Vec<String>,
}

impl Seen {
    /// Why nothing that was read of the backups and of the WAL may lie in the bucket: what an engine keeps encrypted, or may
    /// keep so, is not told in the clear.
    pub fn withheld(&self) -> Option<String> {
        let engine = self.engine.as_ref().filter(|_| self.is_encrypted != Some(false))?;
        let word = engine.word();
        let keeps = match self.is_encrypted {
            Some(_) => format!("{word} keeps the WAL encrypted"),
            None => format!("{word} does not say whether it keeps the WAL encrypted"),
        };
        let why = format!("{keeps}, and the store of the system has no encrypt_to");
        (!self.bucket.encryption().is_on()).then_some(why)
    }
}

pub(super) async fn see(inventory: &Inventory, name: &str) -> Result<Seen, Failure> {
    let system = inventory.systems.get(name).ok_or_else(|| {
        Failure::new(format!("{name} cannot be recovered"), "there is no such system in the inventory")
    })?;
    let failed = |failure| cannot_look(name, failure);
    let bucket = bucket_of(inventory, system)?.open().map_err(|error| failed(error.into()))?;
    if let Some(managed) = managed_of(inventory, system) {
        return managed_window(name, bucket, &managed).await.map_err(failed);
    }
    match &system.detail {
        SystemDetail::Postgres(_) => {
            let engine = engine_of(system)?;
            let found = match &engine {
                Some(engine) => {
                    let mut found = engine.catalogue().await.map_err(failed)?;
                    // Without it the backups are there all the same.
                    match bucket.list("base").await {
                        Ok(records) => found.objects = records,
                        Err(error) => found.warnings.push(format!("what was proven is not known: {error}")),
                    }
                    found
                }
                None => postgres::catalogue::list(&bucket).await.map_err(|error| failed(error.into()))?,
            };
            Ok(postgres_window(name, bucket, engine, found))
        }
        SystemDetail::Redis(_) => redis_window(name, bucket).await.map_err(|error| failed(error.into())),
    }
}

fn cannot_look(system: &str, failure: Failure) -> Failure {
    let failure = failure.fails(format!("the backups of {system} cannot be looked at"));
    match failure.now {
        Some(_) => failure,
        None => failure.now("check the store of the system in the inventory, and whether the bucket is there"),
    }
}

async fn managed_window(name: &str, bucket: Bucket, managed: &Managed) -> Result<Seen, Failure> {
    let Reported { earliest, latest, warnings } = managed.window(&CancellationToken::new()).await?;
    let window = SystemWindow::Managed { system: name.to_owned(), source: managed.title(), earliest, latest, warnings };
    Ok(Seen {
        window,
        bucket,
        engine: None,
        is_encrypted: None,
        segments: Vec::new(),
        objects: Vec::new(),
        damaged: Vec::new(),
    })
}

async fn redis_window(name: &str, bucket: Bucket) -> Result<Seen, StoreError> {
    let mut objects = bucket.list(redis::SNAPSHOTS).await?;
    let (snapshots, mut damaged) = redis::snapshots_among(&bucket, &objects).await?;
    let shipped = bucket.list(redis::AOF).await?;
    let (aof, more) = redis::ranges_among(&bucket, &shipped).await?;
    damaged.extend(more);
    objects.extend(shipped);
    let window = SystemWindow::Redis { system: name.to_owned(), snapshots, aof, warnings: damaged.clone() };
    Ok(Seen { window, bucket, engine: None, is_encrypted: None, segments: Vec::new(), objects, damaged })
}

fn postgres_window(name: &str, bucket: Bucket, engine: Option<Engine>, found: Catalogue) -> Seen {
    let window = SystemWindow::Postgres {
        system: name.to_owned(),
        backups: found.backups,
        coverage: found.coverage,
        gaps: found.gaps,
        restore_points: found.restore_points,
        segment_bytes: found.segment_bytes,
        forks: found.forks,
        history: None,
        system_identifier: found.system_identifier.map(|id| id.to_string()),
        warnings: found.warnings,
    };
    Seen {
        window,
        bucket,
        engine,
        is_encrypted: found.is_encrypted,
        segments: found.segments,
        objects: found.objects,
        damaged: found.damaged,
    }
}
