//! A TCP proxy that does to connections what networks do: delays them, goes silent, cuts them.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// How often the threads look whether something was changed.
const LOOK: Duration = Duration::from_millis(5);

/// A proxy on a free loopback port, before one address. Everything it does to connections can be changed at any time, for those that are there and those that
/// come. Dropping it cuts them all and joins its threads.
#[derive(Debug)]
pub struct FaultProxy {
    address: SocketAddr,
    faults: Arc<Faults>,
    acceptor: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Faults {
    target: SocketAddr,
    ends: AtomicBool,
    /// Nothing passes, and nobody is told.
    silent: AtomicBool,
    /// New connections are accepted and nothing is done with them.
    hangs: AtomicBool,
    delay_ms: AtomicU64,
    /// Bytes that may still come from the target before the connection is cut; negative for no limit.
    answer_left: AtomicI64,
    /// Both ends of each connection, by its number.
    connections: Mutex<BTreeMap<u64, [TcpStream; 2]>>,
    accepted: AtomicU64,
}

impl FaultProxy {
    /// Starts one before `target`, which passes everything on.
    pub fn start(target: SocketAddr) -> FaultProxy {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("bind a loopback port");
        let address = listener.local_addr().expect("the port just bound");
        listener.set_nonblocking(true).expect("a listener that does not block");
        let faults = Arc::new(Faults {
            target,
            ends: AtomicBool::new(false),
            silent: AtomicBool::new(false),
            hangs: AtomicBool::new(false),
            delay_ms: AtomicU64::new(0),
            answer_left: AtomicI64::new(-1),
            connections: Mutex::new(BTreeMap::new()),
            accepted: AtomicU64::new(0),
        });
        let theirs = Arc::clone(&faults);
        let acceptor = std::thread::spawn(move || accept_all(&listener, &theirs));
        FaultProxy { address, faults, acceptor: Some(acceptor) }
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.address
    }

    /// How many connections it has accepted.
    pub fn accepted(&self) -> u64 {
        self.faults.accepted.load(Ordering::SeqCst)
    }

    /// Drops everything in silence, in both directions, as a cable that is pulled does. What was held back meanwhile is passed on afterwards.
    pub fn go_silent(&self, silent: bool) {
        self.faults.silent.store(silent, Ordering::SeqCst);
    }

    /// From now on new connections are accepted and never served.
    pub fn let_new_ones_hang(&self, hang: bool) {
        self.faults.hangs.store(hang, Ordering::SeqCst);
    }

    /// Holds everything up by so long, in each direction.
    pub fn delay(&self, by: Duration) {
        let millis = u64::try_from(by.as_millis()).unwrap_or(u64::MAX);
        self.faults.delay_ms.store(millis, Ordering::SeqCst);
    }

    /// Cuts the connection on which the target has answered so many bytes more, over all connections. The bytes before are passed on.
    pub fn cut_after_answer(&self, bytes: u32) {
        self.faults.answer_left.store(i64::from(bytes), Ordering::SeqCst);
    }

    /// Cuts all connections. New ones are served.
    pub fn cut_all(&self) {
        // Each is taken off the list by the threads that serve it.
        for end in self.faults.connections().values().flatten() {
            // One that has ended already is cut enough.
            let _ = end.shutdown(Shutdown::Both);
        }
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        self.faults.ends.store(true, Ordering::SeqCst);
        self.cut_all();
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
    }
}

impl Faults {
    fn connections(&self) -> MutexGuard<'_, BTreeMap<u64, [TcpStream; 2]>> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ends(&self) -> bool {
        self.ends.load(Ordering::SeqCst)
    }
}

fn accept_all(listener: &TcpListener, faults: &Arc<Faults>) {
    let mut pumps = Vec::new();
    // Held and not served.
    let mut hanging = Vec::new();
    while !faults.ends() {
        match listener.accept() {
            Ok((client, _)) => {
                let number = faults.accepted.fetch_add(1, Ordering::SeqCst);
                pumps.retain(|pump: &JoinHandle<()>| !pump.is_finished());
                if faults.hangs.load(Ordering::SeqCst) {
                    hanging.push(client);
                } else {
                    pumps.extend(serve(client, number, faults));
                }
            }
            Err(_) => std::thread::sleep(LOOK),
        }
    }
    for pump in pumps {
        let _ = pump.join();
    }
}

/// Both directions of one connection. None when the target takes no connection: then the client's is closed.
fn serve(client: TcpStream, number: u64, faults: &Arc<Faults>) -> Vec<JoinHandle<()>> {
    let Ok(server) = TcpStream::connect_timeout(&faults.target, Duration::from_secs(5)) else {
        return Vec::new();
    };
    let ready = |stream: &TcpStream| {
        stream.set_nonblocking(false)?;
        stream.set_nodelay(true)
    };
    let (Ok(()), Ok(()), Ok(client_too), Ok(server_too)) =
        (ready(&client), ready(&server), client.try_clone(), server.try_clone())
    else {
        return Vec::new();
    };
    let (Ok(one), Ok(other)) = (client.try_clone(), server.try_clone()) else { return Vec::new() };
    faults.connections().insert(number, [one, other]);
    if faults.ends() {
        // Dropped meanwhile: it cut all that it knew of.
        let _ = (client.shutdown(Shutdown::Both), server.shutdown(Shutdown::Both));
    }
    let (out, back) = (Arc::clone(faults), Arc::clone(faults));
    vec![
        std::thread::spawn(move || pump(client, server, number, &out, false)),
        std::thread::spawn(move || pump(server_too, client_too, number, &back, true)),
    ]
}

