//! A real PostgreSQL primary that archives into a bucket by this program, as an unprivileged user, gone when dropped.

use std::path::{Path, PathBuf};
use std::time::Duration;

use lifeboat::clock;
use lifeboat::process::{Account, Captured, Spec, postgres_bin};
use lifeboat::secret::Secret;
use lifeboat::store::Bucket;
use lifeboat::system::postgres::wal::{Location, archive_command};
use lifeboat::system::postgres::{Reporter, Url, connect};
use tokio_util::sync::CancellationToken;

use super::redis::{free_port, open_directory};
use super::{Home, cache};

/// The superuser of every test cluster, on purpose not `postgres`.
pub const SUPERUSER: &str = "dba";

pub struct Primary {
    pub url: Secret,
    pub port: u16,
    pub data: PathBuf,
    /// Where its base backups and WAL go.
    pub location: Location,
    /// Its programs.
    pub bin: PathBuf,
    directory: Home,
}

pub fn program() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_lifeboat"))
}

pub fn account() -> Option<Account> {
    Account::unprivileged().expect("the accounts")
}

pub fn bin() -> PathBuf {
    postgres_bin().expect("these tests need PostgreSQL (or LIFEBOAT_PG_BIN)")
}

/// The programs of a PostgreSQL that takes incremental backups: `tests/run` installs it beside an older one.
pub fn bin_17() -> PathBuf {
    let shared = Path::new("/var/cache/lifeboat/postgresql-17/usr/lib/postgresql/17/bin");
    let own = cache("LIFEBOAT_POSTGRES_17", "postgresql-17/usr/lib/postgresql/17/bin");
    let known = [own, shared.to_owned()].into_iter().chain(postgres_bin());
    let can = |bin: &PathBuf| bin.join("pg_combinebackup").exists() && bin.join("initdb").exists();
    known.into_iter().find(can).expect("these tests need PostgreSQL 17 (or LIFEBOAT_POSTGRES_17): run tests/run")
}

/// Runs one of PostgreSQL's programs as the servers' user; it must succeed.
pub async fn pg(program: &str, args: &[&str]) -> Captured {
    pg_of(&bin(), program, args).await
}

/// The same of the programs in a directory.
pub async fn pg_of(bin: &Path, program: &str, args: &[&str]) -> Captured {
    let spec = Spec::new(bin.join(program)).args(args).run_as(account()).env("LC_ALL", "C").cwd("/");
    let captured = spec.capture(1 << 20, &CancellationToken::new()).await.expect("the program starts");
    assert!(captured.end.success(), "{program} {args:?}: {}\n{}", captured.stderr_text(), captured.stdout_text());
    captured
}

impl Primary {
    pub async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// `settings` are lines of postgresql.conf that come after the usual ones.
    pub async fn start_with(settings: &[&str]) -> Self {
        Self::start_as(&[], settings).await
    }

    /// `options` are for initdb.
    pub async fn start_as(options: &[&str], settings: &[&str]) -> Self {
        Self::start_archiving(None, options, settings).await
    }

    /// One that can take incremental backups.
    pub async fn start_17(settings: &[&str]) -> Self {
        let settings = [&["summarize_wal = on"], settings].concat();
        Self::start_of(bin_17(), None, &["--wal-segsize=1"], &settings).await
    }

    /// `location` is a directory beside the cluster when absent.
    pub async fn start_archiving(location: Option<Location>, options: &[&str], settings: &[&str]) -> Self {
        Self::start_of(bin(), location, options, settings).await
    }

    async fn start_of(bin: PathBuf, location: Option<Location>, options: &[&str], settings: &[&str]) -> Self {
        let directory = open_directory();
        let (data, bucket) = (directory.path().join("data"), directory.path().join("bucket"));
        // The primary's user archives there, and the tests, as root, put backups beside it.
        for path in [&bucket, &bucket.join("orders-db")] {
            std::fs::create_dir(path).expect("a directory for the bucket");
            account().iter().for_each(|account| account.give(path).expect("root may give files away"));
        }
        let usual = ["-D", text(&data), "-U", SUPERUSER, "--data-checksums", "--no-sync", "--locale=C", "-E", "UTF8"];
        pg_of(&bin, "initdb", &[&usual, options].concat()).await;
        let port = free_port();
        let location = location.unwrap_or_else(|| Location::new(format!("file://{}", bucket.display()), "orders-db"));
        let lines = format!(
            "port = {port}\nlisten_addresses = '127.0.0.1'\nunix_socket_directories = '{}'\nfsync = off\n\
             shared_buffers = 32MB\nwal_level = replica\narchive_mode = on\narchive_command = '{}'\n{}\n",
            directory.path().display(),
            archive_command(&program(), &location).replace('\'', "''"),
            settings.join("\n"),
        );
        let conf = data.join("postgresql.conf");
        let before = std::fs::read_to_string(&conf).expect("initdb's postgresql.conf");
        std::fs::write(&conf, before + &lines).expect("postgresql.conf is written");
        let socket = text(directory.path()).to_owned();
        let url = Secret::new(format!("postgresql://{SUPERUSER}@/postgres?host={socket}&port={port}"));
        let primary = Self { url, port, data, location, bin, directory };
        primary.up().await;
        primary
    }

