use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use indexmap::IndexMap;

use super::*;
use crate::clock::SystemClock;
use crate::digest::Digest;
use crate::drill::{DrillState, StepStatus};
use crate::event::{Answer, Ask, Command, Envelope, Event, Mode, Verdict};
use crate::inventory::Inventory;
use crate::journal::{DrillDir, Journal};
use crate::runbook;
use crate::secret::Redactor;

mod probe;

/// A drill in a directory of its own.
struct Bench {
    directory: tempfile::TempDir,
    runbook: String,
    /// What runs of one is looked for on the whole machine: no two drills have the same.
    drill: String,
}

impl Bench {
    fn new(steps: &str) -> Self {
        let runbook = format!(
            "format = 1\nid = \"bench\"\ntitle = \"Bench\"\nowner = \"us\"\nrevision = 1\nsystems = {{ db = \"postgres\" }}\n\n[variables.dir]\ndefault = \
             \"\"\n\n[[phases]]\ntitle = \"One\"\n{steps}"
        );
        Self { directory: tempfile::tempdir().unwrap(), runbook, drill: uuid::Uuid::now_v7().to_string() }
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    fn dir(&self) -> DrillDir {
        DrillDir::new(self.path(), "d1")
    }

    fn opening(&self, unattended: Option<Unattended>) -> Opening {
        let inventory = Inventory {
            service: "orders".into(),
            objectives: runbook::Objectives::default(),
            stores: IndexMap::new(),
            systems: IndexMap::new(),
            connections: IndexMap::new(),
            notify: IndexMap::new(),
            contacts: Vec::new(),
            schedules: Vec::new(),
            path: None,
            digest: Digest::of(b""),
        };
        Opening {
            runbook: runbook::parse(&self.runbook, "bench.toml").unwrap_or_else(|problems| panic!("{problems}")),
            inventory,
            bindings: BTreeMap::new(),
            addresses: BTreeMap::new(),
            mode: Mode::Drill,
            operator: "ann".into(),
            host: "here".into(),
            variables: [("dir".to_owned(), self.path().display().to_string())].into(),
            expected_seconds: BTreeMap::new(),
            lifeboat: "lifeboat".into(),
            clock: SystemClock::shared(),
            redactor: Redactor::default(),
            unattended,
        }
    }

    fn begin(&self, unattended: Option<Unattended>) -> (Driver, Handle) {
        let (driver, handle) = self.opening(unattended).begin(self.dir(), self.drill.clone()).unwrap();
        handle.commands.try_send(Command::Declare { reason: "test".into() }).unwrap();
        (driver, handle)
    }

    async fn headless(&self) -> (RunEnd, DrillState) {
        let (driver, handle) = self.begin(Some(Unattended { yes: true, ..Unattended::default() }));
        let end = driver.run().await.unwrap();
        (end, handle.feed.snapshot())
    }

    fn file(&self, name: &str) -> String {
        std::fs::read_to_string(self.path().join(name)).unwrap_or_default()
    }

    fn events(&self) -> Vec<Event> {
        Journal::read(&self.dir().journal()).unwrap().envelopes.into_iter().map(|envelope| envelope.event).collect()
    }
}

fn step(id: &str, rest: &str) -> String {
    format!("\n[[phases.steps]]\nid = \"{id}\"\n{rest}\n")
}

/// A step that appends its id to the file `log`.
fn logs(id: &str, rest: &str) -> String {
    step(id, &format!("do = \"command\"\nscript = 'echo {id} >> \"$LIFEBOAT_VAR_DIR/log\"'\n{rest}"))
}

/// Drives the state until `until` holds; `act` may send commands on each envelope.
async fn watch(handle: &Handle, until: impl Fn(&DrillState) -> bool) -> DrillState {
    let (mut state, mut envelopes) = handle.feed.subscribe();
    let wait = async {
        while !until(&state) {
            let envelope: std::sync::Arc<Envelope> = envelopes.recv().await.expect("the engine runs");
            state.apply(&envelope);
        }
        state
    };
    tokio::time::timeout(Duration::from_secs(20), wait).await.expect("the drill gets there")
}

#[tokio::test]
async fn steps_run_in_the_order_written_and_the_journal_is_ahead_of_the_effect() {
    let check =
        "do = \"command\"\nscript = 'grep -q \"step-started.*second\" \"$LIFEBOAT_VAR_DIR/drills/d1/journal.jsonl\"'";
    let bench = Bench::new(&format!("{}{}", logs("first", ""), step("second", check)));
    let (end, state) = bench.headless().await;
    assert_eq!(end, RunEnd::Finished(Verdict::Passed), "{:?}", state.steps);
    assert_eq!(bench.file("log"), "first\n");
    let replayed = bench.events();
    assert!(matches!(replayed.last(), Some(Event::DrillFinished { verdict: Verdict::Passed })));
}

#[tokio::test]
async fn steps_with_needs_run_side_by_side() {
    // Each of the two waits for the other's file: one after the other they would never end.
    let meet = |me: &str, other: &str| {
        let script = format!(
            "touch \\\"$LIFEBOAT_VAR_DIR/{me}\\\"; until test -e \\\"$LIFEBOAT_VAR_DIR/{other}\\\"; do :; done"
        );
        step(me, &format!("do = \"command\"\nscript = \"{script}\"\nneeds = [\"begin\"]\ntimeout = \"20s\""))
    };
    let bench = Bench::new(&format!("{}{}{}", logs("begin", ""), meet("left", "right"), meet("right", "left")));
    assert_eq!(bench.headless().await.0, RunEnd::Finished(Verdict::Passed));
}

#[tokio::test]
async fn a_failed_step_is_retried_by_itself_then_asked_about() {
    let script = "script = 'echo x >> \"$LIFEBOAT_VAR_DIR/log\"; test $(wc -l < \"$LIFEBOAT_VAR_DIR/log\") -ge 4'";
    let flaky = step("flaky", &format!("do = \"command\"\n{script}\nretry = {{ times = 1, delay = \"10ms\" }}"));
    let bench = Bench::new(&flaky);
    let (driver, handle) = bench.begin(None);
    let run = tokio::spawn(driver.run());
    for attempt in [2, 3] {
        let failed = |state: &DrillState| {
            matches!(state.ask_of(0), Some(Ask::AfterFailure { .. })) && state.steps[0].attempts.len() == attempt
        };
        watch(&handle, failed).await;
        handle.commands.try_send(Command::Answer { step: "flaky".into(), answer: Answer::Retry }).unwrap();
    }
    assert_eq!(run.await.unwrap().unwrap(), RunEnd::Finished(Verdict::Passed));
    assert_eq!(bench.file("log").lines().count(), 4);
}

#[tokio::test]
async fn headless_a_failure_ends_the_drill_and_says_so() {
    let bench = Bench::new(&format!("{}{}", step("bad", "do = \"command\"\nargv = [\"false\"]"), logs("after", "")));
    let (end, state) = bench.headless().await;
    assert_eq!(end, RunEnd::Finished(Verdict::Failed));
    assert_eq!((bench.file("log").as_str(), &state.steps[1].status), ("", &StepStatus::Pending));
}

#[tokio::test]
async fn what_is_done_is_not_repeated_after_the_program_is_gone() {
    let confirm = step("look", "do = \"confirm\"\ntitle = \"Look\"");
    let bench = Bench::new(&format!("{}{confirm}{}", logs("first", ""), logs("last", "")));
    let (driver, handle) = bench.begin(None);
    let run = tokio::spawn(driver.run());
    watch(&handle, |state| state.ask_of(1).is_some()).await;
    // As a kill does: the loop is gone between two events, nothing is said or recorded.
    run.abort();
    assert!(run.await.unwrap_err().is_cancelled());
    let unattended = Unattended { yes: true, ..Unattended::default() };
    let (driver, handle) = bench.opening(Some(unattended)).resume(bench.dir()).unwrap();
    assert_eq!(driver.run().await.unwrap(), RunEnd::Finished(Verdict::Passed));
    assert_eq!(bench.file("log"), "first\nlast\n");
    assert_eq!(handle.feed.snapshot().resumes, 1);
}

#[tokio::test]
async fn row_23_a_command_in_doubt_is_never_repeated_without_a_person() {
    let bench = Bench::new(&logs("pay", ""));
    cut_off(&bench, [started("pay", 1, false)]);
    let unattended = Unattended { yes: true, ..Unattended::default() };
    let (driver, _handle) = bench.opening(Some(unattended)).resume(bench.dir()).unwrap();
    let end = driver.run().await.unwrap();
    assert!(matches!(&end, RunEnd::NeedsPerson { step, .. } if step == "pay"), "{end:?}");
    assert_eq!(bench.file("log"), "");
    // A person takes it as done; nothing is executed.
    let (driver, handle) = bench.opening(None).resume(bench.dir()).unwrap();
    let run = tokio::spawn(driver.run());
    watch(&handle, |state| state.ask_of(0).is_some()).await;
    let answer = Answer::TakenAsDone { reason: "the bank says so".into() };
    handle.commands.try_send(Command::Answer { step: "pay".into(), answer }).unwrap();
    assert_eq!(run.await.unwrap().unwrap(), RunEnd::Finished(Verdict::Passed));
    assert_eq!(bench.file("log"), "");
}

#[tokio::test]
async fn going_again_from_a_step_does_all_after_it_again() {
    let confirm = step("look", "do = \"confirm\"\ntitle = \"Look\"");
    let bench = Bench::new(&format!("{}{}{confirm}", logs("choose", ""), logs("restore", "")));
    let (driver, handle) = bench.begin(None);
    let run = tokio::spawn(driver.run());
    watch(&handle, |state| state.ask_of(2).is_some()).await;
    let answer = Answer::No { reason: "the table is empty".into() };
    handle.commands.try_send(Command::Answer { step: "look".into(), answer }).unwrap();
    watch(&handle, |state| matches!(state.ask_of(2), Some(Ask::AfterFailure { .. }))).await;
    handle.commands.try_send(Command::Retry { step: "choose".into() }).unwrap();
    watch(&handle, |state| matches!(state.ask_of(2), Some(Ask::Confirm { .. })) && state.steps[0].reopened == 1).await;
    handle.commands.try_send(Command::Answer { step: "look".into(), answer: Answer::Yes }).unwrap();
    assert_eq!(run.await.unwrap().unwrap(), RunEnd::Finished(Verdict::Passed));
    assert_eq!(bench.file("log"), "choose\nrestore\nchoose\nrestore\n");
}

#[tokio::test]
async fn a_step_that_hangs_is_ended_with_all_it_started() {
    let hang =
        "do = \"command\"\nscript = 'sleep 600 & echo $! > \"$LIFEBOAT_VAR_DIR/pid\"; wait'\ntimeout = \"300ms\"";
    let bench = Bench::new(&step("hang", hang));
    let (end, state) = bench.headless().await;
    assert_eq!(end, RunEnd::Finished(Verdict::Failed));
    let outcome = state.steps[0].outcome().unwrap();
    assert_eq!(outcome.status, crate::event::Status::TimedOut, "{outcome:?}");
    let pid = bench.file("pid");
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
    assert!(stat.is_empty() || stat.contains(") Z ") || stat.contains(") X "), "{stat}");
}

#[tokio::test]
async fn row_01_a_destructive_step_waits_for_the_exact_name() {
    let bench = Bench::new(&logs("drop", "system = \"db\"\ndestroys = \"everything\""));
    let (driver, handle) = bench.begin(None);
    let run = tokio::spawn(driver.run());
    watch(&handle, |state| matches!(state.ask_of(0), Some(Ask::TypeName { .. }))).await;
    for wrong in [Answer::Typed { name: "order".into() }, Answer::Yes] {
        handle.commands.try_send(Command::Answer { step: "drop".into(), answer: wrong }).unwrap();
    }
    handle.commands.try_send(Command::Note { text: "typed the wrong name".into() }).unwrap();
    let state = watch(&handle, |state| !state.notes.is_empty()).await;
    assert!(state.steps[0].attempts.is_empty() && bench.file("log").is_empty());
    handle
        .commands
        .try_send(Command::Answer { step: "drop".into(), answer: Answer::Typed { name: "orders".into() } })
        .unwrap();
    assert_eq!(run.await.unwrap().unwrap(), RunEnd::Finished(Verdict::Passed));
    assert_eq!(bench.file("log"), "drop\n");
}

#[tokio::test]
async fn a_paused_drill_starts_nothing() {
    let confirm = step("look", "do = \"confirm\"\ntitle = \"Look\"");
    let bench = Bench::new(&format!("{confirm}{}", logs("after", "")));
    let (driver, handle) = bench.begin(None);
    let run = tokio::spawn(driver.run());
    watch(&handle, |state| state.ask_of(0).is_some()).await;
    handle.commands.try_send(Command::Pause).unwrap();
    handle.commands.try_send(Command::Answer { step: "look".into(), answer: Answer::Yes }).unwrap();
    let state = watch(&handle, |state| state.steps[0].status == StepStatus::Passed).await;
    assert!(state.paused.is_some() && state.steps[1].attempts.is_empty());
    handle.commands.try_send(Command::Unpause).unwrap();
    assert_eq!(run.await.unwrap().unwrap(), RunEnd::Finished(Verdict::Passed));
}

#[tokio::test]
async fn an_expectation_that_does_not_hold_fails_the_step() {
    let count = "do = \"command\"\nscript = 'echo \"{\\\"orders\\\": 3}\"'\ncapture = [{ field = \"json.orders\", as = \"n\" }]";
    let bench = Bench::new(&step("count", &format!("{count}\nexpect = [{{ field = \"json.orders\", at_least = 4 }}]")));
    let (end, state) = bench.headless().await;
    assert_eq!(end, RunEnd::Finished(Verdict::Failed));
    let outcome = state.steps[0].outcome().unwrap();
    assert_eq!(outcome.summary, "json.orders: found 3, expected at least 4");
    let bench = Bench::new(&step("count", &format!("{count}\nexpect = [{{ field = \"json.orders\", at_least = 3 }}]")));
    let (end, state) = bench.headless().await;
    assert_eq!((end, state.variable("n")), (RunEnd::Finished(Verdict::Passed), Some("3".into())));
}

#[tokio::test]
async fn an_aborted_drill_ends_what_runs_and_can_no_longer_be_resumed() {
    let bench = Bench::new(&step("long", "do = \"command\"\nargv = [\"sleep\", \"600\"]"));
    let (driver, handle) = bench.begin(None);
    let run = tokio::spawn(driver.run());
    watch(&handle, |state| state.steps[0].status == StepStatus::Running).await;
    handle.commands.try_send(Command::Abort { reason: "wrong service".into() }).unwrap();
    assert_eq!(run.await.unwrap().unwrap(), RunEnd::Finished(Verdict::Aborted));
    let error = bench.opening(None).resume(bench.dir()).err().expect("a drill that has ended");
    assert_eq!(error.to_string(), "this drill has ended (aborted); nothing is left to resume");
}

#[tokio::test]
async fn a_flood_of_output_is_sampled_and_kept_whole_up_to_the_cap() {
    let bench = Bench::new(&step("flood", "do = \"command\"\nscript = 'seq 1 200000'"));
    let (end, state) = bench.headless().await;
    assert_eq!(end, RunEnd::Finished(Verdict::Passed));
    let journal = std::fs::metadata(bench.dir().journal()).unwrap().len();
    assert!(journal < 1 << 20, "{journal} bytes of journal");
    let blob = state.steps[0].attempts[0].output.clone().expect("the output is kept");
    let bytes = crate::journal::read_blob(&bench.dir().output(), &blob).unwrap();
    assert_eq!(bytes.len(), (1..=200_000).map(|n: u32| n.to_string().len() + 1).sum::<usize>());
    assert_eq!(state.steps[0].output.lines.back().unwrap().1.text, "200000");
}

#[tokio::test]
async fn what_is_cut_off_when_the_program_leaves_is_no_failure() {
    let wait = "do = \"command\"\nscript = 'until test -e \"$LIFEBOAT_VAR_DIR/go\"; do :; done'\nidempotent = true";
    let bench = Bench::new(&step("long", wait));
    let (driver, handle) = bench.begin(None);
    let run = tokio::spawn(driver.run());
    watch(&handle, |state| state.steps[0].status == StepStatus::Running).await;
    handle.leave.cancel();
    assert_eq!(run.await.unwrap().unwrap(), RunEnd::Left);
    std::fs::write(bench.path().join("go"), "").unwrap();
    let unattended = Unattended { yes: true, ..Unattended::default() };
    let (driver, handle) = bench.opening(Some(unattended)).resume(bench.dir()).unwrap();
    assert_eq!(driver.run().await.unwrap(), RunEnd::Finished(Verdict::Passed));
    assert_eq!(handle.feed.snapshot().steps[0].attempts.len(), 2);
}

#[tokio::test]
async fn a_step_that_needs_a_person_does_not_cut_off_the_one_beside_it() {
    let begin = logs("begin", "");
    let ask = step("ask", "do = \"confirm\"\ntitle = \"Ask\"\nneeds = [\"begin\"]");
    let beside = logs("beside", "needs = [\"begin\"]");
    let bench = Bench::new(&format!("{begin}{ask}{beside}"));
    let (driver, handle) = bench.begin(Some(Unattended::default()));
    let end = driver.run().await.unwrap();
    assert!(matches!(&end, RunEnd::NeedsPerson { step, .. } if step == "ask"), "{end:?}");
    assert_eq!(handle.feed.snapshot().steps[2].status, StepStatus::Passed);
    assert_eq!(bench.file("log"), "begin\nbeside\n");
}

#[tokio::test]
async fn what_a_program_says_last_is_redacted_in_every_part_of_its_outcome() {
    let says = "do = \"command\"\nscript = 'echo \"{\\\"token\\\": \\\"hunter22\\\"}\"; echo no hunter22 >&2; exit 1'";
    let bench = Bench::new(&step("says", says));
    let opening = bench.opening(Some(Unattended::default()));
    opening.redactor.learn("hunter22");
    let (driver, handle) = opening.begin(bench.dir(), bench.drill.clone()).unwrap();
    handle.commands.try_send(Command::Declare { reason: "test".into() }).unwrap();
    assert_eq!(driver.run().await.unwrap(), RunEnd::Finished(Verdict::Failed));
    let journal: Vec<String> =
        bench.events().iter().skip(1).map(|event| serde_json::to_string(event).unwrap()).collect();
    assert!(journal.iter().any(|event| event.contains("json.token") && event.contains(crate::secret::MASK)));
    assert_eq!(journal.iter().find(|event| event.contains("hunter22")), None);
}

#[tokio::test]
async fn row_10_no_event_tells_a_secret_whoever_said_it() {
    let secret = "hunt er/22";
    let spelt = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, secret);
    let ask = "do = \"input\"\nvariable = \"word\"\nprompt = \"Say {given}\"\ndefault = \"{given}\"";
    let emit = format!("'echo \"{{\\\"token\\\": \\\"{spelt}\\\"}}\"'");
    let says = format!("do = \"command\"\nscript = {emit}\ncapture = [{{ field = \"json.token\", as = \"token\" }}]");
    // The last 64 KiB of its output begin within a secret, and it is put together from two halves with an escape between.
    let long = "do = \"command\"\nscript = 'yes \"$LIFEBOAT_VAR_CANARY\" | head -c 70004; printf \"hunt \\\\033[0mer/22\\\\n\" >&2'";
    let env = "env = { LIFEBOAT_VAR_CANARY = \"hunt er/22\" }";
    let mut bench =
        Bench::new(&format!("{}{}{}", step("ask", ask), step("says", &says), step("long", &format!("{long}\n{env}"))));
    bench.runbook =
        bench.runbook.replace("[variables.dir]", "[variables.given]\n\n[variables.word]\n\n[variables.dir]");
    let mut opening = bench.opening(None);
    opening.redactor.learn(secret);
    opening.variables.insert("given".to_owned(), secret.to_owned());
    let (driver, handle) = opening.begin(bench.dir(), bench.drill.clone()).unwrap();
    let run = tokio::spawn(driver.run());
    let send = |command| handle.commands.try_send(command).unwrap();
    send(Command::Declare { reason: format!("because of {secret}") });
    send(Command::Note { text: format!("note {secret}") });
    send(Command::Finding { text: format!("finding {secret}"), owner: Some(secret.into()), due: None });
    watch(&handle, |state| state.ask_of(0).is_some()).await;
    send(Command::Answer { step: "ask".into(), answer: Answer::Text { text: format!("answer {secret}") } });
    assert_eq!(run.await.unwrap().unwrap(), RunEnd::Finished(Verdict::Passed));
    // The runbook's own text is what its author published.
    let events = bench.events();
    let Event::DrillOpened { opening } = &events[0] else { panic!("{:?}", events[0]) };
    assert_eq!(opening.variables["given"], crate::secret::MASK);
    let asked = |event: &Event| matches!(event, Event::Asked { ask, .. } if matches!(**ask, Ask::Input { .. }));
    let answered = |event: &Event| matches!(event, Event::Answered { .. });
    let set = |event: &Event| matches!(event, Event::VariableSet { .. });
    assert!(events.iter().any(asked) && events.iter().any(answered) && events.iter().filter(|e| set(e)).count() == 2);
    for event in &events[1..] {
        let text = serde_json::to_string(event).unwrap();
        let parts = [secret, spelt.as_str(), "/22", "hunt er"];
        assert_eq!(parts.iter().find(|part| text.contains(**part)), None, "{text:.300}");
    }
    // Blobs too: of the long output nothing but masks is left, whole ones.
    let blobs =
        std::fs::read_dir(bench.dir().output()).unwrap().map(|entry| std::fs::read(entry.unwrap().path()).unwrap());
    assert!(blobs.into_iter().all(|blob| !String::from_utf8_lossy(&blob).contains("hunt er/22")));
}

