//! `restore_command`: what is not there, and what cannot be had just now.

use std::path::Path;

use lifeboat::event::RecoveryTarget;
use lifeboat::system::postgres::wal::{Fetch, Origin, restore_command};

use super::scene::Scene;
use crate::postgres::restore::{restore_of, run};
use crate::support::postgres::{account, program};

/// In the place of a file: every look at it is an error, and it is there.
fn cannot_be_read(path: &Path) {
    std::fs::remove_file(path).unwrap();
    std::os::unix::fs::symlink(path, path).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn silent_02_a_segment_that_cannot_be_read_is_not_the_end() {
    let scene = Scene::new(&[]).await;
    scene.back_up().await;
    scene.write("one").await;
    scene.primary.archive().await;
    scene.write("two").await;
    let ill = scene.primary.archive().await;
    scene.write("three").await;
    scene.primary.archive().await;
    let planned = restore_of(&scene.primary, RecoveryTarget::Latest, true, "restored").await;
    cannot_be_read(&scene.plain(&ill));
    cannot_be_read(&scene.stored(&ill));

    let plain = scene.recover_plainly("plain", &[]).await;
    assert_eq!(plain.promoted().await.rows().await, "one");
    assert!(!plain.complains(), "{}", plain.log());

    // The command alone, in the same place.
    let fetch =
        Fetch { from: Origin::Bucket(scene.primary.location.clone()), stage: None, system_identifier: None, end: None };
    let ours = format!("restore_command = '{}'", restore_command(&program(), &fetch));
    let server = scene.recover_by("ours", &[&ours, "archive_mode = off"]).await;
    assert!(server.dead().await.log().contains("FATAL:  could not restore file"), "{}", server.log());
    // The step.
    let (clone, result) = run(planned).await;
    let failure = result.unwrap_err();
    assert!(failure.to_string().contains(&ill), "{failure:?}");
    assert!(!clone.directory.join("postmaster.pid").exists());
    scene.refused("latest", &[&ill]);
}

#[tokio::test(flavor = "multi_thread")]
async fn silent_02_an_archive_that_is_not_mounted_is_not_the_end() {
    let scene = Scene::new(&[]).await;
    scene.back_up().await;
    scene.write("one").await;
    scene.primary.archive().await;
    for folder in ["plain", "bucket"] {
        let path = scene.primary.path(folder);
        std::fs::rename(&path, scene.primary.path(&format!("{folder}-elsewhere"))).unwrap();
        std::fs::create_dir(path).unwrap();
    }
    // The one segment that the backup needs came with it, as `-X fetch` does.
    for entry in std::fs::read_dir(scene.primary.path("plain-elsewhere")).unwrap().flatten() {
        let name = entry.file_name().into_string().unwrap();
        if scene.is_of_the_backup(&name) {
            let to = scene.primary.path("base/pg_wal").join(name);
            std::fs::copy(entry.path(), &to).unwrap();
            account().iter().for_each(|account| account.give(&to).unwrap());
        }
    }
    let plain = scene.recover_plainly("plain", &[]).await;
    assert_eq!(plain.promoted().await.rows().await, "");
    assert!(!plain.complains(), "{}", plain.log());

    let fetch =
        Fetch { from: Origin::Bucket(scene.primary.location.clone()), stage: None, system_identifier: None, end: None };
    let ours = format!("restore_command = '{}'", restore_command(&program(), &fetch));
    let server = scene.recover_by("ours", &[&ours, "archive_mode = off"]).await;
    assert!(server.dead().await.log().contains("holds no WAL archive"), "{}", server.log());
}
