//! `[notify.NAME]` as written.

use schemars::JsonSchema;
use serde::Deserialize;

use super::Reference;
use crate::document::schema::Tagged;
use crate::document::{Argv, Lasting, Text};
use crate::inventory::sink;

pub type Sink = Tagged<Common, Kind>;

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("x-noun" = "this sink"))]
pub struct Common {
    /// What is less severe does not come here; everything does when absent.
    pub at_least: Option<Severity>,
    /// While an alert lasts it is sent again after so long; 4h when absent.
    pub again_after: Option<Lasting>,
    /// How long a message that cannot be delivered is tried again; 30s when absent.
    pub patience: Option<Lasting>,
    /// The page that says what to do; `{alert}` in it becomes the alert's name.
    pub runbook_url: Option<Text>,
}

#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    Info,
    Warning,
    Error,
    Critical,
}

impl From<Severity> for sink::Severity {
    fn from(raw: Severity) -> Self {
        match raw {
            Severity::Info => Self::Info,
            Severity::Warning => Self::Warning,
            Severity::Error => Self::Error,
            Severity::Critical => Self::Critical,
        }
    }
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(tag = "kind", deny_unknown_fields)]
#[schemars(rename = "Sink")]
pub enum Kind {
    /// A channel of Slack, by an incoming webhook.
    #[serde(rename = "slack")]
    Slack {
        /// The webhook's URL, by reference: who knows it may post.
        url: Reference,
        /// A PEM file with the only authorities to trust; the system's when absent.
        ca: Option<Text>,
    },
    /// E-mail by SMTP.
    #[serde(rename = "email")]
    Email {
        host: Text,
        /// 587, or 465 with `tls = "implicit"`, when absent.
        port: Option<u16>,
        /// `starttls` when absent. `plaintext` lets everybody on the way read the alerts.
        tls: Option<SmtpTls>,
        /// A PEM file with the only authorities to trust; the system's when absent.
        ca: Option<Text>,
        /// `Lifeboat <lifeboat@example.com>`
        from: Text,
        #[schemars(length(min = 1), extend("x-hint" = "name at least one address: to = [\"oncall@example.com\"]"))]
        to: Vec<Text>,
        /// Belongs to `password`.
        user: Option<Reference>,
        /// A reference, never the password itself.
        password: Option<Reference>,
    },
    /// PagerDuty, or what speaks its Events API v2.
    #[serde(rename = "pagerduty")]
    Pagerduty {
        /// The integration's key, by reference.
        routing_key: Reference,
        /// `https://events.pagerduty.com` when absent.
        url: Option<Text>,
        /// A PEM file with the only authorities to trust; the system's when absent.
        ca: Option<Text>,
    },
    /// Any program that takes a JSON object by POST.
    #[serde(rename = "webhook")]
    Webhook {
        url: Reference,
        /// The whole `Authorization` header, by reference.
        authorization: Option<Reference>,
        /// A PEM file with the only authorities to trust; the system's when absent.
        ca: Option<Text>,
    },
    /// A program; it gets the message on standard input and `LIFEBOAT_ALERT_…` in its environment.
    #[serde(rename = "command")]
    Command { argv: Argv },
}

#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum SmtpTls {
    Starttls,
    Implicit,
    Plaintext,
}
