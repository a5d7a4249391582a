//! Raw → model: references resolve, no secret is written out, and no two systems can get in each other's way.

mod engine;
mod managed;
mod sink;

use std::path::{Path, PathBuf};
use std::time::Duration;

use indexmap::IndexMap;

use self::engine::EngineKeys;
use self::managed::ManagedKeys;
use super::raw::{self, Kind, Persistence, Reference};
use super::{
    Asked, BackupEngine, Backups, Cadence, Connections, Encryption, Fence, Inventory, KeyPolicy, May, PostgresSystem,
    Recipient, RedisSystem, Reload, Replica, RestoreTo, Schedule, SecretRef, Store, StoreKeys, StoreUrl, System,
    SystemDetail,
};
use crate::digest::Digest;
use crate::document::{Argv, Document, Place, Problems, Text, closest, list, slug};
use crate::event::Mode;
use crate::runbook::SystemKind;

/// How long a provider may take to copy an object elsewhere, where the inventory does not say.
const USUAL_LAG: Duration = Duration::from_secs(15 * 60);

/// The inventory, when the file has no errors; everything there is to say about the file.
pub fn build(mut document: Document, source: &str, base: &Path) -> (Option<Inventory>, Problems) {
    let file: Option<raw::File> = document.raw();
    let mut problems = std::mem::replace(&mut document.problems, Problems::new("", ""));
    // Relative paths must not change their meaning when the program changes its directory.
    let base = std::path::absolute(base).unwrap_or_else(|_| base.to_owned());
    let inventory = file.map(|file| {
        let whole = Place::of(&document.whole);
        Builder { base: &base, root: document.root(), whole, problems: &mut problems }.inventory(file, source)
    });
    problems.sort();
    let inventory = inventory.filter(|_| !problems.has_errors());
    (inventory, problems)
}

struct Builder<'a> {
    base: &'a Path,
    root: Place<'a>,
    /// With what was pruned: a name that is declared wrongly is declared.
    whole: Place<'a>,
    problems: &'a mut Problems,
}

impl<'a> Builder<'a> {
    fn inventory(mut self, file: raw::File, source: &str) -> Inventory {
        let root = self.root;
        let stores: IndexMap<String, Store> = file
            .stores
            .into_iter()
            .map(|(name, raw)| {
                let place = root.key("stores").key(&name);
                let url = self.store_url(&raw.url.0, place.key("url"));
                let retain = raw.retain.map(|lasting| lasting.0);
                let keys = [
                    ("access_key", raw.access_key),
                    ("secret_key", raw.secret_key),
                    ("session_token", raw.session_token),
                    ("account_key", raw.account_key),
                    ("sas_token", raw.sas_token),
                    ("service_account", raw.service_account),
                ];
                let keys = keys.into_iter().filter_map(|(name, key)| Some((name, key?))).collect();
                let keys = self.store_keys(&raw.url.0, keys, place);
                let encryption = self.encryption(raw.encrypt_to, raw.identity, raw.refuse_clear, place);
                let asked = Asked {
                    kms_key: raw.kms_key.map(|key| key.0),
                    lock: raw.lock.map(|lasting| lasting.0),
                    may: raw.may.map(|may| match may {
                        raw::May::Read => May::Read,
                        raw::May::Write => May::Write,
                        raw::May::Prune => May::Prune,
                    }),
                    replica: raw.replica.map(|store| {
                        self.known("stores", "store", &store.0, place.key("replica"));
                        let within = raw.replica_within.map_or(USUAL_LAG, |lasting| lasting.0);
                        Replica { store: store.0, within }
                    }),
                };
                (name.clone(), Store { name, url, keys, encryption, retain, asked })
            })
            .collect();
        let systems: IndexMap<String, System> = file
            .systems
            .into_iter()
            .map(|(name, raw)| {
                let place = root.key("systems").key(&name);
                (name.clone(), self.system(name, raw, place))
            })
            .collect();
        let connections = file
            .connections
            .into_iter()
            .map(|(name, raw)| {
                let place = root.key("connections").key(&name);
                (name.clone(), self.connections(name, raw, place))
            })
            .collect();
        let notify = file
            .notify
            .into_iter()
            .map(|(name, raw)| (name.clone(), self.sink(name.clone(), raw, root.key("notify").key(&name))))
            .collect();
        self.check_collisions(&systems);
        let schedules = self.schedules(file.schedules);
        if !self.whole.key("systems").exists() {
            let hint = "add one: [systems.orders-db] with kind, environment, url, backups and restore";
            self.problems.warning(None, "this inventory has no systems").hint(hint);
        }
        Inventory {
            service: file.service.0,
            objectives: file.objectives.into(),
            stores,
            systems,
            connections,
            notify,
            contacts: file.contacts.into_iter().map(Into::into).collect(),
            schedules,
            path: None,
            digest: Digest::of(source.as_bytes()),
        }
    }