/// The journal of a program that was killed: declared, then these events.
fn cut_off(bench: &Bench, events: impl IntoIterator<Item = Event>) {
    drop(bench.begin(None));
    let (mut journal, read) = Journal::open_for_append(&bench.dir().journal()).unwrap();
    let at = read.envelopes[0].clone();
    let declared = Event::Declared { reason: "x".into() };
    for (seq, event) in (1..).zip(std::iter::once(declared).chain(events)) {
        journal.append(&Envelope { seq, event, ..at.clone() }).unwrap();
    }
}

fn started(step: &str, attempt: u32, undo: bool) -> Event {
    Event::StepStarted { step: step.into(), attempt, effect_key: step.into(), target: None, undo, probe: false }
}

#[tokio::test]
async fn an_undo_in_doubt_is_asked_about_and_never_becomes_the_step_again() {
    let bench = Bench::new(&logs("act", "idempotent = true\nundo = [\"touch\", \"{dir}/undone\"]"));
    let done = crate::event::Outcome::passed("done");
    let finished = Event::StepFinished { step: "act".into(), attempt: 1, outcome: Box::new(done), output: None };
    cut_off(&bench, [started("act", 1, false), finished, started("act", 2, true)]);
    let (driver, handle) = bench.opening(None).resume(bench.dir()).unwrap();
    let run = tokio::spawn(driver.run());
    watch(&handle, |state| matches!(state.ask_of(0), Some(Ask::InDoubt { .. }))).await;
    handle.commands.try_send(Command::Answer { step: "act".into(), answer: Answer::Retry }).unwrap();
    watch(&handle, |state| state.steps[0].status == StepStatus::Undone).await;
    handle.leave.cancel();
    assert_eq!(run.await.unwrap().unwrap(), RunEnd::Left);
    assert!(bench.path().join("undone").exists());
    assert_eq!(bench.file("log"), "");
}

