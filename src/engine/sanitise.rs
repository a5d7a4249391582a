//! The one place where a child's bytes become lines for people: no escapes, no control characters, bounded.

use anstream::adapter::StripBytes;

use crate::mutant;

/// Bytes after which a line without a newline is cut.
const LONGEST: usize = 4 * 1024;

/// Turns a stream of bytes into clean lines.
#[derive(Default)]
pub struct Lines {
    strip: StripBytes,
    partial: Vec<u8>,
}

impl Lines {
    /// Takes a chunk, hands on each line that it completes.
    pub fn push(&mut self, chunk: &[u8], mut line: impl FnMut(String)) {
        let mut clean = Vec::with_capacity(chunk.len());
        if mutant::removes("11") {
            clean.extend_from_slice(chunk);
        } else {
            self.strip.strip_next(chunk).for_each(|part| clean.extend_from_slice(part));
        }
        let mut rest = clean.as_slice();
        while !rest.is_empty() {
            let room = LONGEST.saturating_sub(self.partial.len()).max(1);
            let end = rest.iter().position(|b| *b == b'\n');
            match end {
                Some(end) if end <= room => {
                    self.partial.extend_from_slice(&rest[..end]);
                    rest = &rest[end + 1..];
                    line(self.take());
                }
                _ if rest.len() >= room => {
                    self.partial.extend_from_slice(&rest[..room]);
                    rest = &rest[room..];
                    line(self.take());
                }
                _ => {
                    self.partial.extend_from_slice(rest);
                    rest = &[];
                }
            }
        }
    }

    /// The end of the stream: the last line, when it had no newline.
    pub fn finish(&mut self) -> Option<String> {
        (!self.partial.is_empty()).then(|| self.take())
    }

    fn take(&mut self) -> String {
        let line = clean(&String::from_utf8_lossy(&self.partial));
        self.partial.clear();
        line
    }
}

/// One line as it may be shown: what a carriage return had overwritten is gone, tabs are spaces, controls and
/// direction overrides are dropped.
fn clean(line: &str) -> String {
    let line = line.trim_end_matches('\r');
    let line = line.rsplit('\r').next().unwrap_or(line);
    let mut clean = String::with_capacity(line.len());
    for c in line.chars() {
        match c {
            '\t' => clean.push_str("    "),
            c if (c.is_control() || is_invisible(c)) && !mutant::removes("11") => {}
            c => clean.push(c),
        }
    }
    clean
}

/// Characters that change how others are shown without being seen themselves.
fn is_invisible(c: char) -> bool {
    matches!(c, '\u{200B}'..='\u{200F}' | '\u{2028}'..='\u{202E}' | '\u{2060}'..='\u{206F}' | '\u{FEFF}' | '\u{FFF9}'..='\u{FFFB}' | '\u{E0000}'..='\u{E007F}')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(chunks: &[&[u8]]) -> Vec<String> {
        let mut lines = Lines::default();
        let mut out = Vec::new();
        for chunk in chunks {
            lines.push(chunk, |line| out.push(line));
        }
        out.extend(lines.finish());
        out
    }

    #[test]
    fn escapes_are_gone_wherever_they_are_cut() {
        let text = b"\x1b[31mred\x1b[0m \x1b]0;title\x07and\x1b[2J plain\n\x1b]52;c;aGFja2Vk\x1b\\x\n";
        for size in 1..text.len() {
            let chunks: Vec<_> = text.chunks(size).collect();
            assert_eq!(lines(&chunks), ["red and plain", "x"], "chunks of {size}");
        }
    }

    #[test]
    fn a_line_without_end_is_cut() {
        let lines = lines(&[&vec![b'x'; 3 * LONGEST]]);
        assert!(lines.len() >= 3 && lines.iter().all(|line| line.len() <= LONGEST));
    }

    #[test]
    fn controls_overrides_and_broken_utf8_are_tamed() {
        let tamed = lines(&[b"10%\r20%\r\n", "a\u{202E}b\u{200B}\tc\u{7}\n".as_bytes(), b"x\xff\xfey"]);
        assert_eq!(tamed, ["20%", "ab    c", "xy"]);
    }
}
