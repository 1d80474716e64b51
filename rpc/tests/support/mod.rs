//! What the tests of calls share: a service that does as it is told, a server of it, and a peer that speaks in raw frames.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    missing_docs,
    missing_debug_implementations,
    dead_code,
    unreachable_pub,
    reason = "test code; each test uses a part of it"
)]

use std::future::Future;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Wake};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, unbounded};
use prost::Message;
use reactor::{EventLoopThreadPool, LoopConfig};
use rpc::echo::{Counted, Delay, Echo, EchoClient, EchoServer, Failure, Payload};
use rpc::wire::{self, Header, Hello, Kind};
use rpc::{CallContext, Channel, ChannelConfig, Code, Reply, RunningServer, Server, ServerConfig, Status};

/// Longer than anything here takes.
pub const LONG: Duration = Duration::from_secs(30);

/// A call of `Wait`, held until the test answers it.
pub struct Parked {
    pub cx: CallContext,
    pub request: Delay,
    pub reply: Reply<Payload>,
}

/// Serves `Echo`. `Wait` gives its calls to the test.
pub struct Service {
    parked: Sender<Parked>,
    counted: Arc<AtomicU64>,
}

impl Echo for Service {
    fn say(&self, cx: CallContext, request: Payload, reply: Reply<Payload>) {
        match cx.metadata("suffix") {
            Some(suffix) => reply.send(Payload { data: [&request.data[..], suffix].concat() }),
            None => reply.send(request),
        }
    }

    fn count(&self, _: CallContext, _: Payload, reply: Reply<Counted>) {
        let calls = self.counted.fetch_add(1, Ordering::SeqCst) + 1;
        reply.send(Counted { calls });
    }

    fn wait(&self, cx: CallContext, request: Delay, reply: Reply<Payload>) {
        let _ = self.parked.send(Parked { cx, request, reply });
    }

    fn forget(&self, _: CallContext, _: Payload, _: Reply<Payload>) {}

    fn fail(&self, _: CallContext, request: Failure, reply: Reply<Payload>) {
        assert!(!request.panics, "a test's panic");
        reply.fail(
            Status::new(Code::from_number(request.code), request.message).with_details(request.details),
        );
    }
}

/// A server of the test's service, with what the test needs to steer it.
pub struct Fixture {
    pub server: RunningServer,
    pub parked: Receiver<Parked>,
    pub counted: Arc<AtomicU64>,
    /// The server's loops.
    pub pool: EventLoopThreadPool,
}

pub fn serve(config: ServerConfig) -> Fixture {
    serve_at("127.0.0.1:0".parse().unwrap(), config)
}

pub fn serve_at(address: SocketAddr, config: ServerConfig) -> Fixture {
    let pool = EventLoopThreadPool::start(2, LoopConfig::default()).unwrap();
    let (parked_in, parked) = unbounded();
    let counted = Arc::new(AtomicU64::new(0));
    let service = Service { parked: parked_in, counted: Arc::clone(&counted) };
    let server = Server::new(config).add(EchoServer(service)).unwrap().serve(&pool, address).unwrap();
    Fixture { server, parked, counted, pool }
}

impl Fixture {
    pub fn parked(&self) -> Parked {
        self.parked.recv_timeout(LONG).expect("a call of Wait")
    }

    /// How many calls of a method ended on the server, with this code.
    pub fn ended(&self, method: &str, code: Code) -> u64 {
        let all = self.server.metrics();
        let found = all.iter().find(|stats| stats.method.ends_with(method)).unwrap();
        found.by_code[code as usize]
    }
}

/// Client loops and a channel on them.
pub struct Caller {
    pub channel: Channel,
    pub client: EchoClient,
    pub pool: EventLoopThreadPool,
}

pub fn call_to(endpoints: &[SocketAddr], config: ChannelConfig) -> Caller {
    call_from(1, endpoints, config)
}

