//! Bad input, by the real program: a clear message, the right exit code, nothing begun that should not be.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::support::checkout;
use crate::support::postgres::Primary;
use crate::support::pty::Terminal;
use crate::support::redis::{TestRedis, open_directory};
use crate::support::sandbox::{Place, text};

/// Runs the program in a directory of its own.
fn lifeboat(directory: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_lifeboat"))
        .args(args)
        .current_dir(directory)
        .env("LIFEBOAT_STATE_DIR", directory.join("state"))
        .env_remove("ORDERS_DB_URL")
        .output()
        .expect("the program runs")
}

/// The exit code and standard error, which must hold every word.
fn refused(directory: &Path, args: &[&str], code: i32, words: &[&str]) {
    let output = lifeboat(directory, args);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{args:?}: {said}");
    for word in words {
        assert!(said.contains(word), "{args:?} does not say `{word}`:\n{said}");
    }
    assert!(!said.contains("panicked") && !said.contains("stack backtrace"), "{said}");
}

fn write(directory: &Path, name: &str, text: &str) {
    std::fs::write(directory.join(name), text).unwrap();
}

const INVENTORY: &str = "format = 1\nservice = \"orders\"\n";
const RUNBOOK: &str = "format = 1\nid = \"r\"\ntitle = \"R\"\nowner = \"us\"\nrevision = 1\n[[phases]]\ntitle = \
                       \"One\"\n[[phases.steps]]\nid = \"look\"\ndo = \"confirm\"\ntitle = \"Look\"\n";

#[test]
fn a_runbook_with_errors_begins_nothing() {
    let directory = tempfile::tempdir().unwrap();
    write(directory.path(), "lifeboat.toml", INVENTORY);
    let mut seen = 0;
    for entry in std::fs::read_dir(checkout().join("tests/invalid/runbooks")).unwrap() {
        let path = entry.unwrap().path();
        let file = path.to_str().unwrap();
        // Advice is no error: such a file runs.
        if path.extension().is_some_and(|extension| extension == "toml") && !file.ends_with("advice.toml") {
            refused(directory.path(), &["run", file, "--headless", "--yes"], 2, &["error"]);
            let linted = lifeboat(directory.path(), &["lint", file]);
            assert_eq!(linted.status.code(), Some(2), "{file}: {}", text_of(&linted));
            assert!(text_of(&linted).contains("error"), "{file}: {}", text_of(&linted));
            seen += 1;
        }
    }
    assert!(seen > 10, "{seen}");
    assert!(!directory.path().join("state/drills").exists(), "a drill was begun");
}

#[test]
fn wrong_words_on_the_command_line() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    refused(at, &["nonsense"], 2, &["nonsense"]);
    refused(at, &["run", "nope"], 2, &["there is no runbook nope", "restore-to-a-point"]);
    refused(at, &["run", "backup-now"], 2, &["there is no inventory", "lifeboat schema inventory"]);
    write(at, "lifeboat.toml", INVENTORY);
    write(at, "r.toml", RUNBOOK);
    refused(at, &["run", "backup-now"], 2, &["cannot bind the role `db`"]);
    refused(at, &["run", "r.toml", "--var", "x=1"], 2, &["no variable `x`"]);
    refused(at, &["run", "r.toml", "--yes"], 2, &["--headless is missing"]);
    write(at, "answers.toml", "look = 3");
    refused(at, &["run", "r.toml", "--headless", "--answers", "answers.toml"], 2, &["answers.toml", "look"]);
    refused(at, &["run", "r.toml", "--headless"], 4, &["A person is needed at step `look`", "lifeboat resume"]);
    refused(at, &["resume", "ffff"], 2, &["there is no drill ffff"]);
    refused(at, &["run", "r.toml", "--headless", "--yes", "--state-dir", "/proc/nowhere"], 2, &["/proc/nowhere"]);
    refused(at, &["replay", "r.toml"], 2, &["cannot be replayed"]);
}

