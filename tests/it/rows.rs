//! The threats of a restore, a test for each, and the proof that each test would notice.
//!
//! A row's tests are called `row_NN_…`, wherever they live. A mutant takes one defence away (`src/mutant.rs`); the tests of
//! its row run again in a process of their own and have to fail, with the words that name what went wrong: a test that
//! fails because a server did not start proves nothing.
//!
//! `cargo test --features mutants`, as in `tests/run`, runs both.

mod engine;
mod input;
mod interrupt;
mod lease;
mod objects;
mod processes;
mod record;
mod secrets;
mod smoke;
mod target;
mod terminal;
mod time;
pub mod tls;

use std::path::Path;

use crate::support::checkout;

/// A threat: its number, what can go wrong, what stands against it, and why no mutant could be built where there is none.
struct Row {
    number: u8,
    threat: &'static str,
    defence: &'static str,
    without_mutant: Option<&'static str>,
}

const fn row(number: u8, threat: &'static str, defence: &'static str) -> Row {
    Row { number, threat, defence, without_mutant: None }
}

const ROWS: &[Row] = &[
    row(
        1,
        "restoring over the primary",
        "a target is empty or carries our marker, its name is typed, no flag forces it",
    ),
    row(
        2,
        "wrong host or environment",
        "a target's identity is several independent facts, looked at again right before each destructive step",
    ),
    row(
        3,
        "wrong recovery target",
        "an offset is mandatory, and what was replayed is compared with the target afterwards",
    ),
    row(4, "the old primary still takes writes", "a write is proven to fail before promotion; unknown stops"),
    row(
        5,
        "a clone archives into production's archive",
        "everything restored starts with archive_mode off, and is asked for it again",
    ),
    row(6, "smoke tests hit production", "they resolve restored systems only; a source's address is refused"),
    row(
        7,
        "Redis restored empty",
        "loaded without the AOF where nobody else can reach it, its keys counted, then the AOF turned on; the backup is copied",
    ),
    row(8, "injection through variables", "argument lists, bind parameters, variables to scripts by environment only"),
    row(9, "archives with `..`, links, devices, bombs", "extraction beneath the target only, refusals, caps"),
    row(
        10,
        "secrets in journal, recording, report, process list",
        "a type that never prints, files and descriptors, redaction before the journal",
    ),
    row(11, "terminal escapes in output", "one sanitising sink for every view; raw bytes stay in the blob"),
    row(12, "journal or report altered later", "hash chain, signed head, a signature a role"),
    row(13, "clock steps, daylight saving, suspend", "durations by boot time and boot id; wall time is a label"),
    row(14, "signing key missing, or its agent dies", "unsigned is said, never implied"),
    row(15, "an object swapped between look and read", "version and digest pinned; created only where nothing is"),
    row(
        16,
        "an approval replayed on another drill",
        "the statement holds run, nonce, environment, and the previous statement's hash",
    ),
    row(17, "TLS not verified", "a verifying connector; plaintext to loopback and sockets, or by a written word"),
    row(18, "running as root", "servers run as an unprivileged user; umask 077"),
    row(19, "two operators start the same drill", "a lock on the target, and a lease with a fencing token"),
    row(20, "the line drops", "the engine has its own session; a view comes back without loss"),
    row(21, "ctrl-C", "the first asks, the second ends; the outcome is recorded, the terminal given back"),
    row(22, "full disk, failed fsync", "a reserve is kept; any fsync error ends the run before its next effect"),
    // Power is lost by taking away what was not synced, between the program and its C library (`sweep/power.rs`): LazyFS,
    // which does it below a whole file system, cannot be had from a package registry. A disk that lies about its cache cannot
    // be tested on one machine.
    row(23, "kill -9, out of memory, power loss", "the journal is ahead of each effect; a step in doubt is reconciled"),
    row(24, "hung commands and their grandchildren", "deadlines; the whole group ends"),
    row(
        25,
        "gigabytes of output, broken text, a tiny terminal",
        "bounded ring, capped blobs, a lossy view over raw bytes",
    ),
];

