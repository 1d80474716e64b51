//! The arrows between crates point down only. What a crate may depend on is written here; anything else fails.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "test code"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand, PackageId};

/// Each crate and the workspace's crates it may depend on. `testkit` stands nowhere but with `benches` and `xtask`: all others have it for
/// their tests only.
const ARROWS: &[(&str, &[&str])] = &[
    ("reactor", &[]),
    ("asynclog", &[]),
    ("schema", &[]),
    ("rpc-build", &[]),
    ("daemon", &["reactor"]),
    ("rpc", &["rpc-build", "reactor"]),
    ("rpcctl", &["rpc", "reactor"]),
    ("store", &["schema"]),
    // A library with a program beside it, which alone uses `daemon` and `asynclog`; a test below holds that.
    ("logd", &["rpc", "rpc-build", "store", "schema", "reactor", "daemon", "asynclog"]),
    ("chatd", &["logd", "rpc", "store", "reactor", "schema", "daemon", "asynclog"]),
    ("chatcli", &["reactor", "schema", "asynclog"]),
    ("benches", &["reactor", "rpc", "asynclog", "schema", "store", "logd", "testkit"]),
    ("testkit", &[]),
    ("xtask", &["testkit"]),
];

/// Crates that nothing depends on, not even a test: programs, and what is built on top of all the others.
const TOPS: &[&str] = &["rpcctl", "chatd", "chatcli", "benches", "xtask"];

/// Who may use the logging backend: programs, and the benches that measure it. Libraries use the `log` facade.
const MAY_USE_ASYNCLOG: &[&str] = &["chatd", "logd", "chatcli", "benches"];

/// Crates from outside that a crate may not have anywhere below it, and why.
const NEVER: &[(&str, &[&str], &str)] = &[
    (
        "reactor",
        &["prost", "rusqlite", "libsqlite3-sys", "mysql"],
        "the reactor knows no protobuf and no database",
    ),
    ("store", &["mio", "reactor"], "the store knows no event loop"),
    ("schema", &["mio", "reactor", "socket2", "chrono"], "the schema opens no socket and reads no clock"),
];

/// The same for direct dependencies alone: another crate's features may draw these in further below.
const NEVER_DIRECT: &[(&str, &[&str], &str)] =
    &[("reactor", &["serde", "serde_json", "prost"], "the reactor knows no format but frames of bytes")];

fn metadata() -> Metadata {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    // For this platform alone: the crates of others need not be on the machine.
    let options = ["--filter-platform", "host-tuple"].map(str::to_owned);
    MetadataCommand::new().manifest_path(root.join("Cargo.toml")).other_options(options).exec().unwrap()
}

fn allowed(name: &str) -> Option<&'static [&'static str]> {
    ARROWS.iter().find(|(crate_name, _)| *crate_name == name).map(|(_, to)| *to)
}

/// All edges between the workspace's crates: from, to, kind.
fn edges(metadata: &Metadata) -> Vec<(String, String, DependencyKind)> {
    let ours: BTreeSet<String> = metadata.workspace_packages().iter().map(|p| p.name.to_string()).collect();
    let mut edges = Vec::new();
    for package in metadata.workspace_packages() {
        for dependency in package.dependencies.iter().filter(|d| ours.contains(&d.name)) {
            edges.push((package.name.to_string(), dependency.name.clone(), dependency.kind));
        }
    }
    edges
}

#[test]
fn every_crate_of_the_workspace_has_its_place() {
    for package in metadata().workspace_packages() {
        assert!(allowed(&package.name).is_some(), "{} is not in the table of arrows", package.name);
        let folder = package.manifest_path.parent().unwrap().file_name().unwrap();
        assert_eq!(folder, package.name.as_str(), "a crate has the name of its folder");
    }
}

