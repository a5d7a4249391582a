//! A TOML file as a tree in which everything knows its place. It does not print: a file may hold what it should not.

use std::collections::BTreeSet;
use std::ops::Range;

use indexmap::IndexMap;
use toml::de::{DeTable, DeValue};

use super::Problems;

#[derive(Clone, PartialEq)]
pub struct Node {
    /// Bytes of the source. Of a table with a header: the header.
    pub span: Range<usize>,
    pub value: Value,
    /// Something that stood in this table was taken out, and complained about: what is missing may have been there.
    pub pruned: bool,
}

#[derive(Clone, PartialEq)]
pub enum Value {
    Text(String),
    Integer(i64),
    Float(f64),
    Bool(bool),
    /// A bare TOML date or time, as written.
    Time(String),
    List(Vec<Node>),
    Table(IndexMap<String, Entry>),
}

#[derive(Clone, PartialEq)]
pub struct Entry {
    /// Where the key stands.
    pub key: Range<usize>,
    pub node: Node,
}

impl Value {
    /// With its article, for messages.
    pub fn noun(&self) -> &'static str {
        match self {
            Self::Text(_) => "a string",
            Self::Integer(_) => "a whole number",
            Self::Float(_) => "a decimal fraction",
            Self::Bool(true) => "true",
            Self::Bool(false) => "false",
            Self::Time(_) => "a bare date or time",
            Self::List(_) => "a list",
            Self::Table(_) => "a table",
        }
    }
}

impl Node {
    pub fn new(span: Range<usize>, value: Value) -> Self {
        Self { span, value, pruned: false }
    }

    pub fn to_json(&self) -> serde_json::Value {
        use serde_json::Value as Json;
        match &self.value {
            Value::Text(text) | Value::Time(text) => Json::String(text.clone()),
            Value::Integer(number) => Json::from(*number),
            Value::Float(number) => Json::from(*number),
            Value::Bool(yes) => Json::Bool(*yes),
            Value::List(items) => Json::Array(items.iter().map(Self::to_json).collect()),
            Value::Table(entries) => {
                Json::Object(entries.iter().map(|(key, entry)| (key.clone(), entry.node.to_json())).collect())
            }
        }
    }
}

/// A node found by a path, or the nearest place above it: a complaint always has somewhere to point.
#[derive(Clone, Copy)]
pub struct Place<'a> {
    node: Option<&'a Node>,
    key: Option<&'a Range<usize>>,
    near: &'a Range<usize>,
}

impl<'a> Place<'a> {
    pub fn of(node: &'a Node) -> Self {
        Self { node: Some(node), key: None, near: &node.span }
    }

    /// The value of a key of this table.
    pub fn key(self, name: &str) -> Self {
        match self.value() {
            Some(Value::Table(entries)) => match entries.get(name) {
                Some(entry) => Self { node: Some(&entry.node), key: Some(&entry.key), near: &entry.node.span },
                None => Self { node: None, key: None, ..self },
            },
            _ => Self { node: None, key: None, ..self },
        }
    }

    /// The first of these keys that is there.
    pub fn either(self, names: &[&str]) -> Self {
        names.iter().map(|name| self.key(name)).find(|place| place.exists()).unwrap_or(self)
    }

    pub fn index(self, index: usize) -> Self {
        match self.value() {
            Some(Value::List(items)) => match items.get(index) {
                Some(node) => Self { node: Some(node), key: None, near: &node.span },
                None => Self { node: None, key: None, ..self },
            },
            _ => Self { node: None, key: None, ..self },
        }
    }

