use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};

use super::archive::Archive;
use super::retention::{Archived, Spare, spare_of_redis};
use super::*;
use crate::event::{
    AofRange, BaseBackup, Basis, Coverage, Deed, Fork, Gap, History, Lsn, Measure, Rate, RecoveryTarget, RedisSnapshot,
    RestorePoint, Suspect, SystemWindow, What, Window,
};
use crate::system::postgres::SourceEnd;
use crate::system::postgres::engine::{Engine, Reader};
use crate::system::postgres::wal::read::Listed;
use crate::system::postgres::wal::{Indexes, Segment, Supply};

const SEGMENT: u64 = 16 << 20;

fn time(text: &str) -> DateTime<Utc> {
    format!("2026-11-21T{text}Z").parse().unwrap()
}

fn backup(label: &str, timeline: u32, from: u64, stopped: &str) -> BaseBackup {
    BaseBackup {
        label: label.to_owned(),
        system_identifier: 7,
        timeline,
        start_lsn: Lsn(from * SEGMENT + 0x28),
        stop_lsn: Lsn(from * SEGMENT + 0x100),
        started: time("00:00:00"),
        stopped: time(stopped),
        parent: None,
        bytes: 1000,
        stored_bytes: 100,
        server_version: "15.18".to_owned(),
        basis: Basis::Observed,
    }
}

fn run(timeline: u32, from: u64, to: u64, from_time: &str, to_time: &str) -> Coverage {
    let name = |n: u64| format!("{timeline:08X}{:08X}{:08X}", n / 256, n % 256);
    Coverage {
        timeline,
        from: Lsn(from * SEGMENT),
        to: Lsn(to * SEGMENT),
        first_segment: name(from),
        last_segment: name(to - 1),
        segments: to - from,
        stored_bytes: (to - from) * 10,
        from_time: Some(time(from_time)),
        to_time: Some(time(to_time)),
        basis: Basis::Reported,
    }
}

fn window(backups: Vec<BaseBackup>, coverage: Vec<Coverage>, forks: Vec<Fork>) -> Window {
    let gaps: Vec<Gap> = Vec::new();
    Window {
        looked: time("12:00:00"),
        incident: Some(time("10:02:31")),
        systems: vec![
            SystemWindow::Postgres {
                system: "db".to_owned(),
                backups,
                coverage,
                gaps,
                restore_points: Vec::new(),
                segment_bytes: SEGMENT,
                forks,
                history: None,
                system_identifier: Some("7".to_owned()),
                warnings: Vec::new(),
            },
            SystemWindow::Redis {
                system: "cache".to_owned(),
                snapshots: ["09:00:00", "10:00:00"].map(snapshot).to_vec(),
                aof: Vec::new(),
                warnings: Vec::new(),
            },
        ],
    }
}

fn snapshot(at: &str) -> RedisSnapshot {
    RedisSnapshot {
        label: at.to_owned(),
        at: time(at),
        keys: 1,
        bytes: 1,
        stored_bytes: 1,
        rdb_version: 10,
        redis_version: "7.0".to_owned(),
        basis: Basis::Observed,
    }
}

fn usual() -> Window {
    let backups = vec![backup("old", 1, 2, "03:00:00"), backup("new", 1, 5, "09:00:00")];
    window(backups, vec![run(1, 1, 10, "02:00:00", "10:06:00")], Vec::new())
}

fn at(text: &str) -> RecoveryTarget {
    RecoveryTarget::Time { time: time(text) }
}

fn ask(window: &Window, target: RecoveryTarget) -> Result<Plan, Refusal> {
    plan(window, "db", &Wanted::new(target, true))
}

