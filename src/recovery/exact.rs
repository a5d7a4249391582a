//! From a target to a record: where recovery stops, what it keeps, and what it gives up.
//!
//! PostgreSQL stops at the first record, in the order of the WAL, that is past a target. What is handed to it is the place
//! of the last record that is kept: its commit times run back now and then, its zones are guessed, and a transaction that
//! is cut off leaves its tables locked when recovery runs on to the record before its commit.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::ops::{ControlFlow, Range};

use chrono::{DateTime, Utc};

use super::refusal::Refusal;
use crate::event::{Failure, Lsn, RecoveryTarget, Resolved};
use crate::system::postgres::wal::Summary;
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
    /// The latest moment that anything in it was written.
    pub(super) written: Option<DateTime<Utc>>,
    /// Why it could not be read on.
    pub(super) stopped: Option<String>,
    /// The last segment, when it is not written to its end.
    pub(super) unfinished: Option<String>,
    /// What a server needs to replay it, where that is more than the base backup says.
    pub(super) needs: BTreeMap<String, u32>,
}

/// What is known of a segment, and of all before it.
#[derive(Debug, Clone, Default)]
pub struct Mark {
    latest: Option<DateTime<Utc>>,
    /// Of commits alone.
    earliest: Option<DateTime<Utc>>,
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
        self.record = fact.settles().or(self.record);
        match fact {
            Fact::Commit(commit) => {
                self.commits += 1;
                self.commit = Some((commit.xid, commit.time));
                self.ended = Some(commit.time);
            }
            Fact::Abort(abort) => self.ended = Some(abort.time),
            _ => {}
        }
    }

    /// As [`Self::take`], of a whole segment.
    fn take_all(&mut self, summary: &Summary) {
        self.record = summary.settles.or(self.record);
        if let Some(span) = &summary.commits {
            self.commits += span.number;
            self.commit = Some((span.last.xid, span.last.time));
        }
        self.ended = summary.ends.map(|ends| ends.last).or(self.ended);
    }
}

