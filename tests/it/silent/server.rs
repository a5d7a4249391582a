//! What a server says of itself: settings, timeline, identity.

use std::process::Command;

use lifeboat::event::RecoveryTarget;
use lifeboat::secret::Secret;
use lifeboat::system::postgres::restore::undo;
use lifeboat::system::postgres::{Promote, Proof, Reporter};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::scene::{ROWS, SYSTEM, Scene};
use crate::postgres::restore::{at, restore_of, run};
use crate::support::postgres::{pg, program, value};

#[tokio::test(flavor = "multi_thread")]
async fn silent_07_a_pause_for_settings_is_not_the_target() {
    let scene = Scene::new(&[]).await;
    scene.back_up().await;
    scene.write("one").await;
    scene.primary.archive().await;
    // The source is given more connections after its backup.
    scene.primary.sql("alter system set max_connections = 250").await;
    scene.primary.down("fast").await;
    scene.primary.up().await;
    scene.write("two").await;
    let target = scene.now().await;
    scene.write("three").await;
    scene.primary.archive().await;

    // Below what the backup says, PostgreSQL refuses.
    let low = scene.recover_plainly("low", &["max_connections = 20"]).await;
    assert!(!low.started && low.log().contains("FATAL"), "{}", low.log());
    // Below what the WAL says later, it stops somewhere, and answers that it is paused.
    let time = format!("recovery_target_time = '{}'", target.format("%Y-%m-%d %H:%M:%S%.6f+00"));
    let plain = scene.recover_plainly("plain", &[&time, "recovery_target_action = pause"]).await;
    assert_eq!(plain.paused().await.rows().await, "one");

    // A step that was planned by the listing alone fails there, the end of WAL included.
    for (wanted, to) in [(RecoveryTarget::Time { time: target }, "listed"), (RecoveryTarget::Latest, "listed-latest")] {
        let (_clone, result) = run(restore_of(&scene.primary, wanted, true, to).await).await;
        let failure = result.unwrap_err();
        assert!(failure.why.contains("max_connections") && failure.why.contains("250"), "{failure:?}");
    }
    // One whose WAL was read knows what the server needs.
    for (wanted, expected, to) in
        [(target.to_rfc3339(), "one two", "timed"), ("latest".into(), "one three two", "latest")]
    {
        let (_clone, result) = scene.restore(&wanted, true, to).await;
        assert_eq!(at(&result.expect("it is restored"), ROWS).await, expected, "{wanted}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn silent_08_a_promoted_server_s_control_file_names_the_old_timeline() {
    let scene = Scene::new(&[]).await;
    scene.back_up().await;
    scene.write("one").await;
    scene.primary.archive().await;
    let before = scene.points(&["--target", "latest", "--json"]);
    assert_eq!(before.0, 0, "{}", before.1);
    let (_clone, result) = scene.restore("latest", true, "restored").await;
    let restored = result.expect("it is restored");
    let url = Secret::new(restored.url.clone());
    // It has to write the control file, and does not come to it.
    let checkpointer = value(&url, "select pid from pg_stat_activity where backend_type = 'checkpointer'").await;
    let checkpointer = Pid::from_raw(checkpointer.parse().unwrap());
    kill(checkpointer, Signal::SIGSTOP).unwrap();
    // Somebody promotes it by hand, and the service writes to it.
    value(&url, "select pg_promote()").await;
    value(&url, "insert into t values ('precious') returning what").await;
    let control = pg("pg_controldata", &["-D", restored.directory.to_str().unwrap()]).await.stdout_text();
    let line = control.lines().find(|line| line.starts_with("Latest checkpoint's TimeLineID")).unwrap();
    assert!(line.ends_with(" 1"), "{line}");
    assert_eq!(value(&url, "select substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8)").await, "00000002");

    // Neither the promotion nor another restore nor an undo takes it for what was looked at.
    let promote = Promote {
        directory: restored.directory.clone(),
        url: url.clone(),
        drill: "drill-1".to_owned(),
        system: SYSTEM.to_owned(),
        proof: Proof::NotNeeded { why: "a rehearsal".to_owned() },
        report: Reporter::silent(),
    };
    let failure = promote.run().await.unwrap_err();
    assert!(failure.what.contains("not by this step") && failure.why.contains("timeline 2"), "{failure:?}");
    let again = restore_of(&scene.primary, RecoveryTarget::Latest, true, "restored").await.run().await.unwrap_err();
    assert!(again.why.contains("promoted"), "{again:?}");
    assert_eq!(value(&url, ROWS).await, "one precious");
    kill(checkpointer, Signal::SIGCONT).unwrap();
    let said = undo(&restored.directory, "drill-1", SYSTEM).await.unwrap();
    assert!(said.contains("kept as"), "{said}");
}

/// A cluster of its own out of a copy of the base backup: its identifier is the source's plus one.
fn twin(scene: &Scene) -> (std::path::PathBuf, u64) {
    let data = scene.primary.path("twin");
    let copied = Command::new("cp").arg("-a").arg(scene.primary.path("base")).arg(&data).status().unwrap();
    assert!(copied.success());
    std::fs::remove_file(data.join("backup_label")).unwrap();
    let path = data.join("global/pg_control");
    let mut bytes = std::fs::read(&path).unwrap();
    let sum = |bytes: &[u8], at: usize| crc32c::crc32c(&bytes[..at]).to_le_bytes();
    let at = (200..500).step_by(4).find(|at| bytes[*at..at + 4] == sum(&bytes, *at)).expect("its checksum");
    let id = u64::from_le_bytes(bytes[..8].try_into().unwrap()) + 1;
    bytes[..8].copy_from_slice(&id.to_le_bytes());
    let new = sum(&bytes, at);
    bytes[at..at + 4].copy_from_slice(&new);
    std::fs::write(&path, bytes).unwrap();
    (data, id)
}

#[tokio::test(flavor = "multi_thread")]
async fn silent_10_two_clusters_differ_in_the_last_digit() {
    let scene = Scene::new(&[]).await;
    scene.back_up().await;
    scene.write("one").await;
    scene.primary.archive().await;
    scene.write("two").await;
    let name = scene.primary.archive().await;
    let (data, id) = twin(&scene);
    pg("pg_resetwal", &["-f", "-l", &name, "-D", data.to_str().unwrap()]).await;
    // A number of most languages takes the two for one.
    let own: u64 =
        value(&scene.primary.url, "select system_identifier from pg_control_system()").await.parse().unwrap();
    assert!(own + 1 == id && own as f64 == id as f64);
    let segment = data.join("pg_wal").join(&name);
    assert_eq!(std::fs::read(&segment).unwrap()[24..32], id.to_le_bytes());

    // The twin archives into the source's archive.
    std::fs::copy(&segment, scene.plain(&name)).unwrap();
    let plain = scene.recover_plainly("plain", &[]).await;
    assert_eq!(plain.promoted().await.rows().await, "one");
    assert!(!plain.complains(), "{}", plain.log());

    let pushed = Command::new(program())
        .args(["wal", "push", "--store", &scene.primary.location.url, "--prefix", SYSTEM])
        .arg(&segment)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&pushed.stderr).into_owned();
    assert!(pushed.status.code() == Some(1), "{said}");
    assert!(said.contains(&own.to_string()) && said.contains(&id.to_string()), "{said}");
    // Nor is it replayed when it came there in another way.
    let foreign = std::fs::read(&segment).unwrap();
    let listed = restore_of(&scene.primary, RecoveryTarget::Latest, true, "listed").await;
    scene.spoil(&name, |bytes| *bytes = foreign);
    let (_clone, result) = run(listed).await;
    let failure = result.unwrap_err();
    assert!(failure.why.contains(&own.to_string()) && failure.why.contains(&id.to_string()), "{failure:?}");
    scene.refused("latest", &[&name]);
    let (_, json) = scene.points(&["--json"]);
    assert!(json.contains(&format!("\"{own}\"")), "{json}");
}
