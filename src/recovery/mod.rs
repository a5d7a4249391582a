//! The recovery window over all systems, and the plan for a target.
//!
//! [`collect`] looks into the buckets; everything else is pure: the same window gives the same answer, in a test, in a
//! drill, and in a replay.

mod collect;
mod lineage;
mod plan;
mod refusal;
mod settle;
#[cfg(test)]
mod tests;

pub use collect::{bucket_of, collect};
pub use plan::{Plan, Wanted, plan};
pub use refusal::Refusal;
pub use settle::{settle, skews};
