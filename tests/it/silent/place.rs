//! Targets that PostgreSQL takes for others: timelines, times, the order of commits.

use lifeboat::event::RecoveryTarget;
use lifeboat::recovery::{Wanted, collect, plan};

use super::scene::{ROWS, SYSTEM, Scene};
use crate::postgres::restore::{at, restore_by, run};

#[tokio::test(flavor = "multi_thread")]
async fn silent_03_a_clone_s_timeline_is_not_followed() {
    let scene = Scene::new(&[]).await;
    scene.back_up().await;
    scene.write("one").await;
    scene.primary.archive().await;
    // Somebody restores a clone to look at it; its configuration came with the backup, and archives.
    let copy = format!("restore_command = 'cp {}/%f %p'", scene.primary.path("plain").display());
    let clone = scene.recover_by("clone", &[&copy]).await;
    clone.promoted().await.sql("insert into t values ('clone')").await;
    scene.archive(&clone.url).await;
    scene.write("two").await;
    let target = scene.now().await;
    scene.write("three").await;
    clone.sql("insert into t values ('clone later')").await;
    scene.primary.archive().await;
    scene.archive(&clone.url).await;

    let plain = scene.recover_plainly("plain", &[]).await;
    assert_eq!(plain.promoted().await.rows().await, "clone clone later one");
    assert!(!plain.complains(), "{}", plain.log());

    for target in ["latest", &target.to_rfc3339()] {
        scene.refused(target, &["two histories", "timeline 1", "timeline 2"]);
    }
    // A person who says which one gets that one.
    let window = collect(scene.inventory(), &[SYSTEM.to_owned()], None).await.unwrap();
    let wanted = Wanted { timeline: Some(1), ..Wanted::new(RecoveryTarget::Latest, true) };
    let plan = plan(&window, SYSTEM, &wanted).expect("a plan");
    let (_clone, result) = run(restore_by(&scene.primary, plan.restore, "restored")).await;
    assert_eq!(at(&result.expect("it is restored"), ROWS).await, "one three two");
}

#[tokio::test(flavor = "multi_thread")]
async fn silent_04_a_time_before_the_backup_s_end_is_refused() {
    let scene = Scene::new(&[]).await;
    scene.write("one").await;
    let target = scene.now().await;
    scene.write("damage").await;
    scene.back_up().await;
    scene.write("later").await;
    scene.primary.archive().await;

    let time = format!("recovery_target_time = '{}'", target.format("%Y-%m-%d %H:%M:%S%.6f+00"));
    let plain = scene.recover_plainly("plain", &[&time, "recovery_target_action = promote"]).await;
    assert_eq!(plain.promoted().await.rows().await, "damage one");
    assert!(!plain.complains(), "{}", plain.log());

    scene.refused(&target.to_rfc3339(), &["before the end of the first backup", "is not consistent before that"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn silent_05_a_time_means_the_same_in_every_zone() {
    let scene = Scene::new(&["timezone = 'Asia/Tokyo'"]).await;
    scene.write("one").await;
    scene.back_up().await;
    scene.write("two").await;
    let target = scene.now().await;
    scene.write("three").await;
    scene.primary.archive().await;

    let zulu = target.format("%Y-%m-%dT%H:%M:%S%.6fZ").to_string();
    let plain = scene.recover_plainly("zulu", &[&format!("recovery_target_time = '{zulu}'")]).await;
    assert!(!plain.started && plain.log().contains("invalid value for parameter"), "{}", plain.log());
    // What is left is the text without the `Z`; nine hours early, which is before the backup.
    let bare = target.format("%Y-%m-%d %H:%M:%S%.6f").to_string();
    let settings = [&format!("recovery_target_time = '{bare}'"), "recovery_target_action = promote"];
    let plain = scene.recover_plainly("bare", &settings).await;
    assert_eq!(plain.promoted().await.rows().await, "one");
    assert!(!plain.complains(), "{}", plain.log());

    let (code, said) = scene.points(&["--target", &bare]);
    assert!(code == 2 && said.contains("has no offset"), "{code} {said}");
    let tokyo = (target + chrono::Duration::hours(9)).format("%Y-%m-%dT%H:%M:%S%.6f+09:00").to_string();
    for (text, to) in [(zulu, "from-zulu"), (tokyo, "from-tokyo")] {
        let (_clone, result) = scene.restore(&text, true, to).await;
        assert_eq!(at(&result.expect("it is restored"), ROWS).await, "one two", "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn silent_06_commits_are_not_in_the_order_of_their_times() {
    let scene = Scene::new(&["synchronous_commit = off", "wal_buffers = 64kB"]).await;
    scene.primary.sql("create table busy (n bigserial, xid xid8 default pg_current_xact_id())").await;
    scene.back_up().await;
    let pair = scene.out_of_order().await;
    scene.write("end").await;
    scene.primary.archive().await;
    let there = |xid: u32| format!("select count(*) from busy where xid::text = '{xid}'");

    // "Up to and with the commit of this moment": it is not there.
    let time = format!("recovery_target_time = '{}'", pair.early.1.format("%Y-%m-%d %H:%M:%S%.6f+00"));
    let plain = scene.recover_plainly("plain", &[&time, "recovery_target_action = promote"]).await;
    assert_eq!(plain.promoted().await.value(&there(pair.early.0)).await, "0");
    assert!(!plain.complains(), "{}", plain.log());

    let (code, said) = scene.points(&["--target", &pair.early.1.to_rfc3339(), "--inclusive"]);
    assert!(code == 1 && said.contains(&format!("xid:{}", pair.early.0)), "{code} {said}");
    // Where another target leaves it out, that is said.
    let (code, said) = scene.points(&["--target", &pair.late.1.to_rfc3339()]);
    assert!(code == 0 && said.contains("with a time within the target"), "{code} {said}");
    // By its number it is there, and what precedes it in the WAL.
    let (_clone, result) = scene.restore(&format!("xid:{}", pair.early.0), true, "restored").await;
    let restored = result.expect("it is restored");
    for xid in [pair.early.0, pair.late.0] {
        assert_eq!(at(&restored, &there(xid)).await, "1");
    }
}
