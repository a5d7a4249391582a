//! Numbers as a tired person reads them.

use std::time::Duration;

use chrono::{DateTime, FixedOffset, Utc};

use crate::drill::Rpo;
use crate::event::Unit;

/// `00:07:41`, always with hours.
pub fn hms(duration: Duration) -> String {
    let seconds = duration.as_secs();
    format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

/// `07:41`, or `1:07:41` from an hour on.
pub fn short(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds / 3600 {
        0 => format!("{:02}:{:02}", seconds / 60, seconds % 60),
        hours => format!("{hours}:{:02}:{:02}", seconds / 60 % 60, seconds % 60),
    }
}

/// `15 min`, `1 h`, `1 h 30 min`, `2 d`: for objectives.
pub fn words(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let parts = [(seconds / 86_400, "d"), (seconds / 3600 % 24, "h"), (seconds / 60 % 60, "min"), (seconds % 60, "s")];
    let shown: Vec<_> = parts.iter().filter(|(n, _)| *n > 0).take(2).map(|(n, unit)| format!("{n} {unit}")).collect();
    if shown.is_empty() { "0 s".to_owned() } else { shown.join(" ") }
}

/// Measured seconds: `0.4 s`, `31 s`, `3 min 31 s`, `2 h 5 min`.
pub fn seconds(value: f64) -> String {
    let sign = if value < 0.0 { "−" } else { "" };
    let value = value.abs();
    if !value.is_finite() || value > 1e12 {
        return "?".to_owned();
    }
    if value < 59.95 {
        format!("{sign}{value:.1} s")
    } else {
        format!("{sign}{}", words(Duration::from_secs_f64(value)))
    }
}

/// `52 MB`, in powers of ten as networks and stores count.
pub fn bytes(count: u64) -> String {
    scaled(count as f64)
}

fn scaled(count: f64) -> String {
    let units = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];
    let mut value = count;
    let mut unit = 0;
    while value >= 999.5 && unit < units.len() - 1 {
        value /= 1000.0;
        unit += 1;
    }
    if unit == 0 || value >= 9.95 {
        format!("{value:.0} {}", units[unit])
    } else {
        format!("{value:.1} {}", units[unit])
    }
}

/// `41 882`
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) && digits.len() > 4 {
            out.push(' ');
        }
        out.push(digit);
    }
    out
}

/// An amount of a lane: `61 of 88 segments`, `1.2 of 1.4 GB`.
pub fn amount(done: u64, total: Option<u64>, unit: Unit) -> String {
    let (one, word) = match unit {
        Unit::Bytes => {
            return match total {
                Some(total) => format!("{} of {}", bytes(done), bytes(total)),
                None => bytes(done),
            };
        }
        Unit::Segments => ("segment", "segments"),
        Unit::Keys => ("key", "keys"),
        Unit::Rows => ("row", "rows"),
        Unit::Steps => ("step", "steps"),
        Unit::Seconds => {
            let time = |seconds| short(Duration::from_secs(seconds));
            return match total {
                Some(total) => format!("{} of {}", time(done), time(total)),
                None => time(done),
            };
        }
    };
    match total {
        Some(total) => format!("{} of {} {}", count(done), count(total), if total == 1 { one } else { word }),
        None => format!("{} {}", count(done), if done == 1 { one } else { word }),
    }
}

/// A rate: `52 MB/s`, `3.1 segments/s`.
pub fn rate(value: f64, unit: Unit) -> Option<String> {
    if !value.is_finite() || value < 0.0 {
        return None;
    }
    Some(match unit {
        Unit::Bytes => format!("{}/s", scaled(value)),
        Unit::Segments => format!("{value:.1} segments/s"),
        Unit::Keys => format!("{} keys/s", count(value as u64)),
        Unit::Rows => format!("{} rows/s", count(value as u64)),
        Unit::Steps => format!("{value:.1} steps/s"),
        // Seconds pass at one a second, or something else is told by the rate: replayed time against real time.
        Unit::Seconds => format!("{value:.1}×"),
    })
}

/// Events a second as they are counted: `214/s`, `3.4/s`, `12/min`.
pub fn frequency(a_second: f64) -> String {
    match a_second {
        many if many >= 9.95 => format!("{}/s", count(many.round() as u64)),
        some if some >= 0.95 => format!("{some:.1}/s"),
        few if few * 60.0 >= 0.95 => format!("{:.0}/min", few * 60.0),
        rare => format!("{:.1}/h", rare * 3600.0),
    }
}

/// `+01:00`
pub fn offset(zone: FixedOffset) -> String {
    let seconds = zone.local_minus_utc();
    let sign = if seconds < 0 { '-' } else { '+' };
    let seconds = seconds.abs();
    format!("{sign}{:02}:{:02}", seconds / 3600, seconds / 60 % 60)
}

