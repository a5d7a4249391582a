//! A lease on a system, in the bucket of its backups: who may change what is restored of it, on whichever machine.
//!
//! `lease/000000000042.json` and so on, each created only where nothing is. The highest number counts and is never deleted
//! by anybody but who wrote a higher one; so numbers only grow, and the number is the fencing token: whoever finds a higher
//! one than their own has lost the lease. Whether it has run out is told by the store's clock alone.

use std::time::Duration;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::{Bucket, Object, StoreError, Trouble};
use crate::clock;
use crate::event::Failure;
use crate::mutant;

const FOLDER: &str = "lease";

/// How often the lease is tried for when others write at the same moment.
const TRIES: usize = 8;

/// How long a lease holds without a word of its holder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// From here on a person may agree to take it over.
    pub runs_out: Duration,
    /// From here on nobody need be asked: a drill of every night is not kept back by one that died yesterday.
    pub is_free: Duration,
}

impl Default for Terms {
    fn default() -> Self {
        Self { runs_out: Duration::from_secs(30 * 60), is_free: Duration::from_secs(12 * 3600) }
    }
}

/// Who holds a lease, or gave it back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    format: u32,
    pub drill: String,
    /// The operator and the machine.
    pub by: String,
    /// By the holder's clock.
    pub since: DateTime<Utc>,
    /// False once it was given back.
    pub held: bool,
    /// No two are alike, so that an answer that was lost is not taken for somebody else's.
    nonce: String,
}

/// What keeps others away.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Held {
    /// The lease, under this token.
    Token(u64),
    /// Nothing but the lock on the target's machine, because of this.
    HereOnly { why: String },
}

#[derive(Debug, thiserror::Error)]
pub enum LeaseError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("{key} in {bucket} is no lease: {why}")]
    Unreadable { bucket: String, key: String, why: String },
    /// Somebody else's.
    #[error("held by {} since {}, drill {}, last heard of at {heard}", .holder.by, .holder.since, .holder.drill)]
    Others {
        holder: Record,
        token: u64,
        heard: DateTime<Utc>,
        until: DateTime<Utc>,
        /// It may be taken over once a person agrees to it.
        ran_out: bool,
    },
    /// It was ours.
    #[error("taken over by {} at {}, drill {}", .by.by, .by.since, .by.drill)]
    Overtaken { by: Record },
    #[error("others write the leases in {bucket} all the time")]
    Busy { bucket: String },
}

/// A drill's hold on a system.
pub struct Lease {
    /// Opened at the system's folder.
    pub bucket: Bucket,
    pub drill: String,
    /// The operator and the machine.
    pub by: String,
    pub terms: Terms,
}

struct Found {
    token: u64,
    modified: DateTime<Utc>,
    record: Record,
}

impl Lease {
    /// Takes the lease, or renews it; whoever had it before and lost it does not get it again. `agreed` is the token of
    /// somebody else's lease that ran out, when a person has agreed to take that over.
    pub async fn hold(&self, agreed: Option<u64>) -> Result<Held, LeaseError> {
        if mutant::removes("19b") {
            return Ok(Held::Token(0));
        }
        for _ in 0..TRIES {
            let objects = self.objects().await?;
            let last = match self.last(&objects).await {
                // Deleted meanwhile by who wrote a higher one.
                Err(LeaseError::Store(StoreError::NotFound { .. })) => continue,
                other => other?,
            };
            let ours = last.as_ref().is_some_and(|last| last.record.drill == self.drill && last.record.held);
            if let Some(last) = last.as_ref().filter(|_| !ours) {
                if self.had_it(&objects).await? {
                    return Err(LeaseError::Overtaken { by: last.record.clone() });
                }
                self.may_take(last, agreed).await?;
            }
            let token = objects.last().map_or(1, |(token, _)| token + 1);
            let record = self.record(true, last.as_ref().filter(|_| ours));
            match self.write(token, &record, true).await {
                Ok(None) => {}
                Ok(Some(why)) => return Ok(Held::HereOnly { why }),
                Err(StoreError::Exists { .. }) => continue,
                Err(error) => return Err(error.into()),
            }
            match self.last(&self.objects().await?).await? {
                Some(last) if last.record == record => {
                    self.forget(&objects).await;
                    return Ok(Held::Token(token));
                }
                // Who was late has written a number that was already overtaken, and deleted.
                Some(last) if last.token > token => self.bucket.delete(&key(token)).await?,
                _ => {}
            }
        }
        Err(LeaseError::Busy { bucket: self.bucket.name().to_owned() })
    }

