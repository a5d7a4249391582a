//! What a server would lose if its machine went down now and came back with its disk, by its own settings; and what to set
//! so that it loses no more than it may. What is shipped to a store is another matter: the whole machine may be gone.

use std::time::Duration;

use super::connect::{Info, Redis, RedisError};
use crate::event::Check;
use crate::secret::Secret;

/// While the disk is slow, Redis writes after two seconds what it has acknowledged, at `everysec`.
const EVERYSEC: Duration = Duration::from_secs(2);
/// Linux writes a dirty page back after so long, at `appendfsync no`.
const NO_FSYNC: Duration = Duration::from_secs(30);

/// The server's own settings and state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    pub address: String,
    /// Seconds and changes.
    pub save: Vec<(u64, u64)>,
    pub appendonly: bool,
    pub appendfsync: String,
    /// Percent; 0 never rewrites.
    pub rewrite_percentage: u64,
    /// Absent before Redis 7.
    pub timestamps: Option<bool>,
    pub last_save: String,
    pub last_rewrite: String,
    pub last_write: String,
    /// Microseconds of the last fork: for so long it answered nobody.
    pub fork_us: Option<u64>,
    /// Bytes that the last save copied while the server went on.
    pub copied: Option<u64>,
}

/// What is wrong with it, and what mends it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Advice {
    pub checks: Vec<Check>,
    /// `CONFIG SET …`, one a line, in the order in which they help.
    pub changes: Vec<String>,
    /// What is lost at worst; `None` when nothing bounds it.
    pub worst: Option<Duration>,
    /// What it costs, in a sentence.
    pub costs: String,
}

impl Advice {
    pub fn passed(&self) -> bool {
        self.checks.iter().all(|check| check.passed)
    }
}

/// Asks the server; `None` when it hides its settings.
pub async fn settings(url: &Secret) -> Result<Option<Settings>, RedisError> {
    let redis = Redis::connect(url).await?;
    let info: Info = redis.info().await?;
    let (Ok(Some(save)), Ok(Some(appendonly)), Ok(Some(appendfsync))) =
        (redis.config("save").await, redis.config("appendonly").await, redis.config("appendfsync").await)
    else {
        return Ok(None);
    };
    let percentage = redis.config("auto-aof-rewrite-percentage").await.ok().flatten();
    let timestamps = redis.config("aof-timestamp-enabled").await.ok().flatten();
    let numbers: Vec<u64> = save.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    Ok(Some(Settings {
        address: redis.address().to_owned(),
        save: numbers.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect(),
        appendonly: appendonly == "yes",
        appendfsync,
        rewrite_percentage: percentage.and_then(|text| text.parse().ok()).unwrap_or(0),
        timestamps: timestamps.map(|text| text == "yes"),
        last_save: info.text("rdb_last_bgsave_status").to_owned(),
        last_rewrite: info.text("aof_last_bgrewrite_status").to_owned(),
        last_write: info.text("aof_last_write_status").to_owned(),
        fork_us: info.number("latest_fork_usec"),
        copied: info.number("rdb_last_cow_size"),
    }))
}

impl Settings {
    /// What is lost at worst when the server comes back with its disk.
    pub fn worst(&self) -> Option<Duration> {
        // One change is the least there can be: a point that waits for more may wait for ever.
        let by_save = self.save.iter().filter(|(_, changes)| *changes <= 1).map(|(seconds, _)| *seconds).min();
        match (self.appendonly, self.appendfsync.as_str()) {
            (true, "always") => Some(Duration::ZERO),
            (true, "everysec") => Some(EVERYSEC),
            (true, _) => Some(NO_FSYNC),
            (false, _) => by_save.map(Duration::from_secs),
        }
    }

