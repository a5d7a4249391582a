//! PostgreSQL, against real servers.

mod backup;
mod wal;
