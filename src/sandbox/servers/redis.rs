use std::path::PathBuf;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::process::Spec;
use crate::sandbox::error::SandboxError;
use crate::sandbox::layout::Layout;
use crate::sandbox::program;
use crate::sandbox::secrets::Passwords;
use crate::sandbox::tools::{self, Tools};

/// The system's name in the inventory, and its folder in the bucket.
pub const NAME: &str = "orders-cache";

/// The Redis primary.
pub struct Cache<'a> {
    pub layout: &'a Layout,
    pub tools: &'a Tools,
    pub passwords: &'a Passwords,
    pub port: u16,
    pub cancel: &'a CancellationToken,
}

impl Cache<'_> {
    fn log(&self) -> PathBuf {
        self.layout.log(NAME)
    }

    /// Writes the configuration: RDB and AOF, a password, this machine only.
    pub fn create(&self) -> Result<(), SandboxError> {
        let dir = self.layout.redis();
        program::create_private(&dir)?;
        let configuration = format!(
            "# written by `lifeboat sandbox up`\n\
             bind 127.0.0.1\nport {}\nprotected-mode yes\nrequirepass {}\ndaemonize no\nsupervised no\n\
             dir {dir}\npidfile {dir}/redis.pid\ndbfilename dump.rdb\nsave 300 1000\n\
             appendonly yes\nappendfsync everysec\naof-timestamp-enabled yes\n",
            self.port,
            self.passwords.redis.expose(),
            dir = dir.display(),
        );
        program::write(&dir.join("redis.conf"), 0o600, configuration)
    }

    /// Starts it and waits until it answers.
    pub async fn start(&self) -> Result<(), SandboxError> {
        let dir = self.layout.redis();
        Spec::new(&self.tools.redis_server).arg(dir.join("redis.conf")).cwd(&dir).detach(&self.log())?;
        super::wait_until("the start of Redis", Duration::from_secs(30), &self.log(), || async {
            let captured = self.cli().arg("PING").capture(1 << 10, self.cancel).await?;
            Ok(captured.stdout_text() == "PONG")
        })
        .await
    }

    fn cli(&self) -> Spec {
        Spec::new(&self.tools.redis_cli)
            .args(["-h", "127.0.0.1", "-p", &self.port.to_string()])
            .env("REDISCLI_AUTH", self.passwords.redis.expose())
            .cwd(self.layout.dir())
    }

    /// One command. redis-cli exits with 0 on errors of the server, so the answer is looked at.
    pub async fn command(&self, args: &[&str]) -> Result<String, SandboxError> {
        let operation = format!("Redis {}", args.first().unwrap_or(&""));
        let captured = tools::run(&operation, self.cli().arg("-e").args(args), self.cancel).await?;
        Ok(captured.stdout_text())
    }

    /// Sends commands in Redis's own protocol, all at once.
    pub async fn pipe(&self, protocol: Vec<u8>) -> Result<(), SandboxError> {
        tools::run("filling Redis", self.cli().arg("--pipe").stdin(protocol), self.cancel).await.map(|_| ())
    }
}
