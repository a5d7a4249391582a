//! What a sandbox needs from the system, and the commands that bring it.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::process::{find_program, postgres_bin};

use super::error::SandboxError;

/// The oldest PostgreSQL that will do.
const OLDEST: u32 = 13;

/// Tells Debian's packages not to start what they install.
const POLICY: &str = "/usr/sbin/policy-rc.d";
/// Its content: exit code 101 means "not allowed".
const POLICY_TEXT: &str = "#!/bin/sh\n# placed by `lifeboat sandbox --install`, removed when it ends\nexit 101\n";

/// Something that is not there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missing {
    /// `redis-server` …
    pub what: String,
    pub need: Need,
    /// The command that installs it on this system, to be typed.
    pub command: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Need {
    Postgres,
    PostgresContrib,
    Redis,
    SshKeygen,
}

impl Need {
    fn what(self) -> String {
        match self {
            Self::Postgres => format!("PostgreSQL server {OLDEST} or newer"),
            Self::PostgresContrib => "PostgreSQL's contrib modules (amcheck)".to_owned(),
            Self::Redis => "redis-server and redis-cli".to_owned(),
            Self::SshKeygen => "ssh-keygen".to_owned(),
        }
    }
}

/// The package manager of this system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manager {
    Apt,
    Dnf,
    Brew,
}

impl Manager {
    /// By `/etc/os-release`; everything that is not Linux is taken for macOS.
    pub fn of(os_release: Option<&str>) -> Option<Self> {
        let Some(text) = os_release else { return Some(Self::Brew) };
        let value = |key: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
            line.unwrap_or("").trim_matches(['"', '\'']).to_owned()
        };
        let names = format!("{} {}", value("ID"), value("ID_LIKE"));
        names.split_whitespace().find_map(|name| match name {
            "debian" | "ubuntu" => Some(Self::Apt),
            "fedora" | "rhel" | "centos" => Some(Self::Dnf),
            _ => None,
        })
    }

    fn packages(self, need: Need) -> &'static [&'static str] {
        match (self, need) {
            // Debian's server package holds the contrib modules.
            (Self::Apt, Need::Postgres | Need::PostgresContrib) => &["postgresql"],
            (Self::Apt, Need::Redis) => &["redis-server"],
            (Self::Apt, Need::SshKeygen) => &["openssh-client"],
            (Self::Dnf, Need::Postgres) => &["postgresql-server", "postgresql-contrib"],
            (Self::Dnf, Need::PostgresContrib) => &["postgresql-contrib"],
            // By the program and not by a package: since Fedora 41 it is Valkey that brings it.
            (Self::Dnf, Need::Redis) => &["/usr/bin/redis-server", "/usr/bin/redis-cli"],
            (Self::Dnf, Need::SshKeygen) => &["openssh-clients"],
            (Self::Brew, Need::Postgres | Need::PostgresContrib) => &["postgresql@17"],
            (Self::Brew, Need::Redis) => &["redis"],
            (Self::Brew, Need::SshKeygen) => &["openssh"],
        }
    }
}

/// Where commands run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Site {
    pub manager: Manager,
    /// Root needs no sudo.
    pub root: bool,
    /// Somebody else's `policy-rc.d` is in force and stays.
    pub has_policy: bool,
}

/// What will be run: each an argv, shown as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    pub commands: Vec<Vec<String>>,
    /// Run at the end, whatever happened.
    pub cleanup: Vec<Vec<String>>,
}

impl Plan {
    /// The commands for what is missing.
    pub fn new(site: Site, needs: &[Need]) -> Self {
        let sudo: &[&str] = if site.root || site.manager == Manager::Brew { &[] } else { &["sudo"] };
        let argv =
            |words: &[&str]| -> Vec<String> { sudo.iter().chain(words).map(|word| (*word).to_owned()).collect() };
        let mut packages: Vec<&str> = Vec::new();
        for package in needs.iter().flat_map(|need| site.manager.packages(*need)) {
            if !packages.contains(package) {
                packages.push(package);
            }
        }
        let install = |words: &[&str]| argv(&[words, packages.as_slice()].concat());
        let mut plan = Self { commands: Vec::new(), cleanup: Vec::new() };
        match site.manager {
            Manager::Apt => {
                if !site.has_policy {
                    plan.commands.push(argv(&["install", "-m", "755", "/dev/stdin", POLICY]));
                    plan.cleanup.push(argv(&["rm", "-f", POLICY]));
                }
                plan.commands.push(argv(&["apt-get", "update"]));
                plan.commands.push(install(&[
                    "env",
                    "DEBIAN_FRONTEND=noninteractive",
                    "apt-get",
                    "install",
                    "-y",
                    "--no-install-recommends",
                ]));
            }
            Manager::Dnf => plan.commands.push(install(&["dnf", "install", "-y", "--setopt=install_weak_deps=False"])),
            Manager::Brew => plan.commands.push(install(&["brew", "install"])),
        }
        plan
    }