#[test]
fn a_database_that_is_not_there_or_says_no() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    std::fs::create_dir(at.join("bucket")).unwrap();
    let inventory = |url: &str| {
        let text = format!(
            "{INVENTORY}[stores.backups]\nurl = \"file://{0}/bucket\"\n[systems.orders-db]\nkind = \"postgres\"\n\
             environment = \"staging\"\nurl = {url}\nbackups = {{ engine = \"lifeboat\", store = \"backups\" }}\n\
             restore = {{ directory = \"{0}/restore\", port = 15999 }}\n",
            at.display()
        );
        write(at, "lifeboat.toml", &text);
    };
    let runbook = RUNBOOK.replace("revision = 1", "revision = 1\nsystems = { db = \"postgres\" }").replace(
        "do = \"confirm\"",
        "do = \"postgres.query\"\nsystem = \"db\"\nsql = \"select 1 as one\"\ntimeout = \"20s\"",
    );
    write(at, "r.toml", &runbook);
    let run = ["run", "r.toml", "--headless", "--yes"];
    inventory("{ env = \"ORDERS_DB_URL\" }");
    refused(at, &run, 2, &["ORDERS_DB_URL", "is not set"]);
    inventory("{ file = \"nowhere\" }");
    refused(at, &run, 2, &["nowhere"]);
    inventory("\"postgresql://app@127.0.0.1:1/orders\"");
    refused(at, &run, 1, &["127.0.0.1:1", "refused"]);
    inventory("\"postgresql://app@no-such-host.invalid/orders?sslmode=verify-full\"");
    refused(at, &run, 1, &["no-such-host.invalid"]);
    inventory("\"postgresql://app@192.0.2.1/orders?sslmode=disable\"");
    refused(at, &run, 1, &["192.0.2.1"]);
    // An empty bucket: nothing to restore, and that is said.
    refused(at, &["points", "--target", "latest"], 1, &["neither a backup nor WAL", "orders-db"]);
}

/// A server that lives and says no to this password.
#[tokio::test]
async fn a_password_that_is_wrong() {
    let primary = Primary::start().await;
    primary.sql("alter user dba password 'the-right-one'").await;
    std::fs::write(primary.data.join("pg_hba.conf"), "local all all trust\nhost all all all scram-sha-256\n").unwrap();
    primary.down("fast").await;
    primary.up().await;
    let cache = open_directory();
    let redis = TestRedis::start(cache.path(), &["--requirepass", "the-right-one"], Some("the-right-one")).await;
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    let ask = |kind: &str, url: &str, step: &str| {
        let text = format!(
            "{INVENTORY}[stores.backups]\nurl = \"file://{0}\"\n[systems.asked]\nkind = \"{kind}\"\nenvironment = \
             \"staging\"\nurl = {{ env = \"LB_URL\" }}\nbackups = {{ engine = \"lifeboat\", store = \"backups\" }}\n\
             restore = {{ directory = \"{0}/restore\", port = 15998 }}\n",
            at.display()
        );
        write(at, "lifeboat.toml", &text);
        let runbook = RUNBOOK
            .replace("revision = 1", &format!("revision = 1\nsystems = {{ asked = \"{kind}\" }}"))
            .replace("do = \"confirm\"", &format!("{step}\nsystem = \"asked\"\ntimeout = \"20s\""));
        write(at, "r.toml", &runbook);
        let output = Command::new(env!("CARGO_BIN_EXE_lifeboat"))
            .args(["run", "r.toml", "--headless", "--yes", "--state-dir", "state"])
            .current_dir(at)
            .env("LB_URL", url)
            .output()
            .unwrap();
        let said = text_of(&output);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(!said.contains("wrong-one"), "the password is shown:\n{said}");
        said
    };
    let url = format!("postgresql://dba:a-wrong-one@127.0.0.1:{}/postgres", primary.port);
    let said = ask("postgres", &url, "do = \"postgres.query\"\nsql = \"select 1 as one\"");
    assert!(said.contains("password authentication failed") && said.contains(&primary.port.to_string()), "{said}");
    let url = format!("redis://:a-wrong-one@127.0.0.1:{}/0", redis.port);
    let said = ask("redis", &url, "do = \"redis.check\"");
    assert!(said.contains("password") && said.contains(&redis.port.to_string()), "{said}");
}

fn text_of(output: &Output) -> String {
    text(&output.stdout) + &text(&output.stderr)
}

