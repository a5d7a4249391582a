//! Real servers for the tests.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use lifeboat::clock::{block, boot_now};
use lifeboat::digest::Digest;
use nix::fcntl::OFlag;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

pub mod azurite;
pub mod ceph;
pub mod gcs;
pub mod partition;
pub mod postgres;
pub mod pty;
pub mod redis;
pub mod s3;
pub mod sandbox;
pub mod sinks;
pub mod small;

/// The root of the checkout.
pub fn checkout() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Where `tests/run` puts what no package manager of the system has, unless this variable says so.
pub fn cache(variable: &str, folder: &str) -> PathBuf {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let home = std::env::var_os("HOME").map(|home| Path::new(&home).join(".cache"));
    let installed = std::env::var_os(variable).map(PathBuf::from);
    installed.or_else(|| cache.or(home).map(|cache| cache.join("lifeboat").join(folder))).unwrap_or_default()
}

/// A directory of a test. With it goes whatever still works in it: a test that fails leaves servers and engines.
pub struct Home(tempfile::TempDir);

impl Home {
    pub fn new() -> Self {
        Self(tempfile::tempdir().expect("a temporary directory"))
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        let here = self.path().canonicalize().unwrap_or_default();
        for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
            let inside = std::fs::read_link(entry.path().join("cwd")).is_ok_and(|cwd| cwd.starts_with(&here));
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()).filter(|_| inside) else {
                continue;
            };
            // Killed, PostgreSQL would leave its shared memory behind.
            let name = std::fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
            let signal = if name.trim() == "postgres" { Signal::SIGQUIT } else { Signal::SIGKILL };
            let _ = kill(Pid::from_raw(pid), signal);
        }
    }
}

/// Every file below a directory, with the digest of its bytes. Where a server writes, a file may go while it is looked at.
pub fn contents(directory: &Path) -> BTreeMap<PathBuf, Digest> {
    let mut all = BTreeMap::new();
    for entry in std::fs::read_dir(directory).unwrap().flatten() {
        let path = entry.path();
        match entry.file_type().unwrap() {
            kind if kind.is_dir() => all.extend(contents(&path)),
            // A write that is just being finished has a scratch file beside it for a moment.
            kind if kind.is_file() && !entry.file_name().to_string_lossy().contains('#') => {
                all.insert(path.clone(), Digest::of_file(&path).unwrap().0);
            }
            _ => {}
        }
    }
    all
}

/// Lets the one who reads this FIFO pass, once there is one. Whoever died on the way to it never comes.
pub fn open_the_gate(gate: &Path) {
    let patience = boot_now() + Duration::from_secs(60);
    let open = || std::fs::OpenOptions::new().write(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(gate);
    let mut opened = open();
    while opened.is_err() && boot_now() < patience {
        block(Duration::from_millis(5));
        opened = open();
    }
    opened.expect("somebody stands before the gate").write_all(b"through\n").expect("the gate takes a word");
}

/// A deterministic stream of numbers.
#[derive(Clone)]
pub struct Numbers(pub u64);

impl Numbers {
    pub fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % limit
    }
}
