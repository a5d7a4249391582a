//! Which key leads to which command.

use std::time::Duration;

use lifeboat::event::*;
use lifeboat::tui::home::{Home, HomeChoice, HomeOptions};
use lifeboat::tui::{Effect, Leave, Msg, Notice, PlayerAct, PlayerStatus};
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::fixture::*;
use super::{ctrl, draw, key, press};

fn send(command: Command) -> Vec<Effect> {
    vec![Effect::Send(command)]
}

fn answer(step: &str, answer: Answer) -> Vec<Effect> {
    send(Command::Answer { step: step.into(), answer })
}

#[test]
fn a_declaration_is_typed() {
    let mut app = app(Story::begin(Mode::Incident).wait(3));
    assert_eq!(press(&mut app, "\n\n"), []);
    assert!(draw(&mut app, 80, 24).contains("what is broken is needed"));
    assert_eq!(press(&mut app, "payments gone\n"), send(Command::Declare { reason: "payments gone".into() }));
}

#[test]
fn enter_opens_a_gate_once() {
    let mut app = app(go_gate().wait(5));
    assert_eq!(press(&mut app, "\n"), answer("restore-db", Answer::Yes));
    assert_eq!(press(&mut app, "\n"), [], "the answer is on its way");
}

#[test]
fn a_refused_answer_can_be_given_again() {
    let mut app = app(go_gate().wait(5));
    press(&mut app, "\n");
    app.update(Msg::Notice(Notice::Refused("the journal is busy".into())));
    assert!(draw(&mut app, 80, 24).contains("the journal is busy"));
    assert_eq!(press(&mut app, "\n"), answer("restore-db", Answer::Yes));
}

#[test]
fn a_gate_that_has_just_appeared_takes_no_enter() {
    // The key was meant for what stood there before.
    let mut app = app(go_gate());
    assert_eq!(press(&mut app, "\n"), []);
}

#[test]
fn yes_and_no_to_a_confirmation() {
    assert_eq!(press(&mut app(confirming()), "y"), answer("confirm", Answer::Yes));
    let no = answer("confirm", Answer::No { reason: "a replica has it".into() });
    assert_eq!(press(&mut app(confirming()), "na replica has it\n"), no);
    // `n` is taken here; a note is `N`.
    assert_eq!(press(&mut app(confirming()), "Nx\n"), send(Command::Note { text: "x".into() }));
}

#[test]
fn destruction_takes_the_exact_name_and_no_paste() {
    let mut app = app(asks_for_name().wait(9));
    for keys in ["y", "\n\n", "orders\n", " d\n"] {
        assert_eq!(press(&mut app, keys), [], "{keys:?}");
    }
    assert!(draw(&mut app, 80, 24).contains("that is not orders-db"));
    app.update(ctrl('u'));
    app.update(Msg::Paste("orders-db".into()));
    assert_eq!(press(&mut app, "\n"), []);
    assert_eq!(press(&mut app, "orders-db\n"), answer("fence", Answer::Typed { name: "orders-db".into() }));
}

#[test]
fn what_can_be_done_about_a_failure() {
    assert_eq!(press(&mut app(failed()), "r"), answer("restore-db", Answer::Retry));
    assert_eq!(press(&mut app(failed()), "Sy"), answer("restore-db", Answer::Stop));
    assert_eq!(press(&mut app(failed()), "S\u{1b}"), []);
    let skip = send(Command::Skip { step: "restore-db".into(), reason: "by hand".into() });
    assert_eq!(press(&mut app(failed()), "sby hand\n"), skip);
    assert_eq!(press(&mut app(failed()), "uy"), send(Command::Undo { step: "restore-db".into() }));
}

#[test]
fn a_step_that_passed_is_done_again_only_after_a_question() {
    let mut app = app(restoring());
    press(&mut app, "kk");
    assert_eq!(press(&mut app, "r"), []);
    assert!(draw(&mut app, 80, 24).contains("every step after it"));
    assert_eq!(press(&mut app, "y"), send(Command::Retry { step: "fence".into() }));
}

