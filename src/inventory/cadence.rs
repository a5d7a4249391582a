//! How often something is run: words or a cron expression, in a zone. Reads no clock.
//!
//! The words become the five fields of cron, and those are kept as sets, so that systemd and Kubernetes can be told the
//! same. What the three of them understand differently is refused: a day of the month together with a weekday is "or" for
//! cron and "and" for systemd.

use chrono::{DateTime, FixedOffset, Offset as _, Utc};
use croner::Cron;
use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};

const MONTHS: [&str; 12] = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const DAYS: [&str; 7] = ["sunday", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday"];
const NTH: [&str; 4] = ["first", "second", "third", "fourth"];

/// When the words name no time of day: people are there.
const USUAL: (u8, u8) = (10, 0);

/// What the file says, and when that is.
#[derive(Debug, Clone)]
pub struct Cadence {
    pub written: String,
    /// As the tz database calls it.
    pub zone: String,
    fields: Fields,
    cron: Cron,
    tz: TimeZone,
}

/// Why it is none, and how it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadCadence {
    pub message: String,
    pub hint: String,
}

/// The five fields. `None` is every one.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Fields {
    minutes: Option<Vec<u8>>,
    hours: Option<Vec<u8>>,
    days: Option<Vec<u8>>,
    months: Option<Vec<u8>>,
    /// 0 is Sunday.
    weekdays: Option<Vec<u8>>,
    /// Only the first, second … of that weekday in a month.
    nth: Option<u8>,
}

impl Cadence {
    pub fn read(written: &str, zone: &str) -> Result<Self, BadCadence> {
        let bad = |message: String| BadCadence { message, hint: HINT.to_owned() };
        let tz = TimeZone::get(zone).map_err(|_| BadCadence {
            message: format!("there is no zone `{zone}`"),
            hint: "write it as the tz database does: Europe/Berlin, America/New_York, UTC".to_owned(),
        })?;
        let text = written.trim().to_lowercase();
        let words: Vec<&str> = text.split_whitespace().collect();
        let is_cron = words.len() == 5 && words[0].starts_with(|c: char| c.is_ascii_digit() || c == '*');
        let fields = if is_cron { from_cron(&words) } else { from_words(&words) };
        let fields = fields.map_err(|why| bad(format!("`{written}` is no cadence: {why}")))?;
        let pattern = fields.croner();
        let cron = pattern.parse().map_err(|why| bad(format!("`{written}` is no cadence: {why}")))?;
        let cadence = Self { written: written.trim().to_owned(), zone: zone.to_owned(), fields, cron, tz };
        match cadence.next(DateTime::UNIX_EPOCH) {
            Some(_) => Ok(cadence),
            None => Err(bad(format!("`{written}` never comes"))),
        }
    }

    /// The first moment after `after`. A time of day that a change of the clocks leaves out comes when the clocks have
    /// changed; one that comes twice is taken once.
    pub fn next(&self, after: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let after = self.zoned(after)?;
        let next = self.cron.find_next_occurrence(&after, false).ok()?;
        DateTime::from_timestamp(next.timestamp().as_second(), 0)
    }

    /// The moment in the cadence's zone.
    pub fn local(&self, at: DateTime<Utc>) -> DateTime<FixedOffset> {
        let offset = self.zoned(at).and_then(|zoned| FixedOffset::east_opt(zoned.offset().seconds()));
        at.with_timezone(&offset.unwrap_or_else(|| Utc.fix()))
    }

    fn zoned(&self, at: DateTime<Utc>) -> Option<Zoned> {
        let at = Timestamp::new(at.timestamp(), at.timestamp_subsec_nanos().min(999_999_999) as i32).ok()?;
        Some(at.to_zoned(self.tz.clone()))
    }

    /// The first moment after `after` whose time of day the clocks leave out, as the wall would show it. systemd and
    /// Kubernetes leave such a run out.
    pub fn left_out(&self, after: DateTime<Utc>) -> Option<String> {
        let (Some(hours), Some(minutes)) = (&self.fields.hours, &self.fields.minutes) else { return None };
        let after = self.zoned(after)?;
        for change in self.tz.following(after.timestamp()).take(4) {
            let before = self.tz.to_offset(change.timestamp().checked_sub(jiff::SignedDuration::from_secs(1)).ok()?);
            let (from, to) = (before.to_datetime(change.timestamp()), change.offset().to_datetime(change.timestamp()));
            let missing = hours.iter().flat_map(|hour| minutes.iter().map(move |minute| (*hour, *minute)));
            for (hour, minute) in missing {
                let at = from.date().at(hour as i8, minute as i8, 0, 0);
                let day = self.zoned(DateTime::from_timestamp(change.timestamp().as_second(), 0)?)?;
                let planned = self.fields.has_day(
                    day.month() as u8,
                    day.day() as u8,
                    day.weekday().to_sunday_zero_offset() as u8,
                );
                if at >= from && at < to && planned {
                    return Some(at.strftime("%Y-%m-%d %H:%M").to_string());
                }
            }
        }
        None
    }

