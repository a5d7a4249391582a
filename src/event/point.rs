//! Recovery points: what was found in the buckets, and what the operator chose. Plain data; the room `recovery` computes
//! with it.

use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, SecondsFormat, Utc};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::history::{History, Resolved};
use super::u64_text;

/// A position in PostgreSQL's WAL, written `0/4A2F11C8`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Lsn(pub u64);

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xFFFF_FFFF)
    }
}

#[derive(Debug, thiserror::Error)]
pub enum ParseTargetError {
    #[error("`{0}` is not an LSN; one looks like 0/4A2F11C8")]
    Lsn(String),
    #[error("`{0}` has no offset; write the zone, like 2026-11-21T10:02:31+01:00, or Z for UTC")]
    NoOffset(String),
    #[error("`{0}` is not a time; one looks like 2026-11-21T10:02:31+01:00")]
    Time(String),
    #[error("`{0}` is not a transaction id")]
    Xid(String),
    #[error("`{0}` is no recovery target: say latest, time:…, lsn:…, xid:… or name:…")]
    Unknown(String),
}

impl FromStr for Lsn {
    type Err = ParseTargetError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = || ParseTargetError::Lsn(text.to_owned());
        let (high, low) = text.split_once('/').ok_or_else(bad)?;
        let part = |digits: &str| match digits.len() {
            1..=8 if digits.bytes().all(|b| b.is_ascii_hexdigit()) => {
                u64::from_str_radix(digits, 16).map_err(|_| bad())
            }
            _ => Err(bad()),
        };
        Ok(Self(part(high)? << 32 | part(low)?))
    }
}

impl Serialize for Lsn {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Lsn {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// Where recovery ends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "by", rename_all = "kebab-case", deny_unknown_fields)]
pub enum RecoveryTarget {
    Latest,
    Time { time: DateTime<Utc> },
    Lsn { lsn: Lsn },
    Xid { xid: u64 },
    RestorePoint { name: String },
}

impl fmt::Display for RecoveryTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Latest => f.write_str("latest"),
            Self::Time { time } => write!(f, "time:{}", time.to_rfc3339_opts(SecondsFormat::Micros, true)),
            Self::Lsn { lsn } => write!(f, "lsn:{lsn}"),
            Self::Xid { xid } => write!(f, "xid:{xid}"),
            Self::RestorePoint { name } => write!(f, "name:{name}"),
        }
    }
}

impl FromStr for RecoveryTarget {
    type Err = ParseTargetError;

    /// Reads `latest`, `time:…`, `lsn:…`, `xid:…`, `name:…`, a bare time with an offset, or a bare LSN.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim();
        match text.split_once(':') {
            _ if text == "latest" => Ok(Self::Latest),
            Some(("lsn", lsn)) => Ok(Self::Lsn { lsn: lsn.parse()? }),
            Some(("xid", xid)) => {
                xid.parse().map(|xid| Self::Xid { xid }).map_err(|_| ParseTargetError::Xid(xid.to_owned()))
            }
            Some(("name", name)) if !name.is_empty() => Ok(Self::RestorePoint { name: name.to_owned() }),
            Some(("time", time)) => parse_time(time).map(|time| Self::Time { time }),
            None if text.contains('/') => Ok(Self::Lsn { lsn: text.parse()? }),
            _ if text.starts_with(|c: char| c.is_ascii_digit()) && text.contains('-') => {
                parse_time(text).map(|time| Self::Time { time })
            }
            _ => Err(ParseTargetError::Unknown(text.to_owned())),
        }
    }
}

/// A moment with a mandatory offset: RFC 3339, or PostgreSQL's spelling with a space and a short offset.
pub fn parse_time(text: &str) -> Result<DateTime<Utc>, ParseTargetError> {
    let text = text.trim();
    for format in ["%Y-%m-%dT%H:%M:%S%.f%#z", "%Y-%m-%d %H:%M:%S%.f%#z", "%Y-%m-%d %H:%M:%S%.f %#z"] {
        if let Ok(time) = DateTime::parse_from_str(text, format) {
            return Ok(time.to_utc());
        }
    }
    if let Ok(time) = DateTime::parse_from_rfc3339(text) {
        return Ok(time.to_utc());
    }
    for format in ["%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%dT%H:%M", "%Y-%m-%d %H:%M"] {
        if let Ok(naive) = chrono::NaiveDateTime::parse_from_str(text, format) {
            if crate::mutant::removes("3") {
                return Ok(naive.and_utc());
            }
            return Err(ParseTargetError::NoOffset(text.to_owned()));
        }
    }
    Err(ParseTargetError::Time(text.to_owned()))
}

