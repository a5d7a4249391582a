//! One file a step kind. An [`Action`] gets its inputs and a sink, and returns an outcome; it never writes events.

mod choose;
mod command;
mod confirm;
mod context;
mod cutover;
mod identify;
mod input;
mod lease;
mod managed;
mod note;
mod notify;
mod postgres_backup;
mod postgres_check;
mod postgres_fence;
mod postgres_promote;
mod postgres_query;
mod postgres_restore;
mod recovery_choose;
mod redis_check;
mod redis_command;
mod redis_export;
mod redis_policy;
mod redis_restore;
mod redis_snapshot;
mod smoke_http;
mod smoke_tcp;
mod store_check;
mod store_prune;
mod target;
mod told;
mod verify_backups;
mod wait;

use std::sync::Arc;

pub use context::{Context, Sink, SinkMessage, is_loopback};
pub use identify::{changes_source, identify};
pub use lease::{give_back, leased_roles};

use futures::future::BoxFuture;

use crate::event::Outcome;
use crate::runbook::{Run, StepKind};

/// A step kind at work.
pub trait Action: Send + Sync {
    /// Performs the step. Reports through the context's sink; asks through it; watches its cancellation token; says
    /// every failure in the outcome.
    fn run(&self, context: Context) -> BoxFuture<'_, Outcome>;

    /// The kind's own way back, when it has one.
    fn undo(&self, context: Context) -> Option<BoxFuture<'_, Outcome>> {
        let _ = context;
        None
    }
}

/// The action of a step kind.
pub fn for_kind(kind: &StepKind) -> Arc<dyn Action> {
    match kind.clone() {
        StepKind::Confirm => Arc::new(confirm::Confirm),
        StepKind::Input { variable, prompt, default, input } => {
            Arc::new(input::Input { variable, prompt, default, input })
        }
        StepKind::Choose { variable, prompt, options, default } => {
            Arc::new(choose::Choose { variable, prompt, options, default })
        }
        StepKind::Command { run, env, cwd } => Arc::new(command::Command { run, env, cwd }),
        StepKind::Wait { duration } => Arc::new(wait::Wait { duration }),
        StepKind::Note => Arc::new(note::Note),
        StepKind::SmokeHttp { method, url, body, status } => {
            Arc::new(smoke_http::SmokeHttp { method, url, body, status })
        }
        StepKind::SmokeTcp { address } => Arc::new(smoke_tcp::SmokeTcp { address }),
        StepKind::Notify { to, message } => Arc::new(notify::Notify { to, message }),
        StepKind::RedisSnapshot { aof } => Arc::new(redis_snapshot::RedisSnapshot { aof }),
        StepKind::RedisRestore => Arc::new(redis_restore::RedisRestore),
        StepKind::RedisCheck { min_keys, prefixes } => Arc::new(redis_check::RedisCheck { min_keys, prefixes }),
        StepKind::RedisExport { prefix, file } => Arc::new(redis_export::RedisExport { prefix, file }),
        StepKind::RedisPolicy => Arc::new(redis_policy::RedisPolicy),
        StepKind::StoreCheck => Arc::new(store_check::StoreCheck),
        StepKind::StorePrune => Arc::new(store_prune::StorePrune),
        StepKind::RedisCommand { argv, on } => Arc::new(redis_command::RedisCommand { argv, on }),
        StepKind::SmokeRedis { argv } => Arc::new(redis_command::SmokeRedis { argv }),
        StepKind::PostgresBackup { full_every } => Arc::new(postgres_backup::PostgresBackup { full_every }),
        StepKind::PostgresRestore => Arc::new(postgres_restore::PostgresRestore),
        StepKind::RecoveryChoose { systems, suggest } => Arc::new(recovery_choose::RecoveryChoose { systems, suggest }),
        StepKind::CutoverConnections { connections, systems } => Arc::new(cutover::Cutover { connections, systems }),
        StepKind::VerifyBackups { systems } => Arc::new(verify_backups::VerifyBackups { systems }),
        StepKind::PostgresQuery { sql, params, on } => Arc::new(postgres_query::PostgresQuery { sql, params, on }),
        StepKind::PostgresFence => Arc::new(postgres_fence::PostgresFence),
        StepKind::PostgresPromote => Arc::new(postgres_promote::PostgresPromote),
        StepKind::PostgresCheck { tables, suspects, checksums, amcheck } => {
            Arc::new(postgres_check::PostgresCheck { tables, suspects, checksums, amcheck })
        }
        StepKind::SmokeSql { sql, params } => Arc::new(postgres_query::SmokeSql { sql, params }),
    }
}

/// A step's `undo` that is a command.
pub fn command_for(argv: Vec<String>) -> Arc<dyn Action> {
    Arc::new(command::Command { run: Run::Argv(argv), env: indexmap::IndexMap::new(), cwd: None })
}