    /// One line a command, as a shell would take it.
    pub fn lines(&self) -> Vec<String> {
        self.commands.iter().chain(&self.cleanup).map(|argv| argv.join(" ")).collect()
    }

    /// Runs it; what the package manager says goes to standard error.
    pub fn run(&self) -> Result<(), SandboxError> {
        let done = self.commands.iter().try_for_each(|argv| execute(argv));
        let cleaned = self.cleanup.iter().try_for_each(|argv| execute(argv));
        done.and(cleaned)
    }
}

fn execute(argv: &[String]) -> Result<(), SandboxError> {
    use std::io::Write as _;
    let operation = argv.join(" ");
    let failed = |source| SandboxError::Os { operation: "installing", source };
    let is_policy = argv.last().is_some_and(|word| word == POLICY) && argv.iter().any(|word| word == "/dev/stdin");
    let (program, args) = argv.split_first().ok_or_else(|| failed(std::io::Error::other("an empty command")))?;
    let mut child = Command::new(program)
        .args(args)
        .stdin(if is_policy { Stdio::piped() } else { Stdio::null() })
        .stdout(std::io::stderr())
        .spawn()
        .map_err(failed)?;
    if let Some(mut pipe) = child.stdin.take() {
        pipe.write_all(POLICY_TEXT.as_bytes()).map_err(failed)?;
    }
    let status = child.wait().map_err(failed)?;
    if status.success() {
        return Ok(());
    }
    let end = crate::process::End::Exited(status.code().unwrap_or(-1));
    Err(SandboxError::Program { operation: format!("`{operation}`"), end, output: String::new() })
}

/// How things are on this machine; `None` when its package manager is not known.
pub fn site() -> Option<Site> {
    let os_release = if cfg!(target_os = "linux") {
        Some(std::fs::read_to_string("/etc/os-release").unwrap_or_default())
    } else {
        None
    };
    Manager::of(os_release.as_deref()).map(|manager| Site {
        manager,
        root: nix::unistd::geteuid().is_root(),
        has_policy: Path::new(POLICY).exists(),
    })
}

/// Everything that is not there.
pub fn missing() -> Vec<Missing> {
    let site = site();
    needs().into_iter().map(|need| Missing { what: need.what(), need, command: command(site, need) }).collect()
}

/// What is not there and which commands bring it: `None` when nothing is missing.
pub fn plan() -> Result<Option<Plan>, SandboxError> {
    let needs = needs();
    match site() {
        _ if needs.is_empty() => Ok(None),
        Some(site) => Ok(Some(Plan::new(site, &needs))),
        None => Err(SandboxError::Missing(missing())),
    }
}

fn command(site: Option<Site>, need: Need) -> String {
    let Some(site) = site else { return "the package manager of this system is not known to Lifeboat".to_owned() };
    // A person who types it needs no policy for services.
    let plan = Plan::new(Site { has_policy: true, ..site }, &[need]);
    plan.commands.last().map(|argv| argv.join(" ")).unwrap_or_default()
}

fn needs() -> Vec<Need> {
    let mut needs = Vec::new();
    match postgres_bin().filter(|bin| version(bin).is_some_and(|version| version >= OLDEST)) {
        None => needs.push(Need::Postgres),
        Some(bin) if !has_contrib(&bin) => needs.push(Need::PostgresContrib),
        Some(_) => {}
    }
    if find_program("redis-server").is_none() || find_program("redis-cli").is_none() {
        needs.push(Need::Redis);
    }
    if find_program("ssh-keygen").is_none() {
        needs.push(Need::SshKeygen);
    }
    needs
}

/// The major version of a server.
fn version(bin: &Path) -> Option<u32> {
    let output = Command::new(bin.join("postgres")).arg("--version").stdin(Stdio::null()).output().ok()?;
    major(&String::from_utf8_lossy(&output.stdout))
}

/// `postgres (PostgreSQL) 15.18 (Debian …)` → 15.
fn major(text: &str) -> Option<u32> {
    let number = text.split_whitespace().find(|word| word.starts_with(|c: char| c.is_ascii_digit()))?;
    number.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

/// Whether the modules are beside the server. Where its directory of extensions is not known they are taken to be there.
fn has_contrib(bin: &Path) -> bool {
    let mut places: Vec<PathBuf> =
        ["../share/extension", "../share/postgresql/extension"].iter().map(|place| bin.join(place)).collect();
    places.push(PathBuf::from("/usr/share/pgsql/extension"));
    // /usr/lib/postgresql/15/bin and /opt/homebrew/opt/postgresql@17/bin
    if let Some(name) = bin.parent().and_then(Path::file_name) {
        places.push(Path::new("/usr/share/postgresql").join(name).join("extension"));
        places.push(bin.join("../share").join(name).join("extension"));
    }
    match places.iter().find(|place| place.join("plpgsql.control").exists()) {
        Some(place) => place.join("amcheck.control").exists(),
        None => true,
    }
}

#[cfg(test)]
mod tests;
