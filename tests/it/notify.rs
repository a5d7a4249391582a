//! Alerts arrive: at a web server, at a mail server, at a program; once, and not at all where it would not be safe.

use std::path::Path;
use std::process::{Command, Output};

use lifeboat::event::Failure;
use lifeboat::inventory::{self, Inventory, Severity};
use lifeboat::notify::{self, Alert, Status};
use lifeboat::secret::Redactor;

use crate::rows::tls::certify;
use crate::support::redis::free_port;
use crate::support::sandbox::text;
use crate::support::sinks::{Mail, PASSWORD, Web};

const SECRET: &str = "T024-B513-hunter22";

fn write(directory: &Path, sinks: &str) {
    std::fs::write(directory.join("lifeboat.toml"), format!("format = 1\nservice = \"orders\"\n{sinks}")).unwrap();
}

/// A file with a secret, beside the inventory.
fn hide(directory: &Path, name: &str, secret: &str) {
    let path = directory.join(name);
    std::fs::write(&path, secret).unwrap();
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
}

fn load(directory: &Path) -> Inventory {
    inventory::load(&directory.join("lifeboat.toml")).unwrap_or_else(|problems| panic!("{problems}"))
}

fn gap(severity: Severity) -> Alert {
    Alert {
        name: "LifeboatWalGap".into(),
        service: "orders".into(),
        environment: "production".into(),
        subject: "orders-db".into(),
        severity,
        failure: Failure::new("2 segments of WAL are <missing>", "000000010000000000000005 … 6 & more")
            .now("lifeboat run backup-now"),
    }
}

