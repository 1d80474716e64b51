//! Simulated sockets: what a loop holds of the ends and listeners of its world.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::sim::loop_io::SimRegistry;
use crate::sim::world::World;

/// Bytes of a read that goes behind others: more than fits is left for the next.
const READ_MAX: usize = 16 * 1024;

/// One end of a simulated connection. Dropping it closes it.
pub(crate) struct SimStream {
    world: Arc<Mutex<World>>,
    end: usize,
}

impl SimStream {
    pub(crate) const fn new(world: Arc<Mutex<World>>, end: usize) -> Self {
        Self { world, end }
    }

    pub(crate) fn register(&self, registry: &SimRegistry, token: mio::Token) {
        self.world.lock().watch_end(self.end, registry.loop_index, token);
    }

    pub(crate) fn read(&self, buf: &mut [u8]) -> io::Result<usize> {
        self.world.lock().read(self.end, buf)
    }

    pub(crate) fn read_behind(&self, buf: &mut Vec<u8>) -> io::Result<usize> {
        let mut bytes = vec![0; (buf.capacity() - buf.len()).min(READ_MAX)];
        let count = self.read(&mut bytes)?;
        buf.extend_from_slice(bytes.get(..count).unwrap_or_default());
        Ok(count)
    }

    pub(crate) fn write(&self, buf: &[u8]) -> io::Result<usize> {
        self.world.lock().write(self.end, &[buf])
    }

    pub(crate) fn write_vectored(&self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        let bufs: Vec<&[u8]> = bufs.iter().map(|buf| &**buf).collect();
        self.world.lock().write(self.end, &bufs)
    }

    pub(crate) fn shutdown_write(&self) -> io::Result<()> {
        self.world.lock().shutdown_write(self.end)
    }

    pub(crate) fn reset_on_close(&self) {
        self.world.lock().reset_on_close(self.end);
    }

    pub(crate) fn take_error(&self) -> Option<io::Error> {
        self.world.lock().take_error(self.end)
    }

    pub(crate) fn peer_address(&self) -> io::Result<SocketAddr> {
        self.world.lock().peer_address(self.end)
    }

    pub(crate) fn local_address(&self) -> SocketAddr {
        self.world.lock().local_address(self.end)
    }
}

impl Drop for SimStream {
    fn drop(&mut self) {
        self.world.lock().close(self.end);
    }
}

impl std::fmt::Debug for SimStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("SimStream").field(&self.end).finish()
    }
}

/// A simulated listening socket. Dropping it closes it.
pub(crate) struct SimListener {
    world: Arc<Mutex<World>>,
    listener: usize,
}

impl SimListener {
    pub(crate) fn bind(world: &Arc<Mutex<World>>, address: SocketAddr, backlog: i32) -> io::Result<Self> {
        let listener = world.lock().bind(address, usize::try_from(backlog).unwrap_or(1).max(1))?;
        Ok(Self { world: Arc::clone(world), listener })
    }

    pub(crate) fn register(&self, registry: &SimRegistry, token: mio::Token) {
        self.world.lock().watch_listener(self.listener, registry.loop_index, token);
    }

    pub(crate) fn accept(&self) -> io::Result<(SimStream, SocketAddr)> {
        let (end, peer) = self.world.lock().accept(self.listener)?;
        Ok((SimStream::new(Arc::clone(&self.world), end), peer))
    }
}

impl Drop for SimListener {
    fn drop(&mut self) {
        self.world.lock().close_listener(self.listener);
    }
}

impl std::fmt::Debug for SimListener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("SimListener").field(&self.listener).finish()
    }
}
