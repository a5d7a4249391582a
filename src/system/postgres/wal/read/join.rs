//! Segments that were scanned alone, joined in their order: records across their borders, and transactions.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::super::name::Segment;
use super::damage::{Damage, Flaw};
use super::fact::{Checkpoint, Counts, Fact, Lock, Work};
use super::page::Version;
use super::record::Header;
use super::scan::{SegmentScan, Tail, verify};
use crate::event::Lsn;

/// Transactions that are followed at once, over all segments.
const MOST: usize = 1 << 18;

/// What is known behind a segment, and all that reading on needs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    /// Where the last record begins.
    pub last: Lsn,
    /// Where the last record ends.
    pub next: Lsn,
    /// Transactions and subtransactions that have not ended, by xid.
    pub open: BTreeMap<u32, Open>,
}

/// A transaction that has not ended; or a subtransaction, whose parent only its end tells.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Open {
    pub work: Work,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prepared: Option<PreparedAs>,
    /// What a standby that stops here keeps locked, until it is promoted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub locks: Vec<Lock>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PreparedAs {
    pub gid: String,
    pub lsn: Lsn,
    pub time: DateTime<Utc>,
}

/// What one segment says: of every record that begins in it, wherever it ends.
#[derive(Debug)]
pub struct Joined {
    pub segment: Segment,
    /// PostgreSQL's version.
    pub version: Version,
    pub system_identifier: u64,
    /// The timeline of its last page, as the page says.
    pub timeline: u32,
    /// Records that begin in it.
    pub records: u64,
    pub counts: Counts,
    /// Changes of transactions that were too many to follow; 0 but in very strange WAL.
    pub uncounted: u64,
    pub first: Option<Lsn>,
    /// Behind its last whole record.
    pub end: Lsn,
    /// In the order of their LSNs.
    pub facts: Vec<Fact>,
    /// Why it does not follow the segment that was read before it; what ran there is forgotten.
    pub breaks: Option<Flaw>,
    /// Why reading stopped before the segment's end; or what is wrong with the record that leaves it.
    pub stop: Option<Flaw>,
    /// A record begins here whose rest was not looked at, because there is no next segment.
    pub unfinished: Option<Lsn>,
    /// That record goes on in segments which the walk was not given.
    pub waits: bool,
}

impl Joined {
    /// All that begins in it is known.
    pub fn is_complete(&self) -> bool {
        self.stop.is_none() && self.unfinished.is_none()
    }

    /// As damage, why reading stopped; at the end of WAL it is none.
    pub fn damage(&self) -> Option<Damage> {
        let flaw = self.stop.clone()?;
        Some(Damage::Torn { name: self.segment.to_string(), at: self.end, flaw })
    }
}

/// Joins scans in their order.
#[derive(Default)]
pub(super) struct Joiner {
    state: Option<State>,
    /// Segments from the one whose last record is not whole yet; the others hold nothing but parts of it.
    held: Vec<SegmentScan>,
}

/// Receives what was joined, with the state behind it.
pub(super) trait Emit {
    fn joined(&mut self, joined: Joined, state: &State);
}

impl Joiner {
    /// Goes on behind a segment.
    pub fn resume(state: State) -> Self {
        Self { state: Some(state), held: Vec::new() }
    }

    /// Takes the next segment; what is known whole is emitted.
    pub fn push(&mut self, mut scan: SegmentScan, emit: &mut impl Emit) {
        if !self.held.is_empty() {
            match self.complete(&scan) {
                Ok(true) => self.release(emit),
                // The record fills this segment too.
                Ok(false) => return self.held.push(scan),
                Err(flaw) => {
                    self.held[0].stop = Some(flaw);
                    self.release(emit);
                }
            }
        }
        scan.breaks = self.breaks(&scan);
        if scan.breaks.is_some() {
            self.state = None;
        }
        let leaves = scan.tail.is_some();
        self.held.push(scan);
        if !leaves {
            self.release(emit);
        }
    }

    /// The walk was given no more segments.
    pub fn end(&mut self, emit: &mut impl Emit) {
        if let Some(first) = self.held.first_mut() {
            first.waits = true;
        }
        self.interrupt(emit);
    }

    /// There is no next segment, or it is not readable.
    pub fn interrupt(&mut self, emit: &mut impl Emit) {
        self.release(emit);
        self.state = None;
    }

    /// Adds the beginning of `next` to the record that is not whole; whether it is whole then.
    fn complete(&mut self, next: &SegmentScan) -> Result<bool, Flaw> {
        let first = &mut self.held[0];
        let Some(tail) = &mut first.tail else { return Ok(true) };
        if next.overwrites {
            first.tail = None;
            return Ok(true);
        }
        if next.lead.len() + next.lead_left != tail.left {
            return Err(Flaw::Cut);
        }
        tail.bytes.extend_from_slice(&next.lead);
        tail.left = next.lead_left;
        if tail.left > 0 {
            return Ok(false);
        }
        let Tail { lsn, bytes, .. } = first.tail.take().expect("it was there");
        let header = Header::read(&bytes);
        verify(&header, &bytes, first.last.or(self.state.as_ref().map(|state| state.last)))?;
        first.first.get_or_insert((lsn, header.previous));
        first.last = Some(lsn);
        first.end = next.lead_end;
        first.reading.record(&header, &bytes, lsn, next.lead_end, first.version).ok_or(Flaw::Undecodable { lsn })?;
        Ok(true)
    }

