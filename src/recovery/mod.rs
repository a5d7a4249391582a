//! The recovery window over all systems, and the plan for a target.
//!
//! [`collect`] looks into the buckets; everything else is pure: the same window gives the same answer, in a test, in a
//! drill, and in a replay.

mod collect;
mod cost;
mod exact;
mod exposure;
mod history;
mod lineage;
mod plan;
mod rates;
mod refusal;
mod settle;
mod suspects;
#[cfg(test)]
mod tests;

pub use collect::{Looked, bucket_of, collect, look};
pub use cost::{Cost, cost, plan_of, stops_before, tables_behind};
pub use exact::Exact;
pub use exposure::exposure;
pub use plan::{Plan, Wanted, plan};
pub use refusal::Refusal;
pub use settle::{settle, skews};
