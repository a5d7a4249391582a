//! `lifeboat plan-document`: every fact of the inventory that matters is in the plan, what is not covered is said, no secret
//! is, and no name is more than a name.

use std::path::{Path, PathBuf};
use std::process::Command;

use lifeboat::event::{Mode, Verdict};
use lifeboat::report;
use lifeboat::report::sign::{FileKey, Role, make_key, sign};

use crate::report::story::{self, HOSTILE, Story};

/// An inventory with the runbook of the story beside it.
fn scene(dir: &Path) -> PathBuf {
    let hostile: String = HOSTILE.chars().filter(|c| !c.is_control()).collect::<String>().replace('"', "\\\"");
    let text = format!(
        r##"
format = 1
service = "orders"

[objectives]
rto = "1h"
rpo = "15m"

[stores.backups]
url = "s3://acme-dr/orders?region=eu-central-1"
access_key = {{ env = "DR_KEY" }}
secret_key = {{ file = "/run/secrets/dr" }}
retain = "30d"

[stores.near]
url = "file:near"

[systems.orders-db]
kind = "postgres"
environment = "production {hostile}"
url = {{ env = "ORDERS_DB_URL" }}
backups = {{ store = "backups", prefix = "pg/main" }}
restore = {{ directory = "/srv/restore/db" }}
rto = "30m"

[systems.orders-cache]
kind = "redis"
environment = "production"
url = {{ command = ["vault-read", "cache"] }}
backups = {{ store = "backups" }}
restore = {{ directory = "/srv/restore/cache" }}
rpo = "1h"
policy = {{ "session:" = "flush", "stock:" = {{ rebuild = "run the stock job {hostile}" }} }}

[systems.views]
kind = "redis"
environment = "production"
url = "redis://127.0.0.1:6390"
backups = {{ store = "near" }}
restore = {{ directory = "/srv/restore/views" }}
persistence = {{ cache_only = "pages are drawn anew" }}

[connections.shop]
file = "/etc/shop/connections.json"
keys = {{ database = "orders-db" }}

[[contacts]]
role = "incident commander"
name = "Grace {hostile}"
phone = "+44 20 7946 0000"
page = "pagerduty:data-platform"
escalate_after = "15m"

[[contacts]]
role = "database owner"
name = "Edsger"

[[schedules]]
name = "nightly"
runbook = "backup-now"
cadence = "daily at 02:30"
zone = "Europe/Berlin"
overdue_after = "3h"
systems = {{ cache = "orders-cache" }}
"##
    );
    let path = dir.join("lifeboat.toml");
    std::fs::write(&path, text).unwrap();
    path
}

fn written(dir: &Path, state: &Path) -> (String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lifeboat"));
    let out = dir.join("out");
    command.args(["plan-document", "--inventory"]).arg(scene(dir)).arg("--out").arg(&out);
    command.arg("--state-dir").arg(state).env("DR_KEY", "AKIACANARY").env("ORDERS_DB_URL", "postgres://u:canary@h/db");
    let output = command.env("TZ", "UTC").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let read = |name: &str| std::fs::read_to_string(out.join(name)).unwrap();
    (read("dr-plan.md"), read("dr-plan.html"))
}

