//! Backups by other programs: the same runbooks, and another line in the inventory.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use lifeboat::clock;
use lifeboat::event::parse_time;
use lifeboat::process::{Account, find_program};
use lifeboat::secret::Secret;
use lifeboat::system::postgres::Reporter;
use lifeboat::system::postgres::engine::Engine;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::support::checkout;
use crate::support::postgres::{Primary, account, bin, program, stop_hard, value};
use crate::support::redis::{TestRedis, free_port, open_directory};
use crate::support::sandbox::{last_line, text};

/// The passphrase of the repository: it stands in the engine's own configuration and nowhere else.
const PASSPHRASE: &str = "correct-horse-battery-canary";

/// A PostgreSQL that archives by another program, and a Redis beside it.
struct Scene {
    home: crate::support::Home,
    primary: Primary,
    cache: TestRedis,
    ports: (u16, u16),
    /// Where Barman keeps its WAL; absent where it is not Barman.
    barman: Option<PathBuf>,
    /// The engine's repository, as far as it says.
    may_be_encrypted: bool,
    /// What receives WAL beside the server.
    receiver: Option<Child>,
}

impl Scene {
    /// pgBackRest with an encrypted repository on this disk.
    async fn pgbackrest() -> Self {
        let home = open_directory();
        let at = |name: &str| home.path().join(name);
        for name in ["repo", "log", "lock", "spool"] {
            std::fs::create_dir(at(name)).unwrap();
            give(&account(), &at(name));
        }
        let program = find_program("pgbackrest").expect("these tests need pgbackrest");
        let config = at("pgbackrest.conf");
        let push = format!(
            "archive_command = '{} --config={} --stanza=main archive-push %p'",
            program.display(),
            config.display()
        );
        let primary = Primary::start_with(&[&push]).await;
        let socket = primary.data.parent().unwrap();
        let lines = format!(
            "[global]\nrepo1-path={home}/repo\nrepo1-cipher-type=aes-256-cbc\nrepo1-cipher-pass={PASSPHRASE}\n\
             repo1-retention-full=9\nlog-path={home}/log\nlock-path={home}/lock\nspool-path={home}/spool\nstart-fast=y\n\
             [main]\npg1-path={data}\npg1-port={port}\npg1-socket-path={socket}\npg1-user=dba\n",
            home = home.path().display(),
            data = primary.data.display(),
            port = primary.port,
            socket = socket.display(),
        );
        std::fs::write(&config, lines).unwrap();
        give(&account(), &config);
        let mut scene = Self::new(home, primary).await;
        scene.may_be_encrypted = true;
        scene.engine("pgbackrest", &[&format!("--config={}", config.display()), "--stanza=main", "stanza-create"]);
        let line = format!("engine = \"pgbackrest\", stanza = \"main\", config = \"{}\"", config.display());
        std::fs::write(scene.path("lifeboat.toml"), scene.inventory(&line)).unwrap();
        scene
    }