    /// Gives the lease back, if it is ours.
    pub async fn give_back(&self) -> Result<(), LeaseError> {
        let objects = self.objects().await?;
        let Some(last) = self.last(&objects).await? else { return Ok(()) };
        if last.record.drill == self.drill && last.record.held {
            // The end of a drill gives back for whoever held it.
            let record = Record { by: last.record.by.clone(), ..self.record(false, Some(&last)) };
            match self.write(last.token + 1, &record, false).await {
                Ok(_) => self.forget(&objects).await,
                // Taken over meanwhile.
                Err(StoreError::Exists { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Those that are there, the highest number last.
    async fn objects(&self) -> Result<Vec<(u64, Object)>, StoreError> {
        let objects = self.bucket.list(FOLDER).await?;
        let number =
            |object: &Object| object.key.strip_prefix(FOLDER)?.strip_prefix('/')?.strip_suffix(".json")?.parse().ok();
        let mut numbered: Vec<(u64, Object)> =
            objects.into_iter().filter_map(|object| Some((number(&object)?, object))).collect();
        numbered.sort_by_key(|(number, _)| *number);
        Ok(numbered)
    }

    async fn last(&self, objects: &[(u64, Object)]) -> Result<Option<Found>, LeaseError> {
        let Some((token, object)) = objects.last() else { return Ok(None) };
        Ok(Some(Found { token: *token, modified: object.modified, record: self.read(&object.key).await? }))
    }

    async fn read(&self, key: &str) -> Result<Record, LeaseError> {
        let unreadable =
            |why: String| LeaseError::Unreadable { bucket: self.bucket.name().to_owned(), key: key.to_owned(), why };
        let record: Record =
            serde_json::from_slice(&self.bucket.read(key).await?).map_err(|error| unreadable(error.to_string()))?;
        match record.format {
            1 => Ok(record),
            other => Err(unreadable(format!("it is of format {other}, which this version of Lifeboat does not know"))),
        }
    }

    /// Whether a lease of ours lies below the last one.
    async fn had_it(&self, objects: &[(u64, Object)]) -> Result<bool, LeaseError> {
        for (_, object) in objects.iter().rev().skip(1) {
            match self.read(&object.key).await {
                Ok(record) if record.drill == self.drill && record.held => return Ok(true),
                // Deleted meanwhile by who wrote a higher one: not by us, so it was not ours.
                Ok(_) | Err(LeaseError::Store(StoreError::NotFound { .. })) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(false)
    }

    async fn may_take(&self, last: &Found, agreed: Option<u64>) -> Result<(), LeaseError> {
        if !last.record.held {
            return Ok(());
        }
        // Where nothing can be written, this machine's clock tells, and then a person is asked in any case.
        let by_store = self.now().await?;
        let silent = (by_store.unwrap_or_else(clock::wall_now) - last.modified).to_std().unwrap_or_default();
        let ran_out = silent > self.terms.runs_out;
        if (silent > self.terms.is_free && by_store.is_some()) || (ran_out && agreed == Some(last.token)) {
            return Ok(());
        }
        Err(LeaseError::Others {
            holder: last.record.clone(),
            token: last.token,
            heard: last.modified,
            until: last.modified + self.terms.runs_out,
            ran_out,
        })
    }

    /// The store's clock, as an object that is written now tells it; `None` where nothing can be written.
    async fn now(&self) -> Result<Option<DateTime<Utc>>, StoreError> {
        let key = format!("{FOLDER}/clock-{}", uuid::Uuid::now_v7());
        match self.bucket.create(&key, Bytes::new()).await {
            Err(error) if no_writes(&error).is_some() => return Ok(None),
            other => other?,
        }
        let found = self.bucket.list(FOLDER).await;
        // It is worth nothing, and in nobody's way.
        let _ = self.bucket.delete(&key).await;
        Ok(found?.into_iter().find(|object| object.key == key).map(|object| object.modified))
    }

    fn record(&self, held: bool, before: Option<&Found>) -> Record {
        Record {
            format: 1,
            drill: self.drill.clone(),
            by: self.by.clone(),
            since: before.map_or_else(clock::wall_now, |before| before.record.since),
            held,
            nonce: uuid::Uuid::now_v7().to_string(),
        }
    }

    /// Writes a number that nobody has written. Returns why that means nothing here, when it does not; `prove` looks
    /// whether the store really refuses what is there already.
    async fn write(&self, token: u64, record: &Record, prove: bool) -> Result<Option<String>, StoreError> {
        let bytes = serde_json::to_vec(record).unwrap_or_default();
        match self.bucket.settle(&key(token), bytes.clone()).await {
            Err(error) => match no_writes(&error) {
                Some(why) => return Ok(Some(why)),
                None => return Err(error),
            },
            Ok(()) if !prove => return Ok(None),
            Ok(()) => {}
        }
        match self.bucket.put_new(&key(token), bytes.into()).await {
            Err(StoreError::Exists { .. }) => Ok(None),
            Ok(()) => Ok(Some(format!("{} writes over what is there, though told not to", self.bucket.name()))),
            Err(error) => Err(error),
        }
    }

    /// What a higher number has made worthless: our own, and what others gave back.
    async fn forget(&self, objects: &[(u64, Object)]) {
        for (_, object) in objects {
            if let Ok(record) = self.read(&object.key).await
                && (record.drill == self.drill || !record.held)
                && let Err(error) = self.bucket.delete(&object.key).await
            {
                tracing::debug!(%error, "an old lease stays in the bucket");
            }
        }
    }
}

fn key(token: u64) -> String {
    format!("{FOLDER}/{token:012}.json")
}

/// Why nothing can be created there at all; `None` for what may pass.
fn no_writes(error: &StoreError) -> Option<String> {
    let never = match error {
        StoreError::Cloud { trouble: Trouble::Refused, .. } => true,
        StoreError::Cloud { trouble: Trouble::Answer, why, .. } => {
            why.contains("NotImplemented") || why.contains("501")
        }
        StoreError::Io { source, .. } => {
            let mut cause: Option<&dyn std::error::Error> = Some(source);
            let mut kinds = std::iter::from_fn(|| {
                let error = cause?;
                cause = error.source();
                Some(error.downcast_ref::<std::io::Error>().map(std::io::Error::kind))
            });
            kinds.any(|kind| {
                use std::io::ErrorKind::{PermissionDenied, ReadOnlyFilesystem};
                matches!(kind, Some(PermissionDenied | ReadOnlyFilesystem))
            })
        }
        _ => false,
    };
    never.then(|| error.to_string())
}

impl LeaseError {
    /// For the operator, of this system.
    pub fn of(self, system: &str) -> Failure {
        let what = format!("another drill holds {system}");
        let at = |time: DateTime<Utc>| time.format("%Y-%m-%d %H:%M:%S UTC").to_string();
        match self {
            Self::Store(error) => Failure::from(error).fails(format!("the lease on {system} cannot be had")),
            Self::Others { holder, heard, until, ran_out, .. } => {
                let state = if ran_out { "ran out at" } else { "runs until" };
                let why = format!(
                    "{} since {} (drill {}), last heard of at {}; the lease {state} {}",
                    holder.by,
                    at(holder.since),
                    holder.drill,
                    at(heard),
                    at(until)
                );
                Failure::new(what, why).now(format!(
                    "Talk to them: two drills would undo each other's work. It is given back when that drill ends; \
                     `lifeboat resume {}` on their machine ends it. Once it has run out, a person may take it over here by \
                     trying this step again at a terminal.",
                    holder.drill
                ))
            }
            Self::Overtaken { by } => Failure::new(
                format!("this drill has lost its hold on {system}"),
                format!("{} took the lease over at {} (drill {})", by.by, at(by.since), by.drill),
            )
            .now(
                "Nothing more is done to it here. Talk to them, look at what their drill did, end this drill, and begin a \
                 new one if one is needed.",
            ),
            error @ (Self::Unreadable { .. } | Self::Busy { .. }) => {
                Failure::new(format!("the lease on {system} cannot be had"), error).now(
                    "Look into the folder `lease` beside the system's backups. Whoever is sure that no drill of it runs may \
                     delete what lies there, then try again.",
                )
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Place(tempfile::TempDir);

    impl Place {
        fn lease(&self, drill: &str) -> Lease {
            let url = format!("file://{}", self.0.path().display());
            let bucket = Bucket::open(&url, "db").expect("the bucket");
            Lease { bucket, drill: drill.into(), by: format!("{drill}@here"), terms: Terms::default() }
        }

        /// Its holder has been silent for so long.
        fn ages(&self, by: Duration) {
            for entry in std::fs::read_dir(self.0.path().join("db/lease")).unwrap().flatten() {
                let file = std::fs::File::options().write(true).open(entry.path()).unwrap();
                let modified = file.metadata().unwrap().modified().unwrap();
                file.set_modified(modified - by).unwrap();
            }
        }
    }

    fn place() -> Place {
        Place(tempfile::tempdir().unwrap())
    }

    #[tokio::test]
    async fn it_is_taken_renewed_and_given_back_under_numbers_that_grow() {
        let place = place();
        let (ann, bob) = (place.lease("ann"), place.lease("bob"));
        assert_eq!(ann.hold(None).await.unwrap(), Held::Token(1));
        assert_eq!(ann.hold(None).await.unwrap(), Held::Token(2));
        let said = bob.hold(None).await.unwrap_err();
        assert!(matches!(&said, LeaseError::Others { token: 2, ran_out: false, .. }), "{said:?}");
        let said = said.of("orders-db");
        assert!(said.why.starts_with("ann@here since 20") && said.why.contains("runs until"), "{said:?}");
        bob.give_back().await.unwrap();
        assert!(bob.hold(None).await.is_err(), "somebody else cannot give it back");
        ann.give_back().await.unwrap();
        assert_eq!(bob.hold(None).await.unwrap(), Held::Token(4));
        assert_eq!(std::fs::read_dir(place.0.path().join("db/lease")).unwrap().count(), 1, "nothing is left lying");
    }

    #[tokio::test]
    async fn what_ran_out_is_taken_over_by_a_person_only_and_who_lost_it_stops() {
        let place = place();
        let (ann, bob) = (place.lease("ann"), place.lease("bob"));
        ann.hold(None).await.unwrap();
        assert!(matches!(bob.hold(Some(1)).await, Err(LeaseError::Others { ran_out: false, .. })));
        place.ages(Duration::from_secs(31 * 60));
        assert!(matches!(bob.hold(None).await, Err(LeaseError::Others { ran_out: true, .. })));
        assert!(matches!(bob.hold(Some(7)).await, Err(LeaseError::Others { .. })), "that was of another lease");
        assert_eq!(bob.hold(Some(1)).await.unwrap(), Held::Token(2));
        assert!(matches!(ann.hold(None).await, Err(LeaseError::Overtaken { .. })));
        // As the end of a drill does, which does not know who began it.
        Lease { by: String::new(), ..place.lease("bob") }.give_back().await.unwrap();
        let said = ann.hold(None).await.unwrap_err().of("orders-db");
        assert!(said.what.contains("lost its hold") && said.why.contains("bob@here took the lease over"), "{said:?}");
    }

    #[tokio::test]
    async fn a_holder_who_was_only_silent_goes_on_and_one_who_died_long_ago_is_no_obstacle() {
        let place = place();
        let (ann, bob) = (place.lease("ann"), place.lease("bob"));
        ann.hold(None).await.unwrap();
        place.ages(Duration::from_secs(11 * 3600));
        assert_eq!(ann.hold(None).await.unwrap(), Held::Token(2));
        place.ages(Duration::from_secs(13 * 3600));
        assert_eq!(bob.hold(None).await.unwrap(), Held::Token(3));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn of_many_at_once_one_holds_it() {
        let place = place();
        for round in 0..8 {
            let tries = (0..8).map(|n| place.lease(&format!("{round}-{n}")));
            let tries = tries.map(|lease| tokio::spawn(async move { (lease.hold(None).await, lease) }));
            let mut holders = Vec::new();
            for result in futures::future::join_all(tries).await {
                match result.unwrap() {
                    (Ok(_), lease) => holders.push(lease),
                    (Err(LeaseError::Others { .. } | LeaseError::Busy { .. }), _) => {}
                    (Err(error), _) => panic!("{error:?}"),
                }
            }
            assert_eq!(holders.len(), 1);
            holders[0].give_back().await.unwrap();
        }
    }
}
