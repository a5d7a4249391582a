//! What the WAL along a lineage of timelines says in short, by the indexes that are there; what has none is read, and
//! gets one.

use std::collections::BTreeSet;
use std::num::NonZeroUsize;
use std::ops::ControlFlow;
use std::pin::pin;

use futures::stream::{self, Stream, StreamExt};
use tokio::runtime::Handle;

use super::archive::WalError;
use super::index::{FOLDER, Index};
use super::read::{Damage, Flaw, Joined, Listed, Source, State, Step, Walk, missing};
use crate::digest::Digest;
use crate::store::{Bucket, StoreError};

/// Objects that are read or written at once.
const AT_ONCE: usize = 32;

/// The indexes that are there.
#[derive(Debug, Default)]
pub struct Indexes {
    keys: BTreeSet<String>,
    unlisted: Option<String>,
}

impl Indexes {
    /// A store that does not list them has none.
    pub async fn list(bucket: &Bucket) -> Self {
        match bucket.list(FOLDER).await {
            Ok(objects) => Self { keys: objects.into_iter().map(|object| object.key).collect(), unlisted: None },
            Err(error) => Self { keys: BTreeSet::new(), unlisted: Some(error.to_string()) },
        }
    }

    fn keys(&self, listed: &Listed) -> impl Iterator<Item = &String> + use<'_> {
        let prefix = Index::prefix(listed);
        self.keys.range(prefix.clone()..).take_while(move |key| key.starts_with(&prefix))
    }

    /// Whether there is one that may be of this segment.
    pub fn may_know(&self, listed: &Listed) -> bool {
        self.keys(listed).next().is_some()
    }
}

/// A look at the WAL along one lineage of timelines. Memory is bounded as a [`Walk`]'s is, however much WAL there is.
pub struct Survey<'a> {
    /// Where the indexes are.
    pub bucket: &'a Bucket,
    pub source: &'a Source,
    pub indexes: &'a Indexes,
    /// In their order.
    pub segments: &'a [Listed],
    /// Another cluster's WAL is damage, and another cluster's index is none.
    pub system_identifier: Option<u64>,
    pub threads: NonZeroUsize,
    /// Leaves indexes for the next look. A store that refuses them is no error.
    pub keep: bool,
}

/// What a survey meets.
pub enum Found<'a> {
    /// Of a damaged segment what stands before the damage, which follows.
    Segment {
        listed: &'a Listed,
        index: &'a Index,
        /// It is not written to its end.
        ends: bool,
    },
    Damaged(&'a Damage),
}

/// How it was found.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Surveyed {
    /// Segments whose WAL was read, because they had no index.
    pub read: u64,
    /// Why indexes could not be kept; the next look reads the same WAL again.
    pub not_kept: Option<String>,
}

impl Survey<'_> {
    /// Tells of the segments in their order, until `visit` breaks off. Blocks its thread, which must be one on which the
    /// runtime may be waited for.
    pub fn run(
        &self,
        runtime: &Handle,
        mut visit: impl FnMut(Found<'_>) -> ControlFlow<()>,
    ) -> Result<Surveyed, WalError> {
        let surveyed = Surveyed { not_kept: self.indexes.unlisted.clone(), ..Surveyed::default() };
        let mut look =
            Look { survey: self, runtime, before: None, reach: 1, to_keep: Vec::new(), surveyed, visit: &mut visit };
        look.run()?;
        look.keep();
        Ok(look.surveyed)
    }

    /// The indexes that say they are of each segment, ahead of their use; segments that have none are left out.
    fn indexes(&self) -> impl Stream<Item = (usize, Vec<Index>)> {
        let known = self.segments.iter().enumerate().filter(|(_, listed)| self.indexes.may_know(listed));
        let read = async move |(at, listed): (usize, &Listed)| {
            let coming = &self.segments[at..];
            let mut found = Vec::new();
            for key in self.indexes.keys(listed) {
                // One that is gone, damaged or another's is as good as none.
                let index = self.bucket.read_sealed(key).await.ok().and_then(|bytes| Index::parse(&bytes).ok());
                let own = |index: &Index| {
                    index.is_of(coming, self.system_identifier) && Index::key(listed, index.summary.before) == *key
                };
                found.extend(index.filter(own));
            }
            // The one that knew something before it comes first.
            found.sort_by_key(|index| index.summary.before.is_none());
            (at, found)
        };
        stream::iter(known).map(read).buffered(AT_ONCE)
    }
}

