//! Redis, against real servers.

mod alone;
pub mod aof;
mod aof_restore;
mod check;
mod export;
mod policy;
pub mod restore;
pub mod snapshot;
