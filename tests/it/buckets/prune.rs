//! Pruning in a bucket behind a network, killed in the middle again and again: what is kept stays whole.

use std::collections::BTreeSet;
use std::time::Duration;

use lifeboat::clock::{boot_now, sleep};
use serde_json::Value;

use super::{Cloud, Scene};
use crate::support::azurite::Azurite;
use crate::support::postgres::value;
use crate::support::s3::{Cutter, S3};
use crate::support::sandbox::{last_line, text};

const PRUNE: &str = r#"
format = 1
id = "prune"
title = "Prune"
systems = { db = "postgres" }
[[phases]]
title = "Prune"
[[phases.steps]]
id = "prune"
do = "store.prune"
system = "db"
destroys = "old backups of {db}"
"#;

const RESTORE: &str = r#"
format = 1
id = "restore"
title = "Restore"
systems = { db = "postgres" }
[variables.target]
[[phases]]
title = "Restore"
[[phases.steps]]
id = "choose"
do = "recovery.choose"
systems = ["db"]
suggest = "{target}"
[[phases.steps]]
id = "restore"
do = "postgres.restore"
system = "db"
[[phases.steps]]
id = "promote"
do = "postgres.promote"
system = "db"
"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_pruning_of_s3_that_is_killed_leaves_what_is_kept_and_goes_on() {
    survives(S3::start().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pruning_of_azure_that_is_killed_leaves_what_is_kept_and_goes_on() {
    survives(Azurite::start().await).await;
}

/// Keys of what is backed up, without what Lifeboat writes about it.
fn keys<C: Cloud>(scene: &Scene<C>) -> BTreeSet<String> {
    let listing = scene.server.listing();
    let keys = listing.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned);
    keys.filter(|key| key.contains("/base/") || key.contains("/wal/")).collect()
}

/// Without the line breaks of a terminal.
fn flat(bytes: &[u8]) -> String {
    text(bytes).split_whitespace().collect::<Vec<_>>().join(" ")
}

async fn survives(server: impl Cloud) {
    let scene = Scene::new(server).await;
    scene.primary.sql("create table orders (id int)").await;
    let mut labels = Vec::new();
    for _ in 0..3 {
        labels.push(scene.primary.backup().run().await.expect("the backup succeeds").backup.label);
        scene.primary.sql("insert into orders values (1)").await;
        scene.primary.archive().await;
    }
    let url = scene.server.url("prod");
    let port: u16 = url.split("127.0.0.1:").nth(1).unwrap().split(['/', '&', '?']).next().unwrap().parse().unwrap();
    let limited = scene.inventory().replacen("[stores.backups]\n", "[stores.backups]\nretain = \"1s\"\n", 1);
    let direct = limited.clone();
    // Whoever is cut off tries again for long: it ends by being killed.
    let by = |cutter: &Cutter| {
        let there = cutter.endpoint.trim_start_matches("http://");
        limited.replace(&format!("127.0.0.1:{port}"), there).replace("patience=1s", "patience=90s")
    };
    let write = |inventory: &str| std::fs::write(scene.path("lifeboat.toml"), inventory).unwrap();
    std::fs::write(scene.path("prune.toml"), PRUNE).unwrap();
    std::fs::write(scene.path("restore.toml"), RESTORE).unwrap();
    std::fs::write(scene.path("answers.toml"), "prune = \"orders-db\"\n").unwrap();

    // What the looking alone takes, once the limit has passed the newest backup.
    let all = i64::MAX / 2;
    let patience = boot_now() + Duration::from_secs(60);
    let looking = loop {
        let cutter = Cutter::for_good(port, all).await;
        write(&by(&cutter));
        let plan = scene.done(&["run", "prune.toml", "--plan"]);
        if flat(&plan.stdout).contains(&format!("backups {}, {};", labels[0], labels[1])) {
            break all - cutter.left();
        }
        assert!(boot_now() < patience, "nothing becomes spare: {}", text(&plan.stdout));
    };

    let mut states = vec![keys(&scene)];
    for round in 1.. {
        assert!(round < 60, "it never comes to its end");
        let cutter = Cutter::for_good(port, looking + round * 1500).await;
        write(&by(&cutter));
        let state = format!("state-{round}");
        let mut command = scene.command(&["run", "prune.toml", "--headless", "--yes", "--answers", "answers.toml"]);
        let log = std::fs::File::create(scene.path("prune.log")).unwrap();
        command.env("LIFEBOAT_STATE_DIR", scene.path(&state)).stderr(log).stdout(std::process::Stdio::null());
        let mut child = command.spawn().unwrap();
        let ended = loop {
            match child.try_wait().unwrap() {
                Some(status) => break Some(status),
                None if cutter.has_cut() => {
                    child.kill().unwrap();
                    child.wait().unwrap();
                    break None;
                }
                None => sleep(Duration::from_millis(2)).await,
            }
        };
        states.push(keys(&scene));
        if let Some(status) = ended {
            let said = std::fs::read_to_string(scene.path("prune.log")).unwrap();
            assert!(status.success(), "{said}");
            break;
        }
    }

    let (before, after) = (&states[0], states.last().unwrap());
    let of = |label: &str, keys: &BTreeSet<String>| keys.iter().filter(|key| key.contains(label)).count();
    // `started.json` is a note that nobody needs.
    let parts = |label: &str, keys: &BTreeSet<String>| {
        keys.iter().filter(|key| key.contains(label) && !key.ends_with(".json")).count()
    };
    assert!(labels[..2].iter().all(|label| of(label, before) > 1 && of(label, after) == 0), "{after:#?}");
    assert!(of(&labels[2], before) > 1 && of(&labels[2], after) == of(&labels[2], before), "{after:#?}");
    assert!(states.iter().any(|state| state != before && state != after), "it was never in the middle");
    for state in &states {
        assert!(after.is_subset(state), "what is kept was not there: {state:#?}");
        for label in &labels {
            let is_whole = state.iter().any(|key| key.ends_with(&format!("{label}/manifest.json")));
            assert!(!is_whole || parts(label, state) == parts(label, before), "a backup without its parts: {state:#?}");
        }
    }

    write(&direct);
    let window: Value = last_line(&scene.done(&["points", "--json"]));
    assert_eq!(window["systems"][0]["backups"].as_array().unwrap().len(), 1, "{window}");
    assert_eq!(window["systems"][0]["gaps"].as_array().unwrap().len(), 0, "{window}");
    scene.done(&["run", "restore.toml", "--headless", "--yes", "--var", "target=latest"]);
    let restored = scene.restored();
    assert_eq!(value(&restored, "select count(*)::text from orders").await, "3");
}
