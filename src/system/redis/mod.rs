//! Redis: snapshots into a bucket, and the safe way back out of it.
//!
//! A snapshot is an RDB whose keys were counted from its own bytes. A restore loads a *copy* of it with AOF off, proves the
//! number of keys, and only then turns AOF on: `appendonly yes` beside a lone `dump.rdb` starts empty, and the next clean
//! stop overwrites the dump.

mod aof;
mod catalogue;
mod check;
mod command;
mod connect;
mod export;
mod identity;
mod lane;
pub mod persistence;
pub mod rdb;
mod restore;
mod snapshot;
mod transfer;

pub use aof::{
    AofError, AofManifest, FOLDER as AOF, ShipAof, Shipped, among as ranges_among, manifest as aof_manifest, ranges,
};
pub use catalogue::{FOLDER as SNAPSHOTS, FORMAT, Manifest, Source, among as snapshots_among, list, manifest};
pub use check::{Checked, check};
pub use command::{CommandError, command, permit};
pub use connect::{Info, Redis, RedisError, address, at_address};
pub use export::{ExportError, Exported, export};
pub use identity::identify;
pub use lane::Report;
pub use restore::{
    Applied, MARKER, Origin, Policy, QUARANTINE, Restore, RestoreError, Restored, Rule, restored_url, undo,
};
pub use snapshot::{Snapshot, SnapshotError, Taken};
pub use transfer::TransferError;
