//! `lifeboat check` on real archives: what it says when all is well, and each thing that turns it red.

use std::fs::FileTimes;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::support::postgres::{Primary, account, program};
use crate::support::redis::free_port;
use crate::support::sandbox::{last_line, text};

pub const SYSTEM: &str = "orders-db";

/// A cluster with small segments, its archive, and an inventory.
pub struct Shop {
    pub primary: Primary,
}

impl Shop {
    pub async fn new() -> Self {
        Self::of(Primary::start_as(&["--wal-segsize=1"], &[]).await)
    }

    pub fn of(primary: Primary) -> Self {
        std::fs::write(primary.path("url"), primary.url.expose()).unwrap();
        let shop = Self { primary };
        shop.inventory(&shop.primary.location.url, "", "rpo = \"1h\"");
        shop
    }

    /// Writes it: where the store is, its other keys, and the system's.
    pub fn inventory(&self, url: &str, store: &str, system: &str) {
        let text = format!(
            "format = 1\nservice = \"orders\"\n[stores.backups]\nurl = \"{url}\"\n{store}\n[systems.{SYSTEM}]\n\
             kind = \"postgres\"\nenvironment = \"test\"\nurl = {{ file = \"url\" }}\n\
             backups = {{ store = \"backups\", max_age = \"2h\" }}\nrestore = {{ directory = \"{}\" }}\n{system}\n",
            self.primary.path("restored").display()
        );
        std::fs::write(self.primary.path("lifeboat.toml"), text).unwrap();
    }

    pub fn command(&self, options: &[&str]) -> Command {
        let mut command = Command::new(program());
        command.arg("check").arg("--inventory").arg(self.primary.path("lifeboat.toml")).args(options).current_dir("/");
        command
    }

    /// One system's facts and the exit code; the two outputs must agree.
    pub fn check(&self) -> (Value, i32) {
        let output = self.command(&["--json"]).output().expect("lifeboat starts");
        let found = last_line(&output);
        let code = output.status.code().unwrap();
        assert_eq!(found["exit_code"], code, "{found}");
        let shown = self.command(&[]).output().expect("lifeboat starts");
        assert_eq!(shown.status.code(), Some(code), "{}", text(&shown.stdout));
        (found["systems"][0].clone(), code)
    }

    /// The judgement on this subject is this, its sentence has these words, and the exit code is this.
    pub fn judged(&self, subject: &str, judgement: &str, code: i32, words: &[&str]) -> Value {
        let (found, exited) = self.check();
        let fact = fact(&found, subject);
        assert_eq!(fact["judgement"], judgement, "{found:#}");
        words.iter().for_each(|word| assert!(fact["says"].as_str().unwrap().contains(word), "no `{word}`: {fact}"));
        assert_eq!(exited, code, "{found:#}");
        found
    }

    pub async fn segment(&self) -> String {
        self.primary.sql("create table if not exists orders (id int); insert into orders values (1)").await;
        self.primary.archive().await
    }

    pub fn bucket(&self, path: &str) -> PathBuf {
        self.primary.path("bucket").join(SYSTEM).join(path)
    }

    /// As if a backup had been taken so many days earlier.
    pub fn age(&self, label: &str, days: i64) {
        let path = self.bucket(&format!("base/{label}/manifest.json"));
        let mut manifest: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        for stamp in ["started", "stopped"] {
            let at: chrono::DateTime<chrono::Utc> = manifest[stamp].as_str().unwrap().parse().unwrap();
            manifest[stamp] = (at - chrono::TimeDelta::days(days)).to_rfc3339().into();
        }
        std::fs::write(path, manifest.to_string()).unwrap();
    }

    pub fn wal(&self, name: &str) -> PathBuf {
        self.bucket(&format!("wal/{}/{name}.zst", &name[..8]))
    }
}

pub fn fact<'a>(found: &'a Value, subject: &str) -> &'a Value {
    let facts = found["facts"].as_array().unwrap();
    facts.iter().find(|fact| fact["subject"] == subject).unwrap_or_else(|| panic!("no {subject} in {found:#}"))
}

pub fn files(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for path in std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()) {
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found.sort();
    found
}

