//! The sandbox's own copy of this program: PostgreSQL runs it, and may not be able to read the checkout.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use super::error::SandboxError;
use super::layout::Layout;

/// Copies `source` to `<dir>/bin/lifeboat`; a program that runs from there keeps its old file.
pub fn place(layout: &Layout, mut source: File) -> Result<(), SandboxError> {
    let target = layout.lifeboat();
    create_private(target.parent().unwrap_or(layout.dir()))?;
    let scratch = target.with_extension("new");
    let mut file = OpenOptions::new()
        .create(true)
        .write(true)
        .truncate(true)
        .mode(0o700)
        .open(&scratch)
        .map_err(SandboxError::io("creating", &scratch))?;
    io::copy(&mut source, &mut file).map_err(SandboxError::io("copying this program to", &scratch))?;
    drop(file);
    std::fs::rename(&scratch, &target).map_err(SandboxError::io("placing", &target))
}

/// Copies the program at `path`, unless [`super::drop_privileges`] already did because only root can read it.
pub fn ensure(layout: &Layout, path: &Path) -> Result<(), SandboxError> {
    match File::open(path) {
        Ok(source) => place(layout, source),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied && layout.lifeboat().exists() => Ok(()),
        Err(error) => Err(SandboxError::io("opening", path)(error)),
    }
}

/// A directory for this user only, with its parents.
pub fn create_private(path: &Path) -> Result<(), SandboxError> {
    use std::os::unix::fs::DirBuilderExt as _;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(SandboxError::io("creating", path))
}

/// Writes a file with the given mode, whole or not at all.
pub fn write(path: &Path, mode: u32, content: impl AsRef<[u8]>) -> Result<(), SandboxError> {
    use std::io::Write as _;
    let error = |source| SandboxError::io("writing", path)(source);
    let scratch = path.with_extension("new");
    let mut file =
        OpenOptions::new().create(true).write(true).truncate(true).mode(mode).open(&scratch).map_err(error)?;
    file.write_all(content.as_ref()).map_err(error)?;
    drop(file);
    std::fs::rename(&scratch, path).map_err(error)
}