    fn system(&mut self, name: String, raw: raw::System, place: Place<'_>) -> System {
        let common = raw.common;
        let detail = match raw.kind {
            Kind::Postgres { bin, fence } => SystemDetail::Postgres(PostgresSystem {
                bin: bin.map(|Text(path)| self.path(&path, place.key("bin"))),
                fence: Fence {
                    command: fence.command.map(|argv| self.argv(argv)),
                    undo: fence.undo.map(|argv| self.argv(argv)),
                },
            }),
            Kind::Redis { server, data, policy, persistence } => SystemDetail::Redis(RedisSystem {
                server: server.map(|Text(path)| self.path(&path, place.key("server"))),
                data: data.map(|Text(path)| self.path(&path, place.key("data"))),
                policy: self.policy(policy, place.key("policy")),
                cache_only: match persistence {
                    None | Some(Persistence::Durable) => None,
                    Some(Persistence::CacheOnly(why)) => Some(why),
                },
            }),
        };
        let kind = match detail {
            SystemDetail::Postgres(_) => SystemKind::Postgres,
            SystemDetail::Redis(_) => SystemKind::Redis,
        };
        let backups = place.key("backups");
        self.known("stores", "store", &common.backups.store, backups.key("store"));
        let prefix = common.backups.prefix.map_or_else(|| name.clone(), |Text(prefix)| prefix);
        if prefix.split('/').any(|part| part.is_empty() || part == "." || part == "..") {
            self.problems
                .error(Some(backups.key("prefix").span()), format!("`{prefix}` is not a folder in a store"))
                .hint("write names with `/` between them: \"orders/db\"");
        }
        let said = EngineKeys {
            stanza: common.backups.stanza,
            server: common.backups.server,
            config: common.backups.config,
            program: common.backups.program,
            managed: ManagedKeys {
                instance: common.backups.instance,
                region: common.backups.region,
                project: common.backups.project,
                resource_group: common.backups.resource_group,
                subscription: common.backups.subscription,
            },
        };
        let engine = self.engine(common.backups.engine.unwrap_or(raw::Engine::Lifeboat), said, kind, backups);
        let is_managed = matches!(engine, BackupEngine::Managed(_));
        let restore = self.restore(common.restore, is_managed, place);
        System {
            environment: common.environment.0,
            url: self.reference(common.url, kind, place.key("url")),
            rto: common.rto.map(|lasting| lasting.0),
            rpo: common.rpo.map(|lasting| lasting.0),
            backups: Backups {
                engine,
                store: common.backups.store,
                prefix,
                max_age: common.backups.max_age.map(|lasting| lasting.0),
            },
            restore,
            detail,
            name,
        }
    }

