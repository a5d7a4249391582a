//! Redis, against real servers.

mod aof;
mod aof_restore;
mod check;
mod policy;
mod restore;
mod snapshot;
