//! One segment, read page by page and alone: a record that began before it, and one that goes on behind it, are kept as
//! bytes for [`super::join`]. So segments are scanned in parallel.

use super::super::name::Segment;
use super::damage::Flaw;
use super::fact::{Abort, Checkpoint, Commit, Counts, Fact, Prepared, Work};
use super::page::{PageHeader, Version, u16_at, u32_at};
use super::record::{self, Header};
use super::tally::Tally;
use super::xact::{self, Xact};
use super::xlog::{self, File};
use crate::event::Lsn;

mod manager {
    pub const XLOG: u8 = 0;
    pub const XACT: u8 = 1;
    pub const SMGR: u8 = 2;
    pub const DATABASE: u8 = 4;
    pub const STANDBY: u8 = 8;
    pub const HEAP2: u8 = 9;
    pub const HEAP: u8 = 10;
}

/// The bits of `info` that are the resource manager's.
const OWN: u8 = 0xF0;

/// What records say, in their order.
#[derive(Default)]
pub(super) struct Reading {
    /// A transaction's work is here only what it did in this reading.
    pub facts: Vec<Fact>,
    /// What did not end here.
    pub tally: Tally,
    pub records: u64,
    pub counts: Counts,
}

impl Reading {
    /// Takes a record whose checksum is right. `None` when it is not what its version writes.
    pub fn record(&mut self, header: &Header, bytes: &[u8], lsn: Lsn, end: Lsn, version: Version) -> Option<()> {
        self.records += 1;
        let info = header.info & OWN;
        match header.manager {
            manager::HEAP => self.heap(header, bytes, version)?,
            manager::HEAP2 => self.heap2(header, bytes, version)?,
            manager::XACT => {
                let main = record::body(bytes, version)?.main;
                self.xact(header.xid, xact::read(info, main, version)?, lsn, end);
            }
            manager::SMGR if header.xid != 0 => match xlog::file(info, record::body(bytes, version)?.main)? {
                File::Created(relation) => self.tally.created(header.xid, relation),
                File::Emptied(relation) => self.tally.emptied(header.xid, relation),
                File::Other => {}
            },
            manager::XLOG => {
                let (first, second) = xlog::xlog(info, record::body(bytes, version)?.main, lsn, end)?;
                for fact in [first, second].into_iter().flatten() {
                    if matches!(fact, Fact::TimelineSwitch { .. } | Fact::Checkpoint(Checkpoint { shutdown: true, .. }))
                    {
                        self.tally.clear();
                    }
                    self.facts.push(fact);
                }
            }
            manager::STANDBY => {
                let main = record::body(bytes, version)?.main;
                xlog::standby(info, main, lsn, |fact| self.facts.push(fact))?;
            }
            manager::DATABASE => {
                let main = record::body(bytes, version)?.main;
                if let Some(database) = xlog::dropped_database(info, main, version)? {
                    self.facts.push(Fact::DatabaseDropped { lsn, xid: header.xid, database });
                }
            }
            _ => {}
        }
        Some(())
    }

    fn heap(&mut self, header: &Header, bytes: &[u8], version: Version) -> Option<()> {
        const OPERATIONS: u8 = 0x70;
        let change: fn(&mut Counts) = match header.info & OPERATIONS {
            0x00 => |counts| counts.inserts += 1,
            0x10 => |counts| counts.deletes += 1,
            // UPDATE, HOT_UPDATE
            0x20 | 0x40 => |counts| counts.updates += 1,
            _ => return Some(()),
        };
        let relation = record::body(bytes, version)?.relation?;
        change(&mut self.counts);
        self.tally.count(header.xid, relation, change);
        Some(())
    }

    fn heap2(&mut self, header: &Header, bytes: &[u8], version: Version) -> Option<()> {
        const OPERATIONS: u8 = 0x70;
        const MULTI_INSERT: u8 = 0x50;
        if header.info & OPERATIONS != MULTI_INSERT {
            return Some(());
        }
        let body = record::body(bytes, version)?;
        // A flag, a byte of padding, the number of rows.
        let rows = u64::from(u16_at(body.main.get(..4)?, 2));
        self.counts.inserts += rows;
        self.tally.count(header.xid, body.relation?, |counts| counts.inserts += rows);
        Some(())
    }

