//! How many descriptors this process may have.

use rustix::process::{Resource, getrlimit, setrlimit};

/// Descriptors that are no connections: standard streams, the loop's own, files.
const RESERVED: u64 = 32;

/// Raises the soft descriptor limit to the hard one. Returns how many connections it leaves room for.
pub(crate) fn raise() -> u64 {
    let mut limit = getrlimit(Resource::Nofile);
    let before = limit.current;
    limit.current = limit.maximum;
    if limit.current != before && setrlimit(Resource::Nofile, limit).is_err() {
        limit.current = before;
    }
    limit.current.unwrap_or(u64::MAX).saturating_sub(RESERVED)
}
