//! A server over the loops of a pool, on a TCP or a Unix socket.

use std::io;
use std::net::SocketAddr;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use socket2::{Domain, Protocol, Socket, Type};

use crate::address::Address;
use crate::address_counts::AddressCounts;
use crate::config::{AcceptMode, ServiceConfig};
use crate::event_loop::EventLoop;
use crate::handle::{LoopHandle, ServiceHandle, ServiceSlot};
use crate::handler::Handler;
use crate::listener::{ListenSocket, Listener, Target};
use crate::pool::EventLoopThreadPool;
use crate::reason::PostError;
use crate::service::{ServerShare, guarded};

/// A bound and listening socket that is not served yet: its address is known, clients queue in the kernel.
#[derive(Debug)]
pub struct TcpServer {
    socket: ListenSocket,
    address: Address,
    config: ServiceConfig,
}

impl TcpServer {
    #[cfg(any(test, feature = "test-util"))]
    pub(crate) const fn from_parts(socket: ListenSocket, address: Address, config: ServiceConfig) -> Self {
        Self { socket, address, config }
    }

    /// Binds `address`; port 0 takes a free one, see [`TcpServer::local_addr`]. An IPv6 address takes IPv6 connections only, `[::]` those of both kinds where
    /// the system is set so (as Linux is).
    ///
    /// # Errors
    /// When the address cannot be bound.
    pub fn bind(address: SocketAddr, config: ServiceConfig) -> io::Result<Self> {
        let socket = listen_on(address, &config)?;
        let address = socket.local_addr()?.into();
        Ok(Self { socket: ListenSocket::Tcp(socket), address, config })
    }

    /// Binds a Unix socket at `path`. One that is left there by a program that has ended is replaced. The file is removed when accepting ends.
    ///
    /// # Errors
    /// When the path cannot be bound, another program that listens there among the causes; and with [`AcceptMode::ReusePort`], which Unix sockets lack.
    pub fn bind_unix(path: impl AsRef<Path>, config: ServiceConfig) -> io::Result<Self> {
        let path = path.as_ref();
        if config.accept == AcceptMode::ReusePort {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "a Unix socket has one listener only"));
        }
        let listener = match UnixListener::bind(path) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && is_deserted(path) => {
                std::fs::remove_file(path)?;
                UnixListener::bind(path)?
            }
            result => result?,
        };
        listener.set_nonblocking(true)?;
        let socket = ListenSocket::Unix(mio::net::UnixListener::from_std(listener));
        Ok(Self { socket, address: Address::unix(path), config })
    }

    /// The bound IP address and port.
    ///
    /// # Panics
    /// For a Unix socket, whose address [`TcpServer::address`] gives.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        ip_of(&self.address)
    }

    /// The bound address, of whatever kind.
    #[must_use]
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Serves on all loops of `pool`, which share the connections by [`ServiceConfig::accept`]. `make` builds the handler of each loop, on its thread, from
    /// the loop's index.
    ///
    /// # Errors
    /// When a loop does not take the service.
    pub fn serve<H, F>(self, pool: &EventLoopThreadPool, make: F) -> io::Result<RunningServer<H::Post>>
    where
        H: Handler,
        F: Fn(u16) -> H + Send + Clone + 'static,
    {
        self.serve_on(pool.service_slots(POSTS_MAX), make)
    }

    /// Serves on the loops of `slots`, whose handles could be handed out before. See [`TcpServer::serve`].
    ///
    /// # Errors
    /// When a loop does not take the service, and on the thread of one of the loops: the call would wait for itself.
    pub fn serve_on<H, F>(
        self,
        slots: Vec<ServiceSlot<H::Post>>,
        make: F,
    ) -> io::Result<RunningServer<H::Post>>
    where
        H: Handler,
        F: Fn(u16) -> H + Send + Clone + 'static,
    {
        if slots.iter().any(|slot| LoopHandle { shared: slot.handle.loop_shared() }.is_loop_thread()) {
            return Err(io::Error::other(PostError::OwnThread));
        }
        let mut services = Vec::new();
        let mut targets = Vec::new();
        let addresses = self.counts();
        for slot in slots {
            services.push(slot.handle());
            let share = ServerShare { load: Arc::default(), addresses: addresses.clone() };
            targets.push(add_to_loop(slot, self.config.clone(), make.clone(), share)?);
        }
        let loads: Arc<[_]> = targets.iter().map(|target| Arc::clone(&target.load)).collect();
        let Self { socket, address, config } = self;
        let listeners = listeners(socket, &address, &config, targets, &loads)?;
        let mut acceptors = Vec::new();
        for (handle, service, listener) in listeners {
            let (tell, told) = crossbeam_channel::bounded(1);
            handle
                .post(move |event_loop| {
                    let _ = tell.send(event_loop.listen(service, listener));
                })
                .map_err(io::Error::other)?;
            told.recv().map_err(io::Error::other)??;
            acceptors.push((handle, service));
        }
        Ok(RunningServer { address, acceptors, services, loads })
    }

    fn counts(&self) -> Option<Arc<AddressCounts>> {
        let max = self.config.connections_per_address_max;
        (max != usize::MAX).then(|| Arc::new(AddressCounts::new(max)))
    }

    /// Serves on one loop of this thread.
    ///
    /// # Errors
    /// When the loop does not take the service or the listener.
    pub fn serve_here<H: Handler>(
        self,
        event_loop: &mut EventLoop,
        handler: H,
    ) -> io::Result<RunningServer<H::Post>> {
        let slot = event_loop.handle().service_slot(POSTS_MAX);
        let services = vec![slot.handle()];
        let share = ServerShare { load: Arc::default(), addresses: self.counts() };
        let load = Arc::clone(&share.load);
        let mode = self.config.accept;
        let service =
            event_loop.add_shared_service(slot, self.config, handler, share).map_err(io::Error::other)?;
        let loads: Arc<[_]> = Arc::from([Arc::clone(&load)]);
        let target = Target { handle: event_loop.handle(), service, load };
        let listener = Listener::new(self.socket, vec![target], mode, Arc::clone(&loads));
        event_loop.listen(service, listener)?;
        let acceptors = vec![(event_loop.handle(), service)];
        Ok(RunningServer { address: self.address, acceptors, services, loads })
    }
}

