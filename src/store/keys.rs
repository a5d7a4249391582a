//! Who may open a bucket: keys that were given, or those that the cloud's own tools would find.

use std::path::{Path, PathBuf};

use crate::inventory::Cloud;
use crate::secret::Secret;

/// How a bucket is opened. Directories need none of it.
#[derive(Debug, Clone, Default)]
pub enum Keys {
    /// The usual chain of the cloud: of S3 `AWS_…` of the environment, the profile in `~/.aws`, the container's or the
    /// machine's role; of Azure `AZURE_…`, then the machine's identity; of Google `GOOGLE_…`, what `gcloud` left, then the
    /// machine's account.
    #[default]
    Usual,
    Given(Given),
    /// A file as the cloud's tools write it, see [`Given::expected`].
    File(PathBuf),
}

/// The keys to a bucket, in the way of its cloud.
#[derive(Debug, Clone)]
pub enum Given {
    S3(Pair),
    Azure(AzureKey),
    Google(GoogleKey),
}

/// One pair of keys, and the token that goes with keys that expire.
#[derive(Debug, Clone)]
pub struct Pair {
    pub access_key: Secret,
    pub secret_key: Secret,
    pub session_token: Option<Secret>,
}

#[derive(Debug, Clone)]
pub enum AzureKey {
    /// Of the storage account, in base64.
    Account(Secret),
    /// A shared access signature: `sv=…&sig=…`.
    Sas(Secret),
    /// Expires within the hour.
    Token(Secret),
}

#[derive(Debug, Clone)]
pub enum GoogleKey {
    /// The JSON of a service account's key.
    Service(Secret),
    /// Expires within the hour.
    Token(Secret),
}

/// Names in a file of keys, for the clouds whose own tools have none.
const ACCOUNT_KEY: &str = "account_key";
const SAS_TOKEN: &str = "sas_token";
const BEARER_TOKEN: &str = "bearer_token";

impl Given {
    /// The content of a file for [`Keys::File`].
    pub fn to_file(&self) -> Secret {
        let line = |name: &str, secret: &Secret| Secret::new(format!("{name} = {}\n", secret.expose()));
        match self {
            Self::S3(pair) => pair.to_file(),
            Self::Azure(AzureKey::Account(key)) => line(ACCOUNT_KEY, key),
            Self::Azure(AzureKey::Sas(token)) => line(SAS_TOKEN, token),
            Self::Azure(AzureKey::Token(token)) | Self::Google(GoogleKey::Token(token)) => line(BEARER_TOKEN, token),
            Self::Google(GoogleKey::Service(json)) => json.clone(),
        }
    }

    /// Out of a file's text; `None` when it holds no keys to this cloud.
    pub fn parse(cloud: Cloud, text: &str) -> Option<Self> {
        let named = |wanted: &str| {
            let mut lines = text.lines().filter_map(|line| line.split_once('='));
            lines.find(|(name, _)| name.trim() == wanted).map(|(_, value)| Secret::new(value.trim()))
        };
        match cloud {
            Cloud::S3 => Profile::parse(text, "default").keys.map(Self::S3),
            Cloud::Azure => {
                let key = named(ACCOUNT_KEY).map(AzureKey::Account).or_else(|| named(SAS_TOKEN).map(AzureKey::Sas));
                key.or_else(|| named(BEARER_TOKEN).map(AzureKey::Token)).map(Self::Azure)
            }
            Cloud::Google if text.trim_start().starts_with('{') => {
                Some(Self::Google(GoogleKey::Service(Secret::new(text))))
            }
            Cloud::Google => named(BEARER_TOKEN).map(|token| Self::Google(GoogleKey::Token(token))),
        }
    }

    /// What a file of keys has to hold.
    pub fn expected(cloud: Cloud) -> &'static str {
        match cloud {
            Cloud::S3 => "it needs aws_access_key_id and aws_secret_access_key below [default]",
            Cloud::Azure => "it needs a line `account_key = …` or `sas_token = …`",
            Cloud::Google => "it needs the JSON of a service account's key, as Google gives it out",
        }
    }

    /// Everything that must not be shown. The access key is a name, and its like is in every log of the bucket.
    pub fn secrets(&self) -> Vec<Secret> {
        match self {
            Self::S3(pair) => [&pair.secret_key].into_iter().chain(&pair.session_token).cloned().collect(),
            Self::Azure(AzureKey::Account(secret) | AzureKey::Token(secret))
            | Self::Google(GoogleKey::Token(secret)) => {
                vec![secret.clone()]
            }
            Self::Azure(AzureKey::Sas(token)) => {
                let signature =
                    token.expose().split('&').filter_map(|pair| pair.split_once('=')).find(|pair| pair.0 == "sig");
                [token.clone()].into_iter().chain(signature.map(|(_, value)| Secret::new(value))).collect()
            }
            Self::Google(GoogleKey::Service(json)) => {
                let key = serde_json::from_str::<serde_json::Value>(json.expose()).ok();
                let key = key.and_then(|json| json["private_key"].as_str().map(Secret::new));
                [json.clone()].into_iter().chain(key).collect()
            }
        }
    }
}

impl Pair {
    fn to_file(&self) -> Secret {
        let mut text = format!(
            "[default]\naws_access_key_id = {}\naws_secret_access_key = {}\n",
            self.access_key.expose(),
            self.secret_key.expose()
        );
        if let Some(token) = &self.session_token {
            text.push_str(&format!("aws_session_token = {}\n", token.expose()));
        }
        Secret::new(text)
    }
}

