//! Commits, aborts and prepared transactions: resource manager 1.
//!
//! Source: `src/include/access/xact.h`, `ParseCommitRecord` and `ParseAbortRecord` in `xactdesc.c`.

use chrono::{DateTime, Utc};

use super::fact::Relation;
use super::page::{Version, u32_at};
use super::record::Fields;

const OPERATIONS: u8 = 0x70;
const COMMIT: u8 = 0x00;
const PREPARE: u8 = 0x10;
const ABORT: u8 = 0x20;
const COMMIT_PREPARED: u8 = 0x30;
const ABORT_PREPARED: u8 = 0x40;
/// The record has an `xinfo`.
const HAS_INFO: u8 = 0x80;

const DATABASE: u32 = 1 << 0;
const SUBTRANSACTIONS: u32 = 1 << 1;
const RELATIONS: u32 = 1 << 2;
const INVALIDATIONS: u32 = 1 << 3;
const TWO_PHASE: u32 = 1 << 4;
const GID: u32 = 1 << 7;
/// From version 15.
const DROPPED_STATISTICS: u32 = 1 << 8;

/// What ended a transaction.
#[derive(Debug, PartialEq)]
pub(super) struct Ended {
    pub committed: bool,
    pub time: DateTime<Utc>,
    pub database: u32,
    pub subtransactions: Vec<u32>,
    pub dropped: Vec<Relation>,
    /// The xid of a prepared transaction, whose session is long gone.
    pub prepared: Option<u32>,
    pub gid: Option<String>,
}

#[derive(Debug, PartialEq)]
pub(super) struct Prepare {
    pub xid: u32,
    pub time: DateTime<Utc>,
    pub database: u32,
    pub gid: String,
    pub subtransactions: Vec<u32>,
}

#[derive(Debug, PartialEq)]
pub(super) enum Xact {
    Ended(Ended),
    Prepare(Prepare),
    /// Assignments and invalidations.
    Other,
}

/// `None` when the record is not what its version writes.
pub(super) fn read(info: u8, main: &[u8], version: Version) -> Option<Xact> {
    let mut fields = Fields(main);
    let operation = info & OPERATIONS;
    match operation {
        COMMIT | COMMIT_PREPARED | ABORT | ABORT_PREPARED => {
            ended(matches!(operation, COMMIT | COMMIT_PREPARED), info, &mut fields, version).map(Xact::Ended)
        }
        PREPARE => prepare(&mut fields, version).map(Xact::Prepare),
        _ => Some(Xact::Other),
    }
}

fn ended(committed: bool, info: u8, fields: &mut Fields<'_>, version: Version) -> Option<Ended> {
    let mut found = Ended {
        committed,
        time: time(fields.i64()?)?,
        database: 0,
        subtransactions: Vec::new(),
        dropped: Vec::new(),
        prepared: None,
        gid: None,
    };
    let xinfo = if info & HAS_INFO != 0 { fields.u32()? } else { 0 };
    if xinfo & DATABASE != 0 {
        found.database = fields.u32()?;
        fields.u32()?;
    }
    if xinfo & SUBTRANSACTIONS != 0 {
        found.subtransactions = fields.items(4)?.map(|xid| u32_at(xid, 0)).collect();
    }
    if xinfo & RELATIONS != 0 {
        found.dropped = fields.items(12)?.map(Relation::read).collect();
    }
    if version >= Version::V15 && xinfo & DROPPED_STATISTICS != 0 {
        // The object's id has 64 bits from version 18.
        let _ = fields.items(if version >= Version::V18 { 16 } else { 12 })?;
    }
    if committed && xinfo & INVALIDATIONS != 0 {
        let _ = fields.items(16)?;
    }
    if xinfo & TWO_PHASE != 0 {
        found.prepared = Some(fields.u32()?);
        if xinfo & GID != 0 {
            found.gid = Some(fields.text()?);
        }
    }
    Some(found)
}

/// The state file of a prepared transaction.
fn prepare(fields: &mut Fields<'_>, version: Version) -> Option<Prepare> {
    // Magic number and length.
    fields.bytes(8)?;
    let xid = fields.u32()?;
    let database = fields.u32()?;
    let time = time(fields.i64()?)?;
    // The owner.
    fields.u32()?;
    let subtransactions = fields.u32()? as usize;
    // Counts of relations to drop, from version 15 of statistics, and of invalidations.
    fields.bytes(if version >= Version::V15 { 20 } else { 12 })?;
    // A flag, and padding.
    fields.bytes(2)?;
    let gid_bytes = usize::from(super::page::u16_at(fields.bytes(2)?, 0));
    // The origin: an LSN and a time.
    fields.bytes(16)?;
    let gid = fields.bytes(gid_bytes.next_multiple_of(8))?.get(..gid_bytes)?;
    let gid = gid.strip_suffix(&[0]).unwrap_or(gid);
    Some(Prepare {
        xid,
        time,
        database,
        gid: String::from_utf8_lossy(gid).into_owned(),
        subtransactions: fields.exactly(subtransactions, 4)?.map(|xid| u32_at(xid, 0)).collect(),
    })
}

/// Microseconds from 2000-01-01 to 1970-01-01.
const EPOCH: i64 = 946_684_800_000_000;

/// PostgreSQL's timestamps are microseconds since 2000-01-01 UTC.
pub(super) fn time(micros: i64) -> Option<DateTime<Utc>> {
    DateTime::from_timestamp_micros(micros.checked_add(EPOCH)?)
}
