//! Which names a text may use, and where the caret goes when it uses another.

use std::collections::BTreeMap;
use std::ops::Range;

use super::placeholders::{BUILT_IN, Part, parts};
use super::{NotifyTo, Runbook, Step, StepKind, Undo};
use crate::document::{Place, Problems, closest};

/// Where each name of a runbook comes from.
pub struct Names<'a> {
    /// Variables of the file and roles.
    pub declared: Vec<&'a str>,
    /// Variables that steps set → the indices of those steps.
    pub set_by: BTreeMap<&'a str, Vec<usize>>,
    /// By step: which steps have surely ended before it. Empty when the steps wait in a circle.
    pub ancestors: Vec<Vec<bool>>,
}

/// Why a name cannot be used in a step.
enum Missing {
    Unknown,
    /// By these steps, none of which runs before.
    SetLater(Vec<usize>),
}

impl<'a> Names<'a> {
    pub fn known(&self) -> impl Iterator<Item = &'a str> {
        BUILT_IN.into_iter().chain(self.declared.iter().copied()).chain(self.set_by.keys().copied())
    }

    fn look_up(&self, name: &str, step: usize) -> Result<(), Missing> {
        if BUILT_IN.contains(&name) || self.declared.contains(&name) {
            return Ok(());
        }
        let setters = self.set_by.get(name).ok_or(Missing::Unknown)?;
        match self.ancestors.get(step) {
            Some(before) if !setters.iter().any(|setter| before[*setter]) => Err(Missing::SetLater(setters.clone())),
            _ => Ok(()),
        }
    }

    /// Complains about a variable that does not exist, or not yet.
    pub fn check(&self, name: &str, step: usize, span: Range<usize>, steps: &[Step], problems: &mut Problems) {
        match self.look_up(name, step) {
            Ok(()) => {}
            Err(Missing::Unknown) => {
                let hint = match closest(name, self.known()) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => format!("declare it: [variables.{}]", name.replace('-', "_")),
                };
                problems.error(Some(span), format!("nothing gives `{name}` a value")).hint(hint);
            }
            Err(Missing::SetLater(setters)) => {
                let setters: Vec<&str> = setters.iter().map(|setter| steps[*setter].id.as_str()).collect();
                let setter = setters[0];
                let message =
                    format!("`{name}` has no value yet: step `{setter}` sets it and does not run before this one");
                let hint = match setter == steps[step].id {
                    true => "a step cannot use what it sets itself".to_owned(),
                    false => format!("move the step behind `{setter}`, or add `{setter}` to its needs"),
                };
                problems.error(Some(span), message).hint(hint);
            }
        }
    }

    /// Complains about every placeholder of a text that does not stand for anything, and about lone braces.
    pub fn check_text(&self, text: &str, step: usize, place: Place<'_>, steps: &[Step], problems: &mut Problems) {
        let span = place.span();
        for part in parts(text) {
            match part {
                Part::Name(name, _) => {
                    let at = within(&problems.source, &span, &format!("{{{name}}}"));
                    self.check(name, step, at, steps, problems);
                }
                Part::Stray(brace) => {
                    let at = within(&problems.source, &span, brace);
                    problems
                        .error(Some(at), format!("a lone `{brace}`: braces stand around the name of a variable"))
                        .hint(format!("for the brace itself write it twice: {brace}{brace}"));
                }
                Part::Literal(_) => {}
            }
        }
    }
}

/// The first place of `needle` inside `span`, else the span itself: escapes of TOML may hide it.
pub fn within(source: &str, span: &Range<usize>, needle: &str) -> Range<usize> {
    match source.get(span.clone()).and_then(|text| text.find(needle)) {
        Some(at) => span.start + at..span.start + at + needle.len(),
        None => span.clone(),
    }
}

