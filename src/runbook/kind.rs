//! The step kinds and what each may say. The schema of the file derives from these, and each has one file in `action`.

use std::time::Duration;

use indexmap::IndexMap;

use crate::event::InputKind;

/// What a step does: `do = "…"` and the keys that belong to it. Texts may hold `{placeholders}`, resolved when it starts.
#[derive(Debug, Clone)]
pub enum StepKind {
    /// `confirm`: a person looks or does something, and says so.
    Confirm,
    /// `input`
    Input { variable: String, prompt: Option<String>, default: Option<String>, input: InputKind },
    /// `choose`: options as (value, label).
    Choose { variable: String, prompt: Option<String>, options: Vec<(String, String)>, default: Option<String> },
    /// `command`
    Command { run: Run, env: IndexMap<String, String>, cwd: Option<String> },
    /// `wait`
    Wait { duration: Duration },
    /// `note`: its text goes into the record.
    Note,
    /// `postgres.query`: on the restored server when there is one, else on the source; `on` overrides.
    PostgresQuery { sql: String, params: Vec<String>, on: Option<Side> },
    /// `postgres.fence`: stop writes to the old primary and prove it.
    PostgresFence,
    /// `postgres.backup`
    PostgresBackup { full_every: Option<Duration> },
    /// `postgres.restore`: base backup and WAL to the recovery point; ends paused.
    PostgresRestore,
    /// `postgres.promote`
    PostgresPromote,
    /// `postgres.check`
    PostgresCheck { tables: Vec<TableCheck>, suspects: bool, checksums: bool, amcheck: bool },
    /// `redis.snapshot`: RDB, append-only file, or both.
    RedisSnapshot { aof: ShipAof },
    /// `redis.restore`
    RedisRestore,
    /// `redis.check`: at least so many keys, by prefix where given.
    RedisCheck { min_keys: u64, prefixes: IndexMap<String, u64> },
    /// `redis.command`
    RedisCommand { argv: Vec<String>, on: Option<Side> },
    /// `recovery.choose`: sets the variable `recovery_point`.
    RecoveryChoose { systems: Vec<String>, suggest: Option<String> },
    /// `redis.export`: keys of one prefix out of the restored server into a file.
    RedisExport { prefix: String, file: String },
    /// `redis.policy`: the server's persistence against its RPO.
    RedisPolicy,
    /// `store.prune`: what the store's limit no longer asks for.
    StorePrune,
    /// `store.check`: what the store's provider does for the backups.
    StoreCheck,
    /// `recovery.verify-backups`: newest backup and WAL continuity of each system against its RPO.
    VerifyBackups { systems: Vec<String> },
    /// `cutover.connections`
    CutoverConnections { connections: String, systems: Vec<String> },
    /// `smoke.sql`
    SmokeSql { sql: String, params: Vec<String> },
    /// `smoke.redis`
    SmokeRedis { argv: Vec<String> },
    /// `smoke.http`
    SmokeHttp { method: String, url: String, body: Option<String>, status: u16 },
    /// `smoke.tcp`
    SmokeTcp { address: String },
    /// `notify`: people are told.
    Notify { to: NotifyTo, message: Option<String> },
}

impl StepKind {
    /// Whether the kind looks before it acts, so that executing it again after a crash does no harm.
    pub fn looks_first(&self) -> bool {
        !matches!(
            self,
            Self::Command { .. }
                | Self::RedisCommand { .. }
                | Self::Notify { .. }
                | Self::SmokeHttp { .. }
                | Self::SmokeSql { .. }
                | Self::SmokeRedis { .. }
        )
    }

    /// As the file spells it.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Confirm => "confirm",
            Self::Input { .. } => "input",
            Self::Choose { .. } => "choose",
            Self::Command { .. } => "command",
            Self::Wait { .. } => "wait",
            Self::Note => "note",
            Self::PostgresQuery { .. } => "postgres.query",
            Self::PostgresFence => "postgres.fence",
            Self::PostgresBackup { .. } => "postgres.backup",
            Self::PostgresRestore => "postgres.restore",
            Self::PostgresPromote => "postgres.promote",
            Self::PostgresCheck { .. } => "postgres.check",
            Self::RedisSnapshot { .. } => "redis.snapshot",
            Self::RedisRestore => "redis.restore",
            Self::RedisCheck { .. } => "redis.check",
            Self::RedisCommand { .. } => "redis.command",
            Self::RecoveryChoose { .. } => "recovery.choose",
            Self::RedisExport { .. } => "redis.export",
            Self::RedisPolicy => "redis.policy",
            Self::StorePrune => "store.prune",
            Self::StoreCheck => "store.check",
            Self::VerifyBackups { .. } => "recovery.verify-backups",
            Self::CutoverConnections { .. } => "cutover.connections",
            Self::SmokeSql { .. } => "smoke.sql",
            Self::SmokeRedis { .. } => "smoke.redis",
            Self::SmokeHttp { .. } => "smoke.http",
            Self::SmokeTcp { .. } => "smoke.tcp",
            Self::Notify { .. } => "notify",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotifyTo {
    /// A sink of the inventory.
    Sink(String),
    /// It gets the message on standard input.
    Command(Vec<String>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Run {
    /// `argv = […]`: each item whole, placeholders inside items.
    Argv(Vec<String>),
    /// `script = "…"`: given to `/bin/sh -eu` as a file; variables by environment as `LIFEBOAT_VAR_<NAME>`, never pasted in.
    Script(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    Source,
    Restored,
}

/// What `redis.snapshot` does with the append-only file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ShipAof {
    /// After the snapshot. That it cannot be had is said, and fails nothing.
    Also,
    /// Nothing else.
    Only,
    /// Nothing else; that it cannot be had is said, and fails nothing.
    Rescue,
    No,
}

/// A table of `postgres.check`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableCheck {
    pub name: String,
    pub min_rows: u64,
}
