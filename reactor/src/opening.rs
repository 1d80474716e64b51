//! How a connection begins: accepted or connected, past its preface, until the handler is told of it.

use std::io::ErrorKind;
use std::sync::atomic::Ordering;

use crate::address::Address;
use crate::conn::{Conn, Phase};
use crate::flags::Readiness;
use crate::handler::{Handler, OpenInfo};
use crate::id::Token;
use crate::loop_core::{LoopCore, Timer, TimerKind};
use crate::proxy_protocol::{self, Parsed};
use crate::reason::{CloseReason, ConnectError};
use crate::service::{ServiceCell, guarded};
use crate::slab::Key;
use crate::stream::Stream;
use crate::watch::What;

/// Whether accepted sockets have the options of their listener.
const OPTIONS_ARE_INHERITED: bool = cfg!(target_os = "linux");

impl<H: Handler> ServiceCell<H> {
    /// Takes a connected stream in: a slot, one registration for good, and `on_open`, at once or after the preface.
    pub(crate) fn open(&mut self, core: &mut LoopCore, stream: Stream, peer: Address) {
        if !OPTIONS_ARE_INHERITED && let Err(error) = stream.set_options(&self.conns.config.socket) {
            log::debug!("cannot set the options of the connection of {peer}: {error}");
        }
        let codec = guarded(core, |_| self.handler.codec());
        let phase = if self.is_proxy(&peer) { Phase::Preface } else { Phase::Open };
        let counted = phase == Phase::Open && self.share.addresses.is_some();
        if counted && !self.admit(&peer) {
            log::debug!("{}: one connection too many from {peer}", self.handler.name());
            return self.shed(core);
        }
        let now_ms = core.now_ms;
        let conns = &mut self.conns;
        let key = codec.and_then(|codec| {
            let key = conns.slab.insert(Conn::new(stream, peer.clone(), codec, phase, now_ms)).ok()?;
            let token = Token { service: conns.service, key }.to_mio();
            let conn = conns.slab.get_mut(key)?;
            conn.flags.set_counted(counted);
            if let Err(error) = conn.stream.register(&core.registry, token) {
                log::warn!("cannot register the connection of {peer}: {error}");
                conns.slab.remove(key);
                return None;
            }
            Some(key)
        });
        match key {
            None => {
                if counted {
                    self.dismiss(&peer);
                }
                self.shed(core);
            }
            Some(key) if phase == Phase::Preface => self.begin_preface(core, key),
            Some(key) => self.opened(core, key, &OpenInfo { peer, proxy: None, outbound: false }),
        }
    }

    fn shed(&self, core: &mut LoopCore) {
        core.stats.shed += 1;
        self.share.load.fetch_sub(1, Ordering::Relaxed);
    }

    /// Counts a connection from `peer`, unless there are too many.
    fn admit(&self, peer: &Address) -> bool {
        match (&self.share.addresses, peer.ip()) {
            (Some(addresses), Some(ip)) => addresses.enter(ip),
            _ => true,
        }
    }

    /// Takes the count of a connection from `peer` back.
    pub(crate) fn dismiss(&self, peer: &Address) {
        if let (Some(addresses), Some(ip)) = (&self.share.addresses, peer.ip()) {
            addresses.leave(ip);
        }
    }

    /// Tells the handler of an open connection and keeps the state that it returns.
    fn opened(&mut self, core: &mut LoopCore, key: Key, info: &OpenInfo) {
        core.stats.opened += 1;
        let id = self.conns.id(key);
        if let Some(conn) = self.conns.slab.get_mut(key) {
            conn.flags.set_opened(true);
        }
        let state = self.call_for(core, key, What::Open, |handler, cx| handler.on_open(cx, id, info));
        if let (Some(state), Some(conn)) = (state, self.conns.slab.get_mut(key)) {
            conn.user = Some(state);
        }
        self.watch_idleness(core, key);
    }

    pub(crate) fn finish_connect(&mut self, core: &mut LoopCore, key: Key, readiness: Readiness) {
        let Some(conn) = self.conns.slab.get_mut(key) else { return };
        let error = match conn.stream.take_error() {
            Ok(None) => None,
            Ok(Some(error)) | Err(error) => Some(ConnectError::from(error)),
        };
        if let Some(error) = error {
            return self.connect_failed(core, key, error);
        }
        // Writable without error is not yet connected: only a peer address proves it.
        let peer = match conn.stream.peer_address() {
            Ok(peer) => peer,
            Err(error) if error.kind() == ErrorKind::NotConnected => return,
            Err(error) => return self.connect_failed(core, key, error.into()),
        };
        // Only IP sockets have ephemeral ports, which can be the very port that is connected to.
        if peer.ip().is_some() && conn.stream.local_address().is_ok_and(|local| local == peer) {
            return self.connect_failed(core, key, ConnectError::SelfConnect);
        }
        if let Err(error) = conn.stream.set_options(&self.conns.config.socket) {
            log::debug!("cannot set the options of the connection to {peer}: {error}");
        }
        conn.phase = Phase::Open;
        conn.peer = peer.clone();
        (conn.opened_ms, conn.last_in_ms, conn.last_out_ms) = (core.now_ms, core.now_ms, core.now_ms);
        conn.flags.note(readiness);
        conn.flags.set_writable(true);
        core.cancel(&mut conn.life_timer);
        self.share.load.fetch_add(1, Ordering::Relaxed);
        if let Some(client) = &mut self.client {
            client.connected(core.now, key);
        }
        self.opened(core, key, &OpenInfo { peer, proxy: None, outbound: true });
        self.conns.list_ready(key);
    }

