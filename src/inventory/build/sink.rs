//! `[notify.NAME]`: no secret is written out, nothing leaves the machine in the clear unless the file says so.

use std::path::PathBuf;
use std::time::Duration;

use super::{Builder, holds_password};
use crate::document::{Place, Text};
use crate::inventory::raw::Reference;
use crate::inventory::raw::sink::{self as raw, Kind};
use crate::inventory::sink::{EmailSink, HttpSink, NotifySink, Severity, SinkKind, SmtpTls};
use crate::inventory::{SecretRef, is_loopback};
use crate::secret::Secret;

const AGAIN: Duration = Duration::from_secs(4 * 3600);
const PATIENCE: Duration = Duration::from_secs(30);
const PAGERDUTY: &str = "https://events.pagerduty.com";

impl Builder<'_> {
    pub(super) fn sink(&mut self, name: String, raw: raw::Sink, place: Place<'_>) -> NotifySink {
        let common = raw.common;
        let kind = match raw.kind {
            Kind::Slack { url, ca } => SinkKind::Slack(HttpSink {
                url: self.hidden(url, "url", place),
                authorization: None,
                ca: self.ca(ca, place),
            }),
            Kind::Webhook { url, authorization, ca } => {
                if let Reference::Plain(url) = &url {
                    self.web_address(url.expose(), place.key("url"));
                }
                SinkKind::Webhook(HttpSink {
                    url: self.key(url, place.key("url")),
                    authorization: authorization.map(|word| self.hidden(word, "authorization", place)),
                    ca: self.ca(ca, place),
                })
            }
            Kind::Pagerduty { routing_key, url, ca } => {
                let url = url.map_or_else(|| PAGERDUTY.to_owned(), |Text(url)| url);
                self.web_address(&url, place.key("url"));
                SinkKind::Pagerduty(HttpSink {
                    url: SecretRef::Plain(Secret::new(url.trim_end_matches('/'))),
                    authorization: Some(self.hidden(routing_key, "routing_key", place)),
                    ca: self.ca(ca, place),
                })
            }
            Kind::Email { host, port, tls, ca, from, to, user, password } => {
                for (address, place) in
                    std::iter::once((&from.0, place.key("from"))).chain(to.iter().map(|to| (&to.0, place.key("to"))))
                {
                    if !address.is_empty() && address.parse::<lettre::message::Mailbox>().is_err() {
                        self.problems
                            .error(Some(place.span()), format!("`{address}` is not an e-mail address"))
                            .hint("write name@example.com, or Name <name@example.com>");
                    }
                }
                let tls = match tls {
                    None | Some(raw::SmtpTls::Starttls) => SmtpTls::Starttls,
                    Some(raw::SmtpTls::Implicit) => SmtpTls::Implicit,
                    Some(raw::SmtpTls::Plaintext) => SmtpTls::Plaintext,
                };
                if tls == SmtpTls::Plaintext && password.is_some() && !is_loopback(&host.0) {
                    self.problems
                        .error(Some(place.key("tls").span()), "the password would be sent in the clear")
                        .hint("use tls = \"starttls\" or \"implicit\", or a relay on this machine");
                }
                SinkKind::Email(EmailSink {
                    host: host.0,
                    port: port.unwrap_or(if tls == SmtpTls::Implicit { 465 } else { 587 }),
                    tls,
                    ca: self.ca(ca, place),
                    from: from.0,
                    to: to.into_iter().map(|Text(to)| to).collect(),
                    login: self.login(user, password, place),
                })
            }
            Kind::Command { argv } => SinkKind::Command(self.argv(argv)),
        };
        NotifySink {
            name,
            at_least: common.at_least.map_or(Severity::Info, Into::into),
            again_after: common.again_after.map_or(AGAIN, |lasting| lasting.0),
            patience: common.patience.map_or(PATIENCE, |lasting| lasting.0),
            runbook_url: common.runbook_url.map(|Text(url)| url),
            kind,
        }
    }

    fn ca(&mut self, ca: Option<Text>, place: Place<'_>) -> Option<PathBuf> {
        ca.map(|Text(path)| self.path(&path, place.key("ca")))
    }

    fn login(
        &mut self,
        user: Option<Reference>,
        password: Option<Reference>,
        place: Place<'_>,
    ) -> Option<(SecretRef, SecretRef)> {
        match (user, password) {
            (Some(user), Some(password)) => {
                Some((self.key(user, place.key("user")), self.hidden(password, "password", place)))
            }
            (None, None) => None,
            _ => {
                self.problems
                    .error(Some(place.either(&["user", "password"]).key_span()), "half a login opens nothing")
                    .hint("`user` and `password` belong together");
                None
            }
        }
    }

    /// A reference that may not be the secret itself.
    fn hidden(&mut self, raw: Reference, name: &str, place: Place<'_>) -> SecretRef {
        if matches!(&raw, Reference::Plain(secret) if !secret.expose().is_empty()) {
            self.problems
                .error(Some(place.key(name).span()), format!("this is the {name} itself, and files are copied and committed"))
                .hint(format!("put it elsewhere and say where: {name} = {{ env = \"NAME\" }}, {{ file = \"path\" }} or {{ command = [\"program\"] }}; then have a new one made"));
        }
        self.key(raw, place.key(name))
    }

    fn web_address(&mut self, url: &str, place: Place<'_>) {
        if url.is_empty() {
            return;
        }
        if holds_password(url) {
            self.problems
                .error(Some(place.span()), "this URL holds a password, and files are copied and committed")
                .hint("put the URL elsewhere and say where: url = { env = \"NAME\" } or { file = \"path\" }");
            return;
        }
        let plain = url.strip_prefix("http://").map(|rest| rest.split(['/', '?', '#']).next().unwrap_or(rest));
        match plain.map(|authority| authority.rsplit_once(':').map_or(authority, |(host, _)| host)) {
            Some(host) if is_loopback(host) => {}
            Some(_) => {
                self.problems
                    .error(Some(place.span()), format!("`{url}` would send the alerts in the clear"))
                    .hint("write https://; http:// goes no further than this machine");
            }
            None if url.starts_with("https://") => {}
            None => {
                self.problems
                    .error(Some(place.span()), format!("`{url}` is not a web address"))
                    .hint("it begins with https://");
            }
        }
    }
}