    fn xact(&mut self, xid: u32, found: Xact, lsn: Lsn, end: Lsn) {
        match found {
            Xact::Ended(ended) => {
                let xid = ended.prepared.unwrap_or(xid);
                let mut work = Work::default();
                for xid in std::iter::once(&xid).chain(&ended.subtransactions) {
                    self.tally.end(*xid, |done| work.add(done));
                }
                self.facts.push(if ended.committed {
                    Fact::Commit(Commit {
                        lsn,
                        end,
                        xid,
                        time: ended.time,
                        database: ended.database,
                        subtransactions: ended.subtransactions,
                        dropped: ended.dropped,
                        gid: ended.gid,
                        work,
                    })
                } else {
                    Fact::Abort(Abort { lsn, end, xid, time: ended.time, subtransactions: ended.subtransactions })
                });
            }
            Xact::Prepare(prepare) => {
                let mut work = Work::default();
                for xid in std::iter::once(&prepare.xid).chain(&prepare.subtransactions) {
                    self.tally.end(*xid, |done| work.add(done));
                }
                let xact::Prepare { xid, time, database, gid, subtransactions } = prepare;
                let prepared = Prepared { lsn, end, xid, time, database, gid, subtransactions, work };
                self.facts.push(Fact::Prepared(prepared));
            }
            Xact::Other => {}
        }
    }
}

/// A record whose end is on pages to come.
#[derive(Debug)]
pub(super) struct Tail {
    pub lsn: Lsn,
    pub bytes: Vec<u8>,
    /// Bytes that are missing.
    pub left: usize,
}

/// What one segment says by itself.
pub(super) struct SegmentScan {
    pub segment: Segment,
    pub version: Version,
    pub system_identifier: u64,
    pub reading: Reading,
    /// The rest of a record that began before.
    pub lead: Vec<u8>,
    /// Bytes of that record that come only behind this segment.
    pub lead_left: usize,
    /// Behind what of that record is here.
    pub lead_end: Lsn,
    /// It begins with what a crash cut off.
    pub overwrites: bool,
    /// Where the first record begins, and where it says the one before it does.
    pub first: Option<(Lsn, Lsn)>,
    /// Where the last whole record begins.
    pub last: Option<Lsn>,
    /// Behind the last whole record: where the next begins.
    pub end: Lsn,
    pub tail: Option<Tail>,
    /// Why it does not follow the one before; for [`super::join`] to say.
    pub breaks: Option<Flaw>,
    /// What it lacks of its last record may be in segments that were not given; for [`super::join`] to say.
    pub waits: bool,
    /// Why it stopped before the segment's end.
    pub stop: Option<Flaw>,
    /// The timeline on its last page that counts.
    pub timeline: u32,
}

/// Reads a segment's pages in order.
pub(super) struct Scanner {
    scan: SegmentScan,
    page_bytes: usize,
    pages: u64,
    switched: bool,
    /// A record that crosses pages; its memory is used again.
    crossing: Vec<u8>,
    crossing_lsn: Lsn,
    crossing_left: usize,
}

impl Scanner {
    /// `page_bytes` are of one page, by the segment's header.
    pub fn new(
        segment: Segment,
        version: Version,
        system_identifier: u64,
        page_bytes: usize,
        crossing: Vec<u8>,
    ) -> Self {
        let scan = SegmentScan {
            segment,
            version,
            system_identifier,
            reading: Reading::default(),
            lead: Vec::new(),
            lead_left: 0,
            lead_end: segment.start(),
            overwrites: false,
            first: None,
            last: None,
            end: segment.start(),
            tail: None,
            breaks: None,
            waits: false,
            stop: None,
            timeline: 0,
        };
        Self { scan, page_bytes, pages: 0, switched: false, crossing, crossing_lsn: Lsn(0), crossing_left: 0 }
    }

    /// Nothing further in this segment counts.
    fn is_done(&self) -> bool {
        self.switched || self.scan.stop.is_some()
    }

    /// Whole pages, in order.
    pub fn pages(&mut self, bytes: &[u8]) {
        for page in bytes.chunks_exact(self.page_bytes) {
            if self.is_done() {
                return;
            }
            if let Err(flaw) = self.page(page) {
                self.scan.stop = Some(flaw);
            }
            self.pages += 1;
        }
    }

    /// What was found, and the buffer for the next.
    pub fn finish(self) -> (SegmentScan, Vec<u8>) {
        let Self { mut scan, crossing, crossing_lsn, crossing_left, .. } = self;
        if crossing_left > 0 && scan.stop.is_none() {
            scan.tail = Some(Tail { lsn: crossing_lsn, bytes: crossing.clone(), left: crossing_left });
        }
        (scan, crossing)
    }

