//! `lifeboat points` on real archives: what it shows, how it came to know it, and how much WAL it reads for that.

use std::collections::BTreeMap;
use std::fs::FileTimes;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use lifeboat::clock;
use lifeboat::system::postgres::connect;
use serde_json::Value;

use crate::support::postgres::{Primary, account, program};
use crate::support::sandbox::{Place, last_line, text};

const SYSTEM: &str = "orders-db";

/// A cluster with small segments, its archive, and an inventory.
struct Shop {
    primary: Primary,
}

impl Shop {
    async fn new() -> Self {
        let primary = Primary::start_as(&["--wal-segsize=1"], &[]).await;
        let inventory = format!(
            "format = 1\nservice = \"orders\"\n[stores.backups]\nurl = \"{}\"\n[systems.{SYSTEM}]\nkind = \"postgres\"\n\
             environment = \"test\"\nurl = {{ file = \"url\" }}\nbackups = {{ store = \"backups\" }}\n\
             restore = {{ directory = \"{}\" }}\n",
            primary.location.url,
            primary.path("restored").display()
        );
        std::fs::write(primary.path("lifeboat.toml"), inventory).unwrap();
        std::fs::write(primary.path("url"), primary.url.expose()).unwrap();
        primary.sql("create table orders (id int primary key); create table payments (id int)").await;
        Self { primary }
    }

    /// A segment with some commits, archived. Its name.
    async fn segment(&self, first: i32) -> String {
        for id in first..first + 5 {
            self.primary.sql(&format!("insert into orders values ({id})")).await;
        }
        self.primary.archive().await
    }

    fn command(&self, options: &[&str]) -> Command {
        let mut command = Command::new(program());
        command.arg("points").arg("--inventory").arg(self.primary.path("lifeboat.toml")).args(options);
        command.env("LIFEBOAT_STATE_DIR", self.primary.path("state")).current_dir("/");
        command
    }

    fn points(&self, options: &[&str]) -> Output {
        self.command(options).output().expect("lifeboat starts")
    }

    /// What it knows of the one system, and of the last look: segments in all, and those that were read.
    fn window(&self) -> (Value, u64, u64) {
        window(&self.points(&["--json"]))
    }

    fn target(&self, target: &str) -> Value {
        let output = self.points(&["--json", "--target", target]);
        assert!(output.status.success(), "{target}: {}", text(&output.stderr));
        last_line(&output)
    }

    fn refused(&self, target: &str, words: &[&str]) {
        let output = self.points(&["--target", target]);
        let said = text(&output.stdout) + &text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{target}: {said}");
        words.iter().for_each(|word| assert!(said.contains(word), "{target}: no `{word}` in {said}"));
    }

    fn bucket(&self, folder: &str) -> PathBuf {
        self.primary.path("bucket").join(SYSTEM).join(folder)
    }

    /// Every segment by its name.
    fn segments(&self) -> BTreeMap<String, PathBuf> {
        let name = |path: &PathBuf| path.file_name()?.to_str()?.strip_suffix(".zst").map(ToOwned::to_owned);
        walk(&self.bucket("wal")).into_iter().filter_map(|path| Some((name(&path)?, path))).collect()
    }

    fn forget(&self) {
        std::fs::remove_dir_all(self.bucket("wal-index")).unwrap();
    }
}

fn window(output: &Output) -> (Value, u64, u64) {
    assert!(output.status.success(), "{}", text(&output.stderr));
    let mut found = last_line(output)["systems"][0].take();
    let history = found["history"].as_object_mut().unwrap_or_else(|| panic!("no history: {}", text(&output.stdout)));
    let mut count = |name: &str| history.remove(name).unwrap().as_u64().unwrap();
    let (segments, read) = (count("segments"), count("read"));
    (found, segments, read)
}

fn walk(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for path in std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()) {
        if path.is_dir() { found.extend(walk(&path)) } else { found.push(path) }
    }
    found.sort();
    found
}

/// Other bytes, and the listing does not show it: who reads the file notices, who does not read it does not.
fn garble(path: &Path) {
    let meta = std::fs::metadata(path).unwrap();
    std::fs::write(path, vec![0xA5; meta.len() as usize]).unwrap();
    let file = std::fs::File::options().write(true).open(path).unwrap();
    file.set_times(FileTimes::new().set_modified(meta.modified().unwrap())).unwrap();
}