fn pump(mut from: TcpStream, mut to: TcpStream, number: u64, faults: &Faults, answers: bool) {
    let mut buffer = vec![0; 64 * 1024];
    while !faults.ends() {
        let count = match from.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(_) => break,
        };
        let delay = faults.delay_ms.load(Ordering::SeqCst);
        if delay > 0 {
            std::thread::sleep(Duration::from_millis(delay));
        }
        while faults.silent.load(Ordering::SeqCst) && !faults.ends() {
            std::thread::sleep(LOOK);
        }
        let (passed, cut) = if answers { allowed(faults, count) } else { (count, false) };
        if to.write_all(&buffer[..passed]).is_err() || cut {
            break;
        }
    }
    // Both, so that the other direction's thread ends as well.
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
    faults.connections().remove(&number);
}

/// How many of `count` bytes may pass, and whether the connection is cut behind them. The cut is made once.
fn allowed(faults: &Faults, count: usize) -> (usize, bool) {
    let left = faults.answer_left.load(Ordering::SeqCst);
    let Ok(left) = usize::try_from(left) else { return (count, false) };
    if count < left {
        faults.answer_left.fetch_sub(i64::try_from(count).unwrap_or(i64::MAX), Ordering::SeqCst);
        return (count, false);
    }
    faults.answer_left.store(-1, Ordering::SeqCst);
    (left, true)
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::wait_until;

    const LONG: Duration = Duration::from_secs(20);

    /// Answers each byte with itself, twice.
    fn doubler() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                std::thread::spawn(move || {
                    let mut stream = stream;
                    let mut byte = [0];
                    while stream.read(&mut byte).is_ok_and(|count| count == 1) {
                        if stream.write_all(&[byte[0], byte[0]]).is_err() {
                            return;
                        }
                    }
                });
            }
        });
        address
    }

    fn connect(proxy: &FaultProxy) -> TcpStream {
        let stream = TcpStream::connect(proxy.addr()).unwrap();
        stream.set_read_timeout(Some(LONG)).unwrap();
        stream
    }

    fn ask(stream: &mut TcpStream) -> std::io::Result<[u8; 2]> {
        stream.write_all(b"x")?;
        let mut answer = [0; 2];
        stream.read_exact(&mut answer)?;
        Ok(answer)
    }

    #[test]
    fn it_passes_on_delays_and_cuts() {
        let proxy = FaultProxy::start(doubler());
        let mut stream = connect(&proxy);
        assert_eq!(&ask(&mut stream).unwrap(), b"xx");
        proxy.delay(Duration::from_millis(30));
        let began = Instant::now();
        assert_eq!(&ask(&mut stream).unwrap(), b"xx");
        assert!(began.elapsed() >= Duration::from_millis(60), "once in each direction");
        proxy.delay(Duration::ZERO);
        proxy.cut_all();
        assert!(ask(&mut stream).is_err());
        assert_eq!(&ask(&mut connect(&proxy)).unwrap(), b"xx");
        assert_eq!(proxy.accepted(), 2);
    }

    #[test]
    fn it_cuts_in_the_middle_of_an_answer_once() {
        let proxy = FaultProxy::start(doubler());
        let mut stream = connect(&proxy);
        proxy.cut_after_answer(3);
        assert_eq!(&ask(&mut stream).unwrap(), b"xx");
        stream.write_all(b"x").unwrap();
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest);
        assert_eq!(rest, b"x", "half of the answer");
        assert_eq!(&ask(&mut connect(&proxy)).unwrap(), b"xx");
    }

    #[test]
    fn its_silence_is_silence_and_ends() {
        let proxy = FaultProxy::start(doubler());
        let mut stream = connect(&proxy);
        ask(&mut stream).unwrap();
        proxy.go_silent(true);
        stream.write_all(b"y").unwrap();
        stream.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        assert!(
            stream
                .read(&mut [0])
                .is_err_and(|e| matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut))
        );
        proxy.go_silent(false);
        stream.set_read_timeout(Some(LONG)).unwrap();
        let mut answer = [0; 2];
        stream.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"yy");
        proxy.let_new_ones_hang(true);
        let mut hanging = connect(&proxy);
        wait_until("it is accepted", LONG, || proxy.accepted() == 2);
        hanging.write_all(b"z").unwrap();
        hanging.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        assert!(hanging.read(&mut [0]).is_err());
    }
}
