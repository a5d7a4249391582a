//! Text at the drawing edge: nothing that came from outside reaches the terminal as a control, and every row is measured.

use std::borrow::Cow;

use ratatui::style::Style;
use ratatui::text::{Line, Span};
use unicode_width::UnicodeWidthStr;

use crate::mutant;

/// Text without control characters, escape sequences and bidirectional overrides; tabs become spaces.
pub fn clean(text: &str) -> Cow<'_, str> {
    if !text.chars().any(is_unsafe) || mutant::removes("11") || mutant::removes("11b") {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\t' => {
                let column = UnicodeWidthStr::width(out.as_str());
                out.extend(std::iter::repeat_n(' ', 8 - column % 8));
            }
            '\n' | '\r' => out.push(' '),
            '\u{1b}' => skip_escape(&mut chars),
            '\u{9b}' => skip_until_final(&mut chars),
            c if is_unsafe(c) => {}
            c => out.push(c),
        }
    }
    Cow::Owned(out)
}

/// Controls, and the invisible characters that reorder or hide what stands beside them.
pub(super) fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

fn skip_escape(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) {
    match chars.peek() {
        Some('[') => {
            chars.next();
            skip_until_final(chars);
        }
        Some(']' | 'P' | 'X' | '^' | '_') => {
            // A string sequence: up to BEL or ST. One without an end swallows the line, as it would on a terminal.
            while let Some(c) = chars.next() {
                if c == '\u{7}' || c == '\u{9c}' {
                    break;
                }
                if c == '\u{1b}' && chars.peek() == Some(&'\\') {
                    chars.next();
                    break;
                }
            }
        }
        Some(' '..='/') => {
            while chars.next_if(|c| matches!(c, ' '..='/')).is_some() {}
            chars.next();
        }
        Some('0'..='~') => {
            chars.next();
        }
        _ => {}
    }
}

fn skip_until_final(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) {
    for c in chars.by_ref() {
        if !matches!(c, ' '..='?') {
            break;
        }
    }
}

/// A span of cleaned text.
pub(super) fn span(text: impl AsRef<str>, style: Style) -> Span<'static> {
    Span::styled(clean(text.as_ref()).into_owned(), style)
}

pub(super) fn width(text: &str) -> usize {
    UnicodeWidthStr::width(text)
}

