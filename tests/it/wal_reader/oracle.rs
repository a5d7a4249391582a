//! `pg_waldump` reads the same.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use lifeboat::event::Lsn;
use lifeboat::system::postgres::wal::read::{Commit, Counts, Fact, Listed, Relation, Source};

use super::archive::{Told, Written, walk};
use crate::support::postgres::bin;

/// A line of `pg_waldump`.
struct Line<'a> {
    manager: &'a str,
    xid: u32,
    lsn: Lsn,
    desc: &'a str,
    /// The relation of its first block.
    relation: Option<Relation>,
}

impl<'a> Line<'a> {
    fn parse(line: &'a str) -> Self {
        let between = |from: &str, to: &str| {
            let rest = &line[line.find(from).unwrap_or_else(|| panic!("{from} in {line}")) + from.len()..];
            rest[..rest.find(to).unwrap_or(rest.len())].trim()
        };
        let relation = line
            .split_once("blkref #0: rel ")
            .map(|(_, rest)| rest.split_whitespace().next().expect("a relation").parse().expect("a relation"));
        Self {
            manager: between("rmgr: ", "len ("),
            xid: between("tx:", ",").parse().expect("an xid"),
            lsn: between("lsn: ", ",").parse().expect("an LSN"),
            desc: between("desc: ", "\n"),
            relation,
        }
    }

    fn operation(&self) -> &'a str {
        self.desc.split([' ', ';', ',']).next().unwrap_or_default()
    }
}

fn pg_waldump(plain: &Path, first: &str, last: &str) -> String {
    let output = Command::new(bin().join("pg_waldump"))
        .args(["-p", plain.to_str().expect("text"), first, last])
        .env("TZ", "UTC")
        .output()
        .expect("pg_waldump starts");
    // It says at the end that WAL ends, as an error.
    String::from_utf8(output.stdout).expect("text")
}

/// What `pg_waldump` says, in the reader's words.
#[derive(Default, Debug, PartialEq)]
struct Said {
    /// By segment number.
    records: BTreeMap<u64, u64>,
    rows: BTreeMap<u64, [u64; 3]>,
    /// Everything that ends or is named, a line each.
    facts: Vec<String>,
}

fn counts_text(counts: Counts) -> String {
    format!("+{} ~{} -{}", counts.inserts, counts.updates, counts.deletes)
}

/// Transactions as counted from the lines.
#[derive(Default)]
struct Transactions(BTreeMap<u32, BTreeMap<Relation, Counts>>);

impl Transactions {
    fn take(&mut self, xids: impl IntoIterator<Item = u32>) -> BTreeMap<Relation, Counts> {
        let mut sum: BTreeMap<Relation, Counts> = BTreeMap::new();
        for (relation, counts) in xids.into_iter().filter_map(|xid| self.0.remove(&xid)).flatten() {
            *sum.entry(relation).or_default() += counts;
        }
        sum
    }
}

/// The heaviest of them, when there is much.
fn work_text(by_relation: &BTreeMap<Relation, Counts>) -> String {
    let mut total = Counts::default();
    by_relation.values().for_each(|counts| total += *counts);
    let heaviest = by_relation.iter().max_by_key(|(_, counts)| counts.changed()).filter(|_| total.changed() >= 100);
    format!(
        "{} {}",
        counts_text(total),
        heaviest.map(|(relation, counts)| format!("{relation} {}", counts_text(*counts))).unwrap_or_default()
    )
}

fn number_after(text: &str, words: &[&str]) -> u64 {
    // `3 tuples` before version 16, `ntuples: 3` since.
    let words = words.iter().find_map(|word| Some(text.split_once(word)?.1));
    words.map_or_else(
        || text.split(' ').nth(1).expect("a number").parse().expect("a number"),
        |rest| rest.split([',', ' ']).next().expect("a number").parse().expect("a number"),
    )
}

