//! Reads WAL itself, without a server: what committed, what was dropped and deleted, and where it ends or is damaged.
//!
//! A [`Walk`] over a [`Source`] tells, segment by segment and in order, the [`Fact`]s of its records. Each segment is
//! scanned alone, so on several threads ([`scan`]); then [`join`] puts together the records that cross borders and adds up
//! what transactions did. PostgreSQL 13 to 18.
//!
//! ```text
//! page → record → xact, xlog → Fact      scan: one segment        join: State, Joined        walk: Step
//! ```

mod damage;
mod fact;
mod join;
mod page;
mod record;
mod scan;
mod source;
mod tally;
mod walk;
mod xact;
mod xlog;

pub use damage::{Damage, Flaw};
pub use fact::{Abort, Checkpoint, Commit, Counts, Fact, Lock, Parameters, Prepared, Relation, RelationCounts, Work};
pub use join::{Joined, Open, PreparedAs, State};
pub use page::Version;
pub use source::{Listed, Source};
pub(super) use walk::missing;
pub use walk::{Step, Walk};

#[cfg(test)]
mod tests;
