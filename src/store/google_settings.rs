//! The settings of a bucket of Google Cloud Storage. Source: Cloud Storage JSON API reference, `Buckets`, `Objects`, `Bucket
//! Access Controls`, and IAM's `Policy`.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use http::Method;
use object_store::client::{HttpClient, HttpRequest, HttpRequestBody};
use object_store::gcp::{GcpCredential, GcpCredentialProvider};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::Bucket;
use super::cloud;
use super::protection::{Elsewhere, Exposure, Kept, Lock, Newest, Protection, ProviderEncryption, Rule, Seen};
use crate::inventory::{BucketUrl, StoreUrl};

const DAY: u64 = 86_400;

pub async fn look(bucket: &Bucket, provider: &GcpCredentialProvider, newest: Option<&str>) -> Protection {
    let asker = match Asker::new(bucket, provider).await {
        Ok(asker) => asker,
        Err(why) => return Protection::unknown(why),
    };
    let found: Seen<Resource> = asker.ask("", "storage.buckets.get").await;
    let newest = match newest {
        Some(key) => asker.newest(key).await.map(Some),
        None => Ok(None),
    };
    let found = match found {
        Ok(found) => found,
        Err(why) => return Protection { newest, ..Protection::unknown(why) },
    };
    Protection {
        encryption: Ok(Some(with(found.encryption.as_ref().and_then(|default| default.key.clone())))),
        versions: Ok(found.kept()),
        lock: Ok(found.retention.as_ref().map(Retention::lock)),
        lifecycle: Ok(found.lifecycle.iter().flat_map(|found| &found.rules).flat_map(RuleOf::rules).collect()),
        public: asker.public(&found).await,
        newest,
        elsewhere: found.elsewhere(),
    }
}

struct Asker {
    client: HttpClient,
    credential: Arc<GcpCredential>,
    url: BucketUrl,
}

impl Asker {
    async fn new(bucket: &Bucket, provider: &GcpCredentialProvider) -> Seen<Self> {
        let Ok(StoreUrl::Bucket(url)) = StoreUrl::parse(bucket.url()) else {
            return Err("its URL cannot be read again".to_owned());
        };
        let client = cloud::asker(&url)?;
        let credential = provider.get_credential().await.map_err(|error| error.to_string())?;
        Ok(Self { client, credential, url })
    }

    /// Asks for what lies at `path` below the bucket; `right` is what the keys need for it.
    async fn ask<T: DeserializeOwned>(&self, path: &str, right: &str) -> Seen<T> {
        let host = self.url.endpoint.as_ref().map_or("https://storage.googleapis.com", |endpoint| endpoint.as_str());
        let uri = format!("{host}/storage/v1/b/{}{path}", self.url.bucket);
        let request = http::Request::builder().method(Method::GET).uri(&uri);
        let request = request.header("authorization", format!("Bearer {}", self.credential.bearer));
        // The token is in no message: of a request that cannot be built only its address is told.
        let request: HttpRequest =
            request.body(HttpRequestBody::empty()).map_err(|_| format!("{uri} cannot be asked"))?;
        let answer = cloud::ask(&self.client, request).await?;
        match answer.status.as_u16() {
            200 => serde_json::from_slice(&answer.body).map_err(|error| format!("the answer is odd: {error}")),
            401 | 403 => Err(format!("these keys may not ask ({right})")),
            status => Err(format!("the server says {status}")),
        }
    }

    async fn newest(&self, key: &str) -> Seen<Newest> {
        let key_there = match self.url.prefix.as_str() {
            "" => key.to_owned(),
            prefix => format!("{prefix}/{key}"),
        };
        let found: Stored = self.ask(&format!("/o/{}", key_there.replace('/', "%2F")), "storage.objects.get").await?;
        Ok(Newest {
            key: key.to_owned(),
            encryption: Some(with(found.key)),
            locked_until: found.locked_until,
            class: found.class.filter(|class| class != "STANDARD"),
        })
    }

    async fn public(&self, found: &Resource) -> Seen<Exposure> {
        let access = found.access.as_ref();
        if access.is_some_and(|access| access.prevention.as_deref() == Some("enforced")) {
            return Ok(Exposure { open_to: Vec::new(), blocked: true });
        }
        let mut open_to = Vec::new();
        let policy: Policy = self.ask("/iam", "storage.buckets.getIamPolicy").await?;
        for binding in policy.bindings {
            let strangers = binding.members.iter().filter_map(|member| stranger(member));
            open_to.extend(strangers.map(|whom| format!("{whom}, by the role {}", binding.role)));
        }
        let is_uniform = access.and_then(|access| access.uniform.as_ref()).is_some_and(|uniform| uniform.enabled);
        for list in ["acl", "defaultObjectAcl"].into_iter().filter(|_| !is_uniform) {
            let grants: Grants = self.ask(&format!("/{list}"), "storage.buckets.getIamPolicy").await?;
            for grant in grants.items {
                let whom = stranger(&grant.entity).map(|whom| format!("{whom}, by a grant of {}", grant.role));
                open_to.extend(whom);
            }
        }
        Ok(Exposure { open_to, blocked: false })
    }
}

/// Google stores nothing in the clear.
fn with(key: Option<String>) -> ProviderEncryption {
    // An object's names the version of the key too.
    let key = key.map(|key| key.split("/cryptoKeyVersions/").next().unwrap_or_default().to_owned());
    ProviderEncryption { algorithm: "AES256".to_owned(), key: Ok(key) }
}

