//! Nothing is destroyed without its name.

use std::process::{Command, Output, Stdio};
use std::time::Duration;

use lifeboat::clock::{block, boot_now};
use lifeboat::engine::Remote;

use crate::support::open_the_gate;
use crate::support::postgres::{Primary, pg, stop_hard};
use crate::support::sandbox::text;
use crate::support::small::Small;

#[test]
fn row_01_a_wrong_name_destroys_nothing() {
    let system = Small::system("orders-db", "postgres", "\"postgresql://app@127.0.0.1:1/orders\"");
    let step = "[[phases.steps]]\nid = \"wipe\"\ndo = \"command\"\ntitle = \"Wipe\"\nsystem = \"db\"\n\
                destroys = \"everything\"\nargv = [\"touch\", \"destroyed\"]\n";
    for (answer, wiped) in [
        ("", false),
        ("wipe = \"orders\"", false),
        ("wipe = \"yes\"", false),
        ("wipe = \"ORDERS-DB\"", false),
        ("wipe = \"orders-db\"", true),
    ] {
        let drill = Small::new(&system, "systems = { db = \"postgres\" }", step);
        std::fs::write(drill.path("answers.toml"), answer).unwrap();
        let output = drill.run(&["--answers", "answers.toml"]);
        assert_eq!(drill.exists("destroyed"), wiped, "destroyed by {answer:?}: {}", text(&output.stderr));
        assert_eq!(output.status.success(), wiped, "{}", text(&output.stderr));
    }
}

