//! A base backup that another program put onto the disk, against the `backup_manifest` that PostgreSQL made of it.

use std::io::Read as _;
use std::path::{Component, Path};

use tokio_util::sync::CancellationToken;

use super::super::base::{Checksum, Expected, PgManifest};
use crate::event::Failure;

const MANIFEST: &str = "backup_manifest";

/// Barman takes it out: it puts tablespaces into their places itself. Clusters that have some are not restored.
const MAY_LACK: &str = "tablespace_map";

/// How many files are as the manifest says; `None` when there is no manifest. Blocks its thread.
pub fn verify(directory: &Path, cancel: &CancellationToken) -> Result<Option<usize>, Failure> {
    let damaged = |name: &str, why: String| {
        Failure::new(format!("{name} of the base backup is damaged"), why).now("choose another base backup")
    };
    let bytes = match std::fs::read(directory.join(MANIFEST)) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Failure::new("the manifest of the base backup cannot be read", error)),
    };
    let manifest = PgManifest::parse(&bytes).map_err(|why| damaged(MANIFEST, why))?;
    for (name, expected) in &manifest.files {
        if cancel.is_cancelled() {
            return Err(Failure::new("the restore was cancelled", "while the base backup was verified"));
        }
        if name == MAY_LACK && !directory.join(name).exists() {
            continue;
        }
        check(directory, name, expected).map_err(|why| damaged(name, why))?;
    }
    Ok(Some(manifest.files.len()))
}

fn check(directory: &Path, name: &str, expected: &Expected) -> Result<(), String> {
    if !Path::new(name).components().all(|part| matches!(part, Component::Normal(_))) {
        return Err("its name leads out of the data directory".to_owned());
    }
    let mut file = std::fs::File::open(directory.join(name)).map_err(|error| error.to_string())?;
    let (mut sum, mut size, mut buffer) = (Checksum::of(expected), 0, vec![0; 1 << 18]);
    loop {
        let read = file.read(&mut buffer).map_err(|error| error.to_string())?;
        if read == 0 {
            break;
        }
        size += read as u64;
        sum.update(&buffer[..read]);
    }
    if size != expected.size {
        return Err(format!("it has {size} bytes, and backup_manifest says {}", expected.size));
    }
    match sum.matches(expected) {
        true => Ok(()),
        false => Err("it does not have the checksum that backup_manifest says".to_owned()),
    }
}
