//! Where alerts go.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::SecretRef;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    Info,
    Warning,
    Error,
    Critical,
}

impl Severity {
    pub fn word(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Error => "error",
            Self::Critical => "critical",
        }
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// A `[notify.NAME]` of the inventory.
#[derive(Debug, Clone)]
pub struct NotifySink {
    pub name: String,
    /// What is less severe does not go there.
    pub at_least: Severity,
    /// Between two messages about one alert that lasts.
    pub again_after: Duration,
    /// How long a message that cannot be delivered is tried again.
    pub patience: Duration,
    /// May hold `{alert}`.
    pub runbook_url: Option<String>,
    pub kind: SinkKind,
}

#[derive(Debug, Clone)]
pub enum SinkKind {
    Slack(HttpSink),
    Email(EmailSink),
    /// The authorization is the routing key; the URL is that of the service, without `/v2/enqueue`.
    Pagerduty(HttpSink),
    Webhook(HttpSink),
    Command(Vec<String>),
}

impl SinkKind {
    pub fn word(&self) -> &'static str {
        match self {
            Self::Slack(_) => "slack",
            Self::Email(_) => "email",
            Self::Pagerduty(_) => "pagerduty",
            Self::Webhook(_) => "webhook",
            Self::Command(_) => "command",
        }
    }
}

#[derive(Debug, Clone)]
pub struct HttpSink {
    pub url: SecretRef,
    pub authorization: Option<SecretRef>,
    /// The only authorities to trust; the system's when absent.
    pub ca: Option<PathBuf>,
}

#[derive(Debug, Clone)]
pub struct EmailSink {
    pub host: String,
    pub port: u16,
    pub tls: SmtpTls,
    pub ca: Option<PathBuf>,
    /// Addresses that were parsed once, as written.
    pub from: String,
    pub to: Vec<String>,
    /// User and password.
    pub login: Option<(SecretRef, SecretRef)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SmtpTls {
    Starttls,
    Implicit,
    Plaintext,
}

impl NotifySink {
    /// A message stays in people's lists until it is resolved.
    pub fn stays_open(&self) -> bool {
        matches!(self.kind, SinkKind::Pagerduty(_))
    }

    /// Every reference that it holds.
    pub fn secrets(&self) -> Vec<&SecretRef> {
        match &self.kind {
            SinkKind::Slack(http) | SinkKind::Pagerduty(http) | SinkKind::Webhook(http) => {
                std::iter::once(&http.url).chain(&http.authorization).collect()
            }
            SinkKind::Email(email) => email.login.iter().flat_map(|(user, password)| [user, password]).collect(),
            SinkKind::Command(_) => Vec::new(),
        }
    }
}
