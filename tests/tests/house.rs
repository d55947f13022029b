//! The house keeps its shape: who may import whom, what is pure, what is in the dependency tree.
//!
//! The arrows are those of ARCHITECTURE.md. A new one deserves a conversation first, then a line
//! there and one here.

#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Crate, and those of ours that it may name. `phlix` and `phlix-tests` stand above all.
const CRATES: &[(&str, &[&str])] = &[
    ("phlix-protocol", &[]),
    ("phlix-certs", &[]),
    ("phlix-link", &["phlix-protocol"]),
    ("phlix-fuzz", &["phlix-protocol", "phlix-relay-edge"]),
    ("phlix-control-plane", &["phlix-protocol", "phlix-certs"]),
    ("phlix-relay-edge", &["phlix-protocol", "phlix-certs", "phlix-link"]),
    ("phlix-server-agent", &["phlix-protocol", "phlix-certs", "phlix-link"]),
];

#[test]
fn crates_import_only_downwards() {
    let allowed: BTreeMap<&str, &[&str]> = CRATES.iter().copied().collect();
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let out = Command::new(cargo)
        .args(["metadata", "--format-version=1", "--no-deps", "--offline"])
        .current_dir(workspace())
        .output()
        .unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let metadata: Value = serde_json::from_slice(&out.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    let mut wrong = Vec::new();
    let mut known = BTreeSet::new();
    for package in packages {
        let name = package["name"].as_str().unwrap();
        known.insert(name.to_owned());
        if matches!(name, "phlix" | "phlix-tests") {
            continue;
        }
        let Some(may) = allowed.get(name) else {
            wrong.push(format!("{name} has no place in the house: say which crates it may import"));
            continue;
        };
        for dependency in package["dependencies"].as_array().unwrap() {
            let to = dependency["name"].as_str().unwrap();
            if to.starts_with("phlix") && !may.contains(&to) {
                wrong.push(format!("{name} -> {to}"));
            }
        }
    }
    for (name, _) in CRATES {
        assert!(known.contains(*name), "{name} is gone: take its line out");
    }
    assert!(wrong.is_empty(), "arrows that may not be:\n{}", wrong.join("\n"));
}

/// Rooms of a crate: a name, and the rooms that it may name. Modules that are no room compose them
/// (then no room may name them) or help them (then they name no room).
struct House {
    folder: &'static str,
    rooms: &'static [(&'static str, &'static [&'static str])],
}

const RELAY_EDGE: House = House {
    folder: "relay-edge/src",
    rooms: &[
        ("accept", &["road", "tunnels"]),
        ("road", &["tunnels", "uplink", "peers"]),
        ("tunnels", &["uplink"]),
        ("uplink", &[]),
        ("peers", &[]),
    ],
};

const CONTROL_PLANE: House = House {
    folder: "control-plane/src",
    rooms: &[
        // A plain read may go from http to store.
        ("http", &["app", "store", "domain"]),
        ("edges", &["app", "domain"]),
        ("jobs", &["app", "outbound", "domain"]),
        ("app", &["store", "outbound", "domain"]),
        ("store", &["domain"]),
        ("outbound", &["domain"]),
        ("domain", &[]),
    ],
};

#[test]
fn the_rooms_of_the_edge_import_only_downwards() {
    check_rooms(&RELAY_EDGE);
}

#[test]
fn the_rooms_of_the_control_plane_import_only_downwards() {
    check_rooms(&CONTROL_PLANE);
}

fn check_rooms(house: &House) {
    let root = workspace().join(house.folder);
    let rooms: BTreeMap<&str, &[&str]> = house.rooms.iter().copied().collect();
    // Module at the top -> the modules at the top that its files name, each with the file.
    let mut arrows: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
    for file in rust_files(&root) {
        let below = file.strip_prefix(&root).unwrap();
        let modules = module_path(below);
        let Some(from) = modules.first().cloned() else {
            continue; // lib.rs composes.
        };
        if from == "tests" {
            continue; // A harness may reach for all.
        }
        let text = code(&fs::read_to_string(&file).unwrap());
        for to in named(&text, &modules) {
            if to != from {
                let place = below.display().to_string();
                arrows.entry(from.clone()).or_default().entry(to).or_insert(place);
            }
        }
    }
    assert!(
        arrows.keys().any(|from| rooms.contains_key(from.as_str())),
        "found no room in {}: is this test blind?",
        house.folder
    );
    let composes: BTreeSet<&String> = arrows
        .iter()
        .filter(|(from, to)| !rooms.contains_key(from.as_str()) && to.keys().any(|to| rooms.contains_key(to.as_str())))
        .map(|(from, _)| from)
        .collect();
    let mut wrong = Vec::new();
    for (from, tos) in &arrows {
        let Some(may) = rooms.get(from.as_str()) else {
            continue;
        };
        for (to, place) in tos {
            let room_out_of_reach = rooms.contains_key(to.as_str()) && !may.contains(&to.as_str());
            if room_out_of_reach || composes.contains(to) {
                wrong.push(format!("{from} -> {to} ({}/{place})", house.folder));
            }
        }
    }
    assert!(wrong.is_empty(), "arrows that may not be:\n{}", wrong.join("\n"));
}

