//! How it stands with the backups: facts of each system, each with a judgement and a sentence.
//!
//! Everything comes from one listing of what a system has in its store, its manifests, and, where the server answers, one
//! question to it. What cannot be told is said to be unknown; nothing is taken for good because nobody looked.

mod judge;
mod managed;
mod stores;

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::Serialize;

use super::collect::{Seen, see};
use super::lineage::chain;
use super::proof::{self, Tested};
use crate::event::{Failure, Lsn, SystemWindow};
use crate::inventory::{Inventory, System, SystemDetail};
use crate::store::Unreadable;
use crate::system::postgres::engine::EngineError;
use crate::system::postgres::wal::ARCHIVE;
use crate::system::postgres::{SourceEnd, source_end};

pub use stores::{ReplicaHealth, StoreHealth, stores};

/// A nightly backup and two hours: how old the newest one may be where the inventory does not say.
pub const USUAL_AGE: Duration = Duration::from_secs(26 * 3600);

/// All that was looked at, as it was at `looked`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Health {
    pub service: String,
    pub looked: DateTime<Utc>,
    pub systems: Vec<SystemHealth>,
    /// Empty when their providers were not looked at.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub stores: Vec<StoreHealth>,
}

/// One system. Numbers that are absent are unknown; the fact of the same subject says why.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SystemHealth {
    pub system: String,
    /// `postgres` or `redis`.
    pub kind: &'static str,
    pub environment: String,
    pub rpo_seconds: Option<f64>,
    /// How old the newest backup may be.
    pub max_age_seconds: f64,
    /// The newest whole base backup or snapshot.
    pub backup: Option<NewestBackup>,
    /// The newest moment that can be recovered, as the store tells it: when the last segment without a gap was archived, the
    /// end of the newest append-only file or snapshot.
    pub recoverable_to: Option<DateTime<Utc>>,
    /// What would be lost if the system were lost now.
    pub loss_seconds: Option<f64>,
    /// PostgreSQL only.
    pub wal: Option<WalHealth>,
    /// Redis only, where an append-only file was shipped.
    pub aof: Option<AofHealth>,
    pub stored: Stored,
    pub retention: RetentionHealth,
    pub facts: Vec<Fact>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct NewestBackup {
    pub label: String,
    /// Of an incremental base backup: those that are restored with it, the full one last.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub builds_on: Vec<String>,
    /// When it was complete: the moment whose state a snapshot holds.
    pub ended: DateTime<Utc>,
    pub age_seconds: f64,
    /// Unpacked.
    pub bytes: u64,
    /// In the store.
    pub stored_bytes: u64,
    pub objects: u64,
    /// When it was last restored to prove it, whatever that came to.
    pub tested_at: Option<DateTime<Utc>>,
}

/// The WAL from the newest backup on.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct WalHealth {
    /// Without a gap.
    pub segments: u64,
    pub last_segment: Option<String>,
    /// Exclusive.
    pub end: Lsn,
    pub archived_at: Option<DateTime<Utc>>,
    /// Since the newest segment was archived; an idle server archives nothing.
    pub lag_seconds: Option<f64>,
    /// That the server has and the archive has not.
    pub lag_bytes: Option<u64>,
    /// In the whole archive.
    pub gaps: u64,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct AofHealth {
    pub label: String,
    /// The newest moment that it tells of.
    pub to: DateTime<Utc>,
    pub age_seconds: f64,
}

/// Of the system's folder, without what only helps to read it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Stored {
    pub objects: u64,
    pub bytes: u64,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RetentionHealth {
    /// How long backups are kept; absent where the inventory does not say.
    pub retain_seconds: Option<f64>,
    /// The oldest moment that can be recovered.
    pub from: Option<DateTime<Utc>>,
    /// What may go.
    pub spare: Stored,
}

