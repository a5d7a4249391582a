//! Every file in `tests/invalid` is refused, or warned about, with words that a person can use. The snapshots beside the
//! files are what a person sees; `INSTA_UPDATE=always` writes them anew.

use std::path::{Path, PathBuf};

use lifeboat::document::{Look, Problems};
use lifeboat::{inventory, runbook};
use proptest::prelude::*;

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn files(name: &str) -> Vec<(String, String)> {
    let mut files: Vec<_> = std::fs::read_dir(folder(name))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "toml"))
        .map(|path| (path.file_stem().unwrap().to_str().unwrap().to_owned(), std::fs::read_to_string(path).unwrap()))
        .collect();
    files.sort();
    files
}

fn check(name: &str, lint: impl Fn(&str, &str) -> (bool, Problems)) {
    let files = files(name);
    assert!(files.len() > 4, "{name} holds {} files", files.len());
    insta::with_settings!({
        snapshot_path => folder(name), prepend_module_to_snapshot => false, omit_expression => true
    }, {
        for (stem, source) in files {
            let (loads, problems) = lint(&source, &format!("{stem}.toml"));
            assert!(!problems.is_empty(), "{stem} has no problems");
            assert_eq!(loads, !problems.has_errors(), "{stem}: it loads exactly when there are no errors");
            insta::assert_snapshot!(stem, problems.render(&Look::default()));
        }
    });
}

#[test]
fn invalid_runbooks_say_what_is_wrong() {
    check("tests/invalid/runbooks", lint_runbook);
}

#[test]
fn invalid_inventories_say_what_is_wrong() {
    check("tests/invalid/inventories", lint_inventory);
}

fn lint_runbook(source: &str, name: &str) -> (bool, Problems) {
    let (runbook, problems) = runbook::lint(source, name);
    (runbook.is_some(), problems)
}

fn lint_inventory(source: &str, name: &str) -> (bool, Problems) {
    let (inventory, problems) = inventory::lint(source, name, Path::new("/etc/lifeboat"));
    (inventory.is_some(), problems)
}

#[test]
fn a_password_in_a_refused_file_is_not_shown() {
    let source = std::fs::read_to_string(folder("tests/invalid/inventories/plain-passwords.toml")).unwrap();
    assert!(source.contains("correct-horse"));
    let (_, problems) = lint_inventory(&source, "lifeboat.toml");
    for shown in [problems.to_string(), serde_json::to_string(&problems).unwrap(), format!("{problems:?}")] {
        assert!(!shown.contains("correct-horse"), "{shown}");
    }
}

#[test]
fn a_file_that_cannot_be_read_says_why() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("runbook.toml");
    let message = |path: &Path| {
        let text = runbook::load(path).unwrap_err().to_string();
        text.replace(&directory.path().display().to_string(), "DIR")
    };
    insta::assert_snapshot!(message(&path), @"
      × cannot read DIR/runbook.toml: No such file or directory (os error 2)
      help: check the path; it is read from the current directory

    DIR/runbook.toml: 1 error
    ");
    insta::assert_snapshot!(message(directory.path()), @"
      × DIR is a directory
      help: name the file inside it

    DIR: 1 error
    ");
    std::fs::write(&path, b"format = 1\nid = \"caf\xe9\"\n").unwrap();
    insta::assert_snapshot!(message(&path), @"
      × DIR/runbook.toml is not UTF-8 text: line 2 holds a byte that is none
      help: save the file as UTF-8

    DIR/runbook.toml: 1 error
    ");
    assert!(inventory::load(&directory.path().join("lifeboat.toml")).unwrap_err().to_string().contains("cannot read"));
}

#[test]
fn a_program_can_read_the_problems() {
    let (_, problems) = lint_runbook("format = 1\nid = \"a\"\ntitle = \"A\"\nphases = 3\n", "a.toml");
    insta::assert_snapshot!(serde_json::to_string_pretty(&problems).unwrap(), @r#"
    {
      "file": "a.toml",
      "problems": [
        {
          "severity": "error",
          "message": "`phases` should be a list, not a whole number",
          "hint": "a runbook has at least one [[phases]] with a title and steps",
          "line": 4,
          "column": 10
        }
      ]
    }
    "#);
}

/// A file with some of its bytes replaced, cut out, doubled or shuffled.
fn mutated(sources: Vec<String>) -> impl Strategy<Value = String> {
    let cut = (any::<prop::sample::Index>(), any::<prop::sample::Index>(), any::<prop::sample::Index>());
    let junk = prop_oneof![
        Just(String::new()),
        "[\\x00-\\x7f]{1,3}",
        "\\PC{1,2}",
        Just("[[phases.steps]]\n".to_owned()),
        Just("= [".to_owned()),
        Just("\"\"\"".to_owned()),
        Just("{db}".to_owned()),
        Just("\r\n".to_owned()),
    ];
    (prop::sample::select(sources), prop::collection::vec((cut, junk), 1..4)).prop_map(|(mut source, edits)| {
        for ((from, length, copy), junk) in edits {
            let borders: Vec<usize> = source.char_indices().map(|(at, _)| at).collect();
            if borders.is_empty() {
                break;
            }
            let from = from.index(borders.len());
            let to = (from + length.index(40)).min(borders.len() - 1);
            let moved = source[borders[copy.index(borders.len())]..].chars().take(junk.len() * 5).collect::<String>();
            source.replace_range(borders[from]..borders[to], &format!("{junk}{moved}"));
        }
        source
    })
}

fn all_runbooks() -> Vec<String> {
    [files("runbooks"), files("tests/invalid/runbooks")].concat().into_iter().map(|(_, source)| source).collect()
}

fn all_inventories() -> Vec<String> {
    files("tests/invalid/inventories").into_iter().map(|(_, source)| source).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_mutated_runbook_makes_the_parser_panic(source in mutated(all_runbooks())) {
        let (loads, problems) = lint_runbook(&source, "mutated.toml");
        prop_assert_eq!(loads, !problems.has_errors());
        // Carets of any place must be drawable.
        let _ = problems.to_string();
    }

    #[test]
    fn no_mutated_inventory_makes_the_parser_panic(source in mutated(all_inventories())) {
        let (loads, problems) = lint_inventory(&source, "mutated.toml");
        prop_assert_eq!(loads, !problems.has_errors());
        let _ = problems.to_string();
    }
}
