//! A real Redis, on a free port, as an unprivileged user, gone when dropped.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

use lifeboat::clock;
use lifeboat::process::{Account, Spec, find_program};
use lifeboat::secret::Secret;
use lifeboat::system::redis::Redis;

use super::Home;

pub struct TestRedis {
    pub url: Secret,
    pub port: u16,
    pid: u32,
}

/// A directory that an unprivileged server may enter and write.
pub fn open_directory() -> Home {
    let directory = Home::new();
    give(directory.path());
    directory
}

fn give(path: &Path) {
    if let Some(account) = Account::unprivileged().expect("the accounts") {
        account.give(path).expect("root may give files away");
    }
}

/// What the program gives itself lies above: a sandbox that starts beside does not take what a test was told.
const PORTS: std::ops::Range<u16> = 10_000..15_000;

/// One that no other test of this process was told.
pub fn free_port() -> u16 {
    static TOLD: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    loop {
        let [port] = lifeboat::process::free_ports_in(PORTS).expect("a free port");
        if TOLD.lock().expect("the ports").insert(port) {
            return port;
        }
    }
}

impl TestRedis {
    /// Starts a server in `directory`, with these arguments beyond the usual ones; `password` goes into its URL.
    pub async fn start(directory: &Path, arguments: &[&str], password: Option<&str>) -> Self {
        let port = free_port();
        let login = password.map(|password| format!(":{password}@")).unwrap_or_default();
        let url = Secret::new(format!("redis://{login}127.0.0.1:{port}/0"));
        let server = find_program("redis-server").expect("these tests need redis-server");
        let pid = Spec::new(server)
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--dir"])
            .arg(directory)
            .args(arguments)
            .run_as(Account::unprivileged().expect("the accounts"))
            .detach(&directory.join("server.log"))
            .expect("redis-server starts");
        let redis = Self { url, port, pid };
        let up = async {
            while !redis.is_up().await {
                clock::sleep(Duration::from_millis(10)).await;
            }
        };
        if tokio::time::timeout(Duration::from_secs(20), up).await.is_err() {
            panic!("{}", std::fs::read_to_string(directory.join("server.log")).unwrap_or_default());
        }
        redis
    }

    /// It answers and has loaded; while it loads it already tells a part of its keys.
    async fn is_up(&self) -> bool {
        match self.connect().await {
            Ok(redis) => redis.info().await.is_ok_and(|info| !info.flag("loading")),
            Err(_) => false,
        }
    }

    async fn connect(&self) -> Result<Redis, lifeboat::system::redis::RedisError> {
        Redis::connect(&self.url).await
    }

    pub async fn client(&self) -> Redis {
        self.connect().await.expect("the test server answers")
    }

    /// Runs one command given as words.
    pub async fn run(&self, words: &str) -> redis::Value {
        run(&self.client().await, words).await
    }
}

/// Sends a file of commands by Redis' own client; returns how many were refused.
pub fn pipe(url: &Secret, file: &Path) -> u64 {
    let mut command = std::process::Command::new("redis-cli");
    command.args(["-u", url.expose(), "--pipe"]).stdin(std::fs::File::open(file).expect("the file"));
    let output = command.output().expect("redis-cli runs");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let (errors, _) = said.split_once(", replies:").unwrap_or_else(|| panic!("{said}"));
    errors.rsplit("errors: ").next().and_then(|number| number.parse().ok()).unwrap_or_else(|| panic!("{said}"))
}

pub async fn run(redis: &Redis, words: &str) -> redis::Value {
    let mut words = words.split(' ');
    let mut command = redis::cmd(words.next().expect("a command"));
    for word in words {
        command.arg(word);
    }
    redis.query("the test's command", &command).await.expect("the test's command works")
}

impl Drop for TestRedis {
    fn drop(&mut self) {
        if let Ok(pid) = i32::try_from(self.pid) {
            let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
        }
    }
}
