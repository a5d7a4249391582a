use lifeboat::inventory::ManagedBy;
use serde_json::{Value, json};

use super::scene::{Cloud, Service};

const RESTORE: [&str; 2] = ["rds", "restore-db-cluster-to-point-in-time"];
const POINT: &str = "2026-11-21T09:30:00Z";

fn by() -> ManagedBy {
    ManagedBy::Aurora { region: None }
}

/// A cluster of two: a restore of it has none.
fn cloud() -> Cloud {
    let cloud = Cloud::new("aws");
    cloud.put("orders", &Cloud::documented("aurora-cluster.json"));
    let mut member = Cloud::documented("rds-instance.json");
    for name in ["orders-a", "orders-b"] {
        member["DBInstanceIdentifier"] = json!(name);
        cloud.put(name, &member);
    }
    cloud
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_comes_back_out_of_aurora_after_a_kill() {
    let service = Service::new(cloud(), r#"engine = "aurora""#).await;
    let mut source = service.cloud.get("orders");
    source["Port"] = json!(service.source.port);
    service.cloud.put("orders", &source);
    let endpoint = json!({ "Address": "127.0.0.1", "Port": service.new.port }).to_string();
    std::fs::write(service.cloud.path("endpoint.json"), endpoint).unwrap();
    service.comes_back_after_a_kill(RESTORE[1], &format!("damage_at={POINT}"));
    let [cluster, first, second] = &<[String; 3]>::try_from(service.cloud.new_ones()).unwrap();
    assert_eq!((first, second), (&format!("{cluster}-1"), &format!("{cluster}-2")));
    let added = service.cloud.calls_of(&["rds", "create-db-instance"]);
    assert_eq!(added.len(), 2);
    let added = added[0].join(" ");
    for said in
        ["--db-instance-class db.m6g.large", "--engine aurora-postgresql", "--db-parameter-group-name orders-pg15"]
    {
        assert!(added.contains(said), "{said}: {added}");
    }
    let [ordered] = &<[Vec<String>; 1]>::try_from(service.cloud.calls_of(&RESTORE)).unwrap();
    let ordered = ordered.join(" ");
    for said in [
        "--restore-to-time 2026-11-21T09:30:00Z",
        "--vpc-security-group-ids sg-0a1b2c3d4e5f60001",
        "--db-cluster-parameter-group-name orders-aurora15",
        "--db-subnet-group-name orders-private",
        "--deletion-protection",
    ] {
        assert!(ordered.contains(said), "{said}: {ordered}");
    }
}

#[tokio::test]
async fn an_instance_of_the_cluster_is_added_once() {
    let cloud = cloud();
    // The answer to the first addition is lost, and that it is there shows late.
    let first = cloud.restored(by(), POINT).await;
    let mut cluster = cloud.get(&first.instance);
    let members: Vec<Value> = cluster["DBClusterMembers"].as_array().unwrap().clone();
    assert_eq!(members.len(), 2);
    cluster["DBClusterMembers"] = json!([members[0]]);
    cloud.put(&first.instance, &cluster);
    let failure = cloud.refusal(by(), POINT).await;
    assert!(failure.why.contains("instances is 1 and was 2"), "{failure}");
    cluster["DBClusterMembers"] = json!(members);
    cloud.put(&first.instance, &cluster);
    assert_eq!(cloud.restored(by(), POINT).await.instance, first.instance);
    assert_eq!(cloud.calls_of(&RESTORE).len(), 1);
}

#[tokio::test]
async fn every_instance_of_the_cluster_is_looked_at() {
    let cloud = cloud();
    let cluster = cloud.restored(by(), POINT).await.instance;
    let reader = format!("{cluster}-2");
    let states = cloud.path(&format!("instances/{reader}.states"));
    let looks = || cloud.calls_of(&["rds", "describe-db-instances", "--db-instance-identifier", &reader]).len();
    let before = looks();
    std::fs::write(&states, "creating\ncreating\ncreating\navailable").unwrap();
    cloud.restored(by(), POINT).await;
    assert_eq!(looks(), before + 4);
    std::fs::write(&states, "incompatible-network").unwrap();
    let failure = cloud.refusal(by(), POINT).await;
    assert!(failure.why.contains(&format!("incompatible-network: its instance {reader}")), "{failure}");
}
