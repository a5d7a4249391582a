//! The settings of an Azure container, as far as its storage account tells them. What only Azure Resource Manager tells is
//! unknown: the keys of a store do not open that.
//! Source: Azure Blob Storage REST API, `Get Container Properties`, `Get Blob Properties`, `Get Blob Service Properties`,
//! `Get Blob Service Stats`.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use http::Method;
use object_store::azure::{AzureAuthorizer, AzureCredential, AzureCredentialProvider};
use object_store::client::{HttpClient, HttpRequest, HttpRequestBody};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::Bucket;
use super::cloud::{self, Answer};
use super::protection::{Elsewhere, Exposure, Kept, Lock, Newest, Protection, ProviderEncryption, Seen};
use crate::inventory::{BucketUrl, StoreUrl};

const MANAGER: &str = "only Azure Resource Manager tells, which the keys of a store do not open";

pub async fn look(bucket: &Bucket, provider: &AzureCredentialProvider, newest: Option<&str>) -> Protection {
    let asker = match Asker::new(bucket, provider).await {
        Ok(asker) => asker,
        Err(why) => return Protection::unknown(why),
    };
    let (container, service, elsewhere) = tokio::join!(asker.container(), asker.service(), asker.elsewhere());
    let blob = match newest {
        Some(key) => asker.blob(key).await.map(|found| Some((key, found))),
        None => Ok(None),
    };
    let seen = blob.as_ref().ok().and_then(Option::as_ref).map(|(_, found)| found);
    Protection {
        encryption: container.as_ref().map_err(Clone::clone).and_then(encryption),
        versions: versions(seen, service),
        lock: lock(&container, seen),
        lifecycle: Err(format!("its lifecycle rules {MANAGER}")),
        public: container.as_ref().map_err(Clone::clone).and_then(public),
        newest: blob.map(|found| found.map(|(key, found)| written(key, &found))),
        elsewhere: elsewhere.ok().flatten(),
    }
}

struct Asker {
    client: HttpClient,
    credential: Arc<AzureCredential>,
    url: BucketUrl,
    account: String,
    /// Of the account's blobs.
    root: String,
}

impl Asker {
    async fn new(bucket: &Bucket, provider: &AzureCredentialProvider) -> Seen<Self> {
        let Ok(StoreUrl::Bucket(url)) = StoreUrl::parse(bucket.url()) else {
            return Err("its URL cannot be read again".to_owned());
        };
        let client = cloud::asker(&url)?;
        let credential = provider.get_credential().await.map_err(|error| error.to_string())?;
        let account = url.account.clone().unwrap_or_default();
        let root = match &url.endpoint {
            Some(endpoint) => endpoint.as_str().to_owned(),
            None => format!("https://{account}.blob.core.windows.net"),
        };
        Ok(Self { client, credential, url, account, root })
    }

    fn signed(&self, method: Method, path: &str) -> Seen<HttpRequest> {
        let uri = format!("{}/{path}", self.root);
        let request = http::Request::builder().method(method).uri(&uri).body(HttpRequestBody::empty());
        let mut request: HttpRequest = request.map_err(|error| format!("{uri}: {error}"))?;
        AzureAuthorizer::new(&self.credential, &self.account)
            .try_authorize(&mut request)
            .map_err(|error| format!("the question cannot be signed: {error}"))?;
        Ok(request)
    }

    /// `right` is the operation's name, as Azure's lists of rights have it.
    async fn ask(&self, request: HttpRequest, right: &str) -> Seen<Answer> {
        let answer = cloud::ask(&self.client, request).await?;
        match (answer.status.as_u16(), answer.header("x-ms-error-code")) {
            (200, _) => Ok(answer),
            (401 | 403, _) => Err(format!("these keys may not ask ({right})")),
            (status, None) => Err(format!("the server says {status}")),
            (_, Some(code)) => Err(format!("the server says {code}")),
        }
    }

    async fn container(&self) -> Seen<Answer> {
        let request = self.signed(Method::GET, &format!("{}?restype=container", self.url.bucket))?;
        self.ask(request, "Get Container Properties").await
    }

