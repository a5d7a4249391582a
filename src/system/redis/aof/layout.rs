//! The manifest of a multi-part append-only file, as Redis 7.0 and later keep it: `file NAME seq N type b|h|i`.

/// One file of the set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    pub name: String,
    pub seq: u64,
    pub kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Base,
    /// No longer in use; Redis removes it soon.
    History,
    Incremental,
}

/// The parts in the order of the manifest; the error says which line is wrong.
pub fn parse(text: &str) -> Result<Vec<Part>, String> {
    text.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#')).map(part).collect()
}

fn part(line: &str) -> Result<Part, String> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let ["file", name, "seq", seq, "type", kind] = words[..] else { return Err(format!("`{line}` is no entry")) };
    // A name with a space is quoted, and one with a slash leads elsewhere.
    if name.contains(['/', '"', '\\']) || name.starts_with('.') {
        return Err(format!("`{name}` is no plain file name"));
    }
    let kind = match kind {
        "b" => Kind::Base,
        "h" => Kind::History,
        "i" => Kind::Incremental,
        other => return Err(format!("`{other}` is no type of a part")),
    };
    let seq = seq.parse().map_err(|_| format!("`{seq}` is no sequence number"))?;
    Ok(Part { name: name.to_owned(), seq, kind })
}

/// As Redis writes it.
pub fn write<'a>(parts: impl Iterator<Item = (&'a str, u64, Kind)>) -> String {
    let line = |(name, seq, kind): (&str, u64, Kind)| {
        let kind = match kind {
            Kind::Base => 'b',
            Kind::History => 'h',
            Kind::Incremental => 'i',
        };
        format!("file {name} seq {seq} type {kind}\n")
    };
    parts.map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_redis_writes_is_read_and_written_again() {
        let text = "file a.1.base.rdb seq 1 type b\nfile a.0.incr.aof seq 0 type h\nfile a.1.incr.aof seq 1 type i\n";
        let parts = parse(text).unwrap();
        assert_eq!(
            parts.iter().map(|part| part.kind).collect::<Vec<_>>(),
            [Kind::Base, Kind::History, Kind::Incremental]
        );
        assert_eq!(write(parts.iter().map(|part| (part.name.as_str(), part.seq, part.kind))), text);
    }

    #[test]
    fn a_name_that_leads_elsewhere_is_refused() {
        for line in [
            "file ../a seq 1 type i",
            "file /a seq 1 type i",
            "file \"a b\" seq 1 type i",
            "file .. seq 1 type i",
            "file a seq -1 type i",
            "file a seq 1 type x",
            "file a",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
    }
}
