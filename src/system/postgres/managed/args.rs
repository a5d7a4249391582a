//! A tool's arguments, out of what another of its answers said.

use serde_json::Value;

use super::answer::{flag, joined, number, shown, text, word, words};

pub(super) fn command(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

/// Adds an option with the word that stands there; nothing when nothing does.
pub(super) fn one(args: &mut Vec<String>, option: &str, from: &Value, at: &str) -> Result<(), String> {
    match (word(from, at), text(from, at)) {
        (Some(value), _) => args.extend([option.to_owned(), value]),
        (None, shown) if shown.is_empty() => {}
        (None, shown) => return Err(format!("the source's {at} is `{shown}`, which is no name")),
    }
    Ok(())
}

pub(super) fn several(args: &mut Vec<String>, option: &str, from: &Value, at: &str, field: &str) -> Result<(), String> {
    match words(from, at, field) {
        None => return Err(format!("of the source's {at} not all are names: {}", shown(&joined(from, at, field)))),
        Some(words) if words.is_empty() => {}
        Some(words) => {
            args.push(option.to_owned());
            args.extend(words);
        }
    }
    Ok(())
}

pub(super) fn count(args: &mut Vec<String>, option: &str, from: &Value, at: &str) {
    args.extend(number(from, at).into_iter().flat_map(|number| [option.to_owned(), number.to_string()]));
}

/// `--option` or `--no-option`; whether there was anything to say.
pub(super) fn switch(args: &mut Vec<String>, option: &str, from: &Value, at: &str) -> bool {
    let said = flag(from, at);
    args.extend(said.map(|on| if on { format!("--{option}") } else { format!("--no-{option}") }));
    said.is_some()
}
