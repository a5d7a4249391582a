//! Raw → model: the checks of meaning. All of them run; a complaint about one step does not hide another.

mod step;

use std::collections::BTreeMap;

use indexmap::IndexMap;

use super::graph::Waits;
use super::names::{Names, check_verbatim, texts};
use super::placeholders::BUILT_IN;
use super::traits::Facts;
use super::{OnFailure, Phase, Retry, Runbook, Step, StepKind, SystemKind, Variable, raw};
use crate::digest::Digest;
use crate::document::{Document, Place, Problems, closest, list};

/// The runbook, when the file has no errors; everything there is to say about the file.
pub fn build(mut document: Document, source: &str) -> (Option<Runbook>, Problems) {
    let file: Option<raw::File> = document.raw();
    let mut problems = std::mem::replace(&mut document.problems, Problems::new("", ""));
    let file = file.filter(|file| !has_too_many_steps(file, &mut problems));
    let runbook = file.map(|file| check(file, &document, source, &mut problems));
    problems.sort();
    let runbook = runbook.filter(|_| !problems.has_errors());
    (runbook, problems)
}

/// Each waits for every step before it unless it says otherwise.
const MOST_STEPS: usize = 1_000;

fn has_too_many_steps(file: &raw::File, problems: &mut Problems) -> bool {
    let steps: usize = file.phases.iter().map(|phase| phase.steps.len()).sum();
    if steps > MOST_STEPS {
        problems
            .error(None, format!("this runbook has {steps} steps; at most {MOST_STEPS} are read"))
            .hint("nobody follows so many; let a script do what a script can");
    }
    steps > MOST_STEPS
}

/// What the checks of one step may look at.
struct Scope<'a> {
    /// Roles whose kind is known.
    roles: &'a IndexMap<String, SystemKind>,
    /// The table of roles is there and cannot be used at all.
    roles_unreadable: bool,
    /// Names of roles as written, also those whose kind is not understood: they are complained about once, not twice.
    role_names: Vec<&'a str>,
    /// Ids of steps as written, likewise.
    step_ids: Vec<&'a str>,
}

