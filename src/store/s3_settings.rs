//! The settings of an S3 bucket, by the calls of its API. Field names are those of the API's XML.
//! Source: Amazon S3 API Reference, `GetBucketEncryption` and its like, `HeadObject`.

use chrono::{DateTime, Utc};
use http::Method;
use object_store::aws::{AwsAuthorizer, AwsCredential, AwsCredentialProvider};
use object_store::client::{HttpClient, HttpRequest, HttpRequestBody};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::Bucket;
use super::cloud::{self, Answer};
use super::protection::{Exposure, Kept, Lock, Newest, Protection, ProviderEncryption, Rule, Seen};
use crate::inventory::{BucketUrl, StoreUrl};

pub async fn look(bucket: &Bucket, provider: &AwsCredentialProvider, newest: Option<&str>) -> Protection {
    let asker = match Asker::new(bucket, provider).await {
        Ok(asker) => asker,
        Err(why) => return Protection::unknown(why),
    };
    let (encryption, versions, lock, lifecycle, public) =
        tokio::join!(asker.encryption(), asker.versions(), asker.lock(), asker.lifecycle(), asker.public());
    let newest = match newest {
        Some(key) => asker.newest(key).await.map(Some),
        None => Ok(None),
    };
    Protection { encryption, versions, lock, lifecycle, public, newest, elsewhere: None }
}

struct Asker {
    client: HttpClient,
    credential: std::sync::Arc<AwsCredential>,
    url: BucketUrl,
    /// Of the bucket, with a slash at its end.
    root: String,
}

/// What the server said: an answer, or that there is none of it.
enum Said<T> {
    Is(T),
    /// The server's word for it.
    Not,
}

impl Asker {
    async fn new(bucket: &Bucket, provider: &AwsCredentialProvider) -> Seen<Self> {
        let Ok(StoreUrl::Bucket(url)) = StoreUrl::parse(bucket.url()) else {
            return Err("its URL cannot be read again".to_owned());
        };
        let client = cloud::asker(&url)?;
        let credential = provider.get_credential().await.map_err(|error| error.to_string())?;
        let region = url.region.as_deref().unwrap_or("us-east-1");
        // As the store itself is addressed.
        let root = match &url.endpoint {
            Some(endpoint) => format!("{}/{}/", endpoint.as_str().trim_end_matches('/'), url.bucket),
            None if url.bucket.contains('.') => format!("https://s3.{region}.amazonaws.com/{}/", url.bucket),
            None => format!("https://{}.s3.{region}.amazonaws.com/", url.bucket),
        };
        Ok(Self { client, credential, url, root })
    }

    async fn send(&self, method: Method, path: &str) -> Seen<Answer> {
        let uri = format!("{}{path}", self.root);
        let request = http::Request::builder().method(method).uri(&uri).body(HttpRequestBody::empty());
        let mut request: HttpRequest = request.map_err(|error| format!("{uri}: {error}"))?;
        let region = self.url.region.as_deref().unwrap_or("us-east-1");
        AwsAuthorizer::new(&self.credential, "s3", region)
            .try_authorize(&mut request, None)
            .map_err(|error| format!("the question cannot be signed: {error}"))?;
        cloud::ask(&self.client, request).await
    }

    /// Asks for a part of the bucket's settings; `right` is what the keys need for it, `absent` the code for "there is none".
    async fn ask<T: DeserializeOwned>(&self, part: &str, right: &str, absent: &str) -> Seen<Said<T>> {
        match self.ask_text(part, right, absent).await? {
            Said::Is(text) => {
                quick_xml::de::from_str(&text).map(Said::Is).map_err(|error| format!("the answer is odd: {error}"))
            }
            Said::Not => Ok(Said::Not),
        }
    }

    async fn ask_text(&self, part: &str, right: &str, absent: &str) -> Seen<Said<String>> {
        let Answer { status, body, .. } = self.send(Method::GET, &format!("?{part}")).await?;
        let text = String::from_utf8_lossy(&body);
        if status.is_success() {
            return Ok(Said::Is(text.into_owned()));
        }
        let fault: Fault = quick_xml::de::from_str(&text).unwrap_or_default();
        match (status.as_u16(), fault.code.as_str()) {
            (_, code) if code == absent => Ok(Said::Not),
            (403, _) => Err(format!("these keys may not ask ({right})")),
            (405 | 501, _) => Err("this server does not know the question".to_owned()),
            (status, "") => Err(format!("the server says {status}")),
            (_, code) => Err(format!("the server says {code}: {}", fault.message)),
        }
    }

