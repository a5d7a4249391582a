//! PostgreSQL, against real servers.

mod backup;
mod fence;
mod look;
mod promote;
mod restore;
mod wal;
