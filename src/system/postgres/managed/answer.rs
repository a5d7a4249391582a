//! What a tool answered. Anybody may have written it: a word goes into an argument, an address or a file only when it is
//! spelt as one, and everything else is made fit to be shown.

use chrono::{DateTime, Utc};
use serde_json::Value;

use super::Endpoint;
use crate::event::parse_time;

/// Characters of a text that is shown.
const LONGEST: usize = 300;
/// Bytes of a value that is set; twice that is more than one argument may have.
const LONGEST_VALUE: usize = 64 << 10;
/// Items of a list that are looked at.
const MOST: usize = 2_000;

/// Fit to be shown: one line, bounded, nothing in it that moves a cursor or hides.
pub fn shown(text: &str) -> String {
    text.chars().filter(|c| !is_hidden(*c)).take(LONGEST).collect()
}

fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200B}'..='\u{200F}' | '\u{2028}'..='\u{202E}' | '\u{2060}'..='\u{206F}' | '\u{FEFF}'
            | '\u{FFF9}'..='\u{FFFB}' | '\u{E0000}'..='\u{E007F}')
}

/// Whatever stands there, fit to be shown; empty when nothing does.
pub fn text(answer: &Value, at: &str) -> String {
    match answer.pointer(at) {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => shown(text),
        Some(other) => shown(&other.to_string()),
    }
}

/// Whatever stands there, in full: to be compared, and to be shown only by way of [`shown`].
pub fn raw(answer: &Value, at: &str) -> String {
    match answer.pointer(at) {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}

/// A value that may stand in an argument behind its `=`.
pub fn is_plain(value: &str) -> bool {
    value.len() <= LONGEST_VALUE && !value.chars().any(is_hidden)
}

/// A name that may stand in an argument: it cannot be taken for an option, or for two.
pub fn word(answer: &Value, at: &str) -> Option<String> {
    let text = answer.pointer(at)?.as_str()?;
    is_word(text).then(|| text.to_owned())
}

pub fn is_word(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-:/@+".contains(c);
    (1..=512).contains(&text.len()) && text.chars().all(plain) && !text.starts_with('-')
}

/// As [`raw`], at places that are told by name.
pub fn texts<const N: usize>(answer: &Value, places: [(&str, &str); N]) -> impl Iterator<Item = (String, String)> {
    places.map(|(name, at)| (name.to_owned(), raw(answer, at))).into_iter()
}

/// Absent when it is no boolean.
pub fn flag(answer: &Value, at: &str) -> Option<bool> {
    answer.pointer(at)?.as_bool()
}

pub fn number(answer: &Value, at: &str) -> Option<u64> {
    answer.pointer(at)?.as_u64()
}

/// A moment with its offset.
pub fn time(answer: &Value, at: &str) -> Option<DateTime<Utc>> {
    parse_time(answer.pointer(at)?.as_str()?).ok()
}

pub fn list<'a>(answer: &'a Value, at: &str) -> impl Iterator<Item = &'a Value> + use<'a> {
    answer.pointer(at).and_then(Value::as_array).into_iter().flatten().take(MOST)
}

/// The words at `field` of every item, in order; `None` when one of them is no word.
pub fn words(answer: &Value, at: &str, field: &str) -> Option<Vec<String>> {
    let mut words = list(answer, at).map(|item| word(item, field)).collect::<Option<Vec<String>>>()?;
    words.sort();
    Some(words)
}

/// The same as [`raw`]; what is no word stands there all the same.
pub fn joined(answer: &Value, at: &str, field: &str) -> String {
    let mut texts: Vec<String> = list(answer, at).map(|item| raw(item, field)).collect();
    texts.sort();
    texts.join(", ")
}

/// A host name or an IP address: it goes into URLs and into files that applications read.
pub fn host(host: &str) -> Option<Endpoint> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    let named = !host.starts_with(['-', '.']) && host.chars().all(plain);
    let fits = (1..=253).contains(&host.len()) && (named || host.parse::<std::net::Ipv6Addr>().is_ok());
    fits.then(|| Endpoint { host: if named { host.to_owned() } else { format!("[{host}]") }, port: None })
}

/// As [`host`], with a port of its own.
pub fn endpoint(name: &str, port: u64) -> Option<Endpoint> {
    let port = u16::try_from(port).ok().filter(|port| *port > 0)?;
    host(name).map(|endpoint| Endpoint { port: Some(port), ..endpoint })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_what_is_spelt_as_a_name_goes_into_an_argument() {
        for good in ["sg-0123456789abcdef0", "default.postgres15", "arn:aws:kms:eu-central-1:1:key/ab-cd", "a@b"] {
            assert!(is_word(good), "{good}");
        }
        for bad in ["", "--profile", "a b", "a\nb", "$(id)", "a,b", "a=b", "a;b", "ä", &"a".repeat(513)] {
            assert!(!is_word(bad), "{bad}");
        }
        let answer = json!({ "groups": [{ "id": "sg-2" }, { "id": "sg-1" }], "odd": [{ "id": "--endpoint-url=x" }] });
        assert_eq!(words(&answer, "/groups", "/id"), Some(vec!["sg-1".to_owned(), "sg-2".to_owned()]));
        assert_eq!(words(&answer, "/odd", "/id"), None);
        assert_eq!(joined(&answer, "/odd", "/id"), "--endpoint-url=x");
    }

    #[test]
    fn an_address_is_a_host_and_a_port_and_nothing_else() {
        let address = |host: &str, port| endpoint(host, port).map(|it| format!("{}:{}", it.host, it.port.unwrap_or(0)));
        assert_eq!(
            address("db.cx3.eu-central-1.rds.amazonaws.com", 5432).as_deref(),
            Some("db.cx3.eu-central-1.rds.amazonaws.com:5432")
        );
        assert_eq!(address("10.0.0.7", 5432).as_deref(), Some("10.0.0.7:5432"));
        assert_eq!(address("fd00::7", 5432).as_deref(), Some("[fd00::7]:5432"));
        for bad in ["", "-h", "evil/x?host=", "a@b", "a b", "a:1", "a\n", ".a", "%2Frun"] {
            assert_eq!(address(bad, 5432), None, "{bad}");
        }
        for port in [0, 65_536, u64::MAX] {
            assert_eq!(address("db", port), None, "{port}");
        }
    }

    #[test]
    fn what_is_shown_moves_no_cursor() {
        assert_eq!(shown("a\u{1b}[2Jb\nc\u{202E}d"), "a[2Jbcd");
        assert_eq!(shown(&"x".repeat(10_000)).len(), LONGEST);
        assert_eq!(
            time(&json!({ "at": "2026-11-21T09:02:31.5+00:00" }), "/at"),
            time(&json!({ "at": "2026-11-21T10:02:31.5+01:00" }), "/at")
        );
        assert_eq!(time(&json!({ "at": "2026-11-21T09:02:31" }), "/at"), None);
    }
}
