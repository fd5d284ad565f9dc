//! Reads the room table of ARCHITECTURE.md and fails when the code does not keep to it.
#![expect(clippy::unwrap_used, reason = "a test")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// Longest source file, in lines, tests not counted.
const FILE_LINES_MAX: usize = 500;
/// The crates of the workspace, whose rooms are in the table.
const CRATES: [&str; 5] = ["shared", "gateway", "persister", "loadtest", "deploy"];
/// Packages that only the rooms which name them may touch: everything that waits, stores, or talks to the network.
const WATCHED: [&str; 15] = [
    "tokio",
    "tokio_util",
    "axum",
    "hyper",
    "hyper_util",
    "fastwebsockets",
    "redis",
    "deadpool_redis",
    "tokio_postgres",
    "deadpool_postgres",
    "rusqlite",
    "jsonwebtoken",
    "reqwest",
    "metrics",
    "clap",
];

struct Room {
    /// Its folder or file, without `.rs`, from the top of the repository.
    path: String,
    may_use: BTreeSet<String>,
}

fn top() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// Rows of the form ``| `crate/room` | what it does | `may`, `use` |``.
fn rooms() -> Vec<Room> {
    let text = fs::read_to_string(top().join("ARCHITECTURE.md")).unwrap();
    let row = |line: &str| {
        let cells: Vec<&str> = line.trim().trim_matches('|').split('|').map(str::trim).collect();
        let [path, _, may_use] = cells.as_slice() else { return None };
        let path = path.strip_prefix('`')?.strip_suffix('`')?;
        let may_use = may_use.split(',').filter_map(|name| name.trim().strip_prefix('`')?.strip_suffix('`'));
        Some(Room { path: path.to_owned(), may_use: may_use.map(str::to_owned).collect() })
    };
    text.lines().filter(|line| line.starts_with("| `")).filter_map(row).collect()
}

/// All files of a room with their text up to the tests.
fn files(room: &Room) -> Vec<(PathBuf, String)> {
    let (krate, name) = room.path.split_once('/').unwrap();
    let path = top().join(krate).join("src").join(name);
    let mut found = Vec::new();
    if path.is_dir() {
        walk(&path, &mut found);
    } else {
        found.push(path.with_extension("rs"));
    }
    let is_code = |path: &PathBuf| !path.to_string_lossy().ends_with("tests.rs");
    found.into_iter().filter(is_code).map(|path| (path.clone(), code(&path))).collect()
}

fn walk(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
        if entry.path().is_dir() {
            walk(&entry.path(), found);
        } else if entry.path().extension().is_some_and(|extension| extension == "rs") {
            found.push(entry.path());
        }
    }
}

/// The text without comments and without what follows `#[cfg(test)]`.
fn code(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let lines = text.lines().take_while(|line| !line.starts_with("#[cfg(test)]"));
    lines
        .filter(|line| !line.trim_start().starts_with("//"))
        .fold(String::new(), |all, line| all + line + "\n")
}

/// The names that directly follow `prefix::` anywhere in the code, in braces or not.
fn names_after(code: &str, prefix: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let is_word = |character: char| character.is_alphanumeric() || character == '_';
    for (at, _) in code.match_indices(&format!("{prefix}::")) {
        if code[..at]
            .chars()
            .next_back()
            .is_some_and(|before| is_word(before) || before == ':' || before == '/')
        {
            continue;
        }
        let rest = code[at + prefix.len() + 2..].trim_start();
        let mut heads = Vec::new();
        if let Some(group) = rest.strip_prefix('{') {
            let (mut depth, mut start) = (0, 0);
            for (at, character) in group.char_indices() {
                match character {
                    '{' => depth += 1,
                    '}' | ',' if depth == 0 => {
                        heads.push(&group[start..at]);
                        start = at + 1;
                        if character == '}' {
                            break;
                        }
                    }
                    '}' => depth -= 1,
                    _ => {}
                }
            }
        } else {
            heads.push(rest);
        }
        let word =
            |head: &str| head.trim_start().chars().take_while(|&letter| is_word(letter)).collect::<String>();
        names.extend(heads.into_iter().map(word).filter(|name| !name.is_empty()));
    }
    names
}

