//! What comes before the first frame of a connection: a PROXY header, a TLS handshake, one after the other, or neither.

use crate::address::Address;
use crate::conn::Phase;
use crate::handler::{Handler, OpenInfo};
use crate::loop_core::{LoopCore, Timer, TimerKind};
use crate::proxy_protocol::{self, Parsed};
use crate::reason::CloseReason;
use crate::service::ServiceCell;
use crate::slab::Key;

impl<H: Handler> ServiceCell<H> {
    /// Whether a connection from there begins with a PROXY protocol header.
    pub(crate) fn is_proxy(&self, peer: &Address) -> bool {
        let proxies = &self.conns.config.proxies;
        !proxies.is_empty() && peer.ip().is_some_and(|ip| proxies.iter().any(|net| net.contains(&ip)))
    }

    /// An accepted connection begins with a preface.
    pub(crate) fn begin_preface(&mut self, core: &mut LoopCore, key: Key, behind_proxy: bool) {
        let deadline = core.deadline(self.conns.config.preface_timeout);
        let timer = Timer { service: self.conns.service, conn: Some(key), kind: TimerKind::Life };
        if let Some(conn) = self.conns.slab.get_mut(key) {
            conn.life_timer = Some(core.timers.insert(deadline, timer));
            conn.flags.set_awaits_proxy(behind_proxy);
        }
    }

    /// A connection that we made is there: it is open, or its handshake begins.
    pub(crate) fn begin_outbound(&mut self, core: &mut LoopCore, key: Key) {
        let Some(conn) = self.conns.slab.get_mut(key) else { return };
        if conn.stream.is_tls() {
            conn.phase = Phase::Preface;
            // We speak first.
            self.conns.list_ready(key);
        } else {
            self.open_outbound(core, key);
        }
    }

    /// Goes on with the preface. `true` when it is over and the connection is open.
    pub(crate) fn read_preface(&mut self, core: &mut LoopCore, scratch: &mut [u8], key: Key) -> bool {
        match self.conns.slab.get(key) {
            Some(conn) if conn.flags.awaits_proxy() => self.read_proxy_header(core, scratch, key),
            Some(_) => self.shake_hands(core, key),
            None => false,
        }
    }

    fn read_proxy_header(&mut self, core: &mut LoopCore, scratch: &mut [u8], key: Key) -> bool {
        let Some(conn) = self.conns.slab.get_mut(key) else { return false };
        while conn.flags.readable() {
            core.stats.reads += 1;
            match conn.stream.read_plain(scratch) {
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
                            return self.end_proxy_header(core, key, header.source.map(Address::from));
                        }
                        Err(error) => {
                            let name = self.handler.name();
                            log::debug!("{name}: no PROXY header from {}: {error}", conn.peer);
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
    fn end_proxy_header(&mut self, core: &mut LoopCore, key: Key, source: Option<Address>) -> bool {
        let Some(conn) = self.conns.slab.get_mut(key) else { return false };
        conn.flags.set_awaits_proxy(false);
        if let Some(source) = source {
            let proxy = std::mem::replace(&mut conn.peer, source);
            conn.make_extras().proxy = Some(proxy);
        }
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
        let Some(conn) = self.conns.slab.get_mut(key) else { return false };
        if conn.stream.is_tls() {
            // What came behind the header is the handshake's.
            if let Some(buffer) = conn.input.take() {
                conn.stream.put_back(buffer.as_slice());
                core.give_input(buffer);
            }
            return self.shake_hands(core, key);
        }
        self.open_accepted(core, key);
        true
    }

    /// The preface of an accepted connection is over: the handler may have it.
    fn open_accepted(&mut self, core: &mut LoopCore, key: Key) {
        let Some(conn) = self.conns.slab.get_mut(key) else { return };
        core.cancel(&mut conn.life_timer);
        conn.phase = Phase::Open;
        conn.flags.set_undecoded(conn.input.as_ref().is_some_and(|input| !input.is_empty()));
        let peer = conn.peer.clone();
        let proxy = conn.extras_mut().and_then(|extras| extras.proxy.take());
        self.opened(core, key, &OpenInfo { peer, proxy, outbound: false });
    }

    #[cfg(not(feature = "tls"))]
    #[expect(clippy::unused_self, reason = "without TLS nobody shakes hands")]
    const fn shake_hands(&self, _: &LoopCore, _: Key) -> bool {
        false
    }

    /// Goes on with the handshake, within the turn's budget. `true` when it is over and the connection is open.
    #[cfg(feature = "tls")]
    fn shake_hands(&mut self, core: &mut LoopCore, key: Key) -> bool {
        use crate::reason::ConnectError;
        use crate::tls::Handshake;

        if core.handshakes_left == 0 {
            self.conns.list_ready(key);
            return false;
        }
        let Some(conn) = self.conns.slab.get_mut(key) else { return false };
        let Some(tls) = conn.stream.tls_mut() else { return false };
        core.handshakes_left -= 1;
        let outbound = conn.flags.outbound();
        match tls.handshake() {
            Handshake::Done => {
                // The session, or the socket, may hold the first frames already.
                conn.flags.set_readable(true);
                if outbound {
                    self.open_outbound(core, key);
                } else {
                    self.open_accepted(core, key);
                }
                return true;
            }
            Handshake::Blocked => conn.flags.set_readable(false),
            Handshake::Closed if outbound => self.connect_failed(core, key, ConnectError::Closed),
            Handshake::Closed => self.conns.begin_close(key, CloseReason::PeerClosed, true),
            Handshake::Failed(error) if outbound => {
                let message = error.to_string();
                self.connect_failed(core, key, ConnectError::Tls { message });
            }
            Handshake::Failed(error) => {
                log::debug!("{}: no TLS with {}: {error}", self.handler.name(), conn.peer);
                // Gracefully, so that the peer gets the alert that says why.
                self.conns.begin_close(key, CloseReason::from_io(&error), false);
            }
        }
        false
    }
}
