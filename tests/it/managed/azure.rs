use lifeboat::inventory::ManagedBy;
use serde_json::{Value, json};

use super::scene::{Cloud, Service};
use crate::support::sandbox::{last_line, text};

const GROUP: [&str; 2] = ["postgres", "flexible-server"];
const POINT: &str = "2026-11-21T09:30:00Z";

fn by() -> ManagedBy {
    ManagedBy::Azure { resource_group: "orders".to_owned(), subscription: None }
}

fn cloud() -> Cloud {
    let cloud = Cloud::new("az");
    cloud.put("orders", &Cloud::documented("azure-server.json"));
    cloud
}

fn of<'a>(words: &[&'a str]) -> Vec<&'a str> {
    [&GROUP[..], words].concat()
}

/// What a restore leaves out is there again, as the cloud knows it.
fn is_like_its_source(cloud: &Cloud) {
    let [new] = cloud.new_ones().try_into().unwrap();
    let (source, new) = (cloud.get("orders"), cloud.get(&new));
    assert_eq!(new["x-firewall-rules"], source["x-firewall-rules"]);
    assert_eq!(new["x-parameters"], source["x-parameters"]);
    assert_eq!(new["highAvailability"]["mode"], "ZoneRedundant");
    assert_eq!((&new["tags"]["team"], &new["backup"]), (&json!("data platform"), &source["backup"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_comes_back_out_of_azure_after_a_kill() {
    let service = Service::beside(cloud(), r#"engine = "azure", resource_group = "orders""#).await;
    // Up to when, it does not say.
    let window: Value = last_line(&service.done(&["points", "--json"]));
    let db = &window["systems"][0];
    assert_eq!((&db["earliest"], &db["latest"]), (&json!("2026-11-07T03:10:22.843421Z"), &Value::Null));
    assert!(text(&service.done(&["points"]).stdout).contains("to unknown (reported)"));
    let health: Value = last_line(&service.lifeboat(&["check", "--json"]));
    let facts = health["systems"][0]["facts"].as_array().unwrap();
    let loss = facts.iter().find(|fact| fact["subject"] == "loss").unwrap();
    assert_eq!(loss["judgement"], "unknown", "{health}");
    service.comes_back_after_a_kill("restore", &format!("damage_at={POINT}"));
    is_like_its_source(&service.cloud);
    let ordered = service.cloud.calls_of(&of(&["restore"]))[0].join(" ");
    for said in
        ["--source-server orders", "--restore-time 2026-11-21T09:30:00Z", "--no-wait", "--resource-group orders"]
    {
        assert!(ordered.contains(said), "{said}: {ordered}");
    }
}

#[tokio::test]
async fn releases_of_either_dialect_are_understood() {
    let cloud = cloud();
    std::fs::write(cloud.path("older"), "").unwrap();
    cloud.restored(by(), POINT).await;
    is_like_its_source(&cloud);
}

#[tokio::test]
async fn a_server_without_public_access_has_no_rules_to_compare() {
    let cloud = cloud();
    let mut source = cloud.get("orders");
    source["network"]["publicNetworkAccess"] = json!("Disabled");
    source["x-firewall-rules"] = json!([]);
    cloud.put("orders", &source);
    cloud.restored(by(), POINT).await;
    is_like_its_source(&cloud);
}

#[tokio::test]
async fn a_long_value_is_compared_in_full() {
    let cloud = cloud();
    let mut source = cloud.get("orders");
    let long = format!("{}end", "pg_cron,".repeat(100));
    source["x-parameters"][1]["value"] = json!(long);
    // As another release spells it.
    source["storage"] = json!({ "autoGrow": "Enabled", "storageSizeGB": 128, "tier": "P10", "type": "" });
    cloud.put("orders", &source);
    let first = cloud.restored(by(), POINT).await.instance;
    let mut new = cloud.get(&first);
    assert_eq!(new["x-parameters"][1]["value"], json!(long));
    new["x-parameters"][1]["value"] = json!(format!("{}dne", "pg_cron,".repeat(100)));
    new["storage"] = json!({ "autoGrow": "Enabled", "storageSizeGb": 128, "tier": "P10", "type": "" });
    cloud.put(&first, &new);
    cloud.restored(by(), POINT).await;
    assert_eq!(cloud.get(&first)["x-parameters"][1]["value"], json!(long));
    source["storage"] = json!({ "autoGrow": "Enabled", "tier": "P10", "type": "" });
    cloud.put("orders", &source);
    let failure = cloud.refusal(by(), POINT).await;
    assert!(failure.why.contains("storage in GiB is 128 and was none"), "{failure}");
}

#[tokio::test]
async fn what_azure_refuses_is_told_with_what_to_do() {
    let cases = [
        ("show", "ERROR: (ResourceGroupNotFound) Resource group 'orders' could not be found.", "Say the place"),
        ("show", "ERROR: Please run 'az login' to setup account.", "Log in"),
        ("show", "ERROR: (AuthorizationFailed) The client does not have authorization to perform action", "that right"),
        (
            "restore",
            "ERROR: (QuotaExceeded) Operation could not be completed as it results in exceeding",
            "Raise the quota",
        ),
    ];
    for (command, says, now) in cases {
        let cloud = cloud();
        cloud.fail(command, says);
        let failure = cloud.refusal(by(), POINT).await;
        assert!(failure.now.as_deref().unwrap_or_default().contains(now), "{failure:?}");
        assert!(cloud.new_ones().is_empty());
    }
}

#[tokio::test]
async fn an_order_that_comes_to_nothing_ends() {
    let cloud = cloud();
    // Accepted, and never to be seen.
    cloud.ignore("restore");
    let failure = cloud.refusal(by(), POINT).await;
    assert!(failure.why.contains("nothing of that name came to be"), "{failure:?}");
    assert_eq!(cloud.calls_of(&of(&["restore"])).len(), 1);
}
