use std::fmt;

use serde::{Deserialize, Serialize};

use super::send::redacted;
use crate::digest::Digest;
use crate::event::Failure;
use crate::inventory::{NotifySink, Severity};
use crate::secret::Redactor;

/// PagerDuty takes no longer key.
const LONGEST_KEY: usize = 255;

/// Something that people have to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alert {
    /// Of the condition, as in the rules for Prometheus: `LifeboatBackupTooOld`.
    pub name: String,
    pub service: String,
    /// `production`, `staging` …; empty for what concerns all of them.
    pub environment: String,
    /// The system or the runbook.
    pub subject: String,
    pub severity: Severity,
    /// What is wrong, why, and what to do now.
    pub failure: Failure,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Status {
    Firing,
    Resolved,
    /// Nothing is wrong; somebody wants to see that messages arrive.
    Test,
}

impl Status {
    pub fn word(self) -> &'static str {
        match self {
            Self::Firing => "firing",
            Self::Resolved => "resolved",
            Self::Test => "test",
        }
    }
}

/// An alert on its way to a sink.
#[derive(Debug, Clone)]
pub struct Message {
    pub alert: Alert,
    pub status: Status,
    /// The page that says what to do.
    pub link: Option<String>,
}

impl Alert {
    /// The same for the same condition of the same subject, whatever the words.
    pub fn key(&self) -> String {
        let parts = ["lifeboat", &self.service, &self.environment, &self.name, &self.subject];
        let key = parts.iter().filter(|part| !part.is_empty()).copied().collect::<Vec<_>>().join("/");
        if key.len() <= LONGEST_KEY { key } else { Digest::of(key.as_bytes()).to_string() }
    }

    /// Asks whoever reads it to do nothing.
    pub fn test(service: &str, sink: &NotifySink) -> Self {
        Self {
            name: "LifeboatTest".to_owned(),
            service: service.to_owned(),
            environment: String::new(),
            subject: sink.name.clone(),
            severity: Severity::Info,
            failure: Failure::new(
                "this is a test message",
                format!("somebody ran `lifeboat notify test` to see that [notify.{}] delivers", sink.name),
            )
            .now("Nothing is wrong and nothing is to be done."),
        }
    }
}

impl Message {
    pub fn new(alert: Alert, status: Status, sink: &NotifySink) -> Self {
        let link = sink.runbook_url.as_ref().map(|url| url.replace("{alert}", &alert.name));
        Self { alert, status, link }
    }

    pub(super) fn redacted(mut self, redactor: &Redactor) -> Self {
        self.alert.failure = redacted(self.alert.failure, redactor);
        self
    }

    /// One line: how bad, where, what.
    pub fn title(&self) -> String {
        let alert = &self.alert;
        let word = match self.status {
            Status::Firing => alert.severity.word(),
            other => other.word(),
        };
        let places = [&alert.service, &alert.environment, &alert.subject];
        let place = places.iter().filter(|part| !part.is_empty()).map(|part| part.as_str()).collect::<Vec<_>>();
        format!("[{}] {}: {}", word.to_uppercase(), place.join(" "), one_line(&alert.failure.what))
    }

    /// What follows the title, a line each.
    pub fn lines(&self) -> Vec<(&'static str, String)> {
        let failure = &self.alert.failure;
        let over = self.status == Status::Resolved;
        let mut lines = Vec::new();
        if !failure.why.is_empty() {
            lines.push((if over { "was" } else { "why" }, failure.why.clone()));
        }
        lines.extend(failure.now.clone().filter(|_| !over).map(|now| ("now", now)));
        lines.extend(self.link.clone().map(|link| ("runbook", link)));
        lines.push(("key", self.alert.key()));
        lines
    }
}

/// Plain text, for programs and e-mail.
impl fmt::Display for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.title())?;
        for (name, text) in self.lines() {
            writeln!(f, "{name}: {text}")?;
        }
        Ok(())
    }
}

/// Without what would begin another line, or move a terminal's cursor.
pub(super) fn one_line(text: &str) -> String {
    text.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect()
}