#[test]
fn sql_is_written_in_store_alone() {
    let root = workspace().join("control-plane/src");
    let wrong: Vec<String> = rust_files(&root)
        .into_iter()
        .filter(|file| {
            let below = file.strip_prefix(&root).unwrap();
            module_path(below).first().is_none_or(|room| room != "store" && room != "tests")
        })
        .filter(|file| {
            let text = code(&fs::read_to_string(file).unwrap());
            ["sqlx::query", "query_as(", "query_scalar(", "QueryBuilder"].iter().any(|sign| text.contains(sign))
        })
        .map(|file| file.display().to_string())
        .collect();
    assert!(wrong.is_empty(), "SQL outside store/: {wrong:?}");
}

#[test]
fn protocol_is_pure() {
    let forbidden = [
        "tokio",
        "SystemTime::now",
        "Instant::now",
        "std::net::TcpStream",
        "std::net::TcpListener",
        "std::net::UdpSocket",
        "std::fs",
        "std::env",
        "std::thread",
        "OsRng",
        "thread_rng",
        "rand::",
        "getrandom",
        "SystemRandom",
        "new_v4()",
    ];
    let mut wrong = Vec::new();
    // Tests may start a clock, also where they have a file of their own.
    let is_test =
        |file: &PathBuf| file.ends_with("tests.rs") || file.parent().is_some_and(|room| room.ends_with("tests"));
    for file in rust_files(&workspace().join("protocol/src")).into_iter().filter(|file| !is_test(file)) {
        let text = code(&fs::read_to_string(&file).unwrap());
        for word in forbidden {
            if text.contains(word) {
                wrong.push(format!("{}: {word}", file.display()));
            }
        }
    }
    let manifest = fs::read_to_string(workspace().join("protocol/Cargo.toml")).unwrap();
    let dependencies = manifest
        .split("[dev-dependencies]")
        .next()
        .unwrap()
        .lines()
        .filter_map(|line| line.split(['.', ' ', '=']).next());
    for dependency in dependencies {
        if ["tokio", "rand", "quinn", "hyper", "getrandom", "mio", "socket2"].contains(&dependency) {
            wrong.push(format!("protocol/Cargo.toml: {dependency}"));
        }
    }
    assert!(wrong.is_empty(), "protocol is not pure: {wrong:#?}");
}

#[test]
fn one_crypto_provider_and_no_openssl_in_the_tree() {
    // Cargo.lock also lists what only other platforms would use, so the tree of this one is asked.
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let out = Command::new(cargo)
        .args(["tree", "--workspace", "--offline", "--locked", "--prefix=none", "--format={p}", "--edges=all"])
        .current_dir(workspace())
        .output()
        .unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let tree = String::from_utf8(out.stdout).unwrap();
    let names: BTreeSet<&str> = tree.lines().filter_map(|line| line.split(' ').next()).collect();
    assert!(names.contains("aws-lc-rs"), "is this test blind?");
    for foreign in ["ring", "openssl", "openssl-sys", "native-tls"] {
        assert!(!names.contains(foreign), "{foreign}: see `cargo tree -i {foreign}`");
    }
}

#[test]
fn crates_with_advisories_are_new_enough() {
    for (name, least, advisory) in
        [("h2", [0, 4, 16], "RUSTSEC-2026-0258"), ("quinn-proto", [0, 11, 15], "RUSTSEC-2026-0185, RUSTSEC-2026-0037")]
    {
        let versions: Vec<_> = locked().into_iter().filter(|(n, _)| n == name).collect();
        assert!(!versions.is_empty(), "{name} is not used any more: take its line out");
        for (_, version) in versions {
            assert!(version >= least, "{name} {version:?} is older than {least:?}: {advisory}");
        }
    }
}