/// `lifeboat notify test` in the directory; blocks, while servers of this process answer.
async fn test(directory: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lifeboat"));
    command.args(["notify", "test"]).args(args).current_dir(directory);
    tokio::task::spawn_blocking(move || command.output().expect("the program runs")).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_test_arrives_at_every_sink_and_says_so() {
    let (home, web) = (tempfile::tempdir().unwrap(), Web::start().await);
    let identity = certify(home.path(), "mail", "IP:127.0.0.1", "2");
    let mut mail = Mail::start("starttls", Some(&identity));
    hide(home.path(), "slack", &format!("{}/services/{SECRET}", web.url));
    hide(home.path(), "key", "R0UT1NGKEY");
    hide(home.path(), "bearer", "Bearer correct-horse");
    hide(home.path(), "user", "lifeboat");
    hide(home.path(), "password", PASSWORD);
    let (url, port, out) = (&web.url, mail.port, home.path().join("told").display().to_string());
    write(
        home.path(),
        &format!(
            r#"
[notify.team]
kind = "slack"
url = {{ file = "slack" }}

[notify.oncall]
kind = "pagerduty"
routing_key = {{ file = "key" }}
url = "{url}"
runbook_url = "https://wiki.example/dr#{{alert}}"

[notify.letters]
kind = "email"
host = "127.0.0.1"
port = {port}
ca = "mail-ca.pem"
from = "Lifeboat <lifeboat@example.com>"
to = ["oncall@example.com", "Größe <dba@example.com>"]
user = {{ file = "user" }}
password = {{ file = "password" }}

[notify.hook]
kind = "webhook"
url = "{url}/hook"
authorization = {{ file = "bearer" }}

[notify.script]
kind = "command"
argv = ["sh", "-c", 'cat > "$1"; env >> "$1"', "sh", "{out}"]
"#
        ),
    );
    let output = test(home.path(), &["--json"]).await;
    let (said, complaint) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{said}{complaint}");
    let object: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert_eq!((&object["failed"], object["sinks"].as_array().unwrap().len()), (&0.into(), 5), "{said}");

    let received = web.received();
    let at = |path: &str| received.iter().filter(|request| request.path == path).collect::<Vec<_>>();
    let slack = at(&format!("/services/{SECRET}"));
    assert!(slack[0].body["text"].as_str().unwrap().starts_with("*[TEST] orders team: this is a test message*\n"));
    let pager = at("/v2/enqueue");
    let actions: Vec<_> = pager.iter().map(|request| request.body["event_action"].as_str().unwrap()).collect();
    assert_eq!(actions, ["trigger", "resolve"], "a test does not stay open");
    for request in &pager {
        assert_eq!(request.body["routing_key"], "R0UT1NGKEY");
        assert_eq!(request.body["dedup_key"], "lifeboat/orders/LifeboatTest/oncall");
    }
    assert_eq!(pager[0].body["payload"]["severity"], "info");
    assert_eq!(pager[0].body["links"][0]["href"], "https://wiki.example/dr#LifeboatTest");
    let hook = at("/hook");
    assert_eq!(
        (&hook[0].body["status"], &hook[0].headers["authorization"]),
        (&"test".into(), &"Bearer correct-horse".parse().unwrap())
    );

    let letter = mail.letter();
    assert_eq!((&letter["tls"], &letter["login"]), (&true.into(), &"lifeboat".into()), "{letter}");
    assert_eq!(letter["to"], serde_json::json!(["oncall@example.com", "dba@example.com"]));
    assert_eq!(letter["headers"]["Subject"], "[TEST] orders letters: this is a test message");
    assert_eq!(letter["headers"]["Auto-Submitted"], "auto-generated");
    assert!(letter["body"].as_str().unwrap().contains("Nothing is wrong and nothing is to be done."), "{letter}");

    let told = std::fs::read_to_string(out).unwrap();
    assert!(told.starts_with("[TEST] orders script: this is a test message\n"), "{told}");
    assert!(told.contains("LIFEBOAT_ALERT_STATUS=test\n"), "{told}");
    for secret in [SECRET, "R0UT1NGKEY", PASSWORD, "correct-horse"] {
        assert!(!format!("{said}{complaint}{told}").contains(secret), "{secret} was shown");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sink_that_does_not_take_it_is_named_with_the_reason_and_no_secret() {
    let (home, web) = (tempfile::tempdir().unwrap(), Web::start().await);
    let mail = Mail::start("implicit", Some(&certify(home.path(), "mail", "IP:127.0.0.1", "2")));
    hide(home.path(), "down", &format!("http://127.0.0.1:{}/services/{SECRET}", free_port()));
    hide(home.path(), "plain", &format!("http://192.0.2.1/services/{SECRET}"));
    hide(home.path(), "gone", &format!("{}/services/{SECRET}", web.url));
    hide(home.path(), "user", "lifeboat");
    hide(home.path(), "password", "wrong-password");
    let port = mail.port;
    let slack = |name: &str, url: &str| {
        format!("[notify.{name}]\nkind = \"slack\"\npatience = \"1s\"\nurl = {{ file = \"{url}\" }}\n")
    };
    write(
        home.path(),
        &format!(
            "{}{}{}{}[notify.letters]\nkind = \"email\"\nhost = \"127.0.0.1\"\nport = {port}\ntls = \"implicit\"\nca = \"mail-ca.pem\"\n\
             from = \"a@example.com\"\nto = [\"b@example.com\"]\nuser = {{ file = \"user\" }}\npassword = {{ file = \"password\" }}\n\
             [notify.script]\nkind = \"command\"\nargv = [\"sh\", \"-c\", \"echo no such pager >&2; exit 3\"]\n",
            slack("down", "down"),
            slack("plain", "plain"),
            slack("gone", "gone"),
            slack("unset", "nowhere"),
        ),
    );
    web.refuse(&[(404, "no_service")]);
    let output = test(home.path(), &[]).await;
    let said = text(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{said}");
    for (sink, words) in [
        ("✗ down (slack)", "onnection refused"),
        ("✗ plain (slack)", "in the clear"),
        ("✗ gone (slack)", "404 Not Found: no_service"),
        ("✗ unset (slack)", "No such file"),
        ("✗ letters (email)", "535"),
        ("✗ script (command)", "exit code 3: no such pager"),
    ] {
        let line = said.lines().find(|line| line.starts_with(sink)).unwrap_or_else(|| panic!("no {sink} in {said}"));
        assert!(line.contains(words), "{line}");
    }
    assert!(
        said.contains("now: Put the cause right, then see that it delivers: lifeboat notify test --sink gone"),
        "{said}"
    );
    for secret in [SECRET, "wrong-password"] {
        assert!(!format!("{said}{}", text(&output.stderr)).contains(secret), "{secret} was shown: {said}");
    }
    assert_eq!(web.received().len(), 1, "what is refused for good is not sent again");
    let output = test(home.path(), &["--sink", "tema"]).await;
    assert_eq!(output.status.code(), Some(2), "{}", text(&output.stderr));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_cannot_be_verified_is_not_told() {
    let home = tempfile::tempdir().unwrap();
    let right = certify(home.path(), "right", "IP:127.0.0.1", "2");
    let other = certify(home.path(), "other", "IP:127.0.0.1", "2");
    let elsewhere = certify(home.path(), "elsewhere", "DNS:hooks.example", "2");
    let hook = |name: &str, web: &Web, ca: &str| {
        format!("[notify.{name}]\nkind = \"webhook\"\nurl = \"{}/x\"\n{ca}\n", web.url)
    };
    let letters = |name: &str, mail: &Mail, ca: &str| {
        let port = mail.port;
        format!(
            "[notify.{name}]\nkind = \"email\"\nhost = \"127.0.0.1\"\nport = {port}\nfrom = \"a@b.example\"\nto = [\"c@d.example\"]\n{ca}\n"
        )
    };
    let good = Web::start_with_tls(&right[1], &right[2]).await;
    let wrong_host = Web::start_with_tls(&elsewhere[1], &elsewhere[2]).await;
    let (stranger, plain) = (Mail::start("starttls", Some(&other)), Mail::start("plain", None));
    write(
        home.path(),
        &[
            hook("good", &good, "ca = \"right-ca.pem\""),
            hook("by-the-system", &good, ""),
            hook("by-another", &good, "ca = \"other-ca.pem\""),
            hook("another-host", &wrong_host, "ca = \"elsewhere-ca.pem\""),
            letters("mail-by-another", &stranger, "ca = \"right-ca.pem\""),
            letters("mail-by-the-system", &stranger, ""),
            letters("no-starttls", &plain, ""),
            letters("plaintext-by-word", &plain, "tls = \"plaintext\""),
        ]
        .concat(),
    );
    let output = test(home.path(), &["--json"]).await;
    let object: serde_json::Value = serde_json::from_str(&text(&output.stdout)).unwrap();
    let sinks = object["sinks"].as_array().unwrap();
    let told: Vec<_> = sinks.iter().filter(|sink| sink["failure"].is_null()).map(|sink| &sink["sink"]).collect();
    assert_eq!(told, ["good", "plaintext-by-word"], "{object:#}");
    for sink in sinks.iter().filter(|sink| !sink["failure"].is_null()) {
        let why = sink["failure"]["why"].as_str().unwrap();
        assert!(why.contains("certificate") || why.contains("STARTTLS"), "{sink:#}");
        assert!(!why.contains("tried"), "another attempt meets the same certificate: {why}");
    }
    assert_eq!((good.received().len(), wrong_host.received().len()), (1, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_says_nothing_is_not_waited_for_forever() {
    let home = tempfile::tempdir().unwrap();
    // Whoever connects is taken by the kernel, and nobody ever answers.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap();
    let port = address.port();
    write(
        home.path(),
        &format!(
            "[notify.hook]\nkind = \"webhook\"\npatience = \"1s\"\nurl = \"http://{address}/x\"\n\
             [notify.letters]\nkind = \"email\"\nhost = \"127.0.0.1\"\nport = {port}\npatience = \"1s\"\n\
             from = \"a@b.example\"\nto = [\"c@d.example\"]\n\
             [notify.script]\nkind = \"command\"\npatience = \"1s\"\nargv = [\"sleep\", \"600\"]\n"
        ),
    );
    let output = test(home.path(), &[]).await;
    let said = text(&output.stdout);
    assert_eq!((output.status.code(), said.matches("within 5 s").count()), (Some(1), 3), "{said}");
}

#[tokio::test]
async fn an_alert_is_sent_once_again_after_its_period_and_its_end_once() {
    let (home, web) = (tempfile::tempdir().unwrap(), Web::start().await);
    write(
        home.path(),
        &format!(
            "[notify.all]\nkind = \"webhook\"\nurl = \"{url}/all\"\nagain_after = \"1h\"\npatience = \"1s\"\n\
             [notify.worst]\nkind = \"webhook\"\nurl = \"{url}/worst\"\nat_least = \"critical\"\npatience = \"1s\"\n",
            url = web.url
        ),
    );
    let inventory = load(home.path());
    let state = home.path().join("state");
    let start: chrono::DateTime<chrono::Utc> = "2026-11-21T10:00:00Z".parse().unwrap();
    let tell = async |source: &str, alerts: &[Alert], minutes: i64| {
        let now = start + chrono::TimeDelta::minutes(minutes);
        let sent = notify::tell(&state, &inventory, source, alerts, now, &Redactor::default()).await.unwrap();
        let failed = sent.iter().filter(|delivery| delivery.failure.is_some()).count();
        let mut received: Vec<String> = web
            .received()
            .iter()
            .map(|request| format!("{} {}", request.path, request.body["status"].as_str().unwrap()))
            .collect();
        received.sort();
        (received, failed)
    };
    let words =
        |words: &[&str], failed: usize| (words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>(), failed);
    let error = [gap(Severity::Error)];
    assert_eq!(tell("check", &error, 0).await, words(&["/all firing"], 0));
    assert_eq!(tell("check", &error, 59).await, words(&[], 0), "not again within an hour");
    assert_eq!(tell("run", &[], 59).await, words(&[], 0), "another source does not know that it is over");
    assert_eq!(tell("check", &error, 60).await, words(&["/all firing"], 0), "again after an hour");
    let critical = [gap(Severity::Critical)];
    assert_eq!(tell("check", &critical, 61).await, words(&["/all firing", "/worst firing"], 0), "it got worse");
    web.refuse(&[(400, "no"), (400, "no")]);
    assert_eq!(tell("check", &[], 62).await, words(&["/all resolved", "/worst resolved"], 2));
    assert_eq!(
        tell("check", &[], 63).await,
        words(&["/all resolved", "/worst resolved"], 0),
        "what was not taken is sent again"
    );
    assert_eq!(tell("check", &[], 64).await, words(&[], 0), "its end is said once");
    web.refuse(&[(503, "busy")]);
    assert_eq!(
        tell("check", &error, 65).await,
        words(&["/all firing", "/all firing"], 0),
        "busy is tried again at once"
    );
    std::fs::write(state.join("alerts.json"), "{\"told\": [").unwrap();
    assert_eq!(tell("check", &error, 66).await, words(&["/all firing"], 0), "better twice than not at all");
    let kept: serde_json::Value = serde_json::from_slice(&std::fs::read(state.join("alerts.json")).unwrap()).unwrap();
    assert_eq!(kept["told"].as_array().unwrap().len(), 1, "{kept}");
    assert_eq!(Status::Firing.word(), "firing");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_tells_a_sink_by_name() {
    let (home, web) = (tempfile::tempdir().unwrap(), Web::start().await);
    hide(home.path(), "slack", &format!("{}/services/{SECRET}", web.url));
    let sink = "[notify.team]\nkind = \"slack\"\nurl = { file = \"slack\" }\n";
    let runbook = "format = 1\nid = \"r\"\ntitle = \"R\"\nowner = \"us\"\nrevision = 1\n[[phases]]\ntitle = \"One\"\n\
                   [[phases.steps]]\nid = \"tell\"\ndo = \"notify\"\nsink = \"team\"\nmessage = \"{service} is back\"\n";
    std::fs::write(home.path().join("r.toml"), runbook).unwrap();
    let run = async || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_lifeboat"));
        command
            .args(["run", "r.toml", "--headless", "--yes", "--json", "--state-dir", "state"])
            .current_dir(home.path());
        tokio::task::spawn_blocking(move || command.output().expect("the program runs")).await.unwrap()
    };
    write(home.path(), "");
    let output = run().await;
    assert_eq!(output.status.code(), Some(2), "{}", text(&output.stdout));
    assert!(text(&output.stderr).contains("the inventory has no [notify.team]"), "{}", text(&output.stderr));
    write(home.path(), sink);
    let output = run().await;
    assert_eq!(output.status.code(), Some(0), "{}{}", text(&output.stdout), text(&output.stderr));
    let received = web.received();
    let told = received[0].body["text"].as_str().unwrap();
    assert!(told.starts_with("*[INFO] orders ") && told.contains("orders is back"), "{told}");
    web.refuse(&[(403, SECRET)]);
    let output = run().await;
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stdout));
    let everything = crate::support::contents(&home.path().join("state"));
    for path in everything.keys() {
        assert!(!text(&std::fs::read(path).unwrap()).contains(SECRET), "{} holds the secret", path.display());
    }
}

/// An inventory with one system whose bucket is a directory, and one sink.
fn with_a_system(directory: &Path, web: &Web) {
    write(
        directory,
        &format!(
            "[notify.hook]\nkind = \"webhook\"\nurl = \"{}/hook\"\npatience = \"1s\"\n\
             [stores.backups]\nurl = \"file://{}/bucket\"\n[systems.cache]\nkind = \"redis\"\nenvironment = \"production\"\n\
             url = \"redis://127.0.0.1:1\"\nbackups = {{ store = \"backups\" }}\nrestore = {{ directory = \"{}/restore\" }}\n",
            web.url,
            directory.display(),
            directory.display()
        ),
    );
    std::fs::create_dir_all(directory.join("bucket")).unwrap();
}

/// `status name subject` of what arrived since the last call.
fn heard(web: &Web) -> Vec<String> {
    let word = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    let line =
        |body: &serde_json::Value| [word(&body["status"]), word(&body["name"]), word(&body["subject"])].join(" ");
    let mut all: Vec<String> = web.received().iter().map(|request| line(&request.body)).collect();
    all.sort();
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn a_check_that_is_red_alarms_once_and_is_over_when_it_is_green() {
    let (home, web) = (tempfile::tempdir().unwrap(), Web::start().await);
    let redis = crate::support::redis::open_directory();
    let server = crate::support::redis::TestRedis::start(redis.path(), &[], None).await;
    with_a_system(home.path(), &web);
    let inventory = home.path().join("lifeboat.toml");
    let text_of = std::fs::read_to_string(&inventory).unwrap();
    std::fs::write(&inventory, text_of.replace("redis://127.0.0.1:1", server.url.expose())).unwrap();
    let lifeboat = async |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_lifeboat"));
        command.args(args).args(["--state-dir", "state"]).current_dir(home.path());
        tokio::task::spawn_blocking(move || command.output().expect("the program runs")).await.unwrap()
    };
    let missing = ["firing LifeboatBackupMissing cache"];
    let output = lifeboat(&["check", "--notify"]).await;
    assert_eq!(output.status.code(), Some(1), "{}{}", text(&output.stdout), text(&output.stderr));
    assert_eq!(heard(&web), missing);
    lifeboat(&["check", "--notify"]).await;
    assert_eq!(heard(&web), [""; 0], "the same is not said twice");
    // A backup by a run that tells how it went: nothing is wrong, so nothing is said.
    let runbook = "format = 1\nid = \"backup\"\ntitle = \"Backup\"\nowner = \"us\"\nrevision = 1\n[systems]\ncache = \"redis\"\n\
                   [[phases]]\ntitle = \"One\"\n[[phases.steps]]\nid = \"snapshot\"\ndo = \"redis.snapshot\"\nsystem = \"cache\"\n";
    std::fs::write(home.path().join("backup.toml"), runbook).unwrap();
    let run = ["run", "backup.toml", "--headless", "--yes", "--notify"];
    let output = lifeboat(&run).await;
    assert_eq!(output.status.code(), Some(0), "{}{}", text(&output.stdout), text(&output.stderr));
    assert_eq!(heard(&web), [""; 0]);
    let output = lifeboat(&["check", "--notify"]).await;
    assert_eq!(output.status.code(), Some(0), "{}{}", text(&output.stdout), text(&output.stderr));
    assert_eq!(heard(&web), missing.map(|line| line.replace("firing", "resolved")));
    // The next run fails; the one after that is well again.
    std::fs::rename(home.path().join("bucket"), home.path().join("away")).unwrap();
    std::fs::write(home.path().join("bucket"), "no directory").unwrap();
    assert_eq!(lifeboat(&run).await.status.code(), Some(1));
    assert_eq!(heard(&web), ["firing LifeboatJobFailed backup"]);
    std::fs::remove_file(home.path().join("bucket")).unwrap();
    std::fs::rename(home.path().join("away"), home.path().join("bucket")).unwrap();
    web.refuse(&[(400, "not now")]);
    let output = lifeboat(&run).await;
    assert_eq!(output.status.code(), Some(1), "nobody was told: {}", text(&output.stdout));
    assert!(text(&output.stderr).contains("[notify.hook] did not take the message"), "{}", text(&output.stderr));
    assert_eq!(lifeboat(&run).await.status.code(), Some(0));
    assert_eq!(heard(&web), ["resolved LifeboatJobFailed backup"; 2], "what was not taken is said again");
}
