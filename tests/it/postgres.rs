//! PostgreSQL, against real servers.

mod backup;
mod fence;
mod look;
mod promote;
pub mod restore;
mod wal;
