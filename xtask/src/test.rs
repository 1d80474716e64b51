//! `cargo xtask test`: cargo's own test run, from anywhere in the workspace, and the runs that break things.

use crate::faults;
use crate::shell::{self, Failure};

/// Runs `cargo test` with `args`, or for the whole workspace when there are none; `faults` is something else.
pub(crate) fn run(args: &[String]) -> Result<(), Failure> {
    if let Some((first, rest)) = args.split_first()
        && first == "faults"
    {
        return faults::run(rest);
    }
    let mut command = shell::cargo(["test"]);
    if args.is_empty() {
        command.arg("--workspace");
    }
    shell::run("cargo test", command.args(args))
}
