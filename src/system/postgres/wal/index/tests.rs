use proptest::prelude::*;

use super::*;

fn commits(numbers: &[(u64, u32, i64, u64)]) -> Vec<CommitAt> {
    let commit = |(lsn, xid, micros, deletes): &(u64, u32, i64, u64)| CommitAt {
        lsn: Lsn(*lsn),
        xid: *xid,
        time: DateTime::from_timestamp_micros(*micros).unwrap(),
        counts: Counts { inserts: 1, updates: deletes / 2, deletes: *deletes },
    };
    numbers.iter().map(commit).collect()
}

fn index() -> Index {
    let summary = serde_json::json!({
        "segment": "000000010000000000000004", "system_identifier": "7", "version": 15, "records": 3, "first": "0/4000028",
        "end": "0/5000000", "since": "0/1000028", "counts": {}, "aborts": 0, "commits": null, "facts": [], "suspects": [],
        "more_suspects": 0
    });
    Index {
        summary: serde_json::from_value(summary).unwrap(),
        state: compress(br#"{"since":"0/1000028","last":"0/4FFFF00","next":"0/5000000","open":{},"uncounted":0}"#),
        commits: compress(&columns::write(&commits(&[(0x400_0100, 900, 1_763_000_000_000_000, 2)]))),
    }
}

#[test]
fn an_index_reads_what_it_writes_and_refuses_the_rest() {
    let index = index();
    let bytes = index.to_bytes();
    let read = Index::parse(&bytes).unwrap();
    assert_eq!(read, index);
    assert_eq!(read.state().unwrap().next, Lsn(0x500_0000));
    assert_eq!(read.commits().unwrap()[0].xid, 900);
    for at in 0..bytes.len() {
        assert!(Index::parse(&bytes[..at]).is_err(), "cut at {at}");
        let mut flipped = bytes.clone();
        flipped[at] ^= 0x10;
        assert!(Index::parse(&flipped).is_err(), "flipped at {at}");
    }
}

#[test]
fn a_key_says_which_content_it_is_of() {
    let segment = Segment::parse("0000000A0000000000000004", 16 << 20).unwrap();
    let listed = Listed { segment, key: String::new(), bytes: 3_382_991 };
    assert_eq!(Index::key(&listed), "wal-index/1/0000000A/0000000A0000000000000004-3382991");
}

proptest! {
    #[test]
    fn commits_read_what_they_write(
        numbers in prop::collection::vec((any::<u64>(), any::<u32>(), 0_i64..4_000_000_000_000_000, any::<u64>()), 0..50)
    ) {
        let commits = commits(&numbers);
        prop_assert_eq!(columns::read(&columns::write(&commits)), Some(commits));
    }

    #[test]
    fn strange_columns_do_not_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = columns::read(&bytes);
    }
}