pub(super) fn line_width(spans: &[Span<'_>]) -> usize {
    spans.iter().map(|span| width(&span.content)).sum()
}

/// `text` cut to `columns`, with an ellipsis where something is left out.
pub(super) fn fit(text: &str, columns: usize) -> String {
    let mut line = fit_line(Line::from(span(text, Style::new())), columns);
    line.spans.drain(..).map(|span| span.content.into_owned()).collect()
}

/// The line cut to `columns`, with an ellipsis where something is left out.
pub(super) fn fit_line(line: Line<'static>, columns: usize) -> Line<'static> {
    if line_width(&line.spans) <= columns {
        return line;
    }
    if columns == 0 {
        return Line::default();
    }
    let mut spans: Vec<Span<'static>> = Vec::new();
    let mut used = 0;
    for grapheme in line.styled_graphemes(Style::new()) {
        let wide = width(grapheme.symbol);
        if used + wide > columns - 1 {
            push(&mut spans, "…", grapheme.style);
            break;
        }
        push(&mut spans, grapheme.symbol, grapheme.style);
        used += wide;
    }
    Line { spans, ..Line::default() }
}

/// A row of exactly `columns`: `left`, cut if it must be, and `right` at the right edge.
pub(super) fn spread(left: Vec<Span<'static>>, right: Vec<Span<'static>>, columns: usize) -> Line<'static> {
    let right_width = line_width(&right);
    if right_width >= columns {
        return fit_line(Line::from(right), columns);
    }
    let room = columns - right_width - usize::from(right_width > 0);
    let mut line = fit_line(Line::from(left), room);
    let gap = columns - right_width - line_width(&line.spans);
    line.spans.push(Span::raw(" ".repeat(gap)));
    line.spans.extend(right);
    line
}

/// The line broken at words into rows of at most `columns`; rows after the first begin with `hang` spaces.
pub(super) fn wrap(line: Line<'static>, columns: usize, hang: usize) -> Vec<Line<'static>> {
    let columns = columns.max(1);
    let hang = if hang + 8 > columns { 0 } else { hang };
    if line_width(&line.spans) <= columns {
        return vec![line];
    }
    let mut rows = Vec::new();
    let mut row: Vec<Span<'static>> = Vec::new();
    let (mut used, mut blank) = (0, true);
    let mut word: Vec<(String, Style)> = Vec::new();
    let mut word_width = 0;
    let mut flush = |word: &mut Vec<(String, Style)>, word_width: &mut usize, space: Option<Style>| {
        if used + *word_width > columns && !blank {
            rows.push(Line::from(std::mem::take(&mut row)));
            row.push(Span::raw(" ".repeat(hang)));
            (used, blank) = (hang, true);
        }
        for (symbol, style) in word.drain(..) {
            let wide = width(&symbol);
            if used + wide > columns {
                rows.push(Line::from(std::mem::take(&mut row)));
                row.push(Span::raw(" ".repeat(hang)));
                used = hang;
            }
            push(&mut row, &symbol, style);
            used += wide;
            blank = false;
        }
        *word_width = 0;
        if let Some(style) = space
            && used < columns
            && (!blank || rows.is_empty())
        {
            push(&mut row, " ", style);
            used += 1;
        }
    };
    let owned: Vec<(String, Style)> =
        line.styled_graphemes(Style::new()).map(|g| (g.symbol.to_owned(), g.style)).collect();
    for (symbol, style) in owned {
        if symbol == " " {
            flush(&mut word, &mut word_width, Some(style));
        } else {
            word_width += width(&symbol);
            word.push((symbol, style));
        }
    }
    flush(&mut word, &mut word_width, None);
    rows.push(Line::from(row));
    rows
}

/// Text for standard output: cleaned, and where `columns` is known broken at words; rows after the first begin with `hang`
/// spaces.
pub fn hanging(text: &str, columns: Option<usize>, hang: usize) -> String {
    let Some(columns) = columns else { return clean(text).into_owned() };
    let rows = wrap(Line::from(span(text, Style::new())), columns, hang);
    rows.iter().map(ToString::to_string).map(|row| row.trim_end().to_owned()).collect::<Vec<_>>().join("\n")
}

fn push(spans: &mut Vec<Span<'static>>, symbol: &str, style: Style) {
    match spans.last_mut() {
        Some(last) if last.style == style => last.content.to_mut().push_str(symbol),
        _ => spans.push(Span::styled(symbol.to_owned(), style)),
    }
}

/// Single-cell ASCII twins of the signs and rules that the screens use, for terminals without UTF-8.
pub(super) fn twin(symbol: &str) -> &'static str {
    match symbol {
        "✓" => "+",
        "✗" | "×" => "x",
        "▲" => "!",
        "▶" | "→" | "╸" | "›" | "»" => ">",
        "←" | "‹" | "«" => "<",
        "↑" => "^",
        "↓" => "v",
        "○" => "o",
        "◐" => "*",
        "·" => ".",
        "■" | "▓" | "█" | "▇" | "▌" => "#",
        "▆" | "▅" => "=",
        "▄" | "▃" => "-",
        "▂" | "▁" => "_",
        "░" => "-",
        "…" => "~",
        "━" => "=",
        "─" | "–" | "—" | "┄" => "-",
        "│" | "┃" | "┆" => "|",
        "┊" => ":",
        "┼" | "┬" | "┴" | "├" | "┤" | "┌" | "┐" | "└" | "┘" | "┏" | "┓" | "┗" | "┛" => "+",
        "±" => "~",
        "•" => "*",
        "’" | "‘" => "'",
        "“" | "”" => "\"",
        "\u{a0}" | "\u{202f}" => " ",
        _ => "?",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(rows: &[Line<'_>]) -> Vec<String> {
        rows.iter().map(|row| row.spans.iter().map(|s| s.content.as_ref()).collect()).collect()
    }

    #[test]
    fn nothing_that_steers_a_terminal_survives() {
        for (dirty, want) in [
            ("plain", "plain"),
            ("\u{1b}[31mred\u{1b}[0m", "red"),
            ("\u{1b}]0;title\u{7}after", "after"),
            ("\u{1b}]8;;http://x\u{1b}\\link", "link"),
            ("a\u{9b}2Jb", "ab"),
            ("\u{1b}(Bx", "x"),
            ("\u{1b}cx", "x"),
            ("a\tb", "a       b"),
            ("two\r\nlines", "two  lines"),
            ("evil\u{202e}txt", "eviltxt"),
            ("zero\u{200b}width\u{7f}", "zerowidth"),
        ] {
            assert_eq!(clean(dirty), want, "{dirty:?}");
        }
    }

    #[test]
    fn a_line_wraps_at_words_and_hangs() {
        let rows = wrap(Line::from("the quick brown fox jumps over the lazy dog"), 16, 2);
        assert_eq!(plain(&rows), ["the quick brown ", "  fox jumps over", "  the lazy dog"]);
    }

    #[test]
    fn a_word_longer_than_the_row_is_cut() {
        let rows = wrap(Line::from("0123456789abcdef"), 6, 0);
        assert_eq!(plain(&rows), ["012345", "6789ab", "cdef"]);
    }

    #[test]
    fn a_row_is_exactly_as_wide_as_asked() {
        for columns in 0..40 {
            let row = spread(vec![Span::raw("recover orders-db")], vec![Span::raw("02:34")], columns);
            assert_eq!(line_width(&row.spans), columns, "{columns}");
        }
    }
}
