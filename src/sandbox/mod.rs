//! A whole incident on this machine.
//!
//! `up` builds a shop below one directory: a PostgreSQL primary whose WAL goes into a bucket by `lifeboat wal push`, a Redis
//! primary with RDB and AOF, and an application in front of them that keeps a ledger of what it acknowledged. It takes a
//! base backup and a snapshot, lets the shop trade on, and then a "migration" damages it: a table is dropped, rows are
//! deleted, the carts are flushed, and the primary is taken down. `down` ends what runs there and removes the directory.
//! A healthy sandbox stops before the migration, and its inventory has schedules.
//!
//! Nothing here is special to the rest of the house: a drill finds an inventory, a bucket and a broken service, as in any
//! other incident. Redis stays up, damaged: its carts are gone, its sessions are not.

pub mod app;
mod compare;
mod drill;
mod error;
mod fill;
mod incident;
pub mod install;
mod inventory;
mod keys;
mod layout;
pub mod ledger;
mod privileges;
mod processes;
mod program;
mod record;
mod secrets;
mod servers;
mod status;
mod tools;
mod up;

use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use chrono::{DateTime, Utc};
use nix::fcntl::{Flock, FlockArg, OFlag};
use tokio_util::sync::CancellationToken;

pub use compare::Found;
pub use drill::{DrillSetup, prepare_drill};
pub use error::SandboxError;
pub use layout::{Layout, VARIABLE};
pub use privileges::{Intent, account, as_account, drop_privileges};
pub use record::{Incident, Ports, Scale};
pub use status::{ServerStatus, State, Status};

/// Gets a line for every stage of the building.
pub type Tell<'a> = &'a (dyn Fn(&str) + Send + Sync);

/// What to build.
#[derive(Debug, Clone)]
pub struct Options {
    pub scale: Scale,
    /// The same seed makes the same rows, carts and sessions.
    pub seed: u64,
    /// The backups are encrypted to a key that is made for them.
    pub encrypted: bool,
    /// No incident: the shop goes on trading, with backups on a schedule.
    pub healthy: bool,
    /// The program that becomes `<dir>/bin/lifeboat`: this one.
    pub program: PathBuf,
}

/// The sandbox of one directory.
#[derive(Debug, Clone)]
pub struct Sandbox {
    layout: Layout,
}

impl Sandbox {
    pub fn at(layout: Layout) -> Self {
        Self { layout }
    }

    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Builds the incident. One that stands there unrepaired, of the same scale and seed, is kept as it is; anything else
    /// that a sandbox left there is taken down first, reports of earlier drills excepted. When this fails or `cancel` is
    /// cancelled nothing of it keeps running.
    pub async fn up(
        &self,
        options: &Options,
        cancel: &CancellationToken,
        tell: Tell<'_>,
    ) -> Result<Status, SandboxError> {
        let tools = tools::Tools::find()?;
        self.layout.claim(nix::unistd::geteuid().as_raw())?;
        record::mark(&self.layout)?;
        let _lock = self.lock()?;
        if let Some(status) = self.fresh(options).await? {
            tell(match options.healthy {
                true => "the shop of an earlier `sandbox up --healthy` still trades",
                false => "the incident of an earlier `sandbox up` still stands, unrepaired",
            });
            return Ok(status);
        }
        let built = async {
            self.clear(Clear::ForAnother).await?;
            up::Build { layout: &self.layout, tools: &tools, options, cancel, tell }.run().await
        };
        let result = tokio::select! {
            result = built => result,
            () = cancel.cancelled() => {
                Err(SandboxError::Os { operation: "sandbox up", source: std::io::ErrorKind::Interrupted.into() })
            }
        };
        if let Err(error) = result {
            // The first error says more than one of the cleaning.
            let _ = processes::end(self.layout.dir()).await;
            return Err(error);
        }
        self.status()
    }

    /// How it stands, without changing anything.
    pub fn status(&self) -> Result<Status, SandboxError> {
        status::look(&self.layout)
    }

    /// Compares the ledger with the server that a drill restored: see [`ledger::compare`].
    pub async fn compare(&self, until: Option<DateTime<Utc>>) -> Result<Found, SandboxError> {
        compare::run(&self.layout, until).await
    }

    /// Ends everything that runs below the directory, restored servers too, and removes it. Returns how many servers were
    /// ended; `None` when there was no sandbox. Root may stay root for it: a drill that root ran against the sandbox left
    /// files that only root can remove.
    pub async fn down(&self) -> Result<Option<usize>, SandboxError> {
        match std::fs::symlink_metadata(self.layout.dir()) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(SandboxError::io("looking at", self.layout.dir())(error)),
            Ok(_) if !self.layout.is_marked() => {
                let why = "it does not carry the marker of a sandbox".to_owned();
                return Err(SandboxError::Directory { dir: self.layout.dir().to_owned(), why });
            }
            Ok(_) => {}
        }
        let owner = privileges::account()?.map_or_else(|| nix::unistd::geteuid().as_raw(), |account| account.uid);
        self.layout.claim(owner)?;
        let _lock = self.lock()?;
        self.clear(Clear::Away).await.map(Some)
    }

    /// The status when an `up` with these options would change nothing.
    async fn fresh(&self, options: &Options) -> Result<Option<Status>, SandboxError> {
        let status = self.status()?;
        let same = status.scale == Some(options.scale) && status.seed == Some(options.seed);
        let wanted = if options.healthy { State::Healthy } else { State::Broken };
        Ok(Some(status).filter(|status| same && status.state == wanted))
    }

    fn lock(&self) -> Result<Flock<std::fs::File>, SandboxError> {
        let path = self.layout.lock();
        let mut open = std::fs::OpenOptions::new();
        let file = open
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            // Root opens it in a directory that belongs to somebody else.
            .custom_flags(OFlag::O_NOFOLLOW.bits())
            .open(&path)
            .map_err(SandboxError::io("opening", &path))?;
        Flock::lock(file, FlockArg::LockExclusiveNonblock)
            .map_err(|_| SandboxError::Busy { dir: self.layout.dir().to_owned() })
    }

    async fn clear(&self, clear: Clear) -> Result<usize, SandboxError> {
        let dir = self.layout.dir();
        let ended = processes::end(dir).await?;
        let entries = std::fs::read_dir(dir).map_err(SandboxError::io("reading", dir))?;
        for entry in entries {
            let entry = entry.map_err(SandboxError::io("reading", dir))?;
            let path = entry.path();
            let kept = path == self.layout.marker()
                || path == self.layout.lock()
                || (clear == Clear::ForAnother && (path == self.layout.home() || path.ends_with("bin")));
            if !kept {
                remove(&path)?;
            }
        }
        if clear == Clear::Away {
            // The marker last: what is removed halfway can be removed again.
            remove(&self.layout.lock())?;
            remove(&self.layout.marker())?;
            match std::fs::remove_dir(dir) {
                // An empty directory that somebody else must remove, in a parent closed to us.
                Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {}
                result => result.map_err(SandboxError::io("removing", dir))?,
            }
        }
        Ok(ended)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Clear {
    /// Everything, the directory too.
    Away,
    /// Room for another incident: drills of the last one and the program stay.
    ForAnother,
}

fn remove(path: &Path) -> Result<(), SandboxError> {
    let meta = match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        meta => meta.map_err(SandboxError::io("looking at", path))?,
    };
    let removed = if meta.is_dir() { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) };
    removed.map_err(SandboxError::io("removing", path))
}