/// `base/5/16400` and its like.
fn relation_of_path(path: &str) -> Relation {
    let parts: Vec<&str> = path.split('/').collect();
    let number = |text: &str| text.parse().expect("a number");
    match parts.as_slice() {
        ["base", database, relation] => {
            Relation { tablespace: 1663, database: number(database), number: number(relation) }
        }
        ["global", relation] => Relation { tablespace: 1664, database: 0, number: number(relation) },
        _ => panic!("{path}"),
    }
}

fn said(text: &str, segment_size: u64) -> Said {
    let mut said = Said::default();
    let mut running = Transactions::default();
    for line in text.lines().map(Line::parse) {
        let segment = line.lsn.0 / segment_size;
        *said.records.entry(segment).or_default() += 1;
        let mut counts = Counts::default();
        match (line.manager, line.operation().trim_end_matches("+INIT")) {
            ("Heap", "INSERT") => counts.inserts = 1,
            ("Heap", "UPDATE" | "HOT_UPDATE") => counts.updates = 1,
            ("Heap", "DELETE") => counts.deletes = 1,
            ("Heap2", "MULTI_INSERT") => counts.inserts = number_after(line.desc, &["ntuples: "]),
            ("Transaction", operation) => {
                if let Some(fact) = ended(&line, operation, &mut running) {
                    said.facts.push(fact);
                }
            }
            ("XLOG", "RESTORE_POINT") => said.facts.push(format!("{} point {}", line.lsn, &line.desc[14..])),
            ("XLOG", "CHECKPOINT_SHUTDOWN" | "CHECKPOINT_ONLINE") => {
                let redo = line.desc.split_once("redo ").expect("redo").1.split(';').next().expect("an LSN");
                let tli = line.desc.split_once(" tli ").expect("tli").1.split(';').next().expect("a timeline");
                said.facts.push(format!("{} {} redo {redo} timeline {tli}", line.lsn, line.operation()));
                let before = line.desc.split_once(" prev tli ").expect("prev tli").1.split(';').next().expect("one");
                if before != tli {
                    said.facts.push(format!("{} timeline {before} to {tli}", line.lsn));
                }
            }
            ("XLOG", "END_OF_RECOVERY") => {
                let after = |word: &str| {
                    line.desc.split_once(word).expect("a timeline").1.split(';').next().expect("one").to_owned()
                };
                said.facts.push(format!("{} timeline {} to {}", line.lsn, after("prev tli "), after("tli ")));
            }
            ("Standby", "LOCK") => {
                // `xid 740 db 5 rel 16384`, several times.
                let words: Vec<&str> = line.desc.split_whitespace().skip(1).collect();
                for lock in words.chunks_exact(6) {
                    said.facts.push(format!("{} lock xid {} db {} rel {}", line.lsn, lock[1], lock[3], lock[5]));
                }
            }
            ("Database", "DROP") => said.facts.push(format!("{} database dropped", line.lsn)),
            _ => {}
        }
        if !counts.is_empty() {
            let rows = said.rows.entry(segment).or_default();
            for (row, count) in rows.iter_mut().zip([counts.inserts, counts.updates, counts.deletes]) {
                *row += count;
            }
            let relation = line.relation.expect("a relation");
            *running.0.entry(line.xid).or_default().entry(relation).or_default() += counts;
        }
    }
    said
}