#[test]
fn the_newest_backup_before_the_target_is_taken() {
    let plan = ask(&usual(), at("10:02:00")).unwrap();
    assert_eq!((plan.restore.label.as_str(), plan.restore.timeline), ("new", 1));
    assert_eq!(plan.restore.segments.first().unwrap(), "000000010000000000000005");
    assert_eq!((plan.restore.segments.len(), plan.restore.end), (5, Lsn(10 * SEGMENT)));
    assert_eq!(plan.restore.beyond(SEGMENT), "00000001000000000000000A");
    assert_eq!(plan.loss, Some(chrono::Duration::seconds(31)));
    assert_eq!((plan.fetch_bytes, plan.warnings.len()), (150, 0));
    assert_eq!(ask(&usual(), at("08:59:59")).unwrap().restore.label, "old");
    let exact = ask(&usual(), RecoveryTarget::Lsn { lsn: Lsn(6 * SEGMENT + 5) }).unwrap();
    assert_eq!(exact.restore.segments.len(), 3, "the record may go on into the next segment");
}

#[test]
fn a_target_before_the_first_backup_s_end_is_refused() {
    assert!(matches!(ask(&usual(), at("03:00:00")), Err(Refusal::BeforeBackup { .. })));
    let lsn = |n| RecoveryTarget::Lsn { lsn: Lsn(n) };
    assert!(matches!(ask(&usual(), lsn(2 * SEGMENT + 0xFF)), Err(Refusal::BeforeBackup { .. })));
    assert!(ask(&usual(), lsn(2 * SEGMENT + 0x100)).is_ok());
    let exclusive = Wanted::new(lsn(2 * SEGMENT + 0x100), false);
    assert!(matches!(plan(&usual(), "db", &exclusive), Err(Refusal::BeforeBackup { .. })));
    let pinned = Wanted { backup: Some("new".to_owned()), ..Wanted::new(at("08:00:00"), true) };
    assert!(matches!(plan(&usual(), "db", &pinned), Err(Refusal::BeforeBackup { .. })));
}

#[test]
fn a_target_behind_the_wal_is_refused() {
    let refusal = ask(&usual(), at("10:06:01")).unwrap_err();
    assert!(matches!(refusal, Refusal::BeyondWal { .. }), "{refusal:?}");
    let failure = crate::event::Failure::from(refusal);
    assert!(failure.why.contains("0/A000000") && failure.why.contains("10:06:00"), "{failure}");
    assert!(matches!(
        ask(&usual(), RecoveryTarget::Lsn { lsn: Lsn(10 * SEGMENT + 1) }),
        Err(Refusal::BeyondWal { .. })
    ));
    assert_eq!(ask(&usual(), RecoveryTarget::Latest).unwrap().restore.end, Lsn(10 * SEGMENT));
}

#[test]
fn a_hole_is_named_and_never_crossed() {
    let backups = vec![backup("new", 1, 5, "09:00:00")];
    let runs = vec![run(1, 1, 7, "02:00:00", "09:30:00"), run(1, 8, 10, "10:00:00", "10:06:00")];
    let holed = window(backups, runs, Vec::new());
    let refusal = ask(&holed, at("10:02:00")).unwrap_err();
    assert!(
        matches!(&refusal, Refusal::Gap { first_missing, .. } if first_missing == "000000010000000000000007"),
        "{refusal:?}"
    );
    assert!(ask(&holed, at("09:20:00")).is_ok());
    let latest = ask(&holed, RecoveryTarget::Latest);
    assert!(matches!(latest, Err(Refusal::Gap { .. })), "what lies behind the hole is not given up without a word");
    let before = ask(&holed, at("09:20:00")).unwrap();
    assert!(before.warnings[0].contains("000000010000000000000007"), "{:?}", before.warnings);
}

#[test]
fn a_hole_inside_a_backup_leads_to_an_older_one() {
    let backups = vec![backup("old", 1, 2, "03:00:00"), backup("new", 1, 5, "09:00:00")];
    let runs = vec![run(1, 1, 5, "02:00:00", "08:00:00"), run(1, 6, 10, "09:30:00", "10:06:00")];
    let holed = window(backups, runs, Vec::new());
    assert_eq!(ask(&holed, at("07:00:00")).unwrap().restore.label, "old");
    assert!(matches!(ask(&holed, at("10:02:00")), Err(Refusal::Gap { .. })));
}

