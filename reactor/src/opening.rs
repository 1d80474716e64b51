//! How a connection begins: accepted or connected, past its preface, until the handler is told of it.

use std::io::ErrorKind;
use std::sync::atomic::Ordering;

use crate::address::Address;
use crate::conn::{Conn, Phase};
use crate::flags::Readiness;
use crate::handler::{Handler, OpenInfo};
use crate::id::Token;
use crate::loop_core::LoopCore;
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
        let stream = match stream.secured(&self.conns.config, false) {
            Ok(stream) => stream,
            Err(error) => {
                log::warn!("{}: no TLS session for {peer}: {error}", self.handler.name());
                return self.shed(core);
            }
        };
        let codec = guarded(core, |_| self.handler.codec());
        let behind_proxy = self.is_proxy(&peer);
        let phase = if behind_proxy || stream.is_tls() { Phase::Preface } else { Phase::Open };
        let counted = !behind_proxy && self.share.addresses.is_some();
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
            Some(key) if phase == Phase::Preface => self.begin_preface(core, key, behind_proxy),
            Some(key) => self.opened(core, key, &OpenInfo { peer, proxy: None, outbound: false }),
        }
    }

    fn shed(&self, core: &mut LoopCore) {
        core.stats.shed += 1;
        self.share.load.fetch_sub(1, Ordering::Relaxed);
    }

    /// Counts a connection from `peer`, unless there are too many.
    pub(crate) fn admit(&self, peer: &Address) -> bool {
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
    pub(crate) fn opened(&mut self, core: &mut LoopCore, key: Key, info: &OpenInfo) {
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
        conn.peer = peer;
        conn.flags.set_outbound(true);
        conn.flags.note(readiness);
        conn.flags.set_writable(true);
        self.begin_outbound(core, key);
    }

    /// The connection that we made can be used: the handler may have it.
    pub(crate) fn open_outbound(&mut self, core: &mut LoopCore, key: Key) {
        let Some(conn) = self.conns.slab.get_mut(key) else { return };
        conn.phase = Phase::Open;
        let peer = conn.peer.clone();
        (conn.opened_ms, conn.last_in_ms, conn.last_out_ms) = (core.now_ms, core.now_ms, core.now_ms);
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
}
