//! One command on a server, its answer as JSON. What destroys is refused unless the step says that it destroys.

use redis::Value;
use serde_json::Value as Json;

use super::connect::{Redis, RedisError};
use crate::event::{Facts, Failure};
use crate::secret::Secret;

#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    #[error("a command needs at least its name")]
    Empty,
    #[error("`{0}` can destroy data, and the step does not say so")]
    Destructive(String),
    #[error("`{0}` answers for ever; a step needs an end")]
    Endless(String),
    #[error(transparent)]
    Redis(#[from] RedisError),
}

impl From<CommandError> for Failure {
    fn from(error: CommandError) -> Self {
        let now = match error {
            CommandError::Redis(error) => return error.into(),
            CommandError::Empty | CommandError::Endless(_) => "Correct the step's `argv`.",
            CommandError::Destructive(_) => {
                "If that is meant, give the step `destroys`: a sentence that says what will be lost."
            }
        };
        Self::new("the command was not sent", error).now(now)
    }
}

/// Commands that destroy data, end the server, change whose data it holds, or run code that may. A second word narrows
/// the refusal to that subcommand.
const DESTRUCTIVE: &[&str] = &[
    "FLUSHALL",
    "FLUSHDB",
    "SHUTDOWN",
    "DEBUG",
    "REPLICAOF",
    "SLAVEOF",
    "FAILOVER",
    "MIGRATE",
    "SWAPDB",
    "RESET",
    "EVAL",
    "EVALSHA",
    "FCALL",
    "SYNC",
    "PSYNC",
    "CONFIG SET",
    "CONFIG REWRITE",
    "CLUSTER RESET",
    "CLUSTER FLUSHSLOTS",
    "CLUSTER FAILOVER",
    "FUNCTION FLUSH",
    "FUNCTION DELETE",
    "FUNCTION RESTORE",
    "SCRIPT FLUSH",
    "MODULE LOAD",
    "MODULE LOADEX",
    "MODULE UNLOAD",
    "ACL DELUSER",
    "ACL SETUSER",
    "ACL LOAD",
];

const ENDLESS: &[&str] = &["MONITOR", "SUBSCRIBE", "PSUBSCRIBE", "SSUBSCRIBE"];

/// Refuses what a step may not send.
pub fn permit(argv: &[String], allow_destructive: bool) -> Result<(), CommandError> {
    let name = argv.first().map(|name| name.trim().to_uppercase()).filter(|name| !name.is_empty());
    let name = name.ok_or(CommandError::Empty)?;
    let both = argv.get(1).map(|sub| format!("{name} {}", sub.trim().to_uppercase()));
    if ENDLESS.contains(&name.as_str()) {
        return Err(CommandError::Endless(name));
    }
    if allow_destructive {
        return Ok(());
    }
    match [Some(name), both].into_iter().flatten().find(|name| DESTRUCTIVE.contains(&name.as_str())) {
        Some(name) => Err(CommandError::Destructive(name)),
        None => Ok(()),
    }
}

/// Sends one command; the fact `reply` holds the answer.
pub async fn command(url: &Secret, argv: &[String], allow_destructive: bool) -> Result<Facts, CommandError> {
    permit(argv, allow_destructive)?;
    let mut command = redis::Cmd::new();
    for item in argv {
        command.arg(item);
    }
    let redis = Redis::connect(url).await?;
    let reply: Value = redis.query(argv.first().map_or("", String::as_str), &command).await?;
    let mut facts = Facts::new();
    facts.insert("reply".to_owned(), json(reply));
    Ok(facts)
}

/// An answer as JSON; bytes that are no UTF-8 are shown lossily.
fn json(value: Value) -> Json {
    let list = |items: Vec<Value>| Json::Array(items.into_iter().map(json).collect());
    let map = |pairs: Vec<(Value, Value)>| {
        Json::Object(pairs.into_iter().map(|(key, value)| (plain(&json(key)), json(value))).collect())
    };
    match value {
        Value::Nil => Json::Null,
        Value::Int(number) => number.into(),
        Value::BulkString(bytes) | Value::BigNumber(bytes) => String::from_utf8_lossy(&bytes).into_owned().into(),
        Value::SimpleString(text) | Value::VerbatimString { text, .. } => text.into(),
        Value::Okay => "OK".into(),
        Value::Double(number) => number.into(),
        Value::Boolean(yes) => yes.into(),
        Value::Array(items) | Value::Set(items) | Value::Push { data: items, .. } => list(items),
        Value::Map(pairs) => map(pairs),
        Value::Attribute { data, .. } => json(*data),
        Value::ServerError(error) => format!("{} {}", error.code(), error.details().unwrap_or_default()).into(),
        other => format!("{other:?}").into(),
    }
}

fn plain(json: &Json) -> String {
    json.as_str().map_or_else(|| json.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn argv(words: &str) -> Vec<String> {
        words.split(' ').map(str::to_owned).collect()
    }

    #[test]
    fn what_destroys_is_refused_however_it_is_spelled() {
        for words in
            ["FLUSHALL", "flushdb async", "Config  set dir /tmp", "config Set dir /tmp", "eval x 0", "replicaof a 1"]
        {
            let words: Vec<String> = words.split_whitespace().map(str::to_owned).collect();
            assert!(matches!(permit(&words, false), Err(CommandError::Destructive(_))), "{words:?}");
            assert!(permit(&words, true).is_ok(), "{words:?}");
        }
        for words in ["GET a", "config get dir", "SET FLUSHALL 1", "XINFO STREAM s", "acl whoami"] {
            assert!(permit(&argv(words), false).is_ok(), "{words}");
        }
        assert!(matches!(permit(&argv("monitor"), true), Err(CommandError::Endless(_))));
        assert!(matches!(permit(&[], true), Err(CommandError::Empty)));
    }

    #[test]
    fn answers_become_json() {
        let value = Value::Array(vec![
            Value::Nil,
            Value::Int(7),
            Value::BulkString(b"\xffx".to_vec()),
            Value::Map(vec![
                (Value::SimpleString("a".into()), Value::Boolean(true)),
                (Value::Int(1), Value::Double(1.5)),
            ]),
        ]);
        assert_eq!(json(value).to_string(), r#"[null,7,"�x",{"a":true,"1":1.5}]"#);
    }
}