    async fn encryption(&self) -> Seen<Option<ProviderEncryption>> {
        let absent = "ServerSideEncryptionConfigurationNotFoundError";
        let Said::Is(found) =
            self.ask::<xml::Encryption>("encryption", "s3:GetEncryptionConfiguration", absent).await?
        else {
            return Ok(None);
        };
        Ok(found.rules.into_iter().find_map(|rule| rule.default).map(|default| ProviderEncryption {
            algorithm: default.algorithm,
            key: Ok(default.key.filter(|key| !key.is_empty())),
        }))
    }

    async fn versions(&self) -> Seen<Kept> {
        let found = self.ask::<xml::Versioning>("versioning", "s3:GetBucketVersioning", "").await?;
        Ok(match found {
            Said::Is(found) if found.status.as_deref() == Some("Enabled") => Kept::Versions,
            _ => Kept::Not,
        })
    }

    async fn lock(&self) -> Seen<Option<Lock>> {
        let absent = "ObjectLockConfigurationNotFoundError";
        let right = "s3:GetBucketObjectLockConfiguration";
        let Said::Is(found) = self.ask::<xml::ObjectLock>("object-lock", right, absent).await? else {
            return Ok(None);
        };
        if found.enabled.as_deref() != Some("Enabled") {
            return Ok(None);
        }
        let kept = found.rule.and_then(|rule| rule.retention);
        let days = kept.as_ref().and_then(|kept| kept.days.or(kept.years.map(|years| years.saturating_mul(365))));
        let mode = kept.and_then(|kept| kept.mode);
        Ok(Some(Lock { may_be_lifted: mode.as_deref() == Some("GOVERNANCE"), mode, days }))
    }

    async fn lifecycle(&self) -> Seen<Vec<Rule>> {
        let right = "s3:GetLifecycleConfiguration";
        match self.ask::<xml::Lifecycle>("lifecycle", right, "NoSuchLifecycleConfiguration").await? {
            Said::Is(found) => {
                Ok(found.rules.into_iter().filter(|rule| rule.status == "Enabled").map(Rule::from).collect())
            }
            Said::Not => Ok(Vec::new()),
        }
    }

    async fn public(&self) -> Seen<Exposure> {
        let absent = "NoSuchPublicAccessBlockConfiguration";
        let (block, policy, grants) = tokio::join!(
            self.ask::<xml::Block>("publicAccessBlock", "s3:GetBucketPublicAccessBlock", absent),
            self.ask::<xml::PolicyStatus>("policyStatus", "s3:GetBucketPolicyStatus", "NoSuchBucketPolicy"),
            self.ask::<xml::Grants>("acl", "s3:GetBucketAcl", ""),
        );
        let block = block.map(|said| match said {
            Said::Is(block) => {
                [block.acls, block.ignore, block.policy, block.restrict].iter().all(|part| is_true(part))
            }
            Said::Not => false,
        });
        if block == Ok(true) {
            return Ok(Exposure { open_to: Vec::new(), blocked: true });
        }
        let mut open_to = Vec::new();
        if let Said::Is(status) = policy?
            && is_true(&status.public)
            && self.is_for_everybody().await
        {
            open_to.push("everybody, by the bucket's policy".to_owned());
        }
        if let Said::Is(found) = grants? {
            for grant in found.list.grants {
                let group = grant.grantee.uri.unwrap_or_default();
                let whom = match group.rsplit('/').next() {
                    Some("AllUsers") => "everybody",
                    Some("AuthenticatedUsers") => "everybody who has an account with the provider",
                    _ => continue,
                };
                open_to.push(format!("{whom}, by a grant of {}", grant.permission));
            }
        }
        block.map(|blocked| Exposure { open_to: open_to.clone(), blocked }).or_else(|why| match open_to.is_empty() {
            true => Err(why),
            false => Ok(Exposure { open_to: open_to.clone(), blocked: false }),
        })
    }

    /// Ceph's RGW 16 calls every policy public that allows something, even to one user alone: what cannot be read is believed.
    async fn is_for_everybody(&self) -> bool {
        match self.ask_text("policy", "s3:GetBucketPolicy", "NoSuchBucketPolicy").await {
            Ok(Said::Is(policy)) => names_everybody(&policy),
            Ok(Said::Not) | Err(_) => true,
        }
    }