#[test]
fn the_drill_as_a_whole() {
    let running = || app(restoring());
    assert_eq!(press(&mut running(), "p"), send(Command::Pause));
    assert_eq!(press(&mut running(), "m"), send(Command::SetPace { pace: Pace::StepByStep }));
    assert_eq!(press(&mut running(), "nfull\n"), send(Command::Note { text: "full".into() }));
    let finding = Command::Finding { text: "slow".into(), owner: Some("kim".into()), due: None };
    assert_eq!(press(&mut running(), "Fslow\nkim\n\n"), send(finding));
    assert_eq!(press(&mut running(), "x\n"), [], "an abort wants a reason");
    assert_eq!(press(&mut running(), "xwrong host\n"), send(Command::Abort { reason: "wrong host".into() }));
    let mut paused = app(restoring().tell(Event::Paused { by: "ana".into() }));
    assert_eq!(press(&mut paused, "p"), send(Command::Unpause));
}

#[test]
fn leaving_asks_and_escape_never_ends_anything() {
    let mut app = app(restoring());
    assert_eq!(press(&mut app, "\u{1b}\u{1b}\u{1b}"), []);
    assert_eq!(press(&mut app, "q\u{1b}"), []);
    assert_eq!(press(&mut app, "qy"), [Effect::Leave(Leave::Left)]);
    let mut app = super::fixture::app(restoring());
    assert_eq!(app.update(ctrl('c')), []);
    assert!(draw(&mut app, 80, 24).contains("Abort the drill, or only leave"));
    assert_eq!(app.update(ctrl('c')), [Effect::Leave(Leave::Left)]);
    let options = lifeboat::tui::Options { can_stop: true, ..options() };
    let mut app = super::fixture::app_with(restoring(), "dark", options);
    app.update(ctrl('c'));
    assert!(draw(&mut app, 80, 24).contains("Once more stops the drill"));
    assert_eq!(app.update(ctrl('c')), [Effect::Leave(Leave::Stopped)]);
    let mut app = super::fixture::app(restoring());
    app.update(ctrl('c'));
    assert_eq!(press(&mut app, "aover\n"), send(Command::Abort { reason: "over".into() }));
    let mut over = super::fixture::app(finished(Verdict::Passed));
    assert_eq!(press(&mut over, "\n"), [Effect::Leave(Leave::Finished)]);
}