fn ended(line: &Line<'_>, operation: &str, running: &mut Transactions) -> Option<String> {
    let mut parts = line.desc.split("; ");
    let head = parts.next()?.strip_prefix(operation)?.trim();
    let list = |name: &str| -> Vec<String> {
        let part = line.desc.split("; ").find_map(|part| part.strip_prefix(name)).unwrap_or_default();
        part.split_whitespace().map(ToOwned::to_owned).collect()
    };
    let subtransactions = list("subxacts: ");
    let xid_of = |head: &str| head.split_once(": ").map(|(xid, _)| xid.parse::<u32>().expect("an xid"));
    let xid = operation.ends_with("_PREPARED").then(|| xid_of(head)).flatten().unwrap_or(line.xid);
    let time = head.rsplit(": ").next()?.strip_suffix(" UTC")?;
    let subs = subtransactions.iter().map(|xid| xid.parse().expect("an xid"));
    let lsn = line.lsn;
    match operation {
        "COMMIT" | "COMMIT_PREPARED" => {
            let dropped: Vec<String> = list("rels: ").iter().map(|path| relation_of_path(path).to_string()).collect();
            let done = running.take(std::iter::once(xid).chain(subs));
            Some(format!(
                "{lsn} commit {xid} {time} subs {} dropped {} did {}",
                subtransactions.join(" "),
                dropped.join(" "),
                work_text(&done)
            ))
        }
        "ABORT" | "ABORT_PREPARED" => {
            running.take(std::iter::once(xid).chain(subs));
            Some(format!("{lsn} abort {xid} {time} subs {}", subtransactions.join(" ")))
        }
        "PREPARE" => {
            // `gid kept: 2026-…`
            let gid = head.strip_prefix("gid ")?.rsplit_once(": ")?.0;
            let done = running.take(std::iter::once(xid).chain(subs));
            // It goes on to run.
            let text = work_text(&done);
            running.0.insert(xid, done);
            Some(format!("{lsn} prepare {xid} {gid} {time} did {text}"))
        }
        _ => None,
    }
}

/// What the reader says.
fn told(told: &Told) -> Said {
    let mut said = Said::default();
    for joined in told.segments.iter().filter(|joined| joined.records > 0) {
        said.records.insert(joined.segment.number, joined.records);
        let Counts { inserts, updates, deletes } = joined.counts;
        if !joined.counts.is_empty() {
            said.rows.insert(joined.segment.number, [inserts, updates, deletes]);
        }
    }
    let time = |time: chrono::DateTime<chrono::Utc>| time.format("%Y-%m-%d %H:%M:%S%.6f").to_string();
    let list = |xids: &[u32]| xids.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
    let work = |work: &lifeboat::system::postgres::wal::read::Work| {
        let heaviest = work.relations.first();
        let heaviest = heaviest.map(|heaviest| format!("{} {}", heaviest.relation, counts_text(heaviest.counts)));
        format!("{} {}", counts_text(work.counts), heaviest.unwrap_or_default())
    };
    for fact in told.facts() {
        let lsn = fact.lsn();
        said.facts.push(match fact {
            Fact::Commit(Commit { xid, time: at, subtransactions, dropped, work: done, .. }) => format!(
                "{lsn} commit {xid} {} subs {} dropped {} did {}",
                time(*at),
                list(subtransactions),
                dropped.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "),
                work(done)
            ),
            Fact::Abort(abort) => {
                format!("{lsn} abort {} {} subs {}", abort.xid, time(abort.time), list(&abort.subtransactions))
            }
            Fact::Prepared(prepared) => format!(
                "{lsn} prepare {} {} {} did {}",
                prepared.xid,
                prepared.gid,
                time(prepared.time),
                work(&prepared.work)
            ),
            Fact::RestorePoint { name, .. } => format!("{lsn} point {name}"),
            Fact::Checkpoint(checkpoint) => {
                let kind = if checkpoint.shutdown { "SHUTDOWN" } else { "ONLINE" };
                let (redo, timeline) = (padded(checkpoint.redo), checkpoint.timeline);
                format!("{lsn} CHECKPOINT_{kind} redo {redo} timeline {timeline}")
            }
            Fact::TimelineSwitch { from, to, .. } => format!("{lsn} timeline {from} to {to}"),
            Fact::Lock { xid, lock, .. } => format!("{lsn} lock xid {xid} db {} rel {}", lock.database, lock.relation),
            Fact::DatabaseDropped { .. } => format!("{lsn} database dropped"),
            Fact::Running { .. } | Fact::Parameters(_) | Fact::BackupEnd { .. } => continue,
        });
    }
    said
}

/// The text of an LSN in `pg_waldump`'s descriptions.
fn padded(lsn: Lsn) -> String {
    lsn.to_string()
}

