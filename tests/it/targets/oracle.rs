//! What stands at a target, by `pg_waldump` and the sessions' own account.

use chrono::{DateTime, Utc};
use lifeboat::event::{Lsn, RecoveryTarget, Resolved, SystemWindow, Window};

use super::workload::{Ledger, State};
use crate::silent::scene::{Ended, Scene, lsn};
use crate::support::Numbers;

pub struct Oracle {
    /// In the order of the WAL.
    pub ended: Vec<Ended>,
    /// Behind the base backup, from here.
    pub first: usize,
    /// Those before and behind which the time runs back.
    pub out_of_order: Vec<Ended>,
    /// Restore points behind the base backup.
    pub names: Vec<(Lsn, String)>,
    ledger: Ledger,
    stopped: DateTime<Utc>,
}

pub enum Expected {
    /// The first so many of all that ended.
    Kept(usize),
    Refusal(&'static str),
}

impl Oracle {
    pub async fn new(scene: &Scene, window: &Window, ledger: Ledger) -> Self {
        let Some(SystemWindow::Postgres { backups, .. }) = window.systems.first() else { panic!("{window:?}") };
        let (stop, stopped) = (backups[0].stop_lsn, backups[0].stopped);
        let ended = scene.ended().await;
        let first = ended.iter().position(|ended| ended.lsn > stop).expect("transactions behind the backup");
        let text = scene.dump("XLOG").await;
        let name = |line: &str| Some((lsn(line)?, line.split_once("desc: RESTORE_POINT ")?.1.trim().to_owned()));
        let names = text.lines().filter_map(name).filter(|(lsn, _)| *lsn > stop).collect();
        let back = ended[first..].windows(2).filter(|two| two[1].time < two[0].time);
        let out_of_order = back.flat_map(<[Ended]>::to_vec).collect();
        Self { ended, first, out_of_order, names, ledger, stopped }
    }

    /// How PostgreSQL's documentation defines each target, over the order of the WAL.
    /// When the last transaction ended.
    pub fn last(&self) -> DateTime<Utc> {
        self.ended.iter().map(|ended| ended.time).max().expect("some have ended")
    }

    pub fn expect(&self, target: &RecoveryTarget, inclusive: bool) -> Expected {
        match target {
            RecoveryTarget::Latest => Expected::Kept(self.ended.len()),
            RecoveryTarget::Time { time } if *time <= self.stopped => {
                Expected::Refusal("it is before the backup's end")
            }
            RecoveryTarget::Time { time } => {
                let past = |ended: &Ended| if inclusive { ended.time > *time } else { ended.time >= *time };
                let kept = self.ended.iter().position(past).unwrap_or(self.ended.len());
                let named = |ended: &Ended| ended.committed && ended.time == *time;
                match inclusive && self.ended[kept..].iter().any(named) {
                    true => Expected::Refusal("the commit of that time stands behind a later one"),
                    false => Expected::Kept(kept),
                }
            }
            RecoveryTarget::Lsn { lsn } => self.before(if inclusive { Lsn(lsn.0 + 1) } else { *lsn }),
            RecoveryTarget::Xid { xid } => {
                let xid = u32::try_from(*xid).expect("a young cluster");
                if self.ledger.undone.contains(&xid) {
                    return Expected::Refusal("it was rolled back");
                }
                let whole = self.ledger.kept.iter().find(|(part, _)| *part == xid).map_or(xid, |(_, whole)| *whole);
                let at = self.ended.iter().position(|ended| ended.committed && ended.xid == whole);
                match at {
                    None => Expected::Refusal("there is no such transaction"),
                    Some(at) if at < self.first => Expected::Refusal("it is before the backup's end"),
                    Some(at) => Expected::Kept(at + usize::from(inclusive)),
                }
            }
            RecoveryTarget::RestorePoint { name } => {
                let found = self.names.iter().find(|(_, found)| found == name);
                found.map_or(Expected::Refusal("there is no such name"), |(lsn, _)| self.before(*lsn))
            }
        }
    }

    fn before(&self, lsn: Lsn) -> Expected {
        Expected::Kept(self.ended.iter().filter(|ended| ended.lsn < lsn).count())
    }

    pub fn state(&self, kept: usize) -> String {
        let mut state = State::default();
        for ended in self.ended[..kept].iter().filter(|ended| ended.committed) {
            if let Some(effects) = self.ledger.effects.get(&ended.xid) {
                state.apply(effects);
            }
        }
        state.text()
    }

    /// What the operator is told of the point.
    pub fn assert_counts(&self, kept: usize, exact: &Resolved, said: &str) {
        let (before, behind) = self.ended.split_at(kept);
        let last = before[self.first..].iter().rfind(|ended| ended.committed);
        let lost = behind.iter().filter(|ended| ended.committed).count() as u64;
        assert_eq!(exact.commits_lost, lost, "{said}: {exact:?}");
        if let Some(last) = last {
            assert_eq!((exact.last_xid, exact.last_commit), (Some(last.xid), Some(last.time)), "{said}");
        }
        if let Some(last) = before[self.first..].last() {
            assert_eq!(exact.last_ended, Some(last.time), "{said}");
        }
    }

    /// One that ended as `xid`, or a part of one, or one that did not.
    pub fn some_xid(&self, numbers: &mut Numbers, xid: u32) -> u32 {
        match numbers.below(6) {
            0 => self.ledger.kept[numbers.below(self.ledger.kept.len())].0,
            1 => self.ledger.undone[numbers.below(self.ledger.undone.len())],
            _ => xid,
        }
    }

    pub fn in_one_millisecond(&self) -> usize {
        let millisecond = |ended: &Ended| ended.time.timestamp_millis();
        self.ended.windows(2).filter(|two| millisecond(&two[0]) == millisecond(&two[1])).count()
    }
}
