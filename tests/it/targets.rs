//! Random recovery points against a ledger: what is restored is what had been committed there, every time.
//!
//! Sessions write side by side and keep an account of what each transaction did; `pg_waldump` says in which order they
//! ended. From that the tables at any target are known without this program. It settles each target to a place in the WAL,
//! as the product does, and one server goes through the places in ascending order; some are restored anew.
//!
//! `LIFEBOAT_SEED` chooses other targets, `LIFEBOAT_LONG_TESTS` more of them.

mod oracle;
mod workload;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::AtomicI64;

use chrono::Duration;
use lifeboat::clock;
use lifeboat::event::{RecoveryPoint, RecoveryTarget};
use lifeboat::system::postgres::restore::undo;

use crate::postgres::restore::{Clone, at};
use crate::silent::scene::{SYSTEM, Scene};
use crate::support::Numbers;
use oracle::{Expected, Oracle};
use workload::{Ledger, SCHEMA, STATE, Session};

const SEED: u64 = 20_261_121;

/// Targets that are settled, and compared with what is known of their places. Restoring takes longer: that is for some.
const SETTLED: usize = 400;

const SETTINGS: &[&str] = &[
    "synchronous_commit = off",
    "max_prepared_transactions = 16",
    "wal_buffers = 64kB",
    "autovacuum = off",
    "shared_buffers = 4MB",
];

/// A scene whose WAL holds all that the sessions did, before, while and after the base backup was taken.
async fn written(numbers: &mut Numbers) -> (Scene, Ledger) {
    let scene = Scene::new(SETTINGS).await;
    scene.primary.sql(SCHEMA).await;
    let next = AtomicI64::new(1);
    let mut ledger = Ledger::default();
    let backup = async { drop(scene.primary.backup().run().await.expect("the backup succeeds")) };
    futures::future::join(sessions(&scene, numbers, &next, 60, &mut ledger), backup).await;
    sessions(&scene, numbers, &next, 120, &mut ledger).await;
    // Something behind the last of them.
    scene.write("end").await;
    scene.primary.archive().await;
    (scene, ledger)
}

/// Eight at once, while somebody ends WAL segments now and then.
async fn sessions(scene: &Scene, numbers: &mut Numbers, next: &AtomicI64, transactions: usize, ledger: &mut Ledger) {
    let round = transactions;
    let sessions = (0..8).map(|name| {
        let (name, numbers) = (format!("{round}-{name}"), Numbers(numbers.below(usize::MAX >> 33) as u64));
        Session { primary: &scene.primary, name, numbers, next, transactions }.run()
    });
    let sessions = futures::future::join_all(sessions);
    let client = scene.primary.client().await;
    let switches = async {
        loop {
            // Who is about to commit has to wait; then they race.
            client
                .batch_execute("select pg_logical_emit_message(true, 'test', 'switch'), pg_switch_wal()")
                .await
                .unwrap();
            clock::sleep(std::time::Duration::from_millis(50)).await;
        }
    };
    tokio::select! {
        ledgers = sessions => ledgers.into_iter().for_each(|more| ledger.extend(more)),
        () = switches => {}
    }
}

/// A target somewhere behind the base backup: around commits more often than not.
fn target(numbers: &mut Numbers, oracle: &Oracle) -> RecoveryTarget {
    let ended = &oracle.ended[oracle.first..];
    let one = &ended[numbers.below(ended.len())];
    match numbers.below(20) {
        0..=8 => {
            let strange = &oracle.out_of_order;
            let one =
                if strange.is_empty() || numbers.below(3) > 0 { one } else { &strange[numbers.below(strange.len())] };
            let millisecond =
                one.time - Duration::nanoseconds(i64::from(one.time.timestamp_subsec_nanos() % 1_000_000));
            let time = match numbers.below(6) {
                0 => one.time + Duration::microseconds(1),
                1 => one.time - Duration::microseconds(1),
                2 => millisecond,
                3 => millisecond + Duration::milliseconds(1),
                _ => one.time,
            };
            // Behind the last of all the WAL proves nothing.
            RecoveryTarget::Time { time: time.min(oracle.last()) }
        }
        9..=12 => {
            let next = &ended[numbers.below(ended.len())];
            let (low, high) = (one.lsn.min(next.lsn), one.lsn.max(next.lsn));
            let lsn = match numbers.below(4) {
                0 => low.0 + 1,
                1 => low.0 + numbers.below((high.0 - low.0) as usize + 1) as u64,
                _ => low.0,
            };
            RecoveryTarget::Lsn { lsn: lifeboat::event::Lsn(lsn) }
        }
        13..=16 => RecoveryTarget::Xid { xid: u64::from(oracle.some_xid(numbers, one.xid)) },
        _ => match oracle.names.as_slice() {
            [] => RecoveryTarget::Lsn { lsn: one.lsn },
            names => RecoveryTarget::RestorePoint { name: names[numbers.below(names.len())].1.clone() },
        },
    }
}

