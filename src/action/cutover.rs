use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures::future::BoxFuture;
use serde_json::Value;
use tokio::net::TcpStream;

use crate::event::{Failure, Outcome};
use crate::inventory::{Connections, Reload};
use crate::process::Spec;

use super::{
    Action, Context,
    command::{execute, with_variables},
    confirm::cancelled,
};

/// How long the application may take to answer a reload.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long a restored server may take to accept a connection.
const ANSWER: Duration = Duration::from_secs(10);

/// `cutover.connections`: the file from which an application reads its connections is replaced whole, and the
/// application is told. The way back is the file as it was, kept beside it.
///
/// The file is a JSON object, or lines of `NAME=value`; only host and port of the named values change.
pub struct Cutover {
    /// Key of the inventory's `connections`.
    pub connections: String,
    /// Roles that are cut over.
    pub systems: Vec<String>,
}

impl Action for Cutover {
    fn run(&self, context: Context) -> BoxFuture<'_, Outcome> {
        Box::pin(async move { self.cut_over(&context).await.unwrap_or_else(Outcome::failed) })
    }

    fn undo(&self, context: Context) -> Option<BoxFuture<'_, Outcome>> {
        Some(Box::pin(async move { self.go_back(&context).await.unwrap_or_else(Outcome::failed) }))
    }
}

impl Cutover {
    fn connections<'a>(&self, context: &'a Context) -> Result<&'a Connections, Failure> {
        let name = context.expand_strictly(&self.connections)?;
        context.inventory.connections.get(&name).ok_or_else(|| {
            Failure::new(format!("there are no connections `{name}`"), "the inventory does not have them")
        })
    }

    async fn cut_over(&self, context: &Context) -> Result<Outcome, Failure> {
        let connections = self.connections(context)?;
        let failed = |why: String| {
            Failure::new(format!("the connections in {} were not changed", connections.file.display()), why)
                .now("The application still uses what it used before.")
        };
        let before = std::fs::read_to_string(&connections.file).map_err(|error| failed(error.to_string()))?;
        let mut after = before.clone();
        let mut outcome = Outcome::passed("");
        let (mut moved, mut changes) = (Vec::new(), Vec::new());
        for role in &self.systems {
            let Some(system) = context.system(role) else { continue };
            let (host, port) = context.restored_address(system)?;
            context.lease_or_ask(system).await?;
            answers(&system.name, (&host, port), context).await?;
            for (key, _) in connections.keys.iter().filter(|(_, name)| **name == system.name) {
                let (changed, was) = replace(&after, key, &host, port).map_err(&failed)?;
                after = changed;
                changes.push(format!("{key}: {was} → {host}:{port}"));
                moved.push(format!("{key} → {host}:{port}"));
                outcome = outcome.fact(&format!("connection.{key}"), format!("{host}:{port}"));
            }
        }
        if moved.is_empty() {
            return Err(failed("none of its keys belongs to a system of this step".to_owned()));
        }
        let kept = kept(connections, context);
        // An earlier attempt has kept the file already: the one that was there before any change.
        if !kept.exists() {
            write_whole(&kept, &before, &connections.file).map_err(|error| failed(error.to_string()))?;
        }
        if after != before {
            write_whole(&connections.file, &after, &connections.file).map_err(|error| failed(error.to_string()))?;
        }
        for line in &changes {
            context.sink.say(format!("{}: {line}", connections.file.display())).await;
        }
        if let Err(failure) = tell(connections, context).await? {
            return Err(failure.now(
                "The file is changed, but the application has not taken it. Read its log, then retry; or undo this step \
                 to put the old file back.",
            ));
        }
        outcome.summary = format!("{} now uses {}", connections.name, moved.join(", "));
        Ok(outcome)
    }

    async fn go_back(&self, context: &Context) -> Result<Outcome, Failure> {
        let connections = self.connections(context)?;
        let failed = |why: std::io::Error| {
            Failure::new(format!("the connections in {} were not put back", connections.file.display()), why)
        };
        let kept = kept(connections, context);
        let before = std::fs::read_to_string(&kept).map_err(failed)?;
        write_whole(&connections.file, &before, &connections.file).map_err(failed)?;
        tell(connections, context).await??;
        std::fs::remove_file(&kept).map_err(failed)?;
        Ok(Outcome::passed(format!("{} uses its old connections again", connections.name)))
    }
}

/// Where the file as it was is kept: beside it, with its mode, since it holds passwords.
fn kept(connections: &Connections, context: &Context) -> PathBuf {
    let name = connections.file.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    connections.file.with_file_name(format!("{name}.before-{}", context.drill))
}

