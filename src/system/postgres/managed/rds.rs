//! Amazon RDS for PostgreSQL, by `aws rds`.
//!
//! A restore to a point in time makes an instance with the default security group, the default subnet group, the default
//! parameter group, in one availability zone: all of that is said in the order, the rest is compared and put right.

use std::collections::BTreeMap;
use std::path::PathBuf;

use futures::future::BoxFuture;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::answer::{endpoint, is_word, joined, list, number, text, texts, time, word, words};
use super::args::{command, count, one, several, switch};
use super::tool::{Complaint, Tool, Trouble};
use super::{Endpoint, Instance, MARK, Order, Provider, Repair, Reported, State};

/// What `aws` complains of, by its own error codes and sentences.
pub(super) const SIGNS: &[(&str, Trouble)] = &[
    ("(DBInstanceNotFound", Trouble::Absent),
    ("(DBClusterNotFoundFault)", Trouble::Absent),
    ("(DBInstanceAlreadyExists", Trouble::Taken),
    ("(DBClusterAlreadyExistsFault)", Trouble::Taken),
    ("(ExpiredToken", Trouble::Credentials),
    ("(RequestExpired)", Trouble::Credentials),
    ("(InvalidClientTokenId)", Trouble::Credentials),
    ("(SignatureDoesNotMatch)", Trouble::Credentials),
    ("(UnrecognizedClientException)", Trouble::Credentials),
    ("Unable to locate credentials", Trouble::Credentials),
    ("Error loading SSO Token", Trouble::Credentials),
    ("Token has expired", Trouble::Credentials),
    ("SSO session associated with this profile", Trouble::Credentials),
    ("(AccessDenied", Trouble::Denied),
    ("(UnauthorizedOperation)", Trouble::Denied),
    ("QuotaExceeded", Trouble::Quota),
    ("(InsufficientDBInstanceCapacity", Trouble::Quota),
    ("(InsufficientStorageClusterCapacity", Trouble::Quota),
    ("(Throttling", Trouble::Away),
    ("(RequestLimitExceeded)", Trouble::Away),
    ("(ServiceUnavailable", Trouble::Away),
    ("(InternalFailure)", Trouble::Away),
    // It has just left the state in which it was seen.
    ("(InvalidDBInstanceState", Trouble::Away),
    ("(InvalidDBClusterStateFault)", Trouble::Away),
    ("Could not connect to the endpoint URL", Trouble::Away),
    ("Connect timeout on endpoint URL", Trouble::Away),
    ("Read timeout on endpoint URL", Trouble::Away),
    ("Connection was closed before", Trouble::Away),
    ("You must specify a region", Trouble::Nowhere),
    ("(PointInTimeRestoreNotEnabled)", Trouble::Time),
    ("(InvalidRestoreFault)", Trouble::Time),
];

/// States of an instance that becomes nothing by itself.
const BROKEN: [&str; 15] = [
    "cloning-failed",
    "deleting",
    "failed",
    "inaccessible-encryption-credentials",
    "inaccessible-encryption-credentials-recoverable",
    "incompatible-create",
    "incompatible-network",
    "incompatible-option-group",
    "incompatible-parameters",
    "incompatible-restore",
    "insufficient-capacity",
    "restore-error",
    "stopped",
    "stopping",
    "storage-full",
];

pub(super) struct Rds {
    tool: Tool,
}

impl Rds {
    pub(super) fn new(program: PathBuf, region: Option<&str>, hidden: Vec<String>) -> Self {
        Self { tool: aws(program, "Amazon RDS", region, hidden) }
    }
}

pub(super) fn aws(program: PathBuf, cloud: &'static str, region: Option<&str>, hidden: Vec<String>) -> Tool {
    let mut options = vec!["--output".to_owned(), "json".to_owned()];
    options.extend(region.into_iter().flat_map(|region| ["--region".to_owned(), region.to_owned()]));
    let env: &[_] = &[("AWS_PAGER", ""), ("AWS_CLI_AUTO_PROMPT", "off")];
    Tool { program, cloud, options, env, hidden, signs: SIGNS }
}