    /// The one end of an attempt that did not become a connection.
    pub(crate) fn connect_failed(&mut self, core: &mut LoopCore, key: Key, error: ConnectError) {
        let id = self.conns.id(key);
        if let Some(mut conn) = self.conns.slab.remove(key) {
            conn.cancel_timers(core);
        }
        self.attempt_failed(core, Some(key), id, error);
    }

    pub(crate) fn on_life_timer(&mut self, core: &mut LoopCore, key: Key) {
        let Some(conn) = self.conns.slab.get_mut(key) else { return };
        conn.life_timer = None;
        match conn.phase {
            Phase::Connecting => self.connect_failed(core, key, ConnectError::Timeout),
            Phase::Preface => self.conns.begin_close(key, CloseReason::FrameDeadline, true),
            Phase::Draining | Phase::Lingering => self.conns.doomed.push(key),
            Phase::Cancelled | Phase::Open | Phase::Closing => {}
        }
    }

    /// Whether a connection from there begins with a PROXY protocol header.
    fn is_proxy(&self, peer: &Address) -> bool {
        let proxies = &self.conns.config.proxies;
        !proxies.is_empty() && peer.ip().is_some_and(|ip| proxies.iter().any(|net| net.contains(&ip)))
    }

    fn begin_preface(&mut self, core: &mut LoopCore, key: Key) {
        let deadline = core.deadline(self.conns.config.preface_timeout);
        let timer = Timer { service: self.conns.service, conn: Some(key), kind: TimerKind::Life };
        if let Some(conn) = self.conns.slab.get_mut(key) {
            conn.life_timer = Some(core.timers.insert(deadline, timer));
        }
    }

    /// Reads on in the preface. `true` when it is over and the connection is open.
    pub(crate) fn read_preface(&mut self, core: &mut LoopCore, scratch: &mut [u8], key: Key) -> bool {
        let Some(conn) = self.conns.slab.get_mut(key) else { return false };
        while conn.flags.readable() {
            core.stats.reads += 1;
            match conn.stream.read(scratch) {
                Ok(0) => {
                    self.conns.begin_close(key, CloseReason::PeerClosed, true);
                    return false;
                }
                Ok(count) => {
                    conn.count_in(core, count, scratch.len());
                    let fresh = scratch.get(..count).unwrap_or_default();
                    let buffer = conn.input.get_or_insert_with(|| core.take_input());
                    buffer.extend(fresh);
                    match proxy_protocol::parse(buffer.as_slice()) {
                        Ok(Parsed::Incomplete { .. }) => {}
                        Ok(Parsed::Header(header)) => {
                            buffer.consume(header.consumed);
                            return self.end_preface(core, key, header.source.map(Address::from));
                        }
                        Err(error) => {
                            log::debug!(
                                "{}: no PROXY header from {}: {error}",
                                self.handler.name(),
                                conn.peer
                            );
                            self.conns.begin_close(key, CloseReason::BadFrame, true);
                            return false;
                        }
                    }
                }
                Err(error) => {
                    self.read_failed(core, key, &error);
                    return false;
                }
            }
        }
        false
    }

    /// The header is there: from now on the peer is whom it names. A proxy that speaks for itself (`LOCAL`, `UNKNOWN`) stays the peer.
    fn end_preface(&mut self, core: &mut LoopCore, key: Key, source: Option<Address>) -> bool {
        let Some(conn) = self.conns.slab.get_mut(key) else { return false };
        core.cancel(&mut conn.life_timer);
        let proxy = source.map(|source| std::mem::replace(&mut conn.peer, source));
        let peer = conn.peer.clone();
        if self.share.addresses.is_some() {
            if !self.admit(&peer) {
                core.stats.shed += 1;
                log::debug!("{}: one connection too many from {peer}", self.handler.name());
                self.conns.begin_close(key, CloseReason::Local("too many from one address"), true);
                return false;
            }
            if let Some(conn) = self.conns.slab.get_mut(key) {
                conn.flags.set_counted(true);
            }
        }
        if let Some(conn) = self.conns.slab.get_mut(key) {
            conn.phase = Phase::Open;
            conn.flags.set_undecoded(conn.input.as_ref().is_some_and(|input| !input.is_empty()));
        }
        self.opened(core, key, &OpenInfo { peer, proxy, outbound: false });
        true
    }
}
