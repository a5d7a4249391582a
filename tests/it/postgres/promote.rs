use std::sync::{Arc, Mutex};
use std::time::Duration;

use lifeboat::clock;
use lifeboat::event::RecoveryTarget;
use lifeboat::process::Spec;
use lifeboat::secret::Secret;
use lifeboat::system::postgres::restore::undo;
use lifeboat::system::postgres::{Fence, Promote, Proof, Reporter, Restored, Url};
use tokio_util::sync::CancellationToken;

use super::fence::fence;
use super::restore::{DIGEST, at, restore_of, run, shop};
use crate::support::partition::Line;
use crate::support::postgres::{Primary, account};

pub fn promotion(restored: &Restored, proof: Proof) -> Promote {
    Promote {
        directory: restored.directory.clone(),
        url: Secret::new(restored.url.clone()),
        drill: "drill-1".to_owned(),
        system: "orders-db".to_owned(),
        proof,
        report: Reporter::silent(),
    }
}

/// Drops the table, and restores to just before that transaction.
async fn dropped() -> (Primary, String, RecoveryTarget) {
    let primary = shop().await;
    let before = primary.value(DIGEST).await;
    let xid = primary.value("begin; select pg_current_xact_id()::text; drop table orders; commit").await;
    primary.archive().await;
    (primary, before, RecoveryTarget::Xid { xid: xid.parse().unwrap() })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_table_is_back_once_promoted() {
    let (primary, before, target) = dropped().await;
    let (clone, result) = run(restore_of(&primary, target.clone(), false, "clone").await).await;
    let restored = result.expect("the restore succeeds");
    // The transaction that is cut off holds its lock as long as recovery lasts.
    assert_eq!(restored.locked, ["orders"]);

    // The old primary takes writes: no.
    let failure = promotion(&restored, Proof::Source(primary.url.clone())).run().await.unwrap_err();
    assert!(failure.what.contains("may still take writes"), "{failure:?}");
    assert_eq!(at(&restored, "select pg_is_in_recovery()").await, "t");

    primary.down("fast").await;
    let promoted = promotion(&restored, Proof::Source(primary.url.clone())).run().await.expect("it is promoted");
    assert_eq!(promoted.timeline, 2);
    assert!(promoted.proof.contains("no server listens"), "{}", promoted.proof);
    assert_eq!(at(&restored, DIGEST).await, before);
    assert_eq!(at(&restored, "insert into orders (item) values ('new') returning item").await, "new");
    assert_eq!(at(&restored, "show archive_mode").await, "off");
    assert_eq!(at(&restored, "show autovacuum").await, "on");
    assert_eq!(at(&restored, "show restore_command").await, "");
    // Its next backup reads everything in its directory.
    let closed = Spec::new("find").arg(&clone.directory).args(["!", "-readable"]).cwd("/").run_as(account());
    let closed = closed.capture(4096, &CancellationToken::new()).await.unwrap();
    assert_eq!((closed.end.success(), closed.stdout_text().as_str()), (true, ""), "{}", closed.stderr_text());

    // Again: nothing happens twice. And nothing wipes what now takes writes.
    let again = promotion(&restored, Proof::Source(primary.url.clone())).run().await.expect("it is found");
    assert!(again.found && again.timeline == 2, "{again:?}");
    let failure = restore_of(&primary, target, false, "clone").await.run().await.unwrap_err();
    assert!(failure.why.contains("was promoted"), "{failure:?}");
    assert_eq!(at(&restored, "select count(*) from orders where item = 'new'").await, "1");
    let said = undo(&clone.directory, "drill-1", "orders-db").await.expect("the undo succeeds");
    assert!(said.contains("kept as") && !clone.directory.exists(), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn row_02_only_what_was_looked_at_is_promoted() {
    let (primary, _, target) = dropped().await;
    let (_clone, result) = run(restore_of(&primary, target, false, "clone").await).await;
    let restored = result.expect("the restore succeeds");
    let fine = || Proof::NotNeeded { why: "a rehearsal".to_owned() };

    // A URL that leads to another server.
    let mut wrong = promotion(&restored, fine());
    wrong.url = primary.url.clone();
    let failure = wrong.run().await.unwrap_err();
    assert!(failure.what.contains("not promoted"), "{failure:?}");
    let mut other = promotion(&restored, fine());
    other.drill = "drill-2".to_owned();
    assert!(other.run().await.is_err());

    assert_eq!(at(&restored, "select pg_is_in_recovery()").await, "t");
    lifeboat::system::postgres::restore::undo(&restored.directory, "drill-1", "orders-db").await.expect("undone");
    let failure = promotion(&restored, fine()).run().await.unwrap_err();
    assert!(failure.why.contains("marker"), "{failure:?}");
}

/// An application that writes as fast as it can, through every loss of its connection. The commits that it was told of, by
/// the servers' clock, in microseconds.
struct Writer {
    commits: Arc<Mutex<Vec<i64>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Writer {
    fn at(url: Url) -> Self {
        let commits = Arc::<Mutex<Vec<i64>>>::default();
        let told = Arc::clone(&commits);
        let task = tokio::spawn(async move {
            loop {
                if let Ok(session) = url.connect().await {
                    // It means to write, whatever the server's default says.
                    let _ = session.batch_execute("set default_transaction_read_only = off").await;
                    let write = "insert into orders (item) values ('w')
                                 returning (extract(epoch from clock_timestamp()) * 1000000)::bigint";
                    while let Ok(row) = session.query_one(write, &[]).await {
                        told.lock().unwrap().push(row.get(0));
                    }
                }
                clock::sleep(Duration::from_millis(5)).await;
            }
        });
        Self { commits, task }
    }

    async fn has(&self, more: usize) {
        let goal = self.commits.lock().unwrap().len() + more;
        let there = async {
            while self.commits.lock().unwrap().len() < goal {
                clock::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), there).await.expect("it can write");
    }

    fn end(self) -> Vec<i64> {
        self.task.abort();
        std::mem::take(&mut *self.commits.lock().unwrap())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn row_04_two_servers_never_take_writes_at_once() {
    let primary = shop().await;
    primary.sql("create role app login; grant all on orders, orders_id_seq to app").await;
    primary.archive().await;
    let (_clone, result) = run(restore_of(&primary, RecoveryTarget::Latest, true, "clone").await).await;
    let restored = result.expect("the restore succeeds");
    let old = Writer::at(Url::parse(&primary.url).unwrap().with_user("app"));
    let new = Writer::at(Url::parse(&Secret::new(restored.url.clone())).unwrap());
    old.has(20).await;

    // What Lifeboat sees of the old primary goes over a line that breaks; the application's does not.
    let line = Line::to(primary.port).await;
    let seen = Secret::new(format!("postgresql://dba@127.0.0.1:{}/postgres", line.port));
    line.cut();
    let unknown = promotion(&restored, Proof::Source(seen.clone())).run().await;
    let fence_unknown = fence(&seen).run().await;
    line.mend();
    let writable = promotion(&restored, Proof::Source(seen.clone())).run().await;
    old.has(20).await;
    let fenced = fence(&seen).run().await;
    let promoted = promotion(&restored, Proof::Source(seen)).run().await;
    new.has(20).await;

    let (old, new) = (old.end(), new.end());
    let (last, first) = (old.iter().max().unwrap(), new.iter().min().unwrap());
    assert!(last < first, "two servers took writes at once, for {} ms", (last - first) / 1000);
    assert!(unknown.is_err_and(|failure| failure.what.contains("may still take writes")));
    assert!(fence_unknown.is_err_and(|failure| failure.what.contains("not known")));
    assert!(writable.is_err_and(|failure| failure.what.contains("may still take writes")));
    fenced.expect("the fence holds");
    promoted.expect("it is promoted");
}

/// A clone shares the system identifier, the timeline, the version, the role and the database of its twin.
#[tokio::test(flavor = "multi_thread")]
async fn row_02_a_twin_at_the_address_is_not_promoted() {
    let primary = shop().await;
    primary.archive().await;
    let (_one, result) = run(restore_of(&primary, RecoveryTarget::Latest, true, "one").await).await;
    let one = result.expect("the restore succeeds");
    let (_two, result) = run(restore_of(&primary, RecoveryTarget::Latest, true, "two").await).await;
    let two = result.expect("the restore succeeds");
    assert_eq!(one.lsn, two.lsn);
    primary.down("fast").await;
    // Meanwhile the address leads to the other.
    let mut swapped = promotion(&one, Proof::Source(primary.url.clone()));
    swapped.url = Secret::new(two.url.clone());
    let result = swapped.run().await;
    assert_eq!(at(&two, "select pg_is_in_recovery()").await, "t", "another server was promoted: {result:?}");
    assert!(result.is_err_and(|failure| failure.why.contains("answers from")));
}

#[tokio::test(flavor = "multi_thread")]
async fn row_02_another_cluster_at_the_address_is_not_fenced() {
    let (primary, other) = (shop().await, Primary::start().await);
    other.sql("create role app login").await;
    let hba = std::fs::read_to_string(other.data.join("pg_hba.conf")).unwrap();
    let id = lifeboat::system::postgres::catalogue::system_identifier(&primary.bucket()).await.unwrap();
    assert_eq!(
        id.map(|id| id.to_string()),
        Some(primary.value("select system_identifier from pg_control_system()").await)
    );
    // The inventory's address leads to another database by now.
    let swapped = Fence { system_identifier: id, ..fence(&other.url) };
    let failure = swapped.run().await.err();
    assert_eq!(std::fs::read_to_string(other.data.join("pg_hba.conf")).unwrap(), hba, "another cluster was fenced");
    assert!(failure.is_some_and(|failure| failure.what.contains("another cluster")));
    Fence { system_identifier: id, ..fence(&primary.url) }.run().await.expect("the right one is fenced");
}
