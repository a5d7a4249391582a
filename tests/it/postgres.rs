//! PostgreSQL, against real servers.

mod backup;
mod fence;
mod incremental;
mod look;
mod promote;
pub mod restore;
mod wal;
