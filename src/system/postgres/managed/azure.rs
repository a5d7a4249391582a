//! Azure Database for PostgreSQL, flexible server, by `az postgres flexible-server`.
//!
//! A restore keeps size and network, and leaves out firewall rules, high availability and tags; server parameters are set
//! again where they differ. Up to when it can restore Azure does not report.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::PathBuf;

use futures::future::BoxFuture;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::answer::{host, is_plain, is_word, list, raw, shown, text, texts, time, word};
use super::args::{command, one};
use super::tool::{Complaint, Tool, Trouble};
use super::{Instance, MARK, Order, Provider, Repair, Reported, State};

/// What `az` complains of.
const SIGNS: &[(&str, Trouble)] = &[
    ("unrecognized arguments", Trouble::Dialect),
    ("already used", Trouble::Taken),
    ("AlreadyExists", Trouble::Taken),
    ("(ResourceGroupNotFound)", Trouble::Nowhere),
    ("SubscriptionNotFound", Trouble::Nowhere),
    ("Please run 'az account set'", Trouble::Nowhere),
    ("(ResourceNotFound)", Trouble::Absent),
    ("AADSTS", Trouble::Credentials),
    ("az login", Trouble::Credentials),
    ("ExpiredAuthenticationToken", Trouble::Credentials),
    ("InvalidAuthenticationToken", Trouble::Credentials),
    ("AuthorizationFailed", Trouble::Denied),
    ("RequestDisallowedByPolicy", Trouble::Denied),
    ("QuotaExceeded", Trouble::Quota),
    ("Quota", Trouble::Quota),
    ("ServerIsBusy", Trouble::Away),
    ("ServerBusy", Trouble::Away),
    ("OperationInProgress", Trouble::Away),
    ("TooManyRequests", Trouble::Away),
    ("ServiceUnavailable", Trouble::Away),
    ("Failed to establish a new connection", Trouble::Away),
    ("Max retries exceeded", Trouble::Away),
    ("PointInTime", Trouble::Time),
    ("RestorePoint", Trouble::Time),
];

const GROUP: [&str; 2] = ["postgres", "flexible-server"];

pub(super) struct Azure {
    tool: Tool,
    resource_group: String,
}

impl Azure {
    pub(super) fn new(program: PathBuf, resource_group: &str, subscription: Option<&str>, hidden: Vec<String>) -> Self {
        let mut options = command(&["--resource-group", resource_group, "--output", "json", "--only-show-errors"]);
        options.extend(subscription.into_iter().flat_map(|it| ["--subscription".to_owned(), it.to_owned()]));
        let env: &[_] = &[("AZURE_CORE_COLLECT_TELEMETRY", "false"), ("AZURE_CORE_NO_COLOR", "true")];
        let cloud = "Azure Database for PostgreSQL";
        let tool = Tool { program, cloud, options, env, hidden, signs: SIGNS };
        Self { tool, resource_group: resource_group.to_owned() }
    }
}

fn of(words: &[&str]) -> Vec<String> {
    command(&[&GROUP[..], words].concat())
}

impl Provider for Azure {
    fn tool(&self) -> &Tool {
        &self.tool
    }

