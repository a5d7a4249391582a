//! Envelopes → [`Report`].

use std::collections::BTreeMap;
use std::time::Duration;

use super::model::{
    ArchiveExposure, Attempt, CheckKind, CheckLine, ChosenPoint, Collateral, Evidence, FailureLine, Finding,
    JournalSeal, LostWrites, Note, Output, Pause, Phase, Question, Report, Resume, Rpo, Rto, RunbookRef, SelectedLoss,
    Skip, Standing, Step, System, Times, When,
};
use super::words::{self, clean, clean_value};
use super::{FORMAT, Zone, timeline};
use crate::drill::{DrillError, DrillState, Elapsed, Moment, Split, StepStatus, Stopping};
use crate::event::{Answer, Ask, Envelope, Event, Measure, RecoveryPoint, RecoveryTarget, Status, Verdict};

/// Folds a journal into its report. `zone` says how local times are written.
pub fn fold(envelopes: &[Envelope], journal: JournalSeal, zone: Zone) -> Result<Report, DrillError> {
    let first = envelopes.first().ok_or(DrillError::NoOpening)?;
    let mut state = DrillState::open(first)?;
    let mut extras = Extras::new(zone, &state.opening.boot_id);
    for envelope in &envelopes[1..] {
        state.apply(envelope);
        extras.take(&envelope.event, &state);
    }
    extras.close_all(state.latest);
    Ok(Folder { state, extras, zone }.report(journal))
}

/// What the report needs beyond the drill's state.
struct Extras {
    zone: Zone,
    boot_id: String,
    questions: BTreeMap<String, Vec<Question>>,
    /// Steps with a question on the table: since when.
    open: BTreeMap<String, Moment>,
    skips: BTreeMap<String, (Moment, String)>,
    taken: BTreeMap<String, String>,
    /// Attempts that a crash cut off, by step and number: when that was found.
    cut_off: BTreeMap<(String, u32), Moment>,
    points: Vec<ChosenPoint>,
    pauses: Vec<(Moment, Pause)>,
    resumes: Vec<Resume>,
    operators: Vec<String>,
    abort: Option<(String, String)>,
    splits: Vec<(Elapsed, Split)>,
}