/// Puts a service on another thread's loop, and waits until it is there.
fn add_to_loop<H, F>(
    slot: ServiceSlot<H::Post>,
    config: ServiceConfig,
    make: F,
    share: ServerShare,
) -> io::Result<Target>
where
    H: Handler,
    F: Fn(u16) -> H + Send + 'static,
{
    let handle = LoopHandle { shared: slot.handle.loop_shared() };
    let load = Arc::clone(&share.load);
    let (tell, told) = crossbeam_channel::bounded(1);
    let index = handle.index();
    handle
        .post(move |event_loop| {
            let service = guarded(&mut event_loop.core, |_| make(index))
                .map(|handler| event_loop.add_shared_service(slot, config, handler, share));
            // The starter waits for it.
            let _ = tell.send(service);
        })
        .map_err(io::Error::other)?;
    let service = told
        .recv()
        .map_err(io::Error::other)?
        .ok_or_else(|| io::Error::other("the handler's constructor panicked"))?
        .map_err(io::Error::other)?;
    Ok(Target { handle, service, load })
}

/// The listeners, each with the loop and the service that it goes to: one for all loops, or one for each.
fn listeners(
    first: ListenSocket,
    address: &Address,
    config: &ServiceConfig,
    targets: Vec<Target>,
    loads: &Arc<[Arc<AtomicUsize>]>,
) -> io::Result<Vec<(LoopHandle, u8, Listener)>> {
    let groups: Vec<Vec<Target>> = match config.accept {
        AcceptMode::ReusePort => targets.into_iter().map(|target| vec![target]).collect(),
        _ => vec![targets],
    };
    let mut first = Some(first);
    let mut listeners = Vec::new();
    for targets in groups {
        let owner = targets.first().map(|target| (target.handle.clone(), target.service));
        let (handle, service) = owner.ok_or_else(|| io::Error::other("a server needs at least one loop"))?;
        let socket = match first.take() {
            Some(socket) => socket,
            None => ListenSocket::Tcp(listen_on(ip_of(address), config)?),
        };
        listeners.push((handle, service, Listener::new(socket, targets, config.accept, Arc::clone(loads))));
    }
    Ok(listeners)
}

/// A listening TCP socket with the options that its connections inherit.
fn listen_on(address: SocketAddr, config: &ServiceConfig) -> io::Result<mio::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if config.accept == AcceptMode::ReusePort {
        socket.set_reuse_port(true)?;
    }
    config.socket.apply(&socket)?;
    socket.bind(&address.into())?;
    socket.listen(config.backlog)?;
    socket.set_nonblocking(true)?;
    Ok(mio::net::TcpListener::from_std(socket.into()))
}

/// Whether a socket lies there that nobody listens on any more.
fn is_deserted(path: &Path) -> bool {
    UnixStream::connect(path).is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
}

#[expect(clippy::expect_used, reason = "documented: only servers on IP addresses are asked")]
fn ip_of(address: &Address) -> SocketAddr {
    address.socket_addr().expect("the address of a TCP server")
}

/// Posts that may wait for a service whose slot was not made by hand.
const POSTS_MAX: usize = 65_536;

/// A server that is being served. Dropping it changes nothing: the loops own the server.
pub struct RunningServer<P> {
    address: Address,
    /// Who accepts: one loop, or each.
    acceptors: Vec<(LoopHandle, u8)>,
    services: Vec<ServiceHandle<P>>,
    loads: Arc<[Arc<AtomicUsize>]>,
}

impl<P> RunningServer<P> {
    /// The bound IP address and port.
    ///
    /// # Panics
    /// For a Unix socket, whose address [`RunningServer::address`] gives.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        ip_of(&self.address)
    }

    /// The bound address, of whatever kind.
    #[must_use]
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// The service's handle on each loop.
    #[must_use]
    pub fn services(&self) -> &[ServiceHandle<P>] {
        &self.services
    }

    /// Connections over all loops, as the acceptor counts them.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.loads.iter().map(|load| load.load(Ordering::Relaxed)).sum()
    }

    /// Closes the listening sockets. Connections stay.
    pub fn stop_accepting(&self) {
        for (handle, service) in &self.acceptors {
            if let Err(error) = handle.stop_accepting(*service) {
                log::warn!("cannot stop accepting: {error}");
            }
        }
    }
}

impl<P> std::fmt::Debug for RunningServer<P> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RunningServer").field("address", &self.address).finish_non_exhaustive()
    }
}
