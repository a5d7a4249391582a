//! The directory that a restore may use: absent, empty, or carrying the marker of this drill. There is no force.

use std::fs::Permissions;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::RestoreError;
use super::policy::Applied;
use crate::mutant;

/// The marker's name in the target directory.
pub const MARKER: &str = ".lifeboat-restore.json";

const FORMAT: u32 = 1;

/// Whose restore it is, and how far it came.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Marker {
    format: u32,
    pub drill: String,
    pub system: String,
    pub effect_key: String,
    /// What it is restored from.
    pub snapshot: String,
    /// Where its server listens.
    pub port: u16,
    /// Whether the directory itself was made by the restore, and goes with it.
    created_directory: bool,
    /// What was proven at the end; absent while the restore is under way.
    #[serde(default)]
    pub done: Option<Done>,
}

/// The end of a restore, for whoever asks again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Done {
    pub at: DateTime<Utc>,
    pub keys: u64,
    pub expired: u64,
    pub bytes: u64,
    pub redis_version: String,
    pub rdb_version: u32,
    pub fetch_seconds: f64,
    pub load_seconds: f64,
    pub aof_seconds: f64,
    pub total_seconds: f64,
    /// Of an append-only file: commands behind its base that were loaded, and those that were cut off.
    #[serde(default)]
    pub commands: u64,
    #[serde(default)]
    pub cut_commands: u64,
    #[serde(default)]
    pub policy: Vec<Applied>,
}

/// Who restores what.
#[derive(Debug, Clone, Copy)]
pub struct Owner<'a> {
    pub drill: &'a str,
    pub system: &'a str,
}

/// A directory that was looked at and may be used.
#[derive(Debug)]
pub struct Target {
    directory: PathBuf,
    /// Found there: this drill's own, of an earlier attempt.
    pub marker: Option<Marker>,
    exists: bool,
}

impl Target {
    /// Looks, and changes nothing.
    pub fn inspect(directory: &Path, owner: Owner<'_>) -> Result<Self, RestoreError> {
        let foreign = |why: String| RestoreError::Foreign { directory: directory.to_owned(), why };
        let io = |source| RestoreError::Io { operation: "looking at", path: directory.to_owned(), source };
        let target = |exists, marker| Self { directory: directory.to_owned(), marker, exists };
        if !directory.is_absolute() {
            return Err(foreign("it is not an absolute path".to_owned()));
        }
        match directory.symlink_metadata() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(target(false, None)),
            Err(error) => return Err(io(error)),
            Ok(meta) if !meta.is_dir() => return Err(foreign("it is not a directory".to_owned())),
            Ok(_) => {}
        }
        let mut names: Vec<String> = Vec::new();
        for entry in std::fs::read_dir(directory).map_err(io)? {
            names.push(entry.map_err(io)?.file_name().to_string_lossy().into_owned());
        }
        let marked = names.iter().any(|name| name == MARKER);
        if names.is_empty() || (!marked && mutant::removes("1c")) {
            return Ok(target(true, None));
        }
        if !marked {
            names.sort();
            return Err(foreign(format!("it holds {} and no marker of Lifeboat", some(&names))));
        }
        let text = std::fs::read_to_string(directory.join(MARKER)).map_err(io)?;
        let marker: Marker =
            serde_json::from_str(&text).map_err(|error| foreign(format!("its marker cannot be read: {error}")))?;
        if marker.format != FORMAT || marker.drill != owner.drill || marker.system != owner.system {
            return Err(foreign(format!("it holds {} as restored by drill {}", marker.system, marker.drill)));
        }
        Ok(target(true, Some(marker)))
    }

    /// Makes the directory ours and empty. Whatever an earlier attempt left goes, the marker last of all.
    pub fn claim(self, owner: Owner<'_>, effect_key: &str, snapshot: &str, port: u16) -> Result<Marker, RestoreError> {
        let marker = Marker {
            format: FORMAT,
            drill: owner.drill.to_owned(),
            system: owner.system.to_owned(),
            effect_key: effect_key.to_owned(),
            snapshot: snapshot.to_owned(),
            port,
            created_directory: !self.exists || self.marker.as_ref().is_some_and(|marker| marker.created_directory),
            done: None,
        };
        let io = |operation| {
            let path = self.directory.clone();
            move |source| RestoreError::Io { operation, path, source }
        };
        if self.marker.is_some() {
            self.wipe()?;
            save(&self.directory, &marker)?;
            return Ok(marker);
        }
        if !self.exists {
            let above: Vec<&Path> = self.directory.ancestors().skip(1).take_while(|path| !path.exists()).collect();
            std::fs::create_dir_all(&self.directory).map_err(io("making"))?;
            for path in above {
                // Whatever the umask: the server's account passes through.
                std::fs::set_permissions(path, Permissions::from_mode(0o755)).map_err(io("opening"))?;
            }
        }
        // Create-only: of two restores that start at once, one wins.
        let text = serde_json::to_vec_pretty(&marker).map_err(|error| io("marking")(error.into()))?;
        let mut file = std::fs::File::create_new(self.directory.join(MARKER)).map_err(io("marking"))?;
        io::Write::write_all(&mut file, &text).and_then(|()| file.sync_all()).map_err(io("marking"))?;
        Ok(marker)
    }

    /// Removes everything but the marker.
    fn wipe(&self) -> Result<(), RestoreError> {
        let io = |path: &Path, source| RestoreError::Io { operation: "removing", path: path.to_owned(), source };
        for entry in std::fs::read_dir(&self.directory).map_err(|error| io(&self.directory, error))? {
            let path = entry.map_err(|error| io(&self.directory, error))?.path();
            if path.file_name().is_some_and(|name| name == MARKER) {
                continue;
            }
            let meta = path.symlink_metadata().map_err(|error| io(&path, error))?;
            let removed = if meta.is_dir() { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) };
            removed.map_err(|error| io(&path, error))?;
        }
        Ok(())
    }

    /// The way back: everything goes, and the directory too when the restore had made it.
    pub fn remove(self) -> Result<(), RestoreError> {
        let Some(marker) = &self.marker else { return Ok(()) };
        self.wipe()?;
        let io = |source| RestoreError::Io { operation: "removing", path: self.directory.clone(), source };
        std::fs::remove_file(self.directory.join(MARKER)).map_err(io)?;
        if marker.created_directory {
            std::fs::remove_dir(&self.directory).map_err(io)?;
        }
        Ok(())
    }
}

