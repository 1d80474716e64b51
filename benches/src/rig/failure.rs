//! Why a benchmark could not be run, in words for the person who runs it.

use std::fmt::Display;

/// A step that failed, in words. Nothing can be done about it but to tell.
pub type Failure = String;

/// Puts what was tried before what was said.
pub fn describe<E: Display>(what: impl Display) -> impl FnOnce(E) -> Failure {
    move |error| format!("{what}: {error}")
}
