//! A container of Azure Blob Storage.

use std::sync::Arc;

use object_store::StaticCredentialProvider;
use object_store::azure::{
    AzureAccessKey, AzureConfigKey, AzureCredential, AzureCredentialProvider, MicrosoftAzure, MicrosoftAzureBuilder,
    split_sas,
};

use super::StoreError;
use super::cloud::{self, Opened};
use super::keys::{AzureKey, Given, Keys};
use crate::inventory::{BucketUrl, Cloud, Endpoint};
use crate::secret::Secret;

/// Also the key that it is opened with, when it is one that lasts.
pub fn open(url: BucketUrl, keys: &Keys) -> Result<(Opened<MicrosoftAzure>, Option<AzureKey>), StoreError> {
    let name = url.to_string();
    let refused = |why: String| StoreError::Url { url: name.clone(), why };
    let environment = MicrosoftAzureBuilder::from_env();
    let said = |key| environment.get_config_value(&key).filter(|value| !value.is_empty());
    let account = url.account.clone().or_else(|| said(AzureConfigKey::AccountName));
    let Some(account) = account else {
        return Err(refused("it does not say which storage account it is in: add ?account=NAME".to_owned()));
    };
    let endpoint = match &url.endpoint {
        Some(endpoint) => Some(endpoint.clone()),
        None => said(AzureConfigKey::Endpoint).map(|text| Endpoint::parse(Cloud::Azure, &text)).transpose()?,
    };
    let url = BucketUrl { account: Some(account.clone()), endpoint, ..url };
    let given = match keys {
        Keys::Given(Given::Azure(given)) => Some(given.clone()),
        Keys::Given(_) => return Err(cloud::wrong_keys(&name)),
        Keys::File(path) => match cloud::from_file(Cloud::Azure, &name, path)? {
            Given::Azure(given) => Some(given),
            _ => return Err(cloud::wrong_keys(&name)),
        },
        // Known here, they can be handed on.
        Keys::Usual => {
            let key = said(AzureConfigKey::AccessKey).map(|key| AzureKey::Account(Secret::new(key)));
            key.or_else(|| said(AzureConfigKey::SasKey).map(|token| AzureKey::Sas(Secret::new(token))))
        }
    };
    let credentials = match &given {
        Some(given) => fixed(given).map_err(refused)?,
        None => {
            let chain = environment.clone().with_account(&account).with_container_name(&url.bucket);
            let chain = chain.with_use_emulator(false).with_client_options(cloud::client(&url));
            let chain = chain.with_retry(cloud::few_retries());
            Arc::clone(chain.build().map_err(|error| refused(error.to_string()))?.credentials())
        }
    };
    // Nothing else of the environment: it could ask for plaintext, or for requests that nobody signs.
    let mut builder = MicrosoftAzureBuilder::new()
        .with_account(&account)
        .with_container_name(&url.bucket)
        .with_client_options(cloud::client(&url))
        .with_retry(cloud::retries(&url))
        .with_credentials(credentials);
    if let Some(endpoint) = &url.endpoint {
        builder = builder.with_endpoint(endpoint.as_str().to_owned());
    }
    let store = builder.build().map_err(|error| refused(error.to_string()))?;
    Ok((Opened { store, url }, given))
}

fn fixed(key: &AzureKey) -> Result<AzureCredentialProvider, String> {
    let credential = match key {
        AzureKey::Account(key) => AzureCredential::AccessKey(
            AzureAccessKey::try_new(key.expose()).map_err(|_| "its account_key is not base64".to_owned())?,
        ),
        AzureKey::Sas(token) => {
            let why = "its sas_token is not a shared access signature as Azure gives it out".to_owned();
            AzureCredential::SASToken(split_sas(token.expose().trim()).map_err(|_| why)?)
        }
        AzureKey::Token(token) => AzureCredential::BearerToken(token.expose().to_owned()),
    };
    Ok(Arc::new(StaticCredentialProvider::new(credential)))
}

/// A token as it is now.
pub async fn token(provider: &AzureCredentialProvider) -> object_store::Result<Given> {
    match &*provider.get_credential().await? {
        AzureCredential::BearerToken(token) => Ok(Given::Azure(AzureKey::Token(Secret::new(token.as_str())))),
        // Keys that last were found before.
        _ => Err(object_store::Error::NotImplemented {
            operation: "handing on".to_owned(),
            implementer: "these credentials of Azure".to_owned(),
        }),
    }
}
