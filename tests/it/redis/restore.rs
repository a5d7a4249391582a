use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use lifeboat::clock;
use lifeboat::digest::Digest;
use lifeboat::event::{Failure, Progress};
use lifeboat::secret::Secret;
use lifeboat::store::Bucket;
use lifeboat::system::redis::{self, MARKER, Manifest, Origin, Redis, Restore, RestoreError, Restored};
use tokio_util::sync::CancellationToken;

use super::snapshot::{FILLED, bucket_in, fill, take};
use crate::support::redis::{TestRedis, open_directory, run};
use crate::support::{Home, contents};

/// A bucket, a place for targets, and a source that broke.
pub struct Scene {
    _homes: [Home; 3],
    pub store: PathBuf,
    pub bucket: Bucket,
    pub targets: PathBuf,
    pub source: TestRedis,
}

impl Scene {
    pub async fn new(arguments: &[&str], password: Option<&str>) -> Self {
        let homes = [open_directory(), open_directory(), open_directory()];
        let source = TestRedis::start(homes[0].path(), arguments, password).await;
        let (store, targets) = (homes[1].path().to_owned(), homes[2].path().to_owned());
        Self { bucket: bucket_in(&store), store, targets, source, _homes: homes }
    }

    pub fn home(&self) -> &Path {
        self._homes[0].path()
    }

    pub fn restore<'a>(&'a self, snapshot: &'a str, directory: &'a Path, cancel: &'a CancellationToken) -> Restore<'a> {
        Restore {
            drill: "drill-1",
            system: "orders-cache",
            effect_key: "restore-cache/1",
            bucket: &self.bucket,
            from: Origin::Snapshot(snapshot),
            policy: &[],
            directory,
            port: 0,
            source_url: &self.source.url,
            server: None,
            run_as: None,
            cancel,
        }
    }

    async fn run(&self, snapshot: &str, directory: &Path) -> Result<Restored, RestoreError> {
        self.run_with(Origin::Snapshot(snapshot), &[], directory).await
    }

    pub async fn run_with(
        &self,
        from: Origin<'_>,
        policy: &[redis::Rule],
        directory: &Path,
    ) -> Result<Restored, RestoreError> {
        let cancel = CancellationToken::new();
        let restored = Restore { from, policy, ..self.restore("", directory, &cancel) }.run(&|_| ()).await;
        if restored.is_err() {
            gone(directory).await;
        }
        restored
    }

    pub async fn undo(&self, directory: &Path) {
        redis::undo("drill-1", "orders-cache", directory, &self.source.url).await.unwrap();
        gone(directory).await;
        assert!(!directory.exists());
    }

    /// Puts an RDB into the bucket as a snapshot whose digests are right.
    async fn plant(&self, like: &Manifest, label: &str, raw: &[u8], change: impl FnOnce(&mut Manifest)) {
        let stored = zstd::encode_all(raw, 3).unwrap();
        let mut manifest = like.clone();
        manifest.label = label.to_owned();
        manifest.object = format!("snapshots/{label}/dump.rdb.zst");
        (manifest.raw_bytes, manifest.raw_digest) = (raw.len() as u64, Digest::of(raw));
        (manifest.stored_bytes, manifest.stored_digest) = (stored.len() as u64, Digest::of(&stored));
        change(&mut manifest);
        self.bucket.create(&manifest.object, stored).await.unwrap();
        let key = format!("snapshots/{label}/manifest.json");
        self.bucket.create(&key, serde_json::to_vec(&manifest).unwrap()).await.unwrap();
    }
}

/// Processes that work in a directory or below it.
fn servers_in(directory: &Path) -> Vec<u32> {
    let pids = std::fs::read_dir("/proc").unwrap().flatten();
    pids.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid| std::fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd.starts_with(directory)))
        .collect()
}

/// No server works there any more, or soon.
pub async fn gone(directory: &Path) {
    let gone = async {
        while !servers_in(directory).is_empty() {
            clock::sleep(Duration::from_millis(5)).await;
        }
    };
    let gone = tokio::time::timeout(Duration::from_secs(10), gone).await;
    assert!(gone.is_ok(), "a server still works in {}", directory.display());
}

pub async fn keys(url: &Secret) -> u64 {
    Redis::connect(url).await.unwrap().info().await.unwrap().keys()
}