/// What is known behind the segment before.
enum Known {
    Index(Box<Index>),
    State(Digest, State),
}

impl Known {
    fn digest(&self) -> Digest {
        match self {
            Self::Index(index) => index.summary.after,
            Self::State(digest, _) => *digest,
        }
    }

    fn state(&self) -> Option<State> {
        match self {
            Self::Index(index) => index.state().ok(),
            Self::State(_, state) => Some(state.clone()),
        }
    }
}

/// A look that is under way.
struct Look<'a, V> {
    survey: &'a Survey<'a>,
    runtime: &'a Handle,
    /// `None` at the beginning and behind damage.
    before: Option<Known>,
    /// Segments that are read at once though they have an index, because those of the last ones did not fit.
    reach: usize,
    to_keep: Vec<(String, Vec<u8>)>,
    surveyed: Surveyed,
    visit: &'a mut V,
}

impl<V: FnMut(Found<'_>) -> ControlFlow<()>> Look<'_, V> {
    fn run(&mut self) -> Result<(), WalError> {
        let segments = self.survey.segments;
        let mut indexes = pin!(self.survey.indexes());
        let mut ahead = None;
        let mut at = 0;
        while at < segments.len() {
            let hole = at.checked_sub(1).and_then(|before| missing(segments[before].segment, segments[at].segment));
            if let Some(damage) = hole {
                self.before = None;
                if (self.visit)(Found::Damaged(&damage)).is_break() {
                    break;
                }
            }
            while ahead.as_ref().is_none_or(|(known, _)| *known < at) {
                ahead = self.runtime.block_on(indexes.next());
                if ahead.is_none() {
                    break;
                }
            }
            let candidates = match &mut ahead {
                Some((known, candidates)) if *known == at => std::mem::take(candidates),
                _ => Vec::new(),
            };
            let ended = match candidates.into_iter().find(|index| at == 0 || self.fits(index)) {
                Some(index) => {
                    self.reach = 1;
                    let ended = (self.visit)(Found::Segment { listed: &segments[at], index: &index, ends: false });
                    self.before = Some(Known::Index(Box::new(index)));
                    at += 1;
                    ended
                }
                None => {
                    let (next, ended) = self.read(at)?;
                    at = next;
                    ended
                }
            };
            if ended.is_break() {
                break;
            }
        }
        Ok(())
    }

    /// Whether an index was made with the knowledge that is there now. At the beginning any will do: one that was made
    /// knowing more is all the better.
    fn fits(&self, index: &Index) -> bool {
        index.summary.before == self.before.as_ref().map(Known::digest)
    }

    /// Reads from the segment `at` to the next one that has an index; and where it came from last time to one that did not
    /// fit, on beyond that. Returns the segment to go on with.
    fn read(&mut self, at: usize) -> Result<(usize, ControlFlow<()>), WalError> {
        let rest = &self.survey.segments[at..];
        let follows = |pair: &&[Listed]| missing(pair[0].segment, pair[1].segment).is_none();
        let run = &rest[..1 + rest.windows(2).take_while(follows).count()];
        let unknown = 1 + run[1..].iter().take_while(|listed| !self.survey.indexes.may_know(listed)).count();
        let unknown = unknown.max(self.reach).min(run.len());
        self.reach = (self.reach * 2).min(1 << 10);
        let (mut done, mut more) = (0, 1);
        loop {
            // Segments behind the last one only for what belongs to its last record.
            let given = &run[..(unknown + more).min(run.len())];
            match self.walk(&given[done..], unknown - done, given.len() == run.len())? {
                (Some(stopped), _) => (done, more) = (done + stopped, more * 2),
                (None, ended) => return Ok((at + unknown, ended)),
            }
        }
    }

    /// Walks over what is `given` of a run, and tells of the first `unknown` segments of it. Returns where it stopped for want
    /// of the rest of a record.
    fn walk(
        &mut self,
        given: &[Listed],
        unknown: usize,
        whole: bool,
    ) -> Result<(Option<usize>, ControlFlow<()>), WalError> {
        let walk = Walk {
            source: self.survey.source,
            segments: given,
            system_identifier: self.survey.system_identifier,
            threads: self.survey.threads,
            state: self.before.as_ref().and_then(Known::state),
        };
        let later = &given[unknown.min(given.len())..];
        let is_later = |damage: &Damage| later.iter().any(|listed| listed.segment.to_string() == damage.name());
        let (mut stopped, mut ended) = (None, ControlFlow::Continue(()));
        walk.run(|step| {
            match step {
                Step::Segment { listed, .. } if later.contains(listed) => return ControlFlow::Break(()),
                Step::Segment { listed, joined, .. } if joined.waits && !whole => {
                    stopped = given.iter().position(|one| one == listed);
                    return ControlFlow::Break(());
                }
                Step::Segment { listed, joined, state } => {
                    ended = self.told(listed, &joined, state, given.last() == Some(listed));
                }
                // It is told when its turn comes.
                Step::Damaged(damage) if is_later(&damage) => return ControlFlow::Break(()),
                Step::Damaged(damage) => ended = self.damaged(&damage),
            }
            ended
        })?;
        Ok((stopped, ended))
    }

    /// `ends` with this segment what the walk was given: to it, WAL may just end there.
    fn told(&mut self, listed: &Listed, joined: &Joined, state: &State, ends: bool) -> ControlFlow<()> {
        self.surveyed.read += 1;
        let before = self.before.as_ref().filter(|_| joined.breaks.is_none()).map(Known::digest);
        let at = self.survey.segments.partition_point(|one| one.segment.number < listed.segment.number);
        let index = Index::of(&self.survey.segments[at..], joined, before, state);
        self.before = None;
        // From the middle of a record nothing is known behind it.
        let says_nothing = before.is_none() && joined.first.is_none();
        if joined.is_complete() && !says_nothing {
            self.before = Some(Known::State(index.summary.after, state.clone()));
            // What was encrypted for a reader is not told in the clear.
            let encryption = self.survey.bucket.encryption();
            if self.survey.keep && (encryption.is_on() || !encryption.may_read()) {
                self.to_keep.push((Index::key(listed, before), index.to_bytes()));
            }
            if self.to_keep.len() >= AT_ONCE {
                self.keep();
            }
        }
        let ended = (self.visit)(Found::Segment { listed, index: &index, ends: joined.stop.is_some() });
        let cut = ends && self.survey.segments.last() != Some(listed) && joined.stop.as_ref().is_some_and(Flaw::is_end);
        match joined.damage().filter(|_| cut && ended.is_continue()) {
            Some(damage) => self.damaged(&damage),
            None => ended,
        }
    }

    fn damaged(&mut self, damage: &Damage) -> ControlFlow<()> {
        self.before = None;
        (self.visit)(Found::Damaged(damage))
    }

    /// Writes the indexes that are due. Once a store has refused one, no more are offered.
    fn keep(&mut self) {
        let due = std::mem::take(&mut self.to_keep);
        if self.surveyed.not_kept.is_some() {
            return;
        }
        let bucket = self.survey.bucket;
        let written = stream::iter(due).map(async |(key, bytes)| {
            let sealed = bucket.encryption().seal(bytes, None);
            bucket.create(&key, sealed).await
        });
        let written: Vec<Result<(), StoreError>> = self.runtime.block_on(written.buffer_unordered(AT_ONCE).collect());
        // Somebody else may have read the same.
        let refused =
            written.into_iter().filter_map(Result::err).find(|error| !matches!(error, StoreError::Exists { .. }));
        self.surveyed.not_kept = refused.map(|error| error.to_string());
    }
}
