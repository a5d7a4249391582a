//! What is left of files after a loss of power: what was synced, and nothing else.
//!
//! The strictest reading of POSIX: a file keeps the bytes that it had when it was last synced, and a folder the names that
//! it had when it was last synced itself. Real file systems keep more.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// What is durable.
#[derive(Debug, Default, Clone)]
pub struct Durable {
    names: BTreeMap<PathBuf, BTreeSet<OsString>>,
    bytes: BTreeMap<PathBuf, u64>,
}

impl Durable {
    /// Everything that is there now.
    pub fn now(root: &Path) -> Self {
        let mut found = Self::default();
        let mut open = vec![root.to_owned()];
        while let Some(folder) = open.pop() {
            let entries: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap()).collect();
            found.names.insert(folder, entries.iter().map(|entry| entry.file_name()).collect());
            for entry in entries {
                match entry.file_type().unwrap().is_dir() {
                    true => open.push(entry.path()),
                    false => drop(found.bytes.insert(entry.path(), entry.metadata().unwrap().len())),
                }
            }
        }
        found
    }

    /// What a program synced, from the log of its calls.
    pub fn learn(&mut self, calls: &str) {
        for line in calls.lines() {
            let fields: Vec<&str> = line.split('\t').collect();
            let [call, _, result, size, path, second] = fields[..] else { continue };
            match (call, result) {
                ("sync", "0") if size == "-1" => {
                    let names = second.split('/').filter(|name| !matches!(*name, "" | "." | ".."));
                    self.names.insert(path.into(), names.map(OsString::from).collect());
                }
                ("sync", "0") => drop(self.bytes.insert(path.into(), size.parse().unwrap())),
                ("rename", "0") => self.rename(Path::new(path), Path::new(second)),
                _ => {}
            }
        }
    }

    fn rename(&mut self, from: &Path, to: &Path) {
        let moved = |path: &Path| match path.strip_prefix(from) {
            Ok(rest) if rest.as_os_str().is_empty() => to.to_owned(),
            Ok(rest) => to.join(rest),
            Err(_) => path.to_owned(),
        };
        self.names = std::mem::take(&mut self.names).into_iter().map(|(path, names)| (moved(&path), names)).collect();
        self.bytes = std::mem::take(&mut self.bytes).into_iter().map(|(path, bytes)| (moved(&path), bytes)).collect();
    }

    /// Takes away what is not durable. Of bytes that were not synced, `kind` 0 leaves none, 1 leaves half, 2 leaves their
    /// place: a page of zeros.
    pub fn cut(&self, folder: &Path, kind: usize) {
        let none = BTreeSet::new();
        let names = self.names.get(folder).unwrap_or(&none);
        for entry in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap()) {
            let path = entry.path();
            match (names.contains(&entry.file_name()), entry.file_type().unwrap().is_dir()) {
                (true, true) => self.cut(&path, kind),
                (false, true) => std::fs::remove_dir_all(&path).unwrap(),
                (false, false) => std::fs::remove_file(&path).unwrap(),
                (true, false) if entry.file_type().unwrap().is_file() => self.cut_file(&path, kind),
                (true, false) => {}
            }
        }
    }

    fn cut_file(&self, path: &Path, kind: usize) {
        // The program renames output by a system call of its own, past the C library: its name says that it is whole.
        if path.parent().is_some_and(|folder| folder.ends_with("output")) {
            return;
        }
        let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
        let (length, kept) = (file.metadata().unwrap().len(), self.bytes.get(path).copied().unwrap_or(0));
        if length <= kept {
            return;
        }
        match kind {
            0 => file.set_len(kept).unwrap(),
            1 => file.set_len(kept + (length - kept) / 2).unwrap(),
            _ => {
                // The newline at the end is kept: its page made it.
                let zeros = vec![0; usize::try_from(length - kept - 1).unwrap()];
                std::os::unix::fs::FileExt::write_all_at(&file, &zeros, kept).unwrap();
            }
        }
    }
}
