//! The WAL archive: `archive_command` is `lifeboat wal push`, `restore_command` is `lifeboat wal fetch`.
//!
//! ```text
//! archive.json                                    whose WAL this is; written once, by the first push
//! wal/00000001/000000010000000000000004.zst       a segment
//! wal/00000002/00000002.history                   where a timeline came from
//! wal-index/                                      what the segments say; a cache
//! ```

mod archive;
mod command;
mod fetch;
mod frame;
mod index;
mod name;
mod push;
pub mod read;
mod stage;
mod supply;
mod survey;

pub(super) use archive::read_id;
pub use archive::{ARCHIVE, ArchiveId, Location, WalError, repack};
pub use command::{archive_command, restore_command};
pub use fetch::{Fetch, Fetched, Origin};
pub use frame::Compression;
pub use index::{BadIndex, CommitAt, Ends, FOLDER as INDEXES, Index, Pace, Span, Stored, Summary, Suspect};
pub use name::{BadSegment, Header, Segment, WalFile};
pub use push::{Pushed, push};
pub(super) use stage::{Counters, Stager, Window, missing_in};
pub use supply::Supply;
pub use survey::{Found, Indexes, Survey, Surveyed};
