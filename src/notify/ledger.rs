//! Who was told what, and when: `alerts.json` in the state directory.

use std::fs::{File, TryLockError};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use chrono::{DateTime, Utc};
use futures::future::join_all;
use serde::{Deserialize, Serialize};

use super::send::{Delivery, deliver};
use super::{Alert, Message, Status};
use crate::clock;
use crate::event::Failure;
use crate::inventory::{Inventory, NotifySink, Severity};
use crate::secret::Redactor;

const FILE: &str = "alerts.json";
/// Another run may be telling people at the moment.
const PATIENCE: Duration = Duration::from_secs(120);

#[derive(Debug, Default, Serialize, Deserialize)]
struct Ledger {
    told: Vec<Told>,
}

/// An alert that a sink took and that is not over.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Told {
    sink: String,
    /// Who looks at it: only the same source can say that it is over.
    source: String,
    at: DateTime<Utc>,
    alert: Kept,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Kept {
    name: String,
    service: String,
    environment: String,
    subject: String,
    severity: Severity,
    what: String,
    why: String,
}

impl From<&Alert> for Kept {
    fn from(alert: &Alert) -> Self {
        Self {
            name: alert.name.clone(),
            service: alert.service.clone(),
            environment: alert.environment.clone(),
            subject: alert.subject.clone(),
            severity: alert.severity,
            what: alert.failure.what.clone(),
            why: alert.failure.why.clone(),
        }
    }
}

impl From<Kept> for Alert {
    fn from(kept: Kept) -> Self {
        Self {
            name: kept.name,
            service: kept.service,
            environment: kept.environment,
            subject: kept.subject,
            severity: kept.severity,
            failure: Failure::new(kept.what, kept.why),
        }
    }
}

/// Tells every sink of the inventory what it does not know yet: `alerts` are all that `source` sees firing now, so what it
/// saw before and is not among them is over. Returns what was sent, and what could not be.
///
/// The error is a state directory that cannot be used; nothing was sent then.
pub async fn tell(
    state: &Path,
    inventory: &Inventory,
    source: &str,
    alerts: &[Alert],
    now: DateTime<Utc>,
    redactor: &Redactor,
) -> Result<Vec<Delivery>, Failure> {
    if inventory.notify.is_empty() {
        return Ok(Vec::new());
    }
    let _lock = lock(state).await?;
    let path = state.join(FILE);
    let ledger = read(&path);
    let hidden = inventory.secret_variables();
    let sinks = inventory.notify.values().map(|sink| {
        let known = ledger.told.iter().filter(|told| told.sink == sink.name).cloned().collect();
        one_sink(sink, known, source, alerts, now, &hidden, redactor)
    });
    let mut deliveries = Vec::new();
    // What a sink was told that the inventory no longer has is forgotten.
    let mut told = Vec::new();
    for (sent, known) in join_all(sinks).await {
        deliveries.extend(sent);
        told.extend(known);
    }
    write(&path, &Ledger { told })?;
    Ok(deliveries)
}

async fn one_sink(
    sink: &NotifySink,
    mut known: Vec<Told>,
    source: &str,
    alerts: &[Alert],
    now: DateTime<Utc>,
    hidden: &[String],
    redactor: &Redactor,
) -> (Vec<Delivery>, Vec<Told>) {
    let mut due: Vec<Message> = Vec::new();
    for alert in alerts.iter().filter(|alert| alert.severity >= sink.at_least) {
        let key = alert.key();
        let before = known.iter().find(|told| Alert::from(told.alert.clone()).key() == key);
        if before.is_none_or(|told| is_due(told, alert.severity, sink.again_after, now)) {
            due.push(Message::new(alert.clone(), Status::Firing, sink));
        }
    }
    let firing: Vec<String> = alerts.iter().map(Alert::key).collect();
    for told in known.iter().filter(|told| told.source == source) {
        let alert = Alert::from(told.alert.clone());
        if !firing.contains(&alert.key()) {
            due.push(Message::new(alert, Status::Resolved, sink));
        }
    }
    let mut deliveries = Vec::new();
    for message in due {
        let delivery = deliver(sink, &message, hidden, redactor).await;
        let taken = delivery.failure.is_none();
        deliveries.push(delivery);
        if !taken {
            // The next messages would wait as long for nothing; the next run tries again.
            break;
        }
        let key = message.alert.key();
        known.retain(|told| Alert::from(told.alert.clone()).key() != key);
        if message.status == Status::Firing {
            let (sink, source) = (sink.name.clone(), source.to_owned());
            known.push(Told { sink, source, at: now, alert: (&message.alert).into() });
        }
    }
    (deliveries, known)
}

