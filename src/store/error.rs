//! What a bucket answered, in words for a tired person.

use std::error::Error as _;
use std::path::PathBuf;

use object_store::client::{HttpError, HttpErrorKind};

use crate::digest::Digest;
use crate::event::Failure;
use crate::inventory::{BadUrl, Cloud};

use super::keys::Given;
use super::seal::Unreadable;

/// Where a machine in a cloud is told who it is.
const METADATA: [&str; 2] = ["169.254.169.254", "metadata.google.internal"];

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("`{url}` is no bucket that Lifeboat can open: {why}")]
    Url { url: String, why: String },
    #[error("{0}")]
    BadUrl(#[from] BadUrl),
    #[error("the keys for {bucket} cannot be read from {path}: {why}")]
    Keys { cloud: Cloud, bucket: String, path: PathBuf, why: String },
    #[error("{bucket} was there and is not any more, so nothing is written: {why}")]
    Gone { bucket: String, why: String },
    #[error("{key} is not in {bucket}")]
    NotFound { bucket: String, key: String },
    #[error("{key} already exists in {bucket}, and objects are never overwritten")]
    Exists { bucket: String, key: String },
    #[error("{key} in {bucket} is not what was stored: expected SHA-256 {expected}, found {found}")]
    Digest { bucket: String, key: String, expected: Digest, found: Digest },
    #[error("{key} in {bucket} cannot be read: {why}")]
    Sealed { bucket: String, key: String, why: Unreadable },
    #[error("{operation} {key} in {bucket} failed: {source}")]
    Io { operation: &'static str, bucket: String, key: String, source: Box<object_store::Error> },
    /// A server's word, or its silence; it was asked again as often as that helps.
    #[error("{}: {why}", .trouble.what(.operation, .bucket, .key))]
    Cloud { cloud: Cloud, operation: &'static str, bucket: String, key: String, trouble: Trouble, why: String },
}

/// What keeps a bucket behind a network from doing what it was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    NoBucket,
    /// It is somewhere else.
    Region,
    /// No keys were found.
    NoKeys,
    Refused,
    Expired,
    /// No connection comes about.
    Unreachable,
    /// The server's certificate is not to be trusted.
    Tls,
    /// A connection broke off, or went silent.
    Cut,
    /// The key of the provider's key service, by which it encrypts, does not do.
    Key,
    /// The provider keeps what is there: a lock or a retention policy has not run out.
    Locked,
    /// Any other answer.
    Answer,
}

impl Trouble {
    fn what(self, operation: &str, bucket: &str, key: &str) -> String {
        match self {
            Self::NoBucket => format!("the bucket of {bucket} does not exist"),
            Self::Region => format!("the bucket of {bucket} is in another region"),
            Self::NoKeys => format!("there are no keys for {bucket}"),
            Self::Refused => format!("{operation} {key} in {bucket} was refused"),
            Self::Expired => format!("the keys for {bucket} have expired"),
            Self::Unreachable => format!("the server of {bucket} cannot be reached"),
            Self::Tls => format!("the server of {bucket} is not trusted"),
            Self::Cut => format!("the connection broke off while {operation} {key} in {bucket}"),
            Self::Key => format!("the key that encrypts {bucket} cannot be used"),
            Self::Locked => format!("{key} in {bucket} is locked"),
            Self::Answer => format!("{operation} {key} in {bucket} failed"),
        }
    }

    fn now(self, cloud: Cloud) -> &'static str {
        match (self, cloud) {
            (Self::NoBucket, Cloud::Azure) => {
                "check container, account and endpoint in the store's URL; create the container if it is a new one"
            }
            (Self::NoBucket, _) => {
                "check bucket, region and endpoint in the store's URL; create the bucket if it is a new one"
            }
            (Self::Region, _) => "give the store's URL the bucket's region: s3://bucket/prefix?region=…",
            (Self::NoKeys, Cloud::S3) => {
                "give the store access_key and secret_key in the inventory, or set AWS_ACCESS_KEY_ID and \
                 AWS_SECRET_ACCESS_KEY, or write them to ~/.aws/credentials"
            }
            (Self::NoKeys, Cloud::Azure) => {
                "give the store account_key or sas_token in the inventory, or set AZURE_STORAGE_ACCOUNT_KEY, or give the \
                 machine an identity"
            }
            (Self::NoKeys, Cloud::Google) => {
                "give the store service_account in the inventory, or set GOOGLE_APPLICATION_CREDENTIALS, or give the \
                 machine a service account"
            }
            (Self::Refused, Cloud::S3) => {
                "check access_key and secret_key; they must allow s3:ListBucket, s3:GetObject, and for backups s3:PutObject \
                 and s3:DeleteObject. Without s3:ListBucket even a missing object is a refusal"
            }
            (Self::Refused, Cloud::Azure) => {
                "check account_key or sas_token; a signature must allow read and list, and for backups create, write and \
                 delete. An identity needs the role Storage Blob Data Reader, and for backups Contributor"
            }
            (Self::Refused, Cloud::Google) => {
                "check service_account; it needs the role Storage Object Viewer, and for backups Storage Object Admin"
            }
            (other, _) => other.now_anywhere(),
        }
    }

    fn now_anywhere(self) -> &'static str {
        match self {
            Self::Expired => "get new ones (log in again, or a new session token), then retry",
            Self::Unreachable => {
                "check the endpoint in the store's URL, name resolution, route and firewall, then retry"
            }
            Self::Tls => {
                "check that the endpoint is the right server; add the authority that signed its certificate to this \
                 machine's trusted ones, or name it with SSL_CERT_FILE"
            }
            Self::Cut => "retry: nothing counts before it is whole and verified. If it goes on, look at the network",
            Self::Key => {
                "see whether the key is disabled or waits for its deletion, and enable it; these keys must be allowed to use it \
                 (of AWS: kms:Decrypt, and for backups kms:GenerateDataKey)"
            }
            Self::Locked => "wait until the lock has run out, or keep backups longer than it lasts (`retain`)",
            _ => "look at the server's log, then retry",
        }
    }

    /// What the clouds' documentations of error responses call these; none uses another's word for something else.
    fn of_code(code: &str) -> Option<Self> {
        Some(match code {
            "NoSuchBucket" | "ContainerNotFound" | "ContainerBeingDeleted" => Self::NoBucket,
            "PermanentRedirect" | "AuthorizationHeaderMalformed" | "IllegalLocationConstraintException" => Self::Region,
            "ExpiredToken" | "ExpiredTokenException" | "TokenRefreshRequired" | "RequestExpired" => Self::Expired,
            "AccessDenied"
            | "InvalidAccessKeyId"
            | "SignatureDoesNotMatch"
            | "InvalidToken"
            | "AllAccessDisabled"
            | "AccountProblem"
            | "RequestTimeTooSkewed"
            | "InvalidSecurity"
            | "NotSignedUp"
            | "AuthFailure"
            | "AuthenticationFailed"
            | "AuthorizationFailure"
            | "AuthorizationPermissionMismatch"
            | "AuthorizationProtocolMismatch"
            | "AuthorizationResourceTypeMismatch"
            | "AuthorizationServiceMismatch"
            | "AuthorizationSourceIPMismatch"
            | "InsufficientAccountPermissions"
            | "InvalidAuthenticationInfo"
            | "NoAuthenticationInformation"
            | "AccountIsDisabled"
            | "PublicAccessNotPermitted"
            | "UserProjectAccountProblem"
            | "UserProjectInconsistent"
            // Of Azure, of one of many that are deleted at once: a status in a code's place.
            | "401"
            | "403" => Self::Refused,
            "RetentionPolicyNotMet" | "ObjectUnderActiveHold" | "BlobImmutableDueToPolicy" => Self::Locked,
            // Of AWS `KMS.DisabledException` and its like, of Azure `KeyVault…`.
            code if code.starts_with("KMS") || code.starts_with("KeyVault") => Self::Key,
            _ => return None,
        })
    }
}