/// One byte in the middle is another.
fn spoil(path: &Path) {
    let mut bytes = std::fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x10;
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn buckets_with_damage_and_targets_outside_the_window() {
    let place = Place::new("badinput");
    place.json(&["up", "--json"]);
    // Below the sandbox: what a drill leaves running ends with it.
    let at = &place.0.join("variations");
    std::fs::create_dir(at).unwrap();
    let inventory = std::fs::read_to_string(place.0.join("lifeboat.toml")).unwrap();
    let damage = place.json(&["status", "--json"])["variables"]["damage_at"].as_str().unwrap().to_owned();
    // A bucket of its own, damaged by `damage`. Returns where a drill restores to.
    let variation = |name: &str, damage: &dyn Fn(&Path)| {
        let (bucket, restore) = (at.join(name), at.join(format!("restore-{name}")));
        let copied = Command::new("cp").arg("-a").args([&place.0.join("bucket"), &bucket]).status().unwrap();
        assert!(copied.success());
        damage(&bucket);
        let text = inventory
            .replace(&format!("{}/bucket", place.0.display()), &bucket.display().to_string())
            .replace(&format!("{}/restore", place.0.display()), &restore.display().to_string());
        // What one variation leaves running must not keep the next from its port.
        let free = |line: &str| match line.split_once(", port = ") {
            Some((before, _)) => format!("{before}, port = 0 }}\n"),
            None => format!("{line}\n"),
        };
        let text: String = text.lines().map(free).collect();
        write(at, "lifeboat.toml", &text);
        restore
    };
    let files = |bucket: &Path, part: &str| {
        let mut found: Vec<PathBuf> =
            walk(bucket).into_iter().filter(|f| f.display().to_string().contains(part)).collect();
        found.sort();
        assert!(!found.is_empty(), "no {part} in {}", bucket.display());
        found
    };
    let points = |target: &str, code, words: &[&str]| refused(at, &["points", "--target", target], code, words);
    // The whole drill by the shipped runbook; its last lines say once more which step failed.
    let run = |damage: &str, words: &[&str]| {
        let var = format!("damage_at={damage}");
        refused(at, &["run", "restore-to-a-point", "--headless", "--yes", "--var", &var], 1, words);
    };

    let restore = variation("whole", &|_| {});
    points(&damage, 0, &[]);
    points("2026-11-21 10:00:00", 2, &["has no offset"]);
    points("yesterday", 2, &["yesterday"]);
    points("2001-01-01T00:00:00Z", 1, &["before the end of the first backup of orders-db"]);
    points("2101-01-01T00:00:00Z", 1, &["behind the end of the WAL of orders-db"]);
    points("lsn:FFFF/0", 1, &["behind the end of the WAL"]);
    run("2026-11-21 10:00:00", &["step `when-it-began` failed", "has no offset"]);
    run("2001-01-01T00:00:00Z", &["step `choose` failed", "before the end of the first backup of orders-db"]);
    run("2101-01-01T00:00:00Z", &["step `choose` failed", "behind the end of the WAL of orders-db"]);
    assert!(!restore.exists(), "something was restored for a target that cannot be reached");

    let restore = variation("empty", &|bucket| {
        std::fs::remove_dir_all(bucket).unwrap();
        std::fs::create_dir(bucket).unwrap();
    });
    run(&damage, &["step `choose` failed", "neither a backup nor WAL of orders-db", "the folder of orders-db"]);
    assert!(!restore.exists());

    let restore = variation("gap", &|bucket| {
        let segments = files(bucket, "/wal/00000001/");
        // Not the first, which the backup starts in, and not the last.
        std::fs::remove_file(&segments[segments.len() - 2]).unwrap();
    });
    points("latest", 1, &["WAL of orders-db is missing", "0000000100000000"]);
    run(&damage, &["step `choose` failed", "WAL of orders-db is missing", "0000000100000000"]);
    assert!(!restore.exists());

    let restore = variation("no-manifest", &|bucket| {
        for manifest in files(bucket, "orders-db/base/").into_iter().filter(|file| file.ends_with("manifest.json")) {
            std::fs::remove_file(manifest).unwrap();
        }
    });
    points(&damage, 1, &["no usable backup", "manifest.json is missing"]);
    run(&damage, &["step `choose` failed", "no usable backup", "manifest.json is missing"]);
    assert!(!restore.exists());

    let restore = variation("corrupt", &|bucket| spoil(&files(bucket, "/part-0000")[0]));
    run(&damage, &["step `restore-db` failed", "part-0000", "is damaged"]);
    let restored = restore.join("orders-db");
    assert!(!restored.join("postmaster.pid").exists(), "a server runs on a corrupt base backup");
    assert!(!restored.join("global/pg_control").exists(), "half a cluster could be started");

    let restore = variation("aof", &|bucket| spoil(&files(bucket, ".base.rdb.")[0]));
    let var = format!("damage_at={damage}");
    let asked =
        ["A person is needed at step `restore-cache`", ".base.rdb.", "is not what was stored", "lifeboat resume"];
    refused(at, &["run", "restore-to-a-point", "--headless", "--yes", "--var", &var], 4, &asked);
    let loadable = |file: &PathBuf| file.ends_with("dump.rdb") || file.parent().unwrap().ends_with("appendonlydir");
    let left: Vec<PathBuf> = walk(&restore.join("orders-cache")).into_iter().filter(loadable).collect();
    assert!(left.is_empty(), "a damaged file lies ready to be loaded: {left:?}");
    // What only a person may take: the snapshot before it.
    write(at, "answers.toml", "restore-cache = \"snapshot\"");
    let resumed = lifeboat(at, &["resume", "--headless", "--yes", "--answers", "answers.toml"]);
    let said = text(&resumed.stderr);
    let snapshot = said.lines().find(|line| line.contains("restoring orders-cache from 2")).unwrap_or_default();
    assert!(!snapshot.is_empty() && said.contains("orders-cache is restored at 127.0.0.1"), "{said}");
}

fn walk(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for path in std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()) {
        if path.is_dir() { found.extend(walk(&path)) } else { found.push(path) }
    }
    found
}

