//! Root gives up its privileges for every sandbox command: PostgreSQL refuses to run as root, and nothing here needs it.

use std::fs::File;
use std::io;
use std::path::PathBuf;

use nix::unistd::{Gid, Uid};

use crate::process::Account;

use super::error::SandboxError;
use super::layout::Layout;
use super::{install, program, record};

/// What a command is about to do with the directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Intent {
    /// Build: the directory is created, and this program copied into it.
    Build,
    /// Look, or take down: an absent directory stays absent.
    Look,
}

/// Whom the sandbox's servers run as: `None` for the user of this process.
pub fn account() -> Result<Option<Account>, SandboxError> {
    let found = Account::unprivileged().map_err(os("looking for an unprivileged user"))?;
    match found {
        None if nix::unistd::geteuid().is_root() => Err(SandboxError::NoAccount),
        Some(account) if account.uid == 0 => Err(SandboxError::NoAccount),
        found => Ok(found),
    }
}

/// Turns a root process into one of `account` for good, at home in the sandbox. Nothing happens when `account` is `None`.
///
/// Call it before any thread exists, a runtime's included: it changes the environment.
pub fn drop_privileges(layout: &Layout, account: Option<&Account>, intent: Intent) -> Result<(), SandboxError> {
    let Some(account) = account else { return Ok(()) };
    // Opened while root may still read it: the checkout may be closed to the account.
    let program = File::open(own_path()?).map_err(os("opening this program"))?;
    if intent == Intent::Build {
        // Asked as root, so that the command that installs it is one for root.
        let missing = install::missing();
        if !missing.is_empty() {
            return Err(SandboxError::Missing(missing));
        }
        reach(layout, account)?;
        layout.claim(account.uid)?;
    }
    let (uid, gid) = (Uid::from_raw(account.uid), Gid::from_raw(account.gid));
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o077));
    #[cfg(not(target_vendor = "apple"))]
    nix::unistd::setgroups(&[gid]).map_err(|error| os("giving up root's groups")(error.into()))?;
    nix::unistd::setgid(gid).map_err(|error| os("changing the group")(error.into()))?;
    nix::unistd::setuid(uid).map_err(|error| os("changing the user")(error.into()))?;
    if nix::unistd::setuid(Uid::from_raw(0)).is_ok() {
        return Err(os("giving up root")(io::Error::other("the process can still become root")));
    }
    // Changing the user hides /proc/self from the account that we are now.
    #[cfg(target_os = "linux")]
    nix::sys::prctl::set_dumpable(true).map_err(|error| os("making this process visible")(error.into()))?;
    settle(layout, account);
    if intent == Intent::Build {
        record::mark(layout)?;
        program::place(layout, program)?;
    }
    Ok(())
}

/// What the account may do with files, tried by a process that is still root. Call it before any thread exists.
pub fn as_account<T>(account: &Account, work: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    let ours = (nix::unistd::getegid(), nix::unistd::geteuid());
    nix::unistd::setegid(Gid::from_raw(account.gid))?;
    nix::unistd::seteuid(Uid::from_raw(account.uid))?;
    let done = work();
    nix::unistd::seteuid(ours.1)?;
    nix::unistd::setegid(ours.0)?;
    done
}

/// Makes sure that the account can get to the directory at all, before anything is created there.
fn reach(layout: &Layout, account: &Account) -> Result<(), SandboxError> {
    use std::os::unix::fs::MetadataExt as _;
    for parent in layout.dir().ancestors().skip(1) {
        let meta = std::fs::metadata(parent).map_err(SandboxError::io("looking at", parent))?;
        let bit = match (meta.uid() == account.uid, meta.gid() == account.gid) {
            (true, _) => 0o100,
            (false, true) => 0o010,
            (false, false) => 0o001,
        };
        if meta.mode() & bit == 0 {
            let why = format!("servers run as {}, to whom {} is closed", account.name, parent.display());
            return Err(SandboxError::Directory { dir: layout.dir().to_owned(), why });
        }
    }
    Ok(())
}

/// Sets the environment of the new user.
fn settle(layout: &Layout, account: &Account) {
    let home = layout.home();
    let set = [
        ("HOME", home.clone()),
        ("XDG_CONFIG_HOME", home.join(".config")),
        ("XDG_DATA_HOME", home.join(".local/share")),
        ("XDG_STATE_HOME", home.join(".local/state")),
        ("XDG_CACHE_HOME", home.join(".cache")),
        ("USER", PathBuf::from(&account.name)),
        ("LOGNAME", PathBuf::from(&account.name)),
    ];
    // SAFETY: the caller promises that this is the only thread.
    unsafe {
        for (name, value) in set {
            std::env::set_var(name, value);
        }
        // Root's agent, its run-time directory and its scratch directory are closed to the account.
        for name in ["XDG_RUNTIME_DIR", "SSH_AUTH_SOCK", "SSH_AGENT_PID", "TMPDIR"] {
            std::env::remove_var(name);
        }
    }
}

fn own_path() -> Result<PathBuf, SandboxError> {
    std::env::current_exe().map_err(os("finding this program"))
}

fn os(operation: &'static str) -> impl FnOnce(io::Error) -> SandboxError {
    move |source| SandboxError::Os { operation, source }
}
