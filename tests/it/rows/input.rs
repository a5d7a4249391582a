//! What comes in is data, never code, and stays where it belongs.

use std::path::Path;
use std::process::{Command, Stdio};

use lifeboat::digest::Digest;
use lifeboat::event::RecoveryTarget;
use serde_json::{Value, json};

use crate::postgres::restore::{restore_of, run, shop};
use crate::support::Numbers;
use crate::support::postgres::{Primary, value};
use crate::support::redis::{TestRedis, open_directory};
use crate::support::sandbox::text;
use crate::support::small::Small;

const PAYLOADS: &[&str] = &[
    "$(touch canary)",
    "`touch canary`",
    "'; touch canary; '",
    "\"; touch canary; \"",
    "x & touch canary #",
    "line\ntouch canary\nline",
    "x'); create table canary (n int); --",
    "x' || (select current_setting('port')) || '",
    "x\r\nSET canary 1\r\n",
    "{drill}",
    "-n %s \\x41 * ~ $HOME",
];

#[tokio::test(flavor = "multi_thread")]
async fn row_08_a_value_is_never_code() {
    let primary = Primary::start().await;
    let home = open_directory();
    let cache = TestRedis::start(home.path(), &[], None).await;
    let url = format!("\"postgresql://dba@127.0.0.1:{}/postgres\"", primary.port);
    let system =
        |name: &str, kind: &str, url: &str| Small::system(name, kind, url).split("[stores").next().unwrap().to_owned();
    let systems = format!(
        "{}{}[stores.backups]\nurl = \"file:///nowhere\"\n",
        system("orders-db", "postgres", &url),
        system("orders-cache", "redis", &format!("\"{}\"", cache.url.expose())),
    );
    let head = "systems = { db = \"postgres\", cache = \"redis\" }\nvariables = { x = {} }";
    let step = |id: &str, rest: &str| format!("[[phases.steps]]\nid = \"{id}\"\ntitle = \"{{x}}\"\n{rest}\n");
    let steps = [
        step("script", "do = \"command\"\nscript = 'printf %s \"$LIFEBOAT_VAR_X\"'"),
        step("argv", "do = \"command\"\nargv = [\"printf\", \"%s\", \"{x}\"]"),
        step("env", "do = \"command\"\nscript = 'printf %s \"$Y\"'\nenv = { Y = \"{x}\" }"),
        step(
            "sql",
            "do = \"postgres.query\"\nsystem = \"db\"\nsql = \"select $1::text as stdout\"\nparams = [\"{x}\"]",
        ),
        step("redis", "do = \"redis.command\"\nsystem = \"cache\"\nargv = [\"ECHO\", \"{x}\"]"),
        step("http", "do = \"smoke.http\"\nurl = \"http://127.0.0.1:1/?q={x}\"\ntimeout = \"5s\""),
    ];
    for payload in PAYLOADS {
        let drill = Small::new(&systems, head, &steps.concat());
        let output = drill.run(&["--var", &format!("x={payload}")]);
        eprintln!("{}", text(&output.stderr));
        assert!(!drill.exists("canary"), "{payload:?} was run by a shell");
        let there = value(&primary.url, "select to_regclass('canary') is not null").await;
        assert_eq!(there, "f", "{payload:?} was read as SQL");
        assert_eq!(cache.run("EXISTS canary").await, ::redis::Value::Int(0), "{payload:?} was read as commands");
        let mut seen = 0;
        for line in drill.journal() {
            let event = &line["event"];
            if event["type"] != "step-finished" || event["step"] == "http" {
                continue;
            }
            let facts = &event["outcome"]["facts"];
            let found = facts.get("stdout").or(facts.get("reply")).and_then(Value::as_str);
            // A program's output ends without its white space.
            assert_eq!(
                found.map(str::trim_end),
                Some(payload.trim_end()),
                "{payload:?} did not come back as it is from {}: {}",
                event["step"],
                text(&output.stderr)
            );
            seen += 1;
        }
        assert_eq!(seen, 5, "{}", text(&output.stderr));
    }
}

/// An entry of a tar, with its content.
fn entry(name: &str, flag: u8, link: &str, content: &[u8]) -> Vec<u8> {
    let mut header = [0_u8; 512];
    header[..name.len()].copy_from_slice(name.as_bytes());
    header[100..108].copy_from_slice(b"0000600\0");
    header[124..136].copy_from_slice(format!("{:011o}\0", content.len()).as_bytes());
    header[156] = flag;
    header[157..157 + link.len()].copy_from_slice(link.as_bytes());
    header[257..265].copy_from_slice(b"ustar\x0000");
    sum(&mut header);
    let mut bytes = header.to_vec();
    bytes.extend_from_slice(content);
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes
}