/// As it was before [`garble`].
fn repair(path: &Path, bytes: &[u8]) {
    let meta = std::fs::metadata(path).unwrap();
    std::fs::write(path, bytes).unwrap();
    let file = std::fs::File::options().write(true).open(path).unwrap();
    file.set_times(FileTimes::new().set_modified(meta.modified().unwrap())).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_look_reads_what_is_new_and_a_target_its_segment() {
    let shop = Shop::new().await;
    shop.primary.backup().run().await.expect("the backup succeeds");
    let mut names = Vec::new();
    for number in 0..4 {
        names.push(shop.segment(number * 5).await);
    }
    shop.primary.value("select pg_create_restore_point('release')").await;
    let dropped = shop.primary.value("begin; select pg_current_xact_id()::text; drop table payments; commit").await;
    let damaged = shop.segment(20).await;
    // The backup that is newest does not know the table any more.
    shop.primary.backup().run().await.expect("the backup succeeds");
    for number in 5..9 {
        names.push(shop.segment(number * 5).await);
    }
    let (first, segments, read) = shop.window();
    assert_eq!(read, segments);
    assert!(segments > 8, "{segments}");
    let suspect = &first["history"]["suspects"][0];
    assert_eq!((&suspect["xid"].to_string(), suspect["deeds"][0]["table"].as_str()), (&dropped, Some("payments")));
    let (second, _, read) = shop.window();
    assert!(read <= 1, "{read} segments were read again");
    assert_eq!(first, second);

    // Not even with all of it gone behind the listing's back. Each target is found in the segment that holds it.
    let whole: BTreeMap<PathBuf, Vec<u8>> =
        shop.segments().into_values().map(|path| (path.clone(), std::fs::read(&path).unwrap())).collect();
    let at = suspect["at"].as_str().unwrap();
    let targets = [format!("xid:{dropped}"), format!("time:{at}"), "name:release".to_owned()];
    let answers: Vec<Value> = targets.iter().map(|target| shop.target(target)).collect();
    let last = names.last().unwrap();
    let near = |name: &str| name == damaged || name == last;
    shop.segments().iter().filter(|(name, _)| !near(name)).for_each(|(_, path)| garble(path));
    assert_eq!(shop.window().0, first);
    for (target, answer) in targets.iter().zip(&answers) {
        assert_eq!(&shop.target(target), answer, "{target}");
    }
    // Who has no index, reads and sees it.
    let kept: Vec<(PathBuf, Vec<u8>)> =
        walk(&shop.bucket("wal-index")).into_iter().map(|path| (path.clone(), std::fs::read(&path).unwrap())).collect();
    shop.forget();
    let blind = last_line(&shop.points(&["--json"]));
    assert!(blind["systems"][0]["history"]["stopped"].as_str().unwrap().contains("cannot be decompressed"), "{blind}");
    whole.iter().for_each(|(path, bytes)| repair(path, bytes));

    // New segments are read, and no others.
    let (_, _, read) = shop.window();
    assert_eq!(read, segments, "damage leaves no index");
    shop.segment(100).await;
    shop.segment(105).await;
    let (grown, more, read) = shop.window();
    assert!(more == segments + 2 && read <= 3, "{read} of {more}");

    // Damaged, cut, empty or mixed up, an index is not believed.
    for spoil in [
        &(|bytes: &[u8]| {
            [&bytes[..bytes.len() / 2], &[!bytes[bytes.len() / 2]], &bytes[bytes.len() / 2 + 1..]].concat()
        }) as &dyn Fn(&[u8]) -> Vec<u8>,
        &|bytes| bytes[..bytes.len() / 2].to_vec(),
        &|_| Vec::new(),
        &|_| kept[0].1.clone(),
    ] {
        for path in walk(&shop.bucket("wal-index")) {
            let bytes = std::fs::read(&path).unwrap();
            std::fs::write(&path, spoil(&bytes)).unwrap();
        }
        let (anew, _, read) = shop.window();
        assert!(read >= more - 1, "{read} of {more}");
        assert_eq!(anew, grown);
        shop.forget();
        assert_eq!(shop.window().0, grown);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_that_is_only_read_shows_the_same() {
    let shop = Shop::new().await;
    shop.primary.backup().run().await.expect("the backup succeeds");
    shop.segment(0).await;
    shop.segment(5).await;
    let allow = |mode| {
        let bucket = shop.bucket("");
        std::fs::set_permissions(&bucket, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    // Backups by root are not for the account under which a reader runs here.
    walk(&shop.bucket("base"))
        .iter()
        .chain([&shop.primary.path("lifeboat.toml"), &shop.primary.path("url")])
        .for_each(|path| account().iter().for_each(|account| account.give(path).unwrap()));
    for folder in walk(&shop.bucket("base")).iter().filter_map(|path| path.parent()).chain([&*shop.bucket("base")]) {
        account().iter().for_each(|account| account.give(folder).unwrap());
    }
    let reader = |options: &[&str]| {
        let mut command = shop.command(options);
        if let Some(account) = account() {
            command.uid(account.uid).gid(account.gid);
        }
        command.output().expect("lifeboat starts")
    };
    allow(0o555);
    for _ in 0..2 {
        let output = reader(&["--json"]);
        let (found, segments, read) = window(&output);
        assert_eq!(read, segments);
        assert!(found["history"]["not_kept"].as_str().unwrap().contains("wal-index"), "{found}");
        assert_eq!(found["warnings"], serde_json::json!([]));
    }
    let said = text(&reader(&[]).stdout);
    assert!(said.contains("the index is not kept"), "{said}");
    let target = reader(&["--json", "--target", "latest"]);
    assert!(target.status.success(), "{}", text(&target.stderr));
    allow(0o755);
    assert!(!shop.bucket("wal-index").exists());
    let (mut theirs, ..) = window(&reader(&["--json"]));
    theirs["history"].as_object_mut().unwrap().remove("not_kept");
    let (own, ..) = shop.window();
    assert_eq!(own, theirs);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hole_or_damage_ends_the_window_and_is_named() {
    let shop = Shop::new().await;
    shop.primary.backup().run().await.expect("the backup succeeds");
    let mut names = vec![shop.segment(0).await];
    let early = shop
        .primary
        .value("select to_char(clock_timestamp() at time zone 'utc', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')")
        .await;
    shop.primary.value("select pg_create_restore_point('release')").await;
    for number in 1..5 {
        names.push(shop.segment(number * 5).await);
    }
    let after = shop.primary.value("select pg_current_xact_id()::text").await;
    shop.segment(100).await;
    shop.primary.backup().run().await.expect("the backup succeeds");
    shop.segment(200).await;
    let spoiled = shop.segments()[&names[2]].clone();
    let whole = std::fs::read(&spoiled).unwrap();
    // The history of both backups is known before, and is not believed over what is there now.
    let before = shop.window().0;
    assert_eq!(before["history"]["stopped"], Value::Null);
    let start = before["backups"][0]["start_lsn"].as_str().unwrap();
    assert!(before["history"]["from"].as_str().unwrap() <= start, "it does not begin with the oldest backup");
    shop.refused("name:never", &["not in the WAL"]);

    std::fs::write(&spoiled, &whole[..whole.len() / 2]).unwrap();
    let backup = walk(&shop.bucket("base")).into_iter().rfind(|path| path.ends_with("manifest.json")).unwrap();
    let aside = shop.primary.path("manifest.json");
    std::fs::rename(&backup, &aside).unwrap();
    let (found, ..) = shop.window();
    assert!(found["history"]["stopped"].as_str().unwrap().contains(&names[2]), "{found}");
    assert!(found["history"]["commits"].as_u64() < before["history"]["commits"].as_u64());
    let said = text(&shop.points(&[]).stdout);
    assert!(said.contains("reading stopped at") && said.contains(&names[2]), "{said}");
    shop.refused(&format!("xid:{after}"), &[&names[2]]);
    shop.refused("latest", &[&names[2]]);

    std::fs::remove_file(&spoiled).unwrap();
    let (found, ..) = shop.window();
    assert!(found["history"]["stopped"].as_str().unwrap().contains(&names[2]), "{found}");
    let gap = &found["gaps"][0];
    assert_eq!((gap["first_missing"].as_str(), gap["segments"].as_u64()), (Some(&*names[2]), Some(1)));
    assert_eq!(gap["basis"], "reported");
    let said = text(&shop.points(&[]).stdout);
    assert!(said.contains(&format!("GAP {0} … {0}", names[2])), "{said}");
    shop.refused("latest", &[&names[2]]);

    // A newer backup leads on behind the hole: the history is that of the window in which one would recover.
    std::fs::rename(&aside, &backup).unwrap();
    let (found, ..) = shop.window();
    assert_eq!((&found["history"]["stopped"], &found["history"]["to"]), (&Value::Null, &before["history"]["to"]));
    assert_eq!(found["gaps"].as_array().unwrap().len(), 1);
    let uncounted = |found: &Value| found["cost"]["warnings"].to_string().contains("is not counted");
    assert!(!uncounted(&shop.target("latest")));
    // And what lies before it is found in the older one's.
    let first = shop.primary.value("select min(xmin::text::bigint)::text from orders").await;
    for target in [format!("time:{early}"), format!("xid:{first}"), "name:release".to_owned()] {
        let found = shop.target(&target);
        assert_eq!(found["backups"][SYSTEM], before["backups"][0]["label"], "{found}");
        assert!(found["resolved"][SYSTEM].is_object(), "{found}");
        // The commits behind the hole are given up as well, and nobody says how many these are.
        assert!(uncounted(&found), "{found}");
    }
    shop.refused("name:never", &["not in the WAL"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn timelines_and_restore_points_are_shown_with_how_they_are_known() {
    let shop = Shop::new().await;
    shop.primary.backup().run().await.expect("the backup succeeds");
    shop.primary.value("select pg_create_restore_point('release')").await;
    shop.segment(0).await;
    shop.primary.down("fast").await;
    // A new timeline, out of its own WAL.
    for (name, text) in [("recovery.signal", ""), ("postgresql.auto.conf", "restore_command = '/bin/false'\n")] {
        let path = shop.primary.data.join(name);
        std::fs::write(&path, text).unwrap();
        account().iter().for_each(|account| account.give(&path).unwrap());
    }
    shop.primary.up().await;
    let recovered = async {
        while connect(&shop.primary.url).await.is_err() || shop.primary.value("select pg_is_in_recovery()").await != "f"
        {
            clock::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), recovered).await.expect("the recovery ends");
    shop.segment(5).await;
    shop.primary.value("select pg_create_restore_point('again'), pg_create_restore_point('again')").await;
    shop.segment(10).await;
    let (found, ..) = shop.window();
    let fork = &found["forks"][0];
    assert_eq!(
        (fork["timeline"].as_u64(), fork["parent"].as_u64(), &fork["basis"]),
        (Some(2), Some(1), &"observed".into())
    );
    let history = std::fs::read_to_string(shop.bucket("wal/00000002/00000002.history")).unwrap();
    assert!(history.contains(fork["at"].as_str().unwrap()), "{history}");
    assert_eq!(found["history"]["timeline"].as_u64(), Some(2), "history goes on where the archive does");
    let points: Vec<&str> =
        found["restore_points"].as_array().unwrap().iter().map(|point| point["name"].as_str().unwrap()).collect();
    assert_eq!(points, ["release", "again", "again"]);
    let basis = |name: &str| found[name].as_array().unwrap().iter().map(|one| one["basis"].clone()).collect::<Vec<_>>();
    assert_eq!(basis("backups"), ["observed"]);
    assert!(basis("restore_points").iter().all(|basis| basis == "observed"));
    assert!(basis("coverage").contains(&"observed".into()), "{found}");
    let said = text(&shop.points(&[]).stdout);
    for word in ["timeline 2 left 1 at", "restore point release", "(observed)", "(observed; "] {
        assert!(said.contains(word), "no `{word}` in {said}");
    }
    let release = shop.target("name:release");
    assert!(release["resolved"][SYSTEM]["lsn"].is_string(), "{release}");
    shop.refused("name:again", &["several restore points", "lsn:"]);
    // Nobody knows where a timeline without its history file comes from.
    std::fs::remove_file(shop.bucket("wal/00000002/00000002.history")).unwrap();
    let (found, ..) = shop.window();
    assert!(found["warnings"][0].as_str().unwrap().contains("00000002.history is missing"), "{found}");
}

#[test]
fn a_whole_service_is_shown() {
    let place = Place::new("points");
    place.json(&["up", "--json"]);
    let status = place.json(&["status", "--json"]);
    let inventory = status["inventory"].as_str().unwrap();
    let points = |options: &[&str]| {
        let output = place.lifeboat(&[&["points", "--inventory", inventory], options].concat()).output().unwrap();
        assert!(output.status.success(), "{}", text(&output.stderr));
        output
    };
    let found = last_line(&points(&["--json"]));
    let system = |kind: &str| {
        let systems = found["systems"].as_array().unwrap();
        systems.iter().find(|system| system["kind"] == kind).unwrap_or_else(|| panic!("no {kind} in {found}"))
    };
    let (postgres, redis) = (system("postgres"), system("redis"));
    for (list, basis) in [
        (&postgres["backups"], "observed"),
        (&postgres["coverage"], "reported"),
        (&redis["snapshots"], "observed"),
        (&redis["aof"], "observed"),
    ] {
        let list = list.as_array().unwrap();
        assert!(!list.is_empty(), "{found}");
        let known = ["observed", basis];
        assert!(list.iter().all(|one| known.contains(&one["basis"].as_str().unwrap())), "{list:?}");
    }
    let suspects = postgres["history"]["suspects"].as_array().unwrap();
    assert!(suspects.iter().any(|suspect| suspect["deeds"][0]["what"] == "drops"), "{suspects:?}");
    let said = text(&points(&[]).stdout);
    for word in ["■ base backup", "━ WAL", "∿ ", "suspect", "○ snapshot", "━ AOF", "(observed)"] {
        assert!(said.contains(word), "no `{word}` in {said}");
    }
}
