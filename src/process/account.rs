use std::io;
use std::path::{Path, PathBuf};

/// The user that a server runs as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    pub name: String,
    pub uid: u32,
    pub gid: u32,
    pub home: PathBuf,
}

impl Account {
    pub fn named(name: &str) -> io::Result<Option<Self>> {
        let user = nix::unistd::User::from_name(name).map_err(io::Error::from)?;
        Ok(user.map(|user| Self { name: user.name, uid: user.uid.as_raw(), gid: user.gid.as_raw(), home: user.dir }))
    }

    /// Whom servers run as when this program is root and nothing else was said: whoever called sudo, else `postgres`,
    /// else `nobody`. `None` when this program is not root.
    pub fn unprivileged() -> io::Result<Option<Self>> {
        if !nix::unistd::geteuid().is_root() {
            return Ok(None);
        }
        let caller = std::env::var("SUDO_USER").ok().filter(|name| name != "root");
        for name in caller.iter().map(String::as_str).chain(["postgres", "nobody"]) {
            if let Some(account) = Self::named(name)? {
                return Ok(Some(account));
            }
        }
        Ok(None)
    }

    /// Gives a file or directory to the account; nothing happens when this program is not root.
    pub fn give(&self, path: &Path) -> io::Result<()> {
        if nix::unistd::geteuid().is_root() {
            std::os::unix::fs::lchown(path, Some(self.uid), Some(self.gid))?;
        }
        Ok(())
    }
}

/// Turns a root process into one of `user` for good. Call it before any thread exists.
pub fn become_user(user: &nix::unistd::User) -> io::Result<()> {
    #[cfg(not(target_vendor = "apple"))]
    nix::unistd::setgroups(&[user.gid])?;
    nix::unistd::setgid(user.gid)?;
    nix::unistd::setuid(user.uid)?;
    if nix::unistd::setuid(nix::unistd::Uid::from_raw(0)).is_ok() {
        return Err(io::Error::other("the process can still become root"));
    }
    // Changing the user hides /proc/self from the user that we are now.
    #[cfg(target_os = "linux")]
    nix::sys::prctl::set_dumpable(true)?;
    Ok(())
}
