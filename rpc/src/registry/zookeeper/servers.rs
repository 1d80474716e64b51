//! The servers of an ensemble, by names that may mean other addresses tomorrow.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::time::Duration;

use crossbeam_channel::bounded;

/// The entries of a list such as `10.0.0.1:2181,zk.example:2181`.
pub(super) fn parse(list: &str) -> io::Result<Vec<String>> {
    let servers: Vec<String> =
        list.split(',').map(str::trim).filter(|server| !server.is_empty()).map(str::to_owned).collect();
    let bad = |what: String| io::Error::new(io::ErrorKind::InvalidInput, what);
    if servers.is_empty() {
        return Err(bad("no ZooKeeper server is named".to_owned()));
    }
    match servers.iter().find(|server| !is_host_and_port(server)) {
        None => Ok(servers),
        Some(server) => Err(bad(format!("{server} is not HOST:PORT"))),
    }
}

fn is_host_and_port(server: &str) -> bool {
    let named = |(host, port): (&str, &str)| {
        !host.is_empty() && !host.contains([':', '/']) && port.parse::<u16>().is_ok_and(|port| port > 0)
    };
    server.parse::<SocketAddr>().is_ok() || server.rsplit_once(':').is_some_and(named)
}

/// The addresses of a server; none when its name cannot be looked up in time. The system gives no way to end a look-up, so it is left behind then.
pub(super) fn addresses(server: &str, at_most: Duration) -> Vec<SocketAddr> {
    if let Ok(address) = server.parse() {
        return vec![address];
    }
    let (tell, told) = bounded(1);
    let name = server.to_owned();
    let begun = std::thread::Builder::new().name("zk-lookup".to_owned()).spawn(move || {
        // Who asked may have stopped waiting.
        let _ = tell.send(name.to_socket_addrs().map(Iterator::collect));
    });
    match begun.ok().and_then(|_| told.recv_timeout(at_most).ok()) {
        Some(Ok(addresses)) => addresses,
        Some(Err(error)) => {
            log::warn!("ZooKeeper's {server} cannot be looked up: {error}");
            Vec::new()
        }
        None => {
            log::warn!("ZooKeeper's {server} was not looked up in time");
            Vec::new()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_hosts_and_ports_and_nothing_else() {
        assert_eq!(parse("a:1, 10.0.0.1:2 ,[::1]:3,").unwrap(), ["a:1", "10.0.0.1:2", "[::1]:3"]);
        for bad in ["", " , ", "a", "a:", ":1", "a:b", "a:70000", "a:0", "a:1/chroot", "::1"] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_name_is_looked_up_and_one_that_is_unknown_has_no_address() {
        let at_most = Duration::from_secs(30);
        assert_eq!(addresses("127.0.0.1:7", at_most), ["127.0.0.1:7".parse().unwrap()]);
        assert!(addresses("localhost:7", at_most).iter().all(|address| address.ip().is_loopback()));
        assert!(!addresses("localhost:7", at_most).is_empty());
        assert!(addresses("no..such..name:7", at_most).is_empty());
    }
}
