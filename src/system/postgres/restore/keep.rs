//! The unpacked base backup, kept where the file system shares blocks (XFS, Btrfs, APFS …): an earlier point then needs no
//! second download, and until the restored server writes it costs no space. Elsewhere nothing is kept.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt as _, lchown};
use std::path::{Path, PathBuf};

use nix::errno::Errno;

use super::target::{LOCK, MARKER, OURS, Target};

/// In `.lifeboat`; the backup's label follows.
const KEPT: &str = "base-";

impl Target {
    fn place_of(&self, label: &str) -> PathBuf {
        self.ours(&format!("{KEPT}{label}"))
    }

    /// The kept base backup of that label.
    pub fn kept(&self, label: &str) -> Option<PathBuf> {
        Some(self.place_of(label)).filter(|path| path.is_dir())
    }

    /// Keeps what was just unpacked. [`io::ErrorKind::Unsupported`] where blocks are not shared.
    pub fn keep_base(&self, label: &str) -> io::Result<()> {
        let scratch = self.ours("base.new");
        let keep = || {
            fs::create_dir(&scratch)?;
            share_tree(&self.path, &scratch, &[OURS, MARKER, LOCK])?;
            fs::rename(&scratch, self.place_of(label))
        };
        keep().inspect_err(|_| drop(fs::remove_dir_all(&scratch)))
    }

    /// The kept base backup as the data directory again. It stays kept.
    pub fn bring_back(&self, kept: &Path) -> io::Result<()> {
        share_tree(kept, &self.path, &[])
    }

    /// Lets go of every kept base backup.
    pub fn forget_kept(&self) -> io::Result<()> {
        for entry in fs::read_dir(self.path.join(OURS))? {
            let entry = entry?;
            if entry.file_name().to_str().is_some_and(|name| name.starts_with(KEPT)) {
                fs::remove_dir_all(entry.path())?;
            }
        }
        Ok(())
    }
}

/// Everything in `from` but `except`, in `to`, which exists: with its owner and mode, its blocks shared.
fn share_tree(from: &Path, to: &Path, except: &[&str]) -> io::Result<()> {
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        if entry.file_name().to_str().is_some_and(|name| except.contains(&name)) {
            continue;
        }
        let (meta, copy) = (entry.metadata()?, to.join(entry.file_name()));
        if meta.is_dir() {
            fs::create_dir(&copy)?;
            share_tree(&entry.path(), &copy, &[])?;
        } else if meta.is_file() {
            reflink_copy::reflink(entry.path(), &copy).map_err(unsupported)?;
        } else {
            return Err(io::Error::other(format!("{} is neither file nor directory", entry.path().display())));
        }
        fs::set_permissions(&copy, meta.permissions())?;
        if nix::unistd::geteuid().is_root() {
            lchown(&copy, Some(meta.uid()), Some(meta.gid()))?;
        }
    }
    Ok(())
}

/// What file systems without shared blocks answer, under one name.
fn unsupported(error: io::Error) -> io::Error {
    match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::EOPNOTSUPP | Errno::ENOTTY | Errno::EINVAL | Errno::ENOSYS) => io::ErrorKind::Unsupported.into(),
        _ => error,
    }
}
