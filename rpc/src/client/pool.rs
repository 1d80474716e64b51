//! The connections of a channel on one loop: made, greeted, watched, chosen, replaced.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use reactor::codec::LengthCodec;
use reactor::{Address, Backoff, CloseReason, ConnId, ConnectError};
use rustc_hash::FxHashMap;
use smallvec::SmallVec;

use super::choice::{Candidate, Candidates};
use super::endpoint::{ClientConn, Endpoint, EndpointKey, Health, Listed};
use super::handler::{Cx, RECONNECT, TICK};
use super::{Endpoints, Shared};
use crate::chunks::PeerLimits;
use crate::wire::{self, Header, Hello, Kind};

/// What a call finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Picked {
    Conn(ConnId, EndpointKey),
    /// Nothing now, but soon: a connection is being made, or has no room.
    Wait,
    /// Every endpoint has been tried in vain, or there is none.
    Nobody,
}

pub(super) struct ConnPool {
    shared: Arc<Shared>,
    endpoints: FxHashMap<EndpointKey, Endpoint>,
    keys: u32,
    /// Whether it was said which endpoints there are.
    told: bool,
    /// The list lacks at least half of those that were on it and did not say that they leave.
    doubtful: bool,
    stopped: bool,
    /// Connections on their way.
    opening: FxHashMap<ConnId, EndpointKey>,
    candidates: Candidates,
    /// How many connections those were when it was counted last.
    ready: usize,
    rng: fastrand::Rng,
}

impl ConnPool {
    pub(super) fn new(shared: Arc<Shared>, rng: fastrand::Rng) -> Self {
        Self {
            shared,
            endpoints: FxHashMap::default(),
            keys: 0,
            told: false,
            doubtful: false,
            stopped: false,
            opening: FxHashMap::default(),
            candidates: Candidates::default(),
            ready: 0,
            rng,
        }
    }

    pub(super) fn codec(&self) -> LengthCodec {
        LengthCodec::u32(self.shared.config.frame_bytes_max)
    }

    pub(super) fn start(&self, cx: &mut Cx<'_>) {
        cx.set_interval(self.shared.config.heartbeat / 2, TICK);
    }

    pub(super) fn hello(&self) -> Header {
        let config = &self.shared.config;
        let hello = Hello {
            version: wire::VERSION,
            version_min: wire::VERSION,
            features: Vec::new(),
            frame_bytes_max: u32::try_from(config.frame_bytes_max).unwrap_or(u32::MAX),
            body_bytes_max: config.body_bytes_max as u64,
            in_flight_max: 0,
            name: config.name.clone(),
        };
        Header { hello: Some(Box::new(hello)), ..Header::of(Kind::Hello, 0) }
    }

    pub(super) fn address_of(&self, key: EndpointKey) -> Option<&Address> {
        self.endpoints.get(&key).map(|endpoint| &endpoint.address)
    }

    // Endpoints.

    pub(super) fn set_endpoints(&mut self, cx: &mut Cx<'_>, endpoints: &Endpoints) {
        let Endpoints { wanted, leaving } = endpoints;
        if self.stopped {
            return;
        }
        self.told = true;
        let mut known: Vec<EndpointKey> = self.endpoints.keys().copied().collect();
        known.sort_unstable();
        let mut missing = 0;
        for endpoint in self.endpoints.values_mut() {
            let entry = wanted.iter().find(|(address, _)| *address == endpoint.address);
            endpoint.listed = if let Some((_, weight)) = entry {
                endpoint.weight = *weight;
                Listed::Yes
            } else if endpoint.listed == Listed::Leaving
                || leaving.as_ref().is_none_or(|leaving| leaving.contains(&endpoint.address))
            {
                Listed::Leaving
            } else {
                missing += 1;
                Listed::Missing
            };
        }
        self.doubtful = missing > 0 && missing >= wanted.len();
        if self.doubtful {
            log::warn!("{missing} endpoints are missing, {} are left: who answers is called", wanted.len());
        }
        for key in &known {
            self.forsake(cx, *key);
        }
        for (address, weight) in wanted {
            let found = known.iter().find(|key| self.address_of(**key) == Some(address));
            let key = match found {
                Some(key) => *key,
                None => self.add(address.clone(), *weight),
            };
            if !known.contains(&key) {
                known.push(key);
            }
            self.fill(cx, key);
        }
        self.sort(cx);
    }