impl StoreError {
    /// A definite "not there", as against everything that may pass.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::NotFound { .. })
    }

    /// No answer came.
    pub(super) fn is_of_the_network(&self) -> bool {
        matches!(self, Self::Cloud { trouble: Trouble::Unreachable | Trouble::Tls | Trouble::Cut, .. })
    }

    /// The provider keeps what is there, whoever asks.
    pub(super) fn is_locked(&self) -> bool {
        matches!(self, Self::Cloud { trouble: Trouble::Locked, .. })
    }

    /// The keys may not do this, as against everything that keeps it from being told.
    pub fn is_refused(&self) -> bool {
        match self {
            Self::Cloud { trouble, .. } => *trouble == Trouble::Refused,
            Self::Io { source, .. } => denied(source),
            _ => false,
        }
    }

    /// What to do now, when that is known.
    pub fn now(&self) -> Option<&'static str> {
        match self {
            Self::Cloud { cloud, trouble, .. } => Some(trouble.now(*cloud)),
            Self::BadUrl(error) => Some(error.hint),
            Self::Sealed { why, .. } => Some(why.now()),
            Self::Keys { cloud, .. } => Some(Given::expected(*cloud)),
            Self::Url { .. } => {
                Some("check the store's URL in the inventory, and that the directory is there and mounted")
            }
            _ => None,
        }
    }

    /// What the error of a bucket behind a network means.
    pub(super) fn cloud(
        cloud: Cloud,
        operation: &'static str,
        bucket: String,
        key: String,
        error: &object_store::Error,
    ) -> Self {
        let text = error.to_string();
        // What is deleted is answered object by object, and told in another way.
        let code = between(&text, "<Code>", "</Code>").or_else(|| between(&text, "(code: ", ")"));
        let trouble = match &text {
            // Azure, of one of many that are deleted at once.
            text if text.contains("immutable due to a policy") => Some(Trouble::Locked),
            // Ceph, with the code of wrong keys.
            text if text.contains("Failed to retrieve the actual key") => Some(Trouble::Key),
            _ => code.and_then(Trouble::of_code),
        };
        let (trouble, why) = match (error, trouble) {
            (_, Some(trouble)) => {
                let said = between(&text, "<Message>", "</Message>").unwrap_or_default();
                (trouble, format!("the server says {}: {said}", code.unwrap_or_default()))
            }
            (object_store::Error::NotFound { .. }, None) => return Self::NotFound { bucket, key },
            (object_store::Error::AlreadyExists { .. }, None) => return Self::Exists { bucket, key },
            (object_store::Error::PermissionDenied { .. } | object_store::Error::Unauthenticated { .. }, None) => {
                (Trouble::Refused, "the server says no, and gives no reason".to_owned())
            }
            _ if METADATA.iter().any(|place| text.contains(place)) => {
                let looked = "neither in the inventory nor in the environment nor in this machine's own files, and it has no \
                              role";
                (Trouble::NoKeys, looked.to_owned())
            }
            _ if text.contains("redirect without LOCATION") => {
                (Trouble::Region, "the server sends elsewhere, and does not say where".to_owned())
            }
            _ => match http(error) {
                Some((kind, chain)) => (network(kind, &chain), chain),
                None => (Trouble::Answer, answer(&text)),
            },
        };
        Self::Cloud { cloud, operation, bucket, key, trouble, why }
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        let now = error.now().map(str::to_owned);
        let failure = match error {
            StoreError::Cloud { operation, bucket, key, trouble, why, .. } => {
                Self::new(trouble.what(operation, &bucket, &key), why)
            }
            StoreError::BadUrl(BadUrl { message, .. }) => Self::new("the store cannot be opened", message),
            StoreError::Keys { bucket, path, why, .. } => {
                Self::new(format!("the keys for {bucket} cannot be read from {}", path.display()), why)
            }
            StoreError::Sealed { bucket, key, why } => Self::new(format!("{key} in {bucket} cannot be read"), why),
            error @ StoreError::Url { .. } => Self::new("the store cannot be opened", error),
            error => Self::new("the bucket did not do what was asked", error),
        };
        Self { now, ..failure }
    }
}

