//! The append-only file on its way back: to the second, and not a command further.

use std::path::Path;

use chrono::DateTime;
use lifeboat::clock;
use lifeboat::event::{AofPoint, RecoveryTarget, SystemWindow, Window};
use lifeboat::process::Spec;
use lifeboat::recovery;
use lifeboat::system::redis::{self, Origin, Redis, RestoreError};
use tokio_util::sync::CancellationToken;

use super::aof::{DATED, next_second, ship};
use super::restore::{Scene, digest};
use super::snapshot::{fill, take};
use crate::support::Home;
use crate::support::redis::{TestRedis, open_directory, run};

/// Where the window of this bucket leads for a moment.
async fn settle(scene: &Scene, target: DateTime<chrono::Utc>) -> recovery_point::Point {
    let (snapshots, _) = redis::list(&scene.bucket).await.unwrap();
    let (aof, warnings) = redis::ranges(&scene.bucket).await.unwrap();
    assert_eq!(warnings, Vec::<String>::new());
    let systems = vec![SystemWindow::Redis { system: "orders-cache".into(), snapshots, aof, warnings }];
    let window = Window { looked: clock::wall_now(), systems, incident: None };
    recovery::settle(&window, &RecoveryTarget::Time { time: target }, false).unwrap()
}

mod recovery_point {
    pub use lifeboat::event::RecoveryPoint as Point;
}

fn second(second: i64) -> DateTime<chrono::Utc> {
    DateTime::from_timestamp(second, 0).unwrap()
}

fn half(at: i64) -> DateTime<chrono::Utc> {
    second(at) + chrono::Duration::milliseconds(500)
}

/// What stock Redis makes of a copy of the source's own files, cut by stock `redis-check-aof`.
async fn oracle(source: &Path, last_second: i64) -> (Home, TestRedis) {
    let home = open_directory();
    let copy = Spec::new("cp").arg("-a").arg(source.join("appendonlydir")).arg(home.path());
    assert!(copy.capture(1 << 10, &CancellationToken::new()).await.unwrap().end.success());
    let manifest = home.path().join("appendonlydir/appendonly.aof.manifest");
    let cut = Spec::new("redis-check-aof").args(["--truncate-to-timestamp", &last_second.to_string()]).arg(manifest);
    let said = cut.capture(1 << 20, &CancellationToken::new()).await.unwrap();
    assert!(said.end.success(), "{}", said.stdout_text());
    let server = TestRedis::start(home.path(), &[DATED, &["--enable-debug-command", "yes"]].concat(), None).await;
    (home, server)
}

#[tokio::test]
async fn the_damage_does_not_come_back_and_everything_before_it_does() {
    let scene = Scene::new(&[DATED, &["--requirepass", "hunter22"]].concat(), Some("hunter22")).await;
    let client = scene.source.client().await;
    next_second(&client).await;
    fill(&scene.source).await;
    let taken = take(&scene.source.url, &scene.bucket).await.unwrap();
    next_second(&client).await;
    for n in 0..40 {
        run(&client, &format!("SET cart:late:{n} x")).await;
    }
    let damage = next_second(&client).await;
    run(&client, "FLUSHALL").await;
    run(&client, "SET after damage").await;
    ship(&scene.source.url, None, &scene.bucket).await.unwrap();

    // The moment of the damage itself, as a person reads it in a log: within the second.
    let point = settle(&scene, half(damage)).await;
    assert!(point.snapshots.is_empty(), "the append-only file comes nearer than snapshot {}", taken.snapshot.label);
    let chosen = &point.aof["orders-cache"];
    assert_eq!((chosen.at, chosen.cut), (second(damage), true));
    let directory = scene.targets.join("cache");
    let restored = scene.run_with(Origin::Aof(chosen), &[], &directory).await.unwrap();
    assert_eq!((restored.keys, restored.at), (taken.snapshot.keys + 40, second(damage)));
    // SELECT goes before the FLUSHALL of each database that it comes to.
    assert!(restored.cut_commands >= 2 && restored.commands > 40, "{restored:?}");
    let server = Redis::connect(&restored.url).await.unwrap();
    assert_eq!(server.config("appendonly").await.unwrap().as_deref(), Some("yes"));
    assert_eq!(server.config("aof-load-truncated").await.unwrap().as_deref(), Some("yes"), "as it is meant to go on");
    scene.undo(&directory).await;
}