    /// The answer holds the server, and once it is ready its firewall rules and parameters.
    fn describe<'a>(
        &'a self,
        name: &'a str,
        cancel: &'a CancellationToken,
    ) -> BoxFuture<'a, Result<Option<Instance>, Complaint>> {
        Box::pin(async move {
            let shown = self.tool.look_for(&of(&["show", "--name", name]), cancel).await?;
            let Some(server) = shown.map(flat) else { return Ok(None) };
            let (mut rules, mut parameters) = (Value::Null, Value::Null);
            // Of a server that is reached by its network only, `az` refuses to tell any.
            if state(&server) == State::Ready && text(&server, "/network/publicNetworkAccess") != "Disabled" {
                let (newer, older) = (["--server-name", name], ["--name", name]);
                let [newer, older] =
                    [newer, older].map(|server| of(&[&["firewall-rule", "list"][..], &server[..]].concat()));
                rules = self.tool.call_either(&newer, Some(&older), cancel).await?;
            }
            if state(&server) == State::Ready {
                parameters = self.tool.call(&of(&["parameter", "list", "--server-name", name]), cancel).await?;
            }
            Ok(Some(instance(name, json!({ "server": server, "rules": rules, "parameters": parameters }))))
        })
    }

    fn window<'a>(
        &'a self,
        source: &'a Instance,
        _cancel: &'a CancellationToken,
    ) -> BoxFuture<'a, Result<Reported, Complaint>> {
        let earliest = time(&source.answer, "/server/backup/earliestRestoreDate");
        Box::pin(async move { Ok(Reported { earliest, latest: None, warnings: Vec::new() }) })
    }

    fn create(&self, source: &Instance, order: &Order<'_>) -> Result<Vec<String>, String> {
        let from = &source.answer["server"];
        let mut args = of(&["restore", "--name", order.name, "--source-server", &source.name, "--yes", "--no-wait"]);
        // It restores to now when nothing is said.
        args.extend(order.moment.text().into_iter().flat_map(|time| ["--restore-time".to_owned(), time]));
        one(&mut args, "--geo-redundant-backup", from, "/backup/geoRedundantBackup")?;
        if text(from, "/dataEncryption/type") == "AzureKeyVault" {
            one(&mut args, "--key", from, "/dataEncryption/primaryKeyUri")?;
            one(&mut args, "--identity", from, "/dataEncryption/primaryUserAssignedIdentityId")?;
        }
        Ok(args)
    }

    fn repairs(&self, source: &Instance, new: &Instance, order: &Order<'_>) -> Vec<Repair> {
        let mut repairs = tags(source, new, order);
        let differs = |name: &str| source.settings.get(name) != new.settings.get(name);
        for rule in list(&source.answer, "/rules") {
            repairs.extend(differs(&rule_setting(rule)).then(|| allow(rule, &new.name)).flatten());
        }
        for parameter in overridden(&source.answer) {
            let name = parameter_setting(parameter);
            repairs.extend(differs(&name).then(|| set(parameter, &new.name)).flatten());
        }
        let restart =
            list(&new.answer, "/parameters").any(|it| it.pointer("/isConfigPendingRestart") == Some(&true.into()));
        if repairs.is_empty() && restart {
            let args = of(&["restart", "--name", &new.name]);
            repairs.push(Repair::new("restarting it for its parameters", args));
        }
        let mode = text(&source.answer, "/server/highAvailability/mode");
        if repairs.is_empty() && differs(AVAILABILITY) && ["ZoneRedundant", "SameZone"].contains(&mode.as_str()) {
            let update = of(&["update", "--name", &new.name, "--yes"]);
            let with = |words: &[&str]| [update.clone(), command(words)].concat();
            let mut newer = with(&["--zonal-resiliency", "Enabled"]);
            newer.extend((mode == "SameZone").then(|| "--allow-same-zone".to_owned()));
            let older = Some(with(&["--high-availability", &mode]));
            repairs.push(Repair { older, ..Repair::new(format!("setting {AVAILABILITY}"), newer) });
        }
        repairs
    }

    fn essential(&self) -> &'static [&'static str] {
        &["compute size", "version", "storage in GiB"]
    }

    fn removal(&self, name: &str) -> String {
        format!("az postgres flexible-server delete --resource-group {} --name {name}", self.resource_group)
    }
}

const AVAILABILITY: &str = "high availability";

/// As its releases spell it.
const SPELT: [(&str, &str, &str); 2] =
    [("/storage", "storageSizeGB", "storageSizeGb"), ("/dataEncryption", "primaryKeyURI", "primaryKeyUri")];

/// Releases differ in whether most of it stands below `properties`, and in how they spell some of it.
fn flat(mut server: Value) -> Value {
    if let Some(Value::Object(properties)) = server.get_mut("properties").map(Value::take)
        && let Some(server) = server.as_object_mut()
    {
        server.extend(properties);
    }
    for (at, other, name) in SPELT {
        if let Some(Value::Object(part)) = server.pointer_mut(at)
            && let Some(value) = part.remove(other)
        {
            part.insert(name.to_owned(), value);
        }
    }
    server
}

fn rule_setting(rule: &Value) -> String {
    format!("firewall rule {}", text(rule, "/name"))
}

fn parameter_setting(parameter: &Value) -> String {
    format!("parameter {}", text(parameter, "/name"))
}

/// Parameters that somebody set.
fn overridden(answer: &Value) -> impl Iterator<Item = &Value> {
    let set = |parameter: &&Value| {
        text(parameter, "/source") == "user-override" && parameter.pointer("/isReadOnly") != Some(&true.into())
    };
    list(answer, "/parameters").filter(set)
}