pub fn call_from(loops: u16, endpoints: &[SocketAddr], config: ChannelConfig) -> Caller {
    let pool = EventLoopThreadPool::start(loops, LoopConfig::default()).unwrap();
    let channel = Channel::to(pool.handles(), endpoints.iter().copied(), config).unwrap();
    Caller { client: EchoClient::new(channel.clone()), channel, pool }
}

pub fn payload(data: impl AsRef<[u8]>) -> Payload {
    Payload { data: data.as_ref().to_vec() }
}

pub fn delay(data: impl AsRef<[u8]>) -> Delay {
    Delay { millis: 0, data: data.as_ref().to_vec() }
}

/// The other end of a connection, in raw frames.
pub struct Raw {
    pub stream: TcpStream,
}

impl Raw {
    pub fn connect(address: SocketAddr) -> Self {
        Self::of(TcpStream::connect(address).unwrap())
    }

    pub fn of(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(LONG)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream }
    }

    /// Connects as a client and exchanges hellos.
    pub fn client(address: SocketAddr) -> Self {
        let mut raw = Self::connect(address);
        raw.send(&hello(), &[]);
        assert_eq!(raw.next().unwrap().0.kind(), Kind::Hello);
        raw
    }

    /// Accepts a client and exchanges hellos.
    pub fn server(listener: &TcpListener) -> Self {
        let mut raw = Self::of(listener.accept().unwrap().0);
        assert_eq!(raw.next().unwrap().0.kind(), Kind::Hello);
        raw.send(&hello(), &[]);
        raw
    }

    pub fn send(&mut self, header: &Header, body: &[u8]) {
        let mut out = Vec::new();
        wire::put_frame_raw(header, body, &mut out);
        self.stream.write_all(&out).unwrap();
    }

    pub fn send_bytes(&mut self, bytes: &[u8]) {
        // The other end may close in the middle of what it does not like.
        let _ = self.stream.write_all(bytes);
    }

    /// The next frame; `None` when the connection was closed or reset.
    pub fn next(&mut self) -> Option<(Header, Vec<u8>)> {
        let mut length = [0; 4];
        match self.stream.read_exact(&mut length) {
            Ok(()) => {}
            Err(error) => {
                assert!(
                    !matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut),
                    "neither a frame nor a close"
                );
                return None;
            }
        }
        let mut frame = vec![0; u32::from_be_bytes(length) as usize];
        self.stream.read_exact(&mut frame).ok()?;
        let frame = wire::parse(&frame).unwrap();
        Some((frame.header, frame.body.to_vec()))
    }

    /// The next frame that is no ping.
    pub fn next_call(&mut self) -> (Header, Vec<u8>) {
        loop {
            let (header, body) = self.next().expect("a frame");
            if header.kind() == Kind::Ping {
                self.send(&Header::of(Kind::Pong, header.call_id), &[]);
            } else {
                return (header, body);
            }
        }
    }

    pub fn answer(&mut self, call: u64, message: &impl Message) {
        self.send(&Header::of(Kind::Response, call), &message.encode_to_vec());
    }
}

pub fn hello() -> Header {
    let hello = Hello {
        version: 1,
        version_min: 1,
        features: vec!["of-the-future".into()],
        frame_bytes_max: 1 << 20,
        body_bytes_max: 1 << 22,
        in_flight_max: 100,
        name: "raw".into(),
    };
    Header { hello: Some(Box::new(hello)), ..Header::of(Kind::Hello, 0) }
}

pub fn request(call: u64, method: &str) -> Header {
    Header { method_id: rpc::method_id(method), ..Header::of(Kind::Request, call) }
}

/// Runs a future on this thread, as an executor of another house would.
pub fn block_on<F: Future>(future: F) -> F::Output {
    struct Unpark(std::thread::Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Arc::new(Unpark(std::thread::current())).into();
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => return output,
            Poll::Pending => std::thread::park(),
        }
    }
}
