//! Where WAL is got from, one file after the other.

use std::sync::Arc;

use bytes::Bytes;

use super::archive::{WalError, read_id, read_stored, unpack};
use super::name::{Header, WalFile};
use crate::store::{Bucket, StoreError};
use crate::system::postgres::engine::Reader;

/// An archive by `lifeboat wal push`, or another program's.
#[derive(Debug, Clone)]
pub enum Supply {
    Bucket(Bucket),
    Engine(Arc<Reader>),
}

impl Supply {
    /// A file as it is handed out, which [`Supply::unpack`] makes usable; `None` when it is definitely not there.
    pub(super) async fn stored(&self, file: &WalFile) -> Result<Option<Bytes>, WalError> {
        match self {
            Self::Bucket(bucket) => {
                let found = read_stored(bucket, file).await?;
                // A bucket that is not mounted is empty too, and must not look like the end of WAL.
                if found.is_none() && read_id(bucket).await?.is_none() {
                    return Err(WalError::NoArchive { bucket: bucket.name().to_owned() });
                }
                Ok(found)
            }
            Self::Engine(reader) => Ok(reader.read(&file.name()).await?.map(Bytes::from)),
        }
    }

    /// That a file which must be there is not.
    pub(super) fn missing(&self, file: &WalFile) -> WalError {
        match self {
            Self::Bucket(bucket) => StoreError::NotFound { bucket: bucket.name().to_owned(), key: file.key() }.into(),
            Self::Engine(reader) => reader.missing(&file.name()).into(),
        }
    }

    /// The content of a file that was read, checked against its name: CPU work, nothing else.
    pub(super) fn unpack(
        &self,
        file: &WalFile,
        stored: Bytes,
        system_identifier: Option<u64>,
    ) -> Result<Vec<u8>, WalError> {
        match self {
            Self::Bucket(bucket) => unpack(bucket, file, stored, system_identifier),
            Self::Engine(_) => {
                if file.is_wal() {
                    Header::check(&file.name(), &stored, system_identifier)?;
                }
                Ok(stored.into())
            }
        }
    }
}
