//! The append-only file on its way into the bucket.

use std::path::{Path, PathBuf};
use std::time::Duration;

use lifeboat::clock;
use lifeboat::digest::Digest;
use lifeboat::event::Failure;
use lifeboat::process::Spec;
use lifeboat::secret::Secret;
use lifeboat::store::Bucket;
use lifeboat::system::redis::{self, AofError, AofManifest, Redis, ShipAof, Shipped};
use tokio_util::sync::CancellationToken;

use super::snapshot::{FILLED, bucket_in, fill};
use crate::support::redis::{TestRedis, free_port, open_directory, run};

/// What a server must have for a cut to the second.
pub const DATED: &[&str] = &["--appendonly", "yes", "--aof-timestamp-enabled", "yes"];

pub async fn ship(url: &Secret, data: Option<&Path>, bucket: &Bucket) -> Result<Shipped, AofError> {
    let cancel = CancellationToken::new();
    ShipAof { url, data, bucket, cancel: &cancel }.run(&|_| ()).await
}

/// Waits until the server's clock shows another second; that second.
pub async fn next_second(server: &Redis) -> i64 {
    let now = async || {
        let (second, _): (i64, i64) = server.query("TIME", &::redis::cmd("TIME")).await.unwrap();
        second
    };
    let first = now().await;
    loop {
        let second = now().await;
        if second > first {
            return second;
        }
        clock::sleep(Duration::from_millis(5)).await;
    }
}

/// The shipped files in a directory of a server's own, put together without the code under test.
async fn unpacked(bucket: &Bucket, manifest: &AofManifest) -> crate::support::Home {
    let home = open_directory();
    let folder = home.path().join("appendonlydir");
    std::fs::create_dir(&folder).unwrap();
    let mut text = String::new();
    for file in &manifest.files {
        let mut raw = Vec::new();
        for piece in &file.pieces {
            let stored = bucket.read_verified(&piece.object, piece.stored_digest).await.unwrap();
            let plain = zstd::decode_all(&stored[..]).unwrap();
            assert_eq!((plain.len() as u64, Digest::of(&plain)), (piece.raw_bytes, piece.raw_digest));
            raw.extend(plain);
        }
        assert_eq!((raw.len() as u64, Digest::of(&raw)), (file.raw_bytes, file.raw_digest), "{}", file.name);
        std::fs::write(folder.join(&file.name), raw).unwrap();
        text += &format!("file {} seq {} type {}\n", file.name, file.seq, if file.base { 'b' } else { 'i' });
    }
    std::fs::write(folder.join("appendonly.aof.manifest"), text).unwrap();
    // The server that loads it is nobody special.
    for path in [vec![folder.clone()], files(&folder)].concat() {
        if let Some(account) = lifeboat::process::Account::unprivileged().unwrap() {
            account.give(&path).unwrap();
        }
    }
    home
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut all: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    all.sort();
    all
}

/// Stock `redis-check-aof` on the whole set.
async fn stock_check(home: &Path) {
    let manifest = home.join("appendonlydir/appendonly.aof.manifest");
    let checked = Spec::new("redis-check-aof").arg(manifest).capture(1 << 20, &CancellationToken::new()).await.unwrap();
    let said = checked.stdout_text();
    assert!(checked.end.success() && said.contains("All AOF files and manifest are valid"), "{said}");
}

/// The seconds that annotations on the disk tell, the first and the last.
fn annotations(folder: &Path) -> (i64, i64) {
    let text: String = files(folder)
        .iter()
        .filter(|path| path.to_string_lossy().ends_with(".incr.aof"))
        .map(|path| String::from_utf8_lossy(&std::fs::read(path).unwrap()).into_owned())
        .collect();
    let seconds: Vec<i64> =
        text.lines().filter_map(|line| line.strip_prefix("#TS:")).map(|digits| digits.parse().unwrap()).collect();
    (*seconds.first().unwrap(), *seconds.last().unwrap())
}

