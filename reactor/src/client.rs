//! The connecting half: a client that keeps one connection up, with back-off between its attempts.

use std::collections::VecDeque;
use std::io;
use std::time::{Duration, Instant};

use crate::address::Address;
use crate::backoff::Backoff;
use crate::config::ClientConfig;
use crate::context::Context;
use crate::event_loop::EventLoop;
use crate::handle::{LoopHandle, ServiceSlot};
use crate::handler::Handler;
use crate::id::ConnId;
use crate::loop_core::{LoopCore, Timer, TimerKind};
use crate::reason::{ConnectError, PostError};
use crate::resolve::{Endpoint, LookUp, look_up};
use crate::service::{ServiceCell, guarded};
use crate::slab::Key;
use crate::timer::TimerKey;
use crate::watch::What;

/// What a service knows of the connection it is to keep up.
pub(crate) struct ClientState {
    config: ClientConfig,
    backoff: Backoff,
    /// The endpoint that comes next.
    next: usize,
    /// Addresses of the last look-up that were not tried yet.
    found: VecDeque<Address>,
    current: Option<Key>,
    /// The name that is being looked up, and the number of that attempt.
    looking_up: Option<String>,
    look_ups: u64,
    /// The next attempt, or the end of the time for a look-up.
    timer: Option<TimerKey>,
    stopped: bool,
}

impl ClientState {
    pub(crate) fn new(config: ClientConfig) -> Self {
        let backoff = Backoff::from_config(config.backoff);
        Self {
            config,
            backoff,
            next: 0,
            found: VecDeque::new(),
            current: None,
            looking_up: None,
            look_ups: 0,
            timer: None,
            stopped: false,
        }
    }

    pub(crate) fn connected(&mut self, now: Instant, key: Key) {
        if self.current == Some(key) {
            self.found.clear();
            self.backoff.on_connected(now);
        }
    }

    pub(crate) fn stop(&mut self, core: &mut LoopCore) {
        self.stopped = true;
        self.looking_up = None;
        core.cancel(&mut self.timer);
    }

    fn is_done(&self, core: &LoopCore) -> bool {
        self.stopped || self.current.is_some() || core.stopping
    }

    /// Sets the timer of the next attempt, unless the client is done. A host's further addresses are tried without a wait.
    fn schedule(&mut self, core: &mut LoopCore, service: u8) -> Option<Duration> {
        if self.stopped || core.stopping || (!self.config.reconnect && self.found.is_empty()) {
            return None;
        }
        let wait = if self.found.is_empty() { self.backoff.next(&mut core.rng) } else { Duration::ZERO };
        self.set_timer(core, service, wait);
        Some(wait)
    }

    fn set_timer(&mut self, core: &mut LoopCore, service: u8, delay: Duration) {
        core.cancel(&mut self.timer);
        let timer = Timer { service, conn: None, kind: TimerKind::Reconnect };
        self.timer = Some(core.timers.insert(core.deadline(delay), timer));
    }
}

impl<H: Handler> ServiceCell<H> {
    /// Makes the client's next attempt: to the next address that was found, or to the next endpoint.
    pub(crate) fn reconnect(&mut self, core: &mut LoopCore) {
        let Some(client) = &mut self.client else { return };
        if client.is_done(core) {
            return;
        }
        if let Some(address) = client.found.pop_front() {
            return self.attempt(core, address);
        }
        let count = client.config.endpoints.len();
        let endpoint = client.next.checked_rem(count).and_then(|at| client.config.endpoints.get(at)).cloned();
        client.next = client.next.wrapping_add(1);
        match endpoint {
            Some(Endpoint::Address(address)) => self.attempt(core, address),
            Some(Endpoint::Name { host, port }) => self.begin_look_up(core, host, port),
            None => self.attempt_failed(core, None, self.no_id(), ConnectError::NoAddress),
        }
    }

    /// The name of a connection that never was.
    fn no_id(&self) -> ConnId {
        self.conns.id(Key { slot: crate::slab::SLOTS_MAX, generation: 0 })
    }

    fn attempt(&mut self, core: &mut LoopCore, address: Address) {
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
            Err(error) => self.attempt_failed(core, None, self.no_id(), error),
        }
    }

    fn begin_look_up(&mut self, core: &mut LoopCore, host: String, port: u16) {
        let service = self.conns.service;
        let Some(client) = &mut self.client else { return };
        client.look_ups += 1;
        client.looking_up = Some(host.clone());
        client.set_timer(core, service, self.conns.config.connect_timeout);
        if let Err(error) = look_up(core.handle(), service, client.look_ups, host, port) {
            self.look_up_failed(core, error.to_string());
        }
    }

    /// A look-up has ended. One that was given up meanwhile is nothing.
    pub(crate) fn on_looked_up(&mut self, core: &mut LoopCore, attempt: u64, found: LookUp) {
        let Some(client) = &mut self.client else { return };
        if client.looking_up.is_none() || client.look_ups != attempt {
            return;
        }
        match found {
            Ok(addresses) => {
                client.looking_up = None;
                core.cancel(&mut client.timer);
                client.found = addresses.into_iter().map(Address::from).collect();
                self.reconnect(core);
            }
            Err(message) => self.look_up_failed(core, message),
        }
    }

    fn look_up_failed(&mut self, core: &mut LoopCore, message: String) {
        let name = self.client.as_mut().and_then(|client| client.looking_up.take()).unwrap_or_default();
        self.attempt_failed(core, None, self.no_id(), ConnectError::Lookup { name, message });
    }

    /// The wait for the next attempt is over, or the time for a look-up.
    pub(crate) fn on_reconnect_timer(&mut self, core: &mut LoopCore) {
        let Some(client) = &mut self.client else { return };
        client.timer = None;
        if client.looking_up.take().is_some() {
            self.attempt_failed(core, None, self.no_id(), ConnectError::Timeout);
        } else {
            self.reconnect(core);
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
        self.call(core, What::ConnectFailed, |handler, cx| {
            handler.on_connect_failed(cx, id, error, retry_in);
        });
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
