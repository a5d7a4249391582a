//! A second look at an archive reads indexes, not WAL, and says the same.

use std::num::NonZeroUsize;
use std::ops::ControlFlow;

use lifeboat::store::Bucket;
use lifeboat::system::postgres::wal::read::{Counts, Damage, Fact, Listed, Source};
use lifeboat::system::postgres::wal::{CommitAt, Found, Index, Indexes, Pace, Summary, Survey, Surveyed};

use super::archive::{Written, walk};

/// What a survey told.
#[derive(Debug, Default, PartialEq)]
struct Told {
    segments: Vec<(Summary, Vec<CommitAt>, Vec<Pace>, bool)>,
    damage: Vec<Damage>,
}

impl Told {
    /// Panics with the first difference.
    #[track_caller]
    fn is(&self, other: &Self) {
        assert_eq!(self.damage, other.damage);
        for (own, other) in self.segments.iter().zip(&other.segments) {
            assert_eq!(own, other);
        }
        assert_eq!(self.segments.len(), other.segments.len());
    }

    /// Without what only says how much was known before.
    fn plain(mut self) -> Self {
        for (summary, ..) in &mut self.segments {
            summary.before = None;
        }
        self
    }
}

/// One that looks at an archive again and again.
#[derive(Clone)]
struct Looker {
    bucket: Bucket,
    segments: Vec<Listed>,
    system_identifier: Option<u64>,
    keep: bool,
    /// Believes no index.
    fresh: bool,
}

impl Looker {
    /// Along the last timeline.
    async fn new(written: &Written) -> Self {
        let looker = Self {
            bucket: written.primary.bucket(),
            segments: Vec::new(),
            system_identifier: None,
            keep: true,
            fresh: false,
        };
        looker.list().await
    }

    async fn list(mut self) -> Self {
        let source = Source::Bucket { bucket: self.bucket.clone(), runtime: tokio::runtime::Handle::current() };
        let all = tokio::task::spawn_blocking(move || source.list().unwrap()).await.unwrap();
        let fork = all.iter().find(|listed| listed.segment.timeline == 2).expect("two timelines").segment.number;
        self.segments = all.into_iter().filter(|l| l.segment.timeline == 2 || l.segment.number < fork).collect();
        self
    }

    async fn look(&self) -> (Surveyed, Told) {
        let own = self.clone();
        let runtime = tokio::runtime::Handle::current();
        let indexes = if self.fresh { Indexes::default() } else { Indexes::list(&self.bucket).await };
        let look = move || {
            let mut told = Told::default();
            let source = Source::Bucket { bucket: own.bucket.clone(), runtime: runtime.clone() };
            let survey = Survey {
                bucket: &own.bucket,
                source: &source,
                indexes: &indexes,
                segments: &own.segments,
                system_identifier: own.system_identifier,
                threads: NonZeroUsize::new(2).unwrap(),
                keep: own.keep,
            };
            let surveyed = survey.run(&runtime, |found| {
                match found {
                    Found::Segment { listed, index, ends } => {
                        assert_eq!(index.summary.stored.segment, listed.segment.to_string());
                        let (commits, pace) = (index.commits().unwrap(), index.pace().unwrap());
                        told.segments.push((index.summary.clone(), commits, pace, ends));
                    }
                    Found::Damaged(damage) => told.damage.push(damage.clone()),
                }
                ControlFlow::Continue(())
            });
            (surveyed.unwrap(), told)
        };
        tokio::task::spawn_blocking(look).await.unwrap()
    }

    /// As if nobody had ever looked.
    async fn fresh(&self) -> Told {
        let (surveyed, told) = Self { fresh: true, keep: false, ..self.clone() }.look().await;
        assert_eq!(surveyed.read as usize, told.segments.len());
        told
    }

    async fn replace(&self, key: &str, bytes: impl Into<bytes::Bytes>) {
        self.bucket.delete(key).await.unwrap();
        self.bucket.create(key, bytes).await.unwrap();
    }

