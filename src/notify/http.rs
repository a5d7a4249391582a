//! Sinks that take JSON by POST: Slack's incoming webhooks, PagerDuty's Events API v2, any webhook.

use std::path::Path;

use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use serde_json::{Value, json};

use super::alert::one_line;
use super::send::{CONNECT, Refused};
use super::{Message, Status};
use crate::event::{Failure, causes};
use crate::inventory::{HttpSink, SecretRef, Severity, SinkKind, is_loopback};
use crate::secret::{Redactor, Secret};

/// Bytes of a refusal that are repeated.
const REPEATED: usize = 300;

/// Bytes of a part of a path that is no mere word.
const TOKEN: usize = 12;

/// A request that can be made again and again.
pub(super) struct Post {
    client: reqwest::Client,
    url: Secret,
    authorization: Option<Secret>,
    body: Value,
}

impl Post {
    /// Blocks while secrets are looked up.
    pub(super) fn prepare(
        kind: &SinkKind,
        sink: &HttpSink,
        message: &Message,
        redactor: &Redactor,
    ) -> Result<Self, Failure> {
        let base = sink.url.resolve()?;
        let authorization = sink.authorization.as_ref().map(|secret| secret.resolve()).transpose()?;
        authorization.iter().for_each(|word| redactor.learn(word.expose()));
        let now = "Correct the sink's `url` in the inventory, or the place that it refers to.";
        // The words of the parser may repeat what it was given.
        let unusable = |why: &str| Failure::new("the sink's URL cannot be used", why).now(now);
        let url = reqwest::Url::parse(base.expose()).map_err(|_| unusable("it is not a web address"))?;
        let host = url.host_str().unwrap_or_default();
        match url.scheme() {
            "https" => {}
            "http" if is_loopback(host) => {}
            "http" => {
                return Err(unusable("http:// would send the alerts in the clear; only https:// leaves this machine"));
            }
            _ => return Err(unusable("it begins neither with https:// nor with http://")),
        }
        let mut client = reqwest::Client::builder()
            .connect_timeout(CONNECT)
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(concat!("lifeboat/", env!("CARGO_PKG_VERSION")));
        if is_loopback(host) {
            client = client.no_proxy();
        }
        if let Some(path) = &sink.ca {
            client = client.tls_certs_only(authorities(path)?);
        }
        // The program has done so at its start; a library's user may not have. A second time is no error.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = client.build().map_err(|error| Failure::new("the request cannot be made", causes(&error)))?;
        if !matches!(sink.url, SecretRef::Plain(_)) {
            redactor.learn(base.expose());
            redactor.learn_url(base.expose());
            // Who knows the path may post, and of a webhook's the last part is the token.
            redactor.learn(url.path());
            url.path().split('/').filter(|part| part.len() >= TOKEN).for_each(|part| redactor.learn(part));
        }
        let (url, authorization, body) = match kind {
            SinkKind::Pagerduty(_) => {
                let key = authorization.unwrap_or_else(|| Secret::new(""));
                (Secret::new(format!("{}/v2/enqueue", base.expose())), None, event(message, &key))
            }
            SinkKind::Slack(_) => (base, authorization, json!({ "text": mrkdwn(message) })),
            _ => (base, authorization, plain(message)),
        };
        Ok(Self { client, url, authorization, body })
    }

    pub(super) async fn attempt(&self) -> Result<(), Refused> {
        let mut request =
            self.client.post(self.url.expose()).header(CONTENT_TYPE, "application/json").body(self.body.to_string());
        if let Some(word) = &self.authorization {
            let mut value = HeaderValue::from_str(word.expose()).map_err(|_| {
                Refused::for_good("the authorization cannot stand in a header: it holds control characters")
            })?;
            value.set_sensitive(true);
            request = request.header(AUTHORIZATION, value);
        }
        let mut answer = request.send().await.map_err(|error| {
            let why = causes(&error.without_url());
            // Another try meets the same certificate.
            if why.contains("certificate") { Refused::for_good(why) } else { Refused::for_now(why) }
        })?;
        let status = answer.status();
        if status.is_success() {
            return Ok(());
        }
        let mut said = Vec::new();
        while let Ok(Some(chunk)) = answer.chunk().await {
            said.extend_from_slice(&chunk[..chunk.len().min(REPEATED - said.len())]);
            if said.len() == REPEATED {
                break;
            }
        }
        let why = format!("it answered {status}: {}", one_line(String::from_utf8_lossy(&said).trim()));
        Err(match status.is_server_error() || status.as_u16() == 429 {
            true => Refused::for_now(why),
            false => Refused::for_good(why),
        })
    }
}

/// The certificates of a PEM file.
fn authorities(path: &Path) -> Result<Vec<reqwest::Certificate>, Failure> {
    let unusable = |why: String| {
        Failure::new(format!("the certificates in {} cannot be used", path.display()), why)
            .now("Correct `ca` in the inventory: a PEM file with the authorities to trust.")
    };
    let pem = std::fs::read(path).map_err(|error| unusable(error.to_string()))?;
    let found = reqwest::Certificate::from_pem_bundle(&pem).map_err(|error| unusable(causes(&error)))?;
    if found.is_empty() { Err(unusable("there is no certificate in it".to_owned())) } else { Ok(found) }
}

/// Slack's own markup; three characters of it have to be escaped.
fn mrkdwn(message: &Message) -> String {
    let escaped = |text: &str| text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    let mut text = format!("*{}*", escaped(&message.title()));
    for (name, line) in message.lines() {
        text.push_str(&format!("\n{name}: {}", escaped(&line)));
    }
    text
}

/// <https://developer.pagerduty.com/docs/events-api-v2/trigger-events/>
fn event(message: &Message, routing_key: &Secret) -> Value {
    let alert = &message.alert;
    let mut event = json!({
        "routing_key": routing_key.expose(),
        "event_action": if message.status == Status::Resolved { "resolve" } else { "trigger" },
        "dedup_key": alert.key(),
    });
    if message.status != Status::Resolved {
        let details: serde_json::Map<String, Value> =
            message.lines().into_iter().map(|(name, line)| (name.to_owned(), line.into())).collect();
        // A summary may hold 1024 characters.
        let summary: String = message.title().chars().take(1024).collect();
        let severity = if message.status == Status::Test { Severity::Info } else { alert.severity };
        event["client"] = "Lifeboat".into();
        event["payload"] = json!({
            "summary": summary,
            "source": format!("{} {}", alert.service, alert.environment).trim_end(),
            "severity": severity.word(),
            "component": alert.subject,
            "group": alert.service,
            "class": alert.name,
            "custom_details": details,
        });
        if let Some(link) = &message.link {
            event["links"] = json!([{ "href": link, "text": "what to do" }]);
        }
    }
    event
}

fn plain(message: &Message) -> Value {
    let alert = &message.alert;
    json!({
        "status": message.status.word(),
        "key": alert.key(),
        "name": alert.name,
        "severity": alert.severity.word(),
        "service": alert.service,
        "environment": alert.environment,
        "subject": alert.subject,
        "title": message.title(),
        "what": alert.failure.what,
        "why": alert.failure.why,
        "now": alert.failure.now,
        "runbook_url": message.link,
    })
}
