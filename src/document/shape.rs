//! Holds a tree against a schema: says everything that does not fit, and prunes it, so that the checks of meaning still
//! run over the rest.
//!
//! It knows the part of JSON Schema that [`super::schema`] makes, and words of our own: `x-hint` (what to write
//! instead), `x-noun` (what to call it), `x-not-yet` (keys that are planned and must not be ignored in silence) and the
//! formats of [`super::words`].

use std::ops::Range;

use serde_json::{Map, Value as Json};

use super::node::{Entry, Node, Value};
use super::suggest::{closest, list, slug};
use super::words::{Lasting, is_id, is_name};
use super::{FORMAT, MOST_ENTRIES, Problems};

type Schema = Map<String, Json>;

/// Adds what is wrong to `problems` and takes it out of `node`.
pub fn check(schema: &Json, node: &mut Node, problems: &mut Problems) {
    let mut walk = Walk { root: schema, problems };
    walk.visit(schema, node, "the file");
}

struct Walk<'a> {
    root: &'a Json,
    problems: &'a mut Problems,
}

impl<'a> Walk<'a> {
    /// False when the node cannot be used; that has been said.
    fn visit(&mut self, schema: &'a Json, node: &mut Node, what: &str) -> bool {
        let Some(schema) = self.resolve(schema) else { return true };
        let what = schema.get("x-noun").and_then(Json::as_str).unwrap_or(what);
        let alternatives = self.alternatives(schema);
        let fitting: Vec<&Schema> = alternatives.iter().copied().filter(|one| accepts(one, &node.value)).collect();
        let outer_hint = schema.get("x-hint").and_then(Json::as_str);
        if fitting.is_empty() {
            self.wrong_type(&alternatives, node, what, outer_hint);
            return false;
        }
        match &mut node.value {
            Value::Text(text) => self.text(&fitting, text, node.span.clone(), what, outer_hint),
            Value::Integer(number) => self.integer(fitting[0], *number, node.span.clone(), what),
            Value::List(items) => self.list(fitting[0], items, node.span.clone(), what),
            Value::Table(_) => match self.choose(&fitting, node, what) {
                Some(one) => self.table(one, &fitting, node, what),
                None => false,
            },
            Value::Float(_) | Value::Bool(_) | Value::Time(_) => true,
        }
    }

