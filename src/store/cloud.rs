//! What all buckets behind a network have in common.

use std::path::Path;
use std::time::Duration;

use futures::TryStreamExt as _;
use http::{HeaderMap, StatusCode};
use object_store::client::{HttpClient, HttpConnector as _, HttpRequest, ReqwestConnector};
use object_store::{BackoffConfig, ClientOptions, RetryConfig};

use super::StoreError;
use super::keys::Given;
use super::protection::Seen;
use crate::event::causes;
use crate::inventory::{BucketUrl, Cloud, Endpoint};
use crate::mutant;

const CONNECT: Duration = Duration::from_secs(5);

/// For one request, its data included: at most 16 MiB of them.
const REQUEST: Duration = Duration::from_secs(60);

/// For one request and all that follow it after a failure, when the URL says nothing: a restart of the server is ridden out,
/// and what lasts longer is told.
const PATIENCE: Duration = Duration::from_secs(90);

/// A bucket and where it was found, with what the environment had to say.
pub struct Opened<S> {
    pub store: S,
    /// With what is used of the environment, for programs with another one.
    pub url: BucketUrl,
}

/// All of the environment's options for clients are replaced: it cannot turn the verification of certificates off.
pub fn client(url: &BucketUrl) -> ClientOptions {
    // The commands of PostgreSQL come here without the rest of the program's set-up. A second time is no error.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let plain = url.endpoint.as_ref().is_some_and(Endpoint::is_plain);
    let options = ClientOptions::new().with_connect_timeout(CONNECT).with_timeout(REQUEST).with_allow_http(plain);
    options.with_allow_invalid_certificates(mutant::removes("17b"))
}

pub fn retries(url: &BucketUrl) -> RetryConfig {
    RetryConfig {
        backoff: BackoffConfig { max_backoff: Duration::from_secs(10), ..BackoffConfig::default() },
        max_retries: usize::MAX,
        retry_timeout: url.patience.unwrap_or(PATIENCE),
    }
}

/// For the machine's own role: one without is silent, and soon given up.
pub fn few_retries() -> RetryConfig {
    RetryConfig { max_retries: 2, retry_timeout: Duration::from_secs(5), ..RetryConfig::default() }
}

/// Bytes of an answer about a bucket's settings that are read at most; the longest, a thousand rules, are some hundred kB.
const LONGEST: usize = 4 << 20;

/// An answer about a bucket's settings.
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<String> {
        self.headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned)
    }
}

/// For questions about a bucket's settings, which are asked once: who looks will look again.
pub fn asker(url: &BucketUrl) -> Seen<HttpClient> {
    ReqwestConnector::default().connect(&client(url)).map_err(|error| error.to_string())
}

/// Asks, once.
pub async fn ask(client: &HttpClient, request: HttpRequest) -> Seen<Answer> {
    let response = client.execute(request).await.map_err(|error| causes(&error))?;
    let (parts, body) = response.into_parts();
    let (mut bytes, mut stream) = (Vec::new(), body.bytes_stream());
    while let Some(chunk) = stream.try_next().await.map_err(|error| causes(&error))? {
        bytes.extend_from_slice(&chunk);
        if bytes.len() > LONGEST {
            return Err("the server's answer does not end".to_owned());
        }
    }
    Ok(Answer { status: parts.status, headers: parts.headers, body: bytes })
}

pub fn from_file(cloud: Cloud, bucket: &str, path: &Path) -> Result<Given, StoreError> {
    let failed = |why: String| StoreError::Keys { cloud, bucket: bucket.to_owned(), path: path.to_owned(), why };
    let text = std::fs::read_to_string(path).map_err(|error| failed(error.to_string()))?;
    Given::parse(cloud, &text).ok_or_else(|| failed("it holds none".to_owned()))
}

/// The inventory takes keys by the kind of the store's URL, so that this is the program's own mistake.
pub fn wrong_keys(bucket: &str) -> StoreError {
    StoreError::Url { url: bucket.to_owned(), why: "its keys are those of another cloud".to_owned() }
}