#[test]
fn nothing_there_is_told_from_nothing_usable() {
    let mut empty = window(Vec::new(), Vec::new(), Vec::new());
    assert!(matches!(ask(&empty, RecoveryTarget::Latest), Err(Refusal::Empty { .. })));
    let bare = window(Vec::new(), vec![run(1, 1, 3, "01:00:00", "02:00:00")], Vec::new());
    assert!(matches!(ask(&bare, RecoveryTarget::Latest), Err(Refusal::NoBackup { .. })));
    assert!(matches!(plan(&bare, "nope", &Wanted::new(RecoveryTarget::Latest, true)), Err(Refusal::NoSystem { .. })));
    empty.systems.truncate(0);
    assert!(matches!(ask(&empty, RecoveryTarget::Latest), Err(Refusal::NoSystem { .. })));
}

#[test]
fn another_cluster_s_backup_is_refused() {
    let mut foreign = usual();
    let SystemWindow::Postgres { system_identifier, .. } = &mut foreign.systems[0] else { unreachable!() };
    *system_identifier = Some("18446744073709551615".to_owned());
    let refusal = ask(&foreign, RecoveryTarget::Latest).unwrap_err();
    assert!(matches!(&refusal, Refusal::Foreign { archive, .. } if archive == "18446744073709551615"), "{refusal:?}");
}

#[test]
fn a_timeline_is_followed_by_its_number() {
    let fork = Fork { timeline: 2, parent: 1, at: Lsn(7 * SEGMENT + 0x500), basis: Basis::Reported };
    let runs = vec![run(1, 1, 8, "02:00:00", "09:40:00"), run(2, 7, 12, "09:45:00", "10:30:00")];
    let failed_over = window(vec![backup("new", 1, 5, "09:00:00")], runs, vec![fork]);
    // Behind the old primary's end only the new timeline leads there.
    let after = ask(&failed_over, at("10:02:00")).unwrap();
    assert_eq!(after.restore.timeline, 2);
    assert_eq!(
        after.restore.segments[..3],
        ["000000010000000000000005", "000000010000000000000006", "000000020000000000000007"]
    );
    // Before the fork both histories are one.
    assert_eq!(ask(&failed_over, at("09:30:00")).unwrap().restore.timeline, 1);
    // "Latest" of which?
    let refusal = ask(&failed_over, RecoveryTarget::Latest).unwrap_err();
    assert!(matches!(&refusal, Refusal::Ambiguous { timelines, .. } if timelines.len() == 2), "{refusal:?}");
    let pinned = |timeline| Wanted { timeline: Some(timeline), ..Wanted::new(RecoveryTarget::Latest, true) };
    assert_eq!(plan(&failed_over, "db", &pinned(1)).unwrap().restore.end, Lsn(8 * SEGMENT));
    assert_eq!(plan(&failed_over, "db", &pinned(2)).unwrap().restore.end, Lsn(12 * SEGMENT));
    assert!(matches!(plan(&failed_over, "db", &pinned(3)), Err(Refusal::UnknownTimeline { .. })));
}

#[test]
fn a_branch_that_left_before_the_backup_does_not_lead_from_it() {
    let fork = Fork { timeline: 2, parent: 1, at: Lsn(4 * SEGMENT), basis: Basis::Reported };
    let runs = vec![run(1, 1, 10, "02:00:00", "10:06:00"), run(2, 4, 20, "08:00:00", "11:00:00")];
    let polluted = window(vec![backup("new", 1, 5, "09:00:00")], runs, vec![fork]);
    assert_eq!(ask(&polluted, RecoveryTarget::Latest).unwrap().restore.timeline, 1);
}

#[test]
fn redis_comes_from_before_the_target() {
    let window = usual();
    let point = settle(&window, &at("10:02:00"), false).unwrap();
    assert_eq!(
        (point.backups["db"].as_str(), point.snapshots["cache"].as_str(), point.timeline),
        ("new", "10:00:00", 1)
    );
    assert_eq!(skews(&window, &point)["cache"], chrono::Duration::seconds(120));
    assert_eq!(settle(&window, &at("09:59:59"), false).unwrap().snapshots["cache"], "09:00:00");
    let refusal = settle(&window, &at("08:00:00"), false).unwrap_err();
    assert!(matches!(refusal, Refusal::NoSnapshot { .. }), "{refusal:?}");
    let again = plan(&window, "db", &Wanted::of(&point, "db")).unwrap();
    assert_eq!((again.restore.label.as_str(), again.restore.inclusive), ("new", false));
}

