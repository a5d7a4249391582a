use std::time::Duration;

use futures::future::BoxFuture;

use crate::event::{Failure, Outcome, causes};
use crate::mutant;

use super::{Action, Context, confirm::cancelled};

/// How long a request may take when the step sets no limit.
const PATIENCE: Duration = Duration::from_secs(30);
/// Bytes of a body that are read.
const LARGEST: usize = 1 << 20;

/// `smoke.http`: a request answers as it should.
///
/// Facts: `status`, `body` (at most 1 MiB), and a JSON object's fields as `json.<field>`.
pub struct SmokeHttp {
    pub method: String,
    pub url: String,
    pub body: Option<String>,
    /// The expected status.
    pub status: u16,
}

impl Action for SmokeHttp {
    fn run(&self, context: Context) -> BoxFuture<'_, Outcome> {
        Box::pin(async move {
            tokio::select! {
                outcome = self.request(&context) => outcome.unwrap_or_else(Outcome::failed),
                () = context.cancel.cancelled() => cancelled(),
            }
        })
    }
}

impl SmokeHttp {
    async fn request(&self, context: &Context) -> Result<Outcome, Failure> {
        let url = context.expand_strictly(&self.url)?;
        let name = format!("{} {url}", self.method);
        let wrong = |why: String| {
            Failure::new(format!("{name} did not answer as expected"), why)
                .now("Look at the application's log. It may still hold connections to the old systems.")
        };
        let method: reqwest::Method = self.method.parse().map_err(|error| wrong(format!("{error}")))?;
        let parsed: reqwest::Url = url.parse().map_err(|error| wrong(format!("{error}")))?;
        if let (Some(host), Some(port)) = (parsed.host_str(), parsed.port_or_known_default()) {
            context.refuse_source(&format!("{host}:{port}")).await?;
        }
        let client = reqwest::Client::builder()
            .timeout(PATIENCE)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .danger_accept_invalid_certs(mutant::removes("17b"))
            .build()
            .map_err(|error| wrong(causes(&error)))?;
        let mut request = client.request(method, parsed);
        if let Some(body) = &self.body {
            let body = context.expand_strictly(body)?;
            request = request.header(reqwest::header::CONTENT_TYPE, "application/json").body(body);
        }
        let began = context.clock.now().boot;
        let mut response = request.send().await.map_err(|error| wrong(causes(&error)))?;
        let status = response.status().as_u16();
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| wrong(causes(&error)))? {
            body.extend_from_slice(&chunk[..chunk.len().min(LARGEST - body.len())]);
            if body.len() == LARGEST {
                break;
            }
        }
        let took = context.clock.now().boot.saturating_sub(began).as_secs_f64() * 1e3;
        let text = String::from_utf8_lossy(&body).into_owned();
        context.sink.say(format!("{name} → {status} in {took:.0} ms: {text}")).await;
        let detail = format!("status {status} in {took:.0} ms");
        let mut outcome = match status == self.status {
            true => Outcome::passed(format!("{name} answered {status} in {took:.0} ms")),
            false => Outcome::failed(wrong(format!("status {status} instead of {}: {text}", self.status))),
        };
        outcome = outcome.check(format!("http {name}"), status == self.status, detail).fact("status", status);
        if let Ok(serde_json::Value::Object(fields)) = serde_json::from_str(&text) {
            for (field, value) in fields {
                outcome = outcome.fact(&format!("json.{field}"), value);
            }
        }
        Ok(outcome.fact("body", text))
    }
}
