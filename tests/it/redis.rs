//! Redis, against real servers.

mod restore;
mod snapshot;
