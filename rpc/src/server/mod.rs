//! Serves services on the loops of a pool.

mod conn;
mod handler;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crossbeam_channel::RecvTimeoutError;
use parking_lot::Mutex;
use reactor::{EventLoop, EventLoopThreadPool, ServiceConfig, ServiceHandle, ServiceSlot, TcpServer};

use crate::metrics::{LoopMetrics, MethodStats};
use crate::reflection::{Described, ReflectionServer};
use crate::reply::Answer;
use crate::service::{Routes, Service};
use crate::wire::FRAME_BYTES_MIN;

use handler::ServerHandler;

/// Posts that may wait for one loop. Each call under way answers with one at most, so answers always find room.
const POSTS_MAX: usize = 65_536;
/// What a configuration may ask for at most in calls under way on one loop.
const IN_FLIGHT_MAX: usize = POSTS_MAX / 2;

/// What other threads tell a loop's handler.
pub(crate) enum Post {
    Answer(Answer),
    /// The handle of the handler's own loop, for one that was made before it.
    Link(ServiceHandle<Post>),
    /// Ask all clients to leave; close what is still there after so long, and drop the sender when nobody is left.
    Drain(Duration, crossbeam_channel::Sender<()>),
}

/// The limits of a server, each with its reason.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ServerConfig {
    /// What the server calls itself to its clients.
    pub name: String,
    /// The longest frame that is read. Long bodies come in pieces, so this need not grow with them.
    pub frame_bytes_max: usize,
    /// The longest request, in bytes.
    pub body_bytes_max: usize,
    /// Calls under way on one connection, and on one loop; more are refused at once. The second is at most 32,768.
    pub in_flight_per_connection_max: u32,
    /// See `in_flight_per_connection_max`.
    pub in_flight_per_loop_max: usize,
    /// Bytes of long answers that may wait for one connection.
    pub outgoing_bytes_max: usize,
    /// How long a client may be silent. Clients ping every few seconds.
    pub silence_max: Duration,
    /// How long a new connection may take to say hello.
    pub hello_timeout: Duration,
    /// The limits of the connections below. Its idle time and its output limits are set from the fields above.
    pub connection: ServiceConfig,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            name: "rpc".to_owned(),
            frame_bytes_max: 256 * 1024,
            body_bytes_max: 4 * 1024 * 1024,
            in_flight_per_connection_max: 1024,
            in_flight_per_loop_max: 16 * 1024,
            outgoing_bytes_max: 64 * 1024 * 1024,
            silence_max: Duration::from_secs(60),
            hello_timeout: Duration::from_secs(10),
            connection: ServiceConfig::default(),
        }
    }
}

impl ServerConfig {
    fn checked(mut self) -> Self {
        self.frame_bytes_max = self.frame_bytes_max.clamp(FRAME_BYTES_MIN, 1 << 30);
        self.in_flight_per_loop_max = self.in_flight_per_loop_max.clamp(1, IN_FLIGHT_MAX);
        self.connection.idle_read = Some(self.silence_max);
        self
    }
}

/// Services that are to be served.
///
/// ```
/// use reactor::{EventLoopThreadPool, LoopConfig};
/// use rpc::echo::{EchoClient, MockEcho, Payload, EchoServer};
/// use rpc::{Channel, ChannelConfig, Server, ServerConfig};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let pool = EventLoopThreadPool::start(1, LoopConfig::default())?;
/// let echo = EchoServer(MockEcho::new().on_say(|request| Ok(request)));
/// let server = Server::new(ServerConfig::default()).add(echo)?.serve(&pool, "127.0.0.1:0".parse()?)?;
///
/// let channel = Channel::to(pool.handles(), [server.local_addr()], ChannelConfig::default())?;
/// let answer = EchoClient::new(channel).say(&Payload { data: b"hello".to_vec() }).wait()?;
/// assert_eq!(answer.data, b"hello");
/// # Ok(())
/// # }
/// ```
pub struct Server {
    config: ServerConfig,
    routes: Routes,
    services: Vec<Arc<dyn Service>>,
}

impl Server {
    /// A server of nothing yet.
    #[must_use]
    pub fn new(config: ServerConfig) -> Self {
        Self { config: config.checked(), routes: Routes::default(), services: Vec::new() }
    }

    /// Adds what every server has: [`crate::reflection`].
    fn with_reflection(self) -> io::Result<Self> {
        let infos = self.services.iter().map(|service| service.info()).collect();
        self.add(ReflectionServer(Described::new(infos)))
    }

    /// Adds a service.
    ///
    /// # Errors
    /// When a method of another service has the same id as one of this; its name is in the error.
    #[expect(clippy::should_implement_trait, reason = "it adds a service, not a number")]
    pub fn add(mut self, service: impl Service) -> io::Result<Self> {
        let service: Arc<dyn Service> = Arc::new(service);
        self.routes.add(&service).map_err(|path| {
            io::Error::new(
                io::ErrorKind::AlreadyExists,
                format!("the id of {path} is taken by another method"),
            )
        })?;
        self.services.push(service);
        Ok(self)
    }

