//! The record cannot be altered in silence.

use lifeboat::journal::Journal;

use crate::support::{Numbers, checkout};

#[test]
fn row_12_a_changed_line_of_the_journal_is_refused() {
    let original = std::fs::read(checkout().join("recordings/restore-passes.jsonl")).unwrap();
    let lines: Vec<&[u8]> = original.split_inclusive(|byte| *byte == b'\n').collect();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("journal.jsonl");
    let accepted = |lines: &[&[u8]]| {
        std::fs::write(&path, lines.concat()).unwrap();
        Journal::read(&path).is_ok()
    };
    assert!(accepted(&lines), "the recording itself is sound");

    let mut wrong = Vec::new();
    for at in 0..lines.len() - 1 {
        let mut without = lines.clone();
        without.remove(at);
        if accepted(&without) {
            wrong.push(format!("line {at} can be taken out"));
        }
        let mut swapped = lines.clone();
        swapped.swap(at, at + 1);
        if accepted(&swapped) {
            wrong.push(format!("line {at} can change places with the next"));
        }
        let mut numbers = Numbers(at as u64);
        for _ in 0..4 {
            let mut line = lines[at].to_vec();
            let byte = numbers.below(line.len() - 1);
            line[byte] ^= 1 << numbers.below(8);
            let mut flipped = lines.clone();
            flipped[at] = &line;
            if accepted(&flipped) {
                wrong.push(format!("a bit of byte {byte} of line {at} can be flipped"));
            }
        }
    }
    assert!(wrong.is_empty(), "altered in silence: {} ways, {:?}", wrong.len(), wrong.first());
}
