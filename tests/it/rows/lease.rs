//! Two drills of one system, on two machines as far as they can tell: their own inventories, directories and state.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use lifeboat::clock::{block, boot_now};
use lifeboat::store::{Bucket, Held, Lease, Terms};

use crate::support::Home;
use crate::support::pty::Terminal;
use crate::support::redis::{TestRedis, free_port, open_directory};
use crate::support::s3::S3;
use crate::support::sandbox::text;

/// The restore, a gate that the test opens, and the restore once more.
const RUNBOOK: &str = r#"
format = 1
id = "restore"
title = "Restore"
owner = "tests"
revision = 1
systems = { cache = "redis" }
[[phases]]
title = "One"
[[phases.steps]]
id = "restore"
do = "redis.restore"
system = "cache"
[[phases.steps]]
id = "gate"
do = "command"
title = "Stand before the gate"
script = 'echo > "$LIFEBOAT_VAR_HERE/held"; test -e "$LIFEBOAT_VAR_HERE/open" || read word < "$LIFEBOAT_VAR_HERE/gate"'
[[phases.steps]]
id = "again"
do = "redis.restore"
system = "cache"
[variables.here]
"#;

const SNAPSHOT: &str = r#"
format = 1
id = "snapshot"
title = "Snapshot"
owner = "tests"
revision = 1
systems = { cache = "redis" }
[[phases]]
title = "One"
[[phases.steps]]
id = "snapshot"
do = "redis.snapshot"
system = "cache"
"#;

struct Scene {
    home: Home,
    server: Option<S3>,
    _cache: TestRedis,
    ports: [u16; 2],
}