#[tokio::test]
async fn a_smoke_test_that_writes_is_not_repeated_without_a_person() {
    let bench = Bench::new(&step("probe", "do = \"smoke.sql\"\nsystem = \"db\"\nsql = \"insert into t values (1)\""));
    cut_off(&bench, [started("probe", 1, false)]);
    let unattended = Unattended { yes: true, ..Unattended::default() };
    let (driver, _handle) = bench.opening(Some(unattended)).resume(bench.dir()).unwrap();
    let end = driver.run().await.unwrap();
    assert!(matches!(&end, RunEnd::NeedsPerson { step, .. } if step == "probe"), "{end:?}");
    assert!(!runbook::StepKind::SmokeRedis { argv: vec!["INCR".into(), "n".into()] }.looks_first());
}

#[test]
fn a_fence_stays_once_a_promotion_has_begun() {
    let fence = step("fence", "do = \"postgres.fence\"\nsystem = \"db\"\nundo = true\ndestroys = \"writes\"");
    let promote = step("promote", "do = \"postgres.promote\"\nsystem = \"db\"");
    let bench = Bench::new(&format!("{fence}{promote}"));
    let done = crate::event::Outcome::passed("done");
    let finished = Event::StepFinished { step: "fence".into(), attempt: 1, outcome: Box::new(done), output: None };
    cut_off(&bench, [started("fence", 1, false), finished, started("promote", 1, false)]);
    let undo = Command::Undo { step: "fence".into() };
    let envelopes = Journal::read(&bench.dir().journal()).unwrap().envelopes;
    let mut state = DrillState::open(&envelopes[0]).unwrap();
    for envelope in &envelopes[1..] {
        let promoted = matches!(&envelope.event, Event::StepStarted { step, .. } if step == "promote");
        if promoted {
            assert_eq!(guard::admits(&state, &undo), Ok(()));
        }
        state.apply(envelope);
    }
    let refused = guard::Refusal::TwoPrimaries { fence: "fence".into(), promote: "promote".into() };
    assert_eq!(guard::admits(&state, &undo), Err(refused));
}

