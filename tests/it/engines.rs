//! Backups by other programs: the same runbooks, and another line in the inventory.

use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::Duration;

use lifeboat::clock;
use lifeboat::event::parse_time;
use lifeboat::process::{Account, find_program};
use lifeboat::secret::Secret;
use serde_json::Value;

use crate::support::checkout;
use crate::support::postgres::{Primary, account, program, stop_hard, value};
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
        let scene = Self::new(home, primary).await;
        scene.engine("pgbackrest", &[&format!("--config={}", config.display()), "--stanza=main", "stanza-create"]);
        let line = format!("engine = \"pgbackrest\", stanza = \"main\", config = \"{}\"", config.display());
        std::fs::write(scene.path("lifeboat.toml"), scene.inventory(&line)).unwrap();
        scene
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
        Self { home, primary, cache, ports }
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
        use std::os::unix::process::CommandExt as _;
        let mut command = Command::new(find_program(program).expect("it is installed"));
        if let Some(account) = account() {
            command.uid(account.uid).gid(account.gid);
        }
        let output = command.args(args).current_dir(self.home.path()).output().unwrap();
        assert!(output.status.success(), "{args:?}: {}{}", text(&output.stdout), text(&output.stderr));
        output
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
        let there = async {
            let last = "select coalesce(last_archived_wal, '') from pg_stat_archiver";
            while self.primary.value(last).await < name {
                clock::sleep(Duration::from_millis(20)).await;
            }
        };
        if tokio::time::timeout(Duration::from_secs(120), there).await.is_err() {
            let log = std::fs::read_to_string(self.primary.path("primary.log")).unwrap_or_default();
            panic!("{name} was not archived: {log}");
        }
        name
    }

    /// The repository is encrypted: what was read of it lies in no store in the clear, and in one with `encrypt_to` does.
    fn keeps_to_itself(&self, history: &Value) {
        let indexes = || self.stored().into_iter().filter(|file| file.to_string_lossy().contains("wal-index"));
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
        stop_hard(&self.path("restored/db"));
        let shut = Command::new("redis-cli").args(["-p", &self.ports.1.to_string(), "shutdown", "nosave"]).output();
        drop(shut);
    }
}

fn give(account: &Option<Account>, path: &std::path::Path) {
    account.iter().for_each(|account| account.give(path).expect("root may give files away"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_comes_back_out_of_pgbackrest() {
    comes_back(Scene::pgbackrest().await).await;
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
    assert_eq!((&db["backups"][0]["basis"], &db["coverage"][0]["basis"]), (&"reported".into(), &"reported".into()));
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
    assert_eq!(fact("retention")["judgement"], "unknown");

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
