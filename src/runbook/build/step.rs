//! One step: raw → model, with what can be said about it alone.

use super::{Scope, on_failure, retry};
use crate::document::{Argv, Place, Problems, Scalar, Text, closest, list};
use crate::event::InputKind;
use crate::runbook::raw::{self, Kind};
use crate::runbook::{
    Capture, Condition, Expectation, NotifyTo, Rule, Run, ShipAof, Side, Step, StepKind, SystemKind, TableCheck, Test,
    Undo,
};

/// The step; what is wrong with it is in `problems`, and its place is taken by the nearest harmless value.
pub fn build(raw: raw::Step, phase: usize, place: Place<'_>, scope: &Scope<'_>, problems: &mut Problems) -> Step {
    let common = raw.common;
    let kind = kind(raw.kind, place, scope, problems);
    if common.destroys.is_some() && common.system.is_none() && kind.works_on().is_none() {
        let hint = match kind.systems() {
            Some(_) => "the operator types one system's name, and this step has several; say ask = true instead",
            None => "say system = \"…\": the operator types that system's name before it starts",
        };
        problems
            .error(Some(place.key("destroys").key_span()), "the step destroys something and names no system")
            .hint(hint);
    }
    let system = system(&kind, common.system, place, scope, problems);
    let undo = common.undo.map(|undo| match undo {
        raw::Undo::BuiltIn => Undo::BuiltIn,
        raw::Undo::Command(Argv(argv)) => Undo::Command { argv },
    });
    if matches!(undo, Some(Undo::BuiltIn)) && !kind.has_undo() {
        problems
            .error(Some(place.key("undo").span()), format!("`{}` has no way back of its own", kind.word()))
            .hint("name a command: undo = [\"program\", \"argument\"], or take the key out");
    }
    let title = common.title.map_or_else(|| readable(&common.id.0), |Text(title)| title);
    Step {
        title,
        text: common.text.map(|Text(text)| text),
        phase,
        system,
        after: Vec::new(),
        when: common.when.and_then(|when| condition(when, place, problems)),
        role: common.role.map(|Text(text)| text),
        approvals: common.approvals,
        timeout: common.timeout.map(|lasting| lasting.0),
        retry: retry(common.retry),
        on_failure: on_failure(common.on_failure),
        undo,
        expect: expectations(common.expect, &kind, place, problems),
        capture: captures(common.capture, &kind, place, problems),
        idempotent: common.idempotent.unwrap_or_else(|| kind.only_looks()),
        probe: common.probe.map(|Argv(argv)| argv),
        destroys: common.destroys.map(|Text(text)| text),
        ask: common.ask,
        proves_service: common.proves_service.unwrap_or_else(|| kind.is_smoke()),
        line: problems.source[..place.span().start].matches('\n').count() + 1,
        id: common.id.0,
        kind,
    }
}

/// `restore-db` → `Restore db`
fn readable(id: &str) -> String {
    let words = id.replace(['-', '_'], " ");
    let mut chars = words.chars();
    chars.next().map(|first| first.to_uppercase().chain(chars).collect()).unwrap_or_default()
}