/// The sections of Amazon's configuration files that matter here.
#[derive(Debug, Default)]
pub struct Profile {
    pub keys: Option<Pair>,
    pub region: Option<String>,
    /// A setting that says where keys come from, and that is not followed here.
    pub foreign: Option<String>,
}

impl Profile {
    /// The profile `name`, by `~/.aws/credentials` and `~/.aws/config` or whatever the environment names instead.
    pub fn usual() -> Self {
        let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty());
        let home = |file: &str| variable("HOME").map(|home| Path::new(&home).join(".aws").join(file));
        let file = |name, usual| variable(name).map(PathBuf::from).or_else(|| home(usual));
        let read = |path: Option<PathBuf>| path.and_then(|path| std::fs::read_to_string(path).ok()).unwrap_or_default();
        let name = std::env::var("AWS_PROFILE").unwrap_or_else(|_| "default".to_owned());
        let mut profile = Self::parse(&read(file("AWS_SHARED_CREDENTIALS_FILE", "credentials")), &name);
        let config = Self::parse(&read(file("AWS_CONFIG_FILE", "config")), &name);
        profile.keys = profile.keys.or(config.keys);
        profile.region = profile.region.or(config.region);
        profile.foreign = profile.foreign.or(config.foreign);
        profile
    }

    /// One profile of a file's text.
    pub fn parse(text: &str, name: &str) -> Self {
        let mut inside = false;
        let (mut access, mut secret, mut token, mut found) = (None, None, None, Self::default());
        for line in text.lines().map(str::trim).filter(|line| !line.starts_with(['#', ';'])) {
            if let Some(section) = line.strip_prefix('[').and_then(|line| line.split_once(']')) {
                let section = section.0.trim();
                inside = section.strip_prefix("profile ").map_or(section, str::trim) == name;
                continue;
            }
            let Some((key, value)) = line.split_once('=').filter(|_| inside) else { continue };
            let value = value.trim();
            match key.trim() {
                "aws_access_key_id" => access = Some(Secret::new(value)),
                "aws_secret_access_key" => secret = Some(Secret::new(value)),
                "aws_session_token" => token = Some(Secret::new(value)),
                "region" => found.region = Some(value.to_owned()),
                key @ ("credential_process" | "sso_session" | "sso_start_url" | "role_arn") => {
                    found.foreign = Some(key.to_owned());
                }
                _ => {}
            }
        }
        if let (Some(access_key), Some(secret_key)) = (access, secret) {
            found.keys = Some(Pair { access_key, secret_key, session_token: token });
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_profile_is_found_among_others() {
        let text = "# mine\n[default]\naws_access_key_id = AKIA1\naws_secret_access_key=a/b=c\n\n[profile dr]\n\
                    region = eu-central-1\naws_access_key_id=AKIA2\naws_secret_access_key=x\naws_session_token = t\n\
                    [sso]\nsso_session = corp\n";
        let keys = |name| {
            let keys = Profile::parse(text, name).keys?;
            let token = keys.session_token.map(|token| token.expose().to_owned());
            Some((keys.access_key.expose().to_owned(), keys.secret_key.expose().to_owned(), token))
        };
        assert_eq!(keys("default"), Some(("AKIA1".into(), "a/b=c".into(), None)));
        assert_eq!(keys("dr"), Some(("AKIA2".into(), "x".into(), Some("t".into()))));
        assert_eq!(Profile::parse(text, "dr").region.as_deref(), Some("eu-central-1"));
        assert_eq!(keys("sso"), None);
        assert_eq!(Profile::parse(text, "sso").foreign.as_deref(), Some("sso_session"));
    }

    #[test]
    fn what_is_written_is_read_again() {
        let given = Given::S3(Pair {
            access_key: Secret::new("AKIA"),
            secret_key: Secret::new("s="),
            session_token: Some(Secret::new("t")),
        });
        let read = Profile::parse(given.to_file().expose(), "default").keys.unwrap();
        assert_eq!(read.secret_key.expose(), "s=");
        assert_eq!(read.session_token.unwrap().expose(), "t");
        assert!(!format!("{given:?}").contains("AKIA"));
    }

    #[test]
    fn every_cloud_reads_what_is_handed_on() {
        let secret = |text: &str| Secret::new(text);
        for (cloud, given) in [
            (Cloud::Azure, Given::Azure(AzureKey::Account(secret("a2V5==")))),
            (Cloud::Azure, Given::Azure(AzureKey::Sas(secret("sv=1&sig=x%3D")))),
            (Cloud::Azure, Given::Azure(AzureKey::Token(secret("ey.J")))),
            (Cloud::Google, Given::Google(GoogleKey::Token(secret("ya29")))),
            (Cloud::Google, Given::Google(GoogleKey::Service(secret("{\"private_key\": \"k\"}")))),
        ] {
            let file = given.to_file();
            let read = Given::parse(cloud, file.expose()).expect("keys");
            assert_eq!(read.to_file().expose(), file.expose());
            assert!(Given::parse(Cloud::S3, file.expose()).is_none());
        }
        let sas = Given::Azure(AzureKey::Sas(secret("sv=1&sig=abcd")));
        assert!(sas.secrets().iter().any(|secret| secret.expose() == "abcd"));
    }
}