/// Bytes of WAL a commit.
const COMMIT: u64 = SEGMENT / 30;

/// 100 commits, one a second from 10:00:00, up to the last segment; at 10:00:40 the 41st drops a table.
fn told(mut window: Window) -> Window {
    let SystemWindow::Postgres { history, restore_points, .. } = &mut window.systems[0] else { panic!() };
    let start = 6 * SEGMENT;
    let place = |commit: u64| Lsn(start + commit * COMMIT);
    *history = Some(Box::new(History {
        timeline: 1,
        from: Lsn(start),
        to: place(100),
        to_time: Some(time("10:01:39")),
        commits: 100,
        rates: vec![Rate {
            from: time("10:00:00"),
            step_ms: 1000,
            commits_before: 0,
            bytes_before: 0,
            commits: vec![1; 100],
            bytes: vec![COMMIT; 100],
        }],
        suspects: vec![Suspect {
            xid: 741,
            at: time("10:00:40"),
            lsn: place(40),
            deeds: vec![Deed { what: What::Drops, table: "payments".to_owned(), count: 1 }],
            commits_before: 40,
        }],
        stopped: None,
        segments: 1,
        read: 1,
        not_kept: None,
    }));
    let (at, lsn) = (time("10:00:20"), place(20));
    restore_points.push(RestorePoint { name: "release".to_owned(), at, lsn, basis: Basis::Observed });
    window
}

#[test]
fn a_suspect_tells_what_each_side_of_it_costs() {
    let window = told(usual());
    let priced = |target, inclusive| cost(&window, &settle(&window, &target, inclusive).unwrap()).unwrap();
    let before = priced(RecoveryTarget::Xid { xid: 741 }, false);
    assert_eq!((before.commits_kept, before.commits_lost, before.bytes_lost), (Some(40), Some(60), Some(60 * COMMIT)));
    assert_eq!((before.at, before.time_lost), (Some(time("10:00:40")), Some(chrono::Duration::seconds(59))));
    assert_eq!(before.loss, Some(chrono::Duration::seconds(111)), "up to the reported incident of 10:02:31");
    assert_eq!(before.warnings, Vec::<String>::new(), "where it stands is known");
    let after = priced(RecoveryTarget::Xid { xid: 741 }, true);
    assert_eq!((after.commits_kept, after.commits_lost), (Some(41), Some(59)));
    let all = priced(RecoveryTarget::Latest, true);
    assert_eq!((all.commits_lost, all.bytes_lost, all.loss), (Some(0), Some(0), Some(chrono::Duration::zero())));
    assert!(before.segments < all.segments, "only what leads to the suspect is replayed");
    let named = priced(RecoveryTarget::RestorePoint { name: "release".to_owned() }, true);
    assert_eq!((named.commits_kept, named.at), (Some(20), Some(time("10:00:20"))));
    // Nobody knows where another transaction stands: that is said, and no number is made up.
    let unknown = priced(RecoveryTarget::Xid { xid: 7 }, false);
    assert_eq!((unknown.commits_kept, unknown.at), (None, None));
    assert_eq!(unknown.warnings.len(), 1, "{:?}", unknown.warnings);
}

#[test]
fn a_suspect_before_the_newest_backup_is_reached_from_an_older_one() {
    let mut window = told(usual());
    window.incident = Some(time("11:00:00"));
    let SystemWindow::Postgres { backups, .. } = &mut window.systems[0] else { panic!() };
    let later = backup("later", 1, 9, "10:03:00");
    backups.push(later);
    let point = settle(&window, &RecoveryTarget::Xid { xid: 741 }, false).unwrap();
    assert_eq!(point.backups["db"], "new");
}

