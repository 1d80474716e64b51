//! `cargo xtask test`: cargo's own test run, from anywhere in the workspace.

use crate::shell::{self, Failure};

/// Runs `cargo test` with `args`, or for the whole workspace when there are none.
pub(crate) fn run(args: &[String]) -> Result<(), Failure> {
    let mut command = shell::cargo(["test"]);
    if args.is_empty() {
        command.arg("--workspace");
    }
    shell::run("cargo test", command.args(args))
}