/// Nothing is pointed at a server that is dead: an application that waits for it could write into the next restore of it
/// while that is under way.
async fn answers(name: &str, (host, port): (&str, u16), context: &Context) -> Result<(), Failure> {
    let connected = tokio::select! {
        connected = TcpStream::connect((host, port)) => connected.map(drop).map_err(|error| error.to_string()),
        () = context.clock.sleep(ANSWER) => Err(format!("no answer within {} s", ANSWER.as_secs())),
        () = context.cancel.cancelled() => return Err(Failure::new(cancelled().summary, "cancelled")),
    };
    connected.map_err(|why| {
        Failure::new(format!("the restored {name} does not answer at {host}:{port}"), why)
            .now("No connection was changed. Restore it again: retry the step that restored it.")
    })
}

/// Tells the application. The outer error is that this step was ended.
async fn tell(connections: &Connections, context: &Context) -> Result<Result<(), Failure>, Failure> {
    let refused = |why: String| Failure::new(format!("{} did not take its new connections", connections.name), why);
    let told = async {
        match &connections.reload {
            Reload::None => Ok(()),
            Reload::Http(url) => {
                let client = reqwest::Client::builder().timeout(PATIENCE).no_proxy().build();
                let response = match client {
                    Ok(client) => client.post(url).send().await,
                    Err(error) => Err(error),
                };
                let response = response.map_err(|error| refused(error.to_string()))?;
                let status = response.status();
                let text = response.text().await.unwrap_or_default();
                context.sink.say(format!("POST {url} → {status}: {text}")).await;
                if status.is_success() { Ok(()) } else { Err(refused(format!("POST {url} → {status}: {text}"))) }
            }
            Reload::Command(argv) => {
                let Some((program, args)) = argv.split_first() else { return Err(refused("no argv".to_owned())) };
                let spec = with_variables(Spec::new(program).args(args), context);
                match execute(spec, context).await.failure {
                    None => Ok(()),
                    Some(failure) => Err(refused(failure.to_string())),
                }
            }
        }
    };
    tokio::select! {
        told = told => Ok(told),
        () = context.cancel.cancelled() => Err(Failure::new(cancelled().summary, "cancelled")),
    }
}

/// The text with the URL under `key` pointing to another host and port, and where it pointed before; everything else byte
/// for byte as it was, the same URL under another key too.
fn replace(text: &str, key: &str, host: &str, port: u16) -> Result<(String, String), String> {
    match serde_json::from_str::<Value>(text) {
        Ok(json) => replace_in_json(text, &json, key, host, port),
        Err(_) => replace_in_lines(text, key, host, port),
    }
}

fn replace_in_json(text: &str, json: &Value, key: &str, host: &str, port: u16) -> Result<(String, String), String> {
    let old = json.get(key).ok_or_else(|| format!("it has no key `{key}`"))?;
    let old = old.as_str().ok_or_else(|| format!("the value of `{key}` is no text"))?;
    let (new, was) = with_address(old, host, port).map_err(|why| format!("the value of `{key}` {why}"))?;
    let quoted = |text: &str| Value::String(text.to_owned()).to_string();
    if text.matches(&quoted(key)).count() > 1 {
        return Err(format!("`{key}` stands in it more than once, and which one counts cannot be told"));
    }
    let mut wanted = json.clone();
    wanted[key] = new.as_str().into();
    let (old, new) = (quoted(old), quoted(&new));
    // Of all places where the old value stands, the one that gives the wanted document.
    let mut places = text.match_indices(&old).map(|(at, _)| [&text[..at], &new, &text[at + old.len()..]].concat());
    places
        .find(|changed| serde_json::from_str::<Value>(changed).is_ok_and(|json| json == wanted))
        .map(|changed| (changed, was))
        .ok_or_else(|| format!("the value of `{key}` is spelt in a way that cannot be replaced safely"))
}

fn replace_in_lines(text: &str, key: &str, host: &str, port: u16) -> Result<(String, String), String> {
    let value_of = |line: &str| {
        let line = line.trim_start();
        let line = line.strip_prefix("export ").unwrap_or(line).trim_start();
        Some(line.strip_prefix(key)?.strip_prefix('=')?.trim().trim_matches(['"', '\'']).to_owned())
    };
    let found: Vec<(usize, &str, String)> = text
        .split_inclusive('\n')
        .scan(0, |at, line| {
            *at += line.len();
            Some((*at - line.len(), line))
        })
        .filter_map(|(at, line)| Some((at, line, value_of(line)?)))
        .collect();
    let (at, line, old) = match found.as_slice() {
        [] => return Err(format!("it has no key `{key}`")),
        [one] => one,
        _ => return Err(format!("`{key}` stands in it more than once, and which one counts cannot be told")),
    };
    let (new, was) = with_address(old, host, port).map_err(|why| format!("the value of `{key}` {why}"))?;
    let changed = line.replacen(old.as_str(), &new, 1);
    Ok(([&text[..*at], &changed, &text[at + line.len()..]].concat(), was))
}

