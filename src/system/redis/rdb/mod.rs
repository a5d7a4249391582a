//! Reads an RDB as far as a restore must know it: keys, expiry times, checksum. Values are walked over, not kept, so
//! memory does not grow with the data.
//!
//! Ours and not a crate's: `librdb` prints its debug lines to standard output, which is the operator's screen, and `rdb`
//! accepted a flipped bit. `redis-check-rdb` passes a file whose checksum is zeroed and does not tell expiry times.

mod crc;
mod source;
mod value;

use std::collections::BTreeMap;
use std::io::{self, Read};

use serde::{Deserialize, Serialize};

use source::Source;

/// The newest format this reader knows: Redis 8.8.
pub const NEWEST: u32 = 14;

/// Distinct prefixes that are counted apart; the rest is counted together as [`OTHER`].
const PREFIXES: usize = 1_000;
/// Bytes of a key that are looked at for its prefix.
const PREFIX_BYTES: usize = 64;

/// Keys without a `:`.
pub const NO_PREFIX: &str = "(none)";
/// Keys whose prefix was one too many.
pub const OTHER: &str = "(other)";

#[derive(Debug, thiserror::Error)]
pub enum RdbError {
    #[error("reading failed at byte {offset}: {source}")]
    Read { offset: u64, source: io::Error },
    #[error("it ends at byte {offset}, in the middle")]
    Cut { offset: u64 },
    #[error("it is no RDB: it begins with {0:?}")]
    NotRdb(String),
    #[error("its format, version {version}, is newer than this program knows ({NEWEST})")]
    TooNew { version: u32 },
    #[error("it is damaged at byte {offset}: {what}")]
    Damaged { offset: u64, what: String },
    #[error("at byte {offset} it holds {what}, which this program cannot read")]
    Unknown { offset: u64, what: String },
    #[error("its checksum is wrong: it says {stored:016x}, its bytes give {computed:016x}")]
    Checksum { stored: u64, computed: u64 },
}

/// What an RDB holds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Survey {
    pub rdb_version: u32,
    /// As the writer named itself; empty when it did not.
    pub redis_version: String,
    /// When the writer began, in seconds since 1970 by its own clock.
    pub created: Option<i64>,
    pub keys: u64,
    pub by_db: BTreeMap<u32, u64>,
    pub by_type: BTreeMap<String, u64>,
    /// Up to the first `:`.
    pub by_prefix: BTreeMap<String, u64>,
    pub with_expiry: u64,
    /// Hashes whose fields may expire one by one, and the hash with the last of them.
    pub with_field_expiry: u64,
    /// Libraries of functions.
    pub functions: u64,
    /// Bytes.
    pub bytes: u64,
    /// False when the writer ran with `rdbchecksum no`: then only our own digest proves the bytes.
    pub checksummed: bool,
    /// How many keys expire in which second since 1970.
    #[serde(skip)]
    pub(super) expiries: BTreeMap<i64, u64>,
}

impl Survey {
    /// How many keys have expired at `now_ms` (milliseconds since 1970): at least, and at most.
    pub fn expired_at(&self, now_ms: i64) -> (u64, u64) {
        let second = now_ms.div_euclid(1_000);
        let before = self.expiries.range(..second).map(|(_, keys)| keys).sum();
        (before, before + self.expiries.get(&second).copied().unwrap_or(0) + self.with_field_expiry)
    }
}

/// Reads to the end, the checksum included.
pub fn survey(reader: impl Read) -> Result<Survey, RdbError> {
    let mut source = Source::new(reader);
    let mut survey = Survey { rdb_version: version(&mut source)?, ..Survey::default() };
    let (mut db, mut expires) = (0, None);
    loop {
        let offset = source.offset();
        match source.byte()? {
            250 => aux(&mut source, &mut survey)?,
            254 => db = u32::try_from(source.length()?).unwrap_or(u32::MAX),
            251 => (0..2).try_for_each(|_| source.length().map(|_| ()))?,
            244 => (0..3).try_for_each(|_| source.length().map(|_| ()))?,
            253 => expires = Some(i64::from(i32::from_le_bytes(source.array()?)) * 1_000),
            252 => expires = Some(i64::from_le_bytes(source.array()?)),
            248 => source.length().map(|_| ())?,
            249 => source.skip(1)?,
            245 => {
                source.skip_string()?;
                survey.functions += 1;
            }
            247 => value::skip_module_aux(&mut source)?,
            255 => break,
            kind => {
                let key = source.string_head(PREFIX_BYTES)?;
                let name = value::skip(&mut source, kind, offset, &mut survey.with_field_expiry)?;
                survey.add(db, &key, name, expires.take());
            }
        }
    }
    end(&mut source, &mut survey)?;
    Ok(survey)
}

fn version<R: Read>(source: &mut Source<R>) -> Result<u32, RdbError> {
    let magic: [u8; 9] = source.array()?;
    let not_rdb = || RdbError::NotRdb(String::from_utf8_lossy(&magic).into_owned());
    let digits = magic.strip_prefix(b"REDIS").ok_or_else(not_rdb)?;
    let version = std::str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok()).ok_or_else(not_rdb)?;
    if version > NEWEST {
        return Err(RdbError::TooNew { version });
    }
    Ok(version)
}

fn aux<R: Read>(source: &mut Source<R>, survey: &mut Survey) -> Result<(), RdbError> {
    let name = source.string_head(64)?;
    let value = String::from_utf8_lossy(&source.string_head(64)?).into_owned();
    match &name[..] {
        b"redis-ver" => survey.redis_version = value,
        b"ctime" => survey.created = value.parse().ok(),
        _ => {}
    }
    Ok(())
}

fn end<R: Read>(source: &mut Source<R>, survey: &mut Survey) -> Result<(), RdbError> {
    // Before version 5 there was no checksum.
    if survey.rdb_version >= 5 {
        let computed = source.crc();
        let stored = u64::from_le_bytes(source.array()?);
        survey.checksummed = stored != 0;
        if survey.checksummed && stored != computed {
            return Err(RdbError::Checksum { stored, computed });
        }
    }
    survey.bytes = source.offset();
    match source.at_end()? {
        true => Ok(()),
        false => Err(RdbError::Damaged { offset: survey.bytes, what: "it goes on behind its end".to_owned() }),
    }
}

impl Survey {
    fn add(&mut self, db: u32, key: &[u8], kind: &'static str, expires: Option<i64>) {
        self.keys += 1;
        *self.by_db.entry(db).or_default() += 1;
        count(&mut self.by_type, kind);
        count_prefix(&mut self.by_prefix, key);
        if let Some(ms) = expires {
            self.with_expiry += 1;
            *self.expiries.entry(ms.div_euclid(1_000)).or_default() += 1;
        }
    }
}

fn count(counts: &mut BTreeMap<String, u64>, name: &str) {
    match counts.get_mut(name) {
        Some(n) => *n += 1,
        None => {
            counts.insert(name.to_owned(), 1);
        }
    }
}

/// Counts a key under its prefix; the number of prefixes is bounded.
pub fn count_prefix(counts: &mut BTreeMap<String, u64>, key: &[u8]) {
    let head = &key[..key.len().min(PREFIX_BYTES)];
    let prefix = head.iter().position(|b| *b == b':').map(|end| String::from_utf8_lossy(&head[..end]));
    let prefix = prefix.as_deref().unwrap_or(NO_PREFIX);
    if counts.len() >= PREFIXES && !counts.contains_key(prefix) {
        return count(counts, OTHER);
    }
    count(counts, prefix);
}

#[cfg(test)]
mod tests;
