use lifeboat::inventory::ManagedBy;
use lifeboat::system::postgres::managed::Moment;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::scene::{Cloud, Service, owner};
use crate::support::sandbox::{last_line, text};

const RESTORE: [&str; 2] = ["rds", "restore-db-instance-to-point-in-time"];
/// Within the window, with a part of a second.
const POINT: &str = "2026-11-21T09:30:00.75Z";

fn by() -> ManagedBy {
    ManagedBy::Rds { region: Some("eu-central-1".to_owned()) }
}

fn cloud() -> Cloud {
    let cloud = Cloud::new("aws");
    cloud.put("orders", &Cloud::documented("rds-instance.json"));
    cloud
}

async fn service() -> Service {
    let service = Service::new(cloud(), r#"engine = "rds", region = "eu-central-1""#).await;
    let mut source = service.cloud.get("orders");
    source["Endpoint"]["Port"] = json!(service.source.port);
    service.cloud.put("orders", &source);
    let endpoint = json!({ "Address": "127.0.0.1", "Port": service.new.port }).to_string();
    std::fs::write(service.cloud.path("endpoint.json"), endpoint).unwrap();
    service
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_comes_back_out_of_rds() {
    let service = service().await;
    // What its cloud reports is told as that.
    let window: Value = last_line(&service.done(&["points", "--json"]));
    let db = &window["systems"][0];
    assert_eq!((&db["kind"], &db["earliest"]), (&json!("managed"), &json!("2026-11-07T03:10:22Z")), "{window}");
    assert_eq!(db["latest"], "2026-11-21T10:00:00Z");
    let points = text(&service.done(&["points"]).stdout);
    assert!(points.contains("orders of Amazon RDS") && points.contains("(reported)"), "{points}");
    let late = service.lifeboat(&["points", "--target", "2026-11-21T10:00:01Z"]);
    assert!(text(&late.stderr).contains("to 2026-11-21 10:00:00 UTC"), "{}", text(&late.stderr));
    let health: Value = last_line(&service.lifeboat(&["check", "--json"]));
    let facts = health["systems"][0]["facts"].as_array().unwrap();
    let judged = |subject: &str| facts.iter().find(|fact| fact["subject"] == subject).map(|fact| &fact["judgement"]);
    assert_eq!((judged("backup"), judged("loss")), (Some(&json!("ok")), Some(&json!("missed"))), "{health}");

    let output = service.done(&service.run(&format!("damage_at={POINT}")));
    service.came_back();
    let ordered = service.cloud.calls_of(&RESTORE);
    let [ordered] = ordered.as_slice() else { panic!("{ordered:?}") };
    let ordered = ordered.join(" ");
    for said in [
        "--source-db-instance-identifier orders",
        "--restore-time 2026-11-21T09:30:00Z",
        "--vpc-security-group-ids sg-0a1b2c3d4e5f60001 sg-0a1b2c3d4e5f60002",
        "--db-parameter-group-name orders-pg15",
        "--db-subnet-group-name orders-private",
        "--multi-az --no-publicly-accessible",
        "--region eu-central-1",
    ] {
        assert!(ordered.contains(said), "{said}: {ordered}");
    }
    assert!(!ordered.contains("aws:cloudformation"), "{ordered}");
    let [new] = service.cloud.new_ones().try_into().unwrap();
    // Nothing but the new one was changed.
    let changed: Vec<Vec<String>> = service
        .cloud
        .calls()
        .into_iter()
        .filter(|call| !call[1].starts_with("describe") && call[1] != RESTORE[1])
        .collect();
    assert_eq!(
        changed.iter().map(|call| call[1].as_str()).collect::<Vec<_>>(),
        ["modify-db-instance", "reboot-db-instance"]
    );
    assert!(
        changed.iter().all(|call| call[2..4] == ["--db-instance-identifier".to_owned(), new.clone()]),
        "{changed:?}"
    );
    // The part of a second that the cloud cannot be told is lost, and counted.
    let told = last_line(&output);
    assert_eq!(
        (&told["verdict"], &told["rpo"]["orders-db"]["selected_loss_seconds"]),
        (&json!("passed"), &json!(0.75))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_that_was_not_written_down_is_found_again() {
    let service = service().await;
    service.comes_back_after_a_kill(RESTORE[1], &format!("damage_at={POINT}"));
    assert_eq!((service.cloud.new_ones().len(), service.cloud.calls_of(&RESTORE).len()), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupt_leaves_the_cloud_alone() {
    let service = service().await;
    std::fs::write(service.cloud.path("slow"), "").unwrap();
    let damage = format!("damage_at={POINT}");
    let mut run = service.command(&service.run(&damage));
    let run = run.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()).spawn().unwrap();
    let waits = |name: &String| {
        !service.cloud.calls_of(&["rds", "describe-db-instances", "--db-instance-identifier", name]).is_empty()
    };
    let patience = lifeboat::clock::boot_now() + std::time::Duration::from_secs(60);
    while !service.cloud.new_ones().iter().any(waits) {
        assert!(lifeboat::clock::boot_now() < patience, "{:?}", service.cloud.calls());
        lifeboat::clock::sleep(std::time::Duration::from_millis(10)).await;
    }
    let pid = nix::unistd::Pid::from_raw(i32::try_from(run.id()).unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).unwrap();
    let output = run.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{}", text(&output.stderr));
    assert!(service.written().contains("goes on making it"), "{}", text(&output.stderr));
    let [new] = service.cloud.new_ones().try_into().unwrap();
    std::fs::remove_file(service.cloud.path("slow")).unwrap();
    std::fs::write(service.cloud.path(&format!("instances/{new}.states")), "available").unwrap();
    service.done(&["resume", "--headless", "--yes", "--json", "--answers", "answers.toml"]);
    service.came_back();
    assert_eq!(service.cloud.calls_of(&RESTORE).len(), 1);
}

#[tokio::test]
async fn an_order_whose_answer_was_lost_is_not_given_again() {
    let cloud = cloud();
    let first = cloud.restored(by(), POINT).await;
    // The first look comes too early to see it.
    let missing = "An error occurred (DBInstanceNotFound) when calling the DescribeDBInstances operation: not found.";
    cloud.fail(&format!("describe-db-instances@{}", first.instance), missing);
    let again = cloud.restored(by(), POINT).await;
    assert_eq!((again.instance, again.found), (first.instance, true));
    assert_eq!((cloud.new_ones().len(), cloud.calls_of(&RESTORE).len()), (1, 2));
}

#[tokio::test]
async fn what_a_restore_leaves_out_fails_it() {
    let cloud = cloud();
    cloud.ignore("modify-db-instance");
    let failure = cloud.refusal(by(), POINT).await;
    let [new] = cloud.new_ones().try_into().unwrap();
    assert_eq!(failure.what, format!("{new} is not like its source"));
    for (setting, was) in [("Performance Insights", "true"), ("certificate authority", "rds-ca-rsa2048-g1")] {
        assert!(failure.why.contains(setting) && failure.why.contains(was), "{failure}");
    }
    // By hand, and again.
    let mut mended = cloud.get("orders");
    for field in ["DBInstanceIdentifier", "TagList", "Endpoint"] {
        mended[field] = cloud.get(&new)[field].clone();
    }
    cloud.put(&new, &mended);
    let restored = cloud.restored(by(), POINT).await;
    assert_eq!((restored.instance, restored.found), (new, true));
    assert_eq!(cloud.calls_of(&RESTORE).len(), 1);
}

#[tokio::test]
async fn what_is_not_told_is_not_the_same() {
    let cloud = cloud();
    let compared = cloud.restored(by(), POINT).await.compared;
    let mut source = cloud.get("orders");
    // Of this an instance may have none.
    source.as_object_mut().unwrap().remove("KmsKeyId");
    cloud.put("orders", &source);
    let point = "2026-11-21T09:31:00Z";
    assert_eq!(cloud.restored(by(), point).await.compared, compared - 1);
    for (field, setting) in
        [("EngineVersion", "engine version"), ("DBInstanceClass", "instance class"), ("StorageType", "storage type")]
    {
        let mut untold = source.clone();
        untold.as_object_mut().unwrap().remove(field);
        cloud.put("orders", &untold);
        let failure = cloud.refusal(by(), "2026-11-21T09:32:00Z").await;
        assert!(failure.why.contains(setting), "{failure}");
    }
}

#[tokio::test]
async fn an_instance_that_is_usable_is_not_waited_for_and_one_that_is_busy_is_asked_again() {
    let cloud = cloud();
    let first = cloud.restored(by(), POINT).await;
    let mut unlike = cloud.get(&first.instance);
    unlike["BackupRetentionPeriod"] = json!(1);
    cloud.put(&first.instance, &unlike);
    for state in ["storage-initialization", "storage-config-upgrade", "storage-optimization", "backing-up"] {
        // For as long as anybody looks.
        std::fs::write(cloud.path(&format!("instances/{}.states", first.instance)), state).unwrap();
        cloud.fail(
            "modify-db-instance",
            "An error occurred (InvalidDBInstanceState) when calling the ModifyDBInstance operation: Database instance is \
             not in available state.",
        );
        let before = cloud.calls_of(&["rds", "modify-db-instance"]).len();
        cloud.put(&first.instance, &unlike);
        assert_eq!(cloud.restored(by(), POINT).await.instance, first.instance, "{state}");
        assert_eq!(cloud.calls_of(&["rds", "modify-db-instance"]).len(), before + 2, "{state}");
    }
}

#[tokio::test]
async fn what_was_ended_goes_on_in_the_cloud() {
    let cloud = cloud();
    let cancel = CancellationToken::new();
    let mut restore = cloud.restore(by(), POINT);
    restore.cancel = cancel.clone();
    let gate = cloud.gate(RESTORE[1]);
    let work = tokio::spawn(restore.run());
    let patience = lifeboat::clock::boot_now() + std::time::Duration::from_secs(60);
    while cloud.new_ones().is_empty() {
        assert!(lifeboat::clock::boot_now() < patience && !work.is_finished(), "{:?}", cloud.calls());
        lifeboat::clock::sleep(std::time::Duration::from_millis(10)).await;
    }
    // While the order is on its way: its answer is waited for.
    cancel.cancel();
    crate::support::open_the_gate(&gate);
    let failure = work.await.unwrap().unwrap_err();
    let [new] = cloud.new_ones().try_into().unwrap();
    assert_eq!(failure.what, format!("{new} is not ready yet"));
    assert!(failure.why.contains("goes on making it"), "{failure}");
    let now = failure.now.unwrap();
    assert!(now.contains("--no-deletion-protection"), "{now}");
    assert!(now.contains("lifeboat resume") && now.contains(&format!("--db-instance-identifier {new}")), "{now}");
    std::fs::remove_file(gate).unwrap();
    assert_eq!(cloud.restored(by(), POINT).await.instance, new);
    assert!(cloud.calls().iter().all(|call| !call[1].starts_with("delete")), "{:?}", cloud.calls());
}

#[tokio::test]
async fn what_the_cloud_refuses_is_told_with_what_to_do() {
    let said = |code: &str, says: &str| {
        format!("\nAn error occurred ({code}) when calling the RestoreDBInstanceToPointInTime operation: {says}")
    };
    let cases = [
        (RESTORE[1], said("InstanceQuotaExceeded", "DB Instance quota exceeded"), "Raise the quota"),
        (RESTORE[1], said("AccessDenied", "User is not authorized to perform: rds:RestoreDB…"), "that right"),
        (
            "describe-db-instances",
            said("ExpiredToken", "The security token included in the request is expired"),
            "Log in",
        ),
        (
            "describe-db-instances",
            "\nUnable to locate credentials. You can configure credentials by running \"aws configure\".".to_owned(),
            "Log in",
        ),
        (
            "describe-db-instances",
            "You must specify a region. You can also configure your region…".to_owned(),
            "Say the place",
        ),
        ("describe-db-instances", said("DBInstanceNotFound", "DBInstance orders not found."), "another region"),
    ];
    for (command, says, now) in cases {
        let cloud = cloud();
        cloud.fail(command, &says);
        let failure = cloud.refusal(by(), POINT).await;
        assert!(failure.what.contains("orders of Amazon RDS"), "{failure}");
        assert!(failure.now.as_deref().unwrap_or_default().contains(now), "{failure:?}");
        assert!(cloud.new_ones().is_empty());
    }
    for (to, why) in [("2026-11-07T03:10:21Z", "before the earliest"), ("2026-11-21T10:00:01Z", "behind the latest")] {
        let cloud = cloud();
        let failure = cloud.refusal(by(), to).await;
        assert!(failure.why.contains(why), "{failure}");
        assert!(cloud.calls_of(&RESTORE).is_empty());
    }
}

#[tokio::test]
async fn the_instance_of_another_is_not_touched() {
    let cloud = cloud();
    let name = cloud.managed(by()).new_name(&owner(), Moment::At(lifeboat::event::parse_time(POINT).unwrap()));
    let mut other = cloud.get("orders");
    other["DBInstanceIdentifier"] = json!(name);
    other["TagList"] = json!([{ "Key": "lifeboat-drill", "Value": "d-2" }]);
    cloud.put(&name, &other);
    let failure = cloud.refusal(by(), POINT).await;
    assert!(failure.why.contains("drill d-2 made it"), "{failure}");
    assert!(cloud.calls().iter().all(|call| call[1].starts_with("describe")), "{:?}", cloud.calls());
    assert_eq!(cloud.get(&name), other);
}

#[tokio::test]
async fn an_answer_is_not_believed_to_be_harmless() {
    // An argument that would be an option.
    let evil = cloud();
    let mut source = evil.get("orders");
    source["DBSubnetGroup"]["DBSubnetGroupName"] = json!("--endpoint-url=https://evil.example");
    evil.put("orders", &source);
    let failure = evil.refusal(by(), POINT).await;
    assert!(failure.why.contains("is no name"), "{failure}");
    assert!(evil.calls_of(&RESTORE).is_empty());
    // An address that would lead elsewhere, and words that move a cursor.
    for address in ["evil.example/x?host=", "app:x@evil.example", "\u{1b}[2J"] {
        let evil = cloud();
        std::fs::write(evil.path("endpoint.json"), json!({ "Address": address, "Port": 5432 }).to_string()).unwrap();
        let failure = evil.refusal(by(), POINT).await;
        assert!(failure.why.contains("no address of it"), "{failure}");
    }
    // No answer at all, and one that is no JSON.
    let odd = cloud();
    odd.put("orders", &json!({ "DBInstanceIdentifier": "orders", "DBInstanceStatus": { "a": ["\u{1b}]0;x\u{7}"] } }));
    let failure = odd.refusal(by(), POINT).await;
    assert!(!format!("{failure:?}").contains('\u{1b}'), "{failure:?}");
    std::fs::write(odd.path("instances/orders.json"), "{ \"DBInstanceIdentifier\": ").unwrap();
    let failure = odd.refusal(by(), POINT).await;
    assert!(failure.now.is_some(), "{failure:?}");
}
