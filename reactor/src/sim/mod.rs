//! A simulated world for tests: loops, servers and clients on one thread, over an in-memory network and a clock that only the simulation moves. All that happens
//! follows from one seed.
//!
//! The loops and services are the real ones; only sockets, waiting and time are replaced. Bytes arrive in pieces of any size, in between two calls too; events come
//! in any order and late; connections are reset, attempts refused or never answered, descriptors run out, the clock jumps.
//!
//! ```
//! use reactor::codec::LinesCodec;
//! use reactor::sim::{Sim, SimConfig};
//! use reactor::{FrameHandler, LoopConfig, ServiceConfig};
//!
//! # fn main() -> std::io::Result<()> {
//! let sim = Sim::new(SimConfig { seed: 7, ..SimConfig::default() });
//! let mut event_loop = sim.event_loop(LoopConfig::default())?;
//! let server = sim.bind("10.0.0.1:7000".parse().unwrap(), ServiceConfig::default())?;
//! let hello = FrameHandler::new(|| LinesCodec::new(80), |cx, id, line| {
//!     let _ = cx.send(id, line);
//! });
//! server.serve_here(&mut event_loop, hello)?;
//! // … clients on this or another loop, and then:
//! while sim.step(&mut [&mut event_loop])? {}
//! # Ok(())
//! # }
//! ```

pub(crate) mod loop_io;
pub(crate) mod stream;
mod world;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use crate::config::{LoopConfig, ServiceConfig};
use crate::event_loop::EventLoop;
use crate::listener::ListenSocket;
use crate::poller::Poller;
use crate::server::TcpServer;

use loop_io::SimPoller;
use world::World;

/// How a world behaves.
#[derive(Clone, Debug)]
pub struct SimConfig {
    /// All that happens follows from this number.
    pub seed: u64,
    /// What goes wrong.
    pub faults: SimFaults,
    /// The most bytes that are under way to one end, or wait there unread; each connection has a random window up to this.
    pub window_max: usize,
    /// How many sockets may be open at once, listeners not counted; above it there is `EMFILE`.
    pub sockets_max: usize,
}

impl Default for SimConfig {
    /// A network that loses nothing, with windows of at most 64 KiB.
    fn default() -> Self {
        Self { seed: 0, faults: SimFaults::NONE, window_max: 64 * 1024, sockets_max: usize::MAX }
    }
}

/// How often things go wrong: once in so many occasions, never for 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SimFaults {
    /// Of the steps of the network, one is the reset of some connection.
    pub reset: u32,
    /// Of the steps of the network, one is the silence of some connection: from then on it passes nothing on, not even its end.
    pub silent: u32,
    /// Of the attempts to connect, one is refused.
    pub refused: u32,
    /// Of the attempts to connect, one is never answered.
    pub unanswered: u32,
    /// Of the calls on sockets, one is interrupted.
    pub interrupted: u32,
    /// Of the steps of the network, one is an event without a cause.
    pub spurious: u32,
    /// Of the steps, one lets the clock jump by up to a minute.
    pub clock_jump: u32,
}

impl SimFaults {
    /// Nothing goes wrong.
    pub const NONE: Self =
        Self { reset: 0, silent: 0, refused: 0, unanswered: 0, interrupted: 0, spurious: 0, clock_jump: 0 };
    /// Everything goes wrong now and then, but for silence, which nobody notices who asks for no sign of life.
    pub const ALL: Self = Self {
        reset: 400,
        silent: 0,
        refused: 8,
        unanswered: 12,
        interrupted: 50,
        spurious: 20,
        clock_jump: 500,
    };
}

/// A simulated world. Clones are the same world.
#[derive(Clone)]
pub struct Sim {
    world: Arc<Mutex<World>>,
}

impl Sim {
    /// A world with nothing in it.
    #[must_use]
    pub fn new(config: SimConfig) -> Self {
        Self { world: Arc::new(Mutex::new(World::new(config))) }
    }

    /// Makes a loop of this world. It is turned by [`Sim::step`], and never waits.
    ///
    /// # Errors
    /// None today; as for [`EventLoop::new`].
    pub fn event_loop(&self, config: LoopConfig) -> io::Result<EventLoop> {
        let (index, seed) = {
            let mut world = self.world.lock();
            (world.add_loop(), world.seed())
        };
        let poller = Poller::Sim(SimPoller::new(Arc::clone(&self.world), index));
        let mut event_loop = EventLoop::with_poller(poller, config, index)?;
        // The loop's own chance (jitter, who is accepted where) follows from the seed as well.
        event_loop.core.rng = fastrand::Rng::with_seed(seed.wrapping_add(u64::from(index)));
        Ok(event_loop)
    }

    /// Binds an address of this world, for [`TcpServer::serve_here`] on a loop of it.
    ///
    /// # Errors
    /// When somebody listens there.
    pub fn bind(&self, address: SocketAddr, config: ServiceConfig) -> io::Result<TcpServer> {
        let listener = stream::SimListener::bind(&self.world, address, config.backlog)?;
        Ok(TcpServer::from_parts(ListenSocket::Sim(listener), address.into(), config))
    }

    /// One step: something arrives somewhere, or one of the loops makes a turn, or, when nothing else can happen, time passes until a loop's next timer. Pass
    /// all loops of the world; one that has stopped makes no more turns. `false` when nothing can ever happen any more.
    ///
    /// # Errors
    /// Those of [`EventLoop::turn`].
    pub fn step(&self, loops: &mut [&mut EventLoop]) -> io::Result<bool> {
        let mut world = self.world.lock();
        world.tick();
        let is_ready = |event_loop: &EventLoop| {
            !event_loop.finished() && (event_loop.has_posts() || world.is_ready(event_loop.core.index))
        };
        let ready: Vec<usize> =
            loops.iter().enumerate().filter(|(_, it)| is_ready(it)).map(|(at, _)| at).collect();
        let arrivals = world.arrivals();
        if ready.is_empty() && arrivals == 0 {
            return Ok(world.pass_time());
        }
        let choice = world.choose(ready.len() + usize::from(arrivals > 0));
        match ready.get(choice).and_then(|at| loops.get_mut(*at)) {
            None => {
                world.arrive();
                Ok(true)
            }
            Some(event_loop) => {
                drop(world);
                event_loop.turn(None).map(|()| true)
            }
        }
    }

    /// How long the world exists, by its own clock.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.world.lock().elapsed()
    }

    /// Changes what goes wrong from now on.
    pub fn set_faults(&self, faults: SimFaults) {
        self.world.lock().set_faults(faults);
    }

    /// Lets the clock jump.
    pub fn jump(&self, by: Duration) {
        self.world.lock().jump(by);
    }

    /// Sockets that are open, listeners not counted.
    #[must_use]
    pub fn open_sockets(&self) -> usize {
        self.world.lock().open_sockets()
    }
}

impl std::fmt::Debug for Sim {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sim").field("elapsed", &self.elapsed()).finish_non_exhaustive()
    }
}

/// A simulated socket met a real loop, or the other way round.
pub(crate) fn mixed() -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidInput,
        "a simulated loop has simulated sockets, and only such a loop",
    )
}

#[cfg(test)]
mod tests;
