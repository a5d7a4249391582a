//! Google Cloud SQL for PostgreSQL, by `gcloud sql`.
//!
//! A restore to a point in time is a clone; its settings are the source's, but for what is compared here and patched. It
//! takes no labels along with the order: they are set once it is there.

use std::collections::BTreeMap;
use std::path::PathBuf;

use futures::future::BoxFuture;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::answer::{flag, host, is_plain, is_word, joined, list, number, raw, shown, text, texts, time, word};
use super::args::command;
use super::tool::{Complaint, Tool, Trouble};
use super::{Instance, MARK, Order, Provider, Repair, Reported, State};

/// What `gcloud` complains of.
const SIGNS: &[(&str, Trouble)] = &[
    ("another operation was already in progress", Trouble::Away),
    ("already exists", Trouble::Taken),
    ("instance does not exist", Trouble::Absent),
    ("HTTPError 404", Trouble::Absent),
    ("gcloud auth login", Trouble::Credentials),
    ("Reauthentication", Trouble::Credentials),
    ("invalid_grant", Trouble::Credentials),
    ("refreshing your current auth tokens", Trouble::Credentials),
    ("do not currently have an active account", Trouble::Credentials),
    ("required property [project]", Trouble::Nowhere),
    ("HTTPError 403", Trouble::Denied),
    ("PERMISSION_DENIED", Trouble::Denied),
    ("RESOURCE_EXHAUSTED", Trouble::Quota),
    ("uota", Trouble::Quota),
    ("HTTPError 429", Trouble::Away),
    ("HTTPError 503", Trouble::Away),
    ("Unable to find the server", Trouble::Away),
    ("Max retries exceeded", Trouble::Away),
    ("point in time", Trouble::Time),
    ("recovery window", Trouble::Time),
];

pub(super) struct CloudSql {
    tool: Tool,
}

impl CloudSql {
    pub(super) fn new(program: PathBuf, project: Option<&str>, hidden: Vec<String>) -> Self {
        let mut options = command(&["--format=json", "--quiet"]);
        options.extend(project.map(|project| format!("--project={project}")));
        let env: &[_] = &[("CLOUDSDK_CORE_DISABLE_PROMPTS", "1"), ("CLOUDSDK_CORE_DISABLE_USAGE_REPORTING", "true")];
        Self { tool: Tool { program, cloud: "Google Cloud SQL", options, env, hidden, signs: SIGNS } }
    }
}

fn of(words: &[&str]) -> Vec<String> {
    command(&[&["sql", "instances"][..], words].concat())
}

impl Provider for CloudSql {
    fn tool(&self) -> &Tool {
        &self.tool
    }

