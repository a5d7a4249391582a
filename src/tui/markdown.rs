//! A runbook's Markdown as rows: paragraphs, headings, lists, code; nothing fancy.

use pulldown_cmark::{Event, HeadingLevel, Parser, Tag, TagEnd};
use ratatui::style::{Modifier, Style};
use ratatui::text::{Line, Span};

use super::text::{clean, wrap};
use super::theme::Theme;

/// The text as rows of at most `columns`.
pub fn rows(text: &str, theme: &Theme, columns: usize) -> Vec<Line<'static>> {
    let mut page = Page {
        theme,
        columns,
        rows: Vec::new(),
        spans: Vec::new(),
        style: vec![theme.base],
        lists: Vec::new(),
        in_code: false,
    };
    // Cleaned before it is parsed: the parser cuts text at brackets, which would tear escape sequences apart.
    let text = text.lines().map(clean).collect::<Vec<_>>().join("\n");
    for event in Parser::new(&text) {
        page.take(event);
    }
    page.flush();
    while page.rows.last().is_some_and(|row| row.spans.is_empty()) {
        page.rows.pop();
    }
    page.rows
}

struct Page<'a> {
    theme: &'a Theme,
    columns: usize,
    rows: Vec<Line<'static>>,
    /// Of the block that is being read.
    spans: Vec<Span<'static>>,
    style: Vec<Style>,
    /// The next number of each open list; bullets have none.
    lists: Vec<Option<u64>>,
    in_code: bool,
}

impl Page<'_> {
    fn take(&mut self, event: Event<'_>) {
        match event {
            Event::Start(tag) => self.start(tag),
            Event::End(tag) => self.end(tag),
            Event::Text(text) if self.in_code => {
                for line in text.lines() {
                    self.spans.push(Span::styled(format!("  {line}"), self.theme.accent));
                    self.flush();
                }
            }
            Event::Text(text) | Event::InlineHtml(text) | Event::Html(text) => self.say(&text, self.top()),
            Event::Code(code) => self.say(&code, self.top().patch(self.theme.accent)),
            Event::SoftBreak => self.say(" ", self.top()),
            Event::HardBreak => self.flush(),
            Event::Rule => self.blank(),
            _ => {}
        }
    }

    fn start(&mut self, tag: Tag<'_>) {
        let top = self.top();
        match tag {
            Tag::Heading { level, .. } => {
                self.blank();
                let under = if level == HeadingLevel::H1 { Modifier::UNDERLINED } else { Modifier::empty() };
                self.style.push(self.theme.strong.add_modifier(under));
            }
            Tag::Paragraph if self.lists.is_empty() => self.blank(),
            Tag::CodeBlock(_) => {
                self.blank();
                self.in_code = true;
            }
            Tag::List(first) => {
                self.flush();
                if self.lists.is_empty() {
                    self.blank();
                }
                self.lists.push(first);
            }
            Tag::Item => {
                self.flush();
                let indent = "  ".repeat(self.lists.len().saturating_sub(1));
                let mark = match self.lists.last_mut() {
                    Some(Some(number)) => {
                        *number += 1;
                        format!("{indent}{}. ", *number - 1)
                    }
                    _ => format!("{indent}• "),
                };
                self.spans.push(Span::styled(mark, self.theme.muted));
            }
            Tag::Strong => self.style.push(top.patch(self.theme.strong)),
            Tag::Emphasis => self.style.push(top.add_modifier(Modifier::ITALIC)),
            _ => {}
        }
    }

    fn end(&mut self, tag: TagEnd) {
        match tag {
            TagEnd::Heading(_) => {
                self.flush();
                self.style.pop();
            }
            TagEnd::Paragraph | TagEnd::Item => self.flush(),
            TagEnd::CodeBlock => self.in_code = false,
            TagEnd::List(_) => {
                self.flush();
                self.lists.pop();
            }
            TagEnd::Strong | TagEnd::Emphasis => {
                self.style.pop();
            }
            _ => {}
        }
    }

    fn top(&self) -> Style {
        self.style.last().copied().unwrap_or(self.theme.base)
    }

    fn say(&mut self, text: &str, style: Style) {
        self.spans.push(Span::styled(text.to_owned(), style));
    }

    fn flush(&mut self) {
        if self.spans.is_empty() {
            return;
        }
        let spans = std::mem::take(&mut self.spans);
        let hang = match self.lists.len() {
            0 => 0,
            _ => spans.first().map_or(0, |mark| super::text::width(&mark.content)),
        };
        self.rows.extend(wrap(Line::from(spans), self.columns, hang));
    }

    /// One empty row before a block, but for the first.
    fn blank(&mut self) {
        self.flush();
        if self.rows.last().is_some_and(|row| !row.spans.is_empty()) {
            self.rows.push(Line::default());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(text: &str, columns: usize) -> Vec<String> {
        let rows = rows(text, &Theme::plain(), columns);
        rows.iter().map(|row| row.spans.iter().map(|s| s.content.as_ref()).collect::<String>()).collect()
    }

    #[test]
    fn blocks_stand_apart_and_lists_hang() {
        let text = "# Look\nFirst *this*,\nthen `that`.\n\n- one thing that is long\n- two\n\n1. first\n2. second\n\n```\nls -l\n```\nEnd.";
        assert_eq!(
            plain(text, 18),
            [
                "Look",
                "",
                "First this, then ",
                "that.",
                "",
                "• one thing that ",
                "  is long",
                "• two",
                "",
                "1. first",
                "2. second",
                "",
                "  ls -l",
                "",
                "End."
            ]
        );
    }

    #[test]
    fn escapes_in_a_runbook_are_not_drawn() {
        assert_eq!(plain("a \u{1b}[2J b", 40), ["a  b"]);
    }
}
