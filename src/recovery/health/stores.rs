//! What a store's provider does for the backups, against what the inventory asks. Each fact was seen, or is unknown.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use serde::Serialize;

use super::judge::{failed, missed, ok, unknown};
use super::{Fact, Subject};
use crate::event::Failure;
use crate::inventory::{Asked, Inventory, May, Replica, Store};
use crate::recovery::collect::store_bucket;
use crate::store::{Bucket, Elsewhere, Kept, Object, Protection, ProviderEncryption, Rights, Seen, StoreError};

/// Classes from which an object comes back only after hours.
const FROZEN: [&str; 3] = ["GLACIER", "DEEP_ARCHIVE", "Archive"];

/// A provider's own copy in a second region is late after this; Azure aims at a quarter of an hour.
const LATE: TimeDelta = TimeDelta::hours(1);

/// One store.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StoreHealth {
    pub store: String,
    /// What the keys at hand may do; absent when the inventory does not ask, or it cannot be told.
    pub rights: Option<Rights>,
    pub replica: Option<ReplicaHealth>,
    pub facts: Vec<Fact>,
}

/// The copy elsewhere.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ReplicaHealth {
    pub store: String,
    /// Of these systems, in the store itself.
    pub objects: u64,
    /// Not there, or of another size.
    pub missing: u64,
    pub missing_bytes: u64,
    /// Since the oldest of those was written.
    pub lag_seconds: Option<f64>,
}

/// What was found out of one store.
struct Found {
    protection: Protection,
    rights: Option<Seen<Rights>>,
    replica: Option<(Replica, Seen<ReplicaHealth>)>,
    /// Folders of the bucket in which systems have their backups, with the store's own prefix.
    folders: Vec<String>,
}

/// Looks at the stores of these systems, each once. Nothing that fails ends the look: it becomes a fact. Of what lies in a store
/// nothing is touched; where the inventory says what keys may do, an object of our own is written and deleted.
pub async fn stores(inventory: &Inventory, systems: &[String], now: DateTime<Utc>) -> Vec<StoreHealth> {
    let mut all: Vec<(&Store, Vec<String>)> = Vec::new();
    for system in systems.iter().filter_map(|name| inventory.systems.get(name)) {
        let Some(store) = inventory.stores.get(&system.backups.store) else { continue };
        let folder = system.backups.prefix.clone();
        match all.iter_mut().find(|(known, _)| known.name == store.name) {
            Some((_, folders)) => folders.push(folder),
            None => all.push((store, vec![folder])),
        }
    }
    let looks = all.into_iter().map(|(store, folders)| async move {
        match look(inventory, store, folders, now).await {
            Ok(found) => judge(store, found, now),
            Err(failure) => StoreHealth {
                store: store.name.clone(),
                rights: None,
                replica: None,
                facts: vec![failed(
                    Subject::Store,
                    failure.to_string(),
                    failure.now.unwrap_or_else(|| "check the store's URL and keys in the inventory".to_owned()),
                )],
            },
        }
    });
    futures::future::join_all(looks).await
}

async fn look(
    inventory: &Inventory,
    store: &Store,
    folders: Vec<String>,
    now: DateTime<Utc>,
) -> Result<Found, Failure> {
    let bucket = store_bucket(store)?;
    let objects = listed(&bucket, &folders).await?;
    let newest = objects.iter().max_by_key(|object| object.modified).map(|object| object.key.as_str());
    let protection = bucket.protection(newest).await;
    let rights = match store.asked.may {
        Some(_) if bucket.is_remote() => Some(bucket.rights().await.map_err(|error| Failure::from(error).to_string())),
        _ => None,
    };
    let replica = match &store.asked.replica {
        Some(replica) => {
            let compared = compare(inventory, replica, &folders, &objects, now).await;
            Some((replica.clone(), compared.map_err(|failure| failure.to_string())))
        }
        None => None,
    };
    let root = bucket.prefix();
    let folders = folders.into_iter().map(|folder| [root.as_str(), &folder].join("/").trim_matches('/').to_owned());
    Ok(Found { protection, rights, replica, folders: folders.collect() })
}

async fn listed(bucket: &Bucket, folders: &[String]) -> Result<Vec<Object>, StoreError> {
    let mut objects = Vec::new();
    for folder in folders {
        objects.extend(bucket.list(folder).await?);
    }
    Ok(objects)
}

