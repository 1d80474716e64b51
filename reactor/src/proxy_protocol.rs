//! The PROXY protocol, versions 1 (text) and 2 (binary): who the client behind a proxy is. From HAProxy's "The PROXY protocol, Versions 1 & 2".
//!
//! Pure: bytes in, addresses out. Reading a header before a connection's own bytes is what [`ServiceConfig::proxies`](crate::ServiceConfig::proxies) does.
//!
//! ```
//! use reactor::proxy_protocol::{Parsed, parse};
//!
//! let input = b"PROXY TCP4 192.0.2.7 192.0.2.1 4711 80\r\nhello";
//! let Ok(Parsed::Header(header)) = parse(input) else { panic!() };
//! assert_eq!(header.source, Some("192.0.2.7:4711".parse().unwrap()));
//! assert_eq!(&input[header.consumed..], b"hello");
//! ```

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The longest header of version 1, its line end included, as the specification computes it.
pub const V1_BYTES_MAX: usize = 107;
/// The longest header of version 2 that is taken. Addresses need 52 bytes at most (232 for Unix sockets), the rest is for extensions such as a TLS client's
/// name. The format allows 65,551, which is more than anybody who has yet to say who they are should make us keep.
pub const V2_BYTES_MAX: usize = 4_096;

const V1_START: &[u8] = b"PROXY ";
const V2_START: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// Signature, version and command, family and protocol, length.
const V2_FIXED_BYTES: usize = 16;

/// What the start of a connection's bytes is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// The beginning of a header.
    Incomplete {
        /// With fewer bytes than this the header is not whole; more than there are.
        wanted: usize,
    },
    /// A whole header.
    Header(Header),
}

/// Between whom the proxy relays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Header {
    /// The bytes that the header took; behind them are the client's.
    pub consumed: usize,
    /// The client's address. `None` when the proxy speaks for itself (`LOCAL`), does not know (`UNKNOWN`), or the client came over no IP socket.
    pub source: Option<SocketAddr>,
    /// The address that the client connected to.
    pub destination: Option<SocketAddr>,
}

/// Bytes that are no header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProxyError {
    /// They begin like neither version.
    #[error("no PROXY header")]
    NoHeader,
    /// The header is longer than may be.
    #[error("the PROXY header is too long")]
    TooLong,
    /// It begins like a header, and what follows is none.
    #[error("malformed PROXY header: {0}")]
    Malformed(&'static str),
}

/// Looks for a header at the start of `input`, the first bytes of a connection. The answer for some bytes is `Incomplete` for each shorter beginning of them.
///
/// # Errors
/// [`ProxyError`]: for bytes that begin like neither version at the first that is wrong, for others when the header is whole or above its limit.
pub fn parse(input: &[u8]) -> Result<Parsed, ProxyError> {
    let begins = |start: &[u8]| input.iter().zip(start).all(|(byte, wanted)| byte == wanted);
    if input.is_empty() {
        Ok(Parsed::Incomplete { wanted: 1 })
    } else if begins(V2_START) {
        parse_v2(input)
    } else if begins(V1_START) {
        parse_v1(input)
    } else {
        Err(ProxyError::NoHeader)
    }
}

fn parse_v1(input: &[u8]) -> Result<Parsed, ProxyError> {
    let seen = input.get(..input.len().min(V1_BYTES_MAX)).unwrap_or_default();
    let Some(end) = seen.iter().position(|byte| *byte == b'\n') else {
        return if input.len() < V1_BYTES_MAX {
            Ok(Parsed::Incomplete { wanted: input.len() + 1 })
        } else {
            Err(ProxyError::TooLong)
        };
    };
    let line = seen.get(..end).and_then(|line| line.strip_suffix(b"\r"));
    let line = line.ok_or(ProxyError::Malformed("the line does not end in CR LF"))?;
    let line = std::str::from_utf8(line).map_err(|_| ProxyError::Malformed("not text"))?;
    let (source, destination) = v1_addresses(line)?.unzip();
    Ok(Parsed::Header(Header { consumed: end + 1, source, destination }))
}