    fn page(&mut self, page: &[u8]) -> Result<(), Flaw> {
        let start = self.scan.segment.start().0 + self.pages * self.page_bytes as u64;
        let header = PageHeader::read(page);
        self.check_page(&header, Lsn(start), page)?;
        let mut at = header.bytes();
        let rest = header.remaining as usize;
        if self.pages == 0 {
            self.scan.lead_left = rest;
            self.scan.overwrites = header.overwrites();
        }
        if self.scan.lead_left > 0 {
            if rest != self.scan.lead_left {
                return Err(Flaw::Continuation { page: Lsn(start) });
            }
            let here = rest.min(self.page_bytes - at);
            self.scan.lead.extend_from_slice(&page[at..at + here]);
            self.scan.lead_left -= here;
            at = (at + here).next_multiple_of(8);
            self.scan.lead_end = Lsn(start + at as u64);
            self.scan.end = self.scan.lead_end;
        } else if self.crossing_left > 0 && header.overwrites() {
            self.crossing_left = 0;
            self.scan.end = Lsn(start + at as u64);
        } else {
            if rest != self.crossing_left {
                return Err(Flaw::Continuation { page: Lsn(start) });
            }
            if rest > 0 {
                let here = rest.min(self.page_bytes - at);
                self.crossing.extend_from_slice(&page[at..at + here]);
                self.crossing_left -= here;
                at = (at + here).next_multiple_of(8);
                if self.crossing_left == 0 {
                    let record = std::mem::take(&mut self.crossing);
                    let read = self.record(&record, self.crossing_lsn, Lsn(start + at as u64));
                    self.crossing = record;
                    read?;
                }
            } else if self.scan.first.is_none() {
                self.scan.end = Lsn(start + at as u64);
            }
        }
        while at < self.page_bytes && !self.switched {
            let total = u32_at(page, at);
            let lsn = Lsn(start + at as u64);
            self.scan.end = lsn;
            match total as usize {
                0 => return Err(Flaw::Nothing),
                length if length < Header::BYTES || total > Header::LARGEST => {
                    return Err(Flaw::Length { found: total });
                }
                length if length <= self.page_bytes - at => {
                    let end = (at + length).next_multiple_of(8);
                    self.record(&page[at..at + length], lsn, Lsn(start + end as u64))?;
                    at = end;
                }
                length => {
                    self.crossing.clear();
                    self.crossing.extend_from_slice(&page[at..]);
                    self.crossing_lsn = lsn;
                    self.crossing_left = length - (self.page_bytes - at);
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    fn check_page(&mut self, header: &PageHeader, address: Lsn, page: &[u8]) -> Result<(), Flaw> {
        if header.magic != self.scan.version.magic() {
            let empty = page.iter().all(|byte| *byte == 0);
            return Err(if empty { Flaw::Nothing } else { Flaw::Magic { page: address, found: header.magic } });
        }
        if header.address != address {
            return Err(Flaw::Stale { page: address, found: header.address });
        }
        // Pages before a fork keep the timeline that they were written on; none goes back.
        let timelines = self.scan.timeline..=self.scan.segment.timeline;
        if !header.is_sane() || header.is_long() != (self.pages == 0) || !timelines.contains(&header.timeline) {
            return Err(Flaw::Page { page: address });
        }
        self.scan.timeline = header.timeline;
        Ok(())
    }

    fn record(&mut self, bytes: &[u8], lsn: Lsn, end: Lsn) -> Result<(), Flaw> {
        let header = Header::read(bytes);
        let scan = &mut self.scan;
        verify(&header, bytes, scan.last)?;
        scan.first.get_or_insert((lsn, header.previous));
        scan.last = Some(lsn);
        self.switched = header.manager == manager::XLOG && xlog::is_switch(header.info & OWN);
        scan.end = if self.switched { scan.segment.end() } else { end };
        scan.reading.record(&header, bytes, lsn, end, scan.version).ok_or(Flaw::Undecodable { lsn })
    }
}

/// The checksum, and that the record follows the one at `last`.
#[inline]
pub(super) fn verify(header: &Header, bytes: &[u8], last: Option<Lsn>) -> Result<(), Flaw> {
    if record::checksum(bytes) != header.checksum {
        return Err(Flaw::Checksum);
    }
    match last {
        Some(last) if last != header.previous => Err(Flaw::Previous { found: header.previous, expected: last }),
        _ => Ok(()),
    }
}
