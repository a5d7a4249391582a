//! Loading, by proof: what the server holds is counted against bytes that were read without it.

use std::time::Duration;

use super::RestoreError;
use super::aof::{self, Laid};
use super::policy::Applied;
use super::server::{Keeping, Leash, Plan};
use crate::clock;
use crate::event::Unit;
use crate::mutant;
use crate::system::redis::connect::{Info, Redis};
use crate::system::redis::lane::{Lane, Report};
use crate::system::redis::rdb::Survey;

const LOOK: Duration = Duration::from_millis(50);

/// What the server has loaded.
pub struct Loaded {
    /// The RDB by its bytes and how many of its keys had expired before the load; absent when an append-only file was
    /// loaded, whose keys nobody but Redis has counted yet.
    pub survey: Option<(Survey, u64)>,
    pub bytes: u64,
    pub commands: u64,
    pub cut_commands: u64,
}

/// What the server must hold, by the bytes of an RDB.
pub struct Expected {
    pub survey: Survey,
    /// Expired before it was loaded, at least.
    expired: u64,
    /// Taken out by the policy since.
    pub removed: u64,
}

impl Expected {
    /// Keys that expired before the load cannot be there; those that have expired by now may be gone.
    pub fn check(&self, when: &'static str, info: &Info) -> Result<u64, RestoreError> {
        let (_, by_now) = self.survey.expired_at(clock::wall_now().timestamp_millis());
        let least = self.survey.keys.saturating_sub(by_now + self.removed);
        let most = self.survey.keys.saturating_sub(self.expired + self.removed);
        let found = info.keys();
        match (least..=most).contains(&found) || mutant::removes("7b") {
            true => Ok(found),
            false => Err(RestoreError::Count { when, found, least, most }),
        }
    }
}

impl Loaded {
    /// Writes a new append-only file of all that the server holds, and says what a restart must bring back.
    pub async fn durable(
        &self,
        plan: &Plan,
        leash: &Leash,
        redis: &Redis,
        policy: &[Applied],
        report: Report<'_>,
    ) -> Result<Expected, RestoreError> {
        let removed = |applied: &&Applied| matches!(applied.policy.as_str(), "flush" | "rebuild");
        let removed = policy.iter().filter(removed).map(|applied| applied.keys).sum();
        if let Some((survey, expired)) = &self.survey {
            let command = redis::cmd("CONFIG").arg("SET").arg("appendonly").arg("yes").to_owned();
            redis.query::<String>("CONFIG SET appendonly yes", &command).await?;
            rewritten(plan, leash, redis, report).await?;
            return Ok(Expected { survey: survey.clone(), expired: *expired, removed });
        }
        redis.query::<String>("BGREWRITEAOF", &redis::cmd("BGREWRITEAOF")).await?;
        rewritten(plan, leash, redis, report).await?;
        // The new base, counted from its own bytes, against what the server says that it holds.
        let data = plan.data();
        let survey = tokio::task::spawn_blocking(move || aof::base_of(&data)).await;
        let survey = survey.map_err(|error| RestoreError::Aof { why: error.to_string() })??;
        let expected = Expected { survey, expired: 0, removed: 0 };
        expected.check("after its append-only file was loaded and written anew", &plan.info(leash, redis).await?)?;
        Ok(expected)
    }
}