/// The addresses of a line without its end; `None` where the proxy knows none.
fn v1_addresses(line: &str) -> Result<Option<(SocketAddr, SocketAddr)>, ProxyError> {
    let mut words = line.split(' ').skip(1);
    let mut word = || words.next().unwrap_or_default();
    let family = word();
    if family == "UNKNOWN" {
        // Whatever follows is to be ignored.
        return Ok(None);
    }
    let (source, destination) = match family {
        "TCP4" => (v1_ip::<Ipv4Addr>(word())?, v1_ip::<Ipv4Addr>(word())?),
        "TCP6" => (v1_ip::<Ipv6Addr>(word())?, v1_ip::<Ipv6Addr>(word())?),
        _ => return Err(ProxyError::Malformed("unknown family")),
    };
    let (source_port, destination_port) = (v1_port(word())?, v1_port(word())?);
    if words.next().is_some() {
        return Err(ProxyError::Malformed("too many words"));
    }
    Ok(Some((SocketAddr::new(source, source_port), SocketAddr::new(destination, destination_port))))
}

fn v1_ip<A: std::str::FromStr + Into<IpAddr>>(word: &str) -> Result<IpAddr, ProxyError> {
    word.parse::<A>().map(Into::into).map_err(|_| ProxyError::Malformed("not an address of the family"))
}

/// A port as decimal digits, without sign or leading zero.
fn v1_port(word: &str) -> Result<u16, ProxyError> {
    let plain = word == "0" || word.starts_with(|digit: char| ('1'..='9').contains(&digit));
    let port = word.parse().ok().filter(|_| plain);
    port.ok_or(ProxyError::Malformed("not a port"))
}

fn parse_v2(input: &[u8]) -> Result<Parsed, ProxyError> {
    let Some((fixed, rest)) = input.split_at_checked(V2_FIXED_BYTES) else {
        return Ok(Parsed::Incomplete { wanted: V2_FIXED_BYTES });
    };
    let &[.., version_command, family, high, low] = fixed else { return Err(ProxyError::NoHeader) };
    let length = usize::from(u16::from_be_bytes([high, low]));
    let consumed = V2_FIXED_BYTES + length;
    if consumed > V2_BYTES_MAX {
        return Err(ProxyError::TooLong);
    }
    let local = match version_command {
        0x20 => true,
        0x21 => false,
        command if command >> 4 != 2 => return Err(ProxyError::Malformed("unknown version")),
        _ => return Err(ProxyError::Malformed("unknown command")),
    };
    if family >> 4 > 3 || family & 0x0f > 2 {
        return Err(ProxyError::Malformed("unknown family or protocol"));
    }
    let Some(block) = rest.get(..length) else { return Ok(Parsed::Incomplete { wanted: consumed }) };
    let addresses = if local { None } else { v2_addresses(family, block)? };
    let (source, destination) = addresses.unzip();
    Ok(Parsed::Header(Header { consumed, source, destination }))
}

/// The addresses at the start of a header's block; what follows them are extensions, which are passed over.
fn v2_addresses(family: u8, block: &[u8]) -> Result<Option<(SocketAddr, SocketAddr)>, ProxyError> {
    let short = ProxyError::Malformed("too short for its addresses");
    match family >> 4 {
        1 => {
            let block = block.first_chunk::<12>().ok_or(short)?;
            let [a, b, c, d, e, f, g, h, ports @ ..] = *block;
            Ok(Some(with_ports(Ipv4Addr::new(a, b, c, d).into(), Ipv4Addr::new(e, f, g, h).into(), ports)))
        }
        2 => {
            let (source, rest) = block.split_first_chunk::<16>().ok_or(short)?;
            let (destination, rest) = rest.split_first_chunk::<16>().ok_or(short)?;
            let ports = rest.first_chunk::<4>().ok_or(short)?;
            Ok(Some(with_ports(Ipv6Addr::from(*source).into(), Ipv6Addr::from(*destination).into(), *ports)))
        }
        3 if block.len() < 216 => Err(short),
        // Unspecified, or Unix sockets, which have no address that says who the client is.
        _ => Ok(None),
    }
}