    /// Barman beside the server. Its WAL comes by `archive_command` and is compressed, or by `pg_receivewal`, and then the
    /// base backups are.
    async fn barman(streams: bool) -> Self {
        let home = open_directory();
        let at = |name: &str| home.path().join(name);
        for name in ["barman", "barman/main", "barman/main/incoming"] {
            std::fs::create_dir(at(name)).unwrap();
            give(&account(), &at(name));
        }
        let (incoming, config) = (at("barman/main/incoming"), at("barman.conf"));
        let push = format!("archive_command = 'cp %p {0}/.%f && mv {0}/.%f {0}/%f'", incoming.display());
        let primary = Primary::start_with(&[push.as_str()][usize::from(streams)..]).await;
        let how = match streams {
            true => "streaming_archiver = on\nslot_name = barman\nbackup_compression = gzip\n",
            false => "archiver = on\ncompression = gzip\n",
        };
        let lines = format!(
            "[barman]\nbarman_user = {user}\nbarman_home = {home}/barman\nbarman_lock_directory = {home}/barman\n\
             log_file = {home}/barman/barman.log\n\
             [main]\ndescription = orders\nconninfo = {connection} dbname=postgres\nstreaming_conninfo = {connection}\n\
             backup_method = postgres\nimmediate_checkpoint = true\npath_prefix = {bin}\n{how}",
            user = account().map_or_else(whoami, |account| account.name),
            home = home.path().display(),
            connection = format!("host={} port={} user=dba", primary.data.parent().unwrap().display(), primary.port),
            bin = bin().display(),
        );
        std::fs::write(&config, lines).unwrap();
        let place = at("barman/main");
        let mut scene = Self::new(home, primary).await;
        scene.barman = Some(place);
        if streams {
            scene.barman_does(&["receive-wal", "--create-slot", "main"]);
            let config = config.to_str().unwrap();
            let mut receiver = scene.command("barman", &["--config", config, "receive-wal", "main"]);
            let receiver = receiver.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
            let receiver = scene.receiver.insert(receiver);
            let there = "select count(*) from pg_stat_replication where application_name = 'barman_receive_wal'";
            while scene.primary.value(there).await != "1" {
                assert_eq!(receiver.try_wait().unwrap(), None, "receive-wal ended: see barman.log");
                clock::sleep(Duration::from_millis(20)).await;
            }
        }
        // Barman takes no backup before it has seen WAL; its cron job does that every minute. The last segment of a stream
        // stays where it is until the next one comes.
        scene.archive().await;
        scene.archive().await;
        scene.barman_does(&["archive-wal", "main"]);
        let line = format!("engine = \"barman\", server = \"main\", config = \"{}\"", config.display());
        std::fs::write(scene.path("lifeboat.toml"), scene.inventory(&line)).unwrap();
        scene
    }

    /// A script in place of WAL-G, over a directory on this disk.
    async fn wal_g() -> Self {
        let home = open_directory();
        let at = |name: &str| home.path().join(name);
        std::fs::create_dir(at("storage")).unwrap();
        give(&account(), &at("storage"));
        std::fs::write(at("wal-g"), include_str!("support/wal-g.py")).unwrap();
        std::fs::set_permissions(at("wal-g"), std::fs::Permissions::from_mode(0o755)).unwrap();
        let (program, config) = (at("wal-g"), at("walg.json"));
        let push = format!("archive_command = '{} --config {} wal-push %p'", program.display(), config.display());
        let primary = Primary::start_with(&[&push]).await;
        let settings = serde_json::json!({
            "WALG_FILE_PREFIX": at("storage"), "PGHOST": primary.data.parent(), "PGPORT": primary.port, "PGUSER": "dba",
            "pg_bin": bin(),
        });
        std::fs::write(&config, settings.to_string()).unwrap();
        give(&account(), &config);
        let mut scene = Self::new(home, primary).await;
        scene.may_be_encrypted = true;
        let line =
            format!("engine = \"wal-g\", config = \"{}\", program = \"{}\"", config.display(), program.display());
        std::fs::write(scene.path("lifeboat.toml"), scene.inventory(&line)).unwrap();
        scene
    }

    fn barman_does(&self, words: &[&str]) -> Output {
        let config = self.path("barman.conf");
        self.engine("barman", &[&["--config", config.to_str().unwrap()], words].concat())
    }

