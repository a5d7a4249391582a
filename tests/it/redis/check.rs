use lifeboat::event::Check;
use lifeboat::secret::Secret;
use lifeboat::system::redis::{self, CommandError, RedisError};

use super::snapshot::{FILLED, fill};
use crate::support::redis::{TestRedis, open_directory};

fn failed(checks: &[Check]) -> Vec<String> {
    checks.iter().filter(|check| !check.passed).map(|check| format!("{}: {}", check.name, check.detail)).collect()
}

#[tokio::test]
async fn keys_are_counted_over_all_databases_and_by_prefix() {
    let home = open_directory();
    let server = TestRedis::start(home.path(), &["--appendonly", "yes"], None).await;
    fill(&server).await;
    let prefixes = [("cart:".to_owned(), 300), ("session".to_owned(), 1), ("other:*".to_owned(), 6)];
    let checked = redis::check(&server.url, FILLED, &prefixes).await.unwrap();
    assert_eq!(failed(&checked.checks), [] as [&str; 0]);
    assert_eq!((checked.keys, checked.by_prefix["cart"], checked.aof_enabled), (FILLED, 300, true));
    assert_eq!(checked.facts()["keys_cart"], 300);
    let prefixes = [("cart:".to_owned(), 301), ("nothing".to_owned(), 1)];
    let checked = redis::check(&server.url, FILLED + 1, &prefixes).await.unwrap();
    assert!(!checked.passed());
    assert_eq!(
        failed(&checked.checks),
        [
            format!("keys: {FILLED}, expected at least {}", FILLED + 1),
            "keys cart:: 300, expected at least 301".to_owned(),
            "keys nothing: 0, expected at least 1".to_owned(),
        ]
    );
}

#[tokio::test]
async fn a_failed_save_is_seen() {
    let home = open_directory();
    let server = TestRedis::start(home.path(), &[], None).await;
    server.run("SET a b").await;
    std::fs::create_dir(home.path().join("dump.rdb")).unwrap();
    server.run("BGSAVE").await;
    let client = server.client().await;
    while client.info().await.unwrap().flag("rdb_bgsave_in_progress") {
        tokio::task::yield_now().await;
    }
    let checked = redis::check(&server.url, 1, &[]).await.unwrap();
    assert_eq!(failed(&checked.checks), ["last RDB save: err"]);
}

#[tokio::test]
async fn a_command_answers_in_json_and_what_destroys_is_not_sent() {
    let home = open_directory();
    let server = TestRedis::start(home.path(), &[], None).await;
    let argv = |words: &str| words.split(' ').map(str::to_owned).collect::<Vec<_>>();
    let send = async |words: &str, allow| redis::command(&server.url, &argv(words), allow).await;
    assert_eq!(send("SET cart:1 tea", false).await.unwrap()["reply"], "OK");
    assert_eq!(send("MGET cart:1 cart:2", false).await.unwrap()["reply"], serde_json::json!(["tea", null]));
    assert!(matches!(send("FLUSHALL", false).await, Err(CommandError::Destructive(_))));
    assert_eq!(send("DBSIZE", false).await.unwrap()["reply"], 1);
    assert_eq!(send("FLUSHALL", true).await.unwrap()["reply"], "OK");
    assert_eq!(send("DBSIZE", false).await.unwrap()["reply"], 0);
    let error = send("GET", false).await.unwrap_err();
    assert!(
        matches!(&error, CommandError::Redis(RedisError::Command { operation, .. }) if operation == "GET"),
        "{error}"
    );
}

#[tokio::test]
async fn row_17_redis_a_certificate_that_nobody_vouches_for_is_refused() {
    let home = open_directory();
    let (key, certificate) = (home.path().join("key.pem"), home.path().join("cert.pem"));
    let made = std::process::Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"])
        .args(["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"])
        .args(["-keyout".as_ref(), key.as_os_str(), "-out".as_ref(), certificate.as_os_str()])
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let account = lifeboat::process::Account::unprivileged().unwrap();
    if let Some(account) = account {
        account.give(&key).unwrap();
    }
    let port = crate::support::redis::free_port().to_string();
    let (key, certificate) = (key.display().to_string(), certificate.display().to_string());
    let arguments = ["--tls-port", &port, "--tls-cert-file", &certificate, "--tls-key-file", &key];
    let arguments = [&arguments[..], &["--tls-ca-cert-file", &certificate, "--tls-auth-clients", "no"]].concat();
    let _server = TestRedis::start(home.path(), &arguments, None).await;
    let url = Secret::new(format!("rediss://localhost:{port}"));
    let error = redis::Redis::connect(&url).await.err().expect("it must be refused").to_string();
    assert!(error.contains("certificate") || error.contains("UnknownIssuer"), "{error}");
    let insecure = Secret::new(format!("rediss://localhost:{port}/#insecure"));
    assert!(redis::Redis::connect(&insecure).await.is_err(), "no spelling turns verification off");
}
