//! What the files that people write have in common: spanned TOML, a walk of it against the JSON schema that editors use,
//! and problems with line, caret and hint.
//!
//! A file goes through four stages, and a problem in one does not hide the problems of the next: text → [`Node`]s with
//! their places → [`shape`] against the schema, which prunes what cannot be used → serde into dumb `raw` types → the
//! checks of meaning, which find their places again through [`Place`].

mod node;
mod problems;
pub mod schema;
mod shape;
mod suggest;
mod words;

use std::ops::Range;
use std::path::Path;

use serde::de::DeserializeOwned;

pub use node::{Node, Place, Value};
pub use problems::{Look, Problem, Problems, Severity};
pub use suggest::{closest, list, slug};
pub use words::{Argv, Id, Lasting, Name, Scalar, Text, is_id, is_name};

/// The version of the files' format that this program reads.
pub const FORMAT: u32 = 1;

/// A file of at most this many bytes is read; nobody writes a longer one by hand.
const LONGEST: u64 = 1 << 20;

/// Entries of a list or table of a file. The checks of meaning hold every step against every other.
const MOST_ENTRIES: usize = 1_000;

/// A file under examination: what could be read of it, and what is wrong with it so far.
pub struct Document {
    /// As written.
    pub whole: Node,
    /// Without what does not fit the schema.
    pub usable: Node,
    pub problems: Problems,
}

/// The text of a file, or why it cannot be read.
pub fn read(path: &Path) -> Result<String, Problems> {
    let name = path.display().to_string();
    let unreadable = |message: String, hint: &str| {
        let mut problems = Problems::new(&name, "");
        problems.error(None, message).hint(hint);
        problems
    };
    let bytes = match std::fs::metadata(path) {
        Ok(found) if found.is_dir() => {
            return Err(unreadable(format!("{name} is a directory"), "name the file inside it"));
        }
        Ok(found) if found.len() > LONGEST => {
            return Err(unreadable(format!("{name} has {} bytes", found.len()), "is it the right file?"));
        }
        Ok(_) => std::fs::read(path),
        Err(error) => Err(error),
    }
    .map_err(|error| {
        let hint = match error.kind() {
            std::io::ErrorKind::NotFound => "check the path; it is read from the current directory",
            std::io::ErrorKind::PermissionDenied => "check the permissions of the file and of its directories",
            _ => "check the disk and the path",
        };
        unreadable(format!("cannot read {name}: {error}"), hint)
    })?;
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        let line = error.as_bytes()[..at].iter().filter(|byte| **byte == b'\n').count() + 1;
        unreadable(format!("{name} is not UTF-8 text: line {line} holds a byte that is none"), "save the file as UTF-8")
    })
}

impl Document {
    /// Reads `source` and holds it against `schema`. `Err` when no tree could be made: broken TOML, or another format.
    pub fn open(source: &str, name: &str, schema: &serde_json::Value) -> Result<Self, Problems> {
        let mut problems = Problems::new(name, source);
        let whole = node::parse(source, &mut problems);
        if problems.has_errors() {
            problems.sort();
            return Err(problems);
        }
        check_format(&whole, &mut problems)?;
        let mut usable = whole.clone();
        shape::check(schema, &mut usable, &mut problems);
        Ok(Self { whole, usable, problems })
    }

    /// Deserialises what is usable. `None` when nothing is, which the problems then say.
    pub fn raw<T: DeserializeOwned>(&mut self) -> Option<T> {
        match serde_json::from_value(self.usable.to_json()) {
            Ok(raw) => Some(raw),
            Err(error) => {
                if !self.problems.has_errors() {
                    self.problems.error(None, error.to_string());
                }
                None
            }
        }
    }

    /// Where the tree without its unusable parts begins; paths of the raw types lead from here.
    pub fn root(&self) -> Place<'_> {
        Place::of(&self.usable)
    }
}

/// Another format makes every other complaint noise, so it is said alone.
fn check_format(root: &Node, problems: &mut Problems) -> Result<(), Problems> {
    let place = Place::of(root).key("format");
    let Some(Value::Integer(found)) = place.value() else { return Ok(()) };
    if *found == i64::from(FORMAT) {
        return Ok(());
    }
    let hint = if *found > i64::from(FORMAT) {
        "a newer Lifeboat wrote or expects this file; upgrade this one"
    } else {
        "the only format so far is `format = 1`"
    };
    let span: Range<usize> = place.span();
    problems
        .error(Some(span), format!("this file is in format {found}; this program reads format {FORMAT}"))
        .hint(hint);
    Err(std::mem::replace(problems, Problems::new("", "")))
}
