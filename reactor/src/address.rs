//! Addresses of the two ends of a connection, of whatever kind, in two machine words.

use std::fmt;
use std::net::{IpAddr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::path::{Path, PathBuf};

/// The address of one end of a connection: an IP address with its port, or a Unix socket's path.
///
/// ```
/// use reactor::Address;
///
/// let address = Address::from(std::net::SocketAddr::from(([127, 0, 0, 1], 80)));
/// assert_eq!(address.to_string(), "127.0.0.1:80");
/// assert_eq!(Address::unix("/run/chat.sock").to_string(), "unix:/run/chat.sock");
/// ```
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Address(Kind);

/// Small, for each connection keeps one: the rarer and longer kinds are boxed.
#[derive(Clone, PartialEq, Eq, Hash)]
enum Kind {
    V4(SocketAddrV4),
    V6(Box<SocketAddrV6>),
    Unix(Box<Path>),
    /// A Unix socket that was not bound to a path, as clients' are.
    UnixUnnamed,
}

const _: () = assert!(size_of::<Address>() <= 24);

impl Address {
    /// The Unix socket of a path.
    pub fn unix(path: impl Into<PathBuf>) -> Self {
        Self(Kind::Unix(path.into().into_boxed_path()))
    }

    /// The address of one end of a Unix socket as the system gave it: that of a path, or that of nobody.
    pub(crate) fn from_unix(address: &std::os::unix::net::SocketAddr) -> Self {
        address.as_pathname().map_or(Self(Kind::UnixUnnamed), Self::unix)
    }

    /// The IP address and port, unless it is a Unix socket's.
    #[must_use]
    pub fn socket_addr(&self) -> Option<SocketAddr> {
        match &self.0 {
            Kind::V4(v4) => Some(SocketAddr::V4(*v4)),
            Kind::V6(v6) => Some(SocketAddr::V6(**v6)),
            Kind::Unix(_) | Kind::UnixUnnamed => None,
        }
    }

    /// The IP address, unless it is a Unix socket's. An IPv4 address that came over an IPv6 socket (`::ffff:a.b.c.d`) is the IPv4 address, so that one
    /// client is one client on both.
    #[must_use]
    pub fn ip(&self) -> Option<IpAddr> {
        self.socket_addr().map(|address| address.ip().to_canonical())
    }

    /// The path of a Unix socket that has one.
    #[must_use]
    pub fn unix_path(&self) -> Option<&Path> {
        match &self.0 {
            Kind::Unix(path) => Some(path),
            Kind::V4(_) | Kind::V6(_) | Kind::UnixUnnamed => None,
        }
    }
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        Self(match address {
            SocketAddr::V4(v4) => Kind::V4(v4),
            SocketAddr::V6(v6) => Kind::V6(Box::new(v6)),
        })
    }
}

impl PartialEq<SocketAddr> for Address {
    fn eq(&self, other: &SocketAddr) -> bool {
        self.socket_addr() == Some(*other)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::V4(v4) => v4.fmt(f),
            Kind::V6(v6) => v6.fmt(f),
            Kind::Unix(path) => write!(f, "unix:{}", path.display()),
            Kind::UnixUnnamed => f.write_str("unix:(unnamed)"),
        }
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Address({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ipv4_client_is_the_same_over_an_ipv6_socket() {
        let plain: SocketAddr = "10.1.2.3:80".parse().unwrap();
        let mapped: SocketAddr = "[::ffff:10.1.2.3]:80".parse().unwrap();
        assert_eq!(Address::from(plain).ip(), Address::from(mapped).ip());
        assert_eq!(Address::from(mapped).socket_addr(), Some(mapped));
    }

    #[test]
    fn a_unix_address_is_no_ip_address() {
        let address = Address::unix("/tmp/x");
        assert_eq!((address.ip(), address.socket_addr()), (None, None));
        assert_eq!(address.unix_path(), Some(Path::new("/tmp/x")));
        assert_eq!(Address(Kind::UnixUnnamed).to_string(), "unix:(unnamed)");
    }
}
