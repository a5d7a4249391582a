//! Damage, and the way back.

use chrono::{DateTime, Utc};
use lifeboat::event::{Failure, RecoveryTarget, SystemWindow, Window};
use lifeboat::recovery::{Wanted, plan};
use lifeboat::secret::Secret;
use lifeboat::system::postgres::restore::{Owner, Patience, undo};
use lifeboat::system::postgres::{Plan, Proof, Report, Reporter, Repository, Restore, Restored, catalogue};
use tokio_util::sync::CancellationToken;

use super::promote::promotion;
use crate::support::contents;
use crate::support::postgres::{Primary, account, pg, program, stop_hard, value};

pub async fn window(primary: &Primary) -> Window {
    let found = catalogue::list(&primary.bucket()).await.expect("the bucket is listed");
    Window {
        looked: lifeboat::clock::wall_now(),
        incident: None,
        systems: vec![SystemWindow::Postgres {
            system: "orders-db".to_owned(),
            backups: found.backups,
            coverage: found.coverage,
            gaps: found.gaps,
            restore_points: found.restore_points,
            segment_bytes: found.segment_bytes,
            forks: found.forks,
            history: None,
            system_identifier: found.system_identifier.map(|id| id.to_string()),
            warnings: found.warnings,
        }],
    }
}

/// Ends the restored server when the test is over.
pub struct Clone {
    pub directory: std::path::PathBuf,
}

impl Drop for Clone {
    fn drop(&mut self) {
        stop_hard(&self.directory);
    }
}

pub async fn restore_of(primary: &Primary, target: RecoveryTarget, inclusive: bool, to: &str) -> Restore {
    let plan = plan(&window(primary).await, "orders-db", &Wanted::new(target, inclusive)).expect("a plan");
    restore_by(primary, plan.restore, to)
}

pub fn restore_by(primary: &Primary, plan: Plan, to: &str) -> Restore {
    Restore {
        from: Repository::Bucket { bucket: primary.bucket(), location: primary.location.clone() },
        plan,
        directory: primary.path(to),
        port: 0,
        run_as: account().map(|account| account.name),
        bin: Some(primary.bin.clone()),
        lifeboat: program(),
        source: primary.url.clone(),
        owner: Owner {
            drill: "drill-1".to_owned(),
            system: "orders-db".to_owned(),
            effect_key: "restore-db/1".to_owned(),
        },
        patience: Patience::default(),
        cancel: CancellationToken::new(),
        report: Reporter::silent(),
    }
}

pub async fn run(restore: Restore) -> (Clone, Result<Restored, Failure>) {
    let clone = Clone { directory: restore.directory.clone() };
    let log = restore.directory.join(".lifeboat/server.log");
    let result = restore.run().await;
    if let Err(failure) = &result {
        eprintln!("{failure:?}\n{}", std::fs::read_to_string(log).unwrap_or_default());
    }
    (clone, result)
}

pub async fn at(restored: &Restored, query: &str) -> String {
    value(&Secret::new(restored.url.clone()), query).await
}

pub const DIGEST: &str =
    "select count(*) || ' ' || coalesce(sum(hashtextextended(o::text, 0)::numeric), 0) from orders o";

const STATE: &str = "select pg_is_in_recovery() || ' ' || pg_get_wal_replay_pause_state()";

pub async fn now_of(primary: &Primary) -> DateTime<Utc> {
    let text = "select to_char(clock_timestamp() at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')";
    primary.value(text).await.parse().expect("a time")
}

/// A primary with a backup, orders before it and after it.
pub async fn shop() -> Primary {
    let primary = Primary::start().await;
    primary
        .sql(
            "create table orders (id bigserial primary key, item text not null, at timestamptz default clock_timestamp());
             insert into orders (item) select 'before ' || g from generate_series(1, 2000) g;",
        )
        .await;
    primary.backup().run().await.expect("the backup succeeds");
    primary.sql("insert into orders (item) select 'after ' || g from generate_series(1, 500) g").await;
    primary
}

