//! Envelopes → [`Report`].

mod extras;
mod sentences;

use std::collections::BTreeMap;
use std::time::Duration;

use super::model::{
    ArchiveExposure, Attempt, Collateral, Evidence, Finding, JournalSeal, LostWrites, Note, Phase, Report, Rpo, Rto,
    RunbookRef, SelectedLoss, Skip, Standing, Step, System, Times, When,
};
use super::words::{self, clean, clean_value};
use super::{FORMAT, Zone, timeline};
use crate::drill::{DrillError, DrillState, Moment, StepStatus, Stopping};
use crate::event::{Envelope, Measure, Verdict};
use extras::Extras;
use sentences::{
    checks, clean_check, clean_failure, end_with_stop, failures, objective_words, outputs, standing, status_word, when,
};

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
            trend: Vec::new(),
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
                probe: attempt.probe,
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
