//! The screens, drawn into memory: what stands where, which key sends what, and that no size and no key breaks them.

mod fixture;
mod keys;
mod robust;
mod screens;
mod terminal;

use lifeboat::tui::{App, Effect, Msg};
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

/// The screen as text, without spaces at the ends of rows.
fn draw(app: &mut App, columns: u16, rows: u16) -> String {
    app.update(Msg::Resize(columns, rows));
    render(columns, rows, |frame| app.draw(frame))
}

fn render(columns: u16, rows: u16, draw: impl FnOnce(&mut ratatui::Frame<'_>)) -> String {
    let mut terminal = Terminal::new(TestBackend::new(columns, rows)).unwrap();
    terminal.draw(draw).unwrap();
    let buffer = terminal.backend().buffer();
    let row = |y| (0..columns).map(|x| buffer[(x, y)].symbol()).collect::<String>().trim_end().to_owned();
    (0..rows).map(row).collect::<Vec<_>>().join("\n")
}

fn key(code: KeyCode) -> Msg {
    Msg::Key(KeyEvent::new(code, KeyModifiers::NONE))
}

fn ctrl(c: char) -> Msg {
    Msg::Key(KeyEvent::new(KeyCode::Char(c), KeyModifiers::CONTROL))
}

/// Presses keys: characters as themselves, `\n` Enter, `\u{1b}` Esc, `\t` Tab.
fn press(app: &mut App, keys: &str) -> Vec<Effect> {
    let code = |c| match c {
        '\n' => KeyCode::Enter,
        '\u{1b}' => KeyCode::Esc,
        '\t' => KeyCode::Tab,
        c => KeyCode::Char(c),
    };
    keys.chars().flat_map(|c| app.update(key(code(c)))).collect()
}
