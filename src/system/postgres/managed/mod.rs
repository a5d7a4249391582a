//! PostgreSQL that a cloud runs: what can be recovered of it, and a restore into a new instance, by the cloud's own
//! command-line tool.
//!
//! What such a tool says is reported, not observed; see [`answer`] for how far it is trusted.
//!
//! Nothing here deletes, and nothing changes an instance but the one that the very same restore has made. That one's name
//! is worked out from drill, step and recovery point: whoever looks again, after a crash or on another machine, finds it
//! under that name, and the cloud itself refuses a second one.

mod answer;
mod args;
mod aurora;
mod azure;
mod cloud_sql;
mod rds;
mod restore;
mod tool;

use std::collections::BTreeMap;

use chrono::{DateTime, SecondsFormat, Utc};
use futures::future::BoxFuture;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::digest::Digest;
use crate::event::Failure;
use crate::inventory::{self, ManagedBy};

use tool::{Complaint, Tool, Trouble};

pub use restore::{Patience, Restore, Restored};

/// The tag or label that says which drill made an instance.
const MARK: &str = "lifeboat-drill";

/// Variables of a cloud's own: its tool gets them even where the inventory names them too, for a store of that cloud.
const OWN: [&str; 6] = ["AWS_", "AZURE_", "ARM_", "GOOGLE_", "CLOUDSDK_", "GCLOUD_"];

/// A PostgreSQL that a cloud runs, and the tool that knows it.
#[derive(Debug, Clone)]
pub struct Managed {
    pub of: inventory::Managed,
    /// Variables of the environment that hold secrets.
    pub secrets: Vec<String>,
}

/// What can be restored to, as the cloud reports it. What is absent it does not say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reported {
    pub earliest: Option<DateTime<Utc>>,
    pub latest: Option<DateTime<Utc>>,
    /// Things that a person should know.
    pub warnings: Vec<String>,
}

/// To what it is restored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// The newest that the cloud has when it begins.
    Latest,
    At(DateTime<Utc>),
}

impl Moment {
    /// As the tools take it: UTC, whole seconds. A part of a second is cut off: what came in it is given up, never gained.
    fn text(self) -> Option<String> {
        match self {
            Self::Latest => None,
            Self::At(time) => Some(time.to_rfc3339_opts(SecondsFormat::Secs, true)),
        }
    }
}

/// For whom an instance is made: it is found again by this.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    pub drill: String,
    pub system: String,
    pub effect_key: String,
}

/// Where clients reach an instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// A name, an IPv4 address, or an IPv6 address in brackets.
    pub host: String,
    /// The same as the source's when absent.
    pub port: Option<u16>,
}

/// How far the cloud is with an instance.
#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    /// In the cloud's word for it.
    Working(String),
    Ready,
    /// It becomes nothing by itself.
    Broken(String),
}

/// An instance as its cloud describes it.
#[derive(Debug, Clone)]
struct Instance {
    name: String,
    state: State,
    /// With what the cloud calls this kind of address; the one to take first.
    endpoints: Vec<(String, Endpoint)>,
    /// By what people call it: everything that a restored instance must have in common with its source.
    settings: BTreeMap<String, String>,
    /// The drill that has made it, by its tag.
    drill: Option<String>,
    answer: Value,
}

/// A restore as it is ordered from a cloud.
struct Order<'a> {
    /// Of the new instance.
    name: &'a str,
    moment: Moment,
    owner: &'a Owner,
}

impl Order<'_> {
    /// What the new instance is marked with.
    fn tags(&self) -> [(&'static str, String); 3] {
        let moment = self.moment.text().unwrap_or_else(|| "latest".to_owned());
        [(MARK, self.owner.drill.clone()), ("lifeboat-system", self.owner.system.clone()), ("lifeboat-point", moment)]
    }
}

/// A command that makes a new instance more like its source.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Repair {
    /// In a few words, for people.
    does: String,
    args: Vec<String>,
    /// As releases of the tool take it that do not know those arguments.
    older: Option<Vec<String>>,
}

impl Repair {
    fn new(does: impl Into<String>, args: Vec<String>) -> Self {
        Self { does: does.into(), args, older: None }
    }
}

/// One cloud's dialect.
trait Provider: Send + Sync {
    fn tool(&self) -> &Tool;

