use std::sync::Arc;

use super::*;
use crate::clock::{ManualClock, SharedClock};
use crate::drill::DrillState;
use crate::event::{
    Answer, Ask, Command, Envelope, Event, FORMAT, Failure, Line, Mode, Opening, Outcome, Stream, Verdict,
};
use crate::tui::session::Options;
use crate::tui::theme::{Depth, Themes};

const RUNBOOK: &str = r#"
format = 1
id = "plain"
title = "A small one"
[[phases]]
title = "Only"
[[phases.steps]]
id = "look"
title = "Look at it"
do = "confirm"
text = "Is it **broken**?"
[[phases.steps]]
id = "mend"
title = "Mend it"
do = "command"
argv = ["true"]
"#;

struct Told {
    seq: u64,
    state: DrillState,
}

impl Told {
    fn new() -> Self {
        let opening = Opening {
            format: FORMAT,
            drill: "d".into(),
            mode: Mode::Drill,
            service: "orders".into(),
            environment: "staging".into(),
            operator: "ana".into(),
            host: "h".into(),
            boot_id: "manual".into(),
            lifeboat_version: "0".into(),
            runbook_source: RUNBOOK.into(),
            runbook_digest: crate::digest::Digest::of(RUNBOOK.as_bytes()),
            runbook_path: None,
            inventory_path: None,
            inventory_digest: None,
            systems: Default::default(),
            variables: Default::default(),
            rto_seconds: Some(3600),
            rpo_seconds: None,
            expected_seconds: Default::default(),
        };
        let event = Event::DrillOpened { opening: Box::new(opening) };
        let state = DrillState::open(&Self::at(0, event)).unwrap();
        Self { seq: 1, state }
    }

    fn at(seq: u64, event: Event) -> Envelope {
        Envelope { seq, at: chrono::DateTime::UNIX_EPOCH, boot_ms: 1_000_000 + seq * 1000, event }
    }

    fn next(&mut self, event: Event) -> Envelope {
        let envelope = Self::at(self.seq, event);
        self.seq += 1;
        self.state.apply(&envelope);
        envelope
    }
}

fn asked(step: &str, ask: Ask) -> Event {
    Event::Asked { step: step.into(), ask: Box::new(ask) }
}

/// Tells a drill to the linear mode and types lines; returns what it wrote and what it commanded.
async fn talk(script: Vec<Result<Event, &str>>) -> (String, Vec<Command>, Leave) {
    let mut told = Told::new();
    let (envelopes_in, envelopes) = tokio::sync::broadcast::channel(64);
    let (commands, mut commanded) = mpsc::channel(64);
    let (notices_in, notices) = mpsc::unbounded_channel();
    let (lines_in, lines) = mpsc::unbounded_channel();
    let clock: SharedClock = Arc::new(ManualClock::at(chrono::DateTime::UNIX_EPOCH));
    let state = told.state.clone();
    let session = Session {
        state: state.clone(),
        envelopes,
        snapshot: Arc::new(move || state.clone()),
        commands,
        clock,
        player: None,
        preview: Arc::new(|_, _, _| Err(Failure::new("preview", "none here"))),
        notices,
        themes: Themes::load(None, "plain", Depth::True).unwrap(),
        options: Options {
            zone: chrono::FixedOffset::east_opt(0).unwrap(),
            ascii: false,
            mouse: false,
            leave_text: "leave".into(),
            read_only: false,
            can_stop: false,
            after_text: None,
            contacts: Vec::new(),
            log_file: None,
        },
    };
    let written = Arc::new(std::sync::Mutex::new(Vec::new()));
    let running = tokio::spawn(drive(session, lines, Shared(Arc::clone(&written))));
    for item in script {
        match item {
            Ok(event) => drop(envelopes_in.send(Arc::new(told.next(event)))),
            Err(line) => drop(lines_in.send(line.to_owned())),
        }
        // Each item is taken in before the next comes.
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
    }
    drop((envelopes_in, notices_in, lines_in));
    let leave = running.await.unwrap().unwrap();
    let mut all = Vec::new();
    while let Ok(command) = commanded.try_recv() {
        all.push(command);
    }
    let text = String::from_utf8(written.lock().unwrap().clone()).unwrap();
    (text, all, leave)
}

