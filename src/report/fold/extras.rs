//! What the state of a drill does not keep and a report tells: questions, answers, resumes, the points that were chosen.

use std::collections::BTreeMap;

use super::super::Zone;
use super::super::model::{ChosenPoint, Pause, Question, Resume, When};
use super::super::words::clean;
use super::sentences::{answer_words, ask_words, when};
use crate::drill::{DrillState, Elapsed, Moment, Split};
use crate::event::{Answer, Event, RecoveryPoint, RecoveryTarget};

/// What the report needs beyond the drill's state.
pub(super) struct Extras {
    pub(super) zone: Zone,
    pub(super) boot_id: String,
    pub(super) questions: BTreeMap<String, Vec<Question>>,
    /// Steps with a question on the table: since when.
    pub(super) open: BTreeMap<String, Moment>,
    pub(super) skips: BTreeMap<String, (Moment, String)>,
    pub(super) taken: BTreeMap<String, String>,
    /// Attempts that a crash cut off, by step and number: when that was found.
    pub(super) cut_off: BTreeMap<(String, u32), Moment>,
    pub(super) points: Vec<ChosenPoint>,
    pub(super) pauses: Vec<(Moment, Pause)>,
    pub(super) resumes: Vec<Resume>,
    pub(super) operators: Vec<String>,
    pub(super) abort: Option<(String, String)>,
    pub(super) splits: Vec<(Elapsed, Split)>,
}

impl Extras {
    pub(super) fn new(zone: Zone, boot_id: &str) -> Self {
        Self {
            zone,
            boot_id: boot_id.to_owned(),
            questions: BTreeMap::new(),
            open: BTreeMap::new(),
            skips: BTreeMap::new(),
            taken: BTreeMap::new(),
            cut_off: BTreeMap::new(),
            points: Vec::new(),
            pauses: Vec::new(),
            resumes: Vec::new(),
            operators: Vec::new(),
            abort: None,
            splits: Vec::new(),
        }
    }

    pub(super) fn when(&self, at: Moment) -> When {
        when(at, self.zone)
    }

    pub(super) fn take(&mut self, event: &Event, state: &DrillState) {
        let at = state.latest;
        self.splits.push((at.elapsed, state.split(at.elapsed)));
        match event {
            Event::Asked { step, ask } => {
                self.close(step, at);
                let question = Question {
                    question: ask_words(ask),
                    answer: None,
                    by: None,
                    asked: self.when(at),
                    waited_seconds: 0.0,
                };
                self.questions.entry(step.clone()).or_default().push(question);
                self.open.insert(step.clone(), at);
            }
            Event::Answered { step, answer, by } => self.answered(step, answer, by, at),
            Event::StepSkipped { step, by, .. } => {
                self.close(step, at);
                self.skips.insert(step.clone(), (at, clean(by)));
            }
            Event::StepStarted { step, .. } | Event::StepFinished { step, .. } => self.close(step, at),
            Event::StepInDoubt { step, attempt, .. } => {
                self.close(step, at);
                self.cut_off.insert((step.clone(), *attempt), at);
            }
            Event::VariableSet { name, value } if name == "recovery_point" => {
                if let Ok(point) = serde_json::from_value::<RecoveryPoint>(value.clone()) {
                    self.chose(point, None, at);
                }
            }
            Event::Paused { by } => {
                self.pauses.push((at, Pause { at: self.when(at), by: clean(by), seconds: None }));
            }
            Event::Unpaused { .. } => {
                if let Some((since, pause)) = self.pauses.last_mut() {
                    pause.seconds = Some(at.elapsed.saturating_sub(since.elapsed).as_secs_f64());
                }
            }
            Event::EngineStarted { boot_id, host, operator, .. } => {
                let rebooted = *boot_id != self.boot_id;
                self.boot_id.clone_from(boot_id);
                self.resumes.push(Resume { at: self.when(at), operator: clean(operator), host: clean(host), rebooted });
                self.operators.push(clean(operator));
            }
            Event::Aborted { reason, by } => self.abort = Some((clean(reason), clean(by))),
            _ => {}
        }
    }

    pub(super) fn answered(&mut self, step: &str, answer: &Answer, by: &str, at: Moment) {
        self.close(step, at);
        match answer {
            Answer::Point { point } => self.chose(point.clone(), Some(clean(by)), at),
            Answer::TakenAsDone { reason } => {
                self.taken.insert(step.to_owned(), format!("taken as done by {}: {}", clean(by), clean(reason)));
            }
            _ => {}
        }
        let asked = self.when(at);
        let questions = self.questions.entry(step.to_owned()).or_default();
        let (words, by) = (Some(answer_words(answer)), Some(clean(by)));
        match questions.last_mut().filter(|question| question.answer.is_none()) {
            Some(question) => (question.answer, question.by) = (words, by),
            None => questions.push(Question {
                question: "unasked".to_owned(),
                answer: words,
                by,
                asked,
                waited_seconds: 0.0,
            }),
        }
    }

    /// The step waits for nobody any more.
    pub(super) fn close(&mut self, step: &str, at: Moment) {
        if let Some(since) = self.open.remove(step)
            && let Some(question) = self.questions.get_mut(step).and_then(|questions| questions.last_mut())
        {
            question.waited_seconds = at.elapsed.saturating_sub(since.elapsed).as_secs_f64();
        }
    }

    pub(super) fn close_all(&mut self, at: Moment) {
        for step in self.open.keys().cloned().collect::<Vec<_>>() {
            self.close(&step, at);
        }
    }

    /// The answer and the variable set from it say the same; it is one choice.
    pub(super) fn chose(&mut self, point: RecoveryPoint, by: Option<String>, at: Moment) {
        let local = match &point.target {
            RecoveryTarget::Time { time } => Some(time.with_timezone(&(self.zone)(*time))),
            _ => None,
        };
        let chosen = ChosenPoint {
            at: self.when(at),
            by,
            target: clean(&point.target.to_string()),
            local,
            inclusive: point.inclusive,
            timeline: point.timeline,
            backups: point.backups,
            snapshots: point.snapshots,
            aof: point.aof,
        };
        let same = |last: &ChosenPoint| {
            (&last.target, last.inclusive, last.timeline, &last.backups, &last.snapshots, &last.aof)
                == (&chosen.target, chosen.inclusive, chosen.timeline, &chosen.backups, &chosen.snapshots, &chosen.aof)
        };
        if !(chosen.by.is_none() && self.points.last().is_some_and(same)) {
            self.points.push(chosen);
        }
    }
}
