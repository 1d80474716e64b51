//! A program of the workspace is found from another crate's tests, and built when it has to be.
#![allow(clippy::unwrap_used, missing_docs, reason = "test code")]

use std::process::Command;

#[test]
fn a_program_of_another_crate_is_there_to_be_run() {
    let path = testkit::bin("xtask");
    let output = Command::new(&path).arg("--version").output().unwrap();
    assert!(output.status.success(), "{} does not run", path.display());
    assert!(String::from_utf8_lossy(&output.stdout).contains(env!("CARGO_PKG_VERSION")));
    assert_eq!(testkit::bin("xtask"), path);
}