    async fn new(home: crate::support::Home, primary: Primary) -> Self {
        let cache = home.path().join("cache");
        std::fs::create_dir(&cache).unwrap();
        give(&account(), &cache);
        let cache = TestRedis::start(&cache, &[], None).await;
        std::fs::create_dir(home.path().join("store")).unwrap();
        let url = format!("postgresql://app@127.0.0.1:{}/postgres", primary.port);
        let connections = format!("database_url={url}\ncache_url={}\n", cache.url.expose());
        std::fs::write(home.path().join("connections.env"), connections).unwrap();
        let ports = (free_port(), free_port());
        Self { home, primary, cache, ports, barman: None, may_be_encrypted: false, receiver: None }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    fn inventory(&self, engine: &str) -> String {
        format!(
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
url = "{db}"
backups = {{ store = "backups", {engine} }}
restore = {{ directory = "{home}/restored/db", port = {db_port} }}
[systems.orders-cache]
kind = "redis"
environment = "test"
url = "{cache}"
backups = {{ store = "backups" }}
restore = {{ directory = "{home}/restored/cache", port = {cache_port} }}
[connections.orders]
file = "{home}/connections.env"
keys = {{ database_url = "orders-db", cache_url = "orders-cache" }}
"#,
            db = self.primary.url.expose(),
            cache = self.cache.url.expose(),
            home = self.home.path().display(),
            db_port = self.ports.0,
            cache_port = self.ports.1,
        )
    }

    /// Runs the engine itself, as the user of the servers.
    fn engine(&self, program: &str, args: &[&str]) -> Output {
        let output = self.command(program, args).output().unwrap();
        assert!(output.status.success(), "{args:?}: {}{}", text(&output.stdout), text(&output.stderr));
        output
    }

    fn command(&self, program: &str, args: &[&str]) -> Command {
        use std::os::unix::process::CommandExt as _;
        let mut command = Command::new(find_program(program).expect("it is installed"));
        if let Some(account) = account() {
            command.uid(account.uid).gid(account.gid);
        }
        command.args(args).current_dir(self.home.path()).process_group(0).stdin(Stdio::null());
        command
    }

    fn lifeboat(&self, args: &[&str]) -> Output {
        let mut command = Command::new(program());
        command.args(args).env("LIFEBOAT_INVENTORY", self.path("lifeboat.toml"));
        command.env("LIFEBOAT_STATE_DIR", self.path("state")).env("HOME", self.home.path());
        command.current_dir(self.home.path()).output().expect("the program runs")
    }

    fn done(&self, args: &[&str]) -> Output {
        let output = self.lifeboat(args);
        assert_eq!(output.status.code(), Some(0), "{args:?}: {}{}", text(&output.stdout), text(&output.stderr));
        output
    }

    fn run(&self, runbook: &str, words: &[&str]) -> Output {
        let runbook = checkout().join("runbooks").join(runbook);
        self.done(&[&["run", runbook.to_str().unwrap(), "--headless", "--yes", "--json"], words].concat())
    }

    /// Ends the current segment, and waits until it was archived.
    async fn archive(&self) -> String {
        let name = self.primary.value("select pg_walfile_name(pg_logical_emit_message(false, 'test', 'switch'))").await;
        self.primary.value("select pg_switch_wal()").await;
        let last = "select coalesce(last_archived_wal, '') from pg_stat_archiver";
        let there = async {
            while match &self.barman {
                Some(place) => !holds(place, &name),
                None => self.primary.value(last).await < name,
            } {
                clock::sleep(Duration::from_millis(20)).await;
            }
        };
        if tokio::time::timeout(Duration::from_secs(120), there).await.is_err() {
            let log = std::fs::read_to_string(self.primary.path("primary.log")).unwrap_or_default();
            panic!("{name} was not archived: {log}");
        }
        name
    }

    /// What was read of a repository that may be encrypted lies in no store in the clear, and encrypted in one with `encrypt_to`.
    fn keeps_to_itself(&self, history: &Value) {
        let indexes = || self.stored().into_iter().filter(|file| file.to_string_lossy().contains("wal-index"));
        if !self.may_be_encrypted {
            assert_eq!(history["not_kept"], Value::Null);
            assert!(indexes().count() > 0);
            return;
        }
        let why = history["not_kept"].as_str().unwrap();
        assert!(why.contains("keeps the WAL encrypted, and the store of the system has no encrypt_to"), "{why}");
        assert_eq!(indexes().count(), 0);
        let inventory = std::fs::read_to_string(self.path("lifeboat.toml")).unwrap();
        let recipient = "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p";
        let sealing = inventory.replace("/store\"\n", &format!("/store\"\nencrypt_to = [\"{recipient}\"]\n"));
        std::fs::write(self.path("lifeboat.toml"), sealing).unwrap();
        let window: Value = last_line(&self.done(&["points", "--json"]));
        std::fs::write(self.path("lifeboat.toml"), inventory).unwrap();
        assert_eq!(window["systems"][0]["history"]["not_kept"], Value::Null);
        assert!(indexes().count() > 0);
        for file in indexes() {
            assert!(std::fs::read(&file).unwrap().starts_with(b"age-encryption.org/v1"), "{}", file.display());
            std::fs::remove_file(file).unwrap();
        }
    }

    /// Restored into a throwaway, and the record told by the next look. Of an encrypted repository it names no table.
    fn is_proven(&self) {
        let proven: Value = last_line(&self.done(&["check", "--proof", "--json"]));
        let tested = &proven["proofs"][0]["tested"];
        assert_eq!((&tested["system"], &tested["passed"]), (&"orders-db".into(), &true.into()), "{proven}");
        assert_eq!(tested["rows"]["public.orders"], 0, "{tested}");
        let health: Value = last_line(&self.done(&["check", "--json"]));
        let facts = health["systems"][0]["facts"].as_array().unwrap();
        let fact = facts.iter().find(|fact| fact["subject"] == "proof").unwrap();
        assert_eq!(fact["judgement"], "ok", "{fact}");
        let mut records = self.stored().into_iter().filter(|file| {
            let name = file.to_string_lossy();
            name.contains("/base/") && name.contains("/tested-")
        });
        let record = std::fs::read_to_string(records.next().expect("a record")).unwrap();
        assert_eq!(record.contains("public.orders"), !self.may_be_encrypted, "{record}");
        assert_eq!(records.next(), None);
    }

    /// Every file of the store.
    fn stored(&self) -> Vec<PathBuf> {
        let (mut files, mut folders) = (Vec::new(), vec![self.path("store")]);
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() { folders.push(path) } else { files.push(path) }
            }
        }
        files
    }

    async fn now(&self) -> String {
        let now = "select to_char(clock_timestamp() at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')";
        self.primary.value(now).await
    }

    fn restored(&self) -> Secret {
        let socket = self.path("restored/db/.lifeboat/socket");
        Secret::new(format!("postgresql://dba@/postgres?host={}&port={}", socket.display(), self.ports.0))
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        if let Some(mut receiver) = self.receiver.take() {
            let group = nix::unistd::Pid::from_raw(receiver.id() as i32);
            let _ = nix::sys::signal::killpg(group, nix::sys::signal::Signal::SIGKILL);
            let _ = receiver.wait();
        }
        stop_hard(&self.path("restored/db"));
        let shut = Command::new("redis-cli").args(["-p", &self.ports.1.to_string(), "shutdown", "nosave"]).output();
        drop(shut);
    }
}

