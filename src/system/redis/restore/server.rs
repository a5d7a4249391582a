//! The server of a restore: its configuration, its start, its end.
//!
//! Until it is proven it is reached by a socket that only we and its own account can open: nobody writes into what is still
//! being restored, and nobody reads what may yet be thrown away.

use std::ffi::OsStr;
use std::fs::Permissions;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;

use super::RestoreError;
use crate::clock;
use crate::digest::Digest;
use crate::mutant;
use crate::process::{Account, Spec};
use crate::secret::Secret;
use crate::system::redis::connect::{self, Info, Redis, RedisError};

/// Until a new server listens. Loading comes after that.
const LISTEN: Duration = Duration::from_secs(60);
/// Until a server that was told to stop has stopped.
const STOP: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(20);
/// Bytes of a socket's path; Linux takes 107, others fewer.
const SOCKET_PATH: usize = 100;

/// What every configuration of one restore has in common.
pub struct Plan {
    pub program: PathBuf,
    pub account: Option<Account>,
    pub directory: PathBuf,
    pub port: u16,
    /// Where the server will answer everybody, with the source's user and password.
    pub url: Secret,
    /// Where it answers us alone, with the same.
    pub door: Secret,
    /// Databases of the snapshot.
    pub databases: u32,
}

/// Who can come in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Open {
    /// By the socket only.
    ToUs,
    /// By its port.
    ToAll,
}

/// How the server keeps its data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keeping {
    /// Loads the RDB and writes nothing.
    Nothing,
    /// Loads the append-only file, to its last byte or not at all.
    AsLaid,
    /// AOF each second, an RDB as the save points say.
    Everything,
}

impl Plan {
    pub fn data(&self) -> PathBuf {
        self.directory.join("data")
    }

    pub fn config_file(&self) -> PathBuf {
        self.directory.join("redis.conf")
    }

    fn log(&self) -> PathBuf {
        self.directory.join("redis.log")
    }

    /// A folder of mode 0700: the data's own, or one with a shorter path.
    fn socket_folder(&self) -> PathBuf {
        let data = self.data();
        if data.as_os_str().len() + "/redis.sock".len() <= SOCKET_PATH {
            return data;
        }
        let name = Digest::of(data.as_os_str().as_encoded_bytes()).short();
        std::env::temp_dir().join(format!("lifeboat-{name}"))
    }

    pub fn socket(&self) -> PathBuf {
        self.socket_folder().join("redis.sock")
    }

    /// The configuration. Passwords stand in it only as SHA-256.
    fn config(&self, keeping: Keeping, open: Open) -> Result<String, RedisError> {
        let mut lines = vec![
            "bind 127.0.0.1".to_owned(),
            format!("port {}", if open == Open::ToAll || mutant::removes("7c") { self.port } else { 0 }),
            "protected-mode yes".to_owned(),
            "daemonize no".to_owned(),
            format!("dir {}", quote(self.data())),
            format!("pidfile {}", quote(self.data().join("redis.pid"))),
            "dbfilename dump.rdb".to_owned(),
            format!("databases {}", self.databases.max(16)),
        ];
        if open == Open::ToUs {
            lines.push(format!("unixsocket {}", quote(self.socket())));
            lines.push("unixsocketperm 700".to_owned());
        }
        let info = connect::parse(&self.url)?;
        if let Some(password) = info.redis_settings().password() {
            let everything = format!("on #{} allkeys allchannels allcommands", Digest::of(password.as_bytes()));
            lines.push(format!("user default {everything}"));
            if let Some(user) = info.redis_settings().username().filter(|user| *user != "default") {
                lines.push(format!("user {} {everything}", quote(user)));
            }
        }
        lines.extend(
            match keeping {
                Keeping::Nothing if mutant::removes("7") => &["appendonly yes", "save \"\""],
                Keeping::Nothing => &["appendonly no", "save \"\""][..],
                Keeping::AsLaid => &[
                    "appendonly yes",
                    "appendfsync everysec",
                    "aof-load-truncated no",
                    "aof-use-rdb-preamble yes",
                    "auto-aof-rewrite-percentage 0",
                    "save \"\"",
                ],
                Keeping::Everything => &[
                    "appendonly yes",
                    "appendfsync everysec",
                    "auto-aof-rewrite-percentage 100",
                    "auto-aof-rewrite-min-size 64mb",
                    "save 900 1",
                    "save 300 10",
                    "save 60 10000",
                ],
            }
            .iter()
            .map(|line| (*line).to_owned()),
        );
        Ok(lines.join("\n") + "\n")
    }

