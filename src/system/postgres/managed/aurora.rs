//! Amazon Aurora PostgreSQL, by `aws rds`.
//!
//! A restore makes a cluster, and no instance in it: nobody could connect. As many are added as the source has, of its
//! writer's class.

use std::collections::BTreeMap;
use std::path::PathBuf;

use futures::future::BoxFuture;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::answer::{joined, list, number, text, texts, time, word, words};
use super::args::{command, count, one, several, switch};
use super::rds::{address, aws, drill, logs, state_of, tags};
use super::tool::{Complaint, Tool};
use super::{Instance, Order, Provider, Repair, Reported, State};

pub(super) struct Aurora {
    tool: Tool,
}

impl Aurora {
    pub(super) fn new(program: PathBuf, region: Option<&str>, hidden: Vec<String>) -> Self {
        Self { tool: aws(program, "Amazon Aurora", region, hidden) }
    }

    async fn member(&self, name: &str, cancel: &CancellationToken) -> Result<Value, Complaint> {
        let args = command(&["rds", "describe-db-instances", "--db-instance-identifier", name]);
        let answer = self.tool.call(&args, cancel).await?;
        Ok(answer.pointer("/DBInstances/0").cloned().unwrap_or_default())
    }
}

impl Provider for Aurora {
    fn tool(&self) -> &Tool {
        &self.tool
    }

