//! What can go wrong while a test prepares its surroundings.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// An error of the test support itself or of what it started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TestkitError {
    /// The program could not be run at all.
    #[error("could not run {program}: {source}")]
    Spawn {
        /// What was to be run.
        program: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// The program ended before it was ready.
    #[error("{program} ended with {status} before it was ready\n--- its stderr ---\n{stderr}")]
    ExitedEarly {
        /// What was run.
        program: PathBuf,
        /// How it ended, in words.
        status: String,
        /// Its exit code, `None` when a signal ended it.
        code: Option<i32>,
        /// All it wrote to standard error.
        stderr: String,
    },
    /// The program runs but did not become ready in time.
    #[error("{program} was not ready after {after:?}\n--- its stderr ---\n{stderr}")]
    NotReady {
        /// What was run.
        program: PathBuf,
        /// How long it was waited for.
        after: Duration,
        /// What it wrote to standard error so far.
        stderr: String,
    },
    /// Nothing (or no whole line) arrived in time.
    #[error("nothing arrived within {after:?}")]
    Timeout {
        /// How long it was waited for.
        after: Duration,
    },
    /// A line arrived that is not JSON.
    #[error("a line is not JSON ({source}): {line}")]
    NotJson {
        /// The line.
        line: String,
        /// What the parser said.
        source: serde_json::Error,
    },
    /// Anything the operating system refused; a reset connection too.
    #[error("{what}: {source}")]
    Io {
        /// What was being done.
        what: String,
        /// The system's answer.
        source: io::Error,
    },
}

impl TestkitError {
    pub(crate) fn io(what: impl Into<String>, source: io::Error) -> TestkitError {
        TestkitError::Io { what: what.into(), source }
    }

    /// What the program had written to standard error, for the variants that carry it; else empty.
    pub fn stderr(&self) -> &str {
        match self {
            TestkitError::ExitedEarly { stderr, .. } | TestkitError::NotReady { stderr, .. } => stderr,
            _ => "",
        }
    }

    /// The exit code of a program that ended before it was ready.
    pub fn exit_code(&self) -> Option<i32> {
        match self {
            TestkitError::ExitedEarly { code, .. } => *code,
            _ => None,
        }
    }
}
