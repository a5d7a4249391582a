//! Model → Markdown, HTML, JSON.

use std::sync::LazyLock;

use chrono::{DateTime, FixedOffset};
use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Serde, Value};
use minijinja::{AutoEscape, Environment, Error, ErrorKind, context};

use super::model::{Report, Standing};
use super::{ReportError, plan, timeline, trend, words};

const MARKDOWN: &str = include_str!("templates/report.md.j2");
const HTML: &str = include_str!("templates/report.html.j2");

/// The report's files by name.
pub fn all(report: &Report) -> Result<[(&'static str, String); 3], ReportError> {
    let context = context! {
        r => Value::from(Serde(report)),
        verdict => report.verdict.map_or("under way", |verdict| verdict.word()),
        mode => report.mode.word(),
        timeline => Value::from(Serde(timeline::timeline(report))),
        trend => trend::chart(&report.trend).map(|chart| Value::from(Serde(chart))),
    };
    let json = serde_json::to_string_pretty(report).map_err(|why| failed("report.json", why))?;
    Ok([
        ("report.md", page("report.md", &context)?),
        ("report.html", page("report.html", &context)?),
        ("report.json", json + "\n"),
    ])
}

/// A template by its name, filled in.
pub(super) fn page(name: &'static str, context: &Value) -> Result<String, ReportError> {
    static TEMPLATES: LazyLock<Result<Environment<'static>, Error>> = LazyLock::new(environment);
    let env = TEMPLATES.as_ref().map_err(|why| failed("templates", why))?;
    env.get_template(name).and_then(|template| template.render(context)).map_err(|why| failed(name, why))
}

fn failed(what: &'static str, why: impl std::error::Error) -> ReportError {
    // minijinja puts the place into the chain of sources.
    let mut words = why.to_string();
    let mut source = why.source();
    while let Some(inner) = source {
        words = format!("{words}: {inner}");
        source = inner.source();
    }
    ReportError::Render { what, why: words }
}

fn environment() -> Result<Environment<'static>, Error> {
    let mut env = Environment::new();
    let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).keep_trailing_newline(true).build()?;
    env.set_syntax(syntax);
    env.set_undefined_behavior(minijinja::UndefinedBehavior::SemiStrict);
    env.set_auto_escape_callback(|name| if name.ends_with(".html") { AutoEscape::Html } else { AutoEscape::None });
    env.add_filter("duration", words::duration);
    env.add_filter("clock", words::clock);
    env.add_filter("bytes", words::bytes);
    env.add_filter("md", |text: &str| words::markdown(text));
    env.add_filter("fenced", |text: &str| words::fenced(text));
    env.add_filter("short", |digest: &str| digest.chars().take(12).collect::<String>());
    env.add_filter("moment", |text: &str| local(text).map(words::moment));
    env.add_filter("tod", |text: &str| local(text).map(words::time_of_day));
    env.add_filter("offset", |text: &str| local(text).map(|at| at.offset().to_string()));
    env.add_filter("utc", |text: &str| local(text).map(|at| at.to_utc().format("%Y-%m-%d %H:%M:%S UTC").to_string()));
    env.add_filter("utc_ms", |text: &str| {
        local(text).map(|at| at.to_utc().format("%Y-%m-%d %H:%M:%S%.3f UTC").to_string())
    });
    env.add_filter("sign", |Serde(standing): Serde<Standing>| timeline::sign(standing));
    env.add_filter("standing", |Serde(standing): Serde<Standing>| timeline::standing_word(standing));
    env.add_filter("plain", |Serde(value): Serde<serde_json::Value>| words::value(&value));
    env.add_template("report.md", MARKDOWN)?;
    env.add_template("report.html", HTML)?;
    env.add_template("plan.md", plan::MARKDOWN)?;
    env.add_template("plan.html", plan::HTML)?;
    Ok(env)
}

fn local(text: &str) -> Result<DateTime<FixedOffset>, Error> {
    text.parse().map_err(|why: chrono::ParseError| Error::new(ErrorKind::InvalidOperation, why.to_string()))
}