/// Every text of a step in which placeholders are replaced, with its place in the file.
pub fn texts<'s>(step: &'s Step, place: Place<'s>) -> Vec<(&'s str, Place<'s>)> {
    let mut all: Vec<(&str, Place<'_>)> = Vec::new();
    let mut one = |text: Option<&'s String>, key: &str| all.extend(text.map(|text| (text.as_str(), place.key(key))));
    one(Some(&step.title).filter(|_| place.key("title").exists()), "title");
    one(step.text.as_ref(), "text");
    one(step.destroys.as_ref(), "destroys");
    let mut lists: Vec<(&'s [String], &str)> = Vec::new();
    match &step.kind {
        StepKind::Input { prompt, default, .. } | StepKind::Choose { prompt, default, .. } => {
            one(prompt.as_ref(), "prompt");
            one(default.as_ref(), "default");
        }
        StepKind::Command { run, env, cwd } => {
            one(cwd.as_ref(), "cwd");
            if let super::Run::Argv(argv) = run {
                lists.push((argv, "argv"));
            }
            all.extend(env.iter().map(|(name, value)| (value.as_str(), place.key("env").key(name))));
        }
        StepKind::PostgresQuery { params, .. } | StepKind::SmokeSql { params, .. } => lists.push((params, "params")),
        StepKind::PostgresCheck { tables, .. } => {
            for (index, table) in tables.iter().enumerate() {
                let at = place.key("tables").index(index);
                all.push((&table.name, at.either(&["name"])));
            }
        }
        StepKind::RedisCommand { argv, .. } | StepKind::SmokeRedis { argv } => lists.push((argv, "argv")),
        StepKind::RedisExport { prefix, file } => {
            one(Some(prefix), "prefix");
            one(Some(file), "file");
        }
        StepKind::RecoveryChoose { suggest, .. } => one(suggest.as_ref(), "suggest"),
        StepKind::CutoverConnections { connections, .. } => one(Some(connections), "connections"),
        StepKind::SmokeHttp { url, body, .. } => {
            one(Some(url), "url");
            one(body.as_ref(), "body");
        }
        StepKind::SmokeTcp { address } => one(Some(address), "address"),
        StepKind::Notify { to, message } => {
            one(message.as_ref(), "message");
            match to {
                NotifyTo::Sink(sink) => one(Some(sink), "sink"),
                NotifyTo::Command(argv) => lists.push((argv, "argv")),
            }
        }
        StepKind::Confirm
        | StepKind::Wait { .. }
        | StepKind::Note
        | StepKind::PostgresFence
        | StepKind::PostgresBackup { .. }
        | StepKind::PostgresRestore
        | StepKind::PostgresPromote
        | StepKind::RedisSnapshot { .. }
        | StepKind::RedisRestore
        | StepKind::RedisCheck { .. }
        | StepKind::RedisPolicy
        | StepKind::StorePrune
        | StepKind::StoreCheck
        | StepKind::VerifyBackups { .. } => {}
    }
    if let Some(Undo::Command { argv }) = &step.undo {
        lists.push((argv, "undo"));
    }
    if let Some(argv) = &step.probe {
        lists.push((argv, "probe"));
    }
    for (items, key) in lists {
        all.extend(items.iter().enumerate().map(|(index, item)| (item.as_str(), place.key(key).index(index))));
    }
    for (index, expectation) in step.expect.iter().enumerate() {
        let at = place.key("expect").index(index);
        for rule in &expectation.rules {
            match rule {
                super::Rule::Equals(text) => all.push((text, at.key("equals"))),
                super::Rule::NotEquals(text) => all.push((text, at.key("not"))),
                super::Rule::Contains(text) => all.push((text, at.key("contains"))),
                super::Rule::AtLeast(_) | super::Rule::AtMost(_) => {}
            }
        }
    }
    all
}

/// Complains about text that is sent as written and yet names a variable in braces.
pub fn check_verbatim(runbook: &Runbook, step: &Step, place: Place<'_>, names: &Names<'_>, problems: &mut Problems) {
    let (text, key, instead) = match &step.kind {
        StepKind::PostgresQuery { sql, .. } | StepKind::SmokeSql { sql, .. } => {
            (sql, "sql", "SQL is sent as written; write $1 and give the value by params = [\"{…}\"]")
        }
        StepKind::Command { run: super::Run::Script(script), .. } => {
            (script, "script", "scripts are run as written; the value is in the environment: \"$LIFEBOAT_VAR_…\"")
        }
        _ => return,
    };
    for part in parts(text) {
        let Part::Name(name, at) = part else { continue };
        let known = names.known().any(|known| known == name) || runbook.systems.contains_key(name);
        if known && !text[..at.start].ends_with('$') {
            let span = within(&problems.source, &place.key(key).span(), &format!("{{{name}}}"));
            let hint = instead
                .replace("{…}", &format!("{{{name}}}"))
                .replace("VAR_…", &format!("VAR_{}", name.to_uppercase()));
            problems.error(Some(span), format!("`{{{name}}}` is not replaced here")).hint(hint);
        }
    }
}
