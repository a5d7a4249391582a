//! How a sandbox stands: from its files and from what runs in it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::error::SandboxError;
use super::layout::Layout;
use super::processes::{self, Process};
use super::record::{self, Incident, Record, Scale};
use super::servers::app::App;
use super::servers::{app, postgres, redis};

/// The order of the smoke test, as the application takes it.
const ORDER: &str = r#"{"customer": 1, "item": "lifeboat smoke test", "amount": 100}"#;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// No sandbox here.
    Absent,
    /// `up` is at work, or was ended.
    Unfinished,
    /// No incident: database, cache and application run.
    Healthy,
    /// The incident stands: the database is gone, application and cache run, nothing was restored yet.
    Broken,
    /// Something was restored, or a server of the incident ended.
    Touched,
}

impl State {
    pub fn word(self) -> &'static str {
        match self {
            Self::Absent => "no sandbox",
            Self::Unfinished => "unfinished",
            Self::Healthy => "healthy",
            Self::Broken => "broken, as built",
            Self::Touched => "no longer as built",
        }
    }
}

/// A server that was built, or that a drill restored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ServerStatus {
    pub name: String,
    /// `postgres`, `redis` or `application`.
    pub kind: &'static str,
    pub address: String,
    /// Absent when it does not run.
    pub pid: Option<u32>,
    /// The user that it runs as.
    pub uid: Option<u32>,
    pub directory: PathBuf,
    pub log: Option<PathBuf>,
    /// True when a drill put it there.
    pub restored: bool,
}

/// What `sandbox status --json` prints.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Status {
    pub state: State,
    pub directory: PathBuf,
    pub scale: Option<Scale>,
    pub seed: Option<u64>,
    pub inventory: PathBuf,
    pub servers: Vec<ServerStatus>,
    pub app_url: Option<String>,
    pub ledger: PathBuf,
    pub connections: PathBuf,
    pub migration_log: PathBuf,
    /// The bucket's URL; each system has its folder in it.
    pub bucket: String,
    pub signing_key: PathBuf,
    pub allowed_signers: PathBuf,
    /// This program, as the servers' user runs it.
    pub lifeboat: PathBuf,
    pub incident: Option<Incident>,
    /// Variables of `runbooks/restore-to-a-point.toml`; empty before there is an incident.
    pub variables: BTreeMap<String, String>,
}

pub fn look(layout: &Layout) -> Result<Status, SandboxError> {
    let marked = layout.is_marked();
    let record: Option<Record> = if marked { record::read(&layout.record())? } else { None };
    let incident: Option<Incident> = if marked { record::read(&layout.incident())? } else { None };
    let running = if marked { processes::below(layout.dir())? } else { Vec::new() };
    let servers = record.as_ref().map(|record| servers(layout, record, &running)).unwrap_or_default();
    let app_url = record.as_ref().map(|record| App::url(record.ports.app));
    let state = match (marked, &incident) {
        (false, _) => State::Absent,
        (true, None) if record.as_ref().is_some_and(|record| record.healthy) => match all_run(&servers) {
            true => State::Healthy,
            false => State::Touched,
        },
        (true, None) => State::Unfinished,
        (true, Some(_)) if as_built(layout, &servers) => State::Broken,
        (true, Some(_)) => State::Touched,
    };
    let variables = match (&incident, &app_url) {
        (Some(incident), Some(app_url)) => variables(layout, incident, app_url),
        _ => BTreeMap::new(),
    };
    Ok(Status {
        state,
        directory: layout.dir().to_owned(),
        scale: record.as_ref().map(|record| record.scale),
        seed: record.as_ref().map(|record| record.seed),
        inventory: layout.inventory(),
        servers,
        app_url,
        ledger: layout.ledger(),
        connections: layout.connections(),
        migration_log: layout.migration_log(),
        bucket: layout.bucket_url(),
        signing_key: layout.signing_key(),
        allowed_signers: layout.allowed_signers(),
        lifeboat: layout.lifeboat(),
        incident,
        variables,
    })
}

/// What the runbook asks for.
fn variables(layout: &Layout, incident: &Incident, app_url: &str) -> BTreeMap<String, String> {
    let damage_at = incident.damage_at.to_rfc3339_opts(chrono::SecondsFormat::Micros, true);
    [
        ("damage_at", damage_at),
        ("app_address", app_url.trim_start_matches("http://").to_owned()),
        ("app_url", app_url.to_owned()),
        ("order_body", ORDER.to_owned()),
        ("ledger_check", layout.ledger_check().display().to_string()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into()
}

fn servers(layout: &Layout, record: &Record, running: &[Process]) -> Vec<ServerStatus> {
    // Links of /proc are canonical, the layout need not be.
    let canonical = |path: PathBuf| path.canonicalize().unwrap_or(path);
    let root_in = |directory: &Path| {
        let directory = canonical(directory.to_owned());
        processes::roots(running).find(|process| process.cwd == directory).cloned()
    };
    // A restored server may work in a directory of its own below.
    let below = |directory: &Path, kind: &str| {
        let directory = canonical(directory.to_owned());
        processes::roots(running)
            .find(|process| {
                process.cwd.starts_with(&directory) && (process.program == "postgres") == (kind == "postgres")
            })
            .cloned()
    };
    let server =
        |name: &str, kind, port: u16, directory: PathBuf, process: Option<Process>, restored: bool| ServerStatus {
            name: name.to_owned(),
            kind,
            address: format!("127.0.0.1:{port}"),
            pid: process.as_ref().map(|process| process.pid),
            uid: process.as_ref().map(|process| process.uid),
            directory,
            log: (!restored).then(|| layout.log(name)),
            restored,
        };
    let ports = &record.ports;
    let mut all = vec![
        server(postgres::NAME, "postgres", ports.postgres, layout.postgres(), root_in(&layout.postgres()), false),
        server(redis::NAME, "redis", ports.redis, layout.redis(), root_in(&layout.redis()), false),
        server(app::NAME, "application", ports.app, layout.app(), root_in(&layout.app()), false),
    ];
    for (name, kind, port) in
        [(postgres::NAME, "postgres", ports.restored_postgres), (redis::NAME, "redis", ports.restored_redis)]
    {
        let directory = layout.restore().join(name);
        let process = below(&directory, kind);
        if process.is_some() || directory.exists() {
            all.push(server(name, kind, port, directory, process, true));
        }
    }
    all
}

fn runs(servers: &[ServerStatus], name: &str) -> bool {
    servers.iter().any(|server| !server.restored && server.name == name && server.pid.is_some())
}

fn all_run(servers: &[ServerStatus]) -> bool {
    [postgres::NAME, redis::NAME, app::NAME].iter().all(|name| runs(servers, name))
}

fn as_built(layout: &Layout, servers: &[ServerStatus]) -> bool {
    let untouched = std::fs::read_dir(layout.restore()).is_ok_and(|mut entries| entries.next().is_none());
    untouched && !runs(servers, postgres::NAME) && runs(servers, redis::NAME) && runs(servers, app::NAME)
}
