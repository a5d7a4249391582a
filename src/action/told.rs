//! Facts of the room `recovery`, told line by line and gathered into an outcome.

use crate::event::{Check, Failure, Outcome};
use crate::recovery::health::{Fact, Judgement};

use super::context::Sink;

/// What was told so far. What is unknown is told and fails nothing.
#[derive(Default)]
pub struct Told {
    checks: Vec<Check>,
    broken: Vec<String>,
    pub unknown: usize,
    /// What to do about the first that is broken.
    advice: Option<String>,
}

impl Told {
    /// Tells a fact, under this name.
    pub async fn tell(&mut self, sink: &Sink, name: String, fact: &Fact) {
        let word = match fact.judgement {
            Judgement::Ok => "ok",
            Judgement::Unknown => "unknown",
            Judgement::Missed | Judgement::Failed => "FAILED",
        };
        sink.say(format!("{word:<7} {name}: {}", fact.says)).await;
        if fact.judgement == Judgement::Unknown {
            self.unknown += 1;
            return;
        }
        if !fact.is_fine() {
            self.broken.push(format!("{name}: {}", fact.says));
            self.advice = self.advice.take().or_else(|| fact.now.clone());
        }
        self.checks.push(Check { name, passed: fact.is_fine(), detail: fact.says.clone() });
    }

    /// `fine` is the summary when nothing is broken; otherwise the step has failed with `what`, and `advice` is for a fact
    /// that has none of its own. Facts: `broken`, `unknown`.
    pub fn outcome(self, fine: String, what: String, advice: &str) -> Outcome {
        let mut outcome = match self.broken.is_empty() {
            true => Outcome::passed(fine),
            false => Outcome::failed(
                Failure::new(what, self.broken.join("; ")).now(self.advice.unwrap_or_else(|| advice.to_owned())),
            ),
        };
        outcome.checks = self.checks;
        outcome.fact("broken", self.broken.len()).fact("unknown", self.unknown)
    }
}
