//! PostgreSQL, against real servers.

mod backup;
mod restore;
mod wal;