async fn compare(
    inventory: &Inventory,
    replica: &Replica,
    folders: &[String],
    objects: &[Object],
    now: DateTime<Utc>,
) -> Result<ReplicaHealth, Failure> {
    let store = inventory.stores.get(&replica.store).ok_or_else(|| {
        Failure::new("the copy cannot be looked at", format!("there is no store {} in the inventory", replica.store))
    })?;
    let there = listed(&store_bucket(store)?, folders).await?;
    let mut found = ReplicaHealth {
        store: replica.store.clone(),
        objects: objects.len() as u64,
        missing: 0,
        missing_bytes: 0,
        lag_seconds: None,
    };
    let mut oldest: Option<DateTime<Utc>> = None;
    for object in objects {
        let copied =
            there.binary_search_by(|copy| copy.key.cmp(&object.key)).is_ok_and(|at| there[at].size == object.size);
        if !copied {
            found.missing += 1;
            found.missing_bytes += object.size;
            oldest = Some(oldest.map_or(object.modified, |oldest| oldest.min(object.modified)));
        }
    }
    found.lag_seconds = oldest.map(|at| (now - at).max(TimeDelta::zero()).as_seconds_f64());
    Ok(found)
}

fn judge(store: &Store, found: Found, now: DateTime<Utc>) -> StoreHealth {
    let asked = &store.asked;
    let protection = &found.protection;
    let mut facts = Vec::new();
    if let (Err(why), Err(also)) = (&protection.encryption, &protection.newest)
        && why == also
    {
        facts.push(unknown(Subject::Protection, why.clone()));
    } else {
        facts.extend([
            encryption(asked, protection),
            versions(&protection.versions),
            lock(asked, protection, now),
            lifecycle(store, protection, &found.folders),
            public(protection),
        ]);
    }
    facts.push(rights(asked, &found.rights));
    facts.extend(create_only(&found.rights));
    let rights = found.rights.and_then(Result::ok);
    let replica = match found.replica {
        Some((replica, Ok(compared))) => {
            facts.push(copied(&replica, &compared));
            Some(compared)
        }
        Some((replica, Err(why))) => {
            facts.push(unknown(Subject::Replica, format!("the copy in {} cannot be looked at: {why}", replica.store)));
            None
        }
        None => {
            facts.push(elsewhere(protection.elsewhere.as_ref(), now));
            None
        }
    };
    StoreHealth { store: store.name.clone(), rights, replica, facts }
}

fn encryption(asked: &Asked, protection: &Protection) -> Fact {
    let subject = Subject::Encryption;
    let newest = protection.newest.as_ref().ok().and_then(Option::as_ref);
    let (found, of) = match (newest, &protection.encryption) {
        (Some(newest), _) => (newest.encryption.clone(), "the newest object"),
        (None, Ok(default)) => (default.clone(), "what is written"),
        (None, Err(why)) => return unknown(subject, why.clone()),
    };
    let words = |encryption: &ProviderEncryption| match &encryption.key {
        Ok(Some(key)) => format!("{} and the key {key}", encryption.algorithm),
        Ok(None) | Err(_) => encryption.algorithm.clone(),
    };
    match (found, &asked.kms_key) {
        (None, None) => missed(
            subject,
            format!("{of} is not encrypted by the provider"),
            "switch the bucket's default encryption on",
        ),
        (None, Some(key)) => missed(
            subject,
            format!("{of} is not encrypted, and the inventory asks for the key {key}"),
            "set the bucket's default encryption to that key; what was written before stays as it is",
        ),
        (Some(ProviderEncryption { algorithm, key: Err(why) }), Some(key)) => unknown(
            subject,
            format!("{of} is encrypted with {algorithm}; whether with the key {key} is not known: {why}"),
        ),
        (Some(found), Some(key)) if !matches!(&found.key, Ok(Some(used)) if same_key(used, key)) => missed(
            subject,
            format!("{of} is encrypted with {}, and the inventory asks for the key {key}", words(&found)),
            "set the bucket's default encryption to that key; what was written before stays as it is",
        ),
        (Some(found), _) => ok(subject, format!("{of} is encrypted with {}", words(&found))),
    }
}

/// A key's id is the end of its ARN.
fn same_key(a: &str, b: &str) -> bool {
    let id = |key: &str| key.rsplit('/').next().unwrap_or(key).to_owned();
    a == b || ((!a.contains(':') || !b.contains(':')) && id(a) == id(b))
}

fn versions(seen: &Seen<Kept>) -> Fact {
    match seen {
        Ok(Kept::Versions) => ok(Subject::Versions, "what is deleted or overwritten stays as an older version"),
        Ok(Kept::Days(days)) => {
            ok(Subject::Versions, format!("what is deleted or overwritten can be brought back for {days} days"))
        }
        Ok(Kept::Not) => missed(
            Subject::Versions,
            "what is deleted is gone at once",
            "switch versioning on, with a lifecycle rule that removes old versions after some weeks",
        ),
        Err(why) => unknown(Subject::Versions, why.clone()),
    }
}

