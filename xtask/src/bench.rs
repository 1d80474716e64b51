//! `cargo xtask bench`: chatload against a fresh release `chatd`.

use std::fs;
use std::path::Path;

use clap::{Args, ValueEnum};

use crate::server::Server;
use crate::shell::{self, Failure};

pub(crate) const HELP: &str = "Examples:
  cargo xtask bench                          both shapes
  cargo xtask bench --quick                  a short run, to see that it works
  cargo xtask bench pairs -- --users 50 --window 1

Each shape gets a server of its own with an empty data folder under target/bench, so on the disk of this folder.
The figures are also written to target/bench/chatload-SHAPE.json.";

/// Password hashing is not what is measured, and 10,000 logins at full strength would take minutes.
const CONFIG: &str = "[login]\nhash_memory_kib = 64\nhash_passes = 1\n";

/// What `cargo xtask bench` takes.
#[derive(Debug, Args)]
pub(crate) struct Bench {
    /// What to run; all when none is named
    shapes: Vec<Shape>,
    /// A short run, to see that it works
    #[arg(long)]
    quick: bool,
    /// Handed to chatload behind the shape's own arguments
    #[arg(last = true, value_name = "CHATLOAD ARGS")]
    args: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Shape {
    /// 200 users in pairs write to each other, 16 messages in flight each
    Pairs,
    /// 10,000 users are logged in and say nothing
    Idle,
}

impl Shape {
    fn name(self) -> &'static str {
        match self {
            Shape::Pairs => "pairs",
            Shape::Idle => "idle",
        }
    }

    /// chatload's arguments.
    fn args(self, quick: bool) -> &'static [&'static str] {
        match (self, quick) {
            (Shape::Pairs, false) => &["--users", "200", "--window", "16", "--seconds", "15"],
            (Shape::Pairs, true) => &["--users", "20", "--window", "16", "--seconds", "2"],
            (Shape::Idle, false) => &["--users", "10000", "--seconds", "10"],
            (Shape::Idle, true) => &["--users", "200", "--seconds", "2"],
        }
    }
}

/// Builds, and runs each shape against a server of its own.
pub(crate) fn run(bench: &Bench) -> Result<(), Failure> {
    shell::run("the build", &mut shell::cargo(["build", "--release", "-p", "chatd", "--bin", "chatd"]))?;
    shell::run("the build", &mut shell::cargo(["build", "--release", "-p", "benches", "--bin", "chatload"]))?;
    let folder = shell::root().join("target/bench");
    let shapes = if bench.shapes.is_empty() { &[Shape::Pairs, Shape::Idle] } else { bench.shapes.as_slice() };
    shapes.iter().try_for_each(|shape| load(*shape, bench, &folder))
}

fn load(shape: Shape, bench: &Bench, folder: &Path) -> Result<(), Failure> {
    println!("== {}", shape.name());
    fs::create_dir_all(folder)
        .map_err(|e| Failure::Step(format!("could not make {}: {e}", folder.display())))?;
    let server = Server::start(folder, None, CONFIG, &["--rate-limits", "off"])?;
    let mut command =
        shell::cargo(["run", "--quiet", "--release", "-p", "benches", "--bin", "chatload", "--"]);
    command.args(["--addr", &server.addr(), "--pid", &server.pid().to_string(), "--shape", shape.name()]);
    command.arg("--json").arg(folder.join(format!("chatload-{}.json", shape.name())));
    command.args(unless_given(shape.args(bench.quick), &bench.args)).args(&bench.args);
    shell::run(&format!("chatload, shape {}", shape.name()), &mut command)
}

/// The pairs of flag and value in `own` whose flag is not in `given`: a flag may be given only once.
fn unless_given<'a>(own: &'a [&'a str], given: &'a [String]) -> impl Iterator<Item = &'a str> {
    let is_given = |flag: &str| given.iter().any(|g| g == flag || g.starts_with(&format!("{flag}=")));
    own.chunks(2).filter(move |pair| !pair.first().is_some_and(|flag| is_given(flag))).flatten().copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_caller_gives_takes_the_place_of_the_shapes_own() {
        let own = Shape::Pairs.args(true);
        let given = ["--users=50".to_owned(), "--window".to_owned(), "1".to_owned()];
        assert_eq!(unless_given(own, &given).collect::<Vec<_>>(), ["--seconds", "2"]);
        assert_eq!(unless_given(own, &[]).count(), own.len());
    }
}