/// A cutover, the promotion before it, and a step behind it that runs until `go` is there.
fn after_a_cutover() -> Bench {
    let promote = step("promote", "do = \"postgres.promote\"\nsystem = \"db\"\ndestroys = \"x\"");
    let cutover =
        step("cutover", "do = \"cutover.connections\"\nconnections = \"app\"\nsystems = [\"db\"]\nundo = true");
    let behind = "do = \"command\"\nscript = 'until test -e \"$LIFEBOAT_VAR_DIR/go\"; do sleep 0.01; done'";
    let last = step("last", "do = \"confirm\"\ntitle = \"Last\"");
    let bench = Bench::new(&format!("{promote}{cutover}{}{last}", step("behind", behind)));
    let passed = |id: &str| Event::StepFinished {
        step: id.into(),
        attempt: 1,
        outcome: Box::new(crate::event::Outcome::passed("done")),
        output: None,
    };
    cut_off(&bench, [started("promote", 1, false), passed("promote"), started("cutover", 1, false), passed("cutover")]);
    bench
}

#[tokio::test]
async fn an_undo_waits_for_what_runs_behind_it_and_asks_before_writes_are_given_up() {
    let bench = after_a_cutover();
    let (driver, handle) = bench.opening(None).resume(bench.dir()).unwrap();
    let mut refusals = handle.refusals.subscribe();
    let run = tokio::spawn(driver.run());
    let send = |command| handle.commands.try_send(command).unwrap();
    let answer = |step: &str, answer| send(Command::Answer { step: step.into(), answer });
    let undo = || send(Command::Undo { step: "cutover".into() });
    let asked = |state: &DrillState| matches!(state.ask_of(1), Some(Ask::TypeName { .. }));
    watch(&handle, |state| state.steps[2].status == StepStatus::Running).await;
    undo();
    let refused = refusals.recv().await.unwrap();
    assert!(refused.contains("cannot be undone while `behind`"), "{refused}");
    std::fs::write(bench.path().join("go"), "").unwrap();
    watch(&handle, |state| state.ask_of(3).is_some()).await;

    undo();
    let state = watch(&handle, asked).await;
    let Some(Ask::TypeName { name, loss, .. }) = state.ask_of(1) else { panic!() };
    assert_eq!(name, "db");
    assert!(loss.starts_with("what the restored db took since "), "{loss}");
    answer("cutover", Answer::Typed { name: "yes".into() });
    assert!(refusals.recv().await.unwrap().contains("nothing was done"));
    answer("cutover", Answer::No { reason: "not yet".into() });
    watch(&handle, |state| state.ask_of(1).is_none()).await;
    undo();
    watch(&handle, asked).await;
    // The drill does not end while that is open.
    answer("last", Answer::Yes);
    let state = watch(&handle, |state| state.steps[3].status == StepStatus::Passed).await;
    assert_eq!((state.steps[1].attempts.len(), state.finished), (1, None));
    answer("cutover", Answer::Typed { name: "db".into() });
    let state = watch(&handle, |state| state.steps[1].attempts.len() == 2).await;
    assert!(state.steps[1].attempts[1].undo);
    handle.leave.cancel();
    run.await.unwrap().unwrap();
}