    /// For systemd's timers.
    pub fn on_calendar(&self) -> String {
        let fields = &self.fields;
        let list = |values: &Option<Vec<u8>>| match values {
            None => "*".to_owned(),
            Some(values) => values.iter().map(|value| format!("{value:02}")).collect::<Vec<_>>().join(","),
        };
        let weekdays = fields.weekdays.as_ref().map(|days| {
            let names: Vec<String> = days.iter().map(|day| short(*day)).collect();
            format!("{} ", names.join(","))
        });
        let days = match fields.nth {
            Some(nth) => format!("{:02}..{:02}", (nth - 1) * 7 + 1, nth * 7),
            None => list(&fields.days),
        };
        format!(
            "{}*-{}-{days} {}:{}:00 {}",
            weekdays.unwrap_or_default(),
            list(&fields.months),
            list(&fields.hours),
            list(&fields.minutes),
            self.zone
        )
    }

    /// For cron and Kubernetes: five fields, and the days of the month on which alone the command may run, which cron
    /// cannot say together with a weekday.
    pub fn crontab(&self) -> (String, Option<(u8, u8)>) {
        let only = self.fields.nth.map(|nth| ((nth - 1) * 7 + 1, nth * 7));
        (Fields { nth: None, ..self.fields.clone() }.croner(), only)
    }
}

const HINT: &str = "write \"daily at 02:30\", \"weekdays at 22:00\", \"weekly on sunday at 04:00\", \"monthly on the first \
                    monday at 10:00\", \"monthly on the 15th\", \"quarterly\", or the five fields of cron: \"30 2 * * *\"";

impl Fields {
    fn croner(&self) -> String {
        let every = |values: &Option<Vec<u8>>, most: u8| match values {
            None => "*".to_owned(),
            Some(values) => {
                stepped(values, most).unwrap_or_else(|| values.iter().map(u8::to_string).collect::<Vec<_>>().join(","))
            }
        };
        let nth = self.nth.map(|nth| format!("#{nth}")).unwrap_or_default();
        format!(
            "{} {} {} {} {}{nth}",
            every(&self.minutes, 60),
            every(&self.hours, 24),
            every(&self.days, 0),
            every(&self.months, 0),
            every(&self.weekdays, 0)
        )
    }

    fn has_day(&self, month: u8, day: u8, weekday: u8) -> bool {
        let has = |values: &Option<Vec<u8>>, value| values.as_ref().is_none_or(|values| values.contains(&value));
        has(&self.months, month)
            && has(&self.days, day)
            && has(&self.weekdays, weekday)
            && self.nth.is_none_or(|nth| day.div_ceil(7) == nth)
    }
}

/// `*/15` for 0, 15, 30, 45: cron runs such a job in both hours when the clocks go back.
fn stepped(values: &[u8], most: u8) -> Option<String> {
    let [0, step, ..] = values else { return None };
    let all: Vec<u8> = (0..most).step_by(usize::from(*step)).collect();
    (all == values && most.is_multiple_of(*step)).then(|| format!("*/{step}"))
}

/// `Mon`
fn short(day: u8) -> String {
    let name = DAYS[usize::from(day)];
    name[..1].to_uppercase() + &name[1..3]
}

fn from_words(words: &[&str]) -> Result<Fields, String> {
    let (time, words) = match words {
        [rest @ .., "at", time] => (Some(*time), rest),
        rest => (None, rest),
    };
    if let ["hourly"] = words {
        let minute = match time.map(|time| time.strip_prefix(':').and_then(|minute| minute.parse::<u8>().ok())) {
            None => 0,
            Some(Some(minute)) if minute < 60 => minute,
            Some(_) => return Err("an hourly one is at a minute: \"hourly at :15\"".to_owned()),
        };
        return Ok(Fields { minutes: Some(vec![minute]), ..Fields::default() });
    }
    if let ["every", number, unit] = words {
        let (most, minutes) = match *unit {
            "minutes" => (60, true),
            "hours" => (24, false),
            _ => return Err(format!("every how many minutes or hours? `{unit}` is neither")),
        };
        let step: u8 = number.parse().map_err(|_| format!("`{number}` is no number"))?;
        if time.is_some() || step == 0 || step >= most || !most.is_multiple_of(step) {
            return Err(format!("a number that divides {most} comes at the same times each day"));
        }
        let all = Some((0..most).step_by(usize::from(step)).collect());
        return Ok(match minutes {
            true => Fields { minutes: all, ..Fields::default() },
            false => Fields { minutes: Some(vec![0]), hours: all, ..Fields::default() },
        });
    }
    let (hour, minute) = match time {
        None => USUAL,
        Some(time) => time_of_day(time).ok_or_else(|| format!("`{time}` is no time of day"))?,
    };
    let at = Fields { hours: Some(vec![hour]), minutes: Some(vec![minute]), ..Fields::default() };
    let quarters = Some(vec![1, 4, 7, 10]);
    match words {
        ["daily"] => Ok(at),
        ["weekdays"] => Ok(Fields { weekdays: Some((1..=5).collect()), ..at }),
        ["weekly"] => Ok(Fields { weekdays: Some(vec![1]), ..at }),
        ["weekly", "on", day] => Ok(Fields { weekdays: Some(vec![weekday(day)?]), ..at }),
        ["monthly"] => Ok(Fields { days: Some(vec![1]), ..at }),
        ["quarterly"] => Ok(Fields { days: Some(vec![1]), months: quarters, ..at }),
        ["yearly"] => Ok(Fields { days: Some(vec![1]), months: Some(vec![1]), ..at }),
        [often @ ("monthly" | "quarterly" | "yearly"), "on", "the", rest @ ..] => {
            let months = match *often {
                "monthly" => None,
                "quarterly" => quarters,
                _ => Some(vec![1]),
            };
            match rest {
                [nth, day] => {
                    let place = NTH.iter().position(|word| word == nth);
                    let nth = place.ok_or_else(|| format!("`{nth}` is none of first, second, third, fourth"))?;
                    Ok(Fields { months, weekdays: Some(vec![weekday(day)?]), nth: Some(nth as u8 + 1), ..at })
                }
                [day] => {
                    let number = day.trim_end_matches(|c: char| c.is_ascii_alphabetic()).parse().ok();
                    let day = number.filter(|day| (1..=28).contains(day));
                    let day = day.ok_or("a day from the 1st to the 28th: not every month has the others")?;
                    Ok(Fields { months, days: Some(vec![day]), ..at })
                }
                _ => Err("on which day?".to_owned()),
            }
        }
        [] => Err("it says nothing".to_owned()),
        [first, ..] => Err(format!("`{first}` was not understood")),
    }
}

