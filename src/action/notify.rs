use futures::future::BoxFuture;

use crate::event::{Failure, Outcome};
use crate::process::Spec;

use super::command::{execute, with_variables};
use super::{Action, Context};

/// `notify`: a command that gets the message on standard input.
pub struct Notify {
    pub argv: Vec<String>,
    pub message: Option<String>,
}

impl Action for Notify {
    fn run(&self, context: Context) -> BoxFuture<'_, Outcome> {
        Box::pin(async move {
            let argv: Result<Vec<String>, Failure> =
                self.argv.iter().map(|item| context.expand_strictly(item)).collect();
            let argv = match argv {
                Ok(argv) => argv,
                Err(failure) => return Outcome::failed(failure),
            };
            let Some((program, args)) = argv.split_first() else {
                return Outcome::failed(Failure::new("an empty command", "notify has no argv"));
            };
            let message = context.expand(self.message.as_deref().unwrap_or(&context.step().title));
            let spec = Spec::new(program).args(args).stdin(format!("{message}\n"));
            let mut outcome = execute(with_variables(spec, &context), &context).await;
            if outcome.failure.is_none() {
                outcome.summary = format!("told: {message}");
            }
            outcome
        })
    }
}
