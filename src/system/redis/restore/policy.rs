//! What becomes of keys by their prefix, on the server that was restored and on no other.

use redis::Value;
use serde::{Deserialize, Serialize};

use super::RestoreError;
use super::server::{Leash, Plan};
use crate::event::Unit;
use crate::system::redis::connect::Redis;
use crate::system::redis::lane::{Lane, Report};

/// Keys asked for at once; Redis treats it as a hint.
const PAGE: u32 = 1_000;

/// What goes before the name of a key in quarantine.
pub const QUARANTINE: &str = "quarantine:";

/// Renames the keys it is given; one that has expired since is left out. Returns those renamed, and the first whose new
/// name is taken. RENAME keeps the expiry.
const SET_APART: &str = "local moved = 0 \
    for _, key in ipairs(KEYS) do \
      if redis.call('EXISTS', key) == 1 then \
        if redis.call('RENAMENX', key, ARGV[1] .. key) == 0 then return {moved, key} end \
        moved = moved + 1 \
      end \
    end \
    return {moved}";

/// What is declared for keys that begin with a prefix. What nothing is declared for is restored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    pub prefix: String,
    pub policy: Policy,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Policy {
    /// They stay.
    Restore,
    /// They go: nobody misses them, or they would be wrong.
    Flush,
    /// They go, and this is how they are made anew.
    Rebuild { how: String },
    /// They stay under `quarantine:`, out of the application's way, until a person has looked.
    Quarantine,
}

impl Policy {
    pub fn word(&self) -> &'static str {
        match self {
            Self::Restore => "restore",
            Self::Flush => "flush",
            Self::Rebuild { .. } => "rebuild",
            Self::Quarantine => "quarantine",
        }
    }
}

/// What was done by one rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Applied {
    pub prefix: String,
    /// `restore`, `flush`, `rebuild` or `quarantine`.
    pub policy: String,
    /// Keys kept, removed or renamed.
    pub keys: u64,
    /// How they are made anew.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub how: Option<String>,
}

/// The rule with the longest prefix; `None` where nothing is declared.
fn rule_of(rules: &[Rule], key: &[u8]) -> Option<usize> {
    let fits = rules.iter().enumerate().filter(|(_, rule)| key.starts_with(rule.prefix.as_bytes()));
    fits.max_by_key(|(_, rule)| rule.prefix.len()).map(|(index, _)| index)
}

/// Applies the rules to every database of the server that `leash` holds, looks through all keys again, and refuses to go
/// on when one is left that must not be.
pub async fn apply(
    plan: &Plan,
    leash: &Leash,
    rules: &[Rule],
    report: Report<'_>,
) -> Result<Vec<Applied>, RestoreError> {
    if rules.is_empty() {
        return Ok(Vec::new());
    }
    let redis = Redis::connect(&plan.door).await?;
    let info = redis.info().await?;
    // Never another server: ours is the process that we have just started, with the configuration that we wrote.
    if info.number("process_id") != Some(leash.pid().into())
        || std::path::Path::new(info.text("config_file")) != plan.config_file()
    {
        let why = format!("{} is not the server that was restored; no key was touched", redis.address());
        return Err(RestoreError::Policy { why });
    }
    let mut done = vec![0; rules.len()];
    let mut lane = Lane::new(report, "policy", Unit::Keys, Some(info.keys()));
    let mut seen = 0;
    for db in info.keyspace().into_keys() {
        let redis = Redis::connect_to(&plan.door, db).await?;
        let mut cursor = 0;
        loop {
            let (next, page) = page(&redis, cursor).await?;
            seen += page.len() as u64;
            treat(&redis, rules, page, &mut done).await?;
            lane.at(seen);
            if next == 0 {
                break;
            }
            cursor = next;
        }
    }
    lane.end(seen);
    let left = left(plan, rules, &mut done).await?;
    if let Some((rule, keys)) = rules.iter().zip(left).find(|(_, keys)| *keys > 0) {
        let why = format!("{keys} keys of `{}` are still there after {}", rule.prefix, rule.policy.word());
        return Err(RestoreError::Policy { why });
    }
    let applied = |(rule, keys): (&Rule, u64)| Applied {
        prefix: rule.prefix.clone(),
        policy: rule.policy.word().to_owned(),
        keys,
        how: match &rule.policy {
            Policy::Rebuild { how } => Some(how.clone()),
            _ => None,
        },
    };
    Ok(rules.iter().zip(done).map(applied).collect())
}

async fn page(redis: &Redis, cursor: u64) -> Result<(u64, Vec<Vec<u8>>), RestoreError> {
    let command = redis::cmd("SCAN").arg(cursor).arg("COUNT").arg(PAGE).to_owned();
    Ok(redis.query("SCAN", &command).await?)
}

/// Removes and renames the keys of one page.
async fn treat(redis: &Redis, rules: &[Rule], page: Vec<Vec<u8>>, done: &mut [u64]) -> Result<(), RestoreError> {
    let mut by_rule: Vec<Vec<Vec<u8>>> = vec![Vec::new(); rules.len()];
    for key in page.into_iter().filter(|key| !key.starts_with(QUARANTINE.as_bytes())) {
        if let Some(index) = rule_of(rules, &key) {
            by_rule[index].push(key);
        }
    }
    for (index, keys) in by_rule.into_iter().enumerate().filter(|(_, keys)| !keys.is_empty()) {
        match &rules[index].policy {
            Policy::Restore => {}
            Policy::Flush | Policy::Rebuild { .. } => {
                done[index] += redis.query::<u64>("UNLINK", redis::cmd("UNLINK").arg(&keys)).await?;
            }
            Policy::Quarantine => {
                let mut command = redis::cmd("EVAL");
                command.arg(SET_APART).arg(keys.len()).arg(&keys).arg(QUARANTINE);
                let answer: Vec<Value> = redis.query("EVAL", &command).await?;
                match &answer[..] {
                    [Value::Int(moved)] => done[index] += u64::try_from(*moved).unwrap_or(0),
                    _ => {
                        let why = format!("a key of `{}` is in quarantine already", rules[index].prefix);
                        return Err(RestoreError::Policy { why });
                    }
                }
            }
        }
    }
    Ok(())
}

/// Looks again: keys that are there and must not be, a rule; what stays is counted.
async fn left(plan: &Plan, rules: &[Rule], done: &mut [u64]) -> Result<Vec<u64>, RestoreError> {
    let mut left = vec![0; rules.len()];
    for db in Redis::connect(&plan.door).await?.info().await?.keyspace().into_keys() {
        let redis = Redis::connect_to(&plan.door, db).await?;
        let mut cursor = 0;
        loop {
            let (next, page) = page(&redis, cursor).await?;
            for key in page.iter().filter(|key| !key.starts_with(QUARANTINE.as_bytes())) {
                match rule_of(rules, key) {
                    Some(index) if rules[index].policy == Policy::Restore => done[index] += 1,
                    Some(index) => left[index] += 1,
                    None => {}
                }
            }
            if next == 0 {
                break;
            }
            cursor = next;
        }
    }
    Ok(left)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_prefix_decides() {
        let rule = |prefix: &str, policy| Rule { prefix: prefix.to_owned(), policy };
        let rules =
            [rule("session:", Policy::Flush), rule("session:admin:", Policy::Quarantine), rule("s", Policy::Restore)];
        let found = |key: &str| rule_of(&rules, key.as_bytes());
        assert_eq!(found("session:1"), Some(0));
        assert_eq!(found("session:admin:1"), Some(1));
        assert_eq!(found("sess"), Some(2));
        assert_eq!(found("cart:1"), None);
    }
}