/// What a fact is of. Every system has each of those that its kind has, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Subject {
    /// Can it be looked at? Alone when it cannot.
    Store,
    /// Does nothing lie in the future of this machine's clock?
    Clock,
    /// Is there one, and is it young enough?
    Backup,
    /// WAL without a gap from the newest backup on.
    Wal,
    /// An append-only file beside the snapshots.
    Aof,
    /// What would be lost now, against the RPO.
    Loss,
    /// Every manifest can be read, and what it names is there.
    Manifests,
    /// Nothing in the archive that is not of it.
    Archive,
    /// Nothing younger than the limit is gone, nothing older is kept.
    Retention,
    /// Was the newest backup restored to see whether it can be?
    Proof,
    // Of a store, when its provider is looked at.
    /// All of the following, where the provider cannot be asked.
    Protection,
    /// Does the provider encrypt, and with the right key?
    Encryption,
    /// Does what is deleted stay as an older version?
    Versions,
    /// Can what was written not be deleted for some time?
    Lock,
    /// Does the provider delete or freeze backups by itself?
    Lifecycle,
    /// Can strangers read it?
    Public,
    /// May the keys do what they must, and no more?
    Rights,
    /// Does the server never write over what is there, when told not to? Leases hold by it.
    CreateOnly,
    /// Is the copy elsewhere complete?
    Replica,
}

