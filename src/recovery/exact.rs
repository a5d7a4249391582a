//! From a target to a record: where recovery stops, what it keeps, and what it gives up.
//!
//! PostgreSQL stops at the first record, in the order of the WAL, that is past a target. What is handed to it is the place
//! of the last record that is kept: its commit times run back now and then, its zones are guessed, and a transaction that
//! is cut off leaves its tables locked when recovery runs on to the record before its commit.

use std::num::NonZeroUsize;
use std::ops::ControlFlow;

use chrono::{DateTime, Utc};

use super::refusal::Refusal;
use crate::event::{Failure, Lsn, RecoveryTarget, Resolved};
use crate::system::postgres::wal::read::{Fact, Listed, Source, Step, Walk};

/// A system's WAL, with enough known of each segment to find the one that a target lies in.
pub struct Exact {
    pub(super) source: Source,
    pub(super) listed: Vec<Listed>,
    pub(super) system_identifier: Option<u64>,
    pub(super) timeline: u32,
    pub(super) from: Lsn,
    pub(super) marks: Vec<Mark>,
    /// Of all.
    pub(super) commits: u64,
    pub(super) end: Lsn,
    pub(super) until: Option<DateTime<Utc>>,
}

/// What is known of a segment, and of all before it.
#[derive(Debug, Clone, Default)]
pub struct Mark {
    latest: Option<DateTime<Utc>>,
    /// Bounds of the transactions that end here; ids wrap, and then they say nothing.
    xids: Option<(u32, u32)>,
    names: bool,
    /// Behind the segment.
    kept: Kept,
}

/// What is kept when recovery stops behind some record.
#[derive(Debug, Clone, Copy, Default)]
struct Kept {
    commits: u64,
    /// The last commit.
    commit: Option<(u32, DateTime<Utc>)>,
    /// The last end of a transaction, a rollback included: what PostgreSQL calls the last replayed transaction.
    ended: Option<DateTime<Utc>>,
    /// The last record that settles something, and its end.
    record: Option<(Lsn, Lsn)>,
}

impl Kept {
    fn take(&mut self, fact: &Fact) {
        match fact {
            Fact::Commit(commit) => {
                self.commits += 1;
                self.commit = Some((commit.xid, commit.time));
                self.ended = Some(commit.time);
                self.record = Some((commit.lsn, commit.end));
            }
            Fact::Abort(abort) => {
                self.ended = Some(abort.time);
                self.record = Some((abort.lsn, behind(abort.lsn)));
            }
            Fact::Prepared(prepared) => self.record = Some((prepared.lsn, behind(prepared.lsn))),
            Fact::RestorePoint { lsn, end, .. } => self.record = Some((*lsn, *end)),
            _ => {}
        }
    }
}

/// Before the record that follows the one at `lsn`, wherever that begins.
fn behind(lsn: Lsn) -> Lsn {
    Lsn(lsn.0 + 1)
}

impl Mark {
    pub fn next(&self) -> Self {
        Self { kept: self.kept, ..Self::default() }
    }

    pub fn take(&mut self, fact: &Fact) {
        self.kept.take(fact);
        let mut widen = |xid: u32| {
            let (low, high) = self.xids.unwrap_or((xid, xid));
            self.xids = Some((low.min(xid), high.max(xid)));
        };
        match fact {
            Fact::Commit(commit) => {
                commit.subtransactions.iter().copied().chain([commit.xid]).for_each(&mut widen);
                self.latest = self.latest.max(Some(commit.time));
            }
            Fact::Abort(abort) => {
                abort.subtransactions.iter().copied().chain([abort.xid]).for_each(&mut widen);
                self.latest = self.latest.max(Some(abort.time));
            }
            Fact::RestorePoint { .. } => self.names = true,
            _ => {}
        }
    }
}

/// What a record is to a target.
enum Past {
    No,
    /// Recovery stops before it.
    Before,
    /// Recovery stops behind it.
    Behind,
    RolledBack,
}

impl Exact {
    /// The last record that settles something: nothing may follow it.
    fn last(&self) -> Lsn {
        self.marks.last().and_then(|mark| mark.kept.record).map_or(self.end, |(lsn, _)| lsn)
    }

    pub fn timeline(&self) -> u32 {
        self.timeline
    }

    /// Where reading began.
    pub fn from(&self) -> Lsn {
        self.from
    }

