//! A moment as a tired person types it: `10:02` is enough, and the screen shows what it is read as.

use chrono::{DateTime, FixedOffset, NaiveTime, SecondsFormat, TimeDelta, Utc};

use crate::event::{ParseTargetError, RecoveryTarget, parse_time};

/// How such a moment may be typed.
pub(super) const SPELLINGS: &str =
    "A time of day in your zone, like 10:02, or a time with its offset, like 2026-11-21T10:02:31+01:00.";

/// A time with an offset, or a time of day: the last such moment before `now` in the operator's `zone`.
pub(super) fn read(text: &str, now: DateTime<Utc>, zone: FixedOffset) -> Result<DateTime<Utc>, ParseTargetError> {
    time_of_day(text, now, zone).map_or_else(|| parse_time(text), Ok)
}

/// As [`read`], for a recovery target.
pub(super) fn target(text: &str, now: DateTime<Utc>, zone: FixedOffset) -> Result<RecoveryTarget, ParseTargetError> {
    match time_of_day(text, now, zone) {
        Some(time) => Ok(RecoveryTarget::Time { time }),
        None => text.parse(),
    }
}

fn time_of_day(text: &str, now: DateTime<Utc>, zone: FixedOffset) -> Option<DateTime<Utc>> {
    let text = text.trim();
    let time = ["%H:%M", "%H:%M:%S%.f"].iter().find_map(|format| NaiveTime::parse_from_str(text, format).ok())?;
    let today = now.with_timezone(&zone).date_naive().and_time(time).and_local_timezone(zone).single()?.to_utc();
    Some(if today > now { today - TimeDelta::days(1) } else { today })
}

/// In full, with the offset it was meant in.
pub(super) fn write(at: DateTime<Utc>, zone: FixedOffset) -> String {
    at.with_timezone(&zone).to_rfc3339_opts(SecondsFormat::AutoSi, false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_of_day_is_the_last_one_in_the_operators_zone() {
        let zone = FixedOffset::east_opt(3600).unwrap();
        let now: DateTime<Utc> = "2026-11-21T09:10:00Z".parse().unwrap();
        let reads = |text: &str| read(text, now, zone).map(|at| write(at, zone)).map_err(|error| error.to_string());
        assert_eq!(reads("10:02").unwrap(), "2026-11-21T10:02:00+01:00");
        assert_eq!(reads(" 9:02:31.5 ").unwrap(), "2026-11-21T09:02:31.500+01:00");
        assert_eq!(reads("10:11").unwrap(), "2026-11-20T10:11:00+01:00", "not yet today");
        assert_eq!(reads("00:30").unwrap(), "2026-11-21T00:30:00+01:00");
        assert_eq!(reads("2026-11-21T09:02:31Z").unwrap(), "2026-11-21T10:02:31+01:00");
        assert!(reads("2026-11-21 10:02").unwrap_err().contains("no offset"));
        assert!(reads("25:00").is_err() && reads("ten").is_err() && reads("").is_err());
        assert_eq!(target("10:02", now, zone).unwrap().to_string(), "time:2026-11-21T09:02:00.000000Z");
        assert_eq!(target("xid:7", now, zone).unwrap(), RecoveryTarget::Xid { xid: 7 });
    }
}