#[test]
fn an_attempt_that_passed_is_not_skipped_too() {
    use super::judge::{Skip, skipped};
    let (passed, wish) = (crate::event::Outcome::passed("done"), Some("slow".to_owned()));
    assert_eq!(skipped(&passed, wish.clone()), Skip::TooLate);
    let cancelled = crate::event::Outcome { status: crate::event::Status::Cancelled, ..passed.clone() };
    assert_eq!(skipped(&cancelled, wish), Skip::Yes { reason: "slow".to_owned() });
    assert_eq!(skipped(&passed, None), Skip::No);
}

#[tokio::test]
async fn a_question_left_open_without_a_person_is_asked_again_at_resume() {
    let bench = Bench::new(&step("sure", "do = \"confirm\"\ntitle = \"Sure?\""));
    let mut bench = bench;
    bench.runbook = bench.runbook.replace("[[phases.steps]]", "[[phases.steps]]\nask = true");
    let (driver, _handle) = bench.begin(Some(Unattended::default()));
    assert!(matches!(driver.run().await.unwrap(), RunEnd::NeedsPerson { .. }));
    let unattended = Unattended { yes: true, ..Unattended::default() };
    let (driver, _handle) = bench.opening(Some(unattended)).resume(bench.dir()).unwrap();
    let end = tokio::time::timeout(Duration::from_secs(20), driver.run()).await.expect("it does not wait for ever");
    assert_eq!(end.unwrap(), RunEnd::Finished(Verdict::Passed));
}

