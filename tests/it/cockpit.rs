//! What an operator needs at night: from "something dropped a table around ten" to the table, in a real terminal.

use std::path::{Path, PathBuf};

use lifeboat::secret::Secret;
use lifeboat::system::postgres::{Query, query};
use serde_json::Value;

use crate::support::pty::Terminal;
use crate::support::sandbox::Place;

/// A terminal, and the keys that were pressed in it.
struct Operator {
    terminal: Terminal,
    keys: usize,
}

impl Operator {
    fn sees(&self, text: &str) {
        self.terminal.wait_for(text);
    }

    fn presses(&mut self, keys: &str) {
        self.keys += keys.chars().count();
        self.terminal.keys(keys);
    }

    /// A question that has only just appeared takes no answer: it could be a key meant for the last one.
    fn presses_once_it_stands(&mut self, text: &str, keys: &str) {
        self.terminal.wait_until(text, |screen| screen.contains(text) && screen.contains("waiting for you 00:01"));
        self.presses(keys);
    }

    /// What destroys takes typing, not a key: the name itself is not counted, the keys around it are.
    fn types_the_name(&mut self, name: &str) {
        self.sees("DESTROYS");
        self.presses("\r");
        self.sees(&format!("Type {name} and press Enter"));
        self.terminal.keys(name);
        self.presses("\r");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_table_is_found_and_brought_back_in_fewer_than_fifteen_keys() {
    let place = Place::new("cockpit");
    let up = place.json(&["up", "--json"]);
    let incident = &up["incident"];
    let dropped = incident["payments_dropped_xid"].as_u64().expect("the transaction that dropped it");
    let mut command = place.command(&["drill"]);
    // The operator's zone is not the servers': a time of day means theirs.
    command.env("TZ", "Asia/Kolkata");
    let mut operator = Operator { terminal: Terminal::start(command, 80, 24), keys: 0 };
    operator.sees("declare: say what is broken");
    operator.presses("\r");
    operator.sees("What is broken?");
    operator.presses("something dropped a table\r");

    operator.keys = 0;
    operator.presses_once_it_stands("yes, it is so", "\r");
    operator.sees("When did the damage begin?");
    let damage = incident["payments_dropped_at"].as_str().expect("a moment");
    let damage = damage.parse::<chrono::DateTime<chrono::Utc>>().expect("with its offset");
    let around = damage.with_timezone(&chrono::FixedOffset::east_opt(5 * 3600 + 1800).expect("an offset"));
    let around = around.format("%H:%M").to_string();
    operator.presses(&around);
    operator.sees(&format!("{around}:00 +05:30"));
    operator.presses("\r");
    operator.types_the_name("orders-db");
    // Found: what it did, and by one key what it costs to go to just before it.
    operator.sees(&format!("xid {dropped}  drops payments"));
    operator.presses("b");
    operator.sees(&format!("recover to just before xid {dropped}, which drops payments"));
    let screen = operator.terminal.text();
    for told in
        ["possible ✓", "gives up ", " commits · ", " of WAL", "skew ", "keeps ", "fetch ", "replay ", "ready about "]
    {
        assert!(screen.contains(told), "{told}: {screen}");
    }
    operator.presses("\r");
    operator.sees("Recover to just before");
    operator.presses("\r");
    // Looked at before anything is promoted.
    operator.sees("it will take writes");
    operator.terminal.wait_until("the tables of the damage", |screen| {
        screen.contains("What the damage touched is there: payments: ") && screen.contains(" rows, orders: ")
    });
    operator.presses_once_it_stands("it will take writes", "\r");
    let keys = operator.keys;
    operator.sees("PASSED");
    operator.sees("Enter leave");
    operator.terminal.keys("q");
    assert_eq!(operator.terminal.end().code(), Some(0), "{}", operator.terminal.text());
    println!("{keys} keys after the declaration, and a name of 9 letters");
    assert!(keys < 15, "{keys} keys");

    // The table is back with every row, where the application works now: an order and its payment are one transaction.
    let [payments, orders] = restored(&place).await;
    assert!(payments > 100 && payments == orders, "{payments} payments of {orders} orders");
    let ledger = place.json(&["ledger", "--json"]);
    assert_eq!(ledger["holds"], true, "{ledger}");

    // The report's three numbers: what the point gives up before the damage, what never reached the archive, and what lies
    // behind the point.
    let report = glob(&place.0.join("home/.local/state/lifeboat/drills"), "report/report.json");
    let report: Value = serde_json::from_slice(&std::fs::read(report).expect("the report")).expect("it is JSON");
    let rpo = &report["rpo"].as_array().expect("systems").iter().find(|rpo| rpo["system"] == "orders-db").unwrap();
    let reference = rpo["selected_loss"]["incident"].as_str().expect("a moment");
    assert_eq!(reference.parse::<chrono::DateTime<chrono::Utc>>().expect("with its offset"), damage);
    assert_eq!(rpo["archive_exposure"]["seconds"], 0.0, "{rpo}");
    assert!(rpo["archive_exposure"]["detail"].as_str().is_some_and(|detail| detail.contains("unknown")), "{rpo}");
    assert!(rpo["collateral"]["commits"].as_u64().is_some_and(|commits| commits > 0), "{rpo}");
}

/// A file in the only directory of `parent`.
fn glob(parent: &Path, file: &str) -> PathBuf {
    let mut found = std::fs::read_dir(parent).expect("drills").map(|entry| entry.expect("a drill").path().join(file));
    let first = found.next().expect("a drill");
    assert_eq!(found.next(), None);
    first
}

/// Rows of payments and of orders.
async fn restored(place: &Place) -> [i64; 2] {
    let connections = std::fs::read(place.0.join("app/connections.json")).expect("the application's connections");
    let connections: Value = serde_json::from_slice(&connections).expect("they are JSON");
    let url = Secret::new(connections["database_url"].as_str().expect("a URL").to_owned());
    let sql = "select (select count(*) from payments) as payments, (select count(*) from orders) as orders,
                      pg_is_in_recovery() as paused";
    let look = Query { sql, params: &[], timeout: std::time::Duration::from_secs(30), read_only: true };
    let facts = query(&url, &look).await.expect("the restored server answers").facts;
    assert_eq!(facts["paused"], false);
    ["payments", "orders"].map(|name| facts[name].as_i64().expect("a count"))
}
