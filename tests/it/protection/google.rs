//! The same by what stands in for Google.

use lifeboat::event::Failure;
use lifeboat::secret::Secret;
use serde_json::{Value, json};

use super::{judged, look};
use crate::support::gcs::{Gcs, READ, WRITE};

const KEY: &str = "projects/acme/locations/europe-west1/keyRings/dr/cryptoKeys/backups";

fn by(server: &Gcs, key: &Secret, asked: &str) -> Value {
    let home = tempfile::tempdir().unwrap();
    std::fs::write(home.path().join("key"), key.expose()).unwrap();
    look(home.path(), &server.url("dr"), "service_account = { file = \"key\" }", asked, "")
}

fn seen(server: &Gcs, asked: &str) -> Value {
    by(server, &server.owner, asked)
}

#[tokio::test(flavor = "multi_thread")]
async fn each_setting_of_a_bucket_of_google_shows() {
    let server = Gcs::start().await;
    let bare = seen(&server, "");
    judged(&bare, "encryption", "ok", "what is written is encrypted with AES256");
    judged(&bare, "versions", "missed", "gone at once");
    judged(&bare, "lock", "ok", "the inventory asks for no lock");
    judged(&bare, "lifecycle", "ok", "no rule deletes backups");
    judged(&bare, "public", "missed", "nothing keeps it");
    judged(&bare, "replica", "unknown", "no copy");
    judged(&seen(&server, &format!("kms_key = \"{KEY}\"")), "encryption", "missed", "asks for the key");
    judged(&seen(&server, "lock = \"30d\""), "lock", "missed", "asks for 30 days");

    let good = json!({
        "versioning": { "enabled": true },
        "encryption": { "defaultKmsKeyName": KEY },
        "retentionPolicy": { "retentionPeriod": (35 * 86_400).to_string(), "isLocked": true },
        "iamConfiguration": { "publicAccessPrevention": "enforced", "uniformBucketLevelAccess": { "enabled": true } },
        "lifecycle": { "rule": [
            { "action": { "type": "AbortIncompleteMultipartUpload" }, "condition": { "age": 3 } },
            { "action": { "type": "Delete" }, "condition": { "numNewerVersions": 3 } },
        ] },
        "locationType": "dual-region", "location": "EUR4",
        "_objects": { "kmsKeyName": format!("{KEY}/cryptoKeyVersions/1") },
    });
    server.settings(good.clone());
    let asked = format!("kms_key = \"{KEY}\"\nlock = \"30d\"\nretain = \"30d\"");
    for round in ["what is written", "the newest object"] {
        let found = seen(&server, &asked);
        judged(&found, "encryption", "ok", &format!("{round} is encrypted with AES256 and the key {KEY}"));
        judged(&found, "versions", "ok", "older version");
        judged(&found, "lock", "ok", "nobody can delete what is written for 35 days");
        judged(&found, "lifecycle", "ok", "parts of unfinished uploads are removed");
        judged(&found, "public", "ok", "cannot be opened");
        judged(&found, "replica", "ok", "two regions (EUR4)");
        let _ = server.bucket("dr/orders-db").create("wal/1", "one").await;
    }
    let with = |name: &str, value: Value| {
        let mut changed = good.clone();
        changed[name] = value;
        server.settings(changed);
        seen(&server, &asked)
    };
    judged(&with("_objects", json!({})), "encryption", "missed", "asks for the key");
    let period = json!({ "retentionPeriod": (35 * 86_400).to_string() });
    judged(&with("retentionPolicy", period), "lock", "ok", "but for those who may lift the lock");
    judged(&with("retentionPolicy", json!({ "retentionPeriod": "86400" })), "lock", "missed", "asks for 30 days");
    judged(&with("versioning", json!({})), "versions", "missed", "gone at once");
    let rule = |action: Value, condition: Value| {
        with("lifecycle", json!({ "rule": [{ "action": action, "condition": condition }] }))
    };
    let delete = || json!({ "type": "Delete" });
    let prefix = |prefix: &str, age: u32| json!({ "age": age, "matchesPrefix": [prefix] });
    judged(&rule(delete(), prefix("dr/", 7)), "lifecycle", "failed", "the backups after 7 days");
    judged(&rule(delete(), json!({ "age": 90 })), "lifecycle", "missed", "the last good one too");
    judged(&rule(delete(), prefix("logs/", 1)), "lifecycle", "ok", "no rule deletes");
    let suffix = json!({ "age": 2, "matchesSuffix": [".zst"] });
    judged(&rule(delete(), suffix), "lifecycle", "failed", "some of the backups after 2 days");
    judged(&rule(delete(), json!({ "age": 1, "isLive": false })), "lifecycle", "ok", "no rule deletes");
    let soft =
        json!({ "versioning": { "enabled": false }, "softDeletePolicy": { "retentionDurationSeconds": "604800" } });
    server.settings(soft);
    judged(&seen(&server, ""), "versions", "ok", "brought back for 7 days");
    server.policy(json!([{ "role": "roles/storage.objectViewer", "members": ["user:ann@acme.test", "allUsers"] }]));
    judged(&seen(&server, ""), "public", "failed", "open to everybody, by the role roles/storage.objectViewer");
    server.policy(json!([]));
    server.settings(json!({
        "iamConfiguration": { "uniformBucketLevelAccess": { "enabled": false } },
        "defaultObjectAcl": [{ "entity": "allAuthenticatedUsers", "role": "READER" }],
    }));
    judged(
        &seen(&server, ""),
        "public",
        "failed",
        "everybody who has an account with the provider, by a grant of READER",
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn accounts_of_google_may_do_what_they_must_and_no_more() {
    let server = Gcs::start().await;
    let prune: Vec<&str> = WRITE.into_iter().chain(["storage.objects.delete"]).collect();
    let (reads, writes) = (server.account("reader", &READ), server.account("writer", &WRITE));
    let prunes = server.account("pruner", &prune);
    let may = |key: &Secret, may: &str| by(&server, key, &format!("may = \"{may}\""));
    let found = may(&reads, "read");
    judged(&found, "rights", "ok", "only read");
    for subject in ["encryption", "versions", "lock", "lifecycle", "public"] {
        judged(&found, subject, "unknown", "these keys may not ask (storage.buckets.get)");
    }
    judged(&may(&writes, "write"), "rights", "ok", "write, and not delete");
    judged(&may(&writes, "write"), "create-only", "ok", "does not write over");
    judged(&may(&prunes, "prune"), "rights", "ok", "write and delete");
    judged(&may(&writes, "read"), "rights", "missed", "should not write");
    judged(&may(&prunes, "write"), "rights", "missed", "should not delete");
    judged(&may(&reads, "write"), "rights", "failed", "no backup can be written");
    judged(&may(&writes, "prune"), "rights", "failed", "nothing can be pruned");
    // What a lock keeps nobody deletes, whatever their rights.
    server.settings(json!({ "retentionPolicy": { "retentionPeriod": "86400" } }));
    judged(&may(&prunes, "prune"), "rights", "unknown", "a lock keeps what they wrote");
    judged(&may(&writes, "write"), "rights", "ok", "write, and not delete");
    judged(&may(&prunes, "read"), "rights", "missed", "should not write");
    server.bucket("dr").create("kept", "one").await.unwrap();
    let refused = Failure::from(server.bucket("dr").delete("kept").await.unwrap_err());
    assert!(refused.what.contains("is locked") && refused.now.unwrap().contains("retain"), "{}", refused.why);
}
