//! A program's standing with the operating system and with whoever started it.

use std::io::Write as _;

/// Raises the soft descriptor limit to the hard one and says what it is now.
#[must_use]
pub fn raise_descriptor_limit() -> u64 {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    let hard = limit.maximum;
    if limit.current != hard {
        let before = limit.current;
        limit.current = hard;
        if setrlimit(Resource::Nofile, limit).is_err() {
            limit.current = before;
        }
    }
    limit.current.unwrap_or(u64::MAX)
}

/// A line for the operator, on standard error. Nothing is printed on stdout, and a closed stderr is no reason to end.
pub fn say(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}
