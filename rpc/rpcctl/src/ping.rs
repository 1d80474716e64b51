//! Says hello and pings, in plain frames: nothing of a channel's patience is in the way.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use rpc::wire::{self, Header, Hello, Kind};

use crate::failure::Failure;

/// The longest frame that is taken.
const FRAME_BYTES_MAX: u32 = 1 << 20;

/// Pings all; fails at the end when one did not answer.
pub(crate) fn run(addresses: &[SocketAddr], count: u32, timeout: Duration) -> Result<(), Failure> {
    let mut silent = Vec::new();
    for address in addresses {
        if let Err(failure) = ping(*address, count, timeout) {
            silent.push(format!("{address}: {failure}"));
        }
    }
    if silent.is_empty() { Ok(()) } else { Err(silent.join("; ").into()) }
}

fn ping(address: SocketAddr, count: u32, timeout: Duration) -> Result<(), Failure> {
    let mut stream = TcpStream::connect_timeout(&address, timeout)?;
    stream.set_read_timeout(Some(timeout))?;
    stream.set_write_timeout(Some(timeout))?;
    stream.set_nodelay(true)?;
    let hello = Hello {
        version: wire::VERSION,
        version_min: wire::VERSION,
        frame_bytes_max: FRAME_BYTES_MAX,
        name: "rpcctl".to_owned(),
        ..Hello::default()
    };
    let hello = Header { hello: Some(Box::new(hello)), ..Header::of(Kind::Hello, 0) };
    let theirs = ask(&mut stream, &hello, Kind::Hello)?.hello.unwrap_or_default();
    println!("{address} is \"{}\", protocol {} to {}", theirs.name, theirs.version_min, theirs.version);
    for number in 1..=u64::from(count) {
        let began = Instant::now();
        let pong = ask(&mut stream, &Header::of(Kind::Ping, number), Kind::Pong)?;
        if pong.call_id != number {
            return Err("it answered another ping".into());
        }
        println!("{number}: {:.3} ms", began.elapsed().as_secs_f64() * 1e3);
    }
    Ok(())
}

/// Sends a frame and waits for one of this kind.
fn ask(stream: &mut TcpStream, header: &Header, wanted: Kind) -> Result<Header, Failure> {
    stream.write_all(&wire::frame_of(header))?;
    loop {
        let mut length = [0; wire::LENGTH_BYTES];
        stream.read_exact(&mut length)?;
        let length = u32::from_be_bytes(length);
        if length > FRAME_BYTES_MAX {
            return Err("it does not speak this protocol: a frame of that length cannot be".into());
        }
        let mut frame = vec![0; usize::try_from(length)?];
        stream.read_exact(&mut frame)?;
        let header = wire::parse(&frame)?.header;
        if header.kind() == wanted {
            return Ok(header);
        }
    }
}