impl Scene {
    async fn new(server: Option<S3>) -> Self {
        let home = open_directory();
        let cache = TestRedis::start(home.path(), &[], None).await;
        cache.run("set stock 7").await;
        let store = match &server {
            None => {
                std::fs::create_dir(home.path().join("bucket")).unwrap();
                format!("url = \"file://{}/bucket\"", home.path().display())
            }
            Some(server) => format!(
                "url = \"{}\"\naccess_key = {{ env = \"BACKUPS_KEY\" }}\nsecret_key = {{ env = \"BACKUPS_SECRET\" }}",
                server.url("prod")
            ),
        };
        let scene = Self { home, server, _cache: cache, ports: [free_port(), free_port()] };
        for side in 0..2 {
            let here = scene.path(side, "");
            std::fs::create_dir(&here).unwrap();
            let inventory = format!(
                "format = 1\nservice = \"orders\"\n[stores.backups]\n{store}\n[systems.orders-cache]\nkind = \"redis\"\n\
                 environment = \"test\"\nurl = \"{url}\"\nbackups = {{ store = \"backups\" }}\n\
                 restore = {{ directory = \"{here}restored\", port = {port} }}\n",
                url = scene._cache.url.expose(),
                here = here.display(),
                port = scene.ports[side],
            );
            std::fs::write(scene.path(side, "lifeboat.toml"), inventory).unwrap();
            std::fs::write(scene.path(side, "restore.toml"), RUNBOOK).unwrap();
            std::fs::write(scene.path(side, "snapshot.toml"), SNAPSHOT).unwrap();
            nix::unistd::mkfifo(&scene.path(side, "gate"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        }
        let taken = scene.command(0, &["run", "snapshot.toml", "--headless", "--yes"]).output().unwrap();
        assert!(taken.status.success(), "{}", text(&taken.stderr));
        scene
    }

    fn path(&self, side: usize, name: &str) -> PathBuf {
        self.home.path().join(["ann", "bob"][side]).join(name)
    }

    fn command(&self, side: usize, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_lifeboat"));
        command.args(arguments).current_dir(self.path(side, "")).stdin(Stdio::null());
        command.env("LIFEBOAT_STATE_DIR", self.path(side, "state"));
        if let Some(server) = &self.server {
            command.env("BACKUPS_KEY", server.keys.access_key.expose());
            command.env("BACKUPS_SECRET", server.keys.secret_key.expose());
        }
        command
    }

    fn start(&self, side: usize) -> Child {
        let here = format!("here={}", self.path(side, "").display());
        let operator = ["ann", "bob"][side];
        let arguments = ["run", "restore.toml", "--headless", "--yes", "--var", &here, "--operator", operator];
        self.command(side, &arguments).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
    }

    /// It may stand before the gate already, be on its way to it, or come much later: what is returned is kept until it has
    /// passed. Opened for reading too, the gate waits for nobody.
    #[must_use]
    fn open(&self, side: usize) -> std::fs::File {
        let mut gate = std::fs::OpenOptions::new().read(true).write(true).open(self.path(side, "gate")).unwrap();
        gate.write_all(b"open\n").unwrap();
        std::fs::write(self.path(side, "open"), "").unwrap();
        gate
    }

    /// Both at once: the one that stands before the gate, and what became of the other.
    fn race(&self) -> (usize, Child, Output) {
        let mut both = [Some(self.start(0)), Some(self.start(1))];
        let patience = boot_now() + Duration::from_secs(120);
        loop {
            let held = [0, 1].map(|side| self.path(side, "held").exists());
            let ended = both.each_mut().map(|child| child.as_mut().unwrap().try_wait().unwrap().is_some());
            if held == [true, true] {
                both.iter_mut().flatten().for_each(|child| child.kill().unwrap());
                panic!("two drills restored the same system at once");
            }
            if let Some(winner) = (0..2).find(|side| held[*side] && ended[1 - side]) {
                let loser = both[1 - winner].take().unwrap().wait_with_output().unwrap();
                return (winner, both[winner].take().unwrap(), loser);
            }
            assert!(
                ended != [true, true],
                "none of two drills won: {:?}",
                both.map(|child| text(&child.unwrap().wait_with_output().unwrap().stderr).to_owned())
            );
            assert!(boot_now() < patience, "nobody won, nobody lost");
            block(Duration::from_millis(5));
        }
    }
}

fn one_of_two_wins(scene: &Scene) {
    let (winner, child, loser) = scene.race();
    let said = text(&loser.stderr);
    assert_eq!(loser.status.code(), Some(1), "{said}");
    assert!(said.contains("another drill holds orders-cache"), "{said}");
    assert!(said.contains(&format!("why: {}@", ["ann", "bob"][winner])), "who holds it is said: {said}");
    assert!(!scene.path(1 - winner, "restored").exists(), "who lost has touched nothing");
    let _gate = scene.open(winner);
    let won = child.wait_with_output().unwrap();
    assert!(won.status.success(), "{}", text(&won.stderr));
    // It was given back.
    let _gate = scene.open(1 - winner);
    let next = scene.start(1 - winner).wait_with_output().unwrap();
    assert!(next.status.success(), "{}", text(&next.stderr));
}

#[tokio::test(flavor = "multi_thread")]
async fn row_19_two_programs_with_one_bucket_in_a_directory() {
    one_of_two_wins(&Scene::new(None).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn row_19_two_programs_with_one_bucket_behind_s3() {
    one_of_two_wins(&Scene::new(Some(S3::start().await)).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn row_19_who_lost_the_lease_stops_before_the_next_destructive_step() {
    let scene = Scene::new(None).await;
    let child = scene.start(0);
    let patience = boot_now() + Duration::from_secs(60);
    while !scene.path(0, "held").exists() {
        assert!(boot_now() < patience, "it never came to the gate");
        block(Duration::from_millis(5));
    }
    let url = format!("file://{}/bucket", scene.home.path().display());
    let bucket = Bucket::open(&url, "orders-cache").unwrap();
    let terms = Terms { runs_out: Duration::ZERO, is_free: Duration::ZERO };
    let other = Lease { bucket, drill: "other".into(), by: "bob@there".into(), terms };
    assert!(matches!(other.hold(None).await.unwrap(), Held::Token(2..)), "the first drill had taken it");
    let _gate = scene.open(0);
    let output = child.wait_with_output().unwrap();
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "it went on without the lease: {said}");
    assert!(said.contains("lost its hold on orders-cache") && said.contains("bob@there"), "{said}");
}

impl Scene {
    /// A lease of a drill elsewhere, from which nothing was heard for an hour.
    async fn leave_a_lease(&self) -> Lease {
        let url = format!("file://{}/bucket", self.home.path().display());
        let bucket = Bucket::open(&url, "orders-cache").unwrap();
        let other = Lease { bucket, drill: "other-drill".into(), by: "bob@there".into(), terms: Terms::default() };
        let Held::Token(token) = other.hold(None).await.unwrap() else { panic!("no lease in {url}") };
        let path = self.home.path().join(format!("bucket/orders-cache/lease/{token:012}.json"));
        let hour_ago = lifeboat::clock::wall_now() - chrono::Duration::hours(1);
        std::fs::File::options().write(true).open(path).unwrap().set_modified(hour_ago.into()).unwrap();
        other
    }

    /// At a terminal, by lines: the restore until it asks for the name of the drill whose lease it is, and that typed.
    fn take_over(&self, command: Command) -> Terminal {
        let mut terminal = Terminal::start(command, 120, 40);
        terminal.wait_for("To go on, type the name: other-drill");
        terminal.keys("other-drill\r");
        terminal
    }

    fn at_a_terminal(&self) -> Command {
        let here = format!("here={}", self.path(0, "").display());
        self.command(0, &["run", "restore.toml", "--plain", "--reason", "a test", "--var", &here, "--operator", "ann"])
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn row_19_a_lease_that_ran_out_is_taken_over_by_a_person_and_by_nobody_else() {
    let scene = Scene::new(None).await;
    let other = scene.leave_a_lease().await;
    let output = scene.start(0).wait_with_output().unwrap();
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "it took a lease that ran out without a person: {said}");
    assert!(said.contains("bob@there") && said.contains("the lease ran out at "), "{said}");
    let _gate = scene.open(0);
    let mut terminal = scene.take_over(scene.at_a_terminal());
    assert_eq!(terminal.end().code(), Some(0));
    // Whoever lost it learns it, whenever they come back.
    let lost = other.hold(None).await.unwrap_err().to_string();
    assert!(lost.starts_with("taken over by "), "{lost}");
}

/// As a role that may only read the bucket, of which the restores of many sites are done.
#[tokio::test(flavor = "multi_thread")]
async fn row_19_who_may_only_read_is_told_that_nothing_but_this_machine_s_lock_holds() {
    let scene = Scene::new(None).await;
    // One restore: where nothing can be written, each asks anew.
    let (steps, again) = RUNBOOK.split_once("[[phases.steps]]\nid = \"again\"").unwrap();
    let (_, variables) = again.split_once("[variables.").unwrap();
    std::fs::write(scene.path(0, "restore.toml"), format!("{steps}[variables.{variables}")).unwrap();
    let bucket = scene.home.path().join("bucket");
    let mode = |mode: &str| {
        assert!(Command::new("chmod").args(["-R", mode]).arg(&bucket).status().unwrap().success());
    };
    let account = lifeboat::process::Account::unprivileged().unwrap();
    let reader = |mut command: Command| {
        if let Some(account) = &account {
            let owner = format!("{}:{}", account.uid, account.gid);
            assert!(Command::new("chown").args(["-R", &owner]).arg(scene.path(0, "")).status().unwrap().success());
            assert!(Command::new("chown").args(["-R", "0:0"]).arg(&bucket).status().unwrap().success());
            std::os::unix::process::CommandExt::uid(&mut command, account.uid);
            std::os::unix::process::CommandExt::gid(&mut command, account.gid);
        }
        command
    };
    let headless = || {
        let here = format!("here={}", scene.path(0, "").display());
        let mut command = reader(scene.command(0, &["run", "restore.toml", "--headless", "--yes", "--var", &here]));
        let output = command.output().unwrap();
        (output.status.code(), text(&output.stderr))
    };
    let _gate = scene.open(0);
    mode("a=rX");
    let (code, said) = headless();
    assert_eq!(code, Some(0), "{said}");
    assert!(
        said.contains("mind: no lease on orders-cache") && said.contains("Only the lock on this machine"),
        "{said}"
    );
    // Somebody else's holds though.
    mode("u=rwX");
    let other = scene.leave_a_lease().await;
    mode("a=rX");
    let port = scene.ports[0].to_string();
    Command::new("redis-cli").args(["-p", &port, "shutdown", "nosave"]).output().unwrap();
    std::fs::remove_dir_all(scene.path(0, "restored")).unwrap();
    let (code, said) = headless();
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("another drill holds orders-cache") && said.contains("the lease ran out at "), "{said}");
    // A person may go on beside it: nothing of that is written, and who comes back does not learn of it.
    let mut terminal = scene.take_over(reader(scene.at_a_terminal()));
    assert_eq!(terminal.end().code(), Some(0));
    mode("u=rwX");
    assert!(matches!(other.hold(None).await.unwrap(), Held::Token(_)));
}