impl Mark {
    /// Of the segment behind `before`.
    pub fn of(summary: &Summary, before: Option<&Self>) -> Self {
        let mut kept = before.map_or_else(Kept::default, |before| before.kept);
        kept.take_all(summary);
        Self {
            latest: summary.ends.map(|ends| ends.latest),
            earliest: summary.commits.as_ref().map(|span| span.earliest),
            xids: summary.ends.map(|ends| (ends.low, ends.high)),
            names: summary.restore_points > 0,
            kept,
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

/// What was found of a target.
#[derive(Default)]
struct Found {
    kept: Kept,
    /// The record that settles it.
    at: Option<(Past, Lsn)>,
    /// Commits behind it whose own time lies within the target.
    stragglers: u64,
    /// One of them is the very commit that the target names by its time.
    named: Option<u32>,
}

impl Found {
    fn take(&mut self, fact: &Fact, target: &RecoveryTarget, inclusive: bool) {
        let past = judge(fact, target, inclusive);
        if self.at.is_some() {
            if let (RecoveryTarget::Time { time }, Fact::Commit(commit), Past::No) = (target, fact, past) {
                self.stragglers += 1;
                self.named = self.named.or((commit.time == *time).then_some(commit.xid));
            }
            return;
        }
        if !matches!(past, Past::Before) {
            self.kept.take(fact);
        }
        if !matches!(past, Past::No) {
            self.at = Some((past, fact.lsn()));
        }
    }
}

impl Exact {
    /// The last record that settles something: nothing may follow it.
    fn last(&self) -> Lsn {
        self.marks.last().and_then(|mark| mark.kept.record).map_or(self.end, |(lsn, _)| lsn)
    }

    /// The segments that may hold the target's place, and, where that is a time, commits that belong before it.
    fn candidates(&self, target: &RecoveryTarget, inclusive: bool) -> Vec<Range<usize>> {
        let holds = |index: &usize| may_hold(&self.marks[*index], target, inclusive);
        let RecoveryTarget::Time { time } = target else {
            return (0..self.marks.len()).filter(holds).map(|index| index..index + 1).collect();
        };
        let first = (0..self.marks.len()).find(holds);
        let early = |mark: &Mark| mark.earliest.is_some_and(|at| if inclusive { at <= *time } else { at < *time });
        let last = self.marks.iter().rposition(early);
        first.into_iter().map(|first| first..last.map_or(first, |last| last.max(first)) + 1).collect()
    }

    /// What lies behind the end of what could be read cannot be promised.
    fn reaches(&self, system: &str, target: &RecoveryTarget) -> Result<(), Refusal> {
        let system = system.to_owned();
        match (&self.stopped, target) {
            (Some(why), _) => Err(Refusal::Unreadable { system, why: why.clone(), end: self.end, until: self.until }),
            (None, RecoveryTarget::Xid { .. } | RecoveryTarget::RestorePoint { .. }) => {
                Err(Refusal::NotInWal { system, end: self.end, until: self.until })
            }
            // Later commits may have been made, and not archived.
            (None, RecoveryTarget::Time { time }) if self.written.is_none_or(|written| written < *time) => {
                Err(Refusal::NotProven { system, end: self.end, written: self.written })
            }
            // A server archives whole segments. One that a person saved from a dead server looks like one that was damaged.
            (None, RecoveryTarget::Latest) => match &self.unfinished {
                Some(name) => Err(Refusal::Unfinished { system, name: name.clone(), end: self.end, last: self.last() }),
                None => Ok(()),
            },
            _ => Ok(()),
        }
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
        let found = self.find(target, inclusive)?;
        let mut kept = found.kept;
        let place = match found.at {
            Some((Past::RolledBack, _)) => return Err(Refusal::RolledBack { system: system.to_owned() }.into()),
            // Before the next record: a server that stops *with* a record does not tell of that one's time.
            Some((Past::Before, at)) => match kept.record.filter(|(lsn, _)| *lsn >= consistent) {
                Some((_, end)) => (end, false),
                None => (at, false),
            },
            Some((_, at)) if at == self.last() => (at, true),
            // With the record itself, which is the last that is kept.
            Some((_, at)) => (kept.record.map_or(at, |(_, end)| end), false),
            // All of it is kept.
            None => {
                self.reaches(system, target)?;
                kept = self.marks.last().map_or(kept, |mark| mark.kept);
                (self.last(), true)
            }
        };
        if let (Some(xid), true) = (found.named, inclusive) {
            return Err(Refusal::OutOfOrder { system: system.to_owned(), xid }.into());
        }
        let place = match target {
            // Written by a person, to the byte. PostgreSQL would add the next record where none begins there.
            RecoveryTarget::Lsn { lsn } if *lsn < self.last() => (Lsn(lsn.0 + u64::from(inclusive)), false),
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
            counted_to: Some(self.end),
            stragglers: found.stragglers,
            needs: self.needs.clone(),
        })
    }

    /// Whether a record in it settles the target. Blocks its thread.
    pub fn holds(&self, target: &RecoveryTarget, inclusive: bool) -> Result<bool, Failure> {
        Ok(self.find(target, inclusive)?.at.is_some())
    }

    fn find(&self, target: &RecoveryTarget, inclusive: bool) -> Result<Found, Failure> {
        for segments in self.candidates(target, inclusive) {
            let before = segments.start.checked_sub(1).and_then(|index| self.marks.get(index));
            let kept = before.map_or_else(Kept::default, |mark| mark.kept);
            let found = self.look(segments, Found { kept, ..Found::default() }, target, inclusive)?;
            if found.at.is_some() {
                return Ok(found);
            }
        }
        Ok(Found::default())
    }

    /// Reads some segments, and of the next what belongs to their last record.
    fn look(
        &self,
        segments: Range<usize>,
        mut found: Found,
        target: &RecoveryTarget,
        inclusive: bool,
    ) -> Result<Found, Failure> {
        let last = self.listed[segments.end - 1].segment;
        let walk = Walk {
            source: &self.source,
            segments: &self.listed[segments.start..],
            system_identifier: self.system_identifier,
            threads: NonZeroUsize::MIN,
            state: None,
        };
        let is_time = matches!(target, RecoveryTarget::Time { .. });
        let visit = |step: Step<'_>| {
            let Step::Segment { joined, .. } = step else { return ControlFlow::Break(()) };
            for fact in &joined.facts {
                found.take(fact, target, inclusive);
                if found.at.is_some() && !is_time {
                    return ControlFlow::Break(());
                }
            }
            if joined.segment == last { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        walk.run(visit).map_err(|error| Failure::new("the WAL in the archive cannot be read", error))?;
        Ok(found)
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
        (RecoveryTarget::Lsn { lsn }, fact) if past_lsn(fact.lsn(), *lsn) => Past::Before,
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
        (RecoveryTarget::Xid { xid }, Fact::Abort(abort))
            if abort.xid == *xid as u32 || abort.subtransactions.contains(&(*xid as u32)) =>
        {
            Past::RolledBack
        }
        (RecoveryTarget::RestorePoint { name }, Fact::RestorePoint { name: found, .. }) if found == name => {
            Past::Behind
        }
        _ => Past::No,
    }
}