#[test]
fn a_journal_that_was_cut_or_torn() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    write(at, "lifeboat.toml", INVENTORY);
    write(at, "r.toml", RUNBOOK);
    refused(at, &["run", "r.toml", "--headless"], 4, &[]);
    let drill = std::fs::read_dir(at.join("state/drills")).unwrap().next().unwrap().unwrap().path();
    let (journal, drill) = (drill.join("journal.jsonl"), drill.to_str().unwrap());
    let whole = std::fs::read_to_string(&journal).unwrap();
    let lines: Vec<&str> = whole.lines().collect();
    assert!(lines.len() >= 4);

    // A line out of the middle.
    let cut: Vec<&str> = lines.iter().enumerate().filter(|(n, _)| *n != 2).map(|(_, line)| *line).collect();
    std::fs::write(&journal, cut.join("\n") + "\n").unwrap();
    refused(at, &["resume", drill, "--headless", "--yes"], 1, &["line 3"]);
    refused(at, &["replay", journal.to_str().unwrap()], 2, &["line 3"]);
    let verified = lifeboat(at, &["verify", drill]);
    assert_eq!(verified.status.code(), Some(1), "{}", text_of(&verified));
    assert!(text_of(&verified).contains("line 3"), "{}", text_of(&verified));

    // Half a last line: what a crash leaves. It is cut, and the drill goes on.
    std::fs::write(&journal, &whole[..whole.len() - 10]).unwrap();
    let resumed = lifeboat(at, &["resume", drill, "--headless", "--yes"]);
    assert_eq!(resumed.status.code(), Some(0), "{}", text(&resumed.stderr));
}

#[test]
fn a_terminal_in_which_nothing_fits() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    write(at, "lifeboat.toml", INVENTORY);
    write(at, "r.toml", RUNBOOK);
    for (columns, rows) in [(20, 5), (1, 1)] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_lifeboat"));
        command.args(["run", "r.toml", "--reason", "test", "--state-dir", "state"]).current_dir(at);
        let mut terminal = Terminal::start(command, columns, rows);
        if columns == 20 {
            terminal.wait_for("Look");
        } else {
            terminal.wait_until("anything", |screen| !screen.trim().is_empty());
        }
        terminal.resize(80, 24);
        terminal.wait_for("yes, it is so");
        // A question that has only just appeared takes no answer: it could be a key meant for the last one.
        terminal.wait_until("a second", |screen| screen.contains("you 00:01"));
        terminal.keys("y");
        terminal.wait_for("PASSED");
        terminal.keys("q");
        assert_eq!(terminal.end().code(), Some(0), "{columns}×{rows}");
        assert!(!terminal.is_raw(), "{columns}×{rows}: the terminal is left without echo");
    }
}
