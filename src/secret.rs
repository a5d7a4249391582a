//! Values that never print and never serialise, and the redactor that knows them.

use std::fmt;
use std::sync::{Arc, RwLock};

use aho_corasick::AhoCorasick;
use base64::Engine as _;
use secrecy::{ExposeSecret, SecretString};

use crate::mutant;

/// A password, a token, a URL with a password in it.
#[derive(Clone)]
pub struct Secret(SecretString);

impl Secret {
    pub fn new(value: impl Into<String>) -> Self {
        Self(SecretString::from(value.into()))
    }

    /// The value itself; every call is a place to look at.
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// What stands in the place of a secret.
pub const MASK: &str = "‹redacted›";

/// Values shorter than this are not redacted: they would blank innocent text.
const SHORTEST: usize = 4;

/// Replaces every known secret, in plain, base64, URL, hex and JSON spelling.
#[derive(Clone, Default)]
pub struct Redactor {
    shared: Arc<RwLock<Known>>,
}

#[derive(Default)]
struct Known {
    patterns: Vec<String>,
    finder: Option<AhoCorasick>,
    longest: usize,
}

impl Redactor {
    /// From now on `secret` is replaced wherever it appears.
    pub fn learn(&self, secret: &str) {
        if secret.len() < SHORTEST {
            return;
        }
        let mut known = self.shared.write().expect("the redactor's lock");
        let spellings = if mutant::removes("10b") { vec![secret.to_owned()] } else { spellings(secret) };
        for spelling in spellings {
            if !known.patterns.contains(&spelling) {
                known.patterns.push(spelling);
            }
        }
        known.longest = known.patterns.iter().map(String::len).max().unwrap_or(0);
        known.finder =
            AhoCorasick::builder().match_kind(aho_corasick::MatchKind::LeftmostLongest).build(&known.patterns).ok();
    }

    /// As [`Redactor::learn`], for how a server is reached: a URL, or libpq's `keyword=value` pairs. The passwords in it
    /// are learned as they are written and as they are meant, and the whole text when it has any.
    pub fn learn_url(&self, text: &str) {
        let passwords = passwords(text);
        for password in &passwords {
            self.learn(password);
            self.learn(&percent_decoded(password));
        }
        if !passwords.is_empty() {
            self.learn(text);
        }
    }

    pub fn text(&self, text: &str) -> String {
        let known = self.shared.read().expect("the redactor's lock");
        match &known.finder {
            Some(finder) => finder.replace_all(text, &vec![MASK; known.patterns.len()]),
            None => text.to_owned(),
        }
    }

    /// Every text within, names of fields too.
    pub fn json(&self, value: serde_json::Value) -> serde_json::Value {
        use serde_json::Value;
        match value {
            Value::String(text) => Value::String(self.text(&text)),
            Value::Array(items) => items.into_iter().map(|item| self.json(item)).collect(),
            Value::Object(fields) => {
                fields.into_iter().map(|(name, value)| (self.text(&name), self.json(value))).collect()
            }
            other => other,
        }
    }

    pub fn bytes(&self, bytes: &[u8]) -> Vec<u8> {
        let known = self.shared.read().expect("the redactor's lock");
        match &known.finder {
            Some(finder) => finder.replace_all_bytes(bytes, &vec![MASK.as_bytes(); known.patterns.len()]),
            None => bytes.to_vec(),
        }
    }

    /// A redactor for one stream: it holds back what may be the beginning of a secret.
    pub fn stream(&self) -> RedactedStream {
        RedactedStream { redactor: self.clone(), held: Vec::new() }
    }

    fn longest(&self) -> usize {
        self.shared.read().expect("the redactor's lock").longest
    }

    /// Where the last match that may still grow or begin in `bytes` starts: everything before it is safe to pass on.
    fn safe_length(&self, bytes: &[u8]) -> usize {
        let known = self.shared.read().expect("the redactor's lock");
        let Some(finder) = &known.finder else { return bytes.len() };
        let mut cut = bytes.len().saturating_sub(known.longest.saturating_sub(1));
        for found in finder.find_iter(bytes) {
            if found.start() < cut && found.end() > cut {
                cut = found.start();
            }
        }
        cut
    }
}

/// Redacts a stream that comes in chunks; a secret across a border is found too.
pub struct RedactedStream {
    redactor: Redactor,
    held: Vec<u8>,
}

impl RedactedStream {
    /// Takes a chunk, returns what is now safe to show.
    pub fn push(&mut self, chunk: &[u8]) -> Vec<u8> {
        if self.redactor.longest() == 0 && self.held.is_empty() {
            return chunk.to_vec();
        }
        if mutant::removes("10") {
            return self.redactor.bytes(chunk);
        }
        self.held.extend_from_slice(chunk);
        let rest = self.held.split_off(self.redactor.safe_length(&self.held));
        let safe = std::mem::replace(&mut self.held, rest);
        self.redactor.bytes(&safe)
    }

