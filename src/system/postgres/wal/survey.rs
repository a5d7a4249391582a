//! Everything that an archive's WAL says in short, by the indexes that are there; what has none is read, and gets one.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::ops::ControlFlow;

use futures::StreamExt;
use tokio::runtime::Handle;

use super::archive::{WalError, read_id};
use super::index::{FOLDER, Index, Summary};
use super::name::Segment;
use super::read::{Damage, Fact, Flaw, Listed, Source, State, Step, Walk, missing};
use crate::event::{Fork, RestorePoint};
use crate::store::{Bucket, StoreError};

/// Objects that are read or written at once.
const AT_ONCE: usize = 32;

/// A look at an archive.
pub struct Survey {
    pub bucket: Bucket,
    /// Where timelines left their parents: a transaction may have begun on the parent.
    pub forks: Vec<Fork>,
    pub threads: NonZeroUsize,
    /// Leaves indexes for the next look. A store that refuses them is no error.
    pub keep: bool,
}

/// What was found.
#[derive(Debug, Default)]
pub struct Surveyed {
    pub timelines: Vec<TimelineSurvey>,
    /// Segments whose WAL was read, because they had no index.
    pub read: u64,
    /// Why indexes could not be kept; the next look reads the same WAL again.
    pub not_kept: Option<String>,
}

#[derive(Debug)]
pub struct TimelineSurvey {
    pub timeline: u32,
    /// Every segment that is readable, in its order; of a damaged one what stands before the damage.
    pub segments: Vec<Summary>,
    /// In the order of their places.
    pub damage: Vec<Damage>,
    /// Behind the last segment; `None` when that is damaged.
    pub state: Option<State>,
}

impl Surveyed {
    /// Every restore point; one name may be there more than once, and on more than one timeline.
    pub fn restore_points(&self) -> Vec<RestorePoint> {
        let facts = self.timelines.iter().flat_map(|timeline| &timeline.segments).flat_map(|segment| &segment.facts);
        facts
            .filter_map(|fact| match fact {
                Fact::RestorePoint { lsn, name, time, .. } => {
                    Some(RestorePoint { name: name.clone(), at: *time, lsn: *lsn })
                }
                _ => None,
            })
            .collect()
    }
}

impl Survey {
    /// Lists, reads what has no index, and keeps what it learned.
    pub async fn run(self) -> Result<Surveyed, WalError> {
        let runtime = Handle::current();
        tokio::task::spawn_blocking(move || self.look(&runtime)).await.expect("the survey does not panic")
    }

    fn look(self, runtime: &Handle) -> Result<Surveyed, WalError> {
        let system_identifier = runtime.block_on(read_id(&self.bucket))?.map(|id| id.system_identifier);
        let source = Source::Bucket { bucket: self.bucket.clone(), runtime: runtime.clone() };
        let segments = source.list()?;
        let mut look = Look {
            known: runtime.block_on(self.indexes(&segments))?,
            survey: &self,
            source: &source,
            runtime,
            system_identifier,
            to_keep: Vec::new(),
            surveyed: Surveyed::default(),
        };
        for segments in segments.chunk_by(|a, b| a.segment.timeline == b.segment.timeline) {
            let timeline = look.timeline(segments)?;
            look.surveyed.timelines.push(timeline);
        }
        look.keep();
        Ok(look.surveyed)
    }

    /// The indexes of these segments that are there and usable.
    async fn indexes(&self, segments: &[Listed]) -> Result<BTreeMap<Segment, Index>, WalError> {
        let there: std::collections::BTreeSet<String> =
            self.bucket.list(FOLDER).await?.into_iter().map(|object| object.key).collect();
        let wanted = segments.iter().map(|listed| (listed.segment, Index::key(listed)));
        let wanted: Vec<(Segment, String)> = wanted.filter(|(_, key)| there.contains(key)).collect();
        let read = futures::stream::iter(wanted).map(async |(segment, key)| {
            // One that is gone or damaged is as good as none.
            let bytes = self.bucket.read(&key).await.ok()?;
            let mut index = Index::parse(&bytes).ok()?;
            index.forget_commits();
            (index.summary.segment == segment.to_string()).then_some((segment, index))
        });
        Ok(read.buffer_unordered(AT_ONCE).filter_map(async |found| found).collect().await)
    }
}

