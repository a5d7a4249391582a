use super::super::archive::Location;
use super::super::fetch::{Fetch, Fetched};
use super::super::frame::Compression;
use super::super::name::{Segment, tests::segment_bytes};
use super::super::push;
use super::*;

const SIZE: u64 = 1 << 20;
const CLUSTER: u64 = 77;

struct Stage {
    directory: tempfile::TempDir,
    location: Location,
    names: Vec<String>,
    runtime: tokio::runtime::Runtime,
    counters: Arc<Counters>,
}

/// An archive of six segments, and an empty stage.
fn stage() -> Stage {
    let directory = tempfile::tempdir().unwrap();
    for name in ["bucket", "stage", "source"] {
        std::fs::create_dir(directory.path().join(name)).unwrap();
    }
    let location = Location::new(format!("file://{}", directory.path().join("bucket").display()), "");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
    let names = (1..=6)
        .map(|number| {
            let segment = Segment { timeline: 1, number, size: SIZE };
            let path = directory.path().join("source").join(segment.to_string());
            std::fs::write(&path, segment_bytes(segment, CLUSTER)).unwrap();
            runtime.block_on(push(&location.open().unwrap(), &path, Compression::Zstd)).unwrap();
            segment.to_string()
        })
        .collect();
    Stage { directory, location, names, runtime, counters: Arc::default() }
}

impl Stage {
    fn stager(&self, cluster: u64, window: u64) -> Stager {
        Stager::prepare(
            Supply::Bucket(self.location.open().unwrap()),
            self.directory.path().join("stage"),
            self.names.clone(),
            cluster,
            None,
            Arc::new(AtomicU64::new(window)),
            Arc::clone(&self.counters),
        )
        .unwrap()
    }

    fn fetch(&self, name: &str) -> Result<Fetched, WalError> {
        let fetch = Fetch {
            from: crate::system::postgres::wal::Origin::Bucket(self.location.clone()),
            stage: Some(self.directory.path().join("stage")),
            system_identifier: Some(CLUSTER),
            end: None,
        };
        let to = self.directory.path().join("out");
        let fetched = fetch.run(name, &to)?;
        if fetched == Fetched::Restored {
            let source = std::fs::read(self.directory.path().join("source").join(name)).unwrap();
            assert!(std::fs::read(to).unwrap() == source, "{name}");
        }
        Ok(fetched)
    }
}

/// Waits for what another thread or process does; no test needs a minute.
fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let began = clock::boot_now();
    while !holds() {
        assert!(clock::boot_now() - began < Duration::from_secs(60), "{what}");
        clock::block(LOOK);
    }
}

#[test]
fn a_fetch_knows_what_is_coming() {
    let stage = stage();
    let stager = stage.stager(CLUSTER, 2);
    let folder = stage.directory.path().join("stage");
    assert_eq!(on_its_way(&folder, &stage.names[0]), Way::Coming);
    assert_eq!(on_its_way(&folder, &stage.names[1]), Way::Coming);
    // The stager comes to it only after the server has taken others: waiting for it could be for ever.
    assert_eq!(on_its_way(&folder, &stage.names[2]), Way::NotComing);
    assert_eq!(stage.fetch(&stage.names[4]).unwrap(), Fetched::Restored);
    drop(stager);
}

#[test]
fn a_dead_stager_is_not_waited_for() {
    let stage = stage();
    drop(stage.stager(CLUSTER, 2));
    assert_eq!(stage.fetch(&stage.names[0]).unwrap(), Fetched::Restored);
}

#[test]
fn another_cluster_s_wal_is_not_staged() {
    let stage = stage();
    let stager = stage.stager(CLUSTER + 1, 2);
    let error = stager.run(stage.runtime.handle(), &CancellationToken::new()).unwrap_err();
    assert!(matches!(error, WalError::Bad(super::super::BadSegment::Foreign { .. })), "{error}");
}

#[test]
fn the_server_takes_what_is_staged_ahead_of_it() {
    let stage = stage();
    let stager = stage.stager(CLUSTER, 2);
    let cancel = CancellationToken::new();
    std::thread::scope(|scope| {
        // Waits for the stager, which has not begun.
        let first = scope.spawn(|| stage.fetch(&stage.names[0]).unwrap());
        let staging = scope.spawn(|| stager.run(stage.runtime.handle(), &cancel));
        assert_eq!(first.join().unwrap(), Fetched::Restored);
        for name in &stage.names[1..] {
            assert_eq!(stage.fetch(name).unwrap(), Fetched::Restored);
        }
        until("the stager ends", || staging.is_finished());
        staging.join().unwrap().unwrap();
    });
    // Again, as PostgreSQL does after reading the checkpoint: from the bucket now.
    assert_eq!(stage.fetch(&stage.names[2]).unwrap(), Fetched::Restored);
}

#[test]
fn a_server_that_overtakes_the_stager_does_not_leave_it_waiting() {
    let stage = stage();
    let stager = stage.stager(CLUSTER, 2);
    let cancel = CancellationToken::new();
    let folder = stage.directory.path().join("stage");
    std::thread::scope(|scope| {
        let staging = scope.spawn(|| stager.run(stage.runtime.handle(), &cancel));
        until("the window is full", || stage.counters.delivered.load(Ordering::Relaxed) == 2);
        // Beyond the window: it goes to the bucket itself, and never comes back for the two that are staged.
        assert_eq!(stage.fetch(&stage.names[3]).unwrap(), Fetched::Restored);
        until("the rest is staged", || staging.is_finished());
        staging.join().unwrap().unwrap();
    });
    assert!(!folder.join(&stage.names[2]).exists(), "what the server has behind it is not staged");
    assert!(folder.join(&stage.names[4]).exists() && folder.join(&stage.names[5]).exists());
    assert_eq!(stage.counters.delivered.load(Ordering::Relaxed), 4);
}
