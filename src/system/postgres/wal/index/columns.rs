//! Rows of numbers as differences to the row before, a column after the other: they compress well.

use chrono::DateTime;

use super::{CommitAt, Pace};
use crate::event::Lsn;

/// What has columns.
pub(super) trait Row: Clone + Default + 'static {
    const COLUMNS: &'static [Column<Self>];
}

/// A number's place in a row.
type Column<R> = (fn(&R) -> i64, fn(&mut R, i64));

impl Row for CommitAt {
    const COLUMNS: &'static [Column<Self>] = &[
        (|commit| commit.lsn.0 as i64, |commit, value| commit.lsn = Lsn(value as u64)),
        (
            |commit| commit.end.0.wrapping_sub(commit.lsn.0) as i64,
            |commit, value| commit.end = Lsn(commit.lsn.0.wrapping_add(value as u64)),
        ),
        (|commit| i64::from(commit.xid), |commit, value| commit.xid = value as u32),
        (
            |commit| commit.time.timestamp_micros(),
            |commit, value| commit.time = DateTime::from_timestamp_micros(value).unwrap_or_default(),
        ),
        (|commit| commit.counts.inserts as i64, |commit, value| commit.counts.inserts = value as u64),
        (|commit| commit.counts.updates as i64, |commit, value| commit.counts.updates = value as u64),
        (|commit| commit.counts.deletes as i64, |commit, value| commit.counts.deletes = value as u64),
    ];
}

impl Row for Pace {
    const COLUMNS: &'static [Column<Self>] = &[
        (|pace| pace.second, |pace, value| pace.second = value),
        (|pace| pace.commits as i64, |pace, value| pace.commits = value as u64),
        (|pace| pace.bytes as i64, |pace, value| pace.bytes = value as u64),
    ];
}

pub(super) fn write<R: Row>(rows: &[R]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(rows.len() * 10);
    put(&mut bytes, rows.len() as u64);
    for (get, _) in R::COLUMNS {
        let mut before = 0;
        for row in rows {
            put(&mut bytes, zigzag(get(row).wrapping_sub(before)));
            before = get(row);
        }
    }
    bytes
}

/// `None` when the bytes are not what [`write`] makes.
pub(super) fn read<R: Row>(mut bytes: &[u8]) -> Option<Vec<R>> {
    let number = usize::try_from(take(&mut bytes)?).ok()?;
    // Each has at least a byte a column.
    if number > bytes.len() / R::COLUMNS.len() {
        return None;
    }
    let mut rows = vec![R::default(); number];
    for (_, set) in R::COLUMNS {
        let mut value = 0_i64;
        for row in &mut rows {
            value = value.wrapping_add(unzigzag(take(&mut bytes)?));
            set(row, value);
        }
    }
    bytes.is_empty().then_some(rows)
}

fn put(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

fn take(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        number |= u64::from(byte & 0x7F) << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

/// Small numbers of either sign become small numbers.
fn zigzag(number: i64) -> u64 {
    (number << 1 ^ number >> 63) as u64
}

fn unzigzag(number: u64) -> i64 {
    (number >> 1) as i64 ^ -((number & 1) as i64)
}