    fn add(&mut self, address: Address, weight: u32) -> EndpointKey {
        let key = EndpointKey(self.keys);
        self.keys = self.keys.wrapping_add(1);
        let endpoint = Endpoint {
            address,
            listed: Listed::Yes,
            weight,
            conns: SmallVec::new(),
            backoff: Backoff::from_config(self.shared.config.backoff),
            retry: None,
            failing: false,
            health: Health::NEW,
        };
        self.endpoints.insert(key, endpoint);
        key
    }

    /// Nobody connects to an endpoint any more that is not on the list; and if it leaves, its connections end with their calls.
    fn forsake(&mut self, cx: &mut Cx<'_>, key: EndpointKey) {
        let doubtful = self.doubtful;
        let Some(endpoint) = self.endpoints.get_mut(&key) else { return };
        if endpoint.may_connect(doubtful) {
            return;
        }
        if let Some(timer) = endpoint.retry.take() {
            cx.cancel_timer(timer);
        }
        let leaves = endpoint.listed == Listed::Leaving;
        for id in endpoint.conns.clone() {
            if self.opening.contains_key(&id) {
                cx.close(id, CloseReason::Local("not wanted any more"));
            } else if leaves {
                retire(cx, id);
            }
        }
        self.tidy(key);
    }

    /// Forgets an endpoint of which nothing is left.
    fn tidy(&mut self, key: EndpointKey) {
        if self.endpoints.get(&key).is_some_and(Endpoint::is_over) {
            self.endpoints.remove(&key);
        }
    }

    /// Begins to make the connections that an endpoint should have.
    fn fill(&mut self, cx: &mut Cx<'_>, key: EndpointKey) {
        let (codec, doubtful) = (self.codec(), self.doubtful);
        let Some(endpoint) = self.endpoints.get_mut(&key) else { return };
        let young = |id: &&ConnId| !cx.conn(**id).is_some_and(|conn| conn.old);
        let count = endpoint.conns.iter().filter(young).count();
        for _ in count..self.shared.config.connections_per_endpoint {
            if !endpoint.may_connect(doubtful) || endpoint.retry.is_some() {
                return;
            }
            self.shared.counts.connects.fetch_add(1, Ordering::Relaxed);
            match cx.connect(endpoint.address.clone(), codec.clone()) {
                Ok(id) => {
                    endpoint.conns.push(id);
                    self.opening.insert(id, key);
                }
                Err(error) => {
                    log::debug!("cannot connect to {}: {error}", endpoint.address);
                    endpoint.failing = true;
                    self.retry_later(cx, key);
                    return;
                }
            }
        }
    }

    fn retry_later(&mut self, cx: &mut Cx<'_>, key: EndpointKey) {
        let (stopped, doubtful) = (self.stopped, self.doubtful);
        let Some(endpoint) = self.endpoints.get_mut(&key) else { return };
        if endpoint.may_connect(doubtful) && endpoint.retry.is_none() && !stopped {
            let wait = endpoint.backoff.next(&mut self.rng);
            endpoint.retry = Some(cx.set_timer(wait, RECONNECT | u64::from(key.0)));
        }
    }

    pub(super) fn reconnect(&mut self, cx: &mut Cx<'_>, number: u64) {
        let Ok(number) = u32::try_from(number) else { return };
        let key = EndpointKey(number);
        if let Some(endpoint) = self.endpoints.get_mut(&key) {
            endpoint.retry = None;
        }
        self.fill(cx, key);
        self.tidy(key);
    }

    // The life of a connection.

    pub(super) fn connect_failed(&mut self, cx: &mut Cx<'_>, id: ConnId, error: &ConnectError) {
        let Some(key) = self.opening.remove(&id) else { return };
        let Some(endpoint) = self.endpoints.get_mut(&key) else { return };
        log::debug!("cannot connect to {}: {error}", endpoint.address);
        endpoint.conns.retain(|known| *known != id);
        endpoint.failing = true;
        self.retry_later(cx, key);
        self.tidy(key);
    }

    pub(super) fn opened(&mut self, cx: &mut Cx<'_>, id: ConnId) -> ClientConn {
        cx.set_conn_timer(id, self.shared.config.connect_timeout, 0);
        let key = self.opening.remove(&id).unwrap_or(EndpointKey(u32::MAX));
        let jitter = 0.9 + 0.2 * self.rng.f64();
        let age_max = self.shared.config.age_max.map(|age| age.mul_f64(jitter));
        ClientConn::new(key, cx.now(), age_max)
    }