/// One line a mutant: `test_name: "the row's tests" without "defence" (what goes missing) says "words of the failure"`.
macro_rules! mutants {
    ($($(#[$attribute:meta])* $id:ident: $tests:literal without $defence:literal ($missing:literal) says $said:literal;)*) => {
        /// The tests that have to fail, the defence as its hook in the source calls it, and what goes missing.
        const MUTANTS: &[(&str, &str, &str)] = &[$(($tests, $defence, $missing)),*];

        $(
            #[cfg(feature = "mutants")]
            #[test]
            $(#[$attribute])*
            fn $id() {
                fails_without($tests, $defence, $said);
            }
        )*
    };
}

mutants! {
    a_target_that_need_not_be_ours: "row_01_what_is_not_ours" without "1" ("the refusal of what carries no marker")
        says "the decoy was changed";
    a_target_of_another_drill: "row_01_the_restore_of_another" without "1b" ("the owner in the marker")
        says "took over the restore of drill-1";
    a_cache_s_target_that_need_not_be_ours: "row_01_redis" without "1c" ("the refusal of what carries no marker")
        says "the decoy was changed";
    a_name_that_need_not_be_right: "row_01_a_wrong_name" without "1d" ("the comparison with the target's name")
        says "destroyed";
    a_twin_at_the_address: "row_02_a_twin" without "2" ("the data directory, asked for again") says "another server was promoted";
    a_stranger_at_the_address: "row_02_another_cluster" without "2b" ("the cluster that the backups are of")
        says "another cluster was fenced";
    a_server_that_was_swapped: "row_02_a_server_swapped" without "2c" ("who answers, asked again before the intent")
        says "the server in its place was fenced";
    a_fence_lifted_from_whom_it_finds: "row_02_only_the_server_that_was_fenced" without "2d" ("who answers, asked before it is opened")
        says "the server in its place was opened";
    a_time_in_whichever_zone: "row_03_a_time" without "3" ("the offset that is mandatory") says "was taken for a moment";
    a_recovery_that_nobody_compares: "row_03_what" without "3b" ("the comparison with the WAL")
        says "passed in silence";
    a_promotion_without_proof: "row_04_two_servers" without "4" ("the proof right before the promotion")
        says "two servers took writes at once";
    silence_taken_for_a_fence: "row_04_unknown" without "4b" ("that unknown stops") says "was taken for fenced";
    a_fence_that_asks_politely: "row_04_a_fenced_primary" without "4c" ("pg_hba.conf, and the end of sessions")
        says "an old session writes on";
    a_clone_that_archives: "row_05_a_clone" without "5" ("archive_mode = off")
        says "wrote into production's archive";
    a_clone_that_is_not_asked: "row_05_what_was_made" without "5b" ("the question for archive_mode")
        says "a server that archives was promoted";
    a_smoke_test_anywhere: "row_06_no_smoke" without "6" ("the refusal of a source's address")
        says "reached production";
    a_command_to_the_source: "row_06_no_command" without "6b" ("that only what was restored is asked")
        says "reached production";
    a_cache_loaded_with_its_aof: "row_07_whatever" without "7" ("appendonly no while it loads") says "came back empty";
    a_cache_that_is_not_counted: "row_07_a_server" without "7b" ("the count of the keys") says "a false pass";
    a_cache_that_is_open_while_it_is_restored: "row_07_nobody" without "7c" ("the socket that nobody else can open")
        says "a client was answered before the restore was done";
    values_in_a_script: "row_08_a_value" without "8" ("values by environment only") says "was run by a shell";
    values_in_sql: "row_08_a_value" without "8b" ("bind parameters") says "did not come back as it is";
    an_archive_that_writes_anywhere: "row_09_nothing" without "9" ("beneath the directory only") says "escaped";
    an_archive_of_any_size: "row_09_a_bomb" without "9b" ("the sizes of the backup's manifest")
        says "a bomb of 67108864 bytes was unpacked";
    a_secret_in_two_chunks: "row_10_a_secret" without "10" ("redaction across chunk borders") says "a secret was told";
    a_secret_spelled_otherwise: "row_10_a_secret" without "10b" ("every spelling of it") says "a secret was told";
    a_secret_in_an_outcome: "row_10_a_secret" without "10c" ("redaction before the journal") says "a secret was told";
    a_secret_among_arguments: "row_10_a_secret" without "10d" ("passwords by environment only")
        says "in the process list";
    output_that_steers: "row_11_what" without "11" ("the sanitising sink") says "the terminal was steered";
    a_screen_that_trusts: "row_11_nothing" without "11b" ("the look at the drawing edge") says "steered";
    a_server_as_root: "row_18_no_server" without "18" ("the drop to another user") says "runs as root";
    files_for_everybody: "row_18_what" without "18b" ("umask 077") says "open to others";
    a_system_without_its_lease: "row_19_two_programs_with_one_bucket_in" without "19b" ("the lease in the bucket")
        says "two drills restored the same system at once";
    a_target_without_its_lock: "row_19_of" without "19" ("the lock, and the second look under it")
        says "not exactly one won";
    an_engine_in_its_terminal_s_session: "row_20_a_line" without "20" ("a session of its own") says "went with its terminal";
    a_ctrl_c_that_ends_at_once: "row_21_the_first" without "21" ("the question") says "never showed";
    a_child_that_is_deaf: "row_21_the_first" without "21b" ("KILL after the grace") says "survived the second ctrl-C";
    an_end_that_nobody_records: "row_21_the_first" without "21c" ("the record of what was cut off")
        says "has no outcome";
    a_terminal_that_is_kept: "row_21_the_first" without "21d" ("the guard that gives it back")
        says "the terminal was not given back";
    output_thrown_away: "row_21_the_first" without "21e" ("the terminal keeping what it has not shown yet")
        says "could swallow";
    a_disk_that_is_believed: "row_22_nothing" without "22" ("that a failed write is fatal") says "KiB:";
    a_doubt_settled_by_itself: "row_23_what" without "23" ("the person who decides") says "was done again";
    a_journal_that_is_not_synced: "row_23_a_kill_or_a_loss_of_power_at_every_event_of_a" without "23b" ("fdatasync")
        says "lost something";
    children_that_get_away: "row_24_a_step" without "24" ("the search for those that left the group") says "survived";
    only_the_child_itself: "row_24_what_is_dropped" without "24b" ("the group") says "survived";
    output_without_a_cap: "row_25_a_flood" without "25" ("the cap of a blob") says "bytes of output were kept";
    output_without_a_bound: "row_25_a_flood" without "25b" ("the ring of lines") says "of a flood";
    a_journal_without_its_chain: "row_12_" without "12" ("the digest of the line before") says "altered in silence";
    durations_by_the_wall_clock: "row_13_a_clock" without "13" ("boot time") says "a duration is wrong by";
    a_reboot_that_nobody_notices: "row_13_what_only" without "13b" ("the boot id") says "passed for a measured one";
    a_signature_that_nobody_checks: "row_14_a_signature" without "14" ("the check before it is kept")
        says "a signature that does not fit was kept";
    unsigned_and_not_said: "row_14_an_agent" without "14b" ("that unsigned is said") says "was reported as another";
    a_part_by_its_name_alone: "row_15_a_part" without "15" ("the digest of a part") says "is served as the backup";
    an_object_written_over: "row_15_of_many" without "15b" ("created only where nothing is") says "an object was replaced";
    an_object_by_its_name_alone: "row_15_an_object" without "15c" ("the version that is pinned")
        says "another object than the one that was looked at was read";
    a_signature_of_another: "row_16_" without "16" ("the statement's own bytes") says "taken for another drill";
    a_report_of_another: "row_16_" without "16b" ("the journal's head in the statement")
        says "another drill's report was taken for this one's";
    a_certificate_of_anybody: "row_17_postgres" without "17" ("the host's name") says "was believed";
    a_page_of_anybody: "row_17_pages" without "17b" ("the verification of certificates") says "was believed";
    a_bucket_in_the_clear: "row_17_nothing" without "17c" ("TLS beyond this machine") says "would go in the clear";
}

/// Runs the tests of a row in a process of its own with one defence missing: one of them has to fail, in these words.
#[cfg(feature = "mutants")]
fn fails_without(tests: &str, defence: &str, said: &str) {
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args([tests, "--include-ignored", "--test-threads=2", "--skip", "rows::every_row"])
        .env("LIFEBOAT_MUTANT", defence)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(!text.contains("running 0 tests"), "no test is called {tests}");
    assert!(!output.status.success(), "{tests} passes without the defence {defence}:\n{text}");
    assert!(text.contains(said), "{tests} fails without the defence {defence}, but not by saying {said:?}:\n{text}");
}

/// The text of every source file below a folder of the checkout.
fn sources(folder: &str) -> Vec<String> {
    fn read(directory: &Path, texts: &mut Vec<String>) {
        for path in std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()) {
            if path.is_dir() {
                read(&path, texts);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                texts.push(std::fs::read_to_string(path).unwrap());
            }
        }
    }
    let mut texts = Vec::new();
    read(&checkout().join(folder), &mut texts);
    texts
}

#[test]
fn every_row_has_a_test_and_every_defence_a_mutant() {
    let tests = [sources("tests/it"), sources("src")].concat();
    let hooks = sources("src").concat();
    let mut wrong = Vec::new();
    for (expected, row) in (1..).zip(ROWS) {
        assert_eq!(row.number, expected, "the rows are in order, none is left out");
        let Row { number, threat, defence, .. } = row;
        if !tests.iter().any(|text| text.contains(&format!("fn row_{number:02}_"))) {
            wrong.push(format!("row {number} ({threat}) has no test"));
        }
        let mutants = MUTANTS.iter().filter(|(tests, ..)| tests.starts_with(&format!("row_{number:02}_"))).count();
        if (mutants == 0) != row.without_mutant.is_some() {
            wrong.push(format!(
                "row {number} ({defence}) has {mutants} mutants, and the reason: {:?}",
                row.without_mutant
            ));
        }
    }
    for (tests, defence, missing) in MUTANTS {
        if !hooks.contains(&format!("mutant::removes(\"{defence}\")")) {
            wrong.push(format!(
                "nothing in src/ takes the defence {defence} ({missing}) away, which {tests} should notice"
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
