//! Base backup, WAL and restore of a real cluster, encrypted.

use lifeboat::event::RecoveryTarget;
use lifeboat::store::Encryption;
use lifeboat::system::postgres::Repository;
use lifeboat::system::postgres::wal::Location;

use super::{Pair, by_age, encryption, files, plain, readable};
use crate::postgres::restore::{DIGEST, at, restore_of, run};
use crate::support::postgres::{Primary, account};
use crate::support::redis::open_directory;

/// A value that stands in a table.
const SECRET: &str = "Hilde Wangel, 47 Solness Street";

struct Place {
    directory: crate::support::Home,
    pair: Pair,
}

impl Place {
    fn new() -> Self {
        let directory = open_directory();
        let bucket = directory.path().join("bucket");
        for path in [&bucket, &bucket.join("orders-db")] {
            std::fs::create_dir(path).expect("a directory for the bucket");
            account().iter().for_each(|account| account.give(path).expect("root may give files away"));
        }
        let pair = Pair::new(directory.path(), "key");
        Self { directory, pair }
    }

    fn bucket(&self) -> std::path::PathBuf {
        self.directory.path().join("bucket")
    }

    fn location(&self, encryption: Encryption) -> Location {
        Location { encryption, ..Location::new(format!("file://{}", self.bucket().display()), "orders-db") }
    }

    /// A primary that archives there by itself, with an encrypted base backup, and one order before and after it.
    async fn shop(&self) -> Primary {
        let location = self.location(encryption(&[&self.pair], Some(&self.pair.file)));
        let primary = Primary::start_archiving(Some(location), &[], &[]).await;
        let order = format!("insert into orders (item) select '{SECRET}' || g from generate_series(1, 500) g;");
        primary.sql(&format!("create table orders (id bigserial primary key, item text not null); {order}")).await;
        primary.backup().run().await.expect("the backup succeeds");
        primary.sql(&order).await;
        primary.archive().await;
        primary
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_comes_back_and_the_store_never_saw_it() {
    let place = Place::new();
    let primary = place.shop().await;
    let before = primary.value(DIGEST).await;

    assert_eq!(readable(&place.bucket(), SECRET), Vec::<String>::new());
    assert_eq!(readable(&place.bucket(), "\"orders\""), Vec::<String>::new(), "the names of tables");
    // The same look finds it where it is: nothing is proven by a look that finds nothing anywhere.
    let found = files(&place.bucket()).iter().any(|(_, bytes)| match by_age(&place.pair, bytes) {
        Ok(content) => super::holds(&plain(&content), SECRET.as_bytes()),
        Err(_) => false,
    });
    assert!(found, "the key opens it");

    let (_clone, restored) = run(restore_of(&primary, RecoveryTarget::Latest, true, "restored").await).await;
    let restored = restored.expect("it is restored");
    assert_eq!(at(&restored, DIGEST).await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_key_a_restore_says_which_one_is_missing() {
    let place = Place::new();
    let primary = place.shop().await;
    let other = Pair::new(place.directory.path(), "other");
    for (with, told) in [(None, "no identity is given"), (Some(&other), other.short())] {
        let mut restore = restore_of(&primary, RecoveryTarget::Latest, true, "restored").await;
        let mut location = primary.location.clone();
        location.encryption = encryption(&[&place.pair], with.map(|pair| pair.file.as_path()));
        restore.from = Repository::Bucket { bucket: location.open().expect("the bucket opens"), location };
        let (_clone, result) = run(restore).await;
        let failure = result.expect_err("it cannot be read");
        assert!(failure.why.contains(told) && failure.why.contains(place.pair.short()), "{failure:?}");
        assert!(failure.now.as_ref().is_some_and(|now| now.contains("age-keygen -y")), "{failure:?}");
    }
}
