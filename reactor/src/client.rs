//! The connecting half: a client that keeps one connection up, with back-off between its attempts.

use std::io;
use std::time::Instant;

use crate::backoff::Backoff;
use crate::config::ClientConfig;
use crate::context::Context;
use crate::event_loop::EventLoop;
use crate::handle::{LoopHandle, ServiceSlot};
use crate::handler::Handler;
use crate::id::ConnId;
use crate::loop_core::{LoopCore, Timer, TimerKind};
use crate::reason::{ConnectError, PostError};
use crate::service::{ServiceCell, guarded};
use crate::slab::Key;
use crate::timer::TimerKey;

/// What a service knows of the connection it is to keep up.
pub(crate) struct ClientState {
    config: ClientConfig,
    backoff: Backoff,
    /// The address that comes next.
    next: usize,
    current: Option<Key>,
    retry: Option<TimerKey>,
    stopped: bool,
}

impl ClientState {
    pub(crate) fn new(config: ClientConfig) -> Self {
        let backoff = Backoff::from_config(config.backoff);
        Self { config, backoff, next: 0, current: None, retry: None, stopped: false }
    }

    pub(crate) fn connected(&mut self, now: Instant, key: Key) {
        if self.current == Some(key) {
            self.backoff.on_connected(now);
        }
    }

    pub(crate) fn stop(&mut self, core: &mut LoopCore) {
        self.stopped = true;
        core.cancel(&mut self.retry);
    }

    /// Sets the timer of the next attempt, unless the client is done.
    fn schedule(&mut self, core: &mut LoopCore, service: u8) -> Option<std::time::Duration> {
        if self.stopped || !self.config.reconnect || core.stopping {
            return None;
        }
        let wait = self.backoff.next(&mut core.rng);
        let timer = Timer { service, conn: None, kind: TimerKind::Reconnect };
        self.retry = Some(core.timers.insert(core.deadline(wait), timer));
        Some(wait)
    }
}

impl<H: Handler> ServiceCell<H> {
    /// Makes the client's next attempt.
    pub(crate) fn reconnect(&mut self, core: &mut LoopCore) {
        let Some(client) = &mut self.client else { return };
        client.retry = None;
        if client.stopped || client.current.is_some() || core.stopping {
            return;
        }
        let Some(address) = client
            .next
            .checked_rem(client.config.addresses.len())
            .and_then(|at| client.config.addresses.get(at))
        else {
            log::error!("{}: a client without an address", self.handler.name());
            return;
        };
        let address = *address;
        client.next = client.next.wrapping_add(1);
        let codec = guarded(core, |_| self.handler.codec());
        let Self { conns, client, .. } = self;
        let attempt = match codec {
            Some(codec) => Context { conns, core, client }.connect(address, codec),
            None => Err(ConnectError::HandlerPanicked),
        };
        match attempt {
            Ok(id) => {
                if let Some(client) = &mut self.client {
                    client.current = Some(id.key());
                }
            }
            Err(error) => {
                let id = self.conns.id(core, Key { slot: crate::slab::SLOTS_MAX, generation: 0 });
                self.attempt_failed(core, None, id, error);
            }
        }
    }

    /// Tells the handler of a failed attempt and plans the next.
    pub(crate) fn attempt_failed(
        &mut self,
        core: &mut LoopCore,
        key: Option<Key>,
        id: ConnId,
        error: ConnectError,
    ) {
        let service = self.conns.service;
        let mut retry_in = None;
        if let Some(client) = &mut self.client
            && (key.is_none() || client.current == key)
        {
            client.current = None;
            retry_in = client.schedule(core, service);
        }
        self.call(core, |handler, cx| handler.on_connect_failed(cx, id, error, retry_in));
    }

    /// The client's connection ended: plans the next attempt.
    pub(crate) fn client_closed(&mut self, core: &mut LoopCore, key: Key) {
        let service = self.conns.service;
        if let Some(client) = &mut self.client
            && client.current == Some(key)
        {
            client.current = None;
            client.backoff.on_closed(core.now);
            client.schedule(core, service);
        }
    }
}

/// A client: a service that keeps one connection to one of its addresses up. Its handler sees each connection as `on_open` … `on_close`, and each failed
/// attempt as `on_connect_failed`.
#[derive(Clone, Debug)]
pub struct TcpClient {
    handle: LoopHandle,
    service: u8,
}

impl TcpClient {
    /// Puts a client on a loop that runs on another thread. `make` builds its handler on that thread.
    ///
    /// # Errors
    /// When the loop's queue is full or the loop has ended; [`PostError::OwnThread`] on the loop's own thread, where
    /// [`TcpClient::start_here`] serves.
    pub fn start<H, F>(
        handle: &LoopHandle,
        slot: ServiceSlot<H::Post>,
        config: ClientConfig,
        make: F,
    ) -> Result<Self, PostError>
    where
        H: Handler,
        F: FnOnce() -> H + Send + 'static,
    {
        if handle.is_loop_thread() {
            return Err(PostError::OwnThread);
        }
        let (tell, told) = crossbeam_channel::bounded(1);
        handle.post(move |event_loop| {
            let service = guarded(&mut event_loop.core, |_| make())
                .map_or(Err(PostError::Stopped), |handler| event_loop.add_client(slot, config, handler));
            // The starter may have given up waiting; the client runs all the same.
            let _ = tell.send(service);
        })?;
        let service = told.recv().map_err(|_| PostError::Stopped)??;
        Ok(Self { handle: handle.clone(), service })
    }

    /// Puts a client on a loop that is on this thread.
    ///
    /// # Errors
    /// When the loop holds as many services as it can.
    pub fn start_here<H: Handler>(
        event_loop: &mut EventLoop,
        slot: ServiceSlot<H::Post>,
        config: ClientConfig,
        handler: H,
    ) -> io::Result<Self> {
        let service = event_loop.add_client(slot, config, handler).map_err(io::Error::other)?;
        Ok(Self { handle: event_loop.handle(), service })
    }

    /// Closes the connection, or ends the attempt or the wait for the next. At any moment; more than once is nothing.
    ///
    /// # Errors
    /// When the loop's queue is full or the loop has ended.
    pub fn stop(&self) -> Result<(), PostError> {
        self.handle.stop_client(self.service)
    }
}
