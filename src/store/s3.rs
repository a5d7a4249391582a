//! A bucket that speaks S3: Amazon's, or any other server's at an endpoint.

use std::sync::Arc;

use object_store::aws::{AmazonS3, AmazonS3Builder, AmazonS3ConfigKey, AwsCredential, AwsCredentialProvider, Checksum};
use object_store::{ClientOptions, StaticCredentialProvider};

use super::StoreError;
use super::cloud::{self, Opened};
use super::keys::{Given, Keys, Pair, Profile};
use crate::inventory::{BucketUrl, Cloud, Endpoint};
use crate::secret::Secret;

pub fn open(url: BucketUrl, keys: &Keys) -> Result<Opened<AmazonS3>, StoreError> {
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
            .map(|text| Endpoint::parse(Cloud::S3, &text))
            .transpose()?,
    };
    let url = BucketUrl { region: Some(region.unwrap_or_else(|| "us-east-1".to_owned())), endpoint, ..url };
    let given = match keys {
        Keys::Given(Given::S3(given)) => Some(given.clone()),
        Keys::Given(_) => return Err(cloud::wrong_keys(&name)),
        Keys::File(path) => match cloud::from_file(Cloud::S3, &name, path)? {
            Given::S3(given) => Some(given),
            _ => return Err(cloud::wrong_keys(&name)),
        },
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
    let checksum_is_chosen = environment(AmazonS3ConfigKey::Checksum).is_some();
    if let Some(endpoint) = &url.endpoint {
        builder = builder.with_config(AmazonS3ConfigKey::S3Endpoint, endpoint.as_str());
    }
    if !checksum_is_chosen {
        // Amazon takes nothing without one into a bucket that locks what is written. It is worked out for the signature anyway.
        builder = builder.with_checksum_algorithm(Checksum::SHA256);
    }
    builder = builder
        .with_bucket_name(&url.bucket)
        .with_region(url.region.as_deref().unwrap_or_default())
        // A bucket's dots would not fit the wildcard of Amazon's certificate.
        .with_virtual_hosted_style_request(url.endpoint.is_none() && !url.bucket.contains('.'))
        .with_client_options(cloud::client(&url))
        .with_credentials(match given {
            Some(given) => fixed(&given),
            None => chain(AmazonS3Builder::from_env(), &url).map_err(failed)?,
        })
        .with_retry(cloud::retries(&url));
    Ok(Opened { store: builder.build().map_err(failed)?, url })
}

fn fixed(given: &Pair) -> AwsCredentialProvider {
    Arc::new(StaticCredentialProvider::new(AwsCredential {
        key_id: given.access_key.expose().to_owned(),
        secret_key: given.secret_key.expose().to_owned(),
        token: given.session_token.as_ref().map(|token| token.expose().to_owned()),
    }))
}

/// What the environment, the container or the machine says; a machine without a role is silent, and soon given up.
fn chain(builder: AmazonS3Builder, url: &BucketUrl) -> object_store::Result<AwsCredentialProvider> {
    let short = cloud::few_retries();
    let builder = builder.with_bucket_name(&url.bucket).with_client_options(ClientOptions::new()).with_retry(short);
    let builder = builder.with_region(url.region.as_deref().unwrap_or_default());
    Ok(Arc::clone(builder.build()?.credentials()))
}

/// The keys as they are now; of a role they last for an hour at the least.
pub async fn keys(provider: &AwsCredentialProvider) -> object_store::Result<Given> {
    let found = provider.get_credential().await?;
    Ok(Given::S3(Pair {
        access_key: Secret::new(found.key_id.clone()),
        secret_key: Secret::new(found.secret_key.clone()),
        session_token: found.token.clone().map(Secret::new),
    }))
}