/// Whether Barman has a segment, in whichever of its places.
fn holds(barman: &Path, name: &str) -> bool {
    let archived = format!("wals/{}/{name}", &name[..16]);
    let places = [archived, format!("incoming/{name}"), format!("streaming/{name}")];
    places.iter().any(|place| barman.join(place).exists())
}

fn whoami() -> String {
    nix::unistd::User::from_uid(nix::unistd::geteuid()).unwrap().expect("an account of its own").name
}

fn give(account: &Option<Account>, path: &std::path::Path) {
    account.iter().for_each(|account| account.give(path).expect("root may give files away"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_comes_back_out_of_pgbackrest() {
    comes_back(Scene::pgbackrest().await).await;
}

/// pgBackRest's own catalogue goes on telling of it.
#[tokio::test(flavor = "multi_thread")]
async fn a_backup_whose_parent_is_gone_is_not_offered() {
    let scene = Scene::pgbackrest().await;
    scene.run("backup-now.toml", &[]);
    let config = format!("--config={}", scene.path("pgbackrest.conf").display());
    scene.engine("pgbackrest", &[&config, "--stanza=main", "--type=incr", "backup"]);
    let seen = || {
        let window: Value = last_line(&scene.done(&["points", "--json"]));
        let db = &window["systems"][0];
        let labels =
            db["backups"].as_array().unwrap().iter().map(|backup| backup["label"].as_str().unwrap().to_owned());
        (labels.collect::<Vec<_>>(), db["warnings"].to_string())
    };
    let (labels, warnings) = seen();
    let [full, delta] = labels.as_slice() else { panic!("{labels:?}") };
    assert!(delta.starts_with(&format!("{full}_")) && warnings == "[]", "{labels:?}: {warnings}");
    let backups = scene.path("repo/backup/main");
    std::fs::rename(backups.join(full), scene.path("aside")).unwrap();
    let (labels, warnings) = seen();
    assert_eq!(labels, Vec::<String>::new());
    for says in [
        format!("backup {full} is not usable: {full} is gone"),
        format!("backup {delta} is not usable: {full}, which it builds on, is gone"),
    ] {
        assert!(warnings.contains(&says), "{warnings}");
    }
    std::fs::rename(scene.path("aside"), backups.join(full)).unwrap();
    std::fs::rename(backups.join(delta), scene.path("aside")).unwrap();
    assert_eq!(seen().0, [full.as_str()]);
}

/// The exit codes by which PostgreSQL goes: only a definite answer may end a recovery.
#[tokio::test(flavor = "multi_thread")]
async fn an_error_of_pgbackrest_never_looks_like_the_end_of_wal() {
    let scene = Scene::pgbackrest().await;
    let name = scene.archive().await;
    let config = scene.path("pgbackrest.conf").display().to_string();
    let fetch = |stanza: &str, config: &str, name: &str| {
        let to = scene.path("fetched").display().to_string();
        let words = ["wal", "fetch", "--engine", "pgbackrest", "--name", stanza, "--config", config, name, &to];
        let output = scene.lifeboat(&words);
        (output.status.code().unwrap(), text(&output.stderr))
    };
    assert_eq!(fetch("main", &config, &name).0, 0);
    let own = std::fs::read(scene.primary.data.join("pg_wal").join(&name)).unwrap();
    assert!(std::fs::read(scene.path("fetched")).unwrap() == own);
    assert_eq!(fetch("main", &config, "000000010000000000000099"), (1, String::new()));
    assert_eq!(fetch("main", &config, "00000002.history"), (1, String::new()));
    // pgBackRest itself ends with 103 and 55, which PostgreSQL would take for "not there".
    for (stanza, config, says) in [
        ("other", config.as_str(), "requires option: pg1-path"),
        ("main", "/nowhere/pgbackrest.conf", "unable to open missing file"),
    ] {
        let (code, said) = fetch(stanza, config, &name);
        assert!(code == 255 && said.contains(says), "{code}: {said}");
    }
    let wrong = std::fs::read_to_string(scene.path("pgbackrest.conf")).unwrap().replace(PASSPHRASE, "wrong");
    std::fs::write(scene.path("wrong.conf"), wrong).unwrap();
    let (code, said) = fetch("main", &scene.path("wrong.conf").display().to_string(), &name);
    assert!(code == 255 && !said.contains(PASSPHRASE), "{code}: {said}");
    // A segment under another's name is no WAL for that place.
    let archive = scene.path("repo/archive/main/15-1").join(&name[..16]);
    let stored = std::fs::read_dir(&archive)
        .unwrap()
        .flatten()
        .find(|file| file.file_name().to_string_lossy().starts_with(&name));
    let stored = stored.expect("it was archived").path();
    let other = stored.to_string_lossy().replace(&name, "000000010000000000000042");
    std::fs::copy(&stored, &other).unwrap();
    let (code, said) = fetch("main", &config, "000000010000000000000042");
    assert!(code == 255 && said.contains("holds the WAL at"), "{code}: {said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_comes_back_out_of_barman() {
    comes_back(Scene::barman(false).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_comes_back_out_of_barman_that_receives_a_stream() {
    comes_back(Scene::barman(true).await).await;
}

/// Barman ends with 1 for everything, which PostgreSQL would take for "not there".
#[tokio::test(flavor = "multi_thread")]
async fn an_error_of_barman_never_looks_like_the_end_of_wal() {
    let scene = Scene::barman(false).await;
    scene.run("backup-now.toml", &[]);
    let mut names = Vec::new();
    for _ in 0..3 {
        names.push(scene.archive().await);
    }
    let [first, second, third] = [&names[0], &names[1], &names[2]];
    let config = scene.path("barman.conf").display().to_string();
    let fetch = |server: &str, config: &str, name: &str| {
        let to = scene.path(&format!("fetched-{server}-{name}")).display().to_string();
        let words = ["wal", "fetch", "--engine", "barman", "--name", server, "--config", config, name, &to];
        let output = scene.lifeboat(&words);
        (output.status.code().unwrap(), text(&output.stderr))
    };
    let own = |name: &str| std::fs::read(scene.primary.data.join("pg_wal").join(name)).unwrap();
    let fetched = |name: &str| std::fs::read(scene.path(&format!("fetched-main-{name}"))).unwrap();
    // As it came, and compressed in the archive.
    assert!(fetch("main", &config, first) == (0, String::new()) && fetched(first) == own(first));
    scene.barman_does(&["archive-wal", "main"]);
    assert!(fetch("main", &config, second) == (0, String::new()) && fetched(second) == own(second));
    assert_eq!(fetch("main", &config, "000000010000000000000099"), (1, String::new()));
    assert_eq!(fetch("main", &config, "00000002.history"), (1, String::new()));

    let archive = scene.path("barman/main/wals").join(&first[..16]);
    let whole = std::fs::read(archive.join(second)).unwrap();
    std::fs::write(archive.join(second), &whole[..whole.len() / 2]).unwrap();
    // A segment under another's name is no WAL for that place.
    let other = archive.join("000000010000000000000042");
    std::fs::copy(archive.join(first), &other).unwrap();
    give(&account(), &other);
    let cases = [
        ("other", config.as_str(), first.as_str(), "Unknown server 'other'"),
        ("main", "/nowhere/barman.conf", first, "does not exist"),
        ("main", &config, second, "Error decompressing WAL"),
        ("main", &config, "000000010000000000000042", "holds the WAL at"),
    ];
    std::thread::scope(|scope| {
        for (server, config, name, says) in cases {
            scope.spawn(move || {
                let (code, said) = fetch(server, config, name);
                assert!(code == 255 && said.contains(says), "{code}: {said}");
            });
        }
    });
    std::fs::write(archive.join(second), &whole).unwrap();
    std::fs::remove_file(&other).unwrap();

    // Barman's own list still names it.
    let aside = scene.path("aside");
    std::fs::rename(archive.join(second), &aside).unwrap();
    let window: Value = last_line(&scene.done(&["points", "--json"]));
    let gap = &window["systems"][0]["gaps"][0];
    assert_eq!((&gap["first_missing"], &gap["last_missing"]), (&second.as_str().into(), &second.as_str().into()));
    std::fs::rename(&aside, archive.join(second)).unwrap();
    // What is not mounted is empty, to Barman.
    std::fs::rename(&archive, &aside).unwrap();
    let (code, said) = fetch("main", &config, third);
    assert!(code == 255 && said.contains("is its archive mounted?"), "{code}: {said}");
    std::fs::rename(&aside, &archive).unwrap();
    assert_eq!(fetch("main", &config, third).0, 0);
}

/// Barman gives back what lies there, whatever became of it.
#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_base_backup_of_barman_is_not_restored() {
    let scene = Scene::barman(false).await;
    scene.run("backup-now.toml", &[]);
    let base = std::fs::read_dir(scene.path("barman/main/base")).unwrap().next().unwrap().unwrap().path();
    let label = base.file_name().unwrap().to_str().unwrap().to_owned();
    let config = scene.path("barman.conf");
    let restored = async |name: &str| {
        let directory = scene.path(name);
        std::fs::create_dir(&directory).unwrap();
        give(&account(), &directory);
        let (report, mut lines) = Reporter::channel(64);
        let config = Some(config.clone());
        let engine =
            Engine::from_options("barman", find_program("barman").unwrap(), config, Some("main".to_owned())).unwrap();
        let done = engine.restore(&label, &directory, &report, &CancellationToken::new()).await;
        drop(report);
        let mut said = String::new();
        while let Some(line) = lines.recv().await {
            said += &format!("{line:?}");
        }
        done.map(|()| said)
    };
    let said = restored("whole").await.unwrap();
    assert!(said.contains("files are as backup_manifest says"), "{said}");
    let file = base.join("data/base/1/1259");
    let mut bytes = std::fs::read(&file).unwrap();
    bytes[4096] ^= 1;
    std::fs::write(&file, bytes).unwrap();
    let refused = restored("damaged").await.unwrap_err();
    assert!(refused.to_string().contains("base/1/1259 of the base backup is damaged"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_comes_back_out_of_what_stands_in_for_wal_g() {
    comes_back(Scene::wal_g().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_of_wal_g_never_looks_like_the_end_of_wal() {
    let scene = Scene::wal_g().await;
    let name = scene.archive().await;
    let config = scene.path("walg.json").display().to_string();
    let fetch = |config: &str, name: &str| {
        let (program, to) = (scene.path("wal-g").display().to_string(), scene.path("fetched").display().to_string());
        let words = ["wal", "fetch", "--engine", "wal-g", "--program", &program, "--config", config, name, &to];
        let output = scene.lifeboat(&words);
        (output.status.code().unwrap(), text(&output.stderr))
    };
    let own = std::fs::read(scene.primary.data.join("pg_wal").join(&name)).unwrap();
    scene.run("backup-now.toml", &[]);
    assert_eq!(fetch(&config, &name), (0, String::new()));
    assert!(std::fs::read(scene.path("fetched")).unwrap() == own);
    assert_eq!(fetch(&config, "000000010000000000000099"), (1, String::new()));
    assert_eq!(fetch(&config, "00000002.history"), (1, String::new()));

    let stored = scene.path("storage/wal_005").join(format!("{name}.lzma"));
    let whole = std::fs::read(&stored).unwrap();
    std::fs::write(&stored, &whole[..whole.len() / 2]).unwrap();
    let elsewhere = |name: &str| {
        let text = std::fs::read_to_string(&config).unwrap();
        let (path, storage) = (scene.path(&format!("{name}.json")), scene.path("storage").display().to_string());
        std::fs::write(&path, text.replace(&storage, &scene.path(name).display().to_string())).unwrap();
        give(&account(), &path);
        path.display().to_string()
    };
    let (empty, gone) = (elsewhere("empty"), elsewhere("gone"));
    std::fs::create_dir(scene.path("empty")).unwrap();
    give(&account(), &scene.path("empty"));
    let cases = [
        (config.as_str(), name.as_str(), "decompression failed"),
        (&empty, "000000010000000000000099", "holds no backup either"),
        (&gone, "000000010000000000000098", "Folder not exists"),
        ("/nowhere/walg.json", "000000010000000000000097", "Failed to read the configuration"),
    ];
    std::thread::scope(|scope| {
        for (config, name, says) in cases {
            scope.spawn(move || {
                let (code, said) = fetch(config, name);
                assert!(code == 255 && said.contains(says), "{code}: {said}");
            });
        }
    });
}

/// Backed up, archived, damaged, and restored to the moment before, with the runbooks as they are shipped.
async fn comes_back(scene: Scene) {
    scene.primary.sql("create table orders (id bigserial primary key, item text)").await;
    scene.primary.sql("create table payments (id bigserial primary key, cents int)").await;
    scene.primary.sql("insert into orders (item) select 'before ' || g from generate_series(1, 5000) g").await;
    scene.cache.run("SET basket:1 apples").await;
    scene.run("backup-now.toml", &[]);

    // Another program tells the end of a backup by whole seconds: until the next one has begun, nothing lies behind it.
    let window: Value = last_line(&scene.done(&["points", "--json"]));
    let stopped = window["systems"][0]["backups"][0]["stopped"].as_str().unwrap().to_owned();
    while parse_time(&scene.now().await).unwrap() <= parse_time(&stopped).unwrap() {
        clock::sleep(Duration::from_millis(20)).await;
    }
    scene.primary.sql("insert into payments (cents) select g from generate_series(1, 100) g").await;
    scene.archive().await;
    scene.primary.sql("insert into orders (item) select 'after ' || g from generate_series(1, 100) g").await;
    let target = scene.now().await;
    scene.primary.sql("drop table payments; delete from orders").await;
    scene.archive().await;

    let window: Value = last_line(&scene.done(&["points", "--json"]));
    let db = &window["systems"][0];
    assert_eq!(db["backups"].as_array().unwrap().len(), 1);
    assert_eq!(db["backups"][0]["basis"], "reported");
    // Barman throws away what its first backup does not need, and all the rest was read.
    let basis = if scene.barman.is_some() { "observed" } else { "reported" };
    assert_eq!(db["coverage"][0]["basis"], basis);
    assert_eq!(db["gaps"].as_array().unwrap().len(), 0);
    // Everything behind the beginning of the backup was read, through the engine.
    let history = &db["history"];
    assert_eq!(history["commits"], 3);
    assert_eq!(history["suspects"][0]["deeds"].as_array().unwrap().len(), 4);
    scene.keeps_to_itself(history);
    scene.done(&["points", "--target", &target]);
    // Backup age, WAL and loss as of Lifeboat's own; of the files only what the engine says of itself.
    let health: Value = last_line(&scene.done(&["check", "--json"]));
    let facts = health["systems"][0]["facts"].as_array().unwrap();
    let fact = |subject: &str| facts.iter().find(|fact| fact["subject"] == subject).expect("every subject is told");
    assert_eq!((&fact("backup")["judgement"], &fact("wal")["judgement"]), (&"ok".into(), &"ok".into()), "{health}");
    let says = fact("manifests")["says"].as_str().unwrap();
    assert!(says.contains("reports 1 backup, and its own check found nothing wrong"), "{says}");
    assert_eq!((&fact("retention")["judgement"], &fact("proof")["judgement"]), (&"unknown".into(), &"unknown".into()));
    // One of each repository: in the clear, and encrypted.
    if scene.receiver.is_none() {
        scene.is_proven();
    }

    std::fs::write(scene.path("answers.toml"), "fence = \"orders-db\"\n").unwrap();
    let damage = format!("damage_at={target}");
    let recovered = scene.run("restore-to-a-point.toml", &["--var", &damage, "--answers", "answers.toml"]);
    let restored = scene.restored();
    let rows =
        value(&restored, "select count(*) filter (where item ~ '^(before|after)') || ' ' || count(*) from orders");
    assert_eq!(rows.await, "5100 5100");
    assert_eq!(value(&scene.restored(), "select count(*) from payments").await, "100");
    assert_eq!(value(&scene.restored(), "select current_setting('archive_mode')").await, "off");
    assert!(!text(&recovered.stdout).contains(PASSPHRASE) && !text(&recovered.stderr).contains(PASSPHRASE));
}
