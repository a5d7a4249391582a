use futures::future::BoxFuture;

use crate::event::{Answer, Ask, Failure, Outcome, Status};

use super::{Action, Context};

/// `confirm`: a person looks or does something, and says so.
pub struct Confirm;

impl Action for Confirm {
    fn run(&self, context: Context) -> BoxFuture<'_, Outcome> {
        Box::pin(async move {
            let sentence = context.expand(&context.step().title);
            match context.ask(Ask::Confirm { sentence: sentence.clone() }).await {
                Some(Answer::Yes) => Outcome::passed(format!("{} said yes", context.operator)),
                Some(Answer::No { reason }) => Outcome::failed(
                    Failure::new(format!("{} said no to “{sentence}”", context.operator), reason)
                        .now("Put it right and retry, or skip the step with a reason."),
                ),
                _ => cancelled(),
            }
        })
    }
}

/// What a step leaves that was ended before it was done.
pub(super) fn cancelled() -> Outcome {
    Outcome { status: Status::Cancelled, ..Outcome::failed(Failure::new("ended before it was done", "cancelled")) }
}
