//! Reads an append-only file as far as a cut must know it: where commands end, and where `#TS:` annotations stand. Values
//! are walked over, not kept.
//!
//! Redis writes `#TS:<seconds since 1970>` before the first command of a second: everything behind one annotation and
//! before the next was executed in the first one's second, or later by less than the time to the next write.

use std::io::{BufRead, Read as _};

/// The longest line that is not a value: a length, a name, an annotation. Redis' own limit for annotations.
const LINE: u64 = 1024;

/// Where a second begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    /// Seconds since 1970, by the server's clock.
    pub second: i64,
    /// Bytes before the annotation.
    pub offset: u64,
    /// Commands before it.
    pub commands: u64,
}

/// What an append-only file holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Scan {
    /// Bytes of whole commands and whole transactions.
    pub bytes: u64,
    /// Bytes behind them: a command, or a transaction, that was cut off.
    pub torn: u64,
    pub commands: u64,
    /// One more than the highest database that is selected. A server with fewer would not fail: it would load what
    /// follows into the wrong one.
    pub databases: u32,
    /// In the order of the file, those of the torn end left out.
    pub marks: Vec<Mark>,
}

impl Scan {
    /// The first annotation later than `second`: there the file is cut.
    pub fn after(&self, second: i64) -> Option<Mark> {
        self.marks.iter().copied().find(|mark| mark.second > second)
    }

    /// Whether every command stands behind an annotation.
    pub fn dated(&self) -> bool {
        self.commands == 0 || self.marks.first().is_some_and(|mark| mark.offset == 0)
    }
}

#[derive(Debug, thiserror::Error)]
pub enum ScanError {
    #[error("reading failed at byte {offset}: {source}")]
    Read { offset: u64, source: std::io::Error },
    #[error("it is damaged at byte {offset}: {what}")]
    Damaged { offset: u64, what: String },
}

/// Reads to the end. A last command that is not whole is told as torn; anything else that is no command is damage.
pub fn scan(reader: impl BufRead) -> Result<Scan, ScanError> {
    let mut scanner = Scanner { reader, offset: 0 };
    let (mut scan, mut commands, mut transaction) = (Scan::default(), 0, false);
    loop {
        let begin = scanner.offset;
        match scanner.item()? {
            Item::End => break,
            Item::Torn => break,
            Item::Annotation(None) => {}
            Item::Annotation(Some(second)) => scan.marks.push(Mark { second, offset: begin, commands }),
            Item::Command(name, argument) => {
                commands += 1;
                match name.to_ascii_uppercase().as_slice() {
                    b"SELECT" => {
                        let db = number(&argument).and_then(|db| u32::try_from(db).ok()).filter(|db| *db < u32::MAX);
                        let db = db.ok_or_else(|| damaged(begin, "it selects no database"))?;
                        scan.databases = scan.databases.max(db + 1);
                    }
                    b"MULTI" => transaction = true,
                    b"EXEC" => transaction = false,
                    _ => {}
                }
            }
        }
        if !transaction {
            (scan.bytes, scan.commands) = (scanner.offset, commands);
        }
    }
    scan.torn = scanner.offset - scan.bytes;
    scan.marks.retain(|mark| mark.offset < scan.bytes);
    Ok(scan)
}

enum Item {
    End,
    Torn,
    /// With its second, when it tells one.
    Annotation(Option<i64>),
    /// With the heads of its name and of its first argument.
    Command(Vec<u8>, Vec<u8>),
}

struct Scanner<R> {
    reader: R,
    offset: u64,
}

impl<R: BufRead> Scanner<R> {
    fn item(&mut self) -> Result<Item, ScanError> {
        let begin = self.offset;
        let Some(line) = self.line()? else {
            return Ok(if self.offset == begin { Item::End } else { Item::Torn });
        };
        if let Some(annotation) = line.strip_prefix(b"#") {
            let second = annotation.strip_prefix(b"TS:").map(|digits| number(digits).ok_or(()));
            let second = second.transpose().map_err(|()| damaged(begin, "an annotation's time is no number"))?;
            return Ok(Item::Annotation(second));
        }
        let count = line.strip_prefix(b"*").and_then(number).filter(|count| *count > 0);
        let count = count.ok_or_else(|| damaged(begin, "no command begins here"))?;
        let mut heads = [Vec::new(), Vec::new(), Vec::new()];
        for index in 0..count {
            let at = self.offset;
            let Some(line) = self.line()? else { return Ok(Item::Torn) };
            let length = line.strip_prefix(b"$").and_then(number).and_then(|length| u64::try_from(length).ok());
            let length = length.ok_or_else(|| damaged(at, "no value's length stands here"))?;
            // Names are short; a longer one is none that matters here.
            let index = usize::try_from(index).map_or(2, |index| index.min(2));
            let kept = if index < 2 { length.min(16) } else { 0 };
            let whole = self.keep(kept, &mut heads[index])? && self.skip(length - kept)?;
            let mut end = Vec::new();
            if !whole || !self.keep(2, &mut end)? {
                return Ok(Item::Torn);
            }
            if end != b"\r\n" {
                return Err(damaged(self.offset - 2, "a value does not end where its length says"));
            }
        }
        let [name, argument, _] = heads;
        Ok(Item::Command(name, argument))
    }

