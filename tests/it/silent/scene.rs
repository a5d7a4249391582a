//! One cluster that archives twice: by Lifeboat into its bucket, and by `cp` as a manual says.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use chrono::{DateTime, Utc};
use lifeboat::clock;
use lifeboat::event::{Failure, Lsn, RecoveryPoint, RecoveryTarget};
use lifeboat::inventory::{self, Inventory};
use lifeboat::process::Spec;
use lifeboat::recovery::{self, Looked, Wanted};
use lifeboat::secret::Secret;
use lifeboat::system::postgres::wal::archive_command;
use lifeboat::system::postgres::{Restore, Restored, connect};
use tokio_util::sync::CancellationToken;

use crate::postgres::restore::{Clone, restore_by, run};
use crate::support::postgres::{Primary, SUPERUSER, account, bin, pg, program, stop_hard, value};
use crate::support::redis::free_port;

pub const SYSTEM: &str = "orders-db";

pub struct Scene {
    pub primary: Primary,
    inventory: Inventory,
}

impl Scene {
    /// Small segments, so that there are many of them; `settings` as in postgresql.conf.
    pub async fn new(settings: &[&str]) -> Self {
        let primary = Primary::start_as(&["--wal-segsize=1"], settings).await;
        make(&primary.path("plain"));
        archive_twice(&primary.url, &primary).await;
        let file = primary.path("lifeboat.toml");
        std::fs::write(primary.path("url"), primary.url.expose()).unwrap();
        let text = format!(
            "format = 1\nservice = \"orders\"\n[stores.backups]\nurl = \"{}\"\n[systems.{SYSTEM}]\nkind = \"postgres\"\n\
             environment = \"test\"\nurl = {{ file = \"url\" }}\nbackups = {{ store = \"backups\" }}\n\
             restore = {{ directory = \"{}\" }}\n",
            primary.location.url,
            primary.path("restored").display()
        );
        std::fs::write(&file, text).unwrap();
        let inventory = inventory::load(&file).expect("the inventory is right");
        primary.sql("create table t (what text primary key)").await;
        Self { primary, inventory }
    }

    /// One commit.
    pub async fn write(&self, what: &str) {
        self.primary.sql(&format!("insert into t values ('{what}')")).await;
    }

    /// Both base backups.
    pub async fn back_up(&self) {
        self.primary.backup().run().await.expect("the backup succeeds");
        self.back_up_plainly().await;
    }

    pub async fn back_up_plainly(&self) {
        let (port, base) = (self.primary.port.to_string(), self.primary.path("base"));
        let socket = self.primary.path("");
        let to = ["-h", text(&socket), "-p", &port, "-U", SUPERUSER, "-D", text(&base)];
        pg("pg_basebackup", &[&to[..], &["-X", "none", "-c", "fast", "--no-sync"]].concat()).await;
    }

    /// A file of the archive that `cp` fills.
    pub fn plain(&self, name: &str) -> PathBuf {
        self.primary.path("plain").join(name)
    }

    /// The same file in the bucket.
    pub fn stored(&self, name: &str) -> PathBuf {
        self.primary.path(&format!("bucket/{SYSTEM}/wal/{}/{name}.zst", &name[..8]))
    }

    /// Takes a segment out of both archives.
    pub fn lose(&self, name: &str) {
        std::fs::remove_file(self.plain(name)).unwrap();
        std::fs::remove_file(self.stored(name)).unwrap();
    }

    /// Puts other content under a segment's name, in both archives.
    pub fn spoil(&self, name: &str, spoil: impl FnOnce(&mut Vec<u8>)) {
        let mut bytes = std::fs::read(self.plain(name)).unwrap();
        spoil(&mut bytes);
        std::fs::write(self.plain(name), &bytes).unwrap();
        std::fs::write(self.stored(name), zstd::bulk::compress(&bytes, 1).unwrap()).unwrap();
    }

    pub fn inventory(&self) -> &Inventory {
        &self.inventory
    }