    async fn newest(&self, key: &str) -> Seen<Newest> {
        let path = match self.url.prefix.as_str() {
            "" => key.to_owned(),
            prefix => format!("{prefix}/{key}"),
        };
        let found = self.send(Method::HEAD, &path).await?;
        match found.status.as_u16() {
            200 => {}
            403 => return Err("these keys may not ask (s3:GetObject)".to_owned()),
            status => return Err(format!("the server says {status} of {key}")),
        }
        let header = |name: &str| found.header(name);
        let encryption = header("x-amz-server-side-encryption").map(|algorithm| ProviderEncryption {
            algorithm,
            key: Ok(header("x-amz-server-side-encryption-aws-kms-key-id")),
        });
        let until = header("x-amz-object-lock-retain-until-date");
        let locked_until = until.and_then(|at| DateTime::parse_from_rfc3339(&at).ok()).map(|at| at.with_timezone(&Utc));
        let class = header("x-amz-storage-class").filter(|class| class != "STANDARD");
        Ok(Newest { key: key.to_owned(), encryption, locked_until, class })
    }
}

/// Whether a policy allows anything to whom it does not name; also of what is no policy.
fn names_everybody(policy: &str) -> bool {
    let Ok(policy) = serde_json::from_str::<serde_json::Value>(policy) else { return true };
    let list = |value: &serde_json::Value| value.as_array().cloned().unwrap_or_else(|| vec![value.clone()]);
    list(&policy["Statement"]).iter().filter(|statement| statement["Effect"] != "Deny").any(|statement| {
        let named = match &statement["Principal"] {
            serde_json::Value::Object(kinds) => kinds.values().flat_map(list).collect(),
            other => list(other),
        };
        named.iter().any(|whom| whom.as_str().is_none_or(|whom| whom.contains('*')))
    })
}

