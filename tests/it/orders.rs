//! The sandbox's application and its ledger, against real servers.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use lifeboat::clock;
use lifeboat::sandbox::app::{self, Options};
use lifeboat::sandbox::ledger::{self, Comparison};
use lifeboat::secret::Secret;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::support::postgres::{Primary, pg, stop_hard, value};
use crate::support::redis::{TestRedis, free_port, open_directory};

const SCHEMA: &str = include_str!("../../src/sandbox/sql/schema.sql");
const REFERENCES: &str = include_str!("../../src/sandbox/sql/references.sql");

/// Both databases with the shop's schema and 40 customers, and the application in front of them.
struct Scene {
    primary: Primary,
    cache: TestRedis,
    port: u16,
    home: tempfile::TempDir,
    stop: CancellationToken,
    hangup: Arc<Notify>,
    served: Option<tokio::task::JoinHandle<Result<(), app::AppError>>>,
    _cache_home: crate::support::Home,
}

impl Scene {
    async fn new(rate: u32) -> Self {
        let cache_home = open_directory();
        let settings = ["track_commit_timestamp = on", "archive_mode = off"];
        let (primary, cache) =
            tokio::join!(Primary::start_with(&settings), TestRedis::start(cache_home.path(), &[], None));
        let customers = "insert into customers (name, email) select 'c' || i, i || '@x' from generate_series(1, 40) i;";
        primary.sql(&format!("create role orders_app; {SCHEMA} {customers} {REFERENCES}")).await;
        let home = tempfile::tempdir().unwrap();
        let (stop, hangup) = (CancellationToken::new(), Arc::new(Notify::new()));
        let mut scene =
            Self { primary, cache, port: free_port(), home, stop, hangup, served: None, _cache_home: cache_home };
        scene.connect_to(&scene.primary.url, &scene.cache.url);
        let options = Options {
            connections: scene.connections(),
            ledger: scene.ledger(),
            listen: ([127, 0, 0, 1], scene.port).into(),
            rate,
        };
        scene.served = Some(tokio::spawn(app::run(options, scene.stop.clone(), scene.hangup.clone())));
        let up = scene.until("/health", |status, _| status == 200).await;
        assert_eq!(up["writable"], true);
        scene
    }

    fn connections(&self) -> PathBuf {
        self.home.path().join("connections.json")
    }

    fn ledger(&self) -> PathBuf {
        self.home.path().join("ledger.jsonl")
    }

    fn connect_to(&self, database: &Secret, cache: &Secret) {
        let json = json!({ "database_url": database.expose(), "cache_url": cache.expose() });
        std::fs::write(self.connections(), json.to_string()).unwrap();
    }

    async fn ask(&self, method: &str, path: &str, body: &str) -> (u16, Value) {
        ask(self.port, method, path, body).await.unwrap()
    }

    async fn stats(&self) -> Value {
        self.ask("GET", "/stats", "").await.1
    }

    /// Asks until the answer is as wanted.
    async fn until(&self, path: &str, wanted: impl Fn(u16, &Value) -> bool) -> Value {
        let mut last = None;
        let asking = async {
            loop {
                if let Ok((status, answer)) = ask(self.port, "GET", path, "").await {
                    if wanted(status, &answer) {
                        return answer;
                    }
                    last = Some((status, answer));
                }
                clock::sleep(Duration::from_millis(10)).await;
            }
        };
        match tokio::time::timeout(Duration::from_secs(30), asking).await {
            Ok(answer) => answer,
            Err(_) => panic!("{path} did not become what was wanted: {last:?}"),
        }
    }

    async fn more_orders(&self, more: u64) {
        let goal = self.stats().await["acknowledged"].as_u64().unwrap() + more;
        self.until("/stats", |_, stats| stats["acknowledged"].as_u64().unwrap() >= goal).await;
    }

    async fn compare(&self, restored: &Secret) -> Comparison {
        ledger::compare(&self.ledger(), restored, None).await.unwrap()
    }

