//! The same by Azurite, as far as it answers, and as far as the keys of a store may ask.

use lifeboat::secret::Secret;
use lifeboat::store::{AzureKey, Given};
use serde_json::Value;

use super::{judged, look};
use crate::support::azurite::Azurite;

fn by(server: &Azurite, key: &Given, asked: &str) -> Value {
    let home = tempfile::tempdir().unwrap();
    let (name, secret) = match key {
        Given::Azure(AzureKey::Sas(secret)) => ("sas_token", secret),
        Given::Azure(AzureKey::Account(secret)) => ("account_key", secret),
        _ => panic!("no key of Azure that an inventory takes"),
    };
    std::fs::write(home.path().join("key"), secret.expose()).unwrap();
    look(home.path(), &server.url("dr"), &format!("{name} = {{ file = \"key\" }}"), asked, "")
}

fn seen(server: &Azurite, asked: &str) -> Value {
    by(server, &server.given(), asked)
}

#[tokio::test(flavor = "multi_thread")]
async fn each_setting_of_a_container_shows_or_is_unknown() {
    let server = Azurite::start().await;
    let bare = seen(&server, "");
    judged(&bare, "encryption", "unknown", "does not say how it encrypts");
    judged(&bare, "versions", "unknown", "shows once there is a blob");
    judged(&bare, "lock", "ok", "the inventory asks for no lock");
    judged(&bare, "lifecycle", "unknown", "only Azure Resource Manager tells");
    judged(&bare, "public", "unknown", "the container is closed; whether its account lets it be opened");
    judged(&bare, "replica", "ok", "the second region has what was written until");
    judged(&seen(&server, "lock = \"30d\""), "lock", "missed", "asks for 30 days");

    server.bucket("dr/orders-db").create("wal/1", "one").await.unwrap();
    let written = seen(&server, "");
    judged(&written, "encryption", "ok", "the newest object is encrypted with AES256");
    judged(&written, "versions", "missed", "gone at once");
    judged(&seen(&server, "kms_key = \"vault\""), "encryption", "unknown", "whether with the key vault is not known");

    server.azure("service.set_service_properties(delete_retention_policy=RetentionPolicy(enabled=True, days=14))");
    judged(&seen(&server, ""), "versions", "ok", "can be brought back for 14 days");
    server.azure("container.set_container_access_policy({}, public_access='container')");
    judged(&seen(&server, ""), "public", "failed", "open to everybody");
    server.azure("container.get_blob_client('dr/orders-db/wal/1').set_standard_blob_tier('Archive')");
    judged(&seen(&server, ""), "lifecycle", "failed", "is in Archive: a restore would wait hours");
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_to_a_container_may_do_what_they_must_and_no_more() {
    let server = Azurite::start().await;
    server.bucket("dr/orders-db").create("wal/1", "one").await.unwrap();
    let may = |permissions: &str, may: &str| {
        let token: Secret = server.sas(permissions, 1);
        by(&server, &Given::Azure(AzureKey::Sas(token)), &format!("may = \"{may}\""))
    };
    let found = may("rl", "read");
    judged(&found, "rights", "ok", "only read");
    judged(&found, "encryption", "ok", "AES256");
    for subject in ["versions", "public"] {
        judged(&found, subject, "unknown", "these keys may not ask");
    }
    judged(&may("rcwl", "write"), "rights", "ok", "write, and not delete");
    judged(&may("rcwl", "write"), "create-only", "ok", "does not write over");
    judged(&may("rcwl", "read"), "rights", "missed", "should not write");
    judged(&may("rl", "write"), "rights", "failed", "no backup can be written");
    judged(&may("rcwdl", "write"), "rights", "missed", "should not delete");
    judged(&may("rcwdl", "prune"), "rights", "ok", "write and delete");
    judged(&may("rcwl", "prune"), "rights", "failed", "nothing can be pruned");
    // An account's key may do everything.
    judged(&seen(&server, "may = \"write\""), "rights", "missed", "should not delete");
}