impl Extras {
    fn new(zone: Zone, boot_id: &str) -> Self {
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

    fn when(&self, at: Moment) -> When {
        when(at, self.zone)
    }

    fn take(&mut self, event: &Event, state: &DrillState) {
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

    fn answered(&mut self, step: &str, answer: &Answer, by: &str, at: Moment) {
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
    fn close(&mut self, step: &str, at: Moment) {
        if let Some(since) = self.open.remove(step)
            && let Some(question) = self.questions.get_mut(step).and_then(|questions| questions.last_mut())
        {
            question.waited_seconds = at.elapsed.saturating_sub(since.elapsed).as_secs_f64();
        }
    }

    fn close_all(&mut self, at: Moment) {
        for step in self.open.keys().cloned().collect::<Vec<_>>() {
            self.close(&step, at);
        }
    }

    /// The answer and the variable set from it say the same; it is one choice.
    fn chose(&mut self, point: RecoveryPoint, by: Option<String>, at: Moment) {
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

struct Folder {
    state: DrillState,
    extras: Extras,
    zone: Zone,
}

impl Folder {
    fn report(mut self, journal: JournalSeal) -> Report {
        let steps: Vec<Step> = (0..self.state.steps.len()).map(|index| self.step(index)).collect();
        let opening = self.state.opening.clone();
        let runbook = self.state.runbook.clone();
        let rto = self.rto();
        let rpo = self.rpo();
        let mut operators = vec![clean(&opening.operator)];
        for operator in std::mem::take(&mut self.extras.operators) {
            if !operators.contains(&operator) {
                operators.push(operator);
            }
        }
        Report {
            format: FORMAT,
            drill: clean(&opening.drill),
            service: clean(&opening.service),
            mode: opening.mode,
            environment: clean(&opening.environment),
            verdict: self.state.finished.map(|(_, verdict)| verdict),
            reasons: self.reasons(&steps, &rto, &rpo),
            runbook: RunbookRef {
                id: clean(&runbook.id),
                title: clean(&self.state.expand(&runbook.title)),
                revision: runbook.revision,
                owner: runbook.owner.as_deref().map(clean),
                path: opening.runbook_path.as_ref().map(|path| clean(&path.to_string_lossy())),
                sha256: opening.runbook_digest,
            },
            operators,
            host: clean(&opening.host),
            lifeboat_version: clean(&opening.lifeboat_version),
            declared_reason: self.state.declared_reason.as_deref().map(clean),
            times: Times {
                opened: self.when(self.state.opened),
                declared: self.state.declared.map(|at| self.when(at)),
                recovered: self.recovered().map(|at| self.when(at)),
                finished: self.state.finished.map(|(at, _)| self.when(at)),
            },
            rto,
            rpo,
            skew_seconds: self.state.skew(),
            phases: self.phases(),
            checks: checks(&steps),
            failures: failures(&steps),
            skips: self.skips(),
            notes: self.notes(),
            findings: self.findings(),
            clock_uncertain: self.state.clock_uncertain,
            systems: self.systems(),
            variables: self.variables(),
            evidence: Evidence { journal, inventory_sha256: opening.inventory_digest, outputs: outputs(&steps) },
            recovery_points: std::mem::take(&mut self.extras.points),
            pauses: std::mem::take(&mut self.extras.pauses).into_iter().map(|(_, pause)| pause).collect(),
            resumes: std::mem::take(&mut self.extras.resumes),
            steps,
        }
    }

    fn when(&self, at: Moment) -> When {
        when(at, self.zone)
    }

    /// The moment of the last green proof. A runbook without proofs recovers when it ends well.
    fn recovered(&self) -> Option<Moment> {
        let elapsed = self.state.recovered()?;
        let proofs = self.state.runbook.steps.iter().zip(&self.state.steps).filter(|(step, _)| step.proves_service);
        let ends: Vec<_> = proofs.map(|(_, state)| state.ended()).collect();
        if ends.is_empty() {
            let (at, verdict) = self.state.finished?;
            return matches!(verdict, Verdict::Passed | Verdict::ObjectiveMissed).then_some(at);
        }
        ends.into_iter().flatten().find(|at| at.elapsed == elapsed)
    }

    fn rto(&self) -> Rto {
        let recovered = self.recovered();
        let end = recovered.unwrap_or(self.state.latest).elapsed;
        let seconds = self.state.declared.map(|at| end.saturating_sub(at.elapsed).as_secs_f64());
        let objective = self.state.rto_target().map(|target| target.as_secs_f64());
        let split = self.extras.splits.iter().find(|(at, _)| *at >= end).map(|(_, split)| *split).unwrap_or_default();
        let late = seconds.zip(objective).map(|(seconds, objective)| seconds > objective);
        Rto {
            seconds,
            objective_seconds: objective,
            met: match (recovered, late) {
                (None, Some(false)) if self.state.finished.is_none() => None,
                (None, Some(_)) => Some(false),
                (Some(_), late) => late.map(|late| !late),
                (None, None) => None,
            },
            recovered: recovered.is_some(),
            machine_seconds: split.machine.as_secs_f64(),
            human_seconds: split.human.as_secs_f64(),
        }
    }

    fn rpo(&self) -> Vec<Rpo> {
        let state = &self.state;
        let rpos = state.rpos().into_iter().map(|known| {
            let mut rpo = Rpo {
                met: known.met(),
                system: clean(&known.system),
                objective_seconds: known.target.map(|target| target.as_secs_f64()),
                selected_loss: None,
                archive_exposure: None,
                lost_writes: None,
                collateral: None,
            };
            for measure in state.measures.iter().filter(|measure| measure.system() == known.system) {
                match measure.clone() {
                    Measure::SelectedLoss { seconds, recovered_to, incident, .. } => {
                        rpo.selected_loss = Some(SelectedLoss { seconds, recovered_to, incident });
                    }
                    Measure::ArchiveExposure { seconds, bytes, detail, .. } => {
                        rpo.archive_exposure = Some(ArchiveExposure { seconds, bytes, detail: clean(&detail) });
                    }
                    Measure::Collateral { commits, bytes, until, .. } => {
                        rpo.collateral = Some(Collateral { commits, bytes, until });
                    }
                    Measure::LostWrites { lost, acknowledged, detail, .. } => {
                        rpo.lost_writes = Some(LostWrites { lost, acknowledged, detail: clean(&detail) });
                    }
                }
            }
            rpo
        });
        rpos.collect()
    }

    fn step(&mut self, index: usize) -> Step {
        let state = &self.state.steps[index];
        let step = &self.state.runbook.steps[index];
        let attempts: Vec<Attempt> = state
            .attempts
            .iter()
            .map(|attempt| Attempt {
                number: attempt.number,
                undo: attempt.undo,
                started: self.when(attempt.started),
                ended: attempt
                    .ended
                    .or_else(|| self.extras.cut_off.get(&(step.id.clone(), attempt.number)).copied())
                    .map(|at| self.when(at)),
                status: attempt.outcome.as_ref().map(|outcome| status_word(outcome.status).to_owned()),
                summary: attempt.outcome.as_ref().map(|outcome| clean(&outcome.summary)).unwrap_or_default(),
                failure: attempt.outcome.as_ref().and_then(|outcome| outcome.failure.as_ref()).map(clean_failure),
                checks: attempt.outcome.iter().flat_map(|outcome| &outcome.checks).map(clean_check).collect(),
                facts: match attempt.outcome.as_ref().map(|outcome| outcome.facts.clone()) {
                    Some(facts) => facts.into_iter().map(|(name, value)| (clean(&name), clean_value(value))).collect(),
                    None => serde_json::Map::new(),
                },
                output: attempt.output.clone(),
            })
            .collect();
        let standing = standing(&state.status);
        let summary = match &state.status {
            StepStatus::Skipped { reason } => clean(reason),
            StepStatus::NotNeeded { why } => clean(why),
            StepStatus::Passed => match self.extras.taken.get(&step.id) {
                Some(taken) => taken.clone(),
                None => state.outcome().map(|outcome| clean(&outcome.summary)).unwrap_or_default(),
            },
            _ => attempts.last().map(|attempt| attempt.summary.clone()).unwrap_or_default(),
        };
        let questions = self.extras.questions.remove(&step.id).unwrap_or_default();
        let began = questions.first().map(|question| &question.asked).into_iter();
        let began = began.chain(attempts.first().map(|attempt| &attempt.started));
        let began = began.min_by(|a, b| a.elapsed_seconds.total_cmp(&b.elapsed_seconds)).cloned();
        let ended = state.ended().or(self.extras.skips.get(&step.id).map(|(at, _)| *at));
        let mut reported = Step {
            id: step.id.clone(),
            title: clean(&self.state.expand(&step.title)),
            phase: clean(&self.state.expand(&self.state.runbook.phases[step.phase].title)),
            kind: step.kind.word().to_owned(),
            system: step
                .system
                .as_ref()
                .map(|role| clean(self.state.opening.systems.get(role).map_or(role.as_str(), |bound| &bound.name))),
            standing,
            summary,
            began,
            ended: ended.map(|at| self.when(at)),
            seconds: state.duration(self.state.latest.elapsed).map(|d| d.as_secs_f64()),
            machine_seconds: 0.0,
            human_seconds: 0.0,
            proves_service: step.proves_service,
            attempts,
            questions,
        };
        for segment in timeline::segments(&reported, self.state.latest.elapsed.as_secs_f64()) {
            match segment.actor {
                timeline::Actor::Human => reported.human_seconds += segment.to - segment.from,
                timeline::Actor::Machine | timeline::Actor::Failed => {
                    reported.machine_seconds += segment.to - segment.from;
                }
            }
        }
        // Differences of floats carry dust; the journal counts milliseconds.
        for seconds in [&mut reported.machine_seconds, &mut reported.human_seconds] {
            *seconds = (*seconds * 1000.0).round() / 1000.0;
        }
        reported
    }

    fn phases(&self) -> Vec<Phase> {
        let phases = self.state.runbook.phases.iter().enumerate().map(|(index, phase)| Phase {
            title: clean(&self.state.expand(&phase.title)),
            seconds: self.state.phase_duration(index, self.state.latest.elapsed).map(|d: Duration| d.as_secs_f64()),
            steps: self.state.runbook.steps[phase.steps.clone()].iter().map(|step| step.id.clone()).collect(),
        });
        phases.collect()
    }

    fn skips(&self) -> Vec<Skip> {
        let steps = self.state.runbook.steps.iter().zip(&self.state.steps);
        let skips = steps.filter_map(|(step, state)| {
            let StepStatus::Skipped { reason } = &state.status else { return None };
            let (at, by) = self.extras.skips.get(&step.id)?;
            Some(Skip {
                step: step.id.clone(),
                title: clean(&self.state.expand(&step.title)),
                reason: clean(reason),
                by: Some(by.clone()),
                at: self.when(*at),
            })
        });
        skips.collect()
    }

    fn notes(&self) -> Vec<Note> {
        let notes = self.state.notes.iter();
        notes.map(|note| Note { at: self.when(note.at), text: clean(&note.text), by: clean(&note.by) }).collect()
    }

    fn findings(&self) -> Vec<Finding> {
        let findings = self.state.findings.iter().map(|finding| Finding {
            at: self.when(finding.at),
            text: clean(&finding.text),
            owner: finding.owner.as_deref().map(clean),
            due: finding.due.as_deref().map(clean),
            by: clean(&finding.by),
        });
        findings.collect()
    }

    fn systems(&self) -> Vec<System> {
        let systems = self.state.opening.systems.iter().map(|(role, bound)| System {
            role: clean(role),
            name: clean(&bound.name),
            kind: clean(&bound.kind),
            environment: clean(&bound.environment),
            address: clean(&bound.address),
        });
        systems.collect()
    }

    fn variables(&self) -> BTreeMap<String, String> {
        let named = self.state.variables.iter().filter(|(name, _)| *name != "recovery_point");
        let texts = named.map(|(name, value)| (clean(name), words::value(&clean_value(value.clone()))));
        texts.filter(|(_, text)| !text.is_empty()).collect()
    }

    /// Why the verdict is what it is.
    fn reasons(&self, steps: &[Step], rto: &Rto, rpo: &[Rpo]) -> Vec<String> {
        let mut reasons = Vec::new();
        match self.state.finished.map(|(_, verdict)| verdict) {
            None => reasons.push("The drill is under way.".to_owned()),
            Some(Verdict::Passed | Verdict::ObjectiveMissed) => {
                let count = |standing| steps.iter().filter(|step| step.standing == standing).count();
                let mut sentence = format!("{} of {} steps passed", count(Standing::Passed), steps.len());
                for (standing, word) in [
                    (Standing::Skipped, "skipped with a reason"),
                    (Standing::NotNeeded, "not needed"),
                    (Standing::Failed, "failed, and the runbook went on"),
                    (Standing::Undone, "undone"),
                ] {
                    if count(standing) > 0 {
                        sentence += &format!(", {} {word}", count(standing));
                    }
                }
                reasons.push(sentence + ".");
            }
            Some(Verdict::Failed) => {
                let stopped = match &self.state.stopping {
                    Some(Stopping::Failed { step }) => steps.iter().find(|reported| reported.id == *step),
                    _ => steps.iter().find(|step| matches!(step.standing, Standing::Failed | Standing::InDoubt)),
                };
                reasons.push(match stopped {
                    Some(step) => format!("It ended at the step “{}”: {}", step.title, end_with_stop(&step.summary)),
                    None => "A step failed.".to_owned(),
                });
            }
            Some(Verdict::Aborted) => reasons.push(match &self.extras.abort {
                Some((reason, by)) => format!("{by} ended it: {}", end_with_stop(reason)),
                None => "It was ended by hand.".to_owned(),
            }),
            Some(Verdict::NeedsPerson) => {
                let waiting = steps.iter().find(|step| step.standing == Standing::Unfinished);
                reasons.push(match waiting {
                    Some(step) => format!("It ran without a person, and the step “{}” needs one.", step.title),
                    None => "It ran without a person, and needs one.".to_owned(),
                });
            }
        }
        reasons.extend(objective_words(rto, rpo));
        reasons
    }
}

fn objective_words(rto: &Rto, rpo: &[Rpo]) -> Vec<String> {
    let mut words = Vec::new();
    match (rto.seconds, rto.recovered) {
        (Some(seconds), true) => words.push(match rto.objective_seconds {
            Some(objective) => format!(
                "The service was back after {}; the objective of {} was {}.",
                words::duration(seconds),
                words::duration(objective),
                met_word(rto.met)
            ),
            None => format!("The service was back after {}; no RTO was set.", words::duration(seconds)),
        }),
        (Some(seconds), false) => words.push(format!(
            "The recovery of the service was not proven within the {} of this drill.",
            words::duration(seconds)
        )),
        (None, _) => {}
    }
    for rpo in rpo {
        if let (Some(loss), Some(objective)) = (&rpo.selected_loss, rpo.objective_seconds) {
            words.push(format!(
                "{} lost {}; the objective of {} was {}.",
                rpo.system,
                words::duration(loss.seconds),
                words::duration(objective),
                met_word(rpo.met)
            ));
        }
    }
    words
}

fn met_word(met: Option<bool>) -> &'static str {
    match met {
        Some(true) => "met",
        Some(false) => "missed",
        None => "not measured",
    }
}

fn end_with_stop(text: &str) -> String {
    match text.trim_end() {
        "" => "no words were recorded.".to_owned(),
        text if text.ends_with(['.', '!', '?', '…']) => text.to_owned(),
        text => format!("{text}."),
    }
}

fn when(at: Moment, zone: Zone) -> When {
    When { utc: at.wall, local: at.wall.with_timezone(&zone(at.wall)), elapsed_seconds: at.elapsed.as_secs_f64() }
}

fn standing(status: &StepStatus) -> Standing {
    match status {
        StepStatus::Pending => Standing::NotReached,
        StepStatus::Gated | StepStatus::Running | StepStatus::Retrying { .. } => Standing::Unfinished,
        StepStatus::Passed => Standing::Passed,
        StepStatus::Failed => Standing::Failed,
        StepStatus::Skipped { .. } => Standing::Skipped,
        StepStatus::NotNeeded { .. } => Standing::NotNeeded,
        StepStatus::Undone => Standing::Undone,
        StepStatus::InDoubt => Standing::InDoubt,
    }
}

fn status_word(status: Status) -> &'static str {
    match status {
        Status::Passed => "passed",
        Status::Failed => "failed",
        Status::TimedOut => "timed-out",
        Status::Cancelled => "cancelled",
    }
}

fn clean_failure(failure: &crate::event::Failure) -> crate::event::Failure {
    crate::event::Failure {
        what: clean(&failure.what),
        why: clean(&failure.why),
        now: failure.now.as_deref().map(clean),
    }
}

fn clean_check(check: &crate::event::Check) -> crate::event::Check {
    crate::event::Check { name: clean(&check.name), passed: check.passed, detail: clean(&check.detail) }
}

fn ask_words(ask: &Ask) -> String {
    match ask {
        Ask::Go { sentence } | Ask::Confirm { sentence } => clean(sentence),
        Ask::TypeName { name, sentence, loss } => {
            format!(
                "{} What will be lost: {} To be typed: {}",
                end_with_stop(&clean(sentence)),
                end_with_stop(&clean(loss)),
                clean(name)
            )
        }
        Ask::Input { prompt, .. } | Ask::Choose { prompt, .. } => clean(prompt),
        Ask::RecoveryPoint { .. } => "Which recovery point?".to_owned(),
        Ask::AfterFailure { failure } => format!("It failed ({}). Retry, skip or stop?", clean(&failure.what)),
        Ask::InDoubt { why } => format!("In doubt: {} Repeat, take as done or stop?", end_with_stop(&clean(why))),
    }
}

fn answer_words(answer: &Answer) -> String {
    match answer {
        Answer::Yes => "yes".to_owned(),
        Answer::No { reason } => format!("no: {}", clean(reason)),
        Answer::Typed { name } => format!("typed {}", clean(name)),
        Answer::Text { text } => clean(text),
        Answer::Chosen { value } => clean(value),
        Answer::Point { point } => clean(&point.target.to_string()),
        Answer::Retry => "again".to_owned(),
        Answer::TakenAsDone { reason } => format!("it was done: {}", clean(reason)),
        Answer::Stop => "stop".to_owned(),
    }
}

/// What was looked at, by the newest forward attempt of each step. A smoke test that lists nothing is itself the check.
fn checks(steps: &[Step]) -> Vec<CheckLine> {
    let mut lines = Vec::new();
    for step in steps {
        let Some(attempt) = step.attempts.iter().rev().find(|attempt| !attempt.undo && attempt.status.is_some()) else {
            continue;
        };
        let smoke = step.kind.starts_with("smoke.") || step.proves_service;
        let integrity = step.kind.ends_with(".check") || step.kind == "recovery.verify-backups";
        let kind = match (smoke, integrity) {
            (true, _) => CheckKind::Smoke,
            (_, true) => CheckKind::Integrity,
            _ => CheckKind::Other,
        };
        let line = |name: &str, passed, detail: &str| CheckLine {
            kind,
            step: step.title.clone(),
            name: name.to_owned(),
            passed,
            detail: detail.to_owned(),
        };
        if attempt.checks.is_empty() && (smoke || integrity) {
            lines.push(line(&step.title, attempt.status.as_deref() == Some("passed"), &attempt.summary));
        }
        lines.extend(attempt.checks.iter().map(|check| line(&check.name, check.passed, &check.detail)));
    }
    lines.sort_by_key(|line| match line.kind {
        CheckKind::Smoke => 0,
        CheckKind::Integrity => 1,
        CheckKind::Other => 2,
    });
    lines
}

fn failures(steps: &[Step]) -> Vec<FailureLine> {
    let mut lines = Vec::new();
    for step in steps {
        let failed = |attempt: &&Attempt| attempt.status.as_deref().is_some_and(|status| status != "passed");
        for attempt in step.attempts.iter().filter(failed) {
            let (what, why, now) = match &attempt.failure {
                Some(failure) => (failure.what.clone(), failure.why.clone(), failure.now.clone()),
                None => (attempt.summary.clone(), String::new(), None),
            };
            lines.push(FailureLine {
                step: step.id.clone(),
                title: step.title.clone(),
                attempt: attempt.number,
                undo: attempt.undo,
                at: attempt.ended.clone().unwrap_or_else(|| attempt.started.clone()),
                what,
                why,
                now,
                then: step.standing,
            });
        }
    }
    lines.sort_by(|a, b| a.at.elapsed_seconds.total_cmp(&b.at.elapsed_seconds));
    lines
}

fn outputs(steps: &[Step]) -> Vec<Output> {
    let attempts = steps.iter().flat_map(|step| step.attempts.iter().map(move |attempt| (step, attempt)));
    let outputs = attempts.filter_map(|(step, attempt)| {
        Some(Output { step: step.id.clone(), attempt: attempt.number, blob: attempt.output.clone()? })
    });
    outputs.collect()
}
