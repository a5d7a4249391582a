//! A cloud of a test: the stand-in for its tool, and what that one keeps.

use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::Duration;

use lifeboat::clock::{block, boot_now};
use lifeboat::event::{Failure, parse_time};
use lifeboat::inventory::{self, ManagedBy};
use lifeboat::secret::Secret;
use lifeboat::system::postgres::Reporter;
use lifeboat::system::postgres::managed::{Managed, Moment, Owner, Patience, Restore, Restored};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::support::postgres::{Primary, program};
use crate::support::redis::open_directory;
use crate::support::sandbox::text;
use crate::support::{Home, checkout};

/// It stands in the URL of the source, and nowhere else.
pub const PASSWORD: &str = "correct-horse-managed-canary";

pub struct Cloud {
    pub home: Home,
    tool: &'static str,
}

impl Cloud {
    pub fn new(tool: &'static str) -> Self {
        let home = open_directory();
        let real = checkout().join("tests/it/clouds").join(tool);
        std::os::unix::fs::symlink(real, home.path().join(tool)).unwrap();
        for name in ["instances", "fail", "ignore", "gate", "store"] {
            std::fs::create_dir(home.path().join(name)).unwrap();
        }
        Self { home, tool }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    pub fn program(&self) -> PathBuf {
        self.path(self.tool)
    }

    /// An answer as it is documented.
    pub fn documented(file: &str) -> Value {
        let path = checkout().join("tests/it/clouds").join(file);
        serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
    }

    pub fn put(&self, name: &str, instance: &Value) {
        std::fs::write(self.path(&format!("instances/{name}.json")), instance.to_string()).unwrap();
    }

    pub fn get(&self, name: &str) -> Value {
        serde_json::from_slice(&std::fs::read(self.path(&format!("instances/{name}.json"))).unwrap()).unwrap()
    }

    /// Of all instances that restores made, in order.
    pub fn new_ones(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.path("instances")).unwrap().flatten();
        let names = entries.filter_map(|entry| entry.file_name().to_str()?.strip_suffix(".json").map(str::to_owned));
        let mut names: Vec<String> = names.filter(|name| name.starts_with("orders-lb-")).collect();
        names.sort();
        names
    }

    /// What the next call of the command says, and fails.
    pub fn fail(&self, command: &str, says: &str) {
        std::fs::write(self.path(&format!("fail/{command}")), says).unwrap();
    }

    /// As [`Cloud::fail`], for so many calls.
    pub fn busy(&self, command: &str, says: &str, calls: usize) {
        std::fs::write(self.path(&format!("fail/{command}.calls")), calls.to_string()).unwrap();
        self.fail(command, says);
    }

    pub fn ignore(&self, command: &str) {
        std::fs::write(self.path(&format!("ignore/{command}")), "").unwrap();
    }

    /// Calls of the command wait behind it when they have done their work.
    pub fn gate(&self, command: &str) -> PathBuf {
        let gate = self.path(&format!("gate/{command}"));
        nix::unistd::mkfifo(&gate, nix::sys::stat::Mode::from_bits_truncate(0o666)).unwrap();
        gate
    }

    /// Every call so far, word by word.
    pub fn calls(&self) -> Vec<Vec<String>> {
        let calls = std::fs::read_to_string(self.path("calls")).unwrap_or_default();
        calls.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Those that begin with these words.
    pub fn calls_of(&self, words: &[&str]) -> Vec<Vec<String>> {
        let begins = |call: &Vec<String>| call.iter().zip(words).filter(|(had, wanted)| had == wanted).count();
        self.calls().into_iter().filter(|call| begins(call) == words.len()).collect()
    }

    pub fn managed(&self, by: ManagedBy) -> Managed {
        let of = inventory::Managed { by, program: self.program(), instance: "orders".to_owned() };
        Managed { of, secrets: Vec::new() }
    }

    /// A restore that looks again at once.
    pub fn restore(&self, by: ManagedBy, to: &str) -> Restore {
        let quick = Duration::from_millis(1);
        Restore {
            managed: self.managed(by),
            moment: Moment::At(parse_time(to).unwrap()),
            owner: owner(),
            source: ("127.0.0.1".to_owned(), 5432),
            patience: Patience {
                first: quick,
                longest: quick,
                appears: Duration::from_millis(200),
                settles: Duration::from_millis(200),
                ..Patience::default()
            },
            cancel: CancellationToken::new(),
            report: Reporter::silent(),
        }
    }

    pub async fn refusal(&self, by: ManagedBy, to: &str) -> Failure {
        match self.restore(by, to).run().await {
            Ok(restored) => restored.differs.expect("it is like its source"),
            Err(failure) => failure,
        }
    }

    pub async fn restored(&self, by: ManagedBy, to: &str) -> Restored {
        let restored = self.restore(by, to).run().await;
        let restored = restored.unwrap_or_else(|failure| panic!("{failure}: {:?}", self.calls()));
        assert_eq!(restored.differs, None);
        restored
    }
}

pub fn owner() -> Owner {
    Owner { drill: "d-1".into(), system: "orders-db".into(), effect_key: "restore-db".into() }
}

/// A service whose database a cloud runs: one real server is the source, another what the cloud's new instance is.
pub struct Service {
    pub cloud: Cloud,
    pub source: Primary,
    pub new: Primary,
    /// Where the new one is reached.
    address: (&'static str, u16),
}

impl Service {
    /// `engine`: what the inventory says of the backups.
    pub async fn new(cloud: Cloud, engine: &str) -> Self {
        let (source, new) = tokio::join!(Primary::start(), Primary::start());
        let address = ("127.0.0.1", new.port);
        Self::of(cloud, engine, source, new, address).await
    }

