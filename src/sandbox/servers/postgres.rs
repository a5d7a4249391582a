use std::path::PathBuf;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::system::postgres::wal::{Location, archive_command};

use crate::sandbox::error::SandboxError;
use crate::sandbox::layout::Layout;
use crate::sandbox::program;
use crate::sandbox::record::Scale;
use crate::sandbox::secrets::{ADMIN, DATABASE, Passwords};
use crate::sandbox::tools::{self, Tools};

/// The system's name in the inventory, and its folder in the bucket.
pub const NAME: &str = "orders-db";

/// How the primary runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Running {
    /// Nobody depends on it yet: no archive, the least WAL.
    Filling,
    Serving,
}

/// How it is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    Fast,
    /// As if the machine had gone: no last checkpoint, nothing more archived.
    Immediate,
}

/// The PostgreSQL primary.
pub struct Primary<'a> {
    pub layout: &'a Layout,
    pub tools: &'a Tools,
    pub passwords: &'a Passwords,
    pub port: u16,
    pub scale: Scale,
    pub cancel: &'a CancellationToken,
}

impl Primary<'_> {
    fn data(&self) -> PathBuf {
        self.layout.postgres()
    }

    pub fn log(&self) -> PathBuf {
        self.layout.log(NAME)
    }

    /// Creates the cluster and writes its configuration.
    pub async fn create(&self) -> Result<(), SandboxError> {
        let password = self.layout.scratch().join("initdb-password");
        program::write(&password, 0o600, self.passwords.admin.expose())?;
        let spec = self
            .tools
            .postgres("initdb", self.layout.dir())
            .args(["--data-checksums", "--no-sync", "--no-instructions", "--locale=C", "--encoding=UTF8"])
            .args(["--auth=scram-sha-256", "--username", ADMIN])
            .arg("--pwfile")
            .arg(&password)
            .arg("--pgdata")
            .arg(self.data());
        tools::run("initdb", spec, self.cancel).await?;
        std::fs::remove_file(&password).map_err(SandboxError::io("removing", &password))?;
        let path = self.data().join("postgresql.conf");
        program::write(&path, 0o600, self.configuration())
    }

    fn configuration(&self) -> String {
        let (shared_buffers, max_wal_size, archive_timeout) = match self.scale {
            Scale::Small => ("64MB", "512MB", 5),
            Scale::Medium => ("256MB", "4GB", 30),
            Scale::Large => ("512MB", "8GB", 60),
        };
        let encryption = self.layout.encryption().into();
        let archive = Location { encryption, ..Location::new(self.layout.bucket_url(), NAME) };
        let archive_command = archive_command(&self.layout.lifeboat(), &archive);
        let lines = [
            "# written by `lifeboat sandbox up`".to_owned(),
            "listen_addresses = '127.0.0.1'".to_owned(),
            format!("port = {}", self.port),
            format!("unix_socket_directories = '{}'", self.layout.sockets().display()),
            "unix_socket_permissions = 0700".to_owned(),
            "max_connections = 50".to_owned(),
            "password_encryption = 'scram-sha-256'".to_owned(),
            format!("shared_buffers = '{shared_buffers}'"),
            format!("max_wal_size = '{max_wal_size}'"),
            "checkpoint_timeout = '5min'".to_owned(),
            "wal_level = 'replica'".to_owned(),
            "archive_mode = 'on'".to_owned(),
            format!("archive_command = '{}'", archive_command.replace('\'', "''")),
            format!("archive_timeout = '{archive_timeout}s'"),
            "max_wal_senders = 5".to_owned(),
            "track_commit_timestamp = on".to_owned(),
            "timezone = 'UTC'".to_owned(),
            "log_timezone = 'UTC'".to_owned(),
            "log_line_prefix = '%m [%p] %q%u@%d '".to_owned(),
            // Who dropped what, and when: the log of any primary that is looked after has it.
            "log_statement = 'ddl'".to_owned(),
            String::new(),
        ];
        lines.join("\n")
    }

    pub async fn start(&self, running: Running) -> Result<(), SandboxError> {
        let options = match running {
            Running::Serving => "",
            Running::Filling => {
                "-c archive_mode=off -c wal_level=minimal -c max_wal_senders=0 -c fsync=off -c full_page_writes=off \
                 -c synchronous_commit=off -c maintenance_work_mem=256MB -c autovacuum=off -c log_statement=none"
            }
        };
        let spec = self
            .tools
            .postgres("pg_ctl", self.layout.dir())
            .args(["start", "--silent", "--wait", "--timeout=60", "--pgdata"])
            .arg(self.data())
            .arg("--log")
            .arg(self.log())
            .arg(format!("--options={options}"));
        match tools::run("starting PostgreSQL", spec, self.cancel).await {
            Err(SandboxError::Program { operation, end, output }) => {
                let log = std::fs::read_to_string(self.log()).unwrap_or_default();
                let output = format!("{output}\n{}", tools::tail(&log));
                Err(SandboxError::Program { operation, end, output })
            }
            result => result.map(|_| ()),
        }
    }

    pub async fn stop(&self, stop: Stop) -> Result<(), SandboxError> {
        let mode = match stop {
            Stop::Fast => "--mode=fast",
            Stop::Immediate => "--mode=immediate",
        };
        let spec = self
            .tools
            .postgres("pg_ctl", self.layout.dir())
            .args(["stop", "--silent", "--wait", "--timeout=60", mode, "--pgdata"])
            .arg(self.data());
        tools::run("stopping PostgreSQL", spec, self.cancel).await.map(|_| ())
    }

    /// Runs SQL as the administrator and returns its rows, one a line, columns between `|`.
    pub async fn sql(&self, operation: &str, sql: impl Into<Vec<u8>>) -> Result<String, SandboxError> {
        self.sql_in(DATABASE, operation, sql).await
    }

    pub async fn sql_in(
        &self,
        database: &str,
        operation: &str,
        sql: impl Into<Vec<u8>>,
    ) -> Result<String, SandboxError> {
        let spec = self
            .tools
            .postgres("psql", self.layout.dir())
            .args(["--no-psqlrc", "--quiet", "--no-align", "--tuples-only", "--set=ON_ERROR_STOP=1", "--file=-"])
            .env("PGHOST", "127.0.0.1")
            .env("PGPORT", self.port.to_string())
            .env("PGUSER", ADMIN)
            .env("PGDATABASE", database)
            .env("PGPASSWORD", self.passwords.admin.expose())
            .env("PGSSLMODE", "disable")
            .env("PGAPPNAME", "sandbox")
            .stdin(sql);
        Ok(tools::run(operation, spec, self.cancel).await?.stdout_text())
    }

    /// Waits until the archive has the segment `name` or a later one.
    pub async fn archived(&self, name: &str) -> Result<(), SandboxError> {
        // Segment names of one timeline sort like the WAL.
        let sql = format!("select coalesce(max(last_archived_wal), '') >= '{name}' from pg_stat_archiver;");
        super::wait_until(&format!("the archiving of {name}"), Duration::from_secs(120), &self.log(), || async {
            Ok(self.sql("asking the archiver", sql.clone()).await? == "t")
        })
        .await
    }
}
