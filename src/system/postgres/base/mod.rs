//! Base backups in the bucket: how they are written, and what their manifests say.

mod backup;
mod checksum;
mod manifest;
pub mod tar;

pub use backup::Backup;
pub(super) use checksum::{Checksum, Expected, PgManifest};
pub use manifest::{Manifest, Part};
pub(super) use tar::{Entry, Kind, TarError};