    async fn end(&mut self) {
        self.stop.cancel();
        self.served.take().unwrap().await.unwrap().unwrap();
    }
}

async fn ask(port: u16, method: &str, path: &str, body: &str) -> std::io::Result<(u16, Value)> {
    let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await?;
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(head.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    let bad = || std::io::Error::other(answer.clone());
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(bad)?;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).ok_or_else(bad)?;
    Ok((status, serde_json::from_str(body).unwrap_or_else(|_| body.into())))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_order_is_in_both_databases_and_in_the_ledger() {
    let mut scene = Scene::new(0).await;
    let order = json!({ "customer": 7, "item": "green | \"tea\"", "amount": 1250 }).to_string();
    let (status, placed) = scene.ask("POST", "/orders", &order).await;
    assert_eq!(status, 201, "{placed}");
    let id = placed["id"].as_i64().unwrap();
    let (status, found) = scene.ask("GET", &format!("/orders/{id}"), "").await;
    assert_eq!(
        (status, &found["customer"], &found["item"], &found["amount"]),
        (200, &json!(7), &placed["item"], &json!(1250))
    );
    let payments = format!("select amount_cents from payments where order_id = {id}");
    assert_eq!(scene.primary.value(&payments).await, "1250");
    let cart = scene.cache.run(&format!("GET cart:{id}")).await;
    assert!(format!("{cart:?}").contains("1250"), "{cart:?}");
    assert!(matches!(scene.cache.run("TTL session:7").await, ::redis::Value::Int(1..=1800)));
    let entries = ledger::read(&scene.ledger()).unwrap();
    let [entry] = &entries[..] else { panic!("{entries:?}") };
    let committed = format!("select (extract(epoch from pg_xact_commit_timestamp('{}')) * 1e6)::bigint", entry.xid);
    assert_eq!(scene.primary.value(&committed).await, entry.committed_at.timestamp_micros().to_string());
    assert!(entry.committed_at <= entry.acked_at);

    // What nobody acknowledged is in no ledger.
    let (status, refused) = scene.ask("POST", "/orders", r#"{"customer": 999, "item": "x", "amount": 1}"#).await;
    assert_eq!(status, 422, "{refused}");
    let (status, _) = scene.ask("POST", "/orders", r#"{"customer": 1}"#).await;
    assert_eq!(status, 422);
    assert_eq!(scene.ask("GET", "/orders/999999", "").await.0, 404);
    assert_eq!(ledger::read(&scene.ledger()).unwrap().len(), 1);
    assert_eq!(scene.stats().await["rejected"], 1);
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn traffic_outlives_a_dropped_table_a_fence_and_a_restart() {
    let mut scene = Scene::new(200).await;
    scene.more_orders(20).await;
    scene.primary.sql("drop table payments").await;
    scene.more_orders(20).await;

    scene.primary.sql("alter system set default_transaction_read_only = on").await;
    scene.primary.value("select pg_reload_conf()").await;
    let health = scene.until("/health", |status, _| status == 503).await;
    assert_eq!(health["writable"], false);
    let rejected = scene.until("/stats", |_, stats| stats["traffic"] == "paused").await;
    assert!(rejected["last_error"].as_str().unwrap().contains("read-only"), "{rejected}");
    let lines = ledger::read(&scene.ledger()).unwrap().len();
    scene.until("/stats", |_, stats| stats["rejected"].as_u64() > rejected["rejected"].as_u64()).await;
    assert_eq!(ledger::read(&scene.ledger()).unwrap().len(), lines, "nothing is acknowledged behind the fence");
    let dba = scene.primary.client().await;
    dba.batch_execute("set default_transaction_read_only = off").await.unwrap();
    dba.batch_execute("alter system reset default_transaction_read_only").await.unwrap();
    scene.primary.value("select pg_reload_conf()").await;
    scene.more_orders(20).await;

    scene.primary.down("immediate").await;
    scene.until("/health", |status, _| status == 503).await;
    assert_eq!(scene.ask("POST", "/orders", r#"{"customer": 1, "item": "x", "amount": 1}"#).await.0, 503);
    scene.primary.up().await;
    scene.more_orders(20).await;

    // Every acknowledged order is there; what is there beyond them is at most what was in doubt.
    let stats = scene.stats().await;
    scene.end().await;
    let entries = ledger::read(&scene.ledger()).unwrap();
    assert!(entries.is_sorted_by(|a, b| a.id < b.id && a.committed_at < b.committed_at), "commit order is id order");
    let rows: u64 = scene.primary.value("select count(*) from orders").await.parse().unwrap();
    let in_doubt = stats["in_doubt"].as_u64().unwrap();
    assert!((0..=in_doubt).contains(&(rows - entries.len() as u64)), "{rows} rows, {} lines", entries.len());
    assert!(in_doubt <= 2, "{stats}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reload_is_all_or_nothing() {
    let mut scene = Scene::new(100).await;
    let other_home = open_directory();
    let other = TestRedis::start(other_home.path(), &[], None).await;
    let nowhere = Secret::new(format!("redis://127.0.0.1:{}", free_port()));
    scene.connect_to(&scene.primary.url, &nowhere);
    let (status, answer) = scene.ask("POST", "/reload", "").await;
    assert_eq!(status, 503);
    assert!(answer["error"].as_str().unwrap().contains("nothing listens"), "{answer}");
    std::fs::write(scene.connections(), r#"{"database_url": "postgresql://a:hunter22@b/c", "cache_url": 5}"#).unwrap();
    let (status, answer) = scene.ask("POST", "/reload", "").await;
    assert!(status == 503 && !answer.to_string().contains("hunter22"), "{answer}");
    // The old connections were never given up.
    let health = scene.until("/health", |status, _| status == 200).await;
    assert_eq!(health["cache"], format!("127.0.0.1:{}", scene.cache.port));
    scene.more_orders(5).await;

    scene.connect_to(&scene.primary.url, &other.url);
    let (status, answer) = scene.ask("POST", "/reload", "").await;
    assert_eq!((status, &answer["cache"]), (200, &json!(format!("127.0.0.1:{}", other.port))));
    scene.more_orders(5).await;
    assert!(other.client().await.info().await.unwrap().keys() >= 5);
    scene.connect_to(&scene.primary.url, &scene.cache.url);
    scene.hangup.notify_one();
    scene.until("/health", |_, health| health["cache"] == format!("127.0.0.1:{}", scene.cache.port)).await;
    scene.end().await;
}

/// A physical copy that follows the primary, as a restored server does; on its own port.
struct Copy {
    url: Secret,
    data: PathBuf,
}

impl Copy {
    async fn of(primary: &Primary) -> Self {
        let (data, port) = (primary.path("copy"), free_port());
        let socket = primary.path("").display().to_string();
        let (socket, from) = (socket.trim_end_matches('/'), primary.port.to_string());
        let into = data.display().to_string();
        pg("pg_basebackup", &["-D", &into, "-h", socket, "-p", &from, "-U", "dba", "-R", "-c", "fast", "--no-sync"])
            .await;
        let mut conf = std::fs::OpenOptions::new().append(true).open(data.join("postgresql.conf")).unwrap();
        std::io::Write::write_all(&mut conf, format!("port = {port}\n").as_bytes()).unwrap();
        let log = primary.path("copy.log").display().to_string();
        pg("pg_ctl", &["start", "-w", "-t", "60", "-D", &into, "-l", &log]).await;
        Self { url: Secret::new(format!("postgresql://dba@/postgres?host={socket}&port={port}")), data }
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        stop_hard(&self.data);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_ledger_tells_what_a_recovered_server_has_lost() {
    let mut scene = Scene::new(200).await;
    scene.more_orders(20).await;
    let copy = Copy::of(&scene.primary).await;
    scene.more_orders(20).await;
    // Recovery stops somewhere in the traffic, and orders go on being acknowledged.
    value(&copy.url, "select pg_wal_replay_pause()").await;
    let paused = async {
        while value(&copy.url, "select pg_get_wal_replay_pause_state()").await != "paused" {
            clock::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), paused).await.expect("the replay pauses");
    scene.more_orders(30).await;
    let at_the_pause = scene.compare(&copy.url).await;
    assert!(at_the_pause.holds(), "{at_the_pause:#?}");
    assert!(at_the_pause.present >= 40 && at_the_pause.lost >= 29, "{at_the_pause:#?}");
    assert_eq!((at_the_pause.extra, at_the_pause.since), (0, 0));
    let (last, first) = (at_the_pause.last_recovered.unwrap(), at_the_pause.first_lost.unwrap());
    assert_eq!(first.id, last.id + 1);
    assert!(Some(last.committed_at) <= at_the_pause.until && at_the_pause.until < Some(first.committed_at));

    // The primary is lost; the copy takes over, and the application with it.
    scene.primary.down("immediate").await;
    value(&copy.url, "select pg_promote()").await;
    scene.connect_to(&copy.url, &scene.cache.url);
    assert_eq!(scene.ask("POST", "/reload", "").await.0, 200);
    scene.more_orders(10).await;
    scene.end().await;
    let after = scene.compare(&copy.url).await;
    assert!(after.holds() && after.since >= 10, "{after:#?}");
    assert!(after.present >= at_the_pause.present, "{after:#?}");

    // The oracle sees each kind of damage.
    let id = last.id;
    value(&copy.url, &format!("update orders set total_cents = total_cents + 1 where id = {id} returning id")).await;
    let changed = scene.compare(&copy.url).await;
    assert!(!changed.holds());
    assert_eq!((changed.mismatched, changed.mismatches[0].id), (1, id));
    value(&copy.url, &format!("update orders set total_cents = total_cents - 1 where id = {id} returning id")).await;
    value(&copy.url, &format!("update orders set status = 'shipped' where id = {id} returning id")).await;
    assert!(scene.compare(&copy.url).await.holds(), "the desk may change the status");
    value(&copy.url, "drop table payments; select 1").await;
    value(&copy.url, &format!("delete from orders where id = {id} returning id")).await;
    let deleted = scene.compare(&copy.url).await;
    assert_eq!((deleted.holds(), deleted.missing, deleted.lost), (false, 1, after.lost + 1));
    let early = ledger::compare(&scene.ledger(), &copy.url, Some(last.committed_at - Duration::from_micros(1))).await;
    assert!(early.unwrap().unexpected == after.present - at_the_pause.present, "later ones are there already");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lock_that_recovery_holds_is_said_and_not_waited_for() {
    let mut scene = Scene::new(0).await;
    let order = json!({ "customer": 7, "item": "tea", "amount": 1250 }).to_string();
    assert_eq!(scene.ask("POST", "/orders", &order).await.0, 201);
    let copy = Copy::of(&scene.primary).await;
    // A migration that is not done yet at the point where the recovery stops.
    let migration = scene.primary.client().await;
    migration.batch_execute("begin; lock table orders in access exclusive mode").await.unwrap();
    scene.primary.sql("create table after_it (n int)").await;
    let locked = async {
        let held = "select count(*) from pg_locks where mode = 'AccessExclusiveLock' and granted";
        while value(&copy.url, held).await == "0" {
            clock::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), locked).await.expect("the copy gets the lock");
    let compared =
        tokio::time::timeout(Duration::from_secs(60), ledger::compare(&scene.ledger(), &copy.url, None)).await;
    let failure = lifeboat::event::Failure::from(compared.expect("it does not wait for ever").unwrap_err());
    assert_eq!(failure.why, "orders is locked by a transaction that the recovery point cut off");
    assert!(failure.now.unwrap().contains("after the promotion"));
    drop(migration);
    scene.end().await;
}
