//! What was looked at is what is used, and what is there is never replaced.

use std::os::unix::fs::FileExt as _;

use futures::StreamExt as _;
use lifeboat::event::RecoveryTarget;
use lifeboat::store::Bucket;

use crate::postgres::restore::{restore_of, run, shop};
use crate::support::s3::S3;

/// The bits of CRC-32C's own polynomial, as they lie in a stream: added to anything, its checksum stays as it was.
const UNSEEN: u64 = 1 | 0x82F6_3B78 << 1;

/// A part of the base backup, exchanged after it was planned with for another that is as long, unpacks well, and in which
/// every file has the size and the CRC that the backup's manifest says.
#[tokio::test(flavor = "multi_thread")]
async fn row_15_a_part_that_was_swapped_meanwhile_is_not_used() {
    let primary = shop().await;
    primary.archive().await;
    let restore = restore_of(&primary, RecoveryTarget::Latest, true, "clone").await;
    let base = primary.path(&format!("bucket/orders-db/base/{}", restore.plan.label));
    let parts = std::fs::read_dir(&base).unwrap().flatten().map(|entry| entry.path());
    let (path, raw, at) = parts
        .filter(|path| path.to_string_lossy().contains("/part-"))
        .find_map(|path| {
            let raw = zstd::decode_all(&std::fs::read(&path).unwrap()[..]).unwrap();
            let at = raw.windows(11).position(|window| window == b"before 1999")?;
            Some((path, raw, at))
        })
        .expect("a part holds the table");
    let before = std::fs::metadata(&path).unwrap().len() as usize;
    let mut swapped = raw.clone();
    for (byte, change) in swapped[at..at + 8].iter_mut().zip(UNSEEN.to_le_bytes()) {
        *byte ^= change;
    }
    let mut stored = zstd::encode_all(&swapped[..], 19).unwrap();
    // A frame that every reader skips makes it as long as it was.
    let room = before.checked_sub(stored.len() + 8).expect("it packs better");
    stored.extend(0x184D_2A50_u32.to_le_bytes());
    stored.extend(u32::try_from(room).unwrap().to_le_bytes());
    stored.resize(before, 0);
    std::fs::OpenOptions::new().write(true).open(&path).unwrap().write_all_at(&stored, 0).unwrap();

    let (clone, result) = run(restore).await;
    let failure = result.err().unwrap_or_else(|| panic!("a part that was swapped is served as the backup"));
    assert!(failure.why.contains("SHA-256"), "{failure:?}");
    assert!(!clone.directory.join("postmaster.pid").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn row_15_of_many_that_create_one_object_one_wins() {
    let home = tempfile::tempdir().unwrap();
    let bucket = Bucket::open(&format!("file://{}", home.path().display()), "orders-db").unwrap();
    for round in 0..20 {
        let key = format!("wal/{round}");
        let tries = (0..8).map(|n| {
            let (bucket, key) = (bucket.clone(), key.clone());
            tokio::spawn(async move { (n, bucket.create(&key, format!("by {n}")).await.is_ok()) })
        });
        let done: Vec<(i32, bool)> = futures::future::try_join_all(tries).await.unwrap();
        let winners: Vec<i32> = done.into_iter().filter(|(_, won)| *won).map(|(n, _)| n).collect();
        assert_eq!(winners.len(), 1, "an object was replaced: {winners:?} each believed that it had written it");
        assert_eq!(bucket.read(&key).await.unwrap(), format!("by {}", winners[0]).as_bytes());
    }
}

/// Exchanged by Amazon's own client after its size was asked for, and again while it is read.
#[tokio::test(flavor = "multi_thread")]
async fn row_15_an_object_that_is_swapped_between_head_and_get_is_not_read() {
    let server = S3::start().await;
    let bucket = server.bucket("prod");
    let put = |byte: char| {
        server.boto(&format!("client('s3').put_object(Bucket='acme-dr', Key='prod/big', Body=b'{byte}' * (40 << 20))"))
    };
    put('a');
    let whole: Vec<_> = bucket.stream("big").await.unwrap().collect().await;
    let whole: Result<Vec<_>, _> = whole.into_iter().collect();
    assert!(whole.unwrap().concat().iter().all(|byte| *byte == b'a'), "nobody swapped it");

    let stream = bucket.stream("big").await.unwrap();
    put('b');
    let read: Vec<_> = stream.collect().await;
    assert!(read.iter().any(Result::is_err), "another object than the one that was looked at was read");

    let mut stream = Box::pin(bucket.stream("big").await.unwrap());
    let mut read = vec![stream.next().await.unwrap().unwrap()];
    put('c');
    let mut refused = false;
    while let Some(chunk) = stream.next().await {
        match chunk {
            Ok(chunk) => read.push(chunk),
            Err(_) => refused = true,
        }
    }
    let seen: std::collections::BTreeSet<u8> = read.concat().into_iter().collect();
    assert!(refused && seen.len() == 1, "another object than the one that was looked at was read: {seen:?}");
}
