//! `ClientNet`: the thread that keeps one connection to the server up and carries lines both ways.

#[cfg(test)]
mod tests;
mod wire;

use std::fmt;
use std::net::SocketAddr;
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};
use reactor::{EventLoop, LoopConfig, LoopHandle, PostError, ServiceConfig, ServiceHandle, TlsClient};

use crate::limits::{GOODBYE, NET_EVENTS_MAX, NET_POSTS_MAX};
use wire::Wire;

/// Which connection of this run: what is meant for one is not said on another.
pub(crate) type Epoch = u64;

/// What happens on the wire.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum NetEvent {
    /// An attempt begins.
    Connecting,
    /// There is a connection.
    Up(Epoch),
    /// A line came on it.
    Line(Vec<u8>),
    /// There is no connection (any more): why, and when the next attempt is, if there is one by itself.
    Down { why: String, retry_in: Option<Duration> },
}

/// What the program wants.
#[derive(Debug)]
enum Order {
    Say(Epoch, Vec<u8>),
    Connect,
    Drop(Epoch, &'static str),
    Stop,
}

/// Why the network's thread cannot be started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum NetError {
    /// The system gives no poll or no thread.
    #[error("cannot start the network's thread: {0}")]
    Io(#[from] std::io::Error),
    /// The loop did not take the service.
    #[error("cannot start the network's service: {0}")]
    Post(#[from] PostError),
}

/// The program's end of the network's thread. Dropping it says goodbye and joins the thread.
pub(crate) struct ClientNet {
    orders: ServiceHandle<Order>,
    events: Receiver<NetEvent>,
    event_loop: LoopHandle,
    thread: Option<JoinHandle<()>>,
}

impl ClientNet {
    /// Starts the thread, which connects at once to the first of `addresses` that answers, by TLS or in the clear.
    ///
    /// # Errors
    /// When the system gives no thread or no poll.
    pub(crate) fn start(addresses: Vec<SocketAddr>, tls: Option<TlsClient>) -> Result<Self, NetError> {
        let (events, received) = bounded(NET_EVENTS_MAX);
        let (tell, told) = bounded(1);
        let work = move || match make_loop(addresses, tls, events) {
            Ok((mut event_loop, orders)) => {
                let _ = tell.send(Ok((event_loop.handle(), orders)));
                if let Err(error) = event_loop.run() {
                    log::error!("the network's thread ends: {error}");
                }
            }
            Err(error) => {
                let _ = tell.send(Err(error));
            }
        };
        let thread = std::thread::Builder::new().name("net".into()).spawn(work)?;
        let gone = || NetError::Post(PostError::Stopped);
        let (event_loop, orders) = told.recv().map_err(|_| gone())??;
        Ok(Self { orders, events: received, event_loop, thread: Some(thread) })
    }

    /// What happens on the wire. Disconnected when the thread has ended.
    pub(crate) fn events(&self) -> &Receiver<NetEvent> {
        &self.events
    }

    /// Says a line on the connection `epoch`, if that is still the one.
    pub(crate) fn say(&self, epoch: Epoch, line: Vec<u8>) {
        self.order(Order::Say(epoch, line));
    }

    /// Connects now, unless there is a connection or an attempt.
    pub(crate) fn connect(&self) {
        self.order(Order::Connect);
    }

    /// Gives the connection `epoch` up, if that is still the one.
    pub(crate) fn drop_connection(&self, epoch: Epoch, why: &'static str) {
        self.order(Order::Drop(epoch, why));
    }

    fn order(&self, order: Order) {
        let mut order = order;
        // The queue is longer than all that can be unanswered; when it is full all the same, the thread will make room.
        while let Err((PostError::Full, back)) = self.orders.post(order) {
            order = back;
            std::thread::yield_now();
        }
    }
}

impl Drop for ClientNet {
    fn drop(&mut self) {
        self.order(Order::Stop);
        self.event_loop.stop_within(Some(GOODBYE));
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            log::error!("the network's thread panicked");
        }
    }
}

impl fmt::Debug for ClientNet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientNet").finish_non_exhaustive()
    }
}

fn make_loop(
    addresses: Vec<SocketAddr>,
    tls: Option<TlsClient>,
    events: Sender<NetEvent>,
) -> Result<(EventLoop, ServiceHandle<Order>), NetError> {
    let mut event_loop = EventLoop::new(LoopConfig::default())?;
    let slot = event_loop.handle().service_slot(NET_POSTS_MAX);
    let orders = slot.handle();
    let mut config = ServiceConfig::default();
    config.linger = GOODBYE;
    config.tls_client = tls;
    event_loop.add_service(slot, config, Wire::new(addresses, events))?;
    Ok((event_loop, orders))
}
