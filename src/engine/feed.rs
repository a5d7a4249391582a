//! Who watches: every durable envelope goes to all, and one who fell behind takes a snapshot and goes on from there.

use std::sync::{Arc, RwLock};

use tokio::sync::broadcast;

use crate::drill::DrillState;
use crate::event::Envelope;

/// Envelopes kept for a watcher that is slow.
const BACKLOG: usize = 1024;

/// The published side of a drill. Cheap to clone.
#[derive(Clone)]
pub struct Feed {
    state: Arc<RwLock<DrillState>>,
    envelopes: broadcast::Sender<Arc<Envelope>>,
}

impl Feed {
    pub(super) fn new(state: DrillState) -> Self {
        Self { state: Arc::new(RwLock::new(state)), envelopes: broadcast::channel(BACKLOG).0 }
    }

    /// The state now, and every envelope after it.
    pub fn subscribe(&self) -> (DrillState, broadcast::Receiver<Arc<Envelope>>) {
        // The lock is held over both, so that no envelope falls between them.
        let state = self.state.read().expect("the feed's lock");
        (state.clone(), self.envelopes.subscribe())
    }

    /// The state now, for a view: it does not keep the stream of envelopes open.
    pub fn look(&self) -> Arc<dyn Fn() -> DrillState + Send + Sync> {
        let state = Arc::clone(&self.state);
        Arc::new(move || state.read().expect("the feed's lock").clone())
    }

    pub fn snapshot(&self) -> DrillState {
        self.state.read().expect("the feed's lock").clone()
    }

    pub(super) fn read<T>(&self, look: impl FnOnce(&DrillState) -> T) -> T {
        look(&self.state.read().expect("the feed's lock"))
    }

    pub(super) fn publish(&self, envelope: Envelope) {
        let mut state = self.state.write().expect("the feed's lock");
        state.apply(&envelope);
        // No receiver: nobody watches, which is fine.
        let _ = self.envelopes.send(Arc::new(envelope));
    }
}
