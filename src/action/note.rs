use futures::future::BoxFuture;

use crate::event::Outcome;

use super::{Action, Context};

/// `note`: its text goes into the record.
pub struct Note;

impl Action for Note {
    fn run(&self, context: Context) -> BoxFuture<'_, Outcome> {
        Box::pin(async move {
            let text = context.step().text.clone().unwrap_or_default();
            let first = context.expand(text.lines().find(|line| !line.trim().is_empty()).unwrap_or("noted"));
            Outcome::passed(first)
        })
    }
}
