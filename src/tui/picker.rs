//! The recovery point's cursor on its time line.

mod commits;
mod suspects;

use chrono::{DateTime, FixedOffset, SecondsFormat, TimeDelta, Utc};

use crate::drill::Elapsed;
use crate::event::{Failure, RecoveryPoint, RecoveryTarget, SystemWindow, Window};

use super::keymap::Stride;
use super::session::{PointPreview, Preview};

pub use suspects::Found;

/// Lengths of the time line, in seconds: a second to a month.
const ZOOMS: [i64; 12] = [1, 5, 15, 60, 300, 900, 3_600, 21_600, 86_400, 259_200, 604_800, 2_678_400];

/// The time line begins no closer than this, and no wider.
const CLOSEST_AT_FIRST: i64 = 60;
const WIDEST_AT_FIRST: i64 = 3_600;

/// One press of an arrow moves by this part of the time line.
const COLUMNS: i64 = 60;

#[derive(Debug)]
pub struct Picker {
    /// The step that asks, and since when.
    pub step: usize,
    pub since: Elapsed,
    pub window: Window,
    pub target: RecoveryTarget,
    /// Keep the target's own commit, or stop just before it.
    pub inclusive: bool,
    /// By time, over all systems.
    pub suspects: Vec<Found>,
    /// The suspect that is pointed at: one key leads to just before it.
    pub selected: Option<usize>,
    /// The first suspect that can be the incident's damage.
    damage: Option<usize>,
    /// Where the cursor stands; a target without a known time leaves it where it was.
    pub at: DateTime<Utc>,
    /// The left end of the time line.
    pub from: DateTime<Utc>,
    pub preview: Result<PointPreview, Failure>,
    zoom: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Jump {
    Earlier(Stride),
    Later(Stride),
    PreviousMark,
    NextMark,
    Incident,
    Zoom {
        closer: bool,
    },
    PreviousSuspect,
    NextSuspect,
    /// Just before the suspect that is pointed at; without one, just before the target.
    Before,
    /// Just after the target, or just before it again.
    After,
}

impl Picker {
    pub fn new(
        step: usize,
        since: Elapsed,
        window: Window,
        suggested: Option<RecoveryPoint>,
        preview: &Preview,
    ) -> Self {
        let (target, inclusive) = match suggested {
            Some(point) => (point.target, point.inclusive),
            None => match window.incident {
                Some(time) => (RecoveryTarget::Time { time }, false),
                None => (RecoveryTarget::Latest, true),
            },
        };
        let at = match &target {
            RecoveryTarget::Time { time } => *time,
            _ => window.incident.or_else(|| end(&window)).unwrap_or(window.looked),
        };
        let preview_now = preview(&window, &target, inclusive);
        let suspects = suspects::of(&window);
        let mut picker = Self {
            step,
            since,
            target,
            inclusive,
            selected: suspects::likeliest(&suspects, window.incident),
            damage: suspects::first_after(&suspects, window.incident),
            suspects,
            window,
            at,
            from: at,
            preview: preview_now,
            zoom: 0,
        };
        picker.follow_preview();
        let marks = picker.marks();
        let first = marks.iter().rev().find(|mark| **mark < picker.at).copied().unwrap_or(picker.at);
        let last = marks.last().copied().unwrap_or(picker.at).max(picker.at);
        let wanted = ((last - first).num_seconds() * 5 / 4).clamp(CLOSEST_AT_FIRST, WIDEST_AT_FIRST);
        picker.zoom = ZOOMS.iter().position(|zoom| *zoom >= wanted).unwrap_or(0);
        let middle = first + (last - first) / 2;
        picker.from = middle - picker.span() / 2;
        picker.keep_in_view();
        picker
    }

    /// The length of the time line.
    pub fn span(&self) -> TimeDelta {
        TimeDelta::seconds(ZOOMS[self.zoom])
    }

