//! PostgreSQL: identity, base backups, the WAL archive, restore, promotion, the fence, checks, queries.
//!
//! A system's folder in the bucket:
//!
//! ```text
//! archive.json              whose WAL this is
//! base/<label>/             part-0000.tar.zst …, backup_manifest.zst, and last of all manifest.json; where that names a
//!                           parent it holds only what changed since
//! wal/<timeline>/           segments, history files
//! ```

mod base;
pub mod catalogue;
mod check;
mod connect;
mod control;
pub mod engine;
mod error;
mod fence;
mod identity;
pub mod managed;
mod names;
mod promote;
mod query;
mod report;
mod repository;
pub mod restore;
mod source;
mod tls;
pub mod wal;

pub use base::{Backup, Manifest, Part, Taken, tar};
pub use check::{Checked, Checks, tables};
pub use connect::{TIMEOUT, Url, address, connect};
pub use control::{ControlData, Floor, programs};
pub use error::PgError;
pub use fence::{Evidence, Fence, How, prove_fenced, unfence};
pub use identity::{Identity, identify};
pub use names::Names;
pub use promote::{Promote, Promoted, Proof};
pub use query::{Answer, Query, query};
pub use report::{Report, Reporter};
pub use repository::Repository;
pub use restore::{Plan, Restore, Restored, locked_tables};
pub use source::{SourceEnd, source_end};
