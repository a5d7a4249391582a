use futures::future::BoxFuture;

use crate::event::{Answer, Ask, Choice, Outcome};

use super::{Action, Context, confirm::cancelled};

/// `choose`: the person picks one of the options, which becomes a variable.
pub struct Choose {
    pub variable: String,
    pub prompt: Option<String>,
    /// (value, label)
    pub options: Vec<(String, String)>,
    pub default: Option<String>,
}

impl Action for Choose {
    fn run(&self, context: Context) -> BoxFuture<'_, Outcome> {
        Box::pin(async move {
            let options = self.options.iter().map(|(value, label)| Choice {
                value: value.clone(),
                label: context.expand(label),
                detail: None,
            });
            let ask = Ask::Choose {
                prompt: context.expand(self.prompt.as_deref().unwrap_or(&context.step().title)),
                options: options.collect(),
                default: self.default.clone(),
            };
            let Some(Answer::Chosen { value }) = context.ask(ask).await else { return cancelled() };
            let label = self.options.iter().find(|(known, _)| *known == value).map_or(&value, |(_, label)| label);
            context.sink.set(&self.variable, value.clone()).await;
            Outcome::passed(format!("{}: {label}", self.variable)).fact("value", value.clone())
        })
    }
}