    /// Whether a segment is needed to make the base backup consistent.
    pub fn is_of_the_backup(&self, name: &str) -> bool {
        let label = std::fs::read_to_string(self.primary.path("base/backup_label")).unwrap();
        label.lines().next().is_some_and(|line| line.contains(&format!("(file {name})")))
    }

    /// The server's clock.
    pub async fn now(&self) -> DateTime<Utc> {
        self.now_at(&self.primary.url).await
    }

    pub async fn now_at(&self, url: &Secret) -> DateTime<Utc> {
        let text = "select to_char(clock_timestamp() at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')";
        value(url, text).await.parse().expect("a time")
    }

    /// `lifeboat points --target …`: its exit code, and all that it says.
    pub fn points(&self, options: &[&str]) -> (i32, String) {
        let inventory = self.primary.path("lifeboat.toml");
        let Output { status, stdout, stderr } = Command::new(program())
            .args(["points", "--inventory", text(&inventory)])
            .args(options)
            .output()
            .expect("lifeboat starts");
        let said = String::from_utf8_lossy(&stdout).into_owned() + &String::from_utf8_lossy(&stderr);
        (status.code().expect("an exit code"), said)
    }

    /// The program refuses the target, and says these words.
    pub fn refused(&self, target: &str, words: &[&str]) {
        for options in [&["--target", target][..], &["--target", target, "--inclusive"]] {
            let (code, said) = self.points(options);
            assert_eq!(code, 1, "{options:?}: {said}");
            words.iter().for_each(|word| assert!(said.contains(word), "{options:?} does not say `{word}`: {said}"));
        }
    }

    /// Ends the current segment of a server that archives to both places, and waits until they have it.
    pub async fn archive(&self, url: &Secret) -> String {
        let name = value(url, "select pg_walfile_name(pg_logical_emit_message(false, 'test', 'switch'))").await;
        value(url, "select pg_switch_wal()").await;
        let there = async {
            while !self.stored(&name).exists() {
                clock::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), there).await.unwrap_or_else(|_| panic!("{name} is not archived"));
        name
    }

    pub async fn look(&self) -> Looked {
        recovery::look(&self.inventory, &[SYSTEM.to_owned()], None).await.expect("the bucket is readable")
    }

    pub async fn settle(&self, target: &RecoveryTarget, inclusive: bool) -> Result<RecoveryPoint, Failure> {
        self.look().await.settle(target, inclusive).await
    }

    /// Keeps sessions busy until two commits stand in the WAL in another order than their times.
    pub async fn out_of_order(&self) -> Pair {
        for _ in 0..60 {
            let sessions = (0..8).map(|_| async {
                let client = self.primary.client().await;
                for _ in 0..150 {
                    client.batch_execute("insert into busy default values").await.expect("it commits");
                }
            });
            // Ending a segment holds up everybody who is about to commit; then they race.
            let switching = async {
                let client = self.primary.client().await;
                for _ in 0..20 {
                    client.batch_execute("insert into busy default values; select pg_switch_wal()").await.unwrap();
                }
            };
            futures::future::join(futures::future::join_all(sessions), switching).await;
            self.primary.archive().await;
            let ended = self.ended().await;
            let mut commits = ended.iter().filter(|ended| ended.committed).map(|ended| (ended.xid, ended.time));
            let mut latest = commits.next().expect("a commit");
            for commit in commits {
                if commit.1 < latest.1 {
                    return Pair { late: latest, early: commit };
                }
                latest = commit;
            }
        }
        panic!("every commit stands in the order of its time");
    }

    /// All transactions in the archived WAL, by `pg_waldump`, in its order.
    pub async fn ended(&self) -> Vec<Ended> {
        let text = self.dump("Transaction").await;
        let ended: Vec<Ended> = text.lines().filter_map(Ended::parse).collect();
        assert!(!ended.is_empty(), "{text}");
        ended
    }