    /// For a cloud that tells addresses and no ports: both servers have the same one.
    pub async fn beside(cloud: Cloud, engine: &str) -> Self {
        let source = Primary::start().await;
        let (host, port) = ("127.0.0.2", source.port);
        let settings = [format!("port = {port}"), format!("listen_addresses = '{host}'")];
        let mut new = Primary::start_with(&settings.each_ref().map(String::as_str)).await;
        new.url = Secret::new(format!("postgresql://dba@{host}:{port}/postgres"));
        std::fs::write(cloud.path("host"), host).unwrap();
        Self::of(cloud, engine, source, new, (host, port)).await
    }

    async fn of(cloud: Cloud, engine: &str, source: Primary, new: Primary, address: (&'static str, u16)) -> Self {
        for server in [&source, &new] {
            server.sql("create table orders (id bigserial primary key, item text)").await;
            server.sql("insert into orders (item) select 'before ' || g from generate_series(1, 500) g").await;
        }
        source.sql("delete from orders").await;
        let url = format!("postgresql://dba:{PASSWORD}@127.0.0.1:{}/postgres", source.port);
        std::fs::write(cloud.path("url"), &url).unwrap();
        std::fs::write(cloud.path("connections.env"), format!("database_url={url}\n")).unwrap();
        std::fs::write(cloud.path("answers.toml"), "fence = \"orders-db\"\n").unwrap();
        let home = cloud.home.path().display();
        let program = cloud.program();
        let inventory = format!(
            r#"
format = 1
service = "orders"
[objectives]
rpo = "5m"
[stores.backups]
url = "file://{home}/store"
[systems.orders-db]
kind = "postgres"
environment = "test"
url = {{ file = "{home}/url" }}
backups = {{ store = "backups", {engine}, instance = "orders", program = "{program}" }}
[connections.orders]
file = "{home}/connections.env"
keys = {{ database_url = "orders-db" }}
"#,
            program = program.display(),
        );
        std::fs::write(cloud.path("lifeboat.toml"), inventory).unwrap();
        Self { cloud, source, new, address }
    }

    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(program());
        command.args(args).env("LIFEBOAT_INVENTORY", self.cloud.path("lifeboat.toml"));
        command.env("LIFEBOAT_STATE_DIR", self.cloud.path("state")).env("HOME", self.cloud.home.path());
        command.current_dir(self.cloud.home.path());
        command
    }

    pub fn lifeboat(&self, args: &[&str]) -> Output {
        self.command(args).output().expect("the program runs")
    }

    pub fn done(&self, args: &[&str]) -> Output {
        let output = self.lifeboat(args);
        assert_eq!(output.status.code(), Some(0), "{args:?}: {}{}", text(&output.stdout), text(&output.stderr));
        output
    }

    /// The words of a run without a person, from before the damage.
    pub fn run<'a>(&self, damage: &'a str) -> Vec<&'a str> {
        vec!["run", "restore-managed", "--headless", "--yes", "--json", "--answers", "answers.toml", "--var", damage]
    }

    /// The run ends by SIGKILL while the tool stands behind `gate`, its work done; then the tool goes its way.
    pub fn killed_behind(&self, gate: &std::path::Path, damage: &str) {
        let mut child = self.command(&self.run(damage)).stdout(std::process::Stdio::null()).spawn().unwrap();
        let patience = boot_now() + Duration::from_secs(60);
        while self.cloud.new_ones().is_empty() {
            assert!(boot_now() < patience && child.try_wait().unwrap().is_none(), "nothing was ordered");
            block(Duration::from_millis(10));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        crate::support::open_the_gate(gate);
        std::fs::remove_file(gate).unwrap();
    }

    /// Everything that was written down of all runs.
    pub fn written(&self) -> String {
        let files = crate::support::contents(&self.cloud.path("state"));
        files.keys().map(|path| String::from_utf8_lossy(&std::fs::read(path).unwrap()).into_owned()).collect()
    }

    /// The application was led to the new server, and nobody heard the password.
    pub fn came_back(&self) {
        let connections = std::fs::read_to_string(self.cloud.path("connections.env")).unwrap();
        let (host, port) = self.address;
        let wanted = format!("database_url=postgresql://dba:{PASSWORD}@{host}:{port}/postgres\n");
        assert_eq!(connections, wanted);
        assert!(!self.written().contains(PASSWORD));
        let calls = self.cloud.calls();
        assert!(calls.iter().flatten().all(|word| !word.contains(PASSWORD) && !word.contains("delete")), "{calls:?}");
    }

    /// Killed between an order and its record, and resumed: whose order that was is found out, and the service is back.
    pub fn comes_back_after_a_kill(&self, command: &str, damage: &str) {
        let source = self.cloud.get("orders");
        let gate = self.cloud.gate(command);
        self.killed_behind(&gate, damage);
        self.done(&["resume", "--headless", "--yes", "--json", "--answers", "answers.toml"]);
        self.came_back();
        assert!(self.written().contains("an earlier attempt ordered it"));
        // The old one was fenced, and is as it was for its cloud.
        assert_eq!(self.cloud.get("orders"), source);
    }
}