    fn restore(&mut self, raw: Option<raw::Restore>, is_managed: bool, place: Place<'_>) -> RestoreTo {
        let at = place.key("restore");
        let Some(raw) = raw else {
            if !is_managed && !at.exists() && !at.was_pruned() {
                self.problems.error(Some(place.span()), "this system has no `restore`").hint(
                    "say where a restored server may put its data: restore = { directory = \"/srv/restore/name\" }",
                );
            }
            return RestoreTo::default();
        };
        if is_managed {
            self.problems
                .error(Some(at.key_span()), "a managed PostgreSQL is restored by its cloud, into a new instance")
                .hint("leave `restore` out");
        }
        let directory = self.path(&raw.directory.0, at.key("directory"));
        if directory.parent().is_none() && !raw.directory.0.is_empty() {
            self.problems
                .error(Some(at.key("directory").span()), "a server is not restored into `/`")
                .hint("name a directory of its own: \"/srv/restore/orders-db\"");
        }
        RestoreTo { directory, port: raw.port, run_as: raw.run_as.map(|Text(user)| user) }
    }

    fn policy(&mut self, raw: IndexMap<String, raw::KeyPolicy>, place: Place<'_>) -> IndexMap<String, KeyPolicy> {
        for prefix in raw.keys() {
            let hint = match prefix.as_str() {
                "" => "write the beginning of the keys: \"session:\"",
                text if text.contains('*') => "it is the beginning of a key and no pattern: leave the `*` out",
                text if text.starts_with("quarantine:") => "keys get that beginning when they are quarantined",
                _ => continue,
            };
            self.problems
                .error(Some(place.key(prefix).key_span()), format!("`{prefix}` cannot be the beginning of keys"))
                .hint(hint);
        }
        let policy = |raw| match raw {
            raw::KeyPolicy::Restore => KeyPolicy::Restore,
            raw::KeyPolicy::Flush => KeyPolicy::Flush,
            raw::KeyPolicy::Quarantine => KeyPolicy::Quarantine,
            raw::KeyPolicy::Rebuild(how) => KeyPolicy::Rebuild(how),
        };
        raw.into_iter().map(|(prefix, raw)| (prefix, policy(raw))).collect()
    }

    fn connections(&mut self, name: String, raw: raw::Connections, place: Place<'_>) -> Connections {
        for (key, system) in &raw.keys {
            self.known("systems", "system", system, place.key("keys").key(key));
        }
        let reload = match raw.reload {
            None => Reload::None,
            Some(raw::Reload::Command(argv)) => Reload::Command(self.argv(argv)),
            Some(raw::Reload::Http(Text(url))) => {
                if !url.starts_with("http://") && !url.starts_with("https://") {
                    self.problems
                        .error(Some(place.key("reload").key("http").span()), format!("`{url}` is not a web address"))
                        .hint("it begins with http:// or https://");
                }
                Reload::Http(url)
            }
        };
        let file = self.path(&raw.file.0, place.key("file"));
        Connections { name, file, keys: raw.keys, reload }
    }

    fn schedules(&mut self, raw: Vec<raw::Schedule>) -> Vec<Schedule> {
        let root = self.root.key("schedules");
        let mut schedules: Vec<Schedule> = Vec::new();
        for (index, raw) in raw.into_iter().enumerate() {
            let place = root.index(index);
            let Some(schedule) = self.schedule(raw, place) else { continue };
            if schedules.iter().any(|other| other.name == schedule.name) {
                let name = place.key("name");
                let span = if name.exists() { name.span() } else { place.key("runbook").span() };
                self.problems
                    .error(Some(span), format!("another schedule is called `{}` already", schedule.name))
                    .hint("give each a name of its own: name = \"nightly\"");
            }
            schedules.push(schedule);
        }
        schedules
    }

