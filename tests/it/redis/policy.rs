//! What becomes of keys by their prefix.

use lifeboat::event::AofPoint;
use lifeboat::system::redis::{Origin, Policy, QUARANTINE, Redis, RestoreError, Rule};
use redis::Value;

use super::aof::{DATED, next_second, ship};
use super::restore::{Scene, keys};
use super::snapshot::take;
use crate::support::redis::{TestRedis, run};

fn rules() -> Vec<Rule> {
    let rule = |prefix: &str, policy| Rule { prefix: prefix.to_owned(), policy };
    vec![
        rule("session:", Policy::Flush),
        rule("session:admin:", Policy::Restore),
        rule("rate:", Policy::Rebuild { how: "run `warm-up`".to_owned() }),
        rule("stock:", Policy::Quarantine),
    ]
}

/// 2,000 sessions and 5 of administrators, 40 rates in two databases, 30 stocks of which 10 expire, 7 carts.
async fn stocked(server: &TestRedis) {
    let script = "for n = 1, 2000 do redis.call('SET', 'session:' .. n, n, 'EX', 3600) end \
        for n = 1, 5 do redis.call('SET', 'session:admin:' .. n, n) end \
        for n = 1, 20 do redis.call('SET', 'rate:' .. n, n) end \
        for n = 1, 20 do redis.call('HSET', 'stock:' .. n, 'left', n) end \
        for n = 21, 30 do redis.call('SET', 'stock:' .. n, n, 'EX', 5000) end \
        for n = 1, 7 do redis.call('SET', 'cart:' .. n, n) end \
        redis.call('SELECT', 3) for n = 1, 20 do redis.call('SET', 'rate:' .. n, n) end";
    let redis = server.client().await;
    let _: Value = redis.query("filling", ::redis::cmd("EVAL").arg(script).arg(0)).await.unwrap();
}

const LEFT: u64 = 5 + 30 + 7;

#[tokio::test]
async fn keys_go_stay_or_are_set_apart_as_declared() {
    let scene = Scene::new(DATED, None).await;
    let client = scene.source.client().await;
    next_second(&client).await;
    stocked(&scene.source).await;
    let before = keys(&scene.source.url).await;
    let taken = take(&scene.source.url, &scene.bucket).await.unwrap();
    let shipped = ship(&scene.source.url, None, &scene.bucket).await.unwrap();
    let whole = AofPoint { label: shipped.range.label.clone(), at: shipped.range.end(), cut: false };
    for (from, name) in [(Origin::Snapshot(&taken.snapshot.label), "rdb"), (Origin::Aof(&whole), "aof")] {
        let directory = scene.targets.join(name);
        let restored = scene.run_with(from, &rules(), &directory).await.unwrap();
        let found: Vec<(&str, &str, u64)> =
            restored.policy.iter().map(|one| (one.prefix.as_str(), one.policy.as_str(), one.keys)).collect();
        let wanted = [
            ("session:", "flush", 2_000),
            ("session:admin:", "restore", 5),
            ("rate:", "rebuild", 40),
            ("stock:", "quarantine", 30),
        ];
        assert_eq!(found, wanted, "{name}");
        assert_eq!(restored.policy[2].how.as_deref(), Some("run `warm-up`"));
        assert_eq!((restored.keys, keys(&restored.url).await), (LEFT, LEFT), "{name}");
        let server = Redis::connect(&restored.url).await.unwrap();
        // Under the new name with its value and its expiry, and not under the old one.
        let ttl: i64 = server.query("TTL", ::redis::cmd("TTL").arg(format!("{QUARANTINE}stock:25"))).await.unwrap();
        assert!((4_000..=5_000).contains(&ttl), "{ttl}");
        assert_eq!(run(&server, "TTL quarantine:stock:3").await, Value::Int(-1));
        assert_eq!(run(&server, "HGET quarantine:stock:3 left").await, Value::BulkString(b"3".to_vec()));
        assert_eq!(run(&server, "EXISTS stock:3 stock:25 rate:1 session:1").await, Value::Int(0));
        assert_eq!(run(&server, "EXISTS cart:1 session:admin:1").await, Value::Int(2));
        let facts = restored.facts();
        assert_eq!(facts["flush.session:"], 2_000);
        // A second run of the same effect finds all of that again.
        let again = scene.run_with(from, &rules(), &directory).await.unwrap();
        assert_eq!((again.already, again.policy), (true, restored.policy));
        scene.undo(&directory).await;
    }
    assert_eq!(keys(&scene.source.url).await, before, "the source is as it was");
}

#[tokio::test]
async fn a_key_that_is_in_quarantine_already_is_not_overwritten() {
    let scene = Scene::new(&[], None).await;
    let client = scene.source.client().await;
    run(&client, "SET quarantine:stock:1 old").await;
    run(&client, "SET stock:1 new").await;
    let taken = take(&scene.source.url, &scene.bucket).await.unwrap();
    let directory = scene.targets.join("cache");
    let error = scene.run_with(Origin::Snapshot(&taken.snapshot.label), &rules(), &directory).await.unwrap_err();
    assert!(matches!(&error, RestoreError::Policy { why } if why.contains("in quarantine already")), "{error}");
}