#[tokio::test]
async fn a_command_gets_our_environment_but_not_what_the_inventory_keeps_secret() {
    // Cargo's own variables stand for the operator's; one of them is said to hold a system's URL.
    let script = "script = 'env | cut -d= -f1 > \"$LIFEBOAT_VAR_DIR/log\"'";
    let bench = Bench::new(&step("look", &format!("do = \"command\"\n{script}\nenv = {{ ADDED = \"1\" }}")));
    let mut opening = bench.opening(Some(Unattended { yes: true, ..Unattended::default() }));
    let file = bench.path().join("lifeboat.toml");
    std::fs::write(
        &file,
        "format = 1\nservice = \"orders\"\n[stores.b]\nurl = \"file:///b\"\n[systems.db]\nkind = \"postgres\"\n\
         environment = \"x\"\nurl = { env = \"CARGO_PKG_NAME\" }\nbackups = { engine = \"lifeboat\", store = \"b\" }\n\
         restore = { directory = \"/r\", port = 5433 }\n",
    )
    .unwrap();
    opening.inventory = crate::inventory::load(&file).unwrap_or_else(|problems| panic!("{problems}"));
    let (driver, handle) = opening.begin(bench.dir(), bench.drill.clone()).unwrap();
    handle.commands.try_send(Command::Declare { reason: "test".into() }).unwrap();
    assert_eq!(driver.run().await.unwrap(), RunEnd::Finished(Verdict::Passed));
    let (seen, names) = (bench.file("log"), ["CARGO_PKG_VERSION", "LIFEBOAT_DRILL", "LIFEBOAT_VAR_DIR", "ADDED"]);
    let has = |name: &str| seen.lines().any(|line| line == name);
    assert!(std::env::var_os("CARGO_PKG_NAME").is_some() && names.into_iter().all(has), "{seen}");
    assert!(!has("CARGO_PKG_NAME"), "{seen}");
}