fn compare(expected: &Said, found: &Said) {
    assert_eq!(expected.records, found.records, "records by segment");
    assert_eq!(expected.rows, found.rows, "rows by segment");
    for (expected, found) in expected.facts.iter().zip(&found.facts) {
        assert_eq!(expected, found);
    }
    assert_eq!(expected.facts.len(), found.facts.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn every_segment_reads_as_pg_waldump_reads_it() {
    let written = Written::new().await;
    let plain = Source::Directory(written.plain.clone());
    for segments in written.lineages() {
        let size = segments[0].segment.size;
        let timeline = segments.last().expect("segments").segment.timeline;
        let mine = walk(&plain, &segments, 1, None);
        for j in &mine.segments {
            println!("{} {} {:?} {}", j.segment, j.records, j.first, j.end);
        }
        assert_eq!(mine.damage, []);
        // pg_waldump stays on one timeline: the child alone, and its parent alone.
        let split = segments.iter().position(|listed| listed.segment.timeline == timeline).expect("the timeline");
        let alone = walk(&plain, &segments[split..], 1, None);
        let ends = [&segments[split], segments.last().expect("segments")].map(|listed| listed.segment.to_string());
        let expected = said(&pg_waldump(&written.plain, &ends[0], &ends[1]), size);
        assert!(expected.facts.len() > 3, "{expected:?}");
        compare(&expected, &told(&alone));
        if timeline == 1 {
            assert!(expected.facts.iter().any(|fact| fact.contains("point näch")));
            for word in ["prepare", "abort", "lock", "database dropped", "CHECKPOINT_SHUTDOWN", "CHECKPOINT_ONLINE"] {
                assert!(expected.facts.iter().any(|fact| fact.contains(word)), "{word}");
            }
            assert!(segments.len() > 8, "{} segments", segments.len());
        } else {
            assert!(expected.facts.iter().any(|fact| fact.contains("timeline 1 to 2")), "{:?}", expected.facts);
        }
        // On two threads the same.
        let parallel = walk(&plain, &segments, 2, None);
        assert_eq!(told(&mine), told(&parallel));
        assert_eq!(mine.states, parallel.states);
    }
    compressed(&written).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_commit_is_the_server_s() {
    let written = Written::new().await;
    let [segments, _] = written.lineages();
    let told = walk(&Source::Directory(written.plain.clone()), &segments, 1, None);
    assert_eq!(told.damage, []);
    let version: u32 =
        std::fs::read_to_string(written.primary.data.join("PG_VERSION")).unwrap().trim().parse().unwrap();
    assert!(told.segments.iter().all(|joined| joined.version.major() == version));
    let mut found = BTreeMap::new();
    for fact in told.facts() {
        if let Fact::Commit(commit) = fact {
            for xid in std::iter::once(&commit.xid).chain(&commit.subtransactions) {
                found.insert(*xid, commit.time.format("%Y-%m-%d %H:%M:%S%.6f").to_string());
            }
        }
    }
    // initdb's are from before the server kept times, and the last one asked for them.
    let (kept, asked) = (*written.commits.keys().next().unwrap(), *found.keys().last().unwrap());
    found.retain(|xid, _| (kept..asked).contains(xid));
    assert!(found.len() > 150, "{}", found.len());
    assert_eq!(found, written.commits);
}

/// The archive in the bucket, compressed, says the same as the plain files.
async fn compressed(written: &Written) {
    let runtime = tokio::runtime::Handle::current();
    let source = Source::Bucket { bucket: written.primary.bucket(), runtime };
    let [_, first] = written.lineages();
    let plain = Source::Directory(written.plain.clone());
    tokio::task::spawn_blocking(move || {
        let listed = source.list().expect("the bucket is read");
        let listed: Vec<Listed> = listed.into_iter().filter(|listed| listed.segment.timeline == 1).collect();
        assert!(listed.len() > 8);
        let same: Vec<Listed> =
            first.into_iter().filter(|plain| listed.iter().any(|l| l.segment == plain.segment)).collect();
        for threads in [1, 3] {
            let from_bucket = walk(&source, &listed, threads, None);
            assert_eq!(from_bucket.damage, []);
            assert_eq!(told(&from_bucket), told(&walk(&plain, &same, threads, None)));
        }
    })
    .await
    .expect("the walk ends");
}