impl Subject {
    pub fn word(self) -> &'static str {
        match self {
            Self::Store => "store",
            Self::Clock => "clock",
            Self::Backup => "backup",
            Self::Wal => "WAL",
            Self::Aof => "AOF",
            Self::Loss => "loss",
            Self::Manifests => "manifests",
            Self::Archive => "archive",
            Self::Retention => "retention",
            Self::Proof => "proof",
            Self::Protection => "protection",
            Self::Encryption => "encryption",
            Self::Versions => "versions",
            Self::Lock => "lock",
            Self::Lifecycle => "lifecycle",
            Self::Public => "public",
            Self::Rights => "rights",
            Self::CreateOnly => "create-only",
            Self::Replica => "replica",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Judgement {
    Ok,
    /// It cannot be told.
    Unknown,
    /// Everything is there, and an objective is missed: too old, too far behind, kept too long.
    Missed,
    /// A restore would fail, or nobody can say whether it would.
    Failed,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Fact {
    pub subject: Subject,
    pub judgement: Judgement,
    /// One sentence, without a full stop.
    pub says: String,
    /// What to do now; absent when all is well.
    pub now: Option<String>,
}

impl Fact {
    /// Nothing is wrong that is known.
    pub fn is_fine(&self) -> bool {
        self.judgement <= Judgement::Unknown
    }
}

impl Health {
    /// The worst of all facts; `Ok` when there are none.
    pub fn judgement(&self) -> Judgement {
        self.facts().map(|(_, fact)| fact.judgement).max().unwrap_or(Judgement::Ok)
    }

    /// With the name of their system, or of their store.
    pub fn facts(&self) -> impl Iterator<Item = (&str, &Fact)> {
        let systems = self.systems.iter().flat_map(|one| one.facts.iter().map(|fact| (one.system.as_str(), fact)));
        systems.chain(self.stores.iter().flat_map(|one| one.facts.iter().map(|fact| (one.store.as_str(), fact))))
    }
}

/// What a system is held to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub rpo: Option<Duration>,
    pub max_age: Duration,
    pub retain: Option<Duration>,
}

/// Looks at the backups of these systems. Nothing that fails ends the look: it becomes a fact. `rpo` counts for systems
/// without one where the whole service has none either; with `ask` the servers are asked how far they are.
pub async fn health(
    inventory: &Inventory,
    systems: &[String],
    now: DateTime<Utc>,
    rpo: Option<Duration>,
    ask: bool,
) -> Health {
    let found = systems.iter().filter_map(|name| inventory.systems.get(name));
    let looks = found.map(|system| async move {
        let limits = Limits {
            rpo: system.rpo.or(inventory.objectives.rpo).or(rpo),
            max_age: system.backups.max_age.unwrap_or(USUAL_AGE),
            retain: inventory.stores.get(&system.backups.store).and_then(|store| store.retain),
        };
        match see(inventory, &system.name).await {
            Ok(seen) => {
                let asked = match ask {
                    true => asked(system).await,
                    false => Source::NotAsked,
                };
                let checked = match &seen.engine {
                    Some(engine) if ask => Some(engine.check().await),
                    _ => None,
                };
                let (tested, unread, began) = (tested(&seen).await, unread(&seen).await, began(&seen).await);
                let look = Look { system, limits, now, began, source: asked, tested, unread, checked };
                judge::judge(&look, &seen)
            }
            Err(failure) => blind(system, limits, failure),
        }
    });
    let systems = futures::future::join_all(looks).await;
    Health { service: inventory.service.clone(), looked: now, systems, stores: Vec::new() }
}

/// What is known beside the listing.
pub(super) struct Look<'a> {
    pub system: &'a System,
    pub limits: Limits,
    pub now: DateTime<Utc>,
    /// When the archive was begun.
    pub began: Option<DateTime<Utc>>,
    pub source: Source,
    pub tested: Proven,
    /// Why the content of the newest backup cannot be read here, though it is there.
    pub unread: Option<Unreadable>,
    /// What another program that keeps the backups found when it checked itself; absent where it was not asked.
    pub checked: Option<Result<(), EngineError>>,
}

/// What the newest record of a proof says.
pub(super) enum Proven {
    Never,
    Unreadable(String),
    /// And whether it is of the newest backup, as that is now.
    Told {
        tested: Box<Tested>,
        newest: bool,
    },
}

/// Where the server's own WAL ends.
pub(super) enum Source {
    NotAsked,
    Silent(String),
    End(SourceEnd),
}

async fn asked(system: &System) -> Source {
    match (&system.detail, system.url.resolve()) {
        (SystemDetail::Redis(_), _) => Source::NotAsked,
        (SystemDetail::Postgres(_), Err(failure)) => Source::Silent(failure.to_string()),
        (SystemDetail::Postgres(_), Ok(url)) => match source_end(&url).await {
            Ok(end) => Source::End(end),
            Err(error) => Source::Silent(Failure::from(error).to_string()),
        },
    }
}

async fn tested(seen: &Seen) -> Proven {
    let Some(key) = proof::newest_record(&seen.objects, |_| true) else { return Proven::Never };
    let tested = match proof::read(&seen.bucket, key).await {
        Ok(Ok(tested)) => tested,
        Ok(Err(why)) => return Proven::Unreadable(why),
        Err(error) => return Proven::Unreadable(Failure::from(error).to_string()),
    };
    let manifest = match key.rsplit_once('/') {
        Some((folder, _)) => proof::identity(seen, &format!("{folder}/")).await.ok(),
        None => None,
    };
    let same = manifest.is_some_and(|manifest| manifest == tested.manifest);
    let newest = same && proof::newest(&seen.window).is_some_and(|(_, label)| label == tested.label);
    Proven::Told { tested: Box::new(tested), newest }
}

async fn unread(seen: &Seen) -> Option<Unreadable> {
    let (folder, label) = proof::newest(&seen.window)?;
    let mut labels = vec![label];
    if let SystemWindow::Postgres { backups, .. } = &seen.window {
        let newest = backups.iter().find(|backup| backup.label == labels[0]);
        // What it builds on takes a key too.
        labels
            .extend(newest.into_iter().flat_map(|newest| chain(backups, newest).skip(1)).map(|one| one.label.clone()));
    }
    for label in labels {
        let read = seen.bucket.read_manifest(&format!("{folder}/{label}/manifest.json")).await;
        if let Some(unread) = read.ok().and_then(|read| read.unread) {
            return Some(unread);
        }
    }
    None
}

async fn began(seen: &Seen) -> Option<DateTime<Utc>> {
    match seen.window {
        // Without it less can be told, and the fact says so.
        SystemWindow::Postgres { .. } => seen.bucket.modified(ARCHIVE).await.ok().flatten(),
        SystemWindow::Redis { .. } | SystemWindow::Managed { .. } => None,
    }
}

/// A system that cannot be looked at.
fn blind(system: &System, limits: Limits, failure: Failure) -> SystemHealth {
    let now = failure.now.clone().or(Some("check the store of the system in the inventory".to_owned()));
    let fact = Fact { subject: Subject::Store, judgement: Judgement::Failed, says: failure.to_string(), now };
    SystemHealth { facts: vec![fact], ..empty(system, limits) }
}

/// Nothing but what the inventory says.
fn empty(system: &System, limits: Limits) -> SystemHealth {
    SystemHealth {
        system: system.name.clone(),
        kind: system.kind().word(),
        environment: system.environment.clone(),
        rpo_seconds: limits.rpo.map(|span| span.as_secs_f64()),
        max_age_seconds: limits.max_age.as_secs_f64(),
        backup: None,
        recoverable_to: None,
        loss_seconds: None,
        wal: None,
        aof: None,
        stored: Stored::default(),
        retention: RetentionHealth {
            retain_seconds: limits.retain.map(|span| span.as_secs_f64()),
            from: None,
            spare: Stored::default(),
        },
        facts: Vec::new(),
    }
}
