//! Ways in which a PostgreSQL recovery goes wrong without a word, each built for real: what the usual tools (`pg_basebackup`,
//! `cp`, `recovery.signal`) make of it, and where Lifeboat stops.
//!
//! | | what is wrong | the usual way | Lifeboat |
//! |---|---|---|---|
//! | 01 | a segment is missing or damaged, the target is "latest" | promotes before it | the plan names the segment; a step that was planned before fails |
//! | 02 | a segment cannot be read just now, or the archive is not mounted | promotes before it | `wal fetch` gives 255, the server and the step fail |
//! | 03 | a promoted clone archives into its source's archive | follows the clone | two histories: a person says which |
//! | 04 | a time before the backup's end | promotes at the backup's end, the damage in it | the plan refuses it |
//! | 05 | a time without an offset, in a server of another zone | promotes hours too early | refused; `Z` and `+09:00` lead to the same rows (PostgreSQL refuses `Z`) |
//! | 06 | commits out of the order of their times, "with the commit of this time" | leaves that commit out | refused, and its number is given; any other straggler is counted |
//! | 07 | the source was given more connections after its backup | answers "paused" before the target | the step fails; where the WAL was read, the server gets what it needs |
//! | 08 | a server was promoted by hand, and took writes | `pg_controldata` says the old timeline | not promoted again, not wiped, set aside by an undo |
//! | 09 | a gap at a fork, or behind a segment that was archived late; first and last segment are there | promotes before it | the window ends at the gap |
//! | 10 | another cluster's segment, whose identifier is the same number as a float | promotes before it | not archived, not planned, not replayed |

mod command;
mod gap;
mod place;
pub mod scene;
mod server;