struct Shared(Arc<std::sync::Mutex<Vec<u8>>>);

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn a_drill_goes_by_words() {
    let failure = Failure::new("mend it", "exit code 1").now("look at the log");
    let (text, commands, leave) = talk(vec![
        Err("nonsense"),
        Err("declare"),
        Err("declare it is broken"),
        Ok(Event::Declared { reason: "it is broken".into() }),
        Ok(asked("look", Ask::Confirm { sentence: "It is broken".into() })),
        Err("no"),
        Err("yes"),
        Ok(Event::Answered { step: "look".into(), answer: Answer::Yes, by: "ana".into() }),
        Ok(Event::StepStarted {
            step: "mend".into(),
            attempt: 1,
            effect_key: "k".into(),
            target: None,
            undo: false,
            probe: false,
        }),
        Ok(Event::Output {
            step: "mend".into(),
            lines: vec![Line { stream: Stream::Out, text: "mending \u{1b}[31mnow".into() }],
            skipped_bytes: 0,
        }),
        Ok(Event::StepFinished {
            step: "mend".into(),
            attempt: 1,
            outcome: Box::new(Outcome::failed(failure.clone())),
            output: None,
        }),
        Ok(asked("mend", Ask::AfterFailure { failure })),
        Err("note the disk is full"),
        Err("stop"),
        Err("nothing"),
        Err("retry"),
        Err("leave"),
    ])
    .await;
    assert_eq!(leave, Leave::Left);
    let answer = |step: &str, answer| Command::Answer { step: step.into(), answer };
    assert_eq!(
        commands,
        [
            Command::Declare { reason: "it is broken".into() },
            answer("look", Answer::Yes),
            Command::Note { text: "the disk is full".into() },
            answer("mend", Answer::Retry),
        ]
    );
    insta::assert_snapshot!(text, @r#"
    STAGING · DRILL: A small one
    Opened 1 Jan 00:00:00 UTC. Type help for the commands.

    Nothing is touched yet. Type declare and what is broken: the RTO clock starts then.
    `nonsense` means nothing now; help lists the commands.
    declare wants words after it; the report shows them.
    00:00:00  ▲ declared: it is broken; the RTO clock runs

    ▶ Look at it
      Is it broken?
      It is broken
      Type yes if it is so, or no REASON. Or: skip REASON, help
    Type yes, or no and what it is like.
    00:00:02    Look at it: ana answered yes
    00:00:03  ▶ Mend it: started
    00:00:04      | mending now
    00:00:05  ✗ Mend it: mend it (00:02)
    00:00:05      why: exit code 1
    00:00:05      → look at the log

    ▶ Mend it
      ✗ Mend it: mend it
      Type retry, skip REASON, undo, or stop (the drill ends as failed). Or: output, contacts, help
    This will end the drill as failed; it cannot be continued. Type yes, or anything else to leave it.
    Nothing was done.
    "#);
}

#[tokio::test]
async fn a_name_is_typed_exactly_and_an_abort_asks_once_more() {
    let ask = Ask::TypeName { name: "orders-db".into(), sentence: "Wipe it.".into(), loss: "all of it".into() };
    let (text, commands, _) = talk(vec![
        Ok(Event::Declared { reason: "x".into() }),
        Ok(asked("look", ask)),
        Err("orders"),
        Err("yes"),
        Err("abort wrong host"),
        Err("yes"),
        Err("orders-db"),
    ])
    .await;
    assert!(text.contains("THIS DESTROYS") && text.contains("What will be lost: all of it"), "{text}");
    assert_eq!(
        commands,
        [
            Command::Abort { reason: "wrong host".into() },
            Command::Answer { step: "look".into(), answer: Answer::Typed { name: "orders-db".into() } },
        ]
    );
}

#[tokio::test]
async fn it_ends_when_the_drill_has_and_says_the_figures() {
    let (text, _, leave) =
        talk(vec![Ok(Event::Declared { reason: "x".into() }), Ok(Event::DrillFinished { verdict: Verdict::Failed })])
            .await;
    assert_eq!(leave, Leave::Finished);
    assert!(text.contains("✗ FAILED") && text.contains("RTO 00:00:01 of 1 h"), "{text}");
}

#[tokio::test]
async fn a_time_of_day_is_read_back_before_it_is_taken() {
    let input = crate::event::InputKind::Time;
    let ask = Ask::Input { prompt: "When?".into(), variable: "at".into(), default: None, input };
    let (text, commands, _) = talk(vec![
        Ok(Event::Declared { reason: "x".into() }),
        Ok(asked("look", ask)),
        Err("ten"),
        Err("10:02"),
        Err("no"),
        Err("10:03"),
        Err("yes"),
    ])
    .await;
    assert!(text.contains("That is 31 Dec 10:02:00 UTC. Type yes"), "{text}");
    let answer = Answer::Text { text: "1969-12-31T10:03:00+00:00".into() };
    assert_eq!(commands, [Command::Answer { step: "look".into(), answer }]);
}