    /// The answer holds the cluster, its instances, and which of them is the writer once there is one.
    fn describe<'a>(
        &'a self,
        name: &'a str,
        cancel: &'a CancellationToken,
    ) -> BoxFuture<'a, Result<Option<Instance>, Complaint>> {
        Box::pin(async move {
            let args = command(&["rds", "describe-db-clusters", "--db-cluster-identifier", name]);
            let Some(answer) = self.tool.look_for(&args, cancel).await? else { return Ok(None) };
            let found = list(&answer, "/DBClusters").find(|found| text(found, "/DBClusterIdentifier") == name);
            let Some(cluster) = found else { return Ok(None) };
            let members = || list(cluster, "/DBClusterMembers");
            let is_writer = |member: &&Value| member.pointer("/IsClusterWriter") == Some(&Value::Bool(true));
            // Before the first is up, none is the writer.
            let writer = members().find(is_writer).or_else(|| members().next());
            let writer = writer.and_then(|member| word(member, "/DBInstanceIdentifier"));
            let mut described = Vec::new();
            let mut of_writer = Value::Null;
            for name in members().filter_map(|member| word(member, "/DBInstanceIdentifier")) {
                let member = self.member(&name, cancel).await?;
                if writer.as_ref() == Some(&name) {
                    of_writer = member.clone();
                }
                described.push(member);
            }
            Ok(Some(instance(name, json!({ "cluster": cluster, "writer": of_writer, "members": described }))))
        })
    }

    fn window<'a>(
        &'a self,
        source: &'a Instance,
        _cancel: &'a CancellationToken,
    ) -> BoxFuture<'a, Result<Reported, Complaint>> {
        let of = |at: &str| time(&source.answer, at);
        let (earliest, latest) = (of("/cluster/EarliestRestorableTime"), of("/cluster/LatestRestorableTime"));
        Box::pin(async move { Ok(Reported { earliest, latest, warnings: Vec::new() }) })
    }

    fn create(&self, source: &Instance, order: &Order<'_>) -> Result<Vec<String>, String> {
        let from = &source.answer["cluster"];
        let mut args = command(&["rds", "restore-db-cluster-to-point-in-time"]);
        args.extend(["--source-db-cluster-identifier".to_owned(), source.name.clone()]);
        args.extend(["--db-cluster-identifier".to_owned(), order.name.to_owned()]);
        match order.moment.text() {
            Some(time) => args.extend(["--restore-to-time".to_owned(), time]),
            None => args.push("--use-latest-restorable-time".to_owned()),
        }
        several(&mut args, "--vpc-security-group-ids", from, "/VpcSecurityGroups", "/VpcSecurityGroupId")?;
        one(&mut args, "--db-cluster-parameter-group-name", from, "/DBClusterParameterGroup")?;
        one(&mut args, "--db-subnet-group-name", from, "/DBSubnetGroup")?;
        count(&mut args, "--port", from, "/Port");
        for (option, at) in [
            ("copy-tags-to-snapshot", "/CopyTagsToSnapshot"),
            ("enable-iam-database-authentication", "/IAMDatabaseAuthenticationEnabled"),
            ("deletion-protection", "/DeletionProtection"),
        ] {
            switch(&mut args, option, from, at);
        }
        let capacity = |at: &str| from.pointer(at).and_then(Value::as_f64);
        if let (Some(least), Some(most)) = (
            capacity("/ServerlessV2ScalingConfiguration/MinCapacity"),
            capacity("/ServerlessV2ScalingConfiguration/MaxCapacity"),
        ) {
            let range = format!("MinCapacity={least},MaxCapacity={most}");
            args.extend(["--serverless-v2-scaling-configuration".to_owned(), range]);
        }
        logs(&mut args, from)?;
        args.extend(["--tags".to_owned(), tags(from, order).to_string()]);
        Ok(args)
    }

    fn repairs(&self, source: &Instance, new: &Instance, order: &Order<'_>) -> Vec<Repair> {
        let (from, to) = (&source.answer["cluster"], &new.answer["cluster"]);
        let there: Vec<String> =
            list(to, "/DBClusterMembers").map(|member| text(member, "/DBInstanceIdentifier")).collect();
        let wanted = list(from, "/DBClusterMembers").count().max(1);
        if let Some(missing) =
            (1..=wanted).map(|number| format!("{}-{number}", new.name)).find(|it| !there.contains(it))
        {
            // What is no name of the writer's is left to the comparison.
            let args = member(&source.answer["writer"], from, &new.name, &missing, order).unwrap_or_default();
            return if args.is_empty() {
                Vec::new()
            } else {
                vec![Repair::new(format!("adding the instance {missing}"), args)]
            };
        }
        let mut args = command(&["rds", "modify-db-cluster", "--db-cluster-identifier", &new.name]);
        let least = args.len();
        let mut said = Vec::new();
        let differs = |name: &str| source.settings.get(name) != new.settings.get(name);
        let groups = words(from, "/VpcSecurityGroups", "/VpcSecurityGroupId").unwrap_or_default();
        if differs(SECURITY_GROUPS) && !groups.is_empty() {
            args.push("--vpc-security-group-ids".to_owned());
            args.extend(groups);
            said.push(SECURITY_GROUPS);
        }
        if let (true, Some(group)) = (differs(PARAMETER_GROUP), word(from, "/DBClusterParameterGroup")) {
            args.extend(["--db-cluster-parameter-group-name".to_owned(), group]);
            said.push(PARAMETER_GROUP);
        }
        if let (true, Some(days)) = (differs(RETENTION), number(from, "/BackupRetentionPeriod")) {
            args.extend(["--backup-retention-period".to_owned(), days.to_string()]);
            said.push(RETENTION);
        }
        if differs(DELETION) && switch(&mut args, "deletion-protection", from, "/DeletionProtection") {
            said.push(DELETION);
        }
        if args.len() > least {
            args.push("--apply-immediately".to_owned());
            return vec![Repair::new(format!("setting {}", said.join(", ")), args)];
        }
        let waits = list(to, "/DBClusterMembers")
            .find(|member| text(member, "/DBClusterParameterGroupStatus") == "pending-reboot")
            .and_then(|member| word(member, "/DBInstanceIdentifier"));
        let reboot = |name: String| {
            let args = command(&["rds", "reboot-db-instance", "--db-instance-identifier", &name]);
            Repair::new(format!("rebooting {name} for its parameter group"), args)
        };
        waits.filter(|name| there.contains(name) && name.starts_with(&new.name)).map(reboot).into_iter().collect()
    }

    fn essential(&self) -> &'static [&'static str] {
        &["instance class", "engine version", "encryption"]
    }

    fn removal(&self, name: &str) -> String {
        format!(
            "aws rds modify-db-cluster --db-cluster-identifier {name} --no-deletion-protection --apply-immediately, then aws \
             rds delete-db-instance --db-instance-identifier {name}-1, for each of its instances, then aws rds \
             delete-db-cluster --db-cluster-identifier {name} --skip-final-snapshot"
        )
    }
}

const SECURITY_GROUPS: &str = "security groups";
const PARAMETER_GROUP: &str = "cluster parameter group";
const RETENTION: &str = "days that backups are kept";
const DELETION: &str = "deletion protection";