    /// What `pg_waldump` says of one resource manager, over all segments that `cp` archived.
    pub async fn dump(&self, manager: &str) -> String {
        let entries = std::fs::read_dir(self.primary.path("plain")).unwrap();
        let mut names: Vec<String> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name.len() == 24)
            .collect();
        names.sort();
        let (first, last) = (self.plain(&names[0]), self.plain(&names[names.len() - 1]));
        let dump = Spec::new(bin().join("pg_waldump")).args(["-r", manager]).arg(&first).arg(&last);
        let dump = dump.run_as(account()).env("TZ", "UTC").cwd("/");
        dump.capture(64 << 20, &CancellationToken::new()).await.expect("pg_waldump starts").stdout_text()
    }

    /// What the step `postgres.restore` would do for a settled point.
    pub async fn planned(&self, point: &RecoveryPoint, to: &str) -> Restore {
        let window = recovery::collect(&self.inventory, &[SYSTEM.to_owned()], None).await.expect("a window");
        let plan = recovery::plan(&window, SYSTEM, &Wanted::of(point, SYSTEM)).expect("a plan");
        restore_by(&self.primary, plan.restore, to)
    }

    /// From a target to a server that stands there, as the steps do it one after the other.
    pub async fn restore(&self, target: &str, inclusive: bool, to: &str) -> (Clone, Result<Restored, Failure>) {
        let target: RecoveryTarget = target.parse().expect("a target");
        let point = self.settle(&target, inclusive).await.unwrap_or_else(|failure| panic!("{target}: {failure:?}"));
        run(self.planned(&point, to).await).await
    }

    /// The usual way: the base backup, `cp`, and these settings.
    pub async fn recover_plainly(&self, to: &str, settings: &[&str]) -> Plain {
        let copy = format!("restore_command = 'cp {}/%f %p'", self.primary.path("plain").display());
        self.recover_by(to, &[&[copy.as_str(), "archive_mode = off"], settings].concat()).await
    }

    pub async fn recover_by(&self, to: &str, settings: &[&str]) -> Plain {
        let data = self.primary.path(&format!("{to}-server"));
        let copied = Spec::new("cp").args(["-a"]).arg(self.primary.path("base")).arg(&data).run_as(account());
        let copied = copied.capture(1 << 16, &CancellationToken::new()).await.expect("cp starts");
        assert!(copied.end.success(), "{}", copied.stderr_text());
        let port = free_port();
        let conf = data.join("postgresql.auto.conf");
        let usual = format!("port = {port}\nwal_retrieve_retry_interval = 100ms\n");
        let before = std::fs::read_to_string(&conf).unwrap();
        std::fs::write(&conf, before + &usual + &settings.join("\n") + "\n").unwrap();
        std::fs::write(data.join("recovery.signal"), "").unwrap();
        account().iter().for_each(|account| account.give(&data.join("recovery.signal")).unwrap());
        let log = self.primary.path(&format!("{to}.log"));
        let start = Spec::new(bin().join("pg_ctl"))
            .args(["start", "-w", "-t", "60", "-D", text(&data), "-l", text(&log)])
            .run_as(account())
            .env("LC_ALL", "C")
            .cwd("/");
        let started = start.capture(1 << 16, &CancellationToken::new()).await.expect("pg_ctl starts");
        let url = format!("postgresql://{SUPERUSER}@/postgres?host={}&port={port}", text(&self.primary.path("")));
        Plain { data, log, url: Secret::new(url), started: started.end.success() }
    }
}

/// What was written, in one line.
pub const ROWS: &str = "select coalesce(string_agg(what, ' ' order by what), '') from t";

/// Two commits: `late` stands first in the WAL, and says the later time.
#[derive(Debug)]
pub struct Pair {
    pub late: (u32, DateTime<Utc>),
    pub early: (u32, DateTime<Utc>),
}

/// The end of a transaction, as `pg_waldump` prints it.
#[derive(Debug, Clone)]
pub struct Ended {
    pub lsn: Lsn,
    pub xid: u32,
    pub time: DateTime<Utc>,
    pub committed: bool,
}

