//! Nothing that a step says steers the terminal.

use std::process::Command;

use crate::support::Numbers;
use crate::support::pty::Terminal;
use crate::support::sandbox::text;
use crate::support::small::Small;

/// Sequences that do harm, in one-byte, two-byte and UTF-8 spellings, whole and cut.
const HARM: &[&str] = &[
    "\u{1b}]0;owned\u{7}",
    "\u{1b}]52;c;b3duZWQ=\u{1b}\\",
    "\u{1b}]8;;http://evil.example\u{1b}\\link\u{1b}]8;;\u{1b}\\",
    "\u{1b}[2J",
    "\u{1b}[?1049l",
    "\u{1b}[6n",
    "\u{1b}[31337;1H",
    "\u{1b}c",
    "\u{1b}P$q\"p\u{1b}\\",
    "\u{1b}_evil\u{1b}\\",
    "\u{9b}2J",
    "\u{9d}0;owned\u{9c}",
    "\u{90}evil\u{9c}",
    "\u{7}",
    "\u{8}\u{8}\u{8}",
    "\u{e}",
    "\u{202e}desrever",
    "\u{1b}",
    "\u{1b}[",
    "\u{1b}[31",
];

/// Harm, text and noise in random order.
fn fuzz(seed: u64) -> Vec<u8> {
    let mut numbers = Numbers(seed);
    let mut bytes = Vec::new();
    for _ in 0..200 {
        match numbers.below(6) {
            0 => bytes.extend(b"plain text "),
            1 => bytes.push(b'\n'),
            2 => bytes.extend((0..numbers.below(4)).map(|_| 0x80 + numbers.clone().below(128) as u8)),
            3 => bytes.push(numbers.below(32) as u8),
            _ => bytes.extend(HARM[numbers.below(HARM.len())].as_bytes()),
        }
    }
    bytes.extend(b"\nTHE END\n");
    bytes
}

/// What in these bytes is neither text nor a colour.
fn steering(bytes: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(bytes);
    let mut found = Vec::new();
    let mut rest = &*text;
    while let Some(at) =
        rest.find(|c: char| (c.is_control() && !matches!(c, '\n' | '\r')) || ('\u{202a}'..='\u{202e}').contains(&c))
    {
        rest = &rest[at..];
        let colour = rest.strip_prefix("\u{1b}[").and_then(|tail| {
            let end = tail.find(|c: char| !(c.is_ascii_digit() || c == ';' || c == ':'))?;
            // The colours that are used have at most three figures each.
            let small = tail[..end].split([';', ':']).all(|part| part.len() <= 3);
            (tail[end..].starts_with('m') && small).then(|| &tail[end + 1..])
        });
        match colour {
            Some(after) => rest = after,
            None => {
                found.push(rest.chars().take(12).collect());
                rest = &rest[rest.chars().next().map_or(1, char::len_utf8)..];
            }
        }
    }
    found
}

#[test]
fn row_11_what_a_step_says_does_not_steer_the_terminal() {
    let step =
        "[[phases.steps]]\nid = \"says\"\ntitle = \"Says\"\ndo = \"command\"\nscript = 'cat fuzz; cat fuzz >&2'\n";
    for seed in 0..4 {
        let drill = Small::new("", "", step);
        std::fs::write(drill.path("fuzz"), fuzz(seed)).unwrap();
        let mut terminal = Terminal::start(drill.command(&[]), 120, 40);
        terminal.wait_for("unsigned; sign it with");
        assert!(terminal.end().success());
        assert!(terminal.text().contains("PASSED"), "{}", terminal.text());
        let found = steering(&terminal.raw());
        assert!(found.is_empty(), "the terminal was steered by {found:?} (seed {seed})");

        // The same journal, told again, and the report.
        let mut again = Command::new(env!("CARGO_BIN_EXE_lifeboat"));
        again.arg("replay").arg(drill.drill()).arg("--dump").env("LIFEBOAT_STATE_DIR", drill.path("state"));
        let output = again.output().unwrap();
        assert!(output.status.success() && text(&output.stdout).contains("THE END"), "{}", text(&output.stderr));
        let found = steering(&output.stdout);
        assert!(found.is_empty(), "the terminal was steered by a replay: {found:?} (seed {seed})");
        for file in std::fs::read_dir(drill.drill().join("report")).unwrap().flatten() {
            let found = steering(&std::fs::read(file.path()).unwrap());
            assert!(found.is_empty(), "the terminal was steered by {:?}: {found:?}", file.file_name());
        }
        // What was said is kept as it came.
        let kept = std::fs::read_dir(drill.drill().join("output")).unwrap().flatten().next().unwrap().path();
        let kept = std::fs::read(kept).unwrap();
        assert_eq!(kept.len(), 2 * fuzz(seed).len(), "the raw bytes stay");
    }
}
