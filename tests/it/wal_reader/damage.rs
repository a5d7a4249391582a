//! WAL that is damaged, foreign or misnamed is named, and what is whole around it is still told.

use std::path::{Path, PathBuf};

use lifeboat::event::Lsn;
use lifeboat::system::postgres::wal::BadSegment;
use lifeboat::system::postgres::wal::read::{Damage, Fact, Flaw, Source};

use super::archive::{Told, Written, walk};
use crate::support::Numbers;

/// The segments of the first timeline, for spoiling.
struct Archive {
    directory: tempfile::TempDir,
    names: Vec<String>,
    whole: Vec<Vec<u8>>,
}

impl Archive {
    fn of(written: &Written) -> Self {
        let [_, listed] = written.lineages();
        let names: Vec<String> = listed.iter().map(|listed| listed.key.clone()).collect();
        let whole = names.iter().map(|name| std::fs::read(written.plain.join(name)).unwrap()).collect();
        let archive = Self { directory: tempfile::tempdir().unwrap(), names, whole };
        archive.restore();
        archive
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn restore(&self) {
        for entry in std::fs::read_dir(self.directory.path()).unwrap() {
            std::fs::remove_file(entry.unwrap().path()).unwrap();
        }
        for (name, bytes) in self.names.iter().zip(&self.whole) {
            std::fs::write(self.path(name), bytes).unwrap();
        }
    }

    /// Puts other content under a name.
    fn spoil(&self, index: usize, spoil: impl FnOnce(&mut Vec<u8>)) -> Told {
        let mut bytes = self.whole[index].clone();
        spoil(&mut bytes);
        std::fs::write(self.path(&self.names[index]), bytes).unwrap();
        let told = self.walk();
        std::fs::write(self.path(&self.names[index]), &self.whole[index]).unwrap();
        told
    }

    fn walk(&self) -> Told {
        self.walk_as(None)
    }

    fn walk_as(&self, system_identifier: Option<u64>) -> Told {
        let source = Source::Directory(self.directory.path().to_owned());
        walk(&source, &source.list().unwrap(), 2, system_identifier)
    }
}

fn texts(told: &Told) -> Vec<String> {
    told.damage.iter().map(ToString::to_string).collect()
}

/// Commits by the segment that they begin in.
fn commits(told: &Told, size: u64) -> Vec<(u64, u32)> {
    let commit = |fact: &Fact| match fact {
        Fact::Commit(commit) => Some((commit.lsn.0 / size, commit.xid)),
        _ => None,
    };
    told.facts().filter_map(commit).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_is_named() {
    let written = Written::new().await;
    let archive = Archive::of(&written);
    let whole = archive.walk();
    assert_eq!(whole.damage, []);
    let size = archive.whole[0].len() as u64;
    // The third before the last: whole segments stand around it.
    let at = archive.names.len() - 3;
    let (name, segment) = (archive.names[at].clone(), whole.segments[at].segment);
    let lost = |told: &Told| {
        // Nothing is told of other segments that was not there, and nothing is lost of them.
        let elsewhere = |told: &Told| -> Vec<(u64, u32)> {
            commits(told, size).into_iter().filter(|(number, _)| *number != segment.number).collect()
        };
        let whole = elsewhere(&whole);
        let found = elsewhere(told);
        // One record may begin in the segment before and end in this one.
        assert!(found == whole || found.len() + 1 == whole.len(), "{found:?} {whole:?}");
    };

    // A byte of a record in the middle; the reader stops where that record begins.
    let told = archive.spoil(at, |bytes| bytes[size as usize / 2 + 100] ^= 0x10);
    let middle = Lsn(segment.start().0 + size / 2 + 100);
    match &told.damage[..] {
        [Damage::Torn { name: found, at, flaw }] => {
            assert_eq!(found, &name);
            assert!(*at <= middle && at.0 + 9000 > middle.0, "{at} {middle}");
            assert!(matches!(flaw, Flaw::Checksum | Flaw::Length { .. }), "{flaw}");
        }
        other => panic!("{other:?}"),
    }
    lost(&told);
    assert!(told.segments[at].records < whole.segments[at].records);

    let torn = |spoil: &dyn Fn(&mut Vec<u8>)| {
        let told = archive.spoil(at, |bytes| spoil(bytes));
        lost(&told);
        match told.damage.into_iter().next() {
            Some(Damage::Torn { name: found, flaw, .. }) if found == name => flaw,
            other => panic!("{other:?}"),
        }
    };
    let page = 40 * 8192;
    let here = Lsn(segment.start().0 + page as u64);
    assert_eq!(torn(&|bytes| bytes[page + 8] ^= 1), Flaw::Stale { page: here, found: Lsn(here.0 ^ 1) });
    assert_eq!(torn(&|bytes| bytes[page..].fill(0)), Flaw::Nothing);
    assert!(matches!(torn(&|bytes| bytes[page] ^= 1), Flaw::Magic { .. }));
    assert_eq!(torn(&|bytes| bytes[page + 2] ^= 0x40), Flaw::Page { page: here });
    // An older page of the same cluster, as a disk that lost a write leaves it.
    assert!(matches!(torn(&|bytes| bytes.copy_within(page - 8192..page, page)), Flaw::Stale { .. }));

    let one = |told: &Told| {
        assert_eq!(told.damage.len(), 1, "{:?}", told.damage);
        lost(told);
        assert!(texts(told)[0].contains(&name), "{:?}", told.damage);
        told.damage[0].clone()
    };
    let spoiled = |spoil: &dyn Fn(&mut Vec<u8>)| one(&archive.spoil(at, |bytes| spoil(bytes)));
    assert_eq!(spoiled(&|bytes| bytes.fill(0)), Damage::Zeroed { name: name.clone() });
    assert!(matches!(spoiled(&|bytes| bytes.truncate(70_000)), Damage::Bad(BadSegment::Length { .. })));
    assert!(matches!(spoiled(&|bytes| bytes.truncate(7)), Damage::Bad(BadSegment::NoHeader { .. })));
    assert!(matches!(spoiled(&Vec::clear), Damage::Bad(BadSegment::NoHeader { .. })));
    assert!(matches!(spoiled(&|bytes| bytes[0] = 0x01), Damage::Version { magic: 0xD101, .. }));
    assert!(matches!(spoiled(&|bytes| bytes[24] ^= 1), Damage::Bad(BadSegment::Foreign { .. })));
    let text = &b"<html>503 Service Unavailable</html>".repeat(30_000)[..size as usize];
    assert!(matches!(spoiled(&|bytes| bytes.copy_from_slice(text)), Damage::Bad(BadSegment::NoHeader { .. })));
    // Another segment's content under this name.
    let other = archive.whole[at + 1].clone();
    assert!(matches!(spoiled(&|bytes| bytes.clone_from(&other)), Damage::Bad(BadSegment::Address { .. })));

    std::fs::remove_file(archive.path(&name)).unwrap();
    let told = archive.walk();
    assert_eq!(one(&told), Damage::Missing { first: name.clone(), last: name.clone(), segments: 1 });
    compressed(&archive, at, &name, &one);
    archive.restore();

    let foreign = archive.walk_as(Some(77));
    assert_eq!((foreign.segments.len(), foreign.damage.len()), (0, archive.names.len()));
    assert!(
        foreign.damage.iter().all(|damage| matches!(damage, Damage::Bad(BadSegment::Foreign { expected: 77, .. })))
    );
    crossing(&archive);
}

/// A segment that is compressed, whole and spoiled; the plain one is gone.
fn compressed(archive: &Archive, at: usize, name: &str, one: &dyn Fn(&Told) -> Damage) {
    let path = archive.path(&format!("{name}.zst"));
    let stored = zstd(&archive.whole[at]);
    std::fs::write(&path, &stored).unwrap();
    assert_eq!(archive.walk().damage, []);
    let mut flipped = stored.clone();
    flipped[stored.len() / 2] ^= 0x10;
    for bad in [&flipped[..], &stored[..stored.len() / 2], b"no zstd at all", b""] {
        std::fs::write(&path, bad).unwrap();
        let damage = one(&archive.walk());
        let at_fault = matches!(damage, Damage::Compressed { .. } | Damage::Bad(BadSegment::NoHeader { .. }));
        assert!(at_fault, "{damage}");
    }
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("bytes");
    std::fs::write(&path, bytes).unwrap();
    let output = std::process::Command::new("zstd").args(["-qc", "--check"]).arg(path).output().expect("zstd starts");
    assert!(output.status.success());
    output.stdout
}

/// A record across three segments, spoiled where it ends.
fn crossing(archive: &Archive) {
    let whole = archive.walk();
    let first = whole.segments.iter().position(|joined| joined.records == 0).expect("a big record") - 1;
    let next = first
        + whole.segments[first..]
            .iter()
            .take_while(|joined| joined.records == 0 || joined.segment == whole.segments[first].segment)
            .count();
    for index in [first + 1, next] {
        let told = archive.spoil(index, |bytes| bytes[5000] ^= 1);
        match &told.damage[..] {
            // Its beginning is what cannot be read; whose bytes are wrong nobody can say.
            [Damage::Torn { name, flaw: Flaw::Checksum, .. }] => assert_eq!(name, &archive.names[first]),
            other => panic!("{other:?}"),
        }
    }
    // To begin in the middle of it is no damage.
    let source = Source::Directory(archive.directory.path().to_owned());
    let from_inside = walk(&source, &source.list().unwrap()[first + 1..], 2, None);
    assert_eq!(from_inside.damage, []);
    assert_eq!(from_inside.segments[next - first].records, whole.segments[next + 1].records);
    let told = archive.spoil(first + 1, |bytes| bytes.fill(0));
    assert_eq!(told.damage[0], Damage::Zeroed { name: archive.names[first + 1].clone() });
    assert!(told.segments[first].unfinished.is_some());
    assert!(told.segments.iter().any(|joined| joined.segment == whole.segments[next].segment && joined.records > 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn no_mutation_passes_or_panics() {
    let written = Written::new().await;
    let archive = Archive::of(&written);
    let whole = archive.walk();
    let kept = archive.names.len() - 4..archive.names.len();
    for name in &archive.names[..kept.start] {
        std::fs::remove_file(archive.path(name)).unwrap();
    }
    let mut numbers = Numbers(41);
    for round in 0..60 {
        let index = kept.start + numbers.below(kept.len() - 1);
        let told = archive.spoil(index, |bytes| mutate(bytes, &mut numbers));
        for joined in &told.segments {
            let before = whole.segments.iter().find(|whole| whole.segment == joined.segment).unwrap();
            assert!(joined.records <= before.records, "round {round}");
            let whole_facts = joined.facts.iter().zip(&before.facts).all(|(a, b)| a.lsn() == b.lsn());
            assert!(whole_facts, "round {round}: {} tells what is not there", joined.segment);
            // What is not told whole is named.
            let named = told.damage.iter().any(|damage| damage.to_string().contains(&joined.segment.to_string()));
            assert!(named || joined.records == before.records || joined.unfinished.is_some(), "round {round}");
        }
    }
}

fn mutate(bytes: &mut Vec<u8>, numbers: &mut Numbers) {
    const PAGE: usize = 8192;
    let pages = bytes.len() / PAGE;
    match numbers.below(5) {
        0 => (0..=numbers.below(8)).for_each(|_| {
            let at = numbers.below(bytes.len());
            bytes[at] ^= 1 << numbers.below(8);
        }),
        1 => {
            let at = numbers.below(bytes.len());
            bytes.truncate(at);
        }
        2 => {
            let (from, to) = (numbers.below(pages) * PAGE, numbers.below(pages) * PAGE);
            bytes.copy_within(from..from + PAGE, to);
        }
        3 => {
            let at = numbers.below(pages) * PAGE + numbers.below(48);
            bytes[at] = numbers.below(256) as u8;
        }
        _ => {
            let at = numbers.below(bytes.len() - 512);
            bytes[at..at + 512].fill(0);
        }
    }
}

#[test]
fn a_directory_that_is_not_there_is_an_error() {
    let error = Source::Directory(Path::new("/nowhere/at/all").to_owned()).list().unwrap_err();
    assert!(error.to_string().contains("/nowhere/at/all"), "{error}");
}
