//! Keys of one prefix out of a server into a file of commands, which `redis-cli --pipe` sends into another one.

use std::collections::HashSet;
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use super::connect::{Redis, RedisError};
use super::lane::{Lane, Report};
use crate::clock;
use crate::event::{Failure, Unit};
use crate::secret::Secret;

/// Keys asked for at once; Redis treats it as a hint.
const PAGE: u32 = 500;

/// What PTTL says of a key that is not there.
const GONE: i64 = -2;

/// What was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exported {
    pub keys: u64,
    /// Of the file.
    pub bytes: u64,
    /// Those among the keys that expire; the file has the moment, not how long it is until then.
    pub expiring: u64,
}

#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    #[error(transparent)]
    Redis(#[from] RedisError),
    #[error("{} is there already", .0.display())]
    Exists(PathBuf),
    #[error("writing {} failed: {source}", path.display())]
    Io { path: PathBuf, source: std::io::Error },
    #[error("no key of {address} begins with `{prefix}`")]
    Nothing { address: String, prefix: String },
}

impl From<ExportError> for Failure {
    fn from(error: ExportError) -> Self {
        match error {
            ExportError::Redis(error) => error.into(),
            ExportError::Exists(_) => Self::new("the keys were not written", error).now("Name another file."),
            ExportError::Io { .. } => {
                Self::new("the keys were not written", error).now("Name a file in a directory that can be written.")
            }
            ExportError::Nothing { .. } => Self::new("the keys were not written", error)
                .now("Look at the prefix, and at the point: they may have been gone by then."),
        }
    }
}

/// Writes each key under `prefix`, of every database, as RESTORE with its value as DUMP gives it and the moment at which it
/// expires. The commands replace nothing: where a key is there already, Redis refuses that one (BUSYKEY). The file appears
/// whole or not at all, and never over another.
pub async fn export(url: &Secret, prefix: &str, to: &Path, report: Report<'_>) -> Result<Exported, ExportError> {
    let io = |source| ExportError::Io { path: to.to_owned(), source };
    if to.exists() {
        return Err(ExportError::Exists(to.to_owned()));
    }
    let folder = to.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let file = NamedTempFile::new_in(folder).map_err(io)?;
    let redis = Redis::connect(url).await?;
    let exported = Exported { keys: 0, bytes: 0, expiring: 0 };
    let lane = Lane::new(report, "keys", Unit::Keys, None);
    let mut writer = Writer { out: BufWriter::new(file), exported, lane };
    for db in redis.info().await?.keyspace().into_keys() {
        writer.database(&Redis::connect_to(url, db).await?, db, prefix).await.map_err(|error| match error {
            Stop::Redis(error) => error.into(),
            Stop::Io(error) => io(error),
        })?;
    }
    let Writer { out, exported, mut lane } = writer;
    let file = out.into_inner().map_err(|error| io(error.into_error()))?;
    lane.end(exported.keys);
    if exported.keys == 0 {
        return Err(ExportError::Nothing { address: redis.address().to_owned(), prefix: prefix.to_owned() });
    }
    file.as_file().sync_all().map_err(io)?;
    file.persist_noclobber(to).map_err(|error| match error.error.kind() {
        std::io::ErrorKind::AlreadyExists => ExportError::Exists(to.to_owned()),
        _ => io(error.error),
    })?;
    std::fs::File::open(folder).and_then(|folder| folder.sync_all()).map_err(io)?;
    Ok(exported)
}

enum Stop {
    Redis(RedisError),
    Io(std::io::Error),
}

impl From<RedisError> for Stop {
    fn from(error: RedisError) -> Self {
        Self::Redis(error)
    }
}

impl From<std::io::Error> for Stop {
    fn from(error: std::io::Error) -> Self {
        Self::Io(error)
    }
}

struct Writer<'a> {
    out: BufWriter<NamedTempFile>,
    exported: Exported,
    lane: Lane<'a>,
}

impl Writer<'_> {
    async fn database(&mut self, redis: &Redis, db: u32, prefix: &str) -> Result<(), Stop> {
        let pattern = glob(prefix);
        // A rehash shows a key twice, and the second RESTORE of it would be refused.
        let mut seen = HashSet::new();
        let (mut cursor, mut selected) = (0_u64, false);
        loop {
            let scan = redis::cmd("SCAN").arg(cursor).arg("MATCH").arg(&pattern).arg("COUNT").arg(PAGE).to_owned();
            let (next, mut keys): (u64, Vec<Vec<u8>>) = redis.query("SCAN", &scan).await?;
            keys.retain(|key| seen.insert(key.clone()));
            let mut asked = redis::pipe();
            for key in &keys {
                asked.cmd("DUMP").arg(key).cmd("PTTL").arg(key);
            }
            let answers: Vec<(Option<Vec<u8>>, i64)> = match keys.is_empty() {
                true => Vec::new(),
                false => redis.pipeline("DUMP", &asked).await?,
            };
            let now = clock::wall_now().timestamp_millis();
            for (key, (value, left)) in keys.iter().zip(answers) {
                // It has expired meanwhile, or between the two questions: without its end it would stay for good.
                let Some(value) = value.filter(|_| left != GONE) else { continue };
                if !selected {
                    selected = true;
                    self.put(redis::cmd("SELECT").arg(db))?;
                }
                let expires = if left < 0 { 0 } else { now + left };
                self.put(redis::cmd("RESTORE").arg(key).arg(expires).arg(value).arg("ABSTTL"))?;
                self.exported.keys += 1;
                self.exported.expiring += u64::from(left >= 0);
            }
            self.lane.at(self.exported.keys);
            if next == 0 {
                return Ok(());
            }
            cursor = next;
        }
    }

    fn put(&mut self, command: &redis::Cmd) -> Result<(), std::io::Error> {
        let bytes = command.get_packed_command();
        self.exported.bytes += bytes.len() as u64;
        self.out.write_all(&bytes)
    }
}

/// A pattern of SCAN that just these keys match.
fn glob(prefix: &str) -> Vec<u8> {
    let mut pattern = Vec::new();
    for byte in prefix.bytes() {
        if b"*?[]\\^-".contains(&byte) {
            pattern.push(b'\\');
        }
        pattern.push(byte);
    }
    pattern.push(b'*');
    pattern
}
