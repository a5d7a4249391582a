//! `allowed_signers` files, as `ssh-keygen` reads them: whose key is whose, for which namespaces, and until when.

use chrono::{DateTime, Local, NaiveDate, NaiveDateTime, TimeZone, Utc};
use ssh_key::PublicKey;
use ssh_key::public::KeyData;

/// A parsed file. Lines that cannot be read are no use to anybody, and are told.
#[derive(Debug, Clone, Default)]
pub struct AllowedSigners {
    entries: Vec<Entry>,
    pub problems: Vec<String>,
}

#[derive(Debug, Clone)]
struct Entry {
    /// A pattern list, mostly one name.
    principals: String,
    options: Options,
    key: KeyData,
}

#[derive(Debug, Clone, Default)]
struct Options {
    cert_authority: bool,
    namespaces: Option<String>,
    valid_after: Option<DateTime<Utc>>,
    valid_before: Option<DateTime<Utc>>,
}

impl AllowedSigners {
    pub fn parse(text: &str) -> Self {
        let mut parsed = Self::default();
        for (number, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            match entry(line) {
                Ok(entry) => parsed.entries.push(entry),
                Err(why) => parsed.problems.push(format!("line {}: {why}", number + 1)),
            }
        }
        parsed
    }

    /// Who signs with `key` in `namespace` at the moment `at`: `principal` if it is one of them, or whoever is listed when
    /// none is given. The error says why nobody does.
    pub fn find(
        &self,
        key: &KeyData,
        namespace: &str,
        principal: Option<&str>,
        at: DateTime<Utc>,
    ) -> Result<String, String> {
        let mut why = "its key is not in the allowed signers".to_owned();
        // A certificate authority vouches for certificates; it does not sign itself.
        for entry in self.entries.iter().filter(|entry| entry.key == *key && !entry.options.cert_authority) {
            let refusal = match principal {
                Some(name) if !matches(name, &entry.principals) => {
                    Some(format!("its key belongs to {}, not to {name}", entry.principals))
                }
                _ => entry.options.refusal(namespace, at),
            };
            match refusal {
                None => return Ok(principal.unwrap_or(&entry.principals).to_owned()),
                Some(refusal) => why = refusal,
            }
        }
        Err(why)
    }
}

impl Options {
    fn refusal(&self, namespace: &str, at: DateTime<Utc>) -> Option<String> {
        if let Some(allowed) = self.namespaces.as_ref().filter(|allowed| !matches(namespace, allowed)) {
            return Some(format!("its key may sign for {allowed}, not for {namespace}"));
        }
        if let Some(after) = self.valid_after.filter(|after| at < *after) {
            return Some(format!("its key is valid only after {after}"));
        }
        self.valid_before.filter(|before| at > *before).map(|before| format!("its key was valid only before {before}"))
    }
}

/// `principals [options] type key [comment]`
fn entry(line: &str) -> Result<Entry, String> {
    let (principals, rest) = word(line)?;
    if principals.is_empty() {
        return Err("it names nobody".to_owned());
    }
    let rest = rest.trim_start();
    if let Ok(key) = PublicKey::from_openssh(rest) {
        return Ok(Entry { principals, options: Options::default(), key: key.key_data().clone() });
    }
    let end = end_of_options(rest)?;
    let options = options(&rest[..end])?;
    let key =
        PublicKey::from_openssh(rest[end..].trim_start()).map_err(|why| format!("no key that is known: {why}"))?;
    Ok(Entry { principals, options, key: key.key_data().clone() })
}

/// The first word, in quotation marks when it holds spaces.
fn word(line: &str) -> Result<(String, &str), String> {
    match line.strip_prefix('"') {
        Some(quoted) => {
            let (word, rest) = quoted.split_once('"').ok_or("a quotation mark that is not closed")?;
            Ok((word.to_owned(), rest))
        }
        None => {
            let (word, rest) = line.split_once([' ', '\t']).ok_or("no key")?;
            Ok((word.to_owned(), rest))
        }
    }
}

/// Where the first blank outside quotation marks is.
fn end_of_options(text: &str) -> Result<usize, String> {
    let mut quoted = false;
    let mut escaped = false;
    for (index, c) in text.char_indices() {
        match c {
            '\\' if quoted && !escaped => {
                escaped = true;
                continue;
            }
            '"' if !escaped => quoted = !quoted,
            ' ' | '\t' if !quoted => return Ok(index),
            _ => {}
        }
        escaped = false;
    }
    Err(if quoted { "a quotation mark that is not closed".to_owned() } else { "no key".to_owned() })
}

fn options(text: &str) -> Result<Options, String> {
    let mut options = Options::default();
    let mut rest = text;
    while !rest.is_empty() {
        let end = rest.find(['=', ',']).unwrap_or(rest.len());
        let (name, mut tail) = rest.split_at(end);
        let mut value = None;
        if let Some(quoted) = tail.strip_prefix("=\"") {
            let (text, after) = quoted.split_once('"').ok_or("a quotation mark that is not closed")?;
            value = Some(text.to_owned());
            tail = after;
        }
        match (name.to_ascii_lowercase().as_str(), value) {
            ("cert-authority", None) => options.cert_authority = true,
            ("namespaces", Some(list)) => options.namespaces = Some(list),
            ("valid-after", Some(time)) => options.valid_after = Some(moment(&time)?),
            ("valid-before", Some(time)) => options.valid_before = Some(moment(&time)?),
            _ => return Err(format!("an option that is not known: {name}")),
        }
        rest = match tail.strip_prefix(',') {
            Some(more) if !more.is_empty() => more,
            None if tail.is_empty() => "",
            _ => return Err("options that cannot be told apart".to_owned()),
        };
    }
    Ok(options)
}

