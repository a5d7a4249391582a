//! WAL with everything in it, from a real cluster of 1 MiB segments.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::time::Duration;

use lifeboat::clock;
use lifeboat::system::postgres::connect;
use lifeboat::system::postgres::wal::read::{Damage, Fact, Joined, Listed, Source, State, Step, Walk};

use crate::support::postgres::{Primary, account};

/// A cluster that has done everything, and is down.
pub struct Written {
    /// Its archive is compressed.
    pub primary: Primary,
    /// Every segment, plain, the last one unfinished; both timelines.
    pub plain: PathBuf,
    /// Every transaction and subtransaction that committed, and when, as the server says.
    pub commits: BTreeMap<u32, String>,
}

const SETTINGS: &[&str] = &[
    "wal_keep_size = 2GB",
    "max_prepared_transactions = 8",
    "wal_compression = on",
    "full_page_writes = on",
    "checkpoint_timeout = 30s",
    "autovacuum = off",
    "track_commit_timestamp = on",
];

/// Every kind of thing that the reader tells, some of it across segments.
const WORK: &str = "
    create table rows (id int primary key, text text);
    create table other (id int, text text);
    insert into rows select n, repeat('x', 100) from generate_series(1, 3000) n;
    update rows set text = repeat('y', 90) where id % 3 = 0;
    update rows set id = -id where id % 7 = 0;
    delete from rows where id % 5 = 0;
    copy other (id) from program 'seq 1 20000';
    create unlogged table fleeting (id int);
    create temp table temporary as select generate_series(1, 100);
    select pg_create_restore_point('before the migration');
    checkpoint;
    create table dropped (id int primary key, text text);
    insert into dropped select n, md5(n::text) from generate_series(1, 500) n;
    drop table dropped;
    create table emptied (id int primary key, text text);
    insert into emptied select n, md5(n::text) from generate_series(1, 500) n;
    truncate emptied;
    vacuum full other;
    begin; create table made (id int); insert into made values (1); truncate made; insert into made values (2); commit;
    begin; insert into other values (1); savepoint a; delete from other where id < 100; rollback to a;
      savepoint b; update other set text = 'b' where id < 300; release b; savepoint c; insert into other values (2); commit;
    do $$ begin for n in 1..200 loop begin insert into other values (n); if n % 3 = 0 then raise 'no'; end if;
      exception when others then null; end; end loop; end $$;
    begin; delete from other where id < 500; drop table rows; rollback;
    begin; insert into other values (3); delete from other where id between 600 and 900; prepare transaction 'kept';
    begin; drop table emptied; savepoint s; insert into other values (4); prepare transaction 'thrown away';
    select pg_logical_emit_message(false, 'big', repeat('z', 3500000));
    select pg_create_restore_point('näch');
    commit prepared 'kept';
    rollback prepared 'thrown away';
    select pg_switch_wal();
    delete from other where id > 1000;
    create database gone;
    drop database gone;
    select pg_switch_wal();
";

/// Runs the statements one by one: some of them may not be in a transaction.
async fn work(primary: &Primary) {
    let client = primary.client().await;
    let mut rest = WORK;
    while let Some(end) = statement_end(rest) {
        let statement = rest[..end].trim();
        client.batch_execute(statement).await.unwrap_or_else(|error| panic!("{statement}: {error:?}"));
        rest = &rest[end + 1..];
    }
}

/// The next semicolon outside of `$$`.
fn statement_end(text: &str) -> Option<usize> {
    let mut quoted = false;
    text.char_indices().find_map(|(at, c)| {
        quoted ^= text[at..].starts_with("$$");
        (c == ';' && !quoted).then_some(at)
    })
}

async fn commits(primary: &Primary) -> BTreeMap<u32, String> {
    // Its own transaction writes nothing after this number was taken.
    let next = primary.value("select txid_current()").await;
    let query = format!(
        "select n, to_char(t at time zone 'utc', 'YYYY-MM-DD HH24:MI:SS.US') from generate_series(3, {next}::int - 1) n,
         pg_xact_commit_timestamp(n::text::xid) t where t is not null"
    );
    let rows = primary.client().await.query(&query, &[]).await.expect("commit times");
    rows.iter().map(|row| (row.get::<_, i32>(0) as u32, row.get(1))).collect()
}