/// The target that Enter and its question choose.
fn choose(app: &mut lifeboat::tui::App) -> (RecoveryTarget, bool) {
    assert_eq!(press(app, "\n"), [], "it is asked first");
    match press(app, "\n").as_slice() {
        [Effect::Send(Command::Answer { answer: Answer::Point { point }, .. })] => {
            (point.target.clone(), point.inclusive)
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn three_keys_lead_to_just_before_the_drop() {
    let mut app = app(choosing().wait(9));
    let screen = draw(&mut app, 80, 24);
    assert!(screen.contains("▶ 09:52:31.507 +01:00  xid 8841  drops payments"), "{screen}");
    assert_eq!(press(&mut app, "b"), []);
    let screen = draw(&mut app, 80, 24);
    assert!(screen.contains("Enter   recover to just before xid 8841, which drops payments"), "{screen}");
    assert!(!screen.contains("it keeps"), "{screen}");
    assert_eq!(choose(&mut app), (RecoveryTarget::Xid { xid: 8841 }, false));
}

#[test]
fn arrows_go_through_the_suspects_and_say_what_they_would_keep() {
    let mut app = app(choosing().wait(9));
    app.update(key(KeyCode::Down));
    let screen = draw(&mut app, 80, 24);
    assert!(screen.contains("▶ 09:52:44.120 +01:00  xid 8869  deletes 41882 rows of orders"), "{screen}");
    assert!(screen.contains("recover to just before xid 8869"), "{screen}");
    assert!(screen.contains("▲ it keeps xid 8841, which drops payments"), "{screen}");
    app.update(key(KeyCode::Down));
    assert!(draw(&mut app, 80, 24).contains("no suspect is later"));
    app.update(key(KeyCode::Up));
    press(&mut app, "a");
    let screen = draw(&mut app, 80, 24);
    assert!(screen.contains("just after xid 8841") && screen.contains("it keeps xid 8841"), "{screen}");
    press(&mut app, "b");
    assert_eq!(choose(&mut app), (RecoveryTarget::Xid { xid: 8841 }, false));
}

/// The same question with another history, and without an incident when `incident` is not.
fn choosing_from(incident: bool, change: impl FnOnce(&mut History)) -> Story {
    let mut window = window();
    window.incident = window.incident.filter(|_| incident);
    let SystemWindow::Postgres { history: Some(history), .. } = &mut window.systems[0] else { panic!() };
    change(history);
    fenced()
        .start("choose")
        .wait(2)
        .ask("choose", Ask::RecoveryPoint { window: Box::new(window), suggested: None })
        .wait(9)
}

#[test]
fn of_many_suspects_those_by_the_incident_are_seen() {
    let many = |history: &mut History| {
        let model = history.suspects[1].clone();
        let others = (0..40).map(|index| Suspect {
            xid: 8_000 + index,
            at: time("09:41:00") + chrono::TimeDelta::seconds(20 * i64::from(index)),
            lsn: Lsn(model.lsn.0 - (u64::from(40 - index) << 20)),
            ..model.clone()
        });
        let own = std::mem::take(&mut history.suspects);
        history.suspects = others.chain(own).collect();
    };
    let mut app = app(choosing_from(true, many));
    let screen = draw(&mut app, 80, 24);
    // 09:51:40 lies within a minute of the reported moment: it may be the damage as well.
    assert!(screen.contains("▶ 09:51:40.000 +01:00  xid 8032") && screen.contains("33 of 42"), "{screen}");
    for _ in 0..8 {
        app.update(key(KeyCode::Down));
    }
    let screen = draw(&mut app, 80, 24);
    assert!(screen.contains("xid 8841  drops payments") || screen.contains("of 42"), "{screen}");
}

#[test]
fn a_report_that_is_late_points_at_what_came_before_it() {
    let mut app = app(choosing_from(true, |history| {
        history.suspects[0].at = time("09:49:10");
        history.suspects[1].at = time("11:30:00");
    }));
    assert!(draw(&mut app, 80, 24).contains("▶ 09:49:10.000 +01:00  xid 8841"));
}

#[test]
fn without_an_incident_the_newest_drop_is_offered_and_nothing_is_chosen_for_the_operator() {
    let mut app = app(choosing_from(false, |_| {}));
    let screen = draw(&mut app, 80, 24);
    assert!(screen.contains("recover to the end of the WAL") && screen.contains("▶ 09:52:31.507"), "{screen}");
    press(&mut app, "b");
    assert_eq!(choose(&mut app), (RecoveryTarget::Xid { xid: 8841 }, false));
}

#[test]
fn a_gap_is_seen_and_nothing_behind_it_is_possible() {
    let mut window = window();
    let SystemWindow::Postgres { coverage, gaps, history: Some(history), .. } = &mut window.systems[0] else {
        panic!()
    };
    let lsn = |text: &str| text.parse::<Lsn>().unwrap();
    let whole = coverage.remove(0);
    let (last, first) = ("000000010000000000000043", "000000010000000000000045");
    let before = Coverage {
        to: lsn("0/44000000"),
        last_segment: last.into(),
        segments: 66,
        to_time: Some(time("09:51:45")),
        ..whole.clone()
    };
    let behind = Coverage {
        from: lsn("0/45000000"),
        first_segment: first.into(),
        segments: 21,
        from_time: Some(time("09:52:00")),
        ..whole
    };
    coverage.extend([before, behind]);
    let missing = "000000010000000000000044".to_owned();
    gaps.push(Gap {
        timeline: 1,
        first_missing: missing.clone(),
        last_missing: missing,
        segments: 1,
        basis: Basis::Reported,
    });
    history.suspects.clear();
    history.to_time = Some(time("09:51:44.900"));
    history.stopped = Some("000000010000000000000044 is missing".into());
    let ask = Ask::RecoveryPoint { window: Box::new(window), suggested: None };
    let mut app = app(fenced().start("choose").wait(2).ask("choose", ask).wait(9));
    press(&mut app, "-");
    let screen = draw(&mut app, 80, 24);
    assert!(screen.contains("1 gap") && screen.contains("not possible ✗"), "{screen}");
    assert!(screen.contains("000000010000000000000044 is missing"), "{screen}");
    let wal = screen.lines().find(|line| line.starts_with(" WAL")).unwrap();
    assert!(wal.contains('━') && wal.contains('×') && wal.contains('?'), "{screen}");
    // Before it, all is well.
    press(&mut app, "e");
    app.update(ctrl('u'));
    // A target takes a time of day too.
    press(&mut app, "09:51:30\n");
    let screen = draw(&mut app, 80, 24);
    assert!(screen.contains("possible ✓") && screen.contains("just before 09:51:30 +01:00"), "{screen}");
    assert!(!screen.contains("not possible") && screen.contains(" Enter   recover to just before"), "{screen}");
}

#[test]
fn where_the_wal_could_not_be_read_is_said() {
    let mut app = app(choosing_from(true, |history| {
        history.suspects.clear();
        history.to_time = Some(time("09:52:40"));
        history.stopped = Some("000000010000000000000044 is damaged at 0/44A01000".into());
    }));
    let screen = draw(&mut app, 80, 24);
    assert!(screen.contains("no drop, truncate, mass delete or mass update"), "{screen}");
    assert!(screen.contains("the WAL was read to 09:52:40.000 only"), "{screen}");
    // Without suspects the arrows go through the steps.
    app.update(key(KeyCode::Up));
    let screen = draw(&mut app, 80, 24);
    assert!(screen.contains("Choose the recovery point waits for you"), "{screen}");
}

#[test]
fn the_time_line_goes_from_a_month_to_a_second() {
    let mut app = app(choosing().wait(9));
    press(&mut app, "b++++++++++");
    let screen = draw(&mut app, 80, 24);
    assert!(screen.contains("09:52:31.200") && screen.contains("09:52:31.600"), "{screen}");
    press(&mut app, "--------------");
    let screen = draw(&mut app, 80, 24);
    assert!(screen.contains("9 Nov") && screen.contains("3 Dec"), "{screen}");
    // A column each, however close they are.
    app.update(key(KeyCode::Down));
    let screen = draw(&mut app, 80, 24);
    let marks = screen.lines().find(|line| line.starts_with(" suspects")).unwrap();
    assert_eq!(marks.matches('▲').count(), 2, "{screen}");
}

#[test]
fn the_recovery_point_is_moved_typed_and_chosen_after_a_question() {
    let mut app = app(choosing().wait(9));
    app.update(Msg::Key(KeyEvent::new(KeyCode::Char('<'), KeyModifiers::NONE)));
    assert!(draw(&mut app, 80, 24).contains("just before 09:52:30.507 +01:00 (08:52:30.507 UTC)"));
    press(&mut app, "a");
    assert!(draw(&mut app, 80, 24).contains("just after 09:52:30.507"));
    press(&mut app, "a[");
    assert!(draw(&mut app, 80, 24).contains("just before 09:52:20 +01:00"), "the restore point is the mark before");
    press(&mut app, "i");
    assert!(draw(&mut app, 80, 24).contains("just before 09:52:31.507"));
    press(&mut app, "e");
    app.update(ctrl('u'));
    press(&mut app, "2026-11-21 09:52:31\n");
    assert!(draw(&mut app, 80, 24).contains("has no offset"));
    app.update(ctrl('u'));
    press(&mut app, "xid:8841\n");
    assert!(draw(&mut app, 80, 24).contains("recover to just before xid 8841, which drops payments"));
    assert_eq!(press(&mut app, "\n"), []);
    let effects = press(&mut app, "\n");
    let [Effect::Send(Command::Answer { step, answer: Answer::Point { point } })] = effects.as_slice() else {
        panic!("{effects:?}");
    };
    assert_eq!((step.as_str(), &point.target, point.inclusive), ("choose", &RecoveryTarget::Xid { xid: 8841 }, false));
}

#[test]
fn an_impossible_point_cannot_be_chosen() {
    let mut app = app(choosing().wait(9));
    press(&mut app, "e");
    app.update(ctrl('u'));
    press(&mut app, "2026-11-21T08:00:00+01:00\n");
    assert_eq!(press(&mut app, "\n\n"), []);
}

#[test]
fn a_choice_is_a_number_and_enter() {
    let option = |value: &str| Choice { value: value.into(), label: value.to_uppercase(), detail: None };
    let ask =
        Ask::Choose { prompt: "Which?".into(), options: vec![option("a"), option("b")], default: Some("b".into()) };
    let story = confirmed().start("fence").ask("fence", ask).wait(2);
    assert_eq!(press(&mut app(story.clone()), "\n"), answer("fence", Answer::Chosen { value: "b".into() }));
    assert_eq!(press(&mut app(story), "19\n"), answer("fence", Answer::Chosen { value: "a".into() }));
}

#[test]
fn an_input_is_checked() {
    let ask = Ask::Input { prompt: "When?".into(), variable: "at".into(), default: None, input: InputKind::Time };
    let mut app = app(confirmed().start("fence").ask("fence", ask).wait(2));
    assert_eq!(press(&mut app, "\n2026-11-21 10:02:31\n"), []);
    let text = "2026-11-21T10:02:31+01:00";
    assert_eq!(press(&mut app, "+01\n"), answer("fence", Answer::Text { text: text.into() }));
}

#[test]
fn a_time_of_day_begins_with_its_first_digit_and_says_what_it_is_read_as() {
    let default = Some("2026-11-21T09:52:31.507+01:00".into());
    let ask = Ask::Input { prompt: "When?".into(), variable: "at".into(), default, input: InputKind::Time };
    let mut app = app(confirmed().start("fence").ask("fence", ask).wait(2));
    assert_eq!(press(&mut app, "09:52"), []);
    let screen = draw(&mut app, 80, 24);
    assert!(screen.contains("that is 21 Nov 09:52:00 +01:00 (08:52:00 UTC)"), "{screen}");
    let text = "2026-11-21T09:52:00+01:00";
    assert_eq!(press(&mut app, "\n"), answer("fence", Answer::Text { text: text.into() }));
    // Digits that mean something else begin nothing.
    let ask = Ask::Input { prompt: "Why?".into(), variable: "at".into(), default: None, input: InputKind::Text };
    let mut app = super::fixture::app(confirmed().start("fence").ask("fence", ask).wait(2));
    press(&mut app, "09");
    assert!(!draw(&mut app, 80, 24).contains("› 09"));
}

#[test]
fn an_undo_that_gives_up_writes_is_typed_or_left() {
    let ask = Ask::TypeName {
        name: "orders-db".into(),
        sentence: "undo “Point the application at the restored systems”".into(),
        loss: "what the restored orders-db took since 10:04:00 UTC".into(),
    };
    // The step has passed, and the question stands on it.
    let story = confirmed().pass("fence", 3, "no writes").ask("fence", ask).wait(2);
    let screen = draw(&mut app(story.clone()), 160, 48);
    assert!(screen.contains("leave it as it is") && screen.contains("DESTROYS"), "{screen}");
    let typed = Answer::Typed { name: "orders-db".into() };
    assert_eq!(press(&mut app(story.clone()), "\norders-db\n"), answer("fence", typed));
    assert_eq!(press(&mut app(story), "u"), answer("fence", Answer::No { reason: "left as it is".into() }));
}

#[test]
fn in_doubt_is_answered_by_a_person() {
    let story = go_gate()
        .wait(5)
        .answer("restore-db", Answer::Yes)
        .start("restore-db")
        .tell(Event::StepInDoubt {
            step: "restore-db".into(),
            attempt: 1,
            why: "the program ended".into(),
            living: Vec::new(),
        })
        .ask("restore-db", Ask::InDoubt { why: "the program ended".into() })
        .wait(2);
    let done = Answer::TakenAsDone { reason: "I looked".into() };
    assert_eq!(press(&mut app(story.clone()), "dI looked\n"), answer("restore-db", done));
    assert_eq!(press(&mut app(story), "r"), answer("restore-db", Answer::Retry));
}

#[test]
fn output_is_scrolled_and_searched() {
    let lines = (0..500).map(|n| format!("line {n} of output")).collect::<Vec<_>>().join("\n");
    let mut app = app(restoring().say("restore-db", Stream::Out, &lines));
    assert!(draw(&mut app, 80, 24).contains("line 499"));
    press(&mut app, "o/line 77 \n");
    let screen = draw(&mut app, 80, 24);
    assert!(screen.contains("line 77 of") && !screen.contains("line 499"), "{screen}");
    app.update(key(KeyCode::PageUp));
    assert!(draw(&mut app, 80, 24).contains("line 65 of"));
    press(&mut app, "n");
    assert!(draw(&mut app, 80, 24).contains("line 77 of"));
    press(&mut app, "G");
    assert!(draw(&mut app, 80, 24).contains("line 499"));
    press(&mut app, "\u{1b}");
    assert!(draw(&mut app, 80, 24).contains("Restore orders-db and stop"));
}

#[test]
fn a_hole_in_the_stream_asks_for_a_snapshot_and_an_old_envelope_is_ignored() {
    let mut story = restoring();
    let mut app = app(story.clone());
    let old = Envelope { seq: 3, ..story.envelope(Event::Paused { by: "x".into() }) };
    assert_eq!(app.update(Msg::Envelope(old.into())), []);
    story.seq += 5;
    let late = story.envelope(Event::Paused { by: "x".into() });
    assert_eq!(app.update(Msg::Envelope(late.into())), [Effect::Snapshot]);
}

#[test]
fn nothing_is_drawn_when_nothing_changed() {
    let story = restoring();
    let mut app = app(story.clone());
    assert!(app.take_dirty());
    let stamp = |ms| lifeboat::clock::Stamp { wall: opened(), boot: Duration::from_millis(5_000 + story.ms + ms) };
    app.update(Msg::Now(stamp(0), None));
    app.take_dirty();
    app.update(Msg::Now(stamp(100), None));
    assert!(!app.take_dirty(), "no shown second has changed");
    app.update(Msg::Now(stamp(1000), None));
    assert!(app.take_dirty());
}

#[test]
fn a_replay_shows_itself_and_has_the_players_keys() {
    let status = PlayerStatus {
        position: Duration::from_secs(200),
        length: Duration::from_secs(400),
        speed: 1.0,
        playing: true,
        jumps: 0,
    };
    let stamp = lifeboat::clock::Stamp { wall: opened(), boot: Duration::from_secs(99_999) };
    let mut app = app(go_gate().wait(5));
    app.update(Msg::Now(stamp, Some(status)));
    let screen = draw(&mut app, 160, 48);
    assert!(screen.contains("REPLAY · SANDBOX · DRILL") && screen.contains("Space pause"), "{screen}");
    assert_eq!(press(&mut app, "\n"), [], "nothing is answered in a replay");
    assert_eq!(press(&mut app, " "), [Effect::Player(PlayerAct::Pause)]);
    assert_eq!(press(&mut app, "]+"), [Effect::Player(PlayerAct::NextStep), Effect::Player(PlayerAct::Speed(2.0))]);
    assert_eq!(app.update(key(KeyCode::Left)), [Effect::Player(PlayerAct::SeekBack(Duration::from_secs(10)))]);
    assert_eq!(app.update(Msg::Now(stamp, Some(PlayerStatus { jumps: 1, ..status }))), [Effect::Snapshot]);
    assert_eq!(press(&mut app, "q"), [Effect::Leave(Leave::Left)]);
}

#[test]
fn home_leads_to_what_is_pointed_at() {
    let options = HomeOptions { themes: themes("dark"), zone: zone(), ascii: false, log_file: None };
    let mut home = Home::new(home_model(), options);
    let mut keys = |keys: &str| {
        let code = |c| if c == '\n' { KeyCode::Enter } else { KeyCode::Char(c) };
        keys.chars().filter_map(|c| home.key(&KeyEvent::new(code(c), KeyModifiers::NONE))).collect::<Vec<_>>()
    };
    let dir = || "/var/lib/lifeboat/drills/019a8f3e".into();
    assert_eq!(keys("\n"), [HomeChoice::Resume(dir())]);
    assert_eq!(keys("j\n"), [HomeChoice::Run("runbooks/restore-to-a-point.toml".into())]);
    assert_eq!(keys("r"), [], "a runbook has no replay");
    assert_eq!(keys("jjj\n"), [HomeChoice::Report(dir())]);
    assert_eq!(keys("r"), [HomeChoice::Replay("/var/lib/lifeboat/drills/019a8f3e/journal.jsonl".into())]);
    assert_eq!(keys("?q"), [HomeChoice::Quit]);
}