/// How a fact is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Basis {
    /// Lifeboat looked at the bytes.
    Observed,
    /// Another program said so: the store that lists an object, the server that wrote a file.
    Reported,
    #[default]
    Assumed,
}

impl fmt::Display for Basis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Observed => "observed",
            Self::Reported => "reported",
            Self::Assumed => "assumed",
        })
    }
}

/// A PostgreSQL base backup as found in the store.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BaseBackup {
    pub label: String,
    /// A u64 beyond 2^53: kept as text in JSON.
    #[serde(with = "u64_text")]
    pub system_identifier: u64,
    pub timeline: u32,
    pub start_lsn: Lsn,
    /// A target must lie behind it.
    pub stop_lsn: Lsn,
    pub started: DateTime<Utc>,
    pub stopped: DateTime<Utc>,
    /// The backup since which it holds what changed; absent where it holds all, or where another program sees to that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<String>,
    /// Bytes unpacked.
    pub bytes: u64,
    /// Bytes in the store.
    pub stored_bytes: u64,
    pub server_version: String,
    pub basis: Basis,
}

/// A run of WAL without a hole on one timeline.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Coverage {
    pub timeline: u32,
    pub from: Lsn,
    /// Exclusive.
    pub to: Lsn,
    pub first_segment: String,
    pub last_segment: String,
    pub segments: u64,
    /// Bytes in the store.
    pub stored_bytes: u64,
    /// When the first and the last segment were archived.
    pub from_time: Option<DateTime<Utc>>,
    pub to_time: Option<DateTime<Utc>>,
    /// Reported by the store's listing, until all of it was read.
    #[serde(default)]
    pub basis: Basis,
}

/// WAL that is not there, between WAL that is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Gap {
    pub timeline: u32,
    pub first_missing: String,
    pub last_missing: String,
    pub segments: u64,
    #[serde(default)]
    pub basis: Basis,
}

/// A timeline's beginning: it left `parent` at `at`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fork {
    pub timeline: u32,
    pub parent: u32,
    pub at: Lsn,
    /// Reported by the archive's history files, until the WAL itself was read to say so.
    #[serde(default)]
    pub basis: Basis,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RestorePoint {
    pub name: String,
    pub at: DateTime<Utc>,
    pub lsn: Lsn,
    #[serde(default)]
    pub basis: Basis,
}

/// A Redis snapshot as found in the store.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RedisSnapshot {
    pub label: String,
    /// The moment whose state it holds: when the child that wrote it was forked.
    pub at: DateTime<Utc>,
    pub keys: u64,
    /// Bytes of the RDB.
    pub bytes: u64,
    pub stored_bytes: u64,
    pub rdb_version: u32,
    pub redis_version: String,
    pub basis: Basis,
}

/// A stretch of Redis' history: an append-only file as found in the store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AofRange {
    pub label: String,
    /// The first moment that it can be cut to, a whole second. Observed: its base's time and its `#TS:` annotations.
    pub from: DateTime<Utc>,
    /// The second of its newest annotation. Observed.
    pub to: DateTime<Utc>,
    /// Nothing acknowledged before this moment is missing: reported by the server while it was shipped. Absent when the
    /// server was down.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<DateTime<Utc>>,
    /// Behind the base.
    pub commands: u64,
    /// Keys of the base.
    pub base_keys: u64,
    pub bytes: u64,
    pub stored_bytes: u64,
    pub redis_version: String,
    /// Of `from` and `to`.
    pub basis: Basis,
}

impl AofRange {
    /// The newest moment that it tells of.
    pub fn end(&self) -> DateTime<Utc> {
        self.until.map_or(self.to, |until| until.max(self.to))
    }
}

