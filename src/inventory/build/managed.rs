//! A PostgreSQL that a cloud runs: what the cloud calls it, and where to look for it there.

use std::path::PathBuf;

use super::Builder;
use crate::document::{Place, Text};
use crate::inventory::{BackupEngine, Managed, ManagedBy};

/// What a file says of it beside `engine`.
pub struct ManagedKeys {
    pub instance: Option<Text>,
    pub region: Option<Text>,
    pub project: Option<Text>,
    pub resource_group: Option<Text>,
    pub subscription: Option<Text>,
}

impl ManagedKeys {
    /// By key.
    pub fn all(&self) -> [(&'static str, &Option<Text>); 5] {
        [
            ("instance", &self.instance),
            ("region", &self.region),
            ("project", &self.project),
            ("resource_group", &self.resource_group),
            ("subscription", &self.subscription),
        ]
    }
}

impl Builder<'_> {
    /// `tool` is the cloud's own command-line tool.
    pub(super) fn managed(
        &mut self,
        by: ManagedBy,
        tool: &str,
        instance: Option<Text>,
        program: Option<Text>,
        place: Place<'_>,
    ) -> BackupEngine {
        let program = program.map(|Text(path)| self.path(&path, place.key("program")));
        BackupEngine::Managed(Managed {
            by,
            program: program.unwrap_or_else(|| PathBuf::from(tool)),
            instance: self.engine_name(instance, "instance", "what the cloud calls it", place),
        })
    }

    /// Where a cloud is to look; its tool knows when absent.
    pub(super) fn whereabouts(&mut self, said: Option<Text>, key: &str, place: Place<'_>) -> Option<String> {
        said.map(|name| self.engine_name(Some(name), key, &format!("a {}", key.replace('_', " ")), place))
    }
}