#[tokio::test(flavor = "multi_thread")]
async fn the_damage_is_undone_row_for_row() {
    let primary = shop().await;
    let before = primary.value(DIGEST).await;
    let moment = now_of(&primary).await;
    let xid =
        primary.value("begin; select pg_current_xact_id()::text; delete from orders where id % 2 = 0; commit").await;
    primary.sql("create table traffic as select 1 as n").await;
    primary.archive().await;

    for (target, inclusive, to) in [
        (RecoveryTarget::Time { time: moment }, true, "by-time"),
        (RecoveryTarget::Xid { xid: xid.parse().unwrap() }, false, "by-xid"),
    ] {
        let (_clone, result) = run(restore_of(&primary, target, inclusive, to).await).await;
        let restored = result.expect("the restore succeeds");
        assert_eq!(at(&restored, DIGEST).await, before, "{to}");
        assert_eq!(at(&restored, STATE).await, "true paused");
        assert_eq!(at(&restored, "show archive_mode").await, "off");
        assert!(restored.recovered_to.is_some_and(|time| time <= moment));
        assert_eq!((restored.timeline, restored.locked.len()), (1, 0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn latest_and_an_lsn_end_where_they_should() {
    let primary = shop().await;
    let lsn = primary.value("select pg_current_wal_insert_lsn()::text").await;
    let at_lsn = primary.value(DIGEST).await;
    primary.sql("insert into orders (item) select 'last ' || g from generate_series(1, 100) g").await;
    let at_end = primary.value(DIGEST).await;
    primary.archive().await;
    // Written, but never archived: it cannot come back.
    primary.sql("insert into orders (item) values ('lost')").await;

    let (_one, result) =
        run(restore_of(&primary, RecoveryTarget::Lsn { lsn: lsn.parse().unwrap() }, false, "by-lsn").await).await;
    let restored = result.expect("the restore to an LSN succeeds");
    assert_eq!(at(&restored, DIGEST).await, at_lsn);

    let (_two, result) = run(restore_of(&primary, RecoveryTarget::Latest, true, "latest").await).await;
    let restored = result.expect("the restore to the end succeeds");
    assert_eq!(at(&restored, DIGEST).await, at_end);
    assert_eq!(at(&restored, STATE).await, "true paused");

    // The same run again finds it standing there, and touches nothing.
    let again = restore_of(&primary, RecoveryTarget::Latest, true, "latest").await.run().await.expect("it is found");
    assert!(again.found && again.pid == restored.pid && again.lsn == restored.lsn, "{again:?}");

    // Another target into the same directory, in the same drill: the first server goes, ours alone.
    let (_three, result) =
        run(restore_of(&primary, RecoveryTarget::Lsn { lsn: lsn.parse().unwrap() }, false, "latest").await).await;
    assert_eq!(at(&result.expect("it begins anew"), DIGEST).await, at_lsn);

    let said = undo(&primary.path("latest"), "drill-1", "orders-db").await.expect("the undo succeeds");
    assert!(said.contains("removed") && !primary.path("latest").exists(), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_later_point_goes_on_from_an_earlier_one_and_an_earlier_one_begins_anew() {
    let primary = shop().await;
    let mut points = Vec::new();
    for round in 0..4 {
        primary
            .sql(&format!("insert into orders (item) select 'round {round} ' || g from generate_series(1, 300) g"))
            .await;
        let lsn = primary.value("select pg_current_wal_insert_lsn()::text").await;
        points.push((RecoveryTarget::Lsn { lsn: lsn.parse().unwrap() }, primary.value(DIGEST).await));
        // Some points share a segment, others do not.
        if round != 1 {
            primary.archive().await;
        }
    }
    primary.sql("insert into orders (item) select 'end ' || g from generate_series(1, 300) g").await;
    primary.archive().await;
    points.push((RecoveryTarget::Latest, primary.value(DIGEST).await));

    let clone = Clone { directory: primary.path("clone") };
    let go = async |index: usize| {
        let (target, expected) = &points[index];
        let mut restore = restore_of(&primary, target.clone(), matches!(target, RecoveryTarget::Latest), "clone").await;
        // As after the operator went back to the step.
        restore.owner.effect_key = format!("restore-db#{index}");
        let (report, mut reports) = Reporter::channel(1024);
        restore.report = report;
        let restored = restore.run().await.unwrap_or_else(|failure| panic!("{index}: {failure:?}"));
        assert_eq!(at(&restored, DIGEST).await, *expected, "{index}");
        assert_eq!(at(&restored, STATE).await, "true paused");
        let mut said = Vec::new();
        while let Some(report) = reports.recv().await {
            if let Report::Line(line) = report {
                said.push(line);
            }
        }
        (restored, said.join("\n"))
    };
    let (first, _) = go(0).await;
    for index in 1..points.len() {
        let (restored, said) = go(index).await;
        assert!(said.contains("the base backup is kept") && !said.contains("unpacked"), "{index}: {said}");
        assert_eq!((restored.base_seconds, restored.found), (0.0, false));
        assert!(restored.lsn > first.lsn && restored.pid != first.pid);
    }
    let (_, said) = go(1).await;
    assert!(said.contains("replay never goes back") && said.contains("unpacked"), "{said}");
    drop(clone);
}

/// A file system of its own, on a loop device.
pub struct Mounted(pub std::path::PathBuf);

impl Mounted {
    pub fn xfs(primary: &Primary) -> Self {
        let (image, place) = (primary.path("xfs.img"), primary.path("xfs"));
        std::fs::File::create(&image).and_then(|file| file.set_len(8 << 30)).expect("a sparse file");
        std::fs::create_dir(&place).expect("a mount point");
        let run = |program: &str, arguments: &[&std::ffi::OsStr]| {
            let status = std::process::Command::new(program).args(arguments).status();
            assert!(status.expect(program).success(), "{program}");
        };
        run("mkfs.xfs", &["-q".as_ref(), image.as_os_str()]);
        run("mount", &["-o".as_ref(), "loop".as_ref(), image.as_os_str(), place.as_os_str()]);
        Self(place)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "mounts a file system of its own, as root: tests/run --long"]
async fn where_blocks_are_shared_an_earlier_point_needs_no_second_download() {
    let primary = shop().await;
    let mut points = Vec::new();
    for round in 0..2 {
        let lsn = primary.value("select pg_current_wal_insert_lsn()::text").await;
        points.push((RecoveryTarget::Lsn { lsn: lsn.parse().unwrap() }, primary.value(DIGEST).await));
        primary.sql(&format!("delete from orders where id % 3 = {round}")).await;
    }
    primary.archive().await;
    let mounted = Mounted::xfs(&primary);
    let directory = mounted.0.join("clone");
    let clone = Clone { directory: directory.clone() };
    let mut parts_read = Vec::new();
    for index in [1, 0, 1] {
        let (target, expected) = &points[index];
        let mut restore = restore_of(&primary, target.clone(), false, "unused").await;
        restore.directory = directory.clone();
        let base = primary.path(&format!("bucket/orders-db/base/{}", restore.plan.label));
        let (report, mut reports) = Reporter::channel(1024);
        restore.report = report;
        let restored = restore.run().await.unwrap_or_else(|failure| panic!("{index}: {failure:?}"));
        assert_eq!(at(&restored, DIGEST).await, *expected, "{index}");
        let mut said = String::new();
        while let Some(report) = reports.recv().await {
            if let Report::Line(line) = report {
                said += &line;
                said += "\n";
            }
        }
        parts_read.push(said.contains("verified and unpacked"));
        // What comes later lives on what was kept.
        for part in std::fs::read_dir(&base).unwrap().flatten().map(|entry| entry.path()) {
            if part.to_string_lossy().contains("/part-") {
                let bytes = std::fs::metadata(&part).unwrap().len();
                std::fs::write(&part, vec![0; usize::try_from(bytes).unwrap()]).unwrap();
            }
        }
    }
    assert_eq!(parts_read, [true, false, false]);
    let kept = directory.join(".lifeboat");
    assert!(std::fs::read_dir(&kept).unwrap().flatten().any(|e| e.file_name().to_string_lossy().starts_with("base-")));
    drop(clone);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hole_is_never_crossed() {
    let primary = shop().await;
    primary.archive().await;
    primary.sql("insert into orders (item) values ('middle')").await;
    let hole = primary.archive().await;
    primary.sql("insert into orders (item) values ('end')").await;
    let moment = now_of(&primary).await;
    primary.archive().await;
    // Planned while it was there, gone when it is needed.
    let target = RecoveryTarget::Time { time: moment };
    let planned = restore_of(&primary, target.clone(), true, "holed").await;
    let latest = restore_of(&primary, RecoveryTarget::Latest, true, "holed-latest").await;
    primary.bucket().delete(&format!("wal/{}/{hole}.zst", &hole[..8])).await.unwrap();
    for restore in [planned, latest] {
        let (clone, result) = run(restore).await;
        let failure = result.unwrap_err();
        assert!(failure.to_string().contains(&hole), "{failure}");
        assert!(lifeboat::system::postgres::restore::read_marker(&clone.directory).unwrap().is_some());
        assert!(!clone.directory.join("postmaster.pid").exists(), "no half-restored server stays up");
    }
    let refusal = plan(&window(&primary).await, "orders-db", &Wanted::new(target, true)).unwrap_err();
    assert!(Failure::from(refusal).why.contains(&hole));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_part_is_named_and_not_used() {
    let primary = shop().await;
    primary.archive().await;
    let restore = restore_of(&primary, RecoveryTarget::Latest, true, "damaged").await;
    let part = primary.path(&format!("bucket/orders-db/base/{}/part-0001.tar.zst", restore.plan.label));
    let mut bytes = std::fs::read(&part).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&part, bytes).unwrap();
    let (clone, result) = run(restore).await;
    let failure = result.unwrap_err();
    assert!(failure.what.contains("part-0001.tar.zst") && failure.why.contains("SHA-256"), "{failure:?}");
    assert!(!clone.directory.join("postmaster.pid").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn row_01_what_is_not_ours_is_not_touched() {
    let primary = shop().await;
    primary.archive().await;
    let decoy = Primary::start().await;
    decoy.sql("create table precious as select 1 as n").await;
    decoy.down("fast").await;
    std::os::unix::fs::symlink(&decoy.data, primary.path("link")).unwrap();
    let before = contents(&decoy.data);
    for (place, why) in [
        (decoy.data.clone(), "PostgreSQL cluster"),
        (primary.path("link"), "link"),
        (decoy.data.join("postgresql.conf"), "a file"),
        (decoy.data.join("base"), "files"),
        ("relative".into(), "absolute"),
        // The running primary itself.
        (primary.data.clone(), "PostgreSQL cluster"),
    ] {
        let mut restore = restore_of(&primary, RecoveryTarget::Latest, true, "x").await;
        restore.directory = place.clone();
        let said = restore.run().await.err().map(|failure| failure.why).unwrap_or_default();
        assert_eq!(contents(&decoy.data), before, "the decoy was changed by a restore to {}", place.display());
        assert!(said.contains(why), "{}: {said}", place.display());
    }
    assert!(undo(&decoy.data, "drill-1", "orders-db").await.is_err());
    assert_eq!(contents(&decoy.data), before, "the decoy was changed by an undo");
    assert_eq!(primary.value("select count(*) from orders").await, "2500");
}

#[tokio::test(flavor = "multi_thread")]
async fn row_01_the_restore_of_another_drill_is_not_ours() {
    let primary = shop().await;
    primary.archive().await;
    let (clone, result) = run(restore_of(&primary, RecoveryTarget::Latest, true, "ours").await).await;
    let pid = result.expect("the restore succeeds").pid;
    let marker = std::fs::read(clone.directory.join(".lifeboat-restore.json")).unwrap();
    for (drill, system) in [("drill-2", "orders-db"), ("drill-1", "billing-db")] {
        let mut other = restore_of(&primary, RecoveryTarget::Latest, true, "ours").await;
        (other.owner.drill, other.owner.system) = (drill.to_owned(), system.to_owned());
        let said = other.run().await.err().map(|failure| failure.why).unwrap_or_default();
        assert!(said.contains("by drill drill-1"), "{drill} took over the restore of drill-1: {said:?}");
        assert!(undo(&clone.directory, drill, system).await.is_err());
    }
    assert_eq!(std::fs::read(clone.directory.join(".lifeboat-restore.json")).unwrap(), marker);
    assert!(std::path::Path::new(&format!("/proc/{pid}")).exists(), "its server was stopped");
}

/// Four operators, each with a drill of their own, into one directory at once.
#[tokio::test(flavor = "multi_thread")]
async fn row_19_of_simultaneous_starts_one_wins() {
    let primary = shop().await;
    primary.archive().await;
    let directory = primary.path("target");
    let clone = Clone { directory: directory.clone() };
    let mut starts = Vec::new();
    for n in 0..4 {
        let mut restore = restore_of(&primary, RecoveryTarget::Latest, true, "target").await;
        restore.owner.drill = format!("drill-{n}");
        starts.push(restore.run());
    }
    let results = futures::future::join_all(starts.into_iter().map(tokio::spawn)).await;
    let results: Vec<_> = results.into_iter().map(|result| result.expect("no panic")).collect();
    let winners: Vec<usize> = (0..4).filter(|n| results[*n].is_ok()).collect();
    assert_eq!(winners.len(), 1, "of 4 starts, not exactly one won: {results:?}");
    for failure in results.iter().filter_map(|result| result.as_ref().err()) {
        let refused = failure.why.contains("another Lifeboat") || failure.why.contains("by drill");
        assert!(refused, "of 4 starts, not exactly one won: {failure:?}");
    }
    let marker = lifeboat::system::postgres::restore::read_marker(&directory).unwrap().unwrap();
    assert_eq!(marker.owner.drill, format!("drill-{}", winners[0]), "the directory is said to be a loser's");
    assert_eq!(at(results[winners[0]].as_ref().unwrap(), STATE).await, "true paused");
    drop(clone);
}

#[tokio::test(flavor = "multi_thread")]
async fn row_05_a_clone_never_writes_into_the_archive_it_came_from() {
    let primary = shop().await;
    // The backup carries this along.
    primary.sql("alter system set archive_timeout = '1s'").await;
    primary.backup().run().await.expect("the backup succeeds");
    primary.archive().await;
    primary.down("fast").await;
    let before = contents(&primary.path("bucket"));
    let (clone, result) = run(restore_of(&primary, RecoveryTarget::Latest, true, "clone").await).await;
    let restored = result.expect("the restore succeeds");
    promotion(&restored, Proof::Source(primary.url.clone())).run().await.expect("it is promoted");
    // It writes, and ends segments, as any server does.
    for _ in 0..3 {
        at(&restored, "insert into orders (item) values ('new') returning id").await;
        at(&restored, "select pg_switch_wal()").await;
    }
    // An end by `fast` waits until its archiver has sent everything.
    pg("pg_ctl", &["stop", "-w", "-m", "fast", "-D", clone.directory.to_str().unwrap()]).await;
    let after = contents(&primary.path("bucket"));
    let new: Vec<_> = after.keys().filter(|path| !before.contains_key(*path)).collect();
    assert_eq!(after, before, "the clone wrote into production's archive: {new:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn row_05_what_was_made_to_archive_meanwhile_is_not_promoted() {
    let primary = shop().await;
    primary.archive().await;
    let (clone, result) = run(restore_of(&primary, RecoveryTarget::Latest, true, "clone").await).await;
    let restored = result.expect("the restore succeeds");
    let file = clone.directory.join("postgresql.auto.conf");
    std::fs::write(&file, "archive_mode = on\narchive_command = 'false'\n").unwrap();
    let data = clone.directory.to_str().unwrap();
    pg("pg_ctl", &["restart", "-w", "-m", "fast", "-D", data, "-l", "/dev/null"]).await;
    // As it stood before.
    at(&restored, "select pg_wal_replay_pause()").await;
    let paused = async { while at(&restored, STATE).await != "true paused" {} };
    tokio::time::timeout(std::time::Duration::from_secs(20), paused).await.expect("it pauses");
    primary.down("fast").await;
    let said = promotion(&restored, Proof::Source(primary.url.clone())).run().await.err();
    let what = said.as_ref().map(|failure| failure.what.as_str());
    assert_eq!(
        what,
        Some("the restored server would archive its WAL"),
        "a server that archives was promoted: {said:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_the_wal_does_not_reach_is_no_success() {
    let primary = shop().await;
    primary.archive().await;
    // The listing cannot know that no commit lies between this moment and the end.
    let moment = lifeboat::clock::wall_now();
    primary.sql("select pg_logical_emit_message(false, 'no', 'commit')").await;
    primary.archive().await;
    let (_clone, result) = run(restore_of(&primary, RecoveryTarget::Time { time: moment }, true, "late").await).await;
    let failure = result.unwrap_err();
    assert!(failure.why.contains("the WAL ends before the target"), "{failure:?}");
    assert!(failure.why.contains("the last commit in it was at"), "{failure:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_run_is_taken_up_again() {
    let primary = shop().await;
    let before = primary.value(DIGEST).await;
    primary.archive().await;
    let mut first = restore_of(&primary, RecoveryTarget::Latest, true, "clone").await;
    let (report, mut reports) = Reporter::channel(1024);
    first.report = report;
    let clone = Clone { directory: first.directory.clone() };
    let running = tokio::spawn(first.run());
    // The server was just started on verified files: here the program dies.
    while let Some(said) = reports.recv().await {
        if matches!(&said, Report::Line(line) if line.contains("recovery begins")) {
            break;
        }
    }
    running.abort();
    let _ = running.await;
    let restored = restore_of(&primary, RecoveryTarget::Latest, true, "clone").await.run().await.expect("it goes on");
    assert!(restored.found, "what was verified is not fetched again");
    assert_eq!(at(&restored, DIGEST).await, before);

    // Cancelled is cancelled: no server stays.
    let cancelled = restore_of(&primary, RecoveryTarget::Latest, false, "clone").await;
    cancelled.cancel.cancel();
    let failure = cancelled.run().await.unwrap_err();
    assert!(failure.what.contains("cancelled"), "{failure:?}");
    assert!(!clone.directory.join("postmaster.pid").exists());
}

/// It runs, and nobody is at home: while it says that it is ready, and while it says that it starts.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_runs_and_does_not_answer_is_given_up_with_its_log() {
    for status in ["ready", "starting"] {
        let primary = shop().await;
        let restore = || async { restore_of(&primary, RecoveryTarget::Latest, true, "restored").await };
        let (_clone, restored) = run(restore().await).await;
        let restored = restored.expect("the restore succeeds");
        let pid_file = restored.directory.join("postmaster.pid");
        let lines = std::fs::read_to_string(&pid_file).unwrap();
        std::fs::write(&pid_file, lines.replace("ready", status)).unwrap();
        let pid = nix::unistd::Pid::from_raw(restored.pid.try_into().unwrap());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGSTOP).unwrap();
        let moment = std::time::Duration::from_secs(1);
        let mut again = restore().await;
        again.patience = Patience { starting: moment, answering: moment };
        let (_, ended) = run(again).await;
        let failure = ended.expect_err("nothing answers there");
        assert_eq!(failure.what, "the restored server does not answer", "{failure:?}");
        assert!(failure.now.as_ref().is_some_and(|now| now.contains("server.log")), "{failure:?}");
        assert!(!pid_file.exists(), "what cannot be vouched for does not stay up");
        let (_clone, restored) = run(restore().await).await;
        assert!(!restored.expect("a retry begins anew").found);
    }
}
