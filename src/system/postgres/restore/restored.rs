//! What a restore leaves behind, and what is recorded of it.

use std::path::PathBuf;

use chrono::{DateTime, SecondsFormat, Utc};

use crate::event::{Facts, Lsn};

/// A server that stands at its target.
#[derive(Debug, Clone, PartialEq)]
pub struct Restored {
    /// By the socket, as a superuser, without a password.
    pub url: String,
    /// `127.0.0.1:port`, where the roles' own passwords count.
    pub address: String,
    pub port: u16,
    pub pid: u32,
    pub directory: PathBuf,
    /// The last replayed commit; the RPO is measured from it.
    pub recovered_to: Option<DateTime<Utc>>,
    pub lsn: Lsn,
    pub timeline: u32,
    pub fingerprint: String,
    /// Bytes of the base backup, unpacked.
    pub base_bytes: u64,
    /// Bytes of WAL replayed.
    pub wal_bytes: u64,
    pub base_seconds: f64,
    pub replay_seconds: f64,
    pub seconds: f64,
    /// Tables that nobody can read before the promotion: the transaction that the target cuts off had locked them.
    pub locked: Vec<String>,
    /// True when an earlier attempt had already come this far.
    pub found: bool,
}

impl Restored {
    /// As the outcome's facts.
    pub fn facts(&self) -> Facts {
        let mut facts = Facts::new();
        let mut put = |name: &str, value: serde_json::Value| facts.insert(name.to_owned(), value);
        put("url", self.url.clone().into());
        put("address", self.address.clone().into());
        put("port", self.port.into());
        put("pid", self.pid.into());
        put("directory", self.directory.display().to_string().into());
        put("recovered_to", self.recovered_to.map(|time| time.to_rfc3339_opts(SecondsFormat::Micros, true)).into());
        put("lsn", self.lsn.to_string().into());
        put("timeline", self.timeline.into());
        put("fingerprint", self.fingerprint.clone().into());
        put("base_bytes", self.base_bytes.into());
        put("wal_bytes", self.wal_bytes.into());
        put("base_seconds", self.base_seconds.into());
        put("replay_seconds", self.replay_seconds.into());
        put("seconds", self.seconds.into());
        put("locked", self.locked.clone().into());
        facts
    }
}