/// Redis' own digest of everything it holds; needs DEBUG.
pub async fn digest(server: &TestRedis) -> String {
    server.client().await.query("DEBUG", ::redis::cmd("DEBUG").arg("DIGEST")).await.unwrap()
}

#[tokio::test]
async fn what_was_saved_comes_back_and_stays() {
    let debug = ["--enable-debug-command", "yes"];
    let scene = Scene::new(&[&debug[..], &["--requirepass", "hunter22"]].concat(), Some("hunter22")).await;
    fill(&scene.source).await;
    let before = digest(&scene.source).await;
    let taken = take(&scene.source.url, &scene.bucket).await.unwrap();
    let stored = contents(&scene.store);
    let directory = scene.targets.join("cache");
    let (cancel, lanes) = (CancellationToken::new(), std::sync::Mutex::new(BTreeMap::new()));
    let note = |progress: Progress| drop(lanes.lock().unwrap().insert(progress.lane.clone(), progress));
    let restored = scene.restore(&taken.snapshot.label, &directory, &cancel).run(&note).await.unwrap();
    assert_eq!((restored.keys, restored.expired, restored.already), (FILLED, 0, false));
    assert_eq!((restored.at, restored.bytes), (taken.snapshot.at, taken.snapshot.bytes));
    assert_eq!(contents(&scene.store), stored, "the bucket is as it was");
    let lanes = lanes.into_inner().unwrap();
    assert_eq!(lanes.keys().collect::<Vec<_>>(), ["aof", "load", "snapshot"]);
    assert_eq!(lanes["snapshot"].done, taken.snapshot.stored_bytes);

    // Configured to keep, reachable with the password only, run by nobody special.
    let server = Redis::connect(&restored.url).await.unwrap();
    for (name, value) in [
        ("appendonly", "yes"),
        ("appendfsync", "everysec"),
        ("save", "900 1 300 10 60 10000"),
        ("bind", "127.0.0.1"),
        ("replicaof", ""),
    ] {
        assert_eq!(server.config(name).await.unwrap().as_deref(), Some(value), "{name}");
    }
    let open = Redis::connect(&Secret::new(format!("redis://127.0.0.1:{}", restored.port))).await.unwrap();
    assert!(matches!(open.ping().await, Err(redis::RedisError::Denied { .. })));
    let status = std::fs::read_to_string(format!("/proc/{}/status", restored.pid)).unwrap();
    let uids = status.lines().find(|line| line.starts_with("Uid:")).unwrap();
    assert!(!uids.split_whitespace().any(|uid| uid == "0"), "{uids}");
    let command_line = std::fs::read(format!("/proc/{}/cmdline", restored.pid)).unwrap();
    assert!(!String::from_utf8_lossy(&command_line).contains("hunter22"));
    for path in contents(&directory).keys() {
        let bytes = std::fs::read(path).unwrap();
        assert!(!bytes.windows(8).any(|window| window == b"hunter22"), "{}", path.display());
    }
    assert!(!serde_json::to_string(&restored.facts()).unwrap().contains("hunter22"));

    // The trap: `appendonly yes`, a clean stop that saves, a start. Everything is still there, by Redis' own digest.
    run(&server, "SET after the-restore").await;
    let _: Result<::redis::Value, _> = server.query("SHUTDOWN", ::redis::cmd("SHUTDOWN").arg("SAVE")).await;
    gone(&directory).await;
    let again = [&debug[..], &["--appendonly", "yes"]].concat();
    let again = TestRedis::start(&directory.join("data"), &again, None).await;
    assert_eq!(keys(&again.url).await, FILLED + 1);
    again.run("DEL after").await;
    assert_eq!(digest(&again).await, before);
    drop(again);
    scene.undo(&directory).await;
}

#[tokio::test]
async fn the_trap_that_this_path_avoids_is_real() {
    let scene = Scene::new(&[], None).await;
    fill(&scene.source).await;
    scene.source.run("SAVE").await;
    let home = open_directory();
    std::fs::copy(scene._homes[0].path().join("dump.rdb"), home.path().join("dump.rdb")).unwrap();
    let naive = TestRedis::start(home.path(), &["--appendonly", "yes"], None).await;
    assert_eq!(keys(&naive.url).await, 0, "AOF beats the RDB: everything is gone, and no error said so");
}

