//! WAL that no server writes on request: strange records, and a record that a crash cut for ever.

use proptest::prelude::*;

use super::super::name::Segment;
use super::damage::Flaw;
use super::fact::Fact;
use super::join::{Emit, Joined, Joiner, State};
use super::page::Version;
use super::record::{self, Header};
use super::scan::{Reading, Scanner, SegmentScan};
use crate::event::Lsn;

const PAGE: usize = 8192;
const SIZE: u64 = 1 << 20;
const VERSIONS: [Version; 6] = [Version::V13, Version::V14, Version::V15, Version::V16, Version::V17, Version::V18];

/// Writes records as a server does, from the start of a segment on.
struct Writer {
    start: u64,
    bytes: Vec<u8>,
    previous: u64,
}

impl Writer {
    fn new(number: u64, previous: u64) -> Self {
        Self { start: number * SIZE, bytes: Vec::new(), previous }
    }

    fn page(&mut self, flags: u16, rest: u32) {
        assert_eq!(self.bytes.len() % PAGE, 0);
        let long = self.bytes.len().is_multiple_of(SIZE as usize);
        let address = self.start + self.bytes.len() as u64;
        self.bytes.extend_from_slice(&Version::V15.magic().to_le_bytes());
        self.bytes.extend_from_slice(&(flags | u16::from(long) << 1 | u16::from(rest > 0)).to_le_bytes());
        self.bytes.extend_from_slice(&1_u32.to_le_bytes());
        self.bytes.extend_from_slice(&address.to_le_bytes());
        self.bytes.extend_from_slice(&rest.to_le_bytes());
        self.bytes.extend_from_slice(&[0; 4]);
        if long {
            self.bytes.extend_from_slice(&77_u64.to_le_bytes());
            self.bytes.extend_from_slice(&(SIZE as u32).to_le_bytes());
            self.bytes.extend_from_slice(&(PAGE as u32).to_le_bytes());
        }
    }

    fn record(&mut self, manager: u8, info: u8, xid: u32, main: &[u8]) -> Lsn {
        if self.bytes.len().is_multiple_of(PAGE) {
            self.page(0, 0);
        }
        let lsn = self.start + self.bytes.len() as u64;
        let record = record(manager, info, xid, self.previous, main);
        self.previous = lsn;
        let mut rest = &record[..];
        loop {
            let room = PAGE - self.bytes.len() % PAGE;
            let (here, later) = rest.split_at(rest.len().min(room));
            self.bytes.extend_from_slice(here);
            rest = later;
            if rest.is_empty() {
                break;
            }
            self.page(0, rest.len() as u32);
        }
        self.bytes.resize(self.bytes.len().next_multiple_of(8), 0);
        Lsn(lsn)
    }

    /// A record of about this many bytes that means nothing.
    fn filler(&mut self, bytes: usize) -> Lsn {
        self.record(21, 0, 0, &vec![7; bytes])
    }

    /// Nothing but fillers, up to exactly so many bytes before the end of the segment; a multiple of 8.
    fn fill(&mut self, left: usize) {
        while self.bytes.len() < SIZE as usize - PAGE + 1000 {
            self.filler(1000);
        }
        self.filler(SIZE as usize - left - self.bytes.len() - Header::BYTES - 5);
    }

    fn scan(&self, number: u64, bytes: std::ops::Range<usize>) -> SegmentScan {
        let segment = Segment { timeline: 1, number, size: SIZE };
        let mut scanner = Scanner::new(segment, Version::V15, 77, PAGE, Vec::new());
        let mut whole = self.bytes[bytes.start.min(self.bytes.len())..bytes.end.min(self.bytes.len())].to_vec();
        whole.resize(bytes.len(), 0);
        scanner.pages(&whole);
        scanner.finish().0
    }
}

fn record(manager: u8, info: u8, xid: u32, previous: u64, main: &[u8]) -> Vec<u8> {
    let mut record = vec![0; Header::BYTES];
    record.push(254);
    record.extend_from_slice(&(main.len() as u32).to_le_bytes());
    record.extend_from_slice(main);
    seal(record, manager, info, xid, previous)
}