/// `scheme://user:password@HOST:PORT/path?query` with another host and port, and the old ones.
pub(super) fn with_address(url: &str, host: &str, port: u16) -> Result<(String, String), String> {
    let (scheme, rest) = url.split_once("://").ok_or("is no URL")?;
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, tail) = rest.split_at(end);
    let query = tail.split_once('?').map_or("", |(_, query)| query);
    if query.split('&').any(|pair| ["host=", "hostaddr=", "port="].iter().any(|name| pair.starts_with(name))) {
        return Err("names its host behind the `?` too, and that would win".to_owned());
    }
    let (user, was) = authority.rsplit_once('@').map_or(("", authority), |(user, was)| (user, was));
    let user = if user.is_empty() { String::new() } else { format!("{user}@") };
    Ok((format!("{scheme}://{user}{host}:{port}{tail}"), was.to_owned()))
}

/// Writes a file whole or not at all, with the mode and owner of `like`.
fn write_whole(path: &Path, text: &str, like: &Path) -> std::io::Result<()> {
    let directory = path.parent().unwrap_or(Path::new("/"));
    let meta = std::fs::metadata(like)?;
    let mut file = tempfile::Builder::new().prefix(".lifeboat-").tempfile_in(directory)?;
    file.write_all(text.as_bytes())?;
    file.as_file().set_permissions(std::fs::Permissions::from_mode(meta.mode() & 0o7777))?;
    if nix::unistd::geteuid().is_root() {
        std::os::unix::fs::chown(file.path(), Some(meta.uid()), Some(meta.gid()))?;
    }
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    std::fs::File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_host_and_port_change() {
        let json = "{\n  \"database_url\": \"postgresql://app:p%40ss@127.0.0.1:5432/orders?sslmode=disable\",\n  \
                    \"other\": 1\n}\n";
        let after = replace(json, "database_url", "127.0.0.1", 6000).unwrap();
        assert_eq!(after, (json.replace(":5432/", ":6000/"), "127.0.0.1:5432".to_owned()));
        let env = "# connections\nDATABASE_URL=postgresql://app@db/orders\nCACHE_URL=redis://:x@h:1/0\n";
        let after = replace(env, "CACHE_URL", "127.0.0.1", 7000);
        assert_eq!(after.unwrap().0, env.replace("redis://:x@h:1/0", "redis://:x@127.0.0.1:7000/0"));
        assert!(replace(env, "NOPE", "h", 1).unwrap_err().contains("no key `NOPE`"));
    }

    #[test]
    fn the_same_url_under_another_key_stays() {
        let json = r#"{"audit_url": "postgresql://a@db/x", "database_url": "postgresql://a@db/x",
                       "old": {"list": ["postgresql://a@db/x"]}}"#;
        let (after, was) = replace(json, "database_url", "127.0.0.1", 6000).unwrap();
        let wanted = r#""database_url": "postgresql://a@127.0.0.1:6000/x""#;
        assert_eq!(after, json.replace(r#""database_url": "postgresql://a@db/x""#, wanted));
        assert_eq!(was, "db");
        let env = "AUDIT_URL=redis://h:1\n#URL=redis://h:1\n  export URL=\"redis://h:1\"  \r\nURL_2=redis://h:1\n";
        let (after, _) = replace(env, "URL", "127.0.0.1", 7000).unwrap();
        assert_eq!(after, env.replace("export URL=\"redis://h:1\"", "export URL=\"redis://127.0.0.1:7000\""));
    }

    #[test]
    fn what_is_ambiguous_is_refused() {
        for text in [
            "URL=redis://a:1\nURL=redis://b:1\n",
            r#"{"URL": "redis://a:1", "URL": "redis://b:1"}"#,
            r#"{"URL": "redis://a:1", "old": {"URL": "redis://b:1"}}"#,
        ] {
            assert!(replace(text, "URL", "h", 1).unwrap_err().contains("more than once"), "{text}");
        }
        let error = replace("URL=postgresql://a@db/x?host=/run&port=5433", "URL", "h", 1).unwrap_err();
        assert!(error.contains("behind the `?`"), "{error}");
        assert!(replace(r#"{"URL": "redis:\/\/a:1"}"#, "URL", "h", 1).unwrap_err().contains("spelt"));
    }

    #[test]
    fn a_file_keeps_its_mode() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("connections.json");
        std::fs::write(&path, "{}").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        write_whole(&path, "{\"a\": 1}", &path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o7777, 0o640);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "{\"a\": 1}");
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
    }
}