/// As if it had been written so much later.
pub fn later(path: &Path, hours: i64) {
    let file = std::fs::File::options().write(true).open(path).unwrap();
    let modified = std::fs::metadata(path).unwrap().modified().unwrap();
    let span = Duration::from_secs(hours.unsigned_abs() * 3600);
    let modified = if hours < 0 { modified - span } else { modified + span };
    file.set_times(FileTimes::new().set_modified(modified)).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn all_is_well_and_each_thing_that_breaks_is_said() {
    let shop = Shop::new().await;
    shop.judged("backup", "failed", 1, &["there is no base backup"]);
    shop.primary.backup().run().await.expect("the backup succeeds");
    let mut names = Vec::new();
    for _ in 0..4 {
        names.push(shop.segment().await);
    }
    let found = shop.judged("loss", "ok", 0, &["would be lost now, the RPO is 1h"]);
    let subjects: Vec<&str> =
        found["facts"].as_array().unwrap().iter().map(|fact| fact["subject"].as_str().unwrap()).collect();
    assert_eq!(subjects, ["clock", "backup", "wal", "loss", "manifests", "archive", "retention", "proof"]);
    let base = files(&shop.bucket("base"));
    let backup = &found["backup"];
    assert_eq!(backup["label"], base[0].parent().unwrap().file_name().unwrap().to_str().unwrap());
    assert_eq!(backup["objects"], base.len());
    let all: Vec<PathBuf> = base.iter().cloned().chain(files(&shop.bucket("wal"))).collect();
    let bytes: u64 = all.iter().map(|path| path.metadata().unwrap().len()).sum();
    assert_eq!((&found["stored"]["objects"], &found["stored"]["bytes"]), (&all.len().into(), &bytes.into()));
    assert_eq!(found["wal"]["last_segment"], *names.last().unwrap());
    // The server's own sum; nothing writes meanwhile.
    let ahead = format!("select pg_current_wal_flush_lsn() - '{}'", found["wal"]["end"].as_str().unwrap());
    assert_eq!(found["wal"]["lag_bytes"].to_string(), shop.primary.value(&ahead).await);
    assert_eq!(fact(&found, "retention")["judgement"], "unknown");

    // A server that does not answer is no bad backup; how far behind the archive is, nobody knows then.
    shop.primary.down("fast").await;
    let found = shop.judged("loss", "ok", 0, &["how far the server is, is unknown"]);
    assert_eq!(found["wal"]["lag_bytes"], Value::Null);
    shop.primary.up().await;

    // What was archived longer ago than the RPO allows, and what is older than its limit.
    let newest = shop.wal(names.last().unwrap());
    shop.inventory(&shop.primary.location.url, "", "rpo = \"30m\"");
    files(&shop.bucket("wal")).iter().for_each(|path| later(path, -1));
    shop.primary.sql("insert into orders values (2)").await;
    shop.judged("loss", "missed", 3, &["1h", "the RPO is 30m"]);
    files(&shop.bucket("wal")).iter().for_each(|path| later(path, 1));
    let manifest = base.iter().find(|path| path.ends_with("manifest.json")).unwrap();
    let honest = std::fs::read_to_string(manifest).unwrap();
    shop.inventory(&shop.primary.location.url, "", "rpo = \"1h\"");
    let mut old: Value = serde_json::from_str(&honest).unwrap();
    let shift = |value: &Value, hours| {
        let at: chrono::DateTime<chrono::Utc> = value.as_str().unwrap().parse().unwrap();
        Value::from((at + chrono::TimeDelta::hours(hours)).to_rfc3339())
    };
    old["stopped"] = shift(&old["stopped"], -3);
    std::fs::write(manifest, old.to_string()).unwrap();
    shop.judged("backup", "missed", 3, &["3h", "the limit is 2h"]);

    // A clock that is wrong: of the server that was backed up, of the store.
    old["stopped"] = shift(&old["stopped"], 6);
    std::fs::write(manifest, old.to_string()).unwrap();
    shop.judged("clock", "failed", 1, &["in the future"]);
    std::fs::write(manifest, &honest).unwrap();
    later(&newest, 2);
    shop.judged("clock", "failed", 1, &["in the future"]);
    later(&newest, -2);

    // A hole, and a manifest that names what is not there.
    let (hole, aside) = (shop.wal(&names[1]), shop.primary.path("aside"));
    std::fs::rename(&hole, &aside).unwrap();
    shop.judged("wal", "failed", 1, &[&names[1], "is missing"]);
    std::fs::rename(&aside, &hole).unwrap();
    let part = base.iter().find(|path| path.to_string_lossy().contains("part-0000")).unwrap();
    std::fs::rename(part, &aside).unwrap();
    shop.judged("manifests", "failed", 1, &["part-0000", "is missing"]);
    shop.judged("backup", "failed", 1, &["there is no base backup"]);
    std::fs::write(part, b"cut").unwrap();
    shop.judged("manifests", "failed", 1, &["part-0000", "is 3 bytes"]);
    std::fs::rename(&aside, part).unwrap();
    let stranger = shop.bucket("wal/00000001/\u{202e}passwords.txt");
    std::fs::write(&stranger, b"hunter2").unwrap();
    let shown = text(&shop.command(&[]).output().expect("lifeboat starts").stdout);
    assert!(shown.contains("passwords.txt") && !shown.contains("\u{202e}"), "{shown:?}");
    shop.judged("archive", "failed", 1, &["passwords.txt"]);
    std::fs::remove_file(&stranger).unwrap();
    shop.judged("manifests", "ok", 0, &["1 manifest,"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn retention_is_judged_both_ways() {
    let shop = Shop::new().await;
    let mut labels = Vec::new();
    for _ in 0..3 {
        labels.push(shop.primary.backup().run().await.expect("the backup succeeds").backup.label);
        shop.segment().await;
    }
    shop.inventory(&shop.primary.location.url, "retain = \"7d\"", "rpo = \"1h\"");
    shop.judged("retention", "ok", 0, &["since the archive was begun"]);
    // The bucket has been there for longer than its limit, and nothing in it goes back so far.
    later(&shop.bucket("archive.json"), -24 * 8);
    shop.judged("retention", "missed", 3, &["8days", "the limit is 7days"]);
    // Two backups from before the limit: the newer one leads over it, the older one has been of no use for two days.
    shop.age(&labels[0], 12);
    shop.age(&labels[1], 9);
    let found = shop.judged("retention", "missed", 3, &["older than the last chain"]);
    assert_eq!(found["retention"]["spare"]["objects"], files(&shop.bucket(&format!("base/{}", labels[0]))).len());
    std::fs::remove_dir_all(shop.bucket(&format!("base/{}", labels[0]))).unwrap();
    shop.judged("retention", "ok", 0, &["it goes back 9days"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_cannot_be_looked_at_is_red_and_never_taken_for_empty() {
    let shop = Shop::new().await;
    shop.primary.backup().run().await.expect("the backup succeeds");
    shop.segment().await;
    let gone = shop.primary.path("nowhere");
    shop.inventory(&format!("file://{}", gone.display()), "", "");
    shop.judged("store", "failed", 1, &["cannot be looked at", "nowhere"]);
    // Nobody listens there.
    let closed = format!("s3://acme/orders?endpoint=http://127.0.0.1:{}&patience=1s", free_port());
    let keys = "access_key = { env = \"KEY\" }\nsecret_key = { env = \"KEY\" }";
    shop.inventory(&closed, keys, "");
    let output = shop.command(&["--json"]).env("KEY", "AKIA").output().expect("lifeboat starts");
    let found = last_line(&output);
    assert_eq!(output.status.code(), Some(1), "{found}");
    let said = fact(&found["systems"][0], "store");
    assert!(said["says"].as_str().unwrap().contains("cannot be reached"), "{said}");
    assert!(said["now"].as_str().unwrap().contains("endpoint"), "{said}");
    // Nobody but its owner may look into it.
    shop.inventory(&shop.primary.location.url, "", "");
    let base = shop.bucket("base");
    let close = |mode| {
        use std::os::unix::fs::PermissionsExt as _;
        std::fs::set_permissions(&base, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    close(0o000);
    let mut command = shop.command(&["--json", "--stores-only"]);
    if let Some(account) = account() {
        account.give(&shop.primary.path("lifeboat.toml")).unwrap();
        command.uid(account.uid).gid(account.gid);
    }
    let output = command.output().expect("lifeboat starts");
    close(0o755);
    let found = last_line(&output);
    assert_eq!(output.status.code(), Some(1), "{found}");
    let said = fact(&found["systems"][0], "store")["says"].as_str().unwrap();
    assert!(said.to_lowercase().contains("permission denied"), "{said}");

    let unknown = shop.command(&["--system", "orders-bd"]).output().expect("lifeboat starts");
    assert_eq!(unknown.status.code(), Some(2));
    assert!(text(&unknown.stderr).contains("Its systems are: orders-db."), "{}", text(&unknown.stderr));
}