/// Makes the first 24 bytes the header of the whole.
fn seal(mut record: Vec<u8>, manager: u8, info: u8, xid: u32, previous: u64) -> Vec<u8> {
    let total = record.len() as u32;
    record[..4].copy_from_slice(&total.to_le_bytes());
    record[4..8].copy_from_slice(&xid.to_le_bytes());
    record[8..16].copy_from_slice(&previous.to_le_bytes());
    (record[16], record[17]) = (info, manager);
    let checksum = record::checksum(&record);
    record[20..24].copy_from_slice(&checksum.to_le_bytes());
    record
}

#[derive(Default)]
struct Told(Vec<Joined>, Vec<State>);

impl Emit for Told {
    fn joined(&mut self, joined: Joined, state: &State) {
        self.0.push(joined);
        self.1.push(state.clone());
    }
}

fn join(scans: Vec<SegmentScan>) -> Told {
    let (mut joiner, mut told) = (Joiner::default(), Told::default());
    scans.into_iter().for_each(|scan| joiner.push(scan, &mut told));
    joiner.interrupt(&mut told);
    told
}

/// A commit at `micros` after 2000, with nothing else.
fn commit(micros: i64) -> Vec<u8> {
    micros.to_le_bytes().to_vec()
}

fn commits(told: &Told) -> Vec<u32> {
    let facts = told.0.iter().flat_map(|joined| &joined.facts);
    facts.filter_map(|fact| if let Fact::Commit(commit) = fact { Some(commit.xid) } else { None }).collect()
}

#[test]
fn a_commit_across_two_segments_is_of_the_first() {
    for left in (0..64).step_by(8) {
        let mut writer = Writer::new(4, 0);
        writer.fill(left);
        let lsn = writer.record(1, 0x00, 900, &commit(1));
        writer.record(1, 0x00, 901, &commit(2));
        let size = SIZE as usize;
        let told = join(vec![writer.scan(4, 0..size), writer.scan(5, size..2 * size)]);
        assert_eq!(commits(&told), [900, 901]);
        let at = usize::from(lsn.0 >= 5 * SIZE);
        assert_eq!(told.0[at].facts[0].lsn(), lsn, "{left}");
        assert!(told.0[0].is_complete());
        assert_eq!((told.0[1].stop.clone(), told.0[1].breaks.clone()), (Some(Flaw::Nothing), None));
    }
}

#[test]
fn a_record_that_a_crash_cut_is_left_out_and_what_follows_is_read() {
    // Across segments, and across pages of one.
    for across in [true, false] {
        let mut writer = Writer::new(4, 0);
        let size = SIZE as usize;
        if across {
            writer.fill(2000);
        } else {
            writer.filler(3000);
        }
        let last = writer.previous;
        let cut = writer.record(1, 0x00, 900, &[1; 6000]);
        // The server was gone before the second page of it; afterwards it began there again.
        let page = (writer.bytes.len() / PAGE) * PAGE;
        writer.bytes.truncate(page);
        writer.previous = last;
        writer.page(0x08, 0);
        writer.record(0, 0xD0, 0, &[0; 16]);
        writer.record(1, 0x00, 901, &commit(2));
        assert_eq!(page == size, across);
        assert!(cut.0 % SIZE < page as u64);
        let told = join(vec![writer.scan(4, 0..size), writer.scan(5, size..2 * size)]);
        assert_eq!(commits(&told), [901]);
        assert_eq!(told.0[0].stop, if across { None } else { Some(Flaw::Nothing) });
        assert!(told.0.iter().all(|joined| joined.breaks.is_none() && joined.unfinished.is_none()));
    }
}