#[test]
fn a_time_behind_the_incident_is_a_reason_to_hesitate_and_a_suspect_is_not() {
    let mut window = told(usual());
    window.incident = Some(time("10:00:30"));
    let late = cost(&window, &settle(&window, &at("10:00:50"), false).unwrap()).unwrap();
    assert_eq!(late.warnings, ["it lies 20.0 s after the incident: the damage may be in it"]);
    assert_eq!((late.loss, late.commits_kept), (Some(chrono::Duration::zero()), Some(50)));
    let suspect = cost(&window, &settle(&window, &RecoveryTarget::Xid { xid: 741 }, false).unwrap()).unwrap();
    assert_eq!(suspect.warnings, Vec::<String>::new());
}

#[test]
fn the_exposure_is_what_the_archive_does_not_hold() {
    let measured = |window: &Window, system: &str, source| match exposure(window, system, source) {
        Some(Measure::ArchiveExposure { seconds, bytes, detail, .. }) => (seconds, bytes, detail),
        other => panic!("{other:?}"),
    };
    let mut window = told(usual());
    // The archive was read to its end: the last commit counts, not when the segment came.
    let (seconds, bytes, detail) = measured(&window, "db", None);
    assert_eq!((seconds, bytes), (Some(52.0), None), "10:01:39 to the incident of 10:02:31");
    assert!(detail.contains("before the incident") && detail.contains("unknown"), "{detail}");
    let ends = |lsn, last_commit| Some(SourceEnd { lsn: Lsn(lsn), last_commit });
    assert_eq!(measured(&window, "db", ends(10 * SEGMENT, None)).0, Some(0.0));
    let (seconds, bytes, _) = measured(&window, "db", ends(10 * SEGMENT + 700, Some(time("10:01:42"))));
    assert_eq!((seconds, bytes), (Some(3.0), Some(700)));
    let (seconds, bytes, _) = measured(&window, "db", ends(10 * SEGMENT + 700, None));
    assert_eq!((seconds, bytes), (None, Some(700)), "no time is made up");
    window.incident = Some(time("10:01:00"));
    assert_eq!(measured(&window, "db", None).0, Some(0.0));
    window.incident = None;
    assert_eq!(measured(&window, "db", None).0, None);
    // Redis has the file nearest to the incident.
    assert_eq!(measured(&usual(), "cache", None).0, Some(151.0));
}

/// Segments of timeline 1, archived a minute apart from 02:00 on.
fn segments(timeline: u32, numbers: std::ops::Range<u64>) -> Vec<Listed> {
    let listed = |number| {
        let modified = time("02:00:00") + chrono::TimeDelta::minutes(number as i64);
        let segment = Segment { timeline, number, size: SEGMENT };
        Listed { segment, key: segment.to_string(), bytes: 1, modified }
    };
    numbers.map(listed).collect()
}

fn numbers(spare: &Spare, segments: &[Listed]) -> Vec<u64> {
    spare.segments.iter().map(|at| segments[*at].segment.number).collect()
}

#[test]
fn what_leads_over_the_limit_stays_and_what_is_older_may_go() {
    let backups = vec![backup("a", 1, 2, "02:02:00"), backup("b", 1, 5, "02:05:00"), backup("c", 1, 9, "02:09:00")];
    let (runs, all) = (vec![run(1, 1, 12, "02:00:00", "02:11:00")], segments(1, 1..12));
    let archived = Archived { backups: &backups, coverage: &runs, forks: &[], size: SEGMENT };
    let after = |minutes: u64, now| archived.spare(&all, Duration::from_secs(minutes * 60), time(now));
    // Every moment since 02:06 is asked for: that takes `b`.
    let spare = after(6, "02:12:00");
    assert_eq!((spare.anchor.as_deref(), spare.backups.as_slice()), (Some("b"), &["a".to_owned()][..]));
    assert_eq!(numbers(&spare, &all), [1, 2, 3, 4]);
    assert_eq!(spare.since, Some(time("02:11:00")), "since then `b` alone leads over the limit");
    assert_eq!(after(11, "02:12:00"), Spare::default(), "nothing is older than the limit");
    // However old it is, the last chain stays.
    let spare = after(1, "23:00:00");
    assert_eq!(spare.backups, ["a", "b"]);
    assert_eq!(numbers(&spare, &all), [1, 2, 3, 4, 5, 6, 7, 8]);

    // A backup whose own WAL is not there leads nowhere, and for its sake nothing goes.
    let broken = vec![run(1, 1, 9, "02:00:00", "02:08:00")];
    let archived = Archived { coverage: &broken, ..archived };
    let spare = archived.spare(&all, Duration::from_secs(60), time("23:00:00"));
    assert_eq!((spare.anchor.as_deref(), spare.backups.as_slice()), (Some("b"), &["a".to_owned()][..]));
    assert_eq!(numbers(&spare, &all), [1, 2, 3, 4]);
    let none = Archived { coverage: &[], ..archived };
    assert_eq!(none.spare(&all, Duration::from_secs(60), time("23:00:00")), Spare::default());
}

