//! One file a step kind. An [`Action`] gets its inputs and a sink, and returns an outcome; it never writes events.

mod context;

pub use context::{Context, Sink, SinkMessage};

use futures::future::BoxFuture;

use crate::event::Outcome;

/// A step kind at work.
pub trait Action: Send + Sync {
    /// Performs the step. Reports through the context's sink; asks through it; watches its cancellation token; says
    /// every failure in the outcome.
    fn run(&self, context: Context) -> BoxFuture<'_, Outcome>;

    /// The kind's own way back, when it has one.
    fn undo(&self, context: Context) -> Option<BoxFuture<'_, Outcome>> {
        let _ = context;
        None
    }
}
