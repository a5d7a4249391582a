//! Answers without a person: `--headless` with `--yes` and `--answers FILE`.

use std::collections::BTreeMap;

use crate::event::{Answer, Ask};
use crate::mutant;

/// What a drill without a person may answer by itself.
#[derive(Debug, Clone, Default)]
pub struct Unattended {
    /// Says yes to gates and confirmations that destroy nothing.
    pub yes: bool,
    /// Types the names of targets by itself: only where every target is a sandbox's.
    pub sandbox: bool,
    /// Answers by step id: a typed name, a text, a value, a recovery target, `yes`.
    pub answers: BTreeMap<String, String>,
}

/// How a question without a person ends.
#[derive(Debug, Clone, PartialEq)]
pub enum Reply {
    Answer(Answer),
    /// Only a person can answer.
    NeedsPerson {
        why: String,
    },
}

impl Unattended {
    /// What [`Unattended::reply`] takes its answer from.
    pub fn source(&self, step: &str, ask: &Ask) -> &'static str {
        match ask {
            Ask::AfterFailure { .. } => "nobody to ask",
            _ if self.answers.contains_key(step) => "--answers",
            Ask::Input { .. } | Ask::Choose { .. } => "the default",
            _ => "--yes",
        }
    }

    pub fn reply(&self, step: &str, ask: &Ask) -> Reply {
        let given = self.answers.get(step);
        let needs = |why: &str| Reply::NeedsPerson { why: why.to_owned() };
        match ask {
            Ask::Go { .. } | Ask::Confirm { .. } => match given.map(String::as_str) {
                Some("yes" | "y") => Reply::Answer(Answer::Yes),
                Some(other) => Reply::Answer(Answer::No { reason: format!("the answers file says: {other}") }),
                None if self.yes => Reply::Answer(Answer::Yes),
                None => needs("it asks for a confirmation; pass --yes or answer it in --answers"),
            },
            Ask::TypeName { name, .. } => match given {
                Some(typed) => Reply::Answer(Answer::Typed { name: typed.clone() }),
                None if self.yes && self.sandbox => Reply::Answer(Answer::Typed { name: name.clone() }),
                None => needs("it destroys something; --yes is not enough, name the target in --answers"),
            },
            Ask::Input { default, .. } => match given.cloned().or_else(|| default.clone().filter(|d| !d.is_empty())) {
                Some(text) => Reply::Answer(Answer::Text { text }),
                None => needs("it asks for a value that has no default; give it in --answers or with --var"),
            },
            Ask::Choose { prompt, default, options } => match given.or(default.as_ref()) {
                Some(value) => Reply::Answer(Answer::Chosen { value: value.clone() }),
                None => {
                    let values: Vec<&str> = options.iter().map(|option| option.value.as_str()).collect();
                    needs(&format!("{prompt}; choose {} in --answers", values.join(" or ")))
                }
            },
            Ask::RecoveryPoint { suggested, .. } => match (given, suggested) {
                // The action works out the point, or says why it cannot.
                (Some(target), _) => Reply::Answer(Answer::Text { text: target.clone() }),
                (None, Some(point)) if self.yes => Reply::Answer(Answer::Point { point: point.clone() }),
                (None, _) => needs("it asks for the recovery point; give a target in --answers"),
            },
            Ask::AfterFailure { .. } => Reply::Answer(Answer::Stop),
            Ask::InDoubt { .. } if mutant::removes("23") => Reply::Answer(Answer::Retry),
            Ask::InDoubt { .. } => needs("it had started when the program ended, and nobody knows whether it happened"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn destroys() -> Ask {
        Ask::TypeName { name: "orders-db".into(), sentence: "fence".into(), loss: "writes".into() }
    }

    #[test]
    fn yes_alone_never_destroys() {
        let unattended = Unattended { yes: true, ..Unattended::default() };
        assert!(matches!(unattended.reply("fence", &destroys()), Reply::NeedsPerson { .. }));
        let sandbox = Unattended { sandbox: true, ..unattended };
        assert_eq!(sandbox.reply("fence", &destroys()), Reply::Answer(Answer::Typed { name: "orders-db".into() }));
    }

    #[test]
    fn a_named_target_is_an_answer() {
        let answers = [("fence".to_owned(), "orders-db".to_owned())].into();
        let unattended = Unattended { answers, ..Unattended::default() };
        assert_eq!(unattended.reply("fence", &destroys()), Reply::Answer(Answer::Typed { name: "orders-db".into() }));
        assert_eq!(unattended.source("fence", &destroys()), "--answers");
        assert_eq!(unattended.source("other", &destroys()), "--yes");
    }

    #[test]
    fn what_is_in_doubt_needs_a_person() {
        let unattended = Unattended { yes: true, sandbox: true, ..Unattended::default() };
        assert!(matches!(unattended.reply("x", &Ask::InDoubt { why: String::new() }), Reply::NeedsPerson { .. }));
    }
}