fn lock(asked: &Asked, protection: &Protection, now: DateTime<Utc>) -> Fact {
    let subject = Subject::Lock;
    let found = match &protection.lock {
        Ok(found) => found,
        Err(why) => return unknown(subject, why.clone()),
    };
    let days = found.as_ref().and_then(|lock| lock.days);
    let lifted = found.as_ref().filter(|lock| lock.may_be_lifted).and_then(|lock| lock.mode.as_deref());
    let says = match (days, lifted) {
        (Some(days), Some(mode)) => {
            format!("nobody deletes what is written for {days} days, but for those who may lift the lock ({mode})")
        }
        (Some(days), _) => format!("nobody can delete what is written for {days} days"),
        (None, _) => "what is written is not locked: whoever may delete can delete it".to_owned(),
    };
    let Some(wanted) = asked.lock else {
        return match days {
            Some(_) => ok(subject, says),
            None => ok(subject, format!("{says}; the inventory asks for no lock")),
        };
    };
    let now_do = "set the bucket's default retention to it (S3: object lock, Google: retention policy, Azure: immutability \
                  policy); it counts for what is written from then on";
    let wanted_days = wanted.as_secs().div_ceil(86_400);
    if days.is_none_or(|days| u64::from(days) < wanted_days) {
        return missed(subject, format!("{says}; the inventory asks for {wanted_days} days"), now_do);
    }
    // What counts is what the newest object got.
    match protection.newest.as_ref().ok().and_then(Option::as_ref) {
        Some(newest) if newest.locked_until.is_none_or(|until| until < now) => {
            missed(subject, format!("{says}; but the newest object, {}, is not locked", newest.key), now_do)
        }
        _ => ok(subject, says),
    }
}

fn lifecycle(store: &Store, protection: &Protection, folders: &[String]) -> Fact {
    let subject = Subject::Lifecycle;
    if let Ok(Some(newest)) = &protection.newest
        && let Some(class) = newest.class.as_deref().filter(|class| FROZEN.contains(class))
    {
        let says = format!("the newest object, {}, is in {class}: a restore would wait hours for it", newest.key);
        return failed(subject, says, "bring the backups back to a class that answers at once, and change the rule");
    }
    let rules = match &protection.lifecycle {
        Ok(rules) => rules,
        Err(why) => return unknown(subject, why.clone()),
    };
    let ours =
        |prefix: &str| folders.iter().any(|folder| folder.starts_with(prefix) || prefix.starts_with(folder.as_str()));
    let mut worst = None;
    for rule in rules.iter().filter(|rule| ours(&rule.prefix)) {
        let name =
            if rule.name.is_empty() { "a rule without a name".to_owned() } else { format!("rule {}", rule.name) };
        let some = if rule.narrowed { "some of " } else { "" };
        let frozen = rule.moves.iter().find(|(_, class)| FROZEN.contains(&class.as_str()));
        let early = |days: u32| store.retain.is_some_and(|kept| Duration::from_secs(u64::from(days) * 86_400) < kept);
        let fact = match (rule.expires_days, frozen) {
            (Some(days), _) if early(days) => failed(
                subject,
                format!("{name} deletes {some}the backups after {days} days, and the inventory keeps them longer"),
                "switch the rule off: `store.prune` deletes what is spare, and never the last good backup",
            ),
            (_, Some((days, class))) if store.retain.is_none() || early(*days) => failed(
                subject,
                format!(
                    "{name} moves {some}the backups to {class} after {days} days: a restore would wait hours for them"
                ),
                "switch the move off, or to a class that answers at once",
            ),
            (Some(days), _) => missed(
                subject,
                format!(
                    "{name} deletes {some}the backups after {days} days, the last good one too when no new ones come"
                ),
                "switch the rule off: `store.prune` deletes what is spare, and never the last good backup",
            ),
            (None, _) => continue,
        };
        if worst.as_ref().is_none_or(|worst: &Fact| worst.judgement < fact.judgement) {
            worst = Some(fact);
        }
    }
    worst.unwrap_or_else(|| match rules.iter().any(|rule| rule.aborts_uploads && ours(&rule.prefix)) {
        true => ok(subject, "no rule deletes backups; parts of unfinished uploads are removed"),
        false => {
            ok(subject, "no rule deletes backups; none removes the parts of unfinished uploads, which are paid for")
        }
    })
}

