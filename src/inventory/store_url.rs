//! What the URL of a store may say: `file:///directory`, `s3://bucket/prefix?region=…&endpoint=…`,
//! `az://container/prefix?account=…`, `gs://bucket/prefix`.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use reqwest::Url;

use crate::mutant;

/// A store's URL that makes sense; whether the store is there is another question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreUrl {
    /// As written: relative ones are for the caller to place.
    Directory(PathBuf),
    Bucket(BucketUrl),
}

/// Whose way of speaking a bucket understands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cloud {
    /// Amazon's, and that of many other servers.
    S3,
    /// Azure Blob Storage; a bucket is called a container there.
    Azure,
    /// Google Cloud Storage.
    Google,
}

/// A bucket behind a network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BucketUrl {
    pub cloud: Cloud,
    pub bucket: String,
    /// A folder in it, without slashes at its ends; empty for all of it.
    pub prefix: String,
    /// Of S3: the environment's, the profile's, or `us-east-1` when absent.
    pub region: Option<String>,
    /// Of Azure: the storage account; the environment's when absent.
    pub account: Option<String>,
    /// The environment's, or the cloud's own when absent.
    pub endpoint: Option<Endpoint>,
    /// How long a request that fails is tried again; 90 s when absent.
    pub patience: Option<Duration>,
}

/// Where a server of buckets listens: over TLS, or on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint(String);

/// What is wrong with a URL, and how it would be right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}; {hint}")]
pub struct BadUrl {
    pub message: String,
    pub hint: &'static str,
}

/// A request is signed once, and its signature does not last much longer.
const LONGEST: Duration = Duration::from_secs(300);

const DIRECTORY: &str = "write file:///srv/backups";

fn bad(message: impl Into<String>, hint: &'static str) -> BadUrl {
    BadUrl { message: message.into(), hint }
}

impl Cloud {
    fn of(scheme: &str) -> Option<Self> {
        Some(match scheme {
            "s3" => Self::S3,
            "az" => Self::Azure,
            "gs" => Self::Google,
            _ => return None,
        })
    }

    pub fn scheme(self) -> &'static str {
        match self {
            Self::S3 => "s3",
            Self::Azure => "az",
            Self::Google => "gs",
        }
    }

    fn example(self) -> &'static str {
        match self {
            Self::S3 => {
                "write s3://bucket/prefix?region=eu-central-1, with &endpoint=https://… when it is not Amazon's"
            }
            Self::Azure => "write az://container/prefix?account=NAME, with &endpoint=https://… when it is not Azure's",
            Self::Google => "write gs://bucket/prefix",
        }
    }

    fn where_keys_go(self) -> &'static str {
        match self {
            Self::S3 => "leave the keys out of the URL: give the store access_key and secret_key",
            Self::Azure => "leave the keys out of the URL: give the store account_key or sas_token",
            Self::Google => "leave the keys out of the URL: give the store service_account",
        }
    }
}

impl StoreUrl {
    pub fn parse(text: &str) -> Result<Self, BadUrl> {
        match text.split_once(':') {
            Some(("file", rest)) => match rest.strip_prefix("//").unwrap_or(rest) {
                "" => Err(bad(format!("`{text}` names no directory"), DIRECTORY)),
                path => Ok(Self::Directory(PathBuf::from(path))),
            },
            Some((scheme, _)) if let Some(cloud) = Cloud::of(scheme) => BucketUrl::parse(cloud, text).map(Self::Bucket),
            _ => Err(bad(
                format!("`{text}` is not the URL of a store"),
                "write file:///srv/backups, s3://bucket/prefix, az://container/prefix or gs://bucket/prefix",
            )),
        }
    }
}