fn weekday(word: &str) -> Result<u8, String> {
    let place = DAYS.iter().position(|day| *day == word || (word.len() == 3 && day.starts_with(word)));
    place.map(|day| day as u8).ok_or_else(|| format!("`{word}` is no day of the week"))
}

fn time_of_day(text: &str) -> Option<(u8, u8)> {
    let (hour, minute) = text.split_once(':')?;
    let (hour, minute) = (hour.parse().ok()?, (minute.len() == 2).then(|| minute.parse().ok())??);
    (hour < 24 && minute < 60).then_some((hour, minute))
}

fn from_cron(words: &[&str]) -> Result<Fields, String> {
    let (weekday_text, nth) = match words[4].split_once('#') {
        Some((day, nth)) => {
            let nth = nth.parse().ok().filter(|nth| (1..=4).contains(nth));
            (day, Some(nth.ok_or("after # comes a number from 1 to 4")?))
        }
        None => (words[4], None),
    };
    let mut weekdays = set(weekday_text, 0, 7, &DAYS.map(|day| &day[..3]))?;
    if let Some(days) = &mut weekdays {
        days.iter_mut().filter(|day| **day == 7).for_each(|day| *day = 0);
        days.sort_unstable();
        days.dedup();
    }
    let fields = Fields {
        minutes: set(words[0], 0, 59, &[])?,
        hours: set(words[1], 0, 23, &[])?,
        days: set(words[2], 1, 31, &[])?,
        months: set(words[3], 1, 12, &MONTHS)?,
        weekdays,
        nth,
    };
    if fields.days.is_some() && fields.weekdays.is_some() {
        return Err(
            "a day of the month and a weekday together are \"or\" for cron and \"and\" for systemd; write the \
                    first monday as `0 10 * * 1#1`"
                .to_owned(),
        );
    }
    if nth.is_some() && fields.weekdays.as_ref().is_none_or(|days| days.len() != 1) {
        return Err("# follows one weekday".to_owned());
    }
    Ok(fields)
}

/// A field: `*`, `*/15`, `1-5`, `1,3`, names. `None` is every one.
fn set(text: &str, least: u8, most: u8, names: &[&str]) -> Result<Option<Vec<u8>>, String> {
    if text == "*" {
        return Ok(None);
    }
    let number = |word: &str| -> Result<u8, String> {
        let named = names.iter().position(|name| *name == word).map(|place| place as u8 + least);
        let value = named.or_else(|| word.parse().ok()).filter(|value| (least..=most).contains(value));
        value.ok_or_else(|| format!("`{word}` is not between {least} and {most}"))
    };
    let mut values = Vec::new();
    for part in text.split(',') {
        let (range, step) = match part.split_once('/') {
            Some((range, step)) => {
                let step = step.parse().ok().filter(|step| *step > 0u8);
                (range, Some(step.ok_or_else(|| format!("`{part}`: after / comes a number"))?))
            }
            None => (part, None),
        };
        let (from, to) = match (range, range.split_once('-')) {
            ("*", _) => (least, most),
            (_, Some((from, to))) => (number(from)?, number(to)?),
            (one, None) if step.is_none() => (number(one)?, number(one)?),
            (one, None) => (number(one)?, most),
        };
        if from > to {
            return Err(format!("`{range}` runs backwards"));
        }
        values.extend((from..=to).step_by(usize::from(step.unwrap_or(1))));
    }
    values.sort_unstable();
    values.dedup();
    Ok(Some(values))
}

#[cfg(test)]
mod tests;
