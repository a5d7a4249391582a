//! Redis, against real servers.

mod alone;
mod aof;
mod aof_restore;
mod check;
mod policy;
mod restore;
mod snapshot;