    /// The schema behind `$ref`.
    fn resolve(&self, schema: &'a Json) -> Option<&'a Schema> {
        let mut schema = schema.as_object()?;
        while let Some(reference) = schema.get("$ref").and_then(Json::as_str) {
            schema = self.root.pointer(reference.strip_prefix('#')?)?.as_object()?;
        }
        Some(schema)
    }

    /// What a node may be, `oneOf` and `anyOf` opened.
    fn alternatives(&self, schema: &'a Schema) -> Vec<&'a Schema> {
        let Some(several) = schema.get("oneOf").or_else(|| schema.get("anyOf")).and_then(Json::as_array) else {
            return vec![schema];
        };
        several.iter().filter_map(|one| self.resolve(one)).flat_map(|one| self.alternatives(one)).collect()
    }

    fn wrong_type(&mut self, alternatives: &[&Schema], node: &Node, what: &str, outer_hint: Option<&str>) {
        let mut nouns: Vec<String> = Vec::new();
        for noun in alternatives.iter().map(|one| noun(one)) {
            if !nouns.contains(&noun) {
                nouns.push(noun);
            }
        }
        let hint = outer_hint.map(str::to_owned).or_else(|| type_hint(alternatives, &node.value));
        let message = format!("{what} should be {}, not {}", nouns.join(" or "), node.value.noun());
        self.problems.error(Some(node.span.clone()), message).hint_if(hint);
    }

    fn text(
        &mut self,
        fitting: &[&Schema],
        text: &str,
        span: Range<usize>,
        what: &str,
        outer_hint: Option<&str>,
    ) -> bool {
        let words: Vec<&str> = fitting.iter().flat_map(|one| constants(one)).collect();
        if !words.is_empty() {
            if words.contains(&text) {
                return true;
            }
            let hint = match (outer_hint, closest(text, words.iter().copied())) {
                (Some(hint), _) => hint.to_owned(),
                (None, Some(near)) => format!("did you mean `{near}`?"),
                (None, None) => format!("say {}", list(words, "or")),
            };
            self.problems.error(Some(span), format!("{what} cannot be `{text}`")).hint(hint);
            return false;
        }
        let schema = fitting[0];
        if schema.get("minLength").is_some() && text.trim().is_empty() {
            self.problems
                .error(Some(span), format!("{what} is empty"))
                .hint("write a word for the person who reads it");
            return false;
        }
        match schema.get("format").and_then(Json::as_str) {
            Some(format) => self.format(format, text, span, what),
            None => true,
        }
    }

    fn format(&mut self, format: &str, text: &str, span: Range<usize>, what: &str) -> bool {
        let (message, hint) = match format {
            "lasting" => match Lasting::read(text) {
                Ok(_) => return true,
                Err(why) => (
                    format!("{what}: `{text}` is not a duration: {why}"),
                    "write a number and a unit: \"90s\", \"40m\", \"1h 30m\", \"30d\"".to_owned(),
                ),
            },
            "id" if !is_id(text) => (
                format!("{what}: `{text}` is not an identifier"),
                with_example("lower-case letters, digits, `-` and `_`", &slug(text)),
            ),
            "name" if !is_name(text) => (
                format!("{what}: `{text}` cannot be the name of a variable"),
                with_example("lower-case letters, digits and `_`, a letter first", &slug(text).replace('-', "_")),
            ),
            _ => return true,
        };
        self.problems.error(Some(span), message).hint(hint);
        false
    }

    fn integer(&mut self, schema: &Schema, number: i64, span: Range<usize>, what: &str) -> bool {
        let bound = |key: &str| schema.get(key).and_then(Json::as_f64);
        let widest = match schema.get("format").and_then(Json::as_str) {
            Some("uint16") => Some(f64::from(u16::MAX)),
            Some("uint32") => Some(f64::from(u32::MAX)),
            _ => None,
        };
        let message = match (bound("minimum"), bound("maximum").or(widest)) {
            (Some(least), _) if (number as f64) < least => format!("{what} is at least {least}, not {number}"),
            (_, Some(most)) if (number as f64) > most => format!("{what} is at most {most}, not {number}"),
            _ => return true,
        };
        self.problems.error(Some(span), message);
        false
    }

    fn list(&mut self, schema: &'a Schema, items: &mut Vec<Node>, span: Range<usize>, what: &str) -> bool {
        let least = schema.get("minItems").and_then(Json::as_u64).unwrap_or(0);
        if (items.len() as u64) < least {
            let hint = schema.get("x-hint").and_then(Json::as_str);
            self.problems.error(Some(span), format!("{what} is empty")).hint_if(hint);
            return false;
        }
        if self.is_too_long(items.len(), span, what) {
            return false;
        }
        if let Some(inner) = schema.get("items") {
            let what = format!("an item of {what}");
            items.retain_mut(|item| self.visit(inner, item, &what));
        }
        true
    }

    fn is_too_long(&mut self, entries: usize, span: Range<usize>, what: &str) -> bool {
        if entries > MOST_ENTRIES {
            self.problems
                .error(Some(span), format!("{what} has {entries} entries; at most {MOST_ENTRIES} are read"))
                .hint("is it the right file? Split it, or let a script do the rest");
        }
        entries > MOST_ENTRIES
    }

    /// Which of several tables is meant: by a key that each declares with a constant of its own, else by the one key
    /// that each of them requires.
    fn choose(&mut self, fitting: &[&'a Schema], node: &Node, what: &str) -> Option<&'a Schema> {
        let (&first, Value::Table(entries)) = (fitting.first()?, &node.value) else { return None };
        if fitting.len() == 1 {
            return Some(first);
        }
        let Some(tag) = tag(fitting) else { return self.choose_by_key(fitting, entries, node, what) };
        let words: Vec<&str> = fitting.iter().filter_map(|one| tag_word(one, tag)).collect();
        let Some(entry) = entries.get(tag) else {
            let hint = format!("say {}", list(words, "or"));
            self.problems.error(Some(node.span.clone()), format!("{what} has no `{tag}`")).hint(hint);
            return None;
        };
        let found = match &entry.node.value {
            Value::Text(text) => text,
            other => {
                let message = format!("`{tag}` should be a string, not {}", other.noun());
                self.problems.error(Some(entry.node.span.clone()), message).hint(format!("say {}", list(words, "or")));
                return None;
            }
        };
        let chosen = fitting.iter().copied().find(|one| tag_word(one, tag) == Some(found));
        if chosen.is_none() {
            let hint = match closest(found, words.iter().copied()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("it is one of {}", list(words, "and")),
            };
            self.problems.error(Some(entry.node.span.clone()), format!("there is no `{tag} = \"{found}\"`")).hint(hint);
        }
        chosen
    }

    fn choose_by_key(
        &mut self,
        fitting: &[&'a Schema],
        entries: &indexmap::IndexMap<String, Entry>,
        node: &Node,
        what: &str,
    ) -> Option<&'a Schema> {
        let has = |one: &&&Schema| required(one).any(|key| entries.contains_key(key));
        let chosen: Vec<&&Schema> = fitting.iter().filter(has).collect();
        match chosen.as_slice() {
            [one] => Some(**one),
            wrong => {
                let keys: Vec<&str> = fitting.iter().flat_map(|one| required(one)).collect();
                let count = if wrong.is_empty() { "none" } else { "more than one" };
                let message = format!("{what} says {count} of {}", list(keys.iter().copied(), "and"));
                self.problems.error(Some(node.span.clone()), message).hint("say exactly one of them");
                None
            }
        }
    }

    fn table(&mut self, schema: &'a Schema, siblings: &[&'a Schema], node: &mut Node, what: &str) -> bool {
        let span = node.span.clone();
        let Value::Table(entries) = &mut node.value else { return true };
        let properties = schema.get("properties").and_then(Json::as_object);
        let names = schema.get("propertyNames");
        let needed: Vec<&str> = required(schema).collect();
        let least = schema.get("minProperties").and_then(Json::as_u64).unwrap_or(0);
        if (entries.len() as u64) < least {
            self.problems.error(Some(span), format!("{what} is empty"));
            return false;
        }
        if self.is_too_long(entries.len(), span.clone(), what) {
            return false;
        }
        let mut usable = true;
        let mut refused: Vec<String> = Vec::new();
        let before = entries.len();
        entries.retain(|key, entry| {
            if let Some(inner) = properties.and_then(|properties| properties.get(key)) {
                let fits = self.visit(inner, &mut entry.node, &format!("`{key}`"));
                if !fits {
                    refused.push(key.clone());
                }
                return fits;
            }
            match schema.get("additionalProperties") {
                Some(Json::Bool(false)) => {
                    self.unknown_key(schema, siblings, key, &entry.key, what);
                    false
                }
                Some(inner) if inner.is_object() => {
                    let named = match names.and_then(|names| names.get("format")).and_then(Json::as_str) {
                        Some(format) => self.format(format, key, entry.key.clone(), what),
                        None => true,
                    };
                    self.visit(inner, &mut entry.node, &format!("`{key}`")) && named
                }
                _ => true,
            }
        });
        let pruned = entries.len() < before;
        for key in needed {
            if entries.contains_key(key) {
                continue;
            }
            let inner = properties.and_then(|properties| properties.get(key));
            let hint = inner.and_then(|inner| self.example(key, inner));
            if !refused.iter().any(|refused| refused == key) {
                self.problems.error(Some(span.clone()), format!("{what} has no `{key}`")).hint_if(hint);
            }
            match inner.and_then(|inner| self.stand_in(inner)) {
                Some(value) => {
                    let node = Node::new(span.clone(), value);
                    entries.insert(key.to_owned(), Entry { key: span.clone(), node });
                }
                None => usable = false,
            }
        }
        node.pruned |= pruned;
        usable
    }

    fn unknown_key(&mut self, schema: &Schema, siblings: &[&Schema], key: &str, at: &Range<usize>, what: &str) {
        if let Some(why) = schema.get("x-not-yet").and_then(|keys| keys.get(key)).and_then(Json::as_str) {
            self.problems.error(Some(at.clone()), format!("`{key}` is not supported yet")).hint(why);
            return;
        }
        let known = || schema.get("properties").and_then(Json::as_object).into_iter().flat_map(Map::keys);
        let owners = siblings.iter().filter(|one| {
            one.get("properties").and_then(Json::as_object).is_some_and(|properties| properties.contains_key(key))
        });
        let owners: Vec<&str> =
            tag(siblings).map(|tag| owners.filter_map(|one| tag_word(one, tag)).collect()).unwrap_or_default();
        let hint = match closest(key, known().map(String::as_str)) {
            Some(near) => format!("did you mean `{near}`?"),
            None if !owners.is_empty() => format!("it belongs to {}", list(owners, "and")),
            None => format!("known here: {}", list(known().map(String::as_str), "and")),
        };
        self.problems.error(Some(at.clone()), format!("{what} has an unknown key `{key}`")).hint(hint);
    }

    /// How the missing key could be written.
    fn example(&self, key: &str, schema: &'a Json) -> Option<String> {
        let schema = self.resolve(schema)?;
        if let Some(hint) = schema.get("x-hint").and_then(Json::as_str) {
            return Some(hint.to_owned());
        }
        let alternatives = self.alternatives(schema);
        let words: Vec<&str> = alternatives.iter().flat_map(|one| constants(one)).collect();
        if !words.is_empty() {
            return Some(format!(
                "add {key} = {}",
                words.iter().map(|word| format!("\"{word}\"")).collect::<Vec<_>>().join(" or ")
            ));
        }
        match (key, schema.get("type").and_then(Json::as_str)) {
            ("format", _) => Some(format!("add format = {FORMAT} as the first line")),
            (_, Some("string")) => Some(format!("add {key} = \"…\"")),
            _ => None,
        }
    }

    /// A value that lets the rest be checked where a required one is missing. Checks of meaning pass over empty text.
    fn stand_in(&self, schema: &'a Json) -> Option<Value> {
        let schema = self.resolve(schema)?;
        if schema.contains_key("anyOf") || schema.contains_key("oneOf") {
            let alternatives = self.alternatives(schema);
            return alternatives.iter().find(|one| types(one).contains(&"string")).map(|one| stand_in_text(one));
        }
        match schema.get("type").and_then(Json::as_str)? {
            "string" => Some(stand_in_text(schema)),
            "integer" => Some(Value::Integer(schema.get("minimum").and_then(Json::as_i64).unwrap_or(0))),
            "array" => Some(Value::List(Vec::new())),
            "object" => {
                let properties = schema.get("properties").and_then(Json::as_object);
                let entries = required(schema).map(|key| {
                    let value = self.stand_in(properties?.get(key)?)?;
                    Some((key.to_owned(), Entry { key: 0..0, node: Node::new(0..0, value) }))
                });
                entries.collect::<Option<_>>().map(Value::Table)
            }
            _ => None,
        }
    }
}

fn stand_in_text(schema: &Schema) -> Value {
    let format = schema.get("format").and_then(Json::as_str);
    let text = constants(schema).first().copied().unwrap_or(if format == Some("lasting") { "1s" } else { "" });
    Value::Text(text.to_owned())
}

/// The types a schema takes, in its own words.
fn types(schema: &Schema) -> Vec<&str> {
    match schema.get("type") {
        Some(Json::String(one)) => vec![one],
        Some(Json::Array(several)) => several.iter().filter_map(Json::as_str).collect(),
        _ if !constants(schema).is_empty() => vec!["string"],
        _ => Vec::new(),
    }
}

fn accepts(schema: &Schema, value: &Value) -> bool {
    if let Some(only) = schema.get("const").and_then(Json::as_bool) {
        return *value == Value::Bool(only);
    }
    let types = types(schema);
    types.is_empty()
        || types.iter().any(|word| {
            matches!(
                (*word, value),
                ("string", Value::Text(_))
                    | ("integer" | "number", Value::Integer(_))
                    | ("number", Value::Float(_))
                    | ("boolean", Value::Bool(_))
                    | ("array", Value::List(_))
                    | ("object", Value::Table(_))
            )
        })
}

fn constants(schema: &Schema) -> Vec<&str> {
    match (schema.get("const"), schema.get("enum")) {
        (Some(Json::String(only)), _) => vec![only],
        (_, Some(Json::Array(several))) => several.iter().filter_map(Json::as_str).collect(),
        _ => Vec::new(),
    }
}

fn required(schema: &Schema) -> impl Iterator<Item = &str> {
    schema.get("required").and_then(Json::as_array).into_iter().flatten().filter_map(Json::as_str)
}

/// The key by which several tables are told apart.
fn tag<'s>(schemas: &[&'s Schema]) -> Option<&'s str> {
    let first = schemas.first().filter(|_| schemas.len() > 1)?;
    required(first).find(|key| schemas.iter().all(|one| tag_word(one, key).is_some()))
}