/// The command that adds an instance like the source's writer.
fn member(writer: &Value, from: &Value, cluster: &str, name: &str, order: &Order<'_>) -> Result<Vec<String>, String> {
    let mut args = command(&["rds", "create-db-instance", "--db-instance-identifier", name]);
    args.extend(["--db-cluster-identifier".to_owned(), cluster.to_owned()]);
    one(&mut args, "--engine", from, "/Engine")?;
    for (option, at) in [
        ("--db-instance-class", "/DBInstanceClass"),
        ("--db-parameter-group-name", "/DBParameterGroups/0/DBParameterGroupName"),
        ("--ca-certificate-identifier", "/CACertificateIdentifier"),
        ("--monitoring-role-arn", "/MonitoringRoleArn"),
    ] {
        one(&mut args, option, writer, at)?;
    }
    count(&mut args, "--monitoring-interval", writer, "/MonitoringInterval");
    for (option, at) in [
        ("publicly-accessible", "/PubliclyAccessible"),
        ("auto-minor-version-upgrade", "/AutoMinorVersionUpgrade"),
        ("enable-performance-insights", "/PerformanceInsightsEnabled"),
    ] {
        switch(&mut args, option, writer, at);
    }
    args.extend(["--tags".to_owned(), tags(writer, order).to_string()]);
    Ok(args)
}

fn instance(name: &str, answer: Value) -> Instance {
    let cluster = &answer["cluster"];
    let mut settings: BTreeMap<String, String> = texts(
        &answer,
        [
            (PARAMETER_GROUP, "/cluster/DBClusterParameterGroup"),
            ("subnet group", "/cluster/DBSubnetGroup"),
            ("engine version", "/cluster/EngineVersion"),
            ("storage type", "/cluster/StorageType"),
            ("encryption", "/cluster/StorageEncrypted"),
            ("encryption key", "/cluster/KmsKeyId"),
            ("IAM authentication", "/cluster/IAMDatabaseAuthenticationEnabled"),
            ("data API", "/cluster/HttpEndpointEnabled"),
            ("tags on snapshots", "/cluster/CopyTagsToSnapshot"),
            ("least serverless capacity", "/cluster/ServerlessV2ScalingConfiguration/MinCapacity"),
            ("most serverless capacity", "/cluster/ServerlessV2ScalingConfiguration/MaxCapacity"),
            (RETENTION, "/cluster/BackupRetentionPeriod"),
            (DELETION, "/cluster/DeletionProtection"),
            ("instance class", "/writer/DBInstanceClass"),
            ("instance parameter group", "/writer/DBParameterGroups/0/DBParameterGroupName"),
            ("public access", "/writer/PubliclyAccessible"),
            ("minor upgrades", "/writer/AutoMinorVersionUpgrade"),
            ("certificate authority", "/writer/CACertificateIdentifier"),
            ("seconds between enhanced monitoring", "/writer/MonitoringInterval"),
            ("Performance Insights", "/writer/PerformanceInsightsEnabled"),
        ],
    )
    .collect();
    let members = list(cluster, "/DBClusterMembers").count();
    settings.extend([
        (SECURITY_GROUPS.to_owned(), joined(cluster, "/VpcSecurityGroups", "/VpcSecurityGroupId")),
        ("log exports".to_owned(), joined(cluster, "/EnabledCloudwatchLogsExports", "")),
        ("roles".to_owned(), joined(cluster, "/AssociatedRoles", "/RoleArn")),
        ("instances".to_owned(), members.to_string()),
    ]);
    Instance {
        name: name.to_owned(),
        state: state(&answer),
        endpoints: address(cluster, "/Endpoint", "/Port"),
        settings,
        drill: drill(cluster),
        answer,
    }
}

/// That of the cluster, then the worst of its instances; a cluster without one is ready to be given one.
fn state(answer: &Value) -> State {
    match state_of(text(answer, "/cluster/Status")) {
        State::Ready => {}
        other => return other,
    }
    let mut worst = State::Ready;
    for member in list(answer, "/members") {
        let name = text(member, "/DBInstanceIdentifier");
        match state_of(text(member, "/DBInstanceStatus")) {
            State::Broken(status) => return State::Broken(format!("{status}: its instance {name}")),
            State::Working(status) => worst = State::Working(format!("its instance {name} is {status}")),
            State::Ready => {}
        }
    }
    worst
}
