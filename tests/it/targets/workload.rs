//! Sessions that write side by side, and what each of their transactions did, by their own account.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicI64, Ordering};

use tokio_postgres::Client;

use crate::support::Numbers;
use crate::support::postgres::Primary;

pub const SCHEMA: &str = "
    create table ledger (n bigint primary key);
    create table accounts (id int primary key, balance bigint not null default 0);
    insert into accounts select generate_series(0, 15);
";

/// All rows of both tables, in one line.
pub const STATE: &str = "
    select (select coalesce(string_agg(n::text, ' ' order by n), '') from ledger) || ' / ' ||
           (select string_agg(balance::text, ' ' order by id) from accounts)";

/// What a transaction changes when it commits.
#[derive(Debug, Clone, Default)]
pub struct Effects {
    inserted: Vec<i64>,
    deleted: Vec<i64>,
    /// Account and amount.
    added: Vec<(usize, i64)>,
}

/// What the sessions wrote down.
#[derive(Debug, Default)]
pub struct Ledger {
    /// By the number of the transaction, whether it committed or not.
    pub effects: BTreeMap<u32, Effects>,
    /// Subtransactions that were kept, and the transactions they are part of.
    pub kept: Vec<(u32, u32)>,
    /// Transactions and subtransactions that were rolled back.
    pub undone: Vec<u32>,
}

impl Ledger {
    pub fn extend(&mut self, more: Self) {
        self.effects.extend(more.effects);
        self.kept.extend(more.kept);
        self.undone.extend(more.undone);
    }
}

/// The tables behind some of the transactions.
#[derive(Default)]
pub struct State {
    rows: BTreeSet<i64>,
    balances: [i64; 16],
}

impl State {
    pub fn apply(&mut self, effects: &Effects) {
        self.rows.extend(&effects.inserted);
        effects.deleted.iter().for_each(|n| assert!(self.rows.remove(n), "{n} was there"));
        effects.added.iter().for_each(|(account, amount)| self.balances[*account] += amount);
    }

    /// As [`STATE`] says it.
    pub fn text(&self) -> String {
        let list = |numbers: &mut dyn Iterator<Item = i64>| {
            numbers.map(|number| number.to_string()).collect::<Vec<_>>().join(" ")
        };
        format!("{} / {}", list(&mut self.rows.iter().copied()), list(&mut self.balances.iter().copied()))
    }
}

/// One session.
pub struct Session<'a> {
    pub primary: &'a Primary,
    pub name: String,
    pub numbers: Numbers,
    pub next: &'a AtomicI64,
    pub transactions: usize,
}

impl Session<'_> {
    pub async fn run(mut self) -> Ledger {
        let client = self.primary.client().await;
        let mut ledger = Ledger::default();
        let mut own = Vec::new();
        for number in 0..self.transactions {
            self.transaction(&client, &mut ledger, &mut own, number).await;
        }
        ledger
    }

    async fn transaction(&mut self, client: &Client, ledger: &mut Ledger, own: &mut Vec<i64>, number: usize) {
        let run = async |text: String| {
            client.batch_execute(&text).await.unwrap_or_else(|error| panic!("{text}: {error:?}"));
        };
        let mut effects = Effects::default();
        run("begin".to_owned()).await;
        let xid = number_of(client, "select pg_current_xact_id()::text").await;
        for _ in 0..=self.numbers.below(2) {
            effects.inserted.push(self.insert(client).await);
        }
        let (account, amount) = (self.numbers.below(16), self.numbers.below(1000) as i64);
        effects.added.push((account, amount));
        run(format!("update accounts set balance = balance + {amount} where id = {account}")).await;
        let gid = format!("{}-{number}", self.name);
        let committed = match self.numbers.below(16) {
            0 | 1 => {
                run("rollback".to_owned()).await;
                false
            }
            2 => {
                run("savepoint s".to_owned()).await;
                let row = self.insert(client).await;
                ledger.undone.push(number_of(client, &format!("select xmin::text from ledger where n = {row}")).await);
                run("rollback to s; commit".to_owned()).await;
                true
            }
            3 => {
                run("savepoint s".to_owned()).await;
                let row = self.insert(client).await;
                effects.inserted.push(row);
                ledger
                    .kept
                    .push((number_of(client, &format!("select xmin::text from ledger where n = {row}")).await, xid));
                run("release s; commit".to_owned()).await;
                true
            }
            4 => {
                run(format!("prepare transaction '{gid}'")).await;
                run(format!("commit prepared '{gid}'")).await;
                true
            }
            5 => {
                run(format!("prepare transaction '{gid}'")).await;
                run(format!("rollback prepared '{gid}'")).await;
                false
            }
            6 | 7 if !own.is_empty() => {
                let row = own.swap_remove(self.numbers.below(own.len()));
                effects.deleted.push(row);
                run(format!("delete from ledger where n = {row}; commit")).await;
                true
            }
            8 => {
                run("commit".to_owned()).await;
                run(format!("select pg_create_restore_point('{gid}')")).await;
                true
            }
            _ => {
                run("commit".to_owned()).await;
                true
            }
        };
        match committed {
            true => own.extend(&effects.inserted),
            false => ledger.undone.push(xid),
        }
        ledger.effects.insert(xid, effects);
    }

    async fn insert(&self, client: &Client) -> i64 {
        let row = self.next.fetch_add(1, Ordering::Relaxed);
        client.execute("insert into ledger values ($1)", &[&row]).await.expect("a row");
        row
    }
}

async fn number_of(client: &Client, query: &str) -> u32 {
    client.query_one(query, &[]).await.expect("an answer").get::<_, String>(0).parse().expect("a number")
}