/// The source keeps its data in every way that Redis knows, and so does what an earlier attempt left in the target.
#[tokio::test]
async fn row_07_whatever_the_source_keeps_all_of_it_comes_back() {
    for (aof, save) in [("no", "900 1"), ("yes", "900 1"), ("yes", "")] {
        let scene = Scene::new(&["--appendonly", aof, "--save", save], None).await;
        fill(&scene.source).await;
        let taken = take(&scene.source.url, &scene.bucket).await.unwrap();
        let stored = contents(&scene.store);
        let directory = scene.targets.join("cache");
        let restored = scene.run(&taken.snapshot.label, &directory).await;
        let found = match &restored {
            Ok(restored) => keys(&restored.url).await,
            Err(_) => 0,
        };
        assert_eq!(found, FILLED, "came back empty: appendonly {aof}, save {save:?}: {:?}", restored.err());
        // A clean stop that saves, and a start by what lies on the disk.
        let server = Redis::connect(&restored.unwrap().url).await.unwrap();
        let _: Result<::redis::Value, _> = server.query("SHUTDOWN", ::redis::cmd("SHUTDOWN").arg("SAVE")).await;
        gone(&directory).await;
        let again = TestRedis::start(&directory.join("data"), &["--appendonly", "yes"], None).await;
        assert_eq!(keys(&again.url).await, FILLED, "came back empty after a restart: appendonly {aof}, save {save:?}");
        assert_eq!(contents(&scene.store), stored, "the backup was changed");
    }
}