/// `10:02:31`
pub fn clock(at: DateTime<Utc>, zone: FixedOffset) -> String {
    at.with_timezone(&zone).format("%H:%M:%S").to_string()
}

/// `10:02`
pub fn minute(at: DateTime<Utc>, zone: FixedOffset) -> String {
    at.with_timezone(&zone).format("%H:%M").to_string()
}

/// `10:02:31.507`
pub fn millis(at: DateTime<Utc>, zone: FixedOffset) -> String {
    at.with_timezone(&zone).format("%H:%M:%S%.3f").to_string()
}

/// `21 Nov 10:02:31.482`, with the fraction only where there is one.
pub fn moment(at: DateTime<Utc>, zone: FixedOffset) -> String {
    let local = at.with_timezone(&zone);
    let text = local.format("%-d %b %H:%M:%S").to_string();
    match local.timestamp_subsec_micros() {
        0 => text,
        micros if micros % 1000 == 0 => format!("{text}.{:03}", micros / 1000),
        micros => format!("{text}.{micros:06}"),
    }
}

/// `21 Nov 10:02:31.482 +01:00 (09:02:31.482 UTC)`
pub fn both(at: DateTime<Utc>, zone: FixedOffset) -> String {
    if zone.local_minus_utc() == 0 {
        return format!("{} UTC", moment(at, zone));
    }
    let utc = moment(at, FixedOffset::east_opt(0).expect("zero is an offset"));
    let same_day = at.with_timezone(&zone).date_naive() == at.date_naive();
    let utc = if same_day { utc.splitn(3, ' ').nth(2).unwrap_or(&utc).to_owned() } else { utc };
    format!("{} {} ({utc} UTC)", moment(at, zone), offset(zone))
}

/// As [`both`], without the day: `10:02:31.482 +01:00 (09:02:31.482 UTC)`.
pub fn both_today(at: DateTime<Utc>, zone: FixedOffset) -> String {
    let text = both(at, zone);
    text.splitn(3, ' ').nth(2).unwrap_or(&text).to_owned()
}

/// The other two numbers of an RPO, a phrase each: what was not archived, and what lies behind the point.
pub fn beside_the_loss(rpo: &Rpo) -> Vec<String> {
    let exposed = rpo.exposure.map(|exposure| {
        let bytes = exposure.bytes.map(|number| format!(", {}", self::bytes(number))).unwrap_or_default();
        format!("not archived {}{bytes}", exposure.seconds.map_or_else(|| "unknown".to_owned(), seconds))
    });
    let behind = rpo.collateral.map(|(commits, of)| {
        format!(
            "behind the point {} {}, {}",
            count(commits),
            if commits == 1 { "commit" } else { "commits" },
            bytes(of)
        )
    });
    exposed.into_iter().chain(behind).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_said() {
        assert_eq!(hms(Duration::from_secs(461)), "00:07:41");
        assert_eq!(short(Duration::from_secs(461)), "07:41");
        assert_eq!(short(Duration::from_secs(4061)), "1:07:41");
        assert_eq!(words(Duration::from_secs(900)), "15 min");
        assert_eq!(words(Duration::from_secs(5400)), "1 h 30 min");
        assert_eq!(seconds(4.13), "4.1 s");
        assert_eq!(seconds(211.0), "3 min 31 s");
    }

    #[test]
    fn amounts_read_as_said() {
        assert_eq!(bytes(52_300_000), "52 MB");
        assert_eq!(bytes(1_440_000_000), "1.4 GB");
        assert_eq!(bytes(999), "999 B");
        assert_eq!(bytes(999_900), "1.0 MB");
        assert_eq!(count(41_882), "41 882");
        assert_eq!(count(8841), "8841");
        assert_eq!(amount(61, Some(88), Unit::Segments), "61 of 88 segments");
        assert_eq!(rate(f64::NAN, Unit::Bytes), None);
        assert_eq!([213.7, 3.41, 0.2, 0.001].map(frequency), ["214/s", "3.4/s", "12/min", "3.6/h"]);
    }

    #[test]
    fn row_03_a_moment_is_shown_in_both_zones() {
        let at = "2026-11-21T09:02:31.482Z".parse().unwrap();
        let zone = FixedOffset::east_opt(3600).unwrap();
        assert_eq!(both(at, zone), "21 Nov 10:02:31.482 +01:00 (09:02:31.482 UTC)");
        assert_eq!(both_today(at, zone), "10:02:31.482 +01:00 (09:02:31.482 UTC)");
        let far = FixedOffset::east_opt(-11 * 3600).unwrap();
        assert_eq!(both(at, far), "20 Nov 22:02:31.482 -11:00 (21 Nov 09:02:31.482 UTC)");
    }
}
