//! The records of WAL itself, of standbys, of files, and of databases: resource managers 0, 8, 2 and 4.
//!
//! Source: `src/include/catalog/pg_control.h`, `access/xlog_internal.h`, `storage/standbydefs.h`, `catalog/storage_xlog.h`,
//! `commands/dbcommands_xlog.h`.

use chrono::DateTime;

use super::fact::{Checkpoint, Fact, Lock, Parameters, Relation};
use super::page::{Version, u32_at};
use super::record::Fields;
use super::xact::time;
use crate::event::Lsn;

const CHECKPOINT_SHUTDOWN: u8 = 0x00;
const CHECKPOINT_ONLINE: u8 = 0x10;
const SWITCH: u8 = 0x40;
const BACKUP_END: u8 = 0x50;
const PARAMETER_CHANGE: u8 = 0x60;
const RESTORE_POINT: u8 = 0x70;
const END_OF_RECOVERY: u8 = 0x90;

/// The rest of the segment is empty.
pub(super) fn is_switch(info: u8) -> bool {
    info == SWITCH
}

/// At most two facts: the checkpoint at the end of recovery may begin a timeline. `None` when the record is not what its
/// version writes.
pub(super) fn xlog(info: u8, main: &[u8], lsn: Lsn, end: Lsn) -> Option<(Option<Fact>, Option<Fact>)> {
    let mut fields = Fields(main);
    let fact = match info {
        CHECKPOINT_SHUTDOWN | CHECKPOINT_ONLINE => {
            let (redo, timeline, before) = (fields.lsn()?, fields.u32()?, fields.u32()?);
            // Flags, `wal_level` from version 17, and counters up to the time: the same width since version 12.
            fields.bytes(48)?;
            let time = DateTime::from_timestamp(fields.i64()?, 0)?;
            let shutdown = info == CHECKPOINT_SHUTDOWN;
            let checkpoint = Fact::Checkpoint(Checkpoint { lsn, redo, timeline, time, shutdown });
            let switch = (before != timeline).then_some(Fact::TimelineSwitch { lsn, from: before, to: timeline, time });
            return Some((Some(checkpoint), switch));
        }
        END_OF_RECOVERY => {
            let (time, to, from) = (time(fields.i64()?)?, fields.u32()?, fields.u32()?);
            Fact::TimelineSwitch { lsn, from, to, time }
        }
        RESTORE_POINT => Fact::RestorePoint { lsn, end, time: time(fields.i64()?)?, name: fields.text()? },
        BACKUP_END => Fact::BackupEnd { lsn, start: fields.lsn()? },
        PARAMETER_CHANGE => Fact::Parameters(Parameters {
            lsn,
            max_connections: fields.u32()?,
            max_worker_processes: fields.u32()?,
            max_wal_senders: fields.u32()?,
            max_prepared_transactions: fields.u32()?,
            max_locks_per_transaction: fields.u32()?,
        }),
        _ => return Some((None, None)),
    };
    Some((Some(fact), None))
}

const STANDBY_LOCK: u8 = 0x00;
const RUNNING: u8 = 0x10;

/// Hands out locks, and what runs.
pub(super) fn standby(info: u8, main: &[u8], lsn: Lsn, mut found: impl FnMut(Fact)) -> Option<()> {
    let mut fields = Fields(main);
    match info {
        STANDBY_LOCK => {
            for lock in fields.items(12)? {
                let (xid, database, relation) = (u32_at(lock, 0), u32_at(lock, 4), u32_at(lock, 8));
                found(Fact::Lock { lsn, xid, lock: Lock { database, relation } });
            }
        }
        RUNNING => {
            // Counts, and a flag with its padding.
            fields.bytes(12)?;
            let (next, oldest) = (fields.u32()?, fields.u32()?);
            found(Fact::Running { lsn, oldest, next });
        }
        _ => {}
    }
    Some(())
}

/// What happened to a relation's file.
pub(super) enum File {
    Created(Relation),
    Emptied(Relation),
    Other,
}

pub(super) fn file(info: u8, main: &[u8]) -> Option<File> {
    const CREATE: u8 = 0x10;
    const TRUNCATE: u8 = 0x20;
    const MAIN_FORK: u32 = 0;
    let mut fields = Fields(main);
    Some(match info {
        CREATE => {
            let relation = Relation::read(fields.bytes(12)?);
            if fields.u32()? == MAIN_FORK { File::Created(relation) } else { File::Other }
        }
        TRUNCATE => {
            let blocks = fields.u32()?;
            let relation = Relation::read(fields.bytes(12)?);
            if blocks == 0 { File::Emptied(relation) } else { File::Other }
        }
        _ => File::Other,
    })
}

/// The database that a record drops.
pub(super) fn dropped_database(info: u8, main: &[u8], version: Version) -> Option<Option<u32>> {
    let drop = if version >= Version::V15 { 0x20 } else { 0x10 };
    if info != drop { Some(None) } else { Fields(main).u32().map(Some) }
}