    /// `None` when there is none of that name.
    fn describe<'a>(
        &'a self,
        name: &'a str,
        cancel: &'a CancellationToken,
    ) -> BoxFuture<'a, Result<Option<Instance>, Complaint>>;

    fn window<'a>(
        &'a self,
        source: &'a Instance,
        cancel: &'a CancellationToken,
    ) -> BoxFuture<'a, Result<Reported, Complaint>>;

    /// The command that orders a new instance. The error is what of the source's settings is no name.
    fn create(&self, source: &Instance, order: &Order<'_>) -> Result<Vec<String>, String>;

    /// What is still to be done to `new`, which is ready, by commands that change nothing else.
    fn repairs(&self, source: &Instance, new: &Instance, order: &Order<'_>) -> Vec<Repair>;

    /// Settings that every instance has: its size, its version, its storage.
    fn essential(&self) -> &'static [&'static str];

    /// How a person gets rid of an instance.
    fn removal(&self, name: &str) -> String;
}

impl Managed {
    fn provider(&self) -> Box<dyn Provider> {
        let own = |name: &String| OWN.iter().any(|start| name.starts_with(start));
        let program = self.of.program.clone();
        let hidden = self.secrets.iter().filter(|name| !own(name)).cloned().collect();
        match &self.of.by {
            ManagedBy::Rds { region } => Box::new(rds::Rds::new(program, region.as_deref(), hidden)),
            ManagedBy::Aurora { region } => Box::new(aurora::Aurora::new(program, region.as_deref(), hidden)),
            ManagedBy::CloudSql { project } => Box::new(cloud_sql::CloudSql::new(program, project.as_deref(), hidden)),
            ManagedBy::Azure { resource_group, subscription } => {
                Box::new(azure::Azure::new(program, resource_group, subscription.as_deref(), hidden))
            }
        }
    }

    /// What can be restored to.
    pub async fn window(&self, cancel: &CancellationToken) -> Result<Reported, Failure> {
        let provider = self.provider();
        let failed =
            |complaint: Complaint| complaint.fails(format!("the backups of {} cannot be looked at", self.title()));
        let source = self.source(provider.as_ref(), cancel).await?;
        provider.window(&source, cancel).await.map_err(failed)
    }

    async fn source(&self, provider: &dyn Provider, cancel: &CancellationToken) -> Result<Instance, Failure> {
        let what = || format!("{} cannot be looked at", self.title());
        match provider.describe(&self.of.instance, cancel).await {
            Ok(Some(source)) => Ok(source),
            Ok(None) => {
                let tool = provider.tool();
                let complaint = Complaint {
                    trouble: Trouble::Absent,
                    cloud: tool.cloud,
                    tool: tool.name(),
                    command: String::new(),
                    why: "there is no such instance".to_owned(),
                };
                Err(complaint.fails(what()))
            }
            Err(complaint) => Err(complaint.fails(what())),
        }
    }

    /// `orders of Amazon RDS`.
    pub fn title(&self) -> String {
        format!("{} of {}", self.of.instance, self.of.by.title())
    }

    /// How a person gets rid of an instance that a restore made.
    pub fn removal(&self, name: &str) -> String {
        self.provider().removal(name)
    }

    /// The name of the instance that a restore makes: the source's, and twelve digits that no other restore has.
    pub fn new_name(&self, owner: &Owner, moment: Moment) -> String {
        let moment = moment.text().unwrap_or_default();
        let mark = [&owner.drill, &owner.system, &owner.effect_key, &moment].map(|part| part.replace('\n', " "));
        let digest = Digest::of(mark.join("\n").as_bytes()).short();
        // 63 characters is what RDS and Azure take.
        let stem: String = self.of.instance.to_lowercase().chars().take(40).collect();
        format!("{}-lb-{digest}", stem.trim_end_matches('-'))
    }
}

/// By setting, where two instances differ: what the source has, and what the new one has. Of what every instance has, an
/// answer without it is not understood, and so never the same.
fn differences(source: &Instance, new: &Instance, essential: &[&str]) -> Vec<(String, String, String)> {
    let of = |instance: &Instance, name: &str| instance.settings.get(name).cloned().unwrap_or_default();
    let names = source.settings.keys().chain(new.settings.keys().filter(|name| !source.settings.contains_key(*name)));
    let unlike = |(name, source, new): &(String, String, String)| {
        source != new || (source.is_empty() && essential.contains(&name.as_str()))
    };
    names.map(|name| (name.clone(), of(source, name), of(new, name))).filter(unlike).collect()
}
