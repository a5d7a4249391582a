//! Managed PostgreSQL, by the clouds' command-line tools: stand-ins for those, see `clouds/README.md`, and real servers
//! behind the addresses that they tell.

mod aurora;
mod azure;
mod cloud_sql;
mod rds;
mod scene;