#[tokio::test]
async fn what_is_on_the_disk_is_shipped_and_later_only_what_came_since() {
    let (home, store) = (open_directory(), tempfile::tempdir().unwrap());
    let server = TestRedis::start(home.path(), DATED, None).await;
    let client = server.client().await;
    next_second(&client).await;
    fill(&server).await;
    let bucket = bucket_in(store.path());
    let before = clock::wall_now();
    let first = ship(&server.url, None, &bucket).await.unwrap();
    let disk: u64 = files(&home.path().join("appendonlydir"))
        .iter()
        .filter(|path| !path.to_string_lossy().ends_with(".manifest"))
        .map(|path| path.metadata().unwrap().len())
        .sum();
    assert_eq!((first.range.bytes, first.new_bytes, first.torn), (disk, disk, 0));
    let (oldest, newest) = annotations(&home.path().join("appendonlydir"));
    assert!(first.range.from.timestamp() <= oldest, "{:?} {oldest}", first.range);
    assert_eq!(first.range.to.timestamp(), newest);
    assert!(first.range.until.unwrap() >= before, "{:?}", first.range);
    let copy = unpacked(&bucket, &first.manifest).await;
    stock_check(copy.path()).await;
    let loaded = TestRedis::start(copy.path(), DATED, None).await;
    assert_eq!(loaded.client().await.info().await.unwrap().keys(), FILLED);

    let second = next_second(&client).await;
    run(&client, "SET later yes").await;
    let next = ship(&server.url, None, &bucket).await.unwrap();
    assert!(next.new_bytes > 0 && next.new_bytes < 200, "{} bytes", next.new_bytes);
    // SELECT goes before it: the filling ended in another database.
    assert_eq!((next.range.commands, next.range.to.timestamp()), (first.range.commands + 2, second));
    assert_eq!(next.range.bytes, first.range.bytes + next.new_bytes);
    stock_check(unpacked(&bucket, &next.manifest).await.path()).await;
    // One base, one range: the later shipment has all that the earlier one has.
    assert_eq!(redis::ranges(&bucket).await.unwrap(), (vec![next.range.clone()], Vec::new()));

    // A rewrite begins another.
    run(&client, "BGREWRITEAOF").await;
    while client.info().await.unwrap().flag("aof_rewrite_in_progress") {
        clock::sleep(Duration::from_millis(5)).await;
    }
    let other = ship(&server.url, None, &bucket).await.unwrap();
    assert_eq!((other.range.base_keys, other.range.commands), (FILLED + 1, 0));
    assert_eq!(redis::ranges(&bucket).await.unwrap().0, [next.range.clone(), other.range]);

    // The newest is cut: what the one before it holds is still there, and it is said.
    let piece = &next.manifest.files.last().unwrap().pieces.last().unwrap().object;
    std::fs::write(store.path().join("orders-cache").join(piece), "x").unwrap();
    let (ranges, warnings) = redis::ranges(&bucket).await.unwrap();
    assert_eq!(ranges[0], first.range);
    assert!(warnings.len() == 1 && warnings[0].contains("has 1 bytes, its manifest says"), "{warnings:?}");
}

#[tokio::test]
async fn nothing_acknowledged_is_missing_however_often_it_is_rewritten_meanwhile() {
    let (home, store) = (open_directory(), tempfile::tempdir().unwrap());
    let server = TestRedis::start(home.path(), DATED, None).await;
    let (writer, rewriter) = (server.client().await, server.client().await);
    next_second(&writer).await;
    let bucket = bucket_in(store.path());
    let stop = CancellationToken::new();
    let writing = tokio::spawn({
        let stop = stop.clone();
        async move {
            while !stop.is_cancelled() {
                run(&writer, "INCR counter").await;
            }
        }
    });
    let rewriting = tokio::spawn({
        let stop = stop.clone();
        async move {
            let mut rewrites = 0;
            while !stop.is_cancelled() {
                // In bursts: what is written in the second of a rewrite has no time of its own yet.
                for _ in 0..4 {
                    run(&rewriter, "BGREWRITEAOF").await;
                    rewrites += 1;
                    while rewriter.info().await.unwrap().flag("aof_rewrite_in_progress") {}
                }
                next_second(&rewriter).await;
            }
            rewrites
        }
    });
    let reader = server.client().await;
    let counter = async |redis: &Redis| -> u64 {
        redis.query::<Option<u64>>("GET", ::redis::cmd("GET").arg("counter")).await.unwrap().unwrap_or(0)
    };
    let (mut whole, mut round) = (0, 0);
    while whole < 6 {
        round += 1;
        let acknowledged = counter(&reader).await;
        let shipped = match ship(&server.url, None, &bucket).await {
            Ok(shipped) => shipped,
            // A base younger than a second, and nothing with a time behind it yet.
            Err(AofError::NoTimestamps { .. }) => continue,
            Err(error) => panic!("round {round}: {error}"),
        };
        let copy = unpacked(&bucket, &shipped.manifest).await;
        stock_check(copy.path()).await;
        let loaded = TestRedis::start(copy.path(), DATED, None).await;
        let found = counter(&loaded.client().await).await;
        assert!(found >= acknowledged, "round {round}: {found} of {acknowledged}");
        whole += 1;
    }
    stop.cancel();
    writing.await.unwrap();
    assert!(rewriting.await.unwrap() >= 4, "it was rewritten in between");
}