/// `YYYYMMDD[HHMM[SS]]`, in this machine's zone unless a `Z` follows.
fn moment(text: &str) -> Result<DateTime<Utc>, String> {
    let bad = || format!("`{text}` is no time; one looks like 20261121 or 20261121093000Z");
    let (digits, utc) = match text.strip_suffix('Z').or(text.strip_suffix("UTC")) {
        Some(digits) => (digits, true),
        None => (text, false),
    };
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(bad());
    }
    let naive = match digits.len() {
        8 => NaiveDate::parse_from_str(digits, "%Y%m%d").ok().and_then(|date| date.and_hms_opt(0, 0, 0)),
        12 => NaiveDateTime::parse_from_str(&format!("{digits}00"), "%Y%m%d%H%M%S").ok(),
        14 => NaiveDateTime::parse_from_str(digits, "%Y%m%d%H%M%S").ok(),
        _ => None,
    }
    .ok_or_else(bad)?;
    match utc {
        true => Ok(naive.and_utc()),
        false => Local.from_local_datetime(&naive).earliest().map(|at| at.to_utc()).ok_or_else(bad),
    }
}

/// OpenSSH's pattern lists: commas, `*`, `?`, and `!` for what must not match.
fn matches(text: &str, list: &str) -> bool {
    let mut found = false;
    for pattern in list.split(',') {
        match pattern.strip_prefix('!') {
            Some(pattern) if matches_one(text.as_bytes(), pattern.as_bytes()) => return false,
            Some(_) => {}
            None => found |= matches_one(text.as_bytes(), pattern.as_bytes()),
        }
    }
    found
}

fn matches_one(text: &[u8], pattern: &[u8]) -> bool {
    // Where to go back to: behind the last `*`, and the text that it has swallowed so far.
    let (mut t, mut p) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p + 1, t));
                p += 1;
            }
            Some(&c) if c == b'?' || c == text[t] => (t, p) = (t + 1, p + 1),
            _ => match star {
                Some((after, swallowed)) => {
                    star = Some((after, swallowed + 1));
                    (t, p) = (swallowed + 1, after);
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|&c| c == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIPm0kcrxpqGAaJCU5X7LbX1dvs2UbQ2mPZYPmNVjlRX0";

    fn key() -> KeyData {
        PublicKey::from_openssh(KEY).unwrap().key_data().clone()
    }

    fn find(line: &str, namespace: &str, principal: Option<&str>) -> Result<String, String> {
        let allowed = AllowedSigners::parse(line);
        assert_eq!(allowed.problems, Vec::<String>::new(), "{line}");
        allowed.find(&key(), namespace, principal, "2026-11-21T09:00:00Z".parse().unwrap())
    }

    #[test]
    fn lines_are_read_as_ssh_keygen_reads_them() {
        for line in [
            format!("ada@x {KEY}"),
            format!("ada@x {KEY} a comment"),
            format!("\"ada@x\" namespaces=\"lifeboat-*\" {KEY}"),
            format!("ada@x namespaces=\"git,lifeboat-operator\",valid-after=\"20200101\" {KEY}"),
            format!("bob@x,ada@x\tvalid-before=\"20301231235959Z\",NAMESPACES=\"lifeboat-operator\"\t{KEY}"),
            format!("*@x,!eve@x {KEY}"),
            format!("# a comment\n\n  ada@? {KEY}"),
        ] {
            assert_eq!(find(&line, "lifeboat-operator", Some("ada@x")), Ok("ada@x".to_owned()), "{line}");
        }
        assert_eq!(find(&format!("ada@x {KEY}"), "any", None), Ok("ada@x".to_owned()));
    }

    #[test]
    fn what_ssh_keygen_refuses_is_refused() {
        for line in [
            format!("eve@x {KEY}"),
            format!("*@x,!ada@x {KEY}"),
            format!("ada@x namespaces=\"git\" {KEY}"),
            format!("ada@x namespaces=\"!lifeboat-operator,*\" {KEY}"),
            format!("ada@x valid-after=\"20270101\" {KEY}"),
            format!("ada@x valid-before=\"202601010000\" {KEY}"),
            format!("ada@x cert-authority {KEY}"),
        ] {
            assert!(find(&line, "lifeboat-operator", Some("ada@x")).is_err(), "{line}");
        }
        for bad in ["ada@x", "ada@x nonsense", &format!("ada@x unknown {KEY}"), &format!("ada@x namespaces=\"a {KEY}")]
        {
            assert_eq!(AllowedSigners::parse(bad).problems.len(), 1, "{bad}");
        }
    }

    #[test]
    fn patterns_match_as_in_openssh() {
        for (text, pattern, found) in [
            ("abc", "abc", true),
            ("abc", "a*c", true),
            ("abc", "*", true),
            ("", "*", true),
            ("abc", "a?c", true),
            ("abc", "a?", false),
            ("aXbXc", "a*b*c", true),
            ("aXbX", "a*b*c", false),
            ("abc", "", false),
        ] {
            assert_eq!(matches_one(text.as_bytes(), pattern.as_bytes()), found, "{text} {pattern}");
        }
    }
}