/// What can be recovered of one system.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum SystemWindow {
    Postgres {
        system: String,
        backups: Vec<BaseBackup>,
        coverage: Vec<Coverage>,
        gaps: Vec<Gap>,
        restore_points: Vec<RestorePoint>,
        /// Bytes of one WAL segment.
        segment_bytes: u64,
        /// Where timelines fork, by the archive's history files.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        forks: Vec<Fork>,
        /// The cluster whose WAL the archive holds; a u64 as text.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        system_identifier: Option<String>,
        /// What its WAL says of transactions; absent where it was not read.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        history: Option<Box<History>>,
        /// Things that a person should know: unreadable manifests, foreign files.
        warnings: Vec<String>,
    },
    Redis {
        system: String,
        snapshots: Vec<RedisSnapshot>,
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        aof: Vec<AofRange>,
        warnings: Vec<String>,
    },
    /// A PostgreSQL that a cloud runs. Everything is as the cloud reports it; what is absent it does not say.
    Managed {
        system: String,
        /// `orders of Amazon RDS`.
        source: String,
        earliest: Option<DateTime<Utc>>,
        latest: Option<DateTime<Utc>>,
        warnings: Vec<String>,
    },
}

impl SystemWindow {
    pub fn system(&self) -> &str {
        match self {
            Self::Postgres { system, .. } | Self::Redis { system, .. } | Self::Managed { system, .. } => system,
        }
    }

    /// Things that a person should know.
    pub fn warnings(&self) -> &[String] {
        match self {
            Self::Postgres { warnings, .. } | Self::Redis { warnings, .. } | Self::Managed { warnings, .. } => warnings,
        }
    }

    /// [`SystemWindow::warnings`], to change.
    pub fn warnings_mut(&mut self) -> &mut Vec<String> {
        match self {
            Self::Postgres { warnings, .. } | Self::Redis { warnings, .. } | Self::Managed { warnings, .. } => warnings,
        }
    }
}

/// What can be recovered, over all systems, as it was at `looked`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Window {
    pub looked: DateTime<Utc>,
    pub systems: Vec<SystemWindow>,
    /// The reported moment of the damage, when known.
    pub incident: Option<DateTime<Utc>>,
}

/// What was chosen: the target, and the files that lead there.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecoveryPoint {
    pub target: RecoveryTarget,
    /// Stop after the target's commit, or just before it.
    pub inclusive: bool,
    /// The base backup by system.
    pub backups: std::collections::BTreeMap<String, String>,
    /// The Redis snapshot by system.
    pub snapshots: std::collections::BTreeMap<String, String>,
    /// Where the append-only file leads nearer to the target than any snapshot.
    #[serde(default, skip_serializing_if = "std::collections::BTreeMap::is_empty")]
    pub aof: std::collections::BTreeMap<String, AofPoint>,
    /// Numeric; `latest` is never given to PostgreSQL.
    pub timeline: u32,
    /// By system: where exactly the target lies in the WAL; absent where the WAL was not read.
    #[serde(default, skip_serializing_if = "std::collections::BTreeMap::is_empty")]
    pub resolved: std::collections::BTreeMap<String, Resolved>,
}

/// An append-only file and where it is cut.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AofPoint {
    /// Of the range.
    pub label: String,
    /// Every write before this moment is there.
    pub at: DateTime<Utc>,
    /// It is cut there, so that no later write is there. Otherwise it is loaded to its end.
    pub cut: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_lsn_reads_what_it_writes() {
        for text in ["0/0", "0/4A2F11C8", "16/B374D848", "FFFFFFFF/FFFFFFFF"] {
            assert_eq!(text.parse::<Lsn>().unwrap().to_string(), text);
        }
        for bad in ["", "0", "/", "0/", "0/123456789", "+1/2", "g/1"] {
            assert!(bad.parse::<Lsn>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_time_needs_an_offset() {
        let utc = "2026-11-21T09:02:31.5Z".parse::<DateTime<Utc>>().unwrap();
        for good in [
            "2026-11-21T10:02:31.5+01:00",
            "2026-11-21 10:02:31.5+01",
            "2026-11-21 10:02:31.5 +0100",
            "2026-11-21T09:02:31.500Z",
            "time:2026-11-21T09:02:31.5Z",
        ] {
            assert_eq!(good.parse::<RecoveryTarget>().unwrap(), RecoveryTarget::Time { time: utc }, "{good}");
        }
        let bare = "2026-11-21 10:02:31".parse::<RecoveryTarget>();
        assert!(matches!(bare, Err(ParseTargetError::NoOffset(_))), "{bare:?}");
    }

    #[test]
    fn a_target_reads_what_it_writes() {
        for text in ["latest", "lsn:0/4A2F11C8", "xid:8841", "name:before migration 42"] {
            assert_eq!(text.parse::<RecoveryTarget>().unwrap().to_string(), text);
        }
    }
}
