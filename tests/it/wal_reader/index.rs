//! A second look at an archive reads indexes, not WAL, and says the same.

use std::num::NonZeroUsize;

use lifeboat::event::{Fork, Lsn};
use lifeboat::system::postgres::catalogue;
use lifeboat::system::postgres::wal::read::{Counts, Damage, Fact, Source};
use lifeboat::system::postgres::wal::{Index, Survey, Surveyed};

use super::archive::{Written, walk};

async fn survey(written: &Written, forks: &[Fork]) -> Surveyed {
    let bucket = written.primary.bucket();
    let threads = NonZeroUsize::new(2).unwrap();
    Survey { bucket, forks: forks.to_vec(), threads, keep: true }.run().await.unwrap()
}

/// They say the same, however they came to know it.
fn assert_same(one: &Surveyed, other: &Surveyed) {
    assert_eq!(one.timelines.len(), other.timelines.len());
    for (one, other) in one.timelines.iter().zip(&other.timelines) {
        for (one, other) in one.segments.iter().zip(&other.segments) {
            assert_eq!(one, other);
        }
        assert_eq!(one.segments.len(), other.segments.len());
        assert_eq!((&one.damage, &one.state), (&other.damage, &other.state));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_look_reads_no_wal_and_says_the_same() {
    let written = Written::new().await;
    let bucket = written.primary.bucket();
    let forks = catalogue::list(&bucket).await.unwrap().forks;
    assert_eq!(forks.len(), 1);
    let first = survey(&written, &forks).await;
    assert_eq!(first.not_kept, None);
    assert!(first.read > 8, "{}", first.read);
    assert!(first.timelines.iter().all(|timeline| timeline.damage.is_empty()), "{first:?}");
    let names: Vec<String> = first.restore_points().into_iter().map(|point| point.name).collect();
    assert_eq!(names, ["before the migration", "näch"]);

    // One that nobody has looked into before, and that is not cut by the end of the archive, is read once.
    let unfinished = first.timelines.iter().filter(|timeline| timeline.state.is_none()).count() as u64;
    let second = survey(&written, &forks).await;
    assert!(second.read <= unfinished, "{} of {}", second.read, first.read);
    assert_same(&first, &second);

    // An index that is gone or damaged is made again from the one before it.
    let indexes = bucket.list("wal-index").await.unwrap();
    bucket.delete(&indexes[4].key).await.unwrap();
    let mut bytes = bucket.read(&indexes[6].key).await.unwrap().to_vec();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    bucket.delete(&indexes[6].key).await.unwrap();
    bucket.create(&indexes[6].key, bytes).await.unwrap();
    let third = survey(&written, &forks).await;
    assert_eq!(third.read, second.read + 2);
    assert_same(&first, &third);
    the_same_as_a_walk(&written, &first).await;
    damage_is_named(&written, &first, &forks).await;
}

/// What the indexes hold is what a walk over the plain files tells.
async fn the_same_as_a_walk(written: &Written, surveyed: &Surveyed) {
    let bucket = written.primary.bucket();
    let [_, plain] = written.lineages();
    let told = walk(&Source::Directory(written.plain.clone()), &plain, 1, None);
    let mut compared = 0;
    for (summary, joined) in surveyed.timelines[0].segments.iter().zip(&told.segments) {
        assert_eq!(summary.segment, joined.segment.to_string());
        assert_eq!((summary.records, summary.counts, summary.end), (joined.records, joined.counts, joined.end));
        let key = bucket.list("wal-index").await.unwrap().into_iter().find(|o| o.key.contains(&summary.segment));
        let Some(key) = key.map(|object| object.key).filter(|_| joined.is_complete()) else { continue };
        let Ok(index) = Index::parse(&bucket.read(&key).await.unwrap()) else { continue };
        let facts = joined.facts.iter().filter_map(|fact| match fact {
            Fact::Commit(commit) => Some((commit.lsn, commit.xid, commit.time, commit.work.counts)),
            _ => None,
        });
        let commits = index.commits().unwrap();
        assert_eq!(
            commits.iter().map(|c| (c.lsn, c.xid, c.time, c.counts)).collect::<Vec<_>>(),
            facts.collect::<Vec<_>>()
        );
        assert_eq!(summary.commits.as_ref().map_or(0, |span| span.number), commits.len() as u64);
        compared += commits.len();
    }
    assert!(compared > 20, "{compared}");
    // The big delete is a suspect, and the relation is named that lost the rows.
    let suspects = surveyed.timelines.iter().flat_map(|timeline| &timeline.segments).flat_map(|s| &s.suspects);
    let worst = suspects.max_by_key(|suspect| suspect.work.counts.deletes).expect("suspects");
    assert!(worst.work.counts.deletes > 10_000, "{worst:?}");
    assert_eq!(worst.work.relations[0].counts, Counts { deletes: worst.work.counts.deletes, ..Counts::default() });
}

/// A segment that goes bad after it was indexed has another size; then it is read, and named.
async fn damage_is_named(written: &Written, whole: &Surveyed, forks: &[Fork]) {
    let bucket = written.primary.bucket();
    let spoiled = &whole.timelines[0].segments[3].segment;
    let key = format!("wal/00000001/{spoiled}.zst");
    let bytes = bucket.read(&key).await.unwrap();
    bucket.delete(&key).await.unwrap();
    bucket.create(&key, bytes.slice(..bytes.len() / 2)).await.unwrap();
    let surveyed = survey(written, forks).await;
    let damage = &surveyed.timelines[0].damage;
    assert!(matches!(&damage[..], [Damage::Compressed { name, .. }] if name == spoiled), "{damage:?}");
    assert_eq!(surveyed.timelines[0].segments.len(), whole.timelines[0].segments.len() - 1);
    bucket.delete(&key).await.unwrap();
    let surveyed = survey(written, forks).await;
    let damage = &surveyed.timelines[0].damage;
    assert!(matches!(&damage[..], [Damage::Missing { first, segments: 1, .. }] if first == spoiled), "{damage:?}");
    assert!(surveyed.timelines[0].segments.iter().all(|segment| segment.end > Lsn(0)));
}