fn kind(raw: Kind, place: Place<'_>, scope: &Scope<'_>, problems: &mut Problems) -> StepKind {
    let text = |text: Option<Text>| text.map(|Text(text)| text);
    let words = |scalars: Vec<Scalar>| scalars.into_iter().map(|Scalar(text)| text).collect();
    match raw {
        Kind::Confirm {} => StepKind::Confirm,
        Kind::Input { variable, prompt, default, input } => {
            let input = match input {
                None | Some(raw::Input::Text) => InputKind::Text,
                Some(raw::Input::Time) => InputKind::Time,
                Some(raw::Input::Number) => InputKind::Number,
            };
            StepKind::Input { variable: variable.0, prompt: text(prompt), default, input }
        }
        Kind::Choose { variable, prompt, options, default } => {
            if let Some(default) = default.as_ref().filter(|default| !options.contains_key(*default)) {
                problems
                    .error(Some(place.key("default").span()), format!("the default `{default}` is none of the options"))
                    .hint(format!("say {}", list(options.keys().map(String::as_str), "or")));
            }
            let options = options.into_iter().collect();
            StepKind::Choose { variable: variable.0, prompt: text(prompt), options, default }
        }
        Kind::Command { argv, script, env, cwd } => {
            let run = match (argv, script) {
                (Some(Argv(argv)), None) => Run::Argv(argv),
                (None, Some(Text(script))) => Run::Script(script),
                (None, None) if place.was_pruned() => Run::Argv(Vec::new()),
                (argv, script) => {
                    let says =
                        if argv.is_some() && script.is_some() { "both `argv` and `script`" } else { "no `argv`" };
                    problems
                        .error(Some(place.either(&["script", "do"]).key_span()), format!("this command says {says}"))
                        .hint("argv = [\"program\", \"argument\"] runs a program; script = \"\"\"…\"\"\" runs lines of shell");
                    Run::Argv(argv.map(|Argv(argv)| argv).unwrap_or_default())
                }
            };
            StepKind::Command { run, env, cwd: text(cwd) }
        }
        Kind::Wait { duration } => StepKind::Wait { duration: duration.0 },
        Kind::Note {} => {
            if !place.key("text").exists() && !place.was_pruned() {
                problems
                    .error(Some(place.key("do").span()), "this note says nothing")
                    .hint("its `text` goes into the record: add text = \"…\"");
            }
            StepKind::Note
        }
        Kind::PostgresQuery { sql, params, on } => {
            StepKind::PostgresQuery { sql: sql.0, params: words(params), on: on.map(side) }
        }
        Kind::PostgresFence {} => StepKind::PostgresFence,
        Kind::PostgresBackup { full_every } => StepKind::PostgresBackup { full_every: full_every.map(|every| every.0) },
        Kind::PostgresRestore {} => StepKind::PostgresRestore,
        Kind::PostgresPromote {} => StepKind::PostgresPromote,
        Kind::PostgresCheck { tables, suspects, checksums, amcheck } => {
            let tables =
                tables.into_iter().map(|table| TableCheck { name: table.name, min_rows: table.min_rows }).collect();
            StepKind::PostgresCheck { tables, suspects, checksums, amcheck }
        }
        Kind::RedisSnapshot { aof } => StepKind::RedisSnapshot {
            aof: match aof {
                None | Some(raw::Aof::Also) => ShipAof::Also,
                Some(raw::Aof::Only) => ShipAof::Only,
                Some(raw::Aof::Rescue) => ShipAof::Rescue,
                Some(raw::Aof::No) => ShipAof::No,
            },
        },
        Kind::RedisRestore {} => StepKind::RedisRestore,
        Kind::RedisCheck { min_keys, prefixes } => StepKind::RedisCheck { min_keys, prefixes },
        Kind::RedisCommand { argv, on } => StepKind::RedisCommand { argv: argv.0, on: on.map(side) },
        Kind::RecoveryChoose { systems, suggest } => {
            StepKind::RecoveryChoose { systems: several(systems, place, scope, problems), suggest: text(suggest) }
        }
        Kind::RedisExport { prefix, file } => StepKind::RedisExport { prefix: prefix.0, file: file.0 },
        Kind::RedisPolicy {} => StepKind::RedisPolicy,
        Kind::StorePrune {} => {
            for (key, hint) in [
                ("system", "say system = \"…\": whose backups are pruned"),
                (
                    "destroys",
                    "say destroys = \"…\": what is lost, in a sentence; the system's name is typed before it starts",
                ),
            ] {
                if !place.key(key).exists() && !place.was_pruned() {
                    let message = format!("this step deletes backups and has no `{key}`");
                    problems.error(Some(place.key("do").span()), message).hint(hint);
                }
            }
            StepKind::StorePrune
        }
        Kind::StoreCheck {} => {
            if !place.key("system").exists() && !place.was_pruned() {
                problems
                    .error(Some(place.key("do").span()), "this step looks at a store and has no `system`")
                    .hint("say system = \"…\": whose store is looked at");
            }
            StepKind::StoreCheck
        }
        Kind::VerifyBackups { systems } => {
            StepKind::VerifyBackups { systems: several(systems, place, scope, problems) }
        }
        Kind::CutoverConnections { connections, systems } => StepKind::CutoverConnections {
            connections: text(connections).unwrap_or_else(|| "{service}".to_owned()),
            systems: several(systems, place, scope, problems),
        },
        Kind::SmokeSql { sql, params } => StepKind::SmokeSql { sql: sql.0, params: words(params) },
        Kind::SmokeRedis { argv } => StepKind::SmokeRedis { argv: argv.0 },
        Kind::SmokeHttp { url, method, body, status } => {
            if !url.0.is_empty() && !["http://", "https://", "{"].iter().any(|start| url.0.starts_with(start)) {
                problems
                    .error(Some(place.key("url").span()), format!("`{}` is not the URL of a web server", url.0))
                    .hint("it begins with http:// or https://");
            }
            let usual = if body.is_some() { raw::Method::Post } else { raw::Method::Get };
            let method = method.unwrap_or(usual).word().to_owned();
            StepKind::SmokeHttp { method, url: url.0, body, status: status.unwrap_or(200) }
        }
        Kind::SmokeTcp { address } => {
            let port = address.0.rsplit_once(':').map(|(_, port)| port);
            let whole = port.is_some_and(|port| port.parse::<u16>().is_ok());
            if !whole && !address.0.ends_with('}') && !address.0.is_empty() {
                problems
                    .error(Some(place.key("address").span()), format!("`{}` is not an address", address.0))
                    .hint("write host:port, like 127.0.0.1:5432");
            }
            StepKind::SmokeTcp { address: address.0 }
        }
        Kind::Notify { sink, argv, message } => {
            let to = match (sink, argv) {
                (Some(Text(sink)), None) => NotifyTo::Sink(sink),
                (None, Some(Argv(argv))) => NotifyTo::Command(argv),
                (None, None) if place.was_pruned() => NotifyTo::Command(Vec::new()),
                (sink, _) => {
                    let says = if sink.is_some() { "both `sink` and `argv`" } else { "neither `sink` nor `argv`" };
                    problems
                        .error(Some(place.either(&["sink", "do"]).key_span()), format!("this step says {says}"))
                        .hint("sink = \"oncall\" tells [notify.oncall] of the inventory; argv = [\"program\"] runs a command");
                    NotifyTo::Command(Vec::new())
                }
            };
            StepKind::Notify { to, message: text(message) }
        }
    }
}

