//! Telling people: what is wrong, why, what to do now and where that is written, to each sink of the inventory.
//!
//! An alert has a key. The ledger in the state directory keeps who was told what and when: the same alert is not sent again
//! within the sink's period unless it got worse, and once it is over that is said once to whoever was told. A message that
//! could not be delivered is not in the ledger, so the next run tries again. No secret of a sink stands in an argument, a
//! log line or an error.

mod alert;
mod email;
mod http;
mod ledger;
mod program;
mod send;

pub use alert::{Alert, Message, Status};
pub use ledger::tell;
pub use send::{Delivery, deliver};