fn check(file: raw::File, document: &Document, source: &str, problems: &mut Problems) -> Runbook {
    let root = document.root();
    let whole = Place::of(&document.whole);
    let mut runbook = Runbook {
        id: file.id.0,
        title: file.title.0,
        owner: file.owner.map(|text| text.0),
        revision: file.revision,
        description: file.description,
        objectives: file.objectives.into(),
        systems: file.systems.into_iter().map(|(role, kind)| (role, kind.into())).collect(),
        variables: file.variables.into_iter().map(|(name, raw)| (name, variable(raw))).collect(),
        contacts: file.contacts.into_iter().map(Into::into).collect(),
        tools: file.tools.into_iter().map(|text| text.0).collect(),
        phases: Vec::new(),
        steps: Vec::new(),
        source: source.into(),
        digest: Digest::of(source.as_bytes()),
        path: None,
    };
    let scope = Scope {
        roles: &runbook.systems,
        roles_unreadable: whole.key("systems").exists() && !root.key("systems").exists(),
        role_names: whole.key("systems").keys(),
        step_ids: whole
            .key("phases")
            .items()
            .iter()
            .flat_map(|phase| phase.key("steps").items())
            .filter_map(|step| step.key("id").text())
            .collect(),
    };
    let mut phases = Vec::new();
    let mut steps: Vec<Step> = Vec::new();
    let mut places = Vec::new();
    let mut needs = Vec::new();
    for (phase_index, phase) in file.phases.into_iter().enumerate() {
        let begin = steps.len();
        for (index, raw) in phase.steps.into_iter().enumerate() {
            let place = root.key("phases").index(phase_index).key("steps").index(index);
            needs.push(raw.common.needs.clone());
            steps.push(step::build(raw, phase_index, place, &scope, problems));
            places.push(place);
        }
        phases.push(Phase { title: phase.title.0, barrier: phase.barrier, steps: begin..steps.len() });
    }
    check_ids(&steps, &places, problems);
    resolve_needs(&mut steps, &needs, &places, &scope, problems);
    for phase in phases.iter().filter(|phase: &&Phase| phase.barrier) {
        for step in &mut steps[phase.steps.clone()] {
            let earlier = (0..phase.steps.start).filter(|before| !step.after.contains(before)).collect::<Vec<_>>();
            step.after.extend(earlier);
            step.after.sort_unstable();
        }
    }
    let waits: Vec<Vec<usize>> = steps.iter().map(|step| step.after.clone()).collect();
    let cycles = Waits(&waits).cycles();
    for cycle in &cycles {
        report_cycle(cycle, &steps, &needs, &places, problems);
    }
    let ancestors = if cycles.is_empty() { Waits(&waits).ancestors() } else { Vec::new() };
    check_declared(&scope, whole, problems);
    let declared = whole.key("variables").keys().into_iter().chain(scope.role_names.iter().copied()).collect();
    let mut set_by: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (index, step) in steps.iter().enumerate() {
        for name in step.kind.sets().into_iter().chain(step.capture.iter().map(|capture| capture.variable.as_str())) {
            set_by.entry(name).or_default().push(index);
        }
    }
    let names = Names { declared, set_by, ancestors };
    for (index, step) in steps.iter().enumerate() {
        check_setting(index, step, places[index], &names, whole, problems);
        for (text, place) in texts(step, places[index]) {
            names.check_text(text, index, place, &steps, problems);
        }
        if let Some(when) = &step.when {
            let place = places[index].key("when").key("variable");
            names.check(&when.variable, index, place.span(), &steps, problems);
        }
        check_verbatim(&runbook, step, places[index], &names, problems);
        check_facts(step, places[index], problems);
    }
    // Advice about half a file is noise.
    if !problems.has_errors() {
        advise(&steps, &places, &names.ancestors, problems);
        check_unused(whole, source, problems);
    }
    runbook.phases = phases;
    runbook.steps = steps;
    runbook
}

fn variable(raw: raw::Variable) -> Variable {
    Variable { description: raw.description.map(|text| text.0), default: raw.default, required: raw.required }
}

