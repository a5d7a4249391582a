//! What the URL of a store may say: `file:///directory`, `s3://bucket/prefix?region=…&endpoint=…`.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use reqwest::Url;

/// A store's URL that makes sense; whether the store is there is another question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreUrl {
    /// As written: relative ones are for the caller to place.
    Directory(PathBuf),
    S3(S3Url),
}

/// A bucket that speaks S3.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct S3Url {
    pub bucket: String,
    /// A folder in it, without slashes at its ends; empty for all of it.
    pub prefix: String,
    /// The environment's, the profile's, or `us-east-1` when absent.
    pub region: Option<String>,
    /// The environment's, or Amazon's when absent.
    pub endpoint: Option<Endpoint>,
    /// How long a request that fails is tried again; 90 s when absent.
    pub patience: Option<Duration>,
}

/// Where an S3 server listens: over TLS, or on this machine.
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
const BUCKET: &str = "write s3://bucket/prefix?region=eu-central-1, with &endpoint=https://… when it is not Amazon's";

fn bad(message: impl Into<String>, hint: &'static str) -> BadUrl {
    BadUrl { message: message.into(), hint }
}

impl StoreUrl {
    pub fn parse(text: &str) -> Result<Self, BadUrl> {
        match text.split_once(':') {
            Some(("file", rest)) => match rest.strip_prefix("//").unwrap_or(rest) {
                "" => Err(bad(format!("`{text}` names no directory"), DIRECTORY)),
                path => Ok(Self::Directory(PathBuf::from(path))),
            },
            Some(("s3", _)) => S3Url::parse(text).map(Self::S3),
            Some((scheme @ ("az" | "gs"), _)) => Err(bad(
                format!("`{scheme}:` stores are not supported yet"),
                "stores are directories, file:///srv/backups, or S3 buckets, s3://bucket/prefix",
            )),
            _ => Err(bad(
                format!("`{text}` is not the URL of a store"),
                "write file:///srv/backups or s3://bucket/prefix",
            )),
        }
    }
}

impl S3Url {
    fn parse(text: &str) -> Result<Self, BadUrl> {
        let keys = "leave the keys out of the URL: give the store access_key and secret_key";
        // A key may hold what no URL may: it must not be repeated in a message about that.
        if text.split(['?', '#']).next().is_some_and(|place| place.contains('@')) {
            return Err(bad("this URL of a store holds an `@`", keys));
        }
        let url =
            Url::parse(text).map_err(|error| bad(format!("`{text}` is not the URL of a bucket: {error}"), BUCKET))?;
        let bucket = url.host_str().unwrap_or_default();
        if bucket.is_empty() {
            return Err(bad(format!("`{text}` names no bucket"), BUCKET));
        }
        let fits = |letter: char| letter.is_ascii_alphanumeric() || "-._".contains(letter);
        if !(3..=63).contains(&bucket.len()) || !bucket.chars().all(fits) || url.port().is_some() {
            return Err(bad(format!("`{text}` names no bucket that could be"), BUCKET));
        }
        let mut found =
            Self { bucket: bucket.to_owned(), prefix: String::new(), region: None, endpoint: None, patience: None };
        let prefix = url.path().trim_matches('/');
        if prefix.split('/').any(|part| matches!(part, "." | "..")) || prefix.contains("//") || prefix.contains('%') {
            return Err(bad(format!("`{prefix}` is not a folder in a bucket"), BUCKET));
        }
        prefix.clone_into(&mut found.prefix);
        for (name, value) in url.query_pairs() {
            match name.as_ref() {
                "region" if value.chars().all(fits) && !value.is_empty() => found.region = Some(value.into_owned()),
                "endpoint" => found.endpoint = Some(Endpoint::parse(&value)?),
                "region" => return Err(bad(format!("`{value}` is no region"), BUCKET)),
                "patience" => match humantime::parse_duration(&value) {
                    Ok(patience) if patience <= LONGEST => found.patience = Some(patience),
                    _ => {
                        let hint = "write it like patience=90s; 5m is the longest that a signature lasts";
                        return Err(bad(format!("patience cannot be `{value}`"), hint));
                    }
                },
                // A key that somebody has put there must not be repeated either.
                name if name.contains("key") || name.contains("token") || name.contains("secret") => {
                    return Err(bad(format!("the URL of a store takes no `{name}`"), keys));
                }
                name => return Err(bad(format!("the URL of a bucket takes no `{name}`"), BUCKET)),
            }
        }
        Ok(found)
    }
}

