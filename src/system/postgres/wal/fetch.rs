//! `restore_command`: a rename when the stager was faster, the bucket otherwise. Without a stage hit nothing is set up
//! that a rename does not need: no runtime, no bucket.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::archive::{Location, WalError};
use super::name::{BadSegment, WalFile};
use super::stage;
use super::supply::Supply;
use crate::clock;
use crate::system::postgres::engine::{Engine, Reader};

/// Between two looks at the stage.
const LOOK: Duration = Duration::from_millis(2);

/// Tries at a bucket that fails, with a doubling pause.
const TRIES: u32 = 6;

/// Where WAL comes from, as a command line can say it.
#[derive(Debug, Clone)]
pub enum Origin {
    Bucket(Location),
    Engine(Engine),
}

/// Gets WAL files for a server in recovery.
#[derive(Debug, Clone)]
pub struct Fetch {
    pub from: Origin,
    /// Where a running restore puts segments ahead of the server.
    pub stage: Option<PathBuf>,
    /// Segments of another cluster are refused.
    pub system_identifier: Option<u64>,
    /// The first segment that is beyond the plan: it and later ones of its timeline are "not there".
    pub end: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fetched {
    Restored,
    /// Definitely: the archive is there, and the file is not in it.
    NotThere,
}

impl Fetch {
    /// Puts `name` at `to`. Blocks while a living stager has it on its way.
    pub fn run(&self, name: &str, to: &Path) -> Result<Fetched, WalError> {
        let file = WalFile::parse(name).ok_or_else(|| BadSegment::Name(name.to_owned()))?;
        if let Some(stage) = &self.stage {
            if self.is_beyond(name) {
                stage::note_missing(stage, name);
                return Ok(Fetched::NotThere);
            }
            if self.take_staged(stage, name, to)? {
                return Ok(Fetched::Restored);
            }
        }
        let Some(bytes) = self.download(&file, to)? else {
            if let Some(stage) = self.stage.as_ref().filter(|_| file.is_wal()) {
                stage::note_missing(stage, name);
            }
            return Ok(Fetched::NotThere);
        };
        if let Some(stage) = &self.stage {
            stage::note_asked(stage, name);
        }
        place(&bytes, to).map_err(|source| WalError::Io { operation: "writing", path: to.to_owned(), source })?;
        Ok(Fetched::Restored)
    }

    fn is_beyond(&self, name: &str) -> bool {
        self.end.as_deref().is_some_and(|end| name.len() == 24 && name[..8] == end[..8] && name >= end)
    }

    fn take_staged(&self, stage: &Path, name: &str, to: &Path) -> Result<bool, WalError> {
        let parent = nix::unistd::getppid();
        loop {
            match std::fs::rename(stage.join(name), to) {
                Ok(()) => return Ok(true),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(source) => return Err(WalError::Io { operation: "renaming", path: stage.join(name), source }),
            }
            match stage::on_its_way(stage, name) {
                stage::Way::Coming => clock::block(LOOK),
                // It may have arrived between the two looks.
                stage::Way::Delivered => return Ok(std::fs::rename(stage.join(name), to).is_ok()),
                stage::Way::NotComing => return Ok(false),
            }
            if nix::unistd::getppid() != parent {
                return Err(WalError::Orphaned(name.to_owned()));
            }
        }
    }

    fn download(&self, file: &WalFile, to: &Path) -> Result<Option<Vec<u8>>, WalError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|source| {
            WalError::Io { operation: "starting a runtime for", path: PathBuf::from(file.name()), source }
        })?;
        let mut pause = Duration::from_millis(100);
        let mut left = TRIES;
        loop {
            left -= 1;
            match runtime.block_on(self.once(file, to)) {
                Err(error) if error.may_pass() && left > 0 => {
                    // Standard error is PostgreSQL's log, perhaps on a full disk; the next try matters more.
                    let _ = writeln!(io::stderr(), "lifeboat wal fetch: {error}; trying again");
                    clock::block(pause);
                    pause *= 2;
                }
                result => return result,
            }
        }
    }

    async fn once(&self, file: &WalFile, to: &Path) -> Result<Option<Vec<u8>>, WalError> {
        let supply = match &self.from {
            Origin::Bucket(location) => Supply::Bucket(location.open()?),
            Origin::Engine(engine) => {
                let io = |operation, path: &Path| {
                    let path = path.to_owned();
                    move |source| WalError::Io { operation, path, source }
                };
                // PostgreSQL runs it in the data directory, and says %p from there.
                let here = std::env::current_dir().map_err(io("looking where to put", to))?;
                let to = here.join(to);
                let engine = match here.join("global/pg_control").exists() {
                    true => engine.clone().of_cluster(&here),
                    false => engine.clone(),
                };
                Supply::Engine(Arc::new(Reader::in_directory(
                    engine,
                    self.stage.as_deref().or(to.parent()).unwrap_or(&here),
                )))
            }
        };
        match supply.stored(file).await? {
            Some(stored) => supply.unpack(file, stored, self.system_identifier).map(Some),
            None => Ok(None),
        }
    }
}

/// Whole or not at all.
fn place(bytes: &[u8], to: &Path) -> io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let mut scratch = to.as_os_str().to_owned();
    scratch.push(".lifeboat");
    let scratch = PathBuf::from(scratch);
    let mut file = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&scratch)?;
    io::Write::write_all(&mut file, bytes)?;
    std::fs::rename(&scratch, to)
}