impl Written {
    pub async fn new() -> Self {
        let primary = Primary::start_as(&["--wal-segsize=1"], SETTINGS).await;
        work(&primary).await;
        // A crash in the middle of a transaction, and of another that is prepared.
        let client = primary.client().await;
        let open = "begin; insert into other select generate_series(1, 9000); prepare transaction 'survives the crash';
                    begin; delete from other where id < 4000";
        for statement in open.split(';') {
            client.batch_execute(statement).await.expect("the statement runs");
        }
        primary.down("immediate").await;
        primary.up().await;
        primary.sql("commit prepared 'survives the crash'").await;
        primary.down("fast").await;
        // A new timeline, out of its own WAL.
        std::fs::write(primary.data.join("recovery.signal"), "").expect("recovery.signal");
        account().iter().for_each(|account| account.give(&primary.data.join("recovery.signal")).expect("given"));
        let settings = "restore_command = '/bin/false'\n";
        let path = primary.data.join("postgresql.auto.conf");
        std::fs::write(&path, settings).expect("postgresql.auto.conf");
        primary.up().await;
        let recovered = async {
            // It lets nobody in before it has recovered.
            while connect(&primary.url).await.is_err() {
                clock::sleep(Duration::from_millis(20)).await;
            }
            while primary.value("select pg_is_in_recovery()").await != "f" {
                clock::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), recovered).await.expect("the recovery ends");
        primary.sql("drop table other").await;
        primary.archive().await;
        primary.sql("create table last (id int); insert into last values (1)").await;
        let current = primary.value("select pg_walfile_name(pg_current_wal_insert_lsn())").await;
        let commits = commits(&primary).await;
        primary.down("fast").await;
        let plain = primary.path("plain");
        std::fs::create_dir(&plain).expect("a directory");
        for entry in std::fs::read_dir(primary.data.join("pg_wal")).expect("pg_wal") {
            let entry = entry.expect("an entry");
            let name = entry.file_name().into_string().expect("text");
            // Later ones are old files that wait to be used again.
            if name.len() == 24 && name[8..] <= current[8..] {
                std::fs::copy(entry.path(), plain.join(name)).expect("a copy");
            }
        }
        Self { primary, plain, commits }
    }

    /// The segments along the last timeline, and those of the first alone.
    pub fn lineages(&self) -> [Vec<Listed>; 2] {
        let all = Source::Directory(self.plain.clone()).list().expect("the directory is read");
        let fork = all.iter().find(|listed| listed.segment.timeline == 2).expect("a second timeline").segment.number;
        let first: Vec<Listed> = all.iter().filter(|listed| listed.segment.timeline == 1).cloned().collect();
        let last = all.iter().filter(|l| l.segment.timeline == 2 || l.segment.number < fork).cloned().collect();
        [last, first]
    }
}

/// What a walk told.
#[derive(Default)]
pub struct Told {
    pub segments: Vec<Joined>,
    pub states: Vec<State>,
    pub damage: Vec<Damage>,
}

impl Told {
    pub fn facts(&self) -> impl Iterator<Item = &Fact> {
        self.segments.iter().flat_map(|joined| &joined.facts)
    }
}

pub fn walk(source: &Source, segments: &[Listed], threads: usize, system_identifier: Option<u64>) -> Told {
    let mut told = Told::default();
    let walk = Walk {
        source,
        segments,
        system_identifier,
        threads: NonZeroUsize::new(threads).expect("a number of threads"),
        state: None,
    };
    let walked = walk.run(|step| {
        match step {
            Step::Segment { joined, state, .. } => {
                told.states.push(state.clone());
                told.segments.push(joined);
            }
            Step::Damaged(damage) => told.damage.push(damage),
        }
        ControlFlow::Continue(())
    });
    walked.expect("the source is readable");
    told
}
