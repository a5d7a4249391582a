//! Names of the tables that transactions changed, as base backups knew them: the one before the transaction, for who is
//! dropped is not in any later one, and the newest, for who was made since.

use tokio::runtime::Handle;

use crate::event::{BaseBackup, Lsn};
use crate::store::Bucket;
use crate::system::postgres::wal::read::Relation;
use crate::system::postgres::{Names, catalogue};

/// Asks for a backup's names when the first transaction behind it comes.
pub struct Tables {
    bucket: Bucket,
    runtime: Handle,
    /// By where they end.
    backups: Vec<(Lsn, String)>,
    newest: Names,
    /// Of the backup at this place in the list.
    before: (Option<usize>, Names),
}

impl Tables {
    pub fn new(bucket: Bucket, runtime: Handle, backups: &[BaseBackup]) -> Self {
        let mut backups: Vec<(Lsn, String)> =
            backups.iter().map(|backup| (backup.stop_lsn, backup.label.clone())).collect();
        backups.sort();
        Self { bucket, runtime, backups, newest: Names::default(), before: (None, Names::default()) }
    }

    /// Goes to a transaction; blocks its thread.
    pub fn go_to(&mut self, lsn: Lsn) {
        let Some(last) = self.backups.len().checked_sub(1) else { return };
        // What is older than all of them was in none; the oldest may know it all the same.
        let at = self.backups.partition_point(|(stop, _)| *stop <= lsn).saturating_sub(1);
        if self.before.0 == Some(at) {
            return;
        }
        if self.before.0.is_none() {
            self.newest = self.names(last);
        }
        self.before = (Some(at), if at == last { Names::default() } else { self.names(at) });
    }

    /// A backup without them has none: a name is a help to read by.
    fn names(&self, at: usize) -> Names {
        self.runtime.block_on(async {
            match catalogue::manifest(&self.bucket, &self.backups[at].1).await {
                Ok(manifest) => Names::of_backup(&self.bucket, &manifest).await,
                Err(_) => Names::default(),
            }
        })
    }

    /// As [`Names::table`].
    pub fn table(&self, relation: &Relation) -> Option<&str> {
        self.before.1.table(relation).or_else(|| self.newest.table(relation))
    }

    /// As [`Names::rows_of`].
    pub fn rows_of(&self, relation: &Relation) -> Option<String> {
        let names = if self.before.1.knows(relation) { &self.before.1 } else { &self.newest };
        names.rows_of(relation)
    }
}