    fn describe<'a>(
        &'a self,
        name: &'a str,
        cancel: &'a CancellationToken,
    ) -> BoxFuture<'a, Result<Option<Instance>, Complaint>> {
        Box::pin(async move {
            let found = self.tool.look_for(&of(&["describe", name]), cancel).await?;
            Ok(found.filter(|found| text(found, "/name") == name).map(|found| instance(name, found)))
        })
    }

    fn window<'a>(
        &'a self,
        source: &'a Instance,
        cancel: &'a CancellationToken,
    ) -> BoxFuture<'a, Result<Reported, Complaint>> {
        Box::pin(async move {
            if flag(&source.answer, "/settings/backupConfiguration/pointInTimeRecoveryEnabled") != Some(true) {
                let warning = format!("point-in-time recovery is not enabled for {}", source.name);
                return Ok(Reported { earliest: None, latest: None, warnings: vec![warning] });
            }
            let answer = match self.tool.call(&of(&["get-latest-recovery-time", &source.name]), cancel).await {
                Ok(answer) => answer,
                // An old release does not ask it, and of logs that are kept on the instance's disk nobody tells it; a clone
                // that cannot be made is refused all the same.
                Err(complaint)
                    if [Trouble::Other, Trouble::Dialect, Trouble::Time].contains(&complaint.trouble)
                        && !cancel.is_cancelled() =>
                {
                    let warning = format!("what {} can be restored to is not told: {complaint}", source.name);
                    return Ok(Reported { earliest: None, latest: None, warnings: vec![warning] });
                }
                Err(complaint) => return Err(complaint),
            };
            Ok(Reported {
                earliest: time(&answer, "/earliestRecoveryTime"),
                latest: time(&answer, "/latestRecoveryTime"),
                warnings: Vec::new(),
            })
        })
    }

    fn create(&self, source: &Instance, order: &Order<'_>) -> Result<Vec<String>, String> {
        let mut args = of(&["clone", &source.name, order.name, "--async"]);
        // The present state is cloned when nothing is said.
        args.extend(order.moment.text().map(|time| format!("--point-in-time={time}")));
        Ok(args)
    }

    fn repairs(&self, source: &Instance, new: &Instance, order: &Order<'_>) -> Vec<Repair> {
        let from = &source.answer;
        let differs = |name: &str| source.settings.get(name) != new.settings.get(name);
        let (mut options, mut said) = (Vec::new(), Vec::new());
        let mut fix = |name: &'static str, option: Option<String>| {
            if let (true, Some(option)) = (differs(name), option) {
                options.push(option);
                said.push(name);
            }
        };
        let switch =
            |option: &str, at: &str| flag(from, at).map(|on| format!("--{}{option}", if on { "" } else { "no-" }));
        let with = |option: &str, at: &str| word(from, at).map(|word| format!("--{option}={word}"));
        fix(FLAGS, flags(from));
        fix(NETWORKS, networks(from));
        fix(AVAILABILITY, with("availability-type", "/settings/availabilityType"));
        fix(
            RECOVERY,
            switch("enable-point-in-time-recovery", "/settings/backupConfiguration/pointInTimeRecoveryEnabled"),
        );
        fix(
            LOGS,
            number(from, "/settings/backupConfiguration/transactionLogRetentionDays")
                .map(|days| format!("--retained-transaction-log-days={days}")),
        );
        fix(BACKUPS, with("backup-start-time", "/settings/backupConfiguration/startTime"));
        fix(TLS, with("ssl-mode", "/settings/ipConfiguration/sslMode"));
        fix(DELETION, switch("deletion-protection", "/settings/deletionProtectionEnabled"));
        fix(
            INSIGHTS,
            switch("insights-config-query-insights-enabled", "/settings/insightsConfig/queryInsightsEnabled"),
        );
        if new.drill.is_none() || differs(LABELS) {
            options.push(format!("--update-labels={}", labels(from, order)));
            said.push(LABELS);
        }
        if options.is_empty() {
            return Vec::new();
        }
        let args = [of(&["patch", &new.name, "--async"]), options].concat();
        vec![Repair::new(format!("setting {}", said.join(", ")), args)]
    }

    fn essential(&self) -> &'static [&'static str] {
        &["machine", "version", "disk type"]
    }

    fn removal(&self, name: &str) -> String {
        format!("gcloud sql instances patch {name} --no-deletion-protection && gcloud sql instances delete {name}")
    }
}

const FLAGS: &str = "database flags";
const NETWORKS: &str = "authorized networks";
const AVAILABILITY: &str = "availability";
const RECOVERY: &str = "point-in-time recovery";
const LOGS: &str = "days that transaction logs are kept";
const BACKUPS: &str = "when backups begin";
const TLS: &str = "TLS mode";
const DELETION: &str = "deletion protection";
const INSIGHTS: &str = "query insights";
const LABELS: &str = "labels";

/// All flags at once, as a patch wants them; `None` where one could not be told from the next, or there are none.
fn flags(from: &Value) -> Option<String> {
    let each = list(from, "/settings/databaseFlags").map(|flag| {
        let value = flag.pointer("/value").and_then(Value::as_str).unwrap_or_default();
        let fits = is_plain(value) && !value.contains('~');
        fits.then(|| Some(format!("{}={value}", word(flag, "/name")?))).flatten()
    });
    let each = each.collect::<Option<Vec<String>>>()?;
    (!each.is_empty()).then(|| format!("--database-flags=^~^{}", each.join("~")))
}

fn networks(from: &Value) -> Option<String> {
    let networks = list(from, "/settings/ipConfiguration/authorizedNetworks").map(|network| word(network, "/value"));
    let networks = networks.collect::<Option<Vec<String>>>()?;
    (!networks.is_empty()).then(|| format!("--authorized-networks={}", networks.join(",")))
}

