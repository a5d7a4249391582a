use std::collections::VecDeque;

use futures::future::BoxFuture;
use indexmap::IndexMap;
use tokio::sync::mpsc;

use crate::event::{Failure, Measure, Outcome, Stream};
use crate::mutant;
use crate::process::{End, Spec};
use crate::runbook::Run;
use crate::secret::{RedactedStream, Redactor};

use super::{Action, Context, confirm::cancelled};

/// Bytes of standard output that stay at hand as facts.
const KEPT: usize = 64 * 1024;

/// `command`: a program by its argv, or a script whose variables come by environment.
///
/// Facts: `exit_code`; `stdout`, its last 64 KiB without the end's white space; and when the last line of it is a JSON
/// object, its fields as `json.<field>`. A field `measures` there holds measures in the journal's own spelling.
pub struct Command {
    pub run: Run,
    pub env: IndexMap<String, String>,
    pub cwd: Option<String>,
}

impl Action for Command {
    fn run(&self, context: Context) -> BoxFuture<'_, Outcome> {
        Box::pin(async move {
            let spec = match self.spec(&context) {
                Ok(spec) => spec,
                Err(failure) => return Outcome::failed(failure),
            };
            execute(spec, &context).await
        })
    }
}

impl Command {
    fn spec(&self, context: &Context) -> Result<Spec, Failure> {
        let mut spec = match &self.run {
            Run::Argv(argv) => {
                let argv = argv.iter().map(|item| context.expand_strictly(item)).collect::<Result<Vec<_>, _>>()?;
                let (program, args) = argv.split_first().ok_or_else(|| Failure::new("an empty command", "no argv"))?;
                Spec::new(program).args(args)
            }
            Run::Script(script) if mutant::removes("8") => {
                let paste = |script: String, name: &String| {
                    let value = context.variable(name).unwrap_or_default();
                    script.replace(&format!("$LIFEBOAT_VAR_{}", name.to_uppercase()), &value)
                };
                let pasted = context.variables.keys().fold(script.clone(), paste);
                Spec::new("/bin/sh").args(["-eu", "-c", &pasted, "script"])
            }
            // The text of the script is the runbook's alone; values reach it by environment only.
            Run::Script(script) => Spec::new("/bin/sh").args(["-eu", "-c", script, "script"]),
        };
        for (name, value) in &self.env {
            spec = spec.env(name, context.expand_strictly(value)?);
        }
        if let Some(cwd) = &self.cwd {
            spec = spec.cwd(context.expand_strictly(cwd)?);
        }
        Ok(with_variables(spec, context))
    }
}

/// Lifeboat's environment without the secrets that the inventory names, `LIFEBOAT_VAR_<NAME>` for each variable, and what
/// a program wants to know of its drill.
pub(super) fn with_variables(spec: Spec, context: &Context) -> Spec {
    let mut spec = spec.inherit_env(context.inventory.secret_variables());
    for name in context.variables.keys() {
        let value = context.variable(name).unwrap_or_default();
        let name = name.to_uppercase().replace(['-', '.'], "_");
        // An environment cannot hold a NUL byte.
        spec = spec.env(format!("LIFEBOAT_VAR_{name}"), value.replace('\0', ""));
    }
    spec.env("LIFEBOAT_DRILL", &context.drill)
        .env("LIFEBOAT_STEP", &context.step().id)
        .env("LIFEBOAT_EFFECT_KEY", &context.effect_key)
        .env("LIFEBOAT_MODE", context.mode.word())
}

/// The end of a stream. Secrets are taken out before it is cut: half a secret would not be known any more.
struct Tail {
    redacted: RedactedStream,
    kept: VecDeque<u8>,
}

impl Tail {
    fn new(redactor: &Redactor) -> Self {
        Self { redacted: redactor.stream(), kept: VecDeque::new() }
    }

    fn push(&mut self, bytes: &[u8]) {
        let safe = self.redacted.push(bytes);
        self.keep(&safe);
    }

    fn keep(&mut self, bytes: &[u8]) {
        self.kept.extend(bytes);
        let excess = self.kept.len().saturating_sub(KEPT);
        self.kept.drain(..excess);
    }

    fn text(mut self) -> String {
        let rest = self.redacted.finish();
        self.keep(&rest);
        String::from_utf8_lossy(&Vec::from(self.kept)).trim_end().to_owned()
    }
}

/// Runs a child whose output streams into the drill.
pub(super) async fn execute(spec: Spec, context: &Context) -> Outcome {
    let (sender, mut receiver) = mpsc::channel::<(Stream, Vec<u8>)>(16);
    let (mut stdout, mut stderr) = (Tail::new(&context.redactor), Tail::new(&context.redactor));
    let pass_on = async {
        while let Some((stream, bytes)) = receiver.recv().await {
            match stream {
                Stream::Err => stderr.push(&bytes),
                _ => stdout.push(&bytes),
            }
            context.sink.output(stream, bytes).await;
        }
    };
    let (end, ()) = tokio::join!(spec.stream(sender, &context.cancel, |_| {}), pass_on);
    let title = context.expand(&context.step().title);
    let end = match end {
        Ok(End::Cancelled) => return cancelled(),
        Ok(end) => end,
        Err(error) => {
            return Outcome::failed(
                Failure::new(format!("“{title}” could not run"), error)
                    .now("Install the program or correct the path in the runbook, then retry."),
            );
        }
    };
    let (stdout, stderr) = (stdout.text(), stderr.text());
    let mut outcome = match end.success() {
        true => Outcome::passed("exit code 0"),
        false => {
            let words = stderr.lines().last().or(stdout.lines().last()).unwrap_or("it said nothing").trim().to_owned();
            let how = match end {
                End::Signalled(_) => format!("was {end}"),
                _ => format!("ended with {end}"),
            };
            Outcome::failed(
                Failure::new(format!("“{title}” {how}"), words)
                    .now("Read its output, put the cause right, then retry or skip with a reason."),
            )
        }
    };
    if let End::Exited(code) = end {
        outcome = outcome.fact("exit_code", code);
    }
    if let Some(serde_json::Value::Object(fields)) =
        stdout.lines().last().and_then(|line| serde_json::from_str(line).ok())
    {
        for (name, value) in fields {
            if name == "measures" {
                match serde_json::from_value::<Vec<Measure>>(value) {
                    Ok(measures) => outcome.measures.extend(measures),
                    Err(error) => context.sink.say(format!("its `measures` cannot be read: {error}")).await,
                }
            } else {
                outcome = outcome.fact(&format!("json.{name}"), value);
            }
        }
    }
    outcome.fact("stdout", stdout)
}