/// A target with the place that it was settled to, and what must stand there.
struct Case {
    target: RecoveryTarget,
    inclusive: bool,
    point: RecoveryPoint,
    state: String,
}

#[tokio::test(flavor = "multi_thread")]
async fn the_ledger_is_right_at_every_point() {
    let (targets, anew) = if std::env::var_os("LIFEBOAT_LONG_TESTS").is_some() { (220, 20) } else { (20, 2) };
    let seed =
        std::env::var("LIFEBOAT_SEED").ok().map_or(SEED, |seed| seed.parse().expect("LIFEBOAT_SEED is a number"));
    let mut numbers = Numbers(seed);
    let (scene, ledger) = written(&mut numbers).await;
    let looked = scene.look().await;
    let oracle = Oracle::new(&scene, &looked.window, ledger).await;
    eprintln!(
        "seed {seed}: {} transactions ended, {} out of order, {} of them in the millisecond of another, {} restore points",
        oracle.ended.len(),
        oracle.out_of_order.len(),
        oracle.in_one_millisecond(),
        oracle.names.len()
    );

    let (mut cases, mut refused) = (Vec::new(), BTreeMap::<&str, usize>::new());
    while cases.len() < SETTLED {
        let (target, inclusive) = (target(&mut numbers, &oracle), numbers.below(2) == 0);
        let said = || format!("seed {seed}: {target}, inclusive: {inclusive}");
        match (oracle.expect(&target, inclusive), looked.settle(&target, inclusive).await) {
            (Expected::Refusal(why), Err(_)) => *refused.entry(why).or_default() += 1,
            (Expected::Refusal(why), Ok(point)) => panic!("{}: {why}, and settled on {point:?}", said()),
            (Expected::Kept(kept), Ok(point)) => {
                let exact = point.resolved.get(SYSTEM).unwrap_or_else(|| panic!("{}: nothing exact", said()));
                oracle.assert_counts(kept, exact, &said());
                cases.push(Case { state: oracle.state(kept), target, inclusive, point });
            }
            (Expected::Kept(_), Err(failure)) => panic!("{}: {failure:?}", said()),
        }
    }
    eprintln!("refused, as they should be: {refused:?}");
    let late = RecoveryTarget::Time { time: oracle.last() + Duration::hours(1) };
    let failure = looked.settle(&late, false).await.unwrap_err();
    assert!(failure.what.contains("behind the end of the WAL"), "{failure:?}");

    cases.truncate(targets);
    cases.sort_by_key(|case| {
        let exact = &case.point.resolved[SYSTEM];
        (exact.lsn, exact.inclusive)
    });
    let fresh: BTreeSet<usize> = (0..anew).map(|_| numbers.below(cases.len())).collect();
    let _ends_with_us = ["walk", "fresh"].map(|name| Clone { directory: scene.primary.path(name) });
    for (number, case) in cases.iter().enumerate() {
        assert_restored(&scene, seed, case, "walk").await;
        if fresh.contains(&number) {
            assert_restored(&scene, seed, case, "fresh").await;
            undo(&scene.primary.path("fresh"), "drill-1", SYSTEM).await.expect("the undo succeeds");
        }
    }
    undo(&scene.primary.path("walk"), "drill-1", SYSTEM).await.expect("the undo succeeds");
}

async fn assert_restored(scene: &Scene, seed: u64, case: &Case, to: &str) {
    let Case { target, inclusive, point, state } = case;
    let restore = scene.planned(point, to).await;
    let plan = restore.plan.clone();
    let log = restore.directory.join(".lifeboat/server.log");
    let restored = restore.run().await.unwrap_or_else(|failure| {
        let log = std::fs::read_to_string(log).unwrap_or_default();
        panic!("seed {seed}: {target}, inclusive: {inclusive}, {plan:?}: {failure:?}\n{log}")
    });
    let found = at(&restored, STATE).await;
    assert_eq!(&found, state, "seed {seed}: {target}, inclusive: {inclusive}, {plan:?}");
}