    /// Moves the cursor or the view; the error says why it cannot.
    pub fn jump(&mut self, jump: Jump, preview: &Preview) -> Result<(), String> {
        let cell = self.cell();
        let stride = |stride| match stride {
            Stride::Cell => cell,
            Stride::Big => cell * 10,
            Stride::Second => TimeDelta::seconds(1),
        };
        match jump {
            Jump::Earlier(by) => self.move_to(self.at - stride(by), preview),
            Jump::Later(by) => self.move_to(self.at + stride(by), preview),
            Jump::PreviousMark => match self.marks().into_iter().rev().find(|mark| *mark < self.at) {
                Some(mark) => self.move_to(mark, preview),
                None => return Err("there is nothing earlier".to_owned()),
            },
            Jump::NextMark => match self.marks().into_iter().find(|mark| *mark > self.at) {
                Some(mark) => self.move_to(mark, preview),
                None => return Err("there is nothing later".to_owned()),
            },
            Jump::Incident => match self.window.incident {
                Some(incident) => self.move_to(incident, preview),
                None => return Err("no moment of the incident was given".to_owned()),
            },
            Jump::Zoom { closer } => {
                self.zoom = match closer {
                    true => self.zoom.saturating_sub(1),
                    false => (self.zoom + 1).min(ZOOMS.len() - 1),
                };
                self.from = self.at - self.span() / 2;
            }
            Jump::PreviousSuspect => match self.selected.map_or(self.suspects.len(), |at| at).checked_sub(1) {
                Some(at) => self.take_suspect(at, false, preview),
                None => return Err("no suspect is earlier".to_owned()),
            },
            Jump::NextSuspect => match self.selected.map_or(0, |at| at + 1) {
                at if at < self.suspects.len() => self.take_suspect(at, false, preview),
                _ => return Err("no suspect is later".to_owned()),
            },
            Jump::Before => match self.selected {
                Some(at) => self.take_suspect(at, false, preview),
                None => self.side(false, preview),
            },
            Jump::After => self.side(!self.inclusive, preview),
        }
        Ok(())
    }

    /// Takes a target that was typed.
    pub fn set(&mut self, target: RecoveryTarget, preview: &Preview) {
        match target {
            RecoveryTarget::Time { time } => self.at = time,
            RecoveryTarget::Xid { xid } => {
                if let Some(found) = self.suspects.iter().find(|found| u64::from(found.suspect.xid) == xid) {
                    self.at = found.suspect.at;
                }
            }
            _ => {}
        }
        self.target = target;
        self.evaluate(preview);
        self.point_at_nearest();
        self.keep_in_view();
    }

    /// The target as it can be typed, a time in the operator's zone.
    pub fn target_text(&self, zone: FixedOffset) -> String {
        match &self.target {
            RecoveryTarget::Time { time } => time.with_timezone(&zone).to_rfc3339_opts(SecondsFormat::AutoSi, false),
            other => other.to_string(),
        }
    }

    fn move_to(&mut self, at: DateTime<Utc>, preview: &Preview) {
        self.at = at;
        self.target = RecoveryTarget::Time { time: at };
        self.evaluate(preview);
        self.point_at_nearest();
        self.keep_in_view();
    }

    fn side(&mut self, inclusive: bool, preview: &Preview) {
        self.inclusive = inclusive;
        self.evaluate(preview);
    }

    /// How far one press of an arrow goes.
    fn cell(&self) -> TimeDelta {
        TimeDelta::milliseconds((ZOOMS[self.zoom] * 1000 / COLUMNS).max(1))
    }

    fn evaluate(&mut self, preview: &Preview) {
        self.preview = preview(&self.window, &self.target, self.inclusive);
        self.follow_preview();
    }

    fn follow_preview(&mut self) {
        if matches!(self.target, RecoveryTarget::Time { .. }) {
            return;
        }
        if let Some(at) = self.preview.as_ref().ok().and_then(|preview| preview.cost.at) {
            self.at = at;
        }
    }

    fn keep_in_view(&mut self) {
        let margin = self.span() / 20;
        if self.at < self.from + margin || self.at > self.from + self.span() - margin {
            self.from = self.at - self.span() / 2;
        }
    }

    /// The moments that `[` and `]` go to, in order.
    fn marks(&self) -> Vec<DateTime<Utc>> {
        let mut marks: Vec<DateTime<Utc>> = self.window.incident.into_iter().collect();
        for system in &self.window.systems {
            match system {
                SystemWindow::Postgres { backups, coverage, restore_points, .. } => {
                    marks.extend(backups.iter().map(|backup| backup.stopped));
                    marks.extend(coverage.iter().flat_map(|run| [run.from_time, run.to_time]).flatten());
                    marks.extend(restore_points.iter().map(|point| point.at));
                }
                SystemWindow::Redis { snapshots, aof, .. } => {
                    marks.extend(snapshots.iter().map(|snapshot| snapshot.at));
                    marks.extend(aof.iter().flat_map(|range| [range.from, range.end()]));
                }
                SystemWindow::Managed { earliest, latest, .. } => {
                    marks.extend([earliest, latest].into_iter().flatten())
                }
            }
        }
        marks.sort();
        marks.dedup();
        marks
    }
}

/// The newest moment that any WAL reaches.
fn end(window: &Window) -> Option<DateTime<Utc>> {
    let ends = window.systems.iter().filter_map(|system| match system {
        SystemWindow::Postgres { coverage, .. } => coverage.iter().filter_map(|run| run.to_time).max(),
        SystemWindow::Redis { snapshots, aof, .. } => {
            let ends = aof.iter().map(crate::event::AofRange::end);
            snapshots.iter().map(|snapshot| snapshot.at).chain(ends).max()
        }
        // One that reports no end has its backups up to now.
        SystemWindow::Managed { latest, .. } => latest.or(Some(window.looked)),
    });
    ends.max()
}