/// A clock that went back must not keep an alert silent: a time to come counts as long ago.
fn is_due(told: &Told, severity: Severity, again_after: Duration, now: DateTime<Utc>) -> bool {
    let age = (now - told.at).to_std();
    severity > told.alert.severity || age.is_err() || age.is_ok_and(|age| age >= again_after)
}

async fn lock(state: &Path) -> Result<File, Failure> {
    let path = state.join("alerts.lock");
    let failed = |why: String| {
        Failure::new(format!("nobody can be told: {} cannot be locked", path.display()), why)
            .now("Look who holds it (another `lifeboat check --notify`?) and at the permissions of the directory.")
    };
    std::fs::create_dir_all(state).map_err(|error| failed(error.to_string()))?;
    let file = File::options().create(true).truncate(false).write(true).open(&path);
    let file = file.map_err(|error| failed(error.to_string()))?;
    let deadline = clock::boot_now() + PATIENCE;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) if clock::boot_now() < deadline => {
                clock::sleep(Duration::from_millis(50)).await;
            }
            Err(TryLockError::WouldBlock) => return Err(failed("another run is telling people".to_owned())),
            Err(TryLockError::Error(error)) => return Err(failed(error.to_string())),
        }
    }
}

/// A ledger that cannot be read is begun anew: to be told twice is better than not at all.
fn read(path: &Path) -> Ledger {
    match std::fs::read(path).map_err(|error| (error.kind(), error.to_string())) {
        Ok(bytes) => serde_json::from_slice(&bytes).unwrap_or_else(|error| {
            tracing::warn!(path = %path.display(), %error, "not readable; everybody is told again");
            Ledger::default()
        }),
        Err((std::io::ErrorKind::NotFound, _)) => Ledger::default(),
        Err((_, error)) => {
            tracing::warn!(path = %path.display(), error, "not readable; everybody is told again");
            Ledger::default()
        }
    }
}

/// Whole or not at all, power loss included.
fn write(path: &PathBuf, ledger: &Ledger) -> Result<(), Failure> {
    let failed = |error: std::io::Error| {
        Failure::new(format!("who was told cannot be kept in {}", path.display()), error)
            .now("Free space or correct the permissions; until then the same alerts are sent again.")
    };
    let directory = path.parent().unwrap_or(Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(directory).map_err(failed)?;
    let text = serde_json::to_vec_pretty(ledger).map_err(|error| failed(error.into()))?;
    file.write_all(&text).and_then(|()| file.as_file().sync_all()).map_err(failed)?;
    file.persist(path).map_err(|error| failed(error.error))?;
    File::open(directory).and_then(|directory| directory.sync_all()).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn alert(severity: Severity) -> Alert {
        Alert {
            name: "LifeboatWalGap".into(),
            service: "orders".into(),
            environment: "production".into(),
            subject: "orders-db".into(),
            severity,
            failure: Failure::new("WAL is missing", "2 segments"),
        }
    }

    #[test]
    fn an_alert_is_due_again_after_its_period_or_when_it_got_worse_or_when_the_clock_went_back() {
        let at = "2026-11-21T10:00:00Z".parse().unwrap();
        let told = Told { sink: "s".into(), source: "check".into(), at, alert: (&alert(Severity::Error)).into() };
        let due = |severity, seconds| {
            is_due(&told, severity, Duration::from_secs(3600), at + chrono::TimeDelta::seconds(seconds))
        };
        assert!(!due(Severity::Error, 0) && !due(Severity::Error, 3599) && !due(Severity::Warning, 10));
        assert!(due(Severity::Error, 3600), "its period is over");
        assert!(due(Severity::Critical, 10), "it got worse");
        assert!(due(Severity::Error, -10), "the clock went back");
    }

    #[test]
    fn a_key_does_not_depend_on_the_words_and_fits_pagerduty() {
        let (mut one, mut other) = (alert(Severity::Error), alert(Severity::Critical));
        other.failure = Failure::new("something else", "3 segments");
        assert_eq!(one.key(), other.key());
        assert_eq!(one.key(), "lifeboat/orders/production/LifeboatWalGap/orders-db");
        one.subject = "x".repeat(400);
        other.subject = "x".repeat(401);
        assert!(one.key().len() <= 255 && one.key() != other.key());
    }
}