impl BucketUrl {
    fn parse(cloud: Cloud, text: &str) -> Result<Self, BadUrl> {
        let (example, keys) = (cloud.example(), cloud.where_keys_go());
        // A key may hold what no URL may: it must not be repeated in a message about that.
        if text.split(['?', '#']).next().is_some_and(|place| place.contains('@')) {
            return Err(bad("this URL of a store holds an `@`", keys));
        }
        let url =
            Url::parse(text).map_err(|error| bad(format!("`{text}` is not the URL of a bucket: {error}"), example))?;
        let bucket = url.host_str().unwrap_or_default();
        if bucket.is_empty() {
            return Err(bad(format!("`{text}` names no bucket"), example));
        }
        let fits = |letter: char| letter.is_ascii_alphanumeric() || "-._".contains(letter);
        if !(3..=63).contains(&bucket.len()) || !bucket.chars().all(fits) || url.port().is_some() {
            return Err(bad(format!("`{text}` names no bucket that could be"), example));
        }
        let prefix = url.path().trim_matches('/');
        if prefix.split('/').any(|part| matches!(part, "." | "..")) || prefix.contains("//") || prefix.contains('%') {
            return Err(bad(format!("`{prefix}` is not a folder in a bucket"), example));
        }
        let mut found = Self {
            cloud,
            bucket: bucket.to_owned(),
            prefix: prefix.to_owned(),
            region: None,
            account: None,
            endpoint: None,
            patience: None,
        };
        let word = |value: &str| !value.is_empty() && value.chars().all(fits);
        for (name, value) in url.query_pairs() {
            match (name.as_ref(), cloud) {
                ("region", Cloud::S3) if word(&value) => found.region = Some(value.into_owned()),
                ("account", Cloud::Azure) if word(&value) => found.account = Some(value.into_owned()),
                ("region", Cloud::S3) => return Err(bad(format!("`{value}` is no region"), example)),
                ("account", Cloud::Azure) => return Err(bad(format!("`{value}` is no storage account"), example)),
                ("endpoint", _) => found.endpoint = Some(Endpoint::parse(cloud, &value)?),
                ("patience", _) => match humantime::parse_duration(&value) {
                    Ok(patience) if patience <= LONGEST => found.patience = Some(patience),
                    _ => {
                        let hint = "write it like patience=90s; 5m is the longest that a signature lasts";
                        return Err(bad(format!("patience cannot be `{value}`"), hint));
                    }
                },
                // A key that somebody has put there must not be repeated either.
                (name, _) if ["key", "token", "secret", "sig", "sas"].iter().any(|word| name.contains(word)) => {
                    return Err(bad(format!("the URL of a store takes no `{name}`"), keys));
                }
                (name, _) => return Err(bad(format!("the URL of this bucket takes no `{name}`"), example)),
            }
        }
        Ok(found)
    }
}

/// As it is parsed.
impl fmt::Display for BucketUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.cloud.scheme(), self.bucket)?;
        if !self.prefix.is_empty() {
            write!(f, "/{}", self.prefix)?;
        }
        let region = self.region.as_ref().map(|region| format!("region={region}"));
        let account = self.account.as_ref().map(|account| format!("account={account}"));
        let endpoint = self.endpoint.as_ref().map(|endpoint| format!("endpoint={}", endpoint.0));
        let patience = self.patience.map(|patience| format!("patience={}ms", patience.as_millis()));
        let query: Vec<String> = [region, account, endpoint, patience].into_iter().flatten().collect();
        if query.is_empty() { Ok(()) } else { write!(f, "?{}", query.join("&")) }
    }
}