/// A look that is under way.
struct Look<'a> {
    survey: &'a Survey,
    source: &'a Source,
    runtime: &'a Handle,
    system_identifier: Option<u64>,
    /// What the indexes said, and what was read since.
    known: BTreeMap<Segment, Index>,
    to_keep: Vec<(String, Vec<u8>)>,
    surveyed: Surveyed,
}

impl Look<'_> {
    /// `segments` are all of one timeline.
    fn timeline(&mut self, segments: &[Listed]) -> Result<TimelineSurvey, WalError> {
        let mut found = TimelineSurvey {
            timeline: segments[0].segment.timeline,
            segments: Vec::with_capacity(segments.len()),
            damage: Vec::new(),
            state: None,
        };
        let mut rest = segments;
        let mut before: Option<Segment> = None;
        while let Some(first) = rest.first() {
            found.damage.extend(before.and_then(|before| missing(before, first.segment)));
            if let Some(index) = self.known.get(&first.segment) {
                found.segments.push(index.summary.clone());
                before = Some(first.segment);
                rest = &rest[1..];
                continue;
            }
            let run = 1 + rest.windows(2).take_while(|pair| pair[0].segment.next() == pair[1].segment).count();
            let unknown = rest[..run].iter().take_while(|listed| !self.known.contains_key(&listed.segment)).count();
            found.state = self.read(&rest[..run], unknown, run == rest.len(), &mut found)?;
            before = Some(rest[unknown - 1].segment);
            rest = &rest[unknown..];
        }
        if let Some(index) = before.and_then(|last| self.known.get(&last)) {
            found.state = index.state().ok();
        }
        Ok(found)
    }

    /// Reads the first `unknown` of the segments `run`, and of the others what belongs to the last record of those. When
    /// the run is the timeline's last, WAL may just end in it.
    fn read(
        &mut self,
        run: &[Listed],
        unknown: usize,
        is_end: bool,
        found: &mut TimelineSurvey,
    ) -> Result<Option<State>, WalError> {
        let mut end = None;
        let state = self.state_before(run[0].segment);
        let (last, last_of_run) = (run[unknown - 1].segment, run[run.len() - 1].segment);
        let walk = Walk {
            source: self.source,
            segments: run,
            system_identifier: self.system_identifier,
            threads: self.survey.threads,
            state,
        };
        walk.run(|step| {
            match step {
                Step::Segment { joined, .. } if joined.segment > last => return ControlFlow::Break(()),
                Step::Segment { listed, joined, state } => {
                    self.surveyed.read += 1;
                    found.segments.push(Summary::of(&joined, state));
                    if !is_end && joined.segment == last_of_run && joined.stop.as_ref().is_some_and(Flaw::is_end) {
                        found.damage.extend(joined.damage());
                    }
                    end = joined.stop.is_none().then(|| state.clone());
                    if let Some(mut index) = Index::of(&joined, state) {
                        self.to_keep.push((Index::key(listed), index.to_bytes()));
                        index.forget_commits();
                        self.known.insert(joined.segment, index);
                    }
                    if self.to_keep.len() >= AT_ONCE {
                        self.keep();
                    }
                }
                Step::Damaged(damage) => {
                    end = None;
                    found.damage.push(damage);
                }
            }
            ControlFlow::Continue(())
        })?;
        Ok(end)
    }

    /// What is known behind the segment before this one, on its timeline or where that left its parent.
    fn state_before(&self, segment: Segment) -> Option<State> {
        let before = |timeline| Segment { timeline, number: segment.number.wrapping_sub(1), ..segment };
        let parent = self.survey.forks.iter().find(|fork| fork.timeline == segment.timeline);
        let index = self.known.get(&before(segment.timeline)).or_else(|| self.known.get(&before(parent?.parent)))?;
        index.state().ok()
    }

    /// Writes the indexes that are due.
    fn keep(&mut self) {
        let due = std::mem::take(&mut self.to_keep);
        if !self.survey.keep {
            return;
        }
        let bucket = &self.survey.bucket;
        let written = futures::stream::iter(due).map(async |(key, bytes)| bucket.create(&key, bytes).await);
        let written: Vec<Result<(), StoreError>> = self.runtime.block_on(written.buffer_unordered(AT_ONCE).collect());
        for error in written.into_iter().filter_map(Result::err) {
            // Somebody else has read the same.
            if !matches!(error, StoreError::Exists { .. }) {
                self.surveyed.not_kept = Some(error.to_string());
            }
        }
    }
}
