use super::*;

fn bucket() -> (tempfile::TempDir, Bucket) {
    let directory = tempfile::tempdir().unwrap();
    let bucket = Bucket::open(&format!("file://{}", directory.path().display()), "orders-db").unwrap();
    (directory, bucket)
}

#[tokio::test]
async fn row_15_an_object_is_never_overwritten() {
    let (_directory, bucket) = bucket();
    bucket.create("wal/1", "one").await.unwrap();
    let error = bucket.create("wal/1", "two").await.unwrap_err();
    assert!(matches!(error, StoreError::Exists { .. }), "{error}");
    assert_eq!(bucket.read("wal/1").await.unwrap(), "one");
}

#[tokio::test]
async fn an_upload_appears_whole_or_not_at_all() {
    let (_directory, bucket) = bucket();
    let mut upload = bucket.upload("base/a").await.unwrap();
    for _ in 0..3 {
        upload.write(&vec![7; 5 << 20]).await.unwrap();
    }
    assert!(!bucket.exists("base/a").await.unwrap());
    let written = upload.finish().await.unwrap();
    assert_eq!(written.bytes, 15 << 20);
    assert_eq!(bucket.read_verified("base/a", written.digest).await.unwrap().len(), 15 << 20);
    assert_eq!(bucket.list("base").await.unwrap()[0].size, 15 << 20);
    let mut upload = bucket.upload("base/b").await.unwrap();
    upload.write(b"half").await.unwrap();
    upload.abandon().await.unwrap();
    assert!(!bucket.exists("base/b").await.unwrap());
}

#[tokio::test]
async fn what_is_not_there_is_told_from_what_may_pass() {
    let (_directory, bucket) = bucket();
    assert!(bucket.read("nothing").await.unwrap_err().is_not_found());
    let error = Bucket::open("ftp://acme/orders", "").unwrap_err();
    assert!(error.to_string().contains("is not the URL of a store"), "{error}");
    let (directory, bucket) = self::bucket();
    bucket.create("wal/1", "one").await.unwrap();
    std::fs::write(directory.path().join("orders-db/wal/2"), "").unwrap();
    assert_eq!(bucket.stream("wal/2").await.unwrap().count().await, 0);
}

#[tokio::test]
async fn a_create_whose_answer_was_lost_is_told_from_anothers() {
    let (_directory, bucket) = bucket();
    bucket.settle("base/a/manifest.json", "one").await.unwrap();
    bucket.settle("base/a/manifest.json", "one").await.unwrap();
    assert!(matches!(bucket.settle("base/a/manifest.json", "two").await, Err(StoreError::Exists { .. })));
}

#[tokio::test]
async fn nothing_is_written_in_the_place_of_a_bucket_that_went_away() {
    let (directory, bucket) = bucket();
    let away = directory.path().with_extension("away");
    std::fs::rename(directory.path(), &away).unwrap();
    assert!(matches!(bucket.create("wal/1", "one").await, Err(StoreError::Gone { .. })));
    assert!(matches!(bucket.upload("base/a").await, Err(StoreError::Gone { .. })));
    assert!(!directory.path().exists());
    // An empty mount point is no bucket either.
    std::fs::create_dir(directory.path()).unwrap();
    assert!(matches!(bucket.create("wal/1", "one").await, Err(StoreError::Gone { .. })));
    std::fs::remove_dir(directory.path()).unwrap();
    std::fs::rename(&away, directory.path()).unwrap();
    bucket.create("wal/1", "one").await.unwrap();
}
