use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::JournalError;
use crate::clock;

/// How long a lock may be held by nobody in particular.
const PATIENCE: Duration = Duration::from_millis(500);

/// An exclusive lock on the journal, and a note beside it that says whose it is. The lock goes with the process, however it
/// ends; the note is only words for whoever is refused.
pub(super) struct Hold {
    note: PathBuf,
    _file: File,
}

impl Hold {
    pub(super) fn take(file: &File, path: &Path) -> Result<Self, JournalError> {
        let failed = |source| JournalError::Io { operation: "locking", path: path.to_owned(), source };
        let note = path.with_extension("holder");
        let file = file.try_clone().map_err(failed)?;
        let mut locked = file.try_lock();
        // A child between fork and exec holds a copy of every file of its parent, the lock of one just closed too.
        let patience = clock::boot_now() + PATIENCE;
        while matches!(locked, Err(TryLockError::WouldBlock)) && clock::boot_now() < patience {
            clock::block(Duration::from_millis(10));
            locked = file.try_lock();
        }
        match locked {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let holder = std::fs::read_to_string(&note).ok().map(|text| text.trim().to_owned());
                return Err(JournalError::Held { path: path.to_owned(), holder: holder.filter(|h| !h.is_empty()) });
            }
            Err(TryLockError::Error(source)) => return Err(failed(source)),
        }
        let host = nix::unistd::gethostname().map_or_else(|_| "?".into(), |name| name.to_string_lossy().into_owned());
        let since = clock::wall_now().to_rfc3339_opts(chrono::SecondsFormat::Secs, true);
        // A full disk must not keep the drill from going on for want of a courtesy.
        let _ = std::fs::write(&note, format!("process {} on {host}, since {since}\n", std::process::id()));
        Ok(Self { note, _file: file })
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        // Stale words would only be read while somebody else holds the lock, and they write their own.
        let _ = std::fs::remove_file(&self.note);
    }
}