fn side(raw: raw::On) -> Side {
    match raw {
        raw::On::Source => Side::Source,
        raw::On::Restored => Side::Restored,
    }
}

/// The roles of a step that works on several systems; all of them when it does not say.
fn several(named: Option<Vec<String>>, place: Place<'_>, scope: &Scope<'_>, problems: &mut Problems) -> Vec<String> {
    if place.key("system").exists() {
        problems
            .error(Some(place.key("system").key_span()), "this step works on several systems")
            .hint("say systems = [\"…\"], with the roles");
    }
    let Some(named) = named else {
        if scope.role_names.is_empty() && !scope.roles_unreadable {
            problems
                .error(Some(place.key("do").span()), "the runbook has no systems for this step to work on")
                .hint("declare roles at the top: systems = { db = \"postgres\", cache = \"redis\" }");
        }
        return scope.roles.keys().cloned().collect();
    };
    if named.is_empty() {
        problems
            .error(Some(place.key("systems").span()), "`systems` is empty")
            .hint("leave it out to mean every system of the runbook");
    }
    for (nth, role) in named.iter().enumerate() {
        known_role(role, place.key("systems").index(nth), scope, problems);
    }
    named
}

fn known_role(role: &str, place: Place<'_>, scope: &Scope<'_>, problems: &mut Problems) -> bool {
    if scope.role_names.contains(&role) || scope.roles_unreadable {
        return true;
    }
    let hint = match closest(role, scope.role_names.iter().copied()) {
        Some(near) => format!("did you mean `{near}`?"),
        None if scope.role_names.is_empty() => format!("declare it at the top: systems = {{ {role} = \"postgres\" }}"),
        None => format!("the roles of this runbook are {}", list(scope.role_names.iter().copied(), "and")),
    };
    problems.error(Some(place.span()), format!("there is no system `{role}`")).hint(hint);
    false
}

/// The role of the one system that the step works on.
fn system(
    kind: &StepKind,
    named: Option<String>,
    place: Place<'_>,
    scope: &Scope<'_>,
    problems: &mut Problems,
) -> Option<String> {
    if kind.systems().is_some() {
        return None;
    }
    let at = place.key("system");
    match (named, kind.works_on()) {
        (Some(role), wanted) => {
            let known = known_role(&role, at, scope, problems);
            if let (Some(wanted), Some(found)) = (wanted, scope.roles.get(&role))
                && wanted != *found
            {
                problems
                    .error(
                        Some(at.span()),
                        format!("`{}` works on {}, and `{role}` is {}", kind.word(), wanted.word(), found.word()),
                    )
                    .hint(candidates_hint(wanted, scope));
            }
            known.then_some(role)
        }
        (None, None) => None,
        (None, Some(wanted)) => {
            let candidates: Vec<&String> =
                scope.roles.iter().filter(|(_, found)| **found == wanted).map(|(role, _)| role).collect();
            match candidates.as_slice() {
                [only] => Some((*only).clone()),
                [] if scope.roles_unreadable || scope.roles.len() < scope.role_names.len() => None,
                [] => {
                    let message =
                        format!("`{}` works on {}, and the runbook has no such system", kind.word(), wanted.word());
                    problems
                        .error(Some(place.key("do").span()), message)
                        .hint(format!("declare a role at the top: systems = {{ name = \"{}\" }}", wanted.word()));
                    None
                }
                several => {
                    let names = list(several.iter().map(|role| role.as_str()), "or");
                    problems
                        .error(Some(place.key("do").span()), "which system does this step work on?")
                        .hint(format!("add system = …: it could be {names}"));
                    None
                }
            }
        }
    }
}

