//! Values that never print and never serialise, and the redactor that knows them.

use std::fmt;
use std::sync::{Arc, RwLock};

use aho_corasick::AhoCorasick;
use base64::Engine as _;
use secrecy::{ExposeSecret, SecretString};

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
        for spelling in spellings(secret) {
            if !known.patterns.contains(&spelling) {
                known.patterns.push(spelling);
            }
        }
        known.longest = known.patterns.iter().map(String::len).max().unwrap_or(0);
        known.finder =
            AhoCorasick::builder().match_kind(aho_corasick::MatchKind::LeftmostLongest).build(&known.patterns).ok();
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

fn spellings(secret: &str) -> Vec<String> {
    let bytes = secret.as_bytes();
    let mut all = vec![secret.to_owned()];
    all.push(base64::engine::general_purpose::STANDARD_NO_PAD.encode(bytes));
    all.push(base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes));
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
    if let Ok(json) = serde_json::to_string(secret) {
        all.push(json.trim_matches('"').to_owned());
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