fn allow(rule: &Value, server: &str) -> Option<Repair> {
    let rule = flat(rule.clone());
    let address = |at: &str| text(&rule, at).parse::<Ipv4Addr>().ok().map(|address| address.to_string());
    let (name, from, to) = (word(&rule, "/name")?, address("/startIpAddress")?, address("/endIpAddress")?);
    let create = |words: [&str; 4]| {
        let range = ["--start-ip-address", &from, "--end-ip-address", &to];
        of(&[&["firewall-rule", "create"][..], &words[..], &range[..]].concat())
    };
    let newer = create(["--server-name", server, "--name", &name]);
    let older = Some(create(["--name", server, "--rule-name", &name]));
    Some(Repair { older, ..Repair::new(format!("adding the firewall rule {name}"), newer) })
}

fn set(parameter: &Value, server: &str) -> Option<Repair> {
    let name = word(parameter, "/name")?;
    let value = parameter.pointer("/value")?.as_str().filter(|value| is_plain(value))?;
    let mut args = of(&["parameter", "set", "--server-name", server, "--name", &name]);
    // Whatever it begins with.
    args.push(format!("--value={value}"));
    Some(Repair::new(format!("setting the parameter {name}"), args))
}

/// The source's tags and the order's own: a restore carries none over.
fn tags(source: &Instance, new: &Instance, order: &Order<'_>) -> Vec<Repair> {
    if new.drill.is_some() && source.settings.get(TAGS) == new.settings.get(TAGS) {
        return Vec::new();
    }
    let theirs = source.answer.pointer("/server/tags").and_then(Value::as_object).into_iter().flatten();
    let theirs = theirs.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())));
    let fits = |(key, value): &(String, String)| {
        is_word(key) && is_plain(value) && order.tags().iter().all(|(own, _)| own != key)
    };
    let own = order.tags().map(|(key, value)| (key.to_owned(), value));
    let all = theirs.filter(fits).chain(own).map(|(key, value)| format!("{key}={value}"));
    let mut args = of(&["update", "--name", &new.name, "--yes", "--tags"]);
    args.extend(all);
    vec![Repair::new("setting its tags", args)]
}

const TAGS: &str = "tags";

fn instance(name: &str, answer: Value) -> Instance {
    let server = &answer["server"];
    let mut settings: BTreeMap<String, String> = texts(
        server,
        [
            ("location", "/location"),
            ("version", "/version"),
            ("compute size", "/sku/name"),
            ("compute tier", "/sku/tier"),
            ("storage in GiB", "/storage/storageSizeGb"),
            ("storage type", "/storage/type"),
            ("storage tier", "/storage/tier"),
            ("storage growth", "/storage/autoGrow"),
            ("days that backups are kept", "/backup/backupRetentionDays"),
            ("geo-redundant backup", "/backup/geoRedundantBackup"),
            (AVAILABILITY, "/highAvailability/mode"),
            ("public access", "/network/publicNetworkAccess"),
            ("subnet", "/network/delegatedSubnetResourceId"),
            ("private DNS zone", "/network/privateDnsZoneArmResourceId"),
            ("password authentication", "/authConfig/passwordAuth"),
            ("Entra authentication", "/authConfig/activeDirectoryAuth"),
            ("encryption", "/dataEncryption/type"),
            ("encryption key", "/dataEncryption/primaryKeyUri"),
            ("maintenance window", "/maintenanceWindow/customWindow"),
        ],
    )
    .collect();
    let tags = server.pointer("/tags").and_then(Value::as_object).into_iter().flatten();
    let theirs = tags.filter(|(key, _)| !key.starts_with("lifeboat-"));
    let theirs: Vec<String> = theirs.map(|(key, value)| format!("{key}={}", raw(value, ""))).collect();
    settings.insert(TAGS.to_owned(), theirs.join(", "));
    settings.extend(list(&answer, "/rules").map(|rule| {
        let range = flat(rule.clone());
        (rule_setting(rule), format!("{} to {}", raw(&range, "/startIpAddress"), raw(&range, "/endIpAddress")))
    }));
    settings.extend(overridden(&answer).map(|it| (parameter_setting(it), raw(it, "/value"))));
    let name_of = server.pointer("/fullyQualifiedDomainName").and_then(Value::as_str).unwrap_or_default();
    let mark = server.get("tags").and_then(|tags| tags.get(MARK)).and_then(Value::as_str);
    Instance {
        name: name.to_owned(),
        state: state(server),
        endpoints: host(name_of).map(|endpoint| (String::new(), endpoint)).into_iter().collect(),
        settings,
        drill: mark.map(shown),
        answer,
    }
}

fn state(server: &Value) -> State {
    let state = text(server, "/state");
    match state.as_str() {
        "Ready" => State::Ready,
        "Disabled" | "Dropping" | "Stopped" | "Stopping" | "Inaccessible" | "Failed" => State::Broken(state),
        "" => State::Working("being made".to_owned()),
        _ => State::Working(state),
    }
}
