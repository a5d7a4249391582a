//! What each running transaction has done, counted as its records go by.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use super::fact::{Counts, Relation, Work};

/// Transactions that are counted at once; a subtransaction is one too.
const MOST: usize = 1 << 16;

/// Spreads xids, which are dense, over a table.
#[derive(Default)]
pub(super) struct XidHasher(u64);

impl Hasher for XidHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("xids are hashed as u32");
    }

    fn write_u32(&mut self, xid: u32) {
        self.0 = u64::from(xid).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }
}

pub(super) type ByXid<T> = HashMap<u32, T, BuildHasherDefault<XidHasher>>;

/// Works by xid in a pool, so that a transaction costs no allocation after the first ones.
#[derive(Default)]
pub(super) struct Tally {
    slots: ByXid<usize>,
    pool: Vec<Work>,
    free: Vec<usize>,
    /// The last one asked for: runs of records are of one transaction.
    last: Option<(u32, usize)>,
    /// Changes of transactions beyond [`MOST`].
    pub uncounted: u64,
}

impl Tally {
    #[inline]
    fn slot(&mut self, xid: u32) -> Option<&mut Work> {
        let slot = match self.last {
            Some((last, slot)) if last == xid => slot,
            _ => {
                let slot = match self.slots.get(&xid) {
                    Some(slot) => *slot,
                    None if self.slots.len() == MOST => {
                        self.uncounted += 1;
                        return None;
                    }
                    None => {
                        let slot = self.free.pop().unwrap_or_else(|| {
                            self.pool.push(Work::default());
                            self.pool.len() - 1
                        });
                        self.slots.insert(xid, slot);
                        slot
                    }
                };
                self.last = Some((xid, slot));
                slot
            }
        };
        Some(&mut self.pool[slot])
    }

    #[inline]
    pub fn count(&mut self, xid: u32, relation: Relation, change: impl Fn(&mut Counts)) {
        let Some(work) = self.slot(xid) else { return };
        change(&mut work.counts);
        work.relation(relation).map(change);
    }

    pub fn created(&mut self, xid: u32, relation: Relation) {
        if let Some(work) = self.slot(xid).filter(|work| work.created.len() < Work::RELATIONS) {
            work.created.push(relation);
        }
    }

    pub fn emptied(&mut self, xid: u32, relation: Relation) {
        if let Some(work) = self.slot(xid).filter(|work| work.emptied.len() < Work::RELATIONS) {
            work.emptied.push(relation);
        }
    }

    /// Takes a transaction out, and gives its work to `with`.
    pub fn end(&mut self, xid: u32, with: impl FnOnce(&Work)) {
        let Some(slot) = self.slots.remove(&xid) else { return };
        self.last = None;
        let work = &mut self.pool[slot];
        with(work);
        work.counts = Counts::default();
        work.relations.clear();
        work.created.clear();
        work.emptied.clear();
        self.free.push(slot);
    }

    /// Nothing runs any more.
    pub fn clear(&mut self) {
        let uncounted = self.uncounted;
        *self = Self { uncounted, ..Self::default() };
    }

    /// What still runs.
    pub fn left(&self) -> impl Iterator<Item = (u32, &Work)> {
        self.slots.iter().map(|(xid, slot)| (*xid, &self.pool[*slot]))
    }
}
