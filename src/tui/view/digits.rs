//! Digits that can be read across a room.

use ratatui::style::{Modifier, Style};
use ratatui::text::{Line, Span};

/// Three columns and five rows of pixels a digit, a bit a pixel, the top row first.
const DIGITS: [[u8; 5]; 10] = [
    [0b111, 0b101, 0b101, 0b101, 0b111],
    [0b001, 0b001, 0b001, 0b001, 0b001],
    [0b111, 0b001, 0b111, 0b100, 0b111],
    [0b111, 0b001, 0b111, 0b001, 0b111],
    [0b101, 0b101, 0b111, 0b001, 0b001],
    [0b111, 0b100, 0b111, 0b001, 0b111],
    [0b111, 0b100, 0b111, 0b101, 0b111],
    [0b111, 0b001, 0b001, 0b001, 0b001],
    [0b111, 0b101, 0b111, 0b101, 0b111],
    [0b111, 0b101, 0b111, 0b001, 0b111],
];

const COLON: [u8; 5] = [0b0, 0b1, 0b0, 0b1, 0b0];

/// A clock such as `00:07:41` as big as fits into `columns` and a pane of `height` rows; `None` when only plain text fits.
pub(super) fn rows(text: &str, style: Style, columns: usize, height: usize, ascii: bool) -> Option<Vec<Line<'static>>> {
    let size = SIZES.iter().filter(|size| height >= size.pane).find(|size| cells(text, size.columns) <= columns)?;
    if ascii && size.rows[1] == 1 {
        return None;
    }
    // Without half blocks a pixel is a whole cell, and five rows are enough.
    let heights = if ascii { [1; 5] } else { size.rows };
    let style = Style { add_modifier: style.add_modifier - Modifier::UNDERLINED, ..style };
    let pixels: Vec<String> =
        (0..5).flat_map(|row| std::iter::repeat_n(pixel_row(text, row, size.columns), heights[row])).collect();
    let rows: Vec<String> = match ascii {
        true => pixels,
        false => pixels.chunks(2).map(|pair| halves(&pair[0], pair.get(1))).collect(),
    };
    Some(rows.into_iter().map(|row| Line::from(Span::styled(row, style))).collect())
}

struct Size {
    /// Cells of a pixel on the left, in the middle and on the right of a digit.
    columns: [usize; 3],
    /// Half rows of each row of pixels.
    rows: [usize; 5],
    /// The least height of the pane.
    pane: usize,
}

const SIZES: [Size; 3] = [
    Size { columns: [1, 3, 1], rows: [1, 3, 1, 3, 1], pane: 36 },
    Size { columns: [1, 2, 1], rows: [1; 5], pane: 24 },
    Size { columns: [1, 1, 1], rows: [1; 5], pane: 24 },
];

fn cells(text: &str, widths: [usize; 3]) -> usize {
    text.chars().map(|c| if c == ':' { 1 } else { widths.iter().sum() }).sum::<usize>() + text.len() - 1
}

/// One row of pixels: `#` and spaces, one space between glyphs.
fn pixel_row(text: &str, row: usize, widths: [usize; 3]) -> String {
    let glyph = |c: char| match c.to_digit(10) {
        Some(digit) => {
            let bits = DIGITS[digit as usize][row];
            (0..3).map(|x| if bits >> (2 - x) & 1 == 1 { "#" } else { " " }.repeat(widths[x])).collect::<String>()
        }
        None => if COLON[row] == 1 { "#" } else { " " }.to_owned(),
    };
    text.chars().map(glyph).collect::<Vec<_>>().join(" ")
}

fn halves(upper: &str, lower: Option<&String>) -> String {
    let lower = lower.map_or("", String::as_str).chars().chain(std::iter::repeat(' '));
    let cell = |(upper, lower)| match (upper, lower) {
        ('#', '#') => '█',
        ('#', _) => '▀',
        (_, '#') => '▄',
        _ => ' ',
    };
    upper.chars().zip(lower).map(cell).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_is_as_big_as_fits() {
        let size = |columns, height, ascii| {
            rows("00:07:41", Style::new(), columns, height, ascii).map(|rows| (rows[0].width(), rows.len()))
        };
        assert_eq!(size(40, 44, false), Some((39, 5)));
        assert_eq!(size(38, 44, false), Some((33, 3)));
        assert_eq!(size(28, 30, false), Some((27, 3)));
        assert_eq!(size(26, 44, false), None);
        assert_eq!(size(40, 44, true), Some((39, 5)));
        assert_eq!(size(38, 44, true), None);
    }

    #[test]
    fn digits_look_like_themselves() {
        let drawn = rows("12:4", Style::new(), 14, 30, false).unwrap();
        let text: Vec<String> = drawn.iter().map(|row| row.spans[0].content.to_string()).collect();
        assert_eq!(text, ["  █ ▀▀█ ▄ █ █", "  █ █▀▀ ▄ ▀▀█", "  ▀ ▀▀▀     ▀"]);
    }
}