fn check_ids(steps: &[Step], places: &[Place<'_>], problems: &mut Problems) {
    for (index, step) in steps.iter().enumerate() {
        let first = steps[..index].iter().find(|other| other.id == step.id && !step.id.is_empty());
        if let Some(first) = first {
            problems
                .error(Some(places[index].key("id").span()), format!("the id `{}` is taken", step.id))
                .hint(format!("the step on line {} has it; give this one another", first.line));
        }
    }
}

fn resolve_needs(
    steps: &mut [Step],
    needs: &[Option<Vec<String>>],
    places: &[Place<'_>],
    scope: &Scope<'_>,
    problems: &mut Problems,
) {
    let ids: BTreeMap<String, usize> =
        steps.iter().enumerate().rev().map(|(index, step)| (step.id.clone(), index)).collect();
    for (index, step) in steps.iter_mut().enumerate() {
        let Some(needs) = &needs[index] else {
            step.after = (0..index).collect();
            continue;
        };
        for (nth, id) in needs.iter().enumerate() {
            let place = places[index].key("needs").index(nth);
            match ids.get(id) {
                Some(_) if needs[..nth].contains(id) => {
                    problems.warning(Some(place.span()), format!("`{id}` stands twice in the needs of `{}`", step.id));
                }
                Some(&needed) => step.after.push(needed),
                None if scope.step_ids.contains(&id.as_str()) => {}
                None => {
                    let others = scope.step_ids.iter().copied().filter(|other| *other != step.id);
                    let hint = match closest(id, others.clone()) {
                        Some(near) => format!("did you mean `{near}`?"),
                        None => format!("the other steps are {}", list(others, "and")),
                    };
                    problems.error(Some(place.span()), format!("there is no step `{id}`")).hint(hint);
                }
            }
        }
    }
}

fn report_cycle(
    cycle: &[usize],
    steps: &[Step],
    needs: &[Option<Vec<String>>],
    places: &[Place<'_>],
    problems: &mut Problems,
) {
    let path: Vec<&str> = cycle.iter().map(|step| steps[*step].id.as_str()).collect();
    let written = |step: usize, needed: usize| {
        let nth = needs[step].as_ref()?.iter().position(|id| *id == steps[needed].id)?;
        Some(places[step].key("needs").index(nth).span())
    };
    let edges = || cycle.windows(2).map(|edge| (edge[0], edge[1]));
    // The complaint stands at a need for a later step: the others are as the file's order has them.
    let span = edges()
        .filter(|(step, needed)| needed >= step)
        .find_map(|(step, needed)| written(step, needed))
        .or_else(|| edges().find_map(|(step, needed)| written(step, needed)));
    let implied = edges().find(|(step, needed)| written(*step, *needed).is_none());
    let hint = match implied {
        Some((step, _)) if needs[step].is_none() => {
            format!("`{}` has no `needs`, so it waits for every step written before it; give it some", steps[step].id)
        }
        Some((step, _)) => format!("`{}` stands behind a barrier, which waits for every earlier phase", steps[step].id),
        None => "take one of these needs away".to_owned(),
    };
    let message = match path.as_slice() {
        [only, _] if cycle.len() == 2 => format!("step `{only}` needs itself"),
        path => format!("these steps wait for each other: {}", path.join(" → ")),
    };
    problems.error(span.or_else(|| Some(places[cycle[0]].span())), message).hint(hint);
}

/// Roles and variables live in one space with the built-in names.
fn check_declared(scope: &Scope<'_>, whole: Place<'_>, problems: &mut Problems) {
    for (key, noun) in [("systems", "role"), ("variables", "variable")] {
        for name in whole.key(key).keys() {
            let span = whole.key(key).key(name).key_span();
            if BUILT_IN.contains(&name) {
                problems
                    .error(Some(span), format!("the {noun} `{name}` hides a name that every drill has"))
                    .hint(format!("call it something else; {} are taken", list(BUILT_IN, "and")));
            } else if key == "variables" && scope.role_names.contains(&name) {
                problems
                    .error(Some(span), format!("`{name}` is a variable and a role"))
                    .hint(format!("in texts {{{name}}} could mean either; rename one of them"));
            }
        }
    }
}

/// A step's own variable must not hide another name.
fn check_setting(
    index: usize,
    step: &Step,
    place: Place<'_>,
    names: &Names<'_>,
    whole: Place<'_>,
    problems: &mut Problems,
) {
    let asked = matches!(step.kind, StepKind::Input { .. } | StepKind::Choose { .. });
    let own = step.kind.sets().filter(|_| asked).map(|name| (name, place.key("variable")));
    let captured = step
        .capture
        .iter()
        .enumerate()
        .map(|(nth, capture)| (capture.variable.as_str(), place.key("capture").index(nth).key("as")));
    let variables = whole.key("variables").keys();
    for (name, at) in own.into_iter().chain(captured) {
        let is_variable = variables.contains(&name);
        if BUILT_IN.contains(&name) || name == "recovery_point" {
            problems
                .error(Some(at.span()), format!("`{name}` is set by Lifeboat itself"))
                .hint("give the variable another name");
        } else if names.declared.contains(&name) && !is_variable {
            problems.error(Some(at.span()), format!("`{name}` is a role")).hint("give the variable another name");
        } else if is_variable && !asked {
            problems
                .error(Some(at.span()), format!("capturing `{name}` would overwrite what was given at the start"))
                .hint("give the captured fact a name of its own");
        } else if names.set_by.get(name).is_some_and(|setters| setters[0] != index) {
            let first = names.set_by[name][0];
            problems
                .warning(Some(at.span()), format!("`{name}` is set by more than one step"))
                .hint(format!("step {} sets it first; the last one to run wins", first + 1));
        }
    }
}

/// Facts that the kind does not yield, as far as is known: a kind may learn to say more.
fn check_facts(step: &Step, place: Place<'_>, problems: &mut Problems) {
    let expected = step.expect.iter().map(|expect| expect.field.as_str());
    let captured = step.capture.iter().map(|capture| capture.field.as_str());
    let wanted = expected
        .enumerate()
        .map(|(nth, field)| (field, place.key("expect").index(nth)))
        .chain(captured.enumerate().map(|(nth, field)| (field, place.key("capture").index(nth))));
    for (field, at) in wanted {
        let Facts::These { names, prefix } = step.kind.facts() else { continue };
        if field.is_empty() || names.contains(&field) || prefix.is_some_and(|prefix| field.starts_with(prefix)) {
            continue;
        }
        let more = prefix.map(|prefix| format!("{prefix}…"));
        let hint = match closest(field, names.iter().copied()) {
            Some(near) => format!("did you mean `{near}`?"),
            None if names.is_empty() => "it yields no facts".to_owned(),
            None => format!("it yields {}", list(names.iter().copied().chain(more.as_deref()), "and")),
        };
        let span = at.either(&["field", "column"]).span();
        problems.warning(Some(span), format!("`{}` is not known to yield `{field}`", step.kind.word())).hint(hint);
    }
}

/// What loads and is still probably not what was meant.
fn advise(steps: &[Step], places: &[Place<'_>], ancestors: &[Vec<bool>], problems: &mut Problems) {
    let restores = |step: &Step| matches!(step.kind, StepKind::PostgresRestore | StepKind::RedisRestore);
    for (index, step) in steps.iter().enumerate() {
        let place = places[index];
        if matches!(step.kind, StepKind::PostgresFence) && step.destroys.is_none() {
            problems
                .warning(
                    Some(place.key("do").span()),
                    "a fence takes write access from every client, and the step does not say so",
                )
                .hint("add destroys = \"…\": the operator then types the system's name first");
        }
        let chosen = |before: &Vec<bool>| {
            steps
                .iter()
                .zip(before)
                .any(|(other, before)| *before && matches!(other.kind, StepKind::RecoveryChoose { .. }))
        };
        if restores(step) && ancestors.get(index).is_some_and(|before| !chosen(before)) {
            problems
                .warning(Some(place.key("do").span()), format!("nothing chooses a recovery point before `{}`", step.id))
                .hint("add a step with do = \"recovery.choose\" and let this one need it");
        }
    }
    let first = steps.iter().position(restores);
    if let Some(first) = first.filter(|_| !steps.iter().any(|step| step.proves_service)) {
        problems
            .warning(
                Some(places[first].key("do").span()),
                "the service is restored, and no step proves it: the RTO clock never stops",
            )
            .hint("add a smoke test, or say proves_service = true on the step that shows it");
    }
}

fn check_unused(whole: Place<'_>, source: &str, problems: &mut Problems) {
    let lower = source.to_lowercase();
    for name in whole.key("variables").keys() {
        let uses = lower.match_indices(name).filter(|(at, _)| {
            let around = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
            !around(lower[..*at].chars().next_back()) && !around(lower[at + name.len()..].chars().next())
        });
        if uses.count() < 2 {
            let span = whole.key("variables").key(name).key_span();
            problems.warning(Some(span), format!("no step uses the variable `{name}`")).hint("take it out, or use it");
        }
    }
}

fn retry(raw: Option<raw::Retry>) -> Retry {
    let usual = Retry::default();
    match raw {
        None => usual,
        Some(raw) => {
            let delay = raw.delay.map_or(usual.delay, |lasting| lasting.0);
            let max_delay = raw.max_delay.map_or(usual.max_delay.max(delay), |lasting| lasting.0);
            Retry { times: raw.times, delay, max_delay }
        }
    }
}

fn on_failure(raw: Option<raw::OnFailure>) -> OnFailure {
    match raw {
        None | Some(raw::OnFailure::Ask) => OnFailure::Ask,
        Some(raw::OnFailure::Stop) => OnFailure::Stop,
        Some(raw::OnFailure::Continue) => OnFailure::Continue,
    }
}
