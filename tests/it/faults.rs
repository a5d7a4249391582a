//! Each thing that goes wrong with backups turns its check red, its alert on, in Prometheus' eyes too, and the sink hears of
//! it. A backup that is broken off leaves nothing behind that a restore would take for one.

use std::path::PathBuf;
use std::process::{Command, Output};

use serde_json::{Value, json};

use crate::check::{Shop, files, later};
use crate::metrics::{passes, promtool};
use crate::support::postgres::program;
use crate::support::redis::{TestRedis, free_port, open_directory};
use crate::support::s3::{BUCKET, Cutter, S3, recorded};
use crate::support::sandbox::{last_line, text};
use crate::support::sinks::Web;

/// An answer of S3 with this error, as Amazon gives it.
macro_rules! answer {
    ($status:literal, $code:literal, $length:literal) => {
        concat!(
            "HTTP/1.1 ",
            $status,
            "\r\nContent-Type: application/xml\r\nConnection: close\r\nContent-Length: ",
            $length,
            "\r\n\r\n<?xml version=\"1.0\"?><Error><Code>",
            $code,
            "</Code><Message>no</Message></Error>"
        )
    };
}

/// Whoever is told, and what Prometheus would have seen.
struct Watch {
    shop: Shop,
    web: Web,
    seen: Vec<Value>,
}

impl Watch {
    async fn new() -> Self {
        Self { shop: Shop::new().await, web: Web::start().await, seen: Vec::new() }
    }

    /// The store's URL and other keys, and what else is said of the system or after it.
    fn inventory(&self, url: &str, store: &str, system: &str) {
        let hook = format!("[notify.hook]\nkind = \"webhook\"\nurl = \"{}/hook\"\n", self.web.url);
        self.shop.inventory(url, store, &format!("{system}\n{hook}"));
    }

    fn at_home(&self) {
        self.inventory(&self.shop.primary.location.url, "", "rpo = \"1h\"");
    }

    fn path(&self, name: &str) -> PathBuf {
        self.shop.primary.path(name)
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(program());
        command.args(words).arg("--inventory").arg(self.path("lifeboat.toml")).current_dir("/");
        command.env("LIFEBOAT_STATE_DIR", self.path("state"));
        command
    }

    fn output(&self, words: &[&str]) -> Output {
        self.command(words).output().expect("lifeboat starts")
    }

    /// `status name` of what the sink heard since the last call.
    fn heard(&self) -> Vec<String> {
        let word = |body: &Value, key: &str| body[key].as_str().unwrap().to_owned();
        let received = self.web.received();
        let mut all: Vec<String> =
            received.iter().map(|one| word(&one.body, "status") + " " + &word(&one.body, "name")).collect();
        all.sort();
        all.dedup();
        all
    }

    /// The check is red, just these alerts are on, and Prometheus' rules of the same names fire on the metrics.
    #[track_caller]
    fn red(&mut self, fault: &str, options: &[&str], alerts: &[&str]) {
        let output = self.output(&[&["check", "--notify", "--json"], options].concat());
        let found = last_line(&output);
        assert_eq!(output.status.code(), Some(1), "{fault}: {found:#} {}", text(&output.stderr));
        let facts = found["systems"].as_array().unwrap().iter().flat_map(|one| one["facts"].as_array().unwrap());
        for fact in facts.filter(|fact| fact["judgement"] == "failed") {
            assert!(!fact["now"].is_null(), "{fault}: nothing is said to do about {fact}");
        }
        let mut expected: Vec<String> = alerts.iter().map(|name| format!("firing {name}")).collect();
        expected.sort();
        assert_eq!(self.heard(), expected, "{fault}: {found:#}");
        let page = text(&self.output(&["metrics", "--stores-only"]).stdout);
        let lines = page.lines().filter(|line| !line.starts_with('#'));
        let series: Vec<Value> = lines
            .map(|line| line.rsplit_once(' ').expect("a value"))
            .map(|(series, value)| json!({ "series": series, "values": format!("{value}x60") }))
            .collect();
        let fires = |name: &&str| {
            json!({ "expr": format!("count(ALERTS{{alertname=\"{name}\",alertstate=\"firing\"}}) > bool 0"),
                "eval_time": "200m", "exp_samples": [{ "labels": "{}", "value": 1 }] })
        };
        let in_metrics: Vec<Value> = alerts.iter().map(fires).collect();
        self.seen
            .push(json!({ "name": fault, "interval": "5m", "input_series": series, "promql_expr_test": in_metrics }));
    }

    /// Undone: it is over, and the sink hears that too.
    #[track_caller]
    fn green(&mut self, fault: &str, options: &[&str], alerts: &[&str]) {
        let output = self.output(&[&["check", "--notify", "--json"], options].concat());
        assert_eq!(output.status.code(), Some(0), "{fault}: {:#}", last_line(&output));
        let mut expected: Vec<String> = alerts.iter().map(|name| format!("resolved {name}")).collect();
        expected.sort();
        assert_eq!(self.heard(), expected, "{fault}");
    }