    pub fn value(self) -> Option<&'a Value> {
        self.node.map(|node| &node.value)
    }

    pub fn exists(self) -> bool {
        self.node.is_some()
    }

    /// Something that stood in this table did not fit: its absence is no news.
    pub fn was_pruned(self) -> bool {
        self.node.is_some_and(|node| node.pruned)
    }

    /// The keys of this table, as written.
    pub fn keys(self) -> Vec<&'a str> {
        match self.value() {
            Some(Value::Table(entries)) => entries.keys().map(String::as_str).collect(),
            _ => Vec::new(),
        }
    }

    /// The items of this list.
    pub fn items(self) -> Vec<Place<'a>> {
        match self.value() {
            Some(Value::List(items)) => items.iter().map(Place::of).collect(),
            _ => Vec::new(),
        }
    }

    pub fn text(self) -> Option<&'a str> {
        match self.value() {
            Some(Value::Text(text)) => Some(text),
            _ => None,
        }
    }

    pub fn span(self) -> Range<usize> {
        self.near.clone()
    }

    /// The key's own place where there is one.
    pub fn key_span(self) -> Range<usize> {
        self.key.unwrap_or(self.near).clone()
    }
}

/// Parses TOML; what cannot be read is said in `problems`, all of it.
pub fn parse(source: &str, problems: &mut Problems) -> Node {
    let (table, errors) = DeTable::parse_recoverable(source);
    let starts: Vec<usize> = std::iter::once(0).chain(source.match_indices('\n').map(|(at, _)| at + 1)).collect();
    let mut lines = BTreeSet::new();
    for error in errors {
        // What follows on the same line is an echo of the first complaint.
        let line = error.span().map(|span| starts.partition_point(|start| *start <= span.start).saturating_sub(1));
        if line.is_some_and(|line| !lines.insert(line)) {
            continue;
        }
        let text = source[starts[line.unwrap_or(0)]..].lines().next().unwrap_or_default();
        problems.error(error.span(), error.message().to_owned()).hint(syntax_hint(error.message(), text));
    }
    convert_table(&table.span(), table.get_ref(), problems)
}

fn syntax_hint(message: &str, line: &str) -> &'static str {
    let value = line.split_once('=').map_or("", |(_, value)| value.trim());
    if message.contains("duplicate key") {
        "a key may stand once in a table; a second `[table]` of the same name is the same table"
    } else if line.matches('"').count() % 2 == 1 {
        "a string is not closed on its line; text of several lines stands between \"\"\" and \"\"\""
    } else if value.starts_with(|c: char| c.is_alphabetic()) && !["true", "false"].contains(&value) {
        "text stands in quotes: key = \"value\""
    } else if line.trim_start().starts_with('[') {
        "a table begins with `[name]`, an item of a list of tables with `[[name]]`"
    } else if !line.contains('=') {
        "each line is `key = value`, a `[table]`, or a `# comment`"
    } else {
        "this is not TOML; https://toml.io shows the spelling in one page"
    }
}

fn convert_table(span: &Range<usize>, table: &DeTable<'_>, problems: &mut Problems) -> Node {
    let mut entries = IndexMap::with_capacity(table.len());
    for (key, value) in table {
        if let Some(node) = convert(value.span(), value.get_ref(), problems) {
            entries.insert(key.get_ref().to_string(), Entry { key: key.span(), node });
        }
    }
    Node::new(span.clone(), Value::Table(entries))
}

/// `None` for a number that this program cannot hold, which is said.
fn convert(span: Range<usize>, value: &DeValue<'_>, problems: &mut Problems) -> Option<Node> {
    let value = match value {
        DeValue::String(text) => Value::Text(text.to_string()),
        DeValue::Integer(number) => match i64::from_str_radix(number.as_str(), number.radix()) {
            Ok(number) => Value::Integer(number),
            Err(_) => {
                problems.error(Some(span), "this number is too large").hint("numbers go up to 9223372036854775807");
                return None;
            }
        },
        DeValue::Float(number) => match number.as_str().parse::<f64>() {
            Ok(number) if number.is_finite() => Value::Float(number),
            _ => {
                problems.error(Some(span), "this is not a finite number").hint("write digits: 0.5");
                return None;
            }
        },
        DeValue::Boolean(yes) => Value::Bool(*yes),
        DeValue::Datetime(time) => Value::Time(time.to_string()),
        DeValue::Array(items) => {
            Value::List(items.iter().filter_map(|item| convert(item.span(), item.get_ref(), problems)).collect())
        }
        DeValue::Table(table) => return Some(convert_table(&span, table, problems)),
    };
    Some(Node::new(span, value))
}