    /// `None` when there is no cadence to go by.
    fn schedule(&mut self, raw: raw::Schedule, place: Place<'_>) -> Option<Schedule> {
        const OVERDUE: Duration = Duration::from_secs(24 * 3600);
        const TIMEOUT: Duration = Duration::from_secs(6 * 3600);
        for (role, system) in &raw.systems {
            self.known("systems", "system", system, place.key("systems").key(role));
        }
        let Text(runbook) = raw.runbook;
        let stem = Path::new(&runbook).file_stem().map(|stem| slug(&stem.to_string_lossy())).unwrap_or_default();
        // A bare name is a runbook that comes with the program.
        let bare = !runbook.contains('/') && !runbook.ends_with(".toml");
        let zone = raw.zone.map_or_else(|| "UTC".to_owned(), |Text(zone)| zone);
        let cadence = match Cadence::read(&raw.cadence.0, &zone) {
            Ok(cadence) => Some(cadence),
            // The schema has complained of an empty one.
            Err(_) if raw.cadence.0.is_empty() || zone.is_empty() => None,
            Err(bad) => {
                let key = if bad.message.contains("zone") { "zone" } else { "cadence" };
                self.problems.error(Some(place.key(key).span()), bad.message).hint(bad.hint);
                None
            }
        };
        Some(Schedule {
            name: raw.name.map_or(stem, |name| name.0),
            runbook: if bare { PathBuf::from(&runbook) } else { self.path(&runbook, place.key("runbook")) },
            cadence: cadence?,
            mode: match raw.mode {
                Some(raw::ScheduleMode::Incident) => Mode::Incident,
                None | Some(raw::ScheduleMode::Drill) => Mode::Drill,
            },
            overdue_after: raw.overdue_after.map_or(OVERDUE, |lasting| lasting.0),
            timeout: raw.timeout.map_or(TIMEOUT, |lasting| lasting.0),
            systems: raw.systems,
            variables: raw.variables,
            answers: raw.answers.map(|Text(path)| self.path(&path, place.key("answers"))),
        })
    }

    /// Complains when nothing of the kind `key` has this name.
    fn known(&mut self, key: &str, noun: &str, name: &str, place: Place<'_>) {
        let names = self.whole.key(key).keys();
        if names.contains(&name) || name.is_empty() {
            return;
        }
        let hint = match closest(name, names.iter().copied()) {
            Some(near) => format!("did you mean `{near}`?"),
            None if names.is_empty() => format!("declare it: [{key}.{name}]"),
            None => format!("the {key} of this file are {}", list(names, "and")),
        };
        self.problems.error(Some(place.span()), format!("there is no {noun} `{name}`")).hint(hint);
    }

    fn path(&mut self, text: &str, place: Place<'_>) -> PathBuf {
        if text.starts_with('~') {
            self.problems
                .error(Some(place.span()), format!("`{text}`: no shell reads this, so `~` is no home directory"))
                .hint("write the whole path");
        }
        // Without `.` and doubled slashes, so that two spellings of one place are seen to be one.
        self.base.join(text).components().collect()
    }

    /// A program named by a relative path counts from the file; a bare name is looked for on the PATH.
    fn argv(&self, Argv(mut argv): Argv) -> Vec<String> {
        if let Some(program) = argv.first_mut()
            && program.starts_with('.')
            && program.contains('/')
        {
            *program = self.base.join(&program).display().to_string();
        }
        argv
    }

    fn store_url(&mut self, url: &str, place: Place<'_>) -> String {
        if url.is_empty() {
            return String::new();
        }
        match StoreUrl::parse(url) {
            Ok(StoreUrl::Directory(path)) => {
                format!("file://{}", self.path(&path.to_string_lossy(), place).display())
            }
            Ok(StoreUrl::Bucket(url)) => url.to_string(),
            Err(error) => {
                self.problems.error(Some(place.span()), error.message).hint(error.hint);
                String::new()
            }
        }
    }

