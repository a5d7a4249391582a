//! How a report spells things: clean text, durations, moments, escapes for Markdown.

use chrono::{DateTime, FixedOffset};

/// Drops what could move a cursor, ring a bell or turn the direction of writing; line ends stay.
pub(super) fn clean(text: &str) -> String {
    let visible = |c: &char| match c {
        '\n' | '\t' => true,
        '\u{061c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}' => false,
        c => !c.is_control(),
    };
    text.replace("\r\n", "\n").chars().filter(visible).collect()
}

pub(super) fn clean_value(value: serde_json::Value) -> serde_json::Value {
    use serde_json::Value;
    match value {
        Value::String(text) => Value::String(clean(&text)),
        Value::Array(items) => Value::Array(items.into_iter().map(clean_value).collect()),
        Value::Object(map) => Value::Object(map.into_iter().map(|(k, v)| (clean(&k), clean_value(v))).collect()),
        other => other,
    }
}

/// `0.4 s`, `41 s`, `7 min 41 s`, `1 h 02 min 03 s`, `3 d 04 h 00 min`; `15 min`, `1 h` and `0 s` when it is exactly that.
pub fn duration(seconds: f64) -> String {
    if !seconds.is_finite() {
        return "unknown".to_owned();
    }
    if seconds < 0.0 {
        return format!("−{}", duration(-seconds));
    }
    // Tenths below ten seconds; whole seconds, rounded once, from there on.
    let exact = seconds.fract() == 0.0;
    if seconds < 9.95 && !exact {
        return format!("{seconds:.1} s");
    }
    let whole = seconds.round() as u64;
    let (d, h, m, s) = (whole / 86_400, whole / 3_600 % 24, whole / 60 % 60, whole % 60);
    match (d, h, m) {
        (0, 0, 1..) if exact && s == 0 => format!("{m} min"),
        (0, 1.., 0) if exact && s == 0 => format!("{h} h"),
        (0, 1.., _) if exact && s == 0 => format!("{h} h {m:02} min"),
        (0, 0, 0) => format!("{s} s"),
        (0, 0, _) => format!("{m} min {s:02} s"),
        (0, _, _) => format!("{h} h {m:02} min {s:02} s"),
        _ => format!("{d} d {h:02} h {m:02} min"),
    }
}

/// `00:07:41`, for clocks and columns.
pub(super) fn clock(seconds: f64) -> String {
    let whole = seconds.max(0.0).round() as u64;
    format!("{:02}:{:02}:{:02}", whole / 3_600, whole / 60 % 60, whole % 60)
}

/// `2026-11-21 10:09:14 +01:00`.
pub(super) fn moment(at: DateTime<FixedOffset>) -> String {
    at.format("%Y-%m-%d %H:%M:%S %:z").to_string()
}

/// `10:09:14`.
pub(super) fn time_of_day(at: DateTime<FixedOffset>) -> String {
    at.format("%H:%M:%S").to_string()
}

/// `1.4 GiB`, `312 B`.
pub(super) fn bytes(n: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if n < 1024 {
        return format!("{n} B");
    }
    let mut value = n as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1023.95 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// One line of Markdown in which `text` means nothing but itself, in a table cell too.
pub(super) fn markdown(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 8);
    for c in text.split_whitespace().collect::<Vec<_>>().join(" ").chars() {
        if "\\`*_{}[]<>#|~$&!".contains(c) {
            out.push('\\');
        }
        out.push(c);
    }
    // At the beginning of a line these would start a list or a heading.
    let numbered = out.trim_start_matches(|c: char| c.is_ascii_digit());
    if out.starts_with(['-', '+', '=']) {
        out.insert(0, '\\');
    } else if numbered.len() < out.len()
        && [".", ")"].iter().any(|mark| numbered == *mark || numbered.starts_with(&format!("{mark} ")))
    {
        out.insert(out.len() - numbered.len(), '\\');
    }
    out
}

/// A fenced block whose fence the text cannot close.
pub(super) fn fenced(text: &str) -> String {
    let longest = text.split(|c| c != '`').map(str::len).max().unwrap_or(0);
    let fence = "`".repeat(longest.max(2) + 1);
    format!("{fence}text\n{}\n{fence}", text.trim_end())
}

/// A value of a fact or variable in one line of at most 160 characters.
pub(super) fn value(value: &serde_json::Value) -> String {
    let text = match value {
        serde_json::Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(160) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_people_say_them() {
        for (seconds, text) in [
            (0.0, "0 s"),
            (900.0, "15 min"),
            (899.8, "15 min 00 s"),
            (3_600.0, "1 h"),
            (3_723.0, "1 h 02 min 03 s"),
            (0.44, "0.4 s"),
            (9.94, "9.9 s"),
            (9.96, "10 s"),
            (59.6, "1 min 00 s"),
            (461.0, "7 min 41 s"),
            (3_720.0, "1 h 02 min"),
            (90_000.0, "1 d 01 h 00 min"),
            (-3.5, "−3.5 s"),
            (f64::NAN, "unknown"),
        ] {
            assert_eq!(duration(seconds), text);
        }
        assert_eq!(clock(461.4), "00:07:41");
        assert_eq!(clock(360_000.0), "100:00:00");
    }

    #[test]
    fn sizes_read_as_people_say_them() {
        for (n, text) in
            [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (1 << 20, "1.0 MiB"), (1_503_238_553, "1.4 GiB")]
        {
            assert_eq!(bytes(n), text);
        }
    }

    #[test]
    fn text_cannot_leave_its_place() {
        assert_eq!(clean("a\u{1b}[31mb\u{202e}c\r\nd\u{7}"), "a[31mbc\nd");
        assert_eq!(markdown("a | b\n# <b>x</b> `y`"), "a \\| b \\# \\<b\\>x\\</b\\> \\`y\\`");
        assert_eq!(markdown("- not a list"), "\\- not a list");
        assert_eq!(markdown("1. not a list"), "1\\. not a list");
        assert_eq!(markdown("127.0.0.1:6380"), "127.0.0.1:6380");
        assert_eq!(fenced("```\nx"), "````text\n```\nx\n````");
    }
}
