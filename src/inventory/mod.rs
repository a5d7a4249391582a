//! `lifeboat.toml`: what a runbook is bound to. Secrets are references, never values.

mod model;

pub use model::{
    Backups, Connections, Fence, Inventory, PostgresSystem, RedisSystem, Reload, RestoreTo, SecretRef, Store, System,
    SystemDetail,
};
