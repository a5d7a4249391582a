use std::collections::BTreeMap;

use chrono::DateTime;

use super::*;
use crate::event::{Event, FORMAT, Mode, Opening, Verdict};

fn opening() -> Opening {
    Opening {
        format: FORMAT,
        drill: "019a0000-0000-7000-8000-000000000001".into(),
        mode: Mode::Sandbox,
        service: "orders".into(),
        environment: "sandbox".into(),
        operator: "ada".into(),
        host: "here".into(),
        boot_id: "b".into(),
        lifeboat_version: "0.1.0".into(),
        runbook_source: "id = \"x\"\n".into(),
        runbook_digest: Digest::of(b"id = \"x\"\n"),
        runbook_path: None,
        inventory_path: None,
        inventory_digest: None,
        systems: BTreeMap::new(),
        variables: BTreeMap::new(),
        rto_seconds: Some(3600),
        rpo_seconds: None,
        expected_seconds: BTreeMap::new(),
    }
}

fn envelope(seq: u64, event: Event) -> Envelope {
    let at = DateTime::from_timestamp_millis(1_790_000_000_000 + seq as i64 * 10).unwrap();
    Envelope { seq, at, boot_ms: 1_000 + seq * 10, event }
}

fn note(seq: u64) -> Envelope {
    envelope(seq, Event::Note { text: format!("note {seq}, \u{fffd} and \"quotes\""), by: "ada".into() })
}

fn small() -> Vec<Envelope> {
    vec![
        envelope(0, Event::DrillOpened { opening: Box::new(opening()) }),
        note(1),
        note(2),
        envelope(3, Event::DrillFinished { verdict: Verdict::Passed }),
    ]
}

/// A journal of four entries, closed.
fn written() -> (tempfile::TempDir, DrillDir) {
    let state = tempfile::tempdir().unwrap();
    let dir = DrillDir::new(state.path(), "019a");
    let mut journal = Journal::create(&dir).unwrap();
    let entries = small();
    journal.append(&entries[0]).unwrap();
    journal.append_all(&entries[1..]).unwrap();
    (state, dir)
}