    /// The end of the stream: returns what was held back.
    pub fn finish(&mut self) -> Vec<u8> {
        let held = std::mem::take(&mut self.held);
        self.redactor.bytes(&held)
    }
}

/// Every password in a URL (`//user:HERE@host`, `?password=HERE`) or in `keyword=value` pairs, as written.
fn passwords(text: &str) -> Vec<String> {
    let secret = |name: &str| matches!(name, "password" | "sslpassword");
    let Some((_, rest)) = text.split_once("://") else {
        return keywords(text).into_iter().filter(|(name, _)| secret(name)).map(|(_, value)| value).collect();
    };
    let authority = &rest[..rest.find(['/', '?', '#']).unwrap_or(rest.len())];
    // A password with an unescaped slash ends behind the authority.
    let users = [authority, rest].into_iter().filter_map(|part| part.rsplit_once('@'));
    let mut found: Vec<String> = users
        .filter_map(|(user, _)| Some(user.split_once(':')?.1.to_owned()))
        .filter(|word| !word.is_empty())
        .collect();
    let query = rest.split_once('?').map_or("", |(_, query)| query);
    let pairs = query.split(['&', '#']).filter_map(|pair| pair.split_once('='));
    found.extend(pairs.filter(|(name, _)| secret(name)).map(|(_, value)| value.to_owned()));
    found
}

/// libpq's pairs: blanks around `=` are allowed, a value may stand in single quotes, a backslash escapes.
fn keywords(text: &str) -> Vec<(String, String)> {
    let mut pairs = Vec::new();
    let mut rest = text;
    while let Some((name, after)) = rest.split_once('=') {
        let after = after.trim_start();
        let (quoted, after) = after.strip_prefix('\'').map_or((false, after), |inner| (true, inner));
        let (mut value, mut escaped, mut end) = (String::new(), false, after.len());
        for (at, letter) in after.char_indices() {
            match letter {
                _ if escaped => escaped = false,
                '\\' => {
                    escaped = true;
                    continue;
                }
                '\'' if quoted => {
                    end = at + 1;
                    break;
                }
                blank if !quoted && blank.is_whitespace() => {
                    end = at;
                    break;
                }
                _ => {}
            }
            value.push(letter);
        }
        pairs.push((name.split_whitespace().last().unwrap_or_default().to_owned(), value));
        rest = &after[end..];
    }
    pairs
}

fn percent_decoded(text: &str) -> String {
    let (mut bytes, mut rest) = (Vec::new(), text.as_bytes());
    while let [first, after @ ..] = rest {
        let escaped = match (first, after) {
            (b'%', [high, low, ..]) => hex::decode([*high, *low]).ok(),
            _ => None,
        };
        rest = if escaped.is_some() { &after[2..] } else { after };
        bytes.extend(escaped.unwrap_or_else(|| vec![*first]));
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Of a secret that stands in the middle of what was encoded (`user:password`): the letters that are its own, when `before`
/// bytes of a group of three precede it. Too few of them would blank innocent text.
fn within_base64(engine: &impl base64::Engine, secret: &[u8], before: usize) -> Option<String> {
    let text = engine.encode([&vec![0; before][..], secret].concat());
    let shared = usize::from(!(before + secret.len()).is_multiple_of(3));
    let own = &text[[0, 2, 3][before]..text.len() - shared];
    (own.len() >= 2 * SHORTEST).then(|| own.to_owned())
}

/// As it stands in a JSON string: plainly, with its slashes escaped, and in ASCII alone.
fn in_json(text: &str) -> Vec<String> {
    let quoted = serde_json::Value::from(text).to_string();
    let json = quoted[1..quoted.len() - 1].to_owned();
    let ascii = |c: char| match c {
        ' '..='~' => c.to_string(),
        c => c.encode_utf16(&mut [0; 2]).iter().map(|unit| format!("\\u{unit:04x}")).collect(),
    };
    let mut all = vec![json.replace('/', "\\/"), json.chars().map(ascii).collect(), json];
    all.sort();
    all.dedup();
    all
}

fn spellings(secret: &str) -> Vec<String> {
    let bytes = secret.as_bytes();
    let mut all = vec![secret.to_owned()];
    for engine in [base64::engine::general_purpose::STANDARD_NO_PAD, base64::engine::general_purpose::URL_SAFE_NO_PAD] {
        all.push(engine.encode(bytes));
        all.extend((0..3).filter_map(|before| within_base64(&engine, bytes, before)));
    }
    all.push(hex::encode(bytes));
    all.push(hex::encode_upper(bytes));
    let percent = |upper: bool| {
        bytes
            .iter()
            .map(|b| match b {
                b if b.is_ascii_alphanumeric() || b"-._~".contains(b) => (*b as char).to_string(),
                b if upper => format!("%{b:02X}"),
                b => format!("%{b:02x}"),
            })
            .collect::<String>()
    };
    all.push(percent(true));
    all.push(percent(false));
    // As forms and JavaScript's encodeURIComponent write it.
    all.push(percent(true).replace("%20", "+"));
    let kept = [("%21", "!"), ("%27", "'"), ("%28", "("), ("%29", ")"), ("%2A", "*")];
    all.push(kept.iter().fold(percent(true), |text, (code, letter)| text.replace(code, letter)));
    all.push(bytes.iter().map(|byte| format!("%{byte:02X}")).collect());
    // A line of a log is often JSON, and a text in it JSON again.
    let mut written = vec![secret.to_owned()];
    for _ in 0..2 {
        written = written.iter().flat_map(|text| in_json(text)).collect();
        all.extend(written.iter().cloned());
    }
    all.sort();
    all.dedup();
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_never_prints() {
        assert_eq!(format!("{:?}", Secret::new("hunter22")), "Secret(…)");
    }

    #[test]
    fn every_spelling_is_replaced() {
        let redactor = Redactor::default();
        redactor.learn("p@ss\"word");
        for spelling in spellings("p@ss\"word") {
            assert_eq!(redactor.text(&format!("a {spelling} b")), format!("a {MASK} b"));
        }
    }

    #[test]
    fn a_secret_within_something_encoded_is_replaced() {
        let redactor = Redactor::default();
        redactor.learn("correct horse");
        for user in ["", "a", "ab", "abc", "long-name"] {
            for tail in ["", "x", "xy", "xyz"] {
                let all = format!("{user}:correct horse{tail}");
                let text = redactor.text(&base64::engine::general_purpose::STANDARD.encode(&all));
                assert!(text.contains(MASK), "{all}: {text}");
            }
        }
        // What remains beside the mask gives at most a letter at each end.
        let text = redactor.text(&base64::engine::general_purpose::STANDARD.encode("app:correct horse"));
        assert!(text.len() <= MASK.len() + 8, "{text}");
    }

    #[test]
    fn passwords_are_found_wherever_a_server_s_address_may_hold_them() {
        for (address, meant) in [
            ("postgresql://app:p%40ss%3Aw%25rd@db/orders", "p@ss:w%rd"),
            ("postgresql://db:5432/orders?user=app&password=p%40ss%3Aw%25rd&sslmode=require", "p@ss:w%rd"),
            ("postgresql://app:outer-one@db/orders?password=inner-one", "inner-one"),
            ("postgresql://app:outer-one@db/orders?password=inner-one", "outer-one"),
            ("postgresql://db/orders?sslpassword=key%20phrase", "key phrase"),
            ("redis://:a/b@c@cache:6379/0", "a/b@c"),
            ("host=db password=plain-one user=app", "plain-one"),
            ("host=db user='o''brien' password = 'it\\'s a \\\\ secret' dbname=x", "it's a \\ secret"),
            ("password=with\\ blank host=db", "with blank"),
        ] {
            let redactor = Redactor::default();
            redactor.learn_url(address);
            assert_eq!(redactor.text(&format!("<{meant}>")), format!("<{MASK}>"), "{address}");
            assert_eq!(redactor.text(&format!("<{address}>")), format!("<{MASK}>"), "{address}");
        }
        let redactor = Redactor::default();
        redactor.learn_url("postgresql://app@localhost:5432/orders?application_name=lifeboat");
        redactor.learn_url("host=localhost user=app");
        assert_eq!(redactor.text("app localhost 5432 orders lifeboat"), "app localhost 5432 orders lifeboat");
    }

    #[test]
    fn a_secret_across_chunk_borders_is_replaced() {
        let redactor = Redactor::default();
        redactor.learn("correct horse");
        let text = b"the key is correct horse, and correct hors is not";
        for size in 1..text.len() {
            let mut stream = redactor.stream();
            let mut out = Vec::new();
            for chunk in text.chunks(size) {
                out.extend(stream.push(chunk));
            }
            out.extend(stream.finish());
            assert_eq!(
                String::from_utf8(out).unwrap(),
                format!("the key is {MASK}, and correct hors is not"),
                "chunks of {size}"
            );
        }
    }
}
