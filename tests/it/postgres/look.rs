//! Queries and checks.

use std::time::Duration;

use lifeboat::event::RecoveryTarget;
use lifeboat::secret::Secret;
use lifeboat::system::postgres::{Answer, Checks, Query, Reporter, query};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::restore::{restore_of, run, shop};
use crate::support::postgres::{Primary, bin};

async fn ask(url: &Secret, sql: &str, params: &[&str]) -> Result<Answer, lifeboat::event::Failure> {
    let params: Vec<String> = params.iter().map(|param| (*param).to_owned()).collect();
    query(url, &Query { sql, params: &params, timeout: Duration::from_secs(20), read_only: true }).await
}

fn checks(url: &Secret, tables: &[(&str, u64)]) -> Checks {
    Checks {
        url: url.clone(),
        tables: tables.iter().map(|(name, least)| ((*name).to_owned(), *least)).collect(),
        suspects: None,
        checksums: true,
        amcheck: true,
        may_install: true,
        bin: Some(bin()),
        timeout: Duration::from_secs(60),
        cancel: CancellationToken::new(),
        report: Reporter::silent(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn values_come_back_as_they_are() {
    let primary = Primary::start().await;
    let answer = ask(
        &primary.url,
        "select $1::int + 1 as n, $2::timestamptz as t, 12.50::numeric as price, -0.00012::numeric as small,
                123456789012345678901234567890::numeric as huge, 10000::numeric as even, null::text as nothing,
                1.5::float8 as f, 'x'::name as name, '{\"a\":1}'::jsonb as j, '0/16B3740'::pg_lsn as l, 9007199254740993 as big,
                true as yes, '2026-11-21'::date as d from generate_series(1, 3)",
        &["41", "2026-11-21T10:02:31.5+01:00"],
    )
    .await
    .unwrap();
    assert_eq!(
        serde_json::Value::Object(answer.facts),
        json!({
            "n": 42, "t": "2026-11-21T09:02:31.500Z", "price": 12.5, "small": -0.00012,
            "huge": "123456789012345678901234567890", "even": 10000, "nothing": null, "f": 1.5, "name": "x", "j": {"a": 1},
            "l": "0/16B3740", "big": 9_007_199_254_740_993_i64, "yes": true, "d": "2026-11-21", "rows": 3
        })
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn row_08_a_parameter_is_never_sql_and_a_look_never_writes() {
    let primary = Primary::start().await;
    primary.sql("create table t (name text)").await;
    let payload = "'; drop table t; --";
    let answer =
        ask(&primary.url, "select $1::text as name, count(*) as n from t where name = $1", &[payload]).await.unwrap();
    assert_eq!(answer.facts["name"], payload);
    assert!(ask(&primary.url, "insert into t values ($1)", &["x"]).await.unwrap_err().why.contains("25006"));
    assert!(ask(&primary.url, "select 1; drop table t", &[]).await.is_err());
    assert!(ask(&primary.url, "select $1::int", &[]).await.unwrap_err().why.contains("1 parameters"));
    assert!(ask(&primary.url, "select $1::int", &["abc"]).await.unwrap_err().why.contains("22P02"));
    let slow = Query { sql: "select pg_sleep(30)", params: &[], timeout: Duration::from_millis(50), read_only: true };
    assert!(query(&primary.url, &slow).await.unwrap_err().what.contains("too long"));
    let params = ["kept".to_owned()];
    let write =
        Query { sql: "insert into t values ($1)", params: &params, timeout: Duration::from_secs(5), read_only: false };
    query(&primary.url, &write).await.unwrap();
    assert_eq!(primary.value("select name from t").await, "kept");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_damaged_or_missing_is_found() {
    let primary = Primary::start().await;
    primary.sql("create table t as select g as n, repeat('x', 100) as x from generate_series(1, 5000) g; create index on t (n); create table \"Odd Name\" (n int); checkpoint").await;
    let found = checks(&primary.url, &[("t", 5000), ("\"Odd Name\"", 0)]).run().await.unwrap();
    assert!(found.passed(), "{found:?}");
    assert_eq!(
        (&found.facts["rows"], &found.facts["corrupt"], &found.facts["rows_t"]),
        (&json!(5000), &json!(0), &json!(5000))
    );
    let found = checks(&primary.url, &[("t", 5001), ("gone", 0), ("t; drop table t", 0)]).run().await.unwrap();
    let failed: Vec<&str> =
        found.checks.iter().filter(|check| !check.passed).map(|check| check.name.as_str()).collect();
    assert_eq!(failed, ["t", "gone", "t; drop table t"]);

    // A flipped byte on the disk.
    let file = primary.value("select pg_relation_filepath('t')").await;
    primary.down("fast").await;
    let path = primary.data.join(file);
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[3 * 8192 + 4000] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    primary.up().await;
    let found = checks(&primary.url, &[("t", 5000)]).run().await.unwrap();
    assert!(!found.passed() && found.facts["corrupt"].as_u64().unwrap() > 0, "{found:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_suspects_tables_are_told_by_name_and_must_be_there() {
    let primary = Primary::start().await;
    primary
        .sql(
            "create table t as select generate_series(1, 3) as n; create schema s; create table s.\"Odd Name\" (n int);
             create table \"a.b\" (n int)",
        )
        .await;
    let file = "select d.dattablespace || '/' || d.oid || '/' || pg_relation_filenode('t')
                  from pg_database d where d.datname = current_database()";
    let file = primary.value(file).await;
    let suspects = ["s.Odd Name", &file, "a.b", "1663/5/99999", "gone"].map(str::to_owned).to_vec();
    let look = Checks { suspects: Some(suspects), checksums: false, amcheck: false, ..checks(&primary.url, &[]) };
    let found = look.run().await.unwrap();
    let seen: Vec<(&str, bool, &str)> =
        found.checks.iter().map(|check| (check.name.as_str(), check.passed, check.detail.as_str())).collect();
    let gone = "not there: it was made after this point, or the point is wrong";
    assert_eq!(
        seen,
        [("s.Odd Name", true, "0 rows"), ("t", true, "3 rows"), ("a.b", true, "0 rows"), ("gone", false, gone)]
    );
    assert_eq!(found.facts["suspects"], format!("s.Odd Name: 0 rows, t: 3 rows, a.b: 0 rows, gone: {gone}"));
    assert!(!found.passed());
    let look = Checks { suspects: Some(Vec::new()), checksums: false, amcheck: false, ..checks(&primary.url, &[]) };
    assert_eq!(look.run().await.unwrap().facts["suspects"], "none is known");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_server_is_looked_at_without_hanging() {
    let primary = shop().await;
    primary.sql("create table other as select 1 as n").await;
    let xid = primary.value("begin; select pg_current_xact_id()::text; drop table orders; commit").await;
    primary.archive().await;
    let target = RecoveryTarget::Xid { xid: xid.parse().unwrap() };
    let (_clone, result) = run(restore_of(&primary, target, false, "clone").await).await;
    let url = Secret::new(result.expect("the restore succeeds").url);
    assert_eq!(ask(&url, "select count(*) as n from other", &[]).await.unwrap().facts["n"], 1);
    let failure = ask(&url, "select count(*) from orders", &[]).await.unwrap_err();
    assert_eq!(failure.what, "orders cannot be read before the promotion");
    assert!(failure.why.contains("has locked orders") && failure.now.unwrap().contains("promotion"));
    let found = checks(&url, &[("other", 1), ("orders", 1)]).run().await.unwrap();
    assert!(found.checks[0].passed && !found.checks[1].passed, "{found:?}");
    assert!(found.checks[1].detail.contains("promotion"), "{found:?}");
    assert!(found.facts["amcheck"].as_str().unwrap().contains("after the promotion"));
    // What the damage itself has locked is there all the same.
    let suspects = Some(vec!["orders".to_owned()]);
    let look = Checks { suspects, checksums: false, amcheck: false, ..checks(&url, &[]) };
    let found = look.run().await.unwrap();
    assert!(found.passed() && found.checks[0].detail.starts_with("there; "), "{found:?}");
}
