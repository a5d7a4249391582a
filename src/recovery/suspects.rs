//! Which transactions may be the damage.

use std::collections::BTreeMap;

use super::tables::Tables;
use crate::event::{Deed, Suspect, What};
use crate::system::postgres::wal;
use crate::system::postgres::wal::read::{Relation, Work};

/// Suspects that are told.
const MOST: usize = 64;

/// Files below it belong to the system's own catalogues.
const FIRST_NORMAL: u32 = 16_384;

/// A commit that dropped, emptied or rewrote a table, or changed many rows of one; `commits_before` were before it.
pub fn suspect(commit: &wal::Suspect, commits_before: u64, names: &Tables) -> Option<Suspect> {
    let mut deeds: BTreeMap<(What, String), u64> = BTreeMap::new();
    let mut add = |what, table: String, count| *deeds.entry((what, table)).or_default() += count;
    let user = |relation: &&Relation| relation.number >= FIRST_NORMAL;
    // TRUNCATE makes a file for each that goes, and no row: a new relation, or one written anew, has rows in the catalogues.
    let made = commit.work.created.len();
    let what = match (made, commit.work.counts.inserts) {
        (0, _) => What::Drops,
        (_, 0) if made as u64 >= commit.dropped_in_all => What::Truncates,
        _ => What::Rewrites,
    };
    let dropped: Vec<&Relation> = commit.dropped.iter().filter(user).collect();
    let named = dropped.iter().any(|relation| names.table(relation).is_some());
    for relation in dropped {
        match names.table(relation) {
            Some(table) => add(what, table.to_owned(), 1),
            // Indexes, sequences and TOAST of a table that has a name say nothing more.
            None if named => {}
            None => add(what, relation.to_string(), 1),
        }
    }
    for relation in commit.work.emptied.iter().filter(user) {
        add(What::Truncates, names.table(relation).map_or_else(|| relation.to_string(), str::to_owned), 1);
    }
    for entry in commit.work.relations.iter().filter(|entry| entry.relation.number >= FIRST_NORMAL) {
        // Rows of an index or of TOAST are told with their table's.
        let Some(table) = names.rows_of(&entry.relation) else { continue };
        for (what, count) in [(What::Deletes, entry.counts.deletes), (What::Updates, entry.counts.updates)] {
            if count >= Work::NOTABLE {
                add(what, table.clone(), count);
            }
        }
    }
    if deeds.is_empty() {
        return None;
    }
    let mut deeds: Vec<Deed> = deeds.into_iter().map(|((what, table), count)| Deed { what, table, count }).collect();
    deeds.sort_by_key(|deed| (deed.what, std::cmp::Reverse(deed.count)));
    Some(Suspect { xid: commit.xid, at: commit.time, lsn: commit.lsn, deeds, commits_before })
}

/// The gravest so far.
#[derive(Default)]
pub struct Suspects {
    found: Vec<Suspect>,
}

impl Suspects {
    pub fn push(&mut self, suspect: Suspect) {
        self.found.push(suspect);
        if self.found.len() >= 2 * MOST {
            self.keep();
        }
    }

    fn keep(&mut self) {
        self.found.sort_by_key(|suspect| std::cmp::Reverse(gravity(suspect)));
        self.found.truncate(MOST);
    }

    /// By LSN.
    pub fn finish(mut self) -> Vec<Suspect> {
        self.keep();
        self.found.sort_by_key(|suspect| suspect.lsn);
        self.found
    }
}

fn gravity(suspect: &Suspect) -> u64 {
    suspect.deeds.iter().fold(0, |sum, deed| {
        sum + match deed.what {
            What::Drops | What::Truncates => 1 << 40,
            What::Rewrites => 1 << 30,
            What::Deletes => deed.count * 2,
            What::Updates => deed.count,
        }
    })
}
