//! A walk over segments: scanned in parallel, joined in order.

use std::collections::VecDeque;
use std::num::NonZeroUsize;
use std::ops::ControlFlow;
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, Sender, channel};

use super::super::archive::WalError;
use super::super::name::{BadSegment, Segment};
use super::damage::{Damage, Flaw};
use super::join::{Emit, Joined, Joiner, State};
use super::scan::SegmentScan;
use super::source::{Listed, Loader, Source};

/// Segments a thread that are scanned and wait to be joined, or are being scanned.
const AHEAD: usize = 3;

/// Reads segments in their order. Memory is bounded by the segment's size times the threads, and the largest record.
pub struct Walk<'a> {
    pub source: &'a Source,
    /// In the order of their numbers, along one lineage of timelines. A number that is left out is missing.
    pub segments: &'a [Listed],
    /// Another cluster's WAL is refused; `None` takes the first segment's word for whose it is.
    pub system_identifier: Option<u64>,
    pub threads: NonZeroUsize,
    /// What is known behind the segment before the first; else it begins knowing nothing.
    pub state: Option<State>,
}

/// What a walk meets.
pub enum Step<'a> {
    /// A segment was read. When it stopped inside, a [`Step::Damaged`] follows, but not where WAL just ends.
    Segment {
        listed: &'a Listed,
        joined: Joined,
        state: &'a State,
    },
    Damaged(Damage),
}

type Scanned = Result<Result<SegmentScan, Damage>, WalError>;

impl<'a> Walk<'a> {
    /// Walks until the last segment, or until `visit` breaks off. Damage does not end it, the next readable segment is a
    /// new beginning; a store or disk that fails does.
    pub fn run(self, mut visit: impl FnMut(Step<'_>) -> ControlFlow<()>) -> Result<(), WalError> {
        let threads = self.threads.get().min(self.segments.len());
        if threads <= 1 {
            let mut loader = Loader::new(self.source, self.system_identifier);
            return self.join(|listed| loader.scan(listed), &mut visit);
        }
        let (order, orders) = channel::<(&Listed, Sender<Scanned>)>();
        let orders = Mutex::new(orders);
        std::thread::scope(|scope| {
            for _ in 0..threads {
                let mut loader = Loader::new(self.source, self.system_identifier);
                let orders = &orders;
                scope.spawn(move || {
                    // Whoever is free takes the next: not every segment is the same work.
                    let next = || orders.lock().ok()?.recv().ok();
                    while let Some((listed, answer)) = next() {
                        // The joining has ended early.
                        let Ok(()) = answer.send(loader.scan(listed)) else { break };
                    }
                });
            }
            let mut coming = self.segments.iter();
            let mut answers = VecDeque::new();
            let mut order_one = |answers: &mut VecDeque<Receiver<Scanned>>| {
                if let Some(listed) = coming.next() {
                    let (sender, receiver) = channel();
                    answers.push_back(receiver);
                    order.send((listed, sender)).expect("the threads wait for orders");
                }
            };
            (0..threads * AHEAD).for_each(|_| order_one(&mut answers));
            let answered = |_: &Listed| {
                let scanned = answers.pop_front().expect("it was ordered").recv().expect("a thread answers its order");
                order_one(&mut answers);
                scanned
            };
            let joined = self.join(answered, &mut visit);
            drop(order);
            joined
        })
    }

    fn join(
        &self,
        mut scan: impl FnMut(&Listed) -> Scanned,
        visit: &mut impl FnMut(Step<'_>) -> ControlFlow<()>,
    ) -> Result<(), WalError> {
        let mut joiner = self.state.clone().map_or_else(Joiner::default, Joiner::resume);
        let mut teller = Teller { visit, coming: self.segments.iter(), ended: ControlFlow::Continue(()) };
        let mut before: Option<Segment> = None;
        let mut cluster = self.system_identifier;
        for listed in self.segments {
            let scanned = scan(listed)?;
            if let Some(damage) = before.and_then(|before| missing(before, listed.segment)) {
                joiner.interrupt(&mut teller);
                teller.damaged(damage);
            }
            match scanned.and_then(|scan| of_one_cluster(scan, &mut cluster)) {
                Ok(scan) => joiner.push(scan, &mut teller),
                Err(damage) => {
                    joiner.interrupt(&mut teller);
                    teller.damaged(damage);
                }
            }
            if teller.ended.is_break() {
                return Ok(());
            }
            before = Some(listed.segment);
        }
        joiner.end(&mut teller);
        Ok(())
    }
}

/// When nobody said whose WAL it is, the first segment does.
fn of_one_cluster(scan: SegmentScan, cluster: &mut Option<u64>) -> Result<SegmentScan, Damage> {
    let (found, expected) = (scan.system_identifier, *cluster.get_or_insert(scan.system_identifier));
    if found != expected {
        return Err(BadSegment::Foreign { name: scan.segment.to_string(), found, expected }.into());
    }
    Ok(scan)
}

/// The segments between these two.
pub(in super::super) fn missing(before: Segment, next: Segment) -> Option<Damage> {
    let segments = next.number.checked_sub(before.number + 1).filter(|segments| *segments > 0)?;
    let last = Segment { number: next.number - 1, ..next };
    Some(Damage::Missing { first: before.next().to_string(), last: last.to_string(), segments })
}

/// Tells the visitor, until it has had enough.
struct Teller<'a, V> {
    visit: &'a mut V,
    /// Segments whose facts were not told yet; those come in the same order.
    coming: std::slice::Iter<'a, Listed>,
    ended: ControlFlow<()>,
}

impl<V: FnMut(Step<'_>) -> ControlFlow<()>> Teller<'_, V> {
    fn damaged(&mut self, damage: Damage) {
        if self.ended.is_continue() {
            self.ended = (self.visit)(Step::Damaged(damage));
        }
    }
}

impl<V: FnMut(Step<'_>) -> ControlFlow<()>> Emit for Teller<'_, V> {
    fn joined(&mut self, joined: Joined, state: &State) {
        let Some(listed) = self.coming.find(|listed| listed.segment == joined.segment) else { return };
        let is_last = self.coming.as_slice().is_empty();
        let (name, at) = (joined.segment.to_string(), joined.segment.start());
        let before = joined.breaks.clone().map(|flaw| Damage::Torn { name, at, flaw });
        // At the very end there is nothing wrong with WAL that just ends.
        let ends = is_last && joined.stop.as_ref().is_some_and(Flaw::is_end);
        let stop = joined.damage().filter(|_| !ends);
        if let Some(damage) = before {
            self.damaged(damage);
        }
        if self.ended.is_continue() {
            self.ended = (self.visit)(Step::Segment { listed, joined, state });
        }
        if let Some(damage) = stop {
            self.damaged(damage);
        }
    }
}