/// The words of a Markdown file, as a reader would show them.
fn words_of(markdown: &str) -> String {
    use pulldown_cmark::{Event, Options, Parser};
    let events = Parser::new_ext(markdown, Options::ENABLE_TABLES);
    let text = events.map(|event| match event {
        Event::Text(text) | Event::Code(text) => text.into_string(),
        Event::Html(html) | Event::InlineHtml(html) => panic!("HTML in the Markdown: {html}"),
        _ => " ".to_owned(),
    });
    text.collect::<String>().split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn the_plan_says_all_that_matters_and_no_secret() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    let mut story = Story::opened(&state, "019a-1", "2026-11-21T09:02:31.507Z".parse().unwrap(), |opening| {
        opening.mode = Mode::Drill;
    });
    story.tell();
    let drill = story.end(Verdict::Passed);
    let folder = report::write(drill.path()).unwrap().dir;
    let ada = make_key(&dir.path().join("ada"), "ada").unwrap();
    let key = FileKey::open(&ada.path, |_| None).unwrap();
    let signed = sign(&folder, Role::Operator, "ada@example.org", &key).unwrap();
    // The runbook that was drilled is one of the service's.
    std::fs::create_dir(dir.path().join("runbooks")).unwrap();
    let source = lifeboat::history::fold(&drill.journal()).unwrap().opening.runbook_source.clone();
    std::fs::write(dir.path().join("runbooks/restore-both.toml"), &source).unwrap();
    let shipped = include_str!("../../runbooks/redis-restore.toml");
    std::fs::write(dir.path().join("runbooks/redis-restore.toml"), shipped).unwrap();
    let (markdown, html) = written(dir.path(), &state);
    let text = words_of(&markdown);
    let digest = lifeboat::digest::Digest::of(source.as_bytes()).to_string();
    let print = signed.fingerprint.rsplit(' ').next().unwrap();
    for fact in &[
        "RTO 1 h , RPO 15 min",
        "s3://acme-dr/orders",
        "30 days",
        "no limit is set",
        "/srv/restore/db",
        "/srv/restore/cache",
        "folder pg/main",
        "variable ORDERS_DB_URL",
        "file /run/secrets/dr",
        "output of vault-read",
        "pages are drawn anew",
        "keys session:… are flushed",
        "run the stock job",
        "incident commander",
        "+44 20 7946 0000, pagerduty:data-platform",
        "after 15 min: Edsger",
        "database owner",
        "daily at 02:30",
        "Europe/Berlin",
        "3 h",
        "Restore {db} and {cache} to one point",
        "write access of every client of {db}",
        "019a-1",
        "passed",
        "4 min 55 s of 1 h",
        "orders-db: 4.1 s of 15 min",
        "orders-cache: 5 min 17 s of 1 h",
        print,
        &digest,
        "/etc/shop/connections.json",
        "database: orders-db",
        "Sign-off",
        // not covered
        "(redis-restore) has never been drilled",
        "The store near has no retention",
    ] {
        assert!(text.contains(*fact), "the plan leaves out: {fact}\n{text}");
        if *fact == "RTO 1 h , RPO 15 min" {
            continue; // three figures on the page
        }
        let escaped = fact.replace('&', "&amp;").replace('/', "&#x2f;");
        assert!(html.contains(*fact) || html.contains(&escaped), "the page leaves out: {fact}");
    }
    // The strictest objectives make the first tier, and a cache the last.
    let tier = |name: &str| {
        let row =
            markdown.lines().find(|line| line.starts_with("| ") && line.contains(&format!("| {name} |"))).unwrap();
        row.split('|').nth(1).unwrap().trim().to_owned()
    };
    assert_eq!([tier("orders-db"), tier("orders-cache"), tier("views")], ["1", "2", "3"]);
    for covered in [
        "orders-db has no scheduled backup",
        "orders-cache has no scheduled backup",
        "views has no",
        "orders-db has never",
    ] {
        assert!(!text.contains(covered), "{covered}");
    }
    for page in [&markdown, &html] {
        assert!(!page.contains("canary") && !page.contains("CANARY"), "a secret");
        let bad = page.chars().find(|c| (c.is_control() && *c != '\n') || *c == '\u{202e}');
        assert_eq!(bad, None);
    }
    assert!(!html.contains("<script") && !html.contains("onload=\"x") && html.contains("&lt;script&gt;"));
    assert!(!html.contains(" src=") && !html.contains("href=") && !html.contains("NaN"));
}

#[test]
fn what_nobody_has_done_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let inventory = scene(dir.path());
    let state = dir.path().join("sandbox");
    // A drill in the sandbox is none of this service.
    story::passed(&state, "019a-1");
    let (markdown, _) = written(dir.path(), &state);
    let text = words_of(&markdown);
    for gap in [
        "orders-db has never been recovered in a drill: its RTO and RPO are promises, not measurements.",
        "(restore-to-a-point) has never been drilled.",
        "Never drilled.",
    ] {
        assert!(text.contains(gap), "{gap}\n{text}");
    }
    let whole = std::fs::read_to_string(&inventory).unwrap();
    let bare = &whole[..whole.find("[[contacts]]").unwrap()];
    std::fs::write(&inventory, bare).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_lifeboat"));
    command.args(["plan-document", "--inventory"]).arg(&inventory).arg("--state-dir").arg(dir.path().join("none"));
    let text = words_of(&String::from_utf8(command.output().unwrap().stdout).unwrap());
    for gap in [
        "orders-db has no scheduled backup: no [[schedules]] of the inventory backs it up.",
        "Nobody is named to be called.",
        "Nothing runs by itself: the inventory has no [[schedules]].",
    ] {
        assert!(text.contains(gap), "{gap}\n{text}");
    }
}

#[test]
fn the_diagram_is_one_that_mermaid_cannot_misread() {
    let dir = tempfile::tempdir().unwrap();
    let (markdown, html) = written(dir.path(), &dir.path().join("none"));
    let start = markdown.find("```mermaid\n").unwrap() + "```mermaid\n".len();
    let block = &markdown[start..start + markdown[start..].find("```").unwrap()];
    assert!(block.starts_with("flowchart LR\n"));
    for line in block.lines().skip(1) {
        assert_eq!(line.matches('"').count() % 2, 0, "{line}");
    }
    assert_eq!(block.matches("-. restore .->").count(), 3);
    for place in ["orders-db restored", "orders-cache restored", "views restored", "s3:&#x2f;&#x2f;acme-dr"] {
        assert!(html.contains(place), "{place}");
    }
}