    /// Why `scan` does not follow what is known.
    fn breaks(&self, scan: &SegmentScan) -> Option<Flaw> {
        let state = self.state.as_ref()?;
        let page = scan.segment.start();
        if scan.overwrites {
            return None;
        }
        let follows = match (scan.lead.is_empty(), scan.lead_left) {
            (true, _) => state.next <= page,
            (false, 0) => state.next == scan.lead_end,
            (false, _) => state.next > scan.segment.end(),
        };
        if !follows {
            return Some(Flaw::Continuation { page });
        }
        match scan.first {
            Some((_, found)) if found != state.last => Some(Flaw::Previous { found, expected: state.last }),
            _ => None,
        }
    }

    fn release(&mut self, emit: &mut impl Emit) {
        let mut stopped = false;
        for scan in std::mem::take(&mut self.held) {
            stopped |= scan.stop.is_some();
            // A segment without a beginning of its own says nothing that the next could follow.
            let says_nothing = self.state.is_none() && scan.last.is_none();
            let state = self.state.get_or_insert_with(|| State {
                last: Lsn(0),
                next: scan.segment.start(),
                open: BTreeMap::new(),
            });
            let joined = state.follow(scan);
            emit.joined(joined, state);
            if says_nothing {
                self.state = None;
            }
        }
        if stopped {
            self.state = None;
        }
    }
}

impl State {
    fn follow(&mut self, scan: SegmentScan) -> Joined {
        let SegmentScan { segment, version, system_identifier, timeline, mut reading, first, end, .. } = scan;
        if let Some(last) = scan.last {
            (self.last, self.next) = (last, end);
        }
        let mut running = None;
        for fact in &mut reading.facts {
            self.apply(fact);
            if let Fact::Running { oldest, .. } = fact {
                running = Some(*oldest);
            }
        }
        let mut uncounted = reading.tally.uncounted;
        for (xid, work) in reading.tally.left() {
            if running.is_some_and(|oldest| is_older(xid, oldest)) {
                continue;
            }
            match self.entry(xid) {
                Some(open) => open.work.add(work),
                None => uncounted += work.counts.changed() + work.counts.inserts,
            }
        }
        Joined {
            segment,
            version,
            system_identifier,
            timeline,
            records: reading.records,
            counts: reading.counts,
            uncounted,
            first: first.map(|(lsn, _)| lsn),
            end,
            facts: reading.facts,
            breaks: scan.breaks,
            stop: scan.stop,
            unfinished: scan.tail.map(|tail| tail.lsn),
            waits: scan.waits,
        }
    }

    /// Follows a fact; gives an ended transaction what it did in segments before.
    fn apply(&mut self, fact: &mut Fact) {
        match fact {
            Fact::Commit(commit) => {
                for xid in std::iter::once(&commit.xid).chain(&commit.subtransactions) {
                    let Some(open) = self.take(*xid) else { continue };
                    commit.work.add(&open.work);
                    commit.gid = commit.gid.take().or(open.prepared.map(|prepared| prepared.gid));
                }
                commit.work.conclude();
            }
            Fact::Abort(abort) => {
                for xid in std::iter::once(&abort.xid).chain(&abort.subtransactions) {
                    self.take(*xid);
                }
            }
            Fact::Prepared(prepared) => {
                let mut locks = Vec::new();
                for xid in std::iter::once(&prepared.xid).chain(&prepared.subtransactions) {
                    let Some(open) = self.take(*xid) else { continue };
                    prepared.work.add(&open.work);
                    locks.extend(open.locks);
                }
                let work = prepared.work.clone();
                let as_what = PreparedAs { gid: prepared.gid.clone(), lsn: prepared.lsn, time: prepared.time };
                self.open.insert(prepared.xid, Open { work, prepared: Some(as_what), locks });
                prepared.work.conclude();
            }
            Fact::Lock { xid, lock, .. } => {
                let lock = *lock;
                if let Some(open) = self.entry(*xid).filter(|open| !open.locks.contains(&lock)) {
                    open.locks.push(lock);
                }
            }
            Fact::TimelineSwitch { .. } | Fact::Checkpoint(Checkpoint { shutdown: true, .. }) => {
                self.open.retain(|_, open| open.prepared.is_some());
            }
            Fact::Running { oldest, .. } => {
                let oldest = *oldest;
                self.open.retain(|xid, open| open.prepared.is_some() || !is_older(*xid, oldest));
            }
            _ => {}
        }
    }

    fn take(&mut self, xid: u32) -> Option<Open> {
        if self.open.is_empty() { None } else { self.open.remove(&xid) }
    }

    fn entry(&mut self, xid: u32) -> Option<&mut Open> {
        if self.open.len() >= MOST && !self.open.contains_key(&xid) {
            return None;
        }
        Some(self.open.entry(xid).or_default())
    }
}

/// Xids go round: one is older than another when it is behind it by less than half the circle.
fn is_older(xid: u32, than: u32) -> bool {
    (xid.wrapping_sub(than) as i32) < 0
}