    pub(super) fn hello_timeout(&self, cx: &mut Cx<'_>, id: ConnId) {
        if cx.conn(id).is_some_and(|conn| conn.limits.is_none()) {
            cx.abort(id, CloseReason::Local("the server said no hello"));
        }
    }

    /// Something came from the server. Whether it had said hello before; `None` for a connection that is closing.
    pub(super) fn heard(&mut self, cx: &mut Cx<'_>, id: ConnId) -> Option<bool> {
        let now = cx.now();
        let conn = cx.conn_mut(id)?;
        conn.heard = now;
        conn.pinged = None;
        let greeted = conn.limits.is_some();
        if std::mem::take(&mut conn.suspect) {
            self.sort(cx);
        }
        Some(greeted)
    }

    /// The server said hello: from now on there may be calls.
    pub(super) fn greeted(&mut self, cx: &mut Cx<'_>, id: ConnId, header: &Header) {
        let limits = header.hello.as_deref().and_then(PeerLimits::from_hello);
        let now = cx.now();
        let Some(conn) = cx.conn_mut(id) else { return };
        let key = conn.endpoint;
        if limits.is_none() {
            return cx.abort(id, CloseReason::Local("the server speaks another version"));
        }
        conn.limits = limits;
        let Some(endpoint) = self.endpoints.get_mut(&key) else { return };
        endpoint.failing = false;
        endpoint.backoff.on_connected(now);
        if endpoint.listed == Listed::Leaving {
            retire(cx, id);
        }
        // There is another now for those that are old.
        for other in endpoint.conns.clone() {
            if other != id && cx.conn(other).is_some_and(|conn| conn.old) {
                retire(cx, other);
            }
        }
        self.sort(cx);
    }

    /// No new calls on this connection; it is closed when its last has ended.
    pub(super) fn retire(&mut self, cx: &mut Cx<'_>, id: ConnId) {
        retire(cx, id);
        self.sort(cx);
    }

    /// A connection that takes nothing any more is not chosen again.
    pub(super) fn lose(&mut self, cx: &mut Cx<'_>, id: ConnId) {
        if let Some(conn) = cx.conn_mut(id) {
            conn.retired = true;
        }
        self.candidates.remove(id);
    }

    pub(super) fn closed(&mut self, cx: &mut Cx<'_>, id: ConnId, conn: &ClientConn) {
        let key = conn.endpoint;
        let now = cx.now();
        if let Some(endpoint) = self.endpoints.get_mut(&key) {
            endpoint.conns.retain(|known| *known != id);
            if conn.limits.is_none() {
                endpoint.failing = true;
            } else {
                endpoint.backoff.on_closed(now);
            }
        }
        self.retry_later(cx, key);
        self.tidy(key);
        self.sort(cx);
    }

    /// Looks after all connections: who is silent is asked, who does not answer is not used and at last given up, who is old is replaced. What is to be
    /// sent is given back.
    pub(super) fn tick(&mut self, cx: &mut Cx<'_>) -> Vec<(ConnId, Header)> {
        let half = self.shared.config.heartbeat / 2;
        let now = cx.now();
        let (mut pings, mut old, mut changed) = (Vec::new(), Vec::new(), false);
        for id in cx.open_conns() {
            let Some(conn) = cx.conn_mut(id) else { continue };
            if conn.limits.is_none() {
                continue;
            }
            match conn.pinged.map(|pinged| now.saturating_duration_since(pinged)) {
                Some(waited) if waited >= 3 * half => cx.abort(id, CloseReason::Local("no answer to a ping")),
                Some(waited) if waited >= half => changed |= !std::mem::replace(&mut conn.suspect, true),
                Some(_) => {}
                None if now.saturating_duration_since(conn.heard) >= half => {
                    conn.pinged = Some(now);
                    pings.push((id, Header::of(Kind::Ping, 0)));
                }
                None => {}
            }
            let Some(conn) = cx.conn_mut(id) else { continue };
            let age = now.saturating_duration_since(conn.opened);
            if conn.age_max.is_some_and(|max| age >= max) && !conn.old && !conn.retired {
                conn.old = true;
                old.push(conn.endpoint);
            }
        }
        // They count no more, so there is room for others; when those are ready these are retired.
        for key in old {
            self.fill(cx, key);
        }
        if changed {
            self.sort(cx);
        }
        pings
    }

