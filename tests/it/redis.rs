//! Redis, against real servers.

mod check;
mod restore;
mod snapshot;
