//! Where everything of a sandbox is: below one directory.

use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use crate::inventory::{Encryption, Recipient, SecretRef};
use crate::process::Account;

use super::error::SandboxError;

/// Names the directory in place of the default.
pub const VARIABLE: &str = "LIFEBOAT_SANDBOX_DIR";

/// A Unix socket's path may have 107 bytes; the longest of ours adds `/restore/orders-db.work/.s.PGSQL.65535`.
const LONGEST: usize = 60;

/// The paths of a sandbox. Its directory is absolute and made of characters that need no quoting anywhere: it goes into
/// URLs, into PostgreSQL's `archive_command` and into Redis's configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    dir: PathBuf,
}

macro_rules! places {
    ($($(#[$doc:meta])* $name:ident = $path:literal;)*) => {
        $($(#[$doc])* pub fn $name(&self) -> PathBuf { self.dir.join($path) })*
    };
}

impl Layout {
    pub fn new(dir: impl Into<PathBuf>) -> Result<Self, SandboxError> {
        let given = dir.into();
        let dir = std::path::absolute(&given).map_err(SandboxError::io("finding", &given))?;
        let refuse = |why: String| Err(SandboxError::Directory { dir: dir.clone(), why });
        let Some(text) = dir.to_str() else { return refuse("its name is not UTF-8".to_owned()) };
        if let Some(odd) = text.chars().find(|c| !(c.is_ascii_alphanumeric() || "/._-".contains(*c))) {
            return refuse(format!("its name holds {odd:?}; letters, digits and / . _ - are safe"));
        }
        if text.len() > LONGEST {
            return refuse(format!("its name has {} bytes; {LONGEST} leave room for Unix sockets", text.len()));
        }
        if dir.parent().is_none() || dir.components().any(|part| part == std::path::Component::ParentDir) {
            return refuse("it is not a directory of its own".to_owned());
        }
        Ok(Self { dir })
    }

    /// `LIFEBOAT_SANDBOX_DIR`, else `/var/tmp/lifeboat-sandbox-<uid>` of the user that the servers run as.
    pub fn standard(account: Option<&Account>) -> Result<Self, SandboxError> {
        if let Some(dir) = std::env::var_os(VARIABLE).filter(|dir| !dir.is_empty()) {
            return Self::new(dir);
        }
        let uid = account.map_or_else(|| nix::unistd::geteuid().as_raw(), |account| account.uid);
        Self::new(format!("/var/tmp/lifeboat-sandbox-{uid}"))
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    places! {
        /// Says that the directory is ours to build in and to remove.
        marker = ".lifeboat-sandbox.json";
        /// Held by the one command that changes the sandbox.
        lock = ".lock";
        /// This program, where the servers' user can execute it.
        lifeboat = "bin/lifeboat";
        /// Prints what the ledger says as one JSON object; the runbook's `ledger_check`.
        ledger_check = "bin/ledger-check";
        /// `HOME` and the XDG directories when root gave up its privileges: drills and reports are below it.
        home = "home";
        signing_key = "keys/operator";
        /// The private key of the backups, where they are encrypted.
        backup_key = "secrets/backup-key";
        /// What a scheduled prune is asked, and answers.
        prune_answers = "prune-answers.toml";
        allowed_signers = "keys/allowed_signers";
        /// Files with one URL each, password included.
        secrets = "secrets";
        bucket = "bucket";
        inventory = "lifeboat.toml";
        record = "sandbox.json";
        incident = "incident.json";
        postgres = "postgres";
        redis = "redis";
        sockets = "run";
        logs = "log";
        app = "app";
        connections = "app/connections.json";
        ledger = "app/ledger.jsonl";
        migration_log = "app/migration.log";
        restore = "restore";
        scratch = "tmp";
    }

    pub fn bucket_url(&self) -> String {
        format!("file://{}", self.bucket().display())
    }

    /// To the key of the backups, and read with it; nothing is encrypted where there is none.
    pub fn encryption(&self) -> Encryption {
        let text = std::fs::read_to_string(self.backup_key()).unwrap_or_default();
        let public = text.lines().find_map(|line| line.strip_prefix("# public key: "));
        match public.and_then(|public| Recipient::parse(public).ok()) {
            None => Encryption::default(),
            Some(recipient) => Encryption {
                encrypt_to: vec![recipient],
                identity: Some(SecretRef::File(self.backup_key())),
                refuse_clear: true,
            },
        }
    }

    pub fn log(&self, name: &str) -> PathBuf {
        self.logs().join(format!("{name}.log"))
    }

    /// A file with the URL of a system, password included.
    pub fn secret(&self, name: &str) -> PathBuf {
        self.secrets().join(name)
    }

    /// Makes sure that the directory is there, is a real directory of `owner`, and is either empty or a sandbox. What
    /// holds anything else is never adopted.
    pub fn claim(&self, owner: u32) -> Result<(), SandboxError> {
        match std::fs::symlink_metadata(&self.dir) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => self.create(owner),
            Err(error) => Err(SandboxError::io("looking at", &self.dir)(error)),
            Ok(_) => self.adopt(owner),
        }
    }

    fn create(&self, owner: u32) -> Result<(), SandboxError> {
        std::fs::DirBuilder::new().mode(0o700).create(&self.dir).map_err(SandboxError::io("creating", &self.dir))?;
        self.give(owner)
    }

    fn adopt(&self, owner: u32) -> Result<(), SandboxError> {
        let refuse = |why: String| Err(SandboxError::Directory { dir: self.dir.clone(), why });
        let meta = std::fs::symlink_metadata(&self.dir).map_err(SandboxError::io("looking at", &self.dir))?;
        if !meta.is_dir() {
            return refuse("it is not a directory".to_owned());
        }
        let us = nix::unistd::geteuid().as_raw();
        if self.is_marked() {
            // Somebody else's sandbox holds programs that would run as us.
            return match meta.uid() == owner {
                true => Ok(()),
                false => {
                    refuse(format!("it is the sandbox of uid {}, and servers here run as uid {owner}", meta.uid()))
                }
            };
        }
        let mut entries = std::fs::read_dir(&self.dir).map_err(SandboxError::io("reading", &self.dir))?;
        if let Some(Ok(entry)) = entries.next() {
            let name = entry.file_name().to_string_lossy().into_owned();
            return refuse(format!("it holds `{name}`, which no sandbox put there"));
        }
        if meta.uid() != owner && meta.uid() != us {
            return refuse(format!("it belongs to uid {}", meta.uid()));
        }
        let mode = std::fs::Permissions::from_mode(0o700);
        std::fs::set_permissions(&self.dir, mode).map_err(SandboxError::io("closing", &self.dir))?;
        self.give(owner)
    }

    /// Only ever for a directory that was found empty.
    fn give(&self, owner: u32) -> Result<(), SandboxError> {
        if nix::unistd::geteuid().is_root() && owner != 0 {
            std::os::unix::fs::lchown(&self.dir, Some(owner), None)
                .map_err(SandboxError::io("giving away", &self.dir))?;
        }
        Ok(())
    }

    /// Whether a sandbox is, or was being, built here.
    pub fn is_marked(&self) -> bool {
        std::fs::symlink_metadata(self.marker()).is_ok_and(|meta| meta.is_file())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn us() -> u32 {
        nix::unistd::geteuid().as_raw()
    }

    #[test]
    fn a_directory_that_would_need_quoting_is_refused() {
        for bad in
            ["/tmp/a b", "/tmp/a'b", "/tmp/%p", "/tmp/ü", "/", "/tmp/../etc", &format!("/tmp/{}", "x".repeat(80))]
        {
            assert!(matches!(Layout::new(bad), Err(SandboxError::Directory { .. })), "{bad}");
        }
        assert!(Layout::new("/var/tmp/lifeboat-sandbox-4294967295").is_ok());
    }

    #[test]
    fn a_directory_with_foreign_content_is_left_alone() {
        let foreign = tempfile::tempdir().unwrap();
        std::fs::write(foreign.path().join("thesis.txt"), "years of work").unwrap();
        let layout = Layout::new(foreign.path()).unwrap();
        let before = std::fs::metadata(foreign.path()).unwrap();
        let error = layout.claim(us()).unwrap_err().to_string();
        assert!(error.contains("`thesis.txt`"), "{error}");
        let after = std::fs::metadata(foreign.path()).unwrap();
        assert_eq!((before.uid(), before.mode()), (after.uid(), after.mode()));
    }

    #[test]
    fn an_empty_directory_and_a_sandbox_are_taken() {
        let parent = tempfile::tempdir().unwrap();
        let layout = Layout::new(parent.path().join("s")).unwrap();
        layout.claim(us()).unwrap();
        assert_eq!(std::fs::metadata(layout.dir()).unwrap().mode() & 0o777, 0o700);
        layout.claim(us()).unwrap();
        std::fs::write(layout.marker(), "{}").unwrap();
        std::fs::write(layout.inventory(), "").unwrap();
        layout.claim(us()).unwrap();
        let other = layout.claim(us() + 1).unwrap_err().to_string();
        assert!(other.contains("is the sandbox of uid"), "{other}");
    }

    #[test]
    fn a_link_is_not_followed() {
        let parent = tempfile::tempdir().unwrap();
        let link = parent.path().join("s");
        std::os::unix::fs::symlink("/etc", &link).unwrap();
        let error = Layout::new(&link).unwrap().claim(us()).unwrap_err().to_string();
        assert!(error.contains("is not a directory"), "{error}");
    }
}