#[tokio::test]
async fn each_second_can_be_had_also_while_a_rewrite_is_under_way() {
    // Longer than any machine takes to come to the look at it.
    let slow = [DATED, &["--rdb-key-save-delay", "60000000"]].concat();
    let scene = Scene::new(&slow, None).await;
    let client = scene.source.client().await;
    let mut seconds = vec![next_second(&client).await];
    run(&client, &format!("SET k:{} x", seconds[0])).await;
    // From here on there are two incremental files.
    run(&client, "BGREWRITEAOF").await;
    for _ in 0..3 {
        seconds.push(next_second(&client).await);
        run(&client, &format!("SET k:{} x", seconds[seconds.len() - 1])).await;
    }
    let shipped = ship(&scene.source.url, None, &scene.bucket).await.unwrap();
    assert_eq!(shipped.manifest.files.len(), 3, "{:?}", shipped.manifest);
    for (index, at) in seconds.iter().copied().enumerate() {
        let point = settle(&scene, half(at)).await;
        let directory = scene.targets.join(format!("cache-{index}"));
        let restored = scene.run_with(Origin::Aof(&point.aof["orders-cache"]), &[], &directory).await.unwrap();
        // Everything before this second, and nothing of it.
        assert_eq!(restored.keys, index as u64, "at {at} of {seconds:?}");
        let server = Redis::connect(&restored.url).await.unwrap();
        for (other, before) in seconds.iter().map(|other| (other, *other < at)) {
            let found = run(&server, &format!("EXISTS k:{other}")).await;
            assert_eq!(found, ::redis::Value::Int(before.into()), "k:{other} at {at}");
        }
        scene.undo(&directory).await;
    }
    // To its end.
    let whole = AofPoint { label: shipped.range.label.clone(), at: shipped.range.end(), cut: false };
    let restored = scene.run_with(Origin::Aof(&whole), &[], &scene.targets.join("whole")).await.unwrap();
    assert_eq!((restored.keys, restored.cut_commands), (4, 0));
    scene.undo(&scene.targets.join("whole")).await;
}

#[tokio::test]
async fn it_is_what_stock_redis_makes_of_it() {
    let debug = ["--enable-debug-command", "yes"];
    let scene = Scene::new(&[DATED, &debug].concat(), None).await;
    let client = scene.source.client().await;
    next_second(&client).await;
    fill(&scene.source).await;
    let cut = next_second(&client).await;
    run(&client, "DEL list:large").await;
    ship(&scene.source.url, None, &scene.bucket).await.unwrap();
    let (_home, stock) = oracle(scene.home(), cut - 1).await;
    let point = settle(&scene, second(cut)).await;
    let directory = scene.targets.join("cache");
    let restored = scene.run_with(Origin::Aof(&point.aof["orders-cache"]), &[], &directory).await.unwrap();
    let server = Redis::connect(&restored.url).await.unwrap();
    assert_eq!(run(&server, "LLEN list:large").await, ::redis::Value::Int(600));
    // Its files under a server that has DEBUG, for Redis' own digest of everything.
    let _: Result<::redis::Value, _> = server.query("SHUTDOWN", ::redis::cmd("SHUTDOWN").arg("NOSAVE")).await;
    super::restore::gone(&directory).await;
    let again = TestRedis::start(&directory.join("data"), &[DATED, &debug].concat(), None).await;
    assert_eq!(digest(&again).await, digest(&stock).await);
    drop(again);
    scene.undo(&directory).await;
}

#[tokio::test]
async fn a_database_beyond_the_usual_ones_is_not_loaded_into_another() {
    let scene = Scene::new(&[DATED, &["--databases", "40"]].concat(), None).await;
    let client = scene.source.client().await;
    next_second(&client).await;
    run(&Redis::connect_to(&scene.source.url, 33).await.unwrap(), "SET far away").await;
    let point = next_second(&client).await;
    run(&client, "SET late x").await;
    ship(&scene.source.url, None, &scene.bucket).await.unwrap();
    let point = settle(&scene, second(point)).await;
    let directory = scene.targets.join("cache");
    let restored = scene.run_with(Origin::Aof(&point.aof["orders-cache"]), &[], &directory).await.unwrap();
    let far = Redis::connect_to(&restored.url, 33).await.unwrap();
    assert_eq!(run(&far, "EXISTS far").await, ::redis::Value::Int(1));
    scene.undo(&directory).await;
}

#[tokio::test]
async fn what_was_changed_in_the_bucket_is_refused() {
    let scene = Scene::new(DATED, None).await;
    let client = scene.source.client().await;
    next_second(&client).await;
    fill(&scene.source).await;
    let end = next_second(&client).await;
    run(&client, "SET late x").await;
    let shipped = ship(&scene.source.url, None, &scene.bucket).await.unwrap();
    let range = &shipped.range;
    let early = AofPoint { label: range.label.clone(), at: range.from - chrono::Duration::seconds(1), cut: true };
    let error = scene.run_with(Origin::Aof(&early), &[], &scene.targets.join("early")).await.unwrap_err();
    assert!(matches!(error, RestoreError::Manifest { .. }) && error.to_string().contains("can be cut from"), "{error}");
    let point = AofPoint { label: range.label.clone(), at: second(end), cut: true };
    for file in &shipped.manifest.files {
        let path = scene.store.join("orders-cache").join(&file.pieces[0].object);
        let good = std::fs::read(&path).unwrap();
        let mut bad = good.clone();
        bad[good.len() / 2] ^= 1;
        std::fs::write(&path, bad).unwrap();
        let directory = scene.targets.join(&file.name);
        let error = scene.run_with(Origin::Aof(&point), &[], &directory).await.unwrap_err();
        assert!(matches!(error, RestoreError::Transfer(_)), "{}: {error}", file.name);
        std::fs::write(&path, good).unwrap();
    }
    let gone = AofPoint { label: "000000000000/20261121T090000.000Z".into(), ..point };
    let error = scene.run_with(Origin::Aof(&gone), &[], &scene.targets.join("gone")).await.unwrap_err();
    assert!(matches!(&error, RestoreError::Store(error) if error.is_not_found()), "{error}");
}