#[test]
fn a_segment_that_does_not_follow_is_told_apart() {
    let size = SIZE as usize;
    let mut other = Writer::new(5, 0x3F_0000);
    other.record(1, 0x00, 901, &commit(2));
    let mut whole = Writer::new(4, 0);
    whole.fill(0);
    let told = join(vec![whole.scan(4, 0..size), other.scan(5, 0..size)]);
    let flaw = Flaw::Previous { found: Lsn(0x3F_0000), expected: Lsn(whole.previous) };
    assert_eq!((told.0[0].is_complete(), told.0[1].breaks.clone()), (true, Some(flaw)));
    assert_eq!(commits(&told), [901]);
    // The rest of a record is not there.
    let mut cut = Writer::new(4, 0);
    cut.fill(64);
    let lsn = cut.filler(3000);
    let told = join(vec![cut.scan(4, 0..size), other.scan(5, 0..size)]);
    assert_eq!((told.0[0].stop.clone(), told.0[0].unfinished), (Some(Flaw::Cut), Some(lsn)));
    assert_eq!(commits(&told), [901]);
}

#[test]
fn counts_of_what_a_crash_ended_are_forgotten() {
    let mut writer = Writer::new(4, 0);
    let relation: Vec<u8> = [1663_u32, 5, 16384].iter().flat_map(|n| n.to_le_bytes()).collect();
    // SMGR CREATE of the main fork: work without a block.
    let created: Vec<u8> = relation.iter().copied().chain([0; 4]).collect();
    let checkpoint: Vec<u8> = [0_u8; 8].into_iter().chain([1, 0, 0, 0, 1, 0, 0, 0]).chain([0; 72]).collect();
    writer.record(2, 0x10, 900, &created);
    writer.record(2, 0x10, 901, &created);
    let told = join(vec![writer.scan(4, 0..SIZE as usize)]);
    assert_eq!(told.1[0].open.keys().copied().collect::<Vec<_>>(), [900, 901]);
    // Nothing older than 901 runs.
    let running: Vec<u8> = [0_u32, 0, 0, 905, 901, 904].iter().flat_map(|n| n.to_le_bytes()).collect();
    writer.record(8, 0x10, 0, &running);
    let told = join(vec![writer.scan(4, 0..SIZE as usize)]);
    assert_eq!(told.1[0].open.keys().copied().collect::<Vec<_>>(), [901]);
    writer.record(0, 0x00, 0, &checkpoint);
    let told = join(vec![writer.scan(4, 0..SIZE as usize)]);
    assert!(told.1[0].open.is_empty());
}

proptest! {
    /// Whatever stands in a record whose checksum is right.
    #[test]
    fn no_record_panics(
        manager in prop_oneof![0_u8..11, any::<u8>()],
        info in any::<u8>(),
        with_main in any::<bool>(),
        bytes in prop::collection::vec(any::<u8>(), 0..400),
    ) {
        for version in VERSIONS {
            let record = if with_main {
                record(manager, info, 900, 0, &bytes)
            } else {
                seal([vec![0; Header::BYTES], bytes.clone()].concat(), manager, info, 900, 0)
            };
            let header = Header::read(&record);
            let _ = Reading::default().record(&header, &record, Lsn(8), Lsn(16), version);
        }
    }

    /// Counts and lengths that are too large, where they matter.
    #[test]
    fn no_length_panics(info in any::<u8>(), xinfo in any::<u32>(), count in any::<u32>(), bytes in 0_usize..80) {
        let main = [&0_i64.to_le_bytes()[..], &xinfo.to_le_bytes(), &count.to_le_bytes(), &vec![0xFF; bytes]].concat();
        for (manager, version) in [0, 1, 2, 4, 8, 9, 10].into_iter().flat_map(|m| VERSIONS.map(|v| (m, v))) {
            let record = record(manager, info, 900, 0, &main);
            let _ = Reading::default().record(&Header::read(&record), &record, Lsn(8), Lsn(16), version);
        }
    }

    #[test]
    fn no_page_panics(at in prop::collection::vec((0_usize..60_000, any::<u8>()), 1..20)) {
        let mut writer = Writer::new(4, 0);
        for n in 0..12 {
            writer.filler(n * 700);
            writer.record(1, 0x00, 900 + n as u32, &commit(1));
        }
        for (at, value) in at {
            if let Some(byte) = writer.bytes.get_mut(at) {
                *byte = value;
            }
        }
        join(vec![writer.scan(4, 0..SIZE as usize)]);
    }
}