#[test]
fn nothing_is_left_undone_in_the_code() {
    let signs = ["todo!(", "unimplemented!(", "#[ignore"];
    let wrong: Vec<String> = ["src", "protocol", "certs", "relay-edge", "server-agent", "control-plane", "tests"]
        .iter()
        .flat_map(|folder| rust_files(&workspace().join(folder)))
        .filter(|file| !file.ends_with("tests/house.rs"))
        .filter(|file| {
            let text = code(&fs::read_to_string(file).unwrap());
            signs.iter().any(|sign| text.contains(sign))
        })
        .map(|file| file.display().to_string())
        .collect();
    assert!(wrong.is_empty(), "{signs:?} in {wrong:?}");
}

/// Name and version of every package in Cargo.lock.
fn locked() -> Vec<(String, [u64; 3])> {
    let lock = fs::read_to_string(workspace().join("Cargo.lock")).unwrap();
    let value = |block: &str, key: &str| {
        block.lines().find_map(|line| {
            let value = line.strip_prefix(key)?.strip_prefix(" = \"")?;
            Some(value.trim_end_matches('"').to_owned())
        })
    };
    lock.split("[[package]]")
        .skip(1)
        .map(|block| {
            let version = value(block, "version").unwrap();
            let mut numbers = version.split(['.', '-', '+']).map(|part| part.parse().unwrap_or(0));
            let version = std::array::from_fn(|_| numbers.next().unwrap_or(0));
            (value(block, "name").unwrap(), version)
        })
        .collect()
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display())) {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|ext| ext == "rs") {
                files.push(path);
            }
        }
    }
    files.sort();
    files
}

/// `road/admit.rs` -> road, admit; `road/mod.rs` and `road.rs` -> road; `lib.rs` -> nothing.
fn module_path(below: &Path) -> Vec<String> {
    let mut modules: Vec<String> =
        below.with_extension("").components().map(|part| part.as_os_str().to_string_lossy().into_owned()).collect();
    if matches!(modules.last().map(String::as_str), Some("mod" | "lib" | "main")) {
        modules.pop();
    }
    modules
}

/// The code without comments and without the tests at the foot, which may reach for more.
fn code(text: &str) -> String {
    text.split("\n#[cfg(test)]\nmod ")
        .next()
        .unwrap()
        .lines()
        .map(|line| {
            let trimmed = line.trim_start();
            if trimmed.starts_with("//") { "" } else { line }
        })
        .collect::<Vec<_>>()
        .join("\n")
}

/// The modules at the top of the crate that a file names, by `crate::x` or by enough `super::`.
fn named(text: &str, modules: &[String]) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (at, _) in text.match_indices("crate::") {
        // `phlix_crate::` ends so, too.
        let before = text[..at].chars().next_back();
        if !before.is_some_and(|c| c.is_alphanumeric() || c == '_') {
            heads(&text[at + "crate::".len()..], &mut found);
        }
    }
    // From a/b, `super::x` is a/x and `super::super::x` is x at the top.
    let up = "super::".repeat(modules.len());
    for (at, _) in text.match_indices(&up) {
        let continued = text[..at].ends_with("super::");
        if !continued && !text[at + up.len()..].starts_with("super::") {
            heads(&text[at + up.len()..], &mut found);
        }
    }
    found
}

/// The first identifiers of a path or of a group `{a::b, c}`.
fn heads(rest: &str, found: &mut BTreeSet<String>) {
    let identifier = |text: &str| -> String { text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect() };
    let Some(group) = rest.strip_prefix('{') else {
        found.insert(identifier(rest));
        return;
    };
    let (mut depth, mut fresh) = (0, true);
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => fresh = true,
            c if fresh && (c.is_alphanumeric() || c == '_') => {
                found.insert(identifier(&group[at..]));
                fresh = false;
            }
            _ => {}
        }
    }
}

#[test]
fn this_test_sees_every_spelling_of_an_arrow() {
    let modules = ["road".to_owned(), "admit".to_owned()];
    let text = code(
        "use crate::accept::Tls;\nuse crate::{tunnels::{self, Quic}, uplink};\n\
         fn f() { super::super::peers::ask(); super::carry::go() }\n// crate::metrics\n\
         use phlix_crate::nothing;\n#[cfg(test)]\nmod tests { use crate::limits; }",
    );
    let found: Vec<String> = named(&text, &modules).into_iter().collect();
    assert_eq!(found, ["accept", "peers", "tunnels", "uplink"]);
}
