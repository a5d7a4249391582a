//! `lifeboat.toml`: what a runbook is bound to. Secrets are references, never values.

mod bind;
mod build;
mod cadence;
mod model;
pub mod raw;
mod recipient;
mod secret_ref;
mod sink;
mod store_url;

use std::path::Path;
use std::sync::LazyLock;

pub use bind::{Unbound, bind};
pub use cadence::{BadCadence, Cadence};
pub use model::{
    Asked, BackupEngine, Backups, Connections, Fence, Inventory, KeyPolicy, Managed, ManagedBy, May, PostgresSystem,
    RedisSystem, Reload, Replica, RestoreTo, Schedule, SecretRef, Store, StoreKeys, System, SystemDetail,
};
pub use recipient::{BadRecipient, Encryption, Recipient};
pub use sink::{EmailSink, HttpSink, NotifySink, Severity, SinkKind, SmtpTls};
pub use store_url::{BadUrl, BucketUrl, Cloud, Endpoint, StoreUrl, is_loopback};

use crate::document::{self, Document, Problems};

/// Reads an inventory. `Err` holds every problem of the file. Relative paths count from the file's directory.
pub fn load(path: &Path) -> Result<Inventory, Problems> {
    let source = document::read(path)?;
    let base = path.parent().unwrap_or(Path::new(""));
    let mut inventory = parse(&source, &path.display().to_string(), base)?;
    inventory.path = Some(path.to_owned());
    Ok(inventory)
}

/// As [`load`], from text; `name` is what problems call the file, `base` where relative paths begin.
pub fn parse(source: &str, name: &str, base: &Path) -> Result<Inventory, Problems> {
    match lint(source, name, base) {
        (Some(inventory), _) => Ok(inventory),
        (None, problems) => Err(problems),
    }
}

/// Everything that can be said about a file: warnings too. The inventory is there when there are no errors.
pub fn lint(source: &str, name: &str, base: &Path) -> (Option<Inventory>, Problems) {
    match Document::open(source, name, schema()) {
        Ok(document) => build::build(document, source, base),
        Err(problems) => (None, problems),
    }
}

/// The JSON schema of an inventory, for editors.
pub fn schema() -> &'static serde_json::Value {
    static SCHEMA: LazyLock<serde_json::Value> =
        LazyLock::new(|| document::schema::of::<raw::File>("Lifeboat inventory"));
    &SCHEMA
}

#[cfg(test)]
mod tests;