    fn write_config(&self, keeping: Keeping, open: Open) -> Result<(), RestoreError> {
        let path = self.config_file();
        let io = |source| RestoreError::Io { operation: "writing", path: path.clone(), source };
        let text = self.config(keeping, open)?;
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(io(error)),
            _ => {}
        }
        let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path).map_err(io)?;
        std::io::Write::write_all(&mut file, text.as_bytes()).map_err(io)?;
        self.give(&path)
    }

    /// The place of the server's data, which only its account may enter.
    pub fn make_data(&self) -> Result<(), RestoreError> {
        let io = |path: &Path| {
            let path = path.to_owned();
            move |source| RestoreError::Io { operation: "making", path, source }
        };
        let data = self.data();
        // The server's account passes through; marker and configuration stay ours.
        std::fs::set_permissions(&self.directory, Permissions::from_mode(0o711)).map_err(io(&self.directory))?;
        std::fs::create_dir(&data).map_err(io(&data))?;
        std::fs::set_permissions(&data, Permissions::from_mode(0o700)).map_err(io(&data))?;
        self.give(&data)?;
        let folder = self.socket_folder();
        if folder == data {
            return Ok(());
        }
        self.remove_socket();
        // Fails on whatever else is there: nobody else's folder is taken for ours.
        std::fs::DirBuilder::new().mode(0o700).create(&folder).map_err(io(&folder))?;
        self.give(&folder)
    }

    /// The socket's folder where it is not below the data.
    pub fn remove_socket(&self) {
        let folder = self.socket_folder();
        if folder != self.data() {
            let _ = std::fs::remove_dir_all(folder);
        }
    }

    pub fn give(&self, path: &Path) -> Result<(), RestoreError> {
        let Some(account) = &self.account else { return Ok(()) };
        account.give(path).map_err(|source| RestoreError::Io {
            operation: "giving to the server's account",
            path: path.to_owned(),
            source,
        })
    }

    /// Starts the server and waits until it answers us, and nobody else. It ends with the returned leash unless that is
    /// released.
    pub async fn start(&self, keeping: Keeping) -> Result<(Leash, Redis), RestoreError> {
        self.launch(keeping, Open::ToUs).await
    }

    /// Lets everybody in, now and at every later start. What the server holds must have been proven, and recorded as proven.
    pub async fn open(&self, leash: Leash, redis: Redis, version: &str) -> Result<(Leash, Redis), RestoreError> {
        self.write_config(Keeping::Everything, Open::ToAll)?;
        // Redis 6 takes no other port while it runs.
        if major(version) < 7 {
            self.stop(leash, &redis).await?;
            return self.launch(Keeping::Everything, Open::ToAll).await;
        }
        self.listen(&redis).await?;
        Ok((leash, redis))
    }

    /// Has a server that runs listen on its port.
    pub async fn listen(&self, redis: &Redis) -> Result<(), RestoreError> {
        let command = redis::cmd("CONFIG").arg("SET").arg("port").arg(self.port).to_owned();
        match redis.query::<String>("CONFIG SET port", &command).await {
            Ok(_) => Ok(()),
            Err(RedisError::Command { why, .. }) => Err(RestoreError::Taken { port: self.port, why }),
            Err(error) => Err(error.into()),
        }
    }

    async fn launch(&self, keeping: Keeping, open: Open) -> Result<(Leash, Redis), RestoreError> {
        self.write_config(keeping, open)?;
        let url = if open == Open::ToAll { &self.url } else { &self.door };
        let spec = Spec::new(&self.program).arg(self.config_file()).cwd("/").run_as(self.account.clone());
        let leash = Leash(Some(spec.detach(&self.log())?));
        let until = clock::boot_now() + LISTEN;
        loop {
            // Another server may have the port; ours will then end by itself and say so in its log.
            if let Ok(redis) = Redis::connect(url).await
                && let Ok(info) = redis.info().await
                && info.number("process_id") == leash.0.map(u64::from)
            {
                return Ok((leash, redis));
            }
            if !self.ours(&leash) {
                return Err(RestoreError::Ended { log: self.log_tail() });
            }
            if clock::boot_now() > until {
                return Err(RestoreError::Silent { address: connect::address(url)?, log: self.log_tail() });
            }
            clock::sleep(LOOK).await;
        }
    }

    fn ours(&self, leash: &Leash) -> bool {
        leash.0.is_some_and(is_alive)
    }

    /// The answer of a server under way, or how it ended.
    pub async fn info(&self, leash: &Leash, redis: &Redis) -> Result<Info, RestoreError> {
        match redis.info().await {
            Ok(info) => Ok(info),
            Err(_) if !self.ours(leash) => Err(RestoreError::Ended { log: self.log_tail() }),
            Err(error) => Err(error.into()),
        }
    }

    /// Stops the server in peace, without a last RDB: what it holds is in its AOF.
    pub async fn stop(&self, mut leash: Leash, redis: &Redis) -> Result<(), RestoreError> {
        let Some(pid) = leash.0 else { return Ok(()) };
        // It closes the connection instead of an answer.
        let _ = redis.query::<redis::Value>("SHUTDOWN", redis::cmd("SHUTDOWN").arg("NOSAVE")).await;
        if !ended(pid, STOP).await {
            return Err(RestoreError::Running { pid });
        }
        leash.release();
        Ok(())
    }

    /// The last lines of the server's log.
    pub fn log_tail(&self) -> String {
        let text = std::fs::read(self.log()).unwrap_or_default();
        let from = text.len().saturating_sub(4096);
        let text = String::from_utf8_lossy(&text[from..]).into_owned();
        // The first line is cut in two.
        let lines: Vec<&str> =
            text.lines().skip(usize::from(from > 0)).filter(|line| !line.trim().is_empty()).collect();
        lines[lines.len().saturating_sub(3)..].join(" · ")
    }

    /// The server that was started with our configuration, where one answers: by its socket, or by its port.
    pub async fn answering(&self) -> Option<(Redis, Info)> {
        for url in [&self.door, &self.url] {
            if let Ok(redis) = Redis::connect(url).await
                && let Ok(info) = redis.info().await
                && Path::new(info.text("config_file")) == self.config_file()
            {
                return Some((redis, info));
            }
        }
        None
    }

    /// The server that an earlier attempt started here and that still runs. Never another one: it must say that it was
    /// started with our configuration, or work in our directory.
    pub async fn leftover(&self) -> Result<Option<u32>, RestoreError> {
        if let Some((_, info)) = self.answering().await
            && let Some(pid) = info.number("process_id").and_then(|pid| u32::try_from(pid).ok())
        {
            return Ok(Some(pid));
        }
        let pid = std::fs::read_to_string(self.data().join("redis.pid")).ok();
        let Some(pid) = pid.and_then(|text| text.trim().parse().ok()).filter(|pid| is_alive(*pid)) else {
            return Ok(None);
        };
        match (Path::new("/proc/self").exists(), std::fs::read_link(format!("/proc/{pid}/cwd"))) {
            (true, Ok(cwd)) => Ok((Some(cwd) == self.data().canonicalize().ok()).then_some(pid)),
            // The pid was given to another since.
            (true, Err(_)) => Ok(None),
            (false, _) => Err(RestoreError::Running { pid }),
        }
    }
}