impl Provider for Rds {
    fn tool(&self) -> &Tool {
        &self.tool
    }

    fn describe<'a>(
        &'a self,
        name: &'a str,
        cancel: &'a CancellationToken,
    ) -> BoxFuture<'a, Result<Option<Instance>, Complaint>> {
        Box::pin(async move {
            let args = command(&["rds", "describe-db-instances", "--db-instance-identifier", name]);
            let Some(answer) = self.tool.look_for(&args, cancel).await? else { return Ok(None) };
            let found = list(&answer, "/DBInstances").find(|found| text(found, "/DBInstanceIdentifier") == name);
            Ok(found.map(|found| instance(name, found)))
        })
    }

    fn window<'a>(
        &'a self,
        source: &'a Instance,
        cancel: &'a CancellationToken,
    ) -> BoxFuture<'a, Result<Reported, Complaint>> {
        Box::pin(async move {
            let args =
                command(&["rds", "describe-db-instance-automated-backups", "--db-instance-identifier", &source.name]);
            let answer = self.tool.call(&args, cancel).await?;
            // An instance that had this name before may have left some too.
            let own = text(&source.answer, "/DbiResourceId");
            let kept = list(&answer, "/DBInstanceAutomatedBackups").find(|kept| text(kept, "/DbiResourceId") == own);
            let latest = time(&source.answer, "/LatestRestorableTime");
            let in_window = |at: &str| kept.and_then(|kept| time(kept, at));
            let mut warnings = Vec::new();
            if number(&source.answer, "/BackupRetentionPeriod").unwrap_or(0) == 0 {
                warnings.push(format!("{} keeps no automated backups: its retention is 0 days", source.name));
            }
            Ok(Reported {
                earliest: in_window("/RestoreWindow/EarliestTime"),
                latest: latest.or_else(|| in_window("/RestoreWindow/LatestTime")),
                warnings,
            })
        })
    }

    fn create(&self, source: &Instance, order: &Order<'_>) -> Result<Vec<String>, String> {
        let from = &source.answer;
        let mut args = command(&["rds", "restore-db-instance-to-point-in-time"]);
        args.extend(["--source-db-instance-identifier".to_owned(), source.name.clone()]);
        args.extend(["--target-db-instance-identifier".to_owned(), order.name.to_owned()]);
        match order.moment.text() {
            Some(time) => args.extend(["--restore-time".to_owned(), time]),
            None => args.push("--use-latest-restorable-time".to_owned()),
        }
        several(&mut args, "--vpc-security-group-ids", from, "/VpcSecurityGroups", "/VpcSecurityGroupId")?;
        for (option, at) in [
            ("--db-parameter-group-name", "/DBParameterGroups/0/DBParameterGroupName"),
            ("--db-subnet-group-name", "/DBSubnetGroup/DBSubnetGroupName"),
            ("--db-instance-class", "/DBInstanceClass"),
            ("--storage-type", "/StorageType"),
        ] {
            one(&mut args, option, from, at)?;
        }
        // Of other storage types RDS chooses it itself, and refuses to be told.
        if text(from, "/StorageType").starts_with("io") {
            count(&mut args, "--iops", from, "/Iops");
        }
        count(&mut args, "--port", from, "/Endpoint/Port");
        count(&mut args, "--max-allocated-storage", from, "/MaxAllocatedStorage");
        for (option, at) in [
            ("multi-az", "/MultiAZ"),
            ("publicly-accessible", "/PubliclyAccessible"),
            ("auto-minor-version-upgrade", "/AutoMinorVersionUpgrade"),
            ("copy-tags-to-snapshot", "/CopyTagsToSnapshot"),
            ("enable-iam-database-authentication", "/IAMDatabaseAuthenticationEnabled"),
            ("deletion-protection", "/DeletionProtection"),
        ] {
            switch(&mut args, option, from, at);
        }
        logs(&mut args, from)?;
        args.extend(["--tags".to_owned(), tags(from, order).to_string()]);
        Ok(args)
    }

    fn repairs(&self, source: &Instance, new: &Instance, _order: &Order<'_>) -> Vec<Repair> {
        let (from, to) = (&source.answer, &new.answer);
        let mut args = command(&["rds", "modify-db-instance", "--db-instance-identifier", &new.name]);
        let least = args.len();
        let mut said = Vec::new();
        let differs = |name: &str| source.settings.get(name) != new.settings.get(name);
        // What is no name is left to the comparison.
        let groups = words(from, "/VpcSecurityGroups", "/VpcSecurityGroupId").unwrap_or_default();
        if differs(SECURITY_GROUPS) && !groups.is_empty() {
            args.push("--vpc-security-group-ids".to_owned());
            args.extend(groups);
            said.push(SECURITY_GROUPS);
        }
        for (name, option, at) in [
            (PARAMETER_GROUP, "--db-parameter-group-name", "/DBParameterGroups/0/DBParameterGroupName"),
            (CERTIFICATE, "--ca-certificate-identifier", "/CACertificateIdentifier"),
        ] {
            if let (true, Some(value)) = (differs(name), word(from, at)) {
                args.extend([option.to_owned(), value]);
                said.push(name);
            }
        }
        if let (true, Some(days)) = (differs(RETENTION), number(from, "/BackupRetentionPeriod")) {
            args.extend(["--backup-retention-period".to_owned(), days.to_string()]);
            said.push(RETENTION);
        }
        if let (true, Some(interval)) = (differs(MONITORING), number(from, "/MonitoringInterval")) {
            args.extend(["--monitoring-interval".to_owned(), interval.to_string()]);
            args.extend(
                word(from, "/MonitoringRoleArn")
                    .into_iter()
                    .flat_map(|role| ["--monitoring-role-arn".to_owned(), role]),
            );
            said.push(MONITORING);
        }
        for (name, option, at) in [
            (DELETION, "deletion-protection", "/DeletionProtection"),
            (INSIGHTS, "enable-performance-insights", "/PerformanceInsightsEnabled"),
        ] {
            if differs(name) && switch(&mut args, option, from, at) {
                said.push(name);
            }
        }
        if args.len() > least {
            args.push("--apply-immediately".to_owned());
            return vec![Repair::new(format!("setting {}", said.join(", ")), args)];
        }
        let waits =
            list(to, "/DBParameterGroups").any(|group| text(group, "/ParameterApplyStatus") == "pending-reboot");
        let reboot = command(&["rds", "reboot-db-instance", "--db-instance-identifier", &new.name]);
        match waits {
            true => vec![Repair::new("rebooting it for its parameter group", reboot)],
            false => Vec::new(),
        }
    }

    fn essential(&self) -> &'static [&'static str] {
        &["instance class", "engine version", "storage type"]
    }

    fn removal(&self, name: &str) -> String {
        format!(
            "aws rds modify-db-instance --db-instance-identifier {name} --no-deletion-protection --apply-immediately && aws \
             rds delete-db-instance --db-instance-identifier {name} --skip-final-snapshot"
        )
    }
}

