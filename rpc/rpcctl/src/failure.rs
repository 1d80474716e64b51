//! What ends the program early, and the exit code that tells of it.

use std::error::Error;
use std::fmt;
use std::process::ExitCode;

/// Why there is no result.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The person who typed the command can put it right: exit code 2.
    Usage(String),
    /// The command was right, and it did not succeed: exit code 1.
    Run(Box<dyn Error>),
}

impl Failure {
    pub(crate) fn exit_code(&self) -> ExitCode {
        match self {
            Self::Run(_) => ExitCode::FAILURE,
            Self::Usage(_) => ExitCode::from(2),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usage(text) => f.write_str(text),
            Self::Run(error) => error.fmt(f),
        }
    }
}

impl<E: Into<Box<dyn Error>>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Run(error.into())
    }
}

/// A mistake of who typed the command.
pub(crate) fn usage<T>(text: impl Into<String>) -> Result<T, Failure> {
    Err(Failure::Usage(text.into()))
}