    fn store_keys(
        &mut self,
        url: &str,
        said: IndexMap<&'static str, Reference>,
        place: Place<'_>,
    ) -> Option<StoreKeys> {
        let first = *said.keys().next()?;
        for (name, reference) in &said {
            // The access key is a name.
            if *name != "access_key" && matches!(reference, Reference::Plain(_)) {
                self.problems
                    .error(Some(place.key(name).span()), format!("this is {name} itself, and files are copied and committed"))
                    .hint(format!("put it elsewhere and say where: {name} = {{ env = \"NAME\" }}, {{ file = \"path\" }} or {{ command = [\"program\"] }}; then have a new one made"));
            }
        }
        let (takes, hint) = match url.split_once(':').map(|(scheme, _)| scheme) {
            Some("s3") => {
                (&["access_key", "secret_key", "session_token"][..], "an S3 store takes access_key and secret_key")
            }
            Some("az") => (&["account_key", "sas_token"][..], "an Azure store takes account_key or sas_token"),
            Some("gs") => (&["service_account"][..], "a Google store takes service_account"),
            Some("file") => (&[][..], "leave them out: its permissions say who may read it"),
            // What is wrong with the URL has been told.
            _ => return None,
        };
        for name in said.keys().filter(|name| !takes.contains(*name)) {
            let what = match takes {
                [] => "a directory is opened without keys".to_owned(),
                _ => format!("this store is not opened by `{name}`"),
            };
            self.problems.error(Some(place.key(name).key_span()), what).hint(hint);
            if takes.is_empty() {
                break;
            }
        }
        let mut said: IndexMap<_, _> =
            said.into_iter().map(|(name, raw)| (name, self.key(raw, place.key(name)))).collect();
        let mut take = |name| said.shift_remove(name);
        let session_token = take("session_token");
        let found = match (take("access_key"), take("secret_key"), take("account_key"), take("sas_token")) {
            (Some(access_key), Some(secret_key), ..) => Some(StoreKeys::S3 { access_key, secret_key, session_token }),
            (None, None, Some(_), Some(_)) => {
                self.problems
                    .error(Some(place.key("sas_token").key_span()), "this store has two keys")
                    .hint("give it account_key or sas_token; a signature that may only do what is needed is better");
                return None;
            }
            (None, None, Some(key), None) => Some(StoreKeys::AccountKey(key)),
            (None, None, None, Some(token)) => Some(StoreKeys::SasToken(token)),
            (None, None, None, None) => take("service_account").map(StoreKeys::ServiceAccount),
            _ => None,
        };
        if found.is_none() && takes.contains(&first) {
            let both = "access_key and secret_key belong together, and session_token to both";
            self.problems.error(Some(place.key(first).key_span()), format!("`{first}` alone opens nothing")).hint(both);
        }
        found
    }

    fn encryption(
        &mut self,
        to: Option<Vec<Text>>,
        identity: Option<Reference>,
        refuse_clear: bool,
        place: Place<'_>,
    ) -> Encryption {
        let mut encrypt_to: Vec<Recipient> = Vec::new();
        for (index, Text(text)) in to.into_iter().flatten().enumerate() {
            let place = place.key("encrypt_to").index(index);
            match Recipient::parse(&text) {
                Ok(recipient) if encrypt_to.contains(&recipient) => {
                    self.problems.warning(Some(place.span()), "this recipient is named already").hint("leave it out");
                }
                Ok(recipient) => encrypt_to.push(recipient),
                // The schema has complained of an empty one.
                Err(_) if text.is_empty() => {}
                Err(bad) => {
                    self.problems.error(Some(place.span()), bad.message).hint(bad.hint);
                }
            }
        }
        if let Some(Reference::Plain(_)) = &identity {
            self.problems
                .error(Some(place.key("identity").span()), "this is the private key itself, and files are copied and committed")
                .hint("put it elsewhere and say where: identity = { file = \"path\" }, { env = \"NAME\" } or { command = [\"program\"] }; then have a new one made");
        }
        if refuse_clear && !place.key("encrypt_to").exists() {
            self.problems
                .error(
                    Some(place.key("refuse_clear").key_span()),
                    "what this store writes is in the clear, and would not be read",
                )
                .hint("name the public keys to encrypt to: encrypt_to = [\"age1…\"]");
        }
        let identity = identity.map(|raw| self.key(raw, place.key("identity")));
        Encryption { encrypt_to, identity, refuse_clear }
    }

    fn key(&mut self, raw: Reference, place: Place<'_>) -> SecretRef {
        match raw {
            Reference::Env(name) => SecretRef::Env(name),
            Reference::File(path) => SecretRef::File(self.path(&path, place.key("file"))),
            Reference::Command(argv) => SecretRef::Command(self.argv(Argv(argv))),
            Reference::Plain(secret) => SecretRef::Plain(secret),
        }
    }

