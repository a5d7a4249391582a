//! `{name}` in texts. `{{` and `}}` are braces. A value is put in as it is: braces in it mean nothing.

use std::ops::Range;

use crate::document::is_id;

/// Names that every drill has, beside variables and roles: the service, the drill's id, who runs it.
pub const BUILT_IN: [&str; 3] = ["service", "drill", "operator"];

/// A name that has no value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{{{name}}}` has no value")]
pub struct MissingVariable {
    pub name: String,
}

/// A part of a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part<'a> {
    Literal(&'a str),
    /// What stands between the braces, and the bytes of the text from brace to brace.
    Name(&'a str, Range<usize>),
    /// A brace that neither belongs to a name nor is written twice; it stands for itself.
    Stray(&'a str),
}

/// Takes a text apart.
pub fn parts(text: &str) -> Vec<Part<'_>> {
    let mut parts = Vec::new();
    let mut at = 0;
    while let Some(brace) = text[at..].find(['{', '}']).map(|offset| at + offset) {
        if brace > at {
            parts.push(Part::Literal(&text[at..brace]));
        }
        let rest = &text[brace..];
        let end = rest.find('}').map(|end| brace + end);
        at = match end {
            _ if rest.starts_with("{{") || rest.starts_with("}}") => {
                parts.push(Part::Literal(&text[brace..brace + 1]));
                brace + 2
            }
            Some(end) if end > brace && is_id(&text[brace + 1..end]) => {
                parts.push(Part::Name(&text[brace + 1..end], brace..end + 1));
                end + 1
            }
            _ => {
                parts.push(Part::Stray(&text[brace..brace + 1]));
                brace + 1
            }
        };
    }
    if at < text.len() {
        parts.push(Part::Literal(&text[at..]));
    }
    parts
}

/// Replaces every `{name}` by what `lookup` says. Values are not looked into again.
pub fn expand(text: &str, lookup: impl Fn(&str) -> Option<String>) -> Result<String, MissingVariable> {
    let mut out = String::with_capacity(text.len());
    for part in parts(text) {
        match part {
            Part::Literal(text) | Part::Stray(text) => out.push_str(text),
            Part::Name(name, _) => match lookup(name) {
                Some(value) => out.push_str(&value),
                None => return Err(MissingVariable { name: name.to_owned() }),
            },
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expanded(text: &str) -> Result<String, MissingVariable> {
        expand(text, |name| match name {
            "db" => Some("orders-db".to_owned()),
            "evil" => Some("{db} }} {{".to_owned()),
            "empty" => Some(String::new()),
            _ => None,
        })
    }

    #[test]
    fn a_name_is_replaced_once_and_values_are_left_alone() {
        assert_eq!(expanded("restore {db} now").unwrap(), "restore orders-db now");
        assert_eq!(expanded("{evil}").unwrap(), "{db} }} {{");
        assert_eq!(expanded("a{empty}b").unwrap(), "ab");
        assert_eq!(expanded("{{db}} {{{db}}}").unwrap(), "{db} {orders-db}");
        assert_eq!(expanded("{\"a\": {db}}").unwrap(), "{\"a\": orders-db}");
        assert_eq!(expanded("").unwrap(), "");
    }

    #[test]
    fn a_missing_name_is_named() {
        let error = expanded("{db} {other}").unwrap_err();
        assert_eq!(error.to_string(), "`{other}` has no value");
    }
}