fn sum(header: &mut [u8]) {
    header[148..156].fill(b' ');
    let sum: u64 = header.iter().map(|byte| u64::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}

/// A base backup whose every digest is right, and whose parts hold this.
struct Evil {
    primary: Primary,
    label: String,
    good: Value,
}

impl Evil {
    async fn new() -> Self {
        let primary = shop().await;
        primary.archive().await;
        let base = primary.path("bucket/orders-db/base");
        let label = std::fs::read_dir(base).unwrap().flatten().next().unwrap().file_name().into_string().unwrap();
        let evil = Self { primary, label, good: Value::Null };
        let good = serde_json::from_slice(&std::fs::read(evil.path("manifest.json")).unwrap()).unwrap();
        Self { good, ..evil }
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.primary.path(&format!("bucket/orders-db/base/{}/{name}", self.label))
    }

    /// Returns what the restore said, and the directory that it was to restore into.
    async fn restore(&self, tar: &[u8], files: &[(&str, &[u8])]) -> (String, std::path::PathBuf) {
        let part = |key: &str, raw: &[u8]| {
            let stored = zstd::encode_all(raw, 3).unwrap();
            let path = self.primary.path("bucket/orders-db").join(key);
            std::fs::remove_file(&path).unwrap();
            std::fs::write(&path, &stored).unwrap();
            json!({ "key": key, "digest": Digest::of(&stored), "bytes": stored.len(), "raw_bytes": raw.len() })
        };
        let mut manifest = self.good.clone();
        let tar = [tar, &[0; 1024]].concat();
        manifest["parts"] = json!([part(manifest["parts"][0]["key"].as_str().unwrap(), &tar)]);
        let listed: Vec<Value> = files
            .iter()
            .map(|(path, bytes)| {
                json!({ "Path": path, "Size": bytes.len(), "Last-Modified": "2026-01-01 00:00:00 GMT",
                        "Checksum-Algorithm": "SHA256", "Checksum": Digest::of(bytes).to_string() })
            })
            .collect();
        let body = format!(
            "{{ \"PostgreSQL-Backup-Manifest-Version\": 1,\n\"Files\": {},\n\"WAL-Ranges\": [{{ \"Timeline\": 1, \
             \"Start-LSN\": {}, \"End-LSN\": {} }}],\n",
            Value::from(listed),
            manifest["start_lsn"],
            manifest["stop_lsn"],
        );
        let own = format!("{body}\"Manifest-Checksum\": \"{}\"}}\n", Digest::of(body.as_bytes()));
        manifest["backup_manifest"] = part(manifest["backup_manifest"]["key"].as_str().unwrap(), own.as_bytes());
        std::fs::write(self.path("manifest.json"), manifest.to_string()).unwrap();
        let target = format!("targets/{}", Digest::of(&tar).short());
        let (clone, result) = run(restore_of(&self.primary, RecoveryTarget::Latest, true, &target).await).await;
        (result.map_or_else(|failure| failure.to_string(), |_| "restored".to_owned()), clone.directory.clone())
    }

    /// Everything that lies where no restore may write.
    fn outside(&self) -> Vec<String> {
        let mut found = Vec::new();
        for place in ["targets", "", "bucket"] {
            for entry in std::fs::read_dir(self.primary.path(place)).into_iter().flatten().flatten() {
                let name = entry.file_name().into_string().unwrap();
                if name.contains("escape") {
                    found.push(entry.path().display().to_string());
                }
            }
        }
        found
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn row_09_nothing_is_unpacked_outside_its_directory() {
    let evil = Evil::new().await;
    let absolute = evil.primary.path("escape-absolute").display().to_string();
    let outside = evil.primary.path("").display().to_string();
    let content: &[u8] = b"owned";
    for (name, flag, link) in [
        ("../escape", b'0', ""),
        ("base/../../escape", b'0', ""),
        ("./../escape", b'0', ""),
        ("base//../../escape", b'0', ""),
        (absolute.as_str(), b'0', ""),
        ("../escape-directory", b'5', ""),
    ] {
        let (said, _) =
            evil.restore(&entry(name, flag, link, if flag == b'0' { content } else { b"" }), &[(name, content)]).await;
        assert_eq!(evil.outside(), Vec::<String>::new(), "{name} escaped: {said}");
        assert!(said.contains("beneath") || said.contains("damaged"), "{name}: {said}");
    }
    // Links lead elsewhere, devices and pipes are none of a data directory's.
    let through = entry("link/escape", b'0', "", content);
    for (flag, link) in
        [(b'1', "/etc/passwd"), (b'2', &*outside), (b'3', ""), (b'4', ""), (b'6', ""), (b'L', ""), (b'S', "")]
    {
        let tar = [entry("link", flag, link, b""), through.clone()].concat();
        let (said, directory) = evil.restore(&tar, &[("link", b""), ("link/escape", content)]).await;
        assert_eq!(evil.outside(), Vec::<String>::new(), "an entry of type {} escaped: {said}", flag as char);
        assert!(!directory.join("link").exists() && directory.join("link").symlink_metadata().is_err(), "{said}");
        assert!(said.contains("only files and directories"), "{said}");
    }
}

/// Small when packed; the manifest says how much it is to be.
#[tokio::test(flavor = "multi_thread")]
async fn row_09_a_bomb_is_not_unpacked() {
    let evil = Evil::new().await;
    let (said, directory) =
        evil.restore(&entry("base/bomb", b'0', "", &vec![0; 64 << 20]), &[("base/bomb", b"small")]).await;
    let bytes = std::fs::metadata(directory.join("base/bomb")).map_or(0, |meta| meta.len());
    assert!(bytes <= 5, "a bomb of {bytes} bytes was unpacked: {said}");
    assert!(said.contains("has 67108864 bytes; the backup's manifest says 5"), "{said}");
    let (said, directory) = evil.restore(&entry("extra", b'0', "", b"extra"), &[("base/other", b"small")]).await;
    assert!(!directory.join("extra").exists() && said.contains("not in the backup's manifest"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn row_09_no_header_however_broken_escapes() {
    let evil = Evil::new().await;
    let names = ["../escape", "base/1/ok", "./../escape", "a/../../escape-2"];
    for seed in 0..12_u64 {
        let mut numbers = Numbers(seed);
        let mut tar = Vec::new();
        for _ in 0..4 {
            let mut one = entry(names[numbers.below(names.len())], b'0', "", b"owned");
            for _ in 0..3 {
                one[numbers.below(512)] = numbers.below(256) as u8;
            }
            sum(&mut one[..512]);
            tar.extend(one);
        }
        let listed: Vec<(&str, &[u8])> = names.iter().map(|name| (*name, &b"owned"[..])).collect();
        let (said, _) = evil.restore(&tar, &listed).await;
        assert_eq!(evil.outside(), Vec::<String>::new(), "seed {seed} escaped: {said}");
        assert_ne!(said, "restored");
    }
}

/// A time of day means another moment in each zone, and twice a year two moments in one.
#[test]
fn row_03_a_time_without_an_offset_is_refused_in_every_zone() {
    let drill = Small::new(&Small::system("orders-db", "postgres", "\"postgresql://app@127.0.0.1:1/x\""), "", "");
    std::fs::create_dir(drill.path("bucket")).unwrap();
    let inventory = std::fs::read_to_string(drill.path("lifeboat.toml")).unwrap();
    let inventory = inventory.replace("file:///nowhere", &format!("file://{}", drill.path("bucket").display()));
    std::fs::write(drill.path("lifeboat.toml"), inventory).unwrap();
    let points = |zone: &str, target: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_lifeboat"));
        command.args(["points", "--target", target]).current_dir(drill.path("")).env("TZ", zone).stdin(Stdio::null());
        let output = command.env("LIFEBOAT_STATE_DIR", drill.path("state")).output().unwrap();
        (output.status.code(), text(&output.stderr))
    };
    for zone in ["America/New_York", "Asia/Tokyo", "Europe/Berlin"] {
        // Plain; in New York's and Berlin's hour that comes twice, and in the one that never comes.
        for bare in [
            "2026-11-21 10:02:31",
            "2026-11-01T01:30:00",
            "2026-10-25 02:30:00",
            "2026-03-29T02:30",
            "2026-03-08 02:30:00.5",
        ] {
            let (code, said) = points(zone, bare);
            assert!(
                code == Some(2) && said.contains("has no offset"),
                "{bare} was taken for a moment in {zone}: {code:?} {said}"
            );
            for offset in ["Z", "+01:00", "-05:00", "+09"] {
                let (code, said) = points(zone, &format!("{bare}{offset}"));
                let whole = bare.len() > 16;
                assert!(
                    !whole || (code == Some(1) && said.contains("neither a backup nor WAL")),
                    "{bare}{offset}: {said}"
                );
            }
        }
    }
}

/// The WAL says which transaction is the last; a server that stands at another is not believed.
#[tokio::test(flavor = "multi_thread")]
async fn row_03_what_was_replayed_is_compared_with_what_the_wal_says() {
    let primary = shop().await;
    let time = crate::postgres::restore::now_of(&primary).await;
    primary.sql("insert into orders (item) values ('later')").await;
    primary.archive().await;
    let mut restore = restore_of(&primary, RecoveryTarget::Time { time }, true, "clone").await;
    restore.plan.last_ended = Some(time - chrono::Duration::seconds(1));
    let (clone, result) = run(restore).await;
    let failure = result.err().unwrap_or_else(|| panic!("another commit than the planned one passed in silence"));
    assert!(failure.why.contains("its last transaction is"), "{failure:?}");
    assert!(!Path::new(&clone.directory).join("postmaster.pid").exists(), "it stays up");
}