#[test]
fn the_table_itself_has_no_circle_and_no_arrow_onto_a_program() {
    // In the table's order each crate may be built from those that are known before it, or are support for tests.
    let mut known = BTreeSet::from(["testkit"]);
    for (name, to) in ARROWS {
        for target in *to {
            assert!(known.contains(target), "{name} -> {target} points up");
            assert!(!TOPS.contains(target), "{name} -> {target}: nothing depends on a program");
        }
        known.insert(name);
    }
}

#[test]
fn arrows_between_crates_point_down_only() {
    let mut wrong = Vec::new();
    for (from, to, kind) in edges(&metadata()) {
        let in_table = allowed(&from).is_some_and(|list| list.contains(&to.as_str()));
        let for_tests = kind == DependencyKind::Development && to == "testkit";
        if !in_table && !for_tests {
            wrong.push(format!("{from} -> {to} ({kind})"));
        }
    }
    assert!(wrong.is_empty(), "arrows that are not in the table:\n{}", wrong.join("\n"));
}

#[test]
fn only_programs_and_benches_use_the_logging_backend() {
    for (from, to, _) in edges(&metadata()) {
        assert!(
            to != "asynclog" || MAY_USE_ASYNCLOG.contains(&from.as_str()),
            "{from} uses asynclog; libraries use `log`"
        );
    }
}

#[test]
fn the_library_logd_uses_nothing_that_is_for_its_program() {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("logd/src");
    for entry in std::fs::read_dir(sources).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        for word in ["asynclog::", "daemon::", "clap::"] {
            assert!(!text.contains(word), "{} uses {word}", path.display());
        }
    }
}

#[test]
fn nothing_depends_on_a_program() {
    for (from, to, kind) in edges(&metadata()) {
        assert!(!TOPS.contains(&to.as_str()), "{from} -> {to} ({kind})");
    }
}

#[test]
fn crates_from_outside_stay_out_of_where_they_do_not_belong() {
    let metadata = metadata();
    let mut wrong = Vec::new();
    for package in metadata.workspace_packages() {
        let name = package.name.as_str();
        let below = below(&metadata, &package.id);
        let mut check = |never: &[&str], found: &BTreeSet<String>, why: &str| {
            for bad in never.iter().filter(|n| found.contains(**n)) {
                wrong.push(format!("{name} has {bad} below it: {why}"));
            }
        };
        for (_, never, why) in NEVER.iter().filter(|(crate_name, ..)| *crate_name == name) {
            check(never, &below, why);
        }
        let direct = || package.dependencies.iter().filter(|d| d.kind != DependencyKind::Development);
        let direct: BTreeSet<String> = direct().map(|d| d.name.clone()).collect();
        for (_, never, why) in NEVER_DIRECT.iter().filter(|(crate_name, ..)| *crate_name == name) {
            check(never, &direct, why);
        }
        if name != "benches" {
            check(&["tokio"], &below, "the reactor is ours; tokio is only measured against");
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The names of all that `start` is built from, dependencies for tests aside.
fn below(metadata: &Metadata, start: &PackageId) -> BTreeSet<String> {
    let resolve = metadata.resolve.as_ref().unwrap();
    let nodes: BTreeMap<&PackageId, _> = resolve.nodes.iter().map(|n| (&n.id, n)).collect();
    let mut seen = BTreeSet::from([start]);
    let mut todo = vec![start];
    while let Some(id) = todo.pop() {
        for dep in &nodes[id].deps {
            let built = dep
                .dep_kinds
                .iter()
                .any(|k| k.kind != DependencyKind::Development && k.target.as_ref().is_none_or(is_ordinary));
            if built && seen.insert(&dep.pkg) {
                todo.push(&dep.pkg);
            }
        }
    }
    seen.remove(start);
    seen.iter().map(|id| metadata[*id].name.to_string()).collect()
}

/// Whether a `[target.'…']` section counts for an ordinary build here: model checking under loom does not.
fn is_ordinary(platform: &cargo_metadata::cargo_platform::Platform) -> bool {
    !platform.to_string().contains("loom")
}