/// What a file uses: rooms as `crate/room`, and watched packages.
fn uses(krate: &str, code: &str, known: &BTreeSet<String>) -> BTreeSet<String> {
    let mut used = BTreeSet::new();
    let own = std::iter::once(("crate", krate));
    let others = CRATES.iter().map(|name| (*name, *name)).filter(|(_, name)| *name != krate);
    for (prefix, name) in own.chain(others) {
        let rooms = names_after(code, prefix).into_iter().map(|room| format!("{name}/{room}"));
        // A name that is no room is an item of the crate's root.
        used.extend(rooms.map(|room| if known.contains(&room) { room } else { name.to_owned() }));
    }
    used.remove(krate);
    // A room may have the name of a package, so imports of rooms are left out.
    let foreign = without_own_imports(code);
    let is_used = |name: &&&str| !names_after(&foreign, name).is_empty();
    used.extend(WATCHED.iter().filter(is_used).map(|name| (*name).to_owned()));
    used
}

fn without_own_imports(code: &str) -> String {
    let own = ["crate", "super", "self"].into_iter().chain(CRATES);
    let starts: Vec<String> = own.map(|name| format!("use {name}::")).collect();
    let is_own = |statement: &&str| starts.iter().any(|start| statement.contains(start.as_str()));
    code.split_inclusive(';').filter(|statement| !is_own(statement)).collect()
}

#[test]
fn rooms_use_only_what_the_table_allows() {
    let rooms = rooms();
    let known: BTreeSet<String> = rooms.iter().map(|room| room.path.clone()).collect();
    let mut wrong = Vec::new();
    for room in &rooms {
        let krate = room.path.split_once('/').unwrap().0;
        let mut needed = BTreeSet::new();
        for (path, code) in files(room) {
            let mut used = uses(krate, &code, &known);
            used.remove(&room.path);
            for name in used.difference(&room.may_use) {
                wrong.push(format!("{}: `{}` may not use `{name}`", path.display(), room.path));
            }
            needed.append(&mut used);
        }
        for name in room.may_use.difference(&needed) {
            wrong.push(format!("ARCHITECTURE.md: `{}` does not need `{name}`", room.path));
        }
    }
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
}

#[test]
fn every_room_is_in_the_table_and_has_a_door() {
    let rooms = rooms();
    let known: BTreeMap<&str, &Room> = rooms.iter().map(|room| (room.path.as_str(), room)).collect();
    let mut wrong = Vec::new();
    for krate in CRATES {
        for entry in fs::read_dir(top().join(krate).join("src")).unwrap().map(Result::unwrap) {
            let path = entry.path();
            let name = path.file_stem().unwrap().to_string_lossy().into_owned();
            let is_source = path.is_dir() || path.extension().is_some_and(|extension| extension == "rs");
            let is_root = ["lib", "main", "tests"].contains(&name.as_str());
            if is_source && !is_root && !known.contains_key(format!("{krate}/{name}").as_str()) {
                wrong.push(format!("`{krate}/{name}` is not in ARCHITECTURE.md"));
            }
            let door = if path.is_dir() { path.join("mod.rs") } else { path.clone() };
            if is_source
                && !fs::read_to_string(&door).is_ok_and(|text| text.starts_with("//!") || is_included(&text))
            {
                wrong.push(format!("{} does not say what it is for", door.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
    assert!(rooms.len() > 20, "the table was not read: {} rooms", rooms.len());
}

/// A door may also be a README that the module includes.
fn is_included(text: &str) -> bool {
    text.starts_with("#![doc")
}

#[test]
fn files_stay_readable() {
    let mut long = Vec::new();
    for room in rooms() {
        for (path, _) in files(&room) {
            let text = fs::read_to_string(&path).unwrap();
            let lines = text.lines().take_while(|line| !line.starts_with("#[cfg(test)]")).count();
            if lines > FILE_LINES_MAX {
                long.push(format!("{}: {lines} lines, at most {FILE_LINES_MAX}", path.display()));
            }
        }
    }
    assert!(long.is_empty(), "\n{}\n", long.join("\n"));
}

#[test]
fn the_scanner_sees_every_form_of_a_use() {
    let code =
        "use crate::{\n    a::{b, c},\n    d,\n};\nuse crate::e::F;\nlet x = crate::g::h();\nuse shared::i;";
    let names = names_after(code, "crate");
    assert_eq!(names.into_iter().collect::<Vec<_>>(), ["a", "d", "e", "g"]);
    assert_eq!(names_after(code, "shared").into_iter().collect::<Vec<_>>(), ["i"]);
    assert!(names_after(&without_own_imports("use crate::{redis::x, tokio};"), "redis").is_empty());
    assert!(names_after("use mytokio::x; tokio_util::y; a::tokio::z", "tokio").is_empty());
}
