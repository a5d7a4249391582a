//! The append-only file: shipped beside the snapshots, so that Redis can go back to a second and not only to its last
//! snapshot.
//!
//! What is shipped is the set of files as they stand on the server's disk, alive or not: Redis' manifest, its base (an
//! RDB) and its incremental files, each up to its last whole command. The server must have written `#TS:` annotations
//! (`aof-timestamp-enabled yes`): without them no command has a time, and there is nothing to cut at.

mod layout;
mod manifest;
mod scan;
mod ship;

pub use layout::{Kind, parse as parse_manifest, write as write_manifest};
pub use manifest::{AofFile, AofManifest, FOLDER, among, manifest, ranges};
pub use scan::{Mark, Scan, ScanError, scan};
pub use ship::{AofError, ShipAof, Shipped};
