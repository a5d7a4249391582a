//! What the fuzzers found worth keeping, read again: `tests/fuzz/corpus/NAME/` by the target of that name.

#[path = "../fuzz/targets.rs"]
mod targets;

use crate::support::{Numbers, checkout};

/// Each file as it is, and broken a little in ways that are the same each time.
fn replay(name: &str, target: fn(&[u8])) {
    let corpus = checkout().join("tests/fuzz/corpus").join(name);
    let mut files: Vec<_> = std::fs::read_dir(&corpus).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(!files.is_empty(), "{} is empty", corpus.display());
    for (number, file) in files.iter().enumerate() {
        let data = std::fs::read(file).unwrap();
        target(&data);
        let mut numbers = Numbers(number as u64);
        for _ in 0..8 {
            let mut broken = data.clone();
            broken.truncate(numbers.below(data.len() + 1));
            for _ in 0..1 + broken.len() / 200 {
                if !broken.is_empty() {
                    let at = numbers.below(broken.len());
                    broken[at] = numbers.below(256) as u8;
                }
            }
            target(&broken);
        }
    }
}

macro_rules! corpora {
    ($($name:ident),*) => {
        $(
            #[test]
            fn $name() {
                replay(stringify!($name), targets::$name);
            }
        )*
    };
}

corpora!(runbook, inventory, journal, recording, wal, archive, output, signature);
