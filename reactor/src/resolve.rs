//! Where a client connects to, and looking up names without holding up a loop.

use std::fmt;
use std::net::{SocketAddr, ToSocketAddrs};
use std::str::FromStr;

use crate::address::Address;
use crate::handle::LoopHandle;

/// Where to connect to: an address, or a host's name that is looked up for each attempt.
///
/// ```
/// use reactor::Endpoint;
///
/// assert_eq!("chat.example.org:6000".parse(), Ok(Endpoint::Name { host: "chat.example.org".into(), port: 6000 }));
/// assert!(matches!("127.0.0.1:6000".parse(), Ok(Endpoint::Address(_))));
/// assert!(matches!("unix:/run/chat.sock".parse(), Ok(Endpoint::Address(_))));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Endpoint {
    /// An address as it is.
    Address(Address),
    /// A name for the system's resolver.
    Name {
        /// The host.
        host: String,
        /// The port.
        port: u16,
    },
}

/// A text that is no endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an endpoint: expected HOST:PORT, ADDRESS:PORT or unix:PATH")]
pub struct BadEndpoint;

impl From<SocketAddr> for Endpoint {
    fn from(address: SocketAddr) -> Self {
        Self::Address(address.into())
    }
}

impl From<Address> for Endpoint {
    fn from(address: Address) -> Self {
        Self::Address(address)
    }
}

impl FromStr for Endpoint {
    type Err = BadEndpoint;

    fn from_str(text: &str) -> Result<Self, BadEndpoint> {
        if let Some(path) = text.strip_prefix("unix:") {
            return if path.is_empty() { Err(BadEndpoint) } else { Ok(Self::Address(Address::unix(path))) };
        }
        if let Ok(address) = text.parse::<SocketAddr>() {
            return Ok(address.into());
        }
        let (host, port) = text.rsplit_once(':').ok_or(BadEndpoint)?;
        let port = port.parse().map_err(|_| BadEndpoint)?;
        // What has a colon left is an IPv6 address without brackets, or nonsense.
        if host.is_empty() || host.contains([':', '[', ']']) {
            return Err(BadEndpoint);
        }
        Ok(Self::Name { host: host.to_owned(), port })
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Name { host, port } => write!(f, "{host}:{port}"),
        }
    }
}

/// What a look-up ended with: addresses, in the system's order of preference, or what the system says.
pub(crate) type LookUp = Result<Vec<SocketAddr>, String>;

/// Looks a name up on a thread of its own, for the system's resolver blocks and cannot be stopped. The outcome is posted to the client of `service`, with
/// the number of the attempt, which by then may be over.
pub(crate) fn look_up(
    handle: LoopHandle,
    service: u8,
    attempt: u64,
    host: String,
    port: u16,
) -> std::io::Result<()> {
    let work = move || {
        let found = (host.as_str(), port).to_socket_addrs();
        let found = found.map(Iterator::collect::<Vec<_>>).map_err(|error| error.to_string());
        let found = found.and_then(|all| if all.is_empty() { Err("no address".to_owned()) } else { Ok(all) });
        // A loop that takes nothing more, or nothing now, has given the attempt up or will by its timeout.
        if let Err(error) = handle.looked_up(service, attempt, found) {
            log::debug!("the outcome of a look-up was not taken: {error}");
        }
    };
    // One thread for each client that is between two connections, for as long as the system takes.
    std::thread::Builder::new().name("resolve".to_owned()).spawn(work).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_that_are_no_endpoints_are_refused() {
        for text in ["", "host", ":80", "host:", "host:99999", "unix:", "::1:80", "[::1:80", "a:b:80"] {
            assert_eq!(text.parse::<Endpoint>(), Err(BadEndpoint), "{text}");
        }
    }

    #[test]
    fn endpoints_are_written_as_they_are_read() {
        for text in ["host:80", "127.0.0.1:80", "[::1]:80", "unix:/run/x"] {
            assert_eq!(text.parse::<Endpoint>().unwrap().to_string(), text);
        }
    }
}
