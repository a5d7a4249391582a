//! A CronJob a schedule.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::Plan;
use crate::inventory::Schedule;

/// Where the inventory, the runbooks and the answers are in the container: the keys of one ConfigMap.
const CONFIG: &str = "/etc/lifeboat";

pub fn manifests(plan: &Plan<'_>) -> String {
    let service = &plan.inventory.service;
    let secret = format!("lifeboat-{service}");
    let mut text = format!(
        "# Lifeboat: what runs by itself for {service}. It needs, in the same namespace:
#   ConfigMap {secret}: lifeboat.toml{files}
#   PersistentVolumeClaim {secret}-state: drills and their reports
",
        files = own_files(plan).iter().map(|name| format!(", {name}")).collect::<String>()
    );
    if !plan.secrets.variables.is_empty() || !plan.secrets.files.is_empty() {
        let keys = plan.secrets.variables.iter().cloned().chain(plan.secrets.files.iter().map(|file| key(file)));
        text += &format!("#   Secret {secret}: {}\n", keys.collect::<Vec<_>>().join(", "));
    }
    for schedule in &plan.inventory.schedules {
        text += "---\n";
        block(&mut text, &cron_job(plan, schedule), 0);
    }
    text
}

/// Files beside the inventory that the ConfigMap must hold.
fn own_files(plan: &Plan<'_>) -> Vec<String> {
    let schedules = plan.inventory.schedules.iter();
    let mut names: Vec<String> = schedules
        .flat_map(|schedule| {
            let own = schedule.runbook.is_absolute().then(|| key(&schedule.runbook));
            own.into_iter().chain(schedule.answers.as_deref().map(key))
        })
        .collect();
    names.sort();
    names.dedup();
    names
}

/// A path's last part, as a key of a ConfigMap or Secret.
fn key(path: &Path) -> String {
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    name.chars().map(|c| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '-' }).collect()
}

fn cron_job(plan: &Plan<'_>, schedule: &Schedule) -> Value {
    let service = &plan.inventory.service;
    let (fields, days) = schedule.cadence.crontab();
    let inside = |path: &Path| if path.is_absolute() { Path::new(CONFIG).join(key(path)) } else { path.to_owned() };
    let answers = schedule.answers.as_deref().map(inside);
    let inventory = Path::new(CONFIG).join("lifeboat.toml");
    let arguments = plan.arguments(schedule, &inventory, &inside(&schedule.runbook), answers.as_deref());
    let mut command = vec![plan.program.display().to_string()];
    let mut environment = vec![json!({ "name": "HOME", "value": "/tmp" })];
    if let Some((from, to)) = days {
        // The fields of cron take a day of the month and a weekday for alternatives.
        let script =
            format!("day=$(date +%d); [ \"$day\" -ge {from} ] && [ \"$day\" -le {to} ] || exit 0; exec \"$@\"");
        command.splice(0..0, ["/bin/sh".to_owned(), "-c".to_owned(), script, "lifeboat".to_owned()]);
        environment.push(json!({ "name": "TZ", "value": schedule.cadence.zone }));
    }
    let secret = format!("lifeboat-{service}");
    environment.extend(
        plan.secrets
            .variables
            .iter()
            .map(|name| json!({ "name": name, "valueFrom": { "secretKeyRef": { "name": secret, "key": name } } })),
    );
    let (mounts, volumes) = places(plan, &secret);
    let labels = json!({
        "app.kubernetes.io/name": "lifeboat",
        "app.kubernetes.io/instance": secret,
        "app.kubernetes.io/component": schedule.name,
    });
    json!({
        "apiVersion": "batch/v1",
        "kind": "CronJob",
        "metadata": { "name": short_name(&plan.name(schedule)), "namespace": plan.args.namespace, "labels": labels },
        "spec": {
            "schedule": fields,
            "timeZone": schedule.cadence.zone,
            "concurrencyPolicy": "Forbid",
            "startingDeadlineSeconds": schedule.overdue_after.as_secs(),
            "successfulJobsHistoryLimit": 3,
            "failedJobsHistoryLimit": 5,
            "jobTemplate": { "spec": {
                "backoffLimit": 0,
                "activeDeadlineSeconds": schedule.timeout.as_secs(),
                "template": {
                    "metadata": { "labels": labels },
                    "spec": {
                        "restartPolicy": "Never",
                        "automountServiceAccountToken": false,
                        "terminationGracePeriodSeconds": 300,
                        "securityContext": {
                            "runAsNonRoot": true,
                            "runAsUser": 10001,
                            "runAsGroup": 10001,
                            "fsGroup": 10001,
                            "seccompProfile": { "type": "RuntimeDefault" },
                        },
                        "containers": [{
                            "name": "lifeboat",
                            "image": plan.args.image,
                            "command": command,
                            "args": arguments,
                            "env": environment,
                            "securityContext": {
                                "allowPrivilegeEscalation": false,
                                "readOnlyRootFilesystem": true,
                                "capabilities": { "drop": ["ALL"] },
                            },
                            "resources": {
                                "requests": { "cpu": "500m", "memory": "512Mi" },
                                "limits": { "memory": "4Gi" },
                            },
                            "volumeMounts": mounts,
                        }],
                        "volumes": volumes,
                    },
                },
            } },
        },
    })
}

