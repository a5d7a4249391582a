//! What is wrong with a file, all of it: line, caret, hint.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use miette::{
    Diagnostic, GraphicalReportHandler, GraphicalTheme, LabeledSpan, MietteError, MietteSpanContents, SourceCode,
    SourceSpan, SpanContents, ThemeCharacters, ThemeStyles,
};
use serde::Serialize;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    Error,
    /// The file loads, but a person should look.
    Warning,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    pub severity: Severity,
    pub message: String,
    /// What to write instead.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// Counted from 1; absent when the file as a whole is meant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<usize>,
    /// In characters, counted from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub column: Option<usize>,
    /// Bytes of the source.
    #[serde(skip)]
    pub span: Option<Range<usize>>,
}

impl Problem {
    pub fn hint(&mut self, hint: impl Into<String>) -> &mut Self {
        self.hint = Some(mask_passwords(&hint.into()));
        self
    }

    pub fn hint_if(&mut self, hint: Option<impl Into<String>>) -> &mut Self {
        match hint {
            Some(hint) => self.hint(hint),
            None => self,
        }
    }
}

/// Nobody reads on; the rest is counted. A file made of complaints must not take hours.
const MOST: usize = 200;

/// The problems of one file; in JSON `{ file, problems: [{ severity, message, hint, line, column }], unlisted }`. Passwords
/// in URLs are masked wherever the file's words are repeated.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problems {
    /// The file's name as the user gave it.
    pub file: String,
    /// The file's text, passwords in URLs masked: it is shown around each caret.
    #[serde(skip)]
    pub source: Arc<str>,
    #[serde(rename = "problems")]
    pub list: Vec<Problem>,
    /// Errors and warnings that were found when the list was full.
    #[serde(skip_serializing_if = "Unlisted::is_empty")]
    pub unlisted: Unlisted,
    /// The newest of them.
    #[serde(skip)]
    spare: Option<Box<Problem>>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Unlisted {
    pub errors: usize,
    pub warnings: usize,
}

impl Unlisted {
    fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// How problems are drawn.
#[derive(Debug, Clone, Copy)]
pub struct Look {
    pub colour: bool,
    /// Lines and arrows beyond ASCII.
    pub unicode: bool,
    /// Columns.
    pub width: usize,
}

impl Default for Look {
    fn default() -> Self {
        Self { colour: false, unicode: true, width: 100 }
    }
}

impl Problems {
    pub fn new(file: &str, source: &str) -> Self {
        Self {
            file: file.to_owned(),
            source: mask_passwords(source).into(),
            list: Vec::new(),
            unlisted: Unlisted::default(),
            spare: None,
        }
    }

    pub fn error(&mut self, span: Option<Range<usize>>, message: impl Into<String>) -> &mut Problem {
        self.add(Severity::Error, span, message.into())
    }

    pub fn warning(&mut self, span: Option<Range<usize>>, message: impl Into<String>) -> &mut Problem {
        self.add(Severity::Warning, span, message.into())
    }

    /// What comes now is only counted.
    pub fn is_full(&self) -> bool {
        self.list.len() >= MOST
    }

    fn add(&mut self, severity: Severity, span: Option<Range<usize>>, message: String) -> &mut Problem {
        if self.is_full() {
            match severity {
                Severity::Error => self.unlisted.errors += 1,
                Severity::Warning => self.unlisted.warnings += 1,
            }
            let problem = Problem { severity, message, hint: None, line: None, column: None, span: None };
            return self.spare.insert(problem.into());
        }
        let span = span.map(|span| self.visible(span));
        let (line, column) = match &span {
            Some(span) => {
                let before = &self.source[..span.start];
                let begin = before.rfind('\n').map_or(0, |at| at + 1);
                (Some(before.matches('\n').count() + 1), Some(before[begin..].chars().count() + 1))
            }
            None => (None, None),
        };
        let message = mask_passwords(&message);
        self.list.push(Problem { severity, message, hint: None, line, column, span });
        let last = self.list.len() - 1;
        &mut self.list[last]
    }

    /// The span on character borders, inside the source, and on one line: a caret under a page of text helps nobody.
    fn visible(&self, span: Range<usize>) -> Range<usize> {
        let mut start = span.start.min(self.source.len());
        while !self.source.is_char_boundary(start) {
            start -= 1;
        }
        let line_end = self.source[start..].find('\n').map_or(self.source.len(), |at| start + at);
        let mut end = span.end.clamp(start, line_end);
        while !self.source.is_char_boundary(end) {
            end -= 1;
        }
        start..end
    }

    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    pub fn has_errors(&self) -> bool {
        self.errors() > 0
    }

    pub fn errors(&self) -> usize {
        self.of(Severity::Error) + self.unlisted.errors
    }

    pub fn warnings(&self) -> usize {
        self.of(Severity::Warning) + self.unlisted.warnings
    }