fn candidates_hint(wanted: SystemKind, scope: &Scope<'_>) -> String {
    let fitting: Vec<&str> =
        scope.roles.iter().filter(|(_, found)| **found == wanted).map(|(role, _)| role.as_str()).collect();
    match fitting.is_empty() {
        true => format!("the runbook has no {} system; declare a role at the top", wanted.word()),
        false => format!("it could be {}", list(fitting, "or")),
    }
}

fn condition(raw: raw::When, place: Place<'_>, problems: &mut Problems) -> Option<Condition> {
    let tests: Vec<Test> = [
        raw.is.map(|is| match is {
            raw::WhenIs::Set => Test::Set,
            raw::WhenIs::Unset => Test::Unset,
        }),
        raw.equals.map(|Scalar(text)| Test::Equals(text)),
        raw.not.map(|Scalar(text)| Test::NotEquals(text)),
    ]
    .into_iter()
    .flatten()
    .collect();
    let count = tests.len();
    match tests.into_iter().next().filter(|_| count == 1) {
        Some(test) => Some(Condition { variable: raw.variable, test }),
        None if count == 0 && place.key("when").was_pruned() => None,
        None => {
            let message = if count == 0 { "this condition asks nothing" } else { "this condition asks several things" };
            problems
                .error(Some(place.key("when").span()), message)
                .hint("say exactly one of is = \"set\", is = \"unset\", equals = \"…\" and not = \"…\"");
            None
        }
    }
}

fn expectations(raw: Vec<raw::Expect>, kind: &StepKind, place: Place<'_>, problems: &mut Problems) -> Vec<Expectation> {
    let build = |(nth, raw): (usize, raw::Expect)| {
        let at = place.key("expect").index(nth);
        let field = field(raw.field, raw.column, kind, at, problems);
        if let (Some(least), Some(most)) = (raw.at_least, raw.at_most)
            && least > most
        {
            problems
                .error(Some(at.span()), format!("nothing is at least {least} and at most {most}"))
                .hint("swap the two numbers?");
        }
        let rules: Vec<Rule> = [
            raw.at_least.map(Rule::AtLeast),
            raw.at_most.map(Rule::AtMost),
            raw.equals.map(|Scalar(text)| Rule::Equals(text)),
            raw.not.map(|Scalar(text)| Rule::NotEquals(text)),
            raw.contains.map(Rule::Contains),
        ]
        .into_iter()
        .flatten()
        .collect();
        if rules.is_empty() && !at.was_pruned() {
            problems
                .error(Some(at.span()), "this expectation expects nothing")
                .hint("add at_least, at_most, equals, not or contains");
        }
        Expectation { field, rules }
    };
    raw.into_iter().enumerate().map(build).collect()
}

fn captures(raw: Vec<raw::Capture>, kind: &StepKind, place: Place<'_>, problems: &mut Problems) -> Vec<Capture> {
    let build = |(nth, raw): (usize, raw::Capture)| Capture {
        field: field(raw.field, raw.column, kind, place.key("capture").index(nth), problems),
        variable: raw.variable.0,
    };
    raw.into_iter().enumerate().map(build).collect()
}

/// The fact that is meant; empty when the file does not say, which is a problem then.
fn field(
    field: Option<Text>,
    column: Option<Text>,
    kind: &StepKind,
    place: Place<'_>,
    problems: &mut Problems,
) -> String {
    match (field, column) {
        (Some(Text(name)), None) => name,
        (None, Some(Text(name))) => {
            if !kind.is_sql() {
                problems
                    .error(Some(place.key("column").key_span()), format!("`{}` has no columns", kind.word()))
                    .hint(format!("say field = \"{name}\""));
            }
            name
        }
        (None, None) if place.was_pruned() => String::new(),
        (field, _) => {
            let message = if field.is_some() { "`field` and `column` mean the same" } else { "which fact is meant?" };
            let hint = if kind.is_sql() { "say column = \"…\"" } else { "say field = \"…\"" };
            problems.error(Some(place.span()), message).hint(hint);
            String::new()
        }
    }
}
