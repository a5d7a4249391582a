//! What had not reached the archive: work that no recovery point brings back, whichever is chosen.

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};

use crate::event::{Lsn, Measure, SystemWindow, Window};
use crate::system::postgres::SourceEnd;

/// `source` is where the living source's WAL ends; `None` when nobody could be asked. `None` is returned where the window
/// has nothing that the exposure could be measured from.
pub fn exposure(window: &Window, system: &str, source: Option<SourceEnd>) -> Option<Measure> {
    let (seconds, bytes, detail) = match window.systems.iter().find(|found| found.system() == system)? {
        SystemWindow::Postgres { coverage, history, .. } => {
            let newest = coverage.iter().max_by_key(|run| (run.timeline, run.to))?;
            // What lies behind a hole is archived all the same.
            let read = history.as_ref().filter(|history| history.stopped.is_none());
            let archived = Archived { to: newest.to, last: read.map_or(newest.to_time, |history| history.to_time) };
            match source {
                Some(source) => archived.beside(source),
                None => archived.alone(window.incident),
            }
        }
        SystemWindow::Redis { snapshots, aof, .. } => {
            let saved =
                snapshots.iter().map(|snapshot| snapshot.at).chain(aof.iter().map(|range| range.end())).max()?;
            let incident = window.incident?;
            let missing = (incident - saved).max(TimeDelta::zero());
            let detail = match missing.is_zero() {
                true => format!("what is saved goes up to {}, past the incident", stamp(saved)),
                false => format!("what is saved ends at {}, before the incident", stamp(saved)),
            };
            (Some(missing), None, detail)
        }
        SystemWindow::Managed { source, latest, .. } => match (latest, window.incident) {
            (Some(latest), Some(incident)) => {
                let missing = (incident - *latest).max(TimeDelta::zero());
                (Some(missing), None, format!("{source} reports that it can be restored up to {}", stamp(*latest)))
            }
            _ => (None, None, format!("up to when {source} can be restored is not reported")),
        },
    };
    Some(Measure::ArchiveExposure {
        system: system.to_owned(),
        seconds: seconds.map(|span| span.as_seconds_f64()),
        bytes,
        detail,
    })
}

/// The end of the archive.
struct Archived {
    to: Lsn,
    /// The last commit in it, or else when its last segment came.
    last: Option<DateTime<Utc>>,
}

type Found = (Option<TimeDelta>, Option<u64>, String);

impl Archived {
    fn beside(&self, source: SourceEnd) -> Found {
        let bytes = source.lsn.0.saturating_sub(self.to.0);
        let span = match (bytes, source.last_commit, self.last) {
            (0, _, _) => Some(TimeDelta::zero()),
            (_, Some(written), Some(archived)) => Some((written - archived).max(TimeDelta::zero())),
            _ => None,
        };
        (span, Some(bytes), format!("the archive ends at {}, the source's WAL at {}", self.to, source.lsn))
    }

    /// Up to the incident only: what came after it nobody can say.
    fn alone(&self, incident: Option<DateTime<Utc>>) -> Found {
        let unknown = "the source does not answer: what it acknowledged after that is unknown";
        let (Some(last), Some(incident)) = (self.last, incident) else {
            return (None, None, format!("the archive ends at {}; {unknown}", self.to));
        };
        let missing = (incident - last).max(TimeDelta::zero());
        let side = if missing.is_zero() { "not before the incident" } else { "before the incident" };
        (Some(missing), None, format!("the archive ends at {}, {side}; {unknown}", stamp(last)))
    }
}

fn stamp(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Millis, true)
}