    pub async fn up(&self) {
        let log = self.path("primary.log");
        self.pg("pg_ctl", &["start", "-w", "-t", "60", "-D", text(&self.data), "-l", text(&log)]).await;
    }

    pub async fn down(&self, mode: &str) {
        self.pg("pg_ctl", &["stop", "-w", "-D", text(&self.data), "-m", mode]).await;
    }

    /// Runs one of its programs, as [`pg`].
    pub async fn pg(&self, program: &str, args: &[&str]) -> Captured {
        pg_of(&self.bin, program, args).await
    }

    /// A place beside the cluster, on its file system.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub fn bucket(&self) -> Bucket {
        self.location.open().expect("the bucket opens")
    }

    pub async fn client(&self) -> tokio_postgres::Client {
        connect(&self.url).await.expect("the primary answers")
    }

    pub async fn sql(&self, statements: &str) {
        self.client().await.batch_execute(statements).await.unwrap_or_else(|error| panic!("{statements}: {error:?}"));
    }

    /// One value, as text.
    pub async fn value(&self, query: &str) -> String {
        value(&self.url, query).await
    }

    /// Ends the current WAL segment and waits until the archive has it; returns its name.
    pub async fn archive(&self) -> String {
        // A record of its own, so that there is something to switch.
        let name = self.value("select pg_walfile_name(pg_logical_emit_message(false, 'lifeboat', 'switch'))").await;
        self.value("select pg_switch_wal()").await;
        let key = format!("wal/{}/{name}.zst", &name[..8]);
        let bucket = self.bucket();
        let there = async {
            while !bucket.exists(&key).await.expect("the bucket answers") {
                clock::sleep(Duration::from_millis(20)).await;
            }
            // The object stands before its command has ended: until then the upload's other name may lie beside it.
            let ended =
                format!("select coalesce(left(last_archived_wal, 24) >= '{name}', false) from pg_stat_archiver");
            while self.value(&ended).await != "t" {
                clock::sleep(Duration::from_millis(20)).await;
            }
        };
        if tokio::time::timeout(Duration::from_secs(60), there).await.is_err() {
            panic!(
                "{name} was not archived: {}",
                std::fs::read_to_string(self.path("primary.log")).unwrap_or_default()
            );
        }
        name
    }

    pub fn backup(&self) -> lifeboat::system::postgres::Backup {
        lifeboat::system::postgres::Backup {
            url: self.url.clone(),
            bucket: self.bucket(),
            bin: Some(self.bin.clone()),
            full_every: None,
            cancel: CancellationToken::new(),
            report: Reporter::silent(),
        }
    }
}

impl Drop for Primary {
    fn drop(&mut self) {
        stop_hard(&self.data);
    }
}

/// Ends the server of a data directory at once, when there is one.
pub fn stop_hard(data: &Path) {
    let pid = std::fs::read_to_string(data.join("postmaster.pid")).unwrap_or_default();
    if let Some(pid) = pid.lines().next().and_then(|line| line.parse().ok()) {
        // SIGQUIT is PostgreSQL's immediate shutdown.
        let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGQUIT);
    }
}

/// One value of a query at `url`, as text.
pub async fn value(url: &Secret, query: &str) -> String {
    let client = Url::parse(url).expect("a URL").connect().await.expect("the server answers");
    let rows = client.simple_query(query).await.unwrap_or_else(|error| panic!("{query}: {error:?}"));
    rows.iter()
        .find_map(|message| match message {
            tokio_postgres::SimpleQueryMessage::Row(row) => Some(row.get(0).unwrap_or("null").to_owned()),
            _ => None,
        })
        .unwrap_or_else(|| panic!("{query}: no row"))
}

fn text(path: &Path) -> &str {
    path.to_str().expect("test paths are text")
}