#[test]
fn what_is_written_is_read_and_the_chain_is_that_of_the_stored_bytes() {
    let (state, dir) = written();
    let read = Journal::read(&dir.journal()).unwrap();
    assert_eq!(read.envelopes, small());
    assert_eq!(read.torn, None);
    let text = std::fs::read_to_string(dir.journal()).unwrap();
    assert_eq!(read.bytes, text.len() as u64);
    let mut prev = "0".repeat(64);
    for line in text.lines() {
        assert!(line.starts_with(&format!("{{\"prev\":\"{prev}\",\"seq\":")), "{line}");
        prev = Digest::of(line.as_bytes()).to_string();
    }
    assert_eq!(read.head.to_string(), prev);
    assert_eq!(layout::list(state.path()).unwrap(), std::slice::from_ref(&dir));
    let mut names: Vec<_> =
        std::fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    assert_eq!(names, ["journal.jsonl", "output", "work"], "nothing else is left behind");
    use std::os::unix::fs::PermissionsExt;
    assert_eq!(std::fs::metadata(dir.journal()).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(std::fs::metadata(dir.path()).unwrap().permissions().mode() & 0o777, 0o700);
}

#[test]
fn a_journal_cut_at_any_byte_goes_on_from_its_last_whole_line() {
    let (_state, dir) = written();
    let path = dir.journal();
    let whole = std::fs::read(&path).unwrap();
    let ends: Vec<usize> = (0..whole.len()).filter(|&i| whole[i] == b'\n').map(|i| i + 1).collect();
    for cut in 0..=whole.len() {
        std::fs::write(&path, &whole[..cut]).unwrap();
        let kept = ends.iter().filter(|&&end| end <= cut).count();
        if kept == 0 {
            assert!(matches!(Journal::open_for_append(&path), Err(JournalError::Empty { .. })), "cut at {cut}");
            assert_eq!(std::fs::read(&path).unwrap(), &whole[..cut], "nothing is thrown away");
            continue;
        }
        let end = ends[kept - 1];
        let (mut journal, read) = Journal::open_for_append(&path).unwrap();
        assert_eq!(read.envelopes, small()[..kept], "cut at {cut}");
        match &read.torn {
            Some(torn) => {
                let aside = torn.kept.clone().unwrap();
                assert_eq!(std::fs::read(&aside).unwrap(), &whole[end..cut]);
                std::fs::remove_file(aside).unwrap();
            }
            None => assert_eq!(cut, end),
        }
        journal.append_all(&small()[kept..]).unwrap();
        drop(journal);
        assert_eq!(std::fs::read(&path).unwrap(), whole, "cut at {cut}");
    }
}

#[test]
fn a_second_torn_tail_does_not_overwrite_the_first() {
    let (_state, dir) = written();
    for n in 1..=2 {
        let mut file = OpenOptions::new().append(true).open(dir.journal()).unwrap();
        write!(file, "torn {n}").unwrap();
        let (_journal, read) = Journal::open_for_append(&dir.journal()).unwrap();
        let kept = read.torn.unwrap().kept.unwrap();
        assert_eq!(kept, dir.path().join(format!("journal.torn-{n}")));
        assert_eq!(std::fs::read_to_string(kept).unwrap(), format!("torn {n}"));
    }
}

#[test]
fn a_last_line_with_a_page_of_zeros_is_torn_but_one_in_the_middle_is_damage() {
    let (_state, dir) = written();
    let whole = std::fs::read(dir.journal()).unwrap();
    let length = whole.len();
    let mut last = whole.clone();
    last[length - 40..length - 10].fill(0);
    std::fs::write(dir.journal(), &last).unwrap();
    assert!(Journal::read(&dir.journal()).unwrap().torn.is_some());
    let mut middle = whole;
    let second = middle.iter().position(|&b| b == b'\n').unwrap() + 1;
    middle[second + 100..second + 110].fill(0);
    std::fs::write(dir.journal(), &middle).unwrap();
    assert!(matches!(Journal::read(&dir.journal()), Err(JournalError::Damaged { .. })));
}

/// Refused, or (in the last line, which no later line vouches for) betrayed by the head.
fn is_caught(path: &Path, bytes: &[u8], good: &Read) -> bool {
    std::fs::write(path, bytes).unwrap();
    match Journal::read(path) {
        Err(_) => true,
        Ok(read) => read.head != good.head || read.torn.is_some(),
    }
}

#[test]
fn every_flipped_bit_is_caught() {
    let (_state, dir) = written();
    let good = Journal::read(&dir.journal()).unwrap();
    let whole = std::fs::read(dir.journal()).unwrap();
    let last_line = whole[..whole.len() - 1].iter().rposition(|&b| b == b'\n').unwrap() + 1;
    for index in 0..whole.len() {
        for bit in 0..8 {
            let mut bytes = whole.clone();
            bytes[index] ^= 1 << bit;
            assert!(is_caught(&dir.journal(), &bytes, &good), "bit {bit} of byte {index}");
            if index < last_line {
                assert!(Journal::read(&dir.journal()).is_err(), "bit {bit} of byte {index} is refused by the chain");
            }
        }
    }
}

#[test]
fn lines_deleted_swapped_or_doubled_are_caught() {
    let (_state, dir) = written();
    let good = Journal::read(&dir.journal()).unwrap();
    let whole = std::fs::read(dir.journal()).unwrap();
    let lines: Vec<&[u8]> = whole.split_inclusive(|&b| b == b'\n').collect();
    for i in 0..lines.len() {
        let mut deleted = lines.clone();
        deleted.remove(i);
        assert!(is_caught(&dir.journal(), &deleted.concat(), &good), "line {i} deleted");
        let mut doubled = lines.clone();
        doubled.insert(i, lines[i]);
        assert!(is_caught(&dir.journal(), &doubled.concat(), &good), "line {i} doubled");
        assert!(Journal::read(&dir.journal()).is_err());
        for j in 0..i {
            let mut swapped = lines.clone();
            swapped.swap(i, j);
            assert!(is_caught(&dir.journal(), &swapped.concat(), &good), "lines {i} and {j} swapped");
            assert!(Journal::read(&dir.journal()).is_err());
        }
    }
}

#[test]
fn damage_is_told_with_its_line() {
    let (_state, dir) = written();
    let text = std::fs::read_to_string(dir.journal()).unwrap();
    std::fs::write(dir.journal(), text.replacen("note 1", "note 7", 1)).unwrap();
    let error = Journal::open_for_append(&dir.journal()).err().unwrap();
    assert!(
        error.to_string().ends_with("line 3: it does not follow from the line before; one of the two was changed"),
        "{error}"
    );
}

#[test]
fn a_second_engine_is_refused_and_told_who_holds_it() {
    let (_state, dir) = written();
    let (journal, _) = Journal::open_for_append(&dir.journal()).unwrap();
    let error = Journal::open_for_append(&dir.journal()).err().unwrap();
    assert!(error.to_string().contains(&format!("is held by process {}", std::process::id())), "{error}");
    assert!(Journal::read(&dir.journal()).is_ok(), "a reader is not kept out");
    drop(journal);
    Journal::open_for_append(&dir.journal()).unwrap();
}

#[test]
fn a_journal_is_never_created_twice() {
    let (_state, dir) = written();
    assert!(matches!(Journal::create(&dir), Err(JournalError::Io { operation: "creating", .. })));
    assert_eq!(Journal::read(&dir.journal()).unwrap().envelopes.len(), 4);
}

#[test]
fn another_format_gets_a_verdict_even_where_nothing_else_is_known() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("recording.jsonl");
    let zeros = Digest::ZERO;
    for (line, format) in [
        (
            format!(
                r#"{{"prev":"{zeros}","seq":0,"event":{{"type":"drill-opened","opening":{{"format":7,"new":1}}}}}}"#
            ),
            7,
        ),
        (format!(r#"{{"prev":"{zeros}","order":0,"event":{{"opening":{{"format":0}}}}}}"#), 0),
    ] {
        std::fs::write(&path, line + "\n").unwrap();
        let error = Journal::read(&path).unwrap_err();
        assert!(matches!(error, JournalError::Format { found, .. } if found == format), "{error}");
        assert!(error.to_string().ends_with(&format!("was written in format {format}; this program reads format 1")));
    }
    for other in ["hello\n", "{\"a\":1}\n", "[]\n", "\n"] {
        std::fs::write(&path, other).unwrap();
        let error = Journal::read(&path).unwrap_err();
        assert!(matches!(error, JournalError::NotAJournal { .. }), "{other:?}: {error}");
    }
    std::fs::write(&path, "").unwrap();
    assert!(matches!(Journal::read(&path), Err(JournalError::Empty { .. })));
}

#[test]
fn an_entry_out_of_turn_is_refused() {
    let (_state, dir) = written();
    let (mut journal, _) = Journal::open_for_append(&dir.journal()).unwrap();
    assert!(matches!(journal.append(&note(9)), Err(JournalError::Sequence { expected: 4, found: 9 })));
    journal.append(&note(4)).unwrap();
}

/// Writes `room` bytes, or as many as asked once the reserve is gone; syncs until told not to.
struct Faulty {
    file: File,
    path: PathBuf,
    room: usize,
    fails_sync: bool,
}

impl Tape for Faulty {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let room = match reserve_of(&self.path).exists() {
            true => self.room,
            false => self.room + RESERVE,
        };
        let n = bytes.len().min(room);
        self.file.write_all(&bytes[..n])?;
        match n < bytes.len() {
            true => Err(io::ErrorKind::StorageFull.into()),
            false => Ok(()),
        }
    }

    fn sync(&mut self) -> io::Result<()> {
        match self.fails_sync {
            true => Err(io::Error::other("the disk is gone")),
            false => Ok(()),
        }
    }

    fn cut(&mut self, length: u64) -> io::Result<()> {
        self.file.set_len(length)
    }
}

fn faulty(dir: &DrillDir, room: usize, fails_sync: bool) -> Journal {
    let (mut journal, _) = Journal::open_for_append(&dir.journal()).unwrap();
    let file = OpenOptions::new().append(true).open(dir.journal()).unwrap();
    journal.tape = Box::new(Faulty { file, path: dir.journal(), room, fails_sync });
    journal
}

#[test]
fn row_22_a_full_disk_can_still_record_the_end() {
    let (_state, dir) = written();
    let mut journal = faulty(&dir, 30, false);
    assert!(!journal.is_short_of_space());
    journal.append(&note(4)).unwrap();
    assert!(journal.is_short_of_space());
    journal.append(&note(5)).unwrap();
    drop(journal);
    let read = Journal::read(&dir.journal()).unwrap();
    assert_eq!((read.envelopes.len(), read.torn), (6, None));
}

#[test]
fn row_22_a_failed_sync_is_fatal_to_the_journal() {
    let (_state, dir) = written();
    let mut journal = faulty(&dir, 1 << 20, true);
    let head = journal.head();
    assert!(matches!(journal.append(&note(4)), Err(JournalError::Io { operation: "writing", .. })));
    assert!(matches!(journal.append(&note(4)), Err(JournalError::Broken { .. })));
    assert_eq!((journal.head(), journal.next_seq()), (head, 4), "an entry that is not durable is not there");
}