    fn of(&self, severity: Severity) -> usize {
        self.list.iter().filter(|problem| problem.severity == severity).count()
    }

    /// In the order of the file; those without a place first. The same complaint about the same place stands once.
    pub fn sort(&mut self) {
        self.list.sort_by_key(|problem| problem.span.as_ref().map_or((0, 0), |span| (1, span.start)));
        self.list.dedup();
    }

    /// Each problem with its line and caret, and a last line that counts them.
    pub fn render(&self, look: &Look) -> String {
        let theme = GraphicalTheme {
            characters: if look.unicode { ThemeCharacters::unicode() } else { ThemeCharacters::ascii() },
            styles: if look.colour { ThemeStyles::ansi() } else { ThemeStyles::none() },
        };
        let handler = GraphicalReportHandler::new_themed(theme)
            .with_width(look.width)
            .with_links(false)
            .with_context_lines(1)
            .without_syntax_highlighting();
        let mut out = String::new();
        for problem in &self.list {
            let report = Report { problem, around: Around { problems: self, problem } };
            // Writing into a string fails only when the source cannot be read, and then the message alone must do.
            if handler.render_report(&mut out, &report).is_err() {
                out.push_str(&format!("{report}\n"));
            }
            out.push('\n');
        }
        out.push_str(&self.count());
        out.push('\n');
        out
    }

    /// `runbook.toml: 2 errors, 1 warning`
    pub fn count(&self) -> String {
        let part = |n: usize, noun: &str| match n {
            0 => None,
            1 => Some(format!("1 {noun}")),
            n => Some(format!("{n} {noun}s")),
        };
        let parts: Vec<_> =
            [part(self.errors(), "error"), part(self.warnings(), "warning")].into_iter().flatten().collect();
        let listed = match self.unlisted.is_empty() {
            true => String::new(),
            false => format!("; {} of them are listed", self.list.len()),
        };
        match parts.is_empty() {
            true => format!("{}: no problems", self.file),
            false => format!("{}: {}{listed}", self.file, parts.join(", ")),
        }
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(&Look::default()))
    }
}

impl std::error::Error for Problems {}

/// One problem as miette sees it.
struct Report<'a> {
    problem: &'a Problem,
    around: Around<'a>,
}

/// The lines around a problem: miette reads a source from its beginning, for every problem and several times.
struct Around<'a> {
    problems: &'a Problems,
    problem: &'a Problem,
}

impl SourceCode for Around<'_> {
    fn read_span<'a>(
        &'a self,
        span: &SourceSpan,
        before: usize,
        after: usize,
    ) -> Result<Box<dyn SpanContents<'a> + 'a>, MietteError> {
        let source = &*self.problems.source;
        let start = span.offset().min(source.len());
        let ends = source.as_bytes()[..start].iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n');
        let ends: Vec<usize> = ends.map(|(at, _)| at).take(before + 1).collect();
        let from = ends.get(before).map_or(0, |end| end + 1);
        let lines = ends.len().min(before);
        let inner = (start - from, span.len()).into();
        let found = SourceCode::read_span(&source.as_bytes()[from..], &inner, before, after)?;
        let earlier = self.problem.line.unwrap_or(1).saturating_sub(1 + lines);
        Ok(Box::new(MietteSpanContents::new_named(
            self.problems.file.clone(),
            found.data(),
            (found.span().offset() + from, found.span().len()).into(),
            found.line() + earlier,
            found.column(),
            found.line_count() + earlier,
        )))
    }
}

impl fmt::Debug for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.problem.message)
    }
}

impl std::error::Error for Report<'_> {}

impl Diagnostic for Report<'_> {
    fn severity(&self) -> Option<miette::Severity> {
        Some(match self.problem.severity {
            Severity::Error => miette::Severity::Error,
            Severity::Warning => miette::Severity::Warning,
        })
    }

    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        self.problem.hint.as_ref().map(|hint| Box::new(hint) as _)
    }

    fn source_code(&self) -> Option<&dyn miette::SourceCode> {
        self.problem.span.as_ref().map(|_| &self.around as _)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        let span = self.problem.span.clone()?;
        Some(Box::new(std::iter::once(LabeledSpan::new_with_span(None, span))))
    }
}

