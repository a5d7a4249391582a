//! Who can reach a server that is still being restored: nobody but us.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use lifeboat::digest::Digest;
use lifeboat::event::{AofPoint, Progress};
use lifeboat::process::find_program;
use lifeboat::system::redis::{self, MARKER, Origin, Policy, Redis, Restore, RestoreError, Rule};
use tokio_util::sync::CancellationToken;

use super::aof::{DATED, next_second, ship};
use super::restore::{Scene, keys};
use super::snapshot::{FILLED, fill, take};
use crate::support::redis::{free_port, run};

/// An application that has waited for its cache: whether one command got any answer at all.
fn is_answered(port: u16) -> bool {
    let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)) else { return false };
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let sent = stream.write_all(b"SET intruder x\r\n");
    sent.is_ok() && stream.read(&mut [0; 64]).is_ok_and(|bytes| bytes > 0)
}

fn is_done(directory: &Path) -> bool {
    let marker = std::fs::read(directory.join(MARKER)).unwrap_or_default();
    serde_json::from_slice::<serde_json::Value>(&marker).is_ok_and(|marker| !marker["done"].is_null())
}

#[tokio::test(flavor = "multi_thread")]
async fn row_07_nobody_writes_into_what_is_being_restored() {
    let scene = Scene::new(DATED, None).await;
    next_second(&scene.source.client().await).await;
    fill(&scene.source).await;
    let taken = take(&scene.source.url, &scene.bucket).await.unwrap();
    let shipped = ship(&scene.source.url, None, &scene.bucket).await.unwrap();
    let whole = AofPoint { label: shipped.range.label.clone(), at: shipped.range.end(), cut: false };
    let (snapshot, aof) = (Origin::Snapshot(&taken.snapshot.label), Origin::Aof(&whole));
    // Redis 6 cannot be told another port while it runs.
    let old = scene.targets.join("redis-server");
    let program = find_program("redis-server").unwrap().display().to_string();
    let script = format!("#!/bin/sh\n[ \"$1\" = --version ] && echo v=6.2.14 && exit\nexec {program} \"$@\"\n");
    std::fs::write(&old, script).unwrap();
    std::fs::set_permissions(&old, std::fs::Permissions::from_mode(0o755)).unwrap();
    let policy = [Rule { prefix: "intruder".to_owned(), policy: Policy::Restore }];
    for (name, from, server) in [("rdb", snapshot, None), ("aof", aof, None), ("old", snapshot, Some(&*old))] {
        let (directory, cancel, port) = (scene.targets.join(name), CancellationToken::new(), free_port());
        let early = AtomicBool::new(false);
        let try_it = || {
            if is_answered(port) && !is_done(&directory) {
                early.store(true, Ordering::Relaxed);
            }
        };
        let ended = AtomicBool::new(false);
        let restored = std::thread::scope(|scope| {
            scope.spawn(|| {
                while !ended.load(Ordering::Relaxed) {
                    try_it();
                }
            });
            let restore = Restore { from, server, port, policy: &policy, ..scene.restore("", &directory, &cancel) };
            // And once at each of its stages for certain, however busy the machine is.
            let report = |_: Progress| try_it();
            let restored = tokio::task::block_in_place(|| {
                tokio::runtime::Handle::current().block_on(async { restore.run(&report).await })
            });
            ended.store(true, Ordering::Relaxed);
            restored
        });
        assert!(!early.load(Ordering::Relaxed), "{name}: a client was answered before the restore was done");
        let restored = restored.unwrap();
        assert_eq!((restored.port, restored.keys, restored.policy[0].keys), (port, FILLED, 0), "{name}");
        assert!(is_answered(port), "{name}: the restored server is closed");
        scene.undo(&directory).await;
    }
}

#[tokio::test]
async fn a_kill_between_the_proof_and_the_opening_is_made_good() {
    let scene = Scene::new(&["--requirepass", "hunter 22"], Some("hunter%2022")).await;
    fill(&scene.source).await;
    let taken = take(&scene.source.url, &scene.bucket).await.unwrap();
    let directory = scene.targets.join("cache");
    let restored = scene.run_with(Origin::Snapshot(&taken.snapshot.label), &[], &directory).await.unwrap();
    let server = Redis::connect(&restored.url).await.unwrap();
    run(&server, "CONFIG SET port 0").await;
    assert!(!is_answered(restored.port));
    let again = scene.run_with(Origin::Snapshot(&taken.snapshot.label), &[], &directory).await.unwrap();
    assert_eq!((again.already, again.pid, keys(&again.url).await), (true, restored.pid, FILLED));
    scene.undo(&directory).await;
}

#[tokio::test]
async fn a_long_path_has_its_socket_elsewhere_for_as_long_as_it_is_needed() {
    let scene = Scene::new(&[], None).await;
    fill(&scene.source).await;
    let taken = take(&scene.source.url, &scene.bucket).await.unwrap();
    let directory = scene.targets.join("c".repeat(100));
    let restored = scene.run_with(Origin::Snapshot(&taken.snapshot.label), &[], &directory).await.unwrap();
    assert_eq!(restored.keys, FILLED);
    let name = Digest::of(directory.join("data").as_os_str().as_encoded_bytes()).short();
    let folder = std::env::temp_dir().join(format!("lifeboat-{name}"));
    assert_eq!(folder.metadata().unwrap().permissions().mode() & 0o777, 0o700);
    // What starts it again later needs neither.
    let config = std::fs::read_to_string(directory.join("redis.conf")).unwrap();
    assert!(config.contains(&format!("port {}\n", restored.port)) && !config.contains("unixsocket"), "{config}");
    scene.undo(&directory).await;
    assert!(!folder.exists());
}

#[tokio::test]
async fn a_port_that_is_taken_is_said_before_a_byte_moves() {
    let scene = Scene::new(&[], None).await;
    scene.source.run("SET a b").await;
    let taken = take(&scene.source.url, &scene.bucket).await.unwrap();
    let (directory, cancel) = (scene.targets.join("cache"), CancellationToken::new());
    let request = Restore { port: scene.source.port, ..scene.restore(&taken.snapshot.label, &directory, &cancel) };
    let error = request.run(&|_| ()).await.unwrap_err();
    assert!(matches!(error, RestoreError::Taken { port, .. } if port == scene.source.port), "{error}");
    assert_eq!((keys(&scene.source.url).await, directory.exists()), (1, false));
    // Taken while it is restored: nothing that was restored is given out as the server at that port.
    let port = free_port();
    let listener = std::sync::OnceLock::new();
    let take_it = |_: Progress| {
        let _ = listener.get_or_init(|| std::net::TcpListener::bind(("127.0.0.1", port)).unwrap());
    };
    let request = Restore { port, ..scene.restore(&taken.snapshot.label, &directory, &cancel) };
    let error = request.run(&take_it).await.unwrap_err();
    assert!(matches!(error, RestoreError::Taken { .. }), "{error}");
    assert!(redis::restored_url("drill-1", "orders-cache", &directory, &scene.source.url).unwrap().is_none());
    drop(listener);
    let request = Restore { port, ..scene.restore(&taken.snapshot.label, &directory, &cancel) };
    assert_eq!(request.run(&|_| ()).await.unwrap().keys, 1);
    scene.undo(&directory).await;
}
