use futures::future::BoxFuture;

use crate::event::{Failure, Outcome};
use crate::inventory::NotifySink;
use crate::notify::{Alert, Message, Status, deliver};
use crate::process::Spec;
use crate::runbook::NotifyTo;

use super::command::{execute, with_variables};
use super::{Action, Context, confirm::cancelled};

/// `notify`: a message to a sink of the inventory, or to a command on standard input.
pub struct Notify {
    pub to: NotifyTo,
    pub message: Option<String>,
}

impl Action for Notify {
    fn run(&self, context: Context) -> BoxFuture<'_, Outcome> {
        Box::pin(async move {
            let message = context.expand(self.message.as_deref().unwrap_or(&context.step().title));
            let result = match &self.to {
                NotifyTo::Sink(sink) => tell(sink, &message, &context).await,
                NotifyTo::Command(argv) => run(argv, &message, &context).await,
            };
            let mut outcome = result.unwrap_or_else(Outcome::failed);
            if outcome.failure.is_none() {
                outcome.summary = format!("told: {message}");
            }
            outcome
        })
    }
}

async fn run(argv: &[String], message: &str, context: &Context) -> Result<Outcome, Failure> {
    let argv = argv.iter().map(|item| context.expand_strictly(item)).collect::<Result<Vec<String>, Failure>>()?;
    let (program, args) = argv.split_first().ok_or_else(|| Failure::new("an empty command", "notify has no argv"))?;
    let spec = Spec::new(program).args(args).stdin(format!("{message}\n"));
    Ok(execute(with_variables(spec, context), context).await)
}

/// What a step says is no alert that lasts: it is sent once, and nothing resolves it.
async fn tell(sink: &str, message: &str, context: &Context) -> Result<Outcome, Failure> {
    let name = context.expand_strictly(sink)?;
    let sink = context.inventory.notify.get(&name).ok_or_else(|| {
        Failure::new("nobody can be told", format!("the inventory has no [notify.{name}]"))
            .now("Add it to the inventory, or correct the name in the runbook.")
    })?;
    let message = Message::new(alert(sink, message, context), Status::Firing, sink);
    let hidden = context.inventory.secret_variables();
    let delivery = tokio::select! {
        delivery = deliver(sink, &message, &hidden, &context.redactor) => delivery,
        () = context.cancel.cancelled() => return Ok(cancelled()),
    };
    match delivery.failure {
        Some(failure) => Err(failure),
        None => Ok(Outcome::passed("").fact("sink", name)),
    }
}

fn alert(sink: &NotifySink, message: &str, context: &Context) -> Alert {
    let mut environments: Vec<&str> = context
        .bindings
        .values()
        .filter_map(|name| Some(context.inventory.systems.get(name)?.environment.as_str()))
        .collect();
    environments.sort_unstable();
    environments.dedup();
    let why = format!("{} of {}, by {}", context.mode.word(), context.runbook.title, context.operator);
    Alert {
        name: "LifeboatRunbook".to_owned(),
        service: context.inventory.service.clone(),
        environment: environments.join(", "),
        subject: format!("{}/{}", context.drill, context.step().id),
        // A sink that takes only what is severe takes what a runbook says to it by name.
        severity: sink.at_least,
        failure: Failure::new(message, why),
    }
}