    pub(super) fn stop(&mut self, cx: &mut Cx<'_>) {
        self.stopped = true;
        for endpoint in self.endpoints.values_mut() {
            endpoint.listed = Listed::Leaving;
            if let Some(timer) = endpoint.retry.take() {
                cx.cancel_timer(timer);
            }
        }
        let mut opening: Vec<_> = self.opening.keys().copied().collect();
        opening.sort_unstable();
        for id in opening.into_iter().chain(cx.open_conns()) {
            cx.close(id, CloseReason::Local("the channel has ended"));
        }
        self.sort(cx);
    }

    // Health.

    pub(super) fn succeeded(&mut self, cx: &mut Cx<'_>, key: EndpointKey) {
        if self.endpoints.get_mut(&key).is_some_and(|endpoint| endpoint.health.succeeded()) {
            self.sort(cx);
        }
    }

    pub(super) fn failed(&mut self, cx: &mut Cx<'_>, key: EndpointKey) {
        let now = cx.now();
        let Some(endpoint) = self.endpoints.get_mut(&key) else { return };
        if endpoint.health.failed(&self.shared.config.ejection, now) {
            log::warn!("{} is left alone for a while: it keeps failing", endpoint.address);
            self.shared.counts.ejections.fetch_add(1, Ordering::Relaxed);
            self.sort(cx);
        }
    }

    pub(super) fn probe_void(&mut self, cx: &Cx<'_>, key: EndpointKey) {
        if let Some(endpoint) = self.endpoints.get_mut(&key) {
            endpoint.health.probe_void(cx.now());
        }
    }

    // The choice.

    /// Puts the connections into the lists that they are chosen from.
    fn sort(&mut self, cx: &Cx<'_>) {
        let (mut ready, mut ejected) = (Vec::new(), Vec::new());
        let mut keys: Vec<EndpointKey> = self.endpoints.keys().copied().collect();
        keys.sort_unstable();
        for key in keys {
            let Some(endpoint) = self.endpoints.get(&key) else { continue };
            let list = if endpoint.health.is_good() { &mut ready } else { &mut ejected };
            let usable = |id: &&ConnId| !self.stopped && cx.conn(**id).is_some_and(ClientConn::is_ready);
            let weight = endpoint.weight;
            list.extend(endpoint.conns.iter().filter(usable).map(|id| Candidate {
                conn: *id,
                endpoint: key,
                weight,
            }));
        }
        let before = std::mem::replace(&mut self.ready, ready.len() + ejected.len());
        // Wraps below zero and back: what is added and taken away comes out even.
        self.shared.counts.ready.fetch_add(self.ready.wrapping_sub(before), Ordering::Relaxed);
        self.candidates.set(&ready, ejected);
    }

    /// A connection for a call, not to `avoid` if there is another.
    pub(super) fn pick(&mut self, cx: &Cx<'_>, avoid: Option<EndpointKey>) -> Picked {
        if let Some(probe) = self.probe(cx) {
            return probe;
        }
        if self.candidates.is_empty() {
            return self.why_none();
        }
        let chosen = self.candidates.choose(cx, avoid, self.shared.config.balance, &mut self.rng);
        chosen.map_or(Picked::Wait, |chosen| Picked::Conn(chosen.conn, chosen.endpoint))
    }

    /// An endpoint that was left alone for long enough, to see whether it has recovered.
    fn probe(&mut self, cx: &Cx<'_>) -> Option<Picked> {
        if self.candidates.ejected().is_empty() {
            return None;
        }
        let now: Instant = cx.now();
        for Candidate { conn, endpoint: key, .. } in self.candidates.ejected() {
            if let Some(endpoint) = self.endpoints.get_mut(key)
                && cx.conn(*conn).is_some_and(ClientConn::has_room)
                && endpoint.health.begin_probe(now)
            {
                return Some(Picked::Conn(*conn, *key));
            }
        }
        None
    }

    fn why_none(&self) -> Picked {
        // Not known yet, or on its way: worth a wait. One that has failed is connected to again, but nobody waits for that.
        let hope = !self.told
            || self.endpoints.values().any(|known| known.may_connect(self.doubtful) && !known.failing);
        if hope && !self.stopped { Picked::Wait } else { Picked::Nobody }
    }
}

fn retire(cx: &mut Cx<'_>, id: ConnId) {
    let Some(conn) = cx.conn_mut(id) else { return };
    conn.retired = true;
    if conn.in_flight == 0 {
        cx.close(id, CloseReason::Local("drained"));
    }
}
