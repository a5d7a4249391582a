use lifeboat::system::redis::{self, ExportError};

use super::restore::digest;
use super::snapshot::fill;
use crate::support::redis::{TestRedis, open_directory, pipe};

/// Everything of a server but one prefix, byte for byte by Redis' own digest of values and expiries.
#[tokio::test]
async fn what_redis_reads_back_is_what_was_there_under_the_prefix_and_nothing_else() {
    let (home, other_home) = (open_directory(), open_directory());
    let server = TestRedis::start(home.path(), &["--enable-debug-command", "yes"], None).await;
    fill(&server).await;
    server.run("SET cart[1]*? odd").await;
    server.run("SET cart:77 again").await;
    let file = home.path().join("keys.resp");
    let exported = redis::export(&server.url, "session:", &file, &|_| ()).await.unwrap();
    assert_eq!((exported.keys, exported.expiring), (300, 300));
    assert_eq!(exported.bytes, file.metadata().unwrap().len());

    // The other server gets all prefixes, and then is the same.
    let other = TestRedis::start(other_home.path(), &["--enable-debug-command", "yes"], None).await;
    assert_eq!(pipe(&other.url, &file), 0);
    for (number, prefix) in
        ["cart:", "cart[1]*?", "list:", "set:", "board:", "hash:", "plain", "long-key", "vis", "events:", "other:"]
            .iter()
            .enumerate()
    {
        let file = home.path().join(format!("{number}.resp"));
        let exported = redis::export(&server.url, prefix, &file, &|_| ()).await.unwrap();
        assert_eq!(exported.expiring, 0, "{prefix}");
        assert_eq!(pipe(&other.url, &file), 0, "{prefix}");
    }
    assert_eq!(digest(&other).await, digest(&server).await);

    // What is there already stays.
    other.run("SET cart:77 newer").await;
    other.run("DEL cart:78").await;
    assert_eq!(pipe(&other.url, &home.path().join("0.resp")), 299);
    assert_eq!(other.run("GET cart:77").await, ::redis::Value::BulkString(b"newer".to_vec()));
    assert_eq!(other.run("EXISTS cart:78").await, ::redis::Value::Int(1));
}

#[tokio::test]
async fn a_file_that_is_there_or_cannot_be_written_and_a_prefix_of_nothing_are_refused() {
    let home = open_directory();
    let server = TestRedis::start(home.path(), &[], None).await;
    server.run("SET cart:1 apples").await;
    let file = home.path().join("keys.resp");
    std::fs::write(&file, "precious").unwrap();
    let refused = redis::export(&server.url, "cart:", &file, &|_| ()).await.unwrap_err();
    assert!(matches!(refused, ExportError::Exists(_)), "{refused}");
    assert_eq!(std::fs::read(&file).unwrap(), b"precious");
    let nowhere = home.path().join("no/such/keys.resp");
    let refused = redis::export(&server.url, "cart:", &nowhere, &|_| ()).await.unwrap_err();
    assert!(matches!(refused, ExportError::Io { .. }), "{refused}");
    let nothing = home.path().join("nothing.resp");
    let refused = redis::export(&server.url, "basket:", &nothing, &|_| ()).await.unwrap_err();
    assert!(matches!(refused, ExportError::Nothing { .. }), "{refused}");
    assert!(!nothing.exists(), "an empty file would be taken for a success");
}