/// Ends a server that was proven to be ours, with its children.
pub async fn end(pid: u32) -> Result<(), RestoreError> {
    kill_group(pid);
    match ended(pid, STOP).await {
        true => Ok(()),
        false => Err(RestoreError::Running { pid }),
    }
}

async fn ended(pid: u32, within: Duration) -> bool {
    let until = clock::boot_now() + within;
    while is_alive(pid) {
        if clock::boot_now() > until {
            return false;
        }
        clock::sleep(LOOK).await;
    }
    true
}

/// A server that ends when this is dropped.
pub struct Leash(Option<u32>);

impl Leash {
    pub fn pid(&self) -> u32 {
        self.0.unwrap_or_default()
    }

    /// It lives on.
    pub fn release(&mut self) {
        self.0 = None;
    }
}

impl Drop for Leash {
    fn drop(&mut self) {
        if let Some(pid) = self.0 {
            kill_group(pid);
        }
    }
}

fn kill_group(pid: u32) {
    // A detached server leads its own group. ESRCH: it has already ended.
    if let Some(pid) = i32::try_from(pid).ok().filter(|pid| *pid > 1) {
        let _ = killpg(Pid::from_raw(pid), Signal::SIGKILL);
    }
}

fn is_alive(pid: u32) -> bool {
    let Some(raw) = i32::try_from(pid).ok().filter(|pid| *pid > 1) else { return false };
    // A zombie that nobody has reaped yet answers signals, and is dead.
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    kill(Pid::from_raw(raw), None) != Err(nix::errno::Errno::ESRCH) && !stat.contains(") Z ")
}