/// Mounts of the container, and the volumes behind them.
fn places(plan: &Plan<'_>, secret: &str) -> (Vec<Value>, Vec<Value>) {
    let mut mounts = vec![
        json!({ "name": "config", "mountPath": CONFIG, "readOnly": true }),
        json!({ "name": "state", "mountPath": plan.state }),
        json!({ "name": "tmp", "mountPath": "/tmp" }),
    ];
    let mut volumes = vec![
        json!({ "name": "config", "configMap": { "name": secret } }),
        json!({ "name": "state", "persistentVolumeClaim": { "claimName": format!("{secret}-state") } }),
        json!({ "name": "tmp", "emptyDir": {} }),
    ];
    for file in &plan.secrets.files {
        mounts.push(json!({ "name": "secrets", "mountPath": file, "subPath": key(file), "readOnly": true }));
    }
    if !plan.secrets.files.is_empty() {
        let items: BTreeMap<String, Value> =
            plan.secrets.files.iter().map(|file| (key(file), json!({ "key": key(file), "path": key(file) }))).collect();
        let items: Vec<&Value> = items.values().collect();
        volumes.push(
            json!({ "name": "secrets", "secret": { "secretName": secret, "defaultMode": 0o440, "items": items } }),
        );
    }
    let written: Vec<PathBuf> = plan.written().into_iter().filter(|path| !path.starts_with(&plan.state)).collect();
    for (index, path) in written.iter().enumerate() {
        let name = format!("work-{index}");
        mounts.push(json!({ "name": name, "mountPath": path }));
        // A store in a directory outlives the run; what is restored does not have to.
        let store = plan.inventory.stores.values().any(|store| store.url == format!("file://{}", path.display()));
        volumes.push(match store {
            true => json!({ "name": name, "persistentVolumeClaim": { "claimName": format!("{secret}-{name}") } }),
            false => json!({ "name": name, "emptyDir": {} }),
        });
    }
    (mounts, volumes)
}

/// Jobs are called after their CronJob with eleven characters more, and names end at 63.
fn short_name(name: &str) -> String {
    let name: String = name.replace('_', "-").chars().take(52).collect();
    name.trim_end_matches('-').to_owned()
}

/// YAML in blocks; every text is quoted as JSON quotes it, which YAML reads as the same.
fn block(out: &mut String, value: &Value, indent: usize) {
    let pad = " ".repeat(indent);
    match value {
        Value::Object(map) => {
            for (name, value) in map {
                entry(out, &format!("{pad}{}:", scalar_key(name)), value, indent);
            }
        }
        Value::Array(items) => {
            for item in items {
                match item {
                    Value::Object(map) if !map.is_empty() => {
                        let mut inner = String::new();
                        block(&mut inner, item, indent + 2);
                        // The dash stands in the place of the first line's indent.
                        out.push_str(&format!("{pad}- {}", inner.trim_start()));
                    }
                    other => entry(out, &format!("{pad}-"), other, indent),
                }
            }
        }
        scalar => out.push_str(&format!("{pad}{scalar}\n")),
    }
}

fn entry(out: &mut String, head: &str, value: &Value, indent: usize) {
    match value {
        Value::Object(map) if !map.is_empty() => {
            out.push_str(&format!("{head}\n"));
            block(out, value, indent + 2);
        }
        Value::Array(items) if !items.is_empty() => {
            out.push_str(&format!("{head}\n"));
            block(out, value, indent + 2);
        }
        scalar => out.push_str(&format!("{head} {scalar}\n")),
    }
}

fn scalar_key(name: &str) -> String {
    match name.chars().all(|c| c.is_ascii_alphanumeric() || "./-_".contains(c)) {
        true => name.to_owned(),
        false => Value::from(name).to_string(),
    }
}