/// The site's own wrapper around redis-server switches the append-only file on, whatever our configuration says.
#[tokio::test]
async fn row_07_a_server_that_has_loaded_nothing_never_passes() {
    let scene = Scene::new(&[], None).await;
    fill(&scene.source).await;
    let taken = take(&scene.source.url, &scene.bucket).await.unwrap();
    let wrapper = scene.targets.join("redis-server");
    let program = lifeboat::process::find_program("redis-server").unwrap();
    let script = format!("#!/bin/sh\nexec {} \"$@\" --appendonly yes\n", program.display());
    std::fs::write(&wrapper, script).unwrap();
    std::fs::set_permissions(&wrapper, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let (directory, cancel) = (scene.targets.join("cache"), CancellationToken::new());
    let request = Restore { server: Some(&wrapper), ..scene.restore(&taken.snapshot.label, &directory, &cancel) };
    let restored = request.run(&|_| ()).await;
    assert!(restored.is_err(), "a false pass: {:?} keys of {FILLED}", restored.map(|restored| restored.keys));
    assert!(matches!(restored, Err(RestoreError::Count { found: 0, .. })), "{restored:?}");
    gone(&directory).await;
}

#[tokio::test]
async fn row_18_no_server_runs_as_root() {
    let scene = Scene::new(&[], None).await;
    scene.source.run("SET a b").await;
    let taken = take(&scene.source.url, &scene.bucket).await.unwrap();
    let directory = scene.targets.join("cache");
    let restored = scene.run(&taken.snapshot.label, &directory).await.unwrap();
    let status = std::fs::read_to_string(format!("/proc/{}/status", restored.pid)).unwrap();
    let line = |name: &str| status.lines().find(|line| line.starts_with(name)).unwrap().to_owned();
    for ids in [line("Uid:"), line("Gid:"), line("Groups:")] {
        assert!(!ids.split_whitespace().any(|id| id == "0"), "it runs as root: {ids}");
    }
    assert_eq!(line("CapEff:").split_whitespace().last(), Some("0000000000000000"), "it has root's powers");
    // Nobody can have it otherwise.
    let (other, cancel) = (scene.targets.join("other"), CancellationToken::new());
    let request = Restore { run_as: Some("root"), ..scene.restore(&taken.snapshot.label, &other, &cancel) };
    let ended = request.run(&|_| ()).await;
    assert!(!nix::unistd::geteuid().is_root() || matches!(ended, Err(RestoreError::NoAccount(_))), "{ended:?}");
    scene.undo(&directory).await;
}

#[tokio::test]
async fn keys_that_have_expired_since_are_counted_as_expired() {
    let scene = Scene::new(&[], None).await;
    let source = scene.source.client().await;
    for n in 0..50 {
        run(&source, &format!("SET session:{n} x PX 300")).await;
        run(&source, &format!("SET cart:{n} x EX 3600")).await;
    }
    let taken = take(&scene.source.url, &scene.bucket).await.unwrap();
    assert_eq!((taken.snapshot.keys, taken.manifest.rdb.with_expiry), (100, 100));
    while run(&source, "EXISTS session:49").await != ::redis::Value::Int(0) {
        clock::sleep(Duration::from_millis(5)).await;
    }
    let directory = scene.targets.join("cache");
    let restored = scene.run(&taken.snapshot.label, &directory).await.unwrap();
    assert_eq!((restored.keys, restored.expired), (50, 50));
    scene.undo(&directory).await;
}

#[tokio::test]
async fn an_empty_snapshot_restores_to_an_empty_server() {
    let scene = Scene::new(&[], None).await;
    let taken = take(&scene.source.url, &scene.bucket).await.unwrap();
    let directory = scene.targets.join("cache");
    let restored = scene.run(&taken.snapshot.label, &directory).await.unwrap();
    assert_eq!((restored.keys, restored.expired, keys(&restored.url).await), (0, 0, 0));
    scene.undo(&directory).await;
}

#[tokio::test]
async fn damage_is_refused_and_named() {
    let scene = Scene::new(&[], None).await;
    fill(&scene.source).await;
    let taken = take(&scene.source.url, &scene.bucket).await.unwrap();
    let (label, good) = (taken.snapshot.label.as_str(), taken.manifest.clone());
    let stored = bucket_file(&scene, &good.object);
    let bytes = std::fs::read(&stored).unwrap();
    let raw = zstd::decode_all(&bytes[..]).unwrap();
    let middle = raw.len() / 2;
    let flipped = |at: usize| {
        let mut bytes = raw.clone();
        bytes[at] ^= 1;
        bytes
    };
    // As stock Redis would take it: one byte changed and the checksum zeroed. Only our own digest knows.
    let mut silent = flipped(middle);
    silent[raw.len() - 8..].fill(0);
    scene.plant(&good, "flipped", &flipped(middle), |_| {}).await;
    scene.plant(&good, "silent", &silent, |manifest| manifest.raw_digest = good.raw_digest).await;
    scene.plant(&good, "cut", &raw[..middle], |_| {}).await;
    scene.plant(&good, "bomb", &vec![0; 64 << 20], |manifest| manifest.raw_bytes = good.raw_bytes).await;
    scene.plant(&good, "other", b"SQLite format 3\0", |_| {}).await;
    let mut turned = bytes.clone();
    turned[bytes.len() / 2] ^= 1;
    std::fs::write(&stored, &turned).unwrap();
    for (label, why) in [
        (label, "is not what was stored"),
        ("flipped", "snapshot flipped is refused"),
        ("silent", "is not what was stored: SHA-256 unpacked"),
        ("cut", "in the middle"),
        ("bomb", "is not what was stored: bytes unpacked"),
        ("other", "it is no RDB"),
    ] {
        let error = scene.run(label, &scene.targets.join(label)).await.unwrap_err();
        assert!(error.to_string().contains(why), "{label}: {error}");
        assert!(Failure::from(error).now.unwrap().contains("Choose another one"));
    }
    std::fs::write(&stored, &bytes[..bytes.len() - 1]).unwrap();
    let error = scene.run(label, &scene.targets.join("short")).await.unwrap_err();
    assert!(matches!(error, RestoreError::Transfer(_)), "{error}");
    let error = scene.run("nowhere", &scene.targets.join("nowhere")).await.unwrap_err();
    assert!(matches!(&error, RestoreError::Store(error) if error.is_not_found()), "{error}");
}

fn bucket_file(scene: &Scene, key: &str) -> PathBuf {
    scene.store.join("orders-cache").join(key)
}

#[tokio::test]
async fn what_the_server_cannot_read_is_refused_before_a_byte_moves() {
    let scene = Scene::new(&[], None).await;
    let good = take(&scene.source.url, &scene.bucket).await.unwrap().manifest;
    let newer = |manifest: &mut Manifest| {
        manifest.rdb.rdb_version = 12;
        manifest.source.redis_version = "7.4.1".to_owned();
    };
    scene.plant(&good, "newer", b"REDIS0012", newer).await;
    let directory = scene.targets.join("cache");
    let error = scene.run("newer", &directory).await.unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, RestoreError::TooNew { found: 12, known: 10, .. }), "{text}");
    assert!(text.contains("Redis 7.4.1") && text.contains("is Redis 7.0.15 and reads up to 10"), "{text}");
    assert!(!directory.exists());
}

