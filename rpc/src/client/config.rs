//! The knobs of a channel, each with its reason.

use std::time::Duration;

use reactor::BackoffConfig;

use crate::wire::FRAME_BYTES_MIN;

/// How a connection is chosen for a call, among those that are ready.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Balance {
    /// The one with fewer calls under way for its weight, of two drawn at random: evens out slow endpoints, and needs no look at all of them.
    #[default]
    PowerOfTwo,
    /// Each in its turn; who has a larger weight more often.
    RoundRobin,
}

/// When and how often a call is tried again. Only what was surely not carried out, or may be carried out twice, ever is.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct RetryConfig {
    /// Tries of one call, the first included.
    pub attempts_max: u32,
    /// The wait before the second try is drawn from zero to this, and the limit doubles with each.
    pub backoff: Duration,
    /// What the limit never exceeds.
    pub backoff_max: Duration,
    /// What each call adds to the budget of retries, in percent of one: an outage multiplies the load by 1.2, not by `attempts_max`.
    pub budget_percent: u32,
    /// What each second adds to the budget, so that a channel with few calls can retry too.
    pub budget_per_second: u32,
}

impl Default for RetryConfig {
    fn default() -> Self {
        Self {
            attempts_max: 3,
            backoff: Duration::from_millis(10),
            backoff_max: Duration::from_secs(1),
            budget_percent: 20,
            budget_per_second: 10,
        }
    }
}

/// When an endpoint is left alone although it can be connected to.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct EjectionConfig {
    /// Failures in a row: no answer in time, `unavailable`, a connection lost with calls under way.
    pub failures: u32,
    /// For how long at first; doubled each time.
    pub time: Duration,
    /// What the time never exceeds.
    pub time_max: Duration,
}

impl Default for EjectionConfig {
    fn default() -> Self {
        Self { failures: 5, time: Duration::from_secs(1), time_max: Duration::from_secs(30) }
    }
}

/// How a channel behaves.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ChannelConfig {
    /// What the client calls itself to servers.
    pub name: String,
    /// How long a call may take that does not say otherwise.
    pub timeout: Duration,
    /// Connections to each endpoint from each loop.
    pub connections_per_endpoint: usize,
    /// How a connection is chosen.
    pub balance: Balance,
    /// A connection that said nothing for half of this is asked. One that has not answered after another half gets no calls until it does, and is given up
    /// after one more whole.
    pub heartbeat: Duration,
    /// Calls under way from one loop, and calls that wait there for a connection; more fail at once.
    pub in_flight_max: usize,
    /// See `in_flight_max`.
    pub waiting_max: usize,
    /// The longest answer, in bytes.
    pub body_bytes_max: usize,
    /// The bytes of long requests that may wait for one connection.
    pub outgoing_bytes_max: usize,
    /// The longest frame that is read.
    pub frame_bytes_max: usize,
    /// How long connecting may take, the hello included.
    pub connect_timeout: Duration,
    /// The waits between attempts to connect to an endpoint.
    pub backoff: BackoffConfig,
    /// How old a connection gets, give or take a tenth, before it is replaced: so that load finds its way to endpoints behind one address. `None`: any age.
    pub age_max: Option<Duration>,
    /// When calls are tried again.
    pub retry: RetryConfig,
    /// When endpoints are left alone.
    pub ejection: EjectionConfig,
    /// What all chance follows from, for tests that are to be lived through again. `None`: from the system.
    pub seed: Option<u64>,
}

impl Default for ChannelConfig {
    fn default() -> Self {
        let second = Duration::from_secs(1);
        Self {
            name: "rpc".to_owned(),
            timeout: 5 * second,
            connections_per_endpoint: 1,
            balance: Balance::default(),
            heartbeat: 2 * second,
            in_flight_max: 16 * 1024,
            waiting_max: 1024,
            body_bytes_max: 4 * 1024 * 1024,
            outgoing_bytes_max: 64 * 1024 * 1024,
            frame_bytes_max: 256 * 1024,
            connect_timeout: 3 * second,
            backoff: BackoffConfig { base: second / 10, cap: 5 * second, stable_after: 10 * second },
            age_max: Some(1800 * second),
            retry: RetryConfig::default(),
            ejection: EjectionConfig::default(),
            seed: None,
        }
    }
}

impl ChannelConfig {
    pub(super) fn checked(mut self) -> Self {
        self.frame_bytes_max = self.frame_bytes_max.clamp(FRAME_BYTES_MIN, 1 << 30);
        self.connections_per_endpoint = self.connections_per_endpoint.clamp(1, 64);
        self.heartbeat = self.heartbeat.max(Duration::from_millis(10));
        self
    }
}
