//! Restored servers that end before the drill does.

use std::process::Stdio;
use std::time::Duration;

use lifeboat::clock::{block, boot_now};

use crate::support::Home;
use crate::support::postgres::{Primary, account, bin};
use crate::support::redis::{TestRedis, open_directory};
use crate::support::sandbox::text;
use crate::support::small::Small;

const STEPS: &str = r#"
[[phases.steps]]
id = "backup-db"
do = "postgres.backup"
system = "db"
[[phases.steps]]
id = "backup-cache"
do = "redis.snapshot"
system = "cache"
[[phases.steps]]
id = "choose"
do = "recovery.choose"
systems = ["db", "cache"]
[[phases.steps]]
id = "restore-db"
title = "Restore {db}"
do = "postgres.restore"
system = "db"
[[phases.steps]]
id = "restore-cache"
title = "Restore {cache}"
do = "redis.restore"
system = "cache"
[[phases.steps]]
id = "accident"
do = "command"
title = "An accident"
script = """
cd "$LIFEBOAT_VAR_HERE"
for pid in $(head -1 db/postmaster.pid) $(cat cache/data/redis.pid); do
    kill -9 $pid
    while readlink /proc/$pid/cwd > began; do sleep 0.02; done
done
"""
[[phases.steps]]
id = "check-db"
do = "postgres.check"
system = "db"
tables = ["orders"]
on_failure = "continue"
[[phases.steps]]
id = "look-db"
do = "postgres.query"
system = "db"
sql = "select 1"
on_failure = "continue"
[[phases.steps]]
id = "check-cache"
do = "redis.check"
system = "cache"
on_failure = "continue"
[[phases.steps]]
id = "smoke-cache"
do = "smoke.redis"
system = "cache"
argv = ["PING"]
"#;

/// The tables of the inventory for a database and a cache that are backed up below `home` and restored there.
fn inventory(home: &Home, primary: &Primary, cache: &TestRedis) -> String {
    let run_as = account().map(|account| format!(", run_as = \"{}\"", account.name)).unwrap_or_default();
    let system = |name: &str, kind: &str, url: &str, folder: &str, more: &str| {
        format!(
            "[systems.{name}]\nkind = \"{kind}\"\nenvironment = \"test\"\nurl = \"{url}\"\n{more}\
             backups = {{ store = \"backups\" }}\nrestore = {{ directory = \"{}/{folder}\"{run_as} }}\n",
            home.path().display()
        )
    };
    let bin = format!("bin = \"{}\"\n", bin().display());
    format!(
        "[stores.backups]\nurl = \"{}\"\n{}{}",
        primary.location.url,
        system("orders-db", "postgres", primary.url.expose(), "db", &bin),
        system("orders-cache", "redis", cache.url.expose(), "cache", ""),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restored_server_that_has_ended_is_to_be_restored_again() {
    let (cache_home, targets) = (open_directory(), open_directory());
    let cache = TestRedis::start(cache_home.path(), &[], None).await;
    let primary = Primary::start().await;
    primary.sql("create table orders (n int); insert into orders values (1)").await;
    let head = "systems = { db = \"postgres\", cache = \"redis\" }\nvariables.here = {}\n";
    let drill = Small::new(&inventory(&targets, &primary, &cache), head, STEPS);
    std::fs::write(drill.path("answers.toml"), "choose = \"latest\"").unwrap();
    let output = drill.run(&["--answers", "answers.toml", "--var", &format!("here={}", targets.path().display())]);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    let failures: Vec<_> = drill
        .journal()
        .into_iter()
        .map(|mut line| line["event"].take())
        .filter(|event| event["type"] == "step-finished" && event["outcome"]["status"] == "failed")
        .collect();
    let failed: Vec<_> = failures.iter().map(|event| event["step"].as_str().unwrap()).collect();
    assert_eq!(failed, ["check-db", "look-db", "check-cache", "smoke-cache"], "{said}");
    for (index, name, log) in
        [(0, "db", "server.log"), (1, "db", "server.log"), (2, "cache", "redis.log"), (3, "cache", "redis.log")]
    {
        let failure = &failures[index]["outcome"]["failure"];
        let (what, now) = (failure["what"].as_str().unwrap(), failure["now"].as_str().unwrap());
        assert!(what.starts_with(&format!("the restored orders-{name} ")), "{failure}");
        let again =
            format!("select “Restore orders-{name}” (`↑` `↓`) and press `r`; by lines, `retry restore-{name}`.");
        assert!(now.contains(&again) && now.contains(log), "{failure}");
    }
}

/// Without a person: the bucket is away when the restores begin, and comes back after the first of them has failed.
#[tokio::test(flavor = "multi_thread")]
async fn restores_that_fail_while_the_bucket_is_away_are_tried_again() {
    let (cache_home, targets) = (open_directory(), open_directory());
    let cache = TestRedis::start(cache_home.path(), &[], None).await;
    cache.run("SET a b").await;
    let primary = Primary::start().await;
    let bucket = std::path::PathBuf::from(primary.location.url.strip_prefix("file://").unwrap());
    let away = bucket.with_file_name("away");
    let cut = format!("mv {} {}", bucket.display(), away.display());
    let steps = STEPS
        .split("[[phases.steps]]\nid = \"accident\"")
        .next()
        .unwrap()
        .replace("do = \"postgres.restore\"\n", "do = \"postgres.restore\"\nretry = { times = 8, delay = \"1s\" }\n")
        .replace("do = \"redis.restore\"\n", "do = \"redis.restore\"\nretry = { times = 8, delay = \"1s\" }\n")
        .replace(
            "[[phases.steps]]\nid = \"restore-db\"",
            &format!("[[phases.steps]]\nid = \"cut\"\ndo = \"command\"\ntitle = \"Cut\"\nscript = '{cut}'\n[[phases.steps]]\nid = \"restore-db\""),
        )
        .replace("title = \"Restore {cache}\"\n", "title = \"Restore {cache}\"\nneeds = [\"cut\"]\n");
    let head = "systems = { db = \"postgres\", cache = \"redis\" }\n";
    let drill = Small::new(&inventory(&targets, &primary, &cache), head, &steps);
    std::fs::write(drill.path("answers.toml"), "choose = \"latest\"").unwrap();
    let mut command = drill.command(&["--answers", "answers.toml"]);
    let run = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let retried = |step: &str| {
        drill.exists("state/drills")
            && std::fs::read_dir(drill.path("state/drills")).unwrap().next().is_some()
            && drill.drill().join("journal.jsonl").exists()
            && drill
                .journal()
                .iter()
                .any(|line| line["event"]["type"] == "retry-scheduled" && line["event"]["step"] == step)
    };
    let patience = boot_now() + Duration::from_secs(60);
    while !(retried("restore-db") && retried("restore-cache")) {
        assert!(boot_now() < patience, "nothing is tried again: {:?}", drill.journal().last());
        block(Duration::from_millis(5));
    }
    std::fs::rename(&away, &bucket).unwrap();
    let output = run.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
}
