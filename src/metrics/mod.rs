//! Numbers for Prometheus, and what is alarming about them: backups, WAL, snapshots and stores as [`recovery::health`]
//! judges them, jobs and drills as their journals tell.
//!
//! A value is absent where nobody knows it; a rule on an absent value does not fire, so what must not be absent has a rule
//! of its own. Ages are left to Prometheus where they grow while nobody looks: it gets the moment, not the age.
//!
//! [`recovery::health`]: crate::recovery::health

mod alerts;
mod collect;
mod page;
mod publish;
pub mod rules;

pub use alerts::{alerts, of_proof, of_run, of_stores};
pub use collect::{Looking, Snapshot, collect};
pub use page::page;
pub use publish::{Gateway, push, write_textfile};

/// A dashboard for Grafana.
pub const DASHBOARD: &str = include_str!("dashboard.json");
