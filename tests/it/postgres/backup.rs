use lifeboat::system::postgres::catalogue;

use crate::support::postgres::Primary;

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_is_whole_or_does_not_exist() {
    let primary = Primary::start().await;
    primary.sql("create table t as select g, repeat('x', 200) from generate_series(1, 100000) g").await;
    let backup = primary.backup().run().await.expect("the backup succeeds").backup;
    assert!(backup.stop_lsn > backup.start_lsn && backup.stopped >= backup.started);

    let bucket = primary.bucket();
    let found = catalogue::list(&bucket).await.unwrap();
    assert_eq!(found.backups, std::slice::from_ref(&backup));
    assert_eq!(found.warnings, Vec::<String>::new());
    assert_eq!(found.system_identifier, Some(backup.system_identifier));
    let run = found.coverage.last().unwrap();
    assert!(run.from <= backup.start_lsn && run.to >= backup.stop_lsn, "{run:?} {backup:?}");
    let manifest = catalogue::manifest(&bucket, &backup.label).await.unwrap();
    assert!(manifest.parts.len() >= 2, "two cores need two parts: {}", manifest.parts.len());
    assert!(manifest.data_checksums);
    assert_eq!(manifest.floor.max_connections, 100);

    // One part less: it is told, and it is no backup any more.
    bucket.delete(&manifest.parts[1].key).await.unwrap();
    let found = catalogue::list(&bucket).await.unwrap();
    assert!(found.backups.is_empty());
    assert!(found.warnings[0].contains("part-0001.tar.zst is missing"), "{:?}", found.warnings);
    // No manifest: no backup, and where nothing else could be used that is said.
    bucket.delete(&format!("base/{}/manifest.json", backup.label)).await.unwrap();
    let found = catalogue::list(&bucket).await.unwrap();
    assert!(found.backups.is_empty());
    assert!(found.warnings[0].contains("manifest.json is missing, or was never written"), "{:?}", found.warnings);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_restored_is_not_backed_up() {
    let primary = Primary::start().await;
    std::fs::create_dir(primary.path("space")).unwrap();
    crate::support::postgres::account().iter().for_each(|account| account.give(&primary.path("space")).unwrap());
    primary
        .client()
        .await
        .execute(&format!("create tablespace s location '{}'", primary.path("space").display()), &[])
        .await
        .unwrap();
    let failure = primary.backup().run().await.unwrap_err();
    assert!(failure.to_string().contains("tablespaces"), "{failure}");
    primary.sql("drop tablespace s").await;

    // Another cluster's folder.
    let other = Primary::start().await;
    other.archive().await;
    let mut backup = primary.backup();
    backup.bucket = other.bucket();
    let failure = backup.run().await.unwrap_err();
    assert!(failure.to_string().contains("belongs to another cluster"), "{failure}");

    // A wrong password is no other failure.
    primary.down("fast").await;
    let failure = primary.backup().run().await.unwrap_err();
    assert!(failure.what.contains("cannot be reached"), "{failure}");
    assert!(catalogue::list(&primary.bucket()).await.unwrap().backups.is_empty());
}