    async fn service(&self) -> Seen<Service> {
        let request = self.signed(Method::GET, "?restype=service&comp=properties")?;
        parsed(&self.ask(request, "Get Blob Service Properties").await?)
    }

    async fn blob(&self, key: &str) -> Seen<Answer> {
        let path = [&self.url.bucket, &self.url.prefix, key].into_iter().filter(|part| !part.is_empty());
        let path = path.map(str::to_owned).collect::<Vec<_>>().join("/");
        self.ask(self.signed(Method::HEAD, &path)?, "Get Blob Properties").await
    }

    /// The account's second region, where it may be read (RA-GRS): a server of its own, by whose name nothing is signed.
    async fn elsewhere(&self) -> Seen<Option<Elsewhere>> {
        let mut request = self.signed(Method::GET, "?restype=service&comp=stats")?;
        let (first, second) = (&self.account, format!("{}-secondary", self.account));
        let uri = request.uri().to_string();
        let there = match self.root.ends_with(&format!("/{first}")) {
            true => uri.replacen(&format!("/{first}/"), &format!("/{second}/"), 1),
            false => uri.replacen(&format!("//{first}."), &format!("//{second}."), 1),
        };
        if there == uri {
            return Err("where its second region is cannot be told from its endpoint".to_owned());
        }
        *request.uri_mut() = there.parse().map_err(|error| format!("{error}"))?;
        let stats: Stats = parsed(&self.ask(request, "Get Blob Service Stats").await?)?;
        let until = stats.geo.filter(|geo| geo.status == "live").and_then(|geo| geo.until);
        let until = until.and_then(|at| DateTime::parse_from_rfc2822(&at).ok());
        Ok(until.map(|at| Elsewhere::Until(at.with_timezone(&Utc))))
    }
}

fn parsed<T: DeserializeOwned>(answer: &Answer) -> Seen<T> {
    let text = String::from_utf8_lossy(&answer.body);
    quick_xml::de::from_str(text.trim_start_matches('\u{feff}')).map_err(|error| format!("the answer is odd: {error}"))
}

/// By a scope's key, or by the account's.
fn with(scope: Option<String>) -> ProviderEncryption {
    let key = match scope.filter(|scope| scope != "$account-encryption-key") {
        Some(scope) => Ok(Some(scope)),
        None => Err(format!("the account's key {MANAGER}")),
    };
    ProviderEncryption { algorithm: "AES256".to_owned(), key }
}

/// Azure stores nothing in the clear; the container says by which key.
fn encryption(container: &Answer) -> Seen<Option<ProviderEncryption>> {
    match container.header("x-ms-default-encryption-scope") {
        Some(scope) => Ok(Some(with(Some(scope)))),
        None => Err("the server does not say how it encrypts what is written".to_owned()),
    }
}

fn versions(newest: Option<&Answer>, service: Seen<Service>) -> Seen<Kept> {
    if newest.is_some_and(|found| found.header("x-ms-version-id").is_some()) {
        return Ok(Kept::Versions);
    }
    match (service?.deleted.filter(|policy| policy.enabled).and_then(|policy| policy.days), newest) {
        (Some(days), _) => Ok(Kept::Days(days)),
        (None, Some(_)) => Ok(Kept::Not),
        (None, None) => Err("deleted blobs are gone; whether versions are kept shows once there is a blob".to_owned()),
    }
}

fn lock(container: &Seen<Answer>, newest: Option<&Answer>) -> Seen<Option<Lock>> {
    if let Some((found, until)) = newest.and_then(|found| Some((found, locked_until(found)?))) {
        let mode = found.header("x-ms-immutability-policy-mode");
        let written = found.header("last-modified").and_then(|at| DateTime::parse_from_rfc2822(&at).ok());
        let days = written.and_then(|at| u32::try_from((until - at.with_timezone(&Utc)).num_days()).ok());
        let may_be_lifted = !mode.as_ref().is_some_and(|mode| mode.eq_ignore_ascii_case("locked"));
        return Ok(Some(Lock { mode, may_be_lifted, days }));
    }
    match container.as_ref()?.header("x-ms-has-immutability-policy").as_deref() {
        Some("true") => Err(format!("the container has an immutability policy; its days {MANAGER}")),
        Some("false") => Ok(None),
        _ => Err("the server does not say whether what is written is locked".to_owned()),
    }
}