const SECURITY_GROUPS: &str = "security groups";
const PARAMETER_GROUP: &str = "parameter group";
const CERTIFICATE: &str = "certificate authority";
const RETENTION: &str = "days that backups are kept";
const MONITORING: &str = "seconds between enhanced monitoring";
const DELETION: &str = "deletion protection";
const INSIGHTS: &str = "Performance Insights";

fn instance(name: &str, answer: &Value) -> Instance {
    let lists = [
        (SECURITY_GROUPS, "/VpcSecurityGroups", "/VpcSecurityGroupId"),
        (PARAMETER_GROUP, "/DBParameterGroups", "/DBParameterGroupName"),
        ("log exports", "/EnabledCloudwatchLogsExports", ""),
        ("roles", "/AssociatedRoles", "/RoleArn"),
    ];
    let mut settings: BTreeMap<String, String> =
        lists.map(|(name, at, field)| (name.to_owned(), joined(answer, at, field))).into();
    settings.extend(texts(
        answer,
        [
            ("subnet group", "/DBSubnetGroup/DBSubnetGroupName"),
            ("instance class", "/DBInstanceClass"),
            ("engine version", "/EngineVersion"),
            ("storage type", "/StorageType"),
            ("storage IOPS", "/Iops"),
            ("most storage", "/MaxAllocatedStorage"),
            ("multi-AZ", "/MultiAZ"),
            ("public access", "/PubliclyAccessible"),
            ("IAM authentication", "/IAMDatabaseAuthenticationEnabled"),
            ("encryption", "/StorageEncrypted"),
            ("encryption key", "/KmsKeyId"),
            ("tags on snapshots", "/CopyTagsToSnapshot"),
            ("minor upgrades", "/AutoMinorVersionUpgrade"),
            (RETENTION, "/BackupRetentionPeriod"),
            (CERTIFICATE, "/CACertificateIdentifier"),
            (MONITORING, "/MonitoringInterval"),
            (DELETION, "/DeletionProtection"),
            (INSIGHTS, "/PerformanceInsightsEnabled"),
        ],
    ));
    Instance {
        name: name.to_owned(),
        state: state(answer),
        endpoints: address(answer, "/Endpoint/Address", "/Endpoint/Port"),
        settings,
        drill: drill(answer),
        answer: answer.clone(),
    }
}

