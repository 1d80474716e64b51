//! One endpoint of a channel on one loop, and one connection to it.

use std::time::{Duration, Instant};

use reactor::{Address, Backoff, ConnId, TimerKey};
use smallvec::SmallVec;

use super::config::EjectionConfig;
use crate::chunks::{Assembly, Outbox, PeerLimits, SendsLarge};

/// The number of an endpoint on its loop. Not used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct EndpointKey(pub(super) u32);

/// Whether an endpoint is to be trusted with calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Health {
    /// It is, after so many failures in a row.
    Good { failures: u32 },
    /// It is left alone until then.
    Ejected { until: Instant, times: u32 },
    /// One call is on its way to find out.
    Probing { times: u32 },
}

impl Health {
    pub(super) const NEW: Self = Self::Good { failures: 0 };

    /// There was a real answer. Whether the endpoint is trusted again by this.
    pub(super) fn succeeded(&mut self) -> bool {
        let returns = !matches!(self, Self::Good { .. });
        *self = Self::NEW;
        returns
    }

    /// A call failed in a way that speaks against the endpoint. Whether it is left alone by this.
    pub(super) fn failed(&mut self, config: &EjectionConfig, now: Instant) -> bool {
        let times = match *self {
            Self::Good { failures } if failures + 1 < config.failures => {
                *self = Self::Good { failures: failures + 1 };
                return false;
            }
            Self::Good { .. } => 0,
            Self::Probing { times } => times,
            Self::Ejected { .. } => return false,
        };
        let time = config.time.saturating_mul(1 << times.min(16)).min(config.time_max);
        *self = Self::Ejected { until: now + time, times: times + 1 };
        true
    }

    /// Whether a call may be sent to find out how it is. If so, it is on its way.
    pub(super) fn begin_probe(&mut self, now: Instant) -> bool {
        match *self {
            Self::Ejected { until, times } if until <= now => {
                *self = Self::Probing { times };
                true
            }
            _ => false,
        }
    }

    /// The call that was to find out did not: it was given up.
    pub(super) fn probe_void(&mut self, now: Instant) {
        if let Self::Probing { times } = *self {
            *self = Self::Ejected { until: now, times };
        }
    }

    pub(super) const fn is_good(self) -> bool {
        matches!(self, Self::Good { .. })
    }
}

/// Whether an endpoint is on the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Listed {
    Yes,
    /// It is not, and did not say that it leaves: it is called as long as it answers.
    Missing,
    /// It gets no more calls, and stays until its last call has ended.
    Leaving,
}

/// An endpoint.
pub(super) struct Endpoint {
    pub(super) address: Address,
    pub(super) listed: Listed,
    /// How much of the load it is meant for, beside others.
    pub(super) weight: u32,
    /// Connections that are open or being opened.
    pub(super) conns: SmallVec<[ConnId; 2]>,
    pub(super) backoff: Backoff,
    /// The next attempt to connect.
    pub(super) retry: Option<TimerKey>,
    /// Whether the last attempt to connect failed.
    pub(super) failing: bool,
    pub(super) health: Health,
}

impl Endpoint {
    /// Whether it may be connected to. A list that lacks half of those that were on it is `doubtful`: then those that are missing are connected to as well, until one
    /// does not answer.
    pub(super) const fn may_connect(&self, doubtful: bool) -> bool {
        match self.listed {
            Listed::Yes => true,
            Listed::Missing => doubtful && !self.failing,
            Listed::Leaving => false,
        }
    }

    /// Whether nothing is left of it.
    pub(super) fn is_over(&self) -> bool {
        self.listed != Listed::Yes && self.conns.is_empty() && self.retry.is_none()
    }
}

/// A connection.
pub(super) struct ClientConn {
    pub(super) endpoint: EndpointKey,
    /// From the server's hello, without which there are no calls.
    pub(super) limits: Option<PeerLimits>,
    pub(super) in_flight: u32,
    /// No new calls: the server asked for it, or the connection is to be replaced.
    pub(super) retired: bool,
    /// Its age is over; it is retired when there is another.
    pub(super) old: bool,
    pub(super) opened: Instant,
    pub(super) age_max: Option<Duration>,
    pub(super) heard: Instant,
    /// When the ping was sent that has no answer.
    pub(super) pinged: Option<Instant>,
    /// The ping is without an answer for too long.
    pub(super) suspect: bool,
    pub(super) outbox: Outbox,
    pub(super) arriving: Assembly<()>,
}

impl ClientConn {
    pub(super) fn new(endpoint: EndpointKey, now: Instant, age_max: Option<Duration>) -> Self {
        Self {
            endpoint,
            limits: None,
            in_flight: 0,
            retired: false,
            old: false,
            opened: now,
            age_max,
            heard: now,
            pinged: None,
            suspect: false,
            outbox: Outbox::default(),
            arriving: Assembly::default(),
        }
    }

    /// Whether calls may be sent on it.
    pub(super) const fn is_ready(&self) -> bool {
        self.limits.is_some() && !self.retired && !self.suspect
    }

    pub(super) fn has_room(&self) -> bool {
        self.limits.is_some_and(|limits| self.in_flight < limits.in_flight_max)
    }
}

impl SendsLarge for ClientConn {
    fn outbox(&mut self) -> (&mut Outbox, usize) {
        let piece = self.limits.map_or(1, |limits| limits.piece_bytes_max);
        (&mut self.outbox, piece)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_that_fails_is_left_alone_and_returns_only_after_an_answer() {
        let (config, now) = (EjectionConfig::default(), Instant::now());
        let mut health = Health::NEW;
        for _ in 1..config.failures {
            assert!(!health.failed(&config, now));
        }
        assert!(health.failed(&config, now) && !health.is_good());
        assert!(!health.begin_probe(now), "not yet");
        let later = now + config.time;
        assert!(health.begin_probe(later) && !health.begin_probe(later), "one call is enough");
        assert!(!health.is_good(), "the time alone does not bring it back");
        assert!(health.failed(&config, later));
        assert_eq!(health, Health::Ejected { until: later + config.time * 2, times: 2 }, "twice as long");
        assert!(health.begin_probe(later + config.time * 2));
        assert!(health.succeeded() && health.is_good());
    }

    #[test]
    fn an_answer_in_between_begins_the_count_anew() {
        let (config, now) = (EjectionConfig::default(), Instant::now());
        let mut health = Health::NEW;
        for _ in 0..20 {
            assert!(!health.failed(&config, now));
            assert!(!health.failed(&config, now));
            assert!(!health.succeeded());
        }
    }

    #[test]
    fn a_probe_that_was_given_up_can_be_made_again() {
        let (config, now) = (EjectionConfig { failures: 1, ..EjectionConfig::default() }, Instant::now());
        let mut health = Health::NEW;
        assert!(health.failed(&config, now));
        let later = now + config.time;
        assert!(health.begin_probe(later));
        health.probe_void(later);
        assert!(health.begin_probe(later));
    }
}
