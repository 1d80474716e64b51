//! What a simulated loop waits with: it never waits, but says until when it would.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::address::Address;
use crate::flags::Readiness;
use crate::sim::stream::SimStream;
use crate::sim::world::World;

/// One event of a simulated wait.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SimEvent {
    pub(crate) token: mio::Token,
    pub(crate) readiness: Readiness,
}

pub(crate) struct SimPoller {
    world: Arc<Mutex<World>>,
    loop_index: u16,
    events: Vec<SimEvent>,
}

impl SimPoller {
    pub(crate) const fn new(world: Arc<Mutex<World>>, loop_index: u16) -> Self {
        Self { world, loop_index, events: Vec::new() }
    }

    pub(crate) fn registry(&self) -> SimRegistry {
        SimRegistry { world: Arc::clone(&self.world), loop_index: self.loop_index }
    }

    pub(crate) fn waker(&self) -> SimWaker {
        SimWaker(self.registry())
    }

    pub(crate) fn wait(&mut self, timeout: Option<Duration>) {
        self.events = self.world.lock().wait(self.loop_index, timeout);
    }

    pub(crate) fn events(&self) -> &[SimEvent] {
        &self.events
    }

    pub(crate) fn clear(&mut self) {
        self.events.clear();
    }
}

/// A loop's way into its world.
pub(crate) struct SimRegistry {
    pub(crate) world: Arc<Mutex<World>>,
    pub(crate) loop_index: u16,
}

impl SimRegistry {
    pub(crate) fn now(&self) -> Instant {
        self.world.lock().now()
    }

    pub(crate) fn connect(&self, address: &Address) -> io::Result<SimStream> {
        let Some(address) = address.socket_addr() else {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "only IP addresses are simulated"));
        };
        let end = self.world.lock().connect(address)?;
        Ok(SimStream::new(Arc::clone(&self.world), end))
    }
}

pub(crate) struct SimWaker(SimRegistry);

impl SimWaker {
    pub(crate) fn wake(&self) {
        self.0.world.lock().wake(self.0.loop_index);
    }
}