#[tokio::test]
async fn a_dead_servers_disk_is_enough_and_its_torn_end_is_left_out() {
    let (home, store) = (open_directory(), tempfile::tempdir().unwrap());
    let server = TestRedis::start(home.path(), DATED, None).await;
    let client = server.client().await;
    next_second(&client).await;
    run(&client, "SET kept yes").await;
    let url = server.url.clone();
    drop(server);
    let folder = home.path().join("appendonlydir");
    let incremental = files(&folder).into_iter().find(|path| path.to_string_lossy().ends_with(".incr.aof")).unwrap();
    let mut bytes = std::fs::read(&incremental).unwrap();
    let half = b"*3\r\n$3\r\nSET\r\n$4\r\nhalf\r\n$9\r\nwrit";
    bytes.extend_from_slice(half);
    std::fs::write(&incremental, bytes).unwrap();
    let bucket = bucket_in(store.path());
    let error = ship(&url, None, &bucket).await.unwrap_err();
    assert!(matches!(error, AofError::Unreachable(_)), "{error}");
    assert!(Failure::from(error).now.unwrap().contains("data = "));
    let shipped = ship(&url, Some(home.path()), &bucket).await.unwrap();
    assert_eq!((shipped.torn, shipped.range.until), (half.len() as u64, None));
    assert_eq!(shipped.manifest.source.method, "files of a server that is down");
    let copy = unpacked(&bucket, &shipped.manifest).await;
    stock_check(copy.path()).await;
    let loaded = TestRedis::start(copy.path(), &[DATED, &["--aof-load-truncated", "no"]].concat(), None).await;
    assert_eq!(loaded.client().await.info().await.unwrap().keys(), 1);
}

#[tokio::test]
async fn what_cannot_be_shipped_is_said_and_nothing_is_listed() {
    let store = tempfile::tempdir().unwrap();
    let bucket = bucket_in(store.path());
    let fails = async |url: &Secret, data: Option<&Path>| ship(url, data, &bucket).await.unwrap_err();

    let home = open_directory();
    let off = TestRedis::start(home.path(), &[], None).await;
    let error = fails(&off.url, None).await;
    assert!(matches!(error, AofError::Off { .. }), "{error}");

    let home = open_directory();
    let undated = TestRedis::start(home.path(), &["--appendonly", "yes"], None).await;
    undated.run("SET a 1").await;
    let error = fails(&undated.url, None).await;
    assert!(matches!(error, AofError::NoTimestamps { commands: 2 }), "{error}");
    assert!(Failure::from(error).now.unwrap().contains("aof-timestamp-enabled yes"));

    // Another server's directory, as behind a tunnel.
    let (home, other) = (open_directory(), open_directory());
    let one = TestRedis::start(home.path(), DATED, None).await;
    let two = TestRedis::start(other.path(), DATED, None).await;
    two.run("SET a 1").await;
    let error = fails(&two.url, Some(home.path())).await;
    assert!(matches!(error, AofError::NotIts { .. }), "{error}");

    let manifest = home.path().join("appendonlydir/appendonly.aof.manifest");
    let text = std::fs::read_to_string(&manifest).unwrap();
    for (wrong, why) in [("file ../x seq 1 type b\n", "no plain file name"), ("", "it names no base")] {
        std::fs::write(&manifest, wrong).unwrap();
        let error = fails(&one.url, None).await;
        assert!(matches!(error, AofError::Manifest { .. }) && error.to_string().contains(why), "{error}");
    }
    std::fs::remove_file(&manifest).unwrap();
    let error = fails(&one.url, None).await;
    assert!(matches!(error, AofError::Io { .. }), "{error}");
    std::fs::write(&manifest, text).unwrap();
    let base =
        files(&home.path().join("appendonlydir")).into_iter().find(|path| path.ends_with("appendonly.aof.1.base.rdb"));
    let base = base.unwrap();
    let good = std::fs::read(&base).unwrap();
    let mut bad = good.clone();
    bad[20] ^= 1;
    std::fs::write(&base, bad).unwrap();
    let error = fails(&one.url, None).await;
    assert!(matches!(error, AofError::Base { .. }), "{error}");

    let nobody = Secret::new(format!("redis://192.0.2.1:{}", free_port()));
    let error = fails(&nobody, None).await;
    assert!(matches!(error, AofError::Unreachable(_)), "{error}");
    assert_eq!(redis::ranges(&bucket).await.unwrap(), (Vec::new(), Vec::new()));
    assert_eq!(bucket.list("").await.unwrap(), []);
}