impl Ended {
    fn parse(line: &str) -> Option<Self> {
        let desc = line.split_once("desc: ")?.1;
        let (verb, rest) = desc.split_once(' ')?;
        let field = |name: &str| line.split_once(name)?.1.split(',').next();
        let (committed, xid, rest) = match verb {
            "COMMIT" | "ABORT" => (verb == "COMMIT", field("tx:")?.trim(), rest),
            "COMMIT_PREPARED" | "ABORT_PREPARED" => {
                let (xid, rest) = rest.split_once(": ")?;
                (verb == "COMMIT_PREPARED", xid, rest)
            }
            _ => return None,
        };
        let time = chrono::NaiveDateTime::parse_from_str(rest.split_once(" UTC")?.0, "%Y-%m-%d %H:%M:%S%.f").ok()?;
        Some(Self { lsn: lsn(line)?, xid: xid.parse().ok()?, time: time.and_utc(), committed })
    }
}

/// Where the record of a line of `pg_waldump` begins.
pub fn lsn(line: &str) -> Option<Lsn> {
    line.split_once("lsn: ")?.1.split(',').next()?.parse().ok()
}

/// A server that was recovered as a manual says.
pub struct Plain {
    pub data: PathBuf,
    pub log: PathBuf,
    pub url: Secret,
    /// `pg_ctl start -w` gave 0.
    pub started: bool,
}

impl Plain {
    /// Waits until it takes writes: recovery has ended, and nobody objected.
    pub async fn promoted(&self) -> &Self {
        assert!(self.started, "{}", self.log());
        self.until("select not pg_is_in_recovery()").await
    }

    /// Waits until it says that recovery is paused.
    pub async fn paused(&self) -> &Self {
        assert!(self.started, "{}", self.log());
        self.until("select pg_get_wal_replay_pause_state() = 'paused'").await
    }

    async fn until(&self, query: &str) -> &Self {
        let there = async {
            while connect(&self.url).await.is_err() || value(&self.url, query).await != "t" {
                clock::sleep(Duration::from_millis(20)).await;
            }
        };
        if tokio::time::timeout(Duration::from_secs(60), there).await.is_err() {
            panic!("never `{query}`: {}", self.log());
        }
        self
    }

    /// Waits until it has given up.
    pub async fn dead(&self) -> &Self {
        let gone = async {
            while self.data.join("postmaster.pid").exists() {
                clock::sleep(Duration::from_millis(20)).await;
            }
        };
        if tokio::time::timeout(Duration::from_secs(60), gone).await.is_err() {
            panic!("it lives: {}", self.log());
        }
        self
    }

    pub async fn sql(&self, statements: &str) {
        let client = connect(&self.url).await.expect("the server answers");
        client.batch_execute(statements).await.unwrap_or_else(|error| panic!("{statements}: {error:?}"));
    }

    pub async fn value(&self, query: &str) -> String {
        value(&self.url, query).await
    }

    pub async fn rows(&self) -> String {
        value(&self.url, ROWS).await
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Whether its log says that something is wrong.
    pub fn complains(&self) -> bool {
        ["WARNING:", "ERROR:", "FATAL:", "PANIC:"].iter().any(|word| self.log().contains(word))
    }
}

impl Drop for Plain {
    fn drop(&mut self) {
        stop_hard(&self.data);
    }
}

/// `cp` first: what a manual says, without a look at what is there already.
pub async fn archive_twice(server: &Secret, primary: &Primary) {
    let command =
        format!("cp %p {}/%f && {}", primary.path("plain").display(), archive_command(&program(), &primary.location));
    let client = connect(server).await.expect("the server answers");
    let set = format!("alter system set archive_command = '{}'", command.replace('\'', "''"));
    for statement in [set.as_str(), "select pg_reload_conf()"] {
        client.batch_execute(statement).await.expect("the setting is taken");
    }
}

fn make(path: &Path) {
    std::fs::create_dir(path).unwrap();
    account().iter().for_each(|account| account.give(path).unwrap());
}

fn text(path: &Path) -> &str {
    path.to_str().expect("test paths are text")
}