    /// The keys of all indexes.
    async fn kept(&self) -> Vec<String> {
        self.bucket.list("wal-index").await.unwrap().into_iter().map(|object| object.key).collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_look_reads_no_wal_and_says_the_same() {
    let written = Written::new().await;
    let looker = Looker::new(&written).await;
    let (surveyed, first) = looker.look().await;
    assert_eq!((surveyed.read as usize, surveyed.not_kept), (first.segments.len(), None));
    assert!(first.segments.len() > 8 && first.damage.is_empty(), "{first:?}");
    first.is(&looker.fresh().await);
    let facts: Vec<&Fact> = first.segments.iter().flat_map(|(summary, ..)| &summary.facts).collect();
    let name = |fact: &&Fact| if let Fact::RestorePoint { name, .. } = fact { Some(name.clone()) } else { None };
    assert_eq!(facts.iter().filter_map(name).collect::<Vec<_>>(), ["before the migration", "näch"]);
    assert!(facts.iter().any(|fact| matches!(fact, Fact::TimelineSwitch { from: 1, to: 2, .. })));

    // Only what the end of the archive cuts off is read again.
    let unfinished = first.segments.len() - looker.kept().await.len();
    assert!(unfinished <= 1, "{unfinished}");
    let (surveyed, second) = looker.look().await;
    assert_eq!(surveyed.read as usize, unfinished);
    first.is(&second);
    the_same_as_a_walk(&written, &first);

    // An index that is gone, damaged, cut, of another segment, or of another cluster is made again.
    let kept = looker.kept().await;
    let whole = looker.bucket.read(&kept[6]).await.unwrap();
    let mut flipped = whole.to_vec();
    flipped[whole.len() / 2] ^= 1;
    let other = looker.bucket.read(&kept[3]).await.unwrap();
    let mut foreign = Index::parse(&whole).unwrap();
    foreign.summary.system_identifier = "77".to_owned();
    let own =
        Looker { system_identifier: Some(first.segments[0].0.system_identifier.parse().unwrap()), ..looker.clone() };
    looker.bucket.delete(&kept[4]).await.unwrap();
    for bad in [flipped.into(), whole.slice(..100), bytes::Bytes::new(), other, foreign.to_bytes().into()] {
        looker.replace(&kept[6], bad).await;
        let (surveyed, again) = own.look().await;
        assert!(surveyed.read as usize - unfinished <= 2, "{surveyed:?}");
        first.is(&again);
    }
    // One that is damaged stays in the way of its like; nobody overwrites anything.
    looker.bucket.delete(&kept[6]).await.unwrap();
    own.look().await;
    let (surveyed, _) = own.look().await;
    assert_eq!(surveyed.read as usize, unfinished);
    damage_is_named(&looker, &first, unfinished).await;
}

/// What the indexes hold is what a walk over the plain files tells.
fn the_same_as_a_walk(written: &Written, told: &Told) {
    let [plain, _] = written.lineages();
    let walked = walk(&Source::Directory(written.plain.clone()), &plain, 1, None);
    let mut compared = 0;
    for ((summary, commits, pace, _), joined) in told.segments.iter().zip(&walked.segments) {
        assert_eq!(summary.stored.segment, joined.segment.to_string());
        if !joined.is_complete() || !walked.damage.is_empty() {
            continue;
        }
        assert_eq!((summary.records, summary.counts), (joined.records, joined.counts));
        let facts = joined.facts.iter().filter_map(|fact| match fact {
            Fact::Commit(commit) => Some((commit.lsn, commit.end, commit.xid, commit.time, commit.work.counts)),
            _ => None,
        });
        let rows: Vec<_> = commits.iter().map(|c| (c.lsn, c.end, c.xid, c.time, c.counts)).collect();
        assert_eq!(rows, facts.collect::<Vec<_>>());
        assert_eq!(summary.commits.as_ref().map_or(0, |span| span.number), commits.len() as u64);
        assert_eq!(pace.iter().map(|pace| pace.commits).sum::<u64>(), commits.len() as u64);
        if let Some(span) = &summary.commits {
            assert_eq!(pace.iter().map(|pace| pace.bytes).sum::<u64>(), span.last.end.0 - span.first.end.0);
        }
        let settles = joined.facts.iter().rev().find_map(Fact::settles);
        assert_eq!((summary.settles, summary.end), (settles, joined.end));
        compared += commits.len();
    }
    assert!(compared > 20, "{compared}");
    // The big delete is a suspect, and the relation is named that lost the rows.
    let suspects = told.segments.iter().flat_map(|(summary, ..)| &summary.suspects);
    let worst = suspects.max_by_key(|suspect| suspect.work.counts.deletes).expect("suspects");
    assert!(worst.work.counts.deletes > 10_000, "{worst:?}");
    assert_eq!(worst.work.relations[0].counts, Counts { deletes: worst.work.counts.deletes, ..Counts::default() });
}

/// A segment that goes bad after it was indexed is another one to the listing; then it is read, and named at each look.
async fn damage_is_named(looker: &Looker, whole: &Told, unfinished: usize) {
    let listed = looker.segments[3].clone();
    let name = listed.segment.to_string();
    let bytes = looker.bucket.read(&listed.key).await.unwrap();
    let mut flipped = bytes.to_vec();
    flipped[bytes.len() / 2] ^= 1;
    for bad in [bytes.slice(..bytes.len() / 2), flipped.into()] {
        looker.replace(&listed.key, bad).await;
        let spoiled = looker.clone().list().await;
        for _ in 0..2 {
            let (surveyed, told) = spoiled.look().await;
            assert!(matches!(&told.damage[..], [Damage::Compressed { name: found, .. }] if *found == name), "{told:?}");
            assert_eq!(told.segments.len(), whole.segments.len() - 1);
            // The one before lacks the end of its last record, and the ones behind it do not know what ran before them.
            assert!(surveyed.read as usize <= whole.segments.len(), "{surveyed:?}");
            told.is(&spoiled.fresh().await);
        }
    }
    looker.bucket.delete(&listed.key).await.unwrap();
    let (_, told) = looker.clone().list().await.look().await;
    assert!(matches!(&told.damage[..], [Damage::Missing { first, segments: 1, .. }] if *first == name), "{told:?}");
    // It was found again: as it was, but stored anew.
    looker.bucket.create(&listed.key, bytes).await.unwrap();
    let found = looker.clone().list().await;
    let (surveyed, told) = found.look().await;
    assert!(surveyed.read as usize <= 2 + unfinished, "{surveyed:?}");
    assert_eq!((told.segments.len(), told.damage.len()), (whole.segments.len(), 0));
    told.is(&found.fresh().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn indexes_of_those_who_knew_less_are_not_taken_for_more() {
    let written = Written::new().await;
    let all = Looker::new(&written).await;
    let truth = all.fresh().await;
    let mut differed = false;
    // Looks that begin ever earlier, each over the indexes that the later ones left.
    for begin in (0..all.segments.len()).rev() {
        let later = Looker { segments: all.segments[begin..].to_vec(), ..all.clone() };
        let (_, told) = later.look().await;
        told.plain().is(&later.fresh().await.plain());
        differed |=
            later.fresh().await.segments.iter().zip(&truth.segments[begin..]).any(|(less, more)| less.1 != more.1);
    }
    assert!(differed, "no transaction lies across segments");
    let (_, told) = all.look().await;
    told.is(&truth);
    // Who begins late may profit from who began early: what a transaction did before is counted.
    let late = Looker { segments: all.segments[6..].to_vec(), ..all.clone() };
    let (surveyed, told) = late.look().await;
    assert!(surveyed.read <= 1, "{surveyed:?}");
    assert_eq!(told.segments[1..], truth.segments[7..]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_takes_no_index_is_read_anew() {
    let written = Written::new().await;
    let looker = Looker::new(&written).await;
    // Something else has the folder's name.
    std::fs::write(written.primary.path("bucket/orders-db/wal-index"), "").unwrap();
    for _ in 0..2 {
        let (surveyed, told) = looker.look().await;
        assert_eq!(surveyed.read as usize, told.segments.len());
        assert!(surveyed.not_kept.is_some_and(|why| why.contains("wal-index")));
        told.is(&looker.fresh().await);
    }
}