fn is_true(text: &str) -> bool {
    text.eq_ignore_ascii_case("true")
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Fault {
    code: String,
    message: String,
}

impl From<xml::LifecycleRule> for Rule {
    fn from(rule: xml::LifecycleRule) -> Self {
        let filter = rule.filter.unwrap_or_default();
        let narrowed = filter.narrows() || filter.and.as_ref().is_some_and(xml::And::narrows);
        let prefix = filter.prefix.or(filter.and.and_then(|and| and.prefix)).or(rule.prefix).unwrap_or_default();
        Self {
            name: rule.id.unwrap_or_default(),
            prefix,
            narrowed,
            expires_days: rule.expiration.and_then(|expiration| expiration.days),
            moves: rule.transitions.into_iter().map(|one| (one.days.unwrap_or(0), one.class)).collect(),
            aborts_uploads: rule.abort.is_some(),
        }
    }
}

/// The answers, as far as they are of interest.
mod xml {
    use serde::Deserialize;
    use serde::de::IgnoredAny;

    #[derive(Deserialize)]
    pub struct Encryption {
        #[serde(rename = "Rule", default)]
        pub rules: Vec<EncryptionRule>,
    }

    #[derive(Deserialize)]
    pub struct EncryptionRule {
        #[serde(rename = "ApplyServerSideEncryptionByDefault")]
        pub default: Option<EncryptionDefault>,
    }

    #[derive(Deserialize)]
    pub struct EncryptionDefault {
        #[serde(rename = "SSEAlgorithm")]
        pub algorithm: String,
        #[serde(rename = "KMSMasterKeyID")]
        pub key: Option<String>,
    }

    #[derive(Deserialize)]
    pub struct Versioning {
        #[serde(rename = "Status")]
        pub status: Option<String>,
    }

    #[derive(Deserialize)]
    pub struct ObjectLock {
        #[serde(rename = "ObjectLockEnabled")]
        pub enabled: Option<String>,
        #[serde(rename = "Rule")]
        pub rule: Option<LockRule>,
    }

    #[derive(Deserialize)]
    pub struct LockRule {
        #[serde(rename = "DefaultRetention")]
        pub retention: Option<Retention>,
    }

    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    pub struct Retention {
        pub mode: Option<String>,
        pub days: Option<u32>,
        pub years: Option<u32>,
    }

    #[derive(Deserialize)]
    pub struct Lifecycle {
        #[serde(rename = "Rule", default)]
        pub rules: Vec<LifecycleRule>,
    }

    #[derive(Deserialize)]
    pub struct LifecycleRule {
        #[serde(rename = "ID")]
        pub id: Option<String>,
        #[serde(rename = "Status")]
        pub status: String,
        #[serde(rename = "Prefix")]
        pub prefix: Option<String>,
        #[serde(rename = "Filter")]
        pub filter: Option<Filter>,
        #[serde(rename = "Expiration")]
        pub expiration: Option<Expiration>,
        #[serde(rename = "Transition", default)]
        pub transitions: Vec<Transition>,
        #[serde(rename = "AbortIncompleteMultipartUpload")]
        pub abort: Option<IgnoredAny>,
    }

    #[derive(Default, Deserialize)]
    #[serde(rename_all = "PascalCase")]
    pub struct Filter {
        pub prefix: Option<String>,
        pub tag: Option<IgnoredAny>,
        pub object_size_greater_than: Option<IgnoredAny>,
        pub object_size_less_than: Option<IgnoredAny>,
        pub and: Option<And>,
    }

    impl Filter {
        pub fn narrows(&self) -> bool {
            self.tag.is_some() || self.object_size_greater_than.is_some() || self.object_size_less_than.is_some()
        }
    }

    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    pub struct And {
        pub prefix: Option<String>,
        #[serde(default, rename = "Tag")]
        pub tags: Vec<IgnoredAny>,
        pub object_size_greater_than: Option<IgnoredAny>,
        pub object_size_less_than: Option<IgnoredAny>,
    }

    impl And {
        pub fn narrows(&self) -> bool {
            let by_size = self.object_size_greater_than.is_some() || self.object_size_less_than.is_some();
            by_size || !self.tags.is_empty()
        }
    }

    #[derive(Deserialize)]
    pub struct Expiration {
        #[serde(rename = "Days")]
        pub days: Option<u32>,
    }

    #[derive(Deserialize)]
    pub struct Transition {
        #[serde(rename = "Days")]
        pub days: Option<u32>,
        #[serde(rename = "StorageClass")]
        pub class: String,
    }

    #[derive(Deserialize)]
    #[serde(default)]
    #[derive(Default)]
    pub struct Block {
        #[serde(rename = "BlockPublicAcls")]
        pub acls: String,
        #[serde(rename = "IgnorePublicAcls")]
        pub ignore: String,
        #[serde(rename = "BlockPublicPolicy")]
        pub policy: String,
        #[serde(rename = "RestrictPublicBuckets")]
        pub restrict: String,
    }

    #[derive(Deserialize)]
    pub struct PolicyStatus {
        #[serde(rename = "IsPublic", default)]
        pub public: String,
    }

    #[derive(Deserialize)]
    pub struct Grants {
        #[serde(rename = "AccessControlList")]
        pub list: GrantList,
    }

    #[derive(Deserialize)]
    pub struct GrantList {
        #[serde(rename = "Grant", default)]
        pub grants: Vec<Grant>,
    }

    #[derive(Deserialize)]
    pub struct Grant {
        #[serde(rename = "Grantee")]
        pub grantee: Grantee,
        #[serde(rename = "Permission", default)]
        pub permission: String,
    }

    #[derive(Deserialize)]
    pub struct Grantee {
        #[serde(rename = "URI")]
        pub uri: Option<String>,
    }
}

#[cfg(test)]
mod tests {
    use super::names_everybody;

    #[test]
    fn a_policy_is_for_everybody_when_it_allows_what_has_no_name() {
        let policy = |effect: &str, whom: &str| {
            names_everybody(&format!(r#"{{"Statement": [{{"Effect": "{effect}", "Action": "s3:GetObject"{whom}}}]}}"#))
        };
        assert!(policy("Allow", r#", "Principal": "*""#));
        assert!(policy("Allow", r#", "Principal": {"AWS": ["arn:aws:iam::1:user/a", "*"]}"#));
        assert!(policy("Allow", r#", "NotPrincipal": {"AWS": "arn:aws:iam::1:user/a"}"#));
        assert!(!policy("Allow", r#", "Principal": {"AWS": "arn:aws:iam::1:user/a", "Service": "x.amazonaws.com"}"#));
        assert!(!policy("Deny", r#", "Principal": "*""#));
        assert!(names_everybody("no policy"));
    }
}
