//! The recovery window over all systems, and the plan for a target.
//!
//! [`collect`] looks into the buckets; everything else is pure: the same window gives the same answer, in a test, in a
//! drill, and in a replay.

mod archive;
mod collect;
mod cost;
mod exact;
mod exposure;
pub mod health;
mod history;
mod lineage;
mod look;
mod plan;
pub mod proof;
pub mod prune;
mod rates;
mod refusal;
pub mod rekey;
mod retention;
mod settle;
mod suspects;
mod tables;
#[cfg(test)]
mod tests;

pub use collect::{bucket_of, collect, engine_of, managed_of, repository_of};
pub use cost::{Cost, cost, counted_to, plan_of, stops_before, tables_behind};
pub use exact::Exact;
pub use exposure::exposure;
pub use look::{Looked, look};
pub use plan::{Plan, Wanted, plan};
pub use refusal::Refusal;
pub use settle::{settle, skews};