fn stranger(member: &str) -> Option<&'static str> {
    match member {
        "allUsers" => Some("everybody"),
        "allAuthenticatedUsers" => Some("everybody who has an account with the provider"),
        _ => None,
    }
}

/// A bucket, as far as it is of interest. 64-bit numbers are text in this API.
#[derive(Deserialize)]
struct Resource {
    versioning: Option<Switch>,
    #[serde(rename = "softDeletePolicy")]
    soft_delete: Option<SoftDelete>,
    #[serde(rename = "retentionPolicy")]
    retention: Option<Retention>,
    encryption: Option<DefaultKey>,
    lifecycle: Option<Lifecycle>,
    #[serde(rename = "iamConfiguration")]
    access: Option<Access>,
    #[serde(default)]
    location: String,
    #[serde(rename = "locationType", default)]
    location_type: String,
}

impl Resource {
    fn kept(&self) -> Kept {
        let days =
            self.soft_delete.as_ref().and_then(|policy| days(policy.seconds.as_deref()?)).filter(|days| *days > 0);
        match (self.versioning.as_ref().is_some_and(|versioning| versioning.enabled), days) {
            (true, _) => Kept::Versions,
            (false, Some(days)) => Kept::Days(days),
            (false, None) => Kept::Not,
        }
    }

    fn elsewhere(&self) -> Option<Elsewhere> {
        let what = match self.location_type.as_str() {
            "multi-region" => "several regions",
            "dual-region" => "two regions",
            _ => return None,
        };
        Some(Elsewhere::Regions(format!("{what} ({})", self.location)))
    }
}

/// Whole days of so many seconds.
fn days(seconds: &str) -> Option<u32> {
    u32::try_from(seconds.parse::<u64>().ok()? / DAY).ok()
}

#[derive(Deserialize)]
struct Switch {
    #[serde(default)]
    enabled: bool,
}

#[derive(Deserialize)]
struct SoftDelete {
    #[serde(rename = "retentionDurationSeconds")]
    seconds: Option<String>,
}

#[derive(Deserialize)]
struct Retention {
    #[serde(rename = "retentionPeriod")]
    seconds: String,
    #[serde(rename = "isLocked", default)]
    is_locked: bool,
}

impl Retention {
    fn lock(&self) -> Lock {
        let mode = if self.is_locked { "a locked policy" } else { "a policy that is not locked" };
        Lock { mode: Some(mode.to_owned()), may_be_lifted: !self.is_locked, days: days(&self.seconds) }
    }
}

#[derive(Deserialize)]
struct DefaultKey {
    #[serde(rename = "defaultKmsKeyName")]
    key: Option<String>,
}

#[derive(Deserialize)]
struct Lifecycle {
    #[serde(rename = "rule", default)]
    rules: Vec<RuleOf>,
}

#[derive(Deserialize)]
struct RuleOf {
    action: Action,
    #[serde(default)]
    condition: serde_json::Map<String, serde_json::Value>,
}

#[derive(Deserialize)]
struct Action {
    #[serde(rename = "type")]
    kind: String,
    #[serde(rename = "storageClass")]
    class: Option<String>,
}

impl RuleOf {
    /// One for each prefix.
    fn rules(&self) -> Vec<Rule> {
        // Of versions that were replaced already: no backup that is there.
        let of_old = ["numNewerVersions", "daysSinceNoncurrentTime", "noncurrentTimeBefore"];
        let is_of_old = of_old.iter().any(|name| self.condition.contains_key(*name))
            || self.condition.get("isLive").is_some_and(|live| live == false);
        let age = self.condition.get("age").and_then(serde_json::Value::as_u64);
        // Without an age it is for what another condition tells: whenever that is.
        let age = u32::try_from(age.unwrap_or(0)).unwrap_or(u32::MAX);
        let plain = ["age", "matchesPrefix", "isLive"];
        let narrowed = self.condition.keys().any(|name| !plain.contains(&name.as_str()));
        let prefixes = self.condition.get("matchesPrefix").and_then(serde_json::Value::as_array);
        let prefixes = prefixes.map_or(vec![""], |all| all.iter().filter_map(serde_json::Value::as_str).collect());
        let rule = |prefix: &str| Rule {
            name: String::new(),
            prefix: prefix.to_owned(),
            narrowed,
            expires_days: (self.action.kind == "Delete" && !is_of_old).then_some(age),
            moves: match (&self.action.class, is_of_old) {
                (Some(class), false) => vec![(age, class.clone())],
                _ => Vec::new(),
            },
            aborts_uploads: self.action.kind == "AbortIncompleteMultipartUpload",
        };
        prefixes.into_iter().map(rule).collect()
    }
}

#[derive(Deserialize)]
struct Access {
    #[serde(rename = "publicAccessPrevention")]
    prevention: Option<String>,
    #[serde(rename = "uniformBucketLevelAccess")]
    uniform: Option<Switch>,
}

#[derive(Deserialize)]
struct Policy {
    #[serde(default)]
    bindings: Vec<Binding>,
}

#[derive(Deserialize)]
struct Binding {
    role: String,
    #[serde(default)]
    members: Vec<String>,
}

#[derive(Deserialize)]
struct Grants {
    #[serde(default)]
    items: Vec<Grant>,
}

#[derive(Deserialize)]
struct Grant {
    entity: String,
    role: String,
}

#[derive(Deserialize)]
struct Stored {
    #[serde(rename = "kmsKeyName")]
    key: Option<String>,
    #[serde(rename = "retentionExpirationTime")]
    locked_until: Option<DateTime<Utc>>,
    #[serde(rename = "storageClass")]
    class: Option<String>,
}
