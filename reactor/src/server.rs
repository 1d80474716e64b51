//! A TCP server over the loops of a pool.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use socket2::{Domain, Protocol, Socket, Type};

use crate::config::ServiceConfig;
use crate::event_loop::EventLoop;
use crate::handle::{LoopHandle, ServiceHandle, ServiceSlot};
use crate::handler::Handler;
use crate::listener::{Listener, Target};
use crate::pool::EventLoopThreadPool;
use crate::reason::PostError;
use crate::service::guarded;

/// Connections that the kernel queues for us; it cuts the number to its own limit (`net.core.somaxconn`).
const BACKLOG: i32 = 4096;

/// A bound and listening socket that is not served yet: its address is known, clients queue in the kernel.
#[derive(Debug)]
pub struct TcpServer {
    listener: TcpListener,
    address: SocketAddr,
    config: ServiceConfig,
}

impl TcpServer {
    /// Binds `address`; port 0 takes a free one, see [`TcpServer::local_addr`].
    ///
    /// # Errors
    /// When the address cannot be bound.
    pub fn bind(address: SocketAddr, config: ServiceConfig) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_reuse_address(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        socket.set_nonblocking(true)?;
        let listener = TcpListener::from(socket);
        let address = listener.local_addr()?;
        Ok(Self { listener, address, config })
    }

    /// The bound address.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Serves on all loops of `pool`: the first accepts and hands each connection to the loop with the fewest. `make` builds the handler of each loop, on
    /// its thread, from the loop's index.
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
        for slot in slots {
            let handle = LoopHandle { shared: slot.handle.loop_shared() };
            services.push(slot.handle());
            let load = Arc::new(AtomicUsize::new(0));
            let (tell, told) = crossbeam_channel::bounded(1);
            let (make, config, shared_load) = (make.clone(), self.config.clone(), Arc::clone(&load));
            let index = handle.index();
            handle
                .post(move |event_loop| {
                    let service = guarded(&mut event_loop.core, |_| make(index))
                        .map(|handler| event_loop.add_service_with_load(slot, config, handler, shared_load));
                    // The starter waits for it.
                    let _ = tell.send(service);
                })
                .map_err(io::Error::other)?;
            let service = told
                .recv()
                .map_err(io::Error::other)?
                .ok_or_else(|| io::Error::other("the handler's constructor panicked"))?
                .map_err(io::Error::other)?;
            targets.push(Target { handle, service, load });
        }
        let Some(acceptor) = targets.first().map(|target| (target.handle.clone(), target.service)) else {
            return Err(io::Error::other("a server needs at least one loop"));
        };
        let loads = targets.iter().map(|target| Arc::clone(&target.load)).collect();
        let listener = Listener::new(mio::net::TcpListener::from_std(self.listener), targets);
        let (tell, told) = crossbeam_channel::bounded(1);
        let service = acceptor.1;
        acceptor
            .0
            .post(move |event_loop| {
                let _ = tell.send(event_loop.listen(service, listener));
            })
            .map_err(io::Error::other)?;
        told.recv().map_err(io::Error::other)??;
        Ok(RunningServer { address: self.address, acceptor, services, loads })
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
        let load = Arc::new(AtomicUsize::new(0));
        let service = event_loop
            .add_service_with_load(slot, self.config, handler, Arc::clone(&load))
            .map_err(io::Error::other)?;
        let loads = vec![Arc::clone(&load)];
        let target = Target { handle: event_loop.handle(), service, load };
        let listener = Listener::new(mio::net::TcpListener::from_std(self.listener), vec![target]);
        event_loop.listen(service, listener)?;
        Ok(RunningServer { address: self.address, acceptor: (event_loop.handle(), service), services, loads })
    }
}

/// Posts that may wait for a service whose slot was not made by hand.
const POSTS_MAX: usize = 65_536;

/// A server that is being served. Dropping it changes nothing: the loops own the server.
pub struct RunningServer<P> {
    address: SocketAddr,
    acceptor: (LoopHandle, u8),
    services: Vec<ServiceHandle<P>>,
    loads: Vec<Arc<AtomicUsize>>,
}

impl<P> RunningServer<P> {
    /// The bound address.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.address
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

    /// Closes the listening socket. Connections stay.
    pub fn stop_accepting(&self) {
        if let Err(error) = self.acceptor.0.stop_accepting(self.acceptor.1) {
            log::warn!("cannot stop accepting: {error}");
        }
    }
}

impl<P> std::fmt::Debug for RunningServer<P> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RunningServer").field("address", &self.address).finish_non_exhaustive()
    }
}