#[test]
fn what_a_kept_backup_builds_on_stays_and_goes_last() {
    let on = |label: &str, parent: &str, from, stopped| BaseBackup {
        parent: Some(parent.to_owned()),
        ..backup(label, 1, from, stopped)
    };
    let full = |label, from, stopped| backup(label, 1, from, stopped);
    let backups = [
        full("a", 2, "02:00:00"),
        on("b", "a", 4, "02:10:00"),
        on("c", "b", 6, "02:20:00"),
        full("d", 8, "02:30:00"),
        on("e", "c", 9, "02:40:00"),
    ];
    let coverage = [run(1, 2, 12, "01:50:00", "03:00:00")];
    let all = segments(1, 2..12);
    let archived = Archived { backups: &backups, coverage: &coverage, forks: &[], size: SEGMENT };
    let spare = |minutes: u64| archived.spare(&all, Duration::from_secs(minutes * 60), time("03:00:00"));
    // The last before the limit is incremental; then it is full, and what came after it builds on older ones still.
    for (minutes, anchor) in [(45, "b"), (25, "d"), (10, "e")] {
        let found = spare(minutes);
        assert_eq!(found.anchor.as_deref(), Some(anchor));
        let going: &[String] = if anchor == "e" { &["d".to_owned()] } else { &[] };
        assert_eq!((found.backups.as_slice(), numbers(&found, &all)), (going, vec![]));
    }
    let labels = ["a", "b", "c", "d", "e"].map(str::to_owned);
    assert_eq!(super::retention::dependent(&backups, &labels), ["e", "c", "b"]);
    assert_eq!(super::retention::dependent(&backups, &labels[..2]), ["b"]);

    // Out of the bucket comes all of the chain.
    let window = window(backups[..3].to_vec(), coverage.to_vec(), Vec::new());
    let plan = ask(&window, RecoveryTarget::Latest).unwrap();
    assert_eq!((plan.backup.label.as_str(), plan.fetch_bytes), ("c", 3 * 100 + 6 * 10));
}

#[test]
fn the_wal_of_every_timeline_that_a_kept_backup_leads_to_stays() {
    let backups = vec![backup("a", 1, 2, "02:02:00"), backup("b", 2, 7, "02:07:00")];
    let forks = vec![Fork { timeline: 2, parent: 1, at: Lsn(6 * SEGMENT + 5), basis: Basis::Reported }];
    let runs = vec![run(1, 1, 7, "02:01:00", "02:06:00"), run(2, 6, 12, "02:06:00", "02:11:00")];
    let all: Vec<Listed> = [segments(1, 1..7), segments(2, 6..12)].concat();
    let archived = Archived { backups: &backups, coverage: &runs, forks: &forks, size: SEGMENT };
    let spare = |minutes: u64| archived.spare(&all, Duration::from_secs(minutes * 60), time("02:20:00"));
    let names = |spare: &Spare| {
        spare.segments.iter().map(|at| (all[*at].segment.timeline, all[*at].segment.number)).collect::<Vec<_>>()
    };
    // Back to 02:05: `a` leads there, and from it on everything is needed, on both timelines.
    assert_eq!((spare(15).anchor.as_deref(), names(&spare(15))), (Some("a"), vec![(1, 1)]));
    // Back to 02:08: `b` does, and it needs nothing of its parent's.
    let late = spare(12);
    assert_eq!((late.anchor.as_deref(), late.backups.as_slice()), (Some("b"), &["a".to_owned()][..]));
    assert_eq!(names(&late), [(1, 1), (1, 2), (1, 3), (1, 4), (1, 5), (1, 6), (2, 6)]);
    assert_eq!(archived.first_hole(time("00:00:00")), None);
    let holes = vec![run(1, 1, 4, "02:01:00", "02:03:00"), run(2, 6, 12, "02:06:00", "02:11:00")];
    let archived = Archived { coverage: &holes, ..archived };
    assert_eq!(archived.first_hole(time("00:00:00")), Some(("a".to_owned(), "b".to_owned(), Lsn(4 * SEGMENT))));
    assert_eq!(archived.first_hole(time("03:00:00")), None, "the limit does not ask for it");
}

