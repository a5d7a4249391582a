use super::*;

fn at(text: &str) -> DateTime<Utc> {
    text.parse().unwrap()
}

fn next(cadence: &str, zone: &str, after: &str, count: usize) -> Vec<String> {
    let cadence = Cadence::read(cadence, zone).unwrap();
    let mut after = at(after);
    let mut found = Vec::new();
    for _ in 0..count {
        after = cadence.next(after).unwrap();
        found.push(cadence.local(after).to_rfc3339());
    }
    found
}

#[test]
fn words_are_what_they_say() {
    let table = [
        ("hourly at :15", "15 * * * *"),
        ("hourly", "0 * * * *"),
        ("every 15 minutes", "*/15 * * * *"),
        ("every 6 hours", "0 */6 * * *"),
        ("daily at 02:30", "30 2 * * *"),
        ("Weekdays at 22:00", "0 22 * * 1,2,3,4,5"),
        ("weekly on sunday at 04:00", "0 4 * * 0"),
        ("weekly on sun", "0 10 * * 0"),
        ("monthly on the first monday at 10:00", "0 10 * * 1#1"),
        ("monthly on the 15th at 9:05", "5 9 15 * *"),
        ("quarterly", "0 10 1 1,4,7,10 *"),
        ("quarterly on the second tuesday", "0 10 * 1,4,7,10 2#2"),
        ("yearly on the 3rd", "0 10 3 1 *"),
        ("30 2 * * mon-fri", "30 2 * * 1,2,3,4,5"),
        ("0 10 * jan,jul 7", "0 10 * 1,7 0"),
        ("0 10 * * 1#1", "0 10 * * 1#1"),
        ("*/20 8-10 1-3 * *", "*/20 8,9,10 1,2,3 * *"),
    ];
    for (written, cron) in table {
        assert_eq!(Cadence::read(written, "UTC").unwrap().fields.croner(), cron, "{written}");
    }
}

#[test]
fn what_is_no_cadence_says_why_and_how_it_is_written() {
    for (written, zone, why) in [
        ("", "UTC", "it says nothing"),
        ("nightly", "UTC", "`nightly` was not understood"),
        ("daily at 24:00", "UTC", "`24:00` is no time of day"),
        ("daily at 2:3", "UTC", "`2:3` is no time of day"),
        ("monthly on the 31st", "UTC", "from the 1st to the 28th"),
        ("monthly on the last friday", "UTC", "`last` is none of"),
        ("weekly on moonday", "UTC", "`moonday` is no day"),
        ("every 7 minutes", "UTC", "divides 60"),
        ("hourly at 10:15", "UTC", "at a minute"),
        ("60 * * * *", "UTC", "`60` is not between 0 and 59"),
        ("0 10 1-7 * 1", "UTC", "\"or\" for cron and \"and\" for systemd"),
        ("0 10 * * 1#5", "UTC", "from 1 to 4"),
        ("0 10 5-2 * *", "UTC", "runs backwards"),
        ("*/0 * * * *", "UTC", "after / comes a number"),
        ("0 0 30 2 *", "UTC", "never comes"),
        ("daily", "Mars/Olympus", "there is no zone `Mars/Olympus`"),
    ] {
        let bad = Cadence::read(written, zone).unwrap_err();
        assert!(bad.message.contains(why), "{written}: {}", bad.message);
        assert!(!bad.hint.is_empty());
    }
}

#[test]
fn a_time_that_does_not_exist_comes_after_the_gap_and_one_that_exists_twice_comes_once() {
    // Berlin: 2026-03-29 02:00 → 03:00, 2026-10-25 03:00 → 02:00.
    assert_eq!(
        next("daily at 02:30", "Europe/Berlin", "2026-03-27T12:00:00Z", 3),
        ["2026-03-28T02:30:00+01:00", "2026-03-29T03:00:00+02:00", "2026-03-30T02:30:00+02:00"]
    );
    assert_eq!(
        next("daily at 02:30", "Europe/Berlin", "2026-10-24T12:00:00Z", 2),
        ["2026-10-25T02:30:00+02:00", "2026-10-26T02:30:00+01:00"]
    );
    // Every half hour is every half hour, whatever the clocks say.
    assert_eq!(
        next("every 30 minutes", "Europe/Berlin", "2026-10-25T00:29:00Z", 4),
        [
            "2026-10-25T02:30:00+02:00",
            "2026-10-25T02:00:00+01:00",
            "2026-10-25T02:30:00+01:00",
            "2026-10-25T03:00:00+01:00"
        ]
    );
    // New York, and a zone whose clocks change by half an hour.
    assert_eq!(next("daily at 02:30", "America/New_York", "2027-03-13T12:00:00Z", 1), ["2027-03-14T03:00:00-04:00"]);
    assert_eq!(next("daily at 02:15", "Australia/Lord_Howe", "2026-10-03T06:00:00Z", 1), ["2026-10-04T02:30:00+11:00"]);
}

#[test]
fn months_begin_where_the_zone_is() {
    assert_eq!(
        next("monthly on the first monday at 10:00", "Asia/Tokyo", "2026-11-21T00:00:00Z", 3),
        ["2026-12-07T10:00:00+09:00", "2027-01-04T10:00:00+09:00", "2027-02-01T10:00:00+09:00"]
    );
    assert_eq!(next("quarterly", "Pacific/Auckland", "2026-12-31T20:59:00Z", 1), ["2027-01-01T10:00:00+13:00"]);
}

#[test]
fn a_run_that_the_clocks_leave_out_is_known_before() {
    let cadence = |text| Cadence::read(text, "Europe/Berlin").unwrap();
    let from = at("2026-11-21T00:00:00Z");
    assert_eq!(cadence("daily at 02:30").left_out(from).as_deref(), Some("2027-03-28 02:30"));
    assert_eq!(cadence("weekdays at 02:30").left_out(from), None, "clocks change on Sundays");
    assert_eq!(cadence("daily at 03:00").left_out(from), None);
    assert_eq!(Cadence::read("daily at 02:30", "UTC").unwrap().left_out(from), None);
}