/// By the file system.
fn denied(error: &object_store::Error) -> bool {
    let mut source: Option<&dyn std::error::Error> = Some(error);
    while let Some(cause) = source {
        if cause
            .downcast_ref::<std::io::Error>()
            .is_some_and(|error| error.kind() == std::io::ErrorKind::PermissionDenied)
        {
            return true;
        }
        source = cause.source();
    }
    false
}

/// The transport's error beneath, and its causes in one line.
fn http(error: &object_store::Error) -> Option<(HttpErrorKind, String)> {
    let mut source = error.source();
    while let Some(inner) = source {
        if let Some(http) = inner.downcast_ref::<HttpError>() {
            let mut chain: Vec<String> = Vec::new();
            let mut cause = http.source();
            while let Some(inner) = cause {
                let text = inner.to_string();
                if !chain.iter().any(|before| before.contains(&text)) {
                    chain.push(text);
                }
                cause = inner.source();
            }
            return Some((http.kind(), chain.join(": ")));
        }
        source = inner.source();
    }
    None
}

fn network(kind: HttpErrorKind, chain: &str) -> Trouble {
    match kind {
        HttpErrorKind::Connect if chain.contains("certificate") => Trouble::Tls,
        HttpErrorKind::Connect => Trouble::Unreachable,
        HttpErrorKind::Timeout if chain.contains("connect") => Trouble::Unreachable,
        _ => Trouble::Cut,
    }
}

/// A server's answer without the crate's account of its tries, on one line of bearable length.
fn answer(text: &str) -> String {
    let text = text.split_once(" - ").map_or(text, |(_, answer)| answer);
    let line: String = text.split_whitespace().collect::<Vec<_>>().join(" ");
    line.chars().take(300).collect()
}

fn between<'a>(text: &'a str, start: &str, end: &str) -> Option<&'a str> {
    text.split_once(start)?.1.split_once(end).map(|(inside, _)| inside)
}
