//! The transactions that may be the damage, and the way to just before one of them.

use chrono::{DateTime, TimeDelta, Utc};

use crate::event::{Lsn, RecoveryTarget, Suspect, SystemWindow, What, Window};

use super::super::session::Preview;
use super::{Picker, WIDEST_AT_FIRST, ZOOMS};

/// A suspect that committed this long before the reported moment may still be the damage: reports and clocks are late.
const LATE: TimeDelta = TimeDelta::seconds(60);

/// Within this time the first suspect after the report is taken, else the nearest on either side.
const SOON: TimeDelta = TimeDelta::minutes(15);

/// A suspect, and whose WAL holds it.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    pub system: String,
    pub suspect: Suspect,
}

impl Found {
    /// Whether something was taken away whole.
    pub fn is_grave(&self) -> bool {
        self.suspect.deeds.iter().any(|deed| matches!(deed.what, What::Drops | What::Truncates))
    }
}

/// All of them, by time.
pub(super) fn of(window: &Window) -> Vec<Found> {
    let mut all = Vec::new();
    for found in &window.systems {
        if let SystemWindow::Postgres { system, history: Some(history), .. } = found {
            let own = history.suspects.iter().cloned();
            all.extend(own.map(|suspect| Found { system: system.clone(), suspect }));
        }
    }
    all.sort_by_key(|found| (found.suspect.at, found.suspect.lsn));
    all
}

/// The first that can be the incident's damage.
pub(super) fn first_after(suspects: &[Found], incident: Option<DateTime<Utc>>) -> Option<usize> {
    let since = incident? - LATE;
    suspects.iter().position(|found| found.suspect.at >= since)
}

/// The one to point at first: by the incident; without one, the newest of the gravest. What came long after the report is no
/// likelier than what came shortly before: "around ten" may be a few minutes off.
pub(super) fn likeliest(suspects: &[Found], incident: Option<DateTime<Utc>>) -> Option<usize> {
    let grave = || suspects.iter().rposition(Found::is_grave);
    let newest = suspects.len().checked_sub(1);
    match incident {
        Some(reported) => {
            let after = first_after(suspects, incident);
            let nearest = || (0..suspects.len()).min_by_key(|&index| (suspects[index].suspect.at - reported).abs());
            after.filter(|&index| suspects[index].suspect.at - reported <= SOON).or_else(nearest)
        }
        None => grave().or(newest),
    }
}

impl Picker {
    /// Whether the target is this suspect's.
    pub fn is_at(&self, index: usize) -> bool {
        self.suspects.get(index).is_some_and(|found| self.target == self.target_of(found))
    }

    /// The suspect that the target names.
    pub fn target_suspect(&self) -> Option<&Found> {
        let RecoveryTarget::Xid { xid } = self.target else { return None };
        self.suspects.iter().find(|found| u64::from(found.suspect.xid) == xid)
    }

    /// Puts the target at a suspect, and the cursor with it.
    pub fn take_suspect(&mut self, index: usize, inclusive: bool, preview: &Preview) {
        let Some(found) = self.suspects.get(index) else { return };
        let before = self.at;
        self.at = found.suspect.at;
        self.target = self.target_of(found);
        self.inclusive = inclusive;
        self.selected = Some(index);
        self.evaluate(preview);
        self.show_apart(before);
    }

    /// The first suspect behind the incident that the target would keep.
    pub fn keeps_damage(&self) -> Option<&Found> {
        self.suspects.get(self.damage?..)?.iter().find(|found| self.keeps(found))
    }

    fn keeps(&self, found: &Found) -> bool {
        let Found { system, suspect } = found;
        let up_to = |lsn: Lsn| suspect.lsn < lsn || (suspect.lsn == lsn && self.inclusive);
        match (&self.target, self.target_suspect()) {
            (RecoveryTarget::Latest, _) => true,
            (RecoveryTarget::Time { time }, _) => suspect.at < *time || (suspect.at == *time && self.inclusive),
            (RecoveryTarget::Xid { .. }, Some(target)) if target.system == *system => up_to(target.suspect.lsn),
            (RecoveryTarget::Lsn { lsn }, _) => up_to(*lsn),
            _ => suspect.at < self.at,
        }
    }

    /// A transaction id means something in one cluster only; over several, the moment of its commit must do.
    fn target_of(&self, found: &Found) -> RecoveryTarget {
        let clusters = self.window.systems.iter().filter(|system| matches!(system, SystemWindow::Postgres { .. }));
        match clusters.count() {
            1 => RecoveryTarget::Xid { xid: u64::from(found.suspect.xid) },
            _ => RecoveryTarget::Time { time: found.suspect.at },
        }
    }

    pub(super) fn point_at_nearest(&mut self) {
        let far = |index: &usize| (self.suspects[*index].suspect.at - self.at).abs();
        let all = 0..self.suspects.len();
        self.selected = all.clone().find(|index| self.is_at(*index)).or_else(|| all.min_by_key(far));
    }

    /// Zooms so that both the cursor and where it was are seen, and so that no other suspect hides in its column.
    fn show_apart(&mut self, before: DateTime<Utc>) {
        let way = self.at - before;
        if self.span() < way.abs() {
            while self.span() < way.abs() * 5 / 4 && ZOOMS[self.zoom] < WIDEST_AT_FIRST {
                self.zoom += 1;
            }
            self.from = before + way / 2 - self.span() / 2;
        }
        let neighbour = self.suspects.iter().map(|found| (found.suspect.at - self.at).abs());
        let nearest = neighbour.filter(|far| *far > TimeDelta::zero()).min();
        let zoom = self.zoom;
        while self.zoom > 0 && nearest.is_some_and(|nearest| nearest < self.cell()) {
            self.zoom -= 1;
        }
        if self.zoom != zoom {
            self.from = self.at - self.span() / 2;
        }
        self.keep_in_view();
    }
}
