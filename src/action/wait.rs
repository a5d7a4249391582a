use std::time::Duration;

use futures::future::BoxFuture;

use crate::event::{Outcome, Progress, Unit};

use super::{Action, Context, confirm::cancelled};

/// `wait`: lets time pass, visibly.
pub struct Wait {
    pub duration: Duration,
}

impl Action for Wait {
    fn run(&self, context: Context) -> BoxFuture<'_, Outcome> {
        Box::pin(async move {
            let total = self.duration.as_secs();
            let began = context.clock.now().boot;
            loop {
                let spent = context.clock.now().boot.saturating_sub(began);
                let Some(left) = self.duration.checked_sub(spent).filter(|left| !left.is_zero()) else {
                    return Outcome::passed(format!("waited {}", humantime::format_duration(self.duration)));
                };
                let progress = Progress {
                    lane: "wait".to_owned(),
                    done: spent.as_secs(),
                    total: Some(total),
                    unit: Unit::Seconds,
                    position: None,
                    rate: None,
                    eta_seconds: Some(left.as_secs_f64()),
                };
                context.sink.progress(progress).await;
                tokio::select! {
                    () = context.clock.sleep(left.min(Duration::from_secs(1))) => {}
                    () = context.cancel.cancelled() => return cancelled(),
                }
            }
        })
    }
}