    /// Binds `address` and serves on all loops of `pool`. Port 0 takes a free one.
    ///
    /// # Errors
    /// When the address cannot be bound or a loop does not take the service.
    pub fn serve(self, pool: &EventLoopThreadPool, address: SocketAddr) -> io::Result<RunningServer> {
        let listener = TcpServer::bind(address, self.config.connection.clone())?;
        self.serve_on(pool.service_slots(POSTS_MAX), listener)
    }

    /// Serves what is bound already, on the loops of `slots`.
    ///
    /// # Errors
    /// When a loop does not take the service.
    fn serve_on(self, slots: Vec<ServiceSlot<Post>>, listener: TcpServer) -> io::Result<RunningServer> {
        let shared = Arc::new(Shared::new(self.with_reflection()?));
        let handles: Vec<ServiceHandle<Post>> = slots.iter().map(ServiceSlot::handle).collect();
        let for_loops = (Arc::clone(&shared), handles.clone());
        let running = listener.serve_on(slots, move |loop_index| {
            let (shared, handles) = &for_loops;
            let own = handles.iter().find(|handle| handle.loop_index() == loop_index);
            ServerHandler::new(Arc::clone(shared), own.cloned())
        })?;
        Ok(RunningServer { running, handles, shared })
    }

    /// Serves on one loop of this thread. For a simulated world, `listener` is from `Sim::bind`.
    ///
    /// # Errors
    /// When the loop does not take the service.
    pub fn serve_here(self, event_loop: &mut EventLoop, listener: TcpServer) -> io::Result<RunningServer> {
        let shared = Arc::new(Shared::new(self.with_reflection()?));
        let handler = ServerHandler::new(Arc::clone(&shared), None);
        let running = listener.serve_here(event_loop, handler)?;
        let handles = running.services().to_vec();
        // Who serves here has no handle before. Nothing can be accepted before this is read.
        for handle in &handles {
            handle.post(Post::Link(handle.clone())).map_err(|(error, _)| io::Error::other(error))?;
        }
        Ok(RunningServer { running, handles, shared })
    }
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names: Vec<_> = self.services.iter().map(|service| service.info().name).collect();
        f.debug_struct("Server").field("services", &names).finish_non_exhaustive()
    }
}

/// What the loops of one server share.
pub(crate) struct Shared {
    config: ServerConfig,
    routes: Routes,
    /// The counters of each loop that has begun.
    metrics: Mutex<Vec<Arc<LoopMetrics>>>,
    /// Connections that were closed because the time for draining was over.
    cut_off: AtomicUsize,
}

impl Shared {
    fn new(server: Server) -> Self {
        Self {
            config: server.config,
            routes: server.routes,
            metrics: Mutex::default(),
            cut_off: AtomicUsize::new(0),
        }
    }
}

/// A server that is being served. Dropping it changes nothing: the loops own the server.
pub struct RunningServer {
    running: reactor::RunningServer<Post>,
    handles: Vec<ServiceHandle<Post>>,
    shared: Arc<Shared>,
}

impl RunningServer {
    /// The bound address.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.running.local_addr()
    }

    /// Connections over all loops.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.running.connections()
    }

    /// Leaves without failing a call: accepts nothing more, asks all clients to call elsewhere, and waits until they have gone, which they do when their last
    /// answer has come. After `at_most` the rest is closed. Blocks: not for a loop's thread. Whether all left by themselves.
    pub fn drain(&self, at_most: Duration) -> bool {
        self.running.stop_accepting();
        let (tell, told) = crossbeam_channel::bounded::<()>(0);
        for handle in &self.handles {
            // A loop that has stopped has nobody to wait for.
            let _ = handle.post(Post::Drain(at_most, tell.clone()));
        }
        drop(tell);
        // A loop closes what is left when the time is over, and then says so; twice the time is for one that hangs.
        let give_up = std::time::Instant::now() + at_most * 2;
        // Nothing is ever sent: what ends the wait is that the last loop has dropped its sender.
        let nobody_left = told.recv_deadline(give_up) == Err(RecvTimeoutError::Disconnected);
        nobody_left && self.shared.cut_off.load(Ordering::Acquire) == 0
    }

    /// What was counted for each method, over all loops.
    #[must_use]
    pub fn metrics(&self) -> Vec<MethodStats> {
        let mut sum: Vec<_> =
            self.shared.routes.methods().iter().map(|info| MethodStats::new(info)).collect();
        for one in self.shared.metrics.lock().iter() {
            one.read_into(&mut sum);
        }
        sum
    }
}

impl std::fmt::Debug for RunningServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RunningServer").field("address", &self.local_addr()).finish_non_exhaustive()
    }
}
