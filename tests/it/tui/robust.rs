//! No size, no key and no text breaks a screen.

use lifeboat::event::*;
use lifeboat::tui::Msg;
use lifeboat::tui::home::{Home, HomeOptions};
use proptest::prelude::*;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::fixture::*;
use super::{draw, press, render};

fn stories() -> Vec<Story> {
    vec![
        Story::begin(Mode::Incident).wait(3),
        confirming(),
        asks_for_name().wait(9),
        choosing().wait(9),
        go_gate().wait(7),
        restoring(),
        failed(),
        finished(Verdict::ObjectiveMissed),
    ]
}

const SIZES: [(u16, u16); 16] = [
    (1, 1),
    (1, 60),
    (200, 1),
    (2, 2),
    (7, 3),
    (16, 3),
    (20, 5),
    (40, 10),
    (63, 17),
    (64, 18),
    (79, 23),
    (80, 24),
    (112, 26),
    (120, 36),
    (160, 48),
    (200, 60),
];

#[test]
fn every_situation_fits_every_size() {
    for story in stories() {
        for keys in ["", "?", "c", "v", "l", "o", "n", "F", "q", "x", "\n", "e"] {
            let mut app = app(story.clone());
            press(&mut app, keys);
            for (columns, rows) in SIZES {
                draw(&mut app, columns, rows);
            }
        }
    }
}

#[test]
fn home_fits_every_size() {
    let options = HomeOptions { themes: themes("dark"), zone: zone(), ascii: true, log_file: None };
    for model in [home_model(), Default::default()] {
        let home = Home::new(model, options.clone());
        for (columns, rows) in SIZES {
            let screen = render(columns, rows, |frame| home.draw(frame));
            assert!(screen.is_ascii(), "{screen}");
        }
    }
}

#[test]
fn without_utf_8_every_cell_is_ascii() {
    for story in stories() {
        for keys in ["", "?", "v", "\n"] {
            let mut options = options();
            options.ascii = true;
            let mut app = app_with(story.clone(), "plain", options);
            press(&mut app, keys);
            let screen = draw(&mut app, 160, 48);
            assert!(screen.is_ascii(), "{screen}");
        }
    }
}

#[test]
fn the_clock_the_steps_and_the_keys_keep_their_places() {
    let at = |screen: &str, what: &str| {
        let (row, line) = screen.lines().enumerate().find(|(_, line)| line.contains(what)).unwrap();
        (row, line.chars().position(|_| true).map(|_| line[..line.find(what).unwrap()].chars().count()))
    };
    let screens: Vec<String> = stories().into_iter().map(|story| draw(&mut app(story), 160, 48)).collect();
    for what in ["RTO", "ASSESS", "PROVE"] {
        let places: Vec<_> = screens.iter().map(|screen| at(screen, what)).collect();
        assert!(places.windows(2).all(|pair| pair[0] == pair[1]), "{what}: {places:?}");
    }
}

#[test]
fn the_next_key_is_on_every_screen() {
    for (story, what) in [
        (Story::begin(Mode::Incident).wait(3), "Enter"),
        (confirming(), "Enter"),
        (asks_for_name().wait(9), "Enter"),
        (choosing().wait(9), "Enter"),
        (go_gate().wait(7), "Enter"),
        (failed(), "r "),
        (finished(Verdict::Passed), "Enter"),
    ] {
        for (columns, rows) in [(20, 5), (40, 10), (64, 18), (80, 24), (112, 26), (160, 48)] {
            let screen = draw(&mut app(story.clone()), columns, rows);
            assert!(screen.contains(what), "{columns}x{rows}\n{screen}");
        }
    }
}

#[test]
fn row_11_nothing_from_outside_steers_the_terminal() {
    let evil = "\u{1b}[2J\u{1b}]0;owned\u{7}\u{9b}31m\u{202e}evil\u{0}\r";
    let failure = Failure::new(evil, evil).now(evil);
    let story = go_gate()
        .wait(1)
        .answer("restore-db", Answer::Yes)
        .start("restore-db")
        .say("restore-db", Stream::Out, evil)
        .progress("restore-db", Progress { position: Some(evil.into()), ..lane(evil, 1, Some(2), Unit::Bytes) })
        .tell(Event::Note { text: evil.into(), by: evil.into() })
        .tell(Event::VariableSet { name: evil.into(), value: evil.into() })
        .finish("restore-db", Outcome::failed(failure.clone()).fact(evil, evil).check(evil, false, evil))
        .ask("restore-db", Ask::AfterFailure { failure })
        .wait(1);
    for keys in ["", "o", "v", "l"] {
        let mut app = app(story.clone());
        press(&mut app, keys);
        let screen = draw(&mut app, 160, 48);
        let bad = screen.chars().find(|c| (c.is_control() && *c != '\n') || *c == '\u{202e}');
        assert_eq!(bad, None, "the screen was steered:\n{screen}");
        assert!(!screen.contains("[2J") && !screen.contains("owned"), "the screen was steered:\n{screen}");
    }
}

fn any_key() -> impl Strategy<Value = KeyEvent> {
    let code = prop_oneof![
        8 => proptest::char::range(' ', '~').prop_map(KeyCode::Char),
        1 => proptest::char::any().prop_map(KeyCode::Char),
        6 => proptest::sample::select(vec![
            KeyCode::Enter,
            KeyCode::Esc,
            KeyCode::Tab,
            KeyCode::BackTab,
            KeyCode::Up,
            KeyCode::Down,
            KeyCode::Left,
            KeyCode::Right,
            KeyCode::PageUp,
            KeyCode::PageDown,
            KeyCode::Home,
            KeyCode::End,
            KeyCode::Backspace,
            KeyCode::Delete,
        ]),
    ];
    let modifiers = proptest::sample::select(vec![
        KeyModifiers::NONE,
        KeyModifiers::NONE,
        KeyModifiers::NONE,
        KeyModifiers::SHIFT,
        KeyModifiers::CONTROL,
        KeyModifiers::ALT,
    ]);
    (code, modifiers).prop_map(|(code, modifiers)| KeyEvent::new(code, modifiers))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_keys_break_a_screen(
        at in 0..8usize,
        keys in proptest::collection::vec(any_key(), 0..40),
        columns in 1..200u16,
        rows in 1..60u16,
    ) {
        let mut app = app(stories().swap_remove(at));
        for key in keys {
            app.update(Msg::Key(key));
            draw(&mut app, columns, rows);
        }
    }

    #[test]
    fn no_text_breaks_a_screen(text in "\\PC{0,200}|.{0,80}", columns in 1..200u16, rows in 1..60u16) {
        let ask = Ask::Go { sentence: text.clone() };
        let story = go_gate().wait(1).say("restore-db", Stream::Out, &text).ask("restore-db", ask).wait(1);
        draw(&mut app(story), columns, rows);
    }
}
