//! Redis, against real servers.

mod snapshot;
