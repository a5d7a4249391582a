//! Which server this is.

use std::collections::BTreeMap;

use super::connect::{Redis, RedisError};
use crate::event::Identity;
use crate::secret::Secret;

/// Who answers at this URL.
pub async fn identify(url: &Secret) -> Identity {
    match facts(url).await {
        Ok(facts) => Identity::Server { facts },
        Err(error @ RedisError::Refused { .. }) => Identity::NoServer { why: error.to_string() },
        Err(error) => Identity::Unknown { why: error.to_string() },
    }
}

async fn facts(url: &Secret) -> Result<BTreeMap<String, String>, RedisError> {
    let redis = Redis::connect(url).await?;
    let info = redis.info().await?;
    // Some services rename or forbid CONFIG.
    let directory = redis.config("dir").await.ok().flatten();
    let facts = [
        ("address", redis.address().to_owned()),
        ("configuration", info.text("config_file").to_owned()),
        ("directory", directory.unwrap_or_else(|| "not told".to_owned())),
        ("port", info.text("tcp_port").to_owned()),
        ("role", info.text("role").to_owned()),
        // It is another after every start.
        (Identity::STARTED, format!("as run {}", info.text("run_id"))),
    ];
    Ok(facts.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
}