    /// Prometheus' own program looks at what it would have seen.
    fn prometheus_agrees(&self) {
        let directory = tempfile::tempdir().unwrap();
        let rules = text(&Command::new(program()).args(["metrics", "rules"]).output().unwrap().stdout);
        std::fs::write(directory.path().join("rules.yml"), rules).unwrap();
        let file = json!({ "rule_files": ["rules.yml"], "evaluation_interval": "5m", "tests": self.seen });
        std::fs::write(directory.path().join("tests.yml"), file.to_string()).unwrap();
        passes(&promtool(directory.path(), &["test", "rules", "tests.yml"]));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_cannot_be_used_is_told_by_its_cause() {
    let (mut watch, server) = (Watch::new().await, S3::start().await);
    watch.shop.primary.backup().run().await.expect("the backup succeeds");
    watch.shop.segment().await;
    watch.at_home();
    let given = "access_key = { file = \"access\" }\nsecret_key = { file = \"secret\" }";
    std::fs::write(watch.path("access"), server.keys.access_key.expose()).unwrap();
    let right = server.keys.secret_key.expose().to_owned();
    let expired = recorded(answer!("400 Bad Request", "ExpiredToken", "82")).await;
    let disabled = recorded(answer!("400 Bad Request", "KMS.DisabledException", "91")).await;
    let denied = recorded(answer!("400 Bad Request", "KMS.AccessDeniedException", "95")).await;
    let other_bucket = server.url("").replace(BUCKET, "no-such-bucket");
    let nobody = format!("http://127.0.0.1:{}", free_port());
    const STORAGE: &str = "LifeboatStorageError";
    const KMS: &str = "LifeboatKmsFailure";
    for (fault, url, secret, alert) in [
        ("expired credentials", server.url_by("", &expired), &*right, STORAGE),
        ("refused credentials", server.url(""), "wrong", STORAGE),
        ("no such bucket", other_bucket, &right, STORAGE),
        ("nobody answers", server.url_by("", &nobody) + "&patience=1s", &right, STORAGE),
        ("a disabled key", server.url_by("", &disabled), &right, KMS),
        ("a key that is denied", server.url_by("", &denied), &right, KMS),
    ] {
        std::fs::write(watch.path("secret"), secret).unwrap();
        watch.inventory(&url, given, "");
        watch.red(fault, &["--stores-only"], &[alert]);
        watch.at_home();
        watch.green(fault, &["--stores-only"], &[alert]);
    }
    watch.prometheus_agrees();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_in_the_store_is_told_by_its_cause() {
    let mut watch = Watch::new().await;
    watch.at_home();
    watch.red("no backup at all", &[], &["LifeboatBackupMissing"]);
    watch.shop.primary.backup().run().await.expect("the backup succeeds");
    let mut names = Vec::new();
    for _ in 0..3 {
        names.push(watch.shop.segment().await);
    }
    watch.green("no backup at all", &[], &["LifeboatBackupMissing"]);

    let newest = watch.shop.wal(&names[2]);
    later(&newest, 2);
    watch.red("a clock that is wrong", &[], &["LifeboatClockWrong"]);
    later(&newest, -2);
    watch.green("a clock that is wrong", &[], &["LifeboatClockWrong"]);

    let (hole, aside) = (watch.shop.wal(&names[1]), watch.path("aside"));
    std::fs::rename(&hole, &aside).unwrap();
    watch.red("a hole in the WAL", &[], &["LifeboatWalGap"]);
    std::fs::rename(&aside, &hole).unwrap();
    watch.green("a hole in the WAL", &[], &["LifeboatWalGap"]);

    let base = files(&watch.shop.bucket("base"));
    let part = base.iter().find(|path| path.to_string_lossy().contains("part-0000")).unwrap();
    std::fs::rename(part, &aside).unwrap();
    let alerts = ["LifeboatBackupDamaged", "LifeboatBackupMissing"];
    watch.red("a manifest that names a missing object", &[], &alerts);
    std::fs::rename(&aside, part).unwrap();
    watch.green("a manifest that names a missing object", &[], &alerts);

    // What only a restore shows.
    watch.green("a first proof", &["--proof"], &[]);
    watch.shop.primary.sql("delete from orders").await;
    watch.shop.primary.backup().run().await.expect("the backup succeeds");
    watch.shop.primary.archive().await;
    watch.red("a table that has no rows any more", &["--proof"], &["LifeboatProofFailed"]);
    watch.prometheus_agrees();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_of_a_newer_redis_is_told() {
    let mut watch = Watch::new().await;
    let directory = open_directory();
    let redis = TestRedis::start(directory.path(), &["--save", "900 1"], None).await;
    redis.run("SET cart:1 apples").await;
    std::fs::write(watch.path("cache-url"), redis.url.expose()).unwrap();
    let cache = format!(
        "[systems.orders-cache]\nkind = \"redis\"\nenvironment = \"test\"\nrpo = \"1h\"\nurl = {{ file = \"cache-url\" }}\n\
         backups = {{ store = \"backups\" }}\nrestore = {{ directory = \"{}\" }}\n",
        watch.path("restored-cache").display()
    );
    watch.inventory(&watch.shop.primary.location.url, "", &cache);
    watch.shop.primary.backup().run().await.expect("the backup succeeds");
    watch.shop.segment().await;
    let runbook = "format = 1\nid = \"snapshot\"\ntitle = \"S\"\nsystems = { cache = \"redis\" }\n[[phases]]\ntitle = \"S\"\n\
                   [[phases.steps]]\nid = \"s\"\ndo = \"redis.snapshot\"\naof = \"no\"\n";
    std::fs::write(watch.path("snapshot.toml"), runbook).unwrap();
    let output = watch.output(&["run", watch.path("snapshot.toml").to_str().unwrap(), "--headless", "--yes"]);
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
    let snapshots = files(&watch.path("bucket").join("orders-cache/snapshots"));
    let manifest = snapshots.iter().find(|path| path.ends_with("manifest.json")).unwrap();
    let honest = std::fs::read_to_string(manifest).unwrap();
    let mut newer: Value = serde_json::from_str(&honest).unwrap();
    newer["rdb"]["rdb_version"] = 99.into();
    std::fs::write(manifest, newer.to_string()).unwrap();
    watch.red("an RDB of a newer version", &["--proof"], &["LifeboatProofFailed"]);
    std::fs::write(manifest, honest).unwrap();
    watch.green("an RDB of a newer version", &["--proof"], &["LifeboatProofFailed"]);
    watch.prometheus_agrees();
}

const BACKUP: &str = "format = 1\nid = \"backup\"\ntitle = \"B\"\nsystems = { db = \"postgres\" }\n[[phases]]\ntitle = \"B\"\n\
                      [[phases.steps]]\nid = \"b\"\ndo = \"postgres.backup\"\nsystem = \"db\"\n";

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_that_breaks_off_leaves_nothing_half_visible_and_the_next_one_is_whole() {
    let (watch, server) = (Watch::new().await, S3::start().await);
    std::fs::write(watch.path("backup.toml"), BACKUP).unwrap();
    let runbook = watch.path("backup.toml").to_str().unwrap().to_owned();
    let run = ["run", &runbook, "--headless", "--yes", "--notify"];
    let said = |output: &Output| text(&output.stdout) + &text(&output.stderr);
    // Some MiB that cannot be compressed away.
    watch.shop.primary.sql("create table noise as select gen_random_uuid() from generate_series(1, 200000)").await;

    // No room: bytes that can be written run out in the middle of a part.
    watch.at_home();
    let whole = watch.command(&run);
    let mut command = Command::new("bash");
    command.args(["-c", "trap '' XFSZ; ulimit -f 1024; exec \"$@\"", "limit"]);
    command.arg(whole.get_program()).args(whole.get_args()).current_dir("/");
    let output = command.env("LIFEBOAT_STATE_DIR", watch.path("state")).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert!(said(&output).contains("File too large"), "{}", said(&output));
    assert_eq!(watch.heard(), ["firing LifeboatJobFailed"]);
    let (found, _) = watch.shop.check();
    assert_eq!(found["backup"], Value::Null, "{found:#}");
    let output = watch.output(&run);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert_eq!(watch.heard(), ["resolved LifeboatJobFailed"]);
    assert!(watch.shop.check().0["backup"]["label"].is_string());

    // The network, in the middle of an upload.
    std::fs::write(watch.path("access"), server.keys.access_key.expose()).unwrap();
    std::fs::write(watch.path("secret"), server.keys.secret_key.expose()).unwrap();
    let given = "access_key = { file = \"access\" }\nsecret_key = { file = \"secret\" }";
    let cutter = Cutter::of_uploads(server.port, 1 << 20).await;
    watch.inventory(&(server.url_by("", &cutter.endpoint) + "&patience=1s"), given, "");
    let output = watch.output(&run);
    assert!(cutter.has_cut(), "it was not cut");
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert_eq!(watch.heard(), ["firing LifeboatJobFailed"]);
    watch.inventory(&server.url(""), given, "");
    let found = last_line(&watch.output(&["check", "--stores-only", "--json"]));
    assert_eq!(found["systems"][0]["backup"], Value::Null, "{found:#}");
    assert!(!server.listing().contains("manifest.json"), "{}", server.listing());
}
