//! Servers as they are named on the command line.

use std::net::{SocketAddr, ToSocketAddrs as _};

use crate::directory::Directory;
use crate::failure::{Failure, usage};

/// The address that `HOST:PORT` stands for.
pub(crate) fn resolve(text: &str) -> Result<SocketAddr, Failure> {
    let found = text.to_socket_addrs().map_err(|error| Failure::Usage(format!("{text}: {error}")))?;
    found.into_iter().next().map_or_else(|| usage(format!("{text} has no address")), Ok)
}

/// One server, or the instances of a service, for which the directory is opened.
pub(crate) fn addresses(
    target: &str,
    directory: impl FnOnce() -> Result<Directory, Failure>,
) -> Result<Vec<SocketAddr>, Failure> {
    // Names of services have no colon; addresses have one.
    if target.contains(':') { Ok(vec![resolve(target)?]) } else { directory()?.callable(target) }
}