fn public(protection: &Protection) -> Fact {
    let subject = Subject::Public;
    match &protection.public {
        Ok(seen) if !seen.open_to.is_empty() => failed(
            subject,
            format!("the bucket is open to {}", seen.open_to.join("; and to ")),
            "close it now, and treat what is in it as read by strangers: passwords, personal data",
        ),
        Ok(seen) if seen.blocked => ok(subject, "the bucket is closed, and cannot be opened to strangers by mistake"),
        Ok(_) => missed(
            subject,
            "the bucket is closed, and nothing keeps it from being opened by mistake",
            "block public access for the bucket (S3: all four parts; Google: public access prevention, enforced)",
        ),
        Err(why) => unknown(subject, why.clone()),
    }
}

fn rights(asked: &Asked, seen: &Option<Seen<Rights>>) -> Fact {
    let subject = Subject::Rights;
    let (may, seen) = match (asked.may, seen) {
        (None, _) => {
            let says = "the inventory does not say what these keys may do (`may`), so nothing was tried";
            return unknown(subject, says);
        }
        (Some(_), None) => {
            return unknown(subject, "a directory has no keys: whoever may write in it may delete in it");
        }
        (Some(_), Some(Err(why))) => return unknown(subject, why.clone()),
        (Some(may), Some(Ok(seen))) => (may, *seen),
    };
    let (may_write, may_delete) = match may {
        May::Read => (false, false),
        May::Write => (true, false),
        May::Prune => (true, true),
    };
    let delete = seen.delete.unwrap_or(may_delete);
    let found = match (seen.write, seen.delete) {
        (true, Some(true)) => "write and delete",
        (true, Some(false)) => "write, and not delete",
        (false, Some(true)) => "delete, and not write",
        (false, Some(false)) => "only read",
        (true, None) => "write; a lock keeps what they wrote, so that whether they may delete is not known",
        (false, None) => "not write; a lock keeps what is there, so that whether they may delete is not known",
    };
    let says = format!("these keys may {found}");
    if (may_write && !seen.write) || (may_delete && !delete) {
        let lacks = if may_write && !seen.write { "no backup can be written" } else { "nothing can be pruned" };
        return failed(subject, format!("{says}: {lacks}"), "give these keys the right to, or the store other keys");
    }
    if (seen.write, delete) == (may_write, may_delete) {
        return if seen.delete.is_some() { ok(subject, says) } else { unknown(subject, says) };
    }
    let more = if delete && !may_delete { "delete" } else { "write" };
    missed(
        subject,
        format!("{says}, and should not {more}: whoever steals them can"),
        "take the right from these keys; pruning has keys of its own",
    )
}

/// Where the inventory names no copy: the provider's own.
fn elsewhere(found: Option<&Elsewhere>, now: DateTime<Utc>) -> Fact {
    let subject = Subject::Replica;
    let until = match found {
        None => {
            let says = "the inventory names no copy of this store (`replica`): what happens when its place is lost is not known";
            return unknown(subject, says);
        }
        Some(Elsewhere::Regions(regions)) => return ok(subject, format!("the provider keeps it in {regions}")),
        Some(Elsewhere::Until(until)) => *until,
    };
    let lag = (now - until).max(TimeDelta::zero());
    let seconds = humantime::format_duration(Duration::from_secs(lag.num_seconds().unsigned_abs()));
    let says = format!("the provider's copy in the second region has what was written until {seconds} ago");
    match lag <= LATE {
        true => ok(subject, says),
        false => missed(
            subject,
            says,
            "see what the provider says of its replication; what is newer would be lost with the region",
        ),
    }
}

/// Of keys that may write, where something was tried.
fn create_only(seen: &Option<Seen<Rights>>) -> Option<Fact> {
    let subject = Subject::CreateOnly;
    match seen.as_ref()?.as_ref().ok()?.creates_once? {
        true => Some(ok(subject, "the server does not write over what is there, when told not to")),
        false => Some(missed(
            subject,
            "the server writes over what is there, though told not to: a lease there keeps no second drill away, and of two \
             who archive into one folder at the same moment the later wins",
            "use a server that heeds If-None-Match (Ceph's RGW 16 does only where no versions are kept); until then see to \
             it that one machine alone restores, and that each cluster archives into a folder of its own",
        )),
    }
}

fn copied(replica: &Replica, found: &ReplicaHealth) -> Fact {
    let subject = Subject::Replica;
    let Some(lag) = found.lag_seconds else {
        return ok(subject, format!("all {} objects are in {} too", found.objects, replica.store));
    };
    let lag = Duration::from_secs_f64(lag);
    let oldest = humantime::format_duration(Duration::from_secs(lag.as_secs()));
    let says = format!(
        "{} of {} objects, {} bytes, are not in {} yet; the oldest was written {oldest} ago",
        found.missing, found.objects, found.missing_bytes, replica.store
    );
    match lag <= replica.within {
        true => ok(subject, says),
        false => missed(subject, says, "see why the provider does not copy: its replication rule and what that may do"),
    }
}
