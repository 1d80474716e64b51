//! Running other programs, with their output passed through.

use std::env;
use std::ffi::OsString;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Why a task ended early.
#[derive(Debug)]
pub(crate) enum Failure {
    /// A step ran and failed.
    Step(String),
    /// Something is not on this machine, or was asked for in a wrong way.
    Missing(String),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Step(text) | Failure::Missing(text) => f.write_str(text),
        }
    }
}

/// The workspace's folder.
pub(crate) fn root() -> &'static Path {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.parent().unwrap_or(own)
}

/// The cargo that runs this, at the workspace's root.
pub(crate) fn cargo<'a>(args: impl IntoIterator<Item = &'a str>) -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(args).current_dir(root());
    // Set for this process by the cargo that started it; a child that saw them would take them for its own package's.
    for (key, _) in env::vars_os() {
        if key.to_string_lossy().starts_with("CARGO_PKG_") || key == "CARGO_MANIFEST_DIR" {
            command.env_remove(key);
        }
    }
    command
}

/// Runs `command` with the output passed through and nothing to read.
pub(crate) fn run(name: &str, command: &mut Command) -> Result<(), Failure> {
    match command.stdin(Stdio::null()).status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(Failure::Step(format!("{name} failed ({status})"))),
        Err(e) => Err(could_not_run(command, &e)),
    }
}

/// Whether `program` is found in PATH.
pub(crate) fn has(program: &str) -> bool {
    let path: OsString = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).any(|dir| is_executable(&dir.join(program)))
}

pub(crate) fn could_not_run(command: &Command, e: &io::Error) -> Failure {
    Failure::Missing(format!("could not run {}: {e}", command.get_program().to_string_lossy()))
}

/// The folder of release programs.
pub(crate) fn release_dir() -> PathBuf {
    let target = env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from);
    // A relative one is relative to where cargo runs, which is the root.
    root().join(target).join("release")
}

fn is_executable(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    path.metadata().is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_found_in_the_path_or_not_at_all() {
        assert!(has("sh"));
        assert!(!has("a program that nobody has"));
    }

    #[test]
    fn a_failed_step_is_named() {
        let failure = run("the step", Command::new("sh").args(["-c", "exit 3"])).unwrap_err();
        assert_eq!(failure.to_string(), "the step failed (exit status: 3)");
        let failure = run("x", &mut Command::new("/nonexistent/program")).unwrap_err();
        assert!(matches!(failure, Failure::Missing(text) if text.contains("/nonexistent/program")));
    }

    #[test]
    fn the_root_is_the_workspace() {
        assert!(root().join("Cargo.lock").exists());
    }
}