    /// Against what may be lost; `cache_only` is the reason why losing it is fine.
    pub fn advise(&self, rpo: Option<Duration>, cache_only: Option<&str>) -> Advice {
        let worst = self.worst();
        let mut advice = Advice { checks: Vec::new(), changes: Vec::new(), worst, costs: self.costs() };
        if let Some(reason) = cache_only {
            advice.check("persistence", true, format!("declared cache-only: {reason}; nothing is asked of it"));
            return advice;
        }
        let how = self.how();
        match (worst, rpo) {
            (Some(worst), Some(rpo)) if worst <= rpo => {
                advice.check(
                    "loss",
                    true,
                    format!("{how}: at most {} are lost, the RPO is {}", span(worst), span(rpo)),
                );
            }
            (worst, Some(rpo)) => {
                let lost = worst.map_or("any number of changes may be lost".to_owned(), |worst| {
                    format!("up to {} are lost", span(worst))
                });
                advice.check("loss", false, format!("{how}: {lost}, the RPO is {}", span(rpo)));
                advice.changes.extend(self.mend(rpo));
            }
            (worst, None) => {
                let lost = worst.map_or("without a bound".to_owned(), |worst| format!("at most {}", span(worst)));
                advice.check("loss", true, format!("{how}: {lost}; the inventory sets no RPO to compare it with"));
            }
        }
        self.look_at_the_aof(&mut advice);
        for (name, status) in [
            ("last save", &self.last_save),
            ("last AOF rewrite", &self.last_rewrite),
            ("last AOF write", &self.last_write),
        ] {
            if name != "last save" && !self.appendonly {
                continue;
            }
            let why = if status == "ok" {
                "ok".to_owned()
            } else {
                format!(
                    "{status}: Redis may refuse writes (MISCONF); look at its log, the disk and the memory for a fork"
                )
            };
            advice.check(name, status == "ok", why);
        }
        if !advice.changes.is_empty() {
            advice.changes.push("CONFIG REWRITE".to_owned());
        }
        advice
    }

    fn look_at_the_aof(&self, advice: &mut Advice) {
        if !self.appendonly {
            return;
        }
        let rewrites = self.rewrite_percentage > 0;
        let detail = match rewrites {
            true => format!("when it has grown by {} %", self.rewrite_percentage),
            false => "never: it grows until the disk is full, and a restart reads all of it".to_owned(),
        };
        advice.check("AOF is rewritten", rewrites, detail);
        if !rewrites {
            advice.changes.push("CONFIG SET auto-aof-rewrite-percentage 100".to_owned());
        }
        if self.timestamps == Some(false) {
            let detail = "aof-timestamp-enabled is no: it cannot be cut to a moment, so a restore goes to its end or to a snapshot";
            advice.check("AOF has timestamps", false, detail.to_owned());
            advice.changes.push("CONFIG SET aof-timestamp-enabled yes".to_owned());
        }
    }

    /// How it is kept, in words.
    fn how(&self) -> String {
        if self.appendonly {
            return format!("append-only file, appendfsync {}", self.appendfsync);
        }
        match self.save.as_slice() {
            [] => "neither an append-only file nor save points".to_owned(),
            points => {
                let points: Vec<String> =
                    points.iter().map(|(seconds, changes)| format!("{seconds} {changes}")).collect();
                format!("save points {}, no append-only file", points.join(", "))
            }
        }
    }

    /// The least that keeps the RPO.
    fn mend(&self, rpo: Duration) -> Vec<String> {
        let mut changes = Vec::new();
        if rpo >= Duration::from_secs(900) && !self.appendonly {
            changes.push("CONFIG SET save \"900 1 300 10 60 10000\"".to_owned());
            return changes;
        }
        changes.push(format!("CONFIG SET appendfsync {}", if rpo < EVERYSEC { "always" } else { "everysec" }));
        if !self.appendonly {
            changes.push("CONFIG SET appendonly yes".to_owned());
            if self.timestamps == Some(false) {
                changes.push("CONFIG SET aof-timestamp-enabled yes".to_owned());
            }
        }
        changes
    }

    fn costs(&self) -> String {
        let fork = self.fork_us.filter(|us| *us > 0).map_or_else(
            || "it has not forked yet: what a save or a rewrite costs is unknown".to_owned(),
            |us| format!("the last fork kept clients waiting for {:.1} ms", us as f64 / 1e3),
        );
        let copied = self.copied.filter(|bytes| *bytes > 0).map_or_else(String::new, |bytes| {
            format!(", and the save copied {:.1} MB that changed meanwhile", bytes as f64 / 1e6)
        });
        let fsync = match (self.appendonly, self.appendfsync.as_str()) {
            (true, "always") => "; appendfsync always waits for the disk at each write",
            (true, "everysec") => "; everysec costs one fsync a second, beside the clients",
            _ => "",
        };
        format!("{fork}{copied}{fsync}")
    }
}

impl Advice {
    fn check(&mut self, name: &str, passed: bool, detail: String) {
        self.checks.push(Check { name: name.to_owned(), passed, detail });
    }
}

fn span(span: Duration) -> String {
    humantime::format_duration(span).to_string()
}
