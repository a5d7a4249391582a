//! A bucket that speaks S3: Amazon's, or any other server's at an endpoint.

use std::sync::Arc;
use std::time::Duration;

use object_store::aws::{AmazonS3, AmazonS3Builder, AmazonS3ConfigKey, AwsCredential, AwsCredentialProvider};
use object_store::{BackoffConfig, ClientOptions, RetryConfig, StaticCredentialProvider};

use super::StoreError;
use super::keys::{Given, Keys, Profile};
use crate::inventory::{Endpoint, S3Url};
use crate::secret::Secret;

const CONNECT: Duration = Duration::from_secs(5);

/// For one request, its data included: at most 16 MiB of them.
const REQUEST: Duration = Duration::from_secs(60);

/// For one request and all that follow it after a failure, when the URL says nothing: a restart of the server is ridden out,
/// and what lasts longer is told.
const PATIENCE: Duration = Duration::from_secs(90);

/// A bucket and where it was found, with what the environment had to say.
pub struct Opened {
    pub store: AmazonS3,
    /// With the region and endpoint that are used, for programs with another environment.
    pub url: S3Url,
}

pub fn open(url: S3Url, keys: &Keys) -> Result<Opened, StoreError> {
    // The commands of PostgreSQL come here without the rest of the program's set-up. A second time is no error.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let name = url.to_string();
    let failed = |error: object_store::Error| StoreError::Url { url: name.clone(), why: error.to_string() };
    let mut builder = AmazonS3Builder::from_env();
    let environment = |key| builder.get_config_value(&key).filter(|value| !value.is_empty());
    let profile = Profile::usual();
    let region = url.region.clone().or_else(|| environment(AmazonS3ConfigKey::Region)).or(profile.region);
    let endpoint = match &url.endpoint {
        Some(endpoint) => Some(endpoint.clone()),
        None => environment(AmazonS3ConfigKey::S3Endpoint)
            .or_else(|| environment(AmazonS3ConfigKey::Endpoint))
            .map(|text| Endpoint::parse(&text))
            .transpose()?,
    };
    let url = S3Url { region: Some(region.unwrap_or_else(|| "us-east-1".to_owned())), endpoint, ..url };
    let given = match keys {
        Keys::Given(given) => Some(given.clone()),
        Keys::File(path) => Some(from_file(&name, path)?),
        Keys::Usual if environment(AmazonS3ConfigKey::AccessKeyId).is_some() => None,
        Keys::Usual if environment(AmazonS3ConfigKey::WebIdentityTokenFile).is_some() => None,
        Keys::Usual => match (profile.keys, profile.foreign) {
            (Some(given), _) => Some(given),
            (None, Some(setting)) => {
                let why = format!("its profile has `{setting}`, which Lifeboat does not follow; give it keys");
                return Err(StoreError::Url { url: name, why });
            }
            (None, None) => None,
        },
    };
    let plain = url.endpoint.as_ref().is_some_and(Endpoint::is_plain);
    // All of the environment's options for clients are replaced: it cannot turn the verification of certificates off.
    let options = ClientOptions::new().with_connect_timeout(CONNECT).with_timeout(REQUEST).with_allow_http(plain);
    if let Some(endpoint) = &url.endpoint {
        builder = builder.with_config(AmazonS3ConfigKey::S3Endpoint, endpoint.as_str());
    }
    builder = builder
        .with_bucket_name(&url.bucket)
        .with_region(url.region.as_deref().unwrap_or_default())
        // A bucket's dots would not fit the wildcard of Amazon's certificate.
        .with_virtual_hosted_style_request(url.endpoint.is_none() && !url.bucket.contains('.'))
        .with_client_options(options)
        .with_credentials(match given {
            Some(given) => fixed(&given),
            None => chain(AmazonS3Builder::from_env(), &url).map_err(failed)?,
        })
        .with_retry(RetryConfig {
            backoff: BackoffConfig { max_backoff: Duration::from_secs(10), ..BackoffConfig::default() },
            max_retries: usize::MAX,
            retry_timeout: url.patience.unwrap_or(PATIENCE),
        });
    Ok(Opened { store: builder.build().map_err(failed)?, url })
}

fn fixed(given: &Given) -> AwsCredentialProvider {
    Arc::new(StaticCredentialProvider::new(AwsCredential {
        key_id: given.access_key.expose().to_owned(),
        secret_key: given.secret_key.expose().to_owned(),
        token: given.session_token.as_ref().map(|token| token.expose().to_owned()),
    }))
}

/// What the environment, the container or the machine says; a machine without a role is silent, and soon given up.
fn chain(builder: AmazonS3Builder, url: &S3Url) -> object_store::Result<AwsCredentialProvider> {
    let short = RetryConfig { max_retries: 2, retry_timeout: Duration::from_secs(5), ..RetryConfig::default() };
    let builder = builder.with_bucket_name(&url.bucket).with_client_options(ClientOptions::new()).with_retry(short);
    let builder = builder.with_region(url.region.as_deref().unwrap_or_default());
    Ok(Arc::clone(builder.build()?.credentials()))
}

fn from_file(bucket: &str, path: &std::path::Path) -> Result<Given, StoreError> {
    let failed = |why: String| StoreError::Keys { bucket: bucket.to_owned(), path: path.to_owned(), why };
    let text = std::fs::read_to_string(path).map_err(|error| failed(error.to_string()))?;
    Profile::parse(&text, "default").keys.ok_or_else(|| failed("it holds none".to_owned()))
}

/// The keys as they are now; of a role they last for an hour at the least.
pub async fn keys(provider: &AwsCredentialProvider) -> object_store::Result<Given> {
    let found = provider.get_credential().await?;
    Ok(Given {
        access_key: Secret::new(found.key_id.clone()),
        secret_key: Secret::new(found.secret_key.clone()),
        session_token: found.token.clone().map(Secret::new),
    })
}
