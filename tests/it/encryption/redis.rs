//! Snapshots and append-only files of a real Redis, encrypted.

use lifeboat::event::{RecoveryTarget, SystemWindow, Window};
use lifeboat::recovery;
use lifeboat::store::Bucket;
use lifeboat::system::redis::{self, Origin, RestoreError, TransferError};

use super::{Pair, by_age, encryption, plain, readable};
use crate::redis::aof::{DATED, next_second, ship};
use crate::redis::restore::{Scene, gone, keys};
use crate::redis::snapshot::{bucket_in, take};
use crate::support::redis::run;

/// The beginning of a key, and a value.
const KEY: &str = "solness";
const VALUE: &str = "castles-in-the-air";

/// A server of which a backup host that cannot read has shipped everything.
async fn shipped() -> (Scene, Pair, Bucket) {
    let scene = Scene::new(DATED, None).await;
    let pair = Pair::new(scene.home(), "pair");
    let client = scene.source.client().await;
    next_second(&client).await;
    for n in 0..50 {
        run(&client, &format!("SET {KEY}:{n} {VALUE}-{n}")).await;
    }
    let writes = bucket_in(&scene.store).encrypted(encryption(&[&pair], None));
    (scene, pair, writes)
}

#[tokio::test]
async fn keys_and_values_come_back_and_the_store_never_saw_them() {
    let (mut scene, pair, writes) = shipped().await;
    let taken = take(&scene.source.url, &writes).await.unwrap();
    ship(&scene.source.url, None, &writes).await.unwrap();
    assert_eq!(taken.manifest.rdb.by_prefix.get(KEY), Some(&50));
    assert_eq!(readable(&scene.store, KEY), Vec::<String>::new());
    assert_eq!(readable(&scene.store, VALUE), Vec::<String>::new());
    let stored = std::fs::read(scene.store.join("orders-cache").join(&taken.manifest.object)).unwrap();
    let content = plain(&by_age(&pair, &stored).unwrap());
    assert!(content.starts_with(b"REDIS") && super::holds(&content, KEY.as_bytes()));

    // Who has no key sees what there is, and its age.
    let (seen, warnings) = redis::list(&writes).await.unwrap();
    assert_eq!((seen, warnings), (vec![taken.snapshot.clone()], Vec::new()));
    scene.bucket = writes;
    let directory = scene.targets.join("cache");
    let refused = scene.run_with(Origin::Snapshot(&taken.snapshot.label), &[], &directory).await.unwrap_err();
    assert!(refused.to_string().contains(pair.short()), "{refused}");

    scene.bucket = bucket_in(&scene.store).encrypted(encryption(&[&pair], Some(&pair.file)));
    let restored = scene.run_with(Origin::Snapshot(&taken.snapshot.label), &[], &directory).await.unwrap();
    assert_eq!(keys(&restored.url).await, 50);
    scene.undo(&directory).await;
    let (snapshots, _) = redis::list(&scene.bucket).await.unwrap();
    let (aof, warnings) = redis::ranges(&scene.bucket).await.unwrap();
    assert_eq!(warnings, Vec::<String>::new());
    let end = aof[0].to + chrono::Duration::milliseconds(1500);
    let systems = vec![SystemWindow::Redis { system: "orders-cache".into(), snapshots, aof, warnings }];
    let window = Window { looked: lifeboat::clock::wall_now(), systems, incident: None };
    let point = recovery::settle(&window, &RecoveryTarget::Time { time: end }, false).unwrap();
    let restored = scene.run_with(Origin::Aof(&point.aof["orders-cache"]), &[], &directory).await.unwrap();
    assert_eq!(keys(&restored.url).await, 50);
    scene.undo(&directory).await;
}

#[tokio::test]
async fn who_cannot_read_ships_only_what_came_since() {
    let (scene, pair, writes) = shipped().await;
    let first = ship(&scene.source.url, None, &writes).await.unwrap();
    let client = scene.source.client().await;
    next_second(&client).await;
    run(&client, &format!("SET {KEY}:later x")).await;
    let next = ship(&scene.source.url, None, &writes).await.unwrap();
    assert!(next.new_bytes > 0 && next.new_bytes < 200, "{} bytes of {}", next.new_bytes, first.new_bytes);
    // What it says of the pieces that it did not ship is what those hold.
    let reads = bucket_in(&scene.store).encrypted(encryption(&[&pair], Some(&pair.file)));
    let whole = redis::aof_manifest(&reads, &next.manifest.label).await.unwrap().unwrap();
    assert_eq!(whole.files, next.manifest.files);
    for piece in whole.files.iter().flat_map(|file| &file.pieces) {
        let stored = std::fs::read(scene.store.join("orders-cache").join(&piece.object)).unwrap();
        assert_eq!(lifeboat::digest::Digest::of(&plain(&by_age(&pair, &stored).unwrap())), piece.raw_digest);
    }
    // Switched on later: nothing of the newest shipment is in the clear.
    std::fs::create_dir(scene.store.join("other")).unwrap();
    let clear = bucket_in(&scene.store.join("other")).encrypted(lifeboat::store::Encryption::default());
    ship(&scene.source.url, None, &clear).await.unwrap();
    let on = bucket_in(&scene.store.join("other")).encrypted(encryption(&[&pair], None));
    let anew = ship(&scene.source.url, None, &on).await.unwrap();
    assert_eq!(anew.new_bytes, anew.manifest.raw_bytes());
}

#[tokio::test]
async fn an_encrypted_object_does_not_pass_for_another_backups() {
    let (mut scene, pair, _) = shipped().await;
    let bucket = bucket_in(&scene.store).encrypted(encryption(&[&pair], Some(&pair.file)));
    let taken = take(&scene.source.url, &bucket).await.unwrap();
    // As the store would: the object of an encrypted snapshot under a manifest in the clear, all digests right.
    let mut forged = taken.manifest.clone();
    forged.label = "forged".to_owned();
    let forged = serde_json::to_vec(&forged).unwrap();
    bucket.create("snapshots/forged/manifest.json", forged).await.unwrap();
    scene.bucket = bucket;
    let directory = scene.targets.join("cache");
    let refused = scene.run_with(Origin::Snapshot("forged"), &[], &directory).await.unwrap_err();
    let wrong = matches!(&refused, RestoreError::Transfer(TransferError::NotAsStored { what: "manifest", .. }));
    assert!(wrong, "{refused}");
    gone(&directory).await;
    assert!(!directory.join("data/dump.rdb").exists());
}