/// As it is parsed.
impl std::fmt::Display for S3Url {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "s3://{}", self.bucket)?;
        if !self.prefix.is_empty() {
            write!(f, "/{}", self.prefix)?;
        }
        let region = self.region.as_ref().map(|region| format!("region={region}"));
        let endpoint = self.endpoint.as_ref().map(|endpoint| format!("endpoint={}", endpoint.0));
        let patience = self.patience.map(|patience| format!("patience={}ms", patience.as_millis()));
        let query: Vec<String> = [region, endpoint, patience].into_iter().flatten().collect();
        if query.is_empty() { Ok(()) } else { write!(f, "?{}", query.join("&")) }
    }
}

impl Endpoint {
    /// Refuses what would be plaintext to another machine.
    pub fn parse(text: &str) -> Result<Self, BadUrl> {
        let hint = "write endpoint=https://host:port; http:// is only for a server on this machine";
        let url =
            Url::parse(text).map_err(|error| bad(format!("`{text}` is no address of a server: {error}"), hint))?;
        let host = url.host_str().unwrap_or_default();
        if host.is_empty() || !url.username().is_empty() || url.query().is_some() || url.path() != "/" {
            return Err(bad(format!("`{}` is no address of a server", url.scheme()), hint));
        }
        match url.scheme() {
            "https" => {}
            "http" if is_loopback(host) => {}
            "http" => return Err(bad(format!("`{text}` would send the backups in the clear"), hint)),
            other => return Err(bad(format!("`{other}:` is not how an S3 server is reached"), hint)),
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

fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn s3(text: &str) -> S3Url {
        match StoreUrl::parse(text) {
            Ok(StoreUrl::S3(url)) => url,
            other => panic!("{text}: {other:?}"),
        }
    }

    fn refused(text: &str) -> String {
        StoreUrl::parse(text).expect_err(text).to_string()
    }

    #[test]
    fn a_bucket_says_where_it_is() {
        let url = s3("s3://acme-dr/orders/eu/?region=eu-central-1&endpoint=https://s3.internal:9000/&patience=1m");
        assert_eq!((url.bucket.as_str(), url.prefix.as_str()), ("acme-dr", "orders/eu"));
        assert_eq!(url.region.as_deref(), Some("eu-central-1"));
        assert_eq!(url.endpoint.as_ref().map(Endpoint::as_str), Some("https://s3.internal:9000"));
        assert_eq!(s3(&url.to_string()), url);
        assert_eq!(s3("s3://acme-dr").to_string(), "s3://acme-dr");
        assert_eq!(s3("s3://b.u-c_k/a?endpoint=https%3A%2F%2Fh").endpoint.unwrap().as_str(), "https://h");
    }

    #[test]
    fn row_17_plaintext_goes_no_further_than_this_machine() {
        for host in ["127.0.0.1:9000", "localhost", "[::1]:9000", "127.8.8.8"] {
            assert!(s3(&format!("s3://acme/x?endpoint=http://{host}")).endpoint.unwrap().is_plain(), "{host}");
        }
        for host in ["10.0.0.7:9000", "minio", "127.0.0.1.example.org", "[2001:db8::1]", "0.0.0.0"] {
            let why = refused(&format!("s3://acme/x?endpoint=http://{host}"));
            assert!(why.contains("in the clear"), "{host}: {why}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_told_with_the_right_spelling() {
        insta::assert_snapshot!(refused("s3://"), @"`s3://` names no bucket; write s3://bucket/prefix?region=eu-central-1, with &endpoint=https://… when it is not Amazon's");
        insta::assert_snapshot!(refused("s3://acme/x?zone=1"), @"the URL of a bucket takes no `zone`; write s3://bucket/prefix?region=eu-central-1, with &endpoint=https://… when it is not Amazon's");
        insta::assert_snapshot!(refused("gs://acme"), @"`gs:` stores are not supported yet; stores are directories, file:///srv/backups, or S3 buckets, s3://bucket/prefix");
        insta::assert_snapshot!(refused("/srv"), @"`/srv` is not the URL of a store; write file:///srv/backups or s3://bucket/prefix");
        assert!(refused("s3://acme/x?patience=1h").contains("patience=90s"));
        for with_key in ["s3://AKIAXYZ:topsecret@acme/x", "s3://acme/x?secret_key=topsecret", "s3://to/p@secret/x"] {
            let why = refused(with_key);
            assert!(why.contains("access_key") && !why.contains("topsecret"), "{why}");
        }
        assert_eq!(s3("s3://acme/a/../b").prefix, "b");
        assert!(refused("s3://acme/x?endpoint=ftp://h").contains("ftp"));
    }
}