fn locked_until(blob: &Answer) -> Option<DateTime<Utc>> {
    let until = blob.header("x-ms-immutability-policy-until-date")?;
    DateTime::parse_from_rfc2822(&until).ok().map(|at| at.with_timezone(&Utc))
}

fn public(container: &Answer) -> Seen<Exposure> {
    match container.header("x-ms-blob-public-access") {
        None => Err(format!("the container is closed; whether its account lets it be opened {MANAGER}")),
        Some(what) => {
            let open_to = vec![format!("everybody, by the container's level of public access ({what})")];
            Ok(Exposure { open_to, blocked: false })
        }
    }
}

fn written(key: &str, found: &Answer) -> Newest {
    let is_encrypted = found.header("x-ms-server-encrypted").as_deref() == Some("true");
    Newest {
        key: key.to_owned(),
        encryption: is_encrypted.then(|| with(found.header("x-ms-encryption-scope"))),
        locked_until: locked_until(found),
        class: found.header("x-ms-access-tier").filter(|tier| tier != "Hot"),
    }
}

#[derive(Deserialize)]
struct Service {
    #[serde(rename = "DeleteRetentionPolicy")]
    deleted: Option<DeletePolicy>,
}

#[derive(Deserialize)]
struct DeletePolicy {
    #[serde(rename = "Enabled")]
    enabled: bool,
    #[serde(rename = "Days")]
    days: Option<u32>,
}

#[derive(Deserialize)]
struct Stats {
    #[serde(rename = "GeoReplication")]
    geo: Option<Geo>,
}

#[derive(Deserialize)]
struct Geo {
    #[serde(rename = "Status")]
    status: String,
    #[serde(rename = "LastSyncTime")]
    until: Option<String>,
}

/// What Azurite does not answer, as the reference has it.
#[cfg(test)]
mod tests {
    use super::*;

    fn answer(headers: &[(&'static str, &'static str)]) -> Answer {
        let headers = headers.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
        Answer { status: http::StatusCode::OK, headers: headers.collect(), body: Vec::new() }
    }

    #[test]
    fn a_blob_says_its_version_lock_and_scope() {
        let blob = answer(&[
            ("x-ms-version-id", "2026-05-04T09:00:00.1234567Z"),
            ("x-ms-server-encrypted", "true"),
            ("x-ms-encryption-scope", "backups"),
            ("x-ms-immutability-policy-until-date", "Mon, 08 Jun 2026 09:00:00 GMT"),
            ("x-ms-immutability-policy-mode", "locked"),
            ("last-modified", "Mon, 04 May 2026 09:00:00 GMT"),
            ("x-ms-access-tier", "Cool"),
        ]);
        assert_eq!(versions(Some(&blob), Err("refused".into())), Ok(Kept::Versions));
        let found = lock(&Err("refused".into()), Some(&blob)).unwrap().unwrap();
        assert_eq!(found, Lock { mode: Some("locked".into()), may_be_lifted: false, days: Some(35) });
        let newest = written("wal/1", &blob);
        assert_eq!(newest.encryption.unwrap().key, Ok(Some("backups".into())));
        assert_eq!(newest.locked_until.unwrap().to_rfc3339(), "2026-06-08T09:00:00+00:00");
        assert_eq!(newest.class.as_deref(), Some("Cool"));
    }

    #[test]
    fn what_a_container_leaves_to_the_manager_is_unknown() {
        let container = answer(&[
            ("x-ms-default-encryption-scope", "$account-encryption-key"),
            ("x-ms-has-immutability-policy", "true"),
        ]);
        assert!(encryption(&container).unwrap().unwrap().key.unwrap_err().contains("Azure Resource Manager"));
        assert!(lock(&Ok(container), None).unwrap_err().contains("its days only Azure Resource Manager"));
        let scoped = answer(&[("x-ms-default-encryption-scope", "backups")]);
        assert_eq!(encryption(&scoped).unwrap().unwrap().key, Ok(Some("backups".into())));
    }
}
