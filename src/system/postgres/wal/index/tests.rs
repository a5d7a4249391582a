use chrono::DateTime;
use proptest::prelude::*;

use super::columns::{read, write};
use super::*;
use crate::event::Lsn;
use crate::system::postgres::wal::Segment;
use crate::system::postgres::wal::read::Counts;

fn commits(numbers: &[(u64, u32, i64, u64)]) -> Vec<CommitAt> {
    let commit = |(lsn, xid, micros, deletes): &(u64, u32, i64, u64)| CommitAt {
        lsn: Lsn(*lsn),
        end: Lsn(lsn.wrapping_add(u64::from(*xid))),
        xid: *xid,
        time: DateTime::from_timestamp_micros(*micros).unwrap(),
        counts: Counts { inserts: 1, updates: deletes / 2, deletes: *deletes },
    };
    numbers.iter().map(commit).collect()
}

fn index() -> Index {
    let digest = Digest::of(b"a state");
    let summary = serde_json::json!({
        "stored": { "segment": "000000010000000000000004", "bytes": 3_382_991, "at": 1_763_719_351_507_u64 },
        "rest": [{ "segment": "000000010000000000000005", "bytes": 7, "at": 1_763_719_351_507_u64 }],
        "system_identifier": "7", "version": 15, "before": null, "after": digest, "records": 3, "first": "0/4000028",
        "end": "0/5000000", "counts": {}, "uncounted": 0, "commits": null, "aborts": 0, "ends": null, "written": null,
        "settles": null, "restore_points": 0, "facts": [], "suspects": [], "more_suspects": 0
    });
    Index {
        summary: serde_json::from_value(summary).unwrap(),
        pace: compress(&write(&[Pace { second: 1_763_000_000, commits: 1, bytes: 0 }])),
        state: compress(br#"{"last":"0/4FFFF00","next":"0/5000000","open":{}}"#),
        commits: compress(&write(&commits(&[(0x400_0100, 900, 1_763_000_000_000_000, 2)]))),
    }
}

#[test]
fn an_index_reads_what_it_writes_and_refuses_the_rest() {
    let index = index();
    let bytes = index.to_bytes();
    let read = Index::parse(&bytes).unwrap();
    assert_eq!(read, index);
    assert_eq!(read.state().unwrap().next, Lsn(0x500_0000));
    assert_eq!((read.commits().unwrap()[0].xid, read.pace().unwrap()[0].second), (900, 1_763_000_000));
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
    let modified = DateTime::from_timestamp_millis(1_763_719_351_507).unwrap();
    let listed = Listed { segment, key: String::new(), bytes: 3_382_991, modified };
    let key = "wal-index/2/0000000A/0000000A0000000000000004-3382991-1763719351507-";
    assert_eq!(Index::key(&listed, None), format!("{key}0"));
    assert_eq!(Index::key(&listed, Some(Digest::ZERO)), format!("{key}000000000000"));
    let segment = segment.next();
    for other in [Listed { segment, ..listed.clone() }, Listed { bytes: 1, ..listed.clone() }] {
        assert!(!index().is_of(&[other.clone(), other], None));
    }
    let own = Listed { segment: Segment::parse("000000010000000000000004", 16 << 20).unwrap(), ..listed };
    let next = Listed { segment: own.segment.next(), bytes: 7, ..own.clone() };
    let is_of = |own: &Listed, next: &Listed, id| index().is_of(&[own.clone(), next.clone()], Some(id));
    assert!(is_of(&own, &next, 7) && !is_of(&own, &next, 8), "another cluster's");
    let anew = |listed: &Listed| {
        let modified = modified + chrono::TimeDelta::milliseconds(1);
        Listed { modified, ..listed.clone() }
    };
    assert!(!is_of(&anew(&own), &next, 7), "stored anew");
    assert!(!is_of(&own, &anew(&next), 7) && !index().is_of(&[own], None), "its last record ends elsewhere");
}

proptest! {
    #[test]
    fn commits_read_what_they_write(
        numbers in prop::collection::vec((any::<u64>(), any::<u32>(), 0_i64..4_000_000_000_000_000, any::<u64>()), 0..50)
    ) {
        let commits = commits(&numbers);
        prop_assert_eq!(read(&write(&commits)), Some(commits));
    }

    #[test]
    fn strange_columns_do_not_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = (read::<CommitAt>(&bytes), read::<Pace>(&bytes));
    }
}