#[tokio::test]
async fn row_01_redis_takes_no_directory_of_another_one() {
    let scene = Scene::new(&[], None).await;
    let taken = take(&scene.source.url, &scene.bucket).await.unwrap();
    // The decoy: a living server's directory, and the restore of another drill.
    let decoy = open_directory();
    let living = TestRedis::start(decoy.path(), &[], None).await;
    living.run("SET only copy").await;
    living.run("SAVE").await;
    let earlier = scene.targets.join("earlier");
    let cancel = CancellationToken::new();
    let other = Restore { drill: "drill-0", ..scene.restore(&taken.snapshot.label, &earlier, &cancel) };
    let restored = other.run(&|_| ()).await.unwrap();
    for directory in [decoy.path(), &earlier] {
        let before = contents(directory);
        let found = redis::restored_url("drill-1", "orders-cache", directory, &scene.source.url).unwrap();
        assert!(found.is_none(), "this drill has restored nothing there");
        let cancel = CancellationToken::new();
        let restored = scene.restore(&taken.snapshot.label, directory, &cancel).run(&|_| ()).await;
        assert_eq!(contents(directory), before, "the decoy was changed");
        assert!(matches!(restored, Err(RestoreError::Foreign { .. })), "{restored:?}");
        let error = redis::undo("drill-1", "orders-cache", directory, &scene.source.url).await.unwrap_err();
        assert!(matches!(error, RestoreError::Foreign { .. }), "{error}");
        assert_eq!(contents(directory), before);
    }
    assert_eq!((keys(&living.url).await, keys(&restored.url).await), (1, 0));
    redis::undo("drill-0", "orders-cache", &earlier, &scene.source.url).await.unwrap();
}

#[tokio::test]
async fn a_second_run_finds_its_work_done_or_begins_again() {
    let scene = Scene::new(&[], None).await;
    fill(&scene.source).await;
    let taken = take(&scene.source.url, &scene.bucket).await.unwrap();
    let directory = scene.targets.join("cache");
    assert!(redis::restored_url("drill-1", "orders-cache", &directory, &scene.source.url).unwrap().is_none());
    let first = scene.run(&taken.snapshot.label, &directory).await.unwrap();
    let second = scene.run(&taken.snapshot.label, &directory).await.unwrap();
    assert_eq!((second.already, second.pid, second.keys), (true, first.pid, FILLED));
    let url = redis::restored_url("drill-1", "orders-cache", &directory, &scene.source.url).unwrap().unwrap();
    assert_eq!(url.expose(), first.url.expose());

    // As after a kill -9 of this program: its server runs on, and the marker does not say that it was proven.
    let marker = directory.join(MARKER);
    let mut json: serde_json::Value = serde_json::from_slice(&std::fs::read(&marker).unwrap()).unwrap();
    json["done"] = serde_json::Value::Null;
    std::fs::write(&marker, json.to_string()).unwrap();
    let third = scene.run(&taken.snapshot.label, &directory).await.unwrap();
    assert_eq!((third.already, third.keys), (false, FILLED));
    assert_eq!(servers_in(&directory), [third.pid], "the leftover was stopped");

    // Another point in the same drill: the operator had picked a bad one.
    scene.source.run("FLUSHALL").await;
    let later = take(&scene.source.url, &scene.bucket).await.unwrap();
    let fourth = scene.run(&later.snapshot.label, &directory).await.unwrap();
    assert_eq!((fourth.already, fourth.keys), (false, 0));
    assert_eq!(servers_in(&directory), [fourth.pid]);
    scene.undo(&directory).await;
    scene.undo(&directory).await;
}

#[tokio::test]
async fn cancelling_stops_the_server_wherever_it_is() {
    let scene = Scene::new(&[], None).await;
    fill(&scene.source).await;
    let taken = take(&scene.source.url, &scene.bucket).await.unwrap();
    let directory = scene.targets.join("cache");
    for lane in ["snapshot", "load", "aof"] {
        let cancel = CancellationToken::new();
        let stop = |progress: Progress| {
            if progress.lane == lane {
                cancel.cancel();
            }
        };
        let restored = scene.restore(&taken.snapshot.label, &directory, &cancel).run(&stop).await;
        assert!(matches!(restored, Err(RestoreError::Cancelled)), "{lane}: {restored:?}");
        gone(&directory).await;
    }
    assert_eq!(scene.run(&taken.snapshot.label, &directory).await.unwrap().keys, FILLED);
    scene.undo(&directory).await;
}
