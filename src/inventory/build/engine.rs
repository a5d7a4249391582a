//! Who makes a system's backups, and what that one wants to know.

use std::path::PathBuf;

use super::Builder;
use super::managed::ManagedKeys;
use crate::document::{Place, Text};
use crate::inventory::{BackupEngine, ManagedBy, raw};
use crate::runbook::SystemKind;

/// What a file says beside `engine`.
pub struct EngineKeys {
    pub stanza: Option<Text>,
    pub server: Option<Text>,
    pub config: Option<Text>,
    pub program: Option<Text>,
    pub managed: ManagedKeys,
}

impl Builder<'_> {
    pub(super) fn engine(
        &mut self,
        engine: raw::Engine,
        said: EngineKeys,
        kind: SystemKind,
        place: Place<'_>,
    ) -> BackupEngine {
        let takes: &[&str] = match engine {
            raw::Engine::Lifeboat => &[],
            raw::Engine::Pgbackrest => &["stanza", "config", "program"],
            raw::Engine::Barman => &["server", "config", "program"],
            raw::Engine::WalG => &["config", "program"],
            raw::Engine::Rds | raw::Engine::Aurora => &["instance", "region", "program"],
            raw::Engine::CloudSql => &["instance", "project", "program"],
            raw::Engine::Azure => &["instance", "resource_group", "subscription", "program"],
        };
        let word = match engine {
            raw::Engine::Lifeboat => "lifeboat",
            raw::Engine::Pgbackrest => "pgbackrest",
            raw::Engine::Barman => "barman",
            raw::Engine::WalG => "wal-g",
            raw::Engine::Rds => "rds",
            raw::Engine::Aurora => "aurora",
            raw::Engine::CloudSql => "cloud-sql",
            raw::Engine::Azure => "azure",
        };
        let own =
            [("stanza", &said.stanza), ("server", &said.server), ("config", &said.config), ("program", &said.program)];
        let keys: Vec<_> = own.into_iter().chain(said.managed.all()).collect();
        for (key, _) in keys.iter().filter(|(key, value)| value.is_some() && !takes.contains(key)) {
            let hint = match takes {
                [] => {
                    let other = match *key {
                        "server" => "barman",
                        "project" => "cloud-sql",
                        "resource_group" | "subscription" => "azure",
                        "instance" | "region" => "rds",
                        _ => "pgbackrest",
                    };
                    format!("it belongs to another engine: engine = \"{other}\"; or leave it out")
                }
                takes => format!("leave it out: it takes {}", crate::document::list(takes.iter().copied(), "and")),
            };
            self.problems
                .error(Some(place.key(key).key_span()), format!("the engine `{word}` has no `{key}`"))
                .hint(hint);
        }
        if !takes.is_empty() && kind != SystemKind::Postgres {
            self.problems
                .error(Some(place.key("engine").span()), format!("`{word}` makes no backups of {}", kind.word()))
                .hint("leave the engine out: Lifeboat makes them itself");
        }
        let path =
            |own: &mut Self, key: &str, value: Option<Text>| value.map(|Text(path)| own.path(&path, place.key(key)));
        match engine {
            raw::Engine::Lifeboat => BackupEngine::Lifeboat,
            raw::Engine::Pgbackrest => BackupEngine::PgBackRest {
                stanza: self.engine_name(said.stanza, "stanza", "the stanza of pgBackRest", place),
                config: path(self, "config", said.config),
                program: path(self, "program", said.program).unwrap_or_else(|| PathBuf::from("pgbackrest")),
            },
            raw::Engine::Barman => BackupEngine::Barman {
                server: self.engine_name(said.server, "server", "the server of Barman", place),
                config: path(self, "config", said.config),
                program: path(self, "program", said.program).unwrap_or_else(|| PathBuf::from("barman")),
            },
            raw::Engine::WalG => BackupEngine::WalG {
                config: path(self, "config", said.config),
                program: path(self, "program", said.program).unwrap_or_else(|| PathBuf::from("wal-g")),
            },
            raw::Engine::Rds | raw::Engine::Aurora => {
                let region = self.whereabouts(said.managed.region, "region", place);
                let by = match engine {
                    raw::Engine::Aurora => ManagedBy::Aurora { region },
                    _ => ManagedBy::Rds { region },
                };
                self.managed(by, "aws", said.managed.instance, said.program, place)
            }
            raw::Engine::CloudSql => {
                let by = ManagedBy::CloudSql { project: self.whereabouts(said.managed.project, "project", place) };
                self.managed(by, "gcloud", said.managed.instance, said.program, place)
            }
            raw::Engine::Azure => {
                let group = said.managed.resource_group;
                let by = ManagedBy::Azure {
                    resource_group: self.engine_name(group, "resource_group", "a resource group", place),
                    subscription: self.whereabouts(said.managed.subscription, "subscription", place),
                };
                self.managed(by, "az", said.managed.instance, said.program, place)
            }
        }
    }

    /// By what the engine knows the system.
    pub(super) fn engine_name(&mut self, said: Option<Text>, key: &str, what: &str, place: Place<'_>) -> String {
        let Some(Text(name)) = said else {
            self.problems
                .error(Some(place.key("engine").span()), format!("this engine needs `{key}`"))
                .hint(format!("say {what}: {key} = \"main\""));
            return String::new();
        };
        let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        if name.starts_with('-') || !name.chars().all(plain) {
            self.problems
                .error(Some(place.key(key).span()), format!("`{name}` cannot be {what}"))
                .hint("it has letters, digits, `.`, `_` and `-` only");
        }
        name
    }
}