/// Replaces what stands between `://user:` and the last `@`, and what follows `password=` or the name of a key, by as many asterisks, byte for
/// byte, so that every span stays right. Rather too much than too little: a password may hold an `@` or a `/`.
fn mask_passwords(source: &str) -> String {
    let mut out = source.as_bytes().to_vec();
    let until = |from: usize, ends: &[char]| {
        let rest = &source[from..];
        from + rest.find(|c: char| c == '\n' || ends.contains(&c)).unwrap_or(rest.len())
    };
    let mut done = 0;
    for (at, found) in source.match_indices("://") {
        // Within an URL that was looked at: what follows its first colon is masked already.
        if at < done {
            continue;
        }
        let begin = at + found.len();
        done = until(begin, &[' ', '\t', '\'', '"', '`']);
        let text = &source[begin..done];
        if let (Some(colon), Some(host)) = (text.find(':'), text.rfind('@'))
            && colon < host
        {
            out[begin + colon + 1..begin + host].fill(b'*');
        }
    }
    // Who knows the address of such a hook may post.
    done = 0;
    for (at, found) in source.match_indices("//hooks.slack.com/") {
        let begin = at + found.len();
        if begin >= done {
            done = until(begin, &[' ', '\t', '\'', '"']);
            out[begin..done].fill(b'*');
        }
    }
    let lower = source.to_ascii_lowercase();
    let words = [
        "password",
        "secret_key",
        "session_token",
        "account_key",
        "sas_token",
        "service_account",
        "routing_key",
        "authorization",
    ];
    for word in words {
        let mut done = 0;
        for (at, found) in lower.match_indices(word) {
            let rest = &source[at + found.len()..];
            let value = rest.trim_start_matches([' ', '\t']);
            let Some(value) = value.strip_prefix('=') else { continue };
            let value = value.trim_start_matches([' ', '\t']);
            let begin = source.len() - value.len();
            match value.chars().next() {
                // Where to find it.
                Some('{') => {}
                Some(quote @ ('"' | '\'')) => out[begin + 1..until(begin + 1, &[quote])].fill(b'*'),
                // Within a value that is masked already.
                _ if begin < done => {}
                _ => {
                    done = until(begin, &[' ', '\t', '&', '\'', '"']);
                    out[begin..done].fill(b'*');
                }
            }
        }
    }
    String::from_utf8(out).expect("whole characters were replaced by ASCII")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_not_shown_and_no_byte_moves() {
        for source in [
            "url = \"postgres://app:pä:ssw0rd/ssw0rd@ssw0rd@host/db\" # a",
            "redis://:ssw0rd@h:1/0",
            "host=db password=ssw0rd&x",
            "PGPASSWORD = 'ssw0rd' # and\nlater",
            "password = \"ssw0rd, ssw0rd",
            "secret_key = \"ssw0rd\"\nsession_token='ssw0rd'",
            "url = \"https://hooks.slack.com/services/T0/ssw0rd\"\nrouting_key = \"ssw0rd\" # and\nauthorization='ssw0rd'",
        ] {
            let masked = mask_passwords(source);
            assert_eq!(masked.len(), source.len());
            assert!(!masked.contains("ssw0rd"), "{masked}");
        }
        let innocent = "http://127.0.0.1:8080/health passwords are = \"here\", a: b@c secret_key = { env = \"X\" }";
        assert_eq!(mask_passwords(innocent), innocent);
    }

    #[test]
    fn a_file_made_of_complaints_is_answered_and_not_worked_on_for_hours() {
        let mut problems = Problems::new("f", &"x\n".repeat(100_000));
        for line in 0..100_000 {
            problems.error(Some(2 * line..2 * line + 1), "no").hint("yes");
        }
        problems.warning(None, "odd");
        assert_eq!((problems.errors(), problems.warnings(), problems.list.len()), (100_000, 1, MOST));
        assert!(problems.has_errors());
        let said = problems.render(&Look::default());
        assert!(said.ends_with("f: 100000 errors, 1 warning; 200 of them are listed\n"), "{said}");
        for one in ["a://b:c@", "password=", "password = \"", "://"] {
            assert_eq!(mask_passwords(&one.repeat(100_000)).len(), one.len() * 100_000);
        }
    }

    #[test]
    fn the_lines_around_a_problem_are_those_of_the_file() {
        let source = "a = 1\nb = 2\nc = x\nd = 4\ne = 5";
        let whole = miette::NamedSource::new("f", source);
        for start in 0..source.len() {
            let mut problems = Problems::new("f", source);
            problems.error(Some(start..start + 1), "x");
            let around = Around { problems: &problems, problem: &problems.list[0] };
            let span = problems.list[0].span.clone().map(|span| (span.start, span.len()).into()).unwrap();
            for (before, after) in [(0, 0), (1, 1), (2, 1), (9, 9)] {
                let [ours, miettes] =
                    [&around as &dyn SourceCode, &whole].map(|source| source.read_span(&span, before, after).unwrap());
                assert_eq!(ours.data(), miettes.data());
                assert_eq!(ours.span(), miettes.span());
                assert_eq!(
                    (ours.line(), ours.column(), ours.name()),
                    (miettes.line(), miettes.column(), miettes.name())
                );
            }
        }
    }

    #[test]
    fn a_place_is_a_line_and_a_column_in_characters() {
        let mut problems = Problems::new("f", "a = 1\nü = x\n");
        problems.error(Some(11..12), "x");
        assert_eq!((problems.list[0].line, problems.list[0].column), (Some(2), Some(5)));
        problems.error(Some(7..400), "inside a character, beyond the end");
        assert_eq!(problems.list[1].span, Some(6..12));
    }
}
