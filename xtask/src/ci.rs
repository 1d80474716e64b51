//! `cargo xtask ci`: all that has to be green.

use std::io::{self, Write as _};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::setup;
use crate::shell::{self, Failure};

/// One step: its name and what it does.
struct Step {
    name: &'static str,
    run: fn() -> Result<(), Failure>,
}

/// What is off by default and checked all the same.
const FEATURES: &str = "reactor/test-util,reactor/tls";

const STEPS: &[Step] = &[
    Step { name: "setup", run: setup::run },
    Step { name: "format", run: || cargo("format", &["fmt", "--all", "--check"], &[]) },
    Step {
        name: "lints",
        run: || {
            let args =
                ["clippy", "--workspace", "--features", FEATURES, "--all-targets", "--", "-D", "warnings"];
            cargo("lints", &args, &[])
        },
    },
    Step { name: "tests", run: || cargo("tests", &["test", "--workspace", "--features", FEATURES], &[]) },
    Step { name: "models", run: models },
    Step {
        name: "docs",
        run: || {
            let args = ["doc", "--workspace", "--features", FEATURES, "--no-deps"];
            cargo("docs", &args, &[("RUSTDOCFLAGS", "-D warnings")])
        },
    },
];

/// Runs the steps in order and stops at the first that fails.
pub(crate) fn run() -> Result<(), Failure> {
    run_steps(STEPS)
}

fn run_steps(steps: &[Step]) -> Result<(), Failure> {
    let start = Instant::now();
    for (n, step) in steps.iter().enumerate() {
        announce(&format!("== {} ({} of {})", step.name, n + 1, steps.len()));
        let began = Instant::now();
        if let Err(failure) = (step.run)() {
            announce(&format!("== {}: {failure}", step.name));
            return Err(match failure {
                Failure::Step(_) => Failure::Step(format!("ci failed at: {}", step.name)),
                missing @ Failure::Missing(_) => missing,
            });
        }
        announce(&format!("== {}: ok, {}", step.name, seconds(began.elapsed())));
    }
    announce(&format!("== ci is green, {}", seconds(start.elapsed())));
    Ok(())
}

/// The cross-thread wake-up and the closing of queues are checked in all its interleavings by loom. In a target folder of its own: the flag would otherwise
/// rebuild everything twice.
fn models() -> Result<(), Failure> {
    let flags = [("RUSTFLAGS", "--cfg loom"), ("CARGO_TARGET_DIR", "target/loom")];
    let args = ["test", "-p", "reactor", "-p", "asynclog", "--lib", "--release", "loom_tests"];
    cargo("models", &args, &flags)?;
    // A filter that matches nothing is green to cargo, and to nobody else.
    let mut list = shell::cargo(args.into_iter().chain(["--quiet", "--", "--list"]));
    let listed = list.envs(flags).output().map_err(|e| shell::could_not_run(&list, &e))?;
    if String::from_utf8_lossy(&listed.stdout).lines().any(|line| line.ends_with(": test")) {
        Ok(())
    } else {
        Err(Failure::Step("no model was found to check".into()))
    }
}

fn cargo(name: &str, args: &[&str], env: &[(&str, &str)]) -> Result<(), Failure> {
    announce(&format!("   {}", line(args, env)));
    let mut command: Command = shell::cargo(args.iter().copied());
    shell::run(name, command.envs(env.iter().copied()))
}

/// The command as one would type it.
fn line(args: &[&str], env: &[(&str, &str)]) -> String {
    let env: String = env
        .iter()
        .map(|(k, v)| if v.contains(' ') { format!("{k}=\"{v}\" ") } else { format!("{k}={v} ") })
        .collect();
    format!("{env}cargo {}", args.join(" "))
}

fn announce(text: &str) {
    println!("{text}");
    // Before the step's own output, also when both go to a file.
    let _ = io::stdout().flush();
}

fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};

    #[test]
    fn the_first_failure_ends_the_run_and_is_named() {
        static RUNS: AtomicU32 = AtomicU32::new(0);
        let count = || {
            RUNS.fetch_add(1, Ordering::Relaxed);
            Ok(())
        };
        let steps = [
            Step { name: "one", run: count },
            Step { name: "two", run: || Err(Failure::Step("it broke".into())) },
            Step { name: "three", run: count },
        ];
        let failure = run_steps(&steps).unwrap_err();
        assert_eq!(failure.to_string(), "ci failed at: two");
        assert_eq!(RUNS.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn a_command_is_shown_as_one_would_type_it() {
        assert_eq!(
            line(
                &["test", "-p", "reactor"],
                &[("RUSTFLAGS", "--cfg loom"), ("CARGO_TARGET_DIR", "target/loom")]
            ),
            "RUSTFLAGS=\"--cfg loom\" CARGO_TARGET_DIR=target/loom cargo test -p reactor"
        );
    }
}