pub(super) fn address(answer: &Value, host: &str, port: &str) -> Vec<(String, Endpoint)> {
    let host = answer.pointer(host).and_then(Value::as_str).unwrap_or_default();
    endpoint(host, number(answer, port).unwrap_or(0)).map(|endpoint| (String::new(), endpoint)).into_iter().collect()
}

/// Which drill made it, by its tag.
pub(super) fn drill(answer: &Value) -> Option<String> {
    let tag = list(answer, "/TagList").find(|tag| text(tag, "/Key") == MARK);
    tag.map(|tag| text(tag, "/Value"))
}

/// By the cloud's own word for it.
pub(super) fn state_of(status: String) -> State {
    match status.as_str() {
        // It is used as ever in these, some of which last for hours.
        "available" | "backing-up" | "storage-config-upgrade" | "storage-initialization" | "storage-optimization" => {
            State::Ready
        }
        broken if BROKEN.contains(&broken) => State::Broken(status),
        _ => State::Working(status),
    }
}

fn state(answer: &Value) -> State {
    match state_of(text(answer, "/DBInstanceStatus")) {
        State::Ready => {}
        other => return other,
    }
    let applying = list(answer, "/DBParameterGroups").any(|group| text(group, "/ParameterApplyStatus") == "applying");
    let moving = list(answer, "/VpcSecurityGroups").any(|group| text(group, "/Status") != "active");
    let pending = answer.pointer("/PendingModifiedValues").and_then(Value::as_object);
    match (applying, moving, pending.is_some_and(|pending| !pending.is_empty())) {
        (true, _, _) => State::Working("its parameters are being applied".to_owned()),
        (_, true, _) => State::Working("its security groups are being changed".to_owned()),
        (_, _, true) => State::Working("a change is pending".to_owned()),
        _ => State::Ready,
    }
}

/// The source's tags and the order's own. Those of AWS itself nobody may set.
pub(super) fn tags(from: &Value, order: &Order<'_>) -> Value {
    let own = order.tags();
    let is_own = |key: &str| own.iter().any(|(name, _)| *name == key) || key.starts_with("aws:");
    let kept = list(from, "/TagList").filter(|tag| !is_own(&text(tag, "/Key")));
    let kept = kept.map(|tag| json!({ "Key": text(tag, "/Key"), "Value": text(tag, "/Value") }));
    kept.chain(own.iter().map(|(key, value)| json!({ "Key": key, "Value": value }))).collect()
}

pub(super) fn logs(args: &mut Vec<String>, from: &Value) -> Result<(), String> {
    let logs: Vec<String> = list(from, "/EnabledCloudwatchLogsExports").map(|log| text(log, "")).collect();
    match logs.iter().all(|log| is_word(log)) {
        false => return Err(format!("of the source's log exports not all are names: {}", logs.join(", "))),
        true if logs.is_empty() => {}
        true => {
            args.push("--enable-cloudwatch-logs-exports".to_owned());
            args.extend(logs);
        }
    }
    Ok(())
}