fn tag_word<'s>(schema: &'s Schema, tag: &str) -> Option<&'s str> {
    schema.get("properties")?.get(tag)?.get("const")?.as_str()
}

/// What a schema takes, with an article.
fn noun(schema: &Schema) -> String {
    if let Some(only) = schema.get("const").and_then(Json::as_bool) {
        return only.to_string();
    }
    if let [word] = constants(schema).as_slice() {
        return format!("`\"{word}\"`");
    }
    if schema.get("format").is_some_and(|format| format == "lasting") {
        return "a duration in quotes".to_owned();
    }
    let nouns: Vec<&str> = types(schema)
        .into_iter()
        .map(|word| match word {
            "string" => "a string",
            "integer" => "a whole number",
            "number" => "a number",
            "boolean" => "true or false",
            "array" => "a list",
            "object" => "a table",
            other => other,
        })
        .collect();
    nouns.join(" or ")
}

fn type_hint(alternatives: &[&Schema], value: &Value) -> Option<String> {
    let takes = |word: &str| alternatives.iter().any(|one| types(one).contains(&word));
    let lasting = alternatives.iter().any(|one| one.get("format").is_some_and(|format| format == "lasting"));
    match value {
        Value::Integer(number) if lasting => {
            Some(format!("write the unit: \"{number}s\", \"{number}m\" or \"{number}h\""))
        }
        Value::Time(text) if takes("string") => Some(format!("put it in quotes: \"{text}\"")),
        Value::Integer(number) if takes("string") => Some(format!("put it in quotes: \"{number}\"")),
        Value::Bool(yes) if takes("string") => Some(format!("put it in quotes: \"{yes}\"")),
        Value::Text(text) if takes("array") => Some(format!("put it in brackets: [\"{text}\"]")),
        Value::Text(text) if takes("integer") && text.parse::<i64>().is_ok() => {
            Some(format!("leave the quotes away: {text}"))
        }
        Value::Text(text) if takes("boolean") && ["true", "false"].contains(&text.as_str()) => {
            Some(format!("leave the quotes away: {text}"))
        }
        Value::Table(_) if takes("array") => Some("a list of tables is written [[name]], or [{ … }]".to_owned()),
        Value::List(_) if takes("object") => Some("a table is written [name], or { key = value }".to_owned()),
        _ => None,
    }
}

fn with_example(rule: &str, example: &str) -> String {
    match example.is_empty() {
        true => format!("use {rule}"),
        false => format!("use {rule}: `{example}`"),
    }
}
