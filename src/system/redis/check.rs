//! Looks at a living server: how many keys, under which prefixes, and whether its persistence works.

use std::collections::BTreeMap;

use super::connect::{Info, Redis, RedisError};
use super::rdb;
use crate::event::{Check, Facts};
use crate::secret::Secret;

/// Keys asked for at once; Redis treats it as a hint.
const PAGE: u32 = 1_000;

/// What was found.
#[derive(Debug, Clone)]
pub struct Checked {
    pub address: String,
    /// Over all databases.
    pub keys: u64,
    pub by_prefix: BTreeMap<String, u64>,
    pub by_db: BTreeMap<u32, u64>,
    pub aof_enabled: bool,
    pub checks: Vec<Check>,
}

impl Checked {
    pub fn passed(&self) -> bool {
        self.checks.iter().all(|check| check.passed)
    }

    /// `keys`, `aof_enabled`, and `keys_<prefix>` for each prefix that was asked for or holds the most keys.
    pub fn facts(&self) -> Facts {
        let mut facts = Facts::new();
        facts.insert("address".to_owned(), self.address.as_str().into());
        facts.insert("keys".to_owned(), self.keys.into());
        facts.insert("aof_enabled".to_owned(), self.aof_enabled.into());
        let mut largest: Vec<_> = self.by_prefix.iter().collect();
        largest.sort_by(|a, b| b.1.cmp(a.1).then_with(|| a.0.cmp(b.0)));
        for (prefix, keys) in largest.into_iter().take(20) {
            facts.insert(format!("keys_{prefix}"), (*keys).into());
        }
        facts
    }
}

/// Counts keys by SCAN over every database (a key that moves while it is scanned may be counted twice or not at all), and
/// reads the state of persistence. `prefixes` are as the runbook gives them, up to the first `:` or with it.
pub async fn check(url: &Secret, min_keys: u64, prefixes: &[(String, u64)]) -> Result<Checked, RedisError> {
    let redis = Redis::connect(url).await?;
    let info = redis.info().await?;
    let mut by_prefix = BTreeMap::new();
    let mut by_db = BTreeMap::new();
    for db in info.keyspace().into_keys() {
        by_db.insert(db, scan(&Redis::connect_to(url, db).await?, &mut by_prefix).await?);
    }
    let keys = by_db.values().sum();
    let mut checks = vec![at_least("keys", keys, min_keys)];
    for (prefix, least) in prefixes {
        let found = by_prefix.get(prefix.trim_end_matches([':', '*'])).copied().unwrap_or(0);
        checks.push(at_least(&format!("keys {prefix}"), found, *least));
    }
    checks.extend(persistence(&info));
    let aof_enabled = info.flag("aof_enabled");
    Ok(Checked { address: redis.address().to_owned(), keys, by_prefix, by_db, aof_enabled, checks })
}

async fn scan(redis: &Redis, by_prefix: &mut BTreeMap<String, u64>) -> Result<u64, RedisError> {
    let (mut cursor, mut keys) = (0_u64, 0);
    loop {
        let command = redis::cmd("SCAN").arg(cursor).arg("COUNT").arg(PAGE).to_owned();
        let (next, page): (u64, Vec<Vec<u8>>) = redis.query("SCAN", &command).await?;
        keys += page.len() as u64;
        for key in &page {
            rdb::count_prefix(by_prefix, key);
        }
        if next == 0 {
            return Ok(keys);
        }
        cursor = next;
    }
}

fn at_least(name: &str, found: u64, least: u64) -> Check {
    let passed = found >= least;
    let detail = if passed { format!("{found}") } else { format!("{found}, expected at least {least}") };
    Check { name: name.to_owned(), passed, detail }
}

/// A save or rewrite that failed makes Redis refuse writes sooner or later.
fn persistence(info: &Info) -> Vec<Check> {
    let mut named = vec![("loaded", if info.flag("loading") { "still loading" } else { "ok" })];
    named.push(("last RDB save", info.text("rdb_last_bgsave_status")));
    if info.flag("aof_enabled") {
        named.push(("last AOF rewrite", info.text("aof_last_bgrewrite_status")));
        named.push(("last AOF write", info.text("aof_last_write_status")));
    }
    named
        .into_iter()
        .map(|(name, status)| Check { name: name.to_owned(), passed: status == "ok", detail: status.to_owned() })
        .collect()
}
