use std::time::Duration;

use lifeboat::inventory::ManagedBy;
use lifeboat::system::postgres::managed::{Patience, Restore};
use lifeboat::system::postgres::{Report, Reporter};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::scene::{Cloud, Service};
use crate::support::sandbox::last_line;

const CLONE: [&str; 3] = ["sql", "instances", "clone"];
const POINT: &str = "2026-11-21T09:30:00Z";
const BUSY: &str = "ERROR: (gcloud.sql.instances.patch) HTTPError 409: Operation failed because another operation was already \
                    in progress.";

fn by() -> ManagedBy {
    ManagedBy::CloudSql { project: Some("acme".to_owned()) }
}

fn cloud() -> Cloud {
    let cloud = Cloud::new("gcloud");
    cloud.put("orders", &Cloud::documented("cloud-sql-instance.json"));
    cloud
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_comes_back_out_of_cloud_sql_after_a_kill() {
    let service = Service::beside(cloud(), r#"engine = "cloud-sql", project = "acme""#).await;
    let window: Value = last_line(&service.done(&["points", "--json"]));
    let db = &window["systems"][0];
    assert_eq!(
        (&db["earliest"], &db["latest"]),
        (&json!("2026-11-14T10:00:00.648821586Z"), &json!("2026-11-21T10:00:00.123456789Z"))
    );
    // By the private address, as the source is reached.
    service.comes_back_after_a_kill("clone", &format!("damage_at={POINT}"));
    let [ordered] = &<[Vec<String>; 1]>::try_from(service.cloud.calls_of(&CLONE)).unwrap();
    let ordered = ordered.join(" ");
    for said in ["clone orders orders-lb-", "--async", "--point-in-time=2026-11-21T09:30:00Z", "--project=acme"] {
        assert!(ordered.contains(said), "{said}: {ordered}");
    }
    let [new] = service.cloud.new_ones().try_into().unwrap();
    let (source, new) = (service.cloud.get("orders"), service.cloud.get(&new));
    for at in ["/settings/availabilityType", "/settings/deletionProtectionEnabled", "/settings/userLabels/team"] {
        assert_eq!(new.pointer(at), source.pointer(at), "{at}");
    }
    assert_eq!(new["settings"]["ipConfiguration"]["authorizedNetworks"][0]["value"], "203.0.113.0/24");
}

#[tokio::test]
async fn what_cloud_sql_refuses_is_told_with_what_to_do() {
    let cases = [
        (
            "describe",
            "ERROR: (gcloud.sql.instances.describe) HTTPError 404: The Cloud SQL instance does not exist.",
            "another region",
        ),
        (
            "describe",
            "ERROR: (gcloud.sql.instances.describe) There was a problem refreshing your current auth tokens: Reauthentication failed.",
            "Log in",
        ),
        (
            "describe",
            "ERROR: (gcloud.sql.instances.describe) The required property [project] is not currently set.",
            "Say the place",
        ),
        (
            "clone",
            "ERROR: (gcloud.sql.instances.clone) HTTPError 403: The client is not authorized to make this request.",
            "that right",
        ),
    ];
    for (command, says, now) in cases {
        let cloud = cloud();
        cloud.fail(command, says);
        let failure = cloud.refusal(by(), POINT).await;
        assert!(failure.now.as_deref().unwrap_or_default().contains(now), "{failure:?}");
        assert!(cloud.new_ones().is_empty());
    }
    let cloud = cloud();
    cloud.ignore("patch");
    let failure = cloud.refusal(by(), POINT).await;
    assert!(failure.why.contains("authorized networks is none and was 203.0.113.0/24"), "{failure}");
}

#[tokio::test]
async fn a_window_that_is_not_told_forbids_nothing() {
    let says = [
        "ERROR: (gcloud.sql.instances) Invalid choice: 'get-latest-recovery-time'.",
        "ERROR: (gcloud.sql.instances.get-latest-recovery-time) HTTPError 400: The logs are stored on disk.",
    ];
    for says in says {
        let cloud = cloud();
        cloud.fail("get-latest-recovery-time", says);
        assert_eq!(cloud.new_ones(), [""; 0]);
        let restored = cloud.restored(by(), POINT).await;
        assert_eq!(cloud.new_ones(), [restored.instance]);
        cloud.fail("get-latest-recovery-time", says);
        let reported = cloud.managed(by()).window(&CancellationToken::new()).await.unwrap();
        assert_eq!((reported.earliest, reported.latest, reported.warnings.len()), (None, None, 1));
    }
}

#[tokio::test]
async fn a_busy_instance_is_asked_again() {
    let cloud = cloud();
    cloud.busy("patch", BUSY, 5);
    let (report, mut reports) = Reporter::channel(1_000);
    let restore = Restore { report, ..cloud.restore(by(), POINT) };
    let restored = restore.run().await.unwrap();
    assert_eq!(cloud.calls_of(&["sql", "instances", "patch"]).len(), 6);
    assert_eq!(cloud.new_ones(), [restored.instance]);
    // Said once, however often it was asked.
    let mut said = Vec::new();
    while let Ok(report) = reports.try_recv() {
        said.extend(matches!(&report, Report::Line(line) if line.contains("in progress")).then_some(report));
    }
    assert_eq!(said.len(), 1, "{said:?}");
}

#[tokio::test]
async fn an_instance_that_stays_busy_is_asked_less_and_less() {
    let cloud = cloud();
    cloud.busy("patch", BUSY, 1_000);
    let mut restore = cloud.restore(by(), POINT);
    let (first, whole) = (Duration::from_millis(50), Duration::from_secs(2));
    restore.patience = Patience { first, longest: whole, whole, ..restore.patience };
    let failure = restore.run().await.unwrap_err();
    assert!(failure.why.contains("in progress"), "{failure}");
    // After six pauses, each twice the one before, 3 s are over; none is ever shorter.
    let calls = cloud.calls_of(&["sql", "instances", "patch"]).len();
    assert!((1..=7).contains(&calls), "{calls}");
}
