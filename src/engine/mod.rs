//! The engine: [`decide`] is pure, the [`Driver`] is the one loop that changes anything.
//!
//! Operator commands, reports of running attempts, and timers are one stream of inputs. Each becomes events; an event is
//! in the journal before anyone sees it, and an attempt starts only after its `StepStarted` is durable.

mod attempt;
mod decide;
mod driver;
mod feed;
mod guard;
mod judge;
mod lease;
mod link;
mod opening;
mod redact;
mod remote;
mod resume;
mod sanitise;
mod sentence;
mod unattended;

pub use decide::{Effect, decide, next_due};
pub use driver::{Driver, EngineError, Handle, RunEnd};
pub use feed::Feed;
pub use link::{Link, LinkError};
pub use opening::{Opening, OpeningError};
pub use remote::{Left, Remote, RemoteError, Word};
pub use sentence::describe as describe_point;
pub use unattended::Unattended;

#[cfg(test)]
mod tests;