/// Starts the server on the RDB with AOF off, and proves the number of keys.
pub async fn load(plan: &Plan, survey: Survey, report: Report<'_>) -> Result<(Leash, Redis, Loaded), RestoreError> {
    let (expired, _) = survey.expired_at(clock::wall_now().timestamp_millis());
    let expected = Expected { survey, expired, removed: 0 };
    let (leash, redis) = plan.start(Keeping::Nothing).await?;
    let info = loaded_info(plan, &leash, &redis, report).await?;
    expected.check("after loading", &info)?;
    let survey = expected.survey;
    // Redis' own account of the load, since 7.0.
    let (loaded, dropped) = (info.number("rdb_last_load_keys_loaded"), info.number("rdb_last_load_keys_expired"));
    if let (Some(loaded), Some(dropped)) = (loaded, dropped) {
        let found = loaded + dropped;
        let whole = found <= survey.keys && found + survey.with_field_expiry >= survey.keys;
        if !whole && !mutant::removes("7b") {
            let (least, most) = (survey.keys - survey.with_field_expiry, survey.keys);
            return Err(RestoreError::Count { when: "by its own account of the load", found, least, most });
        }
    }
    let bytes = survey.bytes;
    Ok((leash, redis, Loaded { survey: Some((survey, expired)), bytes, commands: 0, cut_commands: 0 }))
}

/// Starts the server on the append-only file as it was laid, and proves that it has read these files and no others.
pub async fn load_aof(plan: &Plan, laid: Laid, report: Report<'_>) -> Result<(Leash, Redis, Loaded), RestoreError> {
    let (leash, redis) = plan.start(Keeping::AsLaid).await?;
    let info = loaded_info(plan, &leash, &redis, report).await?;
    let why = |why: String| Err(RestoreError::Aof { why: format!("{why}; {}", plan.log_tail()) });
    // Keys that expire now are written behind what was loaded: it may have grown, never shrunk. A server that found no
    // manifest begins from nothing and says so by a size of nothing.
    let read = info.number("aof_current_size").unwrap_or(0);
    if read < laid.bytes {
        return why(format!("the server has read {read} bytes of {}", laid.bytes));
    }
    // Expired keys of a base are loaded too: commands behind it may count on them.
    let keys = info.number("rdb_last_load_keys_loaded");
    if let Some(found) = keys.filter(|keys| *keys != laid.base.keys) {
        let most = laid.base.keys;
        return Err(RestoreError::Count { when: "of the base by its own account", found, least: most, most });
    }
    if info.text("aof_last_write_status") != "ok" {
        return why(format!("aof_last_write_status is {}", info.text("aof_last_write_status")));
    }
    let Laid { bytes, commands, cut_commands, .. } = laid;
    Ok((leash, redis, Loaded { survey: None, bytes, commands, cut_commands }))
}

pub async fn loaded_info(plan: &Plan, leash: &Leash, redis: &Redis, report: Report<'_>) -> Result<Info, RestoreError> {
    let mut lane = Lane::new(report, "load", Unit::Bytes, None);
    let mut done = 0;
    loop {
        let info = plan.info(leash, redis).await?;
        if !info.flag("loading") {
            lane.end(done);
            return Ok(info);
        }
        if let Some(total) = info.number("loading_total_bytes") {
            lane.total(total);
            done = info.number("loading_loaded_bytes").unwrap_or(0);
            lane.at(done);
            done = total;
        }
        clock::sleep(LOOK).await;
    }
}

/// Waits for the end of a rewrite.
async fn rewritten(plan: &Plan, leash: &Leash, redis: &Redis, report: Report<'_>) -> Result<(), RestoreError> {
    let mut lane = Lane::new(report, "aof", Unit::Keys, None);
    loop {
        let info = plan.info(leash, redis).await?;
        let under_way = info.flag("aof_rewrite_in_progress") || info.flag("aof_rewrite_scheduled");
        if !under_way {
            let status = info.text("aof_last_bgrewrite_status");
            if status == "ok" && info.flag("aof_enabled") {
                lane.end(info.keys());
                return Ok(());
            }
            let why = format!("aof_last_bgrewrite_status is {status}; {}", plan.log_tail());
            return Err(RestoreError::Aof { why });
        }
        lane.total(info.number("current_save_keys_total").unwrap_or_else(|| info.keys()));
        lane.at(info.number("current_save_keys_processed").unwrap_or(0));
        clock::sleep(LOOK).await;
    }
}