fn with_ports(source: IpAddr, destination: IpAddr, ports: [u8; 4]) -> (SocketAddr, SocketAddr) {
    let [a, b, c, d] = ports;
    let port = |high, low| u16::from_be_bytes([high, low]);
    (SocketAddr::new(source, port(a, b)), SocketAddr::new(destination, port(c, d)))
}

/// Appends the header of version 1 for a client at `source` that connected to `destination`. Addresses of two families become `UNKNOWN`.
pub fn encode_v1(source: SocketAddr, destination: SocketAddr, out: &mut Vec<u8>) {
    let family = match (source, destination) {
        (SocketAddr::V4(_), SocketAddr::V4(_)) => "TCP4",
        (SocketAddr::V6(_), SocketAddr::V6(_)) => "TCP6",
        _ => return out.extend_from_slice(b"PROXY UNKNOWN\r\n"),
    };
    let (from, to) = (source.ip(), destination.ip());
    let line = format!("PROXY {family} {from} {to} {} {}\r\n", source.port(), destination.port());
    out.extend_from_slice(line.as_bytes());
}

/// Appends the header of version 2 for a client at `source` that connected to `destination`. Addresses of two families become unspecified.
pub fn encode_v2(source: SocketAddr, destination: SocketAddr, out: &mut Vec<u8>) {
    let mut block = Vec::new();
    let family = match (source.ip(), destination.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            block.extend([from.octets(), to.octets()].as_flattened());
            0x11
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            block.extend([from.octets(), to.octets()].as_flattened());
            0x21
        }
        _ => 0,
    };
    if family != 0 {
        block.extend([source.port().to_be_bytes(), destination.port().to_be_bytes()].as_flattened());
    }
    let length = u16::try_from(block.len()).unwrap_or(0);
    out.extend_from_slice(V2_START);
    out.extend_from_slice(&[0x21, family]);
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(&block);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn header(input: &[u8]) -> Header {
        match parse(input) {
            Ok(Parsed::Header(header)) => header,
            other => panic!("{other:?} of {input:?}"),
        }
    }

    /// A header of version 2 with these fields.
    fn v2(version_command: u8, family: u8, block: &[u8]) -> Vec<u8> {
        let mut bytes = V2_START.to_vec();
        bytes.extend([version_command, family]);
        bytes.extend(u16::try_from(block.len()).unwrap().to_be_bytes());
        bytes.extend(block);
        bytes
    }

    #[test]
    fn a_proxy_that_speaks_for_itself_names_nobody() {
        for input in [
            b"PROXY UNKNOWN\r\n".to_vec(),
            b"PROXY UNKNOWN ffff::1 whatever follows 1 2 3\r\n".to_vec(),
            v2(0x20, 0x11, &[1; 12]),
            v2(0x21, 0x00, &[]),
            v2(0x21, 0x31, &[7; 216]),
        ] {
            let header = header(&input);
            assert_eq!((header.consumed, header.source, header.destination), (input.len(), None, None));
        }
    }

    #[test]
    fn extensions_are_passed_over() {
        let mut block = vec![192, 0, 2, 7, 192, 0, 2, 1, 0x12, 0x67, 0, 80];
        block.extend([0x04, 0, 3, 1, 2, 3]);
        let header = header(&v2(0x21, 0x11, &block));
        assert_eq!(header.source, Some("192.0.2.7:4711".parse().unwrap()));
        assert_eq!(header.destination, Some("192.0.2.1:80".parse().unwrap()));
        assert_eq!(header.consumed, 16 + 18);
    }

    #[test]
    fn what_is_no_header_is_an_error_at_its_first_wrong_byte() {
        for (input, error) in [
            (&b"G"[..], ProxyError::NoHeader),
            (b"PROXX", ProxyError::NoHeader),
            (b"\r\n\r\n\0\r\nQUIX", ProxyError::NoHeader),
        ] {
            assert_eq!(parse(input), Err(error), "{input:?}");
            let before = &input[..input.len() - 1];
            assert!(matches!(parse(before), Ok(Parsed::Incomplete { .. })), "{before:?}");
        }
    }

    #[test]
    fn malformed_lines_are_refused() {
        for line in [
            "PROXY TCP4 192.0.2.7 192.0.2.1 4711 80\n",
            "PROXY TCP4 192.0.2.7 192.0.2.1 4711\r\n",
            "PROXY TCP4 192.0.2.7 192.0.2.1 4711 80 1\r\n",
            "PROXY TCP4 192.0.2.7  192.0.2.1 4711 80\r\n",
            "PROXY TCP4 ::1 ::1 4711 80\r\n",
            "PROXY TCP6 192.0.2.7 192.0.2.1 4711 80\r\n",
            "PROXY TCP4 192.0.2.7 192.0.2.1 65536 80\r\n",
            "PROXY TCP4 192.0.2.7 192.0.2.1 +1 80\r\n",
            "PROXY TCP4 192.0.2.7 192.0.2.1 01 80\r\n",
            "PROXY UDP4 192.0.2.7 192.0.2.1 1 80\r\n",
            "PROXY \r\n",
        ] {
            assert!(matches!(parse(line.as_bytes()), Err(ProxyError::Malformed(_))), "{line:?}");
        }
    }

    #[test]
    fn malformed_blocks_are_refused() {
        for input in [
            v2(0x11, 0x11, &[0; 12]),
            v2(0x22, 0x11, &[0; 12]),
            v2(0x21, 0x41, &[0; 12]),
            v2(0x21, 0x13, &[0; 12]),
            v2(0x21, 0x11, &[0; 11]),
            v2(0x21, 0x21, &[0; 35]),
            v2(0x21, 0x31, &[0; 215]),
        ] {
            assert!(matches!(parse(&input), Err(ProxyError::Malformed(_))), "{input:?}");
        }
    }

    #[test]
    fn nobody_makes_us_keep_more_than_the_limits() {
        let endless = [b"PROXY TCP6 ".as_slice(), &[b'f'; 200]].concat();
        assert!(matches!(parse(&endless[..V1_BYTES_MAX - 1]), Ok(Parsed::Incomplete { .. })));
        assert_eq!(parse(&endless[..V1_BYTES_MAX]), Err(ProxyError::TooLong));
        let long = v2(0x21, 0x11, &vec![0; V2_BYTES_MAX - 15]);
        assert_eq!(parse(&long[..16]), Err(ProxyError::TooLong), "by its length alone");
        assert!(matches!(parse(&v2(0x21, 0x11, &vec![0; V2_BYTES_MAX - 16])), Ok(Parsed::Header(_))));
    }

    fn address() -> impl Strategy<Value = SocketAddr> {
        prop_oneof![
            (any::<[u8; 4]>(), any::<u16>()).prop_map(|(ip, port)| SocketAddr::from((ip, port))),
            (any::<[u8; 16]>(), any::<u16>()).prop_map(|(ip, port)| SocketAddr::from((ip, port))),
        ]
    }

    proptest! {
        #[test]
        fn a_header_says_what_it_was_made_of_and_each_beginning_of_it_is_incomplete(
            (source, destination) in (address(), address()), version in 1..=2, behind in any::<Vec<u8>>(),
        ) {
            let mut input = Vec::new();
            if version == 1 {
                encode_v1(source, destination, &mut input);
            } else {
                encode_v2(source, destination, &mut input);
            }
            let len = input.len();
            for cut in 0..len {
                let Ok(Parsed::Incomplete { wanted }) = parse(&input[..cut]) else { panic!("cut at {cut}") };
                prop_assert!(cut < wanted && wanted <= len);
            }
            input.extend(behind);
            let header = header(&input);
            let known = (source.is_ipv4() == destination.is_ipv4()).then_some((source, destination));
            prop_assert_eq!((header.consumed, header.source, header.destination),
                (len, known.map(|(source, _)| source), known.map(|(_, destination)| destination)));
        }

        #[test]
        fn no_bytes_make_it_panic_or_take_more_than_there_are(
            start in prop_oneof![Just(V1_START), Just(V2_START), Just(&b""[..])], rest in any::<Vec<u8>>(),
        ) {
            let input = [start, &rest].concat();
            match parse(&input) {
                Ok(Parsed::Header(header)) => prop_assert!(header.consumed <= input.len()),
                Ok(Parsed::Incomplete { wanted }) => prop_assert!(wanted > input.len()),
                Err(_) => {}
            }
        }
    }
}