/// What is behind the source's address while the drill stands before a gate.
async fn swapped(meanwhile: &str) -> (Primary, Output, Vec<serde_json::Value>) {
    let primary = Primary::start().await;
    let steps = "[[phases.steps]]\nid = \"gate\"\ntitle = \"Gate\"\ndo = \"command\"\n\
                 script = 'cd \"$LIFEBOAT_VAR_HERE\"; echo > held; read word < gate'\n\
                 [[phases.steps]]\nid = \"fence\"\ntitle = \"Fence\"\ndo = \"postgres.fence\"\nsystem = \"db\"\n";
    let head = "systems = { db = \"postgres\" }\nvariables.here = {}\n";
    let system = Small::system("orders-db", "postgres", &format!("\"{}\"", primary.url.expose()));
    let drill = Small::new(&system, head, steps);
    nix::unistd::mkfifo(&drill.path("gate"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    std::fs::write(drill.path("answers.toml"), "fence = \"orders-db\"").unwrap();
    let here = format!("here={}", drill.path("").display());
    let mut command = drill.command(&["--answers", "answers.toml", "--var", &here]);
    let run = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let patience = boot_now() + Duration::from_secs(60);
    let seen = || drill.journal().iter().any(|line| line["event"]["type"] == "identified");
    while !(drill.exists("held") && seen()) {
        assert!(boot_now() < patience, "it never looked who answers");
        block(Duration::from_millis(5));
    }
    if !meanwhile.is_empty() {
        primary.down("fast").await;
    }
    match meanwhile {
        "a twin" => start_a_twin(&primary).await,
        "started again" => primary.up().await,
        _ => {}
    }
    open_the_gate(&drill.path("gate"));
    let output = run.wait_with_output().unwrap();
    let journal = drill.journal();
    (primary, output, journal)
}

/// A copy of a server that is down, at its address.
async fn start_a_twin(primary: &Primary) {
    let twin = primary.path("twin");
    let copied = Command::new("cp").arg("-a").arg(&primary.data).arg(&twin).status();
    assert!(copied.unwrap().success());
    let (data, log) = (twin.to_str().unwrap(), primary.path("twin.log"));
    pg("pg_ctl", &["start", "-w", "-t", "60", "-D", data, "-l", log.to_str().unwrap()]).await;
}

fn intended(journal: &[serde_json::Value]) -> Option<&str> {
    let started = |event: &&serde_json::Value| event["type"] == "step-started" && event["step"] == "fence";
    journal.iter().map(|line| &line["event"]).find(started).map(|event| event["target"].as_str().unwrap_or_default())
}

/// It shares identifier, timeline, version, role, port and socket with the one that was looked at; by its copied files it is
/// that server.
#[tokio::test(flavor = "multi_thread")]
async fn row_02_a_server_swapped_behind_the_port_is_refused_before_the_intent() {
    let (primary, output, journal) = swapped("a twin").await;
    let said = text(&output.stderr);
    let open = primary.value("show default_transaction_read_only").await == "off";
    stop_hard(&primary.path("twin"));
    assert!(open, "the server in its place was fenced: {said}");
    assert_eq!(intended(&journal), None, "{said}");
    assert!(!output.status.success(), "{said}");
    assert!(said.contains("another server answers for orders-db") && said.contains("data directory: "), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn row_02_a_server_that_was_started_again_is_a_question_and_its_own_is_none() {
    let (primary, output, journal) = swapped("started again").await;
    let said = text(&output.stderr);
    assert_eq!(primary.value("show default_transaction_read_only").await, "off", "{said}");
    assert_eq!(intended(&journal), None, "{said}");
    assert!(said.contains("orders-db was started again since this drill looked at it"), "{said}");

    let (primary, output, journal) = swapped("").await;
    let said = text(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert_eq!(primary.value("show default_transaction_read_only").await, "on", "{said}");
    let target = intended(&journal).unwrap();
    assert!(target.contains("data directory /") && target.contains("system identifier 7"), "{target}");
}

/// The undo of a fence opens a server to writes: a copy of the fenced one has its fence too.
#[tokio::test(flavor = "multi_thread")]
async fn row_02_only_the_server_that_was_fenced_is_opened_again() {
    let primary = Primary::start().await;
    let steps = "[[phases.steps]]\nid = \"fence\"\ntitle = \"Fence\"\ndo = \"postgres.fence\"\nsystem = \"db\"\nundo = true\n\
                 [[phases.steps]]\nid = \"gate\"\ntitle = \"Gate\"\nneeds = []\ndo = \"command\"\n\
                 script = 'cd \"$LIFEBOAT_VAR_HERE\"; echo > held; read word < gate'\n";
    let head = "systems = { db = \"postgres\" }\nvariables.here = {}\n";
    let system = Small::system("orders-db", "postgres", &format!("\"{}\"", primary.url.expose()));
    let drill = Small::new(&system, head, steps);
    nix::unistd::mkfifo(&drill.path("gate"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    std::fs::write(drill.path("answers.toml"), "fence = \"orders-db\"").unwrap();
    let here = format!("here={}", drill.path("").display());
    let mut command = drill.command(&["--answers", "answers.toml", "--var", &here]);
    let mut run = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    // The outcomes of the fence and of what undid it, as many as there are to be.
    let outcomes = |wanted: usize| {
        let patience = boot_now() + Duration::from_secs(60);
        loop {
            let ended = |event: &serde_json::Value| event["type"] == "step-finished" && event["step"] == "fence";
            let journal = if drill.exists("held") { drill.journal() } else { Vec::new() };
            let found: Vec<_> = journal.into_iter().map(|mut line| line["event"].take()).filter(ended).collect();
            if found.len() == wanted {
                return found;
            }
            assert!(boot_now() < patience, "{wanted} were to come: {found:?}");
            block(Duration::from_millis(5));
        }
    };
    assert_eq!(outcomes(1)[0]["outcome"]["status"], "passed");
    let dir = lifeboat::journal::DrillDir::at(drill.drill());
    let remote = Remote::attach(&dir, "ann".into()).await.unwrap().expect("the engine runs");
    let undo = || remote.commands.send(lifeboat::event::Command::Undo { step: "fence".into() });
    let twin = primary.path("twin");
    primary.down("fast").await;
    start_a_twin(&primary).await;
    undo().await.unwrap();
    let refused = outcomes(2).remove(1);
    let closed = primary.value("show default_transaction_read_only").await == "on";
    stop_hard(&twin);
    assert!(closed, "the server in its place was opened: {refused}");
    assert_eq!(refused["outcome"]["status"], "failed");
    let said = refused.to_string();
    assert!(said.contains("the fence was not lifted") && said.contains("data directory: "), "{said}");
    // The fenced one itself, though it was started again.
    primary.up().await;
    undo().await.unwrap();
    let lifted = outcomes(3).remove(2);
    assert_eq!(lifted["outcome"]["status"], "passed", "{lifted}");
    assert_eq!(primary.value("show default_transaction_read_only").await, "off");
    open_the_gate(&drill.path("gate"));
    run.wait().unwrap();
}