#[test]
fn of_redis_the_last_that_is_there_stays() {
    let snapshots = ["02:00:00", "03:00:00", "04:00:00"].map(snapshot);
    let aof = |label: &str, from, to| AofRange {
        label: label.to_owned(),
        from: time(from),
        to: time(to),
        until: None,
        commands: 1,
        base_keys: 1,
        bytes: 1,
        stored_bytes: 1,
        redis_version: "7.0".to_owned(),
        basis: Basis::Observed,
    };
    let ranges = [aof("early/1", "02:00:00", "02:30:00"), aof("late/1", "02:30:00", "03:30:00")];
    let hours = |hours: u64| Duration::from_secs(hours * 3600);
    let spare = |limit, now| spare_of_redis(&snapshots, &ranges, limit, time(now));
    // Back to 03:10.
    let found = spare(hours(1), "04:10:00");
    assert_eq!((found.anchor.as_deref(), found.backups.as_slice()), (Some("03:00:00"), &["02:00:00".to_owned()][..]));
    assert_eq!((found.aof.as_slice(), found.since), (&["early/1".to_owned()][..], Some(time("03:30:00"))));
    assert_eq!(spare(hours(3), "04:10:00"), Spare::default());
    let found = spare(hours(1), "23:00:00");
    assert_eq!((found.backups.len(), found.aof.len()), (2, 2), "the newest snapshot stays");
    // Where there are no snapshots, the newest file is all there is.
    assert_eq!(spare_of_redis(&[], &ranges, hours(1), time("23:00:00")).aof, ["early/1"]);
}

#[tokio::test]
async fn too_much_wal_is_not_read_through_another_program() {
    let engine = Engine::from_options("wal-g", "/nowhere/wal-g".into(), None, None).unwrap();
    let home = tempfile::tempdir().unwrap();
    let coverage = run(1, 0, 5000, "00:00:00", "10:30:00");
    let listed = |number| {
        let segment = Segment { timeline: 1, number, size: SEGMENT };
        Listed { segment, key: segment.to_string(), bytes: SEGMENT, modified: time("10:00:00") }
    };
    let archive = Archive {
        bucket: crate::store::Bucket::open(&format!("file://{}", home.path().display()), "").unwrap(),
        supply: Supply::Engine(Arc::new(Reader::in_directory(engine, home.path()))),
        backups: vec![backup("only", 1, 1, "00:10:00")],
        coverage: vec![coverage],
        forks: Vec::new(),
        segments: (0..5000).map(listed).collect(),
        indexes: Indexes::default(),
        withheld: None,
        segment_bytes: SEGMENT,
        system_identifier: Some(7),
        incident: Some(time("10:02:31")),
    };
    let runtime = tokio::runtime::Handle::current();
    let way = archive.stretch().expect("it is all there is");
    let Err(refused) = archive.read(&way, &runtime) else { panic!("it was read") };
    let says = "the WAL was not read: 78 GiB of it lie behind only, and at most 64 GiB are read through wal-g";
    assert_eq!(refused.to_string(), says);
}