/// The source's labels and the order's own.
fn labels(from: &Value, order: &Order<'_>) -> String {
    let theirs = from.pointer("/settings/userLabels").and_then(Value::as_object).into_iter().flatten();
    let theirs = theirs.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())));
    let fits = |(key, value): &(String, String)| is_word(key) && (value.is_empty() || is_word(value));
    // A label has small letters, digits, `_` and `-` only.
    let plain = |c: char| if c.is_ascii_lowercase() || c.is_ascii_digit() || "_-".contains(c) { c } else { '-' };
    let own =
        order.tags().map(|(key, value)| (key.to_owned(), value.to_lowercase().chars().map(plain).take(63).collect()));
    let is_own = |key: &str| own.iter().any(|(name, _): &(String, String)| name == key);
    let all = theirs.filter(fits).filter(|(key, _)| !is_own(key)).chain(own.iter().cloned());
    all.map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",")
}

fn instance(name: &str, answer: Value) -> Instance {
    let mut settings: BTreeMap<String, String> = texts(
        &answer,
        [
            ("version", "/databaseVersion"),
            ("region", "/region"),
            ("machine", "/settings/tier"),
            ("edition", "/settings/edition"),
            (AVAILABILITY, "/settings/availabilityType"),
            ("disk type", "/settings/dataDiskType"),
            ("disk growth", "/settings/storageAutoResize"),
            ("automated backups", "/settings/backupConfiguration/enabled"),
            (RECOVERY, "/settings/backupConfiguration/pointInTimeRecoveryEnabled"),
            (LOGS, "/settings/backupConfiguration/transactionLogRetentionDays"),
            (BACKUPS, "/settings/backupConfiguration/startTime"),
            ("public address", "/settings/ipConfiguration/ipv4Enabled"),
            ("private network", "/settings/ipConfiguration/privateNetwork"),
            (TLS, "/settings/ipConfiguration/sslMode"),
            (DELETION, "/settings/deletionProtectionEnabled"),
            (INSIGHTS, "/settings/insightsConfig/queryInsightsEnabled"),
            ("encryption key", "/diskEncryptionConfiguration/kmsKeyName"),
        ],
    )
    .collect();
    let mut flags: Vec<String> = list(&answer, "/settings/databaseFlags")
        .map(|flag| format!("{}={}", raw(flag, "/name"), raw(flag, "/value")))
        .collect();
    flags.sort();
    let labels = answer.pointer("/settings/userLabels").and_then(Value::as_object).into_iter().flatten();
    let labels = labels.filter(|(key, _)| !key.starts_with("lifeboat-"));
    let labels: Vec<String> = labels.map(|(key, value)| format!("{key}={}", raw(value, ""))).collect();
    settings.extend([
        (FLAGS.to_owned(), flags.join(", ")),
        (NETWORKS.to_owned(), joined(&answer, "/settings/ipConfiguration/authorizedNetworks", "/value")),
        (LABELS.to_owned(), labels.join(", ")),
    ]);
    let mark = answer.pointer("/settings/userLabels").and_then(|labels| labels.get(MARK)).and_then(Value::as_str);
    Instance {
        name: name.to_owned(),
        state: state(&answer),
        endpoints: addresses(&answer),
        settings,
        drill: mark.map(shown),
        answer,
    }
}

/// The private one first.
fn addresses(answer: &Value) -> Vec<(String, super::Endpoint)> {
    let of = |address: &Value| {
        let kind = text(address, "/type");
        let endpoint = host(address.pointer("/ipAddress")?.as_str()?)?;
        ["PRIVATE", "PRIMARY"].contains(&kind.as_str()).then_some((kind, endpoint))
    };
    let mut addresses: Vec<_> = list(answer, "/ipAddresses").filter_map(of).collect();
    addresses.sort_by_key(|(kind, _)| kind != "PRIVATE");
    addresses
}

fn state(answer: &Value) -> State {
    let state = text(answer, "/state");
    match state.as_str() {
        "RUNNABLE" => State::Ready,
        "FAILED" | "SUSPENDED" | "PENDING_DELETE" | "STOPPED" => State::Broken(state),
        "" => State::Working("being made".to_owned()),
        _ => State::Working(state),
    }
}
