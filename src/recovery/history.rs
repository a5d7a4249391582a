//! What the WAL of a window says, added up segment by segment.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use chrono::{DateTime, Utc};

use super::exact::Mark;
use super::rates::Rates;
use super::suspects::{Suspects, suspect};
use super::tables::Tables;
use crate::event::{Basis, History, Lsn, RestorePoint};
use crate::system::postgres::wal::read::{Fact, Listed};
use crate::system::postgres::wal::{BadIndex, Found, Index};

/// Restore points that are told.
const RESTORE_POINTS: usize = 1000;

/// Segments, added up. Memory is bounded but for a few dozen bytes a segment.
pub struct Fold {
    pub history: History,
    pub restore_points: Vec<RestorePoint>,
    /// Where timelines begin, as the WAL says.
    pub switches: Vec<(u32, Lsn)>,
    pub marks: Vec<Mark>,
    /// The latest moment that anything was written.
    pub written: Option<DateTime<Utc>>,
    /// The last segment, when it is not written to its end.
    pub unfinished: Option<String>,
    /// The most that any settings in it ask of a server.
    pub needs: BTreeMap<String, u32>,
    tables: Tables,
    anchor: Option<DateTime<Utc>>,
    rates: Option<Rates>,
    suspects: Suspects,
}

impl Fold {
    /// `anchor` is where a person will look.
    pub fn new(timeline: u32, anchor: Option<DateTime<Utc>>, tables: Tables) -> Self {
        Self {
            history: History {
                timeline,
                from: Lsn(0),
                to: Lsn(0),
                to_time: None,
                commits: 0,
                rates: Vec::new(),
                suspects: Vec::new(),
                stopped: None,
                segments: 0,
                read: 0,
                not_kept: None,
            },
            restore_points: Vec::new(),
            switches: Vec::new(),
            marks: Vec::new(),
            written: None,
            unfinished: None,
            needs: BTreeMap::new(),
            tables,
            anchor,
            rates: None,
            suspects: Suspects::default(),
        }
    }

    /// Takes what comes next; nothing behind damage can be replayed.
    pub fn take(&mut self, found: Found<'_>) -> Result<ControlFlow<()>, BadIndex> {
        match found {
            Found::Segment { listed, index, ends } => {
                self.segment(listed, index)?;
                self.unfinished = ends.then(|| listed.segment.to_string());
                Ok(ControlFlow::Continue(()))
            }
            Found::Damaged(damage) => {
                self.history.stopped = Some(damage.to_string());
                Ok(ControlFlow::Break(()))
            }
        }
    }

    fn segment(&mut self, listed: &Listed, index: &Index) -> Result<(), BadIndex> {
        let summary = &index.summary;
        if self.marks.is_empty() {
            self.history.from = summary.first.unwrap_or(listed.segment.start());
        }
        let commits_before = self.history.commits;
        for found in &summary.suspects {
            self.tables.go_to(found.lsn);
            if let Some(found) = suspect(found, commits_before + found.commits_before, &self.tables) {
                self.suspects.push(found);
            }
        }
        if let Some(span) = &summary.commits {
            self.history.commits += span.number;
            self.history.to_time = Some(span.last.time);
            let rates = self.rates.get_or_insert_with(|| Rates::around(self.anchor, self.history.from));
            rates.segment(span, &index.pace()?, || index.commits())?;
        }
        summary.facts.iter().for_each(|fact| self.fact(fact));
        self.written = self.written.max(summary.written);
        self.history.to = summary.end;
        self.history.segments += 1;
        self.marks.push(Mark::of(summary, self.marks.last()));
        Ok(())
    }

    fn fact(&mut self, fact: &Fact) {
        match fact {
            Fact::RestorePoint { lsn, name, time, .. } if self.restore_points.len() < RESTORE_POINTS => {
                self.restore_points.push(RestorePoint {
                    name: name.clone(),
                    at: *time,
                    lsn: *lsn,
                    basis: Basis::Observed,
                });
            }
            Fact::TimelineSwitch { to, lsn, .. } => self.switches.push((*to, *lsn)),
            Fact::Parameters(parameters) => {
                for (name, value) in parameters.settings() {
                    let most = self.needs.entry(name.to_owned()).or_default();
                    *most = value.max(*most);
                }
            }
            _ => {}
        }
    }

    /// Nothing more comes.
    pub fn finish(mut self) -> Self {
        self.history.rates = self.rates.take().map(Rates::finish).unwrap_or_default();
        self.history.suspects = std::mem::take(&mut self.suspects).finish();
        self
    }
}
