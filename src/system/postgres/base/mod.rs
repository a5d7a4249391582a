//! Base backups in the bucket: how they are written, and what their manifests say.

mod backup;
mod checksum;
mod cut;
mod incremental;
mod manifest;
pub mod tar;

pub use backup::{Backup, Taken};
pub(super) use checksum::{Checksum, Expected, PgManifest};
pub use manifest::{Manifest, Part};
pub(super) use tar::{Entry, Kind, TarError};