/// Replaces the marker whole.
pub fn save(directory: &Path, marker: &Marker) -> Result<(), RestoreError> {
    let path = directory.join(MARKER);
    let io = |source| RestoreError::Io { operation: "marking", path: path.clone(), source };
    let text = serde_json::to_vec_pretty(marker).map_err(|error| io(error.into()))?;
    let mut file = tempfile::NamedTempFile::new_in(directory).map_err(io)?;
    io::Write::write_all(&mut file, &text).and_then(|()| file.as_file().sync_all()).map_err(io)?;
    file.persist(&path).map_err(|error| io(error.error))?;
    Ok(())
}

fn some(names: &[String]) -> String {
    match names {
        [one] => format!("`{one}`"),
        [one, two] => format!("`{one}` and `{two}`"),
        [one, rest @ ..] => format!("`{one}` and {} other files", rest.len()),
        [] => "nothing".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWNER: Owner<'_> = Owner { drill: "drill-1", system: "orders-cache" };

    fn claim(directory: &Path, owner: Owner<'_>) -> Result<Marker, RestoreError> {
        Target::inspect(directory, owner)?.claim(owner, "effect-1", "snapshot-1", 7000)
    }

    fn everything(directory: &Path) -> Vec<(PathBuf, Vec<u8>)> {
        let mut all: Vec<_> = std::fs::read_dir(directory)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .map(|path| (path.clone(), std::fs::read(path).unwrap_or_default()))
            .collect();
        all.sort();
        all
    }

    #[test]
    fn what_is_not_ours_is_refused_and_left_as_it_is() {
        let home = tempfile::tempdir().unwrap();
        let theirs = home.path().join("theirs");
        std::fs::create_dir(&theirs).unwrap();
        std::fs::write(theirs.join("dump.rdb"), "REDIS0010 the only copy").unwrap();
        let other = home.path().join("other");
        claim(&other, Owner { drill: "drill-0", ..OWNER }).unwrap();
        let sibling = home.path().join("sibling");
        claim(&sibling, Owner { system: "sessions", ..OWNER }).unwrap();
        let torn = home.path().join("torn");
        std::fs::create_dir(&torn).unwrap();
        std::fs::write(torn.join(MARKER), "{\"format\": 1").unwrap();
        let link = home.path().join("link");
        std::os::unix::fs::symlink(&theirs, &link).unwrap();
        for (directory, why) in [
            (&theirs, "`dump.rdb` and no marker"),
            (&other, "restored by drill drill-0"),
            (&sibling, "it holds sessions"),
            (&torn, "cannot be read"),
            (&link, "not a directory"),
        ] {
            let before = everything(directory);
            let error = claim(directory, OWNER).unwrap_err();
            assert!(matches!(&error, RestoreError::Foreign { .. }) && error.to_string().contains(why), "{error}");
            assert_eq!(everything(directory), before);
        }
    }

    #[test]
    fn our_own_leftovers_go_and_a_directory_that_was_there_stays() {
        let home = tempfile::tempdir().unwrap();
        let (made, found) = (home.path().join("a/made"), home.path().join("found"));
        std::fs::create_dir(&found).unwrap();
        for directory in [&made, &found] {
            let first = claim(directory, OWNER).unwrap();
            std::fs::create_dir(directory.join("data")).unwrap();
            std::fs::write(directory.join("data/dump.rdb"), "half").unwrap();
            assert_eq!(claim(directory, OWNER).unwrap(), first);
            assert_eq!(everything(directory).len(), 1, "only the marker");
            Target::inspect(directory, OWNER).unwrap().remove().unwrap();
        }
        assert!(!made.exists());
        assert_eq!(everything(&found), []);
    }

    #[test]
    fn of_two_claims_at_once_one_wins() {
        let home = tempfile::tempdir().unwrap();
        let looked = || Target::inspect(&home.path().join("x"), OWNER).unwrap();
        let (one, two) = (looked(), looked());
        one.claim(OWNER, "e", "s", 1).unwrap();
        assert!(matches!(two.claim(OWNER, "e", "s", 2), Err(RestoreError::Io { operation: "marking", .. })));
    }
}
