//! Each situation as a picture in text, at the two sizes that people use.

use lifeboat::event::{Mode, Stream, Verdict};
use lifeboat::tui::home::{Home, HomeOptions};
use lifeboat::tui::{Msg, Notice};

use super::fixture::*;
use super::{draw, press, render};

/// Compares with the picture in `tests/it/snapshots/tui`.
fn snapshot(name: impl AsRef<str>, screen: String) {
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path("../snapshots/tui");
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| insta::assert_snapshot!(name.as_ref(), screen));
}

fn picture(name: &str, story: Story) {
    picture_after(name, story, "");
}

fn picture_after(name: &str, story: Story, keys: &str) {
    for (columns, rows) in [(80, 24), (160, 48)] {
        let mut app = app(story.clone());
        press(&mut app, keys);
        snapshot(format!("{name}-{columns}x{rows}"), draw(&mut app, columns, rows));
    }
}

#[test]
fn before_the_declaration() {
    picture("declare", Story::begin(Mode::Incident).wait(3));
}

#[test]
fn a_confirmation() {
    picture("confirm", confirming());
}

#[test]
fn what_destroys() {
    picture("destroys", asks_for_name().wait(9));
    picture_after("destroys-typing", asks_for_name().wait(9), "\norders-d");
}

#[test]
fn a_gate() {
    picture("go", go_gate().wait(7));
}

#[test]
fn the_recovery_point() {
    picture("picker", choosing().wait(9));
}

#[test]
fn just_before_a_suspect() {
    picture_after("picker-suspect", choosing().wait(9), "b");
}

#[test]
fn the_time_line_without_utf_8() {
    let mut options = options();
    options.ascii = true;
    let mut app = app_with(choosing().wait(9), "plain", options);
    press(&mut app, "b");
    snapshot("picker-ascii-80x24", draw(&mut app, 80, 24));
}

#[test]
fn a_point_that_is_not_possible() {
    let mut app = app(choosing().wait(9));
    press(&mut app, "e");
    // What stands in the field is cleared first.
    app.update(super::ctrl('u'));
    press(&mut app, "2026-11-21T09:30:00+01:00\n");
    snapshot("picker-impossible-80x24", draw(&mut app, 80, 24));
}

#[test]
fn running() {
    picture("running", restoring());
}

#[test]
fn a_failure() {
    picture("failed", failed());
}

#[test]
fn the_end() {
    for (columns, rows) in [(80, 24), (160, 48)] {
        let mut app = app(finished(Verdict::Passed));
        app.update(Msg::Notice(Notice::After(
            "Report: /var/lib/lifeboat/drills/019a/report.html\nSigned by ana".into(),
        )));
        snapshot(format!("finished-{columns}x{rows}"), draw(&mut app, columns, rows));
    }
}

#[test]
fn help() {
    picture_after("help", restoring(), "?");
}

#[test]
fn pages_on_top() {
    for (name, keys) in [("output", "o"), ("contacts", "c"), ("values", "v"), ("finding", "F"), ("leave", "q")] {
        let mut app = app(restoring());
        press(&mut app, keys);
        snapshot(format!("{name}-80x24"), draw(&mut app, 80, 24));
    }
}

#[test]
fn hardly_any_room() {
    let mut app = app(go_gate().wait(7));
    let small = [(40, 10), (20, 5), (16, 3), (12, 2)]
        .map(|(columns, rows)| format!("{columns}x{rows}\n{}", draw(&mut app, columns, rows)));
    snapshot("small", small.join("\n\n"));
}

#[test]
fn without_utf_8() {
    let mut options = options();
    options.ascii = true;
    let mut app = app_with(restoring(), "plain", options);
    snapshot("ascii-80x24", draw(&mut app, 80, 24));
}

#[test]
fn home() {
    let options = HomeOptions { themes: themes("dark"), zone: zone(), ascii: false, log_file: None };
    let home = Home::new(home_model(), options);
    for (columns, rows) in [(80, 24), (160, 48)] {
        snapshot(format!("home-{columns}x{rows}"), render(columns, rows, |frame| home.draw(frame)));
    }
}

#[test]
fn a_new_attempt_shows_its_own_output() {
    let failure = lifeboat::event::Failure::new("restore", "no room");
    let story = restoring().say("restore-db", Stream::Out, "the first try").wait(1);
    let story = story.finish("restore-db", lifeboat::event::Outcome::failed(failure)).wait(30).start("restore-db");
    let screen = |story: &Story, keys: &str| {
        let mut app = app(story.clone());
        press(&mut app, keys);
        draw(&mut app, 160, 48)
    };
    assert!(!screen(&story, "").contains("the first try"), "{}", screen(&story, ""));
    assert!(screen(&story, "o").contains("the first try"), "it is one key away");
    let story = story.wait(1).say("restore-db", Stream::Out, "the second try");
    assert!(screen(&story, "").contains("the second try") && !screen(&story, "").contains("the first try"));
}
