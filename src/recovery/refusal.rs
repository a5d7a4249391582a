//! Why a target cannot be reached, for a person at 3 a.m.

use chrono::{DateTime, Utc};

use crate::event::{Failure, Lsn};

/// A refused target.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Refusal {
    #[error("{system} is not in the recovery window")]
    NoSystem { system: String },
    #[error("there is neither a backup nor WAL of {system}")]
    Empty { system: String },
    #[error("{system} has no usable backup")]
    NoBackup { system: String, warnings: Vec<String> },
    #[error("{system} has no usable backup called {label}")]
    NoSuchBackup { system: String, label: String },
    #[error("the target lies before the end of the first backup of {system}")]
    BeforeBackup { system: String, label: String, stopped: DateTime<Utc>, stop_lsn: Lsn },
    #[error("the target lies behind the end of the WAL of {system}")]
    BeyondWal { system: String, end: Lsn, end_time: Option<DateTime<Utc>> },
    #[error("WAL of {system} is missing before the target")]
    Gap { system: String, first_missing: String, reaches: Lsn, reaches_time: Option<DateTime<Utc>> },
    #[error("the timeline {timeline} of {system} is unknown")]
    UnknownTimeline { system: String, timeline: u32, known: Vec<u32> },
    #[error("two histories of {system} contain the target")]
    Ambiguous { system: String, timelines: Vec<(u32, Lsn)> },
    #[error("the backups of {system} are of another cluster than its WAL")]
    Foreign { system: String, backup: u64, archive: String },
    #[error("the target is not in the WAL of {system} that was read")]
    NotInWal { system: String, end: Lsn, until: Option<DateTime<Utc>> },
    #[error("the WAL of {system} cannot be read up to the target")]
    Unreadable { system: String, why: String, end: Lsn, until: Option<DateTime<Utc>> },
    #[error("the WAL of {system} ends before the target")]
    NotProven { system: String, end: Lsn, written: Option<DateTime<Utc>> },
    #[error("the last segment of {system} is not written to its end")]
    Unfinished { system: String, name: String, end: Lsn, last: Lsn },
    #[error("the commit of {system} at that very time stands behind later ones")]
    OutOfOrder { system: String, xid: u32 },
    #[error("{system} has several restore points of that name")]
    SameName { system: String, name: String, places: Vec<Lsn> },
    #[error("the transaction was rolled back on {system}")]
    RolledBack { system: String },
    #[error("{system} has no snapshot or append-only file from before the target")]
    NoSnapshot { system: String, earliest: Option<DateTime<Utc>> },
    #[error("{system} cannot be restored to the target by its cloud")]
    NotATime { system: String, of: String },
    #[error("the target lies outside of what can be restored of {system}")]
    OutsideWindow { system: String, of: String, earliest: Option<DateTime<Utc>>, latest: Option<DateTime<Utc>> },
}

fn at(time: &Option<DateTime<Utc>>) -> String {
    time.map_or(String::new(), |time| format!(", archived at {}", time.format("%Y-%m-%d %H:%M:%S%.3f UTC")))
}

