use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Mutex;

use lifeboat::clock;
use lifeboat::digest::Digest;
use lifeboat::event::Progress;
use lifeboat::process::Spec;
use lifeboat::secret::Secret;
use lifeboat::store::Bucket;
use lifeboat::system::redis::{self, Redis, RedisError, Snapshot, SnapshotError, Taken, rdb};
use tokio_util::sync::CancellationToken;

use crate::support::redis::{TestRedis, open_directory, run};

pub fn bucket_in(directory: &Path) -> Bucket {
    Bucket::open(&format!("file://{}", directory.display()), "orders-cache").unwrap()
}

pub async fn take(source: &Secret, bucket: &Bucket) -> Result<Taken, SnapshotError> {
    let scratch = tempfile::tempdir().unwrap();
    let cancel = CancellationToken::new();
    Snapshot { url: source, bucket, label: None, scratch: scratch.path(), cancel: &cancel }.run(&|_| ()).await
}

/// Every type that Redis 7.0 has, in three databases, in the small and the large encodings, some with an expiry.
pub async fn fill(server: &TestRedis) {
    let redis = server.client().await;
    let script = r#"
        for n = 1, 300 do
            redis.call('SET', 'cart:' .. n, string.rep('item ' .. n .. ' ', n))
            redis.call('SET', 'session:' .. n, n, 'PX', 3600000 + n * 7)
        end
        for n = 1, 600 do
            redis.call('RPUSH', 'list:large', string.rep(n, 50))
            redis.call('SADD', 'set:large', 'member ' .. n)
            redis.call('SADD', 'set:numbers', n)
            redis.call('ZADD', 'board:large', n * 1.5, 'player ' .. n)
            redis.call('HSET', 'hash:large', 'field ' .. n, string.rep('v', n))
        end
        redis.call('RPUSH', 'list:small', 'a', 'b', 3)
        redis.call('SADD', 'set:small', 'a')
        redis.call('ZADD', 'board:small', 1, 'a')
        redis.call('HSET', 'hash:small', 'f', 'v')
        redis.call('SET', 'plain', string.rep('\0\255', 5000))
        redis.call('SET', string.rep('long-key-', 400) .. ':x', 1)
        redis.call('PFADD', 'visitors', 'a', 'b')
        for n = 1, 200 do redis.call('XADD', 'events:1', n .. '-1', 'kind', 'paid', 'n', n) end
        redis.call('XGROUP', 'CREATE', 'events:1', 'workers', '0')
        redis.call('XREADGROUP', 'GROUP', 'workers', 'w1', 'COUNT', 5, 'STREAMS', 'events:1', '>')
        redis.call('XACK', 'events:1', 'workers', '1-1')
        return redis.call('DBSIZE')"#;
    let _: u64 = redis.query("the filling", ::redis::cmd("EVAL").arg(script).arg(0)).await.unwrap();
    let code = "#!lua name=shop\nredis.register_function('total', function() return 7 end)";
    let _: String = redis.query("the function", ::redis::cmd("FUNCTION").arg("LOAD").arg(code)).await.unwrap();
    for (db, keys) in [(3, 4), (9, 2)] {
        let other = Redis::connect_to(&server.url, db).await.unwrap();
        for n in 0..keys {
            run(&other, &format!("SET other:{n} x")).await;
        }
    }
}

/// 300 carts, 300 sessions, 9 small or large collections, and 4 more in database 0; 6 in others.
pub const FILLED: u64 = 300 + 300 + 9 + 4 + 6;

/// `keys read`, `expires`, as stock `redis-check-rdb` counts them.
async fn oracle(file: &Path) -> (u64, u64) {
    let checked = Spec::new("redis-check-rdb").arg(file).capture(1 << 20, &CancellationToken::new()).await.unwrap();
    let text = checked.stdout_text();
    assert!(checked.end.success(), "{text}");
    let number = |what: &str| {
        let line = text.lines().find(|line| line.ends_with(what)).unwrap_or_else(|| panic!("{what} in {text}"));
        line.split_whitespace().rev().nth(what.split(' ').count()).unwrap().parse().unwrap()
    };
    (number("keys read"), number("expires"))
}

