//! What is true of a whole kind of step, whatever the file says.

use super::{StepKind, SystemKind};

/// The facts a kind yields, as far as they are known beforehand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Facts {
    /// Columns of a query and `rows`.
    Columns,
    /// These, and those that begin with the prefix.
    These { names: &'static [&'static str], prefix: Option<&'static str> },
    /// Not known beforehand.
    Open,
}

impl StepKind {
    /// The kind of system it works on, when it must have one.
    pub fn works_on(&self) -> Option<SystemKind> {
        match self {
            Self::PostgresQuery { .. }
            | Self::PostgresFence
            | Self::PostgresBackup { .. }
            | Self::PostgresRestore
            | Self::PostgresPromote
            | Self::PostgresCheck { .. }
            | Self::SmokeSql { .. } => Some(SystemKind::Postgres),
            Self::RedisSnapshot { .. }
            | Self::RedisRestore
            | Self::RedisCheck { .. }
            | Self::RedisCommand { .. }
            | Self::RedisExport { .. }
            | Self::RedisPolicy
            | Self::SmokeRedis { .. } => Some(SystemKind::Redis),
            _ => None,
        }
    }

    /// The roles it names itself, for kinds that work on several systems.
    pub fn systems(&self) -> Option<&[String]> {
        match self {
            Self::RecoveryChoose { systems, .. }
            | Self::VerifyBackups { systems }
            | Self::CutoverConnections { systems, .. } => Some(systems),
            _ => None,
        }
    }

    /// It has a way back of its own: `undo = true`.
    pub fn has_undo(&self) -> bool {
        matches!(
            self,
            Self::PostgresFence | Self::PostgresRestore | Self::RedisRestore | Self::CutoverConnections { .. }
        )
    }

    /// It only looks, so that running it again after a crash does no harm.
    pub fn only_looks(&self) -> bool {
        match self {
            Self::Confirm
            | Self::Input { .. }
            | Self::Choose { .. }
            | Self::Wait { .. }
            | Self::Note
            | Self::RecoveryChoose { .. }
            | Self::VerifyBackups { .. }
            | Self::PostgresCheck { .. }
            | Self::RedisCheck { .. }
            | Self::RedisPolicy
            | Self::StoreCheck
            | Self::SmokeTcp { .. } => true,
            Self::SmokeHttp { method, .. } => matches!(method.as_str(), "GET" | "HEAD" | "OPTIONS"),
            // Smoke tests of the databases may write.
            _ => false,
        }
    }

    pub fn is_smoke(&self) -> bool {
        matches!(self, Self::SmokeSql { .. } | Self::SmokeRedis { .. } | Self::SmokeHttp { .. } | Self::SmokeTcp { .. })
    }

    pub fn is_sql(&self) -> bool {
        matches!(self, Self::PostgresQuery { .. } | Self::SmokeSql { .. })
    }

    /// The variables it sets by itself.
    pub fn sets(&self) -> Option<&str> {
        match self {
            Self::Input { variable, .. } | Self::Choose { variable, .. } => Some(variable),
            Self::RecoveryChoose { .. } => Some("recovery_point"),
            _ => None,
        }
    }

    pub fn facts(&self) -> Facts {
        let these = |names| Facts::These { names, prefix: None };
        match self {
            Self::PostgresQuery { .. } | Self::SmokeSql { .. } => Facts::Columns,
            Self::Command { .. } => Facts::These { names: &["exit_code", "stdout"], prefix: Some("json.") },
            Self::SmokeHttp { .. } => Facts::These { names: &["status", "body"], prefix: Some("json.") },
            Self::SmokeRedis { .. } | Self::RedisCommand { .. } => these(&["reply"]),
            Self::RedisCheck { .. } => {
                Facts::These { names: &["keys", "address", "aof_enabled"], prefix: Some("keys_") }
            }
            Self::RedisExport { .. } => these(&["keys", "expiring", "bytes", "file"]),
            Self::PostgresCheck { .. } => these(&["tables", "rows", "corrupt", "suspects"]),
            Self::Confirm | Self::Note | Self::Wait { .. } => these(&[]),
            _ => Facts::Open,
        }
    }
}