    /// Blocks its thread. `consistent` is the end of the base backup that is used: nothing stops before it.
    pub fn resolve(
        &self,
        system: &str,
        target: &RecoveryTarget,
        inclusive: bool,
        consistent: Lsn,
    ) -> Result<Resolved, Failure> {
        let mut kept = Kept::default();
        let mut found = None;
        let first = self.marks.iter().position(|mark| may_hold(mark, target, inclusive)).unwrap_or(self.marks.len());
        if let Some(before) = first.checked_sub(1).and_then(|index| self.marks.get(index)) {
            kept = before.kept;
        }
        if *target != RecoveryTarget::Latest && first < self.marks.len() {
            let one = NonZeroUsize::MIN;
            let identifier = self.system_identifier;
            let segments = self.listed.get(first..self.marks.len()).unwrap_or_default();
            let walk =
                Walk { source: &self.source, segments, system_identifier: identifier, threads: one, state: None };
            let visit = |step: Step<'_>| {
                let Step::Segment { joined, .. } = step else { return ControlFlow::Break(()) };
                for fact in &joined.facts {
                    let past = judge(fact, target, inclusive);
                    if !matches!(past, Past::Before) {
                        kept.take(fact);
                    }
                    if !matches!(past, Past::No) {
                        found = Some((past, fact.lsn()));
                        return ControlFlow::Break(());
                    }
                }
                ControlFlow::Continue(())
            };
            walk.run(visit).map_err(|error| Failure::new("the WAL in the archive cannot be read", error))?;
        }
        let place = match found {
            Some((Past::RolledBack, _)) => return Err(Refusal::RolledBack { system: system.to_owned() }.into()),
            // Before the next record: a server that stops *with* a record does not tell of that one's time.
            Some((Past::Before, at)) => match kept.record.filter(|(lsn, _)| *lsn >= consistent) {
                Some((_, end)) => (end, false),
                None => (at, false),
            },
            Some((_, at)) if at == self.last() => (at, true),
            Some((_, at)) => (behind(at), false),
            // All of it is kept.
            None => match target {
                RecoveryTarget::Xid { .. } | RecoveryTarget::RestorePoint { .. } => {
                    return Err(
                        Refusal::NotInWal { system: system.to_owned(), end: self.end, until: self.until }.into()
                    );
                }
                _ => {
                    kept = self.marks.last().map_or(kept, |mark| mark.kept);
                    (self.last(), true)
                }
            },
        };
        let place = match target {
            // Written by a person, to the byte.
            RecoveryTarget::Lsn { lsn } => (*lsn, inclusive),
            _ => place,
        };
        let until = kept.record.map_or(place.0, |(_, end)| end);
        Ok(Resolved {
            lsn: place.0,
            inclusive: place.1,
            last_commit: kept.commit.map(|(_, time)| time),
            last_xid: kept.commit.map(|(xid, _)| xid),
            last_ended: kept.ended,
            commits_lost: self.commits - kept.commits,
            bytes_lost: self.end.0.saturating_sub(until.0),
            lost_until: self.until.filter(|_| self.commits > kept.commits),
        })
    }
}

/// Whether the first record past the target can be in this segment.
fn may_hold(mark: &Mark, target: &RecoveryTarget, inclusive: bool) -> bool {
    match target {
        RecoveryTarget::Latest => false,
        RecoveryTarget::Time { time } => {
            mark.latest.is_some_and(|latest| if inclusive { latest > *time } else { latest >= *time })
        }
        RecoveryTarget::Lsn { lsn } => mark.kept.record.is_some_and(|(last, _)| last >= *lsn),
        RecoveryTarget::Xid { xid } => {
            mark.xids.is_some_and(|(low, high)| high - low > u32::MAX / 2 || (low..=high).contains(&(*xid as u32)))
        }
        RecoveryTarget::RestorePoint { .. } => mark.names,
    }
}

fn judge(fact: &Fact, target: &RecoveryTarget, inclusive: bool) -> Past {
    let past_time = |at: DateTime<Utc>, time: DateTime<Utc>| if inclusive { at > time } else { at >= time };
    let past_lsn = |at: Lsn, lsn: Lsn| if inclusive { at > lsn } else { at >= lsn };
    match (target, fact) {
        (RecoveryTarget::Time { time }, Fact::Commit(commit)) if past_time(commit.time, *time) => Past::Before,
        (RecoveryTarget::Time { time }, Fact::Abort(abort)) if past_time(abort.time, *time) => Past::Before,
        (RecoveryTarget::Lsn { lsn }, Fact::Commit(commit)) if past_lsn(commit.lsn, *lsn) => Past::Before,
        // Ids are 32 bits in the WAL, and a person may give the long form.
        (RecoveryTarget::Xid { xid }, Fact::Commit(commit))
            if commit.xid == *xid as u32 || commit.subtransactions.contains(&(*xid as u32)) =>
        {
            if inclusive {
                Past::Behind
            } else {
                Past::Before
            }
        }
        (RecoveryTarget::Xid { xid }, Fact::Abort(abort)) if abort.xid == *xid as u32 => Past::RolledBack,
        (RecoveryTarget::RestorePoint { name }, Fact::RestorePoint { name: found, .. }) if found == name => {
            Past::Behind
        }
        _ => Past::No,
    }
}