#[tokio::test]
async fn a_snapshot_counts_what_redis_counts_and_is_listed() {
    let (home, store) = (open_directory(), tempfile::tempdir().unwrap());
    let server = TestRedis::start(home.path(), &[], None).await;
    fill(&server).await;
    let bucket = bucket_in(store.path());
    let before = clock::wall_now();
    let lanes = Mutex::new(BTreeMap::new());
    let note = |progress: Progress| {
        lanes.lock().unwrap().insert(progress.lane.clone(), progress);
    };
    let (scratch, cancel) = (tempfile::tempdir().unwrap(), CancellationToken::new());
    let request = Snapshot { url: &server.url, bucket: &bucket, label: None, scratch: scratch.path(), cancel: &cancel };
    let taken = request.run(&note).await.unwrap();
    let survey = &taken.manifest.rdb;
    assert_eq!((survey.keys, survey.with_expiry), oracle(&home.path().join("dump.rdb")).await);
    assert_eq!((survey.keys, survey.with_expiry, survey.functions), (FILLED, 300, 1));
    assert_eq!(survey.by_db, BTreeMap::from([(0, FILLED - 6), (3, 4), (9, 2)]));
    let count = |map: &BTreeMap<String, u64>, name: &str| map.get(name).copied().unwrap_or(0);
    assert_eq!(["cart", "session", "set", rdb::NO_PREFIX].map(|p| count(&survey.by_prefix, p)), [300, 300, 3, 3]);
    assert_eq!(["list", "set", "zset", "hash", "stream"].map(|t| count(&survey.by_type, t)), [2, 3, 2, 2, 1]);
    assert_eq!((survey.rdb_version, survey.redis_version.as_str()), (10, "7.0.15"));
    assert_eq!(taken.manifest.source.method, "bgsave");
    assert!(taken.snapshot.at >= before && taken.snapshot.at <= clock::wall_now(), "{}", taken.snapshot.at);
    let raw = std::fs::read(home.path().join("dump.rdb")).unwrap();
    assert_eq!((taken.manifest.raw_bytes, taken.manifest.raw_digest), (raw.len() as u64, Digest::of(&raw)));
    let stored = bucket.read_verified(&taken.manifest.object, taken.manifest.stored_digest).await.unwrap();
    assert_eq!(zstd::decode_all(&stored[..]).unwrap(), raw);
    let upload = lanes.lock().unwrap()["upload"].clone();
    assert_eq!((upload.done, upload.total), (raw.len() as u64, Some(raw.len() as u64)));
    let (listed, warnings) = redis::list(&bucket).await.unwrap();
    assert_eq!((listed, warnings), (vec![taken.snapshot.clone()], Vec::new()));
    let next = take(&server.url, &bucket).await.unwrap();
    assert_eq!(redis::list(&bucket).await.unwrap().0, [taken.snapshot, next.snapshot]);
}

#[tokio::test]
async fn a_file_that_cannot_be_had_is_streamed_instead() {
    let (home, store) = (open_directory(), tempfile::tempdir().unwrap());
    // A password, and CONFIG out of reach: as a managed server is.
    let arguments = ["--requirepass", "hunter22", "--rename-command", "CONFIG", "", "--repl-diskless-sync-delay", "0"];
    let server = TestRedis::start(home.path(), &arguments, Some("hunter22")).await;
    fill(&server).await;
    let bucket = bucket_in(store.path());
    let taken = take(&server.url, &bucket).await.unwrap();
    assert_eq!(taken.manifest.source.method, "replication");
    assert_eq!(taken.manifest.rdb.keys, FILLED);
    assert!(!serde_json::to_string(&taken.manifest).unwrap().contains("hunter22"));
}

#[tokio::test]
async fn a_save_under_way_is_waited_for_and_ours_comes_after_it() {
    let (home, store) = (open_directory(), tempfile::tempdir().unwrap());
    let server = TestRedis::start(home.path(), &["--rdb-key-save-delay", "20000"], None).await;
    for n in 0..20 {
        run(&server.client().await, &format!("SET early:{n} x")).await;
    }
    server.run("BGSAVE").await;
    server.run("SET late x").await;
    let taken = take(&server.url, &bucket_in(store.path())).await.unwrap();
    assert_eq!(taken.snapshot.keys, 21, "the save under way did not hold the last key");
}

#[tokio::test]
async fn a_save_that_fails_is_named_and_nothing_is_listed() {
    let (home, store) = (open_directory(), tempfile::tempdir().unwrap());
    let server = TestRedis::start(home.path(), &["--dbfilename", "dump.rdb"], None).await;
    server.run("SET a b").await;
    // The rename of the finished file onto a directory fails, even for root.
    std::fs::create_dir(home.path().join("dump.rdb")).unwrap();
    let bucket = bucket_in(store.path());
    let error = take(&server.url, &bucket).await.unwrap_err();
    assert!(matches!(error, SnapshotError::Save { .. }), "{error}");
    assert_eq!(redis::list(&bucket).await.unwrap().0, []);
}

#[tokio::test]
async fn refused_denied_and_unencrypted_are_told_apart() {
    let home = open_directory();
    let server = TestRedis::start(home.path(), &["--requirepass", "hunter22"], Some("hunter22")).await;
    let connect = async |url: String| Redis::connect(&Secret::new(url)).await.err().expect("it must fail");
    let port = server.port;
    let wrong = connect(format!("redis://:wrong-one@127.0.0.1:{port}")).await;
    assert!(matches!(wrong, RedisError::Denied { .. }), "{wrong}");
    assert!(!wrong.to_string().contains("wrong-one"), "{wrong}");
    let closed = connect(format!("redis://127.0.0.1:{}", crate::support::redis::free_port())).await;
    assert!(matches!(closed, RedisError::Refused { .. }), "{closed}");
    let socket = connect("unix:///nowhere/redis.sock".to_owned()).await;
    assert!(matches!(socket, RedisError::Refused { .. }), "{socket}");
    let without = Redis::connect(&Secret::new(format!("redis://127.0.0.1:{port}"))).await.unwrap().ping().await;
    assert!(matches!(without, Err(RedisError::Denied { .. })), "{without:?}");
}