impl Refusal {
    fn why(&self) -> String {
        match self {
            Self::NoSystem { .. } => "it was not looked at".to_owned(),
            Self::Empty { system } => format!("the folder of {system} in the bucket is empty"),
            Self::NoBackup { warnings, .. } if warnings.is_empty() => {
                "there is WAL, but nothing to replay it onto".to_owned()
            }
            Self::NoBackup { warnings, .. } => warnings.join("; "),
            Self::NoSuchBackup { .. } => "it is not in the bucket, or not whole".to_owned(),
            Self::BeforeBackup { label, stopped, stop_lsn, .. } => format!(
                "backup {label} ended at {} ({stop_lsn}), and is not consistent before that",
                stopped.format("%Y-%m-%d %H:%M:%S%.3f UTC")
            ),
            Self::BeyondWal { end, end_time, .. } => format!("the last segment ends at {end}{}", at(end_time)),
            Self::Gap { first_missing, reaches, reaches_time, .. } => {
                format!("{first_missing} is missing; without a hole it reaches {reaches}{}", at(reaches_time))
            }
            Self::UnknownTimeline { known, .. } => {
                let known: Vec<String> = known.iter().map(u32::to_string).collect();
                format!("no backup leads there; the archive has {}", known.join(", "))
            }
            Self::Ambiguous { timelines, .. } => {
                let each: Vec<String> = timelines.iter().map(|(id, end)| format!("timeline {id} to {end}")).collect();
                each.join(", ")
            }
            Self::Foreign { backup, archive, .. } => format!("system identifier {backup} and {archive}"),
            Self::NotInWal { end, until, .. } => {
                let until = until.map_or_else(String::new, |at| format!(", whose last commit is of {at}"));
                format!("it was looked for from the base backup to {end}{until}")
            }
            Self::Unreadable { why, end, until, .. } => {
                let until = until.map_or_else(String::new, |at| format!(", whose last commit is of {at}"));
                format!("{why}; without damage it reaches {end}{until}")
            }
            Self::NotProven { end, written, .. } => {
                let written =
                    written.map_or_else(String::new, |at| format!(", and nothing in it was written after {at}"));
                format!("it reaches {end}{written}: whether commits followed before the target is unknown")
            }
            Self::Unfinished { name, end, .. } => {
                format!(
                    "{name} ends at {end}, and a server archives whole segments: it is damaged, or was saved from a dead server"
                )
            }
            Self::OutOfOrder { xid, .. } => {
                format!(
                    "transaction {xid} took its time before it came to write, and recovery follows the order of the WAL"
                )
            }
            Self::SameName { name, places, .. } => {
                let places: Vec<String> = places.iter().map(Lsn::to_string).collect();
                format!("{name} stands at {}", places.join(", "))
            }
            Self::RolledBack { .. } => "it changed nothing that anybody saw".to_owned(),
            Self::NoSnapshot { earliest: Some(earliest), .. } => {
                format!("the earliest is of {}", earliest.format("%Y-%m-%d %H:%M:%S%.3f UTC"))
            }
            Self::NoSnapshot { .. } => "there is none at all".to_owned(),
            Self::NotATime { of, .. } => format!("{of} is restored to a time only, or to the latest point"),
            Self::OutsideWindow { of, earliest, latest, .. } => {
                let stamp = |at: &Option<DateTime<Utc>>| {
                    at.map_or("an unknown moment".to_owned(), |at| at.format("%Y-%m-%d %H:%M:%S UTC").to_string())
                };
                format!("{of} reports that it goes from {} to {}", stamp(earliest), stamp(latest))
            }
        }
    }

    fn now(&self) -> String {
        match self {
            Self::OutOfOrder { xid, .. } => format!(
                "choose `xid:{xid}` inclusive to keep it and what precedes it, or leave it out: the same time, exclusive"
            ),
            Self::Unfinished { last, .. } => {
                format!("if it was saved by hand, `lsn:{last}` inclusive is all there is; else find another copy of it")
            }
            _ => self.advice().to_owned(),
        }
    }

    fn advice(&self) -> &'static str {
        match self {
            Self::NoSystem { .. } => "name a system of the inventory",
            Self::Empty { .. } => "check the store and the prefix of the system in the inventory",
            Self::NoBackup { .. } => "look for another copy of the backups",
            Self::NoSuchBackup { .. } => "choose another base backup",
            Self::BeforeBackup { .. } => "choose a later target, or find an older backup",
            Self::BeyondWal { .. } => "choose an earlier target, or `latest` for all there is",
            Self::Gap { .. } => {
                "bring the missing segment back, or choose a time or an LSN before the hole: what lies behind it is lost"
            }
            Self::UnknownTimeline { .. } => "choose one of the timelines that are there",
            Self::Ambiguous { .. } => {
                "say which timeline is the real one; the other may be a clone's or an old primary's"
            }
            Self::Foreign { .. } => "check the prefix of the system in the inventory; two systems may share a folder",
            Self::NotInWal { .. } => "check the number or the name; `lifeboat points` lists what was found",
            Self::Unreadable { .. } => {
                "find another copy of that segment, or choose a point before it: what lies behind it is lost"
            }
            Self::NotProven { .. } => "choose `latest` for all there is, or bring what the source has not archived",
            Self::OutOfOrder { .. } | Self::Unfinished { .. } => "choose a place in the WAL",
            Self::SameName { .. } => "choose one of them by its place, `lsn:…` inclusive",
            Self::RolledBack { .. } => "choose another transaction, or a time",
            Self::NoSnapshot { .. } => "choose a later target, or leave this system out",
            Self::NotATime { .. } => "choose a time, or `latest`",
            Self::OutsideWindow { .. } => {
                "choose a time within; the latest moves on every few minutes, and waiting for it may be enough"
            }
        }
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self::new(refusal.to_string(), refusal.why()).now(refusal.now())
    }
}
