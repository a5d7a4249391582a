//! A new object in a directory, written as it comes: `object_store` takes it whole, and to be given 16 MiB of memory takes as
//! long as to write them. What is on its way has a name that `object_store` shows to nobody: the object's, `#` and a number.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use bytes::Bytes;

use crate::mutant;

/// Writes what must not exist yet; it appears whole or not at all, and is on disk when this returns. The outer error is that
/// of a piece which could not be had.
pub(super) fn create<E>(path: &Path, pieces: impl Iterator<Item = Result<Bytes, E>>) -> Result<io::Result<()>, E> {
    let (mut file, arriving) = match Arriving::beside(path) {
        Ok(begun) => begun,
        Err(error) => return Ok(Err(error)),
    };
    for piece in pieces {
        if let Err(error) = file.write_all(&piece?) {
            return Ok(Err(error));
        }
    }
    Ok(arriving.become_whole(&file, path))
}

/// A file's first name, which goes whether it gets its second one or not.
struct Arriving(PathBuf);

impl Arriving {
    fn beside(path: &Path) -> io::Result<(File, Self)> {
        let (mut number, mut made) = (std::process::id(), false);
        loop {
            let mut name = path.as_os_str().to_owned();
            name.push(format!("#{number}"));
            match File::create_new(&name) {
                Ok(file) => return Ok((file, Self(name.into()))),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => number = number.wrapping_add(1),
                Err(error) if error.kind() == io::ErrorKind::NotFound && !made => {
                    make(folder_of(path))?;
                    made = true;
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn become_whole(self, file: &File, path: &Path) -> io::Result<()> {
        file.sync_all()?;
        match mutant::removes("15b") {
            true => fs::rename(&self.0, path)?,
            // Unlike a rename it replaces nothing.
            false => fs::hard_link(&self.0, path)?,
        }
        sync(folder_of(path))
    }
}

impl Drop for Arriving {
    fn drop(&mut self) {
        // Nobody sees it; the object is there, or the error is told.
        let _ = fs::remove_file(&self.0);
    }
}

/// A folder, with those above it that are missing.
fn make(folder: &Path) -> io::Result<()> {
    match fs::create_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound && folder.parent().is_some() => {
            make(folder_of(folder))?;
            make(folder)
        }
        // Else it is a link to what is not there: a disk that is not mounted.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && folder.is_dir() => Ok(()),
        Err(error) => Err(error),
        Ok(()) => sync(folder_of(folder)),
    }
}

fn folder_of(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new("/"))
}

fn sync(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_is_whole_or_not_there_and_replaces_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("wal/00000001/segment");
        let pieces = || ["one ", "two"].map(|piece| Ok::<_, &str>(Bytes::from(piece)));
        let names = || {
            let names = fs::read_dir(path.parent().unwrap()).unwrap().map(|entry| entry.unwrap().file_name());
            names.collect::<Vec<_>>()
        };
        let broken = pieces().into_iter().chain([Err("gone")]);
        assert_eq!(create(&path, broken).unwrap_err(), "gone");
        assert!(names().is_empty());
        create(&path, pieces().into_iter()).unwrap().unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "one two");
        let other = [Ok::<_, &str>(Bytes::from("other"))].into_iter();
        assert_eq!(create(&path, other).unwrap().unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!((fs::read_to_string(&path).unwrap().as_str(), names()), ("one two", vec!["segment".into()]));
    }

    #[test]
    fn a_link_to_what_is_not_mounted_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/not/mounted", directory.path().join("wal")).unwrap();
        for path in ["wal/segment", "wal/00000001/segment"] {
            let piece = [Ok::<_, ()>(Bytes::from("x"))].into_iter();
            assert!(create(&directory.path().join(path), piece).unwrap().is_err(), "{path}");
        }
    }

    #[tokio::test]
    async fn it_lies_where_the_store_looks_for_it() {
        let directory = tempfile::tempdir().unwrap();
        let url = format!("file://{}", directory.path().display());
        for folder in ["", "orders-db", "it's ~100% ü/a b"] {
            let bucket = crate::store::Bucket::open(&url, folder).unwrap();
            let piece = || [Ok::<_, ()>(Bytes::from("content"))].into_iter();
            bucket.create_from("wal/a #1~", piece()).await.unwrap().unwrap();
            assert_eq!(bucket.read("wal/a #1~").await.unwrap(), "content", "{folder}");
            let again = bucket.create("wal/a #1~", "other").await.unwrap_err();
            assert!(matches!(again, crate::store::StoreError::Exists { .. }), "{again}");
        }
    }
}