impl Endpoint {
    /// Refuses what would be plaintext to another machine. One of Azure may name the account as its path.
    pub fn parse(cloud: Cloud, text: &str) -> Result<Self, BadUrl> {
        let hint = "write endpoint=https://host:port; http:// is only for a server on this machine";
        let url =
            Url::parse(text).map_err(|error| bad(format!("`{text}` is no address of a server: {error}"), hint))?;
        let host = url.host_str().unwrap_or_default();
        let parts = url.path().trim_matches('/').split('/').filter(|part| !part.is_empty()).count();
        let has_path = parts > usize::from(cloud == Cloud::Azure);
        if host.is_empty() || !url.username().is_empty() || url.query().is_some() || has_path {
            return Err(bad(format!("`{}` is no address of a server", url.scheme()), hint));
        }
        match url.scheme() {
            "https" => {}
            "http" if is_loopback(host) || mutant::removes("17c") => {}
            "http" => return Err(bad(format!("`{text}` would send the backups in the clear"), hint)),
            other => return Err(bad(format!("`{other}:` is not how a server of buckets is reached"), hint)),
        }
        Ok(Self(text.trim_end_matches('/').to_owned()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Not over TLS.
    pub fn is_plain(&self) -> bool {
        self.0.starts_with("http:")
    }
}

/// Whether the host is this machine, by name or address.
pub fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bucket(text: &str) -> BucketUrl {
        match StoreUrl::parse(text) {
            Ok(StoreUrl::Bucket(url)) => url,
            other => panic!("{text}: {other:?}"),
        }
    }

    fn refused(text: &str) -> String {
        StoreUrl::parse(text).expect_err(text).to_string()
    }

    #[test]
    fn a_bucket_says_where_it_is() {
        let url = bucket("s3://acme-dr/orders/eu/?region=eu-central-1&endpoint=https://s3.internal:9000/&patience=1m");
        assert_eq!((url.bucket.as_str(), url.prefix.as_str()), ("acme-dr", "orders/eu"));
        assert_eq!(url.region.as_deref(), Some("eu-central-1"));
        assert_eq!(url.endpoint.as_ref().map(Endpoint::as_str), Some("https://s3.internal:9000"));
        assert_eq!(bucket(&url.to_string()), url);
        assert_eq!(bucket("s3://acme-dr").to_string(), "s3://acme-dr");
        assert_eq!(bucket("s3://b.u-c_k/a?endpoint=https%3A%2F%2Fh").endpoint.unwrap().as_str(), "https://h");
    }

    #[test]
    fn each_cloud_has_its_own_words() {
        let url = bucket("az://backups/orders?account=acme&endpoint=http://127.0.0.1:10000/acme");
        assert_eq!((url.cloud, url.account.as_deref()), (Cloud::Azure, Some("acme")));
        assert_eq!(url.endpoint.as_ref().map(Endpoint::as_str), Some("http://127.0.0.1:10000/acme"));
        assert_eq!(bucket(&url.to_string()), url);
        assert!(refused("az://backups/x?endpoint=http://127.0.0.1:1/a/b").contains("no address"));
        assert!(refused("s3://backups/x?endpoint=http://127.0.0.1:1/a").contains("no address"));
        assert_eq!(bucket("gs://acme-dr/orders/").to_string(), "gs://acme-dr/orders");
    }

    #[test]
    fn row_17_plaintext_goes_no_further_than_this_machine() {
        for host in ["127.0.0.1:9000", "localhost", "[::1]:9000", "127.8.8.8"] {
            assert!(bucket(&format!("s3://acme/x?endpoint=http://{host}")).endpoint.unwrap().is_plain(), "{host}");
        }
        for host in ["10.0.0.7:9000", "minio", "127.0.0.1.example.org", "[2001:db8::1]", "0.0.0.0"] {
            let why = refused(&format!("s3://acme/x?endpoint=http://{host}"));
            assert!(why.contains("in the clear"), "{host}: {why}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_told_with_the_right_spelling() {
        insta::assert_snapshot!(refused("s3://"), @"`s3://` names no bucket; write s3://bucket/prefix?region=eu-central-1, with &endpoint=https://… when it is not Amazon's");
        insta::assert_snapshot!(refused("s3://acme/x?zone=1"), @"the URL of this bucket takes no `zone`; write s3://bucket/prefix?region=eu-central-1, with &endpoint=https://… when it is not Amazon's");
        insta::assert_snapshot!(refused("/srv"), @"`/srv` is not the URL of a store; write file:///srv/backups, s3://bucket/prefix, az://container/prefix or gs://bucket/prefix");
        insta::assert_snapshot!(refused("gs://acme/x?region=eu"), @"the URL of this bucket takes no `region`; write gs://bucket/prefix");
        assert!(refused("s3://acme/x?patience=1h").contains("patience=90s"));
        for with_key in ["s3://AKIAXYZ:topsecret@acme/x", "s3://acme/x?secret_key=topsecret", "s3://to/p@secret/x"] {
            let why = refused(with_key);
            assert!(why.contains("access_key") && !why.contains("topsecret"), "{why}");
        }
        let sas = refused("az://acme/x?account=orders&sig=topsecret");
        assert!(sas.contains("sas_token") && !sas.contains("topsecret"), "{sas}");
        assert_eq!(bucket("s3://acme/a/../b").prefix, "b");
        assert!(refused("s3://acme/x?endpoint=ftp://h").contains("ftp"));
    }
}
