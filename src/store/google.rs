//! A bucket of Google Cloud Storage.

use std::sync::Arc;

use object_store::StaticCredentialProvider;
use object_store::gcp::{
    GcpCredential, GcpCredentialProvider, GoogleCloudStorage, GoogleCloudStorageBuilder, GoogleConfigKey,
};

use super::StoreError;
use super::cloud::{self, Opened};
use super::keys::{Given, GoogleKey, Keys};
use crate::inventory::{BucketUrl, Cloud};
use crate::secret::Secret;

/// Also the key that it is opened with, when it is one that lasts.
pub fn open(url: BucketUrl, keys: &Keys) -> Result<(Opened<GoogleCloudStorage>, Option<GoogleKey>), StoreError> {
    let name = url.to_string();
    let refused = |why: String| StoreError::Url { url: name.clone(), why };
    let environment = GoogleCloudStorageBuilder::from_env();
    let said = |key| environment.get_config_value(&key).filter(|value| !value.is_empty());
    let given = match keys {
        Keys::Given(Given::Google(given)) => Some(given.clone()),
        Keys::Given(_) => return Err(cloud::wrong_keys(&name)),
        Keys::File(path) => match cloud::from_file(Cloud::Google, &name, path)? {
            Given::Google(given) => Some(given),
            _ => return Err(cloud::wrong_keys(&name)),
        },
        // Known here, it can be handed on.
        Keys::Usual => match (said(GoogleConfigKey::ServiceAccountKey), said(GoogleConfigKey::ServiceAccount)) {
            (Some(json), _) => Some(GoogleKey::Service(Secret::new(json))),
            (None, Some(path)) => match cloud::from_file(Cloud::Google, &name, path.as_ref())? {
                Given::Google(given) => Some(given),
                _ => return Err(cloud::wrong_keys(&name)),
            },
            (None, None) => None,
        },
    };
    let builder = || {
        let builder = GoogleCloudStorageBuilder::new().with_bucket_name(&url.bucket);
        let builder = builder.with_client_options(cloud::client(&url)).with_retry(cloud::retries(&url));
        match &url.endpoint {
            Some(endpoint) => builder.with_base_url(endpoint.as_str()),
            None => builder,
        }
    };
    let builder = match &given {
        Some(GoogleKey::Service(json)) => {
            let json = checked(json.expose()).map_err(refused)?;
            builder().with_service_account_key(json)
        }
        Some(GoogleKey::Token(token)) => {
            let credential = GcpCredential { bearer: token.expose().to_owned() };
            builder().with_credentials(Arc::new(StaticCredentialProvider::new(credential)))
        }
        None => match said(GoogleConfigKey::ApplicationCredentials) {
            Some(path) => builder().with_application_credentials(path),
            None => builder(),
        },
    };
    let store = builder.build().map_err(|error| refused(error.to_string()))?;
    Ok((Opened { store, url }, given))
}

/// What is no key of a service account, or would send requests elsewhere or unsigned, is refused; nothing of it is repeated.
fn checked(json: &str) -> Result<&str, String> {
    let Ok(serde_json::Value::Object(key)) = serde_json::from_str(json) else {
        return Err("its service_account is not the JSON of a key".to_owned());
    };
    if let Some(name) = ["gcs_base_url", "disable_oauth"].into_iter().find(|name| key.contains_key(*name)) {
        return Err(format!("its service_account holds `{name}`, which no key of Google's does"));
    }
    match ["private_key", "private_key_id", "client_email"].into_iter().find(|name| !key.contains_key(*name)) {
        Some(missing) => Err(format!("its service_account has no `{missing}`")),
        None => Ok(json),
    }
}

/// A token as it is now.
pub async fn token(provider: &GcpCredentialProvider) -> object_store::Result<Given> {
    let found = provider.get_credential().await?;
    Ok(Given::Google(GoogleKey::Token(Secret::new(found.bearer.as_str()))))
}
