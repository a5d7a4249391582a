//! What the provider of a bucket does for what lies in it, by looking: each answer was given by the server, or is unknown with
//! the reason.

use chrono::{DateTime, Utc};
use object_store::PutPayload;
use serde::Serialize;

use super::{Bucket, Opener, StoreError, azure_settings, google_settings, s3_settings};

/// What was seen, or why it could not be.
pub type Seen<T> = Result<T, String>;

/// The settings of a bucket, and what they came to on its newest object.
#[derive(Debug, Clone, PartialEq)]
pub struct Protection {
    /// By default, of what is written; `None`: not at all.
    pub encryption: Seen<Option<ProviderEncryption>>,
    /// Of what is deleted or overwritten.
    pub versions: Seen<Kept>,
    /// By default, of what is written; `None`: nothing is locked.
    pub lock: Seen<Option<Lock>>,
    /// What the provider deletes or moves by itself.
    pub lifecycle: Seen<Vec<Rule>>,
    pub public: Seen<Exposure>,
    pub newest: Seen<Option<Newest>>,
    /// The provider's own copy in another place; `None` where there is none, or it is not told here.
    pub elsewhere: Option<Elsewhere>,
}

impl Protection {
    /// Nothing could be seen, because of this.
    pub(super) fn unknown(why: String) -> Self {
        Self {
            encryption: Err(why.clone()),
            versions: Err(why.clone()),
            lock: Err(why.clone()),
            lifecycle: Err(why.clone()),
            public: Err(why.clone()),
            newest: Err(why),
            elsewhere: None,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProviderEncryption {
    /// As the provider calls it: `AES256`, `aws:kms`.
    pub algorithm: String,
    /// Of the key service; absent when the provider's own is used.
    pub key: Seen<Option<String>>,
}

/// What becomes of what is deleted or overwritten.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    Not,
    /// It stays as an older version.
    Versions,
    /// It can be brought back for so many days.
    Days(u32),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Elsewhere {
    /// Whatever is written is kept in more than one region from the start; in these words.
    Regions(String),
    /// What was written before this moment is in the second region.
    Until(DateTime<Utc>),
}

/// Write once, read many.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lock {
    /// As the provider calls it: `COMPLIANCE`; absent when locks are possible and none is set by default.
    pub mode: Option<String>,
    /// Can somebody who has the right to it delete all the same?
    pub may_be_lifted: bool,
    pub days: Option<u32>,
}

/// One rule that is switched on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    pub name: String,
    /// Of the keys that it is for.
    pub prefix: String,
    /// It is only for objects of some tags or sizes.
    pub narrowed: bool,
    /// Deletes, so many days after the write.
    pub expires_days: Option<u32>,
    /// Moves to another class: (days, class).
    pub moves: Vec<(u32, String)>,
    /// Removes the parts of uploads that were never finished.
    pub aborts_uploads: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exposure {
    /// By a policy or a list of grants, in these words; empty when it is not.
    pub open_to: Vec<String>,
    /// Can nobody open it, whatever they grant?
    pub blocked: bool,
}

/// The newest of the objects that were asked about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Newest {
    pub key: String,
    pub encryption: Option<ProviderEncryption>,
    pub locked_until: Option<DateTime<Utc>>,
    /// `None` is the one that answers at once.
    pub class: Option<String>,
}

/// What the keys at hand may do besides reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Rights {
    pub write: bool,
    /// Not known where a lock keeps even what was tried.
    pub delete: Option<bool>,
    /// Does the server refuse to create what is there, when told to? Not known where nothing may be written.
    pub creates_once: Option<bool>,
}

/// Written and deleted to see whether that is allowed; never anything else.
const PROBE: &str = "probe/rights";

impl Bucket {
    /// Looks. `newest` is the key of an object whose own protection is looked at. Nothing is changed.
    pub async fn protection(&self, newest: Option<&str>) -> Protection {
        match &self.opener {
            Some(Opener::S3(provider)) => s3_settings::look(self, provider, newest).await,
            Some(Opener::Azure(provider, _)) => azure_settings::look(self, provider, newest).await,
            Some(Opener::Google(provider, _)) => google_settings::look(self, provider, newest).await,
            None => Protection::unknown(
                "it is a directory of this machine: its disk and whoever runs the machine decide".to_owned(),
            ),
        }
    }

    /// Tries both, on an object of its own. The error is what keeps either from being told.
    pub async fn rights(&self) -> Result<Rights, StoreError> {
        let told = |result: Result<(), StoreError>| match result {
            Ok(()) => Ok(true),
            Err(error) if error.is_refused() => Ok(false),
            // It is there since a look by keys that may write and not delete; and S3 alone says nothing of what is missing.
            Err(StoreError::Exists { .. } | StoreError::NotFound { .. }) => Ok(true),
            Err(error) => Err(error),
        };
        let mut creates_once = None;
        let mut write = true;
        // What the first leaves, the others may not write over. Somebody else who looks may delete it in between, once.
        for _ in 0..3 {
            match self.put_new(PROBE, PutPayload::new()).await {
                Err(StoreError::Exists { .. }) => creates_once = Some(true),
                // It is there, by the first or since an earlier look, and is not written over.
                Err(error) if error.is_locked() || (creates_once.is_some() && error.is_refused()) => {
                    creates_once = Some(true);
                }
                result => {
                    write = told(result)?;
                    creates_once = write.then_some(false);
                }
            }
            if !write || creates_once == Some(true) {
                break;
            }
        }
        let delete = match self.delete(PROBE).await {
            Err(error) if error.is_locked() => None,
            result => Some(told(result)?),
        };
        Ok(Rights { write, delete, creates_once })
    }
}