    fn reference(&mut self, raw: Reference, kind: SystemKind, place: Place<'_>) -> SecretRef {
        match raw {
            Reference::Plain(secret) => {
                let url = secret.expose();
                if holds_password(url) {
                    self.problems
                        .error(Some(place.span()), "this URL holds a password, and files are copied and committed")
                        .hint("put the URL elsewhere and say where: url = { env = \"NAME\" }, { file = \"path\" } or { command = [\"program\"] }; then change the password");
                } else if !url.is_empty() && !fits(url, kind) {
                    let example = match kind {
                        SystemKind::Postgres => "postgresql://user@host:5432/database",
                        SystemKind::Redis => "redis://host:6379",
                    };
                    self.problems
                        .error(Some(place.span()), format!("this is not the URL of a {} server", kind.word()))
                        .hint(format!("it looks like {example}"));
                }
                SecretRef::Plain(secret)
            }
            elsewhere => self.key(elsewhere, place),
        }
    }

    /// Two systems that share a place would overwrite each other.
    fn check_collisions(&mut self, systems: &IndexMap<String, System>) {
        let root = self.root.key("systems");
        // What is missing collides with nothing.
        let said =
            |name: &str| root.key(name).key("restore").key("directory").text().is_some_and(|text| !text.is_empty());
        for (index, (name, system)) in systems.iter().enumerate().filter(|(_, (name, _))| said(name)) {
            let place = root.key(name);
            for (earlier, other) in systems.iter().take(index).filter(|(earlier, _)| said(earlier)) {
                if system.managed().is_none() && system.restore.directory == other.restore.directory {
                    self.problems
                        .error(
                            Some(place.key("restore").key("directory").span()),
                            format!("`{earlier}` is restored into the same directory"),
                        )
                        .hint("give each system a directory of its own");
                }
                if system.restore.port != 0 && system.restore.port == other.restore.port {
                    self.problems
                        .error(
                            Some(place.key("restore").key("port").span()),
                            format!("`{earlier}` is restored to the same port"),
                        )
                        .hint("give each system a port of its own, or leave it out for a free one");
                }
                if (&system.backups.store, &system.backups.prefix) == (&other.backups.store, &other.backups.prefix) {
                    self.problems
                        .error(
                            Some(place.key("backups").span()),
                            format!("the backups of `{earlier}` are in the same folder"),
                        )
                        .hint("give each system a prefix of its own, or leave it out");
                }
            }
        }
    }
}

/// Whether a connection URL, or PostgreSQL's `key=value` spelling, holds a password.
fn holds_password(url: &str) -> bool {
    if url.contains("password=") {
        return true;
    }
    let Some((_, rest)) = url.split_once("://") else { return false };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or(rest);
    // A password may itself hold an `@` or a `/`: everything before the last `@` counts.
    let user = rest.rsplit_once('@').map(|(user, _)| user).or_else(|| authority.rsplit_once('@').map(|(user, _)| user));
    user.and_then(|user| user.split_once(':')).is_some_and(|(_, password)| !password.is_empty())
}

fn fits(url: &str, kind: SystemKind) -> bool {
    let schemes: &[&str] = match kind {
        SystemKind::Postgres => &["postgres", "postgresql"],
        SystemKind::Redis => &["redis", "rediss", "redis+unix", "unix"],
    };
    match url.split_once("://") {
        Some((scheme, _)) => schemes.contains(&scheme),
        None => kind == SystemKind::Postgres && url.contains('='),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_found_in_every_spelling() {
        for with in [
            "postgres://app:hunter2@db/orders",
            "postgres://app:a/b@c@db/orders",
            "redis://:hunter2@cache:6379",
            "host=db user=app password=hunter2",
            "postgresql:///orders?host=/run&password=hunter2",
        ] {
            assert!(holds_password(with), "{with}");
        }
        for without in [
            "postgres://app@db:5432/orders",
            "redis://127.0.0.1:6379/0",
            "postgresql:///orders?host=/var/run/postgresql",
            "host=/run/pg user=app",
            "postgres://app:@db/orders",
        ] {
            assert!(!holds_password(without), "{without}");
        }
    }
}
