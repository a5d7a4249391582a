use futures::future::BoxFuture;

use crate::event::{Failure, Outcome};
use crate::recovery::health::stores;

use super::told::Told;
use super::{Action, Context};

/// `store.check`: what the provider of the system's store does for the backups, by looking.
///
/// What is unknown is told and fails nothing. Facts: `broken`, `unknown`.
pub struct StoreCheck;

impl Action for StoreCheck {
    fn run(&self, context: Context) -> BoxFuture<'_, Outcome> {
        Box::pin(async move { look(&context).await.unwrap_or_else(Outcome::failed) })
    }
}

async fn look(context: &Context) -> Result<Outcome, Failure> {
    let system = context.target()?;
    let found = stores(&context.inventory, std::slice::from_ref(&system.name), context.clock.now().wall).await;
    let mut told = Told::default();
    for fact in found.iter().flat_map(|store| &store.facts) {
        told.tell(&context.sink, fact.subject.word().to_owned(), fact).await;
    }
    let fine = match told.unknown {
        0 => format!("the provider does for the store of {} what it should", system.name),
        1 => format!("nothing is wrong with the store of {} that can be seen; one thing is unknown", system.name),
        n => format!("nothing is wrong with the store of {} that can be seen; {n} things are unknown", system.name),
    };
    let what = format!("the store of {} is not protected as it should be", system.name);
    Ok(told.outcome(fine, what, "look at the bucket's settings"))
}
