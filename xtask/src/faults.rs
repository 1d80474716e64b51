//! `cargo xtask test faults`: things are broken in a private cluster while users write to each other.

use crate::setup;
use crate::shell::{self, Failure};

/// Builds the programs, and hands `args` to `faults`.
pub(crate) fn run(args: &[String]) -> Result<(), Failure> {
    setup::run()?;
    let build = ["build", "--release", "-p", "chatd", "--bin", "chatd", "-p", "logd", "--bin", "logd"];
    shell::run("the build", &mut shell::cargo(build))?;
    let mut command = shell::cargo(["run", "--quiet", "-p", "testkit", "--bin", "faults", "--"]);
    for program in ["chatd", "logd"] {
        command.arg(format!("--{program}")).arg(shell::release_dir().join(program));
    }
    shell::run("faults", command.args(args))
}