    /// A line without its end; `None` when the file ends before it does.
    fn line(&mut self) -> Result<Option<Vec<u8>>, ScanError> {
        let begin = self.offset;
        let mut line = Vec::new();
        let read = self.reader.by_ref().take(LINE).read_until(b'\n', &mut line);
        self.offset += read.map_err(|source| ScanError::Read { offset: begin, source })? as u64;
        match line.strip_suffix(b"\r\n") {
            Some(line) => Ok(Some(line.to_owned())),
            None if line.ends_with(b"\n") || line.len() as u64 == LINE => Err(damaged(begin, "a line has no end")),
            None => Ok(None),
        }
    }

    /// Whether there were so many bytes.
    fn keep(&mut self, bytes: u64, into: &mut Vec<u8>) -> Result<bool, ScanError> {
        let offset = self.offset;
        let read = self.reader.by_ref().take(bytes).read_to_end(into);
        let read = read.map_err(|source| ScanError::Read { offset, source })? as u64;
        self.offset += read;
        Ok(read == bytes)
    }

    fn skip(&mut self, bytes: u64) -> Result<bool, ScanError> {
        let offset = self.offset;
        let read = std::io::copy(&mut self.reader.by_ref().take(bytes), &mut std::io::sink());
        let read = read.map_err(|source| ScanError::Read { offset, source })?;
        self.offset += read;
        Ok(read == bytes)
    }
}

fn number(digits: &[u8]) -> Option<i64> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}

fn damaged(offset: u64, what: &str) -> ScanError {
    ScanError::Damaged { offset, what: what.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SET: &str = "*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$4\r\nv\r\nv\r\n";

    #[test]
    fn seconds_are_found_where_they_begin_and_a_value_is_no_annotation() {
        let sly = "*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$10\r\n#TS:99\r\n\r\n\r\n";
        let text = format!("#TS:10\r\n{SET}{sly}#TS:12\r\n{SET}");
        let found = scan(text.as_bytes()).unwrap();
        let second = 8 + SET.len() as u64 + sly.len() as u64;
        let mark = |second, offset, commands| Mark { second, offset, commands };
        assert_eq!(found.marks, [mark(10, 0, 0), mark(12, second, 2)]);
        assert_eq!((found.bytes, found.torn, found.commands), (text.len() as u64, 0, 3));
        assert_eq!(found.after(9), Some(mark(10, 0, 0)));
        assert_eq!(found.after(10), Some(mark(12, second, 2)));
        assert_eq!(found.after(12), None);
        assert!(found.dated() && !scan(SET.as_bytes()).unwrap().dated() && scan(&b""[..]).unwrap().dated());
    }

    #[test]
    fn a_torn_end_is_told_wherever_it_is_torn() {
        let whole = format!("#TS:10\r\n{SET}");
        let text = format!("{whole}{SET}");
        for cut in whole.len()..text.len() {
            let found = scan(&text.as_bytes()[..cut]).unwrap();
            assert_eq!((found.bytes, found.torn), (whole.len() as u64, (cut - whole.len()) as u64), "cut at {cut}");
        }
    }

    #[test]
    fn a_transaction_is_whole_or_torn() {
        let (multi, exec) = ("*1\r\n$5\r\nMULTI\r\n", "*1\r\n$4\r\nexec\r\n");
        let found = scan(format!("{SET}#TS:5\r\n{multi}{SET}").as_bytes()).unwrap();
        assert_eq!((found.bytes, found.commands), (SET.len() as u64 + 7, 1));
        assert_eq!(found.torn, (multi.len() + SET.len()) as u64);
        let found = scan(format!("{multi}{SET}{exec}").as_bytes()).unwrap();
        assert_eq!((found.torn, found.commands), (0, 3));
    }

    #[test]
    fn the_highest_database_is_known() {
        let select = |db: &str| format!("*2\r\n$6\r\nselect\r\n${}\r\n{db}\r\n", db.len());
        assert_eq!(scan(format!("{}{SET}{}{SET}", select("20"), select("3")).as_bytes()).unwrap().databases, 21);
        assert_eq!(scan(SET.as_bytes()).unwrap().databases, 0);
        assert!(matches!(scan(select("x").as_bytes()), Err(ScanError::Damaged { offset: 0, .. })));
    }

    #[test]
    fn what_is_no_command_is_damage() {
        for text in ["PING\r\n", "*x\r\n", "*0\r\n", "*1\r\n+OK\r\n", "*1\r\n$2\r\nabcd\r\n", "#TS:soon\r\n", "*1\n"] {
            let found = scan(format!("{SET}{text}").as_bytes());
            assert!(matches!(found, Err(ScanError::Damaged { .. })), "{text:?}: {found:?}");
        }
        let endless = format!("*{}", "1".repeat(2000));
        assert!(matches!(scan(endless.as_bytes()), Err(ScanError::Damaged { offset: 0, .. })));
    }
}
