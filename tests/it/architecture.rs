//! The house is kept: every file has a room, imports run downwards only, and rooms on one floor never import each other.
//! The table of rooms and floors is the one in the documentation of `src/lib.rs`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::support::checkout;

/// Room → floor.
fn floors() -> BTreeMap<String, u32> {
    let lib = std::fs::read_to_string(checkout().join("src/lib.rs")).unwrap();
    let rows = lib.lines().filter_map(|line| line.strip_prefix("//! | "));
    rows.filter_map(|row| {
        let mut cells = row.split('|').map(str::trim);
        let floor = cells.next()?.parse().ok()?;
        let room = cells.next()?.strip_prefix("[`")?.strip_suffix("`]")?.to_owned();
        Some((room, floor))
    })
    .collect()
}

fn sources(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()) {
        match entry.is_dir() {
            true => sources(&entry, found),
            false if entry.extension().is_some_and(|extension| extension == "rs") => found.push(entry),
            false => {}
        }
    }
}

/// The rooms that a text names by `crate::room`, `crate::{room, room::…}` included. Comments and text in quotes do not
/// count: documentation may point anywhere.
fn rooms_named(text: &str) -> Vec<String> {
    let code: String = text.lines().map(|line| line.split("//").next().unwrap_or("")).collect::<Vec<_>>().join("\n");
    let mut rooms = Vec::new();
    for (at, _) in code.match_indices("crate::") {
        let rest = code[at + "crate::".len()..].trim_start();
        let name = |text: &str| text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
        match rest.strip_prefix('{') {
            None => rooms.push(name(rest)),
            Some(group) => {
                let mut depth = 1;
                let mut item = String::new();
                for c in group.chars() {
                    match c {
                        '{' => depth += 1,
                        '}' => depth -= 1,
                        ',' if depth == 1 => rooms.push(name(std::mem::take(&mut item).trim())),
                        _ if depth == 1 => item.push(c),
                        _ => {}
                    }
                    if depth == 0 {
                        break;
                    }
                }
                rooms.push(name(item.trim()));
            }
        }
    }
    rooms.retain(|room| !room.is_empty());
    rooms
}

#[test]
fn imports_run_downwards_only() {
    let floors = floors();
    assert!(floors.len() >= 15, "the table of rooms in src/lib.rs was not understood: {floors:?}");
    let src = checkout().join("src");
    let mut files = Vec::new();
    sources(&src, &mut files);
    let mut wrong = Vec::new();
    let mut arrows = 0;
    for file in files {
        let inside = file.strip_prefix(&src).unwrap();
        if ["lib.rs", "main.rs"].iter().any(|root| inside == Path::new(root)) {
            continue;
        }
        let room = inside.iter().next().unwrap().to_str().unwrap().trim_end_matches(".rs");
        let Some(floor) = floors.get(room) else {
            wrong.push(format!("{} is in no room of the table", inside.display()));
            continue;
        };
        for named in rooms_named(&std::fs::read_to_string(&file).unwrap()) {
            arrows += 1;
            match floors.get(&named) {
                _ if named == room => {}
                Some(below) if below < floor => {}
                Some(_) => wrong.push(format!("{} imports {named}, which is not below {room}", inside.display())),
                None => wrong.push(format!("{} imports {named}, which is no room", inside.display())),
            }
        }
    }
    assert!(arrows > 100, "only {arrows} imports were found: the test does not see the code");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_reader_of_imports_sees_groups_and_ignores_comments() {
    let text = "use crate::{clock, event::{Ask, Event}, secret::Secret};\n// crate::tui\nlet x = crate::store::Bucket;";
    assert_eq!(rooms_named(text), ["clock", "event", "secret", "store"]);
}

#[test]
fn nothing_else_stands_at_the_root() {
    let allowed =
        ["Cargo.toml", "Cargo.lock", "README.md", "LICENSE", "src", "runbooks", "themes", "recordings", "tests"];
    let visible = std::fs::read_dir(checkout()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let foreign: Vec<_> = visible
        .filter(|name| !name.starts_with('.') && name != "target" && !allowed.contains(&name.as_str()))
        .collect();
    assert!(foreign.is_empty(), "{foreign:?}");
}