/// The first number of a version; all of them where it is none.
pub fn major(version: &str) -> u32 {
    version.split('.').next().and_then(|major| major.parse().ok()).unwrap_or(u32::MAX)
}

/// As `sdssplitargs` reads it.
fn quote(text: impl AsRef<OsStr>) -> String {
    use std::os::unix::ffi::OsStrExt as _;
    let mut out = String::from("\"");
    for byte in text.as_ref().as_bytes() {
        match byte {
            b'"' | b'\\' => {
                out.push('\\');
                out.push(char::from(*byte));
            }
            b' '..=b'~' => out.push(char::from(*byte)),
            _ => out.push_str(&format!("\\x{byte:02x}")),
        }
    }
    out + "\""
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(url: &str) -> Plan {
        Plan {
            program: "redis-server".into(),
            account: None,
            directory: "/srv/re \"store\"\n".into(),
            port: 7000,
            url: Secret::new(url),
            door: Secret::new(url),
            databases: 20,
        }
    }

    #[test]
    fn a_configuration_holds_no_password_and_no_line_from_a_path() {
        let text = plan("redis://app:hunter22@127.0.0.1:7000/0").config(Keeping::Nothing, Open::ToUs).unwrap();
        assert!(!text.contains("hunter22"));
        let hash = Digest::of(b"hunter22");
        assert!(text.contains(&format!("user default on #{hash} allkeys")), "{text}");
        assert!(text.contains(&format!("user \"app\" on #{hash} allkeys")), "{text}");
        assert!(text.contains("dir \"/srv/re \\\"store\\\"\\x0a/data\"\n"), "{text}");
        assert!(text.contains("port 0\n") && text.contains("unixsocketperm 700\n"), "{text}");
        assert!(text.contains("appendonly no\nsave \"\"\n") && text.contains("databases 20\n"), "{text}");
        let text = plan("redis://127.0.0.1:7000/0").config(Keeping::Everything, Open::ToAll).unwrap();
        assert!(
            !text.contains("user ") && text.contains("appendonly yes\n") && text.contains("save 900 1\n"),
            "{text}"
        );
        assert!(!text.contains("replicaof"));
        assert!(text.contains("port 7000\n") && !text.contains("unixsocket"), "{text}");
    }
}
