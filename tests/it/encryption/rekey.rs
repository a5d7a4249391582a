//! Recipients that change: what was written before, for those who come and without those who go.

use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde_json::Value;

use super::{Pair, by_age, encryption, files, readable};
use crate::postgres::restore::{DIGEST, at, restore_of, run as restored};
use crate::redis::aof::{DATED, next_second, ship};
use crate::redis::restore::Scene;
use crate::redis::snapshot::{bucket_in, take};
use crate::support::postgres::{Primary, program};
use crate::support::redis::run;
use crate::support::sandbox::{last_line, text};
use lifeboat::event::RecoveryTarget;
use lifeboat::system::redis;

fn rekey(inventory: &PathBuf) -> Value {
    let output =
        Command::new(program()).args(["store", "rekey", "--json", "--inventory"]).arg(inventory).output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    last_line(&output)["systems"][0].clone()
}

/// Everything that is encrypted is so to the first and not to the second, and nothing of content is left in the clear.
fn only_for(directory: &std::path::Path, to: &Pair, not: &Pair) {
    let mut sealed = 0;
    for (name, bytes) in files(directory) {
        if name.ends_with(".zst") || name.contains("wal-index") {
            assert!(by_age(to, &bytes).is_ok() && by_age(not, &bytes).is_err(), "{name}");
            sealed += 1;
        }
    }
    assert!(sealed > 2, "{sealed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_in_the_clear_is_encrypted_and_then_for_somebody_else() {
    let primary = Primary::start_as(&["--wal-segsize=1"], &[]).await;
    let (old, new) = (Pair::new(&primary.path(""), "old"), Pair::new(&primary.path(""), "new"));
    primary.sql("create table orders (id int, item text); insert into orders values (1, 'Solness Street')").await;
    primary.backup().run().await.expect("a backup");
    primary.sql("insert into orders values (2, 'Solness Street')").await;
    primary.archive().await;
    let before = primary.value(DIGEST).await;
    let bucket = primary.path("bucket");
    assert_ne!(readable(&bucket, "Solness"), Vec::<String>::new());
    std::fs::write(primary.path("url"), primary.url.expose()).unwrap();
    let inventory = |to: &Pair, with: &Pair| {
        let path = primary.path("lifeboat.toml");
        let text = format!(
            "format = 1\nservice = \"orders\"\n[stores.backups]\nurl = \"{}\"\nencrypt_to = [\"{}\"]\n\
             identity = {{ file = \"{}\" }}\n[systems.orders-db]\nkind = \"postgres\"\nenvironment = \"test\"\n\
             url = {{ file = \"url\" }}\nbackups = {{ store = \"backups\" }}\nrestore = {{ directory = \"/nowhere\" }}\n",
            primary.location.url,
            to.public,
            with.file.display()
        );
        std::fs::write(&path, text).unwrap();
        path
    };
    let done = rekey(&inventory(&old, &old));
    assert!(done["manifests"] == 1 && done["segments"].as_u64() > Some(0) && done["kept"] == 0, "{done}");
    assert_eq!(readable(&bucket, "Solness"), Vec::<String>::new());
    only_for(&bucket, &old, &new);
    let again = rekey(&inventory(&old, &old));
    assert!(again["manifests"] == 0 && again["segments"] == 0 && again["bytes"] == 0, "{again}");

    // Both keys can read while it goes on: the identity's file holds the two of them.
    let both = Pair { public: String::new(), file: primary.path("both") };
    let keys = [&old, &new].map(|pair| std::fs::read_to_string(&pair.file).unwrap());
    std::fs::write(&both.file, keys.concat()).unwrap();
    // As a run leaves it that was killed in the middle: a segment done, another not, a manifest that is swapped and
    // whose old objects are still there.
    let kept = files(&bucket);
    let done = rekey(&inventory(&new, &both));
    assert_eq!(done["manifests"], 1, "{done}");
    only_for(&bucket, &new, &old);
    let swapped = files(&bucket);
    for (name, bytes) in &kept {
        let is_part = name.contains("/base/") && name.ends_with(".zst");
        let is_a_segment = name.contains("/wal/") && name.ends_with("3.zst");
        if is_part || is_a_segment {
            std::fs::create_dir_all(bucket.join(name).parent().unwrap()).unwrap();
            std::fs::write(bucket.join(name), bytes).unwrap();
        }
    }
    rekey(&inventory(&new, &both));
    only_for(&bucket, &new, &old);
    let names = |files: &[(String, Vec<u8>)]| files.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
    assert_eq!(names(&files(&bucket)), names(&swapped), "nothing is left over");

    // Who has no key still learns whether everything is there, and that nobody looked inside; a wrong key is a finding.
    let path = inventory(&new, &old);
    let judged = || {
        let check = ["check", "--stores-only", "--json", "--inventory"];
        let found = last_line(&Command::new(program()).args(check).arg(&path).output().unwrap());
        let facts = found["systems"][0]["facts"].as_array().unwrap().clone();
        facts.into_iter().find(|fact| fact["subject"] == "manifests").expect("the fact")
    };
    let wrong = judged();
    assert_eq!(wrong["judgement"], "failed", "{wrong}");
    assert!([&old, &new].iter().all(|pair| wrong["says"].as_str().unwrap().contains(pair.short())), "{wrong}");
    let without = std::fs::read_to_string(&path).unwrap().replace("identity =", "# identity =");
    std::fs::write(&path, without).unwrap();
    let blind = judged();
    assert_eq!(blind["judgement"], "unknown", "{blind}");
    let said = blind["says"].as_str().unwrap();
    assert!(said.contains("was not looked at") && said.contains(new.short()), "{blind}");

    // With the new key everything comes back.
    let mut primary = primary;
    primary.location.encryption = encryption(&[&new], Some(&new.file));
    let (_clone, found) = restored(restore_of(&primary, RecoveryTarget::Latest, true, "restored").await).await;
    assert_eq!(at(&found.expect("it is restored"), DIGEST).await, before);
}

#[tokio::test]
async fn shipments_that_share_their_objects_go_over_together() {
    let scene = Scene::new(DATED, None).await;
    let (old, new) = (Pair::new(scene.home(), "old"), Pair::new(scene.home(), "new"));
    let writes = bucket_in(&scene.store).encrypted(encryption(&[&old], None));
    let client = scene.source.client().await;
    next_second(&client).await;
    run(&client, "SET solness:1 x").await;
    take(&scene.source.url, &writes).await.unwrap();
    let first = ship(&scene.source.url, None, &writes).await.unwrap();
    next_second(&client).await;
    run(&client, "SET solness:2 x").await;
    let second = ship(&scene.source.url, None, &writes).await.unwrap();

    let inventory = scene.home().join("lifeboat.toml");
    let both = scene.home().join("both");
    let keys = [&old, &new].map(|pair| std::fs::read_to_string(&pair.file).unwrap());
    std::fs::write(&both, keys.concat()).unwrap();
    let text = format!(
        "format = 1\nservice = \"orders\"\n[stores.backups]\nurl = \"file://{}\"\nencrypt_to = [\"{}\"]\n\
         identity = {{ file = \"{}\" }}\nrefuse_clear = true\n[systems.orders-cache]\nkind = \"redis\"\n\
         environment = \"test\"\nurl = \"{}\"\nbackups = {{ store = \"backups\" }}\n\
         restore = {{ directory = \"/nowhere\" }}\n",
        scene.store.display(),
        new.public,
        both.display(),
        scene.source.url.expose()
    );
    std::fs::write(&inventory, text).unwrap();
    // Killed once it has told of the first of three manifests, it goes on from there.
    let mut killed = Command::new(program())
        .args(["store", "rekey", "--inventory"])
        .arg(&inventory)
        .stdout(Stdio::piped())
        .spawn()
        .expect("lifeboat starts");
    let mut line = String::new();
    BufReader::new(killed.stdout.take().expect("a pipe")).read_line(&mut line).expect("a line");
    killed.kill().expect("it is killed");
    killed.wait().expect("it ends");
    assert!(line.contains("manifest.json is encrypted to"), "{line}");
    let either = bucket_in(&scene.store).encrypted(encryption(&[&new], Some(&both)));
    let (ranges, warnings) = redis::ranges(&either).await.unwrap();
    assert_eq!((ranges.len(), warnings), (1, Vec::new()), "nothing is missing in between");
    assert_eq!(redis::list(&either).await.unwrap().1, Vec::<String>::new());
    let done = rekey(&inventory);
    assert!(done["manifests"].as_u64() < Some(3), "{done}");
    only_for(&scene.store, &new, &old);
    let reads = bucket_in(&scene.store).encrypted(encryption(&[&new], Some(&new.file)));
    for shipped in [&first, &second] {
        let found = redis::aof_manifest(&reads, &shipped.manifest.label).await.unwrap().unwrap();
        let raw = |manifest: &redis::AofManifest| {
            manifest.files.iter().map(|file| (file.raw_bytes, file.raw_digest)).collect::<Vec<_>>()
        };
        assert_eq!(raw(&found), raw(&shipped.manifest));
    }
    let (ranges, warnings) = redis::ranges(&reads).await.unwrap();
    assert_eq!((ranges.len(), warnings), (1, Vec::new()), "every object that they name is there");
    assert_eq!(rekey(&inventory)["manifests"], 0);
}
