//! Ends sessions of a ZooKeeper in the name of their owners, who are not told: what an expiry looks like from their side.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// How long the server may take to answer.
const ANSWER_MAX: Duration = Duration::from_secs(10);
/// The request that ends a session.
const CLOSE_SESSION: i32 = -11;
/// What the server mixes into a session's password, which follows from nothing else but the session's number.
const MIXED_IN: u64 = 0xb341_5c00;

/// Takes over the session of this number on a connection of its own and ends it. Its nodes are gone when this returns. Whether there was such a session.
pub(crate) fn end(server: SocketAddr, session: u64) -> io::Result<bool> {
    let mut stream = TcpStream::connect_timeout(&server, ANSWER_MAX)?;
    stream.set_read_timeout(Some(ANSWER_MAX))?;
    let mut hello = Vec::new();
    hello.extend(0_i32.to_be_bytes()); // the protocol's version
    hello.extend(0_i64.to_be_bytes()); // the last change that was seen
    hello.extend(10_000_i32.to_be_bytes()); // the timeout, in milliseconds
    hello.extend(session.to_be_bytes());
    hello.extend(16_i32.to_be_bytes());
    hello.extend(password(session));
    hello.push(0); // not only for reading
    let answer = ask(&mut stream, &hello)?;
    // Behind the version: the timeout that was agreed on, and none for a session that is not known.
    if answer.get(4..8).is_none_or(|timeout| timeout == [0; 4]) {
        return Ok(false);
    }
    let close = [1_i32.to_be_bytes(), CLOSE_SESSION.to_be_bytes()].concat();
    ask(&mut stream, &close)?;
    Ok(true)
}

/// Sends one packet and reads one.
fn ask(stream: &mut TcpStream, packet: &[u8]) -> io::Result<Vec<u8>> {
    let len = u32::try_from(packet.len()).map_err(io::Error::other)?;
    stream.write_all(&[&len.to_be_bytes(), packet].concat())?;
    let mut len = [0; 4];
    stream.read_exact(&mut len)?;
    let len = usize::try_from(u32::from_be_bytes(len)).map_err(io::Error::other)?;
    let mut answer = vec![0; len.min(1 << 20)];
    stream.read_exact(&mut answer)?;
    Ok(answer)
}

/// Sixteen bytes of Java's generator of random numbers (a linear congruential one of 48 bits), begun with the session's number.
fn password(session: u64) -> [u8; 16] {
    const FACTOR: u64 = 0x5_deec_e66d;
    const MASK: u64 = (1 << 48) - 1;
    let mut state = (session ^ MIXED_IN ^ FACTOR) & MASK;
    let mut bytes = [0; 16];
    for four in bytes.chunks_exact_mut(4) {
        state = state.wrapping_mul(FACTOR).wrapping_add(0xb) & MASK;
        // The upper 32 of the 48 bits, the lowest byte first.
        let number = u32::try_from(state >> 16).unwrap_or_default();
        four.copy_from_slice(&number.to_le_bytes());
    }
    bytes
}
