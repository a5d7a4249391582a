//! WAL that is missing, damaged, or in a window that says it is there.

use std::time::Duration;

use lifeboat::event::RecoveryTarget;

use super::scene::{ROWS, Scene};
use crate::postgres::restore::{at, restore_of, run};

#[tokio::test(flavor = "multi_thread")]
async fn silent_01_a_missing_segment_ends_what_is_latest() {
    let scene = Scene::new(&[]).await;
    scene.back_up().await;
    scene.write("one").await;
    scene.primary.archive().await;
    scene.write("two").await;
    let hole = scene.primary.archive().await;
    scene.write("three").await;
    scene.primary.archive().await;
    scene.lose(&hole);

    let plain = scene.recover_plainly("plain", &[]).await;
    assert_eq!(plain.promoted().await.rows().await, "one");
    assert!(!plain.complains(), "{}", plain.log());

    scene.refused("latest", &[&hole, "missing"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn silent_01_a_damaged_segment_ends_what_is_latest() {
    let scene = Scene::new(&[]).await;
    scene.back_up().await;
    scene.write("one").await;
    let before = scene.now().await;
    scene.write("one more").await;
    scene.primary.archive().await;
    scene.write("two").await;
    let torn = scene.primary.archive().await;
    scene.write("three").await;
    let behind = scene.now().await;
    scene.write("four").await;
    scene.primary.archive().await;
    // A disk that lost its writes, before anybody made a checksum of the file: only the first header is there.
    scene.spoil(&torn, |bytes| bytes[100..].fill(0));

    let plain = scene.recover_plainly("plain", &[]).await;
    assert_eq!(plain.promoted().await.rows().await, "one one more");
    assert!(!plain.complains(), "{}", plain.log());

    scene.refused("latest", &[&torn]);
    scene.refused(&behind.to_rfc3339(), &[&torn]);
    // What lies before it can be had.
    let (_clone, result) = scene.restore(&before.to_rfc3339(), true, "restored").await;
    assert_eq!(at(&result.expect("it is restored"), ROWS).await, "one");
    // A step that was planned by the listing alone fails, and leaves no server.
    let restore = restore_of(&scene.primary, RecoveryTarget::Latest, true, "listed").await;
    let directory = restore.directory.clone();
    let ended = tokio::time::timeout(Duration::from_secs(20), run(restore)).await;
    let (_clone, result) = ended
        .unwrap_or_else(|_| panic!("{}", std::fs::read_to_string(directory.join(".lifeboat/server.log")).unwrap()));
    let failure = result.unwrap_err();
    assert!(failure.to_string().contains(&torn), "{failure:?}");
    assert!(!directory.join("postmaster.pid").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn silent_01_damage_in_the_last_segment_is_no_end() {
    let scene = Scene::new(&[]).await;
    scene.back_up().await;
    scene.write("one").await;
    scene.primary.archive().await;
    scene.write("two").await;
    let last = scene.primary.archive().await;
    scene.spoil(&last, |bytes| bytes[100..].fill(0));

    let plain = scene.recover_plainly("plain", &[]).await;
    assert_eq!(plain.promoted().await.rows().await, "one");
    assert!(!plain.complains(), "{}", plain.log());

    scene.refused("latest", &[&last]);
    let restore = restore_of(&scene.primary, RecoveryTarget::Latest, true, "listed").await;
    let directory = restore.directory.clone();
    let ended = tokio::time::timeout(Duration::from_secs(20), run(restore)).await;
    let (_clone, result) = ended
        .unwrap_or_else(|_| panic!("{}", std::fs::read_to_string(directory.join(".lifeboat/server.log")).unwrap()));
    let failure = result.unwrap_err();
    assert!(failure.to_string().contains(&last), "{failure:?}");
    assert!(!directory.join("postmaster.pid").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn silent_09_a_window_ends_at_the_first_gap_of_its_lineage() {
    let scene = Scene::new(&[]).await;
    scene.back_up().await;
    scene.write("one").await;
    let before = scene.now().await;
    scene.write("one more").await;
    scene.primary.archive().await;
    scene.write("two").await;
    let hole = scene.primary.archive().await;
    scene.primary.down("immediate").await;
    // The standby takes over, in the segment behind the last one of the first timeline.
    let copy = format!("restore_command = 'cp {}/%f %p'", scene.primary.path("plain").display());
    let standby = scene.recover_by("standby", &[&copy]).await;
    standby.promoted().await.sql("insert into t values ('three')").await;
    let target = scene.now_at(&standby.url).await;
    standby.sql("insert into t values ('four')").await;
    let last = scene.archive(&standby.url).await;
    assert_eq!(&last[..8], "00000002");
    // Without the gap it is reached, over the fork.
    let (_clone, result) = scene.restore(&target.to_rfc3339(), true, "whole").await;
    assert_eq!(at(&result.expect("it is restored"), ROWS).await, "one one more three two");
    scene.lose(&hole);

    // The first and the last segment are there, and neither timeline has a gap between its own ends.
    let plain = scene.recover_plainly("plain", &[]).await;
    assert_eq!(plain.promoted().await.rows().await, "one one more");
    assert!(!plain.complains(), "{}", plain.log());

    scene.refused("latest", &[&hole, "missing"]);
    scene.refused(&target.to_rfc3339(), &[&hole, "missing"]);
    let (code, said) = scene.points(&[]);
    assert!(code == 0 && said.contains(&format!("GAP {hole} … {hole}")), "{code} {said}");
    let (_clone, result) = scene.restore(&before.to_rfc3339(), true, "restored").await;
    assert_eq!(at(&result.expect("it is restored"), ROWS).await, "one");
}

#[tokio::test(flavor = "multi_thread")]
async fn silent_09_when_a_segment_was_archived_is_not_how_far_it_reaches() {
    let scene = Scene::new(&[]).await;
    scene.back_up().await;
    scene.write("one").await;
    let command = scene.primary.value("show archive_command").await.replace('\'', "''");
    scene.primary.sql("alter system set archive_command = '/bin/false'").await;
    scene.primary.value("select pg_reload_conf()").await;
    scene.primary.value("select pg_switch_wal()").await;
    scene.write("two").await;
    let target = scene.now().await;
    scene.write("three").await;
    // The archiver comes back late: the segment with `one` in it is stored after the target.
    scene.primary.sql(&format!("alter system set archive_command = '{command}'")).await;
    scene.primary.value("select pg_reload_conf()").await;
    let last = scene.primary.archive().await;
    scene.lose(&last);

    scene.refused(&target.to_rfc3339(), &["ends before"]);
}
